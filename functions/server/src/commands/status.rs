//! `hindsight status`: what can be restored, and how sure that is.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use handlers::browse::{BrowseError, State};
use handlers::lag::{self, Lag};
use handlers::protection::{self, Events, Protection, Status as Running};
use pipeline::base::inputs::Inventory;
use pipeline::changelog::coverage::Window;
use pipeline::fold::Cut;
use pipeline::fold::object::Keep;
use pipeline::model::Timestamp;
use pipeline::model::time::parse_duration;
use pipeline::vault::layout;
use pipeline::vault::record::Numbered;
use serde::Serialize;

use crate::app::App;
use crate::exit::Ended;
use crate::output::{Output, Table, bytes, escaped};
use crate::vaults::OpenVault;

/// Show what is protected, which seconds can be restored, and how sure that is.
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

/// How often the vaults are asked while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One vault, as JSON.
#[derive(Serialize)]
struct VaultStatus {
    vault: String,
    id: String,
    created: Timestamp,
    dead_letters: u64,
    resources: Vec<ResourceStatus>,
}

/// One resource, as JSON.
#[derive(Serialize)]
struct ResourceStatus {
    protection: Protection,
    /// None before the first full backup has completed.
    window: Option<Window>,
    /// Whether events are known to be off now.
    events_off: bool,
    lag: Option<Lag>,
    /// Live versions and markers, those whose content is lost, and the bytes of the others.
    versions: u64,
    lost: u64,
    bytes: u64,
    segments: usize,
    bases: usize,
}

pub async fn run(app: &App, command: Status) -> Result<Ended> {
    let mut ended = Ended::Whole;
    if let Some(patience) = command.wait {
        ended = wait(app, &command, patience).await?;
    }
    let mut found = Vec::new();
    for place in app.places(&command.vault)? {
        // A configured vault that nothing was protected in yet is not there yet.
        match place.open_if_there().await? {
            Some(opened) => found.push(look(&opened).await?),
            None if command.vault.is_empty() => tracing::info!(vault = place.name, "there is no vault yet"),
            None => drop(place.open().await?),
        }
    }
    let mut output = Output::new(app.flags.json);
    if output.json {
        output.document(&serde_json::json!({ "vaults": found }))?;
    } else {
        for vault in &found {
            show(&mut output, vault)?;
        }
    }
    output.finish()?;
    Ok(ended)
}

/// Waits until whatever happened before this command began can be restored.
async fn wait(app: &App, command: &Status, patience: Duration) -> Result<Ended> {
    let began = app.clock.now();
    let mut vaults = Vec::new();
    for place in app.places(&command.vault)? {
        vaults.push(place.open().await?);
    }
    loop {
        let mut waiting = Vec::new();
        for opened in &vaults {
            for Numbered { record, .. } in protection::all(&opened.vault).await? {
                let window = Inventory::load(&opened.vault, &record.resource).await?.window();
                let there = window.is_some_and(|window| window.latest >= began && (window.proven.is_some() || record.unversioned));
                if record.status == Running::Active && !there {
                    waiting.push(record.resource);
                }
            }
        }
        let Some(first) = waiting.first() else { return Ok(Ended::Whole) };
        if app.clock.now().since(began) >= patience {
            tracing::warn!(resource = %first, resources = waiting.len(), "what had happened is not durable yet; is `hindsight serve` running?");
            return Ok(Ended::InPart);
        }
        app.clock.sleep(LOOK_EVERY).await;
    }
}

async fn look(opened: &OpenVault) -> Result<VaultStatus> {
    let dead_letters = opened.vault.list(layout::DEAD_FOLDER).await?.len() as u64;
    let mut resources = Vec::new();
    for numbered in protection::all(&opened.vault).await? {
        resources.push(look_at(opened, numbered.record).await?);
    }
    let record = opened.record.clone();
    Ok(VaultStatus { vault: opened.place.name.clone(), id: record.id, created: record.created, dead_letters, resources })
}

async fn look_at(opened: &OpenVault, protection: Protection) -> Result<ResourceStatus> {
    let inventory = Inventory::load(&opened.vault, &protection.resource).await?;
    let window = inventory.window();
    let events_off = window.iter().flat_map(|window| &window.gaps).any(|gap| gap.to.is_none());
    let lag = lag::newest(&opened.vault, &protection.resource).await?;
    let (mut versions, mut lost, mut bytes) = (0, 0, 0);
    let cut = Cut::At(Timestamp::MAX);
    let state = State::new(&opened.vault, inventory.inputs(cut), cut, Keep::Live, "");
    state
        .for_each(|object| {
            versions += object.len() as u64;
            lost += object.iter().filter(|version| version.body.is_none() && !version.marker).count() as u64;
            bytes += object.iter().filter(|version| version.body.is_some()).map(|version| version.size).sum::<u64>();
            Ok::<(), BrowseError>(())
        })
        .await?;
    let (segments, bases) = (inventory.segments.len(), inventory.bases().len());
    Ok(ResourceStatus { protection, window, events_off, lag, versions, lost, bytes, segments, bases })
}

fn show(output: &mut Output, status: &VaultStatus) -> std::io::Result<()> {
    let dead = if status.dead_letters > 0 { format!("; {} dead letters", status.dead_letters) } else { String::new() };
    output.line(format_args!("vault {}{dead}", escaped(&status.vault)))?;
    let head = ["resource", "earliest", "proven", "latest", "gaps", "lag p50/p99", "versions", "kept", "lost", "protection"];
    let mut table = Table::new(&head);
    for resource in &status.resources {
        table.row(row(resource));
    }
    if table.len() > 0 {
        output.line(table)?;
    }
    for resource in &status.resources {
        for gap in resource.window.iter().flat_map(|window| &window.gaps) {
            let to = gap.to.map_or_else(|| "now".to_owned(), |to| to.to_string());
            output.line(format_args!("gap of {}: {} to {to}: {}", resource.protection.resource, gap.from, escaped(&gap.reason)))?;
        }
    }
    Ok(())
}

fn row(status: &ResourceStatus) -> Vec<String> {
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let ResourceStatus { protection, window, lag, .. } = status;
    let lag = lag.as_ref().map_or_else(|| "-".to_owned(), |lag| format!("{}/{}", millis(lag.p50_ms), millis(lag.p99_ms)));
    let how = match (&protection.status, &protection.events) {
        (Running::Stopped, _) => "STOPPED".to_owned(),
        (Running::Active, _) if status.events_off => "ACTIVE, EVENTS OFF".to_owned(),
        (Running::Active, Events::Sqs { url }) => format!("ACTIVE, sqs:{}", escaped(url.rsplit('/').next().unwrap_or(url))),
        (Running::Active, Events::Webhook) => "ACTIVE, webhook".to_owned(),
        (Running::Active, Events::List { seconds }) => format!("ACTIVE, list:{seconds}"),
    };
    vec![
        protection.resource.to_string(),
        time(window.as_ref().map(|window| window.earliest)),
        time(window.as_ref().and_then(|window| window.proven)),
        time(window.as_ref().map(|window| window.latest)),
        window.as_ref().map_or(0, |window| window.gaps.len()).to_string(),
        lag,
        status.versions.to_string(),
        bytes(status.bytes),
        status.lost.to_string(),
        if protection.unversioned { format!("{how}, best effort") } else { how },
    ]
}

fn millis(millis: u64) -> String {
    if millis < 1_000 { format!("{millis}ms") } else { format!("{:.1}s", millis as f64 / 1_000.0) }
}
