//! The events of the protected bucket, and a neighbour whose events come by the same feed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::model::Clock;
use pipeline::s3::BucketError;
use pipeline::source::{Delivery, Message, Source, SourceError};

use super::{BUCKET, Hands};
use crate::memory_bucket::{Call, Happened, Hook, MemoryBucket, Operation};
use crate::simulation::event::{event, message};
use crate::simulation::swarm::Form;

/// The bucket's events, at least once.
#[derive(Default)]
pub(super) struct Feed {
    pub(super) clock: Mutex<Option<Arc<Hands>>>,
    pub(super) waiting: Mutex<BTreeMap<u64, Bytes>>,
    pub(super) sent: AtomicU64,
    /// Objects whose contents cannot be read.
    pub(super) unreadable: Mutex<BTreeSet<String>>,
    /// Objects that the server says it does not have where it is asked for one of their versions.
    pub(super) denied: Mutex<BTreeSet<String>>,
    /// Objects of which the server says that they are not there where it is asked for their tags.
    pub(super) tagless: Mutex<BTreeSet<String>>,
    /// Why nobody may see tags and ACLs, as the server says it: that it is not allowed, or that it does not answer now.
    pub(super) hidden: Mutex<Option<(Hidden, &'static str)>>,
}

/// A bucket whose events come by the same feed, at a server that may be away.
pub struct Neighbour {
    /// The bucket.
    pub bucket: MemoryBucket,
    pub(super) away: Arc<Away>,
}

impl Neighbour {
    /// Its name.
    pub const NAME: &str = "albums";

    /// From now on its server answers, or does not.
    pub fn answers(&self, answers: bool) {
        self.away.0.store(!answers, Ordering::Relaxed);
    }

    /// An event of the neighbour, as it comes by the feed.
    pub fn event(happened: &Happened) -> Bytes {
        message(Form::EventBridge, vec![event(Form::EventBridge, Neighbour::NAME, happened, &happened.sequencer)], 5)
    }
}

#[derive(Default)]
pub(super) struct Away(AtomicBool);

#[async_trait]
impl Hook for Away {
    async fn before(&self, _: &Call) -> Result<(), BucketError> {
        let away = self.0.load(Ordering::Relaxed);
        if away { Err(BucketError::Transient { what: "asking".to_owned(), reason: "nobody answers".to_owned() }) } else { Ok(()) }
    }
}

impl Feed {
    pub(super) fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Bytes>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a server keeps tags and ACLs from whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// It is not allowed.
    Denied,
    /// It answers with an error that may pass.
    Broken,
}

#[async_trait]
impl Hook for Feed {
    async fn before(&self, call: &Call) -> Result<(), BucketError> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        let tagless = self.tagless.lock().unwrap_or_else(PoisonError::into_inner);
        let hidden = *self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let hidden = hidden.and_then(|(hidden, prefix)| call.object.starts_with(prefix).then_some(hidden));
        let what = || format!("{:?} of {}", call.operation, call.object);
        match (call.operation, hidden) {
            (Operation::Tags | Operation::Acl, Some(Hidden::Denied)) => {
                return Err(BucketError::Denied { what: what(), reason: "it takes a right".to_owned() });
            }
            (Operation::Tags | Operation::Acl, Some(Hidden::Broken)) => {
                return Err(BucketError::Transient { what: what(), reason: "the server answered 500".to_owned() });
            }
            _ => {}
        }
        match call.operation {
            Operation::Tags if tagless.contains(&call.object) => Err(BucketError::NotFound { what: format!("tags of {}", call.object) }),
            Operation::Head if denied.contains(&call.object) => Err(BucketError::NotFound { what: call.object.clone() }),
            Operation::Get if unreadable.contains(&call.object) => {
                Err(BucketError::Transient { what: "reading".to_owned(), reason: "what comes is not what was announced".to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn happened(&self, change: &Happened) {
        let body = message(Form::EventBridge, vec![event(Form::EventBridge, BUCKET, change, &change.sequencer)], 5);
        self.waiting().insert(self.sent.fetch_add(1, Ordering::Relaxed), body);
    }
}

#[async_trait]
impl Source for Feed {
    fn stream(&self) -> &str {
        "sqs:events"
    }

    async fn poll(&self) -> Result<Delivery, SourceError> {
        let messages = self.waiting().iter().map(|(id, body)| Message { body: body.clone(), receipt: id.to_string() }).collect();
        let now = self.clock.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|clock| clock.now());
        Ok(Delivery { messages, drained: now })
    }

    async fn ack(&self, receipts: Vec<String>) -> Result<(), SourceError> {
        receipts.iter().filter_map(|receipt| receipt.parse().ok()).for_each(|id: u64| drop(self.waiting().remove(&id)));
        Ok(())
    }
}
