//! The join of S3 object versions.
//!
//! All rows of one object meet here. Per version:
//!
//! 1. Rows that describe one change are joined first, whatever they came by: time, position and requester from an
//!    event rather than a scan, the content from whichever row has it.
//! 2. Then the cut: a put after it is not there yet, a delete after it has not happened yet.
//! 3. A version other than `null` is put once and deleted once: a delete absorbs every put of it, whatever their
//!    positions, unless the version was [seen](purges) after it. Of version `null`, which is overwritten in place, the last
//!    change counts; so it is for the documents of a bucket's configuration.
//! 4. The other facets (tags, ACL, storage class) are the last one set at or before the cut.
//!
//! Which version a reader of the bucket sees follows from the order of [siblings](super::siblings).

mod purges;

use std::cmp::Reverse;

use arrow::array::{Array, RecordBatch};

use self::purges::Purges;
use super::in_place::{self, Overwrite};
use super::siblings::{Sibling, order_siblings};
use super::{Cut, Join, RowAt, Survivors, Uncertain};
use crate::model::change::{Facet, NULL_VERSION, ObjectChange, ObjectColumns, ObjectRow, ObjectRows, Op, born, is_in_parts};
use crate::model::position::is_sequenced;
use crate::model::{Key, Timestamp};

/// Which versions of an object survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Every live version and marker, and what was deleted lately: what a base holds.
    Base {
        /// A delete before it can no longer meet an older put that is delivered again.
        tombstones_after: Timestamp,
        /// What was purged after it stays beside its purge: a listing may yet show that the purge never happened.
        purged_after: Timestamp,
    },
    /// Every live version and marker.
    Live,
    /// The newest so many live versions and markers.
    Last(usize),
    /// What a plain GET sees: the newest live version, nothing where that is a marker.
    Current,
    /// Every change, each once however often and from whomever it was learned: a history.
    Changes,
}

/// The join of object versions at a cut.
pub struct ObjectJoin {
    cut: Cut,
    keep: Keep,
    made: ObjectRows,
}

impl ObjectJoin {
    /// A join at `cut` of which `keep` survives. With [`Cut::Nothing`] every change survives.
    pub fn new(cut: Cut, keep: Keep) -> ObjectJoin {
        ObjectJoin { cut, keep, made: ObjectRows::new() }
    }
}

/// What must be known of every row; the rest is read only where rows complete each other.
#[derive(Debug, Clone)]
struct Light<'a> {
    row: RowAt,
    /// Where rows completed each other: what they made.
    made: Option<Box<ObjectChange>>,
    op: Op,
    facet: Facet,
    version: &'a str,
    at: Timestamp,
    bound: Option<Timestamp>,
    /// The earliest time that any row of this change had: a base must not forget a row at or before its cut.
    earliest: Timestamp,
    position: &'a [u8],
    rank: Option<i32>,
    marker: bool,
    event: bool,
    in_parts: bool,
}

impl<'a> Light<'a> {
    fn of(row: RowAt, columns: &[ObjectColumns<'a>]) -> Light<'a> {
        let (columns, index) = (&columns[row.0], row.1);
        let at = Timestamp::from_micros(columns.at.value(index));
        Light {
            row,
            made: None,
            op: Op::parse(columns.op.value(index)).expect("checked on construction of the batch"),
            facet: Facet::parse(columns.facet.value(index)).expect("checked on construction of the batch"),
            version: columns.version.value(index),
            at,
            bound: (!columns.at_bound.is_null(index)).then(|| Timestamp::from_micros(columns.at_bound.value(index))),
            earliest: at,
            position: columns.position.value(index),
            rank: (!columns.rank.is_null(index)).then(|| columns.rank.value(index)),
            marker: columns.marker.value(index),
            event: columns.via.value(index) == "event",
            in_parts: !columns.etag.is_null(index)
                && is_in_parts(columns.etag.value(index))
                && columns.version.value(index) != NULL_VERSION,
        }
    }

    fn sibling(&self) -> Sibling<'_> {
        let born = born(self.at, self.bound);
        Sibling { at: self.at, born, in_parts: self.in_parts, position: self.position, rank: self.rank, version: self.version }
    }

    /// As one of the changes of what is overwritten in place.
    fn overwrite(&self, columns: &[ObjectColumns<'a>]) -> Overwrite<'a> {
        let etags = columns[self.row.0].etag;
        Overwrite {
            op: self.op,
            at: self.at,
            shown: self.bound.filter(|_| self.op == Op::Put),
            event: self.event,
            marker: self.marker,
            etag: etags.is_valid(self.row.1).then(|| etags.value(self.row.1)),
            position: self.position,
            rank: self.rank,
        }
    }

    /// The same, in the place of the last of those that tell of it, and with what was found out about when it appeared and when
    /// it was shown.
    fn appeared(mut self, last: &in_place::Last, position: &'a [u8], columns: &[ObjectColumns<'_>]) -> Light<'a> {
        if self.full(columns).at_bound != last.shown || self.position != position {
            self.made = Some(Box::new(ObjectRow { at_bound: last.shown, position, ..self.full(columns) }.to_change()));
        }
        self.position = position;
        self.bound = last.uncertain_until;
        self
    }

    fn full<'b>(&'b self, columns: &[ObjectColumns<'b>]) -> ObjectRow<'b> {
        match &self.made {
            Some(made) => made.row(),
            None => columns[self.row.0].row(self.row.1),
        }
    }

    /// Events know better than scans, a sequencer better than a time, the earlier time better than the later. But a version
    /// that a scan found gone was not removed later, whatever an event says that does not know its version.
    fn preference(&self) -> (Timestamp, bool, bool, Timestamp, &'a [u8]) {
        let gone_by = if self.op == Op::Delete { self.at } else { Timestamp::MIN };
        (gone_by, !self.event, !is_sequenced(self.position), self.at, self.position)
    }
}

/// What one version amounts to at the cut.
#[derive(Debug, Default)]
struct VersionState<'a> {
    live: Option<Light<'a>>,
    /// Of what is overwritten in place: since when nothing is left of what was there before.
    overwritten_at: Option<Timestamp>,
    /// Of that in a base: it may turn out that what was there before still is.
    may_not_be_there: bool,
    facets: Vec<Light<'a>>,
    /// It was deleted for good, and its facets with it.
    is_settled: bool,
    /// Rows that say nothing at this cut, but must stay in a base.
    kept_for_later: Vec<Light<'a>>,
}

impl Join for ObjectJoin {
    type Columns<'a> = ObjectColumns<'a>;

    fn columns<'a>(&self, batch: &'a RecordBatch) -> ObjectColumns<'a> {
        ObjectColumns::of(batch)
    }

    fn together(&self, before: &[u8], after: &[u8]) -> bool {
        Key::object_bytes(before).is_some_and(|bytes| after.starts_with(&before[..bytes]))
    }

    fn join(&mut self, rows: &[RowAt], columns: &[ObjectColumns<'_>], out: &mut Survivors) {
        if let [row] = *rows
            && let Some(survives) = self.survives_alone(row, columns)
        {
            if survives {
                out.keep(row);
            }
            return;
        }
        let all: Vec<Light<'_>> = rows.iter().map(|&row| Light::of(row, columns)).collect();
        let object = columns[rows[0].0].object.value(rows[0].1);
        let configuration = object.is_empty();
        if self.keep == Keep::Changes {
            for version in all.chunk_by(|a, b| a.version == b.version) {
                self.each_once(version, configuration, columns, out);
            }
            return;
        }
        if self.cut == Cut::Nothing {
            for version in all.chunk_by(|a, b| a.version == b.version) {
                for row in without_repetition(version, columns) {
                    self.emit(row, columns, out);
                }
            }
            return;
        }
        let mut states: Vec<VersionState<'_>> = Vec::new();
        for version in all.chunk_by(|a, b| a.version == b.version) {
            let overwritten = configuration || version[0].version == NULL_VERSION;
            let puts = version.iter().filter(|row| row.facet == Facet::Version && row.op == Op::Put);
            let mut state = if overwritten {
                self.last_of(object, version, columns, out)
            } else {
                self.put_and_delete(object, join_rows(puts, columns), &Purges::of(version, columns), columns, out)
            };
            if state.live.is_some() || matches!(self.keep, Keep::Base { .. }) {
                self.add_facets(&mut state, version, columns);
            }
            if let Some(live) = &state.live {
                self.name_uncertain(object, live, out);
                name_unread(object, live, &state.facets, columns, out);
            }
            states.push(state);
        }
        self.select(states, configuration, columns, out);
    }

    fn made(&mut self) -> Option<RecordBatch> {
        (!self.made.is_empty()).then(|| self.made.finish().into_rows())
    }
}

impl ObjectJoin {
    /// The changes of one version. What is overwritten in place has as many puts as are told apart.
    fn each_once(&mut self, version: &[Light<'_>], configuration: bool, columns: &[ObjectColumns<'_>], out: &mut Survivors) {
        let in_place = configuration || version[0].version == NULL_VERSION;
        let (own, facets): (Vec<Light<'_>>, Vec<Light<'_>>) = version.iter().cloned().partition(|row| row.facet == Facet::Version);
        let changes: Vec<Vec<&Light<'_>>> = if in_place {
            told_alike(&own, columns)
        } else {
            vec![own.iter().filter(|row| row.op == Op::Put).collect(), Purges::of(version, columns).counting]
        };
        let joined = changes.into_iter().filter_map(|rows| join_rows(rows.into_iter(), columns));
        for row in joined.collect::<Vec<_>>().into_iter().chain(without_repetition(&facets, columns)) {
            self.emit(row, columns, out);
        }
    }

    /// Whether the only row of an object survives, where that takes no more than a look: what most objects are like.
    fn survives_alone(&self, row: RowAt, columns: &[ObjectColumns<'_>]) -> Option<bool> {
        let (columns, index) = (&columns[row.0], row.1);
        let is_version = columns.op.value(index) == Op::Put.as_str() && columns.facet.value(index) == Facet::Version.as_str();
        if !is_version || columns.at_bound.is_valid(index) || columns.object.value(index).is_empty() {
            return None;
        }
        let seen = match self.keep {
            Keep::Changes => return Some(true),
            _ if self.cut == Cut::Nothing => true,
            Keep::Current => !columns.marker.value(index),
            Keep::Last(count) => count > 0,
            Keep::Live | Keep::Base { .. } => true,
        };
        Some(seen && self.cut.includes(Timestamp::from_micros(columns.at.value(index))))
    }

    /// A version that is put once and deleted once.
    fn put_and_delete<'a>(
        &self,
        object: &str,
        put: Option<Light<'a>>,
        purges: &Purges<'_, 'a>,
        columns: &[ObjectColumns<'a>],
        out: &mut Survivors,
    ) -> VersionState<'a> {
        let delete = join_rows(purges.counting.iter().copied(), columns);
        let gone = delete.as_ref().is_some_and(|delete| self.cut.includes(delete.at));
        let is_settled = gone && !delete.as_ref().is_some_and(|delete| self.may_be_void(delete.at));
        let mut state = VersionState { is_settled, ..VersionState::default() };
        if let Some(delete) = delete.as_ref().filter(|_| !gone && put.as_ref().is_none_or(|put| self.cut.includes(put.at))) {
            self.name_removal(object, delete, put.as_ref().is_some_and(|put| put.marker), out);
        }
        if matches!(self.keep, Keep::Base { .. }) {
            let distinct = purges.distinct(columns).into_iter();
            let stays = distinct.filter(|purge| self.cut.includes(purge.at) && self.outlives_redelivery(purge.at));
            state.kept_for_later.extend(stays.cloned());
            let matters = !gone || !state.kept_for_later.is_empty();
            state.kept_for_later.extend(purges.seen.filter(|seen| matters && self.cut.includes(seen.at)).cloned());
        }
        match put {
            Some(put) if is_settled => drop(put),
            Some(put) if self.cut.includes(put.at) && !gone => state.live = Some(put),
            Some(put) if self.cut.includes(put.earliest) => state.kept_for_later.push(put),
            _ => {}
        }
        state
    }

    /// What is overwritten in place: the last of its puts and deletes at or before the cut.
    fn last_of<'a>(&self, object: &str, version: &[Light<'a>], columns: &[ObjectColumns<'a>], out: &mut Survivors) -> VersionState<'a> {
        let mut state = VersionState::default();
        let changes: Vec<&Light<'a>> = version.iter().filter(|row| row.facet == Facet::Version).collect();
        let overwrites: Vec<Overwrite<'a>> = changes.iter().map(|row| row.overwrite(columns)).collect();
        let Some(last) = in_place::last(&overwrites, self.cut) else {
            return state;
        };
        // A row of the same change may have what another one lacks.
        let joined = join_rows(last.same.iter().map(|&index| changes[index]), columns).expect("the last change is like itself");
        match joined.op {
            Op::Put => {
                let removal = |row: &&Light<'a>| row.facet == Facet::Version && row.op == Op::Delete && !self.cut.includes(row.at);
                for delete in version.iter().filter(removal) {
                    self.name_removal(object, delete, joined.marker, out);
                }
                // The event of what was shown may yet come, and say that it was there earlier: a base keeps what was set since then.
                let earliest = last.same.iter().map(|&index| changes[index].at).min();
                let base = matches!(self.keep, Keep::Base { .. });
                state.overwritten_at = earliest.filter(|_| base).or(Some(last.since)).min(Some(last.since));
                state.may_not_be_there = base && last.may_be_later;
                state.live = Some(joined.appeared(&last, changes[last.index].position, columns));
                // Once its event can no longer be told, what it stands on matters while it may not be there.
                let matters = last.uncertain_until.is_some_and(|until| !self.cut.includes(until)) || self.outlives_redelivery(last.since);
                if base {
                    state.kept_for_later.extend(last.shown_first.map(|index| changes[index].clone()));
                }
                if base && matters {
                    state.kept_for_later.extend(last.evidence.iter().map(|&index| changes[index].clone()));
                }
            }
            _ => {
                // What was set since then may be of a put of which nobody has told yet.
                state.overwritten_at = Some(last.since);
                state.is_settled = !self.outlives_redelivery(last.since);
                if !state.is_settled {
                    state.kept_for_later.push(changes[last.index].clone());
                }
            }
        }
        state
    }

    fn outlives_redelivery(&self, at: Timestamp) -> bool {
        match self.keep {
            Keep::Base { tombstones_after, .. } => at >= tombstones_after,
            _ => false,
        }
    }

    /// Whether a listing may yet show that a purge told at this instant never happened.
    fn may_be_void(&self, at: Timestamp) -> bool {
        match self.keep {
            Keep::Base { tombstones_after, purged_after } => at >= tombstones_after.max(purged_after),
            _ => false,
        }
    }

    /// The last tags, ACL and storage class that were set on the version at or before the cut.
    fn add_facets<'a>(&self, state: &mut VersionState<'a>, version: &[Light<'a>], columns: &[ObjectColumns<'a>]) {
        if version.iter().all(|row| row.facet == Facet::Version) {
            return;
        }
        let overwritten_at = state.overwritten_at.unwrap_or(Timestamp::MIN);
        let spans = [Some(overwritten_at..=Timestamp::MAX), state.may_not_be_there.then(|| Timestamp::MIN..=just_before(overwritten_at))];
        let kinds = || [Facet::Tags, Facet::Acl, Facet::Class].into_iter();
        for (span, facet) in spans.into_iter().flatten().flat_map(|span| kinds().map(move |facet| (span.clone(), facet))) {
            let mut set: Vec<&Light<'a>> =
                version.iter().filter(|row| row.facet == facet && self.cut.includes(row.at) && span.contains(&row.at)).collect();
            // An event says that something was set, and what is read later. Of the readings of one change the earliest is
            // nearest to it; of several changes in one second the one that was read last is the last.
            let full = |row: &Light<'a>| columns[row.row.0].row(row.row.1);
            let change = |row: &Light<'a>| (row.at, row.position, full(row).request);
            let read = |row: &Light<'a>| (full(row).lost.is_some(), row.bound.unwrap_or(Timestamp::MAX));
            set.sort_by(|a, b| {
                change(a)
                    .cmp(&change(b))
                    .then_with(|| read(a).cmp(&read(b)))
                    .then_with(|| content_of(a, columns).cmp(&content_of(b, columns)))
            });
            set.dedup_by(|after, before| change(after) == change(before));
            let last = set.iter().max_by_key(|row| (row.at, row.position, !read(row).0, row.bound, Reverse(content_of(row, columns))));
            let Some(&last) = last else { continue };
            // An event that is told again is read again: a base must know of each of these changes that it had been read before.
            let base = matches!(self.keep, Keep::Base { .. });
            let stays = |row: &&&Light<'a>| row.row == last.row || base && (row.at, row.position) == (last.at, last.position);
            state.facets.extend(set.iter().filter(stays).map(|row| (*row).clone()));
        }
    }

    /// A removal after the cut that may as well have been before it, of a version or of a delete marker.
    fn name_removal(&self, object: &str, delete: &Light<'_>, of_marker: bool, out: &mut Survivors) {
        if let (Some(lower), Cut::At(cut)) = (delete.bound, self.cut)
            && lower <= cut
        {
            let what = if of_marker { "its delete marker" } else { "it" };
            let reason = format!("{what} was removed between {lower} and {}", delete.at);
            out.uncertain.push(Uncertain { object: object.to_owned(), version: delete.version.to_owned(), reason });
        }
    }

    fn name_uncertain(&self, object: &str, live: &Light<'_>, out: &mut Survivors) {
        if let (Cut::At(cut), Some(bound)) = (self.cut, live.bound)
            && bound > cut
        {
            let reason = format!("it appeared between {} and {bound}", live.at);
            out.uncertain.push(Uncertain { object: object.to_owned(), version: live.version.to_owned(), reason });
        }
    }

    /// Of all versions those that are asked for, sorted by version as they came.
    fn select<'a>(&mut self, mut states: Vec<VersionState<'a>>, configuration: bool, columns: &[ObjectColumns<'a>], out: &mut Survivors) {
        let newest = match self.keep {
            _ if configuration => None,
            Keep::Base { .. } | Keep::Live | Keep::Changes => None,
            Keep::Last(count) => Some(count),
            Keep::Current => Some(1),
        };
        if let Some(newest) = newest {
            let live: Vec<usize> = (0..states.len()).filter(|&index| states[index].live.is_some()).collect();
            let siblings: Vec<Sibling<'_>> = live.iter().filter_map(|&index| states[index].live.as_ref().map(Light::sibling)).collect();
            let order = order_siblings(&siblings);
            let older = order.len().saturating_sub(newest);
            let dropped: Vec<usize> = order[..older].iter().map(|&place| live[place]).collect();
            for index in dropped {
                states[index] = VersionState::default();
            }
            if self.keep == Keep::Current {
                states.retain(|state| state.live.as_ref().is_some_and(|live| !live.marker));
            }
        }
        for state in states {
            let base = matches!(self.keep, Keep::Base { .. });
            let keeps_facets = state.live.is_some() || base && !configuration && !state.is_settled;
            let mut rows: Vec<Light<'a>> = state.live.into_iter().collect();
            if keeps_facets {
                rows.extend(state.facets);
            }
            if base {
                rows.extend(state.kept_for_later);
            }
            rows.sort_by(|a, b| a.position.cmp(b.position));
            for row in rows {
                self.emit(row, columns, out);
            }
        }
    }

    fn emit(&mut self, row: Light<'_>, columns: &[ObjectColumns<'_>], out: &mut Survivors) {
        match &row.made {
            None => out.keep(row.row),
            Some(_) => {
                self.made.push(&row.full(columns));
                out.make();
            }
        }
    }
}

/// What was set on a version and could not be read, in time or ever.
fn name_unread(object: &str, live: &Light<'_>, facets: &[Light<'_>], columns: &[ObjectColumns<'_>], out: &mut Survivors) {
    let put = live.full(columns);
    for facet in facets {
        let Some(lost) = columns[facet.row.0].row(facet.row.1).lost else { continue };
        let known = match facet.facet {
            Facet::Tags => put.tags.is_some(),
            Facet::Acl => put.acl.is_some(),
            _ => false,
        };
        // What was put with the content, another who read it may know.
        if !known || facet.at > live.at {
            let reason = format!("its {} of {} could not be read: {lost}", facet.facet.as_str(), facet.at);
            out.uncertain.push(Uncertain { object: object.to_owned(), version: facet.version.to_owned(), reason });
        }
    }
}

fn just_before(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_sub(1))
}

/// Rows that describe one change, as one row.
fn join_rows<'a, 'b>(rows: impl Iterator<Item = &'b Light<'a>>, columns: &[ObjectColumns<'a>]) -> Option<Light<'a>>
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
fn content_of<'a>(row: &'a Light<'_>, columns: &[ObjectColumns<'a>]) -> impl Ord + 'a {
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
fn told_alike<'a, 'b>(rows: &'b [Light<'a>], columns: &[ObjectColumns<'a>]) -> Vec<Vec<&'b Light<'a>>> {
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
fn without_repetition<'a>(version: &[Light<'a>], columns: &[ObjectColumns<'a>]) -> Vec<Light<'a>> {
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

#[cfg(test)]
mod tests;
