//! What is asked of a bucket before it is protected.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use handlers::configuration::sends_events;
use handlers::protection::{self, BucketProtection, Events, How, ProtectError, RECONCILE_EVERY};
use pipeline::model::time::parse_duration;
use pipeline::s3::{Bucket, BucketError, Versioning};
use pipeline::source::s3_read::Reader;

use super::{BucketFlags, Protect, choose, decide};
use crate::app::{App, WHOLE, bucket_only};
use crate::contact::Reached;
use crate::exit::{Ended, Failure};
use crate::output::{escaped, span};
use crate::sources::sqs::{self, QueueTrouble};

/// Versions that are listed to find one that can be looked at.
const LOOKED_AT: i32 = 100;
/// How often functions list a bucket, whose window ends where the last listing began.
const FUNCTIONS_RECONCILE_EVERY: Duration = Duration::from_secs(15 * 60);

/// How often all versions are listed.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_secs(1) { Err("a second is the least".to_owned()) } else { Ok(interval) }
}

/// Said where events are in Kafka, and this program cannot read it.
pub(super) const NO_KAFKA: &str = "`hindsight serve` cannot read Kafka: run `hindsight-worker serve` instead";

/// Protects a bucket.
pub async fn protect(app: &App, command: Protect) -> Result<Ended> {
    let resource = bucket_only(&command.what, WHOLE)?;
    let BucketFlags { endpoint, no_acls, unversioned, reconcile_every } = command.bucket;
    let Some(events) = command.events else {
        let reason = "say how changes are learned: --events sqs:URL, --events webhook, or --events list:60s where the server sends none";
        return Err(Failure::usage(reason).into());
    };
    let place = app.place(&command.vault)?;
    let endpoint = app.endpoint(endpoint.as_deref())?;
    if place.is_in_bucket(&resource, &endpoint) {
        return Err(ProtectError::OwnVault { resource }.into());
    }
    let Reached { bucket, versioning } = endpoint.reach(resource.name()).await?;
    if versioning != Versioning::Enabled && !unversioned {
        let versioning = match versioning {
            Versioning::Suspended => "versioning is suspended",
            _ => "versioning was never switched on",
        };
        return Err(ProtectError::Unversioned { resource, versioning: versioning.to_owned() }.into());
    }
    let mut warnings = Vec::new();
    if let Some(url) = events.queue() {
        match sqs::look(&endpoint.sqs(url).await?, url).await {
            Ok(()) => {}
            Err(QueueTrouble::Missing(reason)) => return Err(Failure::refused(format!("cannot use queue {url}: {reason}")).into()),
            Err(QueueTrouble::Unknown(reason)) => warnings.push(format!("queue {url} cannot be asked now: {reason}")),
        }
    }
    let chosen = choose(app, &place, &resource).await?;
    if chosen.opened.is_in_bucket(bucket.as_ref()).await? {
        return Err(ProtectError::OwnVault { resource }.into());
    }
    let known = protection::newest(&chosen.opened.vault, &resource).await?;
    if let Some(known) = known.as_ref().and_then(|known| known.record.bucket()).filter(|_| !command.moved) {
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
    if events == Events::Webhook && app.config.webhook_token()?.is_none() {
        let variable = &app.config.webhook_token_env;
        warnings.push(format!(
            "no token is set here, and `hindsight serve` takes posted events only with one: {variable} or webhook_token_file"
        ));
    }
    if let Events::Kafka { cluster, topic } = &events {
        app.topic(cluster, topic, String::new())?;
        if app.abilities.kafka.is_none() {
            warnings.push(NO_KAFKA.to_owned());
        }
    }
    if let Some(url) = events.queue()
        && let Some(other) = sqs::claim(&endpoint.sqs(url).await?, url, &chosen.opened.record.id).await
    {
        warnings.push(format!(
            "queue {url} has been taken for vault {other}, and this one is {}: of two that take from one queue each gets a part of the \
             events; if both are in use, give each a queue of its own",
            chosen.opened.record.id
        ));
    }
    let how = BucketProtection {
        reconcile_seconds: reconcile_every
            .unwrap_or(if events.is_by_functions() { FUNCTIONS_RECONCILE_EVERY } else { RECONCILE_EVERY })
            .as_secs(),
        events,
        endpoint: endpoint.reference.clone(),
        acls: !no_acls,
        unversioned,
    };
    warnings.extend(warn(&how, bucket.as_ref()).await?);
    warnings.extend(unreadable(&Reader::new(Arc::clone(&bucket), versioning, how.acls), how.acls).await);
    decide(app, &chosen, resource, How::Bucket(how), warnings).await
}

/// How a bucket is protected, as people read it.
pub(super) fn shown(protection: &BucketProtection) -> Vec<(&'static str, String)> {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    vec![
        ("events", escaped(&protection.events.to_string())),
        ("server", protection.endpoint.as_deref().map_or_else(|| "AWS".to_owned(), escaped)),
        ("ACLs kept", yes(protection.acls)),
        ("unversioned", yes(protection.unversioned)),
        ("listed every", span(Duration::from_secs(protection.reconcile_seconds))),
    ]
}

/// What belongs to objects and may not be read, as the first one in the bucket shows: nothing would say so later but restores.
async fn unreadable(reader: &Reader, acls: bool) -> Option<String> {
    let page = reader.bucket().list_versions("", None, LOOKED_AT).await.ok()?;
    let listed = page.versions.into_iter().find(|listed| !listed.marker)?;
    let tags = reader.tags_now(&listed.object, &listed.version).await.map(drop);
    let acl = if acls { reader.read_acl(&listed.object, &listed.version).await.map(drop) } else { Ok(()) };
    let denied = |read: Result<(), BucketError>| match read {
        Err(error @ BucketError::Denied { .. }) => Some(escaped(&error.to_string())),
        _ => None,
    };
    let (tags, acl) = (denied(tags), denied(acl));
    let next = if acl.is_some() { ", or leave ACLs out with --no-acls" } else { "" };
    let reasons: Vec<String> = tags.into_iter().chain(acl).collect();
    (!reasons.is_empty()).then(|| format!("what belongs to objects is not kept: {}; allow it{next}", reasons.join("; ")))
}

async fn warn(protection: &BucketProtection, bucket: &dyn Bucket) -> Result<Vec<String>> {
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
