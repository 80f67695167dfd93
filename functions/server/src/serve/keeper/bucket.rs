//! Keeping one protected bucket.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::{join, join4};
use handlers::capture::Capture;
use handlers::health::Part;
use handlers::protection::BucketProtection;

use super::Keeper;
use crate::serve::feeds::{FeedName, Filled};
use crate::serve::troubles::Troubles;
use crate::serve::truth::Truth;
use crate::serve::watch::Watch;

/// How often it is said that a bucket's events cannot come.
const REMIND: Duration = Duration::from_secs(900);

impl Keeper {
    /// Keeps a bucket as long as it can.
    pub(super) async fn keep_bucket(&self, protection: &BucketProtection, troubles: &Arc<Troubles>) -> Result<()> {
        let resource = &self.protection.resource;
        let BucketProtection { events, endpoint, acls, .. } = protection;
        let reader = self.app.reader(resource, endpoint.as_deref(), *acls).await?;
        let copying = self.vault.place.copying(&self.app.endpoint(endpoint.as_deref())?).await?;
        let capture = Capture::open(self.vault.vault.clone(), resource.clone(), reader, Arc::clone(&self.app.clock)).await?;
        let capture = capture.with_copying(copying);
        let watch = Watch::begin(&capture, events, Arc::clone(&self.metrics), Arc::clone(troubles)).await?;
        tracing::info!(%resource, vault = self.vault.place.name, %events, versions = capture.known(|known| known.len()), "keeping its changes");
        let truth = Truth::begin(&capture, protection, Arc::clone(&self.metrics), Arc::clone(troubles)).await?;
        self.metrics.track(&capture);
        // Events flow before the first listing begins, so that what happens meanwhile is seen by one or the other.
        let feed = self.feed();
        let no_posts = self.feeds.no_posts().filter(|_| feed == Some(FeedName::Webhook));
        if let Some(feed) = feed.filter(|_| no_posts.is_none()) {
            let filled = Filled { capture: capture.clone(), troubles: Arc::clone(troubles), read_now: Arc::clone(&watch.read_now) };
            self.feeds.add(feed, &self.app.endpoint(endpoint.as_deref())?, filled).await?;
        }
        // What still exists of what a missing segment told is found by a listing.
        let read_now = || watch.read_now.notify_one();
        let work = join4(truth.run(&watch), watch.run(capture.clone()), self.compact(troubles, read_now), self.measure());
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
}
