//! Messages of which something could not be taken, as the vault keeps them.

use base64::Engine;
use pipeline::vault::{Vault, VaultError, layout};
use serde::{Deserialize, Serialize};

/// A message that was kept whole, and why. It has no time of its own, so that one that comes again is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The feed by which it came.
    pub stream: String,
    /// What could not be taken, and why: the first [`REASONS_MAX`].
    pub reasons: Vec<String>,
    /// How many of its events could not be taken.
    pub events: usize,
    /// The message, base64.
    raw: String,
}

/// Reasons that a dead letter names.
pub const REASONS_MAX: usize = 100;

impl DeadLetter {
    /// Of this message.
    pub fn new(stream: &str, mut reasons: Vec<String>, message: &[u8]) -> DeadLetter {
        let events = reasons.len();
        reasons.truncate(REASONS_MAX);
        DeadLetter { stream: stream.to_owned(), reasons, events, raw: base64::engine::general_purpose::STANDARD.encode(message) }
    }

    /// The message as it came.
    ///
    /// # Errors
    /// [`VaultError::Damaged`] where it cannot be read; `path` is the letter's.
    pub fn message(&self, path: &str) -> Result<Vec<u8>, VaultError> {
        base64::engine::general_purpose::STANDARD.decode(&self.raw).map_err(|error| VaultError::damaged(path, error))
    }
}

/// The paths of all letters, by the day on which they came.
///
/// # Errors
/// As [`Vault::list`].
pub async fn list(vault: &Vault) -> Result<Vec<String>, VaultError> {
    Ok(vault.list(layout::DEAD_FOLDER).await?.into_iter().map(|file| file.path).collect())
}

/// One letter.
///
/// # Errors
/// As [`Vault::read`]; [`VaultError::Damaged`].
pub async fn read(vault: &Vault, path: &str) -> Result<DeadLetter, VaultError> {
    serde_json::from_slice(&vault.read(path).await?).map_err(|error| VaultError::damaged(path, error))
}
