//! A topic as a source of events.
//!
//! The group shares its partitions out among its members. An offset is committed only when the vault has everything before it, so
//! that whoever takes a partition over goes on where that is true. That all that had arrived by some time is durable follows from
//! numbers that every member can ask for: the ends of all partitions then, and the offsets that the group has committed since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::model::{Clock, Timestamp};
use pipeline::source::records::{self, Partition, Records};
use pipeline::source::{Delivery, Message, Source, SourceError};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use server::{IDLE_WAIT, ROUND_MESSAGES_MAX, ROUND_TIME_MAX, Stop, Topic, Topics, stopped};

use crate::client::{ASK_MAX, Asker, config, is_of_rebalance, log};
use crate::connector::ConnectorTopics;
use crate::held::Held;
use crate::mark::Mark;

/// After so long a message that did not become durable is handed on again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// More messages than this that are not durable, or more bytes of them, and no new ones are taken.
const HELD_MAX: (usize, usize) = (10_000, 64 << 20);
/// How often it is asked how far the partitions have come, while nothing comes.
const PROVE_EVERY: Duration = Duration::from_secs(1);
/// How often that is said while nothing comes: each time costs a small file in the vault.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// Opens topics by librdkafka.
pub struct Rdkafka;

impl Topics for Rdkafka {
    fn open(&self, topic: &Topic, clock: Arc<dyn Clock>, stop: Stop) -> Result<Arc<dyn Source>, String> {
        let source = KafkaSource::new(topic, clock, stop).map_err(|error| format!("topic {}: {error}", topic.topic))?;
        Ok(Arc::new(source))
    }

    fn open_connector(&self, topic: &Topic, clock: Arc<dyn Clock>, stop: Stop) -> Result<Arc<dyn Records>, String> {
        let topics = ConnectorTopics::new(topic, clock, stop).map_err(|error| format!("topics {}.*: {error}", topic.topic))?;
        Ok(Arc::new(topics))
    }
}

/// By partition.
type Partitions = Arc<Mutex<BTreeMap<i32, Held>>>;

/// Hears which partitions this member has.
struct Member {
    partitions: Partitions,
    is_changed: Arc<AtomicBool>,
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
            let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever has them now gets what is not committed.
            list.elements().iter().for_each(|element| drop(partitions.remove(&element.partition())));
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Member>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            tracing::info!(partitions = list.count(), "took partitions over");
            self.is_changed.store(true, Ordering::SeqCst);
        }
    }
}

/// Where all partitions ended at a time.
struct Ends {
    at: Timestamp,
    /// By partition, where it begins and ends.
    ends: records::Ends,
}

/// What is known of how far the group is.
#[derive(Default)]
struct Proof {
    ends: Option<Ends>,
    asked: Timestamp,
    said: Timestamp,
    /// Whether messages came since it was said.
    is_busy: bool,
}

/// One topic, as a member of a group.
struct KafkaSource {
    consumer: Arc<StreamConsumer<Member>>,
    asker: Arc<Asker>,
    topic: String,
    stream: String,
    clock: Arc<dyn Clock>,
    stop: Stop,
    partitions: Partitions,
    is_changed: Arc<AtomicBool>,
    proof: Mutex<Proof>,
    /// Why something in it is lost, as the last round found.
    lost: Mutex<Option<String>>,
    /// Partitions that were found to be others than those that the group had read, just now: they are read from their beginnings.
    begun_anew: Mutex<BTreeSet<i32>>,
}

impl KafkaSource {
    fn new(topic: &Topic, clock: Arc<dyn Clock>, stop: Stop) -> Result<KafkaSource, KafkaError> {
        let (partitions, is_changed) = (Partitions::default(), Arc::<AtomicBool>::default());
        let member = Member { partitions: Arc::clone(&partitions), is_changed: Arc::clone(&is_changed) };
        let consumer: StreamConsumer<Member> = config(topic).create_with_context(member)?;
        consumer.subscribe(&[&topic.topic])?;
        Ok(KafkaSource {
            consumer: Arc::new(consumer),
            asker: Arc::new(Asker::new(topic)?),
            topic: topic.topic.clone(),
            stream: format!("kafka:{}", topic.topic),
            clock,
            stop,
            partitions,
            is_changed,
            proof: Mutex::default(),
            lost: Mutex::default(),
            begun_anew: Mutex::default(),
        })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<i32, Held>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun_anew(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.begun_anew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, Option<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proof(&self) -> MutexGuard<'_, Proof> {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, attempt: &str, error: &dyn std::fmt::Display) -> SourceError {
        SourceError { stream: self.stream.clone(), reason: format!("{attempt}: {error}"), transient: true }
    }

    /// Asks the broker something, which takes its time, elsewhere.
    async fn ask<T: Send + 'static>(
        &self,
        attempt: &str,
        question: impl FnOnce(&StreamConsumer<Member>, &Asker, &str) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (consumer, asker, topic) = (Arc::clone(&self.consumer), Arc::clone(&self.asker), self.topic.clone());
        let asked = tokio::task::spawn_blocking(move || question(&consumer, &asker, &topic)).await;
        asked.map_err(|error| self.error(attempt, &error))?.map_err(|error| self.error(attempt, &error))
    }

    /// Messages that wait to be handed on again, and whether there is room for new ones.
    fn again(&self) -> (Vec<Message>, bool) {
        let now = self.clock.now();
        let mut held = self.held();
        let mut messages = Vec::new();
        for (partition, held) in held.iter_mut() {
            let room = ROUND_MESSAGES_MAX - messages.len();
            let again = held.again(now, AGAIN_AFTER, room);
            messages.extend(again.into_iter().map(|(offset, body)| Message { body, receipt: receipt(*partition, offset) }));
        }
        let (count, bytes) = held.values().fold((0, 0), |(count, bytes), held| (count + held.len(), bytes + held.bytes()));
        (messages, count < HELD_MAX.0 && bytes < HELD_MAX.1)
    }

    /// Takes what comes, for a bounded while.
    async fn receive(&self, messages: &mut Vec<Message>) -> Result<(), SourceError> {
        let first_within = if self.proof().is_busy || !messages.is_empty() { PROVE_EVERY } else { IDLE_WAIT.min(PROVE_EVERY) };
        let mut until = self.clock.now().plus(first_within);
        while messages.len() < ROUND_MESSAGES_MAX {
            let left = until.since(self.clock.now());
            let received = tokio::select! {
                received = self.consumer.recv() => received,
                () = self.clock.sleep(left) => break,
                () = stopped(&self.stop) => break,
            };
            let message = received.map_err(|error| self.error("take messages", &error))?;
            if messages.is_empty() {
                until = self.clock.now().plus(ROUND_TIME_MAX);
            }
            let (partition, offset) = (message.partition(), message.offset());
            let mark = Mark::of(offset, message.timestamp().to_millis(), message.payload());
            let body = message.payload().map(Bytes::copy_from_slice);
            drop(message);
            // Partitions are taken over while messages are waited for. Once this one is dealt with, the group would be told so, and nobody
            // could see any more how far it had been.
            let checked = self.check_taken_over().await;
            if !self.begun_anew().contains(&partition) {
                messages.extend(self.hold(partition, mark, body));
            }
            checked?;
        }
        Ok(())
    }

    /// Remembers a message until it is durable; one that says something is handed on.
    fn hold(&self, partition: i32, mark: Mark, body: Option<Bytes>) -> Option<Message> {
        let mut held = self.held();
        let held = held.entry(partition).or_default();
        held.saw(mark);
        let Some(body) = body else {
            held.pass(mark.offset);
            return None;
        };
        held.hand_on(mark.offset, body.clone(), self.clock.now());
        Some(Message { body, receipt: receipt(partition, mark.offset) })
    }

    /// Of partitions that were just taken over: whether they are those that the group has read of, and whether messages were removed from
    /// them before anybody had read them.
    async fn check_taken_over(&self) -> Result<(), SourceError> {
        self.begun_anew().clear();
        if !self.is_changed.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        // What could not be asked is asked again.
        let looked = self.ask("ask what its partitions hold", look).await;
        let Looked { taken, is_new } = looked.inspect_err(|_| self.is_changed.store(true, Ordering::SeqCst))?;
        if is_new {
            // Of a vault that this feed has never told anything that is no news.
            let reason = "the broker knows of nothing that its group has read: what was removed from the topic before that is lost";
            *self.lost() = Some(format!("{}: {reason}", self.stream));
        }
        let mut reasons = Vec::new();
        {
            let mut held = self.held();
            for Taken { partition, begin, end, committed, mark, is_another } in taken {
                if is_another {
                    held.insert(partition, Held::default());
                    self.begun_anew().insert(partition);
                    reasons.push(format!(
                        "partition {partition} is another than the one that was read up to {committed}: it was deleted and made again, or lost \
                         its end ({end}). It is read from its beginning; what the other told and nobody had read is lost"
                    ));
                    continue;
                }
                let held = held.entry(partition).or_default();
                mark.into_iter().for_each(|mark| held.saw(mark));
                if committed < begin {
                    held.pass(begin - 1);
                    reasons.push(format!(
                        "messages were removed from the topic before they were read ({} of partition {partition}): for longer than it keeps them \
                         nobody was there to read; a listing finds what still exists",
                        begin - committed
                    ));
                }
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let reason = reasons.join("; ");
        *self.lost() = Some(format!("{}: {reason}", self.stream));
        Err(SourceError { stream: self.stream.clone(), reason, transient: true })
    }

    /// Tells the group what was dealt with.
    async fn commit(&self) -> Result<(), SourceError> {
        let attempt = "commit offsets";
        let due: Vec<(i32, i64)> = self.held().iter().filter_map(|(partition, held)| Some((*partition, held.to_commit()?))).collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in &due {
            let mut added = list.add_partition(&self.topic, *partition);
            added.set_offset(Offset::Offset(*offset)).map_err(|error| self.error(attempt, &error))?;
            if let Some(mark) = self.held().get(partition).and_then(|held| held.mark_before(*offset)) {
                added.set_metadata(mark.to_string());
            }
        }
        let committed = self.ask(attempt, move |consumer, _, _| Ok(consumer.commit(&list, CommitMode::Sync))).await?;
        match committed {
            Ok(()) => {
                let mut held = self.held();
                due.iter().for_each(|(partition, offset)| held.entry(*partition).or_default().is_committed(*offset));
                Ok(())
            }
            // The partitions are being shared out anew. Whoever gets them begins where the group was told, and does it again.
            Err(KafkaError::ConsumerCommit(code)) if is_of_rebalance(code) => {
                tracing::debug!(stream = self.stream, %code, "offsets were not committed");
                Ok(())
            }
            Err(error) => Err(self.error(attempt, &error)),
        }
    }

    /// The instant before which all that had arrived is durable, by whichever member, if that is worth saying now.
    async fn drained(&self) -> Result<Option<Timestamp>, SourceError> {
        let now = self.clock.now();
        let ends = {
            let mut proof = self.proof();
            let is_due = proof.is_busy || now.since(proof.said) >= SAY_EVERY;
            if !is_due || now.since(proof.asked) < PROVE_EVERY {
                return Ok(None);
            }
            proof.asked = now;
            proof.ends.take()
        };
        let ends = match ends {
            Some(ends) => ends,
            None => {
                Ends { at: now, ends: self.ask("ask where its partitions end", |_, asker, topic| asker.ends(|name| name == topic)).await? }
            }
        };
        // A marker of a transaction at the very end of a partition is never dealt with, and holds this back until something comes.
        let asked = ends.ends.clone();
        let is_past = self.ask("ask what is committed", move |_, asker, _| asker.is_all_dealt_with(&asked)).await?;
        let mut proof = self.proof();
        if !is_past {
            proof.ends = Some(ends);
            return Ok(None);
        }
        (proof.said, proof.is_busy) = (now, false);
        Ok(Some(ends.at))
    }
}

/// A partition that was just taken over.
struct Taken {
    partition: i32,
    begin: i64,
    end: i64,
    committed: i64,
    mark: Option<Mark>,
    is_another: bool,
}

/// What a member found when it took partitions over.
struct Looked {
    taken: Vec<Taken>,
    /// The group has not been told anything of any partition of the topic.
    is_new: bool,
}

/// What lies in the partitions of this member. Those that are not what they were are begun anew, and so are those of which the group was not
/// told anything: it is told where they begin, so that once it has forgotten all, that is seen.
fn look(consumer: &StreamConsumer<Member>, asker: &Asker, topic: &str) -> Result<Looked, KafkaError> {
    let element = |element: &TopicPartitionListElem<'_>| Partition { topic: element.topic().to_owned(), number: element.partition() };
    let mine: Vec<Partition> = consumer.assignment()?.elements().iter().map(element).collect();
    let (begins, ends) = (asker.begins(&mine)?, asker.ends_of(&mine)?);
    let all: Vec<Partition> = asker.ends(|name| name == topic)?.into_keys().collect();
    let is_new = !mine.is_empty() && asker.committed(&all)?.is_empty();
    let known = asker.committed_marked(&mine)?;
    let mut taken = Vec::new();
    let mut anew = TopicPartitionList::new();
    for partition in mine {
        let (Some(&begin), Some(&end)) = (begins.get(&partition), ends.get(&partition)) else { continue };
        let Some(&(committed, mark)) = known.get(&partition) else {
            anew.add_partition_offset(topic, partition.number, Offset::Offset(begin))?;
            // One that was added since begins at 0.
            taken.extend((!is_new).then_some(Taken {
                partition: partition.number,
                begin,
                end,
                committed: 0,
                mark: None,
                is_another: false,
            }));
            continue;
        };
        let is_another = asker.is_another(&partition, committed, mark, (begin, end))?;
        if is_another {
            consumer.seek(topic, partition.number, Offset::Offset(begin), ASK_MAX)?;
            anew.add_partition_offset(topic, partition.number, Offset::Offset(begin))?;
        }
        taken.push(Taken { partition: partition.number, begin, end, committed, mark, is_another });
    }
    // Only then: what the group was told is how it is seen. And at once: the old number looks as if all had been read.
    if anew.count() > 0 {
        consumer.commit(&anew, CommitMode::Sync)?;
    }
    Ok(Looked { taken, is_new })
}

fn receipt(partition: i32, offset: i64) -> String {
    format!("{partition}:{offset}")
}

fn place(receipt: &str) -> Option<(i32, i64)> {
    let (partition, offset) = receipt.split_once(':')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

#[async_trait]
impl Source for KafkaSource {
    fn stream(&self) -> &str {
        &self.stream
    }

    fn lost(&self) -> Option<String> {
        KafkaSource::lost(self).clone()
    }

    async fn poll(&self) -> Result<Delivery, SourceError> {
        *self.lost() = None;
        self.check_taken_over().await?;
        let (mut messages, has_room) = self.again();
        if has_room {
            self.receive(&mut messages).await?;
        } else if messages.is_empty() {
            // What is held must become durable first, or be due again.
            tokio::select! {
                () = self.clock.sleep(PROVE_EVERY) => {}
                () = stopped(&self.stop) => {}
            }
        }
        if !messages.is_empty() {
            self.proof().is_busy = true;
            return Ok(Delivery { messages, drained: None });
        }
        // Of messages that said nothing.
        self.commit().await?;
        Ok(Delivery { messages, drained: self.drained().await? })
    }

    async fn ack(&self, receipts: Vec<String>) -> Result<(), SourceError> {
        {
            let mut held = self.held();
            for (partition, offset) in receipts.iter().filter_map(|receipt| place(receipt)) {
                // One that was taken away is somebody else's.
                if let Some(held) = held.get_mut(&partition) {
                    held.is_durable(offset);
                }
            }
        }
        self.commit().await
    }
}
