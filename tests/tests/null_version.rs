//! Version `null`, which is overwritten in place: as much of its history as its events tell.

use pipeline::target::Mode;
use tests::small_world::{Contents, SmallWorld, contents};

fn restored(world: &SmallWorld, second: usize) -> Contents {
    let into = world.elsewhere();
    world.restore(world.instants()[second], Mode::Overwrite, &into).expect("nothing fails");
    contents(&into)
}

#[test]
fn what_was_put_and_removed_before_anybody_looked_is_gone_from_then_on() {
    let mut world = SmallWorld::suspended();
    world.put("a", "first");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world.put("b", "short-lived");
    world.tick(2);
    world.purge("b");
    world.tick(2);
    world.put("c", "last");
    world.intake().expect("nothing fails");
    world.tick(3);
    world.intake().expect("nothing fails");
    assert_eq!(restored(&world, 2).into_keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(restored(&world, 3).into_keys().collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn a_removal_that_is_told_late_is_part_of_the_history_although_it_is_there_again() {
    let mut world = SmallWorld::suspended();
    world.put("a", "first");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world.purge("a");
    world.tick(2);
    world.put("a", "again");
    world.tick(2);
    world.intake().expect("nothing fails");
    world.tick(3);
    world.intake().expect("nothing fails");
    assert_eq!(restored(&world, 1), Contents::new());
    assert_eq!(restored(&world, 2), world.at(world.instants()[2]));
}
