//! A world small enough to be swept: one bucket in memory with its events, one vault, one clock, and a fault at exactly one
//! of the vault's operations.
//!
//! ```text
//!  bucket ── events ─→ feed ─→ intake, reconcile, compact ─→ Trap ─→ vault ─→ restore ─→ another bucket
//!    └────── contents above COPY_ABOVE_BYTES, copied ────────────┘ the n-th operation fails, lies, or is the last one
//! ```
//!
//! The [simulation](crate::simulation) draws faults by chance, many in one history. Here there is one, at each place in
//! turn, so that none is left out.

mod copier;
mod feed;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use handlers::capture::Capture;
use handlers::compact::compact;
use handlers::copying::Copying;
use handlers::intake::Intake;
use handlers::protection::{BucketProtection, Events, How, PROTECTIONS, Protection, RECONCILE_EVERY, Status};
use handlers::reconcile::{Quiet, reconcile};
use handlers::restore::{RestoreRequest, restore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use pipeline::base::inputs::Inventory;
use pipeline::base::plan::Policy;
use pipeline::changelog::coverage::Window;
use pipeline::changelog::segments;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::replay::run::{Progress, Quiet as NobodyWatches, RestoreOptions};
use pipeline::replay::{Certainty, RestorePoint};
use pipeline::s3::{ListedVersion, PutRequest, Versioning};
use pipeline::source::s3_read::Reader;
use pipeline::target::report::RestoreReport;
use pipeline::target::{BucketTarget, Mode, Target};
use pipeline::vault::{Vault, layout};

use self::copier::SameServer;
pub use self::feed::Neighbour;
use self::feed::{Away, Feed};
use crate::memory_bucket::{Effect, Happened, Hook, MemoryBucket, Settings};

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
    store: InMemory,
    count: AtomicU64,
    spring: Mutex<Option<(u64, Fault)>>,
    dead: AtomicBool,
    /// Files that so many listings do not show yet.
    lagging: Mutex<BTreeMap<String, u32>>,
    /// It does not know how to create only what is not there.
    overwrites: AtomicBool,
}

impl Trap {
    fn new() -> Arc<Trap> {
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
    async fn begin(&self) -> Result<Option<Fault>> {
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
    async fn end<T>(&self, fault: Option<Fault>, done: Result<T>) -> Result<T> {
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

fn spoil(bytes: &Bytes, fault: Fault) -> Bytes {
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
struct Trapped(Arc<Trap>);

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

/// A clock that whoever sleeps moves.
#[derive(Debug)]
struct Hands(AtomicI64);

#[async_trait]
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        self.0.fetch_add(duration.as_micros() as i64, Ordering::Relaxed);
    }
}

const BUCKET: &str = "photos";
/// Contents above this are copied by the server.
const COPY_ABOVE_BYTES: u64 = 100;
/// When every small world begins: 2026-08-22T12:00:00Z.
const BEGINNING: i64 = 1_787_400_000;

/// What is in a bucket, as a reader sees it.
pub type Contents = BTreeMap<String, Bytes>;

/// The world.
pub struct SmallWorld {
    /// The protected bucket.
    pub bucket: MemoryBucket,
    /// What the vault's store does.
    pub trap: Arc<Trap>,
    clock: Arc<Hands>,
    feed: Arc<Feed>,
    resource: ResourceId,
    history: Vec<(Timestamp, Contents)>,
}

/// Why a job did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The process died.
    Crashed,
    /// It said why.
    Failed(String),
}

impl SmallWorld {
    /// An empty, versioned bucket.
    pub fn new() -> SmallWorld {
        let clock = Arc::new(Hands(AtomicI64::new(BEGINNING * 1_000_000)));
        let feed = Arc::new(Feed::default());
        *feed.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&clock));
        let bucket = MemoryBucket::new(Settings::aws(BUCKET, 7), clock.clone(), feed.clone());
        bucket.set_versioning(Versioning::Enabled);
        let resource = ResourceId::bucket(BUCKET).expect("it is a name");
        SmallWorld { bucket, trap: Trap::new(), clock, feed, resource, history: Vec::new() }
    }

    /// A world whose bucket keeps version `null` only.
    pub fn suspended() -> SmallWorld {
        let world = SmallWorld::new();
        world.bucket.set_versioning(Versioning::Suspended);
        world
    }

    /// The bucket, as the vault knows it.
    pub fn resource(&self) -> &ResourceId {
        &self.resource
    }

    /// Lets time pass.
    pub fn tick(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A user puts an object.
    pub fn put(&mut self, object: &str, content: &str) {
        let happened = self.bucket.put_object(object, &PutRequest::default(), Bytes::copy_from_slice(content.as_bytes()));
        self.feed.happened(&happened.expect("its key is legal"));
        self.note();
    }

    /// An event tells of something that was done to the bucket.
    pub fn tell(&self, happened: &Happened) {
        self.feed.happened(happened);
    }

    /// How many segments with changes the log has.
    pub fn segments(&self) -> usize {
        let listed = self.live(async { segments(&self.vault(), &self.resource).await.map_err(text) });
        let listed = listed.expect("a store in memory");
        listed.into_iter().filter(|segment| segment.name.first != segment.name.latest || segment.name.last != segment.name.latest).count()
    }

    /// From now on an object's contents cannot be read, or can again.
    pub fn make_unreadable(&self, object: &str, unreadable: bool) {
        let mut objects = self.feed.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        match unreadable {
            true => objects.insert(object.to_owned()),
            false => objects.remove(object),
        };
    }

    /// From now on the server says of every version of an object that it is not there, or does not any more.
    pub fn make_deny(&self, object: &str, denied: bool) {
        let mut objects = self.feed.denied.lock().unwrap_or_else(PoisonError::into_inner);
        match denied {
            true => objects.insert(object.to_owned()),
            false => objects.remove(object),
        };
    }

    /// From now on the server says that an object is not there where it is asked for its tags.
    pub fn make_tagless(&self, object: &str) {
        self.feed.tagless.lock().unwrap_or_else(PoisonError::into_inner).insert(object.to_owned());
    }

    /// The newest version of an object.
    pub fn newest(&self, object: &str) -> ListedVersion {
        self.bucket.versions().into_iter().find(|version| version.object == object && version.latest).expect("the object is there")
    }

    /// Somebody sends an event of what did not happen to this version, or not at this time.
    pub fn forge(&self, effect: Effect, version: &ListedVersion, at: Timestamp) {
        self.feed.happened(&Happened {
            effect,
            object: version.object.clone(),
            version: version.version.clone(),
            at,
            modified: version.modified,
            sequencer: format!("{:016X}", at.micros()),
            size: version.size,
            etag: version.etag.clone(),
            marker: version.marker,
            overwrote_null: false,
        });
    }

    /// A message of whatever comes to the feed.
    pub fn post(&self, body: impl Into<Bytes>) {
        self.feed.waiting().insert(self.feed.sent.fetch_add(1, Ordering::Relaxed), body.into());
    }

    /// Lets an event be lost that would come.
    pub fn lose_events(&self) {
        self.feed.waiting().clear();
    }

    /// Why events were kept as dead letters.
    pub fn dead_letters(&self) -> Vec<String> {
        let read = self.live(async {
            let mut reasons = Vec::new();
            for file in self.vault().list(layout::DEAD_FOLDER).await.map_err(text)? {
                let letter: serde_json::Value =
                    serde_json::from_slice(&self.vault().read(&file.path).await.map_err(text)?).map_err(text)?;
                let told = letter["reasons"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
                reasons.extend(told.map(str::to_owned));
            }
            Ok(reasons)
        });
        read.expect("nothing fails")
    }

    /// A user deletes an object: a marker.
    pub fn delete(&mut self, object: &str) {
        self.bucket.delete(object).iter().for_each(|happened| self.feed.happened(happened));
        self.note();
    }

    /// A user removes the newest version of an object for good.
    pub fn purge(&mut self, object: &str) {
        let newest = self.bucket.versions().into_iter().find(|version| version.object == object && version.latest);
        let happened = newest.and_then(|newest| self.bucket.purge(object, &newest.version));
        happened.iter().for_each(|happened| self.feed.happened(happened));
        self.note();
    }

    /// Writes down what a reader sees, after something was done to the bucket.
    pub fn note(&mut self) {
        self.history.push((self.now(), contents(&self.bucket)));
    }

    /// What a reader saw at an instant.
    pub fn at(&self, instant: Timestamp) -> Contents {
        self.history.iter().rev().find(|(at, _)| *at <= instant).map(|(_, contents)| contents.clone()).unwrap_or_default()
    }

    /// When something happened.
    pub fn instants(&self) -> Vec<Timestamp> {
        self.history.iter().map(|(at, _)| *at).collect()
    }

    /// The vault, as the handlers see it.
    pub fn vault(&self) -> Vault {
        Vault::new(Arc::new(Trapped(Arc::clone(&self.trap))), "")
    }

    /// Copies the vault into an empty directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn copy_vault(&self, folder: &std::path::Path) -> std::io::Result<()> {
        let vault = self.vault();
        let files = self.live(async {
            let mut files = Vec::new();
            for file in vault.list("").await.map_err(text)? {
                files.push((vault.read(&file.path).await.map_err(text)?, file.path));
            }
            Ok(files)
        });
        for (bytes, path) in files.map_err(|broken| std::io::Error::other(format!("{broken:?}")))? {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            std::fs::write(path, bytes)?;
        }
        Ok(())
    }

    async fn capture(&self) -> Result<Capture, String> {
        let reader = Reader::new(Arc::new(self.bucket.clone()), Versioning::Enabled, false);
        let capture = Capture::open(self.vault(), self.resource.clone(), reader, self.clock.clone()).await.map_err(text)?;
        let server = SameServer { bucket: self.bucket.clone(), trap: Arc::clone(&self.trap) };
        Ok(capture.with_copying(Some(Copying::new(Arc::new(server), COPY_ABOVE_BYTES))))
    }

    /// Contents that lie in the vault whole.
    pub fn whole(&self) -> usize {
        let listed = self.trap.store.list(Some(&Path::from("body"))).collect::<Vec<_>>();
        self.live(async { Ok(listed.await.len()) }).expect("memory answers")
    }

    /// Runs a job to its end, or to the death of the process.
    fn live<T>(&self, job: impl Future<Output = Result<T, String>>) -> Result<T, Broken> {
        let mut job = pin!(job);
        let mut context = Context::from_waker(Waker::noop());
        self.trap.dead.store(false, Ordering::Relaxed);
        loop {
            match job.as_mut().poll(&mut context) {
                Poll::Ready(done) => return done.map_err(Broken::Failed),
                Poll::Pending if self.trap.dead.load(Ordering::Relaxed) => return Err(Broken::Crashed),
                Poll::Pending => {}
            }
        }
    }

    /// Makes a vault of what lies there, in which the bucket is protected.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn make_vault(&self) -> Result<(), Broken> {
        let protection = Protection {
            resource: self.resource.clone(),
            since: self.now(),
            how: How::Bucket(BucketProtection {
                events: Events::Webhook,
                endpoint: None,
                acls: false,
                unversioned: false,
                reconcile_seconds: RECONCILE_EVERY.as_secs(),
            }),
            status: Status::Active,
        };
        let folder = layout::state_folder(PROTECTIONS, &self.resource);
        self.live(async {
            handlers::vault::create(&self.vault(), "small", self.now()).await.map_err(text)?;
            self.vault().write_numbered(&folder, 1, &protection).await.map(drop).map_err(text)
        })
    }

    /// All events that wait become durable and are acknowledged.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn intake(&self) -> Result<(), Broken> {
        self.live(async {
            let capture = self.capture().await?;
            let mut intake = Intake::new(vec![capture], self.vault(), self.clock.clone(), false);
            intake.round(self.feed.as_ref()).await.map(drop).map_err(text)
        })
    }

    /// The same in rounds of one process, with so many seconds after each.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn intakes(&self, rounds: u32, seconds: i64) -> Result<(), Broken> {
        self.live(async {
            let capture = self.capture().await?;
            let mut intake = Intake::new(vec![capture], self.vault(), self.clock.clone(), false);
            for _ in 0..rounds {
                intake.round(self.feed.as_ref()).await.map_err(text)?;
                self.tick(seconds);
            }
            Ok(())
        })
    }

    /// Rounds of one process to which these buckets are said to be protected through the feed, of which only this one is open, and
    /// that waits half a minute for any other; with so many seconds after each. Says how many messages wait then.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn intakes_alone(&self, protected: &[&str], seconds: &[i64]) -> Result<Vec<usize>, Broken> {
        self.live(async {
            let capture = self.capture().await?;
            let protected = protected.iter().map(|name| ResourceId::bucket(name).map_err(text)).collect::<Result<_, _>>()?;
            let intake = Intake::new(Vec::new(), self.vault(), self.clock.clone(), false);
            let mut intake = intake.with_patience(std::time::Duration::from_secs(30));
            intake.serve(vec![capture], protected);
            let mut waiting = Vec::new();
            for seconds in seconds {
                intake.round(self.feed.as_ref()).await.map_err(text)?;
                waiting.push(self.waiting());
                self.tick(*seconds);
            }
            Ok(waiting)
        })
    }

    /// Another bucket, whose events come by the same feed.
    pub fn neighbour(&self) -> Neighbour {
        let away = Arc::new(Away::default());
        let bucket = MemoryBucket::new(Settings::aws(Neighbour::NAME, 9), self.clock.clone(), away.clone());
        bucket.set_versioning(Versioning::Enabled);
        Neighbour { bucket, away }
    }

    /// Rounds as of [`SmallWorld::intake`], of a feed that tells of two buckets; how many objects of the neighbour were kept.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn intake_beside(&self, neighbour: &Neighbour, rounds: u32) -> Result<u64, Broken> {
        self.live(async {
            let reader = Reader::new(Arc::new(neighbour.bucket.clone()), Versioning::Enabled, false);
            let resource = ResourceId::bucket(Neighbour::NAME).map_err(text)?;
            let beside = Capture::open(self.vault(), resource.clone(), reader, self.clock.clone()).await.map_err(text)?;
            let mut intake = Intake::new(vec![beside, self.capture().await?], self.vault(), self.clock.clone(), false);
            let mut kept = 0;
            for _ in 0..rounds {
                let report = intake.round(self.feed.as_ref()).await.map_err(text)?;
                kept += report.lags_ms.get(&resource).map_or(0, |lags| lags.len() as u64);
            }
            Ok(kept)
        })
    }

    /// Messages that were not acknowledged.
    pub fn waiting(&self) -> usize {
        self.feed.waiting().len()
    }

    /// What the vault says can be restored.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn window(&self) -> Result<Window, Broken> {
        self.live(async { Inventory::load(&self.vault(), &self.resource).await.map_err(text)?.window().ok_or_else(|| "none".to_owned()) })
    }

    /// The truth is read.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn reconcile(&self) -> Result<(), Broken> {
        self.live(async {
            let mut capture = self.capture().await?;
            reconcile(&mut capture, &Quiet).await.map(drop).map_err(text)
        })
    }

    /// Segments are merged, and a base is made.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn compact(&self) -> Result<(), Broken> {
        let policy = Policy { base_every: Duration::ZERO, base_now: true, ..Policy::default() };
        self.live(async { compact(&self.vault(), &self.resource, self.clock.as_ref(), policy).await.map(drop).map_err(text) })
    }

    /// An instant is restored into a bucket; without a mode, into an empty one.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn restore(&self, to: Timestamp, mode: impl Into<Option<Mode>>, into: &MemoryBucket) -> Result<RestoreReport, Broken> {
        self.restore_told(to, mode, into, &NobodyWatches)
    }

    /// The same, to somebody who hears of every object.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn restore_told(
        &self,
        to: Timestamp,
        mode: impl Into<Option<Mode>>,
        into: &MemoryBucket,
        progress: &dyn Progress,
    ) -> Result<RestoreReport, Broken> {
        let options = RestoreOptions { mode: mode.into(), ..RestoreOptions::default() };
        let request =
            RestoreRequest { resource: self.resource.clone(), to: RestorePoint::Time(to), certainty: Certainty::Arrived, options };
        let target: Arc<dyn Target> = Arc::new(BucketTarget::new(Arc::new(into.clone()), ""));
        self.live(async { restore(&self.vault(), &request, &target, self.clock.as_ref(), progress).await.map_err(text) })
    }

    /// An empty bucket to restore into.
    pub fn elsewhere(&self) -> MemoryBucket {
        let bucket = MemoryBucket::new(Settings::aws("elsewhere", 8), self.clock.clone(), Arc::new(crate::memory_bucket::NoHook));
        bucket.set_versioning(Versioning::Enabled);
        bucket
    }
}

impl Default for SmallWorld {
    fn default() -> SmallWorld {
        SmallWorld::new()
    }
}

fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a reader sees in a bucket.
pub fn contents(bucket: &MemoryBucket) -> Contents {
    let current = bucket.versions().into_iter().filter(|version| version.latest && !version.marker);
    current.filter_map(|version| Some((version.object.clone(), bucket.content(&version.object, &version.version)?))).collect()
}
