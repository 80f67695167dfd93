//! What a restore of a database came to.

use std::collections::BTreeMap;
use std::fmt;

use pipeline::fold::Uncertain;
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::tables::TablesCut;
use pipeline::target::report::grouped;
use serde::Serialize;

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
    /// Rows by table; of tables without rows none.
    pub tables: BTreeMap<String, u64>,
    /// Rows of which something is not known, each with what: the first of them.
    pub uncertain: Vec<String>,
    /// How many there are.
    pub uncertain_count: u64,
    /// Messages of the source that could not be decoded, of all times.
    pub undecoded: u64,
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
            tables: BTreeMap::new(),
            uncertain: Vec::new(),
            uncertain_count: 0,
            undecoded,
        }
    }

    /// So many rows more.
    pub(super) fn add(&mut self, tables: &BTreeMap<String, u64>) {
        for (table, rows) in tables {
            *self.tables.entry(table.clone()).or_default() += rows;
        }
    }

    /// Rows of which something is not known.
    pub(super) fn doubt(&mut self, doubts: &[Uncertain]) {
        self.uncertain_count += doubts.len() as u64;
        let room = NAMED_MAX.saturating_sub(self.uncertain.len());
        self.uncertain.extend(doubts.iter().take(room).map(|doubt| format!("{} {}: {}", doubt.object, doubt.version, doubt.reason)));
    }

    /// Whether all of it is as it was, as far as anybody can know.
    pub fn is_whole(&self) -> bool {
        self.uncertain_count == 0 && self.undecoded == 0
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.tables.values().sum()
    }
}

impl fmt::Display for DatabaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<12}  {value}");
        row(f, "restore", &format_args!("{} to {}", self.resource, self.target.escape_debug()))?;
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
        row(f, if self.dry_run { "to write" } else { "written" }, &format_args!("{:>15} rows", grouped(self.rows())))?;
        for (table, rows) in &self.tables {
            row(f, "", &format_args!("{:>15} {}", grouped(*rows), table.escape_debug()))?;
        }
        if self.uncertain_count > 0 {
            row(f, "uncertain", &format_args!("{:>15} rows", grouped(self.uncertain_count)))?;
            for doubt in &self.uncertain {
                row(f, "", &format_args!("- {}", doubt.escape_debug()))?;
            }
        }
        if self.undecoded > 0 {
            row(f, "undecoded", &format_args!("{:>15} messages of the source, of all times", grouped(self.undecoded)))?;
        }
        Ok(())
    }
}
