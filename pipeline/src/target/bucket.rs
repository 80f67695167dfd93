//! An S3 bucket, or the part of it under a prefix, as target.
//!
//! An object is one request: content, metadata, tags and storage class go together, so that no reader sees it half
//! restored; an ACL that is more than private follows in a second one. What the server cannot take is left out and
//! named (see [`request`]); the content comes back in any case.
//!
//! A content that the vault keeps whole, at the same server, is not sent at all: the server copies it, and shows that it did.
//!
//! Nothing outside the prefix is looked at or written. Where versions are kept, nothing is lost by overwriting or removing.

mod compare;
pub mod request;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use futures::{StreamExt as _, TryStreamExt as _};
use md5::{Digest as _, Md5};

pub use self::request::Encryption;
use self::request::{Sendable, is_as_sent, is_private, sendable, translated};
use super::{ExistingObject, Occupied, Survey, Target, TargetError, WantedObject, Written, exactly, folders, holds_vault};
use crate::model::Digest;
use crate::model::digest::Hasher;
use crate::s3::{Bucket, BucketError, Content, CopyName, CopySource, NULL_VERSION, ObjectHead, PutRequest, Versioning};
use crate::vault::body::Whole;
use crate::vault::{layout, record};

/// Versions in one page of a listing.
const PAGE_VERSIONS: i32 = 1_000;
/// So many copies in a row may fail before the server is asked for no more.
const FAILED_COPIES_MAX: u32 = 3;
/// Names that are remembered as such that the server does not create on a condition.
const UNCONDITIONAL_MAX: usize = 1_024;
/// Storage classes that are remembered as not taken by the server.
const REFUSED_CLASSES_MAX: usize = 16;

/// A bucket that a restore writes to.
pub struct BucketTarget {
    bucket: Arc<dyn Bucket>,
    prefix: String,
    /// Where the server is, which may be one of many that have a bucket of this name.
    server: String,
    encryption: Encryption,
    /// The S3 bucket that the vault lies in, where it is at the same server.
    vault_bucket: Option<String>,
    failed_copies: AtomicU32,
    versioning: OnceLock<Versioning>,
    /// Who owns what is written here, once it is known.
    owner: OnceLock<Option<String>>,
    refused_classes: Mutex<BTreeSet<String>>,
    /// The bucket encrypts with KMS by default, as was seen: its etags say nothing of the content.
    encrypts: AtomicBool,
    /// The server does not know puts that only create, as was seen.
    only_puts_over: AtomicBool,
    /// Names under which a put that only creates failed: SeaweedFS does not manage it for the longest ones.
    unconditional: Mutex<BTreeSet<String>>,
    /// Whether the server has said of an object how many tags it has.
    counts_tags: AtomicBool,
}

impl BucketTarget {
    /// The objects of a bucket whose keys begin with `prefix`; all for an empty one.
    pub fn new(bucket: Arc<dyn Bucket>, prefix: impl Into<String>) -> BucketTarget {
        BucketTarget {
            bucket,
            prefix: prefix.into(),
            server: String::new(),
            encryption: Encryption::default(),
            vault_bucket: None,
            failed_copies: AtomicU32::new(0),
            versioning: OnceLock::new(),
            owner: OnceLock::new(),
            refused_classes: Mutex::default(),
            encrypts: AtomicBool::new(false),
            only_puts_over: AtomicBool::new(false),
            unconditional: Mutex::default(),
            counts_tags: AtomicBool::new(false),
        }
    }

    /// The same, at a server that is called so.
    #[must_use]
    pub fn with_server(mut self, server: &str) -> BucketTarget {
        server.clone_into(&mut self.server);
        self
    }

    /// The same, with restored objects encrypted so.
    #[must_use]
    pub fn with_encryption(mut self, encryption: Encryption) -> BucketTarget {
        self.encryption = encryption;
        self
    }

    /// The same, with contents copied by the server from this S3 bucket of its own, in which the vault lies.
    #[must_use]
    pub fn with_vault_bucket(mut self, bucket: Option<String>) -> BucketTarget {
        self.vault_bucket = bucket;
        self
    }

    /// Whether the bucket keeps versions, once the target is open.
    pub fn versioning(&self) -> Option<Versioning> {
        self.versioning.get().copied()
    }

    /// An error about the bucket as a whole.
    fn unusable(&self, error: BucketError) -> TargetError {
        let (target, reason) = (self.name(), error.to_string());
        match error {
            BucketError::NotFound { .. } => TargetError::Refused { target, reason: format!("{reason}; create the bucket first") },
            BucketError::Denied { .. } => TargetError::Refused { target, reason },
            _ => TargetError::Unusable { target, reason, transient: error.is_transient() },
        }
    }

    /// A target that lies in a vault is refused. (One in which a vault lies is refused where it is surveyed.)
    ///
    /// # Errors
    /// [`TargetError::Refused`] names the folder.
    pub async fn check_outside_of_vaults(&self) -> Result<(), TargetError> {
        for folder in folders(&self.prefix).filter(|folder| *folder != self.prefix) {
            if self.is_vault(folder).await? {
                return Err(holds_vault(self.name(), folder));
            }
        }
        Ok(())
    }

    /// Whether a folder is a vault: whether the record of one lies in it. Who may not read that has none there.
    async fn is_vault(&self, folder: &str) -> Result<bool, TargetError> {
        let (record, begins) = (format!("{folder}{}", layout::VAULT), record::BEGINS.as_bytes());
        let read = async {
            let (_, mut content) = self.bucket.get(&record, None, Some(0..begins.len() as u64), None).await?;
            let mut begin = Vec::new();
            while begin.len() < begins.len()
                && let Some(piece) = content.try_next().await?
            {
                begin.extend_from_slice(&piece);
            }
            Ok::<_, BucketError>(begin)
        };
        match read.await {
            Err(error) if error.is_transient() => Err(self.unusable(error)),
            read => Ok(read.is_ok_and(|begin| begin.starts_with(begins))),
        }
    }

    fn object_error(&self, object: &str, error: &BucketError) -> TargetError {
        self.object_reason(object, error.to_string(), error.is_transient())
    }

    fn object_reason(&self, object: &str, reason: String, transient: bool) -> TargetError {
        TargetError::Object { target: self.name(), object: object.to_owned(), reason, transient }
    }

    fn check_inside(&self, object: &str) -> Result<(), TargetError> {
        if object.starts_with(&self.prefix) && !object.is_empty() {
            return Ok(());
        }
        Err(TargetError::Refused { target: self.name(), reason: format!("{object:?} lies outside") })
    }

    fn sendable(&self, wanted: &WantedObject) -> Sendable {
        let mut sendable = sendable(wanted, &self.encryption, &|class| held(&self.refused_classes).contains(class));
        let is_left_to_server = !self.only_puts_over.load(Ordering::Relaxed) && !held(&self.unconditional).contains(&wanted.object);
        sendable.request.creates &= is_left_to_server;
        sendable
    }

    /// Remembers that a put that only creates is not to be left to the server. Says whether it may work as another.
    fn refuse_creating(&self, object: &str, request: &PutRequest, error: &BucketError) -> bool {
        match error {
            _ if !request.creates => false,
            BucketError::Unsupported { .. } => {
                if !self.only_puts_over.swap(true, Ordering::Relaxed) {
                    tracing::warn!(target = self.name(), %error, "the server does not create on a condition: it is looked before each put instead");
                }
                true
            }
            BucketError::Transient { .. } | BucketError::Other { .. } => self.remember_unconditional(object),
            _ => false,
        }
    }

    /// What has the name of an object that is to be created: nothing, or itself, put by an attempt whose answer was lost.
    ///
    /// # Errors
    /// [`TargetError::Exists`] where it is another.
    async fn found(&self, wanted: &WantedObject) -> Result<Option<ObjectHead>, TargetError> {
        let failed = |error: BucketError| self.object_error(&wanted.object, &error);
        let head = match self.bucket.head(&wanted.object, None).await {
            Ok(head) => head,
            Err(BucketError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let sent = self.sendable(wanted).request;
        let is_ours = is_as_sent(&sent, wanted, &head.metadata, &head.storage_class)
            && self.is_same_content(wanted, wanted.size, &head).await.map_err(failed)? == Some(true)
            && self.is_same_tags(&sent.tags, head.tag_count, &wanted.object).await.map_err(failed)?;
        match is_ours {
            true => Ok(Some(head)),
            false => Err(TargetError::Exists { target: self.name(), object: wanted.object.clone() }),
        }
    }

    /// The same just before it is sent or copied, where the server is not asked to create only.
    async fn found_before(&self, wanted: &WantedObject, request: &PutRequest) -> Result<Option<ObjectHead>, TargetError> {
        if wanted.creates && !request.creates { self.found(wanted).await } else { Ok(None) }
    }

    /// The same of one that the server would not create, because something has its name, as it says: of SeaweedFS that may be a folder.
    async fn met(&self, wanted: &WantedObject) -> Result<ObjectHead, TargetError> {
        if let Some(there) = self.found(wanted).await? {
            return Ok(there);
        }
        self.remember_unconditional(&wanted.object);
        Err(self.object_reason(&wanted.object, "the server says that something has its name, and finds nothing".to_owned(), true))
    }

    /// From here on it is looked for the object before it is put, and the server is not asked to. Says whether there was room for that.
    fn remember_unconditional(&self, object: &str) -> bool {
        let mut names = held(&self.unconditional);
        names.len() < UNCONDITIONAL_MAX && names.insert(object.to_owned())
    }

    /// Remembers a storage class that the server did not take. Says whether the put may work without it.
    fn refuse_class(&self, class: Option<&str>, error: &BucketError) -> bool {
        let Some(class) = class else { return false };
        let text = error.to_string().to_ascii_lowercase().replace([' ', '-'], "");
        if !matches!(error, BucketError::Unsupported { .. } | BucketError::Other { .. }) || !text.contains("storageclass") {
            return false;
        }
        let mut refused = held(&self.refused_classes);
        refused.len() < REFUSED_CLASSES_MAX && refused.insert(class.to_owned())
    }

    async fn is_same_acl(&self, wanted: &WantedObject) -> Result<bool, BucketError> {
        let Some(acl) = &wanted.acl else { return Ok(true) };
        match self.bucket.acl(&wanted.object, None).await {
            Ok(there) => Ok(sorted(translated(acl, there.owner.as_deref()).grants) == sorted(there.grants)),
            // What the server does not have cannot differ.
            Err(BucketError::Unsupported { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn is_same_tags(&self, wanted: &crate::s3::Tags, tag_count: Option<i32>, object: &str) -> Result<bool, BucketError> {
        // AWS leaves the count out where it is zero, and others always: one that has counted some is believed when it says nothing.
        let counts = self.counts_tags.load(Ordering::Relaxed);
        match tag_count {
            Some(0) if wanted.is_empty() => return Ok(true),
            None if wanted.is_empty() && counts => return Ok(true),
            Some(1..) if !counts => self.counts_tags.store(true, Ordering::Relaxed),
            _ => {}
        }
        match self.bucket.tags(object, None).await {
            Ok(there) => Ok(there == *wanted),
            Err(BucketError::Unsupported { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn compare(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<bool, BucketError> {
        // Cheapest first: what the listing says already.
        if wanted.marker || existing.size != wanted.size {
            return Ok(false);
        }
        let same_etag = wanted.etag.is_some() && wanted.etag == existing.etag;
        if !same_etag && wanted.digest.is_none() && wanted.checksums.is_empty() {
            return Ok(false);
        }
        let head = match self.bucket.head(&wanted.object, None).await {
            Ok(head) => head,
            Err(BucketError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        // The etag of an upload in parts depends on the parts; a checksum of the whole does not. Where the server has none, reading
        // costs what writing would, and leaves no version behind that differs in nothing.
        let same_content = match same_etag {
            true => wanted.etag.as_deref() == Some(&head.etag),
            false => self.is_same_content(wanted, existing.size, &head).await? == Some(true),
        };
        let sent = self.sendable(wanted).request;
        if !same_content || u64::try_from(head.size) != Ok(wanted.size) || !is_as_sent(&sent, wanted, &head.metadata, &head.storage_class) {
            return Ok(false);
        }
        Ok(self.is_same_tags(&sent.tags, head.tag_count, &wanted.object).await? && self.is_same_acl(wanted).await?)
    }

    /// Checks what the server says it stored against what was sent.
    async fn verify(&self, object: &str, size: u64, put: &ObjectHead, sent: &Sent) -> Result<(), TargetError> {
        let wrong = |reason: String| Err(self.object_reason(object, reason, true));
        // A put's answer has an etag and not always a size.
        if put.size > 0 && u64::try_from(put.size) != Ok(size) {
            return wrong(format!("{size} bytes were sent, and the server has {}", put.size));
        }
        if put.etag.eq_ignore_ascii_case(&sent.md5) || !is_md5(&put.etag) || is_kms(put) || self.encrypts.load(Ordering::Relaxed) {
            return Ok(());
        }
        // An MD5 of something else, or no MD5 at all, as some servers and encryptions make them. Only the content itself
        // can tell.
        let version = (!put.version.is_empty()).then_some(put.version.as_str());
        let read = async {
            let (head, mut content) = self.bucket.get(object, version, None, None).await?;
            if is_kms(&head) {
                self.encrypts.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            let mut hasher = Hasher::default();
            while let Some(piece) = content.try_next().await? {
                hasher.update(&piece);
            }
            Ok(Some(hasher.finish()))
        };
        match read.await {
            Ok(None) => Ok(()),
            Ok(Some(digest)) if digest == sent.digest => Ok(()),
            Ok(Some(_)) => wrong("what the server stored is not what was sent".to_owned()),
            Err(error) => Err(self.object_error(object, &error)),
        }
    }

    /// What belongs to an object beside what came with its content.
    async fn finish(&self, wanted: &WantedObject, put: &ObjectHead, left_out: Vec<String>) -> Result<Written, TargetError> {
        let version = (!put.version.is_empty() && put.version != NULL_VERSION).then(|| put.version.clone());
        let mut written = Written { version, requests: self.bucket.put_requests(wanted.size), left_out };
        self.write_acl(wanted, &put.version, &mut written).await?;
        Ok(written)
    }

    async fn write_acl(&self, wanted: &WantedObject, version: &str, written: &mut Written) -> Result<(), TargetError> {
        let Some(acl) = wanted.acl.as_ref().filter(|acl| !is_private(acl)) else {
            return Ok(());
        };
        let version = (!version.is_empty()).then_some(version);
        let owner = match self.owner.get() {
            Some(owner) => owner.clone(),
            None => match self.bucket.acl(&wanted.object, version).await {
                Ok(there) => self.owner.get_or_init(|| there.owner).clone(),
                // Setting it will say why it cannot be done.
                Err(BucketError::Unsupported { .. } | BucketError::Denied { .. }) => None,
                Err(error) => return Err(self.object_error(&wanted.object, &error)),
            },
        };
        written.requests += 1;
        match self.bucket.set_acl(&wanted.object, version, &translated(acl, owner.as_deref())).await {
            Ok(()) => Ok(()),
            Err(BucketError::Unsupported { reason, .. }) => {
                written.left_out.push(format!("acl: {reason}; ACLs must be enabled at the destination"));
                Ok(())
            }
            Err(error) => Err(self.object_error(&wanted.object, &error)),
        }
    }
}

#[async_trait]
impl Target for BucketTarget {
    fn name(&self) -> String {
        format!("s3://{}/{}", self.bucket.name(), self.prefix)
    }

    fn identity(&self) -> String {
        format!("{} {}", self.server, self.name())
    }

    /// Older versions and delete markers count as holding something: a restore goes on top of them.
    async fn open(&self) -> Result<Occupied, TargetError> {
        let versioning = self.bucket.versioning().await.map_err(|error| self.unusable(error))?;
        let page = self.bucket.list_versions(&self.prefix, None, 1).await.map_err(|error| self.unusable(error))?;
        let _ = self.versioning.set(versioning);
        Ok(if page.versions.is_empty() && page.next.is_none() { Occupied::Empty } else { Occupied::Holds })
    }

    fn keeps_versions(&self) -> bool {
        self.versioning().is_none_or(|versioning| versioning == Versioning::Enabled)
    }

    async fn survey(&self, wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync)) -> Result<Survey, TargetError> {
        let (mut found, mut after) = (Survey::default(), None);
        loop {
            let page =
                self.bucket.list_versions(&self.prefix, after.as_ref(), PAGE_VERSIONS).await.map_err(|error| self.unusable(error))?;
            for listed in page.versions {
                // A server may understand prefixes in its own way; we do not leave ours.
                if !listed.latest || listed.marker || !listed.object.starts_with(&self.prefix) {
                    continue;
                }
                let folder = listed.object.strip_suffix(layout::VAULT).filter(|folder| folder.is_empty() || folder.ends_with('/'));
                if let Some(folder) = folder.filter(|_| listed.size != Some(0))
                    && self.is_vault(folder).await?
                {
                    found.vaults.push(folder.to_owned());
                }
                if !wanted(&listed.object) {
                    continue;
                }
                let existing = ExistingObject {
                    object: listed.object.clone(),
                    size: listed.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                    etag: listed.etag,
                    version: Some(listed.version),
                };
                found.objects.insert(listed.object, existing);
            }
            match page.next {
                None => return Ok(found),
                Some(next) if Some(&next) == after.as_ref() => {
                    let reason = format!("its listing does not get beyond {:?}", next.key);
                    return Err(TargetError::Unusable { target: self.name(), reason, transient: false });
                }
                next => after = next,
            }
        }
    }

    async fn is_same(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<bool, TargetError> {
        self.check_inside(&wanted.object)?;
        self.compare(wanted, existing).await.map_err(|error| self.object_error(&wanted.object, &error))
    }

    async fn is_unfinished(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<bool, TargetError> {
        self.check_inside(&wanted.object)?;
        self.is_put_of(wanted, existing).await.map_err(|error| self.object_error(&wanted.object, &error))
    }

    /// Those of the upload, and one more for an ACL that is more than private. What the server copies counts as if it were uploaded, which
    /// takes more.
    fn requests(&self, wanted: Option<&WantedObject>) -> u64 {
        let Some(wanted) = wanted.filter(|wanted| !wanted.marker) else { return 1 };
        self.bucket.put_requests(wanted.size) + u64::from(wanted.acl.as_ref().is_some_and(|acl| !is_private(acl)))
    }

    async fn write(&self, wanted: &WantedObject, content: Content) -> Result<Written, TargetError> {
        self.check_inside(&wanted.object)?;
        if wanted.marker {
            self.remove(&wanted.object).await?;
            let kept = self.versioning() != Some(Versioning::Never);
            let left_out = if kept { Vec::new() } else { vec!["delete marker: the bucket keeps no versions".to_owned()] };
            return Ok(Written { version: None, requests: 1, left_out });
        }
        let Sendable { request, left_out } = self.sendable(wanted);
        if let Some(there) = self.found_before(wanted, &request).await? {
            return self.finish(wanted, &there, left_out).await;
        }
        let (content, sent) = observed(exactly(content, wanted.size));
        let put = match self.bucket.put(&wanted.object, &request, wanted.size, content).await {
            Ok(put) => put,
            Err(BucketError::Changed { .. }) if request.creates => {
                let there = self.met(wanted).await?;
                return self.finish(wanted, &there, left_out).await;
            }
            Err(error) => {
                // The content is spent; the next attempt goes without what was not understood.
                let retry =
                    self.refuse_class(request.storage_class.as_deref(), &error) || self.refuse_creating(&wanted.object, &request, &error);
                return Err(self.object_reason(&wanted.object, error.to_string(), retry || error.is_transient()));
            }
        };
        self.verify(&wanted.object, wanted.size, &put, &sent.finish()).await?;
        self.finish(wanted, &put, left_out).await
    }

    async fn copy(&self, wanted: &WantedObject, whole: &Whole, key: &str) -> Result<Option<Written>, TargetError> {
        self.check_inside(&wanted.object)?;
        let Some(bucket) = &self.vault_bucket else { return Ok(None) };
        if self.failed_copies.load(Ordering::Relaxed) >= FAILED_COPIES_MAX || whole.size != wanted.size {
            return Ok(None);
        }
        let Sendable { request, left_out } = self.sendable(wanted);
        if let Some(there) = self.found_before(wanted, &request).await? {
            return self.finish(wanted, &there, left_out).await.map(Some);
        }
        let source = CopySource {
            bucket: bucket.clone(),
            object: key.to_owned(),
            version: None,
            etag: None,
            size: whole.size,
            checksums: whole.checksums.clone(),
        };
        match self.bucket.copy(&source, &wanted.object, &request, CopyName::Users).await {
            Ok(put) => {
                self.failed_copies.store(0, Ordering::Relaxed);
                self.finish(wanted, &put, left_out).await.map(Some)
            }
            Err(BucketError::Changed { .. }) if request.creates => {
                let there = self.met(wanted).await?;
                self.finish(wanted, &there, left_out).await.map(Some)
            }
            Err(error) => {
                self.failed_copies.fetch_add(1, Ordering::Relaxed);
                self.refuse_class(request.storage_class.as_deref(), &error);
                tracing::info!(%error, "the server did not copy a content; it is sent");
                Ok(None)
            }
        }
    }

    async fn remove(&self, object: &str) -> Result<(), TargetError> {
        self.check_inside(object)?;
        match self.bucket.remove(object, None).await {
            Ok(()) | Err(BucketError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.object_error(object, &error)),
        }
    }
}

/// The digests of what a server was sent.
struct Sent {
    md5: String,
    digest: Digest,
}

/// [`Sent`] in the making, shared with the stream that goes to the server.
#[derive(Clone, Default)]
struct Sending {
    hashers: Arc<Mutex<(Md5, Hasher)>>,
}

impl Sending {
    fn update(&self, piece: &[u8]) {
        let mut hashers = held(&self.hashers);
        hashers.0.update(piece);
        hashers.1.update(piece);
    }

    fn finish(&self) -> Sent {
        let (md5, sha256) = held(&self.hashers).clone();
        Sent { md5: hex::encode(md5.finalize()), digest: sha256.finish() }
    }
}

/// The same content, hashed as it goes by.
fn observed(content: Content) -> (Content, Sending) {
    let sending = Sending::default();
    let hashing = sending.clone();
    let content = content.inspect_ok(move |piece| hashing.update(piece)).boxed();
    (content, sending)
}

/// Whether the server's own checksum of the whole object is this digest.
fn has_digest(head: &ObjectHead, digest: Option<&str>) -> bool {
    let Some(digest) = digest.and_then(|digest| hex::decode(digest).ok()) else {
        return false;
    };
    // A checksum of checksums of parts ends in `-` and their number, and so is never equal.
    head.checksums.get("sha256").is_some_and(|stated| *stated == base64::engine::general_purpose::STANDARD.encode(&digest))
}

/// Whether an etag has the form of a plain MD5; that of an upload in parts has not.
fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Etags of objects that KMS encrypts look like an MD5 and are none.
fn is_kms(head: &ObjectHead) -> bool {
    head.metadata.encryption.as_deref().is_some_and(|mode| mode.starts_with("aws:kms"))
}

fn sorted(mut grants: Vec<crate::s3::Grant>) -> Vec<crate::s3::Grant> {
    grants.sort();
    grants
}

/// Nothing that is held panics halfway through a change.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
