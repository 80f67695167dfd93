//! A machine that runs.

use pipeline::changelog::points::{Consistency, FullReason};
use serde_json::json;

use super::qemu::{Machine, backup};
use super::world::{World, is_here};

const PROGRAMS: [&str; 4] = ["qemu-img", "qemu-io", "qemu-storage-daemon", "qemu-system-x86_64"];
const K: u64 = 64 << 10;

#[tokio::test]
async fn a_running_machine_is_backed_up_forever_and_so_it_is_when_it_is_off() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 8 << 20);
    world.add_disk("vdb", 4 << 20);
    let machine = Machine::start(&mut world).await;
    Machine::io(&world, "vda", &["write -P 1 0 1M"]).await;
    backup(&mut world, &[("vda", Some(FullReason::First), 16 * K), ("vdb", Some(FullReason::First), 0)]).await;
    Machine::io(&world, "vda", &["write -P 2 2M 100k", "discard 0 64k"]).await;
    Machine::io(&world, "vdb", &["write -P 3 1M 64k"]).await;
    backup(&mut world, &[("vda", None, 3 * K), ("vdb", None, K)]).await;
    backup(&mut world, &[("vda", None, 0), ("vdb", None, 0)]).await;
    // Grown while it runs: what it grew by is in no bitmap.
    Machine::qmp(&world).await.command("block_resize", json!({"node-name": "n-vdb", "size": 6 << 20})).await.unwrap();
    Machine::io(&world, "vdb", &["write -P 4 5M 64k"]).await;
    backup(&mut world, &[("vda", None, 0), ("vdb", None, 2 << 20)]).await;
    Machine::io(&world, "vda", &["write -P 5 3M 64k"]).await;
    machine.quit(&world).await;
    // Off, through its images, and the chain goes on.
    world.io("vda", &["write -P 6 4M 64k"]);
    world.check_backup(&[("vda", None, 2 * K), ("vdb", None, 0)]).await;
    let machine = Machine::start(&mut world).await;
    Machine::io(&world, "vda", &["write -P 7 5M 64k"]).await;
    backup(&mut world, &[("vda", None, K), ("vdb", None, 0)]).await;
    // Killed: the bitmap that was made while it ran is in no image.
    Machine::io(&world, "vda", &["write -P 8 6M 64k", "flush"]).await;
    drop(machine);
    let report = world.backup().await;
    assert_eq!(report.point.disks[0].full, Some(FullReason::ChainMismatch), "{report:?}");
    assert_eq!(report.point.consistency, Consistency::Off);
    world.io("vda", &["write -P 9 7M 64k"]);
    world.check_backup(&[("vda", None, K), ("vdb", None, 0)]).await;
    // Killed before a backup was made of it: the bitmap is there, and lacks what was written.
    let machine = Machine::start(&mut world).await;
    Machine::io(&world, "vda", &["write -P 10 6M 64k", "flush"]).await;
    drop(machine);
    let report = world.backup().await;
    assert_eq!(report.point.disks[0].full, Some(FullReason::InconsistentBitmap), "{report:?}");
    assert!(report.point.disks[0].stored_bytes < K, "only one block is new: {report:?}");
    world.check_history().await;
}

#[tokio::test]
async fn a_raw_image_on_which_a_machine_runs_is_not_taken_for_one_that_is_off() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    let raw = world.path("vda.raw").display().to_string();
    std::fs::write(&raw, vec![7; 1 << 20]).unwrap();
    world.images.insert("vda".to_owned(), format!("raw:{raw}"));
    let machine = Machine::start(&mut world).await;
    // Nobody said where the monitor is, or somebody said it wrong.
    for qmp in [None, Some(world.path("nobody").display().to_string())] {
        let monitor = std::mem::replace(&mut world.qmp, qmp);
        let error = world.try_backup().await.unwrap_err().to_string();
        assert!(error.starts_with("disk vda is in use ("), "{error}");
        world.qmp = monitor;
    }
    machine.quit(&world).await;
    world.backup().await;
    world.check_history().await;
}
