//! Messages that were left to come again: until they do, or nobody needs them any more, `latest` may not pass what they tell.
//!
//! A message may never come: its sender gave up, or the queue moved it to its own dead letters. What it told is found by the
//! next reading of the truth, like every event that was lost. So once a message has not come for a while, and a reading of
//! every bucket it tells of has begun after that, the mark may pass it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pipeline::model::{Digest, ResourceId, Timestamp};

/// A message that has not come again for so long is not waited for any longer: several times as long as a queue hides what it
/// has handed out, and as a sender waits before it tries again.
pub const PATIENCE: Duration = Duration::from_secs(1_800);
/// What a message tells is doubted so often at least, and so long, before it is given up: a server may show late what it has done.
const DOUBTS_MIN: u32 = 3;
const DOUBT_TIME_MIN: Duration = Duration::from_secs(60);

/// Messages that were left to come again.
#[derive(Debug, Default)]
pub struct Outstanding {
    messages: BTreeMap<Digest, Waiting>,
}

#[derive(Debug, Clone)]
struct Waiting {
    /// The earliest time that it tells of.
    earliest: Timestamp,
    /// When it came for the first time, and for the last.
    came: (Timestamp, Timestamp),
    /// How often it came and was doubted.
    doubts: u32,
    /// Whose changes it tells.
    resources: BTreeSet<ResourceId>,
}

impl Outstanding {
    /// Whether a message that is doubted now is to be given up.
    pub fn is_hopeless(&self, message: &Digest, now: Timestamp) -> bool {
        let waiting = self.messages.get(message);
        waiting.is_some_and(|waiting| waiting.doubts + 1 >= DOUBTS_MIN && now.since(waiting.came.0) >= DOUBT_TIME_MIN)
    }

    /// A message is left to come again.
    pub fn leave(&mut self, message: Digest, earliest: Timestamp, resources: BTreeSet<ResourceId>, doubted: bool, now: Timestamp) {
        let waiting = self.messages.entry(message).or_insert(Waiting { earliest, came: (now, now), doubts: 0, resources });
        waiting.came.1 = now;
        waiting.doubts += u32::from(doubted);
    }

    /// A message was acknowledged.
    pub fn settle(&mut self, message: &Digest) {
        self.messages.remove(message);
    }

    /// Waits no longer for messages that have not come for a while, where the truth has been read since: `read` says of a
    /// resource when its newest reading began that has ended. Returns how many.
    pub fn give_up(&mut self, now: Timestamp, read: impl Fn(&ResourceId) -> Option<Timestamp>) -> usize {
        let before = self.messages.len();
        self.messages.retain(|_, waiting| {
            let came = waiting.came.1;
            let is_read = |resource| read(resource).is_some_and(|read| read > came);
            now.since(came) < PATIENCE || !waiting.resources.iter().all(is_read)
        });
        before - self.messages.len()
    }

    /// The earliest time of those that tell of a resource and are waited for.
    pub fn earliest(&self, resource: &ResourceId) -> Option<Timestamp> {
        self.messages.values().filter(|waiting| waiting.resources.contains(resource)).map(|waiting| waiting.earliest).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn photos() -> ResourceId {
        ResourceId::bucket("photos").unwrap()
    }

    fn left(outstanding: &mut Outstanding, message: &[u8], earliest: i64, doubted: bool, now: i64) {
        let resources = BTreeSet::from([photos()]);
        outstanding.leave(Digest::of(message), seconds(earliest), resources, doubted, seconds(now));
    }

    #[test]
    fn a_message_that_does_not_come_again_is_given_up_once_the_truth_was_read() {
        let mut outstanding = Outstanding::default();
        left(&mut outstanding, b"a", 5, false, 10);
        left(&mut outstanding, b"b", 7, false, 4_000);
        let waited = 10 + PATIENCE.as_secs() as i64;
        assert_eq!(outstanding.give_up(seconds(waited), |_| Some(seconds(10))), 0, "that reading may have begun before it came");
        assert_eq!(outstanding.give_up(seconds(waited - 1), |_| Some(seconds(11))), 0, "it may still come");
        assert_eq!(outstanding.give_up(seconds(waited), |_| None), 0);
        assert_eq!(outstanding.earliest(&photos()), Some(seconds(5)));
        assert_eq!(outstanding.give_up(seconds(waited), |_| Some(seconds(11))), 1);
        assert_eq!(outstanding.earliest(&photos()), Some(seconds(7)));
        outstanding.settle(&Digest::of(b"b"));
        assert_eq!(outstanding.earliest(&photos()), None);
    }

    #[test]
    fn what_is_doubted_is_looked_at_several_times_and_for_a_while() {
        let mut outstanding = Outstanding::default();
        let hopeless = |outstanding: &Outstanding, now| outstanding.is_hopeless(&Digest::of(b"a"), seconds(now));
        assert!(!hopeless(&outstanding, 1_000));
        left(&mut outstanding, b"a", 5, true, 10);
        left(&mut outstanding, b"a", 5, false, 200);
        assert!(!hopeless(&outstanding, 1_000), "it was doubted only once");
        left(&mut outstanding, b"a", 5, true, 20);
        assert!(!hopeless(&outstanding, 30), "a minute has not passed");
        assert!(hopeless(&outstanding, 70));
    }
}
