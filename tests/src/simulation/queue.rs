//! The event queue: at least once, in any order, late, twice, and sometimes not at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::model::{Clock, Timestamp};
use pipeline::source::{Delivery, Message, Source, SourceError};

use super::bugs::Bug;
use super::oracle::Oracle;
use super::world::World;

/// A message that waits, or is with somebody who has not acknowledged it.
#[derive(Debug, Clone)]
struct Waiting {
    id: u64,
    body: Bytes,
    /// The sequencers in it.
    sequencers: Vec<String>,
    /// Which changes it tells of.
    changes: Vec<usize>,
    arrival: Timestamp,
    visible: Timestamp,
}

impl Waiting {
    /// The planted bug: what arrives later is taken for newer.
    fn renumber(&mut self, now: Timestamp) {
        let mut text = String::from_utf8_lossy(&self.body).into_owned();
        for (index, sequencer) in self.sequencers.iter_mut().enumerate() {
            let arrived = format!("{:016X}{index:02X}", now.micros());
            text = text.replace(sequencer.as_str(), &arrived);
            *sequencer = arrived;
        }
        self.body = text.into();
    }
}

/// The queue and the books, which are told what becomes of events.
pub struct Queue {
    world: Arc<World>,
    /// The books.
    pub oracle: Arc<Mutex<Oracle>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    next: u64,
    /// Everything that ever came, to be delivered again at the end.
    archive: Vec<Bytes>,
    delivered: std::collections::BTreeSet<u64>,
}

impl Queue {
    /// An empty queue.
    pub fn new(world: Arc<World>, oracle: Arc<Mutex<Oracle>>) -> Queue {
        Queue { world, oracle, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn books(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in that arrives then.
    pub fn send(&self, body: Bytes, sequencers: Vec<String>, changes: Vec<usize>, arrival: Timestamp) {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let mut books = self.books();
        for &change in &changes {
            let fate = &mut books.changes[change].fate;
            fate.arrival = Some(fate.arrival.map_or(arrival, |known| known.min(arrival)));
        }
        drop(books);
        state.waiting.push(Waiting { id, body, sequencers, changes, arrival, visible: arrival });
    }

    /// Whether nothing waits and nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// What waits arrives now: the world is about to end.
    pub fn hurry(&self) {
        let now = self.world.now();
        for waiting in &mut self.state().waiting {
            waiting.visible = waiting.visible.min(now);
        }
    }

    /// Everything that was ever acknowledged.
    pub fn archive(&self) -> Vec<Bytes> {
        self.state().archive.clone()
    }

    fn let_go(&self, state: &mut State, ids: &[u64]) {
        let now = self.world.now();
        let mut books = self.books();
        state.waiting.retain(|waiting| {
            let gone = ids.contains(&waiting.id);
            if gone {
                state.archive.push(waiting.body.clone());
                for &change in &waiting.changes {
                    if books.changes[change].fate.acknowledged.replace(now).is_some() {
                        self.world.mark("duplicate absorbed");
                    }
                }
            }
            !gone
        });
    }

    /// Perhaps a fault: an error before the effect, or `Ok(true)` for a reply that is to be lost.
    async fn begin(&self, what: &'static str) -> Result<bool, SourceError> {
        let world = &self.world;
        world.delay().await;
        world.trace(|| format!("queue {what}"));
        if !world.is_faulty() || !world.random.permyriad(world.swarm.bucket_faults) {
            return Ok(false);
        }
        world.count(|counts| counts.faults += 1);
        if world.random.percent(50) {
            world.count(|counts| counts.lost_replies += 1);
            return Ok(true);
        }
        Err(failed("the request was lost"))
    }
}

fn failed(reason: &str) -> SourceError {
    SourceError { stream: "sqs:events".to_owned(), reason: reason.to_owned(), transient: true }
}

#[async_trait]
impl Source for Queue {
    fn stream(&self) -> &str {
        "sqs:events"
    }

    async fn poll(&self) -> Result<Delivery, SourceError> {
        let lost = self.begin("poll").await?;
        let world = &self.world;
        let now = world.now();
        let mut state = self.state();
        let mut visible: Vec<usize> = (0..state.waiting.len()).filter(|&index| state.waiting[index].visible <= now).collect();
        let in_flight = state.waiting.iter().any(|waiting| waiting.arrival <= now && waiting.visible > now);
        world.random.shuffle(&mut visible);
        let all = visible.len();
        visible.truncate(1 + world.random.below(world.swarm.batch) as usize);
        let drained = if world.has(Bug::WatermarkMaxEvent) {
            Some(now)
        } else {
            // Only where nobody else holds something that may come again.
            (visible.len() == all && !in_flight).then_some(now)
        };
        let again = now.plus(std::time::Duration::from_millis(world.swarm.visibility_ms));
        let mut messages = Vec::new();
        let mut ids = Vec::new();
        for index in visible {
            let waiting = &mut state.waiting[index];
            waiting.visible = again;
            ids.push(waiting.id);
            if world.has(Bug::ArrivalOrder) {
                waiting.renumber(now);
            }
            messages.push(Message { body: waiting.body.clone(), receipt: waiting.id.to_string() });
            let id = waiting.id;
            if !state.delivered.insert(id) {
                world.mark("message delivered again");
            }
        }
        if world.has(Bug::AckBeforeDurable) {
            self.let_go(&mut state, &ids);
        }
        if lost { Err(failed("the reply was lost")) } else { Ok(Delivery { messages, drained }) }
    }

    async fn ack(&self, receipts: Vec<String>) -> Result<(), SourceError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let lost = self.begin("ack").await?;
        let ids: Vec<u64> = receipts.iter().filter_map(|receipt| receipt.parse().ok()).collect();
        self.let_go(&mut self.state(), &ids);
        if lost { Err(failed("the reply was lost")) } else { Ok(()) }
    }
}
