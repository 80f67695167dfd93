//! What Hindsight's tests share: servers, buckets in memory, conformance suites, the simulation.

pub mod bucket_conformance;
pub mod chaos;
pub mod faults;
pub mod memory_bucket;
pub mod power;
pub mod services;
pub mod simulation;
pub mod small_world;
pub mod sqs_server;
pub mod store_conformance;
pub mod target_conformance;
