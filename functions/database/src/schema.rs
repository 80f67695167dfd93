//! The schema of a database: what `pg_dump` says of it without its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::model::{ResourceId, Timestamp};
use pipeline::postgres::name::dotted;
use pipeline::replay::tables::TablesCut;
use pipeline::vault::record::Record;
use pipeline::vault::{Vault, VaultError, layout};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::catalogue::{Catalogue, KnownTable};
use crate::incarnation;
use crate::restore::{TableName, chosen};
use crate::{Address, DatabaseError, sql_name};

/// Values of columns, by `schema.table` and column.
pub type Defaults = BTreeMap<String, BTreeMap<String, String>>;

/// The schema as it was under a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The incarnation whose snapshot it belongs to.
    pub epoch: u32,
    /// When.
    pub at: Timestamp,
    /// What the catalogue was, beside the tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<String>,
    /// The encoding of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// By which locale its texts are sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collate: Option<String>,
    /// By which locale its characters are classed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctype: Option<String>,
    /// Those that columns have in rows that are older than they are: they were added with a default, which no change tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: Defaults,
    /// What its tables are, where nothing else says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<BTreeMap<u32, KnownTable>>,
    /// Tables of which a connector did not tell, by `schema.table`, with when that had an end: only a later snapshot has their rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub untold: BTreeMap<String, Option<Timestamp>>,
    /// What makes the tables: SQL.
    pub before_rows: String,
    /// What makes indexes, constraints and triggers: SQL.
    pub after_rows: String,
}

impl Record for Schema {
    const KIND: &'static str = "schema";
}

/// The folder name of these records.
const SCHEMAS: &str = "schema";

impl Schema {
    /// Reads it from a database: as it is, or under a snapshot that another session has exported. Where somebody holds a table alone it
    /// waits, or for so long.
    pub async fn read(
        programs: Option<&Path>,
        address: &Address,
        client: &Client,
        snapshot: Option<&str>,
        place: (u32, Timestamp),
        lock_wait: Option<Duration>,
    ) -> Result<Schema, DatabaseError> {
        let (epoch, at) = place;
        // Before what is said of it: what changes meanwhile is another catalogue.
        let catalogue = Some(Catalogue::ask(client, address).await?.rest);
        let before_rows = dump(programs, address, snapshot, "pre-data", lock_wait).await?;
        let after_rows = dump(programs, address, snapshot, "post-data", lock_wait).await?;
        let question = "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname = current_database()";
        let row = client.query_one(question, &[]).await.map_err(|error| address.failed("ask for its locale", &error))?;
        let defaults = defaults(client, address).await?;
        let (encoding, collate, ctype) = (row.get(0), row.get(1), row.get(2));
        Ok(Schema {
            epoch,
            at,
            catalogue,
            encoding,
            collate,
            ctype,
            defaults,
            tables: None,
            untold: BTreeMap::new(),
            before_rows,
            after_rows,
        })
    }

    /// The same, with what an earlier one knew of columns that are there still: a table that is written anew forgets it.
    pub fn with_defaults_of(mut self, before: Option<&Schema>) -> Schema {
        for (table, columns) in before.into_iter().flat_map(|before| &before.defaults) {
            let known = self.defaults.entry(table.clone()).or_default();
            for (column, value) in columns {
                known.entry(column.clone()).or_insert_with(|| value.clone());
            }
        }
        self
    }

    /// The same, with the tables of which is not told now, and those of which was not told until some time up to now.
    pub fn with_untold_of(mut self, before: Option<&Schema>, untold: &[String], now: Timestamp) -> Schema {
        let earlier = before.into_iter().flat_map(|before| &before.untold);
        self.untold = earlier.map(|(table, ended)| (table.clone(), Some(ended.unwrap_or(now)))).collect();
        self.untold.extend(untold.iter().map(|table| (table.clone(), None)));
        self
    }

    /// Tables whose rows cannot be told apart, so that only new ones are told of by the database itself. (What a connector is told is its
    /// publication's to say.)
    pub(crate) fn new_rows_only(&self) -> BTreeSet<TableName> {
        if self.tables.is_some() {
            return BTreeSet::new();
        }
        let is_kept = |part: &&str| !part.contains("\nPARTITION BY ") && !part.contains("\nCREATE UNLOGGED TABLE ");
        let owned = |(schema, table): (&str, &str)| (schema.to_owned(), table.to_owned());
        let mut tables: BTreeSet<TableName> =
            chosen::parts(&self.before_rows).filter(is_kept).filter_map(chosen::table).map(owned).collect();
        let mut nothing = BTreeSet::new();
        for part in chosen::parts(&self.before_rows).chain(chosen::parts(&self.after_rows)) {
            let tells_apart = part.contains(" PRIMARY KEY (") && !part.contains(") DEFERRABLE");
            for (_, altered) in part.match_indices("\nALTER TABLE ONLY ").filter_map(|(at, begin)| part.split_at_checked(at + begin.len()))
            {
                let Some((table, rest)) = sql_name::table(altered) else { continue };
                if rest.starts_with(" REPLICA IDENTITY NOTHING") {
                    nothing.insert(table);
                } else if tells_apart || rest.starts_with(" REPLICA IDENTITY FULL") || rest.starts_with(" REPLICA IDENTITY USING INDEX") {
                    tables.remove(&table);
                }
            }
        }
        tables.extend(nothing);
        tables
    }

    /// The SQL that makes a table; none of one that it does not have.
    pub fn definition(&self, schema: &str, table: &str) -> Option<&str> {
        chosen::parts(&self.before_rows).find(|part| chosen::table(part) == Some((schema, table)))
    }

    /// Whether it says the same, whenever it was read.
    pub fn is_same(&self, other: &Schema) -> bool {
        let bare = |schema: &Schema| Schema { at: Timestamp::default(), catalogue: None, ..schema.clone() };
        bare(self) == bare(other)
    }

    /// Puts it into the vault.
    pub async fn store(&self, vault: &Vault, resource: &ResourceId) -> Result<(), VaultError> {
        vault.append_record(&layout::state_folder(SCHEMAS, resource), self).await.map(drop)
    }
}

/// The schema at a cut, as it was read by then.
pub async fn at_cut(vault: &Vault, resource: &ResourceId, cut: &TablesCut, read_by: Timestamp) -> Result<Option<Schema>, VaultError> {
    let epoch = match cut.until.first_chunk::<4>() {
        Some(bytes) => u32::from_be_bytes(*bytes),
        None => incarnation::newest(vault, resource).await?.map(|known| known.record.epoch).unwrap_or_default(),
    };
    of_epoch(vault, resource, epoch, read_by).await
}

/// The schema of an incarnation at a time: the last that was read by then, or else the first.
pub async fn of_epoch(vault: &Vault, resource: &ResourceId, epoch: u32, at: Timestamp) -> Result<Option<Schema>, VaultError> {
    let all = vault.all_records::<Schema>(&layout::state_folder(SCHEMAS, resource)).await?;
    let mut of_epoch: Vec<Schema> = all.into_iter().map(|numbered| numbered.record).filter(|schema| schema.epoch == epoch).collect();
    of_epoch.sort_by_key(|schema| schema.at);
    let read_by_then = of_epoch.partition_point(|schema| schema.at <= at);
    Ok(of_epoch.into_iter().take(read_by_then.max(1)).next_back())
}

/// Tables of which only new rows are kept, by what is known last of a database.
///
/// # Errors
/// The vault's.
pub async fn new_rows_only(vault: &Vault, resource: &ResourceId) -> Result<Vec<String>, VaultError> {
    let all = vault.all_records::<Schema>(&layout::state_folder(SCHEMAS, resource)).await?;
    let newest = all.into_iter().map(|numbered| numbered.record).next_back();
    let tables = newest.map(|schema| schema.new_rows_only()).unwrap_or_default();
    Ok(tables.iter().map(|(schema, table)| dotted(schema, table)).collect())
}

/// Those of the same incarnation that were read before one.
pub async fn earlier(vault: &Vault, resource: &ResourceId, than: &Schema) -> Result<Vec<Schema>, VaultError> {
    let all = vault.all_records::<Schema>(&layout::state_folder(SCHEMAS, resource)).await?;
    let is_earlier = |schema: &Schema| schema.epoch == than.epoch && schema.at < than.at;
    Ok(all.into_iter().map(|numbered| numbered.record).filter(is_earlier).collect())
}

/// Whether `pg_dump` is there, and not older than the server, which it would refuse. `version` is the server's, as a number.
pub async fn check_program(programs: Option<&Path>, version: i32) -> Result<(), DatabaseError> {
    let program = program(programs);
    let failed = |reason: String| DatabaseError::Program { program: program.display().to_string(), reason };
    let wanted = version / 10_000;
    let output = tokio::process::Command::new(&program).arg("--version").output().await;
    let output = output.map_err(|error| failed(format!("{error}; install PostgreSQL's client programs, of version {wanted} or later")))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // pg_dump (PostgreSQL) 18.6 (Debian 18.6-1)
    let major = said.split(' ').nth(2).and_then(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse::<i32>().ok());
    match major {
        Some(major) if major >= wanted => Ok(()),
        Some(major) => {
            Err(failed(format!("it is version {major}, and the server is {wanted}: install that version of it, or a later one")))
        }
        None => Err(failed(format!("it does not say which version it is: {said:?}"))),
    }
}

fn program(programs: Option<&Path>) -> PathBuf {
    programs.map_or_else(|| "pg_dump".into(), |folder| folder.join("pg_dump"))
}

/// What the catalogue was when the schema of an incarnation was read last.
pub async fn newest_catalogue(vault: &Vault, resource: &ResourceId, epoch: u32) -> Result<Option<String>, VaultError> {
    Ok(of_epoch(vault, resource, epoch, Timestamp::MAX).await?.and_then(|schema| schema.catalogue))
}

/// The values that columns have in rows that are older than they are.
async fn defaults(client: &Client, address: &Address) -> Result<Defaults, DatabaseError> {
    // Of any type: it is an array of one.
    let question = "SELECT n.nspname || '.' || c.relname, a.attname, (a.attmissingval::text::text[])[1]
                    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE a.atthasmissing AND NOT a.attisdropped AND c.relkind = 'r' AND n.nspname !~ '^pg_'";
    let rows = client.query(question, &[]).await.map_err(|error| address.failed("ask for defaults of columns", &error))?;
    let mut defaults: Defaults = BTreeMap::new();
    for row in rows {
        let (table, column, value): (String, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
        defaults.entry(table).or_default().extend(value.map(|value| (column, value)));
    }
    Ok(defaults)
}

async fn dump(
    programs: Option<&Path>,
    address: &Address,
    snapshot: Option<&str>,
    section: &str,
    lock_wait: Option<Duration>,
) -> Result<String, DatabaseError> {
    let program = program(programs);
    let failed = |reason: String| DatabaseError::Program { program: program.display().to_string(), reason };
    let output = tokio::process::Command::new(&program)
        .args(["--schema-only", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"])
        .args(snapshot.map(|snapshot| format!("--snapshot={snapshot}")))
        .args(["--section", section])
        .args(lock_wait.map(|wait| format!("--lock-wait-timeout={}", wait.as_millis())))
        .envs(address.environment())
        // It says in its own words on which statement it gave up.
        .env("LC_ALL", "C")
        .output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("Query was: LOCK TABLE") {
            let reason = "somebody holds a table alone, to alter or to empty it; it is tried again".to_owned();
            return Err(DatabaseError::InUse { address: address.to_string(), attempt: "read its schema".to_owned(), reason });
        }
        return Err(failed(said.trim().to_owned()));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| failed("what it says of the schema is not UTF-8".to_owned()))?;
    // Lines for psql, which keep it from being led astray by what is in a dump.
    let is_sql = |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
    Ok(text.lines().filter(is_sql).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_whose_rows_nothing_tells_apart_are_known_from_the_dump() {
        let part =
            |name: &str, kind: &str, sql: &str| format!("\n--\n-- Name: {name}; Type: {kind}; Schema: public; Owner: -\n--\n\n{sql}\n");
        let table = |name: &str, more: &str| part(name, "TABLE", &format!("CREATE TABLE public.{name} (\n    id integer\n){more};\n"));
        let key = |name: &str, more: &str| {
            let sql = format!("ALTER TABLE ONLY public.{name}\n    ADD CONSTRAINT {name}_pkey PRIMARY KEY (id){more};\n");
            part(&format!("{name} {name}_pkey"), "CONSTRAINT", &sql)
        };
        let identity = |what: &str, name: &str| format!("\nALTER TABLE ONLY public.{name} REPLICA IDENTITY {what};\n");
        let before_rows = [
            table("keyed", ""),
            table("keyless", ""),
            table("whole", "") + &identity("FULL", "whole"),
            table("by_index", ""),
            table("nothing", "") + &identity("NOTHING", "nothing"),
            table("later", ""),
            table("divided", "\nPARTITION BY RANGE (id)"),
            part("unlogged", "TABLE", "CREATE UNLOGGED TABLE public.unlogged (\n    id integer\n);\n"),
        ]
        .concat();
        let after_rows = [
            key("keyed", ""),
            key("nothing", ""),
            key("later", " DEFERRABLE"),
            part("by_index i", "INDEX", "CREATE UNIQUE INDEX i ON public.by_index USING btree (id);\n")
                + &identity("USING INDEX i", "by_index"),
        ]
        .concat();
        let schema = Schema {
            epoch: 1,
            at: Timestamp::default(),
            catalogue: None,
            encoding: None,
            collate: None,
            ctype: None,
            defaults: BTreeMap::new(),
            tables: None,
            untold: BTreeMap::new(),
            before_rows,
            after_rows,
        };
        let found: Vec<String> = schema.new_rows_only().into_iter().map(|(_, table)| table).collect();
        assert_eq!(found, ["keyless", "later", "nothing"]);
        assert!(Schema { tables: Some(BTreeMap::new()), ..schema }.new_rows_only().is_empty());
    }
}
