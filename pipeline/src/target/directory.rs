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
pub mod path;
pub mod record;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, MetadataExt as _, OpenOptions};
use fail::fail_point;
use futures::StreamExt as _;

use self::compare::Lines;
use self::record::{Known, Record, Records};
use super::{ExistingObject, Occupied, Target, TargetError, WantedObject, Written, exactly};
use crate::model::Timestamp;
use crate::model::checksum::Verifier;
use crate::model::digest::Hasher;
use crate::s3::Content;
use crate::vault::body::Whole;
use crate::vault::directory::make;

const LOCK: &str = "lock";
const OBJECTS: &str = "objects.jsonl";
const SCRATCH: &str = "scratch";
/// How much of a file is read at once to compare it.
const READ_BYTES: usize = 256 << 10;
/// How many directories are remembered as durable; beyond, they are forgotten and synced once more.
const SYNCED_DIRECTORIES_MAX: usize = 1 << 20;

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
    const BEGINS: &[u8] = b"hindsight ";
    let mut begin = [0; BEGINS.len()];
    let read = std::fs::File::open(folder.join(crate::vault::layout::VAULT)).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == BEGINS
}

/// What is held while a restore writes.
struct Session {
    root: Dir,
    scratch: Arc<Dir>,
    next_scratch: AtomicU64,
    records: Mutex<Records>,
    /// Held while directories are made and removed and files are put in their places; says which directories are durable.
    places: Mutex<Synced>,
    _lock: std::fs::File,
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
        let path = std::path::absolute(&self.root).map_err(|error| self.unusable(&error))?;
        let existing = path.ancestors().find_map(|path| path.canonicalize().ok()).unwrap_or(path);
        match existing.ancestors().find(|folder| is_vault(folder)) {
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
            return Ok(session.clone());
        }
        let (target, transient) = (self.name(), false);
        make(&self.root).map_err(|error| TargetError::Unusable { target, reason: error.to_string(), transient })?;
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

    async fn survey(&self, wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync)) -> Result<BTreeMap<String, ExistingObject>, TargetError> {
        let Some(root) = self.root()? else { return Ok(BTreeMap::new()) };
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
        let mut scratch = session.scratch().map_err(failed)?;
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
        session.place(scratch, &wanted.object).map_err(failed)?;
        fail_point!("directory::before-record");
        // Last: a kill before leaves a file without its record, which is no reason to take it for the same.
        session.record(&Record::of(wanted), &self.known).map_err(failed)?;
        Ok(Written::default())
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

/// Why a session could not begin.
enum Begin {
    Refused(String),
    Io(io::Error),
}

impl From<io::Error> for Begin {
    fn from(error: io::Error) -> Begin {
        Begin::Io(error)
    }
}

impl Session {
    fn begin(root: Dir) -> Result<Session, Begin> {
        let own = own_directory(&root, path::OWN)?;
        let lock = open_own(&own, LOCK)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(Begin::Refused("another restore is writing to it".to_owned())),
            Err(std::fs::TryLockError::Error(error)) => return Err(Begin::Io(error)),
        }
        // Two keys that differ only in case would be one file.
        if own.symlink_metadata(LOCK.to_uppercase()).is_ok() {
            return Err(Begin::Refused("its file system does not tell upper case from lower case, as object keys do".to_owned()));
        }
        let records = Records::new(open_own(&own, OBJECTS)?)?;
        let scratch = own_directory(&own, SCRATCH)?;
        // We hold the lock: these are left over from a restore that was killed.
        for entry in scratch.entries()? {
            scratch.remove_file(entry?.file_name())?;
        }
        sync(&own)?;
        sync(&root)?;
        Ok(Session {
            root,
            scratch: Arc::new(scratch),
            next_scratch: AtomicU64::new(0),
            records: Mutex::new(records),
            places: Mutex::default(),
            _lock: lock,
        })
    }

    /// What is recorded by now, that is, since we hold the lock.
    fn known(&self) -> io::Result<Known> {
        read_known(&self.root)
    }

    fn scratch(&self) -> io::Result<Scratch> {
        let name = self.next_scratch.fetch_add(1, Ordering::Relaxed).to_string();
        let file = self.scratch.open_with(&name, OpenOptions::new().write(true).create_new(true))?.into_std();
        Ok(Scratch { directory: self.scratch.clone(), name, file })
    }

    /// Renames a finished file to the object's place; it is durable when this comes back.
    fn place(&self, scratch: Scratch, object: &str) -> io::Result<()> {
        let plain = path::encode(object);
        let (parents, leaf) = split(&plain);
        let mut places = held(&self.places);
        let mut directory = self.root.try_clone()?;
        for end in ends(parents) {
            directory = make_directory(directory, &parents[..end], &mut places)?;
        }
        // A directory of that name holds other objects; the file goes beside it.
        let is_directory = matches!(look(&directory, leaf)?, Entry::Directory(_));
        let (name, other) = if is_directory { (path::beside(leaf), None) } else { (leaf.to_owned(), Some(path::beside(leaf))) };
        self.scratch.rename(&scratch.name, &directory, &name)?;
        if let Some(other) = other.filter(|other| directory.symlink_metadata(other).is_ok()) {
            // From a time when there was a directory. It goes when what takes its place is there for good.
            sync(&directory)?;
            remove_file(&directory, &other)?;
        }
        drop(places);
        sync(&directory)
    }

    /// Removes an object's file and the directories that hold nothing then. Says whether there was a file.
    fn remove(&self, object: &str) -> io::Result<bool> {
        let plain = path::encode(object);
        let (parents, leaf) = split(&plain);
        let mut places = held(&self.places);
        let Some(mut chain) = open_chain(&self.root, parents)? else {
            return Ok(false);
        };
        let Some(directory) = chain.last() else { return Ok(false) };
        let mut removed = remove_file(directory, &path::beside(leaf))?;
        if !matches!(look(directory, leaf)?, Entry::Directory(_)) {
            removed |= remove_file(directory, leaf)?;
        }
        if !removed {
            return Ok(false);
        }
        sync(directory)?;
        let mut ends: Vec<usize> = ends(parents).collect();
        while let Some(end) = ends.pop() {
            chain.pop();
            let (Some(parent), (_, name)) = (chain.last(), split(&parents[..end])) else {
                break;
            };
            // Not empty: it holds other objects.
            if parent.remove_dir(name).is_err() {
                break;
            }
            places.forget(&parents[..end]);
            sync(parent)?;
        }
        Ok(true)
    }

    fn record(&self, record: &Record, known: &Mutex<Known>) -> io::Result<()> {
        let mut records = held(&self.records);
        records.append(record, &mut held(known))
    }
}

/// A file being written, removed again unless it was renamed to its place.
struct Scratch {
    directory: Arc<Dir>,
    name: String,
    file: std::fs::File,
}

impl Scratch {
    /// Gives the file its time and makes it durable.
    fn finish(&mut self, at: Timestamp) -> io::Result<()> {
        let micros = Duration::from_micros(at.micros().unsigned_abs());
        let modified = if at.micros() < 0 { UNIX_EPOCH.checked_sub(micros) } else { UNIX_EPOCH.checked_add(micros) };
        if let Some(modified) = modified {
            self.file.set_modified(modified)?;
        }
        self.file.sync_all()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Gone already where it was renamed; what cannot be removed now is removed by the next restore.
        let _ = self.directory.remove_file(&self.name);
    }
}

/// Directories whose entry in their parent is durable, as hashes of their paths.
#[derive(Debug, Default)]
struct Synced {
    paths: HashSet<u64>,
}

impl Synced {
    fn has(&self, path: &str) -> bool {
        self.paths.contains(&xxhash_rust::xxh3::xxh3_64(path.as_bytes()))
    }

    fn put(&mut self, path: &str) {
        if self.paths.len() >= SYNCED_DIRECTORIES_MAX {
            self.paths.clear();
        }
        self.paths.insert(xxhash_rust::xxh3::xxh3_64(path.as_bytes()));
    }

    fn forget(&mut self, path: &str) {
        self.paths.remove(&xxhash_rust::xxh3::xxh3_64(path.as_bytes()));
    }
}

/// What a name in a directory is.
enum Entry {
    Absent,
    Directory(Dir),
    File,
    /// A symbolic link, a device, a socket: nothing that a restore makes.
    Foreign,
}

/// Looks at one name without following it.
fn look(parent: &Dir, name: &str) -> io::Result<Entry> {
    let seen = match parent.symlink_metadata(name) {
        Ok(seen) => seen,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entry::Absent),
        Err(error) => return Err(error),
    };
    if seen.is_file() {
        return Ok(Entry::File);
    }
    if !seen.is_dir() {
        return Ok(Entry::Foreign);
    }
    let directory = parent.open_dir(name)?;
    // Opening follows links; what was opened must be what was seen.
    same_node(&seen, &directory.dir_metadata()?, name)?;
    Ok(Entry::Directory(directory))
}

fn same_node(seen: &Metadata, opened: &Metadata, name: &str) -> io::Result<()> {
    if (seen.dev(), seen.ino()) == (opened.dev(), opened.ino()) {
        return Ok(());
    }
    Err(io::Error::other(format!("{name:?} was exchanged while it was opened")))
}

/// Opens a regular file without following a link; nothing where it is something else.
fn open_file(parent: &Dir, name: &str) -> io::Result<Option<File>> {
    let seen = match parent.symlink_metadata(name) {
        Ok(seen) if seen.is_file() => seen,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = parent.open(name)?;
    same_node(&seen, &file.metadata()?, name)?;
    Ok(Some(file))
}

/// Opens or makes the directory at the end of `path`, whose parent is `parent`.
fn make_directory(parent: Dir, path: &str, synced: &mut Synced) -> io::Result<Dir> {
    let (_, name) = split(path);
    let made = match look(&parent, name)? {
        Entry::Directory(directory) if synced.has(path) => return Ok(directory),
        Entry::Directory(directory) => directory,
        entry => {
            match entry {
                Entry::Foreign => {
                    return Err(io::Error::other(format!("{path:?} is a link or a device, which no restore goes through")));
                }
                // An object has the name that is a directory's now: it goes beside, and is there before its name is given away.
                Entry::File => {
                    parent.rename(name, &parent, path::beside(name))?;
                    sync(&parent)?;
                }
                Entry::Absent | Entry::Directory(_) => {}
            }
            parent.create_dir(name)?;
            match look(&parent, name)? {
                Entry::Directory(directory) => directory,
                _ => return Err(io::Error::other(format!("{path:?} was exchanged while it was made"))),
            }
        }
    };
    // Whoever made it, what is written into it is durable only when its own name is.
    sync(&parent)?;
    synced.put(path);
    Ok(made)
}

/// The directories along a path, the root first; nothing where one does not exist.
fn open_chain(root: &Dir, path: &str) -> io::Result<Option<Vec<Dir>>> {
    let mut chain = vec![root.try_clone()?];
    for end in ends(path) {
        let (_, name) = split(&path[..end]);
        match chain.last().map(|parent| look(parent, name)).transpose()? {
            Some(Entry::Directory(directory)) => chain.push(directory),
            _ => return Ok(None),
        }
    }
    Ok(Some(chain))
}

/// Where an object's file lies: the directory and the name in it; nothing where there is none.
fn find(root: &Dir, object: &str) -> io::Result<Option<(Dir, String)>> {
    let plain = path::encode(object);
    let (parents, leaf) = split(&plain);
    let Some(directory) = open_chain(root, parents)?.and_then(|mut chain| chain.pop()) else {
        return Ok(None);
    };
    let name = match look(&directory, leaf)? {
        Entry::File | Entry::Foreign => leaf.to_owned(),
        Entry::Absent | Entry::Directory(_) => path::beside(leaf),
    };
    Ok(Some((directory, name)))
}

/// Everything that lies at the path of a key.
fn survey(root: &Dir, wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync)) -> io::Result<BTreeMap<String, ExistingObject>> {
    let mut found = BTreeMap::new();
    // Paths and not open directories: a wide tree must not use up the file descriptors.
    let mut open = vec![String::new()];
    while let Some(at) = open.pop() {
        let Some(directory) = open_chain(root, &at)?.and_then(|mut chain| chain.pop()) else {
            continue;
        };
        for entry in directory.entries()? {
            let entry = entry?;
            // Names that are no UTF-8 are no key's.
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if at.is_empty() && name == path::OWN {
                continue;
            }
            let path = if at.is_empty() { name } else { format!("{at}/{name}") };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() {
                open.push(path);
                continue;
            }
            let Some(object) = path::decode(&path).filter(|object| wanted(object)) else {
                continue;
            };
            // Where an object has two files, the one at its plain path holds.
            if path != path::encode(&object) && found.contains_key(&object) {
                continue;
            }
            let existing = ExistingObject { object: object.clone(), size: metadata.len(), etag: None, version: None };
            found.insert(object, existing);
        }
    }
    Ok(found)
}

fn remove_file(directory: &Dir, name: &str) -> io::Result<bool> {
    match directory.remove_file(name) {
        Ok(()) => Ok(true),
        // A directory of such a name is nothing that a restore made.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens or makes a directory of our own.
fn own_directory(parent: &Dir, name: &str) -> Result<Dir, Begin> {
    if matches!(look(parent, name)?, Entry::Absent) {
        match parent.create_dir(name) {
            // Another restore began at the same moment; the lock decides which goes on.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(Begin::Io(error)),
            _ => {}
        }
    }
    match look(parent, name)? {
        Entry::Directory(directory) => Ok(directory),
        _ => Err(Begin::Refused(format!("{name} in it is not a directory of ours; remove it"))),
    }
}

/// Opens or makes a file of our own for reading and appending. One that is a link, symbolic or hard, is not ours: what
/// we append would appear elsewhere.
fn open_own(own: &Dir, name: &str) -> Result<std::fs::File, Begin> {
    let foreign = || Begin::Refused(format!("{}/{name} in it is not a file of ours; remove it", path::OWN));
    if !matches!(look(own, name)?, Entry::File | Entry::Absent) {
        return Err(foreign());
    }
    let file = own.open_with(name, OpenOptions::new().read(true).append(true).create(true))?;
    let (seen, opened) = (own.symlink_metadata(name)?, file.metadata()?);
    same_node(&seen, &opened, name)?;
    if opened.nlink() != 1 {
        return Err(foreign());
    }
    Ok(file.into_std())
}

fn read_known(root: &Dir) -> io::Result<Known> {
    let Entry::Directory(own) = look(root, path::OWN)? else {
        return Ok(Known::default());
    };
    match open_file(&own, OBJECTS)? {
        Some(file) => {
            // A restore that was killed may have written lines that are not on the disk; what they say is relied on.
            file.sync_all()?;
            Known::read(file)
        }
        None => Ok(Known::default()),
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

/// Makes what happened in a directory durable.
fn sync(directory: &Dir) -> io::Result<()> {
    // A `Dir` is opened for finding names only; syncing takes one that can be read.
    directory.open(".")?.sync_all()
}

/// A path's parent, empty for the root, and its last name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Where the leading directories of a path end: of `a/b/c` 1, 3 and 5. None for the root.
fn ends(path: &str) -> impl Iterator<Item = usize> {
    let whole = (!path.is_empty()).then_some(path.len());
    path.match_indices('/').map(|(at, _)| at).chain(whole)
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | TimedOut | WouldBlock)
}

/// Nothing that is held panics halfway through a change.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
