//! Which rows of an object may matter.

use super::merge::{Held, ODD, PUT};
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
        let mark = |row: &RowAt| held[row.0].marks[row.1];
        let position = |&place: &usize| held[group[place].0].position(group[place].1);
        let version = |row: &RowAt| held[row.0].version(row.1);
        let in_time = |row: &RowAt| Timestamp::from_micros(held[row.0].at(row.1)) <= self.cut;
        let all = group.iter().fold(0, |all, row| all | mark(row));
        if all & ODD != 0 {
            return false;
        }
        self.candidates.clear();
        self.candidates.extend((0..group.len()).filter(|&place| mark(&group[place]) & PUT != 0 && in_time(&group[place])));
        if group.len() > self.candidates.len() {
            // Of a version that was purged no row matters, wherever they stand.
            let purges = group.iter().filter(|row| mark(row) & PUT == 0 && in_time(row));
            if self.candidates.len().saturating_mul(purges.clone().count()) > COMPARISONS_MAX {
                return false;
            }
            self.candidates.retain(|&place| purges.clone().all(|purge| version(purge) != version(&group[place])));
        }
        if self.newest == 1 {
            // By far the most are like this, and finding the greatest is quicker than sorting.
            if let Some(greatest) = (0..self.candidates.len()).max_by_key(|&index| position(&self.candidates[index])) {
                self.candidates.swap(0, greatest);
            }
        } else {
            self.candidates.sort_unstable_by(|a, b| position(b).cmp(position(a)));
        }
        let newest = self.newest.min(self.candidates.len());
        if newest.saturating_mul(group.len()) > COMPARISONS_MAX {
            return false;
        }
        // Of a version that was put twice, or at the place of another, the join has more to say.
        let (chosen, others) = self.candidates.split_at(newest);
        let is_alone = |&place: &usize| {
            let same = |other: &&RowAt| mark(other) & PUT != 0 && version(other) == version(&group[place]);
            group.iter().filter(same).count() == 1
        };
        let is_placed = chosen.is_sorted_by(|a, b| position(a) > position(b))
            && chosen.last().is_none_or(|last| others.iter().all(|other| position(other) < position(last)));
        if !is_placed || !chosen.iter().all(is_alone) {
            return false;
        }
        self.candidates.truncate(newest);
        self.candidates.sort_unstable();
        true
    }
}
