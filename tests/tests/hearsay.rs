//! What an event tells of a version that nobody else has seen, at a server whose events are a reason to look and no more.

use pipeline::model::Timestamp;
use pipeline::target::Mode;
use serde_json::Value;
use tests::small_world::{SmallWorld, contents};

/// That a delete marker was put, as MinIO tells it.
fn marker_event(object: &str, version: &str, at: Timestamp) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/events/minio-marker.json");
    let text = std::fs::read_to_string(path).expect("an example");
    let mut event: Value = serde_json::from_str(&text).expect("it is JSON");
    let record = event.pointer_mut("/Records/0").expect("it has one record");
    record["eventTime"] = at.to_string().into();
    record["s3"]["bucket"]["name"] = "photos".into();
    record["s3"]["object"]["key"] = object.into();
    record["s3"]["object"]["versionId"] = version.into();
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
