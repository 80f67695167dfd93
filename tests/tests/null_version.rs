//! Version `null`, which is overwritten in place: as much of its history as its events tell.

use bytes::Bytes;
use pipeline::s3::PutRequest;
use pipeline::target::Mode;
use tests::small_world::{Contents, SmallWorld, contents};

/// Versioning is suspended, one object is there, and the truth has been read.
fn protected() -> SmallWorld {
    let mut world = SmallWorld::suspended();
    world.put("a", "first");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world
}

/// Something else is put and kept, so that all before it can be restored.
fn go_on(world: &mut SmallWorld) {
    world.tick(5);
    world.put("z", "afterwards");
    world.intake().expect("nothing fails");
    world.tick(5);
    world.intake().expect("nothing fails");
}

fn restored(world: &SmallWorld, second: usize) -> Contents {
    let into = world.elsewhere();
    world.restore(world.instants()[second], Mode::Overwrite, &into).expect("nothing fails");
    contents(&into)
}

#[test]
fn what_was_put_and_removed_before_anybody_looked_is_gone_from_then_on() {
    let mut world = protected();
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
    let mut world = protected();
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

/// Everything is taken in and the truth is read, twice; then the last state and all before are restored, without a base and with.
fn settled(world: &mut SmallWorld) -> Contents {
    let mut found = Vec::new();
    for _ in 0..2 {
        world.tick(20);
        world.intake().expect("nothing fails");
        world.reconcile().expect("nothing fails");
    }
    world.tick(5);
    world.put("z", "afterwards");
    world.tick(5);
    world.intake().expect("nothing fails");
    for _ in 0..2 {
        found.push(restored(world, world.instants().len() - 1));
        world.compact().expect("nothing fails");
    }
    assert_eq!(found[0], found[1], "a base changes nothing");
    found.remove(0)
}

#[test]
fn what_was_put_in_parts_and_told_by_nobody_is_there_although_it_was_removed_since_that_had_begun() {
    let mut world = protected();
    world.tick(5);
    let upload = world.bucket.begin_upload("a", &PutRequest::default()).expect("its key is legal");
    world.tick(5);
    world.purge("a");
    world.tick(5);
    world.bucket.complete_upload(upload, Bytes::from_static(b"in parts")).expect("nobody aborts it");
    world.note();
    assert_eq!(settled(&mut world), world.at(world.now()));
}

#[test]
fn what_was_put_again_within_the_second_of_its_removal_and_told_by_nobody_is_there() {
    let mut world = protected();
    world.tick(5);
    world.purge("a");
    world.bucket.put_object("a", &PutRequest::default(), Bytes::from_static(b"again")).expect("its key is legal");
    world.note();
    // A listing at once shows it, and cannot say whether it was removed after that.
    world.intake().expect("nothing fails");
    world.reconcile().expect("nothing fails");
    assert_eq!(settled(&mut world), world.at(world.now()));
}

#[test]
fn of_two_overwrites_within_a_second_the_last_is_known_although_nobody_told_of_it() {
    let mut world = protected();
    world.tick(5);
    world.put("a", "told");
    world.bucket.put_object("a", &PutRequest::default(), Bytes::from_static(b"not told")).expect("its key is legal");
    world.note();
    assert_eq!(settled(&mut world), world.at(world.now()));
}

#[test]
fn the_event_of_what_a_look_has_found_says_where_it_stands_in_its_second() {
    let mut world = protected();
    world.tick(5);
    let put = |content: &'static str| world.bucket.put_object("a", &PutRequest::default(), Bytes::from_static(content.as_bytes()));
    let [one, two, last] = ["one", "two", "last"].map(|content| put(content).expect("its key is legal"));
    world.note();
    // The event of the first leads to a look that finds the last.
    world.tell(&one);
    world.intake().expect("nothing fails");
    [&two, &last].into_iter().for_each(|happened| world.tell(happened));
    world.intake().expect("nothing fails");
    go_on(&mut world);
    assert_eq!(restored(&world, 2), world.at(world.instants()[2]));
}

#[test]
fn what_is_there_when_an_event_of_its_second_is_told_late_stays_there() {
    for removal in [false, true] {
        let mut world = protected();
        world.tick(5);
        let put = |content: &'static str| world.bucket.put_object("a", &PutRequest::default(), Bytes::from_static(content.as_bytes()));
        let early = put("early").expect("its key is legal");
        world.tick(5);
        let late = if removal { world.bucket.purge("a", "null").expect("it is there") } else { put("late").expect("its key is legal") };
        put("last").expect("its key is legal");
        world.note();
        // The event of what was there before them leads to a look that finds the last, of which nobody tells.
        world.tell(&early);
        world.intake().expect("nothing fails");
        world.tick(5);
        world.tell(&late);
        world.intake().expect("nothing fails");
        go_on(&mut world);
        assert_eq!(restored(&world, 2), world.at(world.instants()[2]), "{removal}");
    }
}

#[test]
fn the_removal_of_a_marker_just_put_puts_nothing() {
    let mut world = protected();
    world.tick(5);
    world.delete("a");
    world.intake().expect("nothing fails");
    world.purge("a");
    world.intake().expect("nothing fails");
    go_on(&mut world);
    let report = world.restore(world.instants()[2], Mode::Overwrite, &world.elsewhere()).expect("nothing fails");
    assert_eq!((report.matched, report.tally.failed), (0, 0), "{report:?}");
}

#[test]
fn what_was_put_in_parts_is_read_once_whoever_told_of_it() {
    let mut world = protected();
    let upload = world.bucket.begin_upload("a", &PutRequest::default()).expect("its key is legal");
    world.tick(10);
    let happened = world.bucket.complete_upload(upload, Bytes::from_static(b"in parts")).expect("nobody aborts it");
    world.tell(&happened);
    world.note();
    settled(&mut world);
    let before = world.segments();
    for _ in 0..3 {
        world.tick(60);
        world.reconcile().expect("nothing fails");
    }
    assert_eq!(world.segments(), before, "there is nothing new to write down");
}

#[test]
fn a_content_that_was_lost_and_is_put_again_within_its_second_is_read() {
    for removed in [false, true] {
        let mut world = protected();
        world.tick(2);
        let put = |world: &SmallWorld, content: &'static [u8]| {
            let happened = world.bucket.put_object("b", &PutRequest::default(), Bytes::from_static(content));
            happened.expect("its key is legal")
        };
        let first = put(&world, b"content");
        world.tell(&first);
        // It is not there when it is looked for, and nobody tells of what follows.
        if removed {
            world.bucket.undisturbed().purge("b", "null").expect("it is there");
        } else {
            put(&world, b"another");
        }
        world.intake().expect("nothing fails");
        world.tick(1);
        put(&world, b"content");
        world.note();
        world.tick(3);
        world.reconcile().expect("nothing fails");
        go_on(&mut world);
        assert_eq!(restored(&world, 1), world.at(world.instants()[1]), "removed: {removed}");
    }
}
