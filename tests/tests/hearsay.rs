//! What an event tells of a version that nobody else has seen, at a server whose events are a reason to look and no more.

use pipeline::model::Timestamp;
use pipeline::s3::PutRequest;
use pipeline::target::Mode;
use serde_json::Value;
use tests::small_world::{SmallWorld, contents};

/// That a delete marker was put, as MinIO tells it.
fn marker_event(object: &str, version: &str, at: Timestamp) -> String {
    event("minio-marker.json", object, Some(version), at)
}

/// An event of MinIO's, of this object.
fn event(example: &str, object: &str, version: Option<&str>, at: Timestamp) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("events").join(example);
    let text = std::fs::read_to_string(path).expect("an example");
    let mut event: Value = serde_json::from_str(&text).expect("it is JSON");
    let record = event.pointer_mut("/Records/0").expect("it has one record");
    record["eventTime"] = at.to_string().into();
    record["s3"]["bucket"]["name"] = "photos".into();
    record["s3"]["object"]["key"] = object.into();
    let told = record["s3"]["object"].as_object_mut().expect("it has one object");
    match version {
        Some(version) => drop(told.insert("versionId".to_owned(), version.into())),
        None => drop(told.remove("versionId")),
    }
    if let Some(key) = event.get_mut("Key") {
        *key = format!("photos/{object}").into();
    }
    event.to_string()
}

#[test]
fn a_delete_marker_that_came_and_went_hides_nothing() {
    let mut world = SmallWorld::new();
    world.put("a", "content");
    world.keep();
    world.delete("a");
    let marker = world.newest("a");
    assert!(marker.marker);
    world.tick(2);
    world.purge("a");
    world.lose_events();
    world.tick(2);
    world.post(marker_event("a", &marker.version, marker.modified));
    world.intake().expect("nothing fails");
    assert_eq!((world.waiting(), world.dead_letters().len()), (0, 0));
    world.tick(60);
    world.intake().expect("nothing fails");
    let latest = world.window().expect("nothing fails").latest;
    // Into a place that holds the object: it is not removed.
    let into = world.elsewhere();
    world.restore(latest, Mode::Overwrite, &into).expect("nothing fails");
    assert_eq!(contents(&into).keys().collect::<Vec<_>>(), ["a"]);
    let report = world.restore(latest, Mode::Exact, &into).expect("nothing fails");
    assert_eq!(report.tally.deletes, 0, "{report:?}");
    assert_eq!(contents(&into).keys().collect::<Vec<_>>(), ["a"]);
}

/// Two versions that are gone, and of which one event tells, which names the newer one or none.
fn two_are_gone(example: &str, named: bool) -> (SmallWorld, Timestamp) {
    let mut world = SmallWorld::new();
    world.put("a", "one");
    world.tick(5);
    world.put("a", "two");
    world.keep();
    let newer = world.newest("a").version;
    world.purge("a");
    let told = world.now();
    world.tick(30);
    world.purge("a");
    world.lose_events();
    world.tick(2);
    world.post(event(example, "a", named.then_some(&newer), told));
    world.intake().expect("nothing fails");
    assert_eq!((world.waiting(), world.dead_letters().len()), (0, 0));
    world.tick(60);
    world.intake().expect("nothing fails");
    (world, told)
}

#[test]
fn a_purge_that_names_no_version_does_not_date_another_one() {
    let (world, told) = two_are_gone("minio-delete.json", false);
    let between = told.plus(std::time::Duration::from_secs(10));
    assert_eq!(world.at(between)["a"], "one");
    let into = world.elsewhere();
    into.put_object("a", &PutRequest::default(), "somebody's".into()).expect("its key is legal");
    let report = world.restore(between, Mode::Exact, &into).expect("nothing fails");
    assert!(report.uncertain.count > 0 && report.tally.deletes == 0, "{report:?}");
    assert!(contents(&into).contains_key("a"));
    let latest = world.window().expect("nothing fails").latest;
    let report = world.restore(latest, Mode::Exact, &into).expect("nothing fails");
    assert!(report.uncertain.count == 0 && contents(&into).is_empty(), "{report:?}");
}

#[test]
fn that_all_versions_are_gone_says_when() {
    for named in [true, false] {
        let (world, told) = two_are_gone("minio-delete-all-versions.json", named);
        let into = world.elsewhere();
        let report = world.restore(told, Mode::Exact, &into).expect("nothing fails");
        assert!(report.uncertain.count == 0 && contents(&into).is_empty(), "{report:?}");
        let before = told.minus(std::time::Duration::from_secs(1));
        let report = world.restore(before, Mode::Exact, &into).expect("nothing fails");
        assert_eq!((report.uncertain.count, &contents(&into)["a"][..]), (0, &b"two"[..]), "{report:?}");
    }
}
