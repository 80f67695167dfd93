//! Several buckets share a feed. What is wrong with one of them is no matter of the others.

use bytes::Bytes;
use pipeline::s3::PutRequest;
use pipeline::target::Mode;
use tests::small_world::{Neighbour, SmallWorld, contents};

#[test]
fn a_source_that_does_not_answer_holds_up_its_own_events_only() {
    let mut world = SmallWorld::new();
    let neighbour = world.neighbour();
    world.reconcile().expect("nothing fails");
    world.tick(2);
    let put = neighbour.bucket.put_object("b", &PutRequest::default(), Bytes::from_static(b"beside")).expect("its key is legal");
    neighbour.answers(false);
    world.post(Neighbour::event(&put));
    world.put("a", "content");
    assert_eq!(world.intake_beside(&neighbour, 2).expect("nothing fails"), 0);
    assert_eq!(world.waiting(), 1, "the event of the neighbour comes again");
    let now = world.now();
    world.tick(2);
    neighbour.answers(true);
    assert_eq!(world.intake_beside(&neighbour, 2).expect("nothing fails"), 1);
    assert_eq!((world.waiting(), world.dead_letters().len()), (0, 0));
    let into = world.elsewhere();
    world.restore(now, Mode::Overwrite, &into).expect("nothing fails");
    assert_eq!(contents(&into), world.at(now));
}

#[test]
fn an_event_from_the_future_is_refused_although_the_source_of_another_bucket_does_not_say_its_time() {
    let mut world = SmallWorld::new();
    let neighbour = world.neighbour();
    neighbour.answers(false);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world.put("a", "content");
    world.intake().expect("nothing fails");
    world.forge(tests::memory_bucket::Effect::Purged, &world.newest("a"), "2200-01-01T00:00:00Z".parse().expect("it is a time"));
    world.intake_beside(&neighbour, 1).expect("nothing fails");
    let letters = world.dead_letters();
    assert!(letters.len() == 1 && letters[0].contains("claims to have happened at 2200-01-01T00:00:00Z"), "{letters:?}");
}

#[test]
fn what_is_told_of_a_bucket_that_is_not_open_yet_waits_for_it() {
    let mut world = SmallWorld::new();
    let neighbour = world.neighbour();
    world.reconcile().expect("nothing fails");
    world.tick(2);
    let put = neighbour.bucket.put_object("b", &PutRequest::default(), Bytes::from_static(b"beside")).expect("its key is legal");
    world.post(Neighbour::event(&put));
    world.put("a", "content");
    let told = world.now();
    assert_eq!(world.intakes_alone(&["photos", Neighbour::NAME], &[40, 40, 2]), Ok(vec![1, 1, 1]));
    assert_eq!(world.dead_letters().len(), 0);
    let latest = world.window().expect("nothing fails").latest;
    assert!(latest >= told, "what is told of the other bucket holds back none of this one: {latest}");
    assert_eq!(world.intake_beside(&neighbour, 1), Ok(1));
    assert_eq!((world.waiting(), world.dead_letters().len()), (0, 0));
}

#[test]
fn a_bucket_that_nobody_protects_is_waited_for_a_while_and_then_nobody_s() {
    let world = SmallWorld::new();
    let neighbour = world.neighbour();
    world.reconcile().expect("nothing fails");
    world.tick(2);
    let put = neighbour.bucket.put_object("b", &PutRequest::default(), Bytes::from_static(b"beside")).expect("its key is legal");
    world.post(Neighbour::event(&put));
    assert_eq!(world.intakes_alone(&["photos"], &[29, 2, 2]), Ok(vec![1, 1, 0]));
    let letters = world.dead_letters();
    assert!(letters.len() == 1 && letters[0].contains("albums is not protected through this feed"), "{letters:?}");
}
