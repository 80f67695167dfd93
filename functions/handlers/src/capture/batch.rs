//! Changes on their way to be complete, and what may become of each.

use pipeline::model::Digest;
use pipeline::model::Timestamp;
use pipeline::model::change::ObjectChange;
use pipeline::source::s3_read::{GONE, Properties};
use pipeline::vault::body::Whole;
use pipeline::vault::pack::Placed;

use super::Absorbed;

/// Where one change's content went, until the packs are flushed.
pub(super) struct Placement {
    pub(super) index: usize,
    pub(super) content: Kept,
    pub(super) properties: Box<Properties>,
}

/// How a content is kept.
pub(super) enum Kept {
    Slices(Vec<Placed>, Digest),
    Whole(Whole),
}

/// Why a change is not what it was told to be.
pub(super) enum Outcome {
    Gone,
    Lost(String),
    Refuse(String),
    Again(String),
}

impl Outcome {
    pub(super) fn lost(reason: String) -> Outcome {
        if reason == GONE { Outcome::Gone } else { Outcome::Lost(reason) }
    }
}

/// Changes by what is to be done to complete them, as indices.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) small: Vec<usize>,
    pub(super) larger: Vec<usize>,
    pub(super) large: Vec<usize>,
    pub(super) copy: Vec<usize>,
    pub(super) facets: Vec<usize>,
    pub(super) markers: Vec<usize>,
}

/// Changes on their way to be complete.
pub(super) struct Batch {
    pub(super) changes: Vec<ObjectChange>,
    /// Which of them are not to be kept.
    pub(super) left_out: Vec<bool>,
    pub(super) absorbed: Absorbed,
    pub(super) placements: Vec<Placement>,
    /// Versions that were gone when they were asked for.
    pub(super) gone: Vec<usize>,
    /// A put that is older, of a version that is gone, has nothing to say.
    tombstones_after: Timestamp,
}

impl Batch {
    pub(super) fn new(changes: Vec<ObjectChange>, tombstones_after: Timestamp) -> Batch {
        Batch {
            left_out: vec![false; changes.len()],
            changes,
            absorbed: Absorbed::default(),
            placements: Vec::new(),
            gone: Vec::new(),
            tombstones_after,
        }
    }

    /// The content of a change is kept.
    pub(super) fn place(&mut self, index: usize, content: Kept, properties: Box<Properties>) {
        self.placements.push(Placement { index, content, properties });
    }

    /// A change is not what it was told to be.
    pub(super) fn settle(&mut self, index: usize, outcome: Outcome) {
        let change = &mut self.changes[index];
        match outcome {
            Outcome::Gone if change.at < self.tombstones_after && change.via == "event" => {
                tracing::debug!("a put older than every remembered delete, of a version that is gone");
                self.absorbed.outdated += 1;
                self.left_out[index] = true;
            }
            Outcome::Gone => {
                self.gone.push(index);
                if !change.marker {
                    self.absorbed.lost += 1;
                    change.lost = Some(GONE.to_owned());
                }
            }
            Outcome::Lost(reason) => {
                self.absorbed.lost += 1;
                change.lost = Some(reason);
            }
            Outcome::Refuse(reason) => {
                self.left_out[index] = true;
                self.absorbed.refused.push((index, reason));
            }
            Outcome::Again(reason) => {
                self.left_out[index] = true;
                self.absorbed.again.push((index, reason));
            }
        }
    }

    /// What it came to, with changes that were found beside it.
    pub(super) fn finish(mut self, found: impl IntoIterator<Item = ObjectChange>) -> Absorbed {
        let kept = self.changes.into_iter().zip(self.left_out).filter(|(_, out)| !out).map(|(change, _)| change);
        self.absorbed.changes = kept.chain(found).collect();
        self.absorbed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    #[test]
    fn a_put_that_comes_after_its_delete_was_forgotten_brings_nothing_back() {
        let put =
            |version: &str, second: i64, via: &str| ObjectChange { via: via.to_owned(), ..ObjectChange::put("a", version, at(second)) };
        // Deletes are remembered from second 10 on.
        let told = vec![put("old", 9, "event"), put("new", 10, "event"), put("listed", 9, "scan"), put("there", 9, "event")];
        let mut batch = Batch::new(told, at(10));
        // Three of the versions are gone, and one can still be read.
        (0..3).for_each(|index| batch.settle(index, Outcome::Gone));
        let absorbed = batch.finish([]);
        assert_eq!((absorbed.outdated, absorbed.lost), (1, 2));
        let kept: Vec<(&str, bool)> = absorbed.changes.iter().map(|change| (change.version.as_str(), change.lost.is_some())).collect();
        assert_eq!(kept, [("new", true), ("listed", true), ("there", false)], "what is newer than that is lost, and said to be");
    }
}
