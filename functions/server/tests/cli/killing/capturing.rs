//! Killed while it captures: what was answered with 200 is in the vault, and what was not is sent again.
//!
//! ```text
//!  traffic ─→ event ─→ POST ─→ 200: acknowledged ─→ after the kill the vault has it, nothing being started again
//!                       └─→ anything else, or nothing: posted to the next process
//! ```

use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Stage, points, random_kills};
use crate::program::{Serving, ask};
use crate::restored::restore_and_compare;
use crate::traffic::{Deed, Precision, Traffic, What, now};
use crate::world::{World, seaweed};

/// Checked by the process.
const TOKEN: &str = "sesame";
/// How long a process may take to come to a point.
const PATIENCE: Duration = Duration::from_secs(60);
/// Restores that are compared at the end.
const RESTORES: usize = 16;

/// Somebody whose events are posted, again and again until they are acknowledged.
pub struct Sender {
    world: World,
    pub traffic: Traffic,
    waiting: Vec<Deed>,
    posts: Vec<(Deed, JoinHandle<bool>)>,
}

impl Sender {
    /// Has a bucket protected that already holds something.
    pub async fn new(bucket: &str) -> Sender {
        let mut world = World::new(seaweed(), bucket, true).await;
        world.program = world.program.with([("HINDSIGHT_WEBHOOK_TOKEN", TOKEN)]);
        let mut traffic = Traffic::new(&world, Precision::Seconds, 12, 3);
        // What was removed before anybody had acknowledged it may be lost, and nobody is to blame.
        traffic.purgeable = Some(BTreeSet::new());
        for _ in 0..20 {
            traffic.work().await;
        }
        world.program.ok(&["protect", &world.url(), "--vault", "./vault", "--events", "webhook"]);
        Sender { world, traffic, waiting: Vec::new(), posts: Vec::new() }
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
    }

    /// Starts a process that keeps the bucket.
    pub fn serve(&self, point: Option<&str>) -> Serving {
        self.world.program.serve_until(point, &["--vault", "./vault"])
    }

    /// Does one thing, and posts it to all of these.
    pub async fn work(&mut self, addresses: &[&str]) {
        for deed in self.traffic.work().await {
            addresses.iter().for_each(|address| self.post(deed.clone(), address));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// Merges and makes a base, in two processes at once.
    pub fn compact_twice(&self) {
        let url = self.world.url();
        let both = [(); 2].map(|()| self.world.program.start(None, &["compact", &url, "--vault", "./vault", "--base-now"]));
        both.into_iter().for_each(|running| assert_eq!(running.end(), 0));
    }

    /// Whatever was acknowledged is in the vault, nobody having been started again.
    pub fn check_acknowledged(&mut self) {
        for deed in self.acknowledged() {
            assert!(self.is_kept(&deed), "{deed:?} was acknowledged");
            let version = &self.traffic.record.objects[&deed.key][deed.index];
            self.traffic.purgeable.get_or_insert_default().insert(version.id.clone());
        }
    }

    fn post(&mut self, deed: Deed, address: &str) {
        let (address, event) = (address.to_owned(), self.event(&deed).to_string());
        let post = std::thread::spawn(move || {
            let head = format!("POST /webhook HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n");
            let request = format!("{head}Content-Length: {}\r\n\r\n{event}", event.len());
            ask(&address, &request).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        self.posts.push((deed, post));
    }

    /// Waits for all answers; what was not acknowledged waits for the next process.
    fn acknowledged(&mut self) -> Vec<Deed> {
        let mut acknowledged = Vec::new();
        for (deed, post) in std::mem::take(&mut self.posts) {
            match post.join().expect("a post ends") {
                true => acknowledged.push(deed),
                false => self.waiting.push(deed),
            }
        }
        acknowledged
    }

    fn history(&self, key: &str) -> Vec<Value> {
        self.world.program.json(&["history", &format!("{}/{key}", self.world.url()), "--vault", "./vault"])
    }

    fn is_kept(&self, deed: &Deed) -> bool {
        let version = &self.traffic.record.objects[&deed.key][deed.index];
        self.history(&deed.key).iter().any(|line| {
            let what = match line["change"].as_str() {
                Some("put") => What::Put,
                Some("delete marker") => What::Marker,
                _ => What::Purge,
            };
            line["version"] == *version.id && what == deed.what && line["lost"].is_null()
        })
    }

    /// An event as EventBridge wraps it.
    fn event(&self, deed: &Deed) -> Value {
        let version = &self.traffic.record.objects[&deed.key][deed.index];
        let (name, reason, deletion) = match deed.what {
            What::Put => ("Object Created", "PutObject", None),
            What::Marker => ("Object Deleted", "DeleteObject", Some("Delete Marker Created")),
            What::Purge => ("Object Deleted", "DeleteObject", Some("Permanently Deleted")),
        };
        let at = version.purged.filter(|_| deed.what == What::Purge).map_or(version.at, |(_, until)| until.floor_second());
        json!({
            "version": "0", "id": "0", "detail-type": name, "source": "aws.s3", "time": at, "region": "us-east-1",
            "resources": [format!("arn:aws:s3:::{}", self.world.bucket)],
            "detail": {
                "version": "0", "bucket": { "name": self.world.bucket }, "reason": reason, "deletion-type": deletion,
                "object": { "key": deed.key, "size": version.content.len(), "etag": version.etag, "version-id": version.id },
            },
        })
    }

    /// Lets a process end the work, and compares history and restores with the record.
    pub fn complete(mut self) {
        let serving = self.serve(None);
        while !self.waiting.is_empty() {
            for deed in std::mem::take(&mut self.waiting) {
                self.post(deed, &serving.address);
            }
            self.check_acknowledged();
        }
        let program = &self.world.program;
        program.ok(&["status", "--vault", "./vault", "--wait"]);
        let status = program.json(&["status", "--vault", "./vault"]);
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
            restore_and_compare(program, &self.world.url(), "./vault", record, *at);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_kill_at_every_point_of_capturing() {
    let mut sender = Sender::new("kill-capture").await;
    for point in points(Stage::Capturing) {
        println!("{point}");
        let serving = sender.serve(Some(point));
        sender.kill_when(serving, |serving| serving.running.stands_by_now()).await;
    }
    sender.complete();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_kills_at_random_moments() {
    let mut sender = Sender::new("kill-random").await;
    for _ in 0..random_kills() {
        let serving = sender.serve(None);
        let until = now().plus(Duration::from_millis(sender.traffic.random.below(3_000)));
        sender.kill_when(serving, |_| now() >= until).await;
    }
    sender.complete();
}
