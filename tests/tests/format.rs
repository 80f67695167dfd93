//! docs/format.md is enough: a vault is restored by a program that imports nothing of ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use handlers::capture::Capture;
use handlers::compact::compact;
use handlers::copying::Copying;
use handlers::reconcile::{Quiet, reconcile};
use object_store::local::LocalFileSystem;
use pipeline::base::plan::Policy;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::s3::{Bucket, BucketError, CopySource, ObjectMetadata, PutRequest, Versioning};
use pipeline::source::s3_read::Reader;
use pipeline::vault::Vault;
use pipeline::vault::whole::Copier;
use tests::memory_bucket::{MemoryBucket, NoHook, Settings};

/// A clock that the test moves.
struct Hands(AtomicI64);

#[async_trait]
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        self.0.fetch_add(duration.as_micros() as i64, Ordering::Relaxed);
    }
}

fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root.join(".cache/tools"), PathBuf::from).join("s3/bin/python")
}

/// Runs the independent program.
fn program(vault: &Path, at: Timestamp, versions: bool, out: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("format/restore.py");
    let mut command = Command::new(python());
    command.arg(script).arg(vault).arg("bucket-photos").arg(at.micros().to_string()).arg(out);
    command.args(versions.then_some("--versions"));
    command.output().expect("python with pyarrow: run ./dev setup")
}

/// What the independent program finds: content by (key, version), and the order in which it lists versions.
fn restored(vault: &Path, at: Timestamp, versions: bool) -> Vec<(String, Option<Vec<u8>>, serde_json::Value)> {
    let out = tempfile::tempdir().expect("a temporary folder");
    let output = program(vault, at, versions, out.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let read = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        let content = entry["file"].as_str().map(|file| std::fs::read(out.path().join(file)).expect("the file it names"));
        (entry["object"].as_str().expect("a key").to_owned(), content, entry)
    };
    text.lines().map(read).collect()
}

#[tokio::test]
async fn a_program_of_nobody_restores_two_instants_with_versions_and_packed_bodies() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("a folder").with_fsync(true);
    let vault = Vault::new(Arc::new(store), "");
    let clock = Arc::new(Hands(AtomicI64::new(1_787_400_000_000_000)));
    let tick = |seconds: u64| clock.0.fetch_add(seconds as i64 * 1_000_000, Ordering::Relaxed);
    let bucket = MemoryBucket::new(Settings::aws("photos", 7), clock.clone(), Arc::new(NoHook));
    bucket.set_versioning(Versioning::Enabled);
    let put = |key: &str, content: &[u8], tags: &[(&str, &str)]| {
        let metadata = ObjectMetadata { content_type: Some("image/jpeg".to_owned()), ..ObjectMetadata::default() };
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = PutRequest { metadata, tags, ..PutRequest::default() };
        bucket.put_object(key, &request, Bytes::copy_from_slice(content)).expect("the bucket takes it");
    };
    let large: Vec<u8> = (0..20_000_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 11) as u8).collect();

    put("a b/ü.txt", b"first", &[("team", "red")]);
    put("large", &large, &[]);
    put("empty", b"", &[]);
    put("text", "again and again ".repeat(1_000).as_bytes(), &[]);
    tick(5);
    let reader = Reader::new(Arc::new(bucket.undisturbed()) as Arc<dyn Bucket>, Versioning::Enabled, true);
    let resource = ResourceId::bucket("photos").expect("a name");
    let mut capture = Capture::open(vault.clone(), resource.clone(), reader, clock.clone()).await.expect("an empty vault");
    reconcile(&mut capture, &Quiet, None).await.expect("a first scan");
    tick(5);
    let first = clock.now();
    tick(5);

    put("a b/ü.txt", b"second", &[]);
    bucket.delete("text").expect("it is there");
    tick(5);
    reconcile(&mut capture, &Quiet, None).await.expect("a second listing");
    compact(&vault, &resource, clock.as_ref(), Policy { base_now: true, ..Policy::default() }).await.expect("a base");
    tick(5);
    put("new", b"third", &[]);
    tick(5);
    reconcile(&mut capture, &Quiet, None).await.expect("a third listing");
    let second = clock.now();

    let contents = |at, versions| -> Vec<(String, Option<Vec<u8>>)> {
        restored(folder.path(), at, versions).into_iter().map(|(key, content, _)| (key, content)).collect()
    };
    let text = "again and again ".repeat(1_000).into_bytes();
    let expected = |pairs: &[(&str, &[u8])]| -> Vec<(String, Option<Vec<u8>>)> {
        pairs.iter().map(|(key, content)| ((*key).to_owned(), Some(content.to_vec()))).collect()
    };
    assert_eq!(contents(first, false), expected(&[("a b/ü.txt", b"first"), ("empty", b""), ("large", &large), ("text", &text)]));
    assert_eq!(contents(second, false), expected(&[("a b/ü.txt", b"second"), ("empty", b""), ("large", &large), ("new", b"third")]));

    let all = restored(folder.path(), second, true);
    let of = |key: &str| {
        all.iter()
            .filter(|(object, ..)| object == key)
            .map(|(_, content, entry)| (content.clone(), entry["marker"] == true))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("a b/ü.txt"), [(Some(b"first".to_vec()), false), (Some(b"second".to_vec()), false)]);
    assert_eq!(of("text"), [(Some(text.clone()), false), (None, true)]);
    let first_of = |at| restored(folder.path(), at, false).into_iter().next().expect("an object").2;
    let properties: BTreeMap<&str, serde_json::Value> =
        BTreeMap::from([("tags", first_of(first)["tags"].clone()), ("metadata", first_of(first)["metadata"].clone())]);
    assert_eq!(properties["tags"], serde_json::json!({"team": "red"}));
    assert_eq!(properties["metadata"], serde_json::json!({"content_type": "image/jpeg"}));
}

/// The server that has both, as far as a directory and a bucket in memory can be had by one.
struct SameServer {
    bucket: MemoryBucket,
    vault: Vault,
}

#[async_trait]
impl Copier for SameServer {
    async fn copy(&self, source: &CopySource, key: &str) -> Result<(), BucketError> {
        let content = self.bucket.content(&source.object, source.version.as_deref().expect("a version")).expect("its content");
        self.vault.create(key, content).await.expect("a directory takes it");
        Ok(())
    }
}

#[tokio::test]
async fn a_program_of_nobody_restores_contents_that_the_server_copied() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("a folder").with_fsync(true);
    let vault = Vault::new(Arc::new(store), "");
    let clock = Arc::new(Hands(AtomicI64::new(1_787_400_000_000_000)));
    let settings = Settings { single_bytes_max: 100_000, ..Settings::aws("photos", 7) };
    let bucket = MemoryBucket::new(settings, clock.clone(), Arc::new(NoHook)).undisturbed();
    bucket.set_versioning(Versioning::Enabled);
    let large: Vec<u8> = (0..250_001u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    bucket.put_object("one piece", &PutRequest::default(), Bytes::copy_from_slice(&large[1..])).expect("the bucket takes it");
    let upload = bucket.begin_upload("parts/ü", &PutRequest::default()).expect("the bucket takes it");
    bucket.complete_upload(upload, Bytes::copy_from_slice(&large)).expect("it was begun");
    bucket.put_object("small", &PutRequest::default(), Bytes::from_static(b"small")).expect("the bucket takes it");

    let reader = Reader::new(Arc::new(bucket.clone()) as Arc<dyn Bucket>, Versioning::Enabled, true);
    let resource = ResourceId::bucket("photos").expect("a name");
    let copying = Copying::new(Arc::new(SameServer { bucket, vault: vault.clone() }), 1_000);
    let capture = Capture::open(vault.clone(), resource.clone(), reader, clock.clone()).await.expect("an empty vault");
    let mut capture = capture.with_copying(Some(copying));
    clock.0.fetch_add(5_000_000, Ordering::Relaxed);
    reconcile(&mut capture, &Quiet, None).await.expect("a first scan");
    assert_eq!((capture.copies().copied, capture.copies().copied_bytes), (2, 500_001));

    let restored = restored(folder.path(), clock.now(), false).into_iter().map(|(key, content, _)| (key, content.expect("a content")));
    let expected = [("one piece", &large[1..]), ("parts/ü", &large[..]), ("small", b"small")];
    assert!(restored.eq(expected.map(|(key, content)| (key.to_owned(), content.to_vec()))));

    let whole = vault.list("body").await.expect("a listing");
    assert_eq!(whole.len(), 2);
    for file in whole {
        let path = folder.path().join(&file.path);
        let content = std::fs::read(&path).expect("a file");
        let mut damaged = content.clone();
        damaged[200_000] ^= 1;
        std::fs::write(&path, damaged).expect("it can be damaged");
        let refused = program(folder.path(), clock.now(), false, &folder.path().join("out"));
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && errors.contains("is damaged"), "{}: {errors}", file.path);
        std::fs::write(&path, content).expect("it can be mended");
    }
}

#[tokio::test]
async fn the_independent_program_notices_damage_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log/v1/res=bucket-photos/date=2026-08-22/hour=11");
    std::fs::create_dir_all(&log).expect("a folder");
    let name = format!("{:020}-{:020}-{:020}-{}.parquet", 1, 2, 3, "0".repeat(32));
    std::fs::write(log.join(name), b"PAR1 but not really").expect("a file");
    let output = program(folder.path(), Timestamp::from_micros(9), false, &folder.path().join("out"));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is damaged"));
}
