//! Reading bucket files: row group after row group, of each some columns, everything checked before it is parsed.
//!
//! A fold has many files open. So each of them holds only what its [`Holding`] allows: the bytes of the row group that is
//! being read, and where that is too much not even these; they are then read again for every batch.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use async_trait::async_trait;
use futures::stream::BoxStream;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowSelection};

use super::footer::{Footer, Parts, Whole, Words};
use super::{BucketFile, KeyRange, Part};
use crate::changelog::read::{self, Columns};
use crate::fold::sieve::Sifted;
use crate::model::{Digest, ResourceKind};
use crate::simulated::decoded;
use crate::vault::{Vault, VaultError, layout};

/// Chunks that lie no further apart are read in one request.
const READ_GAP_BYTES_MAX: u64 = 128 << 10;
/// Rows per batch where few files are read.
const BATCH_ROWS_MAX: usize = 4_096;
/// Rows per batch where very many are.
const BATCH_ROWS_MIN: usize = 256;
/// Whole rows that all files of a fold hold decoded, roughly.
const FOLD_ROWS: usize = 64 << 10;
/// Bytes as they are stored that all files of a fold hold.
const FOLD_BYTES: u64 = 224 << 20;
/// Rows that all files of a sieve hold decoded, roughly, of the columns that decide.
const SIEVE_ROWS: usize = 128 << 10;
/// Bytes as they are stored that all files of a sieve hold.
const SIEVE_BYTES: u64 = 96 << 20;

/// How much of a file is held in memory while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Bytes as they are stored.
    pub bytes_max: u64,
}

impl Holding {
    /// The share of one of so many files that are folded together.
    pub fn of_fold(files: usize) -> Holding {
        Holding::share(files, FOLD_ROWS, FOLD_BYTES)
    }

    /// The share of one of so many files that go through a sieve together.
    pub fn of_sieve(files: usize) -> Holding {
        Holding::share(files, SIEVE_ROWS, SIEVE_BYTES)
    }

    fn share(files: usize, rows: usize, bytes: u64) -> Holding {
        let files = files.max(1);
        Holding { batch_rows: (rows / files).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX), bytes_max: bytes / files as u64 }
    }
}

/// The rows of a bucket file within a range of keys, batch by batch, sorted. Everything is checked before it is parsed, and
/// row groups outside of the range are not read.
pub fn stream(vault: &Vault, file: &BucketFile, range: &KeyRange, holding: Holding) -> BoxStream<'static, Result<RecordBatch, VaultError>> {
    let source = Source { vault: vault.clone(), file: file.clone(), range: range.clone(), words: Words::Text, holding };
    let begun: Option<Rows> = None;
    Box::pin(futures::stream::try_unfold((source, begun), async |(source, begun)| {
        let begun = match begun {
            None => Rows::begin(&source, Columns::All).await?,
            some => some,
        };
        let Some(mut rows) = begun else { return Ok(None) };
        Ok(rows.next(&source).await?.map(|(_, batch)| (batch, (source, Some(rows)))))
    }))
}

/// What is read of which file.
struct Source {
    vault: Vault,
    file: BucketFile,
    range: KeyRange,
    words: Words,
    holding: Holding,
}

/// Some columns of a file's rows, from batch to batch.
struct Rows {
    columns: Columns,
    footer: Arc<Footer>,
    /// The row group that comes next.
    next_group: usize,
    open: Option<Open>,
    /// Key and position of the row before the next.
    last: Option<(Vec<u8>, Vec<u8>)>,
}

/// A row group that is being read.
struct Open {
    group: usize,
    /// The number of its next row.
    next_row: u64,
    /// None where its bytes were let go.
    batches: Option<Batches>,
}

/// Batches of a row group.
enum Batches {
    Reader(ParquetRecordBatchReader),
    #[cfg(feature = "simulation")]
    Decoded(std::vec::IntoIter<RecordBatch>),
}

impl Rows {
    /// None where there are none, and nothing is read.
    async fn begin(source: &Source, columns: Columns) -> Result<Option<Rows>, VaultError> {
        let groups = groups_within(&source.file, &source.range);
        if groups.is_empty() {
            return Ok(None);
        }
        Ok(Some(Rows { columns, footer: source.read_footer(groups).await?, next_group: 0, open: None, last: None }))
    }

    /// The next rows, and the number of the first of them.
    async fn next(&mut self, source: &Source) -> Result<Option<(u64, RecordBatch)>, VaultError> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(group) = self.footer.groups.get(self.next_group) else { return Ok(None) };
                self.open = Some(Open { group: self.next_group, next_row: group.rows.start, batches: None });
                self.next_group += 1;
                continue;
            };
            let rows = self.footer.groups[open.group].rows.clone();
            if open.next_row == rows.end {
                self.open = None;
                continue;
            }
            let mut bytes = 0;
            let batches = match &mut open.batches {
                Some(batches) => batches,
                none => {
                    let parts = source.read_chunks(&self.footer, open.group, self.columns).await?;
                    bytes = parts.bytes();
                    let behind = (open.next_row > rows.start).then_some(open.next_row..rows.end);
                    let selection = behind.map(|behind| selection(&rows, [behind].into_iter()));
                    none.insert(source.decode(&self.footer, open.group, self.columns, parts, selection, source.holding.batch_rows)?)
                }
            };
            let batch = source.next_of(batches, self.columns)?;
            let first = open.next_row;
            open.next_row += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
            let Some(batch) = batch.filter(|_| open.next_row <= rows.end) else {
                return Err(source.damaged("a row group has not as many rows as its footer says"));
            };
            if bytes > source.holding.bytes_max {
                open.batches = None;
            }
            // A range is searched for, and a fold merges. A sieve looks for itself, at what it is given.
            if self.columns == Columns::All || source.range != KeyRange::default() {
                self.check_order(source, first, &batch)?;
            }
            let within = source.range.within(&batch);
            if !within.is_empty() {
                return Ok(Some((first + within.start as u64, batch.slice(within.start, within.len()))));
            }
        }
    }

    /// Rows come sorted by key and position, also from batch to batch: with any other order a fold would give another state.
    fn check_order(&mut self, source: &Source, first: u64, batch: &RecordBatch) -> Result<(), VaultError> {
        let column = |name| batch.column_by_name(name).map(|column| column.as_binary::<i32>());
        let (Some(keys), Some(positions)) = (column("key"), column("position")) else { return Ok(()) };
        let place = |row: usize| (keys.value(row), positions.value(row));
        let last = self.last.as_ref().map(|(key, position)| (key.as_slice(), position.as_slice()));
        let before = |row: usize| if row == 0 { last } else { Some(place(row - 1)) };
        if let Some(row) = (0..batch.num_rows()).find(|row| before(*row).is_some_and(|before| before > place(*row))) {
            return Err(source.damaged(format!("row {} does not stand in its order", first + row as u64)));
        }
        self.last = batch.num_rows().checked_sub(1).map(place).map(|(key, position)| (key.to_vec(), position.to_vec()));
        Ok(())
    }

    /// Whether this is the row group that is being read, so that more of it may be asked for.
    fn is_within(&self, group: usize) -> bool {
        self.open.as_ref().is_some_and(|open| open.group == group)
    }
}

/// A file on its way through a sieve.
pub struct SiftedFile {
    source: Source,
    rows: Option<Rows>,
    /// Of the row group that is being read the bytes of the other columns, where something of them was asked for.
    others: Option<(usize, Parts)>,
}

impl SiftedFile {
    /// The rows of a file within a range of keys. Nothing is read yet.
    pub fn new(vault: &Vault, file: &BucketFile, range: &KeyRange, holding: Holding) -> SiftedFile {
        let source = Source { vault: vault.clone(), file: file.clone(), range: range.clone(), words: Words::Dictionaries, holding };
        SiftedFile { source, rows: None, others: None }
    }

    /// The other columns of some rows of one row group.
    async fn others_of(&mut self, group: usize, numbers: &[u64], batches: &mut Vec<RecordBatch>) -> Result<(), VaultError> {
        let Some(rows) = &mut self.rows else { return Ok(()) };
        let (source, columns) = (&self.source, Columns::Others);
        let parts = match self.others.take() {
            Some((of, parts)) if of == group => parts,
            _ => source.read_chunks(&rows.footer, group, columns).await?,
        };
        if rows.is_within(group) && parts.bytes() <= source.holding.bytes_max {
            self.others = Some((group, parts.clone()));
        }
        let wanted = selection(&rows.footer.groups[group].rows, consecutive(numbers));
        let mut read = source.decode(&rows.footer, group, columns, parts, Some(wanted), numbers.len())?;
        while let Some(batch) = source.next_of(&mut read, columns)? {
            batches.push(batch);
        }
        Ok(())
    }
}

#[async_trait]
impl Sifted for SiftedFile {
    type Error = VaultError;

    async fn next(&mut self) -> Result<Option<(u64, RecordBatch)>, VaultError> {
        if self.rows.is_none() {
            self.rows = Rows::begin(&self.source, Columns::Deciding).await?;
        }
        match &mut self.rows {
            Some(rows) => rows.next(&self.source).await,
            None => Ok(None),
        }
    }

    async fn others(&mut self, numbers: &[u64]) -> Result<RecordBatch, VaultError> {
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(self.source.damaged("its rows are not sorted"));
        }
        let mut batches = Vec::new();
        let mut rest = numbers;
        while let (Some(number), Some(rows)) = (rest.first(), &self.rows) {
            let group = rows.footer.groups.partition_point(|group| group.rows.end <= *number);
            let (within, behind) = rest.split_at(rest.partition_point(|number| *number < rows.footer.groups[group].rows.end));
            self.others_of(group, within, &mut batches).await?;
            rest = behind;
        }
        let others = concat_batches(&Columns::Others.schema(ResourceKind::Bucket), &batches).map_err(|error| self.source.damaged(error))?;
        if others.num_rows() != numbers.len() {
            return Err(self.source.damaged("a row group has not as many rows as its footer says"));
        }
        Ok(others)
    }

    fn damaged(&self, reason: String) -> VaultError {
        self.source.damaged(reason)
    }
}

/// Runs of numbers that follow each other.
fn consecutive(numbers: &[u64]) -> impl Iterator<Item = Range<u64>> {
    numbers.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[0] + run.len() as u64)
}

/// These ranges of a row group's rows, as the decoder wants them.
fn selection(rows: &Range<u64>, wanted: impl Iterator<Item = Range<u64>>) -> RowSelection {
    let within = wanted.map(|range| (range.start - rows.start) as usize..(range.end - rows.start) as usize);
    RowSelection::from_consecutive_ranges(within, (rows.end - rows.start) as usize)
}

/// The row groups that have keys of a range.
fn groups_within(file: &BucketFile, range: &KeyRange) -> Range<usize> {
    let (from, until) = (range.from.as_ref().map(hex::encode), range.until.as_ref().map(hex::encode));
    let first = from.map_or(0, |from| file.last_keys.partition_point(|last| *last < from));
    // A group whose predecessor ends behind the range begins behind it.
    let end =
        until.map_or(file.last_keys.len(), |until| file.last_keys.len().min(file.last_keys.partition_point(|last| *last < until) + 1));
    first..end.max(first)
}

impl Source {
    fn damaged(&self, reason: impl std::fmt::Display) -> VaultError {
        VaultError::damaged(&self.file.file.path, reason)
    }

    async fn read_footer(&self, groups: Range<usize>) -> Result<Arc<Footer>, VaultError> {
        let path = &self.file.file.path;
        let Part { offset, length, digest } = &self.file.footer;
        let bytes = self.vault.read_range(path, *offset..*offset + *length).await?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(VaultError::damaged(path, format!("the SHA-256 of its footer is {found} instead of {digest}")));
        }
        let parts = Parts { length: self.file.file.size, parts: Arc::new(vec![(*offset, bytes)]) };
        let whole = decoded(*digest, 0, || read::guard(path, || Whole::of(path, &parts, *offset)).map(Arc::new))?;
        let count = whole.count();
        if count != self.file.last_keys.len() {
            return Err(VaultError::damaged(path, "the manifest names another number of row groups than it has"));
        }
        let part = 2 * (groups.start * (count + 1) + groups.end) + self.words as usize;
        decoded(*digest, part, || read::guard(path, || whole.some(path, groups, self.words)).map(Arc::new))
    }

    /// Reads and checks the wanted column chunks of a row group.
    async fn read_chunks(&self, footer: &Footer, group: usize, columns: Columns) -> Result<Parts, VaultError> {
        let path = &self.file.file.path;
        let chunks = &footer.groups[group].chunks;
        let mut wanted: Vec<&(Range<u64>, Digest)> = columns.indices(layout::kind_of(path)).iter().map(|&column| &chunks[column]).collect();
        wanted.sort_unstable_by_key(|(range, _)| range.start);
        let mut parts = Vec::with_capacity(wanted.len());
        for near in wanted.chunk_by(|(a, _), (b, _)| b.start.saturating_sub(a.end) <= READ_GAP_BYTES_MAX) {
            let start = near[0].0.start;
            let end = near.iter().map(|(range, _)| range.end).max().unwrap_or(start);
            let bytes = self.vault.read_range(path, start..end).await?;
            for (range, digest) in near {
                let chunk = bytes.slice((range.start - start) as usize..(range.end - start) as usize);
                let found = Digest::of(&chunk);
                if found != *digest {
                    let reason = format!("the SHA-256 of bytes {} to {} is {found} instead of {digest}", range.start, range.end);
                    return Err(VaultError::damaged(path, reason));
                }
                parts.push((range.start, chunk));
            }
        }
        Ok(Parts { length: self.file.file.size, parts: Arc::new(parts) })
    }

    /// Begins to decode a row group, or some rows of it.
    fn decode(
        &self,
        footer: &Footer,
        group: usize,
        columns: Columns,
        parts: Parts,
        selection: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<Batches, VaultError> {
        let path = &self.file.file.path;
        let open = |selection, batch_rows| {
            read::guard(path, || read::open_group(path, parts, footer.metadata.clone(), group, columns, selection, batch_rows))
        };
        #[cfg(feature = "simulation")]
        if crate::simulated::is_on() {
            let decode = || {
                open(None, BATCH_ROWS_MAX)?
                    .map(|batch| read::check(path, columns, batch.map_err(|error| VaultError::damaged(path, error))?))
                    .collect::<Result<Vec<RecordBatch>, VaultError>>()
            };
            // The footer says what the digests of the chunks are. A row group that is decoded has rows, and none its first but it.
            let part = Columns::KINDS * footer.groups[group].rows.start as usize + columns as usize;
            let batches = decoded(self.file.footer.digest, part, decode)?;
            return Ok(Batches::Decoded(crate::simulated::selected(batches, selection.as_ref()).into_iter()));
        }
        Ok(Batches::Reader(open(selection, batch_rows)?))
    }

    fn next_of(&self, batches: &mut Batches, columns: Columns) -> Result<Option<RecordBatch>, VaultError> {
        let path = &self.file.file.path;
        match batches {
            Batches::Reader(reader) => read::guard(path, || {
                let batch = reader.next().transpose().map_err(|error| VaultError::damaged(path, error))?;
                batch.map(|batch| read::check(path, columns, batch)).transpose()
            }),
            #[cfg(feature = "simulation")]
            Batches::Decoded(batches) => Ok(batches.next()),
        }
    }
}
