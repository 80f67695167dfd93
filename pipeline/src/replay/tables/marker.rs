//! Markers: states of a database that somebody gave a name, by `pg_logical_emit_message(true, 'hindsight', 'NAME')`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::changelog::commits::{Commit, Commits};
use crate::model::Timestamp;
use crate::model::change::TupleRow;

/// The prefix of messages that are markers.
const PREFIX: &str = "hindsight";

/// A marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its name.
    pub name: String,
    /// When it was set: when the transaction was committed that did, or the one before it.
    pub at: Timestamp,
    /// Where it stands in the order of commits.
    pub position: Vec<u8>,
    /// The transaction that set it; none of one that was set at once, whatever becomes of its transaction.
    pub transaction: Option<String>,
}

/// What a message says, as a decoder writes it.
#[derive(Deserialize)]
struct Message {
    prefix: String,
    content: String,
}

impl Marker {
    /// The marker that a message sets, if it does.
    pub(super) fn of(row: &TupleRow<'_>) -> Option<Marker> {
        let message: Message = serde_json::from_str(row.image?).ok()?;
        if message.prefix != PREFIX {
            return None;
        }
        let name = String::from_utf8(BASE64.decode(message.content).ok()?).ok()?;
        Some(Marker { name, at: row.at, position: row.position.to_vec(), transaction: row.request.map(str::to_owned) })
    }

    /// The last commit of its state: of the transaction that set it; of one that was set at once, the last before it.
    pub(super) fn state<'a>(&self, commits: &'a Commits) -> Option<&'a Commit> {
        match self.transaction {
            Some(_) => commits.with(&self.position),
            None => commits.before(&self.position),
        }
    }
}
