//! When a version was put: what an event says, held against what the source has for it.
//!
//! An event's time is finer than a listing's for an upload in parts, and equal to it for everything else. Whoever can write
//! into the queue can write any time into an event, so it counts only as far as the source agrees:
//!
//! ```text
//!                    Last-Modified                    now
//!  in one piece   ───────┼─┤                            │     as told
//!  in parts       ───────┼─────────────────────────────┼─┤   as told: S3 dates them to their beginning
//!  anywhere else                                              the source's own time, and until when it appeared
//! ```

use std::time::Duration;

use pipeline::model::change::is_in_parts;
use pipeline::model::{ObjectChange, Position, Timestamp};

use crate::known::KnownVersion;

/// How far apart an event and the source may date one put: what the clocks of several servers may differ by, generously.
pub const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(60);

/// Holds the time that an event has for a put against the one that the source has for its version, which was read just now.
pub fn date(change: &mut ObjectChange, modified: Timestamp, now: Timestamp) {
    let in_parts = change.etag.as_deref().is_some_and(is_in_parts);
    if agrees(change.at, modified, in_parts.then_some(now)) {
        // An event tells when an upload in parts was completed; S3 orders its version by when it began.
        change.at_bound = Some(modified).filter(|began| in_parts && began.floor_second() < change.at.floor_second());
        return;
    }
    tracing::warn!(object = change.object, version = change.version, told = %change.at, %modified, "an event dates a put to where the source does not");
    let appeared = if in_parts { now } else { change.at.min(now) };
    change.at = modified;
    change.at_bound = Some(appeared.end_of_second()).filter(|appeared| appeared.floor_second() > modified);
    change.position = Position::timed(0, modified).as_bytes().to_vec();
    // All that is left of the event is that it was a reason to look.
    change.via = "scan".to_owned();
}

/// Why an event cannot be about a version as it is known; nothing where it may be.
pub fn contradiction(change: &ObjectChange, known: &KnownVersion, now: Timestamp) -> Option<String> {
    let in_parts = known.etag.as_deref().is_some_and(is_in_parts);
    let agrees = agrees(change.at, known.at, in_parts.then_some(now));
    (!agrees).then(|| {
        let ObjectChange { object, version, at, .. } = change;
        format!("{object} ({version}) was put at {}, and this tells of {at}", known.at)
    })
}

/// Whether an event may date to `told` what the source dates to `modified`; an upload in parts also to any time up to `until`.
fn agrees(told: Timestamp, modified: Timestamp, until: Option<Timestamp>) -> bool {
    let latest = until.map_or(modified, |until| until.max(modified)).plus(CLOCKS_DIFFER_MAX);
    (modified.floor_second().minus(CLOCKS_DIFFER_MAX)..=latest).contains(&told)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a put that was told to be at a second, and is dated by the source to another, now being 1,000:
    /// time, bound, and whether it still counts as told.
    fn check(etag: &str, told: i64, modified: i64, expected: (i64, Option<i64>, bool)) {
        let seconds = Timestamp::from_seconds;
        let mut change = ObjectChange { etag: Some(etag.to_owned()), ..ObjectChange::put("a", "v", seconds(told)) };
        date(&mut change, seconds(modified), seconds(1_000));
        let found = (change.at.seconds(), change.at_bound.map(Timestamp::seconds), change.via == "event");
        assert_eq!(found, expected, "{etag} told {told}, modified {modified}");
    }

    #[test]
    fn what_was_put_in_one_piece_was_put_when_the_source_says() {
        check("e", 500, 500, (500, None, true));
        check("e", 503, 500, (503, None, true));
        check("e", 440, 500, (440, None, true));
        check("e", 439, 500, (500, None, false));
        check("e", 100, 500, (500, None, false));
        // It may have taken long to come; nobody but the event says so.
        check("e", 700, 500, (500, Some(700), false));
        check("e", 9_000, 500, (500, Some(1_000), false));
    }

    #[test]
    fn what_was_put_in_parts_was_completed_between_its_beginning_and_now() {
        check("e-2", 900, 500, (900, Some(500), true));
        check("e-2", 500, 500, (500, None, true));
        check("e-2", 1_030, 500, (1_030, Some(500), true));
        check("e-2", 100, 500, (500, Some(1_000), false));
        check("e-2", 2_000, 500, (500, Some(1_000), false));
    }
}
