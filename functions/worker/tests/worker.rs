//! The worker's binary, a real broker and a real S3 server: what is told in a topic is kept, whoever of the group dies.

#[path = "../../server/tests/cli/program.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod program;

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use pipeline::model::Timestamp;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tests::services::{Kafka, SeaweedFs, ServiceError};

use program::{Program, Serving};

const VAULT: &str = "./vault";
const TOPIC: &str = "s3-events";
const PARTITIONS: i32 = 3;

/// A bucket whose events come through a topic.
struct World {
    kafka: Kafka,
    _server: SeaweedFs,
    client: Client,
    bucket: String,
    producer: FutureProducer,
    program: Program,
}

impl World {
    /// None where there is no broker on this machine, which is said.
    async fn new(bucket: &str) -> Option<World> {
        let kafka = match Kafka::start() {
            Err(missing @ ServiceError::Missing { .. }) => {
                eprintln!("SKIPPED: {missing}");
                return None;
            }
            started => started.expect("a broker"),
        };
        let server = SeaweedFs::start().expect("SeaweedFS: run ./dev setup");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(server.endpoint())
            .credentials_provider(Credentials::new(server.access_key(), server.secret_key(), None, None, "test"))
            .region(Region::new(server.region().to_owned()))
            .force_path_style(true)
            .build();
        let client = Client::from_conf(config);
        client.create_bucket().bucket(bucket).send().await.expect("a new bucket");
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        client.put_bucket_versioning().bucket(bucket).versioning_configuration(enabled).send().await.expect("versions");
        let admin: AdminClient<DefaultClientContext> = of(&kafka).create().expect("an admin");
        let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let producer = of(&kafka).create().expect("a producer");
        let program = Program::new().with(server.environment());
        let events = format!("kafka:{}/{TOPIC}", kafka.brokers());
        let words = ["protect", &format!("s3://{bucket}"), "--vault", VAULT, "--events", &events, "--reconcile-every", "6h"];
        let said = program.ok(&words);
        assert!(!said.contains("hindsight-worker"), "{said}");
        Some(World { kafka, _server: server, client, bucket: bucket.to_owned(), producer, program })
    }

    fn url(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    fn work(&self) -> Serving {
        self.program.serve(&["--vault", VAULT])
    }

    /// Puts an object and tells of it, of every third one twice.
    async fn put(&self, number: usize) {
        let key = format!("object {number}");
        let put =
            self.client.put_object().bucket(&self.bucket).key(&key).body(key.clone().into_bytes().into()).send().await.expect("a put");
        let head = self.client.head_object().bucket(&self.bucket).key(&key).send().await.expect("it is there");
        let at = Timestamp::from_seconds(head.last_modified().expect("a time").secs());
        let event = json!({
            "version": "0", "id": number.to_string(), "detail-type": "Object Created", "source": "aws.s3", "time": at,
            "region": "us-east-1", "resources": [format!("arn:aws:s3:::{}", self.bucket)],
            "detail": {
                "version": "0", "bucket": { "name": self.bucket }, "reason": "PutObject",
                "object": { "key": key, "size": key.len(), "etag": put.e_tag().unwrap_or_default().trim_matches('"'), "version-id": put.version_id() },
            },
        });
        for _ in 0..1 + usize::from(number.is_multiple_of(3)) {
            self.send(&event.to_string()).await;
        }
    }

    async fn send(&self, body: &str) {
        let record = FutureRecord::<(), str>::to(TOPIC).payload(body);
        self.producer.send(record, Duration::from_secs(10)).await.expect("the broker takes it");
    }

    /// Waits until everything that was told is durable.
    fn settle(&self) {
        self.program.ok(&["status", "--vault", VAULT, "--wait", "180s"]);
    }

    /// Checks that all objects up to a number are kept, each change once, and told by its event.
    fn check(&self, objects: usize) {
        let history = self.program.json(&["history", &format!("{}/", self.url()), "--recursive", "--vault", VAULT]);
        let keys: BTreeSet<&str> = history.iter().filter_map(|change| change["object"].as_str()).collect();
        assert_eq!((history.len(), keys.len()), (objects, objects), "{history:?}");
        let listed: Vec<&Value> = history.iter().filter(|change| change["stream"] != format!("kafka:{TOPIC}")).collect();
        assert!(listed.is_empty(), "{listed:?}");
    }
}

fn of(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_share_a_topic_and_die_lose_nothing_and_a_replay_changes_nothing() {
    let Some(world) = World::new("shared").await else { return };
    let first = world.work();
    world.settle();
    for number in 0..40 {
        world.put(number).await;
    }
    let second = world.work();
    for number in 40..80 {
        world.put(number).await;
    }
    first.running.kill();
    for number in 80..120 {
        world.put(number).await;
    }
    world.settle();
    world.check(120);
    let page = world.program.ok(&["status", "--vault", VAULT]);
    assert!(page.contains("events from topic s3-events") && !page.contains("TROUBLE"), "{page}");
    assert_eq!(second.stop(), 0);

    // From the beginning, as somebody does who replays a topic.
    let vaults = world.program.json(&["status", "--vault", VAULT]);
    let group = format!("hindsight-{}", vaults[0]["vaults"][0]["id"].as_str().expect("an id"));
    let replayer: BaseConsumer = of(&world.kafka).set("group.id", &group).create().expect("a consumer");
    let mut offsets = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        offsets.add_partition_offset(TOPIC, partition, Offset::Offset(0)).expect("an offset");
    }
    replayer.commit(&offsets, CommitMode::Sync).expect("nobody else is in the group");
    let third = world.work();
    world.put(120).await;
    world.settle();
    world.check(121);
    assert_eq!(third.stop(), 0);
    let committed = replayer.committed_offsets(offsets, Duration::from_secs(10)).expect("offsets");
    let dealt_with: i64 = committed.elements().iter().map(|element| element.offset().to_raw().unwrap_or_default()).sum();
    assert_eq!(dealt_with, 121 + 41, "every third was told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_kept_as_a_dead_letter_and_what_was_removed_unread_is_said() {
    let Some(world) = World::new("removed").await else { return };
    let worker = world.work();
    world.settle();
    world.send("{\"this\": \"is no event\"}").await;
    world.put(0).await;
    world.settle();
    assert_eq!(worker.stop(), 0);
    let letters = world.program.ok(&["dead-letters", "--vault", VAULT]);
    assert!(letters.contains("kafka:s3-events"), "{letters}");
    for number in 1..10 {
        world.put(number).await;
    }
    let admin: AdminClient<DefaultClientContext> = of(&world.kafka).create().expect("an admin");
    let mut ends = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        ends.add_partition_offset(TOPIC, partition, Offset::End).expect("an offset");
    }
    admin.delete_records(&ends, &AdminOptions::new()).await.expect("an answer");
    let worker = world.work();
    world.settle();
    let page = world.program.ok(&["status", "--vault", VAULT]);
    assert!(page.contains("were removed from the topic before they were read"), "{page}");
    let status = world.program.json(&["status", "--vault", VAULT]);
    let gaps = &status[0]["vaults"][0]["resources"][0]["window"]["gaps"];
    assert!(gaps[0]["reason"].as_str().is_some_and(|reason| reason.contains("were removed from the topic")), "{gaps}");
    assert_eq!(worker.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_the_one_that_the_group_has_read_is_read_from_its_beginning_and_there_is_a_gap() {
    let Some(world) = World::new("again").await else { return };
    let worker = world.work();
    world.settle();
    for number in 0..4 {
        world.put(number).await;
    }
    world.settle();
    assert_eq!(worker.stop(), 0);
    let vaults = world.program.json(&["status", "--vault", VAULT]);
    let group = format!("hindsight-{}", vaults[0]["vaults"][0]["id"].as_str().expect("an id"));
    let member: BaseConsumer = of(&world.kafka).set("group.id", &group).create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition(TOPIC, partition);
    }
    let offsets = member.committed_offsets(partitions, Duration::from_secs(10)).expect("offsets");
    // Nobody reads of this one, and then its event is gone.
    world.put(4).await;
    let admin: AdminClient<DefaultClientContext> = of(&world.kafka).create().expect("an admin");
    let deleted = admin.delete_topics(&[TOPIC], &AdminOptions::new()).await.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
    while admin.create_topics([&topic], &AdminOptions::new()).await.expect("an answer").iter().any(Result::is_err) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // More than the other held, so that the group's numbers look as if they were of this one.
    for number in 5..40 {
        world.put(number).await;
    }
    // As after a cluster was put back, or offsets were copied to another one.
    member.commit(&offsets, CommitMode::Sync).expect("nobody else is in the group");
    let worker = world.work();
    world.settle();
    let history = || world.program.json(&["history", &format!("{}/", world.url()), "--recursive", "--vault", VAULT]);
    for _ in 0..120 {
        if history().len() == 40 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let keys: BTreeSet<String> = history().iter().filter_map(|change| change["object"].as_str()).map(str::to_owned).collect();
    assert_eq!((history().len(), keys.len()), (40, 40), "{:?}", worker.running.log());
    let status = world.program.json(&["status", "--vault", VAULT]);
    let gaps = &status[0]["vaults"][0]["resources"][0]["window"]["gaps"];
    assert!(gaps[0]["reason"].as_str().is_some_and(|reason| reason.contains("is another than the one that was read")), "{gaps}");
    assert_eq!(worker.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_the_broker_has_forgotten_may_have_missed_what_was_removed() {
    let Some(world) = World::new("forgotten").await else { return };
    let worker = world.work();
    world.settle();
    for number in 0..4 {
        world.put(number).await;
    }
    world.settle();
    assert_eq!(worker.stop(), 0);
    let gaps = || {
        let status = world.program.json(&["status", "--vault", VAULT]);
        (status[0]["vaults"][0]["id"].clone(), status[0]["vaults"][0]["resources"][0]["window"]["gaps"].clone())
    };
    let (vault, none) = gaps();
    assert_eq!(none, json!([]), "at its beginning a group has missed nothing");
    // Nobody reads of this one, it is removed, and the group is forgotten: offsets are kept for seven days.
    world.put(4).await;
    let admin: AdminClient<DefaultClientContext> = of(&world.kafka).create().expect("an admin");
    let mut ends = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        ends.add_partition_offset(TOPIC, partition, Offset::End).expect("an offset");
    }
    admin.delete_records(&ends, &AdminOptions::new()).await.expect("an answer");
    let group = format!("hindsight-{}", vault.as_str().expect("an id"));
    let deleted = admin.delete_groups(&[&group], &AdminOptions::new()).await.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let worker = world.work();
    world.settle();
    let (_, gaps) = gaps();
    assert!(gaps[0]["reason"].as_str().is_some_and(|reason| reason.contains("knows of nothing that its group has read")), "{gaps}");
    assert_eq!(worker.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_page_on_kafka_do_what_it_says() {
    let Some(world) = World::new("photos").await else { return };
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kafka.md")).expect("the page");
    let (events, _) = page.split_once("# Databases through a connector").expect("its first half");
    let script: String = events.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    let script = script.replace("broker.example:9092", world.kafka.brokers()).replace("worker serve", "worker serve --listen 127.0.0.1:0");
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_hindsight-worker")).parent().expect("a folder");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let environment = world.program.command(&[]);
    let mut shell = std::process::Command::new("bash");
    shell.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", path);
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}");
    let output = shell.args(["-c", &script]).current_dir(world.program.folder()).output().expect("bash");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("s3://photos: ACTIVE, events from topic s3-events"), "{told}");
}
