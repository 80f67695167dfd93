//! The rows of a report as Parquet, in row groups of bounded size.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::{COLUMNS, ReportRow};

/// Rows that are held before they are encoded.
const PENDING_ROWS_MAX: usize = 1_024;
/// Rows of one row group.
const GROUP_ROWS_MAX: usize = 64 << 10;
/// Memory of one row group: keys may be a KiB each.
const GROUP_BYTES_MAX: usize = 32 << 20;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let types = [
        (DataType::Utf8, false),
        (DataType::Utf8, true),
        (DataType::Utf8, false),
        (DataType::Int64, false),
        (DataType::Utf8, true),
        (DataType::Utf8, true),
        (DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), false),
        (DataType::Utf8, true),
    ];
    let fields = COLUMNS.into_iter().zip(types).map(|(name, (data_type, nullable))| Field::new(name, data_type, nullable));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
});

/// Writes rows in row groups; holds at most one group of them.
pub struct ParquetReport<W: Write + Send> {
    writer: ArrowWriter<W>,
    pending: Vec<ReportRow>,
}

impl<W: Write + Send> ParquetReport<W> {
    /// Begins a report.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W) -> Result<ParquetReport<W>, ParquetError> {
        let properties =
            WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(GROUP_ROWS_MAX)).build();
        Ok(ParquetReport { writer: ArrowWriter::try_new(out, SCHEMA.clone(), Some(properties))?, pending: Vec::new() })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// What `out` says.
    pub fn append(&mut self, rows: impl IntoIterator<Item = ReportRow>) -> Result<(), ParquetError> {
        for row in rows {
            self.pending.push(row);
            if self.pending.len() >= PENDING_ROWS_MAX {
                self.encode()?;
            }
        }
        Ok(())
    }

    /// Ends the report; without this it cannot be read.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> Result<W, ParquetError> {
        self.encode()?;
        self.writer.into_inner()
    }

    fn encode(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.pending);
        if rows.is_empty() {
            return Ok(());
        }
        self.writer.write(&columns(&rows)?)?;
        if self.writer.in_progress_size() >= GROUP_BYTES_MAX {
            self.writer.flush()?;
        }
        Ok(())
    }
}

fn columns(rows: &[ReportRow]) -> Result<RecordBatch, ParquetError> {
    let texts = |of: fn(&ReportRow) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<StringArray>()) };
    let bytes: Int64Array = rows.iter().map(|row| Some(i64::try_from(row.bytes).unwrap_or(i64::MAX))).collect();
    let mut left_out = ListBuilder::new(StringBuilder::new());
    for row in rows {
        left_out.append_value(row.left_out.iter().map(Some));
    }
    let columns: Vec<ArrayRef> = vec![
        texts(|row| Some(&row.object)),
        texts(|row| row.version.as_deref()),
        texts(|row| Some(&row.action)),
        Arc::new(bytes),
        texts(|row| row.target_version.as_deref()),
        texts(|row| row.reason.as_deref()),
        Arc::new(left_out.finish()),
        texts(|row| row.uncertain.as_deref()),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}
