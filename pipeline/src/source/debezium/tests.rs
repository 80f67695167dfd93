//! What a real connector wrote (`tests/events/debezium`), and hostile input.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::proof::{Proof, Stall};
use super::*;
use crate::model::change::TupleChange;

fn feed() -> Feed {
    Feed { server: "t".to_owned(), epoch: 1, placeholder: PLACEHOLDER.to_owned() }
}

/// The records of a capture, each with its key and its value.
fn captured(name: &str) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let path = format!("{}/../tests/events/debezium/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    #[derive(Deserialize)]
    struct Captured<'a> {
        #[serde(borrow)]
        key: &'a RawValue,
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let record = |line: &str| {
        let Captured { key, value } = serde_json::from_str(line).unwrap();
        let value = Some(value.get()).filter(|value| *value != "null");
        (key.get().as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()))
    };
    text.lines().map(record).collect()
}

fn decode_all(records: &[(Vec<u8>, Option<Vec<u8>>)]) -> Decoded {
    let mut decoder = Decoder::new(feed());
    for (offset, (key, value)) in records.iter().enumerate() {
        let at = Timestamp::from_seconds(1_795_341_400);
        decoder.push(&Record {
            stream: "debezium:t.transaction/0",
            partition: 0,
            offset: offset as i64,
            at,
            key: Some(key),
            value: value.as_deref(),
            old_key: None,
        });
    }
    decoder.finish()
}

fn changes(decoded: &Decoded) -> Vec<TupleChange> {
    decoded.changes.tuple_columns().iter().map(|row| row.to_change()).collect()
}

fn of_table<'a>(changes: &'a [TupleChange], table: &str) -> Vec<&'a TupleChange> {
    changes.iter().filter(|change| change.table == table).collect()
}

/// What is told of a table, in order.
fn told(changes: &[TupleChange], table: &str) -> Vec<String> {
    let words = |change: &&TupleChange| {
        let identity = change.identity.as_deref().unwrap_or("-");
        let image = change.image.as_deref().or(change.before.as_deref()).unwrap_or("-");
        let unsent = change.unsent.as_deref().map(|unsent| format!(" without {unsent}")).unwrap_or_default();
        format!("{} {} {identity} {image}{unsent}", change.via, change.op.as_str())
    };
    of_table(changes, table).iter().map(words).collect()
}

const CAPTURED: [&str; 4] =
    ["types-toast-truncate-copy-keychange-messages", "crash-before", "crash-after-restart", "ddl-through-logical-messages"];

#[test]
fn every_record_that_a_connector_wrote_is_understood() {
    for name in CAPTURED {
        let records = captured(name);
        let decoded = decode_all(&records);
        assert_eq!((decoded.raw, decoded.records), (0, records.len() as u64), "{name}");
        let ignored: u64 = decoded.ignored.values().sum();
        // One record is two changes: an update of a table without a key.
        let twice = changes(&decoded).windows(2).filter(|pair| pair[0].offset == pair[1].offset).count();
        // What follows from several records: a snapshot began, or has ended.
        let all = changes(&decoded);
        let following = all.iter().filter(|change| [control::INCARNATION, control::SNAPSHOT].contains(&&*change.table)).count();
        let told = decoded.changes.len() - following - (twice - of_table(&all, control::SNAPSHOT).len());
        assert_eq!(told as u64 + ignored, decoded.records, "{name}");
    }
}

#[test]
fn rows_are_kept_as_they_are_written() {
    let changes = changes(&decode_all(&captured(CAPTURED[0])));
    assert_eq!(
        told(&changes, "acct")[..4],
        [
            r#"scan put [1] {"id": 1, "bal": 100, "note": "a"}"#,
            r#"scan put [2] {"id": 2, "bal": 200, "note": "b"}"#,
            r#"event put [1] {"id": 1, "bal": 90, "note": "a"}"#,
            r#"event put [2] {"id": 2, "bal": 210, "note": "b"}"#,
        ]
    );
    // Rows without a key have no identity, and an update of one is a delete and a put.
    assert_eq!(
        told(&changes, "nopk_full"),
        [
            r#"event put - {"a": 1, "b": "x"}"#,
            r#"event put - {"a": 1, "b": "x"}"#,
            r#"event put - {"a": 2, "b": "y"}"#,
            r#"event delete - {"a": 1, "b": "x"}"#,
            r#"event delete - {"a": 2, "b": "y"}"#,
            r#"event put - {"a": 2, "b": "z"}"#,
        ]
    );
    // The key in the order of its columns.
    let moved = [r#"event put [1,20121] {"id": 1, "d": 20121, "v": "p1"}"#, r#"event delete [1,20121] {"id": 1, "d": 20121, "v": null}"#];
    assert_eq!(told(&changes, "part_1"), moved);
    assert_eq!(told(&changes, "part_2"), [r#"event put [1,20308] {"id": 1, "d": 20308, "v": "p1"}"#]);
    assert_eq!(told(&changes, "parent"), [r#"event put [1] {"id": 1}"#, "event reset - -"]);
    // Columns that were not sent are named, and nothing else is.
    let unsent: Vec<&TupleChange> = changes.iter().filter(|change| change.unsent.is_some()).collect();
    let [update] = unsent[..] else { panic!("{unsent:?}") };
    assert_eq!((update.table.as_str(), update.unsent.as_deref()), ("toast", Some(r#"["big"]"#)));
}

#[test]
fn transactions_stand_in_the_order_of_their_commits_and_their_ends_behind_them() {
    for name in CAPTURED {
        let changes = changes(&decode_all(&captured(name)));
        // The connector writes one transaction after the other; after a restart some of them again.
        let mut seen = BTreeMap::new();
        let mut last: Option<&TupleChange> = None;
        // What a connector begins with has no place yet.
        let is_placed = |change: &&TupleChange| Position::commit_of(&change.position).is_some_and(|(commit, _)| commit & UNPLACED == 0);
        let in_order = changes.iter().filter(is_placed);
        for change in in_order.filter(|change| ![control::INCARNATION, control::SNAPSHOT].contains(&&*change.table)) {
            let what = (change.schema.as_str(), change.table.as_str(), change.identity.as_deref(), change.op, change.image.as_deref());
            assert_eq!(*seen.entry((&change.position, what)).or_insert(change.at), change.at, "{name}: told again at another time");
            if let Some(last) = last.filter(|last| last.position > change.position) {
                panic!("{name}: {change:?} stands before {last:?}");
            }
            last = Some(change);
        }
        // Of each transaction that ended as many rows are there as its END says.
        for end in of_table(&changes, control::END) {
            let said: Value = serde_json::from_str(end.image.as_deref().unwrap()).unwrap();
            let expected: u64 = said["data_collections"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|table| table["data_collection"].as_str().is_some_and(|table| table.starts_with("public.")))
                .map(|table| table["event_count"].as_u64().unwrap())
                .sum();
            let of_it = |change: &&TupleChange| {
                change.request == end.request && change.schema == "public" && (change.position < end.position || !is_placed(change))
            };
            let found: BTreeSet<&[u8]> = changes.iter().filter(of_it).map(|change| change.position.as_slice()).collect();
            let is_there = name != "crash-after-restart" || found.len() as u64 == expected;
            assert!(!is_there || found.len() as u64 == expected, "{name}: {} of {expected} changes of {said}", found.len());
        }
    }
}

/// What is proven of a capture, in whatever order its partitions were read, and why not more.
fn proven(name: &str) -> (usize, Option<Stall>) {
    let changes = changes(&decode_all(&captured(name)));
    let mut proof = Proof::default();
    let mut shuffled: Vec<&TupleChange> = changes.iter().collect();
    shuffled.sort_by_key(|change| (&change.table, change.offset));
    shuffled.iter().for_each(|change| proof.take(&change.row()));
    assert_eq!(proof.advance(), [], "{name}: nobody has said that the snapshot is whole");
    let snapshots: Vec<u64> = proof.ended_snapshots().collect();
    snapshots.iter().for_each(|lsn| proof.snapshot_is_whole(*lsn));
    (proof.advance().len(), proof.stall())
}

#[test]
fn every_transaction_of_a_capture_is_proven_and_follows_the_one_before() {
    let ends = of_table(&changes(&decode_all(&captured(CAPTURED[0]))), control::END).len();
    assert_eq!(proven(CAPTURED[0]), (1 + ends, None));
    // All tables were empty, so that nothing says whether there was a snapshot.
    let (count, stall) = proven(CAPTURED[3]);
    assert!(count == 0 && matches!(stall, Some(Stall::Anew { .. })), "{count} {stall:?}");
}

#[test]
fn what_a_restarted_connector_tells_again_is_the_same() {
    let facts = |name: &str| -> BTreeSet<String> {
        let changes = changes(&decode_all(&captured(name)));
        let rows = changes.into_iter().filter(|change| change.schema == "public");
        rows.map(|change| serde_json::to_string(&TupleChange { offset: None, ..change }).unwrap()).collect()
    };
    let (before, after) = (facts("crash-before"), facts("crash-after-restart"));
    assert_eq!(before.intersection(&after).count(), 39);
}

#[test]
fn a_row_that_came_from_another_key_says_so() {
    let source =
        json!({ "schema": "public", "table": "a", "ts_us": 1_795_341_302_138_521_i64, "sequence": "[\"5\",\"7\"]", "lsn": 7, "txId": 9 });
    let value =
        json!({ "op": "c", "after": { "id": 2, "note": PLACEHOLDER }, "source": source, "transaction": { "id": "9:7", "total_order": 2 } });
    let value = value.to_string();
    for old_key in [r#"{"id":1}"#, r#"{"schema":{},"payload":{"id":1}}"#] {
        let mut decoder = Decoder::new(feed());
        let (key, old_key) = (Some(&b"{\"id\":2}"[..]), Some(old_key.as_bytes()));
        let at = Timestamp::from_seconds(1);
        decoder.push(&Record {
            stream: "debezium:t.transaction/0",
            partition: 0,
            offset: 1,
            at,
            key,
            value: Some(value.as_bytes()),
            old_key,
        });
        let changes = changes(&decoder.finish());
        let [change] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((change.before.as_deref(), change.unsent.as_deref()), (Some(r#"{"id":1}"#), Some(r#"["note"]"#)));
    }
}

#[test]
fn what_another_connector_tells_is_none_of_it() {
    let records = captured(CAPTURED[0]);
    let mut decoder = Decoder::new(Feed { server: "u".to_owned(), ..feed() });
    for (offset, (key, value)) in records.iter().enumerate() {
        let (at, key, value) = (Timestamp::from_seconds(1), Some(key.as_slice()), value.as_deref());
        decoder.push(&Record { stream: "debezium:u.eu.transaction/0", partition: 0, offset: offset as i64, at, key, value, old_key: None });
    }
    let decoded = decoder.finish();
    assert_eq!((decoded.changes.len(), decoded.raw), (0, 0));
    assert_eq!(decoded.ignored[&Ignored::Foreign], 88, "{:?}", decoded.ignored);
}

#[test]
fn messages_are_kept_in_their_place() {
    let changes = changes(&decode_all(&captured(CAPTURED[3])));
    let messages = of_table(&changes, control::MESSAGE);
    assert_eq!(messages.len(), 10);
    assert!(messages.iter().all(|message| message.image.as_deref().unwrap().contains("cdcb.")));
    let distinct: BTreeSet<Option<&str>> = messages.iter().map(|message| message.identity.as_deref()).collect();
    assert_eq!(distinct.len(), 10);
}

fn check_raw(value: &str, reason: &str) {
    let decoded = decode_all(&[(b"null".to_vec(), Some(value.as_bytes().to_vec()))]);
    let changes = changes(&decoded);
    assert_eq!((decoded.raw, changes.len()), (1, 1), "{value}");
    assert_eq!(changes[0].op, Op::Raw);
    let told = changes[0].reason.as_deref().unwrap();
    assert!(told.contains(reason), "{value}: {told}");
    assert!(changes[0].raw.as_deref().unwrap().ends_with(value.as_bytes()));
}

#[test]
fn what_cannot_be_decoded_is_kept_whole() {
    let source = json!({ "schema": "public", "table": "a", "ts_us": 1_795_341_302_138_521_i64, "sequence": "[null,\"7\"]", "lsn": 7 });
    let event = |op: &str, before: Value, after: Value| json!({ "op": op, "before": before, "after": after, "source": source }).to_string();
    check_raw("", "not JSON");
    check_raw("{\"op\":", "not JSON");
    check_raw("[1]", "not JSON");
    check_raw("{}", "no event of a Debezium connector");
    check_raw(&json!({ "op": "c" }).to_string(), "no source");
    check_raw(&event("c", Value::Null, Value::Null), "no after");
    check_raw(&event("x", Value::Null, json!({})), "\"x\" is unknown");
    check_raw(&event("d", Value::Null, Value::Null), "REPLICA IDENTITY FULL");
    let late = json!({ "op": "c", "after": {}, "source": { "table": "a", "ts_us": -5, "sequence": "[null,\"7\"]" } });
    check_raw(&late.to_string(), "not one after 1970");
    let odd = json!({ "op": "c", "after": {}, "source": { "table": "a", "ts_us": 5, "sequence": "[7]" } });
    check_raw(&odd.to_string(), "no sequence of a PostgreSQL connector");
    let decoded = decode_all(&[(b"\xff".to_vec(), Some(b"\xfe".to_vec()))]);
    assert_eq!(changes(&decoded)[0].raw.as_deref(), Some(&[0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0xFE][..]));
}

#[test]
fn a_schema_beside_the_event_changes_nothing() {
    let records = captured(CAPTURED[0]);
    let wrap = |bytes: &[u8]| {
        let payload = std::str::from_utf8(bytes).unwrap();
        format!("{{\"schema\":{{\"type\":\"struct\",\"fields\":[]}},\"payload\":{payload}}}").into_bytes()
    };
    let wrapped: Vec<(Vec<u8>, Option<Vec<u8>>)> = records.iter().map(|(key, value)| (wrap(key), value.as_deref().map(wrap))).collect();
    assert_eq!(decode_all(&wrapped), decode_all(&records));
}

#[test]
fn a_value_that_was_not_sent_is_known_in_every_shape() {
    let placeholder = image::Placeholder::new(PLACEHOLDER);
    let bytes: Vec<i8> = PLACEHOLDER.bytes().map(|byte| byte as i8).collect();
    let image = json!({
        "id": 1,
        "text": PLACEHOLDER,
        "bytea": "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
        "texts": [PLACEHOLDER],
        "ints": bytes,
        "hstore": { PLACEHOLDER: PLACEHOLDER },
        "hstore_text": format!("{{\"{PLACEHOLDER}\":\"{PLACEHOLDER}\"}}"),
        "longer": format!("{PLACEHOLDER}s"),
        "two": [PLACEHOLDER, PLACEHOLDER],
    });
    let unsent = placeholder.unsent(&image.to_string()).unwrap().unwrap();
    let mut unsent: Vec<String> = serde_json::from_str(&unsent).unwrap();
    unsent.sort();
    assert_eq!(unsent, ["bytea", "hstore", "hstore_text", "ints", "text", "texts"]);
    assert_eq!(placeholder.unsent(&json!({ "id": 1, "text": "x" }).to_string()).unwrap(), None);
}
