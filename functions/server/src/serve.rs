//! Keeping the changes of everything that some vaults say is protected, in one process.
//!
//! ```text
//!  vaults ─→ protections ─→ one Keeper each ─┬─ truth     first full backup, reconciliation, listing as a source
//!                                            ├─ watch     does the bucket still send events?
//!                                            ├─ compact   merges and bases
//!                                            └─ lag       what was measured, into the vault
//!  queues, webhook ─→ one Feed each ─→ intake rounds ─→ the Captures of the Keepers
//!  http ─→ webhook, metrics, health
//! ```
//!
//! What is protected is read again and again, so that a protection that is new, changed or stopped takes effect while
//! this runs. Everything here may be killed at any point: what was not acknowledged comes again.

mod feeds;
mod http;
mod keeper;
pub mod metrics;
mod pace;
mod troubles;
mod truth;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use handlers::health::{Part, Trouble};
use handlers::protection::{self, Events, Protection, Status};
use handlers::vault::OpenError;
use pipeline::model::ResourceId;
use pipeline::vault::record::Numbered;
use tokio::task::JoinHandle;

use self::feeds::{FeedName, Feeds};
use self::keeper::Keeper;
use self::metrics::Metrics;
use crate::app::App;
use crate::exit::Failure;
use crate::sources::{Stop, stopped, webhook};
use crate::vaults::OpenVault;

/// How often the vaults are asked what is protected.
const PROTECTIONS_EVERY: Duration = Duration::from_secs(15);
/// How long work that was begun may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// What to serve.
pub struct Serving {
    /// Settings and clock.
    pub app: App,
    /// The vaults.
    pub vaults: Vec<OpenVault>,
    /// Where to answer; nowhere for none.
    pub listen: Option<SocketAddr>,
    /// When to end.
    pub stop: Stop,
}

/// A protection that is being kept.
struct Kept {
    number: u64,
    stopper: tokio::sync::watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Which vault, by its place in the list, and which resource.
type KeptBy = (usize, ResourceId);

/// Serves until it is told to stop.
///
/// # Errors
/// What cannot be begun: an address that is taken, a webhook without a token, a vault that cannot be read.
pub async fn serve(serving: Serving) -> Result<()> {
    let Serving { app, vaults, listen, stop } = serving;
    let metrics = Arc::new(Metrics::default());
    let token = app.config.webhook_token()?;
    let (inlet, source) = token.map(|token| webhook::webhook(&token, Arc::clone(&app.clock), stop.clone())).unzip();
    let http = match listen {
        Some(listen) => {
            let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| cannot_listen(listen, &error))?;
            tracing::info!(address = %listener.local_addr()?, webhook = inlet.is_some(), "listening");
            Some(tokio::spawn(http::run(listener, Arc::clone(&metrics), Arc::clone(&app.clock), inlet.clone(), stop.clone())))
        }
        None => None,
    };
    let feeds = Arc::new(Feeds::new(app.clone(), Arc::clone(&metrics), source, stop.clone()));
    let mut kept: BTreeMap<KeptBy, Kept> = BTreeMap::new();
    let mut suspended = BTreeMap::new();
    let mut known: BTreeMap<KeptBy, FeedName> = BTreeMap::new();
    let mut first = true;
    loop {
        match protections(&vaults).await {
            Ok((wanted, away)) => {
                suspend(&mut kept, &mut suspended, &away, &vaults, &app, &metrics).await;
                // What was protected there still is: what is told of it waits.
                let mut expected = wanted_feeds(&wanted);
                for (feed, resource) in
                    known.iter().filter(|((index, _), _)| away.contains_key(index)).map(|((_, resource), feed)| (feed, resource))
                {
                    expected.entry(feed.clone()).or_default().insert(resource.clone());
                }
                known.retain(|(index, _), _| away.contains_key(index));
                known.extend(
                    wanted
                        .iter()
                        .filter_map(|(key, (_, record))| Some((key.clone(), FeedName::of(&record.record, &vaults[key.0].record.id)?))),
                );
                let mut all = wanted.values();
                let all_posted = !wanted.is_empty()
                    && all.all(|(_, protection)| protection.record.bucket().is_some_and(|bucket| bucket.events == Events::Webhook));
                if let Some(reason) = feeds.no_posts().filter(|_| first && all_posted) {
                    return Err(Failure::usage(reason).into());
                }
                feeds.expect(&expected);
                update(&mut kept, wanted, &app, &feeds, &metrics).await;
                metrics.set_started();
            }
            // What runs goes on running.
            Err(error) if !first => tracing::warn!(error = format!("{error:#}"), "what is protected could not be read"),
            Err(error) => return Err(error),
        }
        first = false;
        tokio::select! {
            () = app.clock.sleep(PROTECTIONS_EVERY) => {}
            () = stopped(&stop) => break,
        }
    }
    for (_, Kept { stopper, task, .. }) in kept {
        end(stopper, task).await;
    }
    feeds.end().await;
    if let Some(http) = http {
        drop(tokio::time::timeout(GRACE, http).await);
    }
    tracing::info!("ended");
    Ok(())
}

fn cannot_listen(listen: SocketAddr, error: &std::io::Error) -> Failure {
    let reason = match error.kind() {
        ErrorKind::AddrInUse => "the port is in use, perhaps by another `hindsight serve`".to_owned(),
        ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        ErrorKind::PermissionDenied => "this user may not use that port".to_owned(),
        _ => error.to_string(),
    };
    Failure::broken(format!("cannot listen on {listen}: {reason}; choose another with --listen"))
}

/// Tells a task to end, waits for it a while, and then ends it.
async fn end(stopper: tokio::sync::watch::Sender<bool>, mut task: JoinHandle<()>) {
    // A task that has ended listens to nobody.
    let _ = stopper.send(true);
    if tokio::time::timeout(GRACE, &mut task).await.is_err() {
        task.abort();
    }
}

type Wanted = BTreeMap<KeptBy, (OpenVault, Numbered<Protection>)>;

/// Vaults that are not where they were, and what is said of each: which vault, by its place in the list.
type Away = BTreeMap<usize, &'static str>;

/// What the vaults say is to be kept, and which of them are not there. Of a resource in two vaults the one protected first counts.
async fn protections(vaults: &[OpenVault]) -> Result<(Wanted, Away)> {
    let mut away = Away::new();
    let mut found: Vec<(usize, Numbered<Protection>)> = Vec::new();
    for (index, opened) in vaults.iter().enumerate() {
        let what = || format!("cannot read what vault {} protects", opened.place.name);
        // Of a disk that is not mounted any more there is an empty folder, in which nothing is protected, and all may be written.
        match handlers::vault::open(&opened.vault).await {
            Err(OpenError::NoVault) => {
                away.insert(index, "is not there any more");
                continue;
            }
            // What is known of the one that was opened does not stand in this one.
            Ok(found) if found.id != opened.record.id => {
                away.insert(index, "is another one by now; restart this if that is to be kept");
                continue;
            }
            found => drop(found.with_context(what)?),
        }
        let all = protection::all(&opened.vault).await.with_context(what)?;
        // What functions keep must not be taken from their queue: of what is in their hands nobody here knows.
        let is_ours = |protection: &Protection| !protection.bucket().is_some_and(|bucket| bucket.events.is_by_functions());
        let ours = all.into_iter().filter(|protection| protection.record.status == Status::Active && is_ours(&protection.record));
        found.extend(ours.map(|protection| (index, protection)));
    }
    found.sort_by_key(|(index, protection)| (protection.record.since, *index));
    let mut wanted = Wanted::new();
    for (index, protection) in found {
        let resource = protection.record.resource.clone();
        if wanted.keys().any(|(_, known)| *known == resource) {
            let vault = vaults[index].place.name.as_str();
            tracing::warn!(%resource, vault, "another vault has it already; it is not kept twice");
            continue;
        }
        wanted.insert((index, resource), (vaults[index].clone(), protection));
    }
    Ok((wanted, away))
}

/// Which buckets each feed tells of.
fn wanted_feeds(wanted: &Wanted) -> BTreeMap<FeedName, BTreeSet<ResourceId>> {
    let mut feeds: BTreeMap<FeedName, BTreeSet<ResourceId>> = BTreeMap::new();
    for ((_, resource), (vault, protection)) in wanted {
        if let Some(feed) = FeedName::of(&protection.record, &vault.record.id) {
            feeds.entry(feed).or_default().insert(resource.clone());
        }
    }
    feeds
}

/// Ends what is kept in vaults that are away, until they are back; nothing of it counts as well. `suspended` is what was, and why.
async fn suspend(
    kept: &mut BTreeMap<KeptBy, Kept>,
    suspended: &mut BTreeMap<KeptBy, &'static str>,
    away: &Away,
    vaults: &[OpenVault],
    app: &App,
    metrics: &Metrics,
) {
    suspended.retain(|(index, _), _| away.contains_key(index));
    let of_away = kept.keys().chain(suspended.keys()).filter_map(|key| Some((key.clone(), *away.get(&key.0)?)));
    for (key, what) in of_away.collect::<Vec<_>>() {
        if let Some(Kept { stopper, task, .. }) = kept.remove(&key) {
            end(stopper, task).await;
        }
        if suspended.insert(key.clone(), what) == Some(what) {
            continue;
        }
        let reason = format!("vault {} {what}", vaults[key.0].place.name);
        tracing::error!(resource = %key.1, reason, "its changes are not kept until the vault is back");
        let trouble = Trouble { at: app.clock.now(), part: Part::Opening, reason, times: 1 };
        metrics.trouble(&key.1, trouble);
    }
}

/// Ends what is not wanted any more or not so, and begins what is new.
async fn update(kept: &mut BTreeMap<KeptBy, Kept>, wanted: Wanted, app: &App, feeds: &Arc<Feeds>, metrics: &Arc<Metrics>) {
    let outdated: Vec<KeptBy> = kept
        .iter()
        .filter(|(key, kept)| wanted.get(key).is_none_or(|(_, wanted)| wanted.number != kept.number))
        .map(|(key, _)| key.clone())
        .collect();
    for key in outdated {
        if let Some(Kept { stopper, task, .. }) = kept.remove(&key) {
            tracing::info!(resource = %key.1, "it is not protected any more, or otherwise: what kept it ends");
            end(stopper, task).await;
            metrics.forget(&key.1);
        }
    }
    for (key, (vault, protection)) in wanted {
        let Numbered { number, record, .. } = protection;
        kept.entry(key).or_insert_with(|| {
            let (stopper, stop) = tokio::sync::watch::channel(false);
            let keeper = Keeper {
                app: app.clone(),
                vault,
                protection: record,
                feeds: Arc::clone(feeds),
                metrics: Arc::clone(metrics),
                stop,
                backing_up: Arc::default(),
            };
            Kept { number, stopper, task: tokio::spawn(keeper.run()) }
        });
    }
}
