//! `hindsight restore --group NAME`: several resources as they were at one and the same time.
//!
//! ```text
//!  the window of each ─→ the one that all have ─→ does the time lie in it? ─→ one after the other
//! ```
//!
//! Nothing is begun before it is known that every one of them can be restored to that time. What then goes wrong with one keeps nobody from
//! the others.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result};
use pipeline::base::inputs::Inventory;
use pipeline::changelog::coverage::Window;
use pipeline::model::{ResourceId, Timestamp};

use super::{Restore, one};
use crate::app::{App, VaultFlag};
use crate::config::GroupSettings;
use crate::exit::{Ended, Failure};
use crate::instant::Instant;
use crate::nearest::meant;
use crate::output::{Output, escaped};
use crate::protected::Protected;
use crate::restoring::Asked;
use crate::windows::window;

/// Where one of a group goes this time.
#[derive(Debug, Clone)]
pub(super) struct Elsewhere {
    resource: String,
    target: String,
}

impl FromStr for Elsewhere {
    type Err = String;

    fn from_str(text: &str) -> Result<Elsewhere, String> {
        match text.split_once('=') {
            Some((resource, target)) if !target.is_empty() => Ok(Elsewhere { resource: resource.to_owned(), target: target.to_owned() }),
            _ => Err(format!("{text:?} does not say what goes where: write s3://BUCKET=TARGET")),
        }
    }
}

/// One of a group.
struct Member {
    resource: ResourceId,
    target: String,
    window: Window,
}

/// Restores all of a group.
pub(super) async fn run(app: &App, command: &Restore, asked: &Asked, name: &str) -> Result<Ended> {
    if let Some(flag) = asked.only_for_one().or(command.report.as_ref().map(|_| "--report")) {
        return Err(Failure::usage(format!("{flag} is for one resource, and group {name} has several")).into());
    }
    let group = named(app, name)?;
    let vault = VaultFlag { vault: command.vault.vault.clone().or_else(|| group.vault.clone()) };
    let mut members = Vec::new();
    for (resource, target) in targets(name, group, &command.elsewhere)? {
        let resource: ResourceId = resource.parse()?;
        let Protected { opened, .. } = app.kept(&vault, &resource).await?;
        let known = window(&opened.vault, &Inventory::load(&opened.vault, &resource).await?).await?;
        let nothing = || Failure::refused(format!("cannot restore group {name}: nothing of {resource} can be restored yet"));
        members.push(Member { window: known.ok_or_else(nothing)?, resource, target });
    }
    let to = common(app, name, &members, app.instant(asked.to()?)?)?;
    let (mut ended, mut failed) = (Ended::Whole, Vec::new());
    for Member { resource, target, .. } in &members {
        if !app.flags.json {
            let mut output = Output::of_deed(false);
            output.line(format_args!("{resource} as of {to} into {}", escaped(target)))?;
            output.finish()?;
        }
        let asked = asked.for_member(resource, target, to);
        let alone = Restore { vault: vault.clone(), asked: asked.clone(), report: None, group: None, elsewhere: Vec::new() };
        match one(app, &alone, &asked).await {
            Ok(Ended::Whole) => {}
            // That some of it was not restored matters more than that there was nothing of it.
            Ok(other) if ended != Ended::InPart => ended = other,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%resource, error = format!("{error:#}"), "it was not restored; what else is in its group is tried all the same");
                failed.push((resource, error));
            }
        }
    }
    match failed.into_iter().next() {
        None => Ok(ended),
        Some((resource, error)) => Err(error).with_context(|| format!("group {name} was not restored whole: {resource}")),
    }
}

/// The group of a name.
fn named<'a>(app: &'a App, name: &str) -> Result<&'a GroupSettings, Failure> {
    let groups = &app.config.groups;
    groups.get(name).ok_or_else(|| {
        let next = match meant(name, groups.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("write a table [groups.{name}.targets] of what is restored and where to"),
        };
        Failure::usage(format!("no group {name} is configured; {next}"))
    })
}

/// What is restored, and where to this time.
fn targets(name: &str, group: &GroupSettings, elsewhere: &[Elsewhere]) -> Result<BTreeMap<String, String>, Failure> {
    let mut targets = group.targets.clone();
    for Elsewhere { resource, target } in elsewhere {
        let known = targets.get_mut(resource);
        let known = known.ok_or_else(|| Failure::usage(format!("group {name} has no {resource} that could go elsewhere (--into)")))?;
        known.clone_from(target);
    }
    Ok(targets)
}

/// The time to which all of them are restored.
fn common(app: &App, name: &str, members: &[Member], to: Instant) -> Result<Timestamp, Failure> {
    let first = members.iter().max_by_key(|member| member.window.earliest);
    let last = members.iter().min_by_key(|member| member.window.latest);
    let (Some(first), Some(last)) = (first, last) else { return Err(Failure::usage(format!("group {name} has no targets"))) };
    let (earliest, latest) = (first.window.earliest, last.window.latest);
    if latest < earliest {
        let (begins, ends) = (&first.resource, &last.resource);
        return Err(Failure::refused(format!(
            "there is no time to which all of group {name} can be restored: {begins} begins at {earliest}, and {ends} ends at {latest}"
        )));
    }
    let outside = |to: Timestamp, resource: &ResourceId, why: &str| {
        Failure::refused(format!(
            "cannot restore group {name} to {to}: {resource} {why}; all of it can be restored from {earliest} to {latest}"
        ))
    };
    match to {
        Instant::At(to) if to < earliest => Err(outside(to, &first.resource, "begins later")),
        Instant::At(to) if to > latest => Err(outside(to, &last.resource, "is not known up to then")),
        Instant::At(to) => Ok(to),
        Instant::Latest => Ok(latest),
        Instant::Now => to.require_recent(app, &last.resource, latest, "what is known").map(|()| latest),
    }
}
