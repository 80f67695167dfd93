//! Which instant to restore, from what, and how sure that is; or why not.

use serde::{Deserialize, Serialize};

use crate::base::inputs::{Inputs, Inventory};
use crate::changelog::coverage::{Gap, Window};
use crate::fold::Cut;
use crate::model::{ResourceId, Timestamp};

/// What a restore is asked to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestorePoint {
    /// The state at this instant, changes at it included.
    Time(Timestamp),
    /// The last restorable instant.
    Latest,
}

/// How sure the user wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Only what is proven: nothing that still existed may be missing.
    Proven,
    /// Everything that has arrived.
    Arrived,
}

/// A restore that can be carried out.
#[derive(Debug, Clone)]
pub struct ReplayPlan {
    /// What is restored.
    pub resource: ResourceId,
    /// The instant.
    pub to: Timestamp,
    /// Whether everything up to it is proven to be in the vault.
    pub proven: bool,
    /// The window at the time of planning.
    pub window: Window,
    /// Times without events, or of missing segments, that reach before the instant and that no reconciliation has closed.
    pub open_gaps: Vec<Gap>,
    /// What is read.
    pub inputs: Inputs,
    /// What would be read for all that is known up to now.
    pub inputs_now: Inputs,
}

impl ReplayPlan {
    /// Where the fold ends.
    pub fn cut(&self) -> Cut {
        Cut::At(self.to)
    }
}

/// Why an instant cannot be restored; each names the nearest that can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The first full scan has not ended.
    #[error(
        "the vault does not have {resource} whole yet: its first full backup has not completed; the window opens when it has, and `hindsight serve` makes it"
    )]
    NotYetWhole {
        /// The bucket that was asked for.
        resource: ResourceId,
    },
    /// Before the window.
    #[error("the vault does not have {resource} as of {to}: the earliest restorable time is {earliest}")]
    TooEarly {
        /// The bucket that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// The nearest instant that can be restored.
        earliest: Timestamp,
    },
    /// Behind the window.
    #[error("the vault does not have {resource} as of {to}: the log is complete only up to {latest}{}; write `latest` for that", missing_too(*missing))]
    TooLate {
        /// The bucket that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// The nearest instant that can be restored.
        latest: Timestamp,
        /// How many segments are missing of which no listing has made good what they told.
        missing: usize,
    },
    /// Within the window, but not proven.
    #[error("cannot restore {resource} to {to} with certainty: {}; restore without --proven, or reconcile first", proven_up_to(*proven))]
    NotProven {
        /// The bucket that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// The last proven instant.
        proven: Option<Timestamp>,
    },
}

fn missing_too(missing: usize) -> String {
    match missing {
        0 => String::new(),
        1 => ", and a segment of it is missing".to_owned(),
        more => format!(", and {more} segments of it are missing"),
    }
}

fn proven_up_to(proven: Option<Timestamp>) -> String {
    proven.map_or_else(|| "nothing is proven yet".to_owned(), |proven| format!("proven only up to {proven}"))
}

/// Plans a restore from what there is.
///
/// # Errors
/// [`PlanError`] says why not, and which instants can be restored.
pub fn plan(inventory: &Inventory, point: RestorePoint, certainty: Certainty) -> Result<ReplayPlan, PlanError> {
    let resource = inventory.resource.clone();
    let Some(window) = inventory.window() else {
        return Err(PlanError::NotYetWhole { resource });
    };
    let latest = match certainty {
        Certainty::Proven => window.proven.unwrap_or(window.latest),
        Certainty::Arrived => window.latest,
    };
    let to = match point {
        RestorePoint::Time(to) => to,
        RestorePoint::Latest => latest,
    };
    if to < window.earliest {
        return Err(PlanError::TooEarly { resource, to, earliest: window.earliest });
    }
    if to > window.latest {
        let missing = window.gaps.iter().filter(|gap| gap.segment.is_some() && gap.found_again.is_none()).count();
        return Err(PlanError::TooLate { resource, to, latest: window.latest, missing });
    }
    // Of a bucket that keeps no versions nothing is ever proven.
    let last = inventory.reconciliations.last();
    let read_since = |ended: Timestamp| last.is_some_and(|last| !last.versioned && ended < last.began);
    let healed = |gap: &Gap| match gap.segment {
        // All that existed is known from the end of the listing on that found it again. What was gone before that the segment
        // alone may have told of, whatever is proven now.
        Some(_) => gap.found_again.is_some_and(|found| found <= to),
        // Behind it all that existed is known once a listing began after it. What was put and removed within it left no trace.
        None => gap.to.is_some_and(|ended| ended < to && (window.proven.is_some_and(|proven| ended <= proven) || read_since(ended))),
    };
    let open_gaps: Vec<Gap> = window.gaps.iter().filter(|gap| gap.from <= to && !healed(gap)).cloned().collect();
    let proven = open_gaps.is_empty() && window.proven.is_some_and(|proven| to <= proven);
    if certainty == Certainty::Proven && !proven {
        return Err(PlanError::NotProven { resource, to, proven: window.proven });
    }
    Ok(ReplayPlan {
        resource,
        to,
        proven,
        open_gaps,
        inputs: inventory.inputs(Cut::At(to)),
        inputs_now: inventory.inputs(Cut::At(Timestamp::MAX)),
        window,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::changelog::coverage::Reconciliation;
    use crate::changelog::segment::{Segment, SegmentName};

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    /// A window of 5 to `proven`, by reconciliations.
    fn inventory(reconciled: &[(i64, i64)]) -> Inventory {
        let reconciliation = |&(began, ended): &(i64, i64)| Reconciliation::uneventful(seconds(began), seconds(ended));
        Inventory {
            resource: ResourceId::bucket("photos").unwrap(),
            segments: Vec::new(),
            manifest: None,
            covers: BTreeMap::new(),
            reconciliations: reconciled.iter().map(reconciliation).collect(),
            gaps: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn check(reconciled: &[(i64, i64)], to: i64, certainty: Certainty, expected: Result<bool, &str>) {
        let planned = plan(&inventory(reconciled), RestorePoint::Time(seconds(to)), certainty);
        match (planned, expected) {
            (Ok(plan), Ok(proven)) => assert_eq!(plan.proven, proven),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (planned, expected) => panic!("{planned:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn outside_of_the_window_the_nearest_valid_time_is_named() {
        check(&[], 7, Certainty::Arrived, Err("first full backup"));
        check(&[(1, 5), (9, 10)], 4, Certainty::Arrived, Err("earliest restorable time is 1970-01-01T00:00:05Z"));
        check(&[(1, 5), (9, 10)], 8, Certainty::Arrived, Err("complete only up to 1970-01-01T00:00:07.999999Z"));
    }

    #[test]
    fn a_missing_segment_is_a_gap_from_its_first_time_on_and_nothing_behind_that_is_proven() {
        let link = format!("{:06x}{:016x}{:012x}", 0, 6_000_000, 1).parse().unwrap();
        let name = format!("log/v1/res=bucket-photos/date=1970-01-01/hour=00/{0:020}-{0:020}-{0:020}-{1:032}.parquet", 10_000_000, 0);
        let segment = Segment { name: SegmentName::parse(&name).unwrap(), path: name, size: 0 };
        let known = Inventory { missing: vec![link], segments: vec![segment], ..inventory(&[(1, 5), (9, 10)]) };
        let gaps = |to, certainty| plan(&known, RestorePoint::Time(seconds(to)), certainty).map(|plan| plan.open_gaps.len());
        assert_eq!(gaps(5, Certainty::Proven), Ok(0));
        assert_eq!(gaps(7, Certainty::Arrived), Ok(1));
        assert!(matches!(gaps(7, Certainty::Proven), Err(PlanError::NotProven { .. })));
        let late = gaps(11, Certainty::Arrived).map_err(|error| error.to_string());
        assert!(late.is_err_and(|told| told.contains("00:00:10Z, and a segment of it is missing")));
    }

    #[test]
    fn what_a_missing_segment_alone_told_of_is_not_known_before_the_listing_that_followed() {
        let link = format!("{:06x}{:016x}{:012x}", 0, 6_000_000, 1).parse().unwrap();
        let readings = inventory(&[(1, 5), (9, 10), (21, 25), (31, 32)]);
        let noticed = Gap::missing(&link, Some(seconds(20)));
        let made_good = readings.reconciliations.iter().find_map(|reading| noticed.made_good(reading)).unwrap();
        let known = Inventory { gaps: vec![noticed, made_good], ..readings };
        let planned = |to| {
            let plan = plan(&known, RestorePoint::Time(seconds(to)), Certainty::Arrived).unwrap();
            (plan.open_gaps.len(), plan.proven)
        };
        assert_eq!([5, 6, 19, 24, 25, 29].map(planned), [(0, true), (1, false), (1, false), (1, false), (0, true), (0, true)]);
        let proven = plan(&known, RestorePoint::Time(seconds(10)), Certainty::Proven);
        assert!(matches!(proven, Err(PlanError::NotProven { .. })));
    }

    #[test]
    fn a_time_without_events_is_named_within_it_for_ever_and_behind_it_until_a_listing_began_after_it() {
        let from = |gap: &Gap| gap.from.seconds();
        let named = |readings: &[(i64, i64)], to| {
            let gap = Gap::without_events(seconds(10), Some(seconds(20)), "events were turned off at the bucket");
            let known = Inventory { gaps: vec![gap], ..inventory(readings) };
            let plan = plan(&known, RestorePoint::Time(seconds(to)), Certainty::Arrived).unwrap();
            assert!(plan.open_gaps.is_empty() || !plan.proven, "what is missing in a gap is proven by nothing");
            plan.open_gaps.iter().map(from).collect::<Vec<_>>()
        };
        let (none, gap) = (Vec::new(), vec![10]);
        let meanwhile = [(1, 5), (21, 25)];
        assert_eq!([9, 10, 19].map(|to| named(&meanwhile, to)), [none.clone(), gap.clone(), gap.clone()]);
        let since = [(1, 5), (25, 30), (35, 36)];
        assert_eq!([9, 10, 20, 21, 30].map(|to| named(&since, to)), [none.clone(), gap.clone(), gap, none.clone(), none]);
    }

    #[test]
    fn between_the_marks_a_restore_is_allowed_unless_proof_is_asked_for() {
        check(&[(1, 5)], 5, Certainty::Arrived, Ok(false));
        check(&[(1, 5)], 5, Certainty::Proven, Err("nothing is proven yet"));
        check(&[(1, 5), (9, 10)], 7, Certainty::Proven, Ok(true));
    }
}
