//! A listing that is resumed anywhere misses nothing, however small the server's pages are; and says what nobody had told of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pipeline::model::Clock;
use pipeline::s3::{Bucket, PutRequest, Versioning};
use pipeline::source::s3_scan::{Scan, Tie};
use tests::memory_bucket::{MemoryBucket, NoHook, Settings};
use tests::simulation::Options;
use tests::simulation::door::Door;
use tests::simulation::executor::block_on;
use tests::simulation::world::World;
use tests::small_world::SmallWorld;

/// A bucket of some objects with several versions each, all of one second, behind pages of this size.
fn bucket(page: i32) -> Arc<dyn Bucket> {
    let mut world = World::new(1, &Options::default());
    Arc::get_mut(&mut world).expect("nobody else has it yet").swarm.page = page;
    let bucket = MemoryBucket::new(Settings::aws("photos", 7), world.clone(), Arc::new(NoHook));
    bucket.set_versioning(Versioning::Enabled);
    for (object, versions) in [("a", 1), ("b", 4), ("c", 2), ("d", 1)] {
        for content in 0..versions {
            bucket.put_object(object, &PutRequest::default(), Bytes::from(vec![content])).expect("its key is legal");
        }
    }
    Arc::new(Door { bucket, world })
}

fn versions(ties: &[Tie]) -> BTreeSet<String> {
    ties.iter().flatten().map(|listed| listed.version.clone()).collect()
}

#[test]
fn what_a_page_shows_was_there_when_that_page_was_answered_however_late_the_next_one_comes() {
    let mut world = World::new(1, &Options::default());
    Arc::get_mut(&mut world).expect("nobody else has it yet").swarm.page = 1;
    let bucket = MemoryBucket::new(Settings::aws("photos", 7), world.clone(), Arc::new(NoHook));
    bucket.set_versioning(Versioning::Enabled);
    for object in ["a", "b"] {
        bucket.put_object(object, &PutRequest::default(), Bytes::from_static(b"content")).expect("its key is legal");
    }
    let door: Arc<dyn Bucket> = Arc::new(Door { bucket: bucket.clone(), world: world.clone() });
    let mut scan = Scan::new(door, "", None);
    let shown = world.now();
    assert_eq!(block_on(scan.next()).expect("nothing fails").map(|page| page.ties.len()), Some(0), "it may go on on the next page");
    world.alone(world.sleep(Duration::from_secs(60)));
    let ties = block_on(scan.next()).expect("nothing fails").expect("there is more").ties;
    let (a, b) = (ties[0][0].at.expect("it says"), ties[1][0].at.expect("it says"));
    assert!(a.since(shown) < Duration::from_secs(30) && b.since(shown) > Duration::from_secs(30), "{a}, {b}");
}

#[test]
fn what_is_resumed_after_any_page_misses_nothing() {
    for page in [1, 2, 3, 1_000] {
        let bucket = bucket(page);
        let mut scan = Scan::new(bucket.clone(), "", None);
        let mut handed_on: Vec<Tie> = Vec::new();
        while let Some(page) = block_on(scan.next()).expect("nothing fails") {
            handed_on.extend(page.ties);
            let Some(resume) = page.resume else { continue };
            let mut all = handed_on.clone();
            let mut resumed = Scan::new(bucket.clone(), "", Some(resume.clone()));
            while let Some(page) = block_on(resumed.next()).expect("nothing fails") {
                all.extend(page.ties);
            }
            assert_eq!(versions(&all).len(), 8, "resumed after {resume:?}");
        }
        assert_eq!(versions(&handed_on).len(), 8);
    }
}

#[test]
fn a_listing_counts_what_events_should_have_told_long_before() {
    let mut world = SmallWorld::new();
    world.put("there before", "protection began");
    world.tick(600);
    assert_eq!(world.reading().expect("nothing fails").untold, 0, "the first one knows nothing");
    // An event that has come, one that was lost, and one that may yet come.
    world.put("told", "a");
    world.intake().expect("nothing fails");
    world.put("untold", "b");
    world.lose_events();
    world.tick(301);
    world.put("late", "c");
    world.tick(3);
    let reading = world.reading().expect("nothing fails");
    assert_eq!((reading.found, reading.untold), (2, 1));
    world.tick(600);
    assert_eq!(world.reading().expect("nothing fails").untold, 0, "it is known now");
}
