//! A store in memory that springs at one of its operations.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What a [`Trap`] does to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing has happened.
    Before,
    /// It is carried out, and its reply is lost.
    After,
    /// The process dies before it.
    CrashBefore,
    /// The process dies when it has been carried out.
    CrashAfter,
    /// What is read is cut short, under the right length.
    Truncate,
    /// One bit of what is read is another one.
    Flip,
}

/// All of them.
pub const FAULTS: [Fault; 6] = [Fault::Before, Fault::After, Fault::CrashBefore, Fault::CrashAfter, Fault::Truncate, Fault::Flip];

/// A store in memory that counts its operations and springs at one of them.
pub struct Trap {
    pub(super) store: InMemory,
    count: AtomicU64,
    spring: Mutex<Option<(u64, Fault)>>,
    pub(super) dead: AtomicBool,
    /// Files that so many listings do not show yet.
    lagging: Mutex<BTreeMap<String, u32>>,
    /// It does not know how to create only what is not there.
    overwrites: AtomicBool,
}

impl Trap {
    pub(super) fn new() -> Arc<Trap> {
        Arc::new(Trap {
            store: InMemory::new(),
            count: AtomicU64::new(0),
            spring: Mutex::default(),
            dead: AtomicBool::new(false),
            lagging: Mutex::default(),
            overwrites: AtomicBool::new(false),
        })
    }

    /// Springs at the operation of this number, counted from now on.
    pub fn set(&self, at: u64, fault: Fault) {
        self.count.store(0, Ordering::Relaxed);
        *self.spring.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, fault));
    }

    /// Operations since the trap was set, and whether it is still set.
    pub fn seen(&self) -> (u64, bool) {
        (self.count.load(Ordering::Relaxed), self.spring.lock().unwrap_or_else(PoisonError::into_inner).is_some())
    }

    /// The paths that begin so, in order.
    pub fn paths(&self, prefix: &str) -> Vec<String> {
        let listed = self.store.list(None).map(|found| found.expect("memory answers").location.to_string()).collect::<Vec<_>>();
        let mut paths = listed.now_or_never().expect("memory answers at once");
        paths.retain(|path| path.starts_with(prefix));
        paths.sort();
        paths
    }

    /// The next listings do not show a file, so many of them.
    pub fn lag(&self, path: &str, listings: u32) {
        self.lagging.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), listings);
    }

    /// From now on whoever creates what is there overwrites it, and is told that it is new.
    pub fn let_overwrite(&self) {
        self.overwrites.store(true, Ordering::Relaxed);
    }

    /// Whether a listing shows a file.
    fn shows(&self, path: &str) -> bool {
        let mut lagging = self.lagging.lock().unwrap_or_else(PoisonError::into_inner);
        let left = lagging.get(path).copied().unwrap_or(0);
        if left > 0 {
            lagging.insert(path.to_owned(), left - 1);
        }
        left == 0
    }

    /// Somebody removes a file.
    pub fn remove(&self, path: &str) {
        self.store.delete(&Path::from(path)).now_or_never().expect("memory answers at once").expect("it is there");
    }

    /// What happens to this operation.
    pub(super) async fn begin(&self) -> Result<Option<Fault>> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let fault = {
            let mut spring = self.spring.lock().unwrap_or_else(PoisonError::into_inner);
            let sprung = spring.filter(|(at, _)| *at == number);
            if sprung.is_some() {
                *spring = None;
            }
            sprung.map(|(_, fault)| fault)
        };
        match fault {
            Some(Fault::Before) => Err(failed("the request was lost")),
            Some(Fault::CrashBefore) => self.die().await,
            fault => Ok(fault),
        }
    }

    /// What becomes of the reply.
    pub(super) async fn end<T>(&self, fault: Option<Fault>, done: Result<T>) -> Result<T> {
        match fault {
            Some(Fault::After) => Err(failed("the reply was lost")),
            Some(Fault::CrashAfter) => self.die().await,
            _ => done,
        }
    }

    async fn die<T>(&self) -> T {
        self.dead.store(true, Ordering::Relaxed);
        std::future::pending().await
    }
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "trap", source: why.into() }
}

pub(super) fn spoil(bytes: &Bytes, fault: Fault) -> Bytes {
    let mut spoiled = bytes.to_vec();
    let middle = spoiled.len() / 2;
    match fault {
        Fault::Truncate => spoiled.truncate(middle),
        _ => spoiled[middle] ^= 0x10,
    }
    spoiled.into()
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("trap")
    }
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("trap")
    }
}

/// The trap as an object store.
#[derive(Debug, Clone)]
pub(super) struct Trapped(pub(super) Arc<Trap>);

impl fmt::Display for Trapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("trap")
    }
}

#[async_trait]
impl ObjectStore for Trapped {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.0.begin().await?;
        let options = if self.0.overwrites.load(Ordering::Relaxed) { PutOptions::default() } else { options };
        let done = self.0.store.put_opts(location, payload, options).await;
        self.0.end(fault, done).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(failed("nothing is uploaded in parts to a vault"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.0.begin().await?;
        let done = self.0.store.get_opts(location, options).await;
        let found = self.0.end(fault, done).await?;
        let (meta, range, attributes, extensions) =
            (found.meta.clone(), found.range.clone(), found.attributes.clone(), found.extensions.clone());
        let bytes = found.bytes().await?;
        let bytes = match fault {
            Some(fault @ (Fault::Truncate | Fault::Flip)) if !bytes.is_empty() => spoil(&bytes, fault),
            _ => bytes,
        };
        let payload = GetResultPayload::Stream(futures::stream::once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        futures::stream::once(async { Err(failed("nothing is deleted from a vault")) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (trap, prefix) = (Arc::clone(&self.0), prefix.cloned());
        let listed = async move {
            let fault = match trap.begin().await {
                Ok(fault) => fault,
                Err(error) => return vec![Err(error)],
            };
            let mut found: Vec<Result<ObjectMeta>> = trap.store.list(prefix.as_ref()).collect().await;
            found.retain(|found| found.as_ref().is_ok_and(|meta| trap.shows(meta.location.as_ref())));
            match trap.end(fault, Ok(found)).await {
                Ok(found) => found,
                Err(error) => vec![Err(error)],
            }
        };
        futures::stream::once(listed).flat_map(futures::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.0.begin().await?;
        let done = self.0.store.list_with_delimiter(prefix).await;
        self.0.end(fault, done).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failed("nothing is copied within a vault"))
    }
}
