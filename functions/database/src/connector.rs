//! Keeping what a connector tells of a database: from records of topics into the log.
//!
//! ```text
//!  records ─→ decoder ─→ rows ─┬──────────────→ a segment ─→ the group lets go of the records
//!                              └→ proof ─→ what is whole ─┘
//!  last row of a snapshot ─→ where do all topics end? ─→ the group has let go of all that ─→ the snapshot is whole
//! ```
//!
//! Several members of a group may read the partitions of one connector. Whoever has the topic of transactions proves them: of what the
//! others have appended it reads in the log whenever something is missing. What is proven does not depend on who has read it.

mod schemas;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use handlers::table_log::TableLog;
use pipeline::changelog::coverage::{self, Gap};
use pipeline::changelog::{read, segments, segments_since};
use pipeline::model::change::{ChangeBatch, TupleRow, TupleRows};
use pipeline::model::{Clock, Position, ResourceKind, Timestamp, json};
use pipeline::source::SourceError;
use pipeline::source::control;
use pipeline::source::debezium::proof::{Proof, Proven, Stall};
use pipeline::source::debezium::{self, Decoder, Feed};
use pipeline::source::records::{Ends, Lost, Partition, Record, Records};
use tokio::sync::watch;

pub use self::schemas::Schemas;
use crate::follow::{Appended, Heard};
use crate::incarnation::{self, Incarnation};
use crate::{Address, DatabaseError};

/// A snapshot's last record may be there before others of it: so long the broker may take to take them.
const SETTLE: Duration = Duration::from_secs(5);
/// How often it is asked whether the group has let go of all of a snapshot.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often the log is read for what others have appended, while something is missing.
const CATCH_UP_EVERY: Duration = Duration::from_secs(2);
/// What is missing for so long is said.
const SAY_AFTER: Duration = Duration::from_secs(30);
/// Segments that arrived so long ago have been read.
const READ_BACK: Duration = Duration::from_secs(3_600);
/// Changes that are not proven were committed no longer than this before what is proven, by clocks that are not set back; and where
/// something is missing, by those that are.
const COMMITS_BACK: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(48 * 3_600));
/// More transactions than this that are open to this member's knowledge, and it reads what others have proven.
const OPEN_MAX: usize = 10_000;

/// How a connector's topics are told from others, and what must be known to read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connector {
    /// `topic.prefix`: what the names of its topics begin with.
    pub prefix: String,
    /// `unavailable.value.placeholder`: what it writes for values that the database did not send.
    pub placeholder: String,
}

impl Connector {
    /// What it is called in the records of incarnations.
    fn system(&self) -> String {
        format!("{}{}", debezium::STREAM, self.prefix)
    }

    /// The epoch of its positions: that of what it has told so far, or else behind whatever the log has from elsewhere.
    ///
    /// # Errors
    /// As reading records.
    pub async fn epoch(&self, log: &TableLog) -> Result<u32, DatabaseError> {
        let newest = incarnation::newest(log.vault(), log.resource()).await?.map(|known| known.record);
        Ok(match newest {
            Some(known) if known.system == self.system() => known.epoch,
            Some(other) => other.epoch + 1,
            None => 1,
        })
    }
}

/// What is done about a snapshot whose last row was told.
#[derive(Debug, Clone)]
struct Waiting {
    since: Timestamp,
    asked: Timestamp,
    /// Where the topics ended a while after.
    ends: Option<Ends>,
}

/// The records of a connector on their way into the log.
pub struct Telling<'a> {
    connector: &'a Connector,
    log: &'a mut TableLog,
    clock: Arc<dyn Clock>,
    epoch: u32,
    decoder: Decoder,
    proof: Proof,
    streams: HashMap<Partition, String>,
    /// Snapshots that are waited for.
    waiting: BTreeMap<u64, Waiting>,
    /// Segments that the proof has taken, of those that were listed last.
    taken: HashSet<String>,
    /// Whether it has taken whatever a clock that was set back may have hidden.
    has_read_far_back: bool,
    /// Records that are known to have been removed, by partition and what was to be read next.
    lost: HashSet<String>,
    caught_up: Timestamp,
    /// Since when nothing could be proven, and whether that was said.
    stalled: Option<(Timestamp, Stall, bool)>,
}

impl<'a> Telling<'a> {
    /// Begins where the log is.
    ///
    /// # Errors
    /// As reading the vault.
    pub async fn begin(connector: &'a Connector, log: &'a mut TableLog, clock: Arc<dyn Clock>) -> Result<Telling<'a>, DatabaseError> {
        let epoch = connector.epoch(log).await?;
        let decoder = Decoder::new(Feed { server: connector.prefix.clone(), epoch, placeholder: connector.placeholder.clone() });
        let now = clock.now();
        let mut telling = Telling {
            connector,
            log,
            clock,
            epoch,
            decoder,
            proof: Proof::default(),
            streams: HashMap::new(),
            waiting: BTreeMap::new(),
            taken: HashSet::new(),
            has_read_far_back: false,
            lost: HashSet::new(),
            caught_up: now,
            stalled: None,
        };
        telling.read_back(COMMITS_BACK.0).await?;
        Ok(telling)
    }

    /// Takes what was appended of changes that were committed since so long before what is proven.
    async fn read_back(&mut self, back: Duration) -> Result<(), DatabaseError> {
        let from = self.log.latest().map(|latest| latest.minus(back));
        let all = segments(self.log.vault(), self.log.resource()).await?;
        for segment in all.iter().filter(|segment| from.is_none_or(|from| segment.name.last >= from)) {
            self.take_segment(segment).await?;
        }
        self.taken.extend(all.into_iter().map(|segment| segment.path));
        Ok(())
    }

    async fn take_segment(&mut self, segment: &pipeline::changelog::segment::Segment) -> Result<(), DatabaseError> {
        for rows in read::read(self.log.vault(), segment).await? {
            let rows = ChangeBatch::of(ResourceKind::Database, rows).map_err(|error| damaged(&segment.path, error))?;
            self.show(&rows);
        }
        Ok(())
    }

    /// Shows changes of this epoch to the proof.
    fn show(&mut self, changes: &ChangeBatch) {
        let epoch = self.epoch.to_be_bytes();
        for row in changes.tuple_columns().iter().filter(|row| row.position.starts_with(&epoch)) {
            if (row.schema, row.table) == (control::NO_SCHEMA, control::LOST) {
                self.lost.extend(row.identity.map(str::to_owned));
            }
            self.proof.take(&row);
        }
    }

    /// Takes records: what they tell is in the vault when this returns, and they may be let go of.
    ///
    /// # Errors
    /// The vault's. Then nothing may be let go of, and this value must not be gone on with.
    pub async fn take(&mut self, records: &[Record]) -> Result<Option<Appended>, DatabaseError> {
        let mut bytes = 0;
        for record in records {
            let Record { partition, offset, at, key, value, old_key } = record;
            bytes += (key.as_ref().map_or(0, |key| key.len()) + value.as_ref().map_or(0, |value| value.len())) as u64;
            let stream = match self.streams.get(partition) {
                Some(stream) => stream,
                None => {
                    let stream = debezium::stream(&partition.topic, partition.number);
                    self.streams.entry(partition.clone()).or_insert(stream)
                }
            };
            self.decoder.push(&debezium::Record {
                stream,
                partition: partition.number,
                offset: *offset,
                at: *at,
                key: key.as_deref(),
                value: value.as_deref(),
                old_key: old_key.as_deref(),
            });
        }
        let decoded = self.decoder.finish();
        if decoded.changes.tuple_columns().iter().any(|row| self.proof.is_elsewhere(&row)) {
            let reason = "its connector tells of a log that lies before what is known, and goes on after it: of another server, under the same \
                          prefix; protect that one under a name of its own, with --name, from a connector with another topic.prefix";
            return Err(DatabaseError::Refused {
                address: self.log.resource().to_string(),
                attempt: "go on with",
                reason: reason.to_owned(),
            });
        }
        if decoded.raw > 0 {
            tracing::error!(resource = %self.log.resource(), records = decoded.raw, "records could not be decoded; they are kept as they are");
        }
        self.append(decoded.changes, bytes).await
    }

    /// Writes down that records were removed before anybody had read them, and where the log of the database was when that was known: a
    /// snapshot that was taken behind it tells everything anew.
    ///
    /// # Errors
    /// The vault's.
    pub async fn note_lost(&mut self, lost: &[Lost], wal: u64) -> Result<(), DatabaseError> {
        let now = self.clock.now();
        let mut rows = TupleRows::new();
        for Lost { partition, from, to } in lost {
            let stream = debezium::stream(&partition.topic, partition.number);
            let position = Position::committed(self.epoch, wal, 0);
            let identity = json::array([&*stream, &*from.to_string(), &*to.to_string()]);
            if self.lost.contains(&identity) {
                continue;
            }
            let row = TupleRow::put(&stream, control::LOST, now, position.as_bytes());
            rows.push(&TupleRow { identity: Some(&identity), offset: Some(*from), ..row });
            tracing::error!(resource = %self.log.resource(), stream, from, to, "records were removed from the topic before they had been read");
        }
        self.append(rows.finish(), 0).await.map(drop)
    }

    /// Appends changes, and what they prove.
    async fn append(&mut self, changes: ChangeBatch, bytes: u64) -> Result<Option<Appended>, DatabaseError> {
        self.show(&changes);
        let mut proven = Vec::new();
        let mut latest = None;
        for next in self.proof.advance() {
            match &next {
                Proven::Snapshot { lsn, at } => self.begin_anew(*lsn, *at).await?,
                // Where one is behind a time, nothing that is still to come belongs to the state at that time.
                Proven::Transaction { at, .. } => latest = latest.max(Some(at.minus(Duration::from_micros(1)))),
            }
            proven.push(next);
        }
        self.watch_stall();
        if changes.is_empty() && proven.is_empty() {
            return Ok(None);
        }
        let all = if proven.is_empty() { changes } else { changes.and(&self.rows_of(&proven)) };
        let path = self.log.append(&all, latest).await?;
        self.taken.insert(path);
        let now = self.clock.now();
        let lags_ms = proven.iter().map(|proven| now.since(proven.at()).as_millis() as u64).collect();
        Ok(Some(Appended { latest: self.log.latest(), changes: all.len() as u64, bytes, lags_ms }))
    }

    /// The rows that say what is whole.
    fn rows_of(&self, proven: &[Proven]) -> ChangeBatch {
        let mut rows = TupleRows::new();
        let stream = self.connector.system();
        for proven in proven {
            let position = proven.position(self.epoch);
            let (identity, number, image) = match proven {
                Proven::Snapshot { lsn, .. } => (json::array(["snapshot", &lsn.to_string()]), None, None),
                Proven::Transaction { end, number, image, .. } => {
                    (json::array([number.as_str(), &end.to_string()]), Some(number.as_str()), Some(image.as_str()))
                }
            };
            let row = TupleRow::put(&stream, control::TRANSACTION, proven.at(), position.as_bytes());
            rows.push(&TupleRow { identity: Some(&identity), request: number, image, ..row });
            if let Proven::Transaction { placed, .. } = proven {
                placed.iter().for_each(|change| rows.push(&change.row()));
            }
        }
        rows.finish()
    }

    /// A snapshot begins the log anew: of what was committed since what is known before it, nothing is known.
    async fn begin_anew(&mut self, lsn: u64, at: Timestamp) -> Result<(), DatabaseError> {
        let (vault, resource) = (self.log.vault().clone(), self.log.resource().clone());
        let known = incarnation::newest(&vault, &resource).await?;
        let system = self.connector.system();
        if known.as_ref().is_some_and(|known| known.record.system == system && known.record.start >= lsn) {
            return Ok(());
        }
        let before = known.as_ref().map(|known| self.log.latest().unwrap_or(known.record.at));
        // What was not known of tables that had been changed, it knows.
        for open in coverage::gaps(&vault, &resource).await?.into_iter().filter(|gap| gap.to.is_none() && gap.segment.is_none()) {
            self.log.note_gap(&Gap { to: Some(at), ..open }).await?;
        }
        if let Some(from) = before.filter(|from| *from < at) {
            let gap = Gap::without_events(
                from,
                Some(at),
                "the connector began anew with a snapshot, and what was committed before it is not known",
            );
            if !coverage::gaps(&vault, &resource).await?.contains(&gap) {
                self.log.note_gap(&gap).await?;
            }
        }
        let slot = self.connector.prefix.clone();
        let next = Incarnation { epoch: self.epoch, system, slot, start: lsn, at, tables: None, whole: true };
        // Another member may have written the same.
        incarnation::follow(&vault, &resource, known.as_ref(), &next).await?;
        tracing::info!(%resource, %at, "a snapshot of the connector is in the vault, whole");
        Ok(())
    }

    /// Goes on with what takes more than the records that come: snapshots that have ended, and what others have appended.
    ///
    /// # Errors
    /// The broker's and the vault's.
    pub async fn settle(&mut self, records: &dyn Records) -> Result<Option<Appended>, DatabaseError> {
        let now = self.clock.now();
        let ended: Vec<u64> = self.proof.ended_snapshots().collect();
        self.waiting.retain(|lsn, _| ended.contains(lsn));
        for lsn in ended {
            let waiting = self.waiting.entry(lsn).or_insert(Waiting { since: now, asked: now, ends: None });
            if now.since(waiting.since) < SETTLE || now.since(waiting.asked) < ASK_EVERY {
                continue;
            }
            waiting.asked = now;
            match &waiting.ends {
                None => waiting.ends = Some(records.ends().await?),
                Some(ends) if records.is_past(ends).await? => self.proof.snapshot_is_whole(lsn),
                Some(_) => {}
            }
        }
        let stalled = self.stalled.as_ref().map(|(since, ..)| now.since(*since));
        let is_behind = stalled.is_some_and(|stalled| stalled >= CATCH_UP_EVERY) || self.proof.open() > OPEN_MAX;
        if is_behind && now.since(self.caught_up) >= CATCH_UP_EVERY {
            self.catch_up().await?;
        }
        if stalled.is_some_and(|stalled| stalled >= SAY_AFTER) && !std::mem::replace(&mut self.has_read_far_back, true) {
            self.read_back(COMMITS_BACK.1).await?;
        }
        self.append(TupleRows::new().finish(), 0).await
    }

    /// Takes what others have appended.
    ///
    /// # Errors
    /// The vault's.
    pub async fn catch_up(&mut self) -> Result<(), DatabaseError> {
        let now = self.clock.now();
        let all = segments_since(self.log.vault(), self.log.resource(), self.caught_up.minus(READ_BACK)).await?;
        for segment in all.iter().filter(|segment| !self.taken.contains(&segment.path)).cloned().collect::<Vec<_>>() {
            self.take_segment(&segment).await?;
        }
        self.taken = all.into_iter().map(|segment| segment.path).collect();
        self.caught_up = now;
        Ok(())
    }

    fn watch_stall(&mut self) {
        let now = self.clock.now();
        self.stalled = self.proof.stall().map(|stall| match self.stalled.take() {
            Some((since, before, said)) if is_same(&before, &stall) => (since, stall, said),
            _ => (now, stall, false),
        });
    }

    /// Why nothing is proven any more, once that has lasted; said once.
    pub fn complaint(&mut self) -> Option<String> {
        let now = self.clock.now();
        let (since, stall, said) = self.stalled.as_mut()?;
        if *said || now.since(*since) < SAY_AFTER {
            return None;
        }
        *said = true;
        Some(format!("nothing that was committed since {since} can be restored yet: {stall}"))
    }
}

/// Whether it is the same transaction that is waited for.
fn is_same(a: &Stall, b: &Stall) -> bool {
    match (a, b) {
        (Stall::Missing { transaction: a, .. }, Stall::Missing { transaction: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

fn damaged(path: &str, error: impl std::fmt::Display) -> pipeline::vault::VaultError {
    pipeline::vault::VaultError::damaged(path, error)
}

/// Keeps what a connector tells until it is told to stop, and tells how that goes.
///
/// # Errors
/// The broker's and the vault's; and the database's, which is asked when records are missing. What was not let go of comes again.
pub async fn follow(
    connector: &Connector,
    database: &Address,
    records: &dyn Records,
    log: &mut TableLog,
    clock: Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
    tell: &(dyn Fn(Heard) + Send + Sync),
) -> Result<(), DatabaseError> {
    let mut telling = Telling::begin(connector, log, clock).await?;
    while !*stop.borrow() {
        let polled = records.poll().await?;
        if !polled.lost.is_empty() {
            let wal = database.wal().await?;
            telling.note_lost(&polled.lost, wal).await?;
        }
        if polled.is_new_member {
            // Whoever had these partitions has appended what it was given; ENDs of before come first.
            telling.catch_up().await?;
        }
        if let Some(appended) = telling.take(&polled.records).await? {
            tell(Heard::Appended(appended));
        }
        records.let_go().await?;
        if let Some(appended) = telling.settle(records).await? {
            tell(Heard::Appended(appended));
        }
        if let Some(complaint) = telling.complaint() {
            tell(Heard::Behind(complaint));
        }
    }
    Ok(())
}

impl From<SourceError> for DatabaseError {
    fn from(error: SourceError) -> DatabaseError {
        DatabaseError::Records(error)
    }
}
