//! Killed while the server copies a large content: into the vault, and back out of it.

use super::{Stage, points};
use crate::copies::{Beside, large};
use crate::world::{make_bucket, seaweed};

/// Ten parts of 8 MiB.
const LARGE_BYTES: usize = 80 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_killed_anywhere_is_gone_on_with() {
    let beside = Beside::new(seaweed(), "kill-copying").await;
    let (program, url) = (&beside.world.program, beside.world.url());
    let reconcile = ["reconcile", &url, "--vault", &beside.vault];
    // Not only the first part, but some in the middle of it all.
    let points: Vec<String> = points(Stage::Copying).map(str::to_owned).chain(["copy::part-copied@6".to_owned()]).collect();
    for (number, point) in points.iter().enumerate() {
        println!("{point}");
        let content = large(number as u64, LARGE_BYTES);
        let (version, _) = beside.upload("dump", &content).await;
        let mut killed = program.start(Some(point), &reconcile);
        assert!(killed.stands(), "{point}");
        killed.kill();
        assert!(beside.history("dump").iter().all(|line| line["version"] != *version), "{point}: no change before its content");
        beside.reconcile();
        let puts = beside.history("dump").iter().filter(|line| line["version"] == *version && line["lost"].is_null()).count();
        assert_eq!(puts, 1, "{point}");
        beside.is_kept("dump", &version, &content);
        assert_eq!(beside.files("body/").await.len(), number + 1, "{point}: one copy of each version");
        assert_eq!(beside.unfinished().await, 0, "{point}: what was begun was ended");
    }
    assert!(beside.files("pack/").await.values().sum::<i64>() < 1_000, "nothing was read instead");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_copy_the_same_version_none_disturbs_the_other() {
    let beside = Beside::new(seaweed(), "rival-copies").await;
    let (program, url) = (&beside.world.program, beside.world.url());
    let reconcile = ["reconcile", &url, "--vault", &beside.vault];
    for (number, point) in points(Stage::Copying).enumerate() {
        println!("{point}");
        let content = large(number as u64, LARGE_BYTES);
        let (version, _) = beside.upload("dump", &content).await;
        let mut slow = program.start(Some(point), &reconcile);
        assert!(slow.stands(), "{point}");
        beside.reconcile();
        beside.is_kept("dump", &version, &content);
        assert_eq!(slow.go_on(), 0, "{point}");
        beside.is_kept("dump", &version, &content);
        assert_eq!(beside.files("body/").await.len(), number + 1, "{point}");
        assert_eq!(beside.unfinished().await, 0, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_while_the_server_copied_shows_nothing_torn() {
    let beside = Beside::new(seaweed(), "kill-copying-back").await;
    let (program, url, client) = (&beside.world.program, beside.world.url(), &beside.world.client);
    let content = large(9, LARGE_BYTES);
    beside.upload("dump", &content).await;
    beside.reconcile();
    for (number, point) in points(Stage::Copying).enumerate() {
        let bucket = format!("kill-copying-back-{number}");
        make_bucket(client, &bucket, true).await;
        let target = format!("s3://{bucket}");
        let restore = ["restore", &url, "--vault", &beside.vault, "--to", "latest", "--target", &target];
        let mut killed = program.start(Some(point), &restore);
        assert!(killed.stands(), "{point}");
        killed.kill();
        let there = client.head_object().bucket(&bucket).key("dump").send().await.ok().and_then(|head| head.content_length);
        assert_eq!(there, (point == "copy::after-completion").then_some(LARGE_BYTES as i64), "{point}");
        program.ok(&restore);
        let found = client.get_object().bucket(&bucket).key("dump").send().await.expect("an object");
        assert!(found.body.collect().await.expect("a content").into_bytes() == content[..], "{point}");
    }
}
