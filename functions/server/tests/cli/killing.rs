//! The real process, killed with SIGKILL: at every named point of its code, and at random moments.
//!
//! ```text
//!  the process ─→ stands at a point ─→ SIGKILL ─→ what was acknowledged is there, what is visible is whole
//!                        │                        the same command again ─→ final state, history, restores = the record
//!                        └─→ another does the same work meanwhile, then the first goes on: nothing is corrupted
//! ```

#[path = "killing/capturing.rs"]
mod capturing;
#[path = "killing/compacting.rs"]
mod compacting;
#[path = "killing/copying.rs"]
mod copying;
#[path = "killing/databases.rs"]
mod databases;
#[path = "killing/machines.rs"]
mod machines;
#[path = "killing/prepared.rs"]
mod prepared;
#[path = "killing/protecting.rs"]
mod protecting;
#[path = "killing/restoring.rs"]
mod restoring;
#[path = "killing/rivals.rs"]
mod rivals;

use std::collections::BTreeSet;
use std::path::Path;

/// What a process is doing when it comes to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Protecting,
    Scanning,
    Capturing,
    Copying,
    Compacting,
    Restoring,
    Removing,
    Following,
    Rebuilding,
    BackingUp,
}

/// Every named point, and where a process is killed at it.
const POINTS: &[(&str, Stage)] = &[
    ("vault::before-record", Stage::Protecting),
    ("protection::before-record", Stage::Protecting),
    ("protection::after-record", Stage::Protecting),
    ("scan::before-cursor", Stage::Scanning),
    ("pack::before-upload", Stage::Capturing),
    ("pack::after-upload", Stage::Capturing),
    ("vault::staged", Stage::Capturing),
    ("vault::linked", Stage::Capturing),
    ("capture::bodies-stored", Stage::Capturing),
    ("capture::before-segment", Stage::Capturing),
    ("capture::after-segment", Stage::Capturing),
    ("intake::before-ack", Stage::Capturing),
    ("reconcile::before-record", Stage::Capturing),
    ("reconcile::after-record", Stage::Capturing),
    ("copy::begun", Stage::Copying),
    ("copy::part-copied", Stage::Copying),
    ("copy::before-completion", Stage::Copying),
    ("copy::after-completion", Stage::Copying),
    ("merge::files-written", Stage::Compacting),
    ("base::files-written", Stage::Compacting),
    ("manifest::before", Stage::Compacting),
    ("manifest::after", Stage::Compacting),
    ("restore::after-note", Stage::Restoring),
    ("restore::before-object", Stage::Restoring),
    ("directory::before-rename", Stage::Restoring),
    ("directory::before-record", Stage::Restoring),
    ("restore::after-object", Stage::Restoring),
    ("restore::before-report", Stage::Restoring),
    ("restore::after-end", Stage::Restoring),
    ("restore::before-remove", Stage::Removing),
    ("database::begun", Stage::Following),
    ("database::slot-made", Stage::Following),
    ("database::snapshot-read", Stage::Following),
    ("database::read-again", Stage::Following),
    ("database::sequences-read", Stage::Following),
    ("database::before-segment", Stage::Following),
    ("database::after-segment", Stage::Following),
    ("database::tables-made", Stage::Rebuilding),
    ("database::bucket-written", Stage::Rebuilding),
    ("database::bucket-done", Stage::Rebuilding),
    ("database::before-indexes", Stage::Rebuilding),
    ("database::restored", Stage::Rebuilding),
    ("gateway::before-snapshot", Stage::BackingUp),
    ("gateway::snapshot-taken", Stage::BackingUp),
    ("gateway::before-point", Stage::BackingUp),
    ("gateway::after-point", Stage::BackingUp),
    ("gateway::after-settling", Stage::BackingUp),
];

fn points(stage: Stage) -> impl Iterator<Item = &'static str> {
    POINTS.iter().filter(move |(_, at)| *at == stage).map(|(point, _)| *point)
}

/// How often each kind of work is killed at a random moment.
fn random_kills() -> u64 {
    if std::env::var_os("SLOW").is_some() { 110 } else { 7 }
}

#[test]
fn every_named_point_has_its_kill() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders: Vec<_> = ["pipeline/src", "functions"].map(|folder| root.join(folder)).into();
    let mut named = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                let names = text.split("fail_point!(\"").skip(1).filter_map(|rest| rest.split('"').next());
                named.extend(names.map(str::to_owned));
            }
        }
    }
    assert_eq!(named, POINTS.iter().map(|(point, _)| (*point).to_owned()).collect());
    assert!(named.len() == POINTS.len(), "each point is named once");
}
