//! `hindsight diff`: what changed between two times.

use anyhow::Result;
use clap::Args;
use handlers::diff::{Change, DiffReport, Difference, diff};
use pipeline::base::inputs::Inventory;
use pipeline::model::Timestamp;

use crate::app::{App, VaultFlag, bucket_and_rest};
use crate::exit::Ended;
use crate::output::{Output, bytes, escaped};

/// Show which objects were added, changed and removed between two times.
#[derive(Debug, Args)]
pub struct Diff {
    /// The bucket, and the beginning of the keys that are compared.
    #[arg(value_name = "s3://BUCKET[/PREFIX]")]
    bucket: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// The earlier time: RFC 3339, 5m ago.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// The later time, or latest; now means latest, too.
    #[arg(long, value_name = "TIME", default_value = "latest")]
    to: String,
    /// Only the counts.
    #[arg(long)]
    summary: bool,
    /// Write nothing but keys, as they are, each with `+`, `~` or `-` before and a NUL behind it.
    #[arg(short = '0', long = "null", conflicts_with_all = ["json", "summary"])]
    null: bool,
}

pub async fn run(app: &App, command: Diff) -> Result<Ended> {
    let (resource, prefix) = bucket_and_rest(&command.bucket)?;
    let opened = app.vault(&command.vault).await?;
    let inventory = Inventory::load(&opened.vault, &resource).await?;
    let from = super::ls::planned_in(app, &inventory, &command.from)?;
    let to = super::ls::planned_in(app, &inventory, &command.to)?;
    let mut output = Output::new(app.flags.json);
    let report = diff(&opened.vault, &inventory, (from, to), &prefix, |difference| -> Result<()> {
        if command.null {
            output.bytes(&[sign(difference.change) as u8])?;
            output.bytes(difference.object.as_bytes())?;
            output.bytes(b"\0")?;
        } else if command.summary {
        } else if output.json {
            output.document(&difference)?;
        } else {
            output.line(line(&difference))?;
        }
        Ok(())
    })
    .await?;
    if output.json {
        output.document(&serde_json::json!({ "from": from, "to": to, "summary": report }))?;
    } else if !command.null {
        output.line(summary(from, to, &report))?;
    }
    output.finish()?;
    Ok(Ended::Whole)
}

fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Changed => '~',
        Change::Removed => '-',
    }
}

/// One difference, for people.
pub fn line(difference: &Difference) -> String {
    let size = |version: &Option<pipeline::view::ObjectVersion>| version.as_ref().map(|version| bytes(version.size));
    let sizes = match (size(&difference.before), size(&difference.after)) {
        (Some(before), Some(after)) if before != after => format!("{before} to {after}"),
        (_, Some(size)) | (Some(size), None) => size,
        (None, None) => String::new(),
    };
    format!("{} {:<24} {}", sign(difference.change), sizes, escaped(&difference.object))
}

fn summary(from: Timestamp, to: Timestamp, report: &DiffReport) -> String {
    let DiffReport { added, changed, removed, same, bytes_added, bytes_removed, uncertain } = *report;
    let unsure = if uncertain > 0 { format!(", {uncertain} uncertain") } else { String::new() };
    format!(
        "{from} to {to}: {added} added, {changed} changed, {removed} removed, {same} the same{unsure}; {} came, {} went",
        bytes(bytes_added),
        bytes(bytes_removed)
    )
}
