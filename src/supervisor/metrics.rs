//! What the pool has done since it started, in numbers: counters, histograms of fixed buckets, and a sliding rate. Pure.
//!
//! Fed where ends and starts are followed anyway: an observation is a few additions, without a row, a call of the kernel
//! or an allocation. Deliberately absent: the clock, how the numbers look (`exposition`), and everything that can be
//! asked of the queue or the table at the moment it is wanted.

use std::collections::BTreeMap;

use acode_worker::task::{TaskState, Usage, Verdict};

use super::desk::Phase;
use super::judge::Next;
use crate::store::Counts;

/// Upper bounds of the buckets for times of tasks, in microseconds: from half a millisecond to a day.
pub const TASK_BOUNDS_US: [u64; 23] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
    21_600_000_000,
    86_400_000_000,
];
/// Upper bounds of the buckets for times of commits, in microseconds.
pub const COMMIT_BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];
/// Seconds over which the rate of ends is taken.
const RATE_SECONDS: usize = 60;
const SECOND_NS: u64 = 1_000_000_000;

/// How often times fell into which bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    bounds_us: &'static [u64; N],
    counts: [u64; N],
    /// Those above the last bound.
    beyond: u64,
    sum_us: u64,
}

impl<const N: usize> Histogram<N> {
    /// An empty one with these upper bounds, ascending.
    pub fn new(bounds_us: &'static [u64; N]) -> Self {
        Self { bounds_us, counts: [0; N], beyond: 0, sum_us: 0 }
    }

    /// Adds one time, in microseconds.
    pub fn observe(&mut self, us: u64) {
        let place = self.bounds_us.partition_point(|bound| *bound < us);
        *self.counts.get_mut(place).unwrap_or(&mut self.beyond) += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.beyond
    }

    /// All of them together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Each bound, in microseconds, with how many were at most that.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut below = 0;
        self.bounds_us.iter().zip(&self.counts).map(move |(bound, count)| {
            below += count;
            (*bound, below)
        })
    }

    /// The mean, in milliseconds; 0 if there was none.
    pub fn mean_ms(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum_us as f64 / count as f64 / 1e3,
        }
    }

    /// The time that this share (0 to 1) of them did not exceed, in milliseconds, as exactly as the buckets tell: evenly
    /// spread inside one. What lies above the last bound counts as that; 0 if there was none.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let rank = share * self.count() as f64;
        let (mut lower_us, mut below) = (0, 0);
        for (bound_us, upto) in self.cumulative() {
            if upto > below && upto as f64 >= rank {
                let inside = (rank - below as f64).max(0.0) / (upto - below) as f64;
                return (lower_us as f64 + inside * (bound_us - lower_us) as f64) / 1e3;
            }
            (lower_us, below) = (bound_us, upto);
        }
        if self.count() == 0 { 0.0 } else { lower_us as f64 / 1e3 }
    }
}

/// How many tasks ended in each of the last seconds.
#[derive(Debug, Clone)]
struct Rate {
    began_ns: u64,
    /// The second that was counted last, from the beginning on.
    second: u64,
    ends: [u64; RATE_SECONDS],
}

impl Rate {
    fn new(began_ns: u64) -> Self {
        Self { began_ns, second: 0, ends: [0; RATE_SECONDS] }
    }

    /// Forgets what is older than a minute.
    fn advance(&mut self, now_ns: u64) {
        let second = now_ns.saturating_sub(self.began_ns) / SECOND_NS;
        let passed = second.saturating_sub(self.second).min(RATE_SECONDS as u64);
        for step in 1..=passed {
            self.ends[((self.second + step) % RATE_SECONDS as u64) as usize] = 0;
        }
        if passed == RATE_SECONDS as u64 {
            self.ends = [0; RATE_SECONDS];
        }
        self.second = self.second.max(second);
    }

    fn add(&mut self, count: u64, now_ns: u64) {
        self.advance(now_ns);
        self.ends[(self.second % RATE_SECONDS as u64) as usize] += count;
    }

    /// Ends per second over the last minute, or since the beginning if that is shorter, but at least a second.
    fn per_second(&mut self, now_ns: u64) -> f64 {
        self.advance(now_ns);
        let lived = now_ns.saturating_sub(self.began_ns) as f64 / SECOND_NS as f64;
        // The present second has only begun.
        let whole = (RATE_SECONDS - 1) as f64 + lived.fract();
        self.ends.iter().sum::<u64>() as f64 / lived.min(whole).max(1.0)
    }
}

/// What ended attempts have used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Time in which CPU limits held them back, in microseconds.
    pub throttled_us: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Bytes read from block devices.
    pub read_bytes: u64,
    /// Bytes written, meant for block devices.
    pub written_bytes: u64,
    /// The most memory of one of them, in bytes.
    pub peak_memory_bytes: u64,
    /// How many ended because they exceeded a limit, by its key.
    pub over_limit: BTreeMap<String, u64>,
}

/// Everything that is counted. What counts has happened since the pool's start.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Tasks that ended, by their state; members of arrays one by one.
    pub ended: Counts,
    /// Attempts that were started.
    pub starts: u64,
    /// Attempts that failed and are followed by another one.
    pub retries: u64,
    /// Attempts that were lost or taken back, whose tasks are queued again.
    pub requeues: u64,
    /// Workers made.
    pub workers_started: u64,
    /// Workers made in the place of one that died.
    pub worker_restarts: u64,
    /// From a task's being ready to its start.
    pub queue_time: Histogram<23>,
    /// From an attempt's start to its end.
    pub duration: Histogram<23>,
    /// How long commits took.
    pub commits: Histogram<15>,
    /// What ended attempts have used.
    pub usage: Used,
    /// Workers that died and whose places are empty.
    vacant: u64,
    rate: Rate,
    /// Whether a task has started or ended since the metrics were last told as an event.
    news: bool,
}

impl Registry {
    /// Nothing has happened yet. Times are nanoseconds of the monotonic clock.
    pub fn new(now_ns: u64) -> Self {
        Self {
            ended: Counts::default(),
            starts: 0,
            retries: 0,
            requeues: 0,
            workers_started: 0,
            worker_restarts: 0,
            queue_time: Histogram::new(&TASK_BOUNDS_US),
            duration: Histogram::new(&TASK_BOUNDS_US),
            commits: Histogram::new(&COMMIT_BOUNDS_US),
            usage: Used::default(),
            vacant: 0,
            rate: Rate::new(now_ns),
            news: false,
        }
    }

    /// An attempt was started; it had waited so long, where that is known.
    pub fn started(&mut self, waited_us: u64) {
        self.starts += 1;
        self.news = true;
        self.queue_time.observe(waited_us);
    }

    /// An attempt has ended that stood so before, and this comes next.
    pub fn ended(&mut self, before: Phase, finished_us: u64, next: Next) {
        match before {
            Phase::Running { started_us, .. } => self.ran(finished_us.saturating_sub(started_us)),
            Phase::Published | Phase::Ended => {}
        }
        match next {
            Next::Final(_) | Next::Quarantine => {}
            Next::RetryAfter(_) => self.retries += 1,
            Next::Requeue | Next::PostponedAfter(_) | Next::CrashedAfter(..) => self.requeues += 1,
        }
    }

    /// An attempt has ended that used so much, with this verdict.
    pub fn used(&mut self, usage: &Usage, verdict: &Verdict) {
        let used = &mut self.usage;
        let add = |total: &mut u64, more: Option<u64>| *total = total.saturating_add(more.unwrap_or(0));
        add(&mut used.cpu_us, Some(usage.user_us.saturating_add(usage.system_us)));
        add(&mut used.throttled_us, usage.throttled_us);
        add(&mut used.oom_kills, usage.oom_kills);
        add(&mut used.read_bytes, Some(usage.read_bytes));
        add(&mut used.written_bytes, Some(usage.written_bytes));
        let memory = usage.peak_memory_bytes.unwrap_or(usage.max_rss_bytes);
        used.peak_memory_bytes = used.peak_memory_bytes.max(memory);
        let limit = match verdict {
            Verdict::OutOfMemory => "memoryMb",
            Verdict::OverLimit { limit } => limit,
            Verdict::Exited { .. }
            | Verdict::Signalled { .. }
            | Verdict::TimedOut
            | Verdict::Cancelled
            | Verdict::WorkerLost
            | Verdict::EngineFailed { .. }
            | Verdict::NotStarted { .. } => return,
        };
        // A handful of names, which workers make of constants.
        *used.over_limit.entry(limit.to_owned()).or_default() += 1;
    }

    /// An attempt that had been started has ended after so long.
    pub fn ran(&mut self, us: u64) {
        self.duration.observe(us);
    }

    /// Tasks have ended, and that is on disk.
    pub fn settled(&mut self, counts: Counts, now_ns: u64) {
        let mut counts = counts;
        for state in TaskState::ALL.into_iter().filter(|state| state.is_final()) {
            *self.ended.of(state) += *counts.of(state);
        }
        // Cancelling ten thousand tasks is no work done.
        let done = counts.completed + counts.failed + counts.timeout;
        if done > 0 {
            self.rate.add(done, now_ns);
        }
        self.news |= counts.finished() > 0;
    }

    /// A worker was made.
    pub fn worker_made(&mut self) {
        self.workers_started += 1;
        if self.vacant > 0 {
            self.vacant -= 1;
            self.worker_restarts += 1;
        }
    }

    /// A worker has died.
    pub fn worker_died(&mut self) {
        self.vacant += 1;
    }

    /// Tasks that ended by themselves per second, over the last minute.
    pub fn throughput(&mut self, now_ns: u64) -> f64 {
        self.rate.per_second(now_ns)
    }

    /// Whether a task has started or ended since this was last asked.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SECOND_NS;

    fn ended(completed: u64) -> Counts {
        Counts { completed, ..Counts::default() }
    }

    #[test]
    fn a_time_on_a_bound_is_in_its_bucket_and_none_is_lost() {
        let mut times = Histogram::new(&COMMIT_BOUNDS_US);
        for us in [0, 100, 101, 250, 5_000_000, 5_000_001, u64::MAX] {
            times.observe(us);
        }
        let upto: Vec<_> = times.cumulative().collect();
        assert_eq!((upto[0], upto[1], upto[14]), ((100, 2), (250, 4), (5_000_000, 5)));
        assert_eq!((times.count(), times.sum_us()), (7, u64::MAX));
    }

    #[test]
    fn percentiles_lie_inside_their_bucket_and_grow() {
        let mut times = Histogram::new(&TASK_BOUNDS_US);
        assert_eq!((times.percentile_ms(0.5), times.mean_ms()), (0.0, 0.0));
        (0..90).for_each(|_| times.observe(700));
        (0..10).for_each(|_| times.observe(40_000));
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| times.percentile_ms(share));
        assert!((0.5..=1.0).contains(&p50) && (0.5..=1.0).contains(&p90) && (25.0..=50.0).contains(&p99));
        assert!(p50 < p90 && (times.mean_ms() - 4.63).abs() < 1e-9);
        times.observe(u64::MAX / 2);
        assert_eq!(times.percentile_ms(1.0), 86_400_000.0);
    }

    #[test]
    fn the_rate_slides_over_a_minute() {
        let mut registry = Registry::new(5 * S);
        assert_eq!(registry.throughput(5 * S), 0.0);
        // Ten a second for two minutes.
        for second in 0..120 {
            registry.settled(ended(10), (5 + second) * S);
        }
        let rate = registry.throughput(125 * S - 1);
        assert!((9.9..=10.1).contains(&rate), "{rate}");
        let half = registry.throughput(155 * S);
        assert!((4.5..=5.5).contains(&half), "{half}");
        assert_eq!(registry.throughput(190 * S), 0.0);
        assert_eq!(registry.throughput(9_000 * S), 0.0);
        assert_eq!(registry.ended.completed, 1_200);
    }

    #[test]
    fn a_young_pools_rate_is_that_of_its_life() {
        let mut registry = Registry::new(0);
        registry.settled(ended(20), S / 2);
        assert_eq!(registry.throughput(S / 2), 20.0);
        assert_eq!(registry.throughput(4 * S), 5.0);
    }

    #[test]
    fn what_was_cancelled_is_counted_and_is_no_throughput() {
        let mut registry = Registry::new(0);
        registry.settled(Counts { cancelled: 9, timeout: 1, ..Counts::default() }, S);
        assert_eq!((registry.ended.cancelled, registry.throughput(S)), (9, 1.0));
        assert!(registry.take_news() && !registry.take_news());
    }

    #[test]
    fn what_attempts_used_is_summed_and_ends_over_a_limit_are_counted() {
        let mut registry = Registry::new(0);
        let usage = Usage {
            user_us: 2,
            system_us: 3,
            throttled_us: Some(7),
            oom_kills: Some(1),
            written_bytes: 11,
            max_rss_bytes: 13,
            ..Usage::default()
        };
        registry.used(&usage, &Verdict::Exited { code: 0 });
        registry.used(&Usage { peak_memory_bytes: Some(17), ..usage }, &Verdict::OutOfMemory);
        registry.used(&Usage::default(), &Verdict::OverLimit { limit: "diskMb".to_owned() });
        let over_limit = BTreeMap::from([("memoryMb".to_owned(), 1), ("diskMb".to_owned(), 1)]);
        let used = Used {
            cpu_us: 10,
            throttled_us: 14,
            oom_kills: 2,
            read_bytes: 0,
            written_bytes: 22,
            peak_memory_bytes: 17,
            over_limit,
        };
        assert_eq!(registry.usage, used);
    }

    #[test]
    fn only_a_worker_in_the_place_of_a_dead_one_is_a_restart() {
        let mut registry = Registry::new(0);
        (0..3).for_each(|_| registry.worker_made());
        registry.worker_died();
        (0..2).for_each(|_| registry.worker_made());
        assert_eq!((registry.workers_started, registry.worker_restarts), (5, 1));
    }
}
