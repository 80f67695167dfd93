//! What every implementation of [`Bucket`] does, on whatever server.
//!
//! A server may fall short of S3 in ways that are known; it says so in its [`Quirks`], and everything else is checked
//! all the same. What a server does not offer at all is skipped with a printed line.

mod copies;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pipeline::model::digest::Hasher;
use pipeline::s3::aws::mail_safe;
use pipeline::s3::{
    Bucket, BucketError, Content, Grant, ListMarker, ListedVersion, NULL_VERSION, ObjectMetadata, PutRequest, Tags, Versioning,
};

/// More than one part, and not a whole number of them.
const LARGE_BYTES: u64 = (20 << 20) + 1;

/// A server that has buckets.
#[async_trait]
pub trait Server: Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &str;
    /// How it is known to fall short.
    fn quirks(&self) -> Quirks;
    /// A new, empty bucket that was never versioned.
    async fn bucket(&self) -> Arc<dyn Bucket>;
    /// Switches the versioning of one of its buckets.
    async fn switch(&self, bucket: &str, versioning: Versioning);
}

/// How a server is known to fall short of S3.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quirks {
    /// Once versioning was suspended and is enabled again, it gives neither S3's order nor S3's current version.
    pub confused_by_suspension: bool,
    /// Keys of [`ODD_KEYS`] that it refuses, alters, or keeps without versions.
    pub keys_altered: &'static [&'static str],
    /// It puts over what is there, although it was asked only to create.
    pub puts_over: bool,
    /// A listing in pages loses keys where a page ends among keys that begin alike (`a`, `a!`, `a/1`).
    pub pages_lose_keys: bool,
    /// It takes keys of more than 1,024 bytes.
    pub takes_longer_keys: bool,
    /// It loses user metadata that is not ASCII.
    pub metadata_ascii_only: bool,
    /// It loses user metadata without a value.
    pub empty_metadata_lost: bool,
    /// It does not say which CRC a part has that it copied.
    pub copies_without_crc: bool,
    /// It does not say in which parts an object was uploaded: so what is large is never copied, and read instead.
    pub parts_untold: bool,
    /// It copies a part whatever etag the source is to have. The version is named beside it, and what was copied is compared.
    pub copies_any_etag: bool,
    /// It decodes the name of what is to be copied twice, so that it does not find what has a `%` or a `?` in its key.
    pub copies_decoded_twice: bool,
}

/// Keys that S3 allows and that something on the way may not like.
pub const ODD_KEYS: &[&str] = &[
    "a b",
    "a+b",
    "a%2Fb",
    "a%2fb?x=y&z#f",
    "plus + and %20",
    "q\"<&>'",
    "ü/€/😀",
    "e\u{301}",
    "tab\there",
    "line\nfeed",
    "control\u{1}\u{1f}",
    "/leading",
    "trailing/",
    "two//slashes",
    "../up",
    "a/../b",
    "./here",
    "back\\slash",
    "~tilde*star(paren)!",
    "version?versionId=null",
];

/// Runs the whole suite. A failure is a panic that names the server and the case.
pub async fn conforms(server: &dyn Server) {
    let name = server.name();
    println!("{name}: without versioning");
    without_versioning(server).await;
    println!("{name}: versions and markers");
    versions_and_markers(server).await;
    println!("{name}: order within one second");
    order_within_one_second(server).await;
    println!("{name}: suspended versioning");
    suspended(server).await;
    println!("{name}: pages");
    pages(server).await;
    println!("{name}: ranges and conditions");
    ranges_and_conditions(server).await;
    println!("{name}: puts that only create");
    puts_that_only_create(server).await;
    println!("{name}: odd keys");
    odd_keys(server).await;
    println!("{name}: metadata");
    metadata(server).await;
    println!("{name}: tags");
    tags(server).await;
    println!("{name}: ACLs");
    acls(server).await;
    println!("{name}: large objects");
    large_objects(server).await;
    println!("{name}: copies");
    copies::copies(server).await;
    println!("{name}: contents that fail");
    contents_that_fail(server).await;
    println!("{name}: what is not there");
    what_is_not_there(server).await;
    println!("{name}: configuration");
    configuration(server).await;
}

async fn without_versioning(server: &dyn Server) {
    let bucket = server.bucket().await;
    assert_eq!(bucket.versioning().await.expect("versioning"), Versioning::Never);
    assert_eq!(all(&*bucket, "").await, [], "a new bucket is empty");

    put(&*bucket, "a", "one").await;
    let again = put(&*bucket, "a", "two").await;
    assert_eq!(again, NULL_VERSION);
    let listed = all(&*bucket, "").await;
    assert_eq!(summary(&listed), ["a null latest"]);
    assert_eq!(listed[0].size, Some(3));
    assert_eq!(read(&*bucket, "a", None).await, "two");
    assert_eq!(read(&*bucket, "a", Some(NULL_VERSION)).await, "two");

    bucket.remove("a", None).await.expect("remove");
    assert_eq!(all(&*bucket, "").await, [], "removed without a trace");
    bucket.remove("a", None).await.expect("removing what is gone is no error");
}

async fn versions_and_markers(server: &dyn Server) {
    let bucket = server.bucket().await;
    put(&*bucket, "old", "before versioning").await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    assert_eq!(bucket.versioning().await.expect("versioning"), Versioning::Enabled);

    let one = put(&*bucket, "a", "one").await;
    let two = put(&*bucket, "a", "two").await;
    bucket.remove("a", None).await.expect("remove");
    let three = put(&*bucket, "a", "three").await;
    assert!(one != two && two != three && one != NULL_VERSION);

    let listed = all(&*bucket, "a").await;
    let order: Vec<&str> = listed.iter().map(|version| version.version.as_str()).collect();
    let listed_marker = listed.iter().find(|version| version.marker).expect("the marker is listed");
    let marker = listed_marker.version.clone();
    assert_eq!(order, [three.as_str(), &marker, &two, &one]);
    assert_eq!(listed.iter().map(|version| version.latest).collect::<Vec<_>>(), [true, false, false, false]);
    assert!(listed[1].size.is_none() && listed[3].size == Some(3) && listed[3].etag.is_some());

    for (version, content) in [(&one, "one"), (&two, "two"), (&three, "three")] {
        assert_eq!(read(&*bucket, "a", Some(version)).await, content);
        assert_eq!(&bucket.head("a", Some(version)).await.expect("head").version, version);
    }
    assert_eq!(bucket.head("a", None).await.expect("head").version, three);
    match bucket.head("a", Some(&marker)).await {
        Err(BucketError::Marker { modified, .. }) => {
            assert!(
                modified.is_none_or(|modified| modified.seconds() == listed_marker.modified.seconds()),
                "HEAD of a marker: {modified:?}"
            );
        }
        other => not_found(other, "HEAD of a marker"),
    }
    not_found(bucket.get("a", Some(&marker), None, None).await.map(|_| ()), "GET of a marker");

    bucket.remove("a", Some(&three)).await.expect("purge");
    not_found(bucket.head("a", None).await, "HEAD where a marker is current");
    not_found(bucket.get("a", None, None, None).await.map(|_| ()), "GET where a marker is current");
    bucket.remove("a", Some(&marker)).await.expect("removal of the marker");
    assert_eq!(read(&*bucket, "a", None).await, "two", "removing the marker brings the version below it back");
    bucket.remove("a", Some(&marker)).await.expect("removing what is gone is no error");
    assert_eq!(all(&*bucket, "a").await.len(), 2);

    // What was there before versioning is version `null`, and stays.
    put(&*bucket, "old", "with versioning").await;
    assert_eq!(read(&*bucket, "old", Some(NULL_VERSION)).await, "before versioning");
    assert_eq!(all(&*bucket, "old").await[1].version, NULL_VERSION);
    bucket.remove("never there", None).await.expect("a marker may be put on nothing");
    assert_eq!(all(&*bucket, "never there").await.iter().filter(|version| version.marker && version.latest).count(), 1);
}

async fn order_within_one_second(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    let mut newest_first = Vec::new();
    for step in 0..12 {
        if step % 3 == 1 {
            bucket.remove("a", None).await.expect("remove");
        } else {
            put(&*bucket, "a", &step.to_string()).await;
        }
        let page = bucket.list_versions("a", None, 1).await.expect("listing");
        assert!(page.versions[0].latest, "the first of a key is the current one");
        newest_first.insert(0, page.versions[0].version.clone());
    }
    let listed: Vec<String> = all(&*bucket, "a").await.into_iter().map(|version| version.version).collect();
    assert_eq!(listed, newest_first, "{}: the newest is first, even within one second", server.name());
}

async fn suspended(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    let one = put(&*bucket, "a", "one").await;
    server.switch(bucket.name(), Versioning::Suspended).await;
    assert_eq!(bucket.versioning().await.expect("versioning"), Versioning::Suspended);

    assert_eq!(put(&*bucket, "a", "null one").await, NULL_VERSION);
    assert_eq!(put(&*bucket, "a", "null two").await, NULL_VERSION);
    let listed = all(&*bucket, "a").await;
    assert_eq!(summary(&listed), ["a null latest".to_owned(), format!("a {one}")], "null is overwritten in place");
    assert_eq!(read(&*bucket, "a", None).await, "null two");
    assert_eq!(read(&*bucket, "a", Some(&one)).await, "one");

    bucket.remove("a", None).await.expect("remove");
    let listed = all(&*bucket, "a").await;
    assert_eq!(summary(&listed), ["a null latest marker".to_owned(), format!("a {one}")], "the marker takes the place of null");
    not_found(bucket.head("a", None).await, "HEAD where the null marker is current");

    if server.quirks().confused_by_suspension {
        return println!("{}: versioning after a suspension skipped: this server loses the order", server.name());
    }
    server.switch(bucket.name(), Versioning::Enabled).await;
    let two = put(&*bucket, "a", "two").await;
    let listed = summary(&all(&*bucket, "a").await);
    assert_eq!(listed, [format!("a {two} latest"), "a null marker".to_owned(), format!("a {one}")]);
    bucket.remove("a", Some(NULL_VERSION)).await.expect("removal of the null marker");
    assert_eq!(summary(&all(&*bucket, "a").await), [format!("a {two} latest"), format!("a {one}")]);
}

async fn pages(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    let second = if server.quirks().pages_lose_keys { "ab/c" } else { "a b/c" };
    for key in ["a", second, "b"] {
        for step in 0..5 {
            put(&*bucket, key, &step.to_string()).await;
        }
        bucket.remove(key, None).await.expect("remove");
    }
    let whole = list(&*bucket, "", 1000).await;
    assert_eq!(whole.len(), 18);
    for limit in [1, 2, 3, 7, 18] {
        let paged = list(&*bucket, "", limit).await;
        assert_eq!(summary(&paged), summary(&whole), "{}: pages of {limit}", server.name());
        assert_eq!(paged, whole, "{}: pages of {limit}", server.name());
    }
    assert_eq!(list(&*bucket, &second[..2], 4).await.len(), 6);
    assert_eq!(list(&*bucket, "nothing", 4).await, []);
    let page = bucket.list_versions("", None, 1000).await.expect("listing");
    let server_time = page.server_time.expect("the server says what time it is");
    let newest = whole.iter().map(|version| version.modified).max().expect("there are some");
    assert!(server_time.end_of_second() >= newest, "{server_time} {newest}");
    for limit in [0, -1, 1001] {
        assert!(bucket.list_versions("", None, limit).await.is_err(), "a page of {limit}");
    }
}

async fn ranges_and_conditions(server: &dyn Server) {
    let bucket = server.bucket().await;
    let content: String = (0..100).map(|index| char::from(b'0' + index % 10)).collect();
    put(&*bucket, "a", &content).await;
    let etag = bucket.head("a", None).await.expect("head").etag;
    for range in [0..10, 5..6, 90..200, 99..100, 0..100, 50..50] {
        let (head, piece) = bucket.get("a", None, Some(range.clone()), None).await.expect("get of a range");
        let expected = &content[range.start as usize..range.end.min(100) as usize];
        assert_eq!(text(piece).await, expected, "{range:?}");
        assert_eq!((head.size, head.etag.as_str()), (100, etag.as_str()), "{range:?}: the head is that of the whole object");
    }
    let behind = match bucket.get("a", None, Some(100..110), None).await {
        Ok((_, content)) => content.try_collect::<Vec<Bytes>>().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(behind.is_err_and(|error| !error.is_transient()), "a range behind the end is an error");

    let (_, whole) = bucket.get("a", None, None, Some(&etag)).await.expect("the etag is the right one");
    assert_eq!(text(whole).await, content);
    let changed = bucket.get("a", None, None, Some("00000000000000000000000000000000")).await.map(|_| ());
    assert!(matches!(changed, Err(BucketError::Changed { .. })), "{changed:?}");
    let changed = bucket.get("a", None, Some(3..3), Some("00000000000000000000000000000000")).await.map(|_| ());
    assert!(matches!(changed, Err(BucketError::Changed { .. })), "{changed:?}");

    put(&*bucket, "empty", "").await;
    assert_eq!(read(&*bucket, "empty", None).await, "");
    assert_eq!(bucket.head("empty", None).await.expect("head").size, 0);
}

async fn puts_that_only_create(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    let creating = PutRequest { creates: true, ..PutRequest::default() };
    for (object, size) in [("small", 7), ("large", LARGE_BYTES)] {
        bucket.put(object, &creating, size, generated(size).boxed()).await.expect("nothing has the name");
        let again = bucket.put(object, &creating, 5, content("other")).await;
        if server.quirks().puts_over {
            again.expect("it puts over what is there");
            continue;
        }
        assert!(matches!(again, Err(BucketError::Changed { .. })), "{}: {again:?}", server.name());
        let head = bucket.head(object, None).await.expect("the first is there");
        assert_eq!(head.size, size as i64, "{}: {object}", server.name());
        bucket.remove(object, None).await.expect("removed");
        bucket.put(object, &creating, 5, content("other")).await.expect("a delete marker is nothing");
    }
}

async fn odd_keys(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    let longest = ["k".repeat(1_024), "ü".repeat(512), format!("{}/{}", "d".repeat(500), "f".repeat(523))];
    let keys: Vec<&str> = ODD_KEYS.iter().copied().chain(longest.iter().map(String::as_str)).collect();
    for &key in &keys {
        let faithful = keeps(&*bucket, key).await;
        match server.quirks().keys_altered.contains(&key) {
            true => assert!(faithful.is_err(), "{}: {key:?} works here: take it off the quirks", server.name()),
            false => assert_eq!(faithful, Ok(()), "{}: {key:?}", server.name()),
        }
    }
    let too_long = "k".repeat(1_025);
    let refused = bucket.put(&too_long, &PutRequest::default(), 1, content("x")).await;
    assert_eq!(refused.is_ok(), server.quirks().takes_longer_keys, "{}: a key of 1,025 bytes: {refused:?}", server.name());
    assert!(refused.is_ok() || refused.is_err_and(|error| !error.is_transient()), "a key that is too long is not transient");
}

/// Whether a key comes back from every operation as it was given.
async fn keeps(bucket: &dyn Bucket, key: &str) -> Result<(), String> {
    let said = |error: BucketError| error.to_string();
    let head = bucket.put(key, &PutRequest::default(), key.len() as u64, content(key)).await.map_err(said)?;
    if head.version == NULL_VERSION {
        return Err("it is kept without versions".to_owned());
    }
    let (_, read) = bucket.get(key, Some(&head.version), None, None).await.map_err(said)?;
    if text(read).await != key {
        return Err("another content came back".to_owned());
    }
    let listed = all(bucket, key).await;
    if !listed.iter().any(|version| version.object == key && version.version == head.version) {
        return Err("it is listed as something else, or not at all".to_owned());
    }
    // A listing goes on behind it.
    let page =
        bucket.list_versions(key, Some(&ListMarker { key: key.to_owned(), version: Some(head.version.clone()) }), 1).await.map_err(said)?;
    if page.versions.iter().any(|version| version.version == head.version) {
        return Err("a listing that goes on behind it begins with it".to_owned());
    }
    bucket.remove(key, Some(&head.version)).await.map_err(said)?;
    match bucket.head(key, Some(&head.version)).await {
        Err(BucketError::NotFound { .. }) => Ok(()),
        other => Err(format!("it is still there after its removal: {other:?}")),
    }
}

async fn metadata(server: &dyn Server) {
    let bucket = server.bucket().await;
    let some = |text: &str| Some(text.to_owned());
    let mut given = ObjectMetadata {
        content_type: some("text/plain; charset=utf-8"),
        cache_control: some("max-age=60, private"),
        content_disposition: some("attachment; filename=\"a b.txt\"; filename*=UTF-8''%e2%82%ac.txt"),
        content_encoding: some("gzip"),
        content_language: some("de, en"),
        expires: some("Wed, 21 Oct 2026 07:28:00 GMT"),
        website_redirect: None,
        encryption: None,
        kms_key: None,
        user: BTreeMap::from([
            ("plain".to_owned(), "a value; with=signs, and  two spaces".to_owned()),
            ("empty".to_owned(), String::new()),
        ]),
    };
    if server.quirks().empty_metadata_lost {
        given.user.remove("empty");
    }
    let request = PutRequest { metadata: given.clone(), ..PutRequest::default() };
    bucket.put("a", &request, 1, content("x")).await.expect("put");
    let head = bucket.head("a", None).await.expect("head");
    let (got, _) = bucket.get("a", None, None, None).await.expect("get");
    assert_eq!(without_encryption(&head.metadata), given, "{}", server.name());
    assert_eq!(without_encryption(&got.metadata), given, "{}: GET says what HEAD says", server.name());
    assert_eq!(head.storage_class, "STANDARD");

    // Metadata that goes through a backup a second time must not change any more.
    if server.quirks().metadata_ascii_only {
        println!("{}: user metadata that is not ASCII skipped: this server loses it", server.name());
    } else {
        let user = BTreeMap::from([("name".to_owned(), "Grüße ✓".to_owned())]);
        let request = PutRequest { metadata: ObjectMetadata { user, ..ObjectMetadata::default() }, ..PutRequest::default() };
        bucket.put("b", &request, 1, content("x")).await.expect("put of metadata that is not ASCII");
        let once = bucket.head("b", None).await.expect("head").metadata;
        assert_eq!(once.user["name"], mail_safe("Grüße ✓"), "{}", server.name());
        bucket.put("b", &PutRequest { metadata: once.clone(), ..PutRequest::default() }, 1, content("x")).await.expect("put");
        assert_eq!(bucket.head("b", None).await.expect("head").metadata, once, "{}", server.name());
    }

    let large = PutRequest { metadata: given.clone(), ..PutRequest::default() };
    bucket.put("large", &large, LARGE_BYTES, generated(LARGE_BYTES)).await.expect("put in parts");
    assert_eq!(without_encryption(&bucket.head("large", None).await.expect("head").metadata), given, "{}: in parts", server.name());
}

/// What a server encrypts by itself, it says; that is no part of what was put.
fn without_encryption(metadata: &ObjectMetadata) -> ObjectMetadata {
    ObjectMetadata { encryption: None, kms_key: None, ..metadata.clone() }
}

async fn tags(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    let tag = |pairs: &[(&str, &str)]| -> Tags { pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect() };
    let first = tag(&[("project", "blue sky"), ("a+b=c:d/e@f.g_h-i", "ü"), ("empty", "")]);
    let request = PutRequest { tags: first.clone(), ..PutRequest::default() };
    let one = bucket.put("a", &request, 1, content("1")).await.expect("put with tags").version;
    let two = put(&*bucket, "a", "2").await;
    assert_eq!(bucket.tags("a", Some(&one)).await.expect("tags"), first, "{}", server.name());
    assert_eq!(bucket.tags("a", Some(&two)).await.expect("tags"), Tags::new(), "tags belong to a version");
    assert_eq!(bucket.tags("a", None).await.expect("tags"), Tags::new());

    let second = tag(&[("project", "red")]);
    bucket.set_tags("a", Some(&one), &second).await.expect("change of tags");
    assert_eq!(bucket.tags("a", Some(&one)).await.expect("tags"), second);
    bucket.set_tags("a", Some(&one), &Tags::new()).await.expect("removal of tags");
    assert_eq!(bucket.tags("a", Some(&one)).await.expect("tags"), Tags::new());
    assert_eq!(bucket.head("a", Some(&one)).await.expect("head").tag_count.unwrap_or(0), 0);

    let parts = bucket.put("large", &request, LARGE_BYTES, generated(LARGE_BYTES)).await.expect("put in parts").version;
    assert_eq!(bucket.tags("large", Some(&parts)).await.expect("tags"), first, "{}: in parts", server.name());
    not_found(bucket.tags("nothing", None).await, "tags of nothing");
}

async fn acls(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    let one = put(&*bucket, "a", "1").await;
    let two = put(&*bucket, "a", "2").await;
    let before = match bucket.acl("a", Some(&one)).await {
        Err(BucketError::Unsupported { reason, .. }) => return println!("{}: ACLs skipped: {reason}", server.name()),
        other => other.expect("ACL"),
    };
    let mut wanted = before.clone();
    wanted.grants.push(Grant { grantee: "uri=http://acs.amazonaws.com/groups/global/AllUsers".to_owned(), permission: "READ".to_owned() });
    wanted.grants.sort();
    match bucket.set_acl("a", Some(&one), &wanted).await {
        Err(BucketError::Unsupported { reason, .. }) => return println!("{}: change of ACLs skipped: {reason}", server.name()),
        other => other.expect("change of ACL"),
    }
    assert_eq!(bucket.acl("a", Some(&one)).await.expect("ACL"), wanted, "{}", server.name());
    assert_eq!(bucket.acl("a", Some(&two)).await.expect("ACL"), before, "{}: an ACL belongs to a version", server.name());
    bucket.set_acl("a", Some(&one), &before).await.expect("change of ACL");
    assert_eq!(bucket.acl("a", Some(&one)).await.expect("ACL"), before);
    not_found(bucket.acl("nothing", None).await, "ACL of nothing");
}

async fn large_objects(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    let put = bucket.put("large", &PutRequest::default(), LARGE_BYTES, generated(LARGE_BYTES)).await.expect("put in parts");
    assert_eq!(put.size, LARGE_BYTES as i64);
    assert_ne!(put.version, NULL_VERSION);
    let (head, content) = bucket.get("large", Some(&put.version), None, Some(&put.etag)).await.expect("get");
    assert_eq!((head.size, &head.version), (put.size, &put.version));
    let read = digest(content).await.expect("the whole content");
    assert_eq!(read, digest(generated(LARGE_BYTES)).await.expect("generated"), "{}: what was put is read", server.name());

    let across = (8 << 20) - 1..(16 << 20) + 1;
    let (_, range) = bucket.get("large", None, Some(across.clone()), None).await.expect("get of a range");
    let bytes: Vec<Bytes> = range.try_collect().await.expect("a range across parts");
    let expected: Vec<u8> = across.map(generated_byte).collect();
    assert!(bytes.concat() == expected, "{}: a range across parts", server.name());
    assert_eq!(all(&*bucket, "large").await.len(), 1, "one upload is one version");
}

async fn contents_that_fail(server: &dyn Server) {
    let bucket = server.bucket().await;
    for size in [100, 10 << 20] {
        let broken = || BucketError::Transient { what: "the vault".to_owned(), reason: "went away".to_owned() };
        let half = generated(size / 2).chain(futures::stream::once(async move { Err(broken()) })).boxed();
        let error = bucket.put("a", &PutRequest::default(), size, half).await.expect_err("the content failed");
        assert_eq!(error.to_string(), "the vault: went away", "the cause is what is reported");
        let error = bucket.put("a", &PutRequest::default(), size, generated(size - 1)).await.expect_err("the content is short");
        assert!(!error.is_transient(), "{error}");
        let error = bucket.put("a", &PutRequest::default(), size, generated(size + 1)).await.expect_err("the content is long");
        assert!(!error.is_transient(), "{error}");
    }
    assert_eq!(all(&*bucket, "").await, [], "{}: nothing of it is there", server.name());
}

async fn what_is_not_there(server: &dyn Server) {
    let bucket = server.bucket().await;
    server.switch(bucket.name(), Versioning::Enabled).await;
    not_found(bucket.head("nothing", None).await, "HEAD of nothing");
    not_found(bucket.get("nothing", None, None, None).await.map(|_| ()), "GET of nothing");
    not_found(bucket.set_tags("nothing", None, &Tags::new()).await, "tagging of nothing");
    let version = put(&*bucket, "a", "1").await;
    put(&*bucket, "a", "2").await;
    bucket.remove("a", Some(&version)).await.expect("purge");
    not_found(bucket.head("a", Some(&version)).await, "HEAD of a purged version");
    not_found(bucket.get("a", Some(&version), None, None).await.map(|_| ()), "GET of a purged version");
    not_found(bucket.tags("a", Some(&version)).await, "tags of a purged version");
    let error = bucket.head("nothing", None).await.expect_err("there is nothing");
    assert_eq!(error.to_string(), format!("s3://{}/nothing does not exist", bucket.name()));
}

async fn configuration(server: &dyn Server) {
    let bucket = server.bucket().await;
    let before = bucket.configuration().await.expect("configuration");
    assert!(!before.documents.contains_key("versioning"), "what was never set is absent: {before:?}");
    assert_eq!(before.unread, BTreeMap::new(), "{}", server.name());
    server.switch(bucket.name(), Versioning::Enabled).await;
    let after = bucket.configuration().await.expect("configuration");
    assert!(after.documents["versioning"].contains("<Status>Enabled</Status>"), "{after:?}");
}

async fn put(bucket: &dyn Bucket, object: &str, text: &str) -> String {
    let head = bucket.put(object, &PutRequest::default(), text.len() as u64, content(text)).await.expect("put");
    assert_eq!(head.size, text.len() as i64);
    head.version
}

async fn read(bucket: &dyn Bucket, object: &str, version: Option<&str>) -> String {
    let (_, content) = bucket.get(object, version, None, None).await.expect("get");
    text(content).await
}

async fn all(bucket: &dyn Bucket, prefix: &str) -> Vec<ListedVersion> {
    list(bucket, prefix, 1000).await
}

async fn list(bucket: &dyn Bucket, prefix: &str, limit: i32) -> Vec<ListedVersion> {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = bucket.list_versions(prefix, after.as_ref(), limit).await.expect("listing");
        assert!(page.versions.len() <= limit as usize, "a page holds no more than was asked for");
        listed.extend(page.versions);
        match page.next {
            None => return listed,
            next => after = next,
        }
    }
}

fn summary(versions: &[ListedVersion]) -> Vec<String> {
    let word = |said: bool, word: &'static str| if said { word } else { "" };
    let line = |version: &ListedVersion| {
        format!("{} {}{}{}", version.object, version.version, word(version.latest, " latest"), word(version.marker, " marker"))
    };
    versions.iter().map(line).collect()
}

fn not_found<T>(result: Result<T, BucketError>, what: &str) {
    match result {
        Err(BucketError::NotFound { .. }) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what} worked"),
    }
}

fn content(text: &str) -> Content {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    futures::stream::once(async move { Ok(bytes) }).boxed()
}

async fn text(content: Content) -> String {
    let pieces: Vec<Bytes> = content.try_collect().await.expect("the content");
    String::from_utf8(pieces.concat()).expect("the content is text")
}

/// Bytes that differ from their neighbours, in pieces that fit no part.
fn generated(size: u64) -> Content {
    const PIECE: u64 = 300_001;
    let piece = move |number: u64| {
        let bytes: Vec<u8> = (number * PIECE..((number + 1) * PIECE).min(size)).map(generated_byte).collect();
        Ok(Bytes::from(bytes))
    };
    futures::stream::iter((0..size.div_ceil(PIECE)).map(piece)).boxed()
}

fn generated_byte(index: u64) -> u8 {
    (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

async fn digest(mut content: Content) -> Result<pipeline::model::Digest, BucketError> {
    let mut hasher = Hasher::default();
    while let Some(piece) = content.try_next().await? {
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}
