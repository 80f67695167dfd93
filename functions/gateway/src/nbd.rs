//! A client of the Network Block Device protocol, as far as reading goes.
//!
//! ```text
//!  connect ─→ handshake: structured replies, contexts, export ─→ block status: which stretches are allocated, changed ...
//!                                                            └─→ reads, many at the same time, in whichever order they come
//! ```
//!
//! Written from the protocol (`doc/proto.md` of the project NetworkBlockDevice/nbd): fixed newstyle handshake, structured replies, simple
//! ones where a server knows no others, `base:allocation` and any other metadata context. It knows nothing of the rest of this program.
//!
//! The server is not trusted. Every length that it states is held against what was asked for before room is made for it; a reply that
//! covers a byte twice or leaves one out is an error, and so is one that says nothing new; and no answer is waited for longer than
//! [`Patience`] says. What it says about data nobody can check: that is for whoever knows what the data should be.

mod client;
mod handshake;
mod reply;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use self::client::{Client, Extent, Read, Reads};

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// At a Unix socket.
    Unix(PathBuf),
    /// At a host and a port: `127.0.0.1:10809`.
    Tcp(String),
}

/// What is asked for in the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The name of the export; the empty one is the server's default.
    pub export: String,
    /// Metadata contexts that must be there: `base:allocation`, `qemu:dirty-bitmap:NAME`.
    pub contexts: Vec<String>,
}

/// How long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the next bytes of an answer, or until a request is taken.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { answer: Duration::from_secs(60) }
    }
}

/// Why a server gave nothing. The connection is of no use after it.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// The connection could not be made, or broke.
    #[error("the NBD server cannot be {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("the NBD server did not answer within {} s", patience.as_secs())]
    Silent {
        /// How long was waited.
        patience: Duration,
    },
    /// What it says is not the protocol, or not what was asked for.
    #[error("the NBD server does not keep to the protocol: {reason}")]
    Protocol {
        /// What it did.
        reason: String,
    },
    /// It refuses: no such export, a context that it does not have, an error of the disk.
    #[error("the NBD server refuses {what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// In its words, or by the name of its number.
        reason: String,
    },
}

impl NbdError {
    fn protocol(reason: impl Into<String>) -> NbdError {
        NbdError::Protocol { reason: reason.into() }
    }
}
