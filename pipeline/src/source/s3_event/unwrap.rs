//! From a message to its records: takes off what queues and topics put around an event.
//!
//! An SNS topic puts the event as text into `Message`, Lambda puts an SQS message as text into `body`, and either may
//! hold the other. Each such text, and each JSON array and each file of JSON lines, is one layer.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::dialect::Dialect;
use super::name::{self, Action};
use super::outcome::{Ignored, RejectReason, excerpt};
use super::slice::{Bridge, slice};
use super::wire::{Envelope, Message, Record};
use super::{Decoder, Event, INPUT_BYTES_MAX, LAYERS_MAX, MESSAGE_BYTES_MAX, field};

impl Decoder {
    pub(super) fn unwrap_message(&mut self, message: &[u8]) {
        if message.len() > INPUT_BYTES_MAX {
            return self.reject(message, RejectReason::TooLarge { bytes: message.len(), max: INPUT_BYTES_MAX });
        }
        match std::str::from_utf8(message) {
            Ok(text) => self.unwrap_text(text, 0),
            Err(error) => self.reject(message, RejectReason::NotUtf8 { valid: error.valid_up_to() }),
        }
    }

    fn unwrap_text(&mut self, text: &str, layers: usize) {
        if layers > LAYERS_MAX {
            return self.reject(text.as_bytes(), RejectReason::Layers { max: LAYERS_MAX });
        }
        match text.bytes().find(|byte| !byte.is_ascii_whitespace()) {
            None => self.reject(text.as_bytes(), RejectReason::Empty),
            Some(b'[') => self.unwrap_array(text, layers),
            Some(_) => self.unwrap_object(text, layers),
        }
    }

    fn unwrap_array(&mut self, text: &str, layers: usize) {
        match serde_json::from_str::<Vec<&RawValue>>(text) {
            Err(_) if is_lines(text) => self.unwrap_lines(text, layers),
            Err(error) => self.reject(text.as_bytes(), json(&error)),
            Ok(items) if items.is_empty() => self.ignore(Ignored::EmptyBatch),
            Ok(items) => items.into_iter().for_each(|item| self.unwrap_text(item.get(), layers + 1)),
        }
    }

    fn unwrap_object(&mut self, text: &str, layers: usize) {
        if text.len() <= MESSAGE_BYTES_MAX
            && let Some(bridge) = slice(text)
        {
            return self.event_bridge(&bridge).unwrap_or_else(|reason| self.reject(text.as_bytes(), reason));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        match Message::deserialize(&mut deserializer).and_then(|message| deserializer.end().map(|()| message)) {
            Ok(message) => self.unwrap_one(text, &message, layers),
            Err(_) if is_lines(text) => self.unwrap_lines(text, layers),
            Err(error) => match foreign(text) {
                Some(why) => self.ignore(why),
                None => self.reject(text.as_bytes(), json(&error)),
            },
        }
    }

    fn unwrap_lines(&mut self, text: &str, layers: usize) {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.for_each(|line| self.unwrap_text(line, layers + 1));
    }

    /// Takes a message of one of the known forms; it must be of exactly one, or nobody knows which was meant.
    fn unwrap_one(&mut self, text: &str, message: &Message<'_>, layers: usize) {
        let raw = text.as_bytes();
        let inner = message.body.as_deref();
        let forms = [message.records.is_some(), message.detail_type.is_some(), message.sns_type.is_some(), inner.is_some()];
        match forms.into_iter().filter(|&form| form).count() {
            0 if message.test.as_deref() == Some("s3:TestEvent") => return self.ignore(Ignored::TestEvent),
            0 => {
                return self.reject(raw, RejectReason::Form { problem: "it is neither an event nor a known envelope of events" });
            }
            1 => {}
            _ => {
                return self.reject(raw, RejectReason::Form { problem: "it has the marks of two different envelopes" });
            }
        }
        if let Some(records) = &message.records {
            return self.unwrap_records(records, layers);
        }
        if raw.len() > MESSAGE_BYTES_MAX {
            return self.reject(raw, RejectReason::TooLarge { bytes: raw.len(), max: MESSAGE_BYTES_MAX });
        }
        if let Some(inner) = inner {
            return self.unwrap_text(inner, layers + 1);
        }
        match message.sns_type.as_deref() {
            Some("Notification") => match message.sns_message.as_deref() {
                Some(inner) => self.unwrap_text(inner, layers + 1),
                None => self.reject(raw, RejectReason::Missing { field: "Message" }),
            },
            Some("SubscriptionConfirmation" | "UnsubscribeConfirmation") => self.ignore(Ignored::Subscription),
            Some(other) => self.reject(raw, RejectReason::Type { name: excerpt(other) }),
            None => {
                let bridge = message.bridge();
                self.event_bridge(&bridge).unwrap_or_else(|reason| self.reject(raw, reason));
            }
        }
    }

    fn unwrap_records(&mut self, records: &[&RawValue], layers: usize) {
        if records.is_empty() {
            return self.ignore(Ignored::EmptyBatch);
        }
        for record in records {
            let text = record.get();
            match serde_json::from_str::<Record<'_>>(text) {
                Err(error) => self.reject(text.as_bytes(), json(&error)),
                Ok(record) => self.unwrap_record(text, &record, layers),
            }
        }
    }

    fn unwrap_record(&mut self, text: &str, record: &Record<'_>, layers: usize) {
        let inner = record.body.as_deref().or(record.sns.as_ref().and_then(|sns| sns.message.as_deref()));
        let raw = text.as_bytes();
        // The text of a message grows when it is put into JSON, so what counts is its length after it is taken out.
        let bytes = inner.map_or(raw.len(), str::len);
        if bytes > MESSAGE_BYTES_MAX {
            return self.reject(raw, RejectReason::TooLarge { bytes, max: MESSAGE_BYTES_MAX });
        }
        match (inner, record.data, &record.s3) {
            (Some(inner), None, None) => self.unwrap_text(inner, layers + 1),
            // RustFS puts its own record around the notification.
            (None, Some(data), None) if layers < LAYERS_MAX => self.unwrap_records(&[data], layers + 1),
            (None, Some(_), None) => self.reject(raw, RejectReason::Layers { max: LAYERS_MAX }),
            (None, None, _) => {
                if let Err(reason) = self.notification(record) {
                    self.reject(raw, reason);
                }
            }
            _ => self.reject(raw, RejectReason::Form { problem: "it has the marks of two different envelopes" }),
        }
    }

    fn event_bridge(&mut self, event: &Bridge<'_>) -> Result<(), RejectReason> {
        let source = field::required("source", event.source)?;
        let detail_type = field::required("detail-type", event.detail_type)?;
        if let Some(why) = foreign_source(source) {
            self.ignore(why);
            return Ok(());
        }
        field::major("EventBridge envelope", event.version, "0")?;
        if !event.has_detail {
            return Err(RejectReason::Missing { field: "detail" });
        }
        let action = name::of_detail_type(detail_type, event.deletion_type)?;
        if action != Action::Nothing(Ignored::CloudTrail) {
            field::major("S3 event's detail", event.detail_version, "0")?;
            field::major("S3 event", event.event_version, "1")?;
        }
        if let Action::Nothing(why) = action {
            self.ignore(why);
            return Ok(());
        }
        self.take(&Event {
            dialect: Dialect::of_event_bridge(source, self.feed.emulated),
            action,
            bucket: field::required("bucket name", event.bucket)?,
            object: event.object.ok_or(RejectReason::Missing { field: "object key" })?,
            version: event.object_version,
            sequencer: event.sequencer,
            size: event.size,
            etag: event.etag,
            storage_class: event.storage_class,
            time: field::required("time", event.time)?,
            requester: event.requester,
            request: event.request,
        })
    }

    fn notification(&mut self, record: &Record<'_>) -> Result<(), RejectReason> {
        field::major("S3 notification", record.event_version.as_deref(), "2")?;
        let action = name::of_event_name(field::required("eventName", record.event_name.as_deref())?)?;
        if let Action::Nothing(why) = action {
            self.ignore(why);
            return Ok(());
        }
        let s3 = record.s3.as_ref().ok_or(RejectReason::Missing { field: "s3" })?;
        let transition = record.lifecycle.as_ref().and_then(|lifecycle| lifecycle.transition.as_ref());
        self.take(&Event {
            dialect: Dialect::of_notification(record.event_source.as_deref().unwrap_or_default(), self.feed.emulated),
            action,
            bucket: field::required("bucket name", s3.bucket.name.as_deref())?,
            object: s3.object.key.as_deref().ok_or(RejectReason::Missing { field: "object key" })?,
            version: s3.object.version.as_deref(),
            sequencer: s3.object.sequencer.as_deref(),
            size: s3.object.size,
            etag: s3.object.etag.as_deref(),
            storage_class: transition.and_then(|transition| transition.storage_class.as_deref()),
            time: field::required("eventTime", record.event_time.as_deref())?,
            requester: record.user.as_ref().and_then(|user| user.principal.as_deref()),
            request: record.response.as_ref().and_then(|response| response.request_id.as_deref()),
        })
    }
}

/// Whether the text is one JSON value a line: at least one line is a whole JSON object by itself, which no line of a
/// broken message is that was only printed over several lines.
fn is_lines(text: &str) -> bool {
    let is_object = |line: &str| line.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(line).is_ok();
    text.trim().contains('\n') && text.lines().any(is_object)
}

/// Whether a message that cannot be read as S3's is an event of something else, whose details may be anything.
fn foreign(text: &str) -> Option<Ignored> {
    let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
    match name::of_detail_type(envelope.detail_type.as_deref()?, None) {
        Ok(Action::Nothing(Ignored::CloudTrail)) => Some(Ignored::CloudTrail),
        _ => foreign_source(envelope.source.as_deref()?),
    }
}

fn foreign_source(source: &str) -> Option<Ignored> {
    (source.starts_with("aws.") && source != "aws.s3").then_some(Ignored::OtherService)
}

fn json(error: &serde_json::Error) -> RejectReason {
    // The parser quotes what it found, which may be long and anything.
    RejectReason::Json { problem: error.to_string().chars().take(200).collect() }
}
