//! Parsers for single values of options. Pure, but for the clock that 'ten minutes ago' needs.

use std::time::Duration;

use acode_worker::task::{ExitCodes, Retries};

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

/// Exit codes, separated by commas.
pub fn codes(text: &str) -> Result<ExitCodes, String> {
    let code = |part: &str| part.trim().parse::<u8>().ok();
    let codes: Option<ExitCodes> = text.split(',').map(code).collect();
    codes.ok_or_else(|| "exit codes from 0 to 255 are expected, as in 1,75".into())
}

/// A factor from 1 to 1000.
pub fn factor(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (1.0..=Retries::FACTOR_MAX).contains(number));
    number.ok_or_else(|| format!("a number from 1 to {} is expected", Retries::FACTOR_MAX))
}

/// A share from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "a number from 0 to 1 is expected".into())
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
    fn since_is_a_moment_or_a_while_ago() {
        assert_eq!(since("1970-01-01T00:00:01Z").map(Stamp::micros), Ok(1_000_000));
        assert!(since("10m").unwrap() < Stamp::now());
        assert!(since("yesterday").is_err() && timeout("0").is_err());
    }
}
