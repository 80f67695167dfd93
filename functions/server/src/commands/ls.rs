//! `hindsight ls`: the objects of a bucket as they were.

use anyhow::Result;
use clap::Args;
use handlers::browse::State;
use handlers::restore::{RestoreJobError, RestoreRequest};
use pipeline::base::inputs::Inventory;
use pipeline::fold::Uncertain;
use pipeline::fold::object::Keep;
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::plan::plan;
use pipeline::replay::{Certainty, ReplayPlan, RestorePoint};
use pipeline::vault::Vault;
use pipeline::view::ObjectVersion;
use serde::Serialize;

use crate::app::{App, VaultFlag, bucket_and_rest};
use crate::exit::Ended;
use crate::output::{Output, escaped};

/// Objects that are sorted together. Of a larger listing each part of so many is sorted for itself.
const SORTED_MAX: usize = 500_000;

/// List the objects of a bucket as they were at a time.
#[derive(Debug, Args)]
pub struct Ls {
    /// The bucket, and the beginning of the keys that are listed.
    #[arg(value_name = "s3://BUCKET[/PREFIX]")]
    bucket: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// When: RFC 3339, 5m ago, or latest; now means latest, too.
    #[arg(long, value_name = "TIME", default_value = "latest")]
    at: String,
    /// All versions that were live, and delete markers; the newest first.
    #[arg(long)]
    versions: bool,
    /// Write nothing but keys, as they are, each with a NUL behind it.
    #[arg(short = '0', long = "null", conflicts_with = "json")]
    null: bool,
}

/// One version, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    version: &'a ObjectVersion,
    /// Whether it is the one that a plain GET sees; only of a listing of versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<bool>,
}

pub async fn run(app: &App, command: Ls) -> Result<Ended> {
    let (resource, prefix) = bucket_and_rest(&command.bucket)?;
    let opened = app.vault(&command.vault).await?;
    let planned = planned(app, &opened.vault, &resource, &command.at).await?;
    let keep = if command.versions { Keep::Live } else { Keep::Current };
    let state = State::new(&opened.vault, planned.inputs.clone(), planned.cut(), keep, &prefix);
    let mut output = Output::new(app.flags.json);
    let mut waiting = Vec::new();
    let mut parts = 0;
    let uncertain = state
        .for_each(|object| -> Result<()> {
            waiting.push(object);
            if waiting.len() == SORTED_MAX {
                parts += 1;
                write(&mut output, &command, &mut waiting)?;
            }
            Ok(())
        })
        .await?;
    write(&mut output, &command, &mut waiting)?;
    output.finish()?;
    if parts > 0 {
        tracing::warn!(objects = SORTED_MAX, "there are too many objects to sort them all: each part of so many is sorted for itself");
    }
    warn_uncertain(&uncertain);
    Ok(Ended::Whole)
}

/// The instant that `at` names, if it can be read, and what must be read for it.
pub async fn planned(app: &App, vault: &Vault, resource: &ResourceId, at: &str) -> Result<ReplayPlan> {
    let request = RestoreRequest {
        resource: resource.clone(),
        to: looked_at(app, at)?,
        certainty: Certainty::Arrived,
        options: super::restore::plain_options(),
    };
    Ok(handlers::restore::planned(vault, &request).await?)
}

/// The same, of an inventory that is at hand.
pub fn planned_in(app: &App, inventory: &Inventory, at: &str) -> Result<Timestamp> {
    Ok(plan(inventory, looked_at(app, at)?, Certainty::Arrived).map_err(RestoreJobError::from)?.to)
}

/// A time to look at. What is now nobody can say yet: for looking, the last that is known will do.
fn looked_at(app: &App, text: &str) -> Result<RestorePoint> {
    if text.trim().eq_ignore_ascii_case("now") { Ok(RestorePoint::Latest) } else { point(app, text) }
}

/// A time, or `latest`.
pub fn point(app: &App, text: &str) -> Result<RestorePoint> {
    Ok(if text.trim().eq_ignore_ascii_case("latest") { RestorePoint::Latest } else { RestorePoint::Time(app.time(text)?) })
}

/// Says which keys nobody can be sure of.
pub fn warn_uncertain(uncertain: &[Uncertain]) {
    const TOLD_MAX: usize = 20;
    for Uncertain { object, version, reason } in uncertain.iter().take(TOLD_MAX) {
        tracing::warn!("it is uncertain whether {} ({}) was there: {reason}", escaped(object), escaped(version));
    }
    if uncertain.len() > TOLD_MAX {
        tracing::warn!("and {} more are uncertain", uncertain.len() - TOLD_MAX);
    }
}

fn write(output: &mut Output, command: &Ls, objects: &mut Vec<Vec<ObjectVersion>>) -> Result<()> {
    objects.sort_by(|a, b| a[0].object.cmp(&b[0].object));
    for mut object in objects.drain(..) {
        object.reverse();
        for (place, version) in object.iter().enumerate() {
            let latest = command.versions.then_some(place == 0);
            if command.null {
                output.bytes(version.object.as_bytes())?;
                output.bytes(b"\0")?;
            } else if output.json {
                output.document(&Line { version, latest })?;
            } else {
                output.line(line(version, latest))?;
            }
        }
    }
    Ok(())
}

fn line(version: &ObjectVersion, latest: Option<bool>) -> String {
    let size = match (&version.lost, version.marker) {
        (_, true) => "deleted".to_owned(),
        (Some(_), _) if version.body.is_none() => format!("{} LOST", version.size),
        _ => version.size.to_string(),
    };
    let id = match latest {
        None => String::new(),
        Some(latest) => format!("{} {:<34}  ", if latest { "*" } else { " " }, escaped(&version.version)),
    };
    format!("{:<27}  {size:>15}  {id}{}", version.at.to_string(), escaped(&version.object))
}
