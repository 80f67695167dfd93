//! What names a segment in the name of another one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// Of a segment that arrived then, with this earliest time in it, and with this digest of at least twelve digits.
    pub(super) fn new(arrived: Timestamp, first: Timestamp, digest: &str) -> Option<Link> {
        let hour = u32::try_from(arrived.seconds() / 3_600).unwrap_or(0);
        let first = u64::try_from(first.micros()).unwrap_or(0);
        let digest = u64::from_str_radix(digest.get(..DIGEST_DIGITS)?, 16).ok()?;
        Some(Link { hour, first, digest })
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
