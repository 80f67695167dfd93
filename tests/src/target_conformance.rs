//! What every [`Target`] must do, whatever it writes to.
//!
//! A test brings a [`Place`], an empty piece of storage with targets over it, and calls [`check`]. The cases know
//! nothing of directories or buckets; they look through the trait and through [`Place::read`], which sees what any other
//! reader of the storage would.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use pipeline::model::{Digest, Timestamp};
use pipeline::s3::{BucketError, Content, ObjectMetadata, Tags};
use pipeline::target::{ExistingObject, Occupied, Target, TargetError, WantedObject};

/// Storage that targets are made over. New ones are empty.
#[async_trait]
pub trait Place: Send + Sync {
    /// A target over this storage; each one stands for a process of its own, of which one runs at a time.
    fn target(&self) -> Arc<dyn Target>;

    /// The content of an object as another reader of the storage finds it.
    async fn read(&self, object: &str) -> Option<Vec<u8>>;

    /// A key within the target.
    fn key(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// Runs every case, each in a place of its own.
///
/// # Panics
/// Where the target does not do what it must.
pub async fn check(new_place: &(dyn Fn() -> Box<dyn Place> + Sync)) {
    opening_changes_nothing(&*new_place()).await;
    what_is_written_is_there(&*new_place()).await;
    writing_twice_is_writing_once(&*new_place()).await;
    what_differs_is_not_the_same(&*new_place()).await;
    a_new_process_finds_what_was_written(&*new_place()).await;
    what_only_creates_replaces_nothing(&*new_place()).await;
    writes_of_different_objects_go_in_parallel(&*new_place()).await;
    every_key_is_an_object_of_its_own(&*new_place()).await;
    a_content_that_breaks_off_leaves_what_was_there(&*new_place()).await;
    a_write_that_is_dropped_leaves_what_was_there(&*new_place()).await;
    removing_takes_one_object_and_is_repeatable(&*new_place()).await;
    a_survey_keeps_to_what_it_is_asked_for(&*new_place()).await;
    a_delete_marker_hides_the_object(&*new_place()).await;
    properties_that_cannot_be_sent_do_not_cost_the_content(&*new_place()).await;
}

/// Keys that file systems and headers have trouble with; all of them different objects.
pub fn hostile_names() -> Vec<String> {
    let long = "x".repeat(300);
    let deep = "d/".repeat(500) + "end";
    let names = [
        "plain",
        "a",
        "a/b",
        "a/b/c",
        "a/",
        "a//",
        "a//b",
        "/",
        "//",
        "/a",
        ".",
        "..",
        "../a",
        "../../etc/passwd",
        "./a",
        "a/.",
        "a/..",
        "a/../b",
        "..a",
        "...",
        "nul\0byte",
        "line\r\nbreak",
        "tab\tbell\u{7}",
        "space ",
        " space",
        "con",
        "nul",
        "a:b",
        "a\\b",
        "*?\"<>|",
        "Case",
        "case",
        "CASE",
        "caf\u{e9}",
        "cafe\u{301}",
        "%",
        "%%",
        "%=",
        "%+",
        "a%=",
        "a%3D",
        "a%2F",
        "a%",
        "100%",
        "%2E",
        "%2E.",
        ".hindsight",
        ".hindsight/objects.jsonl",
        ".hindsight/scratch/0",
        "日本語/🎉",
        "-rf",
        "~",
        "\u{202e}rtl",
        "\u{feff}bom",
    ];
    names.iter().map(|name| (*name).to_owned()).chain([long.clone(), long + "y", deep]).collect()
}

async fn opening_changes_nothing(place: &dyn Place) {
    let target = place.target();
    assert_eq!(target.open().await.unwrap(), Occupied::Empty);
    assert_eq!(target.open().await.unwrap(), Occupied::Empty);
    assert!(survey(&*target).await.is_empty());
    put(&*target, &place.key("a"), b"content").await;
    assert_eq!(target.open().await.unwrap(), Occupied::Holds);
}

async fn what_is_written_is_there(place: &dyn Place) {
    let target = opened(place).await;
    // Content of many pieces, and none at all.
    let large: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    for (name, content) in [("empty", &b""[..]), ("small", b"abc"), ("large/one", &large)] {
        let key = place.key(name);
        put(&*target, &key, content).await;
        assert_eq!(place.read(&key).await.as_deref(), Some(content), "{name}");
        let found = survey(&*target).await;
        assert_eq!(found[&key].size, content.len() as u64, "{name}");
        assert!(is_same(&*target, &wanted(&key, content), &found[&key]).await, "{name}");
    }
    assert_eq!(place.read(&place.key("nothing")).await, None);
}

async fn writing_twice_is_writing_once(place: &dyn Place) {
    let target = opened(place).await;
    let key = place.key("a");
    for content in [&b"one"[..], b"one", b"two", b"", b"two"] {
        put(&*target, &key, content).await;
        assert_eq!(place.read(&key).await.as_deref(), Some(content));
        assert_eq!(keys(&*target).await, BTreeSet::from([key.clone()]));
    }
}

async fn what_differs_is_not_the_same(place: &dyn Place) {
    let target = opened(place).await;
    let key = place.key("a");
    let object = wanted(&key, b"content");
    put_as(&*target, &object, b"content").await;
    let existing = survey(&*target).await.remove(&key).unwrap();
    // What was written is, by the etag that the target states, what is wanted.
    let object = WantedObject { etag: existing.etag.clone(), ..object };
    assert!(target.is_same(&object, &existing).await.unwrap());
    let mut metadata = object.metadata.clone();
    metadata.user.insert("color".to_owned(), "red".to_owned());
    let other_content = wanted(&key, b"CONTENT");
    let differing = [
        ("tags", WantedObject { tags: Tags::new(), ..object.clone() }),
        ("tag values", WantedObject { tags: Tags::from([("team".to_owned(), "b".to_owned())]), ..object.clone() }),
        ("metadata", WantedObject { metadata, ..object.clone() }),
        ("size", WantedObject { size: 8, ..object.clone() }),
        ("content", WantedObject { etag: Some("0123456789abcdef0123456789abcdef".to_owned()), ..other_content }),
    ];
    for (what, differing) in differing {
        assert!(!target.is_same(&differing, &existing).await.unwrap(), "{what}");
    }
    // What is not there any more is not the same either.
    target.remove(&key).await.unwrap();
    assert!(!target.is_same(&object, &existing).await.unwrap());
}

async fn a_new_process_finds_what_was_written(place: &dyn Place) {
    let key = place.key("dir/a");
    put(&*opened(place).await, &key, b"content").await;
    let target = place.target();
    assert_eq!(target.open().await.unwrap(), Occupied::Holds);
    let found = survey(&*target).await;
    assert!(is_same(&*target, &wanted(&key, b"content"), &found[&key]).await);
    put(&*target, &place.key("dir/b"), b"more").await;
    assert_eq!(keys(&*target).await.len(), 2);
}

async fn what_only_creates_replaces_nothing(place: &dyn Place) {
    let target = opened(place).await;
    let key = place.key("dir/a");
    let creating = |bytes: &[u8]| WantedObject { creates: true, ..wanted(&key, bytes) };
    put_as(&*target, &creating(b"first"), b"first").await;
    // An attempt whose answer was lost comes again.
    put_as(&*target, &creating(b"first"), b"first").await;
    for other in [&b"other"[..], b"longer than the first", b""] {
        let refused = target.write(&creating(other), content(other)).await.expect_err("something has the name");
        assert!(matches!(&refused, TargetError::Exists { object, .. } if *object == key), "{refused}");
        assert!(!refused.is_transient());
        assert_eq!(place.read(&key).await.as_deref(), Some(&b"first"[..]));
    }
    target.remove(&key).await.unwrap();
    put_as(&*target, &creating(b"second"), b"second").await;
    assert_eq!(place.read(&key).await.as_deref(), Some(&b"second"[..]));
    assert_eq!(keys(&*target).await, BTreeSet::from([key.clone()]));
}

async fn writes_of_different_objects_go_in_parallel(place: &dyn Place) {
    let target = opened(place).await;
    // Some are where others need a directory.
    let names: Vec<String> = (0..24).map(|number| place.key(&"n/".repeat(number % 6)) + &format!("f{}", number / 6)).collect();
    let names: Vec<String> = names.into_iter().chain((1..6).map(|depth| place.key(&vec!["n"; depth].join("/")))).collect();
    join_all(names.iter().map(|key| put(&*target, key, key.as_bytes()))).await;
    for key in &names {
        assert_eq!(place.read(key).await.as_deref(), Some(key.as_bytes()), "{key}");
    }
    assert_eq!(keys(&*target).await, names.into_iter().collect());
}

async fn every_key_is_an_object_of_its_own(place: &dyn Place) {
    // In both orders: an object before the directory of its name, and after it.
    for backwards in [false, true] {
        let target = opened(place).await;
        let mut names = hostile_names();
        if backwards {
            names.reverse();
        }
        let keys_wanted: Vec<String> = names.iter().map(|name| place.key(name)).collect();
        for key in &keys_wanted {
            put(&*target, key, key.as_bytes()).await;
        }
        for key in &keys_wanted {
            assert_eq!(place.read(key).await.as_deref(), Some(key.as_bytes()), "{key:?}");
        }
        let found = survey(&*target).await;
        assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), keys_wanted.iter().cloned().collect());
        for key in &keys_wanted {
            assert!(is_same(&*target, &wanted(key, key.as_bytes()), &found[key]).await, "{key:?}");
        }
        for key in &keys_wanted {
            target.remove(key).await.unwrap();
            assert_eq!(place.read(key).await, None, "{key:?}");
        }
        assert!(survey(&*target).await.is_empty());
    }
}

async fn a_content_that_breaks_off_leaves_what_was_there(place: &dyn Place) {
    let target = opened(place).await;
    let (old, new) = (place.key("old"), place.key("new"));
    put(&*target, &old, b"before").await;
    let piece = || Ok(Bytes::from_static(b"12345"));
    let broken = || Err(BucketError::Transient { what: "read".to_owned(), reason: "broken".to_owned() });
    // Of ten bytes that are wanted.
    let endings = [("breaks off", 1, true), ("too short", 1, false), ("nothing", 0, false), ("too long", 3, false)];
    for (what, pieces, breaks) in endings {
        for key in [&old, &new] {
            let mut content: Vec<Result<Bytes, BucketError>> = (0..pieces).map(|_| piece()).collect();
            content.extend(breaks.then(broken));
            let wanted = wanted(key, b"1234512345");
            let error = target.write(&wanted, stream::iter(content).boxed()).await.map(drop).expect_err(what);
            assert!(matches!(error, TargetError::Object { .. }), "{what}: {error}");
            assert_eq!(error.is_transient(), breaks, "{what}: {error}");
        }
        assert_eq!(place.read(&old).await.as_deref(), Some(&b"before"[..]), "{what}");
        assert_eq!(keys(&*target).await, BTreeSet::from([old.clone()]), "{what}");
    }
}

async fn a_write_that_is_dropped_leaves_what_was_there(place: &dyn Place) {
    let target = opened(place).await;
    let key = place.key("a");
    put(&*target, &key, b"before").await;
    let wanted = WantedObject { size: 10, ..wanted(&key, b"1234512345") };
    let endless = stream::once(async { Ok(Bytes::from_static(b"12345")) }).chain(stream::pending()).boxed();
    {
        let mut write = pin!(target.write(&wanted, endless));
        for _ in 0..10 {
            let polled = write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Pending));
        }
    }
    assert_eq!(place.read(&key).await.as_deref(), Some(&b"before"[..]));
    assert_eq!(keys(&*target).await, BTreeSet::from([key]));
}

async fn removing_takes_one_object_and_is_repeatable(place: &dyn Place) {
    let target = opened(place).await;
    let names = ["a", "a/b", "a/b/c", "b"].map(|name| place.key(name));
    for key in &names {
        put(&*target, key, b"x").await;
    }
    for (removed, key) in names.iter().enumerate() {
        for _ in 0..2 {
            target.remove(key).await.unwrap();
            assert_eq!(keys(&*target).await, names[removed + 1..].iter().cloned().collect(), "{key}");
        }
    }
    target.remove(&place.key("never/there")).await.unwrap();
}

async fn a_survey_keeps_to_what_it_is_asked_for(place: &dyn Place) {
    let target = opened(place).await;
    for name in ["a/1", "a/2", "b/1"] {
        put(&*target, &place.key(name), b"x").await;
    }
    let prefix = place.key("a/");
    let found = target.survey(&|key: &str| key.starts_with(&prefix)).await.unwrap().objects;
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [place.key("a/1"), place.key("a/2")]);
    assert!(target.survey(&|_: &str| false).await.unwrap().objects.is_empty());
}

async fn a_delete_marker_hides_the_object(place: &dyn Place) {
    let target = opened(place).await;
    let key = place.key("a");
    put(&*target, &key, b"before").await;
    let marker = WantedObject { marker: true, size: 0, ..wanted(&key, b"") };
    put_as(&*target, &marker, b"").await;
    assert_eq!(place.read(&key).await, None);
    assert!(survey(&*target).await.is_empty());
    put(&*target, &key, b"after").await;
    assert_eq!(place.read(&key).await.as_deref(), Some(&b"after"[..]));
}

async fn properties_that_cannot_be_sent_do_not_cost_the_content(place: &dyn Place) {
    let target = opened(place).await;
    let key = place.key("a");
    let user = [("evil".to_owned(), "x\r\nx-amz-acl: public-read".to_owned()), ("long".to_owned(), "x".repeat(5_000))];
    let metadata = ObjectMetadata { content_type: Some("a\nb".to_owned()), user: user.into(), ..ObjectMetadata::default() };
    let object = WantedObject { metadata, storage_class: Some("DEEP_ARCHIVE".to_owned()), ..wanted(&key, b"content") };
    put_as(&*target, &object, b"content").await;
    assert_eq!(place.read(&key).await.as_deref(), Some(&b"content"[..]));
    // As far as the target can have it, it is what was wanted: a second restore writes nothing.
    let found = survey(&*target).await;
    assert!(is_same(&*target, &object, &found[&key]).await);
}

/// An object as a restore wants it, with properties of each kind.
pub fn wanted(key: &str, content: &[u8]) -> WantedObject {
    WantedObject {
        object: key.to_owned(),
        version: "v1".to_owned(),
        marker: false,
        at: Timestamp::from_micros(1_787_400_007_123_456),
        size: content.len() as u64,
        etag: None,
        digest: Some(Digest::of(content).to_string()),
        checksums: Vec::new(),
        storage_class: Some("STANDARD".to_owned()),
        metadata: ObjectMetadata { content_type: Some("text/plain".to_owned()), ..ObjectMetadata::default() },
        tags: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        acl: None,
        creates: false,
    }
}

/// A content in pieces of odd sizes.
pub fn content(bytes: &[u8]) -> Content {
    let pieces: Vec<_> = bytes.chunks(77_777).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

async fn opened(place: &dyn Place) -> Arc<dyn Target> {
    let target = place.target();
    target.open().await.unwrap();
    target
}

async fn put(target: &dyn Target, key: &str, bytes: &[u8]) {
    put_as(target, &wanted(key, bytes), bytes).await;
}

async fn put_as(target: &dyn Target, wanted: &WantedObject, bytes: &[u8]) {
    let written = target.write(wanted, content(bytes)).await.unwrap_or_else(|error| panic!("{error}"));
    // A dry run said as much.
    assert_eq!(written.requests, target.requests(Some(wanted)), "{:?}", wanted.object);
}

async fn survey(target: &dyn Target) -> BTreeMap<String, ExistingObject> {
    target.survey(&|_: &str| true).await.unwrap().objects
}

async fn keys(target: &dyn Target) -> BTreeSet<String> {
    survey(target).await.into_keys().collect()
}

/// Whether what is there is what is wanted by a source that states the same etag.
async fn is_same(target: &dyn Target, wanted: &WantedObject, existing: &ExistingObject) -> bool {
    // Recorded properties include the source's etag, so a target without etags is asked without one.
    let wanted = WantedObject { etag: existing.etag.clone(), ..wanted.clone() };
    target.is_same(&wanted, existing).await.unwrap()
}
