//! Changes as Arrow columns: one envelope for every kind, and the payload of each kind.
//!
//! ```text
//! envelope  key  khash  op  at  at_bound  position  stream  offset  via  requester  request
//! object    object  version  facet  marker  rank  size  etag  storage_class  metadata  tags  acl  digest  body  lost
//! tuple     schema  table  identity  image  before  unsent  shape  reason  raw
//! block     disk  block  size  digest  body
//! ```

mod block;
mod columns;
mod object;
mod tuple;

use arrow::array::{AsArray, BinaryArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use serde::{Deserialize, Serialize};

pub use self::block::{BlockChange, BlockColumns, BlockRow, BlockRows, block_schema};
use self::columns::Word;
pub use self::object::{
    Facet, NULL_VERSION, ObjectChange, ObjectColumns, ObjectRow, ObjectRows, UNREADABLE, born, is_in_parts, object_schema,
};
pub use self::tuple::{TupleChange, TupleColumns, TupleRow, TupleRows, tuple_schema};
use super::resource::ResourceKind;

/// What a change does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// The key has this value from here on.
    Put,
    /// The key has no value from here on. For a version: it was purged.
    Delete,
    /// Everything of a scope ends here (TRUNCATE, DROP, a new incarnation).
    Reset,
    /// Something that could not be decoded, kept whole.
    Raw,
}

impl Op {
    /// The word in the `op` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Delete => "delete",
            Op::Reset => "reset",
            Op::Raw => "raw",
        }
    }

    /// Reads the word of the `op` column.
    pub fn parse(text: &str) -> Option<Op> {
        Some(match text {
            "put" => Op::Put,
            "delete" => Op::Delete,
            "reset" => Op::Reset,
            "raw" => Op::Raw,
            _ => return None,
        })
    }
}

impl Word for Op {
    fn written(self) -> &'static str {
        self.as_str()
    }

    fn read(text: &str) -> Option<Op> {
        Op::parse(text)
    }
}

/// Where the column `key` stands in every kind.
pub const KEY: usize = 0;
/// Where the column `khash` stands in every kind.
const KHASH: usize = 1;
/// Where the column `position` stands in every kind.
pub const POSITION: usize = 5;

/// The column `key` of changes of any kind, whose schema was checked.
pub fn keys_of(rows: &RecordBatch) -> &BinaryArray {
    rows.column(KEY).as_binary()
}

/// The column `khash` of changes of any kind, whose schema was checked.
pub fn hashes_of(rows: &RecordBatch) -> &Int64Array {
    rows.column(KHASH).as_primitive::<Int64Type>()
}

/// Changes of one kind as columns; the schema is checked once, here.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeBatch {
    kind: ResourceKind,
    rows: RecordBatch,
}

/// Columns that are not those of a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a change batch must have the columns of its kind: {reason}")]
pub struct SchemaError {
    reason: String,
}

impl SchemaError {
    fn word(column: &str, word: &str) -> SchemaError {
        SchemaError { reason: format!("{word:?} is no word of column {column}") }
    }
}

impl ChangeBatch {
    /// Takes columns as changes of a kind.
    ///
    /// # Errors
    /// As [`ChangeBatch::objects`].
    pub fn of(kind: ResourceKind, rows: RecordBatch) -> Result<ChangeBatch, SchemaError> {
        match kind {
            ResourceKind::Bucket => ChangeBatch::objects(rows),
            ResourceKind::Database => ChangeBatch::tuples(rows),
            ResourceKind::Machine => ChangeBatch::blocks(rows),
        }
    }

    /// Takes columns as object changes.
    ///
    /// # Errors
    /// [`SchemaError`] when they are not exactly those of [`object_schema`], or a word in them is unknown.
    pub fn objects(rows: RecordBatch) -> Result<ChangeBatch, SchemaError> {
        check_fields(&rows, &object_schema())?;
        ObjectColumns::of(&rows).check_words()?;
        Ok(ChangeBatch { kind: ResourceKind::Bucket, rows })
    }

    /// Takes columns as changes of rows.
    ///
    /// # Errors
    /// [`SchemaError`] when they are not exactly those of [`tuple_schema`], or a word in them is unknown.
    pub fn tuples(rows: RecordBatch) -> Result<ChangeBatch, SchemaError> {
        check_fields(&rows, &tuple_schema())?;
        TupleColumns::of(&rows).check_words()?;
        Ok(ChangeBatch { kind: ResourceKind::Database, rows })
    }

    /// Takes columns as changes of blocks of disks.
    ///
    /// # Errors
    /// [`SchemaError`] when they are not exactly those of [`block_schema`], or a word in them is unknown.
    pub fn blocks(rows: RecordBatch) -> Result<ChangeBatch, SchemaError> {
        check_fields(&rows, &block_schema())?;
        BlockColumns::of(&rows).check_words()?;
        Ok(ChangeBatch { kind: ResourceKind::Machine, rows })
    }

    /// An empty batch of object changes.
    pub fn no_objects() -> ChangeBatch {
        ChangeBatch { kind: ResourceKind::Bucket, rows: RecordBatch::new_empty(object_schema()) }
    }

    /// The kind of resource these changes are of.
    pub fn kind(&self) -> ResourceKind {
        self.kind
    }

    /// The columns.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// How many changes.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column `key`, which every kind has.
    pub fn key(&self) -> &BinaryArray {
        self.rows.column(KEY).as_binary()
    }

    /// The column `position`, which every kind has.
    pub fn position(&self) -> &BinaryArray {
        self.rows.column(POSITION).as_binary()
    }

    /// The columns of object changes by name.
    pub fn object_columns(&self) -> ObjectColumns<'_> {
        assert_eq!(self.kind, ResourceKind::Bucket);
        ObjectColumns::of(&self.rows)
    }

    /// The columns of changes of rows by name.
    pub fn tuple_columns(&self) -> TupleColumns<'_> {
        assert_eq!(self.kind, ResourceKind::Database);
        TupleColumns::of(&self.rows)
    }

    /// The columns of changes of blocks by name.
    pub fn block_columns(&self) -> BlockColumns<'_> {
        assert_eq!(self.kind, ResourceKind::Machine);
        BlockColumns::of(&self.rows)
    }

    /// These changes and others of the same kind.
    pub fn and(&self, other: &ChangeBatch) -> ChangeBatch {
        assert_eq!(self.kind, other.kind);
        let rows = concat_batches(&self.schema(), [&self.rows, &other.rows]).expect("they have the same columns");
        ChangeBatch { kind: self.kind, rows }
    }

    /// The columns, on their own.
    pub fn into_rows(self) -> RecordBatch {
        self.rows
    }

    /// Takes rows that a fold or a sort selected from checked batches.
    pub(crate) fn from_checked(kind: ResourceKind, rows: RecordBatch) -> ChangeBatch {
        let batch = ChangeBatch { kind, rows };
        debug_assert_eq!(batch.rows.schema_ref().fields(), batch.schema().fields());
        batch
    }

    /// The schema of its kind.
    pub fn schema(&self) -> SchemaRef {
        schema_of(self.kind)
    }
}

/// The columns that changes of a kind have.
pub fn schema_of(kind: ResourceKind) -> SchemaRef {
    match kind {
        ResourceKind::Bucket => object_schema(),
        ResourceKind::Database => tuple_schema(),
        ResourceKind::Machine => block_schema(),
    }
}

fn check_fields(rows: &RecordBatch, schema: &SchemaRef) -> Result<(), SchemaError> {
    if rows.schema_ref().fields() == schema.fields() {
        return Ok(());
    }
    let differing = schema.fields().iter().zip(rows.schema_ref().fields()).find(|(a, b)| a != b);
    let reason = match differing {
        Some((expected, found)) => format!("expected {expected:?}, found {found:?}"),
        None => format!("expected {} columns, found {}", schema.fields().len(), rows.num_columns()),
    };
    Err(SchemaError { reason })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_row_comes_back_from_its_columns() {
        let mut change = ObjectChange::put("photos/ü 1.jpg", "v1", Timestamp::from_seconds(7));
        change.tags = Some(r#"{"a":"b"}"#.to_owned());
        change.rank = Some(2);
        let batch: ChangeBatch = [change.row(), change.row()].into_iter().collect();
        assert_eq!(batch.object_columns().row(1).to_change(), change);
    }

    #[test]
    fn foreign_columns_and_unknown_words_are_refused() {
        let batch: ChangeBatch = [ObjectChange::put("a", "v", Timestamp::default()).row()].into_iter().collect();
        let fewer = batch.rows().project(&[0, 1]).unwrap();
        assert!(ChangeBatch::objects(fewer).is_err());

        let mut columns = batch.rows().columns().to_vec();
        columns[2] = Arc::new(StringArray::from(vec!["explode"]));
        let hostile = RecordBatch::try_new(object_schema(), columns).unwrap();
        let error = ChangeBatch::objects(hostile).unwrap_err();
        assert!(error.to_string().contains("explode"), "{error}");
    }
}
