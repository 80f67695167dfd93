//! Many histories: on all cores, until there are enough or the time is up, and what they came to.
//!
//! A campaign that takes hours is run in pieces. Each piece is a line of its [`Ledger`], which says where the next begins.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::bugs::Bug;
use super::history::{Options, run};
use super::marks;
use super::world::Counts;

/// What many histories came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// The commit they were run at.
    #[serde(default)]
    pub commit: String,
    /// The first seed.
    #[serde(default)]
    pub first: u64,
    /// How many there were.
    pub histories: u64,
    /// The first seed that has not been run.
    pub next: u64,
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// What they counted.
    pub counts: Counts,
    /// Where they came by.
    pub marks: BTreeMap<String, u64>,
    /// Seeds that failed, and why.
    pub failed: BTreeMap<u64, String>,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Processor time of all threads together, in seconds.
    pub cpu_seconds: f64,
    /// At least so many histories, whatever the time.
    pub at_least: u64,
    /// Stop at so many failures.
    pub failures: usize,
}

impl Tally {
    /// Adds those that came after.
    pub fn add(&mut self, other: Tally) {
        self.histories += other.histories;
        self.next = self.next.max(other.next);
        self.cpu_seconds += other.cpu_seconds;
        self.counts.add(&other.counts);
        for (mark, count) in other.marks {
            *self.marks.entry(mark).or_default() += count;
        }
        self.failed.extend(other.failed);
    }

    /// Marks that were never reached.
    pub fn missing(&self) -> Vec<&'static str> {
        marks::REQUIRED.into_iter().filter(|mark| !self.marks.contains_key(*mark)).collect()
    }

    /// One line for the record.
    pub fn line(&self) -> String {
        let Counts { operations, store_operations, crashes, faults, lost_replies, restores, keys_compared, excused, .. } = self.counts;
        let per = |count: u64| count as f64 / self.histories.max(1) as f64;
        format!(
            "{} histories in {:.0} CPU-seconds ({:.0} a CPU-minute): {operations} operations ({:.0} each), {store_operations} store operations, {crashes} crashes and \
             {faults} faults ({:.0} each; {lost_replies} were lost replies), {restores} restores compared ({:.0} each; {keys_compared} keys, {excused} of them \
             uncertain by their history), {} marks, {} failed",
            self.histories,
            self.cpu_seconds,
            self.histories as f64 / self.cpu_seconds.max(0.001) * 60.0,
            per(operations),
            per(crashes + faults),
            per(restores),
            self.marks.len(),
            self.failed.len(),
        )
    }
}

/// The pieces of a campaign, one a line of a file, in the order in which they were run.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Vec<Tally>);

impl Ledger {
    /// Reads a ledger; one that is not there is empty.
    ///
    /// # Errors
    /// What cannot be read, in words.
    pub fn read(path: &Path) -> Result<Ledger, String> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ledger::default()),
            text => text.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        let line = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| format!("{}, line {}: {error}", path.display(), index + 1))
        };
        text.lines().enumerate().map(line).collect::<Result<_, _>>().map(Ledger)
    }

    /// Adds a piece, to the file too.
    ///
    /// # Errors
    /// What cannot be written, in words.
    pub fn add(&mut self, path: &Path, piece: Tally) -> Result<(), String> {
        let line = serde_json::to_string(&piece).expect("plain data with text keys");
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}")).map_err(|error| format!("{}: {error}", path.display()))?;
        self.0.push(piece);
        Ok(())
    }

    /// The first seed that no piece has run.
    pub fn next(&self) -> u64 {
        self.0.iter().map(|piece| piece.next).max().unwrap_or(0)
    }

    /// All pieces together.
    pub fn total(&self) -> Tally {
        let mut total = Tally { first: self.0.iter().map(|piece| piece.first).min().unwrap_or(0), ..Tally::default() };
        self.0.iter().for_each(|piece| total.add(piece.clone()));
        total
    }
}

/// Processor time of this thread so far, in seconds.
fn thread_cpu_seconds() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedstat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Runs these seeds, with a planted bug or without. `heard` hears of every history that ends.
pub fn campaign(seeds: Range<u64>, bug: Option<Bug>, budget: Budget, heard: &(dyn Fn(&Tally) + Sync)) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let tally = Mutex::new(Tally { first: seeds.start, next: seeds.start, ..Tally::default() });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let before = thread_cpu_seconds();
                    let history = run(seed, &Options { bug, ..Options::default() });
                    let mut one = Tally {
                        histories: 1,
                        next: seed + 1,
                        cpu_seconds: thread_cpu_seconds() - before,
                        counts: history.counts,
                        ..Tally::default()
                    };
                    one.marks = history.marks.into_iter().map(|(mark, count)| (mark.to_owned(), count)).collect();
                    if let Err(reason) = history.verdict {
                        one.failed.insert(seed, reason);
                    }
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.add(one);
                    heard(&tally);
                    let enough = tally.cpu_seconds >= budget.cpu_seconds && tally.histories >= budget.at_least;
                    if enough || tally.failed.len() >= budget.failures {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_goes_on_where_its_ledger_ends() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("ledger");
        let piece = |first, next| Tally { first, next, histories: next - first, cpu_seconds: 1.5, ..Tally::default() };
        let mut ledger = Ledger::read(&path).expect("none is an empty one");
        assert_eq!(ledger.next(), 0);
        ledger.add(&path, piece(0, 500)).expect("it can be written");
        ledger.add(&path, Tally { failed: BTreeMap::from([(700, "why".to_owned())]), ..piece(500, 900) }).expect("it can be written");
        let again = Ledger::read(&path).expect("it was written");
        let total = again.total();
        assert_eq!((again.next(), total.first, total.histories, total.cpu_seconds), (900, 0, 900, 3.0));
        assert_eq!(total.failed, BTreeMap::from([(700, "why".to_owned())]));
        std::fs::write(&path, "{").expect("it can be written");
        assert!(Ledger::read(&path).is_err(), "a ledger that cannot be read is not an empty one");
    }
}
