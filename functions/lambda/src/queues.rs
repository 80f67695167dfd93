//! Messages of queues, as Lambda hands them over.

use std::collections::BTreeMap;

use aws_lambda_events::sqs::{BatchItemFailure, SqsEvent};
use pipeline::source::Message;
use server::functions::Captured;

/// The messages of each queue, by its name. One without an id cannot be named when it is to come again, and one without a body tells
/// nothing: the id is always there, and what is kept of an empty message is a dead letter.
pub fn by_queue(event: SqsEvent) -> BTreeMap<String, Vec<Message>> {
    let mut queues: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for record in event.records {
        // arn:aws:sqs:REGION:ACCOUNT:NAME
        let queue = record.event_source_arn.as_deref().and_then(|arn| arn.rsplit(':').next()).unwrap_or_default().to_owned();
        let message = Message { body: record.body.unwrap_or_default().into(), receipt: record.message_id.unwrap_or_default() };
        queues.entry(queue).or_default().push(message);
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
