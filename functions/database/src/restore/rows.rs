//! The rows of all tables, out of the fold and into the target.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use fail::fail_point;
use futures::SinkExt;
use pipeline::model::change::{ChangeBatch, TupleRow};
use pipeline::model::{ResourceKind, json};
use pipeline::postgres::copy;
use pipeline::postgres::name::{qualified, with_columns};
use pipeline::replay::tables::{Tables, TablesCut};
use pipeline::vault::{Vault, VaultError};
use tokio_postgres::Client;

use super::progress::Progress;
use super::report::DatabaseReport;
use super::{Destination, TableName, destinations, refused};
use crate::{Address, DatabaseError};

/// Bytes that are sent at once.
const SEND_BYTES: usize = 256 << 10;

/// Writes the rows of all tables, each hash bucket in a transaction of its own; those that are there are counted.
pub(super) async fn write(
    vault: &Vault,
    tables: &Tables,
    cut: &TablesCut,
    client: &Client,
    progress: &Progress<'_>,
    report: &mut DatabaseReport,
) -> Result<(), DatabaseError> {
    let target = progress.target();
    let into = Into { client, target, destinations: destinations(client, target).await? };
    for pass in tables.passes() {
        let loose = tables.load(vault, pass.clone()).await?;
        for bucket in tables.occupied(&loose, pass) {
            if let Some(counts) = progress.done(bucket) {
                report.add(counts);
                continue;
            }
            progress.begin_bucket().await?;
            let mut counts = BTreeMap::new();
            let mut fold = tables.rows(vault, &loose, bucket, cut);
            while let Some(folded) = fold.next().await? {
                report.doubt(&folded.uncertain);
                let batch = ChangeBatch::of(ResourceKind::Database, folded.rows).map_err(damaged)?;
                let columns = batch.tuple_columns();
                let all: Vec<TupleRow<'_>> = columns.iter().collect();
                for of_table in all.chunk_by(is_same_table) {
                    into.copy(of_table).await?;
                    *counts.entry(name(&of_table[0])).or_default() += of_table.len() as u64;
                }
            }
            fail_point!("database::bucket-written");
            progress.end_bucket(bucket, &counts).await?;
            fail_point!("database::bucket-done");
            report.add(&counts);
        }
    }
    Ok(())
}

/// Counts the rows that would be written.
pub(super) async fn count(vault: &Vault, tables: &Tables, cut: &TablesCut, report: &mut DatabaseReport) -> Result<(), DatabaseError> {
    for pass in tables.passes() {
        let loose = tables.load(vault, pass.clone()).await?;
        for bucket in tables.occupied(&loose, pass) {
            let mut fold = tables.rows(vault, &loose, bucket, cut);
            while let Some(folded) = fold.next().await? {
                report.doubt(&folded.uncertain);
                let batch = ChangeBatch::of(ResourceKind::Database, folded.rows).map_err(damaged)?;
                let mut counts: BTreeMap<String, u64> = BTreeMap::new();
                for row in batch.tuple_columns().iter() {
                    *counts.entry(name(&row)).or_default() += 1;
                }
                report.add(&counts);
            }
        }
    }
    Ok(())
}

fn damaged(error: impl std::fmt::Display) -> VaultError {
    VaultError::damaged("the rows of a database", error)
}

fn is_same_table(a: &TupleRow<'_>, b: &TupleRow<'_>) -> bool {
    (a.schema, a.table) == (b.schema, b.table)
}

fn name(row: &TupleRow<'_>) -> String {
    format!("{}.{}", row.schema, row.table)
}

/// Where rows go.
struct Into<'a> {
    client: &'a Client,
    target: &'a Address,
    destinations: HashMap<TableName, Destination>,
}

impl Into<'_> {
    /// Writes rows of one table.
    async fn copy(&self, rows: &[TupleRow<'_>]) -> Result<(), DatabaseError> {
        let (schema, table) = (rows[0].schema, rows[0].table);
        let name = qualified(schema, table);
        let refuse = |reason: String| refused(self.target, reason);
        let known = self.destinations.get(&(schema.to_owned(), table.to_owned()));
        let known = known.ok_or_else(|| refuse(format!("the schema in the vault has no table {name}, and there are rows of it")))?;
        let copy = format!("COPY {} FROM STDIN", with_columns(&name, known.columns.iter().map(String::as_str)));
        let attempt = format!("write table {name}");
        let failed = |error| self.target.failed(&attempt, &error);
        let sink = self.client.copy_in::<_, Bytes>(&copy).await.map_err(failed)?;
        let mut sink = std::pin::pin!(sink);
        let mut lines = Vec::new();
        for row in rows {
            write_line(&mut lines, &known.columns, row).map_err(|reason| refuse(format!("a row of table {name}: {reason}")))?;
            if lines.len() >= SEND_BYTES {
                sink.send(std::mem::take(&mut lines).into()).await.map_err(failed)?;
            }
        }
        sink.send(lines.into()).await.map_err(failed)?;
        sink.as_mut().finish().await.map_err(failed)?;
        Ok(())
    }
}

/// Appends a row as a line of COPY.
fn write_line(out: &mut Vec<u8>, columns: &[String], row: &TupleRow<'_>) -> Result<(), String> {
    let values = json::texts(row.image.ok_or("it has no image")?).map_err(|error| error.to_string())?;
    // As they are written they stand in the order of the columns, as far as there are some.
    let mut found = 0;
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            out.push(b'\t');
        }
        let next = values.get(index).filter(|(name, _)| name == column);
        let value = next.or_else(|| values.iter().find(|(name, _)| name == column));
        found += usize::from(value.is_some());
        copy::write_field(out, value.and_then(|(_, value)| value.as_deref()));
    }
    if found < values.len() {
        let unknown = values.iter().find(|(name, _)| !columns.iter().any(|column| column == name)).map(|(name, _)| &**name);
        return Err(format!("the schema in the vault does not know its column {}", unknown.unwrap_or("that comes twice")));
    }
    out.push(b'\n');
    Ok(())
}
