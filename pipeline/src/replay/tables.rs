//! The tables of a database at a cut.
//!
//! ```text
//!  segments ─→ what is told of the database itself ─→ commits ─→ where T is among them ─┐
//!         └──→ rows of tables, by hash bucket ─────────────────────────────────────────┴→ fold up to there
//! ```
//!
//! The state at T ends between two commits ([`commits`](crate::changelog::commits)). What is behind the last transaction that has
//! ended is in no state: the rest of it is still to come.

mod changes;
mod marker;
mod sequences;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::base::KeyRange;
use crate::base::folding::{Folding, Loose};
use crate::base::inputs::Inventory;
use crate::changelog::commits::{Commit, Commits, Place};
use crate::changelog::coverage::Gap;
use crate::fold::tuple::{Carried, Keep, Moves, Resets, TupleJoin};
use crate::fold::{Cut, Fold};
use crate::model::change::{ChangeBatch, TupleRow};
use crate::model::{Op, ResourceId, ResourceKind, Timestamp};
use crate::source::control;
use crate::vault::{Vault, VaultError};

pub use self::changes::{Emptied, Happened, RowChange};
pub use self::marker::Marker;
pub use self::sequences::{KnownSequence, Sequences};

/// Which state of a database is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablesPoint {
    /// That at this instant: all transactions up to the first that was committed after it.
    Time(Timestamp),
    /// That behind a transaction, by its number.
    Transaction(String),
    /// That behind the last transaction whose commit stands there in the log of the server, or before.
    Lsn(u64),
    /// That at a marker, by its name: the last of that name.
    Marker(String),
    /// The last there is.
    Latest,
}

/// A state that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablesCut {
    /// The position that ends it.
    pub until: Vec<u8>,
    /// When its last transaction was committed.
    pub at: Timestamp,
    /// The number of that.
    pub transaction: Option<String>,
}

/// Why a state cannot be restored; each names the nearest that can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// The snapshot has not ended.
    #[error(
        "the vault does not have {resource} whole yet: its first snapshot has not been read whole; the window opens when it has, and `hindsight serve` reads it"
    )]
    NoData {
        /// The database that was asked for.
        resource: ResourceId,
    },
    /// Before the snapshot.
    #[error("the vault does not have {resource} as of {to}: the earliest restorable time is {earliest}")]
    TooEarly {
        /// The database that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// The nearest instant that can be restored.
        earliest: Timestamp,
    },
    /// Behind the last transaction that has ended.
    #[error("the vault does not have {resource} as of {to}: the log is complete only up to {latest}; write `latest` for that")]
    TooLate {
        /// The database that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// The nearest instant that can be restored.
        latest: Timestamp,
    },
    /// A segment of the log is missing.
    #[error("the vault does not have {resource} as of {to}: a segment of the log is missing, and nothing from {from} on is complete")]
    Gap {
        /// The database that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// The earliest time in what is missing.
        from: Timestamp,
    },
    /// Within a time of which not all is known.
    #[error("the vault does not have {resource} as of {to}: {}; write {}{}", gap.reason, gap.from, gap.to.map(|to| format!(" or {to}")).unwrap_or_default())]
    Within {
        /// The database that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// From when to when, and why.
        gap: Box<Gap>,
    },
    /// No transaction with that number.
    #[error("the vault does not have {resource} behind transaction {transaction}: no transaction with that number has ended")]
    NoTransaction {
        /// The database that was asked for.
        resource: ResourceId,
        /// What was asked for.
        transaction: String,
    },
    /// No commit stands there yet, or the log does not go back so far.
    #[error("the vault does not have {resource} at lsn {}: {}", lsn_text(*lsn), nearest_lsn(*first, *last))]
    NoLsn {
        /// The database that was asked for.
        resource: ResourceId,
        /// What was asked for.
        lsn: u64,
        /// The first commit of the log.
        first: Option<u64>,
        /// The last.
        last: Option<u64>,
    },
    /// No marker of that name.
    #[error("the vault does not have {resource} at marker {name:?}: there is no such marker{}", others(known))]
    NoMarker {
        /// The database that was asked for.
        resource: ResourceId,
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
}

/// A place in the log of the server, as PostgreSQL writes it.
pub fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & u64::from(u32::MAX))
}

fn nearest_lsn(first: Option<u64>, last: Option<u64>) -> String {
    match (first, last) {
        (Some(first), Some(last)) => {
            format!("commits are known from lsn {} to {}; write one of these or between them, or `latest`", lsn_text(first), lsn_text(last))
        }
        _ => "nothing was committed since its snapshot; write `latest`".to_owned(),
    }
}

fn others(known: &[String]) -> String {
    if known.is_empty() {
        return ", nor any other; one is made by SELECT pg_logical_emit_message(true, 'hindsight', 'NAME')".to_owned();
    }
    format!("; there are {}", known.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "))
}

/// What the log says of a database itself.
#[derive(Debug, Clone, Default)]
pub struct DatabaseLog {
    commits: Commits,
    emptied: Vec<Emptied>,
    shapes: BTreeMap<String, String>,
    markers: Vec<Marker>,
    /// Where messages stand that could not be decoded.
    raw: BTreeSet<Vec<u8>>,
}

/// The log of a database, and how to read its tables.
#[derive(Debug, Clone)]
pub struct Tables {
    resource: ResourceId,
    folding: Folding,
    log: DatabaseLog,
    carried: Arc<Carried>,
    /// The instant up to which all that was committed is in the log.
    latest: Timestamp,
    /// The earliest time in a segment that is missing.
    missing_from: Option<Timestamp>,
    /// Times of which not all is known.
    gaps: Vec<Gap>,
}

impl DatabaseLog {
    /// Up to where tables had been emptied at a position.
    fn resets_up_to(&self, until: &[u8]) -> Resets {
        let mut resets = Resets::default();
        for emptied in self.emptied.iter().filter(|emptied| emptied.position.as_slice() <= until) {
            match emptied.schema.as_str() {
                control::NO_SCHEMA => resets.everything(&emptied.position),
                schema => resets.table(schema, &emptied.table, &emptied.position),
            }
        }
        resets
    }

    fn take(&mut self, row: &TupleRow<'_>, commits: &mut Vec<Commit>) {
        match (row.op, row.schema, row.table) {
            (Op::Reset, ..) => self.emptied.push(Emptied::of(row)),
            (Op::Raw, ..) => drop(self.raw.insert(row.position.to_vec())),
            (Op::Put, control::NO_SCHEMA, control::TRANSACTION) => {
                let transaction = row.request.map(str::to_owned);
                commits.push(Commit { until: row.position.to_vec(), at: row.at, transaction });
            }
            (Op::Put, control::NO_SCHEMA, control::MESSAGE) => self.markers.extend(Marker::of(row)),
            (Op::Put, control::NO_SCHEMA, control::SHAPE) => {
                let name = row.identity.and_then(|identity| serde_json::from_str::<[String; 1]>(identity).ok());
                if let (Some([name]), Some(document)) = (name, row.image) {
                    self.shapes.insert(name, document.to_owned());
                }
            }
            _ => {}
        }
    }
}

/// Goes through every change that the log has of a range of keys, each once.
async fn every_change(
    vault: &Vault,
    folding: &Folding,
    range: &KeyRange,
    mut look: impl FnMut(&[u8], &TupleRow<'_>),
) -> Result<(), VaultError> {
    for pass in folding.passes() {
        let loose = folding.load(vault, pass.clone()).await?;
        for bucket in folding.occupied(&loose, pass) {
            let join = TupleJoin::new(None, Keep::Changes, Resets::default());
            let mut fold = folding.fold_by(vault, &loose, bucket, range, join);
            while let Some(folded) = fold.next().await? {
                let rows = batch_of(folded.rows)?;
                let columns = rows.tuple_columns();
                columns.iter().enumerate().for_each(|(index, row)| look(columns.key.value(index), &row));
            }
        }
    }
    Ok(())
}

impl Tables {
    /// Reads what the log says of a database.
    ///
    /// # Errors
    /// As reading the vault.
    pub async fn read(vault: &Vault, inventory: &Inventory) -> Result<Tables, VaultError> {
        let folding = Folding::new(vault, inventory.inputs(Cut::Nothing), Cut::Nothing, 0).await?;
        let mut log = DatabaseLog::default();
        let (mut commits, mut moves) = (Vec::new(), Moves::default());
        folding
            .telling(vault, |changes| {
                let columns = changes.tuple_columns();
                columns.iter().enumerate().for_each(|(index, row)| {
                    log.take(&row, &mut commits);
                    moves.look_at(columns.key.value(index), &row);
                });
            })
            .await?;
        log.commits = Commits::new(commits);
        if !moves.is_empty() {
            every_change(vault, &folding, &KeyRange::default(), |key, row| moves.remember(key, row)).await?;
        }
        let carried = Arc::new(moves.carried(|position| log.resets_up_to(position)));
        let missing_from = inventory.missing.iter().map(crate::changelog::link::Link::first).min();
        let latest = inventory.latest().unwrap_or_default();
        let gaps = inventory.gaps.iter().filter(|gap| gap.segment.is_none()).cloned().collect();
        Ok(Tables { resource: inventory.resource.clone(), folding, log, carried, latest, missing_from, gaps })
    }

    /// The commits that the log has, in their order.
    pub fn commits(&self) -> &Commits {
        &self.log.commits
    }

    /// What the columns of a table were, as a document, by the name that changes refer to it with.
    pub fn shape(&self, name: &str) -> Option<&str> {
        self.log.shapes.get(name).map(String::as_str)
    }

    /// The markers that were set, in no order.
    pub fn markers(&self) -> &[Marker] {
        &self.log.markers
    }

    /// How many messages could not be decoded.
    pub fn raw(&self) -> u64 {
        self.log.raw.len() as u64
    }

    /// Where a state ends.
    ///
    /// # Errors
    /// [`TablesError`] says why there is no such state, and which there is.
    pub fn cut(&self, point: &TablesPoint) -> Result<TablesCut, TablesError> {
        let resource = || self.resource.clone();
        let (first, last) = self.log.commits.ends().ok_or_else(|| TablesError::NoData { resource: resource() })?;
        if self.latest < first.at && *point != TablesPoint::Latest {
            return Err(TablesError::NoData { resource: resource() });
        }
        // What lies between a commit and the next may belong to what was asked for, if anything of it is missing.
        let mut is_between = false;
        let (commit, to) = match point {
            TablesPoint::Latest => (last, last.at),
            TablesPoint::Transaction(transaction) => {
                let unknown = || TablesError::NoTransaction { resource: resource(), transaction: transaction.clone() };
                let commit = self.log.commits.behind(transaction).ok_or_else(unknown)?;
                (commit, commit.at)
            }
            TablesPoint::Lsn(lsn) => {
                let (first, last) = self.log.commits.lsns();
                let no_lsn = || TablesError::NoLsn { resource: resource(), lsn: *lsn, first, last };
                // Another may still come that stands before it.
                let is_known = last.is_some_and(|last| *lsn <= last);
                let commit = self.log.commits.up_to_lsn(*lsn).filter(|_| is_known).ok_or_else(no_lsn)?;
                is_between = commit.lsn() != Some(*lsn);
                (commit, commit.at)
            }
            TablesPoint::Marker(name) => {
                let known = || self.log.markers.iter().map(|marker| marker.name.clone()).collect::<BTreeSet<_>>().into_iter().collect();
                let unknown = || TablesError::NoMarker { resource: resource(), name: name.clone(), known: known() };
                let named = self.log.markers.iter().filter(|marker| marker.name == *name);
                let marker = named.max_by(|a, b| a.position.cmp(&b.position)).ok_or_else(unknown)?;
                let commit = marker.state(&self.log.commits).ok_or_else(unknown)?;
                is_between = marker.transaction.is_none();
                (commit, commit.at)
            }
            TablesPoint::Time(to) => match self.log.commits.at(*to) {
                // Another may still come that was committed by then.
                Place::Present(_) | Place::Future(_) if *to > self.latest => {
                    return Err(TablesError::TooLate { resource: resource(), to: *to, latest: self.latest });
                }
                Place::Present(commit) => (commit, *to),
                // Nothing was committed since, and the log says so.
                Place::Future(_) => (last, *to),
                Place::Past(_) | Place::NoData => {
                    return Err(TablesError::TooEarly { resource: resource(), to: *to, earliest: first.at });
                }
            },
        };
        // What was committed while the first snapshot was made may be in it before its time, or not whole.
        if to < first.at && *point != TablesPoint::Latest {
            return Err(TablesError::TooEarly { resource: resource(), to, earliest: first.at });
        }
        let next = self.log.commits.after(commit).filter(|_| is_between).map(|next| next.at);
        let is_within = |gap: &&Gap| {
            gap.from < to && gap.to.is_none_or(|ended| to < ended)
                || next.is_some_and(|next| gap.from < next && gap.to.is_none_or(|ended| to < ended))
        };
        if let Some(gap) = self.gaps.iter().find(is_within) {
            return Err(TablesError::Within { resource: resource(), to, gap: Box::new(gap.clone()) });
        }
        // A snapshot that ends a gap stands behind changes that the stream still has to bring: until then the last commit ends no state.
        let is_ahead = |gap: &&Gap| *point == TablesPoint::Latest && gap.to.is_some_and(|ended| self.latest < ended);
        if let Some(gap) = self.gaps.iter().find(is_ahead) {
            return Err(TablesError::Within { resource: resource(), to, gap: Box::new(Gap { to: None, ..gap.clone() }) });
        }
        if let Some(from) = self.missing_from.filter(|from| *from <= next.map_or(to, |next| next.max(to))) {
            return Err(TablesError::Gap { resource: resource(), to, from });
        }
        Ok(TablesCut { until: commit.until.clone(), at: commit.at, transaction: commit.transaction.clone() })
    }

    /// Into how many hash buckets the rows are divided.
    pub fn buckets(&self) -> u32 {
        self.folding.buckets()
    }

    /// Ranges of hash buckets that fit into memory together.
    pub fn passes(&self) -> Vec<Range<u32>> {
        self.folding.passes()
    }

    /// Reads the segments' rows of some buckets.
    ///
    /// # Errors
    /// As reading the vault.
    pub async fn load(&self, vault: &Vault, buckets: Range<u32>) -> Result<Loose, VaultError> {
        self.folding.load(vault, buckets).await
    }

    /// The buckets of a range that have anything at all.
    pub fn occupied(&self, loose: &Loose, buckets: Range<u32>) -> Vec<u32> {
        self.folding.occupied(loose, buckets)
    }

    /// The rows that the tables have at a cut, of one hash bucket, sorted by schema, table and key.
    pub fn rows(&self, vault: &Vault, loose: &Loose, bucket: u32, cut: &TablesCut) -> Fold<'static, TupleJoin, VaultError> {
        let resets = self.log.resets_up_to(&cut.until);
        let join = TupleJoin::new(Some(cut.until.clone()), Keep::State, resets).carrying(Arc::clone(&self.carried));
        self.folding.fold_by(vault, loose, bucket, &KeyRange::default(), join)
    }
}

fn batch_of(rows: arrow::array::RecordBatch) -> Result<ChangeBatch, VaultError> {
    ChangeBatch::of(ResourceKind::Database, rows).map_err(|error| VaultError::damaged("the rows of a database", error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::changelog::write;
    use crate::source::pgoutput::{Begin, Column, Decoder, Feed, Relation};
    use crate::testing::block_on;

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn relation() -> Relation {
        let column = |name: &str, key| Column { name: name.to_owned(), type_oid: 25, modifier: -1, key };
        let columns = vec![column("id", true), column("name", false)];
        Relation { oid: 7, schema: "public".to_owned(), table: "t".to_owned(), identity: 'd', columns }
    }

    fn insert(id: &str, name: &str) -> Vec<u8> {
        let mut message = vec![b'I', 0, 0, 0, 7, b'N', 0, 2];
        for text in [id, name] {
            message.push(b't');
            message.extend_from_slice(&(text.len() as i32).to_be_bytes());
            message.extend_from_slice(text.as_bytes());
        }
        message
    }

    /// A snapshot of row 0 at second 10, then one transaction for each time, numbered from 1, that puts a row with its number; each
    /// in a segment of its own. `open` has begun and not ended.
    async fn tables(times: &[i64], open: bool, latest: i64) -> (Vault, Tables) {
        let vault = Vault::new(Arc::new(InMemory::new()), "");
        let resource = ResourceId::database("shop").unwrap();
        let mut decoder = Decoder::new(Feed { stream: "slot".to_owned(), epoch: 1 });
        decoder.snapshot(&relation(), 1, seconds(10), &[Some("0"), Some("a")]).unwrap();
        decoder.end_snapshot(1, seconds(10));
        let mut batches = vec![decoder.finish()];
        for (number, time) in (1..).zip(times) {
            decoder.begin(Begin { commit: 100 * u64::from(number), at: seconds(*time), xid: number });
            decoder.data(&insert(&number.to_string(), "b"));
            decoder.data(&insert("0", &format!("by {number}")));
            if !open || number < times.len() as u32 {
                decoder.commit(100 * u64::from(number) + 8);
            }
            batches.push(decoder.finish());
        }
        let mut after = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let known = if index + 1 == batches.len() { latest } else { 0 };
            let encoded = write::encode(&resource, batch, seconds(3_600), seconds(known), after).unwrap();
            after = vec![write::append(&vault, &encoded).await.unwrap().name.link()];
        }
        let inventory = Inventory::load(&vault, &resource).await.unwrap();
        let tables = Tables::read(&vault, &inventory).await.unwrap();
        (vault, tables)
    }

    /// The images at a cut.
    async fn images(vault: &Vault, tables: &Tables, point: &TablesPoint) -> Vec<String> {
        let cut = tables.cut(point).unwrap();
        let mut images = Vec::new();
        for pass in tables.passes() {
            let loose = tables.load(vault, pass.clone()).await.unwrap();
            for bucket in tables.occupied(&loose, pass) {
                let mut fold = tables.rows(vault, &loose, bucket, &cut);
                while let Some(folded) = fold.next().await.unwrap() {
                    images.extend(batch_of(folded.rows).unwrap().tuple_columns().iter().map(|row| row.image.unwrap().to_owned()));
                }
            }
        }
        images
    }

    fn numbers(images: &[String]) -> Vec<&str> {
        images.iter().map(|image| image.split('"').nth(3).unwrap()).collect()
    }

    #[test]
    fn a_state_is_the_snapshot_and_all_transactions_before_the_first_that_was_committed_after_its_time() {
        block_on(async {
            let (vault, tables) = tables(&[20, 30, 29, 40], false, 40).await;
            for (at, expected) in
                [(10, vec!["0"]), (19, vec!["0"]), (20, vec!["0", "1"]), (29, vec!["0", "1"]), (30, vec!["0", "1", "2", "3"])]
            {
                let images = images(&vault, &tables, &TablesPoint::Time(seconds(at))).await;
                assert_eq!(numbers(&images), expected, "at {at}");
            }
            let last = images(&vault, &tables, &TablesPoint::Latest).await;
            assert_eq!((numbers(&last), last[0].as_str()), (vec!["0", "1", "2", "3", "4"], r#"{"id":"0","name":"by 4"}"#));
            assert_eq!(numbers(&images(&vault, &tables, &TablesPoint::Transaction("2".to_owned())).await), ["0", "1", "2"]);
        });
    }

    #[test]
    fn a_transaction_that_has_not_ended_is_in_no_state() {
        block_on(async {
            let (vault, tables) = tables(&[20, 30], true, 20).await;
            assert_eq!(numbers(&images(&vault, &tables, &TablesPoint::Latest).await), ["0", "1"]);
            let too_late = tables.cut(&TablesPoint::Time(seconds(30))).unwrap_err();
            assert!(too_late.to_string().contains("complete only up to 1970-01-01T00:00:20Z"), "{too_late}");
        });
    }

    #[test]
    fn until_the_stream_has_come_to_the_end_of_a_gap_there_is_no_latest_state() {
        block_on(async {
            let (_, tables) = tables(&[20, 30], false, 25).await;
            let gap = |ended| Gap::without_events(seconds(22), Some(seconds(ended)), "the tables themselves were changed");
            for (ended, is_whole) in [(25, true), (26, false), (30, false)] {
                let latest = Tables { gaps: vec![gap(ended)], ..tables.clone() }.cut(&TablesPoint::Latest);
                assert_eq!(latest.is_ok(), is_whole, "{ended}");
                let said = latest.map_or_else(|error| error.to_string(), |_| String::new());
                assert!(is_whole || said.ends_with("the tables themselves were changed; write 1970-01-01T00:00:22Z"), "{said}");
            }
        });
    }

    #[test]
    fn what_was_committed_while_the_first_snapshot_was_made_is_no_state_of_its_own() {
        block_on(async {
            let (vault, tables) = tables(&[8, 9, 20], false, 20).await;
            for point in [TablesPoint::Transaction("1".to_owned()), TablesPoint::Lsn(200), TablesPoint::Time(seconds(9))] {
                let said = tables.cut(&point).unwrap_err().to_string();
                assert!(said.contains("the earliest restorable time is 1970-01-01T00:00:10Z"), "{point:?}: {said}");
            }
            assert_eq!(numbers(&images(&vault, &tables, &TablesPoint::Time(seconds(10))).await), ["0", "1", "2"]);
        });
    }

    #[test]
    fn a_database_in_which_nothing_happens_can_be_restored_to_any_time_up_to_which_its_log_is_known_to_be_whole() {
        block_on(async {
            let (vault, tables) = tables(&[20], false, 50).await;
            assert_eq!(numbers(&images(&vault, &tables, &TablesPoint::Time(seconds(50))).await), ["0", "1"]);
            let check = |at, words: &str| {
                let error = tables.cut(&TablesPoint::Time(seconds(at))).unwrap_err().to_string();
                assert!(error.contains(words), "{error}");
            };
            check(51, "complete only up to 1970-01-01T00:00:50Z");
            check(9, "the earliest restorable time is 1970-01-01T00:00:10Z");
            let error = tables.cut(&TablesPoint::Transaction("7".to_owned())).unwrap_err().to_string();
            assert!(error.contains("behind transaction 7"), "{error}");
        });
    }

    #[test]
    fn what_is_behind_a_segment_that_is_missing_is_refused() {
        block_on(async {
            let (vault, whole) = tables(&[20, 30, 40], false, 40).await;
            let inventory = Inventory::load(&vault, &whole.resource).await.unwrap();
            let lost = inventory.segments.iter().find(|segment| segment.name.first == seconds(30)).unwrap();
            let mut inventory = inventory.clone();
            inventory.segments.retain(|segment| segment != lost);
            inventory.missing = vec![lost.name.link()];
            let tables = Tables::read(&vault, &inventory).await.unwrap();
            assert_eq!(numbers(&images(&vault, &tables, &TablesPoint::Time(seconds(29))).await), ["0", "1"]);
            let error = tables.cut(&TablesPoint::Latest).unwrap_err().to_string();
            assert!(error.contains("nothing from 1970-01-01T00:00:30Z on is complete"), "{error}");
            // The commit that is missing stands at 200: at 150 nobody knows that, and at 100 it does not matter.
            assert_eq!(numbers(&images(&vault, &tables, &TablesPoint::Lsn(100)).await), ["0", "1"]);
            for lsn in [150, 250] {
                let error = tables.cut(&TablesPoint::Lsn(lsn)).unwrap_err().to_string();
                assert!(error.contains("nothing from 1970-01-01T00:00:30Z on is complete"), "{lsn}: {error}");
            }
            let gap = Gap::without_events(seconds(22), Some(seconds(38)), "the slot was lost");
            let tables = Tables { gaps: vec![gap], missing_from: None, ..tables };
            assert!(tables.cut(&TablesPoint::Latest).is_ok());
            assert!(tables.cut(&TablesPoint::Lsn(100)).is_ok());
            let error = tables.cut(&TablesPoint::Lsn(150)).unwrap_err().to_string();
            assert!(error.contains("the slot was lost"), "{error}");
        });
    }
}
