//! An object that cannot be read does not hold up the others, and comes back when it can be.

use bytes::Bytes;
use futures::FutureExt;
use pipeline::s3::{Bucket, PutRequest, Tags};
use pipeline::target::Mode;
use tests::small_world::{Hidden, SmallWorld, contents};

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

#[test]
fn a_content_whose_tags_are_said_not_to_be_there_is_kept_and_that_is_named() {
    for told in [false, true] {
        let mut world = SmallWorld::new();
        world.put("first", "first");
        world.tick(2);
        world.reconcile().expect("nothing fails");
        world.make_tagless("a");
        world.tick(5);
        let request = PutRequest { tags: Tags::from([("k".to_owned(), "v".to_owned())]), ..PutRequest::default() };
        let put = world.bucket.put_object("a", &request, Bytes::from_static(b"content")).expect("its key is legal");
        world.note();
        if told {
            world.tell(&put);
            world.intake().expect("nothing fails");
        }
        world.tick(5);
        world.reconcile().expect("nothing fails");
        world.tick(5);
        world.put("z", "afterwards");
        world.intake().expect("nothing fails");
        world.tick(5);
        world.intake().expect("nothing fails");
        for _ in 0..2 {
            let into = world.elsewhere();
            let report = world.restore(world.instants()[1], Mode::Overwrite, &into).expect("nothing fails");
            assert_eq!(contents(&into), world.at(world.instants()[1]));
            assert_eq!((report.lost.count, report.uncertain.count), (0, 1), "{report:?}");
            assert!(
                report.uncertain.first[0].contains("its tags of") && report.uncertain.first[0].contains("could not be read"),
                "{report:?}"
            );
            world.compact().expect("nothing fails");
        }
    }
}

#[test]
fn a_content_is_kept_whose_tags_and_acl_nobody_may_see_and_they_are_read_once_somebody_may() {
    for (hidden, told) in [(Hidden::Denied, false), (Hidden::Denied, true), (Hidden::Broken, false)] {
        let mut world = SmallWorld::with_acls();
        world.put("first", "first");
        world.tick(2);
        world.reconcile().expect("nothing fails");
        world.hide_properties(Some((hidden, "")));
        let tags = Tags::from([("k".to_owned(), "v".to_owned())]);
        let request = PutRequest { tags: tags.clone(), ..PutRequest::default() };
        // More than a listing may leave unread.
        for number in 0..120 {
            let key = format!("a{number}");
            let put = world.bucket.put_object(&key, &request, Bytes::from(key.clone())).expect("its key is legal");
            if told {
                world.tell(&put);
            }
        }
        world.note();
        let seen = world.instants()[1];
        if told {
            world.intake().expect("nothing fails");
            assert_eq!(world.waiting(), 0, "a right that is missing holds nothing up");
        }
        world.tick(5);
        world.reconcile().expect("nor does it break a listing off");
        world.tick(5);
        world.reconcile().expect("nor the next one");
        let into = world.elsewhere();
        let report = world.restore(seen, Mode::Overwrite, &into).expect("nothing fails");
        assert_eq!(contents(&into), world.at(seen), "{hidden:?}");
        assert_eq!((report.lost.count, report.tally.failed), (0, 0), "{report:?}");
        assert_eq!(report.uncertain.count, 240, "{report:?}");
        let named = &report.uncertain.first[0];
        assert!(named.contains("could not be read: ") && !named.contains("it could not be read"), "{named}");

        world.hide_properties(None);
        world.tick(5);
        world.reconcile().expect("nothing fails");
        for _ in 0..2 {
            let into = world.elsewhere();
            let report = world.restore(seen, Mode::Overwrite, &into).expect("nothing fails");
            assert_eq!(report.uncertain.count, 0, "{hidden:?}, told {told}: {report:?}");
            let restored = into.tags("a7", None).now_or_never().expect("memory answers").expect("it is there");
            assert_eq!(restored, tags);
            world.tick(5);
            world.compact().expect("nothing fails");
        }
    }
}

#[test]
fn some_that_stay_hidden_do_not_keep_others_from_being_read_again() {
    read_again_beside(600, 1);
}

#[test]
fn nor_do_many_for_ever() {
    read_again_beside(3_000, 30);
}

/// Beside so many that stay hidden, one that does not is read by one of so many listings.
fn read_again_beside(hidden: u64, listings: usize) {
    let mut world = SmallWorld::with_acls();
    world.put("first", "first");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.hide_properties(Some((Hidden::Denied, "")));
    // More than are read again at once, and before it.
    for number in 0..hidden {
        world.bucket.put_object(&format!("a{number}"), &PutRequest::default(), Bytes::from_static(b"x")).expect("its key is legal");
    }
    world.bucket.put_object("z", &PutRequest::default(), Bytes::from_static(b"z")).expect("its key is legal");
    world.note();
    let seen = world.instants()[1];
    world.tick(5);
    world.reconcile().expect("nothing fails");
    world.hide_properties(Some((Hidden::Denied, "a")));
    let uncertain = |world: &SmallWorld| {
        let report = world.restore(seen, Mode::Overwrite, &world.elsewhere()).expect("nothing fails");
        report.uncertain.count
    };
    assert_eq!(uncertain(&world), hidden + 1);
    for _ in 0..listings {
        // As a schedule does it.
        world.tick(21_600);
        world.reconcile().expect("nothing fails");
        if uncertain(&world) == hidden {
            return;
        }
    }
    panic!("what belongs to z was not read");
}
