//! Carrying out a compaction plan: merges, bases, and the manifest that makes them visible.

use arrow::array::{Array, RecordBatch};
use fail::fail_point;

use super::file::{FileWriter, KeyRange};
use super::folding::Folding;
use super::inputs::{Inputs, Inventory};
use super::plan::BaseCut;
use super::{Base, BucketFile, Covers, Manifest, Merge, cover_list};
use crate::changelog::segment::Segment;
use crate::fold::block::BlockJoin;
use crate::fold::object::Keep;
use crate::fold::tuple::{self, Resets, TupleJoin};
use crate::fold::{Cut, Fold, Join};
use crate::model::change::keys_of;
use crate::model::{Digest, ResourceId, ResourceKind, Timestamp};
use crate::vault::record::Numbered;
use crate::vault::{Created, Vault, VaultError, layout};

/// More buckets than this help nobody.
const BITS_MAX: u32 = 12;

/// The number of bits that keeps `bytes` in files of at most about `bucket_bytes` each.
pub fn bits_for(bytes: u64, bucket_bytes: u64) -> u32 {
    (0..BITS_MAX).find(|bits| bytes >> bits <= bucket_bytes).unwrap_or(BITS_MAX)
}

/// Stores the list of some segments. What is sealed already was listed without the late ones among them, so that they count as
/// having arrived after that.
async fn store_cover(vault: &Vault, resource: &ResourceId, segments: &[&Segment], sealed: Option<Timestamp>) -> Result<Covers, VaultError> {
    let paths: Vec<String> = segments.iter().map(|segment| segment.path.clone()).collect();
    let bytes = cover_list(paths.iter().map(String::as_str));
    let list = vault.create_named_by_content(&layout::cover_file(resource, &Digest::of(&bytes)), bytes.into()).await?;
    let arrived = segments.iter().map(|segment| segment.name.arrived).chain(sealed).max().unwrap_or_default();
    Ok(Covers { list, arrived })
}

/// Merges segments into one sorted file per bucket, of `2^bits` or as many as fit into memory. Nothing refers to it yet. `sealed` is what the newest manifest seals.
///
/// # Errors
/// As reading the segments and writing the files.
pub async fn merge(
    vault: &Vault,
    resource: &ResourceId,
    segments: &[Segment],
    bits: u32,
    sealed: Option<Timestamp>,
) -> Result<Merge, VaultError> {
    let inputs = Inputs { segments: segments.to_vec(), ..Inputs::default() };
    let folding = Folding::new(vault, inputs, Cut::Nothing, bits).await?;
    let mut files = Vec::new();
    for pass in folding.passes() {
        let loose = folding.load(vault, pass.clone()).await?;
        for bucket in folding.occupied(&loose, pass) {
            let all = KeyRange::default();
            files.extend(match resource.kind() {
                ResourceKind::Bucket => store(vault, resource, bucket, folding.fold(vault, &loose, bucket, Keep::Live, &all)).await?,
                ResourceKind::Database => {
                    let join = TupleJoin::new(None, tuple::Keep::Changes, Resets::default());
                    store(vault, resource, bucket, folding.fold_by(vault, &loose, bucket, &all, join)).await?
                }
                ResourceKind::Machine => {
                    store(vault, resource, bucket, folding.fold_by(vault, &loose, bucket, &all, BlockJoin::every_change())).await?
                }
            });
        }
    }
    let covers = store_cover(vault, resource, &segments.iter().collect::<Vec<_>>(), sealed).await?;
    fail_point!("merge::files-written");
    Ok(Merge {
        first: segments.iter().map(|segment| segment.name.first).min().unwrap_or_default(),
        last: segments.iter().map(|segment| segment.name.last).max().unwrap_or_default(),
        latest: segments.iter().map(|segment| segment.name.latest).max().unwrap_or_default(),
        bits: folding.bits,
        files,
        covers,
    })
}

/// Stores what a bucket is folded to as a file; none where that is nothing.
async fn store<J: Join>(
    vault: &Vault,
    resource: &ResourceId,
    bucket: u32,
    mut fold: Fold<'static, J, VaultError>,
) -> Result<Option<BucketFile>, VaultError> {
    let broken = |error| VaultError::damaged("a base file being written", error);
    let mut writer = FileWriter::new(resource.kind()).map_err(broken)?;
    while let Some(folded) = fold.next().await? {
        assert_sorted(&folded.rows);
        writer.write(&folded.rows).map_err(broken)?;
    }
    if writer.rows() == 0 {
        return Ok(None);
    }
    Ok(Some(writer.store(vault, resource, bucket).await?))
}

fn assert_sorted(rows: &RecordBatch) {
    let keys = keys_of(rows);
    let sorted = (1..keys.len()).all(|index| keys.value(index - 1) <= keys.value(index));
    assert!(sorted, "a fold hands on rows sorted by key");
}

/// Builds the base at a cut, of as many buckets as keep its files at about `bucket_bytes`. Nothing refers to it yet. Buckets that no change
/// touched are taken over from its parent.
///
/// # Errors
/// As reading its inputs and writing the files.
pub async fn base(vault: &Vault, inventory: &Inventory, at: BaseCut, bucket_bytes: u64) -> Result<Base, VaultError> {
    let cut = Cut::At(at.cut);
    let inputs = inventory.inputs(cut);
    let parent = inputs.base.clone();
    let bytes: u64 = inputs
        .base
        .iter()
        .flat_map(|base| &base.files)
        .chain(inputs.merges.iter().flat_map(|merge| &merge.files))
        .map(|file| file.file.size)
        .sum();
    let bits = bits_for(bytes, bucket_bytes).max(parent.as_ref().map_or(0, |parent| parent.bits));
    let folding = Folding::new(vault, inputs, cut, bits).await?;
    let keep = Keep::Base { tombstones_after: at.tombstones_after, purged_after: at.purged_after };
    let mut files = Vec::new();
    for pass in folding.passes() {
        let loose = folding.load(vault, pass.clone()).await?;
        for bucket in folding.occupied(&loose, pass) {
            match untouched(&folding, &loose, parent.as_ref(), bucket) {
                Some(file) => files.push(file.clone()),
                None => {
                    let fold = folding.fold(vault, &loose, bucket, keep, &KeyRange::default());
                    files.extend(store(vault, &inventory.resource, bucket, fold).await?);
                }
            }
        }
    }
    let sealed = inventory.sealed();
    let read = folding.inputs.segments.iter().filter(|segment| cut.includes(segment.name.first)).collect::<Vec<_>>();
    let loose = store_cover(vault, &inventory.resource, &read, sealed).await?;
    fail_point!("base::files-written");
    let of_parent = parent.iter().flat_map(|parent| &parent.covers);
    let of_merges = folding.inputs.merges.iter().map(|merge| &merge.covers);
    let mut covers: Vec<Covers> = Vec::new();
    for list in of_parent.chain(of_merges).chain([&loose]) {
        // Of what is sealed nobody asks whether it was read.
        if sealed.is_none_or(|sealed| list.arrived >= sealed) && !covers.contains(list) {
            covers.push(list.clone());
        }
    }
    Ok(Base { cut: at.cut, tombstones_after: at.tombstones_after, bits: folding.bits, files, sealed, covers })
}

/// The parent's file of a bucket, if nothing else has rows of it.
fn untouched<'a>(folding: &Folding, loose: &super::folding::Loose, parent: Option<&'a Base>, bucket: u32) -> Option<&'a BucketFile> {
    let parent = parent.filter(|parent| parent.bits == folding.bits)?;
    let alone = folding.files(bucket).count() == 1 && !loose.holds(bucket);
    parent.files.iter().find(|file| alone && file.bucket == bucket)
}

/// What a compaction adds to the newest manifest.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// New merges.
    pub merges: Vec<Merge>,
    /// A new base.
    pub base: Option<Base>,
    /// Every segment that arrived before this hour is in a merge, of these or of those before.
    pub sealed: Option<Timestamp>,
}

/// The manifest that follows `newest`; none where it would say nothing new.
pub fn successor(resource: &ResourceId, newest: Option<&Numbered<Manifest>>, additions: &Additions, now: Timestamp) -> Option<Manifest> {
    let mut next = Manifest {
        resource: resource.clone(),
        parent: newest.map(|newest| newest.file.clone()),
        written: now,
        bases: newest.map_or_else(Vec::new, |newest| newest.record.bases.clone()),
        merges: newest.map_or_else(Vec::new, |newest| newest.record.merges.clone()),
        sealed: newest.and_then(|newest| newest.record.sealed).max(additions.sealed),
    };
    let seals = newest.and_then(|newest| newest.record.sealed) < next.sealed;
    let (bases, merges) = (next.bases.len(), next.merges.len());
    for merge in &additions.merges {
        if !next.merges.iter().any(|known| known.covers == merge.covers) {
            next.merges.push(merge.clone());
        }
    }
    // Another compactor's base at the same cut says the same.
    next.bases
        .extend(additions.base.iter().filter(|base| next.bases.iter().all(|known| known.cut != base.cut)).cloned().collect::<Vec<_>>());
    next.bases.sort_by_key(|base| base.cut);
    (next.bases.len() > bases || next.merges.len() > merges || seals).then_some(next)
}

/// How often a manifest may lose the race for its number before that is an error of its own.
const RACES_MAX: usize = 1_000;

/// Makes additions visible: writes the manifest after the newest, whoever wrote that.
///
/// # Errors
/// As [`super::newest`] and [`Vault::write_numbered`].
pub async fn publish(vault: &Vault, resource: &ResourceId, additions: &Additions, now: Timestamp) -> Result<Option<u64>, VaultError> {
    fail_point!("manifest::before");
    for _ in 0..RACES_MAX {
        let newest = super::newest(vault, resource).await?;
        let Some(next) = successor(resource, newest.as_ref(), additions, now) else {
            return Ok(None);
        };
        let number = newest.map_or(1, |newest| newest.number + 1);
        if vault.write_numbered(&layout::manifest_folder(resource), number, &next).await? == Created::New {
            fail_point!("manifest::after");
            return Ok(Some(number));
        }
    }
    Err(VaultError::damaged(&layout::manifest_folder(resource), "other writers took every number; too many of them run at once"))
}
