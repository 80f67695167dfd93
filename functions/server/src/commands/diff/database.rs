//! What changed in a database between two of its states.

use std::collections::BTreeMap;

use anyhow::Result;
use database::DatabaseError;
use database::diff::{Differences, RowChanged, RowDifference, chosen_at_either, diff};
use database::restore::Chosen;
use pipeline::base::inputs::Inventory;
use pipeline::model::ResourceId;
use pipeline::replay::tables::Tables;

use super::Diff;
use crate::app::App;
use crate::commands::history::{all_of, changed, key};
use crate::commands::ls::warn_uncertain;
use crate::exit::{Ended, Failure};
use crate::output::{Output, Table, escaped};
use crate::protected::Protected;

pub async fn run(app: &App, command: &Diff, (resource, tables): (ResourceId, Option<String>)) -> Result<Ended> {
    for (flag, given) in [("--target", command.target.is_some()), ("-0", command.null)] {
        if given {
            return Err(Failure::usage(format!("{flag} is for buckets, and {:?} is a database", command.bucket)).into());
        }
    }
    let from = command.from.as_deref().ok_or_else(|| Failure::usage("say from when: --from TIME"))?;
    let (from, to) = (app.tables_point(from)?, app.tables_point(command.to.as_deref().unwrap_or("latest"))?);
    let chosen = Chosen::new(tables.into_iter().collect())?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let tables = Tables::read(&opened.vault, &Inventory::load(&opened.vault, &resource).await?).await?;
    let cut = |point| tables.cut(point).map_err(DatabaseError::from);
    let (from, to) = (cut(&from)?, cut(&to)?);
    if from.until > to.until {
        let text = format!("--from is behind --to: {} and {}; write the earlier state first", from.at, to.at);
        return Err(Failure::usage(text).into());
    }
    let chosen = chosen_at_either(&opened.vault, &resource, (&from, &to), &chosen).await?;
    let mut output = Output::new(app.flags.json);
    let (counts, doubts) = diff(&opened.vault, &tables, (&from, &to), &chosen, |difference: RowDifference| -> Result<()> {
        if !command.summary {
            output.show(&difference, || line(&difference))?;
        }
        Ok(())
    })
    .await?;
    if output.json {
        output.document(&serde_json::json!({ "from": from.at, "to": to.at, "summary": counts, "uncertain": doubts }))?;
    } else {
        output.line(summary(&counts))?;
        output.line(format_args!("{} to {}", from.at, to.at))?;
    }
    output.finish()?;
    warn_uncertain(&doubts);
    Ok(Ended::Whole)
}

fn line(difference: &RowDifference) -> String {
    let sign = match difference.change {
        RowChanged::Added => '+',
        RowChanged::Changed => '~',
        RowChanged::Removed => '-',
    };
    let what = match (&difference.before, &difference.after) {
        (Some(before), Some(after)) => changed(before, after),
        (None, Some(image)) | (Some(image), None) => all_of(image),
        (None, None) => String::new(),
    };
    let key = difference.key.as_deref().map_or_else(String::new, |values| format!("{}  ", key(values)));
    format!("{sign} {}  {key}{what}", escaped(&difference.table))
}

fn summary(counts: &BTreeMap<String, Differences>) -> Table {
    let mut table = Table::new(&["table", "added", "changed", "removed", "the same"]);
    for (name, count) in counts {
        let Differences { added, changed, removed, same } = *count;
        let counts = [added, changed, removed, same].map(|count| count.to_string());
        table.row(std::iter::once(escaped(name)).chain(counts).collect());
    }
    table
}
