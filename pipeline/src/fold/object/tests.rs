use std::convert::Infallible;

use crate::testing::block_on;
use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::changelog::write::sort;
use crate::fold::{Fold, Run};
use crate::model::change::{ChangeBatch, ObjectChange};
use crate::model::{Position, Sequencer};

/// A base that forgets no delete and nothing that was deleted.
const BASE: Keep = Keep::Base { tombstones_after: Timestamp::MIN, purged_after: Timestamp::MIN };

/// `put a v1 @3 #05` and the like, one change per line; see [`parse`].
fn changes(text: &str) -> Vec<ObjectChange> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse).collect()
}

/// `OP OBJECT VERSION @SECOND [~BOUND] [#SEQUENCER] [rank=N] [tags=X] [request=X] [body=X|lost]`, where OP is put, marker, purge,
/// scan (a put seen in a listing), scan-purge, tags, seen, existed.
fn parse(line: &str) -> ObjectChange {
    let mut words = line.split_whitespace();
    let (op, object, version) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let mut change = ObjectChange::put(object, version, Timestamp::default());
    change.op = if op.ends_with("purge") { Op::Delete } else { Op::Put };
    change.marker = op == "marker";
    change.via = if op.starts_with('s') { "scan" } else { "event" }.to_owned();
    change.facet = match op {
        "tags" => Facet::Tags,
        "seen" => Facet::Seen,
        "existed" => Facet::Existed,
        _ => Facet::Version,
    };
    let seconds = |text: &str| Timestamp::from_seconds(text.parse().unwrap());
    for word in words {
        match word.split_at(1) {
            ("@", at) => {
                change.at = seconds(at);
                change.position = Position::timed(0, change.at).as_bytes().to_vec();
            }
            ("~", bound) => change.at_bound = Some(seconds(bound)),
            ("#", sequencer) => change.position = Position::sequenced(0, &Sequencer::parse(sequencer).unwrap()).as_bytes().to_vec(),
            _ => match word.split_once('=').unwrap() {
                ("rank", rank) => change.rank = Some(rank.parse().unwrap()),
                ("tags", tags) => change.tags = Some(tags.to_owned()),
                ("etag", etag) => change.etag = Some(etag.to_owned()),
                ("request", request) => change.request = Some(request.to_owned()),
                ("body", "lost") => change.lost = Some("gone".to_owned()),
                ("body", body) => change.body = Some(body.to_owned()),
                (name, _) => panic!("{name}"),
            },
        }
    }
    change
}

fn fold_runs(runs: Vec<Vec<ObjectChange>>, cut: Cut, keep: Keep) -> (Vec<ObjectChange>, Vec<Uncertain>) {
    let runs = runs.into_iter().map(|rows| {
        let batch: ChangeBatch = rows.iter().map(ObjectChange::row).collect();
        let sorted = sort(&batch).into_rows();
        let pieces: Vec<Result<RecordBatch, Infallible>> = (0..sorted.num_rows()).map(|index| Ok(sorted.slice(index, 1))).collect();
        futures::stream::iter(pieces).boxed() as Run<'static, Infallible>
    });
    let mut fold = Fold::new(runs.collect(), ObjectJoin::new(cut, keep));
    let (mut rows, mut uncertain) = (Vec::new(), Vec::new());
    while let Ok(Some(folded)) = block_on(fold.next()) {
        let batch = ChangeBatch::objects(folded.rows).unwrap();
        rows.extend(batch.object_columns().iter().map(|row| row.to_change()));
        uncertain.extend(folded.uncertain);
    }
    (rows, uncertain)
}

/// What a reader sees at a second: `object=version` and the last facet's tags.
fn check(text: &str, at: i64, expected: &str) {
    let (rows, _) = fold_runs(vec![changes(text)], Cut::At(Timestamp::from_seconds(at)), Keep::Current);
    let seen: Vec<String> = rows
        .iter()
        .map(|row| match row.facet {
            Facet::Version => format!("{}={}", row.object, row.version),
            _ => format!("tags={}", row.tags.as_deref().unwrap_or("-")),
        })
        .collect();
    let mut seen = seen;
    seen.sort_by_key(|text| text.starts_with("tags"));
    assert_eq!(seen.join(" "), expected, "at {at}");
}

#[test]
fn the_newest_live_version_is_what_a_reader_sees() {
    let history = "put a v1 @1 #01\n put a v2 @5 #02\n put b w1 @3 #01";
    check(history, 0, "");
    check(history, 1, "a=v1");
    check(history, 4, "a=v1 b=w1");
    check(history, 5, "a=v2 b=w1");
}

#[test]
fn a_marker_hides_and_its_removal_brings_back() {
    let history = "put a v1 @1 #01\n marker a m1 @2 #02\n purge a m1 @4 #03";
    check(history, 2, "");
    check(history, 4, "a=v1");
}

#[test]
fn purging_the_newest_version_brings_the_older_back() {
    let history = "put a v1 @1 #01\n put a v2 @2 #02\n purge a v2 @4 #03";
    check(history, 3, "a=v2");
    check(history, 4, "a=v1");
}

#[test]
fn a_purge_absorbs_every_put_of_its_version_whatever_their_positions() {
    check("purge a v1 @4 #03\n put a v1 @1 #09\n scan a v1 @2 rank=0", 5, "");
}

#[test]
fn a_version_whose_put_comes_after_its_purge_in_time_is_gone() {
    // Two front ends, two clocks: the purge is timed before the put it follows.
    check("put a v1 @5 #01\n purge a v1 @4 #02", 6, "");
}

#[test]
fn of_one_change_the_event_tells_the_time_and_the_reader_the_content() {
    let rows = changes("put a v1 @7 #01 body=lost\n scan a v1 @3 rank=1 body=B etag=E");
    let (state, _) = fold_runs(vec![rows], Cut::At(Timestamp::from_seconds(9)), Keep::Live);
    assert_eq!(state.len(), 1);
    let joined = &state[0];
    assert_eq!((joined.at.seconds(), joined.rank, joined.via.as_str()), (7, Some(1), "event"));
    assert_eq!((joined.body.as_deref(), joined.lost.as_deref(), joined.etag.as_deref()), (Some("B"), None, Some("E")));
}

#[test]
fn version_null_is_overwritten_in_place() {
    let history = "put a null @1 #01 etag=x\n put a null @3 #02 etag=y\n purge a null @5 #03\n put a null @7 #04 etag=z";
    let etag_at = |second| {
        let (rows, _) = fold_runs(vec![changes(history)], Cut::At(Timestamp::from_seconds(second)), Keep::Current);
        rows.first().and_then(|row| row.etag.clone()).unwrap_or_default()
    };
    assert_eq!([0, 1, 4, 5, 7].map(etag_at), ["", "x", "y", "", "z"]);
}

#[test]
fn the_last_tags_at_the_cut_count_and_belong_to_their_version() {
    let history = "put a v1 @1 #01 tags=0\n tags a v1 @3 tags=1\n tags a v1 @5 tags=2\n tags a v0 @4 tags=9";
    check(history, 2, "a=v1");
    check(history, 4, "a=v1 tags=1");
    check(history, 5, "a=v1 tags=2");
}

#[test]
fn a_purge_found_later_is_named_uncertain_within_its_interval() {
    let rows = changes("put a v1 @1 #01\n scan-purge a v1 @9 ~4");
    let at = |second| fold_runs(vec![rows.clone()], Cut::At(Timestamp::from_seconds(second)), Keep::Current);
    assert_eq!((at(3).0.len(), at(3).1.len()), (1, 0));
    assert_eq!((at(5).0.len(), at(5).1.len()), (1, 1));
    assert_eq!((at(9).0.len(), at(9).1.len()), (0, 0));
}

#[test]
fn a_removal_of_version_null_found_later_is_named_uncertain_too() {
    let rows = changes("put a null @1 #01 etag=x\n scan-purge a null @9 ~4\n put a null @12 #05 etag=y");
    let at = |second| fold_runs(vec![rows.clone()], Cut::At(Timestamp::from_seconds(second)), Keep::Current);
    assert_eq!([3, 5, 9, 12].map(|second| (at(second).0.len(), at(second).1.len())), [(1, 0), (1, 1), (0, 0), (1, 0)]);
}

#[test]
fn what_a_scan_found_gone_was_not_removed_later() {
    // An event that names no version was taken for this one's.
    let rows = changes("put a v1 @1 #01\n scan-purge a v1 @5 ~3\n purge a v1 @8");
    let at = |second| fold_runs(vec![rows.clone()], Cut::At(Timestamp::from_seconds(second)), Keep::Current);
    assert_eq!([2, 4, 5, 9].map(|second| (at(second).0.len(), at(second).1.len())), [(1, 0), (1, 1), (0, 0), (0, 0)]);
}

#[test]
fn a_base_keeps_where_an_upload_in_parts_began() {
    let rows = changes("put a p @12 #09 etag=e-2\n put a x @11 #05\n scan a p @10 ~20 rank=0 etag=e-2");
    let (base, _) = fold_runs(vec![rows], Cut::At(Timestamp::from_seconds(15)), BASE);
    let (state, uncertain) = fold_runs(vec![base], Cut::At(Timestamp::from_seconds(15)), Keep::Current);
    assert_eq!((state[0].version.as_str(), uncertain.len()), ("x", 0));
}

#[test]
fn the_last_n_versions_are_the_newest() {
    let rows = changes("put a v1 @1 #01\n put a v2 @2 #02\n put a v3 @3 #03\n purge a v2 @4 #04");
    let (state, _) = fold_runs(vec![rows], Cut::At(Timestamp::from_seconds(9)), Keep::Last(2));
    assert_eq!(state.iter().map(|row| row.version.as_str()).collect::<Vec<_>>(), ["v1", "v3"]);
}

#[test]
fn the_example_of_the_format_is_what_a_fold_says() {
    let rows = changes("put a null @0 #01 etag=x\n scan a null @0 ~3 etag=x\n purge a null @5 #02\n scan a null @4 ~9 etag=y");
    for (at, content, uncertain) in [(0, "x", false), (4, "x", false), (5, "y", true), (8, "y", true), (9, "y", false)] {
        let (state, doubts) = fold_runs(vec![rows.clone()], Cut::At(Timestamp::from_seconds(at)), Keep::Current);
        assert_eq!((state[0].etag.as_deref(), !doubts.is_empty()), (Some(content), uncertain), "at {at}");
    }
}

#[test]
fn a_listing_that_shows_a_version_after_its_purge_shows_that_it_was_not_purged() {
    let told = "put a v1 @1 #01\n purge a v1 @3 #02";
    check(told, 4, "");
    let refuted = &format!("{told}\n seen a v1 @1 ~6");
    check(refuted, 0, "");
    [1, 3, 4, 6, 9].iter().for_each(|at| check(refuted, *at, "a=v1"));
    // Whatever is told of an earlier purge afterwards is as false, and a purge that came after the listing is not.
    check(&format!("{refuted}\n purge a v1 @2"), 9, "a=v1");
    let purged = &format!("{refuted}\n purge a v1 @6");
    check(purged, 5, "a=v1");
    check(purged, 6, "");
}

#[test]
fn a_base_keeps_for_a_while_what_was_purged_and_the_purge_longer() {
    let rows = changes("put a v1 @1 #01\n purge a v1 @5 #02\n tags a v1 @2 tags=t");
    let kept = |tombstones_after, purged_after| {
        let seconds = Timestamp::from_seconds;
        let keep = Keep::Base { tombstones_after: seconds(tombstones_after), purged_after: seconds(purged_after) };
        let (base, _) = fold_runs(vec![rows.clone()], Cut::At(seconds(9)), keep);
        let mut kept: Vec<String> = base.iter().map(|row| format!("{} {}", row.op.as_str(), row.facet.as_str())).collect();
        kept.sort();
        kept.join(", ")
    };
    assert_eq!(kept(5, 5), "delete version, put tags, put version");
    assert_eq!(kept(5, 6), "delete version");
    assert_eq!(kept(6, 5), "", "what its purge does not hide would be there again");
}

/// That a base of the first changes, and those that came later, are seen at a second as all of them together.
fn check_base(early: &str, base_at: i64, late: &str, at: i64) {
    let seconds = |at| Cut::At(Timestamp::from_seconds(at));
    let (base, _) = fold_runs(vec![changes(early)], seconds(base_at), BASE);
    let seen = |runs| {
        let (rows, uncertain) = fold_runs(runs, seconds(at), Keep::Live);
        let rows: Vec<_> = rows.into_iter().map(|row| (row.facet, row.etag, row.tags)).collect();
        (rows, uncertain)
    };
    assert_eq!(seen(vec![base, changes(late)]), seen(vec![changes(early), changes(late)]), "{early} | {late}");
}

#[test]
fn a_base_keeps_what_a_put_that_a_listing_showed_may_stand_on() {
    // A removal between two puts of one content, of which a listing dated the second.
    let removed = "put a null @3 #01 etag=x\n purge a null @4 #02\n scan a null @4 ~6 etag=x\n tags a null @3 tags=t";
    check_base(removed, 7, "put a null @4 #0180 etag=x", 8);
    // A put that was dated within the second of a removal, and an upload in parts that may have been completed later than it.
    let parts = "purge a null @5 #01\n scan a null @5 ~7 etag=x\n scan a null @5 ~10 etag=y-2";
    check_base(parts, 6, "put a null @7 #03 etag=y-2", 6);
    // The clock of the listing was behind that of the event.
    check_base("put a null @0 #01 etag=x\n tags a null @0 tags=t\n scan a null @5 ~7 etag=y", 5, "put a null @6 #03 etag=y", 5);
}

/// A history that S3 could have: versions put once, perhaps purged, learned by event, scan or both. Of some a purge was told
/// that never happened, and a listing showed that.
fn histories() -> impl Strategy<Value = Vec<ObjectChange>> {
    let refuted = proptest::option::weighted(0.3, (0i64..8, 1i64..4));
    let version = (0u8..3, 0i64..8, proptest::option::of(0i64..8), 0u8..6, any::<bool>(), proptest::option::of(0i64..10), refuted);
    proptest::collection::vec(version, 0..10).prop_map(|versions| {
        let mut rows = Vec::new();
        for (index, (object, at, purged, learned, marker, tagged, refuted)) in versions.into_iter().enumerate() {
            let object = ["a", "a/b", "c"][object as usize];
            let kind = if marker { "marker" } else { "put" };
            // Every third is uploaded in parts: events tell its end, listings its beginning.
            let (etag, began) = if index % 3 == 0 { (format!("e{index}-2"), at.min(2)) } else { (format!("e{index}"), at) };
            // Of some, two listings have led to a reading, and the tags were set between them.
            let read_twice = learned >= 4 && index % 2 == 1 && !marker;
            if learned != 1 && learned != 5 {
                let body = if read_twice { String::new() } else { format!("body=B{index}") };
                rows.push(parse(&format!("{kind} {object} v{index} @{at} #{index:02x} {body} etag={etag}")));
            }
            if learned >= 1 {
                let mut row = parse(&format!("scan {object} v{index} @{began} rank={index} etag={etag}"));
                row.at_bound = (index % 3 == 0).then(|| Timestamp::from_seconds(9));
                row.marker = marker;
                // Another listing knew more, or less.
                if learned >= 4 {
                    rows.push(ObjectChange { at_bound: Some(Timestamp::from_seconds(10)).filter(|_| index % 2 == 0), ..row.clone() });
                }
                if read_twice {
                    let read = |pack: &str, tags: &str| (Some(format!("{pack}{index}")), Some(tags.to_owned()));
                    let last = rows.last_mut().expect("it was just told");
                    (last.body, last.tags) = read("B", "{n: 1}");
                    (row.body, row.tags) = read("C", "{}");
                    // To the first one the server said that there are no tags, as if the version were gone.
                    if index % 4 == 3 {
                        last.tags = None;
                        let mut unread = parse(&format!("tags {object} v{index} @{began} ~{}", began + 1));
                        (unread.lost, unread.via) = (Some("it is not there".to_owned()), "scan".to_owned());
                        rows.push(unread);
                    }
                }
                rows.push(row);
            }
            if let Some(purged) = purged {
                rows.push(parse(&format!("purge {object} v{index} @{} #{index:02x}ff", at.max(purged))));
            }
            if let Some(tagged) = tagged {
                rows.push(parse(&format!("tags {object} v{index} @{tagged} tags=t{tagged}")));
            }
            // Set twice in one second, and what the events meant was read late, or twice.
            if let Some(tagged) = tagged.filter(|tagged| tagged % 2 == 0) {
                for (read, request) in [(1, "A"), (2, "B"), (2 + tagged % 3, "A")] {
                    let read = tagged + read;
                    rows.push(parse(&format!("tags {object} v{index} @{tagged} ~{read} tags=r{read} request={request}")));
                }
            }
            if let Some((told, later)) = refuted {
                let purge = ["purge", "scan-purge"][index % 2];
                rows.push(parse(&format!("{purge} {object} v{index} @{told}")));
                rows.push(parse(&format!("seen {object} v{index} @{began} ~{}", told + later)));
            }
        }
        rows
    })
}

/// What may be learned of a version `null`: overwritten and removed at any second, told by an event, shown by a listing, or both.
fn overwritten() -> impl Strategy<Value = Vec<ObjectChange>> {
    let change = (0i64..8, proptest::option::of(0u8..3), 0u8..4, any::<bool>(), 0i64..3, proptest::option::of(0i64..3));
    proptest::collection::vec(change, 0..8).prop_map(|mut changes| {
        let mut rows = Vec::new();
        // One server changes one key: its sequencers have the order of its clock. Those that list may be a second behind.
        let end = |&(at, content, _, in_parts, took, _): &(i64, Option<u8>, u8, bool, i64, Option<i64>)| {
            if in_parts && content.is_some() { at + took } else { at }
        };
        changes.sort_by_key(end);
        let ends: Vec<i64> = changes.iter().map(end).chain([i64::MAX - 1]).collect();
        for (index, (at, content, learned, in_parts, took, tagged)) in changes.into_iter().enumerate() {
            let Some(content) = content else {
                rows.push(parse(&format!("purge a null @{at} #{index:02x}")));
                continue;
            };
            // Of two uploads in parts of one content, shortly after each other, nobody can tell which an event means.
            let (etag, end) = if in_parts { (format!("e{index}-2"), at + took) } else { (format!("e{content}"), at) };
            if learned != 1 {
                rows.push(parse(&format!("put a null @{end} #{index:02x} body=B{content} etag={etag}")));
            }
            if learned >= 1 {
                let shown = (end + 1 + i64::from(learned)).min(ends[index + 1] + 1);
                rows.push(parse(&format!("scan a null @{at} ~{shown} rank=0 body=B{content} etag={etag}")));
                // And again by the next listing, if it is still there.
                let again = shown + 2;
                if learned == 3 && again <= ends[index + 1] + 1 {
                    rows.push(parse(&format!("scan a null @{at} ~{again} rank=0 body=B{content} etag={etag}")));
                }
            }
            if let Some(tagged) = tagged {
                rows.push(parse(&format!("tags a null @{} tags=t{tagged}", end + tagged)));
            }
        }
        rows
    })
}

fn deal(rows: &[ObjectChange], dealt: &[(usize, usize)]) -> Vec<Vec<ObjectChange>> {
    let mut runs = vec![Vec::new(); 4];
    for (row, (first, again)) in rows.iter().zip(dealt) {
        runs[*first].push(row.clone());
        runs[*again].push(row.clone());
    }
    runs
}

#[test]
fn a_history_has_each_change_once_whoever_told_of_it() {
    let told = "
        scan a v1 @3 rank=1 body=x
        scan a v1 @3 rank=0 body=x
        put a v1 @3 #05
        scan-purge a v1 @9 ~4
        purge a v1 @7 #06
        put a null @3 etag=x
        put a null @5 etag=y
        put a null @5 etag=y body=lost
        put a null @5 etag=y body=x
        put a null @5 etag=z
        tags a v1 @4 tags=t
        tags a v1 @4 tags=t";
    let (rows, _) = fold_runs(vec![changes(told)], Cut::Nothing, Keep::Changes);
    let line = |row: &ObjectChange| format!("{} {} {} @{}", row.op.as_str(), row.facet.as_str(), row.version, row.at.seconds());
    let mut found: Vec<String> = rows.iter().map(line).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "delete version v1 @7",
            "put tags v1 @4",
            "put version null @3",
            "put version null @5",
            "put version null @5",
            "put version v1 @3"
        ]
    );
}

#[test]
fn which_of_two_readers_counts_does_not_depend_on_what_a_base_has_joined() {
    let told =
        [changes("scan a v1 @3 rank=0 body=x tags={}"), changes("put a v1 @3 #05"), changes("scan a v1 @3 rank=0 body=x tags={\"n\":1}")];
    let cut = Cut::At(Timestamp::from_seconds(5));
    let all = fold_runs(told.to_vec(), cut, Keep::Live);
    assert_eq!(all.0[0].tags.as_deref(), Some("{}"));
    for late in 0..3 {
        let early = (0..3).filter(|index| *index != late).map(|index| told[index].clone()).collect();
        let (base, _) = fold_runs(early, cut, BASE);
        assert_eq!(fold_runs(vec![base, told[late].clone()], cut, Keep::Live), all, "the base is without {late}");
    }
}

#[test]
fn tags_that_one_reader_could_not_read_another_one_knows() {
    let mut unread = parse("tags a v1 @3 ~4");
    (unread.lost, unread.via) = (Some("it is not there".to_owned()), "scan".to_owned());
    let first = vec![parse("scan a v1 @3 rank=0 body=x"), unread];
    let cut = Cut::At(Timestamp::from_seconds(5));
    let (rows, uncertain) = fold_runs(vec![first.clone()], cut, Keep::Live);
    assert_eq!((rows[0].tags.as_deref(), uncertain.len()), (None, 1));
    assert!(uncertain[0].reason.starts_with("its tags of 1970-01-01T00:00:03Z could not be read: it is not there"), "{uncertain:?}");
    let known = changes("scan a v1 @3 rank=0 body=x tags={\"n\":1}");
    let (rows, uncertain) = fold_runs(vec![first.clone(), known.clone()], cut, Keep::Live);
    assert_eq!((rows[0].tags.as_deref(), uncertain.len()), (Some("{\"n\":1}"), 0));
    // Tags of which an event told are others, although a server that dates whole seconds gives them the same time.
    let told = vec![ObjectChange { via: "event".to_owned(), ..first[1].clone() }];
    assert_eq!(fold_runs(vec![first, known, told], cut, Keep::Live).1.len(), 1);
}

#[test]
fn what_its_purge_alone_tells_of_may_have_been_there_until_then() {
    let named = |text: &str, at: i64| {
        let (rows, uncertain) = fold_runs(vec![changes(text)], Cut::At(Timestamp::from_seconds(at)), Keep::Live);
        (rows.len(), uncertain.into_iter().map(|named| named.reason).collect::<Vec<_>>())
    };
    let purged = "existed a v1 @7 ~3 #07\n purge a v1 @7 #07";
    for (at, expected) in [(2, 0), (3, 1), (6, 1), (7, 0)] {
        assert_eq!(named(purged, at).1.len(), expected, "at {at}");
    }
    let reason = "it was removed at 1970-01-01T00:00:07Z, and nobody told since when it had been there";
    assert_eq!(named(purged, 4), (0, vec![reason.to_owned()]));
    // A listing that began later has shown that there was nothing before.
    assert_eq!(named(&format!("{purged}\n existed a v1 @7 ~5 #07"), 4).1.len(), 0);
    // Somebody told of it after all, or it never was purged.
    let put = format!("{purged}\n put a v1 @5 #05 body=x");
    assert_eq!([4, 5, 6, 7].map(|at| named(&put, at)), [(0, vec![]), (1, vec![]), (1, vec![]), (0, vec![])]);
    assert_eq!(named(&format!("{purged}\n seen a v1 @7 ~9"), 4), (0, vec![]));
}

#[test]
fn of_several_values_of_one_second_the_last_is_known_where_a_reading_began_behind_it() {
    let told = |first: &str, second: &str| {
        let rows = changes(&format!("put a v1 @1 #01 etag=x body=x\n tags a v1 @3 {first} request=A\n tags a v1 @3 {second} request=B"));
        let (rows, uncertain) = fold_runs(vec![rows], Cut::At(Timestamp::from_seconds(5)), Keep::Live);
        let set = rows.into_iter().find(|row| row.facet == Facet::Tags).and_then(|row| row.tags);
        (set.unwrap_or_default(), uncertain.into_iter().map(|named| named.reason).collect::<Vec<_>>())
    };
    assert_eq!(told("~3 tags=4", "~4 tags=5"), ("5".to_owned(), vec![]));
    assert_eq!(told("~5 tags=4", "~4 tags=5"), ("4".to_owned(), vec![]));
    assert_eq!(told("~3 tags=5", "~3 tags=5"), ("5".to_owned(), vec![]), "whichever it was");
    let (_, named) = told("~3 tags=4", "~3 tags=5");
    assert_eq!(named, ["its tags of 1970-01-01T00:00:03Z: set more than once within that second, and which was the last is not known"]);
    let early = "put a v1 @1 #01 etag=x body=x\n tags a v1 @3 ~3 tags=4 request=A";
    check_base(early, 3, "tags a v1 @3 ~3 tags=5 request=B", 9);
}

#[test]
fn a_base_knows_which_of_two_requests_of_one_second_was_read_first() {
    let told = "put a v1 @1 #01 etag=x body=x\n tags a v1 @3 ~4 tags=4 request=A\n tags a v1 @3 ~5 tags=5 request=B";
    check_base(told, 3, "tags a v1 @3 ~9 tags=9 request=A", 9);
    check_base(told, 3, "tags a v1 @3 ~9 tags=9 request=C", 9);
}

proptest! {
    #[test]
    fn order_repetition_and_grouping_do_not_matter(
        rows in histories(),
        dealt in proptest::collection::vec((0usize..4, 0usize..4), 90),
        at in 0i64..10,
    ) {
        let cut = Cut::At(Timestamp::from_seconds(at));
        for keep in [Keep::Live, Keep::Current, BASE] {
            prop_assert_eq!(fold_runs(deal(&rows, &dealt), cut, keep), fold_runs(vec![rows.clone()], cut, keep));
        }
    }

    #[test]
    fn base_and_log_are_the_log_alone(
        rows in histories(),
        dealt in proptest::collection::vec(0usize..3, 90),
        base_at in 0i64..10,
        later in 0i64..10,
    ) {
        // Some rows are in the base, some came late; those at or before the base's cut may not be read again.
        let (early, late): (Vec<_>, Vec<_>) = rows.iter().cloned().zip(&dealt).partition(|(_, dealt)| **dealt > 0);
        let early: Vec<ObjectChange> = early.into_iter().map(|(row, _)| row).collect();
        let late: Vec<ObjectChange> = late.into_iter().map(|(row, _)| row).collect();
        let base_cut = Timestamp::from_seconds(base_at);
        let (base, _) = fold_runs(vec![early.clone()], Cut::At(base_cut), BASE);
        let after: Vec<ObjectChange> = early.into_iter().filter(|row| row.at > base_cut).chain(late).collect();
        let cut = Cut::At(Timestamp::from_seconds(base_at.max(later)));
        for keep in [Keep::Live, Keep::Current] {
            prop_assert_eq!(fold_runs(vec![base.clone(), after.clone()], cut, keep), fold_runs(vec![rows.clone()], cut, keep));
        }
    }
}

proptest! {
    #[test]
    fn of_what_is_overwritten_too_base_and_log_are_the_log_alone(
        rows in overwritten(),
        dealt in proptest::collection::vec((0usize..3, 0usize..4), 40),
        base_at in 0i64..12,
        later in 0i64..14,
    ) {
        let (early, late): (Vec<_>, Vec<_>) = rows.iter().cloned().zip(&dealt).partition(|(_, dealt)| dealt.0 > 0);
        let early: Vec<ObjectChange> = early.into_iter().map(|(row, _)| row).collect();
        let late: Vec<ObjectChange> = late.into_iter().map(|(row, _)| row).collect();
        let base_cut = Timestamp::from_seconds(base_at);
        let (base, _) = fold_runs(vec![early.clone()], Cut::At(base_cut), BASE);
        let reaches = |row: &ObjectChange| row.at.max(row.at_bound.unwrap_or(row.at)) > base_cut;
        let after: Vec<ObjectChange> = early.into_iter().filter(reaches).chain(late).collect();
        let cut = Cut::At(Timestamp::from_seconds(base_at.max(later)));
        let seen = |runs: Vec<Vec<ObjectChange>>| {
            let (rows, uncertain) = fold_runs(runs, cut, Keep::Live);
            // What a restore does not see: when it was put and shown, in which place of a tie, and who told of it first.
            let unseen = |row: ObjectChange| {
                let at = if row.facet == Facet::Version { Timestamp::MIN } else { row.at };
                ObjectChange { at, at_bound: None, rank: None, via: String::new(), position: Vec::new(), ..row }
            };
            let rows: Vec<ObjectChange> = rows.into_iter().map(unseen).collect();
            (rows, uncertain)
        };
        prop_assert_eq!(seen(vec![base, after]), seen(vec![rows.clone()]));
        prop_assert_eq!(seen(deal(&rows, &dealt)), seen(vec![rows]));
    }
}

proptest! {
    #[test]
    fn merging_changes_nothing_that_a_fold_can_see(
        rows in histories(),
        dealt in proptest::collection::vec((0usize..4, 0usize..4), 90),
        at in 0i64..10,
    ) {
        let (merged, _) = fold_runs(deal(&rows, &dealt), Cut::Nothing, Keep::Live);
        let cut = Cut::At(Timestamp::from_seconds(at));
        prop_assert_eq!(fold_runs(vec![merged], cut, Keep::Live), fold_runs(vec![rows], cut, Keep::Live));
    }
}
