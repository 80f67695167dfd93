//! Carrying out a restore: bucket by bucket, object by object, with bounded memory.
//!
//! ```text
//!  for a range of hash buckets: survey the target ─┐
//!    for each bucket: fold → versions → select ────┴→ decide → write, several at a time → report
//! ```
//!
//! Objects are independent of each other, and writing one twice is writing it once. So a restore that was killed is
//! simply run again: what is there already as wanted is found to be the same.

mod object;
mod outcome;
mod reading;
mod surveys;
mod uncertain;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use fail::fail_point;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use self::object::group;
use self::outcome::{Outcome, Teller};
use self::reading::Outcomes;
pub use self::surveys::Surveys;
use self::surveys::split_by_bucket;
use self::uncertain::Doubts;
use super::plan::ReplayPlan;
use super::select::{Selection, SelectionError, Selector, Versions};
use super::unmatched::Unmatched;
use crate::base::folding::{Folding, Loose};
use crate::base::inputs::Inputs;
use crate::fold::object::Keep;
use crate::fold::{Cut, Uncertain};
use crate::model::change::ChangeBatch;
use crate::model::key::{bucket_of, khash};
use crate::model::{Clock, ResourceKind, Timestamp};
use crate::target::decide::{Case, decide};
use crate::target::report::{ReportRow, RestoreReport};
use crate::target::{Action, ExistingObject, Mode, Occupied, Reason, Survey, Target, TargetError, holds_vault};
use crate::vault::{Vault, VaultError};
use crate::view::{ViewError, versions};

/// How a restore is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestoreOptions {
    /// Which objects and versions.
    pub selection: Selection,
    /// What to do about objects that the target holds. It must be named where the target holds any.
    pub mode: Option<Mode>,
    /// It goes on with one that broke off: what that may have left unfinished is written again, whatever the mode leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumes: bool,
    /// Whether ACLs are restored.
    pub acls: bool,
    /// Put before every key.
    pub prefix: String,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Objects written at the same time.
pub const WRITES_AT_ONCE: usize = 64;

/// Why a restore ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The vault cannot be read, or is damaged.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What the vault says of an object cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The target cannot be restored to.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The selection cannot be read.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The target holds objects, and nobody said what to do about them.
    #[error(
        "{target} is not empty: say what to do about objects of the same name with --mode skip (leave them), \
         overwrite (replace what differs) or exact (also remove what did not exist then){hint}"
    )]
    ModeNeeded {
        /// The target.
        target: String,
        /// What else may be meant; it goes on with the sentence.
        hint: String,
    },
    /// Of several versions it would keep one.
    #[error(
        "{target} keeps no versions: of several versions of an object only the newest would stay; restore the current ones, or \
         choose a bucket with versioning"
    )]
    KeepsNoVersions {
        /// The target.
        target: String,
    },
}

/// Hears of a restore while it runs.
pub trait Progress: Send + Sync {
    /// How many hash buckets there are.
    fn total(&self, buckets: u64);
    /// One bucket is done.
    fn bucket_done(&self);
    /// One object was dealt with.
    fn object(&self, row: &ReportRow);
}

/// Nobody listens.
pub struct Quiet;

impl Progress for Quiet {
    fn total(&self, _: u64) {}
    fn bucket_done(&self) {}
    fn object(&self, _: &ReportRow) {}
}

/// Carries out a restore; its report says what became of every object.
///
/// # Errors
/// [`RestoreError`] where no object could have been restored right: a damaged vault, a target that refuses. What
/// concerns single objects stands in the report.
pub async fn run(
    vault: &Vault,
    plan: &ReplayPlan,
    options: &RestoreOptions,
    target: &Arc<dyn Target>,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<RestoreReport, RestoreError> {
    let selector = Selector::new(&options.selection)?;
    let mut unmatched = Unmatched::of(&options.selection)?;
    let occupied = target.open().await?;
    let mode = match (options.mode, occupied) {
        (Some(mode), _) => mode,
        (None, Occupied::Empty) => Mode::Skip,
        (None, Occupied::Holds) => return Err(RestoreError::ModeNeeded { target: target.name(), hint: String::new() }),
    };
    if !matches!(options.selection.versions, Versions::Current | Versions::Last(1)) && !target.keeps_versions() {
        return Err(RestoreError::KeepsNoVersions { target: target.name() });
    }
    let mut report = RestoreReport::begin(plan.resource.to_string(), target.name(), plan.to, mode, clock.now());
    report.dry_run = options.dry_run;
    report.proven = plan.proven;
    report.selective = !options.selection.is_everything();
    for gap in &plan.open_gaps {
        let to = gap.to.map_or_else(|| "now".to_owned(), |to| to.to_string());
        report.gaps.push(format!("{} to {to}: {}", gap.from, gap.reason));
    }

    let surveys = Surveys::of(plan);
    let folding = Folding::new(vault, plan.inputs.clone(), plan.cut(), surveys.bits_min()).await?;
    let blind = !plan.open_gaps.is_empty();
    // A prefix or a glob that is misspelled selects nothing of the vault, and perhaps a lot of the target.
    let selects_by_pattern = !options.selection.prefixes.is_empty() || !options.selection.globs.is_empty();
    let unknown = mode == Mode::Exact
        && selects_by_pattern
        && !knows_any(vault, &plan.inputs, plan.cut(), &selector).await?
        && !knows_any(vault, &plan.inputs_now, Cut::At(Timestamp::MAX), &selector).await?;
    let work = Work {
        vault,
        target,
        options,
        selector: &selector,
        mode,
        folding: &folding,
        clock,
        occupied,
        blind,
        unknown,
        outcomes: Outcomes::default(),
    };
    progress.total(1 << folding.bits);
    for pass in folding.passes() {
        let loose = folding.load(vault, pass.clone()).await?;
        for buckets in surveys.parts(folding.bits, pass) {
            let existing = work.survey(buckets.clone()).await?;
            let mut existing = split_by_bucket(existing, folding.bits, &options.prefix);
            for bucket in buckets {
                let there = existing.remove(&bucket).unwrap_or_default();
                report.add(work.bucket(&loose, bucket, there, &mut unmatched, progress).await?);
                progress.bucket_done();
            }
        }
    }
    report.unmatched = unmatched.names().collect();
    report.missing_keys = unmatched.keys();
    fail_point!("restore::before-report");
    report.finish(clock.now());
    Ok(report)
}

/// Whether any object is selected that was there at this cut.
async fn knows_any(vault: &Vault, inputs: &Inputs, cut: Cut, selector: &Selector) -> Result<bool, RestoreError> {
    let folding = Folding::new(vault, inputs.clone(), cut, 0).await?;
    for pass in folding.passes() {
        let loose = folding.load(vault, pass.clone()).await?;
        for bucket in folding.occupied(&loose, pass) {
            // The newest of its versions and markers tells of each object that it was there.
            let newest = folding.versions(vault, &loose, bucket, Keep::Last(1), &selector.key_range());
            let mut newest = newest.expect("the newest versions at an instant are asked for");
            while let Some(found) = newest.next().await? {
                if found.iter().any(|(object, _)| !object.is_empty() && selector.admits_key(object)) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

struct Work<'a> {
    vault: &'a Vault,
    target: &'a Arc<dyn Target>,
    options: &'a RestoreOptions,
    selector: &'a Selector,
    mode: Mode,
    folding: &'a Folding,
    clock: &'a dyn Clock,
    occupied: Occupied,
    /// A gap lies before that time: nobody can say of any object that it did not exist.
    blind: bool,
    /// The vault knows of nothing that was selected: so nothing is removed.
    unknown: bool,
    outcomes: Outcomes,
}

impl Work<'_> {
    /// What the target holds of some buckets' objects, as far as they are selected.
    async fn survey(&self, buckets: Range<u32>) -> Result<BTreeMap<String, ExistingObject>, RestoreError> {
        if self.occupied == Occupied::Empty {
            return Ok(BTreeMap::new());
        }
        let (bits, prefix, selector) = (self.folding.bits, self.options.prefix.as_str(), self.selector);
        let wanted = move |object: &str| {
            let key = object.strip_prefix(prefix);
            key.is_some_and(|key| selector.admits_key(key) && buckets.contains(&bucket_of(khash(key), bits)))
        };
        let Survey { objects, vaults } = self.target.survey(&wanted).await?;
        let is_in_the_way = |folder: &&String| folder.strip_prefix(prefix).is_none_or(|folder| selector.reaches(folder));
        match vaults.iter().find(is_in_the_way) {
            Some(folder) => Err(holds_vault(self.target.name(), folder).into()),
            None => Ok(objects),
        }
    }

    async fn bucket(
        &self,
        loose: &Loose,
        bucket: u32,
        mut existing: BTreeMap<String, ExistingObject>,
        unmatched: &mut Unmatched,
        progress: &dyn Progress,
    ) -> Result<RestoreReport, RestoreError> {
        let mut report = RestoreReport::begin("", "", self.clock.now(), self.mode, self.clock.now());
        let keep = self.options.selection.versions.keep();
        let mut fold = self.folding.fold_sieved(self.vault, loose, bucket, keep, &self.selector.key_range());
        let mut doubts = Doubts::default();
        let mut teller = Teller::new(self.target, progress);
        let mut existed: BTreeSet<String> = BTreeSet::new();
        while let Some(folded) = fold.next().await? {
            for Uncertain { object, version, reason } in folded.uncertain {
                if self.selector.admits_key(&object) {
                    report.uncertain.push(format!("{object} ({version}): {reason}"));
                    doubts.push(self.target_key(&object), version, reason);
                }
            }
            let state = ChangeBatch::from_checked(ResourceKind::Bucket, folded.rows);
            let mut wanted = Vec::new();
            for object in group(versions(&state)?) {
                // Where no versions are kept a delete marker would take away for good what is there: mode exact does that, and asks.
                let is_nothing = !self.target.keeps_versions() && object.versions.iter().all(|version| version.marker);
                if is_nothing && existing.contains_key(&self.target_key(&object.object)) {
                    unmatched.saw(&object.object);
                    continue;
                }
                if object.versions.iter().any(|version| self.selector.admits(version)) {
                    unmatched.saw(&object.object);
                    wanted.push((existing.remove(&self.target_key(&object.object)), object));
                } else {
                    // It existed, and was not asked for: neither written nor removed.
                    existed.insert(self.target_key(&object.object));
                }
            }
            let doubts = &doubts;
            let mut done = futures::stream::iter(self.read_ahead(wanted))
                .map(|(ahead, there, object)| async move { self.object(&object, there, &ahead, doubts).await })
                .buffer_unordered(WRITES_AT_ONCE);
            while let Some(rows) = done.try_next().await? {
                self.outcomes.note(&rows);
                teller.record(&mut report, rows, doubts);
            }
        }
        self.removals(&mut report, existing, &doubts, &existed, unmatched, &mut teller).await?;
        teller.tell_rest(doubts);
        Ok(report)
    }

    fn target_key(&self, object: &str) -> String {
        format!("{}{object}", self.options.prefix)
    }

    /// What to do about objects of the target that did not exist at the restored instant.
    async fn removals(
        &self,
        report: &mut RestoreReport,
        existing: BTreeMap<String, ExistingObject>,
        doubts: &Doubts,
        existed: &BTreeSet<String>,
        unmatched: &mut Unmatched,
        teller: &mut Teller<'_>,
    ) -> Result<(), RestoreError> {
        for (object, there) in existing {
            // Whether an object that is not in the state would have been selected by size or tags nobody can say.
            if existed.contains(&object) || !self.selector.is_by_key() {
                continue;
            }
            let case =
                Case { existing: Some(&there), uncertain: self.blind || doubts.has(&object), unknown: self.unknown, ..Case::default() };
            let Some(mut action) = decide(self.mode, &case) else { continue };
            if action == Action::Remove && !self.options.dry_run {
                fail_point!("restore::before-remove");
                if let Err(error) = self.retried(|| self.target.remove(&object)).await {
                    action = Action::Fail(Reason::Failed(error.to_string()));
                }
            }
            if action == Action::Remove {
                // That it did not exist is what was asked for.
                unmatched.saw(object.strip_prefix(&self.options.prefix).unwrap_or(&object));
            }
            teller.record(report, vec![Outcome { object, wanted: None, action, written: None }], doubts);
        }
        Ok(())
    }
}
