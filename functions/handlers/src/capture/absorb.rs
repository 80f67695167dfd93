//! Completing changes: what each lacks is read at the source, and what the source says of it decides what is kept.
//!
//! ```text
//!  changes ─→ tasks ─→ contents, copies, facets, markers ─→ packs are flushed ─→ complete changes
//!                └──────── what is not what it was told to be: an outcome ──────────┘
//! ```

use std::collections::HashSet;

use fail::fail_point;
use pipeline::model::change::{Facet, NULL_VERSION, ObjectChange, Op};
use pipeline::model::position::is_sequenced;
use pipeline::model::{Clock, Timestamp};
use pipeline::vault::body::SLICE_BYTES;

use super::batch::{Batch, Outcome, Tasks};
use super::looks::date_marker;
use super::{Absorbed, Capture, CaptureError};
use crate::dating;

/// Contents above this are read a few at a time, because they are held in memory.
const SMALL_BYTES: i64 = 256 << 10;

/// What is to be done to complete a change.
enum Task {
    /// To read a content of up to [`SMALL_BYTES`], or of a length that nobody told.
    Small,
    /// Of up to [`SLICE_BYTES`].
    Larger,
    /// Of more.
    Large,
    /// To let the server copy a content.
    Copy,
    /// To read tags or an ACL.
    Facet,
    /// To ask whether a delete marker is there, and since when.
    Marker,
    /// Nothing: it is complete.
    Nothing,
    /// Nothing: the vault has it.
    Known,
    /// Nothing: it cannot be what it says.
    Refuse(String),
}

impl Capture {
    /// Completes changes: reads contents into packs, and tags and ACLs. When this comes back, the contents are in the
    /// vault, and the changes may be appended.
    ///
    /// # Errors
    /// [`CaptureError::Vault`]. What the source does not give is in [`Absorbed::again`].
    pub async fn absorb(&mut self, changes: Vec<ObjectChange>, tombstones_after: Timestamp) -> Result<Absorbed, CaptureError> {
        let mut batch = Batch::new(changes, tombstones_after);
        let mut tasks = self.sort_out(&mut batch);
        self.keep_contents(&mut batch, &mut tasks).await?;
        let facets = tasks.facets.iter().map(|&index| (index, &batch.changes[index]));
        for (index, read) in self.read_facets(facets).await {
            match read {
                Ok(change) => batch.changes[index] = change,
                Err(outcome) => batch.settle(index, outcome),
            }
        }
        let markers = tasks.markers.iter().map(|&index| (index, &batch.changes[index]));
        for (index, standing) in self.look_for(markers).await {
            if let Err(outcome) = date_marker(&mut batch.changes[index], standing, self.shared.clock.now()) {
                batch.settle(index, outcome);
            }
        }
        self.writer.flush(&self.shared.vault).await?;
        fail_point!("capture::bodies-stored");
        let unread = self.fill_in(&mut batch).await?;
        let purges = self.purges_of(&batch.gone, &batch.changes);
        Ok(batch.finish(purges.into_iter().chain(unread)))
    }

    /// What is to be done to complete the changes.
    fn sort_out(&self, batch: &mut Batch) -> Tasks {
        let mut tasks = Tasks::default();
        for index in 0..batch.changes.len() {
            let list = match self.task(&batch.changes[index]) {
                Task::Small => &mut tasks.small,
                Task::Larger => &mut tasks.larger,
                Task::Large => &mut tasks.large,
                Task::Copy => &mut tasks.copy,
                Task::Facet => &mut tasks.facets,
                Task::Marker => &mut tasks.markers,
                Task::Nothing => continue,
                Task::Known => {
                    batch.left_out[index] = true;
                    batch.absorbed.known += 1;
                    continue;
                }
                Task::Refuse(reason) => {
                    batch.settle(index, Outcome::Refuse(reason));
                    continue;
                }
            };
            list.push(index);
        }
        tasks
    }

    /// What is to be done to complete a change.
    fn task(&self, change: &ObjectChange) -> Task {
        match (change.op, change.facet) {
            (Op::Put, Facet::Tags | Facet::Acl) => return Task::Facet,
            (Op::Put, Facet::Version) if !change.object.is_empty() => {}
            _ => return Task::Nothing,
        }
        let is_ordered = change.via == "event" && change.version != NULL_VERSION && is_sequenced(&change.position);
        let task = self.known(|known| {
            let known = known.find(&change.object, &change.version).filter(|_| is_ordered)?;
            // There is one event of it, and nothing that comes again under its name has more to say.
            let contradiction = || dating::contradiction(change, known, self.shared.clock.now()).map(Task::Refuse);
            if known.told { Some(Task::Known) } else { contradiction().filter(|_| known.stored) }
        });
        if let Some(task) = task {
            return task;
        }
        let is_marker_known = || self.known(|known| known.find(&change.object, &change.version).is_some());
        // One that no listing has shown: nothing but an event says that it was ever there.
        let is_hearsay = change.via == "event" && change.version != NULL_VERSION && !is_sequenced(&change.position);
        match change.size {
            _ if change.marker && (is_ordered || is_hearsay) && !is_marker_known() => Task::Marker,
            _ if change.marker => Task::Nothing,
            _ if self.is_stored(change) => Task::Nothing,
            _ if self.copying.as_ref().is_some_and(|copying| copying.takes(change)) => Task::Copy,
            Some(size) if size > SLICE_BYTES as i64 => Task::Large,
            Some(size) if size > SMALL_BYTES => Task::Larger,
            _ => Task::Small,
        }
    }

    /// Of versions that events told of, and that were gone when they were asked for: they were purged meanwhile, and when,
    /// their own purge may tell, or nobody.
    fn purges_of(&self, gone: &[usize], changes: &[ObjectChange]) -> Vec<ObjectChange> {
        let now = self.shared.clock.now();
        let told: HashSet<(&str, &str)> = changes
            .iter()
            .filter(|change| change.op == Op::Delete)
            .map(|change| (change.object.as_str(), change.version.as_str()))
            .collect();
        let is_news = |put: &&ObjectChange| {
            put.via == "event"
                && put.version != NULL_VERSION
                && !told.contains(&(put.object.as_str(), put.version.as_str()))
                && !self.known(|known| known.is_purged(&put.object, &put.version))
        };
        let purge = |put: &ObjectChange| ObjectChange {
            via: "scan".to_owned(),
            stream: put.stream.clone(),
            at_bound: Some(put.at),
            ..ObjectChange::delete(&put.object, &put.version, now.max(put.at).end_of_second())
        };
        gone.iter().map(|&index| &changes[index]).filter(is_news).map(purge).collect()
    }

    /// Whether the vault has this very version's content.
    fn is_stored(&self, change: &ObjectChange) -> bool {
        let overwritten_in_place = change.version == pipeline::s3::NULL_VERSION;
        change.body.is_some()
            || self.known(|known| {
                let version = known.find(&change.object, &change.version);
                version.is_some_and(|known| {
                    known.stored && !(overwritten_in_place && (known.etag.as_deref() != change.etag.as_deref() || known.at != change.at))
                })
            })
    }
}
