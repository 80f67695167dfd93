//! What else lies where a restore goes: other vaults, somebody's own files; and what a server lists that nobody can ask for.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use tests::services::AwsEmulator;

use super::world::{World, make_bucket, seaweed};

#[tokio::test(flavor = "multi_thread")]
async fn no_restore_goes_where_another_vault_is() {
    let world = World::kept(seaweed(), "cli-other-vaults", &[("a.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    make_bucket(&world.client, "cli-of-vaults", false).await;
    let other = "s3://cli-of-vaults/deep/v";
    program.ok(&["protect", &url, "--vault", other, "--events", "list:60"]);
    program.ok(&["reconcile", &url, "--vault", other]);
    let files = async || -> BTreeMap<String, i64> {
        let listed = world.client.list_objects_v2().bucket("cli-of-vaults").send().await.expect("a listing");
        listed.contents().iter().map(|file| (file.key().unwrap_or_default().to_owned(), file.size().unwrap_or(-1))).collect()
    };
    let before = files().await;
    let refused = |target: &str, mode: &[&str]| {
        let asked = ["restore", &url, "--vault", "./vault", "--to", "latest", "--target", target];
        let ended = program.run(&[&asked, mode].concat());
        assert_eq!((ended.code, ended.errors.contains("is a vault")), (4, true), "{target} {mode:?}: {}{}", ended.output, ended.errors);
    };
    for mode in [&["--mode", "exact", "--yes"][..], &["--mode", "overwrite"], &["--mode", "skip"], &["--mode", "exact", "--dry-run"]] {
        refused("s3://cli-of-vaults", mode);
        refused("s3://cli-of-vaults/deep", mode);
        refused("s3://cli-of-vaults/deep/v", mode);
        refused("s3://cli-of-vaults/deep/v/state", mode);
        refused("s3://cli-of-vaults/deep/v/not-there-yet/x", mode);
    }
    assert_eq!(files().await, before);
    // Beside it there is room.
    program.ok(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "s3://cli-of-vaults/restored"]);
    let part = ["restore", &url, "--vault", "./vault", "--to", "latest", "--prefix", "a", "--mode", "overwrite", "--target"];
    program.ok(&[&part[..], &["s3://cli-of-vaults"]].concat());
    // And looking does no harm.
    let diff = ["diff", &url, "--vault", "./vault", "--target"];
    let looked = program.run(&[&diff[..], &["s3://cli-of-vaults"]].concat());
    assert!(looked.code == 3 && looked.output.contains("deep/v/vault"), "{}{}", looked.output, looked.errors);

    // The same of directories.
    let (vault, copy) = (program.folder().join("vault"), program.folder().join("shelf/box/copy"));
    fs::create_dir_all(&copy).expect("a folder");
    let copied = Command::new("cp").arg("-r").arg(vault.join(".")).arg(&copy).status().expect("cp runs");
    assert!(copied.success());
    program.ok(&[&part[..], &["./shelf"]].concat());
    for target in ["./shelf", "./shelf/box", "./shelf/box/copy", "./shelf/box/copy/log/deeper"] {
        refused(target, &["--mode", "exact", "--yes"]);
        refused(target, &["--mode", "overwrite"]);
    }
    program.ok(&["verify", &url, "--vault", "./shelf/box/copy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_somebody_that_is_in_the_way_is_kept_and_named() {
    let world = World::kept(seaweed(), "cli-in-the-way", &[("c/d", "content"), ("e", "other")]).await;
    let (program, url) = (&world.program, world.url());
    let target = program.folder().join("there");
    fs::create_dir(&target).expect("a folder");
    fs::write(target.join("c"), "mine").expect("a file");
    let report = program.folder().join("report.csv");
    let asked =
        ["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./there", "--mode", "skip", "--report", "report.csv"];
    let told = program.ok(&asked);
    assert_eq!(fs::read_to_string(target.join("c/d")).expect("what was restored"), "content");
    assert_eq!(fs::read_to_string(target.join("c%=")).expect("what was there"), "mine");
    let rows = fs::read_to_string(report).expect("a report");
    assert!(told.contains("is called c%= now") && rows.contains("is called c%= now"), "{told}\n{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_listed_without_a_key_is_named_and_not_kept_again_and_again() {
    // SeaweedFS lists `//` as nothing.
    let world = World::new(seaweed(), "cli-nameless", true).await;
    let (program, url) = (&world.program, world.url());
    world.put("a.txt", "content").await;
    world.client.put_object().bucket("cli-nameless").key("//").body(b"slashes".to_vec().into()).send().await.expect("a put");
    let listed = world.client.list_object_versions().bucket("cli-nameless").send().await.expect("a listing");
    let keys: Vec<&str> = listed.versions().iter().filter_map(|version| version.key()).collect();
    if keys.iter().all(|key| !key.is_empty()) {
        println!("skipped: this server lists {keys:?}");
        return;
    }
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:3600"]);
    let told = program.ok(&["reconcile", &url, "--vault", "./vault"]);
    assert!(told.contains("1 versions listed") && told.contains("1 listed version without a key"), "{told}");
    let segments = || {
        let status = program.json(&["status", "--vault", "./vault"]).remove(0);
        status.pointer("/vaults/0/resources/0/segments").and_then(serde_json::Value::as_u64).expect("it counts them")
    };
    let before = segments();
    for _ in 0..2 {
        program.ok(&["reconcile", &url, "--vault", "./vault"]);
    }
    assert_eq!(segments(), before);
    assert!(program.ok(&["status", "--vault", "./vault"]).contains("NOT KEPT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_another_vault_takes_from_is_named() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let world = World::new(&emulator, "cli-two-takers", true).await;
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(emulator.endpoint())
        .credentials_provider(Credentials::new(emulator.access_key(), emulator.secret_key(), None, None, "test"))
        .region(Region::new(emulator.region().to_owned()))
        .build();
    let created = aws_sdk_sqs::Client::from_conf(config).create_queue().queue_name("two-takers").send().await.expect("a queue");
    let events = format!("sqs:{}", created.queue_url.expect("its URL"));
    let protect = |vault: &str| world.program.ok(&["protect", &world.url(), "--vault", vault, "--events", &events]);
    let id = |vault: &str| {
        let status = world.program.json(&["status", "--vault", vault]).remove(0);
        status.pointer("/vaults/0/id").and_then(serde_json::Value::as_str).expect("a vault has an id").to_owned()
    };
    for vault in ["./one", "./one"] {
        let told = protect(vault);
        assert!(!told.contains("has been taken"), "{told}");
    }
    let told = protect("./two");
    assert!(told.contains(&format!("has been taken for vault {}, and this one is {}", id("./one"), id("./two"))), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_meant_together_is_refused() {
    let world = World::kept(seaweed(), "cli-together", &[("a.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    let check = |more: &[&str], expected: &str| {
        let ended = program.run(&[&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./there"], more].concat());
        assert_eq!((ended.code, ended.errors.contains(expected)), (2, true), "{more:?}: {}{}", ended.output, ended.errors);
    };
    check(&["--mode", "exact", "--size-max", "10"], "by size or tag");
    check(&["--mode", "exact", "--tag", "a=b"], "by size or tag");
    check(&["--tag", "a=b", "--tag", "a=c"], "two values");
}
