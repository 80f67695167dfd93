//! `hindsight restore`: any second, into a bucket or a directory, or a new database; or a virtual machine's disks into a folder.

mod database;
mod group;
mod machine;
mod progress;
mod unmatched;

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use handlers::restore::{RestoreRequest, restore};
use pipeline::model::{ResourceId, ResourceKind};
use pipeline::target::report::{RestoreReport, Status};
use pipeline::target::{Mode, Target};
use serde::Serialize;

use self::group::Elsewhere;
use self::progress::Watcher;
use self::unmatched::There;
use crate::app::{App, VaultFlag};
use crate::exit::{Ended, Failure};
use crate::output::{Output, counted, escaped};
use crate::restoring::{Asked, Prepared, ended, prepare};
use crate::vaults::OpenVault;

/// Restore a bucket, or some objects of it, or a database, or the disks of a virtual machine, as they were at a time.
///
/// Of a virtual machine the last recovery point at or before that time becomes files in a folder (--target DIR), one for each disk, beside
/// none of the same name.
///
/// A database is restored into a new one (--target postgres://USER@HOST:PORT/NEW), which is made where there is none. --to takes
/// the number of its last transaction, too: xid:NUMBER; a place in the log of its server: lsn:0/16B3748; and the name of a state that was
/// marked by `SELECT pg_logical_emit_message(true, 'hindsight', 'NAME')`: marker:NAME.
///
/// With --group several of these are restored to one and the same time, each to where [groups.NAME.targets] of the configuration says.
///
/// Of a bucket:
///
/// Nothing that the target holds is touched unless --mode says so; only a file that stands where a folder must be is kept beside
/// it, under a name with %= at its end, and named. No restore goes into a vault, or to where one lies. A restore that was broken off is resumed by asking for
/// it again. That writes what is missing, and leaves and counts what others have put under the names of its objects; so it
/// does of one that has ended. Only where several versions of an object are restored all of them are written again.
#[derive(Debug, Args)]
pub struct Restore {
    #[command(flatten)]
    pub(super) vault: VaultFlag,
    #[command(flatten)]
    asked: Asked,
    /// Write what became of every object into this file: .csv or .parquet.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<std::path::PathBuf>,
    /// Instead of one resource all of a group that is configured, to one time: nothing is begun unless all of it can be restored to that.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Of a group: this one goes elsewhere this time; may be given several times.
    #[arg(long = "into", value_name = "RESOURCE=TARGET", requires = "group")]
    elsewhere: Vec<Elsewhere>,
}

pub async fn run(app: &App, command: Restore) -> Result<Ended> {
    let asked = command.asked.clone().with_file()?;
    match &command.group {
        Some(group) => group::run(app, &command, &asked, group).await,
        None => one(app, &command, &asked).await,
    }
}

/// Restores one resource.
async fn one(app: &App, command: &Restore, asked: &Asked) -> Result<Ended> {
    match asked.resource()?.parse::<ResourceId>() {
        Ok(resource) if resource.kind() == ResourceKind::Database => return database::run(app, command, asked, resource).await,
        Ok(resource) if resource.kind() == ResourceKind::Machine => return machine::run(app, command, asked, resource).await,
        _ => {}
    }
    let Prepared { opened, plan, mut request, target } = prepare(app, &command.vault, asked).await?;
    if request.options.mode == Some(Mode::Exact) && !asked.dry_run && !asked.yes {
        confirm(app, &opened, &mut request, &target).await?;
    }
    let watcher = Watcher::new(command.report.as_deref(), std::io::stderr().is_terminal() && !app.flags.json)?;
    let report = restore(&opened.vault, &request, &target, app.clock.as_ref(), &watcher).await?;
    watcher.finish()?;
    let selection = &request.options.selection;
    let there = match report.status {
        Status::NothingMatched => Some(unmatched::look(&opened.vault, &plan, selection).await?),
        _ => None,
    };
    let ended = ended(&report);
    let mut output = Output::of_deed(app.flags.json);
    if output.json {
        output.document(&Document { report, there })?;
    } else {
        output.bytes(report.to_string().as_bytes())?;
        match there {
            Some(there) => output.bytes(there.words(selection).as_bytes())?,
            None if report.matched == 0 && !report.selective => output.line("the bucket held no objects at that time")?,
            None => {}
        }
        match &command.report {
            Some(path) => output.line(format_args!("every object stands in {}", path.display()))?,
            None if report.tally.failed > 0 => {
                output.line("say --report FILE.csv to have every object with its reason; what failed is tried again")?;
            }
            None => {}
        }
    }
    output.finish()?;
    Ok(ended)
}

/// The report as JSON.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    report: RestoreReport,
    /// What there was, where nothing matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    there: Option<There>,
}

/// Objects that are named before it is asked whether they are to be removed.
const REMOVED_SHOWN_MAX: usize = 20;

/// Shows what an exact restore would remove, and asks.
async fn confirm(app: &App, opened: &OpenVault, request: &mut RestoreRequest, target: &Arc<dyn Target>) -> Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let reason = "mode exact removes what did not exist at that time: say --yes, or look at it first with --dry-run";
        return Err(Failure::refused(reason).into());
    }
    request.options.dry_run = true;
    let watcher = Watcher::new(None, true)?;
    let report = restore(&opened.vault, request, target, app.clock.as_ref(), &watcher).await;
    watcher.finish()?;
    let RestoreReport { tally, removed, .. } = report?;
    request.options.dry_run = false;
    let mut terminal = std::io::stderr();
    for object in removed.first.iter().take(REMOVED_SHOWN_MAX) {
        writeln!(terminal, "to remove  {}", escaped(object))?;
    }
    if removed.count > REMOVED_SHOWN_MAX as u64 {
        writeln!(terminal, "and {} more; --dry-run --report FILE.csv names all", removed.count - REMOVED_SHOWN_MAX as u64)?;
    }
    write!(
        terminal,
        "{}: {} will be created, {} overwritten and {} removed. Go on? [y/N] ",
        escaped(&target.name()),
        counted(tally.creates, "object"),
        tally.overwrites,
        tally.deletes
    )?;
    terminal.flush()?;
    // Elsewhere, so that Ctrl-C is heard meanwhile.
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await??;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::refused("nothing was restored").into()),
    }
}
