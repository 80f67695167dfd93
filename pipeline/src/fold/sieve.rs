//! Leaving out rows that cannot matter, before they are read in full.
//!
//! ```text
//!  run ─┐ columns that decide                       the other columns of these rows
//!  run ─┼→ merge by object → what may matter ─→ window ─→ whole rows, sorted → Fold
//!  run ─┘
//! ```
//!
//! A restore of current versions needs one row of an object that was changed a hundred times, and most of what a row holds
//! is not what decides. The sieve looks at what does. It does not say what a state is: what it keeps is folded as ever, and
//! that gives the same as folding everything. So it leaves out rows only of *plain* objects, where nothing can be in doubt:
//! every row is an event about a version itself, with a sequencer and an exact time, that no listing has ranked. Of all others
//! it keeps every row.
//!
//! It goes through all runs together, a window of kept rows at a time, and hands on what they amount to as one run in which
//! no batch takes an object apart. Memory is bounded by one batch per run, the window and the largest object.

mod choice;
mod columns;
mod merge;
mod tournament;

pub use columns::{DECIDING, OTHERS, read_as};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use self::choice::Choice;
use self::columns::NoKey;
use self::merge::{Held, MORE, Merge, PUT};
use super::object::Keep;
use super::{RowAt, Run};
use crate::model::Timestamp;
use crate::model::key::{Key, bucket_of, khash};

/// Rows that are kept before their other columns are read: so many that a reader of a run does not begin anew for a few.
const WINDOW_ROWS: usize = 32 << 10;
/// Runs whose other columns are read at the same time.
const READS_AT_ONCE: usize = 16;

/// A run that is looked at twice: of every row at the columns that [decide](DECIDING), of those that may matter at the
/// [others](OTHERS).
#[async_trait]
pub trait Sifted: Send {
    /// Why it cannot be read.
    type Error: Send;

    /// The next rows, of their columns those that decide, and the number of the first of them. Numbers grow.
    async fn next(&mut self) -> Result<Option<(u64, RecordBatch)>, Self::Error>;

    /// The other columns of some of the rows so far, by number, all behind those that were asked for before.
    async fn others(&mut self, rows: &[u64]) -> Result<RecordBatch, Self::Error>;

    /// The error that says what is wrong with it.
    fn damaged(&self, reason: String) -> Self::Error;
}

/// What is asked for of the rows that may matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Whole rows.
    Rows,
    /// Which versions they are of. Where that is plain, the other columns are not read, and are null or empty.
    Versions,
}

/// What a sieve is to find.
#[derive(Debug, Clone, Copy)]
pub struct Sought {
    /// The state at this instant.
    pub cut: Timestamp,
    /// The newest so many versions of each object.
    pub newest: usize,
    /// What of them.
    pub wanted: Wanted,
    /// Only objects of this hash bucket, of so many bits, where runs have others as well.
    pub only: Option<(u32, u32)>,
}

/// How many of the newest versions of an object a fold asks for, where that is what it asks for: what a sieve is good for.
pub fn newest(keep: Keep) -> Option<usize> {
    match keep {
        Keep::Current => Some(1),
        Keep::Last(count) => Some(count),
        Keep::Base { .. } | Keep::Live | Keep::Changes => None,
    }
}

/// What of the runs may matter, as one run of which no batch takes an object apart.
pub fn sieve<'a, R: Sifted + 'a>(runs: Vec<R>, sought: Sought) -> Run<'a, R::Error> {
    enum Stage<R> {
        Before(Vec<R>),
        Within(Box<Sieve<R>>),
    }
    let stage = Stage::Before(runs);
    futures::stream::try_unfold(stage, move |stage| async move {
        let mut sieve = match stage {
            Stage::Before(runs) => Box::new(Sieve::begin(runs, sought).await?),
            Stage::Within(sieve) => sieve,
        };
        Ok(sieve.next().await?.map(|rows| (rows, Stage::Within(sieve))))
    })
    .boxed()
}

struct Sieve<R> {
    sought: Sought,
    merge: Merge<R>,
    choice: Choice,
    window: Window,
    group: Vec<RowAt>,
}

impl<R: Sifted> Sieve<R> {
    async fn begin(runs: Vec<R>, sought: Sought) -> Result<Sieve<R>, R::Error> {
        let window = Window { sources: (0..runs.len() * KINDS).map(|_| Source::default()).collect(), order: Vec::new() };
        let choice = Choice::new(sought.cut, sought.newest);
        Ok(Sieve { sought, merge: Merge::begin(runs).await?, choice, window, group: Vec::new() })
    }

    /// The rows of the next window, sorted; none at the end.
    async fn next(&mut self) -> Result<Option<RecordBatch>, R::Error> {
        while self.window.order.len() < WINDOW_ROWS {
            self.merge.next(&mut self.group).await?;
            let Some(&first) = self.group.first() else { break };
            if self.is_sought(first) {
                self.keep();
            }
            // A run leaves its batches one after the other, and so they are gathered.
            for batch in self.merge.left.drain(..) {
                self.window.gather(&mut self.merge.held[batch]);
                self.merge.held[batch] = Held::free();
            }
        }
        if self.window.order.is_empty() { Ok(None) } else { self.hand_on().await.map(Some) }
    }

    fn is_sought(&self, row: RowAt) -> bool {
        self.sought.only.is_none_or(|(bits, bucket)| {
            // What is no key is complained of when it is handed on.
            Key::parts(self.merge.held[row.0].key(row.1)).is_none_or(|(object, _)| bucket_of(khash(&object), bits) == bucket)
        })
    }

    /// Keeps what may matter of the object.
    fn keep(&mut self) {
        let (held, group) = (&mut self.merge.held, &mut self.group);
        if let Some(chosen) = self.choice.newest(held, group) {
            // The places grow, so what is moved to the front was behind.
            chosen.iter().enumerate().for_each(|(to, &place)| group[to] = group[place]);
            group.truncate(chosen.len());
        }
        if group.len() > 1 {
            // What stands at one place comes in the order of the runs, as in a fold of them.
            let place = |row: &RowAt| (held[row.0].key(row.1), held[row.0].position(row.1), held[row.0].run);
            group.sort_by(|a, b| place(a).cmp(&place(b)));
        }
        // Of a put that is kept alone, and of which the time is known, the join asks nothing that does not decide.
        let is_told = |row: &RowAt| held[row.0].looks[row.1].mark & (PUT | MORE) == PUT;
        let kind = if self.sought.wanted == Wanted::Versions && group.len() == 1 && group.iter().all(is_told) { NARROW } else { WHOLE };
        for &(batch, row) in group.iter() {
            self.window.keep(&mut held[batch], row, kind);
        }
    }

    /// What the window amounts to; it is empty again.
    async fn hand_on(&mut self) -> Result<RecordBatch, R::Error> {
        self.merge.held.iter_mut().for_each(|held| self.window.gather(held));
        let order = std::mem::take(&mut self.window.order);
        let sources: Vec<Source> = self.window.sources.iter_mut().map(std::mem::take).collect();
        let used: Vec<usize> = (0..sources.len()).filter(|&source| sources[source].is_used()).collect();
        let mut place_of = vec![0; sources.len()];
        used.iter().enumerate().for_each(|(place, &source)| place_of[source] = place);
        let indices: Vec<RowAt> = order.iter().map(|&(source, row)| (place_of[source], row)).collect();

        let deciding: Vec<RecordBatch> = used.iter().map(|&source| sources[source].deciding()).collect();
        let deciding = interleaved(&deciding, &indices);
        let others = if used.iter().all(|source| source % KINDS == NARROW) {
            columns::unread(deciding.num_rows())
        } else {
            let mut reads: Vec<BoxFuture<'_, Result<Vec<RecordBatch>, R::Error>>> = Vec::new();
            for (run, kinds) in self.merge.runs.iter_mut().zip(sources.chunks(KINDS)) {
                if kinds.iter().any(Source::is_used) {
                    reads.push(Box::pin(others_of(run, kinds)));
                }
            }
            let others: Vec<Vec<RecordBatch>> = futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
            let others: Vec<RecordBatch> = others.into_iter().flatten().collect();
            interleaved(&others, &indices)
        };
        columns::whole(&deciding, &others).map_err(|NoKey(row)| {
            let (source, row) = order[row];
            self.merge.runs[source / KINDS].damaged(merge::not_a_key(sources[source].numbers[row]))
        })
    }
}

/// The other columns of what was kept of a run, one batch of each kind that there is.
async fn others_of<R: Sifted>(run: &mut R, kinds: &[Source]) -> Result<Vec<RecordBatch>, R::Error> {
    let mut others = Vec::with_capacity(KINDS);
    for (kind, source) in kinds.iter().enumerate().filter(|(_, source)| source.is_used()) {
        others.push(if kind == NARROW { columns::unread(source.numbers.len()) } else { run.others(&source.numbers).await? });
    }
    Ok(others)
}

/// Kept rows of which the deciding columns are enough.
const NARROW: usize = 0;
/// Kept rows that are wanted whole.
const WHOLE: usize = 1;
/// How many kinds of kept rows there are: of each run so many sources.
pub(super) const KINDS: usize = 2;

/// Rows that are kept and not handed on yet.
struct Window {
    /// Of each run the kept rows of each kind.
    sources: Vec<Source>,
    /// The kept rows as they are to be handed on: which source, which row of it.
    order: Vec<(usize, usize)>,
}

/// Kept rows of one kind of a run.
#[derive(Default)]
struct Source {
    /// Their numbers in the run.
    numbers: Vec<u64>,
    /// Their deciding columns, those of batches that the run has left.
    gathered: Vec<RecordBatch>,
}

impl Window {
    fn keep(&mut self, held: &mut Held, row: usize, kind: usize) {
        let source = held.run * KINDS + kind;
        let numbers = &mut self.sources[source].numbers;
        self.order.push((source, numbers.len()));
        numbers.push(held.first + row as u64);
        held.kept[kind].push(row as u32);
    }

    /// Takes the kept rows out of a batch.
    fn gather(&mut self, held: &mut Held) {
        for kind in 0..KINDS {
            if !held.kept[kind].is_empty() {
                let kept = UInt32Array::from(std::mem::take(&mut held.kept[kind]));
                let rows = take_record_batch(&held.rows, &kept).expect("the indices are those of the rows");
                self.sources[held.run * KINDS + kind].gathered.push(columns::spelled_out(rows));
            }
        }
    }
}

impl Source {
    fn is_used(&self) -> bool {
        !self.numbers.is_empty()
    }

    fn deciding(&self) -> RecordBatch {
        let schema = self.gathered.first().expect("what was kept was gathered").schema();
        concat_batches(&schema, &self.gathered).expect("batches of a run have one schema")
    }
}

fn interleaved(sources: &[RecordBatch], indices: &[RowAt]) -> RecordBatch {
    match sources {
        [source] => source.clone(),
        _ => interleave_record_batch(&sources.iter().collect::<Vec<_>>(), indices).expect("all runs have one schema"),
    }
}

#[cfg(test)]
mod tests;
