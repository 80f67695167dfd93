//! The way through all changes of a database, key by key, to what is to be done to each row.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pipeline::model::json;
use pipeline::replay::tables::{Happened, RowChange, Tables, TablesCut};
use pipeline::source::debezium;
use pipeline::vault::VaultError;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::emptyings::{Emptyings, ReadAgain};
use super::keys::{self, ForeignKey};
use super::script::{self, Place};
use super::weigh::{By, Outcome, Values, Weighed};
use super::{Conflict, ROWS_MAX, TEXT_BYTES_MAX, Undo, UndoOf, UndoRow};

/// The row that is being gone through.
struct Row {
    schema: String,
    table: String,
    identity: String,
    weighed: Weighed,
    /// Where its last change stands, and its last that is undone.
    position: Vec<u8>,
    undone: Vec<u8>,
    shape: Option<String>,
}

/// The way through all changes.
pub(super) struct Walk<'a> {
    of: &'a UndoOf,
    tables: &'a Tables,
    emptyings: Emptyings<'a>,
    keys: &'a [ForeignKey],
    undo: Undo,
    row: Option<Row>,
    /// The columns of keys, by the names of shapes.
    shapes: BTreeMap<String, Vec<String>>,
    bytes: usize,
    is_of_connector: bool,
    failed: Option<VaultError>,
}

/// What a document says of the columns of a table.
#[derive(Debug, Deserialize)]
struct Shape {
    columns: Vec<ShapeColumn>,
}

#[derive(Debug, Deserialize)]
struct ShapeColumn {
    name: String,
    key: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(of: &'a UndoOf, tables: &'a Tables, state: TablesCut, keys: &'a [ForeignKey]) -> Walk<'a> {
        let undo = Undo { state, transactions: BTreeMap::new(), rows: Vec::new(), conflicts: Vec::new(), nothing: 0 };
        let emptyings = Emptyings::of(tables.emptied());
        Walk { of, tables, emptyings, keys, undo, row: None, shapes: BTreeMap::new(), bytes: 0, is_of_connector: false, failed: None }
    }

    /// What came of it: how to undo it, whether a connector told any of it, and whether it is too much.
    pub(super) fn end(mut self) -> Result<(Undo, bool, bool), VaultError> {
        self.end_row();
        let is_too_much = self.undo.rows.len() > ROWS_MAX || self.bytes > TEXT_BYTES_MAX;
        match self.failed {
            Some(error) => Err(error),
            None => Ok((self.undo, self.is_of_connector, is_too_much)),
        }
    }

    /// The next change.
    pub(super) fn look(&mut self, change: &RowChange<'_>) {
        if self.failed.is_none() {
            self.failed = self.take(change).err();
        }
    }

    fn take(&mut self, change: &RowChange<'_>) -> Result<(), VaultError> {
        let told = change.told;
        let is_undone = change.happened != Happened::Read && self.of.is_undone(told.schema, told.table, told.at, told.request);
        if is_undone {
            self.undo.transactions.extend(told.request.map(|number| (number.to_owned(), told.at)));
            self.is_of_connector |= told.stream.starts_with(debezium::STREAM);
        }
        let Some(identity) = told.identity else {
            self.end_row();
            return if is_undone && !self.is_of_connector { self.take_without_key(change) } else { Ok(()) };
        };
        if told.stream.starts_with(debezium::STREAM) {
            return Ok(());
        }
        let is_same = |row: &Row| row.schema == told.schema && row.table == told.table && row.identity == identity;
        if !self.row.as_ref().is_some_and(is_same) {
            self.end_row();
            self.row = Some(Row {
                schema: told.schema.to_owned(),
                table: told.table.to_owned(),
                identity: identity.to_owned(),
                weighed: Weighed::default(),
                position: Vec::new(),
                undone: Vec::new(),
                shape: None,
            });
        }
        let Some(row) = &mut self.row else { return Ok(()) };
        if !row.position.is_empty() {
            match self.emptyings.between(told.schema, told.table, &row.position, Some(told.position)) {
                None => {}
                // It is as it was, but for what happened meanwhile.
                Some(ReadAgain(true)) if change.happened == Happened::Read => {}
                Some(_) => row.weighed.gone(),
            }
        }
        let who = told.request.map_or_else(|| "what was read again".to_owned(), |number| format!("transaction {number}"));
        let by = if is_undone { By::Undone } else { By::Others(&who) };
        match change.after {
            Some(after) => row.weighed.put(values(after)?, change.unknown, by),
            None => row.weighed.delete(by),
        }
        row.position = told.position.to_vec();
        if is_undone {
            row.undone = told.position.to_vec();
        }
        row.shape = told.shape.map(str::to_owned).or(row.shape.take());
        Ok(())
    }

    /// A change of a table without a key: equal rows are as many as were put in.
    fn take_without_key(&mut self, change: &RowChange<'_>) -> Result<(), VaultError> {
        let told = change.told;
        let (outcome, what) = match (change.after, change.before) {
            (Some(after), _) => (Outcome::Delete(values(after)?), "delete"),
            (None, Some(before)) => (Outcome::Insert(values(before)?), "insert"),
            (None, None) => return Ok(()),
        };
        if let Some(ReadAgain(false)) = self.emptyings.between(told.schema, told.table, told.position, None) {
            self.undo.nothing += 1;
            return Ok(());
        }
        let place = Place { schema: told.schema, table: told.table, key: &[] };
        if let Some(sql) = script::statement(place, &outcome) {
            self.add(UndoRow {
                undo: what,
                table: format!("{}.{}", told.schema, told.table),
                key: None,
                sql,
                order: told.position.to_vec(),
                links: keys::links(self.keys, (told.schema, told.table), &Values::new(), &outcome),
                companions: keys::companions(self.keys, (told.schema, told.table), &outcome),
            });
        }
        Ok(())
    }

    /// All that happened to a row is known.
    fn end_row(&mut self) {
        let Some(mut row) = self.row.take() else { return };
        if self.emptyings.between(&row.schema, &row.table, &row.position, None).is_some() {
            row.weighed.gone();
        }
        let outcome = row.weighed.outcome();
        let (table, key) = (format!("{}.{}", row.schema, row.table), RawValue::from_string(row.identity.clone()).ok());
        let what = match &outcome {
            Outcome::Untouched => return,
            Outcome::Nothing => {
                self.undo.nothing += 1;
                return;
            }
            Outcome::Conflict(conflict) => {
                self.bytes += conflict.len();
                self.undo.conflicts.push(Conflict { table, key, conflict: conflict.clone() });
                return;
            }
            Outcome::Insert(_) => "insert",
            Outcome::Update(_) => "update",
            Outcome::Delete(_) => "delete",
        };
        let columns = self.key_columns(row.shape.as_deref());
        let identified: Option<Vec<Option<String>>> = serde_json::from_str(&row.identity).ok();
        let key_values: Values = match identified.filter(|values| !values.is_empty() && values.len() == columns.len()) {
            Some(values) => columns.into_iter().zip(values).collect(),
            None => {
                let conflict = "the vault does not say which columns its key has".to_owned();
                self.undo.conflicts.push(Conflict { table, key, conflict });
                return;
            }
        };
        let place = Place { schema: &row.schema, table: &row.table, key: &key_values };
        if let Some(sql) = script::statement(place, &outcome) {
            let name = (row.schema.as_str(), row.table.as_str());
            let links = keys::links(self.keys, name, &key_values, &outcome);
            let companions = keys::companions(self.keys, name, &outcome);
            self.add(UndoRow { undo: what, table, key, sql, order: row.undone, links, companions });
        }
    }

    fn add(&mut self, row: UndoRow) {
        self.bytes += row.sql.len();
        // More of them are refused, and need not be held for that.
        if self.undo.rows.len() <= ROWS_MAX && self.bytes <= TEXT_BYTES_MAX {
            self.undo.rows.push(row);
        }
    }

    fn key_columns(&mut self, shape: Option<&str>) -> Vec<String> {
        let Some(name) = shape else { return Vec::new() };
        if let Some(known) = self.shapes.get(name) {
            return known.clone();
        }
        let shape: Option<Shape> = self.tables.shape(name).and_then(|document| serde_json::from_str(document).ok());
        let columns: Vec<String> =
            shape.into_iter().flat_map(|shape| shape.columns).filter(|column| column.key).map(|column| column.name).collect();
        self.shapes.insert(name.to_owned(), columns.clone());
        columns
    }
}

fn values(image: &str) -> Result<Values, VaultError> {
    let texts = json::texts(image).map_err(|error| VaultError::damaged("a row of the log", error))?;
    Ok(texts.into_iter().map(|(column, value)| (column.into_owned(), value.map(Cow::into_owned))).collect())
}
