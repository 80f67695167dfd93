//! Messages of queues, as Lambda hands them over.

use std::collections::BTreeMap;

use aws_lambda_events::sqs::{BatchItemFailure, SqsEvent};
use pipeline::source::Message;
use server::functions::Captured;

/// Messages of one queue.
#[derive(Debug, Default)]
pub struct Received {
    /// The messages, each with its id as its receipt.
    pub messages: Vec<Message>,
    /// By id, what the queue wants to see of a message that it is told something about.
    pub handles: BTreeMap<String, String>,
}

impl Received {
    /// What the queue wants to see of these.
    pub fn handles_of(&self, ids: &[String]) -> Vec<String> {
        ids.iter().filter_map(|id| self.handles.get(id).cloned()).collect()
    }
}

/// The messages of each queue, by its name. One without an id cannot be named when it is to come again, and one without a body tells
/// nothing: the id is always there, and what is kept of an empty message is a dead letter.
pub fn by_queue(event: SqsEvent) -> BTreeMap<String, Received> {
    let mut queues: BTreeMap<String, Received> = BTreeMap::new();
    for record in event.records {
        // arn:aws:sqs:REGION:ACCOUNT:NAME
        let queue = record.event_source_arn.as_deref().and_then(|arn| arn.rsplit(':').next()).unwrap_or_default().to_owned();
        let message = Message { body: record.body.unwrap_or_default().into(), receipt: record.message_id.unwrap_or_default() };
        let received = queues.entry(queue).or_default();
        received.handles.extend(record.receipt_handle.map(|handle| (message.receipt.clone(), handle)));
        received.messages.push(message);
    }
    queues
}

/// A message that is to come again, by its id.
pub fn failure(item_identifier: String) -> BatchItemFailure {
    let mut failure = BatchItemFailure::default();
    failure.item_identifier = item_identifier;
    failure
}

/// What is counted of messages.
pub fn counts(captured: &Captured) -> [(&'static str, &'static str, u64); 7] {
    let report = &captured.report;
    [
        ("Messages", "Count", report.messages),
        ("Changes", "Count", report.changes),
        ("Bytes", "Bytes", report.bytes),
        ("LostBodies", "Count", report.lost),
        ("DeadLetters", "Count", report.dead),
        ("Again", "Count", report.again),
        ("LagMax", "Milliseconds", report.lag_ms_max),
    ]
}
