use proptest::prelude::*;

use super::*;
use crate::fold::tuple::{Keep, Moves, Resets, TupleJoin};
use crate::fold::{Fold, Run};
use crate::model::change::TupleChange;

/// One value as a message has it: a text, `~` for NULL, `?` for one that was not sent.
fn write_row(message: &mut Vec<u8>, row: &str) {
    let values: Vec<&str> = row.split_whitespace().collect();
    message.extend_from_slice(&(values.len() as i16).to_be_bytes());
    for value in values {
        match value {
            "~" => message.push(b'n'),
            "?" => message.push(b'u'),
            text => {
                message.push(b't');
                message.extend_from_slice(&(text.len() as i32).to_be_bytes());
                message.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// The table `public.t` with this replica identity and these columns, those of its key with a star.
fn relation(oid: u32, identity: char, columns: &str) -> Vec<u8> {
    let mut message = vec![b'R'];
    message.extend_from_slice(&oid.to_be_bytes());
    message.extend_from_slice(b"public\0t\0");
    message.push(identity as u8);
    let columns: Vec<&str> = columns.split_whitespace().collect();
    message.extend_from_slice(&(columns.len() as i16).to_be_bytes());
    for column in columns {
        message.push(u8::from(column.ends_with('*')));
        message.extend_from_slice(column.trim_end_matches('*').as_bytes());
        message.push(0);
        message.extend_from_slice(&25u32.to_be_bytes());
        message.extend_from_slice(&(-1i32).to_be_bytes());
    }
    message
}

/// `insert ROW`, `update [key OLD | whole OLD] to ROW`, `delete key OLD`, `truncate`, of the table with number 7.
fn change(line: &str) -> Vec<u8> {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let letter = match kind {
        "insert" => b'I',
        "update" => b'U',
        "delete" => b'D',
        _ => b'T',
    };
    let mut message = vec![letter];
    if letter == b'T' {
        message.extend_from_slice(&1i32.to_be_bytes());
        message.push(0);
        message.extend_from_slice(&7u32.to_be_bytes());
        return message;
    }
    message.extend_from_slice(&7u32.to_be_bytes());
    let (old, new) = rest.split_once("to ").unwrap_or(if letter == b'D' { (rest, "") } else { ("", rest) });
    for (word, mark) in [("key ", b'K'), ("whole ", b'O')] {
        if let Some(row) = old.strip_prefix(word) {
            message.push(mark);
            write_row(&mut message, row);
        }
    }
    if letter != b'D' {
        message.push(b'N');
        write_row(&mut message, new);
    }
    message
}

fn decoder() -> Decoder {
    Decoder::new(Feed { stream: "slot".to_owned(), epoch: 1 })
}

/// Transactions of table 7, each the changes between two commits.
fn decode(decoder: &mut Decoder, table: &[u8], transactions: &[&[&str]]) -> Vec<TupleChange> {
    for (index, changes) in transactions.iter().enumerate() {
        let commit = 100 * (index as u64 + 1);
        decoder.begin(Begin { commit, at: Timestamp::from_seconds(commit as i64), xid: 9 });
        decoder.data(table);
        changes.iter().for_each(|line| decoder.data(&change(line)));
        decoder.commit(commit + 8);
    }
    let batch = decoder.finish();
    batch.tuple_columns().iter().map(|row| row.to_change()).collect()
}

/// The images that the state of the table has after these transactions.
fn state(table: &[u8], transactions: &[&[&str]]) -> Vec<String> {
    state_of(decoder(), table, transactions)
}

fn state_of(mut decoder: Decoder, table: &[u8], transactions: &[&[&str]]) -> Vec<String> {
    let changes = decode(&mut decoder, table, transactions);
    assert!(changes.iter().all(|change| change.op != Op::Raw), "{changes:?}");
    let batch: ChangeBatch = changes.iter().map(TupleChange::row).collect();
    let resets_up_to = |position: &[u8]| {
        let mut resets = Resets::default();
        for reset in changes.iter().filter(|change| change.op == Op::Reset && change.position.as_slice() <= position) {
            resets.table(&reset.schema, &reset.table, &reset.position);
        }
        resets
    };
    let mut moves = Moves::default();
    let columns = batch.tuple_columns();
    columns.iter().enumerate().for_each(|(index, row)| moves.look_at(columns.key.value(index), &row));
    columns.iter().enumerate().for_each(|(index, row)| moves.remember(columns.key.value(index), &row));
    let carried = Arc::new(moves.carried(resets_up_to));
    let resets = resets_up_to(&[0xFF]);
    let sorted = crate::changelog::write::sort(&batch).into_rows();
    let run: Run<'static, std::convert::Infallible> = Box::pin(futures::stream::iter([Ok(sorted)]));
    let mut fold = Fold::new(vec![run], TupleJoin::new(None, Keep::State, resets).carrying(carried));
    let mut images = Vec::new();
    while let Some(folded) = crate::testing::block_on(fold.next()).unwrap() {
        let rows = ChangeBatch::tuples(folded.rows).unwrap();
        images.extend(rows.tuple_columns().iter().map(|row| row.image.unwrap_or_default().to_owned()));
    }
    images
}

#[test]
fn a_transaction_is_its_changes_in_their_order_and_its_end() {
    let changes = decode(&mut decoder(), &relation(7, 'd', "id* name"), &[&["insert 1 a", "update to 1 b", "delete key 1 ~"]]);
    let told: Vec<(Op, &str, Option<&str>, Option<&str>)> =
        changes.iter().map(|change| (change.op, change.table.as_str(), change.identity.as_deref(), change.image.as_deref())).collect();
    assert_eq!(told[0].1, control::SHAPE);
    assert_eq!(told[1], (Op::Put, "t", Some(r#"["1"]"#), Some(r#"{"id":"1","name":"a"}"#)));
    assert_eq!(told[2], (Op::Put, "t", Some(r#"["1"]"#), Some(r#"{"id":"1","name":"b"}"#)));
    assert_eq!((told[3], changes[3].before.as_deref()), ((Op::Delete, "t", Some(r#"["1"]"#), None), Some(r#"{"id":"1"}"#)));
    let end = &changes[4];
    let counted = r#"{"data_collections":[{"data_collection":"public.t","event_count":3}],"event_count":3,"id":"9:108","status":"END"}"#;
    assert_eq!((end.table.as_str(), end.image.as_deref(), end.at.seconds()), (control::TRANSACTION, Some(counted), 100));
    assert!(changes.windows(2).skip(1).all(|pair| pair[0].position < pair[1].position));
    assert!(
        changes[1..4].iter().all(|change| change.shape.as_deref() == changes[0].identity.as_deref().map(|name| &name[2..name.len() - 2]))
    );
}

#[test]
fn a_key_that_changes_is_taken_away_from_where_it_was() {
    let table = relation(7, 'd', "id* name");
    assert_eq!(state(&table, &[&["insert 1 a"], &["update key 1 ~ to 2 a"]]), [r#"{"id":"2","name":"a"}"#]);
    // Two rows that swap their keys in one transaction.
    let swapped =
        state(&table, &[&["insert 1 a", "insert 2 b"], &["update key 1 ~ to 3 a", "update key 2 ~ to 1 b", "update key 3 ~ to 2 a"]]);
    assert_eq!(swapped, [r#"{"id":"1","name":"b"}"#, r#"{"id":"2","name":"a"}"#]);
}

#[test]
fn what_was_not_sent_is_what_it_was() {
    let table = relation(7, 'd', "id* name large");
    assert_eq!(
        state(&table, &[&["insert 1 a LARGE"], &["update to 1 b ?"], &["update to 1 c ?"]]),
        [r#"{"id":"1","name":"c","large":"LARGE"}"#]
    );
    // Where all of the old row comes, it is there.
    let table = relation(7, 'f', "id* name* large*");
    assert_eq!(state(&table, &[&["insert 1 a LARGE"], &["update whole 1 a LARGE to 1 b ?"]]), [r#"{"id":"1","name":"b","large":"LARGE"}"#]);
}

#[test]
fn what_was_not_sent_goes_along_to_another_key() {
    let table = relation(7, 'd', "id* name large");
    let check = |transactions: &[&[&str]], expected: &str| assert_eq!(state(&table, transactions), [expected]);
    check(&[&["insert 1 a LARGE"], &["update key 1 ~ ~ to 2 a ?"]], r#"{"id":"2","name":"a","large":"LARGE"}"#);
    check(
        &[&["insert 1 a LARGE"], &["update key 1 ~ ~ to 2 a ?", "update to 2 b ?", "update key 2 ~ ~ to 3 c ?"]],
        r#"{"id":"3","name":"c","large":"LARGE"}"#,
    );
    check(&[&["insert 1 a OLD", "truncate", "insert 1 a NEW"], &["update key 1 ~ ~ to 2 a ?"]], r#"{"id":"2","name":"a","large":"NEW"}"#);
    // Two rows that swap their keys over a third.
    let swapped = &["update key 1 ~ ~ to 3 a ?", "update key 2 ~ ~ to 1 b ?", "update key 3 ~ ~ to 2 a ?"];
    let found = state(&table, &[&["insert 1 a ONE", "insert 2 b TWO"], swapped]);
    assert_eq!(found, [r#"{"id":"1","name":"b","large":"TWO"}"#, r#"{"id":"2","name":"a","large":"ONE"}"#]);
}

#[test]
fn rows_without_a_key_are_counted() {
    let table = relation(7, 'n', "name");
    assert_eq!(state(&table, &[&["insert a", "insert a", "insert b"]]).len(), 3);
    let table = relation(7, 'f', "name*");
    let left =
        state(&table, &[&["insert a", "insert a", "insert b"], &["delete whole a", "update whole b to c"], &["update whole a to a"]]);
    assert_eq!(left, [r#"{"name":"a"}"#, r#"{"name":"c"}"#]);
}

#[test]
fn of_a_table_whose_identity_is_all_columns_the_primary_key_tells_rows_apart_where_it_is_known() {
    let mut decoder = decoder();
    decoder.set_key(7, vec!["id".to_owned()]);
    let table = relation(7, 'f', "id* name*");
    let changes = decode(&mut decoder, &table, &[&["insert 1 a", "update whole 1 a to 1 b", "update whole 1 b to 2 b"]]);
    let told: Vec<(Op, Option<&str>)> =
        changes.iter().filter(|change| change.table == "t").map(|change| (change.op, change.identity.as_deref())).collect();
    let one = Some(r#"["1"]"#);
    assert_eq!(told, [(Op::Put, one), (Op::Put, one), (Op::Delete, one), (Op::Put, Some(r#"["2"]"#))]);
    assert_eq!(changes[2].before.as_deref(), Some(r#"{"id":"1","name":"a"}"#), "what it was before is kept, for who wants to undo it");
}

#[test]
fn what_came_before_a_table_was_emptied_is_gone_and_what_comes_after_stays() {
    let table = relation(7, 'd', "id* name");
    assert_eq!(state(&table, &[&["insert 1 a", "insert 2 b"], &["insert 3 c", "truncate", "insert 1 d"]]), [r#"{"id":"1","name":"d"}"#]);
}

#[test]
fn rows_of_a_snapshot_stand_before_all_that_was_committed_since() {
    let mut decoder = decoder();
    let bytes = relation(7, 'd', "id* name");
    let table = Relation::read(&mut wire::Bytes::of(&bytes[1..])).unwrap();
    let at = Timestamp::from_seconds(5);
    decoder.snapshot(&table, 1, at, &[Some("1"), None]).unwrap();
    decoder.snapshot(&table, 2, at, &[Some("2"), Some("tab\t")]).unwrap();
    assert_eq!(decoder.snapshot(&table, 3, at, &[None]), Err(PgOutputError::Columns { found: 1, expected: 2 }));
    assert_eq!(state_of(decoder, &bytes, &[&["update to 1 b"]]), [r#"{"id":"1","name":"b"}"#, r#"{"id":"2","name":"tab\t"}"#]);
}

#[test]
fn messages_are_kept_with_their_place_in_a_transaction_and_outside_of_one() {
    let mut decoder = decoder();
    decoder.begin(Begin { commit: 100, at: Timestamp::from_seconds(1), xid: 3 });
    decoder.message(90, Timestamp::from_seconds(9), "mark", b"before the release");
    decoder.commit(108);
    decoder.message(120, Timestamp::from_seconds(9), "mark", b"\xFF");
    let batch = decoder.finish();
    let rows: Vec<TupleChange> = batch.tuple_columns().iter().map(|row| row.to_change()).collect();
    assert_eq!(rows[0].image.as_deref(), Some(r#"{"content":"YmVmb3JlIHRoZSByZWxlYXNl","prefix":"mark"}"#));
    assert_eq!((rows[0].at.seconds(), rows[0].request.as_deref()), (1, Some("3")));
    assert_eq!((rows[2].at.seconds(), rows[2].request.as_deref()), (9, None));
    assert!(rows[1].position < rows[2].position);
}

#[test]
fn what_cannot_be_decoded_is_kept_whole_with_the_reason() {
    let check = |message: &[u8], reason: &str| {
        let mut decoder = decoder();
        decoder.begin(Begin { commit: 100, at: Timestamp::from_seconds(1), xid: 3 });
        decoder.data(&relation(7, 'd', "id* name"));
        decoder.data(message);
        assert_eq!(decoder.raw(), 1, "{message:?}");
        let batch = decoder.finish();
        let row = batch.tuple_columns().row(0).to_change();
        assert_eq!((row.op, row.raw.as_deref()), (Op::Raw, Some(message)));
        let found = row.reason.unwrap_or_default();
        assert!(found.contains(reason), "{found}");
    };
    check(b"", "ends too early");
    check(b"X", "the kind 0x58");
    check(&change("insert 1"), "1 values, and the table 2 columns");
    check(&change("insert 1 a")[..12], "ends too early");
    check(&[b'I', 0, 0, 0, 9, b'N', 0, 0], "the table with the number 9");
    let mut not_text = change("insert 1 a");
    *not_text.last_mut().unwrap() = 0xFF;
    check(&not_text, "not UTF-8 after byte 0");
    let mut binary = change("insert 1 a");
    binary[8] = b'b';
    check(&binary, "the unknown form 0x62");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(messages in proptest::collection::vec(proptest::collection::vec(proptest::sample::select(b"RIUDTKON\0\x01\x07ntu\xFFa".to_vec()), 0..40), 0..8)) {
        let mut decoder = decoder();
        decoder.begin(Begin { commit: 100, at: Timestamp::from_seconds(1), xid: 3 });
        decoder.data(&relation(7, 'd', "id* name"));
        messages.iter().for_each(|message| decoder.data(message));
        prop_assert!(ChangeBatch::tuples(decoder.finish().into_rows()).is_ok());
    }
}
