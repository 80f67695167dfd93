//! What shall happen to each object of a restore. Nothing here does I/O: a dry run prints it, and a run carries it out.
//!
//! ```text
//!                     skip        overwrite   exact
//! wanted, not there   create      create      create
//! wanted, the same    same        same        same
//! wanted, differs     skip*       overwrite   overwrite
//! there, not wanted   keep        keep        remove, unless the key is named uncertain
//! content lost        fail, where it would have to be written
//!
//! * overwrite, where a restore goes on that broke off and may have left it unfinished
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ExistingObject, WantedObject};

/// What a restore does about objects that its target holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// An object of the same name is left as it is, as AWS Backup does.
    #[default]
    Skip,
    /// What differs is overwritten; what did not exist at the restored instant is left.
    Overwrite,
    /// As [`Mode::Overwrite`], and what did not exist at the restored instant is removed.
    Exact,
}

impl Mode {
    /// The word a person writes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Skip => "skip",
            Mode::Overwrite => "overwrite",
            Mode::Exact => "exact",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a mode: write skip, overwrite or exact")]
pub struct ModeError {
    text: String,
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Mode, ModeError> {
        [Mode::Skip, Mode::Overwrite, Mode::Exact]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| ModeError { text: text.to_owned() })
    }
}

/// One key, as the restored instant wants it and as the target has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Case<'a> {
    /// What existed at the restored instant.
    pub wanted: Option<&'a WantedObject>,
    /// Why the vault does not hold its content, where that is so.
    pub lost: Option<&'a str>,
    /// What the target holds.
    pub existing: Option<&'a ExistingObject>,
    /// Whether both are the same, as [`super::Target::is_same`] says. Of no meaning unless there are both.
    pub same: bool,
    /// A restore of this very object that broke off may have left it so. Of no meaning unless there are both and they differ.
    pub unfinished: bool,
    /// Nobody can say whether the object existed at the restored instant.
    pub uncertain: bool,
    /// The vault knows of nothing that was selected.
    pub unknown: bool,
}

/// What happens to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is written where nothing was.
    Create,
    /// It is written over what differs.
    Overwrite,
    /// What is there is what is wanted.
    Same,
    /// It is removed: it did not exist at the restored instant.
    Remove,
    /// It is wanted, and not written.
    Skip(Reason),
    /// It is not wanted, and not removed.
    Keep(Reason),
    /// It is wanted and cannot be written.
    Fail(Reason),
}

/// Why an object is not made what the restored instant says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The target has an object of that name and the mode leaves those.
    Exists,
    /// The mode removes nothing.
    NotRemoved,
    /// It may have existed at the restored instant.
    Uncertain,
    /// Nothing that was selected is known to have existed at any time.
    NothingKnown,
    /// Its content is not in the vault, and why.
    Lost(String),
    /// It was tried, and why it did not work.
    Failed(String),
}

impl Action {
    /// One word for it, as the report writes it.
    pub const fn word(&self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Overwrite => "overwrite",
            Action::Same => "same",
            Action::Remove => "remove",
            Action::Skip(_) => "skip",
            Action::Keep(_) => "keep",
            Action::Fail(_) => "fail",
        }
    }

    /// Why the object is not made what the restored instant says, where it is not.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Action::Skip(reason) | Action::Keep(reason) | Action::Fail(reason) => Some(reason),
            Action::Create | Action::Overwrite | Action::Same | Action::Remove => None,
        }
    }

    /// Whether the target is written to.
    pub const fn is_write(&self) -> bool {
        matches!(self, Action::Create | Action::Overwrite)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Exists => f.write_str("the target has an object of this name"),
            Reason::NotRemoved => f.write_str("it did not exist at that time; only mode exact removes"),
            Reason::NothingKnown => {
                f.write_str("the vault knows of nothing that was selected, then or now; a selection that may be misspelled removes nothing")
            }
            Reason::Uncertain => f.write_str("it is uncertain whether it existed at that time"),
            Reason::Lost(reason) => write!(f, "its content is not in the vault: {reason}"),
            Reason::Failed(reason) => f.write_str(reason),
        }
    }
}

/// What happens to one key; nothing where neither side has it.
pub fn decide(mode: Mode, case: &Case<'_>) -> Option<Action> {
    Some(match (case.wanted, case.existing) {
        (None, None) => return None,
        (None, Some(_)) if mode != Mode::Exact => Action::Keep(Reason::NotRemoved),
        (None, Some(_)) if case.unknown => Action::Keep(Reason::NothingKnown),
        (None, Some(_)) if case.uncertain => Action::Keep(Reason::Uncertain),
        (None, Some(_)) => Action::Remove,
        // The bytes are at the target already: that the vault lost them does not matter.
        (Some(_), Some(_)) if case.same => Action::Same,
        (Some(_), Some(_)) if mode == Mode::Skip && !case.unfinished => Action::Skip(Reason::Exists),
        (Some(wanted), existing) => match case.lost {
            // A delete marker has no content that could be lost.
            Some(reason) if !wanted.marker => Action::Fail(Reason::Lost(reason.to_owned())),
            _ if existing.is_some() => Action::Overwrite,
            _ => Action::Create,
        },
    })
}

/// How many objects, bytes and requests a restore comes to: what a dry run prints, and what the run must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Objects written where nothing was.
    pub creates: u64,
    /// Objects written over others.
    pub overwrites: u64,
    /// Objects removed.
    pub deletes: u64,
    /// Wanted objects left out because the target has one of that name.
    pub skips: u64,
    /// Objects that were there already as wanted.
    pub same: u64,
    /// Objects of the target that are not wanted and were left.
    pub kept: u64,
    /// Wanted objects that were not restored.
    pub failed: u64,
    /// Content written.
    pub bytes: u64,
    /// Requests that change the target. Those that only look at it are not counted: a dry run makes them too.
    pub requests: u64,
}

impl Tally {
    /// Counts one object. `bytes` are its content, `requests` those of [`super::Target::requests`]; both count only
    /// where the action changes the target.
    pub fn count(&mut self, action: &Action, bytes: u64, requests: u64) {
        let (count, bytes, requests) = match action {
            Action::Create => (&mut self.creates, bytes, requests),
            Action::Overwrite => (&mut self.overwrites, bytes, requests),
            Action::Remove => (&mut self.deletes, 0, requests),
            Action::Same => (&mut self.same, 0, 0),
            Action::Skip(_) => (&mut self.skips, 0, 0),
            Action::Keep(_) => (&mut self.kept, 0, 0),
            Action::Fail(_) => (&mut self.failed, 0, 0),
        };
        *count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.requests = self.requests.saturating_add(requests);
    }

    /// Adds what another part of the same restore came to.
    pub fn add(&mut self, other: &Tally) {
        let Tally { creates, overwrites, deletes, skips, same, kept, failed, bytes, requests } = *other;
        self.creates += creates;
        self.overwrites += overwrites;
        self.deletes += deletes;
        self.skips += skips;
        self.same += same;
        self.kept += kept;
        self.failed += failed;
        self.bytes = self.bytes.saturating_add(bytes);
        self.requests = self.requests.saturating_add(requests);
    }

    /// How many objects were looked at.
    pub const fn objects(&self) -> u64 {
        self.creates + self.overwrites + self.deletes + self.skips + self.same + self.kept + self.failed
    }

    /// Whether carrying it out changes the target.
    pub const fn changes(&self) -> bool {
        self.creates + self.overwrites + self.deletes > 0
    }
}

#[cfg(test)]
mod tests;
