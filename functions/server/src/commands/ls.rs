//! `hindsight ls`: the objects of a bucket, or the tables of a database, as they were.

mod tables;

use anyhow::Result;
use clap::Args;
use handlers::browse::State;
use pipeline::base::inputs::Inventory;
use pipeline::fold::Uncertain;
use pipeline::fold::object::Keep;
use pipeline::view::ObjectVersion;
use serde::Serialize;

use crate::app::{App, VaultFlag, bucket_and_rest, database_and_tables};
use crate::exit::Ended;
use crate::output::{Output, escaped};
use crate::protected::Protected;

/// List the objects of a bucket, or the tables of a database with the number of their rows, as they were at a time.
#[derive(Debug, Args)]
pub struct Ls {
    /// The bucket, and the beginning of the keys that are listed. Or the database, and the tables: TABLE, SCHEMA.TABLE, with `*`, `?` and
    /// `[a-z]` for others.
    #[arg(value_name = "s3://BUCKET[/PREFIX]|db://NAME[/TABLE]")]
    bucket: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// When: RFC 3339, 5m ago, or latest; now means latest, too. Of a database also xid:NUMBER, lsn:X/Y or marker:NAME.
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
    if let Some(of) = database_and_tables(&command.bucket)? {
        return tables::run(app, &command, of).await;
    }
    let (resource, prefix) = bucket_and_rest(&command.bucket)?;
    let at = app.instant(&command.at)?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let planned = at.to_look_at(app, &Inventory::load(&opened.vault, &resource).await?)?;
    let keep = if command.versions { Keep::Live } else { Keep::Current };
    let state = State::new(&opened.vault, planned.inputs.clone(), planned.cut(), keep, &prefix).await?;
    let mut output = Output::new(app.flags.json);
    let mut found = 0_u64;
    let (uncertain, parts) = state
        .for_each_in_order(|object| -> Result<()> {
            found += 1;
            write(&mut output, &command, object)
        })
        .await?;
    output.finish()?;
    if parts > 1 {
        tracing::warn!(parts, "so many objects are not sorted all together: each part of the listing is sorted for itself");
    }
    if found == 0 {
        let begins = if prefix.is_empty() { String::new() } else { format!(" whose key begins with \"{}\"", escaped(&prefix)) };
        tracing::warn!("there was no object{begins} at {}", planned.to);
    }
    warn_uncertain(&uncertain);
    Ok(Ended::Whole)
}

/// Says which keys nobody can be sure of.
pub fn warn_uncertain(uncertain: &[Uncertain]) {
    const TOLD_MAX: usize = 20;
    for Uncertain { object, version, reason } in uncertain.iter().take(TOLD_MAX) {
        tracing::warn!("uncertain: {} ({}): {reason}", escaped(object), escaped(version));
    }
    if uncertain.len() > TOLD_MAX {
        tracing::warn!("and {} more are uncertain", uncertain.len() - TOLD_MAX);
    }
}

fn write(output: &mut Output, command: &Ls, mut object: Vec<ObjectVersion>) -> Result<()> {
    object.reverse();
    for (place, version) in object.iter().enumerate() {
        let latest = command.versions.then_some(place == 0);
        if command.null {
            output.bytes(version.object.as_bytes())?;
            output.bytes(b"\0")?;
        } else {
            output.show(&Line { version, latest }, || line(version, latest))?;
        }
    }
    Ok(())
}

fn line(version: &ObjectVersion, latest: Option<bool>) -> String {
    let size = match version.marker {
        true => "deleted".to_owned(),
        false if version.is_lost() => format!("{} LOST", version.size),
        false => version.size.to_string(),
    };
    let id = match latest {
        None => String::new(),
        Some(latest) => format!("{} {:<34}  ", if latest { "*" } else { " " }, escaped(&version.version)),
    };
    format!("{:<27}  {size:>15}  {id}{}", version.at.to_string(), escaped(&version.object))
}
