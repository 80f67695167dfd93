//! What is overwritten in place: version `null` of an object, and the documents of a bucket's configuration.
//!
//! Whoever writes last has the place. An event says when it was written or emptied. A listing *shows* what is there, and says
//! of it only the second in which it was written; of an upload in parts even only when that had begun, which says nothing of
//! what became of the place meanwhile.
//!
//! ```text
//!  begun ──── emptied, by an event ──── completed, and its event lost ──── shown
//!  at                                                                      at_bound
//! ```
//!
//! So a put that was shown stands behind everything that had happened by then, with a second of room for the clocks of the
//! source's servers. It was written between the last of that and the listing; or, where the last of that wrote the same
//! content, it is just that.

use super::Cut;
use super::siblings::{Sibling, order_siblings};
use crate::model::Timestamp;
use crate::model::change::{Op, is_in_parts};

/// How far apart the clocks of a source's servers may be.
const SKEW_SECONDS: i64 = 1;

/// One change of the place.
#[derive(Debug, Clone, Copy)]
pub struct Overwrite<'a> {
    /// A put or a delete.
    pub op: Op,
    /// When it happened; of an upload in parts that was shown, when that had begun.
    pub at: Timestamp,
    /// When a listing showed it.
    pub shown: Option<Timestamp>,
    /// An event told of it.
    pub event: bool,
    /// A delete marker.
    pub marker: bool,
    /// What tells contents apart.
    pub etag: Option<&'a str>,
    /// Its position.
    pub position: &'a [u8],
}

/// The last change at a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// The one that stands last.
    pub index: usize,
    /// All that tell of it, or have its content.
    pub same: Vec<usize>,
    /// Nothing that was there before is left from here on.
    pub since: Timestamp,
    /// Until when it may not have been there yet, where that is not certain.
    pub uncertain_until: Option<Timestamp>,
    /// It was shown, and its event, should it be told late, may say that it was not there at the cut.
    pub may_be_later: bool,
    /// When it was shown, as a base must know it: what was shown behind the cut is read again.
    pub shown: Option<Timestamp>,
    /// What showed it first, where that is earlier than `shown`: what was set on it since then is its own.
    pub shown_first: Option<usize>,
    /// What a base must keep beside it, so that a fold that begins there finds the same.
    pub evidence: Vec<usize>,
}

/// From when on something is certain to have been in its place that was put at `at`, or was shown then.
pub fn stands_at(at: Timestamp, shown: Option<Timestamp>) -> Timestamp {
    shown.map_or(at, |shown| at.max(Timestamp::from_seconds(shown.seconds() - SKEW_SECONDS)))
}

impl<'a> Overwrite<'a> {
    fn stands_at(&self) -> Timestamp {
        stands_at(self.at, self.shown)
    }

    fn sibling(&self) -> Sibling<'a> {
        let at = self.stands_at();
        // The last resort for an order that must not depend on chance.
        let content = if self.op == Op::Put { self.etag.unwrap_or("?") } else { "" };
        let rank = (!self.event).then(|| i32::from(self.is_shown_behind(at)));
        Sibling { at, born: at, in_parts: false, position: self.position, rank, version: content }
    }

    /// Whether it is an upload in parts that was shown later than in that second. What was put at a time in that second was
    /// there no more when the upload was shown; and of the upload no time says otherwise. Ranks of listings say nothing here: of a
    /// place a listing shows one change.
    fn is_shown_behind(&self, second: Timestamp) -> bool {
        self.etag.is_some_and(is_in_parts) && self.shown.is_some_and(|shown| shown.seconds() > second.seconds())
    }

    fn is_same_put(&self, other: &Overwrite<'_>) -> bool {
        let same_content = self.marker == other.marker && self.etag == other.etag && (self.marker || self.etag.is_some());
        self.op == Op::Put && other.op == Op::Put && same_content
    }

    /// Whether an event may be that of this put, which was shown. Of an upload in parts it tells the end, and else the same
    /// time as the listing, but for the clocks.
    fn may_be_told_by(&self, event: &Overwrite<'_>) -> bool {
        let latest = self.at.seconds() + SKEW_SECONDS;
        self.is_same_put(event) && (self.etag.is_some_and(is_in_parts) || event.at.seconds() <= latest)
    }

    /// Whether the event of this put, which was shown, may say that it was behind the cut, although no listing showed it earlier
    /// than it happened.
    fn may_be_told_behind(&self, cut: Cut) -> bool {
        !self.event && !cut.includes(Timestamp::from_seconds(self.at.seconds() + SKEW_SECONDS).end_of_second())
    }

    /// Whether both are one put that was shown twice: every listing gives it the same time, to its last digit.
    fn is_shown_again(&self, other: &Overwrite<'_>) -> bool {
        self.shown.is_some() && other.shown.is_some() && self.is_same_put(other) && self.at == other.at
    }

    /// Whether it tells of this change, or has its content.
    fn is_like(&self, last: &Overwrite<'_>) -> bool {
        let the_same = self.op == last.op && self.marker == last.marker && self.etag == last.etag && self.at == last.at;
        // A listing and an event know the same second, but perhaps not with the same precision.
        the_same || self.is_same_put(last) && !self.event && last.event && self.at.seconds() == last.at.seconds()
    }
}

/// What something turns out to be.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// It happened at its time.
    Told,
    /// It was shown and is a change of its own, which happened after this.
    Shown { after: Timestamp, before: Option<usize>, certain: bool },
    /// It was shown, and is just that change.
    Just(usize),
}

/// The last change of a place at a cut; none where there is none.
pub fn last(changes: &[Overwrite<'_>], cut: Cut) -> Option<Last> {
    let all: Vec<usize> = (0..changes.len()).collect();
    let order = ordered(changes, all);
    let meanings: Vec<Meaning> =
        if changes.iter().all(|change| change.shown.is_none()) { vec![Meaning::Told; changes.len()] } else { meanings(changes, &order) };
    let is_in_time = |index: &usize| match meanings[*index] {
        Meaning::Told => cut.includes(changes[*index].at),
        Meaning::Shown { after, .. } => cut.includes(after),
        Meaning::Just(_) => false,
    };
    let last = *ordered(changes, order.iter().copied().filter(is_in_time).collect()).last()?;
    let is_told = |index: usize| matches!(meanings[index], Meaning::Just(told) if changes[told].is_like(&changes[last]));
    let is_same = |index: usize| {
        let own = || changes[index].is_like(&changes[last]) || changes[index].is_shown_again(&changes[last]);
        if matches!(meanings[index], Meaning::Just(_)) { is_told(index) } else { own() }
    };
    let same: Vec<usize> = (0..changes.len()).filter(|&index| is_same(index)).collect();
    // The greatest at or before the cut, else the least.
    let seen_by_now = |shown: Timestamp| (cut.includes(shown), if cut.includes(shown) { shown.micros() } else { -shown.micros() });
    let Meaning::Shown { certain, .. } = meanings[last] else {
        // That it was shown later may yet speak against a removal that is told late.
        let evidence =
            same.iter().copied().filter(|&index| is_told(index) && changes[index].shown.is_some_and(|shown| cut.includes(shown)));
        let evidence = evidence.max_by_key(|&index| (changes[index].shown, changes[index].position, index)).into_iter().collect();
        return Some(Last {
            index: last,
            same,
            since: changes[last].at,
            uncertain_until: None,
            may_be_later: false,
            shown: None,
            shown_first: None,
            evidence,
        });
    };
    let place = order.iter().position(|&index| index == last).unwrap_or_default();
    let again = order[..=place].iter().rev().take_while(|&&index| index == last || changes[index].is_shown_again(&changes[last]));
    let again: Vec<(Timestamp, usize)> = again.filter_map(|&index| changes[index].shown.map(|shown| (shown, index))).collect();
    let (first, shown_first) = again.iter().copied().min().unzip();
    let shown = again.iter().map(|&(shown, _)| shown).max_by_key(|&shown| seen_by_now(shown));
    Some(Last {
        index: last,
        same,
        since: stands_at(changes[last].at, first),
        uncertain_until: first.filter(|_| !certain),
        may_be_later: !certain || changes[last].may_be_told_behind(cut),
        shown,
        shown_first: shown_first.filter(|_| first < shown),
        evidence: stood_before(changes, &meanings, last, cut),
    })
}

/// What stood there before something that was shown: should its event be told late, that may have been put before this, or only
/// behind the cut. Then this is what is there, and may be in doubt as well.
fn stood_before(changes: &[Overwrite<'_>], meanings: &[Meaning], last: usize, cut: Cut) -> Vec<usize> {
    let mut evidence = Vec::new();
    let mut shown = last;
    while let Meaning::Shown { before: Some(before), certain, .. } = meanings[shown] {
        let may_be_later = changes[shown].may_be_told_behind(cut);
        if certain && !may_be_later {
            break;
        }
        if let Meaning::Just(told) = meanings[before] {
            evidence.push(told);
        }
        evidence.push(before);
        if !may_be_later && changes[shown].shown.is_some_and(|shown| cut.includes(shown)) {
            break;
        }
        shown = before;
    }
    evidence
}

/// Some of the changes, the oldest first.
fn ordered(changes: &[Overwrite<'_>], of: Vec<usize>) -> Vec<usize> {
    let siblings: Vec<Sibling<'_>> = of.iter().map(|&index| changes[index].sibling()).collect();
    order_siblings(&siblings).into_iter().map(|place| of[place]).collect()
}

fn meanings(changes: &[Overwrite<'_>], order: &[usize]) -> Vec<Meaning> {
    let mut meanings = vec![Meaning::Told; changes.len()];
    for (place, &index) in order.iter().enumerate() {
        let change = &changes[index];
        let Some(shown) = change.shown else { continue };
        let is_other = |other: &&usize| !change.is_shown_again(&changes[**other]);
        let before = order[..place].iter().rev().find(is_other).copied();
        let next = order[place + 1..].iter().find(is_other).copied();
        let is_same = |told: &usize| change.may_be_told_by(&changes[*told]);
        let completed = before.filter(|told| is_same(told) && changes[*told].at.seconds() >= change.at.seconds());
        let at_once = || next.filter(|told| is_same(told) && changes[*told].event && changes[*told].at.seconds() <= shown.seconds());
        meanings[index] = match completed.or_else(at_once) {
            Some(told) => Meaning::Just(if let Meaning::Just(it) = meanings[told] { it } else { told }),
            None => {
                let stood = before.map(|before| changes[before].stands_at());
                let in_parts = change.etag.is_some_and(is_in_parts);
                let certain = !in_parts && stood.is_none_or(|stood| stood.seconds() < change.at.seconds());
                Meaning::Shown { after: stood.map_or(change.at, |stood| change.at.max(stood)), before, certain }
            }
        };
    }
    meanings
}

#[cfg(test)]
mod tests;
