//! The fields of an event, checked: keys, times, sizes and short texts. Anyone may have written them.

use super::dialect::KeyEncoding;
use super::outcome::{RejectReason, excerpt};
use super::{KEY_BYTES_MAX, TEXT_BYTES_MAX};
use crate::model::Timestamp;

/// The object key in its own letters; `decoded` holds them where they differ from what is written.
pub(super) fn key<'a>(written: &'a str, encoding: KeyEncoding, decoded: &'a mut String) -> Result<&'a str, RejectReason> {
    let reads_differently = |written: &str| written.bytes().any(|byte| byte == b'%' || byte == b'+');
    let key = match encoding {
        KeyEncoding::Url if reads_differently(written) => url_decode(written, decoded)?,
        KeyEncoding::Unknown if reads_differently(written) => return Err(RejectReason::KeyAmbiguous),
        _ => written,
    };
    match key.len() {
        // The empty key is where the bucket's own configuration is kept.
        0 => Err(RejectReason::KeyEmpty),
        bytes if bytes > KEY_BYTES_MAX => Err(RejectReason::TooLong { field: "object key", bytes, max: KEY_BYTES_MAX }),
        _ => Ok(key),
    }
}

/// Reads a key as S3 writes it into notifications: as a form field, with `+` for a space.
///
/// The usual libraries let a stray `%` stand; then two different keys could be written alike.
fn url_decode<'a>(written: &str, decoded: &'a mut String) -> Result<&'a str, RejectReason> {
    let wrong = |problem| RejectReason::KeyEncoding { problem };
    let mut bytes = std::mem::take(decoded).into_bytes();
    bytes.clear();
    let mut rest = written.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).map(|digit| digit as u8);
                match (digit(), digit()) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(wrong("a % is not followed by two hexadecimal digits")),
                }
            }
            byte => byte,
        });
    }
    *decoded = String::from_utf8(bytes).map_err(|_| wrong("the bytes are not UTF-8"))?;
    Ok(decoded)
}

/// A text that becomes a column as it is; servers write a missing one as an empty one.
pub(super) fn short<'a>(field: &'static str, text: Option<&'a str>) -> Result<Option<&'a str>, RejectReason> {
    match text {
        None | Some("") => Ok(None),
        Some(text) if text.len() > TEXT_BYTES_MAX => Err(RejectReason::TooLong { field, bytes: text.len(), max: TEXT_BYTES_MAX }),
        text => Ok(text),
    }
}

/// A size as the columns hold it.
pub(super) fn size(size: Option<u64>) -> Result<Option<i64>, RejectReason> {
    size.map(|bytes| i64::try_from(bytes).map_err(|_| RejectReason::Size { bytes })).transpose()
}

/// When it happened: after 1970, which servers write for "no time", and not after `latest`.
pub(super) fn time(text: &str, latest: Timestamp) -> Result<Timestamp, RejectReason> {
    let at = utc(text.as_bytes()).or_else(|| text.parse().ok()).filter(|at| at.micros() > 0);
    match at {
        None => Err(RejectReason::Time { text: excerpt(text) }),
        Some(at) if at > latest => Err(RejectReason::Ahead { at }),
        Some(at) => Ok(at),
    }
}

/// Reads `2026-08-22T12:00:07Z`, with or without milliseconds: what nearly every event has. Anything else is left to the
/// general reader, which is ten times slower.
fn utc(text: &[u8]) -> Option<Timestamp> {
    let number =
        |digits: &[u8]| digits.iter().try_fold(0i64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')));
    let millis = match text.len() {
        20 if text[19] == b'Z' => 0,
        24 if text[19] == b'.' && text[23] == b'Z' => number(&text[20..23])?,
        _ => return None,
    };
    if [text[4], text[7], text[10], text[13], text[16]] != *b"--T::" {
        return None;
    }
    let (year, month, day) = (number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    let leap = i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    let days_of_month = match month {
        2 => 28 + leap,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second goes to the general reader.
    if year < 1970 || !(1..=days_of_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Timestamp::from_micros((seconds * 1_000 + millis) * 1_000))
}

/// Whether a version `major.minor` is one whose major we know. A minor one only adds fields; none at all is not stated.
pub(super) fn major(what: &'static str, version: Option<&str>, known: &'static str) -> Result<(), RejectReason> {
    let is_known = |version: &str| version.strip_prefix(known).is_some_and(|minor| minor.is_empty() || minor.starts_with('.'));
    match version {
        Some(version) if !is_known(version) => Err(RejectReason::Version { what, found: excerpt(version), known }),
        _ => Ok(()),
    }
}

/// A field that every event has.
pub(super) fn required<'a>(field: &'static str, text: Option<&'a str>) -> Result<&'a str, RejectReason> {
    text.filter(|text| !text.is_empty()).ok_or(RejectReason::Missing { field })
}
