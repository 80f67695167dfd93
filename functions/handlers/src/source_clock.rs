//! The clock of the source, as far as this machine can tell.
//!
//! `latest` says that whatever had arrived by then is durable, and people hold it against the times that the source gives: of a
//! machine whose clock is an hour ahead it would promise an hour of which nothing has arrived. The source dates its answers by the
//! second. Whoever notes when it asked and when the answer came knows how far its own clock may be off:
//!
//! ```text
//!  asked ───────────── received      by our own clock
//!           [D, D + 1 s)             by the source's: it answered between the two
//!
//!  off by at least D − received, and by less than D + 1 s − asked
//! ```
//!
//! Where nothing may be wrong, nothing is put right. Else two instants are possible for each of the machine's: what must not be
//! promised too early takes the first, and what is to be over by then the last. An answer that was long on its way tells too little to
//! say that nothing is wrong: then the source is asked again, and until it has told more, its two instants count.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::model::{Clock, Timestamp};
use pipeline::s3::{Bucket, BucketError};

/// The precision of the source's dates.
const SECOND: i64 = 1_000_000;
/// What is not known better than this says nothing of whether a clock is right: an answer that took a second.
const VAGUE: i64 = 2 * SECOND;

/// What is to be added to the machine's clock: at least and at most, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OffBy {
    /// At least so much.
    pub least: i64,
    /// At most so much.
    pub most: i64,
}

impl OffBy {
    /// Whether nothing may be wrong.
    fn may_be_nothing(self) -> bool {
        (self.least..=self.most).contains(&0)
    }

    fn is_vague(self) -> bool {
        self.most - self.least > VAGUE
    }
}

/// The machine's clock, put right where the answers of the source show that it is wrong. As a [`Clock`] it is never behind the
/// source's.
pub struct SourceClock {
    own: Arc<dyn Clock>,
    off_by: Mutex<Option<OffBy>>,
}

impl SourceClock {
    /// The machine's clock, which nobody has compared yet.
    pub fn new(own: Arc<dyn Clock>) -> SourceClock {
        SourceClock { own, off_by: Mutex::default() }
    }

    /// The machine's clock as it is.
    pub fn own(&self) -> Timestamp {
        self.own.now()
    }

    /// By the source's clock an instant of the machine's, or a little before it.
    pub fn not_after(&self, own: Timestamp) -> Timestamp {
        Timestamp::from_micros(own.micros().saturating_add(self.off_by().unwrap_or_default().least))
    }

    /// By the source's clock an instant of the machine's, or a little behind it.
    pub fn not_before(&self, own: Timestamp) -> Timestamp {
        Timestamp::from_micros(own.micros().saturating_add(self.off_by().unwrap_or_default().most))
    }

    /// What the machine's clock lacks to the source's; none as long as nothing was compared.
    pub fn off_by(&self) -> Option<OffBy> {
        *self.off_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an answer against the machine's clock: the source dated it `answered`, or did not say, and it was asked for and
    /// received at these instants of the machine's.
    pub fn compare(&self, answered: Option<Timestamp>, asked: Timestamp, received: Timestamp) {
        let mut off_by = self.off_by.lock().unwrap_or_else(PoisonError::into_inner);
        let before = off_by.unwrap_or_default();
        let now = answered.map_or(before, |answered| {
            let found = OffBy { least: answered.micros() - received.micros(), most: answered.micros() + SECOND - asked.micros() };
            let both = OffBy { least: found.least.max(before.least), most: found.most.min(before.most) };
            let known = if off_by.is_some() && both.least <= both.most { both } else { found };
            if known.may_be_nothing() && !known.is_vague() || found.may_be_nothing() && !found.is_vague() {
                OffBy::default()
            } else {
                known
            }
        });
        if now.may_be_nothing() != before.may_be_nothing() {
            let seconds = now.least as f64 / SECOND as f64;
            tracing::warn!(seconds, "the clock of this machine is off by so much from the source's; times are put right");
        }
        *off_by = Some(now);
    }

    /// Asks the source for its time, if nothing was compared yet, or with what took too long.
    ///
    /// # Errors
    /// As [`Bucket::list_versions`].
    pub async fn ask(&self, bucket: &dyn Bucket) -> Result<(), BucketError> {
        if self.off_by().is_none_or(|off_by| off_by.may_be_nothing() && off_by.is_vague()) {
            let asked = self.own();
            let page = bucket.list_versions("", None, 1).await?;
            self.compare(page.server_time, asked, self.own());
        }
        Ok(())
    }
}

#[async_trait]
impl Clock for SourceClock {
    fn now(&self) -> Timestamp {
        self.not_before(self.own())
    }

    async fn sleep(&self, duration: Duration) {
        self.own.sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands still.
    struct Still;

    #[async_trait]
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::from_seconds(1_000)
        }

        async fn sleep(&self, _: Duration) {}
    }

    fn millis(millis: i64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    #[test]
    fn a_clock_that_may_be_right_is_left_alone_and_of_one_that_cannot_be_both_ends_are_known() {
        let clock = SourceClock::new(Arc::new(Still));
        assert_eq!(clock.off_by(), None);
        let compared = |answered: Option<i64>, asked, received| {
            clock.compare(answered.map(Timestamp::from_seconds), millis(asked), millis(received));
            clock.off_by().map(|off_by| (off_by.least / 1_000, off_by.most / 1_000))
        };
        assert_eq!(compared(None, 1_000_100, 1_000_200), Some((0, 0)), "a server that does not say");
        assert_eq!(compared(Some(1_000), 1_000_100, 1_000_200), Some((0, 0)));
        assert_eq!(compared(Some(1_000), 1_000_900, 1_001_100), Some((0, 0)), "the second has ended on the way");
        // An answer that took two and a half seconds: three seconds ahead, or right.
        let slow = SourceClock::new(Arc::new(Still));
        let asked_slowly = |answered: i64, asked, received| {
            slow.compare(Some(Timestamp::from_seconds(answered)), millis(asked), millis(received));
            slow.off_by().map(|off_by| (off_by.least / 1_000, off_by.most / 1_000))
        };
        assert_eq!(asked_slowly(1_000, 1_000_700, 1_003_200), Some((-3_200, 300)));
        assert_eq!(slow.not_after(millis(5_000)), millis(1_800));
        assert_eq!(asked_slowly(1_010, 1_012_900, 1_014_900), Some((-3_200, -1_900)), "right it is not");
        let slow = SourceClock::new(Arc::new(Still));
        slow.compare(Some(Timestamp::from_seconds(1_000)), millis(1_000_700), millis(1_003_200));
        slow.compare(Some(Timestamp::from_seconds(1_010)), millis(1_010_100), millis(1_010_200));
        assert_eq!(slow.off_by(), Some(OffBy::default()), "a quick answer says so");
        // An hour ahead: it is the second from 3 to 4 s, and the machine says 3,602.4 s.
        assert_eq!(compared(Some(3), 3_602_400, 3_602_500), Some((-3_599_500, -3_598_400)));
        assert_eq!(compared(Some(4), 3_603_600, 3_603_700), Some((-3_599_500, -3_598_600)), "it is known better now");
        assert_eq!(compared(Some(9), 3_608_100, 3_608_150), Some((-3_599_150, -3_598_600)));
        assert_eq!(compared(Some(9_000), 9_000_300, 9_000_400), Some((0, 0)), "somebody has set it");
        // Half a minute behind.
        assert_eq!(compared(Some(9_030), 9_000_300, 9_000_400), Some((29_600, 30_700)));
        assert_eq!(clock.now(), millis(1_030_700));
        assert_eq!(clock.not_after(millis(5_000)), millis(34_600));
    }
}
