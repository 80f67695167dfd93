//! A vault: a prefix of an object store that holds everything needed to restore.
//!
//! Objects in it are written once, under names that say what they hold, and read back through a check of their
//! digest before anything parses them; the one exception, contents that the server copied, is in [`whole`]. Only
//! create-if-absent, ranged get and list are used here; nothing here deletes. Paths are
//! written and parsed in [`layout`] and nowhere else.

pub mod ahead;
pub mod body;
pub mod directory;
pub mod layout;
mod numbers;
pub mod pack;
pub mod record;
mod store_error;
pub mod whole;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

pub use self::store_error::StoreError;
use crate::model::Digest;

/// A vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// A listing comes in pages and in order, each a request.
    is_paged: bool,
    /// The newest numbers that are known, by folder.
    numbers: Arc<Mutex<HashMap<String, u64>>>,
}

/// A file that something in the vault rests on: it must be there, and be exactly this.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileRef {
    /// Its path within the vault.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub digest: Digest,
}

/// What a listing says of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its path within the vault.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
}

/// What became of a create-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is there now, by us.
    New,
    /// It was there already. Nothing was changed.
    Existed,
}

/// Why a vault did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Nothing by that name.
    #[error("{path} is missing from the vault")]
    Missing {
        /// The path within the vault.
        path: String,
    },
    /// The content is not what was written: its digest, its form or its references do not hold.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The path within the vault.
        path: String,
        /// What does not hold.
        reason: String,
    },
    /// Written by a version of Hindsight that this one does not know.
    #[error("{path} has format version {found}; this program reads up to {known}: upgrade it")]
    Unknown {
        /// The path within the vault.
        path: String,
        /// The version found.
        found: u32,
        /// The highest version known here.
        known: u32,
    },
    /// The object store refused or broke; it may work when tried again.
    #[error("the vault's store could not {what} {path}")]
    Store {
        /// What was attempted.
        what: &'static str,
        /// The path within the vault.
        path: String,
        /// What the store says.
        source: StoreError,
    },
}

impl VaultError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, VaultError::Store { .. })
    }

    /// Whether the store gives and does not take: it may be read, and nothing may be written.
    pub fn is_read_only(&self) -> bool {
        matches!(self, VaultError::Store { what: "write", source, .. } if source.is_read_only())
    }

    /// A [`VaultError::Damaged`] from anything that explains itself.
    pub fn damaged(path: &str, reason: impl fmt::Display) -> VaultError {
        VaultError::Damaged { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({}/{})", self.store, self.prefix)
    }
}

impl Vault {
    /// The vault under `prefix` of `store`. Nothing is read or written yet.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Vault {
        Vault { store, prefix: Path::from(prefix), is_paged: false, numbers: Arc::default() }
    }

    /// The same of a store that lists in order and in pages, each a request, as S3 does: where a part of a folder is enough the
    /// rest is not listed.
    #[must_use]
    pub fn paged(self) -> Vault {
        Vault { is_paged: true, ..self }
    }

    /// The name by which the store has the file at `path`.
    pub fn key_of(&self, path: &str) -> String {
        self.locate(path).into()
    }

    fn locate(&self, path: &str) -> Path {
        // Our own paths are plain ASCII segments: joining is concatenation, and there is nothing to escape. One that somebody
        // else wrote into a record may be anything.
        let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/=-_.".contains(&byte));
        let whole = if self.prefix.as_ref().is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) };
        Path::parse(&whole).ok().filter(|_| is_plain).unwrap_or_else(|| Path::from(whole))
    }

    fn relative(&self, location: Path) -> String {
        let prefix = self.prefix.as_ref();
        if prefix.is_empty() {
            return location.into();
        }
        let full = location.as_ref();
        full.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).unwrap_or(full).to_owned()
    }

    /// Writes `bytes` at `path` unless something is there.
    ///
    /// # Errors
    /// [`VaultError::Store`]; the write may or may not have happened, and doing it again is safe.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<Created, VaultError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.locate(path), PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Existed),
            Err(source) => Err(VaultError::Store { what: "write", path: path.to_owned(), source: source.into() }),
        }
    }

    /// Writes a file whose name is made of its content; that it is there already is success.
    ///
    /// # Errors
    /// As [`Vault::create`] and [`Vault::read_checked`]: what is there already may have been damaged since.
    pub async fn create_named_by_content(&self, path: &str, bytes: Bytes) -> Result<FileRef, VaultError> {
        let file = FileRef { path: path.to_owned(), size: bytes.len() as u64, digest: Digest::of(&bytes) };
        if self.create(path, bytes).await? == Created::Existed {
            // Seldom, and then it is about to be relied on.
            self.read_checked(&file).await?;
        }
        Ok(file)
    }

    /// The whole content of `path`, unchecked: for files that carry their own check.
    ///
    /// # Errors
    /// [`VaultError::Missing`] and [`VaultError::Store`].
    pub async fn read(&self, path: &str) -> Result<Bytes, VaultError> {
        let fail = |source| VaultError::from_store("read", path, source);
        let found = self.store.get(&self.locate(path)).await.map_err(fail)?;
        found.bytes().await.map_err(fail)
    }

    /// The whole content of a file that something rests on, checked against size and digest.
    ///
    /// # Errors
    /// As [`Vault::read`]; [`VaultError::Damaged`] when it is not what was written.
    pub async fn read_checked(&self, file: &FileRef) -> Result<Bytes, VaultError> {
        let bytes = self.read(&file.path).await?;
        if bytes.len() as u64 != file.size {
            return Err(VaultError::damaged(&file.path, format!("it has {} bytes instead of {}", bytes.len(), file.size)));
        }
        let digest = Digest::of(&bytes);
        if digest != file.digest {
            return Err(VaultError::damaged(&file.path, format!("its SHA-256 is {digest} instead of {}", file.digest)));
        }
        Ok(bytes)
    }

    /// A range of `path`, unchecked: the caller holds a digest of it.
    ///
    /// # Errors
    /// [`VaultError::Missing`], [`VaultError::Store`], and [`VaultError::Damaged`] when the file ends before the range does.
    pub async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, VaultError> {
        // Stores refuse to read nothing.
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let fail = |source| VaultError::from_store("read", path, source);
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let cut_short = || VaultError::damaged(path, format!("bytes {} to {} are not all there", range.start, range.end));
        let found = match self.store.get_opts(&self.locate(path), options).await.map_err(fail) {
            // Asking again would not make it longer.
            Err(VaultError::Store { source, .. }) if source.is_behind_the_end() => return Err(cut_short()),
            found => found?,
        };
        let bytes = found.bytes().await.map_err(fail)?;
        let expected = range.end - range.start;
        if bytes.len() as u64 == expected { Ok(bytes) } else { Err(cut_short()) }
    }

    /// The length of `path` in bytes.
    ///
    /// # Errors
    /// [`VaultError::Missing`] and [`VaultError::Store`].
    pub async fn size(&self, path: &str) -> Result<u64, VaultError> {
        let found = self.store.head(&self.locate(path)).await.map_err(|source| VaultError::from_store("look at", path, source))?;
        Ok(found.size)
    }

    /// All files under `folder`, by path.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn list(&self, folder: &str) -> Result<Vec<Listed>, VaultError> {
        let fail = |source| VaultError::listing(folder, source);
        let entries =
            self.store.list(Some(&self.locate(folder))).map_ok(|meta| Listed { path: self.relative(meta.location), size: meta.size });
        let mut listed: Vec<Listed> = entries.try_collect().await.map_err(fail)?;
        listed.sort();
        Ok(listed)
    }

    /// All files under `folder` whose path is greater than `after`, by path.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn list_after(&self, folder: &str, after: &str) -> Result<Vec<Listed>, VaultError> {
        let fail = |source| VaultError::listing(folder, source);
        let from = self.locate(after);
        let entries = self
            .store
            .list_with_offset(Some(&self.locate(folder)), &from)
            .map_ok(|meta| Listed { path: self.relative(meta.location), size: meta.size });
        let mut listed: Vec<Listed> = entries.try_collect().await.map_err(fail)?;
        listed.sort();
        Ok(listed)
    }

    /// The files directly in `folder`, by path: none of those in folders within.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn list_flat(&self, folder: &str) -> Result<Vec<Listed>, VaultError> {
        let fail = |source| VaultError::listing(folder, source);
        let found = self.store.list_with_delimiter(Some(&self.locate(folder))).await.map_err(fail)?;
        let mut listed: Vec<Listed> =
            found.objects.iter().map(|meta| Listed { path: self.relative(meta.location.clone()), size: meta.size }).collect();
        listed.sort();
        Ok(listed)
    }

    /// The names of the folders directly under `folder`.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, VaultError> {
        let fail = |source| VaultError::listing(folder, source);
        let found = self.store.list_with_delimiter(Some(&self.locate(folder))).await.map_err(fail)?;
        let mut names: Vec<String> = found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }
}

impl VaultError {
    fn listing(folder: &str, source: object_store::Error) -> VaultError {
        VaultError::Store { what: "list", path: folder.to_owned(), source: source.into() }
    }

    fn from_store(what: &'static str, path: &str, source: object_store::Error) -> VaultError {
        let is_missing = matches!(source, object_store::Error::NotFound { .. });
        let source = StoreError::from(source);
        // Where the whole bucket is missing, nothing can be said of one file.
        match is_missing && source.hindrance().is_none() {
            true => VaultError::Missing { path: path.to_owned() },
            false => VaultError::Store { what, path: path.to_owned(), source },
        }
    }
}
