//! What of a restore is there already: written into the target itself, in the transactions that put it there.

use std::collections::BTreeMap;

use pipeline::model::ResourceId;
use pipeline::postgres::name::{literal, qualified};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::chosen::Chosen;
use super::report::Rows;
use super::{TablesCut, destinations, refused};
use crate::schema::Schema;
use crate::{Address, DatabaseError};

/// The schema that a target holds while it is restored to, and not any longer.
pub(super) const SCHEMA: &str = "hindsight_restore";

/// What was found where a restore is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no such database.
    NoDatabase,
    /// It is empty.
    Empty,
    /// A restore of the same state was broken off.
    Begun {
        /// Into how many hash buckets it divided the rows.
        buckets: u32,
        /// Those that are there, with what came of them.
        done: BTreeMap<u32, Rows>,
    },
}

/// A restore that goes on.
pub(super) struct Progress<'a> {
    client: &'a Client,
    target: &'a Address,
    done: BTreeMap<u32, Rows>,
    resumed: bool,
}

impl<'a> Progress<'a> {
    /// Looks at what is there. Anything but the beginning of the same restore is refused.
    pub async fn look(target: &Address, resource: &ResourceId, cut: &TablesCut, chosen: &Chosen) -> Result<Found, DatabaseError> {
        let Some(client) = target.connect_if_there().await? else { return Ok(Found::NoDatabase) };
        let asking = |error| target.failed("ask what it holds", &error);
        let begun = format!("SELECT resource, until, buckets FROM {SCHEMA}.restore");
        match client.query_opt(&begun, &[]).await {
            Ok(Some(row)) => {
                let (of, until): (String, String) = (row.get(0), row.get(1));
                if of != resource.to_string() || until != state(cut, chosen) {
                    let reason = format!(
                        "another restore was begun in it and broken off, of {of} to another state; ask for that again, or restore to a \
                         new database"
                    );
                    return Err(refused(target, reason));
                }
                let question = format!("SELECT bucket, rows FROM {SCHEMA}.done");
                let rows = client.query(&question, &[]).await.map_err(asking)?;
                let read = |row: &tokio_postgres::Row| {
                    let rows = serde_json::from_str(row.get(1)).map_err(|error| refused(target, format!("{SCHEMA}.done: {error}")))?;
                    Ok((row.get::<_, i64>(0) as u32, rows))
                };
                let done = rows.iter().map(read).collect::<Result<_, DatabaseError>>()?;
                Ok(Found::Begun { buckets: row.get::<_, i64>(2) as u32, done })
            }
            Ok(None) => Err(refused(target, format!("its schema {SCHEMA} is not one that a restore has made"))),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                let held = client.query_one(HOLDS, &[]).await.map_err(asking)?;
                match held.get::<_, i64>(0) {
                    0 => Ok(Found::Empty),
                    held => Err(refused(
                        target,
                        format!("it holds {held} tables, views and sequences already; a database is restored into a new one"),
                    )),
                }
            }
            Err(error) => Err(asking(error)),
        }
    }

    /// Makes the tables, or goes on behind them.
    pub async fn begin(
        client: &'a Client,
        target: &'a Address,
        (resource, cut, chosen): (&ResourceId, &TablesCut, &Chosen),
        schema: &Schema,
        buckets: u32,
        found: Found,
    ) -> Result<Progress<'a>, DatabaseError> {
        match found {
            Found::Begun { buckets: then, done } if then == buckets => return Ok(Progress { client, target, done, resumed: true }),
            Found::Begun { .. } => {
                // The log has grown so much that its rows are divided otherwise now.
                let progress = Progress { client, target, done: BTreeMap::new(), resumed: true };
                progress.begin_again(buckets).await?;
                return Ok(progress);
            }
            Found::NoDatabase | Found::Empty => {}
        }
        // A dump that makes `public` would meet the one that every new database has.
        let tables = schema.before_rows.replace("CREATE SCHEMA public;", "CREATE SCHEMA IF NOT EXISTS public;");
        // Several statements in one message are one transaction.
        let make = format!(
            "CREATE SCHEMA {SCHEMA};
             CREATE TABLE {SCHEMA}.restore (resource text NOT NULL, until text NOT NULL, buckets bigint NOT NULL);
             CREATE TABLE {SCHEMA}.done (bucket bigint PRIMARY KEY, rows text NOT NULL);
             INSERT INTO {SCHEMA}.restore VALUES ({}, {}, {buckets});
             {tables}",
            literal(&resource.to_string()),
            literal(&state(cut, chosen))
        );
        client.batch_execute(&make).await.map_err(|error| target.failed("make the tables", &error))?;
        Ok(Progress { client, target, done: BTreeMap::new(), resumed: false })
    }

    /// Takes out all rows that are there.
    async fn begin_again(&self, buckets: u32) -> Result<(), DatabaseError> {
        let tables = destinations(self.client, self.target, &BTreeMap::new()).await?;
        let names: Vec<String> = tables.keys().map(|(schema, table)| qualified(schema, table)).collect();
        let truncate = if names.is_empty() { String::new() } else { format!("TRUNCATE {};", names.join(", ")) };
        let again = format!("{truncate} DELETE FROM {SCHEMA}.done; UPDATE {SCHEMA}.restore SET buckets = {buckets}");
        self.client.batch_execute(&again).await.map_err(|error| self.target.failed("begin again", &error))
    }

    /// Whether somebody has begun before.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Where it goes.
    pub fn target(&self) -> &'a Address {
        self.target
    }

    /// What came of the rows of a hash bucket, if they are all there.
    pub fn done(&self, bucket: u32) -> Option<&Rows> {
        self.done.get(&bucket)
    }

    /// Begins to write a hash bucket, by a session.
    pub async fn begin_bucket(&self, client: &Client) -> Result<(), DatabaseError> {
        client.batch_execute("BEGIN").await.map_err(|error| self.target.failed("begin a transaction", &error))
    }

    /// All rows of a hash bucket are written, and count from now on.
    pub async fn end_bucket(&self, client: &Client, bucket: u32, rows: &Rows) -> Result<(), DatabaseError> {
        let rows = serde_json::to_string(rows).map_err(|error| refused(self.target, error.to_string()))?;
        let note = format!("INSERT INTO {SCHEMA}.done VALUES ({bucket}, {}); COMMIT", literal(&rows));
        client.batch_execute(&note).await.map_err(|error| self.target.failed("commit rows", &error))
    }

    /// Makes indexes, constraints and triggers, and ends. Names the foreign keys that do not hold, of tables that were chosen.
    pub async fn end(self, schema: &Schema, chosen: &Chosen) -> Result<Vec<String>, DatabaseError> {
        if !chosen.is_all() {
            return chosen.end(self.client, self.target, schema).await;
        }
        let finish = format!("{}\nDROP SCHEMA {SCHEMA} CASCADE", schema.after_rows);
        self.client.batch_execute(&finish).await.map_err(|error| self.target.failed("make indexes and constraints", &error))?;
        Ok(Vec::new())
    }
}

/// Tables, views and sequences that are not the server's own.
const HOLDS: &str = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";

/// What of a database is restored, in words that another restore has only of the same.
fn state(cut: &TablesCut, chosen: &Chosen) -> String {
    hex(&cut.until) + &chosen.noted()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
