//! The database that is worked on, Hindsight beside it, and a server to restore to.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use pipeline::model::Timestamp;
use serde_json::Value;
use tests::services::Postgres;

use super::program::{Ended, Program, Serving};
use super::targets::Window;
use super::workload::{FEWER_ACCOUNTS, SCHEMA};

/// The database.
pub const NAME: &str = "oracle";
const RESOURCE: &str = "db://oracle";
const VAULT: &str = "./vault";

pub struct World {
    /// Archives its log.
    pub server: Postgres,
    /// Has what is restored.
    pub target: Postgres,
    program: Program,
}

/// A transaction of which Hindsight's history knows.
#[derive(Debug)]
pub struct Told {
    pub at: Timestamp,
    pub lsn: u64,
    pub transaction: String,
}

impl World {
    /// The tables are there, and nobody works on them yet.
    pub fn new() -> World {
        let server = Postgres::start_archiving().unwrap_or_else(|error| panic!("{error}"));
        let target = Postgres::start().unwrap_or_else(|error| panic!("{error}"));
        let path = format!("{}:{}", server.programs().display(), std::env::var("PATH").unwrap_or_default());
        let world = World { server, target, program: Program::new().with([("PATH", path.as_str())]) };
        sql(&world.server, "postgres", &format!("CREATE DATABASE {NAME}"));
        let mut pgbench = Command::new(world.server.programs().join("pgbench"));
        let made = Ended::of(pgbench.args(["--initialize", "--quiet", NAME]).envs(world.server.environment()));
        assert_eq!(made.code, 0, "{}", made.errors);
        world.run(FEWER_ACCOUNTS);
        world.run(SCHEMA);
        world
    }

    /// Runs SQL in the database.
    pub fn run(&self, statements: &str) -> String {
        sql(&self.server, NAME, statements)
    }

    /// Protects it, and begins to follow its changes.
    pub fn protect(&self) -> Serving {
        self.program.ok(&["protect", &self.server.url(NAME), "--vault", VAULT]);
        self.program.serve(&["--vault", VAULT])
    }

    /// Waits until all that was committed is in the vault.
    pub fn settle(&self) {
        let mut waiting = self.program.start(None, &["status", "--vault", VAULT, "--wait"]);
        while !waiting.has_ended() {
            self.run("SELECT pg_logical_emit_message(true, 'oracle', ''), pg_sleep(0.3)");
        }
        assert_eq!(waiting.end(), 0);
    }

    /// What can be restored, and why not what lies in the gaps.
    pub fn window(&self) -> (Window, Vec<String>) {
        let status = self.program.json(&["status", "--vault", VAULT]);
        let window = &status[0]["vaults"][0]["resources"][0]["window"];
        let gaps = window["gaps"].as_array().unwrap_or_else(|| panic!("{window}"));
        let ends = gaps.iter().map(|gap| (time(&gap["from"]), time(&gap["to"]))).collect();
        let reasons = gaps.iter().map(|gap| gap["reason"].as_str().expect("a reason").to_owned()).collect();
        (Window { earliest: time(&window["earliest"]), latest: time(&window["latest"]), gaps: ends }, reasons)
    }

    /// The transactions that changed something, in the order of their commits.
    pub fn history(&self) -> Vec<Told> {
        let lines = self.program.json(&["history", RESOURCE, "--vault", VAULT]);
        let lsn = |line: &Value| {
            let (high, low) = line["lsn"].as_str()?.split_once('/')?;
            Some((u64::from_str_radix(high, 16).ok()? << 32) | u64::from_str_radix(low, 16).ok()?)
        };
        let told =
            |line: &Value| Some(Told { at: time(&line["at"]), lsn: lsn(line)?, transaction: line["transaction"].as_str()?.to_owned() });
        lines.iter().filter_map(told).collect()
    }

    /// Merges what the log has.
    pub fn compact(&self) {
        self.program.ok(&["compact", RESOURCE, "--vault", VAULT]);
    }

    /// The last transaction of the state to which would be restored; none of the snapshot.
    pub fn cut(&self, to: &str) -> Option<String> {
        let report =
            self.program.json(&["restore", RESOURCE, "--vault", VAULT, "--to", to, "--target", &self.target.url("cut"), "--dry-run"]);
        report[0]["transaction"].as_str().map(str::to_owned)
    }

    /// Restores into a new database of the other server.
    pub fn restore(&self, to: &str, name: &str) {
        let said = self.program.ok(&["restore", RESOURCE, "--vault", VAULT, "--to", to, "--target", &self.target.url(name)]);
        assert!(said.contains("COMPLETED"), "{to}: {said}");
    }

    /// What is said where a restore is refused.
    pub fn refused(&self, to: &str) -> String {
        let ended = self.program.run(&["restore", RESOURCE, "--vault", VAULT, "--to", to, "--target", &self.target.url("refused")]);
        assert_eq!(ended.code, 4, "{to}: {}{}", ended.output, ended.errors);
        ended.errors
    }

    /// Takes a restored database away.
    pub fn remove(&self, name: &str) {
        sql(&self.target, "postgres", &format!("DROP DATABASE {name}"));
    }
}

/// The numbers of these transactions.
pub fn numbers(told: &[Told]) -> BTreeSet<String> {
    told.iter().map(|told| told.transaction.clone()).collect()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no time"))
}

fn sql(server: &Postgres, database: &str, statements: &str) -> String {
    let psql: &Path = &server.programs().join("psql");
    let url = server.url(database);
    let ended = Ended::of(Command::new(psql).args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statements, &url]));
    assert_eq!(ended.code, 0, "{statements}: {}", ended.errors);
    ended.output.trim().to_owned()
}
