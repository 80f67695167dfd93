//! What a host of functions calls: AWS Lambda, or whatever else hands over events and takes an answer.
//!
//! ```text
//!  events of a queue ─→ capture   ─→ which of them are durable
//!  a schedule        ─→ reconcile ─→ what the listings that were due found
//!  a schedule        ─→ compact   ─→ what was merged
//!  a request         ─→ restore   ─→ a report, or the same request to go on with
//! ```
//!
//! A host ends what takes too long, and may run several of these at once, the same events twice among them: everything here may be
//! killed at any point and be done again. What needs more time than there is ends a little before, says so, and goes on with the
//! next call. Settings come from the environment, see docs/configuration.md; there is one vault.

mod batch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use handlers::capture::Capture;
use handlers::compact::{CompactionReport, compact};
use handlers::events_on::{EventsOn, News};
use handlers::health::{interval, listed_every};
use handlers::intake::{Intake, IntakeReport};
use handlers::protection::{self, BucketProtection, Events, Protection, Status};
use handlers::reconcile::{Quiet, due, reconcile};
use handlers::restore::restore;
use pipeline::base::plan::Policy;
use pipeline::changelog::coverage::{self, Reconciliation};
use pipeline::model::{ResourceId, ResourceKind, Timestamp};
use pipeline::replay::run::Progress;
use pipeline::replay::select::Versions;
use pipeline::source::Message;
use pipeline::target::Mode;
use pipeline::target::report::{ReportRow, RestoreReport};
use serde::Serialize;
use tokio::sync::{Mutex, OnceCell};

use self::batch::Batch;
use crate::app::{App, Flags, VaultFlag};
use crate::exit::{self, Failure, Kind};
use crate::restoring::{Asked, Prepared, prepare};
use crate::sources::sqs;
use crate::vaults::OpenVault;

/// What is protected is asked again after so long, and where an event names a bucket that was not: each protection is a request.
const PROTECTIONS_FOR: Duration = Duration::from_secs(15);
/// How long a message waits that could not be taken.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A listing that is later than this is late; so is a first full backup that takes longer.
const LATE_AFTER: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(86_400));
/// How often it is looked what others have appended: who does not know it keeps some of it twice, which changes nothing.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// So much before it would be ended whoever has not finished stops by itself, to be able to say so.
const MARGIN: Duration = Duration::from_secs(10);

/// Everything that functions work with; one for all calls of a process.
pub struct Functions {
    app: App,
    flag: VaultFlag,
    opened: OnceCell<OpenVault>,
    intakes: Mutex<BTreeMap<String, Feed>>,
    protected: Mutex<Option<(Timestamp, Protections)>>,
    /// When something was last begun with a resource here: whoever never gets done must not keep all others waiting.
    begun: Mutex<BTreeMap<ResourceId, Timestamp>>,
}

/// What functions keep, each with the number of its record.
type Protections = Arc<Vec<(u64, Protection)>>;

/// What a process keeps of a queue from one call to the next.
struct Feed {
    intake: Intake,
    captures: BTreeMap<ResourceId, Kept>,
}

/// A bucket that is open.
struct Kept {
    /// The number of the record that says how it is protected.
    number: u64,
    capture: Capture,
    /// When it was last seen what others have appended.
    looked: Timestamp,
}

/// What became of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Captured {
    /// Counts.
    pub report: IntakeReport,
    /// The receipts of messages that are not durable: they are to come again.
    pub again: Vec<String>,
}

/// What became of the listings that were due.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reconciled {
    /// Those that ended.
    pub readings: BTreeMap<ResourceId, Reconciliation>,
    /// Buckets for which there was no time: the next call goes on with them.
    pub waiting: BTreeSet<ResourceId>,
    /// Buckets that could not be listed, and why.
    pub failed: BTreeMap<ResourceId, String>,
    /// Buckets whose listing should have ended long ago.
    pub late: BTreeSet<ResourceId>,
}

/// What became of change logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Those that were compacted.
    pub reports: BTreeMap<ResourceId, CompactionReport>,
    /// Those for which there was no time.
    pub waiting: BTreeSet<ResourceId>,
    /// Those that could not be, and why.
    pub failed: BTreeMap<ResourceId, String>,
}

/// How far a restore has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Restored {
    /// Whether it has ended. If not, it is gone on with by asking for `request`.
    pub done: bool,
    /// What was asked for, with the instant that its time stands for.
    pub request: serde_json::Value,
    /// What became of it, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<RestoreReport>,
}

/// Counts what a restore has written.
#[derive(Default)]
struct Written(AtomicU64);

impl Progress for Written {
    fn total(&self, _: u64) {}

    fn bucket_done(&self) {}

    fn object(&self, row: &ReportRow) {
        let is_written = ["create", "overwrite", "remove"].contains(&row.action.as_str());
        self.0.fetch_add(u64::from(is_written), Ordering::Relaxed);
    }
}

/// The flags of which the environment has values.
#[derive(Debug, Parser)]
struct Environment {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    vault: VaultFlag,
}

impl Functions {
    /// Reads the settings and begins the log.
    ///
    /// # Errors
    /// A setting that cannot be understood.
    pub fn from_environment() -> Result<Functions> {
        let Environment { flags, vault } = Environment::try_parse_from([OsString::from("hindsight")])
            .map_err(|error| Failure::usage(format!("the environment cannot be understood: {error}")))?;
        let app = App::new(flags)?;
        crate::start_log(&app, true)?;
        Ok(Functions {
            app,
            flag: vault,
            opened: OnceCell::new(),
            intakes: Mutex::default(),
            protected: Mutex::default(),
            begun: Mutex::default(),
        })
    }

    /// The time by which everything here goes.
    pub fn now(&self) -> Timestamp {
        self.app.clock.now()
    }

    async fn vault(&self) -> Result<&OpenVault> {
        self.opened.get_or_try_init(|| self.app.vault(&self.flag)).await
    }

    /// Opens what every call needs, while there is nothing else to do. What is wrong is told by the first call.
    pub async fn warm_up(&self) {
        if let Err(error) = self.vault().await {
            tracing::warn!(error = format!("{error:#}"), "the vault cannot be opened; every call tries it again");
        }
    }

    /// What functions keep, as it is now.
    async fn protections(&self) -> Result<Protections> {
        let now = self.now();
        let all = protection::all(&self.vault().await?.vault).await.context("cannot read what the vault protects")?;
        let is_ours = |protection: &Protection| protection.bucket().is_some_and(|bucket| bucket.events.is_by_functions());
        let active = all.into_iter().filter(|protection| protection.record.status == Status::Active && is_ours(&protection.record));
        let protections = Arc::new(active.map(|protection| (protection.number, protection.record)).collect::<Vec<_>>());
        *self.protected.lock().await = Some((now, Arc::clone(&protections)));
        Ok(protections)
    }

    /// The same as it was lately, if all of these are among it.
    async fn protections_with(&self, buckets: &BTreeSet<ResourceId>) -> Result<Protections> {
        let known = self.protected.lock().await.clone();
        let is_enough = |protections: &Protections| {
            buckets.iter().all(|bucket| protections.iter().any(|(_, protection)| protection.resource == *bucket))
        };
        match known.filter(|(at, protections)| self.now().since(*at) < PROTECTIONS_FOR && is_enough(protections)) {
            Some((_, protections)) => Ok(protections),
            None => self.protections().await,
        }
    }

    async fn capture_of(&self, resource: &ResourceId, bucket: &BucketProtection) -> Result<Capture> {
        let opened = self.vault().await?;
        let reader = self.app.reader(resource, bucket.endpoint.as_deref(), bucket.acls).await?;
        let copying = opened.place.copying(&self.app.endpoint(bucket.endpoint.as_deref())?).await?;
        let capture = Capture::open(opened.vault.clone(), resource.clone(), reader, Arc::clone(&self.app.clock)).await?;
        Ok(capture.with_copying(copying))
    }

    /// Keeps what the messages of a queue tell. Which of them are not durable when this returns is said, and nothing is where it fails.
    ///
    /// # Errors
    /// The vault's, and a bucket's that cannot be begun with.
    pub async fn capture(&self, queue: &str, messages: Vec<Message>) -> Result<Captured> {
        let batch = Batch::new(format!("sqs:{queue}"), messages);
        let (opened, buckets) = (self.vault().await?, batch.buckets());
        let is_of_queue =
            |events: &Events| events.is_by_functions() && events.queue().and_then(|url| url.rsplit('/').next()) == Some(queue);
        let protections = self.protections_with(&buckets).await?;
        let through_it: BTreeMap<ResourceId, (u64, &BucketProtection)> = protections
            .iter()
            .filter_map(|(number, protection)| Some((protection, *number, protection.bucket()?)))
            .filter(|(_, _, bucket)| is_of_queue(&bucket.events))
            .map(|(protection, number, bucket)| (protection.resource.clone(), (number, bucket)))
            .collect();
        let mut intakes = self.intakes.lock().await;
        let feed = intakes.entry(queue.to_owned()).or_insert_with(|| {
            // Of a queue that only looks like AWS's the order means nothing.
            let emulated = self.app.endpoint(None).is_ok_and(|endpoint| !endpoint.is_aws());
            let intake = Intake::new(Vec::new(), opened.vault.clone(), Arc::clone(&self.app.clock), emulated);
            Feed { intake, captures: BTreeMap::new() }
        });
        feed.captures.retain(|resource, kept| through_it.get(resource).is_some_and(|(now, _)| *now == kept.number));
        for resource in buckets {
            let Some((number, bucket)) = through_it.get(&resource) else { continue };
            match feed.captures.get_mut(&resource) {
                // Others have appended since. Each look lists the log of two days.
                Some(kept) if self.now().since(kept.looked) >= REFRESH_EVERY => {
                    kept.capture.refresh().await?;
                    kept.looked = self.now();
                }
                Some(_) => {}
                None => match self.capture_of(&resource, bucket).await {
                    Ok(capture) => drop(feed.captures.insert(resource, Kept { number: *number, capture, looked: self.now() })),
                    // What is told of it comes again; what is told of others is kept.
                    Err(error) => tracing::error!(%resource, error = format!("{error:#}"), "the bucket cannot be begun with"),
                },
            }
        }
        let captures = feed.captures.values().map(|kept| kept.capture.clone()).collect();
        feed.intake.serve(captures, through_it.keys().cloned().collect());
        let report = feed.intake.round(&batch).await?;
        Ok(Captured { report, again: batch.left() })
    }

    /// Gives messages of a queue back that are not durable, by what the queue wants to see of them, so that they come again soon.
    pub async fn give_back(&self, queue: &str, receipts: &[String]) {
        if receipts.is_empty() {
            return;
        }
        let Some((_, protections)) = self.protected.lock().await.clone() else { return };
        let urls = protections.iter().filter_map(|(_, protection)| protection.bucket()?.events.queue());
        let Some(url) = urls.into_iter().find(|url| url.rsplit('/').next() == Some(queue)) else { return };
        match self.client(url).await {
            Ok(client) => sqs::give_back(&client, url, receipts, AGAIN_AFTER).await,
            Err(error) => tracing::warn!(queue, error = format!("{error:#}"), "messages come again later than they could"),
        }
    }

    async fn client(&self, queue: &str) -> Result<aws_sdk_sqs::Client> {
        Ok(self.app.endpoint(None)?.sqs(queue).await?)
    }

    /// Lists the buckets of which a listing is due, or the one that is named, for as long as there is time.
    ///
    /// # Errors
    /// The vault's. What concerns one bucket is in what is returned.
    pub async fn reconcile(&self, only: Option<&ResourceId>, until: Timestamp) -> Result<Reconciled> {
        let mut reconciled = Reconciled::default();
        let mut waiting = Vec::new();
        for (_, protection) in self.protections().await?.iter() {
            let Some(bucket) = protection.bucket() else { continue };
            let (readings, gaps) = coverage::facts(&self.vault().await?.vault, &protection.resource).await?;
            let due = due(&readings, &gaps, interval(bucket));
            if only.map_or_else(|| due.is_none_or(|due| due <= self.now()), |only| *only == protection.resource) {
                waiting.push((
                    self.begun.lock().await.get(&protection.resource).copied(),
                    due,
                    protection.resource.clone(),
                    bucket.clone(),
                ));
            }
        }
        waiting.sort_by_key(|(begun, due, ..)| (*begun, *due));
        for (_, _, resource, bucket) in waiting {
            self.begun.lock().await.insert(resource.clone(), self.now());
            match self.within(until, self.read_truth(&resource, &bucket)).await {
                None => drop(reconciled.waiting.insert(resource)),
                Some(Ok(reading)) => drop(reconciled.readings.insert(resource, reading)),
                Some(Err(error)) => {
                    tracing::error!(%resource, error = format!("{error:#}"), "a listing broke off");
                    reconciled.failed.insert(resource, format!("{error:#}"));
                }
            }
        }
        for (_, protection) in self.protections().await?.iter() {
            let Some(bucket) = protection.bucket() else { continue };
            let (readings, gaps) = coverage::facts(&self.vault().await?.vault, &protection.resource).await?;
            let late = due(&readings, &gaps, interval(bucket)).map_or(protection.since.plus(LATE_AFTER.1), |due| due.plus(LATE_AFTER.0));
            if late < self.now() {
                reconciled.late.insert(protection.resource.clone());
            }
        }
        Ok(reconciled)
    }

    /// Lists one bucket; the first time twice, because the second listing proves the first.
    async fn read_truth(&self, resource: &ResourceId, bucket: &BucketProtection) -> Result<Reconciliation> {
        let mut capture = self.capture_of(resource, bucket).await?;
        let mut events = EventsOn::known(&capture).await?;
        loop {
            let reading = reconcile(&mut capture, &Quiet, listed_every(bucket)).await?;
            let news = match bucket.events {
                Events::List { .. } => None,
                _ => events.heard(&capture, reading.events_on).await?,
            };
            match news {
                Some(News::Off(from)) => {
                    tracing::error!(%resource, %from, "events are turned off at the bucket: only listings find its changes")
                }
                Some(News::OnAgain(from)) => tracing::info!(%resource, %from, "events are on again; the next listing closes the gap"),
                None => {}
            }
            let (readings, gaps) = coverage::facts(capture.vault(), resource).await?;
            let now = self.now();
            let wait = due(&readings, &gaps, interval(bucket)).map_or(Duration::ZERO, |due| due.since(now));
            if news.is_none() && wait > Duration::from_secs(5) {
                return Ok(reading);
            }
            // It proves nothing of the last two seconds.
            self.app.clock.sleep(wait.clamp(Duration::from_secs(3), Duration::from_secs(5))).await;
        }
    }

    /// Compacts every change log, or the one that is named, for as long as there is time.
    ///
    /// # Errors
    /// The vault's. What concerns one resource is in what is returned.
    pub async fn compact(&self, only: Option<&ResourceId>, until: Timestamp) -> Result<Compacted> {
        let mut compacted = Compacted::default();
        let vault = &self.vault().await?.vault;
        let protections = self.protections().await?;
        let named =
            protections.iter().map(|(_, protection)| &protection.resource).filter(|resource| only.is_none_or(|only| only == *resource));
        let mut waiting: Vec<ResourceId> = named.cloned().collect();
        let begun = self.begun.lock().await.clone();
        waiting.sort_by_key(|resource| begun.get(resource).copied());
        for resource in waiting {
            self.begun.lock().await.insert(resource.clone(), self.now());
            match self.within(until, compact(vault, &resource, self.app.clock.as_ref(), Policy::default())).await {
                None => drop(compacted.waiting.insert(resource)),
                Some(Ok(report)) => drop(compacted.reports.insert(resource, report)),
                Some(Err(error)) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::error!(%resource, error, "compaction broke off; the next one goes on");
                    compacted.failed.insert(resource, error);
                }
            }
        }
        Ok(compacted)
    }

    /// Restores what a request asks for, which is what `hindsight restore --request` reads, or says how far it has come.
    ///
    /// # Errors
    /// A request that cannot be understood or not be restored; the vault's and the target's.
    pub async fn restore(&self, request: serde_json::Value, until: Timestamp) -> Result<Restored> {
        let asked = Asked::from_json(request.clone())?;
        asked.require_for_functions()?;
        let Prepared { opened, plan, request: prepared, target } = prepare(&self.app, &self.flag, &asked).await?;
        if prepared.options.mode == Some(Mode::Exact) && !asked.dry_run && !asked.yes {
            let reason =
                "mode exact removes what did not exist at that time: say \"yes\": true, or look at it first with \"dry-run\": true";
            return Err(Failure::refused(reason).into());
        }
        // Whoever goes on with it means the same instant.
        let mut request = request;
        request["to"] = plan.to.to_string().into();
        let written = Written::default();
        let work = restore(&opened.vault, &prepared, &target, self.app.clock.as_ref(), &written);
        let report = self.within(until, work).await.transpose()?;
        let gets_on = written.0.load(Ordering::Relaxed) > 0 && prepared.options.selection.versions == Versions::Current && !asked.dry_run;
        if report.is_none() && !gets_on {
            let reason = "there was not enough time, and the next call would get no further: what takes so long (several versions of each object, millions of objects, a dry run of them) is done by `hindsight restore`, wherever there is time";
            return Err(Failure::refused(reason).into());
        }
        Ok(Restored { done: report.is_some(), request, report })
    }

    /// Does something, unless there is no time left for it; none if it was not done, or not to its end.
    async fn within<T>(&self, until: Timestamp, work: impl Future<Output = T>) -> Option<T> {
        let left = until.minus(MARGIN).since(self.now());
        if left.is_zero() {
            return None;
        }
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.app.clock.sleep(left) => None,
        }
    }
}

/// What kind of failure it is, in a word that a program can go by.
pub fn kind(error: &anyhow::Error) -> &'static str {
    match exit::kind(error) {
        Some(Kind::Usage) => "InvalidRequest",
        Some(Kind::Refused) => "Refused",
        None => "Failed",
    }
}

/// Whether requests about it can be answered by a function.
fn is_bucket(resource: &str) -> bool {
    resource.parse::<ResourceId>().is_ok_and(|resource| resource.kind() == ResourceKind::Bucket)
}

impl Asked {
    /// A request as JSON.
    ///
    /// # Errors
    /// What is no request, with what is wrong.
    pub(crate) fn from_json(request: serde_json::Value) -> Result<Asked, Failure> {
        serde_json::from_value(request).map_err(|error| Failure::usage(format!("the request cannot be understood: {error}")))
    }

    /// Whether a function can do it: it has no files of its own, and no programs of a database.
    fn require_for_functions(&self) -> Result<(), Failure> {
        let (resource, target) = (self.resource()?, self.target()?);
        if !is_bucket(resource) || !target.starts_with("s3://") {
            let reason = format!("{resource} to {target}: functions restore buckets to buckets; run `hindsight restore` for anything else");
            return Err(Failure::usage(reason));
        }
        match self.reads_files() {
            true => Err(Failure::usage("keys-from names a file, and a function has none: write the keys as \"key\": [...]")),
            false => Ok(()),
        }
    }
}
