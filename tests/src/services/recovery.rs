//! What PostgreSQL itself recovers: from a base backup of a cluster, and the log that the cluster archives, up to a target.
//!
//! ```text
//!  cluster ──→ base backup ─┐
//!        └──→ archive ──────┴→ a cluster of its own, recovered to a target
//! ```
//!
//! Each target has a copy of the backup, and what had not ended there is rolled back. One that only stood there would be quicker to
//! go on with, but it keeps the locks of those transactions.

use std::path::{Path, PathBuf};
use std::process::Command;

use pipeline::model::Timestamp;
use tempfile::TempDir;

use super::{Postgres, Server, ServiceError};

pub mod ends;

/// Where recovery stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverTo {
    /// Before the first transaction that ended after this time, whether it was committed or not.
    Time(Timestamp),
    /// Behind the record that stands at this place of the log.
    Lsn(u64),
}

/// A base backup, and the archive of the cluster that it is of, for as long as that runs.
#[derive(Debug)]
pub struct Backup {
    folder: TempDir,
    archive: PathBuf,
    programs: String,
}

impl Postgres {
    /// Starts one for the caller alone that archives its log.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_archiving() -> Result<Postgres, ServiceError> {
        Server::start_with("postgres", &[("POSTGRES_ARCHIVES", "yes")]).map(Postgres)
    }

    /// Takes a base backup while it runs.
    pub fn back_up(&self) -> Backup {
        let folder = tempfile::tempdir().expect("a folder");
        let mut program = Command::new(self.programs().join("pg_basebackup"));
        program.args(["--checkpoint=fast", "--wal-method=none", "--no-sync", "-D"]).arg(folder.path().join("data"));
        said(program.envs(self.environment()));
        Backup { folder, archive: self.archive().to_owned(), programs: self.0.facts["POSTGRES_PROGRAMS"].clone() }
    }

    /// Has the archive hold all that was written up to now.
    pub fn archive_log(&self) {
        let last = self.ask("SELECT pg_walfile_name(pg_switch_wal())");
        let archived = format!("SELECT last_archived_wal >= '{last}' FROM pg_stat_archiver, pg_sleep(0.1)");
        while self.ask(&archived) != "t" {}
    }

    fn archive(&self) -> &Path {
        Path::new(&self.0.facts["POSTGRES_ARCHIVE"])
    }

    fn ask(&self, question: &str) -> String {
        let mut psql = Command::new(self.programs().join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", question, &self.url("postgres")]);
        said(&mut psql).trim().to_owned()
    }
}

impl Backup {
    /// Recovers to a target: a cluster for the caller alone.
    ///
    /// # Errors
    /// A target that stands before the end of the backup, or behind the end of the archive.
    pub fn recover(&self, to: RecoverTo) -> Result<Postgres, ServiceError> {
        let target = match to {
            RecoverTo::Time(time) => {
                let time = time.to_string();
                format!("recovery_target_time={}+00", time.replace('T', " ").trim_end_matches('Z'))
            }
            RecoverTo::Lsn(lsn) => format!("recovery_target_lsn={:X}/{:X}", lsn >> 32, lsn & u64::from(u32::MAX)),
        };
        let data = self.folder.path().join("data");
        let environment = [
            ("POSTGRES_DATA", &*data.to_string_lossy()),
            ("POSTGRES_ARCHIVE", &*self.archive.to_string_lossy()),
            ("POSTGRES_PROGRAMS", &self.programs),
            ("POSTGRES_RECOVER", &target),
        ];
        Server::start_with("recovery", &environment).map(Postgres)
    }
}

/// What a program prints that must end well.
fn said(program: &mut Command) -> String {
    let output = program.output().expect("it starts: run ./dev setup");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}
