//! What happened in a database.

use std::collections::BTreeSet;

use anyhow::Result;
use database::history::{self, Counts, Found, HistoryOf, RowLine, TransactionLine, shown};
use database::restore::Chosen;
use pipeline::model::{ResourceId, Timestamp, json};
use serde::Serialize;
use serde_json::value::RawValue;

use super::History;
use crate::app::App;
use crate::exit::{Ended, Failure};
use crate::nearest::{list, nearest};
use crate::output::{Output, Table, escaped};
use crate::protected::Protected;

/// So much of a row is shown to people, in characters.
const SHOWN_MAX: usize = 240;
/// So many tables are named where another one was asked for.
const NAMED_MAX: usize = 10;

pub async fn run(
    app: &App,
    command: &History,
    (resource, tables): (ResourceId, Option<String>),
    (from, to): (Timestamp, Timestamp),
) -> Result<Ended> {
    if command.recursive {
        return Err(Failure::usage("--recursive is for buckets; of a database all tables are shown that are not left out").into());
    }
    let value = |text: &String| match text.split_once('=') {
        Some((column, value)) if !column.is_empty() => Ok((column.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("--row {text:?} names no column and value; write --row COLUMN=VALUE"))),
    };
    let of = HistoryOf {
        chosen: Chosen::new(tables.clone().into_iter().collect())?,
        values: command.database.row.iter().map(value).collect::<Result<_, _>>()?,
        transaction: command.database.transaction.clone(),
        from,
        to,
    };
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let mut output = Output::new(app.flags.json);
    let ended = if command.database.given().is_some() {
        let Found { found, tables: known } = history::rows(&opened.vault, &resource, &of).await?;
        let table = show(&mut output, &found, &["when", "transaction", "change", "table", "key", "row"], row)?;
        end(&mut output, table, &known, &of, tables.as_deref())?
    } else {
        let Found { found, tables: known } = history::transactions(&opened.vault, &resource, &of).await?;
        let table = show(&mut output, &found, &["when", "transaction", "lsn", "what"], transaction)?;
        end(&mut output, table, &known, &of, tables.as_deref())?
    };
    output.finish()?;
    Ok(ended)
}

/// Writes what was found as documents, or makes a table of it.
fn show<T: Serialize>(output: &mut Output, found: &[T], head: &[&str], cells: impl Fn(&T) -> Vec<String>) -> Result<Table> {
    let mut table = Table::new(head);
    for line in found {
        if output.json {
            output.document(line)?;
        } else {
            table.row(cells(line));
        }
    }
    Ok(table)
}

/// Writes the table, or says that there is nothing, and what there is instead.
fn end(output: &mut Output, table: Table, known: &BTreeSet<String>, of: &HistoryOf, asked: Option<&str>) -> Result<Ended> {
    let is_known = |asked: &str| Chosen::new(vec![asked.to_owned()]).is_ok_and(|chosen| known.iter().any(|name| is_of(&chosen, name)));
    if let Some(asked) = asked.filter(|asked| table.len() == 0 && !is_known(asked)) {
        let names = nearest(asked, known.iter().map(String::as_str));
        let there =
            if names.is_empty() { "; nor of any other".to_owned() } else { format!("; it does of {}", escaped(&list(&names, NAMED_MAX))) };
        return Err(Failure::refused(format!("the vault knows of no change of a table {}{there}", escaped(asked))).into());
    }
    if !output.json {
        match table.len() {
            0 if of.values.is_empty() && of.transaction.is_none() => output.line("nothing happened in that time")?,
            0 => output.line("the vault knows of no such change")?,
            _ => output.line(table)?,
        }
    }
    Ok(Ended::Whole)
}

fn is_of(chosen: &Chosen, name: &str) -> bool {
    name.split_once('.').is_some_and(|(schema, table)| chosen.has(schema, table))
}

fn number(transaction: Option<&str>) -> String {
    transaction.map_or_else(|| "-".to_owned(), escaped)
}

fn transaction(line: &TransactionLine) -> Vec<String> {
    let counts = line.tables.iter().map(|(table, counts)| format!("{}: {}", escaped(table), words(counts)));
    let emptied = line.emptied.iter().map(|table| format!("{}: emptied", escaped(table)));
    let markers = line.markers.iter().map(|name| format!("marker {}", escaped(name)));
    let what: Vec<String> = markers.chain(emptied).chain(counts).collect();
    let lsn = line.lsn.clone().unwrap_or_else(|| "-".to_owned());
    vec![line.at.to_string(), number(line.transaction.as_deref()), lsn, what.join("; ")]
}

fn words(counts: &Counts) -> String {
    let Counts { read, inserted, updated, deleted } = *counts;
    let all = [(read, "read"), (inserted, "inserted"), (updated, "updated"), (deleted, "deleted")];
    let words: Vec<String> = all.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    words.join(", ")
}

fn row(line: &RowLine) -> Vec<String> {
    let what = match (&line.before, &line.after) {
        (Some(before), Some(after)) => changed(before, after),
        (None, Some(image)) | (Some(image), None) => all_of(image),
        (None, None) => String::new(),
    };
    let unknown = match line.unknown.len() {
        0 => String::new(),
        _ => format!(" (nothing says what it has in {})", escaped(&line.unknown.join(", "))),
    };
    vec![
        line.at.to_string(),
        number(line.transaction.as_deref()),
        line.change.to_owned(),
        escaped(&line.table),
        line.key.as_deref().map_or_else(|| "-".to_owned(), key),
        what + &unknown,
    ]
}

/// The values of a key.
pub fn key(key: &RawValue) -> String {
    let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(key.get()) else { return escaped(key.get()) };
    let values: Vec<String> = values.into_iter().map(|value| escaped(&shown(value))).collect();
    values.join(", ")
}

/// A row.
pub fn all_of(image: &RawValue) -> String {
    let entries = json::entries(image.get()).unwrap_or_default();
    let columns: Vec<String> = entries.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(&shown(value)))).collect();
    shortened(columns.join(" "))
}

/// What is not the same in two rows.
pub fn changed(before: &RawValue, after: &RawValue) -> String {
    let (before, after) = (json::entries(before.get()).unwrap_or_default(), json::entries(after.get()).unwrap_or_default());
    let was = |name: &str| before.iter().find(|(known, _)| known == name).map(|(_, value)| value.get());
    let value = |text: Option<&RawValue>| text.map_or_else(|| "?".to_owned(), |value| escaped(&shown(value)));
    let find = |name: &str| before.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let columns: Vec<String> = after
        .iter()
        .filter(|(name, now)| was(name) != Some(now.get()))
        .map(|(name, now)| format!("{}={} -> {}", escaped(name), value(find(name)), value(Some(now))))
        .collect();
    shortened(columns.join(" "))
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
