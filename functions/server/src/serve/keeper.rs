//! Keeping one protected bucket.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::{join, join4};
use handlers::capture::Capture;
use handlers::compact::compact;
use handlers::health::Part;
use handlers::lag::{self, Lag};
use handlers::protection::{Events, Protection};
use pipeline::base::plan::Policy;
use pipeline::model::Timestamp;

use super::feeds::{FeedName, Feeds};
use super::metrics::Metrics;
use super::troubles::Troubles;
use super::truth::Truth;
use super::watch::Watch;
use crate::app::App;
use crate::sources::{Stop, stopped};
use crate::vaults::OpenVault;

/// How long to wait before a bucket that could not be opened is tried again: the first time, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// When small segments are merged for the first time, and how often then. Whether a base is due is for the plan to say.
const COMPACT: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3_600));
/// How often it is said that a bucket's events cannot come.
const REMIND: Duration = Duration::from_secs(900);
/// When the measured lag is first written down, and how often then.
const LAG: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(900));

/// One protection at work.
pub struct Keeper {
    /// Settings and clock.
    pub app: App,
    /// Where the changes go.
    pub vault: OpenVault,
    /// What is protected, and how.
    pub protection: Protection,
    /// Where events come from.
    pub feeds: Arc<Feeds>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// When to end.
    pub stop: Stop,
}

impl Keeper {
    /// Keeps the bucket until it is time to end.
    pub async fn run(self) {
        self.metrics.expect(&self.protection, &self.vault.place.name);
        let troubles = Arc::new(Troubles::new(&self.app, &self.vault, &self.protection.resource, &self.metrics));
        let mut backoff = BACKOFF.0;
        loop {
            let result = tokio::select! {
                result = self.keep(&troubles) => result,
                () = stopped(&self.stop) => break,
            };
            let Err(error) = result else { break };
            let error = format!("{error:#}");
            tracing::error!(resource = %self.protection.resource, error, "it could not be opened; it is tried again");
            tokio::select! {
                () = async {
                    troubles.note(Part::Opening, error).await;
                    self.app.clock.sleep(backoff).await;
                } => {}
                () = stopped(&self.stop) => break,
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
        if let Some(feed) = self.feed() {
            self.feeds.remove(&feed, &self.protection.resource);
        }
        self.write_lag().await;
    }

    fn feed(&self) -> Option<FeedName> {
        FeedName::of(&self.protection)
    }

    async fn keep(&self, troubles: &Arc<Troubles>) -> Result<()> {
        let Protection { resource, events, endpoint, acls, .. } = &self.protection;
        let reader = self.app.reader(resource, endpoint.as_deref(), *acls).await?;
        let copying = self.vault.place.copying(&self.app.endpoint(endpoint.as_deref())?).await?;
        let capture = Capture::open(self.vault.vault.clone(), resource.clone(), reader, Arc::clone(&self.app.clock)).await?;
        let capture = capture.with_copying(copying);
        let watch = Watch::begin(&capture, events, Arc::clone(&self.metrics), Arc::clone(troubles)).await?;
        let how = match events {
            Events::Sqs { url } => format!("sqs:{url}"),
            Events::Webhook => "webhook".to_owned(),
            Events::List { seconds } => format!("list:{seconds}"),
        };
        tracing::info!(%resource, vault = self.vault.place.name, events = how, versions = capture.known(|known| known.len()), "keeping its changes");
        let truth = Truth::begin(&capture, &self.protection, Arc::clone(&self.metrics), Arc::clone(troubles)).await?;
        self.metrics.track(&capture);
        // Events flow before the first listing begins, so that what happens meanwhile is seen by one or the other.
        let feed = self.feed();
        let no_posts = self.feeds.no_posts().filter(|_| feed == Some(FeedName::Webhook));
        if let Some(feed) = feed.filter(|_| no_posts.is_none()) {
            self.feeds.add(feed, &self.app.endpoint(endpoint.as_deref())?, capture.clone(), troubles).await?;
        }
        let work = join4(truth.run(&watch), watch.run(capture.clone()), self.compact(&watch, troubles), self.measure());
        join(work, self.remind(no_posts, troubles)).await;
        Ok(())
    }

    /// Says again and again why nothing can be posted, if so. Listings find what still exists all the same.
    async fn remind(&self, no_posts: Option<String>, troubles: &Troubles) {
        let Some(reason) = no_posts else { return };
        loop {
            tracing::error!(resource = %self.protection.resource, reason, "only listings tell of its changes");
            troubles.note(Part::Feed, reason.clone()).await;
            self.app.clock.sleep(REMIND).await;
        }
    }

    /// Merges and bases, now and then.
    async fn compact(&self, watch: &Watch, troubles: &Troubles) {
        let resource = &self.protection.resource;
        self.app.clock.sleep(COMPACT.0).await;
        loop {
            match compact(&self.vault.vault, resource, self.app.clock.as_ref(), Policy::default()).await {
                Ok(report) => {
                    tracing::info!(%resource, segments = report.segments, base = report.base.map(|base| base.to_string()), "compacted");
                    if report.missing > 0 {
                        // What still exists of what they told is found by a listing.
                        watch.read_now.notify_one();
                    }
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(%resource, error, "compaction broke off; the next one goes on");
                    troubles.note(Part::Compaction, error).await;
                }
            }
            self.app.clock.sleep(COMPACT.1).await;
        }
    }

    /// Writes down the measured lag, now and then.
    async fn measure(&self) {
        self.app.clock.sleep(LAG.0).await;
        loop {
            let wait = if self.write_lag().await { LAG.1 } else { LAG.0 };
            self.app.clock.sleep(wait).await;
        }
    }

    async fn write_lag(&self) -> bool {
        let resource = &self.protection.resource;
        let Some((from, mut lags, lost)) = self.metrics.take_lags(resource, self.app.clock.now()) else { return false };
        let Some(lag) = Lag::of(from.max(Timestamp::default()), self.app.clock.now(), &mut lags, lost) else { return false };
        if let Err(error) = lag::record(&self.vault.vault, resource, &lag).await {
            tracing::debug!(%resource, %error, "the measured lag could not be written down");
        }
        true
    }
}
