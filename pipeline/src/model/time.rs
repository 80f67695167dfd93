//! Instants, and the only door to a clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
///
/// `T` is inclusive wherever a time is asked for: a change at `T` belongs to the state at `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest instant that RFC 3339 can write: the end of the year 9999.
    pub const MAX: Timestamp = Timestamp(253_402_207_200_000_000);
    /// The earliest instant that RFC 3339 can write with room to spare: the year 1.
    pub const MIN: Timestamp = Timestamp(-62_135_596_800_000_000);

    /// The instant so many microseconds after 1970, held within [`Timestamp::MIN`] and [`Timestamp::MAX`].
    pub const fn from_micros(micros: i64) -> Timestamp {
        if micros > Timestamp::MAX.0 {
            Timestamp::MAX
        } else if micros < Timestamp::MIN.0 {
            Timestamp::MIN
        } else {
            Timestamp(micros)
        }
    }

    /// The instant so many whole seconds after 1970.
    pub const fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// The beginning of this second.
    pub const fn floor_second(self) -> Timestamp {
        Timestamp::from_seconds(self.seconds())
    }

    /// The last microsecond of this second: what "the state at 12:00:07" includes when a source knows only seconds.
    pub const fn end_of_second(self) -> Timestamp {
        Timestamp(self.seconds() * MICROS_PER_SECOND + MICROS_PER_SECOND - 1)
    }

    /// The beginning of this hour.
    pub const fn floor_hour(self) -> Timestamp {
        Timestamp::from_seconds(self.seconds().div_euclid(3_600) * 3_600)
    }

    /// This instant moved forward.
    pub const fn plus(self, by: Duration) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_add(by.as_micros() as i64))
    }

    /// This instant moved back.
    pub const fn minus(self, by: Duration) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_sub(by.as_micros() as i64))
    }

    /// How long it is since `earlier`; nothing if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    /// Reads what a person writes: RFC 3339 with a zone, `now`, or `5m ago` (s, m, h, d, w).
    ///
    /// # Errors
    /// [`TimeError`] names the text; a bare local time is refused because nobody can say which instant it is.
    pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("now") {
            return Ok(now);
        }
        if let Some(span) = text.strip_suffix("ago") {
            return Ok(now.minus(parse_duration(span.trim())?));
        }
        // A leap second would be taken for the second before it; nobody who restores means one. An offset has the hours of a day
        // (RFC 3339, section 5.6).
        let offset = text.split_once(['T', 't']).and_then(|(_, time)| time.rsplit_once(['+', '-'])).map_or("", |(_, offset)| offset);
        if text.contains(":60") || offset.get(..2).is_some_and(|hours| hours > "23") {
            return Err(TimeError::Instant { text: text.to_owned() });
        }
        text.parse().map_err(|error| match format!("{text}Z").parse::<Timestamp>() {
            Ok(_) => TimeError::NoZone { text: text.to_owned() },
            Err(_) => error,
        })
    }

    fn civil(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).expect("held within the years 1 to 9999 on construction")
    }

    /// The UTC date, `2026-08-22`.
    pub fn date(self) -> String {
        let civil = self.civil().to_zoned(jiff::tz::TimeZone::UTC);
        format!("{:04}-{:02}-{:02}", civil.year(), civil.month(), civil.day())
    }

    /// The UTC hour of the day, 0 to 23.
    pub fn hour(self) -> u32 {
        (self.seconds().rem_euclid(86_400) / 3_600) as u32
    }
}

/// The longest length of time that is understood: ten thousand years.
const DURATION_SECONDS_MAX: u64 = 10_000 * 366 * 86_400;

/// A length of time as a person writes it: `90s`, `5m`, `2h`, `7d`, `3w`.
///
/// # Errors
/// [`TimeError::Duration`] when it is not a whole number and one of those units.
pub fn parse_duration(text: &str) -> Result<Duration, TimeError> {
    let wrong = || TimeError::Duration { text: text.to_owned() };
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (count, unit) = text.split_at(split);
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let seconds = count.checked_mul(seconds).filter(|seconds| *seconds <= DURATION_SECONDS_MAX);
    Ok(Duration::from_secs(seconds.ok_or_else(wrong)?))
}

/// A time that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Neither RFC 3339 nor one of the short forms.
    #[error("{text:?} is not a time: write RFC 3339 with a zone (2026-08-22T12:00:07Z), `now`, or `5m ago`")]
    Instant {
        /// What was written.
        text: String,
    },
    /// A date and a time of day, and nothing that says where.
    #[error("{text:?} has no zone: write {text}Z, or an offset behind it, such as +02:00")]
    NoZone {
        /// What was written.
        text: String,
    },
    /// Not a length of time.
    #[error("{text:?} is not a length of time: write a whole number and s, m, h, d or w, such as 5m")]
    Duration {
        /// What was written.
        text: String,
    },
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Timestamp, TimeError> {
        let parsed: jiff::Timestamp = text.parse().map_err(|_| TimeError::Instant { text: text.to_owned() })?;
        Ok(Timestamp::from_micros(parsed.as_microsecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.civil().fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The only way to the time of day. Hosts bring the real one, the simulation its own.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The instant it is.
    fn now(&self) -> Timestamp;
    /// How long this machine has run, counted from anywhere: nobody sets it, so that it tells whether somebody has set the clock.
    /// Of a clock that nobody can set it is the instant itself.
    fn elapsed(&self) -> Duration {
        self.now().since(Timestamp::default())
    }
    /// Comes back after `duration` of this clock.
    async fn sleep(&self, duration: Duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text, Timestamp::from_seconds(1_000_000_000)).expect(text)
    }

    #[test]
    fn people_write_times_in_three_ways() {
        assert_eq!(at("now").seconds(), 1_000_000_000);
        assert_eq!(at("5m ago").seconds(), 1_000_000_000 - 300);
        assert_eq!(at("2026-08-22T12:00:07.5+02:00").to_string(), "2026-08-22T10:00:07.5Z");
    }

    #[test]
    fn a_bare_local_time_is_refused_because_it_names_no_instant() {
        let error = Timestamp::parse("2026-08-22T12:00:07", Timestamp::default()).unwrap_err();
        assert!(error.to_string().contains("has no zone: write 2026-08-22T12:00:07Z"), "{error}");
    }

    #[test]
    fn a_sixtieth_second_is_a_typing_error() {
        assert!(Timestamp::parse("2026-08-22T12:00:60Z", Timestamp::default()).is_err());
    }

    #[test]
    fn an_offset_of_a_day_or_more_is_a_typing_error() {
        for offset in ["+24:00", "-25:00"] {
            let error = Timestamp::parse(&format!("2026-08-22T12:00:07{offset}"), Timestamp::default()).unwrap_err();
            assert!(error.to_string().contains("is not a time"), "{error}");
        }
        assert_eq!(at("2026-08-22T12:00:07+14:00").to_string(), "2026-08-21T22:00:07Z");
    }

    #[test]
    fn whatever_is_read_can_be_written_and_read_again() {
        for micros in [0, -1, 1, 999_999, 1_787_400_007_000_001, i64::MAX, i64::MIN] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(time.to_string().parse(), Ok(time), "{micros}");
        }
    }

    #[test]
    fn a_length_of_time_that_nobody_can_mean_is_refused() {
        let far = [format!("{}s", u64::MAX), "288230376151711804s".to_owned(), "999999999w".to_owned()];
        assert!(far.iter().all(|text| parse_duration(text).is_err()));
        assert_eq!(parse_duration("520w").map(|duration| duration.as_secs()), Ok(520 * 604_800));
    }

    #[test]
    fn dates_and_hours_are_utc_before_and_after_1970() {
        let time: Timestamp = "1969-12-31T23:30:00Z".parse().unwrap();
        assert_eq!((time.date().as_str(), time.hour()), ("1969-12-31", 23));
    }
}
