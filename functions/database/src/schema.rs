//! The schema of a database: what `pg_dump` says of it without its rows.

use std::path::Path;

use pipeline::model::{ResourceId, Timestamp};
use pipeline::vault::record::Record;
use pipeline::vault::{Vault, VaultError, layout};
use serde::{Deserialize, Serialize};

use crate::{Address, DatabaseError};

/// The schema as it was under a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The incarnation whose snapshot it belongs to.
    pub epoch: u32,
    /// When.
    pub at: Timestamp,
    /// What makes the tables: SQL.
    pub before_rows: String,
    /// What makes indexes, constraints and triggers: SQL.
    pub after_rows: String,
}

impl Record for Schema {
    const KIND: &'static str = "schema";
}

/// The folder name of these records.
const SCHEMAS: &str = "schema";

impl Schema {
    /// Reads it from a database, under a snapshot that another session has exported.
    pub async fn read(
        programs: Option<&Path>,
        address: &Address,
        snapshot: &str,
        epoch: u32,
        at: Timestamp,
    ) -> Result<Schema, DatabaseError> {
        let before_rows = dump(programs, address, snapshot, "pre-data").await?;
        let after_rows = dump(programs, address, snapshot, "post-data").await?;
        Ok(Schema { epoch, at, before_rows, after_rows })
    }

    /// Puts it into the vault.
    pub async fn store(&self, vault: &Vault, resource: &ResourceId) -> Result<(), VaultError> {
        vault.append_record(&layout::state_folder(SCHEMAS, resource), self).await.map(drop)
    }
}

/// The schema of an incarnation.
pub async fn of_epoch(vault: &Vault, resource: &ResourceId, epoch: u32) -> Result<Option<Schema>, VaultError> {
    let all = vault.all_records::<Schema>(&layout::state_folder(SCHEMAS, resource)).await?;
    Ok(all.into_iter().map(|numbered| numbered.record).rfind(|schema| schema.epoch == epoch))
}

async fn dump(programs: Option<&Path>, address: &Address, snapshot: &str, section: &str) -> Result<String, DatabaseError> {
    let program = programs.map_or_else(|| "pg_dump".into(), |folder| folder.join("pg_dump"));
    let failed = |reason: String| DatabaseError::Program { program: program.display().to_string(), reason };
    let output = tokio::process::Command::new(&program)
        .args(["--schema-only", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"])
        .args(["--snapshot", snapshot, "--section", section])
        .envs(address.environment())
        .output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| failed("what it says of the schema is not UTF-8".to_owned()))?;
    // Lines for psql, which keep it from being led astray by what is in a dump.
    let is_sql = |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
    Ok(text.lines().filter(is_sql).map(|line| format!("{line}\n")).collect())
}
