//! SplitMix64: a small generator of numbers that are the same everywhere (Steele, Lea, Flood: 'Fast splittable
//! pseudorandom number generators', 2014). The manual has it in Python.
//!
//! Deliberately absent: any use for secrets.

/// The generator.
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number; each of 64 bits is as often set as not.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
