//! Leaving out rows that cannot matter, before they are read in full.
//!
//! ```text
//!  run ─┐ few columns                            row numbers
//!  run ─┼→ merge by object → what may matter ─→ of each run ─→ these rows, all columns → Fold
//!  run ─┘
//! ```
//!
//! A restore of current versions needs one row of an object that was changed a hundred times, and most of what a row holds
//! is not what decides. The sieve looks at what does. It does not say what a state is: what it keeps is folded as ever, and
//! that gives the same as folding everything. So it leaves out rows only of *plain* objects, where nothing can be in doubt:
//! every row is an event about a version itself, with a sequencer and an exact time, that no listing has ranked. Of all others
//! it keeps every row.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimestampMicrosecondType};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::RowAt;
use super::object::Keep;
use crate::model::change::{Facet, NULL_VERSION, Op, object_schema};
use crate::model::position::is_sequenced;
use crate::model::{Key, Timestamp};

/// The places of the columns that a sieve looks at: `key`, `op`, `at`, `at_bound`, `position`, `via`, `facet`, `rank`.
pub const COLUMNS: [usize; 8] = [0, 2, 3, 4, 5, 8, 13, 15];
/// Those of them that hold one of a few words.
const WORDS: [usize; 3] = [2, 8, 13];
/// How keys of the empty object begin, under which the bucket's configuration is kept.
const CONFIGURATION: [u8; 2] = [0x00, 0x01];
/// An object with more comparisons to make than this is not worth them.
const COMPARISONS_MAX: usize = 1 << 12;

/// The columns of changes, words as dictionaries: a row's word is then a number, and nearly nothing to read.
pub fn read_as() -> SchemaRef {
    static READ_AS: LazyLock<SchemaRef> = LazyLock::new(|| {
        let word = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let schema = object_schema();
        let fields = schema.fields().iter().enumerate().map(|(index, field)| match WORDS.contains(&index) {
            true => Arc::new(Field::new(field.name(), word(), field.is_nullable())),
            false => field.clone(),
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    });
    READ_AS.clone()
}

/// One run: sorted batches of [`COLUMNS`], each with the number of its first row.
pub type SieveRun<'a, E> = BoxStream<'a, Result<(u64, RecordBatch), E>>;

/// The rows of a run that may matter, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    words: Vec<u64>,
}

impl Kept {
    fn keep(&mut self, row: u64) {
        let word = (row / 64) as usize;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (row % 64);
    }

    /// Whether a row was kept.
    pub fn holds(&self, row: u64) -> bool {
        self.words.get((row / 64) as usize).is_some_and(|word| word & (1 << (row % 64)) != 0)
    }
}

impl FromIterator<u64> for Kept {
    fn from_iter<I: IntoIterator<Item = u64>>(rows: I) -> Kept {
        let mut kept = Kept::default();
        rows.into_iter().for_each(|row| kept.keep(row));
        kept
    }
}

/// How many of the newest versions of an object a fold asks for, where that is what it asks for: what a sieve is good for.
pub fn newest(keep: Keep) -> Option<usize> {
    match keep {
        Keep::Current => Some(1),
        Keep::Last(count) => Some(count),
        Keep::Base { .. } | Keep::Live | Keep::Changes => None,
    }
}

/// Which rows of each run may matter to the `newest` versions of every object at `cut`.
///
/// # Errors
/// The first error of a run.
pub async fn sieve<E>(runs: Vec<SieveRun<'_, E>>, cut: Timestamp, newest: usize) -> Result<Vec<Kept>, E> {
    let mut kept = vec![Kept::default(); runs.len()];
    let mut merge = Merge { runs: runs.into_iter().map(|rows| MergeRun { rows, at: None }).collect(), held: Vec::new(), left: Vec::new() };
    // The runs by the object they stand at, the least last.
    let mut heads = Vec::with_capacity(merge.runs.len());
    for run in 0..merge.runs.len() {
        if merge.fill(run).await? {
            merge.enter(&mut heads, run);
        }
    }
    let mut group: Vec<RowAt> = Vec::new();
    let mut taken: Vec<usize> = Vec::new();
    let mut choice = Choice { cut, newest, candidates: Vec::new() };
    while let Some(least) = heads.pop() {
        group.clear();
        taken.clear();
        let mut next = Some(least);
        while let Some(run) = next {
            taken.push(run);
            while merge.take_object(run, &mut group) {
                if !merge.fill(run).await? || !merge.stands_at(run, group[0]) {
                    break;
                }
            }
            next = heads.pop_if(|head| merge.stands_at(*head, group[0]));
        }
        choice.make(&merge.held, &group, |row| {
            let held = &merge.held[row.0];
            kept[held.run].keep(held.first + row.1 as u64);
        });
        merge.let_go();
        for &run in &taken {
            merge.enter(&mut heads, run);
        }
    }
    Ok(kept)
}

struct Merge<'a, E> {
    runs: Vec<MergeRun<'a, E>>,
    held: Vec<Held>,
    /// Held batches that no run stands in any more.
    left: Vec<usize>,
}

struct MergeRun<'a, E> {
    rows: SieveRun<'a, E>,
    /// Where it stands; none when it has ended.
    at: Option<RowAt>,
}

impl<E> Merge<'_, E> {
    /// Moves a run into its next batch; false if there is none.
    async fn fill(&mut self, run: usize) -> Result<bool, E> {
        self.left.extend(self.runs[run].at.take().map(|(batch, _)| batch));
        while let Some((first, rows)) = self.runs[run].rows.next().await.transpose()? {
            if rows.num_rows() > 0 {
                // A place that nobody needs any more is used again.
                let place = self.held.iter().position(Held::is_free).unwrap_or(self.held.len());
                let held = Held::new(run, first, &rows);
                if place == self.held.len() {
                    self.held.push(held)
                } else {
                    self.held[place] = held
                }
                self.runs[run].at = Some((place, 0));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the rows of the object that a run stands at, as far as the batch has them; true if it may have more.
    fn take_object(&mut self, run: usize, group: &mut Vec<RowAt>) -> bool {
        let Some((batch, row)) = self.runs[run].at else { return false };
        let marks = &self.held[batch].marks;
        let end = (row + 1..marks.len()).find(|&next| marks[next] & SAME_OBJECT == 0);
        group.extend((row..end.unwrap_or(marks.len())).map(|row| (batch, row)));
        if let Some(end) = end {
            self.runs[run].at = Some((batch, end));
        }
        end.is_none()
    }

    /// Whether a run stands at the object of this row.
    fn stands_at(&self, run: usize, row: RowAt) -> bool {
        self.runs[run].at.is_some_and(|at| self.held[at.0].object(at.1) == self.held[row.0].object(row.1))
    }

    /// Puts a run among the heads, unless it has ended.
    fn enter(&self, heads: &mut Vec<usize>, run: usize) {
        let Some(at) = self.runs[run].at else { return };
        let object = self.held[at.0].object(at.1);
        let object_of = |head: usize| {
            let at = self.runs[head].at.expect("only runs that stand in a batch are heads");
            self.held[at.0].object(at.1)
        };
        // Mostly it has moved behind all others.
        let place = match heads.first() {
            Some(&greatest) if object < object_of(greatest) => heads.partition_point(|&head| object_of(head) > object),
            _ => 0,
        };
        heads.insert(place, run);
    }

    /// Lets go of the batches that were left.
    fn let_go(&mut self) {
        for batch in self.left.drain(..) {
            self.held[batch] = Held::free();
        }
    }
}

/// A batch of a run, and what was found out about its rows at once.
struct Held {
    run: usize,
    first: u64,
    key: BinaryArray,
    position: BinaryArray,
    at: TimestampMicrosecondArray,
    /// Of each row how much of its key says which object it is about.
    object_bytes: Vec<u32>,
    marks: Vec<u8>,
}

/// It is about the object of the row before.
const SAME_OBJECT: u8 = 1;
/// It is a put, and not a delete.
const PUT: u8 = 2;
/// It is not plain.
const ODD: u8 = 4;

impl Held {
    fn free() -> Held {
        let none = || BinaryArray::from_iter_values(std::iter::empty::<&[u8]>());
        let at = TimestampMicrosecondArray::from(Vec::<i64>::new());
        Held { run: 0, first: 0, key: none(), position: none(), at, object_bytes: Vec::new(), marks: Vec::new() }
    }

    fn is_free(&self) -> bool {
        self.marks.is_empty()
    }

    fn new(run: usize, first: u64, rows: &RecordBatch) -> Held {
        let (key, position): (&BinaryArray, &BinaryArray) = (rows.column(0).as_binary(), rows.column(4).as_binary());
        let (at, bound, rank) = (rows.column(2).as_primitive::<TimestampMicrosecondType>(), rows.column(3), rows.column(7));
        let mut marks = vec![0; rows.num_rows()];
        let put_or_delete = |word: &str| match Op::parse(word) {
            Some(Op::Put) => PUT,
            Some(Op::Delete) => 0,
            _ => ODD,
        };
        mark_words(rows.column(1), &mut marks, put_or_delete);
        mark_words(rows.column(5), &mut marks, |word| if word == "event" { 0 } else { ODD });
        mark_words(rows.column(6), &mut marks, |word| if word == Facet::Version.as_str() { 0 } else { ODD });
        let mut object_bytes = Vec::with_capacity(marks.len());
        let mut before: Option<&[u8]> = None;
        for (index, mark) in marks.iter_mut().enumerate() {
            let row_key = key.value(index);
            let bytes = Key::object_bytes(row_key);
            let object = &row_key[..bytes.unwrap_or(row_key.len())];
            let odd = bytes.is_none_or(|bytes| row_key[bytes..] == *NULL_VERSION.as_bytes()) || object == CONFIGURATION;
            // What a listing has ranked may stand elsewhere than its sequencer says.
            if odd || !is_sequenced(position.value(index)) || bound.is_valid(index) || rank.is_valid(index) {
                *mark |= ODD;
            }
            if before == Some(object) {
                *mark |= SAME_OBJECT;
            }
            before = Some(object);
            object_bytes.push(object.len() as u32);
        }
        Held { run, first, key: key.clone(), position: position.clone(), at: at.clone(), object_bytes, marks }
    }

    fn object(&self, row: usize) -> &[u8] {
        &self.key.value(row)[..self.object_bytes[row] as usize]
    }

    fn version(&self, row: usize) -> &[u8] {
        &self.key.value(row)[self.object_bytes[row] as usize..]
    }
}

/// Adds to the marks of each row what its word means.
fn mark_words(column: &dyn Array, marks: &mut [u8], meaning: impl Fn(&str) -> u8) {
    match column.as_dictionary_opt::<Int32Type>() {
        Some(words) => {
            let meanings: Vec<u8> = words.values().as_string::<i32>().iter().map(|word| word.map_or(ODD, &meaning)).collect();
            let means = |word: i32| usize::try_from(word).ok().and_then(|word| meanings.get(word)).copied().unwrap_or(ODD);
            marks.iter_mut().zip(words.keys().values()).for_each(|(mark, word)| *mark |= means(*word));
        }
        None => marks.iter_mut().zip(column.as_string::<i32>()).for_each(|(mark, word)| *mark |= word.map_or(ODD, &meaning)),
    }
}

/// Chooses the rows of an object that may matter.
struct Choice {
    cut: Timestamp,
    newest: usize,
    candidates: Vec<RowAt>,
}

impl Choice {
    fn make(&mut self, held: &[Held], group: &[RowAt], keep: impl FnMut(RowAt)) {
        match self.newest_of(held, group) {
            Some(newest) => newest.iter().copied().for_each(keep),
            None => group.iter().copied().for_each(keep),
        }
    }

    /// The rows of the newest versions at the cut, the newest first; nothing where there may be more to it.
    fn newest_of(&mut self, held: &[Held], group: &[RowAt]) -> Option<&[RowAt]> {
        let mark = |row: &RowAt| held[row.0].marks[row.1];
        let position = |row: &RowAt| held[row.0].position.value(row.1);
        let version = |row: &RowAt| held[row.0].version(row.1);
        let in_time = |row: &RowAt| Timestamp::from_micros(held[row.0].at.value(row.1)) <= self.cut;
        let all = group.iter().fold(0, |all, row| all | mark(row));
        if all & ODD != 0 {
            return None;
        }
        self.candidates.clear();
        self.candidates.extend(group.iter().filter(|row| mark(row) & PUT != 0 && in_time(row)));
        if group.len() > self.candidates.len() {
            // Of a version that was purged no row matters, wherever they stand.
            let purges = group.iter().filter(|row| mark(row) & PUT == 0 && in_time(row));
            if self.candidates.len().saturating_mul(purges.clone().count()) > COMPARISONS_MAX {
                return None;
            }
            self.candidates.retain(|row| purges.clone().all(|purge| version(purge) != version(row)));
        }
        if self.newest == 1 {
            // By far the most are like this, and finding the greatest is quicker than sorting.
            if let Some(greatest) = (0..self.candidates.len()).max_by_key(|&index| position(&self.candidates[index])) {
                self.candidates.swap(0, greatest);
            }
        } else {
            self.candidates.sort_unstable_by(|a, b| position(b).cmp(position(a)));
        }
        let newest = self.newest.min(self.candidates.len());
        if newest.saturating_mul(group.len()) > COMPARISONS_MAX {
            return None;
        }
        // Of a version that was put twice, or at the place of another, the join has more to say.
        let (chosen, others) = self.candidates.split_at(newest);
        let is_alone = |row: &RowAt| group.iter().filter(|other| mark(other) & PUT != 0 && version(other) == version(row)).count() == 1;
        let is_placed = chosen.is_sorted_by(|a, b| position(a) > position(b))
            && chosen.last().is_none_or(|last| others.iter().all(|other| position(other) < position(last)));
        (is_placed && chosen.iter().all(is_alone)).then_some(chosen)
    }
}

#[cfg(test)]
mod tests;
