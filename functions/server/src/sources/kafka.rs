//! Topics of Kafka as feeds of events: what is asked of a binary that can open them.

use std::sync::Arc;

use pipeline::model::Clock;
use pipeline::source::Source;
use pipeline::source::records::Records;

use super::Stop;

/// A topic that a vault takes events from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The brokers to ask first: `HOST:PORT`, several with commas between.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The consumer group, of which every member takes a part of the partitions: that of the vault.
    pub group: String,
    /// Settings of the client, as its C library names them: encryption and credentials.
    pub settings: Vec<(String, String)>,
}

/// Opens topics.
pub trait Topics: Send + Sync {
    /// Joins the group of a topic.
    ///
    /// # Errors
    /// Why that cannot be done, in words: a setting that is not one. That no broker answers shows later.
    fn open(&self, topic: &Topic, clock: Arc<dyn Clock>, stop: Stop) -> Result<Arc<dyn Source>, String>;

    /// Joins the group of all topics of a connector: those whose names begin with that of this one and a dot.
    ///
    /// # Errors
    /// As [`Topics::open`].
    fn open_connector(&self, topic: &Topic, clock: Arc<dyn Clock>, stop: Stop) -> Result<Arc<dyn Records>, String>;
}
