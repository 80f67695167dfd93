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
    let mut rest = Rest { text };
    let mut bridge = Bridge {
        version: Some(rest.text_after("{\"version\":\"")?),
        has_detail: true,
        ..Bridge::default()
    };
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

impl<'a> Rest<'a> {
    /// The text between `piece`, which ends with the opening quote, and the closing quote.
    fn text_after(&mut self, piece: &str) -> Option<&'a str> {
        let after = self.text.strip_prefix(piece)?;
        let end = plain_bytes(after.as_bytes());
        if after.as_bytes().get(end) != Some(&b'"') {
            return None;
        }
        self.text = &after[end + 1..];
        Some(&after[..end])
    }

    /// The same for a field that is not always there: then the inner one is nothing.
    #[expect(clippy::option_option, reason = "a difference and an absent field are two things")]
    fn text_perhaps_after(&mut self, piece: &str) -> Option<Option<&'a str>> {
        if self.text.starts_with(piece) {
            self.text_after(piece).map(Some)
        } else {
            Some(None)
        }
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
        Some(Some(
            after.as_bytes()[..digits]
                .iter()
                .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
        ))
    }
}

/// How many bytes at the beginning stand for themselves in a JSON text: no quote, no backslash, no control character.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut done = 0;
    for chunk in bytes.chunks_exact(8) {
        let chunk = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
        // A byte's highest bit is set where the byte is the one sought. Above the first such byte there may be others that
        // are not: the borrow runs upwards. So only the lowest one counts.
        let zeros = |chunk: u64| chunk.wrapping_sub(ONES) & !chunk;
        let controls = chunk.wrapping_sub(ONES * 0x20) & !chunk;
        let found = (controls | zeros(chunk ^ (ONES * u64::from(b'"'))) | zeros(chunk ^ (ONES * u64::from(b'\\')))) & HIGHS;
        if found != 0 {
            return done + found.trailing_zeros() as usize / 8;
        }
        done += 8;
    }
    let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    done + bytes[done..].iter().take_while(plain).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_find_the_same_as_one(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(0x1F), Just(0x80)], 0..40)) {
            let one_by_one = bytes.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
            prop_assert_eq!(plain_bytes(&bytes), one_by_one);
        }
    }
}
