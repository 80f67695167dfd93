//! The fold of rows beside a plain map, however its changes are dealt.

use std::collections::BTreeMap;
use std::convert::Infallible;

use futures::StreamExt;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::fold::{Fold, Run};
use crate::model::change::TupleChange;
use crate::model::{ChangeBatch, Position, Timestamp};
use crate::testing::block_on;

/// What happens to a table of two columns, `a` and `b`; `keyless` has no key.
#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u8,
        a: u8,
        b: u8,
    },
    /// Without column `b`, which stays as it is.
    Update {
        key: u8,
        a: u8,
    },
    Delete {
        key: u8,
    },
    Insert {
        value: u8,
    },
    /// A row of that content, if there is one.
    Remove {
        value: u8,
    },
    Truncate {
        keyless: bool,
    },
}

type State = (BTreeMap<String, Value>, Vec<Value>);

fn change(table: &str, op: Op, commit: usize) -> TupleChange {
    TupleChange {
        op,
        at: Timestamp::from_seconds(commit as i64),
        at_bound: None,
        position: position(commit),
        stream: "s".to_owned(),
        offset: Some(commit as i64),
        via: "event".to_owned(),
        requester: None,
        request: None,
        schema: "public".to_owned(),
        table: table.to_owned(),
        identity: None,
        image: None,
        before: None,
        unsent: None,
        shape: None,
        reason: None,
        raw: None,
    }
}

fn position(commit: usize) -> Vec<u8> {
    Position::committed(1, commit as u64, 1).as_bytes().to_vec()
}

fn row(key: u8, a: u8, b: Option<u8>) -> Value {
    let b = b.map_or(Value::from("?"), Value::from);
    Value::Object(Map::from_iter([("id".to_owned(), key.into()), ("a".to_owned(), a.into()), ("b".to_owned(), b)]))
}

/// The changes that the steps are told as, and the state after each, by a plain map.
fn history(steps: &[Step]) -> (Vec<TupleChange>, Vec<State>) {
    let (mut changes, mut states, mut state) = (Vec::new(), vec![State::default()], State::default());
    for (commit, step) in steps.iter().enumerate() {
        let identity = |key: u8| Some(format!("[{key}]"));
        match *step {
            Step::Put { key, a, b } => {
                let image = row(key, a, Some(b));
                changes.push(TupleChange { identity: identity(key), image: Some(image.to_string()), ..change("t", Op::Put, commit) });
                state.0.insert(format!("[{key}]"), image);
            }
            Step::Update { key, a } => {
                if let Some(known) = state.0.get_mut(&format!("[{key}]")) {
                    known["a"] = a.into();
                    let (image, unsent) = (row(key, a, None).to_string(), Some("[\"b\"]".to_owned()));
                    changes.push(TupleChange { identity: identity(key), image: Some(image), unsent, ..change("t", Op::Put, commit) });
                }
            }
            Step::Delete { key } => {
                changes.push(TupleChange { identity: identity(key), before: Some("{}".to_owned()), ..change("t", Op::Delete, commit) });
                state.0.remove(&format!("[{key}]"));
            }
            Step::Insert { value } => {
                let image = row(0, value, None);
                changes.push(TupleChange { image: Some(image.to_string()), ..change("keyless", Op::Put, commit) });
                state.1.push(image);
            }
            Step::Remove { value } => {
                let image = row(0, value, None);
                if let Some(at) = state.1.iter().position(|known| *known == image) {
                    changes.push(TupleChange { before: Some(image.to_string()), ..change("keyless", Op::Delete, commit) });
                    state.1.swap_remove(at);
                }
            }
            Step::Truncate { keyless } => {
                changes.push(change(if keyless { "keyless" } else { "t" }, Op::Reset, commit));
                if keyless { state.1.clear() } else { state.0.clear() }
            }
        }
        states.push(state.clone());
    }
    (changes, states)
}

/// The resets among changes up to a position, as a plan gathers them.
fn resets(changes: &[TupleChange], until: Option<&[u8]>) -> Resets {
    let mut resets = Resets::default();
    for change in changes.iter().filter(|change| change.op == Op::Reset && until.is_none_or(|until| change.position.as_slice() <= until)) {
        resets.table(&change.schema, &change.table, &change.position);
    }
    resets
}

fn fold(runs: Vec<Vec<TupleChange>>, slice: usize, until: Option<Vec<u8>>, resets: Resets) -> (Vec<TupleChange>, usize) {
    let runs = runs.into_iter().map(|changes| {
        let batch: ChangeBatch = changes.iter().map(TupleChange::row).collect();
        let sorted = crate::changelog::write::sort(&batch).into_rows();
        let slices = (0..sorted.num_rows()).step_by(slice).map(|from| Ok(sorted.slice(from, slice.min(sorted.num_rows() - from))));
        futures::stream::iter(slices.collect::<Vec<_>>()).boxed() as Run<'static, Infallible>
    });
    let mut fold = Fold::new(runs.collect(), TupleJoin::new(until, Keep::State, resets));
    let (mut found, mut uncertain) = (Vec::new(), 0);
    while let Ok(Some(piece)) = block_on(fold.next()) {
        uncertain += piece.uncertain.len();
        if piece.rows.num_rows() > 0 {
            let batch = ChangeBatch::tuples(piece.rows).unwrap();
            found.extend(batch.tuple_columns().iter().map(|row| row.to_change()));
        }
    }
    (found, uncertain)
}

fn state(rows: &[TupleChange]) -> State {
    let mut state = State::default();
    for row in rows {
        let image: Value = serde_json::from_str(row.image.as_deref().unwrap()).unwrap();
        match &row.identity {
            Some(identity) => drop(state.0.insert(identity.clone(), image)),
            None => state.1.push(image),
        }
    }
    sorted(state)
}

fn sorted(mut state: State) -> State {
    state.1.sort_by_key(Value::to_string);
    state
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..4, 0u8..5, 0u8..5).prop_map(|(key, a, b)| Step::Put { key, a, b }),
        4 => (0u8..4, 0u8..5).prop_map(|(key, a)| Step::Update { key, a }),
        2 => (0u8..4).prop_map(|key| Step::Delete { key }),
        4 => (0u8..2).prop_map(|value| Step::Insert { value }),
        3 => (0u8..2).prop_map(|value| Step::Remove { value }),
        1 => any::<bool>().prop_map(|keyless| Step::Truncate { keyless }),
    ];
    proptest::collection::vec(step, 0..30)
}

proptest! {
    /// Redelivery, overlap and grouping change nothing, at any cut.
    #[test]
    fn the_state_is_that_of_the_tables_however_changes_are_dealt(
        steps in steps(),
        cut in 0usize..31,
        dealt in proptest::collection::vec((0usize..3, 0usize..3), 30),
        slice in 1usize..5,
    ) {
        let (changes, states) = history(&steps);
        let cut = cut.min(steps.len());
        let mut runs = vec![Vec::new(); 3];
        for (change, (first, again)) in changes.iter().zip(dealt) {
            runs[first].push(change.clone());
            runs[again].push(change.clone());
        }
        // The state before the commit of that number.
        let until = cut.checked_sub(1).map_or_else(Vec::new, position);
        let (found, uncertain) = fold(runs, slice, Some(until.clone()), resets(&changes, Some(&until)));
        prop_assert_eq!(state(&found), sorted(states[cut].clone()));
        prop_assert_eq!(uncertain, 0);
    }

    /// What a fold leaves is a base: with the log behind it, it amounts to what the log alone does.
    #[test]
    fn a_base_and_the_log_behind_it_are_the_log_alone(steps in steps(), cut in 0usize..31, slice in 1usize..5) {
        let (changes, states) = history(&steps);
        let until = position(cut);
        let (base, _) = fold(vec![changes.clone()], slice, Some(until.clone()), resets(&changes, Some(&until)));
        let log: Vec<TupleChange> = changes.iter().filter(|change| change.position > until).cloned().collect();
        let (found, uncertain) = fold(vec![base, log], slice, None, resets(&changes, None));
        prop_assert_eq!(state(&found), sorted(states[steps.len()].clone()));
        prop_assert_eq!(uncertain, 0);
    }
}

#[test]
fn what_no_change_says_is_named() {
    let (image, unsent) = (row(1, 2, None).to_string(), Some("[\"b\"]".to_owned()));
    let update = TupleChange { identity: Some("[1]".to_owned()), image: Some(image), unsent: unsent.clone(), ..change("t", Op::Put, 1) };
    let (found, uncertain) = fold(vec![vec![update]], 4, None, Resets::default());
    assert_eq!((found.len(), found[0].unsent.as_ref(), uncertain), (1, unsent.as_ref(), 1));
    let removed = TupleChange { before: Some("{}".to_owned()), ..change("keyless", Op::Delete, 1) };
    assert_eq!(fold(vec![vec![removed]], 4, None, Resets::default()), (Vec::new(), 1));
}
