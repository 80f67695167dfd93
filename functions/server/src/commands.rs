//! The commands, one file each.

mod cat;
mod check;
mod compact;
mod completions;
mod configuration;
mod dead_letters;
mod demo;
mod diff;
mod history;
mod ls;
mod machine;
mod protect;
mod reconcile;
mod replay;
pub mod restore;
mod serve;
mod status;
mod undo;
mod verify;

use anyhow::Result;
use clap::Subcommand;

use crate::app::App;
use crate::exit::Ended;

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    Protect(protect::Protect),
    Unprotect(protect::Unprotect),
    Serve(serve::Serve),
    Status(status::Status),
    Restore(Box<restore::Restore>),
    Backup(machine::Backup),
    #[command(name = "points")]
    Points(machine::ListPoints),
    Ls(ls::Ls),
    Cat(cat::Cat),
    History(history::History),
    Configuration(configuration::Configuration),
    Diff(diff::Diff),
    Undo(undo::Undo),
    Compact(compact::Compact),
    Reconcile(reconcile::Reconcile),
    Replay(replay::Replay),
    Verify(verify::Verify),
    Check(check::Check),
    DeadLetters(dead_letters::DeadLetters),
    Demo(demo::Demo),
    Completions(completions::Completions),
    #[command(hide = true)]
    Config(completions::Config),
}

/// Runs a command to its end.
pub async fn run(app: &App, command: Command) -> Result<Ended> {
    match command {
        Command::Protect(command) => protect::protect(app, command).await,
        Command::Unprotect(command) => protect::unprotect(app, command).await,
        Command::Serve(command) => serve::run(app, command).await,
        Command::Status(command) => status::run(app, command).await,
        Command::Restore(command) => restore::run(app, *command).await,
        Command::Backup(command) => machine::run_backup(app, command).await,
        Command::Points(command) => machine::run_points(app, command).await,
        Command::Ls(command) => ls::run(app, command).await,
        Command::Cat(command) => cat::run(app, command).await,
        Command::History(command) => history::run(app, command).await,
        Command::Configuration(command) => configuration::run(app, command).await,
        Command::Diff(command) => diff::run(app, command).await,
        Command::Undo(command) => undo::run(app, command).await,
        Command::Compact(command) => compact::run(app, command).await,
        Command::Reconcile(command) => reconcile::run(app, command).await,
        Command::Replay(command) => replay::run(app, command).await,
        Command::Verify(command) => verify::run(app, command).await,
        Command::Check(command) => check::run(app, command).await,
        Command::DeadLetters(command) => dead_letters::run(app, command).await,
        Command::Demo(command) => demo::run(app, command).await,
        Command::Completions(command) => completions::run(app, command),
        Command::Config(command) => completions::config(app, command),
    }
}
