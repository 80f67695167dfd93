//! Making a vault: what a store must promise before anything is entrusted to it.
//!
//! Everything in a vault rests on one promise: of two who create the same name exactly one wins, and what the winner
//! wrote stays. It is tried out, not believed, when a vault is made; a store that breaks it is refused. What was found
//! stands in the file `vault`, so that everybody who opens it can see that it is one.
//!
//! ```text
//!  two creates of one name ─→ one New, one Existed ─→ a range of it ─→ a listing with it ─┐
//!  of a bucket: a put with a wrong SHA-256 ─→ refused, or taken ──────────────────────────┴→ the record
//! ```
//!
//! Whether checksums are checked on the way in is no condition: whoever reads a vault checks what it reads, always. It is said, because
//! what was damaged on its way is then noticed when it is read, and not when it could have been sent again.

use std::fmt;

use bytes::Bytes;
use fail::fail_point;
use futures::future::join_all;
use pipeline::model::Timestamp;
use pipeline::s3::aws::AwsBucket;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    /// Of several creates of one name one wins, and its content stays.
    pub create_if_absent: bool,
    /// A part of a file can be read.
    pub ranged_get: bool,
    /// A listing shows what was just written.
    pub lists_at_once: bool,
    /// What becomes of a put with a wrong SHA-256. Nobody tried that of a directory, nor of vaults that were made before it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong_sha256: Option<WrongSha256>,
    /// Whether a file and the folder that names it are synced to the disk before the file counts as written; only of directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<bool>,
}

/// What a store does with a put with a wrong SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WrongSha256 {
    /// It refuses it: what is damaged on its way does not get in.
    Refused,
    /// It takes it.
    Taken,
    /// It could not be tried, for this reason.
    Untried(String),
}

/// In one line, as a person reads it.
impl fmt::Display for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const READ: &str = "every read is checked";
        let kept = [
            (self.create_if_absent, "create-if-absent"),
            (self.ranged_get, "ranged reads"),
            (self.lists_at_once, "listings at once"),
            (self.synced == Some(true), "file and folder synced"),
        ];
        let kept: Vec<&str> = kept.into_iter().filter_map(|(kept, what)| kept.then_some(what)).collect();
        write!(f, "{}; ", kept.join(", "))?;
        match (&self.wrong_sha256, self.synced) {
            (Some(WrongSha256::Refused), _) => write!(f, "a wrong SHA-256 is refused, and {READ}"),
            (Some(WrongSha256::Taken), _) => write!(f, "a wrong SHA-256 is not noticed, but {READ}"),
            (Some(WrongSha256::Untried(reason)), _) => write!(f, "whether a wrong SHA-256 is refused is not known ({reason}), but {READ}"),
            (None, Some(true)) => write!(f, "no checksums of its own, but {READ}"),
            (None, _) => write!(f, "whether a wrong SHA-256 is refused was not tried, but {READ}"),
        }
    }
}

/// The kind of a vault's store: what can be tried, or is known, of it beyond what every store is tried for.
#[derive(Debug, Clone)]
pub enum StoreKind {
    /// A directory, through [`pipeline::vault::directory`].
    Directory,
    /// An S3 bucket: this one.
    Bucket(AwsBucket),
    /// Anything else, such as memory.
    Other,
}

/// Why there is no vault.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing says that this is a vault.
    #[error(
        "there is no vault at this place: is it written right, and its disk mounted? Where there has been none, `hindsight protect` makes one"
    )]
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
pub async fn create(vault: &Vault, kind: &StoreKind, id: &str, now: Timestamp) -> Result<VaultRecord, OpenError> {
    match open(vault).await {
        Err(OpenError::NoVault) => {}
        known => return known,
    }
    let record = VaultRecord { id: id.to_owned(), created: now, format: FORMAT_VERSION, store: probe(vault, kind, id).await? };
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
pub async fn probe(vault: &Vault, kind: &StoreKind, id: &str) -> Result<Promises, OpenError> {
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
    let (wrong_sha256, synced) = match kind {
        StoreKind::Directory => (None, Some(true)),
        StoreKind::Bucket(bucket) => (Some(try_wrong_sha256(bucket, &vault.key_of(&format!("{folder}/wrong-sha256"))).await), None),
        StoreKind::Other => (None, None),
    };
    Ok(Promises { create_if_absent: true, ranged_get: true, lists_at_once: true, wrong_sha256, synced })
}

/// That it cannot be tried keeps nobody from a vault, which does not rest on it.
async fn try_wrong_sha256(bucket: &AwsBucket, key: &str) -> WrongSha256 {
    match bucket.takes_wrong_sha256(key).await {
        Ok(true) => WrongSha256::Taken,
        Ok(false) => WrongSha256::Refused,
        Err(error) => WrongSha256::Untried(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promises(wrong_sha256: Option<WrongSha256>, synced: Option<bool>) -> Promises {
        Promises { create_if_absent: true, ranged_get: true, lists_at_once: true, wrong_sha256, synced }
    }

    #[test]
    fn what_a_store_promises_is_one_line() {
        for (wrong_sha256, synced, expected) in [
            (Some(WrongSha256::Refused), None, "; a wrong SHA-256 is refused, and every read is checked"),
            (Some(WrongSha256::Taken), None, "; a wrong SHA-256 is not noticed, but every read is checked"),
            (
                Some(WrongSha256::Untried("no answer".to_owned())),
                None,
                "; whether a wrong SHA-256 is refused is not known (no answer), but",
            ),
            (None, Some(true), ", file and folder synced; no checksums of its own, but every read is checked"),
            (None, None, "; whether a wrong SHA-256 is refused was not tried, but every read is checked"),
        ] {
            let shown = promises(wrong_sha256, synced).to_string();
            assert!(shown.starts_with(&format!("create-if-absent, ranged reads, listings at once{expected}")), "{shown}");
        }
    }

    #[test]
    fn the_record_of_a_vault_that_was_made_before_is_read_and_written_as_it_is() {
        let before = r#"{"id":"a","created":"2026-08-22T12:00:00Z","format":1,"store":{"create_if_absent":true,"ranged_get":true,"lists_at_once":true}}"#;
        let record: VaultRecord = serde_json::from_str(before).unwrap();
        assert_eq!(record.store, promises(None, None));
        assert_eq!(serde_json::to_string(&record).unwrap(), before);
        for kept in [Some(WrongSha256::Refused), Some(WrongSha256::Taken), Some(WrongSha256::Untried("why".to_owned()))] {
            let text = serde_json::to_string(&promises(kept.clone(), None)).unwrap();
            assert_eq!(serde_json::from_str::<Promises>(&text).unwrap().wrong_sha256, kept, "{text}");
        }
    }
}
