//! Undoing what some transactions did: the latest state without it, where nobody did anything else to the same.
//!
//! ```text
//!  changes of each key, in order ─→ the row as it is, the row without ─→ a statement, or a conflict
//!  rows, the last that was done first ─→ one script, in one transaction
//! ```
//!
//! Nothing is guessed: what others changed behind it, and what no change says, is named and left. Neither is it believed that the
//! database is still as the vault knows it: each statement counts on the values that it replaces, and if one does not find them nothing is
//! done.

mod emptyings;
mod keys;
mod script;
mod walk;
mod weigh;

use std::collections::BTreeMap;

use pipeline::base::inputs::Inventory;
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::tables::{Emptied, Tables, TablesCut, TablesPoint};
use pipeline::vault::Vault;
use serde::Serialize;
use serde_json::value::RawValue;

use self::keys::{Companions, Links};
use self::walk::Walk;
use crate::restore::Chosen;
use crate::{Address, DatabaseError, schema};

/// How many rows are undone at once, and how much text of them.
const ROWS_MAX: usize = 1_000_000;
const TEXT_BYTES_MAX: usize = 256 << 20;

/// What is to be undone.
#[derive(Debug, Clone)]
pub struct UndoOf {
    /// What was done to these tables,
    pub chosen: Chosen,
    /// by these transactions; by all where none is named,
    pub transactions: Vec<String>,
    /// that were committed then or later,
    pub from: Timestamp,
    /// and then or earlier.
    pub to: Timestamp,
}

/// How to undo it.
#[derive(Debug)]
pub struct Undo {
    /// The state that it starts from: the latest.
    pub state: TablesCut,
    /// The transactions that are undone, with when they were committed.
    pub transactions: BTreeMap<String, Timestamp>,
    /// What is done to rows, in this order.
    pub rows: Vec<UndoRow>,
    /// What stays as it is, and why.
    pub conflicts: Vec<Conflict>,
    /// Rows that are without it already: gone by now, or changed back.
    pub nothing: u64,
}

/// What is done to a row.
#[derive(Debug, Serialize)]
pub struct UndoRow {
    /// `insert`, `update` or `delete`.
    pub undo: &'static str,
    /// The table, with its schema.
    pub table: String,
    /// The values of the key, in the order of its columns; none of a table without a key.
    pub key: Option<Box<RawValue>>,
    /// The statement that does it.
    pub sql: String,
    #[serde(skip)]
    order: Vec<u8>,
    #[serde(skip)]
    links: Links,
    #[serde(skip)]
    companions: Vec<Companions>,
}

/// What is not undone.
#[derive(Debug, Serialize)]
pub struct Conflict {
    /// The table, with its schema.
    pub table: String,
    /// The values of the key; none where it is about all of the table.
    pub key: Option<Box<RawValue>>,
    /// Why not.
    pub conflict: String,
}

impl UndoOf {
    fn is_undone(&self, schema: &str, table: &str, at: Timestamp, transaction: Option<&str>) -> bool {
        let is_one = transaction.is_some_and(|number| self.transactions.is_empty() || self.transactions.iter().any(|one| one == number));
        is_one && self.from <= at && at <= self.to && self.chosen.has(schema, table)
    }

    fn is_undone_emptied(&self, emptied: &Emptied) -> bool {
        !emptied.read_again && self.is_undone(&emptied.schema, &emptied.table, emptied.at, emptied.transaction.as_deref())
    }
}

/// Finds out how to undo what some transactions did.
///
/// # Errors
/// A transaction that changed nothing that the vault knows of; more rows than can be undone at once; what a connector told; and as
/// reading the vault.
pub async fn undo(vault: &Vault, resource: &ResourceId, of: &UndoOf) -> Result<Undo, DatabaseError> {
    let tables = Tables::read(vault, &Inventory::load(vault, resource).await?).await?;
    let state = tables.cut(&TablesPoint::Latest)?;
    let schema = schema::at_cut(vault, resource, &state, Timestamp::MAX).await?;
    let keys = schema.map(|schema| keys::foreign_keys(&schema.after_rows)).unwrap_or_default();
    let mut walk = Walk::new(of, &tables, state, &keys);
    tables.changes(vault, |change| walk.look(change)).await?;
    let (mut undo, is_of_connector, is_too_much) = walk.end()?;
    let refused = |reason: String| Err(DatabaseError::Refused { address: resource.to_string(), attempt: "undo what was done to", reason });
    if is_of_connector {
        let reason = "a connector told it, in a form that is not PostgreSQL's; restore the state before into a new database, and take from there \
                      what is missing";
        return refused(reason.to_owned());
    }
    if is_too_much {
        return refused(format!(
            "it is more than {ROWS_MAX} rows, or {} MiB of them; undo it table by table, or restore the state before into a new database",
            TEXT_BYTES_MAX >> 20
        ));
    }
    for emptied in tables.emptied().iter().filter(|emptied| of.is_undone_emptied(emptied)) {
        let Emptied { schema, table, at, transaction, .. } = emptied;
        undo.transactions.extend(transaction.iter().map(|number| (number.clone(), *at)));
        let conflict = format!("it was emptied at {at}; its rows come back by a restore of it, with --table, to a time before that");
        undo.conflicts.push(Conflict { table: format!("{schema}.{table}"), key: None, conflict });
    }
    if let Some(unknown) = of.transactions.iter().find(|number| !undo.transactions.contains_key(*number)) {
        return refused(format!(
            "the vault knows of nothing that transaction {unknown} changed there; `hindsight history {resource}` shows which did"
        ));
    }
    keys::sort(&mut undo.rows);
    Ok(undo)
}

impl Undo {
    /// The script that does it, in one transaction: all of it or nothing.
    pub fn script(&self, resource: &ResourceId) -> String {
        let numbers: Vec<&str> = self.transactions.keys().map(String::as_str).collect();
        let mut notes = vec![
            format!("undoes what was done to {resource} by transactions {}", numbers.join(", ")),
            format!("from its state at {}, transaction {}", self.state.at, self.state.transaction.as_deref().unwrap_or("-")),
        ];
        notes.extend(self.conflicts.iter().map(|conflict| format!("not undone: {conflict}")));
        script::script(&notes, self.rows.iter().map(|row| (row.sql.as_str(), about(&row.table, row.key.as_deref()), &row.companions[..])))
    }

    /// Undoes it in a database, in one transaction: all of it or nothing.
    ///
    /// # Errors
    /// What the server says; and a row that is not there as the vault knows it.
    pub async fn apply(&self, resource: &ResourceId, target: &Address) -> Result<(), DatabaseError> {
        let client = target.connect().await?;
        client.batch_execute(&self.script(resource)).await.map_err(|error| target.failed("undo it; nothing was done", &error))
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", about(&self.table, self.key.as_deref()), self.conflict)
    }
}

/// Which row, in words.
fn about(table: &str, key: Option<&RawValue>) -> String {
    key.map_or_else(|| table.to_owned(), |key| format!("{table} {key}"))
}
