//! Every kind of store that a vault can lie in passes the same suite; one that breaks its promise is refused.

use std::fmt;
use std::sync::Arc;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};
use pipeline::model::Timestamp;
use pipeline::vault::Vault;
use tests::services::{AwsEmulator, SeaweedFs, Server};
use tests::store_conformance::conforms;

#[tokio::test]
async fn memory_conforms() {
    conforms(&Vault::new(Arc::new(InMemory::new()), "in/a prefix")).await;
}

#[tokio::test]
async fn a_local_directory_conforms() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("a folder").with_fsync(true);
    conforms(&Vault::new(Arc::new(store), "")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_conforms() {
    let server = SeaweedFs::shared().expect("SeaweedFS: run ./dev setup");
    conforms(&bucket_vault(server, "vault-of-seaweed").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_aws_emulator_conforms() {
    let server = AwsEmulator::shared().expect("the AWS emulator: run ./dev setup");
    conforms(&bucket_vault(server, "vault-of-emulator").await).await;
}

async fn bucket_vault(server: &Server, bucket: &str) -> Vault {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(server.region().to_owned()))
        .credentials_provider(Credentials::new(server.access_key(), server.secret_key(), None, None, "tests"))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(config).create_bucket().bucket(bucket).send().await.expect("a new bucket");
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
    Vault::new(Arc::new(store), "in/a prefix")
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
    let refused = handlers::vault::create(&vault, "id", Timestamp::from_seconds(1)).await.expect_err("it must be refused");
    assert!(refused.to_string().contains("atomic create-if-absent"), "{refused}");
}
