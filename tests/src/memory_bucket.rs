//! An S3 bucket in memory, for the seeded simulation.
//!
//! It keeps S3's rules exactly: versions, delete markers, the `null` version that a suspended bucket overwrites in
//! place, uploads in parts that carry the time at which they began. Time, order and ids come from the clock and the seed
//! that it is given, so a run can be repeated. It needs no runtime: its futures wait only where its [`Hook`] waits.
//!
//! ```text
//! the product ── Bucket ──→ before(call) ─→ effect ─→ after(call)        an error before: nothing happened
//!                                             │                          an error after: it happened, the reply is lost
//! the user ── put, delete, purge … ───────────┴─→ Happened               what an event would tell
//! ```

mod copies;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use pipeline::model::{Clock, Timestamp};
use pipeline::s3::{
    Acl, Bucket, BucketError, Configuration, Content, CopyName, CopySource, ListMarker, ListedVersion, ObjectHead, PartLayout, PutRequest,
    Tags, VersionPage, Versioning,
};

pub use self::copies::MemoryServer;
use self::state::{Parts, State, Stored, Upload};

const KEY_BYTES_MAX: usize = 1_024;
const TAGS_MAX: usize = 10;
const LIST_LIMIT_MAX: i32 = 1_000;
/// The owner of everything.
const OWNER: &str = "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a";

/// How exactly a listing gives times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Whole seconds, as SeaweedFS and older servers do.
    Seconds,
    /// Milliseconds, as AWS does.
    Milliseconds,
}

/// Where a version that was uploaded in parts stands among the versions of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultipartOrder {
    /// Where the upload began: AWS.
    Begun,
    /// Where it was completed: most others.
    Completed,
}

/// The order in which a listing gives keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrder {
    /// By their UTF-8 bytes: AWS.
    Bytes,
    /// By directory, `a/1` before `a!`: SeaweedFS.
    Directories,
}

/// What kind of S3 this is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bucket's name.
    pub name: String,
    /// Makes version ids and sequencers.
    pub seed: u64,
    /// How exactly a listing gives times.
    pub precision: Precision,
    /// Where uploads in parts stand.
    pub multipart_order: MultipartOrder,
    /// Which end of an upload in parts the sequencer of its event is from.
    pub multipart_sequencer: MultipartOrder,
    /// The order of keys in listings.
    pub key_order: KeyOrder,
    /// [`Bucket::put`] uploads more bytes than these in parts.
    pub single_bytes_max: u64,
    /// Contents are handed out in pieces of at most so many bytes.
    pub piece_bytes: usize,
    /// Whether ACLs can be set; new AWS buckets enforce the bucket owner.
    pub acls: bool,
}

impl Settings {
    /// AWS as it is, with contents small enough for a simulation to be cut into pieces and parts.
    pub fn aws(name: &str, seed: u64) -> Settings {
        Settings {
            name: name.to_owned(),
            seed,
            precision: Precision::Milliseconds,
            multipart_order: MultipartOrder::Begun,
            multipart_sequencer: MultipartOrder::Begun,
            key_order: KeyOrder::Bytes,
            single_bytes_max: 8 << 20,
            piece_bytes: 64 << 10,
            acls: true,
        }
    }
}

/// A request as the hook sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is asked for.
    pub operation: Operation,
    /// The object's key, or the prefix of a listing.
    pub object: String,
    /// The version, where one is named.
    pub version: Option<String>,
}

/// What can be asked of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of `Bucket` of that name")]
pub enum Operation {
    Versioning,
    List,
    Head,
    Get,
    /// The next piece of a content that a GET opened.
    Piece,
    Put,
    Parts,
    Copy,
    Remove,
    Tags,
    SetTags,
    Acl,
    SetAcl,
    Configuration,
}

/// The simulation's hand in every request: it waits, counts, and makes requests fail.
#[async_trait]
pub trait Hook: Send + Sync {
    /// Before the effect. An error: the request fails and nothing has happened.
    async fn before(&self, _call: &Call) -> Result<(), BucketError> {
        Ok(())
    }

    /// After the effect. An error: the request fails although it was carried out. Not called for requests that failed.
    async fn after(&self, _call: &Call) -> Result<(), BucketError> {
        Ok(())
    }

    /// The product itself has changed the bucket. Called before [`Hook::after`].
    fn happened(&self, _change: &Happened) {}
}

/// The hook that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

#[async_trait]
impl Hook for NoHook {}

/// What became of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// A version was put: `ObjectCreated:Put`.
    Put,
    /// A version was put in parts: `ObjectCreated:CompleteMultipartUpload`.
    PutInParts,
    /// A delete marker was put: `ObjectRemoved:DeleteMarkerCreated`.
    Marker,
    /// A version or a marker was removed for good: `ObjectRemoved:Delete`.
    Purged,
    /// Tags were replaced: `ObjectTagging:Put`.
    Tags,
    /// The ACL was replaced: `ObjectAcl:Put`.
    Acl,
    /// The storage class changed: `LifecycleTransition`.
    Class,
}

/// One change of the bucket, as an event would tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// What it was.
    pub effect: Effect,
    /// The object's key.
    pub object: String,
    /// The version that it is about.
    pub version: String,
    /// When it happened, exactly.
    pub at: Timestamp,
    /// What a listing gives as the version's time; for uploads in parts the time at which they began.
    pub modified: Timestamp,
    /// S3's order of the changes of this key.
    pub sequencer: String,
    /// Content length; none for markers.
    pub size: Option<i64>,
    /// Without its quotes; none for markers.
    pub etag: Option<String>,
    /// Whether the version is, or was, a delete marker.
    pub marker: bool,
    /// The `null` version, or marker, that this one took the place of.
    pub overwrote_null: bool,
}

/// An upload in parts that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(u64);

/// The bucket. Clones are the same bucket.
#[derive(Clone)]
pub struct MemoryBucket {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    hook: Arc<dyn Hook>,
    state: Arc<Mutex<State>>,
    server: MemoryServer,
}

impl MemoryBucket {
    /// An empty bucket that was never versioned.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>, hook: Arc<dyn Hook>) -> MemoryBucket {
        let state = State {
            versioning: Versioning::Never,
            objects: BTreeMap::new(),
            graves: BTreeMap::new(),
            uploads: BTreeMap::new(),
            documents: BTreeMap::new(),
            denied: BTreeSet::new(),
            order: 0,
            random: settings.seed,
        };
        let (settings, state) = (Arc::new(settings), Arc::new(Mutex::new(state)));
        MemoryBucket { settings, clock, hook, state, server: MemoryServer::default() }
    }

    /// The same bucket as somebody sees it who is not disturbed by the hook.
    pub fn undisturbed(&self) -> MemoryBucket {
        MemoryBucket { hook: Arc::new(NoHook), ..self.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the user of the bucket does. None of it waits or fails for want of a network.
impl MemoryBucket {
    /// Switches versioning.
    pub fn set_versioning(&self, versioning: Versioning) {
        self.state().versioning = versioning;
    }

    /// Puts an object in one request.
    pub fn put_object(&self, object: &str, request: &PutRequest, content: Bytes) -> Result<Happened, BucketError> {
        self.check_put(object, request)?;
        let now = self.clock.now();
        Ok(self.state().put(&self.settings, object, request, content, now, None))
    }

    /// Begins an upload in parts: the time that the version will carry.
    pub fn begin_upload(&self, object: &str, request: &PutRequest) -> Result<UploadId, BucketError> {
        self.check_put(object, request)?;
        let began = self.clock.now();
        let mut state = self.state();
        let order = state.next_order();
        let upload = Upload { object: object.to_owned(), request: request.clone(), began, order };
        state.uploads.insert(order, upload);
        Ok(UploadId(order))
    }

    /// Completes an upload: only now the version is there. Nothing if there is no such upload.
    pub fn complete_upload(&self, upload: UploadId, content: Bytes) -> Option<Happened> {
        let now = self.clock.now();
        let mut state = self.state();
        let upload = state.uploads.remove(&upload.0)?;
        let parts = Parts { began: upload.began, order: upload.order, part_bytes: self.settings.single_bytes_max.max(1) };
        Some(state.put(&self.settings, &upload.object, &upload.request, content, now, Some(parts)))
    }

    /// Gives an upload up.
    pub fn abort_upload(&self, upload: UploadId) {
        self.state().uploads.remove(&upload.0);
    }

    /// Deletes an object as a plain DELETE does: a delete marker where versions are kept. Nothing if nothing changed.
    pub fn delete(&self, object: &str) -> Option<Happened> {
        let now = self.clock.now();
        self.state().delete(&self.settings, object, now)
    }

    /// Removes one version, or one marker, for good. Nothing if there is no such version.
    pub fn purge(&self, object: &str, version: &str) -> Option<Happened> {
        let now = self.clock.now();
        self.state().purge(&self.settings, object, version, now)
    }

    /// Replaces the tags of a version.
    pub fn tag(&self, object: &str, version: Option<&str>, tags: &Tags) -> Result<Happened, BucketError> {
        self.check_tags(object, tags)?;
        self.change(Effect::Tags, object, version, |stored| stored.tags = tags.clone())
    }

    /// Replaces the ACL of a version.
    pub fn grant(&self, object: &str, version: Option<&str>, acl: &Acl) -> Result<Happened, BucketError> {
        if !self.settings.acls {
            let what = format!("change of ACL of {}", self.target(object, version));
            return Err(BucketError::Unsupported { what, reason: "the bucket does not allow ACLs".to_owned() });
        }
        let mut acl = acl.clone();
        acl.owner.get_or_insert_with(|| OWNER.to_owned());
        acl.grants.sort();
        self.change(Effect::Acl, object, version, move |stored| stored.acl = acl)
    }

    /// Moves a version to another storage class, as a lifecycle rule does.
    pub fn set_class(&self, object: &str, version: Option<&str>, class: &str) -> Result<Happened, BucketError> {
        self.change(Effect::Class, object, version, |stored| stored.class = class.to_owned())
    }

    /// Writes a setting of the bucket, or removes it.
    pub fn set_document(&self, name: &str, document: Option<&str>) {
        match document {
            Some(document) => self.state().documents.insert(name.to_owned(), document.to_owned()),
            None => self.state().documents.remove(name),
        };
    }

    /// Refuses to show a setting of the bucket from now on, whether it is set or not.
    pub fn deny_document(&self, name: &str) {
        self.state().denied.insert(name.to_owned());
    }

    /// Everything that a complete listing gives at this moment.
    pub fn versions(&self) -> Vec<ListedVersion> {
        self.state().list(&self.settings, "", None, usize::MAX).0
    }

    /// The content of a version, whatever its storage class.
    pub fn content(&self, object: &str, version: &str) -> Option<Bytes> {
        self.state().find(object, Some(version))?.content.as_ref().map(|content| content.bytes.clone())
    }

    fn change(
        &self,
        effect: Effect,
        object: &str,
        version: Option<&str>,
        change: impl FnOnce(&mut Stored) + Send,
    ) -> Result<Happened, BucketError> {
        let now = self.clock.now();
        let mut state = self.state();
        let sequencer = state.next_sequencer(&self.settings);
        let stored = state.find_mut(object, version).filter(|stored| stored.content.is_some());
        let stored = stored.ok_or_else(|| BucketError::NotFound { what: self.target(object, version) })?;
        change(stored);
        Ok(stored.happened(effect, object, now, sequencer))
    }

    fn target(&self, object: &str, version: Option<&str>) -> String {
        match version {
            Some(version) => format!("s3://{}/{object} (version {version})", self.settings.name),
            None => format!("s3://{}/{object}", self.settings.name),
        }
    }

    fn check_put(&self, object: &str, request: &PutRequest) -> Result<(), BucketError> {
        if object.is_empty() || object.len() > KEY_BYTES_MAX {
            let what = format!("put of {}", self.target(object, None));
            return Err(BucketError::Other { what, reason: format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {}", object.len()) });
        }
        self.check_tags(object, &request.tags)
    }

    fn check_tags(&self, object: &str, tags: &Tags) -> Result<(), BucketError> {
        if tags.len() > TAGS_MAX {
            let what = format!("tagging of {}", self.target(object, None));
            return Err(BucketError::Other { what, reason: format!("an object has at most {TAGS_MAX} tags, not {}", tags.len()) });
        }
        Ok(())
    }

    fn call(operation: Operation, object: &str, version: Option<&str>) -> Call {
        Call { operation, object: object.to_owned(), version: version.map(str::to_owned) }
    }

    /// Carries out a request between the two hooks.
    async fn between<T: Send>(&self, call: Call, effect: impl FnOnce() -> Result<T, BucketError> + Send) -> Result<T, BucketError> {
        self.hook.before(&call).await?;
        let done = effect()?;
        self.hook.after(&call).await?;
        Ok(done)
    }

    /// Says that a version is a delete marker, as AWS does.
    fn refuse_marker(&self, object: &str, version: Option<&str>) -> Result<(), BucketError> {
        let state = self.state();
        match version.and_then(|version| state.find(object, Some(version))).filter(|stored| stored.content.is_none()) {
            Some(marker) => Err(BucketError::Marker { what: self.target(object, version), modified: Some(marker.modified.floor_second()) }),
            None => Ok(()),
        }
    }

    /// The head and the content of what a reader sees.
    fn read(&self, object: &str, version: Option<&str>) -> Result<(ObjectHead, Bytes), BucketError> {
        let state = self.state();
        let stored = state.find(object, version);
        let (stored, content) = stored
            .and_then(|stored| stored.content.as_ref().map(|content| (stored, content)))
            .ok_or_else(|| BucketError::NotFound { what: self.target(object, version) })?;
        let head = ObjectHead {
            version: stored.id.clone(),
            size: content.bytes.len() as i64,
            etag: content.etag.clone(),
            // The header knows only whole seconds, whatever the listing says.
            modified: stored.modified.floor_second(),
            storage_class: stored.class.clone(),
            tag_count: i32::try_from(stored.tags.len()).ok().filter(|count| *count > 0),
            metadata: stored.request.metadata.clone(),
            checksums: BTreeMap::from([("crc64nvme".to_owned(), content.crc64.clone())]),
        };
        Ok((head, content.bytes.clone()))
    }
}

#[async_trait]
impl Bucket for MemoryBucket {
    fn name(&self) -> &str {
        &self.settings.name
    }

    async fn versioning(&self) -> Result<Versioning, BucketError> {
        self.between(Self::call(Operation::Versioning, "", None), || Ok(self.state().versioning)).await
    }

    async fn list_versions(&self, prefix: &str, after: Option<&ListMarker>, limit: i32) -> Result<VersionPage, BucketError> {
        let call = Self::call(Operation::List, prefix, after.and_then(|after| after.version.as_deref()));
        self.between(call, || {
            let limit = usize::try_from(limit).ok().filter(|limit| (1..=LIST_LIMIT_MAX as usize).contains(limit)).ok_or_else(|| {
                let what = format!("listing of s3://{}", self.settings.name);
                BucketError::Other { what, reason: format!("{limit} is not a number of versions from 1 to {LIST_LIMIT_MAX}") }
            })?;
            let (versions, next) = self.state().list(&self.settings, prefix, after, limit);
            Ok(VersionPage { versions, next, server_time: Some(self.clock.now().floor_second()) })
        })
        .await
    }

    async fn head(&self, object: &str, version: Option<&str>) -> Result<ObjectHead, BucketError> {
        let head = || {
            self.refuse_marker(object, version)?;
            Ok(self.read(object, version)?.0)
        };
        self.between(Self::call(Operation::Head, object, version), head).await
    }

    async fn get(
        &self,
        object: &str,
        version: Option<&str>,
        range: Option<Range<u64>>,
        if_match: Option<&str>,
    ) -> Result<(ObjectHead, Content), BucketError> {
        let call = Self::call(Operation::Get, object, version);
        let (head, bytes) = self
            .between(call.clone(), || {
                let (head, bytes) = self.read(object, version)?;
                if if_match.is_some_and(|etag| etag != head.etag) {
                    return Err(BucketError::Changed { what: self.target(object, version) });
                }
                if matches!(head.storage_class.as_str(), "GLACIER" | "DEEP_ARCHIVE") {
                    return Err(BucketError::Archived { what: self.target(object, version), class: head.storage_class });
                }
                let bytes = match &range {
                    None => bytes,
                    Some(range) if range.is_empty() => Bytes::new(),
                    Some(range) if range.start >= bytes.len() as u64 => {
                        let what = format!("get of {}", self.target(object, version));
                        return Err(BucketError::Other { what, reason: "the range begins behind the end of the object".to_owned() });
                    }
                    Some(range) => bytes.slice(range.start as usize..range.end.min(bytes.len() as u64) as usize),
                };
                Ok((head, bytes))
            })
            .await?;
        let (hook, piece_bytes) = (self.hook.clone(), self.settings.piece_bytes.max(1));
        let call = Call { operation: Operation::Piece, ..call };
        let content = futures::stream::try_unfold((bytes, hook, call), move |(mut rest, hook, call)| async move {
            if rest.is_empty() {
                return Ok(None);
            }
            hook.before(&call).await?;
            let piece = rest.split_to(piece_bytes.min(rest.len()));
            Ok(Some((piece, (rest, hook, call))))
        });
        Ok((head, content.boxed()))
    }

    async fn put(&self, object: &str, request: &PutRequest, size: u64, mut content: Content) -> Result<ObjectHead, BucketError> {
        let call = Self::call(Operation::Put, object, None);
        self.hook.before(&call).await?;
        let wrong = |reason: String| BucketError::Other { what: format!("put of {}", self.target(object, None)), reason };
        let upload = if size > self.settings.single_bytes_max { Some(self.begin_upload(object, request)?) } else { None };
        let read = async {
            let mut bytes = BytesMut::new();
            while let Some(piece) = content.try_next().await? {
                bytes.extend_from_slice(&piece);
                if bytes.len() as u64 > size {
                    return Err(wrong(format!("the content goes on after the {size} bytes that it should have")));
                }
            }
            match size - bytes.len() as u64 {
                0 => Ok(bytes.freeze()),
                missing => Err(wrong(format!("the content ended {missing} bytes before the {size} that it should have"))),
            }
        };
        let bytes = match (read.await, upload) {
            (Ok(bytes), _) => bytes,
            (Err(error), upload) => {
                if let Some(upload) = upload {
                    self.abort_upload(upload);
                }
                return Err(error);
            }
        };
        if request.creates && self.read(object, None).is_ok() {
            upload.into_iter().for_each(|upload| self.abort_upload(upload));
            return Err(BucketError::Changed { what: self.target(object, None) });
        }
        let happened = match upload {
            None => self.put_object(object, request, bytes)?,
            Some(upload) => self.complete_upload(upload, bytes).ok_or_else(|| wrong("the upload was aborted".to_owned()))?,
        };
        let head = self.read(object, Some(&happened.version)).map(|(head, _)| head)?;
        self.hook.happened(&happened);
        self.hook.after(&call).await?;
        Ok(head)
    }

    async fn parts(&self, object: &str, version: Option<&str>) -> Result<Option<PartLayout>, BucketError> {
        self.between(Self::call(Operation::Parts, object, version), || self.part_layout(object, version)).await
    }

    async fn copy(&self, source: &CopySource, object: &str, request: &PutRequest, name: CopyName) -> Result<ObjectHead, BucketError> {
        self.between(Self::call(Operation::Copy, object, None), || {
            let (head, happened) = self.copy_object(source, object, request, name)?;
            happened.iter().for_each(|happened| self.hook.happened(happened));
            Ok(head)
        })
        .await
    }

    async fn remove(&self, object: &str, version: Option<&str>) -> Result<(), BucketError> {
        self.between(Self::call(Operation::Remove, object, version), || {
            let happened = match version {
                None => self.delete(object),
                Some(version) => self.purge(object, version),
            };
            if let Some(happened) = happened {
                self.hook.happened(&happened);
            }
            Ok(())
        })
        .await
    }

    async fn tags(&self, object: &str, version: Option<&str>) -> Result<Tags, BucketError> {
        self.between(Self::call(Operation::Tags, object, version), || {
            let state = self.state();
            let stored = state.find(object, version).filter(|stored| stored.content.is_some());
            stored.map(|stored| stored.tags.clone()).ok_or_else(|| BucketError::NotFound { what: self.target(object, version) })
        })
        .await
    }

    async fn set_tags(&self, object: &str, version: Option<&str>, tags: &Tags) -> Result<(), BucketError> {
        self.between(Self::call(Operation::SetTags, object, version), || {
            let happened = self.tag(object, version, tags)?;
            self.hook.happened(&happened);
            Ok(())
        })
        .await
    }

    async fn acl(&self, object: &str, version: Option<&str>) -> Result<Acl, BucketError> {
        self.between(Self::call(Operation::Acl, object, version), || {
            let state = self.state();
            let stored = state.find(object, version).filter(|stored| stored.content.is_some());
            stored.map(|stored| stored.acl.clone()).ok_or_else(|| BucketError::NotFound { what: self.target(object, version) })
        })
        .await
    }

    async fn set_acl(&self, object: &str, version: Option<&str>, acl: &Acl) -> Result<(), BucketError> {
        self.between(Self::call(Operation::SetAcl, object, version), || {
            let happened = self.grant(object, version, acl)?;
            self.hook.happened(&happened);
            Ok(())
        })
        .await
    }

    async fn configuration(&self) -> Result<Configuration, BucketError> {
        self.between(Self::call(Operation::Configuration, "", None), || {
            let state = self.state();
            let mut documents = state.documents.clone();
            let status = match state.versioning {
                Versioning::Never => None,
                Versioning::Enabled => Some("Enabled"),
                Versioning::Suspended => Some("Suspended"),
            };
            if let Some(status) = status {
                let document = format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
                documents.insert("versioning".to_owned(), document);
            }
            documents.retain(|name, _| !state.denied.contains(name));
            let denied = |name: &String| (name.clone(), format!("{name} of s3://{} is not allowed", self.settings.name));
            Ok(Configuration { documents, unread: state.denied.iter().map(denied).collect() })
        })
        .await
    }
}
