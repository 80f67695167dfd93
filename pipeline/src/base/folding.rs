//! The fold of some inputs at a cut, one hash bucket after the other.
//!
//! Files of bases and merges are sorted and read as runs. Loose segments are sorted in memory, as many buckets at a time as fit.

mod versions;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::BucketFile;
use super::file::{self, Holding, KeyRange, SiftedFile};
use super::inputs::Inputs;
use crate::changelog::segment::Segment;
use crate::changelog::{read, write};
use crate::fold::object::{Keep, ObjectJoin};
use crate::fold::sieve::{self, Sought, Wanted};
use crate::fold::{Cut, Fold, Join, Run};
use crate::model::ResourceKind;
use crate::model::change::{ChangeBatch, hashes_of};
use crate::model::key::bucket_of;
use crate::vault::{FileRef, Vault, VaultError, layout};

pub use self::versions::{FoldedVersions, Versions};
use self::versions::{SieveRun, SortedRun};
/// Segments read at the same time.
const READS_AT_ONCE: usize = 16;
/// How much memory loose rows may take, in bytes: those of all buckets that are read together, and once more those of one that is
/// being sorted.
const LOOSE_BYTES_MAX: u64 = 96 << 20;
/// Nobody asks how much larger loose segments are in memory where they are smaller than this in the vault: no segment of real
/// changes is so much larger that it mattered.
const MEASURED_FROM_BYTES: u64 = LOOSE_BYTES_MAX / 256;
/// Segments that are read to know how much larger they all are in memory.
const MEASURED_SEGMENTS: usize = 4;
/// More buckets than this help nobody.
const LOOSE_BITS_MAX: u32 = 12;
/// A sieve is used where the largest run has at most one of so many rows.
const SIEVE_SHARE_MIN: u64 = 2;
/// Rows per batch of a run that was sorted in memory.
const RUN_BATCH_ROWS: usize = 8_192;

/// A fold of some inputs at a cut, carried out bucket by bucket.
#[derive(Debug, Clone)]
pub struct Folding {
    /// What is read.
    pub inputs: Arc<Inputs>,
    /// Into `2^bits` buckets.
    pub bits: u32,
    /// Up to here.
    pub cut: Cut,
    /// What the rows of the loose segments take in memory, in bytes.
    loose_bytes: u64,
}

/// Rows of loose segments, sorted, by hash bucket.
#[derive(Debug, Clone, Default)]
pub struct Loose {
    rows: BTreeMap<u32, RecordBatch>,
}

impl Loose {
    /// Whether there are loose rows of a bucket.
    pub fn holds(&self, bucket: u32) -> bool {
        self.rows.contains_key(&bucket)
    }
}

impl Folding {
    /// A fold of `inputs`, in at least `2^bits_min` buckets, and in so many that the loose rows of each fit into memory.
    ///
    /// # Errors
    /// As [`read::read`].
    pub async fn new(vault: &Vault, inputs: Inputs, cut: Cut, bits_min: u32) -> Result<Folding, VaultError> {
        let stored = inputs.base.iter().map(|base| base.bits).chain(inputs.merges.iter().map(|merge| merge.bits));
        let stored = stored.max().unwrap_or(0).max(bits_min);
        let loose_bytes = loose_bytes(vault, &inputs.segments).await?;
        let fit = (0..LOOSE_BITS_MAX).find(|bits| loose_bytes >> bits <= LOOSE_BYTES_MAX).unwrap_or(LOOSE_BITS_MAX);
        Ok(Folding { inputs: Arc::new(inputs), bits: stored.max(fit), cut, loose_bytes })
    }

    /// Into how many buckets.
    pub fn buckets(&self) -> u32 {
        1 << self.bits
    }

    /// Ranges of buckets whose loose rows fit into memory together. Each range reads the loose segments once.
    pub fn passes(&self) -> Vec<Range<u32>> {
        let buckets = self.buckets();
        let passes = u32::try_from(self.loose_bytes.div_ceil(LOOSE_BYTES_MAX).max(1)).unwrap_or(u32::MAX).min(buckets);
        let step = buckets / passes;
        (0..buckets).step_by(step as usize).map(|from| from..(from + step).min(buckets)).collect()
    }

    /// Reads the loose segments' rows of some buckets.
    ///
    /// # Errors
    /// As [`read::read`].
    pub async fn load(&self, vault: &Vault, buckets: Range<u32>) -> Result<Loose, VaultError> {
        let segments: Vec<Segment> = self.inputs.segments.clone();
        let kind = segments.first().map_or(ResourceKind::Bucket, |segment| layout::kind_of(&segment.path));
        let reads = futures::stream::iter(segments);
        let mut split: BTreeMap<u32, Vec<ChangeBatch>> = BTreeMap::new();
        let mut read = reads
            .map(|segment| {
                let vault = vault.clone();
                async move { Ok::<_, VaultError>((vault.read(&segment.path).await?, segment)) }
            })
            .buffered(READS_AT_ONCE);
        while let Some((bytes, segment)) = read.try_next().await? {
            for batch in read::parse(&segment, bytes)? {
                for (bucket, rows) in split_rows(&batch, self.bits, &buckets) {
                    split.entry(bucket).or_default().push(ChangeBatch::from_checked(kind, rows));
                }
            }
        }
        Ok(Loose { rows: split.into_iter().map(|(bucket, batches)| (bucket, write::sort_all(&batches).into_rows())).collect() })
    }

    /// Of a database's changes those that say more than what one row is now, in any order, some of them perhaps twice.
    ///
    /// # Errors
    /// As reading the vault.
    pub async fn telling(&self, vault: &Vault, mut look: impl FnMut(&ChangeBatch)) -> Result<(), VaultError> {
        let inputs = &self.inputs;
        let merged = inputs.merges.iter().flat_map(|merge| &merge.files).chain(inputs.base.iter().flat_map(|base| &base.files));
        let merged: Vec<FileRef> = merged.map(|file| file.file.clone()).collect();
        for file in merged {
            let bytes = vault.read_checked(&file).await?;
            let batches = read::telling(&file.path, bytes)?;
            batches.into_iter().for_each(|rows| look(&ChangeBatch::from_checked(ResourceKind::Database, rows)));
        }
        let reads = futures::stream::iter(inputs.segments.clone()).map(|segment| {
            let vault = vault.clone();
            async move { read::read_telling(&vault, &segment).await }
        });
        let mut read = reads.buffered(READS_AT_ONCE);
        while let Some(batches) = read.try_next().await? {
            batches.into_iter().for_each(|rows| look(&ChangeBatch::from_checked(ResourceKind::Database, rows)));
        }
        Ok(())
    }

    /// The buckets of a range that have anything at all.
    pub fn occupied(&self, loose: &Loose, buckets: Range<u32>) -> Vec<u32> {
        buckets.filter(|&bucket| loose.rows.contains_key(&bucket) || self.files(bucket).next().is_some()).collect()
    }

    /// The files that hold rows of a bucket, each with whether it holds rows of others too.
    pub fn files(&self, bucket: u32) -> impl Iterator<Item = (&BucketFile, bool)> {
        let bits = self.bits;
        let base = self.inputs.base.iter().flat_map(|base| base.files.iter().map(|file| (base.bits, file)));
        let merges = self.inputs.merges.iter().flat_map(|merge| merge.files.iter().map(|file| (merge.bits, file)));
        base.chain(merges).filter(move |(of, file)| file.bucket == bucket >> (bits - of)).map(move |(of, file)| (file, of < bits))
    }

    /// The fold of one bucket, or of a range of its keys that takes no object apart. Reads as far as it is asked.
    pub fn fold(&self, vault: &Vault, loose: &Loose, bucket: u32, keep: Keep, range: &KeyRange) -> Fold<'static, ObjectJoin, VaultError> {
        self.fold_by(vault, loose, bucket, range, ObjectJoin::new(self.cut, keep))
    }

    /// The same with any join.
    pub fn fold_by<J: Join>(&self, vault: &Vault, loose: &Loose, bucket: u32, range: &KeyRange, join: J) -> Fold<'static, J, VaultError> {
        let holding = Holding::of_fold(self.files(bucket).count());
        let runs = self.files(bucket).map(|(file, shared)| self.run(file::stream(vault, file, range, holding), bucket, shared));
        let loose = loose.rows.get(&bucket).map(|rows| slices(range.slice(rows)));
        Fold::new(runs.chain(loose).collect(), join)
    }

    /// The same fold. Where only the newest versions are asked for, a sieve goes through the rows first, and what cannot
    /// matter is not read in full.
    pub fn fold_sieved(
        &self,
        vault: &Vault,
        loose: &Loose,
        bucket: u32,
        keep: Keep,
        range: &KeyRange,
    ) -> Fold<'static, ObjectJoin, VaultError> {
        match self.sought(bucket, keep, Wanted::Rows) {
            Some(sought) if self.may_leave_out_many(bucket) => self.sieved(vault, loose, bucket, keep, range, sought),
            _ => self.fold(vault, loose, bucket, keep, range),
        }
    }

    /// Which versions the same fold gives, and no more of them: what is quicker to tell. None where it is not about the
    /// newest versions at an instant.
    pub fn versions(&self, vault: &Vault, loose: &Loose, bucket: u32, keep: Keep, range: &KeyRange) -> Option<Versions> {
        let sought = self.sought(bucket, keep, Wanted::Versions)?;
        Some(Versions { fold: self.sieved(vault, loose, bucket, keep, range, sought) })
    }

    /// What a sieve is to find for a fold of one bucket; none where it can leave out nothing.
    fn sought(&self, bucket: u32, keep: Keep, wanted: Wanted) -> Option<Sought> {
        let (Cut::At(cut), Some(newest)) = (self.cut, sieve::newest(keep)) else { return None };
        let only = self.files(bucket).any(|(_, shared)| shared).then_some((self.bits, bucket));
        Some(Sought { cut, newest, wanted, only })
    }

    fn sieved(
        &self,
        vault: &Vault,
        loose: &Loose,
        bucket: u32,
        keep: Keep,
        range: &KeyRange,
        sought: Sought,
    ) -> Fold<'static, ObjectJoin, VaultError> {
        let holding = Holding::of_sieve(self.files(bucket).count());
        let files = self.files(bucket).map(|(file, _)| SieveRun::File(Box::new(SiftedFile::new(vault, file, range, holding))));
        let loose = loose.rows.get(&bucket).map(|rows| SieveRun::Sorted(SortedRun { rows: range.slice(rows), next: 0 }));
        let kept = sieve::sieve(files.chain(loose).collect(), sought);
        Fold::of_whole_groups(kept, ObjectJoin::new(self.cut, keep))
    }

    /// Whether so many rows lie beside the largest run that looking at what decides first may be worth it.
    fn may_leave_out_many(&self, bucket: u32) -> bool {
        let rows = || self.files(bucket).map(|(file, _)| file.rows);
        rows().sum::<u64>() / SIEVE_SHARE_MIN >= rows().max().unwrap_or(0).max(1)
    }

    fn run(&self, rows: BoxStream<'static, Result<RecordBatch, VaultError>>, bucket: u32, shared: bool) -> Run<'static, VaultError> {
        let bits = self.bits;
        if shared { rows.map_ok(move |batch| only_bucket(&batch, bits, bucket)).boxed() } else { rows }
    }
}

/// What the rows of these segments take in memory, in bytes, on the safe side: some of them, from all over the log, tell how much
/// larger they are there than in the vault. Rows that are much alike may take a hundred times as much.
async fn loose_bytes(vault: &Vault, segments: &[Segment]) -> Result<u64, VaultError> {
    let stored: u64 = segments.iter().map(|segment| segment.size).sum();
    if stored <= MEASURED_FROM_BYTES {
        return Ok(stored);
    }
    let mut by_size: Vec<&Segment> = segments.iter().collect();
    by_size.sort_by(|a, b| (b.size, &b.path).cmp(&(a.size, &a.path)));
    let spread = segments.iter().step_by(segments.len().div_ceil(MEASURED_SEGMENTS - 1));
    let mut inflation = 1.0_f64;
    for segment in by_size.into_iter().take(1).chain(spread) {
        let batches = read::read(vault, segment).await?;
        let columns = batches.iter().flat_map(RecordBatch::columns);
        let bytes: usize = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        inflation = inflation.max(bytes as f64 / segment.size.max(1) as f64);
    }
    Ok((stored as f64 * inflation) as u64)
}

/// A sorted batch in memory as a run.
fn slices(rows: RecordBatch) -> Run<'static, VaultError> {
    let count = rows.num_rows();
    futures::stream::iter((0..count).step_by(RUN_BATCH_ROWS).map(move |from| Ok(rows.slice(from, RUN_BATCH_ROWS.min(count - from)))))
        .boxed()
}

fn only_bucket(batch: &RecordBatch, bits: u32, bucket: u32) -> RecordBatch {
    let hashes = hashes_of(batch);
    let mask = BooleanArray::from_unary(hashes, |hash| bucket_of(hash, bits) == bucket);
    filter_record_batch(batch, &mask).expect("the mask has one value per row")
}

/// The rows of a batch by bucket, of those within a range.
fn split_rows(batch: &RecordBatch, bits: u32, buckets: &Range<u32>) -> BTreeMap<u32, RecordBatch> {
    if bits == 0 {
        return BTreeMap::from([(0, batch.clone())]);
    }
    let hashes = hashes_of(batch);
    let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (index, hash) in hashes.values().iter().enumerate() {
        let bucket = bucket_of(*hash, bits);
        if buckets.contains(&bucket) {
            rows.entry(bucket).or_default().push(index as u32);
        }
    }
    let take = |indices: Vec<u32>| {
        arrow::compute::take_record_batch(batch, &UInt32Array::from(indices)).expect("the indices are those of the rows")
    };
    rows.into_iter().map(|(bucket, indices)| (bucket, take(indices))).collect()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::model::change::ObjectChange;
    use crate::model::{ResourceId, Timestamp};

    /// A log of so many segments of `rows` rows each, which are nearly the same.
    async fn log(vault: &Vault, resource: &ResourceId, count: usize, rows: usize) -> Vec<Segment> {
        let at = Timestamp::from_seconds(7);
        let mut segments = Vec::new();
        for first in (0..count).map(|number| number * rows) {
            let change =
                |number: usize| ObjectChange { metadata: Some("x".repeat(4_000)), ..ObjectChange::put(&format!("{number:09}"), "v", at) };
            let changes: Vec<ObjectChange> = (first..first + rows).map(change).collect();
            let batch: ChangeBatch = changes.iter().map(ObjectChange::row).collect();
            let encoded = write::encode(resource, &batch, at, at, Vec::new()).unwrap();
            segments.push(write::append(vault, &encoded).await.unwrap());
        }
        segments
    }

    #[test]
    fn rows_that_are_small_in_the_vault_and_large_in_memory_are_folded_part_by_part() {
        let (vault, resource) = (Vault::new(Arc::new(InMemory::new()), ""), ResourceId::bucket("photos").unwrap());
        let fold = async {
            let segments = log(&vault, &resource, 30, 4_000).await;
            let stored: u64 = segments.iter().map(|segment| segment.size).sum();
            assert!(stored > MEASURED_FROM_BYTES && stored < LOOSE_BYTES_MAX / 50, "{stored}");
            let folding = Folding::new(&vault, Inputs { segments, ..Inputs::default() }, Cut::Nothing, 0).await.unwrap();
            let mut rows = 0;
            for pass in folding.passes() {
                let loose = folding.load(&vault, pass.clone()).await.unwrap();
                let bytes = loose.rows.values().map(|rows| rows.get_array_memory_size() as u64).sum::<u64>();
                assert!(bytes < LOOSE_BYTES_MAX * 3 / 2, "{bytes} of {pass:?}");
                rows += loose.rows.values().map(RecordBatch::num_rows).sum::<usize>();
            }
            assert_eq!(rows, 30 * 4_000, "each once");
        };
        fold.now_or_never().expect("memory answers at once");
    }
}
