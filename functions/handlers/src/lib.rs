//! What each function of Hindsight does. Hosts (one process, Kafka workers, Lambda) run the same handlers.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

pub mod browse;
pub mod capture;
pub mod compact;
pub mod copying;
pub mod dating;
pub mod diff;
pub mod health;
pub mod intake;
pub mod known;
pub mod lag;
mod listed;
pub mod missing;
pub mod outstanding;
pub mod protection;
pub mod purges;
pub mod reconcile;
pub mod resolve;
pub mod restore;
pub mod source_clock;
pub mod vault;
