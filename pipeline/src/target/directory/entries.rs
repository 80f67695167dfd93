//! Names in directories, opened one at a time and never through a symbolic link.

use std::collections::HashSet;
use std::io;

use cap_std::fs::{Dir, File, Metadata, MetadataExt as _};

use super::path;
use crate::target::{ExistingObject, Survey};
use crate::vault::layout;

/// How many directories are remembered as durable; beyond, they are forgotten and synced once more.
const SYNCED_DIRECTORIES_MAX: usize = 1 << 20;

/// Directories whose entry in their parent is durable, as hashes of their paths.
#[derive(Debug, Default)]
pub(super) struct Synced {
    paths: HashSet<u64>,
}

impl Synced {
    pub(super) fn has(&self, path: &str) -> bool {
        self.paths.contains(&xxhash_rust::xxh3::xxh3_64(path.as_bytes()))
    }

    pub(super) fn put(&mut self, path: &str) {
        if self.paths.len() >= SYNCED_DIRECTORIES_MAX {
            self.paths.clear();
        }
        self.paths.insert(xxhash_rust::xxh3::xxh3_64(path.as_bytes()));
    }

    pub(super) fn forget(&mut self, path: &str) {
        self.paths.remove(&xxhash_rust::xxh3::xxh3_64(path.as_bytes()));
    }
}

/// What a name in a directory is.
pub(super) enum Entry {
    Absent,
    Directory(Dir),
    File,
    /// A symbolic link, a device, a socket: nothing that a restore makes.
    Foreign,
}

/// Looks at one name without following it.
pub(super) fn look(parent: &Dir, name: &str) -> io::Result<Entry> {
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

pub(super) fn same_node(seen: &Metadata, opened: &Metadata, name: &str) -> io::Result<()> {
    if (seen.dev(), seen.ino()) == (opened.dev(), opened.ino()) {
        return Ok(());
    }
    Err(io::Error::other(format!("{name:?} was exchanged while it was opened")))
}

/// Opens a regular file without following a link; nothing where it is something else.
pub(super) fn open_file(parent: &Dir, name: &str) -> io::Result<Option<File>> {
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
///
/// A file of that name goes beside it; says whether there was one.
pub(super) fn make_directory(parent: Dir, path: &str, synced: &mut Synced) -> io::Result<(Dir, bool)> {
    let (_, name) = split(path);
    let mut moved = false;
    let made = match look(&parent, name)? {
        Entry::Directory(directory) if synced.has(path) => return Ok((directory, false)),
        Entry::Directory(directory) => directory,
        entry => {
            match entry {
                Entry::Foreign => {
                    return Err(io::Error::other(format!("{path:?} is a link or a device, which no restore goes through")));
                }
                // An object has the name that is a directory's now: it goes beside, and is there before its name is given away.
                Entry::File => {
                    give_way(&parent, name)?;
                    moved = true;
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
    Ok((made, moved))
}

/// Gives the name of a file away, which goes beside. What has that name already stays, too.
///
/// In one step: after a loss of power the file has one of the two names, never both.
fn give_way(parent: &Dir, name: &str) -> io::Result<()> {
    let beside = path::beside(name);
    match rename_without_replacing(parent, name, &beside) {
        Ok(()) => sync(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let reason =
                format!("{name:?} stands where a folder must be, and {beside:?}, where it would go, is there; move one of them away");
            Err(io::Error::new(io::ErrorKind::AlreadyExists, reason))
        }
        Err(error) => Err(error),
    }
}

/// Renames a file; an error of kind `AlreadyExists` where something has the new name.
fn rename_without_replacing(parent: &Dir, from: &str, to: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    match rustix::fs::renameat_with(parent, from, parent, to, rustix::fs::RenameFlags::NOREPLACE) {
        // Not every file system knows the flag: NFS and some in user space refuse it.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {}
        done => return Ok(done?),
    }
    match look(parent, to)? {
        Entry::Absent => parent.rename(from, parent, to),
        _ => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// The directories along a path, the root first; nothing where one does not exist.
pub(super) fn open_chain(root: &Dir, path: &str) -> io::Result<Option<Vec<Dir>>> {
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
pub(super) fn find(root: &Dir, object: &str) -> io::Result<Option<(Dir, String)>> {
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

/// Everything that lies at the path of a key, and vaults.
pub(super) fn survey(root: &Dir, wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync)) -> io::Result<Survey> {
    let mut found = Survey::default();
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
            if split(&path).1 == layout::VAULT && open_file(&directory, layout::VAULT)?.is_some_and(super::is_vault_record) {
                // A name that is no key's is one that no restore writes.
                let record = path::decode(&path).unwrap_or_else(|| path.clone());
                found.vaults.push(record[..record.len() - layout::VAULT.len()].to_owned());
            }
            if metadata.is_dir() {
                open.push(path);
                continue;
            }
            let Some(object) = path::decode(&path).filter(|object| wanted(object)) else {
                continue;
            };
            // Where an object has two files, the one at its plain path holds.
            if path != path::encode(&object) && found.objects.contains_key(&object) {
                continue;
            }
            let existing = ExistingObject { object: object.clone(), size: metadata.len(), etag: None, version: None };
            found.objects.insert(object, existing);
        }
    }
    Ok(found)
}

pub(super) fn remove_file(directory: &Dir, name: &str) -> io::Result<bool> {
    match directory.remove_file(name) {
        Ok(()) => Ok(true),
        // A directory of such a name is nothing that a restore made.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes what happened in a directory durable.
pub(super) fn sync(directory: &Dir) -> io::Result<()> {
    // A `Dir` is opened for finding names only; syncing takes one that can be read.
    directory.open(".")?.sync_all()
}

/// A path's parent, empty for the root, and its last name.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Where the leading directories of a path end: of `a/b/c` 1, 3 and 5. None for the root.
pub(super) fn ends(path: &str) -> impl Iterator<Item = usize> {
    let whole = (!path.is_empty()).then_some(path.len());
    path.match_indices('/').map(|(at, _)| at).chain(whole)
}
