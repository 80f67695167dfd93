//! Reading contents of neighbours together, before they are asked for one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Work;
use super::object::WantedVersions;
use super::outcome::Outcome;
use crate::target::{ExistingObject, Occupied};
use crate::vault::ahead::{self, Ahead};
use crate::vault::body::Body;

/// Contents of neighbours are read together up to so many bytes of them, while earlier ones are still being written.
const READ_AHEAD_BYTES: u64 = 8 << 20;
/// Where a target holds objects, contents are read ahead when at least one of so many is written.
const READ_AHEAD_SHARE_MIN: u64 = 4;

/// How many objects were dealt with so far, and how many of them were written.
#[derive(Default)]
pub(super) struct Outcomes {
    all: AtomicU64,
    written: AtomicU64,
}

impl Outcomes {
    pub(super) fn note(&self, outcomes: &[Outcome]) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.written.fetch_add(u64::from(outcomes.iter().any(|outcome| outcome.action.is_write())), Ordering::Relaxed);
    }

    fn are_often_writes(&self) -> bool {
        let (all, written) = (self.all.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        written > 0 && written * READ_AHEAD_SHARE_MIN >= all
    }
}

/// An object with what the target holds of it, and how its contents are read.
pub(super) type Task = (Arc<Ahead>, Option<ExistingObject>, WantedVersions);

impl Work<'_> {
    /// Plans to read the contents of neighbours together, piece by piece so that memory is bounded. Where the target holds most
    /// of them already, what would be read along would be read in vain.
    pub(super) fn read_ahead(&self, wanted: Vec<(Option<ExistingObject>, WantedVersions)>) -> Vec<Task> {
        let alone: Arc<Ahead> = Arc::default();
        if self.options.dry_run || self.occupied == Occupied::Holds && !self.outcomes.are_often_writes() {
            return wanted.into_iter().map(|(there, object)| (Arc::clone(&alone), there, object)).collect();
        }
        let mut tasks = Vec::with_capacity(wanted.len());
        let (mut piece, mut bodies, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut close = |piece: &mut Vec<_>, bodies: &mut Vec<Body>| {
            let ahead = Arc::new(Ahead::of(&*bodies));
            bodies.clear();
            tasks.extend(piece.drain(..).map(|(there, object)| (Arc::clone(&ahead), there, object)));
        };
        for (there, object) in wanted {
            for version in &object.versions {
                // What cannot be read is named when it is tried.
                let Some(Ok(body)) = version.body.as_deref().map(str::parse::<Body>) else { continue };
                bytes += version.size.min(u64::from(ahead::SMALL_BYTES));
                bodies.push(body);
            }
            piece.push((there, object));
            if bytes >= READ_AHEAD_BYTES {
                close(&mut piece, &mut bodies);
                bytes = 0;
            }
        }
        close(&mut piece, &mut bodies);
        tasks
    }
}
