//! Killed while it captures: what was acknowledged is in the vault, and what was not is sent again.
//!
//! ```text
//!  traffic ─→ event ─┬→ POST ─→ 200: acknowledged ──────────────────┬→ after the kill the vault has it, nothing being started again
//!                    │    └─→ anything else, or nothing: posted to the next process
//!                    └→ queue ─→ DeleteMessage: acknowledged ───────┘
//!                         └─→ not deleted: the next process receives it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::{Stage, points, random_kills};
use crate::events::{Queue, event};
use crate::program::{Serving, ask};
use crate::record::Version;
use crate::restored::{UNWATCHED, restore_and_compare};
use crate::traffic::{Deed, Precision, Traffic, What, now};
use crate::world::{World, seaweed};

/// Checked by the process.
const TOKEN: &str = "sesame";
/// How long a process may take to come to a point.
const PATIENCE: Duration = Duration::from_secs(180);
/// Restores that are compared at the end.
const RESTORES: usize = 16;

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Posted,
    Queued,
}

/// Somebody whose events come again and again until they are acknowledged.
pub struct Sender {
    world: World,
    pub traffic: Traffic,
    vault: String,
    queue: Option<Queue>,
    waiting: Vec<Deed>,
    posts: Vec<(Deed, JoinHandle<bool>)>,
}

impl Sender {
    /// Has a bucket protected that already holds something, in a vault in a directory, by events that are posted.
    pub async fn new(bucket: &str) -> Sender {
        Sender::with(bucket, Way::Posted, "./vault").await
    }

    /// The same in some vault, by events that come some way.
    async fn with(bucket: &str, way: Way, vault: &str) -> Sender {
        let mut world = World::new(seaweed(), bucket, true).await;
        world.program = world.program.with([("HINDSIGHT_WEBHOOK_TOKEN", TOKEN)]);
        let mut traffic = Traffic::new(&world, Precision::Seconds, 12, 3);
        // What was removed before anybody had acknowledged it may be lost, and nobody is to blame.
        traffic.purgeable = Some(BTreeSet::new());
        for _ in 0..20 {
            traffic.work().await;
        }
        let queue = (way == Way::Queued).then(|| Queue::new(bucket));
        let events = queue.as_ref().map_or_else(|| "webhook".to_owned(), Queue::events);
        // A queue that hides what a killed process had received is not known to be empty for minutes: listings move the mark.
        let often = ["--reconcile-every", if way == Way::Queued { "5s" } else { "6h" }];
        world.program.ok(&[&["protect", &world.url(), "--vault", vault, "--events", &events], &often[..]].concat());
        Sender { world, traffic, vault: vault.to_owned(), queue, waiting: Vec::new(), posts: Vec::new() }
    }

    /// Works and posts to a process until it is to be killed, kills it, and checks that it kept what it had acknowledged.
    async fn kill_when(&mut self, mut serving: Serving, mut now_is_it: impl FnMut(&mut Serving) -> bool) {
        for deed in std::mem::take(&mut self.waiting) {
            self.post(deed, &serving.address);
        }
        let given_up = now().plus(PATIENCE);
        while !now_is_it(&mut serving) {
            assert!(now() < given_up, "it never came to that point");
            self.work(&[&serving.address]).await;
        }
        serving.running.kill();
        self.check_acknowledged();
        self.queue.iter().for_each(|queue| queue.server.release());
    }

    /// Starts a process that keeps the bucket.
    pub fn serve(&self, point: Option<&str>) -> Serving {
        self.world.program.serve_until(point, &["--vault", &self.vault])
    }

    /// Does one thing, and tells all of these, or the queue.
    pub async fn work(&mut self, addresses: &[&str]) {
        for deed in self.traffic.work().await {
            if let Some(queue) = &mut self.queue {
                queue.tell(&self.traffic.record, deed);
                continue;
            }
            addresses.iter().for_each(|address| self.post(deed.clone(), address));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// Merges and makes a base, in two processes at once.
    pub fn compact_twice(&self) {
        let url = self.world.url();
        let both = [(); 2].map(|()| self.world.program.start(None, &["compact", &url, "--vault", &self.vault, "--base-now"]));
        both.into_iter().for_each(|running| assert_eq!(running.end(), 0));
    }

    /// Whatever was acknowledged is in the vault, nobody having been started again; returns how much that is.
    pub fn check_acknowledged(&mut self) -> usize {
        let acknowledged = self.acknowledged();
        let keys: BTreeSet<&String> = acknowledged.iter().map(|deed| &deed.key).collect();
        let histories: BTreeMap<&String, Vec<Value>> = keys.into_iter().map(|key| (key, self.history(key))).collect();
        for deed in &acknowledged {
            let version = &self.traffic.record.objects[&deed.key][deed.index];
            assert!(is_kept(&histories[&deed.key], deed.what, version), "{deed:?} was acknowledged");
            self.traffic.purgeable.get_or_insert_default().insert(version.id.clone());
        }
        acknowledged.len()
    }

    fn post(&mut self, deed: Deed, address: &str) {
        let (address, event) = (address.to_owned(), event(&self.world.bucket, &self.traffic.record, &deed).to_string());
        let post = std::thread::spawn(move || {
            let head = format!("POST /webhook HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n");
            let request = format!("{head}Content-Length: {}\r\n\r\n{event}", event.len());
            ask(&address, &request).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        self.posts.push((deed, post));
    }

    /// Waits for all answers; what was not acknowledged waits for the next process.
    fn acknowledged(&mut self) -> Vec<Deed> {
        let mut acknowledged = self.queue.as_mut().map(Queue::acknowledged).unwrap_or_default();
        for (deed, post) in std::mem::take(&mut self.posts) {
            match post.join().expect("a post ends") {
                true => acknowledged.push(deed),
                false => self.waiting.push(deed),
            }
        }
        acknowledged
    }

    fn history(&self, key: &str) -> Vec<Value> {
        self.world.program.json(&["history", &format!("{}/{key}", self.world.url()), "--vault", &self.vault])
    }

    /// Lets a process end the work, and compares history and restores with the record.
    pub async fn complete(mut self) {
        let serving = self.serve(None);
        let mut given_up = now().plus(PATIENCE);
        while !self.waiting.is_empty() || self.queue.as_ref().is_some_and(|queue| queue.server.left() > 0) {
            assert!(now() < given_up, "it acknowledges nothing any more");
            for deed in std::mem::take(&mut self.waiting) {
                self.post(deed, &serving.address);
            }
            if self.check_acknowledged() > 0 {
                given_up = now().plus(PATIENCE);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.queue.iter().for_each(|queue| queue.server.release());
        }
        let program = &self.world.program;
        program.ok(&["status", "--vault", &self.vault, "--wait"]);
        let status = program.json(&["status", "--vault", &self.vault]);
        assert_eq!(serving.stop(), 0);
        let resource = &status[0]["vaults"][0]["resources"][0];
        assert_eq!(resource["lost"], 0, "{resource}");

        let record = &self.traffic.record;
        for (key, versions) in &record.objects {
            let history = self.history(key);
            for version in versions {
                let purges = history.iter().filter(|line| line["version"] == *version.id && line["change"] == "purge").count();
                let puts = history.iter().filter(|line| line["version"] == *version.id && line["change"] != "purge").count();
                let expected = (1, usize::from(version.purged.is_some()));
                assert_eq!((puts, purges), expected, "{key:?} ({}): {history:#?}", version.id);
            }
            let strangers = history.iter().filter(|line| versions.iter().all(|version| line["version"] != *version.id)).count();
            assert_eq!(strangers, 0, "{key:?} has versions that never were: {history:?}");
        }
        let earliest = resource["window"]["earliest"].as_str().and_then(|text| text.parse().ok()).expect("a time");
        let mut instants: Vec<_> = record.instants().into_iter().filter(|at| *at >= earliest).collect();
        self.traffic.random.shuffle(&mut instants);
        for at in instants.iter().take(RESTORES) {
            restore_and_compare(program, &self.world.url(), &self.vault, record, *at, UNWATCHED);
        }
    }
}

/// A history tells of something that was done to a version, with its content.
fn is_kept(history: &[Value], what: What, version: &Version) -> bool {
    history.iter().any(|line| {
        let told = match line["change"].as_str() {
            Some("put") => What::Put,
            Some("delete marker") => What::Marker,
            _ => What::Purge,
        };
        line["version"] == *version.id && told == what && line["lost"].is_null()
    })
}

/// Kills at each of these points, and then at random moments, and compares.
async fn kill_at_and_at_random(mut sender: Sender, points: impl Iterator<Item = &str>, random: u64) {
    for point in points {
        println!("{point}");
        let serving = sender.serve(Some(point));
        sender.kill_when(serving, |serving| serving.running.stands_by_now()).await;
    }
    for _ in 0..random {
        let serving = sender.serve(None);
        let until = now().plus(Duration::from_millis(sender.traffic.random.below(3_000)));
        sender.kill_when(serving, |_| now() >= until).await;
    }
    println!("{random} kills at random moments");
    sender.complete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_kill_at_every_point_of_capturing() {
    kill_at_and_at_random(Sender::new("kill-capture").await, points(Stage::Capturing), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_kills_at_random_moments() {
    kill_at_and_at_random(Sender::new("kill-random").await, std::iter::empty(), random_kills()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_to_a_queue_outlives_kills() {
    let sender = Sender::with("kill-queue", Way::Queued, "./vault").await;
    kill_at_and_at_random(sender, points(Stage::Capturing), random_kills() / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_kills_where_the_vault_is_in_a_bucket() {
    let vaults = World::new(seaweed(), "kill-vaults", false).await;
    let sender = Sender::with("kill-to-bucket", Way::Queued, &format!("{}/some/vault", vaults.url())).await;
    // Those of a directory are not come to.
    let points = points(Stage::Capturing).filter(|point| !point.starts_with("vault::"));
    kill_at_and_at_random(sender, points, random_kills() / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_of_several_pieces_outlive_kills_while_they_are_read() {
    let mut sender = Sender::new("kill-large").await;
    sender.traffic.large_percent = 12;
    // In the middle of a content, and between the packs of one.
    let points = ["pack::before-upload@2", "pack::after-upload@2", "pack::before-upload@3", "capture::bodies-stored@2"];
    kill_at_and_at_random(sender, points.into_iter(), random_kills() / 4).await;
}
