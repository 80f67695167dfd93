//! One file of a base or a merge: the changes of one hash bucket, sorted, read in parts and still checked.
//!
//! ```text
//!  manifest ─ digest of ─→ footer ─ digests of ─→ column chunks of every row group
//! ```
//!
//! So a reader takes one row group after the other, and of each only the columns it wants: a restore of a prefix reads the
//! row groups whose keys it wants, and a [sieve](crate::fold::sieve) the columns that decide.

mod footer;
mod read;

use std::ops::Range;

use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use serde::{Deserialize, Serialize};

pub use read::{Holding, SiftedFile, stream};

use crate::changelog::write::writer_options;
use crate::model::change::{keys_of, schema_of};
use crate::model::{Digest, ResourceId, ResourceKind};
use crate::vault::{FileRef, Vault, VaultError, layout};

/// Rows per row group of bases and merges: of each run a reader holds the bytes of one.
const ROWS_PER_GROUP: usize = 32 << 10;
/// The footer's entry with the SHA-256 of every column chunk, row group by row group.
const CHUNKS_KEY: &str = "hindsight.chunks";
/// The length of a digest in that entry.
const DIGEST_DIGITS: usize = 64;

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
    /// An empty file for changes of a kind.
    ///
    /// # Errors
    /// The encoder's.
    pub fn new(kind: ResourceKind) -> Result<FileWriter, ParquetError> {
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema_of(kind), writer_options(ROWS_PER_GROUP))?;
        Ok(FileWriter { writer, group_rows: 0, last_key: None, last_keys: Vec::new(), chunks: String::new(), rows: 0 })
    }

    /// Adds rows, all behind those before.
    ///
    /// # Errors
    /// The encoder's.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        let keys = keys_of(rows);
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
        let keys = keys_of(rows);
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

#[cfg(test)]
mod tests;
