//! Restores: the state at a second, carried into a target.
//!
//! [`plan`] decides, without I/O, from an inventory and the wanted instant, or says why not. [`run`] carries it out:
//! fold, select, decide per object, write. Databases have their own, [`tables`], and so have virtual machines, [`disks`].

pub mod disks;
pub mod plan;
pub mod run;
pub mod select;
pub mod tables;
pub mod unmatched;

pub use plan::{Certainty, PlanError, ReplayPlan, RestorePoint};
pub use select::Selection;
