//! What happened in a database: transaction by transaction, or row by row.
//!
//! ```text
//!  changes of rows, of each what it was before ─┬→ by transaction, counted ─→ which of them did it
//!  tables that were emptied                    ─┴→ those of a table, of some values, of one transaction ─→ what it did to which rows
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use pipeline::base::inputs::Inventory;
use pipeline::model::change::TupleRow;
use pipeline::model::{Position, ResourceId, Timestamp, json};
use pipeline::replay::tables::{Emptied, Happened, RowChange, Tables, lsn_text};
use pipeline::vault::Vault;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::DatabaseError;
use crate::restore::Chosen;

/// How many changes, or transactions, are sorted in memory, and how much text of them.
const CHANGES_MAX: usize = 1_000_000;
const TEXT_BYTES_MAX: usize = 256 << 20;

/// Which changes are asked for.
#[derive(Debug, Clone)]
pub struct HistoryOf {
    /// Those of these tables.
    pub chosen: Chosen,
    /// Those of rows that had, or got, each of these values in the column of that name.
    pub values: Vec<(String, String)>,
    /// Those of this transaction.
    pub transaction: Option<String>,
    /// Those that were committed then or later,
    pub from: Timestamp,
    /// and then or earlier.
    pub to: Timestamp,
}

/// What was found.
#[derive(Debug)]
pub struct Found<T> {
    /// In the order of commits.
    pub found: Vec<T>,
    /// The tables of which the vault knows any change at all.
    pub tables: BTreeSet<String>,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransactionLine {
    /// When it was committed.
    pub at: Timestamp,
    /// Its number in the database; none of a snapshot.
    pub transaction: Option<String>,
    /// Where its commit stands in the log of the server; none of a snapshot that began an incarnation.
    pub lsn: Option<String>,
    /// How many rows it changed, by table.
    pub tables: BTreeMap<String, Counts>,
    /// Tables that it emptied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub emptied: Vec<String>,
    /// Markers that it set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<String>,
}

/// How many rows were changed, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Rows that a snapshot read.
    pub read: u64,
    /// Rows that were put in.
    pub inserted: u64,
    /// Rows that were changed.
    pub updated: u64,
    /// Rows that were taken away.
    pub deleted: u64,
}

/// What happened to a row, or to all of a table.
#[derive(Debug, Serialize)]
pub struct RowLine {
    /// When it was committed.
    pub at: Timestamp,
    /// The transaction; none of a snapshot.
    pub transaction: Option<String>,
    /// Where its commit stands in the log of the server.
    pub lsn: Option<String>,
    /// What happened: `read`, `inserted`, `updated`, `deleted`, `emptied`.
    pub change: &'static str,
    /// The table, with its schema.
    pub table: String,
    /// The values of the key, in the order of its columns; none of a table without a key.
    pub key: Option<Box<RawValue>>,
    /// The row before.
    pub before: Option<Box<RawValue>>,
    /// The row after.
    pub after: Option<Box<RawValue>>,
    /// Columns of which no change says what they have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    #[serde(skip)]
    order: (Vec<u8>, bool),
}

impl HistoryOf {
    fn is_in_time(&self, at: Timestamp, transaction: Option<&str>) -> bool {
        self.from <= at && at <= self.to && self.transaction.as_deref().is_none_or(|wanted| transaction == Some(wanted))
    }

    fn is_wanted(&self, change: &RowChange<'_>) -> bool {
        let row = change.told;
        self.is_in_time(row.at, row.request)
            && self.chosen.has(row.schema, row.table)
            && (self.values.is_empty() || [change.before, change.after].into_iter().flatten().any(|image| has(image, &self.values)))
    }

    fn is_wanted_emptied(&self, emptied: &Emptied) -> bool {
        !emptied.read_again
            && self.is_in_time(emptied.at, emptied.transaction.as_deref())
            && self.chosen.has(&emptied.schema, &emptied.table)
    }
}

/// What transactions did, in the order of their commits.
///
/// # Errors
/// More of them than can be sorted; and as reading the vault.
pub async fn transactions(vault: &Vault, resource: &ResourceId, of: &HistoryOf) -> Result<Found<TransactionLine>, DatabaseError> {
    let tables = Tables::read(vault, &Inventory::load(vault, resource).await?).await?;
    let mut found: BTreeMap<Vec<u8>, TransactionLine> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let line = |at, transaction: Option<&str>, position: &[u8]| TransactionLine {
        at,
        transaction: transaction.map(str::to_owned),
        lsn: lsn(position),
        tables: BTreeMap::new(),
        emptied: Vec::new(),
        markers: Vec::new(),
    };
    tables
        .changes(vault, |change| {
            let row = change.told;
            see(&mut names, row);
            if found.len() > CHANGES_MAX || !of.is_wanted(change) {
                return;
            }
            let transaction = found.entry(commit(row.position)).or_insert_with(|| line(row.at, row.request, row.position));
            let counts = transaction.tables.entry(name(row)).or_default();
            let count = match change.happened {
                Happened::Read => &mut counts.read,
                Happened::Inserted => &mut counts.inserted,
                Happened::Updated => &mut counts.updated,
                Happened::Deleted => &mut counts.deleted,
            };
            *count += 1;
        })
        .await?;
    for emptied in tables.emptied().iter().filter(|emptied| of.values.is_empty() && of.is_wanted_emptied(emptied)) {
        let transaction =
            found.entry(commit(&emptied.position)).or_insert_with(|| line(emptied.at, emptied.transaction.as_deref(), &emptied.position));
        transaction.emptied.push(format!("{}.{}", emptied.schema, emptied.table));
    }
    let is_of_all = of.values.is_empty() && of.chosen.is_all();
    for marker in tables.markers().iter().filter(|marker| is_of_all && of.is_in_time(marker.at, marker.transaction.as_deref())) {
        let transaction =
            found.entry(commit(&marker.position)).or_insert_with(|| line(marker.at, marker.transaction.as_deref(), &marker.position));
        transaction.markers.push(marker.name.clone());
    }
    require_not_too_much(found.len(), 0)?;
    Ok(Found { found: found.into_values().collect(), tables: names })
}

/// What happened to rows, in the order of commits.
///
/// # Errors
/// More of it than can be sorted; and as reading the vault.
pub async fn rows(vault: &Vault, resource: &ResourceId, of: &HistoryOf) -> Result<Found<RowLine>, DatabaseError> {
    let tables = Tables::read(vault, &Inventory::load(vault, resource).await?).await?;
    let (mut found, mut bytes, mut names) = (Vec::new(), 0, BTreeSet::new());
    tables
        .changes(vault, |change| {
            see(&mut names, change.told);
            if found.len() <= CHANGES_MAX && bytes <= TEXT_BYTES_MAX && of.is_wanted(change) {
                bytes += change.before.map_or(0, str::len) + change.after.map_or(0, str::len);
                found.push(line_of(change));
            }
        })
        .await?;
    // Of a row of which nothing is known but its values nobody can say whether it was there.
    let emptied = tables.emptied().iter().filter(|emptied| of.is_wanted_emptied(emptied));
    found.extend(emptied.map(|emptied| RowLine {
        at: emptied.at,
        transaction: emptied.transaction.clone(),
        lsn: lsn(&emptied.position),
        change: "emptied",
        table: format!("{}.{}", emptied.schema, emptied.table),
        key: None,
        before: None,
        after: None,
        unknown: Vec::new(),
        order: (emptied.position.clone(), false),
    }));
    require_not_too_much(found.len(), bytes)?;
    // A row that has another key from then on is taken away before it is put in.
    found.sort_by(|a, b| a.order.cmp(&b.order));
    Ok(Found { found, tables: names })
}

fn require_not_too_much(changes: usize, bytes: usize) -> Result<(), DatabaseError> {
    if changes > CHANGES_MAX || bytes > TEXT_BYTES_MAX {
        return Err(DatabaseError::TooMany { changes_max: CHANGES_MAX, mib_max: TEXT_BYTES_MAX >> 20 });
    }
    Ok(())
}

fn line_of(change: &RowChange<'_>) -> RowLine {
    let row = change.told;
    RowLine {
        at: row.at,
        transaction: row.request.map(str::to_owned),
        lsn: lsn(row.position),
        change: match change.happened {
            Happened::Read => "read",
            Happened::Inserted => "inserted",
            Happened::Updated => "updated",
            Happened::Deleted => "deleted",
        },
        table: name(row),
        key: row.identity.and_then(raw),
        before: change.before.and_then(raw),
        after: change.after.and_then(raw),
        unknown: change.unknown.to_vec(),
        order: (row.position.to_vec(), change.happened != Happened::Deleted),
    }
}

fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

fn name(row: &TupleRow<'_>) -> String {
    format!("{}.{}", row.schema, row.table)
}

fn see(names: &mut BTreeSet<String>, row: &TupleRow<'_>) {
    let name = name(row);
    if !names.contains(&name) {
        names.insert(name);
    }
}

/// What the positions of all changes of a transaction begin with, and of no other.
fn commit(position: &[u8]) -> Vec<u8> {
    position[..position.len().saturating_sub(size_of::<u64>())].to_vec()
}

/// The place of a commit in the log of the server, as PostgreSQL writes it.
fn lsn(position: &[u8]) -> Option<String> {
    let (commit, _) = Position::commit_of(position).filter(|(commit, _)| *commit > 0)?;
    Some(lsn_text(commit))
}

/// Whether an image has these values.
fn has(image: &str, values: &[(String, String)]) -> bool {
    let Ok(entries) = json::entries(image) else { return false };
    values.iter().all(|(column, wanted)| entries.iter().any(|(name, value)| name == column && *shown(value) == **wanted))
}

/// A value as people write it: a text without its quotes, and whatever else as it is in JSON.
pub fn shown(value: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => Cow::Owned(text),
        Err(_) if value.get() == "null" => Cow::Borrowed("NULL"),
        Err(_) => Cow::Borrowed(value.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_log_is_written_as_the_server_writes_it() {
        let position = |commit| Position::committed(3, commit, 9);
        assert_eq!(lsn(position(0x0000_0001_016B_3748).as_bytes()).as_deref(), Some("1/16B3748"));
        assert_eq!(lsn(Position::snapshot(3, 9).as_bytes()), None);
        assert_eq!(commit(position(7).as_bytes()), commit(Position::committed(3, 7, 10).as_bytes()));
        assert_ne!(commit(position(7).as_bytes()), commit(position(8).as_bytes()));
    }

    #[test]
    fn values_are_compared_as_people_write_them() {
        let image = r#"{"id":"7","name":null,"much":1.50}"#;
        let check = |values: &[(&str, &str)], expected: bool| {
            let values: Vec<(String, String)> = values.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(has(image, &values), expected, "{values:?}");
        };
        check(&[("id", "7")], true);
        check(&[("id", "7"), ("name", "NULL")], true);
        check(&[("much", "1.50")], true);
        check(&[("id", "8")], false);
        check(&[("other", "7")], false);
    }
}
