//! Killed while it backs up a virtual machine: at every point, and at random moments.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::simulation::random::Random;

use super::{Stage, points, random_kills};
use crate::program::Program;

const VAULT: &str = "./vault";
const MACHINE: &str = "vm://web";
const PROGRAMS: [&str; 3] = ["qemu-img", "qemu-io", "qemu-storage-daemon"];
const DISK_BLOCKS: u64 = 64;

/// A machine that is off, with one disk.
struct Machine {
    program: Program,
    /// What the disk held at each point that the vault has, by the point's number.
    held: BTreeMap<usize, Vec<u8>>,
}

impl Machine {
    /// A protected one, with a first point; none where QEMU is not installed.
    fn new() -> Option<Machine> {
        let is_missing =
            |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err();
        if let Some(missing) = PROGRAMS.iter().find(|program| is_missing(program)) {
            eprintln!("SKIPPED: {missing} is not installed; ./dev setup installs it");
            return None;
        }
        let path = std::env::var("PATH").expect("a path");
        let mut machine = Machine { program: Program::new().with([("PATH", path.as_str())]), held: BTreeMap::new() };
        machine.qemu("qemu-img", &["create", "-q", "-f", "qcow2", "web.qcow2", "4M"]);
        machine.write("write -P 1 0 1M");
        machine.program.ok(&["protect", MACHINE, "--disk", "vda=web.qcow2", "--vault", VAULT]);
        machine.backup();
        Some(machine)
    }

    fn qemu(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).current_dir(self.program.folder()).output().expect("it is installed");
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !told.contains("failed"), "{program} {arguments:?}: {told}");
    }

    /// Writes as a guest would.
    fn write(&self, command: &str) {
        self.unlocked();
        self.qemu("qemu-io", &["-f", "qcow2", "-d", "unmap", "-c", command, "web.qcow2"]);
    }

    /// A daemon whose gateway was killed ends a moment later.
    fn unlocked(&self) {
        let is_free = || {
            let mut read = Command::new("qemu-io");
            read.args(["-f", "qcow2", "-c", "read 0 512", "web.qcow2"]).current_dir(self.program.folder());
            read.output().expect("it is installed").status.success()
        };
        for _ in 0..400 {
            if is_free() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(25));
        }
        panic!("the image is still locked");
    }

    /// What the disk holds, by QEMU's own copy.
    fn content(&self) -> Vec<u8> {
        self.unlocked();
        self.qemu("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", "web.qcow2", "copy.raw"]);
        fs::read(self.program.folder().join("copy.raw")).expect("a copy")
    }

    fn points(&self) -> usize {
        self.program.json(&["points", MACHINE, "--vault", VAULT]).len()
    }

    fn backup(&mut self) {
        let content = self.content();
        self.program.ok(&["backup", MACHINE, "--vault", VAULT]);
        self.held.insert(self.points(), content);
    }

    /// Every point is what the disk was when it was made.
    fn check(&self, what: &str) {
        let points = self.program.json(&["points", MACHINE, "--vault", VAULT]);
        assert_eq!(points.len(), self.held.len(), "{what}: {points:?}");
        for point in points {
            let number = point["number"].as_u64().expect("a number") as usize;
            let at = point["at"].as_str().expect("a time");
            let target = self.program.folder().join("restored");
            self.program.ok(&["restore", MACHINE, "--vault", VAULT, "--to", at, "--target", "./restored"]);
            assert!(fs::read(target.join("vda.raw")).expect("a disk") == self.held[&number], "{what}: point {number}");
            fs::remove_dir_all(&target).expect("a folder");
        }
        let bitmaps = Command::new("qemu-img").args(["info", "web.qcow2"]).current_dir(self.program.folder()).output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&bitmaps.stdout).matches("name: hindsight-").count(), 1, "{what}: one bitmap stays");
        self.no_daemon_is_left();
    }

    /// Nothing of a backup that was killed runs on.
    fn no_daemon_is_left(&self) {
        let folder = self.program.folder().display().to_string();
        let is_ours = |process: &Path| {
            let words = fs::read(process.join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            words.contains("qemu-storage-daemon") && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))
        };
        let left = || fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path())).any(|path| is_ours(&path));
        for _ in 0..400 {
            if !left() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(25));
        }
        panic!("a qemu-storage-daemon is left");
    }
}

#[test]
fn whatever_it_was_doing_with_a_machine_every_point_is_whole() {
    let Some(mut machine) = Machine::new() else { return };
    for (round, point) in points(Stage::BackingUp).enumerate() {
        machine.write(&format!("write -P {} {}k 100k", 10 + round, round * 300));
        machine.write("discard 512k 64k");
        let (content, count) = (machine.content(), machine.points());
        let mut running = machine.program.start(Some(point), &["backup", MACHINE, "--vault", VAULT]);
        assert!(running.stands(), "{point}");
        running.kill();
        let counts = machine.points() > count;
        assert_eq!(counts, matches!(point, "gateway::after-point" | "gateway::after-settling"), "{point}");
        if counts {
            machine.held.insert(count + 1, content);
        }
        machine.write("write -P 77 3M 10k");
        machine.backup();
        let last = machine.program.json(&["points", MACHINE, "--vault", VAULT]).pop().expect("a point");
        assert!(last["disks"][0]["full"].is_null(), "after {point} the next one is incremental: {last}");
    }
    machine.check("killed at every point");
    machine.program.ok(&["unprotect", MACHINE, "--vault", VAULT]);
    let refused = machine.program.run(&["backup", MACHINE, "--vault", VAULT]);
    assert_eq!((refused.code, refused.errors.contains("not protected any more")), (4, true), "{}", refused.errors);
}

#[test]
fn killed_again_and_again_while_it_backs_up_it_keeps_every_point() {
    let Some(mut machine) = Machine::new() else { return };
    let random = Random::new(11);
    for round in 0..random_kills() {
        machine.write(&format!("write -P {} {}k 64k", 1 + round % 250, random.below(DISK_BLOCKS) * 64));
        let (content, count) = (machine.content(), machine.points());
        let running = machine.program.start(None, &["backup", MACHINE, "--vault", VAULT]);
        std::thread::park_timeout(Duration::from_millis(random.below(400)));
        running.kill();
        if machine.points() > count {
            machine.held.insert(count + 1, content);
        }
    }
    machine.backup();
    machine.check("killed at random moments");
}
