//! What is counted while serving, in Prometheus's text form.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use handlers::capture::Capture;
use handlers::intake::IntakeReport;
use pipeline::changelog::coverage::Reconciliation;
use pipeline::model::{ResourceId, Timestamp};

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
}

#[derive(Default)]
struct FeedCounts {
    sum: IntakeReport,
    rounds: u64,
}

#[derive(Default)]
struct ResourceCounts {
    vault: String,
    capture: Option<Capture>,
    earliest: Option<Timestamp>,
    proven: Option<Timestamp>,
    events_off: bool,
    listing_only: bool,
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

impl Metrics {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resource<T>(&self, resource: &ResourceId, change: impl FnOnce(&mut ResourceCounts) -> T) -> T {
        change(self.inner().resources.entry(resource.clone()).or_default())
    }

    /// Everything that is protected has been begun.
    pub fn is_started(&self) {
        self.inner().started = true;
    }

    /// Why this process is not ready; none if it is.
    pub fn not_ready(&self) -> Option<String> {
        let inner = self.inner();
        if !inner.started {
            return Some("what is protected has not been read yet".to_owned());
        }
        let closed = inner.resources.iter().find(|(_, counts)| counts.earliest.is_none());
        closed.map(|(resource, _)| format!("the first full backup of {resource} has not completed"))
    }

    /// A resource is about to be opened; until its window opens, this process is not ready.
    pub fn expect(&self, resource: &ResourceId, vault: &str) {
        self.resource(resource, |counts| vault.clone_into(&mut counts.vault));
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

    /// The window as readings of the truth prove it.
    pub fn window(&self, resource: &ResourceId, earliest: Timestamp, proven: Option<Timestamp>) {
        self.resource(resource, |counts| (counts.earliest, counts.proven) = (Some(earliest), proven));
    }

    /// Whether events are known to be off.
    pub fn events_off(&self, resource: &ResourceId, off: bool) {
        self.resource(resource, |counts| counts.events_off = off);
    }

    /// What a reading of the truth found.
    pub fn reading(&self, resource: &ResourceId, reading: &Reconciliation, listing_only: bool) {
        self.resource(resource, |counts| {
            counts.readings += 1;
            counts.found += reading.found;
            counts.purged += reading.purged;
            counts.lost += reading.lost;
            counts.listing_only = listing_only;
        });
    }

    /// What a round of intake came to.
    pub fn round(&self, stream: &str, report: &IntakeReport) {
        let mut inner = self.inner();
        let feed = inner.feeds.entry(stream.to_owned()).or_default();
        feed.rounds += 1;
        let sum = &mut feed.sum;
        for (sum, more) in [
            (&mut sum.messages, report.messages),
            (&mut sum.changes, report.changes),
            (&mut sum.bytes, report.bytes),
            (&mut sum.lost, report.lost),
            (&mut sum.outdated, report.outdated),
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

    /// Everything, as Prometheus reads it.
    pub fn text(&self, now: Timestamp) -> String {
        let inner = self.inner();
        let mut page = Page::default();
        let labels = |resource: &ResourceId, counts: &ResourceCounts| {
            format!("resource=\"{}\",vault=\"{}\"", resource.bucket_name(), escaped(&counts.vault))
        };
        let resources: Vec<(String, &ResourceCounts)> =
            inner.resources.iter().map(|(resource, counts)| (labels(resource, counts), counts)).collect();
        let seconds = |at: Option<Timestamp>| at.map(|at| at.micros() as f64 / 1e6);
        let latest = |counts: &ResourceCounts| {
            counts.capture.as_ref().map(Capture::latest).filter(|at| *at > Timestamp::default()).max(counts.proven)
        };
        let mut gauge = |name, help, value: &dyn Fn(&ResourceCounts) -> Option<f64>| {
            page.family(name, "gauge", help, resources.iter().map(|(labels, counts)| (labels.as_str(), value(counts))))
        };
        gauge("earliest_timestamp_seconds", "The first restorable instant.", &|counts| seconds(counts.earliest));
        gauge("proven_timestamp_seconds", "Nothing that still existed is missing up to here.", &|counts| seconds(counts.proven));
        gauge("latest_timestamp_seconds", "The last restorable instant.", &|counts| seconds(latest(counts)));
        gauge("watermark_lag_seconds", "How long ago the last restorable instant was.", &|counts| {
            latest(counts).map(|at| now.since(at).as_secs_f64())
        });
        gauge("proven_lag_seconds", "How long ago the last proven instant was.", &|counts| {
            counts.proven.map(|at| now.since(at).as_secs_f64())
        });
        gauge("events_off", "1 where the bucket is known not to send events.", &|counts| Some(f64::from(u8::from(counts.events_off))));
        gauge("known_versions", "Versions that the vault holds to be live.", &|counts| {
            counts.capture.as_ref().map(|capture| capture.known(|known| known.len()) as f64)
        });
        let mut counter = |name, help, value: &dyn Fn(&ResourceCounts) -> u64| {
            page.family(name, "counter", help, resources.iter().map(|(labels, counts)| (labels.as_str(), Some(value(counts) as f64))))
        };
        counter("reconciliations_total", "Readings of the truth.", &|counts| counts.readings);
        counter("reconciliation_found_total", "Versions that a listing found and the vault did not know.", &|counts| counts.found);
        counter("reconciliation_purged_total", "Versions that a listing found to be gone without an event.", &|counts| counts.purged);
        counter("reconciliation_lost_total", "Versions that a listing found and that could not be read.", &|counts| counts.lost);
        let copies = |counts: &ResourceCounts| counts.capture.as_ref().map(Capture::copies).unwrap_or_default();
        counter("copied_total", "Contents that the S3 server copied into the vault.", &|counts| copies(counts).copied);
        counter("copied_bytes_total", "Their bytes.", &|counts| copies(counts).copied_bytes);
        counter("copies_failed_total", "Copies that failed; those contents were read.", &|counts| copies(counts).failed);
        page.histogram(&resources);
        let feeds: Vec<(String, &FeedCounts)> =
            inner.feeds.iter().map(|(stream, counts)| (format!("stream=\"{}\"", escaped(stream)), counts)).collect();
        let mut counter = |name, help, value: &dyn Fn(&FeedCounts) -> u64| {
            page.family(name, "counter", help, feeds.iter().map(|(labels, counts)| (labels.as_str(), Some(value(counts) as f64))))
        };
        counter("rounds_total", "Rounds of intake.", &|counts| counts.rounds);
        counter("messages_total", "Messages that came.", &|counts| counts.sum.messages);
        counter("changes_total", "Changes that were kept.", &|counts| counts.sum.changes);
        counter("bytes_total", "Bytes of content that came with them.", &|counts| counts.sum.bytes);
        counter("lost_total", "Versions that were gone before they could be read.", &|counts| counts.sum.lost);
        counter("outdated_total", "Old puts of versions that are gone.", &|counts| counts.sum.outdated);
        counter("dead_letters_total", "Events that could not be decoded and were kept whole.", &|counts| counts.sum.dead);
        counter("ignored_total", "Events that change nothing that is kept.", &|counts| counts.sum.ignored);
        counter("again_total", "Messages that were left to come again.", &|counts| counts.sum.again);
        let errors = inner.errors.iter().map(|(part, count)| (format!("part=\"{part}\""), *count));
        let errors: Vec<(String, u64)> = errors.collect();
        page.family(
            "errors_total",
            "counter",
            "What went wrong and was tried again.",
            errors.iter().map(|(labels, count)| (labels.as_str(), Some(*count as f64))),
        );
        page.text
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family<'a>(&mut self, name: &str, kind: &str, help: &str, samples: impl Iterator<Item = (&'a str, Option<f64>)>) {
        let _ = write!(self.text, "# HELP hindsight_{name} {help}\n# TYPE hindsight_{name} {kind}\n");
        for (labels, value) in samples {
            if let Some(value) = value {
                let _ = writeln!(self.text, "hindsight_{name}{{{labels}}} {value}");
            }
        }
    }

    fn histogram(&mut self, resources: &[(String, &ResourceCounts)]) {
        const NAME: &str = "hindsight_event_to_durable_seconds";
        let _ = write!(self.text, "# HELP {NAME} From an event to its change being durable.\n# TYPE {NAME} histogram\n");
        for (labels, counts) in resources {
            let mut below = 0;
            for (bound, count) in BUCKETS.iter().zip(&counts.histogram) {
                below += count;
                let _ = writeln!(self.text, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(self.text, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", counts.lag_count);
            let _ = writeln!(self.text, "{NAME}_sum{{{labels}}} {}", counts.lag_seconds);
            let _ = writeln!(self.text, "{NAME}_count{{{labels}}} {}", counts.lag_count);
        }
    }
}

/// A value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_line_for_everything_that_is_known() {
        let metrics = Metrics::default();
        let resource = ResourceId::bucket("photos").unwrap();
        metrics.window(&resource, Timestamp::from_seconds(5), Some(Timestamp::from_seconds(8)));
        let lags_ms = BTreeMap::from([(resource.clone(), vec![40, 900, 7_200_000])]);
        metrics.round("sqs:q", &IntakeReport { messages: 3, changes: 2, lags_ms, ..IntakeReport::default() });
        metrics.error("intake");
        let text = metrics.text(Timestamp::from_seconds(10));
        for line in [
            "hindsight_earliest_timestamp_seconds{resource=\"photos\",vault=\"\"} 5",
            "hindsight_watermark_lag_seconds{resource=\"photos\",vault=\"\"} 2",
            "hindsight_messages_total{stream=\"sqs:q\"} 3",
            "hindsight_event_to_durable_seconds_bucket{resource=\"photos\",vault=\"\",le=\"0.05\"} 1",
            "hindsight_event_to_durable_seconds_bucket{resource=\"photos\",vault=\"\",le=\"3600\"} 2",
            "hindsight_event_to_durable_seconds_bucket{resource=\"photos\",vault=\"\",le=\"+Inf\"} 3",
            "hindsight_errors_total{part=\"intake\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(metrics.take_lags(&resource, Timestamp::from_seconds(10)).unwrap().1.len(), 3);
        assert!(metrics.take_lags(&resource, Timestamp::from_seconds(11)).is_none());
    }
}
