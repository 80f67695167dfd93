//! A disk that is full, that breaks, or that takes no large file, under the real process: nothing is acknowledged that is
//! not kept, nothing torn is visible, the error names the file and what to do, and it goes on once the trouble is over.
//!
//! ```text
//!  the n-th sync, write, link ... fails ─→ an error, and no acknowledgement ─→ space again ─→ all of it is kept
//!                                   └─→ a folder's sync: nothing more is written until it is started again
//! ```

use std::path::PathBuf;
use std::time::Duration;

use pipeline::model::ResourceId;
use serde_json::Value;
use tests::faults::{Call, Fault, How};
use tests::small_world::SmallWorld;

use super::events::Queue;
use super::power::{Expected, Restores, in_each_others_way};
use super::program::{Program, Serving};
use super::traffic::{Precision, Traffic, now};
use super::world::{World, seaweed};

/// How long something may take to come about.
const PATIENCE: Duration = Duration::from_secs(180);
/// Which calls of a kind fail, one after the other: every third, or each.
fn nths() -> impl Iterator<Item = usize> {
    (1..CALLS_MAX).step_by(if is_slow() { 1 } else { 3 })
}

fn is_slow() -> bool {
    std::env::var_os("SLOW").is_some()
}

/// More calls of a kind than any command here makes.
const CALLS_MAX: usize = 200;
/// What everything lies in.
const DATA: &str = "data";
const VAULT: &str = "./data/vault";

/// The ways in which each call fails, and what the error says to do.
const FAULTS: [(Call, How, &str); 6] = [
    (Call::Sync, How::Broken, "check the disk"),
    (Call::Write, How::Full, "make room"),
    (Call::Write, How::Broken, "check the disk"),
    (Call::Create, How::Quota, "make room"),
    (Call::Link, How::Full, "make room"),
    (Call::MakeFolder, How::Full, "make room"),
];

fn fault(program: &Program, call: Call, how: How, nth: usize) -> Fault {
    let at = |name: &str| program.folder().join(name);
    Fault { call, how, nth, lasts: false, folder: at(DATA), mark: at("struck"), until: Some(at("lifted")) }
}

/// Whether a disk can fail here; where not, says so.
fn can_fail() -> bool {
    let hindrance = tests::faults::hindrance();
    hindrance.iter().for_each(|reason| println!("SKIPPED: {reason}"));
    hindrance.is_none()
}

/// Forgets an earlier fault, and says whether it has struck.
fn has_struck(fault: &Fault) -> bool {
    let struck = fault.mark.exists();
    for file in [Some(&fault.mark), fault.until.as_ref()].into_iter().flatten().filter(|file| file.exists()) {
        std::fs::remove_file(file).expect("a file that can be removed");
    }
    struck
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protection_fails_by_name_wherever_the_disk_does_and_is_made_afterwards() {
    if !can_fail() {
        return;
    }
    let mut world = World::new(seaweed(), "fault-protect", true).await;
    let url = world.url();
    let mut struck = 0;
    for (call, how, advice) in FAULTS {
        for nth in nths() {
            let program = &mut world.program;
            let vault = format!("./{DATA}/{call:?}-{how:?}-{nth}");
            let protect = ["protect", &url, "--vault", &vault, "--events", "list:60"];
            let fault = fault(program, call, how, nth);
            program.set_fault(Some(&fault));
            let ended = program.run(&protect);
            program.set_fault(None);
            if !has_struck(&fault) {
                assert_eq!(ended.code, 0, "{}", ended.errors);
                break;
            }
            struck += 1;
            let what = format!("{call:?} {nth} {how:?}: {}", ended.errors);
            assert_eq!(ended.code, 1, "{what}");
            assert!(ended.errors.contains(&format!("/{call:?}-{how:?}-{nth}")) && ended.errors.contains(advice), "{what}");
            program.ok(&protect);
            let status = program.json(&["status", "--vault", &vault]);
            assert_eq!(status[0]["vaults"][0]["resources"][0]["protection"]["status"], "ACTIVE", "{what}");
        }
    }
    println!("{struck} faults of the disk");
    assert!(struck > if is_slow() { 40 } else { 15 }, "{struck}");
}

/// A bucket whose events come by a queue, and a vault that is protected already.
struct Kept {
    world: World,
    traffic: Traffic,
    queue: Queue,
}

impl Kept {
    async fn new(bucket: &str) -> Kept {
        let world = World::new(seaweed(), bucket, true).await;
        let mut traffic = Traffic::new(&world, Precision::Seconds, 8, 3);
        traffic.parts = 1;
        traffic.purgeable = Some(Default::default());
        for _ in 0..6 {
            traffic.work().await;
        }
        let queue = Queue::new(bucket);
        std::fs::create_dir_all(world.program.folder().join(DATA)).expect("a folder");
        world.program.ok(&["protect", &world.url(), "--vault", VAULT, "--events", &queue.events(), "--reconcile-every", "5s"]);
        Kept { world, traffic, queue }
    }

    async fn work(&mut self, times: usize) {
        for _ in 0..times {
            for deed in self.traffic.work().await {
                self.queue.tell(&self.traffic.record, deed);
            }
            let acknowledged = self.queue.acknowledged();
            let ids = acknowledged.iter().map(|deed| self.traffic.record.objects[&deed.key][deed.index].id.clone());
            self.traffic.purgeable.get_or_insert_default().extend(ids);
        }
    }

    fn serve(&self) -> Serving {
        self.world.program.serve(&["--vault", VAULT])
    }

    /// Waits, while what was left to come again does; says whether it came about.
    async fn comes_about(&self, mut it: impl FnMut() -> bool) -> bool {
        let given_up = now().plus(PATIENCE);
        while !it() {
            if now() >= given_up {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.queue.server.release();
        }
        true
    }

    /// Everything that was acknowledged so far is kept, and nothing else than what happened.
    fn check(&self, what: &str) {
        let expected = Expected {
            resource: ResourceId::bucket(&self.world.bucket).expect("a name"),
            record: &self.traffic.record,
            deeds: &self.queue.deeds,
            listed: Default::default(),
        };
        let (promises, folder) = (self.queue.server.deleted(), self.world.program.folder().join(DATA));
        // A thread of its own: this one belongs to the test's runtime.
        let checked = std::thread::scope(|scope| scope.spawn(|| expected.look_only(&folder, &promises)).join());
        checked.expect("it does not panic").unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
    }

    /// Lets a process keep all that is left, with nothing in its way.
    async fn complete(&mut self, what: &str) {
        let serving = self.serve();
        assert!(self.comes_about(|| self.queue.server.left() == 0).await, "{what}: {} messages are left", self.queue.server.left());
        assert_eq!(serving.stop(), 0);
        self.check(what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_refuses_is_not_acknowledged_and_is_kept_once_it_takes_it() {
    if !can_fail() {
        return;
    }
    let mut kept = Kept::new("fault-serve").await;
    for (call, how, advice) in FAULTS {
        for &nth in if is_slow() { &[1, 4, 9][..] } else { &[4] } {
            let what = format!("{call:?} {nth} {how:?}");
            let fault = Fault { lasts: true, ..fault(&kept.world.program, call, how, nth) };
            kept.world.program.set_fault(Some(&fault));
            let serving = kept.serve();
            kept.world.program.set_fault(None);
            let given_up = now().plus(PATIENCE);
            while !fault.mark.exists() {
                assert!(now() < given_up, "{what}: it never struck");
                kept.work(1).await;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            kept.work(3).await;
            // One round at least fails while nothing is taken.
            assert!(kept.comes_about(|| serving.running.log().contains(advice)).await, "{what}: {}", serving.running.log());
            kept.check(&what);
            std::fs::write(fault.until.as_ref().expect("it is set"), "").expect("a file");
            let refusals = || serving.running.log().matches("start it again").count();
            assert!(kept.comes_about(|| kept.queue.server.left() == 0 || refusals() > 0).await, "{what}: {}", serving.running.log());
            if refusals() > 0 {
                // Nothing is taken for synced because it was tried again. What is on its way has come by the next refusal.
                let mut acknowledged = [0; 2];
                for acknowledged in &mut acknowledged {
                    let before = refusals();
                    assert!(kept.comes_about(|| refusals() > before).await, "{what}: {}", serving.running.log());
                    *acknowledged = kept.queue.server.deleted().len();
                }
                assert_eq!(acknowledged[0], acknowledged[1], "{what}: acknowledged after a sync had failed");
            }
            assert_eq!(serving.stop(), 0, "{what}");
            has_struck(&fault);
            kept.complete(&what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_larger_than_may_be_loses_nothing() {
    let mut kept = Kept::new("fault-limit").await;
    // Where the signal is not ignored the process is killed by it, which is another test.
    kept.world.program.run_by(&["sh", "-c", "trap '' XFSZ; ulimit -f 48; exec \"$0\" \"$@\""]);
    let serving = kept.serve();
    kept.world.program.run_by(&[]);
    kept.work(12).await;
    assert!(kept.comes_about(|| serving.running.log().contains("ulimit -f")).await, "{}", serving.running.log());
    kept.check("limited");
    assert_eq!(serving.stop(), 0);
    kept.complete("without a limit").await;
}

/// A file system in memory, mounted; gone when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// None, and why, where this user may not.
    fn new(folder: PathBuf, size: &str) -> Option<Mounted> {
        let options = format!("size={size}");
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Mounted(folder)),
            Ok(output) => {
                println!("SKIPPED: nothing can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("SKIPPED: mount cannot be run: {error}");
                None
            }
        }
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let resized = std::process::Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(resized.expect("mount runs").success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever has it open keeps it until then.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_is_gone_on_with_when_it_has_space_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mounted) = Mounted::new(folder.path().to_owned(), "64m") else { return };
    let mut kept = Kept::new("fault-full").await;
    // The vault lies on the file system that will be full.
    let vault = kept.world.program.folder().join(VAULT);
    let copied = std::process::Command::new("cp").arg("-r").args([&vault, &folder.path().join("vault")]).status();
    assert!(copied.expect("cp runs").success());
    std::fs::remove_dir_all(kept.world.program.folder().join(DATA)).expect("a folder");
    std::os::unix::fs::symlink(folder.path(), kept.world.program.folder().join(DATA)).expect("a link");
    mounted.resize("700k");
    let serving = kept.serve();
    let given_up = now().plus(PATIENCE);
    while !serving.running.log().contains("make room") {
        assert!(now() < given_up, "it never was full: {}", serving.running.log());
        kept.work(2).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kept.work(3).await;
    kept.check("full");
    mounted.resize("64m");
    assert!(kept.comes_about(|| kept.queue.server.left() == 0).await, "{}", serving.running.log());
    assert_eq!(serving.stop(), 0);
    kept.complete("with space again").await;
}

#[test]
fn a_restore_onto_a_disk_that_fails_shows_nothing_torn_names_it_and_is_done_afterwards() {
    if !can_fail() {
        return;
    }
    let mut program = Program::new();
    let (world, instants): (SmallWorld, [usize; 2]) = in_each_others_way();
    let vault = program.folder().join(VAULT);
    std::fs::create_dir_all(&vault).expect("a folder");
    world.copy_vault(&vault).expect("files");
    let at = world.instants()[instants[1]];
    let restores = Restores { resource: ResourceId::bucket("photos").expect("a name"), steps: vec![(at, world.at(at))] };
    let to = at.to_string();
    let mut struck = 0;
    for (call, how) in [(Call::Sync, How::Broken), (Call::Write, How::Full)] {
        for nth in nths() {
            let out = program.folder().join(DATA).join("out");
            if out.exists() {
                std::fs::remove_dir_all(&out).expect("a folder");
            }
            let fault = Fault { folder: out.clone(), ..fault(&program, call, how, nth) };
            program.set_fault(Some(&fault));
            let restore = ["restore", "s3://photos", "--vault", VAULT, "--to", &to, "--target", &format!("./{DATA}/out"), "--json"];
            let ended = program.run(&restore);
            program.set_fault(None);
            let what = format!("{call:?} {nth} {how:?}: {} {}", ended.errors, ended.output);
            if !has_struck(&fault) {
                assert_eq!(ended.code, 0, "{what}");
                break;
            }
            struck += 1;
            let named = match ended.code {
                1 | 4 => ended.errors.contains("os error") || ended.errors.contains("make room"),
                3 => {
                    let report: Value = serde_json::from_str(&ended.output).expect("a report");
                    report["failed_keys"]["count"].as_u64() >= Some(1) && report["status"] == "PARTIAL"
                }
                _ => false,
            };
            assert!(named, "{what}");
            // Nothing is promised, nothing is torn, and doing it again does it.
            restores.check(&program.folder().join(DATA), &[]).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        }
    }
    println!("{struck} faults of the disk");
    assert!(struck > if is_slow() { 30 } else { 10 }, "{struck}");
}
