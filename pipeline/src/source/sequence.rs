//! What is kept of a sequence of a database: what it had come to when it was read.
//!
//! ```text
//!  asked the time   10.0          10.5          11.0
//!  read behind it     41            41            57
//!  kept                                           57, which counts from 10.5 on
//! ```
//!
//! Replication does not tell of sequences, so each is read again and again. A reading was made after the time that was asked just
//! before: by that time nobody had been given a number that lies further on. A reading that says nothing new is not kept; so one
//! that does counts from the time of the one before.

use serde::{Deserialize, Serialize};

use super::control;
use crate::model::change::{TupleRow, TupleRows};
use crate::model::{Op, Position, Timestamp, json};

/// What a sequence had come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceState {
    /// The number that was handed out last; where none was, the one that comes first.
    pub last_value: i64,
    /// Whether that number was handed out.
    pub is_called: bool,
    /// By how much the next one is greater; less than 0 where it is smaller.
    pub increment: i64,
    /// Whether it begins again when it is at its end.
    pub cycle: bool,
}

impl SequenceState {
    /// What is greater of the state that is further on, in the direction in which this one counts.
    pub fn place(&self, of: &SequenceState) -> (i64, bool) {
        // Of smaller numbers the complement is greater, and there is one for each.
        (if self.increment < 0 { !of.last_value } else { of.last_value }, of.is_called)
    }
}

/// A reading of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceRead {
    /// The schema of the sequence.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// From when on it counts, by the clock of the database: what the one before said may have changed since then.
    pub counts_from: Timestamp,
    /// When it had been made, by the same clock.
    pub read_at: Timestamp,
    /// Where the log of the server ended before it was made.
    pub log_end: u64,
    /// What it had come to; where it could not be read, what was known of it before.
    pub state: Option<SequenceState>,
    /// Why it could not be read.
    pub unread: Option<String>,
}

/// Why a row is no reading of a sequence.
#[derive(Debug, thiserror::Error)]
#[error("the reading {identity} of a sequence: {reason}")]
pub struct SequenceError {
    identity: String,
    reason: String,
}

impl SequenceRead {
    /// Adds it to the rows of a feed, as what is told of the database itself.
    pub(super) fn write(&self, rows: &mut TupleRows, stream: &str, epoch: u32) {
        let micros = self.read_at.micros();
        let position = Position::committed(epoch, self.log_end, micros as u64);
        // Each has a key of its own: there may be many of one sequence.
        let identity = json::array([&*self.schema, &*self.name, &micros.to_string()]);
        let image = self.state.map(|state| serde_json::json!(state).to_string());
        rows.push(&TupleRow {
            at_bound: Some(self.counts_from),
            via: "scan",
            identity: Some(&identity),
            image: image.as_deref(),
            reason: self.unread.as_deref(),
            ..TupleRow::put(stream, control::SEQUENCE, self.read_at, position.as_bytes())
        });
    }

    /// The reading that a row tells; none where it tells something else.
    ///
    /// # Errors
    /// A reading that cannot be understood.
    pub fn of(row: &TupleRow<'_>) -> Result<Option<SequenceRead>, SequenceError> {
        if (row.op, row.schema, row.table) != (Op::Put, control::NO_SCHEMA, control::SEQUENCE) {
            return Ok(None);
        }
        let identity = row.identity.unwrap_or_default();
        let broken = |reason: String| SequenceError { identity: identity.to_owned(), reason };
        let [schema, name, _]: [String; 3] = serde_json::from_str(identity).map_err(|error| broken(error.to_string()))?;
        let state = row.image.map(serde_json::from_str).transpose().map_err(|error| broken(error.to_string()))?;
        if state.is_none() && row.reason.is_none() {
            return Err(broken("it says neither what was read nor why nothing was".to_owned()));
        }
        let (log_end, _) = Position::commit_of(row.position).ok_or_else(|| broken("its position is in no log".to_owned()))?;
        Ok(Some(SequenceRead {
            schema,
            name,
            counts_from: row.at_bound.unwrap_or(row.at),
            read_at: row.at,
            log_end,
            state,
            unread: row.reason.map(str::to_owned),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(last_value: i64, increment: i64) -> SequenceState {
        SequenceState { last_value, is_called: true, increment, cycle: false }
    }

    fn rows(reads: &[SequenceRead]) -> crate::model::change::ChangeBatch {
        let mut rows = TupleRows::new();
        reads.iter().for_each(|read| read.write(&mut rows, "slot", 3));
        rows.finish()
    }

    #[test]
    fn a_reading_is_read_as_it_was_written() {
        let read = SequenceRead {
            schema: "My \"schema.".to_owned(),
            name: "no, [1]".to_owned(),
            counts_from: Timestamp::from_micros(7),
            read_at: Timestamp::from_micros(9),
            log_end: 100,
            state: Some(SequenceState { last_value: i64::MIN, is_called: false, increment: -1, cycle: true }),
            unread: None,
        };
        let unread =
            SequenceRead { state: None, unread: Some("permission denied".to_owned()), read_at: Timestamp::from_micros(10), ..read.clone() };
        let batch = rows(&[read.clone(), unread.clone()]);
        let found: Vec<SequenceRead> = batch.tuple_columns().iter().filter_map(|row| SequenceRead::of(&row).unwrap()).collect();
        assert_eq!(found, [read, unread]);
    }

    #[test]
    fn a_row_that_is_no_reading_is_named() {
        let position = Position::committed(1, 2, 3);
        let blank = TupleRow::put("slot", control::SEQUENCE, Timestamp::default(), position.as_bytes());
        let error = |row: TupleRow<'_>| SequenceRead::of(&row).unwrap_err().to_string();
        assert!(error(TupleRow { identity: Some(r#"["a"]"#), ..blank }).contains(r#"the reading ["a"] of a sequence"#));
        let named = TupleRow { identity: Some(r#"["a","b","1"]"#), ..blank };
        assert!(error(named).contains("neither what was read"));
        assert!(error(TupleRow { image: Some("{}"), ..named }).contains("last_value"));
        let other = TupleRow { table: control::MESSAGE, ..blank };
        assert_eq!(SequenceRead::of(&other).unwrap(), None);
    }

    #[test]
    fn further_on_is_where_it_counts_to() {
        let up = state(5, 1);
        assert!(up.place(&state(6, 1)) > up.place(&up));
        let down = state(5, -2);
        assert!(down.place(&state(3, -2)) > down.place(&down) && down.place(&state(i64::MIN, -2)) > down.place(&state(i64::MAX, -2)));
        let uncalled = SequenceState { is_called: false, ..up };
        assert!(up.place(&up) > up.place(&uncalled));
    }
}
