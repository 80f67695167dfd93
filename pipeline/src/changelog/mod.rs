//! The change log: immutable Parquet segments whose names say what they hold.
//!
//! Appending is one create-if-absent and planning is one listing. Where a segment stands is written in [`segment`], which
//! others it follows in [`chain`], its columns and encoding in [`write`], its checks in [`read`], and what all segments of a
//! resource prove together in [`coverage`]. In which order a database committed, and where that is cut at a time, is told by
//! [`commits`]; which snapshots of a virtual machine count, by [`points`].

pub mod chain;
pub mod commits;
pub mod coverage;
pub mod link;
pub mod points;
pub mod read;
pub mod segment;
pub mod write;

pub use chain::Heads;
pub use link::Link;
pub use segment::{SegmentName, segments, segments_since};
