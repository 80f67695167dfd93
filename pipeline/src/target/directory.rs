//! A local directory as target: one file per object, and beside them what files cannot hold.
//!
//! ```text
//! <root>/photos/a.jpg                the object photos/a.jpg; see `path` for keys that are no file names
//! <root>/.hindsight/objects.jsonl    metadata, tags, ACL, version id of every object; see `record`
//! <root>/.hindsight/scratch/7        a file being written; whatever lies there when a restore begins is left over
//! <root>/.hindsight/lock             held while a restore writes; a second one is refused
//! ```
//!
//! A file is written under a scratch name, given the object's time, synced, and only then renamed to its place: a kill
//! leaves no torn file, and a hard link's other name keeps what it had. Directories are opened one name at a time and
//! never through a symbolic link, not even one that stays inside: it would make one file of two objects. Nothing is
//! created before the first write, so that a dry run leaves no trace.
//!
//! The target does small blocking calls from its async functions: this crate knows no host and no thread pool of one.
//! Hosts run restores on threads that may block.
//!
//! A symbolic link or device in place of an object counts as an object that differs: it is left, replaced or removed as
//! the mode says, itself and not what it leads to. Files whose name no key has (see [`path::decode`]) are not touched
//! in any mode. A directory holds no versions: a delete marker removes the file.

mod compare;
mod entries;
pub mod path;
pub mod record;
mod session;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File};
use fail::fail_point;
use futures::StreamExt as _;

use self::compare::Lines;
use self::entries::{find, open_file, survey};
use self::record::{Known, Record};
use self::session::{Begin, Placed, Session, read_known};
use super::{ExistingObject, Occupied, Survey, Target, TargetError, WantedObject, Written, exactly};
use crate::model::checksum::Verifier;
use crate::model::digest::Hasher;
use crate::s3::Content;
use crate::vault::body::Whole;
use crate::vault::directory::{is_settled, make};
use crate::vault::{layout, record as record_of_vault};

const LOCK: &str = "lock";
const OBJECTS: &str = "objects.jsonl";
const SCRATCH: &str = "scratch";
/// How much of a file is read at once to compare it.
const READ_BYTES: usize = 256 << 10;

/// A local directory that a restore writes to.
pub struct DirectoryTarget {
    root: PathBuf,
    known: Mutex<Known>,
    /// Read when somebody compares.
    lines: Mutex<Option<Lines>>,
    /// There from the first write on.
    session: Mutex<Option<Arc<Session>>>,
}

/// Whether a directory is a vault: whether the record of one lies in it.
fn is_vault(folder: &Path) -> bool {
    std::fs::File::open(folder.join(layout::VAULT)).is_ok_and(is_vault_record)
}

/// Whether a file of that name is the record of a vault.
fn is_vault_record(mut file: impl io::Read) -> bool {
    let mut begin = [0; record_of_vault::BEGINS.len()];
    file.read_exact(&mut begin).is_ok() && begin == *record_of_vault::BEGINS.as_bytes()
}

/// The vault in which a path lies, or would lie once it is made. Links are followed as far as there is anything.
pub fn vault_around(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find_map(|path| path.canonicalize().ok())?;
    existing.ancestors().find(|folder| is_vault(folder)).map(Path::to_owned)
}

impl DirectoryTarget {
    /// The directory at this path. It need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> DirectoryTarget {
        DirectoryTarget { root: root.into(), known: Mutex::default(), lines: Mutex::default(), session: Mutex::default() }
    }

    fn refused(&self, reason: impl Into<String>) -> TargetError {
        TargetError::Refused { target: self.name(), reason: reason.into() }
    }

    fn unusable(&self, error: &io::Error) -> TargetError {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return self.refused("this user may not write there");
        }
        TargetError::Unusable { target: self.name(), reason: error.to_string(), transient: is_transient(error) }
    }

    /// Nothing more can be restored to it.
    fn gone(&self, what: &str) -> TargetError {
        let reason = format!("{what}; ask for it again, and what is missing is written");
        TargetError::Unusable { target: self.name(), reason, transient: false }
    }

    fn object_error(&self, object: &str, error: &io::Error) -> TargetError {
        // No other object would fare better.
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                return self.refused("its disk is full; make room and ask for it again: it goes on where it stopped");
            }
            io::ErrorKind::ReadOnlyFilesystem => return self.refused("its file system can only be read"),
            _ => {}
        }
        let (target, object) = (self.name(), object.to_owned());
        TargetError::Object { target, object, reason: error.to_string(), transient: is_transient(error) }
    }

    /// A vault is no place for a restore: what is put there would be taken for a part of it, and what is removed is lost.
    fn check_outside_of_vaults(&self) -> Result<(), TargetError> {
        is_settled(&self.root).map_err(|error| self.refused(error.to_string()))?;
        let path = std::path::absolute(&self.root).map_err(|error| self.unusable(&error))?;
        match vault_around(&path) {
            Some(vault) => Err(self.refused(format!("{} is a vault; choose a directory outside of it", vault.display()))),
            None => Ok(()),
        }
    }

    /// The root; none where it does not exist yet.
    fn root(&self) -> Result<Option<Dir>, TargetError> {
        match Dir::open_ambient_dir(&self.root, ambient_authority()) {
            Ok(root) => Ok(Some(root)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(self.refused("it is not a directory")),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(self.refused("this user may not open it")),
            Err(error) => Err(self.unusable(&error)),
        }
    }

    /// Makes the root and our own directory, once, and takes the lock.
    fn session(&self) -> Result<Arc<Session>, TargetError> {
        let mut session = held(&self.session);
        if let Some(session) = &*session {
            if !session.is_at(&self.root) {
                return Err(self.gone("it was moved, removed or replaced while this restore wrote to it"));
            }
            return Ok(session.clone());
        }
        let (target, transient) = (self.name(), false);
        make(&self.root).map_err(|error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            TargetError::Unusable { target, reason, transient }
        })?;
        let root = self.root()?.ok_or_else(|| self.refused("it was removed meanwhile"))?;
        let begun = Session::begin(root).map_err(|begin| match begin {
            Begin::Refused(reason) => self.refused(reason),
            Begin::Io(error) => self.unusable(&error),
        })?;
        *held(&self.known) = begun.known().map_err(|error| self.unusable(&error))?;
        let begun = Arc::new(begun);
        *session = Some(begun.clone());
        Ok(begun)
    }

    /// Compares the file with what is wanted, content and all.
    fn compare(&self, wanted: &WantedObject) -> io::Result<bool> {
        let Some(root) = self.root().map_err(io::Error::other)? else {
            return Ok(false);
        };
        // Cheapest first: the record, the length, the content.
        if (wanted.digest.is_none() && wanted.checksums.is_empty()) || !held(&self.known).has(&Record::of(wanted)) {
            return Ok(false);
        }
        let Some((directory, name)) = find(&root, &wanted.object)? else {
            return Ok(false);
        };
        let Some(file) = open_file(&directory, &name)? else {
            return Ok(false);
        };
        if file.metadata()?.len() != wanted.size {
            return Ok(false);
        }
        has_content(file, wanted)
    }
}

#[async_trait]
impl Target for DirectoryTarget {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn identity(&self) -> String {
        std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone()).display().to_string()
    }

    async fn open(&self) -> Result<Occupied, TargetError> {
        self.check_outside_of_vaults()?;
        let Some(root) = self.root()? else { return Ok(Occupied::Empty) };
        let mut holds = false;
        for entry in root.entries().map_err(|error| self.unusable(&error))? {
            holds |= entry.map_err(|error| self.unusable(&error))?.file_name() != path::OWN;
        }
        *held(&self.known) = read_known(&root).map_err(|error| self.unusable(&error))?;
        Ok(if holds { Occupied::Holds } else { Occupied::Empty })
    }

    fn keeps_versions(&self) -> bool {
        false
    }

    async fn survey(&self, wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync)) -> Result<Survey, TargetError> {
        let Some(root) = self.root()? else { return Ok(Survey::default()) };
        survey(&root, wanted).map_err(|error| self.unusable(&error))
    }

    async fn is_same(&self, wanted: &WantedObject, _existing: &ExistingObject) -> Result<bool, TargetError> {
        self.compare(wanted).map_err(|error| self.object_error(&wanted.object, &error))
    }

    async fn is_unfinished(&self, wanted: &WantedObject, _existing: &ExistingObject) -> Result<bool, TargetError> {
        let is_same = self.is_same_file(wanted).map_err(|error| self.object_error(&wanted.object, &error))?;
        Ok(is_same.unwrap_or(true))
    }

    /// Files cost no requests.
    fn requests(&self, _wanted: Option<&WantedObject>) -> u64 {
        0
    }

    async fn write(&self, wanted: &WantedObject, content: Content) -> Result<Written, TargetError> {
        let session = self.session()?;
        if wanted.marker {
            self.remove(&wanted.object).await?;
            let left_out = vec!["delete marker: a directory keeps no versions".to_owned()];
            return Ok(Written { left_out, ..Written::default() });
        }
        let failed = |error: io::Error| self.object_error(&wanted.object, &error);
        let mut scratch = session.scratch().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.gone("its folder .hindsight was removed while this restore wrote to it"),
            _ => failed(error),
        })?;
        let mut content = exactly(content, wanted.size);
        while let Some(piece) = content.next().await {
            let piece = piece.map_err(|error| TargetError::Object {
                target: self.name(),
                object: wanted.object.clone(),
                transient: error.is_transient(),
                reason: error.to_string(),
            })?;
            scratch.file.write_all(&piece).map_err(failed)?;
        }
        scratch.finish(wanted.at).map_err(failed)?;
        fail_point!("directory::before-rename");
        let moved = match session.place(scratch, &wanted.object, wanted.creates).map_err(failed)? {
            Placed::There { moved } => moved,
            // It is there from an attempt that came no further, or from somebody else.
            Placed::Exists if self.is_same_file(wanted).map_err(failed)? == Some(true) => Vec::new(),
            Placed::Exists => return Err(TargetError::Exists { target: self.name(), object: wanted.object.clone() }),
        };
        fail_point!("directory::before-record");
        // Last: a kill before leaves a file without its record, which is no reason to take it for the same.
        session.record(&Record::of(wanted), &self.known).map_err(failed)?;
        let is_known = |path: &String| path::decode(path).is_some_and(|object| held(&self.known).knows(&object));
        let told =
            |path: String| format!("a file that no restore wrote stood where its folder is, and is called {} now", path::beside(&path));
        Ok(Written { left_out: moved.into_iter().filter(|path| !is_known(path)).map(told).collect(), ..Written::default() })
    }

    /// No server copies into a directory.
    async fn copy(&self, _wanted: &WantedObject, _whole: &Whole, _key: &str) -> Result<Option<Written>, TargetError> {
        Ok(None)
    }

    async fn remove(&self, object: &str) -> Result<(), TargetError> {
        let failed = |error: io::Error| self.object_error(object, &error);
        let session = self.session()?;
        if session.remove(object).map_err(failed)? {
            session.record(&Record::removal(object), &self.known).map_err(failed)?;
        }
        Ok(())
    }
}

/// Whether a file comes to the digest that is wanted, or, where nobody knows that, to the checksums.
fn has_content(mut file: File, wanted: &WantedObject) -> io::Result<bool> {
    let (mut hasher, mut verifier, mut buffer) = (Hasher::default(), Verifier::new(&wanted.checksums), vec![0; READ_BYTES]);
    loop {
        let count = file.read(&mut buffer)?;
        match (count, &wanted.digest) {
            (0, Some(digest)) => return Ok(hasher.finish().to_string() == *digest),
            (0, None) => return Ok(verifier.finish().is_ok()),
            (count, Some(_)) => hasher.update(&buffer[..count]),
            (count, None) => verifier.update(&buffer[..count]),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | TimedOut | WouldBlock)
}

/// Nothing that is held panics halfway through a change.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
