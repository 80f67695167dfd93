//! A dry run says what a restore will do, and does none of it; the restore then does exactly that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pipeline::replay::run::RestoreOptions;
use pipeline::replay::select::Versions;
use pipeline::replay::{Certainty, RestorePoint, Selection};
use pipeline::s3::PutRequest;
use pipeline::target::report::RestoreReport;
use pipeline::target::{BucketTarget, Mode, Target};
use tests::small_world::{Contents, SmallWorld, contents};

/// Objects of which some will be the same at the target, some differ, some be missing.
fn world() -> SmallWorld {
    let mut world = SmallWorld::new();
    for index in 0..9 {
        world.put(&format!("album/{index}"), &format!("content number {index}"));
    }
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world
}

fn selections() -> [Selection; 3] {
    let some = Selection { prefixes: vec!["album/1".to_owned(), "album/4".to_owned(), "album/7".to_owned()], ..Selection::default() };
    [Selection::default(), some, Selection { versions: Versions::All, ..Selection::default() }]
}

#[test]
fn a_dry_run_says_exactly_what_then_happens_in_every_mode() {
    let mut reached = [0; 4];
    for mode in [Mode::Skip, Mode::Overwrite, Mode::Exact] {
        for selection in selections() {
            let world = world();
            let into = world.elsewhere();
            let to = world.now().minus(Duration::from_millis(3_500));
            // A third of them is there as it was, a third is not, a third is another; and there are others.
            let restored = |keys: &[&str]| Selection { keys: keys.iter().map(|key| (*key).to_owned()).collect(), ..Selection::default() };
            let options = |selection, mode, dry_run| RestoreOptions { selection, mode: Some(mode), dry_run, ..RestoreOptions::default() };
            let restore = |options| -> RestoreReport {
                let target: Arc<dyn Target> = Arc::new(BucketTarget::new(Arc::new(into.clone()), ""));
                world.restore_as(RestorePoint::Time(to), Certainty::Arrived, options, &target).expect("nothing fails")
            };
            restore(options(restored(&["album/0", "album/1", "album/2", "album/3", "album/4", "album/5"]), Mode::Skip, false));
            for object in ["album/3", "album/4", "album/5", "other/1", "album/10"] {
                into.put_object(object, &PutRequest::default(), Bytes::from_static(b"somebody else's")).expect("its key is legal");
            }
            let before: Contents = contents(&into);
            let foretold = restore(options(selection.clone(), mode, true));
            assert_eq!(contents(&into), before, "{mode:?}: a dry run changes nothing");
            let report = restore(options(selection.clone(), mode, false));
            assert_eq!(foretold.tally, report.tally, "{mode:?}, {selection:?}");
            assert_eq!((&foretold.removed, foretold.status, foretold.to), (&report.removed, report.status, report.to), "{mode:?}");
            let tally = report.tally;
            [tally.creates, tally.overwrites, tally.deletes, tally.same + tally.skips]
                .iter()
                .zip(&mut reached)
                .for_each(|(now, all)| *all += now);
            if tally.changes() {
                assert_ne!(contents(&into), before, "{mode:?}: it did something");
            }
        }
    }
    assert!(reached.iter().all(|count| *count > 0), "each kind of action was foretold: {reached:?}");
}
