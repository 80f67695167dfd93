//! Killed while a vault is made and a protection is recorded, and during the first full backup.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use serde_json::Value;

use super::{Stage, points};
use crate::program::Program;
use crate::world::{World, seaweed};

/// More than ten pages of a listing, so that a cursor is written.
const MARKERS: usize = 10_500;
const OBJECTS: usize = 30;
/// The most that S3 deletes in one request.
const DELETES_PER_REQUEST: usize = 1_000;

fn protections(program: &Program) -> Vec<Value> {
    let status = program.json(&["status", "--vault", "./vault"]);
    status[0]["vaults"][0]["resources"].as_array().expect("a list").iter().map(|resource| resource["protection"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protection_that_was_killed_is_made_by_asking_again() {
    let mut world = World::new(seaweed(), "kill-protect", true).await;
    for point in points(Stage::Protecting) {
        world.program = Program::new().with(seaweed().environment());
        let (program, url) = (&world.program, world.url());
        let protect = ["protect", &url, "--vault", "./vault", "--events", "list:1"];
        let mut first = program.start(Some(point), &protect);
        assert!(first.stands(), "{point}");
        first.kill();
        // The same once more would change nothing, where the record was written.
        let otherwise = ["protect", &url, "--vault", "./vault", "--events", "list:2"];
        let mut slow = program.start(Some(point), &otherwise);
        assert!(slow.stands(), "{point}");
        program.ok(&protect);
        assert_eq!(slow.go_on(), 0, "{point}");
        let found = protections(program);
        assert_eq!((found.len(), found[0]["status"].as_str()), (1, Some("ACTIVE")), "{point}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_full_backup_that_was_killed_goes_on_and_misses_nothing() {
    let world = World::new(seaweed(), "kill-scan", true).await;
    let (program, url) = (&world.program, world.url());
    for number in 0..OBJECTS {
        world.put(&format!("object-{number:05}"), &format!("content {number}")).await;
    }
    // Markers are made a thousand at a time, and fill pages as well as anything.
    let identifier = |number: usize| ObjectIdentifier::builder().key(format!("marker-{number:05}")).build().expect("it has a key");
    for from in (0..MARKERS).step_by(DELETES_PER_REQUEST) {
        let to = MARKERS.min(from + DELETES_PER_REQUEST);
        let delete = Delete::builder().set_objects(Some((from..to).map(identifier).collect())).build().expect("it has objects");
        world.client.delete_objects().bucket(&world.bucket).delete(delete).send().await.expect("markers");
    }
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    // Before there is a cursor; when there is one; and when all is done but said.
    for point in points(Stage::Scanning).chain(["capture::after-segment@2", "reconcile::before-record"]) {
        let mut serving = program.serve_until(Some(point), &["--vault", "./vault"]);
        assert!(serving.running.stands(), "{point}");
        serving.running.kill();
    }
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_eq!(serving.stop(), 0);
    let status = program.json(&["status", "--vault", "./vault"]);
    let resource = &status[0]["vaults"][0]["resources"][0];
    assert_eq!((resource["versions"].as_u64(), resource["lost"].as_u64()), (Some((MARKERS + OBJECTS) as u64), Some(0)));
    assert_eq!(program.ok(&["ls", &url, "--vault", "./vault"]).lines().count(), OBJECTS);
}
