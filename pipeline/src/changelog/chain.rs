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
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::segment::{Segment, SegmentName};
use crate::model::Timestamp;

/// A segment names at most so many others: two of those that others have left beside its writer's own.
pub const LINKS_MAX: usize = 3;
const DIGEST_DIGITS: usize = 12;
const HOUR_DIGITS: usize = 6;
const FIRST_DIGITS: usize = 16;

/// What names a segment: where it lies, the earliest time in it, and a part of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Hours since 1970 to the one in which it arrived.
    hour: u32,
    /// Microseconds since 1970.
    first: u64,
    /// The first digits of its digest, as a number.
    digest: u64,
}

impl Link {
    /// The one that names this segment.
    pub fn to(name: &SegmentName) -> Link {
        let hour = u32::try_from(name.arrived.seconds() / 3_600).unwrap_or(0);
        let first = u64::try_from(name.first.micros()).unwrap_or(0);
        let digest = name.digest.get(..DIGEST_DIGITS).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        Link { hour, first, digest: digest.expect("a segment's name has a digest of 32 digits") }
    }

    /// The hour in which it arrived: its beginning.
    pub fn arrived(&self) -> Timestamp {
        Timestamp::from_seconds(i64::from(self.hour) * 3_600)
    }

    /// No time in it is before this one.
    pub fn first(&self) -> Timestamp {
        Timestamp::from_micros(i64::try_from(self.first).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0HOUR_DIGITS$x}{:0FIRST_DIGITS$x}{:0DIGEST_DIGITS$x}", self.hour, self.first, self.digest)
    }
}

/// Text that names no segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no segment")]
pub struct LinkError {
    text: String,
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Link, LinkError> {
        let is_one =
            text.len() == HOUR_DIGITS + FIRST_DIGITS + DIGEST_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let parsed = text.split_at_checked(HOUR_DIGITS).filter(|_| is_one).and_then(|(hour, rest)| {
            let (first, digest) = rest.split_at_checked(FIRST_DIGITS)?;
            let number = |digits| u64::from_str_radix(digits, 16).ok();
            Some(Link { hour: u32::try_from(number(hour)?).ok()?, first: number(first)?, digest: number(digest)? })
        });
        parsed.ok_or_else(|| LinkError { text: text.chars().take(80).collect() })
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Link, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The segments that nobody names yet, as far as a writer knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    links: BTreeSet<Link>,
}

impl Heads {
    /// Those among segments of the log; of what is merged none needs to be named.
    pub fn of<'a>(segments: impl Iterator<Item = &'a SegmentName> + Clone, is_merged: impl Fn(&Link) -> bool) -> Heads {
        let named: HashSet<&Link> = segments.clone().flat_map(|name| &name.after).collect();
        let links = segments.map(Link::to).filter(|link| !named.contains(link) && !is_merged(link));
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
        self.links.insert(Link::to(name));
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
    let there: HashSet<Link> = names().map(Link::to).collect();
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
            after: after.iter().map(|segment| Link::to(&segment.name)).collect(),
        };
        Segment { path: name.to_string(), name, size: 1 }
    }

    fn links(segments: &[&Segment]) -> Vec<Link> {
        segments.iter().map(|segment| Link::to(&segment.name)).collect()
    }

    fn heads(segments: &[&Segment]) -> Heads {
        Heads::of(segments.iter().map(|segment| &segment.name), |_| false)
    }

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let link = Link::to(&segment(7, 500_000, &[]).name);
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
