//! The JSON of the events, as slices of the message: only the fields that are used are read, the others are skipped.
//!
//! A field that is there twice, or is of another type, makes the whole record a reject: which of two keys was meant is
//! nobody's guess. Fields that are not named here may be anything.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use super::slice::Bridge;

pub(super) type Text<'a> = Option<Cow<'a, str>>;

/// Whatever may arrive: an EventBridge envelope, a notification or a batch, an SNS or SQS envelope, a test event.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) version: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "detail-type")]
    pub(super) detail_type: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) source: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) time: Text<'a>,
    #[serde(borrow, default)]
    pub(super) detail: Option<Detail<'a>>,
    #[serde(borrow, default, rename = "Records")]
    pub(super) records: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default, deserialize_with = "text", rename = "Type")]
    pub(super) sns_type: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "Message")]
    pub(super) sns_message: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", alias = "Body")]
    pub(super) body: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "Event")]
    pub(super) test: Text<'a>,
}

impl Message<'_> {
    /// The message as an EventBridge event.
    pub(super) fn bridge(&self) -> Bridge<'_> {
        let envelope = Bridge {
            version: self.version.as_deref(),
            detail_type: self.detail_type.as_deref(),
            source: self.source.as_deref(),
            time: self.time.as_deref(),
            ..Bridge::default()
        };
        let Some(detail) = &self.detail else { return envelope };
        Bridge {
            has_detail: true,
            detail_version: detail.version.as_deref(),
            event_version: detail.event_version.as_deref(),
            bucket: detail.bucket.name.as_deref(),
            object: detail.object.key.as_deref(),
            size: detail.object.size,
            etag: detail.object.etag.as_deref(),
            object_version: detail.object.version.as_deref(),
            sequencer: detail.object.sequencer.as_deref(),
            request: detail.request_id.as_deref(),
            requester: detail.requester.as_deref(),
            deletion_type: detail.deletion_type.as_deref(),
            storage_class: detail.destination_storage_class.as_deref(),
            ..envelope
        }
    }
}

/// As much of an EventBridge envelope as tells whose it is, for when the rest is not as expected.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "text", rename = "detail-type")]
    pub(super) detail_type: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) source: Text<'a>,
}

/// What EventBridge carries of S3.
#[derive(Deserialize)]
pub(super) struct Detail<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) version: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "event-version")]
    pub(super) event_version: Text<'a>,
    #[serde(borrow, default)]
    pub(super) bucket: Bucket<'a>,
    #[serde(borrow, default)]
    pub(super) object: Object<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "request-id")]
    pub(super) request_id: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) requester: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "deletion-type")]
    pub(super) deletion_type: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "destination-storage-class")]
    pub(super) destination_storage_class: Text<'a>,
}

#[derive(Deserialize, Default)]
pub(super) struct Bucket<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) name: Text<'a>,
}

/// An object in either form; the servers differ in how they spell its fields.
#[derive(Deserialize, Default)]
pub(super) struct Object<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) key: Text<'a>,
    #[serde(default)]
    pub(super) size: Option<u64>,
    #[serde(borrow, default, deserialize_with = "text", alias = "eTag", alias = "e_tag")]
    pub(super) etag: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "version-id", alias = "versionId", alias = "version_id")]
    pub(super) version: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) sequencer: Text<'a>,
}

/// One of `Records`: a notification, or an SQS or SNS message in a Lambda batch, or RustFS's form around a notification.
#[derive(Deserialize)]
pub(super) struct Record<'a> {
    #[serde(borrow, default, deserialize_with = "text", rename = "eventVersion")]
    pub(super) event_version: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "eventSource")]
    pub(super) event_source: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "eventTime")]
    pub(super) event_time: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text", rename = "eventName")]
    pub(super) event_name: Text<'a>,
    #[serde(borrow, default, rename = "userIdentity")]
    pub(super) user: Option<Identity<'a>>,
    #[serde(borrow, default, rename = "responseElements")]
    pub(super) response: Option<Response<'a>>,
    #[serde(borrow, default)]
    pub(super) s3: Option<S3<'a>>,
    #[serde(borrow, default, rename = "lifecycleEventData")]
    pub(super) lifecycle: Option<Lifecycle<'a>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub(super) body: Text<'a>,
    #[serde(borrow, default, rename = "Sns")]
    pub(super) sns: Option<Sns<'a>>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Identity<'a> {
    #[serde(borrow, default, deserialize_with = "text", rename = "principalId", alias = "principal_id")]
    pub(super) principal: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow, default, deserialize_with = "text", rename = "x-amz-request-id")]
    pub(super) request_id: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct S3<'a> {
    #[serde(borrow, default)]
    pub(super) bucket: Bucket<'a>,
    #[serde(borrow, default)]
    pub(super) object: Object<'a>,
}

#[derive(Deserialize)]
pub(super) struct Lifecycle<'a> {
    #[serde(borrow, default, rename = "transitionEventData")]
    pub(super) transition: Option<Transition<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Transition<'a> {
    #[serde(borrow, default, deserialize_with = "text", rename = "destinationStorageClass")]
    pub(super) storage_class: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Sns<'a> {
    #[serde(borrow, default, deserialize_with = "text", rename = "Message")]
    pub(super) message: Text<'a>,
}

/// Reads a text without copying it where it has no escapes; serde itself would copy one inside an `Option`.
fn text<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
    deserializer.deserialize_option(TextVisitor)
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_none<E: Error>(self) -> Result<Text<'de>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text<'de>, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }
}
