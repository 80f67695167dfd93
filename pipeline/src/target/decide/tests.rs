use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::Timestamp;
use crate::s3::ObjectMetadata;

fn wanted(object: &str, content: u8) -> WantedObject {
    WantedObject {
        object: object.to_owned(),
        version: "v1".to_owned(),
        marker: false,
        at: Timestamp::from_seconds(0),
        size: u64::from(content),
        etag: Some(content.to_string()),
        digest: None,
        checksums: Vec::new(),
        storage_class: None,
        metadata: ObjectMetadata::default(),
        tags: BTreeMap::new(),
        acl: None,
        creates: false,
    }
}

fn existing(object: &str, content: u8) -> ExistingObject {
    ExistingObject { object: object.to_owned(), size: u64::from(content), etag: Some(content.to_string()), version: None }
}

fn check(mode: Mode, wants: Option<u8>, has: Option<u8>, word: Option<&str>) {
    let (wanted, existing) = (wants.map(|content| wanted("a", content)), has.map(|content| existing("a", content)));
    let case = Case { wanted: wanted.as_ref(), existing: existing.as_ref(), same: wants == has, ..Case::default() };
    assert_eq!(decide(mode, &case).map(|action| action.word()), word, "{mode} {wants:?} {has:?}");
}

#[test]
fn the_modes_differ_in_what_is_there_already() {
    for (mode, differs, unwanted) in
        [(Mode::Skip, "skip", "keep"), (Mode::Overwrite, "overwrite", "keep"), (Mode::Exact, "overwrite", "remove")]
    {
        check(mode, None, None, None);
        check(mode, Some(1), None, Some("create"));
        check(mode, Some(1), Some(1), Some("same"));
        check(mode, Some(1), Some(2), Some(differs));
        check(mode, None, Some(2), Some(unwanted));
    }
}

#[test]
fn nothing_is_removed_for_a_selection_that_the_vault_knows_nothing_of() {
    let there = existing("a", 2);
    let case = Case { existing: Some(&there), unknown: true, ..Case::default() };
    assert_eq!(decide(Mode::Exact, &case), Some(Action::Keep(Reason::NothingKnown)));
    assert_eq!(decide(Mode::Exact, &Case { unknown: false, ..case }), Some(Action::Remove));
}

#[test]
fn what_a_restore_that_broke_off_may_have_left_unfinished_is_written_again() {
    let (object, there) = (wanted("a", 1), existing("a", 2));
    let unfinished = Case { wanted: Some(&object), existing: Some(&there), unfinished: true, ..Case::default() };
    for mode in [Mode::Skip, Mode::Overwrite, Mode::Exact] {
        assert_eq!(decide(mode, &unfinished), Some(Action::Overwrite), "{mode}");
    }
    assert_eq!(decide(Mode::Skip, &Case { same: true, ..unfinished }), Some(Action::Same));
}

#[test]
fn a_key_that_is_named_uncertain_is_never_removed() {
    let there = existing("a", 1);
    let case = Case { existing: Some(&there), uncertain: true, ..Case::default() };
    assert_eq!(decide(Mode::Exact, &case), Some(Action::Keep(Reason::Uncertain)));
}

#[test]
fn lost_content_fails_only_where_it_would_have_to_be_written() {
    let (object, there) = (wanted("a", 1), existing("a", 2));
    let lost = Case { wanted: Some(&object), lost: Some("gone before it was read"), ..Case::default() };
    let failed = Some(Action::Fail(Reason::Lost("gone before it was read".to_owned())));
    assert_eq!(decide(Mode::Skip, &lost), failed);
    assert_eq!(decide(Mode::Overwrite, &Case { existing: Some(&there), ..lost }), failed);
    assert_eq!(decide(Mode::Overwrite, &Case { existing: Some(&there), same: true, ..lost }), Some(Action::Same));
    assert_eq!(decide(Mode::Skip, &Case { existing: Some(&there), ..lost }), Some(Action::Skip(Reason::Exists)));
    let marker = WantedObject { marker: true, ..object.clone() };
    assert_eq!(decide(Mode::Skip, &Case { wanted: Some(&marker), ..lost }), Some(Action::Create));
}

#[test]
fn modes_are_read_as_they_are_written() {
    for mode in [Mode::Skip, Mode::Overwrite, Mode::Exact] {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    assert!("mirror".parse::<Mode>().is_err());
}

/// Key → content.
type World = BTreeMap<String, u8>;

/// What each mode promises, said without any decision per key.
fn model(mode: Mode, wanted: &World, lost: &BTreeSet<String>, uncertain: &BTreeSet<String>, before: &World) -> World {
    let writable = wanted.iter().filter(|(key, _)| !lost.contains(*key)).map(|(key, content)| (key.clone(), *content));
    let mut after = before.clone();
    match mode {
        Mode::Skip => {
            for (key, content) in writable {
                after.entry(key).or_insert(content);
            }
        }
        Mode::Overwrite => after.extend(writable),
        Mode::Exact => {
            after.extend(writable);
            after.retain(|key, _| wanted.contains_key(key) || uncertain.contains(key));
        }
    }
    after
}

fn worlds() -> impl Strategy<Value = World> {
    proptest::collection::btree_map("[a-f]", 0..4_u8, 0..6)
}

fn keys() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::collection::btree_set("[a-f]", 0..3)
}

proptest! {
    #[test]
    fn carrying_out_the_decisions_gives_what_the_mode_promises(
        mode in prop_oneof![Just(Mode::Skip), Just(Mode::Overwrite), Just(Mode::Exact)],
        wants in worlds(), before in worlds(), lost in keys(), uncertain in keys(),
    ) {
        let all: BTreeSet<&String> = wants.keys().chain(before.keys()).collect();
        let (mut after, mut tally) = (before.clone(), Tally::default());
        for key in all {
            let (want, have) = (wants.get(key), before.get(key));
            let (object, there) = (want.map(|&content| wanted(key, content)), have.map(|&content| existing(key, content)));
            let case = Case {
                wanted: object.as_ref(),
                lost: lost.contains(key).then_some("lost"),
                existing: there.as_ref(),
                same: want == have,
                unfinished: false,
                unknown: false,
                uncertain: uncertain.contains(key),
            };
            let action = decide(mode, &case).expect("the key is on one side");
            tally.count(&action, object.as_ref().map_or(0, |object| object.size), 1);
            match action {
                Action::Create | Action::Overwrite => { after.insert(key.clone(), want.copied().expect("only what is wanted is written")); }
                Action::Remove => { after.remove(key); }
                Action::Same | Action::Skip(_) | Action::Keep(_) | Action::Fail(_) => {}
            }
        }
        prop_assert_eq!(&after, &model(mode, &wants, &lost, &uncertain, &before));

        // The counts say what changed.
        let created: Vec<_> = after.iter().filter(|(key, _)| !before.contains_key(*key)).collect();
        let overwritten: Vec<_> = after.iter().filter(|(key, content)| before.get(*key).is_some_and(|old| old != *content)).collect();
        let deletes = before.keys().filter(|key| !after.contains_key(*key)).count();
        prop_assert_eq!((tally.creates, tally.overwrites, tally.deletes), (created.len() as u64, overwritten.len() as u64, deletes as u64));
        prop_assert_eq!(tally.bytes, created.iter().chain(&overwritten).map(|(_, content)| u64::from(**content)).sum::<u64>());
        prop_assert_eq!(tally.requests, tally.creates + tally.overwrites + tally.deletes);
        let wrong = wants.iter().filter(|(key, content)| after.get(*key) != Some(*content)).count() as u64;
        prop_assert_eq!(tally.skips + tally.failed, wrong);
        prop_assert_eq!(tally.objects(), wants.keys().chain(before.keys()).collect::<BTreeSet<_>>().len() as u64);
        prop_assert!(mode != Mode::Skip || (tally.overwrites, tally.deletes) == (0, 0));
    }
}
