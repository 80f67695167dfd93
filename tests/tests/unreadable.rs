//! An object that cannot be read does not hold up the others, and comes back when it can be.

use bytes::Bytes;
use pipeline::s3::{PutRequest, Tags};
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
