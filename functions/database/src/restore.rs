//! Restoring a database: as it was at a commit, into a new one.
//!
//! ```text
//!  what makes the tables ─→ rows, by COPY ─→ counted ─→ sequences ─→ what makes indexes, constraints, triggers
//! ```
//!
//! While it goes on, the target holds a schema that says which state is restored and what of it is there ([`progress`]). So a
//! restore that was broken off is gone on with, and nothing but such a one is ever written into.

pub(crate) mod chosen;
mod progress;
mod report;
mod rows;
mod sequences;

use std::collections::HashMap;

use fail::fail_point;
use pipeline::base::inputs::Inventory;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::postgres::name::{dotted, literal, qualified, quoted};
use pipeline::replay::tables::{Tables, TablesCut, TablesPoint};
use pipeline::source::debezium::value::Kind;
use pipeline::vault::Vault;
use tokio_postgres::Client;

pub use self::chosen::Chosen;
use self::progress::{Found, Progress};
pub(crate) use self::report::shown;
pub use self::report::{DatabaseReport, Rows};
pub(crate) use self::rows::of_chosen;
pub use self::sequences::SequencesReport;
use crate::schema::{Defaults, Schema};
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
    /// Which tables; the others are made, and left empty.
    pub chosen: Chosen,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
}

/// Restores a database into another one, which is made where there is none.
///
/// # Errors
/// A state that there is not, with the nearest that there are; a target that holds anything else; and what vault and server say.
pub async fn restore(vault: &Vault, request: &DatabaseRestore, clock: &dyn Clock) -> Result<DatabaseReport, DatabaseError> {
    let DatabaseRestore { resource, point, target, chosen, dry_run } = request;
    let started = clock.now();
    let inventory = Inventory::load(vault, resource).await?;
    let tables = Tables::read(vault, &inventory).await?;
    let cut = tables.cut(point)?;
    let until = match point {
        TablesPoint::Time(to) => *to,
        TablesPoint::Transaction(_) | TablesPoint::Lsn(_) | TablesPoint::Marker(_) => cut.at,
        TablesPoint::Latest => Timestamp::MAX,
    };
    let schema = schema::at_cut(vault, resource, &cut, until).await?;
    let schema = schema.ok_or_else(|| refused(target, format!("the vault has no schema of {resource} for that time")))?;
    if let Some((unknown, known)) = chosen.unknown(&schema) {
        return Err(DatabaseError::NoTable { resource: resource.clone(), table: unknown.to_owned(), known: known.into_iter().collect() });
    }
    let chosen = &chosen.among(&schema, &schema::earlier(vault, resource, &schema).await?);
    let mut report = DatabaseReport::new(resource, target, &cut, tables.raw(), *dry_run, started);
    report.chosen = chosen.written().to_vec();
    report.new_rows_only = schema
        .new_rows_only()
        .into_iter()
        .filter(|(schema, table)| chosen.has(schema, table))
        .map(|(schema, table)| dotted(&schema, &table))
        .collect();
    let snapshot = incarnation::all(vault, resource).await?.into_iter().rfind(|known| known.whole && known.at <= cut.at);
    for (table, ended) in &schema.untold {
        let is_chosen = table.split_once('.').is_none_or(|(schema, table)| chosen.has(schema, table));
        // A snapshot that was taken since has its rows.
        if is_chosen && ended.is_none_or(|ended| snapshot.as_ref().is_none_or(|snapshot| snapshot.at <= ended)) {
            report.rows.not_told(table);
        }
    }
    let told = tables.sequences(vault, &cut, point).await?;
    let found = Progress::look(target, resource, &cut, chosen).await?;
    if *dry_run {
        report.creates_database = found == Found::NoDatabase;
        rows::count(vault, &tables, &cut, chosen, &mut report).await?;
        report.sequences = sequences::plan(&schema.before_rows, &told);
    } else {
        if found == Found::NoDatabase {
            make_database(target, &schema).await?;
        }
        let client = target.connect().await?;
        let progress = Progress::begin(&client, target, (resource, &cut, chosen), &schema, tables.buckets(), found).await?;
        report.resumed = progress.is_resumed();
        fail_point!("database::tables-made");
        let destinations = destinations(&client, target, &schema.defaults).await?;
        rows::write(vault, &tables, &cut, (&client, &destinations, chosen), &progress, &mut report).await?;
        check_counts(&client, target, &destinations, &report).await?;
        report.sequences = sequences::put(&client, target, &told).await?;
        if chosen.is_all() {
            // Of some tables they would be something that never was.
            refresh(&client, target).await?;
        }
        fail_point!("database::before-indexes");
        report.not_checked = progress.end(&schema, chosen).await?;
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
    columns: Vec<Column>,
    /// Columns that make their values themselves.
    generated: Vec<String>,
}

/// A column of it.
struct Column {
    name: String,
    /// How a connector writes its values.
    kind: Kind,
    /// The value of rows that are older than it is.
    older: Option<String>,
    /// Whether new rows get one by themselves.
    has_default: bool,
}

/// Schema and name.
pub(crate) type TableName = (String, String);

/// The tables that the target has. Of a domain the type counts that it rests on, and of an array that of its elements.
async fn destinations(client: &Client, target: &Address, defaults: &Defaults) -> Result<HashMap<TableName, Destination>, DatabaseError> {
    let question = format!(
        "WITH RECURSIVE base (whole, oid, modifier) AS (
             SELECT oid, oid, -1 FROM pg_type
             UNION ALL SELECT base.whole, t.typbasetype, t.typtypmod FROM base JOIN pg_type t ON t.oid = base.oid WHERE t.typtype = 'd')
         SELECT n.nspname, c.relname, a.attname, a.atthasdef, coalesce(e.typname, t.typname),
                CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE b.modifier END, coalesce(e.typtype, t.typtype) = 'e', e.oid IS NOT NULL, a.attgenerated <> ''
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN base b ON b.whole = a.atttypid AND EXISTS (SELECT FROM pg_type WHERE oid = b.oid AND typtype <> 'd')
         LEFT JOIN pg_type t ON t.oid = b.oid
         LEFT JOIN base f ON f.whole = t.typelem AND t.typcategory = 'A' AND EXISTS (SELECT FROM pg_type WHERE oid = f.oid AND typtype <> 'd')
         LEFT JOIN pg_type e ON e.oid = f.oid
         WHERE c.relkind = 'r' AND n.nspname NOT IN ('information_schema', {}) AND n.nspname !~ '^pg_' ORDER BY 1, 2, a.attnum",
        literal(progress::SCHEMA)
    );
    let rows = client.query(&question, &[]).await.map_err(|error| target.failed("list its tables", &error))?;
    let mut destinations: HashMap<TableName, Destination> = HashMap::new();
    for row in rows {
        let (of_schema, table): (String, String) = (row.get(0), row.get(1));
        let older = defaults.get(&format!("{of_schema}.{table}"));
        let entry = destinations.entry((of_schema, table)).or_insert_with(|| Destination { columns: Vec::new(), generated: Vec::new() });
        let Some(name) = row.get::<_, Option<String>>(2) else { continue };
        if row.get(8) {
            entry.generated.push(name);
            continue;
        }
        let (kind_name, modifier, is_enum): (&str, i32, bool) = (row.get(4), row.get(5), row.get(6));
        let kind = Kind::of(kind_name, modifier, is_enum);
        let kind = if row.get(7) { Kind::Array(Box::new(kind)) } else { kind };
        let older = older.and_then(|columns| columns.get(&name)).cloned();
        entry.columns.push(Column { name, kind, older, has_default: row.get(3) });
    }
    Ok(destinations)
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
async fn check_counts(
    client: &Client,
    target: &Address,
    destinations: &HashMap<TableName, Destination>,
    report: &DatabaseReport,
) -> Result<(), DatabaseError> {
    for (schema, table) in destinations.keys() {
        let question = format!("SELECT count(*) FROM ONLY {}", qualified(schema, table));
        let found: i64 = client.query_one(&question, &[]).await.map_err(|error| target.failed("count rows", &error))?.get(0);
        let written = report.rows.tables.get(&dotted(schema, table)).copied().unwrap_or_default();
        if found as u64 != written {
            let reason = format!("table {} has {found} rows, and {written} were written", qualified(schema, table));
            return Err(DatabaseError::Refused { address: target.to_string(), attempt: "vouch for what was restored to", reason });
        }
    }
    Ok(())
}
