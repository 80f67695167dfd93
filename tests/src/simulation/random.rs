//! Everything by chance in a run comes from here, and a seed repeats it.

use std::sync::{Mutex, PoisonError};

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and good enough to schedule by.
#[derive(Debug)]
pub struct Random(Mutex<u64>);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Random {
        Random(Mutex::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound - 1`.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// An index into something of this length.
    pub fn index(&self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// Yes, in so many of a hundred cases.
    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Yes, in so many of ten thousand cases.
    pub fn permyriad(&self, permyriad: u64) -> bool {
        self.below(10_000) < permyriad
    }

    /// Brings these into another order.
    pub fn shuffle<T>(&self, of: &mut [T]) {
        for index in (1..of.len()).rev() {
            of.swap(index, self.index(index + 1));
        }
    }
}
