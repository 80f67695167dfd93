//! What is asked of a virtual machine before it is protected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use gateway::backup::{BackupRequest, backup, let_go};
use handlers::protection::{How, MachineProtection, Reached};
use pipeline::model::ResourceId;

use super::{Protect, choose, decide};
use crate::app::App;
use crate::exit::{Ended, Failure};
use crate::output::escaped;

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
