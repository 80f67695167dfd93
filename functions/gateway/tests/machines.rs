//! Machines backed up and restored: every restored point is, byte for byte, a copy that was made at the time.
//!
//! QEMU's own tools write to the images, and QEMU itself runs a machine without a guest, whose disks are written to through its monitor.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

#[path = "machines/images.rs"]
mod images;
#[path = "machines/qemu.rs"]
mod qemu;
#[path = "machines/running.rs"]
mod running;
#[path = "machines/world.rs"]
mod world;
