//! How a target is surveyed, so that what it holds fits into memory.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::plan::ReplayPlan;
use crate::base::inputs::Inputs;
use crate::model::key::{bucket_of, khash};
use crate::target::ExistingObject;

/// Objects surveyed at the target at the same time, roughly: what bounds the memory of a survey.
const SURVEYED_OBJECTS_MAX: u64 = 2_000_000;

/// How a target is surveyed, so that what it holds of so many hash buckets fits into memory.
#[derive(Debug, Clone, Copy)]
pub struct Surveys {
    /// Objects in all, roughly.
    rows: u64,
}

impl Surveys {
    /// Those that a plan takes.
    pub fn of(plan: &ReplayPlan) -> Surveys {
        let Inputs { base, merges, .. } = &plan.inputs;
        let in_base: u64 = base.iter().flat_map(|base| &base.files).map(|file| file.rows).sum();
        // Without a base, every object was put.
        let in_merges: u64 = merges.iter().flat_map(|merge| &merge.files).map(|file| file.rows).sum();
        Surveys { rows: in_base.max(in_merges) }
    }

    /// In `2^bits` hash buckets at least. No more than that takes: a file of fewer is read once for each of them.
    pub fn bits_min(&self) -> u32 {
        (self.rows / SURVEYED_OBJECTS_MAX + 1).next_power_of_two().ilog2()
    }

    /// A range of the buckets, of `2^bits`, in parts that are surveyed together.
    pub fn parts(&self, bits: u32, buckets: Range<u32>) -> impl Iterator<Item = Range<u32>> {
        let per_bucket = (self.rows >> bits).max(1);
        let step = usize::try_from(SURVEYED_OBJECTS_MAX / per_bucket).unwrap_or(usize::MAX).clamp(1, 1 << bits);
        buckets.clone().step_by(step).map(move |from| from..from.saturating_add(step as u32).min(buckets.end))
    }
}

/// What a target holds, by hash bucket of the keys at the source.
pub(super) fn split_by_bucket(
    existing: BTreeMap<String, ExistingObject>,
    bits: u32,
    prefix: &str,
) -> BTreeMap<u32, BTreeMap<String, ExistingObject>> {
    let mut split: BTreeMap<u32, BTreeMap<String, ExistingObject>> = BTreeMap::new();
    for (object, found) in existing {
        let source_key = object.strip_prefix(prefix).unwrap_or(&object);
        split.entry(bucket_of(khash(source_key), bits)).or_default().insert(object, found);
    }
    split
}
