//! `hindsight replay`: events from an archive of EventBridge, once more.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::{ReplayDestination, ReplayState};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pipeline::model::Timestamp;
use serde::Serialize;

use crate::app::App;
use crate::exit::{Ended, Failure};
use crate::output::Output;

/// How often it is asked how far a replay has come.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Let EventBridge replay the events of a time from an archive, and follow it to its end.
///
/// What was kept already is not kept twice, whatever the times overlap. The events come where they came the first time: through the queue,
/// to whoever takes from it. A version that was purged meanwhile stays purged.
#[derive(Debug, Args)]
pub struct Replay {
    /// The archive: its name or its ARN.
    #[arg(long, value_name = "NAME|ARN")]
    archive: String,
    /// The time of the first event: RFC 3339, or 5h ago.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// The time behind the last.
    #[arg(long, value_name = "TIME")]
    to: String,
    /// The ARN of a rule that gets them; may be given several times. Other rules of the bus get nothing.
    #[arg(long, value_name = "ARN", required_unless_present = "all_rules")]
    rule: Vec<String>,
    /// Every rule of the bus gets them, whoever it belongs to.
    #[arg(long, conflicts_with = "rule")]
    all_rules: bool,
}

/// How a replay ended.
#[derive(Debug, Serialize)]
struct Report {
    replay: String,
    state: String,
    from: Timestamp,
    to: Timestamp,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub async fn run(app: &App, command: Replay) -> Result<Ended> {
    let time = |text: &str| Timestamp::parse(text, app.clock.now());
    let (from, to) = (time(&command.from)?, time(&command.to)?);
    if from >= to {
        return Err(Failure::usage(format!("--from {from} is not before --to {to}")).into());
    }
    let client = app.endpoint(None)?.eventbridge().await?;
    let name = command.archive.rsplit('/').next().unwrap_or(&command.archive);
    let found = client.describe_archive().archive_name(name).send().await;
    let archive = found.map_err(|error| failed(&format!("ask for archive {name}"), &error))?;
    let (Some(source), Some(bus)) = (archive.archive_arn, archive.event_source_arn) else {
        return Err(Failure::broken(format!("archive {name} is described without its ARN or that of its bus")).into());
    };
    let date = |at: Timestamp| DateTime::from_nanos(i128::from(at.micros()) * 1_000);
    let destination = ReplayDestination::builder().arn(bus).set_filter_arns((!command.all_rules).then_some(command.rule)).build()?;
    let replay = format!("hindsight-{}", app.clock.now().micros());
    let asked = client
        .start_replay()
        .replay_name(&replay)
        .description("Asked for by hindsight replay")
        .event_source_arn(source)
        .event_start_time(date(from)?)
        .event_end_time(date(to)?)
        .destination(destination);
    asked.send().await.map_err(|error| failed("start a replay", &error))?;
    tracing::warn!(
        "replay {replay} has begun; it goes on where this command is ended, until `aws events cancel-replay --replay-name {replay}`"
    );
    let report = follow(app, &client, replay, from, to).await?;
    let is_complete = report.state == ReplayState::Completed.as_str();
    let mut output = Output::of_deed(app.flags.json);
    if output.json {
        output.document(&report)?;
    } else {
        let reason = report.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        output.line(format_args!("replay {} of {from} to {to}: {}{reason}", report.replay, report.state))?;
        if is_complete {
            output
                .line("its events are on their way; `hindsight status` shows when they are durable, and which gaps a listing has closed")?;
        }
    }
    output.finish()?;
    Ok(if is_complete { Ended::Whole } else { Ended::InPart })
}

/// Waits for the end of a replay.
async fn follow(app: &App, client: &Client, replay: String, from: Timestamp, to: Timestamp) -> Result<Report> {
    let progress = if std::io::stderr().is_terminal() && !app.flags.json { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    progress.set_style(ProgressStyle::with_template("{spinner} {msg}  {elapsed}")?);
    loop {
        let asked = client.describe_replay().replay_name(&replay).send().await;
        let told = asked.map_err(|error| failed(&format!("ask for replay {replay}"), &error))?;
        let state = told.state.unwrap_or(ReplayState::Starting);
        let reached = told.event_last_replayed_time.map(|at| Timestamp::from_seconds(at.secs()).to_string());
        progress.set_message(format!("{state}, {}", reached.as_deref().unwrap_or("no event yet")));
        progress.tick();
        if !matches!(state, ReplayState::Starting | ReplayState::Running | ReplayState::Cancelling) {
            progress.finish_and_clear();
            return Ok(Report { replay, state: state.as_str().to_owned(), from, to, reason: told.state_reason });
        }
        app.clock.sleep(ASK_EVERY).await;
    }
}

fn failed(attempt: &str, error: &(impl ProvideErrorMetadata + std::error::Error + 'static)) -> Failure {
    let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
    let reason = match code {
        "" => DisplayErrorContext(error).to_string(),
        code => format!("{code}: {message}"),
    };
    match code {
        "ResourceNotFoundException" | "AccessDeniedException" | "ValidationException" => {
            Failure::refused(format!("cannot {attempt}: {reason}"))
        }
        _ => Failure::broken(format!("cannot {attempt}: {reason}")),
    }
}
