//! Appending to the log of a database.
//!
//! A replication slot has one writer at a time: the server lets nobody else read it. The members of a group that read the topics of a
//! connector are several. Each segment names the one before, so that one that goes missing is noticed.

use std::sync::Arc;

use pipeline::base::inputs::Inventory;
use pipeline::changelog::chain::Heads;
use pipeline::changelog::coverage::{GAPS, Gap};
use pipeline::changelog::write;
use pipeline::model::{ChangeBatch, Clock, ResourceId, Timestamp};
use pipeline::vault::{Vault, VaultError, layout};

/// The log of one database, for its writer.
pub struct TableLog {
    vault: Vault,
    resource: ResourceId,
    clock: Arc<dyn Clock>,
    heads: Heads,
    latest: Option<Timestamp>,
    is_empty: bool,
}

/// Why nothing was appended. Nothing may be acknowledged then, and doing it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum TableLogError {
    /// The vault did not take it.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The changes could not be made a segment.
    #[error("cannot make a segment of changes of {resource}: {reason}")]
    Encode {
        /// The resource that they are of.
        resource: ResourceId,
        /// The encoder's.
        reason: String,
    },
}

impl TableLog {
    /// Opens the log of a database.
    ///
    /// # Errors
    /// As reading the vault.
    pub async fn open(vault: Vault, resource: ResourceId, clock: Arc<dyn Clock>) -> Result<TableLog, VaultError> {
        let inventory = Inventory::load(&vault, &resource).await?;
        // A segment written before anything is certain says the beginning of time.
        let latest = inventory.latest().filter(|at| *at > Timestamp::default());
        let heads = inventory.heads();
        let is_empty = inventory.segments.is_empty() && inventory.manifest.is_none();
        Ok(TableLog { vault, resource, clock, heads, latest, is_empty })
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Whose log it is.
    pub fn resource(&self) -> &ResourceId {
        &self.resource
    }

    /// The instant up to which all that was committed is in the log.
    pub fn latest(&self) -> Option<Timestamp> {
        self.latest
    }

    /// Whether nothing was ever appended.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Appends changes, and says where. `latest` moves the mark up to which all that was committed is in the log; with it, no changes
    /// make a heartbeat.
    ///
    /// # Errors
    /// [`TableLogError`].
    pub async fn append(&mut self, changes: &ChangeBatch, latest: Option<Timestamp>) -> Result<String, TableLogError> {
        let latest = self.latest.max(latest);
        let known = latest.unwrap_or_default();
        let encoded = write::encode(&self.resource, changes, self.clock.now(), known, self.heads.next())
            .map_err(|error| TableLogError::Encode { resource: self.resource.clone(), reason: error.to_string() })?;
        let segment = write::append(&self.vault, &encoded).await?;
        self.heads.appended(&segment.name);
        (self.latest, self.is_empty) = (latest, false);
        Ok(segment.path)
    }

    /// Notes that what was committed between two instants may be missing.
    ///
    /// # Errors
    /// As writing a record.
    pub async fn note_gap(&self, gap: &Gap) -> Result<(), VaultError> {
        self.vault.append_record(&layout::state_folder(GAPS, &self.resource), gap).await.map(drop)
    }
}
