//! The messages of one partition that were handed on and are not durable yet. Pure.
//!
//! Kafka keeps one number for a partition: everything before it was dealt with. So it may only follow what is durable without a
//! hole; a message that is left to come again holds it back, and is kept here until it is handed on again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pipeline::model::Timestamp;

use crate::mark::Mark;

/// What was handed on of one partition.
#[derive(Debug, Default)]
pub struct Held {
    /// By offset: what is not durable.
    open: BTreeMap<i64, Handed>,
    /// Behind the last that was handed on.
    next: Option<i64>,
    /// What the group was last told.
    committed: Option<i64>,
    /// What was seen, from the last that the group was told.
    marks: BTreeSet<Mark>,
    bytes: usize,
}

#[derive(Debug)]
struct Handed {
    body: Bytes,
    at: Timestamp,
}

impl Held {
    /// A message is handed on.
    pub fn hand_on(&mut self, offset: i64, body: Bytes, now: Timestamp) {
        self.bytes += body.len();
        let before = self.open.insert(offset, Handed { body, at: now });
        self.bytes -= before.map_or(0, |before| before.body.len());
        self.pass(offset);
    }

    /// A message says nothing that must be kept.
    pub fn pass(&mut self, offset: i64) {
        self.next = self.next.max(Some(offset + 1));
    }

    /// A message is durable.
    pub fn is_durable(&mut self, offset: i64) {
        if let Some(handed) = self.open.remove(&offset) {
            self.bytes -= handed.body.len();
        }
    }

    /// Everything before this offset is dealt with; none before anything came.
    pub fn dealt_with(&self) -> Option<i64> {
        self.open.keys().next().copied().or(self.next)
    }

    /// A message was seen, now or by whoever told the group.
    pub fn saw(&mut self, mark: Mark) {
        self.marks.insert(mark);
    }

    /// The last message that was seen before an offset.
    pub fn mark_before(&self, offset: i64) -> Option<Mark> {
        self.marks.iter().rev().find(|mark| mark.offset < offset).copied()
    }

    /// The offset to commit; none where the group knows it.
    pub fn to_commit(&self) -> Option<i64> {
        self.dealt_with().filter(|offset| Some(*offset) > self.committed)
    }

    /// The group was told this offset.
    pub fn is_committed(&mut self, offset: i64) {
        self.committed = self.committed.max(Some(offset));
        if let Some(last) = self.mark_before(offset) {
            self.marks = self.marks.split_off(&last);
        }
    }

    /// Messages that were handed on so long ago and did not become durable: they are handed on again.
    pub fn again(&mut self, now: Timestamp, after: Duration, max: usize) -> Vec<(i64, Bytes)> {
        let due = self.open.iter_mut().filter(|(_, handed)| now.since(handed.at) >= after).take(max);
        due.map(|(offset, handed)| {
            handed.at = now;
            (*offset, handed.body.clone())
        })
        .collect()
    }

    /// Messages that are not durable.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn an_offset_follows_what_is_durable_without_a_hole() {
        let mut held = Held::default();
        assert_eq!(held.dealt_with(), None);
        for offset in [5, 6, 9] {
            held.hand_on(offset, Bytes::from_static(b"abc"), at(0));
        }
        assert_eq!((held.dealt_with(), held.len(), held.bytes()), (Some(5), 3, 9));
        held.is_durable(6);
        assert_eq!(held.dealt_with(), Some(5), "the first is not");
        held.is_durable(5);
        assert_eq!(held.dealt_with(), Some(9), "7 and 8 were never seen: markers, or compacted away");
        held.is_durable(9);
        assert_eq!(held.to_commit(), Some(10));
        held.is_committed(10);
        assert_eq!(held.to_commit(), None);
        held.pass(12);
        assert_eq!(held.to_commit(), Some(13));
        assert_eq!((held.dealt_with(), held.len(), held.bytes()), (Some(13), 0, 0));
    }

    #[test]
    fn with_an_offset_goes_the_last_message_before_it() {
        let mut held = Held::default();
        let mark = |offset| Mark::of(offset, Some(1), Some(b"x"));
        assert_eq!(held.mark_before(9), None);
        [3, 5, 6, 9].into_iter().for_each(|offset| held.saw(mark(offset)));
        assert_eq!((held.mark_before(9), held.mark_before(3)), (Some(mark(6)), None));
        held.is_committed(9);
        assert_eq!((held.mark_before(9), held.mark_before(10), held.mark_before(6)), (Some(mark(6)), Some(mark(9)), None));
    }

    #[test]
    fn what_did_not_become_durable_comes_again_after_a_while() {
        let mut held = Held::default();
        held.hand_on(1, Bytes::from_static(b"one"), at(0));
        held.hand_on(2, Bytes::from_static(b"two"), at(3));
        let mut again = |now| held.again(at(now), Duration::from_secs(5), 10).into_iter().map(|(offset, _)| offset).collect::<Vec<_>>();
        assert_eq!(again(4), [0; 0]);
        assert_eq!(again(5), [1]);
        assert_eq!(again(8), [2], "the first was handed on three seconds ago");
        assert_eq!(again(10), [1]);
    }

    proptest! {
        #[test]
        fn nothing_that_is_not_durable_is_ever_behind_the_offset(steps in prop::collection::vec((0i64..20, any::<bool>()), 1..60)) {
            let mut held = Held::default();
            let (mut next, mut open) = (0, BTreeSet::new());
            for (number, come) in steps {
                if come {
                    next += 1 + number % 3;
                    held.hand_on(next, Bytes::from_static(b"x"), at(0));
                    open.insert(next);
                } else {
                    let one = open.iter().nth(number as usize).copied();
                    open.retain(|offset| Some(*offset) != one);
                    one.into_iter().for_each(|offset| held.is_durable(offset));
                }
                let expected = open.first().copied().or((next > 0).then_some(next + 1));
                prop_assert_eq!(held.dealt_with(), expected);
                prop_assert_eq!(held.len(), open.len());
            }
        }
    }
}
