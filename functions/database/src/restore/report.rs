//! What a restore of a database came to.

use std::collections::BTreeMap;
use std::fmt;

use pipeline::fold::Uncertain;
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::tables::TablesCut;
use pipeline::target::report::grouped;
use serde::{Deserialize, Serialize};

use super::sequences::SequencesReport;
use crate::Address;

/// Uncertain rows that are named.
const NAMED_MAX: usize = 100;

/// What a restore did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseReport {
    /// What was restored.
    pub resource: ResourceId,
    /// Where to, without a password.
    pub target: String,
    /// The state that was restored: its last transaction.
    pub transaction: Option<String>,
    /// When that was committed.
    pub at: Timestamp,
    /// Whether nothing was done, but only said what would be.
    pub dry_run: bool,
    /// Of a dry run: whether the database would be made.
    pub creates_database: bool,
    /// Whether a restore that had been broken off was gone on with.
    pub resumed: bool,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The tables that were asked for; of all none is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chosen: Vec<String>,
    /// Foreign keys that refer to rows that were left out, and what became of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_checked: Vec<String>,
    /// Tables of which only new rows are kept: what was changed or deleted there is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub new_rows_only: Vec<String>,
    /// The rows.
    #[serde(flatten)]
    pub rows: Rows,
    /// The sequences, whichever tables were chosen.
    pub sequences: SequencesReport,
    /// Messages of the source that could not be decoded, of all times.
    pub undecoded: u64,
}

/// What came of rows: of all, or of those of a hash bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// How many by table; of tables without rows none.
    pub tables: BTreeMap<String, u64>,
    /// Those of which something is not known, each with what: the first of them.
    pub uncertain: Vec<String>,
    /// How many there are.
    pub uncertain_count: u64,
    /// Columns of which the connector has lost something, as `schema.table.column: what`, each with how many values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inexact: BTreeMap<String, u64>,
}

impl Rows {
    /// So many rows of a table more.
    pub(super) fn count(&mut self, table: String, rows: u64) {
        *self.tables.entry(table).or_default() += rows;
    }

    /// Rows of which something is not known.
    pub(super) fn doubt(&mut self, doubts: &[Uncertain]) {
        self.uncertain_count += doubts.len() as u64;
        let room = NAMED_MAX.saturating_sub(self.uncertain.len());
        self.uncertain.extend(doubts.iter().take(room).map(|doubt| format!("{} {}: {}", doubt.object, doubt.version, doubt.reason)));
    }

    /// Rows of a table may be missing.
    pub(super) fn not_told(&mut self, table: &str) {
        self.uncertain_count += 1;
        self.uncertain.push(format!("{table}: it was in no publication for a while, and rows of it may be missing that no snapshot has"));
    }

    /// A value of a column may not be what it was.
    pub(super) fn doubt_column(&mut self, schema: &str, table: &str, column: &str, doubt: &str) {
        *self.inexact.entry(format!("{schema}.{table}.{column}: {doubt}")).or_default() += 1;
    }

    /// What came of others, too.
    pub(super) fn add(&mut self, others: &Rows) {
        others.tables.iter().for_each(|(table, rows)| self.count(table.clone(), *rows));
        others.inexact.iter().for_each(|(what, values)| *self.inexact.entry(what.clone()).or_default() += values);
        self.uncertain_count += others.uncertain_count;
        let room = NAMED_MAX.saturating_sub(self.uncertain.len());
        self.uncertain.extend(others.uncertain.iter().take(room).cloned());
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.tables.values().sum()
    }
}

impl DatabaseReport {
    pub(super) fn new(
        resource: &ResourceId,
        target: &Address,
        cut: &TablesCut,
        undecoded: u64,
        dry_run: bool,
        started: Timestamp,
    ) -> DatabaseReport {
        DatabaseReport {
            resource: resource.clone(),
            target: target.to_string(),
            transaction: cut.transaction.clone(),
            at: cut.at,
            dry_run,
            creates_database: false,
            resumed: false,
            started,
            finished: started,
            chosen: Vec::new(),
            not_checked: Vec::new(),
            new_rows_only: Vec::new(),
            rows: Rows::default(),
            sequences: SequencesReport::default(),
            undecoded,
        }
    }

    /// Whether all of it is as it was, as far as anybody can know.
    pub fn is_whole(&self) -> bool {
        self.rows.uncertain_count == 0 && self.undecoded == 0 && self.rows.inexact.is_empty() && self.sequences.unread.is_empty()
    }
}

/// A text from outside: what could steer a terminal is escaped, and quotes are not.
pub(crate) fn shown(text: &str) -> String {
    let letters =
        text.chars().map(|letter| if matches!(letter, '"' | '\'') { letter.to_string() } else { letter.escape_debug().to_string() });
    letters.collect()
}

/// A line of a report.
fn row(f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<12}  {value}")
}

impl SequencesReport {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SequencesReport { as_read, may_be_behind, behind_rows, anew, unread } = self;
        if *as_read > 0 {
            let since = if *may_be_behind { "; the last transaction may have taken more" } else { "" };
            row(f, "sequences", &format_args!("{:>15} as they were read{since}", grouped(*as_read)))?;
        }
        if *behind_rows > 0 {
            row(f, "sequences", &format_args!("{:>15} behind the greatest value of their column", grouped(*behind_rows)))?;
        }
        if !anew.is_empty() {
            row(f, "sequences", &format_args!("{:>15} begin anew, as nothing is known of them", grouped(anew.len() as u64)))?;
            for name in anew.iter().take(NAMED_MAX) {
                row(f, "", &format_args!("- {}", shown(name)))?;
            }
        }
        if !unread.is_empty() {
            row(f, "sequences", &format_args!("{:>15} could not be read, and may have come further", grouped(unread.len() as u64)))?;
            for doubt in unread.iter().take(NAMED_MAX) {
                row(f, "", &format_args!("- {}", shown(doubt)))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for DatabaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "restore", &format_args!("{} to {}", self.resource, shown(&self.target)))?;
        match &self.transaction {
            Some(transaction) => row(f, "state at", &format_args!("{}, transaction {}", self.at, transaction.escape_debug()))?,
            None => row(f, "state at", &format_args!("{}, the snapshot", self.at))?,
        }
        match (self.dry_run, self.is_whole()) {
            (true, _) if self.creates_database => row(f, "status", &"dry run: nothing was written; the database would be made")?,
            (true, _) => row(f, "status", &"dry run: nothing was written")?,
            (false, true) => row(f, "status", &"COMPLETED")?,
            (false, false) => row(f, "status", &"PARTIAL")?,
        }
        if !self.dry_run {
            let seconds = self.finished.since(self.started).as_millis() as f64 / 1_000.0;
            let resumed = if self.resumed { "; one that had been broken off was gone on with" } else { "" };
            row(f, "took", &format_args!("{seconds:.1} s, from {} to {}{resumed}", self.started, self.finished))?;
        }
        row(f, if self.dry_run { "to write" } else { "written" }, &format_args!("{:>15} rows", grouped(self.rows.total())))?;
        for (table, rows) in &self.rows.tables {
            row(f, "", &format_args!("{:>15} {}", grouped(*rows), shown(table)))?;
        }
        self.sequences.show(f)?;
        if self.rows.uncertain_count > 0 {
            row(f, "uncertain", &format_args!("{:>15} rows", grouped(self.rows.uncertain_count)))?;
            for doubt in &self.rows.uncertain {
                row(f, "", &format_args!("- {}", shown(doubt)))?;
            }
        }
        if !self.chosen.is_empty() {
            let chosen: Vec<String> = self.chosen.iter().map(|table| shown(table)).collect();
            row(f, "only", &format_args!("{}; other tables are made, and left empty", chosen.join(", ")))?;
        }
        for key in &self.not_checked {
            row(f, "foreign key", &shown(key))?;
        }
        if !self.new_rows_only.is_empty() {
            row(
                f,
                "new rows",
                &"of these tables without a key only new rows are kept; rows that were changed or deleted are as they were put in:",
            )?;
            for table in self.new_rows_only.iter().take(NAMED_MAX) {
                row(f, "", &format_args!("- {}", shown(table)))?;
            }
        }
        for (what, values) in &self.rows.inexact {
            row(f, "inexact", &format_args!("{:>15} values: {}", grouped(*values), shown(what)))?;
        }
        if self.undecoded > 0 {
            row(f, "undecoded", &format_args!("{:>15} messages of the source, of all times", grouped(self.undecoded)))?;
        }
        Ok(())
    }
}
