//! Bases and merges: what makes a long log short to read.
//!
//! ```text
//!  segments ──merge──→ one sorted file per hash bucket ──┐
//!                                         parent base ───┴─fold at the cut─→ base
//! ```
//!
//! A *merge* holds every change of the segments it covers. A *base* holds what all changes up to its cut amount to.
//! Both are files under names of their own and become visible with the next numbered manifest, which names every file
//! it rests on with size and digest, and the manifest before. A build that dies leaves nothing but unreferenced files;
//! of two that finish, one finds its number taken, and its work is done again or not needed.
//!
//! Deletes stay in a base until an older put can no longer be delivered again.
//!
//! Planning must not become slower as a vault grows old. So a manifest *seals* the hours of arrival whose segments are all in
//! merges, once nobody writes into them any more: whoever plans lists the log only from there on, and reads only the lists
//! of covers that reach so far. A writer makes its segment anew when writing it took too long, and
//! compaction looks a few days further back, for what came late all the same.

pub mod build;
pub mod file;
pub mod folding;
pub mod inputs;
pub mod plan;

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use file::{BucketFile, KeyRange};

use crate::changelog::segment::Segment;
use crate::changelog::{segments, segments_since};
use crate::model::{ResourceId, Timestamp};
use crate::vault::record::{Numbered, Record};
use crate::vault::{FileRef, Vault, VaultError, layout};

/// The newest of a resource's manifests says what bases and merges there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The resource whose bases and merges they are.
    pub resource: ResourceId,
    /// The manifest before.
    pub parent: Option<FileRef>,
    /// When it was written, by the writer's clock. For people; nothing is decided by it.
    pub written: Timestamp,
    /// Bases by cut, the oldest first.
    pub bases: Vec<Base>,
    /// Merges that a restore may need beside them.
    pub merges: Vec<Merge>,
    /// Every segment that arrived before this hour is in a merge: the log is listed only from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Timestamp>,
}

impl Record for Manifest {
    const KIND: &'static str = "manifest";
}

/// The last change of every key at a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The instant it is the state of.
    pub cut: Timestamp,
    /// Deletes before this instant are no longer in it.
    pub tombstones_after: Timestamp,
    /// Its files are those of `2^bits` hash buckets; a bucket without changes has none.
    pub bits: u32,
    /// One file per bucket.
    pub files: Vec<BucketFile>,
    /// What was sealed when it was built: every segment that arrived before this hour was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Timestamp>,
    /// Lists of the other segments that were read: those of merges, and one of segments in none.
    pub covers: Vec<Covers>,
}

/// A list of segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covers {
    /// One path per line.
    pub list: FileRef,
    /// No segment in it arrived after this hour, and none that is sealed already was late.
    pub arrived: Timestamp,
}

/// Every change of some segments, joined where they say the same, in one file per hash bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// No time in it is before this one.
    pub first: Timestamp,
    /// No time in it is after this one.
    pub last: Timestamp,
    /// The greatest `latest` of its segments.
    pub latest: Timestamp,
    /// Its files are those of `2^bits` hash buckets.
    pub bits: u32,
    /// One file per bucket.
    pub files: Vec<BucketFile>,
    /// The list of segments it stands for.
    pub covers: Covers,
}

/// The newest manifest of a resource.
///
/// # Errors
/// As [`Vault::newest_record`].
pub async fn newest(vault: &Vault, resource: &ResourceId) -> Result<Option<Numbered<Manifest>>, VaultError> {
    vault.newest_record(&layout::manifest_folder(resource)).await.map_err(|error| match error {
        // Each names all that it rests on, and what it rests on stays: an older one only means that more of the log is read.
        VaultError::Damaged { path, reason } => VaultError::Damaged {
            path,
            reason: format!("{reason}; nothing is lost: move this file out of the vault, and the manifest before it counts"),
        },
        error => error,
    })
}

/// The segments that a restore must look at: those since what the newest manifest has sealed, and from when that is.
/// `back` looks so much further back, for what arrived late.
///
/// # Errors
/// As [`newest`] and [`segments`].
pub async fn unsealed(vault: &Vault, resource: &ResourceId, back: Duration) -> Result<Unsealed, VaultError> {
    let manifest = newest(vault, resource).await?;
    let from = manifest.as_ref().and_then(|manifest| manifest.record.sealed).map(|sealed| sealed.minus(back));
    let segments = listed(vault, resource, from).await?;
    Ok(Unsealed { manifest, from, segments })
}

/// The segments that arrived in the hour of `from` or later; all where there is no such hour.
async fn listed(vault: &Vault, resource: &ResourceId, from: Option<Timestamp>) -> Result<Vec<Segment>, VaultError> {
    match from {
        Some(from) => segments_since(vault, resource, from).await,
        None => segments(vault, resource).await,
    }
}

/// What [`unsealed`] found.
#[derive(Debug)]
pub struct Unsealed {
    /// The newest manifest before the log was listed.
    pub manifest: Option<Numbered<Manifest>>,
    /// Where the listing began; none where nothing is sealed.
    pub from: Option<Timestamp>,
    /// What was listed.
    pub segments: Vec<Segment>,
}

/// The segments that a list of covers names, by path.
///
/// # Errors
/// As [`Vault::read_checked`].
pub async fn covered(vault: &Vault, covers: &Covers) -> Result<HashSet<String>, VaultError> {
    // Of an empty list there is nothing to read, and so nothing to miss.
    if covers.list.size == 0 { Ok(HashSet::new()) } else { read_covers(vault, covers).await }
}

/// The same, and an empty list is read, too.
///
/// # Errors
/// As [`covered`].
pub async fn read_covers(vault: &Vault, covers: &Covers) -> Result<HashSet<String>, VaultError> {
    let bytes = vault.read_checked(&covers.list).await?;
    let text = std::str::from_utf8(&bytes).map_err(|error| VaultError::damaged(&covers.list.path, error))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The bytes of a list of covered segments: one path per line.
pub fn cover_list<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut lines: Vec<&str> = paths.collect();
    lines.sort_unstable();
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text.into_bytes()
}
