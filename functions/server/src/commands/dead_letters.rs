//! `hindsight dead-letters`: the messages of which something could not be taken, and why.

use anyhow::Result;
use clap::Args;
use handlers::letters::{self, DeadLetter};
use pipeline::vault::layout;
use serde::Serialize;

use crate::app::{App, VaultFlag};
use crate::exit::{Ended, Failure};
use crate::output::{Output, counted, escaped};

/// Show the messages of which something could not be taken: on which day they came, how many of their events
/// it was, and why.
///
/// Each is kept whole, and what is found out later can be done with it: `--message` writes it as it came.
#[derive(Debug, Args)]
pub struct DeadLetters {
    #[command(flatten)]
    vault: VaultFlag,
    /// Write this message to standard output, as it came: DATE/ID as the list shows it.
    #[arg(long, value_name = "DATE/ID")]
    message: Option<String>,
}

/// One letter, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    letter: &'a str,
    stream: &'a str,
    events: usize,
    reasons: &'a [String],
}

/// Reasons of one letter that a person is shown.
const SHOWN_MAX: usize = 5;

pub async fn run(app: &App, command: DeadLetters) -> Result<Ended> {
    let opened = app.vault(&command.vault).await?;
    let mut output = Output::new(app.flags.json);
    if let Some(name) = &command.message {
        let paths = letters::list(&opened.vault).await?;
        let path = paths.iter().find(|path| name_of(path) == *name);
        let path = path.ok_or_else(|| Failure::usage(format!("there is no dead letter {name:?}; the list names all of them")))?;
        output.bytes(&letters::read(&opened.vault, path).await?.message(path)?)?;
        output.finish()?;
        return Ok(Ended::Whole);
    }
    let paths = letters::list(&opened.vault).await?;
    for path in &paths {
        let DeadLetter { stream, events, reasons, .. } = &letters::read(&opened.vault, path).await?;
        let name = name_of(path);
        output.show(&Line { letter: &name, stream, events: *events, reasons }, || shown(&name, stream, *events, reasons))?;
    }
    if paths.is_empty() && !output.json {
        output.line("there are none: every event that came could be taken")?;
    }
    output.finish()?;
    Ok(Ended::Whole)
}

/// `DATE/ID` of the path of a letter.
fn name_of(path: &str) -> String {
    let name = path.strip_prefix(layout::DEAD_FOLDER).unwrap_or(path).trim_start_matches('/');
    name.strip_prefix("date=").unwrap_or(name).trim_end_matches(".json").to_owned()
}

fn shown(name: &str, stream: &str, events: usize, reasons: &[String]) -> String {
    let mut text = format!("{name}  {} by {}", counted(events as u64, "event"), escaped(stream));
    for reason in reasons.iter().take(SHOWN_MAX) {
        text.push_str(&format!("\n  {}", escaped(reason)));
    }
    if events > reasons.len().min(SHOWN_MAX) {
        text.push_str(&format!("\n  and {} more", events - reasons.len().min(SHOWN_MAX)));
    }
    text
}
