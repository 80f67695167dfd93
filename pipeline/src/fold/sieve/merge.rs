//! The merge of runs by object.
//!
//! Of each run one batch is held, and what a look at a row can tell is found out once, when its batch comes.

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};

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
    /// The runs by the object they stand at, the least last.
    heads: Vec<usize>,
    /// Runs that are to be put among the heads.
    moved: Vec<usize>,
}

impl<R: Sifted> Merge<R> {
    /// A merge of runs, each at its first row.
    pub async fn begin(runs: Vec<R>) -> Result<Merge<R>, R::Error> {
        let count = runs.len();
        let mut merge = Merge { runs, held: Vec::new(), left: Vec::new(), at: vec![None; count], heads: Vec::new(), moved: Vec::new() };
        for run in 0..count {
            merge.fill(run).await?;
            merge.moved.push(run);
        }
        Ok(merge)
    }

    /// Takes the rows of the next object, run by run; none at the end.
    pub async fn next(&mut self, group: &mut Vec<RowAt>) -> Result<(), R::Error> {
        group.clear();
        while let Some(run) = self.moved.pop() {
            self.enter(run);
        }
        let mut next = self.heads.pop();
        while let Some(run) = next {
            self.moved.push(run);
            while self.take_object(run, group) {
                if !self.fill(run).await? || !self.stands_at(run, group[0]) {
                    break;
                }
            }
            next = self.heads.last().copied().filter(|&head| self.stands_at(head, group[0]));
            self.heads.truncate(self.heads.len() - usize::from(next.is_some()));
        }
        Ok(())
    }

    /// Moves a run into its next batch; false if there is none.
    async fn fill(&mut self, run: usize) -> Result<bool, R::Error> {
        self.left.extend(self.at[run].take().map(|(batch, _)| batch));
        while let Some((first, rows)) = self.runs[run].next().await? {
            if rows.num_rows() > 0 {
                let held = Held::new(run, first, rows).map_err(|reason| self.runs[run].damaged(reason))?;
                // A place that nobody needs any more is used again.
                let place = self.held.iter().position(Held::is_free).unwrap_or(self.held.len());
                if place == self.held.len() {
                    self.held.push(held);
                } else {
                    self.held[place] = held;
                }
                self.at[run] = Some((place, 0));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the rows of the object that a run stands at, as far as the batch has them; true if it may have more.
    fn take_object(&mut self, run: usize, group: &mut Vec<RowAt>) -> bool {
        let Some((batch, row)) = self.at[run] else { return false };
        let marks = &self.held[batch].marks;
        let more = marks[row + 1..].iter().position(|mark| mark & SAME_OBJECT == 0);
        let end = more.map_or(marks.len(), |more| row + 1 + more);
        group.extend((row..end).map(|row| (batch, row)));
        if more.is_some() {
            self.at[run] = Some((batch, end));
        }
        more.is_none()
    }

    /// Whether a run stands at the object of this row.
    fn stands_at(&self, run: usize, row: RowAt) -> bool {
        self.at[run].is_some_and(|at| self.held[at.0].object(at.1) == self.held[row.0].object(row.1))
    }

    /// Puts a run among the heads, unless it has ended.
    fn enter(&mut self, run: usize) {
        let Some(at) = self.at[run] else { return };
        let object = self.held[at.0].object(at.1);
        let object_of = |head: usize| {
            let at = self.at[head].expect("only runs that stand in a batch are heads");
            self.held[at.0].object(at.1)
        };
        // Mostly it has moved behind all others.
        let place = match self.heads.first() {
            Some(&greatest) if object < object_of(greatest) => self.heads.partition_point(|&head| object_of(head) > object),
            _ => 0,
        };
        self.heads.insert(place, run);
    }
}

/// A batch of a run, and what was found out about its rows at once.
pub(super) struct Held {
    pub run: usize,
    /// The number of its first row in the run.
    pub first: u64,
    pub rows: RecordBatch,
    pub marks: Vec<u8>,
    /// Which of its rows were kept, of each kind.
    pub kept: [Vec<u32>; KINDS],
    /// Of each row how much of its key says which object it is about.
    object_bytes: Vec<u32>,
    key: BinaryArray,
    position: BinaryArray,
    at: TimestampMicrosecondArray,
}

/// It is about the object of the row before.
pub(super) const SAME_OBJECT: u8 = 1;
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
        let at = TimestampMicrosecondArray::from(Vec::<i64>::new());
        let rows = RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
        Held {
            run: 0,
            first: 0,
            rows,
            marks: Vec::new(),
            kept: Default::default(),
            object_bytes: Vec::new(),
            key: none(),
            position: none(),
            at,
        }
    }

    fn is_free(&self) -> bool {
        self.marks.is_empty()
    }

    /// Looks at every row of a batch; says what is wrong with it where it cannot be looked at.
    fn new(run: usize, first: u64, rows: RecordBatch) -> Result<Held, String> {
        let (key, position): (BinaryArray, BinaryArray) = (rows.column(0).as_binary().clone(), rows.column(4).as_binary().clone());
        let at = rows.column(2).as_primitive::<TimestampMicrosecondType>().clone();
        let (bound, rank) = (rows.column(3), rows.column(8));
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
        mark_words(rows.column(1), &mut marks, op);
        mark_words(rows.column(5), &mut marks, |word| if word == "event" { 0 } else { ODD });
        mark_words(rows.column(6), &mut marks, facet);
        let mut object_bytes = Vec::with_capacity(marks.len());
        let mut before: Option<&[u8]> = None;
        for (index, mark) in marks.iter_mut().enumerate() {
            if *mark & UNKNOWN != 0 {
                return Err(format!("row {} has an op or a facet that nobody knows", first + index as u64));
            }
            let row_key = key.value(index);
            let Some(bytes) = Key::object_bytes(row_key) else {
                return Err(not_a_key(first + index as u64));
            };
            let (object, version) = row_key.split_at(bytes);
            if object == CONFIGURATION || bound.is_valid(index) {
                *mark |= ODD | MORE;
            }
            // What a listing has ranked may stand elsewhere than its sequencer says.
            if version == NULL_VERSION.as_bytes() || !is_sequenced(position.value(index)) || rank.is_valid(index) {
                *mark |= ODD;
            }
            if before == Some(object) {
                *mark |= SAME_OBJECT;
            }
            before = Some(object);
            object_bytes.push(bytes as u32);
        }
        Ok(Held { run, first, marks, kept: Default::default(), object_bytes, key, position, at, rows })
    }

    /// The bytes of its key that say which object a row is about.
    pub fn object(&self, row: usize) -> &[u8] {
        &self.key.value(row)[..self.object_bytes[row] as usize]
    }

    /// The bytes of its key that say which version a row is about.
    pub fn version(&self, row: usize) -> &[u8] {
        &self.key.value(row)[self.object_bytes[row] as usize..]
    }

    pub fn key(&self, row: usize) -> &[u8] {
        self.key.value(row)
    }

    pub fn position(&self, row: usize) -> &[u8] {
        self.position.value(row)
    }

    /// When it happened, in microseconds.
    pub fn at(&self, row: usize) -> i64 {
        self.at.value(row)
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
