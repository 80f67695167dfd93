//! Who did it: what an event says of that is in the history, also where it does not name the version.

use futures::FutureExt;
use handlers::browse::{HistoryOf, history};
use pipeline::base::inputs::Inventory;
use pipeline::model::change::Op;
use pipeline::model::{ResourceId, Timestamp};
use serde_json::json;
use tests::small_world::SmallWorld;

#[test]
fn a_deletion_of_which_an_event_without_a_version_tells_is_somebodys() {
    let mut world = SmallWorld::new();
    world.put("a", "content");
    world.reconcile().expect("nothing fails");
    world.tick(5);
    world.delete("a");
    world.lose_events();
    let event = json!({
        "version": "0", "id": "0", "detail-type": "Object Deleted", "source": "aws.s3", "time": world.now(), "region": "us-east-1",
        "resources": ["arn:aws:s3:::photos"],
        "detail": {
            "version": "0", "bucket": { "name": "photos" }, "reason": "DeleteObject", "deletion-type": "Delete Marker Created",
            "requester": "mallory", "object": { "key": "a" },
        },
    });
    world.post(event.to_string());
    world.tick(1);
    world.intake().expect("nothing fails");
    assert_eq!(world.dead_letters(), [""; 0]);
    let told = async {
        let vault = world.vault();
        let inventory = Inventory::load(&vault, &ResourceId::bucket("photos").expect("a name")).await.expect("memory");
        let of = HistoryOf { object: "a".to_owned(), recursive: false, from: Timestamp::MIN, to: Timestamp::MAX };
        history(&vault, &inventory, &of, 10).await.expect("memory")
    };
    let told = told.now_or_never().expect("memory answers at once");
    let markers: Vec<_> = told.iter().filter(|change| change.op == Op::Put && change.marker).collect();
    assert_eq!(markers.iter().map(|marker| marker.requester.as_deref()).collect::<Vec<_>>(), [Some("mallory")], "{told:?}");
}
