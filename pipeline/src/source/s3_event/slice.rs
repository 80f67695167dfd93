//! The quick way through an EventBridge event: AWS writes its fields in one order and without spaces.
//!
//! The event is compared with that order piece by piece and its texts are cut out between the pieces. Whatever differs
//! in the least (a space, an escape, a field more or in another place) is left to the JSON parser, which reads the same
//! from it, only three times slower. So nothing here decides what an event means or whether it is valid.

/// The fields of an EventBridge event that are used, as they stand in it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bridge<'a> {
    pub(super) version: Option<&'a str>,
    pub(super) detail_type: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    pub(super) time: Option<&'a str>,
    pub(super) has_detail: bool,
    pub(super) detail_version: Option<&'a str>,
    pub(super) event_version: Option<&'a str>,
    pub(super) bucket: Option<&'a str>,
    pub(super) object: Option<&'a str>,
    pub(super) size: Option<u64>,
    pub(super) etag: Option<&'a str>,
    pub(super) object_version: Option<&'a str>,
    pub(super) sequencer: Option<&'a str>,
    pub(super) request: Option<&'a str>,
    pub(super) requester: Option<&'a str>,
    pub(super) deletion_type: Option<&'a str>,
    pub(super) storage_class: Option<&'a str>,
}

/// The fields of the event, if it is written exactly as AWS writes it.
pub(super) fn slice(text: &str) -> Option<Bridge<'_>> {
    if !is_plain(text.as_bytes()) {
        return None;
    }
    let mut rest = Rest { text };
    let mut bridge = Bridge { version: Some(rest.text_after("{\"version\":\"")?), has_detail: true, ..Bridge::default() };
    rest.text_after(",\"id\":\"")?;
    bridge.detail_type = Some(rest.text_after(",\"detail-type\":\"")?);
    bridge.source = Some(rest.text_after(",\"source\":\"")?);
    rest.text_after(",\"account\":\"")?;
    bridge.time = Some(rest.text_after(",\"time\":\"")?);
    rest.text_after(",\"region\":\"")?;
    rest.text_after(",\"resources\":[\"")?;
    bridge.detail_version = Some(rest.text_after("],\"detail\":{\"version\":\"")?);
    bridge.event_version = rest.text_perhaps_after(",\"event-version\":\"")?;
    bridge.bucket = Some(rest.text_after(",\"bucket\":{\"name\":\"")?);
    bridge.object = Some(rest.text_after("},\"object\":{\"key\":\"")?);
    bridge.size = rest.number_perhaps_after(",\"size\":")?;
    bridge.etag = rest.text_perhaps_after(",\"etag\":\"")?;
    bridge.object_version = rest.text_perhaps_after(",\"version-id\":\"")?;
    bridge.sequencer = rest.text_perhaps_after(",\"sequencer\":\"")?;
    bridge.request = Some(rest.text_after("},\"request-id\":\"")?);
    bridge.requester = Some(rest.text_after(",\"requester\":\"")?);
    rest.text_perhaps_after(",\"source-ip-address\":\"")?;
    rest.text_perhaps_after(",\"reason\":\"")?;
    bridge.deletion_type = rest.text_perhaps_after(",\"deletion-type\":\"")?;
    (rest.text == "}}").then_some(bridge)
}

/// What of the event was not yet compared. Its functions return nothing at the first difference.
struct Rest<'a> {
    text: &'a str,
}

// The pieces are constants: inlined, comparing with one is a few instructions, and without that it is most of the time.
impl<'a> Rest<'a> {
    /// The text between `piece`, which ends with the opening quote, and the closing quote.
    #[inline(always)]
    fn text_after(&mut self, piece: &str) -> Option<&'a str> {
        let after = self.text.strip_prefix(piece)?;
        let end = quote(after.as_bytes())?;
        self.text = &after[end + 1..];
        Some(&after[..end])
    }

    /// The same for a field that is not always there: then the inner one is nothing.
    #[inline(always)]
    #[expect(clippy::option_option, reason = "a difference and an absent field are two things")]
    fn text_perhaps_after(&mut self, piece: &str) -> Option<Option<&'a str>> {
        if self.text.starts_with(piece) { self.text_after(piece).map(Some) } else { Some(None) }
    }

    /// The same for a whole number of at most 18 digits.
    #[expect(clippy::option_option, reason = "a difference and an absent field are two things")]
    fn number_perhaps_after(&mut self, piece: &str) -> Option<Option<u64>> {
        let Some(after) = self.text.strip_prefix(piece) else {
            return Some(None);
        };
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let ends = matches!(after.as_bytes().get(digits), Some(b',' | b'}'));
        if !ends || !(1..=18).contains(&digits) || (digits > 1 && after.starts_with('0')) {
            return None;
        }
        self.text = &after[digits..];
        Some(Some(after.as_bytes()[..digits].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))))
    }
}

/// Whether every byte stands for itself in a JSON text: no backslash, no control character. Looks at all of them without
/// stopping, because that is what the compiler makes vector instructions of.
fn is_plain(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |odd, &byte| odd | (byte < 0x20) | (byte == b'\\'))
}

/// Where the next quote is. Most texts here are short, too short for a search that has to be set up.
fn quote(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (chunks, tail) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        // The highest bit of a byte is set in `found` where the byte is a quote. The borrow may set it in bytes above one,
        // so only the lowest counts.
        let differs = u64::from_le_bytes(*chunk) ^ (ONES * u64::from(b'"'));
        let found = differs.wrapping_sub(ONES) & !differs & HIGHS;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    tail.iter().position(|&byte| byte == b'"').map(|at| chunks.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_find_the_same_as_one(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x20u8..0x24, Just(0xA2)], 0..40)) {
            prop_assert_eq!(quote(&bytes), bytes.iter().position(|&byte| byte == b'"'));
            prop_assert_eq!(is_plain(&bytes), !bytes.iter().any(|&byte| byte < 0x20 || byte == b'\\'));
        }
    }
}
