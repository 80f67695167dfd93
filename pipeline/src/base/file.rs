//! One file of a base or a merge: the changes of one hash bucket, sorted, read in parts and still checked.
//!
//! ```text
//!  manifest ─ digest of ─→ footer ─ digests of ─→ column chunks of every row group
//! ```
//!
//! So a reader takes one row group after the other, and of each only the columns it wants: a restore of a prefix reads the
//! row groups whose keys it wants, and a [sieve](crate::fold::sieve) the columns that decide.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, RowSelection};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use serde::{Deserialize, Serialize};

use crate::changelog::read::{self, Columns};
use crate::changelog::write::writer_options;
use crate::fold::Kept;
use crate::model::change::object_schema;
use crate::model::{Digest, ResourceId};
use crate::simulated::decoded;
use crate::vault::{FileRef, Vault, VaultError, layout};

/// Rows per row group of bases and merges: of each run a reader holds the bytes of one.
const ROWS_PER_GROUP: usize = 16 << 10;
/// The footer's entry with the SHA-256 of every column chunk, row group by row group.
const CHUNKS_KEY: &str = "hindsight.chunks";
/// The length of a digest in that entry.
const DIGEST_DIGITS: usize = 64;
/// Chunks that lie no further apart are read in one request.
const READ_GAP_BYTES_MAX: u64 = 128 << 10;

/// The file of one hash bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketFile {
    /// Which bucket.
    pub bucket: u32,
    /// Its rows.
    pub rows: u64,
    /// The file.
    pub file: FileRef,
    /// The greatest key of each of its row groups, in order, in hexadecimal.
    pub last_keys: Vec<String>,
    /// Everything behind the row groups.
    pub footer: Part,
}

/// A range of a file, and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// SHA-256 of these bytes.
    pub digest: Digest,
}

/// Encodes the rows of one bucket, which come sorted.
pub struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    group_rows: usize,
    last_key: Option<String>,
    last_keys: Vec<String>,
    chunks: String,
    rows: u64,
}

impl FileWriter {
    /// An empty file.
    ///
    /// # Errors
    /// The encoder's.
    pub fn new() -> Result<FileWriter, ParquetError> {
        let writer = ArrowWriter::try_new_with_options(Vec::new(), object_schema(), writer_options(ROWS_PER_GROUP))?;
        Ok(FileWriter { writer, group_rows: 0, last_key: None, last_keys: Vec::new(), chunks: String::new(), rows: 0 })
    }

    /// Adds rows, all behind those before.
    ///
    /// # Errors
    /// The encoder's.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        let keys = rows.column(0).as_binary::<i32>();
        let mut from = 0;
        while from < rows.num_rows() {
            let take = (rows.num_rows() - from).min(ROWS_PER_GROUP - self.group_rows);
            self.writer.write(&rows.slice(from, take))?;
            from += take;
            self.group_rows += take;
            self.rows += take as u64;
            self.last_key = Some(hex::encode(keys.value(from - 1)));
            if self.group_rows == ROWS_PER_GROUP {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), ParquetError> {
        let Some(last_key) = self.last_key.take() else { return Ok(()) };
        // What is flushed lies in a buffer until it is synced.
        self.writer.flush()?;
        self.writer.sync()?;
        self.last_keys.push(last_key);
        self.group_rows = 0;
        let group = self.writer.flushed_row_groups().last().expect("a row group was flushed just above");
        for chunk in chunk_ranges(group) {
            self.chunks.push_str(&Digest::of(&self.writer.inner()[chunk.start as usize..chunk.end as usize]).to_string());
        }
        Ok(())
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How large it is so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Ends the file and puts it into the vault.
    ///
    /// # Errors
    /// As [`Vault::create_named_by_content`].
    pub async fn store(mut self, vault: &Vault, resource: &ResourceId, bucket: u32) -> Result<BucketFile, VaultError> {
        let broken = |error: ParquetError| VaultError::damaged("a file being written", error);
        self.end_group().map_err(broken)?;
        self.writer.append_key_value_metadata(KeyValue::new(CHUNKS_KEY.to_owned(), std::mem::take(&mut self.chunks)));
        let offset = self.writer.flushed_row_groups().iter().flat_map(chunk_ranges).map(|chunk| chunk.end).max().unwrap_or(0);
        let bytes: Bytes = self.writer.into_inner().map_err(broken)?.into();
        let footer = Part { offset, length: bytes.len() as u64 - offset, digest: Digest::of(&bytes[offset as usize..]) };
        let path = layout::base_file(resource, &Digest::of(&bytes));
        let file = vault.create_named_by_content(&path, bytes).await?;
        Ok(BucketFile { bucket, rows: self.rows, file, last_keys: self.last_keys, footer })
    }
}

/// Where the column chunks of a row group lie.
fn chunk_ranges(group: &RowGroupMetaData) -> impl Iterator<Item = Range<u64>> {
    group.columns().iter().map(|chunk| {
        let (start, length) = chunk.byte_range();
        start..start + length
    })
}

/// A file of which only some parts are at hand.
#[derive(Clone)]
struct Parts {
    length: u64,
    parts: Arc<Vec<(u64, Bytes)>>,
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.length
    }
}

impl Parts {
    fn find(&self, start: u64) -> ParquetResult<Bytes> {
        let part = self.parts.iter().find(|(offset, bytes)| *offset <= start && start - offset < bytes.len() as u64);
        let (offset, bytes) = part.ok_or_else(|| ParquetError::EOF(format!("byte {start} is not in the part that was read")))?;
        Ok(bytes.slice((start - offset) as usize..))
    }
}

impl ChunkReader for Parts {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(Box::new(self.find(start)?.reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.find(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("bytes {start} to {} are not in the part that was read", start + length as u64)));
        }
        Ok(bytes.slice(..length))
    }
}

/// A range of keys: from the first bound on, up to but without the second.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRange {
    /// No key before this one.
    pub from: Option<Vec<u8>>,
    /// No key from this one on.
    pub until: Option<Vec<u8>>,
}

impl KeyRange {
    /// The rows of a sorted batch that lie in the range.
    pub fn slice(&self, rows: &RecordBatch) -> RecordBatch {
        let within = self.within(rows);
        rows.slice(within.start, within.len())
    }

    /// Which rows of a sorted batch lie in the range.
    fn within(&self, rows: &RecordBatch) -> Range<usize> {
        let keys = rows.column(0).as_binary::<i32>();
        let first_not_before = |bound: &[u8]| {
            let (mut low, mut high) = (0, keys.len());
            while low < high {
                let middle = low.midpoint(high);
                if keys.value(middle) < bound { low = middle + 1 } else { high = middle }
            }
            low
        };
        let from = self.from.as_deref().map_or(0, first_not_before);
        let until = self.until.as_deref().map_or(keys.len(), first_not_before);
        from..until.max(from)
    }
}

/// The rows of a bucket file within a range of keys, batch by batch, sorted. Everything is checked before it is parsed, and
/// row groups outside of the range are not read.
pub fn stream(vault: &Vault, file: &BucketFile, range: &KeyRange) -> BoxStream<'static, Result<RecordBatch, VaultError>> {
    Box::pin(reader(vault, file, range, Columns::All, None).map_ok(|(_, rows)| rows))
}

/// The same of those rows that a sieve kept: the others are hardly read.
pub fn stream_kept(
    vault: &Vault,
    file: &BucketFile,
    range: &KeyRange,
    kept: Arc<Kept>,
) -> BoxStream<'static, Result<RecordBatch, VaultError>> {
    Box::pin(reader(vault, file, range, Columns::All, Some(kept)).map_ok(|(_, rows)| rows))
}

/// Of the rows within a range what a sieve looks at, each batch with the number of its first row in the file.
pub fn stream_for_sieve(vault: &Vault, file: &BucketFile, range: &KeyRange) -> BoxStream<'static, Result<(u64, RecordBatch), VaultError>> {
    Box::pin(reader(vault, file, range, Columns::Sieve, None))
}

fn reader(
    vault: &Vault,
    file: &BucketFile,
    range: &KeyRange,
    columns: Columns,
    kept: Option<Arc<Kept>>,
) -> impl futures::Stream<Item = Result<(u64, RecordBatch), VaultError>> + Send + 'static {
    let wanted = Wanted { vault: vault.clone(), file: file.clone(), range: range.clone(), columns, kept };
    let reader = FileReader { groups: groups_within(file, range), wanted, footer: None, open: None };
    futures::stream::try_unfold(reader, FileReader::next)
}

/// Which of these rows were kept, as the decoder wants it; nothing if none.
fn selection(kept: &Kept, rows: Range<u64>) -> Option<RowSelection> {
    let numbers: Vec<u64> = rows.clone().filter(|row| kept.holds(*row)).collect();
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0] - rows.start) as usize..(run[0] - rows.start) as usize + run.len());
    (!numbers.is_empty()).then(|| RowSelection::from_consecutive_ranges(runs, (rows.end - rows.start) as usize))
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

/// What is read of which file.
struct Wanted {
    vault: Vault,
    file: BucketFile,
    range: KeyRange,
    columns: Columns,
    kept: Option<Arc<Kept>>,
}

/// A bucket file being read.
struct FileReader {
    wanted: Wanted,
    footer: Option<Arc<Footer>>,
    /// Row groups that are still to be read.
    groups: Range<usize>,
    /// The row group that is being read, and the number of its next row.
    open: Option<(Group, u64)>,
}

/// What the footer says, checked.
struct Footer {
    metadata: ArrowReaderMetadata,
    groups: Vec<RowGroup>,
}

struct RowGroup {
    /// The numbers of its rows in the file.
    rows: Range<u64>,
    /// Where each column chunk lies, and its digest.
    chunks: Vec<(Range<u64>, Digest)>,
}

impl Footer {
    fn of(path: &str, metadata: ArrowReaderMetadata, groups_offset_end: u64) -> Result<Footer, VaultError> {
        let entries = metadata.metadata().file_metadata().key_value_metadata();
        let stated =
            entries.and_then(|entries| entries.iter().find(|entry| entry.key == CHUNKS_KEY)).and_then(|entry| entry.value.as_deref());
        let digits = stated.unwrap_or_default().as_bytes().chunks(DIGEST_DIGITS);
        let mut digests = digits.map_while(|digits| std::str::from_utf8(digits).ok()?.parse::<Digest>().ok());
        let mut groups = Vec::new();
        let mut next_row = 0;
        for group in metadata.metadata().row_groups() {
            let rows = next_row..next_row + group.num_rows().unsigned_abs();
            next_row = rows.end;
            let chunks: Vec<(Range<u64>, Digest)> = chunk_ranges(group).zip(digests.by_ref()).collect();
            if chunks.len() != group.num_columns() || chunks.iter().any(|(range, _)| range.end > groups_offset_end) {
                return Err(VaultError::damaged(path, "its footer does not say where each column chunk lies and what its digest is"));
            }
            groups.push(RowGroup { rows, chunks });
        }
        Ok(Footer { metadata, groups })
    }
}

enum Group {
    Reader(ParquetRecordBatchReader),
    #[cfg(feature = "simulation")]
    Decoded(std::vec::IntoIter<RecordBatch>),
}

impl FileReader {
    async fn next(mut self) -> Result<Option<((u64, RecordBatch), FileReader)>, VaultError> {
        loop {
            if let Some((group, first)) = &mut self.open {
                let Wanted { file, columns, .. } = &self.wanted;
                let path = &file.file.path;
                let batch = match group {
                    Group::Reader(reader) => read::guard(path, || {
                        let batch = reader.next().transpose().map_err(|error| VaultError::damaged(path, error))?;
                        batch.map(|batch| read::check(path, *columns, batch)).transpose()
                    })?,
                    #[cfg(feature = "simulation")]
                    Group::Decoded(batches) => batches.next(),
                };
                let Some(batch) = batch else {
                    self.open = None;
                    continue;
                };
                let first_here = *first;
                *first += batch.num_rows() as u64;
                let within = self.wanted.range.within(&batch);
                if !within.is_empty() {
                    let rows = batch.slice(within.start, within.len());
                    return Ok(Some(((first_here + within.start as u64, rows), self)));
                }
            } else {
                let Some(group) = self.groups.next() else { return Ok(None) };
                let footer = match self.footer.take() {
                    Some(footer) => footer,
                    None => self.wanted.read_footer().await?,
                };
                self.open = self.wanted.open_group(&footer, group).await?;
                self.footer = Some(footer);
            }
        }
    }
}

impl Wanted {
    async fn read_footer(&self) -> Result<Arc<Footer>, VaultError> {
        let path = &self.file.file.path;
        let Part { offset, length, digest } = &self.file.footer;
        let bytes = self.vault.read_range(path, *offset..*offset + *length).await?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(VaultError::damaged(path, format!("the SHA-256 of its footer is {found} instead of {digest}")));
        }
        let parts = Parts { length: self.file.file.size, parts: Arc::new(vec![(*offset, bytes)]) };
        let decode = || read::guard(path, || Footer::of(path, read::footer(path, &parts, self.columns)?, *offset));
        let footer = decoded(*digest, self.columns as usize, || decode().map(Arc::new))?;
        if footer.groups.len() != self.file.last_keys.len() {
            return Err(VaultError::damaged(path, "the manifest names another number of row groups than it has"));
        }
        Ok(footer)
    }

    /// Opens a row group; nothing if no row of it is wanted.
    async fn open_group(&self, footer: &Footer, index: usize) -> Result<Option<(Group, u64)>, VaultError> {
        let group = &footer.groups[index];
        let selection = match &self.kept {
            None => None,
            Some(kept) => match selection(kept, group.rows.clone()) {
                None => return Ok(None),
                some => some,
            },
        };
        let parts = self.read_chunks(&group.chunks).await?;
        let first = group.rows.start;
        let path = &self.file.file.path;
        #[cfg(feature = "simulation")]
        if crate::simulated::is_on() {
            let decode = || {
                let reader = read::guard(path, || read::open_group(path, parts, footer.metadata.clone(), index, self.columns, None))?;
                reader
                    .map(|batch| read::check(path, self.columns, batch.map_err(|error| VaultError::damaged(path, error))?))
                    .collect::<Result<Vec<RecordBatch>, VaultError>>()
            };
            // The footer says what the digests of the chunks are.
            let batches = decoded(self.file.footer.digest, 2 * index + self.columns as usize, decode)?;
            let batches = crate::simulated::selected(batches, selection.as_ref());
            return Ok(Some((Group::Decoded(batches.into_iter()), first)));
        }
        let reader = read::guard(path, || read::open_group(path, parts, footer.metadata.clone(), index, self.columns, selection))?;
        Ok(Some((Group::Reader(reader), first)))
    }

    /// Reads and checks the wanted column chunks of a row group.
    async fn read_chunks(&self, chunks: &[(Range<u64>, Digest)]) -> Result<Parts, VaultError> {
        let path = &self.file.file.path;
        let mut wanted: Vec<&(Range<u64>, Digest)> = self.columns.indices().map(|column| &chunks[column]).collect();
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
}

#[cfg(test)]
mod tests;
