//! What is shown and written while a restore runs.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use pipeline::replay::run::Progress;
use pipeline::target::report::ReportRow;
use pipeline::target::report::csv::CsvReport;
use pipeline::target::report::parquet::ParquetReport;
use pipeline::target::vault_around;

use crate::exit::Failure;
use crate::output::bytes;

/// A bar on the terminal, and a file with a row per object.
pub struct Watcher {
    bar: ProgressBar,
    objects: AtomicU64,
    bytes: AtomicU64,
    rows: Mutex<Rows>,
}

enum Rows {
    None,
    Csv(CsvReport<BufWriter<File>>),
    Parquet(Box<ParquetReport<BufWriter<File>>>),
    Broken(anyhow::Error),
}

impl Watcher {
    /// Shows a bar if wanted, and writes rows into a file if one is named.
    pub fn new(report: Option<&Path>, shown: bool) -> Result<Watcher> {
        let bar = if shown { ProgressBar::no_length().with_style(style()) } else { ProgressBar::hidden() };
        Ok(Watcher { bar, objects: AtomicU64::new(0), bytes: AtomicU64::new(0), rows: Mutex::new(rows(report)?) })
    }

    /// Takes the bar away and ends the file.
    pub fn finish(self) -> Result<()> {
        self.bar.finish_and_clear();
        match self.rows.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Rows::None => {}
            Rows::Csv(report) => drop(report.finish().context("cannot end the report")?),
            Rows::Parquet(report) => drop(report.finish().context("cannot end the report")?),
            Rows::Broken(error) => return Err(error.context("the restore ran to its end, but its report could not be written")),
        }
        Ok(())
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed} (about {eta} more)");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn rows(report: Option<&Path>) -> Result<Rows> {
    let Some(path) = report else { return Ok(Rows::None) };
    // Nothing is written into a vault but by itself.
    if let Some(vault) = std::path::absolute(path).ok().and_then(|path| vault_around(&path)) {
        let reason = format!("{} lies in the vault {}: write the report elsewhere", path.display(), vault.display());
        return Err(Failure::refused(reason).into());
    }
    let create = || create(path).map(BufWriter::new);
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Rows::Csv(CsvReport::new(create()?)?),
        Some("parquet") => Rows::Parquet(Box::new(ParquetReport::new(create()?)?)),
        _ => return Err(Failure::usage(format!("a report is written as .csv or .parquet, and {} is neither", path.display())).into()),
    })
}

/// Opens a file that is new, or a pipe or a device: whatever else is there is somebody's.
fn create(path: &Path) -> Result<File> {
    let written = |opened: io::Result<File>| opened.with_context(|| format!("cannot write {}", path.display()));
    match File::options().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = std::fs::metadata(path).with_context(|| format!("cannot write {}", path.display()))?;
            if found.is_file() {
                let reason = format!("{} is there already: name a file for the report that is not", path.display());
                return Err(Failure::refused(reason).into());
            }
            written(File::options().write(true).open(path))
        }
        opened => written(opened),
    }
}

impl Progress for Watcher {
    fn total(&self, buckets: u64) {
        self.bar.set_length(buckets);
    }

    fn bucket_done(&self) {
        self.bar.inc(1);
    }

    fn object(&self, row: &ReportRow) {
        let objects = self.objects.fetch_add(1, Ordering::Relaxed) + 1;
        let written = self.bytes.fetch_add(row.bytes, Ordering::Relaxed) + row.bytes;
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{objects} objects, {}", bytes(written)));
        }
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let appended = match &mut *rows {
            Rows::None | Rows::Broken(_) => return,
            Rows::Csv(report) => report.append(std::slice::from_ref(row)).map_err(anyhow::Error::new),
            Rows::Parquet(report) => report.append([row.clone()]).map_err(anyhow::Error::new),
        };
        if let Err(error) = appended {
            *rows = Rows::Broken(error);
        }
    }
}
