//! Disks of virtual machines: which blocks are to be read, and what is told of each.
//!
//! ```text
//!  what a hypervisor calls changed ─→ stretches ─→ whole blocks ─→ read ─→ put, or delete where all is zeros
//! ```
//!
//! Pure: whoever talks to a hypervisor is in the gateway.

use std::ops::Range;

use crate::model::change::{BlockRow, BlockRows};
use crate::model::{Digest, Op, Timestamp};
use crate::vault::body::{Body, Slice};

/// The block size of disks, in bytes: that of the clusters of a qcow2 image, and of what QEMU's bitmaps tell apart. What a hypervisor calls
/// clean cannot always be read, so a block must not be larger than what is told apart.
pub const BLOCK_BYTES: u32 = 64 << 10;

/// The names that disks may have in a vault are those of files: one to 63 of `a-z A-Z 0-9 . - _`, not beginning with a dot.
pub fn is_disk_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 63 && !name.starts_with('.') && name.bytes().all(allowed)
}

/// Stretches of a disk, in bytes: sorted, and each apart from the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stretches {
    stretches: Vec<Range<u64>>,
}

impl FromIterator<Range<u64>> for Stretches {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Stretches {
        let mut ranges: Vec<Range<u64>> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        let mut stretches: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match stretches.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => stretches.push(range),
            }
        }
        Stretches { stretches }
    }
}

impl Stretches {
    /// The stretches, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.stretches.iter().cloned()
    }

    /// Whatever lies in these or in others.
    #[must_use]
    pub fn and(&self, others: &Stretches) -> Stretches {
        self.iter().chain(others.iter()).collect()
    }

    /// What of them lies within a range.
    #[must_use]
    pub fn within(&self, range: &Range<u64>) -> Stretches {
        self.iter().map(|stretch| stretch.start.max(range.start)..stretch.end.min(range.end)).collect()
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> u64 {
        self.stretches.iter().map(|stretch| stretch.end - stretch.start).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// All blocks of a disk of `size` bytes that they touch, each whole; the last one of a disk may be shorter.
    #[must_use]
    pub fn in_blocks(&self, block_bytes: u32, size: u64) -> Stretches {
        let block = u64::from(block_bytes);
        let widen = |stretch: Range<u64>| {
            let end = stretch.end.min(size);
            (stretch.start.min(end) / block * block)..(end.div_ceil(block).saturating_mul(block)).min(size)
        };
        self.iter().filter(|stretch| stretch.start < size).map(widen).collect()
    }
}

/// What became known of a disk that grew: from the block in which it ended to its new end. Hypervisors call that clean.
pub fn grown(from: u64, to: u64, block_bytes: u32) -> Stretches {
    let block = u64::from(block_bytes);
    let begin = from / block * block;
    std::iter::once(begin..to).filter(|_| from < to).collect()
}

/// Whether all of it is zeros.
pub fn is_zeros(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Tells the changes of one disk in one snapshot.
#[derive(Debug, Clone)]
pub struct DiskTeller {
    /// Which hypervisor told them.
    pub stream: String,
    /// The disk.
    pub disk: String,
    /// The instant of the snapshot.
    pub at: Timestamp,
    /// The recovery point, as a position.
    pub position: Vec<u8>,
    /// How large its blocks are, in bytes.
    pub block_bytes: u32,
}

impl DiskTeller {
    fn row(&self, op: Op) -> BlockRow<'_> {
        BlockRow::new(op, &self.stream, &self.disk, self.at, &self.position)
    }

    fn block_at(&self, offset: u64) -> i64 {
        assert_eq!(offset % u64::from(self.block_bytes), 0, "blocks are read from their beginning");
        i64::try_from(offset / u64::from(self.block_bytes)).expect("a disk ends before 2^63 bytes")
    }

    /// Nothing that was told of the disk before counts.
    pub fn reset(&self, rows: &mut BlockRows) {
        rows.push(&self.row(Op::Reset));
    }

    /// The block at this offset is all zeros.
    pub fn zeros(&self, rows: &mut BlockRows, offset: u64) {
        rows.push(&BlockRow { block: Some(self.block_at(offset)), ..self.row(Op::Delete) });
    }

    /// The block at this offset has this content, of so many bytes, which lies here.
    pub fn content(&self, rows: &mut BlockRows, offset: u64, size: u64, digest: &Digest, slice: &Slice) {
        let (digest, body) = (digest.to_string(), Body::Slices(vec![slice.clone()]).to_string());
        rows.push(&BlockRow {
            block: Some(self.block_at(offset)),
            size: i64::try_from(size).ok(),
            digest: Some(&digest),
            body: Some(&body),
            ..self.row(Op::Put)
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn touched(ranges: &[(u64, u64)], size: u64, block: u64) -> Vec<bool> {
        let is_touched = |number: u64| {
            let (from, to) = (number * block, ((number + 1) * block).min(size));
            ranges.iter().any(|(start, length)| *length > 0 && *start < to && start + length > from)
        };
        (0..size.div_ceil(block)).map(is_touched).collect()
    }

    proptest! {
        #[test]
        fn every_block_that_is_touched_is_read_whole_and_no_other(
            ranges in proptest::collection::vec((0u64..300, 0u64..60), 0..12),
            size in 0u64..300,
            block in 1u32..40,
        ) {
            let stretches: Stretches = ranges.iter().map(|(start, length)| *start..start + length).collect();
            let blocks = stretches.in_blocks(block, size);
            let mut found = vec![false; size.div_ceil(u64::from(block)) as usize];
            let mut end = None;
            for stretch in blocks.iter() {
                prop_assert!(stretch.start % u64::from(block) == 0 && (stretch.end % u64::from(block) == 0 || stretch.end == size));
                prop_assert!(end.is_none_or(|end| stretch.start > end));
                end = Some(stretch.end);
                (stretch.start / u64::from(block)..stretch.end.div_ceil(u64::from(block))).for_each(|number| found[number as usize] = true);
            }
            prop_assert_eq!(found, touched(&ranges, size, u64::from(block)));
        }

        #[test]
        fn stretches_do_not_care_in_which_order_or_how_often_they_are_told(
            ranges in proptest::collection::vec((0u64..100, 0u64..20), 0..12),
            split in 0usize..12,
        ) {
            let all: Vec<Range<u64>> = ranges.iter().map(|(start, length)| *start..start + length).collect();
            let split = split.min(all.len());
            let (first, second): (Stretches, Stretches) = (all[..split].iter().cloned().collect(), all[split..].iter().cloned().collect());
            let whole: Stretches = all.iter().rev().chain(&all).cloned().collect();
            prop_assert_eq!(first.and(&second), whole.clone());
            let bytes = (0..130).filter(|at| all.iter().any(|range| range.contains(at))).count() as u64;
            prop_assert_eq!(whole.bytes(), bytes);
            prop_assert_eq!(whole.within(&(30..60)).and(&whole.within(&(0..30))).and(&whole.within(&(60..200))), whole);
        }
    }

    #[test]
    fn what_grew_begins_in_the_block_where_the_disk_ended() {
        let ranges = |from, to| grown(from, to, 100).iter().map(|range| (range.start, range.end)).collect::<Vec<_>>();
        assert_eq!(ranges(150, 420), [(100, 420)]);
        assert_eq!(ranges(200, 420), [(200, 420)]);
        assert_eq!(ranges(200, 200), []);
        assert_eq!(ranges(300, 200), []);
    }

    #[test]
    fn one_byte_makes_the_difference_wherever_it_is() {
        for length in [0, 1, 15, 16, 17, 100] {
            let mut bytes = vec![0; length];
            assert!(is_zeros(&bytes));
            for at in 0..length {
                bytes[at] = 1;
                assert!(!is_zeros(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn a_disk_s_name_can_be_a_file_s() {
        for (name, good) in
            [("vda", true), ("sda.1_a-B", true), ("", false), (".x", false), ("a/b", false), ("ü", false), (&"x".repeat(64), false)]
        {
            assert_eq!(is_disk_name(name), good, "{name}");
        }
    }
}
