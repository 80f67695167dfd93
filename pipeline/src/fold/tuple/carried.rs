//! What a row brings along when its key changes.
//!
//! ```text
//!  key 7   put {id 7, note "long"}   delete ──┐ one update: 7 becomes 9, and "note" is not sent
//!  key 9                              put ←───┘ {id 9, note ?}  is what 7 had
//! ```
//!
//! The two keys may lie in different hash buckets. So the moves are found first, then the histories of the keys that rows came
//! from, and each move is resolved in the order in which they happened: a row may move again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Laid, Resets, laid_over};
use crate::model::change::{TupleChange, TupleRow};
use crate::model::{Key, Op, json};

/// Rows that came to their keys from others without all of their columns.
#[derive(Debug, Default)]
pub struct Moves {
    moves: Vec<Move>,
    from: BTreeSet<Vec<u8>>,
    history: BTreeMap<Vec<u8>, Vec<TupleChange>>,
}

#[derive(Debug)]
struct Move {
    from: Vec<u8>,
    key: Vec<u8>,
    put: TupleChange,
}

/// The images of such rows, by key and position, and the columns that are missing in them still.
#[derive(Debug, Default)]
pub struct Carried {
    images: HashMap<Vec<u8>, BTreeMap<Vec<u8>, Laid>>,
}

impl Carried {
    /// The image of a row that came to this key there.
    pub(crate) fn of(&self, key: &[u8], position: &[u8]) -> Option<&Laid> {
        self.images.get(key)?.get(position)
    }
}

impl Moves {
    /// Takes in a change, in whichever order they come.
    pub fn look_at(&mut self, key: &[u8], row: &TupleRow<'_>) {
        let (Op::Put, Some(_), Some(identity), Some(before)) = (row.op, row.unsent, row.identity, row.before) else { return };
        let Ok(entries) = json::entries(before) else { return };
        let values: Vec<&str> = entries.iter().map(|(_, value)| value.get()).collect();
        let old = format!("[{}]", values.join(","));
        if old == identity {
            return;
        }
        let mut from = Vec::new();
        Key::write_tuple(&mut from, row.schema, row.table, &old);
        self.from.insert(from.clone());
        self.moves.push(Move { from, key: key.to_vec(), put: row.to_change() });
    }

    /// Whether no row has moved so.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// Takes in the changes of the keys that rows came from, once all moves are known.
    pub fn remember(&mut self, key: &[u8], row: &TupleRow<'_>) {
        if self.from.contains(key) {
            self.history.entry(key.to_vec()).or_default().push(row.to_change());
        }
    }

    /// What the rows brought along. `resets` says up to where tables had been emptied at a position.
    pub fn carried(mut self, resets: impl Fn(&[u8]) -> Resets) -> Carried {
        self.moves.sort_by(|a, b| a.put.position.cmp(&b.put.position));
        self.moves.dedup_by(|a, b| a.put.position == b.put.position && a.key == b.key);
        let mut carried = Carried::default();
        for Move { from, key, put } in &self.moves {
            let earlier = standing(self.history.get(from), from, &put.position, &resets(&put.position), &carried);
            let earlier = earlier.as_ref().map(|(image, missing)| (image.as_str(), missing.as_slice()));
            let laid = laid_over(put.image.as_deref().unwrap_or("{}"), put.unsent.as_deref().unwrap_or("[]"), earlier);
            carried.images.entry(key.clone()).or_default().insert(put.position.clone(), laid);
        }
        carried
    }
}

/// The image that a key had before it was taken away at a position.
fn standing(history: Option<&Vec<TupleChange>>, key: &[u8], before: &[u8], resets: &Resets, carried: &Carried) -> Option<Laid> {
    let reset = resets.of(key);
    let mut changes: Vec<&TupleChange> =
        history?.iter().filter(|change| change.position.as_slice() > reset && change.position.as_slice() < before).collect();
    changes.sort_by(|a, b| (&a.position, a.op == Op::Put).cmp(&(&b.position, b.op == Op::Put)));
    // The delete that takes the row away stands just before the put that brings it elsewhere.
    if changes.last().is_some_and(|last| last.op == Op::Delete) {
        changes.pop();
    }
    let mut image: Option<Laid> = None;
    for change in changes {
        image = match (change.op, &change.unsent) {
            (Op::Put, None) => Some((change.image.clone().unwrap_or_default(), Vec::new())),
            (Op::Put, Some(unsent)) => Some(match carried.of(key, &change.position) {
                Some(carried) => carried.clone(),
                None => {
                    let earlier = image.as_ref().map(|(image, missing)| (image.as_str(), missing.as_slice()));
                    laid_over(change.image.as_deref().unwrap_or("{}"), unsent, earlier)
                }
            }),
            _ => None,
        };
    }
    image
}
