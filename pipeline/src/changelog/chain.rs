//! Which segments follow which, so that one that is missing is noticed.
//!
//! A writer names in each segment the last ones it knows of that no other segment names: its own last one, and whatever
//! others have left. So all segments hang together without anybody having to agree on an order:
//!
//! ```text
//!  writer 1   a ←─ b ←─ d ←─ e          c names b and x: b was the last of writer 1 that writer 2 knew of
//!                   ↖
//!  writer 2   x ←─── c                  nobody names c and e yet: they are heads
//! ```
//!
//! A [`Link`] stands in the name, so whoever lists the log sees what is missing. What nobody names can be taken away without
//! a trace: the heads. A reading of the truth names them, too, and a merge makes its segments needless.

use std::collections::{BTreeSet, HashSet};

use super::link::{LINKS_MAX, Link};
use super::segment::{Segment, SegmentName};
use crate::model::Timestamp;

/// The segments that nobody names yet, as far as a writer knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    links: BTreeSet<Link>,
}

impl Heads {
    /// Those among segments of the log; of what is merged none needs to be named.
    pub fn of<'a>(segments: impl Iterator<Item = &'a SegmentName> + Clone, is_merged: impl Fn(&Link) -> bool) -> Heads {
        let named: HashSet<&Link> = segments.clone().flat_map(|name| &name.after).collect();
        let links = segments.map(SegmentName::link).filter(|link| !named.contains(link) && !is_merged(link));
        Heads { links: links.collect() }
    }

    /// Those that the next segment is to name.
    pub fn next(&self) -> Vec<Link> {
        self.links.iter().rev().take(LINKS_MAX).copied().collect()
    }

    /// All of them.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    /// A segment was appended, by us or by somebody else.
    pub fn appended(&mut self, name: &SegmentName) {
        self.links.retain(|link| !name.after.contains(link));
        self.links.insert(name.link());
    }

    /// Whatever arrived before this hour is merged.
    pub fn seal(&mut self, sealed: Timestamp) {
        self.links.retain(|link| link.arrived() >= sealed);
    }
}

/// What is named and is not there: neither among the segments that were listed nor among those that are merged, whose names
/// are given. `named` is what others name besides; what arrived before `from` was not listed.
pub fn missing(listed: &[Segment], merged: &[SegmentName], named: impl Iterator<Item = Link>, from: Option<Timestamp>) -> Vec<Link> {
    let names = || listed.iter().map(|segment| &segment.name).chain(merged);
    let there: HashSet<Link> = names().map(SegmentName::link).collect();
    let is_missing = |link: &Link| !there.contains(link) && from.is_none_or(|from| link.arrived() >= from);
    let missing: BTreeSet<Link> = names().flat_map(|name| name.after.iter().copied()).chain(named).filter(is_missing).collect();
    missing.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of this number, that arrived in an hour and names others.
    fn segment(number: u8, hour: i64, after: &[&Segment]) -> Segment {
        let arrived = Timestamp::from_seconds(hour * 3_600);
        let name = SegmentName {
            folder: format!("log/v1/res=bucket-photos/date={}/hour={:02}", arrived.date(), arrived.hour()),
            arrived,
            first: Timestamp::from_micros(i64::from(number)),
            last: Timestamp::from_micros(9),
            latest: Timestamp::from_micros(9),
            digest: format!("{number:032x}").chars().rev().collect(),
            after: after.iter().map(|segment| segment.name.link()).collect(),
        };
        Segment { path: name.to_string(), name, size: 1 }
    }

    fn links(segments: &[&Segment]) -> Vec<Link> {
        segments.iter().map(|segment| segment.name.link()).collect()
    }

    fn heads(segments: &[&Segment]) -> Heads {
        Heads::of(segments.iter().map(|segment| &segment.name), |_| false)
    }

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let link = segment(7, 500_000, &[]).name.link();
        assert_eq!(link.to_string(), "07a1200000000000000007700000000000");
        assert_eq!(link.to_string().parse(), Ok(link));
        assert_eq!((link.arrived().seconds(), link.first().micros()), (500_000 * 3_600, 7));
        for text in ["", "x", &"z".repeat(34), &"0".repeat(33), &"A".repeat(34), &"ü".repeat(17)] {
            assert!(text.parse::<Link>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_segment_names_the_heads_and_is_one() {
        let a = segment(1, 5, &[]);
        let (b, x) = (segment(2, 5, &[&a]), segment(3, 5, &[]));
        let mut heads = heads(&[&a, &b, &x]);
        assert_eq!(heads.next(), links(&[&x, &b]));
        let c = segment(4, 5, &[&x, &b]);
        heads.appended(&c.name);
        assert_eq!(heads.next(), links(&[&c]));
        heads.seal(Timestamp::from_seconds(6 * 3_600));
        assert_eq!(heads.next(), []);
    }

    #[test]
    fn many_heads_become_few() {
        let left: Vec<Segment> = (0..9).map(|number| segment(number, 5, &[])).collect();
        let mut heads = heads(&left.iter().collect::<Vec<_>>());
        for number in 10..14 {
            let next = segment(number, 6, &[]);
            let name = SegmentName { after: heads.next(), ..next.name };
            heads.appended(&name);
        }
        assert_eq!(heads.links().count(), 1);
    }

    #[test]
    fn what_is_named_and_not_there_is_missing_unless_it_is_merged_or_was_not_listed() {
        let (a, x) = (segment(1, 5, &[]), segment(3, 5, &[]));
        let b = segment(2, 5, &[&a]);
        let c = segment(4, 6, &[&b, &x]);
        let check = |listed: &[&Segment], merged: &[&Segment], from: i64, expected: &[&Segment]| {
            let listed: Vec<Segment> = listed.iter().map(|segment| (*segment).clone()).collect();
            let merged: Vec<SegmentName> = merged.iter().map(|segment| segment.name.clone()).collect();
            let from = Some(Timestamp::from_seconds(from * 3_600));
            assert_eq!(missing(&listed, &merged, std::iter::empty(), from), links(expected));
        };
        check(&[&a, &b, &c, &x], &[], 0, &[]);
        check(&[&b, &c, &x], &[], 0, &[&a]);
        check(&[&a, &c], &[], 0, &[&b, &x]);
        check(&[&a, &b, &x], &[], 0, &[]);
        check(&[&a, &c], &[&b], 0, &[&x]);
        check(&[&c], &[&b, &x], 0, &[&a]);
        check(&[&c], &[], 6, &[]);
        assert_eq!(missing(&[], &[], links(&[&a]).into_iter(), None), links(&[&a]));
    }
}
