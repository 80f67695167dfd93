//! What all segments and reconciliations of a resource prove together: the restorable window.
//!
//! ```text
//!  earliest            proven                       latest
//!     ├────────────────────┼──────────────────────────┤
//!      nothing that still   all that has arrived is
//!      existed is missing   durable; more may come
//! ```
//!
//! *Proven* moves only when a reconciliation that began there has read the truth at the source and everything it found
//! is durable. *Latest* moves with every segment and heartbeat. Outside of the window a restore is refused; between the
//! two marks it is allowed and says so.

use serde::{Deserialize, Serialize};

use super::link::Link;
use crate::model::{ResourceId, Timestamp};
use crate::vault::record::{Numbered, Record};
use crate::vault::{Vault, VaultError, layout};

/// What one reading of the truth at the source found. Numbered records of a resource; the first is the first full scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// The source's clock when it began: every version that existed before is either listed or was purged.
    pub began: Timestamp,
    /// The source's clock when it had read the last page.
    pub ended: Timestamp,
    /// Versions and markers that were listed.
    pub listed: u64,
    /// Versions that the vault did not know.
    pub found: u64,
    /// Of those the ones that were older than an event may take, of which none had told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untold: u64,
    /// Versions the vault held to be live and that were purged without an event.
    pub purged: u64,
    /// Versions whose content could not be stored.
    pub lost: u64,
    /// Versions that the source lists without a key, and that cannot be kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nameless: u64,
    /// Whether the source was set to send events, where it can say.
    pub events_on: Option<bool>,
    /// Whether the bucket kept versions. Otherwise nothing is proven: what is overwritten between two looks leaves no trace.
    pub versioned: bool,
    /// Of one that proves nothing: when the newest before it began that does. So whoever reads the newest few knows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_began: Option<Timestamp>,
    /// Of a bucket of which nothing but readings tells: by when the next is to have begun. Otherwise the time between them is a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_by: Option<Timestamp>,
    /// Segments that it rests on and that no other named when it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<Link>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it asks about by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Record for Reconciliation {
    const KIND: &'static str = "reconciliation";
}

/// A time in which events were not sent or not received, or of which what was received is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Since when: when events were last known to come, or the last listing of what only listings tell of had begun.
    pub from: Timestamp,
    /// When they came again; open if they have not.
    pub to: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// The segment that is missing from the log, where that is why: then `from` is the earliest time in it, and `to` when
    /// that was noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Link>,
    /// Of a missing segment: when the first listing ended that began after that was noticed, and so had found again what still
    /// existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_again: Option<Timestamp>,
}

impl Gap {
    /// A time in which events were not sent or not received.
    pub fn without_events(from: Timestamp, to: Option<Timestamp>, reason: impl Into<String>) -> Gap {
        Gap { from, to, reason: reason.into(), segment: None, found_again: None }
    }

    /// A segment is missing; `noticed` is when that was noted.
    pub fn missing(segment: &Link, noticed: Option<Timestamp>) -> Gap {
        let reason = format!("segment {segment} of the change log is missing: of what it told only what a listing found again is known");
        Gap { from: segment.first(), to: noticed, reason, segment: Some(*segment), found_again: None }
    }

    /// This gap with what a reading made good, if it is of a missing segment and this reading is the first that did.
    pub fn made_good(&self, reading: &Reconciliation) -> Option<Gap> {
        let noticed = self.to.filter(|_| self.segment.is_some() && self.found_again.is_none())?;
        (reading.versioned && reading.began > noticed).then(|| Gap { found_again: Some(reading.ended), ..self.clone() })
    }
}

impl Record for Gap {
    const KIND: &'static str = "gap";
}

/// The folder names of these records.
pub const RECONCILIATIONS: &str = "reconciliation";
/// See [`RECONCILIATIONS`].
pub const GAPS: &str = "gap";

/// Which seconds of a resource can be restored, and how sure that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first restorable instant: when the first full scan had ended.
    pub earliest: Timestamp,
    /// The last instant up to which nothing that still existed is missing, if it is within the window.
    pub proven: Option<Timestamp>,
    /// The last restorable instant.
    pub latest: Timestamp,
    /// Times without events. A reconciliation that began after a gap has ended has found again what still existed.
    pub gaps: Vec<Gap>,
}

/// How far the clocks of a source's servers may differ from the one that answered the first listing request.
const SKEW_SECONDS: i64 = 1;

impl Reconciliation {
    /// A reading, of a bucket that keeps versions, that found nothing.
    pub fn uneventful(began: Timestamp, ended: Timestamp) -> Reconciliation {
        Reconciliation {
            began,
            ended,
            listed: 0,
            found: 0,
            untold: 0,
            purged: 0,
            lost: 0,
            nameless: 0,
            events_on: None,
            versioned: true,
            proof_began: None,
            next_by: None,
            heads: Vec::new(),
        }
    }

    /// The time between this reading and the next one, if that is a gap.
    pub fn unread(&self, next_began: Timestamp) -> Option<Gap> {
        let is_late = self.next_by.is_some_and(|by| next_began > by);
        is_late.then(|| {
            Gap::without_events(self.began, Some(next_began), "no listing of the bucket ended, and nothing else tells of its changes")
        })
    }

    /// When the newest began, this one or one before it, that proves anything.
    pub fn newest_proof_began(&self) -> Option<Timestamp> {
        if self.versioned { Some(self.began) } else { self.proof_began }
    }

    /// The instant up to which nothing that still existed is missing, if it proves any, or one before it did.
    ///
    /// Listings know whole seconds, so the second in which it began is not proven, nor the one before it.
    pub fn proves(&self) -> Option<Timestamp> {
        self.newest_proof_began().map(|began| Timestamp::from_micros(Timestamp::from_seconds(began.seconds() - SKEW_SECONDS).micros() - 1))
    }
}

/// The window that these facts prove; none before the first full scan has ended. `arrived` is the greatest `latest` of all
/// segments.
pub fn window(arrived: Option<Timestamp>, reconciliations: &[Reconciliation], gaps: &[Gap]) -> Option<Window> {
    let earliest = reconciliations.first()?.ended;
    let proven = reconciliations.iter().filter_map(|reading| proves_with(reading, gaps)).max().filter(|proven| *proven >= earliest);
    // What is missing from the log is a gap in it, and not its end: what followed has arrived.
    let read = reconciliations.iter().filter_map(Reconciliation::proves).max();
    let latest = arrived.max(read).map_or(earliest, |latest| latest.max(earliest));
    Some(Window { earliest, proven, latest, gaps: merge_gaps(gaps) })
}

/// What a reading proves although segments are missing. It took for known what they told, unless it began after that had been
/// noticed.
fn proves_with(reading: &Reconciliation, gaps: &[Gap]) -> Option<Timestamp> {
    let began = reading.newest_proof_began()?;
    let trusted = gaps.iter().filter(|gap| gap.segment.is_some() && gap.to.is_none_or(|noticed| began <= noticed));
    let before = |gap: &Gap| Timestamp::from_micros(gap.from.micros() - 1);
    trusted.map(before).fold(reading.proves(), |proven, before| proven.map(|proven| proven.min(before)))
}

/// One entry per gap: a record that closes a gap, or says when it was made good, repeats its beginning.
fn merge_gaps(gaps: &[Gap]) -> Vec<Gap> {
    let mut merged: Vec<Gap> = Vec::new();
    for gap in gaps {
        match merged.iter_mut().find(|known| known.from == gap.from && known.segment == gap.segment) {
            Some(known) => {
                // Nobody may have listened twice since the same event.
                known.to = known.to.max(gap.to);
                // Of two readings at once the one that ended first made it good.
                known.found_again = known.found_again.into_iter().chain(gap.found_again).min();
            }
            None => merged.push(gap.clone()),
        }
    }
    merged
}

/// Readings of the truth that may have begun last: several go on at the same time, and a later one may end first.
pub const READINGS_AT_ONCE_MAX: usize = 8;

/// Everything of a resource that [`window`] asks for, read from the vault: of its readings the first and the newest, because
/// a bucket that is listed every minute has half a million of them after a year.
///
/// # Errors
/// As [`Vault::list`] and [`Vault::read_record`].
pub async fn facts(vault: &Vault, resource: &ResourceId) -> Result<(Vec<Reconciliation>, Vec<Gap>), VaultError> {
    let reconciliations = vault.outer_records(&layout::state_folder(RECONCILIATIONS, resource), READINGS_AT_ONCE_MAX).await?;
    let gaps = vault.all_records(&layout::state_folder(GAPS, resource)).await?;
    Ok((reconciliations.into_iter().map(|numbered| numbered.record).collect(), gaps.into_iter().map(|numbered| numbered.record).collect()))
}

/// Every gap of a resource.
///
/// # Errors
/// As [`Vault::all_records`].
pub async fn gaps(vault: &Vault, resource: &ResourceId) -> Result<Vec<Gap>, VaultError> {
    let records: Vec<Numbered<Gap>> = vault.all_records(&layout::state_folder(GAPS, resource)).await?;
    Ok(merge_gaps(&records.into_iter().map(|numbered| numbered.record).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reconciled(began: i64, ended: i64) -> Reconciliation {
        let (began, ended) = (Timestamp::from_seconds(began), Timestamp::from_seconds(ended));
        Reconciliation::uneventful(began, ended)
    }

    fn check(arrived: Option<i64>, reconciliations: &[(i64, i64)], expected: Option<(i64, Option<i64>, i64)>) {
        let arrived = arrived.map(Timestamp::from_seconds);
        let reconciliations: Vec<Reconciliation> = reconciliations.iter().map(|&(began, ended)| reconciled(began, ended)).collect();
        let found =
            window(arrived, &reconciliations, &[]).map(|w| (w.earliest.seconds(), w.proven.map(Timestamp::seconds), w.latest.seconds()));
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_restorable_before_the_first_scan_has_ended() {
        check(Some(20), &[], None);
    }

    #[test]
    fn latest_moves_with_segments_and_proven_with_reconciliations_only() {
        check(Some(20), &[(2, 5)], Some((5, None, 20)));
        check(Some(20), &[(2, 5), (15, 16)], Some((5, Some(13), 20)));
        check(None, &[(2, 5), (15, 16)], Some((5, Some(13), 13)));
    }

    #[test]
    fn a_bucket_without_versions_is_never_proven() {
        let seen = Reconciliation { versioned: false, ..reconciled(15, 16) };
        assert_eq!(window(Some(Timestamp::from_seconds(20)), &[seen.clone(), seen], &[]).and_then(|window| window.proven), None);
    }

    #[test]
    fn what_was_proven_stays_so_when_the_bucket_keeps_no_versions_any_more() {
        let first = reconciled(2, 5);
        let proving = reconciled(15, 16);
        // Whoever reads the first and the newest few does not read the one that proved it.
        let later = Reconciliation { versioned: false, proof_began: proving.newest_proof_began(), ..reconciled(25, 26) };
        let proven = |readings: &[Reconciliation]| window(None, readings, &[]).and_then(|window| window.proven).map(Timestamp::seconds);
        assert_eq!(proven(&[first.clone(), proving, later.clone()]), Some(13));
        assert_eq!(proven(&[first.clone(), later]), Some(13));
        assert_eq!(proven(&[first.clone(), Reconciliation { versioned: false, ..reconciled(25, 26) }]), None);
    }

    #[test]
    fn nothing_from_a_missing_segment_on_is_proven_before_a_reading_that_began_after_it_was_noticed() {
        let link: Link = format!("{:06x}{:016x}{:012x}", 0, 8_000_000, 1).parse().unwrap();
        let readings = [reconciled(2, 5), reconciled(15, 16), reconciled(25, 26)];
        let proven = |gaps: &[Gap]| {
            let window = window(Some(Timestamp::from_seconds(30)), &readings, gaps).unwrap();
            (window.proven.map(Timestamp::micros), window.gaps.len())
        };
        assert_eq!(proven(&[]), (Some(23_999_999), 0));
        assert_eq!(proven(&[Gap::missing(&link, None)]), (Some(7_999_999), 1));
        assert_eq!(proven(&[Gap::missing(&link, Some(Timestamp::from_seconds(25)))]), (Some(7_999_999), 1));
        assert_eq!(proven(&[Gap::missing(&link, Some(Timestamp::from_seconds(20)))]), (Some(23_999_999), 1));
    }

    #[test]
    fn a_missing_segment_is_made_good_by_the_first_reading_that_began_after_it_was_noticed() {
        let link: Link = format!("{:06x}{:016x}{:012x}", 0, 8_000_000, 1).parse().unwrap();
        let gap = Gap::missing(&link, Some(Timestamp::from_seconds(20)));
        let made_good = |gap: &Gap, began, ended| gap.made_good(&reconciled(began, ended)).and_then(|gap| gap.found_again);
        assert_eq!(made_good(&gap, 20, 22), None);
        assert_eq!(made_good(&gap, 21, 22), Some(Timestamp::from_seconds(22)));
        assert_eq!(gap.made_good(&Reconciliation { versioned: false, ..reconciled(21, 22) }), None);
        let once = gap.made_good(&reconciled(21, 25)).unwrap();
        assert_eq!(made_good(&once, 26, 27), None, "it was");
        let twice = gap.made_good(&reconciled(22, 24)).unwrap();
        let merged = merge_gaps(&[gap, once, twice]);
        assert_eq!(merged.iter().map(|gap| gap.found_again).collect::<Vec<_>>(), [Some(Timestamp::from_seconds(24))]);
    }

    #[test]
    fn a_gap_is_closed_by_the_record_that_repeats_its_beginning() {
        let (from, to) = (Timestamp::from_seconds(3), Timestamp::from_seconds(9));
        let open = Gap::without_events(from, None, "events are off");
        let closed = Gap { to: Some(to), ..open.clone() };
        assert_eq!(merge_gaps(std::slice::from_ref(&open)), std::slice::from_ref(&open));
        assert_eq!(merge_gaps(&[open, closed.clone()]), std::slice::from_ref(&closed));
        // Whoever listens again, and is gone before anything came, leaves a gap from the same event on.
        let longer = Gap { to: Some(Timestamp::from_seconds(20)), ..closed.clone() };
        assert_eq!(merge_gaps(&[closed, longer.clone()]), [longer]);
    }
}
