//! How people name a task: by its whole id, by a prefix of it that is unique, by its number, or by the name it was
//! given.
//!
//! A ULID of our time always starts with '0', so a token of digits that does not is a number. Whatever can be no id,
//! prefix or number is a name, and so is what follows `name:`. Pure text and arithmetic; deliberately absent: looking
//! anything up, which is the queue's part.

use std::fmt;
use std::str::FromStr;

use acode_worker::task::TaskId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Characters of a ULID.
const LENGTH: usize = 26;
/// Bits that one character of Crockford's base 32 stands for.
const BITS: u32 = 5;

/// Why a token names no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no task's number, no beginning of an id and no name")]
pub struct TaskRefError(pub String);

/// A task as somebody named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TaskRef {
    /// By its whole id.
    Id(TaskId),
    /// By its sequence number.
    Number(u64),
    /// By the beginning of its id: 1 to 25 characters, as they were written, since it may turn out to be a name.
    Prefix(String),
    /// By the name that it was given; the youngest of those that have it.
    Name(String),
}

impl TaskRef {
    /// What stands before a name that could be taken for something else.
    const NAMED: &'static str = "name:";

    /// The first and the last id that this fits, both included; `None` for a number, which says nothing about the id's
    /// upper bits, and for a name.
    pub fn range(&self) -> Option<(TaskId, TaskId)> {
        match self {
            Self::Id(id) => Some((*id, *id)),
            Self::Number(_) | Self::Name(_) => None,
            Self::Prefix(prefix) => {
                let free = BITS * u32::try_from(LENGTH.saturating_sub(prefix.len())).unwrap_or(0);
                let value = prefix.bytes().try_fold(0_u128, |value, c| Some(value << BITS | u128::from(digit(c)?)))?;
                let low = value.checked_shl(free).unwrap_or(0);
                let high = low | 1_u128.checked_shl(free).map_or(u128::MAX, |bit| bit - 1);
                Some((TaskId::from_u128(low), TaskId::from_u128(high)))
            }
        }
    }
}

/// The value of a character of Crockford's base 32 in either case; none for I, L, O and U, which it leaves out.
fn digit(character: u8) -> Option<u8> {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let upper = character.to_ascii_uppercase();
    ALPHABET.iter().position(|c| *c == upper).and_then(|at| u8::try_from(at).ok())
}

impl From<TaskId> for TaskRef {
    fn from(id: TaskId) -> Self {
        Self::Id(id)
    }
}

impl FromStr for TaskRef {
    type Err = TaskRefError;

    fn from_str(text: &str) -> Result<Self, TaskRefError> {
        let name = text.strip_prefix(Self::NAMED);
        let Some(first) = name.unwrap_or(text).bytes().next() else { return Err(TaskRefError(text.to_owned())) };
        if let Some(name) = name {
            return Ok(Self::Name(name.to_owned()));
        }
        let named = || Self::Name(text.to_owned());
        if first != b'0' && text.bytes().all(|c| c.is_ascii_digit()) && text.len() < LENGTH {
            let number = text.parse().ok().filter(|number| *number <= TaskId::SEQ_MAX);
            return Ok(number.map_or_else(named, Self::Number));
        }
        // The first of the 26 characters carries three bits only.
        if text.len() > LENGTH || digit(first).is_none_or(|d| d > 7) || text.bytes().any(|c| digit(c).is_none()) {
            return Ok(named());
        }
        if text.len() == LENGTH {
            return Ok(text.to_ascii_uppercase().parse().map_or_else(|_| named(), Self::Id));
        }
        Ok(Self::Prefix(text.to_owned()))
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => fmt::Display::fmt(id, f),
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::Prefix(prefix) => f.pad(prefix),
            Self::Name(name) => write!(f, "{}{name}", Self::NAMED),
        }
    }
}

impl Serialize for TaskRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id(id) => id.serialize(serializer),
            Self::Number(number) => serializer.collect_str(number),
            Self::Prefix(prefix) => serializer.serialize_str(prefix),
            Self::Name(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for TaskRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_a_number_unless_they_begin_with_zero() {
        assert_eq!("42".parse(), Ok(TaskRef::Number(42)));
        assert_eq!("042".parse(), Ok(TaskRef::Prefix("042".into())));
        assert_eq!("0".parse(), Ok(TaskRef::Prefix("0".into())));
        assert_eq!("01k".parse(), Ok(TaskRef::Prefix("01k".into())));
    }

    #[test]
    fn whatever_is_no_id_and_no_number_is_a_name() {
        for text in ["hello", "0U", "-1", "01K X", "8ZZ", "99999999999999999999", "é", "0123456789ABCDEFGHJKMNPQRSTV"]
        {
            assert_eq!(text.parse(), Ok(TaskRef::Name(text.into())), "{text}");
        }
        assert_eq!("name:42".parse(), Ok(TaskRef::Name("42".into())));
        for text in ["", "name:"] {
            assert_eq!(text.parse::<TaskRef>(), Err(TaskRefError(text.into())));
        }
    }

    proptest! {
        #[test]
        fn a_prefix_covers_its_id_and_names_it_in_either_case(
            millis in 0_u64..1 << 47, queue in 0_u64..1 << 40, seq in 0_u64..1 << 40, length in 1_usize..26,
        ) {
            let id = TaskId::new(millis, queue, seq);
            let text = id.to_string();
            prop_assert_eq!(text.to_lowercase().parse::<TaskRef>(), Ok(TaskRef::Id(id)));
            // A ULID of our centuries begins with '0'; a later one of digits only would read as a number.
            prop_assume!(text.starts_with('0'));
            let prefix: TaskRef = text[..length].to_lowercase().parse().unwrap();
            let (low, high) = prefix.range().unwrap();
            prop_assert!(low <= id && id <= high);
            prop_assert_eq!(prefix.to_string(), text[..length].to_lowercase());
            prop_assert_eq!(&low.to_string()[..length], &text[..length]);
            prop_assert_eq!(&high.to_string()[..length], &text[..length]);
            prop_assert_eq!(low.to_string()[length..].bytes().all(|c| c == b'0'), true);
            prop_assert_eq!(high.to_string()[length..].bytes().all(|c| c == b'Z'), true);
        }

        #[test]
        fn any_text_but_none_names_something_and_survives_being_written(text in ".{1,40}") {
            if text != "name:" {
                let name: TaskRef = text.parse().unwrap();
                prop_assert_eq!(name.to_string().parse::<TaskRef>().unwrap(), name);
            }
        }
    }
}
