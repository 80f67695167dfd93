//! Large contents, copied by the S3 server that has the bucket and the vault: they never come through the program.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use serde_json::Value;
use tests::services::AwsEmulator;

use super::program::Program;
use super::world::{World, make_bucket, seaweed};

const PART_BYTES: usize = 8 << 20;
/// Above the bound from which contents are copied, and not a whole number of parts.
const LARGE_BYTES: usize = (66 << 20) + 12_345;

/// A bucket, and at the same server one that has a vault in it.
pub struct Beside {
    pub world: World,
    pub vault: String,
    store: String,
}

/// Bytes that say where they are and of which content.
pub fn large(seed: u64, bytes: usize) -> Vec<u8> {
    let word = |index: u64| (index ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    (0..bytes.div_ceil(8) as u64).flat_map(word).take(bytes).collect()
}

impl Beside {
    /// The bucket is protected.
    pub async fn new(server: &tests::services::Server, bucket: &str) -> Beside {
        let world = World::new(server, bucket, true).await;
        let store = format!("{bucket}-store");
        make_bucket(&world.client, &store, false).await;
        let vault = format!("s3://{store}/in/here");
        world.program.ok(&["protect", &world.url(), "--vault", &vault, "--events", "list"]);
        Beside { world, vault, store }
    }

    /// Uploads in parts and returns the version and the etag.
    pub async fn upload(&self, key: &str, content: &[u8]) -> (String, String) {
        let (client, bucket) = (&self.world.client, &self.world.bucket);
        let begun = client.create_multipart_upload().bucket(bucket).key(key).send().await.expect("an upload");
        let upload = begun.upload_id.expect("its id");
        let mut parts = Vec::new();
        for (number, bytes) in (1..).zip(content.chunks(PART_BYTES)) {
            let request = client.upload_part().bucket(bucket).key(key).upload_id(&upload).part_number(number);
            let etag = request.body(bytes.to_vec().into()).send().await.expect("a part").e_tag;
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(etag).build());
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(&upload).multipart_upload(parts);
        let done = request.send().await.expect("a completion");
        // A listing proves what was before the second in which it began.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        (done.version_id.expect("a version"), done.e_tag.expect("an etag").trim_matches('"').to_owned())
    }

    /// Puts in one piece and returns the version.
    pub async fn put(&self, key: &str, content: &[u8]) -> String {
        let request = self.world.client.put_object().bucket(&self.world.bucket).key(key).body(content.to_vec().into());
        let put = request.send().await.expect("a put");
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        put.version_id.expect("a version")
    }

    /// The files of the vault in a folder, and their bytes.
    pub async fn files(&self, folder: &str) -> BTreeMap<String, i64> {
        let prefix = format!("in/here/{folder}");
        let listed = self.world.client.list_objects_v2().bucket(&self.store).prefix(prefix).send().await.expect("a listing");
        listed.contents().iter().map(|file| (file.key().unwrap_or_default().to_owned(), file.size().unwrap_or(-1))).collect()
    }

    /// Uploads to the vault that were begun and not ended.
    pub async fn unfinished(&self) -> usize {
        self.world.client.list_multipart_uploads().bucket(&self.store).send().await.expect("a listing").uploads().len()
    }

    pub fn reconcile(&self) -> Value {
        self.world.program.json(&["reconcile", &self.world.url(), "--vault", &self.vault]).remove(0)
    }

    /// What a version's content is, as the vault has it.
    pub fn is_kept(&self, key: &str, version: &str, content: &[u8]) {
        let object = format!("{}/{key}", self.world.url());
        let out = self.world.program.folder().join("cat");
        let arguments = ["cat", &object, "--vault", &self.vault, "--version-id", version];
        let ended = self.world.program.run_into(&arguments, &out);
        assert_eq!(ended.code, 0, "{key} ({version}): {}", ended.errors);
        assert!(std::fs::read(&out).expect("what was written") == content, "{key} ({version}) is another content");
    }

    pub fn history(&self, key: &str) -> Vec<Value> {
        self.world.program.json(&["history", &format!("{}/{key}", self.world.url()), "--vault", &self.vault])
    }

    fn restore<'a>(&'a self, url: &'a str, target: &'a str, more: &[&'a str]) -> Value {
        let program: &Program = &self.world.program;
        program.json(&[&["restore", url, "--vault", &self.vault, "--to", "latest", "--target", target], more].concat()).remove(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seaweedfs_copies_large_contents_to_the_vault_and_back() {
    copied_and_restored(seaweed(), "cli-copies").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_emulator_copies_large_contents_to_the_vault_and_back() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    copied_and_restored(&emulator, "cli-copies").await;
}

async fn copied_and_restored(server: &tests::services::Server, bucket: &str) {
    let beside = Beside::new(server, bucket).await;
    let (url, client) = (beside.world.url(), &beside.world.client);
    let contents = [large(1, LARGE_BYTES), large(2, LARGE_BYTES), large(3, LARGE_BYTES - 9)];
    // The version that is asked for is not the newest one.
    let (first, _) = beside.upload("dump \u{fc}+%", &contents[0]).await;
    let (second, etag) = beside.upload("dump \u{fc}+%", &contents[1]).await;
    beside.put("small", b"small").await;
    let plain = beside.put("plain", &contents[2]).await;
    let reading = beside.reconcile();
    assert_eq!((reading["found"].as_u64(), reading["lost"].as_u64()), (Some(4), Some(0)), "{reading}");

    let bodies = beside.files("body/v1/").await;
    assert_eq!(bodies.values().sum::<i64>() as usize, contents.iter().map(Vec::len).sum::<usize>(), "{bodies:?}");
    assert!(beside.files("pack/").await.values().sum::<i64>() < 1_000, "the rest is small");
    assert_eq!(beside.unfinished().await, 0);
    for (key, version, content) in
        [("dump \u{fc}+%", &first, &contents[0]), ("dump \u{fc}+%", &second, &contents[1]), ("plain", &plain, &contents[2])]
    {
        beside.is_kept(key, version, content);
    }

    make_bucket(client, &format!("{bucket}-restored"), true).await;
    let target = format!("s3://{bucket}-restored");
    let dry = beside.restore(&url, &target, &["--dry-run"]);
    let done = beside.restore(&url, &target, &[]);
    for count in ["creates", "bytes", "requests", "failed"] {
        assert_eq!(dry[count], done[count], "{count}: {done}");
    }
    assert_eq!((done["status"].as_str(), done["creates"].as_u64()), (Some("COMPLETED"), Some(3)), "{done}");
    // In the parts of the source; what was put in one piece is an upload of one part, and not of those that we would send.
    let md5 = client.head_object().bucket(bucket).key("plain").send().await.expect("a head").e_tag.expect("an etag");
    let md5: pipeline::model::Checksum = format!("md5:{}", md5.trim_matches('"')).parse().expect("an MD5");
    let one_part = md5.etag_in_parts(contents[2].len() as u64).expect("an etag");
    for (key, content, etag) in [("dump \u{fc}+%", &contents[1], &etag), ("plain", &contents[2], &one_part)] {
        let found = client.get_object().bucket(format!("{bucket}-restored")).key(key).send().await.expect("an object");
        assert_eq!(found.e_tag().map(|etag| etag.trim_matches('"')), Some(etag.as_str()), "{key}");
        assert!(found.body.collect().await.expect("a content").into_bytes() == content[..], "{key} is another content");
    }
    let again = beside.restore(&url, &target, &["--mode", "overwrite"]);
    assert_eq!((again["same"].as_u64(), again["overwrites"].as_u64()), (Some(3), Some(0)), "{again}");

    // Into anything else they are read.
    let done = beside.restore(&url, "./out", &[]);
    assert_eq!(done["status"], "COMPLETED", "{done}");
    assert!(std::fs::read(beside.world.program.folder().join("out/plain")).expect("a file") == contents[2]);
    let again = beside.restore(&url, "./out", &["--mode", "overwrite"]);
    assert_eq!(again["same"], 3, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_was_damaged_in_the_vault_is_named_and_never_restored() {
    let beside = Beside::new(seaweed(), "cli-copies-damaged").await;
    let content = large(4, LARGE_BYTES);
    beside.upload("dump", &content).await;
    beside.reconcile();
    let (body, _) = beside.files("body/v1/").await.pop_first().expect("it was copied");
    let mut damaged = content;
    damaged[LARGE_BYTES / 2] ^= 1;
    let (client, store) = (&beside.world.client, &beside.store);
    client.put_object().bucket(store).key(&body).body(damaged.into()).send().await.expect("somebody may write there");
    make_bucket(client, "cli-copies-damaged-restored", true).await;
    for target in ["s3://cli-copies-damaged-restored", "./out"] {
        let url = beside.world.url();
        let command = ["restore", &url, "--vault", &beside.vault, "--to", "latest", "--target", target, "--json"];
        let ended = beside.world.program.run(&command);
        assert_ne!(ended.code, 0, "{target}");
        assert!(ended.output.contains("\"failed\":1"), "{target}: {}{}", ended.output, ended.errors);
    }
    let listed = client.list_objects_v2().bucket("cli-copies-damaged-restored").send().await.expect("a listing");
    assert_eq!(listed.contents().len(), 0, "nothing of it is to be seen");
    assert!(!beside.world.program.folder().join("out/dump").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_can_be_told_to_take_no_copies() {
    let beside = Beside::new(seaweed(), "cli-copies-none").await;
    let content = large(5, LARGE_BYTES);
    let (version, _) = beside.upload("dump", &content).await;
    let settings = format!("[vaults.v]\nurl = \"{}\"\nserver_copies = \"none\"\n", beside.vault);
    let config = beside.world.program.folder().join("h.toml");
    std::fs::write(&config, settings).expect("a file");
    let config = config.to_str().expect("a plain path");
    beside.world.program.ok(&["reconcile", &beside.world.url(), "--config", config]);
    assert_eq!(beside.files("body/").await.len(), 0);
    beside.is_kept("dump", &version, &content);
}
