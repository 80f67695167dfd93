//! Where events come from in this process: a queue that is polled, a webhook that is posted to, topics of Kafka.

pub mod kafka;
pub mod sqs;
pub mod tags;
pub mod webhook;

use std::time::Duration;

use pipeline::model::Timestamp;
use tokio::sync::watch;

/// Messages of one round at most.
pub const ROUND_MESSAGES_MAX: usize = 1_000;
/// How long one round gathers messages at most.
pub const ROUND_TIME_MAX: Duration = Duration::from_millis(500);
/// How long an idle source is waited for.
pub const IDLE_WAIT: Duration = Duration::from_secs(10);
/// How long it is waited for just after messages came, so that the mark behind them is soon known.
pub const BUSY_WAIT: Duration = Duration::from_secs(1);
/// How often an idle source says that it is drained: each time costs a small file in the vault.
const DRAINED_EVERY: Duration = Duration::from_secs(15);

/// Tells everything in this process to end.
pub type Stop = watch::Receiver<bool>;

/// Comes back when it is time to end.
pub async fn stopped(stop: &Stop) {
    // That nobody can say it any more means the same.
    drop(stop.clone().wait_for(|stop| *stop).await);
}

/// Decides when to say that a source is drained: at once behind messages, now and then while nothing comes.
#[derive(Debug)]
pub struct Drain {
    busy: bool,
    said: Timestamp,
}

impl Default for Drain {
    /// After a start, that nothing waits is worth knowing soon.
    fn default() -> Drain {
        Drain { busy: true, said: Timestamp::default() }
    }
}

impl Drain {
    /// How long to wait for the next message.
    pub fn wait(&self) -> Duration {
        if self.busy { BUSY_WAIT } else { IDLE_WAIT }
    }

    /// What to say after a poll that brought `messages`, and found nothing more when it began at `drained`.
    pub fn say(&mut self, messages: usize, drained: Option<Timestamp>) -> Option<Timestamp> {
        let due = self.busy || messages > 0 || drained.is_some_and(|now| now.since(self.said) >= DRAINED_EVERY);
        self.busy = messages > 0;
        let saying = drained.filter(|_| due)?;
        self.said = saying;
        Some(saying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_source_is_drained_at_once_behind_messages_and_then_seldom() {
        let at = Timestamp::from_seconds;
        let mut drain = Drain::default();
        assert_eq!(drain.wait(), BUSY_WAIT);
        assert_eq!(drain.say(3, None), None);
        assert_eq!(drain.wait(), BUSY_WAIT);
        assert_eq!(drain.say(0, Some(at(101))), Some(at(101)));
        assert_eq!(drain.wait(), IDLE_WAIT);
        assert_eq!(drain.say(0, Some(at(111))), None);
        assert_eq!(drain.say(0, Some(at(121))), Some(at(121)));
    }
}
