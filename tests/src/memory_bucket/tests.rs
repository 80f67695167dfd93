//! The bucket in memory, where it is more than the conformance suite asks.

use super::*;
use futures::FutureExt;
use pipeline::model::Sequencer;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

struct Hand(AtomicI64);

#[async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(250_000, Ordering::Relaxed))
    }
    async fn sleep(&self, _: Duration) {}
}

fn bucket(settings: impl FnOnce(&mut Settings), hook: Arc<dyn Hook>) -> MemoryBucket {
    let mut aws = Settings::aws("photos", 7);
    settings(&mut aws);
    MemoryBucket::new(aws, Arc::new(Hand(AtomicI64::new(1_000_000_000))), hook)
}

fn put(bucket: &MemoryBucket, object: &str, content: &'static str) -> Happened {
    bucket.put_object(object, &PutRequest::default(), Bytes::from_static(content.as_bytes())).expect("it is a legal key")
}

fn ids(bucket: &MemoryBucket) -> Vec<String> {
    bucket.versions().into_iter().map(|version| version.version).collect()
}

#[test]
fn an_upload_in_parts_stands_where_it_began_or_where_it_was_completed() {
    for order in [MultipartOrder::Begun, MultipartOrder::Completed] {
        let bucket = bucket(|settings| settings.multipart_order = order, Arc::new(NoHook));
        bucket.set_versioning(Versioning::Enabled);
        let upload = bucket.begin_upload("a", &PutRequest::default()).unwrap();
        let single = put(&bucket, "a", "1");
        assert_eq!(ids(&bucket).concat(), single.version);
        let parts = bucket.complete_upload(upload, Bytes::from_static(b"2")).unwrap();
        assert!(parts.modified < single.modified && parts.at > single.at);
        assert_eq!(bucket.complete_upload(upload, Bytes::new()), None);
        let (first, second) = if order == MultipartOrder::Begun { (&single, &parts) } else { (&parts, &single) };
        assert_eq!(ids(&bucket), [first.version.clone(), second.version.clone()]);
        assert!(Sequencer::parse(&first.sequencer) > Sequencer::parse(&second.sequencer));
    }
}

#[test]
fn a_seed_repeats_its_ids_and_another_does_not() {
    let run = |seed| {
        let bucket = bucket(|settings| settings.seed = seed, Arc::new(NoHook));
        bucket.set_versioning(Versioning::Enabled);
        put(&bucket, "a", "1")
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).version, run(2).version);
}

#[test]
fn keys_are_listed_by_directory_where_the_server_does_so() {
    let bucket = bucket(|settings| settings.key_order = KeyOrder::Directories, Arc::new(NoHook));
    for key in ["a!", "a/1", "b"] {
        put(&bucket, key, "");
    }
    let keys: Vec<String> = bucket.versions().into_iter().map(|version| version.object).collect();
    assert_eq!(keys, ["a/1", "a!", "b"]);
}

#[test]
fn a_listing_goes_on_where_it_stopped_even_if_that_version_was_purged_meanwhile() {
    let bucket = bucket(|_| {}, Arc::new(NoHook));
    bucket.set_versioning(Versioning::Enabled);
    let versions: Vec<Happened> = (0..4).map(|_| put(&bucket, "a", "x")).collect();
    let page = bucket.list_versions("", None, 2).now_or_never().unwrap().unwrap();
    bucket.purge("a", &versions[2].version);
    let page = bucket.list_versions("", page.next.as_ref(), 2).now_or_never().unwrap().unwrap();
    let ids: Vec<&str> = page.versions.iter().map(|version| version.version.as_str()).collect();
    assert_eq!(ids, [versions[1].version.as_str(), versions[0].version.as_str()]);
}

struct LoseReplies;

#[async_trait]
impl Hook for LoseReplies {
    async fn after(&self, call: &Call) -> Result<(), BucketError> {
        Err(BucketError::Transient { what: format!("{:?}", call.operation), reason: "the reply was lost".to_owned() })
    }
}

struct FailBefore;

#[async_trait]
impl Hook for FailBefore {
    async fn before(&self, call: &Call) -> Result<(), BucketError> {
        Err(BucketError::Transient { what: format!("{:?}", call.operation), reason: "the request was lost".to_owned() })
    }
}

#[test]
fn a_hook_decides_whether_a_failed_request_was_carried_out() {
    for (hook, carried_out) in [(Arc::new(LoseReplies) as Arc<dyn Hook>, 1), (Arc::new(FailBefore), 0)] {
        let bucket = bucket(|_| {}, hook);
        let content = futures::stream::once(async { Ok(Bytes::from_static(b"x")) }).boxed();
        let put = bucket.put("a", &PutRequest::default(), 1, content).now_or_never().expect("nothing waits");
        assert!(put.is_err_and(|error| error.is_transient()));
        assert_eq!(bucket.versions().len(), carried_out);
    }
}

#[test]
fn an_archived_version_cannot_be_read_and_says_why() {
    let bucket = bucket(|_| {}, Arc::new(NoHook));
    put(&bucket, "a", "1");
    bucket.set_class("a", None, "GLACIER").unwrap();
    let error = bucket.get("a", None, None, None).now_or_never().unwrap().map(|_| ()).unwrap_err();
    assert!(matches!(error, BucketError::Archived { ref class, .. } if class == "GLACIER"), "{error}");
}
