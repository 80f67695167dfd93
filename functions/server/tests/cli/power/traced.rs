//! A world whose processes are traced, and whose disk is known to the last effect.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::power::disk::{Disk, lay_out, tree_of};
use tests::power::trace;
use tests::simulation::random::Random;
use tests::sqs_server::{RECEIPT, message_of};

use crate::program::{Program, Serving, strace};

/// Writes larger than this are not written down whole.
const WRITE_BYTES_MAX: usize = 64 << 20;
/// States that are looked at at the same time.
const CHECKS_AT_ONCE: usize = 2;
/// The folder that the disk is of: the vault and restored files lie in it.
pub const DATA: &str = "data";
/// The vault.
pub const VAULT: &str = "./data/vault";

/// The processes' disk.
pub struct Traced {
    strace: String,
    disk: Disk,
    folder: PathBuf,
    traces: usize,
}

impl Traced {
    /// Traces whatever a program does to its data from here on; none where that cannot be.
    pub fn new(program: &Program) -> Option<Traced> {
        let strace = match strace() {
            Ok(strace) => strace.to_str().expect("a plain path").to_owned(),
            Err(reason) => {
                println!("SKIPPED: {reason}");
                return None;
            }
        };
        let folder = program.folder().to_owned();
        std::fs::create_dir_all(folder.join(DATA)).expect("a folder");
        Some(Traced { strace, disk: Disk::new(&folder.join(DATA), is_passing), folder, traces: 0 })
    }

    /// Has the next process traced.
    pub fn next(&mut self, program: &mut Program) {
        self.traces += 1;
        let (calls, bytes, file) = (format!("trace={}", trace::CALLS), WRITE_BYTES_MAX.to_string(), self.file());
        // Run as our grandchild, so that a signal meets the process and not its tracer.
        let options = ["-f", "-D", "--seccomp-bpf", "-q", "-y", "-xx", "-s", &bytes, "-e", &calls, "-o", &file];
        program.run_by(&[&[self.strace.as_str()], &options[..]].concat());
    }

    fn file(&self) -> String {
        self.folder.join(format!("trace-{}", self.traces)).to_str().expect("a plain path").to_owned()
    }

    /// Takes in what the process that was traced has done, now that it has ended.
    pub fn ended(&mut self, program: &mut Program) {
        self.take_in(program);
        let (known, real) = (self.disk.live(), tree_of(&self.folder.join(DATA)));
        let differs = known.iter().find(|(path, content)| real.get(*path) != Some(content)).map(|(path, _)| path);
        let missing = real.keys().find(|path| !known.contains_key(*path));
        assert_eq!((differs, missing), (None, None), "the trace does not tell all that has happened");
    }

    /// The same of one that was killed.
    pub fn killed(&mut self, program: &mut Program) {
        self.take_in(program);
        self.disk.catch_up();
    }

    fn take_in(&mut self, program: &mut Program) {
        program.run_by(&[]);
        let text = std::fs::read_to_string(self.file()).expect("a trace");
        self.disk.happen(trace::read(&text, &self.folder.canonicalize().expect("it is there")), receipts);
    }

    /// Runs a command to a good end, which is a promise.
    pub fn ok(&mut self, program: &mut Program, arguments: &[&str], promise: u64) -> String {
        self.next(program);
        let output = program.ok(arguments);
        self.ended(program);
        self.disk.promise(promise);
        output
    }

    /// Starts `serve`.
    pub fn serve(&mut self, program: &mut Program) -> Serving {
        self.next(program);
        program.serve(&["--vault", VAULT])
    }

    /// Looks at states of the disk after a loss of power, each in a folder of its own, and returns how many there were. Panics
    /// at one that is wrong, and keeps it to be looked at by hand.
    pub fn check(&self, most: usize, check: impl Fn(&Path, &[u64]) -> Result<(), String> + Sync) -> usize {
        let random = Random::new(7);
        let mut states = Vec::new();
        self.disk.for_each_state(&random, |state| states.push(state));
        let found = states.len();
        // By chance and not the first ones: a state near the end has more in it to be wrong.
        random.shuffle(&mut states);
        states.truncate(most);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(state) = states.get(next.fetch_add(1, Ordering::Relaxed)) {
                let folder = tempfile::tempdir_in(memory()).expect("a folder");
                lay_out(&state.tree, folder.path());
                if let Err(wrong) = check(folder.path(), &state.promises) {
                    next.store(states.len(), Ordering::Relaxed);
                    panic!("{wrong}\n  in {}\n  {}", folder.keep().display(), state.story);
                }
            }
        };
        // Threads of their own: whoever checks runs what waits for files, and a test's thread must not wait for itself.
        std::thread::scope(|scope| (0..CHECKS_AT_ONCE).for_each(|_| drop(scope.spawn(work))));
        println!("{} effects, {found} states after a loss of power, {} of them looked at", self.disk.effects(), states.len());
        states.len()
    }
}

/// Whether a name is one of a file that is being written, which is not listed; see `vault::directory` and `target::directory`.
fn is_passing(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.contains('#') || path.contains("/.hindsight/scratch/"))
}

/// A file system in memory, where there is one: thousands of vaults are laid out, and none needs to last.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// The messages that these bytes acknowledge.
fn receipts(sent: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(sent);
    let found = text.match_indices(RECEIPT).filter_map(|(at, _)| message_of(text[at..].split('"').next()?));
    found.collect()
}
