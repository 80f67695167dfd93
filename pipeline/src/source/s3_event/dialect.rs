//! Whose events they are, and what each of those says reliably.

use super::name::Action;

/// Whose events they are. S3's event format is spoken by many; what an event *means* differs.
///
/// | | order of one key | names versions | key | time |
/// |---|---|---|---|---|
/// | EventBridge, from AWS | sequencer | yes, where the bucket has them | as it is | whole seconds |
/// | notification, from AWS | sequencer | yes, where the bucket has them | URL-encoded, `+` is a space | milliseconds |
/// | either, emulated | none | some do, some do not | as AWS in that form | as AWS |
/// | Ceph | none: its sequencer does not grow with time | yes, but with a delete marker it shows the version below or nothing | as it is | microseconds |
/// | MinIO | none: the sequencer is the modification time in ns | yes; `1` in old releases, whatever the version | URL-encoded, `+` is a space, `/` too is escaped | milliseconds |
/// | RustFS | none: as MinIO's | yes, or empty | URL-encoded as MinIO's | nanoseconds |
/// | anyone else | none | unknown | unknown | whole seconds |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// AWS through EventBridge: `source` is `aws.s3`.
    AwsEventBridge,
    /// AWS through a notification to SQS, SNS or Lambda: `eventSource` is `aws:s3`.
    AwsNotification,
    /// EventBridge's form, not from AWS.
    EmulatedEventBridge,
    /// AWS's notification, but not from AWS.
    EmulatedNotification,
    /// The RADOS gateway: `ceph:s3`.
    Ceph,
    /// MinIO: `minio:s3`.
    MinIo,
    /// RustFS: `rustfs:s3`.
    RustFs,
    /// A notification of a server that we do not know.
    Unknown,
}

/// How an object key is written in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyEncoding {
    /// As it is.
    Plain,
    /// As a form field: `%` and two digits for a byte, `+` for a space.
    Url,
    /// Nobody knows; a key that would read differently cannot be taken.
    Unknown,
}

impl Dialect {
    /// Whose event an EventBridge envelope with this `source` is.
    pub(super) fn of_event_bridge(source: &str, emulated: bool) -> Dialect {
        if source == "aws.s3" && !emulated { Dialect::AwsEventBridge } else { Dialect::EmulatedEventBridge }
    }

    /// Whose event a notification with this `eventSource` is.
    pub(super) fn of_notification(source: &str, emulated: bool) -> Dialect {
        match source {
            "aws:s3" if emulated => Dialect::EmulatedNotification,
            "aws:s3" => Dialect::AwsNotification,
            "ceph:s3" => Dialect::Ceph,
            "minio:s3" => Dialect::MinIo,
            "rustfs:s3" => Dialect::RustFs,
            _ => Dialect::Unknown,
        }
    }

    /// Whether its sequencer orders the changes of one key, so that an event can be believed without a look.
    pub const fn orders_changes(self) -> bool {
        matches!(self, Dialect::AwsEventBridge | Dialect::AwsNotification)
    }

    /// Whether the version id in an event is that of the version which was put or removed.
    pub const fn names_versions(self) -> bool {
        !matches!(self, Dialect::Unknown)
    }

    /// Whether the version id says anything about this action.
    pub(super) const fn names_version_of(self, action: Action) -> bool {
        match action {
            // The version that is named is one of many, or the one that a new delete marker now hides.
            Action::Gone => false,
            Action::Marker if matches!(self, Dialect::Ceph) => false,
            _ => self.names_versions(),
        }
    }

    /// How the object key is written.
    pub const fn key_encoding(self) -> KeyEncoding {
        match self {
            Dialect::AwsEventBridge | Dialect::EmulatedEventBridge | Dialect::Ceph => KeyEncoding::Plain,
            Dialect::AwsNotification | Dialect::EmulatedNotification | Dialect::MinIo | Dialect::RustFs => KeyEncoding::Url,
            Dialect::Unknown => KeyEncoding::Unknown,
        }
    }

    /// How exact its times are: an event at `t` happened in `[t, t + precision)`.
    pub const fn precision_micros(self) -> i64 {
        match self {
            Dialect::AwsEventBridge | Dialect::EmulatedEventBridge | Dialect::Unknown => 1_000_000,
            Dialect::AwsNotification | Dialect::EmulatedNotification | Dialect::MinIo => 1_000,
            Dialect::Ceph | Dialect::RustFs => 1,
        }
    }
}
