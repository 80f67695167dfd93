//! The rows of a table as they were.

use std::io::Write as _;

use anyhow::Result;
use database::DatabaseError;
use database::look::{Csv, rows};
use database::restore::Chosen;
use pipeline::base::inputs::Inventory;
use pipeline::model::ResourceId;
use pipeline::replay::tables::Tables;
use serde_json::value::RawValue;

use super::Cat;
use crate::app::App;
use crate::commands::ls::warn_uncertain;
use crate::exit::{Ended, Failure};
use crate::output::{Output, escaped};
use crate::protected::Protected;

pub async fn run(app: &App, command: &Cat, (resource, table): (ResourceId, Option<String>)) -> Result<Ended> {
    if command.version_id.is_some() {
        return Err(Failure::usage(format!("--version-id is for buckets, and {resource} is a database")).into());
    }
    let table = table.ok_or_else(|| Failure::usage(format!("{:?} names no table; write {resource}/TABLE", command.object)))?;
    let point = app.tables_point(&command.at)?;
    let chosen = Chosen::new(vec![table.clone()])?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let tables = Tables::read(&opened.vault, &Inventory::load(&opened.vault, &resource).await?).await?;
    let cut = tables.cut(&point).map_err(DatabaseError::from)?;
    let mut output = Output::new(app.flags.json);
    let (mut csv, mut lines) = (Csv::default(), Vec::new());
    let doubts = rows(&opened.vault, &resource, (&tables, &cut), &chosen, |row| -> Result<()> {
        if output.json {
            let image: Option<&RawValue> = row.image.map(serde_json::from_str).transpose()?;
            output.document(&serde_json::json!({ "table": format!("{}.{}", row.schema, row.table), "row": image }))?;
            return Ok(());
        }
        lines.clear();
        csv.row(&mut lines, row).map_err(|reason| Failure::refused(format!("cannot write {} as CSV: {reason}", escaped(&table))))?;
        Ok(output.writer().write_all(&lines)?)
    })
    .await?;
    output.finish()?;
    warn_uncertain(&doubts);
    Ok(Ended::Whole)
}
