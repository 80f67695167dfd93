//! Machines that are off.

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use pipeline::base::plan::Policy;
use pipeline::changelog::points::{self, FullReason};
use pipeline::changelog::segments;
use pipeline::model::Timestamp;
use pipeline::replay::disks::DisksPoint;
use pipeline::vault::layout;
use pipeline::verify::{Quiet, verify};

use gateway::backup::{BackupRequest, backup};
use gateway::restore::{MachineRestore, restore};

use super::world::{World, bitmaps, is_here, run};

const PROGRAMS: [&str; 3] = ["qemu-img", "qemu-io", "qemu-storage-daemon"];
const K: u64 = 64 << 10;

#[tokio::test]
async fn every_point_is_what_the_disks_held_then() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    // Not a whole number of blocks.
    world.add_disk("vda", (20 << 20) + 512 * 3);
    world.io("vda", &["write -P 1 0 1M", "write -P 2 10M 200k", "write -P 3 20M 1536"]);
    world.check_backup(&[("vda", Some(FullReason::First), 20 * K + 1536)]).await;
    // A change, zeros over something, a trim, and the end of the disk.
    world.io("vda", &["write -P 9 5M 70000", "write -z 0 64k", "discard 10M 128k", "write -P 7 20M 512"]);
    world.check_backup(&[("vda", None, 5 * K + 1536)]).await;
    world.check_backup(&[("vda", None, 0)]).await;
    for round in 0..4u64 {
        let commands: Vec<String> = (0..10u64)
            .map(|write| {
                let at = (round * 7_919 + write * 104_729 * 512) % (19 << 20) / 512 * 512;
                format!("write -P {} {at} {}", (round * 10 + write) % 251, 512 * (1 + write * 37))
            })
            .collect();
        world.io("vda", &commands.iter().map(String::as_str).collect::<Vec<_>>());
        world.backup().await;
    }
    world.check_history().await;
    assert_eq!(bitmaps(std::path::Path::new(&world.images["vda"])), 1);
}

#[tokio::test]
async fn disks_grow_shrink_and_are_added() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", (4 << 20) + 512);
    world.io("vda", &["write -P 1 0 128k", "write -P 1 4M 512"]);
    world.backup().await;
    // What it grew by is called clean, and the block in which it ended is a longer one now.
    run("qemu-img", &["resize", "-q", &world.images["vda"].clone(), "8M"]);
    world.check_backup(&[("vda", None, 4 << 20)]).await;
    world.io("vda", &["write -P 2 7M 64k"]);
    world.add_disk("vdb", 1 << 20);
    world.io("vdb", &["write -P 5 0 64k"]);
    world.check_backup(&[("vda", None, K), ("vdb", Some(FullReason::NewDisk), K)]).await;
    world.images.remove("vdb");
    world.check_backup(&[("vda", None, 0)]).await;
    world.images.insert("vdb".to_owned(), world.path("vdb.qcow2").display().to_string());
    world.check_backup(&[("vda", None, 0), ("vdb", Some(FullReason::NewDisk), K)]).await;
    world.check_history().await;
}

#[tokio::test]
async fn another_image_is_read_whole_and_only_what_is_new_is_stored() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 8 << 20);
    world.io("vda", &["write -P 1 0 1M", "write -P 2 2M 1M"]);
    world.backup().await;
    let image = world.images["vda"].clone();
    std::fs::copy(&image, world.path("older.qcow2")).unwrap();
    world.io("vda", &["write -P 3 4M 1M"]);
    world.backup().await;
    // The older one is put back: it records since a point that is not the newest.
    std::fs::copy(world.path("older.qcow2"), &image).unwrap();
    world.io("vda", &["write -P 4 0 64k"]);
    let report = world.backup().await;
    let disk = &report.point.disks[0];
    assert_eq!((disk.full, disk.blocks), (Some(FullReason::ChainMismatch), 32));
    assert!(disk.stored_bytes < K, "only one block is new: {disk:?}");
    // An image of a form that keeps no bitmaps is read whole each time.
    let raw = world.path("vda.raw").display().to_string();
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &image, &raw]);
    world.images.insert("vda".to_owned(), format!("raw:{raw}"));
    for _ in 0..2 {
        let report = world.backup().await;
        assert_eq!((report.point.disks[0].full, report.point.disks[0].stored_bytes), (Some(FullReason::NoBitmaps), 0));
    }
    world.check_history().await;
}

#[tokio::test]
async fn an_image_that_rests_on_something_else_is_read_whole() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    for (base, pattern) in [("one", 1), ("two", 2)] {
        world.add_disk(base, 4 << 20);
        world.io(base, &[&format!("write -P {pattern} 0 256k")]);
        world.images.remove(base);
    }
    let (one, two) = (world.path("one.qcow2").display().to_string(), world.path("two.qcow2").display().to_string());
    let overlay = world.path("vda.qcow2").display().to_string();
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &one, &overlay]);
    world.images.insert("vda".to_owned(), overlay.clone());
    world.io("vda", &["write -P 3 1M 64k"]);
    world.check_backup(&[("vda", Some(FullReason::First), 5 * K)]).await;
    world.check_backup(&[("vda", None, 0)]).await;
    // The image says itself what it rests on, and its bitmaps know nothing of that.
    run("qemu-img", &["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &two, &overlay]);
    world.check_backup(&[("vda", Some(FullReason::BackingChange), 5 * K)]).await;
    // The base is written to, which must not be done, and is done.
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 4 2M 64k", &two]);
    world.check_backup(&[("vda", Some(FullReason::BackingChange), 6 * K)]).await;
    world.check_backup(&[("vda", None, 0)]).await;
    world.check_history().await;
}

#[tokio::test]
async fn images_that_have_exchanged_their_places_are_read_whole() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    for (disk, pattern) in [("vda", 1), ("vdb", 2)] {
        world.add_disk(disk, 4 << 20);
        world.io(disk, &[&format!("write -P {pattern} 0 256k")]);
    }
    world.backup().await;
    // Both record since the same point, and each what changed of the other disk.
    let (first, second) = (world.images["vda"].clone(), world.images["vdb"].clone());
    std::fs::rename(&first, world.path("aside")).unwrap();
    std::fs::rename(&second, &first).unwrap();
    std::fs::rename(world.path("aside"), &second).unwrap();
    world.io("vda", &["write -P 3 1M 64k"]);
    world.check_backup(&[("vda", Some(FullReason::ChainMismatch), 5 * K), ("vdb", Some(FullReason::ChainMismatch), 4 * K)]).await;
    world.check_backup(&[("vda", None, 0), ("vdb", None, 0)]).await;
    world.check_history().await;
}

#[tokio::test]
async fn what_a_point_does_not_rest_on_may_be_damaged() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 4 << 20);
    world.io("vda", &["write -P 1 0 256k"]);
    world.backup().await;
    let segments = segments(&world.vault, &world.resource).await.unwrap();
    world.store.put(&segments[0].path.as_str().into(), "damaged".into()).await.unwrap();
    let request = BackupRequest { full: true, ..world.request() };
    let contents = world.contents();
    let report = backup(&world.vault, &request, &world.clock).await.unwrap();
    world.history = vec![(report.point.at, contents)];
    world.check_history().await;
}

#[tokio::test]
async fn a_full_backup_does_not_rest_on_packs_that_were_lost() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 4 << 20);
    world.io("vda", &["write -P 1 0 256k", "write -P 2 1M 256k"]);
    world.backup().await;
    let packs: Vec<_> = world.store.list(Some(&"pack".into())).map_ok(|pack| pack.location).try_collect().await.unwrap();
    assert!(!packs.is_empty());
    for pack in packs {
        world.store.delete(&pack).await.unwrap();
    }
    let request = BackupRequest { full: true, ..world.request() };
    let (contents, report) = (world.contents(), backup(&world.vault, &request, &world.clock).await.unwrap());
    assert!(report.point.disks[0].stored_bytes > 0);
    world.history = vec![(report.point.at, contents)];
    world.check_history().await;
}

#[tokio::test]
async fn a_disk_that_is_there_no_more_is_named_once() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 1 << 20);
    world.add_disk("vdb", 1 << 20);
    world.backup().await;
    world.images.remove("vdb");
    let excluded = world.backup().await.point.excluded;
    assert_eq!((excluded.len(), excluded[0].disk.as_str()), (1, "vdb"), "{excluded:?}");
    assert_eq!(excluded[0].reason, "it was in the point before, and the machine has it no more");
    assert!(world.backup().await.point.excluded.is_empty());
}

#[tokio::test]
async fn what_was_lost_from_the_vault_is_read_again() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 4 << 20);
    world.io("vda", &["write -P 1 0 256k"]);
    world.backup().await;
    world.io("vda", &["write -P 2 1M 64k"]);
    world.backup().await;
    let segments = segments(&world.vault, &world.resource).await.unwrap();
    world.store.delete(&segments[0].path.as_str().into()).await.unwrap();
    world.history.clear();
    world.check_backup(&[("vda", Some(FullReason::BrokenChain), 5 * K)]).await;
    world.check_backup(&[("vda", None, 0)]).await;
    world.check_history().await;
}

#[tokio::test]
async fn a_point_whose_record_is_damaged_costs_itself_and_what_rests_on_it() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 4 << 20);
    for round in 1..=3 {
        world.io("vda", &[&format!("write -P {round} {round}M 64k")]);
        world.backup().await;
    }
    let record = |number| layout::numbered(&points::folder(&world.resource), number);
    let damaged = record(2);
    world.store.put(&damaged.as_str().into(), "damaged".into()).await.unwrap();
    let verified = verify(&world.vault, &world.resource, &world.clock, &Quiet).await.unwrap();
    let found: Vec<_> = verified
        .damages
        .iter()
        .filter(|damage| damage.path != "vault")
        .map(|damage| (&damage.path, damage.costs.point, damage.costs.everything))
        .collect();
    assert_eq!(found, [(&damaged, true, false)], "{verified}");
    let restored = async |at, name: &str| {
        let target = world.path(name);
        let asked = MachineRestore { resource: world.resource.clone(), point: DisksPoint::Time(at), target, dry_run: true };
        restore(&world.vault, &asked, &world.clock).await
    };
    let before = restored(world.history[0].0, "one").await.unwrap();
    assert_eq!((before.number, &before.damaged[..]), (1, &[2][..]));
    let told = before.to_string();
    assert!(told.contains("NOT TAKEN: the records of points 2 are damaged"), "{told}");
    let behind = restored(world.history[2].0, "three").await.unwrap_err().to_string();
    assert!(behind.contains(&damaged), "{behind}");
    // The next one reads all, and rests on nothing of that; it does not take the number of one that is damaged either.
    world.history.truncate(1);
    world.check_backup(&[("vda", Some(FullReason::BrokenChain), 3 * K)]).await;
    let newest = layout::numbered(&points::folder(&world.resource), 4);
    world.store.put(&newest.as_str().into(), "damaged".into()).await.unwrap();
    world.history.truncate(1);
    let report = world.backup().await;
    assert_eq!((report.number, report.point.disks[0].full), (5, Some(FullReason::ChainMismatch)));
    world.check_history().await;
}

#[tokio::test]
async fn two_restores_into_one_folder_do_not_mix() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 1 << 20);
    world.io("vda", &["write -P 1 0 64k"]);
    world.backup().await;
    let target = world.path("out");
    std::fs::create_dir(&target).unwrap();
    let asked = MachineRestore { resource: world.resource.clone(), point: DisksPoint::Latest, target: target.clone(), dry_run: false };
    // Another restore is at it.
    let other = std::fs::File::create(target.join("vda.raw.part")).unwrap();
    other.lock().unwrap();
    let error = restore(&world.vault, &asked, &world.clock).await.unwrap_err().to_string();
    assert!(error.contains("another restore writes"), "{error}");
    assert!(target.join("vda.raw.part").exists() && !target.join("vda.raw").exists());
    // It broke off.
    drop(other);
    restore(&world.vault, &asked, &world.clock).await.unwrap();
    assert!(std::fs::read(target.join("vda.raw")).unwrap() == world.content("vda"));
}

#[tokio::test]
async fn merging_the_log_changes_no_point_and_a_missing_segment_is_named() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 4 << 20);
    for round in 0..4u64 {
        world.io("vda", &[&format!("write -P {} {}k 200k", round + 1, round * 100)]);
        world.backup().await;
    }
    let merged = handlers::compact::compact(&world.vault, &world.resource, &world.clock, Policy::default()).await.unwrap();
    assert_eq!((merged.segments, merged.merges), (4, 1));
    world.io("vda", &["write -P 9 3M 64k"]);
    let report = world.backup().await;
    world.check_history().await;
    // Somebody takes away the segment of the last point: it is refused, and those before it are not.
    let lost = &report.point.segments[0];
    world.store.delete(&lost.as_str().into()).await.unwrap();
    let (at, _) = world.history.pop().unwrap();
    let asked = MachineRestore { resource: world.resource.clone(), point: DisksPoint::Time(at), target: world.path("out"), dry_run: false };
    let error = restore(&world.vault, &asked, &world.clock).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot restore vm://web to its point of {at}: {lost}, which point 5 rests on, is missing from the vault"));
    world.check_history().await;
}

#[tokio::test]
async fn an_image_that_is_in_use_is_refused_and_so_is_one_that_is_not_what_it_is_called() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    world.add_disk("vda", 1 << 20);
    let mut holder = std::process::Command::new("qemu-io")
        .args(["-f", "qcow2", &world.images["vda"]])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let error = world.try_backup().await.unwrap_err().to_string();
    assert!(error.starts_with("disk vda is in use ("), "{error}");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    world.backup().await;
    let raw = world.path("x.raw").display().to_string();
    std::fs::write(&raw, vec![0; 1 << 20]).unwrap();
    world.images.insert("vda".to_owned(), raw.clone());
    let error = world.try_backup().await.unwrap_err().to_string();
    assert_eq!(error, format!("{raw} is no qcow2 image; if it is a raw one, say so: vda=raw:{raw}"));
}

#[tokio::test]
async fn a_restore_writes_over_nothing_and_says_what_there_is() {
    if !is_here(&PROGRAMS) {
        return;
    }
    let mut world = World::new();
    let asked =
        |world: &World, point| MachineRestore { resource: world.resource.clone(), point, target: world.path("out"), dry_run: false };
    let error = restore(&world.vault, &asked(&world, DisksPoint::Latest), &world.clock).await.unwrap_err().to_string();
    assert!(error.contains("it has no recovery point yet"), "{error}");
    world.add_disk("vda", 1 << 20);
    world.io("vda", &["write -P 1 0 64k"]);
    let first = world.backup().await.point.at;
    for (to, words) in [(Timestamp::from_seconds(7), "its first recovery point is of"), (Timestamp::MAX, "that is still to come")] {
        let error = restore(&world.vault, &asked(&world, DisksPoint::Time(to)), &world.clock).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let dry = MachineRestore { dry_run: true, ..asked(&world, DisksPoint::Time(first)) };
    restore(&world.vault, &dry, &world.clock).await.unwrap();
    assert!(!world.path("out").exists());
    restore(&world.vault, &asked(&world, DisksPoint::Time(first)), &world.clock).await.unwrap();
    let described = std::fs::read_to_string(world.path("out/machine.json")).unwrap();
    assert!(described.contains("\"consistency\": \"off\"") && described.contains("\"full\": \"first\""), "{described}");
    let error = restore(&world.vault, &asked(&world, DisksPoint::Latest), &world.clock).await.unwrap_err().to_string();
    assert!(error.ends_with("vda.raw is there already, and nothing is written over: choose another folder"), "{error}");
}
