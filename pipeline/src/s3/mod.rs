//! The one door to S3 buckets that are protected or restored to.
//!
//! [`Bucket`] is what the core needs of S3: versions listed and read, objects put and removed, tags, ACLs and the
//! bucket's own settings. `aws` carries it with the AWS SDK, for AWS and every server that speaks S3; the simulation
//! carries it in memory. The vault does not come through here: it is an `object_store`.

pub mod aws;
pub mod hindrance;

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::model::checksum::EtagForm;
use crate::model::{Checksum, Timestamp};

pub use self::hindrance::Hindrance;
pub use crate::model::change::NULL_VERSION;

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Versioning {
    /// Every put makes a new version.
    Enabled,
    /// Older versions stay; new puts overwrite version `null`.
    Suspended,
    /// Never switched on: there is only version `null`.
    Never,
}

/// What `ListObjectVersions` says of one version or delete marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedVersion {
    /// The object's key, decoded.
    pub object: String,
    /// The version id, `null` included.
    pub version: String,
    /// A delete marker.
    pub marker: bool,
    /// The version a plain GET sees.
    pub latest: bool,
    /// When S3 says it was last modified: for multipart uploads on AWS the time of initiation.
    pub modified: Timestamp,
    /// Content length in bytes; none for markers.
    pub size: Option<i64>,
    /// Without its quotes.
    pub etag: Option<String>,
    /// `STANDARD` and so on.
    pub storage_class: Option<String>,
}

/// Where a listing goes on; opaque but to the implementation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMarker {
    /// The last key of the page before.
    pub key: String,
    /// The last version of that key, where the listing stopped within it.
    pub version: Option<String>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionPage {
    /// Versions of one object stand together, the newest first; the order of keys is the server's own.
    pub versions: Vec<ListedVersion>,
    /// Where to go on; none at the end.
    pub next: Option<ListMarker>,
    /// The server's clock when it answered (the HTTP `Date`), where it says.
    pub server_time: Option<Timestamp>,
}

/// What a HEAD or GET says beside the content: everything needed to put the object back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObjectHead {
    /// The version that was read, `null` where the server names none.
    pub version: String,
    /// Content length in bytes.
    pub size: i64,
    /// Without its quotes.
    pub etag: String,
    /// When S3 says it was last modified.
    pub modified: Timestamp,
    /// `STANDARD` where the server names none.
    pub storage_class: String,
    /// How many tags it has, where the server says (`x-amz-tagging-count`).
    pub tag_count: Option<i32>,
    /// Headers and user metadata.
    pub metadata: ObjectMetadata,
    /// Checksums as the server states them, by algorithm: `sha256`, `crc64nvme` and so on, base64.
    pub checksums: BTreeMap<String, String>,
}

impl ObjectHead {
    /// Whether what the server says of the object shows that its content is the one of this size with these checksums: one of
    /// them can be compared at least, and none differs.
    pub fn shows(&self, size: u64, checksums: &[Checksum]) -> bool {
        let plain = self.metadata.encryption.as_deref().is_none_or(|mode| mode == "AES256");
        let crc64 = self.checksums.get("crc64nvme").and_then(|text| Checksum::of_crc64_base64(text));
        let compared = checksums.iter().filter_map(|checksum| match (checksum, EtagForm::of(&self.etag).filter(|_| plain)) {
            (Checksum::Crc64Nvme(_), _) => crc64.map(|stated| stated == *checksum),
            (Checksum::Md5(md5), Some(EtagForm::Whole(etag))) => Some(*md5 == etag),
            // The same content in other parts has another etag.
            (_, Some(EtagForm::Parts(..))) if checksum.etag_in_parts(size).as_ref() == Some(&self.etag) => Some(true),
            _ => None,
        });
        let compared: Vec<bool> = compared.collect();
        u64::try_from(self.size) == Ok(size) && !compared.is_empty() && compared.iter().all(|same| *same)
    }
}

/// Headers that come back with the object, and its user metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is the HTTP header of that name")]
pub struct ObjectMetadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub website_redirect: Option<String>,
    /// The server-side encryption mode: `AES256`, `aws:kms`, `aws:kms:dsse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// `x-amz-meta-` entries, without that prefix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

/// An access control list, as S3 states it: the owner and who may what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Acl {
    /// Canonical id of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// One entry per permission, sorted.
    pub grants: Vec<Grant>,
}

/// One permission of an ACL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// `id=`, `uri=` or `email=` and the grantee.
    pub grantee: String,
    /// `FULL_CONTROL`, `READ`, `WRITE`, `READ_ACP`, `WRITE_ACP`.
    pub permission: String,
}

/// The settings of a bucket, by document name: `versioning`, `policy`, `lifecycle`, `cors`, `encryption`, `notification`,
/// `tagging`, `public-access-block`, `ownership`, `object-lock`. What is not set, or not known to the server, is in
/// neither map.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Configuration {
    /// Each document as the server wrote it.
    pub documents: BTreeMap<String, String>,
    /// Documents that could not be read, and why. They may be set: nobody may take them for absent.
    pub unread: BTreeMap<String, String>,
}

/// Tags of an object.
pub type Tags = BTreeMap<String, String>;

/// What is put: content with a known length, and its properties.
#[derive(Debug, Clone, Default)]
pub struct PutRequest {
    /// Headers and user metadata.
    pub metadata: ObjectMetadata,
    /// Tags that come with the object.
    pub tags: Tags,
    /// Storage class, or the bucket's default.
    pub storage_class: Option<String>,
    /// Only where no object has the name, or it is [`BucketError::Changed`]. Ceph's gateway puts all the same.
    pub creates: bool,
}

/// A version of a bucket of the same server, and what shows that a copy of it is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The bucket's name.
    pub bucket: String,
    /// The object's key.
    pub object: String,
    /// The version; the current one for none.
    pub version: Option<String>,
    /// The etag that it must have.
    pub etag: Option<String>,
    /// Content length in bytes.
    pub size: u64,
    /// What the copy must come to; the server has to state one of them, and none that differs.
    pub checksums: Vec<Checksum>,
}

/// The parts that an object was uploaded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLayout {
    /// How long the first one is.
    pub first_bytes: u64,
    /// How many there are.
    pub parts: u64,
}

/// Whose name a copy gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyName {
    /// Ours, for this one content: what has the name already is never overwritten, but is the copy or an error, and a copy
    /// that broke off is gone on with.
    Ours,
    /// The users' as well: what has the name is replaced as a put replaces it.
    Users,
}

/// A content as it is read: pieces in order, bounded in size by the implementation.
pub type Content = BoxStream<'static, Result<Bytes, BucketError>>;

/// Why S3 did not do what was asked, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// There is no such object, version or bucket.
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The version is a delete marker: there, without content. Only [`Bucket::head`] says so, where the server does.
    #[error("{what} is a delete marker")]
    Marker {
        /// What was asked for.
        what: String,
        /// When it was put, where the server says.
        modified: Option<Timestamp>,
    },
    /// The content lies in an archive class and cannot be read before it is restored there.
    #[error("{what} is archived in storage class {class}: restore it from the archive first")]
    Archived {
        /// What was asked for.
        what: String,
        /// `GLACIER`, `DEEP_ARCHIVE` and so on.
        class: String,
    },
    /// The object is not the one that was expected (If-Match, If-None-Match).
    #[error("{what} has changed meanwhile")]
    Changed {
        /// What was asked for.
        what: String,
    },
    /// The server did it, and nothing that it says shows that it did it right.
    #[error("{what} cannot be shown to be right: {reason}")]
    Unproven {
        /// What was attempted.
        what: String,
        /// What is missing, or differs.
        reason: String,
    },
    /// The credentials do not allow it.
    #[error("{what} is not allowed: {reason}")]
    Denied {
        /// What was attempted.
        what: String,
        /// The server's words.
        reason: String,
    },
    /// The server does not offer it: ACLs on a bucket that enforces ownership, notifications on a server that has none.
    #[error("{what} is not supported by this server: {reason}")]
    Unsupported {
        /// What was attempted.
        what: String,
        /// The server's words.
        reason: String,
    },
    /// It may work when tried again: throttling, time-outs, broken connections, 5xx.
    #[error("{what}: {reason}")]
    Transient {
        /// What was attempted.
        what: String,
        /// What went wrong.
        reason: String,
    },
    /// It will not work when tried again.
    #[error("{what}: {reason}")]
    Other {
        /// What was attempted.
        what: String,
        /// What went wrong.
        reason: String,
    },
}

impl BucketError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, BucketError::Transient { .. })
    }
}

/// What the core needs of an S3 bucket. Every implementation passes the same conformance suite.
///
/// Implementations retry what is transient a bounded number of times before they return it.
#[async_trait]
pub trait Bucket: Send + Sync {
    /// The bucket's name.
    fn name(&self) -> &str;

    /// Whether it keeps versions.
    async fn versioning(&self) -> Result<Versioning, BucketError>;

    /// One page of all versions and delete markers whose keys begin with `prefix`, at most `limit` (1 to 1000).
    async fn list_versions(&self, prefix: &str, after: Option<&ListMarker>, limit: i32) -> Result<VersionPage, BucketError>;

    /// What is known of a version (the current one for none) without its content. Of a delete marker that is named by its
    /// version some servers say that it is one ([`BucketError::Marker`]), others that there is nothing.
    async fn head(&self, object: &str, version: Option<&str>) -> Result<ObjectHead, BucketError>;

    /// A version with its content, or with a range of it. `if_match` is an etag that it must have.
    async fn get(
        &self,
        object: &str,
        version: Option<&str>,
        range: Option<Range<u64>>,
        if_match: Option<&str>,
    ) -> Result<(ObjectHead, Content), BucketError>;

    /// Puts content of `size` bytes; returns what the object is then (its version and etag at least). Large content is
    /// uploaded in parts with bounded memory.
    async fn put(&self, object: &str, request: &PutRequest, size: u64, content: Content) -> Result<ObjectHead, BucketError>;

    /// How many requests a put of so many bytes takes, when nothing has to be tried again.
    fn put_requests(&self, _size: u64) -> u64 {
        1
    }

    /// The parts that a version was uploaded in. Nothing where it was put in one piece, or where the server does not say.
    async fn parts(&self, object: &str, version: Option<&str>) -> Result<Option<PartLayout>, BucketError>;

    /// Puts the content of a version of this or another bucket of the same server, without its coming through here. The
    /// object appears only when the server has shown, by checksums that it computed while it copied, that it is the same;
    /// returns what the object is then.
    async fn copy(&self, source: &CopySource, object: &str, request: &PutRequest, name: CopyName) -> Result<ObjectHead, BucketError>;

    /// Removes the current object (leaving a delete marker where versions are kept), or one version for good.
    async fn remove(&self, object: &str, version: Option<&str>) -> Result<(), BucketError>;

    /// The tags of a version.
    async fn tags(&self, object: &str, version: Option<&str>) -> Result<Tags, BucketError>;

    /// Replaces the tags of a version.
    async fn set_tags(&self, object: &str, version: Option<&str>, tags: &Tags) -> Result<(), BucketError>;

    /// The ACL of a version.
    async fn acl(&self, object: &str, version: Option<&str>) -> Result<Acl, BucketError>;

    /// Replaces the ACL of a version.
    async fn set_acl(&self, object: &str, version: Option<&str>, acl: &Acl) -> Result<(), BucketError>;

    /// The settings of the bucket, each as the server wrote it, and those that it would not show.
    async fn configuration(&self) -> Result<Configuration, BucketError>;
}
