//! Real servers for tests: SeaweedFS, an emulator of AWS, Ceph's object gateway, PostgreSQL, Kafka, and Kafka Connect with Debezium.
//!
//! Each is started by `services/run.sh`, as `./dev services` does, on free loopback ports and in a directory of its own, and is
//! gone when its value is dropped. Standard input is the leash: the pipe breaks however this process ends, so that not even a
//! killed test leaves a server behind.
//!
//! ```text
//! test ──stdin──▶ run.sh ──▶ the server
//!      ◀─stdout── endpoint and keys, then `# ready`
//! ```
//!
//! Starting blocks for 0.4 s (AWS), 1.2 s (Ceph) or 2.5 s (SeaweedFS). Tests that need no server to themselves use `shared()` and
//! names, or accounts, of their own.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub mod recovery;
#[cfg(test)]
mod tests;

/// The S3 that is trusted most: versions, enforced Object Lock, conditional writes, checksums, signatures. Sends no events, and
/// lists by directory, not in byte order.
#[derive(Debug)]
pub struct SeaweedFs(Server);

/// An AWS account: S3 with events to EventBridge and SQS, Lambda, CloudFormation. Does not check signatures; its events carry no
/// version id.
#[derive(Debug)]
pub struct AwsEmulator(Server);

/// Ceph's object gateway: a second production S3, with notifications of its own.
#[derive(Debug)]
pub struct CephRgw(Server);

/// A PostgreSQL cluster of its own, with logical replication on. Whoever connects from loopback is its superuser.
#[derive(Debug)]
pub struct Postgres(Server);

/// What they have in common: where the server is, and with which keys.
#[derive(Debug)]
pub struct Server {
    runner: Child,
    facts: BTreeMap<String, String>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The programs are not on this machine. A test of something optional may skip on this, and says so.
    #[error("cannot start {server}: {reason}")]
    Missing {
        /// Which server.
        server: &'static str,
        /// What was not found and how to get it.
        reason: String,
    },
    /// The server ended, or did not answer in time.
    #[error("cannot start {server}: {log}")]
    NotReady {
        /// Which server.
        server: &'static str,
        /// The end of its log.
        log: String,
    },
    /// The script could not be run at all.
    #[error("cannot run the start script of {server}")]
    Script {
        /// Which server.
        server: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
}

impl SeaweedFs {
    /// Starts one for the caller alone.
    pub fn start() -> Result<Self, ServiceError> {
        Server::start("seaweedfs").map(Self)
    }

    /// The one that all tests of this process share; it ends with the process.
    pub fn shared() -> Result<&'static Self, &'static ServiceError> {
        static SHARED: OnceLock<Result<SeaweedFs, ServiceError>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }
}

impl AwsEmulator {
    /// Starts one for the caller alone.
    pub fn start() -> Result<Self, ServiceError> {
        Server::start("aws").map(Self)
    }

    /// The one that all tests of this process share; it ends with the process.
    pub fn shared() -> Result<&'static Self, &'static ServiceError> {
        static SHARED: OnceLock<Result<AwsEmulator, ServiceError>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// An AWS account that nobody has used yet, so that tests sharing one emulator do not see each other's queues and rules.
    /// The emulator takes an access key of twelve digits for the number of an account; the secret stays the same. Bucket names
    /// are taken once for all accounts, as on AWS.
    pub fn fresh_account(&self) -> String {
        static LAST: AtomicU64 = AtomicU64::new(100_000_000_000);
        (LAST.fetch_add(1, Ordering::Relaxed) + 1).to_string()
    }
}

impl CephRgw {
    /// Starts one for the caller alone.
    pub fn start() -> Result<Self, ServiceError> {
        Server::start("ceph").map(Self)
    }
}

impl Postgres {
    /// Starts one for the caller alone.
    pub fn start() -> Result<Self, ServiceError> {
        Server::start("postgres").map(Self)
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        let facts = &self.0.facts;
        format!("postgres://{}@{}:{}/{database}", facts["PGUSER"], facts["PGHOST"], facts["PGPORT"])
    }

    /// Where it is, as the environment variables that its programs read.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.facts.iter().filter(|(name, _)| name.starts_with("PG")).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The folder of its programs.
    pub fn programs(&self) -> &Path {
        Path::new(&self.0.facts["PGBIN"])
    }
}

/// A broker of Apache Kafka.
#[derive(Debug)]
pub struct Kafka(Server);

impl Kafka {
    /// Starts one for the caller alone.
    pub fn start() -> Result<Self, ServiceError> {
        Server::start("kafka").map(Self)
    }

    /// Where it answers: `HOST:PORT`.
    pub fn brokers(&self) -> &str {
        &self.0.facts["KAFKA_BROKERS"]
    }
}

/// Kafka Connect, with Debezium's connector for PostgreSQL.
#[derive(Debug)]
pub struct Connect(Server);

impl Connect {
    /// Starts one for a broker; how far its connectors have come it keeps in a file, so that another one can go on there.
    pub fn start(kafka: &Kafka, offsets: &Path) -> Result<Self, ServiceError> {
        let offsets = offsets.to_string_lossy();
        Server::start_with("connect", &[("KAFKA_BROKERS", kafka.brokers()), ("CONNECT_OFFSETS", &offsets)]).map(Self)
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.0.facts["CONNECT_URL"]
    }

    /// Makes a connector, or changes how one is set, and waits until it runs.
    #[expect(clippy::disallowed_methods, reason = "another process says when it runs")]
    pub fn configure(&self, name: &str, settings: &BTreeMap<&str, String>) {
        let settings = serde_json::to_string(settings).expect("texts are JSON");
        let said = self.ask(&["-X", "PUT", "-H", "Content-Type: application/json", "-d", &settings], &format!("{name}/config"));
        assert!(said.contains("\"tasks\""), "{said}");
        const ATTEMPTS: usize = 600;
        for _ in 0..ATTEMPTS {
            let status = self.ask(&[], &format!("{name}/status"));
            let running = status.matches("RUNNING").count();
            assert!(!status.contains("FAILED"), "{status}");
            if running == 2 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("connector {name} does not run: {}", self.ask(&[], &format!("{name}/status")));
    }

    /// Takes a connector away.
    pub fn remove(&self, name: &str) {
        self.ask(&["-X", "DELETE"], name);
    }

    /// Stops everything at once, as a loss of power does.
    pub fn kill(self) {
        drop(self);
    }

    fn ask(&self, how: &[&str], what: &str) -> String {
        let url = format!("{}/connectors/{what}", self.0.facts["CONNECT_URL"]);
        let output = Command::new("curl").args(["--silent", "--show-error", "--max-time", "30"]).args(how).arg(url).output();
        let output = output.expect("curl: run ./dev setup");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Server {
    /// Where S3, and on the emulator everything else, answers: `http://127.0.0.1:PORT`. Use path-style addresses.
    pub fn endpoint(&self) -> &str {
        &self.facts["AWS_ENDPOINT_URL"]
    }

    /// The access key.
    pub fn access_key(&self) -> &str {
        &self.facts["AWS_ACCESS_KEY_ID"]
    }

    /// Its secret.
    pub fn secret_key(&self) -> &str {
        &self.facts["AWS_SECRET_ACCESS_KEY"]
    }

    /// The region to sign for.
    pub fn region(&self) -> &str {
        &self.facts["AWS_REGION"]
    }

    /// Endpoint, keys and region as the environment variables that AWS's SDKs and tools read.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.facts.iter().filter(|(name, _)| name.starts_with("AWS_")).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn start(server: &'static str) -> Result<Self, ServiceError> {
        Self::start_with(server, &[])
    }

    fn start_with(server: &'static str, environment: &[(&str, &str)]) -> Result<Self, ServiceError> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/services/run.sh");
        let no_script = |source| ServiceError::Script { server, source };
        let mut runner = Command::new("bash")
            .arg(script)
            .arg(server)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole process group; the script must outlive us to clean up.
            .process_group(0)
            .spawn()
            .map_err(no_script)?;

        let mut facts = BTreeMap::new();
        let output = runner.stdout.take().expect("standard output is a pipe");
        // Bounded by the script, which gives up and exits.
        for line in BufReader::new(output).lines() {
            let line = line.map_err(no_script)?;
            if line == "# ready" {
                return Ok(Self { runner, facts });
            }
            if let Some((name, value)) = line.split_once('=') {
                facts.insert(name.to_owned(), value.to_owned());
            }
        }

        let log = complaint(&mut runner);
        let status = runner.wait().map_err(no_script)?;
        const MISSING: i32 = 3;
        Err(match status.code() {
            Some(MISSING) => ServiceError::Missing { server, reason: log },
            _ => ServiceError::NotReady { server, log },
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.runner.try_wait() {
            // It died under the test: its last words explain the failure that the test is about to report.
            eprintln!("{}", complaint(&mut self.runner));
        }
        drop(self.runner.stdin.take());
        // An error would mean that it is gone already.
        let _ = self.runner.wait();
    }
}

fn complaint(runner: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = runner.stderr.take() {
        // Whatever could be read is better than an error about an error.
        let _ = stderr.read_to_string(&mut text);
    }
    text.trim_end().to_owned()
}

impl Deref for SeaweedFs {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Deref for AwsEmulator {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Deref for CephRgw {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.0
    }
}
