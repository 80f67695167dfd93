//! `hindsight history`: everything that ever happened to an object, to a row of a table, or to all of them.

mod bucket;
mod database;

use anyhow::Result;
use clap::Args;
use pipeline::model::Timestamp;

pub use self::database::{all_of, changed, key};
use crate::app::{App, VaultFlag, database_and_tables};
use crate::exit::{Ended, Failure};

/// Show every change that the vault knows of: of an object, or of many; of a database by transaction, or row by row.
#[derive(Debug, Args)]
pub struct History {
    /// The object; with --recursive the beginning of keys. Or the database, or tables of it: TABLE, SCHEMA.TABLE, with `*`, `?` and
    /// `[a-z]` for others.
    #[arg(value_name = "s3://BUCKET/KEY|db://NAME[/TABLE]")]
    what: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// All objects whose keys begin so, in order of time.
    #[arg(long, short)]
    recursive: bool,
    /// Only what happened at this time or later: RFC 3339, or 5m ago.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only what happened at this time or earlier.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    #[command(flatten)]
    database: DatabaseFlags,
}

/// What is shown of a database.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a database")]
struct DatabaseFlags {
    /// Show each row that was changed, as it was before and after, instead of how many were changed by which transaction.
    #[arg(long)]
    rows: bool,
    /// Only rows that had, or got, this value in a column; may be given several times. NULL is written NULL.
    #[arg(long, value_name = "COLUMN=VALUE")]
    row: Vec<String>,
    /// Only what this transaction did to rows.
    #[arg(long, value_name = "NUMBER")]
    transaction: Option<String>,
}

pub async fn run(app: &App, command: History) -> Result<Ended> {
    let end = |text: &Option<String>| text.as_deref().map(|text| Timestamp::parse(text, app.clock.now())).transpose();
    let (from, to) = (end(&command.from)?.unwrap_or(Timestamp::MIN), end(&command.to)?.unwrap_or(Timestamp::MAX));
    if from > to {
        return Err(Failure::usage(format!("--from {from} is later than --to {to}; write the earlier time first")).into());
    }
    match database_and_tables(&command.what)? {
        Some(of) => database::run(app, &command, of, (from, to)).await,
        None => {
            if let Some(flag) = command.database.given() {
                return Err(Failure::usage(format!("{flag} is for databases, and {:?} is none", command.what)).into());
            }
            bucket::run(app, &command, (from, to)).await
        }
    }
}

impl DatabaseFlags {
    /// The flag of these that is given.
    fn given(&self) -> Option<&'static str> {
        let DatabaseFlags { rows, row, transaction } = self;
        let all = [("--rows", *rows), ("--row", !row.is_empty()), ("--transaction", transaction.is_some())];
        all.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}
