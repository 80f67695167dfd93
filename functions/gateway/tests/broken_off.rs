//! Backups that break off at named points, as if the gateway were killed there: nothing that was written is missing from the next one.
//!
//! The points are those of the whole process, so these tests have one of their own.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

#[path = "machines/qemu.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod qemu;
#[path = "machines/world.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod world;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use gateway::GatewayError;
use gateway::backup::{backup as back_up, backup_until};
use pipeline::changelog::points::{FullReason, Point, PointDisk, PointId, Points, folder as points_folder};
use pipeline::vault::Created;
use serde_json::json;
use tokio::sync::Notify;

use qemu::{Machine, backup, flushed};
use world::{World, bitmaps, is_here};

const PROGRAMS: [&str; 4] = ["qemu-img", "qemu-io", "qemu-storage-daemon", "qemu-system-x86_64"];
const K: u64 = 64 << 10;

/// A backup that dies at a point. Nothing behind it is done, and what it was connected to hears nothing any more.
async fn dies_at(world: &World, point: &str) {
    let name = format!("gateway::{point}");
    fail::cfg(&name, "panic").unwrap();
    let request = world.request();
    let broken = AssertUnwindSafe(back_up(&world.vault, &request, &world.clock)).catch_unwind().await;
    assert!(broken.is_err(), "{point}");
    fail::cfg(&name, "off").unwrap();
}

/// How many points there are.
async fn points(world: &World) -> usize {
    Points::read(&world.vault, &world.resource).await.unwrap().all().len()
}

/// The instant of the newest point.
async fn newest(world: &World) -> pipeline::model::Timestamp {
    Points::read(&world.vault, &world.resource).await.unwrap().newest().unwrap().record.at
}

#[tokio::test]
async fn a_backup_that_broke_off_costs_nothing_that_was_written() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let _scenario = fail::FailScenario::setup();
    let mut world = World::new();
    world.add_disk("vda", 8 << 20);
    world.io("vda", &["write -P 1 0 1M"]);
    world.backup().await;
    for (round, point) in ["before-snapshot", "snapshot-taken", "before-point", "after-point", "after-settling"].into_iter().enumerate() {
        world.io("vda", &[&format!("write -P {} {}k 100k", 10 + round, round * 300), "discard 512k 64k"]);
        let before = world.contents();
        let at = points(&world).await;
        dies_at(&world, point).await;
        unlocked(&world).await;
        let counts = matches!(point, "after-point" | "after-settling");
        assert_eq!(points(&world).await, at + usize::from(counts), "{point}");
        if counts {
            world.history.push((newest(&world).await, before));
        }
        world.io("vda", &["write -P 77 6M 10k"]);
        let report = world.backup().await;
        assert_eq!(report.point.disks[0].full, None, "after {point} the next one is incremental: {report:?}");
    }
    world.check_history().await;
    assert_eq!(bitmaps(Path::new(&world.images["vda"])), 1);
}

/// The daemon whose pipe broke ends a moment later.
async fn unlocked(world: &World) {
    for _ in 0..400 {
        let free = Command::new("qemu-io").args(["-f", "qcow2", "-c", "read 0 512", &world.images["vda"]]).output().unwrap();
        if free.status.success() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the image is still locked");
}

#[tokio::test]
async fn what_the_guest_writes_while_a_backup_reads_is_in_the_next_one() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let _scenario = fail::FailScenario::setup();
    let mut world = World::new();
    world.add_disk("vda", 8 << 20);
    let _machine = Machine::start(&mut world).await;
    Machine::io(&world, "vda", &["write -P 1 0 1M"]).await;
    backup(&mut world, &[("vda", Some(FullReason::First), 16 * K)]).await;
    for point in ["snapshot-taken", "before-point", "after-point"] {
        Machine::io(&world, "vda", &["write -P 2 2M 64k"]).await;
        // The gateway dies while the filter is in; the guest goes on writing, over what it was to read, too.
        let before = flushed(&world).await;
        dies_at(&world, point).await;
        if point == "after-point" {
            world.history.push((newest(&world).await, before));
        }
        Machine::io(&world, "vda", &["write -P 3 2M 4k", "write -P 4 6M 64k"]).await;
        backup(&mut world, &[("vda", None, 2 * K)]).await;
        let mut qmp = Machine::qmp(&world).await;
        let nodes = qmp.command("query-named-block-nodes", json!({"flat": true})).await.unwrap().to_string();
        assert!(!nodes.contains("\"hindsight-cbw") && !nodes.contains("\"hindsight-held"), "{nodes}");
        assert_eq!(qmp.command("query-status", json!({})).await.unwrap()["status"], "running");
    }
    world.check_history().await;
}

#[tokio::test]
async fn a_backup_that_is_told_to_end_leaves_the_machine_as_it_was() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let _scenario = fail::FailScenario::setup();
    let mut world = World::new();
    world.add_disk("vda", 8 << 20);
    let machine = Machine::start(&mut world).await;
    Machine::io(&world, "vda", &["write -P 1 0 1M"]).await;
    backup(&mut world, &[("vda", Some(FullReason::First), 16 * K)]).await;
    Machine::io(&world, "vda", &["write -P 2 2M 64k"]).await;
    told_to_end(&world).await;
    let mut qmp = Machine::qmp(&world).await;
    let nodes = qmp.command("query-named-block-nodes", json!({"flat": true})).await.unwrap().to_string();
    assert!(!nodes.contains("\"hindsight-cbw") && !nodes.contains("\"hindsight-held"), "{nodes}");
    assert_eq!(qmp.command("query-status", json!({})).await.unwrap()["status"], "running");
    drop(qmp);
    backup(&mut world, &[("vda", None, K)]).await;
    machine.quit(&world).await;
    // Of one that is off nobody has the image open any more.
    world.io("vda", &["write -P 3 3M 64k"]);
    told_to_end(&world).await;
    world.io("vda", &["write -P 4 4M 64k"]);
    world.check_backup(&[("vda", None, 2 * K)]).await;
    world.check_history().await;
    assert_eq!(bitmaps(Path::new(&world.images["vda"])), 1);
}

/// A backup that is told to end while it reads; nothing of it is left in the folder of what guests overwrite.
async fn told_to_end(world: &World) {
    let told = Arc::new(Notify::new());
    let tells = Arc::clone(&told);
    fail::cfg_callback("gateway::snapshot-taken", move || tells.notify_one()).unwrap();
    let ended = backup_until(&world.vault, &world.request(), &world.clock, told.notified()).await;
    assert!(matches!(ended, Err(GatewayError::Interrupted)), "{ended:?}");
    fail::cfg("gateway::snapshot-taken", "off").unwrap();
    let names = std::fs::read_dir(world.folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| name.starts_with("hindsight-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn of_two_backups_with_one_number_one_counts_and_nothing_of_the_other() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let _scenario = fail::FailScenario::setup();
    let mut world = World::new();
    world.add_disk("vda", 1 << 20);
    world.io("vda", &["write -P 1 0 64k"]);
    world.backup().await;
    world.io("vda", &["write -P 2 0 64k"]);
    // Another gateway is quicker by a moment: it found that nothing had changed.
    let first = Points::read(&world.vault, &world.resource).await.unwrap().newest().unwrap().record.clone();
    let (vault, resource, at) = (world.vault.clone(), world.resource.clone(), first.at.plus(Duration::from_millis(1)));
    let disks = first.disks.iter().map(|disk| PointDisk { full: None, ..disk.clone() }).collect();
    let quicker = Point { id: PointId(7), at, disks, segments: Vec::new(), ..first };
    fail::cfg_callback("gateway::before-point", move || {
        let written = vault.write_numbered(&points_folder(&resource), 2, &quicker).now_or_never();
        assert_eq!(written.unwrap().unwrap(), Created::New);
    })
    .unwrap();
    let error = world.try_backup().await.unwrap_err().to_string();
    assert_eq!(error, "another backup of vm://web ended while this one ran, and this one does not count");
    fail::cfg("gateway::before-point", "off").unwrap();
    let (_, held) = world.history[0].clone();
    world.history.push((at, held));
    let report = world.backup().await;
    assert_eq!((report.number, report.point.disks[0].full), (3, Some(FullReason::ChainMismatch)));
    world.check_history().await;
}
