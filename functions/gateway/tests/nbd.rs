//! The NBD client: against servers that do as they please, and against real ones.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

#[path = "nbd/hostile.rs"]
mod hostile;
#[path = "nbd/real.rs"]
mod real;
