//! What is counted, in Prometheus's text form.

use std::fmt::Write;

use handlers::capture::Capture;
use handlers::health::Health;
use pipeline::model::{ResourceId, ResourceKind, Timestamp};

use super::{BUCKETS, FeedCounts, Metrics, ResourceCounts};

impl Metrics {
    /// Everything, as Prometheus reads it.
    pub fn text(&self, now: Timestamp) -> String {
        let inner = self.inner();
        let mut page = Page::default();
        let labels = |resource: &ResourceId, counts: &ResourceCounts| {
            // A database or a machine may be called as a bucket is.
            let name = match resource.kind() {
                ResourceKind::Bucket => resource.name().to_owned(),
                ResourceKind::Database | ResourceKind::Machine => resource.to_string(),
            };
            format!("resource=\"{name}\",vault=\"{}\"", escaped(&counts.vault))
        };
        let resources: Vec<(String, &ResourceCounts)> =
            inner.resources.iter().map(|(resource, counts)| (labels(resource, counts), counts)).collect();
        let seconds = |at: Option<Timestamp>| at.map(|at| at.micros() as f64 / 1e6);
        let latest = ResourceCounts::latest;
        let flag = |set: bool| f64::from(u8::from(set));
        let healths: Vec<(&str, Option<Health>)> = resources.iter().map(|(labels, counts)| (labels.as_str(), counts.health(now))).collect();
        let mut gauge = |name, help, value: &dyn Fn(&ResourceCounts) -> Option<f64>| {
            page.family(name, "gauge", help, resources.iter().map(|(labels, counts)| (labels.as_str(), value(counts))))
        };
        gauge("earliest_timestamp_seconds", "The first restorable instant.", &|counts| seconds(counts.earliest));
        gauge("proven_timestamp_seconds", "Nothing that still existed is missing up to here.", &|counts| seconds(counts.proven()));
        gauge("latest_timestamp_seconds", "The last restorable instant.", &|counts| seconds(latest(counts)));
        gauge("watermark_lag_seconds", "How long ago the last restorable instant was.", &|counts| {
            latest(counts).map(|at| now.since(at).as_secs_f64())
        });
        gauge("proven_lag_seconds", "How long ago the last proven instant was.", &|counts| {
            counts.proven().map(|at| now.since(at).as_secs_f64())
        });
        gauge("events_off", "1 where the bucket is known not to send events.", &|counts| Some(flag(counts.events_off_since.is_some())));
        gauge("slot_retained_bytes", "Bytes of log that a database keeps for the replication slot.", &|counts| {
            counts.slot.as_ref().map(|slot| slot.retained_bytes as f64)
        });
        gauge("slot_safe_bytes", "Bytes that a database may still write before the slot is lost, where it sets a bound.", &|counts| {
            counts.slot.as_ref()?.safe_bytes.map(|bytes| bytes as f64)
        });
        gauge("slot_lost", "1 where the replication slot is lost.", &|counts| Some(flag(counts.slot.as_ref()?.is_lost())));
        gauge("known_versions", "Versions that the vault holds to be live.", &|counts| {
            counts.capture.as_ref().map(|capture| capture.known(|known| known.len()) as f64)
        });
        gauge("clock_off_seconds", "What the clock of this machine lacks to the source's, where it cannot be right.", &|counts| {
            let off_by = counts.capture.as_ref().and_then(|capture| capture.clock().off_by());
            off_by.map(|off_by| off_by.least as f64 / 1e6)
        });
        let mut gauge = |name, help, value: &dyn Fn(&Health) -> Option<f64>| {
            page.family(name, "gauge", help, healths.iter().map(|(labels, health)| (*labels, health.as_ref().and_then(value))))
        };
        gauge("last_listing_timestamp_seconds", "When the truth was last read to its end.", &|health| {
            seconds(health.listing.as_ref().map(|listing| listing.ended))
        });
        gauge("last_listing_duration_seconds", "How long that took.", &|health| {
            health.listing.as_ref().map(|listing| listing.took_seconds)
        });
        gauge("last_listing_untold", "Versions that it found although events should have told of them.", &|health| {
            health.listing.as_ref().map(|listing| listing.untold as f64)
        });
        gauge("listing_overdue", "1 where the next reading is late.", &|health| {
            health.listing.as_ref().map(|listing| flag(listing.overdue))
        });
        gauge("feed_behind", "1 where the last restorable instant is so old that the feed must be at rest.", &|health| {
            Some(flag(health.behind))
        });
        let troubles: Vec<(String, f64)> = resources
            .iter()
            .filter_map(|(labels, counts)| {
                let trouble = counts.last_trouble.as_ref()?;
                Some((format!("{labels},part=\"{}\"", trouble.part.as_str()), trouble.at.micros() as f64 / 1e6))
            })
            .collect();
        page.family(
            "last_trouble_timestamp_seconds",
            "gauge",
            "When something went wrong last.",
            troubles.iter().map(|(labels, at)| (labels.as_str(), Some(*at))),
        );
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
        page.family(
            "last_round_timestamp_seconds",
            "gauge",
            "When a round of intake last ended well.",
            feeds.iter().map(|(labels, counts)| (labels.as_str(), seconds(Some(counts.last_round)))),
        );
        let mut counter = |name, help, value: &dyn Fn(&FeedCounts) -> u64| {
            page.family(name, "counter", help, feeds.iter().map(|(labels, counts)| (labels.as_str(), Some(value(counts) as f64))))
        };
        counter("rounds_total", "Rounds of intake.", &|counts| counts.rounds);
        counter("messages_total", "Messages that came.", &|counts| counts.sum.messages);
        counter("changes_total", "Changes that were kept.", &|counts| counts.sum.changes);
        counter("bytes_total", "Bytes of content that came with them.", &|counts| counts.sum.bytes);
        counter("lost_total", "Versions that were gone before they could be read.", &|counts| counts.sum.lost);
        counter("outdated_total", "Old puts of versions that are gone.", &|counts| counts.sum.outdated);
        counter("known_total", "Events of changes that the vault had.", &|counts| counts.sum.known);
        counter("dead_letters_total", "Events that could not be taken and were kept whole.", &|counts| counts.sum.dead);
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
        let answers = inner.answers.iter().map(|(status, count)| (format!("status=\"{status}\""), *count));
        let answers: Vec<(String, u64)> = answers.collect();
        page.family(
            "webhook_answers_total",
            "counter",
            "What was posted to the webhook, by the status of the answer.",
            answers.iter().map(|(labels, count)| (labels.as_str(), Some(*count as f64))),
        );
        let refused = Some(inner.refused_connections as f64);
        page.family("connections_refused_total", "counter", "Connections for which there was no place.", [("", refused)].into_iter());
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
                let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
                let _ = writeln!(self.text, "hindsight_{name}{braces} {value}");
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
