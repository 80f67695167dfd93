//! A vault, a folder with images, and what is done to both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gateway::GatewayError;
use gateway::backup::{BackupReport, BackupRequest, backup};
use gateway::restore::{MachineRestore, restore};
use handlers::protection::{MachineProtection, Reached};
use object_store::memory::InMemory;
use pipeline::changelog::points::FullReason;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::replay::disks::DisksPoint;
use pipeline::vault::Vault;

/// A clock that goes on by a second whenever it is asked, so that every point has an instant of its own.
pub struct Ticking(AtomicI64);

#[async_trait]
impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000 + self.0.fetch_add(1_000, Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

pub struct World {
    pub vault: Vault,
    pub store: Arc<InMemory>,
    pub clock: Ticking,
    pub folder: tempfile::TempDir,
    pub resource: ResourceId,
    pub images: BTreeMap<String, String>,
    pub qmp: Option<String>,
    /// For each point its instant and what the disks held then.
    pub history: Vec<(Timestamp, BTreeMap<String, Vec<u8>>)>,
}

/// Whether QEMU's programs are here; says so where they are not.
pub fn is_here(programs: &[&str]) -> bool {
    let is_missing = |program: &&&str| Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err();
    match programs.iter().find(is_missing) {
        Some(missing) => {
            eprintln!("SKIPPED: {missing} is not installed; ./dev setup installs it");
            false
        }
        None => true,
    }
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !told.contains("failed"), "{program} {arguments:?}: {told}");
    told
}

impl World {
    pub fn new() -> World {
        let store = Arc::new(InMemory::new());
        World {
            vault: Vault::new(store.clone(), ""),
            store,
            clock: Ticking(AtomicI64::new(0)),
            folder: tempfile::tempdir().unwrap(),
            resource: ResourceId::machine("web").unwrap(),
            images: BTreeMap::new(),
            qmp: None,
            history: Vec::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new qcow2 image of so many bytes.
    pub fn add_disk(&mut self, disk: &str, bytes: u64) {
        let path = self.path(&format!("{disk}.qcow2")).display().to_string();
        run("qemu-img", &["create", "-q", "-f", "qcow2", &path, &bytes.to_string()]);
        self.images.insert(disk.to_owned(), path);
    }

    /// Does something to an image, as `qemu-io` writes it.
    pub fn io(&self, disk: &str, commands: &[&str]) {
        let mut arguments = vec!["-f", "qcow2", "-d", "unmap"];
        commands.iter().for_each(|command| arguments.extend(["-c", command]));
        arguments.push(&self.images[disk]);
        run("qemu-io", &arguments);
    }

    /// What a disk holds, by QEMU's own copy of it.
    pub fn content(&self, disk: &str) -> Vec<u8> {
        let (copy, image) = (self.path("copy.raw"), &self.images[disk]);
        let (form, image) = image.strip_prefix("raw:").map_or(("qcow2", image.as_str()), |image| ("raw", image));
        run("qemu-img", &["convert", "-f", form, "-O", "raw", image, copy.to_str().unwrap()]);
        std::fs::read(copy).unwrap()
    }

    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        self.images.keys().map(|disk| (disk.clone(), self.content(disk))).collect()
    }

    pub fn request(&self) -> BackupRequest {
        let machine = Reached {
            qmp: self.qmp.clone(),
            images: self.images.clone(),
            scratch: Some(self.folder.path().display().to_string()),
            description: None,
        };
        let protection = MachineProtection { machine, every_seconds: None };
        BackupRequest { resource: self.resource.clone(), protection, full: false, dry_run: false }
    }

    pub async fn try_backup(&self) -> Result<BackupReport, GatewayError> {
        backup(&self.vault, &self.request(), &self.clock).await
    }

    /// A backup of disks that hold this, which is remembered.
    pub async fn backup_of(&mut self, contents: BTreeMap<String, Vec<u8>>) -> BackupReport {
        let report = self.try_backup().await.unwrap();
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        self.history.push((report.point.at, contents));
        report
    }

    /// A backup of a machine that is off.
    pub async fn backup(&mut self) -> BackupReport {
        let contents = self.contents();
        self.backup_of(contents).await
    }

    /// Why each disk was read whole, and how much was read.
    pub async fn check_backup(&mut self, expected: &[(&str, Option<FullReason>, u64)]) {
        let report = self.backup().await;
        check(&report, expected);
    }

    /// Restores every point there is, and holds it against the copy that was made then.
    pub async fn check_history(&self) {
        for (number, (at, contents)) in self.history.iter().enumerate() {
            let target = self.path(&format!("restored-{number}"));
            let request =
                MachineRestore { resource: self.resource.clone(), point: DisksPoint::Time(*at), target: target.clone(), dry_run: false };
            let report = restore(&self.vault, &request, &self.clock).await.unwrap();
            assert_eq!(report.files.len(), contents.len());
            for (disk, content) in contents {
                let restored = std::fs::read(target.join(format!("{disk}.raw"))).unwrap();
                assert!(restored == *content, "disk {disk} of point {number} at {at}");
            }
            std::fs::remove_dir_all(target).unwrap();
        }
    }
}

pub fn check(report: &BackupReport, expected: &[(&str, Option<FullReason>, u64)]) {
    let found: Vec<_> = report.point.disks.iter().map(|disk| (disk.disk.as_str(), disk.full, disk.read_bytes)).collect();
    assert_eq!(found, expected);
}

/// The bitmaps of ours that an image has, as `qemu-img` lists them.
pub fn bitmaps(image: &Path) -> usize {
    run("qemu-img", &["info", image.to_str().unwrap()]).matches("name: hindsight-").count()
}
