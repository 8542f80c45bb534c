//! Numbers in cells: whole ones of 64 bits exactly, all others as floating point.
//!
//! Deliberately absent: text that is nearly a number, such as one with thousands' separators.

use std::cmp::Ordering;

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// A whole one.
    Whole(i64),
    /// Another, never infinite.
    Real(f64),
}

/// From here on a whole number in floating point is not written as one.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Number {
    /// The number that a text is, spaces around it aside.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        // Most texts are told by their first byte.
        let first = *text.as_bytes().first()?;
        if !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.')) {
            return None;
        }
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        text.parse().ok().filter(|real: &f64| real.is_finite()).map(Self::Real)
    }

    /// As floating point.
    pub(crate) fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }

    /// A result in floating point; none if it is infinite or no number.
    pub(crate) fn from_real(real: f64) -> Option<Self> {
        real.is_finite().then_some(Self::Real(real))
    }

    /// Its text, which is JSON.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Whole(whole) => whole.to_string(),
            Self::Real(real) if real == real.trunc() && real.abs() < EXACT => (real as i64).to_string(),
            // Not all that Rust writes is JSON; what serde writes is.
            Self::Real(real) => serde_json::to_string(&real).unwrap_or_default(),
        }
    }

    /// Which one is larger, to the last digit.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        self.sort_key().cmp(&other.sort_key())
    }

    /// 16 bytes that are ordered as numbers are: the floating point, then what it leaves out of a whole number.
    pub(crate) fn sort_key(self) -> [u8; 16] {
        const SIGN: u64 = 1 << 63;
        // 0 and -0 are one number.
        let real = self.real() + 0.0;
        let rest = match self {
            Self::Whole(whole) => (i128::from(whole) - real as i128) as i64,
            Self::Real(_) => 0,
        };
        let bits = real.to_bits();
        let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
        let mut key = [0; 16];
        key[..8].copy_from_slice(&ordered.to_be_bytes());
        key[8..].copy_from_slice(&((rest as u64) ^ SIGN).to_be_bytes());
        key
    }
}

/// Whether this is a number as JSON writes it.
pub(super) fn is_json(text: &str) -> bool {
    let digits = |text: &mut &[u8]| {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        *text = &text[count..];
        count > 0
    };
    let mut rest = text.strip_prefix('-').unwrap_or(text).as_bytes();
    if rest.starts_with(b"0") && rest.get(1).is_some_and(u8::is_ascii_digit) || !digits(&mut rest) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = fraction;
        if !digits(&mut rest) {
            return false;
        }
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or(rest.strip_prefix(b"E")) {
        rest = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
        if !digits(&mut rest) {
            return false;
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_to_the_last_digit() {
        let texts =
            ["-1e300", "-9223372036854775808", "-9007199254740993", "-9007199254740992", "-1.5", "-0", "1e-300"];
        let more =
            ["0.5", "1", "9007199254740992", "9007199254740993", "9223372036854775806", "9223372036854775807", "1e19"];
        let numbers: Vec<Number> = texts.iter().chain(&more).map(|text| Number::parse(text).unwrap()).collect();
        for pair in numbers.windows(2) {
            assert_eq!(pair[0].compare(pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(Number::Whole(2).compare(Number::Real(2.0)), Ordering::Equal);
        assert_eq!(Number::parse("-0.0").unwrap().compare(Number::Whole(0)), Ordering::Equal);
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", " ", "x", "inf", "-inf", "nan", "+nan", "1e999", "1,000", "0x10", "-", "1 2"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        assert_eq!(Number::parse(" +5 "), Some(Number::Whole(5)));
        assert_eq!(Number::parse(".5"), Some(Number::Real(0.5)));
    }

    #[test]
    fn a_number_is_written_as_json_has_it() {
        for (number, text) in [
            (Number::Real(3.0), "3"),
            (Number::Real(0.1), "0.1"),
            (Number::Real(1e300), "1e+300"),
            (Number::Whole(-7), "-7"),
        ] {
            assert_eq!(number.text(), text);
            assert!(is_json(text));
        }
    }
}
