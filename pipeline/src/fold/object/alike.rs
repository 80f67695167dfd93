//! Rows that tell of the same change.

use super::light::Light;
use crate::model::change::{NULL_VERSION, ObjectColumns, ObjectRow, Op, born, is_in_parts};

/// Rows that describe one change, as one row.
pub(super) fn join_rows<'a, 'b>(rows: impl Iterator<Item = &'b Light<'a>>, columns: &[ObjectColumns<'a>]) -> Option<Light<'a>>
where
    'a: 'b,
{
    let mut rows: Vec<&Light<'a>> = rows.collect();
    if rows.len() < 2 {
        return rows.pop().cloned();
    }
    rows.sort_by(|a, b| a.preference().cmp(&b.preference()).then_with(|| content_of(a, columns).cmp(&content_of(b, columns))));
    let best = rows[0];
    // A rank only grows when an older version of the tie turns up, so the greatest is the newest.
    let rank = rows.iter().filter_map(|row| row.rank).max();
    let earliest = rows.iter().map(|row| row.earliest).min().unwrap_or(best.at);
    let full: Vec<ObjectRow<'_>> = rows.iter().map(|row| row.full(columns)).collect();
    // Whoever read the version knows all of it. Which of several readers does not depend on who told them: what a base has joined
    // must be joined with what comes later as if nothing had been joined before.
    let readers = full.iter().filter(|row| row.body.is_some());
    let reader = readers.min_by(|a, b| what_was_read(a).cmp(&what_was_read(b))).or_else(|| full.iter().find(|row| row.marker)).copied();
    let known = reader.unwrap_or_else(|| full.iter().find(|row| row.lost.is_some()).copied().unwrap_or(full[0]));
    let first = full[0];
    // Where nobody knows the time exactly, it lies in every interval that was noted.
    let bounds = || full.iter().filter_map(|row| row.at_bound);
    let etag = known.etag.or_else(|| full.iter().find_map(|row| row.etag));
    let bound = match (first.op, first.via) {
        // An event tells when an upload in parts was completed, whoever looked at the version when that had begun.
        (Op::Put, "event") => etag
            .filter(|etag| is_in_parts(etag) && first.version != NULL_VERSION)
            .and(full.iter().map(|row| born(row.at, row.at_bound)).min()),
        (Op::Put, _) => first.at_bound.and(bounds().min()),
        _ => first.at_bound.and(bounds().filter(|bound| *bound <= first.at).max()),
    };
    let bound = bound.filter(|bound| *bound != first.at);
    let complete = ObjectRow {
        op: first.op,
        at: first.at,
        at_bound: bound,
        position: first.position,
        stream: first.stream,
        offset: first.offset,
        via: first.via,
        requester: first.requester,
        request: first.request,
        object: first.object,
        version: first.version,
        facet: first.facet,
        marker: known.marker || first.marker,
        rank,
        size: known.size.or_else(|| full.iter().find_map(|row| row.size)),
        etag,
        storage_class: known.storage_class.or_else(|| full.iter().find_map(|row| row.storage_class)),
        metadata: known.metadata,
        tags: known.tags,
        acl: known.acl,
        digest: known.digest,
        body: known.body,
        lost: if known.body.is_some() || known.marker { None } else { known.lost },
    };
    let mut joined = best.clone();
    joined.rank = rank;
    joined.earliest = earliest;
    joined.bound = bound;
    joined.in_parts = etag.is_some_and(is_in_parts) && first.version != NULL_VERSION;
    if complete != first {
        joined.made = Some(Box::new(complete.to_change()));
    }
    Some(joined)
}

/// Orders what several have read of one version: whoever could read all of it first, then fewest properties, for most are set
/// after the put.
fn what_was_read<'a>(row: &ObjectRow<'a>) -> impl Ord + use<'a> {
    let by_length = |text: Option<&'a str>| text.map(|text| (text.len(), text));
    let properties = [row.digest, row.etag, row.tags, row.acl, row.metadata].map(by_length);
    (row.tags.is_none(), row.acl.is_none(), properties, row.storage_class, row.size, row.body)
}

/// What tells apart rows that agree in everything that orders them.
pub(super) fn content_of<'a>(row: &'a Light<'_>, columns: &[ObjectColumns<'a>]) -> impl Ord + 'a {
    let full = row.full(columns);
    (
        // Whoever knows the time exactly stands before who does not.
        full.at_bound,
        full.body.is_none(),
        full.digest,
        full.etag,
        (full.tags, full.acl, full.storage_class),
        full.lost,
        (full.stream, full.offset, full.request),
    )
}

/// The changes of what is overwritten in place, those together that tell of the same: an event once and again, whatever was to
/// be read of it by then, and a listing that shows what an earlier one has shown.
pub(super) fn told_alike<'a, 'b>(rows: &'b [Light<'a>], columns: &[ObjectColumns<'a>]) -> Vec<Vec<&'b Light<'a>>> {
    let mut alike: Vec<Vec<&Light<'a>>> = Vec::new();
    for row in rows {
        let is_alike = |same: &&mut Vec<&Light<'a>>| {
            let (one, other) = (same[0].full(columns), row.full(columns));
            let what = |row: &ObjectRow<'_>| (row.op, row.at, row.marker, row.via == "event");
            // A document of the configuration has no etag.
            let is_same_content = one.etag == other.etag && (!one.object.is_empty() || one.metadata == other.metadata);
            what(&one) == what(&other) && is_same_content
        };
        match alike.iter_mut().rev().take_while(|same| same[0].position == row.position).find(is_alike) {
            Some(same) => same.push(row),
            None => alike.push(vec![row]),
        }
    }
    alike
}

/// All changes of one version, each once: repetition is all that goes.
pub(super) fn without_repetition<'a>(version: &[Light<'a>], columns: &[ObjectColumns<'a>]) -> Vec<Light<'a>> {
    let mut kept: Vec<Light<'a>> = Vec::with_capacity(version.len());
    for row in version {
        let full = row.full(columns);
        // Where it was read is not part of what happened; the same facts read twice are one.
        let same = |other: &Light<'a>| ObjectRow { stream: full.stream, offset: full.offset, ..other.full(columns) } == full;
        if !kept.iter().rev().take_while(|other| other.position == row.position).any(same) {
            kept.push(row.clone());
        }
    }
    kept
}
