//! Columns of changes: what a kind is made of, declared once.
//!
//! [`changes!`] takes the table of a kind's columns and makes of it the schema, a row that borrows, a row that owns, the
//! columns of a batch under their names, and a builder.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, PrimitiveArray, PrimitiveBuilder,
    StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};

use crate::model::time::Timestamp;

/// What a column holds: its type in Arrow, and what one row has of it.
pub trait Column {
    /// The column.
    type Array;
    /// What it is built with.
    type Builder: ArrayBuilder + Debug + Default;
    /// What a row has of it, borrowed from the column.
    type Value<'a>;
    /// The same, on its own.
    type Owned;
    /// Whether a row may have nothing of it.
    const NULLABLE: bool;

    /// Its type in Arrow.
    fn data_type() -> DataType;
    /// The column as what it is; it has been checked to be of the type.
    fn of(column: &dyn Array) -> &Self::Array;
    /// What a row has of it.
    fn value(array: &Self::Array, row: usize) -> Self::Value<'_>;
    /// One more row.
    fn append(builder: &mut Self::Builder, value: Self::Value<'_>);
    /// The column of all rows.
    fn finish(builder: &mut Self::Builder) -> ArrayRef {
        builder.finish()
    }
    /// The first word in it that nobody knows.
    fn unknown_word(_array: &Self::Array) -> Option<&str> {
        None
    }
    /// A value on its own.
    fn own(value: Self::Value<'_>) -> Self::Owned;
    /// A value of what is on its own.
    fn lend(owned: &Self::Owned) -> Self::Value<'_>;
}

/// A column of which a row may have nothing.
pub struct Perhaps<C>(PhantomData<C>);

/// A word of a few.
pub trait Word: Copy {
    /// How it is written.
    fn written(self) -> &'static str;
    /// Reads it; none if it is none of them.
    fn read(text: &str) -> Option<Self>;
}

/// A column of one of a few words.
pub struct Words<W>(PhantomData<W>);

/// A column of text.
pub struct Text;
/// A column of bytes.
pub struct Bytes;
/// A column of instants, in microseconds since 1970 UTC.
pub struct Time;
/// A column of yes and no.
pub struct Flag;
/// A column of whole numbers.
pub struct Number<T>(PhantomData<T>);
/// Of 64 bits.
pub type Int64 = Number<Int64Type>;
/// Of 32 bits.
pub type Int32 = Number<Int32Type>;

impl<W: Word> Column for Words<W> {
    type Array = StringArray;
    type Builder = StringBuilder;
    type Value<'a> = W;
    type Owned = W;
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn of(column: &dyn Array) -> &StringArray {
        column.as_string()
    }

    fn value(array: &StringArray, row: usize) -> W {
        W::read(array.value(row)).expect("words are checked when a batch is made")
    }

    fn append(builder: &mut StringBuilder, value: W) {
        builder.append_value(value.written());
    }

    fn unknown_word(array: &StringArray) -> Option<&str> {
        (0..array.len()).map(|row| array.value(row)).find(|word| W::read(word).is_none())
    }

    fn own(value: W) -> W {
        value
    }

    fn lend(owned: &W) -> W {
        *owned
    }
}

impl Column for Text {
    type Array = StringArray;
    type Builder = StringBuilder;
    type Value<'a> = &'a str;
    type Owned = String;
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn of(column: &dyn Array) -> &StringArray {
        column.as_string()
    }

    fn value(array: &StringArray, row: usize) -> &str {
        array.value(row)
    }

    fn append(builder: &mut StringBuilder, value: &str) {
        builder.append_value(value);
    }

    fn own(value: &str) -> String {
        value.to_owned()
    }

    fn lend(owned: &String) -> &str {
        owned
    }
}

impl Column for Bytes {
    type Array = BinaryArray;
    type Builder = BinaryBuilder;
    type Value<'a> = &'a [u8];
    type Owned = Vec<u8>;
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::Binary
    }

    fn of(column: &dyn Array) -> &BinaryArray {
        column.as_binary()
    }

    fn value(array: &BinaryArray, row: usize) -> &[u8] {
        array.value(row)
    }

    fn append(builder: &mut BinaryBuilder, value: &[u8]) {
        builder.append_value(value);
    }

    fn own(value: &[u8]) -> Vec<u8> {
        value.to_owned()
    }

    fn lend(owned: &Vec<u8>) -> &[u8] {
        owned
    }
}

impl Column for Time {
    type Array = TimestampMicrosecondArray;
    type Builder = TimestampMicrosecondBuilder;
    type Value<'a> = Timestamp;
    type Owned = Timestamp;
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    fn of(column: &dyn Array) -> &TimestampMicrosecondArray {
        column.as_primitive::<TimestampMicrosecondType>()
    }

    fn value(array: &TimestampMicrosecondArray, row: usize) -> Timestamp {
        Timestamp::from_micros(array.value(row))
    }

    fn append(builder: &mut TimestampMicrosecondBuilder, value: Timestamp) {
        builder.append_value(value.micros());
    }

    fn finish(builder: &mut TimestampMicrosecondBuilder) -> ArrayRef {
        Arc::new(builder.finish().with_timezone("UTC"))
    }

    fn own(value: Timestamp) -> Timestamp {
        value
    }

    fn lend(owned: &Timestamp) -> Timestamp {
        *owned
    }
}

impl Column for Flag {
    type Array = BooleanArray;
    type Builder = BooleanBuilder;
    type Value<'a> = bool;
    type Owned = bool;
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::Boolean
    }

    fn of(column: &dyn Array) -> &BooleanArray {
        column.as_boolean()
    }

    fn value(array: &BooleanArray, row: usize) -> bool {
        array.value(row)
    }

    fn append(builder: &mut BooleanBuilder, value: bool) {
        builder.append_value(value);
    }

    fn own(value: bool) -> bool {
        value
    }

    fn lend(owned: &bool) -> bool {
        *owned
    }
}

impl<T: ArrowPrimitiveType + Debug> Column for Number<T> {
    type Array = PrimitiveArray<T>;
    type Builder = PrimitiveBuilder<T>;
    type Value<'a> = T::Native;
    type Owned = T::Native;
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        T::DATA_TYPE
    }

    fn of(column: &dyn Array) -> &PrimitiveArray<T> {
        column.as_primitive()
    }

    fn value(array: &PrimitiveArray<T>, row: usize) -> T::Native {
        array.value(row)
    }

    fn append(builder: &mut PrimitiveBuilder<T>, value: T::Native) {
        builder.append_value(value);
    }

    fn own(value: T::Native) -> T::Native {
        value
    }

    fn lend(owned: &T::Native) -> T::Native {
        *owned
    }
}

/// What can be appended to a builder where a row has nothing of a column.
pub trait AppendNull {
    /// One more row that has nothing.
    fn append_nothing(&mut self);
}

impl AppendNull for StringBuilder {
    fn append_nothing(&mut self) {
        self.append_null();
    }
}

impl AppendNull for BinaryBuilder {
    fn append_nothing(&mut self) {
        self.append_null();
    }
}

impl<T: ArrowPrimitiveType> AppendNull for PrimitiveBuilder<T> {
    fn append_nothing(&mut self) {
        self.append_null();
    }
}

impl<C> Column for Perhaps<C>
where
    C: Column,
    C::Array: Array,
    C::Builder: AppendNull,
{
    type Array = C::Array;
    type Builder = C::Builder;
    type Value<'a> = Option<C::Value<'a>>;
    type Owned = Option<C::Owned>;
    const NULLABLE: bool = true;

    fn data_type() -> DataType {
        C::data_type()
    }

    fn of(column: &dyn Array) -> &C::Array {
        C::of(column)
    }

    fn value(array: &C::Array, row: usize) -> Option<C::Value<'_>> {
        (!array.is_null(row)).then(|| C::value(array, row))
    }

    fn append(builder: &mut C::Builder, value: Option<C::Value<'_>>) {
        match value {
            Some(value) => C::append(builder, value),
            None => builder.append_nothing(),
        }
    }

    fn finish(builder: &mut C::Builder) -> ArrayRef {
        C::finish(builder)
    }

    fn own(value: Option<C::Value<'_>>) -> Option<C::Owned> {
        value.map(C::own)
    }

    fn lend(owned: &Option<C::Owned>) -> Option<C::Value<'_>> {
        owned.as_ref().map(C::lend)
    }
}

/// The value of a column as a type. An associated type says the same, but then what borrows for longer does not do where what
/// borrows for less is asked for.
macro_rules! value {
    ($a:lifetime Text) => { &$a str };
    ($a:lifetime Bytes) => { &$a [u8] };
    ($a:lifetime Time) => { $crate::model::time::Timestamp };
    ($a:lifetime Flag) => { bool };
    ($a:lifetime Int64) => { i64 };
    ($a:lifetime Int32) => { i32 };
    ($a:lifetime Words<$Word:ident>) => { $Word };
    ($a:lifetime Perhaps<$Type:ident>) => { Option<$crate::model::change::columns::value!($a $Type)> };
}

/// Declares the changes of a kind: their columns, each with what it means. The columns `key` and `khash` come first and
/// follow from the others.
macro_rules! changes {
    (
        $(#[$schema_doc:meta])* schema $schema:ident;
        $(#[$row_doc:meta])* row $Row:ident;
        $(#[$change_doc:meta])* change $Change:ident;
        $(#[$columns_doc:meta])* columns $Columns:ident;
        $(#[$builder_doc:meta])* builder $Builder:ident;
        kind $kind:expr;
        key |$key_row:ident, $out:ident| $key:expr;
        khash |$hash_row:ident, $hash_key:ident| $khash:expr;
        $($(#[$doc:meta])* $name:ident: $Type:ident $(<$Of:ident>)?,)+
    ) => {
        $(#[$schema_doc])*
        pub fn $schema() -> ::arrow::datatypes::SchemaRef {
            use $crate::model::change::columns::{Bytes, Column, Int64};
            static SCHEMA: ::std::sync::LazyLock<::arrow::datatypes::SchemaRef> = ::std::sync::LazyLock::new(|| {
                let field = ::arrow::datatypes::Field::new;
                ::std::sync::Arc::new(::arrow::datatypes::Schema::new(vec![
                    field("key", Bytes::data_type(), false),
                    field("khash", Int64::data_type(), false),
                    $(field(stringify!($name), <$Type $(<$Of>)? as Column>::data_type(), <$Type $(<$Of>)? as Column>::NULLABLE),)+
                ]))
            });
            SCHEMA.clone()
        }

        $(#[$row_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $Row<'a> {
            $($(#[$doc])* pub $name: $crate::model::change::columns::value!('a $Type $(<$Of>)?),)+
        }

        $(#[$change_doc])*
        #[derive(Debug, Clone, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        pub struct $Change {
            $($(#[$doc])* pub $name: <$Type $(<$Of>)? as $crate::model::change::columns::Column>::Owned,)+
        }

        impl $Change {
            /// The borrowed form.
            pub fn row(&self) -> $Row<'_> {
                $Row { $($name: <$Type $(<$Of>)? as $crate::model::change::columns::Column>::lend(&self.$name),)+ }
            }
        }

        impl $Row<'_> {
            /// The owned form.
            pub fn to_change(&self) -> $Change {
                $Change { $($name: <$Type $(<$Of>)? as $crate::model::change::columns::Column>::own(self.$name),)+ }
            }
        }

        $(#[$columns_doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $Columns<'a> {
            /// Order-preserving bytes of what the change is about.
            pub key: &'a ::arrow::array::BinaryArray,
            /// The hash by which changes are spread.
            pub khash: &'a ::arrow::array::Int64Array,
            $($(#[$doc])* pub $name: &'a <$Type $(<$Of>)? as $crate::model::change::columns::Column>::Array,)+
        }

        impl<'a> $Columns<'a> {
            /// Finds the columns of a batch that has been checked to hold changes of this kind.
            pub(crate) fn of(rows: &'a ::arrow::array::RecordBatch) -> $Columns<'a> {
                use $crate::model::change::columns::{Bytes, Column, Int64};
                let mut columns = rows.columns().iter().map(|column| &**column);
                let mut next = || columns.next().expect("the schema was checked");
                $Columns {
                    key: Bytes::of(next()),
                    khash: Int64::of(next()),
                    $($name: <$Type $(<$Of>)? as Column>::of(next()),)+
                }
            }

            /// Whether every word in them is one that we know.
            pub(super) fn check_words(&self) -> Result<(), $crate::model::change::SchemaError> {
                $(if let Some(word) = <$Type $(<$Of>)? as $crate::model::change::columns::Column>::unknown_word(self.$name) {
                    return Err($crate::model::change::SchemaError::word(stringify!($name), word));
                })+
                Ok(())
            }

            /// How many rows.
            pub fn len(&self) -> usize {
                ::arrow::array::Array::len(self.key)
            }

            /// Whether there are no rows.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// One row.
            pub fn row(&self, index: usize) -> $Row<'a> {
                $Row { $($name: <$Type $(<$Of>)? as $crate::model::change::columns::Column>::value(self.$name, index),)+ }
            }

            /// Every row, in order.
            pub fn iter(self) -> impl Iterator<Item = $Row<'a>> {
                (0..self.len()).map(move |index| self.row(index))
            }
        }

        $(#[$builder_doc])*
        #[derive(Debug, Default)]
        pub struct $Builder {
            scratch: Vec<u8>,
            key: ::arrow::array::BinaryBuilder,
            khash: ::arrow::array::Int64Builder,
            $($name: <$Type $(<$Of>)? as $crate::model::change::columns::Column>::Builder,)+
        }

        impl $Builder {
            /// An empty builder.
            pub fn new() -> $Builder {
                $Builder::default()
            }

            /// Adds one change.
            pub fn push(&mut self, row: &$Row<'_>) {
                self.scratch.clear();
                let ($key_row, $out) = (row, &mut self.scratch);
                $key;
                self.key.append_value(&self.scratch);
                let ($hash_row, $hash_key) = (row, &*self.scratch);
                self.khash.append_value($khash);
                $(<$Type $(<$Of>)? as $crate::model::change::columns::Column>::append(&mut self.$name, row.$name);)+
            }

            /// How many changes were added.
            pub fn len(&self) -> usize {
                ::arrow::array::ArrayBuilder::len(&self.key)
            }

            /// Whether none were added.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The batch; the builder is empty again.
            pub fn finish(&mut self) -> $crate::model::change::ChangeBatch {
                let columns: Vec<::arrow::array::ArrayRef> = vec![
                    ::std::sync::Arc::new(self.key.finish()),
                    ::std::sync::Arc::new(self.khash.finish()),
                    $(<$Type $(<$Of>)? as $crate::model::change::columns::Column>::finish(&mut self.$name),)+
                ];
                let rows = ::arrow::array::RecordBatch::try_new($schema(), columns).expect("one value per column and row");
                $crate::model::change::ChangeBatch::from_checked($kind, rows)
            }
        }

        impl<'a> FromIterator<$Row<'a>> for $crate::model::change::ChangeBatch {
            fn from_iter<I: IntoIterator<Item = $Row<'a>>>(rows: I) -> $crate::model::change::ChangeBatch {
                let mut builder = $Builder::new();
                for row in rows {
                    builder.push(&row);
                }
                builder.finish()
            }
        }
    };
}

pub(super) use {changes, value};
