//! Two processes at the same work, and one of them killed in the middle of it.

use std::time::Duration;

use super::capturing::Sender;
use super::prepared::Prepared;
use crate::traffic::now;

/// How long two keep the same bucket.
const WORK_TIME: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn two_that_keep_the_same_bucket_and_two_that_compact_it_lose_and_invent_nothing() {
    let mut sender = Sender::new("kill-two").await;
    let (one, other) = (sender.serve(None), sender.serve(None));
    let until = now().plus(WORK_TIME);
    while now() < until {
        sender.work(&[&one.address, &other.address]).await;
        if sender.traffic.random.percent(5) {
            sender.compact_twice();
        }
    }
    one.running.kill();
    sender.check_acknowledged();
    sender.compact_twice();
    assert_eq!(other.stop(), 0);
    sender.complete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_restores_into_one_directory_the_second_is_refused() {
    let prepared = Prepared::new("kill-rivals").await;
    let (program, url, at) = (prepared.program(), prepared.world.url(), prepared.instants[0]);
    let to = at.to_string();
    let command = prepared.restore(&url, &to, "out");
    let mut first = program.start(Some("directory::before-record"), &command);
    assert!(first.stands());
    let second = program.run(&[&command[..], &["--mode", "overwrite"]].concat());
    assert_eq!((second.code, second.errors.contains("another restore is writing to it")), (4, true), "{}", second.errors);
    assert_eq!(first.go_on(), 0);
    prepared.resume(&[&command[..], &["--mode", "overwrite"]].concat(), "out", at);
}
