//! The incarnations of a database's log: each begins with a slot and a snapshot under it.
//!
//! What comes through a slot follows its snapshot without a hole. Another slot may have missed something, and another server is
//! another database; so each has an epoch of its own, which leads all positions, and the snapshot of a later epoch replaces all
//! that was before.

use std::collections::BTreeMap;

use pipeline::model::{ResourceId, Timestamp};
use pipeline::vault::record::{Numbered, Record};
use pipeline::vault::{Created, Vault, VaultError, layout};
use serde::{Deserialize, Serialize};

use crate::catalogue::KnownTable;

/// One incarnation. The newest record counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Leads the positions.
    pub epoch: u32,
    /// The cluster's own number; or `debezium:` and the connector's prefix.
    pub system: String,
    /// The slot; or that prefix.
    pub slot: String,
    /// Where the slot begins, or the connector's snapshot was taken: it is what had been committed there. 0 before there is a slot.
    pub start: u64,
    /// When the snapshot was taken, by the server's clock.
    pub at: Timestamp,
    /// What its tables are, as far as they have been read; none before there is a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<BTreeMap<u32, KnownTable>>,
    /// Whether all of the snapshot is in the log.
    pub whole: bool,
}

impl Record for Incarnation {
    const KIND: &'static str = "incarnation";
}

/// The folder name of these records.
const INCARNATIONS: &str = "incarnation";

impl Incarnation {
    /// The name of its feed for the `stream` column.
    pub fn stream(&self) -> String {
        format!("postgresql:{}/{}/{}", self.system, self.slot, self.epoch)
    }
}

/// The newest of a database.
///
/// # Errors
/// As [`Vault::newest_record`].
pub async fn newest(vault: &Vault, resource: &ResourceId) -> Result<Option<Numbered<Incarnation>>, VaultError> {
    vault.newest_record(&layout::state_folder(INCARNATIONS, resource)).await
}

/// All that are written down, in their order.
///
/// # Errors
/// As [`Vault::all_records`].
pub async fn all(vault: &Vault, resource: &ResourceId) -> Result<Vec<Incarnation>, VaultError> {
    let all = vault.all_records::<Incarnation>(&layout::state_folder(INCARNATIONS, resource)).await?;
    Ok(all.into_iter().map(|numbered| numbered.record).collect())
}

/// Writes what follows `known`; says no where somebody else has written that.
///
/// # Errors
/// As [`Vault::write_numbered`].
pub async fn follow(
    vault: &Vault,
    resource: &ResourceId,
    known: Option<&Numbered<Incarnation>>,
    next: &Incarnation,
) -> Result<bool, VaultError> {
    let number = known.map_or(1, |known| known.number + 1);
    let created = vault.write_numbered(&layout::state_folder(INCARNATIONS, resource), number, next).await?;
    Ok(created == Created::New)
}
