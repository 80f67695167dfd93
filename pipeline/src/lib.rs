//! Hindsight's data path. It knows no host, no clock and no randomness of its own.
//!
//! ```text
//!  events, listings ─→ source ─→ changelog ─→ base ─→ replay ─→ target
//!                     (decode)   (append)  (compact) (fold to T)
//!                         └─ bodies ─┴────── vault ──────┘
//! ```
//!
//! The modules in reading order; each uses only those above it.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

pub mod model;
pub mod simulated;
pub mod fold;
pub mod postgres;
pub mod s3;
pub mod view;
pub mod vault;
pub mod changelog;
pub mod base;
pub mod source;
pub mod target;
pub mod replay;
pub mod verify;

#[cfg(test)]
pub(crate) mod testing {
    //! What unit tests share.

    use futures::FutureExt;

    /// Runs what never has to wait: everything over a store in memory.
    pub fn block_on<F: Future>(future: F) -> F::Output {
        future.now_or_never().expect("nothing here waits for the outside")
    }
}
