//! What all consumers have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline::source::records::{Ends, Partition};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use server::Topic;

use crate::mark::Mark;

/// How long the broker may take to answer a question.
pub const ASK_MAX: Duration = Duration::from_secs(10);

/// The settings of a member of a topic's group.
pub fn config(topic: &Topic) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &topic.brokers)
        .set("group.id", &topic.group)
        .set("client.id", "hindsight")
        // Offsets follow what is durable, and nothing else.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // A round may read large contents.
        .set("max.poll.interval.ms", "1800000")
        .set("queued.max.messages.kbytes", "16384")
        .set("allow.auto.create.topics", "false");
    for (name, value) in &topic.settings {
        config.set(name, value);
    }
    config
}

/// Asks brokers, over a connection of its own: on one that records are fetched over, an answer waits until some have come.
pub struct Asker(BaseConsumer);

impl Asker {
    /// One that asks for a group that it is no member of.
    pub fn new(topic: &Topic) -> KafkaResult<Asker> {
        config(topic).create().map(Asker)
    }

    /// Where the partitions of topics begin and end, of those whose names are meant.
    pub fn ends(&self, is_meant: impl Fn(&str) -> bool) -> KafkaResult<Ends> {
        let metadata = self.0.fetch_metadata(None, ASK_MAX)?;
        let meant = metadata.topics().iter().filter(|topic| is_meant(topic.name()));
        let partition = |topic: &str, number| Partition { topic: topic.to_owned(), number };
        let all: Vec<Partition> =
            meant.flat_map(|topic| topic.partitions().iter().map(|found| partition(topic.name(), found.id()))).collect();
        let (begins, mut ends) = (self.offsets(&all, Offset::Beginning)?, self.offsets(&all, Offset::End)?);
        Ok(begins
            .into_iter()
            .filter_map(|(partition, begin)| Some((ends.remove(&partition)?, partition, begin)))
            .map(|(end, partition, begin)| (partition, (begin, end)))
            .collect())
    }

    /// Where partitions begin.
    pub fn begins(&self, partitions: &[Partition]) -> KafkaResult<BTreeMap<Partition, i64>> {
        self.offsets(partitions, Offset::Beginning)
    }

    /// Where partitions end.
    pub fn ends_of(&self, partitions: &[Partition]) -> KafkaResult<BTreeMap<Partition, i64>> {
        self.offsets(partitions, Offset::End)
    }

    fn offsets(&self, partitions: &[Partition], which: Offset) -> KafkaResult<BTreeMap<Partition, i64>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::new();
        for Partition { topic, number } in partitions {
            list.add_partition_offset(topic, *number, which)?;
        }
        // Of the times that can be asked for, these two mean the ends.
        let found = self.0.offsets_for_times(list, ASK_MAX)?;
        let read = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            element.error()?;
            match element.offset() {
                Offset::Offset(offset) => Ok((Partition { topic: element.topic().to_owned(), number: element.partition() }, offset)),
                _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OffsetNotAvailable)),
            }
        };
        found.elements().iter().map(read).collect()
    }

    /// What the group has let go of: nothing of partitions of which it never read.
    pub fn committed(&self, partitions: &[Partition]) -> KafkaResult<BTreeMap<Partition, i64>> {
        Ok(self.committed_marked(partitions)?.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect())
    }

    /// The same, and what it was told of the last message before that.
    pub fn committed_marked(&self, partitions: &[Partition]) -> KafkaResult<BTreeMap<Partition, (i64, Option<Mark>)>> {
        let mut list = TopicPartitionList::new();
        for Partition { topic, number } in partitions {
            list.add_partition(topic, *number);
        }
        let offsets = self.0.committed_offsets(list, ASK_MAX)?;
        let read = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => {
                let partition = Partition { topic: element.topic().to_owned(), number: element.partition() };
                Some((partition, (offset, element.metadata().parse().ok())))
            }
            _ => None,
        };
        Ok(offsets.elements().iter().filter_map(read).collect())
    }

    /// Whether a partition that begins and ends there is surely not the one that the group has read up to `offset`: one that was deleted
    /// and made again, or lost its end.
    pub fn is_another(&self, partition: &Partition, offset: i64, mark: Option<Mark>, (begin, end): (i64, i64)) -> KafkaResult<bool> {
        match mark {
            _ if offset > end => Ok(true),
            // Otherwise nobody can tell any more; and of a topic that is compacted the next one comes.
            Some(mark) if mark.offset >= begin => {
                Ok(self.first_from(partition, mark.offset)?.is_some_and(|found| found.offset == mark.offset && found != mark))
            }
            _ => Ok(false),
        }
    }

    /// The first message of a partition from an offset on; none where none came in time.
    fn first_from(&self, partition: &Partition, offset: i64) -> KafkaResult<Option<Mark>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(offset))?;
        self.0.assign(&list)?;
        let found = self
            .0
            .poll(ASK_MAX)
            .transpose()
            .map(|message| message.map(|message| Mark::of(message.offset(), message.timestamp().to_millis(), message.payload())));
        self.0.assign(&TopicPartitionList::new())?;
        found
    }

    /// Whether the group has let go of everything up to there, as far as it was ever told of a partition. Of one of which it was not, nobody
    /// knows whether anything was removed before it was read.
    pub fn is_all_dealt_with(&self, ends: &Ends) -> KafkaResult<bool> {
        let committed = self.committed(&ends.keys().cloned().collect::<Vec<_>>())?;
        Ok(ends.iter().all(|(partition, (_, end))| committed.get(partition).is_some_and(|offset| offset >= end)))
    }

    /// Whether the group has let go of everything up to there.
    pub fn is_past(&self, ends: &Ends) -> KafkaResult<bool> {
        let committed = self.committed(&ends.keys().cloned().collect::<Vec<_>>())?;
        Ok(ends.iter().all(|(partition, (begin, end))| match committed.get(partition) {
            Some(offset) => offset >= end,
            // Nobody has ever read of it, and there is nothing to be read.
            None => begin == end,
        }))
    }
}

/// Says what the client says.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, "{message}");
        }
        _ => tracing::debug!(facility, "{message}"),
    }
}

/// Whether a commit was refused because the group is not what this member thinks.
pub fn is_of_rebalance(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{FencedInstanceId, IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    matches!(code, IllegalGeneration | RebalanceInProgress | UnknownMemberId | FencedInstanceId)
}
