//! Every kind of store that a vault can lie in passes the same suite; one that breaks its promise is refused.

use std::fmt;
use std::sync::Arc;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use handlers::vault::{StoreKind, WrongSha256};
use object_store::aws::{AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult,
};
use pipeline::model::Timestamp;
use pipeline::s3::aws::AwsBucket;
use pipeline::vault::Vault;
use pipeline::vault::directory::DirectoryStore;
use tests::services::{AwsEmulator, SeaweedFs, Server};
use tests::store_conformance::conforms;

#[tokio::test]
async fn memory_conforms() {
    conforms(&Vault::new(Arc::new(InMemory::new()), "in/a prefix"), &StoreKind::Other).await;
}

#[tokio::test]
async fn a_local_directory_conforms() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = DirectoryStore::new(folder.path()).expect("a folder");
    let promises = conforms(&Vault::new(Arc::new(store), "in/a prefix"), &StoreKind::Directory).await;
    assert_eq!((promises.wrong_sha256, promises.synced), (None, Some(true)));
}

#[tokio::test]
async fn what_a_killed_process_was_writing_is_in_nobodys_way() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir_all(folder.path().join("a")).expect("a folder");
    for left_over in ["a/b#1", "a/b#2", "a/c#1"] {
        std::fs::write(folder.path().join(left_over), "torn").expect("a file");
    }
    let vault = Vault::new(Arc::new(DirectoryStore::new(folder.path()).expect("a folder")), "");
    vault.create("a/b", "whole".into()).await.expect("a create");
    let listed = vault.list("a").await.expect("a listing");
    assert_eq!(listed.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a/b"]);
    assert_eq!(vault.read("a/b").await.expect("it is there"), "whole");
}

#[tokio::test]
async fn nothing_is_written_into_what_was_put_in_the_place_of_a_vault() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, aside) = (folder.path().join("vault"), folder.path().join("aside"));
    std::fs::create_dir(&path).expect("a folder");
    let vault = Vault::new(Arc::new(DirectoryStore::new(&path).expect("a folder")), "");
    for (name, content) in [("vault", "ours"), ("a/one", "1")] {
        vault.create(name, content.into()).await.expect("a create");
    }
    let is_refused = async |name: &str| {
        let error = vault.create(name, "2".into()).await.expect_err("it is not there");
        assert!(error.is_transient());
        let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(reason.contains("is not the vault that was opened"), "{error}: {reason}");
    };
    std::fs::rename(&path, &aside).expect("a rename");
    is_refused("a/two").await;
    assert!(!path.exists());
    // Another one, in which folders are seen that ours does not have.
    std::fs::create_dir_all(path.join("b")).expect("a folder");
    for (name, content) in [("vault", "theirs"), ("b/x", "x")] {
        std::fs::write(path.join(name), content).expect("a file");
    }
    assert_eq!(vault.list("b").await.expect("a listing").len(), 1);
    is_refused("a/two").await;
    assert!(!path.join("a").exists());
    std::fs::remove_dir_all(&path).expect("it was made here");
    std::fs::rename(&aside, &path).expect("a rename");
    for name in ["a/two", "c/new"] {
        vault.create(name, "2".into()).await.expect("it is back");
    }
    // A copy of it that knows less.
    std::fs::rename(&path, &aside).expect("a rename");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::write(path.join("vault"), "ours").expect("a file");
    for name in ["a/three", "c/more"] {
        vault.create(name, "3".into()).await.expect("it is the same vault");
    }
    // Somebody removes a folder that was made.
    std::fs::remove_dir_all(path.join("c")).expect("it is there");
    vault.create("c/again", "4".into()).await.expect("it is made again");
}

#[tokio::test]
async fn nothing_in_a_directory_is_overwritten_moved_or_removed_through_its_store() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = DirectoryStore::new(folder.path()).expect("a folder");
    let (one, other) = (Path::from("a/one"), Path::from("a/other"));
    let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store.put_opts(&one, "first".into(), create()).await.expect("a create");
    let refused = [
        store.put_opts(&one, "second".into(), PutOptions::default()).await.map(drop),
        store.put_multipart_opts(&other, PutMultipartOptions::default()).await.map(drop),
        store.copy_opts(&one, &other, CopyOptions::default()).await,
        store.delete_stream(futures::stream::once(async { Ok(Path::from("a/one")) }).boxed()).try_collect::<Vec<Path>>().await.map(drop),
    ];
    for refused in refused {
        let refused = refused.expect_err("it is refused").to_string();
        assert!(refused.contains("a vault's files are created once"), "{refused}");
    }
    assert_eq!(std::fs::read(folder.path().join("a/one")).expect("it is there"), b"first");
    assert!(!folder.path().join("a/other").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_conforms() {
    let server = SeaweedFs::shared().expect("SeaweedFS: run ./dev setup");
    let (vault, kind) = bucket_vault(server, "vault-of-seaweed").await;
    assert_eq!(conforms(&vault, &kind).await.wrong_sha256, Some(WrongSha256::Refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_aws_emulator_conforms() {
    let server = AwsEmulator::shared().expect("the AWS emulator: run ./dev setup");
    let (vault, kind) = bucket_vault(server, "vault-of-emulator").await;
    assert_eq!(conforms(&vault, &kind).await.wrong_sha256, Some(WrongSha256::Refused));
}

async fn bucket_vault(server: &Server, bucket: &str) -> (Vault, StoreKind) {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(server.region().to_owned()))
        .credentials_provider(Credentials::new(server.access_key(), server.secret_key(), None, None, "tests"))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    client.create_bucket().bucket(bucket).send().await.expect("a new bucket");
    let store = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(server.region())
        .with_endpoint(server.endpoint())
        .with_access_key_id(server.access_key())
        .with_secret_access_key(server.secret_key())
        .with_allow_http(true)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256)
        .build()
        .expect("a store");
    (Vault::new(Arc::new(store), "in/a prefix"), StoreKind::Bucket(AwsBucket::new(client, bucket)))
}

/// A store that overwrites whatever it was told to create.
#[derive(Debug)]
struct Overwriting(InMemory);

impl fmt::Display for Overwriting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that overwrites")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Overwriting {
    async fn put_opts(&self, location: &Path, payload: PutPayload, _: PutOptions) -> object_store::Result<PutResult> {
        self.0.put_opts(location, payload, PutOptions::default()).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, object_store::Result<Path>>) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_without_atomic_create_if_absent_is_refused() {
    let vault = Vault::new(Arc::new(Overwriting(InMemory::new())), "");
    let refused =
        handlers::vault::create(&vault, &StoreKind::Other, "id", Timestamp::from_seconds(1)).await.expect_err("it must be refused");
    assert!(refused.to_string().contains("atomic create-if-absent"), "{refused}");
}
