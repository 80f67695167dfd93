//! The disks of a recovery point as files.
//!
//! ```text
//!  DIR/vda.raw        each disk, as long as it was, with holes where it was zeros
//!  DIR/machine.json   the point: its instant, what to expect of it, its disks, how the machine was made
//! ```
//!
//! Nothing that is there is written over. A disk gets its name when it is whole and on the disk; until then it is `vda.raw.part`, which
//! the next restore of the same name begins anew.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline::base::inputs::Inventory;
use pipeline::changelog::points::{Point, PointDisk, Points};
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::replay::disks::{Block, DisksPoint, plan};
use pipeline::source::disk::{is_disk_name, is_zeros};
use pipeline::vault::{Vault, VaultError};
use serde::Serialize;

use crate::error::GatewayError;

/// The file that says what the others are.
pub const DESCRIPTION: &str = "machine.json";
/// How finely zeros are left out of a file, in bytes: the blocks of most file systems.
const HOLE_BYTES: usize = 4 << 10;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct MachineRestore {
    /// The machine.
    pub resource: ResourceId,
    /// As of when.
    pub point: DisksPoint,
    /// The folder, which is made where there is none.
    pub target: PathBuf,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct MachineRestoreReport {
    /// The machine.
    pub resource: ResourceId,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The number of the point.
    pub number: u64,
    /// The instant of the point.
    pub at: Timestamp,
    /// The point.
    pub point: Point,
    /// Points that say that they are of before the instant that was asked for, too, but were made behind one that is later, by number.
    pub passed_over: Vec<u64>,
    /// Points that may be nearer to the instant that was asked for, and whose records are damaged, by number.
    pub damaged: Vec<u64>,
    /// The points whose changes it rests on.
    pub rests_on: u64,
    /// The files.
    pub files: Vec<RestoredDisk>,
    /// When it began and ended.
    pub began: Timestamp,
    /// See `began`.
    pub ended: Timestamp,
}

/// A disk that was restored.
#[derive(Debug, Clone, Serialize)]
pub struct RestoredDisk {
    /// The disk.
    pub disk: String,
    /// Its file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// How many bytes of it were written; the others are zeros.
    pub written_bytes: u64,
}

/// Restores the disks of a machine into a folder.
///
/// # Errors
/// [`GatewayError`]; then no file has its name that is not whole.
pub async fn restore(vault: &Vault, request: &MachineRestore, clock: &dyn Clock) -> Result<MachineRestoreReport, GatewayError> {
    let began = clock.now();
    let inventory = Inventory::load(vault, &request.resource).await?;
    let points = Points::read(vault, &request.resource).await?;
    let plan = plan(vault, &inventory, &points, request.point, began).await?;
    let point = plan.point.record.clone();
    let mut files = files(&request.target, &point.disks)?;
    let document = request.target.join(DESCRIPTION);
    for path in files.iter().map(|file| &file.path).chain([&document]) {
        if path.symlink_metadata().is_ok() {
            return Err(GatewayError::refused(format!(
                "{} is there already, and nothing is written over: choose another folder",
                path.display()
            )));
        }
    }
    if !request.dry_run {
        std::fs::create_dir_all(&request.target).map_err(file("make the folder", &request.target))?;
        let disks: Vec<Arc<File>> = files.iter().map(open).collect::<Result<_, GatewayError>>()?;
        plan.for_each_block(vault, async |blocks: Vec<Block>| {
            blocks.iter().for_each(|block| files[block.disk].written_bytes += block.content.len() as u64);
            let disks = disks.clone();
            let written = tokio::task::spawn_blocking(move || write(&disks, &blocks)).await;
            let (place, result) = written.map_err(|error| broken(&request.target, io::Error::other(error)))?;
            result.map_err(|source| broken(&files[place].path, source))
        })
        .await?;
        for (restored, disk) in files.iter().zip(&disks) {
            disk.sync_all().map_err(file("write", &restored.path))?;
            publish(disk, &part(&restored.path), &restored.path)?;
        }
        describe(&document, &point)?;
    }
    Ok(MachineRestoreReport {
        resource: request.resource.clone(),
        dry_run: request.dry_run,
        number: plan.point.number,
        at: point.at,
        point,
        passed_over: if let DisksPoint::Time(to) = request.point { points.passed_over(to) } else { Vec::new() },
        damaged: points.damaged_behind(plan.point.number),
        rests_on: plan.rests_on.len() as u64,
        files,
        began,
        ended: clock.now(),
    })
}

fn file<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> GatewayError + 'a {
    move |source| GatewayError::File { what, path: path.to_owned(), source }
}

fn broken(path: &Path, source: io::Error) -> GatewayError {
    GatewayError::File { what: "write", path: path.to_owned(), source }
}

/// The files that the disks become. A record may say anything.
fn files(target: &Path, disks: &[PointDisk]) -> Result<Vec<RestoredDisk>, GatewayError> {
    let mut files: Vec<RestoredDisk> = Vec::new();
    for PointDisk { disk, size_bytes, .. } in disks {
        if !is_disk_name(disk) || files.iter().any(|file| file.disk == *disk) {
            return Err(VaultError::damaged("the recovery point", format!("{disk:?} cannot be the name of a disk, or is it twice")).into());
        }
        files.push(RestoredDisk {
            disk: disk.clone(),
            path: target.join(format!("{disk}.raw")),
            size_bytes: *size_bytes,
            written_bytes: 0,
        });
    }
    Ok(files)
}

/// What a file is called until it is whole.
fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn open(restored: &RestoredDisk) -> Result<Arc<File>, GatewayError> {
    let path = part(&restored.path);
    // Of a restore that was broken off nobody knows what is in it. A link would lead out of the folder.
    if path.symlink_metadata().is_ok_and(|there| there.is_file()) {
        lock(&File::open(&path).map_err(file("open", &path))?, &path)?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(broken(&path, error)),
        _ => {}
    }
    let disk = OpenOptions::new().write(true).create_new(true).open(&path).map_err(file("make", &path))?;
    lock(&disk, &path)?;
    disk.set_len(restored.size_bytes).map_err(file("make room in", &path))?;
    Ok(Arc::new(disk))
}

/// Keeps other restores away from a file, for as long as it is open.
fn lock(disk: &File, path: &Path) -> Result<(), GatewayError> {
    match disk.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(GatewayError::refused(format!("another restore writes {}: wait for it, or choose another folder", path.display())))
        }
        Err(TryLockError::Error(source)) => Err(broken(path, source)),
    }
}

/// Writes blocks, and leaves zeros out. Says at which disk it ended.
fn write(disks: &[Arc<File>], blocks: &[Block]) -> (usize, io::Result<()>) {
    for block in blocks {
        for (index, piece) in block.content.chunks(HOLE_BYTES).enumerate() {
            if is_zeros(piece) {
                continue;
            }
            let offset = block.offset + (index * HOLE_BYTES) as u64;
            if let Err(error) = disks[block.disk].write_all_at(piece, offset) {
                return (block.disk, Err(error));
            }
        }
    }
    (0, Ok(()))
}

/// Gives a file that is whole its name, unless something has it.
fn publish(disk: &File, part: &Path, path: &Path) -> Result<(), GatewayError> {
    let (ours, there) = (disk.metadata().map_err(file("look at", part))?, part.symlink_metadata().map_err(file("look at", part))?);
    if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
        return Err(GatewayError::refused(format!("somebody else has put another file in place of {}", part.display())));
    }
    std::fs::hard_link(part, path).map_err(file("give its name to", path))?;
    std::fs::remove_file(part).map_err(file("take the old name from", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(file("write", folder))
}

fn describe(path: &Path, point: &Point) -> Result<(), GatewayError> {
    let text = serde_json::to_vec_pretty(point).map_err(|error| broken(path, io::Error::other(error)))?;
    let written = OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| {
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    written.map_err(file("write", path))
}

impl fmt::Display for MachineRestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MachineRestoreReport { resource, number, at, point, rests_on, .. } = self;
        writeln!(f, "{resource}, recovery point {number} of {at} ({}), which rests on {rests_on}", point.consistency)?;
        let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        if !self.damaged.is_empty() {
            let numbers = list(&self.damaged);
            writeln!(f, "NOT TAKEN: the records of points {numbers} are damaged, and they may be nearer to what was asked for")?;
        }
        if !self.passed_over.is_empty() {
            let numbers = list(&self.passed_over);
            writeln!(
                f,
                "NOT TAKEN: points {numbers} say that they are of before, too, but were made after one that is later: a clock was wrong; --to latest takes the newest"
            )?;
        }
        for RestoredDisk { disk, path, size_bytes, written_bytes } in &self.files {
            match self.dry_run {
                true => writeln!(f, "{disk}: {size_bytes} bytes would be {}", path.display())?,
                false => writeln!(f, "{disk}: {size_bytes} bytes in {}, {written_bytes} of them not zeros", path.display())?,
            }
        }
        match self.dry_run {
            true => writeln!(f, "dry run: nothing was written"),
            false => writeln!(f, "COMPLETED, every block checked against its SHA-256"),
        }
    }
}
