//! What a place holds now beside what a bucket held at an instant: whether a restore is what it should be.
//!
//! ```text
//!  hash bucket by hash bucket:   fold at T ─→ objects ─┬→ there: compare, several at a time ─→ changed, or the same
//!                                survey of the place ──┴→ not there: removed
//!                                                      └→ there and not in the fold: added
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use pipeline::fold::Uncertain;
use pipeline::fold::object::Keep;
use pipeline::model::key::{bucket_of, khash};
use pipeline::replay::ReplayPlan;
use pipeline::replay::run::Surveys;
use pipeline::target::{Aspect, Comparing, Comparison, ExistingObject, TargetError, WantedObject};
use pipeline::vault::Vault;
use pipeline::view::ObjectVersion;
use serde::Serialize;

use super::{Change, DiffReport, with_doubts};
use crate::browse::{BrowseError, State};

/// Objects compared at the same time.
const COMPARED_AT_ONCE: usize = 32;
/// Objects that are gathered before they are compared.
const GATHERED_MAX: usize = 1_024;

/// A place, and what of it is compared.
pub struct Place {
    /// The place.
    pub target: Arc<dyn Comparing>,
    /// What stands before every key there.
    pub prefix: String,
    /// Whether ACLs are compared.
    pub acls: bool,
}

/// One object that is not the same there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlaceDifference {
    /// Its key in the bucket.
    pub object: String,
    /// `removed` is not there, `added` only there.
    pub change: Change,
    /// What of it differs.
    pub differs: Vec<Aspect>,
    /// Of what nobody can say whether it differs.
    pub unknown: Vec<Aspect>,
    /// As it was in the bucket; none if it did not exist then.
    pub before: Option<ObjectVersion>,
    /// As it is there; none if it is not.
    pub after: Option<ExistingObject>,
}

/// Walks through everything that is not the same at a place as it was in the bucket, of keys that begin with `prefix`.
/// Returns the counts, and every version of which nobody can say whether it was there, once, with the reason.
///
/// # Errors
/// [`BrowseError`], [`TargetError`], and what `each` says.
pub async fn diff_against<E: From<BrowseError> + From<TargetError>>(
    vault: &Vault,
    plan: &ReplayPlan,
    prefix: &str,
    place: &Place,
    mut each: impl FnMut(PlaceDifference) -> Result<(), E>,
) -> Result<(DiffReport, Vec<Uncertain>), E> {
    place.target.open().await?;
    let surveys = Surveys::of(plan);
    let state = State::with_bits(vault, plan.inputs.clone(), plan.cut(), Keep::Current, prefix, surveys.bits_min()).await?;
    let (mut report, mut doubts) = (DiffReport::default(), Vec::new());
    for pass in state.passes() {
        let loose = state.load(pass.clone()).await?;
        for buckets in surveys.parts(state.bits(), pass) {
            let mut there = survey(place, prefix, state.bits(), buckets.clone()).await?;
            let mut uncertain = BTreeSet::new();
            for bucket in buckets {
                let mut objects = state.objects(&loose, bucket);
                let mut gathered = Vec::new();
                loop {
                    let next = objects.next().await?.and_then(|mut versions| versions.pop());
                    let is_end = next.is_none();
                    gathered.extend(next.map(|version| {
                        let existing = there.remove(&version.object);
                        (version, existing)
                    }));
                    if is_end || gathered.len() == GATHERED_MAX {
                        for difference in compare(place, std::mem::take(&mut gathered), &mut report).await? {
                            each(difference)?;
                        }
                    }
                    if is_end {
                        break;
                    }
                }
                uncertain.extend(objects.uncertain.iter().map(|uncertain| uncertain.object.clone()));
                doubts.append(&mut objects.uncertain);
            }
            for (object, existing) in there {
                // It may have existed: then it is not one too many.
                if !uncertain.contains(&object) {
                    each(only_there(object, existing, &mut report))?;
                }
            }
        }
    }
    Ok(with_doubts(report, doubts))
}

/// What the place holds of some hash buckets, by the keys of the bucket that was backed up.
async fn survey(
    place: &Place,
    prefix: &str,
    bits: u32,
    buckets: std::ops::Range<u32>,
) -> Result<BTreeMap<String, ExistingObject>, TargetError> {
    let wanted = |object: &str| {
        let key = object.strip_prefix(&place.prefix).filter(|key| key.starts_with(prefix));
        key.is_some_and(|key| buckets.contains(&bucket_of(khash(key), bits)))
    };
    let found = place.target.survey(&wanted).await?.objects;
    let own = |object: String| object.strip_prefix(&place.prefix).map(str::to_owned).unwrap_or(object);
    Ok(found.into_iter().map(|(object, existing)| (own(object), existing)).collect())
}

async fn compare(
    place: &Place,
    gathered: Vec<(ObjectVersion, Option<ExistingObject>)>,
    report: &mut DiffReport,
) -> Result<Vec<PlaceDifference>, TargetError> {
    let compared: Vec<_> = futures::stream::iter(gathered)
        .map(|(version, existing)| async move {
            let Some(there) = &existing else { return Ok((version, existing, None)) };
            let wanted = WantedObject::of(&version, format!("{}{}", place.prefix, version.object), place.acls);
            let comparison = place.target.compare(&wanted, there).await?;
            Ok::<_, TargetError>((version, existing, Some(comparison)))
        })
        .buffered(COMPARED_AT_ONCE)
        .try_collect()
        .await?;
    Ok(compared.into_iter().filter_map(|(version, existing, comparison)| difference(version, existing, comparison, report)).collect())
}

fn difference(
    version: ObjectVersion,
    existing: Option<ExistingObject>,
    comparison: Option<Comparison>,
    report: &mut DiffReport,
) -> Option<PlaceDifference> {
    let change = match &comparison {
        None => Change::Removed,
        Some(comparison) => {
            report.unknown += u64::from(!comparison.unknown.is_empty());
            if comparison.is_same() {
                report.same += 1;
                return None;
            }
            Change::Changed
        }
    };
    let comparison = comparison.unwrap_or_default();
    report.count(change);
    if change == Change::Removed || comparison.differs.contains(&Aspect::Content) {
        report.bytes_removed += version.size;
        report.bytes_added += existing.as_ref().map_or(0, |existing| existing.size);
    }
    let Comparison { differs, unknown } = comparison;
    Some(PlaceDifference { object: version.object.clone(), change, differs, unknown, before: Some(version), after: existing })
}

fn only_there(object: String, existing: ExistingObject, report: &mut DiffReport) -> PlaceDifference {
    report.count(Change::Added);
    report.bytes_added += existing.size;
    PlaceDifference { object, change: Change::Added, differs: Vec::new(), unknown: Vec::new(), before: None, after: Some(existing) }
}
