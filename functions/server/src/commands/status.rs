//! `hindsight status`: what can be restored, how sure that is, and whether changes come in as they should.

mod show;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use database::slot::{self, SlotState};
use handlers::browse::{BrowseError, State};
use handlers::health::{self, Health};
use handlers::lag::{self, Lag};
use handlers::protection::{self, Protection, Status as Running};
use handlers::vault::{Promises, VaultRecord};
use pipeline::base::inputs::Inventory;
use pipeline::changelog::coverage::{Gap, Window};
use pipeline::changelog::points::Points;
use pipeline::fold::Cut;
use pipeline::fold::object::Keep;
use pipeline::model::time::parse_duration;
use pipeline::model::{ResourceId, ResourceKind, Timestamp};
use pipeline::vault::layout;
use pipeline::vault::record::Numbered;
use serde::Serialize;

use crate::app::App;
use crate::exit::Ended;
use crate::output::{Output, escaped};
use crate::vaults::OpenVault;
use crate::windows::window;

/// Show what is protected, which seconds can be restored, how sure that is, and what is wrong.
#[derive(Debug, Args)]
pub struct Status {
    /// A vault: its name or place; may be given several times. Without any, all configured vaults.
    #[arg(long, value_name = "VAULT", env = "HINDSIGHT_VAULT")]
    vault: Vec<String>,
    /// Wait until everything that is protected has a proven mark and everything that had arrived by now is durable; at most
    /// so long [default: 10m].
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "10m", value_parser = parse_duration)]
    wait: Option<Duration>,
}

/// After so long it is said what is waited for, and again after as long.
const SAY_EVERY: Duration = Duration::from_secs(15);
/// How often the vaults are asked while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One vault, as JSON.
#[derive(Serialize)]
struct VaultStatus {
    vault: String,
    id: String,
    created: Timestamp,
    /// What its store was found to promise when it was made.
    store: Promises,
    dead_letters: u64,
    resources: Vec<ResourceStatus>,
    /// Resources of which nothing can be said, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<Unreadable>,
}

/// A resource whose files cannot be read, as JSON.
#[derive(Serialize)]
struct Unreadable {
    resource: ResourceId,
    error: String,
}

/// One resource, as JSON.
#[derive(Serialize)]
struct ResourceStatus {
    protection: Protection,
    /// None before the first full backup has completed.
    window: Option<Window>,
    /// Whether changes come in as they should.
    health: Health,
    lag: Option<Lag>,
    /// What a bucket holds.
    #[serde(flatten)]
    holds: Option<Holds>,
    /// How the replication slot of a database was when it was looked at last.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<SlotState>,
    /// Tables of a database of which only new rows are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    new_rows_only: Vec<String>,
    /// How many recovery points there are of a virtual machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    points: Option<usize>,
    segments: usize,
    bases: usize,
}

/// What a bucket holds at `latest`, as JSON.
#[derive(Default, Serialize)]
struct Holds {
    /// Objects: those that a plain GET sees.
    objects: u64,
    /// Live versions and delete markers, those objects' among them.
    versions: u64,
    /// The delete markers among them.
    markers: u64,
    /// Those whose content is lost.
    lost: u64,
    /// The bytes of all versions but those.
    bytes: u64,
}

pub async fn run(app: &App, command: Status) -> Result<Ended> {
    let mut ended = Ended::Whole;
    if let Some(patience) = command.wait {
        ended = wait(app, &command, patience).await?;
    }
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for place in app.places(&command.vault)? {
        // A configured vault that nothing was protected in yet is not there yet.
        match place.open_if_there().await? {
            Some(opened) => found.push(look(&opened, app.clock.now()).await?),
            None if command.vault.is_empty() => absent.push((place.name.clone(), place.location.to_string())),
            None => drop(place.open().await?),
        }
    }
    let mut output = Output::new(app.flags.json);
    if output.json {
        output.document(&serde_json::json!({ "vaults": found, "absent": absent.iter().map(|(name, _)| name).collect::<Vec<_>>() }))?;
    } else {
        for vault in &found {
            show::vault(&mut output, vault, app.clock.now())?;
        }
        for (name, place) in &absent {
            let (name, place) = (escaped(name), escaped(place));
            output.line(format_args!("vault {name}: there is none at {place}: is it written right, and its disk mounted? Where there has been none, `hindsight protect` makes one"))?;
        }
    }
    output.finish()?;
    let unreadable = found.iter().any(|vault| !vault.unreadable.is_empty());
    Ok(if unreadable { Ended::InPart } else { ended })
}

/// Waits until whatever happened before this command began can be restored.
async fn wait(app: &App, command: &Status, patience: Duration) -> Result<Ended> {
    let began = app.clock.now();
    let mut said = began;
    let mut vaults = Vec::new();
    for place in app.places(&command.vault)? {
        vaults.push(place.open().await?);
    }
    loop {
        let mut waiting = Vec::new();
        for opened in &vaults {
            for Numbered { record, .. } in protection::all(&opened.vault).await? {
                let window = window(&opened.vault, &Inventory::load(&opened.vault, &record.resource).await?).await?;
                let there = window.is_some_and(|window| {
                    let is_proven = window.proven.is_some() || record.is_best_effort();
                    // A database whose tables were read again has no last state before its log comes to where they were read.
                    let is_behind = |gap: &Gap| gap.to.is_some_and(|ended| window.latest < ended);
                    let waits_for_log = record.resource.kind() == ResourceKind::Database && window.gaps.iter().any(is_behind);
                    window.latest >= began && is_proven && !waits_for_log
                });
                // Points are made of a machine at their own times.
                if record.status == Running::Active && record.machine().is_none() && !there {
                    waiting.push((opened, record.resource));
                }
            }
        }
        let Some((of, first)) = waiting.first() else { return Ok(Ended::Whole) };
        if app.clock.now().since(said) >= SAY_EVERY {
            said = app.clock.now();
            let trouble = health::newest_trouble(&of.vault, first).await?;
            let trouble = trouble.map(|trouble| format!("; last trouble, at {}: {}", trouble.at, trouble.reason)).unwrap_or_default();
            tracing::warn!(resource = %first, resources = waiting.len(), "still waiting until a running `hindsight serve` has made durable what had happened by now{trouble}");
        }
        if app.clock.now().since(began) >= patience {
            tracing::warn!(resource = %first, resources = waiting.len(), "what had happened is not durable yet; is `hindsight serve` running?");
            return Ok(Ended::InPart);
        }
        app.clock.sleep(LOOK_EVERY).await;
    }
}

async fn look(opened: &OpenVault, now: Timestamp) -> Result<VaultStatus> {
    let dead_letters = opened.vault.list(layout::DEAD_FOLDER).await?.len() as u64;
    let (mut resources, mut unreadable) = (Vec::new(), Vec::new());
    for numbered in protection::all(&opened.vault).await? {
        let resource = numbered.record.resource.clone();
        // One that is damaged hides none of the others.
        match look_at(opened, numbered.record, now).await {
            Ok(status) => resources.push(status),
            Err(error) => unreadable.push(Unreadable { resource, error: format!("{error:#}") }),
        }
    }
    let VaultRecord { id, created, store, .. } = opened.record.clone();
    Ok(VaultStatus { vault: opened.place.name.clone(), id, created, store, dead_letters, resources, unreadable })
}

async fn look_at(opened: &OpenVault, protection: Protection, now: Timestamp) -> Result<ResourceStatus> {
    let inventory = Inventory::load(&opened.vault, &protection.resource).await?;
    let window = window(&opened.vault, &inventory).await?;
    let health = health::read(&opened.vault, &protection, window.as_ref(), inventory.fed_until(), now).await?;
    let lag = lag::newest(&opened.vault, &protection.resource).await?;
    let (holds, slot) = match protection.resource.kind() {
        ResourceKind::Bucket => (Some(held(opened, &inventory, window.as_ref()).await?), None),
        ResourceKind::Database => (None, slot::newest(&opened.vault, &protection.resource).await?),
        ResourceKind::Machine => (None, None),
    };
    let points = match protection.resource.kind() {
        ResourceKind::Machine => Some(Points::read(&opened.vault, &protection.resource).await?.all().len()),
        ResourceKind::Bucket | ResourceKind::Database => None,
    };
    let new_rows_only = match protection.resource.kind() {
        ResourceKind::Database => database::new_rows_only(&opened.vault, &protection.resource).await?,
        ResourceKind::Bucket | ResourceKind::Machine => Vec::new(),
    };
    let (segments, bases) = (inventory.segments.len(), inventory.bases().len());
    Ok(ResourceStatus { protection, window, health, lag, holds, slot, new_rows_only, points, segments, bases })
}

async fn held(opened: &OpenVault, inventory: &Inventory, window: Option<&Window>) -> Result<Holds> {
    let mut holds = Holds::default();
    let cut = Cut::At(window.map_or(Timestamp::MAX, |window| window.latest));
    let state = State::new(&opened.vault, inventory.inputs(cut), cut, Keep::Live, "").await?;
    state
        .for_each(|object| {
            holds.versions += object.len() as u64;
            holds.markers += object.iter().filter(|version| version.marker).count() as u64;
            holds.objects += u64::from(object.last().is_some_and(|newest| !newest.marker));
            holds.lost += object.iter().filter(|version| version.is_lost()).count() as u64;
            holds.bytes += object.iter().filter(|version| version.body.is_some()).map(|version| version.size).sum::<u64>();
            Ok::<(), BrowseError>(())
        })
        .await?;
    Ok(holds)
}
