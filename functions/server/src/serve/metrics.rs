//! What is counted while serving, and how each protection is doing.

mod page;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use database::slot::SlotState;
use handlers::capture::Capture;
use handlers::health::{Facts, Health, Trouble, health};
use handlers::intake::IntakeReport;
use handlers::protection::{DatabaseProtection, Protection};
use pipeline::changelog::coverage::{Gap, Reconciliation, Window};
use pipeline::model::{Clock, ResourceId, ResourceKind, Timestamp};

/// Upper bounds of the histogram from event to durable, in seconds.
const BUCKETS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0];
/// Measured lags that are kept for the next record; beyond it, only counted.
const LAGS_MAX: usize = 1 << 20;

/// Everything that is counted.
#[derive(Default)]
pub struct Metrics {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    started: bool,
    feeds: BTreeMap<String, FeedCounts>,
    resources: BTreeMap<ResourceId, ResourceCounts>,
    errors: BTreeMap<&'static str, u64>,
    answers: BTreeMap<u16, u64>,
    refused_connections: u64,
}

#[derive(Default)]
struct FeedCounts {
    sum: IntakeReport,
    rounds: u64,
    last_round: Timestamp,
}

#[derive(Default)]
struct ResourceCounts {
    vault: String,
    protection: Option<Protection>,
    capture: Option<Capture>,
    earliest: Option<Timestamp>,
    proven: Option<Timestamp>,
    events_off_since: Option<Timestamp>,
    last_reading: Option<Reconciliation>,
    last_trouble: Option<Trouble>,
    reached: Option<Timestamp>,
    slot: Option<SlotState>,
    readings: u64,
    found: u64,
    purged: u64,
    lost: u64,
    histogram: [u64; BUCKETS.len()],
    lag_count: u64,
    lag_seconds: f64,
    lags_ms: Vec<u64>,
    lags_since: Option<Timestamp>,
}

impl ResourceCounts {
    /// Whether it is a database whose changes a connector tells.
    fn is_by_connector(&self) -> bool {
        self.protection.as_ref().and_then(Protection::database).is_some_and(DatabaseProtection::is_by_connector)
    }
}

impl Metrics {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resource<T>(&self, resource: &ResourceId, change: impl FnOnce(&mut ResourceCounts) -> T) -> T {
        change(self.inner().resources.entry(resource.clone()).or_default())
    }

    /// Everything that is protected has been begun.
    pub fn set_started(&self) {
        self.inner().started = true;
    }

    /// Why this process is not ready, a line for each reason; none if it is.
    pub fn not_ready(&self, now: Timestamp) -> Vec<String> {
        let inner = self.inner();
        if !inner.started {
            return vec!["what is protected has not been read yet".to_owned()];
        }
        let mut reasons = Vec::new();
        for (resource, counts) in &inner.resources {
            match counts.health(now) {
                _ if counts.earliest.is_none() => reasons.push(format!("{resource}: the first full backup has not completed")),
                Some(health) if !health.is_kept() => {
                    reasons.extend(health.complaints(now).into_iter().map(|complaint| format!("{resource}: {complaint}")));
                }
                _ => {}
            }
        }
        reasons
    }

    /// How everything that is protected is doing, a line each and one for each complaint.
    pub fn state(&self, now: Timestamp) -> Vec<String> {
        let inner = self.inner();
        let mut lines = Vec::new();
        for (resource, counts) in &inner.resources {
            let Some(health) = counts.health(now) else {
                lines.push(format!("{resource}: being opened"));
                continue;
            };
            let source = match (&health.listing, &counts.slot) {
                (Some(listing), _) => format!("last listed at {} in {:.1} s", listing.ended, listing.took_seconds),
                (None, Some(slot)) => format!("slot {} {}, {} bytes of log wait for it", slot.slot, slot.status, slot.retained_bytes),
                (None, None) if counts.is_by_connector() => "told by a connector".to_owned(),
                (None, None) if resource.kind() == ResourceKind::Database => "slot not seen yet".to_owned(),
                (None, None) => "never listed".to_owned(),
            };
            let latest = health.latest_lag_seconds.map_or_else(|| "nothing restorable".to_owned(), |lag| format!("latest {lag} s ago"));
            lines.push(format!("{resource}: {latest}, {source}"));
            lines.extend(health.complaints(now).into_iter().map(|complaint| format!("{resource}: {complaint}")));
        }
        lines
    }

    /// A protection is about to be opened; until its window opens, this process is not ready.
    pub fn expect(&self, protection: &Protection, vault: &str) {
        self.resource(&protection.resource, |counts| {
            vault.clone_into(&mut counts.vault);
            counts.protection = Some(protection.clone());
        });
    }

    /// Shows a resource.
    pub fn track(&self, capture: &Capture) {
        self.resource(capture.resource(), |counts| {
            counts.capture = Some(capture.clone());
            counts.lags_since = Some(capture.clock().now());
        });
    }

    /// Shows a resource no more.
    pub fn forget(&self, resource: &ResourceId) {
        self.inner().resources.remove(resource);
    }

    /// Something went wrong there.
    pub fn error(&self, part: &'static str) {
        *self.inner().errors.entry(part).or_default() += 1;
    }

    /// The webhook answered with this status.
    pub fn answered(&self, status: u16) {
        *self.inner().answers.entry(status).or_default() += 1;
    }

    /// A connection was closed because as many as may were open.
    pub fn refused_connection(&self) {
        self.inner().refused_connections += 1;
    }

    /// The window as readings of the truth prove it.
    pub fn window(&self, resource: &ResourceId, earliest: Timestamp, proven: Option<Timestamp>) {
        self.resource(resource, |counts| (counts.earliest, counts.proven) = (Some(earliest), proven));
    }

    /// Everything that was committed up to then is durable.
    pub fn reached(&self, resource: &ResourceId, latest: Timestamp) {
        self.resource(resource, |counts| counts.reached = counts.reached.max(Some(latest)));
    }

    /// How the replication slot of a database is.
    pub fn slot(&self, resource: &ResourceId, state: &SlotState) {
        self.resource(resource, |counts| counts.slot = Some(state.clone()));
    }

    /// Since when events are known to be off.
    pub fn events_off(&self, resource: &ResourceId, since: Option<Timestamp>) {
        self.resource(resource, |counts| counts.events_off_since = since);
    }

    /// The last reading of the truth, whoever did it.
    pub fn last_reading(&self, resource: &ResourceId, reading: &Reconciliation) {
        self.resource(resource, |counts| counts.last_reading = Some(reading.clone()));
    }

    /// What a reading of the truth found here.
    pub fn reading(&self, resource: &ResourceId, reading: &Reconciliation) {
        self.last_reading(resource, reading);
        self.resource(resource, |counts| {
            counts.readings += 1;
            counts.found += reading.found;
            counts.purged += reading.purged;
            counts.lost += reading.lost;
        });
    }

    /// What went wrong last with a resource.
    pub fn trouble(&self, resource: &ResourceId, trouble: Trouble) {
        self.resource(resource, |counts| counts.last_trouble = Some(trouble));
    }

    /// What a round of intake came to.
    pub fn round(&self, stream: &str, report: &IntakeReport, now: Timestamp) {
        let mut inner = self.inner();
        let feed = inner.feeds.entry(stream.to_owned()).or_default();
        feed.rounds += 1;
        feed.last_round = now;
        let sum = &mut feed.sum;
        for (sum, more) in [
            (&mut sum.messages, report.messages),
            (&mut sum.changes, report.changes),
            (&mut sum.bytes, report.bytes),
            (&mut sum.lost, report.lost),
            (&mut sum.outdated, report.outdated),
            (&mut sum.known, report.known),
            (&mut sum.dead, report.dead),
            (&mut sum.ignored, report.ignored),
            (&mut sum.again, report.again),
        ] {
            *sum += more;
        }
        for (resource, lags) in &report.lags_ms {
            let counts = inner.resources.entry(resource.clone()).or_default();
            for &lag in lags {
                let seconds = lag as f64 / 1_000.0;
                if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
                    counts.histogram[bucket] += 1;
                }
                counts.lag_count += 1;
                counts.lag_seconds += seconds;
            }
            let room = LAGS_MAX.saturating_sub(counts.lags_ms.len());
            counts.lags_ms.extend(lags.iter().take(room));
        }
    }

    /// Takes what was measured since the last time: since when, the lags in milliseconds, and how many versions were lost.
    pub fn take_lags(&self, resource: &ResourceId, now: Timestamp) -> Option<(Timestamp, Vec<u64>, u64)> {
        let mut inner = self.inner();
        let counts = inner.resources.get_mut(resource).filter(|counts| !counts.lags_ms.is_empty())?;
        let since = counts.lags_since.replace(now).unwrap_or(now);
        Some((since, std::mem::take(&mut counts.lags_ms), counts.lost))
    }
}

impl ResourceCounts {
    /// The last restorable instant.
    fn latest(&self) -> Option<Timestamp> {
        self.fed().max(self.proven()).max(self.reached)
    }

    /// Up to when its feed is known to have told all.
    fn fed(&self) -> Option<Timestamp> {
        self.capture.as_ref().map(Capture::latest).filter(|at| *at > Timestamp::default())
    }

    /// The last proven instant: of a database all that was reached is.
    fn proven(&self) -> Option<Timestamp> {
        self.proven.max(self.reached)
    }

    /// How it is doing; none before it is known how it is protected.
    fn health(&self, now: Timestamp) -> Option<Health> {
        let gap = |from| Gap::without_events(from, None, "");
        let window = self.earliest.map(|earliest| Window {
            earliest,
            proven: self.proven(),
            latest: self.latest().map_or(earliest, |latest| latest.max(earliest)),
            gaps: self.events_off_since.map(gap).into_iter().collect(),
        });
        let facts = Facts {
            protection: self.protection.as_ref()?,
            window: window.as_ref(),
            fed: self.fed(),
            last: self.last_reading.as_ref(),
            trouble: self.last_trouble.as_ref(),
        };
        Some(health(&facts, now))
    }
}

#[cfg(test)]
mod tests {
    use handlers::health::Part;
    use handlers::protection::{BucketProtection, Events, How, Status};

    use super::*;

    fn protection() -> Protection {
        Protection {
            resource: ResourceId::bucket("photos").unwrap(),
            since: Timestamp::default(),
            how: How::Bucket(BucketProtection {
                events: Events::List { seconds: 10 },
                endpoint: None,
                acls: true,
                unversioned: false,
                reconcile_seconds: 10,
            }),
            status: Status::Active,
        }
    }

    fn reading(ended: i64) -> Reconciliation {
        let (began, ended) = (Timestamp::from_seconds(ended - 2), Timestamp::from_seconds(ended));
        Reconciliation::uneventful(began, ended)
    }

    #[test]
    fn a_listing_that_does_not_come_makes_the_process_not_ready_and_says_why() {
        let (metrics, protection) = (Metrics::default(), protection());
        let at = Timestamp::from_seconds;
        metrics.set_started();
        metrics.expect(&protection, "v");
        assert_eq!(metrics.not_ready(at(9)), ["s3://photos: the first full backup has not completed"]);
        metrics.window(&protection.resource, at(10), None);
        metrics.reading(&protection.resource, &reading(10));
        assert!(metrics.not_ready(at(20)).is_empty());
        let trouble = Trouble { at: at(21), part: Part::Listing, reason: "refused".to_owned(), times: 1 };
        metrics.trouble(&protection.resource, trouble);
        assert!(metrics.not_ready(at(22)).is_empty(), "one that broke off is tried again");
        let late = metrics.not_ready(at(100));
        assert_eq!(late.len(), 2, "{late:?}");
        assert!(late[0].contains("80 s late") && late[1].contains("listing went wrong at 1970-01-01T00:00:21Z: refused"), "{late:?}");
        assert_eq!(metrics.state(at(100))[0], "s3://photos: latest 90 s ago, last listed at 1970-01-01T00:00:10Z in 2.0 s");
        let text = metrics.text(at(100));
        for line in [
            "hindsight_last_listing_timestamp_seconds{resource=\"photos\",vault=\"v\"} 10",
            "hindsight_last_listing_duration_seconds{resource=\"photos\",vault=\"v\"} 2",
            "hindsight_listing_overdue{resource=\"photos\",vault=\"v\"} 1",
            "hindsight_feed_behind{resource=\"photos\",vault=\"v\"} 0",
            "hindsight_last_trouble_timestamp_seconds{resource=\"photos\",vault=\"v\",part=\"listing\"} 21",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_metric_stands_in_the_docs() {
        let docs = include_str!("../../../../docs/monitoring.md");
        let text = Metrics::default().text(Timestamp::from_seconds(10));
        for name in text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()) {
            assert!(docs.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_page_has_a_line_for_everything_that_is_known() {
        let metrics = Metrics::default();
        let resource = ResourceId::bucket("photos").unwrap();
        metrics.window(&resource, Timestamp::from_seconds(5), Some(Timestamp::from_seconds(8)));
        let lags_ms = BTreeMap::from([(resource.clone(), vec![40, 900, 7_200_000])]);
        metrics.round("sqs:q", &IntakeReport { messages: 3, changes: 2, lags_ms, ..IntakeReport::default() }, Timestamp::from_seconds(9));
        metrics.error("feed");
        let text = metrics.text(Timestamp::from_seconds(10));
        for line in [
            "hindsight_earliest_timestamp_seconds{resource=\"photos\",vault=\"\"} 5",
            "hindsight_watermark_lag_seconds{resource=\"photos\",vault=\"\"} 2",
            "hindsight_last_round_timestamp_seconds{stream=\"sqs:q\"} 9",
            "hindsight_messages_total{stream=\"sqs:q\"} 3",
            "hindsight_event_to_durable_seconds_bucket{resource=\"photos\",vault=\"\",le=\"0.05\"} 1",
            "hindsight_event_to_durable_seconds_bucket{resource=\"photos\",vault=\"\",le=\"3600\"} 2",
            "hindsight_event_to_durable_seconds_bucket{resource=\"photos\",vault=\"\",le=\"+Inf\"} 3",
            "hindsight_errors_total{part=\"feed\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(metrics.take_lags(&resource, Timestamp::from_seconds(10)).unwrap().1.len(), 3);
        assert!(metrics.take_lags(&resource, Timestamp::from_seconds(11)).is_none());
    }
}
