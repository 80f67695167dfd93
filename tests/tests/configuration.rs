//! The documents of a bucket's configuration come out of a vault as they were, before and after a base was made of them.

use futures::FutureExt;
use handlers::browse::BrowseError;
use handlers::configuration::{self, What};
use pipeline::base::inputs::Inventory;
use pipeline::model::Timestamp;
use pipeline::replay::plan::{ReplayPlan, plan};
use pipeline::replay::{Certainty, RestorePoint};
use pipeline::view::Document;
use tests::small_world::SmallWorld;

const CLOSED: &str = "{\"Statement\": [\n  \"closed\"]}";
const OPEN: &str = "{\"Statement\": []}\n";
const LIFECYCLE: &str = "<LifecycleConfiguration/>";

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

fn planned(world: &SmallWorld, at: Timestamp) -> (Inventory, ReplayPlan) {
    let inventory = now(Inventory::load(&world.vault(), world.resource())).expect("an inventory");
    let planned = plan(&inventory, RestorePoint::Time(at), Certainty::Arrived).expect("a time within the window");
    (inventory, planned)
}

/// The documents at an instant, but the one that says that the bucket keeps versions.
fn documents(world: &SmallWorld, at: Timestamp) -> Vec<(String, String)> {
    let (_, planned) = planned(world, at);
    let found = now(configuration::documents(&world.vault(), planned.inputs, at)).expect("documents");
    let found = found.into_iter().filter(|document| document.name != "versioning");
    found.map(|Document { name, text, .. }| (name, text)).collect()
}

fn document(world: &SmallWorld, at: Timestamp, name: &str) -> Result<Document, BrowseError> {
    let (inventory, planned) = planned(world, at);
    now(configuration::document(&world.vault(), &inventory, planned.inputs, at, name))
}

fn owned(documents: &[(&str, &str)]) -> Vec<(String, String)> {
    documents.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// The truth is read, and half a minute later it is some instant of which all is known.
fn read(world: &SmallWorld) -> Timestamp {
    world.tick(30);
    world.reconcile().expect("nothing fails");
    world.tick(30);
    world.now()
}

/// A bucket whose policy is opened and then taken away, while a lifecycle comes.
fn lived() -> (SmallWorld, [Timestamp; 4]) {
    let mut world = SmallWorld::new();
    world.put("a", "content");
    // Its key comes right behind those of the documents.
    world.put("\0", "content");
    world.bucket.set_document("policy", Some(CLOSED));
    let closed = read(&world);
    world.bucket.set_document("policy", Some(OPEN));
    let open = read(&world);
    world.bucket.set_document("policy", None);
    world.bucket.set_document("lifecycle", Some(LIFECYCLE));
    let gone = read(&world);
    world.bucket.deny_document("lifecycle");
    let denied = read(&world);
    read(&world);
    (world, [closed, open, gone, denied])
}

#[test]
fn every_document_is_there_as_it_was_at_any_time() {
    let (world, [closed, open, gone, denied]) = lived();
    for made in ["no base", "a base"] {
        assert_eq!(documents(&world, closed), owned(&[("policy", CLOSED)]), "{made}");
        assert_eq!(documents(&world, open), owned(&[("policy", OPEN)]), "{made}");
        assert_eq!(documents(&world, gone), owned(&[("lifecycle", LIFECYCLE)]), "{made}");
        assert_eq!(documents(&world, denied), owned(&[("lifecycle", LIFECYCLE)]), "{made}: that it is not shown does not remove it");
        let found = document(&world, open, "policy").expect("it is there");
        assert!(found.since > closed && found.since < open && found.text == OPEN, "{made}: {found:?}");
        world.compact().expect("nothing fails");
    }
}

#[test]
fn a_document_that_is_not_there_is_told_with_those_that_are() {
    let (world, [closed, _, gone, _]) = lived();
    let error = document(&world, closed, "cors").expect_err("it never was").to_string();
    assert_eq!(error, format!("there was no document \"cors\" at {closed}; there were: policy, versioning"));
    let error = document(&world, gone, "policy").expect_err("it was removed").to_string();
    assert!(error.starts_with(&format!("there was no document \"policy\" at {gone}: it was gone by 2026-")), "{error}");
    assert!(error.ends_with("; there were: lifecycle, versioning"), "{error}");
}

#[test]
fn the_history_has_every_change_of_the_documents_once() {
    let (world, [closed, open, gone, _]) = lived();
    let changes = |world: &SmallWorld, name: Option<&str>| {
        let (inventory, _) = planned(world, gone);
        now(configuration::history(&world.vault(), &inventory, name)).expect("a history")
    };
    let all = changes(&world, None);
    let told: Vec<(&str, What, Option<&str>)> =
        all.iter().map(|change| (change.name.as_str(), change.what, change.text.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("policy", What::Set, Some(CLOSED)),
            ("versioning", What::Set, Some("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")),
            ("policy", What::Changed, Some(OPEN)),
            ("lifecycle", What::Set, Some(LIFECYCLE)),
            ("policy", What::Removed, None),
        ]
    );
    let policy = changes(&world, Some("policy"));
    assert_eq!(policy.len(), 3);
    assert!(policy[0].at < closed && policy[1].at > closed && policy[1].at < open && policy[2].at > open && policy[2].at < gone);
    world.compact().expect("nothing fails");
    assert_eq!(changes(&world, Some("policy")), policy, "a base changes nothing of it");
}

#[test]
fn a_document_is_dated_to_when_it_was_read_and_not_to_the_listing_before() {
    let mut world = SmallWorld::new();
    world.put("a", "content");
    // It is asked for again and again behind the listing, and the documents are read after that.
    world.make_unreadable("a", true);
    world.bucket.set_document("policy", Some(OPEN));
    world.tick(30);
    let began = world.now();
    world.reconcile().expect("nothing fails");
    let ended = world.now();
    assert!(ended >= began.plus(std::time::Duration::from_secs(3)), "{began} to {ended}");
    let later = read(&world);
    read(&world);
    assert_eq!(document(&world, later, "policy").expect("it is there").since, ended);
}
