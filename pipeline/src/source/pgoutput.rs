//! Decodes PostgreSQL's own logical replication (`pgoutput`, version 1) into columns. Pure: messages in, columns out.
//!
//! ```text
//!  BEGIN ── RELATION ── INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE ... ── COMMIT
//!  time and LSN of    what the columns    each with its place             the transaction
//!  the commit         of a table are      in the transaction              ended: a row of its own
//! ```
//!
//! The server sends a transaction when it was committed, whole, and one after the other in the order of their commits
//! (PostgreSQL, "Logical Replication Message Formats"). So the LSN of the commit orders transactions, and counting orders what
//! is in one; a row's own LSN orders nothing.
//!
//! A value stays the text that its type's output function gave. An image is a JSON object of such texts; which types they have
//! is in the table's shape, a row of the control table [`SHAPE`](super::control::SHAPE) that comes before the first row that
//! refers to it.

mod relation;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use self::relation::{Column, Relation};
use self::wire::{Bytes, Old, Value};
use super::control;
use super::sequence::SequenceRead;
use crate::model::change::{ChangeBatch, TupleRow, TupleRows};
use crate::model::{Op, Position, Timestamp, json};

/// Where the messages come from.
#[derive(Debug, Clone)]
pub struct Feed {
    /// The name of the feed for the `stream` column: a slot of a server in one of its incarnations.
    pub stream: String,
    /// The epoch of the positions.
    pub epoch: u32,
}

/// What the snapshot is called among the transactions.
const SNAPSHOT: &str = "snapshot";

/// The beginning of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The LSN of its commit.
    pub commit: u64,
    /// When it was committed.
    pub at: Timestamp,
    /// Its number.
    pub xid: u32,
}

/// Why a message cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says what it means")]
pub enum PgOutputError {
    #[error("it ends too early")]
    Short,
    #[error("a text in it is not UTF-8 after byte {valid}")]
    NotUtf8 { valid: usize },
    #[error("a value in it has the unknown form {form:#04x}")]
    Form { form: u8 },
    #[error("{bytes} bytes are left behind its end")]
    Longer { bytes: usize },
    #[error("where a row begins it has {mark:#04x}")]
    Mark { mark: u8 },
    #[error("messages of the kind {kind:#04x} are unknown")]
    Kind { kind: u8 },
    #[error("nothing was said of the table with the number {oid}")]
    Relation { oid: u32 },
    #[error("it has {found} values, and the table {expected} columns")]
    Columns { found: usize, expected: usize },
    #[error("the table has no key, and it does not say how the row was: set REPLICA IDENTITY FULL")]
    NoBefore,
    #[error("it is in no transaction")]
    NoTransaction,
}

/// The transaction whose changes come.
#[derive(Debug, Clone)]
struct Open {
    begin: Begin,
    xid: String,
    /// How many changes it had so far.
    place: u64,
    /// How many of each table, by its number.
    counts: BTreeMap<u32, u64>,
}

/// A table, and what is written of it.
#[derive(Debug)]
struct Known {
    relation: Relation,
    shape: String,
    document: String,
}

/// Takes messages one at a time and gives back what they amount to.
#[derive(Debug)]
pub struct Decoder {
    feed: Feed,
    /// Of tables whose replica identity is all columns: their primary keys, by the tables' numbers.
    keys: HashMap<u32, Vec<String>>,
    relations: HashMap<u32, Arc<Known>>,
    open: Option<Open>,
    told: BTreeSet<String>,
    rows: TupleRows,
    raw: u64,
    /// The LSN behind which a snapshot stands; 0 of one with which everything begins.
    snapshot_behind: u64,
}

impl Decoder {
    /// A decoder for messages of this feed.
    pub fn new(feed: Feed) -> Decoder {
        Decoder {
            feed,
            keys: HashMap::new(),
            relations: HashMap::new(),
            open: None,
            told: BTreeSet::new(),
            rows: TupleRows::new(),
            raw: 0,
            snapshot_behind: 0,
        }
    }

    /// Says what the primary key of a table is, which a message does not where all columns are its replica identity. Without that
    /// its rows are told apart by all that is in them.
    pub fn set_key(&mut self, oid: u32, columns: Vec<String>) {
        self.keys.insert(oid, columns);
    }

    /// A transaction begins.
    pub fn begin(&mut self, begin: Begin) {
        self.open = Some(Open { begin, xid: begin.xid.to_string(), place: 0, counts: BTreeMap::new() });
    }

    /// A message between the beginning and the end of a transaction. One that cannot be decoded is kept whole.
    pub fn data(&mut self, message: &[u8]) {
        if let Err(error) = self.decode(message) {
            self.keep_raw(message, &error);
        }
    }

    /// Something said by `pg_logical_emit_message`. In no transaction it stands behind the last that was told.
    pub fn message(&mut self, lsn: u64, at: Timestamp, prefix: &str, content: &[u8]) {
        let epoch = self.feed.epoch;
        let outside = (Position::committed(epoch, lsn, 0), at, None);
        let (position, at, request) = self.open.as_mut().map_or(outside, |open| (open.next(epoch), open.begin.at, Some(open.xid.clone())));
        let content = BASE64.encode(content);
        let image = serde_json::json!({ "prefix": prefix, "content": content }).to_string();
        // That it was sent counts, and not what it says: messages of one content are many.
        let identity = json::array([prefix, &lsn.to_string()]);
        let row = TupleRow::put(&self.feed.stream, control::MESSAGE, at, position.as_bytes());
        self.rows.push(&TupleRow { identity: Some(&identity), image: Some(&image), request: request.as_deref(), ..row });
    }

    /// A sequence was read, by whoever follows the feed.
    pub fn sequence(&mut self, read: &SequenceRead) {
        read.write(&mut self.rows, &self.feed.stream, self.feed.epoch);
    }

    /// The transaction was committed; `end` is where its commit ends.
    pub fn commit(&mut self, end: u64) {
        let Some(Open { begin, xid, counts, .. }) = self.open.take() else { return };
        // Behind every change of its transaction, and before all of the next.
        let position = Position::committed(self.feed.epoch, begin.commit, u64::MAX);
        let total: u64 = counts.values().sum();
        let of_table = |(oid, count): (&u32, &u64)| {
            let relation = &self.relations.get(oid)?.relation;
            Some(serde_json::json!({ "data_collection": format!("{}.{}", relation.schema, relation.table), "event_count": count }))
        };
        let counts: Vec<serde_json::Value> = counts.iter().filter_map(of_table).collect();
        let id = format!("{xid}:{end}");
        let image = serde_json::json!({ "status": "END", "id": id, "event_count": total, "data_collections": counts }).to_string();
        let identity = json::array([&*id]);
        let row = TupleRow::put(&self.feed.stream, control::TRANSACTION, begin.at, position.as_bytes());
        self.rows.push(&TupleRow { identity: Some(&identity), image: Some(&image), request: Some(&xid), ..row });
    }

    /// A row of a table as a snapshot read it at `at`: values in the order of the columns, none for NULL. `place` counts the rows
    /// of the snapshot.
    ///
    /// # Errors
    /// [`PgOutputError::Columns`].
    pub fn snapshot(&mut self, relation: &Relation, place: u64, at: Timestamp, values: &[Option<&str>]) -> Result<(), PgOutputError> {
        let row: Vec<Value<'_>> = values.iter().map(|value| value.map_or(Value::Null, Value::Text)).collect();
        check_columns(relation, &row)?;
        let known = match self.relations.get(&relation.oid) {
            Some(known) if known.relation == *relation => Arc::clone(known),
            _ => self.learn(relation.clone()),
        };
        let position = Position::committed(self.feed.epoch, self.snapshot_behind, place);
        self.tell_shape(&known, at, &position);
        let (identity, image) = (relation.identity(&row), relation.image(&row));
        let blank = TupleRow::put(&self.feed.stream, &relation.table, at, position.as_bytes());
        self.rows.push(&TupleRow {
            via: "scan",
            schema: &relation.schema,
            identity: identity.as_deref(),
            image: Some(&image),
            shape: Some(&known.shape),
            ..blank
        });
        Ok(())
    }

    /// A new incarnation begins: nothing that an earlier one told counts any more.
    pub fn begin_incarnation(&mut self, at: Timestamp) {
        let position = Position::snapshot(self.feed.epoch, 0);
        let row = TupleRow::put(&self.feed.stream, control::INCARNATION, at, position.as_bytes());
        self.rows.push(&TupleRow { op: Op::Reset, via: "scan", ..row });
    }

    /// From here on a snapshot is that of some tables, taken where transactions up to this LSN had been committed, and no others.
    /// It counts as a transaction there.
    pub fn begin_snapshot_behind(&mut self, lsn: u64) {
        self.snapshot_behind = lsn;
    }

    /// Nothing that was told of a table before this snapshot counts any more.
    pub fn empty(&mut self, schema: &str, table: &str, at: Timestamp) {
        let position = Position::committed(self.feed.epoch, self.snapshot_behind, 0);
        let row = TupleRow::put(&self.feed.stream, table, at, position.as_bytes());
        self.rows.push(&TupleRow { op: Op::Reset, via: "scan", schema, ..row });
    }

    /// The snapshot has been read whole: it counts as a transaction. `rows` is how many it had.
    pub fn end_snapshot(&mut self, rows: u64, at: Timestamp) {
        let position = Position::committed(self.feed.epoch, self.snapshot_behind, u64::MAX);
        let id = match self.snapshot_behind {
            0 => SNAPSHOT.to_owned(),
            lsn => format!("{SNAPSHOT}:{lsn}"),
        };
        let image = serde_json::json!({ "status": "END", "id": id, "event_count": rows }).to_string();
        let identity = json::array([&*id]);
        let row = TupleRow::put(&self.feed.stream, control::TRANSACTION, at, position.as_bytes());
        self.rows.push(&TupleRow { via: "scan", identity: Some(&identity), image: Some(&image), ..row });
    }

    /// Whether a transaction has begun and not ended.
    pub fn is_in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// How many changes wait to be taken.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages could not be decoded, ever.
    pub fn raw(&self) -> u64 {
        self.raw
    }

    /// Everything so far; the decoder goes on where it is.
    pub fn finish(&mut self) -> ChangeBatch {
        // Each batch says all that it refers to: no other need be read to understand it.
        self.told.clear();
        self.rows.finish()
    }

    fn decode(&mut self, message: &[u8]) -> Result<(), PgOutputError> {
        let mut bytes = Bytes::of(message);
        match bytes.byte()? {
            b'R' => {
                let relation = Relation::read(&mut bytes)?;
                bytes.end()?;
                let key = self.keys.get(&relation.oid).map_or(&[][..], Vec::as_slice);
                self.learn(relation.with_key(key));
            }
            b'I' => {
                let table = self.table(bytes.u32()?)?;
                let row = bytes.marked_row()?;
                bytes.end()?;
                self.put(&table, &Old::Untold, row, false)?;
            }
            b'U' => {
                let table = self.table(bytes.u32()?)?;
                let old = bytes.old()?;
                let row = bytes.marked_row()?;
                bytes.end()?;
                self.put(&table, &old, row, true)?;
            }
            b'D' => {
                let table = self.table(bytes.u32()?)?;
                let old = bytes.old()?;
                bytes.end()?;
                self.delete(&table, &old)?;
            }
            b'T' => {
                let count = usize::try_from(bytes.i32()?).map_err(|_| PgOutputError::Short)?;
                bytes.byte()?;
                // The count is not taken for room: it is a claim.
                let tables = (0..count).map(|_| self.table(bytes.u32()?)).collect::<Result<Vec<_>, _>>()?;
                bytes.end()?;
                tables.iter().try_for_each(|table| self.reset(table))?;
            }
            // Types and origins: a value's text says all that is kept.
            b'Y' | b'O' => {}
            kind => return Err(PgOutputError::Kind { kind }),
        }
        Ok(())
    }

    fn table(&self, oid: u32) -> Result<Arc<Known>, PgOutputError> {
        self.relations.get(&oid).cloned().ok_or(PgOutputError::Relation { oid })
    }

    fn learn(&mut self, relation: Relation) -> Arc<Known> {
        let (shape, document) = relation.shape();
        let known = Arc::new(Known { shape, document, relation });
        self.relations.insert(known.relation.oid, Arc::clone(&known));
        known
    }

    /// An insert, or an update.
    fn put<'a>(&mut self, table: &Known, old: &Old<'a>, mut row: Vec<Value<'a>>, is_update: bool) -> Result<(), PgOutputError> {
        let relation = &table.relation;
        check_columns(relation, &row)?;
        if let Old::Whole(old) = old {
            check_columns(relation, old)?;
            for (value, old) in row.iter_mut().zip(old).filter(|(value, _)| **value == Value::Unsent) {
                *value = *old;
            }
        }
        let identity = relation.identity(&row);
        let moves = match old {
            // Which of equal rows it was nobody can say, and need not.
            _ if is_update && identity.is_none() => true,
            Old::Key(old) | Old::Whole(old) => relation.identity(old) != identity,
            Old::Untold => false,
        };
        if moves {
            self.delete(table, old)?;
        }
        let (xid, at, position) = self.next(table, !moves)?;
        self.tell_shape(table, at, &position);
        let (image, unsent) = (relation.image(&row), relation.unsent(&row));
        // What was not sent is what it was under the key before.
        let before = old.image(relation).filter(|_| relation.has_key());
        let blank = TupleRow::put(&self.feed.stream, &relation.table, at, position.as_bytes());
        self.rows.push(&TupleRow {
            schema: &relation.schema,
            request: Some(&xid),
            identity: identity.as_deref(),
            image: Some(&image),
            before: before.as_deref(),
            unsent: unsent.as_deref(),
            shape: Some(&table.shape),
            ..blank
        });
        Ok(())
    }

    fn delete(&mut self, table: &Known, old: &Old<'_>) -> Result<(), PgOutputError> {
        let relation = &table.relation;
        let (Old::Key(row) | Old::Whole(row)) = old else { return Err(PgOutputError::NoBefore) };
        check_columns(relation, row)?;
        let identity = relation.identity(row);
        if identity.is_none() && matches!(old, Old::Key(_)) {
            return Err(PgOutputError::NoBefore);
        }
        let (xid, at, position) = self.next(table, true)?;
        self.tell_shape(table, at, &position);
        let before = old.image(relation);
        let blank = TupleRow::put(&self.feed.stream, &relation.table, at, position.as_bytes());
        self.rows.push(&TupleRow {
            op: Op::Delete,
            schema: &relation.schema,
            request: Some(&xid),
            identity: identity.as_deref(),
            before: before.as_deref(),
            shape: Some(&table.shape),
            ..blank
        });
        Ok(())
    }

    /// All rows of a table went away.
    fn reset(&mut self, table: &Known) -> Result<(), PgOutputError> {
        let (xid, at, position) = self.next(table, true)?;
        let blank = TupleRow::put(&self.feed.stream, &table.relation.table, at, position.as_bytes());
        self.rows.push(&TupleRow { op: Op::Reset, schema: &table.relation.schema, request: Some(&xid), ..blank });
        Ok(())
    }

    /// The transaction of the next change, and the place of that. An event may be two changes, and counts once.
    fn next(&mut self, table: &Known, counts: bool) -> Result<(String, Timestamp, Position), PgOutputError> {
        let open = self.open.as_mut().ok_or(PgOutputError::NoTransaction)?;
        if counts {
            *open.counts.entry(table.relation.oid).or_default() += 1;
        }
        Ok((open.xid.clone(), open.begin.at, open.next(self.feed.epoch)))
    }

    /// Says what the columns of a table are, once in each batch.
    fn tell_shape(&mut self, table: &Known, at: Timestamp, position: &Position) {
        if self.told.contains(&table.shape) {
            return;
        }
        self.told.insert(table.shape.clone());
        let identity = json::array([&*table.shape]);
        let blank = TupleRow::put(&self.feed.stream, control::SHAPE, at, position.as_bytes());
        self.rows.push(&TupleRow { identity: Some(&identity), image: Some(&table.document), ..blank });
    }

    fn keep_raw(&mut self, message: &[u8], error: &PgOutputError) {
        self.raw += 1;
        let epoch = self.feed.epoch;
        let outside = (Timestamp::default(), Position::snapshot(epoch, u64::MAX - self.raw));
        let (at, position) = self.open.as_mut().map_or(outside, |open| (open.begin.at, open.next(epoch)));
        let (reason, identity) = (error.to_string(), json::array([&*self.feed.stream, &hex::encode(position.as_bytes())]));
        let blank = TupleRow::put(&self.feed.stream, control::RAW, at, position.as_bytes());
        self.rows.push(&TupleRow { op: Op::Raw, identity: Some(&identity), reason: Some(&reason), raw: Some(message), ..blank });
    }
}

impl Old<'_> {
    fn image(&self, relation: &Relation) -> Option<String> {
        match self {
            Old::Untold => None,
            Old::Key(row) => Some(relation.key_image(row)),
            Old::Whole(row) => Some(relation.image(row)),
        }
    }
}

impl Open {
    fn next(&mut self, epoch: u32) -> Position {
        self.place += 1;
        Position::committed(epoch, self.begin.commit, self.place)
    }
}

fn check_columns(relation: &Relation, row: &[Value<'_>]) -> Result<(), PgOutputError> {
    let (found, expected) = (row.len(), relation.columns.len());
    if found == expected { Ok(()) } else { Err(PgOutputError::Columns { found, expected }) }
}
