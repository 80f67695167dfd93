//! What an operator sees of a protection that does not do well: how old the truth is, what went wrong and when.

use std::time::Duration;

use aws_sdk_s3::types::{EventBridgeConfiguration, NotificationConfiguration};
use pipeline::model::Timestamp;
use serde_json::Value;
use tests::services::{AwsEmulator, SeaweedFs};

use super::program::Program;
use super::proof::{path, send_events};
use super::stories::a_quiet_second;
use super::world::{World, seaweed};

/// How often it is asked until it is so, and how long then in all: a minute and a half.
const TRIES: usize = 180;
const EVERY: Duration = Duration::from_millis(500);

fn resource(program: &Program) -> Value {
    program.json(&["status", "--vault", "./vault"])[0]["vaults"][0]["resources"][0].clone()
}

/// Asks until the health of the only bucket is as wanted.
async fn until(program: &Program, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..TRIES {
        last = resource(program)["health"].clone();
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(EVERY).await;
    }
    panic!("it did not come to that: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_seen_in_status_metrics_and_health() {
    let weed = SeaweedFs::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let world = World::new(&weed, "cli-gone", true).await;
    let (program, url) = (&world.program, world.url());
    world.put("a.txt", "a").await;
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);

    let health = resource(program)["health"].clone();
    let listing = &health["listing"];
    assert!(listing["ended"].is_string() && listing["took_seconds"].is_f64() && listing["due"].is_string(), "{health}");
    assert_eq!((listing["overdue"].as_bool(), health["behind"].as_bool()), (Some(false), Some(false)), "{health}");
    assert!(health["last_trouble"].is_null() && health["latest_lag_seconds"].is_u64(), "{health}");
    let told = program.ok(&["status", "--vault", "./vault"]);
    for word in ["s3://cli-gone: ACTIVE, listed every 1 s", "  restorable ", "  proven ", "  last listing ", "took ", "  at latest "] {
        assert!(told.contains(word), "{word} in {told}");
    }
    assert!(!told.contains("TROUBLE") && !told.contains("OVERDUE"), "{told}");

    drop(weed);
    let health = until(program, |health| health["last_trouble"]["over"] == false).await;
    let trouble = &health["last_trouble"];
    assert_eq!(trouble["part"], "listing", "{trouble}");
    assert!(trouble["reason"].as_str().is_some_and(|reason| reason.contains("the connection was refused")), "{trouble}");
    assert!(trouble["at"].is_string(), "{trouble}");
    let told = program.ok(&["status", "--vault", "./vault"]);
    assert!(told.contains("  TROUBLE ") && told.contains("listing at ") && told.contains("the connection was refused"), "{told}");
    let alive = serving.get("/healthz");
    assert!(alive.starts_with("HTTP/1.1 200") && alive.contains("s3://cli-gone: listing went wrong at"), "{alive}");
    let metrics = serving.get("/metrics");
    let labels = "resource=\"cli-gone\",vault=\"./vault\"";
    assert!(metrics.contains(&format!("hindsight_last_trouble_timestamp_seconds{{{labels},part=\"listing\"}}")), "{metrics}");
    assert!(metrics.contains(&format!("hindsight_last_listing_timestamp_seconds{{{labels}}}")), "{metrics}");
    assert!(metrics.contains("hindsight_errors_total{part=\"listing\"}"), "{metrics}");

    // After a minute the listing is overdue, and the process does not do what it is for.
    until(program, |health| health["listing"]["overdue"] == true).await;
    let told = program.ok(&["status", "--vault", "./vault"]);
    assert!(told.contains("  OVERDUE ") && told.contains("is `hindsight serve` running?"), "{told}");
    let ready = serving.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("s3://cli-gone: the listing that was due at"), "{ready}");
    assert!(serving.get("/metrics").contains(&format!("hindsight_listing_overdue{{{labels}}} 1")));
    // What is there can be restored all the same, and `now` is not what was known a minute ago.
    let ended = program.run(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out"]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn now_is_what_was_just_known_and_nothing_older() {
    let world = World::kept(seaweed(), "cli-now", &[("a.txt", "a")]).await;
    let (program, url) = (&world.program, world.url());
    let restore = |to: &str, target: &str| program.run(&["restore", &url, "--vault", "./vault", "--to", to, "--target", target]);
    let fresh = restore("now", "./one");
    assert_eq!(fresh.code, 0, "{}", fresh.errors);
    assert!(fresh.errors.contains("now stands for the last that can be restored: "), "{}", fresh.errors);
    let later = restore("2101-01-01T00:00:00Z", "./two");
    assert_eq!(later.code, 4, "{}", later.errors);
    assert!(later.errors.contains("the log is complete only up to") && later.errors.contains("`latest`"), "{}", later.errors);
}

/// Turns the events of the bucket on or off, as its owner does.
async fn switch_events(world: &World, on: bool) {
    let bridge = on.then(|| EventBridgeConfiguration::builder().build());
    let wanted = NotificationConfiguration::builder().set_event_bridge_configuration(bridge).build();
    let request = world.client.put_bucket_notification_configuration().bucket(&world.bucket).notification_configuration(wanted);
    request.send().await.expect("a configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_turned_off_at_the_bucket_are_noticed_and_what_happened_meanwhile_is_kept_when_they_are_back() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let world = World::new(&emulator, "cli-events-off", true).await;
    let queue = send_events(&emulator, &world.bucket);
    let (program, url) = (&world.program, world.url());
    world.put("before.txt", "before").await;
    // The emulator does not give the ACL of every version.
    program.ok(&["protect", &url, "--vault", "./vault", "--events", &format!("sqs:{queue}"), "--no-acls"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let history = |key: &str| program.json(&["history", &format!("{url}/{key}"), "--vault", "./vault"]);
    let restore = |target: &str| program.run(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", target]);
    let is_off = |metrics: &str, off: u8| {
        metrics.lines().any(|line| line == format!("hindsight_events_off{{resource=\"cli-events-off\",vault=\"./vault\"}} {off}"))
    };
    assert!(resource(program)["health"]["events_off_since"].is_null());
    assert!(is_off(&serving.get("/metrics"), 0));

    switch_events(&world, false).await;
    let health = until(program, |health| health["events_off_since"].is_string()).await;
    let since = health["events_off_since"].as_str().expect("a time").to_owned();
    let gaps = resource(program)["window"]["gaps"].clone();
    assert_eq!((gaps[0]["from"].as_str(), gaps[0]["to"].as_str()), (Some(since.as_str()), None), "{gaps}");
    let told = program.ok(&["status", "--vault", "./vault"]);
    assert!(told.contains("  EVENTS OFF ") && told.contains(&format!("since {since}, ")), "{told}");
    assert!(told.contains("events are turned off at the bucket"), "{told}");
    let metrics = serving.get("/metrics");
    assert!(is_off(&metrics, 1), "{metrics}");
    let alive = serving.get("/healthz");
    assert!(alive.contains(&format!("s3://cli-events-off: events are off since {since}")), "{alive}");
    world.put("meanwhile.txt", "meanwhile").await;
    let ended = restore("./off");
    assert_eq!(ended.code, 3, "{}{}", ended.output, ended.errors);
    assert!(ended.output.contains(&format!("{since} to now: events are turned off at the bucket")), "{}", ended.output);
    assert_eq!(history("meanwhile.txt").len(), 0, "nobody has told of it");

    switch_events(&world, true).await;
    until(program, |health| health["events_off_since"].is_null()).await;
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    until(program, |_| history("meanwhile.txt").len() == 1).await;
    assert_eq!(history("meanwhile.txt")[0]["via"], "scan", "only a listing can have found it");
    let status = resource(program);
    let gaps = &status["window"]["gaps"];
    assert_eq!((gaps.as_array().map(Vec::len), gaps[0]["from"].as_str()), (Some(1), Some(since.as_str())), "{gaps}");
    let to = gaps[0]["to"].as_str().unwrap_or_else(|| panic!("{gaps}"));
    let told = program.ok(&["status", "--vault", "./vault"]);
    assert!(!told.contains("EVENTS OFF") && told.contains(&format!("{since} to {to}: ")), "{told}");
    let metrics = serving.get("/metrics");
    assert!(is_off(&metrics, 0), "{metrics}");
    assert!(!serving.get("/healthz").contains("events are off"));
    // A listing that began after the gap has found what happened within: a restore does not name it any more.
    let proven = || resource(program)["window"]["proven"].as_str().and_then(|proven| proven.parse::<Timestamp>().ok());
    let to = to.parse::<Timestamp>().expect("a time");
    until(program, |_| proven() >= Some(to)).await;
    let ended = restore("./on");
    assert_eq!(ended.code, 0, "{}{}", ended.output, ended.errors);
    let read = |name: &str| std::fs::read_to_string(program.folder().join("on").join(name)).expect(name);
    assert_eq!((read("before.txt"), read("meanwhile.txt")), ("before".to_owned(), "meanwhile".to_owned()));
    // And events come again.
    world.put("after.txt", "after").await;
    until(program, |_| history("after.txt").len() == 1).await;
    let told = history("after.txt").remove(0);
    assert!(told["stream"].as_str().is_some_and(|stream| stream.starts_with("sqs:")), "{told}");
    assert_eq!(serving.stop(), 0);

    // While nobody serves, somebody who lists by hand sees it, too.
    switch_events(&world, false).await;
    let ended = program.run(&["reconcile", &url, "--vault", "./vault"]);
    assert!(ended.code == 0 && ended.errors.contains("events are turned off at the bucket"), "{}", ended.errors);
    let since = resource(program)["health"]["events_off_since"].as_str().unwrap_or_else(|| panic!("{}", resource(program))).to_owned();
    world.put("unseen.txt", "unseen").await;
    switch_events(&world, true).await;
    let serving = program.serve(&["--vault", "./vault"]);
    until(program, |_| history("unseen.txt").len() == 1).await;
    let gaps = resource(program)["window"]["gaps"].clone();
    let is_closed = |gap: &Value| gap["from"].as_str() == Some(&since) && gap["to"].is_string();
    assert!(gaps.as_array().is_some_and(|gaps| gaps.iter().any(is_closed)), "{since} in {gaps}");
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_removed_and_made_again_and_one_that_takes_its_place_leave_gaps_that_a_listing_closes_at_once() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let world = World::new(&emulator, "cli-queue-gone", true).await;
    let queue = send_events(&emulator, &world.bucket);
    let (program, url) = (&world.program, world.url());
    let protect = |queue: &str| program.ok(&["protect", &url, "--vault", "./vault", "--events", &format!("sqs:{queue}"), "--no-acls"]);
    protect(&queue);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let history = |key: &str| program.json(&["history", &format!("{url}/{key}"), "--vault", "./vault"]);

    let script = format!("aws --endpoint-url {} sqs delete-queue --queue-url {queue}", emulator.endpoint());
    let removed = std::process::Command::new("bash").args(["-c", &script]).env("PATH", path()).envs(emulator.environment()).output();
    assert!(removed.expect("bash runs").status.success());
    world.put("lost.txt", "nobody is told").await;
    until(program, |health| health["last_trouble"]["part"] == "feed").await;
    assert!(serving.running.log().contains("something that was told there and had not been received is lost"), "{}", serving.running.log());
    assert_eq!(send_events(&emulator, &world.bucket), queue);
    until(program, |_| history("lost.txt").len() == 1).await;
    assert_eq!(history("lost.txt")[0]["via"], "scan", "only a listing can have found it");
    let gaps = resource(program)["window"]["gaps"].clone();
    assert_eq!((gaps[0]["reason"].as_str(), gaps[1].is_null()), (Some("sqs:cli-queue-gone was not there"), true), "{gaps}");
    assert_eq!(serving.stop(), 0);

    // Another queue knows nothing of what the one before was told and nobody took.
    world.put("left.txt", "in a queue that nobody asks any more").await;
    let other = queue.replace("cli-queue-gone", "cli-queue-new");
    let script = format!("aws --endpoint-url {} sqs create-queue --queue-name cli-queue-new", emulator.endpoint());
    let made = std::process::Command::new("bash").args(["-c", &script]).env("PATH", path()).envs(emulator.environment()).output();
    assert!(made.expect("bash runs").status.success());
    protect(&other);
    let serving = program.serve(&["--vault", "./vault"]);
    until(program, |_| history("left.txt").len() == 1).await;
    let gaps = resource(program)["window"]["gaps"].clone();
    let reason = gaps[1]["reason"].as_str().unwrap_or_else(|| panic!("{gaps}"));
    assert!(reason.starts_with("another source of events") && gaps[2].is_null(), "{gaps}");
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shared_queue_told_while_nobody_protected_the_bucket_is_a_gap_and_read_once_it_is_protected_again() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let (world, beside) = (World::new(&emulator, "cli-shared", true).await, World::new(&emulator, "cli-shared-beside", true).await);
    let queue = send_events(&emulator, &world.bucket);
    let (program, url) = (&world.program, world.url());
    let protect = |url: &str| program.ok(&["protect", url, "--vault", "./vault", "--events", &format!("sqs:{queue}"), "--no-acls"]);
    protect(&url);
    // Another bucket keeps the feed going.
    protect(&beside.url());
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    program.ok(&["unprotect", &url, "--vault", "./vault"]);
    for _ in 0..TRIES {
        if serving.running.log().contains("what kept it ends") {
            break;
        }
        tokio::time::sleep(EVERY).await;
    }
    // Whoever waits for messages goes on as it began until one comes.
    world.put("last.txt", "perhaps still kept").await;
    tokio::time::sleep(EVERY * 8).await;
    world.put("unseen.txt", "nobody keeps it").await;
    let letters = || program.json(&["dead-letters", "--vault", "./vault"]);
    for _ in 0..TRIES * 4 {
        if !letters().is_empty() {
            break;
        }
        tokio::time::sleep(EVERY).await;
    }
    assert!(!letters().is_empty(), "{}", serving.running.log());
    protect(&url);
    world.put("after.txt", "somebody does again").await;
    let history = |key: &str| program.json(&["history", &format!("{url}/{key}"), "--vault", "./vault"]);
    for key in ["last.txt", "unseen.txt", "after.txt"] {
        for _ in 0..TRIES {
            if !history(key).is_empty() {
                break;
            }
            tokio::time::sleep(EVERY).await;
        }
        assert_eq!(history(key).len(), 1, "{key}: {}", serving.running.log());
    }
    let all = program.json(&["status", "--vault", "./vault"])[0]["vaults"][0]["resources"].clone();
    let gaps: Vec<&Value> = all.as_array().expect("resources").iter().map(|resource| &resource["window"]["gaps"]).collect();
    assert!(gaps.iter().any(|gaps| gaps[0]["reason"] == "the bucket was not protected"), "{gaps:?}");
    assert_eq!(serving.stop(), 0);
}

/// Runs a command of the AWS tools.
fn aws(emulator: &AwsEmulator, command: &str) {
    let script = format!("aws --endpoint-url {} {command}", emulator.endpoint());
    let ended = std::process::Command::new("bash").args(["-c", &script]).env("PATH", path()).envs(emulator.environment()).output();
    assert!(ended.expect("bash runs").status.success(), "{command}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_queue_kept_for_too_short_a_time_and_what_a_feed_that_is_given_up_had_not_told_is_a_gap() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let world = World::new(&emulator, "cli-expired", true).await;
    let queue = send_events(&emulator, &world.bucket);
    aws(&emulator, &format!("sqs set-queue-attributes --queue-url {queue} --attributes MessageRetentionPeriod=60"));
    let (program, url) = (&world.program, world.url());
    let protect = |events: &str| program.ok(&["protect", &url, "--vault", "./vault", "--events", events, "--no-acls"]);
    protect(&format!("sqs:{queue}"));
    let first = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_eq!(first.stop(), 0);
    let gone = purged_unseen(&world).await;
    tokio::time::sleep(Duration::from_secs(75)).await;
    let serving = program.serve(&["--vault", "./vault"]);
    let gaps = || resource(program)["window"]["gaps"].clone();
    until(program, |_| gaps()[0]["reason"].as_str().is_some_and(|reason| reason.contains("keeps a message for 60 s"))).await;
    assert!(is_within(&gaps()[0], &gone), "{gone} in {}", gaps());
    // Killed, so that nobody takes what comes; listings go on, and see nothing of what comes and goes between them.
    serving.running.kill();
    let gone = purged_unseen(&world).await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        program.ok(&["reconcile", &url, "--vault", "./vault"]);
    }
    protect("list:1");
    assert!(is_within(&gaps()[1], &gone), "{gone} in {}", gaps());
    let restore = program.run(&["restore", &url, "--vault", "./vault", "--to", &gone, "--target", "./out", "--proven"]);
    assert_eq!(restore.code, 4, "{}{}", restore.output, restore.errors);
}

/// Puts an object and purges it, and returns a time at which it was there.
async fn purged_unseen(world: &World) -> String {
    world.put("unseen.txt", "nobody is told").await;
    let shown = world.client.head_object().bucket(&world.bucket).key("unseen.txt").send().await.expect("a version");
    let within = a_quiet_second().await;
    let request = world.client.delete_object().bucket(&world.bucket).key("unseen.txt").set_version_id(shown.version_id);
    request.send().await.expect("a purge");
    within
}

/// Whether an instant lies in a gap.
fn is_within(gap: &Value, at: &str) -> bool {
    let time = |text: &Value| text.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let at = at.parse::<Timestamp>().expect("a time");
    time(&gap["from"]).is_some_and(|from| from <= at) && time(&gap["to"]).is_some_and(|to| at <= to)
}
