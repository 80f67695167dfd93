//! Making a vault: what a store must promise before anything is entrusted to it.
//!
//! Everything in a vault rests on one promise: of two who create the same name exactly one wins, and what the winner
//! wrote stays. It is tried out, not believed, when a vault is made; a store that breaks it is refused. What was found
//! stands in the file `vault`, so that everybody who opens it can see that it is one.
//!
//! ```text
//!  two creates of one name ─→ one New, one Existed ─→ a range of it ─→ a listing with it ─→ the record
//! ```

use bytes::Bytes;
use fail::fail_point;
use futures::future::join_all;
use pipeline::model::Timestamp;
use pipeline::vault::record::{FORMAT_VERSION, Record, encode};
use pipeline::vault::{Created, Vault, VaultError, layout};
use serde::{Deserialize, Serialize};

/// What a vault says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRecord {
    /// Tells it from every other vault.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// The format version of the program that made it.
    pub format: u32,
    /// What its store was found to do then.
    pub store: Promises,
}

impl Record for VaultRecord {
    const KIND: &'static str = "vault";
}

/// What a store was found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    /// Of several creates of one name one wins, and its content stays.
    pub create_if_absent: bool,
    /// A part of a file can be read.
    pub ranged_get: bool,
    /// A listing shows what was just written.
    pub lists_at_once: bool,
}

/// Why there is no vault.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing says that this is a vault.
    #[error("there is no vault at this place; `hindsight protect` makes one")]
    NoVault,
    /// The store does not do what a vault needs.
    #[error("this store cannot hold a vault: {broken}")]
    Unfit {
        /// The promise that it broke, and how.
        broken: String,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// The folder name of what trying out a store leaves behind: nothing is ever deleted here.
const PROBES: &str = "probe";
/// How many create the same name at the same time.
const RIVALS: usize = 2;

/// What a vault says of itself.
///
/// # Errors
/// [`OpenError::NoVault`] where there is none.
pub async fn open(vault: &Vault) -> Result<VaultRecord, OpenError> {
    match vault.read_record(layout::VAULT).await {
        Err(VaultError::Missing { .. }) => Err(OpenError::NoVault),
        read => Ok(read?),
    }
}

/// Opens a vault, or makes one. `id` must be new; it becomes the vault's name for itself if one is made.
///
/// # Errors
/// [`OpenError::Unfit`] for a store that must not be used.
pub async fn create(vault: &Vault, id: &str, now: Timestamp) -> Result<VaultRecord, OpenError> {
    match open(vault).await {
        Err(OpenError::NoVault) => {}
        known => return known,
    }
    let record = VaultRecord { id: id.to_owned(), created: now, format: FORMAT_VERSION, store: probe(vault, id).await? };
    fail_point!("vault::before-record");
    match vault.create(layout::VAULT, encode(layout::VAULT, &record)).await? {
        Created::New => Ok(record),
        // Somebody made it at the same moment, or the reply to our own first try was lost.
        Created::Existed => open(vault).await,
    }
}

/// Tries out a store under a name that nobody has used.
///
/// # Errors
/// [`OpenError::Unfit`] names the promise that it broke.
pub async fn probe(vault: &Vault, id: &str) -> Result<Promises, OpenError> {
    let unfit = |broken: String| OpenError::Unfit { broken };
    let folder = format!("{}/{id}", layout::states_folder(PROBES));
    let path = format!("{folder}/rivals");
    let contents: Vec<Bytes> = (0..RIVALS).map(|rival| Bytes::from(format!("probe of rival {rival}"))).collect();
    let outcomes = join_all(contents.iter().map(|content| vault.create(&path, content.clone()))).await;
    let outcomes: Vec<Created> = outcomes.into_iter().collect::<Result<_, _>>()?;
    let winners: Vec<usize> = (0..RIVALS).filter(|&rival| outcomes[rival] == Created::New).collect();
    let [winner] = winners[..] else {
        let reason = format!(
            "{RIVALS} created the same name at once and {} were told that they had; it needs an atomic create-if-absent",
            winners.len()
        );
        return Err(unfit(reason));
    };
    let late = vault.create(&path, Bytes::from_static(b"probe of one who came late")).await?;
    if late == Created::New || vault.read(&path).await? != contents[winner] {
        return Err(unfit(
            "what had been created was overwritten by another create of the same name; it needs an atomic create-if-absent".to_owned(),
        ));
    }
    if vault.read_range(&path, 3..9).await? != contents[winner].slice(3..9) {
        return Err(unfit("a range of a file is not that part of it".to_owned()));
    }
    let listed = vault.list(&folder).await?;
    if listed.iter().all(|file| file.path != path || file.size != contents[winner].len() as u64) {
        return Err(unfit("a listing does not show what was just written".to_owned()));
    }
    Ok(Promises { create_if_absent: true, ranged_get: true, lists_at_once: true })
}
