//! `hindsight restore`: any second, into a bucket or a directory.

mod options;
mod progress;

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use handlers::protection;
use handlers::restore::{RestoreRequest, planned, restore};
use pipeline::replay::Certainty;
use pipeline::replay::run::RestoreOptions;
use pipeline::target::report::{RestoreReport, Status};
use pipeline::target::{BucketTarget, DirectoryTarget, Mode, Target};

use self::options::Asked;
pub use self::options::plain_options;
use self::progress::Watcher;
use crate::app::{App, VaultFlag, bucket_and_rest, bucket_only};
use crate::exit::{Ended, Failure};
use crate::output::{Output, escaped};
use crate::vaults::OpenVault;

/// Restore a bucket, or some objects of it, as they were at a time.
///
/// Nothing that the target holds is touched unless --mode says so. A restore that was broken off is resumed by asking for
/// it again.
#[derive(Debug, Args)]
pub struct Restore {
    #[command(flatten)]
    vault: VaultFlag,
    #[command(flatten)]
    asked: Asked,
    /// The S3 server of the target: an endpoint's name or URL [default: that of --endpoint-url, or of the source].
    #[arg(long, value_name = "NAME|URL")]
    target_endpoint: Option<String>,
    /// Only say what would be done: exactly what then happens.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before objects are removed.
    #[arg(long, short)]
    yes: bool,
    /// Write what became of every object into this file: .csv or .parquet.
    #[arg(long, value_name = "FILE")]
    report: Option<std::path::PathBuf>,
}

pub async fn run(app: &App, command: Restore) -> Result<Ended> {
    let asked = command.asked.with_file()?;
    let resource = bucket_only(asked.bucket()?)?;
    let to = super::ls::point(app, asked.to()?)?;
    let certainty = if asked.proven { Certainty::Proven } else { Certainty::Arrived };
    let opened = app.vault(&command.vault).await?;
    let target_text = asked.target()?;
    let (target, prefix) = target(app, &opened, &resource, target_text, command.target_endpoint.as_deref()).await?;
    let options = RestoreOptions { prefix, dry_run: command.dry_run, ..asked.options()? };
    let mut request = RestoreRequest { resource, to, certainty, options };
    // What cannot be restored is refused before anything is asked or opened.
    let plan = planned(&opened.vault, &request).await?;
    for gap in &plan.open_gaps {
        tracing::warn!(from = %gap.from, to = gap.to.map(|to| to.to_string()), reason = gap.reason, "the log has a gap before that time");
    }
    if request.options.mode == Some(Mode::Exact) && !command.dry_run && !command.yes {
        confirm(app, &opened, &mut request, &target).await?;
    }
    let watcher = Watcher::new(command.report.as_deref(), std::io::stderr().is_terminal() && !app.flags.json)?;
    let report = restore(&opened.vault, &request, &target, app.clock.as_ref(), &watcher).await?;
    watcher.finish()?;
    let mut output = Output::new(app.flags.json);
    if output.json {
        output.document(&report)?;
    } else {
        output.bytes(report.to_string().as_bytes())?;
    }
    output.finish()?;
    Ok(ended(&report))
}

/// How a restore ended.
pub fn ended(report: &RestoreReport) -> Ended {
    if report.status == Status::Completed { Ended::Whole } else { Ended::InPart }
}

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
    let tally = report?.tally;
    request.options.dry_run = false;
    let mut terminal = std::io::stderr();
    write!(
        terminal,
        "{} will get {} objects, {} be overwritten and {} be removed. Go on? [y/N] ",
        escaped(&target.name()),
        tally.creates,
        tally.overwrites,
        tally.deletes
    )?;
    terminal.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::refused("nothing was restored").into()),
    }
}

/// The target that a person wrote, and what stands before every key there.
async fn target(
    app: &App,
    opened: &OpenVault,
    resource: &pipeline::model::ResourceId,
    text: &str,
    endpoint: Option<&str>,
) -> Result<(Arc<dyn Target>, String)> {
    if !text.starts_with("s3://") {
        let path = text.strip_prefix("file://").unwrap_or(text);
        let vaults = app.configured()?;
        if let Some(place) = vaults.iter().chain([&opened.place]).find(|place| place.is_in_directory(path.as_ref())) {
            return Err(Failure::refused(format!("cannot restore to {path}: vault {} lies within it", place.name)).into());
        }
        return Ok((Arc::new(DirectoryTarget::new(path)), String::new()));
    }
    let (bucket, mut prefix) = bucket_and_rest(text)?;
    if !prefix.is_empty() && !prefix.ends_with('/') {
        prefix.push('/');
    }
    let source = protection::newest(&opened.vault, resource).await?.and_then(|known| known.record.endpoint);
    let named = endpoint.or_else(|| if app.flags.endpoint_url.is_some() { None } else { source.as_deref() });
    let endpoint = app.endpoint(named)?;
    let found = endpoint.bucket(bucket.bucket_name()).await?;
    if opened.place.is_in_bucket(&bucket, &endpoint) || opened.is_in_bucket(found.as_ref()).await? {
        return Err(Failure::refused(format!("cannot restore to {bucket}: the vault lies within it")).into());
    }
    let vault_bucket = opened.place.copyable_bucket(&endpoint).map(str::to_owned);
    Ok((Arc::new(BucketTarget::new(found, prefix.clone()).with_vault_bucket(vault_bucket)), prefix))
}
