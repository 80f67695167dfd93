//! The one rule: what "the state at T" means.
//!
//! Changes arrive as runs, each sorted by (key, position). A merge brings together all rows that concern one thing, a
//! [`Join`] says what they amount to at the cut, and what survives goes on, sorted as it came:
//!
//! ```text
//!  run ─┐
//!  run ─┼→ merge by (key, position) → group → join at the cut → survivors
//!  run ─┘
//! ```
//!
//! A join must not care about order, repetition or grouping of its input. Then redelivery, overlap, late events,
//! rebuilt bases and replayed archives need no special case, and base + log = log alone. Each kind states its own:
//! [`object`] for versions of S3 objects, [`tuple`] for rows of tables, [`block`] for blocks of disks. A survivor is usually a row of the input, taken as it is; where rows of
//! one change complete each other, a new one is made.
//!
//! Memory is bounded by one batch per run and the largest group.

pub mod block;
pub mod in_place;
pub mod object;
pub mod siblings;
pub mod sieve;
#[cfg(test)]
mod synthetic;
pub mod tuple;

use std::cmp::Ordering;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::change::{KEY, POSITION};

/// Where a fold ends. Inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// The state at this instant.
    At(Timestamp),
    /// Nothing is cut off: rows of one change are joined, and every change stays. What merging segments does.
    Nothing,
}

impl Cut {
    /// Whether a change at this instant belongs to the state.
    pub fn includes(&self, at: Timestamp) -> bool {
        match self {
            Cut::At(cut) => at <= *cut,
            Cut::Nothing => true,
        }
    }
}

/// A key of which the fold cannot say whether it was there at the cut.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Uncertain {
    /// The object's key.
    pub object: String,
    /// Its version.
    pub version: String,
    /// Why, in words.
    pub reason: String,
}

/// One run: batches whose rows are sorted by (key, position), within and across batches.
pub type Run<'a, E> = BoxStream<'a, Result<RecordBatch, E>>;

/// A row of a held batch: which batch, which row.
pub type RowAt = (usize, usize);

/// What the rows of one group amount to.
pub trait Join: Send {
    /// The columns of a batch, found once per batch.
    type Columns<'a>;

    /// Finds the columns.
    fn columns<'a>(&self, batch: &'a RecordBatch) -> Self::Columns<'a>;

    /// Whether two keys that follow each other are joined together.
    fn together(&self, before: &[u8], after: &[u8]) -> bool;

    /// Says what survives of a group. Its rows come sorted by (key, position).
    fn join(&mut self, rows: &[RowAt], columns: &[Self::Columns<'_>], out: &mut Survivors);

    /// The rows that [`Survivors::make`] counted since the last call, in that order.
    fn made(&mut self) -> Option<RecordBatch>;
}

/// What survives of a window of groups, in order.
#[derive(Debug, Default)]
pub struct Survivors {
    rows: Vec<Survivor>,
    made: usize,
    /// Keys named uncertain.
    pub uncertain: Vec<Uncertain>,
}

#[derive(Debug, Clone, Copy)]
enum Survivor {
    Kept(RowAt),
    Made(usize),
}

impl Survivors {
    /// Keeps a row of the input as it is.
    pub fn keep(&mut self, row: RowAt) {
        self.rows.push(Survivor::Kept(row));
    }

    /// Announces a row that the join made itself and returns with [`Join::made`].
    pub fn make(&mut self) {
        self.rows.push(Survivor::Made(self.made));
        self.made += 1;
    }
}

/// A piece of the folded state.
#[derive(Debug)]
pub struct Folded {
    /// Surviving rows, sorted by (key, position) within and across pieces.
    pub rows: RecordBatch,
    /// Keys of this piece that are uncertain at the cut.
    pub uncertain: Vec<Uncertain>,
}

struct Cursor<'a, E> {
    run: Run<'a, E>,
    /// Which held batch it stands in, and at which row; none when it must be filled or has ended.
    at: Option<RowAt>,
    ended: bool,
}

/// A fold under way. See the module's picture.
pub struct Fold<'a, J, E> {
    join: J,
    cursors: Vec<Cursor<'a, E>>,
    held: Vec<RecordBatch>,
    group: Vec<RowAt>,
    /// Whether no batch takes a group apart.
    whole_groups: bool,
    done: bool,
}

impl<'a, J: Join, E> Fold<'a, J, E> {
    /// A fold of these runs by this join.
    pub fn new(runs: Vec<Run<'a, E>>, join: J) -> Fold<'a, J, E> {
        let cursors = runs.into_iter().map(|run| Cursor { run, at: None, ended: false }).collect();
        Fold { join, cursors, held: Vec::new(), group: Vec::new(), whole_groups: false, done: false }
    }

    /// A fold of one run of which no batch takes a group apart.
    pub fn of_whole_groups(run: Run<'a, E>, join: J) -> Fold<'a, J, E> {
        Fold { whole_groups: true, ..Fold::new(vec![run], join) }
    }

    /// The next piece of the state; none at the end.
    ///
    /// # Errors
    /// The first error of a run. The fold is of no use after it.
    pub async fn next(&mut self) -> Result<Option<Folded>, E> {
        while !self.done {
            self.fill().await?;
            let folded = self.advance();
            if folded.rows.num_rows() > 0 || !folded.uncertain.is_empty() {
                return Ok(Some(folded));
            }
        }
        Ok(None)
    }

    /// Sees to it that every run that has not ended stands in a batch.
    async fn fill(&mut self) -> Result<(), E> {
        for cursor in &mut self.cursors {
            while cursor.at.is_none() && !cursor.ended {
                match cursor.run.next().await.transpose()? {
                    Some(batch) if batch.num_rows() == 0 => {}
                    Some(batch) => {
                        self.held.push(batch);
                        cursor.at = Some((self.held.len() - 1, 0));
                    }
                    None => cursor.ended = true,
                }
            }
        }
        Ok(())
    }

    /// Merges until a run must be filled again, and joins every group that is complete.
    fn advance(&mut self) -> Folded {
        let mut out = Survivors::default();
        let columns: Vec<J::Columns<'_>> = self.held.iter().map(|batch| self.join.columns(batch)).collect();
        let sorted: Vec<Sorted<'_>> = self.held.iter().map(Sorted::of).collect();

        let mut heads: Vec<usize> = (0..self.cursors.len()).filter(|&index| self.cursors[index].at.is_some()).collect();
        let cursors = &mut self.cursors;
        let head_of = |cursors: &[Cursor<'a, E>], index: usize| cursors[index].at.expect("only runs that stand in a batch are heads");
        // Greatest first, so that the least is popped off the end and its successor sinks in from there.
        heads.sort_by(|&a, &b| compare(&sorted, head_of(cursors, b), head_of(cursors, a)).then(b.cmp(&a)));
        while let Some(&least) = heads.last() {
            let row = head_of(cursors, least);
            if let Some(&before) = self.group.last() {
                let (before, after) = (sorted[before.0].key.value(before.1), sorted[row.0].key.value(row.1));
                debug_assert!(before <= after, "a run must be sorted by (key, position)");
                if !self.join.together(before, after) {
                    self.join.join(&self.group, &columns, &mut out);
                    self.group.clear();
                }
            }
            self.group.push(row);
            if row.1 + 1 == self.held[row.0].num_rows() {
                cursors[least].at = None;
                break;
            }
            let next = (row.0, row.1 + 1);
            cursors[least].at = Some(next);
            let before = |other: usize| compare(&sorted, next, head_of(cursors, other)).then(least.cmp(&other)) == Ordering::Less;
            sink(&mut heads, before);
        }
        self.done = cursors.iter().all(|cursor| cursor.ended && cursor.at.is_none());
        if (self.done || self.whole_groups) && !self.group.is_empty() {
            self.join.join(&self.group, &columns, &mut out);
            self.group.clear();
        }
        drop(columns);
        let rows = self.take(&out);
        self.release();
        Folded { rows, uncertain: out.uncertain }
    }

    /// Gathers the survivors into one batch.
    fn take(&mut self, out: &Survivors) -> RecordBatch {
        let made = self.join.made();
        let mut sources: Vec<&RecordBatch> = self.held.iter().collect();
        let made_at = sources.len();
        if let Some(made) = &made {
            assert_eq!(made.num_rows(), out.made, "a join returns every row it announced");
            sources.push(made);
        } else {
            assert_eq!(out.made, 0, "a join returns every row it announced");
        }
        let indices: Vec<RowAt> = out
            .rows
            .iter()
            .map(|survivor| match survivor {
                Survivor::Kept(row) => *row,
                Survivor::Made(index) => (made_at, *index),
            })
            .collect();
        // What survives whole need not be copied.
        if let [batch] = sources[..]
            && indices.len() == batch.num_rows()
            && indices.iter().enumerate().all(|(row, survivor)| *survivor == (0, row))
        {
            return batch.clone();
        }
        if sources.is_empty() {
            return RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
        }
        interleave_record_batch(&sources, &indices).expect("all batches of a fold have one schema")
    }

    /// Lets go of batches that neither a run nor the unfinished group stands in.
    fn release(&mut self) {
        let mut used = vec![false; self.held.len()];
        let standing = self.cursors.iter().filter_map(|cursor| cursor.at);
        for (batch, _) in standing.chain(self.group.iter().copied()) {
            used[batch] = true;
        }
        let mut moved = vec![0; self.held.len()];
        let mut kept = Vec::with_capacity(self.held.len());
        for (index, batch) in std::mem::take(&mut self.held).into_iter().enumerate() {
            if used[index] {
                moved[index] = kept.len();
                kept.push(batch);
            }
        }
        self.held = kept;
        for cursor in &mut self.cursors {
            cursor.at = cursor.at.map(|(batch, row)| (moved[batch], row));
        }
        for row in &mut self.group {
            row.0 = moved[row.0];
        }
    }
}

struct Sorted<'a> {
    key: &'a BinaryArray,
    position: &'a BinaryArray,
}

impl<'a> Sorted<'a> {
    fn of(batch: &'a RecordBatch) -> Sorted<'a> {
        debug_assert_eq!(
            (batch.schema_ref().field(KEY).name().as_str(), batch.schema_ref().field(POSITION).name().as_str()),
            ("key", "position")
        );
        let sorted = Sorted { key: batch.column(KEY).as_binary(), position: batch.column(POSITION).as_binary() };
        debug_assert!(sorted.key.null_count() == 0 && sorted.position.null_count() == 0);
        sorted
    }
}

fn compare(sorted: &[Sorted<'_>], a: RowAt, b: RowAt) -> Ordering {
    let (left, right) = (&sorted[a.0], &sorted[b.0]);
    left.key.value(a.1).cmp(right.key.value(b.1)).then_with(|| left.position.value(a.1).cmp(right.position.value(b.1)))
}

/// Moves the last head down to where it belongs; `before` says whether it comes before another head.
fn sink(heads: &mut [usize], before: impl Fn(usize) -> bool) {
    let Some((&head, others)) = heads.split_last() else { return };
    // Runs that do not overlap stay least, runs of like keys move behind all others; only what lies between is searched.
    let place = match (others.first(), others.last()) {
        (_, Some(&least)) if before(least) => others.len(),
        (Some(&greatest), _) if !before(greatest) => 0,
        _ => others.partition_point(|&other| before(other)),
    };
    heads[place..].rotate_right(1);
    debug_assert_eq!(heads[place], head);
}
