//! Events that tell of what never happened, or not then. Whoever can write into the queue can send them; no content may
//! disappear from a restore by them.

use pipeline::model::Timestamp;
use pipeline::target::Mode;
use pipeline::target::report::RestoreReport;
use tests::memory_bucket::Effect;
use tests::small_world::{Contents, SmallWorld, contents};

/// An object that is there, whose event has come, and that a listing has shown two hours later, two seconds ago.
fn protected() -> SmallWorld {
    let mut world = SmallWorld::new();
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world.put("a", "content");
    world.tick(2);
    world.intake().expect("nothing fails");
    world.tick(7_200);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world
}

/// So many seconds before now.
fn ago(world: &SmallWorld, seconds: u64) -> Timestamp {
    world.now().minus(std::time::Duration::from_secs(seconds))
}

fn restored(world: &SmallWorld, at: Timestamp) -> (Contents, RestoreReport) {
    let into = world.elsewhere();
    let report = world.restore(at, Mode::Overwrite, &into).expect("nothing fails");
    (contents(&into), report)
}

/// What is restored to so many seconds ago, and whether anything of it is uncertain.
fn check(world: &SmallWorld, seconds_ago: u64, expected: &[&str], certain: bool) {
    let (found, report) = restored(world, ago(world, seconds_ago));
    assert_eq!(found.into_keys().collect::<Vec<_>>(), expected, "{seconds_ago} s ago");
    assert_eq!(report.uncertain.count == 0, certain, "{seconds_ago} s ago: {:?}", report.uncertain);
}

#[test]
fn a_purge_that_did_not_happen_takes_nothing_out_of_a_restore_and_is_kept_with_its_reason() {
    let world = protected();
    world.forge(Effect::Purged, &world.newest("a"), ago(&world, 1));
    world.intakes(5, 120).expect("nothing fails");
    let letters = world.dead_letters();
    assert_eq!(letters.len(), 1, "it was looked at for a while, and then it does not come again: {letters:?}");
    assert!(letters[0].contains("was told to be purged at 2026-08-22T14:00:05Z, and it is there"), "{letters:?}");
    check(&world, 7_805, &[], true);
    [7_804, 602, 600, 121].iter().for_each(|seconds_ago| check(&world, *seconds_ago, &["a"], true));
}

#[test]
fn a_purge_that_is_dated_back_before_a_listing_changes_nothing_before_that_listing() {
    let world = protected();
    let version = world.newest("a");
    world.bucket.undisturbed().purge("a", &version.version).expect("it is there");
    world.forge(Effect::Purged, &version, ago(&world, 4));
    world.tick(5);
    world.intake().expect("nothing fails");
    world.tick(5);
    world.intake().expect("nothing fails");
    assert_eq!(world.dead_letters(), [""; 0]);
    // Listed 12 seconds ago, purged 10 ago, noticed 5 ago.
    check(&world, 13, &["a"], true);
    check(&world, 8, &["a"], false);
    check(&world, 4, &[], true);
    // The event that tells the truth may come later.
    world.forge(Effect::Purged, &version, ago(&world, 10));
    world.intake().expect("nothing fails");
    check(&world, 11, &["a"], true);
    check(&world, 9, &[], true);
}

#[test]
fn a_purge_that_is_known_cannot_be_dated_back_before_a_listing_either() {
    let mut world = protected();
    let version = world.newest("a");
    world.purge("a");
    world.tick(2);
    world.intake().expect("nothing fails");
    world.forge(Effect::Purged, &version, ago(&world, 6));
    world.intake().expect("nothing fails");
    world.tick(2);
    world.intake().expect("nothing fails");
    check(&world, 5, &["a"], true);
    check(&world, 4, &[], true);
    let letters = world.dead_letters();
    assert!(letters.len() == 1 && letters[0].contains("it was still there"), "{letters:?}");
}

#[test]
fn a_purge_that_the_server_confirmed_wrongly_is_void_once_a_listing_shows_the_version() {
    let mut world = protected();
    world.make_deny("a", true);
    world.forge(Effect::Purged, &world.newest("a"), ago(&world, 1));
    world.intake().expect("nothing fails");
    world.make_deny("a", false);
    world.tick(2);
    world.intake().expect("nothing fails");
    check(&world, 1, &[], true);
    world.compact().expect("nothing fails");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world.put("b", "later");
    world.tick(2);
    world.intake().expect("nothing fails");
    for round in 0..2 {
        check(&world, 5, &["a"], true);
        check(&world, 1, &["a", "b"], true);
        if round == 0 {
            world.compact().expect("nothing fails");
        }
    }
    // And what was said to be purged can still be purged.
    world.purge("a");
    world.tick(2);
    world.intake().expect("nothing fails");
    world.tick(1);
    world.intake().expect("nothing fails");
    check(&world, 4, &["a", "b"], true);
    check(&world, 1, &["b"], true);
}

#[test]
fn a_put_is_dated_as_the_source_dates_it() {
    for dated in [3_600, 70] {
        let mut world = protected();
        world.tick(3_600);
        world.put("b", "content");
        world.lose_events();
        world.forge(Effect::Put, &world.newest("b"), ago(&world, dated));
        world.tick(3_600);
        world.intake().expect("nothing fails");
        check(&world, 3_601, &["a"], true);
        check(&world, 3_600, &["a", "b"], true);
    }
}

#[test]
fn a_put_that_is_dated_ahead_is_there_from_when_the_source_dates_it_to() {
    let mut world = protected();
    world.put("b", "content");
    world.lose_events();
    world.tick(600);
    world.forge(Effect::Put, &world.newest("b"), ago(&world, 300));
    world.intake().expect("nothing fails");
    world.tick(1);
    world.intake().expect("nothing fails");
    check(&world, 602, &["a"], true);
    check(&world, 500, &["a", "b"], false);
    check(&world, 300, &["a", "b"], true);
}

#[test]
fn an_event_that_says_otherwise_of_a_put_that_is_known_is_kept_with_its_reason() {
    let mut world = SmallWorld::new();
    world.put("a", "content");
    world.lose_events();
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.tick(600);
    world.forge(Effect::Put, &world.newest("a"), ago(&world, 1));
    world.intake().expect("nothing fails");
    check(&world, 599, &["a"], true);
    let letters = world.dead_letters();
    assert!(letters.len() == 1 && letters[0].contains("was put at 2026-08-22T12:00:00Z, and this tells of"), "{letters:?}");
}

#[test]
fn a_delete_marker_that_nobody_put_hides_nothing_for_long_and_not_without_saying_so() {
    let world = protected();
    let mut marker = world.newest("a");
    marker.version = "never".to_owned();
    (marker.marker, marker.size, marker.etag) = (true, None, None);
    world.forge(Effect::Marker, &marker, world.now());
    world.tick(5);
    world.intake().expect("nothing fails");
    world.tick(5);
    world.intake().expect("nothing fails");
    check(&world, 11, &["a"], true);
    check(&world, 8, &[], false);
    check(&world, 4, &["a"], true);
}

#[test]
fn a_delete_marker_is_dated_as_the_source_dates_it() {
    let mut world = protected();
    world.tick(3_600);
    world.delete("a");
    world.lose_events();
    let marker = world.newest("a");
    world.forge(Effect::Marker, &marker, ago(&world, 3_600));
    world.tick(2);
    world.intake().expect("nothing fails");
    check(&world, 3, &["a"], true);
    check(&world, 2, &[], true);
}

#[test]
fn an_event_that_is_told_again_adds_nothing() {
    let mut world = protected();
    world.purge("a");
    world.tick(1);
    world.put("b", "content");
    let version = world.newest("b");
    let put = world.now();
    world.intake().expect("nothing fails");
    let before = world.trap.paths("log/").len();
    world.forge(Effect::Put, &version, put);
    world.intake().expect("nothing fails");
    // No more than the mark that all has arrived.
    assert_eq!(world.trap.paths("log/").len(), before);
}

#[test]
fn a_message_is_one_dead_letter_however_much_of_it_cannot_be_taken_and_however_often_it_comes() {
    let world = protected();
    let strange: Vec<String> = (0..300).map(|number| format!("{{\"Records\":[{{\"eventSource\":\"aws:s3\",\"n\":{number}}}]}}")).collect();
    for _ in 0..2 {
        world.post(format!("[{}]", strange.join(",")));
        world.intake().expect("nothing fails");
        world.tick(5);
    }
    assert_eq!(world.trap.paths("dead/v1").len(), 1);
    assert_eq!(world.dead_letters().len(), 100, "the first reasons are enough");
}
