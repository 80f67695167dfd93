//! Where changes come from.
//!
//! A [`Source`] delivers events and is told when they are durable; a decoder, which is pure, turns them into changes; a
//! scan reads the truth itself. Hosts bring the sources (a queue, a webhook); what is in an event is decoded here.

pub mod control;
pub mod debezium;
pub mod disk;
pub mod pgoutput;
pub mod records;
pub mod s3_copy;
pub mod s3_event;
pub mod s3_read;
pub mod s3_scan;
pub mod sequence;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::Timestamp;

/// Events as they arrived together.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// The events' bodies, each with what acknowledges it.
    pub messages: Vec<Message>,
    /// The instant before which nothing is waiting any more, where the source can say: a queue that was found empty.
    pub drained: Option<Timestamp>,
}

/// One event's body.
#[derive(Debug, Clone)]
pub struct Message {
    /// The bytes as they came.
    pub body: Bytes,
    /// What the source wants to see again to let go of it.
    pub receipt: String,
}

/// Why a source gave nothing or did not let go.
#[derive(Debug, thiserror::Error)]
#[error("{stream}: {reason}")]
pub struct SourceError {
    /// Which source.
    pub stream: String,
    /// Why, in words.
    pub reason: String,
    /// Whether trying again may help.
    pub transient: bool,
}

/// A feed of events, at least once each, in any order.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name in the `stream` column: `sqs:photos-events`, `webhook`.
    fn stream(&self) -> &str;

    /// The next events; waits a bounded while for some.
    async fn poll(&self) -> Result<Delivery, SourceError>;

    /// Lets go of events whose changes are durable. What is not acknowledged comes again.
    async fn ack(&self, receipts: Vec<String>) -> Result<(), SourceError>;

    /// Why something that it had to tell is lost, if the last round found that: the feed is not there any more, or was emptied before
    /// anybody had read it.
    fn lost(&self) -> Option<String> {
        None
    }

    /// How long it keeps what nobody takes, where it is known to drop it then without a word.
    fn keeps(&self) -> Option<Duration> {
        None
    }
}
