//! What can go wrong between a machine and a vault.

use std::io;
use std::path::PathBuf;

use pipeline::replay::disks::DisksError;
use pipeline::vault::VaultError;

use crate::nbd::NbdError;
use crate::qmp::QmpError;

/// Why a machine could not be backed up or restored.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The user must decide, or ask for something else.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// A program of QEMU cannot be run.
    #[error("{program} cannot be run: it comes with QEMU's tools (qemu-utils)")]
    Program {
        /// Which.
        program: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// A program of QEMU ended with an error, or did not begin.
    #[error("{program} {reason}")]
    Ended {
        /// Which.
        program: &'static str,
        /// In its words.
        reason: String,
    },
    /// QEMU's monitor.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// What a machine says of itself is not what is expected.
    #[error("what QEMU says of {what} is not understood")]
    Answer {
        /// Of what.
        what: String,
    },
    /// Reading a disk.
    #[error("disk {disk} could not be read")]
    Read {
        /// Which.
        disk: String,
        /// Why.
        source: NbdError,
    },
    /// A file on this machine.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It was told to end.
    #[error("the backup was told to end before it had; the machine is as before, and the next backup misses nothing")]
    Interrupted,
    /// There is no such state.
    #[error(transparent)]
    Disks(#[from] DisksError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl GatewayError {
    /// Whether it is for the user to decide.
    pub fn is_refusal(&self) -> bool {
        match self {
            GatewayError::Refused { .. } => true,
            GatewayError::Disks(error) => !matches!(error, DisksError::Vault(_)),
            _ => false,
        }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> GatewayError {
        GatewayError::Refused { reason: reason.into() }
    }

    pub(crate) fn answer(what: impl Into<String>) -> GatewayError {
        GatewayError::Answer { what: what.into() }
    }
}
