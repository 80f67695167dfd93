//! The schema of a database whose changes a connector tells, which the connector does not: it is asked of the database itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipeline::changelog::coverage::{GAPS, Gap};
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::vault::{Vault, layout};
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::catalogue::Catalogue;
use crate::schema::{self, Schema};
use crate::{Address, DatabaseError};

/// How often the catalogue is held against what is known.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After so long without a transaction one is made: what is not followed by another one cannot be told to be the last.
const MARK_AFTER: Duration = Duration::from_secs(10);
/// What a message is called that is sent for that.
const MARK: &str = "hindsight";

/// Watches the schema.
#[derive(Debug, Clone)]
pub struct Schemas {
    /// The database.
    pub address: Address,
    /// The folder of PostgreSQL's programs; those of the path for none.
    pub programs: Option<PathBuf>,
    /// What is protected.
    pub resource: ResourceId,
    /// The epoch of the connector's positions.
    pub epoch: u32,
}

/// What the database says of itself.
struct Seen {
    now: Timestamp,
    catalogue: Catalogue,
    unpublished: Vec<String>,
}

impl Seen {
    /// Whether it is what was seen before.
    fn is_like(&self, other: &Seen) -> bool {
        (&self.catalogue, &self.unpublished) == (&other.catalogue, &other.unpublished)
    }
}

impl Schemas {
    /// Writes the schema down, and again when it is another one; and where nothing happens, that nothing does: by a transaction that is
    /// nothing but a message. `latest` says up to when the log is complete, and `tell` hears what is wrong with it.
    ///
    /// # Errors
    /// The database's and the vault's. The log does not depend on it.
    pub async fn watch(
        &self,
        vault: &Vault,
        clock: Arc<dyn Clock>,
        latest: watch::Receiver<Option<Timestamp>>,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), DatabaseError> {
        let client = self.address.connect().await?;
        let mut known = None;
        // Up to then it is what was read last: where nobody looked, as far as the log had come.
        let mut looked = *latest.borrow();
        loop {
            let now = now(&client, &self.address).await?;
            let seen =
                Seen { now, catalogue: Catalogue::ask(&client, &self.address).await?, unpublished: self.unpublished(&client).await? };
            if known.as_ref().is_none_or(|known| !seen.is_like(known)) {
                self.keep(vault, &client, &seen, looked.unwrap_or(now)).await?;
                if !seen.unpublished.is_empty() {
                    tell(format!(
                        "{} in no publication, so that a connector tells nothing of: {}; ALTER PUBLICATION ... ADD TABLE, and let the \
                         connector take a new snapshot",
                        if seen.unpublished.len() == 1 { "a table is" } else { "tables are" },
                        seen.unpublished.join(", ")
                    ));
                }
                known = Some(seen);
            }
            looked = Some(now);
            let newest = *latest.borrow();
            if newest.is_none_or(|newest| now.since(newest) >= MARK_AFTER) {
                self.mark(&client).await?;
            }
            clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Writes the schema down that is there now, unless it is what is known; since `looked` it may be.
    async fn keep(&self, vault: &Vault, client: &Client, seen: &Seen, looked: Timestamp) -> Result<(), DatabaseError> {
        let Schemas { address, programs, resource, epoch } = self;
        let Seen { now, catalogue, unpublished } = seen;
        let schema = Schema::read(programs.as_deref(), address, client, None, (*epoch, *now)).await?;
        let before = schema::of_epoch(vault, resource, *epoch, Timestamp::MAX).await?;
        let schema = schema.with_defaults_of(before.as_ref()).with_untold_of(before.as_ref(), unpublished, *now);
        let mut schema = Schema { tables: Some(catalogue.tables.clone()), ..schema };
        if let Some(before) = before {
            if before.is_same(&schema) {
                return Ok(());
            }
            let now_is = |oid: &u32| catalogue.tables.get(oid);
            let is_changed = before.tables.iter().flatten().any(|(oid, table)| now_is(oid) != Some(table));
            if is_changed {
                let reason = "the tables themselves were changed, and which rows are of before is not known to the second";
                let gap = Gap::without_events(looked.min(*now), Some(*now), reason);
                vault.append_record(&layout::state_folder(GAPS, resource), &gap).await?;
            } else {
                // A table more: that it is there a moment too early, without rows, hinders nobody.
                schema.at = looked.min(*now).max(before.at);
            }
        }
        schema.store(vault, resource).await?;
        Ok(())
    }

    /// Tables that are in no publication, whichever the connector's is.
    async fn unpublished(&self, client: &Client) -> Result<Vec<String>, DatabaseError> {
        let question = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
                          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
                          AND NOT EXISTS (SELECT FROM pg_publication_tables p WHERE p.schemaname = n.nspname AND p.tablename = c.relname)
                        ORDER BY 1";
        let rows = client.query(question, &[]).await.map_err(|error| self.address.failed("ask for its publications", &error))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Makes two transactions that change nothing: a connector may tell the end of one only with the next.
    async fn mark(&self, client: &Client) -> Result<(), DatabaseError> {
        let send = format!("SELECT pg_logical_emit_message(true, '{MARK}', '')");
        for _ in 0..2 {
            client.batch_execute(&send).await.map_err(|error| self.address.failed("send a message through its log", &error))?;
        }
        Ok(())
    }
}

async fn now(client: &Client, address: &Address) -> Result<Timestamp, DatabaseError> {
    let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
    let row = client.query_one(question, &[]).await.map_err(|error| address.failed("ask for its time", &error))?;
    Ok(Timestamp::from_micros(row.get(0)))
}
