//! Restoring a database: as it was at a commit, into a new one.
//!
//! ```text
//!  what makes the tables ─→ rows, by COPY ─→ sequences ─→ what makes indexes, constraints, triggers ─→ counted
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use futures::SinkExt;
use pipeline::base::inputs::Inventory;
use pipeline::model::change::{ChangeBatch, TupleRow};
use pipeline::model::{ResourceId, ResourceKind, json};
use pipeline::postgres::copy;
use pipeline::postgres::name::{literal, qualified, quoted, with_columns};
use pipeline::replay::tables::{Tables, TablesCut, TablesPoint};
use pipeline::vault::{Vault, VaultError};
use serde::Serialize;
use tokio_postgres::Client;

use crate::{Address, DatabaseError, incarnation, schema};

/// Bytes that are sent at once.
const SEND_BYTES: usize = 256 << 10;

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseReport {
    /// The state that was restored: its last transaction.
    pub transaction: Option<String>,
    /// When that was committed.
    pub at: pipeline::model::Timestamp,
    /// Rows by table.
    pub tables: BTreeMap<String, u64>,
    /// Rows of which something is not known, each with what.
    pub uncertain: Vec<String>,
    /// Messages of the source that could not be decoded, of all times.
    pub undecoded: u64,
}

/// Restores a database into another one, which must be there and be empty.
///
/// # Errors
/// A state that there is not, with the nearest that there are; a target that holds tables; and what vault and server say.
pub async fn restore(vault: &Vault, resource: &ResourceId, point: &TablesPoint, target: &Address) -> Result<DatabaseReport, DatabaseError> {
    let inventory = Inventory::load(vault, resource).await?;
    let tables = Tables::read(vault, &inventory).await?;
    let cut = tables.cut(point)?;
    let refuse = |reason: String| DatabaseError::Refused { address: target.to_string(), attempt: "restore to", reason };
    let known = incarnation::newest(vault, resource).await?.map(|known| known.record.epoch).unwrap_or_default();
    let epoch = cut.until.first_chunk::<4>().map_or(known, |bytes| u32::from_be_bytes(*bytes));
    let schema = schema::of_epoch(vault, resource, epoch).await?;
    let schema = schema.ok_or_else(|| refuse(format!("the vault has no schema of {resource} for that time")))?;
    let client = target.connect().await?;
    let holds = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";
    let held: i64 = client.query_one(holds, &[]).await.map_err(|error| target.failed("ask what it holds", &error))?.get(0);
    if held > 0 {
        return Err(refuse(format!("it holds {held} tables already; a database is restored into a new one")));
    }
    // A dump that makes `public` would meet the one that every new database has.
    let before = schema.before_rows.replace("CREATE SCHEMA public;", "CREATE SCHEMA IF NOT EXISTS public;");
    client.batch_execute(&before).await.map_err(|error| target.failed("make the tables", &error))?;
    let mut report = DatabaseReport {
        transaction: cut.transaction.clone(),
        at: cut.at,
        tables: BTreeMap::new(),
        uncertain: Vec::new(),
        undecoded: tables.raw(),
    };
    rows(vault, &tables, &cut, &client, target, &mut report).await?;
    sequences(&client, target).await?;
    client.batch_execute(&schema.after_rows).await.map_err(|error| target.failed("make indexes and constraints", &error))?;
    count(&client, target, &report).await?;
    Ok(report)
}

/// A table of the target.
struct Destination {
    columns: Vec<String>,
}

/// Writes the rows of all tables.
async fn rows(
    vault: &Vault,
    tables: &Tables,
    cut: &TablesCut,
    client: &Client,
    target: &Address,
    report: &mut DatabaseReport,
) -> Result<(), DatabaseError> {
    let destinations = destinations(client, target).await?;
    client.batch_execute("SET session_replication_role = replica").await.map_err(|error| target.failed("leave triggers out", &error))?;
    for pass in tables.passes() {
        let loose = tables.load(vault, pass.clone()).await?;
        for bucket in tables.occupied(&loose, pass) {
            let mut fold = tables.rows(vault, &loose, bucket, cut);
            while let Some(folded) = fold.next().await? {
                let doubts = folded.uncertain.iter().map(|doubt| format!("{} {}: {}", doubt.object, doubt.version, doubt.reason));
                report.uncertain.extend(doubts);
                let batch = ChangeBatch::of(ResourceKind::Database, folded.rows)
                    .map_err(|error| VaultError::damaged("the rows of a database", error))?;
                let columns = batch.tuple_columns();
                let all: Vec<TupleRow<'_>> = columns.iter().collect();
                for of_table in all.chunk_by(|a, b| (a.schema, a.table) == (b.schema, b.table)) {
                    copy_rows(client, target, &destinations, of_table).await?;
                    let name = format!("{}.{}", of_table[0].schema, of_table[0].table);
                    *report.tables.entry(name).or_default() += of_table.len() as u64;
                }
            }
        }
    }
    client.batch_execute("RESET session_replication_role").await.map_err(|error| target.failed("go back to triggers", &error))
}

/// Writes rows of one table.
async fn copy_rows(
    client: &Client,
    target: &Address,
    destinations: &HashMap<(String, String), Destination>,
    rows: &[TupleRow<'_>],
) -> Result<(), DatabaseError> {
    let (schema, table) = (rows[0].schema, rows[0].table);
    let name = qualified(schema, table);
    let refuse = |reason: String| DatabaseError::Refused { address: target.to_string(), attempt: "restore to", reason };
    let known = destinations.get(&(schema.to_owned(), table.to_owned()));
    let known = known.ok_or_else(|| refuse(format!("the schema in the vault has no table {name}, and there are rows of it")))?;
    let copy = format!("COPY {} FROM STDIN", with_columns(&name, known.columns.iter().map(String::as_str)));
    let attempt = format!("write table {name}");
    let failed = |error| target.failed(&attempt, &error);
    let sink = client.copy_in::<_, Bytes>(&copy).await.map_err(failed)?;
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

/// Appends a row as a line of COPY.
fn write_line(out: &mut Vec<u8>, columns: &[String], row: &TupleRow<'_>) -> Result<(), String> {
    let image = row.image.ok_or("it has no image")?;
    let entries = json::entries(image).map_err(|error| error.to_string())?;
    let mut values: HashMap<&str, Option<String>> = HashMap::with_capacity(entries.len());
    for (name, value) in &entries {
        let value: Option<String> = serde_json::from_str(value.get()).map_err(|error| format!("column {name}: {error}"))?;
        values.insert(name, value);
    }
    let unknown: Vec<&str> = values.keys().filter(|name| !columns.iter().any(|column| column == *name)).copied().collect();
    if let Some(column) = unknown.first() {
        return Err(format!("the schema in the vault does not know its column {column}: it was changed since the snapshot"));
    }
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            out.push(b'\t');
        }
        copy::write_field(out, values.get(column.as_str()).and_then(Option::as_deref));
    }
    out.push(b'\n');
    Ok(())
}

/// The tables that the target has, with the columns that take values.
async fn destinations(client: &Client, target: &Address) -> Result<HashMap<(String, String), Destination>, DatabaseError> {
    let question = "SELECT n.nspname, c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                    WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1, 2, a.attnum";
    let rows = client.query(question, &[]).await.map_err(|error| target.failed("list its tables", &error))?;
    let mut destinations: HashMap<(String, String), Destination> = HashMap::new();
    for row in rows {
        let entry = destinations.entry((row.get(0), row.get(1))).or_insert_with(|| Destination { columns: Vec::new() });
        entry.columns.extend(row.get::<_, Option<String>>(2));
    }
    Ok(destinations)
}

/// Sets every sequence that a column takes its values from behind the greatest that there is.
async fn sequences(client: &Client, target: &Address) -> Result<(), DatabaseError> {
    let question = "SELECT sn.nspname, s.relname, tn.nspname, t.relname, a.attname FROM pg_class s
                    JOIN pg_namespace sn ON sn.oid = s.relnamespace
                    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_class'::regclass
                                     AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
                    JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
                    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
                    WHERE s.relkind = 'S'";
    let rows = client.query(question, &[]).await.map_err(|error| target.failed("list its sequences", &error))?;
    for row in rows {
        let words: [String; 5] = [0, 1, 2, 3, 4].map(|index| row.get(index));
        let [schema, sequence, of_schema, of_table, column] = &words;
        let set = format!(
            "SELECT setval({}, max({column})) FROM {table} HAVING max({column}) IS NOT NULL",
            literal(&qualified(schema, sequence)),
            column = quoted(column),
            table = qualified(of_schema, of_table)
        );
        client.batch_execute(&set).await.map_err(|error| target.failed("set a sequence", &error))?;
    }
    Ok(())
}

/// Holds what the tables have against what was written.
async fn count(client: &Client, target: &Address, report: &DatabaseReport) -> Result<(), DatabaseError> {
    let names = destinations(client, target).await?;
    for (schema, table) in names.keys().collect::<BTreeSet<_>>() {
        let question = format!("SELECT count(*) FROM ONLY {}", qualified(schema, table));
        let found: i64 = client.query_one(&question, &[]).await.map_err(|error| target.failed("count rows", &error))?.get(0);
        let written = report.tables.get(&format!("{schema}.{table}")).copied().unwrap_or_default();
        if found as u64 != written {
            let reason = format!("table {} has {found} rows, and {written} were written", qualified(schema, table));
            return Err(DatabaseError::Refused { address: target.to_string(), attempt: "vouch for what was restored to", reason });
        }
    }
    Ok(())
}
