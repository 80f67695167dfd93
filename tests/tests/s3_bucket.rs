//! Every implementation of `Bucket` passes one suite: the bucket in memory, and the SDK against real servers. What no
//! server does on demand (a body that stalls, an error with status 200) comes from a scripted one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    AsyncSleep, BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, Sleep,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pipeline::model::{Clock, Timestamp};
use pipeline::s3::aws::AwsBucket;
use pipeline::s3::{Bucket, BucketError, Content, PutRequest, Versioning};
use tests::bucket_conformance::{Quirks, Server, conforms};
use tests::memory_bucket::{MemoryBucket, MemoryServer, NoHook, Settings};
use tests::services::{self, AwsEmulator, CephRgw, SeaweedFs, ServiceError};

#[test]
fn the_bucket_in_memory_conforms_and_needs_no_runtime() {
    #[derive(Default)]
    struct Memory {
        server: MemoryServer,
        count: AtomicU64,
    }

    #[async_trait]
    impl Server for Memory {
        fn name(&self) -> &str {
            "memory"
        }
        fn quirks(&self) -> Quirks {
            Quirks::default()
        }
        async fn bucket(&self) -> Arc<dyn Bucket> {
            let name = format!("bucket-{}", self.count.fetch_add(1, Ordering::Relaxed));
            let bucket = MemoryBucket::new(Settings::aws(&name, 7), Arc::new(Ticks(AtomicI64::new(0))), Arc::new(NoHook));
            Arc::new(self.server.adopt(bucket))
        }
        async fn switch(&self, bucket: &str, versioning: Versioning) {
            self.server.find(bucket).expect("it was made here").set_versioning(versioning);
        }
    }

    /// A clock that moves a tenth of a second at each look.
    struct Ticks(AtomicI64);

    #[async_trait]
    impl Clock for Ticks {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(1_787_400_007_000_000 + self.0.fetch_add(100_000, Ordering::Relaxed))
        }
        async fn sleep(&self, _: Duration) {}
    }

    let memory = Memory::default();
    let mut suite = pin!(conforms(&memory));
    let mut context = Context::from_waker(Waker::noop());
    while suite.as_mut().poll(&mut context).is_pending() {}
}

/// Its keys are paths of a file system, and its listings are XML without an encoding for what XML cannot hold.
const SEAWEEDFS: Quirks = Quirks {
    confused_by_suspension: true,
    puts_over: false,
    keys_altered: &["control\u{1}\u{1f}", "/leading", "trailing/", "two//slashes", "../up", "a/../b", "./here", "back\\slash"],
    pages_lose_keys: true,
    takes_longer_keys: false,
    metadata_ascii_only: false,
    empty_metadata_lost: true,
    copies_without_crc: false,
    parts_untold: false,
    copies_any_etag: false,
    copies_decoded_twice: false,
};

#[tokio::test]
async fn seaweedfs_conforms() {
    let server = SeaweedFs::shared().expect("SeaweedFS starts");
    conforms(&Real::new("seaweedfs", server, SEAWEEDFS, |config| config)).await;
}

#[tokio::test]
async fn seaweedfs_conforms_without_checksums() {
    let server = SeaweedFs::shared().expect("SeaweedFS starts");
    conforms(&Real::new("seaweedfs without checksums", server, SEAWEEDFS, without_checksums)).await;
}

#[tokio::test]
async fn the_aws_emulator_conforms() {
    let server = AwsEmulator::shared().expect("the emulator starts");
    let quirks = Quirks { takes_longer_keys: true, copies_without_crc: true, ..Quirks::default() };
    // It takes the CRC of a whole object of parts for wrong.
    conforms(&Real::new("emulator", server, quirks, without_checksums)).await;
}

#[tokio::test]
async fn ceph_conforms() {
    let server = match CephRgw::start() {
        Err(ServiceError::Missing { reason, .. }) => return println!("ceph skipped: {reason}"),
        server => server.expect("Ceph starts"),
    };
    let quirks = Quirks {
        puts_over: true,
        parts_untold: true,
        copies_without_crc: true,
        copies_any_etag: true,
        copies_decoded_twice: true,
        ..Quirks::default()
    };
    conforms(&Real::new("ceph", &server, quirks, without_checksums)).await;
}

#[tokio::test]
async fn wrong_keys_are_denied_and_a_missing_bucket_is_named() {
    let server = SeaweedFs::shared().expect("SeaweedFS starts");
    let wrong = Credentials::new(server.access_key(), "wrong", None, None, "test");
    let denied = AwsBucket::new(Client::from_conf(config(server).credentials_provider(wrong).build()), "photos");
    let error = denied.list_versions("", None, 10).await.expect_err("the key is wrong");
    assert!(matches!(error, BucketError::Denied { .. }), "{error}");
    let missing = AwsBucket::new(Client::from_conf(config(server).build()), "no-such-bucket");
    let error = missing.list_versions("", None, 10).await.expect_err("there is no such bucket");
    assert!(matches!(error, BucketError::NotFound { .. }), "{error}");
    let error = missing.configuration().await.expect_err("there is no such bucket");
    assert_eq!(error.to_string(), "s3://no-such-bucket does not exist");
    let nowhere = config(server).endpoint_url("http://127.0.0.1:1").retry_config(RetryConfig::disabled()).build();
    let error = AwsBucket::new(Client::from_conf(nowhere), "photos").versioning().await.expect_err("nobody listens");
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_short_body_is_transient_and_never_a_short_success() {
    let script = Script::start(|_, _| Answer::raw("200 OK", &[("Content-Length", "10"), LAST_MODIFIED, ("ETag", "\"e\"")], b"12345"));
    let (_, content) = script.bucket().get("a", None, None, None).await.expect("the head is fine");
    let error = content.try_collect::<Vec<Bytes>>().await.expect_err("half of it is missing");
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_stalled_body_is_transient() {
    let script = Script::start(|_, _| Answer {
        stall: true,
        ..Answer::raw("200 OK", &[("Content-Length", "10"), LAST_MODIFIED, ("ETag", "\"e\"")], b"12345")
    });
    let (_, mut content) = script.bucket().get("a", None, None, None).await.expect("the head is fine");
    assert_eq!(content.try_next().await.expect("the first half"), Some(Bytes::from_static(b"12345")));
    let error = content.try_next().await.expect_err("nothing comes any more");
    assert_eq!(error.to_string(), "get of s3://photos/a: no byte came for 120 seconds, after 5 of 10 bytes");
    assert!(content.next().await.is_none(), "an error ends the content");
}

#[tokio::test]
async fn an_answer_with_another_range_is_refused() {
    let script = Script::start(|_, _| Answer::raw("200 OK", &[("Content-Length", "10"), LAST_MODIFIED, ("ETag", "\"e\"")], b"1234567890"));
    let error = script.bucket().get("a", None, Some(2..5), None).await.map(|_| ()).expect_err("the whole object came");
    assert!(matches!(error, BucketError::Other { .. }), "{error}");
}

#[tokio::test]
async fn an_archived_object_and_a_busy_server_are_told_apart() {
    let script = Script::start(|_, _| {
        Answer::xml(
            "403 Forbidden",
            "<Error><Code>InvalidObjectState</Code><Message>m</Message><StorageClass>DEEP_ARCHIVE</StorageClass></Error>",
        )
    });
    let error = script.bucket().get("a", Some("v"), None, None).await.map(|_| ()).expect_err("it is archived");
    assert_eq!(error.to_string(), "s3://photos/a (version v) is archived in storage class DEEP_ARCHIVE: restore it from the archive first");
    let script = Script::start(|_, _| Answer::xml("503 Slow Down", "<Error><Code>SlowDown</Code><Message>m</Message></Error>"));
    assert!(script.bucket().list_versions("", None, 1).await.expect_err("it is busy").is_transient());
    let script = Script::start(|_, _| Answer::xml("200 OK", "<ListVersionsResult><Version><Key>a</Key>"));
    assert!(script.bucket().list_versions("", None, 1).await.is_err(), "a listing that is cut off is no listing");
}

#[tokio::test]
async fn a_setting_that_is_denied_is_not_taken_for_absent() {
    let script = Script::start(|_, path| match path {
        path if path.contains("?policy") => Answer::xml("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>m</Message></Error>"),
        path if path.contains("?tagging") => {
            Answer::xml("200 OK", "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>")
        }
        _ => Answer::xml("404 Not Found", "<Error><Code>NoSuchConfiguration</Code><Message>m</Message></Error>"),
    });
    let configuration = script.bucket().configuration().await.expect("configuration");
    assert_eq!(configuration.documents.keys().collect::<Vec<_>>(), ["tagging"]);
    assert_eq!(configuration.documents["tagging"], "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>");
    let reason = "policy of s3://photos is not allowed: the server answered 403 AccessDenied: m";
    assert_eq!(configuration.unread, BTreeMap::from([("policy".to_owned(), reason.to_owned())]));
}

#[tokio::test]
async fn whether_a_wrong_sha256_is_taken_is_told_by_the_answer_to_one() {
    let bad = |code: &str| Answer::xml("400 Bad Request", &format!("<Error><Code>{code}</Code><Message>m</Message></Error>"));
    for code in ["BadDigest", "XAmzContentChecksumMismatch", "InvalidRequest"] {
        let answer = bad(code);
        assert!(!Script::start(move |_, _| answer.clone()).bucket().takes_wrong_sha256("a").await.expect("it is refused"), "{code}");
    }
    let script = Script::start(|_, _| Answer::raw("200 OK", &[("Content-Length", "0"), ("ETag", "\"e\"")], b""));
    assert!(script.bucket().takes_wrong_sha256("a").await.expect("it is taken"));
    let script = Script::start(|_, _| Answer::xml("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>m</Message></Error>"));
    let error = script.bucket().takes_wrong_sha256("a").await.expect_err("that says nothing of it");
    assert!(error.to_string().starts_with("put of s3://photos/a is not allowed"), "{error}");
}

const PART_BYTES: u64 = 8 << 20;

#[tokio::test]
async fn a_failed_part_ends_the_upload_and_is_never_completed() {
    let script = Script::start(|method, path| match (method, path) {
        ("POST", path) if path.contains("uploads") => begun(),
        ("PUT", path) if path.contains("partNumber=2") => Answer::xml("400 Bad Request", "<Error><Code>BadDigest</Code></Error>"),
        ("PUT", _) => Answer::raw("200 OK", &[("Content-Length", "0"), ("ETag", "\"p\"")], b""),
        _ => Answer::raw("204 No Content", &[], b""),
    });
    let error = script.put_zeros(PART_BYTES + 1).await.expect_err("a part failed");
    assert!(error.is_transient(), "{error}");
    let requests = script.requests();
    assert!(requests.last().is_some_and(|last| last.starts_with("DELETE")), "it was aborted: {requests:?}");
    assert!(!requests.iter().any(|request| request.starts_with("POST") && request.contains("uploadId")), "{requests:?}");
}

#[tokio::test]
async fn an_error_with_status_200_is_an_error() {
    let script = Script::start(|method, path| match (method, path) {
        ("POST", path) if path.contains("uploads") => begun(),
        ("POST", _) => Answer::xml("200 OK", "<Error><Code>InternalError</Code><Message>m</Message></Error>"),
        ("PUT", _) => Answer::raw("200 OK", &[("Content-Length", "0"), ("ETag", "\"p\"")], b""),
        _ => Answer::raw("204 No Content", &[], b""),
    });
    let error = script.put_zeros(PART_BYTES + 1).await.expect_err("the completion failed");
    assert!(error.is_transient() && error.to_string().contains("InternalError"), "{error}");
    assert!(script.requests().last().is_some_and(|last| last.starts_with("DELETE")));
}

#[tokio::test]
async fn an_object_of_another_size_than_was_uploaded_is_an_error() {
    let script =
        Script::start(|method, path| upload_that_ends_in(method, path, completed(), &[("Content-Length", "5"), ("ETag", "\"e\"")]));
    let error = script.put_zeros(PART_BYTES + 1).await.expect_err("the size differs");
    assert!(error.to_string().ends_with("8388609 bytes were uploaded and the object has 5"), "{error}");
}

#[tokio::test]
async fn a_completion_whose_reply_was_lost_is_recognised_by_the_etag() {
    let gone = || Answer::xml("404 Not Found", "<Error><Code>NoSuchUpload</Code><Message>m</Message></Error>");
    // MD5 of the MD5s of 8 MiB of zeros and of one zero.
    let etag = "\"a5eb57d36bf73a683183c5a0fb4a37ab-2\"";
    let script =
        Script::start(move |method, path| upload_that_ends_in(method, path, gone(), &[("Content-Length", "8388609"), ("ETag", etag)]));
    let put = script.put_zeros(PART_BYTES + 1).await.expect("it is there");
    assert_eq!(put.size, 8_388_609);
    let script =
        Script::start(move |method, path| upload_that_ends_in(method, path, gone(), &[("Content-Length", "8388609"), ("ETag", "\"x-2\"")]));
    assert!(script.put_zeros(PART_BYTES + 1).await.is_err(), "another object is there");
}

fn upload_that_ends_in(method: &str, path: &str, completion: Answer, head: &[(&str, &str)]) -> Answer {
    match (method, path) {
        ("POST", path) if path.contains("uploads") => begun(),
        ("POST", _) => completion,
        ("PUT", _) => Answer::raw("200 OK", &[("Content-Length", "0"), ("ETag", "\"p\"")], b""),
        ("HEAD", _) => Answer::raw("200 OK", &[head, &[LAST_MODIFIED]].concat(), b""),
        _ => Answer::raw("204 No Content", &[], b""),
    }
}

fn begun() -> Answer {
    Answer::xml("200 OK", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
}

fn completed() -> Answer {
    Answer::xml("200 OK", "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>")
}

/// A real server, and buckets with names of their own.
struct Real {
    name: &'static str,
    quirks: Quirks,
    client: Client,
}

impl Real {
    fn new(name: &'static str, server: &services::Server, quirks: Quirks, configure: impl FnOnce(Builder) -> Builder) -> Real {
        Real { name, quirks, client: Client::from_conf(configure(config(server)).build()) }
    }
}

#[async_trait]
impl Server for Real {
    fn name(&self) -> &str {
        self.name
    }

    fn quirks(&self) -> Quirks {
        self.quirks
    }

    async fn bucket(&self) -> Arc<dyn Bucket> {
        // The server is this process's own.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("conformance-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.client.create_bucket().bucket(&name).send().await.expect("a bucket can be created");
        Arc::new(AwsBucket::new(self.client.clone(), name))
    }

    async fn switch(&self, bucket: &str, versioning: Versioning) {
        let status = match versioning {
            Versioning::Enabled => BucketVersioningStatus::Enabled,
            Versioning::Suspended => BucketVersioningStatus::Suspended,
            Versioning::Never => panic!("S3 has no way back to a bucket without versioning"),
        };
        let configuration = VersioningConfiguration::builder().status(status).build();
        let operation = self.client.put_bucket_versioning().bucket(bucket).versioning_configuration(configuration);
        operation.send().await.expect("versioning can be switched");
    }
}

fn config(server: &services::Server) -> Builder {
    Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.endpoint())
        .region(Region::new(server.region().to_owned()))
        .credentials_provider(Credentials::new(server.access_key(), server.secret_key(), None, None, "test"))
        .force_path_style(true)
}

/// For servers that refuse what the SDK would add by itself.
fn without_checksums(config: Builder) -> Builder {
    config
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
}

const LAST_MODIFIED: (&str, &str) = ("Last-Modified", "Sat, 22 Aug 2026 12:00:07 GMT");

/// A server that answers as it is told, and remembers what it was asked.
struct Script {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Answer {
    head: String,
    body: Vec<u8>,
    /// Whether the connection stays open, and nothing more comes.
    stall: bool,
}

impl Answer {
    fn raw(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Answer { head: format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n"), body: body.to_vec(), stall: false }
    }

    fn xml(status: &str, body: &str) -> Answer {
        Answer::raw(status, &[("Content-Type", "application/xml"), ("Content-Length", &body.len().to_string())], body.as_bytes())
    }
}

impl Script {
    fn start(answer: impl Fn(&str, &str) -> Answer + Send + 'static) -> Script {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        // Ends with the process; a test makes one or two.
        std::thread::spawn(move || {
            let mut stalled = Vec::new();
            for connection in listener.incoming() {
                let Ok(connection) = connection else { return };
                if let Some(open) = serve(connection, &answer, &seen) {
                    stalled.push(open);
                }
            }
        });
        Script { endpoint, requests }
    }

    fn bucket(&self) -> AwsBucket {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("k", "s", None, None, "test"))
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .sleep_impl(Impatient)
            .build();
        AwsBucket::new(Client::from_conf(config), "photos")
    }

    async fn put_zeros(&self, size: u64) -> Result<pipeline::s3::ObjectHead, BucketError> {
        let content: Content = futures::stream::once(async move { Ok(Bytes::from(vec![0; size as usize])) }).boxed();
        self.bucket().put("a", &PutRequest::default(), size, content).await
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no test has panicked here").clone()
    }
}

fn serve(connection: TcpStream, answer: &impl Fn(&str, &str) -> Answer, seen: &Mutex<Vec<String>>) -> Option<TcpStream> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let (path, _) = rest.split_once(' ')?;
    seen.lock().ok()?.push(format!("{method} {path}"));
    let (mut length, mut writer) = (0, connection);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if header == "expect: 100-continue" {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    let answer = answer(method, path);
    writer.write_all(answer.head.as_bytes()).ok()?;
    writer.write_all(&answer.body).ok()?;
    writer.flush().ok()?;
    answer.stall.then_some(writer)
}

/// Waits as it should, but for long waits, which end at once.
#[derive(Debug)]
struct Impatient;

impl AsyncSleep for Impatient {
    fn sleep(&self, duration: Duration) -> Sleep {
        let short = if duration > Duration::from_secs(60) { Duration::from_millis(200) } else { duration };
        Sleep::new(tokio::time::sleep(short))
    }
}
