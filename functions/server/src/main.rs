//! Hindsight in one process: `serve` keeps every change of what is protected; the other commands look into vaults,
//! restore from them and look after them.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

mod app;
mod clock;
mod commands;
mod config;
mod endpoints;
mod exit;
mod output;
mod serve;
mod sources;
mod standing;
mod vaults;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::app::{App, Flags};
use crate::commands::Command;
use crate::config::LogFormat;
use crate::exit::{EXIT_CODES, Ended, Failure};

/// Continuous backup of S3 buckets: every change is kept, and any second can be restored.
#[derive(Debug, Parser)]
#[command(name = "hindsight", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    standing::prepare();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unreadable(&error),
    };
    let json = cli.flags.json;
    exit::finish(run(cli), json)
}

fn run(cli: Cli) -> anyhow::Result<Ended> {
    let app = App::new(cli.flags)?;
    start_log(&app, matches!(cli.command, Command::Serve(_)))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(commands::run(&app, cli.command))
}

/// The command line could not be understood, or asks for help.
fn unreadable(error: &clap::Error) -> ExitCode {
    // The flag itself may stand anywhere on a command line that cannot be read.
    if error.use_stderr() && std::env::args().any(|argument| argument == "--json") {
        return exit::finish(Err(Failure::usage(error.to_string().trim_end()).into()), true);
    }
    // Nobody reads it, so nobody misses it.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn start_log(app: &App, serves: bool) -> Result<(), Failure> {
    let default = if serves { "info" } else { "warn" };
    let level = app.flags.log_level.as_deref().or(app.config.log_level.as_deref()).unwrap_or(default);
    let filter = EnvFilter::try_new(level).map_err(|error| Failure::usage(format!("{level:?} is no level of the log: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match app.flags.log_format.unwrap_or(app.config.log_format) {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
    Ok(())
}
