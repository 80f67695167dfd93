//! The world of one run: its clock, its chance, its count of what happened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::model::{Clock, Timestamp};
use serde::{Deserialize, Serialize};

use super::bugs::Bug;
use super::executor::{block_on, give_way};
use super::history::Options;
use super::random::Random;
use super::swarm::{Step, Swarm};

/// When every run begins: 2026-08-22T11:58:20Z, so that most runs cross an hour.
pub(super) const BEGINNING: Timestamp = Timestamp::from_micros(1_787_399_900_000_000);

/// What a run counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each counts what its name says")]
pub struct Counts {
    pub operations: u64,
    pub store_operations: u64,
    pub crashes: u64,
    pub faults: u64,
    pub lost_replies: u64,
    pub restores: u64,
    pub steps: u64,
    pub excused: u64,
    pub keys_compared: u64,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Counts) {
        self.operations += other.operations;
        self.store_operations += other.store_operations;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.lost_replies += other.lost_replies;
        self.restores += other.restores;
        self.steps += other.steps;
        self.excused += other.excused;
        self.keys_compared += other.keys_compared;
    }
}

/// The world of one run.
pub struct World {
    /// Chance.
    pub random: Random,
    /// The mix of this seed.
    pub swarm: Swarm,
    /// The planted bug.
    pub bug: Option<Bug>,
    now: AtomicI64,
    faulty: AtomicBool,
    faults_ended: AtomicI64,
    alone: AtomicBool,
    counts: Mutex<Counts>,
    marks: Mutex<BTreeMap<&'static str, u64>>,
    violation: Mutex<Option<String>>,
    readings: Mutex<Vec<(Timestamp, Timestamp)>>,
    trace: AtomicU64,
    targets: AtomicU64,
    tracing: bool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, options: &Options) -> Arc<World> {
        let random = Random::new(seed.wrapping_mul(0xA24B_AED4_963E_E407));
        let mut swarm = Swarm::of(&random);
        options.without.iter().for_each(|&ingredient| swarm.leave_out(ingredient));
        swarm.operations = options.operations.map_or(swarm.operations, |operations| operations.min(swarm.operations));
        Arc::new(World {
            random,
            swarm,
            bug: options.bug,
            now: AtomicI64::new(BEGINNING.micros() + 137_000),
            faulty: AtomicBool::new(true),
            faults_ended: AtomicI64::new(i64::MAX),
            alone: AtomicBool::new(false),
            counts: Mutex::default(),
            marks: Mutex::default(),
            violation: Mutex::default(),
            readings: Mutex::default(),
            trace: AtomicU64::new(seed),
            targets: AtomicU64::new(0),
            tracing: options.trace,
        })
    }

    /// Whether this bug is planted.
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The number of a new target: no two have one name.
    pub fn next_target(&self) -> u64 {
        self.targets.fetch_add(1, Ordering::Relaxed)
    }

    /// Moves the clock forward.
    pub fn pass(&self, micros: i64) {
        self.now.fetch_add(micros, Ordering::Relaxed);
    }

    /// Faults are over.
    pub fn end_faults(&self) {
        self.faulty.store(false, Ordering::Relaxed);
        self.faults_ended.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether somebody had set a clock by then.
    pub fn is_set(&self, step: Step, by: Timestamp) -> bool {
        let at = BEGINNING.plus(Duration::from_millis(step.after_ms));
        at < by && at.micros() < self.faults_ended.load(Ordering::Relaxed)
    }

    /// Whether there are faults now.
    pub fn is_faulty(&self) -> bool {
        self.faulty.load(Ordering::Relaxed)
    }

    /// Runs something to its end while everybody else stands still; its sleep is over at once.
    pub fn alone<T>(&self, future: impl Future<Output = T>) -> T {
        self.alone.store(true, Ordering::Relaxed);
        let done = block_on(future);
        self.alone.store(false, Ordering::Relaxed);
        done
    }

    /// Counts.
    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut held(&self.counts));
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        *held(&self.counts)
    }

    /// Notes that the run came by here.
    pub fn mark(&self, mark: &'static str) {
        *held(&self.marks).entry(mark).or_default() += 1;
    }

    /// Where the run came by, and how often.
    pub fn marks(&self) -> BTreeMap<&'static str, u64> {
        held(&self.marks).clone()
    }

    /// Says that something is wrong; the first to say so is heard.
    pub fn violate(&self, what: String) {
        held(&self.violation).get_or_insert(what);
    }

    /// What is wrong.
    pub fn violation(&self) -> Option<String> {
        held(&self.violation).clone()
    }

    /// A reading of the truth that began then has come to its end.
    pub fn read(&self, began: Timestamp) {
        held(&self.readings).push((began, self.now()));
    }

    /// When readings of the truth began, and when everything that they found was stored.
    pub fn readings(&self) -> Vec<(Timestamp, Timestamp)> {
        held(&self.readings).clone()
    }

    /// Adds to the trace, of which only a hash is kept. It also goes to standard output where that was asked for.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        let line = line();
        let mut hash = self.trace.load(Ordering::Relaxed);
        for byte in line.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.trace.store(hash, Ordering::Relaxed);
        if self.tracing {
            println!("{} {line}", self.now());
        }
    }

    /// The hash of all that was traced.
    pub fn trace_hash(&self) -> u64 {
        self.trace.load(Ordering::Relaxed)
    }

    /// Waits a little, as everything that goes over a network does.
    pub async fn delay(&self) {
        give_way().await;
        if self.is_faulty() && self.random.percent(10) {
            for _ in 0..self.random.below(12) {
                give_way().await;
            }
        }
    }
}

#[async_trait]
impl Clock for World {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        if self.alone.load(Ordering::Relaxed) {
            return self.pass(duration.as_micros() as i64);
        }
        let until = self.now().plus(duration);
        while self.now() < until {
            give_way().await;
        }
    }
}
