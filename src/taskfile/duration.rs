//! Durations as people write them, in task files and in flags alike.
//!
//! Deliberately absent: months and years, which have no fixed length.

use std::time::Duration;

/// The longest duration that is accepted: ten years. Longer ones are typing mistakes.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration: 30s, 5m, 1h30m, 2d, 500ms or a number of seconds is expected")]
pub struct DurationError(pub String);

/// Reads a duration: numbers with the units ms, s, m, h or d, one after the other; or one number alone, in seconds.
/// Numbers may have a fraction.
///
/// # Errors
/// It is something else, or longer than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    parse(text.trim()).filter(|duration| *duration <= DURATION_MAX).ok_or_else(|| DurationError(text.to_owned()))
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "" if number.len() == text.len() => 1.0,
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(from_seconds(number.parse::<f64>().ok()? * seconds)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// A duration of so many seconds, rounded to milliseconds: finer ones are never kept.
pub(super) fn from_seconds(seconds: f64) -> Option<Duration> {
    let millis = (seconds * 1_000.0).round();
    (0.0..=DURATION_MAX.as_millis() as f64).contains(&millis).then(|| Duration::from_millis(millis as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let millis = |text: &str| parse_duration(text).map(|duration| duration.as_millis());
        let cases = [("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("500ms", 500), ("1h30m", 5_400_000)];
        for (text, expected) in cases.into_iter().chain([("2d", 172_800_000), ("1.5", 1_500), ("7", 7_000), ("0", 0)]) {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "5 m", "-1", "1x", "1m30", "1e3", "..", "99999d", "NaN", "inf", "1h-5m"] {
            assert_eq!(millis(text), Err(DurationError(text.to_owned())));
        }
    }
}
