//! Reading ahead: many small contents with few requests.
//!
//! ```text
//!  slices that will be wanted ─→ by pack and place ─→ stretches ─→ each is read once, when the first of its slices is asked for
//! ```
//!
//! A thousand small objects lie side by side in a pack. Asked for one by one they cost a thousand requests, which a store
//! across a network answers slowly and a provider bills; as stretches of a pack they cost a few. Nothing here is trusted:
//! each content is checked against its digest as ever. A stretch that cannot be read whole is no reason to give up its
//! slices: then each is read by itself.

use bytes::Bytes;
use futures::lock::Mutex;

use super::body::{Body, Slice};
use super::{Vault, VaultError, layout};

/// Slices longer than this gain nothing from company.
pub const SMALL_BYTES: u32 = 256 << 10;
/// A stretch is at most this long, in bytes.
const STRETCH_BYTES_MAX: u64 = 4 << 20;
/// Bytes between two slices that are read along rather than asked around.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// A stretch reads along at most so many times what is wanted of it.
const WASTE_MAX: u64 = 3;

/// Stretches of packs that will be read. Memory is bounded by what is wanted: at most `1 + WASTE_MAX` times of it is held, until
/// this is dropped.
#[derive(Debug, Default)]
pub struct Ahead {
    /// By pack and place; they do not overlap.
    stretches: Vec<Stretch>,
}

#[derive(Debug)]
struct Stretch {
    pack: String,
    from: u64,
    to: u64,
    /// Its bytes, once they are read.
    bytes: Mutex<Option<Bytes>>,
}

impl Ahead {
    /// Plans to read these bodies. Nothing is read yet, and large slices are left to themselves.
    pub fn of<'a>(bodies: impl IntoIterator<Item = &'a Body>) -> Ahead {
        let slices = bodies.into_iter().flat_map(|body| match body {
            Body::Slices(slices) => slices.as_slice(),
            Body::Indirect(slice) => std::slice::from_ref(slice),
            Body::Whole(_) => &[],
        });
        let mut slices: Vec<&Slice> = slices.filter(|slice| slice.stored > 0 && slice.stored <= SMALL_BYTES).collect();
        slices.sort_unstable_by(|a, b| (&a.pack, a.offset, a.stored).cmp(&(&b.pack, b.offset, b.stored)));
        let mut stretches: Vec<Stretch> = Vec::new();
        // Of the last stretch what is wanted of it, and how many slices that are.
        let (mut wanted, mut count) = (0u64, 0usize);
        for slice in slices {
            let to = slice.offset.saturating_add(u64::from(slice.stored));
            let joined = stretches.last_mut().filter(|last| {
                last.pack == slice.pack && {
                    let fresh = to.saturating_sub(last.to.max(slice.offset));
                    let gap = slice.offset.saturating_sub(last.to);
                    let length = to.max(last.to) - last.from;
                    gap <= GAP_BYTES_MAX && length <= STRETCH_BYTES_MAX && length <= (wanted + fresh).saturating_mul(1 + WASTE_MAX)
                }
            });
            match joined {
                Some(last) => {
                    wanted += to.saturating_sub(last.to.max(slice.offset));
                    last.to = last.to.max(to);
                    count += 1;
                }
                None => {
                    drop_single(&mut stretches, count);
                    stretches.push(Stretch { pack: slice.pack.clone(), from: slice.offset, to, bytes: Mutex::default() });
                    (wanted, count) = (u64::from(slice.stored), 1);
                }
            }
        }
        drop_single(&mut stretches, count);
        Ahead { stretches }
    }

    /// The stored bytes of a slice.
    ///
    /// # Errors
    /// As [`Vault::read_range`].
    pub(super) async fn read(&self, vault: &Vault, slice: &Slice) -> Result<Bytes, VaultError> {
        let path = layout::pack_file(&slice.pack);
        let to = slice.offset.saturating_add(u64::from(slice.stored));
        let alone = || vault.read_range(&path, slice.offset..to);
        let Some(stretch) = self.find(slice, to) else { return alone().await };
        let mut held = stretch.bytes.lock().await;
        let bytes = match &*held {
            Some(bytes) => bytes.clone(),
            None => match vault.read_range(&path, stretch.from..stretch.to).await {
                Ok(bytes) => held.insert(bytes).clone(),
                // Whoever asks next tries again.
                Err(error) if error.is_transient() => return Err(error),
                Err(_) => {
                    drop(held);
                    return alone().await;
                }
            },
        };
        Ok(bytes.slice((slice.offset - stretch.from) as usize..(to - stretch.from) as usize))
    }

    /// The stretch that holds all of a slice.
    fn find(&self, slice: &Slice, to: u64) -> Option<&Stretch> {
        let behind = self.stretches.partition_point(|stretch| (&stretch.pack, stretch.from) <= (&slice.pack, slice.offset));
        let stretch = self.stretches[..behind].last()?;
        (stretch.pack == slice.pack && slice.offset >= stretch.from && to <= stretch.to).then_some(stretch)
    }
}

/// A stretch of one slice is that slice: it would only be held longer.
fn drop_single(stretches: &mut Vec<Stretch>, count: usize) {
    if count == 1 {
        stretches.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::TryStreamExt;
    use object_store::memory::InMemory;
    use proptest::prelude::*;

    use super::*;
    use crate::model::Digest;
    use crate::testing::block_on;
    use crate::vault::pack::PackWriter;

    fn slice(pack: char, offset: u64, stored: u32) -> Slice {
        Slice { pack: pack.to_string().repeat(32), offset, stored, inflated: None }
    }

    /// The stretches for slices of (pack, offset, length), as (pack, from, to).
    fn check(slices: &[(char, u64, u32)], expected: &[(char, u64, u64)]) {
        let body = Body::Slices(slices.iter().map(|&(pack, offset, stored)| slice(pack, offset, stored)).collect());
        let ahead = Ahead::of([&body]);
        let found: Vec<(char, u64, u64)> =
            ahead.stretches.iter().map(|stretch| (stretch.pack.chars().next().unwrap(), stretch.from, stretch.to)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn neighbours_are_one_stretch_and_loners_none() {
        check(&[('a', 8, 100), ('a', 108, 100), ('a', 208, 50)], &[('a', 8, 258)]);
        check(&[('a', 208, 50), ('a', 8, 100), ('a', 108, 100), ('a', 108, 100)], &[('a', 8, 258)]);
        check(&[('a', 8, 100)], &[]);
        check(&[('a', 8, 100), ('b', 108, 100)], &[]);
    }

    #[test]
    fn a_gap_is_read_along_where_it_is_small_beside_what_is_wanted() {
        check(&[('a', 0, 1_000), ('a', 5_000, 1_000)], &[('a', 0, 6_000)]);
        check(&[('a', 0, 1_000), ('a', 50_000, 1_000)], &[]);
        check(&[('a', 0, 200_000), ('a', 260_000, 1_000)], &[('a', 0, 261_000)]);
        check(&[('a', 0, 200_000), ('a', 280_000, 1_000)], &[]);
    }

    #[test]
    fn large_slices_and_long_stretches_are_left_apart() {
        check(&[('a', 0, 300_000), ('a', 300_000, 1_000)], &[]);
        let many: Vec<(char, u64, u32)> = (0..20).map(|index| ('a', index * 250_000, 250_000)).collect();
        check(&many, &[('a', 0, 4_000_000), ('a', 4_000_000, 5_000_000)]);
    }

    #[test]
    fn a_reference_that_reaches_beyond_every_number_is_an_error_and_no_panic() {
        let vault = Vault::new(Arc::new(InMemory::new()), "v");
        let hostile = Body::Slices(vec![slice('a', u64::MAX - 5, 1_000), slice('a', u64::MAX - 4, 1_000)]);
        let ahead = Arc::new(Ahead::of([&hostile]));
        let read =
            block_on(async { vault.read_body_ahead(&ahead, &hostile, Some(Digest::of(b"x"))).await?.try_collect::<Vec<Bytes>>().await });
        assert!(read.is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_ahead_is_what_is_read_alone(
            contents in proptest::collection::vec((any::<u8>(), 0usize..90_000), 1..40),
            asked in proptest::collection::vec(any::<prop::sample::Index>(), 1..30),
        ) {
            block_on(async {
                let vault = Vault::new(Arc::new(InMemory::new()), "v");
                let contents: Vec<Vec<u8>> = contents.iter().enumerate().map(|(index, &(byte, length))| {
                    (0..length).map(|at| byte ^ (at * (index + 7)).to_le_bytes()[0]).collect()
                }).collect();
                let mut writer = PackWriter::new();
                let placed: Vec<_> = contents.iter().map(|content| writer.add(content)).collect();
                writer.flush(&vault).await.unwrap();
                let bodies: Vec<Body> = placed.iter().map(|placed| Body::Slices(vec![writer.find(placed)])).collect();
                let asked: Vec<usize> = asked.iter().map(|index| index.index(bodies.len())).collect();
                let ahead = Arc::new(Ahead::of(asked.iter().map(|&index| &bodies[index])));
                // What was not planned for can be read, too.
                for index in asked.into_iter().chain([0]) {
                    let digest = Digest::of(&contents[index]);
                    let read: Vec<Bytes> = vault.read_body_ahead(&ahead, &bodies[index], Some(digest)).await.unwrap().try_collect().await.unwrap();
                    assert_eq!(read.concat(), contents[index]);
                }
            });
        }
    }
}
