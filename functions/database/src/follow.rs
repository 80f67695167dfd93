//! Following the changes of a database: from the replication stream into the log.
//!
//! ```text
//!  stream ─→ decoder ─→ segment ─→ "the vault has it up to here" ─→ the server lets go
//!  clock of the server + end of its log ─→ once the stream is behind that: `latest`
//!           └─ behind both: its sequences ─→ what is new of them, before that is `latest`
//! ```
//!
//! `latest` must not come from hope: that the stream has nothing to say does not mean that nothing was committed. So the server is
//! asked again and again where its log ends and what time it is. Whatever was committed a moment before that lies before that
//! end; once the stream has come past it, and what it brought is in the vault, that time is known to be complete. Sequences are in no
//! stream: what one had come to is read behind that time, so that nobody had been given a number further on by then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use handlers::table_log::TableLog;
use pgwire_replication::{Lsn, ReplicationClient, ReplicationEvent};
use pipeline::model::{ChangeBatch, Clock, Timestamp};
use pipeline::source::pgoutput::{Begin, Decoder, Feed};
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::DatabaseError;
use crate::begin::{Begun, Source};
use crate::catalogue::Catalogue;
use crate::incarnation::Incarnation;
use crate::schema::{self, Schema};
use crate::sequences::SequenceReader;
use crate::slot::SlotState;

/// How long changes wait for others to come along.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Changes that are held before they are made a segment.
const SEGMENT_ROWS: usize = 50_000;
/// Bytes of messages that are, likewise: a transaction may be larger than memory.
const SEGMENT_BYTES: usize = 16 << 20;
/// How often the server is asked how far its log has come.
const MARK_EVERY: Duration = Duration::from_millis(500);
/// A transaction gets its time a moment before its place in the log. So much earlier than the server's clock is certain.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(1);
/// How often a log in which nothing happens says so.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// How long the schema, once it has changed, waits for whoever holds a table alone: meanwhile no changes are taken.
const LOCK_WAIT: Duration = Duration::from_millis(500);
/// How often the server is asked how the slot is.
const SLOT_EVERY: Duration = Duration::from_secs(15);
/// Marks that wait for the stream.
const MARKS_MAX: usize = 7_200;
/// Microseconds from 1970 to 2000, with which PostgreSQL begins to count.
const EPOCH_MICROS: i64 = 946_684_800 * 1_000_000;

/// What is heard of the changes on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The vault has taken some.
    Appended(Appended),
    /// How the slot is.
    Slot(SlotState),
    /// What has come is in no state yet, and why.
    Behind(String),
}

/// What the vault has taken at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Up to when all that was committed is in the log now.
    pub latest: Option<Timestamp>,
    /// Changes.
    pub changes: u64,
    /// Bytes of messages that told of them.
    pub bytes: u64,
    /// How long it took from each commit, in milliseconds.
    pub lags_ms: Vec<u64>,
}

/// The server's log ended there at that time.
#[derive(Debug, Clone, Copy)]
struct Mark {
    end: u64,
    at: Timestamp,
}

/// So many times as long as the catalogue takes to be read it is left alone afterwards.
const CATALOGUE_REST: u32 = 20;

/// A stream on its way into the log.
struct Following<'a> {
    source: &'a Source,
    log: &'a mut TableLog,
    clock: Arc<dyn Clock>,
    tell: &'a (dyn Fn(Heard) + Send + Sync),
    decoder: Decoder,
    marks: VecDeque<Mark>,
    sequences: SequenceReader,
    /// Whether transactions have come whole since the sequences were read.
    is_behind_sequences: bool,
    /// How far the stream has come.
    seen: u64,
    /// The end of the last transaction that came whole.
    ended: u64,
    /// Bytes of messages that were decoded and not appended.
    held: usize,
    appended: Timestamp,
    /// What the rest of the schema is that the vault has.
    catalogue: Option<String>,
    /// When what is held was committed, as far as it was.
    commits: Vec<Timestamp>,
    /// When the transaction was committed that is coming, or came last.
    begun: Timestamp,
    /// What the server's clock is ahead of ours, in microseconds.
    ahead: i64,
}

impl Source {
    /// Follows the changes until it is told to stop, and tells how that goes.
    ///
    /// # Errors
    /// The server's and the vault's, and that the stream has ended. What was not appended comes again.
    pub async fn follow(
        &self,
        begun: &Begun,
        log: &mut TableLog,
        clock: Arc<dyn Clock>,
        mut stop: watch::Receiver<bool>,
        tell: &(dyn Fn(Heard) + Send + Sync),
    ) -> Result<(), DatabaseError> {
        let address = &self.address;
        let ended =
            |reason: String| DatabaseError::Server { address: address.to_string(), attempt: "follow its changes".to_owned(), reason };
        let broken = |error: &pgwire_replication::PgWireError| ended(error.to_string());
        let publications = [self.publication(), self.insert_only_publication()];
        let config = address.replication(&self.slot, &publications.each_ref().map(String::as_str));
        let mut client = ReplicationClient::connect(config).await.map_err(|error| broken(&error))?;
        client.wait_started().await.map_err(|error| broken(&error))?;
        let sql = address.connect().await?;
        let incarnation = &begun.incarnation;
        let mut decoder = Decoder::new(Feed { stream: incarnation.stream(), epoch: incarnation.epoch });
        for table in &begun.tables {
            decoder.set_key(table.relation.oid, table.primary_key.clone());
        }
        let appended = clock.now();
        let catalogue = schema::newest_catalogue(log.vault(), log.resource(), incarnation.epoch).await?;
        // A mark of that time was the last whose reading of the sequences is in the log for certain.
        let sequences_known = log.latest().map(|latest| latest.plus(COMMIT_TIME_MAX)).max(Some(incarnation.at)).unwrap_or_default();
        let mut following = Following {
            source: self,
            log,
            clock: Arc::clone(&clock),
            tell,
            decoder,
            marks: VecDeque::new(),
            sequences: SequenceReader::known_until(sequences_known),
            is_behind_sequences: false,
            seen: 0,
            ended: 0,
            held: 0,
            appended,
            catalogue,
            commits: Vec::new(),
            begun: appended,
            ahead: 0,
        };
        let mut asked = clock.now().minus(MARK_EVERY);
        let mut mark_every = MARK_EVERY;
        let mut slot_asked = clock.now().minus(SLOT_EVERY);
        loop {
            if clock.now().since(slot_asked) >= SLOT_EVERY {
                slot_asked = clock.now();
                following.ask_for_slot(&sql).await?;
            }
            if clock.now().since(asked) >= mark_every {
                asked = clock.now();
                if let Err(error) = following.mark(&sql, incarnation).await {
                    // Whoever goes on finds the slot free.
                    client.shutdown().await.map_err(|error| broken(&error))?;
                    return Err(error);
                }
                mark_every = MARK_EVERY.max(clock.now().since(asked) * CATALOGUE_REST);
            }
            tokio::select! {
                event = client.recv() => match event.map_err(|error| broken(&error))? {
                    Some(event) => following.take(event),
                    None => return Err(ended("the server has ended the stream".to_owned())),
                },
                () = clock.sleep(FLUSH_EVERY.min(MARK_EVERY)) => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                    let mark = following.ask_for_end(&sql).await?;
                    following.read_sequences(&sql, mark).await?;
                    following.flush(&client).await?;
                    break;
                }
            }
            if following.is_due() {
                following.follow_sequences(&sql).await?;
                following.flush(&client).await?;
            }
        }
        client.shutdown().await.map_err(|error| broken(&error))
    }
}

impl Following<'_> {
    fn take(&mut self, event: ReplicationEvent) {
        match event {
            ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => {
                let at = time(commit_time_micros);
                self.begun = at;
                self.decoder.begin(Begin { commit: final_lsn.as_u64(), at, xid });
            }
            ReplicationEvent::XLogData { data, .. } => {
                self.held += data.len();
                self.decoder.data(&data);
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.decoder.commit(end_lsn.as_u64());
                self.commits.push(self.begun);
                self.is_behind_sequences = true;
                self.ended = end_lsn.as_u64();
                self.seen = self.seen.max(self.ended);
            }
            ReplicationEvent::Message { lsn, prefix, content, .. } => {
                self.held += content.len();
                let at = self.marks.back().map_or_else(|| self.clock.now(), |mark| mark.at);
                self.decoder.message(lsn.as_u64(), at, &prefix, &content);
            }
            // What lies before it was sent, unless a transaction is under way.
            ReplicationEvent::KeepAlive { wal_end, .. } if !self.decoder.is_in_transaction() => {
                self.seen = self.seen.max(wal_end.as_u64());
            }
            ReplicationEvent::KeepAlive { .. } | ReplicationEvent::StoppedAt { .. } => {}
        }
    }

    /// Asks the server how far its log has come, and whether its schema is the one that is known.
    async fn mark(&mut self, sql: &Client, incarnation: &Incarnation) -> Result<(), DatabaseError> {
        let mark = self.ask_for_end(sql).await?;
        let at = mark.at;
        // Behind the time: what had been changed by then is seen.
        let Source { address, programs, .. } = self.source;
        let catalogue = Catalogue::ask(sql, address).await?;
        if incarnation.tables.as_ref() != Some(&catalogue.tables) {
            return Err(DatabaseError::Changed { address: address.to_string() });
        }
        if self.catalogue.as_ref() != Some(&catalogue.rest) {
            let schema = match Schema::read(programs.as_deref(), address, sql, None, (incarnation.epoch, at), Some(LOCK_WAIT)).await {
                // What comes is kept meanwhile; only that it is all there up to this time is not said.
                Err(error) if error.is_in_use() => {
                    tracing::warn!(resource = %self.log.resource(), %error, "the schema has changed and cannot be read yet");
                    return Ok(());
                }
                schema => schema?,
            };
            schema.store(self.log.vault(), self.log.resource()).await?;
            self.catalogue = schema.catalogue;
        }
        self.read_sequences(sql, mark).await?;
        if self.marks.len() < MARKS_MAX {
            self.marks.push_back(mark);
        }
        Ok(())
    }

    /// Asks the server what time it is and where its log ends.
    async fn ask_for_end(&mut self, sql: &Client) -> Result<Mark, DatabaseError> {
        // The time first: what was committed before it lies before the end.
        let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, (pg_current_wal_insert_lsn() - '0/0')::int8";
        let row = sql.query_one(question, &[]).await.map_err(|error| self.source.address.failed("ask how far its log has come", &error))?;
        let (at, end): (i64, i64) = (row.get(0), row.get(1));
        self.ahead = at - self.clock.now().micros();
        Ok(Mark { end: end as u64, at: Timestamp::from_micros(at) })
    }

    /// Reads the sequences behind a time that was asked. What is new of them is appended with what else is held: before the time can be
    /// `latest`.
    async fn read_sequences(&mut self, sql: &Client, Mark { end, at }: Mark) -> Result<(), DatabaseError> {
        self.is_behind_sequences = false;
        let Source { address, .. } = self.source;
        let told = self.sequences.read(sql, address, (at, end), self.clock.as_ref()).await?;
        for read in told {
            if let Some(reason) = &read.unread {
                let (resource, sequence) = (self.log.resource(), format!("{}.{}", read.schema, read.name));
                tracing::warn!(%resource, sequence, reason, "a sequence could not be read, and is not kept until it can be");
            }
            self.decoder.sequence(&read);
        }
        fail_point!("database::sequences-read");
        Ok(())
    }

    /// Reads the sequences from which transactions may have taken numbers that are about to be appended: so that a state that ends with
    /// one of them has these, too. Where that would be too much for the server, the next mark does it.
    async fn follow_sequences(&mut self, sql: &Client) -> Result<(), DatabaseError> {
        if self.is_behind_sequences && self.sequences.have_rested(self.clock.as_ref()) {
            let mark = self.ask_for_end(sql).await?;
            self.read_sequences(sql, mark).await?;
        }
        Ok(())
    }

    /// Asks the server how the slot is.
    async fn ask_for_slot(&self, sql: &Client) -> Result<(), DatabaseError> {
        let Source { address, slot, .. } = self.source;
        if let Some(state) = SlotState::ask(sql, address, slot).await? {
            (self.tell)(Heard::Slot(state));
        }
        Ok(())
    }

    /// The newest time that the stream has come past.
    fn passed(&self) -> Option<Timestamp> {
        self.marks.iter().take_while(|mark| mark.end <= self.seen).last().map(|mark| mark.at.minus(COMMIT_TIME_MAX))
    }

    fn is_due(&self) -> bool {
        let waited = self.clock.now().since(self.appended);
        // That all is there up to the last transaction is worth knowing as soon as it is certain.
        let proves_last = || Some(self.begun) > self.log.latest() && self.passed() >= Some(self.begun);
        match self.decoder.len() {
            0 => waited >= HEARTBEAT_EVERY || proves_last(),
            rows => rows >= SEGMENT_ROWS || self.held >= SEGMENT_BYTES || waited >= FLUSH_EVERY,
        }
    }

    /// Appends what came, and then lets the server let go of it.
    async fn flush(&mut self, client: &ReplicationClient) -> Result<(), DatabaseError> {
        let latest = self.passed();
        let changes: ChangeBatch = self.decoder.finish();
        if !changes.is_empty() || latest > self.log.latest() {
            fail_point!("database::before-segment");
            self.log.append(&changes, latest).await?;
            fail_point!("database::after-segment");
            let now = self.clock.now().micros() + self.ahead;
            let lags_ms = self.commits.drain(..).map(|at| (now - at.micros()).max(0) as u64 / 1_000).collect();
            let (latest, changes, bytes) = (self.log.latest(), changes.len() as u64, self.held as u64);
            (self.tell)(Heard::Appended(Appended { latest, changes, bytes, lags_ms }));
        }
        self.appended = self.clock.now();
        self.held = 0;
        while self.marks.front().is_some_and(|mark| mark.end <= self.seen) {
            self.marks.pop_front();
        }
        // Last: if we die here, it comes again. Of a transaction under way the server keeps all.
        let durable = if self.decoder.is_in_transaction() { self.ended } else { self.seen };
        if durable > 0 {
            client.update_applied_lsn(Lsn::from_u64(durable));
        }
        Ok(())
    }
}

/// A time as PostgreSQL counts.
fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros.saturating_add(EPOCH_MICROS))
}
