//! What a restore reports of every object.

use std::sync::Mutex;

use bytes::Bytes;
use futures::FutureExt;
use handlers::browse::{BrowseError, Found, HistoryOf, find, history};
use handlers::diff::{Difference, diff};
use pipeline::base::inputs::Inventory;
use pipeline::fold::Cut;
use pipeline::model::Timestamp;
use pipeline::replay::run::Progress;
use pipeline::s3::PutRequest;
use pipeline::target::Mode;
use pipeline::target::report::ReportRow;
use tests::memory_bucket::Effect;
use tests::small_world::SmallWorld;

/// Everything that it heard of: object, what was done, and what is in doubt.
#[derive(Default)]
struct Heard(Mutex<Vec<(String, String, Option<String>)>>);

impl Progress for Heard {
    fn total(&self, _: u64) {}
    fn bucket_done(&self) {}
    fn object(&self, row: &ReportRow) {
        self.0.lock().expect("nobody panicked").push((row.object.clone(), row.action.clone(), row.uncertain.clone()));
    }
}

/// What is told of a restore, sorted.
fn told(
    world: &SmallWorld,
    to: pipeline::model::Timestamp,
    mode: Mode,
    into: &tests::memory_bucket::MemoryBucket,
) -> Vec<(String, String, bool)> {
    let heard = Heard::default();
    world.restore_told(to, mode, into, &heard).expect("nothing fails");
    let mut rows = heard.0.into_inner().expect("nobody panicked");
    rows.sort();
    rows.into_iter().map(|(object, action, doubt)| (object, action, doubt.is_some_and(|doubt| doubt.contains("removed between")))).collect()
}

/// One object, as `cat` finds it.
fn looked_at(world: &SmallWorld, object: &str, at: Timestamp) -> Result<Found, BrowseError> {
    let find = async {
        let inventory = Inventory::load(&world.vault(), world.resource()).await?;
        find(&world.vault(), inventory.inputs(Cut::At(at)), at, object, None).await
    };
    find.now_or_never().expect("memory answers at once")
}

fn row(object: &str, action: &str, is_uncertain: bool) -> (String, String, bool) {
    (object.to_owned(), action.to_owned(), is_uncertain)
}

#[test]
fn every_uncertain_object_has_a_row_that_says_why_whether_it_is_restored_or_not() {
    let mut world = SmallWorld::new();
    world.put("a", "stays");
    world.put("b", "goes");
    world.keep();
    let before = world.now();
    world.tick(60);
    world.purge("b");
    world.lose_events();
    world.tick(60);
    let after = world.now();
    world.tick(60);
    world.reconcile().expect("nothing fails");
    for _ in 0..2 {
        for at in [before, after] {
            let into = world.elsewhere();
            assert_eq!(told(&world, at, Mode::Overwrite, &into), [row("a", "create", false), row("b", "create", true)]);
            let doubts = looked_at(&world, "b", at).expect("it is restored, too").uncertain;
            assert!(doubts.len() == 1 && doubts[0].reason.contains("removed between"), "{doubts:?}");
        }
        world.compact().expect("nothing fails");
    }
}

#[test]
fn what_is_uncertain_and_not_restored_has_a_row_too() {
    let mut world = SmallWorld::new();
    world.put("b", "older");
    let older = world.newest("b");
    world.tick(3);
    world.put("b", "newer");
    world.keep();
    let before = world.now();
    world.tick(60);
    world.bucket.undisturbed().purge("b", &older.version).expect("it is there");
    world.lose_events();
    world.tick(60);
    world.reconcile().expect("nothing fails");
    let into = world.elsewhere();
    assert_eq!(told(&world, before, Mode::Overwrite, &into), [row("b", "create", false), row("b", "none", true)]);
}

#[test]
fn of_what_only_its_purge_was_told_nobody_says_that_it_was_not_there() {
    let mut world = SmallWorld::new();
    world.put("a", "stays");
    world.tick(3);
    world.intake().expect("nothing fails");
    world.reconcile().expect("nothing fails");
    let listed = world.now();
    world.tick(60);
    world.put("b", "came and went");
    world.lose_events();
    world.tick(60);
    let between = world.now();
    world.tick(60);
    world.purge("b");
    world.tick(3);
    world.intake().expect("nothing fails");
    world.tick(60);
    let after = world.now();
    world.tick(60);
    world.reconcile().expect("nothing fails");
    for _ in 0..2 {
        let into = world.elsewhere();
        into.put_object("b", &PutRequest::default(), Bytes::from_static(b"what the target has")).expect("its key is legal");
        let doubts = |to, mode| {
            let heard = Heard::default();
            let report = world.restore_told(to, mode, &into, &heard).expect("nothing fails");
            let rows = heard.0.into_inner().expect("nobody panicked");
            let doubted: Vec<String> =
                rows.into_iter().filter_map(|(object, _, doubt)| doubt.map(|doubt| format!("{object}: {doubt}"))).collect();
            (doubted, report.tally.deletes)
        };
        for at in [listed, between] {
            let (named, removed) = doubts(at, Mode::Exact);
            assert!(named.len() == 1 && named[0].starts_with("b: ") && named[0].contains(": it was removed at"), "{named:?}");
            assert_eq!(removed, 0);
        }
        assert_eq!(doubts(after, Mode::Exact), (vec![], 1), "it was purged by then");
        for at in [listed, between] {
            let said = looked_at(&world, "b", at).expect_err("nobody knows").to_string();
            assert!(said.starts_with("nobody can say whether \"b\" was there at") && said.contains(": it was removed at"), "{said}");
        }
        let said = looked_at(&world, "b", after).expect_err("it is gone").to_string();
        assert!(said.starts_with("\"b\" did not exist at"), "{said}");
        assert!(looked_at(&world, "a", between).expect("it is there").uncertain.is_empty());
        world.compact().expect("nothing fails");
    }
    let of = HistoryOf { object: "b".to_owned(), recursive: false, from: Timestamp::MIN, to: Timestamp::MAX };
    let inventory = Inventory::load(&world.vault(), world.resource()).now_or_never().expect("memory answers").expect("nothing fails");
    let changes = history(&world.vault(), &inventory, &of, 10).now_or_never().expect("memory answers").expect("nothing fails");
    assert_eq!(changes.iter().map(|change| change.facet.as_str()).collect::<Vec<_>>(), ["version", "existed"]);
}

#[test]
fn a_put_that_comes_behind_its_purge_leaves_nothing_in_doubt() {
    let mut world = SmallWorld::new();
    world.put("a", "stays");
    world.keep();
    let before = world.now();
    world.tick(60);
    world.put("b", "came and went");
    let put = world.newest("b");
    world.lose_events();
    world.tick(60);
    let between = world.now();
    world.tick(60);
    world.purge("b");
    world.tick(3);
    world.intake().expect("nothing fails");
    world.forge(Effect::Put, &put, put.modified);
    world.tick(3);
    world.intake().expect("nothing fails");
    for _ in 0..2 {
        let into = world.elsewhere();
        assert_eq!(told(&world, before, Mode::Overwrite, &into), [row("a", "create", false)]);
        let rows = told(&world, between, Mode::Overwrite, &into);
        assert_eq!(rows, [row("a", "same", false), row("b", "fail", false)], "its content was gone when it was asked for");
        world.tick(60);
        world.reconcile().expect("nothing fails");
        world.compact().expect("nothing fails");
    }
}

#[tokio::test]
async fn a_comparison_of_two_instants_names_what_is_uncertain_at_either() {
    let mut world = SmallWorld::new();
    world.put("a", "stays");
    world.put("b", "goes");
    world.keep();
    let before = world.now();
    world.tick(60);
    world.purge("b");
    world.lose_events();
    world.tick(60);
    for _ in 0..2 {
        world.reconcile().expect("nothing fails");
        world.tick(60);
    }
    let inventory = Inventory::load(&world.vault(), world.resource()).await.expect("a sound vault");
    let mut differences = Vec::new();
    let each = |difference: Difference| -> Result<(), BrowseError> {
        differences.push(difference.object);
        Ok(())
    };
    let until = inventory.window().expect("it is open").latest;
    let (report, doubts) = diff(&world.vault(), &inventory, (before, until), "", each).await.expect("a sound vault");
    assert_eq!((report.removed, report.same, report.uncertain), (1, 1, 1));
    assert_eq!(differences, ["b"]);
    let named: Vec<&str> = doubts.iter().map(|doubt| doubt.object.as_str()).collect();
    assert!(named == ["b"] && doubts[0].reason.contains("removed between"), "{doubts:?}");
}
