//! What the server says of a table before it says anything of the table's rows.

use serde::Serialize;

use super::PgOutputError;
use super::wire::{Bytes, Value};
use crate::model::{Digest, json};

/// A table as it was when rows of it were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Relation {
    /// The table's number, which outlives its name.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its replica identity: `d` for the primary key, `n` for none, `f` for all columns, `i` for an index.
    pub identity: char,
    /// Its columns, in their order; generated ones are not among them.
    pub columns: Vec<Column>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The number of its type.
    pub type_oid: u32,
    /// The modifier of its type, such as the length of a `varchar`; -1 without one.
    pub modifier: i32,
    /// Whether it belongs to what identifies a row.
    pub key: bool,
}

impl Relation {
    pub(super) fn read(bytes: &mut Bytes<'_>) -> Result<Relation, PgOutputError> {
        let oid = bytes.u32()?;
        let (schema, table) = (bytes.text()?.to_owned(), bytes.text()?.to_owned());
        let identity = char::from(bytes.byte()?);
        let column = |bytes: &mut Bytes<'_>| {
            let key = bytes.byte()? & 1 == 1;
            Ok(Column { key, name: bytes.text()?.to_owned(), type_oid: bytes.u32()?, modifier: bytes.i32()? })
        };
        let columns = (0..bytes.count()?).map(|_| column(bytes)).collect::<Result<_, PgOutputError>>()?;
        // Whatever is in the catalogue's own schema has none in a message.
        let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
        Ok(Relation { oid, schema, table, identity, columns })
    }

    /// Takes these columns for what identifies a row, where the server sends all of them as its replica identity.
    #[must_use]
    pub fn with_key(mut self, names: &[String]) -> Relation {
        if self.identity == 'f' {
            self.columns.iter_mut().for_each(|column| column.key = names.contains(&column.name));
        }
        self
    }

    /// It as a document, and the name of that: the first digits of its SHA-256.
    pub fn shape(&self) -> (String, String) {
        let document = serde_json::to_string(self).expect("a relation is JSON");
        (Digest::of(document.as_bytes()).short(), document)
    }

    /// Whether a row can be told from another one.
    pub fn has_key(&self) -> bool {
        self.columns.iter().any(|column| column.key)
    }

    /// The values that identify a row, as a JSON array; none of a table whose rows have nothing that does.
    pub(super) fn identity(&self, row: &[Value<'_>]) -> Option<String> {
        if !self.has_key() {
            return None;
        }
        let values = self.columns.iter().zip(row).filter(|(column, _)| column.key).map(|(_, value)| written(*value));
        Some(format!("[{}]", values.collect::<Vec<_>>().join(",")))
    }

    /// A row as a JSON object of texts and nulls; what was not sent is null.
    pub(super) fn image(&self, row: &[Value<'_>]) -> String {
        let values: Vec<String> = row.iter().map(|value| written(*value)).collect();
        json::object(self.columns.iter().zip(&values).map(|(column, value)| (column.name.as_str(), value.as_str())))
    }

    /// The columns of a row that identify it, as a JSON object.
    pub(super) fn key_image(&self, row: &[Value<'_>]) -> String {
        let keys: Vec<(&str, String)> = self
            .columns
            .iter()
            .zip(row)
            .filter(|(column, _)| column.key)
            .map(|(column, value)| (column.name.as_str(), written(*value)))
            .collect();
        json::object(keys.iter().map(|(name, value)| (*name, value.as_str())))
    }

    /// The names of the columns that were not sent, as a JSON array; none where all were.
    pub(super) fn unsent(&self, row: &[Value<'_>]) -> Option<String> {
        let names: Vec<&str> =
            self.columns.iter().zip(row).filter(|(_, value)| **value == Value::Unsent).map(|(column, _)| column.name.as_str()).collect();
        (!names.is_empty()).then(|| json::array(names))
    }
}

fn written(value: Value<'_>) -> String {
    match value {
        Value::Null | Value::Unsent => "null".to_owned(),
        Value::Text(text) => serde_json::to_string(text).expect("a text is JSON"),
    }
}
