//! The merge of runs by object.
//!
//! Of each run one batch is held, and what a look at a row can tell is found out once, when its batch comes. Among that is
//! how far its object is from the one before, so that the [tournament](super::tournament) of the runs hardly ever looks at an object's bytes.

use std::cmp::Ordering;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};

use super::columns::place;
use super::tournament::{Head, Step, Tournament};
use super::{KINDS, Sifted};
use crate::fold::RowAt;
use crate::model::Key;
use crate::model::change::{Facet, NULL_VERSION, Op};
use crate::model::position::is_sequenced;

/// How keys of the empty object begin, under which the bucket's configuration is kept.
const CONFIGURATION: [u8; 2] = [0x00, 0x01];

/// Runs on their way through the objects.
pub(super) struct Merge<R> {
    pub runs: Vec<R>,
    pub held: Vec<Held>,
    /// Held batches that no run stands in any more.
    pub left: Vec<usize>,
    /// Where each run stands; none when it has ended.
    at: Vec<Option<RowAt>>,
    heads: Tournament,
}

impl<R: Sifted> Merge<R> {
    /// A merge of runs, each at its first row.
    pub async fn begin(runs: Vec<R>) -> Result<Merge<R>, R::Error> {
        let count = runs.len();
        let mut merge = Merge { runs, held: Vec::new(), left: Vec::new(), at: vec![None; count], heads: Tournament::of(count) };
        for run in 0..count {
            let step = merge.fill(run).await?;
            merge.heads.enter(Head { run, step }, |head| object_at(&merge.held, &merge.at, head));
        }
        Ok(merge)
    }

    /// Takes the rows of the next object, run by run; none at the end.
    pub async fn next(&mut self, group: &mut Vec<RowAt>) -> Result<(), R::Error> {
        group.clear();
        while let Some(Head { run, step }) = self.heads.first() {
            if !group.is_empty() && step != Step::NONE {
                break;
            }
            let mut step = self.take_object(run, group);
            while step.is_none() {
                step = Some(self.fill(run).await?);
                if step == Some(Step::NONE) {
                    step = self.take_object(run, group);
                }
            }
            let step = step.unwrap_or(Step::ENDED);
            self.heads.replay(Head { run, step }, |head| object_at(&self.held, &self.at, head));
        }
        Ok(())
    }

    /// Moves a run into its next batch, and says how far that is from the object before.
    async fn fill(&mut self, run: usize) -> Result<Step, R::Error> {
        let before = self.at[run].take();
        self.left.extend(before.map(|(batch, _)| batch));
        while let Some((first, rows)) = self.runs[run].next().await? {
            if rows.num_rows() > 0 {
                let last = before.map(|(batch, _)| self.held[batch].object(self.held[batch].rows.num_rows() - 1));
                let held = Held::new(run, first, rows, last).map_err(|reason| self.runs[run].damaged(reason))?;
                let step = held.looks[0].step;
                // A place that nobody needs any more is used again.
                let place = self.held.iter().position(Held::is_free).unwrap_or(self.held.len());
                if place == self.held.len() {
                    self.held.push(held);
                } else {
                    self.held[place] = held;
                }
                self.at[run] = Some((place, 0));
                return Ok(step);
            }
        }
        Ok(Step::ENDED)
    }

    /// Takes the rows of the object that a run stands at, as far as the batch has them, and says how far it is to the next
    /// object; nothing if the batch has none.
    fn take_object(&mut self, run: usize, group: &mut Vec<RowAt>) -> Option<Step> {
        let (batch, row) = self.at[run]?;
        let looks = &self.held[batch].looks;
        let more = looks[row + 1..].iter().position(|look| look.step != Step::NONE);
        let end = more.map_or(looks.len(), |more| row + 1 + more);
        group.extend((row..end).map(|row| (batch, row)));
        let step = looks.get(end).map(|look| look.step);
        if step.is_some() {
            self.at[run] = Some((batch, end));
        }
        step
    }
}

/// The object that a run stands at.
fn object_at<'a>(held: &'a [Held], at: &[Option<RowAt>], run: usize) -> &'a [u8] {
    at[run].map_or(&[], |at| held[at.0].object(at.1))
}

/// A batch of a run, and what was found out about its rows at once.
pub(super) struct Held {
    pub run: usize,
    /// The number of its first row in the run.
    pub first: u64,
    pub rows: RecordBatch,
    pub looks: Vec<Look>,
    /// Which of its rows were kept, of each kind.
    pub kept: [Vec<u32>; KINDS],
    key: BinaryArray,
    position: BinaryArray,
}

/// What a look at a row tells. It is all in one place, and so mostly at hand when another run's rows have come between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// How its position begins; it goes on with that of the row.
    position: u128,
    /// How its version ends; before that is the version of the row.
    version: u64,
    /// When it happened, in microseconds.
    pub at: i64,
    /// How far its object is from that of the row before.
    step: Step,
    /// How much of its key says which object it is about.
    object_bytes: u32,
    pub mark: u8,
}

/// It is a put, and not a delete.
pub(super) const PUT: u8 = 2;
/// It is not plain.
pub(super) const ODD: u8 = 4;
/// It has a word that is none of ours.
const UNKNOWN: u8 = 8;
/// The join asks more of it than what decides, even where it is all there is of its object.
pub(super) const MORE: u8 = 16;

impl Held {
    /// The place of a batch that is gone.
    pub fn free() -> Held {
        let none = || BinaryArray::from_iter_values(std::iter::empty::<&[u8]>());
        let rows = RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
        Held { run: 0, first: 0, rows, looks: Vec::new(), kept: Default::default(), key: none(), position: none() }
    }

    fn is_free(&self) -> bool {
        self.looks.is_empty()
    }

    /// Looks at every row of a batch, which comes after an object; says what is wrong with it where it cannot be looked at.
    fn new(run: usize, first: u64, rows: RecordBatch, after: Option<&[u8]>) -> Result<Held, String> {
        let binary = |place| -> BinaryArray { rows.column(place).as_binary().clone() };
        let (key, position) = (binary(place::KEY), binary(place::POSITION));
        let at = rows.column(place::AT).as_primitive::<TimestampMicrosecondType>();
        let (bound, rank) = (are_set(rows.column(place::AT_BOUND)), are_set(rows.column(place::RANK)));
        let mut marks = vec![0; rows.num_rows()];
        let op = |word: &str| match Op::parse(word) {
            Some(Op::Put) => PUT,
            Some(Op::Delete) => 0,
            Some(_) => ODD,
            None => UNKNOWN,
        };
        let facet = |word: &str| match Facet::parse(word) {
            Some(Facet::Version) => 0,
            Some(_) => ODD | MORE,
            None => UNKNOWN,
        };
        mark_words(rows.column(place::OP), &mut marks, op);
        mark_words(rows.column(place::VIA), &mut marks, |word| if word == "event" { 0 } else { ODD });
        mark_words(rows.column(place::FACET), &mut marks, facet);
        let mut looks = Vec::with_capacity(marks.len());
        let mut before = after.unwrap_or_default();
        for (index, mut mark) in marks.into_iter().enumerate() {
            let number = first + index as u64;
            if mark & UNKNOWN != 0 {
                return Err(format!("row {number} has an op or a facet that nobody knows"));
            }
            let (row_key, row_position) = (key.value(index), position.value(index));
            let object_bytes = Key::object_bytes(row_key).ok_or_else(|| not_a_key(number))?;
            let (object, version) = row_key.split_at(object_bytes);
            if object == CONFIGURATION || bound.as_ref().is_some_and(|set| set.value(index)) {
                mark |= ODD | MORE;
            }
            // What a listing has ranked may stand elsewhere than its sequencer says.
            let is_ranked = rank.as_ref().is_some_and(|set| set.value(index));
            if version == NULL_VERSION.as_bytes() || is_ranked || !is_sequenced(row_position) {
                mark |= ODD;
            }
            let step = Step::between(before, object, 0);
            let step = step.ok_or_else(|| format!("row {number} is about an object before that of the row before it"))?;
            looks.push(Look {
                position: beginning(row_position),
                version: ending(version),
                at: at.value(index),
                step,
                object_bytes: object_bytes as u32,
                mark,
            });
            before = object;
        }
        Ok(Held { run, first, looks, kept: Default::default(), key, position, rows })
    }

    /// The bytes of its key that say which object a row is about.
    pub fn object(&self, row: usize) -> &[u8] {
        &self.key.value(row)[..self.looks[row].object_bytes as usize]
    }

    pub fn key(&self, row: usize) -> &[u8] {
        self.key.value(row)
    }

    pub fn position(&self, row: usize) -> &[u8] {
        self.position.value(row)
    }

    fn version(&self, row: usize) -> &[u8] {
        &self.key.value(row)[self.looks[row].object_bytes as usize..]
    }
}

/// Which of two rows of one object stands behind the other.
pub(super) fn compare_positions(held: &[Held], a: RowAt, b: RowAt) -> Ordering {
    let begin = |row: RowAt| held[row.0].looks[row.1].position;
    let whole = |row: RowAt| held[row.0].position(row.1);
    begin(a).cmp(&begin(b)).then_with(|| whole(a).cmp(whole(b)))
}

/// Whether two rows of one object are about one version.
pub(super) fn are_one_version(held: &[Held], a: RowAt, b: RowAt) -> bool {
    let end = |row: RowAt| held[row.0].looks[row.1].version;
    let whole = |row: RowAt| held[row.0].version(row.1);
    end(a) == end(b) && whole(a) == whole(b)
}

/// The first bytes, so that of two whole ones that differ in them the lesser has the lesser.
fn beginning(bytes: &[u8]) -> u128 {
    const BYTES: usize = size_of::<u128>();
    let mut first = [0; BYTES];
    let some = bytes.len().min(BYTES);
    first[..some].copy_from_slice(&bytes[..some]);
    u128::from_be_bytes(first)
}

/// The last bytes; two that differ in them differ.
fn ending(bytes: &[u8]) -> u64 {
    bytes.last_chunk().map_or(0, |last| u64::from_le_bytes(*last))
}

/// Which values of a column are set; nothing where none is.
fn are_set(column: &dyn Array) -> Option<BooleanBuffer> {
    match column.nulls() {
        Some(nulls) if nulls.null_count() == nulls.len() => None,
        Some(nulls) => Some(nulls.inner().clone()),
        None => Some(BooleanBuffer::new_set(column.len())),
    }
}

/// What is wrong with a run that has such a row.
pub(super) fn not_a_key(row: u64) -> String {
    format!("the key of row {row} is none of an object's version")
}

/// Adds to the marks of each row what its word means.
fn mark_words(column: &dyn Array, marks: &mut [u8], meaning: impl Fn(&str) -> u8) {
    match column.as_dictionary_opt::<Int32Type>() {
        Some(words) => {
            let meanings: Vec<u8> = words.values().as_string::<i32>().iter().map(|word| word.map_or(UNKNOWN, &meaning)).collect();
            let means = |word: i32| usize::try_from(word).ok().and_then(|word| meanings.get(word)).copied().unwrap_or(UNKNOWN);
            match meanings[..] {
                // By far the most columns of words hold one.
                [0] if words.null_count() == 0 => {}
                _ => marks.iter_mut().zip(words.keys().values()).for_each(|(mark, word)| *mark |= means(*word)),
            }
        }
        None => marks.iter_mut().zip(column.as_string::<i32>()).for_each(|(mark, word)| *mark |= word.map_or(UNKNOWN, &meaning)),
    }
}
