//! Positions: where a change stands among the changes of its key.
//!
//! ```text
//! position of an object change = epoch (4 bytes) | class (1 byte) | order
//!   class 80: the source's sequencer, its hexadecimal digits packed left-aligned, zero-padded to at least 16 bytes
//!   class 00: only a time is known: microseconds (8 bytes, sign flipped)
//!
//! position of a change of a row = epoch (4 bytes) | class 40 | commit (8 bytes) | place in the transaction (8 bytes)
//! position of a change of a block = 0 (4 bytes) | class 40 | number of the recovery point (8 bytes) | its id (8 bytes)
//! ```
//!
//! S3 orders the events of one key by `sequencer`, and only of one key; the shorter of two is padded with zeros on
//! the right (S3 user guide, "Event message structure"). A change that was found by listing has no sequencer: among
//! its siblings it is placed by time and listing rank, see [`crate::fold::siblings`].

use super::time::Timestamp;

const EPOCH_BYTES: usize = 4;
const CLASS_TIME: u8 = 0x00;
const CLASS_COMMIT: u8 = 0x40;
const CLASS_SEQUENCER: u8 = 0x80;
const SEQUENCER_BYTES: usize = 16;
/// More than any sequencer ever had.
const SEQUENCER_BYTES_MAX: usize = 64;
const POSITION_BYTES_MAX: usize = EPOCH_BYTES + 1 + SEQUENCER_BYTES_MAX;

/// Order-preserving bytes of a place in one stream; leads with the epoch.
///
/// There is one for each event, so it lies where it is used and not on the heap. What is behind `length` is 0: then the
/// order of the fields is that of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    bytes: [u8; POSITION_BYTES_MAX],
    length: u8,
}

/// A sequencer that can be trusted to order the changes of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequencer {
    bytes: [u8; SEQUENCER_BYTES_MAX],
    length: u8,
}

impl Sequencer {
    /// Reads S3's hexadecimal text; nothing if it is not hexadecimal, empty or absurdly long.
    pub fn parse(text: &str) -> Option<Sequencer> {
        if text.is_empty() || text.len() > 2 * SEQUENCER_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; SEQUENCER_BYTES_MAX];
        let (pairs, odd) = text.as_bytes().as_chunks::<2>();
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        if let [high] = odd {
            bytes[pairs.len()] = nibble(*high)? << 4;
        }
        Some(Sequencer { bytes, length: text.len().div_ceil(2).max(SEQUENCER_BYTES) as u8 })
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl Position {
    /// The position of a change whose order its source states.
    pub fn sequenced(epoch: u32, sequencer: &Sequencer) -> Position {
        Position::of(epoch, CLASS_SEQUENCER, &sequencer.bytes[..usize::from(sequencer.length)])
    }

    /// The position of a change of which only the time is known.
    pub fn timed(epoch: u32, at: Timestamp) -> Position {
        Position::of(epoch, CLASS_TIME, &((at.micros() as u64) ^ (1 << 63)).to_be_bytes())
    }

    /// The position of a change of a row: by the order in which transactions were committed, and within one by the order of its
    /// changes.
    pub fn committed(epoch: u32, commit: u64, place: u64) -> Position {
        let mut order = [0; 16];
        order[..8].copy_from_slice(&commit.to_be_bytes());
        order[8..].copy_from_slice(&place.to_be_bytes());
        Position::of(epoch, CLASS_COMMIT, &order)
    }

    /// The commit and the place of a change of a row; none of another position.
    pub fn commit_of(position: &[u8]) -> Option<(u64, u64)> {
        let order = position.get(EPOCH_BYTES..)?.strip_prefix(&[CLASS_COMMIT])?;
        let (commit, place) = order.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*commit), u64::from_be_bytes(*place.first_chunk::<8>()?)))
    }

    /// The position of a change of a block: by the recovery point that tells it.
    pub fn of_point(number: u64, id: u64) -> Position {
        Position::committed(0, number, id)
    }

    /// The position of a row that a snapshot read: before all that was committed since, in the order of `place`.
    pub fn snapshot(epoch: u32, place: u64) -> Position {
        Position::committed(epoch, 0, place)
    }

    fn of(epoch: u32, class: u8, order: &[u8]) -> Position {
        let mut bytes = [0; POSITION_BYTES_MAX];
        bytes[..EPOCH_BYTES].copy_from_slice(&epoch.to_be_bytes());
        bytes[EPOCH_BYTES] = class;
        bytes[EPOCH_BYTES + 1..][..order.len()].copy_from_slice(order);
        Position { bytes, length: (EPOCH_BYTES + 1 + order.len()) as u8 }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Whether these bytes of a position carry a sequencer, that is, an order of the source itself.
pub fn is_sequenced(position: &[u8]) -> bool {
    position.get(EPOCH_BYTES) == Some(&CLASS_SEQUENCER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(text: &str) -> Position {
        Position::sequenced(0, &Sequencer::parse(text).expect(text))
    }

    #[test]
    fn the_shorter_sequencer_is_padded_on_the_right() {
        // S3's rule: pad the shorter with zeros on the right, then compare as text.
        assert!(position("0055AED6DCD90281E5") < position("0055AED6DCD90281E6"));
        assert!(position("0055aed6dcd90281e5") == position("0055AED6DCD90281E500"));
        assert!(position("617f08299329d189") > position("0055AED6DCD90281E5"));
        assert!(position("a") > position("9f"));
    }

    #[test]
    fn what_is_not_hexadecimal_orders_nothing() {
        for text in ["", "xyz", "12 34", &"0".repeat(129)] {
            assert_eq!(Sequencer::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_commit_is_read_as_it_was_written() {
        assert_eq!(Position::commit_of(Position::committed(3, 77, 1 << 62).as_bytes()), Some((77, 1 << 62)));
        assert_eq!(Position::commit_of(position("a").as_bytes()), None);
        assert_eq!(Position::commit_of(&[0; 7]), None);
    }

    proptest! {
        #[test]
        fn positions_order_as_the_padded_text(a in "[0-9a-f]{1,40}", b in "[0-9a-f]{1,40}") {
            let width = a.len().max(b.len()).max(32);
            let pad = |text: &str| format!("{text:0<width$}");
            let by_text = pad(&a).cmp(&pad(&b));
            let by_position = position(&a).cmp(&position(&b));
            // Equal text of different length beyond 32 digits differs only in trailing zeros: the same place.
            prop_assert!(by_position == by_text || by_text == std::cmp::Ordering::Equal);
        }
    }
}
