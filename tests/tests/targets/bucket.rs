//! A bucket as target: what servers do that have their own ways, and what stays outside.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use pipeline::model::checksum::Checksum;
use pipeline::model::{Clock, Digest, ResourceId, Timestamp};
use pipeline::s3::{
    Acl, Bucket, BucketError, Configuration, Content, CopyName, CopySource, Grant, ListMarker, ListedVersion, ObjectHead, PartLayout,
    PutRequest, Tags, VersionPage, Versioning,
};
use pipeline::target::{BucketTarget, Occupied, Target, TargetError, WantedObject};
use pipeline::vault::body::Whole;
use tests::memory_bucket::{MemoryBucket, NoHook, Settings};
use tests::target_conformance::{self, Place, content, wanted};

use super::block_on;

/// A versioned bucket in memory, with a server's quirks. Its etags are no MD5, so that every write is read back.
pub(super) struct Shelf {
    quirks: Quirks,
    /// Every version in the order of writing; none in place of content is a delete marker.
    versions: Mutex<Vec<Version>>,
    /// What was asked to change, in order.
    pub(super) calls: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Version {
    object: String,
    id: String,
    content: Option<Bytes>,
    request: PutRequest,
    acl: Acl,
}

/// What a HEAD says of tags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum CountsTags {
    /// How many there are.
    #[default]
    Always,
    /// The same, but nothing where there are none, as AWS does.
    Some,
    /// Nothing.
    Never,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Quirks {
    /// ACLs are switched off, as on new buckets of AWS.
    no_acls: bool,
    /// Only class STANDARD.
    one_class: bool,
    /// Stores other bytes than it was sent.
    corrupts: bool,
    /// Encrypts with KMS, so that etags say nothing.
    kms: bool,
    /// The listing ignores the prefix.
    lists_everything: bool,
    /// Does not know puts that only create.
    only_puts_over: bool,
    /// Fails where it is asked for one.
    fails_to_create: bool,
    /// Says in a HEAD only that there are tags, or not even that.
    counts_tags: CountsTags,
    /// The bucket does not exist.
    missing: bool,
}

impl Shelf {
    pub(super) fn new(quirks: Quirks) -> Arc<Shelf> {
        Arc::new(Shelf { quirks, versions: Mutex::default(), calls: Mutex::default() })
    }

    pub(super) fn target(self: &Arc<Shelf>, prefix: &str) -> BucketTarget {
        BucketTarget::new(self.clone(), prefix)
    }

    fn find(&self, object: &str, version: Option<&str>) -> Result<Version, BucketError> {
        let versions = self.versions.lock().unwrap();
        let found = versions.iter().rev().find(|found| found.object == object && version.is_none_or(|id| id == found.id));
        found.filter(|found| found.content.is_some()).cloned().ok_or_else(|| BucketError::NotFound { what: object.to_owned() })
    }

    fn plant(&self, object: &str, content: &'static [u8]) {
        let content = Some(Bytes::from_static(content));
        self.push(Version { object: object.to_owned(), id: String::new(), content, request: PutRequest::default(), acl: private() });
    }

    fn push(&self, mut version: Version) -> String {
        let mut versions = self.versions.lock().unwrap();
        version.id = format!("v{}", versions.len());
        versions.push(version.clone());
        version.id
    }

    fn called(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    fn head_of(&self, version: &Version) -> ObjectHead {
        let content = version.content.clone().unwrap_or_default();
        let mut metadata = version.request.metadata.clone();
        metadata.content_type.get_or_insert_with(|| "binary/octet-stream".to_owned());
        metadata.encryption = Some(if self.quirks.kms { "aws:kms" } else { "AES256" }.to_owned());
        ObjectHead {
            version: version.id.clone(),
            size: content.len() as i64,
            etag: Digest::of(&content).short(),
            storage_class: version.request.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
            tag_count: Some(version.request.tags.len() as i32).filter(|count| match self.quirks.counts_tags {
                CountsTags::Always => true,
                CountsTags::Some => *count > 0,
                CountsTags::Never => false,
            }),
            metadata,
            ..ObjectHead::default()
        }
    }
}

fn private() -> Acl {
    Acl { owner: Some("here".to_owned()), grants: vec![grant("id=here", "FULL_CONTROL")] }
}

fn grant(grantee: &str, permission: &str) -> Grant {
    Grant { grantee: grantee.to_owned(), permission: permission.to_owned() }
}

#[async_trait]
impl Bucket for Shelf {
    fn name(&self) -> &str {
        "shelf"
    }

    async fn versioning(&self) -> Result<Versioning, BucketError> {
        if self.quirks.missing { Err(BucketError::NotFound { what: "bucket shelf".to_owned() }) } else { Ok(Versioning::Enabled) }
    }

    async fn list_versions(&self, prefix: &str, after: Option<&ListMarker>, limit: i32) -> Result<VersionPage, BucketError> {
        let versions = self.versions.lock().unwrap();
        let mut objects: Vec<&str> = versions.iter().map(|version| version.object.as_str()).collect();
        // Backwards: a server's order is its own.
        objects.sort_unstable_by(|a, b| b.cmp(a));
        objects.dedup();
        objects.retain(|object| {
            (self.quirks.lists_everything || object.starts_with(prefix)) && after.is_none_or(|after| *object < after.key.as_str())
        });
        // Small pages, to be turned often.
        let page = &objects[..objects.len().min(limit.min(3) as usize)];
        let list = |object: &&str| -> Vec<ListedVersion> {
            let of_object = versions.iter().rev().filter(|version| version.object == *object).enumerate();
            let listed = of_object.map(|(age, version)| ListedVersion {
                object: version.object.clone(),
                version: version.id.clone(),
                marker: version.content.is_none(),
                latest: age == 0,
                modified: Timestamp::default(),
                size: version.content.as_ref().map(|content| content.len() as i64),
                etag: version.content.as_ref().map(|content| Digest::of(content).short()),
                storage_class: None,
            });
            listed.collect()
        };
        let next = page.last().filter(|_| page.len() < objects.len()).map(|last| ListMarker { key: (*last).to_owned(), version: None });
        Ok(VersionPage { versions: page.iter().flat_map(list).collect(), next, server_time: None })
    }

    async fn head(&self, object: &str, version: Option<&str>) -> Result<ObjectHead, BucketError> {
        self.find(object, version).map(|version| self.head_of(&version))
    }

    async fn get(
        &self,
        object: &str,
        version: Option<&str>,
        _range: Option<Range<u64>>,
        _if_match: Option<&str>,
    ) -> Result<(ObjectHead, Content), BucketError> {
        let version = self.find(object, version)?;
        let head = self.head_of(&version);
        Ok((head, stream::iter(version.content.map(Ok)).boxed()))
    }

    async fn put(&self, object: &str, request: &PutRequest, _size: u64, content: Content) -> Result<ObjectHead, BucketError> {
        if self.quirks.one_class && request.storage_class.is_some() {
            return Err(BucketError::Other { what: format!("put {object}"), reason: "InvalidStorageClass".to_owned() });
        }
        self.called(format!("put {object}"));
        if request.creates && self.quirks.only_puts_over {
            return Err(BucketError::Unsupported { what: format!("put {object}"), reason: "NotImplemented".to_owned() });
        }
        if request.creates && self.quirks.fails_to_create {
            return Err(BucketError::Transient { what: format!("put {object}"), reason: "InternalError".to_owned() });
        }
        if request.creates && self.find(object, None).is_ok() {
            return Err(BucketError::Changed { what: object.to_owned() });
        }
        let mut bytes: Vec<u8> = content.try_collect::<Vec<Bytes>>().await?.concat();
        if self.quirks.corrupts {
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
        }
        let content = Some(Bytes::from(bytes));
        let mut version = Version { object: object.to_owned(), id: String::new(), content, request: request.clone(), acl: private() };
        version.id = self.push(version.clone());
        Ok(ObjectHead {
            metadata: self.head_of(&version).metadata,
            version: version.id.clone(),
            etag: self.head_of(&version).etag,
            ..ObjectHead::default()
        })
    }

    async fn parts(&self, _object: &str, _version: Option<&str>) -> Result<Option<PartLayout>, BucketError> {
        Ok(None)
    }

    async fn copy(&self, _source: &CopySource, object: &str, _request: &PutRequest, _name: CopyName) -> Result<ObjectHead, BucketError> {
        self.called(format!("copy {object}"));
        Err(BucketError::Unproven { what: format!("copy of {object}"), reason: "this server says nothing".to_owned() })
    }

    async fn remove(&self, object: &str, _version: Option<&str>) -> Result<(), BucketError> {
        self.called(format!("remove {object}"));
        self.push(Version { object: object.to_owned(), id: String::new(), content: None, request: PutRequest::default(), acl: private() });
        Ok(())
    }

    async fn tags(&self, object: &str, version: Option<&str>) -> Result<Tags, BucketError> {
        self.called(format!("tags {object}"));
        self.find(object, version).map(|version| version.request.tags)
    }

    async fn set_tags(&self, _object: &str, _version: Option<&str>, _tags: &Tags) -> Result<(), BucketError> {
        unreachable!("tags come with the object")
    }

    async fn acl(&self, object: &str, version: Option<&str>) -> Result<Acl, BucketError> {
        self.find(object, version).map(|version| version.acl)
    }

    async fn set_acl(&self, object: &str, version: Option<&str>, acl: &Acl) -> Result<(), BucketError> {
        if self.quirks.no_acls {
            return Err(BucketError::Unsupported { what: "acl".to_owned(), reason: "the bucket does not allow ACLs".to_owned() });
        }
        self.called(format!("acl {object}"));
        let id = self.find(object, version)?.id;
        self.versions.lock().unwrap().iter_mut().filter(|version| version.id == id).for_each(|version| version.acl = acl.clone());
        Ok(())
    }

    async fn configuration(&self) -> Result<Configuration, BucketError> {
        Ok(Configuration::default())
    }
}

struct OnShelf(Arc<Shelf>, &'static str);

#[async_trait]
impl Place for OnShelf {
    fn target(&self) -> Arc<dyn Target> {
        Arc::new(self.0.target(self.1))
    }

    async fn read(&self, object: &str) -> Option<Vec<u8>> {
        self.0.find(object, None).ok().and_then(|version| version.content).map(Vec::from)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.1)
    }
}

#[test]
fn a_bucket_is_a_target_with_a_prefix_and_without() {
    for prefix in ["", "restored/2026/", "odd"] {
        block_on(target_conformance::check(&|| {
            let shelf = Shelf::new(Quirks::default());
            if !prefix.is_empty() {
                // What lies outside is not seen.
                shelf.plant("0", b"outside");
                shelf.plant("restored", b"outside");
            }
            Box::new(OnShelf(shelf, prefix))
        }));
    }
}

struct InMemory(Arc<MemoryBucket>);

pub(super) struct Stopped;

#[async_trait]
impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(1_787_400_007)
    }

    async fn sleep(&self, _duration: Duration) {}
}

#[async_trait]
impl Place for InMemory {
    fn target(&self) -> Arc<dyn Target> {
        Arc::new(BucketTarget::new(self.0.clone(), "p/"))
    }

    async fn read(&self, object: &str) -> Option<Vec<u8>> {
        let (_, content) = self.0.get(object, None, None, None).await.ok()?;
        Some(content.try_collect::<Vec<Bytes>>().await.unwrap().concat())
    }

    fn key(&self, name: &str) -> String {
        format!("p/{name}")
    }
}

#[test]
fn a_server_that_does_not_know_puts_that_only_create_is_restored_to_all_the_same() {
    let shelf = Shelf::new(Quirks { only_puts_over: true, ..Quirks::default() });
    let target = shelf.target("");
    let creating = |key: &str| WantedObject { creates: true, ..wanted(key, b"x") };
    let refused = put(&target, &creating("a"), b"x").unwrap_err();
    assert!(refused.is_transient(), "the same goes without it: {refused}");
    for key in ["a", "b"] {
        put(&target, &creating(key), b"x").unwrap();
    }
    // What is there is looked for just before.
    shelf.plant("c", b"of somebody else");
    assert!(matches!(put(&target, &creating("c"), b"x").unwrap_err(), TargetError::Exists { .. }));
    assert_eq!(shelf.calls.lock().unwrap().as_slice(), ["put a", "put a", "put b"], "the first one was refused");
}

#[test]
fn a_copy_by_such_a_server_does_not_replace_what_somebody_else_put_either() {
    let shelf = Shelf::new(Quirks { only_puts_over: true, ..Quirks::default() });
    let target = shelf.target("").with_vault_bucket(Some("vault".to_owned()));
    let creating = |key: &str| WantedObject { creates: true, ..wanted(key, b"x") };
    put(&target, &creating("a"), b"x").unwrap_err();
    shelf.plant("c", b"of somebody else");
    let bucket = ResourceId::bucket("photos").unwrap();
    let whole = Whole::of(&bucket, "c", "1", 1, vec![Checksum::Crc64Nvme(0)]);
    let copied = block_on(target.copy(&creating("c"), &whole, "whole/c"));
    assert!(matches!(copied, Err(TargetError::Exists { .. })), "{copied:?}");
    assert_eq!(shelf.calls.lock().unwrap().as_slice(), ["put a"], "it is not even tried");
}

#[test]
fn a_name_that_the_server_does_not_create_on_a_condition_is_created_without() {
    let shelf = Shelf::new(Quirks { fails_to_create: true, ..Quirks::default() });
    let target = shelf.target("");
    let creating = WantedObject { creates: true, ..wanted("a", b"x") };
    assert!(put(&target, &creating, b"x").unwrap_err().is_transient());
    put(&target, &creating, b"x").unwrap();
    put(&target, &creating, b"x").unwrap();
    assert_eq!(
        shelf.calls.lock().unwrap().as_slice(),
        ["put a", "put a", "tags a"],
        "one failed, one was done, and then it was there already"
    );
}

#[test]
fn the_bucket_of_the_simulation_is_a_target_in_every_versioning() {
    for versioning in [Versioning::Enabled, Versioning::Suspended, Versioning::Never] {
        block_on(target_conformance::check(&|| {
            let bucket = MemoryBucket::new(Settings::aws("memory", 7), Arc::new(Stopped), Arc::new(NoHook));
            bucket.set_versioning(versioning);
            Box::new(InMemory(Arc::new(bucket)))
        }));
    }
}

fn put(target: &BucketTarget, wanted: &WantedObject, bytes: &[u8]) -> Result<pipeline::target::Written, TargetError> {
    block_on(target.write(wanted, content(bytes)))
}

#[test]
fn nothing_outside_the_prefix_is_seen_or_written() {
    let shelf = Shelf::new(Quirks { lists_everything: true, ..Quirks::default() });
    shelf.plant("photos-private/a", b"mine");
    let target = shelf.target("photos/");
    assert!(block_on(target.survey(&|_: &str| true)).unwrap().objects.is_empty());
    for outside in ["photos-private/a", "photos", "", "a/photos/"] {
        let written = put(&target, &wanted(outside, b"x"), b"x").unwrap_err();
        assert!(matches!(written, TargetError::Refused { .. }), "{written}");
        assert!(matches!(block_on(target.remove(outside)), Err(TargetError::Refused { .. })), "{outside}");
    }
    assert!(shelf.calls.lock().unwrap().is_empty());
}

#[test]
fn a_bucket_that_is_not_there_is_refused_with_what_to_do() {
    let error = block_on(Shelf::new(Quirks { missing: true, ..Quirks::default() }).target("").open()).unwrap_err();
    assert_eq!(error.to_string(), "cannot restore to s3://shelf/: bucket shelf does not exist; create the bucket first");
}

#[test]
fn hidden_versions_make_a_bucket_occupied_but_are_not_surveyed() {
    let shelf = Shelf::new(Quirks::default());
    shelf.plant("a", b"old");
    let target = shelf.target("");
    block_on(target.remove("a")).unwrap();
    assert_eq!(block_on(target.open()).unwrap(), Occupied::Holds);
    assert!(block_on(target.survey(&|_: &str| true)).unwrap().objects.is_empty());
}

#[test]
fn metadata_and_tags_go_with_the_content_in_one_request() {
    let shelf = Shelf::new(Quirks::default());
    let target = shelf.target("");
    let mut object = wanted("a", b"x");
    object.metadata.user.insert("color".to_owned(), "red".to_owned());
    object.storage_class = Some("STANDARD_IA".to_owned());
    let written = put(&target, &object, b"x").unwrap();
    assert_eq!((written.version.as_deref(), written.requests, written.left_out.len()), (Some("v0"), 1, 0));
    assert_eq!(*shelf.calls.lock().unwrap(), ["put a"]);
    let stored = shelf.find("a", None).unwrap().request;
    assert_eq!((stored.metadata, stored.tags, stored.storage_class), (object.metadata, object.tags, object.storage_class));
}

#[test]
fn tags_that_a_head_does_not_count_are_asked_for() {
    for (counts_tags, asked) in [
        (CountsTags::Always, &["tags a"][..]),
        // One that says nothing may have none, until it is known to say how many there are.
        (CountsTags::Some, &["tags b", "tags a"]),
        (CountsTags::Never, &["tags b", "tags a", "tags c"]),
    ] {
        let shelf = Shelf::new(Quirks { counts_tags, ..Quirks::default() });
        let target = shelf.target("");
        let untagged = |key: &str| WantedObject { tags: Tags::new(), ..wanted(key, b"x") };
        let tagged = WantedObject { tags: Tags::from([("k".to_owned(), "v".to_owned())]), ..wanted("a", b"x") };
        for object in [&untagged("b"), &tagged, &untagged("c")] {
            put(&target, object, b"x").unwrap();
        }
        let there = block_on(target.survey(&|_: &str| true)).unwrap().objects;
        shelf.calls.lock().unwrap().clear();
        let is_same = |key: &str| {
            let wanted = WantedObject { etag: there[key].etag.clone(), ..untagged(key) };
            block_on(target.is_same(&wanted, &there[key])).unwrap()
        };
        assert_eq!(["b", "a", "c"].map(is_same), [true, false, true], "{counts_tags:?}");
        assert_eq!(*shelf.calls.lock().unwrap(), asked, "{counts_tags:?}");
    }
}

fn public(key: &str) -> WantedObject {
    let grants = vec![grant("id=there", "FULL_CONTROL"), grant("uri=everybody", "READ")];
    WantedObject { acl: Some(Acl { owner: Some("there".to_owned()), grants }), ..wanted(key, b"x") }
}

#[test]
fn an_acl_follows_the_object_and_goes_over_to_the_new_owner() {
    let shelf = Shelf::new(Quirks::default());
    let target = shelf.target("");
    let object = public("a");
    assert_eq!(put(&target, &object, b"x").unwrap().requests, 2);
    let expected = Acl { owner: Some("here".to_owned()), grants: vec![grant("id=here", "FULL_CONTROL"), grant("uri=everybody", "READ")] };
    assert_eq!(shelf.find("a", None).unwrap().acl, expected);
    let existing = block_on(target.survey(&|_: &str| true)).unwrap().objects.remove("a").unwrap();
    let object = WantedObject { etag: existing.etag.clone(), ..object };
    assert!(block_on(target.is_same(&object, &existing)).unwrap());
    let other = Acl { owner: Some("there".to_owned()), grants: vec![grant("id=there", "FULL_CONTROL")] };
    assert!(!block_on(target.is_same(&WantedObject { acl: Some(other.clone()), ..object.clone() }, &existing)).unwrap());
    // A private ACL is what every new object has: no request, on any bucket.
    let written = put(&target, &WantedObject { acl: Some(other), ..object }, b"x").unwrap();
    assert_eq!(written.requests, 1);
}

#[test]
fn what_was_uploaded_in_parts_is_read_before_it_is_written_again() {
    let target = Shelf::new(Quirks::default()).target("");
    put(&target, &wanted("a", b"content"), b"content").unwrap();
    let existing = block_on(target.survey(&|_: &str| true)).unwrap().objects.remove("a").unwrap();
    let in_parts = |content: &[u8]| WantedObject { etag: Some("0123456789abcdef0123456789abcdef-2".to_owned()), ..wanted("a", content) };
    assert!(block_on(target.is_same(&in_parts(b"content"), &existing)).unwrap());
    assert!(!block_on(target.is_same(&in_parts(b"CONTENT"), &existing)).unwrap());
}

#[test]
fn a_bucket_without_acls_takes_the_object_and_says_so() {
    let target = Shelf::new(Quirks { no_acls: true, ..Quirks::default() }).target("");
    let written = put(&target, &public("a"), b"x").unwrap();
    assert_eq!(written.left_out, ["acl: the bucket does not allow ACLs; ACLs must be enabled at the destination"]);
    assert_eq!(written.requests, target.requests(Some(&public("a"))));
}

#[test]
fn a_storage_class_that_the_server_does_not_take_is_left_out_at_the_next_attempt() {
    let target = Shelf::new(Quirks { one_class: true, ..Quirks::default() }).target("");
    let object = WantedObject { storage_class: Some("ONEZONE_IA".to_owned()), ..wanted("a", b"x") };
    let error = put(&target, &object, b"x").unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(put(&target, &object, b"x").unwrap().left_out, ["storage class ONEZONE_IA: the server does not take it"]);
    let existing = block_on(target.survey(&|_: &str| true)).unwrap().objects.remove("a").unwrap();
    let object = WantedObject { etag: existing.etag.clone(), ..object };
    assert!(block_on(target.is_same(&object, &existing)).unwrap());
}

#[test]
fn what_the_server_stored_is_checked() {
    let target = Shelf::new(Quirks { corrupts: true, ..Quirks::default() }).target("");
    let error = put(&target, &wanted("a", b"x"), b"x").unwrap_err();
    assert_eq!(error.to_string(), "cannot restore \"a\" to s3://shelf/: what the server stored is not what was sent");
    // Its etag is no MD5, and KMS says so: nothing to compare, nothing to read back.
    put(&Shelf::new(Quirks { kms: true, ..Quirks::default() }).target(""), &wanted("a", b"x"), b"x").unwrap();
}
