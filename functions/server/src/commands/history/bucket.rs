//! Everything that ever happened to one object, or to many.

use std::collections::HashSet;

use anyhow::Result;
use handlers::browse::{self, HistoryOf, State};
use pipeline::base::inputs::Inventory;
use pipeline::fold::Cut;
use pipeline::fold::object::Keep;
use pipeline::model::Timestamp;
use pipeline::model::change::{Facet, NULL_VERSION, ObjectChange, Op, is_in_parts};
use serde::Serialize;

use super::History;
use crate::app::{App, bucket_and_rest};
use crate::exit::{Ended, Failure};
use crate::nearest::{did_you_mean, nearest_keys};
use crate::output::{Output, Table, escaped};
use crate::protected::Protected;
use crate::vaults::OpenVault;

/// Changes that are sorted in memory.
const CHANGES_MAX: usize = 1_000_000;

/// One change, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    /// The other end of the interval in which it happened, where that is not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_bound: Option<Timestamp>,
    change: &'static str,
    /// Of a purge: it is a delete marker that was removed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    of_marker: bool,
    object: &'a str,
    version: &'a str,
    size: Option<i64>,
    etag: Option<&'a str>,
    requester: Option<&'a str>,
    request: Option<&'a str>,
    via: &'a str,
    stream: &'a str,
    lost: Option<&'a str>,
}

pub async fn run(app: &App, command: &History, (from, to): (Timestamp, Timestamp)) -> Result<Ended> {
    let (resource, key) = bucket_and_rest(&command.what)?;
    if key.is_empty() && !command.recursive {
        let text = format!("{:?} names no object; write s3://BUCKET/KEY, or --recursive for all of them", command.what);
        return Err(Failure::usage(text).into());
    }
    let of = HistoryOf { object: key, recursive: command.recursive, from, to };
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let inventory = Inventory::load(&opened.vault, &resource).await?;
    let changes = browse::history(&opened.vault, &inventory, &of, CHANGES_MAX).await?;
    // A removal does not say what it removes.
    let markers: HashSet<(&str, &str)> =
        changes.iter().filter(|change| change.marker).map(|change| (change.object.as_str(), change.version.as_str())).collect();
    let mut output = Output::new(app.flags.json);
    let mut table = Table::new(match of.recursive {
        true => &["when", "change", "object", "version", "size", "who", "via"][..],
        false => &["when", "change", "version", "size", "who", "via"],
    });
    for change in &changes {
        let is_of_marker = change.op == Op::Delete
            && change.version != NULL_VERSION
            && markers.contains(&(change.object.as_str(), change.version.as_str()));
        if output.json {
            output.document(&line(change, is_of_marker))?;
        } else {
            let mut cells = row(change, if is_of_marker { "marker removed" } else { what(change) });
            if of.recursive {
                cells.insert(2, escaped(&change.object));
            }
            table.row(cells);
        }
    }
    if !output.json {
        match table.len() {
            0 => output.line(nothing(&opened, &inventory, &of).await?)?,
            _ => output.line(table)?,
        }
    }
    output.finish()?;
    Ok(Ended::Whole)
}

/// What to say where there is no change.
async fn nothing(opened: &OpenVault, inventory: &Inventory, of: &HistoryOf) -> Result<String> {
    let then = if of.from > Timestamp::MIN || of.to < Timestamp::MAX { " in that time" } else { "" };
    let of_what = match (of.recursive, of.object.as_str()) {
        (true, "") => "any object".to_owned(),
        (true, beginning) => format!("any object whose key begins with \"{}\"", escaped(beginning)),
        (false, object) => escaped(object),
    };
    let text = format!("the vault knows of no change of {of_what}{then}");
    if of.recursive || !then.is_empty() {
        return Ok(text);
    }
    let state = State::new(&opened.vault, inventory.inputs(Cut::At(Timestamp::MAX)), Cut::At(Timestamp::MAX), Keep::Last(1), "").await?;
    Ok(format!("{text}{}", did_you_mean(&nearest_keys(&state, &of.object).await?)))
}

fn what(change: &ObjectChange) -> &'static str {
    match (change.op, change.facet) {
        (Op::Put, Facet::Version) if change.marker => "delete marker",
        (Op::Put, Facet::Version) => "put",
        (Op::Delete, _) => "purge",
        (_, Facet::Tags) => "tags",
        (_, Facet::Acl) => "acl",
        (_, Facet::Class) => "storage class",
        (_, Facet::Seen) => "seen after its purge",
        (_, Facet::Existed) => "put, untold",
        (Op::Reset, _) => "reset",
        (Op::Raw, _) => "raw",
    }
}

fn line(change: &ObjectChange, of_marker: bool) -> Line<'_> {
    Line {
        at: change.at,
        at_bound: change.at_bound,
        change: what(change),
        of_marker,
        object: &change.object,
        version: &change.version,
        size: change.size,
        etag: change.etag.as_deref(),
        requester: change.requester.as_deref(),
        request: change.request.as_deref(),
        via: &change.via,
        stream: &change.stream,
        lost: change.lost.as_deref(),
    }
}

fn row(change: &ObjectChange, what: &str) -> Vec<String> {
    let in_parts = change.etag.as_deref().is_some_and(is_in_parts);
    // Where the time is exact the bound says something else: when an upload in parts began, or when version `null` was listed.
    let is_exact =
        change.op == Op::Put && change.facet != Facet::Existed && change.at_bound.is_some_and(|bound| bound < change.at || !in_parts);
    let looked = browse::is_look(change);
    let when = match change.at_bound.filter(|_| looked || !is_exact) {
        Some(seen) if looked => seen.to_string(),
        Some(bound) => format!("{} to {}", change.at.min(bound), change.at.max(bound)),
        None => change.at.to_string(),
    };
    let mut what = what.to_owned();
    if change.lost.is_some() && change.body.is_none() {
        what.push_str(if change.facet == Facet::Version { " (content lost)" } else { " (not to be read)" });
    }
    let who = change.requester.as_deref().map_or_else(|| "-".to_owned(), escaped);
    let size = change.size.map_or_else(|| "-".to_owned(), |size| size.to_string());
    vec![when, what, escaped(&change.version), size, who, escaped(&change.via)]
}
