//! A machine at hand: QEMU while it runs, or its images while it is off.
//!
//! Of a machine that is off the images are opened by `qemu-storage-daemon`, which speaks QMP as QEMU does: one way of doing things for both.
//! It holds the images, so that nobody starts the machine meanwhile, and it ends with this process however that ends: a shell between the
//! two waits at a pipe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use handlers::protection::Reached;
use pipeline::changelog::points::{Backing, Consistency, Excluded};
use pipeline::model::{Clock, Timestamp};
use pipeline::source::disk::is_disk_name;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::bitmaps::{Bitmap, OURS, Step};
use crate::error::GatewayError;
use crate::qmp::{Qmp, QmpError};

/// What a path begins with that is the one of a raw image.
const RAW: &str = "raw:";
/// With what a qcow2 image begins.
const QCOW2: &[u8] = b"QFI\xfb";
/// Ends the program behind it when standard input does.
const LEASH: &str = "exec 3<&0; \"$@\" </dev/null 3<&- & child=$!; cat <&3 >/dev/null; kill $child; wait $child";
/// How long the daemon may take to begin, and to end.
const DAEMON_WITHIN: Duration = Duration::from_secs(30);
/// How often it is asked whether it has begun.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// The oldest QEMU that breaks a snapshot rather than a guest.
const QEMU_MIN: (u64, u64) = (7, 1);

/// A machine at hand.
#[derive(Debug)]
pub struct Session {
    /// The monitor.
    pub qmp: Qmp,
    /// A folder for sockets, and for what the guest overwrites; it is gone with this.
    pub folder: TempDir,
    /// Whether QEMU runs it, or the daemon only has its images open.
    pub runs: bool,
    /// Disks that cannot be backed up, and why.
    pub excluded: Vec<Excluded>,
    images: BTreeMap<String, String>,
    daemon: Option<Child>,
}

/// A disk at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveDisk {
    /// What it is called in the vault.
    pub name: String,
    /// The node of QEMU's that has its bitmaps.
    pub node: String,
    /// The path of the device that it is in, while the machine runs.
    pub device: Option<String>,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What its image rests on, the nearest first.
    pub rests_on: Vec<Backing>,
    /// Whether its image keeps bitmaps when nobody has it open.
    pub keeps_bitmaps: bool,
    /// Those of ours.
    pub bitmaps: Vec<Bitmap>,
}

impl Session {
    /// Reaches a machine: while it runs through its monitor, else through its images, if they are known.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn open(reached: &Reached, clock: &dyn Clock) -> Result<Session, GatewayError> {
        for (name, path) in &reached.images {
            check_image(name, path)?;
        }
        let folder = folder(reached.scratch.as_deref())?;
        if let Some(socket) = &reached.qmp {
            match Qmp::connect(Path::new(socket)).await {
                Ok(qmp) => return Session::running(qmp, folder, reached),
                Err(QmpError::NotRunning { .. }) if !reached.images.is_empty() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if reached.images.is_empty() {
            return Err(GatewayError::refused(
                "nobody said how the machine is reached: protect it with --qmp SOCKET, or with --disk NAME=IMAGE",
            ));
        }
        Session::off(folder, reached, clock).await
    }

    fn running(qmp: Qmp, folder: TempDir, reached: &Reached) -> Result<Session, GatewayError> {
        let mut parts = qmp.version().split('.').map(|part| part.parse().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version < QEMU_MIN {
            return Err(GatewayError::refused(format!(
                "the machine runs in QEMU {}, which cannot break off a snapshot without stopping the guest: 7.1 or later is needed, or back it \
                 up while it is off",
                qmp.version()
            )));
        }
        Ok(Session { qmp, folder, runs: true, excluded: Vec::new(), images: reached.images.clone(), daemon: None })
    }

    async fn off(folder: TempDir, reached: &Reached, clock: &dyn Clock) -> Result<Session, GatewayError> {
        let socket = folder.path().join("qmp");
        let program = "qemu-storage-daemon";
        let version = Command::new(program).arg("--version").output().await;
        version.map_err(|source| GatewayError::Program { program, source })?;
        let daemon = Command::new("sh")
            .args(["-c", LEASH, "sh", program, "--chardev"])
            .arg(format!("socket,id=qmp,path={},server=on,wait=off", comma(&socket)))
            .args(["--monitor", "chardev=qmp"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| GatewayError::Program { program, source })?;
        let began = clock.now();
        let qmp = loop {
            match Qmp::connect(&socket).await {
                Ok(qmp) => break qmp,
                Err(QmpError::NotRunning { .. }) if clock.now().since(began) < DAEMON_WITHIN => clock.sleep(ASK_EVERY).await,
                Err(_) => return Err(GatewayError::Ended { program, reason: "did not begin".to_owned() }),
            }
        };
        let mut session = Session { qmp, folder, runs: false, excluded: Vec::new(), images: reached.images.clone(), daemon: Some(daemon) };
        let images: Vec<(String, String)> = session.images.clone().into_iter().collect();
        for (index, (name, path)) in images.iter().enumerate() {
            if let Err(error) = session.qmp.command("blockdev-add", image(index, path)).await {
                session.close().await?;
                return Err(in_use(name, error));
            }
        }
        Ok(session)
    }

    /// What the machine can expect of a snapshot that is taken now.
    pub fn consistency(&self) -> Consistency {
        if self.runs { Consistency::Crash } else { Consistency::Off }
    }

    /// Its disks as they are now. Those that cannot be backed up are in [`Session::excluded`] afterwards.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn disks(&mut self) -> Result<Vec<LiveDisk>, GatewayError> {
        let nodes = self.nodes().await?;
        if !self.runs {
            let named = self.images.keys().enumerate();
            return named.map(|(index, name)| live(name.clone(), node(&nodes, &format!("{OURS}disk-{index}"))?, None)).collect();
        }
        let mut disks = Vec::new();
        self.excluded.clear();
        let blocks = self.qmp.command("query-block", json!({})).await?;
        for block in blocks.as_array().into_iter().flatten() {
            let Some(name) = block.pointer("/inserted/node-name").and_then(Value::as_str) else { continue };
            let found = node(&nodes, name)?;
            let device = block["qdev"].as_str().filter(|device| device.starts_with('/')).map(str::to_owned);
            match self.chosen(block, found, device.as_deref()) {
                Ok(Some(name)) => disks.push(live(name, found, device)?),
                Ok(None) => {}
                Err(excluded) => self.excluded.push(excluded),
            }
        }
        if let Some(missing) = self.images.keys().find(|name| !disks.iter().any(|disk| disk.name == **name)) {
            return Err(GatewayError::refused(format!(
                "the machine has no disk with the image {} ({missing}); it has {}",
                self.images[missing],
                list(disks.iter().map(|disk| disk.name.as_str()))
            )));
        }
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = disks.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(GatewayError::refused(format!(
                "two disks of the machine are called {}: give them ids, or name them with --disk",
                pair[0].name
            )));
        }
        Ok(disks)
    }

    /// What a disk of a running machine is called in the vault; none where it is not wanted.
    fn chosen(&self, block: &Value, node: &Value, device: Option<&str>) -> Result<Option<String>, Excluded> {
        let called = block["device"].as_str().filter(|name| !name.is_empty());
        let id = device.and_then(|path| path.strip_prefix("/machine/peripheral/")).and_then(|path| path.split('/').next());
        let name = id.or(called).or_else(|| node["node-name"].as_str()).unwrap_or_default();
        let excluded = |reason: &str| Excluded { disk: name.to_owned(), reason: reason.to_owned() };
        if !self.images.is_empty() {
            let file = node.pointer("/image/filename").and_then(Value::as_str).unwrap_or_default();
            let is_it = |path: &str| same_file(Path::new(path.strip_prefix(RAW).unwrap_or(path)), Path::new(file));
            return match self.images.iter().find(|(_, path)| is_it(path)) {
                Some((name, _)) => Ok(Some(name.clone())),
                None => Err(excluded("no --disk names it")),
            };
        }
        match () {
            () if node["ro"] == true => Err(excluded("it is read-only")),
            () if device.is_none() => Err(excluded("it is in no device")),
            () if device.is_some_and(|device| device.contains("flash")) => Err(excluded("it holds firmware")),
            () if !is_disk_name(name) => Err(excluded("its name cannot be that of a file: give its device an id")),
            () => Ok(Some(name.to_owned())),
        }
    }

    /// Carries out what is to be done to the bitmaps of a disk.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn care_for(&mut self, node: &str, steps: &[Step]) -> Result<(), QmpError> {
        for step in steps {
            let (command, arguments) = match step {
                Step::Merge { from, into } => {
                    ("block-dirty-bitmap-merge", json!({"node": node, "target": into.name(), "bitmaps": [from.name()]}))
                }
                Step::Enable(id) => ("block-dirty-bitmap-enable", json!({"node": node, "name": id.name()})),
                Step::Remove(id) => ("block-dirty-bitmap-remove", json!({"node": node, "name": id.name()})),
            };
            self.qmp.command(command, arguments).await?;
        }
        Ok(())
    }

    /// All nodes that QEMU has.
    pub(crate) async fn nodes(&mut self) -> Result<Vec<Value>, GatewayError> {
        match self.qmp.command("query-named-block-nodes", json!({})).await? {
            Value::Array(nodes) => Ok(nodes),
            _ => Err(GatewayError::answer("its nodes")),
        }
    }

    /// Lets go of the machine. What was done to the bitmaps of images is in them when this ends.
    ///
    /// # Errors
    /// [`GatewayError::Ended`] where the daemon did not end well.
    pub async fn close(&mut self) -> Result<(), GatewayError> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        // A signal alone may be missed: one that comes just before the daemon waits for events wakes nobody.
        if let Err(error) = self.qmp.command("quit", json!({})).await {
            tracing::debug!(%error, "the daemon was told to end, and did not answer");
        }
        drop(daemon.stdin.take());
        let program = "qemu-storage-daemon";
        let ended = tokio::time::timeout(DAEMON_WITHIN, daemon.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(GatewayError::Ended { program, reason: format!("ended with {status}") }),
            Ok(Err(source)) => Err(GatewayError::Program { program, source }),
            Err(_) => Err(GatewayError::Ended { program, reason: format!("did not end within {} s", DAEMON_WITHIN.as_secs()) }),
        }
    }
}

/// Why an image cannot be had, in words for people where somebody else has it.
pub(crate) fn in_use(disk: &str, error: QmpError) -> GatewayError {
    match error {
        QmpError::Refused { reason, .. } if reason.contains("lock") => GatewayError::refused(format!(
            "disk {disk} is in use ({reason}): if its machine runs, say where its monitor is with --qmp, or stop it first; another backup of it \
             may be under way"
        )),
        error => error.into(),
    }
}

/// How the daemon opens an image.
fn image(index: usize, path: &str) -> Value {
    let node = format!("{OURS}disk-{index}");
    match path.strip_prefix(RAW) {
        // Nothing is written to it. But only who might write is kept apart by QEMU's locks from a machine that does.
        Some(path) => json!({"driver": "raw", "node-name": node, "file": {"driver": "file", "filename": path}}),
        None => json!({"driver": "qcow2", "node-name": node, "file": {"driver": "file", "filename": path}}),
    }
}

/// That an image is what it is said to be. Nobody guesses: what a guest writes into a raw image may look like another form.
fn check_image(name: &str, path: &str) -> Result<(), GatewayError> {
    if !is_disk_name(name) {
        let reason = format!("{name:?} cannot be the name of a disk: one to 63 of a-z, A-Z, 0-9, dot, - and _, not beginning with a dot");
        return Err(GatewayError::refused(reason));
    }
    let (path, is_raw) = path.strip_prefix(RAW).map_or((path, false), |path| (path, true));
    let mut begin = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut begin));
    let read = read.map_err(|source| GatewayError::File { what: "open the image", path: path.into(), source })?;
    if !is_raw && &begin[..read] != QCOW2 {
        return Err(GatewayError::refused(format!("{path} is no qcow2 image; if it is a raw one, say so: {name}=raw:{path}")));
    }
    Ok(())
}

fn node<'a>(nodes: &'a [Value], name: &str) -> Result<&'a Value, GatewayError> {
    nodes.iter().find(|node| node["node-name"] == name).ok_or_else(|| GatewayError::answer(format!("node {name}")))
}

fn live(name: String, node: &Value, device: Option<String>) -> Result<LiveDisk, GatewayError> {
    let of = |what: &str| GatewayError::answer(format!("the {what} of disk {name}"));
    let size_bytes = node.pointer("/image/virtual-size").and_then(Value::as_u64).ok_or_else(|| of("size"))?;
    let compatible = node.pointer("/image/format-specific/data/compat").and_then(Value::as_str);
    let mut bitmaps = Vec::new();
    for bitmap in node["dirty-bitmaps"].as_array().into_iter().flatten() {
        let flag = |name: &str| bitmap[name].as_bool().unwrap_or(false);
        let granularity = bitmap["granularity"].as_u64().ok_or_else(|| of("bitmaps"))?;
        let name = bitmap["name"].as_str().unwrap_or_default();
        bitmaps.extend(Bitmap::of(name, flag("recording"), !flag("inconsistent"), granularity));
    }
    Ok(LiveDisk {
        node: node["node-name"].as_str().ok_or_else(|| of("node"))?.to_owned(),
        device,
        size_bytes,
        rests_on: backing(&node["image"]),
        keeps_bitmaps: node["drv"] == "qcow2" && compatible == Some("1.1"),
        bitmaps,
        name,
    })
}

/// What an image rests on, and what that does, and so on.
fn backing(image: &Value) -> Vec<Backing> {
    let images = std::iter::successors(image.get("backing-image"), |image| image.get("backing-image"));
    let backing = |image: &Value| {
        let text = |name: &str| image[name].as_str().unwrap_or_default().to_owned();
        let file = text("filename");
        let changed = std::fs::metadata(&file).and_then(|about| about.modified()).ok();
        let since = changed.and_then(|changed| changed.duration_since(UNIX_EPOCH).ok());
        let changed = since.map(|since| Timestamp::from_micros(since.as_micros().try_into().unwrap_or(i64::MAX)));
        Backing { file, format: text("format"), size_bytes: image["virtual-size"].as_u64().unwrap_or_default(), changed }
    };
    images.map(backing).collect()
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// The names, for people.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A path as it may stand among options that commas separate.
pub(crate) fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn folder(scratch: Option<&str>) -> Result<TempDir, GatewayError> {
    let within = scratch.map_or_else(std::env::temp_dir, PathBuf::from);
    let made = tempfile::Builder::new().prefix(OURS).tempdir_in(&within);
    made.map_err(|source| GatewayError::File { what: "make a folder in", path: within, source })
}
