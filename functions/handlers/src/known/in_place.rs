//! What is known of version `null`, which is overwritten in place.
//!
//! Of two of its changes within a second what is known here may not be what a fold makes of them: events come in any order,
//! and a listing does not tell which was the last. So that a listing can set it right, this errs on one side only: what is
//! held to be there, and to be certain, is so after a fold too. All else a listing shows once more.

use pipeline::fold::in_place::stands_at;
use pipeline::model::Timestamp;
use pipeline::model::change::{NULL_VERSION, ObjectRow, Op, is_in_parts};
use pipeline::s3::ListedVersion;
use pipeline::source::s3_read::is_lost_for_good;

use super::{Known, KnownVersion, add, is_told, known_of};

/// A removal is remembered until a listing has begun so many seconds after it: what it shows then was put after that.
const SETTLED_SECONDS: i64 = 2;

impl Known {
    /// Takes in a change of version `null`.
    pub(super) fn overwrite(&mut self, row: &ObjectRow<'_>) {
        let reading = self.reading;
        let emptied = self.emptied.get(row.object).copied();
        let versions = self.objects.entry(row.object.into()).or_default();
        let known = versions.iter_mut().find(|known| &*known.version == NULL_VERSION);
        if row.op != Op::Put {
            self.emptied.insert(row.object.into(), emptied.map_or(row.at, |emptied| emptied.max(row.at)));
            if known.is_some_and(|known| row.at.seconds() >= known.there.seconds()) {
                versions.retain(|known| &*known.version != NULL_VERSION);
            }
            return;
        }
        let there = stands_at(row.at, row.at_bound);
        if emptied.is_some_and(|emptied| emptied.seconds() < there.seconds()) {
            self.emptied.remove(row.object);
        } else if emptied.is_some() && row.via != "event" {
            return;
        }
        let Some(known) = known else {
            add(versions, known_of(row, reading));
            return;
        };
        // Of an event and a listing in one second a fold takes the event for the last.
        let is_newer = if row.via == "event" { there.seconds() >= known.there.seconds() } else { there.seconds() > known.there.seconds() };
        let is_dated_otherwise = known.dated_by_listing && row.via == "scan" && known.at != row.at;
        let is_another = row.marker != known.marker || row.etag.is_some() && known.etag.as_deref() != row.etag || is_dated_otherwise;
        if is_another {
            let contested = there.seconds() == known.there.seconds();
            if is_newer {
                *known = known_of(row, reading);
            }
            known.contested |= contested;
            return;
        }
        known.stored |= row.body.is_some() || row.marker || row.lost.is_some_and(|reason| is_lost_for_good(row.version, reason));
        known.rank = known.rank.max(row.rank);
        known.told |= is_told(row);
        known.vouched |= row.rank.is_some();
        if is_newer && (row.via == "event" || row.at.seconds() > known.at.seconds()) {
            known.at = row.at;
            known.dated_by_listing = row.via == "scan";
        }
        known.contested &= there.seconds() <= known.there.seconds();
        known.there = known.there.max(there);
    }

    /// Whether a listed version `null` may not be what a fold makes of its changes, although they are all known: then that it
    /// was shown must be written down.
    pub fn is_in_doubt(&self, listed: &ListedVersion) -> bool {
        let may_be_after = |change: Timestamp| change.seconds() >= listed.modified.seconds();
        let is_open = |known: &KnownVersion| known.contested || is_overwritten(known, listed) && may_be_after(known.there);
        let emptied = || self.emptied.get(&*listed.object).copied().is_some_and(may_be_after);
        listed.version == NULL_VERSION && (emptied() || self.find(&listed.object, NULL_VERSION).is_some_and(is_open))
    }

    /// A complete listing had begun then: what it did not show is gone, and what was removed before is settled.
    pub fn settle(&mut self, began: Timestamp) {
        self.emptied.retain(|_, at| at.seconds() + SETTLED_SECONDS >= began.seconds());
    }
}

/// Whether a listed version `null` is another one than the known.
pub fn is_overwritten(known: &KnownVersion, listed: &ListedVersion) -> bool {
    let (ours, theirs) = (known.at.seconds(), listed.modified.seconds());
    // Of an upload in parts a listing says when it began, and an event when it was completed.
    let in_parts = listed.etag.as_deref().is_some_and(is_in_parts);
    let is_same_time = if known.dated_by_listing {
        known.at == listed.modified
    } else {
        // Of the clocks of an event and of a listing one may be a second ahead.
        ours.abs_diff(theirs) <= 1 || in_parts && ours > theirs
    };
    listed.version == NULL_VERSION && (known.marker != listed.marker || known.etag.as_deref() != listed.etag.as_deref() || !is_same_time)
}

#[cfg(test)]
mod tests {
    use pipeline::model::ObjectChange;

    use super::*;

    fn change(via: &str, etag: &str, at: i64, shown: Option<i64>) -> ObjectChange {
        let at_bound = shown.map(Timestamp::from_seconds);
        let (via, etag) = (via.to_owned(), Some(etag.to_owned()));
        ObjectChange {
            via,
            etag,
            at_bound,
            body: Some("B".to_owned()),
            ..ObjectChange::put("a", NULL_VERSION, Timestamp::from_seconds(at))
        }
    }

    /// What is held to be in the place after these changes, in the order in which they are learned.
    fn check(changes: &[ObjectChange], expected: &str) {
        let mut known = Known::default();
        changes.iter().for_each(|change| known.apply(&change.row()));
        assert_eq!(known.find("a", NULL_VERSION).and_then(|known| known.etag.as_deref()), Some(expected));
    }

    #[test]
    fn what_a_listing_shows_is_held_to_be_there_once_no_event_of_its_second_can_be_later() {
        let (event, shown, again) = (change("event", "e", 10, None), change("scan", "s", 10, Some(11)), change("scan", "s", 10, Some(13)));
        check(&[event.clone(), shown.clone()], "e");
        check(&[shown.clone(), event.clone()], "e");
        check(&[event.clone(), again.clone()], "s");
        check(&[again, event], "s");
        check(&[change("event", "e", 9, None), shown], "s");
    }

    #[test]
    fn the_same_content_put_again_is_another_one_where_listings_give_it_another_time() {
        let listed = |millis: i64| ListedVersion {
            object: "a".to_owned(),
            version: NULL_VERSION.to_owned(),
            marker: false,
            latest: true,
            modified: Timestamp::from_micros(millis * 1_000),
            size: Some(1),
            etag: Some("s".to_owned()),
            storage_class: None,
        };
        let is_another = |known: &Known, millis| is_overwritten(known.find("a", NULL_VERSION).expect("it is known"), &listed(millis));
        let mut known = Known::default();
        known.apply(&change("event", "s", 10, None).row());
        assert!(!is_another(&known, 11_900), "its event may be told with another clock");
        assert!(is_another(&known, 12_000));
        let mut known = Known::default();
        known.apply(&change("scan", "s", 10, Some(11)).row());
        assert!(!is_another(&known, 10_000));
        assert!(is_another(&known, 10_001) && is_another(&known, 11_000));
        // Of two of one second the later listing says which one is there.
        let again = |seen| ObjectChange { at: Timestamp::from_micros(10_500_000), ..change("scan", "s", 10, Some(seen)) };
        known.apply(&again(11).row());
        assert!(known.is_in_doubt(&listed(10_500)));
        known.apply(&again(13).row());
        assert!(!is_another(&known, 10_500) && !known.is_in_doubt(&listed(10_500)));
    }

    #[test]
    fn which_of_two_of_one_second_is_there_is_written_down_when_a_later_listing_shows_it() {
        let mut known = Known::default();
        let listed = |etag: &str| ListedVersion {
            object: "a".to_owned(),
            version: NULL_VERSION.to_owned(),
            marker: false,
            latest: true,
            modified: Timestamp::from_seconds(10),
            size: Some(1),
            etag: Some(etag.to_owned()),
            storage_class: None,
        };
        known.apply(&change("scan", "s", 10, Some(11)).row());
        assert!(!known.is_in_doubt(&listed("s")), "it is alone");
        known.apply(&change("scan", "t", 10, Some(11)).row());
        assert!(known.is_in_doubt(&listed("s")), "a fold may hold the other one to be the last");
        known.apply(&change("scan", "s", 10, Some(11)).row());
        assert!(known.is_in_doubt(&listed("s")), "that says no more than before");
        known.apply(&change("scan", "s", 10, Some(13)).row());
        assert!(!known.is_in_doubt(&listed("s")));
    }
}
