//! Feeds of events: one task for each queue and for the webhook, however many protected buckets it tells of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use handlers::capture::Capture;
use handlers::health::Part;
use handlers::intake::Intake;
use handlers::protection::{Events, Protection};
use pipeline::changelog::coverage::{GAPS, Gap};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::source::Source;
use pipeline::vault::layout;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::metrics::Metrics;
use super::troubles::Troubles;
use crate::app::App;
use crate::endpoints::Endpoint;
use crate::exit::Failure;
use crate::sources::sqs::SqsSource;
use crate::sources::webhook::WebhookSource;
use crate::sources::{Stop, stopped};

/// How long to wait after a round that failed: the first time, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long a bucket may be strange to a feed before what is told of it counts as nobody's: longer than until a new protection is
/// noticed.
const STRANGE_MAX: Duration = Duration::from_secs(30);

/// What the names of consumer groups begin with.
pub(super) const GROUP: &str = "hindsight-";
/// Said where events are in Kafka, and this binary cannot read it.
pub(super) const NO_KAFKA: &str = "its events are in Kafka, which this program cannot read: run `hindsight-worker serve` instead";

/// Which feed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FeedName {
    /// A queue by its URL.
    Sqs(String),
    /// What is posted to this process.
    Webhook,
    /// A topic of Kafka, for one vault: two that take from it must not share what is in it.
    Kafka {
        /// Which of the configured clusters, or its brokers.
        cluster: String,
        /// The topic.
        topic: String,
        /// The vault's id.
        vault: String,
    },
}

impl FeedName {
    /// Where the events of a bucket come from that a vault protects; nowhere where it is only listed.
    pub fn of(protection: &Protection, vault: &str) -> Option<FeedName> {
        match &protection.bucket()?.events {
            Events::Sqs { url } => Some(FeedName::Sqs(url.clone())),
            Events::Webhook => Some(FeedName::Webhook),
            Events::Kafka { cluster, topic } => {
                Some(FeedName::Kafka { cluster: cluster.clone(), topic: topic.clone(), vault: vault.to_owned() })
            }
            Events::List { .. } | Events::Functions { .. } => None,
        }
    }
}

/// The buckets that a feed tells of.
#[derive(Default)]
struct Told {
    /// Those that are open.
    captures: BTreeMap<ResourceId, Filled>,
    /// Those that are protected, open or not.
    protected: BTreeSet<ResourceId>,
}

/// A bucket that a feed tells of.
#[derive(Clone)]
pub struct Filled {
    /// What keeps its changes.
    pub capture: Capture,
    /// Where it is noted what goes wrong.
    pub troubles: Arc<Troubles>,
    /// Has the truth read now.
    pub read_now: Arc<Notify>,
}

struct Running {
    told: watch::Sender<Told>,
    task: JoinHandle<()>,
}

/// All feeds of this process.
pub struct Feeds {
    app: App,
    metrics: Arc<Metrics>,
    webhook: Option<Arc<WebhookSource>>,
    stop: Stop,
    running: Mutex<BTreeMap<FeedName, Running>>,
    /// Of each feed the buckets that are protected through it.
    protected: Mutex<BTreeMap<FeedName, BTreeSet<ResourceId>>>,
}

impl Feeds {
    /// No feeds yet. The webhook is there from the start, because it answers from the start.
    pub fn new(app: App, metrics: Arc<Metrics>, webhook: Option<WebhookSource>, stop: Stop) -> Feeds {
        Feeds { app, metrics, webhook: webhook.map(Arc::new), stop, running: Mutex::default(), protected: Mutex::default() }
    }

    /// Why nothing can be posted to this process; nothing where it can.
    pub fn no_posts(&self) -> Option<String> {
        let variable = &self.app.config.webhook_token_env;
        self.webhook
            .is_none()
            .then(|| format!("events are to be posted here, and there is no token to check: set {variable} or webhook_token_file"))
    }

    /// Which buckets are protected through each feed: what a feed tells of one that is not open yet, or not now, waits for it.
    pub fn expect(&self, protected: &BTreeMap<FeedName, BTreeSet<ResourceId>>) {
        self.protected.lock().unwrap_or_else(PoisonError::into_inner).clone_from(protected);
        for (name, running) in self.running().iter() {
            let now = protected.get(name).cloned().unwrap_or_default();
            running.told.send_if_modified(|told| {
                let is_news = told.protected != now;
                told.protected = now;
                is_news
            });
        }
    }

    /// Lets a feed fill a capture, too.
    ///
    /// # Errors
    /// A feed that cannot be asked.
    pub async fn add(&self, name: FeedName, endpoint: &Endpoint, filled: Filled) -> Result<()> {
        let (capture, resource) = (filled.capture.clone(), filled.capture.resource().clone());
        if let Some(running) = self.running().get(&name) {
            running.told.send_modify(|told| drop(told.captures.insert(resource, filled)));
            return Ok(());
        }
        let source: Arc<dyn Source> = match &name {
            FeedName::Sqs(url) => {
                let may_be_hidden = capture.latest() > Timestamp::default();
                Arc::new(SqsSource::new(endpoint.sqs(url).await?, url, Arc::clone(&self.app.clock), self.stop.clone(), may_be_hidden))
            }
            FeedName::Webhook => match &self.webhook {
                Some(source) => Arc::clone(source) as Arc<dyn Source>,
                None => anyhow::bail!(self.no_posts().unwrap_or_default()),
            },
            FeedName::Kafka { cluster, topic, vault } => {
                let topic = self.app.topic(cluster, topic, format!("{GROUP}{vault}"))?;
                let topics = self.app.abilities.kafka.as_ref().context(NO_KAFKA)?;
                topics.open(&topic, Arc::clone(&self.app.clock), self.stop.clone()).map_err(Failure::broken)?
            }
        };
        let intake = Intake::new(Vec::new(), capture.vault().clone(), Arc::clone(&self.app.clock), !endpoint.is_aws());
        let intake = intake.with_patience(STRANGE_MAX);
        // Whoever was faster has begun the same feed: then this one is not needed.
        let protected = self.protected.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned().unwrap_or_default();
        let mut running = self.running();
        let running = running.entry(name).or_insert_with(|| {
            let (told, changes) = watch::channel(Told { protected, ..Told::default() });
            let feed = Feed { app: self.app.clone(), metrics: Arc::clone(&self.metrics), stop: self.stop.clone(), source, intake, changes };
            Running { told, task: tokio::spawn(feed.run()) }
        });
        running.told.send_modify(|told| drop(told.captures.insert(resource, filled)));
        Ok(())
    }

    /// Lets a feed fill a capture no more.
    pub fn remove(&self, name: &FeedName, resource: &ResourceId) {
        if let Some(running) = self.running().get(name) {
            running.told.send_modify(|told| drop(told.captures.remove(resource)));
        }
    }

    /// Waits for the rounds that have begun.
    pub async fn end(&self) {
        let running = std::mem::take(&mut *self.running());
        for (_, Running { mut task, .. }) in running {
            if tokio::time::timeout(super::GRACE, &mut task).await.is_err() {
                task.abort();
            }
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<FeedName, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One feed.
struct Feed {
    app: App,
    metrics: Arc<Metrics>,
    stop: Stop,
    source: Arc<dyn Source>,
    intake: Intake,
    changes: watch::Receiver<Told>,
}

impl Feed {
    /// A feed that is at rest is a trouble of every bucket that it tells of.
    async fn note(&self, error: &str) {
        let concerned: Vec<Arc<Troubles>> = self.changes.borrow().captures.values().map(|filled| Arc::clone(&filled.troubles)).collect();
        for troubles in concerned {
            troubles.note(Part::Feed, error.to_owned()).await;
        }
    }

    /// Remembers up to where everything had arrived, the first time.
    fn remember_marks(&self, lost_from: &mut BTreeMap<ResourceId, Timestamp>) {
        for (resource, filled) in &self.changes.borrow().captures {
            lost_from.entry(resource.clone()).or_insert_with(|| filled.capture.latest());
        }
    }

    /// What this feed was told since these marks, and until `to`, is lost: for each bucket that is a gap, and the truth is read. Returns the
    /// marks of those for which it could not be written down: it is tried again.
    async fn note_lost(&self, lost_from: BTreeMap<ResourceId, Timestamp>, to: Timestamp, reason: &str) -> BTreeMap<ResourceId, Timestamp> {
        let concerned: Vec<(Timestamp, Filled)> = {
            let told = self.changes.borrow();
            lost_from.iter().filter_map(|(resource, from)| Some((*from, told.captures.get(resource)?.clone()))).collect()
        };
        let mut unwritten = BTreeMap::new();
        for (mark, Filled { capture, read_now, .. }) in concerned {
            let resource = capture.resource();
            // One that was never protected before has no marks: its first listing begins now.
            if mark == Timestamp::default() {
                continue;
            }
            let from = Timestamp::from_micros(mark.micros() + 1);
            tracing::error!(%resource, %from, reason, "what happened since then is read from the bucket");
            let gap = Gap::without_events(from, Some(to), reason);
            match capture.vault().append_record(&layout::state_folder(GAPS, resource), &gap).await {
                Ok(_) => read_now.notify_one(),
                Err(error) => {
                    tracing::error!(%resource, %error, "a gap could not be written down; it is tried again");
                    unwritten.insert(resource.clone(), mark);
                }
            }
        }
        unwritten
    }

    /// What a queue was told longer ago than it keeps it, and behind the last mark, is lost. Once for each mark.
    async fn note_expired(
        &self,
        mut marks: BTreeMap<ResourceId, Timestamp>,
        asked: Timestamp,
        noted: &mut BTreeMap<ResourceId, Timestamp>,
    ) {
        let Some(keeps) = self.source.keeps() else { return };
        marks.retain(|resource, mark| asked.since(*mark) > keeps && noted.get(resource) != Some(mark));
        if marks.is_empty() {
            return;
        }
        let reason = format!("{} keeps a message for {} s, and nobody took them for longer", self.source.stream(), keeps.as_secs());
        let unwritten = self.note_lost(marks.clone(), asked.minus(keeps), &reason).await;
        noted.extend(marks.into_iter().filter(|(resource, _)| !unwritten.contains_key(resource)));
    }

    async fn run(mut self) {
        let mut backoff = BACKOFF.0;
        let mut serves = 0;
        // Of each bucket that this feed tells of the last mark before something of it was lost, and why that was.
        let (mut lost_from, mut lost_why) = (BTreeMap::new(), String::new());
        // The same of those of which something was told that was kept only as a dead letter.
        let mut dropped_from = BTreeMap::new();
        // The marks behind which messages were dropped because nobody had taken them for too long.
        let mut expired_from = BTreeMap::new();
        while !*self.stop.borrow() {
            if self.changes.has_changed().unwrap_or(false) {
                let (captures, protected) = {
                    let told = self.changes.borrow_and_update();
                    let captures: Vec<Capture> = told.captures.values().map(|filled| filled.capture.clone()).collect();
                    (captures, told.protected.clone())
                };
                serves = captures.len();
                self.intake.serve(captures, protected);
                let dropped = self.intake.take_dropped();
                if !dropped.is_empty() {
                    let mut from = BTreeMap::new();
                    self.remember_marks(&mut from);
                    from.retain(|resource, _| dropped.contains(resource));
                    dropped_from.append(&mut from);
                }
            }
            if !dropped_from.is_empty() {
                const REASON: &str = "what was told of the bucket before it was protected was not kept";
                dropped_from = self.note_lost(std::mem::take(&mut dropped_from), self.app.clock.now(), REASON).await;
            }
            if serves == 0 {
                tokio::select! {
                    changed = self.changes.changed() => match changed {
                        Ok(()) => self.changes.mark_changed(),
                        Err(_) => return,
                    },
                    () = stopped(&self.stop) => return,
                }
                continue;
            }
            let (asked, mut marks) = (self.app.clock.now(), BTreeMap::new());
            self.remember_marks(&mut marks);
            match self.intake.round(self.source.as_ref()).await {
                Ok(report) => {
                    if let Some(why) = self.source.lost() {
                        lost_why = why;
                        for (resource, mark) in &marks {
                            lost_from.entry(resource.clone()).or_insert(*mark);
                        }
                    }
                    self.note_expired(marks, asked, &mut expired_from).await;
                    if !lost_from.is_empty() {
                        lost_from = self.note_lost(std::mem::take(&mut lost_from), self.app.clock.now(), &lost_why).await;
                    }
                    self.metrics.round(self.source.stream(), &report, self.app.clock.now());
                    backoff = BACKOFF.0;
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    if let Some(why) = self.source.lost() {
                        lost_why = why;
                        tracing::error!(
                            stream = self.source.stream(),
                            error,
                            "a round failed; something that was told there and had not been received is lost"
                        );
                        self.remember_marks(&mut lost_from);
                    } else {
                        tracing::warn!(stream = self.source.stream(), error, "a round failed; its events come again");
                    }
                    tokio::select! {
                        () = async {
                            self.note(&error).await;
                            self.app.clock.sleep(backoff).await;
                        } => {}
                        () = stopped(&self.stop) => return,
                    }
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }
}
