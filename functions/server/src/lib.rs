//! Hindsight in one process: `serve` keeps every change of what is protected; the other commands look into vaults,
//! restore from them and look after them.
//!
//! A binary is a call of [`run`], with what it can do beyond the others; hosts of functions call [`functions`].
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

mod app;
mod clock;
mod commands;
mod config;
mod contact;
mod databases;
mod endpoints;
mod exit;
pub mod functions;
mod instant;
mod nearest;
mod output;
mod protected;
mod restoring;
mod serve;
mod sources;
mod standing;
mod targets;
mod vaults;
mod windows;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::app::{App, Flags};
use crate::commands::Command;
use crate::config::LogFormat;
use crate::exit::{EXIT_CODES, Ended, Failure};
pub use crate::sources::kafka::{Topic, Topics};
pub use crate::sources::{IDLE_WAIT, ROUND_MESSAGES_MAX, ROUND_TIME_MAX, Stop, stopped};

/// Continuous backup of S3 buckets, PostgreSQL databases and virtual machines: what is kept of them can be restored to any second.
#[derive(Debug, Parser)]
#[command(name = "hindsight", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

/// What one binary can do and another cannot.
#[derive(Clone, Default)]
pub struct Abilities {
    /// Opens topics of Kafka.
    pub kafka: Option<Arc<dyn Topics>>,
}

/// Runs the command line of this process to its end.
pub fn run(abilities: Abilities) -> ExitCode {
    standing::prepare();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unreadable(&error),
    };
    let json = cli.flags.json;
    exit::finish(run_command(cli, abilities), json)
}

fn run_command(cli: Cli, abilities: Abilities) -> anyhow::Result<Ended> {
    let app = App { abilities, ..App::new(cli.flags)? };
    start_log(&app, matches!(cli.command, Command::Serve(_)))?;
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, meant) in config::misspelled(&app.config, set) {
        tracing::warn!("nothing reads the environment variable {name}; did you mean {meant}?");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // `serve` ends in its own way, and `backup` clears up in the machine.
    if !matches!(cli.command, Command::Serve(_) | Command::Backup(_)) {
        let json = app.flags.json;
        let within = runtime.enter();
        let mut interrupts = signal(SignalKind::interrupt())?;
        drop(within);
        // On a thread of its own: the command may be busy with a disk, and not look up for a long time.
        runtime.spawn(async move {
            if interrupts.recv().await.is_some() {
                std::process::exit(exit::interrupted(json));
            }
        });
    }
    let ended = runtime.block_on(commands::run(&app, cli.command));
    // Nobody waits for an answer at a prompt that nobody will read.
    runtime.shutdown_background();
    ended
}

/// The command line could not be understood, or asks for help.
fn unreadable(error: &clap::Error) -> ExitCode {
    // The flag itself may stand anywhere on a command line that cannot be read.
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        return exit::finish(Err(Failure::usage(error.to_string().trim_end()).into()), true);
    }
    // Nobody reads it, so nobody misses it.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn start_log(app: &App, serves: bool) -> Result<(), Failure> {
    // What keeps credentials from being found is in the error; the SDK would tell it a second time, at length.
    let default = if serves { "info,aws_config=error" } else { "warn,aws_config=error" };
    let level = app.flags.log_level.as_deref().or(app.config.log_level.as_deref()).unwrap_or(default);
    let unreadable = |reason: String| Failure::usage(format!("{level:?} is no level of the log: {reason}"));
    // A word that is no level would be taken for the name of a module, of which nothing is ever logged.
    let is_level = |word: &str| word.contains('=') || word.parse::<LevelFilter>().is_ok();
    if let Some(word) = level.split(',').map(str::trim).find(|word| !is_level(word)) {
        return Err(unreadable(format!("{word:?} is none of off, error, warn, info, debug, trace, and no MODULE=LEVEL")));
    }
    let filter = EnvFilter::try_new(level).map_err(|error| unreadable(error.to_string()))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A log that cannot be written, on a full disk say, ends nothing: the complaint about it would panic.
    let log = log.log_internal_errors(false);
    match app.flags.log_format.unwrap_or(app.config.log_format) {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
    Ok(())
}
