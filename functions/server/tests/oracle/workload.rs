//! Who works on the database: twelve clients with the tables of `pgbench`, and twelve with what a change log may get wrong.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tests::services::Postgres;

use super::scripts::{NASTY, PLAIN, Script};

/// Clients of each kind.
const CLIENTS: u32 = 12;

/// What the tables are like before anybody works on them, beside those of `pgbench`.
pub const SCHEMA: &str = include_str!("schema.sql");

/// Fewer accounts, and more branches, than `pgbench` begins with.
pub const FEWER_ACCOUNTS: &str =
    "DELETE FROM pgbench_accounts WHERE aid > 10000; INSERT INTO pgbench_branches SELECT g, 0 FROM generate_series(2, 5) g";

/// Clients that work.
pub struct Workload {
    kinds: Vec<Child>,
    _scripts: TempDir,
}

impl Workload {
    /// Lets them begin, with so many transactions a second of each kind; the seed says what they do, and not in which order.
    pub fn start(server: &Postgres, database: &str, time: Duration, rate: u32, seed: u64) -> Workload {
        let folder = tempfile::tempdir().expect("a folder");
        let kind = |(name, scripts): (&str, &[Script])| {
            let mut pgbench = Command::new(server.programs().join("pgbench"));
            for (number, script) in scripts.iter().enumerate() {
                let path = folder.path().join(format!("{name} {number}"));
                std::fs::write(&path, script.text).unwrap_or_else(|error| panic!("{}: {error}", script.name));
                pgbench.arg(format!("--file={}@{}", path.display(), script.weight));
            }
            pgbench.args(["--no-vacuum", &format!("--client={CLIENTS}"), &format!("--rate={rate}"), &format!("--random-seed={seed}")]);
            // Clients that wait for each other are told soon.
            pgbench.arg(format!("--time={}", time.as_secs())).arg(database).env("PGOPTIONS", "-c deadlock_timeout=50ms");
            pgbench.envs(server.environment()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            pgbench.spawn().expect("pgbench: run ./dev setup")
        };
        Workload { kinds: [("plain", PLAIN), ("nasty", NASTY)].map(kind).into(), _scripts: folder }
    }

    /// Waits until they have ended, each of them well. Returns how many transactions were committed.
    pub fn end(self) -> u64 {
        let ended = |kind: Child| {
            let output = kind.wait_with_output().expect("it ends");
            let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && !errors.contains("aborted"), "{said}{errors}");
            let processed = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
            processed.and_then(|count| count.split('/').next()?.trim().parse::<u64>().ok()).unwrap_or_else(|| panic!("{said}"))
        };
        self.kinds.into_iter().map(ended).sum()
    }
}
