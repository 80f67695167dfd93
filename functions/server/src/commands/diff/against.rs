//! A bucket at a time beside what a place holds now.

use anyhow::Result;
use handlers::diff::{Place, PlaceDifference, diff_against};
use pipeline::base::inputs::Inventory;
use serde_json::json;

use super::{Diff, shown, summary, write_key};
use crate::app::{App, bucket_and_rest};
use crate::commands::ls::warn_uncertain;
use crate::exit::Ended;
use crate::output::{Output, escaped};

pub async fn run(app: &App, command: &Diff, target: &str) -> Result<Ended> {
    let (resource, prefix) = bucket_and_rest(&command.bucket)?;
    let at = app.instant(command.at.as_deref().unwrap_or("latest"))?;
    let protected = app.kept(&command.vault, &resource).await?;
    let place = app.target(&protected, target, command.target_endpoint.as_deref()).await?;
    place.must_exist()?;
    let vault = &protected.opened.vault;
    let plan = at.to_look_at(app, &Inventory::load(vault, &resource).await?)?;
    let name = place.target.name();
    let place = Place { target: place.target, prefix: place.prefix, acls: !command.no_acls };
    let mut output = Output::of_deed(app.flags.json);
    let (report, doubts) = diff_against(vault, &plan, &prefix, &place, |difference| -> Result<()> {
        if !write_key(&mut output, command, difference.change, &difference.object)? {
            output.show(&difference, || line(&difference))?;
        }
        Ok(())
    })
    .await?;
    if output.json {
        output.document(&json!({ "at": plan.to, "target": name, "summary": report, "uncertain": doubts }))?;
    } else if !command.null {
        output.line(format_args!("{} to what is now in {}: {}", plan.to, escaped(&name), summary(&report)))?;
    }
    output.finish()?;
    warn_uncertain(&doubts);
    Ok(if report.differs() { Ended::InPart } else { Ended::Whole })
}

fn line(difference: &PlaceDifference) -> String {
    let PlaceDifference { object, change, differs, before, after, .. } = difference;
    shown(object, *change, differs, before.as_ref().map(|before| before.size), after.as_ref().map(|after| after.size))
}
