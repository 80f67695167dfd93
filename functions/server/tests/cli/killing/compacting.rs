//! Killed while segments are merged and a base is made.

use super::prepared::Prepared;
use super::{Stage, points, random_kills};
use crate::traffic::now;

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_was_killed_changes_nothing_and_is_done_by_the_next() {
    let prepared = Prepared::new("kill-compact").await;
    let (program, url) = (prepared.program(), prepared.world.url());
    let versions = prepared.versions("./vault");
    let check = |vault: &str| {
        assert_eq!(prepared.versions(vault), versions);
        prepared.compare(vault);
    };
    let complete = |vault: &str| {
        program.ok(&["compact", &url, "--vault", vault, "--base-now"]);
        let again = program.json(&["compact", &url, "--vault", vault, "--base-now"]);
        assert_eq!((again[0]["segments"].as_u64(), again[0]["base"].is_null()), (Some(0), true), "nothing was left: {}", again[0]);
        check(vault);
    };
    check("./vault");
    for point in points(Stage::Compacting) {
        let vault = prepared.copy(&point.replace("::", "-"));
        let compact = ["compact", &url, "--vault", &vault, "--base-now"];
        let mut killed = program.start(Some(point), &compact);
        assert!(killed.stands(), "{point}");
        killed.kill();
        check(&vault);
        // Another one is overtaken while it stands there, and goes on when all is done.
        let mut slow = program.start(Some(point), &compact);
        let stands = slow.stands();
        complete(&vault);
        assert_eq!(if stands { slow.go_on() } else { slow.end() }, 0, "{point}");
        complete(&vault);
    }

    let began = now();
    program.ok(&["compact", &url, "--vault", &prepared.copy("timed"), "--base-now"]);
    let takes = now().since(began);
    for number in 0..random_kills() {
        let vault = prepared.copy(&format!("random-{number}"));
        let killed = program.start(None, &["compact", &url, "--vault", &vault, "--base-now"]);
        tokio::time::sleep(prepared.moment(takes)).await;
        killed.kill();
        complete(&vault);
    }
}
