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
mod jobs;
mod trap;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use handlers::capture::Capture;
use handlers::copying::Copying;
use pipeline::changelog::segments;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::s3::{ListedVersion, PutRequest, Versioning};
use pipeline::source::s3_read::Reader;
use pipeline::vault::{Vault, layout};

use self::copier::SameServer;
use self::feed::{Away, Feed};
pub use self::feed::{Hidden, Neighbour};
use self::trap::Trapped;
pub use self::trap::{FAULTS, Fault, Trap};
use crate::memory_bucket::{Effect, Happened, Hook, MemoryBucket, Settings};

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
    acls: bool,
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
        SmallWorld { bucket, trap: Trap::new(), clock, feed, resource, history: Vec::new(), acls: false }
    }

    /// A world of whose bucket ACLs are kept, too.
    pub fn with_acls() -> SmallWorld {
        SmallWorld { acls: true, ..SmallWorld::new() }
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

    /// What happened is told and listed, and a minute goes by.
    pub fn keep(&mut self) {
        self.tick(3);
        self.intake().expect("nothing fails");
        self.reconcile().expect("nothing fails");
        self.tick(60);
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

    /// From now on nobody sees tags and ACLs of objects whose names begin so, or everybody all again.
    pub fn hide_properties(&self, hidden: Option<(Hidden, &'static str)>) {
        *self.feed.hidden.lock().unwrap_or_else(PoisonError::into_inner) = hidden;
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
        let reader = Reader::new(Arc::new(self.bucket.clone()), Versioning::Enabled, self.acls);
        let capture = Capture::open(self.vault(), self.resource.clone(), reader, self.clock.clone()).await.map_err(text)?;
        let server = SameServer { bucket: self.bucket.clone(), trap: Arc::clone(&self.trap) };
        Ok(capture.with_copying(Some(Copying::new(Arc::new(server), COPY_ABOVE_BYTES))))
    }

    /// Contents that lie in the vault whole.
    pub fn whole(&self) -> usize {
        self.trap.paths("body/").len()
    }

    /// An empty bucket to restore into.
    pub fn elsewhere(&self) -> MemoryBucket {
        self.elsewhere_with(Arc::new(crate::memory_bucket::NoHook))
    }

    /// The same, with somebody who has a hand in every request to it.
    pub fn elsewhere_with(&self, hook: Arc<dyn crate::memory_bucket::Hook>) -> MemoryBucket {
        let bucket = MemoryBucket::new(Settings::aws("elsewhere", 8), self.clock.clone(), hook);
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
