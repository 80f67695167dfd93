//! Reading everything that a resource's restores rest on, and saying what is damaged and what that costs.
//!
//! ```text
//!  records ─→ manifests ─→ bases, merges, lists of covers, segments ─→ rows ─→ packs ─→ contents
//!     of each: is it there, is it what was written, does it fit to what names it?
//!        └─→ damage: the file by its name, what is wrong with it, which restores need it, which objects lie in it
//! ```
//!
//! A restore checks all that it reads, too; but it reads only what its instant needs, and on the day of a restore it is too
//! late. Nothing is written here, and what is damaged is not touched.
//!
//! A pack is read once and as a whole: when it is what it was named by, and every chunk in it what its index says, then a
//! content of one chunk is right if the index says the row's digest. Only contents of several chunks are put together.
//!
//! In memory are a few packs, the rows between two looks at them, the names of one day of the log, and what a restore plans
//! with. What is remembered to save work has a bound, and what was forgotten is read again. So a vault may be of any size.

mod contents;
mod files;
mod records;
pub mod report;

use std::time::Duration;

use bytes::Bytes;

use self::contents::Contents;
use self::report::Findings;
pub use self::report::{Costs, Damage, Span, VerifyReport};
use crate::model::{Clock, ResourceId};
use crate::vault::{Vault, VaultError};

/// Hears of a verification while it goes on.
pub trait VerifyProgress: Send + Sync {
    /// So many more files than before are to be read, packs apart.
    fn expected(&self, files: u64);
    /// One of them was read.
    fn file_read(&self, bytes: u64);
    /// A pack was read.
    fn pack_read(&self, bytes: u64);
}

/// Nobody listens.
pub struct Quiet;

impl VerifyProgress for Quiet {
    fn expected(&self, _: u64) {}
    fn file_read(&self, _: u64) {}
    fn pack_read(&self, _: u64) {}
}

/// How often a file is asked for before it counts as one that cannot be read.
const TRIES: u32 = 4;

/// Reads everything of one resource. Damage is in the report and no error.
///
/// # Errors
/// [`VaultError::Store`] where not even a listing can be had.
pub async fn verify(
    vault: &Vault,
    resource: &ResourceId,
    clock: &dyn Clock,
    progress: &dyn VerifyProgress,
) -> Result<VerifyReport, VaultError> {
    let report = VerifyReport::begin(resource.clone(), clock.now());
    let mut work = Work { vault, resource, clock, progress, report, findings: Findings::default(), contents: Contents::default() };
    let mut inventory = work.records().await?;
    work.files(&inventory).await;
    work.log(&mut inventory).await?;
    work.missing_segments(&inventory).await?;
    work.look_at_contents().await;
    let Work { mut report, findings, .. } = work;
    report.finish(findings, &inventory, clock.now());
    Ok(report)
}

struct Work<'a> {
    vault: &'a Vault,
    resource: &'a ResourceId,
    clock: &'a dyn Clock,
    progress: &'a dyn VerifyProgress,
    report: VerifyReport,
    findings: Findings,
    contents: Contents,
}

impl Work<'_> {
    /// The whole of a file; nothing where it cannot be had, which is damage.
    async fn read(&mut self, path: &str) -> Option<Bytes> {
        match self.patiently(|| self.vault.read(path)).await {
            Ok(bytes) => {
                self.count_file(bytes.len() as u64);
                Some(bytes)
            }
            Err(error) => {
                self.findings.damage(path, explain(&error));
                None
            }
        }
    }

    fn count_file(&mut self, bytes: u64) {
        self.report.files += 1;
        self.report.bytes += bytes;
        self.progress.file_read(bytes);
    }

    /// Tries again where that may help.
    async fn patiently<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, VaultError>
    where
        F: Future<Output = Result<T, VaultError>>,
    {
        let mut tries = 1;
        loop {
            match attempt().await {
                Err(error) if error.is_transient() && tries < TRIES => self.clock.sleep(Duration::from_millis(100 << tries)).await,
                result => return result,
            }
            tries += 1;
        }
    }
}

/// An error with its causes in one line. That a file cannot be read is damage, whatever the cause.
fn explain(error: &VaultError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
