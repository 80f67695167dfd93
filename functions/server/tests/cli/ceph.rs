//! Ceph's object gateway posts its notifications to the webhook, and they are taken.

use std::fs;
use std::process::Command;

use aws_sdk_s3::types::{Event, NotificationConfiguration, TopicConfiguration};
use serde_json::Value;
use tests::services::{CephRgw, Server, ServiceError};

use super::program::{Program, Serving};
use super::proof::path;
use super::stories::a_quiet_second;
use super::world::World;

const TOKEN: &str = "open sesame";
/// A key that something on the way may not like, and how it is written as the name of a file.
const KEY: &str = "a folder/ü+%2F.txt";
const FILE: &str = "a folder/ü+%252F.txt";

/// Makes a topic whose messages the gateway posts to `serve`, and lets the bucket tell it of everything.
async fn notify(server: &Server, world: &World, serving: &Serving) {
    let attributes = format!("{{\"push-endpoint\": \"http://{}/webhook?token=open%20sesame\"}}", serving.address);
    let mut command = Command::new("aws");
    command.args(["--endpoint-url", server.endpoint(), "sns", "create-topic", "--name", "hindsight", "--attributes", &attributes]);
    let output = command.args(["--query", "TopicArn", "--output", "text"]).env("PATH", path()).envs(server.environment()).output();
    let output = output.expect("aws: run ./dev setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let topic = TopicConfiguration::builder()
        .id("hindsight")
        .topic_arn(String::from_utf8_lossy(&output.stdout).trim())
        .events(Event::from("s3:ObjectCreated:*"))
        .events(Event::from("s3:ObjectRemoved:*"))
        .build()
        .expect("a topic");
    let wanted = NotificationConfiguration::builder().topic_configurations(topic).build();
    let request = world.client.put_bucket_notification_configuration().bucket(&world.bucket).notification_configuration(wanted);
    request.send().await.expect("a configuration");
}

fn readings(serving: &Serving) -> String {
    let metrics = serving.get("/metrics");
    let line = metrics.lines().find(|line| line.starts_with("hindsight_reconciliations_total{"));
    line.unwrap_or_else(|| panic!("{metrics}")).to_owned()
}

fn history(program: &Program, object: &str) -> Vec<Value> {
    program.json(&["history", object, "--vault", "./vault"])
}

#[tokio::test(flavor = "multi_thread")]
async fn ceph_posts_its_notifications_to_the_webhook_and_any_second_is_restored_from_them() {
    let server = match CephRgw::start() {
        Err(ServiceError::Missing { reason, .. }) => return println!("skipped: {reason}"),
        server => server.expect("Ceph starts"),
    };
    let mut world = World::new(&server, "cli-ceph", true).await;
    world.program = world.program.with([("HINDSIGHT_WEBHOOK_TOKEN", TOKEN)]);
    let (program, url) = (&world.program, world.url());
    world.put("old.txt", "from before").await;
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "webhook"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    notify(&server, &world, &serving).await;
    // From here on nothing is listed: the next listing is an hour away.
    let listings = readings(&serving);

    world.put(KEY, "first").await;
    world.put("gone.txt", "not for long").await;
    let first = a_quiet_second().await;
    world.put(KEY, "second").await;
    world.client.delete_object().bucket(&world.bucket).key("gone.txt").send().await.expect("a delete");
    let second = a_quiet_second().await;
    let removed = world.client.delete_object().bucket(&world.bucket).key(KEY);
    let newest = world.client.head_object().bucket(&world.bucket).key(KEY).send().await.expect("a head");
    removed.set_version_id(newest.version_id).send().await.expect("a purge");
    program.ok(&["status", "--vault", "./vault", "--wait"]);

    for (key, changes) in [(KEY, &["put", "put", "purge"][..]), ("gone.txt", &["put", "delete marker"])] {
        let told = history(program, &format!("{url}/{key}"));
        let found: Vec<&str> = told.iter().filter_map(|change| change["change"].as_str()).collect();
        assert_eq!(found, changes, "{key}: {told:?}");
        assert!(told.iter().all(|change| change["stream"] == "webhook"), "it was not listed: {told:?}");
    }
    assert_eq!(readings(&serving), listings, "no listing has helped");
    let metrics = serving.get("/metrics");
    assert!(metrics.lines().any(|line| line == "hindsight_webhook_answers_total{status=\"200\"} 5"), "{metrics}");
    let status = program.json(&["status", "--vault", "./vault"]);
    assert_eq!(status[0]["vaults"][0]["dead_letters"], 0, "{}", status[0]);

    for (target, to, expected) in [
        ("first", first.as_str(), [Some("first"), Some("not for long")]),
        ("second", &second, [Some("second"), None]),
        ("latest", "latest", [Some("first"), None]),
    ] {
        let ended = program.run(&["restore", &url, "--vault", "./vault", "--to", to, "--target", target]);
        assert_eq!(ended.code, 0, "{target}: {}{}", ended.output, ended.errors);
        let read = |name: &str| fs::read_to_string(program.folder().join(target).join(name)).ok();
        assert_eq!(read("old.txt").as_deref(), Some("from before"), "{target}");
        let found = [read(FILE), read("gone.txt")];
        assert_eq!(found.each_ref().map(Option::as_deref), expected, "{target}: {}", ended.output);
    }
    assert_eq!(serving.stop(), 0);
}
