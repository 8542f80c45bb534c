//! The claim word and the ticket: pure packing of one `u64` into its parts and back.
//!
//! The word is the whole truth about who owns a slot, so a claim is one compare-and-swap on it. Owned by the claim
//! table; deliberately absent: atomics, memory, and any rule about which change of state is allowed when.
//!
//! | bits   | word                                   | packed ticket |
//! |--------|----------------------------------------|---------------|
//! | 0..40  | generation                             | generation    |
//! | 40..56 | worker's row, only while claimed       | slot          |
//! | 56..62 | zero                                   | slot          |
//! | 62..64 | state: 0 free, 1 ready, 2 claimed      | slot          |
//!
//! Zero is a free slot of generation zero, and zero is no ticket, so a fresh memfd needs no initialising.

use serde::{Deserialize, Serialize};

/// How many bits a generation has. At a million publications per second through one single slot it repeats after
/// twelve days; a stale ticket lives for the length of one task, so it can only be confused with a successor that is
/// exactly 2^40 publications younger.
const GENERATION_BITS: u32 = 40;
const ROW_SHIFT: u32 = GENERATION_BITS;
const STATE_SHIFT: u32 = 62;

/// The largest generation.
pub const GENERATION_MAX: u64 = (1 << GENERATION_BITS) - 1;

/// How many slots a ticket can name.
pub const SLOT_LIMIT: u32 = 1 << (64 - GENERATION_BITS);

/// The row that stands for nobody: the slots of a dead worker are moved to it, so that its row can be used anew.
pub const NOBODY: u16 = u16::MAX;

/// What may be done with a slot, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is in it. Only the supervisor may fill it.
    Free,
    /// It holds a task that any worker may claim and the supervisor may retract.
    Ready,
    /// The worker with this row has it. Only the supervisor may free it.
    Claimed {
        /// The worker's row, or [`NOBODY`] after that worker's death.
        row: u16,
    },
}

/// The parts of a claim word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// What may be done with the slot.
    pub state: State,
    /// Which publication of the slot this is; at most [`GENERATION_MAX`].
    pub generation: u64,
}

impl Word {
    /// The word as stored. Bits of the generation beyond its width are dropped.
    pub fn pack(self) -> u64 {
        let (state, row) = match self.state {
            State::Free => (0, 0),
            State::Ready => (1, 0),
            State::Claimed { row } => (2, u64::from(row)),
        };
        state << STATE_SHIFT | row << ROW_SHIFT | self.generation & GENERATION_MAX
    }

    /// The parts of a stored word; nothing if no word packs to this value.
    pub fn unpack(bits: u64) -> Option<Self> {
        // The row's bits are cut out exactly; any bit between row and state makes the repacked value differ.
        let row = (bits >> ROW_SHIFT & u64::from(u16::MAX)) as u16;
        let state = match bits >> STATE_SHIFT {
            0 => State::Free,
            1 => State::Ready,
            2 => State::Claimed { row },
            3.. => return None,
        };
        let word = Self { state, generation: bits & GENERATION_MAX };
        (word.pack() == bits).then_some(word)
    }
}

/// Names one publication of one slot. It travels in every report; one of an older generation is stale and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket {
    /// The slot's index.
    pub slot: u32,
    /// The slot's generation, `1..=GENERATION_MAX`.
    pub generation: u64,
}

impl Ticket {
    /// The ticket as stored in a ring's cell or a worker's row. Bits beyond a field's width are dropped.
    pub fn pack(self) -> u64 {
        u64::from(self.slot) << GENERATION_BITS | self.generation & GENERATION_MAX
    }

    /// The ticket with this stored value; nothing if its generation is zero, which is never issued.
    pub fn unpack(bits: u64) -> Option<Self> {
        let ticket = Self { slot: (bits >> GENERATION_BITS) as u32, generation: bits & GENERATION_MAX };
        (ticket.generation != 0).then_some(ticket)
    }
}

/// The generation after this one. Zero is left out when it wraps, because it marks 'no ticket'.
pub fn next_generation(generation: u64) -> u64 {
    if generation >= GENERATION_MAX { 1 } else { generation + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words() -> impl Strategy<Value = Word> {
        let state =
            prop_oneof![Just(State::Free), Just(State::Ready), any::<u16>().prop_map(|row| State::Claimed { row })];
        (state, 0..=GENERATION_MAX).prop_map(|(state, generation)| Word { state, generation })
    }

    proptest! {
        #[test]
        fn a_word_survives_packing(word in words()) {
            prop_assert_eq!(Word::unpack(word.pack()), Some(word));
        }

        #[test]
        fn two_words_never_share_a_value(a in words(), b in words()) {
            prop_assert_eq!(a == b, a.pack() == b.pack());
        }

        #[test]
        fn any_value_is_a_word_that_packs_to_it_or_is_refused(bits in any::<u64>()) {
            if let Some(word) = Word::unpack(bits) {
                prop_assert_eq!(word.pack(), bits);
            }
        }

        #[test]
        fn too_large_a_generation_spoils_no_other_part(word in words(), extra in any::<u64>()) {
            let wide = Word { generation: word.generation | extra << GENERATION_BITS, ..word };
            prop_assert_eq!(Word::unpack(wide.pack()), Some(word));
        }

        #[test]
        fn a_ticket_survives_packing(slot in 0..SLOT_LIMIT, generation in 1..=GENERATION_MAX) {
            let ticket = Ticket { slot, generation };
            prop_assert_eq!(Ticket::unpack(ticket.pack()), Some(ticket));
        }
    }

    #[test]
    fn zero_is_a_free_slot_and_no_ticket() {
        assert_eq!(Word::unpack(0), Some(Word { state: State::Free, generation: 0 }));
        assert_eq!(Ticket::unpack(0), None);
    }

    #[test]
    fn generations_wrap_past_zero() {
        assert_eq!(next_generation(0), 1);
        assert_eq!(next_generation(GENERATION_MAX), 1);
    }
}
