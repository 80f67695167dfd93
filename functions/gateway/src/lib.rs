//! Virtual machines as what is protected and restored: snapshots of QEMU, and of its images.
//!
//! ```text
//!  QMP ─→ a snapshot of all disks at one instant ─→ NBD: which blocks changed, and what they hold ─→ packs, segments ─→ the point
//!                                       restore: the point ─→ files, one for each disk
//! ```
//!
//! The way to QEMU is in [`qmp`] and [`session`], the instant in `snapshot`, what QEMU remembers of changes in `bitmaps`, the backup in
//! [`backup`], the restore in [`restore`]. The data goes through [`nbd`], which knows nothing of the others.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

pub mod backup;
mod bitmaps;
mod error;
pub mod nbd;
pub mod qmp;
pub mod restore;
pub mod session;
mod snapshot;
pub mod window;

pub use error::GatewayError;
