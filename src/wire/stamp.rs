//! A moment, as people and JSON see it: RFC 3339 in UTC with exactly six digits after the second.
//!
//! Deliberately absent: local time, which belongs to the one who looks and not to the record.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a moment.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is not a time: RFC 3339 is expected, as in 2026-11-21T06:30:00Z")]
pub struct StampError {
    text: String,
    #[source]
    source: jiff::Error,
}

/// A moment in microseconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(i64);

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

impl Stamp {
    /// The present moment, by the system's clock.
    pub fn now() -> Self {
        Self::from(Timestamp::now())
    }

    /// The moment that is `micros` microseconds of Unix time.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The moment that is `millis` milliseconds of Unix time.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Microseconds of Unix time.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// The moment as the calendar knows it. What lies outside of the years -9999 to 9999 is put at their edge.
    pub fn timestamp(self) -> Timestamp {
        let edge = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_microsecond(self.0).unwrap_or(edge)
    }
}

impl From<Timestamp> for Stamp {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp.as_microsecond())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&PRINTER.timestamp_to_string(&self.timestamp()))
    }
}

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        text.parse::<Timestamp>().map(Self::from).map_err(|source| StampError { text: text.to_owned(), source })
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&PRINTER.timestamp_to_string(&self.timestamp()))
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_always_and_back_again() {
        let stamp = Stamp::from_micros(1_700_000_000_000_000);
        assert_eq!(stamp.to_string(), "2023-11-14T22:13:20.000000Z");
        assert_eq!("2023-11-14T22:13:20.000001Z".parse::<Stamp>().unwrap().micros(), 1_700_000_000_000_001);
        assert_eq!("2023-11-14T23:13:20+01:00".parse::<Stamp>().unwrap(), stamp);
        assert_eq!(Stamp::from_millis(1_700_000_000_000), stamp);
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        assert!(Stamp::from_micros(i64::MAX).to_string().starts_with("9999-"));
        assert!(Stamp::from_micros(i64::MIN).to_string().starts_with('-'));
        assert!("yesterday".parse::<Stamp>().is_err());
    }
}
