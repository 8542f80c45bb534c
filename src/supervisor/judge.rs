//! What becomes of a task when an attempt has ended. Pure: a verdict and a policy in, a decision out.
//!
//! Failures and crashes are counted apart. A failure is the task's own doing and uses up its retries; a crash took a
//! worker with it, or ran out of memory, and too many of them put the task into quarantine.

use acode_worker::task::{Retries, Retry, TaskState, Verdict};

/// The delay before the attempt after a first crash, in milliseconds; doubles with each further one, so that a task
/// that kills its workers does not do it in a tight loop.
const CRASH_DELAY_MS: u64 = 50;
/// The longest such delay, in milliseconds.
const CRASH_DELAY_MAX_MS: u64 = 5_000;
/// The delay before the attempt after one that the engine failed under, in milliseconds; doubles with each further one. The
/// number of them is not bounded: whether the engine is well is no business of the task's.
const ENGINE_DELAY_MS: u64 = 500;
/// The longest such delay, in milliseconds.
const ENGINE_DELAY_MAX_MS: u64 = 60_000;

/// What an attempt's end is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Retries after failures and timeouts.
    pub retry: Retry,
    /// With so many crashes the task is quarantined: it ends as failed.
    pub max_crashes: u32,
}

impl Policy {
    /// This policy of the pool, with what a task says about its own.
    pub fn of_task(&self, own: &Retries) -> Self {
        Self { retry: own.over(&self.retry), max_crashes: own.max_crashes.unwrap_or(self.max_crashes) }
    }
}

/// How the task stood when the attempt began, and what was asked of it since.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// Attempts that failed before this one.
    pub failures: u32,
    /// Workers lost before this attempt.
    pub losses: u32,
    /// Attempts before this one that ran out of memory.
    pub ooms: u32,
    /// Attempts before this one that count for nothing: given back, or begun on an engine that failed.
    pub uncounted: u32,
    /// Whether somebody has cancelled it.
    pub cancelled: bool,
    /// Whether the pool itself ended the attempt, to stop or to replace a worker on purpose.
    pub given_back: bool,
}

/// How an attempt crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Its worker was lost.
    Lost,
    /// It ran out of memory.
    Oom,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It has ended.
    Final(TaskState),
    /// It failed, and is tried again after so many milliseconds.
    RetryAfter(u64),
    /// It is queued again at its old place, and nothing is held against it.
    Requeue,
    /// It is queued again, nothing is held against it, and it is not tried before so many milliseconds have passed.
    PostponedAfter(u64),
    /// It crashed, which is counted, and is tried again after so many milliseconds.
    CrashedAfter(Crash, u64),
    /// It crashed once too often, and has ended as failed.
    Quarantine,
}

/// Judges an attempt. `random` (0 to 1) places a retry inside its jitter.
pub fn judge(verdict: &Verdict, standing: Standing, policy: &Policy, random: f64) -> Next {
    let failed = |state| {
        let spent = standing.failures >= policy.retry.count || !policy.retry.covers(verdict.exit_code());
        if standing.cancelled || spent {
            Next::Final(state)
        } else {
            Next::RetryAfter(policy.retry.delay(standing.failures + 1, random))
        }
    };
    let crashed = |crash| {
        let crashes = standing.losses.saturating_add(standing.ooms).saturating_add(1);
        if crashes >= policy.max_crashes {
            Next::Quarantine
        } else {
            let delay_ms = CRASH_DELAY_MS << (crashes - 1).min(16);
            Next::CrashedAfter(crash, delay_ms.min(CRASH_DELAY_MAX_MS))
        }
    };
    match verdict {
        Verdict::Exited { code: 0 } => Next::Final(TaskState::Completed),
        _ if standing.given_back && standing.cancelled => Next::Final(TaskState::Cancelled),
        _ if standing.given_back => Next::Requeue,
        Verdict::Cancelled => Next::Final(TaskState::Cancelled),
        Verdict::EngineFailed { .. } if standing.cancelled => Next::Final(TaskState::Cancelled),
        Verdict::EngineFailed { .. } => {
            let delay_ms = ENGINE_DELAY_MS << standing.uncounted.min(16);
            Next::PostponedAfter(delay_ms.min(ENGINE_DELAY_MAX_MS))
        }
        Verdict::WorkerLost if standing.cancelled => Next::Final(TaskState::Cancelled),
        Verdict::WorkerLost => crashed(Crash::Lost),
        Verdict::OutOfMemory if standing.cancelled => Next::Final(TaskState::Failed),
        Verdict::OutOfMemory => crashed(Crash::Oom),
        Verdict::TimedOut => failed(TaskState::Timeout),
        Verdict::Exited { .. } | Verdict::Signalled { .. } | Verdict::OverLimit { .. } | Verdict::NotStarted { .. } => {
            failed(TaskState::Failed)
        }
    }
}

/// Why a task was quarantined, for people: this crash, and those before it.
pub fn quarantined(verdict: &Verdict, standing: Standing) -> String {
    let out_of_memory = matches!(verdict, Verdict::OutOfMemory);
    let ooms = standing.ooms + u32::from(out_of_memory);
    let losses = standing.losses + u32::from(!out_of_memory);
    let kinds = [(losses, "lost its worker"), (ooms, "ran out of memory")];
    let times = |count: u32| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let told: Vec<String> = kinds
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{what} {}", times(count)))
        .collect();
    let crashes = losses + ooms;
    let word = if crashes == 1 { "crash" } else { "crashes" };
    format!("quarantined after {crashes} {word}: {}", told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(count: u32) -> Policy {
        let retry = Retry { count, delay_ms: 100, max_delay_ms: 1_000, jitter: 0.0, ..Retry::default() };
        Policy { retry, max_crashes: 3 }
    }

    fn judged(verdict: Verdict, standing: Standing, count: u32) -> Next {
        judge(&verdict, standing, &policy(count), 0.5)
    }

    const FRESH: Standing =
        Standing { failures: 0, losses: 0, ooms: 0, uncounted: 0, cancelled: false, given_back: false };

    #[test]
    fn an_engine_that_fails_costs_the_task_nothing_but_time() {
        let failed = || Verdict::EngineFailed { why: "gone".to_owned() };
        let after = |uncounted| judged(failed(), Standing { uncounted, failures: 9, losses: 9, ..FRESH }, 0);
        assert_eq!(after(0), Next::PostponedAfter(500));
        assert_eq!(after(2), Next::PostponedAfter(2_000));
        assert_eq!(after(1_000), Next::PostponedAfter(60_000));
        let asked = Standing { cancelled: true, ..FRESH };
        assert_eq!(judged(failed(), asked, 3), Next::Final(TaskState::Cancelled));
    }

    #[test]
    fn success_is_final_whatever_else_was_asked() {
        let asked = Standing { cancelled: true, given_back: true, ..FRESH };
        assert_eq!(judged(Verdict::Exited { code: 0 }, asked, 0), Next::Final(TaskState::Completed));
    }

    #[test]
    fn a_failure_is_retried_with_growing_delay_until_none_is_left() {
        let after = |failures| judged(Verdict::Exited { code: 1 }, Standing { failures, ..FRESH }, 2);
        assert_eq!(after(0), Next::RetryAfter(100));
        assert_eq!(after(1), Next::RetryAfter(200));
        assert_eq!(after(2), Next::Final(TaskState::Failed));
    }

    #[test]
    fn a_timeout_is_never_completed_and_never_failed() {
        assert_eq!(judged(Verdict::TimedOut, FRESH, 0), Next::Final(TaskState::Timeout));
        assert_eq!(judged(Verdict::TimedOut, FRESH, 1), Next::RetryAfter(100));
    }

    #[test]
    fn a_cancelled_task_is_not_retried() {
        let asked = Standing { cancelled: true, ..FRESH };
        assert_eq!(judged(Verdict::Cancelled, asked, 5), Next::Final(TaskState::Cancelled));
        assert_eq!(judged(Verdict::Exited { code: 1 }, asked, 5), Next::Final(TaskState::Failed));
        assert_eq!(judged(Verdict::WorkerLost, asked, 5), Next::Final(TaskState::Cancelled));
    }

    #[test]
    fn a_task_that_crashes_again_and_again_is_quarantined_whatever_its_retries() {
        let after = |verdict: Verdict, losses, ooms| judged(verdict, Standing { losses, ooms, ..FRESH }, 9);
        let (lost, oom) = (Verdict::WorkerLost, Verdict::OutOfMemory);
        assert_eq!(after(lost.clone(), 0, 0), Next::CrashedAfter(Crash::Lost, 50));
        assert_eq!(after(oom.clone(), 1, 0), Next::CrashedAfter(Crash::Oom, 100));
        assert_eq!([after(lost.clone(), 1, 1), after(oom.clone(), 0, 2)], [Next::Quarantine, Next::Quarantine]);
        assert_eq!(
            quarantined(&oom, Standing { losses: 1, ooms: 1, ..FRESH }),
            "quarantined after 3 crashes: lost its worker once, ran out of memory 2 times"
        );
        assert_eq!(quarantined(&lost, FRESH), "quarantined after 1 crash: lost its worker once");
    }

    #[test]
    fn crashes_use_up_no_retries_and_failures_bring_no_quarantine() {
        let crashed = Standing { losses: 2, ..FRESH };
        assert_eq!(judged(Verdict::Exited { code: 1 }, crashed, 1), Next::RetryAfter(100));
        let failed = Standing { failures: 9, ..FRESH };
        assert_eq!(judged(Verdict::WorkerLost, failed, 0), Next::CrashedAfter(Crash::Lost, 50));
        assert_eq!(judged(Verdict::TimedOut, Standing { failures: 1, ..FRESH }, 1), Next::Final(TaskState::Timeout));
    }

    #[test]
    fn crashes_are_tried_again_ever_more_slowly_up_to_a_bound() {
        let policy = Policy { max_crashes: u32::MAX, ..policy(0) };
        let after = |losses| judge(&Verdict::WorkerLost, Standing { losses, ..FRESH }, &policy, 0.5);
        assert_eq!(after(3), Next::CrashedAfter(Crash::Lost, 400));
        assert_eq!(after(1_000_000), Next::CrashedAfter(Crash::Lost, 5_000));
    }

    #[test]
    fn only_listed_exit_codes_are_tried_again() {
        let own = Retries { on_codes: [7].into_iter().collect(), ..Retries::default() };
        let policy = policy(5).of_task(&own);
        let next = |verdict| judge(&verdict, FRESH, &policy, 0.5);
        assert_eq!(next(Verdict::Exited { code: 7 }), Next::RetryAfter(100));
        for verdict in [Verdict::Exited { code: 8 }, Verdict::Signalled { signal: 9, core_dumped: false }] {
            assert_eq!(next(verdict), Next::Final(TaskState::Failed));
        }
        assert_eq!(next(Verdict::TimedOut), Next::Final(TaskState::Timeout));
    }

    #[test]
    fn what_the_pool_takes_back_counts_for_nothing() {
        let back = Standing { given_back: true, failures: 9, losses: 9, ..FRESH };
        assert_eq!(judged(Verdict::Cancelled, back, 0), Next::Requeue);
        assert_eq!(judged(Verdict::WorkerLost, back, 0), Next::Requeue);
    }
}
