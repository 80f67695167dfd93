//! `hindsight compact`: merge small segments, and make a base where one is due.

use anyhow::Result;
use clap::Args;
use handlers::compact::{compact, dry_run};
use pipeline::base::plan::Policy;
use serde_json::json;

use crate::app::{App, VaultFlag, whole_resource};
use crate::exit::Ended;
use crate::output::Output;
use crate::protected::Protected;

/// Merge the small segments of a change log, and make a base where one is due. `serve` does it by itself.
///
/// The log of a database is only merged.
#[derive(Debug, Args)]
pub struct Compact {
    /// The bucket or the database.
    #[arg(value_name = "s3://BUCKET|db://NAME")]
    resource: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// Make a base now, whatever the age of the newest.
    #[arg(long)]
    base_now: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(app: &App, command: Compact) -> Result<Ended> {
    let resource = whole_resource(&command.resource)?;
    let Protected { opened, .. } = app.protected(&command.vault, &resource).await?;
    let policy = Policy { base_now: command.base_now, ..Policy::default() };
    let (segments, merges, base, manifest, missing) = if command.dry_run {
        let planned = dry_run(&opened.vault, &resource, app.clock.as_ref(), policy).await?;
        let segments = planned.merges.iter().map(Vec::len).sum::<usize>() as u64;
        (segments, planned.merges.len() as u64, planned.base.map(|base| base.cut), None, 0)
    } else {
        let report = compact(&opened.vault, &resource, app.clock.as_ref(), policy).await?;
        (report.segments, report.merges, report.base, report.manifest, report.missing)
    };
    let mut output = Output::of_deed(app.flags.json);
    if output.json {
        let report = json!({
            "dry_run": command.dry_run, "segments": segments, "merges": merges, "base": base, "manifest": manifest, "missing": missing
        });
        output.document(&report)?;
    } else {
        let would = if command.dry_run { "would be " } else { "" };
        output.line(format_args!("{segments} segments {would}merged into {merges}"))?;
        match base {
            Some(base) => output.line(format_args!("a base {would}made of the state at {base}"))?,
            None => output.line("no base is due")?,
        }
        if missing > 0 {
            output.line(format_args!("{missing} segments of the change log are missing: `hindsight status` names the gaps"))?;
        }
    }
    output.finish()?;
    Ok(Ended::Whole)
}
