//! How a protection is doing: when the truth was last read, how far behind the newest mark is, what went wrong last.
//!
//! ```text
//!  who keeps a bucket ─→ Ledger ─→ troubles ─┐
//!                        readings of the truth ─┼→ health ─→ status, /metrics, /healthz, /readyz
//!                        restorable window ─────┘
//! ```
//!
//! All of it stands in the vault, so that everybody who can read the vault is told the same, whether the process that
//! keeps the bucket can be asked or not. Only troubles are written down, and seldom: that one is over is seen by what
//! has worked since.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline::changelog::coverage::{Gap, RECONCILIATIONS, Reconciliation, Window};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::vault::record::Record;
use pipeline::vault::{Vault, VaultError, layout};
use serde::{Deserialize, Serialize};

use crate::protection::{BucketProtection, Events, Protection, Status};

/// Something that went wrong while a bucket was kept. Numbered records of a resource; the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When it went wrong, the last time.
    pub at: Timestamp,
    /// What went wrong.
    pub part: Part,
    /// Why, in words.
    pub reason: String,
    /// How often, since such a trouble was last written down.
    pub times: u64,
}

impl Record for Trouble {
    const KIND: &'static str = "trouble";
}

/// The folder name of these records.
pub const TROUBLES: &str = "trouble";

/// What can go wrong while a bucket is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// To begin with it at all: its server or its vault does not answer.
    Opening,
    /// Reading the truth.
    Listing,
    /// Its feed of events.
    Feed,
    /// Asking whether it sends events.
    Watch,
    /// Merging and making bases.
    Compaction,
    /// The replication slot of a database.
    Slot,
    /// Reading the schema of a database whose changes a connector tells.
    Schema,
    /// Making a recovery point of a virtual machine.
    Snapshot,
}

impl Part {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Part::Opening => "opening",
            Part::Listing => "listing",
            Part::Feed => "feed",
            Part::Watch => "watch",
            Part::Compaction => "compaction",
            Part::Slot => "slot",
            Part::Schema => "schema",
            Part::Snapshot => "snapshot",
        }
    }
}

/// How often the same trouble is written down at most.
const SAME_AGAIN: Duration = Duration::from_secs(15 * 60);
/// How often another one of the same part is.
const OTHER_AGAIN: Duration = Duration::from_secs(60);

/// Decides which troubles of a bucket are written down: the first at once, then now and then.
#[derive(Debug, Default)]
pub struct Ledger {
    parts: BTreeMap<Part, Noted>,
    last: Option<Trouble>,
}

#[derive(Debug)]
struct Noted {
    at: Timestamp,
    reason: String,
    times: u64,
}

impl Ledger {
    /// Something went wrong. What comes back is to be written down.
    pub fn note(&mut self, part: Part, reason: String, now: Timestamp) -> Option<Trouble> {
        let noted = self.parts.get(&part);
        let times = noted.map_or(0, |noted| noted.times) + 1;
        let trouble = Trouble { at: now, part, reason, times };
        self.last = Some(trouble.clone());
        let wait = |noted: &Noted| if noted.reason == trouble.reason { SAME_AGAIN } else { OTHER_AGAIN };
        let due = noted.is_none_or(|noted| now.since(noted.at) >= wait(noted));
        if due {
            self.parts.insert(part, Noted { at: now, reason: trouble.reason.clone(), times: 0 });
        } else if let Some(noted) = self.parts.get_mut(&part) {
            noted.times = times;
        }
        due.then_some(trouble)
    }

    /// The last one, written down or not.
    pub fn last(&self) -> Option<&Trouble> {
        self.last.as_ref()
    }
}

/// Writes a trouble down.
///
/// # Errors
/// As [`Vault::append_record`].
pub async fn record(vault: &Vault, resource: &ResourceId, trouble: &Trouble) -> Result<(), VaultError> {
    vault.append_record(&layout::state_folder(TROUBLES, resource), trouble).await.map(drop)
}

/// What went wrong last.
///
/// # Errors
/// As [`Vault::newest_record`].
pub async fn newest_trouble(vault: &Vault, resource: &ResourceId) -> Result<Option<Trouble>, VaultError> {
    Ok(vault.newest_record::<Trouble>(&layout::state_folder(TROUBLES, resource)).await?.map(|trouble| trouble.record))
}

/// How a protection is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// The last reading of the truth; none before the first has ended.
    pub listing: Option<Listing>,
    /// How long ago the last restorable instant was, in seconds.
    pub latest_lag_seconds: Option<u64>,
    /// How long ago the last proven instant was, in seconds.
    pub proven_lag_seconds: Option<u64>,
    /// How long ago its feed told something, or that there was nothing, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fed_lag_seconds: Option<u64>,
    /// Whether its feed told something, or that there was nothing, so long ago that it must be at rest.
    pub behind: bool,
    /// Since when events are known to be off.
    pub events_off_since: Option<Timestamp>,
    /// Whether the bucket keeps no versions any more, although it is protected as one that does: what is overwritten between two looks
    /// leaves no trace, and nothing is proven.
    pub versioning_off: bool,
    /// From when on a part of the log is missing that no listing has made good yet.
    pub log_missing_since: Option<Timestamp>,
    /// What went wrong last.
    pub last_trouble: Option<LastTrouble>,
}

/// A reading of the truth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listing {
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How long it took, in seconds.
    pub took_seconds: f64,
    /// Versions that it listed.
    pub listed: u64,
    /// Versions that it showed without a key, and that cannot be kept.
    pub nameless: u64,
    /// Versions that it found although events should have told of them long before.
    pub untold: u64,
    /// When the next is to begin.
    pub due: Timestamp,
    /// Whether that is long ago.
    pub overdue: bool,
}

/// A trouble, and whether it is over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastTrouble {
    /// The trouble.
    #[serde(flatten)]
    pub trouble: Trouble,
    /// Whether the same has worked since, or has not gone wrong again for long.
    pub over: bool,
}

/// What health follows from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// How the bucket is protected.
    pub protection: &'a Protection,
    /// What can be restored of it.
    pub window: Option<&'a Window>,
    /// Up to when its feed is known to have told all: listings find what exists, and say nothing of a feed.
    pub fed: Option<Timestamp>,
    /// The last reading of the truth.
    pub last: Option<&'a Reconciliation>,
    /// What went wrong last.
    pub trouble: Option<&'a Trouble>,
}

/// So long after the last mark of a feed something is wrong: an idle one moves it every fifteen seconds.
const BEHIND_AFTER: Duration = Duration::from_secs(5 * 60);
/// How much later than it is due a listing may begin, beside a tenth of its interval.
const LISTING_SLACK: Duration = Duration::from_secs(60);

/// Draws the conclusions.
pub fn health(facts: &Facts<'_>, now: Timestamp) -> Health {
    let Facts { protection, window, fed, last, trouble } = facts;
    let fed = match protection.bucket() {
        // Of what only listings tell there are no marks.
        Some(bucket) => fed.filter(|_| bucket.events.tells_how_far()),
        None => window.map(|window| window.latest),
    };
    let runs = protection.status == Status::Active;
    let seconds_ago = |at: Timestamp| now.since(at).as_secs();
    let is_list = protection.bucket().is_some_and(|bucket| matches!(bucket.events, Events::List { .. }));
    let is_by_functions = protection.bucket().is_some_and(|bucket| bucket.events.is_by_functions());
    // Of a machine whose points somebody asks for nobody knows when the next is due.
    let behind_after = match protection.machine() {
        Some(machine) => machine.every_seconds.map(|every| Duration::from_secs(every) * 2 + BEHIND_AFTER),
        None => Some(BEHIND_AFTER),
    };
    Health {
        listing: last.zip(protection.bucket()).map(|(last, bucket)| {
            let untold = if is_list { 0 } else { last.untold };
            Listing { untold, ..listing(last, interval(bucket), runs, now) }
        }),
        latest_lag_seconds: window.map(|window| seconds_ago(window.latest)),
        fed_lag_seconds: fed.map(seconds_ago),
        proven_lag_seconds: window.and_then(|window| window.proven).map(seconds_ago),
        // No feed says how far functions are. Of a bucket that is only listed, the listing that is overdue says it.
        behind: runs
            && !is_list
            && !is_by_functions
            && window.is_some_and(|window| behind_after.is_some_and(|after| now.since(fed.unwrap_or(window.earliest)) > after)),
        versioning_off: runs && !protection.is_best_effort() && last.is_some_and(|last| !last.versioned),
        events_off_since: open_gap(*window, |gap| gap.segment.is_none()),
        log_missing_since: open_gap(*window, |gap| gap.segment.is_some()),
        last_trouble: trouble.map(|trouble| LastTrouble { over: is_over(trouble, fed, *last, now), trouble: trouble.clone() }),
    }
}

/// How long from the end of one listing to the beginning of the next.
pub fn interval(bucket: &BucketProtection) -> Duration {
    Duration::from_secs(match bucket.events {
        Events::List { seconds } => seconds,
        _ => bucket.reconcile_seconds,
    })
}

/// How often a bucket is listed of which nothing else tells.
pub fn listed_every(bucket: &BucketProtection) -> Option<Duration> {
    matches!(bucket.events, Events::List { .. }).then(|| interval(bucket))
}

/// When a gap begins that has not ended.
fn open_gap(window: Option<&Window>, is_sought: impl Fn(&Gap) -> bool) -> Option<Timestamp> {
    window?.gaps.iter().find(|gap| gap.to.is_none() && is_sought(gap)).map(|gap| gap.from)
}

fn listing(last: &Reconciliation, every: Duration, runs: bool, now: Timestamp) -> Listing {
    let took = last.ended.since(last.began);
    let due = last.ended.plus(every);
    let late = late_after((last.began, last.ended), every);
    Listing {
        began: last.began,
        ended: last.ended,
        took_seconds: took.as_secs_f64(),
        listed: last.listed,
        nameless: last.nameless,
        untold: last.untold,
        due,
        overdue: runs && now > late,
    }
}

/// After when the next listing is late, behind one that began and ended then.
pub fn late_after((began, ended): (Timestamp, Timestamp), every: Duration) -> Timestamp {
    // One that goes on is not late yet: the last one shows how long they take.
    ended.plus(every).plus(every / 10).plus(ended.since(began).saturating_mul(2)).plus(LISTING_SLACK)
}

fn is_over(trouble: &Trouble, fed: Option<Timestamp>, last: Option<&Reconciliation>, now: Timestamp) -> bool {
    let listed_since = last.is_some_and(|last| last.ended > trouble.at);
    let arrived_since = fed.is_some_and(|fed| fed > trouble.at);
    let quiet = |silence: Duration| now.since(trouble.at) > silence;
    match trouble.part {
        Part::Opening => listed_since || arrived_since,
        Part::Listing => listed_since,
        Part::Feed | Part::Snapshot => arrived_since,
        // These work without a trace; while they do not, they are heard of again and again.
        Part::Watch | Part::Slot | Part::Schema => quiet(2 * SAME_AGAIN),
        Part::Compaction => quiet(Duration::from_secs(2 * 3_600)),
    }
}

impl Health {
    /// Whether changes are known to come in as they should.
    pub fn is_kept(&self) -> bool {
        let is_closed = self.last_trouble.as_ref().is_some_and(|last| !last.over && last.trouble.part == Part::Opening);
        !self.behind && !is_closed && self.listing.as_ref().is_none_or(|listing| !listing.overdue)
    }

    /// What is wrong now, each in a few words; nothing where all is well.
    pub fn complaints(&self, now: Timestamp) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(listing) = self.listing.as_ref().filter(|listing| listing.overdue) {
            let late = now.since(listing.due).as_secs();
            complaints.push(format!("the listing that was due at {} is {late} s late", listing.due));
        }
        if let Some(lag) = self.fed_lag_seconds.or(self.latest_lag_seconds).filter(|_| self.behind) {
            complaints.push(format!("its feed was last known to have told all {lag} s ago, and nothing has arrived since"));
        }
        if let Some(since) = self.events_off_since {
            complaints.push(format!("events are off since {since}: only listings find changes"));
        }
        if let Some(listing) = self.listing.as_ref().filter(|listing| listing.untold > 0) {
            complaints.push(format!(
                "the listing of {} found {} versions of which no event had told: do the bucket's events still reach Hindsight?",
                listing.ended, listing.untold
            ));
        }
        if self.versioning_off {
            complaints.push("versioning is off at the bucket: what is overwritten or deleted between two looks is lost".to_owned());
        }
        if let Some(since) = self.log_missing_since {
            complaints.push(match self.listing {
                Some(_) => format!("a part of the log from {since} on is missing: the next listing finds again what still exists"),
                None => format!("a part of the log from {since} on is missing, and nothing from then on can be restored"),
            });
        }
        if let Some(LastTrouble { trouble, .. }) = self.last_trouble.as_ref().filter(|last| !last.over) {
            complaints.push(format!("{} went wrong at {}: {}", trouble.part.as_str(), trouble.at, trouble.reason));
        }
        complaints
    }
}

/// Reads how a protection is doing from its vault.
///
/// # Errors
/// As [`Vault::newest_record`].
pub async fn read(
    vault: &Vault,
    protection: &Protection,
    window: Option<&Window>,
    fed: Option<Timestamp>,
    now: Timestamp,
) -> Result<Health, VaultError> {
    let resource = &protection.resource;
    let last = vault.newest_record::<Reconciliation>(&layout::state_folder(RECONCILIATIONS, resource)).await?;
    let (last, trouble) = (last.map(|last| last.record), newest_trouble(vault, resource).await?);
    Ok(health(&Facts { protection, window, fed, last: last.as_ref(), trouble: trouble.as_ref() }, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protection::How;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn protection(events: Events) -> Protection {
        protection_of(events, false)
    }

    fn protection_of(events: Events, unversioned: bool) -> Protection {
        Protection {
            resource: ResourceId::bucket("photos").unwrap(),
            since: at(0),
            how: How::Bucket(BucketProtection { events, endpoint: None, acls: true, unversioned, reconcile_seconds: 3_600 }),
            status: Status::Active,
        }
    }

    fn sqs() -> Protection {
        protection(Events::Sqs { url: "https://q".to_owned() })
    }

    fn last(began: i64, ended: i64) -> Reconciliation {
        Reconciliation { listed: 5, ..Reconciliation::uneventful(at(began), at(ended)) }
    }

    fn window(latest: i64) -> Window {
        Window { earliest: at(0), proven: None, latest: at(latest), gaps: Vec::new() }
    }

    #[test]
    fn a_trouble_is_written_down_at_once_and_then_seldom() {
        let mut ledger = Ledger::default();
        let mut note = |reason: &str, second: i64| {
            ledger.note(Part::Listing, reason.to_owned(), at(second)).map(|trouble| (trouble.reason, trouble.times))
        };
        assert_eq!(note("refused", 0), Some(("refused".to_owned(), 1)));
        assert_eq!(note("refused", 5), None);
        assert_eq!(note("refused", 899), None);
        assert_eq!(note("refused", 900), Some(("refused".to_owned(), 3)));
        assert_eq!(note("denied", 930), None, "not more than one a minute, whatever they are");
        assert_eq!(note("denied", 961), Some(("denied".to_owned(), 2)));
    }

    #[test]
    fn a_listing_is_overdue_when_twice_its_own_time_and_some_slack_have_passed() {
        let check = |protection: &Protection, now: i64, expected: bool| {
            let (last, window) = (last(0, 100), window(now));
            let facts = Facts { protection, window: Some(&window), fed: Some(window.latest), last: Some(&last), trouble: None };
            let listing = health(&facts, at(now)).listing.unwrap();
            assert_eq!((listing.overdue, listing.took_seconds), (expected, 100.0), "{now}");
        };
        // Due at 3,700; a tenth of an hour, twice 100 s and a minute later it is late.
        check(&sqs(), 3_701, false);
        check(&sqs(), 4_320, false);
        check(&sqs(), 4_321, true);
        check(&protection(Events::List { seconds: 10 }), 372, true);
        check(&Protection { status: Status::Stopped, ..sqs() }, 9_999, false);
    }

    #[test]
    fn a_time_in_which_nobody_listed_is_a_gap() {
        let next_by = late_after((at(100), at(102)), Duration::from_secs(10));
        let gap = |began: i64| Reconciliation { next_by: Some(next_by), ..last(100, 102) }.unread(at(began)).map(|gap| (gap.from, gap.to));
        // Due at 112; a second, twice 2 s and a minute later it is late.
        assert_eq!(gap(177), None);
        assert_eq!(gap(178), Some((at(100), Some(at(178)))));
        assert_eq!(last(100, 102).unread(at(9_999)), None, "events tell of what happens");
    }

    #[test]
    fn a_feed_at_rest_is_told_by_its_mark() {
        let check = |protection: &Protection, lag: i64, expected: bool| {
            let window = window(1_000);
            let facts = Facts { protection, window: Some(&window), fed: Some(window.latest), last: None, trouble: None };
            assert_eq!(health(&facts, at(1_000 + lag)).behind, expected, "{lag}");
        };
        check(&sqs(), 300, false);
        check(&sqs(), 301, true);
        check(&protection(Events::List { seconds: 600 }), 301, false);
        // Where functions take from the queue, listings move the window.
        check(&protection(Events::Functions { url: "https://q".to_owned() }), 301, false);
    }

    #[test]
    fn versions_of_which_events_should_have_told_are_a_complaint_until_a_listing_finds_none() {
        let check = |protection: &Protection, untold: u64, expected: usize| {
            let (last, window) = (Reconciliation { untold, ..last(100, 101) }, window(105));
            let facts = Facts { protection, window: Some(&window), fed: Some(window.latest), last: Some(&last), trouble: None };
            let complaints = health(&facts, at(110)).complaints(at(110));
            assert_eq!(
                complaints.iter().filter(|complaint| complaint.contains("found 3 versions of which no event had told")).count(),
                expected
            );
        };
        check(&sqs(), 3, 1);
        check(&sqs(), 0, 0);
        check(&protection(Events::List { seconds: 600 }), 3, 0);
    }

    #[test]
    fn a_trouble_is_over_when_the_same_has_worked_since() {
        let check = |part: Part, listed: i64, arrived: i64, now: i64, expected: bool| {
            let trouble = Trouble { at: at(100), part, reason: "r".to_owned(), times: 1 };
            let (protection, last, window) = (sqs(), last(listed, listed), window(arrived));
            let facts = Facts {
                protection: &protection,
                window: Some(&window),
                fed: Some(window.latest),
                last: Some(&last),
                trouble: Some(&trouble),
            };
            assert_eq!(health(&facts, at(now)).last_trouble.unwrap().over, expected, "{part:?}");
        };
        check(Part::Listing, 99, 200, 200, false);
        check(Part::Listing, 101, 0, 200, true);
        check(Part::Feed, 200, 99, 200, false);
        check(Part::Feed, 0, 101, 200, true);
        check(Part::Compaction, 200, 200, 200, false);
        check(Part::Compaction, 0, 0, 9_000, true);
        // A listing finds what exists, and tells nothing of a feed that is at rest.
        let (protection, read, listed) = (sqs(), last(400, 401), window(399));
        let trouble = Trouble { at: at(100), part: Part::Feed, reason: "r".to_owned(), times: 1 };
        let facts = Facts { protection: &protection, window: Some(&listed), fed: Some(at(99)), last: Some(&read), trouble: Some(&trouble) };
        let found = health(&facts, at(410));
        assert_eq!((found.behind, found.last_trouble.unwrap().over), (true, false));
        // What could not be opened is not kept, however lately it was listed.
        let trouble = Trouble { at: at(100), part: Part::Opening, reason: "r".to_owned(), times: 1 };
        let (protection, window) = (sqs(), window(99));
        for (listed, is_kept) in [(99, false), (101, true)] {
            let last = last(listed, listed);
            let facts = Facts {
                protection: &protection,
                window: Some(&window),
                fed: Some(window.latest),
                last: Some(&last),
                trouble: Some(&trouble),
            };
            assert_eq!(health(&facts, at(110)).is_kept(), is_kept);
        }
    }

    #[test]
    fn a_bucket_that_keeps_no_versions_any_more_is_a_complaint_unless_it_was_taken_for_one() {
        let check = |unversioned: bool, versioned: bool, expected: usize| {
            let (protection, last) =
                (protection_of(Events::Sqs { url: "https://q".to_owned() }, unversioned), Reconciliation { versioned, ..last(100, 101) });
            let (window, trouble) = (window(105), None);
            let facts = Facts { protection: &protection, window: Some(&window), fed: Some(window.latest), last: Some(&last), trouble };
            assert_eq!(health(&facts, at(110)).complaints(at(110)).len(), expected, "{unversioned} {versioned}");
        };
        check(false, true, 0);
        check(false, false, 1);
        check(true, false, 0);
    }

    #[test]
    fn a_gap_says_whether_events_are_off_or_a_part_of_the_log_is_missing() {
        let link = "07a1200000000000000007700000000000".parse().unwrap();
        let gap = |segment| Gap { from: at(40), to: None, reason: "r".to_owned(), segment, found_again: None };
        let check = |gap: Gap, expected: &str| {
            let (protection, window) = (sqs(), Window { gaps: vec![gap], ..window(100) });
            let facts = Facts { protection: &protection, window: Some(&window), fed: Some(window.latest), last: None, trouble: None };
            let complaints = health(&facts, at(110)).complaints(at(110));
            assert!(complaints.len() == 1 && complaints[0].starts_with(expected), "{complaints:?}");
        };
        check(gap(None), "events are off since");
        check(gap(Some(link)), "a part of the log from");
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let trouble = Trouble { at: at(100), part: Part::Feed, reason: "refused".to_owned(), times: 1 };
        let (protection, window) = (sqs(), window(50));
        let facts = Facts { protection: &protection, window: Some(&window), fed: Some(window.latest), last: None, trouble: Some(&trouble) };
        let complaints = health(&facts, at(400)).complaints(at(400));
        assert_eq!(
            complaints,
            [
                "its feed was last known to have told all 350 s ago, and nothing has arrived since",
                "feed went wrong at 1970-01-01T00:01:40Z: refused"
            ]
        );
    }
}
