//! What the footer of a bucket file says, checked, and parts of the file as the decoder wants them.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataBuilder};
use parquet::file::reader::{ChunkReader, Length};

use super::{CHUNKS_KEY, DIGEST_DIGITS, chunk_ranges};
use crate::changelog::read;
use crate::fold::sieve;
use crate::model::Digest;
use crate::vault::VaultError;

/// All that a footer says.
pub(super) struct Whole {
    metadata: ParquetMetaData,
    groups: Vec<RowGroup>,
}

/// What is known of some row groups of a file, and nothing of the others: of all of them that is much, and every file of a
/// fold keeps it.
pub(super) struct Footer {
    /// Of these row groups alone. It reads words as dictionaries where asked to.
    pub metadata: ArrowReaderMetadata,
    pub groups: Vec<RowGroup>,
}

/// Where a row group lies.
#[derive(Clone)]
pub(super) struct RowGroup {
    /// The numbers of its rows in the file.
    pub rows: Range<u64>,
    /// Where each column chunk lies, and its digest.
    pub chunks: Vec<(Range<u64>, Digest)>,
}

/// How words are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    Text,
    Dictionaries,
}

impl Whole {
    /// Takes a footer apart that begins at `offset`.
    pub fn of(path: &str, parts: &Parts, offset: u64) -> Result<Whole, VaultError> {
        let metadata = read::footer(path, parts)?;
        let groups = row_groups(path, &metadata, offset)?;
        Ok(Whole { metadata, groups })
    }

    /// How many row groups the file has.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// What it says of some row groups of those it has.
    pub fn some(&self, path: &str, groups: Range<usize>, words: Words) -> Result<Footer, VaultError> {
        let file = self.metadata.file_metadata();
        let (schema, orders) = (file.schema_descr_ptr(), file.column_orders().cloned());
        let file = FileMetaData::new(file.version(), file.num_rows(), None, None, schema, orders);
        let some = self.metadata.row_groups()[groups.clone()].to_vec();
        let metadata = Arc::new(ParquetMetaDataBuilder::new(file).set_row_groups(some).build());
        let options = match words {
            Words::Text => ArrowReaderOptions::new(),
            Words::Dictionaries => ArrowReaderOptions::new().with_schema(sieve::read_as()),
        };
        let metadata = ArrowReaderMetadata::try_new(metadata, options).map_err(|error| VaultError::damaged(path, error))?;
        Ok(Footer { metadata, groups: self.groups[groups].to_vec() })
    }
}

fn row_groups(path: &str, metadata: &ParquetMetaData, groups_end: u64) -> Result<Vec<RowGroup>, VaultError> {
    let stated = read::entry(metadata, CHUNKS_KEY);
    let digits = stated.unwrap_or_default().as_bytes().chunks(DIGEST_DIGITS);
    let mut digests = digits.map_while(|digits| std::str::from_utf8(digits).ok()?.parse::<Digest>().ok());
    let mut groups = Vec::new();
    let mut next_row = 0;
    for group in metadata.row_groups() {
        let rows = next_row..next_row + group.num_rows().unsigned_abs();
        next_row = rows.end;
        let chunks: Vec<(Range<u64>, Digest)> = chunk_ranges(group).zip(digests.by_ref()).collect();
        if chunks.len() != group.num_columns() || chunks.iter().any(|(range, _)| range.end > groups_end) {
            return Err(VaultError::damaged(path, "its footer does not say where each column chunk lies and what its digest is"));
        }
        groups.push(RowGroup { rows, chunks });
    }
    Ok(groups)
}

/// A file of which only some parts are at hand.
#[derive(Clone)]
pub(super) struct Parts {
    /// The length of the file.
    pub length: u64,
    /// Where each part begins, and its bytes.
    pub parts: Arc<Vec<(u64, Bytes)>>,
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.length
    }
}

impl Parts {
    /// How much memory they take.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

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
