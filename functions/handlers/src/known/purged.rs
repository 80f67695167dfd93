//! What is known of purges: which can be believed, and when they were.

use std::time::Duration;

use pipeline::model::change::{Facet, NULL_VERSION, ObjectRow};
use pipeline::model::{Digest, Key, Timestamp};

use super::{Known, KnownVersion};

/// What is known of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purged {
    pub(super) at: Timestamp,
    /// It did not happen before this; where nothing is said, it happened just then.
    since: Option<Timestamp>,
}

/// When a version was purged, by what an event says and what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeTime {
    /// When the event says.
    AsTold,
    /// Not when the event says: the version was there until this instant.
    After(Timestamp),
    /// The purge is known, and when it was.
    Known,
    /// The purge is known, and the version was still there at this instant.
    Refuted(Timestamp),
    /// So long ago that the vault has known of the purge or has never known of the version.
    Outdated,
}

/// How far the clocks of a source's servers may be apart.
const SKEW_SECONDS: i64 = 1;
/// An event that has not arrived by then does not arrive (EventBridge user guide, "Retrying event delivery"): what a listing
/// found a day after it happened needs no event.
pub const EVENT_AGE_MAX: Duration = Duration::from_secs(86_400);
/// A content is read and kept so soon after its event came: a listing that begins later knows of it.
const CAPTURE_TIME_MAX: Duration = Duration::from_secs(3_600);

impl Known {
    /// Takes in a purge of a version other than `null`.
    pub(super) fn purge(&mut self, row: &ObjectRow<'_>) {
        let told = Purged { at: row.at, since: row.at_bound };
        let known = self.purged.entry(digest_of(row.object, row.version)).or_insert(told);
        *known = if told.at < known.at || told.at == known.at && told.since.is_none() { told } else { *known };
    }

    /// Takes in that a version was seen: a purge before that never was.
    pub(super) fn seen_after_purge(&mut self, row: &ObjectRow<'_>) {
        let (version, seen) = (digest_of(row.object, row.version), row.at_bound.unwrap_or(Timestamp::MIN));
        if self.purged.get(&version).is_some_and(|known| known.at < seen) {
            self.purged.remove(&version);
        }
    }

    /// Whether a purge of this version is known that was told to have happened before this instant.
    pub fn was_purged_before(&self, object: &str, version: &str, at: Timestamp) -> bool {
        self.purged.get(&digest_of(object, version)).is_some_and(|purged| purged.at < at)
    }

    /// Whether it is known that this version was purged.
    pub fn is_purged(&self, object: &str, version: &str) -> bool {
        version != NULL_VERSION && self.purged.contains_key(&digest_of(object, version))
    }

    /// When the newest reading of the truth began that has ended.
    pub fn read(&self) -> Option<Timestamp> {
        self.read
    }

    /// Before this instant no event is news of a version that is neither live nor there.
    pub fn horizon(&self) -> Option<Timestamp> {
        self.read.map(|read| read.minus(EVENT_AGE_MAX))
    }

    /// When the newest reading of the truth began that had ended by this instant: it has shown all that was there when it began and
    /// is still there.
    pub fn read_before(&self, at: Timestamp) -> Option<Timestamp> {
        let ended = self.readings.iter().filter(|(_, ended)| ended.seconds() + SKEW_SECONDS < at.seconds());
        ended.map(|(began, _)| *began).max()
    }

    /// When a version was purged of which an event says that it was at `told`, and which is not there any more.
    pub fn date_purge(&self, object: &str, version: &str, told: Timestamp) -> PurgeTime {
        let is_refuted = |there: Timestamp| told.seconds() + SKEW_SECONDS < there.seconds();
        if let Some(known) = self.find(object, version) {
            let there = self.there_until(known);
            // What was in the place of version `null` before may have been removed before.
            let of_another = version == NULL_VERSION && told < known.at;
            return if !of_another && is_refuted(there) { PurgeTime::After(there) } else { PurgeTime::AsTold };
        }
        match self.purged.get(&digest_of(object, version)) {
            Some(purged) if is_refuted(purged.since.unwrap_or(purged.at)) => PurgeTime::Refuted(purged.since.unwrap_or(purged.at)),
            Some(purged) if purged.since.is_none() || told > purged.at => PurgeTime::Known,
            Some(_) => PurgeTime::AsTold,
            None if self.horizon().is_some_and(|horizon| told < horizon) => PurgeTime::Outdated,
            None => PurgeTime::AsTold,
        }
    }

    /// Until when a live version was there for certain: what a listing has shown was there when the last one began.
    pub fn there_until(&self, known: &KnownVersion) -> Timestamp {
        let now = self.reading_began.filter(|_| known.seen == self.reading);
        let listed = self.read.max(now).filter(|_| known.vouched);
        listed.map_or(known.at, |listed| listed.max(known.at))
    }

    /// Which of what was loaded was there for certain when the last reading began: that knew of it, if it was put long before.
    pub(super) fn vouch_for_old(&mut self, row: &ObjectRow<'_>) {
        let margin = match (row.body, row.marker) {
            (Some(_), _) => CAPTURE_TIME_MAX,
            (None, true) => EVENT_AGE_MAX,
            (None, false) => return,
        };
        if row.facet == Facet::Version && self.read.is_some_and(|read| row.at < read.minus(margin)) {
            self.change(row.object, row.version, |known| known.vouched = true);
        }
    }
}

/// What a version is known by once it is gone. A cryptographic digest, because users choose keys.
fn digest_of(object: &str, version: &str) -> u128 {
    let digest = Digest::of(Key::object_version(object, version).as_bytes());
    u128::from_be_bytes(*digest.bytes().first_chunk().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use pipeline::model::change::ChangeBatch;
    use pipeline::model::{ObjectChange, Position, Sequencer};

    use super::*;

    const DAY: i64 = 86_400;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn told(object: &str, version: &str, at: i64) -> ObjectChange {
        let position = Position::sequenced(0, &Sequencer::parse("01").unwrap()).as_bytes().to_vec();
        ObjectChange { position, body: Some("B".to_owned()), ..ObjectChange::put(object, version, second(at)) }
    }

    fn purge(version: &str, at: i64, since: Option<i64>) -> ObjectChange {
        ObjectChange { at_bound: since.map(second), ..ObjectChange::delete("a", version, second(at)) }
    }

    /// What is known of these changes, and of a reading that began then and has ended, in which `seen` were listed.
    fn known(changes: &[ObjectChange], began: i64, seen: &[&str]) -> Known {
        let mut known = Known::default();
        let batch: ChangeBatch = changes.iter().map(ObjectChange::row).collect();
        known.appended("s".to_owned(), &batch);
        let reading = known.begin_reading();
        seen.iter().for_each(|version| known.saw("a", version, reading));
        known.ended_reading(second(began), second(began + 1));
        known
    }

    #[test]
    fn what_a_look_found_while_the_truth_was_read_was_not_shown_by_that_reading() {
        let mut known = Known::default();
        let reading = known.begin_reading();
        known.reading_began(second(100));
        // The look was before that, and what it found comes late.
        let looked = |version| ObjectChange { rank: Some(0), via: "scan".to_owned(), ..told("a", version, 10) };
        let batch: ChangeBatch = [looked("gone"), looked("listed")].iter().map(ObjectChange::row).collect();
        known.appended("s".to_owned(), &batch);
        known.saw("a", "listed", reading);
        let time = |version| known.date_purge("a", version, second(90));
        assert_eq!((time("gone"), time("listed")), (PurgeTime::AsTold, PurgeTime::After(second(100))));
        assert!(known.unseen(reading).is_empty());
    }

    #[test]
    fn a_purge_is_dated_as_told_unless_a_listing_has_shown_the_version_later() {
        let known = known(&[told("a", "listed", 10), told("a", "new", 10)], 100, &["listed"]);
        let time = |version: &str, at: i64| known.date_purge("a", version, second(at));
        assert_eq!(time("listed", 100), PurgeTime::AsTold);
        assert_eq!(time("listed", 99), PurgeTime::AsTold, "two servers, two clocks");
        assert_eq!(time("listed", 98), PurgeTime::After(second(100)));
        // It may have been gone when the listing began, which did not know of it.
        assert_eq!(time("new", 98), PurgeTime::AsTold);
        assert_eq!(time("new", 5), PurgeTime::After(second(10)), "it was put after that");
    }

    #[test]
    fn while_a_listing_goes_on_what_it_has_shown_was_there_when_it_began() {
        let mut known = known(&[told("a", "v", 10)], 100, &["v"]);
        let reading = known.begin_reading();
        known.reading_began(second(200));
        assert_eq!(known.date_purge("a", "v", second(150)), PurgeTime::AsTold);
        known.saw("a", "v", reading);
        assert_eq!(known.date_purge("a", "v", second(150)), PurgeTime::After(second(200)));
    }

    #[test]
    fn of_a_purge_that_is_known_only_the_time_within_its_interval_is_news() {
        let changes = [told("a", "x", 1), purge("x", 50, None), told("a", "y", 1), purge("y", 50, Some(20))];
        let known = known(&changes, 10, &[]);
        let times = |version: &str| [10, 18, 30, 50, 60].map(|at| known.date_purge("a", version, second(at)));
        use PurgeTime::{AsTold, Known, Refuted};
        assert_eq!(times("x"), [Refuted(second(50)), Refuted(second(50)), Refuted(second(50)), Known, Known]);
        assert_eq!(times("y"), [Refuted(second(20)), Refuted(second(20)), AsTold, AsTold, Known]);
        assert_eq!(known.date_purge("a", "x", second(49)), Known);
    }

    #[test]
    fn what_is_older_than_any_event_is_no_news_and_purges_are_forgotten_then() {
        let mut known = known(&[told("a", "v", 1), purge("v", 10, None)], 10 + DAY, &[]);
        assert!(known.is_purged("a", "v"));
        assert_eq!(known.date_purge("a", "never", second(9)), PurgeTime::Outdated);
        assert_eq!(known.date_purge("a", "never", second(10)), PurgeTime::AsTold);
        known.ended_reading(second(11 + DAY), second(12 + DAY));
        assert!(!known.is_purged("a", "v"));
        assert_eq!(known.date_purge("a", "v", second(10)), PurgeTime::Outdated);
    }

    #[test]
    fn a_version_that_was_purged_stays_so_until_it_is_seen_again() {
        let put = told("a", "v", 10);
        let mut known = known(&[purge("v", 20, None), put.clone()], 0, &[]);
        assert_eq!(known.find("a", "v"), None);
        let seen = ObjectChange { facet: Facet::Seen, at_bound: Some(second(30)), ..put.clone() };
        let batch: ChangeBatch = [&put, &seen].into_iter().map(ObjectChange::row).collect();
        known.appended("t".to_owned(), &batch);
        assert!(known.find("a", "v").is_some());
    }

    #[test]
    fn what_was_loaded_was_listed_if_it_was_put_long_before_the_listing() {
        let hours = |hours: i64| hours * 3_600;
        let mut known = Known { read: Some(second(hours(48))), ..Known::default() };
        for (version, at, marker) in [("old", 46, false), ("young", 48, false), ("old marker", 23, true), ("young marker", 25, true)] {
            let put = ObjectChange { marker, body: (!marker).then(|| "B".to_owned()), ..told("a", version, hours(at)) };
            known.apply(&put.row());
            known.vouch_for_old(&put.row());
        }
        let vouched = |version: &str| known.find("a", version).map(|known| known.vouched);
        assert_eq!(["old", "young", "old marker", "young marker"].map(vouched), [Some(true), Some(false), Some(true), Some(false)]);
    }
}
