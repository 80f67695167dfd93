//! Where a restore writes: another S3 bucket, the same one, or a local directory.
//!
//! ```text
//! state at T ─┐
//!             ├→ decide (create, overwrite, skip, remove ...) ─→ write, remove ─→ report
//! survey ─────┘        └→ tally: what a dry run prints
//! ```
//!
//! A target knows how to look at what it holds and how to make one object so; what shall happen to each object is
//! decided before, in [`decide`](mod@decide), which has no I/O and is what a dry run prints.

pub mod bucket;
pub mod compare;
pub mod decide;
pub mod directory;
pub mod report;

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream;
use serde::{Deserialize, Serialize};

use crate::model::{Checksum, Timestamp};
use crate::s3::{Acl, BucketError, Content, ObjectMetadata, Tags};
use crate::vault::body::Whole;
use crate::view::ObjectVersion;

pub use bucket::BucketTarget;
pub use compare::{Aspect, Comparing, Comparison};
pub use decide::{Action, Case, Mode, Reason, Tally, decide};
pub use directory::{DirectoryTarget, vault_around};

/// One object version as it shall be at the target.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedObject {
    /// The object's key at the target (a target prefix is already in it).
    pub object: String,
    /// Its version id at the source.
    pub version: String,
    /// Nothing, on top of older versions.
    pub marker: bool,
    /// When it came to be at the source.
    pub at: Timestamp,
    /// Content length in bytes.
    pub size: u64,
    /// The source's etag, where it stated one.
    pub etag: Option<String>,
    /// SHA-256 of the content, in hexadecimal.
    pub digest: Option<String>,
    /// What the content comes to, where nobody has seen it to take its SHA-256.
    pub checksums: Vec<Checksum>,
    /// Storage class at the source.
    pub storage_class: Option<String>,
    /// Headers and user metadata.
    pub metadata: ObjectMetadata,
    /// Tags at the restored instant.
    pub tags: Tags,
    /// ACL at the restored instant, where ACLs were kept and shall be restored.
    pub acl: Option<Acl>,
    /// Only where nothing has the name, or it is [`TargetError::Exists`].
    pub creates: bool,
}

impl WantedObject {
    /// A version as it shall be under this key; its ACL only if that is wanted.
    pub fn of(version: &ObjectVersion, object: String, acls: bool) -> WantedObject {
        WantedObject {
            object,
            version: version.version.clone(),
            marker: version.marker,
            at: version.at,
            size: version.size,
            etag: version.etag.clone(),
            digest: version.digest.map(|digest| digest.to_string()),
            checksums: version.body.as_deref().and_then(Whole::of_body).map(|whole| whole.checksums).unwrap_or_default(),
            storage_class: version.storage_class.clone(),
            metadata: version.metadata.clone(),
            tags: version.tags.clone(),
            acl: version.acl.clone().filter(|_| acls),
            creates: false,
        }
    }
}

/// One object that a target holds already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExistingObject {
    /// The object's key.
    pub object: String,
    /// Content length in bytes.
    pub size: u64,
    /// The etag, where the target has such a thing.
    pub etag: Option<String>,
    /// Its current version id, where the target keeps versions.
    pub version: Option<String>,
}

/// What a target holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The objects that were asked for, by key.
    pub objects: BTreeMap<String, ExistingObject>,
    /// Folders that are vaults, whatever was asked for: the beginning of the keys in each, which is empty where all of it is one.
    pub vaults: Vec<String>,
}

/// The folders in which a key or path lies, the outermost, which has no name, first: each with its slash.
pub(crate) fn folders(prefix: &str) -> impl Iterator<Item = &str> {
    std::iter::once("").chain(prefix.match_indices('/').map(|(at, slash)| &prefix[..at + slash.len()]))
}

/// What is there is part of a vault: what is put beside it would be taken for a part of it, and what is removed is lost.
pub(crate) fn holds_vault(target: String, folder: &str) -> TargetError {
    let place = if folder.is_empty() { "it".to_owned() } else { format!("{folder:?} in it") };
    TargetError::Refused { target, reason: format!("{place} is a vault; choose a place that neither holds a vault nor lies in one") }
}

/// Why a target did not take something.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The target is not what a restore can go to; the user must decide.
    #[error("cannot restore to {target}: {reason}")]
    Refused {
        /// The target as the user named it.
        target: String,
        /// Why not, and what next.
        reason: String,
    },
    /// It could not be looked at or prepared at all.
    #[error("cannot use {target}: {reason}")]
    Unusable {
        /// The target as the user named it.
        target: String,
        /// Why not.
        reason: String,
        /// Whether trying again may help.
        transient: bool,
    },
    /// One object could not be looked at, written or removed; others may.
    #[error("cannot restore {object:?} to {target}: {reason}")]
    Object {
        /// The target as the user named it.
        target: String,
        /// The object's key.
        object: String,
        /// Why not.
        reason: String,
        /// Whether trying again may help.
        transient: bool,
    },
    /// The object was to be created ([`WantedObject::creates`]), and something has its name by now.
    #[error("{object:?} came to be at {target} meanwhile")]
    Exists {
        /// The target as the user named it.
        target: String,
        /// The object's key.
        object: String,
    },
}

impl TargetError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            TargetError::Refused { .. } | TargetError::Exists { .. } => false,
            TargetError::Unusable { transient, .. } | TargetError::Object { transient, .. } => *transient,
        }
    }
}

/// What a restore writes to. Every implementation passes the same conformance suite.
///
/// Writing the same object twice is writing it once; writes of different objects come in parallel. Everything that is
/// written lies inside the target. A write that fails, or whose future is dropped, leaves what was there before.
#[async_trait]
pub trait Target: Send + Sync {
    /// The target as a person writes it: `s3://bucket/prefix`, `/srv/restored`.
    fn name(&self) -> String;

    /// What tells it from every other place, those of the same name among them.
    fn identity(&self) -> String {
        self.name()
    }

    /// Checks that it can be restored to and changes nothing: a dry run opens its target too. Says whether it holds
    /// anything at all. Comes before all else.
    async fn open(&self) -> Result<Occupied, TargetError>;

    /// Whether it keeps several versions of an object. To be asked once it is open.
    fn keeps_versions(&self) -> bool {
        true
    }

    /// What it holds of the objects for which `wanted` says yes, by key, within the target's prefix; versions and markers
    /// that a plain reader does not see are left out. And the vaults that lie in it: nobody may write into one.
    async fn survey(&self, wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync)) -> Result<Survey, TargetError>;

    /// Whether what is there already is what is wanted, properties included, so that nothing need be written.
    async fn is_same(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<bool, TargetError>;

    /// Whether what is there may be left of a [`Target::write`] of this object that broke off: it has the wanted content, and
    /// perhaps not all of the properties. Reads the content where nothing cheaper tells; where nobody can say, it may.
    async fn is_unfinished(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<bool, TargetError>;

    /// How many requests that change the target a [`Target::write`] of this object takes, or a [`Target::remove`] for
    /// none, when nothing has to be tried again: what a dry run counts.
    fn requests(&self, wanted: Option<&WantedObject>) -> u64;

    /// Makes the object so, durably. `content` must have exactly `wanted.size` bytes, or nothing is written; its digest
    /// is checked by whoever made the stream. A delete marker (`wanted.marker`) hides what was written before. What has the name
    /// of an object that is to be created, and is what is wanted, counts as written.
    async fn write(&self, wanted: &WantedObject, content: Content) -> Result<Written, TargetError>;

    /// Makes the object so with a content that the vault keeps whole, under this key of its S3 bucket, without its coming
    /// through here. Counts as a [`Target::write`]; what comes to be is checked as well. Nothing where that cannot be done:
    /// then the content is to be written.
    async fn copy(&self, wanted: &WantedObject, whole: &Whole, key: &str) -> Result<Option<Written>, TargetError>;

    /// Removes an object that did not exist at the restored instant (or puts a delete marker, where versions are kept).
    /// That there is none is no error.
    async fn remove(&self, object: &str) -> Result<(), TargetError>;
}

/// Whether a target holds anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupied {
    /// Nothing under its prefix.
    Empty,
    /// Something; the mode must be named.
    Holds,
}

/// What writing one object came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Its version id at the target, where it keeps versions.
    pub version: Option<String>,
    /// Requests that changed the target, for the report's cost.
    pub requests: u64,
    /// Properties that the target could not take, each with the reason: `acl: the bucket enforces ownership`.
    pub left_out: Vec<String>,
}

/// The same content, ending in an error where it has not exactly `size` bytes: a target that takes a content only when
/// it ends well then never shows one that was cut off.
fn exactly(content: Content, size: u64) -> Content {
    let wrong = |reason: String| BucketError::Other { what: "the content to restore".to_owned(), reason };
    let checked = stream::unfold(Some((content, 0_u64)), move |state| async move {
        let (mut content, before) = state?;
        match content.next().await {
            Some(Ok(piece)) => {
                let length = before + piece.len() as u64;
                if length > size {
                    return Some((Err(wrong(format!("it is longer than the {size} bytes it must have"))), None));
                }
                Some((Ok(piece), Some((content, length))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None if before < size => Some((Err(wrong(format!("it ended after {before} of {size} bytes"))), None)),
            None => None,
        }
    });
    checked.boxed()
}
