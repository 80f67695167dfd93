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

mod alike;
mod light;
mod purges;

use std::cmp::Reverse;

use arrow::array::{Array, RecordBatch};

use self::alike::{content_of, join_rows, told_alike, without_repetition};
use self::light::Light;
use self::purges::Purges;
use super::in_place::{self, Overwrite};
use super::siblings::{Sibling, order_siblings};
use super::{Cut, Join, RowAt, Survivors, Uncertain};
use crate::model::change::{Facet, NULL_VERSION, ObjectColumns, ObjectRows, Op, UNREADABLE};
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

/// What one version amounts to at the cut.
#[derive(Debug, Default)]
struct VersionState<'a> {
    live: Option<Light<'a>>,
    /// Of what is overwritten in place: since when nothing is left of what was there before.
    overwritten_at: Option<Timestamp>,
    /// Of that in a base: it may turn out that what was there before still is.
    may_not_be_there: bool,
    facets: Vec<Light<'a>>,
    /// What was set in the same second as one of these and could not be read: it may have been the last.
    unread: Vec<Light<'a>>,
    /// Of these another reading of the same second says otherwise, and neither of them was behind the other for sure.
    contested: Vec<Light<'a>>,
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
                name_unread(object, live, state.facets.iter().chain(&state.unread), columns, out);
                name_contested(object, &state.contested, out);
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
        let (own, mut facets): (Vec<Light<'_>>, Vec<Light<'_>>) = version.iter().cloned().partition(|row| row.facet == Facet::Version);
        // Somebody told of it after all.
        let is_told = own.iter().any(|row| row.op == Op::Put);
        facets.retain(|row| !(is_told && row.facet == Facet::Existed));
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
            if put.is_none() {
                self.name_existed(object, delete, purges.existed_since, out);
            }
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
            let change = |row: &Light<'a>| (row.at, row.position, row.event, full(row).request);
            let read = |row: &Light<'a>| (full(row).lost.is_some(), row.bound.unwrap_or(Timestamp::MAX));
            set.sort_by(|a, b| {
                change(a)
                    .cmp(&change(b))
                    .then_with(|| read(a).cmp(&read(b)))
                    .then_with(|| content_of(a, columns).cmp(&content_of(b, columns)))
            });
            set.dedup_by(|after, before| change(after) == change(before));
            // What an event told was set after what came with the content.
            let last =
                set.iter().max_by_key(|row| (row.at, row.position, row.event, !read(row).0, row.bound, Reverse(content_of(row, columns))));
            let Some(&last) = last else { continue };
            // A reading that began once the second was over saw all that was set in it.
            let is_read_behind = last.bound.is_some_and(|bound| bound.floor_second() > last.at.floor_second());
            let beside = |row: &&&Light<'a>| row.row != last.row && (row.at, row.position) == (last.at, last.position);
            let in_doubt = |row: &&&Light<'a>| !is_read_behind && beside(row) && row.event && read(row).0;
            state.unread.extend(set.iter().filter(in_doubt).map(|row| (*row).clone()));
            let values = |row: &Light<'a>| (full(row).tags, full(row).acl);
            let rivals = || set.iter().any(|row| beside(&row) && row.event && !read(row).0 && values(row) != values(last));
            state.contested.extend((!is_read_behind && last.event && rivals()).then(|| last.clone()));
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

    /// What a later purge is all that tells of: it may have been there.
    fn name_existed(&self, object: &str, delete: &Light<'_>, since: Option<Timestamp>, out: &mut Survivors) {
        if let (Some(since), Cut::At(cut)) = (since, self.cut)
            && since <= cut
        {
            let reason = format!("it was removed at {}, and nobody told since when it had been there", delete.at);
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
fn name_unread<'a: 'b, 'b>(
    object: &str,
    live: &Light<'_>,
    facets: impl Iterator<Item = &'b Light<'a>>,
    columns: &[ObjectColumns<'_>],
    out: &mut Survivors,
) {
    let put = live.full(columns);
    for facet in facets {
        let Some(lost) = columns[facet.row.0].row(facet.row.1).lost else { continue };
        let known = match facet.facet {
            Facet::Tags => put.tags.is_some(),
            Facet::Acl => put.acl.is_some(),
            _ => false,
        };
        let lost = lost.strip_prefix(UNREADABLE).unwrap_or(lost);
        // What was put with the content, another who read it may know; of what was set later an event told.
        if !known || facet.event {
            let of = if facet.event { facet.at } else { live.at };
            let reason = format!("its {} of {of} could not be read: {lost}", facet.facet.as_str());
            out.uncertain.push(Uncertain { object: object.to_owned(), version: facet.version.to_owned(), reason });
        }
    }
}

/// What was set more than once within a second, and read before that was over.
fn name_contested(object: &str, facets: &[Light<'_>], out: &mut Survivors) {
    for facet in facets {
        let reason = format!(
            "its {} of {}: set more than once within that second, and which was the last is not known",
            facet.facet.as_str(),
            facet.at
        );
        out.uncertain.push(Uncertain { object: object.to_owned(), version: facet.version.to_owned(), reason });
    }
}

fn just_before(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_sub(1))
}

#[cfg(test)]
mod tests;
