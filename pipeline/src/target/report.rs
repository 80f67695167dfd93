//! What a restore came to: one row per object in a file, and a summary that a person reads.
//!
//! ```text
//! row, row, row ─→ csv      for a spreadsheet
//!               └→ parquet  for SQL, and for very many objects
//! tally, gaps, uncertain, reasons ─→ RestoreReport ─→ a table, or JSON
//! ```
//!
//! Rows are written as they come, in bounded memory. The summary names at most [`NAMED_MAX`] keys of each kind and
//! counts them all; the rows have every one.

pub mod csv;
pub mod parquet;
pub mod reasons;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::reasons::Reasons;
use super::WantedObject;
use super::decide::{Action, Mode, Tally};
use crate::model::Timestamp;

/// How many keys or gaps of one kind a summary names.
pub const NAMED_MAX: usize = 100;

/// What happened to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRow {
    /// The object's key at the target.
    pub object: String,
    /// Its version id at the source; none for what did not exist there at that time.
    pub version: Option<String>,
    /// `create`, `overwrite`, `same`, `remove`, `skip`, `keep` or `fail`; `none` of what was not there then as far as is known,
    /// but is uncertain.
    pub action: String,
    /// Content written, in bytes.
    pub bytes: u64,
    /// Its version id at the target, where that keeps versions.
    pub target_version: Option<String>,
    /// Why the object is not as it was at that time, where it is not.
    pub reason: Option<String>,
    /// Properties that the target could not take, each with the reason.
    pub left_out: Vec<String>,
    /// Why nobody can say whether it was there so at that time, where that is so.
    pub uncertain: Option<String>,
}

impl ReportRow {
    /// The row of an object whose action was decided, and where it is a write, carried out: `written` is what came of it.
    pub fn new(object: &str, wanted: Option<&WantedObject>, action: &Action, written: Option<super::Written>) -> ReportRow {
        let written = written.unwrap_or_default();
        ReportRow {
            object: object.to_owned(),
            version: wanted.map(|wanted| wanted.version.clone()),
            action: action.word().to_owned(),
            bytes: if action.is_write() { wanted.map_or(0, |wanted| wanted.size) } else { 0 },
            target_version: written.version,
            reason: action.reason().map(ToString::to_string),
            left_out: written.left_out,
            uncertain: None,
        }
    }

    /// The row of a version that was not there at that time as far as is known, but nobody can say for certain.
    pub fn of_doubt(object: String, version: String, reason: String) -> ReportRow {
        ReportRow {
            object,
            version: Some(version),
            action: "none".to_owned(),
            bytes: 0,
            target_version: None,
            reason: None,
            left_out: Vec::new(),
            uncertain: Some(reason),
        }
    }
}

/// The columns of a report, in order.
pub const COLUMNS: [&str; 8] = ["object", "version", "action", "bytes", "target_version", "reason", "left_out", "uncertain"];

/// What parts the properties of one object in the column `left_out` of a CSV.
const LEFT_OUT_SEPARATOR: &str = "; ";

/// How a restore ended, in AWS Backup's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Everything that was to be restored is.
    Completed,
    /// Objects were selected, and none of those that existed at that time is one of them.
    NothingMatched,
    /// Some objects are restored, some are not, or the log has a gap before that time; the report names them.
    Partial,
    /// Nothing is restored.
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Completed => "COMPLETED",
            Status::NothingMatched => "NOTHING MATCHED",
            Status::Partial => "PARTIAL",
            Status::Failed => "FAILED",
        })
    }
}

/// Things of one kind: how many, and the first of them by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// At most [`NAMED_MAX`] of them.
    pub first: Vec<String>,
}

impl Named {
    /// Counts one more.
    pub fn push(&mut self, name: impl Into<String>) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(name.into());
        }
    }

    /// Adds those of another part of the same restore.
    pub fn add(&mut self, other: Named) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(NAMED_MAX);
    }
}

impl<T: Into<String>> FromIterator<T> for Named {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Named {
        let mut named = Named::default();
        names.into_iter().for_each(|name| named.push(name));
        named
    }
}

/// What a restore came to, or in a dry run, what it would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// What was restored: `s3://photos`.
    pub source: String,
    /// Where to, as [`super::Target::name`] says.
    pub target: String,
    /// The restored instant.
    pub to: Timestamp,
    /// What was to happen to objects of the same name.
    pub mode: Mode,
    /// Nothing was written; the counts say what would be.
    pub dry_run: bool,
    /// When the restore began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// How it ended.
    pub status: Status,
    /// Whether everything up to the restored instant is proven to be in the vault.
    pub proven: bool,
    /// Whether only some objects were asked for, by key, size or tags.
    pub selective: bool,
    /// Versions that existed at that time and were asked for.
    pub matched: u64,
    /// What was asked for and matched nothing, each as it was written.
    pub unmatched: Named,
    /// Those of them that are keys: somebody wanted just these objects.
    pub missing_keys: u64,
    /// How many objects, bytes and requests.
    #[serde(flatten)]
    pub tally: Tally,
    /// Why objects failed, lost ones included.
    pub reasons: Reasons,
    /// Objects with properties that the target could not take.
    pub left_out: Named,
    /// Which properties, and why.
    pub left_out_reasons: Reasons,
    /// Times of which the vault does not hold every change, each as a person reads it.
    pub gaps: Named,
    /// Keys of which nobody can say whether they existed at that instant.
    pub uncertain: Named,
    /// Keys whose content the vault does not hold.
    pub lost: Named,
    /// Keys that could not be written, lost ones apart.
    pub failed_keys: Named,
    /// Keys that were removed, because they did not exist at that instant.
    pub removed: Named,
}

impl RestoreReport {
    /// A report of a restore that has looked at nothing yet; `status`, the counts and `finished` come with
    /// [`RestoreReport::finish`].
    pub fn begin(source: impl Into<String>, target: impl Into<String>, to: Timestamp, mode: Mode, started: Timestamp) -> RestoreReport {
        RestoreReport {
            source: source.into(),
            target: target.into(),
            to,
            mode,
            dry_run: false,
            started,
            finished: started,
            status: Status::Failed,
            proven: false,
            selective: false,
            matched: 0,
            unmatched: Named::default(),
            missing_keys: 0,
            tally: Tally::default(),
            reasons: Reasons::default(),
            left_out: Named::default(),
            left_out_reasons: Reasons::default(),
            gaps: Named::default(),
            uncertain: Named::default(),
            lost: Named::default(),
            failed_keys: Named::default(),
            removed: Named::default(),
        }
    }

    /// Counts one object: what was decided, and what came of it.
    pub fn count(&mut self, object: &str, wanted: Option<&WantedObject>, action: &Action, requests: u64, written: Option<&super::Written>) {
        self.tally.count(action, wanted.map_or(0, |wanted| wanted.size), requests);
        self.matched += u64::from(wanted.is_some());
        let left_out = written.map_or(&[][..], |written| &written.left_out);
        if !left_out.is_empty() {
            self.left_out.push(object);
        }
        left_out.iter().for_each(|reason| self.left_out_reasons.push(reason, object));
        if *action == Action::Remove {
            self.removed.push(object);
        }
        if let Action::Fail(reason) = action {
            self.reasons.push(&reason.to_string(), object);
            let named = if matches!(reason, super::Reason::Lost(_)) { &mut self.lost } else { &mut self.failed_keys };
            named.push(object);
        }
    }

    /// Adds what another part of the same restore came to: its counts and names. Head and times are kept.
    pub fn add(&mut self, part: RestoreReport) {
        self.matched += part.matched;
        self.tally.add(&part.tally);
        self.reasons.add(part.reasons);
        self.left_out.add(part.left_out);
        self.left_out_reasons.add(part.left_out_reasons);
        self.gaps.add(part.gaps);
        self.uncertain.add(part.uncertain);
        self.lost.add(part.lost);
        self.failed_keys.add(part.failed_keys);
        self.removed.add(part.removed);
    }

    /// Ends the report: the status follows from the counts.
    pub fn finish(&mut self, finished: Timestamp) {
        self.finished = finished;
        let found_nothing = self.selective && self.matched == 0 && !self.tally.changes() && self.tally.failed == 0;
        self.status = match status(&self.tally) {
            _ if found_nothing => Status::NothingMatched,
            // What happened in a gap before that time nobody knows, so nobody can say that all of it is restored.
            Status::Completed if self.missing_keys > 0 || self.gaps.count > 0 => Status::Partial,
            status => status,
        };
    }
}

fn status(tally: &Tally) -> Status {
    // An object that was left as the mode says is as it was asked for.
    let done = tally.objects() - tally.failed;
    match (tally.failed, done) {
        (0, _) => Status::Completed,
        (_, 0) => Status::Failed,
        _ => Status::Partial,
    }
}

/// A table for people. Keys are shown escaped: they come from outside and must not steer a terminal.
impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let seconds = self.finished.since(self.started).as_millis() as f64 / 1_000.0;
        let certainty = if self.proven { "proven" } else { "not proven" };
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<12}  {value}");
        row(f, "restore", &format_args!("{} to {}", self.source.escape_debug(), self.target.escape_debug()))?;
        row(f, "state at", &format_args!("{} ({certainty})", self.to))?;
        row(f, "mode", &self.mode)?;
        if self.dry_run {
            let found = if self.status == Status::NothingMatched { "; nothing matched" } else { "" };
            row(f, "status", &format_args!("dry run: nothing was written{found}"))?;
        } else {
            row(f, "status", &self.status)?;
            row(f, "took", &format_args!("{seconds:.1} s, from {} to {}", self.started, self.finished))?;
        }
        // What a dry run counts has not happened.
        let word = |done: &'static str, planned: &'static str| if self.dry_run { planned } else { done };
        for (name, count) in [
            ("matched", self.matched),
            (word("created", "to create"), tally.creates),
            (word("overwritten", "to overwrite"), tally.overwrites),
            (word("removed", "to remove"), tally.deletes),
            ("same", tally.same),
            (word("skipped", "to skip"), tally.skips),
            (word("kept", "to keep"), tally.kept),
            (word("failed", "would fail"), tally.failed),
        ] {
            row(f, name, &format_args!("{:>15}", grouped(count)))?;
        }
        row(f, word("written", "to write"), &format_args!("{:>15} bytes", grouped(tally.bytes)))?;
        row(f, "requests", &format_args!("{:>15}", grouped(tally.requests)))?;
        list(f, "unmatched", &self.unmatched)?;
        list(f, "gaps", &self.gaps)?;
        list(f, "uncertain", &self.uncertain)?;
        list(f, word("keys removed", "would remove"), &self.removed)?;
        why(f, word("failed as", "would fail"), &self.reasons)?;
        why(f, "left out", &self.left_out_reasons)
    }
}

/// The reasons that hold of the most objects, each with some of them.
fn why(f: &mut fmt::Formatter<'_>, name: &str, reasons: &Reasons) -> fmt::Result {
    const SHOWN_MAX: usize = 10;
    let (all, shown) = (reasons.by_count(), reasons.by_count().len().min(SHOWN_MAX));
    for group in &all[..shown] {
        writeln!(f, "{name:<12}  {:>15}  {}", grouped(group.count), shown_text(group.reason.as_deref().unwrap_or("other reasons")))?;
        for object in &group.first {
            writeln!(f, "{:<12}  {:>15}  - {}", "", "", object.escape_debug())?;
        }
    }
    match all[shown..].iter().map(|group| group.count).sum::<u64>() {
        0 => Ok(()),
        more => writeln!(f, "{name:<12}  {:>15}  other reasons", grouped(more)),
    }
}

/// A text with everything escaped that could steer a terminal; its quotes are left.
fn shown_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// The first few of what is named, one a line.
fn list(f: &mut fmt::Formatter<'_>, name: &str, named: &Named) -> fmt::Result {
    const SHOWN_MAX: usize = 10;
    if named.count == 0 {
        return Ok(());
    }
    writeln!(f, "{name:<12}  {:>15}", grouped(named.count))?;
    let shown = named.first.len().min(SHOWN_MAX);
    for name in &named.first[..shown] {
        writeln!(f, "{:<12}  {}", "", name.escape_debug())?;
    }
    match named.count - shown as u64 {
        0 => Ok(()),
        more => writeln!(f, "{:<12}  and {} more", "", grouped(more)),
    }
}

/// A number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
