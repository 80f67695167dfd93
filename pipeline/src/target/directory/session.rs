//! A restore that writes into a directory: its lock, its scratch files, its records.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use cap_std::fs::{Dir, MetadataExt as _, OpenOptions};

use super::entries::{Entry, Synced, ends, look, make_directory, open_chain, open_file, remove_file, same_node, split, sync};
use super::record::{Known, Record, Records};
use super::{LOCK, OBJECTS, SCRATCH, held, path};
use crate::model::Timestamp;

/// What is held while a restore writes.
pub(super) struct Session {
    root: Dir,
    scratch: Arc<Dir>,
    next_scratch: AtomicU64,
    records: Mutex<Records>,
    /// Held while directories are made and removed and files are put in their places; says which directories are durable.
    places: Mutex<Synced>,
    _lock: std::fs::File,
}

/// Why a session could not begin.
pub(super) enum Begin {
    Refused(String),
    Io(io::Error),
}

impl From<io::Error> for Begin {
    fn from(error: io::Error) -> Begin {
        Begin::Io(error)
    }
}

impl Session {
    pub(super) fn begin(root: Dir) -> Result<Session, Begin> {
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

    /// Whether the directory is still there, under this path.
    pub(super) fn is_at(&self, root: &Path) -> bool {
        let (Ok(there), Ok(opened)) = (std::fs::metadata(root), self.root.dir_metadata()) else { return false };
        (std::os::unix::fs::MetadataExt::dev(&there), std::os::unix::fs::MetadataExt::ino(&there)) == (opened.dev(), opened.ino())
    }

    /// What is recorded by now, that is, since we hold the lock.
    pub(super) fn known(&self) -> io::Result<Known> {
        read_known(&self.root)
    }

    pub(super) fn scratch(&self) -> io::Result<Scratch> {
        let name = self.next_scratch.fetch_add(1, Ordering::Relaxed).to_string();
        let file = self.scratch.open_with(&name, OpenOptions::new().write(true).create_new(true))?.into_std();
        Ok(Scratch { directory: self.scratch.clone(), name, file })
    }

    /// Renames a finished file to the object's place; it is durable when this comes back. One that `creates` takes no place that
    /// something has.
    pub(super) fn place(&self, scratch: Scratch, object: &str, creates: bool) -> io::Result<Placed> {
        let plain = path::encode(object);
        let (parents, leaf) = split(&plain);
        let mut places = held(&self.places);
        let mut directory = self.root.try_clone()?;
        let mut moved = Vec::new();
        for end in ends(parents) {
            let (made, is_moved) = make_directory(directory, &parents[..end], &mut places)?;
            directory = made;
            moved.extend(is_moved.then(|| parents[..end].to_owned()));
        }
        // A directory of that name holds other objects; the file goes beside it.
        let is_directory = matches!(look(&directory, leaf)?, Entry::Directory(_));
        let (name, other) = if is_directory { (path::beside(leaf), None) } else { (leaf.to_owned(), Some(path::beside(leaf))) };
        let there = |other: &String| directory.symlink_metadata(other).is_ok();
        match creates {
            true if other.as_ref().is_some_and(there) || !self.link(&scratch, &directory, &name)? => return Ok(Placed::Exists),
            true => {}
            false => self.scratch.rename(&scratch.name, &directory, &name)?,
        }
        if let Some(other) = other.filter(there) {
            // From a time when there was a directory. It goes when what takes its place is there for good.
            sync(&directory)?;
            remove_file(&directory, &other)?;
        }
        drop(places);
        sync(&directory)?;
        Ok(Placed::There { moved })
    }

    /// Gives a finished file this name, unless something has it. Says whether it did.
    fn link(&self, scratch: &Scratch, directory: &Dir, name: &str) -> io::Result<bool> {
        match self.scratch.hard_link(&scratch.name, directory, name) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            // A file system that gives a file one name only.
            Err(_) if directory.symlink_metadata(name).is_err() => self.scratch.rename(&scratch.name, directory, name).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Removes an object's file and the directories that hold nothing then. Says whether there was a file.
    pub(super) fn remove(&self, object: &str) -> io::Result<bool> {
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

    pub(super) fn record(&self, record: &Record, known: &Mutex<Known>) -> io::Result<()> {
        let mut records = held(&self.records);
        records.append(record, &mut held(known))
    }
}

/// What became of a finished file.
pub(super) enum Placed {
    /// It has the object's place.
    There {
        /// Paths of files that stood where folders had to be, and lie beside them now.
        moved: Vec<String>,
    },
    /// Something else has it.
    Exists,
}

/// A file being written, removed again unless it was renamed to its place.
pub(super) struct Scratch {
    directory: Arc<Dir>,
    name: String,
    pub(super) file: std::fs::File,
}

impl Scratch {
    /// Gives the file its time and makes it durable.
    pub(super) fn finish(&mut self, at: Timestamp) -> io::Result<()> {
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

/// Opens or makes a directory of our own.
pub(super) fn own_directory(parent: &Dir, name: &str) -> Result<Dir, Begin> {
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
pub(super) fn open_own(own: &Dir, name: &str) -> Result<std::fs::File, Begin> {
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

pub(super) fn read_known(root: &Dir) -> io::Result<Known> {
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
