//! Carrying out a restore: bucket by bucket, object by object, with bounded memory.
//!
//! ```text
//!  for a range of hash buckets: survey the target ─┐
//!    for each bucket: fold → versions → select ────┴→ decide → write, several at a time → report
//! ```
//!
//! Objects are independent of each other, and writing one twice is writing it once. So a restore that was killed is
//! simply run again: what is there already as wanted is found to be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use fail::fail_point;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::plan::ReplayPlan;
use super::select::{Selection, SelectionError, Selector, Versions};
use super::unmatched::Unmatched;
use crate::base::inputs::{Folding, Inputs, Loose};
use crate::fold::object::Keep;
use crate::fold::siblings::{Sibling, order_siblings};
use crate::fold::{Cut, Uncertain};
use crate::model::change::ChangeBatch;
use crate::model::key::{bucket_of, khash};
use crate::model::{Clock, Timestamp};
use crate::s3::{BucketError, Content};
use crate::target::decide::{Case, decide};
use crate::target::report::{ReportRow, RestoreReport};
use crate::target::{Action, ExistingObject, Mode, Occupied, Reason, Target, TargetError, WantedObject, Written};
use crate::vault::ahead::{self, Ahead};
use crate::vault::body::Body;
use crate::vault::{Vault, VaultError};
use crate::view::{ObjectVersion, ViewError, versions};

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
/// Contents of neighbours are read together up to so many bytes of them, while earlier ones are still being written.
const READ_AHEAD_BYTES: u64 = 8 << 20;
/// Where a target holds objects, contents are read ahead when at least one of so many is written.
const READ_AHEAD_SHARE_MIN: u64 = 4;
/// How often an object is tried before it is reported as failed.
const TRIES: u32 = 5;
/// Objects surveyed at the target at the same time, roughly: what bounds the memory of a survey.
const SURVEYED_OBJECTS_MAX: u64 = 2_000_000;

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
         overwrite (replace what differs) or exact (also remove what did not exist then)"
    )]
    ModeNeeded {
        /// The target.
        target: String,
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
        (None, Occupied::Holds) => return Err(RestoreError::ModeNeeded { target: target.name() }),
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
    let folding = Folding::new(plan.inputs.clone(), plan.cut(), surveys.bits_min());
    let blind = plan.open_gaps.iter().any(|gap| gap.segment.is_some());
    // A prefix or a glob that is misspelled selects nothing of the vault, and perhaps a lot of the target.
    let names_keys_alone = options.selection.prefixes.is_empty() && options.selection.globs.is_empty();
    let unknown = mode == Mode::Exact
        && !names_keys_alone
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
    let folding = Folding::new(inputs.clone(), cut, 0);
    for pass in folding.passes() {
        let loose = folding.load(vault, pass.clone()).await?;
        for bucket in folding.occupied(&loose, pass) {
            let mut fold = folding.fold_sieved(vault, &loose, bucket, Keep::Live, &selector.key_range());
            while let Some(folded) = fold.next().await? {
                let state = ChangeBatch::from_checked(folded.rows);
                if versions(&state)?.iter().any(|version| selector.admits_key(&version.object)) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// How a target is surveyed, so that what it holds of so many hash buckets fits into memory.
#[derive(Debug, Clone, Copy)]
pub struct Surveys {
    /// Objects in all, roughly.
    rows: u64,
}

impl Surveys {
    /// Those that a plan takes.
    pub fn of(plan: &ReplayPlan) -> Surveys {
        Surveys { rows: plan.inputs.base.iter().flat_map(|base| &base.files).map(|file| file.rows).sum() }
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

fn split_by_bucket(existing: BTreeMap<String, ExistingObject>, bits: u32, prefix: &str) -> BTreeMap<u32, BTreeMap<String, ExistingObject>> {
    let mut split: BTreeMap<u32, BTreeMap<String, ExistingObject>> = BTreeMap::new();
    for (object, found) in existing {
        let source_key = object.strip_prefix(prefix).unwrap_or(&object);
        split.entry(bucket_of(khash(source_key), bits)).or_default().insert(object, found);
    }
    split
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
    /// A segment of the log is missing: nobody can say of any object that it did not exist.
    blind: bool,
    /// The vault knows of nothing that was selected: so nothing is removed.
    unknown: bool,
    outcomes: Outcomes,
}

/// How many objects were dealt with so far, and how many of them were written.
#[derive(Default)]
struct Outcomes {
    all: AtomicU64,
    written: AtomicU64,
}

impl Outcomes {
    fn note(&self, outcomes: &[Outcome]) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.written.fetch_add(u64::from(outcomes.iter().any(|outcome| outcome.action.is_write())), Ordering::Relaxed);
    }

    fn are_often_writes(&self) -> bool {
        let (all, written) = (self.all.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        written > 0 && written * READ_AHEAD_SHARE_MIN >= all
    }
}

/// An object with what the target holds of it, and how its contents are read.
type Task = (Arc<Ahead>, Option<ExistingObject>, WantedVersions);

/// All that is wanted of one object: its versions, the oldest first.
struct WantedVersions {
    object: String,
    versions: Vec<ObjectVersion>,
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
        Ok(self.target.survey(&wanted).await?)
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
        let mut uncertain: BTreeSet<String> = BTreeSet::new();
        let mut existed: BTreeSet<String> = BTreeSet::new();
        while let Some(folded) = fold.next().await? {
            for Uncertain { object, version, reason } in folded.uncertain {
                if self.selector.admits_key(&object) {
                    report.uncertain.push(format!("{object} ({version}): {reason}"));
                    uncertain.insert(format!("{}{object}", self.options.prefix));
                }
            }
            let state = ChangeBatch::from_checked(folded.rows);
            let mut wanted = Vec::new();
            for object in group(versions(&state)?) {
                if object.versions.iter().any(|version| self.selector.admits(version)) {
                    unmatched.saw(&object.object);
                    wanted.push((existing.remove(&self.target_key(&object.object)), object));
                } else {
                    // It existed, and was not asked for: neither written nor removed.
                    existed.insert(self.target_key(&object.object));
                }
            }
            let uncertain = &uncertain;
            let mut done = futures::stream::iter(self.read_ahead(wanted))
                .map(|(ahead, there, object)| async move { self.object(&object, there, &ahead, uncertain).await })
                .buffer_unordered(WRITES_AT_ONCE);
            while let Some(rows) = done.try_next().await? {
                self.outcomes.note(&rows);
                record(&mut report, rows, self.target, progress);
            }
        }
        self.removals(&mut report, existing, &uncertain, &existed, unmatched, progress).await?;
        Ok(report)
    }

    /// Plans to read the contents of neighbours together, piece by piece so that memory is bounded. Where the target holds most
    /// of them already, what would be read along would be read in vain.
    fn read_ahead(&self, wanted: Vec<(Option<ExistingObject>, WantedVersions)>) -> Vec<Task> {
        let alone: Arc<Ahead> = Arc::default();
        if self.options.dry_run || self.occupied == Occupied::Holds && !self.outcomes.are_often_writes() {
            return wanted.into_iter().map(|(there, object)| (Arc::clone(&alone), there, object)).collect();
        }
        let mut tasks = Vec::with_capacity(wanted.len());
        let (mut piece, mut bodies, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut close = |piece: &mut Vec<_>, bodies: &mut Vec<Body>| {
            let ahead = Arc::new(Ahead::of(&*bodies));
            bodies.clear();
            tasks.extend(piece.drain(..).map(|(there, object)| (Arc::clone(&ahead), there, object)));
        };
        for (there, object) in wanted {
            for version in &object.versions {
                // What cannot be read is named when it is tried.
                let Some(Ok(body)) = version.body.as_deref().map(str::parse::<Body>) else { continue };
                bytes += version.size.min(u64::from(ahead::SMALL_BYTES));
                bodies.push(body);
            }
            piece.push((there, object));
            if bytes >= READ_AHEAD_BYTES {
                close(&mut piece, &mut bodies);
                bytes = 0;
            }
        }
        close(&mut piece, &mut bodies);
        tasks
    }

    fn target_key(&self, object: &str) -> String {
        format!("{}{object}", self.options.prefix)
    }

    /// What to do about objects of the target that did not exist at the restored instant.
    async fn removals(
        &self,
        report: &mut RestoreReport,
        existing: BTreeMap<String, ExistingObject>,
        uncertain: &BTreeSet<String>,
        existed: &BTreeSet<String>,
        unmatched: &mut Unmatched,
        progress: &dyn Progress,
    ) -> Result<(), RestoreError> {
        for (object, there) in existing {
            // Whether an object that is not in the state would have been selected by size or tags nobody can say.
            if existed.contains(&object) || !self.selector.is_by_key() {
                continue;
            }
            let case = Case {
                existing: Some(&there),
                uncertain: self.blind || uncertain.contains(&object),
                unknown: self.unknown,
                ..Case::default()
            };
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
            record(report, vec![Outcome { object, wanted: None, action, written: None }], self.target, progress);
        }
        Ok(())
    }

    /// Deals with one object. Several versions are written one after the other, the oldest first.
    async fn object(
        &self,
        object: &WantedVersions,
        existing: Option<ExistingObject>,
        ahead: &Arc<Ahead>,
        uncertain: &BTreeSet<String>,
    ) -> Result<Vec<Outcome>, RestoreError> {
        let mut outcomes = Vec::with_capacity(object.versions.len());
        let several = object.versions.len() > 1;
        let newest = object.versions.len() - 1;
        let mut same_until_now = true;
        for (index, version) in object.versions.iter().enumerate() {
            let wanted = WantedObject::of(version, self.target_key(&version.object), self.options.acls);
            let compared = existing.as_ref().filter(|_| index == newest);
            let same = match compared {
                Some(existing) if !wanted.marker && (!several || same_until_now) => {
                    self.retried(|| self.target.is_same(&wanted, existing)).await?
                }
                _ => false,
            };
            let unfinished = match &existing {
                // Of several versions perhaps not all are there: none tells whose it is.
                Some(existing) if self.options.resumes && !same => {
                    several || self.retried(|| self.target.is_unfinished(&wanted, existing)).await?
                }
                _ => false,
            };
            let case = Case {
                wanted: Some(&wanted),
                lost: version.lost.as_deref(),
                existing: existing.as_ref(),
                same,
                unfinished,
                uncertain: uncertain.contains(&wanted.object),
                unknown: false,
            };
            let mut action = decide(self.mode, &case).unwrap_or(Action::Same);
            let mut written = None;
            if action.is_write() {
                same_until_now = false;
                if !self.options.dry_run {
                    fail_point!("restore::before-object");
                    match self.write(version, &wanted, ahead).await? {
                        Ok(done) => written = Some(done),
                        Err(reason) => action = Action::Fail(reason),
                    }
                    fail_point!("restore::after-object");
                }
            }
            outcomes.push(Outcome { object: wanted.object.clone(), wanted: Some(wanted), action, written });
        }
        Ok(outcomes)
    }

    /// Writes one version. What is wrong with this object alone is the inner error.
    async fn write(
        &self,
        version: &ObjectVersion,
        wanted: &WantedObject,
        ahead: &Arc<Ahead>,
    ) -> Result<Result<Written, Reason>, RestoreError> {
        let (body, digest) = match (&version.body, version.marker) {
            (_, true) => (Body::Slices(Vec::new()), Some(crate::model::Digest::of(b""))),
            (Some(body), false) => match body.parse() {
                Ok(body) => (body, version.digest),
                Err(error) => return Ok(Err(Reason::Lost(format!("{error}")))),
            },
            (None, false) => {
                return Ok(Err(Reason::Lost(version.lost.clone().unwrap_or_else(|| "the vault names no content for it".to_owned()))));
            }
        };
        let mut tries = 0;
        // What the vault said of a content that it does not have, while the target was reading it.
        let lost = Arc::new(OnceLock::new());
        loop {
            tries += 1;
            let done = match self.copy(&body, wanted).await {
                Ok(None) => {
                    let content = match self.vault.read_body_ahead(ahead, &body, digest).await {
                        Ok(content) => content,
                        Err(error) if error.is_transient() && tries < TRIES => continue,
                        Err(error) => return Ok(Err(Reason::Lost(explain(&error)))),
                    };
                    let lost = Arc::clone(&lost);
                    let content: Content = content
                        .map_err(move |error| {
                            if !error.is_transient() {
                                lost.get_or_init(|| explain(&error));
                            }
                            of_the_vault(&error)
                        })
                        .boxed();
                    self.target.write(wanted, content).await
                }
                Ok(Some(written)) => Ok(written),
                Err(error) => Err(error),
            };
            match done {
                Ok(written) => return Ok(Ok(written)),
                Err(error @ TargetError::Refused { .. }) => return Err(error.into()),
                Err(error) if error.is_transient() && tries < TRIES => self.clock.sleep(backoff(tries)).await,
                Err(error) => {
                    return Ok(Err(lost.get().map_or_else(|| Reason::Failed(error.to_string()), |lost| Reason::Lost(lost.clone()))));
                }
            }
        }
    }

    /// Has the target's server copy the content; nothing where it lies in packs, or cannot be copied.
    async fn copy(&self, body: &Body, wanted: &WantedObject) -> Result<Option<Written>, TargetError> {
        match body {
            Body::Whole(whole) => self.target.copy(wanted, whole, &self.vault.key_of(&whole.path())).await,
            Body::Slices(_) | Body::Indirect(_) => Ok(None),
        }
    }

    async fn retried<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, TargetError>
    where
        F: Future<Output = Result<T, TargetError>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            match attempt().await {
                Err(error) if error.is_transient() && tries < TRIES => self.clock.sleep(backoff(tries)).await,
                result => return result,
            }
        }
    }
}

/// How long to wait before the next try.
fn backoff(tries: u32) -> std::time::Duration {
    std::time::Duration::from_millis(50 << tries.min(6))
}

/// What the target is told of a content that breaks off: that it may be tried again, or that it may not.
fn of_the_vault(error: &VaultError) -> BucketError {
    let (what, reason) = ("reading the vault".to_owned(), explain(error));
    if error.is_transient() { BucketError::Transient { what, reason } } else { BucketError::Other { what, reason } }
}

/// An error with its causes in one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What became of one version.
struct Outcome {
    object: String,
    wanted: Option<WantedObject>,
    action: Action,
    written: Option<Written>,
}

fn record(report: &mut RestoreReport, outcomes: Vec<Outcome>, target: &Arc<dyn Target>, progress: &dyn Progress) {
    for Outcome { object, wanted, action, written } in outcomes {
        let requests = written.as_ref().map_or_else(|| target.requests(wanted.as_ref()), |written| written.requests);
        report.count(&object, wanted.as_ref(), &action, requests, written.as_ref());
        progress.object(&ReportRow::new(&object, wanted.as_ref(), &action, written));
    }
}

/// Versions by object, the oldest first within each. They come sorted by key, all of one object together.
fn group(versions: Vec<ObjectVersion>) -> Vec<WantedVersions> {
    let mut objects: Vec<WantedVersions> = Vec::new();
    for version in versions {
        match objects.last_mut() {
            Some(last) if last.object == version.object => last.versions.push(version),
            _ => objects.push(WantedVersions { object: version.object.clone(), versions: vec![version] }),
        }
    }
    for object in &mut objects {
        if object.versions.len() > 1 {
            let siblings: Vec<Sibling<'_>> = object.versions.iter().map(ObjectVersion::sibling).collect();
            let order = order_siblings(&siblings);
            object.versions = order.into_iter().map(|index| object.versions[index].clone()).collect();
        }
    }
    objects
}
