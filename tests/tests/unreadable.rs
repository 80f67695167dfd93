//! An object that cannot be read does not hold up the others, and comes back when it can be.

use pipeline::target::Mode;
use tests::small_world::{SmallWorld, contents};

#[test]
fn an_object_that_cannot_be_read_is_lost_until_it_can_be() {
    let mut world = SmallWorld::new();
    world.put("good", "first");
    world.put("bad", "hidden");
    world.make_unreadable("bad", true);
    world.tick(2);
    world.reconcile().expect("one object does not break off a reading");
    world.tick(5);
    world.put("later", "second");
    world.tick(3);
    world.reconcile().expect("nor does it the next time");
    world.tick(5);
    world.reconcile().expect("nor after that");
    let seen = world.instants()[2];

    let into = world.elsewhere();
    let report = world.restore(seen, Mode::Overwrite, &into).expect("the others are there");
    assert_eq!(contents(&into).into_keys().collect::<Vec<_>>(), ["good", "later"]);
    assert!(report.to_string().contains("bad"), "what is lost is named: {report}");

    world.make_unreadable("bad", false);
    world.reconcile().expect("nothing fails");
    let into = world.elsewhere();
    world.restore(seen, Mode::Overwrite, &into).expect("nothing fails");
    assert_eq!(contents(&into), world.at(seen));
}
