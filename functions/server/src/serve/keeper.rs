//! Keeping one protected resource.

mod bucket;
mod connector;
mod database;
mod machine;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use handlers::compact::compact;
use handlers::health::Part;
use handlers::lag::{self, Lag};
use handlers::protection::{How, Protection};
use pipeline::base::plan::Policy;
use pipeline::model::Timestamp;

use super::feeds::{FeedName, Feeds};
use super::metrics::Metrics;
use super::troubles::Troubles;
use crate::app::App;
use crate::sources::{Stop, stopped};
use crate::vaults::OpenVault;

/// How long to wait before what could not be opened is tried again: the first time, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// When small segments are merged for the first time, and how often then. Whether a base is due is for the plan to say.
const COMPACT: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3_600));
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
    /// Held while a backup of a machine is under way.
    pub backing_up: Arc<tokio::sync::Mutex<()>>,
}

impl Keeper {
    /// Keeps it until it is time to end.
    pub async fn run(self) {
        self.metrics.expect(&self.protection, &self.vault.place.name);
        let troubles = Arc::new(Troubles::new(&self.app, &self.vault, &self.protection.resource, &self.metrics));
        let mut backoff = BACKOFF.0;
        loop {
            let began = self.app.clock.now();
            let result = tokio::select! {
                result = self.keep(&troubles) => result,
                () = stopped(&self.stop) => break,
            };
            let Err(error) = result else { break };
            let error = format!("{error:#}");
            tracing::error!(resource = %self.protection.resource, error, "what keeps it could not begin, or broke off; it is tried again");
            if self.app.clock.now().since(began) > BACKOFF.1 {
                backoff = BACKOFF.0;
            }
            tokio::select! {
                () = async {
                    troubles.note(Part::Opening, error).await;
                    self.app.clock.sleep(backoff).await;
                } => {}
                () = stopped(&self.stop) => break,
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
        self.await_backup().await;
        if let Some(feed) = self.feed() {
            self.feeds.remove(&feed, &self.protection.resource);
        }
        self.write_lag().await;
    }

    fn feed(&self) -> Option<FeedName> {
        FeedName::of(&self.protection, &self.vault.record.id)
    }

    /// Ends with an error where it could not be kept, or not any longer.
    async fn keep(&self, troubles: &Arc<Troubles>) -> Result<()> {
        match &self.protection.how {
            How::Bucket(protection) => self.keep_bucket(protection, troubles).await,
            How::Database(protection) => self.keep_database(protection, troubles).await,
            How::Machine(protection) => self.keep_machine(protection, troubles).await,
        }
    }

    /// Merges and bases, now and then, for ever. `missing` hears that a part of the log is.
    async fn compact(&self, troubles: &Troubles, missing: impl Fn()) -> Infallible {
        let resource = &self.protection.resource;
        self.app.clock.sleep(COMPACT.0).await;
        loop {
            match compact(&self.vault.vault, resource, self.app.clock.as_ref(), Policy::default()).await {
                Ok(report) => {
                    tracing::info!(%resource, segments = report.segments, base = report.base.map(|base| base.to_string()), "compacted");
                    if report.missing > 0 {
                        missing();
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

    /// Writes down the measured lag, now and then, for ever.
    async fn measure(&self) -> Infallible {
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
