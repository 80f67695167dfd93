//! Reading the sequences of a database, again and again: replication does not tell of them.
//!
//! ```text
//!  which are there, and may be read ─→ statements, each of some of them ─→ what is new ─→ the log
//!                                            └─ one fails ─→ each of these by itself
//! ```
//!
//! A reading takes the weakest lock that there is, for a moment, and waits for no other: one that somebody else holds alone, to empty
//! a table or to alter it, must not hold up the changes of all the others. What cannot be read is said in the log, and read later.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline::model::{Clock, Timestamp};
use pipeline::postgres::name::qualified;
use pipeline::source::sequence::{SequenceRead, SequenceState};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row, Statement};

use crate::{Address, DatabaseError};

/// Sequences that are read by one statement: it holds a lock on each until it has ended.
const AT_ONCE: usize = 64;
/// How long a statement may wait for a lock, in milliseconds.
const LOCK_WAIT_MS: u32 = 10;
/// So many times as long as a reading takes there is none afterwards, but with a mark.
const REST: u32 = 20;

/// Why a sequence is not read.
const NO_RIGHT: &str = "permission denied";
const HELD: &str = "somebody holds a lock on it";

/// The sequences that are kept, and whether they may be read; and if that is asked, whether somebody holds them alone, or waits to.
const LIST: &str = "
    SELECT n.nspname, c.relname, s.seqincrement, s.seqcycle,
           coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'), false),
           CASE WHEN $1 THEN EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database AND d.datname = current_database()
                                     WHERE relation = c.oid AND mode = 'AccessExclusiveLock') ELSE false END
    FROM pg_class c JOIN pg_sequence s ON s.seqrelid = c.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1, 2";

/// A sequence that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    schema: String,
    name: String,
    increment: i64,
    cycle: bool,
    /// Why it cannot be read, if that is known beforehand.
    barred: Option<&'static str>,
}

/// What came of reading one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Came {
    /// It was read, and when that was done.
    Read(SequenceState, Timestamp),
    /// It was not, and why.
    Unread(String),
    /// It is not there any more.
    Gone,
}

/// What is known of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    state: Option<SequenceState>,
    unread: Option<String>,
    /// The time that was asked before it was read last: what it says may have changed since.
    since: Timestamp,
}

/// The sequences of a database, for whoever follows its changes.
pub(crate) struct SequenceReader {
    listed: Vec<Listed>,
    /// Those that may be read, some at a time, each with the statement that does it, where there could be one.
    statements: Vec<(Vec<Listed>, Option<Statement>)>,
    known: BTreeMap<(String, String), Known>,
    /// Whether one of them was held alone when they were read last.
    is_any_held: bool,
    /// The time that was asked before the last reading.
    since: Timestamp,
    /// When the last reading had ended, and how long it had taken.
    ended: Timestamp,
    took: Duration,
}

impl SequenceReader {
    /// Nothing is known of them but what the log says up to `since`, by the clock of the server.
    pub(crate) fn known_until(since: Timestamp) -> SequenceReader {
        SequenceReader {
            listed: Vec::new(),
            statements: Vec::new(),
            known: BTreeMap::new(),
            is_any_held: false,
            since,
            ended: Timestamp::default(),
            took: Duration::ZERO,
        }
    }

    /// Whether reading them once more would take no more of the server's time than may be taken.
    pub(crate) fn have_rested(&self, clock: &dyn Clock) -> bool {
        clock.now().since(self.ended) >= self.took * REST
    }

    /// Reads them, and says what is new. Before that, and since the last reading, the server had said that it was `asked`, and that its
    /// log ended at `log_end`.
    ///
    /// # Errors
    /// The server's, if they are about the session and not about a sequence.
    pub(crate) async fn read(
        &mut self,
        client: &Client,
        address: &Address,
        (asked, log_end): (Timestamp, u64),
        clock: &dyn Clock,
    ) -> Result<Vec<SequenceRead>, DatabaseError> {
        let failed = |error| address.failed("read its sequences", &error);
        let began = clock.now();
        // Also to plan a statement takes locks.
        client.batch_execute(&format!("SET lock_timeout = {LOCK_WAIT_MS}")).await.map_err(failed)?;
        self.list(client).await.map_err(failed)?;
        let mut came = self.ask(client).await.map_err(failed)?;
        client.batch_execute("SET lock_timeout = 0").await.map_err(failed)?;
        let barred = |listed: &Listed| Some((listed.clone(), Came::Unread(listed.barred?.to_owned())));
        came.extend(self.listed.iter().filter_map(barred));
        self.is_any_held = came.iter().any(|(_, came)| *came == Came::Unread(HELD.to_owned()));
        let told = self.learn(came, (asked, log_end));
        (self.took, self.ended) = (clock.now().since(began), clock.now());
        Ok(told)
    }

    /// Finds which there are. Whoever has statements for the same ones keeps them: the server has planned them.
    async fn list(&mut self, client: &Client) -> Result<(), Error> {
        let barred = |row: &Row| match (row.get(4), row.get(5)) {
            (false, _) => Some(NO_RIGHT),
            // Asked for in vain again and again, it would fill the log of the server.
            (true, true) => Some(HELD),
            (true, false) => None,
        };
        let listed =
            |row: &Row| Listed { schema: row.get(0), name: row.get(1), increment: row.get(2), cycle: row.get(3), barred: barred(row) };
        let now: Vec<Listed> = client.query(LIST, &[&self.is_any_held]).await?.iter().map(listed).collect();
        if now == self.listed {
            return Ok(());
        }
        self.statements.clear();
        let readable: Vec<Listed> = now.iter().filter(|listed| listed.barred.is_none()).cloned().collect();
        for some in readable.chunks(AT_ONCE) {
            let statement = match client.prepare(&question(some)).await {
                Ok(statement) => Some(statement),
                // One of them is gone already, or cannot be locked.
                Err(error) if is_about_a_sequence(&error) => None,
                Err(error) => return Err(error),
            };
            self.statements.push((some.to_vec(), statement));
        }
        self.listed = now;
        Ok(())
    }

    async fn ask(&self, client: &Client) -> Result<Vec<(Listed, Came)>, Error> {
        let mut came = Vec::new();
        for (some, statement) in &self.statements {
            let rows = match statement {
                Some(statement) => client.query(statement, &[]).await.map(Some),
                None => Ok(None),
            };
            match rows {
                Ok(Some(rows)) => came.extend(rows.iter().filter_map(|row| {
                    let listed = some.get(row.get::<_, i32>(0) as usize)?;
                    Some((listed.clone(), read(listed, row)))
                })),
                Ok(None) => each(client, some, &mut came).await?,
                Err(error) if is_about_a_sequence(&error) => each(client, some, &mut came).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(came)
    }

    /// What of all that came is new.
    fn learn(&mut self, came: Vec<(Listed, Came)>, (asked, log_end): (Timestamp, u64)) -> Vec<SequenceRead> {
        let mut told = Vec::new();
        let mut known_now = BTreeMap::new();
        for (Listed { schema, name, .. }, came) in came {
            let before = self.known.get(&(schema.clone(), name.clone()));
            let (counts_from, last) = before.map_or((self.since, None), |known| (known.since, known.state));
            let (state, unread, read_at, since) = match came {
                Came::Gone => continue,
                Came::Read(state, read_at) => (Some(state), None, read_at, self.since.max(asked)),
                Came::Unread(reason) => (last, Some(reason), asked, counts_from),
            };
            let known = Known { state, unread, since };
            let is_new = before.is_none_or(|before| (&before.state, &before.unread) != (&known.state, &known.unread));
            if is_new {
                let unread = known.unread.clone();
                told.push(SequenceRead { schema: schema.clone(), name: name.clone(), counts_from, read_at, log_end, state, unread });
            }
            known_now.insert((schema, name), known);
        }
        self.known = known_now;
        self.since = self.since.max(asked);
        told
    }
}

/// Those that the user may not read, by `schema.name`.
///
/// # Errors
/// The server's.
pub(crate) async fn unreadable(client: &Client, address: &Address) -> Result<Vec<String>, DatabaseError> {
    let rows = client.query(LIST, &[&false]).await.map_err(|error| address.failed("list its sequences", &error))?;
    let named = |row: &Row| format!("{}.{}", row.get::<_, &str>(0), row.get::<_, &str>(1));
    Ok(rows.iter().filter(|row| !row.get::<_, bool>(4)).map(named).collect())
}

/// The statement that reads some of them. What a row has of the clock it has behind what it has of its sequence.
fn question(some: &[Listed]) -> String {
    let one = |(index, listed): (usize, &Listed)| {
        let name = qualified(&listed.schema, &listed.name);
        format!("SELECT {index}, last_value, is_called, (extract(epoch FROM clock_timestamp()) * 1000000)::int8 FROM {name}")
    };
    some.iter().enumerate().map(one).collect::<Vec<_>>().join(" UNION ALL ")
}

fn read(listed: &Listed, row: &Row) -> Came {
    let Listed { increment, cycle, .. } = *listed;
    let state = SequenceState { last_value: row.get(1), is_called: row.get(2), increment, cycle };
    Came::Read(state, Timestamp::from_micros(row.get(3)))
}

/// Reads each of some by itself.
async fn each(client: &Client, some: &[Listed], came: &mut Vec<(Listed, Came)>) -> Result<(), Error> {
    for listed in some {
        let of_one = match client.query_opt(&question(std::slice::from_ref(listed)), &[]).await {
            Ok(Some(row)) => read(listed, &row),
            Ok(None) => Came::Gone,
            Err(error) if is_about_a_sequence(&error) => match error.code() {
                Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => Came::Gone,
                Some(&SqlState::LOCK_NOT_AVAILABLE) => Came::Unread(HELD.to_owned()),
                Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Came::Unread(NO_RIGHT.to_owned()),
                _ => Came::Unread(error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned())),
            },
            Err(error) => return Err(error),
        };
        came.push((listed.clone(), of_one));
    }
    Ok(())
}

/// Whether a statement failed for what it was about, and the session goes on.
fn is_about_a_sequence(error: &Error) -> bool {
    // Connections, resources, and whoever ends statements or the server.
    error.code().is_some_and(|code| !["08", "53", "57"].iter().any(|class| code.code().starts_with(class)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn listed(name: &str) -> Listed {
        Listed { schema: "public".to_owned(), name: name.to_owned(), increment: 1, cycle: false, barred: None }
    }

    fn came(name: &str, value: i64, at: i64) -> (Listed, Came) {
        (listed(name), Came::Read(SequenceState { last_value: value, is_called: true, increment: 1, cycle: false }, seconds(at)))
    }

    /// What is told, as (name, from when on it counts, when it was read, value).
    fn told(sequences: &mut SequenceReader, came: &[(Listed, Came)], asked: i64) -> Vec<(String, i64, i64, Option<i64>)> {
        let told = sequences.learn(came.to_vec(), (seconds(asked), 0));
        let short =
            |read: SequenceRead| (read.name, read.counts_from.seconds(), read.read_at.seconds(), read.state.map(|state| state.last_value));
        told.into_iter().map(short).collect()
    }

    #[test]
    fn what_is_new_counts_from_the_reading_before_whether_that_was_kept_or_not() {
        let mut sequences = SequenceReader::known_until(seconds(10));
        assert_eq!(told(&mut sequences, &[came("a", 41, 13)], 12), [("a".to_owned(), 10, 13, Some(41))]);
        assert_eq!(told(&mut sequences, &[came("a", 41, 15)], 14), []);
        assert_eq!(told(&mut sequences, &[came("a", 57, 17)], 16), [("a".to_owned(), 14, 17, Some(57))]);
        // One that is made later.
        assert_eq!(told(&mut sequences, &[came("a", 57, 19), came("b", 1, 19)], 18), [("b".to_owned(), 16, 19, Some(1))]);
        // A clock that was set back makes no reading count earlier than the ones before.
        assert_eq!(told(&mut sequences, &[came("a", 57, 8), came("b", 2, 8)], 7), [("b".to_owned(), 18, 8, Some(2))]);
        assert_eq!(told(&mut sequences, &[came("a", 58, 9)], 8), [("a".to_owned(), 18, 9, Some(58))]);
    }

    #[test]
    fn one_that_could_not_be_read_is_told_once_and_then_counts_from_when_it_was_read_last() {
        let mut sequences = SequenceReader::known_until(seconds(10));
        let unread = || (listed("a"), Came::Unread(HELD.to_owned()));
        told(&mut sequences, &[came("a", 41, 13)], 12);
        assert_eq!(told(&mut sequences, &[unread()], 14), [("a".to_owned(), 12, 14, Some(41))]);
        assert_eq!(told(&mut sequences, &[unread()], 16), []);
        assert_eq!(told(&mut sequences, &[came("a", 43, 19)], 18), [("a".to_owned(), 12, 19, Some(43))]);
        assert_eq!(told(&mut sequences, &[(listed("a"), Came::Gone)], 20), []);
        assert_eq!(told(&mut sequences, &[came("a", 1, 23)], 22), [("a".to_owned(), 20, 23, Some(1))]);
    }
}
