//! Ids of tasks and workers, both ULIDs.
//!
//! A task's ULID carries its place in the queue: 48 bits of submission time in milliseconds, 40 bits that are random
//! per queue, and 40 bits of sequence number. So an id sorts by submission, is unique across queues, and is found by
//! its sequence number without an index. A worker's ULID is an ordinary random one. No random generator with state is
//! used anywhere: a forked process would repeat its parent's numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

const FIELD_BITS: u32 = 40;
const FIELD_MASK: u128 = (1 << FIELD_BITS) - 1;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an id: 26 characters of Crockford's base 32 are expected")]
pub struct IdError(pub String);

/// The id of a task: a ULID whose lowest 40 bits are the task's sequence number in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u128);

impl TaskId {
    /// The largest sequence number: 2^40 - 1.
    pub const SEQ_MAX: u64 = FIELD_MASK as u64;

    /// Builds the id of the task with number `seq`, submitted at `millis` (Unix time), in the queue with tag `queue`.
    /// Bits beyond a field's width are dropped.
    pub fn new(millis: u64, queue: u64, seq: u64) -> Self {
        let time = (u128::from(millis) & ((1 << 48) - 1)) << 80;
        Self(time | (u128::from(queue) & FIELD_MASK) << FIELD_BITS | u128::from(seq) & FIELD_MASK)
    }

    /// The sequence number: the task's place in its queue, and the key of its record.
    pub fn seq(self) -> u64 {
        (self.0 & FIELD_MASK) as u64
    }

    /// When the task was submitted, in milliseconds of Unix time.
    pub fn millis(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// The random tag of the queue that made this id.
    pub fn queue(self) -> u64 {
        (self.0 >> FIELD_BITS & FIELD_MASK) as u64
    }

    /// The whole value.
    pub fn to_u128(self) -> u128 {
        self.0
    }

    /// The id with this value.
    pub fn from_u128(value: u128) -> Self {
        Self(value)
    }
}

/// The id of a worker: a random ULID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(u128);

impl WorkerId {
    /// Makes a new id from `millis` (Unix time) and the kernel's random bytes.
    ///
    /// # Errors
    /// The kernel has no random bytes to give (never, after early boot).
    pub fn generate(millis: u64) -> std::io::Result<Self> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random[6..]).map_err(std::io::Error::other)?;
        random[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        Ok(Self(u128::from_be_bytes(random)))
    }

    /// The whole value.
    pub fn to_u128(self) -> u128 {
        self.0
    }

    /// The id with this value.
    pub fn from_u128(value: u128) -> Self {
        Self(value)
    }
}

macro_rules! ulid_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = [0_u8; ulid::ULID_LEN];
                f.pad(Ulid(self.0).array_to_str(&mut buffer))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Ulid::from_string(text).map(|u| Self(u.0)).map_err(|_| IdError(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let mut buffer = [0_u8; ulid::ULID_LEN];
                s.serialize_str(Ulid(self.0).array_to_str(&mut buffer))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

ulid_text!(TaskId);
ulid_text!(WorkerId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_carries_time_queue_and_number_and_survives_text() {
        let id = TaskId::new(1_700_000_000_123, 0xAB_CDEF_0123, 42);
        assert_eq!((id.millis(), id.queue(), id.seq()), (1_700_000_000_123, 0xAB_CDEF_0123, 42));
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text.parse::<TaskId>(), Ok(id));
    }

    #[test]
    fn ids_sort_by_submission() {
        assert!(TaskId::new(5, 1, 9) < TaskId::new(6, 1, 1));
        assert!(TaskId::new(5, 1, 1).to_string() < TaskId::new(5, 1, 2).to_string());
    }

    #[test]
    fn worker_ids_differ_and_carry_their_time() {
        let (a, b) = (WorkerId::generate(7).unwrap(), WorkerId::generate(7).unwrap());
        assert_ne!(a, b);
        assert_eq!(a.to_u128() >> 80, 7);
    }

    #[test]
    fn a_bad_id_is_refused_with_its_text() {
        assert_eq!("hello".parse::<TaskId>(), Err(IdError("hello".into())));
    }
}
