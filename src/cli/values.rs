//! Parsers for single values of options. Pure, but for the clock that 'ten minutes ago' needs.

use std::time::Duration;

use crate::taskfile::{DurationError, parse_duration};
use crate::wire::Stamp;

/// A duration: 30s, 5m, 1h, 500ms, or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    parse_duration(text)
}

/// A duration that is not nothing.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        Err("no task can end in no time: leave the option out for no timeout".into())
    } else {
        Ok(duration)
    }
}

/// `K=V`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("K=V is expected".into()),
    }
}

/// `A-B`: both ends included.
pub fn range(text: &str) -> Result<(u64, u64), String> {
    let ends = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match ends {
        Some((first, last)) if first <= last => Ok((first, last)),
        Some(_) => Err("the first number is larger than the last".into()),
        None => Err("A-B is expected, as in 1-100".into()),
    }
}

/// A moment, or how long ago it was.
pub fn since(text: &str) -> Result<Stamp, String> {
    if let Ok(ago) = parse_duration(text) {
        let micros = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        return Ok(Stamp::from_micros(Stamp::now().micros().saturating_sub(micros)));
    }
    text.parse().map_err(|_| "a time as in 2026-11-21T06:30:00Z is expected, or how long ago, as in 10m".into())
}

/// A place among the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// After the event with this number.
    After(u64),
    /// From this moment on.
    From(Stamp),
}

/// The number of an event, a moment, or how long ago it was. A number without a unit is an event's.
pub fn place(text: &str) -> Result<Place, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Place::After).map_err(|_| "no event has so large a number".to_owned());
    }
    since(text).map(Place::From).map_err(|why| format!("the number of an event, or {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_both_ends_and_run_upwards() {
        assert_eq!(range("1-3"), Ok((1, 3)));
        assert_eq!(range("7-7"), Ok((7, 7)));
        for text in ["3-1", "5", "-5", "a-b", "1-", ""] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pair_needs_a_name_and_may_hold_further_signs() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }

    #[test]
    fn a_place_is_a_number_or_a_moment() {
        assert_eq!(place("42"), Ok(Place::After(42)));
        assert_eq!(place("1970-01-01T00:00:01Z"), Ok(Place::From(Stamp::from_micros(1_000_000))));
        assert!(matches!(place("42s"), Ok(Place::From(_))));
        assert!(place("").is_err() && place("-1").is_err() && place("99999999999999999999").is_err());
    }

    #[test]
    fn since_is_a_moment_or_a_while_ago() {
        assert_eq!(since("1970-01-01T00:00:01Z").map(Stamp::micros), Ok(1_000_000));
        assert!(since("10m").unwrap() < Stamp::now());
        assert!(since("yesterday").is_err() && timeout("0").is_err());
    }
}
