//! S3 events from an SQS queue, by long polling.
//!
//! A round gathers several batches of ten, for as long as they come full. A batch that comes back short says that the
//! queue held no more when it was asked for: everything that had arrived until then is in our hands.
//!
//! Messages that an earlier process had received and not deleted are hidden until their time is over. So after a start
//! nothing is said to be drained before that time has passed, unless nobody can have received any.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, QueueAttributeName};
use futures::{StreamExt, TryStreamExt};
use pipeline::model::{Clock, Timestamp};
use pipeline::s3::Hindrance;
use pipeline::source::{Delivery, Message, Source, SourceError};

use super::{Drain, ROUND_MESSAGES_MAX, ROUND_TIME_MAX, Stop, stopped};

/// The most that SQS gives or deletes at a time.
const BATCH_MESSAGES_MAX: usize = 10;
/// How long a received message stays hidden from others: longer than a round takes.
pub const VISIBILITY: Duration = Duration::from_secs(120);
/// Batches deleted at the same time.
const DELETES_AT_ONCE: usize = 8;
/// How often a delete is tried.
const DELETE_TRIES: u32 = 3;

/// A queue.
pub struct SqsSource {
    client: Client,
    queue: String,
    stream: String,
    clock: Arc<dyn Clock>,
    stop: Stop,
    /// Before this, messages of an earlier process may be hidden.
    hidden_until: Timestamp,
    drain: Mutex<Drain>,
    /// There was no such queue when it was asked last.
    gone: AtomicBool,
    /// How long the queue keeps a message, once it was asked.
    keeps: OnceLock<Duration>,
}

impl SqsSource {
    /// A queue from which an earlier process `may` have received messages.
    pub fn new(client: Client, queue: &str, clock: Arc<dyn Clock>, stop: Stop, may_be_hidden: bool) -> SqsSource {
        let hidden_until = if may_be_hidden { clock.now().plus(VISIBILITY) } else { Timestamp::default() };
        let name = queue.rsplit('/').next().unwrap_or(queue);
        let (drain, gone) = (Mutex::default(), AtomicBool::new(false));
        SqsSource {
            stream: format!("sqs:{name}"),
            queue: queue.to_owned(),
            client,
            clock,
            stop,
            hidden_until,
            drain,
            gone,
            keeps: OnceLock::new(),
        }
    }

    fn failed(&self, what: &str, error: &(impl ProvideErrorMetadata + std::error::Error + 'static)) -> SourceError {
        if Hindrance::of_code(error.code().unwrap_or_default(), "", None) == Some(Hindrance::NoQueue) {
            self.gone.store(true, Ordering::Relaxed);
        }
        let (queue, reason) = (&self.queue, reason(error));
        SourceError { stream: self.stream.clone(), reason: format!("cannot {what} queue {queue}: {reason}"), transient: true }
    }

    /// Asks how long the queue keeps messages, once. Whoever may not ask does not know it.
    async fn ask_how_long_it_keeps(&self) {
        if self.keeps.get().is_some() {
            return;
        }
        let name = QueueAttributeName::MessageRetentionPeriod;
        let asked = self.client.get_queue_attributes().queue_url(&self.queue).attribute_names(name.clone()).send().await;
        let seconds = asked.ok().and_then(|told| told.attributes?.get(&name)?.parse().ok());
        if let Some(seconds) = seconds {
            // Another may have been as quick.
            let _ = self.keeps.set(Duration::from_secs(seconds));
        }
    }

    /// One batch, waited for at most so long; none when it is time to end.
    async fn receive(&self, wait: Duration) -> Result<Option<Vec<Message>>, SourceError> {
        let request = self
            .client
            .receive_message()
            .queue_url(&self.queue)
            .max_number_of_messages(BATCH_MESSAGES_MAX as i32)
            .visibility_timeout(VISIBILITY.as_secs() as i32)
            .wait_time_seconds(wait.as_secs() as i32);
        let received = tokio::select! {
            received = request.send() => received.map_err(|error| self.failed("receive from", &error))?,
            () = stopped(&self.stop) => return Ok(None),
        };
        self.gone.store(false, Ordering::Relaxed);
        let messages = received.messages.unwrap_or_default().into_iter();
        // A message without a receipt cannot be deleted; it comes again.
        let messages = messages.filter_map(|message| Some(Message { body: message.body?.into(), receipt: message.receipt_handle? }));
        Ok(Some(messages.collect()))
    }

    async fn delete(&self, receipts: Vec<String>) -> Result<(), SourceError> {
        let mut left = receipts;
        for tries in 1.. {
            let entry = |(index, receipt): (usize, &String)| {
                DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt).build()
            };
            let entries: Vec<_> =
                left.iter().enumerate().map(entry).collect::<Result<_, _>>().expect("every entry has its id and its receipt");
            let sent = self.client.delete_message_batch().queue_url(&self.queue).set_entries(Some(entries)).send().await;
            let failed = sent.map_err(|error| self.failed("delete from", &error))?.failed;
            let Some(first) = failed.first() else { break };
            // What is the sender's fault will fail again: a receipt that is too old. The message comes again, and that is harmless.
            let again: Vec<String> = failed
                .iter()
                .filter(|entry| !entry.sender_fault)
                .filter_map(|entry| left.get(entry.id.parse::<usize>().ok()?).cloned())
                .collect();
            if again.is_empty() || tries == DELETE_TRIES {
                tracing::warn!(
                    stream = self.stream,
                    messages = failed.len(),
                    reason = first.message.as_deref().unwrap_or(&first.code),
                    "messages were not deleted and come again"
                );
                break;
            }
            left = again;
            self.clock.sleep(Duration::from_millis(100 << tries)).await;
        }
        Ok(())
    }
}

/// Why a queue could not be used, in words that help where we have some.
fn reason(error: &(impl ProvideErrorMetadata + std::error::Error + 'static)) -> String {
    let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
    match Hindrance::of_code(code, message, None).or_else(|| Hindrance::of_error(error)) {
        Some(hindrance) => hindrance.to_string(),
        None => DisplayErrorContext(error).to_string(),
    }
}

/// What is wrong with a queue, as far as it can be asked without taking a message.
pub enum QueueTrouble {
    /// There is no such queue.
    Missing(String),
    /// Why it could not be asked: it may be there.
    Unknown(String),
}

/// Asks whether there is such a queue.
///
/// # Errors
/// [`QueueTrouble`].
pub async fn look(client: &Client, queue: &str) -> Result<(), QueueTrouble> {
    let asked = client.get_queue_attributes().queue_url(queue).attribute_names(QueueAttributeName::QueueArn).send().await;
    asked.map(drop).map_err(|error| {
        let missing = Hindrance::of_code(error.code().unwrap_or_default(), "", None) == Some(Hindrance::NoQueue);
        if missing { QueueTrouble::Missing(reason(&error)) } else { QueueTrouble::Unknown(reason(&error)) }
    })
}

/// Lets messages that were received come again after so long, and not when their time is over. That one does not is no error: it comes then.
pub async fn give_back(client: &Client, queue: &str, receipts: &[String], after: Duration) {
    for batch in receipts.chunks(BATCH_MESSAGES_MAX) {
        let entry = |(index, receipt): (usize, &String)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt);
            entry.visibility_timeout(i32::try_from(after.as_secs()).unwrap_or(i32::MAX)).build()
        };
        let entries: Vec<_> =
            batch.iter().enumerate().map(entry).collect::<Result<_, _>>().expect("every entry has its id and its receipt");
        match client.change_message_visibility_batch().queue_url(queue).set_entries(Some(entries)).send().await {
            Ok(changed) if changed.failed.is_empty() => {}
            Ok(changed) => tracing::warn!(queue, messages = changed.failed.len(), "messages come again later than they could"),
            Err(error) => tracing::warn!(queue, reason = reason(&error), "messages come again later than they could"),
        }
    }
}

/// The tag of a queue that says which vault takes its messages.
const VAULT_TAG: &str = "hindsight-vault";

/// Notes on a queue that this vault takes its messages; says which one did before, if another. Of a message each taker has only
/// what the others have not. Who may not read or write tags is not told.
pub async fn claim(client: &Client, queue: &str, vault: &str) -> Option<String> {
    let noted = client.list_queue_tags().queue_url(queue).send().await;
    let noted = match noted {
        Ok(noted) => noted.tags.and_then(|mut tags| tags.remove(VAULT_TAG)),
        Err(error) => {
            tracing::debug!(queue, reason = reason(&error), "the tags of the queue cannot be read");
            return None;
        }
    };
    if noted.as_deref() != Some(vault)
        && let Err(error) = client.tag_queue().queue_url(queue).tags(VAULT_TAG, vault).send().await
    {
        tracing::debug!(queue, reason = reason(&error), "the queue cannot be tagged");
    }
    noted.filter(|noted| noted != vault)
}

#[async_trait]
impl Source for SqsSource {
    fn stream(&self) -> &str {
        &self.stream
    }

    fn keeps(&self) -> Option<Duration> {
        self.keeps.get().copied()
    }

    fn lost(&self) -> Option<String> {
        self.gone.load(Ordering::Relaxed).then(|| format!("{} was not there", self.stream))
    }

    async fn poll(&self) -> Result<Delivery, SourceError> {
        let started = self.clock.now();
        self.ask_how_long_it_keeps().await;
        let mut wait = self.drain.lock().unwrap_or_else(PoisonError::into_inner).wait();
        let mut messages = Vec::new();
        let drained = loop {
            let began = self.clock.now();
            let batch = match self.receive(wait).await {
                Ok(Some(batch)) => batch,
                Ok(None) => break None,
                // What was gathered is in our hands and may be worked on.
                Err(error) if !messages.is_empty() => {
                    tracing::debug!(%error, "a round ends early");
                    break None;
                }
                Err(error) => return Err(error),
            };
            let short = batch.len() < BATCH_MESSAGES_MAX;
            messages.extend(batch);
            if short {
                break Some(began).filter(|began| *began >= self.hidden_until);
            }
            if messages.len() >= ROUND_MESSAGES_MAX || self.clock.now().since(started) >= ROUND_TIME_MAX {
                break None;
            }
            wait = super::BUSY_WAIT;
        };
        let drained = self.drain.lock().unwrap_or_else(PoisonError::into_inner).say(messages.len(), drained);
        Ok(Delivery { messages, drained })
    }

    async fn ack(&self, receipts: Vec<String>) -> Result<(), SourceError> {
        let batches: Vec<Vec<String>> = receipts.chunks(BATCH_MESSAGES_MAX).map(<[String]>::to_vec).collect();
        futures::stream::iter(batches).map(|batch| self.delete(batch)).buffer_unordered(DELETES_AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }
}
