//! `hindsight undo`: the latest state of a database without what some transactions did.

use anyhow::Result;
use clap::Args;
use database::restore::Chosen;
use database::undo::{Conflict, Undo as Undone, UndoOf, undo};
use pipeline::model::Timestamp;

use crate::app::{App, VaultFlag, database_and_tables};
use crate::databases;
use crate::exit::{Ended, Failure};
use crate::output::{Output, counted, escaped};
use crate::protected::Protected;

/// So many conflicts are told to people; the script and --json have all.
const TOLD_MAX: usize = 20;

/// Undo what some transactions did to the rows of a database, and nothing of what others did since: as SQL, or in a database.
///
/// Where others have changed the same since, that is a conflict: it is named, and the row stays as it is. The SQL is one transaction, and does
/// nothing at all where a row is not as the vault knows it.
#[derive(Debug, Args)]
pub struct Undo {
    /// The database, or tables of it: TABLE, SCHEMA.TABLE, with `*`, `?` and `[a-z]` for others.
    #[arg(value_name = "db://NAME[/TABLE]")]
    what: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// The transaction, as `hindsight history` shows it; may be given several times.
    #[arg(long, value_name = "NUMBER", required_unless_present_any = ["from", "to"])]
    transaction: Vec<String>,
    /// Only transactions that were committed at this time or later: RFC 3339, or 5m ago.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only transactions that were committed at this time or earlier.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Undo it there, instead of writing the SQL: in a database that was restored to latest, or in the protected one.
    #[arg(long, value_name = "postgres://USER@HOST:PORT/DATABASE")]
    target: Option<String>,
}

pub async fn run(app: &App, command: Undo) -> Result<Ended> {
    let Some((resource, tables)) = database_and_tables(&command.what)? else {
        return Err(Failure::usage(format!("{:?} is no database; write db://NAME, or db://NAME/TABLE", command.what)).into());
    };
    let end = |text: &Option<String>| text.as_deref().map(|text| Timestamp::parse(text, app.clock.now())).transpose();
    let (from, to) = (end(&command.from)?.unwrap_or(Timestamp::MIN), end(&command.to)?.unwrap_or(Timestamp::MAX));
    if from > to {
        return Err(Failure::usage(format!("--from {from} is later than --to {to}; write the earlier time first")).into());
    }
    let target = command.target.as_deref().map(databases::address).transpose()?;
    let of = UndoOf { chosen: Chosen::new(tables.into_iter().collect())?, transactions: command.transaction, from, to };
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let undone = undo(&opened.vault, &resource, &of).await?;
    if let Some(target) = &target {
        undone.apply(&resource, target).await?;
    }
    let mut output = Output::of_deed(app.flags.json);
    if output.json {
        for row in &undone.rows {
            output.document(row)?;
        }
        for conflict in &undone.conflicts {
            output.document(conflict)?;
        }
        output.document(&summary(&undone, target.as_ref().map(ToString::to_string)))?;
    } else if let Some(target) = &target {
        output.line(format_args!("undone: {}, in {}", words(&undone), escaped(&target.to_string())))?;
    } else {
        output.bytes(undone.script(&resource).as_bytes())?;
    }
    output.finish()?;
    if !app.flags.json {
        warn(&undone.conflicts);
        if target.is_none() {
            tracing::warn!(
                "nothing is undone yet: standard output has the SQL, for `psql --set ON_ERROR_STOP=1`, that undoes {}",
                words(&undone)
            );
        }
    }
    Ok(if undone.conflicts.is_empty() { Ended::Whole } else { Ended::InPart })
}

fn summary(undone: &Undone, target: Option<String>) -> serde_json::Value {
    serde_json::json!({
        "state_at": undone.state.at,
        "transactions": undone.transactions,
        "rows": undone.rows.len(),
        "conflicts": undone.conflicts.len(),
        "nothing_to_do": undone.nothing,
        "target": target,
    })
}

fn words(undone: &Undone) -> String {
    let rows = counted(undone.rows.len() as u64, "row");
    let transactions = counted(undone.transactions.len() as u64, "transaction");
    let conflicts = counted(undone.conflicts.len() as u64, "conflict");
    let already = if undone.nothing > 0 { format!("; {} as without it already", counted(undone.nothing, "row")) } else { String::new() };
    format!("{transactions} in {rows}, {conflicts}{already}")
}

fn warn(conflicts: &[Conflict]) {
    for conflict in conflicts.iter().take(TOLD_MAX) {
        tracing::warn!("not undone: {}", escaped(&conflict.to_string()));
    }
    if conflicts.len() > TOLD_MAX {
        tracing::warn!("and {} more are not undone", conflicts.len() - TOLD_MAX);
    }
}
