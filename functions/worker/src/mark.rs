//! What tells a topic from another of the same name that was made after it.
//!
//! A group's offset is only a number. Of a topic that was deleted and made again it counts something else: reading would go on there, and
//! what the new one holds before it would never be read. So with each offset the group is told what the last message before it was, and
//! whoever takes a partition over looks whether that still lies where it lay.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

/// The word that begins it, so that what others write beside an offset is not taken for it.
const BEGINS: &str = "hindsight-1";

/// One message of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Where it lies.
    pub offset: i64,
    hash: u64,
}

impl Mark {
    /// The mark of a message that was written at this time, in milliseconds as the broker has it.
    pub fn of(offset: i64, written: Option<i64>, body: Option<&[u8]>) -> Mark {
        let told = [&written.unwrap_or_default().to_le_bytes()[..], &[u8::from(body.is_some())], body.unwrap_or_default()].concat();
        Mark { offset, hash: xxh3_64(&told) }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BEGINS} {} {:016x}", self.offset, self.hash)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Mark, ()> {
        let [BEGINS, offset, hash] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(()) };
        Ok(Mark { offset: offset.parse().map_err(drop)?, hash: u64::from_str_radix(hash, 16).map_err(drop)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_is_written_and_tells_messages_apart() {
        let mark = Mark::of(7, Some(1_000), Some(b"one"));
        assert_eq!(mark.to_string().parse(), Ok(mark));
        for other in [Mark::of(7, Some(1_001), Some(b"one")), Mark::of(7, Some(1_000), Some(b"two")), Mark::of(7, Some(1_000), None)] {
            assert!(other != mark);
        }
        for text in ["", "something else", "hindsight-1 7", "hindsight-1 x 00", "hindsight-2 7 0000000000000000"] {
            assert_eq!(text.parse::<Mark>(), Err(()), "{text}");
        }
    }
}
