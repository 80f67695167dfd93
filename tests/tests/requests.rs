//! What a job costs in requests to the vault's store: that is what a provider bills, and what makes a far store slow.

use std::time::Duration;

use pipeline::target::Mode;
use tests::small_world::{Fault, SmallWorld, contents};

/// Operations of the vault's store in a restore of this world as it is, which must be right.
fn operations_of_a_restore(world: &SmallWorld) -> u64 {
    let into = world.elsewhere();
    world.trap.set(u64::MAX, Fault::CrashBefore);
    // The second in which the last listing began, and the one before, are not proven.
    let to = world.now().minus(Duration::from_millis(1_500));
    let report = world.restore(to, Mode::Skip, &into).expect("nothing fails");
    let (operations, _) = world.trap.seen();
    assert_eq!(report.tally.failed, 0);
    assert_eq!(contents(&into), contents(&world.bucket));
    operations
}

fn with_objects(count: usize) -> SmallWorld {
    let mut world = SmallWorld::new();
    for index in 0..count {
        world.put(&format!("photos/{index:05}"), &format!("content number {index}"));
    }
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world
}

#[test]
fn a_restore_of_a_thousand_small_objects_asks_the_vault_as_often_as_one_of_ten() {
    let (few, many) = (operations_of_a_restore(&with_objects(10)), operations_of_a_restore(&with_objects(1_000)));
    assert!(many <= few + 2, "{few} operations for ten objects, {many} for a thousand");
}
