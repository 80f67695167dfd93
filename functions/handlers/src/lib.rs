//! What each function of Hindsight does. Hosts (one process, Kafka workers, Lambda) run the same handlers.
//!
//! | job | modules |
//! |---|---|
//! | keeping what events tell | [`intake`], with [`resolve`] (events without a version), [`purges`] (those that tell of one), [`outstanding`] (messages left to come again) |
//! | keeping what a listing shows | [`reconcile`], with `listed` (versions of one second), and [`events_on`] (whether events come at all) |
//! | both of them | [`capture`] (contents first, then changes), with [`known`] (what the vault has), [`copying`] (by the server), [`dating`] and [`source_clock`] (whose time it is), [`missing`] (segments that are gone) |
//! | keeping the vault small and quick | [`compact`] |
//! | keeping what a database tells | [`table_log`] |
//! | giving back | [`restore`]; [`browse`], [`configuration`] and [`diff`] look without restoring |
//! | knowing how it stands | [`health`], [`lag`], [`protection`] (what is kept, and how), [`vault`] (making one), [`letters`] (what could not be taken) |
//! | all of them | [`draw`] (ids that nobody else draws) |
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

pub mod browse;
pub mod capture;
pub mod compact;
pub mod configuration;
pub mod copying;
pub mod dating;
pub mod diff;
pub mod draw;
pub mod events_on;
pub mod health;
pub mod intake;
pub mod known;
pub mod lag;
pub mod letters;
mod listed;
pub mod missing;
pub mod outstanding;
pub mod protection;
pub mod purges;
pub mod reconcile;
pub mod resolve;
pub mod restore;
pub mod source_clock;
pub mod table_log;
pub mod vault;
