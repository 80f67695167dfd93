//! What a story happens in.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use tests::services::{SeaweedFs, Server};

use super::program::Program;

/// An S3 server, a bucket of its own on it, and the binary pointed to it.
pub struct World {
    pub client: Client,
    pub bucket: String,
    pub program: Program,
}

impl World {
    /// A new bucket.
    pub async fn new(server: &Server, bucket: &str, versions: bool) -> World {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(server.endpoint())
            .credentials_provider(Credentials::new(server.access_key(), server.secret_key(), None, None, "test"))
            .region(Region::new(server.region().to_owned()))
            .force_path_style(true)
            .build();
        let client = Client::from_conf(config);
        make_bucket(&client, bucket, versions).await;
        World { client, bucket: bucket.to_owned(), program: Program::new().with(server.environment()) }
    }

    /// Puts an object.
    pub async fn put(&self, key: &str, content: &str) {
        self.client.put_object().bucket(&self.bucket).key(key).body(content.as_bytes().to_vec().into()).send().await.expect("a put");
    }

    /// A new bucket with these objects, of which a vault in the folder has everything; nothing keeps it any more.
    pub async fn kept(server: &Server, bucket: &str, objects: &[(&str, &str)]) -> World {
        let world = World::new(server, bucket, true).await;
        for (key, content) in objects {
            world.put(key, content).await;
        }
        world.program.ok(&["protect", &world.url(), "--vault", "./vault", "--events", "list:1"]);
        let serving = world.program.serve(&["--vault", "./vault"]);
        world.program.ok(&["status", "--vault", "./vault", "--wait"]);
        assert_eq!(serving.stop(), 0);
        world
    }

    /// The bucket as the command line names it.
    pub fn url(&self) -> String {
        format!("s3://{}", self.bucket)
    }
}

/// Makes a bucket that keeps versions, or one that does not.
pub async fn make_bucket(client: &Client, bucket: &str, versions: bool) {
    client.create_bucket().bucket(bucket).send().await.expect("a new bucket");
    if versions {
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        client.put_bucket_versioning().bucket(bucket).versioning_configuration(enabled).send().await.expect("versions");
    }
}

/// The SeaweedFS that the stories share.
pub fn seaweed() -> &'static SeaweedFs {
    SeaweedFs::shared().unwrap_or_else(|error| panic!("{error}; run ./dev setup"))
}
