//! What a compaction should do. Pure: data in, data out, printed by a dry run.

use std::time::Duration;

use super::inputs::Inventory;
use crate::changelog::coverage::Window;
use crate::changelog::segment::Segment;
use crate::model::{ResourceKind, Timestamp};

/// When to merge and when to make a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A base is made when the newest is older than this.
    pub base_every: Duration,
    /// Deletes stay in a base for so long after they happened.
    pub redelivery: Duration,
    /// What was purged stays in a base for so long beside its purge: a listing may yet show that the purge never happened.
    pub doubt: Duration,
    /// Make a base now, whatever the age of the newest.
    pub base_now: bool,
    /// An hour of arrival is sealed so long after it: nobody writes into it any more. Far more than
    /// [`APPEND_TIME_MAX`] and what the clocks of writers differ by.
    pub seal_after: Duration,
    /// The files of a base grow to about this size before the number of its buckets doubles.
    pub bucket_bytes: u64,
}

/// The longest an event may be delivered again: SQS keeps 14 days, and a replay of an archive is asked for by name.
pub const REDELIVERY: Duration = Duration::from_secs(14 * 86_400);
/// Several times as long as it is from one reading of the truth to the next.
pub const DOUBT: Duration = Duration::from_secs(3 * 86_400);
/// One base a day.
pub const BASE_EVERY: Duration = Duration::from_secs(86_400);
/// A writer whose segment took longer than this to write makes it anew, under the hour in which that is.
pub const APPEND_TIME_MAX: Duration = Duration::from_secs(3_600);
/// See [`Policy::seal_after`].
pub const SEAL_AFTER: Duration = Duration::from_secs(48 * 3_600);
/// See [`Policy::bucket_bytes`].
pub const BUCKET_BYTES: u64 = 256 << 20;
/// How far behind what is sealed a compaction looks for segments that came late all the same.
pub const LATE: Duration = Duration::from_secs(5 * 86_400);

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            base_every: BASE_EVERY,
            redelivery: REDELIVERY,
            doubt: DOUBT,
            base_now: false,
            seal_after: SEAL_AFTER,
            bucket_bytes: BUCKET_BYTES,
        }
    }
}

/// What a compaction will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactionPlan {
    /// Segments to merge, each list into one merge.
    pub merges: Vec<Vec<Segment>>,
    /// The cut of the base to make afterwards.
    pub base: Option<BaseCut>,
    /// The hour up to which the log can be sealed once the merges are there.
    pub sealed: Option<Timestamp>,
}

/// Which base to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseCut {
    /// The instant it is the state of.
    pub cut: Timestamp,
    /// Deletes before this are left out.
    pub tombstones_after: Timestamp,
    /// What was purged before this is left out, and only its purge stays.
    pub purged_after: Timestamp,
}

/// A merge takes in at most this much, so that its rows fit into memory.
const MERGE_BYTES_MAX: u64 = 16 << 20;
/// And at most this many segments.
const MERGE_SEGMENTS_MAX: usize = 4_096;
/// Fewer loose segments than this are left to the next time.
const MERGE_SEGMENTS_MIN: usize = 2;

/// What to do with what there is, at `now`.
pub fn plan(inventory: &Inventory, now: Timestamp, policy: Policy) -> CompactionPlan {
    let base = match inventory.resource.kind() {
        ResourceKind::Bucket => match inventory.window() {
            Some(window) => base(inventory, &window, now, policy),
            None => return CompactionPlan::default(),
        },
        // Their logs are only merged.
        ResourceKind::Database | ResourceKind::Machine => None,
    };
    let lists = || inventory.merges().iter().map(|merge| &merge.covers);
    let loose: Vec<&Segment> = inventory.segments.iter().filter(|segment| !inventory.is_covered(lists(), &segment.path)).collect();
    let late = loose.iter().any(|segment| Some(segment.name.arrived) < inventory.sealed());
    let mut merges: Vec<Vec<Segment>> = Vec::new();
    if loose.len() >= MERGE_SEGMENTS_MIN || late {
        let mut wave: Vec<Segment> = Vec::new();
        let mut bytes = 0;
        for &segment in &loose {
            if !wave.is_empty() && (bytes + segment.size > MERGE_BYTES_MAX || wave.len() == MERGE_SEGMENTS_MAX) {
                merges.push(std::mem::take(&mut wave));
                bytes = 0;
            }
            bytes += segment.size;
            wave.push(segment.clone());
        }
        merges.push(wave);
    }
    let left = loose.into_iter().filter(|_| merges.is_empty());
    let sealed = seal(inventory, left, now, policy);
    CompactionPlan { merges, base, sealed }
}

/// The base that is due.
fn base(inventory: &Inventory, window: &Window, now: Timestamp, policy: Policy) -> Option<BaseCut> {
    // Whole seconds, as people ask for them; what arrives late at an older second is still in the log after the base.
    let cut = Timestamp::from_micros(window.latest.floor_second().micros() - 1).max(window.earliest);
    let due =
        inventory.bases().last().is_none_or(|newest| policy.base_now && cut > newest.cut || cut.since(newest.cut) >= policy.base_every);
    let (tombstones_after, purged_after) = (cut.min(now).minus(policy.redelivery), cut.min(now).minus(policy.doubt));
    due.then_some(BaseCut { cut, tombstones_after, purged_after })
}

/// The hour up to which the log can be sealed, where that is more than is sealed already. By the clocks of the writers and not
/// only by ours, so that a wrong clock of whoever compacts seals nothing that is still written to.
fn seal<'a>(inventory: &Inventory, loose: impl Iterator<Item = &'a Segment>, now: Timestamp, policy: Policy) -> Option<Timestamp> {
    let newest = inventory.segments.iter().map(|segment| segment.name.arrived).max()?;
    let until = now.min(newest).minus(policy.seal_after).floor_hour();
    let until = loose.map(|segment| segment.name.arrived).fold(until, Timestamp::min);
    (Some(until) > inventory.sealed()).then_some(until)
}
