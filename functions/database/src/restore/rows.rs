//! The rows of all tables, out of the fold and into the target.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use fail::fail_point;
use futures::{SinkExt, StreamExt, TryStreamExt};
use pipeline::fold::tuple::TupleJoin;
use pipeline::fold::{Fold, Uncertain};
use pipeline::model::change::{ChangeBatch, TupleRow};
use pipeline::model::{ResourceKind, json};
use pipeline::postgres::copy;
use pipeline::postgres::name::{dotted, qualified, with_columns};
use pipeline::replay::tables::{Tables, TablesCut};
use pipeline::source::debezium::{self, value};
use pipeline::vault::{Vault, VaultError};
use tokio_postgres::Client;

use super::chosen::Chosen;
use super::progress::Progress;
use super::report::{DatabaseReport, Rows};
use super::{Column, Destination, TableName, refused};
use crate::{Address, DatabaseError};

/// Bytes that are sent at once.
const SEND_BYTES: usize = 256 << 10;

/// Hash buckets that are written at the same time, each by a session of its own.
const WRITERS: usize = 2;

/// Writes the rows of all tables, each hash bucket in a transaction of its own; those that are there are counted.
pub(super) async fn write(
    vault: &Vault,
    tables: &Tables,
    cut: &TablesCut,
    (client, destinations, chosen): (&Client, &HashMap<TableName, Destination>, &Chosen),
    progress: &Progress<'_>,
    report: &mut DatabaseReport,
) -> Result<(), DatabaseError> {
    let target = progress.target();
    let mut others = Vec::new();
    for _ in 1..WRITERS {
        others.push(target.connect().await?);
    }
    let writers: Vec<Into<'_>> =
        std::iter::once(client).chain(&others).map(|client| Into { client, target, destinations, chosen, progress }).collect();
    for pass in tables.passes() {
        let loose = tables.load(vault, pass.clone()).await?;
        let (done, left): (Vec<u32>, Vec<u32>) =
            tables.occupied(&loose, pass).into_iter().partition(|bucket| progress.done(*bucket).is_some());
        done.iter().filter_map(|bucket| progress.done(*bucket)).for_each(|rows| report.rows.add(rows));
        // The next begins when the first of those under way has ended: its writer is free.
        let mut written = futures::stream::iter(left.into_iter().zip(writers.iter().cycle()))
            .map(|(bucket, writer)| writer.write(bucket, tables.rows(vault, &loose, bucket, cut)))
            .buffered(WRITERS);
        while let Some(rows) = written.try_next().await? {
            report.rows.add(&rows);
        }
    }
    Ok(())
}

/// Counts the rows that would be written.
pub(super) async fn count(
    vault: &Vault,
    tables: &Tables,
    cut: &TablesCut,
    chosen: &Chosen,
    report: &mut DatabaseReport,
) -> Result<(), DatabaseError> {
    for pass in tables.passes() {
        let loose = tables.load(vault, pass.clone()).await?;
        for bucket in tables.occupied(&loose, pass) {
            let mut fold = tables.rows(vault, &loose, bucket, cut);
            while let Some(folded) = fold.next().await? {
                report.rows.doubt(&of_chosen(folded.uncertain, chosen));
                let batch = ChangeBatch::of(ResourceKind::Database, folded.rows).map_err(damaged)?;
                let columns = batch.tuple_columns();
                columns.iter().filter(|row| chosen.wants(row)).for_each(|row| report.rows.count(name(&row), 1));
            }
        }
    }
    Ok(())
}

/// Doubts about tables that are wanted.
pub(crate) fn of_chosen(doubts: Vec<Uncertain>, chosen: &Chosen) -> Vec<Uncertain> {
    let is_chosen = |doubt: &Uncertain| doubt.object.split_once('.').is_none_or(|(schema, table)| chosen.has(schema, table));
    doubts.into_iter().filter(is_chosen).collect()
}

fn damaged(error: impl std::fmt::Display) -> VaultError {
    VaultError::damaged("the rows of a database", error)
}

fn is_same_table(a: &TupleRow<'_>, b: &TupleRow<'_>) -> bool {
    (a.schema, a.table) == (b.schema, b.table)
}

fn name(row: &TupleRow<'_>) -> String {
    dotted(row.schema, row.table)
}

/// Where rows go, by one session.
struct Into<'a> {
    client: &'a Client,
    target: &'a Address,
    destinations: &'a HashMap<TableName, Destination>,
    chosen: &'a Chosen,
    progress: &'a Progress<'a>,
}

impl Into<'_> {
    /// Writes the rows of a hash bucket, in a transaction.
    async fn write(&self, bucket: u32, mut fold: Fold<'static, TupleJoin, VaultError>) -> Result<Rows, DatabaseError> {
        self.progress.begin_bucket(self.client).await?;
        let mut written = Rows::default();
        while let Some(folded) = fold.next().await? {
            written.doubt(&of_chosen(folded.uncertain, self.chosen));
            let batch = ChangeBatch::of(ResourceKind::Database, folded.rows).map_err(damaged)?;
            let columns = batch.tuple_columns();
            let all: Vec<TupleRow<'_>> = columns.iter().filter(|row| self.chosen.wants(row)).collect();
            for of_table in all.chunk_by(is_same_table) {
                self.copy(of_table, &mut written).await?;
                written.count(name(&of_table[0]), of_table.len() as u64);
            }
        }
        fail_point!("database::bucket-written");
        self.progress.end_bucket(self.client, bucket, &written).await?;
        fail_point!("database::bucket-done");
        Ok(written)
    }

    /// Writes rows of one table.
    async fn copy(&self, rows: &[TupleRow<'_>], report: &mut Rows) -> Result<(), DatabaseError> {
        let (schema, table) = (rows[0].schema, rows[0].table);
        let name = qualified(schema, table);
        let refuse = |reason: String| refused(self.target, reason);
        let known = self.destinations.get(&(schema.to_owned(), table.to_owned()));
        let known = known.ok_or_else(|| refuse(format!("the schema in the vault has no table {name}, and there are rows of it")))?;
        let copy = format!("COPY {} FROM STDIN", with_columns(&name, known.columns.iter().map(|column| column.name.as_str())));
        let attempt = format!("write table {name}");
        let failed = |error| self.target.failed(&attempt, &error);
        let sink = self.client.copy_in::<_, Bytes>(&copy).await.map_err(failed)?;
        let mut sink = std::pin::pin!(sink);
        let mut lines = Vec::new();
        for row in rows {
            let is_by_connector = row.stream.starts_with(debezium::STREAM);
            let written = if is_by_connector {
                write_converted(&mut lines, known, row, &mut |column, doubt| report.doubt_column(schema, table, column, doubt))
            } else {
                write_line(&mut lines, &known.columns, row)
            };
            written.map_err(|reason| refuse(format!("a row of table {name}: {reason}")))?;
            if lines.len() >= SEND_BYTES {
                sink.send(std::mem::take(&mut lines).into()).await.map_err(failed)?;
            }
        }
        sink.send(lines.into()).await.map_err(failed)?;
        sink.as_mut().finish().await.map_err(failed)?;
        Ok(())
    }
}

/// The values of the columns among those of an image, each with its name. As they are written they stand in the order of the columns, as far
/// as there are some.
fn in_order<'a, V>(columns: &'a [Column], values: &'a [(Cow<'_, str>, V)]) -> Result<Vec<Option<&'a V>>, String> {
    let find = |(index, column): (usize, &Column)| {
        let next = values.get(index).filter(|(name, _)| *name == column.name);
        next.or_else(|| values.iter().find(|(name, _)| *name == column.name)).map(|(_, value)| value)
    };
    let found: Vec<Option<&V>> = columns.iter().enumerate().map(find).collect();
    if found.iter().flatten().count() < values.len() {
        let unknown = values.iter().find(|(name, _)| !columns.iter().any(|column| column.name == *name)).map(|(name, _)| &**name);
        return Err(format!("the schema in the vault does not know its column {}", unknown.unwrap_or("that comes twice")));
    }
    Ok(found)
}

/// Appends a row as a line of COPY.
fn write_line(out: &mut Vec<u8>, columns: &[Column], row: &TupleRow<'_>) -> Result<(), String> {
    let values = json::texts(row.image.ok_or("it has no image")?).map_err(|error| error.to_string())?;
    for (index, value) in in_order(columns, &values)?.into_iter().enumerate() {
        if index > 0 {
            out.push(b'\t');
        }
        copy::write_field(out, value.and_then(|value| value.as_deref()));
    }
    out.push(b'\n');
    Ok(())
}

/// The same of a row as a connector writes it. What it has lost of a column is told.
fn write_converted(
    out: &mut Vec<u8>,
    Destination { columns, generated }: &Destination,
    row: &TupleRow<'_>,
    tell: &mut dyn FnMut(&str, &'static str),
) -> Result<(), String> {
    let mut values = json::entries(row.image.ok_or("it has no image")?).map_err(|error| error.to_string())?;
    // A snapshot has them.
    if !generated.is_empty() {
        values.retain(|(name, _)| !generated.iter().any(|generated| generated == name));
    }
    for (index, (column, value)) in columns.iter().zip(in_order(columns, &values)?).enumerate() {
        if index > 0 {
            out.push(b'\t');
        }
        let Some(value) = value else {
            if column.older.is_none() && column.has_default {
                tell(&column.name, "rows that are older than the column have NULL in it");
            }
            copy::write_field(out, column.older.as_deref());
            continue;
        };
        let written =
            value::text(value.get(), &column.kind, row.via == "scan").map_err(|error| format!("column {}: {error}", column.name))?;
        if let Some(doubt) = written.as_ref().and_then(|written| written.doubt) {
            tell(&column.name, doubt);
        }
        copy::write_field(out, written.as_ref().map(|written| &*written.text));
    }
    out.push(b'\n');
    Ok(())
}
