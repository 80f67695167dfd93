//! What decoding amounts to: changes, hints, what was ignored, and what was rejected.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{ChangeBatch, Position, ResourceId, Timestamp};

/// Everything that was in the messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What the messages say of each S3 bucket they name. Whether the bucket may be named is the caller's to check.
    pub buckets: BTreeMap<ResourceId, DecodedBucket>,
    /// What could not be understood, in the order of arrival.
    pub rejects: Vec<Reject>,
    /// How many events were understood and change nothing that is kept, by reason.
    pub ignored: BTreeMap<Ignored, u64>,
    /// How many records there were: changes, hints, ignored ones and rejects together.
    pub records: u64,
}

/// What the messages say of one S3 bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedBucket {
    /// Complete facts: each has a version id and, where order matters, the source's own order. Without content: body,
    /// metadata, tags and ACL are read later, also those of the facets `tags` and `acl`.
    pub changes: ChangeBatch,
    /// Keys to be listed at the source, because the event alone does not say enough.
    pub hints: Vec<Hint>,
}

/// A reason to look at a key at the source: something happened to it, and the event does not say exactly what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The object key, decoded.
    pub object: String,
    /// The version the event names, if it names one that means anything; `null` included.
    pub version: Option<String>,
    /// What the event says was done.
    pub what: Hinted,
    /// When, by the source's clock.
    pub at: Timestamp,
    /// Of a put, without its quotes: tells the version that was put among those that are listed.
    pub etag: Option<String>,
    /// Of a put: the content's length in bytes.
    pub size: Option<i64>,
    /// The place in the source's own order, where that can be trusted. The change that the look turns up takes it, if it
    /// is the one the event was about.
    pub position: Option<Position>,
    /// Who did it.
    pub requester: Option<String>,
    /// The request's id.
    pub request: Option<String>,
}

/// What was done to a key that has to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hinted {
    /// An object or a version of it was put.
    Put,
    /// A delete marker was put.
    Marker,
    /// An object, a version of it, or all of them are gone; of a versioned bucket perhaps behind a new delete marker.
    Purge,
    /// All versions that there were are gone.
    Emptied,
    /// The tags were changed.
    Tags,
    /// The access control list was changed.
    Acl,
    /// The storage class was changed.
    Class,
}

/// Why an event that was understood changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// S3 tried out a new notification.
    TestEvent,
    /// A batch without records.
    EmptyBatch,
    /// A topic asks to confirm a subscription, or says that one ended.
    Subscription,
    /// An event of another AWS service.
    OtherService,
    /// A CloudTrail record of a call. It says who did what, but not what came of it.
    CloudTrail,
    /// A temporary copy of an archived object was asked for, came or went.
    Restore,
    /// S3 moved the object between access tiers of Intelligent-Tiering; the storage class stays.
    AccessTier,
    /// S3 lost the content of an object in Reduced Redundancy. What the vault holds of it stays.
    LostObject,
    /// Retention or a legal hold was changed.
    Retention,
    /// An annotation was changed.
    Annotation,
    /// Something was read.
    Access,
    /// The state of replication to elsewhere.
    Replication,
    /// A bucket was created or removed.
    Bucket,
    /// The server's housekeeping: a transition that failed, an upload that was given up, a report of a scan.
    Housekeeping,
}

impl Ignored {
    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ignored::TestEvent => "test_event",
            Ignored::EmptyBatch => "empty_batch",
            Ignored::Subscription => "subscription",
            Ignored::OtherService => "other_service",
            Ignored::CloudTrail => "cloudtrail",
            Ignored::Restore => "restore",
            Ignored::AccessTier => "access_tier",
            Ignored::LostObject => "lost_object",
            Ignored::Retention => "retention",
            Ignored::Annotation => "annotation",
            Ignored::Access => "access",
            Ignored::Replication => "replication",
            Ignored::Bucket => "bucket",
            Ignored::Housekeeping => "housekeeping",
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that could not be understood, kept whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Which message it was in, counted from 0.
    pub message: usize,
    /// The record's own bytes; of a message that cannot be taken apart, the whole message.
    pub raw: Vec<u8>,
    /// Why it could not be understood.
    pub reason: RejectReason,
}

/// Why a record cannot be understood. None of them goes away by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says what it means")]
pub enum RejectReason {
    #[error("the message is empty")]
    Empty,
    #[error("{bytes} bytes are more than the {max} that a message may have")]
    TooLarge { bytes: usize, max: usize },
    #[error("the message is not UTF-8 after byte {valid}")]
    NotUtf8 { valid: usize },
    #[error("the message is not JSON of the expected shape: {problem}")]
    Json { problem: String },
    #[error("the message is no S3 event: {problem}")]
    Form { problem: &'static str },
    #[error("the event is wrapped in more than {max} layers")]
    Layers { max: usize },
    #[error("version {found:?} of the {what} is unknown; this release knows {known}")]
    Version { what: &'static str, found: String, known: &'static str },
    #[error("the event has no {field}")]
    Missing { field: &'static str },
    #[error("event type {name:?} is unknown")]
    Type { name: String },
    #[error("the {field} has {bytes} bytes, more than the {max} that are allowed")]
    TooLong { field: &'static str, bytes: usize, max: usize },
    #[error("the object key is empty")]
    KeyEmpty,
    #[error("the object key is not URL-encoded as S3 does it: {problem}")]
    KeyEncoding { problem: &'static str },
    #[error("the object key can be read in two ways, as it is and URL-decoded, and the event does not say whose it is")]
    KeyAmbiguous,
    #[error("the object size {bytes} is more than S3 can keep")]
    Size { bytes: u64 },
    #[error("{name:?} is not a name that S3 allows for a bucket")]
    Bucket { name: String },
    #[error("{text:?} is not a time after 1970 in RFC 3339")]
    Time { text: String },
    #[error("the event claims to have happened at {at}, long after it arrived")]
    Ahead { at: Timestamp },
}

/// The beginning of a text that somebody else wrote, for a reason that people read.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
