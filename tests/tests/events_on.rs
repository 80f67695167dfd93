//! Events that are turned off at the bucket and on again: a gap in what is known, from when they were last seen to be on.

use handlers::events_on::{EventsOn, News};
use pipeline::changelog::coverage::Gap;
use pipeline::model::Timestamp;
use tests::small_world::{Broken, FAULTS, Fault, SmallWorld};

const NOTIFICATION: &str = "notification";
const ON: &str = "<NotificationConfiguration><EventBridgeConfiguration/></NotificationConfiguration>";

/// A bucket that sends events, which a listing has seen.
fn lived() -> SmallWorld {
    let mut world = SmallWorld::new();
    world.bucket.set_document(NOTIFICATION, Some(ON));
    world.put("first", "there before");
    assert_eq!(world.reading().expect("nothing fails").events_on, Some(true));
    world.tick(60);
    world
}

fn gaps(world: &SmallWorld) -> Vec<(Timestamp, Option<Timestamp>)> {
    let window = world.window().expect("there is one");
    window.gaps.into_iter().map(|Gap { from, to, .. }| (from, to)).collect()
}

#[test]
fn a_time_without_events_begins_when_they_were_last_on_and_ends_when_they_are_on_again() {
    let world = lived();
    let mut events = world.events_known().expect("nothing fails");
    assert_eq!(world.hear(&mut events, Some(true)), Ok(None));
    let last_on = world.now();
    world.tick(60);
    assert_eq!(world.hear(&mut events, Some(false)), Ok(Some(News::Off(last_on))));
    assert_eq!((events.gap(), gaps(&world)), (Some(last_on), vec![(last_on, None)]));
    world.tick(60);
    assert_eq!(world.hear(&mut events, Some(false)), Ok(None), "that is not new");
    world.tick(60);
    assert_eq!(world.hear(&mut events, Some(true)), Ok(Some(News::OnAgain(last_on))));
    assert_eq!((events.gap(), gaps(&world)), (None, vec![(last_on, Some(world.now()))]));
    world.tick(60);
    assert_eq!(world.hear(&mut events, Some(true)), Ok(None));
    assert_eq!(gaps(&world).len(), 1);
}

#[test]
fn a_bucket_that_does_not_say_changes_nothing() {
    let world = lived();
    let mut events = world.events_known().expect("nothing fails");
    assert_eq!((world.hear(&mut events, None), gaps(&world)), (Ok(None), vec![]));
    world.hear(&mut events, Some(false)).expect("nothing fails");
    assert_eq!(world.hear(&mut events, None), Ok(None));
    assert!(matches!(gaps(&world)[..], [(_, None)]), "that nobody may ask is no sign that they are on");
}

#[test]
fn a_bucket_of_which_nothing_was_known_is_off_from_when_it_says_so() {
    let world = SmallWorld::new();
    world.reconcile().expect("nothing fails");
    world.tick(60);
    let mut events = world.events_known().expect("nothing fails");
    assert_eq!(events, EventsOn::default());
    assert_eq!(world.hear(&mut events, Some(false)), Ok(Some(News::Off(world.now()))));
}

#[test]
fn another_process_goes_on_with_the_gap() {
    let world = lived();
    let mut events = world.events_known().expect("nothing fails");
    let Ok(Some(News::Off(since))) = world.hear(&mut events, Some(false)) else { panic!("they are off") };
    world.tick(60);
    let mut events = world.events_known().expect("nothing fails");
    assert_eq!((events.gap(), world.hear(&mut events, Some(false))), (Some(since), Ok(None)));
    assert_eq!(world.hear(&mut events, Some(true)), Ok(Some(News::OnAgain(since))));
    assert_eq!(gaps(&world), [(since, Some(world.now()))]);
}

#[test]
fn events_that_are_off_twice_between_two_listings_make_two_gaps() {
    let world = lived();
    for round in 1..=2 {
        let mut events = world.events_known().expect("nothing fails");
        world.hear(&mut events, Some(false)).expect("nothing fails");
        assert_eq!(gaps(&world).iter().filter(|(_, to)| to.is_none()).count(), 1, "{round}: it is open");
        world.tick(60);
        // As a process does that is killed before it has listed the bucket.
        world.hear(&mut events, Some(true)).expect("nothing fails");
        world.tick(60);
    }
    let gaps = gaps(&world);
    assert!(matches!(gaps[..], [(_, Some(first)), (second, Some(_))] if first <= second), "{gaps:?}");
}

#[test]
fn a_bucket_that_shows_no_notification_any_more_says_at_every_listing_that_events_are_off() {
    let world = lived();
    world.bucket.set_document(NOTIFICATION, None);
    for _ in 0..3 {
        assert_eq!(world.reading().expect("nothing fails").events_on, Some(false));
        world.tick(60);
    }
    world.bucket.set_document(NOTIFICATION, Some(ON));
    assert_eq!(world.reading().expect("nothing fails").events_on, Some(true));
}

#[test]
fn a_bucket_that_never_showed_a_notification_does_not_say() {
    let world = SmallWorld::new();
    for _ in 0..2 {
        assert_eq!(world.reading().expect("nothing fails").events_on, None);
        world.tick(60);
    }
    let world = lived();
    world.bucket.set_document(NOTIFICATION, None);
    world.bucket.deny_document(NOTIFICATION);
    assert_eq!(world.reading().expect("nothing fails").events_on, None, "nor does one that may not be asked");
}

/// A process that asks every minute.
fn asks(world: &SmallWorld) -> Result<(), Broken> {
    let mut events = world.events_known()?;
    world.ask_for_events(&mut events).map(drop)
}

/// A process that lists the bucket.
fn lists(world: &SmallWorld) -> Result<(), Broken> {
    let mut events = world.events_known()?;
    let reading = world.reading()?;
    world.hear(&mut events, reading.events_on).map(drop)
}

#[test]
fn that_events_are_off_is_noticed_although_the_one_who_noticed_it_broke_off_anywhere() {
    for (first, next) in [(asks as fn(&SmallWorld) -> _, asks as fn(&SmallWorld) -> _), (asks, lists), (lists, asks), (lists, lists)] {
        for fault in FAULTS.into_iter().filter(|fault| !matches!(fault, Fault::Truncate | Fault::Flip)) {
            for at in 0.. {
                let world = lived();
                world.bucket.set_document(NOTIFICATION, None);
                world.trap.set(at, fault);
                let ended = first(&world);
                let is_through = world.trap.seen().1;
                world.trap.set(u64::MAX, fault);
                world.tick(60);
                if !is_through {
                    next(&world).expect("there is one fault only");
                }
                assert!(matches!(gaps(&world)[..], [(_, None)]), "{fault:?} at {at}, {ended:?}: {:?}", gaps(&world));
                if is_through {
                    break;
                }
            }
        }
    }
}
