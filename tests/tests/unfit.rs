//! Stores that cannot hold a vault: they are tried out, and refused with the promise that they break.

use futures::FutureExt;
use handlers::vault::{OpenError, StoreKind, probe};
use tests::small_world::SmallWorld;

fn refused(world: &SmallWorld) -> String {
    match probe(&world.vault(), &StoreKind::Other, "tried").now_or_never().expect("memory answers at once") {
        Err(OpenError::Unfit { broken }) => broken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_overwrites_what_is_there_is_refused() {
    let world = SmallWorld::new();
    world.trap.let_overwrite();
    let broken = refused(&world);
    assert!(broken.contains("it needs an atomic create-if-absent"), "{broken}");
}

#[test]
fn a_store_whose_listing_lags_is_refused() {
    let world = SmallWorld::new();
    world.trap.lag("state/v1/probe/tried/rivals", 1);
    assert_eq!(refused(&world), "a listing does not show what was just written");
}

#[test]
fn a_store_that_does_all_that_is_taken() {
    let promises =
        probe(&SmallWorld::new().vault(), &StoreKind::Other, "tried").now_or_never().expect("memory answers at once").expect("it is fit");
    assert!(promises.create_if_absent && promises.ranged_get && promises.lists_at_once);
    assert_eq!((promises.wrong_sha256, promises.synced), (None, None), "nothing is said that was not tried");
}
