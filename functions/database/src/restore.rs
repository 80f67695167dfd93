//! Restoring a database: as it was at a commit, into a new one.
//!
//! ```text
//!  what makes the tables ─→ rows, by COPY ─→ counted ─→ sequences ─→ what makes indexes, constraints, triggers
//! ```
//!
//! While it goes on, the target holds a schema that says which state is restored and what of it is there ([`progress`]). So a
//! restore that was broken off is gone on with, and nothing but such a one is ever written into.

mod progress;
mod report;
mod rows;

use std::collections::HashMap;

use fail::fail_point;
use pipeline::base::inputs::Inventory;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::postgres::name::{literal, qualified, quoted};
use pipeline::replay::tables::{Tables, TablesCut, TablesPoint};
use pipeline::vault::Vault;
use tokio_postgres::Client;

use self::progress::{Found, Progress};
pub use self::report::DatabaseReport;
use crate::schema::Schema;
use crate::{Address, DatabaseError, incarnation, schema};

/// A restore that is asked for.
#[derive(Debug, Clone)]
pub struct DatabaseRestore {
    /// What is restored.
    pub resource: ResourceId,
    /// Which state of it.
    pub point: TablesPoint,
    /// Where to: a database that is not there yet, or is empty.
    pub target: Address,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
}

/// Restores a database into another one, which is made where there is none.
///
/// # Errors
/// A state that there is not, with the nearest that there are; a target that holds anything else; and what vault and server say.
pub async fn restore(vault: &Vault, request: &DatabaseRestore, clock: &dyn Clock) -> Result<DatabaseReport, DatabaseError> {
    let DatabaseRestore { resource, point, target, dry_run } = request;
    let started = clock.now();
    let inventory = Inventory::load(vault, resource).await?;
    let tables = Tables::read(vault, &inventory).await?;
    let cut = tables.cut(point)?;
    let known = incarnation::newest(vault, resource).await?.map(|known| known.record.epoch).unwrap_or_default();
    let epoch = cut.until.first_chunk::<4>().map_or(known, |bytes| u32::from_be_bytes(*bytes));
    let until = match point {
        TablesPoint::Time(to) => *to,
        TablesPoint::Transaction(_) => cut.at,
        TablesPoint::Latest => Timestamp::MAX,
    };
    let schema = schema::of_epoch(vault, resource, epoch, until).await?;
    let schema = schema.ok_or_else(|| refused(target, format!("the vault has no schema of {resource} for that time")))?;
    let mut report = DatabaseReport::new(resource, target, &cut, tables.raw(), *dry_run, started);
    let found = Progress::look(target, resource, &cut).await?;
    if *dry_run {
        report.creates_database = found == Found::NoDatabase;
        rows::count(vault, &tables, &cut, &mut report).await?;
    } else {
        if found == Found::NoDatabase {
            make_database(target, &schema).await?;
        }
        let client = target.connect().await?;
        let progress = Progress::begin(&client, target, resource, &cut, &schema, tables.buckets(), found).await?;
        report.resumed = progress.is_resumed();
        fail_point!("database::tables-made");
        rows::write(vault, &tables, &cut, &client, &progress, &mut report).await?;
        check_counts(&client, target, &report).await?;
        sequences(&client, target).await?;
        refresh(&client, target).await?;
        fail_point!("database::before-indexes");
        progress.end(&schema).await?;
        fail_point!("database::restored");
    }
    report.finished = clock.now();
    Ok(report)
}

fn refused(target: &Address, reason: String) -> DatabaseError {
    DatabaseError::Refused { address: target.to_string(), attempt: "restore to", reason }
}

/// Makes the database that is restored into, with the encoding and the locale of the source.
async fn make_database(target: &Address, schema: &Schema) -> Result<(), DatabaseError> {
    let name = target.database();
    let mut make = format!("CREATE DATABASE {} TEMPLATE template0", quoted(name));
    for (word, value) in [("ENCODING", &schema.encoding), ("LC_COLLATE", &schema.collate), ("LC_CTYPE", &schema.ctype)] {
        make.extend(value.as_ref().map(|value| format!(" {word} {}", literal(value))));
    }
    let client = target.with_database("postgres").connect().await?;
    let attempt = format!("make database {name} as the source's is; make it yourself and ask again, where it must be otherwise");
    client.batch_execute(&make).await.map_err(|error| target.failed(&attempt, &error))
}

/// A table of the target, with the columns that take values.
struct Destination {
    columns: Vec<String>,
}

/// Schema and name.
type TableName = (String, String);

/// The tables that the target has.
async fn destinations(client: &Client, target: &Address) -> Result<HashMap<TableName, Destination>, DatabaseError> {
    let question = format!(
        "SELECT n.nspname, c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
         WHERE c.relkind = 'r' AND n.nspname NOT IN ('information_schema', {}) AND n.nspname !~ '^pg_' ORDER BY 1, 2, a.attnum",
        literal(progress::SCHEMA)
    );
    let rows = client.query(&question, &[]).await.map_err(|error| target.failed("list its tables", &error))?;
    let mut destinations: HashMap<TableName, Destination> = HashMap::new();
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

/// Fills the materialized views, each once those are filled that it rests on.
async fn refresh(client: &Client, target: &Address) -> Result<(), DatabaseError> {
    let question = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind = 'm' AND NOT c.relispopulated ORDER BY 1, 2";
    let mut empty = usize::MAX;
    loop {
        let views = client.query(question, &[]).await.map_err(|error| target.failed("list its materialized views", &error))?;
        let names: Vec<String> = views.iter().map(|row| qualified(row.get(0), row.get(1))).collect();
        if names.is_empty() {
            return Ok(());
        }
        let is_stuck = names.len() == empty;
        empty = names.len();
        for name in names {
            let refreshed = client.batch_execute(&format!("REFRESH MATERIALIZED VIEW {name}")).await;
            // It may rest on one that comes later.
            if let Err(error) = refreshed.map_err(|error| target.failed(&format!("fill materialized view {name}"), &error))
                && is_stuck
            {
                return Err(error);
            }
        }
    }
}

/// Holds what the tables have against what was written.
async fn check_counts(client: &Client, target: &Address, report: &DatabaseReport) -> Result<(), DatabaseError> {
    for (schema, table) in destinations(client, target).await?.into_keys() {
        let question = format!("SELECT count(*) FROM ONLY {}", qualified(&schema, &table));
        let found: i64 = client.query_one(&question, &[]).await.map_err(|error| target.failed("count rows", &error))?.get(0);
        let written = report.tables.get(&format!("{schema}.{table}")).copied().unwrap_or_default();
        if found as u64 != written {
            let reason = format!("table {} has {found} rows, and {written} were written", qualified(&schema, &table));
            return Err(DatabaseError::Refused { address: target.to_string(), attempt: "vouch for what was restored to", reason });
        }
    }
    Ok(())
}
