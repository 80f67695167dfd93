//! Reading the truth on schedule: the first full backup, reconciliation, and listing as a source.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use handlers::capture::Capture;
use handlers::health::{Part, interval};
use handlers::protection::{BucketProtection, Events};
use handlers::reconcile::{ScanProgress, due, reconcile};
use pipeline::changelog::coverage::{self, Gap, Reconciliation};
use pipeline::model::{Clock, ResourceId, Timestamp};

use super::metrics::Metrics;
use super::pace::{patience, wait_or};
use super::troubles::Troubles;
use super::watch::Watch;

/// How long after a gap has ended a listing begins that is to close it: it proves nothing of the last two seconds.
const BEHIND_GAP: Duration = Duration::from_secs(3);
/// How long to wait after a listing that broke off: the first time, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// How many listed versions make a line in the log.
const TOLD_EVERY: u64 = 100_000;

/// The schedule of one bucket's listings.
pub struct Truth {
    capture: Capture,
    every: Duration,
    listing_only: bool,
    metrics: Arc<Metrics>,
    troubles: Arc<Troubles>,
    readings: Vec<Reconciliation>,
    /// Those there were when it began; [`Watch`] asks for a listing where another one has ended.
    gaps: Vec<Gap>,
}

/// Readings that are remembered.
const READINGS_MAX: usize = 16;

impl Truth {
    /// Begins where the vault stands.
    pub async fn begin(capture: &Capture, protection: &BucketProtection, metrics: Arc<Metrics>, troubles: Arc<Troubles>) -> Result<Truth> {
        let (readings, gaps) = coverage::facts(capture.vault(), capture.resource()).await?;
        if let Some(last) = readings.last() {
            metrics.last_reading(capture.resource(), last);
        }
        let listing_only = matches!(protection.events, Events::List { .. });
        Ok(Truth { capture: capture.clone(), every: interval(protection), listing_only, metrics, troubles, readings, gaps })
    }

    /// Lists for ever.
    pub async fn run(mut self, watch: &Watch) {
        let (resource, clock) = (self.capture.resource().clone(), Arc::clone(self.capture.clock()));
        let mut failures = 0;
        self.tell_window();
        loop {
            if wait_or(clock.as_ref(), self.due_in(clock.now(), failures), &watch.read_now).await {
                clock.sleep(BEHIND_GAP).await;
            }
            let first = self.readings.is_empty();
            let progress = Told { resource: &resource, first };
            match reconcile(&mut self.capture, &progress, self.listing_only.then_some(self.every)).await {
                Ok(reading) => {
                    failures = 0;
                    let Reconciliation { listed, found, purged, lost, .. } = reading;
                    if lost > 0 && !first {
                        tracing::warn!(%resource, lost, "contents were gone, or could not be read, when they were found; `hindsight history -r` names them");
                    }
                    if first {
                        tracing::info!(%resource, listed, lost, "first full backup completed");
                    } else if found + purged + lost > 0 && !self.listing_only {
                        tracing::info!(%resource, listed, found, purged, lost, "reconciled: kept what events had not brought yet");
                    } else {
                        tracing::debug!(%resource, listed, found, purged, lost, "reconciled");
                    }
                    self.metrics.reading(&resource, &reading);
                    watch.heard(&self.capture, reading.events_on).await;
                    self.mark(&reading).await;
                    self.remember(reading);
                    self.tell_window();
                }
                Err(error) => {
                    failures += 1;
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(%resource, error, "a listing broke off; the next one goes on");
                    self.troubles.note(Part::Listing, error).await;
                }
            }
        }
    }

    /// The first says where the window begins, the newest where it ends.
    fn remember(&mut self, reading: Reconciliation) {
        self.readings.push(reading);
        if self.readings.len() > READINGS_MAX {
            self.readings.remove(1);
        }
    }

    /// How long until the next listing.
    fn due_in(&self, now: Timestamp, failures: u32) -> Duration {
        if failures > 0 {
            return patience(failures, BACKOFF);
        }
        due(&self.readings, &self.gaps, self.every).map_or(Duration::ZERO, |due| due.since(now).min(self.every))
    }

    /// Where nothing is proven and no events come, a listing is all that can arrive: it moves the mark.
    async fn mark(&self, reading: &Reconciliation) {
        if !self.listing_only || reading.versioned {
            return;
        }
        let until = Timestamp::from_micros(reading.began.floor_second().micros() - 1);
        if let Err(error) = self.capture.append(&[], Some(until)).await {
            tracing::warn!(resource = %self.capture.resource(), error = format!("{:#}", anyhow::Error::new(error)), "the mark could not be moved");
        }
    }

    fn tell_window(&self) {
        let Some(window) = coverage::window(None, &self.readings, &[]) else { return };
        self.metrics.window(self.capture.resource(), window.earliest, window.proven);
    }
}

/// Tells the log how far a listing got.
struct Told<'a> {
    resource: &'a ResourceId,
    first: bool,
}

impl ScanProgress for Told<'_> {
    fn listed(&self, listed: u64, found: u64) {
        const PAGE: u64 = 1_000;
        if self.first && listed % TOLD_EVERY < PAGE && listed >= TOLD_EVERY {
            tracing::info!(resource = %self.resource, listed, found, "first full backup goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let waits: Vec<u64> = (1..=8).map(|failures| patience(failures, BACKOFF).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
    }
}
