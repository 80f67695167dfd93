//! Beginning to protect a database, or going on with it.
//!
//! ```text
//!  publications ─→ slot ─→ its snapshot: schema, rows ─→ "whole" ─→ stream from the slot
//! ```
//!
//! The slot comes before the snapshot, which is what had been committed where the slot begins: nothing lies between the two. The
//! session that made the slot holds the snapshot, and waits until it has been read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fail::fail_point;
use handlers::table_log::TableLog;
use pgwire_replication::ReplicationClient;
use pipeline::changelog::coverage::Gap;
use pipeline::model::Timestamp;
use pipeline::postgres::name::{literal, qualified, quoted};
use pipeline::source::pgoutput::Feed;
use pipeline::vault::record::Numbered;
use tokio_postgres::Client;

use crate::catalogue::{Catalogue, KnownTable};
use crate::incarnation::{self, Incarnation};
use crate::schema::Schema;
use crate::slot::SlotState;
use crate::tables::{self, Table};
use crate::{Address, DatabaseError, schema, sequences, snapshot};

/// The oldest server that is protected.
const SERVER_MIN: i32 = 130_000;

/// What to protect, and how.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is.
    pub address: Address,
    /// The name of the slot, and what the names of the publications begin with.
    pub slot: String,
    /// The folder of PostgreSQL's programs; those of the path for none.
    pub programs: Option<PathBuf>,
}

/// A database whose changes can be followed.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Its tables.
    pub tables: Vec<Table>,
    /// Rows that the snapshot had; none where it had been read before.
    pub rows: Option<u64>,
}

/// What a database says of itself before it is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Tables that will be kept.
    pub tables: usize,
    /// Those of them of which only new rows will be.
    pub new_rows_only: Vec<String>,
    /// Sequences that the user may not read.
    pub unreadable_sequences: Vec<String>,
    /// Why its schema could not be read from here, if so.
    pub no_dump: Option<String>,
}

/// A snapshot that can be read, of a database where a slot begins.
struct Seen {
    /// Where that is.
    start: u64,
    /// All that is in it was committed before this, and so was whatever emptied a table that is still to be read from it.
    at: Timestamp,
    tables: Vec<Table>,
    /// Those of them that are to be read.
    to_read: Vec<Table>,
    catalogue: Catalogue,
    schema: Schema,
    /// A session that sees it.
    reader: Client,
    /// The session that made the slot, and holds the snapshot.
    _session: ReplicationClient,
}

impl Seen {
    /// The tables that are known from now on: those that were just so when they were published. Whatever was made or changed since may
    /// be published otherwise, or not at all; it is left out, and so found to be changed, published and read again.
    fn known(&self, published: &BTreeMap<u32, KnownTable>) -> BTreeMap<u32, KnownTable> {
        let tables = self.catalogue.tables.iter().filter(|(oid, table)| published.get(oid) == Some(*table));
        tables.map(|(oid, table)| (*oid, table.clone())).collect()
    }
}

async fn look(client: &Client, address: &Address, programs: Option<&Path>, version: i32) -> Result<Looked, DatabaseError> {
    let tables = tables::list(client, address).await?;
    let named = |table: &Table| format!("{}.{}", table.relation.schema, table.relation.table);
    let new_rows_only = tables.iter().filter(|table| !table.is_identified()).map(named).collect();
    let unreadable_sequences = sequences::unreadable(client, address).await?;
    let no_dump = schema::check_program(programs, version).await.err().map(|error| error.to_string());
    Ok(Looked { tables: tables.len(), new_rows_only, unreadable_sequences, no_dump })
}

/// What a database says of itself whose changes a connector tells: it is asked for nothing but its schema.
///
/// # Errors
/// The server's.
pub async fn look_at_connected(address: &Address) -> Result<Looked, DatabaseError> {
    let client = address.connect().await?;
    let question = "SELECT current_setting('server_version_num')::int";
    let row = client.query_one(question, &[]).await.map_err(|error| address.failed("ask for its version", &error))?;
    look(&client, address, None, row.get(0)).await
}

/// The name of the slot of a resource: lower-case letters, digits and `_`, of 63 at most.
pub fn slot_name(resource: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = resource.chars().map(allowed).collect();
    format!("hindsight_{}", &name[..name.len().min(53)])
}

impl Source {
    /// The publication of tables of whose rows every change is told.
    pub fn publication(&self) -> String {
        self.slot.clone()
    }

    /// That of tables of which only new rows are told: an UPDATE of another one would be refused to everybody.
    pub fn insert_only_publication(&self) -> String {
        format!("{}_new_rows", self.slot)
    }

    /// Whether it can be protected, and how well.
    ///
    /// # Errors
    /// A server that cannot be protected, with what to do.
    pub async fn look(&self) -> Result<Looked, DatabaseError> {
        let client = self.address.connect().await?;
        let version = self.check(&client).await?;
        look(&client, &self.address, self.programs.as_deref(), version).await
    }

    /// Makes what is missing: publications, slot, snapshot. What is there is gone on with.
    ///
    /// # Errors
    /// A server that cannot be protected, with what to do; and as reading it and writing the log.
    pub async fn begin(&self, log: &mut TableLog) -> Result<Begun, DatabaseError> {
        let client = self.address.connect().await?;
        let version = self.check(&client).await?;
        // Before they are listed: whatever is in it is published below.
        let tables_now = Catalogue::ask(&client, &self.address).await?.tables;
        let tables = tables::list(&client, &self.address).await?;
        let system = self.system(&client).await?;
        let known = incarnation::newest(log.vault(), log.resource()).await?;
        let slot = SlotState::ask(&client, &self.address, &self.slot).await?;
        let is_ours = |known: &Numbered<Incarnation>| known.record.system == system && known.record.slot == self.slot;
        if slot.is_some() && !known.as_ref().is_some_and(is_ours) {
            let slot = &self.slot;
            let reason = format!(
                "slot {slot} is there, and this vault has not made it: whoever has may still need it; if nobody does, remove it with \
                 SELECT pg_drop_replication_slot({}), or else choose another name",
                literal(slot)
            );
            return Err(DatabaseError::Refused { address: self.address.to_string(), attempt: "protect", reason });
        }
        self.publish(&client, &tables).await?;
        let why_anew = match (&known, &slot) {
            (Some(known), _) if !known.record.whole => "the snapshot before had broken off",
            (Some(known), Some(slot)) if !slot.is_lost() => match &known.record.tables {
                Some(before) if *before == tables_now => {
                    return Ok(Begun { incarnation: known.record.clone(), tables, rows: None });
                }
                Some(before) => {
                    schema::check_program(self.programs.as_deref(), version).await?;
                    return self.read_again(&client, known, (before, &tables_now), log).await;
                }
                None => "the tables are not known",
            },
            _ => "the replication slot was lost",
        };
        schema::check_program(self.programs.as_deref(), version).await?;
        if slot.is_some() {
            let drop_slot = format!("SELECT pg_drop_replication_slot({})", literal(&self.slot));
            self.run(&client, &format!("remove slot {}, which cannot be gone on with", self.slot), &drop_slot).await?;
        }
        self.take_snapshot(&client, (tables, &tables_now, system), known.as_ref(), why_anew, log).await
    }

    async fn take_snapshot(
        &self,
        client: &Client,
        (tables, published, system): (Vec<Table>, &BTreeMap<u32, KnownTable>, String),
        known: Option<&Numbered<Incarnation>>,
        why_anew: &str,
        log: &mut TableLog,
    ) -> Result<Begun, DatabaseError> {
        // What was known up to here, of whatever was begun before; also of a snapshot that was read, and never followed.
        let known_until = known.filter(|_| !log.is_empty()).map(|known| log.latest().unwrap_or(known.record.at));
        let address = &self.address;
        // Said before there is a slot: one that is there and of which the vault says nothing is somebody else's.
        let epoch = known.map_or(1, |known| known.record.epoch + 1);
        let begun =
            Incarnation { epoch, system, slot: self.slot.clone(), start: 0, at: self.now(client).await?, tables: None, whole: false };
        self.record(log, known, &begun).await?;
        fail_point!("database::begun");
        let seen = self.open_snapshot(client, &quoted(&self.slot), epoch, &BTreeMap::new()).await?;
        let (at, start) = (seen.at, seen.start);
        let begun = Incarnation { start, at, tables: Some(seen.known(published)), ..begun };
        seen.schema.store(log.vault(), log.resource()).await?;
        let feed = Feed { stream: begun.stream(), epoch };
        let rows = snapshot::read(&seen.reader, address, &seen.to_read, feed, (&snapshot::Place::Beginning, at), log).await?;
        drop(seen);
        fail_point!("database::snapshot-read");
        if let Some(from) = known_until {
            let reason = format!("{why_anew}, and what was committed until the next snapshot is not known");
            log.note_gap(&Gap::without_events(from, Some(at), reason)).await?;
        }
        let newest = incarnation::newest(log.vault(), log.resource()).await?;
        let whole = Incarnation { whole: true, ..begun };
        self.record(log, newest.as_ref(), &whole).await?;
        Ok(Begun { incarnation: whole, tables, rows: Some(rows) })
    }

    /// Makes a slot, and sees what had been committed where it begins. `slot` is its name as SQL, and what is said of it; tables that
    /// are still what is known of them are not to be read.
    async fn open_snapshot(
        &self,
        client: &Client,
        slot: &str,
        epoch: u32,
        known: &BTreeMap<u32, KnownTable>,
    ) -> Result<Seen, DatabaseError> {
        let (address, making) = (&self.address, "make the replication slot");
        let broken = |reason: String| DatabaseError::Server { address: address.to_string(), attempt: making.to_owned(), reason };
        let publications = [self.publication(), self.insert_only_publication()];
        let config = address.replication(&self.slot, &publications.each_ref().map(String::as_str));
        let mut session = ReplicationClient::connect_gated(config).await.map_err(|error| broken(error.to_string()))?;
        let make = format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput EXPORT_SNAPSHOT");
        let made = session.simple_query(&make).await.map_err(|error| broken(error.to_string()))?;
        let word = |index: usize| made.first()?.get(index)?.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let (Some(start), Some(exported)) = (word(1).and_then(|text| lsn(&text)), word(2)) else {
            return Err(broken("the server does not say where it begins".to_owned()));
        };
        fail_point!("database::slot-made");
        let reader = address.connect().await?;
        let see = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(&exported));
        self.run(&reader, "see the snapshot of the slot", &see).await?;
        // What was made since the tables were listed is listed under the snapshot.
        let tables = tables::list(&reader, address).await?;
        let catalogue = Catalogue::ask(&reader, address).await?;
        let is_changed = |table: &&Table| known.get(&table.relation.oid) != catalogue.tables.get(&table.relation.oid);
        let to_read: Vec<Table> = tables.iter().filter(is_changed).cloned().collect();
        let schema =
            Schema::read(self.programs.as_deref(), address, &reader, Some(&exported), (epoch, self.now(client).await?), None).await?;
        // Behind what other sessions do for us: they would wait for whoever waits for this one.
        self.hold(&reader, &to_read).await?;
        let at = self.now(client).await?;
        let schema = Schema { at, ..schema };
        Ok(Seen { start, at, tables, to_read, catalogue, schema, reader, _session: session })
    }

    /// Lets nobody empty tables, or take them away, before they have been read. A snapshot shows a table as empty that was emptied
    /// after it was taken: whoever did that has committed when this comes back, so that no time behind this is one before that.
    async fn hold(&self, reader: &Client, tables: &[Table]) -> Result<(), DatabaseError> {
        let names: Vec<String> =
            tables.iter().map(|table| format!("ONLY {}", qualified(&table.relation.schema, &table.relation.table))).collect();
        if names.is_empty() {
            return Ok(());
        }
        self.run(reader, "hold its tables while they are read", &format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await
    }

    /// Reads tables again that are not what they were, and goes on with the slot behind that.
    async fn read_again(
        &self,
        client: &Client,
        known: &Numbered<Incarnation>,
        (before, published): (&BTreeMap<u32, KnownTable>, &BTreeMap<u32, KnownTable>),
        log: &mut TableLog,
    ) -> Result<Begun, DatabaseError> {
        let epoch = known.record.epoch;
        let slot = format!("{} TEMPORARY", quoted(&format!("{}_again", self.slot)));
        let seen = self.open_snapshot(client, &slot, epoch, before).await?;
        // Of a table that is gone or is called otherwise, nothing is left under the name that it had.
        let now = |oid: &u32| seen.catalogue.tables.get(oid);
        let gone =
            before.iter().filter(|(oid, table)| now(oid) != Some(*table)).map(|(_, table)| (table.schema.clone(), table.name.clone()));
        let made = seen.to_read.iter().map(|table| (table.relation.schema.clone(), table.relation.table.clone()));
        let emptied: BTreeSet<(String, String)> = gone.chain(made).collect();
        let names: Vec<String> = emptied.iter().map(|(schema, table)| format!("{schema}.{table}")).collect();
        // Before every commit that this snapshot does not have: they lie at its LSN at the earliest.
        let place = snapshot::Place::Behind { lsn: seen.start - 1, emptied };
        let feed = Feed { stream: known.record.stream(), epoch };
        let rows = snapshot::read(&seen.reader, &self.address, &seen.to_read, feed, (&place, seen.at), log).await?;
        fail_point!("database::read-again");
        seen.schema.store(log.vault(), log.resource()).await?;
        let reason = format!("the tables themselves were changed: {}", names.join(", "));
        log.note_gap(&Gap::without_events(log.latest().unwrap_or(known.record.at), Some(seen.at), reason)).await?;
        let incarnation = Incarnation { tables: Some(seen.known(published)), ..known.record.clone() };
        self.record(log, Some(known), &incarnation).await?;
        Ok(Begun { incarnation, tables: seen.tables, rows: Some(rows) })
    }

    async fn record(&self, log: &TableLog, known: Option<&Numbered<Incarnation>>, next: &Incarnation) -> Result<(), DatabaseError> {
        if incarnation::follow(log.vault(), log.resource(), known, next).await? {
            return Ok(());
        }
        let reason = "another process has begun with it at the same time; one of them goes on".to_owned();
        Err(DatabaseError::Refused { address: self.address.to_string(), attempt: "protect", reason })
    }

    /// Whether the server can be protected. Says its version.
    async fn check(&self, client: &Client) -> Result<i32, DatabaseError> {
        let address = &self.address;
        let refuse = |reason: String| DatabaseError::Refused { address: address.to_string(), attempt: "protect", reason };
        let question =
            "SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_setting('server_encoding'),
                               pg_is_in_recovery(), rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user";
        let row = client.query_one(question, &[]).await.map_err(|error| address.failed("ask how it is set", &error))?;
        let (version, level, encoding): (i32, &str, &str) = (row.get(0), row.get(1), row.get(2));
        if version < SERVER_MIN {
            return Err(refuse(format!("it is version {}.{}, and 13 is the oldest that is protected", version / 10_000, version % 10_000)));
        }
        if row.get(3) {
            return Err(refuse("it is a standby; protect its primary".to_owned()));
        }
        if level != "logical" {
            return Err(refuse(format!("its wal_level is {level}; set wal_level = logical and restart it")));
        }
        if encoding == "SQL_ASCII" {
            return Err(refuse("its encoding is SQL_ASCII, so that nobody can say which characters its texts are".to_owned()));
        }
        if !row.get::<_, bool>(4) {
            return Err(refuse("this user may not replicate: ALTER ROLE ... REPLICATION".to_owned()));
        }
        Ok(version)
    }

    /// The cluster's own number.
    async fn system(&self, client: &Client) -> Result<String, DatabaseError> {
        let question = "SELECT system_identifier::text FROM pg_control_system()";
        let row = client.query_one(question, &[]).await.map_err(|error| self.address.failed("ask which cluster it is", &error))?;
        Ok(row.get(0))
    }

    async fn now(&self, client: &Client) -> Result<Timestamp, DatabaseError> {
        let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let row = client.query_one(question, &[]).await.map_err(|error| self.address.failed("ask for its time", &error))?;
        Ok(Timestamp::from_micros(row.get(0)))
    }

    /// Makes the publications what they should be. A table that is in neither is told nothing of.
    async fn publish(&self, client: &Client, tables: &[Table]) -> Result<(), DatabaseError> {
        let (all, new_rows): (Vec<&Table>, Vec<&Table>) = tables.iter().partition(|table| table.is_identified());
        let publications =
            [(self.publication(), all, "insert, update, delete, truncate"), (self.insert_only_publication(), new_rows, "insert, truncate")];
        for (name, tables, what) in publications {
            let question = "SELECT count(*) FROM pg_publication WHERE pubname = $1";
            let row = client.query_one(question, &[&name]).await.map_err(|error| self.address.failed("ask for publications", &error))?;
            if row.get::<_, i64>(0) == 0 {
                let make = format!("CREATE PUBLICATION {} WITH (publish = {})", quoted(&name), literal(what));
                self.run(client, "make a publication", &make).await?;
            }
            let names: Vec<String> = tables.iter().map(|table| qualified(&table.relation.schema, &table.relation.table)).collect();
            let saying = "say which tables are published";
            if !names.is_empty() {
                self.run(client, saying, &format!("ALTER PUBLICATION {} SET TABLE {}", quoted(&name), names.join(", "))).await?;
                continue;
            }
            // None at all cannot be said so.
            let question = "SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1";
            let left = client.query(question, &[&name]).await.map_err(|error| self.address.failed("ask for publications", &error))?;
            let left: Vec<String> = left.iter().map(|row| qualified(row.get(0), row.get(1))).collect();
            if !left.is_empty() {
                self.run(client, saying, &format!("ALTER PUBLICATION {} DROP TABLE {}", quoted(&name), left.join(", "))).await?;
            }
        }
        Ok(())
    }

    /// Takes away all that was made: the slot and the publications.
    ///
    /// # Errors
    /// What the server says.
    pub async fn end(&self) -> Result<(), DatabaseError> {
        let client = self.address.connect().await?;
        for publication in [self.publication(), self.insert_only_publication()] {
            self.run(&client, "remove a publication", &format!("DROP PUBLICATION IF EXISTS {}", quoted(&publication))).await?;
        }
        let drop_slot =
            format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {}", literal(&self.slot));
        self.run(&client, "remove the slot", &drop_slot).await
    }

    async fn run(&self, client: &Client, attempt: &str, sql: &str) -> Result<(), DatabaseError> {
        client.batch_execute(sql).await.map_err(|error| self.address.failed(attempt, &error))
    }
}

/// Reads an LSN as the server writes it: `16/B374D848`.
fn lsn(text: &str) -> Option<u64> {
    pgwire_replication::Lsn::parse(text).ok().map(|lsn| lsn.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_a_name_that_the_server_takes() {
        assert_eq!(slot_name("Shop-2.eu"), "hindsight_shop_2_eu");
        assert_eq!(slot_name(&"x".repeat(63)).len(), 63);
    }
}
