//! A local directory as a vault's store: whatever it says is there outlives a loss of power.
//!
//! ```text
//!  folders that lead there: made, and their names synced ─┐
//!  folders that were listed: synced ──────────────────────┴→ name#1: write, sync ─→ link to name ─→ sync the folder
//!                                                                                    └ New, or Existed: durable either way
//! ```
//!
//! A file is never seen under its name before all of it is on the disk, and its name is on the disk before anybody is told
//! that it is there. That is not enough where several processes work on one vault, or one goes on where another was killed:
//! a name that can be *seen* need not be durable yet. So a folder is not taken for durable because it exists, a name that is
//! taken is synced before that is said, and what was listed is synced before anything that may rest on it is written.
//!
//! A sync that failed is not tried again: the kernel reports a lost write once, and then takes it for written. From then on
//! nothing is written through this store, so that nothing is acknowledged; reading goes on.
//!
//! A process that is killed may leave `name#1` behind. Such names are not listed, and nobody reads them.
//!
//! Before anything is written it is looked whether the directory is the vault that it was: where its disk is gone, or another vault was put
//! in its place, what is written would be lost to the one, and be an invention in the other.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fail::fail_point;
use futures::StreamExt as _;
use futures::channel::oneshot;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::layout;

/// How long ago a folder must have changed, by its file system's clock, for its time to tell every later change. Clocks of
/// file systems tick a hundred times in that.
const SETTLED_SECONDS: i64 = 1;
/// Files that are being written for one name at most; all but a few are left over from processes that were killed.
const STAGED_MAX: u32 = 10_000;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct DirectoryStore {
    files: Arc<LocalFileSystem>,
    disk: Arc<Disk>,
}

/// The directory, and what is known of its folders.
struct Disk {
    root: PathBuf,
    /// What the vault says of itself, once there is one.
    vault: Mutex<Option<Opened>>,
    folders: Mutex<Folders>,
    /// Held while what was seen is synced: whoever writes next may rest on it, too.
    settling: Mutex<()>,
}

/// The record of the vault that lies in the directory.
struct Opened {
    /// Its device and inode: while they are the same, so is the record.
    place: (u64, u64),
    content: Vec<u8>,
}

#[derive(Default)]
struct Folders {
    /// Those whose own names are durable.
    named: HashSet<PathBuf>,
    /// Those in which names were seen that others may have put there, and that may not be durable.
    seen: HashSet<PathBuf>,
    /// What those looked like that were durable as a whole.
    settled: HashMap<PathBuf, Look>,
    /// The folder of which a sync has failed, and the system's words.
    failed: Option<(PathBuf, String)>,
}

/// What tells whether anything in a folder has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    inode: u64,
    changed: (i64, i64),
}

/// What object_store calls this store in its errors.
pub const STORE: &str = "directory";

/// Why a directory did not take something.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The operating system refused.
    #[error("cannot {what} {}{advice}", path.display())]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What to do, where that is known.
        advice: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// What was written may be lost.
    #[error(
        "{} could not be synced ({reason}), so what was written there last may be lost; this process writes no more to it: \
         check the disk, then start it again",
        path.display()
    )]
    NotSynced {
        /// Which folder.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Its disk is gone, or it was moved, or another vault is in its place.
    #[error("{} is not the vault that was opened: it was moved, or its disk is gone; nothing is written there until it is back", path.display())]
    Exchanged {
        /// Where it was.
        path: PathBuf,
    },
    /// Nothing in a vault is overwritten, moved or removed through its store.
    #[error("a vault's files are created once, and {path:?} was to be {what}")]
    Immutable {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: String,
    },
}

impl DirectoryError {
    /// Whether there is no such file or folder.
    fn is_missing(&self) -> bool {
        matches!(self, DirectoryError::Refused { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

impl DirectoryStore {
    /// The store in a directory that exists.
    ///
    /// # Errors
    /// What opening it says.
    pub fn new(root: &Path) -> Result<DirectoryStore> {
        let files = LocalFileSystem::new_with_prefix(root)?;
        let root = root.canonicalize().map_err(refused("open", root))?;
        Ok(DirectoryStore {
            files: Arc::new(files),
            disk: Arc::new(Disk { root, vault: Mutex::default(), folders: Mutex::default(), settling: Mutex::default() }),
        })
    }

    fn seen(&self, locations: impl IntoIterator<Item = Location>) {
        let mut folders = self.disk.folders();
        for location in locations {
            let Ok(path) = self.files.path_to_filesystem(&location) else { continue };
            for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.disk.root)) {
                // Whoever inserted it, inserted those above.
                if !folders.seen.insert(folder.to_owned()) {
                    break;
                }
            }
        }
    }
}

/// That a path leads to the same place before its folders are made and after: it has no `..` behind one that is not there.
///
/// # Errors
/// Why it does not.
pub fn is_settled(path: &Path) -> std::io::Result<()> {
    let mut walked = PathBuf::new();
    for component in path.components() {
        if component == std::path::Component::ParentDir && !walked.as_os_str().is_empty() && !walked.exists() {
            let reason = format!("its path has `..` behind {}, which is not there; write where it leads", walked.display());
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason));
        }
        walked.push(component);
    }
    Ok(())
}

/// Makes a directory where it does not exist, and every name durable that leads to it.
///
/// # Errors
/// What making it says, and syncing what was made; a path that would lead elsewhere once its folders are made.
pub fn make(path: &Path) -> Result<(), DirectoryError> {
    is_settled(path).map_err(refused("find", path))?;
    let path = std::path::absolute(path).map_err(refused("find", path))?;
    let made = path.ancestors().take_while(|folder| !folder.exists()).count();
    std::fs::create_dir_all(&path).map_err(refused("make", &path))?;
    for (number, folder) in path.ancestors().skip(1).enumerate() {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        // Further up are folders that others have made, and that we may not be allowed to open.
        if number < made {
            synced.map_err(refused("sync", folder))?;
        }
    }
    Ok(())
}

impl Disk {
    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a file with this content, durably. False where the name is taken, and then that is durable.
    fn create(&self, path: &Path, content: &PutPayload) -> Result<bool, DirectoryError> {
        if let Some((path, reason)) = self.folders().failed.clone() {
            return Err(DirectoryError::NotSynced { path, reason });
        }
        self.check_same()?;
        let parent = path.parent().filter(|parent| parent.starts_with(&self.root)).unwrap_or(&self.root);
        self.make_folders(parent)?;
        // Opened before anything is visible: where files are too many, it fails without a trace.
        let folder = match Folder::open(parent) {
            Err(error) if error.is_missing() => {
                // Somebody has removed what was made.
                self.folders().named.clear();
                self.make_folders(parent)?;
                Folder::open(parent)?
            }
            folder => folder?,
        };
        let (staged, file) = stage(path)?;
        let linked = self.write_and_link(&staged, file, path, content);
        // What cannot be removed is not listed, and in nobody's way.
        let _ = std::fs::remove_file(&staged);
        let created = linked?;
        self.sync(&folder)?;
        Ok(created)
    }

    /// That the directory is the vault that it was. Where there was none yet, one is being made.
    fn check_same(&self) -> Result<(), DirectoryError> {
        let path = self.root.join(layout::VAULT);
        let mut vault = self.vault.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match std::fs::metadata(&path) {
            Ok(found) => Some((found.dev(), found.ino())),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(error) => return Err(refused("look at", &path)(error)),
        };
        match (&mut *vault, place) {
            (None, None) => Ok(()),
            (Some(opened), Some(place)) if opened.place == place => Ok(()),
            (Some(_), None) => Err(DirectoryError::Exchanged { path: self.root.clone() }),
            (opened, Some(place)) => {
                let content = std::fs::read(&path).map_err(refused("read", &path))?;
                if opened.as_ref().is_some_and(|opened| opened.content != content) {
                    return Err(DirectoryError::Exchanged { path: self.root.clone() });
                }
                // A copy of it, perhaps an older one: what is known of its folders does not hold.
                if opened.replace(Opened { place, content }).is_some() {
                    *self.folders() = Folders::default();
                }
                Ok(())
            }
        }
    }

    fn write_and_link(&self, staged: &Path, mut file: File, path: &Path, content: &PutPayload) -> Result<bool, DirectoryError> {
        content.iter().try_for_each(|piece| file.write_all(piece)).map_err(refused("write", path))?;
        file.sync_all().map_err(refused("sync", path))?;
        fail_point!("vault::staged");
        let now = file.metadata().map_err(refused("look at", path))?.ctime();
        drop(file);
        self.settle(now)?;
        self.check_same()?;
        match std::fs::hard_link(staged, path) {
            Ok(()) => {
                fail_point!("vault::linked");
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(refused("create", path)(error)),
        }
    }

    /// Makes the folders down to this one, and their names durable, whoever made them.
    fn make_folders(&self, last: &Path) -> Result<(), DirectoryError> {
        let mut way: Vec<&Path> = last.ancestors().take_while(|folder| *folder != self.root).collect();
        while let Some(folder) = way.pop() {
            if self.folders().named.contains(folder) {
                continue;
            }
            match std::fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(refused("make", folder)(error)),
                _ => {}
            }
            self.sync(&Folder::open(folder.parent().unwrap_or(&self.root))?)?;
            self.folders().named.insert(folder.to_owned());
        }
        Ok(())
    }

    /// Syncs the folders in which names were seen, but for those in which nothing has changed since they were synced. `now` is
    /// the file system's own time, in seconds.
    fn settle(&self, now: i64) -> Result<(), DirectoryError> {
        let _alone = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        // What is seen from here on is for the next to sync.
        let mut seen = std::mem::take(&mut self.folders().seen).into_iter();
        while let Some(path) = seen.next() {
            match self.settle_one(&path) {
                Ok(look) if look.changed.0 + SETTLED_SECONDS < now => drop(self.folders().settled.insert(path, look)),
                Ok(_) => {}
                // What was seen there is there no more, and nothing can rest on it.
                Err(error) if error.is_missing() => {}
                Err(error) => {
                    self.folders().seen.extend(std::iter::once(path).chain(seen));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn settle_one(&self, path: &Path) -> Result<Look, DirectoryError> {
        let folder = Folder::open(path)?;
        let look = folder.look()?;
        if self.folders().settled.get(path) != Some(&look) {
            self.sync(&folder)?;
        }
        Ok(look)
    }

    fn sync(&self, folder: &Folder<'_>) -> Result<(), DirectoryError> {
        folder.file.sync_all().map_err(|error| {
            let (path, reason) = self.folders().failed.get_or_insert_with(|| (folder.path.to_owned(), error.to_string())).clone();
            DirectoryError::NotSynced { path, reason }
        })
    }
}

/// A folder that is open.
struct Folder<'a> {
    path: &'a Path,
    file: File,
}

impl Folder<'_> {
    fn open(path: &Path) -> Result<Folder<'_>, DirectoryError> {
        Ok(Folder { path, file: File::open(path).map_err(refused("open", path))? })
    }

    fn look(&self) -> Result<Look, DirectoryError> {
        let found = self.file.metadata().map_err(refused("look at", self.path))?;
        Ok(Look { inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

/// A new file beside a name. Its form is the one that listings leave out.
fn stage(path: &Path) -> Result<(PathBuf, File), DirectoryError> {
    for number in 1..STAGED_MAX {
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (staged.into(), file)).map_err(refused("create", path)),
        }
    }
    Err(refused("create", path)(io::Error::other("too many files of its name with a # are left over; remove them")))
}

/// What the operating system refused, with what is to be done where that is known.
fn refused(what: &'static str, path: &Path) -> impl Fn(io::Error) -> DirectoryError {
    // They have no kind of their own.
    const EIO: i32 = 5;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    move |error| {
        let advice = match (error.kind(), error.raw_os_error()) {
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => "; make room, and it goes on",
            (ErrorKind::FileTooLarge, _) => "; raise the limit of the size of files (ulimit -f), and it goes on",
            (ErrorKind::ReadOnlyFilesystem, _) => "; mount the file system for writing",
            (ErrorKind::PermissionDenied, _) => "; let this user write there",
            (_, Some(ENFILE | EMFILE)) => "; raise the limit of open files (ulimit -n)",
            (_, Some(EIO)) => "; check the disk",
            _ => "",
        };
        DirectoryError::Refused { what, path: path.to_owned(), advice, source: error }
    }
}

impl From<DirectoryError> for Error {
    fn from(error: DirectoryError) -> Error {
        Error::Generic { store: STORE, source: Box::new(error) }
    }
}

impl fmt::Display for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.disk.root.display())
    }
}

impl fmt::Debug for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryStore({self})")
    }
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    async fn put_opts(&self, location: &Location, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode != PutMode::Create {
            return Err(DirectoryError::Immutable { what: "overwritten", path: location.to_string() }.into());
        }
        let (disk, path) = (Arc::clone(&self.disk), self.files.path_to_filesystem(location)?);
        let (tell, told) = oneshot::channel();
        let write = {
            let path = path.clone();
            // Nobody may listen any more; what was done is done.
            move || drop(tell.send(disk.create(&path, &payload)))
        };
        // Syncing takes as long as it takes, and others have work to do on the thread that asked.
        std::thread::Builder::new().name("vault".to_owned()).spawn(write).map_err(refused("begin to write", &path))?;
        let created = told.await.map_err(|_| refused("write", &path)(io::Error::other("its thread came to an end")))??;
        match created {
            true => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
            false => Err(Error::AlreadyExists { path: location.to_string(), source: "it is there already".into() }),
        }
    }

    async fn put_multipart_opts(&self, location: &Location, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(DirectoryError::Immutable { what: "uploaded in parts", path: location.to_string() }.into())
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Location>>) -> BoxStream<'static, Result<Location>> {
        let refuse = |location: Result<Location>| {
            location.and_then(|location| Err(DirectoryError::Immutable { what: "removed", path: location.to_string() }.into()))
        };
        locations.map(refuse).boxed()
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let note = move |found: &Result<ObjectMeta>| store.seen(found.iter().map(|meta| meta.location.clone()));
        self.files.list(prefix).inspect(note).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Location>, offset: &Location) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let note = move |found: &Result<ObjectMeta>| store.seen(found.iter().map(|meta| meta.location.clone()));
        self.files.list_with_offset(prefix, offset).inspect(note).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        let found = self.files.list_with_delimiter(prefix).await?;
        self.seen(found.objects.iter().map(|meta| meta.location.clone()).chain(found.common_prefixes.iter().cloned()));
        Ok(found)
    }

    async fn copy_opts(&self, _: &Location, to: &Location, _: CopyOptions) -> Result<()> {
        Err(DirectoryError::Immutable { what: "copied to", path: to.to_string() }.into())
    }
}
