//! Planted bugs: what a backup of a bucket can get wrong, each behind a switch, so that the simulation itself is tested.
//!
//! None of them is in the product. Each is planted in one of the simulation's own doors, the store, the bucket, the queue,
//! where it does to the product what a defect in it would do.

use std::fmt;

/// A defect that the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// Events are let go before their changes are durable: the queue forgets a message when it is delivered.
    AckBeforeDurable,
    /// A segment's name says only where it begins, and a later one takes its place.
    OverwriteSegment,
    /// Versions are ordered by the time of their events: the sequencer that is delivered is made of the time.
    OrderByTime,
    /// Versions are ordered by the arrival of their events.
    ArrivalOrder,
    /// The truth is not read again: every reconciliation after the first sees what is known already.
    NoReconcile,
    /// `latest` is where the newest event was, whatever is still on its way.
    WatermarkMaxEvent,
    /// A pack that could not be written is taken for written.
    ForgetPartFailure,
    /// What arrives late, at a time before the newest base, is not looked at.
    LateIgnored,
    /// Bases forget deletes at once.
    TombstoneDropped,
    /// A manifest names a base before all of its files are there.
    TornBase,
    /// The change is durable before the body that it names.
    BodyAfterChange,
    /// Delete markers are not seen.
    MarkerIgnored,
    /// Version `null` is taken for one that is put once.
    NullVersion,
    /// A purge that no event told is not found.
    PurgeForgotten,
}

/// All of them.
pub const BUGS: [Bug; 14] = [
    Bug::AckBeforeDurable,
    Bug::OverwriteSegment,
    Bug::OrderByTime,
    Bug::ArrivalOrder,
    Bug::NoReconcile,
    Bug::WatermarkMaxEvent,
    Bug::ForgetPartFailure,
    Bug::LateIgnored,
    Bug::TombstoneDropped,
    Bug::TornBase,
    Bug::BodyAfterChange,
    Bug::MarkerIgnored,
    Bug::NullVersion,
    Bug::PurgeForgotten,
];

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Bug {
    /// A seed that finds it. Where the histories are other ones than when it was written here, the tests search for another.
    pub const fn found_by(self) -> u64 {
        match self {
            Bug::WatermarkMaxEvent => 2,
            Bug::ForgetPartFailure => 1,
            Bug::TombstoneDropped => 4,
            Bug::BodyAfterChange => 1,
            Bug::NullVersion => 9,
            Bug::PurgeForgotten => 3,
            _ => 0,
        }
    }

    /// The bug of this name.
    pub fn parse(name: &str) -> Option<Bug> {
        BUGS.into_iter().find(|bug| bug.to_string().eq_ignore_ascii_case(name))
    }
}
