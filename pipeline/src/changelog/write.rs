//! Appending: sort, encode, name by content, create.
//!
//! Encoding is deterministic: the same changes under the same program make the same bytes, so a retry meets its own
//! file and that is success. Acknowledging the source comes after, never before.

use arrow::array::{AsArray, BinaryArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::link::Link;
use super::segment::{Segment, SegmentName};
use crate::model::change::ChangeBatch;
use crate::model::{Digest, ResourceId, Timestamp};
use crate::simulated::is_on;
use crate::vault::{Vault, VaultError, layout};

/// The version of the segment format that this program writes, and the highest it reads.
pub const FORMAT_VERSION: u32 = 1;
/// The footer's entry that holds it.
pub const FORMAT_KEY: &str = "hindsight.format";
/// The entry of a segment's footer that says whose changes they are.
pub const RESOURCE_KEY: &str = "hindsight.resource";

/// How much of a column is compressed together: what a reader of many files holds of each column of each.
const PAGE_BYTES: usize = 128 << 10;
/// Columns that hardly ever repeat a value: building a dictionary of them is time lost.
const UNIQUE_COLUMNS: [&str; 12] =
    ["key", "position", "request", "object", "version", "etag", "digest", "body", "identity", "image", "before", "raw"];
/// Columns of numbers: they have no dictionary either, and [`read`](super::read) takes none.
const NUMBER_COLUMNS: [&str; 7] = ["khash", "at", "at_bound", "offset", "rank", "size", "block"];
/// Columns whose smallest and greatest values a reader asks for.
const STATISTICS_COLUMNS: [&str; 2] = ["key", "at"];

/// How Parquet files of changes are written, everywhere.
pub fn writer_properties(rows_per_group: usize) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by("hindsight".to_owned())
        .set_compression(compression())
        .set_data_page_size_limit(PAGE_BYTES)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(rows_per_group))
        .set_key_value_metadata(Some(vec![KeyValue::new(FORMAT_KEY.to_owned(), FORMAT_VERSION.to_string())]));
    // A dictionary of a handful of words costs a simulated history more than all else about a file.
    properties = properties.set_dictionary_enabled(!is_on());
    for column in UNIQUE_COLUMNS.into_iter().chain(NUMBER_COLUMNS) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    for column in STATISTICS_COLUMNS {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::Chunk);
    }
    properties.build()
}

/// The same, with what the encoder itself wants to know.
pub(crate) fn writer_options(rows_per_group: usize) -> ArrowWriterOptions {
    // The types of Parquet say all of ours; Arrow's own description of them would be a fifth of a small segment.
    ArrowWriterOptions::new().with_properties(writer_properties(rows_per_group)).with_skip_arrow_metadata(true)
}

fn compression() -> Compression {
    if is_on() {
        return Compression::UNCOMPRESSED;
    }
    Compression::ZSTD(ZstdLevel::try_new(1).expect("zstd has a level 1"))
}

/// Rows per row group of a segment: a segment is read whole.
const SEGMENT_ROWS_PER_GROUP: usize = 1 << 20;

/// A segment that is encoded but not yet in the vault.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Where it will stand.
    pub name: SegmentName,
    /// Its file.
    pub bytes: Bytes,
}

/// The changes sorted by (key, position), as every run of a fold must be.
pub fn sort(changes: &ChangeBatch) -> ChangeBatch {
    let (key, position) = (changes.key(), changes.position());
    let place = |index: usize| (key.value(index), position.value(index));
    if (1..changes.len()).all(|index| place(index - 1) <= place(index)) {
        return changes.clone();
    }
    sort_all(std::slice::from_ref(changes))
}

/// The changes of several batches of one kind in one, sorted by (key, position); what is equal in both stays in its order. No more than that
/// one is made beside them.
pub fn sort_all(batches: &[ChangeBatch]) -> ChangeBatch {
    let Some(first) = batches.first() else { return ChangeBatch::no_objects() };
    let columns: Vec<(&BinaryArray, &BinaryArray)> = batches.iter().map(|batch| (batch.key(), batch.position())).collect();
    let place = |(batch, row): (u32, u32)| {
        let (key, position) = columns[batch as usize];
        (key.value(row as usize), position.value(row as usize))
    };
    // Nearly all comparisons end within the first bytes in which the keys differ at all, so those stand beside the place.
    let shared = shared_prefix(columns.iter().flat_map(|(key, _)| key.iter().flatten()));
    let rows = |batch: usize| (0..batches[batch].len()).map(move |row| (batch as u32, row as u32));
    let mut order: Vec<(u128, (u32, u32))> = (0..batches.len()).flat_map(rows).map(|at| (head(&place(at).0[shared..]), at)).collect();
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| place(a.1).cmp(&place(b.1))).then(a.1.cmp(&b.1)));
    let order: Vec<(usize, usize)> = order.into_iter().map(|(_, (batch, row))| (batch as usize, row as usize)).collect();
    let rows: Vec<&RecordBatch> = batches.iter().map(ChangeBatch::rows).collect();
    let sorted =
        interleave_record_batch(&rows, &order).expect("change batches of one kind have one schema, and the places are of their rows");
    ChangeBatch::from_checked(first.kind(), sorted)
}

/// With how many bytes in common all keys begin.
fn shared_prefix<'a>(mut keys: impl Iterator<Item = &'a [u8]>) -> usize {
    let first = keys.next().unwrap_or_default();
    keys.fold(first.len(), |shared, key| {
        if key.starts_with(&first[..shared]) { shared } else { first.iter().zip(key).take_while(|(a, b)| a == b).count() }
    })
}

/// The first bytes as a number that orders as they do, as far as they tell.
fn head(bytes: &[u8]) -> u128 {
    bytes.first_chunk().map_or_else(
        || {
            let mut padded = [0; 16];
            padded[..bytes.len()].copy_from_slice(bytes);
            u128::from_be_bytes(padded)
        },
        |bytes| u128::from_be_bytes(*bytes),
    )
}

/// Makes a segment of changes that arrived in the hour of `arrived`, and follows these others.
///
/// # Errors
/// The encoder's.
pub fn encode(
    resource: &ResourceId,
    changes: &ChangeBatch,
    arrived: Timestamp,
    latest: Timestamp,
    after: Vec<Link>,
) -> Result<Encoded, ParquetError> {
    assert_eq!(resource.kind(), changes.kind(), "a resource has changes of its own kind");
    let sorted = sort(changes);
    let (first, last) = span(sorted.rows()).unwrap_or((latest, latest));
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, changes.schema(), writer_options(SEGMENT_ROWS_PER_GROUP))?;
    writer.write(sorted.rows())?;
    writer.append_key_value_metadata(KeyValue::new(RESOURCE_KEY.to_owned(), resource.as_str().to_owned()));
    writer.close()?;
    let bytes = Bytes::from(bytes);
    let (folder, arrived) = (layout::log_hour_folder(resource, arrived), arrived.floor_hour());
    let name = SegmentName { folder, arrived, first, last, latest, digest: Digest::of(&bytes).short(), after };
    Ok(Encoded { name, bytes })
}

/// The earliest and latest time in the rows, bounds included.
pub(crate) fn span(rows: &RecordBatch) -> Option<(Timestamp, Timestamp)> {
    let columns = [rows.column_by_name("at")?, rows.column_by_name("at_bound")?];
    let times = columns.iter().flat_map(|column| column.as_primitive::<TimestampMicrosecondType>().iter().flatten());
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)));
    (first <= last).then(|| (Timestamp::from_micros(first), Timestamp::from_micros(last)))
}

/// Puts a segment into the vault. That it is there already is success: an earlier try, or somebody with the same changes.
///
/// # Errors
/// As [`Vault::create_named_by_content`]; trying again is safe.
pub async fn append(vault: &Vault, encoded: &Encoded) -> Result<Segment, VaultError> {
    let file = vault.create_named_by_content(&encoded.name.to_string(), encoded.bytes.clone()).await?;
    Ok(Segment { name: encoded.name.clone(), path: file.path, size: file.size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ObjectChange;

    proptest! {
        #[test]
        fn sorting_is_by_key_then_position_and_keeps_every_row(
            rows in proptest::collection::vec(("(aa?/){0,9}[\u{0}b]{0,3}", "[v-x]{0,2}", 0i64..4), 0..30),
        ) {
            let changes: Vec<ObjectChange> =
                rows.iter().map(|(object, version, second)| ObjectChange::put(object, version, Timestamp::from_seconds(*second))).collect();
            let batch: ChangeBatch = changes.iter().map(ObjectChange::row).collect();
            let sorted = sort(&batch);
            let parts: Vec<ChangeBatch> = changes.chunks(7).map(|part| part.iter().map(ObjectChange::row).collect()).collect();
            let of_parts = sort_all(&parts);
            prop_assert_eq!(of_parts.rows(), sorted.rows());
            let found: Vec<ObjectChange> = sorted.object_columns().iter().map(|row| row.to_change()).collect();
            let mut expected = changes;
            expected.sort_by_key(|change| (change.object.clone().into_bytes(), change.version.clone(), change.at));
            prop_assert_eq!(found, expected);
        }
    }
}
