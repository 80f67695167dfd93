//! How a replication slot is: what the server keeps for it, and for how much longer.
//!
//! A slot holds back the server's log until it has been read. One that nobody reads fills the server's disk, or, where
//! `max_slot_wal_keep_size` bounds that, is lost, and with it the right to go on without a new snapshot.

use pipeline::model::{ResourceId, Timestamp};
use pipeline::vault::record::Record;
use pipeline::vault::{Vault, VaultError, layout};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::{Address, DatabaseError};

/// A slot as its server shows it. Numbered records of a resource; the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotState {
    /// Its name.
    pub slot: String,
    /// When the server was asked.
    pub at: Timestamp,
    /// Whether the log that it needs is there: `reserved`, `extended`, `unreserved` (it may go at the next checkpoint) or `lost`.
    pub status: String,
    /// Bytes of log that the server keeps for it.
    pub retained_bytes: u64,
    /// Bytes that may still be written before it is lost; none where the server sets no bound.
    pub safe_bytes: Option<u64>,
}

impl Record for SlotState {
    const KIND: &'static str = "slot";
}

/// The folder name of these records.
const SLOTS: &str = "slot";

impl SlotState {
    /// Asks the server; none where there is no such slot.
    ///
    /// # Errors
    /// [`DatabaseError::Server`].
    pub(crate) async fn ask(client: &Client, address: &Address, slot: &str) -> Result<Option<SlotState>, DatabaseError> {
        let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, coalesce(wal_status, 'lost'),
                               coalesce(pg_current_wal_insert_lsn() - restart_lsn, 0)::int8, safe_wal_size
                        FROM pg_replication_slots WHERE slot_name = $1";
        let row = client.query_opt(question, &[&slot]).await.map_err(|error| address.failed("ask for the slot", &error))?;
        Ok(row.map(|row| SlotState {
            slot: slot.to_owned(),
            at: Timestamp::from_micros(row.get(0)),
            status: row.get(1),
            retained_bytes: row.get::<_, i64>(2).max(0) as u64,
            safe_bytes: row.get::<_, Option<i64>>(3).map(|bytes| bytes.max(0) as u64),
        }))
    }

    /// Whether it can be gone on with.
    pub fn is_lost(&self) -> bool {
        self.status == "lost"
    }

    /// What is wrong with it, in words; nothing where all is well.
    pub fn complaint(&self) -> Option<String> {
        let SlotState { slot, retained_bytes, .. } = self;
        match self.status.as_str() {
            "reserved" | "extended" => None,
            "lost" => {
                Some(format!("replication slot {slot} is lost: a new snapshot is needed, and what was committed meanwhile is not known"))
            }
            _ => Some(format!(
                "replication slot {slot} is about to be lost: {retained_bytes} bytes of log wait for it, more than max_slot_wal_keep_size"
            )),
        }
    }

    /// Writes it down.
    ///
    /// # Errors
    /// As writing a record.
    pub async fn record(&self, vault: &Vault, resource: &ResourceId) -> Result<(), VaultError> {
        vault.append_record(&layout::state_folder(SLOTS, resource), self).await.map(drop)
    }
}

/// How the slot of a database was when it was written down last.
///
/// # Errors
/// As [`Vault::newest_record`].
pub async fn newest(vault: &Vault, resource: &ResourceId) -> Result<Option<SlotState>, VaultError> {
    Ok(vault.newest_record::<SlotState>(&layout::state_folder(SLOTS, resource)).await?.map(|known| known.record))
}
