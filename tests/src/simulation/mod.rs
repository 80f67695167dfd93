//! The seeded simulation: the real intake, capture, reconciliation, compaction and restore, against books that never see
//! them.
//!
//! ```text
//!  users ─→ bucket in memory ─┬─ events ─→ queue (late, twice, lost) ─→ intake ×2 ─┐
//!    │                        └─ listing ──────────────────→ reconciler ──────────┤
//!    ↓                                                                            ↓
//!  oracle ←─ compare ─ restores to many seconds ←──── vault in memory ←── compactor ×2
//! ```
//!
//! One thread, one seed: which actor goes on next, how long the clock moves, what fails before or after its effect, who
//! dies at which await, all of it is drawn from the seed, and the seed repeats it. See [`run`].

pub mod actors;
pub mod bugs;
pub mod campaign;
pub mod check;
pub mod clocks;
pub mod door;
pub mod event;
pub mod executor;
pub mod history;
pub mod marks;
pub mod minimise;
pub mod oracle;
pub mod queue;
pub mod random;
mod selections;
pub mod store;
pub mod swarm;
pub mod target;
pub mod workload;
pub mod world;

pub use bugs::{BUGS, Bug};
pub use history::{History, Options, run};
pub use minimise::{Plan, minimise};
pub use swarm::Ingredient;
pub use world::Counts;
