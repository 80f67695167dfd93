//! S3 events that are posted to this process.
//!
//! ```text
//!  POST ─→ token ─→ a place ─→ queue ─→ round ─→ durable ─→ 200
//!            └ 401     └ none: 503               └ not: 503, and the sender tries again
//! ```
//!
//! The answer is 200 only when every change in the body is durable. A sender that hears anything else, or nothing, sends
//! it again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::model::{Clock, Digest};
use pipeline::source::{Delivery, Message, Source, SourceError};
use subtle::ConstantTimeEq;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{Drain, ROUND_MESSAGES_MAX, Stop, stopped};

/// Bodies that are being read or wait to be durable at a time: what bounds their memory, with the size of one.
pub const WAITING_MAX: usize = 128;
/// The largest body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a sender waits for its answer at most.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What becomes of a body that was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// Everything in it is durable.
    Durable,
    /// It is not, or not yet: send it again.
    Again,
}

struct Waiting {
    body: Bytes,
    answer: oneshot::Sender<()>,
}

/// Where bodies are handed in. Cheap to clone.
#[derive(Clone)]
pub struct Inlet {
    sender: mpsc::Sender<Waiting>,
    places: Arc<Semaphore>,
    token: Digest,
}

/// A place among those that wait, held until the answer is known.
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Where they come out.
pub struct WebhookSource {
    receiver: AsyncMutex<mpsc::Receiver<Waiting>>,
    /// Those of the last delivery, by receipt.
    unanswered: Mutex<HashMap<String, oneshot::Sender<()>>>,
    next: AtomicU64,
    clock: Arc<dyn Clock>,
    stop: Stop,
    drain: Mutex<Drain>,
}

/// A webhook that asks for this token.
pub fn webhook(token: &str, clock: Arc<dyn Clock>, stop: Stop) -> (Inlet, WebhookSource) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let inlet = Inlet { sender, places: Arc::new(Semaphore::new(WAITING_MAX)), token: Digest::of(token.as_bytes()) };
    let source = WebhookSource {
        receiver: AsyncMutex::new(receiver),
        unanswered: Mutex::default(),
        next: AtomicU64::new(0),
        clock,
        stop,
        drain: Mutex::default(),
    };
    (inlet, source)
}

impl Inlet {
    /// Whether this is the token. Takes as long for a wrong one, however much of it is right.
    pub fn admits(&self, token: &str) -> bool {
        // Digests, so that not even the length of the token can be measured.
        Digest::of(token.as_bytes()).bytes()[..].ct_eq(&self.token.bytes()[..]).into()
    }

    /// A place for one body; none where as many wait as may.
    pub fn place(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }

    /// Hands in a body that has a place, and waits until everything in it is durable.
    pub async fn post(&self, body: Bytes, _place: Place) -> Posted {
        let (answer, answered) = oneshot::channel();
        // Full it is only of bodies whose senders have stopped waiting.
        if self.sender.try_send(Waiting { body, answer }).is_err() {
            return Posted::Again;
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(())) => Posted::Durable,
            Ok(Err(_)) | Err(_) => Posted::Again,
        }
    }
}

impl WebhookSource {
    fn deliver(&self, waiting: Vec<Waiting>) -> Vec<Message> {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was not answered in the last round is told to send again: its answer is dropped.
        unanswered.clear();
        let messages = waiting.into_iter().map(|Waiting { body, answer }| {
            let receipt = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            unanswered.insert(receipt.clone(), answer);
            Message { body, receipt }
        });
        messages.collect()
    }
}

#[async_trait]
impl Source for WebhookSource {
    fn stream(&self) -> &str {
        "webhook"
    }

    async fn poll(&self) -> Result<Delivery, SourceError> {
        drop(self.deliver(Vec::new()));
        let mut receiver = self.receiver.lock().await;
        let wait = self.drain.lock().unwrap_or_else(PoisonError::into_inner).wait();
        let mut began = self.clock.now();
        let mut waiting = Vec::new();
        let first = tokio::select! {
            first = tokio::time::timeout(wait, receiver.recv()) => first.ok().flatten(),
            () = stopped(&self.stop) => None,
        };
        if let Some(first) = first {
            waiting.push(first);
            began = self.clock.now();
            while waiting.len() < ROUND_MESSAGES_MAX
                && let Ok(next) = receiver.try_recv()
            {
                waiting.push(next);
            }
        }
        let all = waiting.len() < ROUND_MESSAGES_MAX;
        let drained = self.drain.lock().unwrap_or_else(PoisonError::into_inner).say(waiting.len(), all.then_some(began));
        Ok(Delivery { messages: self.deliver(waiting), drained })
    }

    async fn ack(&self, receipts: Vec<String>) -> Result<(), SourceError> {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        for answer in receipts.iter().filter_map(|receipt| unanswered.remove(receipt)) {
            // A sender that has gone away will send again, and that is harmless.
            let _ = answer.send(());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn pair() -> (Inlet, WebhookSource, tokio::sync::watch::Sender<bool>) {
        let (stopper, stop) = tokio::sync::watch::channel(false);
        let (inlet, source) = webhook("secret", Arc::new(SystemClock), stop);
        (inlet, source, stopper)
    }

    #[test]
    fn only_the_token_is_admitted() {
        let (inlet, _, _) = pair();
        assert!(inlet.admits("secret"));
        for wrong in ["", "secre", "secret ", "Secret"] {
            assert!(!inlet.admits(wrong), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_body_is_answered_when_it_is_acknowledged_and_not_before() {
        let (inlet, source, _stopper) = pair();
        let posts = tokio::spawn(async move {
            let post = |body| inlet.post(Bytes::from_static(body), inlet.place().unwrap());
            futures::future::join(post(b"a"), post(b"b")).await
        });
        let mut messages = source.poll().await.unwrap().messages;
        while messages.len() < 2 {
            messages.extend(source.poll().await.unwrap().messages);
        }
        source.ack(vec![messages[0].receipt.clone()]).await.unwrap();
        // The other round begins: what was left is told to come again.
        drop(source.deliver(Vec::new()));
        assert_eq!(posts.await.unwrap(), (Posted::Durable, Posted::Again));
    }

    #[tokio::test]
    async fn there_are_so_many_places_and_one_is_free_again_when_its_sender_leaves() {
        let (inlet, _source, _stopper) = pair();
        let mut places: Vec<Place> = std::iter::from_fn(|| inlet.place()).collect();
        assert_eq!(places.len(), WAITING_MAX);
        let left = places.pop().unwrap();
        let leaving = inlet.post(Bytes::new(), left);
        assert!(inlet.place().is_none());
        drop(leaving);
        assert!(inlet.place().is_some());
    }
}
