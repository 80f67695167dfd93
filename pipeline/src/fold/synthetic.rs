//! A kind that exists only here: rows with column overlay, multisets of keyless rows, and resets.
//!
//! Databases and disks will state their joins in these terms; the merge must be ready for them. A row is
//! `key → name=value;...`, where a column that is absent keeps what it was; a row without a key is counted; a reset ends
//! everything before its position.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::testing::block_on;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::StreamExt;
use proptest::prelude::*;

use super::{Fold, Join, RowAt, Run, Survivors};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    key: String,
    position: u8,
    op: &'static str,
    value: BTreeMap<String, String>,
}

fn schema() -> Arc<Schema> {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let key = Field::new("key", DataType::Binary, false);
    let position = Field::new("position", DataType::Binary, false);
    Arc::new(Schema::new(vec![key, Field::new("khash", DataType::Int64, false), text("op"), text("value"), text("unused"), position]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let text = |f: &dyn Fn(&Row) -> String| Arc::new(StringArray::from_iter_values(rows.iter().map(f))) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.key.as_bytes().to_vec()))),
        Arc::new(Int64Array::from(vec![0; rows.len()])),
        text(&|row| row.op.to_owned()),
        text(&|row| row.value.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";")),
        text(&|_| String::new()),
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| [row.position]))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The reset is given to every bucket's fold, as it stands in a manifest.
struct RowJoin {
    reset: Option<u8>,
    made: Vec<Row>,
}

struct Columns<'a> {
    key: &'a BinaryArray,
    op: &'a StringArray,
    value: &'a StringArray,
    position: &'a BinaryArray,
}

impl Join for RowJoin {
    type Columns<'a> = Columns<'a>;

    fn columns<'a>(&self, batch: &'a RecordBatch) -> Columns<'a> {
        Columns {
            key: batch.column(0).as_binary(),
            op: batch.column(2).as_string(),
            value: batch.column(3).as_string(),
            position: batch.column(5).as_binary(),
        }
    }

    fn together(&self, before: &[u8], after: &[u8]) -> bool {
        before == after
    }

    fn join(&mut self, rows: &[RowAt], columns: &[Columns<'_>], out: &mut Survivors) {
        let position = |row: &RowAt| columns[row.0].position.value(row.1)[0];
        let rows: Vec<RowAt> = rows.iter().copied().filter(|row| self.reset.is_none_or(|reset| position(row) > reset)).collect();
        let Some(first) = rows.first() else { return };
        let key = String::from_utf8(columns[first.0].key.value(first.1).to_vec()).unwrap();
        if key.is_empty() {
            // Keyless: every distinct position counts once.
            let mut seen = BTreeSet::new();
            rows.iter().filter(|row| seen.insert(position(row))).for_each(|row| out.keep(*row));
            return;
        }
        let mut value: Option<(u8, BTreeMap<String, String>)> = None;
        for row in &rows {
            match columns[row.0].op.value(row.1) {
                "delete" => value = None,
                _ => {
                    let (at, overlaid) = value.get_or_insert_default();
                    *at = position(row);
                    let set = columns[row.0].value.value(row.1).split(';').filter_map(|pair| pair.split_once('='));
                    overlaid.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
                }
            }
        }
        if let Some((position, value)) = value {
            self.made.push(Row { key, position, op: "put", value });
            out.make();
        }
    }

    fn made(&mut self) -> Option<RecordBatch> {
        (!self.made.is_empty()).then(|| batch(&std::mem::take(&mut self.made)))
    }
}

/// What the rows amount to, by a plain map: the oracle.
fn expected(rows: &[Row], reset: Option<u8>) -> Vec<(String, BTreeMap<String, String>)> {
    let distinct: BTreeSet<&Row> = rows.iter().filter(|row| reset.is_none_or(|reset| row.position > reset)).collect();
    let mut in_order: Vec<&Row> = distinct.into_iter().collect();
    in_order.sort_by_key(|row| row.position);
    let mut state: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut keyless = BTreeMap::new();
    for row in in_order {
        if row.key.is_empty() {
            keyless.entry(row.position).or_insert_with(|| row.value.clone());
        } else if row.op == "delete" {
            state.remove(&row.key);
        } else {
            state.entry(row.key.clone()).or_default().extend(row.value.clone());
        }
    }
    keyless.into_values().map(|value| (String::new(), value)).chain(state).collect()
}

fn folded(runs: Vec<Vec<Row>>, slice: usize, reset: Option<u8>) -> Vec<(String, BTreeMap<String, String>)> {
    let runs = runs.into_iter().map(|mut rows| {
        rows.sort_by(|a, b| (&a.key, a.position).cmp(&(&b.key, b.position)));
        let batches: Vec<Result<RecordBatch, std::convert::Infallible>> = rows.chunks(slice).map(|chunk| Ok(batch(chunk))).collect();
        futures::stream::iter(batches).boxed() as Run<'static, std::convert::Infallible>
    });
    let mut fold = Fold::new(runs.collect(), RowJoin { reset, made: Vec::new() });
    let mut state = Vec::new();
    while let Ok(Some(piece)) = block_on(fold.next()) {
        let columns = RowJoin { reset: None, made: Vec::new() };
        let columns = columns.columns(&piece.rows);
        for index in 0..columns.key.len() {
            let key = String::from_utf8(columns.key.value(index).to_vec()).unwrap();
            let pairs = columns.value.value(index).split(';').filter_map(|pair| pair.split_once('='));
            state.push((key, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()));
        }
    }
    state
}

/// A history: the change at a position is one fact, however often it is delivered.
fn histories() -> impl Strategy<Value = Vec<Row>> {
    let change = ("[ab]?", any::<bool>(), "[xy]", "[0-9]");
    proptest::collection::vec(change, 0..24).prop_map(|changes| {
        let row = |(position, (key, delete, name, value)): (usize, (String, bool, String, String))| {
            let delete = delete && !key.is_empty();
            let value = if delete { BTreeMap::new() } else { BTreeMap::from([(name, value)]) };
            Row { key, position: position as u8, op: if delete { "delete" } else { "put" }, value }
        };
        changes.into_iter().enumerate().map(row).collect()
    })
}

proptest! {
    #[test]
    fn overlay_multiset_and_reset_do_not_care_how_changes_are_dealt(
        rows in histories(),
        dealt in proptest::collection::vec((0usize..4, 0usize..4), 24),
        slice in 1usize..5,
        reset in proptest::option::of(0u8..24),
    ) {
        let mut runs = vec![Vec::new(); 4];
        for (row, (first, again)) in rows.iter().zip(dealt) {
            runs[first].push(row.clone());
            runs[again].push(row.clone());
        }
        prop_assert_eq!(folded(runs, slice, reset), expected(&rows, reset));
    }
}
