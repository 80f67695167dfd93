//! The topics of a connector as a source of records.
//!
//! Each table has a topic, and a new one comes with a new table: all of those are read whose names begin with the connector's prefix. The
//! group shares their partitions out among its members. Offsets are committed only when the vault has everything before them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::model::{Clock, Timestamp};
use pipeline::source::SourceError;
use pipeline::source::debezium::OLD_KEY;
use pipeline::source::records::{Ends, Lost, Partition, Polled, Record, Records};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use server::{IDLE_WAIT, Stop, Topic, stopped};

use crate::client::{ASK_MAX, Asker, config, is_of_rebalance, log};
use crate::mark::Mark;

/// How long records wait for others to come along.
const GATHER: Duration = Duration::from_millis(250);
/// Records that are given out at once, and bytes of them.
const POLL_MAX: (usize, usize) = (50_000, 16 << 20);
/// How often it is asked whether there is a new topic, in milliseconds.
const NEW_TOPICS_MS: &str = "2000";

/// How far a partition was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GivenOut {
    /// The offset to read next.
    next: i64,
    /// The last record before that, where it is known.
    last: Option<Mark>,
}

/// What was given out and not let go of.
type Positions = Arc<Mutex<BTreeMap<Partition, GivenOut>>>;

/// Hears which partitions this member has.
struct Member {
    positions: Positions,
    is_changed: Arc<AtomicBool>,
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|element| Partition { topic: element.topic().to_owned(), number: element.partition() }).collect()
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, "{reason}");
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _: &BaseConsumer<Member>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever has them now gets what is not committed.
            for partition in partitions(list) {
                positions.remove(&partition);
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Member>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            tracing::info!(partitions = list.count(), "took partitions over");
            self.is_changed.store(true, Ordering::SeqCst);
        }
    }
}

/// What a member found when it took partitions over.
#[derive(Default)]
struct Looked {
    lost: Vec<Lost>,
    /// Partitions that are read from their beginnings.
    anew: BTreeSet<Partition>,
}

/// All topics of a connector, as a member of a group.
pub struct ConnectorTopics {
    consumer: Arc<StreamConsumer<Member>>,
    asker: Arc<Asker>,
    /// What their names begin with.
    begin: String,
    clock: Arc<dyn Clock>,
    stop: Stop,
    positions: Positions,
    /// By partition, the offset behind what was read last.
    next: Mutex<BTreeMap<Partition, i64>>,
    is_changed: Arc<AtomicBool>,
}

/// Topics that a connector has beside those of tables, whose names have a schema in them.
const OTHERS: [&str; 2] = ["transaction", "message"];

/// Whether it is a topic of the connector whose names begin so.
fn is_ours(begin: &str, topic: &str) -> bool {
    topic.strip_prefix(begin).is_some_and(|rest| OTHERS.contains(&rest) || rest.contains('.'))
}

/// What librdkafka takes for all names that are the connector's.
fn patterns(begin: &str) -> Vec<String> {
    let escaped: String =
        begin.chars().flat_map(|c| (!c.is_ascii_alphanumeric() && c != '_' && c != '-').then_some('\\').into_iter().chain([c])).collect();
    let others = OTHERS.iter().map(|other| format!("^{escaped}{other}$"));
    others.chain([format!("^{escaped}[^.]+\\..+")]).collect()
}

impl ConnectorTopics {
    /// Joins the group.
    pub fn new(topic: &Topic, clock: Arc<dyn Clock>, stop: Stop) -> Result<ConnectorTopics, KafkaError> {
        let (positions, is_changed) = (Positions::default(), Arc::<AtomicBool>::default());
        let mut config = config(topic);
        config.set("topic.metadata.refresh.interval.ms", NEW_TOPICS_MS);
        let member = Member { positions: Arc::clone(&positions), is_changed: Arc::clone(&is_changed) };
        let consumer: StreamConsumer<Member> = config.create_with_context(member)?;
        let begin = format!("{}.", topic.topic);
        consumer.subscribe(&patterns(&begin).iter().map(String::as_str).collect::<Vec<_>>())?;
        let asker = Arc::new(Asker::new(topic)?);
        Ok(ConnectorTopics { consumer: Arc::new(consumer), asker, begin, clock, stop, positions, next: Mutex::default(), is_changed })
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<Partition, GivenOut>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, attempt: &str, error: &dyn std::fmt::Display) -> SourceError {
        SourceError { stream: format!("topics {}*", self.begin), reason: format!("{attempt}: {error}"), transient: true }
    }

    /// Asks the broker something, which takes its time, elsewhere.
    async fn ask<T: Send + 'static>(
        &self,
        attempt: &str,
        question: impl FnOnce(&StreamConsumer<Member>, &Asker) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (consumer, asker) = (Arc::clone(&self.consumer), Arc::clone(&self.asker));
        let asked = tokio::task::spawn_blocking(move || question(&consumer, &asker)).await;
        asked.map_err(|error| self.error(attempt, &error))?.map_err(|error| self.error(attempt, &error))
    }

    /// Of partitions that were just taken over: what was removed from them before anybody of the group had read it. Those that are not
    /// the ones that the group has read of are read from their beginnings.
    async fn look(&self) -> Result<Looked, SourceError> {
        self.ask("ask what its partitions hold", |consumer, asker| {
            let mine = partitions(&consumer.assignment()?);
            let (committed, begins, ends) = (asker.committed_marked(&mine)?, asker.begins(&mine)?, asker.ends_of(&mine)?);
            let mut looked = Looked::default();
            for (partition, begin) in begins {
                // Of some nobody of the group has ever read.
                let (from, mark) = committed.get(&partition).copied().unwrap_or_default();
                let end = ends.get(&partition).copied().unwrap_or(begin);
                let is_another = asker.is_another(&partition, from, mark, (begin, end))?;
                if is_another {
                    consumer.seek(&partition.topic, partition.number, Offset::Offset(begin), ASK_MAX)?;
                    looked.anew.insert(partition.clone());
                }
                if is_another || from < begin {
                    looked.lost.push(Lost { partition, from, to: begin });
                }
            }
            Ok(looked)
        })
        .await
    }

    /// Of partitions in which offsets were left out: what was removed before it could be read. Others were compacted away, or mark the ends of
    /// transactions of Kafka.
    async fn removed(&self, left_out: BTreeMap<Partition, (i64, i64)>) -> Result<Vec<Lost>, SourceError> {
        if left_out.is_empty() {
            return Ok(Vec::new());
        }
        self.ask("ask where its partitions begin", move |_, asker| {
            let begins = asker.begins(&left_out.keys().cloned().collect::<Vec<_>>())?;
            let lost = left_out.into_iter().filter_map(|(partition, (from, to))| {
                let to = to.min(*begins.get(&partition)?);
                (from < to).then_some(Lost { partition, from, to })
            });
            Ok(lost.collect())
        })
        .await
    }

    fn take(&self, message: &BorrowedMessage<'_>) -> Record {
        let partition = Partition { topic: message.topic().to_owned(), number: message.partition() };
        let mark = Mark::of(message.offset(), message.timestamp().to_millis(), message.payload());
        self.positions().insert(partition.clone(), GivenOut { next: message.offset() + 1, last: Some(mark) });
        let at =
            message.timestamp().to_millis().map_or_else(Timestamp::default, |millis| Timestamp::from_micros(millis.saturating_mul(1_000)));
        let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        let old_key = message.headers().and_then(|headers| headers.iter().find(|header| header.key == OLD_KEY)?.value);
        let (key, value, old_key) = (copy(message.key()), copy(message.payload()), copy(old_key));
        Record { partition, offset: message.offset(), at, key, value, old_key }
    }
}

#[async_trait]
impl Records for ConnectorTopics {
    async fn poll(&self) -> Result<Polled, SourceError> {
        let mut polled = Polled::default();
        let mut until = self.clock.now().plus(IDLE_WAIT.min(GATHER * 2));
        let (mut bytes, mut left_out) = (0, BTreeMap::new());
        while polled.records.len() < POLL_MAX.0 && bytes < POLL_MAX.1 {
            let left = until.since(self.clock.now());
            let received = tokio::select! {
                biased;
                received = self.consumer.recv() => received,
                () = self.clock.sleep(left) => break,
                () = stopped(&self.stop) => break,
            };
            let message = match received {
                // There is no such topic yet.
                Err(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition)) => continue,
                received => received.map_err(|error| self.error("take records", &error))?,
            };
            if polled.records.is_empty() {
                until = self.clock.now().plus(GATHER);
            }
            bytes += message.payload_len() + message.key_len();
            let record = self.take(&message);
            let before = self.next.lock().unwrap_or_else(PoisonError::into_inner).insert(record.partition.clone(), record.offset + 1);
            if let Some(expected) = before.filter(|expected| *expected < record.offset) {
                left_out.insert(record.partition.clone(), (expected, record.offset));
            }
            polled.records.push(record);
        }
        polled.lost = self.removed(left_out).await?;
        // Records of a partition that was just taken over may be among them: what others did with it comes first.
        if self.is_changed.swap(false, Ordering::SeqCst) {
            polled.is_new_member = true;
            // What could not be asked is asked again.
            let looked = self.look().await.inspect_err(|_| self.is_changed.store(true, Ordering::SeqCst))?;
            polled.lost.extend(looked.lost);
            // What came from behind the beginning comes again.
            polled.records.retain(|record| !looked.anew.contains(&record.partition));
            self.next.lock().unwrap_or_else(PoisonError::into_inner).retain(|partition, _| !looked.anew.contains(partition));
            // They count as read once they are written down.
            let mut positions = self.positions();
            positions.retain(|partition, _| !looked.anew.contains(partition));
            for Lost { partition, to, .. } in &polled.lost {
                let position = positions.entry(partition.clone()).or_insert(GivenOut { next: *to, last: None });
                position.next = position.next.max(*to);
            }
        }
        Ok(polled)
    }

    async fn let_go(&self) -> Result<(), SourceError> {
        let attempt = "commit offsets";
        let due = self.positions().clone();
        if due.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (partition, given_out) in &due {
            let mut added = list.add_partition(&partition.topic, partition.number);
            added.set_offset(Offset::Offset(given_out.next)).map_err(|error| self.error(attempt, &error))?;
            if let Some(last) = given_out.last {
                added.set_metadata(last.to_string());
            }
        }
        match self.ask(attempt, move |consumer, _| Ok(consumer.commit(&list, CommitMode::Sync))).await? {
            Ok(()) => {
                // What was given out meanwhile is not: nobody polls while this goes on.
                self.positions().retain(|partition, given_out| due.get(partition) != Some(given_out));
                Ok(())
            }
            // The partitions are being shared out anew. Whoever gets them begins where the group was told, and does it again.
            Err(KafkaError::ConsumerCommit(code)) if is_of_rebalance(code) => {
                tracing::debug!(topics = self.begin, %code, "offsets were not committed");
                Ok(())
            }
            Err(error) => Err(self.error(attempt, &error)),
        }
    }

    async fn ends(&self) -> Result<Ends, SourceError> {
        let begin = self.begin.clone();
        self.ask("ask where its topics end", move |_, asker| asker.ends(|topic| is_ours(&begin, topic))).await
    }

    async fn is_past(&self, ends: &Ends) -> Result<bool, SourceError> {
        let ends = ends.clone();
        self.ask("ask what is committed", move |_, asker| asker.is_past(&ends)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_topics_are_meant_that_begin_so_and_no_others() {
        assert_eq!(patterns("shop."), ["^shop\\.transaction$", "^shop\\.message$", "^shop\\.[^.]+\\..+"]);
        assert_eq!(patterns("a-b_c.d.")[0], "^a-b_c\\.d\\.transaction$");
        for (topic, ours) in
            [("shop.transaction", true), ("shop.public.t", true), ("shop.public.t.u", true), ("shop.orders", false), ("shops.a.b", false)]
        {
            assert_eq!(is_ours("shop.", topic), ours, "{topic}");
        }
    }
}
