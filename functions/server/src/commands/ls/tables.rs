//! The tables of a database as they were.

use anyhow::Result;
use database::DatabaseError;
use database::look::counts;
use database::restore::Chosen;
use pipeline::base::inputs::Inventory;
use pipeline::model::ResourceId;
use pipeline::replay::tables::Tables;

use super::{Ls, warn_uncertain};
use crate::app::App;
use crate::exit::{Ended, Failure};
use crate::output::{Output, Table, escaped};
use crate::protected::Protected;

pub async fn run(app: &App, command: &Ls, (resource, tables): (ResourceId, Option<String>)) -> Result<Ended> {
    for (flag, given) in [("--versions", command.versions), ("-0", command.null)] {
        if given {
            return Err(Failure::usage(format!("{flag} is for buckets, and {resource} is a database")).into());
        }
    }
    let point = app.tables_point(&command.at)?;
    let chosen = Chosen::new(tables.into_iter().collect())?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let tables = Tables::read(&opened.vault, &Inventory::load(&opened.vault, &resource).await?).await?;
    let cut = tables.cut(&point).map_err(DatabaseError::from)?;
    let (counts, doubts) = counts(&opened.vault, &resource, (&tables, &cut), &chosen).await?;
    let mut output = Output::new(app.flags.json);
    let mut table = Table::new(&["rows", "table"]);
    for (name, rows) in &counts {
        if output.json {
            output.document(&serde_json::json!({ "table": name, "rows": rows }))?;
        } else {
            table.row(vec![rows.to_string(), escaped(name)]);
        }
    }
    if !output.json {
        match table.len() {
            0 => output.line(format_args!("no table had a row at {}", cut.at))?,
            _ => output.line(table)?,
        }
    }
    output.finish()?;
    warn_uncertain(&doubts);
    Ok(Ended::Whole)
}
