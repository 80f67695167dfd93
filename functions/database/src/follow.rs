//! Following the changes of a database: from the replication stream into the log.
//!
//! ```text
//!  stream ─→ decoder ─→ segment ─→ "the vault has it up to here" ─→ the server lets go
//!  clock of the server + end of its log ─→ once the stream is behind that: `latest`
//! ```
//!
//! `latest` must not come from hope: that the stream has nothing to say does not mean that nothing was committed. So the server is
//! asked again and again where its log ends and what time it is. Whatever was committed a moment before that lies before that
//! end; once the stream has come past it, and what it brought is in the vault, that time is known to be complete.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use handlers::table_log::TableLog;
use pgwire_replication::{Lsn, ReplicationClient, ReplicationEvent};
use pipeline::model::{ChangeBatch, Clock, Timestamp};
use pipeline::source::pgoutput::{Begin, Decoder, Feed};
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::DatabaseError;
use crate::begin::{Begun, Source};

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
/// Marks that wait for the stream.
const MARKS_MAX: usize = 7_200;
/// Microseconds from 1970 to 2000, with which PostgreSQL begins to count.
const EPOCH_MICROS: i64 = 946_684_800 * 1_000_000;

/// The server's log ended there at that time.
#[derive(Debug, Clone, Copy)]
struct Mark {
    end: u64,
    at: Timestamp,
}

/// A stream on its way into the log.
struct Following<'a> {
    source: &'a Source,
    log: &'a mut TableLog,
    clock: Arc<dyn Clock>,
    decoder: Decoder,
    marks: VecDeque<Mark>,
    /// How far the stream has come.
    seen: u64,
    /// The end of the last transaction that came whole.
    ended: u64,
    /// Bytes of messages that were decoded and not appended.
    held: usize,
    appended: Timestamp,
}

impl Source {
    /// Follows the changes until it is told to stop, or the stream breaks.
    ///
    /// # Errors
    /// The server's and the vault's. What was not appended comes again.
    pub async fn follow(
        &self,
        begun: &Begun,
        log: &mut TableLog,
        clock: Arc<dyn Clock>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), DatabaseError> {
        let address = &self.address;
        let broken = |error: &pgwire_replication::PgWireError| DatabaseError::Server {
            address: address.to_string(),
            attempt: "follow its changes".to_owned(),
            reason: error.to_string(),
        };
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
        let mut following = Following {
            source: self,
            log,
            clock: Arc::clone(&clock),
            decoder,
            marks: VecDeque::new(),
            seen: 0,
            ended: 0,
            held: 0,
            appended,
        };
        let mut asked = clock.now().minus(MARK_EVERY);
        loop {
            if clock.now().since(asked) >= MARK_EVERY {
                asked = clock.now();
                following.mark(&sql).await?;
            }
            tokio::select! {
                event = client.recv() => match event.map_err(|error| broken(&error))? {
                    Some(event) => following.take(event),
                    None => break,
                },
                () = clock.sleep(FLUSH_EVERY.min(MARK_EVERY)) => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                    following.flush(&client).await?;
                    break;
                }
            }
            if following.is_due() {
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
                self.decoder.begin(Begin { commit: final_lsn.as_u64(), at: time(commit_time_micros), xid });
            }
            ReplicationEvent::XLogData { data, .. } => {
                self.held += data.len();
                self.decoder.data(&data);
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.decoder.commit(end_lsn.as_u64());
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

    /// Asks the server how far its log has come.
    async fn mark(&mut self, sql: &Client) -> Result<(), DatabaseError> {
        // The time first: what was committed before it lies before the end.
        let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, (pg_current_wal_insert_lsn() - '0/0')::int8";
        let row = sql.query_one(question, &[]).await.map_err(|error| self.source.address.failed("ask how far its log has come", &error))?;
        let (at, end): (i64, i64) = (row.get(0), row.get(1));
        if self.marks.len() < MARKS_MAX {
            self.marks.push_back(Mark { end: end as u64, at: Timestamp::from_micros(at) });
        }
        Ok(())
    }

    /// The newest time that the stream has come past.
    fn passed(&self) -> Option<Timestamp> {
        self.marks.iter().take_while(|mark| mark.end <= self.seen).last().map(|mark| mark.at.minus(COMMIT_TIME_MAX))
    }

    fn is_due(&self) -> bool {
        let waited = self.clock.now().since(self.appended);
        match self.decoder.len() {
            0 => waited >= HEARTBEAT_EVERY,
            rows => rows >= SEGMENT_ROWS || self.held >= SEGMENT_BYTES || waited >= FLUSH_EVERY,
        }
    }

    /// Appends what came, and then lets the server let go of it.
    async fn flush(&mut self, client: &ReplicationClient) -> Result<(), DatabaseError> {
        let latest = self.passed();
        let changes: ChangeBatch = self.decoder.finish();
        if !changes.is_empty() || latest > self.log.latest() {
            self.log.append(&changes, latest).await?;
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
