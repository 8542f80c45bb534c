//! What an attempt uses: counted at its end, and looked at while it runs.

use super::super::process::Tools;
use super::Settled;
use crate::sys::tree::Used;
use crate::task::{Limits, Usage};

/// The counting of one attempt.
#[derive(Debug, Default)]
pub struct Meter {}

impl Meter {
    /// Begins to count.
    pub fn begin(_tools: &mut Tools, _limits: &Limits) -> Self {
        Self {}
    }

    /// When it wants to look again.
    pub fn next_ns(&self) -> Option<u64> {
        None
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, _tools: &Tools, _now_ns: u64) {}

    /// Takes stock.
    pub fn settle(self, _tools: &Tools, used: &Used, settled: &mut Settled) {
        settled.usage = Usage {
            user_us: used.user_us,
            system_us: used.system_us,
            max_rss_bytes: used.max_rss_bytes,
            read_bytes: used.read_bytes,
            written_bytes: used.written_bytes,
            ..Usage::default()
        };
    }
}
