//! One fault at every operation of the vault's store, in turn: whatever fails, lies or dies, the work is finished by doing
//! it again, and then every instant restores exactly. See [`tests::small_world`].

use std::collections::BTreeMap;

use pipeline::target::Mode;
use tests::small_world::{Broken, Contents, FAULTS, Fault, SmallWorld, contents};

/// More operations than any job here has.
const OPERATIONS_MAX: u64 = 400;
/// How often a job is begun anew after its one fault.
const ATTEMPTS: u32 = 3;

type Job = fn(&SmallWorld) -> Result<(), Broken>;

/// The world before the job that is disturbed: some of everything, the last of it not taken in yet.
fn prepared() -> SmallWorld {
    let mut world = SmallWorld::new();
    world.put("a", "a1");
    world.put("b", "b1");
    world.tick(2);
    world.reconcile().expect("nothing fails yet");
    let large = "copied by the server ".repeat(9);
    for (object, content) in [("a", "a2"), ("c/d", "the same"), ("e", "the same"), ("g", &large), ("a", "a3")] {
        world.tick(1);
        world.put(object, content);
    }
    world.tick(1);
    world.delete("b");
    world.intake().expect("nothing fails yet");
    world.tick(3);
    world.compact().expect("nothing fails yet");
    assert_eq!(world.whole(), 1);
    world.put("b", "b2");
    world.tick(1);
    world.put("g", &"another that it copies ".repeat(9));
    world.tick(1);
    world.purge("a");
    world.tick(1);
    world.put("f", "");
    world.tick(1);
    world
}

/// After the faults: everything is taken in, and instants from the first to the last restore to what they were.
fn check(world: &SmallWorld, what: &str) {
    for job in [SmallWorld::intake, SmallWorld::reconcile, SmallWorld::compact, SmallWorld::intake] as [Job; 4] {
        job(world).unwrap_or_else(|error| panic!("{what}: afterwards {error:?}"));
        world.tick(2);
    }
    for instant in world.instants().into_iter().skip(2).step_by(3) {
        let into = world.elsewhere();
        let report = world.restore(instant, Mode::Overwrite, &into).unwrap_or_else(|error| panic!("{what}, to {instant}: {error:?}"));
        assert_eq!(report.tally.failed, 0, "{what}, to {instant}");
        assert_eq!(contents(&into), world.at(instant), "{what}, to {instant}");
    }
}

/// Disturbs one job at each of its operations; returns how many it has.
fn sweep(name: &str, job: Job) -> u64 {
    let mut most = 0;
    for fault in FAULTS {
        for at in 0.. {
            assert!(at < OPERATIONS_MAX, "{name} does not end");
            let world = prepared();
            world.trap.set(at, fault);
            let what = format!("{name}, {fault:?} at operation {at}");
            let done = (0..ATTEMPTS).find_map(|_| match job(&world) {
                Ok(()) => Some(()),
                Err(Broken::Crashed | Broken::Failed(_)) => None,
            });
            assert!(done.is_some(), "{what}: it is not done by doing it again");
            let (_, still_set) = world.trap.seen();
            if still_set {
                // The job has fewer operations: the sweep is over.
                break;
            }
            most = most.max(at + 1);
            check(&world, &what);
        }
    }
    println!("{name}: {most} operations, each with {} faults", FAULTS.len());
    most
}

#[test]
fn a_fault_at_any_operation_of_an_intake_loses_nothing() {
    assert!(sweep("intake", SmallWorld::intake) >= 8);
}

#[test]
fn a_fault_at_any_operation_of_a_reconciliation_loses_nothing() {
    assert!(sweep("reconciliation", SmallWorld::reconcile) >= 8);
}

#[test]
fn a_fault_at_any_operation_of_a_compaction_loses_nothing() {
    assert!(sweep("compaction", SmallWorld::compact) >= 8);
}

#[test]
fn a_restore_that_broke_off_anywhere_ends_as_if_it_had_not() {
    let mut most = 0;
    for fault in FAULTS {
        for at in 0..OPERATIONS_MAX {
            let world = prepared();
            world.intake().expect("nothing fails yet");
            let to = world.instants()[5];
            let into = world.elsewhere();
            world.trap.set(at, fault);
            let what = format!("{fault:?} at operation {at}");
            let report = (0..ATTEMPTS).find_map(|_| world.restore(to, Mode::Overwrite, &into).ok());
            let report = report.unwrap_or_else(|| panic!("{what}: it is not done by doing it again"));
            let (_, still_set) = world.trap.seen();
            let damaged = matches!(fault, Fault::Truncate | Fault::Flip) && report.tally.failed > 0;
            // A damaged read of a content is named in the report, and the next restore has it.
            let report = if damaged { world.restore(to, Mode::Overwrite, &into).expect("nothing fails any more") } else { report };
            assert_eq!(report.tally.failed, 0, "{what}");
            assert_eq!(contents(&into), world.at(to), "{what}");
            if still_set {
                break;
            }
            most = most.max(at + 1);
        }
    }
    assert!(most >= 8, "{most}");
}

#[test]
fn the_history_goes_on_after_a_restore_into_the_bucket_itself() {
    let mut world = prepared();
    world.intake().expect("nothing fails");
    let before: BTreeMap<_, Contents> = world.instants().into_iter().skip(2).map(|at| (at, world.at(at))).collect();
    let to = world.instants()[5];
    let bucket = world.bucket.clone();
    for round in 0..2 {
        world.tick(2);
        let report = world.restore(to, Mode::Exact, &bucket).expect("nothing fails");
        assert_eq!(report.tally.failed, 0);
        assert_eq!(contents(&bucket), world.at(to));
        world.note();
        let written = report.tally.creates + report.tally.overwrites + report.tally.deletes;
        // What the restore itself did comes back as events. It is ordinary history, and there is nothing more to do.
        assert_eq!(written > 0, round == 0, "{:?}", report.tally);
        world.tick(1);
        world.intake().expect("nothing fails");
        world.reconcile().expect("nothing fails");
    }
    world.tick(1);
    world.put("a", "afterwards");
    world.tick(3);
    world.intake().expect("nothing fails");
    world.compact().expect("nothing fails");
    let after = world.instants().into_iter().skip(2).map(|at| (at, world.at(at)));
    for (instant, expected) in before.into_iter().chain(after) {
        let into = world.elsewhere();
        world.restore(instant, Mode::Overwrite, &into).expect("nothing fails");
        assert_eq!(contents(&into), expected, "at {instant}");
    }
}
