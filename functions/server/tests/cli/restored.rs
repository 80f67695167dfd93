//! A restored directory, held against the record: byte for byte, metadata included.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::model::Timestamp;
use pipeline::s3::{Acl, ObjectMetadata, Tags};
use serde::Deserialize;
use serde_json::Value;

use super::program::Program;
use super::record::{NULL, Record, Version};

/// How far off the times of what only listings tell of may be: two listings, on a machine that is busy.
pub const SLACK: Duration = Duration::from_secs(60);
/// The same where the process was killed again and again, and nobody looked meanwhile.
pub const UNWATCHED: Duration = Duration::from_secs(600);

/// The group of an ACL that everybody is in.
const EVERYBODY: &str = "uri=http://acs.amazonaws.com/groups/global/AllUsers";

/// What the product says of a restored object beside its file.
#[derive(Deserialize)]
struct Properties {
    object: String,
    path: String,
    #[serde(default)]
    removed: bool,
    version: Option<String>,
    at: Option<Timestamp>,
    etag: Option<String>,
    #[serde(default)]
    metadata: ObjectMetadata,
    #[serde(default)]
    tags: Tags,
    /// Absent where ACLs are not kept.
    acl: Option<Acl>,
}

/// How much was compared.
#[derive(Debug, Default, Clone, Copy)]
pub struct Compared {
    pub restores: usize,
    pub keys: usize,
    pub uncertain: usize,
    /// Objects that everybody may read.
    pub public: usize,
    /// Objects that were written while versions were suspended.
    pub null: usize,
}

impl std::ops::AddAssign for Compared {
    fn add_assign(&mut self, other: Compared) {
        self.restores += other.restores;
        self.keys += other.keys;
        self.uncertain += other.uncertain;
        self.public += other.public;
        self.null += other.null;
    }
}

/// Restores to an instant, into a new directory, and compares; as [`compare`]. Only where the process was killed again and again may
/// it be an instant at which nobody listened, and then the restore says so.
pub fn restore_and_compare(program: &Program, url: &str, vault: &str, record: &Record, at: Timestamp, slack: Duration) -> Compared {
    let folder = tempfile::tempdir_in(program.folder()).expect("a folder");
    let target = folder.path().join("out");
    let to = at.to_string();
    let target_text = target.to_str().expect("a plain path");
    let ended = program.run(&["restore", url, "--vault", vault, "--to", &to, "--target", target_text, "--json"]);
    let report: Value = serde_json::from_str(&ended.output).unwrap_or_else(|error| panic!("{error}: {} {}", ended.errors, ended.output));
    let is_in_gap = report["gaps"]["count"].as_u64().is_some_and(|gaps| gaps > 0);
    assert_eq!(ended.code, if is_in_gap { 3 } else { 0 }, "restored to {to}: {}{}", ended.errors, ended.output);
    assert!(slack >= UNWATCHED || !is_in_gap, "restored to {to}: somebody listened all the time: {}", ended.output);
    compare(record, at, &target, &report, slack).unwrap_or_else(|wrong| {
        let known = record.objects.keys().filter(|key| wrong.contains(&format!("{key:?}")));
        let known: String = known.map(|key| program.ok(&["history", &format!("{url}/{key}"), "--vault", vault, "--json"])).collect();
        panic!("restored to {to}: {wrong}\nThe vault has:\n{known}")
    })
}

/// Compares what a restore left in a directory with the record. `slack` is how far off the times may be of what it calls
/// uncertain. The error says what is wrong.
pub fn compare(record: &Record, at: Timestamp, target: &Path, report: &Value, slack: Duration) -> Result<Compared, String> {
    let mut restored = properties(target);
    let mut files = files(target);
    let named: Vec<&str> = report["uncertain"]["first"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut compared = Compared { restores: 1, ..Compared::default() };
    for (key, versions) in &record.objects {
        let is_named = |version: &Version| named.iter().any(|named| named.starts_with(&format!("{key} ({})", version.id)));
        let uncertain = versions.iter().any(is_named);
        if uncertain && !record.is_unsettled(key, at, slack) {
            return Err(format!("{key:?} is called uncertain in {named:?}, and nothing happened to it then: {}", history(versions)));
        }
        let allowed = record.current(key, at, if uncertain { slack } else { Duration::ZERO });
        let found = restored.remove(key);
        let index = match &found {
            None => None,
            Some(found) => {
                let is_it =
                    |version: &Version| Some(&version.id) == found.version.as_ref() && (version.id != NULL || found.at == Some(version.at));
                let known = versions.iter().position(is_it);
                Some(known.ok_or_else(|| format!("{key:?} is of version {:?} of {:?}, which never was", found.version, found.at))?)
            }
        };
        if !allowed.contains(&index) {
            return Err(format!("{key:?} is {index:?} and not {allowed:?} of {}", history(versions)));
        }
        if let (Some(found), Some(index)) = (found, index) {
            // The file lies beside a directory of the same name, where other keys need that.
            let beside = format!("{}%=", found.path);
            let content = files.remove(&target.join(&found.path)).or_else(|| files.remove(&target.join(beside)));
            let content = content.ok_or_else(|| format!("{key:?} has no file {}", found.path))?;
            same(&found, &content, &versions[index]).map_err(|what| format!("{key:?}: {what} differs"))?;
            compared.public += usize::from(found.acl.as_ref().is_some_and(is_public));
            compared.null += usize::from(versions[index].id == NULL);
        }
        compared.keys += 1;
        compared.uncertain += usize::from(uncertain);
    }
    match (restored.pop_first(), files.pop_first()) {
        (None, None) => Ok(compared),
        (object, file) => Err(format!("nobody wrote {:?}, {:?}", object.map(|(key, _)| key), file.map(|(path, _)| path))),
    }
}

fn same(found: &Properties, content: &[u8], version: &Version) -> Result<(), &'static str> {
    let wanted = &version.metadata;
    for (same, what) in [
        (content == version.content, "the content"),
        (found.at == Some(version.at), "the time"),
        (found.etag.as_ref() == Some(&version.etag), "the etag"),
        (found.metadata.content_type == wanted.content_type, "the content type"),
        (found.metadata.cache_control == wanted.cache_control, "the cache control"),
        (found.metadata.user == wanted.user, "the user metadata"),
        (found.tags == version.tags, "the tags"),
        (found.acl.as_ref().is_none_or(|acl| is_public(acl) == version.public), "the ACL"),
    ] {
        if !same {
            return Err(what);
        }
    }
    Ok(())
}

fn is_public(acl: &Acl) -> bool {
    acl.grants.iter().any(|grant| grant.grantee == EVERYBODY && grant.permission == "READ")
}

/// The versions of a key, for a message.
fn history(versions: &[Version]) -> String {
    let line = |version: &Version| {
        let what = if version.marker { "marker" } else { "put" };
        let purged = version.purged.map(|(from, until)| format!(", purged {from} to {until}"));
        format!("\n  {} {what} at {}{}", version.id, version.at, purged.unwrap_or_default())
    };
    versions.iter().map(line).collect()
}

fn properties(target: &Path) -> BTreeMap<String, Properties> {
    let mut found = BTreeMap::new();
    // A restore of nothing leaves nothing behind.
    let Ok(lines) = std::fs::read_to_string(target.join(".hindsight/objects.jsonl")) else { return found };
    // A line that a kill cut off says nothing.
    for line in lines.lines().filter_map(|line| serde_json::from_str::<Properties>(line).ok()) {
        match line.removed {
            true => drop(found.remove(&line.object)),
            false => drop(found.insert(line.object.clone(), line)),
        }
    }
    found
}

/// Every file of a target with its content, but for the target's own.
pub fn files(target: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![target.to_owned()]);
    while let Some(folder) = folders.pop() {
        // A kill may come before the target is made.
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            match path.is_dir() {
                true if path.ends_with(".hindsight") => {}
                true => folders.push(path),
                false => drop(files.insert(path.clone(), std::fs::read(&path).expect("a readable file"))),
            }
        }
    }
    files
}
