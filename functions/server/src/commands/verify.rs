//! `hindsight verify`: read everything that restores rest on, and say what is damaged.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use clap::Args;
use handlers::protection;
use indicatif::{ProgressBar, ProgressStyle};
use pipeline::vault::layout;
use pipeline::verify::report::{Costs, Damage};
use pipeline::verify::{Quiet, VerifyProgress, verify};

use crate::app::{App, VaultFlag, whole_resource};
use crate::exit::Ended;
use crate::output::{Output, bytes};
use crate::protected::unknown;

/// Read every file of a bucket or a database in a vault, check that all is as it was written, and name what is damaged and what that costs.
///
/// Nothing is written. Ends with 3 where something is damaged.
#[derive(Debug, Args)]
pub struct Verify {
    /// The bucket or the database.
    #[arg(value_name = "s3://BUCKET|db://NAME")]
    resource: String,
    #[command(flatten)]
    vault: VaultFlag,
}

pub async fn run(app: &App, command: Verify) -> Result<Ended> {
    let resource = whole_resource(&command.resource)?;
    let opened = app.vault(&command.vault).await?;
    let progress: Box<dyn VerifyProgress> =
        if std::io::stderr().is_terminal() && !app.flags.json { Box::new(Bar::new()) } else { Box::new(Quiet) };
    let mut report = verify(&opened.vault, &resource, app.clock.as_ref(), progress.as_ref()).await?;
    drop(progress);
    // Of a bucket that was never protected there is nothing to be damaged, and that is no proof of anything.
    let is_protected = protection::newest(&opened.vault, &resource).await.map_or(true, |newest| newest.is_some());
    if report.files <= 1 && report.sound && !is_protected {
        return Err(unknown(&opened, &resource).await?.into());
    }
    if !is_protected {
        let reason = "the record that says how it is protected is missing: `serve` does not keep its changes; protect it again";
        let path = layout::state_folder(protection::PROTECTIONS, &resource);
        report.damages.push(Damage { path, reason: reason.to_owned(), costs: Costs::default() });
        report.damaged += 1;
        report.sound = false;
    }
    let mut output = Output::of_deed(app.flags.json);
    output.report(&report)?;
    output.finish()?;
    Ok(if report.sound { Ended::Whole } else { Ended::InPart })
}

/// Shows on a terminal how far it got.
struct Bar {
    bar: ProgressBar,
    packs: AtomicU64,
    bytes: AtomicU64,
}

impl Bar {
    fn new() -> Bar {
        let style =
            ProgressStyle::with_template("{bar:30} {pos} of {len} files{msg}  {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Bar { bar: ProgressBar::new(0).with_style(style), packs: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    fn tell(&self, read: u64, packs: u64) {
        let read = self.bytes.fetch_add(read, Ordering::Relaxed) + read;
        let packs = self.packs.fetch_add(packs, Ordering::Relaxed) + packs;
        self.bar.set_message(format!(", {packs} packs, {}", bytes(read)));
    }
}

impl VerifyProgress for Bar {
    fn expected(&self, files: u64) {
        self.bar.inc_length(files);
    }

    fn file_read(&self, bytes: u64) {
        self.bar.inc(1);
        self.tell(bytes, 0);
    }

    fn pack_read(&self, bytes: u64) {
        self.tell(bytes, 1);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
