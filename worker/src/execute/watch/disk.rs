//! The limit of an attempt's scratch directory.

use super::super::process::Tools;
use super::{Over, Settled};
use crate::task::{Limits, Verdict};

/// The scratch directory's limit.
#[derive(Debug, Default)]
pub struct Disk {}

impl Disk {
    /// Puts the limits in place.
    pub fn begin(_tools: &mut Tools, _limits: &Limits) -> Result<Self, Verdict> {
        Ok(Self {})
    }

    /// When it wants to look again.
    pub fn next_ns(&self) -> Option<u64> {
        None
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, _tools: &Tools, _now_ns: u64) -> Option<Over> {
        None
    }

    /// Takes stock.
    pub fn settle(self, _tools: &Tools, _settled: &mut Settled) {}
}
