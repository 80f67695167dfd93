//! The actors: the real handlers, each in a loop, each able to die at any await and to begin anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handlers::capture::Capture;
use handlers::compact::compact;
use handlers::intake::Intake;
use handlers::reconcile::{self, reconcile};
use handlers::restore::{RestoreRequest, restore};
use pipeline::base::build::{Additions, base, publish};
use pipeline::base::inputs::Inventory;
use pipeline::base::plan::{Policy, REDELIVERY, plan};
use pipeline::changelog::coverage::{RECONCILIATIONS, Reconciliation};
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::replay::select::Versions;
use pipeline::replay::{Certainty, RestorePoint};
use pipeline::s3::{Bucket, Versioning};
use pipeline::source::s3_read::Reader;
use pipeline::target::Target;
use pipeline::vault::{Vault, layout};

use super::bugs::Bug;
use super::check::{Checker, Outcome, Rows, options};
use super::clocks::{Polled, Skew, Skewed};
use super::door::Door;
use super::executor::Task;
use super::oracle::Readings;
use super::queue::Queue;
use super::store::{Files, SimStore};
use super::swarm::Form;
use super::target::MemoryTarget;
use super::workload::Workload;
use super::world::World;

/// Who there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// The users of the bucket.
    Workload,
    /// From events to segments; two of them.
    Intake(u8),
    /// Reads the truth.
    Reconciler,
    /// Merges and bases; two of them.
    Compactor(u8),
    /// Restores while all this goes on; two of them, at times into one target.
    Restorer(u8),
}

/// All of them.
pub const ACTORS: [Actor; 8] = [
    Actor::Workload,
    Actor::Intake(0),
    Actor::Intake(1),
    Actor::Reconciler,
    Actor::Compactor(0),
    Actor::Compactor(1),
    Actor::Restorer(0),
    Actor::Restorer(1),
];

impl Actor {
    /// Its name, in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Actor::Workload => "workload",
            Actor::Intake(0) => "intake 0",
            Actor::Intake(_) => "intake 1",
            Actor::Reconciler => "reconciler",
            Actor::Compactor(0) => "compactor 0",
            Actor::Compactor(_) => "compactor 1",
            Actor::Restorer(0) => "restorer 0",
            Actor::Restorer(_) => "restorer 1",
        }
    }

    /// The mark of its crash.
    pub const fn crash_mark(self) -> &'static str {
        match self {
            Actor::Workload => "workload stopped",
            Actor::Intake(_) => "crash of an intake",
            Actor::Reconciler => "crash of the reconciler",
            Actor::Compactor(_) => "crash of a compactor",
            Actor::Restorer(_) => "crash of a restorer",
        }
    }
}

/// A restore that is under way, or was when the restorer died.
#[derive(Clone)]
struct Pending {
    to: Timestamp,
    versions: Versions,
    target: Arc<MemoryTarget>,
    /// What could be known when it was begun.
    readings: Readings,
    resumed: bool,
    /// Another restorer writes the same into the same target.
    shared: bool,
}

/// Everything the actors share.
pub struct Stage {
    /// The world.
    pub world: Arc<World>,
    /// What is in the vault.
    pub files: Files,
    /// The protected bucket, as the product sees it.
    pub bucket: Arc<dyn Bucket>,
    /// Its events.
    pub queue: Arc<Queue>,
    /// What is protected.
    pub resource: ResourceId,
    /// Compares restores.
    pub checker: Arc<Checker>,
    shared: Mutex<Option<Capture>>,
    /// What each restorer is at.
    pending: Mutex<[Option<Pending>; 2]>,
}

impl Stage {
    /// A stage on which nobody has acted.
    pub fn new(world: Arc<World>, files: Files, bucket: Door, queue: Arc<Queue>, resource: ResourceId, checker: Arc<Checker>) -> Stage {
        if world.swarm.skew_ms.iter().any(|skew| *skew != 0) {
            world.mark("clocks differ");
        }
        if world.swarm.step_of_clocks.is_some() {
            world.mark("clock set while it goes");
        }
        Stage { world, files, bucket: Arc::new(bucket), queue, resource, checker, shared: Mutex::default(), pending: Mutex::default() }
    }

    fn vault(&self, actor: Actor) -> Vault {
        Vault::new(Arc::new(SimStore::new(Arc::clone(&self.world), Arc::clone(&self.files), actor.name())), "")
    }

    /// What the clock of an actor's machine is ahead of the source's. One process has one.
    fn skew(&self, actor: Actor) -> Skew {
        let skews = &self.world.swarm.skew_ms;
        let machine = match actor {
            _ if self.world.swarm.shared_capture && !matches!(actor, Actor::Compactor(_)) => 0,
            Actor::Intake(number) => usize::from(number),
            Actor::Compactor(number) => 2 + usize::from(number),
            _ => 4,
        };
        Skew { ms: skews[machine % skews.len()], step: self.world.swarm.step_of_clocks.filter(|_| machine % 2 == 0) }
    }

    fn clock(&self, actor: Actor) -> Arc<dyn Clock> {
        Arc::new(Skewed { world: Arc::clone(&self.world), skew: self.skew(actor) })
    }

    async fn capture(&self, actor: Actor) -> Result<Capture, String> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (Some(shared), true) = (shared, self.world.swarm.shared_capture) {
            return Ok(shared);
        }
        let reader = Reader::new(Arc::clone(&self.bucket), Versioning::Enabled, self.world.swarm.acls);
        let capture =
            Capture::open(self.vault(actor), self.resource.clone(), reader, self.clock(actor)).await.map_err(|error| error.to_string())?;
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(capture.clone());
        Ok(capture)
    }

    /// The process of an actor dies with all that it knew.
    pub fn forget(&self) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// An actor begins.
    pub fn begin(self: &Arc<Stage>, actor: Actor, workload: &mut Option<Workload>) -> Task {
        let stage = Arc::clone(self);
        match actor {
            Actor::Workload => {
                let mut workload = workload.take().expect("the users never begin anew");
                Box::pin(async move {
                    workload.run().await;
                    Ok(())
                })
            }
            Actor::Intake(_) => Box::pin(async move { stage.intake(actor).await }),
            Actor::Reconciler => Box::pin(async move { stage.reconciler().await }),
            Actor::Compactor(_) => Box::pin(async move { stage.compactor(actor).await }),
            Actor::Restorer(number) => Box::pin(async move { stage.restorer(actor, usize::from(number)).await }),
        }
    }

    async fn intake(&self, actor: Actor) -> Result<(), String> {
        let capture = self.capture(actor).await?;
        let feed = Polled { queue: Arc::clone(&self.queue), skew: self.skew(actor), world: Arc::clone(&self.world) };
        let mut intake = Intake::new(vec![capture], self.vault(actor), self.clock(actor), self.world.swarm.form == Form::Blind);
        loop {
            match intake.round(&feed).await {
                Ok(report) if report.messages == 0 => self.world.sleep(Duration::from_millis(500 + self.world.random.below(2_500))).await,
                Ok(report) => {
                    self.world.mark("intake round");
                    if self.world.random.percent(10) {
                        self.note_late_events();
                    }
                    if report.lost > 0 {
                        self.world.mark("content lost");
                    }
                    if report.again > 0 {
                        self.world.mark("event left to come again");
                    }
                    if report.dead > 0 && self.world.swarm.form != Form::Blind {
                        self.world.violate("an event was not understood".to_owned());
                    }
                }
                Err(error) if self.world.random.percent(50) => return Err(error.to_string()),
                Err(_) => {}
            }
        }
    }

    /// Whether the newest segment tells of a second before the newest base.
    fn note_late_events(&self) {
        let Ok(inventory) = self.checker.inventory() else { return };
        let newest = inventory.segments.iter().max_by_key(|segment| segment.name.latest);
        if let (Some(base), Some(newest)) = (inventory.bases().last(), newest)
            && newest.name.first <= base.cut
            && !inventory.is_covered(&base.covers, &newest.path)
        {
            self.world.mark("event after a base at an older second");
        }
    }

    async fn reconciler(&self) -> Result<(), String> {
        let mut capture = self.capture(Actor::Reconciler).await?;
        let folder = layout::state_folder(RECONCILIATIONS, &self.resource);
        loop {
            let vault = capture.vault().clone();
            let first = vault.all_records::<Reconciliation>(&folder).await.map_err(|error| error.to_string())?.is_empty();
            let mut began = self.world.now();
            if self.world.has(Bug::NoReconcile) && !first {
                let claim = Reconciliation::uneventful(began, began);
                vault.append_record(&folder, &claim).await.map_err(|error| error.to_string())?;
            } else {
                let cursors = vault.list(&layout::state_folder("cursor", &self.resource)).await.map_err(|error| error.to_string())?;
                if first && !cursors.is_empty() {
                    self.world.mark("first scan resumed");
                }
                let done = reconcile(&mut capture, &reconcile::Quiet, None).await.map_err(|error| error.to_string())?;
                self.world.mark(if first { "first scan" } else { "reconciliation" });
                if first {
                    // One that was resumed has seen nothing of what came after its beginning to what it had listed before.
                    began = done.began;
                }
                if !first && done.found > 0 {
                    self.world.mark("lost event healed");
                }
                if done.purged > 0 {
                    self.world.mark("purge found by scan");
                }
            }
            self.world.read(began);
            self.world.sleep(Duration::from_millis(self.world.random.below(2 * self.world.swarm.reconcile_ms))).await;
        }
    }

    fn policy(&self) -> Policy {
        let redelivery = if self.world.has(Bug::TombstoneDropped) { Duration::ZERO } else { REDELIVERY };
        Policy {
            base_every: Duration::from_millis(self.world.swarm.base_every_ms),
            redelivery,
            bucket_bytes: self.world.swarm.bucket_bytes,
            ..Policy::default()
        }
    }

    async fn compactor(&self, actor: Actor) -> Result<(), String> {
        let vault = self.vault(actor);
        loop {
            self.world.sleep(Duration::from_millis(self.world.random.below(2 * self.world.swarm.compact_ms))).await;
            if self.world.has(Bug::TornBase) {
                self.torn_base(&vault).await?;
                continue;
            }
            let report =
                compact(&vault, &self.resource, self.clock(actor).as_ref(), self.policy()).await.map_err(|error| error.to_string())?;
            if report.merges > 0 {
                self.world.mark("merge committed");
            }
            match (report.base, report.manifest) {
                (Some(cut), Some(_)) => {
                    self.world.mark("base committed");
                    self.mark_buckets(&vault, cut).await?;
                }
                (Some(_), None) => self.world.mark("two compactors raced"),
                _ => {}
            }
        }
    }

    /// Notes whether the base at this cut has several buckets, and whether some were taken over from the one before.
    async fn mark_buckets(&self, vault: &Vault, cut: Timestamp) -> Result<(), String> {
        let newest = pipeline::base::newest(vault, &self.resource).await.map_err(|error| error.to_string())?;
        let bases = newest.map(|newest| newest.record.bases).unwrap_or_default();
        let Some(index) = bases.iter().position(|base| base.cut == cut) else { return Ok(()) };
        if bases[index].files.len() > 1 {
            self.world.mark("base of several buckets");
        }
        let before = index.checked_sub(1).map(|before| &bases[before]).filter(|before| before.bits == bases[index].bits);
        let is_taken_over = |before: &pipeline::base::Base| bases[index].files.iter().any(|file| before.files.contains(file));
        if bases[index].files.len() > 1 && before.is_some_and(is_taken_over) {
            self.world.mark("bucket taken over");
        }
        if index > 0 && bases[index - 1].bits < bases[index].bits {
            self.world.mark("number of buckets doubled");
        }
        Ok(())
    }

    /// The planted bug: a base is named before its last file is there.
    async fn torn_base(&self, vault: &Vault) -> Result<(), String> {
        let text = |error: pipeline::vault::VaultError| error.to_string();
        let inventory = Inventory::load(vault, &self.resource).await.map_err(text)?;
        if let Some(at) = plan(&inventory, self.world.now(), self.policy()).base {
            let mut torn = base(vault, &inventory, at, self.policy().bucket_bytes).await.map_err(text)?;
            torn.files.pop();
            publish(vault, &self.resource, &Additions { base: Some(torn), ..Additions::default() }, self.world.now())
                .await
                .map_err(text)?;
        }
        Ok(())
    }

    fn pending(&self) -> MutexGuard<'_, [Option<Pending>; 2]> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a restorer begins with: a second of the window, or what the other one is at, into the same target.
    async fn next_restore(&self, vault: &Vault, number: usize) -> Result<Option<Pending>, String> {
        let random = &self.world.random;
        let other = self.pending()[1 - number].clone();
        if let Some(other) = other.filter(|other| other.versions == Versions::Current && random.percent(40)) {
            self.world.mark("two restores into one target");
            if let Some(other) = &mut self.pending()[1 - number] {
                other.shared = true;
            }
            return Ok(Some(Pending { shared: true, ..other }));
        }
        let inventory = Inventory::load(vault, &self.resource).await.map_err(|error| error.to_string())?;
        let Some(window) = inventory.window() else { return Ok(None) };
        let Some(proven) = window.proven else { return Ok(None) };
        let span = proven.micros() - window.earliest.micros();
        Ok(Some(Pending {
            to: Timestamp::from_micros(window.earliest.micros() + random.below(span as u64 + 1) as i64),
            versions: if random.percent(50) { Versions::All } else { Versions::Current },
            target: Arc::new(MemoryTarget::new(Arc::clone(&self.world), false)),
            readings: self.checker.readings(&*self.checker.inventory()?),
            resumed: false,
            shared: false,
        }))
    }

    async fn restorer(&self, actor: Actor, number: usize) -> Result<(), String> {
        let vault = self.vault(actor);
        loop {
            let known = self.pending()[number].clone();
            let pending = match known {
                Some(pending) => {
                    self.world.mark("restore resumed");
                    let pending = Pending { resumed: true, ..pending };
                    self.pending()[number] = Some(pending.clone());
                    pending
                }
                None => {
                    self.world.sleep(Duration::from_millis(2_000 + self.world.random.below(20_000))).await;
                    let Some(pending) = self.next_restore(&vault, number).await? else { continue };
                    self.pending()[number] = Some(pending.clone());
                    pending
                }
            };
            let request = RestoreRequest {
                resource: self.resource.clone(),
                to: RestorePoint::Time(pending.to),
                certainty: Certainty::Proven,
                options: options(pending.versions),
            };
            let target: Arc<dyn Target> = pending.target.clone();
            let rows = Rows::default();
            let report = restore(&vault, &request, &target, self.world.as_ref(), &rows).await.map_err(|error| error.to_string())?;
            let ended = self.pending()[number].take().unwrap_or(pending);
            let pending = Pending { resumed: ended.resumed || ended.shared, ..ended };
            let outcome = Outcome { resumed: pending.resumed, ..Outcome::of(&report, &rows, &pending.target) };
            if report.tally.failed > report.lost.count || report.lost.count > 0 && self.world.is_faulty() {
                // What could not be read or written is named: an honest failure.
                self.world.mark("restore with failures named");
                continue;
            }
            if self.world.has(Bug::LateIgnored) {
                continue;
            }
            self.world.mark("concurrent restore compared");
            if let Err(wrong) = self.checker.compare(&outcome, pending.versions, pending.to, &pending.readings) {
                self.world.violate(format!("concurrent {wrong}"));
            }
        }
    }
}
