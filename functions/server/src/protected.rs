//! A bucket in a vault, by the name that somebody wrote.

use anyhow::Result;
use handlers::protection::{self, BucketProtection, Protection};
use pipeline::base::inputs::Inventory;
use pipeline::model::ResourceId;

use crate::app::{App, VaultFlag};
use crate::exit::Failure;
use crate::nearest::{list, nearest};
use crate::vaults::OpenVault;
use crate::windows::window;

/// Buckets that are named where another was asked for.
const NAMED_MAX: usize = 10;

/// A bucket that is protected in a vault, or was.
pub struct Protected {
    /// The vault.
    pub opened: OpenVault,
    /// The number of the record that says how the bucket is protected.
    pub number: u64,
    /// How it is protected.
    pub protection: Protection,
}

impl Protected {
    /// How the bucket is protected that this is.
    ///
    /// # Errors
    /// A record that says how something else is protected.
    pub fn bucket(&self) -> Result<&BucketProtection, Failure> {
        let resource = &self.protection.resource;
        let wrong = || Failure::broken(format!("the record of how {resource} is protected in vault {} is damaged", self.opened.place.name));
        self.protection.bucket().ok_or_else(wrong)
    }
}

impl App {
    /// Opens the vault that a flag names, which must know this bucket.
    ///
    /// # Errors
    /// As [`App::vault`]; a bucket that was never protected there, with the names of those that were.
    pub async fn protected(&self, flag: &VaultFlag, resource: &ResourceId) -> Result<Protected> {
        let opened = self.vault(flag).await?;
        match protection::newest(&opened.vault, resource).await? {
            Some(known) => Ok(Protected { opened, number: known.number, protection: known.record }),
            None => Err(unknown(&opened, resource).await?.into()),
        }
    }

    /// Opens the vault that a flag names to read of this bucket. That the record is missing which says how it is protected
    /// keeps nobody from that, as long as there is anything to be read.
    ///
    /// # Errors
    /// As [`App::protected`].
    pub async fn kept(&self, flag: &VaultFlag, resource: &ResourceId) -> Result<Protected> {
        let opened = self.vault(flag).await?;
        if protection::newest(&opened.vault, resource).await?.is_none()
            && window(&opened.vault, &Inventory::load(&opened.vault, resource).await?).await?.is_some()
        {
            tracing::warn!(%resource, "the record that says how it is protected is missing from the vault; what was kept is read all the same");
            return Ok(Protected { opened, number: 0, protection: Protection::lost(resource.clone()) });
        }
        self.protected(flag, resource).await
    }
}

/// Said where a vault knows nothing of a resource: what it does know.
///
/// # Errors
/// As reading records.
pub async fn unknown(opened: &OpenVault, resource: &ResourceId) -> Result<Failure> {
    let vault = &opened.place.name;
    let all = protection::all(&opened.vault).await?;
    let known: Vec<String> = all.iter().map(|known| known.record.resource.to_string()).collect();
    let written = resource.to_string();
    let names = nearest(&written, known.iter().map(String::as_str));
    Ok(Failure::refused(match names.len() {
        0 => format!("{written} is not protected in vault {vault}, nor is anything else; `hindsight protect` begins it"),
        1 => format!("{written} is not protected in vault {vault}; {} is", names[0]),
        _ => format!("{written} is not protected in vault {vault}; these are: {}", list(&names, NAMED_MAX)),
    }))
}
