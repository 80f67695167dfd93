//! All disks of a machine at one instant.
//!
//! ```text
//!  stop ─→ bitmaps: since the point before comes to rest, since the new one begins ─→ a filter before each disk ─→ cont
//!     while we read, the filter first saves what the guest overwrites; where it cannot, the snapshot breaks and not the guest
//! ```
//!
//! The bitmaps change before the filter is in, or the machine stands still: else what is written between the two would be in neither the
//! snapshot's list nor the next one's. QEMU gets all of these commands at once, the one that lets the guest go on among them: it does so
//! whatever becomes of us. Of a machine that is off nobody writes, and the image itself is the snapshot.
//!
//! Whatever is made in QEMU has a name that begins with ours, and [`clear`] takes away what is there by these names: before a snapshot is
//! taken, after it, and after one that went wrong. What then becomes of the bitmaps follows from the vault, see [`crate::bitmaps`].

use std::path::Path;

use pipeline::changelog::points::PointId;
use pipeline::model::{Clock, Timestamp};
use pipeline::source::disk::BLOCK_BYTES;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::bitmaps::{BitmapId, OURS, Wanted};
use crate::error::GatewayError;
use crate::nbd::Address;
use crate::qmp::QmpError;
use crate::session::{LiveDisk, Session, in_use};

/// The guest may wait so long for what it overwrites to be saved, in seconds; then the snapshot breaks.
const SAVE_WITHIN_SECONDS: u64 = 45;
/// What is added to the name of a node that holds what the guest overwrites: whether the machine was stopped for the snapshot. One that
/// is found stopped, by whoever comes after a gateway that died, then goes on.
const HELD: &str = "hindsight-held-";
const FLEECE: &str = "hindsight-fleece-";
const FILTER: &str = "hindsight-cbw-";
const ACCESS: &str = "hindsight-acc-";
const EXPORT: &str = "hindsight-ex-";

/// A snapshot that can be read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The instant: nothing that happened later is in it, by our clock.
    pub at: Timestamp,
    /// How long the guest stood still, in microseconds.
    pub paused_us: u64,
    /// Where its disks are served.
    pub address: Address,
    /// For each disk the export, and the context in which it says what changed.
    pub exports: Vec<Export>,
}

/// How a disk of a snapshot is read.
#[derive(Debug, Clone)]
pub struct Export {
    /// The name of the export.
    pub name: String,
    /// Where it says what changed; of one that is read whole, where it is allocated.
    pub context: String,
}

/// Takes a snapshot. What it leaves if it fails, [`clear`] takes away.
///
/// # Errors
/// [`GatewayError`].
pub async fn take(
    session: &mut Session,
    disks: &[(LiveDisk, Wanted)],
    point: PointId,
    clock: &dyn Clock,
) -> Result<Snapshot, GatewayError> {
    let mut paused_us = 0;
    if session.runs {
        let status = session.qmp.command("query-status", json!({})).await?;
        let goes = status["status"] == "running";
        for (index, (disk, _)) in disks.iter().enumerate() {
            fleece(session, index, disk, goes).await?;
        }
        let mut commands = Vec::new();
        if goes {
            commands.push(("stop", json!({})));
        }
        commands.extend(bitmaps(disks, point));
        for (index, (disk, wanted)) in disks.iter().enumerate() {
            commands.extend(filter(index, disk, wanted, goes));
        }
        if goes {
            commands.push(("cont", json!({})));
        }
        let began = clock.now();
        session.qmp.commands(&commands).await?;
        paused_us = if goes { clock.now().since(began).as_micros() as u64 } else { 0 };
    } else {
        session.qmp.commands(&bitmaps(disks, point).into_iter().collect::<Vec<_>>()).await?;
    }
    let at = clock.now();
    let socket = session.folder.path().join("nbd");
    start_server(session, &socket).await?;
    let mut exports = Vec::new();
    for (index, (disk, wanted)) in disks.iter().enumerate() {
        exports.push(export(session, index, disk, wanted).await?);
    }
    Ok(Snapshot { at, paused_us, address: Address::Unix(socket), exports })
}

/// Lets the bitmaps since the point before come to rest, and others begin.
fn bitmaps(disks: &[(LiveDisk, Wanted)], point: PointId) -> Option<(&'static str, Value)> {
    let mut actions = Vec::new();
    for (disk, wanted) in disks {
        // Of an image that keeps none, one lasts as long as QEMU runs; the daemon ends with the backup.
        if disk.keeps_bitmaps || disk.device.is_some() {
            let name = BitmapId::of(point, &disk.name).name();
            let new = json!({"node": disk.node, "name": name, "persistent": disk.keeps_bitmaps, "granularity": BLOCK_BYTES});
            actions.push(json!({"type": "block-dirty-bitmap-add", "data": new}));
        }
        if let Wanted::Since(since, _) = wanted {
            actions.push(json!({"type": "block-dirty-bitmap-disable", "data": {"node": disk.node, "name": since.name()}}));
        }
    }
    (!actions.is_empty()).then(|| ("transaction", json!({ "actions": actions })))
}

/// The bitmap that limits what a snapshot can give, where nothing else is read of it. What a disk grew by is in no bitmap.
fn limit(disk: &LiveDisk, wanted: &Wanted) -> Option<Value> {
    match wanted {
        Wanted::Since(since, size_bytes) if *size_bytes == disk.size_bytes => Some(json!({"node": disk.node, "name": since.name()})),
        Wanted::Since(..) | Wanted::All(_) => None,
    }
}

/// Makes room for what the guest overwrites.
async fn fleece(session: &mut Session, index: usize, disk: &LiveDisk, goes: bool) -> Result<(), GatewayError> {
    let path = session.folder.path().join(format!("{FLEECE}{index}"));
    let program = "qemu-img";
    let size = disk.size_bytes.to_string();
    let made = Command::new(program).args(["create", "-q", "-f", "qcow2"]).arg(&path).arg(&size).output().await;
    let made = made.map_err(|source| GatewayError::Program { program, source })?;
    if !made.status.success() {
        return Err(GatewayError::Ended { program, reason: String::from_utf8_lossy(&made.stderr).trim().to_owned() });
    }
    let node = target(index, goes);
    let file = json!({"driver": "file", "filename": path.display().to_string()});
    session.qmp.command("blockdev-add", json!({"driver": "qcow2", "node-name": node, "file": file})).await?;
    Ok(())
}

/// Puts a filter between a disk and its device.
fn filter(index: usize, disk: &LiveDisk, wanted: &Wanted, goes: bool) -> Vec<(&'static str, Value)> {
    let Some(device) = &disk.device else { return Vec::new() };
    let (name, target) = (format!("{FILTER}{index}"), target(index, goes));
    let mut filter = json!({
        "driver": "copy-before-write", "node-name": name, "file": disk.node, "target": target,
        "on-cbw-error": "break-snapshot", "cbw-timeout": SAVE_WITHIN_SECONDS
    });
    if let Some(limit) = limit(disk, wanted) {
        filter["bitmap"] = limit;
    }
    vec![("blockdev-add", filter), ("qom-set", json!({"path": device, "property": "drive", "value": name}))]
}

async fn start_server(session: &mut Session, socket: &Path) -> Result<(), GatewayError> {
    let start = json!({"addr": {"type": "unix", "data": {"path": socket.display().to_string()}}});
    match session.qmp.command("nbd-server-start", start.clone()).await {
        Ok(_) => Ok(()),
        Err(QmpError::Refused { .. }) if exports(session).await?.is_empty() => {
            // One without exports was left behind.
            session.qmp.command("nbd-server-stop", json!({})).await?;
            session.qmp.command("nbd-server-start", start).await?;
            Ok(())
        }
        Err(QmpError::Refused { reason, .. }) => {
            Err(GatewayError::refused(format!("the machine's QEMU serves something else by NBD already: {reason}")))
        }
        Err(error) => Err(error.into()),
    }
}

async fn export(session: &mut Session, index: usize, disk: &LiveDisk, wanted: &Wanted) -> Result<Export, GatewayError> {
    let mut node = disk.node.clone();
    if disk.device.is_some() {
        node = format!("{ACCESS}{index}");
        let access = json!({"driver": "snapshot-access", "node-name": node, "file": format!("{FILTER}{index}")});
        session.qmp.command("blockdev-add", access).await?;
    }
    let name = format!("{OURS}{index}");
    // Of a raw image that is off this takes the lock of who writes; one of qcow2 is locked since it was opened.
    let writable = disk.device.is_none() && !disk.keeps_bitmaps;
    let mut export = json!({"type": "nbd", "id": format!("{EXPORT}{index}"), "node-name": node, "name": name, "writable": writable});
    let mut context = "base:allocation".to_owned();
    if let Wanted::Since(since, _) = wanted {
        export["bitmaps"] = json!([{"node": disk.node, "name": since.name()}]);
        context = format!("qemu:dirty-bitmap:{}", since.name());
    }
    session.qmp.command("block-export-add", export).await.map_err(|error| in_use(&disk.name, error))?;
    Ok(Export { name, context })
}

/// The ids of what QEMU serves.
async fn exports(session: &mut Session) -> Result<Vec<String>, GatewayError> {
    let exports = session.qmp.command("query-block-exports", json!({})).await?;
    Ok(exports.as_array().into_iter().flatten().filter_map(|export| export["id"].as_str()).map(str::to_owned).collect())
}

/// Takes away whatever a snapshot has made in QEMU, but for the bitmaps: exports, filters, what they hold; and lets a guest go on that was
/// stopped for one.
///
/// # Errors
/// [`GatewayError`]; what could not be taken away is left, and doing it again is safe.
pub async fn clear(session: &mut Session) -> Result<(), GatewayError> {
    let there = exports(session).await?;
    let ours: Vec<&String> = there.iter().filter(|id| id.starts_with(EXPORT)).collect();
    for id in &ours {
        session.qmp.command("block-export-del", json!({"id": id, "mode": "hard"})).await?;
        session.qmp.event("BLOCK_EXPORT_DELETED", id).await?;
    }
    if !ours.is_empty() && ours.len() == there.len() {
        session.qmp.command("nbd-server-stop", json!({})).await?;
    }
    if !session.runs {
        return Ok(());
    }
    let nodes = session.nodes().await?;
    let named = |prefix: &str| {
        let names = nodes.iter().filter_map(|node| node["node-name"].as_str());
        names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect::<Vec<String>>()
    };
    // Once it can be read the guest goes on. One that was stopped by somebody else since then stays so.
    if !named(HELD).is_empty() && named(ACCESS).is_empty() {
        let status = session.qmp.command("query-status", json!({})).await?;
        if status["status"] == "paused" {
            session.qmp.command("cont", json!({})).await?;
        }
    }
    for node in named(ACCESS) {
        session.qmp.command("blockdev-del", json!({"node-name": node})).await?;
    }
    let filtered = session.qmp.command("query-blockstats", json!({})).await?;
    for stats in filtered.as_array().into_iter().flatten() {
        if !stats["node-name"].as_str().is_some_and(|name| name.starts_with(FILTER)) {
            continue;
        }
        let (Some(device), Some(node)) = (stats["qdev"].as_str(), stats.pointer("/parent/node-name").and_then(Value::as_str)) else {
            return Err(GatewayError::answer("the device before a filter"));
        };
        session.qmp.command("qom-set", json!({"path": device, "property": "drive", "value": node})).await?;
    }
    for prefix in [FILTER, HELD, FLEECE] {
        for node in named(prefix) {
            session.qmp.command("blockdev-del", json!({"node-name": node})).await?;
        }
    }
    let held =
        nodes.iter().filter(|node| node["node-name"].as_str().is_some_and(|name| name.starts_with(HELD) || name.starts_with(FLEECE)));
    for file in held.filter_map(|node| node["file"].as_str()).filter(|file| file.contains(FLEECE)) {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file, %error, "what a guest had overwritten could not be removed");
            }
            _ => {}
        }
        // The folder of a gateway that died; that of this one goes with it.
        if let Some(folder) = Path::new(file).parent().filter(|folder| *folder != session.folder.path()) {
            // There may be something else in it.
            let _ = std::fs::remove_file(folder.join("nbd"));
            let _ = std::fs::remove_dir(folder);
        }
    }
    Ok(())
}

/// The node that holds what the guest overwrites of a disk.
fn target(index: usize, goes: bool) -> String {
    format!("{}{index}", if goes { HELD } else { FLEECE })
}
