//! What becomes of a task when an attempt has ended. Pure: a verdict and a policy in, a decision out.

use acode_worker::task::{Retry, TaskState, Verdict};

/// What an attempt's end is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Retries after failures and timeouts.
    pub retry: Retry,
    /// With so many lost workers the task is quarantined: it ends as failed.
    pub max_worker_losses: u32,
}

/// How the task stood when the attempt began, and what was asked of it since.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// Attempts that failed before this one.
    pub failures: u32,
    /// Workers lost before this attempt.
    pub losses: u32,
    /// Whether somebody has cancelled it.
    pub cancelled: bool,
    /// Whether the pool itself ended the attempt, to stop or to replace a worker on purpose.
    pub given_back: bool,
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
    /// Its worker was lost: it is queued again, and the loss is counted.
    RequeueLost,
}

/// Judges an attempt. `random` (0 to 1) places a retry inside its jitter.
pub fn judge(verdict: &Verdict, standing: Standing, policy: &Policy, random: f64) -> Next {
    let failed = |state| {
        if standing.cancelled || standing.failures >= policy.retry.count {
            Next::Final(state)
        } else {
            Next::RetryAfter(policy.retry.delay(standing.failures + 1, random))
        }
    };
    match verdict {
        Verdict::Exited { code: 0 } => Next::Final(TaskState::Completed),
        _ if standing.given_back && standing.cancelled => Next::Final(TaskState::Cancelled),
        _ if standing.given_back => Next::Requeue,
        Verdict::Cancelled => Next::Final(TaskState::Cancelled),
        Verdict::WorkerLost if standing.cancelled => Next::Final(TaskState::Cancelled),
        Verdict::WorkerLost if standing.losses + 1 >= policy.max_worker_losses => Next::Final(TaskState::Failed),
        Verdict::WorkerLost => Next::RequeueLost,
        Verdict::TimedOut => failed(TaskState::Timeout),
        Verdict::Exited { .. }
        | Verdict::Signalled { .. }
        | Verdict::OutOfMemory
        | Verdict::OverLimit { .. }
        | Verdict::NotStarted { .. } => failed(TaskState::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(count: u32) -> Policy {
        let retry = Retry { count, delay_ms: 100, factor: 2.0, max_delay_ms: 1_000, jitter: 0.0 };
        Policy { retry, max_worker_losses: 3 }
    }

    fn judged(verdict: Verdict, standing: Standing, count: u32) -> Next {
        judge(&verdict, standing, &policy(count), 0.5)
    }

    const FRESH: Standing = Standing { failures: 0, losses: 0, cancelled: false, given_back: false };

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
    fn a_task_that_loses_its_workers_is_quarantined() {
        let after = |losses| judged(Verdict::WorkerLost, Standing { losses, ..FRESH }, 9);
        assert_eq!([after(0), after(1)], [Next::RequeueLost, Next::RequeueLost]);
        assert_eq!(after(2), Next::Final(TaskState::Failed));
    }

    #[test]
    fn what_the_pool_takes_back_counts_for_nothing() {
        let back = Standing { given_back: true, failures: 9, losses: 9, ..FRESH };
        assert_eq!(judged(Verdict::Cancelled, back, 0), Next::Requeue);
        assert_eq!(judged(Verdict::WorkerLost, back, 0), Next::Requeue);
    }
}
