use proptest::prelude::*;

use super::*;
use crate::model::{Position, Sequencer};

/// One change: `put`, `delete` or `scan` (a put seen in a listing), `@SECOND`, `~SECOND` when it was shown, `#SEQUENCER`, and a
/// content.
#[derive(Debug, Clone)]
struct Written {
    op: Op,
    at: Timestamp,
    shown: Option<Timestamp>,
    event: bool,
    etag: Option<String>,
    position: Position,
}

fn written(line: &str) -> Written {
    let mut words = line.split_whitespace();
    let kind = words.next().unwrap();
    let mut written = Written {
        op: if kind == "delete" { Op::Delete } else { Op::Put },
        at: Timestamp::default(),
        shown: None,
        event: kind != "scan",
        etag: None,
        position: Position::timed(0, Timestamp::default()),
    };
    for word in words {
        match word.split_at(1) {
            ("@", at) => {
                written.at = Timestamp::from_seconds(at.parse().unwrap());
                written.position = Position::timed(0, written.at);
            }
            ("~", shown) => written.shown = Some(Timestamp::from_seconds(shown.parse().unwrap()).end_of_second()),
            ("#", sequencer) => written.position = Position::sequenced(0, &Sequencer::parse(sequencer).unwrap()),
            _ => written.etag = Some(word.to_owned()),
        }
    }
    written
}

fn last_of(written: &[Written], at: i64) -> Option<(String, Option<i64>)> {
    let changes: Vec<Overwrite<'_>> = written
        .iter()
        .map(|one| Overwrite {
            op: one.op,
            at: one.at,
            shown: one.shown,
            event: one.event,
            marker: one.etag.as_deref() == Some("marker"),
            etag: one.etag.as_deref(),
            position: one.position.as_bytes(),
        })
        .collect();
    let last = last(&changes, Cut::At(Timestamp::from_seconds(at)))?;
    let of = last.same.iter().map(|&index| &written[index]).collect::<Vec<_>>();
    assert!(of.iter().all(|one| one.op == of[0].op && one.etag == of[0].etag), "{of:?}");
    let content = of[0].etag.clone().unwrap_or_else(|| "empty".to_owned());
    Some((content, last.uncertain_until.map(Timestamp::seconds)))
}

/// What the place holds at some seconds; `?` stands behind what may not have been there yet.
fn check(changes: &[&str], expected: &[(i64, &str)]) {
    let written: Vec<Written> = changes.iter().map(|line| written(line)).collect();
    for &(at, content) in expected {
        let found = last_of(&written, at).map_or_else(
            || "nothing".to_owned(),
            |(content, bound)| if bound.is_some_and(|bound| bound > at) { format!("{content}?") } else { content },
        );
        assert_eq!(found, content, "at {at}");
    }
}

#[test]
fn whoever_writes_last_has_the_place() {
    check(
        &["put @1 #01 x", "put @3 #02 y", "delete @5 #03", "put @7 #04 z"],
        &[(0, "nothing"), (2, "x"), (4, "y"), (6, "empty"), (7, "z")],
    );
    check(&["put @3 #01 x", "delete @3 #02"], &[(3, "empty")]);
    check(&["put @3 #02 x", "delete @3 #01"], &[(3, "x")]);
}

#[test]
fn what_was_shown_came_after_what_had_happened_by_then() {
    // An upload begun at 3 and completed after 7: nobody told when.
    check(
        &["put @1 #01 x", "delete @7 #02", "scan @3 ~12 p-2"],
        &[(2, "x"), (6, "x"), (7, "p-2?"), (11, "p-2?"), (12, "p-2"), (99, "p-2")],
    );
    check(&["put @5 #01 x", "scan @3 ~12 p-2"], &[(4, "nothing"), (5, "p-2?"), (12, "p-2")]);
    check(&["scan @3 ~12 p-2", "delete @20 #02"], &[(4, "p-2?"), (12, "p-2"), (20, "empty")]);
}

#[test]
fn what_happened_about_when_it_was_shown_came_after_that() {
    for second in [11, 12, 13] {
        check(&["scan @3 ~12 p-2", &format!("delete @{second} #02")], &[(13, "empty")]);
    }
    // Until a later listing shows it again.
    check(&["scan @3 ~12 p-2", "delete @12 #02", "scan @3 ~20 p-2"], &[(11, "p-2?"), (12, "p-2?"), (20, "p-2")]);
}

#[test]
fn what_was_shown_is_what_an_event_told() {
    check(&["scan @3 ~12 p-2", "put @8 #05 p-2"], &[(5, "nothing"), (8, "p-2"), (99, "p-2")]);
    check(&["delete @7 #04", "scan @3 ~12 p-2", "put @8 #05 p-2"], &[(7, "empty"), (8, "p-2")]);
    // It was completed within the second in which it was listed.
    check(&["scan @3 ~12 p-2", "put @12 #05 p-2"], &[(5, "nothing"), (12, "p-2")]);
    // The same content was there before, and not in between.
    check(&["put @1 #01 p-2", "delete @2 #02", "scan @3 ~12 p-2"], &[(1, "p-2"), (2, "empty"), (3, "p-2?"), (12, "p-2")]);
    check(&["put @5 #01 p-2", "delete @7 #02", "scan @3 ~12 p-2"], &[(6, "p-2"), (7, "p-2?"), (12, "p-2")]);
}

#[test]
fn what_was_shown_again_is_still_the_same() {
    check(&["scan @3 ~12 p-2", "scan @3 ~20 p-2", "delete @15 #02"], &[(11, "p-2?"), (12, "p-2"), (15, "p-2?"), (20, "p-2")]);
    check(&["scan @3 ~20 p-2", "scan @3 ~12 p-2"], &[(11, "p-2?"), (12, "p-2"), (99, "p-2")]);
}

#[test]
fn an_upload_in_parts_stands_behind_what_was_put_before_the_second_in_which_it_was_shown() {
    // Both were shown in one second, by two listings: an upload begun at 3, and what was put while it went on.
    check(&["scan @3 ~12 p-2", "scan @10 ~12 x"], &[(12, "p-2"), (99, "p-2")]);
    check(&["scan @3 ~12 p-2", "scan @11 ~12 x"], &[(12, "p-2"), (99, "p-2")]);
    // Of what was put in that very second nobody knows.
    check(&["scan @3 ~12 p-2", "scan @12 x"], &[(12, "x")]);
}

#[test]
fn within_a_second_a_listing_does_not_tell_and_a_later_one_does() {
    check(&["delete @10 #01", "scan @10 x"], &[(99, "empty")]);
    check(&["delete @10 #01", "scan @10 x", "scan @10 ~40 x"], &[(10, "x?"), (40, "x")]);
    check(&["put @10 #01 w", "scan @10 x", "scan @10 ~40 x"], &[(9, "nothing"), (10, "x?"), (40, "x")]);
}

#[test]
fn a_listing_completes_what_an_event_told_of_the_same_second() {
    let written: Vec<Written> = ["put @10 #01 x", "scan @10 x", "put @10 #02 y", "scan @11 x"].map(written).into();
    let changes: Vec<Overwrite<'_>> = written
        .iter()
        .map(|one| Overwrite {
            op: one.op,
            at: one.at,
            shown: one.shown,
            event: one.event,
            marker: one.etag.as_deref() == Some("marker"),
            etag: one.etag.as_deref(),
            position: one.position.as_bytes(),
        })
        .collect();
    let same = |until: usize, at| last(&changes[..until], Cut::At(Timestamp::from_seconds(at))).unwrap().same;
    assert_eq!((same(2, 10), same(3, 10), same(4, 99)), (vec![0, 1], vec![2], vec![3]));
}

/// Overwrites as they may be learned: in any second, by an event, by a listing that knows the time, or shown.
fn places() -> impl Strategy<Value = Vec<Written>> {
    let one = (0i64..8, 0u8..4, proptest::option::of(0u8..3), 0i64..8);
    proptest::collection::vec(one, 0..9).prop_map(|changes| {
        let one = |(index, (at, how, content, later)): (usize, (i64, u8, Option<u8>, i64))| {
            let content = content.map(|content| format!("e{content}"));
            match (how, content) {
                (0 | 1, Some(content)) => format!("put @{at} #{index:02x} {content}"),
                (2, Some(content)) => format!("scan @{at} {content}"),
                (_, Some(content)) => format!("scan @{at} ~{} {content}", at + later),
                (_, None) => format!("delete @{at} #{index:02x}"),
            }
        };
        changes.into_iter().enumerate().map(|change| written(&one(change))).collect()
    })
}

#[test]
fn the_same_content_that_was_put_again_later_is_no_news_of_what_a_listing_dated() {
    check(&["put @1 #01 x", "scan @5 ~7 y", "put @7 #03 y"], &[(4, "x"), (5, "y"), (7, "y")]);
    // But for their clocks, and for an upload in parts, of which a listing knows the beginning.
    check(&["put @1 #01 x", "scan @5 ~7 y", "put @6 #03 y"], &[(5, "x"), (6, "y")]);
    check(&["put @1 #01 x", "scan @5 ~7 y-2", "put @7 #03 y-2"], &[(6, "x"), (7, "y-2")]);
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(written in places(), again in proptest::collection::vec(any::<usize>(), 0..6), at in 0i64..16) {
        let mut dealt: Vec<Written> = written.iter().rev().cloned().collect();
        if !written.is_empty() {
            dealt.extend(again.into_iter().map(|index| written[index % written.len()].clone()));
        }
        prop_assert_eq!(last_of(&dealt, at), last_of(&written, at));
    }

    #[test]
    fn what_was_shown_and_not_changed_since_is_there(written in places(), at in 0i64..8, later in 2i64..8) {
        let shown = at + later;
        let mut written: Vec<Written> = written.into_iter().filter(|one| one.at.seconds() < shown - 1 && one.shown.is_none()).collect();
        written.push(self::written(&format!("scan @{at} ~{shown} mine-2")));
        prop_assert_eq!(last_of(&written, shown + 1).map(|last| last.0), Some("mine-2".to_owned()));
    }
}
