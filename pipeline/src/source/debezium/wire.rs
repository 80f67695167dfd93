//! The JSON of the events, as slices of the record: what is not asked for is skipped, and row images are not taken apart.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::outcome::{RawReason, excerpt};
use crate::model::Timestamp;

/// Whatever may arrive: the event of a row, of a transaction, a message, DDL, a heartbeat.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    /// All of it.
    #[serde(skip)]
    pub(super) whole: &'a str,
    #[serde(borrow, default)]
    pub(super) op: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) after: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) source: Option<Source<'a>>,
    #[serde(borrow, default)]
    pub(super) transaction: Option<Transaction<'a>>,
    #[serde(borrow, default)]
    pub(super) message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) ddl: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "tableChanges")]
    pub(super) table_changes: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) ts_ms: Option<i64>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl Envelope<'_> {
    /// Whether it says nothing but when it was written.
    pub(super) fn is_only_time(&self) -> bool {
        self.source.is_none() && self.before.is_none() && self.after.is_none() && self.status.is_none() && self.id.is_none()
    }
}

/// Where an event is from.
#[derive(Debug, Deserialize)]
pub(super) struct Source<'a> {
    #[serde(borrow, default, rename = "name")]
    pub(super) server: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    snapshot: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) sequence: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    schema: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    db: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) table: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "txId")]
    transaction: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) lsn: Option<u64>,
    #[serde(default)]
    ts_us: Option<i64>,
    #[serde(default)]
    ts_ms: Option<i64>,
}

/// What snapshot an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snapshot {
    /// None: it is of the log.
    None,
    /// The one with which the connector began.
    Initial,
    /// The same, and this is the last row of it.
    Last,
    /// One that goes on beside the log.
    Incremental,
}

/// The place of an event among the commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Where the commit before its transaction ended; none of the first transaction that is streamed, and of a snapshot.
    pub(super) commit_before: Option<u64>,
    /// Its own LSN.
    pub(super) own: Option<u64>,
}

impl Snapshot {
    /// Whether it is the one with which the connector began.
    pub(super) fn is_initial(self) -> bool {
        matches!(self, Snapshot::Initial | Snapshot::Last)
    }
}

impl Source<'_> {
    /// The schema of its table; of MySQL, which has none, its database.
    pub(super) fn schema(&self) -> &str {
        self.schema.as_deref().or(self.db.as_deref()).unwrap_or_default()
    }

    /// What snapshot it is of.
    pub(super) fn snapshot(&self) -> Snapshot {
        match self.snapshot.as_deref() {
            None | Some("false") => Snapshot::None,
            Some("incremental") => Snapshot::Incremental,
            Some("last") => Snapshot::Last,
            Some(_) => Snapshot::Initial,
        }
    }

    /// Its transaction, as the database numbers it.
    pub(super) fn transaction(&self) -> Option<&str> {
        self.transaction.map(|number| number.get())
    }

    /// When its transaction was committed.
    pub(super) fn committed_at(&self) -> Result<Timestamp, RawReason> {
        match (self.ts_us, self.ts_ms) {
            (Some(micros), _) => after_1970(micros, micros),
            (None, Some(time)) => millis(time),
            (None, None) => Err(RawReason::Missing { field: "source.ts_ms" }),
        }
    }

    /// Its place among the commits; none where the connector says nothing of it.
    pub(super) fn sequence(&self) -> Result<Option<Sequence>, RawReason> {
        let Some(text) = self.sequence.as_deref() else { return Ok(None) };
        let wrong = || RawReason::Sequence { text: excerpt(text) };
        let pair: [Option<Cow<'_, str>>; 2] = serde_json::from_str(text).map_err(|_| wrong())?;
        let number = |text: Option<Cow<'_, str>>| text.map(|text| text.parse().map_err(|_| wrong())).transpose();
        let [commit_before, own] = pair;
        Ok(Some(Sequence { commit_before: number(commit_before)?, own: number(own)? }))
    }
}

/// Which of a transaction's changes an event is.
#[derive(Debug, Deserialize)]
pub(super) struct Transaction<'a> {
    #[serde(borrow)]
    #[expect(dead_code, reason = "it must be there")]
    id: Cow<'a, str>,
    pub(super) total_order: u64,
}

/// A logical message.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) prefix: Cow<'a, str>,
}

/// Reads a value, with or without a schema beside it.
pub(super) fn read(value: &[u8]) -> Result<Envelope<'_>, RawReason> {
    let text = std::str::from_utf8(value).map_err(|error| RawReason::NotUtf8 { valid: error.valid_up_to() })?;
    let bare: Envelope<'_> = parse(text)?;
    match bare.payload {
        Some(payload) if bare.op.is_none() && bare.status.is_none() => {
            let wrapped: Envelope<'_> = parse(payload.get())?;
            Ok(Envelope { whole: payload.get(), ..wrapped })
        }
        _ => Ok(Envelope { whole: text, ..bare }),
    }
}

/// Reads a part of a value.
pub(super) fn inner<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, RawReason> {
    parse(raw.get())
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, RawReason> {
    serde_json::from_str(text).map_err(|error| RawReason::Json { problem: error.to_string() })
}

/// An instant that a connector states in milliseconds.
pub(super) fn millis(time: i64) -> Result<Timestamp, RawReason> {
    after_1970(time.saturating_mul(1_000), time)
}

fn after_1970(micros: i64, written: i64) -> Result<Timestamp, RawReason> {
    let at = Timestamp::from_micros(micros);
    if micros > 0 && at.micros() == micros { Ok(at) } else { Err(RawReason::Time { time: written }) }
}

/// The number of a transaction, and where it ended: PostgreSQL's connector writes both with a colon between.
pub(super) fn transaction_id(id: &str) -> (&str, Option<u64>) {
    match id.rsplit_once(':').and_then(|(number, end)| Some((number, end.parse().ok()?))) {
        Some((number, end)) => (number, Some(end)),
        None => (id, None),
    }
}

/// A record as it came: the length of its key and the key, or nothing, then its value.
pub(super) fn whole(key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
    let mut whole = Vec::with_capacity(size_of::<u64>() + key.len() + value.len());
    whole.extend_from_slice(&(key.len() as u64).to_be_bytes());
    whole.extend_from_slice(key);
    whole.extend_from_slice(value);
    whole
}
