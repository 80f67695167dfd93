//! Reading Parquet files of changes: digest first, then the parser, and never a panic.
//!
//! The parquet crate panics on some hostile files. What was written by us never does; but somebody may hand an operator
//! a vault that was not, with digests to match, so the parser runs behind a guard and its panic is an error with a name.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use parquet::basic::Type as PhysicalType;
use parquet::column::page::PageReader as _;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy, RowGroupMetaData};
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;

use super::segment::Segment;
use super::write::{FORMAT_KEY, FORMAT_VERSION, RESOURCE_KEY};
use crate::fold::sieve;
use crate::model::change::{ChangeBatch, block_schema, object_schema, schema_of, tuple_schema};
use crate::model::{Digest, ResourceKind};
use crate::simulated::decoded;
use crate::vault::{Vault, VaultError, layout};

/// Rows per batch when reading.
pub const BATCH_ROWS: usize = 4_096;

/// Which columns are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    /// All of them.
    All,
    /// Those of objects by which a [sieve](crate::fold::sieve) decides.
    Deciding,
    /// Those that it reads of what it keeps.
    Others,
}

impl Columns {
    /// How many choices there are.
    #[cfg(feature = "simulation")]
    pub(crate) const KINDS: usize = 3;

    /// Their places in the schema of a kind.
    pub(crate) fn indices(self, kind: ResourceKind) -> &'static [usize] {
        static OBJECTS: LazyLock<Vec<usize>> = LazyLock::new(|| (0..object_schema().fields().len()).collect());
        static TUPLES: LazyLock<Vec<usize>> = LazyLock::new(|| (0..tuple_schema().fields().len()).collect());
        static BLOCKS: LazyLock<Vec<usize>> = LazyLock::new(|| (0..block_schema().fields().len()).collect());
        match (self, kind) {
            (Columns::All, ResourceKind::Bucket) => &OBJECTS,
            (Columns::All, ResourceKind::Database) => &TUPLES,
            (Columns::All, ResourceKind::Machine) => &BLOCKS,
            (Columns::Deciding, _) => &sieve::DECIDING,
            (Columns::Others, _) => &sieve::OTHERS,
        }
    }

    /// They themselves.
    pub(crate) fn schema(self, kind: ResourceKind) -> SchemaRef {
        Arc::new(schema_of(kind).project(self.indices(kind)).expect("they are places of columns"))
    }
}

/// The changes of a segment, checked against its name before they are parsed.
///
/// # Errors
/// As [`Vault::read`]; [`VaultError::Damaged`] and [`VaultError::Unknown`].
pub async fn read(vault: &Vault, segment: &Segment) -> Result<Vec<RecordBatch>, VaultError> {
    parse(segment, vault.read(&segment.path).await?)
}

/// The same of a segment whose file has been read: what it takes in memory comes to be only here.
///
/// # Errors
/// [`VaultError::Damaged`] and [`VaultError::Unknown`].
pub fn parse(segment: &Segment, bytes: Bytes) -> Result<Vec<RecordBatch>, VaultError> {
    parse_by(segment, bytes, |path, digest, bytes| decoded(digest, 0, || decode(path, bytes)))
}

/// Of a segment of a database only the rows that say more than what one row is now: see [`telling`].
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_telling(vault: &Vault, segment: &Segment) -> Result<Vec<RecordBatch>, VaultError> {
    parse_by(segment, vault.read(&segment.path).await?, |path, _, bytes| telling(path, bytes))
}

fn parse_by(
    segment: &Segment,
    bytes: Bytes,
    decode: impl FnOnce(&str, Digest, Bytes) -> Result<Vec<RecordBatch>, VaultError>,
) -> Result<Vec<RecordBatch>, VaultError> {
    let path = segment.path.as_str();
    let digest = Digest::of(&bytes);
    let read = check_name(path, &segment.name.digest, digest).and_then(|()| decode(path, digest, bytes));
    read.map_err(|error| match error {
        VaultError::Damaged { path, reason } => {
            let next = "move this file out of the vault, and restores go on without what it told, and say so";
            VaultError::Damaged { path, reason: format!("{reason}; {next}") }
        }
        other => other,
    })
}

/// Of a file of changes of rows only those that say more than what one row is now: of the database itself, of whole tables, what
/// could not be decoded, and puts that leave something out. Few columns say which these are; the others are read of these alone.
pub(crate) fn telling(path: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, VaultError> {
    let broken = |error| VaultError::damaged(path, error);
    guard(path, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|error| VaultError::damaged(path, error))?;
        footer(path, &bytes)?;
        check_resource(path, builder.metadata())?;
        let source = Arc::new(bytes.clone());
        builder.metadata().row_groups().iter().try_for_each(|group| check_numbers(path, &source, group, Columns::All))?;
        let places = [tuple_schema().index_of("op"), tuple_schema().index_of("schema"), tuple_schema().index_of("unsent")];
        let places: Vec<usize> = places.into_iter().collect::<Result<_, _>>().map_err(broken)?;
        let projection = ProjectionMask::roots(builder.parquet_schema(), places);
        let mut filters = Vec::new();
        let deciding = builder.with_projection(projection).with_batch_size(BATCH_ROWS).build();
        for batch in deciding.map_err(|error| VaultError::damaged(path, error))? {
            let batch = batch.map_err(broken)?;
            let [op, schema, unsent] =
                ["op", "schema", "unsent"].map(|name| batch.column_by_name(name).map(|column| column.as_string_opt::<i32>()));
            let (Some(Some(op)), Some(Some(schema)), Some(Some(unsent))) = (op, schema, unsent) else {
                return Err(VaultError::damaged(path, "its columns are not those of changes of rows"));
            };
            let is_one_row = |row: usize| !schema.value(row).is_empty() && matches!(op.value(row), "put" | "delete") && unsent.is_null(row);
            filters.push((0..batch.num_rows()).map(|row| Some(!is_one_row(row))).collect::<BooleanArray>());
        }
        let selection = RowSelection::from_filters(&filters);
        if !selection.selects_any() {
            return Ok(Vec::new());
        }
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| VaultError::damaged(path, error))?;
        let reader = builder.with_row_selection(selection).with_batch_size(BATCH_ROWS).build();
        let batches = reader.map_err(|error| VaultError::damaged(path, error))?;
        batches.map(|batch| check(path, Columns::All, batch.map_err(broken)?)).collect()
    })
}

fn check_name(path: &str, named: &str, digest: Digest) -> Result<(), VaultError> {
    let digest = digest.short();
    if digest == named {
        Ok(())
    } else {
        Err(VaultError::damaged(path, format!("its SHA-256 begins with {digest}, its name says {named}")))
    }
}

/// The batches of a whole file in memory.
///
/// # Errors
/// [`VaultError::Damaged`] and [`VaultError::Unknown`].
pub fn decode(path: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, VaultError> {
    guard(path, || {
        let reader = open(path, bytes)?;
        let mut batches = Vec::new();
        for batch in reader {
            let batch = batch.map_err(|error| VaultError::damaged(path, error))?;
            batches.push(check(path, Columns::All, batch)?);
        }
        Ok(batches)
    })
}

/// A reader of all row groups of a file, or of the part of one.
pub(crate) fn open<R: ChunkReader + Clone + 'static>(path: &str, bytes: R) -> Result<ParquetRecordBatchReader, VaultError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|error| VaultError::damaged(path, error))?;
    check_format(path, builder.metadata())?;
    check_resource(path, builder.metadata())?;
    let bytes = Arc::new(bytes);
    builder.metadata().row_groups().iter().try_for_each(|group| check_numbers(path, &bytes, group, Columns::All))?;
    builder.with_batch_size(BATCH_ROWS).build().map_err(|error| VaultError::damaged(path, error))
}

/// A reader of one row group, of a file whose footer is known.
pub(crate) fn open_group<R: ChunkReader + Clone + 'static>(
    path: &str,
    bytes: R,
    metadata: ArrowReaderMetadata,
    group: usize,
    columns: Columns,
    selection: Option<RowSelection>,
    batch_rows: usize,
) -> Result<ParquetRecordBatchReader, VaultError> {
    let projection = ProjectionMask::roots(metadata.parquet_schema(), columns.indices(layout::kind_of(path)).iter().copied());
    check_numbers(path, &Arc::new(bytes.clone()), metadata.metadata().row_group(group), columns)?;
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata).with_row_groups(vec![group]);
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    builder.with_projection(projection).with_batch_size(batch_rows).build().map_err(|error| VaultError::damaged(path, error))
}

/// Columns of numbers have no dictionary: nobody writes one, and the parser would make room for as many numbers as its head
/// claims. Of words it makes room as they come.
fn check_numbers<R: ChunkReader + 'static>(
    path: &str,
    bytes: &Arc<R>,
    group: &RowGroupMetaData,
    columns: Columns,
) -> Result<(), VaultError> {
    let broken = |error| VaultError::damaged(path, error);
    let rows = usize::try_from(group.num_rows()).map_err(|_| VaultError::damaged(path, "a row group of it has a negative length"))?;
    for chunk in columns.indices(layout::kind_of(path)).iter().filter_map(|&column| group.columns().get(column)) {
        if !matches!(chunk.column_type(), PhysicalType::INT32 | PhysicalType::INT64) {
            continue;
        }
        let mut pages = SerializedPageReader::new(Arc::clone(bytes), chunk, rows, None).map_err(broken)?;
        while let Some(page) = pages.peek_next_page().map_err(broken)? {
            if page.is_dict {
                return Err(VaultError::damaged(path, format!("column {} has a dictionary of numbers", chunk.column_path())));
            }
            pages.skip_next_page().map_err(broken)?;
        }
    }
    Ok(())
}

/// The footer of a file, checked for its format version and its columns.
pub(crate) fn footer<R: ChunkReader + 'static>(path: &str, bytes: &R) -> Result<ParquetMetaData, VaultError> {
    let broken = |error| VaultError::damaged(path, error);
    // Nobody asks for statistics here, and every file of a fold would hold them.
    let mut options = ParquetMetaDataOptions::new();
    options.set_column_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let metadata = ParquetMetaDataReader::new().with_metadata_options(Some(options)).parse_and_finish(bytes).map_err(broken)?;
    check_format(path, &metadata)?;
    let columns = parquet_to_arrow_schema(metadata.file_metadata().schema_descr(), None).map_err(broken)?;
    if columns.fields() != schema_of(layout::kind_of(path)).fields() {
        return Err(VaultError::damaged(path, "its columns are not those of changes"));
    }
    Ok(metadata)
}

/// What an entry of the footer says.
pub(crate) fn entry<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    metadata.file_metadata().key_value_metadata()?.iter().find(|entry| entry.key == key)?.value.as_deref()
}

/// Among the segments of a resource nobody else's is read: its name says what it holds, and not whose it is.
fn check_resource(path: &str, metadata: &ParquetMetaData) -> Result<(), VaultError> {
    let Some(resource) = layout::log_resource(path) else { return Ok(()) };
    match entry(metadata, RESOURCE_KEY) {
        Some(found) if found == resource => Ok(()),
        found => Err(VaultError::damaged(path, format!("it holds changes of {}", found.unwrap_or("nobody knows what")))),
    }
}

fn check_format(path: &str, metadata: &ParquetMetaData) -> Result<(), VaultError> {
    let found: Option<u32> = entry(metadata, FORMAT_KEY).and_then(|text| text.parse().ok());
    match found {
        Some(found) if found > FORMAT_VERSION => Err(VaultError::Unknown { path: path.to_owned(), found, known: FORMAT_VERSION }),
        Some(found) if found > 0 => Ok(()),
        _ => Err(VaultError::damaged(path, "it does not say which format it has")),
    }
}

/// Takes a batch as changes. A sieve looks at the words itself.
pub(crate) fn check(path: &str, columns: Columns, batch: RecordBatch) -> Result<RecordBatch, VaultError> {
    if columns != Columns::All {
        return Ok(batch);
    }
    let changes = ChangeBatch::of(layout::kind_of(path), batch).map_err(|error| VaultError::damaged(path, error))?;
    Ok(changes.into_rows())
}

/// Runs the parser; its panic becomes damage of the file.
pub(crate) fn guard<T>(path: &str, parse: impl FnOnce() -> Result<T, VaultError>) -> Result<T, VaultError> {
    catch_unwind(AssertUnwindSafe(parse)).unwrap_or_else(|_| Err(VaultError::damaged(path, "the Parquet reader gave up on it")))
}

#[cfg(test)]
mod tests {
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::changelog::write::{self, Encoded};
    use crate::model::change::{TupleRow, TupleRows};
    use crate::model::{ObjectChange, Op, Position, ResourceId, Timestamp};

    fn encoded(count: i64) -> write::Encoded {
        let rows: Vec<ObjectChange> =
            (0..count).rev().map(|i| ObjectChange::put(&format!("k{i:05}"), "v", Timestamp::from_seconds(i))).collect();
        let batch: ChangeBatch = rows.iter().map(ObjectChange::row).collect();
        let resource = ResourceId::bucket("photos").unwrap();
        write::encode(&resource, &batch, Timestamp::from_seconds(3_600), Timestamp::from_seconds(9), Vec::new()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_sorted_and_named_by_what_it_holds() {
        let encoded = encoded(3);
        assert_eq!((encoded.name.first.seconds(), encoded.name.last.seconds(), encoded.name.latest.seconds()), (0, 2, 9));
        let batches = decode("s", encoded.bytes).unwrap();
        let rows = ChangeBatch::objects(batches[0].clone()).unwrap();
        let keys: Vec<&str> = rows.object_columns().iter().map(|row| row.object).collect();
        assert_eq!(keys, ["k00000", "k00001", "k00002"]);
    }

    #[test]
    fn a_segment_of_another_resource_is_not_taken_for_ones_own() {
        let Encoded { name, bytes } = encoded(3);
        assert!(decode(&name.to_string(), bytes.clone()).is_ok());
        let elsewhere = name.to_string().replace("bucket-photos", "bucket-letters");
        let error = decode(&elsewhere, bytes).unwrap_err();
        assert!(error.to_string().ends_with("is damaged: it holds changes of bucket-photos"), "{error}");
    }

    #[test]
    fn changes_of_rows_are_kept_under_their_database_and_nowhere_else() {
        let position = Position::committed(1, 100, 1);
        let row = TupleRow {
            schema: "public",
            identity: Some(r#"["1"]"#),
            image: Some(r#"{"id":"1"}"#),
            ..TupleRow::put("slot", "t", Timestamp::from_seconds(7), position.as_bytes())
        };
        let batch: ChangeBatch = [row].into_iter().collect();
        let resource = ResourceId::database("shop").unwrap();
        let encoded = write::encode(&resource, &batch, Timestamp::from_seconds(3_600), Timestamp::from_seconds(9), Vec::new()).unwrap();
        let path = encoded.name.to_string();
        let read = decode(&path, encoded.bytes.clone()).unwrap();
        assert_eq!(ChangeBatch::tuples(read[0].clone()).unwrap(), batch);
        let error = decode("log/v1/res=bucket-shop/date=2026-08-22/hour=11/s", encoded.bytes).unwrap_err();
        assert!(error.to_string().contains("database-shop"), "{error}");
    }

    fn says_more(row: &TupleRow<'_>) -> bool {
        row.schema.is_empty() || !matches!(row.op, Op::Put | Op::Delete) || row.unsent.is_some()
    }

    /// Rows of which every so many says more than what it is now.
    fn some_telling(rows: u64, telling_every: u64) -> ChangeBatch {
        let mut batch = TupleRows::new();
        for number in 0..rows {
            let position = Position::committed(1, 100, number);
            let identity = format!(r#"["{number}"]"#);
            let blank = TupleRow::put("slot", "t", Timestamp::from_seconds(7), position.as_bytes());
            let plain = TupleRow { schema: "public", identity: Some(&identity), image: Some("{}"), ..blank };
            batch.push(&match number.is_multiple_of(telling_every).then_some(number / telling_every % 4) {
                Some(0) => TupleRow { schema: "", ..plain },
                Some(1) => TupleRow { op: Op::Reset, identity: None, image: None, ..plain },
                Some(2) => TupleRow { op: Op::Raw, ..plain },
                Some(_) => TupleRow { unsent: Some(r#"["note"]"#), ..plain },
                None if number.is_multiple_of(3) => TupleRow { op: Op::Delete, image: None, ..plain },
                None => plain,
            });
        }
        batch.finish()
    }

    #[test]
    fn what_says_more_than_one_row_is_found_among_many() {
        let resource = ResourceId::database("shop").unwrap();
        for (rows, telling_every) in [(12, 1), (10_000, 7), (9_000, 9_999), (0, 1)] {
            let changes = some_telling(rows, telling_every);
            let encoded =
                write::encode(&resource, &changes, Timestamp::from_seconds(3_600), Timestamp::from_seconds(9), Vec::new()).unwrap();
            let path = encoded.name.to_string();
            let texts = |batches: Vec<RecordBatch>| {
                let changes = batches.into_iter().map(|batch| ChangeBatch::tuples(batch).unwrap());
                let of_batch = |changes: ChangeBatch| {
                    let columns = changes.tuple_columns();
                    columns.iter().filter(says_more).map(|row| format!("{row:?}")).collect::<Vec<_>>()
                };
                changes.flat_map(of_batch).collect::<Vec<_>>()
            };
            let found = telling(&path, encoded.bytes.clone()).unwrap();
            let count: usize = found.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(count as u64, rows.div_ceil(telling_every), "{rows} rows");
            assert_eq!(texts(found), texts(decode(&path, encoded.bytes).unwrap()));
        }
    }

    #[test]
    fn encoding_is_deterministic() {
        assert_eq!(encoded(500).name, encoded(500).name);
    }

    #[test]
    fn a_dictionary_of_numbers_is_refused_before_room_is_made_for_it() {
        let batch: ChangeBatch = [ObjectChange::put("k", "v", Timestamp::from_seconds(7))].iter().map(ObjectChange::row).collect();
        let check = |numbers: bool| {
            let mut properties = write::writer_properties(10).into_builder().set_dictionary_enabled(false);
            properties =
                properties.set_column_dictionary_enabled("khash".into(), numbers).set_column_dictionary_enabled("via".into(), true);
            let mut writer = ArrowWriter::try_new(Vec::new(), object_schema(), Some(properties.build())).unwrap();
            writer.write(batch.rows()).unwrap();
            decode("s", writer.into_inner().unwrap().into()).map(drop)
        };
        assert!(check(false).is_ok(), "one of words is as it is written");
        let error = check(true).unwrap_err();
        assert!(error.to_string().contains("has a dictionary of numbers"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_an_error_wherever_it_is_cut_or_flipped_and_never_a_panic() {
        let bytes = encoded(40).bytes;
        for index in (0..bytes.len()).step_by(7) {
            assert!(decode("s", bytes.slice(..index)).is_err(), "cut at {index}");
            let mut flipped = bytes.to_vec();
            flipped[index] ^= 0x55;
            // Without the digest some flips only change values; what matters here is that none panics.
            drop(decode("s", flipped.into()));
        }
    }
}
