//! The tables of a database at a cut, without restoring it: how many rows they have, and the rows of one.

use std::collections::BTreeMap;

use pipeline::fold::Uncertain;
use pipeline::model::change::{ChangeBatch, TupleRow};
use pipeline::model::{ResourceId, ResourceKind, json};
use pipeline::replay::tables::{Tables, TablesCut};
use pipeline::source::debezium;
use pipeline::vault::{Vault, VaultError};

use crate::DatabaseError;
use crate::restore::{Chosen, of_chosen};
use crate::schema;

/// Hands over every row of the tables that are wanted, those of a table by key within each hash bucket. Returns of which nobody knows all.
///
/// # Errors
/// No table of a name; as reading the vault; and what `each` says.
pub async fn rows<E: From<DatabaseError>>(
    vault: &Vault,
    resource: &ResourceId,
    (tables, cut): (&Tables, &TablesCut),
    chosen: &Chosen,
    mut each: impl FnMut(&TupleRow<'_>) -> Result<(), E>,
) -> Result<Vec<Uncertain>, E> {
    let mut doubts = Vec::new();
    let failed = |error: VaultError| E::from(DatabaseError::from(error));
    let mut chosen = chosen.clone();
    if let Some(schema) = schema::at_cut(vault, resource, cut, cut.at).await.map_err(failed)? {
        if let Some((unknown, known)) = chosen.unknown(&schema) {
            let (table, known) = (unknown.to_owned(), known.into_iter().collect());
            return Err(DatabaseError::NoTable { resource: resource.clone(), table, known }.into());
        }
        chosen = chosen.among(&schema, &schema::earlier(vault, resource, &schema).await.map_err(failed)?);
    }
    for pass in tables.passes() {
        let loose = tables.load(vault, pass.clone()).await.map_err(failed)?;
        for bucket in tables.occupied(&loose, pass) {
            let mut fold = tables.rows(vault, &loose, bucket, cut);
            while let Some(folded) = fold.next().await.map_err(failed)? {
                doubts.extend(of_chosen(folded.uncertain, &chosen));
                let batch = ChangeBatch::of(ResourceKind::Database, folded.rows)
                    .map_err(|error| failed(VaultError::damaged("the rows of a database", error)))?;
                batch.tuple_columns().iter().filter(|row| chosen.wants(row)).try_for_each(|row| each(&row))?;
            }
        }
    }
    Ok(doubts)
}

/// How many rows each table has at a cut; those without any are not among them.
///
/// # Errors
/// As [`rows`].
pub async fn counts(
    vault: &Vault,
    resource: &ResourceId,
    at: (&Tables, &TablesCut),
    chosen: &Chosen,
) -> Result<(BTreeMap<String, u64>, Vec<Uncertain>), DatabaseError> {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut last: Option<((String, String), u64)> = None;
    let doubts = rows(vault, resource, at, chosen, |row| {
        match &mut last {
            Some(((schema, table), count)) if schema == row.schema && table == row.table => *count += 1,
            _ => {
                let counted = last.replace(((row.schema.to_owned(), row.table.to_owned()), 1));
                counted.into_iter().for_each(|(table, count)| *counts.entry(table).or_default() += count);
            }
        }
        Ok::<(), DatabaseError>(())
    })
    .await?;
    last.into_iter().for_each(|(table, count)| *counts.entry(table).or_default() += count);
    Ok((counts.into_iter().map(|((schema, table), count)| (format!("{schema}.{table}"), count)).collect(), doubts))
}

/// A table as CSV, as `COPY ... WITH (FORMAT csv, HEADER)` of PostgreSQL reads it: NULL is nothing, and an empty text `""`.
#[derive(Debug, Default)]
pub struct Csv {
    table: Option<(String, String)>,
    columns: Vec<String>,
}

impl Csv {
    /// Appends a row, behind the names of the columns where it is the first.
    ///
    /// # Errors
    /// Why it cannot be: it is of another table, or has other columns, or is written as a connector does.
    pub fn row(&mut self, out: &mut Vec<u8>, row: &TupleRow<'_>) -> Result<(), String> {
        if row.stream.starts_with(debezium::STREAM) {
            return Err(
                "a connector told its values, in a form that is not PostgreSQL's: write --json to get them as they were told".to_owned()
            );
        }
        let values = json::texts(row.image.unwrap_or("{}")).map_err(|error| error.to_string())?;
        match &self.table {
            None => {
                self.table = Some((row.schema.to_owned(), row.table.to_owned()));
                self.columns = values.iter().map(|(name, _)| name.clone().into_owned()).collect();
                line(out, self.columns.iter().map(|name| Some(name.as_str())));
            }
            Some((schema, table)) if schema == row.schema && table == row.table => {}
            Some((schema, table)) => {
                return Err(format!("there is more than one such table: {schema}.{table}, {}.{}; name one", row.schema, row.table));
            }
        }
        if values.len() != self.columns.len() {
            return Err("its rows have not all the same columns: write --json".to_owned());
        }
        let of = |(index, name): (usize, &String)| {
            let there = values.get(index).filter(|(known, _)| known == name);
            there.or_else(|| values.iter().find(|(known, _)| known == name)).map(|(_, value)| value.as_deref())
        };
        let found: Option<Vec<Option<&str>>> = self.columns.iter().enumerate().map(of).collect();
        line(out, found.ok_or("its rows have not all the same columns: write --json")?.into_iter());
        Ok(())
    }
}

fn line<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = Option<&'a str>>) {
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let Some(value) = value else { continue };
        // A line of nothing but `\.` ends the input of older programs.
        let is_plain = !value.is_empty() && value != "\\." && !value.contains(['"', ',', '\n', '\r']) && value.trim() == value;
        match is_plain {
            true => out.extend_from_slice(value.as_bytes()),
            false => {
                out.push(b'"');
                out.extend_from_slice(value.replace('"', "\"\"").as_bytes());
                out.push(b'"');
            }
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_an_empty_text_are_told_apart() {
        let mut out = Vec::new();
        line(&mut out, [Some("a"), None, Some(""), Some("x,\"y\"\n"), Some(" z"), Some("\\.")].into_iter());
        assert_eq!(String::from_utf8(out).unwrap(), "a,,\"\",\"x,\"\"y\"\"\n\",\" z\",\"\\.\"\n");
    }
}
