//! Which columns of changes decide, which follow from the key, and how whole rows are made of them.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, RecordBatch, StringArray, StringBuilder, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::model::Key;
use crate::model::change::object_schema;
use crate::model::key::khash;

/// The places of the columns that a sieve looks at: `key`, `op`, `at`, `at_bound`, `position`, `via`, `facet`, `marker`, `rank`.
pub const DECIDING: [usize; 9] = [0, 2, 3, 4, 5, 8, 13, 14, 15];
/// Where they stand in a batch of deciding columns.
pub(super) mod place {
    pub const KEY: usize = 0;
    pub const OP: usize = 1;
    pub const AT: usize = 2;
    pub const AT_BOUND: usize = 3;
    pub const POSITION: usize = 4;
    pub const VIA: usize = 5;
    pub const FACET: usize = 6;
    pub const RANK: usize = 8;
}

/// Those of them that hold one of a few words.
const WORDS: [usize; 3] = [2, 8, 13];
/// The places of the columns that follow from the key: `khash`, `object`, `version`.
const OF_KEY: [usize; 3] = [1, 11, 12];
/// The places of all others.
pub const OTHERS: [usize; 13] = [6, 7, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24];

/// The columns of changes, words as dictionaries: a row's word is then a number, and nearly nothing to read.
pub fn read_as() -> SchemaRef {
    static READ_AS: LazyLock<SchemaRef> = LazyLock::new(|| {
        let word = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let schema = object_schema();
        let fields = schema.fields().iter().enumerate().map(|(index, field)| match WORDS.contains(&index) {
            true => Arc::new(Field::new(field.name(), word(), field.is_nullable())),
            false => field.clone(),
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    });
    READ_AS.clone()
}

/// A batch of deciding columns, its words as text.
pub(super) fn spelled_out(deciding: RecordBatch) -> RecordBatch {
    static DECIDING_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(&DECIDING));
    let schema = DECIDING_SCHEMA.clone();
    let columns = schema.fields().iter().zip(deciding.columns()).map(|(field, column)| match column.data_type() == field.data_type() {
        true => column.clone(),
        false => cast(column, field.data_type()).expect("a dictionary of words becomes words"),
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("they are the deciding columns")
}

/// The other columns of rows of which they were not read: null, or empty.
pub(super) fn unread(rows: usize) -> RecordBatch {
    static OTHERS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(&OTHERS));
    let schema = OTHERS_SCHEMA.clone();
    let columns = schema.fields().iter().map(|field| match field.is_nullable() {
        true => new_null_array(field.data_type(), rows),
        false => Arc::new(StringArray::from(vec![""; rows])) as ArrayRef,
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("they are the other columns")
}

fn schema_of(places: &[usize]) -> SchemaRef {
    Arc::new(object_schema().project(places).expect("they are places of columns"))
}

/// The row of which the key is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoKey(pub usize);

/// Whole rows, of the columns that [decide](DECIDING) and of the [others](OTHERS).
pub(super) fn whole(deciding: &RecordBatch, others: &RecordBatch) -> Result<RecordBatch, NoKey> {
    let of_key = of_key(deciding)?;
    let parts = [(&DECIDING[..], deciding.columns()), (&OTHERS, others.columns()), (&OF_KEY, &of_key)];
    let mut columns: Vec<(usize, ArrayRef)> = Vec::new();
    for (places, part) in parts {
        columns.extend(places.iter().copied().zip(part.iter().cloned()));
    }
    columns.sort_unstable_by_key(|(place, _)| *place);
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Ok(RecordBatch::try_new(object_schema(), columns).expect("every column decides, follows from the key or is another"))
}

fn of_key(deciding: &RecordBatch) -> Result<[ArrayRef; 3], NoKey> {
    let keys = deciding.column(place::KEY).as_binary::<i32>();
    let bytes = keys.value_data().len();
    let mut hashes = Int64Builder::with_capacity(keys.len());
    let mut objects = StringBuilder::with_capacity(keys.len(), bytes);
    let mut versions = StringBuilder::with_capacity(keys.len(), bytes);
    for row in 0..keys.len() {
        let (object, version) = Key::parts(keys.value(row)).ok_or(NoKey(row))?;
        hashes.append_value(khash(&object));
        objects.append_value(&object);
        versions.append_value(version);
    }
    Ok([Arc::new(hashes.finish()), Arc::new(objects.finish()), Arc::new(versions.finish())])
}
