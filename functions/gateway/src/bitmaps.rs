//! What QEMU remembers of changed blocks: dirty bitmaps, and what each is worth.
//!
//! A bitmap of ours is called after the recovery point since which it records, and the disk: images whose places were exchanged tell
//! nothing of each other's. While a backup runs there are two: the one since the point
//! before, which records no longer and is read, and the one since the point that is being made. What has become of a backup is not written
//! down anywhere but in the vault; so what to do with the bitmaps that are there follows from them and from the newest point of the vault:
//!
//! ```text
//!  newest point   bitmaps there                what has happened           what is done
//!  L              L records                    all is well                 read L
//!  L              K rests, L records           not cleared up              remove K, read L
//!  L              L rests, M records           point M was not finished    add M to L, let L record, remove M, read L
//!  L              L inconsistent               QEMU was killed             remove, read all
//!  L              M, or none                   another image, or a copy    remove, read all
//! ```

use std::fmt;

use pipeline::changelog::points::{FullReason, Point, PointDisk, PointId};
use pipeline::model::Digest;
use pipeline::source::disk::BLOCK_BYTES;

use crate::session::LiveDisk;

/// What the names of everything begin with that is made in a hypervisor.
pub const OURS: &str = "hindsight-";

/// Of which point and which disk a bitmap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitmapId(u64);

impl BitmapId {
    /// That of the bitmap which records what has changed of a disk since a point.
    pub fn of(point: PointId, disk: &str) -> BitmapId {
        let digest = Digest::of(format!("{point}/{disk}").as_bytes()).to_string();
        BitmapId(u64::from_str_radix(&digest[..16], 16).expect("digits of a digest"))
    }

    /// The name of the bitmap.
    pub fn name(self) -> String {
        format!("{OURS}{self}")
    }
}

impl fmt::Display for BitmapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A bitmap of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Since which point, and of which disk, it records.
    pub id: BitmapId,
    /// Whether it still does.
    pub recording: bool,
    /// Whether what it says can be relied on.
    pub consistent: bool,
    /// What it tells apart, in bytes.
    pub granularity: u64,
}

impl Bitmap {
    /// A bitmap by its name; none if it is not one of ours.
    pub fn of(name: &str, recording: bool, consistent: bool, granularity: u64) -> Option<Bitmap> {
        let digits = name.strip_prefix(OURS).filter(|digits| digits.len() == 16)?;
        let id = BitmapId(u64::from_str_radix(digits, 16).ok()?);
        // Other ways to write the same number are others' names.
        (id.name() == name).then_some(Bitmap { id, recording, consistent, granularity })
    }

    fn is_good(&self) -> bool {
        self.consistent && self.granularity == u64::from(BLOCK_BYTES)
    }
}

/// What is to be done to a bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Adds what one records to another.
    Merge {
        /// The one whose record is added.
        from: BitmapId,
        /// To which.
        into: BitmapId,
    },
    /// Lets it record again.
    Enable(BitmapId),
    /// Removes it.
    Remove(BitmapId),
}

/// What to do with the bitmaps of a disk, and what can then be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Care {
    /// In this order.
    pub steps: Vec<Step>,
    /// Whether the one since the newest point tells all that has changed since.
    pub trusted: Result<BitmapId, FullReason>,
}

/// What to do with the bitmaps that a disk has, where this is that of the newest point of the machine and the disk. See
/// the module.
pub fn care(bitmaps: &[Bitmap], newest: Option<BitmapId>, keeps_bitmaps: bool) -> Care {
    let remove_all = |reason| Care { steps: bitmaps.iter().map(|bitmap| Step::Remove(bitmap.id)).collect(), trusted: Err(reason) };
    let Some(newest) = newest else { return remove_all(FullReason::First) };
    let others = || bitmaps.iter().filter(|bitmap| bitmap.id != newest);
    let Some(since) = bitmaps.iter().find(|bitmap| bitmap.id == newest) else {
        let reason = match () {
            () if bitmaps.iter().any(|bitmap| !bitmap.consistent) => FullReason::InconsistentBitmap,
            () if !keeps_bitmaps => FullReason::NoBitmaps,
            () => FullReason::ChainMismatch,
        };
        return remove_all(reason);
    };
    if !since.is_good() {
        return remove_all(if since.consistent { FullReason::ChainMismatch } else { FullReason::InconsistentBitmap });
    }
    let mut steps = Vec::new();
    if !since.recording {
        // What was written since it came to rest stands in those that record, if there is one: else nobody knows.
        if !others().any(|bitmap| bitmap.recording) {
            return remove_all(FullReason::ChainMismatch);
        }
        if others().any(|bitmap| !bitmap.is_good()) {
            return remove_all(FullReason::InconsistentBitmap);
        }
        steps.push(Step::Enable(newest));
        steps.extend(others().map(|bitmap| Step::Merge { from: bitmap.id, into: newest }));
    }
    steps.extend(others().map(|bitmap| Step::Remove(bitmap.id)));
    Care { steps, trusted: Ok(newest) }
}

/// What of a disk is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it, and why.
    All(FullReason),
    /// What changed since the newest point, and what the disk grew by since it had this size, in bytes.
    Since(BitmapId, u64),
}

/// What of a disk is to be read, where its bitmaps can be relied on so far.
pub fn wanted(trusted: Result<BitmapId, FullReason>, newest: Option<&Point>, disk: &LiveDisk, all: bool) -> Wanted {
    let Some(newest) = newest else { return Wanted::All(FullReason::First) };
    let known = newest.disk(&disk.name);
    match (known, trusted) {
        (None, _) => Wanted::All(FullReason::NewDisk),
        (Some(_), Err(reason)) => Wanted::All(reason),
        (Some(_), Ok(_)) if all => Wanted::All(FullReason::Asked),
        (Some(PointDisk { block_bytes, .. }), Ok(_)) if *block_bytes != BLOCK_BYTES => Wanted::All(FullReason::ChainMismatch),
        (Some(known), Ok(_)) if disk.rests_on != known.rests_on => Wanted::All(FullReason::BackingChange),
        (Some(known), Ok(_)) if disk.size_bytes < known.size_bytes => Wanted::All(FullReason::SizeChange),
        (Some(known), Ok(point)) => Wanted::Since(point, known.size_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: BitmapId = BitmapId(0x1a);
    const K: BitmapId = BitmapId(0x19);
    const M: BitmapId = BitmapId(0x1b);

    fn records(id: BitmapId) -> Bitmap {
        Bitmap { id, recording: true, consistent: true, granularity: 65_536 }
    }

    fn rests(id: BitmapId) -> Bitmap {
        Bitmap { recording: false, ..records(id) }
    }

    fn broken(id: BitmapId) -> Bitmap {
        Bitmap { consistent: false, recording: false, ..records(id) }
    }

    fn check(bitmaps: &[Bitmap], steps: &[Step], trusted: Result<BitmapId, FullReason>) {
        assert_eq!(care(bitmaps, Some(L), true), Care { steps: steps.to_vec(), trusted }, "{bitmaps:?}");
    }

    #[test]
    fn what_is_done_follows_from_the_bitmaps_and_the_newest_point() {
        check(&[records(L)], &[], Ok(L));
        check(&[rests(K), records(L)], &[Step::Remove(K)], Ok(L));
        let back = [Step::Enable(L), Step::Merge { from: M, into: L }, Step::Remove(M)];
        check(&[rests(L), records(M)], &back, Ok(L));
        check(&[rests(L), rests(K), records(M)], &[back[0], Step::Merge { from: K, into: L }, back[1], Step::Remove(K), back[2]], Ok(L));
    }

    #[test]
    fn what_cannot_be_relied_on_is_removed_and_all_is_read() {
        check(&[broken(L)], &[Step::Remove(L)], Err(FullReason::InconsistentBitmap));
        check(&[broken(K)], &[Step::Remove(K)], Err(FullReason::InconsistentBitmap));
        check(&[rests(L), broken(M)], &[Step::Remove(L), Step::Remove(M)], Err(FullReason::ChainMismatch));
        check(
            &[rests(L), records(M), broken(K)],
            &[Step::Remove(L), Step::Remove(M), Step::Remove(K)],
            Err(FullReason::InconsistentBitmap),
        );
        check(&[rests(L)], &[Step::Remove(L)], Err(FullReason::ChainMismatch));
        check(&[records(M)], &[Step::Remove(M)], Err(FullReason::ChainMismatch));
        check(&[Bitmap { granularity: 4_096, ..records(L) }], &[Step::Remove(L)], Err(FullReason::ChainMismatch));
        check(&[], &[], Err(FullReason::ChainMismatch));
        assert_eq!(care(&[], Some(L), false).trusted, Err(FullReason::NoBitmaps));
        assert_eq!(care(&[records(K)], None, true), Care { steps: vec![Step::Remove(K)], trusted: Err(FullReason::First) });
    }

    #[test]
    fn each_disk_has_its_own_for_each_point() {
        let of = |point, disk| BitmapId::of(PointId(point), disk);
        assert_eq!(of(7, "vda"), of(7, "vda"));
        assert!(of(7, "vda") != of(7, "vdb") && of(7, "vda") != of(8, "vda"));
        assert_eq!(Bitmap::of(&of(7, "vda").name(), true, true, 65_536), Some(records(of(7, "vda"))));
    }

    #[test]
    fn bitmaps_of_others_are_none_of_ours() {
        assert_eq!(Bitmap::of("hindsight-000000000000001a", true, true, 65_536), Some(records(L)));
        for name in ["hindsight-x", "backup-000000000000001a", "hindsight-1a", "hindsight-+00000000000001a"] {
            assert_eq!(Bitmap::of(name, true, true, 65_536), None, "{name}");
        }
    }
}
