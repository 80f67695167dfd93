//! Positions: where a change stands among the changes of its key.
//!
//! ```text
//! position of an object change = epoch (4 bytes) | class (1 byte) | order
//!   class 80: the source's sequencer, its hexadecimal digits packed left-aligned, zero-padded to 16 bytes
//!   class 00: only a time is known: microseconds (8 bytes, sign flipped)
//! ```
//!
//! S3 orders the events of one key by `sequencer`, and only of one key; the shorter of two is padded with zeros on
//! the right (S3 user guide, "Event message structure"). A change that was found by listing has no sequencer: among
//! its siblings it is placed by time and listing rank, see [`crate::fold::siblings`].

use bytes::Bytes;

use super::time::Timestamp;

const CLASS_TIME: u8 = 0x00;
const CLASS_SEQUENCER: u8 = 0x80;
const SEQUENCER_BYTES: usize = 16;

/// Order-preserving bytes of a place in one stream; leads with the epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Bytes);

/// A sequencer that can be trusted to order the changes of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequencer(Vec<u8>);

impl Sequencer {
    /// Reads S3's hexadecimal text; nothing if it is not hexadecimal, empty or absurdly long.
    pub fn parse(text: &str) -> Option<Sequencer> {
        if text.is_empty() || text.len() > 128 {
            return None;
        }
        let mut packed = vec![0; text.len().div_ceil(2).max(SEQUENCER_BYTES)];
        for (index, digit) in text.chars().enumerate() {
            let nibble = digit.to_digit(16)? as u8;
            packed[index / 2] |= if index % 2 == 0 { nibble << 4 } else { nibble };
        }
        Some(Sequencer(packed))
    }
}

impl Position {
    /// The position of a change whose order its source states.
    pub fn sequenced(epoch: u32, sequencer: &Sequencer) -> Position {
        let mut bytes = Vec::with_capacity(5 + sequencer.0.len());
        bytes.extend_from_slice(&epoch.to_be_bytes());
        bytes.push(CLASS_SEQUENCER);
        bytes.extend_from_slice(&sequencer.0);
        Position(bytes.into())
    }

    /// The position of a change of which only the time is known.
    pub fn timed(epoch: u32, at: Timestamp) -> Position {
        let mut bytes = Vec::with_capacity(13);
        bytes.extend_from_slice(&epoch.to_be_bytes());
        bytes.push(CLASS_TIME);
        bytes.extend_from_slice(&((at.micros() as u64) ^ (1 << 63)).to_be_bytes());
        Position(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether these bytes of a position carry a sequencer, that is, an order of the source itself.
pub fn is_sequenced(position: &[u8]) -> bool {
    position.get(4) == Some(&CLASS_SEQUENCER)
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
