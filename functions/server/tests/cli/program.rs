//! Running the binary in a folder and an environment of its own, and where a test asks for it, under strace.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use serde_json::Value;
use tempfile::TempDir;
use tests::faults::Fault;

/// The binary of whichever crate this is part of the tests of.
const BINARY: &str = match (option_env!("CARGO_BIN_EXE_hindsight"), option_env!("CARGO_BIN_EXE_hindsight-worker")) {
    (Some(path), _) | (None, Some(path)) => path,
    (None, None) => panic!("there is no binary"),
};

/// The binary, and where it runs.
pub struct Program {
    folder: TempDir,
    environment: BTreeMap<String, String>,
    /// What the binary is run by, with its arguments: nothing, or strace, or a shell that sets limits.
    runner: Vec<String>,
}

/// Where strace is, or why a test that needs it is skipped.
pub fn strace() -> Result<PathBuf, String> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|folder| folder.join("strace")).find(|path| path.is_file());
    let strace = found.ok_or("strace is not installed; ./dev setup does that")?;
    // A container may forbid it.
    let tried = Command::new(&strace).args(["-f", "-D", "--seccomp-bpf", "-e", "trace=fsync", "-o", "/dev/null", "true"]).output();
    match tried {
        Ok(output) if output.status.success() && output.stderr.is_empty() => Ok(strace),
        Ok(output) => Err(format!("strace cannot be used here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("strace cannot be run: {error}")),
    }
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

impl Ended {
    /// How this command ends.
    pub fn of(command: &mut Command) -> Ended {
        let output = command.output().expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { code: output.status.code().unwrap_or(-1), output: text(output.stdout), errors: text(output.stderr) }
    }
}

impl Program {
    /// In a new folder, with nothing configured.
    pub fn new() -> Program {
        Program { folder: tempfile::tempdir().expect("a folder"), environment: BTreeMap::new(), runner: Vec::new() }
    }

    /// From here on the binary is run by this.
    pub fn run_by(&mut self, runner: &[&str]) {
        self.runner = runner.iter().map(|&word| word.to_owned()).collect();
    }

    /// The same, with these variables.
    pub fn with<'a>(mut self, environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Program {
        self.environment.extend(environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// From here on the binary works on a disk with a fault; none, on one without.
    pub fn set_fault(&mut self, fault: Option<&Fault>) {
        self.environment.retain(|name, _| !name.starts_with("FAULT_") && name != "LD_PRELOAD");
        self.environment.extend(fault.iter().flat_map(|fault| fault.environment().unwrap_or_else(|error| panic!("{error}"))));
    }

    /// Where it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command that would run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.runner.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words).args(arguments).current_dir(self.folder()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.folder()).env("TMPDIR", self.folder()).envs(&self.environment);
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// Runs to the end; what it prints goes into a file.
    pub fn run_into(&self, arguments: &[&str], path: &Path) -> Ended {
        let file = std::fs::File::create(path).expect("a file");
        let child = self.command(arguments).stdout(file).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Ended { code: output.status.code().unwrap_or(-1), output: String::new(), errors }
    }

    /// Runs to the end at a terminal, where this is typed; what it prints there is all in `output`.
    pub fn at_terminal(&self, arguments: &[&str], typed: &str) -> Ended {
        let command = self.command(arguments);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().expect("text"))).collect();
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        script.current_dir(self.folder()).env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.env("PATH", "/usr/bin:/bin").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = script.spawn().expect("script, of util-linux, starts");
        let mut terminal = child.stdin.take().expect("a pipe");
        terminal.write_all(typed.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { code: output.status.code().unwrap_or(-1), output: text(output.stdout), errors: text(output.stderr) }
    }

    /// Runs to a good end and returns what was printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {}{}", ended.errors, ended.output);
        ended.output
    }

    /// Runs to a good end with `--json` and returns the documents.
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.ok(&[arguments, &["--json"]].concat());
        output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}"))).collect()
    }

    /// Starts `serve` and comes back when it listens.
    pub fn serve(&self, arguments: &[&str]) -> Serving {
        self.serve_until(None, arguments)
    }

    /// The same, and it stands still at a named point.
    pub fn serve_until(&self, point: Option<&str>, arguments: &[&str]) -> Serving {
        let mut running = self.start(point, &[&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"], arguments].concat());
        let address = running.heard.iter().find_map(|heard| match heard {
            Heard::Address(address) => Some(address),
            Heard::Standing => {
                running.stands = true;
                None
            }
        });
        let address = address.unwrap_or_else(|| panic!("serve ended before it listened: {:?}", running.child.wait()));
        Serving { running, address }
    }

    /// Starts a command that stands still at a named point, if it comes there: `capture::before-segment`, or with `@3` the
    /// third time.
    pub fn start(&self, point: Option<&str>, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.envs(point.map(|point| ("HINDSIGHT_STAND_AT", point)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let (sender, heard) = mpsc::channel();
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let entry: Option<Value> = serde_json::from_str(&line).ok();
                let address = entry.as_ref().and_then(|entry| entry["fields"]["address"].as_str());
                let heard = match address {
                    Some(address) => Heard::Address(address.to_owned()),
                    None if line.starts_with("standing at ") => Heard::Standing,
                    None => {
                        eprintln!("hindsight: {line}");
                        let mut log = written.lock().unwrap_or_else(PoisonError::into_inner);
                        log.extend([line.as_str(), "\n"]);
                        continue;
                    }
                };
                // Whoever does not listen any more has heard enough.
                let _ = sender.send(heard);
            }
        });
        Running { child, heard, stands: false, log }
    }
}

/// What a process says that matters here.
enum Heard {
    Address(String),
    Standing,
}

/// A process that runs. Dropped, it is killed.
pub struct Running {
    child: Child,
    heard: mpsc::Receiver<Heard>,
    stands: bool,
    log: Arc<Mutex<String>>,
}

impl Running {
    /// Waits until it stands at its point; false when it ended without coming there.
    pub fn stands(&mut self) -> bool {
        self.stands = self.stands || self.heard.iter().any(|heard| matches!(heard, Heard::Standing));
        self.stands
    }

    /// Whether it stands at its point by now.
    pub fn stands_by_now(&mut self) -> bool {
        self.stands = self.stands || self.heard.try_iter().any(|heard| matches!(heard, Heard::Standing));
        self.stands
    }

    /// What it has written to its log by now.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How much memory it has, by what the kernel calls it.
    pub fn memory_mib(&self, what: &str) -> Option<u64> {
        memory_mib(&self.child, what)
    }

    /// Whether it has ended by now.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.heard.iter().for_each(drop);
    }

    /// Lets it go on from where it stands.
    pub fn resume(&mut self) {
        self.child.stdin.take().expect("a pipe").write_all(b"\n").expect("it listens");
    }

    /// The same, and returns its exit code.
    pub fn go_on(mut self) -> i32 {
        self.resume();
        self.end()
    }

    /// Sends it a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for its end and returns its exit code; -1 where it was killed. Whoever looks on has ended then, too.
    pub fn end(mut self) -> i32 {
        let code = self.child.wait().expect("it ends").code().unwrap_or(-1);
        self.heard.iter().for_each(drop);
        code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where it has ended, that is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `serve` that runs.
pub struct Serving {
    pub running: Running,
    pub address: String,
}

impl Serving {
    /// Asks it to end and returns its exit code.
    pub fn stop(self) -> i32 {
        self.running.signal("TERM");
        self.running.end()
    }

    /// What it answers to a GET.
    pub fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
    }

    /// What it answers to this.
    pub fn ask(&self, request: &str) -> String {
        ask(&self.address, request).expect("it answers")
    }
}

/// How much memory a process has, by what the kernel calls it (`VmRSS`, `VmHWM`); nothing is said of one that has ended.
pub fn memory_mib(child: &Child, what: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().expect("a number") >> 10)
}

/// What a server at an address answers to this.
pub fn ask(address: &str, request: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.write_all(request.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}
