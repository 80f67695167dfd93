//! `hindsight-worker`: the same command line as `hindsight`, with topics of Kafka among what it can take events from.
//!
//! ```text
//!  broker ─→ partitions of this member ─→ intake ─→ the vault has it ─→ offsets
//! ```
//!
//! Any number of them may run beside each other, on one vault or several: the group shares the partitions out. One that is taken for
//! dead and goes on does no harm: what it appends are facts, and appending them again changes nothing.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

mod client;
mod connector;
mod held;
mod mark;
mod topic;

use std::process::ExitCode;
use std::sync::Arc;

use server::Abilities;

fn main() -> ExitCode {
    server::run(Abilities { kafka: Some(Arc::new(topic::Rdkafka)) })
}
