//! Parsers for single values of options. Pure, but for the clock that 'ten minutes ago' needs.

use std::time::Duration;

use acode_worker::task::{ExitCodes, Retries};

use crate::taskfile::{DurationError, parse_duration, parse_moment, split_command};
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

/// A size with its unit, in bytes: 64K, 512M, 2G, 1T; the units are powers of 1024, and may end in B or iB.
pub fn bytes(text: &str) -> Result<u64, String> {
    let refused = || "a size with its unit is expected, as in 512M or 2G".to_owned();
    let lower = text.trim().to_ascii_lowercase();
    let short = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let unit = short.chars().last().and_then(|unit| "kmgt".find(unit)).ok_or_else(refused)?;
    let number: f64 = short[..short.len() - 1].trim().parse().map_err(|_| refused())?;
    let bytes = number * 1024_f64.powi(unit as i32 + 1);
    // Up to the largest number that a size is given in without rounding.
    if (1.0..=(1_u64 << 53) as f64).contains(&bytes) { Ok(bytes.round() as u64) } else { Err(refused()) }
}

/// A size in MiB, rounded up.
pub fn mebibytes(text: &str) -> Result<u64, String> {
    bytes(text).map(|bytes| bytes.div_ceil(1 << 20))
}

/// A size in MiB, or 0.
pub fn mebibytes_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { mebibytes(text) }
}

/// `K=V`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("K=V is expected".into()),
    }
}

/// Program and arguments in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine(pub Vec<String>);

/// A command, split into words as a shell would without running one.
pub fn command(text: &str) -> Result<CommandLine, String> {
    match split_command(text) {
        None => Err("a quote is not closed".into()),
        Some(words) if words.first().is_none_or(String::is_empty) => Err("there is no program in it".into()),
        Some(words) => Ok(CommandLine(words)),
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

/// `G=N`: a group and its limit.
pub fn limit(text: &str) -> Result<(String, u32), String> {
    match text.split_once('=').map(|(group, max)| (group, max.parse())) {
        Some((group, Ok(max))) if !group.is_empty() => Ok((group.to_owned(), max)),
        Some(_) | None => Err("G=N is expected, as in encode=2".into()),
    }
}

/// A limit that may be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupLimit {
    /// So many.
    Max(u32),
    /// As many as there are.
    None,
}

/// A number, or `none`.
pub fn group_limit(text: &str) -> Result<GroupLimit, String> {
    match (text, text.parse()) {
        ("none", _) => Ok(GroupLimit::None),
        (_, Ok(max)) => Ok(GroupLimit::Max(max)),
        (_, Err(_)) => Err("a number or none is expected".into()),
    }
}

/// A moment, in whatever time zone or in the local one; or how long it is until then.
pub fn moment(text: &str) -> Result<Stamp, String> {
    if let Ok(until) = parse_duration(text) {
        let micros = i64::try_from(until.as_micros()).unwrap_or(i64::MAX);
        return Ok(Stamp::from_micros(Stamp::now().micros().saturating_add(micros)));
    }
    parse_moment(text).map(Stamp::from).map_err(|error| error.to_string())
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
    fn a_size_has_a_unit_and_is_rounded_up() {
        assert_eq!((bytes("64K"), bytes("1.5G"), bytes("2MiB")), (Ok(65_536), Ok(3 << 29), Ok(2 << 20)));
        assert_eq!((mebibytes("512M"), mebibytes("1K"), mebibytes("2g")), (Ok(512), Ok(1), Ok(2_048)));
        assert_eq!((mebibytes_or_none("0"), mebibytes_or_none("1M")), (Ok(0), Ok(1)));
        for text in ["512", "", "M", "-1M", "0M", "xG", "nanM", "99999999T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pair_needs_a_name_and_may_hold_further_signs() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }

    #[test]
    fn a_command_is_split_into_words_and_has_a_program() {
        assert_eq!(command("tell 'it is' done"), Ok(CommandLine(["tell", "it is", "done"].map(String::from).to_vec())));
        assert!(command("").is_err() && command("''").is_err() && command("a 'b").is_err());
    }

    #[test]
    fn a_place_is_a_number_or_a_moment() {
        assert_eq!(place("42"), Ok(Place::After(42)));
        assert_eq!(place("1970-01-01T00:00:01Z"), Ok(Place::From(Stamp::from_micros(1_000_000))));
        assert!(matches!(place("42s"), Ok(Place::From(_))));
        assert!(place("").is_err() && place("-1").is_err() && place("99999999999999999999").is_err());
    }

    #[test]
    fn a_limit_is_a_group_and_a_number() {
        assert_eq!(limit("encode=2"), Ok(("encode".into(), 2)));
        for text in ["encode", "=2", "encode=", "encode=two", "encode=-1"] {
            assert!(limit(text).is_err(), "{text}");
        }
        assert_eq!((group_limit("none"), group_limit("3")), (Ok(GroupLimit::None), Ok(GroupLimit::Max(3))));
        assert!(group_limit("all").is_err());
    }

    #[test]
    fn a_moment_is_a_time_or_a_while_from_now() {
        assert_eq!(moment("1970-01-01T00:00:01Z").map(Stamp::micros), Ok(1_000_000));
        assert!(moment("10m").unwrap() > Stamp::now());
        let local = moment("2026-11-21 06:30").unwrap();
        assert_eq!(local, moment("2026-11-21T06:30:00").unwrap());
        assert!(moment("tomorrow").is_err());
    }

    #[test]
    fn since_is_a_moment_or_a_while_ago() {
        assert_eq!(since("1970-01-01T00:00:01Z").map(Stamp::micros), Ok(1_000_000));
        assert!(since("10m").unwrap() < Stamp::now());
        assert!(since("yesterday").is_err() && timeout("0").is_err());
    }
}
