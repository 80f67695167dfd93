//! A restore that is asked for once more, without a word about what the target holds: what is its own work, and what is not.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::s3::{BucketError, PutRequest, Tags};
use pipeline::target::Mode;
use tests::memory_bucket::{Call, Hook, MemoryBucket, Operation};
use tests::small_world::{Broken, FAULTS, Fault, SmallWorld, contents};

const ASK: Option<Mode> = None;
/// More operations of the vault's store than a restore here has.
const OPERATIONS_MAX: u64 = 400;
/// How often a restore is asked for anew after its one fault.
const ATTEMPTS: u32 = 3;

/// Three objects, one of them changed and one deleted since.
fn prepared() -> SmallWorld {
    let mut world = SmallWorld::new();
    world.put("a", "a1");
    world.put("b", "b1");
    world.tick(2);
    world.reconcile().expect("nothing fails yet");
    for (object, content) in [("a", "a2"), ("c/d", "c1")] {
        world.tick(1);
        world.put(object, content);
    }
    world.tick(1);
    world.delete("b");
    world.intake().expect("nothing fails yet");
    world.tick(3);
    world.intake().expect("nothing fails yet");
    world
}

fn put(bucket: &MemoryBucket, object: &str, content: &'static str) {
    bucket.put_object(object, &PutRequest::default(), Bytes::from_static(content.as_bytes())).expect("its key is legal");
}

fn is_refused(asked: Result<impl std::fmt::Debug, Broken>) {
    match asked {
        Err(Broken::Failed(reason)) => assert!(reason.contains("--mode"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_others_put_into_the_target_is_not_overwritten_however_often_it_is_asked_for() {
    let world = prepared();
    let into = world.elsewhere();
    put(&into, "a", "of somebody else");
    let before = contents(&into);
    for _ in 0..3 {
        is_refused(world.restore(world.instants()[3], ASK, &into));
        assert_eq!(contents(&into), before);
    }
}

/// Puts an object of its own in the very moment in which the restore has looked and not yet put.
#[derive(Default)]
struct Rival(OnceLock<MemoryBucket>);

#[async_trait]
impl Hook for Rival {
    async fn before(&self, call: &Call) -> Result<(), BucketError> {
        if let (Operation::Put, "a", Some(bucket)) = (call.operation, call.object.as_str(), self.0.get()) {
            put(bucket, "a", "of somebody else");
        }
        Ok(())
    }
}

#[test]
fn what_others_put_while_it_runs_is_left_unless_it_is_to_be_overwritten() {
    for (mode, left) in [(ASK, true), (Some(Mode::Skip), true), (Some(Mode::Overwrite), false), (Some(Mode::Exact), false)] {
        let (world, rival) = (prepared(), Arc::new(Rival::default()));
        let (to, into) = (world.instants()[3], world.elsewhere_with(rival.clone()));
        assert!(rival.0.set(into.clone()).is_ok(), "it was not set before");
        let report = world.restore(to, mode, &into).expect("nothing fails");
        let held = contents(&into);
        let expected = if left { &b"of somebody else"[..] } else { &world.at(to)["a"][..] };
        assert_eq!(&held["a"][..], expected, "{mode:?}");
        assert_eq!((held["b"].clone(), held["c/d"].clone()), (world.at(to)["b"].clone(), world.at(to)["c/d"].clone()), "{mode:?}");
        let counts = (report.tally.creates, report.tally.skips, report.tally.failed);
        assert_eq!(counts, if left { (2, 1, 0) } else { (3, 0, 0) }, "{mode:?}: {report:?}");
    }
}

#[test]
fn one_that_has_ended_writes_what_is_missing_and_counts_what_was_changed_since() {
    let world = prepared();
    let (to, into) = (world.instants()[3], world.elsewhere());
    let first = world.restore(to, ASK, &into).expect("the target is empty");
    assert_eq!(first.tally.creates, 3, "{first:?}");
    let same = world.restore(to, ASK, &into).expect("it has ended");
    assert_eq!((same.tally.creates, same.tally.same, same.tally.skips), (0, 3, 0), "{same:?}");
    put(&into, "a", "changed since");
    put(&into, "new", "since");
    into.delete("c/d").expect("it is there");
    let again = world.restore(to, ASK, &into).expect("it has ended");
    assert_eq!((again.tally.creates, again.tally.same, again.tally.skips), (1, 1, 1), "{again:?}");
    let held = contents(&into);
    assert_eq!((&held["a"][..], &held["c/d"], held.contains_key("new")), (&b"changed since"[..], &world.at(to)["c/d"], true));
    // Another instant is another restore, and so is one with a mode.
    is_refused(world.restore(world.instants()[2], ASK, &into));
    let overwritten = world.restore(to, Mode::Overwrite, &into).expect("it was asked for");
    assert_eq!(overwritten.tally.overwrites, 1, "{overwritten:?}");
}

#[test]
fn into_a_target_that_was_emptied_it_is_carried_out_anew() {
    let world = prepared();
    let (to, into) = (world.instants()[3], world.elsewhere());
    world.restore(to, ASK, &into).expect("the target is empty");
    for version in into.versions() {
        into.purge(&version.object, &version.version);
    }
    let again = world.restore(to, ASK, &into).expect("the target is empty again");
    assert_eq!(again.tally.creates, 3, "{again:?}");
    assert_eq!(contents(&into), world.at(to));
}

#[test]
fn one_that_broke_off_completes_what_it_began_and_leaves_what_others_put_meanwhile() {
    for mode in [ASK, Some(Mode::Skip)] {
        completes_what_it_began(mode);
    }
}

fn completes_what_it_began(mode: Option<Mode>) {
    let mut breaks = 0;
    for at in 0..OPERATIONS_MAX {
        let world = prepared();
        let (to, into) = (world.instants()[3], world.elsewhere());
        world.trap.set(at, Fault::CrashBefore);
        let broke_off = world.restore(to, mode, &into).is_err();
        let (_, still_set) = world.trap.seen();
        if still_set {
            break;
        }
        if !broke_off || contents(&into).is_empty() {
            continue;
        }
        breaks += 1;
        let theirs = PutRequest { tags: Tags::from([("of".to_owned(), "nobody".to_owned())]), ..PutRequest::default() };
        put(&into, "a", "of somebody else");
        into.put_object("c/d", &theirs, world.at(to)["c/d"].clone()).expect("its key is legal");
        let report = world.restore(to, mode, &into).expect("nothing fails any more");
        assert_eq!((report.tally.skips, report.tally.overwrites, report.tally.failed), (2, 0, 0), "operation {at}: {report:?}");
        let held = contents(&into);
        assert_eq!((&held["a"][..], &held["b"], &held["c/d"]), (&b"of somebody else"[..], &world.at(to)["b"], &world.at(to)["c/d"]));
        let done = world.restore(to, mode, &into).expect("nothing fails any more");
        assert_eq!((done.tally.skips, done.tally.same), (2, 1), "operation {at}: {done:?}");
    }
    assert!(breaks > 0, "none broke off halfway");
}

#[test]
fn one_that_broke_off_anywhere_ends_as_if_it_had_not() {
    let mut most = 0;
    for fault in FAULTS {
        for at in 0..OPERATIONS_MAX {
            let world = prepared();
            let (to, into) = (world.instants()[3], world.elsewhere());
            world.trap.set(at, fault);
            let what = format!("{fault:?} at operation {at}");
            let report = (0..ATTEMPTS).find_map(|_| world.restore(to, ASK, &into).ok());
            let report = report.unwrap_or_else(|| panic!("{what}: it is not done by asking again"));
            let (_, still_set) = world.trap.seen();
            if report.tally.failed == 0 {
                assert_eq!(contents(&into), world.at(to), "{what}");
            }
            if still_set {
                break;
            }
            most = most.max(at + 1);
        }
    }
    assert!(most >= 8, "{most}");
}
