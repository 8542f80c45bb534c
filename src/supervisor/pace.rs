//! How fast the pool works its tasks off, and so for how long a batch may be kept open without the workers running dry.
//!
//! Reports do not wake the loop while a batch is open, so nobody sees how the supply in the table shrinks: it is worked out
//! from the ends of the batches before. Pure. Deliberately absent: the batch itself, which is the ledger's.

use super::desk::{WIDE, WINDOW};
use super::ledger::LINGER_NS;

/// By how much the time for a task grows at most from one batch to the next: what was a pause says little about what comes.
const GROWTH: f64 = 1.25;
/// How much of it is what the last batch says.
const SHARE: f64 = 0.25;

/// For so long what is published ahead shall last, in nanoseconds: a large commit, and reading a large submission beside it.
const AHEAD_NS: f64 = 30e6;

/// How long the pool takes for a task, all workers together.
#[derive(Debug)]
pub struct Pace {
    /// In nanoseconds.
    task_ns: f64,
    /// When the last batch with an end in it was committed, in nanoseconds of the monotonic clock.
    committed_ns: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { task_ns: LINGER_NS as f64, committed_ns: 0 }
    }
}

impl Pace {
    /// Notes a commit with so many ends.
    pub fn committed(&mut self, now_ns: u64, ended: usize) {
        if ended > 0 {
            let each_ns = now_ns.saturating_sub(self.committed_ns) as f64 / ended as f64;
            let mixed = self.task_ns * (1.0 - SHARE) + each_ns * SHARE;
            self.task_ns = mixed.clamp(1.0, (self.task_ns * GROWTH).min(LINGER_NS as f64));
            self.committed_ns = now_ns;
        }
    }

    /// How many tasks of a lane are published ahead.
    pub fn ahead(&self) -> usize {
        ((AHEAD_NS / self.task_ns) as usize).clamp(WINDOW, WIDE)
    }

    /// For how long a batch may be kept open beside so many tasks that lie ready: until they are gone, or until half of them
    /// are if there is more to be published, which takes its time.
    pub fn linger_ns(&self, supply: usize, more: bool) -> u64 {
        let tasks = if more { supply / 2 } else { supply };
        ((self.task_ns * tasks as f64) as u64).min(LINGER_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many batches with one end in each so many nanoseconds.
    fn paced(each_ns: u64) -> Pace {
        let mut pace = Pace::default();
        (1..=100).for_each(|batch| pace.committed(batch * 100 * each_ns, 100));
        pace
    }

    #[test]
    fn slow_tasks_leave_a_batch_its_whole_time_and_fast_ones_half_of_their_supply() {
        assert_eq!(Pace::default().linger_ns(2, true), LINGER_NS);
        assert_eq!(paced(250_000).linger_ns(512, true), LINGER_NS);
        let fast = paced(20_000);
        assert!((5_000_000..5_300_000).contains(&fast.linger_ns(512, true)), "{fast:?}");
        assert!((10_000_000..10_600_000).contains(&fast.linger_ns(512, false)), "{fast:?}");
        assert_eq!(fast.linger_ns(0, true), 0);
    }

    #[test]
    fn the_shorter_the_tasks_the_more_are_published_ahead() {
        assert_eq!([250_000, 1_000].map(|each_ns| paced(each_ns).ahead()), [WINDOW, WIDE]);
        assert!((1_400..=1_500).contains(&paced(20_000).ahead()), "{:?}", paced(20_000));
        assert_eq!(Pace::default().ahead(), WINDOW);
    }

    #[test]
    fn a_pause_is_not_taken_for_slowness() {
        let mut pace = paced(20_000);
        let before = pace.linger_ns(512, true);
        pace.committed(3_600_000_000_000, 1);
        assert!(pace.linger_ns(512, true) <= before * 13 / 10);
        pace.committed(3_600_000_000_001, 0);
        assert!(pace.linger_ns(512, true) <= before * 13 / 10);
    }
}
