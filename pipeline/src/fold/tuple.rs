//! The rows of a database's tables.
//!
//! Changes stand in the order of commits, which their positions say, and a state ends between two commits. So of a row with
//! a key the last change up to there counts. Two things make it more than that:
//!
//! - A database may leave out of an update what did not change. Such columns keep what they had: the images of a key are laid
//!   over each other, back to its last delete.
//! - A row whose key changes is another key's from then on, and what was left out then is what the key before it had: it is
//!   [carried](Carried) over, before keys are joined, since the two may lie in different hash buckets.
//! - Rows of a table without a key are told apart by nothing but what is in them. Equal ones are counted: each delete takes
//!   one away that was there before.
//!
//! A reset (TRUNCATE, DROP, a new incarnation) ends everything of its table before it, in every hash bucket; it is given to the
//! join of each.

mod carried;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

pub use self::carried::{Carried, Moves};

use super::{Join, RowAt, Survivors, Uncertain};
use crate::model::change::{TupleColumns, TupleRow, TupleRows};
use crate::model::{Key, Op, json};

/// What a fold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The rows that are in the tables at the cut.
    State,
    /// Every change, each once.
    Changes,
}

/// Up to where tables were emptied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resets {
    /// By the bytes with which the keys of a table begin.
    tables: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of all tables.
    all: Vec<u8>,
}

impl Resets {
    /// A table was emptied at this position.
    pub fn table(&mut self, schema: &str, table: &str, position: &[u8]) {
        let mut begin = Vec::new();
        Key::write_tuple(&mut begin, schema, table, "");
        raise(self.tables.entry(begin).or_default(), position);
    }

    /// All tables were emptied at this position.
    pub fn everything(&mut self, position: &[u8]) {
        raise(&mut self.all, position);
    }

    /// Up to where changes of a key are over.
    fn of(&self, key: &[u8]) -> &[u8] {
        let table = || {
            let schema = Key::object_bytes(key)?;
            self.tables.get(&key[..schema + Key::object_bytes(&key[schema..])?])
        };
        let table = if self.tables.is_empty() { None } else { table() };
        table.map_or(&self.all, |table| table.max(&self.all))
    }
}

fn raise(to: &mut Vec<u8>, position: &[u8]) {
    if to.as_slice() < position {
        *to = position.to_vec();
    }
}

/// The join of rows. See the module.
pub struct TupleJoin {
    until: Option<Vec<u8>>,
    keep: Keep,
    resets: Resets,
    carried: Arc<Carried>,
    made: TupleRows,
}

impl TupleJoin {
    /// A join of what stands up to a position, this one included; without one, of everything.
    pub fn new(until: Option<Vec<u8>>, keep: Keep, resets: Resets) -> TupleJoin {
        TupleJoin { until, keep, resets, carried: Arc::default(), made: TupleRows::new() }
    }

    /// The same, with what rows brought along from other keys.
    #[must_use]
    pub fn carrying(self, carried: Arc<Carried>) -> TupleJoin {
        TupleJoin { carried, ..self }
    }
}

/// One change of a group.
#[derive(Clone, Copy)]
struct Told<'a> {
    at: RowAt,
    row: TupleRow<'a>,
}

impl<'a> Told<'a> {
    fn place(&self) -> (&'a [u8], bool, Op) {
        (self.row.position, self.row.op == Op::Put, self.row.op)
    }
}

/// An image that was put together, and the columns that are missing in it still.
pub(crate) type Laid = (String, Vec<String>);

/// What a row with a key is, as far as its changes have been gone through.
struct Standing<'a> {
    told: Told<'a>,
    /// Its image and the columns that are missing in it, where it had to be put together.
    overlaid: Option<Laid>,
}

impl Join for TupleJoin {
    type Columns<'a> = TupleColumns<'a>;

    fn columns<'a>(&self, batch: &'a RecordBatch) -> TupleColumns<'a> {
        TupleColumns::of(batch)
    }

    fn together(&self, before: &[u8], after: &[u8]) -> bool {
        before == after
    }

    fn join(&mut self, rows: &[RowAt], columns: &[TupleColumns<'_>], out: &mut Survivors) {
        let told = |&at: &RowAt| Told { at, row: columns[at.0].row(at.1) };
        let mut all: Vec<Told<'_>> = rows.iter().map(told).collect();
        // An update of a row without a key that changes nothing is a delete and a put in one place.
        all.sort_by(|a, b| a.place().cmp(&b.place()));
        all.dedup_by(|a, b| a.place() == b.place());
        if self.keep == Keep::Changes {
            all.iter().for_each(|told| out.keep(told.at));
            return;
        }
        let Some(&(batch, row)) = rows.first() else { return };
        let reset = self.resets.of(columns[batch].key.value(row));
        let is_in = |told: &Told<'_>| {
            let position = told.row.position;
            position > reset && self.until.as_deref().is_none_or(|until| position <= until)
        };
        // What is said of the database itself is no row of it.
        all.retain(|told| !told.row.schema.is_empty() && is_in(told));
        match all.first() {
            Some(first) if first.row.identity.is_none() => counted(&all, out),
            Some(_) => {
                let key = columns[batch].key.value(row);
                last_of(&all, |position| self.carried.of(key, position), &mut self.made, out);
            }
            None => {}
        }
    }

    fn made(&mut self) -> Option<RecordBatch> {
        (!self.made.is_empty()).then(|| self.made.finish().into_rows())
    }
}

/// The row that the changes of a key leave.
fn last_of<'c>(all: &[Told<'_>], carried: impl Fn(&[u8]) -> Option<&'c Laid>, made: &mut TupleRows, out: &mut Survivors) {
    let mut standing: Option<Standing<'_>> = None;
    for &told in all {
        match (told.row.op, told.row.unsent) {
            (Op::Put, None) => standing = Some(Standing { told, overlaid: None }),
            (Op::Put, Some(unsent)) => {
                let overlaid = match carried(told.row.position) {
                    Some(carried) => carried.clone(),
                    None => overlay(&told.row, unsent, standing.as_ref()),
                };
                standing = Some(Standing { told, overlaid: Some(overlaid) });
            }
            (Op::Delete, _) => standing = None,
            (Op::Reset | Op::Raw, _) => {}
        }
    }
    match standing {
        None => {}
        Some(Standing { told, overlaid: None }) => out.keep(told.at),
        Some(Standing { told, overlaid: Some((image, missing)) }) => {
            let unsent = (!missing.is_empty()).then(|| json::array(missing.iter().map(String::as_str)));
            made.push(&TupleRow { image: Some(&image), unsent: unsent.as_deref(), ..told.row });
            out.make();
            if !missing.is_empty() {
                let reason = format!("no change says what it has in {}", missing.join(", "));
                out.uncertain.push(doubt(&told.row, reason));
            }
        }
    }
}

/// An image of which columns are missing, laid over the one before; and what is missing still.
fn overlay(row: &TupleRow<'_>, unsent: &str, before: Option<&Standing<'_>>) -> Laid {
    let earlier = before.and_then(|standing| match &standing.overlaid {
        Some((image, missing)) => Some((image.as_str(), missing.as_slice())),
        None => standing.told.row.image.map(|image| (image, &[][..])),
    });
    laid_over(row.image.unwrap_or("{}"), unsent, earlier)
}

/// An image without these columns, laid over another one that misses some; and what is missing still.
pub(crate) fn laid_over(image: &str, unsent: &str, earlier: Option<(&str, &[String])>) -> Laid {
    let names: Vec<String> = serde_json::from_str(unsent).unwrap_or_default();
    let (earlier, missing) = earlier.unwrap_or(("{}", &[]));
    let (Ok(entries), Ok(earlier)) = (json::entries(image), json::entries(earlier)) else { return (image.to_owned(), names) };
    let known = |name: &str| {
        let is_known = names.iter().any(|unsent| unsent == name) && !missing.iter().any(|missing| missing == name);
        earlier.iter().find(|(known, _)| is_known && known == name).map(|(_, value)| value.get())
    };
    let laid: Vec<(&str, &str)> = entries.iter().map(|(name, value)| (&**name, known(name).unwrap_or(value.get()))).collect();
    let left: Vec<String> = names.iter().filter(|name| known(name).is_none()).cloned().collect();
    (json::object(laid), left)
}

/// The equal rows of a table without a key that are left of those that came.
fn counted(all: &[Told<'_>], out: &mut Survivors) {
    let mut there: Vec<Told<'_>> = Vec::new();
    for &told in all {
        match told.row.op {
            Op::Put => there.push(told),
            Op::Delete => {
                if there.pop().is_none() {
                    out.uncertain.push(doubt(&told.row, "a row like this was deleted that no change had brought".to_owned()));
                }
            }
            Op::Reset | Op::Raw => {}
        }
    }
    there.iter().for_each(|told| out.keep(told.at));
}

fn doubt(row: &TupleRow<'_>, reason: String) -> Uncertain {
    let row_itself = row.identity.or(row.image).or(row.before).unwrap_or_default();
    Uncertain { object: format!("{}.{}", row.schema, row.table), version: row_itself.to_owned(), reason }
}

#[cfg(test)]
mod tests;
