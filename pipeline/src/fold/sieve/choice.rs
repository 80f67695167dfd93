//! Which rows of an object may matter.

use super::merge::{Held, ODD, PUT, are_one_version, compare_positions};
use crate::fold::RowAt;
use crate::model::Timestamp;

/// An object with more comparisons to make than this is not worth them.
const COMPARISONS_MAX: usize = 1 << 12;

/// Chooses the rows of an object that may matter to its `newest` versions at `cut`.
pub(super) struct Choice {
    cut: Timestamp,
    newest: usize,
    /// Rows of the group, by their places in it.
    candidates: Vec<usize>,
}

impl Choice {
    pub fn new(cut: Timestamp, newest: usize) -> Choice {
        Choice { cut, newest, candidates: Vec::new() }
    }

    /// Of the rows of one object those of its newest versions at the cut, by their places, in order; nothing where there may
    /// be more to it than these tell, and any row may matter.
    pub fn newest(&mut self, held: &[Held], group: &[RowAt]) -> Option<&[usize]> {
        self.find_newest(held, group).then_some(&self.candidates)
    }

    fn find_newest(&mut self, held: &[Held], group: &[RowAt]) -> bool {
        let look = |place: &usize| &held[group[*place].0].looks[group[*place].1];
        let is_put = |place: &usize| look(place).mark & PUT != 0;
        let position = |a: &usize, b: &usize| compare_positions(held, group[*a], group[*b]);
        let is_one_version = |a: &usize, b: &usize| are_one_version(held, group[*a], group[*b]);
        let mut all = 0;
        let mut purged = 0;
        self.candidates.clear();
        for place in 0..group.len() {
            let look = look(&place);
            all |= look.mark;
            if look.at <= self.cut.micros() {
                if look.mark & PUT == 0 {
                    purged += 1;
                } else {
                    self.candidates.push(place);
                }
            }
        }
        if all & ODD != 0 {
            return false;
        }
        if purged > 0 {
            // Of a version that was purged no row matters, wherever they stand.
            if self.candidates.len().saturating_mul(purged) > COMPARISONS_MAX {
                return false;
            }
            let purges = |place: &usize| !is_put(place) && look(place).at <= self.cut.micros();
            let purges: Vec<usize> = (0..group.len()).filter(purges).collect();
            self.candidates.retain(|place| purges.iter().all(|purge| !is_one_version(purge, place)));
        }
        if self.newest == 1 {
            // By far the most are like this, and finding the greatest is quicker than sorting.
            if let Some(greatest) = (0..self.candidates.len()).max_by(|a, b| position(&self.candidates[*a], &self.candidates[*b])) {
                self.candidates.swap(0, greatest);
            }
        } else {
            self.candidates.sort_unstable_by(|a, b| position(b, a));
        }
        let newest = self.newest.min(self.candidates.len());
        if newest.saturating_mul(group.len()) > COMPARISONS_MAX {
            return false;
        }
        // Of a version that was put twice, or at the place of another, the join has more to say.
        let (chosen, others) = self.candidates.split_at(newest);
        let is_alone = |place: &usize| (0..group.len()).filter(|other| is_put(other) && is_one_version(place, other)).count() == 1;
        let is_placed = chosen.is_sorted_by(|a, b| position(a, b).is_gt())
            && chosen.last().is_none_or(|last| others.iter().all(|other| position(other, last).is_lt()));
        if !is_placed || !chosen.iter().all(is_alone) {
            return false;
        }
        self.candidates.truncate(newest);
        self.candidates.sort_unstable();
        true
    }
}
