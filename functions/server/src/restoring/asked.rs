//! What a restore is asked for: by flags, or by a file with the same names, over which flags go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::Args;
use pipeline::model::{ResourceId, ResourceKind, Timestamp};
use pipeline::replay::Selection;
use pipeline::replay::run::RestoreOptions;
use pipeline::replay::select::Versions;
use pipeline::target::Mode;
use serde::Deserialize;

use crate::exit::Failure;

/// What to restore, as of when, to where.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Asked {
    /// The bucket that is restored, or the database, or the virtual machine.
    #[arg(value_name = "s3://BUCKET|db://NAME|vm://NAME")]
    #[serde(alias = "bucket")]
    resource: Option<String>,
    /// The time: RFC 3339, 5m ago, now, or latest; of a database also xid:NUMBER, lsn:X/Y or marker:NAME.
    #[arg(long, value_name = "TIME", alias = "at")]
    to: Option<String>,
    /// Where to: a bucket (s3://OTHER or s3://OTHER/prefix) or a directory; of a database a new one.
    #[arg(long, value_name = "s3://OTHER[/PREFIX]|DIR|postgres://...")]
    target: Option<String>,
    /// The S3 server of the target: an endpoint's name or URL [default: that of --endpoint-url, or of the source].
    #[arg(long, value_name = "NAME|URL")]
    pub target_endpoint: Option<String>,
    /// Only keys that begin so; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    prefix: Vec<String>,
    /// Only keys that match: * within a path segment, ** across, ?, [a-z], {a,b}; may be given several times.
    #[arg(long, value_name = "GLOB")]
    glob: Vec<String>,
    /// Only this key; may be given several times.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// Only the keys in this file, one a line; with a NUL in it, one per NUL.
    #[arg(long, value_name = "FILE")]
    keys_from: Option<PathBuf>,
    /// Of a database only this table: schema.table, or table in whichever schema; *, ? and [a-z] stand for others; may be given several
    /// times. The other tables are made, and left empty.
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Only objects of at least so many bytes: 1000, 10MB or 10MiB. With --versions: whose newest version was.
    #[arg(long, value_name = "BYTES")]
    size_min: Option<ByteSize>,
    /// Only objects of at most so many bytes. With --versions: whose newest version was.
    #[arg(long, value_name = "BYTES")]
    size_max: Option<ByteSize>,
    /// Only objects that had this tag then; of several all. With --versions: of which some version had them.
    #[arg(long, value_name = "NAME=VALUE")]
    tag: Vec<Tag>,
    /// Which versions: current, the newest N, or all that were live [default: current].
    #[arg(long, value_name = "current|N|all")]
    versions: Option<VersionsFlag>,
    /// What to do about objects of the same name: skip (leave them), overwrite (replace what differs), exact (also remove
    /// what did not exist then). Must be given where the target holds anything.
    #[arg(long)]
    mode: Option<Mode>,
    /// Only what is proven: refuse a time up to which anything may still be missing.
    #[arg(long)]
    pub proven: bool,
    /// Leave out ACLs.
    #[arg(long)]
    no_acls: bool,
    /// Only say what would be done: exactly what then happens.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before objects are removed.
    #[arg(long, short)]
    pub yes: bool,
    /// Read all of this from a JSON file: {"resource": "s3://...", "to": "...", "target": "...", "glob": [...], ...}.
    #[arg(long, value_name = "FILE.json")]
    #[serde(skip)]
    request: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Tag {
    name: String,
    value: String,
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Tag, String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is no tag: write NAME=VALUE"))?;
        Ok(Tag { name: name.to_owned(), value: value.to_owned() })
    }
}

impl TryFrom<String> for Tag {
    type Error = String;

    fn try_from(text: String) -> Result<Tag, String> {
        text.parse()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
struct VersionsFlag(Versions);

/// A number in a file may stand there as one, or as on a command line.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Word(String),
}

impl FromStr for VersionsFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<VersionsFlag, String> {
        Ok(VersionsFlag(match text {
            "current" => Versions::Current,
            "all" => Versions::All,
            count => match count.parse() {
                Ok(count) if count > 0 => Versions::Last(count),
                _ => return Err(format!("{text:?} names no versions: write current, a number, or all")),
            },
        }))
    }
}

impl TryFrom<Written> for VersionsFlag {
    type Error = String;

    fn try_from(written: Written) -> Result<VersionsFlag, String> {
        match written {
            Written::Number(count) => count.to_string().parse(),
            Written::Word(text) => text.parse(),
        }
    }
}

impl Asked {
    /// What the flags say over what the file says, if there is one.
    pub fn with_file(self) -> Result<Asked> {
        let Some(path) = &self.request else { return Ok(self) };
        let wrong = |reason: String| Failure::usage(format!("cannot take the request from {}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: Asked = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(self.over(file))
    }

    fn over(self, file: Asked) -> Asked {
        fn list<T>(flags: Vec<T>, file: Vec<T>) -> Vec<T> {
            if flags.is_empty() { file } else { flags }
        }
        Asked {
            resource: self.resource.or(file.resource),
            to: self.to.or(file.to),
            target: self.target.or(file.target),
            target_endpoint: self.target_endpoint.or(file.target_endpoint),
            prefix: list(self.prefix, file.prefix),
            glob: list(self.glob, file.glob),
            key: list(self.key, file.key),
            table: list(self.table, file.table),
            keys_from: self.keys_from.or(file.keys_from),
            size_min: self.size_min.or(file.size_min),
            size_max: self.size_max.or(file.size_max),
            tag: list(self.tag, file.tag),
            versions: self.versions.or(file.versions),
            mode: self.mode.or(file.mode),
            proven: self.proven || file.proven,
            no_acls: self.no_acls || file.no_acls,
            dry_run: self.dry_run || file.dry_run,
            yes: self.yes || file.yes,
            request: self.request,
        }
    }

    /// The bucket or the database that is restored.
    pub fn resource(&self) -> Result<&str, Failure> {
        self.resource.as_deref().ok_or_else(|| Failure::usage("say what is restored: s3://BUCKET, db://NAME or vm://NAME"))
    }

    /// Whether it names files that must be read.
    pub fn reads_files(&self) -> bool {
        self.keys_from.is_some()
    }

    /// The tables of a database that are wanted; none for all.
    pub fn tables(&self) -> &[String] {
        &self.table
    }

    /// A flag that is given and says something of objects.
    pub fn only_for_buckets(&self) -> Option<&'static str> {
        [
            ("--target-endpoint", self.target_endpoint.is_some()),
            ("--prefix", !self.prefix.is_empty()),
            ("--glob", !self.glob.is_empty()),
            ("--key", !self.key.is_empty()),
            ("--keys-from", self.keys_from.is_some()),
            ("--size-min", self.size_min.is_some()),
            ("--size-max", self.size_max.is_some()),
            ("--tag", !self.tag.is_empty()),
            ("--versions", self.versions.is_some()),
            ("--mode", self.mode.is_some()),
            ("--no-acls", self.no_acls),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    /// A flag that is given and says something of one resource.
    pub fn only_for_one(&self) -> Option<&'static str> {
        let own = [("a resource", self.resource.is_some()), ("--target", self.target.is_some()), ("--table", !self.table.is_empty())];
        let own = own.into_iter().find_map(|(flag, given)| given.then_some(flag));
        // These hold for every bucket of a group.
        own.or_else(|| Asked { mode: None, no_acls: false, target_endpoint: None, ..self.clone() }.only_for_buckets())
    }

    /// The same for one of a group, which is restored whole.
    pub fn for_member(&self, resource: &ResourceId, target: &str, to: Timestamp) -> Asked {
        let of_buckets = if resource.kind() == ResourceKind::Bucket { self.clone() } else { Asked::default() };
        Asked {
            resource: Some(resource.to_string()),
            target: Some(target.to_owned()),
            to: Some(to.to_string()),
            dry_run: self.dry_run,
            ..of_buckets
        }
    }

    /// The time.
    pub fn to(&self) -> Result<&str, Failure> {
        self.to.as_deref().ok_or_else(|| Failure::usage("say as of when: --to TIME, or --to latest"))
    }

    /// Where to.
    pub fn target(&self) -> Result<&str, Failure> {
        self.target.as_deref().ok_or_else(|| {
            Failure::usage("say where to: --target s3://OTHER, or --target DIR, or of a database --target postgres://USER@HOST:PORT/NEW")
        })
    }

    /// How it is done.
    pub fn options(&self) -> Result<RestoreOptions> {
        let mut keys: BTreeSet<String> = self.key.iter().cloned().collect();
        if let Some(path) = &self.keys_from {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read keys from {}", path.display()))?;
            let listed = keys_in(&text);
            if listed.is_empty() {
                // No keys would choose everything.
                return Err(Failure::usage(format!("{} names no keys", path.display())).into());
            }
            keys.extend(listed);
        }
        if self.mode == Some(Mode::Exact) && (self.size_min.is_some() || self.size_max.is_some() || !self.tag.is_empty()) {
            let reason = "--mode exact cannot be told which objects by size or tag: what did not exist then had none. Choose by key, \
                          or take --mode overwrite, which removes nothing";
            return Err(Failure::usage(reason).into());
        }
        if let (Some(min), Some(max)) = (self.size_min, self.size_max)
            && min > max
        {
            let sizes = format!("no object has at least {} bytes (--size-min) and at most {} (--size-max)", min.as_u64(), max.as_u64());
            return Err(Failure::usage(sizes).into());
        }
        let mut tags: BTreeMap<String, String> = BTreeMap::new();
        for Tag { name, value } in &self.tag {
            if tags.insert(name.clone(), value.clone()).is_some_and(|other| other != *value) {
                return Err(Failure::usage(format!("--tag {name} is given with two values, and an object has one")).into());
            }
        }
        let selection = Selection {
            prefixes: self.prefix.clone(),
            globs: self.glob.clone(),
            keys,
            size_min: self.size_min.map(|size| size.as_u64()),
            size_max: self.size_max.map(|size| size.as_u64()),
            tags: tags.into_iter().collect(),
            versions: self.versions.map_or(Versions::Current, |versions| versions.0),
        };
        Ok(RestoreOptions { selection, mode: self.mode, acls: !self.no_acls, dry_run: self.dry_run, ..plain_options() })
    }
}

/// Everything, and nothing special about it.
pub fn plain_options() -> RestoreOptions {
    RestoreOptions { acls: true, ..RestoreOptions::default() }
}

fn keys_in(text: &str) -> Vec<String> {
    // Some editors put a byte order mark before the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let keys: Box<dyn Iterator<Item = &str>> = if text.contains('\0') { Box::new(text.split('\0')) } else { Box::new(text.lines()) };
    keys.filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_over_the_file() {
        let file: Asked = serde_json::from_str(
            r#"{"to": "latest", "glob": ["*.jpg"], "versions": 3, "mode": "overwrite", "tag": ["a=b=c"], "target-endpoint": "office"}"#,
        )
        .unwrap();
        let asked = Asked { glob: vec!["*.png".to_owned()], ..Asked::default() }.over(file);
        let options = asked.options().unwrap();
        assert_eq!((asked.to().unwrap(), options.mode), ("latest", Some(Mode::Overwrite)));
        assert_eq!((options.selection.globs, options.selection.versions), (vec!["*.png".to_owned()], Versions::Last(3)));
        assert_eq!(options.selection.tags, [("a".to_owned(), "b=c".to_owned())]);
    }

    #[test]
    fn sizes_are_numbers_or_have_a_unit() {
        let file: Asked = serde_json::from_str(r#"{"size-min": 10, "size-max": "10MB"}"#).unwrap();
        let selection = file.options().unwrap().selection;
        assert_eq!((selection.size_min, selection.size_max), (Some(10), Some(10_000_000)));
        assert_eq!("2MiB".parse::<ByteSize>().map(|size| size.as_u64()), Ok(2 << 20));
        assert!("10 apples".parse::<ByteSize>().is_err());
    }

    #[test]
    fn what_a_file_misspells_is_an_error() {
        for text in [
            r#"{"globs": []}"#,
            r#"{"versions": "0"}"#,
            r#"{"versions": 0}"#,
            r#"{"versions": -1}"#,
            r#"{"mode": "careful"}"#,
            r#"{"tag": ["x"]}"#,
        ] {
            assert!(serde_json::from_str::<Asked>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_stand_on_lines_or_between_nuls() {
        assert_eq!(keys_in("a\n\nb c\r\n"), ["a", "b c"]);
        assert_eq!(keys_in("a\nb\0c\0"), ["a\nb", "c"]);
        assert_eq!(keys_in("\u{feff}a\r\nb\r\n"), ["a", "b"]);
    }
}
