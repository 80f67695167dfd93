//! Reading one version: its content, checked, and everything that must come back with it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use md5::{Digest as _, Md5};

use super::s3_scan::list_object;
use crate::model::Timestamp;
use crate::model::change::Facet;
pub use crate::model::change::UNREADABLE;
use crate::s3::{Acl, Bucket, BucketError, Content, NULL_VERSION, ObjectHead, Tags, Versioning};
use crate::vault::body::SLICE_BYTES;

/// Why a version that is not there any more is lost.
pub const GONE: &str = "gone before it could be read";

/// Why a content is lost in whose place another one was when it was to be read.
const OVERWRITTEN: &str = "overwritten before it could be read";

/// Whether a content of this version that is lost for this reason will never be read. Of version `null` the same content may be
/// put again: whoever finds it there reads it.
pub fn is_lost_for_good(version: &str, reason: &str) -> bool {
    let may_come_back = version == NULL_VERSION && (reason == GONE || reason == OVERWRITTEN);
    !may_come_back && !reason.starts_with(UNREADABLE)
}

/// Reads versions of one bucket.
#[derive(Clone)]
pub struct Reader {
    bucket: Arc<dyn Bucket>,
    versioning: Versioning,
    acls: bool,
    /// Whether a content is to be had without what belongs to it, where that cannot be read now.
    settles: bool,
}

/// A version as it was found.
pub enum Found {
    /// With its content whole, checked against what the server says of it.
    Small(Box<Properties>, Bytes),
    /// With its content still to be streamed; [`Check`] is given every piece and asked at the end.
    Large(Box<Properties>, Content, Check),
    /// It is not to be had, and why: see [`is_lost_for_good`].
    Lost(String),
}

/// Whether a version is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    There {
        /// When it was put, by the source; where it was uploaded in parts, when that began.
        modified: Timestamp,
        /// It is a delete marker.
        marker: bool,
    },
    /// It is not, and never will be again.
    Gone,
}

/// What comes back with a content.
#[derive(Debug, Clone)]
pub struct Properties {
    /// What a GET says.
    pub head: ObjectHead,
    /// Its tags, where the server has them.
    pub tags: Option<Tags>,
    /// Its ACL, where ACLs are kept and the server has them.
    pub acl: Option<Acl>,
    /// What could not be read, although the content was.
    pub unread: Vec<Unread>,
}

/// A property that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Tags or ACL.
    pub facet: Facet,
    /// What the server said; behind [`UNREADABLE`] where it may say something else another time.
    pub reason: String,
}

impl Reader {
    /// A reader of a bucket. `acls` says whether ACLs are kept: one more request per version.
    pub fn new(bucket: Arc<dyn Bucket>, versioning: Versioning, acls: bool) -> Reader {
        Reader { bucket, versioning, acls, settles: false }
    }

    /// The same, which does without tags and ACLs that cannot be read now rather than without the content.
    #[must_use]
    pub fn settling(&self) -> Reader {
        Reader { settles: true, ..self.clone() }
    }

    /// The bucket it reads.
    pub fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.bucket
    }

    fn asked<'a>(&self, version: &'a str) -> Option<&'a str> {
        // A bucket that never kept versions is asked for the object itself; not every server knows version `null` then.
        (version != NULL_VERSION || self.versioning != Versioning::Never).then_some(version)
    }

    /// Reads a version. Of version `null`, which may be overwritten while it is read, `etag` is the one to read.
    ///
    /// # Errors
    /// What may pass when tried again, and that the credentials forbid to read the content.
    pub async fn read(&self, object: &str, version: &str, etag: Option<&str>) -> Result<Found, BucketError> {
        let asked = self.asked(version);
        let if_match = etag.filter(|_| version == NULL_VERSION);
        let (head, content) = match self.bucket.get(object, asked, None, if_match).await {
            Ok(found) => found,
            Err(error) => return why_lost(error).map(Found::Lost),
        };
        let tags = self.read_tags(object, version, head.tag_count).await;
        let mut check = Check::of(&head);
        let properties = self.with_properties(object, version, head, tags).await?;
        if properties.head.size as u64 > SLICE_BYTES as u64 {
            return Ok(Found::Large(properties, content, check));
        }
        let whole = collect(content, properties.head.size as usize).await?;
        check.update(&whole);
        match check.finish() {
            Ok(()) => Ok(Found::Small(properties, whole)),
            Err(reason) => Err(BucketError::Transient { what: format!("reading {object} ({version})"), reason }),
        }
    }

    /// What belongs to a content that the server gives. That it says of the tags or the ACL that there is no such version (some
    /// do below a delete marker, and any does once it was removed meanwhile), or does not show them, keeps nobody from the content.
    pub(super) async fn with_properties(
        &self,
        object: &str,
        version: &str,
        head: ObjectHead,
        tags: Result<Tags, BucketError>,
    ) -> Result<Box<Properties>, BucketError> {
        let mut unread = Vec::new();
        let tags = self.or_without(Facet::Tags, tags, &mut unread)?;
        let acl = self.or_without(Facet::Acl, self.read_acl_if_kept(object, version).await, &mut unread)?.flatten();
        Ok(Box::new(Properties { head, tags, acl, unread }))
    }

    /// A property, or that it could not be read.
    fn or_without<T>(&self, facet: Facet, read: Result<T, BucketError>, unread: &mut Vec<Unread>) -> Result<Option<T>, BucketError> {
        let reason = match read {
            Ok(read) => return Ok(Some(read)),
            Err(error @ BucketError::NotFound { .. }) => error.to_string(),
            Err(error) if error.is_transient() && !self.settles => return Err(error),
            Err(error) => format!("{UNREADABLE}{error}"),
        };
        unread.push(Unread { facet, reason });
        Ok(None)
    }

    /// The tags of a version; `count` spares the request where the server said there are none.
    ///
    /// # Errors
    /// As [`Bucket::tags`]; a server without tags has none.
    pub async fn read_tags(&self, object: &str, version: &str, count: Option<i32>) -> Result<Tags, BucketError> {
        // S3 names the count of tags with every GET that is allowed to know it, and leaves it out where there are none.
        if count.unwrap_or(0) == 0 {
            return Ok(Tags::new());
        }
        self.tags_now(object, version).await
    }

    /// The tags of a version, asked for.
    ///
    /// # Errors
    /// As [`Bucket::tags`].
    pub async fn tags_now(&self, object: &str, version: &str) -> Result<Tags, BucketError> {
        match self.bucket.tags(object, self.asked(version)).await {
            Err(BucketError::Unsupported { .. }) => Ok(Tags::new()),
            found => found,
        }
    }

    /// The ACL of a version; none where the server has no ACLs, or the bucket does not use them.
    ///
    /// # Errors
    /// As [`Bucket::acl`].
    pub async fn read_acl(&self, object: &str, version: &str) -> Result<Option<Acl>, BucketError> {
        match self.bucket.acl(object, self.asked(version)).await {
            Ok(acl) => Ok(Some(acl)),
            Err(BucketError::Unsupported { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ACL of a version where ACLs are kept.
    pub(super) async fn read_acl_if_kept(&self, object: &str, version: &str) -> Result<Option<Acl>, BucketError> {
        if self.acls { self.read_acl(object, version).await } else { Ok(None) }
    }

    /// Whether a version is there. Of one that is known to have content a HEAD says so; what may be a delete marker is looked
    /// for in a listing of its key, where a HEAD does not find it.
    ///
    /// # Errors
    /// As [`Bucket::head`] and [`Bucket::list_versions`].
    pub async fn standing(&self, object: &str, version: &str, has_content: bool) -> Result<Standing, BucketError> {
        match self.bucket.head(object, self.asked(version)).await {
            Ok(head) => Ok(Standing::There { modified: head.modified, marker: false }),
            Err(BucketError::Marker { modified: Some(modified), .. }) => Ok(Standing::There { modified, marker: true }),
            Err(BucketError::NotFound { .. }) if has_content => Ok(Standing::Gone),
            // Who may not list the bucket's objects is told nothing about those that are not there; versions can be listed.
            Err(BucketError::Marker { .. } | BucketError::NotFound { .. } | BucketError::Denied { .. }) => {
                self.listed(object, version).await
            }
            Err(error) => Err(error),
        }
    }

    async fn listed(&self, object: &str, version: &str) -> Result<Standing, BucketError> {
        let listed = list_object(&self.bucket, object).await?;
        let found = listed.iter().find(|listed| listed.version == version);
        Ok(found.map_or(Standing::Gone, |found| Standing::There { modified: found.modified, marker: found.marker }))
    }
}

/// Why a version is lost that answers so; the error itself where it is not.
pub(super) fn why_lost(error: BucketError) -> Result<String, BucketError> {
    match error {
        BucketError::NotFound { .. } => Ok(GONE.to_owned()),
        BucketError::Changed { .. } => Ok(OVERWRITTEN.to_owned()),
        BucketError::Archived { .. } => Ok(error.to_string()),
        error => Err(error),
    }
}

async fn collect(mut content: Content, size: usize) -> Result<Bytes, BucketError> {
    let mut whole = BytesMut::with_capacity(size);
    while let Some(piece) = content.next().await.transpose()? {
        if whole.len() + piece.len() > size {
            break;
        }
        whole.extend_from_slice(&piece);
    }
    if whole.len() == size {
        return Ok(whole.freeze());
    }
    Err(BucketError::Transient {
        what: "reading an object".to_owned(),
        reason: format!("{size} bytes were announced and another number came"),
    })
}

/// Checks a content against what the server says of it, as it streams by.
pub struct Check {
    size: u64,
    seen: u64,
    md5: Option<(Md5, String)>,
}

impl Check {
    /// What can be checked of an object: its length always; its MD5 where the etag is one, which is so for objects that
    /// were not uploaded in parts and not encrypted with a key of KMS or of the customer (S3 API reference, "Object").
    pub fn of(head: &ObjectHead) -> Check {
        let plain = head.metadata.encryption.as_deref().is_none_or(|mode| mode == "AES256");
        let hex = head.etag.len() == 32 && head.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let md5 = (plain && hex).then(|| (Md5::new(), head.etag.to_ascii_lowercase()));
        Check { size: head.size.max(0) as u64, seen: 0, md5 }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        if let Some((hasher, _)) = &mut self.md5 {
            hasher.update(bytes);
        }
    }

    /// Whether all was as announced.
    ///
    /// # Errors
    /// What differs, in words.
    pub fn finish(self) -> Result<(), String> {
        if self.seen != self.size {
            return Err(format!("{} bytes were announced and {} came", self.size, self.seen));
        }
        let Some((hasher, etag)) = self.md5 else { return Ok(()) };
        let found = hex::encode(hasher.finalize());
        if found == etag { Ok(()) } else { Err(format!("its content has MD5 {found}, its etag is {etag}")) }
    }
}
