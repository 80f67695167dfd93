//! The text that PostgreSQL's input functions take, of a value as a connector writes it in JSON.
//!
//! ```text
//!  "bal": 90                       integer, numeric as text, json, uuid ...  → as it is written
//!  "d": 20090, "2025-01-02Z"       days since 1970, or ISO 8601              → 2025-01-02
//!  "by": "3q2+7w=="                base64                                    → \xdeadbeef
//!  "pt": {"x": 1.0, "y": 2.0 ...}  a struct                                  → (1.0,2.0)
//!  "lsn": "MC8xNkIzNzQ4"           a type that connectors do not know: its text, in base64
//! ```
//!
//! Which form it has depends on the connector's settings (Debezium, "PostgreSQL connector", "Data type mappings"). Some of them lose
//! something, which nobody can bring back: the text is then the best there is, and says what may be wrong with it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::outcome::excerpt;
use crate::model::json;

/// How a type is written, as far as that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// As its own text, or as a number or a truth value that reads like it.
    Plain,
    /// Exact decimal numbers.
    Decimal,
    /// Bytes.
    Bytes,
    /// Bits: so many, or for none as many as there are.
    Bits(Option<u32>),
    /// Days.
    Date,
    /// Times of a day, with so many digits of a second.
    Time(u8),
    /// Instants of no time zone, with so many digits of a second.
    Timestamp(u8),
    /// Instants.
    TimestampTz,
    /// Lengths of time.
    Interval,
    /// Points of a plane.
    Point,
    /// Pairs of texts.
    Hstore,
    /// Several of one kind.
    Array(Box<Kind>),
    /// A type that connectors do not know.
    Unknown,
}

/// The digits of a second that are kept where a type says nothing.
const DIGITS: u8 = 6;

/// Types that are written as their own text, or as a number that reads like it.
const PLAIN: &[&str] = &[
    "bool",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "oid",
    "char",
    "bpchar",
    "varchar",
    "text",
    "name",
    "json",
    "jsonb",
    "xml",
    "uuid",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "citext",
    "ltree",
    "tsvector",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "timetz",
];

impl Kind {
    /// That of a type by its name, its modifier and whether it is an enum; of a domain, those of the type that it rests on.
    pub fn of(name: &str, modifier: i32, is_enum: bool) -> Kind {
        let digits = if (0..=6).contains(&modifier) { modifier as u8 } else { DIGITS };
        match name {
            _ if is_enum => Kind::Plain,
            name if PLAIN.contains(&name) => Kind::Plain,
            "numeric" | "money" => Kind::Decimal,
            "bytea" => Kind::Bytes,
            "bit" => Kind::Bits(Some(u32::try_from(modifier).unwrap_or(1))),
            "varbit" => Kind::Bits(None),
            "date" => Kind::Date,
            "time" => Kind::Time(digits),
            "timestamp" => Kind::Timestamp(digits),
            "timestamptz" => Kind::TimestampTz,
            "interval" => Kind::Interval,
            "point" => Kind::Point,
            "hstore" => Kind::Hstore,
            _ => Kind::Unknown,
        }
    }
}

/// A value as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// What may be wrong with it, where its connector has lost something.
    pub doubt: Option<&'static str>,
}

/// Why a value is none of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not how a connector writes {kind}{hint}")]
pub struct ValueError {
    value: String,
    kind: &'static str,
    hint: &'static str,
}

type Value<'a> = Result<Written<'a>, ValueError>;

fn exactly<'a>(text: impl Into<Cow<'a, str>>) -> Value<'a> {
    Ok(Written { text: text.into(), doubt: None })
}

fn doubtful<'a>(text: impl Into<Cow<'a, str>>, doubt: &'static str) -> Value<'a> {
    Ok(Written { text: text.into(), doubt: Some(doubt) })
}

fn wrong<'a>(value: &str, kind: &'static str, hint: &'static str) -> Value<'a> {
    Err(ValueError { value: excerpt(value), kind, hint })
}

/// The text of a value, of a row of a snapshot or of another change; none for NULL.
///
/// # Errors
/// [`ValueError`] for what is no value of that kind.
pub fn text<'a>(value: &'a str, kind: &Kind, of_snapshot: bool) -> Result<Option<Written<'a>>, ValueError> {
    if value == "null" {
        return Ok(None);
    }
    let string = string(value);
    let number = || value.parse::<i64>().ok();
    let written = match (kind, &string) {
        (Kind::Array(kind), _) => array(value, kind, DIMENSIONS_MAX, of_snapshot),
        (Kind::Plain, Some(text)) => exactly(text.clone()),
        (Kind::Plain, None) if value.starts_with(['{', '[']) => wrong(value, "a value of this type", ""),
        (Kind::Plain, None) => exactly(value),
        (Kind::Decimal, Some(text)) => decimal(text),
        (Kind::Decimal, None) => scaled(value),
        (Kind::Bytes, Some(text)) => match BASE64.decode(&**text) {
            Ok(bytes) => exactly(format!("\\x{}", hex::encode(bytes))),
            Err(_) => wrong(value, "bytes", ": binary.handling.mode must be base64"),
        },
        (Kind::Bits(length), _) => bits(value, string.as_deref(), *length),
        (Kind::Date, Some(text)) => written_date(text, of_snapshot),
        (Kind::Date, None) => match number() {
            Some(days) => date(days),
            None => wrong(value, "a date", ""),
        },
        (Kind::Time(_) | Kind::Timestamp(_) | Kind::TimestampTz, Some(text)) => iso(text, !matches!(kind, Kind::TimestampTz)),
        (Kind::Time(digits), None) => match number().and_then(|number| micros(number, *digits)) {
            Some((micros, doubt)) => Ok(Written { text: clock(micros).into(), doubt }),
            None => wrong(value, "a time of day", ""),
        },
        (Kind::Timestamp(digits), None) => match number().and_then(|number| instant(number, *digits)) {
            Some((text, doubt)) => Ok(Written { text: text.into(), doubt }),
            None => wrong(value, "a timestamp", ""),
        },
        (Kind::Interval, Some(text)) => exactly(text.clone()),
        (Kind::Interval, None) => match number() {
            Some(micros) => doubtful(
                format!("{micros} microseconds"),
                "months and days of intervals are averaged: the connector's interval.handling.mode was not string",
            ),
            None => wrong(value, "an interval", ""),
        },
        (Kind::Point, _) => point(value),
        (Kind::Hstore, _) => hstore(value, string.as_deref()),
        (Kind::Unknown, Some(text)) => match BASE64.decode(&**text).ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => exactly(text),
            None => wrong(value, "a type that it does not know", ""),
        },
        (Kind::Unknown | Kind::TimestampTz | Kind::Bytes, None) => wrong(value, "a value of this type", ""),
    };
    written.map(Some)
}

/// The text of a JSON string; none of anything else.
fn string(value: &str) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix('"')?;
    match inner.strip_suffix('"') {
        Some(plain) if !plain.contains('\\') => Some(plain.into()),
        _ => serde_json::from_str::<String>(value).ok().map(Cow::Owned),
    }
}

/// A decimal number that is written as text.
fn decimal<'a>(text: &str) -> Value<'a> {
    match text {
        "NAN" | "NaN" => return exactly("NaN"),
        "POSITIVE_INFINITY" => return exactly("Infinity"),
        "NEGATIVE_INFINITY" => return exactly("-Infinity"),
        _ => {}
    }
    let is_number = text.parse::<f64>().is_ok_and(|number| !number.is_nan()) && text.bytes().any(|byte| byte.is_ascii_digit());
    if is_number { exactly(text.to_owned()) } else { wrong(text, "a decimal number", ": decimal.handling.mode must be string") }
}

/// A decimal number that is written as a number without a point, and where the point is.
fn scaled<'a>(value: &str) -> Value<'a> {
    #[derive(Deserialize)]
    struct Scaled<'a> {
        scale: i32,
        #[serde(borrow)]
        value: Cow<'a, str>,
    }
    if let Ok(number) = value.parse::<f64>() {
        let doubt = "decimal numbers are rounded: the connector's decimal.handling.mode was double";
        return if number.is_finite() { doubtful(value.to_owned(), doubt) } else { wrong(value, "a decimal number", "") };
    }
    let bytes = serde_json::from_str(value).ok().and_then(|Scaled { scale, value }| Some((scale, BASE64.decode(&*value).ok()?)));
    match bytes {
        Some((scale, bytes)) if !bytes.is_empty() => exactly(with_point(&bytes, scale)),
        _ => wrong(value, "a decimal number", ": decimal.handling.mode must be string"),
    }
}

/// A number in two's complement, the highest byte first, as decimal digits with a point before the last `scale` of them.
fn with_point(bytes: &[u8], scale: i32) -> String {
    let is_negative = bytes[0] & 0x80 != 0;
    let mut magnitude: Vec<u8> = bytes.to_vec();
    if is_negative {
        magnitude.iter_mut().for_each(|byte| *byte = !*byte);
        for byte in magnitude.iter_mut().rev() {
            let carried;
            (*byte, carried) = byte.overflowing_add(1);
            if !carried {
                break;
            }
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0u32;
        for byte in &mut magnitude {
            let whole = rest << 8 | u32::from(*byte);
            (*byte, rest) = ((whole / 10) as u8, whole % 10);
        }
        digits.push(b'0' + rest as u8);
    }
    let sign = if is_negative { "-" } else { "" };
    if scale <= 0 {
        digits.reverse();
        let digits = if digits.is_empty() { "0".to_owned() } else { String::from_utf8_lossy(&digits).into_owned() };
        return format!("{sign}{digits}{}", "0".repeat(scale.unsigned_abs() as usize));
    }
    let scale = scale as usize;
    digits.resize(digits.len().max(scale + 1), b'0');
    digits.reverse();
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{sign}{}.{}", String::from_utf8_lossy(whole), String::from_utf8_lossy(part))
}

/// Bits, which are written as bytes, the lowest first.
fn bits<'a>(value: &str, string: Option<&str>, length: Option<u32>) -> Value<'a> {
    match (value, string, length) {
        ("true", _, Some(1)) => exactly("1"),
        ("false", _, Some(1)) => exactly("0"),
        (_, Some(text), _) => match BASE64.decode(text) {
            Ok(bytes) => {
                let all: String = bytes.iter().rev().map(|byte| format!("{byte:08b}")).collect();
                match length {
                    Some(length) => {
                        let all = format!("{:0>length$}", all.trim_start_matches('0'), length = length as usize);
                        if all.len() > length as usize { wrong(value, "so many bits", "") } else { exactly(all) }
                    }
                    None => {
                        doubtful(all.trim_start_matches('0').to_owned(), "of bits of varying length connectors do not tell leading zeros")
                    }
                }
            }
            Err(_) => wrong(value, "bits", ""),
        },
        _ => wrong(value, "bits", ""),
    }
}

/// What the connector writes for dates that are infinite, in days and in ISO 8601.
const INFINITE_DATES: [(i64, &str, &str); 2] =
    [(-2_147_472_692, "-5877611-06-21", "infinity"), (-2_147_472_691, "-5877611-06-22", "-infinity")];
/// The same of instants, in microseconds.
const INFINITE_INSTANTS: [(i64, &str, &str); 2] = [
    (9_223_372_036_825_200_000, "+294247-01-10T04:00:25.2", "infinity"),
    (-9_223_372_036_832_400_000, "-290308-12-21T19:59:27.6", "-infinity"),
];

/// What the connector writes in a snapshot for dates that are infinite: years that no date has.
const INFINITE_YEARS: [(&str, &str); 2] = [("+292278994-", "infinity"), ("+292269055-", "-infinity")];
/// The first whole year of the calendar that PostgreSQL has for all years, and Java only from then on.
const GREGORIAN: i32 = 1583;

/// A date as ISO 8601 has it. In a snapshot it comes through Java's calendar, which has no years before Christ.
fn written_date<'a>(text: &str, of_snapshot: bool) -> Value<'a> {
    if let Some((_, infinite)) = INFINITE_YEARS.iter().find(|(year, _)| text.starts_with(year)) {
        return exactly(*infinite);
    }
    let written = iso(text, true)?;
    let is_early = text.get(..4).and_then(|year| year.parse::<i32>().ok()).is_some_and(|year| year < GREGORIAN);
    let doubt = (of_snapshot && is_early && !text.starts_with(['-', '+']))
        .then_some("dates before 1583 in a snapshot may be of before Christ, or of the Julian calendar");
    Ok(Written { doubt, ..written })
}

fn date<'a>(days: i64) -> Value<'a> {
    if let Some((_, _, infinite)) = INFINITE_DATES.iter().find(|(number, ..)| *number == days) {
        return exactly(*infinite);
    }
    let (year, month, day) = civil(days);
    exactly(dated(year, &format!("{month:02}-{day:02}")))
}

/// The day of the proleptic Gregorian calendar that is so many days after 1970 began: year, month, day.
fn civil(days: i64) -> (i64, u32, u32) {
    // In eras of 400 years that begin in March.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = (if month < 10 { month + 3 } else { month - 9 }) as u32;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// A date, or what begins with one, as PostgreSQL reads it: it counts years before Christ from 1 on.
fn dated(year: i64, rest: &str) -> String {
    if year > 0 { format!("{year:04}-{rest}") } else { format!("{:04}-{rest} BC", 1 - year) }
}

/// Microseconds of a day.
fn clock(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    format!("{:02}:{:02}:{:02}.{:06}", seconds / 3_600, seconds / 60 % 60, seconds % 60, micros % 1_000_000)
}

/// Said of numbers whose unit depends on a setting.
const UNIT: &str =
    "times were written as numbers, whose unit depends on the connector's time.precision.mode: they were read as adaptive writes them";

/// A number in the unit that goes with so many digits, in microseconds of a day.
fn micros(number: i64, digits: u8) -> Option<(i64, Option<&'static str>)> {
    let (micros, doubt) = in_micros(number, digits)?;
    (0..=86_400_000_000).contains(&micros).then_some((micros, doubt))
}

fn in_micros(number: i64, digits: u8) -> Option<(i64, Option<&'static str>)> {
    let micros = if digits > 3 { number } else { number.checked_mul(1_000)? };
    Some((micros, Some(UNIT)))
}

fn instant(number: i64, digits: u8) -> Option<(String, Option<&'static str>)> {
    let infinite = |(infinite, ..): &&(i64, &str, &str)| number == *infinite || digits <= 3 && number == infinite / 1_000;
    if let Some((_, _, infinite)) = INFINITE_INSTANTS.iter().find(infinite) {
        return Some(((*infinite).to_owned(), None));
    }
    let (micros, doubt) = in_micros(number, digits)?;
    const DAY: i64 = 86_400_000_000;
    let (year, month, day) = civil(micros.div_euclid(DAY));
    let time = clock(micros.rem_euclid(DAY));
    Some((dated(year, &format!("{month:02}-{day:02} {time}")), doubt))
}

/// A time that is written as ISO 8601 has it: `-0043-03-15T01:02:03Z`. Where `is_local`, what says the time zone is of the format alone.
fn iso<'a>(text: &str, is_local: bool) -> Value<'a> {
    let plain = if is_local { text.strip_suffix('Z').unwrap_or(text) } else { text };
    let bare = text.strip_suffix('Z').unwrap_or(text);
    if let Some((_, _, infinite)) = INFINITE_DATES.iter().chain(&INFINITE_INSTANTS).find(|(_, written, _)| *written == bare) {
        return exactly(*infinite);
    }
    let (sign, unsigned) = match plain.strip_prefix(['-', '+']) {
        Some(unsigned) => (&plain[..1], unsigned),
        None => ("", plain),
    };
    match unsigned.split_once('-') {
        // Before Christ, or a year of more than four digits.
        Some((year, rest)) if year.bytes().all(|byte| byte.is_ascii_digit()) => match year.parse::<i64>() {
            Ok(year) => exactly(dated(if sign == "-" { -year } else { year }, rest)),
            Err(_) => wrong(text, "a time", ""),
        },
        _ => exactly(plain.to_owned()),
    }
}

fn point<'a>(value: &str) -> Value<'a> {
    #[derive(Deserialize)]
    struct Point<'a> {
        #[serde(borrow)]
        x: &'a serde_json::value::RawValue,
        #[serde(borrow)]
        y: &'a serde_json::value::RawValue,
    }
    match serde_json::from_str::<Point<'_>>(value) {
        Ok(Point { x, y }) => {
            let bare = |number: &serde_json::value::RawValue| number.get().trim_matches('"').to_owned();
            exactly(format!("({},{})", bare(x), bare(y)))
        }
        Err(_) => wrong(value, "a point", ""),
    }
}

fn hstore<'a>(value: &str, string: Option<&str>) -> Value<'a> {
    let Ok(pairs) = json::texts(string.unwrap_or(value)) else { return wrong(value, "pairs of texts", "") };
    let mut text = String::new();
    for (name, value) in &pairs {
        if !text.is_empty() {
            text.push(',');
        }
        quote(&mut text, name);
        text.push_str("=>");
        match value {
            Some(value) => quote(&mut text, value),
            None => text.push_str("NULL"),
        }
    }
    exactly(text)
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Dimensions that an array may have (`MAXDIM` of PostgreSQL).
const DIMENSIONS_MAX: u32 = 6;

/// The literal of an array. Where its elements are arrays, so are they written.
fn array<'a>(value: &str, kind: &Kind, dimensions: u32, of_snapshot: bool) -> Value<'a> {
    if dimensions == 0 {
        return wrong(value, "an array of so many dimensions", "");
    }
    let Ok(elements) = serde_json::from_str::<Vec<&serde_json::value::RawValue>>(value) else {
        return wrong(value, "an array", "");
    };
    let (mut literal, mut doubt) = (String::from("{"), None);
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            literal.push(',');
        }
        let is_nested = element.get().starts_with('[');
        let written = if is_nested {
            array(element.get(), kind, dimensions - 1, of_snapshot).map(Some)?
        } else {
            text(element.get(), kind, of_snapshot)?
        };
        match written {
            None => literal.push_str("NULL"),
            Some(written) => {
                doubt = doubt.or(written.doubt);
                if is_nested { literal.push_str(&written.text) } else { quote(&mut literal, &written.text) }
            }
        }
    }
    literal.push('}');
    if !elements.is_empty() && elements.iter().all(|element| element.get() == "null") {
        doubt = Some("an array of NULLs may have had several dimensions, which connectors do not tell");
    }
    Ok(Written { text: literal.into(), doubt })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Timestamp;

    fn check(kind: &Kind, value: &str, expected: &str) {
        let written = text(value, kind, false).unwrap_or_else(|error| panic!("{error}")).unwrap();
        assert_eq!((&*written.text, written.doubt), (expected, None), "{value}");
    }

    fn check_doubtful(kind: &Kind, value: &str, expected: &str, doubt: &str) {
        let written = text(value, kind, false).unwrap_or_else(|error| panic!("{error}")).unwrap();
        assert_eq!(written.text, expected, "{value}");
        assert!(written.doubt.unwrap().contains(doubt), "{value}");
    }

    #[test]
    fn what_reads_like_its_own_text_stays() {
        for (value, expected) in
            [("90", "90"), ("true", "true"), ("1.1", "1.1"), (r#""NaN""#, "NaN"), (r#""a\"ü\n""#, "a\"ü\n"), (r#""""#, "")]
        {
            check(&Kind::Plain, value, expected);
        }
        assert_eq!(text("null", &Kind::Bytes, false), Ok(None));
        assert!(text("{}", &Kind::Plain, false).is_err());
    }

    #[test]
    fn decimal_numbers_are_exact() {
        for (value, expected) in [
            (r#""12.340""#, "12.340"),
            (r#""NAN""#, "NaN"),
            (r#""POSITIVE_INFINITY""#, "Infinity"),
            (r#"{"scale": 9, "value": "J+QbMka+ybFuOYEV"}"#, "12345678901234567890.123456789"),
            (r#"{"scale": 0, "value": "AA=="}"#, "0"),
            (r#"{"scale": 3, "value": "/w=="}"#, "-0.001"),
            (r#"{"scale": -2, "value": "Bw=="}"#, "700"),
            (r#"{"scale": 2, "value": "gAA="}"#, "-327.68"),
        ] {
            check(&Kind::Decimal, value, expected);
        }
        check_doubtful(&Kind::Decimal, "1.5", "1.5", "decimal.handling.mode");
        assert!(text(r#""A34R1gA=""#, &Kind::Decimal, false).unwrap_err().to_string().contains("must be string"));
    }

    #[test]
    fn times_are_read_in_either_form() {
        let micros = Kind::of("timestamp", -1, false);
        for (kind, value, expected) in [
            (&Kind::Date, "20090", "2025-01-02"),
            (&Kind::Date, "-719163", "0001-12-31 BC"),
            (&Kind::Date, "-2147472692", "infinity"),
            (&Kind::Date, "-2147472691", "-infinity"),
            (&Kind::Date, r#""2025-01-02Z""#, "2025-01-02"),
            (&Kind::Date, r#""-5877611-06-21Z""#, "infinity"),
            (&Kind::Date, r#""-0043-03-15Z""#, "0044-03-15 BC"),
            (&micros, "-9223372036832400000", "-infinity"),
            (&micros, r#""2025-01-02T03:04:05.123456Z""#, "2025-01-02T03:04:05.123456"),
            (&micros, r#""-290308-12-21T19:59:27.6Z""#, "-infinity"),
            (&micros, r#""+12345-01-02T03:04:05Z""#, "12345-01-02T03:04:05"),
            (&Kind::TimestampTz, r#""2025-01-01T18:04:05.123456Z""#, "2025-01-01T18:04:05.123456Z"),
            (&Kind::TimestampTz, r#""infinity""#, "infinity"),
            (&Kind::Time(6), r#""03:04:05.123456Z""#, "03:04:05.123456"),
            (&Kind::Interval, r#""P1Y2M3DT4H5M6.789S""#, "P1Y2M3DT4H5M6.789S"),
        ] {
            check(kind, value, expected);
        }
        // PostgreSQL wants the era at the end.
        for (kind, value, expected) in [
            (&micros, "1735787045123456", "2025-01-02 03:04:05.123456"),
            (&micros, "-1", "1969-12-31 23:59:59.999999"),
            (&micros, "-63517824000000000", "0044-03-15 00:00:00.000000 BC"),
            (&Kind::Time(6), "11045123456", "03:04:05.123456"),
            (&Kind::Timestamp(3), "1735787045123", "2025-01-02 03:04:05.123000"),
        ] {
            check_doubtful(kind, value, expected, "time.precision.mode");
        }
        check_doubtful(&Kind::Interval, "37091106789000", "37091106789000 microseconds", "interval.handling.mode");
        assert!(text("86400000001", &Kind::Time(6), false).is_err());
    }

    #[test]
    fn dates_of_a_snapshot_come_through_the_calendar_of_java() {
        for (value, expected, doubted) in [
            (r#""+292278994-08-16Z""#, "infinity", false),
            (r#""+292269055-12-02Z""#, "-infinity", false),
            (r#""2026-11-27Z""#, "2026-11-27", false),
            (r#""+20000-01-01Z""#, "20000-01-01", false),
            (r#""0044-03-15Z""#, "0044-03-15", true),
        ] {
            let written = text(value, &Kind::Date, true).unwrap().unwrap();
            assert_eq!((&*written.text, written.doubt.is_some()), (expected, doubted));
        }
    }

    #[test]
    fn other_shapes_become_literals() {
        check(&Kind::Bytes, r#""3q2+7w==""#, "\\xdeadbeef");
        check(&Kind::Bits(Some(8)), r#""BQ==""#, "00000101");
        check(&Kind::Bits(Some(12)), r#""AQg=""#, "100000000001");
        check(&Kind::Bits(Some(1)), "true", "1");
        check_doubtful(&Kind::Bits(None), r#""FQ==""#, "10101", "leading zeros");
        check(&Kind::Point, r#"{"x": 1.0, "y": -2.5, "wkb": "AQ==", "srid": null}"#, "(1.0,-2.5)");
        check(&Kind::Hstore, r#""{\"a\":\"1\",\"b\\\"\":null}""#, r#""a"=>"1","b\""=>NULL"#);
        check(&Kind::Unknown, r#""MC8xNkIzNzQ4""#, "0/16B3748");
        let array = |kind| Kind::Array(Box::new(kind));
        check(&array(Kind::Plain), "[1, null, 3]", r#"{"1",NULL,"3"}"#);
        check(&array(Kind::Plain), r#"["x", "y\"z\\", "NULL", ""]"#, r#"{"x","y\"z\\","NULL",""}"#);
        check(&array(Kind::Plain), "[[1,2],[3,4]]", r#"{{"1","2"},{"3","4"}}"#);
        check_doubtful(&array(Kind::Plain), "[null, null]", "{NULL,NULL}", "several dimensions");
        check(&array(Kind::Date), "[20090]", r#"{"2025-01-02"}"#);
        for (kind, value) in
            [(&Kind::Bytes, "\"*\""), (&Kind::Bits(Some(2)), r#""/w==""#), (&Kind::Point, "{}"), (&array(Kind::Plain), "{}")]
        {
            assert!(text(value, kind, false).is_err(), "{value}");
        }
    }

    #[test]
    fn types_are_known_by_their_names() {
        assert_eq!(Kind::of("timestamp", 3, false), Kind::Timestamp(3));
        assert_eq!(Kind::of("mood", -1, true), Kind::Plain);
        assert_eq!(Kind::of("pg_lsn", -1, false), Kind::Unknown);
        assert_eq!(Kind::of("bit", 5, false), Kind::Bits(Some(5)));
    }

    proptest! {
        #[test]
        fn a_day_is_the_one_that_our_own_times_have(days in 0i64..80_000) {
            let at = Timestamp::from_seconds(days * 86_400);
            let number = days.to_string();
            let written = text(&number, &Kind::Date, false).unwrap().unwrap();
            prop_assert_eq!(written.text.into_owned(), at.date().to_string());
        }

        #[test]
        fn a_number_in_bytes_has_its_digits(number in any::<i64>(), scale in 0usize..25) {
            let written = with_point(&number.to_be_bytes(), scale as i32);
            let digits: String = written.chars().filter(char::is_ascii_digit).collect();
            let expected = number.unsigned_abs().to_string();
            prop_assert_eq!(digits.trim_start_matches('0'), expected.trim_start_matches('0'));
            prop_assert_eq!(written.starts_with('-'), number < 0);
            prop_assert_eq!(written.split_once('.').map_or(0, |(_, part)| part.len()), scale);
        }

        #[test]
        fn no_value_panics(value in "[\\[\\]{}\"0-9a-zA-Z:,.+=/ -]{0,40}", kind in 0usize..8) {
            let kinds = [Kind::Plain, Kind::Decimal, Kind::Bits(Some(3)), Kind::Date, Kind::Timestamp(6), Kind::Point, Kind::Hstore, Kind::Unknown];
            drop(text(&value, &kinds[kind], true));
            drop(text(&value, &Kind::Array(Box::new(kinds[kind].clone())), true));
        }
    }
}
