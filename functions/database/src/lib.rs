//! PostgreSQL as what is protected, and as what is restored to.
//!
//! ```text
//!  begin: slot ─→ snapshot under it ─→ schema, rows ─┐
//!  follow: replication ─→ pgoutput ─→ whole commits ─┴→ the log of the database in the vault ─→ restore: DDL, COPY, indexes
//! ```
//!
//! The source keeps its write-ahead log from the slot on, and is told that it may let go of it only when the vault has it. So
//! between the snapshot and the stream, and between one connection and the next, nothing is missing; a slot that was lost begins
//! a new incarnation, with a gap that is shown.
//!
//! Where a connector tells of the changes in topics, [`connector`] keeps them; the database itself is asked for its schema alone.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

pub mod address;
pub mod begin;
pub mod catalogue;
pub mod connector;
pub mod diff;
pub mod follow;
pub mod history;
pub mod incarnation;
pub mod look;
pub mod passfile;
pub mod restore;
mod schema;
mod sequences;
pub mod slot;
mod snapshot;
mod sql_name;
mod tables;
mod tls;
pub mod undo;
pub mod window;

pub use address::Address;
pub use schema::new_rows_only;

/// Why something with a database could not be done.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL cannot be understood.
    #[error("{url:?} is no URL of a database: {reason}; write postgres://USER@HOST:PORT/DATABASE")]
    Address {
        /// What was written, without a password.
        url: String,
        /// Why.
        reason: String,
    },
    /// The server does not answer, or says no.
    #[error("{address}: {attempt}: {reason}")]
    Server {
        /// Which.
        address: String,
        /// What was asked of it.
        attempt: String,
        /// What it says.
        reason: String,
    },
    /// Somebody uses what is to be changed.
    #[error("{address}: {attempt}: {reason}")]
    InUse {
        /// Which.
        address: String,
        /// What was asked of it.
        attempt: String,
        /// What it says.
        reason: String,
    },
    /// It is not set so that it can be protected, or restored to.
    #[error("cannot {attempt} {address}: {reason}")]
    Refused {
        /// Which.
        address: String,
        /// What was to be done.
        attempt: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// No table of that name.
    #[error("{resource} has no table {table} at that time; it has {}", some(known))]
    NoTable {
        /// The database that was asked for.
        resource: pipeline::model::ResourceId,
        /// What was asked for.
        table: String,
        /// The tables that there are.
        known: Vec<String>,
    },
    /// More changes than can be sorted.
    #[error(
        "there are more than {changes_max} changes, or {mib_max} MiB of them; name a shorter time with --from and --to, a table, or a value that \
         the row has, with --row"
    )]
    TooMany {
        /// How many can be.
        changes_max: usize,
        /// How much text, in MiB.
        mib_max: usize,
    },
    /// Its tables are not those any more that are known.
    #[error("{address}: its tables have been changed: a new snapshot is needed")]
    Changed {
        /// Which.
        address: String,
    },
    /// A program of PostgreSQL failed.
    #[error("{program}: {reason}")]
    Program {
        /// Which.
        program: String,
        /// What it says.
        reason: String,
    },
    /// The log could not be written.
    #[error(transparent)]
    Log(#[from] handlers::table_log::TableLogError),
    /// The records of a connector cannot be read.
    #[error(transparent)]
    Records(pipeline::source::SourceError),
    /// The vault cannot be read or written.
    #[error(transparent)]
    Vault(#[from] pipeline::vault::VaultError),
    /// There is no such state.
    #[error(transparent)]
    Tables(#[from] pipeline::replay::tables::TablesError),
}

/// Names in a sentence.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 20;
    match names.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
        _ => names.join(", "),
    }
}

impl DatabaseError {
    /// Whether it would work once somebody has ended.
    pub fn is_in_use(&self) -> bool {
        matches!(self, DatabaseError::InUse { .. })
    }
}
