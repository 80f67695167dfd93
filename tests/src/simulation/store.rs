//! The vault's object store: in memory, slow, and failing before or after the effect.
//!
//! It also holds the rule that nothing in a vault is ever written twice or deleted: whoever tries is a violation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::bugs::Bug;
use super::world::World;

/// What is stored.
pub type Files = Arc<Mutex<BTreeMap<String, Stored>>>;

/// A file of the store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As the store gives it: making one is what listings would spend their time with.
    path: Path,
    /// What is in it.
    bytes: Bytes,
}

/// The store as one actor sees it.
pub struct SimStore {
    world: Arc<World>,
    files: Files,
    actor: &'static str,
    /// Nothing waits or fails.
    calm: bool,
    /// Writes that a planted bug holds back until the next segment is written.
    held_back: Mutex<Vec<(String, Bytes)>>,
}

impl SimStore {
    /// The store as an actor sees it.
    pub fn new(world: Arc<World>, files: Files, actor: &'static str) -> SimStore {
        SimStore { world, files, actor, calm: false, held_back: Mutex::default() }
    }

    /// The store as somebody sees it for whom nothing waits or fails.
    pub fn calm(world: Arc<World>, files: Files) -> SimStore {
        SimStore { calm: true, ..SimStore::new(world, files, "check") }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of the others, and perhaps a fault: `Err` before the effect, `Ok(true)` for a reply that is to be lost.
    async fn begin(&self, what: &'static str, path: &str) -> Result<bool> {
        if self.calm {
            return Ok(false);
        }
        self.world.delay().await;
        self.world.count(|counts| counts.store_operations += 1);
        self.world.trace(|| format!("{} {what} {path}", self.actor));
        if !self.world.is_faulty() || !self.world.random.permyriad(self.world.swarm.store_faults) {
            return Ok(false);
        }
        self.world.count(|counts| counts.faults += 1);
        if self.world.random.percent(50) {
            self.world.count(|counts| counts.lost_replies += 1);
            return Ok(true);
        }
        Err(failed("the request was lost"))
    }

    fn meta(path: &Path, size: usize) -> ObjectMeta {
        ObjectMeta { location: path.clone(), last_modified: Default::default(), size: size as u64, e_tag: None, version: None }
    }

    fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let mut files = self.files();
        if self.world.has(Bug::OverwriteSegment)
            && let Some(first) = path.strip_prefix("log/").and_then(|_| path.rsplit('/').next()).and_then(|name| name.get(..20))
        {
            let begins = format!("/{first}");
            files.retain(|known, _| !known.starts_with("log/") || !known.contains(&begins));
        }
        if files.contains_key(path) {
            return Err(Error::AlreadyExists { path: path.to_owned(), source: "it is there".into() });
        }
        files.insert(path.to_owned(), Stored { path: Path::from(path), bytes });
        Ok(())
    }

    fn listed(&self, prefix: Option<&Path>, after: Option<&Path>) -> Vec<ObjectMeta> {
        let prefix = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let files = self.files();
        let from = after.map_or_else(|| prefix.clone(), |after| after.to_string().max(prefix.clone()));
        let found = files.range(from..).take_while(|(path, _)| path.starts_with(&prefix));
        let found = found.filter(|(path, _)| after.is_none_or(|after| path.as_str() > after.as_ref()));
        found.map(|(_, stored)| SimStore::meta(&stored.path, stored.bytes.len())).collect()
    }

    /// A view of the store that can be moved into a stream.
    fn view(&self) -> SimStore {
        SimStore {
            world: Arc::clone(&self.world),
            files: Arc::clone(&self.files),
            actor: self.actor,
            calm: self.calm,
            held_back: Mutex::default(),
        }
    }
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "simulated", source: why.into() }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let path = location.as_ref();
        let done = PutResult { e_tag: None, version: None, extensions: Default::default() };
        let lost = match self.begin("put", path).await {
            Err(_) if self.world.has(Bug::ForgetPartFailure) && path.starts_with("pack/") => return Ok(done),
            begun => begun?,
        };
        if options.mode != PutMode::Create {
            self.world.violate(format!("{path} was written without asking whether it is there"));
        }
        let bytes: Bytes = payload.into();
        if self.world.has(Bug::BodyAfterChange) && !self.calm {
            let mut held_back = self.held_back.lock().unwrap_or_else(PoisonError::into_inner);
            if path.starts_with("pack/") {
                held_back.push((path.to_owned(), bytes));
                return Ok(done);
            }
        }
        let written = self.write(path, bytes);
        if self.world.has(Bug::BodyAfterChange) && !self.calm && path.starts_with("log/") {
            // The body comes one step after the change that names it.
            self.world.delay().await;
            for (path, bytes) in std::mem::take(&mut *self.held_back.lock().unwrap_or_else(PoisonError::into_inner)) {
                drop(self.write(&path, bytes));
            }
        }
        if lost {
            return Err(failed("the reply was lost"));
        }
        written.map(|()| done)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(failed("nothing is uploaded in parts to a vault"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = location.as_ref();
        if self.begin("get", path).await? {
            return Err(failed("the reply was lost"));
        }
        let bytes = self.files().get(path).map(|stored| stored.bytes.clone());
        let bytes = bytes.ok_or_else(|| Error::NotFound { path: path.to_owned(), source: "there is none".into() })?;
        let meta = SimStore::meta(location, bytes.len());
        let length = bytes.len() as u64;
        let range = match &options.range {
            Some(range) => range.as_range(length).map_err(|error| Error::Generic { store: "simulated", source: Box::new(error) })?,
            None => 0..length,
        };
        let mut bytes = bytes.slice(range.start as usize..range.end as usize);
        if !self.calm
            && !options.head
            && self.world.is_faulty()
            && !bytes.is_empty()
            && self.world.random.permyriad(self.world.swarm.store_flips)
        {
            self.world.count(|counts| counts.faults += 1);
            let at = self.world.random.index(bytes.len());
            if self.world.random.percent(50) {
                self.world.mark("read cut short");
                bytes.truncate(at);
            } else {
                self.world.mark("byte flipped on read");
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << self.world.random.below(8);
                bytes = flipped.into();
            }
        }
        let payload = GetResultPayload::Stream(futures::stream::once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.world.violate("something was deleted from the vault".to_owned());
        futures::stream::empty().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (view, prefix) = (self.view(), prefix.cloned());
        let listed = async move {
            let name = prefix.as_ref().map(ToString::to_string).unwrap_or_default();
            match view.begin("list", &name).await {
                Ok(false) => view.listed(prefix.as_ref(), None).into_iter().map(Ok).collect(),
                Ok(true) => vec![Err(failed("the reply was lost"))],
                Err(error) => vec![Err(error)],
            }
        };
        futures::stream::once(listed).flat_map(futures::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let name = prefix.map(ToString::to_string).unwrap_or_default();
        if self.begin("list", &name).await? {
            return Err(failed("the reply was lost"));
        }
        let begins = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let mut found = ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
        for meta in self.listed(prefix, None) {
            match meta.location.as_ref()[begins.len()..].split_once('/') {
                Some((folder, _)) => {
                    let folder = Path::from(format!("{begins}{folder}"));
                    if found.common_prefixes.last() != Some(&folder) {
                        found.common_prefixes.push(folder);
                    }
                }
                None => found.objects.push(meta),
            }
        }
        Ok(found)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failed("nothing is copied within a vault"))
    }
}
