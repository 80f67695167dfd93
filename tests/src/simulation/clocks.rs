//! Clocks of machines that are not the source's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline::model::{Clock, Timestamp};
use pipeline::source::{Delivery, Source, SourceError};

use super::queue::Queue;
use super::swarm::Step;
use super::world::{BEGINNING, World};

/// What a machine's clock is ahead of the source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// At the beginning, in milliseconds.
    pub ms: i64,
    /// Somebody sets it while it goes.
    pub step: Option<Step>,
}

impl Skew {
    fn of(self, world: &World, at: Timestamp) -> Timestamp {
        let step = self.step.filter(|&step| world.is_set(step, at)).map_or(0, |step| step.by_ms);
        Timestamp::from_micros(at.micros() + (self.ms + step) * 1_000)
    }
}

/// The clock of a machine.
pub struct Skewed {
    /// The source's.
    pub world: Arc<World>,
    /// How far it is ahead.
    pub skew: Skew,
}

#[async_trait]
impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        self.skew.of(&self.world, self.world.now())
    }

    fn elapsed(&self) -> Duration {
        self.world.now().since(BEGINNING)
    }

    async fn sleep(&self, duration: Duration) {
        self.world.sleep(duration).await;
    }
}

/// The queue, as a machine polls it: when it had been emptied stands by its own clock.
pub struct Polled {
    /// The queue.
    pub queue: Arc<Queue>,
    /// How far the machine's clock is ahead.
    pub skew: Skew,
    /// The world.
    pub world: Arc<World>,
}

#[async_trait]
impl Source for Polled {
    fn stream(&self) -> &str {
        self.queue.stream()
    }

    async fn poll(&self) -> Result<Delivery, SourceError> {
        let delivery = self.queue.poll().await?;
        Ok(Delivery { drained: delivery.drained.map(|drained| self.skew.of(&self.world, drained)), ..delivery })
    }

    async fn ack(&self, receipts: Vec<String>) -> Result<(), SourceError> {
        self.queue.ack(receipts).await
    }
}
