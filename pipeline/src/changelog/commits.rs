//! The order in which a database committed, and where it is cut.
//!
//! Transactions stand in the order of their commits. Their times mostly do, too, but not always: two that commit at once may get
//! their places and their times in different orders, and clocks are set. The state at T is what PostgreSQL's own recovery to T
//! gives: all transactions up to, and without, the first that was committed after T.
//!
//! ```text
//!  order   1    2    3    4    5
//!  time    10   20   19   30   25        T = 22 → 1 2 3      T = 27 → 1 2 3, and not 5, which stands behind 4
//! ```
//!
//! A transaction belongs to it whole or not at all.

use crate::model::{Position, Timestamp};

/// A transaction that is complete: all of its changes are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// A position that is not before any of its changes, and before all of the next.
    pub until: Vec<u8>,
    /// When it was committed, by the clock of the database.
    pub at: Timestamp,
    /// Its number in the database, where that is known.
    pub transaction: Option<String>,
}

impl Commit {
    /// Where it stands in the log of the server; none of a snapshot that began an incarnation.
    pub fn lsn(&self) -> Option<u64> {
        Position::commit_of(&self.until).map(|(commit, _)| commit).filter(|commit| *commit > 0)
    }
}

/// Where a time is among the commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place<'a> {
    /// The last commit of the state at that time.
    Present(&'a Commit),
    /// Before the first: the earliest time that has a state.
    Past(Timestamp),
    /// Behind the last: nobody can say yet what was committed by then. The latest time that has a state.
    Future(Timestamp),
    /// There are none.
    NoData,
}

/// The commits of a database, in their order.
#[derive(Debug, Clone, Default)]
pub struct Commits {
    commits: Vec<Commit>,
    /// Of each the latest time of all up to it.
    latest: Vec<Timestamp>,
}

impl Commits {
    /// These commits, whatever order they come in, each once.
    pub fn new(mut commits: Vec<Commit>) -> Commits {
        commits.sort_by(|a, b| a.until.cmp(&b.until));
        commits.dedup_by(|a, b| a.until == b.until);
        let latest = commits.iter().scan(Timestamp::MIN, |latest, commit| {
            *latest = commit.at.max(*latest);
            Some(*latest)
        });
        Commits { latest: latest.collect(), commits }
    }

    /// The first and the last.
    pub fn ends(&self) -> Option<(&Commit, &Commit)> {
        Some((self.commits.first()?, self.commits.last()?))
    }

    /// The state at a time.
    pub fn at(&self, time: Timestamp) -> Place<'_> {
        let (Some(first), Some(last)) = (self.commits.first(), self.latest.last()) else { return Place::NoData };
        // What came before the first commit behind the time is the longest prefix of which no time is behind it.
        match self.latest.partition_point(|latest| *latest <= time) {
            0 => Place::Past(first.at),
            // A transaction that is still to come may have been committed by then.
            all if all == self.commits.len() && time > *last => Place::Future(*last),
            count => Place::Present(&self.commits[count - 1]),
        }
    }

    /// The state behind a transaction; the last of that number, where numbers come again.
    pub fn behind(&self, transaction: &str) -> Option<&Commit> {
        self.commits.iter().rev().find(|commit| commit.transaction.as_deref() == Some(transaction))
    }

    /// The last whose place in the log of the server is not behind this one.
    pub fn up_to_lsn(&self, lsn: u64) -> Option<&Commit> {
        let first = self.commits.iter().find_map(Commit::lsn)?;
        self.commits.iter().rev().find(|commit| commit.lsn().is_some_and(|of_commit| of_commit <= lsn)).filter(|_| first <= lsn)
    }

    /// The places of the first commit and the last in the log of the server; none while there is nothing but a snapshot.
    pub fn lsns(&self) -> (Option<u64>, Option<u64>) {
        (self.commits.iter().find_map(Commit::lsn), self.commits.iter().rev().find_map(Commit::lsn))
    }

    /// The commit of the transaction in which this position is.
    pub fn with(&self, position: &[u8]) -> Option<&Commit> {
        self.commits.get(self.commits.partition_point(|commit| commit.until.as_slice() < position))
    }

    /// The latest time of all commits up to a position: their times need not follow their order.
    pub fn latest_up_to(&self, until: &[u8]) -> Option<Timestamp> {
        let count = self.commits.partition_point(|commit| commit.until.as_slice() <= until);
        self.latest.get(count.checked_sub(1)?).copied()
    }

    /// The commit behind this one.
    pub fn after(&self, commit: &Commit) -> Option<&Commit> {
        self.commits.get(self.commits.partition_point(|known| known.until <= commit.until))
    }

    /// The last commit before a position.
    pub fn before(&self, position: &[u8]) -> Option<&Commit> {
        self.commits.get(self.commits.partition_point(|commit| commit.until.as_slice() < position).checked_sub(1)?)
    }

    /// Commits whose clock went back by more than this: the times between name fewer transactions than they had.
    pub fn steps_back(&self, more_than: std::time::Duration) -> impl Iterator<Item = &Commit> {
        let before = std::iter::once(Timestamp::MIN).chain(self.latest.iter().copied());
        self.commits.iter().zip(before).filter(move |(commit, before)| before.since(commit.at) > more_than).map(|(commit, _)| commit)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn commits(times: &[i64]) -> Commits {
        let commit = |(number, second): (u8, &i64)| Commit {
            until: vec![number],
            at: Timestamp::from_seconds(*second),
            transaction: Some(format!("{}", 700 + u32::from(number) % 4)),
        };
        Commits::new((1..).zip(times).map(commit).collect())
    }

    fn check(times: &[i64], at: i64, expected: Option<u8>) {
        let found = commits(times);
        let place = match found.at(Timestamp::from_seconds(at)) {
            Place::Present(commit) => Some(commit.until[0]),
            _ => None,
        };
        assert_eq!(place, expected, "{times:?} at {at}");
    }

    #[test]
    fn a_commit_is_found_by_its_place_in_the_log_of_the_server() {
        let commit = |epoch, lsn| Commit {
            until: Position::committed(epoch, lsn, u64::MAX).as_bytes().to_vec(),
            at: Timestamp::from_seconds(lsn as i64),
            transaction: None,
        };
        let commits = Commits::new(vec![commit(1, 0), commit(1, 100), commit(1, 200), commit(2, 0), commit(2, 300)]);
        let found = |lsn| commits.up_to_lsn(lsn).map(|commit| commit.at.seconds());
        assert_eq!([99, 100, 199, 200, 300].map(found), [None, Some(100), Some(100), Some(200), Some(300)]);
        assert_eq!(commits.lsns(), (Some(100), Some(300)));
        let at = |place: u64| Position::committed(1, 200, place).as_bytes().to_vec();
        assert_eq!(commits.with(&at(3)).map(|commit| commit.at.seconds()), Some(200));
        assert_eq!(commits.before(&at(3)).map(|commit| commit.at.seconds()), Some(100));
        assert_eq!(Commits::new(vec![commit(1, 0)]).lsns(), (None, None));
        assert_eq!(commits.latest_up_to(&at(u64::MAX)).map(Timestamp::seconds), Some(200));
    }

    #[test]
    fn the_state_ends_before_the_first_commit_behind_the_time() {
        let times = [10, 20, 19, 30, 25];
        check(&times, 9, None);
        check(&times, 10, Some(1));
        check(&times, 19, Some(1));
        check(&times, 20, Some(3));
        check(&times, 22, Some(3));
        check(&times, 27, Some(3));
        check(&times, 30, Some(5));
        check(&times, 31, None);
        assert_eq!(commits(&times).at(Timestamp::from_seconds(31)), Place::Future(Timestamp::from_seconds(30)));
        assert_eq!(commits(&times).at(Timestamp::from_seconds(9)), Place::Past(Timestamp::from_seconds(10)));
        assert_eq!(commits(&[]).at(Timestamp::from_seconds(9)), Place::NoData);
    }

    #[test]
    fn numbers_come_again_and_clocks_go_back() {
        let found = commits(&[10, 20, 19, 30, 25]);
        assert_eq!(found.behind("701").map(|commit| commit.until[0]), Some(5));
        assert_eq!(found.behind("699"), None);
        let back: Vec<u8> = found.steps_back(Duration::from_secs(2)).map(|commit| commit.until[0]).collect();
        assert_eq!(back, [5]);
        assert_eq!([0, 1, 3, 5].map(|until| found.latest_up_to(&[until]).map(Timestamp::seconds)), [None, Some(10), Some(20), Some(30)]);
    }

    proptest! {
        /// By the rule itself, one commit after the other.
        #[test]
        fn it_is_the_longest_prefix_of_which_no_time_is_behind(times in proptest::collection::vec(1i64..20, 0..12), at in 0i64..21) {
            let found = commits(&times);
            let prefix = times.iter().take_while(|time| **time <= at).count();
            let is_known = times.iter().any(|time| *time >= at);
            let expected = (prefix > 0 && is_known).then_some(prefix as u8);
            let place = match found.at(Timestamp::from_seconds(at)) {
                Place::Present(commit) => Some(commit.until[0]),
                Place::Past(_) | Place::Future(_) | Place::NoData => None,
            };
            prop_assert_eq!(place, expected);
        }
    }
}
