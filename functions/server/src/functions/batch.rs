//! Messages that a host has handed over, as a source that gives them once.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use pipeline::model::{ResourceId, Timestamp};
use pipeline::source::s3_event::{Feed, decode};
use pipeline::source::{Delivery, Message, Source, SourceError};

/// Messages, each of which is either durable in the end or left.
pub struct Batch {
    stream: String,
    messages: Mutex<Vec<Message>>,
    left: Mutex<BTreeSet<String>>,
}

impl Batch {
    /// These messages of this stream. Their receipts tell them from each other.
    pub fn new(stream: String, messages: Vec<Message>) -> Batch {
        let left = messages.iter().map(|message| message.receipt.clone()).collect();
        Batch { stream, messages: Mutex::new(messages), left: Mutex::new(left) }
    }

    /// The buckets that they tell of.
    pub fn buckets(&self) -> BTreeSet<ResourceId> {
        // Only the names are looked at.
        let feed = || Feed { stream: String::new(), arrived: Timestamp::MAX, arrived_by: Default::default(), emulated: true };
        let messages = lock(&self.messages);
        messages.iter().flat_map(|message| decode(feed(), [&message.body[..]]).buckets.into_keys()).collect()
    }

    /// The receipts of those that nobody has let go of.
    pub fn left(&self) -> Vec<String> {
        lock(&self.left).iter().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Source for Batch {
    fn stream(&self) -> &str {
        &self.stream
    }

    async fn poll(&self) -> Result<Delivery, SourceError> {
        // That others are waiting in the queue nobody knows here: so nothing is said to be drained.
        Ok(Delivery { messages: std::mem::take(&mut *lock(&self.messages)), drained: None })
    }

    async fn ack(&self, receipts: Vec<String>) -> Result<(), SourceError> {
        let mut left = lock(&self.left);
        left.retain(|receipt| !receipts.contains(receipt));
        Ok(())
    }
}
