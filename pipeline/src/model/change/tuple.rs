//! Changes of rows in the tables of a database.
//!
//! A row image is kept as JSON text just as its source wrote it: whoever restores knows the types of the columns, and what was
//! not read cannot have been rounded. Rows of a table without a key have no identity but what is in them; equal ones are
//! counted.

use super::Op;
use super::columns::{Bytes, Int64, Perhaps, Text, Time, Words, changes};
use crate::model::key::{Key, khash_of_tuple};
use crate::model::resource::ResourceKind;
use crate::model::time::Timestamp;

changes! {
    /// The columns of changes of rows. `key` is order-preserving bytes of (schema, table, identity, or of a table without a
    /// key the row itself), and `khash` their XXH3-64; the others have their meaning with [`TupleRow`].
    schema tuple_schema;
    /// One change of one row of a table, borrowed from wherever its text lies.
    row TupleRow;
    /// A [`TupleRow`] that owns its text.
    change TupleChange;
    /// The columns of changes of rows, each under its name.
    columns TupleColumns;
    /// Builds a batch of changes of rows one by one, without allocating per row.
    builder TupleRows;
    kind ResourceKind::Database;
    key |row, out| Key::write_tuple(out, row.schema, row.table, row.identity.or(row.image).or(row.before).unwrap_or_default());
    khash |_row, key| khash_of_tuple(key);
    /// `put` (an insert, an update, a row of a snapshot), `delete`, `reset` (TRUNCATE, DROP), `raw`.
    op: Words<Op>,
    /// When its transaction was committed, by the clock of the database.
    at: Time,
    /// The other end of the interval in which it happened, where `at` is not exact: of a row of an incremental snapshot, since
    /// when it may have been so; of a reading of a sequence, from when on it counts.
    at_bound: Perhaps<Time>,
    /// Its place in the order of commits, see [`crate::model::position`].
    position: Bytes,
    /// Where it was read: a partition of a topic in one of its incarnations, or a replication slot.
    stream: Text,
    /// Its place there.
    offset: Perhaps<Int64>,
    /// How it was learned: `event` or `scan`.
    via: Text,
    /// Who did it, where the source says.
    requester: Perhaps<Text>,
    /// The transaction, as the database numbers it.
    request: Perhaps<Text>,
    /// The schema of the table; of MySQL the database.
    schema: Text,
    /// The table.
    table: Text,
    /// The values of the key as a JSON array, in the order of the key's columns; none of a table without a key.
    identity: Perhaps<Text>,
    /// The row after the change, as a JSON object.
    image: Perhaps<Text>,
    /// The row before it, as far as the source tells.
    before: Perhaps<Text>,
    /// Columns whose values the source did not send because they did not change, as a JSON array of names.
    unsent: Perhaps<Text>,
    /// Which schema of the table the images have.
    shape: Perhaps<Text>,
    /// Why the record could not be decoded, or the sequence not be read.
    reason: Perhaps<Text>,
    /// The record that could not be decoded, whole.
    raw: Perhaps<Bytes>,
}

impl<'a> TupleRow<'a> {
    /// A put, told by an event of `stream`, of which nothing else is said yet: of a control table, whose schema has no name.
    pub fn put(stream: &'a str, table: &'a str, at: Timestamp, position: &'a [u8]) -> TupleRow<'a> {
        TupleRow {
            op: Op::Put,
            at,
            at_bound: None,
            position,
            stream,
            offset: None,
            via: "event",
            requester: None,
            request: None,
            schema: "",
            table,
            identity: None,
            image: None,
            before: None,
            unsent: None,
            shape: None,
            reason: None,
            raw: None,
        }
    }
}
