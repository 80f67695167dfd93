//! One file of a base or a merge: the changes of one hash bucket, sorted, read in parts and still checked.
//!
//! The manifest holds a digest for every row group and for the footer. So a reader takes one row group after the other,
//! with memory for one, and a restore of a prefix takes only the row groups whose keys it wants.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use serde::{Deserialize, Serialize};

use crate::changelog::read;
use crate::changelog::write::writer_properties;
use crate::model::change::object_schema;
use crate::model::{Digest, ResourceId};
use crate::vault::{FileRef, Vault, VaultError, layout};

/// Rows per row group of bases and merges: what a reader holds in memory of each run.
const ROWS_PER_GROUP: usize = 32 << 10;

/// The file of one hash bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketFile {
    /// Which bucket.
    pub bucket: u32,
    /// Its rows.
    pub rows: u64,
    /// The file.
    pub file: FileRef,
    /// Its row groups, in order.
    pub groups: Vec<Part>,
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
    /// The greatest key in it, in hexadecimal; of row groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_key: Option<String>,
}

/// Encodes the rows of one bucket, which come sorted.
pub struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    group_rows: usize,
    last_key: Option<String>,
    last_keys: Vec<String>,
    rows: u64,
}

impl FileWriter {
    /// An empty file.
    ///
    /// # Errors
    /// The encoder's.
    pub fn new() -> Result<FileWriter, ParquetError> {
        let writer = ArrowWriter::try_new(Vec::new(), object_schema(), Some(writer_properties(ROWS_PER_GROUP)))?;
        Ok(FileWriter { writer, group_rows: 0, last_key: None, last_keys: Vec::new(), rows: 0 })
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
        self.writer.flush()?;
        self.last_keys.extend(self.last_key.take());
        self.group_rows = 0;
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
        let (rows, last_keys) = (self.rows, self.last_keys);
        let bytes: Bytes = self.writer.into_inner().map_err(broken)?.into();
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes).map_err(broken)?;
        let mut groups = Vec::with_capacity(metadata.num_row_groups());
        for (index, last_key) in (0..metadata.num_row_groups()).zip(last_keys) {
            let (offset, length) = range_of(&metadata, index);
            let digest = Digest::of(&bytes[offset as usize..(offset + length) as usize]);
            groups.push(Part { offset, length, digest, last_key: Some(last_key) });
        }
        let offset = groups.last().map_or(0, |last: &Part| last.offset + last.length);
        let footer = Part { offset, length: bytes.len() as u64 - offset, digest: Digest::of(&bytes[offset as usize..]), last_key: None };
        let path = layout::base_file(resource, &Digest::of(&bytes));
        let file = vault.create_named_by_content(&path, bytes).await?;
        Ok(BucketFile { bucket, rows, file, groups, footer })
    }
}

fn range_of(metadata: &ParquetMetaData, group: usize) -> (u64, u64) {
    let columns = metadata.row_group(group).columns();
    let ranges = columns.iter().map(parquet::file::metadata::ColumnChunkMetaData::byte_range);
    let (from, to) = ranges.fold((u64::MAX, 0), |(from, to), (start, length)| (from.min(start), to.max(start + length)));
    (from, to - from)
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
        rows.slice(from, until.saturating_sub(from))
    }
}

/// The rows of a bucket file within a range of keys, batch by batch, sorted; each row group is checked before it is
/// parsed, and row groups outside of the range are not read.
pub fn stream(vault: &Vault, file: &BucketFile, range: &KeyRange) -> BoxStream<'static, Result<RecordBatch, VaultError>> {
    let (from, until) = (range.from.as_ref().map(hex::encode), range.until.as_ref().map(hex::encode));
    let last_key = |index: usize| file.groups.get(index).and_then(|group| group.last_key.as_ref());
    let wanted = |index: &usize| {
        let ends_before = from.as_ref().is_some_and(|from| last_key(*index).is_some_and(|last| last < from));
        let begins_after =
            index.checked_sub(1).and_then(last_key).is_some_and(|before| until.as_ref().is_some_and(|until| before >= until));
        !ends_before && !begins_after
    };
    let groups: Vec<usize> = (0..file.groups.len()).filter(wanted).collect();
    let reader = GroupReader { vault: vault.clone(), file: file.clone(), footer: None, groups: groups.into_iter() };
    let range = range.clone();
    futures::stream::try_unfold(reader, GroupReader::next)
        .flat_map(move |group: Result<Vec<RecordBatch>, VaultError>| match group {
            Ok(batches) => futures::stream::iter(batches.iter().map(|batch| Ok(range.slice(batch))).collect::<Vec<_>>()),
            Err(error) => futures::stream::iter(vec![Err(error)]),
        })
        .boxed()
}

struct GroupReader {
    vault: Vault,
    file: BucketFile,
    footer: Option<(Bytes, ArrowReaderMetadata)>,
    groups: std::vec::IntoIter<usize>,
}

impl GroupReader {
    async fn next(mut self) -> Result<Option<(Vec<RecordBatch>, GroupReader)>, VaultError> {
        let Some(index) = self.groups.next() else { return Ok(None) };
        let path = self.file.file.path.clone();
        if self.footer.is_none() {
            let bytes = self.part(&self.file.footer).await?;
            let parts = Parts { length: self.file.file.size, parts: Arc::new(vec![(self.file.footer.offset, bytes.clone())]) };
            self.footer = Some((bytes, read::guard(&path, || read::footer(&path, &parts))?));
        }
        let (footer, metadata) = self.footer.clone().expect("read just above");
        let group = &self.file.groups[index];
        let bytes = self.part(group).await?;
        let parts = vec![(group.offset, bytes), (self.file.footer.offset, footer)];
        let parts = Parts { length: self.file.file.size, parts: Arc::new(parts) };
        let parse = || {
            if index >= metadata.metadata().num_row_groups() {
                return Err(VaultError::damaged(&path, "the manifest names more row groups than it has"));
            }
            let reader = read::open_group(&path, parts, metadata, index)?;
            reader.map(|batch| read::check(&path, batch.map_err(|error| VaultError::damaged(&path, error))?)).collect()
        };
        let batches = read::decoded(group.digest, || read::guard(&path, parse))?;
        Ok(Some((batches, self)))
    }

    async fn part(&self, part: &Part) -> Result<Bytes, VaultError> {
        let path = &self.file.file.path;
        let bytes = self.vault.read_range(path, part.offset..part.offset + part.length).await?;
        let digest = Digest::of(&bytes);
        if digest != part.digest {
            return Err(VaultError::damaged(
                path,
                format!("the SHA-256 of bytes {} to {} is {digest} instead of {}", part.offset, part.offset + part.length, part.digest),
            ));
        }
        Ok(bytes)
    }
}
