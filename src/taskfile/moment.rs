//! Moments as people write them, in task files and in flags alike.
//!
//! Deliberately absent: words such as 'tomorrow', and times without a day, which could mean two days.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a time: 2026-11-21T06:30:00Z is expected, or local time as in 2026-11-21 06:30, or a duration from now"
)]
pub struct MomentError(pub String);

/// Reads a moment: RFC 3339, or day and time without an offset, which is local time.
///
/// # Errors
/// It is something else, or a local time that there is not.
pub fn parse_moment(text: &str) -> Result<Timestamp, MomentError> {
    let text = text.trim();
    let refused = || MomentError(text.to_owned());
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    // A day alone would be a moment too, at midnight; who means that can say so.
    let local = text.parse::<DateTime>().ok().filter(|_| text.contains(':')).ok_or_else(refused)?;
    let zoned = TimeZone::system().to_zoned(local).map_err(|_| refused())?;
    Ok(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_an_offset_or_in_local_time() {
        assert_eq!(parse_moment("1970-01-01T01:00:01+01:00").unwrap().as_second(), 1);
        let local = parse_moment("2026-11-21 06:30").unwrap();
        assert_eq!(local, parse_moment("2026-11-21T06:30:00").unwrap());
        for text in ["2026-11-21", "06:30", "soon", "", "2026-13-01 00:00"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }
}
