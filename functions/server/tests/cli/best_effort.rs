//! A bucket that keeps no versions, which is protected all the same because somebody asked for it: best effort.

use std::fs;

use super::stories::a_quiet_second;
use super::world::{World, seaweed};

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_versions_is_kept_as_far_as_listings_saw_it_and_never_proven() {
    let world = World::new(seaweed(), "cli-best-effort", false).await;
    let (program, url) = (&world.program, world.url());
    world.put("kept.txt", "kept").await;
    world.put("notes.txt", "first").await;
    let refused = program.run(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    assert_eq!((refused.code, refused.errors.contains("--unversioned, which is best effort")), (4, true), "{}", refused.errors);
    let told = program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1", "--unversioned"]);
    assert!(told.contains("warning: the bucket is protected as one that keeps no versions: best effort, and never proven"), "{told}");

    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let first = a_quiet_second().await;
    world.put("notes.txt", "second").await;
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let second = a_quiet_second().await;
    world.client.delete_object().bucket(&world.bucket).key("notes.txt").send().await.expect("a delete");
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let third = a_quiet_second().await;
    world.put("notes.txt", "third").await;
    program.ok(&["status", "--vault", "./vault", "--wait"]);

    let told = program.ok(&["status", "--vault", "./vault"]);
    assert!(told.contains("s3://cli-best-effort: ACTIVE, listed every 1 s, best effort"), "{told}");
    assert!(told.contains("never: the bucket keeps no versions"), "{told}");
    assert!(!told.contains("VERSIONING OFF"), "it is as it was asked for: {told}");
    let status = program.json(&["status", "--vault", "./vault"]);
    let resource = &status[0]["vaults"][0]["resources"][0];
    assert!(resource["window"]["proven"].is_null() && resource["window"]["latest"].is_string(), "{resource}");
    assert_eq!((resource["health"]["versioning_off"].as_bool(), resource["lost"].as_u64()), (Some(false), Some(0)), "{resource}");
    let ready = serving.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");

    let refused = program.run(&["restore", &url, "--vault", "./vault", "--to", &first, "--target", "./proven", "--proven"]);
    assert_eq!((refused.code, refused.errors.contains("nothing is proven")), (4, true), "{}", refused.errors);
    assert!(!program.folder().join("proven").exists());
    for (target, to, expected) in [
        ("first", first.as_str(), Some("first")),
        ("second", &second, Some("second")),
        ("third", &third, None),
        ("latest", "latest", Some("third")),
    ] {
        let ended = program.run(&["restore", &url, "--vault", "./vault", "--to", to, "--target", target]);
        assert_eq!(ended.code, 0, "{target}: {}{}", ended.output, ended.errors);
        assert!(ended.output.contains("not proven"), "{target}: {}", ended.output);
        let read = |name: &str| fs::read_to_string(program.folder().join(target).join(name)).ok();
        assert_eq!((read("kept.txt").as_deref(), read("notes.txt").as_deref()), (Some("kept"), expected), "{target}: {}", ended.output);
    }
    assert_eq!(serving.stop(), 0);
}
