//! Virtual machines on the command line: what is asked of one before it is protected, a backup now, and the points there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use gateway::backup::{BackupReport, BackupRequest, backup, backup_until, let_go};
use gateway::restore::{MachineRestore, restore};
use handlers::protection::{How, MachineProtection, Reached, Status};
use pipeline::changelog::points::{Point, PointDisk, Points};
use pipeline::model::{ResourceId, ResourceKind};
use pipeline::replay::disks::DisksPoint;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::protect::{Protect, choose, decide};
use super::restore::{Asked, Restore};
use crate::app::{App, VaultFlag};
use crate::exit::{Ended, Failure};
use crate::instant::Instant;
use crate::output::{Output, Table, bytes, counted, escaped};
use crate::protected::Protected;

/// What the name of a machine begins with.
pub const MACHINE: &str = "vm://";

/// How a virtual machine is protected.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a virtual machine")]
pub struct MachineFlags {
    /// A disk by the name that it gets in the vault, and its image; may be given several times. A raw image is raw:PATH. Needed where
    /// the machine is backed up while it is off; without any, all disks that QEMU tells of.
    #[arg(long, value_name = "NAME=IMAGE")]
    disk: Vec<String>,
    /// The socket of QEMU's monitor (QMP), through which the machine is backed up while it runs.
    #[arg(long, value_name = "SOCKET")]
    qmp: Option<PathBuf>,
    /// The folder for what the guest overwrites while a backup reads: on a local file system, and QEMU must be able to write there
    /// [default: that for temporary files].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// A file that says how the machine is made (libvirt's XML, QEMU's arguments); every recovery point keeps its text.
    #[arg(long, value_name = "FILE")]
    description: Option<PathBuf>,
    /// How often `serve` makes a recovery point; without it only `hindsight backup` does.
    #[arg(long, value_name = "DURATION", value_parser = pipeline::model::time::parse_duration)]
    every: Option<std::time::Duration>,
}

impl MachineFlags {
    /// The flag of these that is given.
    pub fn given(&self) -> Option<&'static str> {
        let MachineFlags { disk, qmp, scratch, description, every } = self;
        [
            ("--disk", !disk.is_empty()),
            ("--qmp", qmp.is_some()),
            ("--scratch", scratch.is_some()),
            ("--description", description.is_some()),
            ("--every", every.is_some()),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }
}

/// Protects a machine.
pub async fn protect(app: &App, command: Protect) -> Result<Ended> {
    let resource: ResourceId = command.what.parse()?;
    let MachineFlags { disk, qmp, scratch, description, every } = command.machine;
    if disk.is_empty() && qmp.is_none() {
        return Err(Failure::usage(
            "say how the machine is reached: --qmp SOCKET while it runs, --disk NAME=IMAGE while it is off, or both",
        )
        .into());
    }
    let mut images = BTreeMap::new();
    for disk in disk {
        let wrong = || Failure::usage(format!("--disk {disk:?} is none: write NAME=IMAGE, or NAME=raw:IMAGE"));
        let (name, path) = disk.split_once('=').ok_or_else(wrong)?;
        let (form, path) = path.strip_prefix("raw:").map_or(("", path), |path| ("raw:", path));
        if images.insert(name.to_owned(), format!("{form}{}", absolute(Path::new(path))?)).is_some() {
            return Err(Failure::usage(format!("--disk {name} is given twice")).into());
        }
    }
    let path = |path: Option<PathBuf>| path.map(|path| absolute(&path)).transpose();
    let machine = Reached { qmp: path(qmp)?, images, scratch: path(scratch)?, description: path(description)? };
    let protection = MachineProtection { machine, every_seconds: every.map(|every| every.as_secs()) };
    // Whatever is wrong with it is told now, and not at night.
    let request = BackupRequest { resource: resource.clone(), protection: protection.clone(), full: false, dry_run: true };
    let place = app.place(&command.vault)?;
    let chosen = choose(app, &place, &resource).await?;
    let looked = backup(&chosen.opened.vault, &request, app.clock.as_ref()).await?;
    let excluded = looked.point.excluded.iter();
    let warnings = excluded.map(|disk| format!("disk {} is left out: {}", escaped(&disk.disk), disk.reason)).collect();
    decide(app, &chosen, resource, How::Machine(protection), warnings).await
}

/// A path that means the same in whatever folder `serve` is started.
fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    absolute.to_str().map(str::to_owned).ok_or_else(|| Failure::usage(format!("{} is not UTF-8", path.display())))
}

/// How a machine is protected, as people read it.
pub fn shown(protection: &MachineProtection) -> Vec<(&'static str, String)> {
    let Reached { qmp, images, scratch, description } = &protection.machine;
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "none".to_owned(), escaped);
    let disks: Vec<String> = images.iter().map(|(name, path)| format!("{name}={}", escaped(path))).collect();
    vec![
        ("monitor", or_none(qmp)),
        ("disks", if disks.is_empty() { "all".to_owned() } else { disks.join(", ") }),
        ("scratch", or_none(scratch)),
        ("description", or_none(description)),
        ("every", protection.every_seconds.map_or_else(|| "when asked".to_owned(), |every| format!("{every} s"))),
    ]
}

/// Takes away what was left in the machine's images, and says what could not be.
pub async fn clean_up(app: &App, resource: &ResourceId, protection: &MachineProtection) -> Vec<String> {
    match let_go(&protection.machine, app.clock.as_ref()).await {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!(
            "the bitmaps in the images of {resource} are left, and go on recording: {:#}; once that is mended, ask for the same again",
            anyhow::Error::new(error)
        )],
    }
}

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
    let mut output = Output::new(app.flags.json);
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
    let mut output = Output::new(app.flags.json);
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

/// Restores a machine's disks.
pub async fn run_restore(app: &App, command: &Restore, asked: &Asked, resource: ResourceId) -> Result<Ended> {
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
    let mut output = Output::new(app.flags.json);
    output.report(&report)?;
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
