//! A vault's status as a person reads it: one paragraph for each bucket, what is wrong last, where the eye stops.

use std::io;
use std::time::Duration;

use database::slot::SlotState;
use handlers::health::{Health, LastTrouble, Listing};
use handlers::protection::{Changes, DatabaseProtection, Events, How, Protection, Status as Running};
use pipeline::changelog::coverage::Window;
use pipeline::model::Timestamp;

use super::{ResourceStatus, Unreadable, VaultStatus};
use crate::output::{Output, bytes, counted, escaped, span};

/// Shows one vault.
pub fn vault(output: &mut Output, status: &VaultStatus, now: Timestamp) -> io::Result<()> {
    let dead = if status.dead_letters > 0 {
        format!("; {}, see `hindsight dead-letters`", counted(status.dead_letters, "dead letter"))
    } else {
        String::new()
    };
    output.line(format_args!("vault {}{dead}", escaped(&status.vault)))?;
    output.line(format_args!("store: {}", escaped(&status.store.to_string())))?;
    for Unreadable { resource, error } in &status.unreadable {
        output.line(format_args!("\n{resource}: CANNOT BE READ: {}", escaped(error)))?;
    }
    if status.resources.is_empty() && status.unreadable.is_empty() {
        output.line("nothing is protected in it")?;
    }
    for resource in &status.resources {
        output.line(format_args!("\n{}: {}", resource.protection.resource, how(&resource.protection)))?;
        for (name, text) in lines(resource, now) {
            output.line(format_args!("  {name:<13} {text}"))?;
        }
    }
    Ok(())
}

fn how(protection: &Protection) -> String {
    if protection.status == Running::Stopped {
        return "STOPPED; what was kept can be restored".to_owned();
    }
    let bucket = match &protection.how {
        How::Bucket(bucket) => bucket,
        How::Machine(machine) => {
            let every = machine.every_seconds.map(|every| format!("every {}", span(Duration::from_secs(every))));
            return format!("ACTIVE, recovery points {}", every.unwrap_or_else(|| "when asked for".to_owned()));
        }
        How::Database(DatabaseProtection { server, changes: Changes::Replication { .. } }) => {
            return format!("ACTIVE, replicated from {}", escaped(server));
        }
        How::Database(DatabaseProtection { server, changes: Changes::Connector { prefix, .. } }) => {
            return format!("ACTIVE, changes of {} from topics {}.*", escaped(server), escaped(prefix));
        }
    };
    let events = match &bucket.events {
        Events::Sqs { url } => format!("events from queue {}", escaped(url.rsplit('/').next().unwrap_or(url))),
        Events::Functions { url } => format!("kept by functions, from queue {}", escaped(url.rsplit('/').next().unwrap_or(url))),
        Events::Webhook => "events by webhook".to_owned(),
        Events::Kafka { topic, .. } => format!("events from topic {}", escaped(topic)),
        Events::List { seconds } => format!("listed every {}", span(Duration::from_secs(*seconds))),
    };
    format!("ACTIVE, {events}{}", if bucket.unversioned { ", best effort" } else { "" })
}

fn lines(status: &ResourceStatus, now: Timestamp) -> Vec<(&'static str, String)> {
    let ResourceStatus { protection, window, health, lag, .. } = status;
    let mut lines = Vec::new();
    match window {
        None => lines.push(("restorable", "nothing yet: the first full backup has not completed".to_owned())),
        Some(window) => lines.extend(restorable(window, protection, now)),
    }
    if protection.bucket().is_some() {
        let last = health.listing.as_ref();
        lines.push(("last listing", last.map_or_else(|| "none yet".to_owned(), |listing| listed(listing, protection, now))));
    }
    let slot = status.slot.as_ref().filter(|_| protection.status == Running::Active);
    lines.extend(slot.map(|slot| ("slot", slot_line(slot, now))));
    if !status.new_rows_only.is_empty() {
        lines.push(("new rows", format!("only those are kept of tables without a key: {}", some(&status.new_rows_only))));
    }
    if let Some(lag) = lag {
        lines.push((
            "event lag",
            format!("half within {} ms, 99 % within {} ms, of {}", lag.p50_ms, lag.p99_ms, counted(lag.changes, "change")),
        ));
    }
    lines.extend(status.points.map(|points| ("points", format!("{points}; a time between two is restored as the one before"))));
    let files = format!("{}, {}", counted(status.segments as u64, "segment"), counted(status.bases as u64, "base"));
    lines.push(match &status.holds {
        Some(holds) => {
            let lost = if holds.lost > 0 { format!("; {} LOST", holds.lost) } else { String::new() };
            let (versions, markers) = (counted(holds.versions - holds.markers, "live version"), counted(holds.markers, "delete marker"));
            let objects = counted(holds.objects, "object");
            ("at latest", format!("{objects}; {versions} of {}, {markers}{lost}; {files}", bytes(holds.bytes)))
        }
        None => ("the log", files),
    });
    if let Some(complaint) = slot.and_then(SlotState::complaint) {
        lines.push(("SLOT", complaint));
    }
    lines.extend(wrong(protection, window.as_ref(), health, now));
    lines
}

/// Names, the first of them if there are many.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| escaped(name)).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    shown.join(", ") + &more
}

fn slot_line(slot: &SlotState, now: Timestamp) -> String {
    let SlotState { slot, at, status, retained_bytes, safe_bytes } = slot;
    let safe = safe_bytes.map(|left| format!("; it is lost when {} more are written", bytes(left))).unwrap_or_default();
    format!("{}, {}, {} of log wait for it{safe}; {} ago", escaped(slot), escaped(status), bytes(*retained_bytes), span(now.since(*at)))
}

fn restorable(window: &Window, protection: &Protection, now: Timestamp) -> [(&'static str, String); 2] {
    let ago = |at: Timestamp| span(now.since(at));
    let Window { earliest, latest, .. } = window;
    let proven = match window.proven {
        Some(proven) => format!("up to {proven}, {} ago", ago(proven)),
        None if protection.is_best_effort() => "never: the bucket keeps no versions".to_owned(),
        None => "nothing yet".to_owned(),
    };
    [("restorable", format!("{earliest} to {latest}, {} ago", ago(*latest))), ("proven", proven)]
}

fn listed(listing: &Listing, protection: &Protection, now: Timestamp) -> String {
    let took = Duration::try_from_secs_f64(listing.took_seconds).unwrap_or_default();
    let mut text = format!(
        "{}, {} ago, took {}",
        listing.ended,
        span(now.since(listing.ended)),
        if took.is_zero() { "less than a second".to_owned() } else { span(took) }
    );
    if protection.status == Running::Active {
        match now < listing.due {
            true => text.push_str(&format!("; the next in {}", span(listing.due.since(now)))),
            false => text.push_str("; the next is due"),
        }
    }
    text
}

fn wrong(protection: &Protection, window: Option<&Window>, health: &Health, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for gap in window.iter().flat_map(|window| &window.gaps) {
        match gap.to {
            Some(to) => lines.push(("gap", format!("{} to {to}: {}", gap.from, escaped(&gap.reason)))),
            None => {
                let name = if gap.segment.is_some() { "GAP" } else { "EVENTS OFF" };
                lines.push((name, format!("since {}, {} ago: {}", gap.from, span(now.since(gap.from)), escaped(&gap.reason))));
            }
        }
    }
    if let Some(LastTrouble { trouble, over }) = &health.last_trouble {
        let times = if trouble.times > 1 { format!(", {} times", trouble.times) } else { String::new() };
        let name = if *over { "last trouble" } else { "TROUBLE" };
        let when = format!("{}, {} ago{times}", trouble.at, span(now.since(trouble.at)));
        lines.push((name, format!("{} at {when}: {}", trouble.part.as_str(), escaped(&trouble.reason))));
    }
    if health.versioning_off {
        let lost = "the bucket keeps no versions any more: what is overwritten or deleted between two looks is lost".to_owned();
        lines.push(("VERSIONING OFF", lost));
    }
    if let Some(listing) = health.listing.as_ref().filter(|listing| listing.nameless > 0) {
        let versions = counted(listing.nameless, "version");
        lines.push(("NOT KEPT", format!("{versions} that the source lists without a key, so that nobody can ask for them")));
    }
    if let Some(listing) = health.listing.as_ref().filter(|listing| listing.untold > 0) {
        let versions = counted(listing.untold, "version");
        lines.push((
            "NOT TOLD",
            format!("the last listing found {versions} of which no event had told: do the bucket's events still come?"),
        ));
    }
    if let Some(listing) = health.listing.as_ref().filter(|listing| listing.overdue) {
        let late = span(now.since(listing.due));
        let is_by_functions = protection.bucket().is_some_and(|bucket| bucket.events.is_by_functions());
        let who = if is_by_functions { "does the function `reconcile` run?" } else { "is `hindsight serve` running?" };
        lines.push(("OVERDUE", format!("a listing was due {late} ago; {who}")));
    }
    if health.behind {
        lines.push(("BEHIND", "no event has arrived for long, nor that there is none; is `hindsight serve` running?".to_owned()));
    }
    lines
}
