//! `hindsight diff`: what changed between two times, or what a place holds that is not as it was.

mod against;
mod database;

use anyhow::Result;
use clap::Args;
use handlers::diff::{Change, DiffReport, Difference, diff};
use pipeline::base::inputs::Inventory;
use pipeline::target::Aspect;

use super::ls::warn_uncertain;
use crate::app::{App, VaultFlag, bucket_and_rest, database_and_tables};
use crate::exit::{Ended, Failure};
use crate::output::{Output, bytes, escaped};
use crate::protected::Protected;

/// Show which objects, or rows of a database, were added, changed and removed between two times; or which objects differ from what a place
/// holds now.
///
/// Objects are the same if their bytes, metadata, tags, ACL and storage class are: another version id alone is no difference.
#[derive(Debug, Args)]
#[command(override_usage = "hindsight diff s3://BUCKET[/PREFIX]|db://NAME[/TABLE] --from TIME [--to TIME] [OPTIONS]\n       \
                            hindsight diff s3://BUCKET[/PREFIX] --target PLACE [--at TIME] [OPTIONS]")]
pub struct Diff {
    /// The bucket, and the beginning of the keys that are compared. Or the database, and the tables: TABLE, SCHEMA.TABLE, with `*`, `?`
    /// and `[a-z]` for others.
    #[arg(value_name = "s3://BUCKET[/PREFIX]|db://NAME[/TABLE]")]
    bucket: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// The earlier time: RFC 3339, or 5m ago.
    #[arg(long, value_name = "TIME", required_unless_present = "target", conflicts_with_all = ["at", "target"])]
    from: Option<String>,
    /// The later time [default: latest]; now means latest, too.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["at", "target"])]
    to: Option<String>,
    /// The time with which --target is compared [default: latest].
    #[arg(long, value_name = "TIME", requires = "target")]
    at: Option<String>,
    /// Compare with what a place holds now: a bucket, a part of one, or a directory; - is not there, + only there. Contents
    /// are read where checksums do not tell. Ends with 3 if anything differs.
    #[arg(long, value_name = "s3://OTHER[/PREFIX]|DIR")]
    target: Option<String>,
    /// The S3 server of --target: an endpoint's name or URL [default: that of --endpoint-url, or of the bucket].
    #[arg(long, value_name = "NAME|URL", requires = "target")]
    target_endpoint: Option<String>,
    /// Do not compare ACLs with --target.
    #[arg(long, requires = "target")]
    no_acls: bool,
    /// Only the counts.
    #[arg(long)]
    summary: bool,
    /// Write nothing but keys, as they are, each with `+`, `~` or `-` before and a NUL behind it.
    #[arg(short = '0', long = "null", conflicts_with_all = ["json", "summary"])]
    null: bool,
}

pub async fn run(app: &App, command: Diff) -> Result<Ended> {
    if let Some(of) = database_and_tables(&command.bucket)? {
        return database::run(app, &command, of).await;
    }
    if let Some(target) = &command.target {
        return against::run(app, &command, target).await;
    }
    let (resource, prefix) = bucket_and_rest(&command.bucket)?;
    let from = command.from.as_deref().ok_or_else(|| Failure::usage("say from when: --from TIME"))?;
    let (from, to) = (app.instant(from)?, app.instant(command.to.as_deref().unwrap_or("latest"))?);
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let inventory = Inventory::load(&opened.vault, &resource).await?;
    let (from, to) = (from.to_look_at(app, &inventory)?.to, to.to_look_at(app, &inventory)?.to);
    if from > to {
        return Err(Failure::usage(format!("--from {from} is later than --to {to}; write the earlier time first")).into());
    }
    let mut output = Output::new(app.flags.json);
    let (report, doubts) = diff(&opened.vault, &inventory, (from, to), &prefix, |difference| -> Result<()> {
        if !write_key(&mut output, &command, difference.change, &difference.object)? {
            output.show(&difference, || line(&difference))?;
        }
        Ok(())
    })
    .await?;
    if output.json {
        output.document(&serde_json::json!({ "from": from, "to": to, "summary": report, "uncertain": doubts }))?;
    } else if !command.null {
        output.line(format_args!("{from} to {to}: {}", summary(&report)))?;
    }
    output.finish()?;
    warn_uncertain(&doubts);
    Ok(Ended::Whole)
}

/// Writes no more than the key, or not even that. Says whether that was all that is wanted.
fn write_key(output: &mut Output, command: &Diff, change: Change, object: &str) -> Result<bool> {
    if command.null {
        output.bytes(&[sign(change) as u8])?;
        output.bytes(object.as_bytes())?;
        output.bytes(b"\0")?;
    }
    Ok(command.null || command.summary)
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
    let Difference { object, change, differs, before, after } = difference;
    shown(object, *change, differs, before.as_ref().map(|before| before.size), after.as_ref().map(|after| after.size))
}

fn shown(object: &str, change: Change, differs: &[Aspect], before: Option<u64>, after: Option<u64>) -> String {
    let sizes = match (before.map(bytes), after.map(bytes)) {
        (Some(before), Some(after)) if before != after => format!("{before} to {after}"),
        (_, Some(size)) | (Some(size), None) => size,
        (None, None) => String::new(),
    };
    let words: Vec<&str> = differs.iter().map(|aspect| aspect.as_str()).collect();
    let words = if words.is_empty() { String::new() } else { format!("  ({})", words.join(", ")) };
    format!("{} {sizes:<24} {}{words}", sign(change), escaped(object))
}

fn summary(report: &DiffReport) -> String {
    let DiffReport { added, changed, removed, same, bytes_added, bytes_removed, uncertain, unknown } = *report;
    let mut text = format!("{added} added, {changed} changed, {removed} removed, {same} the same");
    if uncertain > 0 {
        text.push_str(&format!(", {uncertain} uncertain"));
    }
    text.push_str(&format!("; {} came, {} went", bytes(bytes_added), bytes(bytes_removed)));
    if unknown > 0 {
        text.push_str(&format!("; of {unknown} not everything could be compared"));
    }
    text
}
