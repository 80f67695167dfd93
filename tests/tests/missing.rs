//! Segments that somebody has taken out of the log: noticed, named, and healed as far as that can be.

use pipeline::changelog::{Link, SegmentName};
use pipeline::target::Mode;
use pipeline::target::report::RestoreReport;
use tests::small_world::{Broken, Contents, SmallWorld, contents};

/// A log of several segments: the first scan, events of several processes, a reading of the truth, and more events.
fn lived() -> SmallWorld {
    let mut world = SmallWorld::new();
    world.put("first", "there before");
    world.reconcile().expect("nothing fails");
    for round in 0..3 {
        world.tick(5);
        world.put(&format!("a{round}"), "content");
        world.intake().expect("nothing fails");
    }
    world.tick(5);
    world.reconcile().expect("nothing fails");
    for round in 0..2 {
        world.tick(5);
        world.put(&format!("b{round}"), "content");
        world.intake().expect("nothing fails");
    }
    world
}

fn segments(world: &SmallWorld) -> Vec<String> {
    world.trap.paths("log/")
}

/// What is restored to the last instant at which something was done.
fn restored(world: &SmallWorld) -> Result<(Contents, RestoreReport), Broken> {
    let into = world.elsewhere();
    let last = world.instants().into_iter().next_back().expect("something was done");
    let report = world.restore(last, Mode::Overwrite, &into)?;
    Ok((contents(&into), report))
}

#[test]
fn any_segment_that_is_missing_is_named_but_the_very_last() {
    let paths = segments(&lived());
    assert!(paths.len() >= 7, "{paths:#?}");
    let links: Vec<Link> = paths.iter().flat_map(|path| SegmentName::parse(path).expect("it is one").after).collect();
    let mut unnamed = 0;
    for path in &paths {
        let world = lived();
        world.trap.remove(path);
        let link = SegmentName::parse(path).expect("it is one").link();
        let gaps = world.window().expect("there is one").gaps;
        if links.contains(&link) {
            assert_eq!(gaps.into_iter().map(|gap| gap.segment).collect::<Vec<_>>(), [Some(link)], "{path}");
            let (_, report) = restored(&world).expect("what is there can be restored");
            assert_eq!(report.gaps.count, 1, "{path}: {report}");
            assert!(!report.proven, "{path}");
        } else {
            unnamed += 1;
            assert_eq!(gaps, [], "{path}");
            let error = restored(&world).expect_err("the log ends before");
            assert!(matches!(&error, Broken::Failed(reason) if reason.contains("complete only up to")), "{error:?}");
        }
    }
    assert_eq!(unnamed, 1);
}

#[test]
fn the_last_segments_are_named_once_the_truth_was_read() {
    let world = lived();
    world.tick(5);
    world.reconcile().expect("nothing fails");
    for path in segments(&world) {
        let world = lived();
        world.tick(5);
        world.reconcile().expect("nothing fails");
        world.trap.remove(&path);
        assert_eq!(world.window().expect("there is one").gaps.len(), 1, "{path}");
    }
}

#[test]
fn what_a_missing_segment_told_is_found_again_where_it_still_exists() {
    let mut world = lived();
    let path = segments(&world).into_iter().find(|path| path.contains(&world.instants()[2].micros().to_string())).expect("that of a1");
    world.trap.remove(&path);
    let (found, _) = restored(&world).expect("what is there can be restored");
    assert!(!found.contains_key("a1"), "it is in no other");
    world.tick(5);
    world.reconcile().expect("the gap is noted, and what still exists is found");
    world.tick(5);
    world.reconcile().expect("nothing fails");
    world.tick(1);
    world.put("last", "content");
    world.tick(1);
    world.intake().expect("nothing fails");
    let window = world.window().expect("there is one");
    assert!(window.gaps.len() == 1 && window.gaps[0].to.is_some(), "{:?}", window.gaps);
    assert!(window.proven > window.gaps[0].to, "{window:?}");
    let (found, report) = restored(&world).expect("nothing fails");
    assert_eq!(found, contents(&world.bucket));
    assert_eq!(report.gaps.count, 0, "it is healed: {report}");
}

#[test]
fn a_compaction_notes_what_is_missing_before_it_hides_what_names_it() {
    let world = lived();
    let paths = segments(&world);
    world.trap.remove(&paths[3]);
    world.compact().expect("it goes on");
    let noted = world.trap.paths("state/v1/gap/");
    assert_eq!(noted.len(), 1);
    world.compact().expect("it goes on");
    assert_eq!(world.trap.paths("state/v1/gap/"), noted, "once is enough");
    assert_eq!(restored(&world).expect("what is there can be restored").1.gaps.count, 1);
    // What is merged may go.
    paths.iter().filter(|path| **path != paths[3]).for_each(|path| world.trap.remove(path));
    assert_eq!(world.window().expect("there is one").gaps.len(), 1);
}

#[test]
fn exact_removes_nothing_where_a_missing_segment_may_have_told_of_it() {
    let world = lived();
    let path = segments(&world).into_iter().find(|path| path.contains(&world.instants()[2].micros().to_string())).expect("that of a1");
    world.trap.remove(&path);
    let bucket = world.bucket.clone();
    let last = world.instants().into_iter().next_back().expect("something was done");
    let report = world.restore(last, Mode::Exact, &bucket).expect("what is there can be restored");
    assert_eq!(report.tally.deletes, 0, "{report}");
    assert!(contents(&bucket).contains_key("a1"));
}

#[test]
fn what_a_missing_segment_alone_told_of_what_is_gone_stays_named_however_much_is_proven_later() {
    let mut world = lived();
    let path = segments(&world).into_iter().find(|path| path.contains(&world.instants()[2].micros().to_string())).expect("that of a1");
    world.trap.remove(&path);
    let (had, has_not) = (world.instants()[3], world.now());
    world.tick(5);
    world.purge("a1");
    world.intake().expect("nothing fails");
    // More than whoever plans a restore reads of them.
    for _ in 0..12 {
        world.tick(5);
        world.reconcile().expect("nothing fails");
    }
    let window = world.window().expect("there is one");
    assert!(window.proven.is_some_and(|proven| proven > has_not), "{window:?}");
    let (noticed, found_again) = (window.gaps[0].to.expect("it was noticed"), window.gaps[0].found_again.expect("it was made good"));
    let elsewhere = world.elsewhere();
    let named = |at| world.restore(at, Mode::Overwrite, &elsewhere).map(|report| (report.gaps.count, report.proven)).expect("it can be");
    assert!(noticed < found_again);
    assert_eq!([noticed, found_again].map(named), [(1, false), (0, true)]);
    // It was there, and nobody knows any more.
    let into = world.elsewhere();
    world.put("a1", "of the user");
    let own = world.bucket.clone();
    let report = world.restore(had, Mode::Overwrite, &into).expect("what is there can be restored");
    assert!(!contents(&into).contains_key("a1"));
    assert_eq!((report.gaps.count, report.proven), (1, false), "{report}");
    let report = world.restore(had, Mode::Exact, &own).expect("what is there can be restored");
    assert_eq!(report.tally.deletes, 0, "{report}");
    assert!(contents(&own).contains_key("a1"));
}

#[test]
fn a_listing_that_lags_is_no_gap() {
    let world = lived();
    for path in segments(&world) {
        // A restore looks twice, what is noted for ever is looked for longer.
        world.trap.lag(&path, 1);
        assert_eq!(restored(&world).expect("nothing fails").1.gaps.count, 0, "{path}");
        world.trap.lag(&path, 5);
        world.compact().expect("nothing fails");
        world.trap.lag(&path, 0);
    }
    assert_eq!(world.trap.paths("state/v1/gap/"), [""; 0]);
}
