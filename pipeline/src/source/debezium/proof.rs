//! Which transactions of a connector's events are in the log whole, and all before them.
//!
//! The topics of a connector are read side by side, each at its own pace, and by several; what is told of one transaction comes in any
//! order, and more than once. Three things say what is complete:
//!
//! ```text
//!  END of a transaction   where its commit ends, how many changes it has   → all of its places are there: 1 2 3 ... n
//!  each of its changes    where the commit before it ended                 → it follows the one that was proven last
//!  last row of a snapshot, and everything behind it in all topics read     → the caller says so: the snapshot is whole
//!  the first transaction behind it follows nothing                         → the connector began with it: it is of all tables
//! ```
//!
//! A transaction without changes says nothing of the one before: that it is the next follows from the topic of transactions, which is one
//! partition and is read in its order. So where records were removed before they were read, nothing is proven until a new snapshot.
//!
//! What was proven is written down as a row of [`TRANSACTION`](control::TRANSACTION), and only that ends a state. What is not proven is
//! in no state, however much of it is there. Pure: rows in, commits out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::super::control;
use super::{FIRST_PLACE, SNAPSHOT_END, UNPLACED};
use crate::model::change::{TupleChange, TupleRow};
use crate::model::{Op, Position, Timestamp};

/// A place among the commits: an LSN, and what is at it.
type Place = (u64, u64);

/// Numbers from 1 on, of which most are there in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Numbers {
    /// Ranges by their beginning, each with its last number.
    ranges: BTreeMap<u64, u64>,
}

impl Numbers {
    fn insert(&mut self, number: u64) {
        let before = self.ranges.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| number <= last) {
            return;
        }
        let first = before.filter(|(_, last)| last + 1 == number).map_or(number, |(first, _)| first);
        let last = self.ranges.remove(&(number + 1)).unwrap_or(number);
        self.ranges.insert(first, last);
    }

    fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether they are all from 1 to this one, and no more.
    fn is_up_to(&self, last: u64) -> bool {
        if last == 0 { self.ranges.is_empty() } else { self.ranges.len() == 1 && self.ranges.get(&1) == Some(&last) }
    }
}

/// What is there of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    /// Which of its changes.
    numbers: Numbers,
    /// When it was committed, to the microsecond.
    at: Timestamp,
}

/// What the END of a transaction says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    transaction: String,
    changes: u64,
    at: Timestamp,
    image: String,
}

/// A snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Snapshot {
    at: Timestamp,
    has_ended: bool,
    is_whole: bool,
}

/// Something that is in the log whole, as all before it are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proven {
    /// A snapshot. What was committed between what was proven before and it is not known.
    Snapshot {
        /// Where it was taken.
        lsn: u64,
        /// A moment before the first transaction behind it, by the clock of the database.
        at: Timestamp,
    },
    /// A transaction.
    Transaction {
        /// Where its commit ended.
        end: u64,
        /// When it was committed.
        at: Timestamp,
        /// Its number.
        number: String,
        /// What its END says, as it was written.
        image: String,
        /// Of one that followed nothing its changes, where they belong.
        placed: Vec<TupleChange>,
    },
}

impl Proven {
    /// The position that ends the state.
    pub fn position(&self, epoch: u32) -> Position {
        let (commit, place) = self.place();
        Position::committed(epoch, commit, place)
    }

    /// When it was committed, or taken.
    pub fn at(&self) -> Timestamp {
        match self {
            Proven::Snapshot { at, .. } | Proven::Transaction { at, .. } => *at,
        }
    }

    fn place(&self) -> Place {
        match self {
            Proven::Snapshot { lsn, .. } => (*lsn, SNAPSHOT_END),
            Proven::Transaction { end, .. } => (*end, 0),
        }
    }
}

/// Why the next transaction is not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stall {
    /// Some of its changes are not there.
    Missing {
        /// Its number.
        transaction: String,
        /// Changes that are there.
        there: u64,
        /// Changes that it has.
        of: u64,
    },
    /// It does not follow the one before.
    Hole {
        /// Its number.
        transaction: String,
        /// The LSN up to which everything is proven.
        from: u64,
        /// The LSN behind which it is.
        to: u64,
    },
    /// The connector began anew with it, and took no snapshot that it would follow.
    Anew {
        /// Its number.
        transaction: String,
    },
    /// A snapshot has not ended.
    Snapshot {
        /// Where it was taken.
        lsn: u64,
    },
    /// Its END has not come.
    NoEnd {
        /// Its number.
        transaction: String,
    },
    /// A snapshot was taken while the connector went on, of some tables perhaps.
    Running {
        /// Where.
        lsn: u64,
    },
    /// Records are gone that nobody had read.
    Lost {
        /// Of which partition.
        stream: String,
    },
}

/// An LSN as PostgreSQL writes it.
fn lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stall::Missing { transaction, there, of } => {
                write!(f, "transaction {transaction} has ended, and {there} of its {of} changes are there")
            }
            Stall::Hole { transaction, from, to } => write!(
                f,
                "transaction {transaction} follows a commit at {}, and what is proven ends at {}: what is told of the transactions between \
                 is missing; the connector must take a new snapshot, unless it comes",
                lsn(*to),
                lsn(*from)
            ),
            Stall::Anew { transaction } => write!(
                f,
                "the connector began anew with transaction {transaction}, and what was committed before it is not known: it must take a \
                 snapshot"
            ),
            Stall::NoEnd { transaction } => write!(
                f,
                "the end of transaction {transaction} has not been told: the connector's provide.transaction.metadata must be true, and somebody \
                 must read its topic of transactions"
            ),
            Stall::Running { lsn: at } => write!(
                f,
                "the snapshot at {} was taken while the connector went on, so that it may be of some tables only, and empties the others; the \
                 connector must begin anew, with a new slot and without offsets",
                lsn(*at)
            ),
            Stall::Lost { stream } => write!(
                f,
                "records of {stream} were removed before they had been read, and what they told is not known: the connector must take a new \
                 snapshot"
            ),
            Stall::Snapshot { lsn: at } => write!(f, "the snapshot at {} has not been read whole, or nothing follows it yet", lsn(*at)),
        }
    }
}

/// What lies before what is proven was committed before it, too, by the clock of the database; and snapshots are dated by another one.
const LATER_MAX: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// Transactions of which nobody knows what they follow are kept that were committed up to so long before what is proven.
const UNPLACED_BACK: Duration = Duration::from_secs(10);

/// A transaction that followed nothing.
#[derive(Debug, Clone)]
struct First {
    open: Open,
    changes: Vec<TupleChange>,
}

/// What is known of the transactions behind the last one that is proven.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    proven: Place,
    /// When what is proven was committed, the latest of it.
    proven_at: Timestamp,
    /// By where the commit before ended, and their number.
    open: BTreeMap<(u64, String), Open>,
    /// Those that a connector began with, by their number.
    first: BTreeMap<String, First>,
    /// Those of them that were put into their place, with when they were committed.
    placed: BTreeMap<String, Timestamp>,
    ends: BTreeMap<u64, End>,
    snapshots: BTreeMap<u64, Snapshot>,
    /// Where messages outside of transactions are, which commits follow as they follow commits.
    messages: BTreeSet<u64>,
    /// Where the log of the database was when records were last found to have been removed, and of which partition: what they told was of
    /// before.
    lost: Option<(u64, String)>,
    /// Where the last snapshot that is proven was taken.
    begun: u64,
}

impl Proof {
    /// A row of the log. The ENDs come in the order of their topic; of what was written down before, all is taken first.
    pub fn take(&mut self, row: &TupleRow<'_>) {
        let Some(place @ (commit, order)) = Position::commit_of(row.position) else { return };
        match (row.schema, row.table) {
            // A snapshot that began later told everything again, whichever of the two is heard of first.
            (control::NO_SCHEMA, control::LOST) if commit < self.begun => {}
            (control::NO_SCHEMA, control::LOST) => self.lost = self.lost.take().max(Some((commit, row.stream.to_owned()))),
            (control::NO_SCHEMA, control::TRANSACTION) => {
                if order == SNAPSHOT_END {
                    self.snapshots.insert(commit, Snapshot { at: row.at, has_ended: true, is_whole: true });
                }
                self.pass(place, row.at);
            }
            (control::NO_SCHEMA, control::END) => self.end(commit, row),
            (control::NO_SCHEMA, control::SNAPSHOT) => self.snapshot(commit, row.at).has_ended = true,
            (control::NO_SCHEMA, control::INCARNATION) => drop(self.snapshot(commit, row.at)),
            (control::NO_SCHEMA, control::MESSAGE) if row.request.is_none() => drop(self.messages.insert(own_lsn(row).unwrap_or(commit))),
            (control::NO_SCHEMA, table) if table != control::MESSAGE => {}
            _ if row.op == Op::Raw => {}
            _ if row.via == "scan" => {
                let at = row.at;
                let snapshot = self.snapshot(commit, at);
                snapshot.at = snapshot.at.max(at);
            }
            _ => self.change(place, row),
        }
    }

    fn snapshot(&mut self, lsn: u64, at: Timestamp) -> &mut Snapshot {
        self.snapshots.entry(lsn).or_insert(Snapshot { at, ..Snapshot::default() })
    }

    fn end(&mut self, end: u64, row: &TupleRow<'_>) {
        #[derive(serde::Deserialize)]
        struct Said {
            event_count: u64,
        }
        if (end, 0) <= self.proven {
            return;
        }
        let (Some(number), Some(image)) = (row.request, row.image) else { return };
        // One that does not say it never becomes whole.
        let changes = serde_json::from_str::<Said>(image).map_or(u64::MAX, |said| said.event_count);
        self.ends.insert(end, End { transaction: number.to_owned(), changes, at: row.at, image: image.to_owned() });
    }

    fn change(&mut self, (commit, order): Place, row: &TupleRow<'_>) {
        let Some(number) = row.request else { return };
        let new = || Open { numbers: Numbers::default(), at: row.at };
        let open = if commit & UNPLACED != 0 {
            if row.at.plus(UNPLACED_BACK) < self.proven_at || self.placed.get(number) == Some(&row.at) {
                return;
            }
            let first = self.first.entry(number.to_owned()).or_insert_with(|| First { open: new(), changes: Vec::new() });
            first.changes.push(row.to_change());
            &mut first.open
        } else if order >= FIRST_PLACE {
            self.placed.insert(number.to_owned(), row.at);
            self.first.remove(number);
            return;
        } else if commit < self.proven.0 {
            // Of what is proven nothing need be known: it is told again.
            return;
        } else {
            self.open.entry((commit, number.to_owned())).or_insert_with(new)
        };
        open.numbers.insert(order);
        open.at = open.at.max(row.at);
    }

    /// Whether a change is of another server's log: it lies before what is proven, and was made after it. Such a one must not be appended,
    /// because it would change states that are past.
    pub fn is_elsewhere(&self, row: &TupleRow<'_>) -> bool {
        let Some((commit, order)) = Position::commit_of(row.position) else { return false };
        let is_dated_by_the_connector = row.via == "scan" || [control::INCARNATION, control::SNAPSHOT].contains(&row.table);
        let later =
            if is_dated_by_the_connector && (row.via == "scan" || row.schema == control::NO_SCHEMA) { LATER_MAX.1 } else { LATER_MAX.0 };
        let is_told = !row.schema.is_empty() || [control::END, control::INCARNATION, control::SNAPSHOT].contains(&row.table);
        let is_before = commit & UNPLACED == 0 && (commit < self.proven.0 || row.table == control::END && (commit, order) <= self.proven);
        is_told && is_before && row.at > self.proven_at.plus(later)
    }

    /// Everything up to there is proven.
    fn pass(&mut self, place: Place, at: Timestamp) {
        self.proven = self.proven.max(place);
        self.proven_at = self.proven_at.max(at);
        let proven = self.proven;
        if place.1 == SNAPSHOT_END {
            self.begun = self.begun.max(place.0);
            let begun = self.begun;
            self.lost = self.lost.take().filter(|(wal, _)| *wal >= begun);
        }
        self.ends.retain(|end, _| (*end, 0) > proven);
        self.open.retain(|(commit, _), _| *commit >= proven.0);
        let proven_at = self.proven_at;
        self.first
            .retain(|_, first| first.open.at.plus(UNPLACED_BACK) >= proven_at && (proven.1 == SNAPSHOT_END || first.open.at > proven_at));
        self.messages.retain(|lsn| *lsn > proven.0);
        self.snapshots.retain(|lsn, _| (*lsn, SNAPSHOT_END) >= proven);
    }

    /// Snapshots whose last row was told, and that are not known to be whole: whoever has read all topics to where they end now says so.
    pub fn ended_snapshots(&self) -> impl Iterator<Item = u64> {
        self.snapshots.iter().filter(|(_, snapshot)| snapshot.has_ended && !snapshot.is_whole).map(|(lsn, _)| *lsn)
    }

    /// A snapshot is there whole.
    pub fn snapshot_is_whole(&mut self, lsn: u64) {
        if let Some(snapshot) = self.snapshots.get_mut(&lsn) {
            snapshot.is_whole = true;
        }
    }

    /// What can be proven beyond what was, in order. It counts as proven from then on: whoever does not write it down must begin again.
    pub fn advance(&mut self) -> Vec<Proven> {
        let mut proven = Vec::new();
        while let Ok(Some(next)) = self.next() {
            self.pass(next.place(), next.at());
            if let Proven::Transaction { number, at, placed, .. } = &next
                && !placed.is_empty()
            {
                self.placed.insert(number.clone(), *at);
                self.first.remove(number);
            }
            proven.push(next);
        }
        proven
    }

    /// Transactions of which something is there, and that are not proven.
    pub fn open(&self) -> usize {
        self.open.len() + self.first.len()
    }

    /// Why no more can be proven, if there is more.
    pub fn stall(&self) -> Option<Stall> {
        self.next().err()
    }

    fn next(&self) -> Result<Option<Proven>, Stall> {
        let pending = |(lsn, _): &(&u64, &Snapshot)| (**lsn, SNAPSHOT_END) > self.proven;
        let snapshot = self.snapshots.iter().find(pending).map(|(lsn, snapshot)| (*lsn, *snapshot));
        let end = self.ends.iter().next();
        let before_it = end.filter(|(end, _)| snapshot.is_none_or(|(lsn, _)| **end <= lsn));
        let transaction = before_it.map(|(at, end)| match &self.lost {
            None => self.check(*at, end),
            Some((_, stream)) => Err(Stall::Lost { stream: stream.clone() }),
        });
        if let Some(Ok(proven)) = transaction {
            return Ok(Some(proven));
        }
        // What is missing before a snapshot that is whole matters no more.
        let is_hit = |lsn: u64| self.lost.as_ref().is_some_and(|(wal, _)| *wal >= lsn);
        let whole = self.snapshots.iter().filter(pending).rfind(|(lsn, snapshot)| snapshot.is_whole && !is_hit(**lsn));
        if let Some((lsn, _)) = whole {
            let at = self.follower(*lsn)?;
            return Ok(Some(Proven::Snapshot { lsn: *lsn, at: at.minus(Duration::from_micros(1)) }));
        }
        match (transaction, snapshot) {
            (_, Some(_)) if let Some((_, stream)) = &self.lost => Err(Stall::Lost { stream: stream.clone() }),
            (Some(Err(stall)), _) => Err(stall),
            (_, Some((lsn, _))) => Err(Stall::Snapshot { lsn }),
            _ => match self.open.keys().next().map(|(_, number)| number).or(self.first.keys().next()) {
                Some(number) => Err(Stall::NoEnd { transaction: number.clone() }),
                None => Ok(None),
            },
        }
    }

    /// When the transaction was committed that follows a snapshot. It must follow nothing else: else the connector went on meanwhile.
    fn follower(&self, lsn: u64) -> Result<Timestamp, Stall> {
        let (_, end) = self.ends.range(lsn + 1..).next().ok_or(Stall::Snapshot { lsn })?;
        let is_running = end.changes == 0 || self.open.keys().any(|(_, number)| *number == end.transaction);
        match self.first.get(&end.transaction) {
            Some(first) if first.open.numbers.is_up_to(end.changes) => Ok(first.open.at),
            None if is_running => Err(Stall::Running { lsn }),
            first => Err(Stall::Missing {
                transaction: end.transaction.clone(),
                there: first.map_or(0, |first| first.open.numbers.len()),
                of: end.changes,
            }),
        }
    }

    /// Whether the next transaction is whole and follows what is proven.
    fn check(&self, end: u64, said: &End) -> Result<Proven, Stall> {
        let transaction = || said.transaction.clone();
        let proven = |at, placed| Proven::Transaction { end, at, number: transaction(), image: said.image.clone(), placed };
        if said.changes == 0 {
            return Ok(proven(said.at, Vec::new()));
        }
        let open = self.open.iter().find(|((commit, number), _)| *commit < end && *number == said.transaction);
        let first = self.first.get(&said.transaction);
        let numbers = open.map(|(_, open)| open).or(first.map(|first| &first.open));
        let Some(there) = numbers.filter(|open| open.numbers.is_up_to(said.changes)) else {
            let there = numbers.map_or(0, |open| open.numbers.len());
            return Err(Stall::Missing { transaction: transaction(), there, of: said.changes });
        };
        let is_behind_snapshot = self.proven.1 == SNAPSHOT_END;
        match open {
            None if is_behind_snapshot => Ok(proven(there.at, first.map(|first| first.behind(self.proven.0)).unwrap_or_default())),
            None => Err(Stall::Anew { transaction: transaction() }),
            Some(((commit, _), _)) if *commit == self.proven.0 || self.messages.contains(commit) => Ok(proven(there.at, Vec::new())),
            Some(((commit, _), _)) => Err(Stall::Hole { transaction: transaction(), from: self.proven.0, to: *commit }),
        }
    }
}

impl First {
    /// Its changes behind a snapshot, each once.
    fn behind(&self, lsn: u64) -> Vec<TupleChange> {
        let placed = |change: &TupleChange| {
            let (_, order) = Position::commit_of(&change.position)?;
            let epoch = u32::from_be_bytes(*change.position.first_chunk::<4>()?);
            let position = Position::committed(epoch, lsn, FIRST_PLACE | order).as_bytes().to_vec();
            Some(TupleChange { position, ..change.clone() })
        };
        self.changes.iter().filter_map(placed).collect()
    }
}

/// The LSN of a message itself, which its identity has beside that of the commit before it.
fn own_lsn(row: &TupleRow<'_>) -> Option<u64> {
    let [_, sequence, _]: [String; 3] = serde_json::from_str(row.identity?).ok()?;
    let [_, own]: [Option<String>; 2] = serde_json::from_str(&sequence).ok()?;
    own?.parse().ok()
}

#[cfg(test)]
mod tests;
