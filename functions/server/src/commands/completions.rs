//! `hindsight completions SHELL`, and the hidden `hindsight config --markdown`.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::app::App;
use crate::config::markdown;
use crate::exit::Ended;
use crate::output::Output;

/// Write the completions of a shell to standard output.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell.
    shell: Shell,
}

/// Write the page about the settings.
#[derive(Debug, Args)]
pub struct Config {
    /// As it stands in docs/configuration.md.
    #[arg(long, required = true)]
    markdown: bool,
}

pub fn run(app: &App, command: Completions) -> Result<Ended> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut crate::Cli::command(), "hindsight", &mut script);
    write(app, &String::from_utf8_lossy(&script))
}

pub fn config(app: &App, command: Config) -> Result<Ended> {
    debug_assert!(command.markdown);
    write(app, &markdown())
}

fn write(app: &App, text: &str) -> Result<Ended> {
    let mut output = Output::new(app.flags.json);
    if output.json {
        output.document(&serde_json::json!({ "text": text }))?;
    } else {
        output.bytes(text.as_bytes())?;
    }
    output.finish()?;
    Ok(Ended::Whole)
}
