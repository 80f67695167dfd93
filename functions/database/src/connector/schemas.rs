//! The schema of a database whose changes a connector tells, which the connector does not: it is asked of the database itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipeline::changelog::coverage::{GAPS, Gap};
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::vault::{Vault, layout};
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::catalogue::{Catalogue, KnownTable};
use crate::schema::{self, Schema};
use crate::{Address, DatabaseError};

/// How often the catalogue is held against what is known.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After so long without a transaction one is made, and no more often: what is not followed by another one cannot be told to be the last.
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
        let mut marked = None;
        loop {
            let now = now(&client, &self.address).await?;
            let seen =
                Seen { now, catalogue: Catalogue::ask(&client, &self.address).await?, unpublished: self.unpublished(&client).await? };
            if known.as_ref().is_none_or(|known| !seen.is_like(known)) {
                self.keep(vault, &client, &seen, looked.unwrap_or(now)).await?;
                if !seen.unpublished.is_empty() {
                    tell(format!(
                        "{} in no publication that tells all changes, so that what a connector tells is not all: {}; ALTER PUBLICATION ... ADD \
                         TABLE, and let the connector take a new snapshot",
                        if seen.unpublished.len() == 1 { "a table is" } else { "tables are" },
                        seen.unpublished.join(", ")
                    ));
                }
                known = Some(seen);
            }
            looked = Some(now);
            let newest = *latest.borrow();
            let is_old = |at: Option<Timestamp>| at.is_none_or(|at| now.since(at) >= MARK_AFTER);
            if is_old(newest) && is_old(marked) {
                self.mark(&client).await?;
                marked = Some(now);
            }
            clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Writes the schema down that is there now, unless it is what is known; since `looked` it may be.
    async fn keep(&self, vault: &Vault, client: &Client, seen: &Seen, looked: Timestamp) -> Result<(), DatabaseError> {
        let Schemas { address, programs, resource, epoch } = self;
        let Seen { now, catalogue, unpublished } = seen;
        let schema = Schema::read(programs.as_deref(), address, client, None, (*epoch, *now), None).await?;
        let before = schema::of_epoch(vault, resource, *epoch, Timestamp::MAX).await?;
        let schema = schema.with_defaults_of(before.as_ref()).with_untold_of(before.as_ref(), unpublished, *now);
        let mut schema = Schema { tables: Some(catalogue.tables.clone()), ..schema };
        if let Some(before) = before {
            if before.is_same(&schema) {
                return Ok(());
            }
            let reason = "the tables themselves were changed, and which rows are of before is not known to the second";
            let gap = |to, reason: String| Gap::without_events(looked.min(*now), to, reason);
            let noted = match change(&before, &schema) {
                // A table more: that it is there a moment too early, without rows, hinders nobody.
                Change::Nothing => {
                    schema.at = looked.min(*now).max(before.at);
                    None
                }
                Change::Columns => Some(gap(Some(*now), reason.to_owned())),
                Change::Rows(table) => Some(gap(
                    None,
                    format!(
                        "table {table} was changed so that its rows may be others, which no connector tells: it must take a new snapshot"
                    ),
                )),
            };
            if let Some(gap) = noted {
                vault.append_record(&layout::state_folder(GAPS, resource), &gap).await?;
            }
        }
        schema.store(vault, resource).await?;
        Ok(())
    }

    /// Tables of which no publication tells everything, whichever the connector's is.
    async fn unpublished(&self, client: &Client) -> Result<Vec<String>, DatabaseError> {
        let question = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
                          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
                          AND NOT EXISTS (SELECT FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
                                          WHERE t.schemaname = n.nspname AND t.tablename = c.relname AND to_jsonb(t) ->> 'rowfilter' IS NULL
                                            AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate)
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

/// What a change of the schema means for rows that were told before.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Nothing: a table is new, or something beside the tables is another one.
    Nothing,
    /// They may lack columns that are new, or their table is gone: what they are now is known.
    Columns,
    /// They may be others, of this table.
    Rows(String),
}

/// What became of the tables between two schemas.
fn change(before: &Schema, now: &Schema) -> Change {
    let (Some(were), Some(are)) = (&before.tables, &now.tables) else { return Change::Rows("of before".to_owned()) };
    let mut change = Change::Nothing;
    for (oid, table) in were {
        let name = format!("{}.{}", table.schema, table.name);
        match are.get(oid) {
            Some(same) if same == table => {}
            Some(other) => {
                let definitions = (before.definition(&table.schema, &table.name), now.definition(&other.schema, &other.name));
                let (Some(was), Some(is)) = definitions else { return Change::Rows(name) };
                if (&table.schema, &table.name) != (&other.schema, &other.name) || !only_adds(was, is) {
                    return Change::Rows(name);
                }
                change = Change::Columns;
            }
            // Made again under its name, it has other rows; and one that is not logged is told no more.
            None if now.definition(&table.schema, &table.name).is_some() => return Change::Rows(name),
            None => change = Change::Columns,
        }
    }
    // One that was there and is known only now: it was not logged.
    let is_late = |table: &&KnownTable| before.definition(&table.schema, &table.name).is_some();
    match are.iter().filter(|(oid, _)| !were.contains_key(*oid)).map(|(_, table)| table).find(is_late) {
        Some(table) => Change::Rows(format!("{}.{}", table.schema, table.name)),
        None => change,
    }
}

/// Whether a definition has every line of an earlier one, in their order: columns were added at most.
fn only_adds(was: &str, is: &str) -> bool {
    let bare = |text: &str| text.lines().map(|line| line.trim_end_matches(',').to_owned()).collect::<Vec<String>>();
    let mut now = bare(is).into_iter();
    bare(was).iter().all(|line| now.any(|other| other == *line))
}

async fn now(client: &Client, address: &Address) -> Result<Timestamp, DatabaseError> {
    let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
    let row = client.query_one(question, &[]).await.map_err(|error| address.failed("ask for its time", &error))?;
    Ok(Timestamp::from_micros(row.get(0)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Number, name, digest and columns of a table.
    type Described<'a> = (u32, &'a str, &'a str, &'a [&'a str]);

    fn schema(tables: &[Described<'_>]) -> Schema {
        let known = |(oid, name, digest, _): &Described<'_>| {
            (*oid, KnownTable { schema: "public".to_owned(), name: (*name).to_owned(), digest: (*digest).to_owned() })
        };
        let part = |(_, name, _, columns): &Described<'_>| {
            format!(
                "\n--\n-- Name: {name}; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.{name} (\n    {}\n);\n",
                columns.join(",\n    ")
            )
        };
        Schema {
            epoch: 1,
            at: Timestamp::default(),
            catalogue: None,
            encoding: None,
            collate: None,
            ctype: None,
            defaults: BTreeMap::new(),
            tables: Some(tables.iter().filter(|(_, _, digest, _)| *digest != "unlogged").map(known).collect()),
            untold: BTreeMap::new(),
            before_rows: tables.iter().map(part).collect(),
            after_rows: String::new(),
        }
    }

    #[test]
    fn only_what_leaves_old_rows_as_they_are_is_known_to_the_second() {
        let before = schema(&[(1, "t", "a", &["id int", "v text"]), (2, "u", "a", &["id int"]), (3, "w", "unlogged", &["id int"])]);
        let check = |tables: &[Described<'_>], expected: Change| assert_eq!(change(&before, &schema(tables)), expected, "{tables:?}");
        let (u, w): (Described<'_>, Described<'_>) = ((2, "u", "a", &["id int"]), (3, "w", "unlogged", &["id int"]));
        let rows = |table: &str| Change::Rows(format!("public.{table}"));
        check(&[(1, "t", "a", &["id int", "v text"]), u, w], Change::Nothing);
        check(&[(1, "t", "a", &["id int", "v text"]), u, w, (4, "new", "a", &["id int"])], Change::Nothing);
        check(&[(1, "t", "b", &["id int", "v text", "more int DEFAULT 3"]), u, w], Change::Columns);
        check(&[(1, "t", "b", &["id int", "v numeric"]), u, w], rows("t"));
        check(&[(1, "t", "b", &["id int", "renamed text"]), u, w], rows("t"));
        check(&[(1, "t2", "b", &["id int", "v text"]), u, w], rows("t"));
        check(&[(9, "t", "a", &["id int", "v text"]), u, w], rows("t"));
        check(&[u, w], Change::Columns);
        check(&[(1, "t", "a", &["id int", "v text"]), u, (3, "w", "a", &["id int"])], rows("w"));
    }
}
