//! The times of one attempt: when its task is warned, when it is over, and that both stand still while it is suspended.
//!
//! Pure: nanoseconds of the monotonic clock come in as arguments.

/// How often a task's progress is passed on at most, in nanoseconds.
pub const PROGRESS_INTERVAL_NS: u64 = 100_000_000;
/// How long an attempt runs before its start is reported by itself, in nanoseconds. The report of a shorter one's end
/// says it all, and spares the supervisor half of what it would have to read.
pub const SHORT_NS: u64 = 5_000_000;

/// What time asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// The warning before the end; said once.
    Warn,
    /// The end.
    Over,
}

/// The times of one attempt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    over_ns: Option<u64>,
    warn_ns: Option<u64>,
    suspended_ns: Option<u64>,
}

impl Times {
    /// Of an attempt that began at `started_ns`, ends after `timeout_ms` and is warned `warn_before_ms` before that.
    /// Without an end there is no warning.
    pub fn new(started_ns: u64, timeout_ms: Option<u64>, warn_before_ms: Option<u64>) -> Self {
        let nanos = |ms: u64| ms.saturating_mul(1_000_000);
        let over_ns = timeout_ms.map(|ms| started_ns.saturating_add(nanos(ms)));
        let warn_ns = over_ns.zip(warn_before_ms).map(|(over, before)| over.saturating_sub(nanos(before)));
        Self { over_ns, warn_ns, suspended_ns: None }
    }

    /// What is due at `now`.
    pub fn due(&mut self, now: u64) -> Due {
        let passed = |at: Option<u64>| at.is_some_and(|at| now >= at);
        if self.suspended_ns.is_some() {
            Due::Nothing
        } else if passed(self.over_ns) {
            Due::Over
        } else if passed(self.warn_ns) {
            self.warn_ns = None;
            Due::Warn
        } else {
            Due::Nothing
        }
    }

    /// When something is due next.
    pub fn next_ns(&self) -> Option<u64> {
        match self.suspended_ns {
            Some(_) => None,
            None => self.warn_ns.or(self.over_ns),
        }
    }

    /// Stops the clocks; false if they stand still already.
    pub fn suspend(&mut self, now: u64) -> bool {
        let runs = self.suspended_ns.is_none();
        self.suspended_ns.get_or_insert(now);
        runs
    }

    /// Lets the clocks go on; false if they do.
    pub fn resume(&mut self, now: u64) -> bool {
        let Some(since) = self.suspended_ns.take() else { return false };
        let paused = now.saturating_sub(since);
        for at in [&mut self.over_ns, &mut self.warn_ns].into_iter().flatten() {
            *at = at.saturating_add(paused);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_task_is_warned_once_and_then_its_time_is_over() {
        let mut times = Times::new(10 * MS, Some(100), Some(30));
        assert_eq!(times.next_ns(), Some(80 * MS));
        assert_eq!(
            [79, 80, 81, 109, 110].map(|ms| times.due(ms * MS)),
            [Due::Nothing, Due::Warn, Due::Nothing, Due::Nothing, Due::Over]
        );
        assert_eq!(times.next_ns(), Some(110 * MS));
    }

    #[test]
    fn without_a_timeout_there_is_no_warning_and_a_long_notice_comes_at_once() {
        assert_eq!(Times::new(5, None, Some(30)).due(u64::MAX), Due::Nothing);
        assert_eq!(Times::new(5 * MS, Some(10), Some(1_000)).due(5 * MS), Due::Warn);
        assert_eq!(Times::new(5, Some(u64::MAX), None).due(u64::MAX - 1), Due::Nothing);
    }

    #[test]
    fn the_clocks_stand_still_while_it_is_suspended() {
        let mut times = Times::new(0, Some(100), Some(30));
        assert!(times.suspend(50 * MS) && !times.suspend(60 * MS));
        assert_eq!((times.due(500 * MS), times.next_ns()), (Due::Nothing, None));
        assert!(times.resume(1_050 * MS) && !times.resume(1_060 * MS));
        assert_eq!(
            [1_069, 1_070, 1_099, 1_100].map(|ms| times.due(ms * MS)),
            [Due::Nothing, Due::Warn, Due::Nothing, Due::Over]
        );
    }
}
