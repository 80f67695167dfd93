//! Many histories: on all cores, until there are enough or the time is up, and what they came to.

use std::collections::BTreeMap;
use std::ops::Range;
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

/// Processor time of this thread so far, in seconds.
fn thread_cpu_seconds() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedstat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Runs these seeds, with a planted bug or without. `heard` hears of every history that ends.
pub fn campaign(seeds: Range<u64>, bug: Option<Bug>, budget: Budget, heard: &(dyn Fn(&Tally) + Sync)) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let tally = Mutex::new(Tally { next: seeds.start, ..Tally::default() });
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
