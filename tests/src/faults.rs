//! A disk that fails under a real process: the n-th sync, write or create on it, over all threads.
//!
//! A small library that is loaded into the process before everything else stands between it and the C library. It is built
//! when it is first asked for, by the compiler that links every test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the call")]
pub enum Call {
    Sync,
    Write,
    Create,
    Link,
    MakeFolder,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// `EIO`: the disk cannot.
    Broken,
    /// `ENOSPC`: there is no space.
    Full,
    /// `EDQUOT`: this user may have no more.
    Quota,
    /// The process is killed instead.
    Killed,
}

/// Why no process here can have a fault, where that is so: its test is skipped then, and says this.
pub fn hindrance() -> Option<&'static str> {
    if cfg!(target_os = "linux") { None } else { Some("only Linux loads a library of ours before the C library") }
}

/// Which calls of a process fail, and how.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which call.
    pub call: Call,
    /// Which of them, from 1.
    pub nth: usize,
    /// How it fails.
    pub how: How,
    /// Whether all after it fail, too.
    pub lasts: bool,
    /// Only calls on files in this folder.
    pub folder: PathBuf,
    /// A file that is made when it happens.
    pub mark: PathBuf,
    /// Nothing fails any more once this file is there.
    pub until: Option<PathBuf>,
}

impl Fault {
    /// The variables with which a process has this fault.
    ///
    /// # Errors
    /// Why the library cannot be built.
    pub fn environment(&self) -> Result<BTreeMap<String, String>, String> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not text", path.display()));
        let call = match self.call {
            Call::Sync => "sync",
            Call::Write => "write",
            Call::Create => "create",
            Call::Link => "link",
            Call::MakeFolder => "mkdir",
        };
        let number = match self.how {
            How::Broken => 5,
            How::Full => 28,
            How::Quota => 122,
            How::Killed => 0,
        };
        let mut variables = BTreeMap::from([
            ("LD_PRELOAD".to_owned(), text(library()?)?),
            ("FAULT_FOLDER".to_owned(), text(&self.folder)?),
            ("FAULT_CALL".to_owned(), call.to_owned()),
            ("FAULT_NTH".to_owned(), self.nth.to_string()),
            ("FAULT_ERRNO".to_owned(), number.to_string()),
            ("FAULT_MARK".to_owned(), text(&self.mark)?),
        ]);
        if let Some(until) = &self.until {
            variables.insert("FAULT_UNTIL".to_owned(), text(until)?);
        }
        if self.lasts {
            variables.insert("FAULT_LASTS".to_owned(), "1".to_owned());
        }
        Ok(variables)
    }
}

/// The library, built once in this process.
fn library() -> Result<&'static Path, String> {
    static BUILT: OnceLock<Result<(tempfile::TempDir, PathBuf), String>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref().map(|(_, path)| path.as_path()).map_err(Clone::clone)
}

fn build() -> Result<(tempfile::TempDir, PathBuf), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let library = folder.path().join("faults.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/faults/faults.c");
    let output = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
    let output = output.map_err(|error| format!("cc cannot be run: {error}"))?;
    match output.status.success() {
        true => Ok((folder, library)),
        false => Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
