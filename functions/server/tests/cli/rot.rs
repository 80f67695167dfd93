//! A vault that rots: every byte of it flipped, every file cut short, made longer, exchanged for another or lost. A restore
//! then gives exactly what it should, or an error with a name; and `verify` names every file that is not what it was.
//!
//! ```text
//!  the binary ─→ a small vault ─→ one damage ─→ restore to three instants ─→ right, or named
//!                                         └───→ verify ─────────────────────→ not sound
//! ```

#[path = "rot/memory.rs"]
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use handlers::restore::{RestoreRequest, restore};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::run::{Quiet, RestoreOptions};
use pipeline::replay::{Certainty, RestorePoint};
use pipeline::target::Target;
use pipeline::vault::Vault;
use pipeline::verify;

use self::memory::{Held, MemoryTarget};
use super::power::{Now, text};
use super::traffic::{Precision, Traffic};
use super::world::{World, seaweed};

/// Flips that are tried where not every byte is.
const FLIPS: usize = 2_500;
/// Damages that are looked at at the same time.
const CHECKS_AT_ONCE: usize = 2;

/// A vault's files by their paths.
type Files = BTreeMap<String, Bytes>;
/// What a restore gave: every object, or why there is none.
type Outcome = Result<BTreeMap<String, Result<Held, String>>, String>;

/// A vault that was made by the binary, and what it restores to.
struct Sound {
    files: Files,
    resource: ResourceId,
    instants: Vec<Timestamp>,
    restored: Vec<Outcome>,
}

/// What was done to a vault.
struct Damage {
    what: String,
    /// The files that are others now; none for one that is lost.
    changed: Vec<(String, Option<Bytes>)>,
    /// Whether `verify` can know.
    told: bool,
}

impl Damage {
    fn to(path: &str, what: impl std::fmt::Display, content: Option<Vec<u8>>) -> Damage {
        Damage { what: format!("{path} {what}"), changed: vec![(path.to_owned(), content.map(Bytes::from))], told: true }
    }
}

impl Sound {
    async fn new(bucket: &str) -> Sound {
        let world = World::new(seaweed(), bucket, true).await;
        let (program, url) = (&world.program, world.url());
        let mut traffic = Traffic::new(&world, Precision::Seconds, 2, 9);
        traffic.small = true;
        program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:60"]);
        let reconcile = ["reconcile", &url, "--vault", "./vault"];
        let compact = ["compact", &url, "--vault", "./vault", "--base-now"];
        // A base, a merge beside it, and a tail of the log.
        for commands in [&[&reconcile[..], &compact][..], &[&reconcile, &compact], &[&reconcile], &[&reconcile]] {
            for _ in 0..10 {
                traffic.work().await;
            }
            commands.iter().for_each(|command| drop(program.ok(command)));
            tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        }
        program.ok(&reconcile);
        let status = program.json(&["status", "--vault", "./vault"]);
        let window = &status[0]["vaults"][0]["resources"][0]["window"];
        let mark = |name: &str| window[name].as_str().and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or_else(|| panic!("{window}"));
        let (earliest, latest) = (mark("earliest"), mark("latest"));
        let middle = Timestamp::from_micros(earliest.micros().midpoint(latest.micros()));
        let files = files(&program.folder().join("vault"));
        let resource = ResourceId::bucket(bucket).expect("a name");
        let mut sound = Sound { files, resource, instants: vec![earliest, middle, latest], restored: Vec::new() };
        let (restored, verified) = std::thread::scope(|scope| scope.spawn(|| sound.look(&sound.files)).join()).expect("a sound vault");
        assert_eq!(verified, Ok(true));
        assert!(restored.iter().all(|outcome| outcome.as_ref().is_ok_and(|objects| objects.values().all(Result::is_ok))), "{restored:?}");
        sound.restored = restored;
        sound
    }

    /// What these files restore to, and whether they are said to be sound.
    fn look(&self, files: &Files) -> (Vec<Outcome>, Result<bool, String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let store = Arc::new(InMemory::new());
            for (path, bytes) in files {
                store.put(&path.as_str().into(), bytes.clone().into()).await.expect("memory");
            }
            let vault = Vault::new(store.clone() as Arc<dyn ObjectStore>, "");
            let report = verify::verify(&vault, &self.resource, &Now, &verify::Quiet).await;
            let mut restored = Vec::new();
            for at in &self.instants {
                restored.push(self.restore(&vault, *at).await);
            }
            (restored, report.map(|report| report.sound).map_err(text))
        })
    }

    async fn restore(&self, vault: &Vault, at: Timestamp) -> Outcome {
        handlers::vault::open(vault).await.map_err(text)?;
        let options = RestoreOptions::default();
        let (to, certainty) = (RestorePoint::Time(at), Certainty::Arrived);
        let request = RestoreRequest { resource: self.resource.clone(), to, certainty, options };
        let memory = Arc::new(MemoryTarget::default());
        let target: Arc<dyn Target> = memory.clone();
        let report = restore(vault, &request, &target, &Now, &Quiet).await.map_err(text)?;
        let mut objects: BTreeMap<String, Result<Held, String>> = memory.take().into_iter().map(|(key, held)| (key, Ok(held))).collect();
        for key in report.lost.first.into_iter().chain(report.failed_keys.first) {
            objects.insert(key, Err("it is named".to_owned()));
        }
        Ok(objects)
    }

    /// Holds a damaged vault against the sound one. Says whether anything of it was noticed by a restore.
    fn check(&self, damage: &Damage) -> Result<bool, String> {
        let mut files = self.files.clone();
        for (path, bytes) in &damage.changed {
            match bytes {
                Some(bytes) => drop(files.insert(path.clone(), bytes.clone())),
                None => drop(files.remove(path)),
            }
        }
        let looked = catch_unwind(AssertUnwindSafe(|| self.look(&files))).map_err(|_| "it panics".to_owned())?;
        let (restored, verified) = looked;
        let mut noticed = false;
        for ((at, restored), right) in self.instants.iter().zip(&restored).zip(&self.restored) {
            let (restored, right) = match (restored, right) {
                (Ok(restored), Ok(right)) => (restored, right),
                (Err(reason), _) if is_named(reason) => {
                    noticed = true;
                    continue;
                }
                (Err(reason), _) => return Err(format!("to {at}: an error without a name: {reason}")),
                (_, Err(reason)) => return Err(format!("the sound vault gave an error: {reason}")),
            };
            for (key, right) in right {
                match restored.get(key) {
                    None => return Err(format!("to {at}: {key:?} is missing, and nobody says so")),
                    Some(Err(_)) => noticed = true,
                    Some(restored) if restored != right => return Err(format!("to {at}: {key:?} is wrong, and nobody says so")),
                    Some(_) => {}
                }
            }
            if let Some(invented) = restored.keys().find(|key| !right.contains_key(*key)) {
                return Err(format!("to {at}: {invented:?} is restored, and was not there"));
            }
        }
        match verified {
            Ok(false) => Ok(noticed),
            Ok(true) if !damage.told => Ok(noticed),
            Ok(true) => Err("verify says that all is sound".to_owned()),
            Err(reason) => Err(format!("verify gives up: {reason}")),
        }
    }

    /// Checks many damages; panics at one that gives anything wrong.
    fn check_all(&self, name: &str, damages: &[Damage]) {
        let (next, noticed) = (AtomicUsize::new(0), AtomicU64::new(0));
        let work = || {
            while let Some(damage) = damages.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.check(damage) {
                    Ok(seen) => drop(noticed.fetch_add(u64::from(seen), Ordering::Relaxed)),
                    Err(wrong) => {
                        next.store(damages.len(), Ordering::Relaxed);
                        panic!("{}: {wrong}", damage.what);
                    }
                }
            }
        };
        std::thread::scope(|scope| (0..CHECKS_AT_ONCE).for_each(|_| drop(scope.spawn(work))));
        let bytes: usize = self.files.values().map(Bytes::len).sum();
        println!(
            "{name}: {} damages of {} files with {bytes} bytes; a restore noticed {}, and was right in all others",
            damages.len(),
            self.files.len(),
            noticed.into_inner()
        );
    }
}

/// Whether an error says which file it is about, or what is refused and why.
fn is_named(reason: &str) -> bool {
    ["is damaged", "is missing from the vault", "has format version", "there is no vault", "cannot restore", "the vault does not have"]
        .iter()
        .any(|name| reason.contains(name))
}

/// Files that nobody reads: what trying out the store left behind.
fn is_read(path: &str) -> bool {
    !path.starts_with("state/v1/probe/")
}

/// The files of a vault.
fn files(folder: &std::path::Path) -> Files {
    let (mut files, mut folders) = (Files::new(), vec![folder.to_owned()]);
    while let Some(open) = folders.pop() {
        for entry in std::fs::read_dir(&open).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).expect("it lies there").to_str().expect("text").to_owned();
            files.insert(name, std::fs::read(&path).expect("a file").into());
        }
    }
    files.retain(|path, _| is_read(path));
    files
}

/// What kind of file it is: files of one kind may be taken for each other.
fn kind(path: &str) -> &str {
    let end = if path.starts_with("state/") { path.match_indices('/').nth(2) } else { path.match_indices('/').next() };
    end.map_or(path, |(at, _)| &path[..at])
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn is_numbered(path: &str) -> bool {
    kind(path).starts_with("state/") || kind(path) == "manifest"
}

fn is_slow() -> bool {
    std::env::var_os("SLOW").is_some()
}

/// The Parquet reader's panics are caught; what they say would fill the screen.
fn be_quiet() {
    std::panic::set_hook(Box::new(|info| {
        if info.location().is_some_and(|place| place.file().contains("tests")) {
            eprintln!("{info}");
        }
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_byte_of_a_vault_makes_a_restore_wrong() {
    let sound = Sound::new("rot-flip").await;
    be_quiet();
    let bytes: usize = sound.files.values().map(Bytes::len).sum();
    let step = if is_slow() { 1 } else { bytes.div_ceil(FLIPS) };
    let mut damages = Vec::new();
    let mut skip = 0;
    for (path, content) in &sound.files {
        while skip < content.len() {
            let mut flipped = content.to_vec();
            flipped[skip] ^= 1 << (skip % 8);
            damages.push(Damage::to(path, format_args!("with byte {skip} flipped"), Some(flipped)));
            skip += step;
        }
        skip -= content.len();
    }
    sound.check_all("flipped bytes", &damages);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_that_is_cut_short_longer_lost_or_exchanged_makes_a_restore_wrong() {
    let sound = Sound::new("rot-files").await;
    be_quiet();
    let mut damages = Vec::new();
    for (path, content) in &sound.files {
        // A list of covers may be empty: there is nothing to cut off it.
        let lengths: BTreeSet<usize> = [0, 1, content.len() / 2, content.len().saturating_sub(1)].into();
        for length in lengths.into_iter().filter(|length| *length < content.len()) {
            damages.push(Damage::to(path, format_args!("cut to {length} bytes"), Some(content[..length].to_vec())));
        }
        damages.push(Damage::to(path, "with a byte more", Some([content, &b"\0"[..]].concat())));
        if !content.is_empty() {
            damages.push(Damage::to(path, "all zeros", Some(vec![0; content.len()])));
        }
    }
    sound.check_all("changed files", &damages);

    // A segment that nothing names yet leaves no trace when it is lost, so segments are left out here.
    let lost = sound.files.keys().filter(|path| kind(path) != "log").map(|path| Damage {
        // Nor does the last of numbered records.
        told: sound.files.range(path.clone()..).skip(1).any(|(next, _)| folder(next) == folder(path)) || !is_numbered(path),
        ..Damage::to(path, "lost", None)
    });
    sound.check_all("lost files", &lost.collect::<Vec<_>>());

    let mut exchanged = Vec::new();
    for (a, one) in &sound.files {
        for (b, other) in sound.files.range(a.clone()..).skip(1).filter(|(b, other)| kind(a) == kind(b) && *other != one) {
            let changed = vec![(a.clone(), Some(other.clone())), (b.clone(), Some(one.clone()))];
            exchanged.push(Damage { what: format!("{a} and {b} exchanged"), changed, told: true });
            exchanged.push(Damage::to(b, format_args!("exchanged for {a}"), Some(one.to_vec())));
        }
    }
    sound.check_all("exchanged files", &exchanged);
}
