//! What users do to the bucket, and what becomes of the events of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pipeline::model::{Clock, Digest, Timestamp};
use pipeline::s3::{NULL_VERSION, ObjectMetadata, PutRequest, Tags, Versioning};

use super::bugs::Bug;
use super::door::DISGUISED_NULL;
use super::event::{event, message, told};
use super::oracle::{Oracle, Version};
use super::queue::Queue;
use super::swarm::{Form, Versions};
use super::world::World;
use crate::memory_bucket::{Effect, Happened, MemoryBucket, UploadId};

/// Keys of every odd kind.
const ODD_KEYS: [&str; 12] = [
    "a b",
    "a+b",
    "a%2Fb",
    "../up",
    "/leading",
    "trailing/",
    "two//slashes",
    "ü/€/😀",
    "e\u{301}",
    "line\nfeed",
    "a\u{1}b",
    "version?versionId=null",
];

/// The users of the bucket.
pub struct Workload {
    /// The world.
    pub world: Arc<World>,
    /// The bucket, undisturbed.
    pub bucket: MemoryBucket,
    /// Where events go.
    pub queue: Arc<Queue>,
    /// The books.
    pub oracle: Arc<Mutex<Oracle>>,
    /// Whether events are sent.
    pub events_on: bool,
    keys: Vec<String>,
    uploads: Vec<(UploadId, String, PutRequest, u64, Timestamp)>,
    tags_set: u64,
    sequence: u64,
    /// Events that wait to be sent in one message with the next.
    held: Vec<(serde_json::Value, String, usize)>,
}

impl Workload {
    /// Users who have done nothing yet.
    pub fn new(world: Arc<World>, bucket: MemoryBucket, queue: Arc<Queue>, oracle: Arc<Mutex<Oracle>>) -> Workload {
        let swarm = &world.swarm;
        let mut keys: Vec<String> =
            (0..swarm.keys).map(|index| if index % 3 == 0 { format!("k{index}") } else { format!("dir/k{index}") }).collect();
        if swarm.odd_keys {
            for key in keys.iter_mut().skip(1).step_by(2) {
                *key = world.random.pick(&ODD_KEYS).to_owned();
            }
            keys.push("x".repeat(1_024));
            keys.sort();
            keys.dedup();
        }
        Workload { world, bucket, queue, oracle, events_on: false, keys, uploads: Vec::new(), tags_set: 0, sequence: 0, held: Vec::new() }
    }

    /// What was there before anybody thought of a backup.
    pub fn before(&mut self) {
        let swarm = self.world.swarm.clone();
        self.bucket.set_versioning(if swarm.versions == Versions::EnabledLate { Versioning::Never } else { Versioning::Enabled });
        for _ in 0..swarm.before_protection {
            self.world.pass(self.world.random.below(3_000_000) as i64);
            self.put();
        }
        self.bucket.set_versioning(Versioning::Enabled);
        self.bucket.set_document("notification", Some("<EventBridgeConfiguration/>"));
        self.events_on = true;
    }

    /// Everything the users do.
    pub async fn run(&mut self) {
        for _ in 0..self.world.swarm.operations {
            if !self.world.random.percent(self.world.swarm.same_instant_percent) {
                let gap = 1 + self.world.random.below(2 * self.world.swarm.gap_ms);
                self.world.sleep(Duration::from_millis(gap)).await;
            }
            self.step();
        }
        for (upload, object, request, order, began) in std::mem::take(&mut self.uploads) {
            self.complete(upload, &object, &request, order, began);
        }
        self.events(true);
        self.flush();
    }

    fn step(&mut self) {
        let world = Arc::clone(&self.world);
        let (random, swarm) = (&world.random, &world.swarm);
        world.count(|counts| counts.operations += 1);
        let weights = [
            swarm.put,
            swarm.delete,
            swarm.undelete,
            swarm.purge_newest,
            swarm.purge_older,
            swarm.multipart,
            swarm.tag,
            swarm.events_switched,
            if swarm.versions == Versions::Suspended { 4 } else { 0 },
        ];
        let mut drawn = random.below(weights.iter().sum());
        let what = weights.iter().position(|&weight| {
            let here = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            here
        });
        let object = self.keys[random.index(self.keys.len())].clone();
        match what {
            Some(1) => {
                if let Some(happened) = self.bucket.delete(&object) {
                    self.appeared(&happened, Digest::of(b""), ObjectMetadata::default(), Tags::new(), None);
                }
            }
            Some(2) => {
                let current =
                    self.bucket.versions().into_iter().find(|version| version.object == object && version.latest && version.marker);
                if let Some(marker) = current {
                    world.mark("undelete");
                    self.purge(&object, &marker.version);
                }
            }
            Some(kind @ (3 | 4)) => {
                let versions: Vec<_> = self
                    .bucket
                    .versions()
                    .into_iter()
                    .filter(|version| version.object == object && version.latest == (kind == 3))
                    .collect();
                if !versions.is_empty() {
                    let version = versions[random.index(versions.len())].version.clone();
                    self.purge(&object, &version);
                }
            }
            Some(5) => self.multipart(&object),
            Some(6) => self.tag(&object),
            Some(7) => self.events(!self.events_on),
            Some(8) => {
                let suspended = random.percent(50);
                self.bucket.set_versioning(if suspended { Versioning::Suspended } else { Versioning::Enabled });
            }
            _ => self.put(),
        }
    }

    fn events(&mut self, on: bool) {
        if self.events_on == on {
            return;
        }
        self.events_on = on;
        self.world.mark("events switched");
        self.bucket.set_document("notification", on.then_some("<EventBridgeConfiguration/>"));
    }

    fn request(&self) -> PutRequest {
        let random = &self.world.random;
        let mut metadata =
            ObjectMetadata { content_type: Some(random.pick(&["text/plain", "image/png"]).to_owned()), ..ObjectMetadata::default() };
        if random.percent(30) {
            metadata.cache_control = Some("no-cache".to_owned());
            metadata.user.insert("colour".to_owned(), format!("c{}", random.below(9)));
        }
        let mut tags = Tags::new();
        if random.percent(20) {
            tags.insert("project".to_owned(), format!("p{}", random.below(9)));
        }
        PutRequest { metadata, tags, ..PutRequest::default() }
    }

    fn content(&self) -> Bytes {
        let id = self.world.random.below(self.world.swarm.contents);
        let length = [0, 5, 40, 200, 700][(id % 5) as usize];
        let byte = |index: u64| (id.wrapping_mul(2_654_435_761).wrapping_add(index / 3) >> (index % 8)) as u8;
        (0..length).map(byte).collect::<Vec<u8>>().into()
    }

    fn put(&mut self) {
        let object = self.keys[self.world.random.index(self.keys.len())].clone();
        let (request, content) = (self.request(), self.content());
        let digest = Digest::of(&content);
        let happened = self.bucket.put_object(&object, &request, content).expect("its key and tags are legal");
        self.appeared(&happened, digest, request.metadata, request.tags, None);
    }

    fn multipart(&mut self, object: &str) {
        if let Some((upload, object, request, order, began)) = self.uploads.pop() {
            return self.complete(upload, &object, &request, order, began);
        }
        let request = self.request();
        let upload = self.bucket.begin_upload(object, &request).expect("its key and tags are legal");
        let order = self.books(Oracle::next_order);
        self.uploads.push((upload, object.to_owned(), request, order, self.world.now()));
    }

    fn complete(&mut self, upload: UploadId, object: &str, request: &PutRequest, order: u64, _began: Timestamp) {
        let content = self.content();
        let digest = Digest::of(&content);
        let happened = self.bucket.complete_upload(upload, content).expect("nobody aborts uploads");
        self.world.mark("multipart upload");
        let order = (happened.version != NULL_VERSION).then_some(order);
        debug_assert_eq!(object, happened.object);
        self.appeared(&happened, digest, request.metadata.clone(), request.tags.clone(), order);
    }

    fn books<T>(&self, look: impl FnOnce(&mut Oracle) -> T) -> T {
        look(&mut self.oracle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A version or marker is there.
    fn appeared(&mut self, happened: &Happened, digest: Digest, metadata: ObjectMetadata, tags: Tags, order: Option<u64>) {
        let form = self.world.swarm.form;
        let change = self.books(|books| {
            let change = books.change(happened.at, told(form, happened.at));
            if happened.overwrote_null
                && let Some(before) = books.live(&happened.object, NULL_VERSION)
            {
                before.purge = Some(change);
            }
            let order = order.unwrap_or_else(|| books.next_order());
            books.born(Version {
                object: happened.object.clone(),
                id: happened.version.clone(),
                marker: happened.marker,
                order,
                digest,
                size: happened.size.unwrap_or(0) as u64,
                metadata,
                listed: happened.modified,
                in_parts: happened.effect == Effect::PutInParts,
                put: change,
                purge: None,
                tags: vec![(change, tags)],
            });
            change
        });
        self.tell(happened, change);
    }

    fn purge(&mut self, object: &str, version: &str) {
        let Some(happened) = self.bucket.purge(object, version) else { return };
        let form = self.world.swarm.form;
        let change = self.books(|books| {
            let change = books.change(happened.at, told(form, happened.at));
            books.live(object, version).expect("what is purged was there").purge = Some(change);
            change
        });
        self.tell(&happened, change);
    }

    fn tag(&mut self, object: &str) {
        self.tags_set += 1;
        let tags = Tags::from([("n".to_owned(), self.tags_set.to_string())]);
        let Ok(happened) = self.bucket.tag(object, None, &tags) else { return };
        let form = self.world.swarm.form;
        let change = self.books(|books| {
            let change = books.change(happened.at, told(form, happened.at));
            books.live(object, &happened.version).expect("what is tagged is there").tags.push((change, tags));
            change
        });
        self.tell(&happened, change);
    }

    /// The event of a change goes its way, or does not.
    fn tell(&mut self, happened: &Happened, change: usize) {
        let world = Arc::clone(&self.world);
        let (random, swarm) = (&world.random, &world.swarm);
        world.trace(|| format!("{:?} of {:?} {} {change}", happened.effect, happened.object, happened.version));
        if !self.events_on || random.percent(swarm.lost_percent) {
            world.mark("event lost");
            return;
        }
        if happened.effect == Effect::Marker && world.has(Bug::MarkerIgnored) {
            return;
        }
        self.sequence += 1;
        let sequencer = match world.bug {
            Some(Bug::OrderByTime) => format!("{:016X}", told(swarm.form, happened.at).micros()),
            _ => happened.sequencer.clone(),
        };
        let mut happened = happened.clone();
        if world.has(Bug::NullVersion) && happened.version == NULL_VERSION {
            happened.version = DISGUISED_NULL.to_owned();
        }
        let event = event(swarm.form, &self.bucket_name(), &happened, &sequencer);
        self.held.push((event, sequencer, change));
        if !random.percent(15) {
            self.flush();
        }
    }

    fn bucket_name(&self) -> String {
        use pipeline::s3::Bucket as _;
        self.bucket.name().to_owned()
    }

    /// Sends the events that wait.
    fn flush(&mut self) {
        let world = Arc::clone(&self.world);
        let (random, swarm) = (&world.random, &world.swarm);
        if self.held.is_empty() {
            return;
        }
        let (mut events, mut sequencers, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (event, sequencer, change) in std::mem::take(&mut self.held) {
            events.push(event);
            sequencers.push(sequencer);
            changes.push(change);
        }
        let wrapping = random.below(if swarm.form == Form::Blind { 40 } else { 20 });
        let body = message(swarm.form, events, wrapping);
        let copies = 1 + u64::from(random.percent(swarm.twice_percent));
        for _ in 0..copies {
            let late = random.percent(swarm.late_percent);
            let delay = if late { random.below(swarm.late_ms) } else { random.below(300) };
            self.queue.send(body.clone(), sequencers.clone(), changes.clone(), world.now().plus(Duration::from_millis(delay)));
        }
    }
}
