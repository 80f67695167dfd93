//! What decoding amounts to.

use std::collections::BTreeMap;

use crate::model::ChangeBatch;

/// Everything that was in the records.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What they tell, those that could not be decoded included.
    pub changes: ChangeBatch,
    /// How many were understood and change nothing, by reason.
    pub ignored: BTreeMap<Ignored, u64>,
    /// How many could not be decoded.
    pub raw: u64,
    /// How many records there were.
    pub records: u64,
}

/// Why a record that was understood changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// For Kafka's compaction: the key was deleted, which its own event has told.
    Tombstone,
    /// A transaction began. That it ended says all of it.
    Begin,
    /// The connector is alive.
    Heartbeat,
    /// Another connector tells it, whose topics begin with the same words.
    Foreign,
}

impl Ignored {
    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ignored::Tombstone => "tombstone",
            Ignored::Begin => "begin",
            Ignored::Heartbeat => "heartbeat",
            Ignored::Foreign => "foreign",
        }
    }
}

/// Why a record cannot be decoded. None of them goes away by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says what it means")]
pub enum RawReason {
    #[error("the value is not UTF-8 after byte {valid}")]
    NotUtf8 { valid: usize },
    #[error("the value is not JSON of the expected shape: {problem}")]
    Json { problem: String },
    #[error("it is no event of a Debezium connector")]
    Form,
    #[error("the event has no {field}")]
    Missing { field: &'static str },
    #[error("operation {op:?} is unknown")]
    Op { op: String },
    #[error("the table has no key, and the event does not say how the row was: set REPLICA IDENTITY FULL")]
    NoBefore,
    #[error("{text:?} is no sequence of a PostgreSQL connector")]
    Sequence { text: String },
    #[error("it is of an incremental snapshot, which this release does not read")]
    Incremental,
    #[error("its time is not one after 1970: {time}")]
    Time { time: i64 },
}

/// The beginning of a text that somebody else wrote, for a reason that people read.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
