//! Recovery points of virtual machines: one that is made now, and those that there are.

use anyhow::Result;
use clap::Args;
use gateway::backup::{BackupReport, BackupRequest, backup_until};
use handlers::protection::Status;
use pipeline::changelog::points::{Point, PointDisk, Points};
use pipeline::model::{ResourceId, ResourceKind};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, VaultFlag};
use crate::exit::{Ended, Failure};
use crate::output::{Output, Table, bytes, counted, escaped};
use crate::protected::Protected;

/// Make a recovery point of a virtual machine now.
///
/// Of each disk only what has changed since the point before is read, wherever QEMU knows that; else all of it, and the report says why.
/// A backup that is broken off costs nothing: ask for it again.
#[derive(Debug, Args)]
pub struct Backup {
    /// The machine.
    #[arg(value_name = "vm://NAME")]
    machine: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// Read everything, whatever has changed, and store it anew: where the vault has lost something.
    #[arg(long)]
    full: bool,
    /// Only say what would be read, and why.
    #[arg(long)]
    dry_run: bool,
}

pub async fn run_backup(app: &App, command: Backup) -> Result<Ended> {
    let resource = machine(&command.machine)?;
    let Protected { opened, protection, .. } = app.protected(&command.vault, &resource).await?;
    if protection.status == Status::Stopped {
        let next = "its points can be restored; `hindsight protect` it again to make more";
        return Err(Failure::refused(format!("{resource} is not protected any more: {next}")).into());
    }
    let how = protection.machine().ok_or_else(|| Failure::broken(format!("the record of how {resource} is protected is damaged")))?;
    let request = BackupRequest { resource, protection: how.clone(), full: command.full, dry_run: command.dry_run };
    let mut terminate = signal(SignalKind::terminate())?;
    let told = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::warn!("told to end: clearing up in the machine");
    };
    let report = backup_until(&opened.vault, &request, app.clock.as_ref(), told).await?;
    let mut output = Output::of_deed(app.flags.json);
    if output.json {
        output.document(&report)?;
    } else {
        show_backup(&mut output, &report)?;
    }
    output.finish()?;
    Ok(if report.warnings.is_empty() { Ended::Whole } else { Ended::InPart })
}

fn show_backup(output: &mut Output, report: &BackupReport) -> std::io::Result<()> {
    let BackupReport { resource, dry_run, number, point, warnings } = report;
    for disk in &point.disks {
        let what = disk.full.map_or_else(|| "what changed".to_owned(), |reason| format!("all, because {reason}"));
        let PointDisk { disk, size_bytes, read_bytes, blocks, zeroed, stored_bytes, .. } = disk;
        match dry_run {
            true => output.line(format_args!("{disk}, {}: {what}, would be read", bytes(*size_bytes)))?,
            false => output.line(format_args!(
                "{disk}: {what}: {} of {} read, {} and {zeroed} of zeros, {} stored",
                bytes(*read_bytes),
                bytes(*size_bytes),
                counted(*blocks, "block"),
                bytes(*stored_bytes)
            ))?,
        }
    }
    for disk in &point.excluded {
        output.line(format_args!("{}: left out: {}", escaped(&disk.disk), disk.reason))?;
    }
    for warning in warnings {
        output.line(format_args!("warning: {warning}"))?;
    }
    match dry_run {
        true => output.line("dry run: nothing was done"),
        false => output.line(format_args!(
            "recovery point {number} of {resource} at {}, {}; it took {} ms, the guest stood still for {} ms",
            point.at,
            point.consistency,
            point.took_ms,
            point.paused_us.div_ceil(1_000)
        )),
    }
}

/// List the recovery points of a virtual machine.
#[derive(Debug, Args)]
pub struct ListPoints {
    /// The machine.
    #[arg(value_name = "vm://NAME")]
    machine: String,
    #[command(flatten)]
    vault: VaultFlag,
}

/// A point, as JSON.
#[derive(Serialize)]
struct Listed<'a> {
    number: u64,
    #[serde(flatten)]
    point: &'a Point,
}

pub async fn run_points(app: &App, command: ListPoints) -> Result<Ended> {
    let resource = machine(&command.machine)?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let points = Points::read(&opened.vault, &resource).await?;
    let mut output = Output::of_deed(app.flags.json);
    let mut table = Table::new(&["point", "at", "disks", "read", "stored", "consistency"]);
    for known in points.all() {
        let point = &known.record;
        if output.json {
            output.document(&Listed { number: known.number, point })?;
            continue;
        }
        let disk = |disk: &PointDisk| format!("{}{}", disk.disk, if disk.full.is_some() { " (full)" } else { "" });
        let sum = |of: fn(&PointDisk) -> u64| bytes(point.disks.iter().map(of).sum());
        table.row(vec![
            known.number.to_string(),
            point.at.to_string(),
            point.disks.iter().map(disk).collect::<Vec<_>>().join(", "),
            sum(|disk| disk.read_bytes),
            sum(|disk| disk.stored_bytes),
            point.consistency.to_string(),
        ]);
    }
    match (output.json, table.len()) {
        (true, _) => {}
        (false, 0) => output.line("there are no recovery points yet")?,
        (false, _) => output.line(table)?,
    }
    output.finish()?;
    Ok(Ended::Whole)
}

fn machine(text: &str) -> Result<ResourceId> {
    let resource: ResourceId = text.parse()?;
    match resource.kind() {
        ResourceKind::Machine => Ok(resource),
        _ => {
            Err(Failure::usage(format!("{text:?} is no virtual machine, of which alone there are recovery points: write vm://NAME")).into())
        }
    }
}
