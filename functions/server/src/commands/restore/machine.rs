//! `hindsight restore vm://NAME`: the disks of a virtual machine, into a folder.

use std::path::PathBuf;

use anyhow::Result;
use gateway::restore::{MachineRestore, restore};
use pipeline::model::ResourceId;
use pipeline::replay::disks::DisksPoint;

use super::Restore;
use crate::app::App;
use crate::exit::{Ended, Failure};
use crate::instant::Instant;
use crate::output::Output;
use crate::protected::Protected;
use crate::restoring::Asked;

/// Restores a machine's disks.
pub async fn run(app: &App, command: &Restore, asked: &Asked, resource: ResourceId) -> Result<Ended> {
    let is_stray = asked.only_for_buckets().or(command.report.as_ref().map(|_| "--report"));
    if let Some(flag) = is_stray.or((!asked.tables().is_empty()).then_some("--table")) {
        return Err(Failure::usage(format!("{flag} is not for virtual machines, and {resource} is one")).into());
    }
    let target = asked.target()?;
    if target.contains("://") {
        return Err(Failure::usage(format!("{target:?} is no place for disks: write --target DIR, a folder")).into());
    }
    let point = match app.instant(asked.to()?)? {
        Instant::At(at) => DisksPoint::Time(at),
        Instant::Latest => DisksPoint::Latest,
        // The last point before now, however long ago: the report says of when it is.
        Instant::Now => DisksPoint::Time(app.clock.now()),
    };
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let request = MachineRestore { resource, point, target: PathBuf::from(target), dry_run: asked.dry_run };
    let report = restore(&opened.vault, &request, app.clock.as_ref()).await?;
    let mut output = Output::of_deed(app.flags.json);
    output.report(&report)?;
    output.finish()?;
    Ok(Ended::Whole)
}
