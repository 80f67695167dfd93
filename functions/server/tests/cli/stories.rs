//! Whole stories against a real S3 server.

use std::time::Duration;

use pipeline::model::Timestamp;
use tests::services::AwsEmulator;
use tests::sqs_server::SqsServer;

use super::program::Program;
use super::world::{World, seaweed};

/// The instant it is, in whole seconds, once that second and the next are over: what follows is told apart by every server.
pub async fn a_quiet_second() -> String {
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().expect("date runs");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    String::from_utf8(date.stdout).expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_protected_served_damaged_and_restored() {
    let world = World::new(seaweed(), "cli-story", true).await;
    let (program, url) = (&world.program, world.url());
    world.put("a/one.txt", "first").await;
    world.put("two \u{202e}gpj.txt", "kept").await;
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let before = a_quiet_second().await;
    world.put("a/one.txt", "second").await;
    world.put("three.txt", "new").await;
    world.client.delete_object().bucket(&world.bucket).key("two \u{202e}gpj.txt").send().await.expect("a delete");
    program.ok(&["status", "--vault", "./vault", "--wait"]);

    look(&world, &before);
    restore(&world, &before);
    refusals(&world, &before);
    upkeep(&world);

    assert!(serving.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(serving.get("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = serving.get("/metrics");
    assert!(metrics.contains("hindsight_watermark_lag_seconds{resource=\"cli-story\",vault=\"./vault\"}"), "{metrics}");
    assert!(serving.ask("POST /webhook HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_which_nobody_listed_is_shown_as_a_gap() {
    let world = World::new(seaweed(), "cli-unlisted", true).await;
    let (program, url) = (&world.program, world.url());
    world.put("one", "first").await;
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_eq!(serving.stop(), 0);
    world.put("two", "second").await;
    // A minute and a little is what a listing may be late.
    tokio::time::sleep(Duration::from_secs(66)).await;
    let within = a_quiet_second().await;
    // Neither another interval nor somebody who lists by hand lets it be forgotten.
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:5m"]);
    program.ok(&["reconcile", &url, "--vault", "./vault"]);
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let status = program.json(&["status", "--vault", "./vault"]);
    let gaps = &status[0]["vaults"][0]["resources"][0]["window"]["gaps"];
    assert!(
        gaps[0]["reason"].as_str().is_some_and(|reason| reason.starts_with("no listing of the bucket ended")) && gaps[1].is_null(),
        "{status:?}"
    );
    // What still exists was found; what was put and removed meanwhile was not, and a restore into that time says so.
    let restore = ["restore", &url, "--to", &within, "--target", "./restored", "--vault", "./vault"];
    let ended = program.run(&restore);
    assert_eq!((ended.code, ended.output.contains("no listing of the bucket ended")), (3, true), "{}{}", ended.output, ended.errors);
    assert!(!ended.output.contains("(proven)"), "{}", ended.output);
    let refused = program.run(&[&restore[..], &["--proven"]].concat());
    assert_eq!(refused.code, 4, "{}{}", refused.output, refused.errors);
    // A key that is not known of may have been there all the same: `exact` leaves it.
    std::fs::write(program.folder().join("restored/three"), "of somebody").expect("a file");
    let ended = program.run(&[&restore[..], &["--mode", "exact", "--yes"]].concat());
    assert_eq!(ended.code, 3, "{}{}", ended.output, ended.errors);
    assert!(program.folder().join("restored/three").exists(), "{}", ended.output);
    assert_eq!(std::fs::read_to_string(program.folder().join("restored/two")).expect("a file"), "second");
    program.ok(&["restore", &url, "--to", "latest", "--target", "./whole", "--vault", "./vault"]);
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_which_it_was_not_protected_is_a_gap_that_a_listing_closes_at_once() {
    let world = World::new(seaweed(), "cli-unprotected", true).await;
    let (program, url) = (&world.program, world.url());
    let protect = || program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:3600"]);
    let status = || program.json(&["status", "--vault", "./vault"])[0]["vaults"][0]["resources"][0].clone();
    world.put("kept", "kept").await;
    protect();
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_eq!(serving.stop(), 0);
    let latest = status()["window"]["latest"].as_str().expect("a time").to_owned();
    program.ok(&["unprotect", &url, "--vault", "./vault"]);
    world.put("put and removed", "nobody saw it").await;
    let shown = world.client.head_object().bucket(&world.bucket).key("put and removed").send().await.expect("a version");
    world.put("put", "put").await;
    let within = a_quiet_second().await;
    let request = world.client.delete_object().bucket(&world.bucket).key("put and removed").set_version_id(shown.version_id);
    request.send().await.expect("a purge");
    protect();
    // One that goes on has no gap.
    protect();

    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let gaps = status()["window"]["gaps"].clone();
    let (from, until) = (gaps[0]["from"].as_str().expect("a time"), gaps[0]["to"].as_str().expect("a time"));
    let (latest, from) = (latest.parse::<Timestamp>().expect("a time"), from.parse::<Timestamp>().expect("a time"));
    assert_eq!((from.micros(), gaps[1].is_null()), (latest.micros() + 1, true), "{gaps}");
    // The next listing is not due for an hour, and does not wait for that.
    let end = until.parse::<Timestamp>().expect("a time");
    let proven = || status()["window"]["proven"].as_str().and_then(|proven| proven.parse::<Timestamp>().ok());
    for _ in 0..60 {
        if proven() >= Some(end) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(proven() >= Some(end), "{}", status());
    let ended = program.run(&["restore", &url, "--to", &within, "--target", "./within", "--vault", "./vault"]);
    assert_eq!((ended.code, ended.output.contains("the bucket was not protected")), (3, true), "{}{}", ended.output, ended.errors);
    program.ok(&["restore", &url, "--to", "latest", "--target", "./behind", "--vault", "./vault"]);
    for folder in ["within", "behind"] {
        let read = |name: &str| std::fs::read_to_string(program.folder().join(folder).join(name)).ok();
        assert_eq!((read("kept").as_deref(), read("put").as_deref(), read("put and removed")), (Some("kept"), Some("put"), None));
    }
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_functions_keep_serve_leaves_alone() {
    let world = World::new(seaweed(), "cli-functions", true).await;
    let (program, url) = (&world.program, world.url());
    let queue = SqsServer::start().expect("a free port");
    let told = program.ok(&["protect", &url, "--vault", "./vault", "--events", &format!("functions:{}", queue.url())]);
    assert!(told.contains("the functions that take from its queue keep its changes from now on"), "{told}");
    queue.send("for a function");
    world.put("one", "first").await;
    let serving = program.serve(&["--vault", "./vault"]);
    // Longer than it takes to ask what is protected, and a queue for messages.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((queue.left(), queue.deleted().len()), (1, 0), "its messages are for others");
    let metrics = serving.get("/metrics");
    assert!(!metrics.contains("cli-functions"), "nor is it listed: {metrics}");
    let told = program.ok(&["status", "--vault", "./vault"]);
    assert!(told.contains("ACTIVE, kept by functions, from queue") && !told.contains("BEHIND"), "{told}");
    assert_eq!(serving.stop(), 0);
    // Functions set no marks, and who never told anything has set none: the time without events begins where listings end, and not in 1970.
    program.ok(&["reconcile", &url, "--vault", "./vault"]);
    let window = || program.json(&["status", "--vault", "./vault"])[0]["vaults"][0]["resources"][0]["window"].clone();
    let known = window()["latest"].clone();
    for events in ["webhook", "list:60"] {
        program.ok(&["protect", &url, "--vault", "./vault", "--events", events]);
        let from = |gap: &serde_json::Value| gap["from"].as_str().and_then(|from| from.parse::<Timestamp>().ok());
        let begins: Vec<_> = window()["gaps"].as_array().into_iter().flatten().map(from).collect();
        let latest = known.as_str().and_then(|latest| latest.parse::<Timestamp>().ok());
        assert!(!begins.is_empty() && begins.iter().all(|begin| *begin > latest), "{begins:?} {latest:?}");
    }
}

fn look(world: &World, before: &str) {
    let (program, url) = (&world.program, world.url());
    let status = program.json(&["status", "--vault", "./vault"]);
    let resource = &status[0]["vaults"][0]["resources"][0];
    assert_eq!((resource["versions"].as_u64(), resource["lost"].as_u64()), (Some(5), Some(0)), "{resource}");
    assert!(resource["window"]["proven"].is_string(), "{resource}");

    let keys = |documents: Vec<serde_json::Value>| {
        documents.iter().map(|line| line["object"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(program.json(&["ls", &url, "--vault", "./vault", "--at", before])), ["a/one.txt", "two \u{202e}gpj.txt"]);
    assert_eq!(keys(program.json(&["ls", &url, "--vault", "./vault"])), ["a/one.txt", "three.txt"]);
    assert_eq!(keys(program.json(&["ls", &format!("{url}/a"), "--vault", "./vault", "--versions"])), ["a/one.txt", "a/one.txt"]);
    assert_eq!(program.ok(&["ls", &url, "--vault", "./vault", "--at", before, "-0"]), "a/one.txt\0two \u{202e}gpj.txt\0");
    let shown = program.ok(&["ls", &url, "--vault", "./vault", "--at", before]);
    assert!(shown.contains("two \\u{202e}gpj.txt") && !shown.contains('\u{202e}'), "{shown}");

    let one = format!("{url}/a/one.txt");
    assert_eq!(program.ok(&["cat", &one, "--vault", "./vault", "--at", before]), "first");
    assert_eq!(program.ok(&["cat", &one, "--vault", "./vault"]), "second");
    let history = program.json(&["history", &one, "--vault", "./vault"]);
    assert_eq!(history.iter().map(|change| change["change"].as_str().unwrap_or_default()).collect::<Vec<_>>(), ["put", "put"]);
    let everything = ["history", &format!("{url}/"), "--recursive", "--vault", "./vault"];
    let told = |window: &[&str]| keys(program.json(&[&everything[..], window].concat()));
    assert_eq!(told(&["--to", before]), ["a/one.txt", "two \u{202e}gpj.txt"], "in the order of time");
    assert_eq!(told(&["--from", before]), ["a/one.txt", "three.txt", "two \u{202e}gpj.txt"]);
    assert_eq!(keys(program.json(&["history", &format!("{url}/a"), "--recursive", "--vault", "./vault"])), ["a/one.txt", "a/one.txt"]);
    let shown = program.ok(&[&everything[..], &["--from", before]].concat());
    assert!(shown.lines().any(|line| line.contains("delete marker  two \\u{202e}gpj.txt")), "{shown}");
    let first = history[0]["version"].as_str().expect("a version");
    assert_eq!(program.ok(&["cat", &one, "--vault", "./vault", "--version-id", first]), "first");

    let diff = program.json(&["diff", &url, "--vault", "./vault", "--from", before, "--to", "now"]);
    let mut changes: Vec<(&str, &str)> =
        diff[..3].iter().map(|line| (line["object"].as_str().unwrap_or_default(), line["change"].as_str().unwrap_or_default())).collect();
    changes.sort_unstable();
    assert_eq!(changes, [("a/one.txt", "changed"), ("three.txt", "added"), ("two \u{202e}gpj.txt", "removed")]);
    assert_eq!(diff[3]["summary"]["same"], 0);
}

fn restore(world: &World, before: &str) {
    let (program, url) = (&world.program, world.url());
    let base = ["restore", &url, "--vault", "./vault", "--to", before, "--target"];
    let dry = program.json(&[&base[..], &["./out", "--dry-run"]].concat());
    assert_eq!((dry[0]["creates"].as_u64(), program.folder().join("out").exists()), (Some(2), false));
    let shown = program.ok(&[&base[..], &["./out", "--dry-run"]].concat());
    assert!(shown.contains("to create") && !shown.contains("created"), "{shown}");
    let done = program.json(&[&base[..], &["./out", "--report", "report.csv"]].concat());
    assert_eq!((done[0]["creates"].as_u64(), done[0]["status"].as_str()), (Some(2), Some("COMPLETED")));
    let read = |path: &str| std::fs::read_to_string(program.folder().join(path)).expect(path);
    assert_eq!(read("out/a/one.txt"), "first");
    assert_eq!(read("report.csv").lines().count(), 3);

    // Asked for once more it finds all of it there.
    let again = program.json(&[&base[..], &["./out"]].concat());
    assert_eq!((again[0]["creates"].as_u64(), again[0]["same"].as_u64()), (Some(0), Some(2)), "{}", again[0]);

    // Into the bucket itself, one object of it, by a request in a file.
    std::fs::write(program.folder().join("request.json"), r#"{"key": ["a/one.txt"], "mode": "overwrite"}"#).expect("a file");
    let back = program.json(&[&base[..], &[&url, "--request", "request.json"]].concat());
    assert_eq!((back[0]["overwrites"].as_u64(), back[0]["creates"].as_u64()), (Some(1), Some(0)), "{}", back[0]);
    // And into a part of another place.
    let aside = program.ok(&[&base[..], &[&format!("{url}/aside"), "--glob", "**/*.txt", "--glob", "*.txt"]].concat());
    assert!(aside.contains("COMPLETED"), "{aside}");
}

fn refusals(world: &World, before: &str) {
    let (program, url) = (&world.program, world.url());
    for (arguments, expected) in [
        (&["--to", before, "--target", "./out", "--prefix", "a/"][..], "is not empty"),
        (&["--to", "2001-01-01T00:00:00Z", "--target", "./new"], "the earliest restorable time is"),
        (&["--to", "2101-01-01T00:00:00Z", "--target", "./new"], "the log is complete only up to"),
        (&["--to", before, "--target", "./out", "--mode", "exact"], "say --yes"),
        (&["--to", before, "--target", "s3://no-such-bucket-here"], "there is no such bucket"),
        (&["--to", before, "--target", "./vault", "--mode", "exact", "--yes"], "lies within it"),
        (&["--to", before, "--target", ".", "--mode", "exact", "--yes"], "lies within it"),
        (&["--to", before, "--target", "./vault/new"], "is a vault"),
        // What the guards look at must be what is written to.
        (&["--to", before, "--target", "./none/../out"], "has `..` behind ./none, which is not there"),
        (&["--to", before, "--target", "./none/../vault", "--mode", "exact", "--yes"], "has `..` behind"),
    ] {
        let ended = program.run(&[&["restore", &url, "--vault", "./vault"], arguments].concat());
        assert_eq!(ended.code, 4, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(expected), "{arguments:?}: {}", ended.errors);
    }
    let ended = program.run(&["restore", &url, "--vault", "./vault", "--to", before, "--target", "./new", "--glob", "a["]);
    assert_eq!(ended.code, 2, "{}", ended.errors);
    let ended = program.run(&["cat", &format!("{url}/none"), "--vault", "./vault"]);
    assert_eq!((ended.code, ended.errors.contains("did not exist")), (4, true), "{}", ended.errors);
    assert!(!program.folder().join("new").exists());
}

fn upkeep(world: &World) {
    let (program, url) = (&world.program, world.url());
    let planned = program.json(&["compact", &url, "--vault", "./vault", "--base-now", "--dry-run"]);
    assert!(planned[0]["base"].is_string() && planned[0]["manifest"].is_null(), "{}", planned[0]);
    let compacted = program.json(&["compact", &url, "--vault", "./vault", "--base-now"]);
    assert!(compacted[0]["base"].is_string() && compacted[0]["manifest"].is_u64(), "{}", compacted[0]);
    let reading = program.json(&["reconcile", &url, "--vault", "./vault"]);
    assert_eq!(reading[0]["lost"], 0);
    assert_eq!(program.ok(&["cat", &format!("{url}/three.txt"), "--vault", "./vault"]), "new");
    assert!(program.ok(&["unprotect", &url, "--vault", "./vault"]).contains("stopped protecting"));
    assert!(program.ok(&["unprotect", &url, "--vault", "./vault"]).contains("was not protected any more"));
    let refused = program.run(&["reconcile", &url, "--vault", "./vault"]);
    assert!(refused.code == 4 && refused.errors.contains("is not protected any more"), "{}: {}", refused.code, refused.errors);
    let status = program.json(&["status", "--vault", "./vault"]);
    assert_eq!(status[0]["vaults"][0]["resources"][0]["protection"]["status"], "STOPPED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_is_durable_when_it_is_answered() {
    let mut world = World::new(seaweed(), "cli-webhook", true).await;
    world.program = world.program.with([("HINDSIGHT_WEBHOOK_TOKEN", "open sesame")]);
    let (program, url) = (&world.program, world.url());
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "webhook"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    world.put("posted.txt", "content").await;
    let event = r#"{"version":"0","id":"1","detail-type":"Object Created","source":"aws.s3","time":"TIME","region":"x","resources":["arn:aws:s3:::cli-webhook"],"detail":{"version":"0","bucket":{"name":"cli-webhook"},"object":{"key":"posted.txt","size":7},"reason":"PutObject"}}"#;
    let event = event.replace("TIME", &a_quiet_second().await);
    let post = |path: &str, header: &str| {
        let length = event.len();
        serving.ask(&format!("POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n{event}"))
    };
    assert!(post("/webhook", "").starts_with("HTTP/1.1 401"));
    assert!(post("/webhook?token=wrong", "").starts_with("HTTP/1.1 401"));
    let history = || program.json(&["history", &format!("{url}/posted.txt"), "--vault", "./vault"]);
    assert!(history().is_empty());
    assert!(post("/webhook", "Authorization: Bearer open sesame\r\n").starts_with("HTTP/1.1 200"));
    assert_eq!(history().len(), 1);
    assert!(post("/webhook?token=open%20sesame", "").starts_with("HTTP/1.1 200"));
    let large =
        serving.ask("POST /webhook?token=open%20sesame HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1048577\r\n\r\n");
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_eq!(program.ok(&["cat", &format!("{url}/posted.txt"), "--vault", "./vault"]), "content");
    assert_eq!(serving.stop(), 0);
    let lag = &program.json(&["status", "--vault", "./vault"])[0]["vaults"][0]["resources"][0]["lag"];
    assert!(lag["changes"].as_u64().is_some_and(|changes| changes > 0), "{lag}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_protected_is_refused() {
    let world = World::new(seaweed(), "cli-guards", true).await;
    let plain = World::new(seaweed(), "cli-plain", false).await;
    let (program, url) = (&world.program, world.url());
    let config = format!("{}/h.toml", program.folder().display());
    std::fs::write(&config, "[vaults.one]\nurl = \"./one\"\n[vaults.two]\nurl = \"./two\"\n").expect("a file");
    let protect = |url: &str, vault: &str| program.run(&["protect", url, "--vault", vault, "--events", "list", "--config", &config]);

    let inside = protect(&url, "s3://cli-guards/backup");
    assert_eq!((inside.code, inside.errors.contains("the vault lies within it")), (4, true), "{}", inside.errors);
    let unversioned = protect(&plain.url(), "one");
    assert_eq!((unversioned.code, unversioned.errors.contains("--unversioned")), (4, true), "{}", unversioned.errors);
    assert_eq!(protect(&url, "one").code, 0);
    let twice = protect(&url, "two");
    assert_eq!(twice.code, 4);
    assert_eq!(twice.errors, "hindsight: Bucket cli-guards already has continuous backup enabled for another vault Backup job failed.\n");
    assert!(!program.folder().join("two").exists(), "a refusal makes no vault");
    assert_eq!(protect(&plain.url(), "s3://cli-guards/backup").code, 4);
    program.ok(&["unprotect", &url, "--vault", "./one"]);
    program.ok(&["protect", &url, "--vault", "s3://cli-plain/backup", "--events", "list", "--config", &config]);
    let status = program.json(&["status", "--vault", "s3://cli-plain/backup"]);
    assert_eq!(status[0]["vaults"][0]["resources"][0]["protection"]["resource"], "arn:aws:s3:::cli-guards");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_proves_what_it_says() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let program = Program::new().with(emulator.environment());
    let told = program.ok(&["demo"]);
    assert!(told.contains("Every byte is what it was"), "{told}");
    let told = program.json(&["demo", "--endpoint-url", emulator.endpoint()]);
    assert_eq!((told[0]["proven"].as_bool(), told[0]["proof"]["wrong"].as_array().map(Vec::len)), (Some(true), Some(0)), "{}", told[0]);
}
