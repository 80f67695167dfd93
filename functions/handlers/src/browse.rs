//! Reading a state without restoring it: its objects one after the other ([`State`]), one object's content ([`find`],
//! [`content`]), one key's [`history`].

mod history;
mod state;

use bytes::Bytes;
use futures::stream::BoxStream;
use pipeline::base::inputs::Inputs;
use pipeline::fold::object::Keep;
use pipeline::fold::{Cut, Uncertain};
use pipeline::model::Timestamp;
use pipeline::vault::body::Body;
use pipeline::vault::{Vault, VaultError};
use pipeline::view::{ObjectVersion, ViewError};

pub use self::history::{HistoryOf, history, is_look};
pub use self::state::{Objects, State};

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// The vault does not give it, or is damaged.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What the vault says of an object cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// There was no such object, or it was deleted.
    #[error("{object:?} did not exist at {at}")]
    NotThere {
        /// The key.
        object: String,
        /// The instant.
        at: Timestamp,
    },
    /// Nobody can say whether it was there.
    #[error("nobody can say whether {object:?} was there at {at}: {reason}")]
    Unknown {
        /// The key.
        object: String,
        /// The instant.
        at: Timestamp,
        /// Why not, of each version of which that is so.
        reason: String,
    },
    /// There was no such version.
    #[error("{object:?} had no version {version} at {at}")]
    NoVersion {
        /// The key.
        object: String,
        /// The version.
        version: String,
        /// The instant.
        at: Timestamp,
    },
    /// The bucket's configuration had no such document.
    #[error("there was no document {name:?} at {at}{}{}", removed.map(removed_at).unwrap_or_default(), others(there))]
    NoDocument {
        /// Its name.
        name: String,
        /// The instant.
        at: Timestamp,
        /// When it was seen to be removed, where it had been there before.
        removed: Option<Timestamp>,
        /// The names of those that were there.
        there: Vec<String>,
    },
    /// More changes than can be sorted.
    #[error("there are more than {changes_max} changes; name a shorter time with --from and --to, or a longer beginning of the keys")]
    TooMany {
        /// How many can be.
        changes_max: usize,
    },
    /// The version is known, its content is not.
    #[error("the content of {object:?} ({version}) is not in the vault: {reason}")]
    Lost {
        /// The key.
        object: String,
        /// Its version.
        version: String,
        /// Why not.
        reason: String,
    },
}

fn removed_at(removed: Timestamp) -> String {
    format!(": it was gone by {removed}")
}

fn others(there: &[String]) -> String {
    if there.is_empty() { ", nor any other".to_owned() } else { format!("; there were: {}", there.join(", ")) }
}

/// An object as it was, with what is not certain of it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its version.
    pub version: ObjectVersion,
    /// What nobody can say: of this version, or, where the current one was asked for, of others that may have been it.
    pub uncertain: Vec<Uncertain>,
}

/// One object, or one version of it, as it was.
///
/// # Errors
/// [`BrowseError::NotThere`], [`BrowseError::NoVersion`]; [`BrowseError::Unknown`] where it may have been there.
pub async fn find(vault: &Vault, inputs: Inputs, at: Timestamp, object: &str, version: Option<&str>) -> Result<Found, BrowseError> {
    let keep = if version.is_some() { Keep::Live } else { Keep::Current };
    let (mut found, mut uncertain) = State::new(vault, inputs, Cut::At(at), keep, object).await?.object(object).await?;
    let position = match version {
        None => found.len().checked_sub(1),
        Some(id) => {
            uncertain.retain(|uncertain| uncertain.version == id);
            found.iter().position(|found| found.version == id && !found.marker)
        }
    };
    if let Some(position) = position {
        return Ok(Found { version: found.swap_remove(position), uncertain });
    }
    let object = object.to_owned();
    Err(match version {
        _ if !uncertain.is_empty() => {
            let reasons: Vec<String> = uncertain.iter().map(|of| format!("{} ({})", of.reason, of.version)).collect();
            BrowseError::Unknown { object, at, reason: reasons.join("; ") }
        }
        None => BrowseError::NotThere { object, at },
        Some(id) => BrowseError::NoVersion { object, version: id.to_owned(), at },
    })
}

/// The content of a version, checked as it streams by.
///
/// # Errors
/// [`BrowseError::Lost`] where the vault does not hold it.
pub async fn content(vault: &Vault, version: &ObjectVersion) -> Result<BoxStream<'static, Result<Bytes, VaultError>>, BrowseError> {
    let lost = |reason: String| BrowseError::Lost { object: version.object.clone(), version: version.version.clone(), reason };
    match &version.body {
        Some(body) => {
            let body: Body = body.parse().map_err(|error| lost(format!("{error}")))?;
            Ok(vault.read_body(&body, version.digest).await?)
        }
        None => Err(lost(version.lost.clone().unwrap_or_else(|| "the vault names none".to_owned()))),
    }
}
