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
//! What is known of a clock holds until somebody sets it. The machine also counts how long it has run, and whoever held both against
//! the source sees by how much the clock has gone otherwise since. Then nothing is known, until the source is asked again.
//!
//! Where nothing may be wrong, nothing is put right. Else two instants are possible for each of the machine's: what must not be
//! promised too early takes the first, and what is to be over by then the last. An answer that was long on its way tells too little to
//! say that nothing is wrong: then the source is asked again, and until it has told more, its two instants count.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::model::{Clock, Timestamp};
use pipeline::s3::{Bucket, BucketError};

/// The precision of the source's dates.
const SECOND: i64 = 1_000_000;
/// What is not known better than this says nothing of whether a clock is right: an answer that took a second.
const VAGUE: i64 = 2 * SECOND;

/// A clock that has gone so much otherwise than the machine has run was set.
const SET: i64 = SECOND / 2;

/// What the clock of a machine said, and how long the machine had run then.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// What it said.
    pub at: Timestamp,
    elapsed: Duration,
}

impl Reading {
    /// What the clock says.
    pub fn of(clock: &dyn Clock) -> Reading {
        Reading { at: clock.now(), elapsed: clock.elapsed() }
    }

    /// How long the machine has run from this to the other, in microseconds; negative if the other was before.
    fn ran_until(&self, other: &Reading) -> i64 {
        other.elapsed.as_micros() as i64 - self.elapsed.as_micros() as i64
    }

    /// Whether somebody has set the clock between the two, whichever was before.
    pub fn is_set_until(&self, other: &Reading) -> bool {
        let said = other.at.micros().saturating_sub(self.at.micros());
        said.saturating_sub(self.ran_until(other)).abs() > SET
    }

    /// The reading at which the clock said this, where nobody has set it between the two.
    #[must_use]
    pub fn when(&self, at: Timestamp) -> Reading {
        let (later, earlier) = (at.since(self.at), self.at.since(at));
        Reading { at, elapsed: (self.elapsed + later).saturating_sub(earlier) }
    }
}

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
    compared: Mutex<Option<Compared>>,
}

/// What the machine's clock lacked when it was last held against the source's.
#[derive(Debug, Clone, Copy)]
struct Compared {
    off_by: OffBy,
    when: Reading,
}

impl SourceClock {
    /// The machine's clock, which nobody has compared yet.
    pub fn new(own: Arc<dyn Clock>) -> SourceClock {
        SourceClock { own, compared: Mutex::default() }
    }

    /// The machine's clock as it is.
    pub fn own(&self) -> Reading {
        Reading::of(self.own.as_ref())
    }

    /// By the source's clock a reading of the machine's, or a little before it; none if nothing was compared between which and it
    /// nobody has set the clock.
    pub fn not_after(&self, own: &Reading) -> Option<Timestamp> {
        let compared = self.compared().filter(|compared| !compared.when.is_set_until(own));
        compared.map(|compared| Timestamp::from_micros(own.at.micros().saturating_add(compared.off_by.least)))
    }

    /// By the source's clock an instant of the machine's, or a little behind it.
    pub fn not_before(&self, own: Timestamp) -> Timestamp {
        Timestamp::from_micros(own.micros().saturating_add(self.off_by().unwrap_or_default().most))
    }

    /// What the machine's clock lacks to the source's; none as long as nothing was compared since the clock was set.
    pub fn off_by(&self) -> Option<OffBy> {
        let now = self.own();
        self.compared().filter(|compared| !compared.when.is_set_until(&now)).map(|compared| compared.off_by)
    }

    fn compared(&self) -> MutexGuard<'_, Option<Compared>> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an answer that came just now against the machine's clock: the source dated it `answered`, or did not say, and it was
    /// asked for at this reading.
    ///
    /// # Errors
    /// [`BucketError::Transient`] if somebody has set the clock meanwhile: what was noted when it was asked for means nothing.
    pub fn compare(&self, answered: Option<Timestamp>, asked: Reading) -> Result<(), BucketError> {
        let received = self.own();
        let mut compared = self.compared();
        if asked.is_set_until(&received) {
            // What was known before stays: it tells what the machine has counted since.
            let (what, reason) = ("the clock of this machine was held against the source's".to_owned(), "it was set meanwhile".to_owned());
            return Err(BucketError::Transient { what, reason });
        }
        let off_by = compared.filter(|compared| !compared.when.is_set_until(&received)).map(|compared| compared.off_by);
        let before = off_by.unwrap_or_default();
        let now = answered.map_or(before, |answered| {
            let found = OffBy { least: answered.micros() - received.at.micros(), most: answered.micros() + SECOND - asked.at.micros() };
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
        *compared = Some(Compared { off_by: now, when: received });
        Ok(())
    }

    /// Asks the source for its time, if nothing was compared since the clock was set, or with what took too long.
    ///
    /// # Errors
    /// As [`Bucket::list_versions`].
    pub async fn ask(&self, bucket: &dyn Bucket) -> Result<(), BucketError> {
        if self.off_by().is_none_or(|off_by| off_by.may_be_nothing() && off_by.is_vague()) {
            let asked = self.own();
            let page = bucket.list_versions("", None, 1).await?;
            self.compare(page.server_time, asked)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Clock for SourceClock {
    fn now(&self) -> Timestamp {
        let (own, compared) = (self.own(), *self.compared());
        // However it was set since: the machine has counted on.
        let own_by_then = |compared: &Compared| match compared.when.is_set_until(&own) {
            true => Timestamp::from_micros(compared.when.at.micros().saturating_add(compared.when.ran_until(&own))),
            false => own.at,
        };
        let put_right = |compared: Compared| own_by_then(&compared).micros().saturating_add(compared.off_by.most);
        compared.map_or(own.at, |compared| Timestamp::from_micros(put_right(compared)))
    }

    fn elapsed(&self) -> Duration {
        self.own.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        self.own.sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that is moved by hand.
    #[derive(Default)]
    struct Hand {
        at: Mutex<i64>,
        ran: Mutex<i64>,
    }

    impl Hand {
        /// The clock says so many milliseconds, and the machine has run so many more.
        fn turn(&self, at: i64, ran: i64) {
            *self.at.lock().unwrap() = at;
            *self.ran.lock().unwrap() += ran;
        }

        /// Time goes by until the clock says so.
        fn pass(&self, to: i64) {
            let ran = to - *self.at.lock().unwrap();
            self.turn(to, ran);
        }
    }

    #[async_trait]
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            millis(*self.at.lock().unwrap())
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(*self.ran.lock().unwrap() as u64)
        }

        async fn sleep(&self, _: Duration) {}
    }

    fn millis(millis: i64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    /// A clock, and what is known of it after each of these answers: the source's second, when it was asked for and received.
    struct Asking {
        hand: Arc<Hand>,
        clock: SourceClock,
    }

    impl Asking {
        fn new() -> Asking {
            let hand = Arc::new(Hand::default());
            Asking { clock: SourceClock::new(hand.clone()), hand }
        }

        fn compare(&self, answered: Option<i64>, asked: i64, received: i64) -> Option<(i64, i64)> {
            self.hand.pass(asked);
            let reading = self.clock.own();
            self.hand.pass(received);
            self.clock.compare(answered.map(Timestamp::from_seconds), reading).unwrap();
            self.clock.off_by().map(|off_by| (off_by.least / 1_000, off_by.most / 1_000))
        }
    }

    #[test]
    fn a_clock_that_may_be_right_is_left_alone_and_of_one_that_cannot_be_both_ends_are_known() {
        let right = Asking::new();
        assert_eq!(right.clock.off_by(), None);
        assert_eq!(right.compare(None, 1_000_100, 1_000_200), Some((0, 0)), "a server that does not say");
        assert_eq!(right.compare(Some(1_000), 1_000_300, 1_000_400), Some((0, 0)));
        assert_eq!(right.compare(Some(1_000), 1_000_900, 1_001_100), Some((0, 0)), "the second has ended on the way");
        // An answer that took two and a half seconds: three seconds ahead, or right.
        let slow = Asking::new();
        assert_eq!(slow.compare(Some(1_000), 1_000_700, 1_003_200), Some((-3_200, 300)));
        assert_eq!(slow.clock.not_after(&slow.clock.own().when(millis(5_000))), Some(millis(1_800)));
        assert_eq!(slow.compare(Some(1_010), 1_012_900, 1_014_900), Some((-3_200, -1_900)), "right it is not");
        let slow = Asking::new();
        slow.compare(Some(1_000), 1_000_700, 1_003_200);
        assert_eq!(slow.compare(Some(1_010), 1_010_100, 1_010_200), Some((0, 0)), "a quick answer says so");
        // An hour ahead: it is the second from 3 to 4 s, and the machine says 3,602.4 s.
        let ahead = Asking::new();
        assert_eq!(ahead.compare(Some(3), 3_602_400, 3_602_500), Some((-3_599_500, -3_598_400)));
        assert_eq!(ahead.compare(Some(4), 3_603_600, 3_603_700), Some((-3_599_500, -3_598_600)), "it is known better now");
        assert_eq!(ahead.compare(Some(9), 3_608_100, 3_608_150), Some((-3_599_150, -3_598_600)));
        // Half a minute behind.
        let behind = Asking::new();
        assert_eq!(behind.compare(Some(1_030), 1_000_300, 1_000_400), Some((29_600, 30_700)));
        behind.hand.pass(1_001_000);
        assert_eq!(behind.clock.now(), millis(1_031_700));
        assert_eq!(behind.clock.not_after(&behind.clock.own().when(millis(5_000))), Some(millis(34_600)));
    }

    #[test]
    fn of_a_clock_that_was_set_nothing_is_known_until_the_source_is_asked_again() {
        for by in [3_600_000, -3_600_000, 700, -700] {
            let asking = Asking::new();
            assert_eq!(asking.compare(Some(4_000), 4_000_100, 4_000_200), Some((0, 0)));
            asking.hand.pass(4_001_000);
            let before = asking.clock.own();
            asking.hand.turn(4_001_000 + by, 0);
            let after = asking.clock.own();
            assert_eq!((asking.clock.off_by(), asking.clock.not_after(&after)), (None, None), "set by {by}");
            assert_eq!(asking.clock.not_after(&before), Some(before.at), "set by {by}: what was read before is as right as it was");
            assert_eq!(asking.clock.now(), millis(4_001_000), "set by {by}: the machine has counted on");
            asking.hand.turn(4_003_000 + by, 2_000);
            assert_eq!(asking.clock.now(), millis(4_003_000), "set by {by}");
            asking.compare(Some(4_004), 4_004_400 + by, 4_004_500 + by);
            assert_eq!(asking.clock.not_after(&before), None, "set by {by}: what is known now is of another clock");
            let off_by = asking.clock.off_by().unwrap();
            let is_right = off_by.least <= -by * 1_000 && -by * 1_000 <= off_by.most;
            assert!(is_right || off_by == OffBy::default() && by.abs() < 1_000, "set by {by}: {off_by:?}");
        }
    }

    #[test]
    fn an_answer_on_whose_way_the_clock_was_set_says_nothing() {
        let asking = Asking::new();
        asking.compare(Some(4_000), 4_000_100, 4_000_200);
        let asked = asking.clock.own();
        asking.hand.turn(8_000_000, 100);
        let error = asking.clock.compare(Some(Timestamp::from_seconds(4_000)), asked).unwrap_err();
        assert!(error.to_string().contains("set meanwhile"), "{error}");
        assert_eq!(asking.clock.off_by(), None);
    }
}
