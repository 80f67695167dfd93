//! Decodes the change events of Debezium's connectors into columns. Pure: records in, columns out.
//!
//! ```text
//!  record of a topic ─→ wire (bare, or schema and payload) ─┬→ a row was put or deleted, a table emptied → change
//!                                                           ├→ a transaction or a snapshot ended, a message, DDL
//!                                                           │                                  → change of a control table
//!                                                           ├→ tombstone, heartbeat, BEGIN → ignored
//!                                                           └→ cannot be understood → kept whole, with the reason
//! ```
//!
//! Every record ends in one of the four, so that `records = told + ignored + raw`: nothing is dropped silently. One record may
//! tell of two changes: an update of a table without a key takes one row away and adds another.
//!
//! What is said of the database itself, and not of its rows, is kept in [control tables](super::control), whose schema has no name.
//!
//! # Order
//! Transactions stand in the order in which they were committed. PostgreSQL's connector says in each event where the commit
//! before its transaction ended (`source.sequence`, first entry), and with transaction metadata which of the transaction's
//! changes it is (`transaction.total_order`). An event's own LSN orders nothing: transactions that ran side by side have theirs
//! interleaved, and rows of one COPY share one.
//!
//! Two know of no commit before them. The rows of a snapshot stand at the LSN where it was taken. The first transaction that a connector
//! streams stands behind everything, in no state, until it is proven to follow a snapshot: then its changes are written again, behind that.
//! (It may have begun before the snapshot, so that its own LSNs say nothing.)
//!
//! ```text
//!  (S, 0)                 all tables are emptied: what was known before the snapshot is over
//!  (S, 1 ...)             the rows of the snapshot at S
//!  (S, 2^62 - 1)          it has ended
//!  (S, 2^62 + order)      the changes of the first transaction behind it, once that is known
//!  (E, 0)                 that transaction has ended at E
//!  (E, order)             the changes of the next one
//!  (2^63 + LSN, order)    the changes of a transaction of which nobody knows what it follows
//! ```
//!
//! So a position is a function of the event alone, whoever reads it, when, and how often.

mod image;
mod outcome;
pub mod proof;
pub mod settings;
pub mod value;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

pub use outcome::{Decoded, Ignored, RawReason};

use self::image::Placeholder;
use self::outcome::excerpt;
use self::wire::{Envelope, Message, Snapshot, Source};
use super::control;
use crate::model::change::{TupleRow, TupleRows};
use crate::model::{Op, Position, Timestamp, json};

/// What must be known to read records.
#[derive(Debug, Clone)]
pub struct Feed {
    /// What the connector calls its server, and its topics begin with: `topic.prefix`. Whatever another one tells is none of it.
    pub server: String,
    /// The epoch of the positions.
    pub epoch: u32,
    /// What the connector writes for values that it was not sent: `unavailable.value.placeholder`.
    pub placeholder: String,
}

/// What the connector writes by default for values that it was not sent.
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// From here on are the places of changes of the first transaction that a connector streams, behind the snapshot that it follows.
pub const FIRST_PLACE: u64 = 1 << 62;
/// Part of the commit of changes of which nobody knows yet which one they follow. No LSN is that great.
pub const UNPLACED: u64 = 1 << 63;
/// The place where a snapshot ends.
pub const SNAPSHOT_END: u64 = FIRST_PLACE - 1;
/// The bits of a place in a snapshot that are the offset; those above are the partition.
const OFFSET_BITS: u32 = 40;
/// What the names of streams begin with that a connector's topics are.
pub const STREAM: &str = "debezium:";

/// A record of a topic.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The partition that it is from, for the `stream` column: see [`stream`].
    pub stream: &'a str,
    /// The number of that partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The record's own time.
    pub at: Timestamp,
    /// Its key; none of a table without one.
    pub key: Option<&'a [u8]>,
    /// Its value; none of a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its header [`OLD_KEY`], where it has one.
    pub old_key: Option<&'a [u8]>,
}

/// The header of a record of a row that came to its key from another one: that other key.
pub const OLD_KEY: &str = "__debezium.oldkey";

/// The name of a partition for the `stream` column.
pub fn stream(topic: &str, partition: i32) -> String {
    format!("{STREAM}{topic}/{partition}")
}

/// Takes records one at a time and gives back everything they amount to.
#[derive(Debug)]
pub struct Decoder {
    feed: Feed,
    placeholder: Placeholder,
    /// The snapshots that rows were of.
    snapshots: BTreeMap<u64, Timestamp>,
    rows: TupleRows,
    ignored: BTreeMap<Ignored, u64>,
    raw: u64,
    records: u64,
}

impl Decoder {
    /// A decoder for records of this feed.
    pub fn new(feed: Feed) -> Decoder {
        let placeholder = Placeholder::new(&feed.placeholder);
        Decoder { feed, placeholder, snapshots: BTreeMap::new(), rows: TupleRows::new(), ignored: BTreeMap::new(), raw: 0, records: 0 }
    }

    /// Decodes one record.
    pub fn push(&mut self, record: &Record<'_>) {
        self.records += 1;
        match self.decode(record) {
            Ok(None) => {}
            Ok(Some(ignored)) => *self.ignored.entry(ignored).or_default() += 1,
            Err(reason) => self.keep_raw(record, &reason),
        }
    }

    /// Everything so far; the decoder is empty again.
    pub fn finish(&mut self) -> Decoded {
        for (lsn, at) in std::mem::take(&mut self.snapshots) {
            let (position, identity) = (Position::committed(self.feed.epoch, lsn, 0), json::array([&*lsn.to_string()]));
            let emptied = TupleRow::put("", control::INCARNATION, at, position.as_bytes());
            self.rows.push(&TupleRow { op: Op::Reset, stream: STREAM, identity: Some(&identity), ..emptied });
        }
        Decoded {
            changes: self.rows.finish(),
            ignored: std::mem::take(&mut self.ignored),
            raw: std::mem::take(&mut self.raw),
            records: std::mem::take(&mut self.records),
        }
    }

    /// Says what was ignored, if it was.
    fn decode(&mut self, record: &Record<'_>) -> Result<Option<Ignored>, RawReason> {
        let Some(value) = record.value else { return Ok(Some(Ignored::Tombstone)) };
        let envelope = wire::read(value)?;
        match envelope.op.as_deref() {
            Some(op) => self.row(record, &envelope, op),
            None => self.control(record, &envelope),
        }
    }

    fn row(&mut self, record: &Record<'_>, envelope: &Envelope<'_>, op: &str) -> Result<Option<Ignored>, RawReason> {
        let source = envelope.source.as_ref().ok_or(RawReason::Missing { field: "source" })?;
        if source.server.as_deref().is_some_and(|server| server != self.feed.server) {
            return Ok(Some(Ignored::Foreign));
        }
        let at = source.committed_at()?;
        let position = self.position(record, source, envelope)?;
        if op == "m" {
            let message = envelope.message.ok_or(RawReason::Missing { field: "message" })?;
            let what: Message<'_> = wire::inner(message)?;
            let marked = TupleRow { at, position: position.as_bytes(), request: source.transaction(), ..blank(record, control::MESSAGE) };
            // That it was sent counts, and not what it says: messages of one content are many.
            self.rows.push(&TupleRow { identity: Some(&place(&what.prefix, source, envelope)), image: Some(message.get()), ..marked });
            return Ok(None);
        }
        let table = source.table.as_deref().filter(|table| !table.is_empty()).ok_or(RawReason::Missing { field: "source.table" })?;
        let identity = record.key.map(image::identity).transpose()?.flatten();
        let blank = blank(record, table);
        let row = TupleRow {
            at,
            position: position.as_bytes(),
            request: source.transaction(),
            schema: source.schema(),
            identity: identity.as_deref(),
            via: if source.snapshot() == Snapshot::None { "event" } else { "scan" },
            ..blank
        };
        let (before, after) = (envelope.before.map(|image| image.get()), envelope.after.map(|image| image.get()));
        match op {
            "c" | "r" | "u" => {
                let after = after.ok_or(RawReason::Missing { field: "after" })?;
                let unsent = self.placeholder.unsent(after)?;
                if op == "u" && identity.is_none() {
                    // Which of equal rows it was nobody can say, and need not.
                    let before = before.ok_or(RawReason::NoBefore)?;
                    self.rows.push(&TupleRow { op: Op::Delete, before: Some(before), ..row });
                    self.rows.push(&TupleRow { op: Op::Put, image: Some(after), unsent: unsent.as_deref(), ..row });
                } else {
                    // What was not sent of a row that came from another key is what that one had.
                    let before = before.or_else(|| image::object(record.old_key?));
                    self.rows.push(&TupleRow { op: Op::Put, before, image: Some(after), unsent: unsent.as_deref(), ..row });
                }
            }
            "d" => {
                let before = before.or(identity.is_some().then_some("{}"));
                let before = before.ok_or(RawReason::NoBefore)?;
                self.rows.push(&TupleRow { op: Op::Delete, before: Some(before), ..row });
            }
            "t" => self.rows.push(&TupleRow { op: Op::Reset, identity: None, ..row }),
            other => return Err(RawReason::Op { op: excerpt(other) }),
        }
        if source.snapshot().is_initial() {
            self.snapshot(record, source, at);
        }
        Ok(None)
    }

    /// What follows from a row of a snapshot: all was emptied where it was taken, and the last one ends it.
    fn snapshot(&mut self, record: &Record<'_>, source: &Source<'_>, at: Timestamp) {
        let Some(lsn) = source.lsn else { return };
        self.snapshots.insert(lsn, at);
        if source.snapshot() == Snapshot::Last {
            let position = Position::committed(self.feed.epoch, lsn, SNAPSHOT_END - 1);
            let identity = json::array([&*lsn.to_string()]);
            let ended = TupleRow { at, position: position.as_bytes(), ..blank(record, control::SNAPSHOT) };
            self.rows.push(&TupleRow { identity: Some(&identity), ..ended });
        }
    }

    /// What has no operation: the ends of transactions, DDL, heartbeats.
    fn control(&mut self, record: &Record<'_>, envelope: &Envelope<'_>) -> Result<Option<Ignored>, RawReason> {
        match (envelope.status.as_deref(), envelope.id.as_deref()) {
            (Some("BEGIN"), Some(_)) => return Ok(Some(Ignored::Begin)),
            (Some("END"), _) if !is_of_transactions(record.stream, &self.feed.server) => return Ok(Some(Ignored::Foreign)),
            (Some("END"), Some(id)) => {
                let millis = envelope.ts_ms.ok_or(RawReason::Missing { field: "ts_ms" })?;
                let at = wire::millis(millis)?;
                let (number, end) = wire::transaction_id(id);
                // Behind every change of its transaction, and before all of the next.
                let position = match end {
                    Some(end) => Position::committed(self.feed.epoch, end, 0),
                    None => Position::timed(self.feed.epoch, at),
                };
                let identity = json::array([id]);
                let blank = blank(record, control::END);
                let ended = TupleRow { at, position: position.as_bytes(), request: Some(number), identity: Some(&identity), ..blank };
                self.rows.push(&TupleRow { image: Some(envelope.whole), ..ended });
                return Ok(None);
            }
            _ => {}
        }
        if envelope.ddl.is_some() || envelope.table_changes.is_some() {
            let source = envelope.source.as_ref().ok_or(RawReason::Missing { field: "source" })?;
            let (at, position) = (source.committed_at()?, self.position(record, source, envelope)?);
            let identity = place("ddl", source, envelope);
            let blank = blank(record, control::SCHEMA);
            let changed = TupleRow { at, position: position.as_bytes(), identity: Some(&identity), ..blank };
            self.rows.push(&TupleRow { image: Some(envelope.whole), ..changed });
            return Ok(None);
        }
        if envelope.ts_ms.is_some() && envelope.is_only_time() { Ok(Some(Ignored::Heartbeat)) } else { Err(RawReason::Form) }
    }

    /// The place of an event among the commits.
    fn position(&self, record: &Record<'_>, source: &Source<'_>, envelope: &Envelope<'_>) -> Result<Position, RawReason> {
        let committed = |commit, place| Ok(Position::committed(self.feed.epoch, commit, place));
        let sequence = source.sequence()?;
        let own = || source.lsn.or(sequence.and_then(|sequence| sequence.own)).ok_or(RawReason::Missing { field: "source.lsn" });
        match source.snapshot() {
            // They are of one instant, and equal rows of a table without a key are as many as there were.
            Snapshot::Initial | Snapshot::Last => return committed(own()?, snapshot_place(record)),
            Snapshot::Incremental => return Err(RawReason::Incremental),
            Snapshot::None => {}
        }
        let commit_before = sequence.ok_or(RawReason::Missing { field: "source.sequence" })?.commit_before;
        let place = match &envelope.transaction {
            Some(transaction) => transaction.total_order,
            // A message outside of a transaction stands between two.
            None if source.transaction().is_none() => 0,
            None => own()?,
        };
        match commit_before {
            Some(commit) => committed(commit, place),
            None => committed(own()? | UNPLACED, place),
        }
    }

    fn keep_raw(&mut self, record: &Record<'_>, reason: &RawReason) {
        self.raw += 1;
        let (reason, position) = (reason.to_string(), Position::timed(self.feed.epoch, record.at));
        let identity = json::array([record.stream, &*record.offset.to_string()]);
        let raw = wire::whole(record.key, record.value);
        let row = TupleRow { op: Op::Raw, position: position.as_bytes(), identity: Some(&identity), ..blank(record, control::RAW) };
        self.rows.push(&TupleRow { reason: Some(&reason), raw: Some(&raw), ..row });
    }
}

/// Whether it is the topic in which a connector tells of transactions.
fn is_of_transactions(stream: &str, server: &str) -> bool {
    let topic =
        stream.strip_prefix(STREAM).and_then(|place| place.strip_prefix(server)).and_then(|rest| rest.strip_prefix(".transaction/"));
    topic.is_some()
}

/// What is said of a table by a record, of which nothing is known yet.
fn blank<'a>(record: &Record<'a>, table: &'a str) -> TupleRow<'a> {
    TupleRow { offset: Some(record.offset), ..TupleRow::put(record.stream, table, record.at, &[]) }
}

/// Where a row stands among those of its snapshot: equal ones may lie in several partitions.
fn snapshot_place(record: &Record<'_>) -> u64 {
    let (partition, offset) = (u64::from(record.partition.unsigned_abs()), record.offset.unsigned_abs());
    (partition << OFFSET_BITS | offset & ((1 << OFFSET_BITS) - 1)).min(SNAPSHOT_END - 3) + 1
}

/// Which of all messages, or statements, one is: where it stands among the commits.
fn place(what: &str, source: &Source<'_>, envelope: &Envelope<'_>) -> String {
    let sequence = source.sequence.as_deref().unwrap_or_default();
    let order = envelope.transaction.as_ref().map_or(0, |transaction| transaction.total_order);
    json::array([what, sequence, &order.to_string()])
}
