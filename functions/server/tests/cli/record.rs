//! The record: what a bucket held at every instant, by whoever wrote to it. It never sees the product.
//!
//! ```text
//!  key ─→ versions in the order in which they were made
//!           at       the server's own LastModified
//!           purged   between asking for it and the answer, because a server dates no purge
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pipeline::model::Timestamp;
use pipeline::s3::{ObjectMetadata, Tags};

/// The version id of what is written while a bucket keeps no versions: the next such write of the key takes its place.
pub const NULL: &str = "null";

/// One version, as it was written.
#[derive(Debug, Clone)]
pub struct Version {
    pub id: String,
    pub marker: bool,
    /// When the server says that it came to be.
    pub at: Timestamp,
    /// When its writer knew of it.
    pub answered: Timestamp,
    pub content: Vec<u8>,
    pub etag: String,
    pub metadata: ObjectMetadata,
    pub tags: Tags,
    /// Whether everybody may read it, by its ACL.
    pub public: bool,
    /// Whether it was uploaded in parts: then a listing cannot date it exactly.
    pub parts: bool,
    /// Removed for good, at some moment of this interval.
    pub purged: Option<(Timestamp, Timestamp)>,
}

/// Every version of every key.
#[derive(Debug, Default)]
pub struct Record {
    pub objects: BTreeMap<String, Vec<Version>>,
}

/// Whether something was so at an instant.
#[derive(PartialEq)]
enum Answer {
    Yes,
    No,
    Either,
}

impl Version {
    /// `slack` is how far off the times of what only listings tell of may be.
    fn was_there(&self, at: Timestamp, slack: Duration) -> Answer {
        let born = if at < self.at {
            Answer::No
        } else if self.parts && at < self.answered.plus(slack) && !slack.is_zero() {
            Answer::Either
        } else {
            Answer::Yes
        };
        match &self.purged {
            Some((_, until)) if until.plus(slack) <= at => Answer::No,
            Some((from, _)) if from.minus(slack) <= at && born != Answer::No => Answer::Either,
            _ => born,
        }
    }
}

impl Record {
    /// What a plain GET of a key could find at an instant: the index of a version, or nothing. More than one answer only
    /// where a purge was under way.
    pub fn current(&self, key: &str, at: Timestamp, slack: Duration) -> BTreeSet<Option<usize>> {
        let mut found = BTreeSet::new();
        for (index, version) in self.objects[key].iter().enumerate().rev() {
            let answer = version.was_there(at, slack);
            if answer != Answer::No {
                found.insert((!version.marker).then_some(index));
            }
            if answer == Answer::Yes {
                return found;
            }
        }
        found.insert(None);
        found
    }

    /// Whether anything of a key was so near to an instant that who only lists cannot say on which side.
    pub fn is_unsettled(&self, key: &str, at: Timestamp, slack: Duration) -> bool {
        self.objects[key].iter().any(|version| version.was_there(at, slack) == Answer::Either)
    }

    /// The instants at which something came to be.
    pub fn instants(&self) -> BTreeSet<Timestamp> {
        self.objects.values().flatten().map(|version| version.at).collect()
    }

    /// How many changes there were.
    pub fn changes(&self) -> usize {
        self.objects.values().flatten().map(|version| 1 + usize::from(version.purged.is_some())).sum()
    }
}
