//! What a restore reports of every object.

use std::sync::Mutex;

use handlers::browse::BrowseError;
use handlers::diff::{Difference, diff};
use pipeline::base::inputs::Inventory;
use pipeline::replay::run::Progress;
use pipeline::target::Mode;
use pipeline::target::report::ReportRow;
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

fn row(object: &str, action: &str, is_uncertain: bool) -> (String, String, bool) {
    (object.to_owned(), action.to_owned(), is_uncertain)
}

#[test]
fn every_uncertain_object_has_a_row_that_says_why_whether_it_is_restored_or_not() {
    let mut world = SmallWorld::new();
    world.put("a", "stays");
    world.put("b", "goes");
    world.tick(3);
    world.intake().expect("nothing fails");
    world.reconcile().expect("nothing fails");
    world.tick(60);
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
    world.tick(3);
    world.intake().expect("nothing fails");
    world.reconcile().expect("nothing fails");
    world.tick(60);
    let before = world.now();
    world.tick(60);
    world.bucket.undisturbed().purge("b", &older.version).expect("it is there");
    world.lose_events();
    world.tick(60);
    world.reconcile().expect("nothing fails");
    let into = world.elsewhere();
    assert_eq!(told(&world, before, Mode::Overwrite, &into), [row("b", "create", false), row("b", "none", true)]);
}

#[tokio::test]
async fn a_comparison_of_two_instants_names_what_is_uncertain_at_either() {
    let mut world = SmallWorld::new();
    world.put("a", "stays");
    world.put("b", "goes");
    world.tick(3);
    world.intake().expect("nothing fails");
    world.reconcile().expect("nothing fails");
    world.tick(60);
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
