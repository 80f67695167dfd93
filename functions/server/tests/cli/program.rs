//! Running the binary in a folder and an environment of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The binary, and where it runs.
pub struct Program {
    folder: TempDir,
    environment: BTreeMap<String, String>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

impl Program {
    /// In a new folder, with nothing configured.
    pub fn new() -> Program {
        Program { folder: tempfile::tempdir().expect("a folder"), environment: BTreeMap::new() }
    }

    /// The same, with these variables.
    pub fn with<'a>(mut self, environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Program {
        self.environment.extend(environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// Where it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hindsight"));
        command.args(arguments).current_dir(self.folder()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.folder()).env("TMPDIR", self.folder()).envs(&self.environment);
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { code: output.status.code().unwrap_or(-1), output: text(output.stdout), errors: text(output.stderr) }
    }

    /// Runs to a good end and returns what was printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.errors);
        ended.output
    }

    /// Runs to a good end with `--json` and returns the documents.
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.ok(&[arguments, &["--json"]].concat());
        output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}"))).collect()
    }

    /// Starts `serve` and comes back when it listens.
    pub fn serve(&self, arguments: &[&str]) -> Serving {
        let mut command = self.command(&[&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"], arguments].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let address = loop {
            let line = lines.next().expect("it listens before it ends").expect("text");
            let entry: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if let Some(address) = entry["fields"]["address"].as_str() {
                break address.to_owned();
            }
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("serve: {line}")));
        Serving { child, address }
    }
}

/// A `serve` that runs.
pub struct Serving {
    child: Child,
    pub address: String,
}

impl Serving {
    /// Asks it to end and returns its exit code.
    pub fn stop(mut self) -> i32 {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(asked.success());
        self.child.wait().expect("it ends").code().unwrap_or(-1)
    }

    /// What it answers to a GET.
    pub fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
    }

    /// What it answers to this.
    pub fn ask(&self, request: &str) -> String {
        use std::io::{Read, Write};
        let mut connection = std::net::TcpStream::connect(&self.address).expect("it listens");
        connection.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // After `stop` it has ended, and that is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
