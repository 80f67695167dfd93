//! What is protected, and how: numbered records in the vault, so that a vault says by itself what belongs into it.

mod events;

use std::collections::BTreeMap;
use std::time::Duration;

use fail::fail_point;
use pipeline::model::{ResourceId, ResourceKind, Timestamp};
use pipeline::vault::record::{Numbered, Record};
use pipeline::vault::{Created, Vault, VaultError, layout};
use serde::{Deserialize, Serialize};

pub use self::events::{Events, EventsError};

/// One resource's continuous protection. The newest record counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// What is protected.
    pub resource: ResourceId,
    /// When this was decided.
    pub since: Timestamp,
    /// How: beside the other fields in the record.
    #[serde(flatten)]
    pub how: How,
    /// Whether it runs, or has been stopped and only restores.
    pub status: Status,
}

/// How a resource is protected, which depends on its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum How {
    /// A bucket.
    Bucket(BucketProtection),
    /// A database.
    Database(DatabaseProtection),
    /// A virtual machine.
    Machine(MachineProtection),
}

/// How a bucket is protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketProtection {
    /// How changes are learned.
    pub events: Events,
    /// Which of the configured endpoints the S3 bucket is at; the default one for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether ACLs are kept: one more request per version.
    pub acls: bool,
    /// Whether the bucket may be one that keeps no versions: best effort, never proven.
    pub unversioned: bool,
    /// How often the truth is read at the source, in seconds.
    pub reconcile_seconds: u64,
}

/// How a database is protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseProtection {
    /// Where it is and as whom it is reached, as a URL without a password.
    pub server: String,
    /// How its changes are learned: beside the other fields in the record.
    #[serde(flatten)]
    pub changes: Changes,
}

impl DatabaseProtection {
    /// The slot that was made for it, where there is one.
    pub fn slot(&self) -> Option<&str> {
        match &self.changes {
            Changes::Replication { slot } => Some(slot),
            Changes::Connector { .. } => None,
        }
    }

    /// Whether its changes are learned from the topics of a connector.
    pub fn is_by_connector(&self) -> bool {
        matches!(self.changes, Changes::Connector { .. })
    }
}

/// How changes of a database are learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Changes {
    /// From the database itself, by replication.
    Replication {
        /// The name of the slot, with which those of the publications begin.
        slot: String,
    },
    /// From the topics of a connector.
    Connector {
        /// Which of the configured clusters of Kafka, or its brokers.
        cluster: String,
        /// What the names of its topics begin with: its `topic.prefix`.
        prefix: String,
        /// What it writes for values that the database did not send: its `unavailable.value.placeholder`.
        placeholder: String,
    },
}

/// How a virtual machine is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineProtection {
    /// How it is reached.
    pub machine: Reached,
    /// How often a recovery point is made of it, in seconds; none where only somebody's command makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_seconds: Option<u64>,
}

/// How a virtual machine is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The socket of QEMU's monitor, at which it speaks QMP, while the machine runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qmp: Option<String>,
    /// Its disks by the names that they have in the vault: where the image of each is. Without any, all that QEMU tells of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// The folder for what the guest overwrites while a backup reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<String>,
    /// A file that says how the machine is made, which every point keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Protection {
    /// What can be said of a resource whose record is lost: that it is not protected any more.
    pub fn lost(resource: ResourceId) -> Protection {
        let how = match resource.kind() {
            ResourceKind::Bucket => How::Bucket(BucketProtection {
                events: Events::Webhook,
                endpoint: None,
                acls: true,
                unversioned: false,
                reconcile_seconds: RECONCILE_EVERY.as_secs(),
            }),
            ResourceKind::Database => {
                How::Database(DatabaseProtection { server: String::new(), changes: Changes::Replication { slot: String::new() } })
            }
            ResourceKind::Machine => How::Machine(MachineProtection::default()),
        };
        Protection { resource, since: Timestamp::default(), how, status: Status::Stopped }
    }

    /// How a bucket is protected; none of another kind.
    pub fn bucket(&self) -> Option<&BucketProtection> {
        match &self.how {
            How::Bucket(bucket) => Some(bucket),
            How::Database(_) | How::Machine(_) => None,
        }
    }

    /// How a database is protected; none of another kind.
    pub fn database(&self) -> Option<&DatabaseProtection> {
        match &self.how {
            How::Database(database) => Some(database),
            How::Bucket(_) | How::Machine(_) => None,
        }
    }

    /// How a virtual machine is protected; none of another kind.
    pub fn machine(&self) -> Option<&MachineProtection> {
        match &self.how {
            How::Machine(machine) => Some(machine),
            How::Bucket(_) | How::Database(_) => None,
        }
    }

    /// Whether it is one that never proves anything.
    pub fn is_best_effort(&self) -> bool {
        self.bucket().is_some_and(|bucket| bucket.unversioned)
    }
}

impl Record for Protection {
    const KIND: &'static str = "protection";
}

/// Whether a protection runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Changes are kept.
    Active,
    /// No more changes are kept; what was kept can be restored.
    Stopped,
}

/// The folder name of these records.
pub const PROTECTIONS: &str = "protection";

/// How often the truth is read where events come too.
pub const RECONCILE_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// Why a resource cannot be protected.
#[derive(Debug, thiserror::Error)]
pub enum ProtectError {
    /// Another configured vault has it.
    #[error("{kind} {name} already has continuous backup enabled for another vault Backup job failed.")]
    AnotherVault {
        /// The word for what kind of thing it is.
        kind: &'static str,
        /// The name of the bucket or the database.
        name: String,
    },
    /// The bucket keeps no versions.
    #[error(
        "cannot protect {resource}: it does not keep versions ({versioning}); switch versioning on, or protect it with \
         --unversioned, which is best effort: what is overwritten or deleted before it could be read is lost"
    )]
    Unversioned {
        /// What was to be protected.
        resource: ResourceId,
        /// What the bucket says.
        versioning: String,
    },
    /// The vault would be backed up into itself.
    #[error("cannot protect {resource}: the vault lies within it, and would be backed up into itself")]
    OwnVault {
        /// What was to be protected.
        resource: ResourceId,
    },
    /// The vault cannot be read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// The newest protection of a resource in a vault.
///
/// # Errors
/// As [`Vault::newest_record`].
pub async fn newest(vault: &Vault, resource: &ResourceId) -> Result<Option<Numbered<Protection>>, VaultError> {
    vault.newest_record(&layout::state_folder(PROTECTIONS, resource)).await
}

/// Every protection of a vault, the newest record of each resource.
///
/// # Errors
/// As [`Vault::folders`] and [`newest`].
pub async fn all(vault: &Vault) -> Result<Vec<Numbered<Protection>>, VaultError> {
    let mut protections = Vec::new();
    for folder in vault.folders(&layout::states_folder(PROTECTIONS)).await? {
        if let Some(resource) = layout::resource_of(&folder) {
            protections.extend(newest(vault, &resource).await?);
        }
    }
    Ok(protections)
}

/// Whether none of these vaults protects the resource.
///
/// # Errors
/// [`ProtectError::AnotherVault`] where one does.
pub async fn free_in(vaults: &[Vault], resource: &ResourceId) -> Result<(), ProtectError> {
    for vault in vaults {
        if newest(vault, resource).await?.is_some_and(|found| found.record.status == Status::Active) {
            let kind = match resource.kind() {
                ResourceKind::Bucket => "Bucket",
                ResourceKind::Database => "Database",
                ResourceKind::Machine => "Virtual machine",
            };
            return Err(ProtectError::AnotherVault { kind, name: resource.name().to_owned() });
        }
    }
    Ok(())
}

/// Records a protection, unless one of the `others` runs one of the same resource.
///
/// # Errors
/// [`ProtectError::AnotherVault`], and as writing a record.
pub async fn record(vault: &Vault, others: &[Vault], protection: &Protection) -> Result<u64, ProtectError> {
    if protection.status == Status::Active {
        free_in(others, &protection.resource).await?;
    }
    let folder = layout::state_folder(PROTECTIONS, &protection.resource);
    fail_point!("protection::before-record");
    loop {
        let number = newest(vault, &protection.resource).await?.map_or(1, |newest| newest.number + 1);
        if vault.write_numbered(&folder, number, protection).await? == Created::New {
            fail_point!("protection::after-record");
            return Ok(number);
        }
    }
}
