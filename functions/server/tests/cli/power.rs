//! The power goes: at any moment, with whatever a file system may forget. What was promised by then is there, and what is left
//! half done makes nothing unreadable or wrong.
//!
//! ```text
//!  the process, traced ─→ every write, name and sync, and what was promised after which of them
//!                          └─→ thousands of disks as they may be left ─→ each is opened, compared with the record, worked on
//! ```
//!
//! Promises are: an acknowledgement to the queue, and a command that came to a good end.

#[path = "power/target.rs"]
mod target;
#[path = "power/traced.rs"]
mod traced;
#[path = "power/vault.rs"]
mod vault;

use std::time::Duration;

use pipeline::model::ResourceId;
use tests::faults::{Call, Fault, How};
use tests::small_world::SmallWorld;

pub use self::target::Restores;
use self::traced::{DATA, Traced, VAULT};
use self::vault::{DONE, LISTED, PROTECTED};
pub use self::vault::{Expected, Now, text};
use super::events::Queue;
use super::program::Program;
use super::traffic::{Precision, Traffic, now};
use super::world::{World, seaweed};

/// How long a queue may take to become empty.
const PATIENCE: Duration = Duration::from_secs(180);

/// With fewer states of a disk something is amiss: how many there are depends on what the process kept together.
const STATES_MIN: usize = 100;

/// How many states of a disk are looked at.
fn states() -> usize {
    if std::env::var_os("SLOW").is_some() { usize::MAX } else { 1_200 }
}

/// Somebody who works on a bucket, whose events come by a queue, and whose vault is kept by processes that are traced.
struct Story {
    world: World,
    traffic: Traffic,
    queue: Queue,
    traced: Traced,
}

impl Story {
    async fn new(bucket: &str) -> Option<Story> {
        let world = World::new(seaweed(), bucket, true).await;
        let traced = Traced::new(&world.program)?;
        let mut traffic = Traffic::new(&world, Precision::Seconds, 6, 5);
        // Every byte that is written is written down, and kept in thousands of states.
        traffic.parts = 1;
        traffic.purgeable = Some(Default::default());
        for _ in 0..12 {
            traffic.work().await;
        }
        Some(Story { queue: Queue::new(bucket), world, traffic, traced })
    }

    fn protect(&self) -> [String; 8] {
        let words = ["protect", &self.world.url(), "--vault", VAULT, "--events", &self.queue.events(), "--reconcile-every", "2s"];
        words.map(str::to_owned)
    }

    /// Does something, and tells of it.
    async fn work(&mut self) {
        for deed in self.traffic.work().await {
            self.queue.tell(&self.traffic.record, deed);
        }
        let acknowledged = self.queue.acknowledged();
        let ids = acknowledged.iter().map(|deed| self.traffic.record.objects[&deed.key][deed.index].id.clone());
        self.traffic.purgeable.get_or_insert_default().extend(ids);
    }

    /// Keeps what somebody does so often, until all of it is acknowledged, in a process that is traced.
    async fn serve(&mut self, works: usize) {
        let serving = self.traced.serve(&mut self.world.program);
        for _ in 0..works {
            self.work().await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        let given_up = now().plus(PATIENCE);
        while self.queue.server.left() > 0 {
            assert!(now() < given_up, "{} messages are not acknowledged", self.queue.server.left());
            tokio::time::sleep(Duration::from_millis(500)).await;
            // What could not be read at once was left to come again.
            self.queue.server.release();
        }
        assert_eq!(serving.stop(), 0);
        self.traced.ended(&mut self.world.program);
    }

    /// From here on processes are killed when they begin to sync for the n-th time, before anything of that is done.
    fn kill_at(&mut self, sync: usize) {
        let folder = self.world.program.folder().join(DATA);
        let mark = self.world.program.folder().join("killed");
        let fault = Fault { call: Call::Sync, nth: sync, how: How::Killed, lasts: false, folder, mark, until: None };
        self.world.program.set_fault(Some(&fault));
    }

    /// Runs a command that is killed when it begins to sync for the n-th time. Says whether it came so far.
    fn kill(&mut self, arguments: &[&str], sync: usize) -> bool {
        self.kill_at(sync);
        self.traced.next(&mut self.world.program);
        let ended = self.world.program.run(arguments);
        self.world.program.set_fault(None);
        match ended.code {
            -1 => self.traced.killed(&mut self.world.program),
            _ => self.traced.ended(&mut self.world.program),
        }
        ended.code == -1
    }

    /// Keeps what somebody does until it is killed when it begins to sync for the n-th time.
    async fn serve_and_kill(&mut self, sync: usize) {
        self.kill_at(sync);
        let mut serving = self.traced.serve(&mut self.world.program);
        let given_up = now().plus(PATIENCE);
        while !serving.running.has_ended() {
            assert!(now() < given_up, "it has not synced {sync} times");
            self.work().await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        serving.running.end();
        self.world.program.set_fault(None);
        self.traced.killed(&mut self.world.program);
        self.queue.server.release();
    }

    fn run(&mut self, arguments: &[&str], promise: u64) {
        self.traced.ok(&mut self.world.program, arguments, promise);
    }

    fn expected(&self) -> Expected<'_> {
        let listed = self.traffic.record.objects.iter().map(|(key, versions)| (key.clone(), versions.len())).collect();
        let resource = ResourceId::bucket(&self.world.bucket).expect("a name");
        Expected { resource, record: &self.traffic.record, deeds: &self.queue.deeds, listed }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_outlives_a_loss_of_power_at_any_moment() {
    let Some(mut story) = Story::new("power-keep").await else { return };
    let (url, protect) = (story.world.url(), story.protect());
    story.run(&protect.each_ref().map(String::as_str), PROTECTED);
    story.serve(20).await;
    let listed = story.expected().listed;
    story.run(&["reconcile", &url, "--vault", VAULT], LISTED);
    story.run(&["compact", &url, "--vault", VAULT, "--base-now"], DONE);
    story.serve(12).await;
    story.run(&["compact", &url, "--vault", VAULT, "--base-now"], DONE);
    let expected = Expected { listed, ..story.expected() };
    let looked_at = story.traced.check(states(), |folder, promises| expected.check(folder, promises));
    assert!(looked_at >= STATES_MIN, "{looked_at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_promises_outlives_a_loss_of_power_after_one_was_killed() {
    let Some(mut story) = Story::new("power-kill").await else { return };
    let (url, protect) = (story.world.url(), story.protect());
    let protect = protect.each_ref().map(String::as_str);
    // Each goes on where the one before was killed, and what that left may not be durable.
    let mut sync = 1;
    while story.kill(&protect, sync) {
        sync += 2;
    }
    story.run(&protect, PROTECTED);
    for sync in [3, 8, 13, 20] {
        story.serve_and_kill(sync).await;
    }
    story.serve(4).await;
    let compact = ["compact", &url, "--vault", VAULT, "--base-now"];
    for sync in [2, 3, 5] {
        story.kill(&compact, sync);
    }
    story.run(&compact, DONE);
    let listed = story.expected().listed;
    story.run(&["reconcile", &url, "--vault", VAULT], LISTED);
    let expected = Expected { listed, ..story.expected() };
    let looked_at = story.traced.check(states(), |folder, promises| expected.check(folder, promises));
    assert!(looked_at >= STATES_MIN, "{looked_at}");
}

/// A vault with a history of keys that get into each other's way as files, and two instants of it.
pub fn in_each_others_way() -> (SmallWorld, [usize; 2]) {
    let mut world = SmallWorld::new();
    world.put("first", "1");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    let mut put = |objects: &[(&str, &str)]| {
        for (object, content) in objects {
            world.tick(1);
            world.put(object, content);
        }
        world.instants().len() - 1
    };
    // An object in whose place there will be a folder, and a folder in whose place there will be an object.
    let one = put(&[("a", "a one"), ("b/c", "b/c one"), ("deep/er/still", "deep"), ("same", "the same"), ("empty", ""), ("x/y", "x/y")]);
    let other = put(&[("a/1", "below a"), ("b", "b two"), ("same/too", "the same too"), ("deep/er/still", "deeper"), ("new/new", "new")]);
    world.delete("x/y");
    world.delete("b/c");
    let other = other + 2;
    world.tick(2);
    world.intake().expect("nothing fails");
    world.make_vault().expect("nothing fails");
    (world, [one, other])
}

#[test]
fn what_was_restored_outlives_a_loss_of_power_at_any_moment() {
    let mut program = Program::new();
    let Some(_) = Traced::new(&program) else { return };
    let (world, instants) = in_each_others_way();
    let vault = program.folder().join(VAULT);
    std::fs::create_dir_all(&vault).expect("a folder");
    world.copy_vault(&vault).expect("files");
    let mut traced = Traced::new(&program).expect("it was possible a moment ago");
    let (url, out) = ("s3://photos", format!("./{DATA}/out"));
    // There, and to the other, and back.
    let steps: Vec<_> = [instants[0], instants[1], instants[0]].map(|index| world.instants()[index]).into();
    for (promise, at) in steps.iter().enumerate() {
        let to = at.to_string();
        let restore = ["restore", url, "--vault", VAULT, "--to", &to, "--target", &out, "--mode", "exact", "--yes"];
        traced.ok(&mut program, &restore, promise as u64);
    }
    let resource = ResourceId::bucket("photos").expect("a name");
    let restores = Restores { resource, steps: steps.into_iter().map(|at| (at, world.at(at))).collect() };
    let looked_at = traced.check(states(), |folder, promises| restores.check(folder, promises));
    assert!(looked_at >= STATES_MIN, "{looked_at}");
}
