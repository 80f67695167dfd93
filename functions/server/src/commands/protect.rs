//! `hindsight protect` and `hindsight unprotect`: what belongs into a vault stands in the vault.

use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use handlers::protection::{self, Events, ProtectError, Protection, RECONCILE_EVERY, Status};
use handlers::reconcile::sends_events;
use pipeline::model::ResourceId;
use pipeline::model::time::parse_duration;
use pipeline::s3::{Bucket, Versioning};
use pipeline::vault::Vault;
use serde::Serialize;

use crate::app::{App, VaultFlag, WHOLE, bucket_only};
use crate::contact::Reached;
use crate::exit::{Ended, Failure};
use crate::output::{Output, escaped, span};
use crate::protected::Protected;
use crate::sources::sqs::{self, QueueTrouble};
use crate::vaults::OpenVault;

/// Seconds between listings where `list` says nothing more.
const LIST_EVERY_SECONDS: u64 = 60;
/// Whoever lists seldomer than once in four weeks has no backup.
const LIST_EVERY_SECONDS_MAX: u64 = 28 * 86_400;

/// Protect a bucket: from now on `hindsight serve` keeps every change of it.
#[derive(Debug, Args)]
pub struct Protect {
    /// The bucket: s3://BUCKET.
    #[arg(value_name = "s3://BUCKET")]
    bucket: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// How changes are learned: sqs:URL (a queue that gets the bucket's events), webhook (events are posted to `serve`),
    /// or list[:EVERY] (no events: all versions are listed again and again, every 60s, 5m ... [default: 60s]).
    #[arg(long, value_name = "EVENTS")]
    events: EventsFlag,
    /// The S3 server of the bucket: an endpoint's name or URL.
    #[arg(long, value_name = "NAME|URL")]
    endpoint: Option<String>,
    /// Leave out ACLs: one request less per version.
    #[arg(long)]
    no_acls: bool,
    /// Protect a bucket that keeps no versions. Best effort: what is overwritten or deleted before it could be read is lost.
    #[arg(long)]
    unversioned: bool,
    /// The bucket is the one that this vault knows, at a new address.
    #[arg(long)]
    moved: bool,
    /// How often all versions are listed, to find what events missed [default: 6h].
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    reconcile_every: Option<std::time::Duration>,
}

/// Stop protecting a bucket: no more changes are kept, and what was kept can be restored.
#[derive(Debug, Args)]
pub struct Unprotect {
    /// The bucket: s3://BUCKET.
    #[arg(value_name = "s3://BUCKET")]
    bucket: String,
    #[command(flatten)]
    vault: VaultFlag,
}

#[derive(Debug, Clone)]
struct EventsFlag(Events);

fn parse_interval(text: &str) -> Result<std::time::Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < std::time::Duration::from_secs(1) { Err("a second is the least".to_owned()) } else { Ok(interval) }
}

impl FromStr for EventsFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<EventsFlag, String> {
        let wrong = || format!("{text:?} is no source of events: write sqs:URL, webhook, or list[:30s|:5m|...], of four weeks at most");
        Ok(EventsFlag(match text.split_once(':') {
            None if text == "webhook" => Events::Webhook,
            None if text == "list" => Events::List { seconds: LIST_EVERY_SECONDS },
            Some(("sqs", url)) if url.contains("://") => Events::Sqs { url: url.to_owned() },
            Some(("list", every)) => {
                let seconds = every.parse().ok().or_else(|| parse_duration(every).ok().map(|every| every.as_secs()));
                let seconds = seconds.filter(|seconds| (1..=LIST_EVERY_SECONDS_MAX).contains(seconds)).ok_or_else(wrong)?;
                Events::List { seconds }
            }
            _ => return Err(wrong()),
        }))
    }
}

/// What was decided, as JSON.
#[derive(Serialize)]
struct Decided<'a> {
    vault: &'a str,
    number: u64,
    protection: &'a Protection,
    /// How it was protected until now, where that was otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a Protection>,
    warnings: Vec<String>,
}

pub async fn protect(app: &App, command: Protect) -> Result<Ended> {
    let resource = bucket_only(&command.bucket, WHOLE)?;
    let place = app.place(&command.vault)?;
    let endpoint = app.endpoint(command.endpoint.as_deref())?;
    if place.is_in_bucket(&resource, &endpoint) {
        return Err(ProtectError::OwnVault { resource }.into());
    }
    let Reached { bucket, versioning } = endpoint.reach(resource.name()).await?;
    if versioning != Versioning::Enabled && !command.unversioned {
        let versioning = match versioning {
            Versioning::Suspended => "versioning is suspended",
            _ => "versioning was never switched on",
        };
        return Err(ProtectError::Unversioned { resource, versioning: versioning.to_owned() }.into());
    }
    let mut warnings = Vec::new();
    if let Events::Sqs { url } = &command.events.0 {
        match sqs::look(&endpoint.sqs(url).await?, url).await {
            Ok(()) => {}
            Err(QueueTrouble::Missing(reason)) => return Err(Failure::refused(format!("cannot use queue {url}: {reason}")).into()),
            Err(QueueTrouble::Unknown(reason)) => warnings.push(format!("queue {url} cannot be asked now: {reason}")),
        }
    }
    let known = place.open_if_there().await?;
    let others = other_vaults(app, &place.name, known.as_ref()).await?;
    protection::free_in(&others, &resource).await?;
    let chosen = match known {
        Some(known) => known,
        None => place.open_or_create(app.clock.now()).await?,
    };
    if chosen.is_in_bucket(bucket.as_ref()).await? {
        return Err(ProtectError::OwnVault { resource }.into());
    }
    let known = protection::newest(&chosen.vault, &resource).await?;
    let before = known.as_ref().map(|known| known.record.clone());
    if let Some(known) = before.as_ref().filter(|_| !command.moved) {
        let before = app.endpoint(known.endpoint.as_deref())?;
        if !before.is_same_server(&endpoint) {
            let (before, now) = (before.shown(), endpoint.shown());
            return Err(Failure::refused(format!(
                "{resource} is kept in this vault as it is at {before}, and this is {now}: all that another bucket of that name does \
                 not have would count as removed; if it is the same bucket at a new address, say --moved, and else choose another vault"
            ))
            .into());
        }
    }
    let protection = Protection {
        resource: resource.clone(),
        since: since(app, &chosen.vault, &resource).await?,
        events: command.events.0,
        endpoint: endpoint.reference.clone(),
        acls: !command.no_acls,
        unversioned: command.unversioned,
        reconcile_seconds: command.reconcile_every.unwrap_or(RECONCILE_EVERY).as_secs(),
        status: Status::Active,
    };
    if protection.events == Events::Webhook && app.config.webhook_token()?.is_none() {
        let variable = &app.config.webhook_token_env;
        warnings.push(format!(
            "no token is set here, and `hindsight serve` takes posted events only with one: {variable} or webhook_token_file"
        ));
    }
    if let Events::Sqs { url } = &protection.events
        && let Some(other) = sqs::claim(&endpoint.sqs(url).await?, url, &chosen.record.id).await
    {
        warnings.push(format!(
            "queue {url} has been taken for vault {other}, and this one is {}: of two that take from one queue each gets a part of the \
             events; if both are in use, give each a queue of its own",
            chosen.record.id
        ));
    }
    // What is as it was needs no record: one would make `serve` begin anew with the bucket.
    let number = match known.filter(|known| known.record == protection) {
        Some(known) => known.number,
        None => protection::record(&chosen.vault, &others, &protection).await?,
    };
    warnings.extend(warn(&protection, bucket.as_ref()).await?);
    let before = before.as_ref().filter(|before| **before != protection);
    say(app, &Decided { vault: &place.name, number, protection: &protection, before, warnings }, |output, decided| {
        for warning in &decided.warnings {
            output.line(format_args!("warning: {warning}"))?;
        }
        output.line(format_args!("protected {resource} in vault {}", decided.vault))?;
        for (what, was, is) in decided.before.into_iter().flat_map(|before| changed(before, decided.protection)) {
            output.line(format_args!("{what}: {was} until now, {is} from now on"))?;
        }
        output.line("`hindsight serve` keeps its changes from now on")
    })
}

/// What another protection changes: its name, how it was and how it is.
fn changed(before: &Protection, now: &Protection) -> Vec<(&'static str, String, String)> {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let shown = |protection: &Protection| {
        let status = match protection.status {
            Status::Active => "active",
            Status::Stopped => "stopped",
        };
        let events = match &protection.events {
            Events::Sqs { url } => format!("sqs:{}", escaped(url)),
            Events::Webhook => "webhook".to_owned(),
            Events::List { seconds } => format!("list:{seconds}"),
        };
        [
            ("protection", status.to_owned()),
            ("events", events),
            ("server", protection.endpoint.as_deref().map_or_else(|| "AWS".to_owned(), escaped)),
            ("ACLs kept", yes(protection.acls)),
            ("unversioned", yes(protection.unversioned)),
            ("listed every", span(std::time::Duration::from_secs(protection.reconcile_seconds))),
        ]
    };
    let pairs = shown(before).into_iter().zip(shown(now));
    pairs.filter(|(before, now)| before != now).map(|((name, was), (_, is))| (name, was, is)).collect()
}

pub async fn unprotect(app: &App, command: Unprotect) -> Result<Ended> {
    let resource = bucket_only(&command.bucket, WHOLE)?;
    let Protected { opened, number, protection: known } = app.protected(&command.vault, &resource).await?;
    let protection = Protection { status: Status::Stopped, ..known.clone() };
    let number = if protection == known { number } else { protection::record(&opened.vault, &[], &protection).await? };
    say(
        app,
        &Decided { vault: &opened.place.name, number, protection: &protection, before: None, warnings: Vec::new() },
        |output, decided| {
            output.line(format_args!("stopped protecting {resource} in vault {}; what was kept can be restored", decided.vault))
        },
    )
}

fn say<'a>(app: &App, decided: &Decided<'a>, people: impl FnOnce(&mut Output, &Decided<'a>) -> std::io::Result<()>) -> Result<Ended> {
    let mut output = Output::new(app.flags.json);
    if output.json {
        output.document(decided)?;
    } else {
        people(&mut output, decided)?;
    }
    output.finish()?;
    Ok(Ended::Whole)
}

/// The other configured vaults, as far as they are there. One that cannot be asked is an error: it may hold the bucket.
async fn other_vaults(app: &App, name: &str, chosen: Option<&OpenVault>) -> Result<Vec<Vault>> {
    let mut others = Vec::new();
    for place in app.configured()?.into_iter().filter(|place| place.name != name) {
        let opened = place.open_if_there().await.context("every configured vault is asked whether it has the bucket already")?;
        // The same vault may be named twice.
        let other = opened.filter(|opened| chosen.is_none_or(|chosen| chosen.record.id != opened.record.id));
        others.extend(other.map(|opened| opened.vault));
    }
    Ok(others)
}

/// A protection that is only changed goes on.
async fn since(app: &App, vault: &Vault, resource: &ResourceId) -> Result<pipeline::model::Timestamp> {
    let running = protection::newest(vault, resource).await?.filter(|known| known.record.status == Status::Active);
    Ok(running.map_or_else(|| app.clock.now(), |known| known.record.since))
}

async fn warn(protection: &Protection, bucket: &dyn Bucket) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if protection.unversioned {
        warnings.push("the bucket is protected as one that keeps no versions: best effort, and never proven".to_owned());
    }
    if matches!(protection.events, Events::List { .. }) {
        return Ok(warnings);
    }
    let configuration = bucket.configuration().await?;
    let notification = configuration.documents.get("notification").map(String::as_str);
    match (sends_events(notification), configuration.unread.get("notification")) {
        (Some(true), _) => {}
        (_, Some(reason)) => warnings.push(format!("whether the bucket sends events cannot be read: {reason}")),
        _ => warnings.push(
            "the bucket is not seen to send events: switch on EventBridge or a notification, or only reconciliation finds its changes"
                .to_owned(),
        ),
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_in_three_ways() {
        let read = |text: &str| text.parse::<EventsFlag>().map(|events| events.0);
        assert_eq!(read("webhook"), Ok(Events::Webhook));
        assert_eq!(read("list"), Ok(Events::List { seconds: 60 }));
        assert_eq!(read("list:5"), Ok(Events::List { seconds: 5 }));
        assert_eq!(read("list:2m"), Ok(Events::List { seconds: 120 }));
        assert_eq!(read("sqs:https://sqs/1/q"), Ok(Events::Sqs { url: "https://sqs/1/q".to_owned() }));
        for text in ["", "list:0", "list:x", "list:2419201", "list:99999999999999999999", "list:5w", "sqs:", "sqs:name", "kafka"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
