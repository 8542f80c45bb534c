//! A slot of the table: the claim word, and a task's bytes inline.
//!
//! Every change of a slot's word is in this file, each with the reason for its memory ordering. Deliberately absent:
//! the choice of a slot, the order of claims (lane.rs), and what the bytes mean.

use super::atomic::{AtomicU64, Ordering};
use super::word::{NOBODY, State, Word};

/// Payload words of a slot: what a page leaves after the claim word and the length. Loom follows every word by
/// itself, so there it is one.
const PAYLOAD_WORDS: usize = if cfg!(feature = "loom") { 1 } else { 510 };

const WORD_BYTES: usize = size_of::<u64>();

/// The largest payload of a slot, in bytes.
pub const PAYLOAD_MAX: usize = PAYLOAD_WORDS * WORD_BYTES;

/// One slot in shared memory, 4 KiB: a page, so that slots which are never used never become resident.
#[repr(C)]
pub(super) struct Slot {
    word: AtomicU64,
    length: AtomicU64,
    payload: [AtomicU64; PAYLOAD_WORDS],
}

#[cfg(not(feature = "loom"))]
const _: () = assert!(size_of::<Slot>() == 4096);

impl Slot {
    #[cfg(feature = "loom")]
    pub(super) fn zeroed() -> Self {
        let payload = std::array::from_fn(|_| AtomicU64::new(0));
        Self { word: AtomicU64::new(0), length: AtomicU64::new(0), payload }
    }

    /// The parts of the claim word; nothing if a peer has spoilt it.
    pub(super) fn word(&self) -> Option<Word> {
        Word::unpack(self.word.load(Ordering::Relaxed))
    }

    /// Whether this publication can still be claimed. The caller read the ticket from a ring's cell with Acquire, and
    /// the cell is stored after the word, so an older word cannot be seen: 'no' means claimed or withdrawn for good.
    pub(super) fn is_ready(&self, generation: u64) -> bool {
        self.word.load(Ordering::Relaxed) == Word { state: State::Ready, generation }.pack()
    }

    /// Supervisor: fills the slot, which must be free, and makes it ready. Bytes beyond [`PAYLOAD_MAX`] are dropped;
    /// the producer has refused them before.
    pub(super) fn fill(&self, generation: u64, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(PAYLOAD_MAX)];
        let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
        let mut cells = self.payload.iter();
        for (chunk, cell) in whole.iter().zip(&mut cells) {
            cell.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
        if let (false, Some(cell)) = (rest.is_empty(), cells.next()) {
            let mut last = [0; WORD_BYTES];
            last[..rest.len()].copy_from_slice(rest);
            cell.store(u64::from_ne_bytes(last), Ordering::Relaxed);
        }
        self.length.store(bytes.len() as u64, Ordering::Relaxed);
        // Release: partner is the Acquire in `claim`. Who claims this generation sees its payload. The cell that carries
        // the ticket is such a pair too; this one makes the slot right by itself, whatever way a ticket takes.
        self.word.store(Word { state: State::Ready, generation }.pack(), Ordering::Release);
    }

    /// Worker: the claim. True for exactly one caller per generation, and then never for `retract`.
    pub(super) fn claim(&self, generation: u64, row: u16) -> bool {
        let ready = Word { state: State::Ready, generation }.pack();
        let claimed = Word { state: State::Claimed { row }, generation }.pack();
        // Acquire: partner is the Release in `fill`. No Release is needed, for the claimer has written nothing yet that
        // anybody would read through this word.
        self.word.compare_exchange(ready, claimed, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Worker: copies the payload of a slot that it has claimed. The slot is not refilled before the worker's report
    /// or death has reached the supervisor, so the words hold still although each is read alone.
    pub(super) fn read(&self, into: &mut Vec<u8>) {
        let length = usize::try_from(self.length.load(Ordering::Relaxed)).unwrap_or(usize::MAX).min(PAYLOAD_MAX);
        // Only growing writes zeros; a buffer that is used again is overwritten in place.
        into.resize(length.next_multiple_of(WORD_BYTES), 0);
        let (chunks, _) = into.as_chunks_mut::<WORD_BYTES>();
        for (chunk, cell) in chunks.iter_mut().zip(&self.payload) {
            *chunk = cell.load(Ordering::Relaxed).to_ne_bytes();
        }
        into.truncate(length);
    }

    /// Supervisor: takes a ready slot back. False if a worker was first. Relaxed, because success hands no data over:
    /// nobody has looked at the payload, and the next `fill` publishes its own.
    pub(super) fn retract(&self, generation: u64) -> bool {
        let ready = Word { state: State::Ready, generation }.pack();
        let free = Word { state: State::Free, generation }.pack();
        self.word.compare_exchange(ready, free, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Supervisor: frees a claimed slot, whoever holds it. False if it is not claimed in this generation. Relaxed:
    /// what orders the holder's last read before the next `fill` is the kernel, which has delivered the holder's
    /// report or its death.
    pub(super) fn release(&self, generation: u64) -> bool {
        match self.claimed_by(generation) {
            Some(_) => {
                self.word.store(Word { state: State::Free, generation }.pack(), Ordering::Relaxed);
                true
            }
            None => false,
        }
    }

    /// Supervisor: moves a slot claimed by the dead worker `row` to [`NOBODY`]. False if that worker does not hold it.
    pub(super) fn orphan(&self, generation: u64, row: u16) -> bool {
        if self.claimed_by(generation) != Some(row) {
            return false;
        }
        self.word.store(Word { state: State::Claimed { row: NOBODY }, generation }.pack(), Ordering::Relaxed);
        true
    }

    /// Who has claimed this generation. Only the supervisor changes a claimed word, so it may act on the answer with
    /// a plain store.
    pub(super) fn claimed_by(&self, generation: u64) -> Option<u16> {
        let word = self.word()?;
        match word.state {
            State::Claimed { row } if word.generation == generation => Some(row),
            State::Claimed { .. } | State::Free | State::Ready => None,
        }
    }
}
