//! `hindsight restore db://NAME`: a database, into a new one.

use anyhow::Result;
use database::restore::{Chosen, DatabaseRestore, restore};
use pipeline::base::inputs::Inventory;
use pipeline::model::ResourceId;

use super::Restore;
use crate::app::App;
use crate::databases;
use crate::exit::{Ended, Failure};
use crate::instant::Instant;
use crate::output::Output;
use crate::protected::Protected;
use crate::restoring::Asked;

/// Restores a database.
pub async fn run(app: &App, command: &Restore, asked: &Asked, resource: ResourceId) -> Result<Ended> {
    if let Some(flag) = asked.only_for_buckets().or(command.report.as_ref().map(|_| "--report")) {
        return Err(Failure::usage(format!("{flag} is for buckets, and {resource} is a database")).into());
    }
    let target = asked.target()?;
    if !target.starts_with("postgres") {
        let reason = format!("{target:?} is no place for a database: write --target postgres://USER@HOST:PORT/NEW-DATABASE");
        return Err(Failure::usage(reason).into());
    }
    let target = databases::address(target)?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let point = app.tables_point(asked.to()?)?;
    if let Ok(now @ Instant::Now) = app.instant(asked.to()?) {
        let latest = Inventory::load(&opened.vault, &resource).await?.latest();
        latest.map_or(Ok(()), |latest| now.require_recent(app, &resource, latest, "what is known"))?;
    }
    let chosen = Chosen::new(asked.tables().to_vec()).map_err(|error| Failure::usage(format!("--table {error}")))?;
    let request = DatabaseRestore { resource, point, target, chosen, dry_run: asked.dry_run };
    let report = restore(&opened.vault, &request, app.clock.as_ref()).await?;
    let mut output = Output::of_deed(app.flags.json);
    output.report(&report)?;
    output.finish()?;
    Ok(if report.is_whole() { Ended::Whole } else { Ended::InPart })
}
