//! Waiting for tasks, and learning how they have ended.
//!
//! A wait is one call of the protocol for ten thousand tasks, in the caller's thread. What has ended can be learnt after the
//! pool has stopped too, for as long as its queue is there. Deliberately absent: callbacks.

use std::thread::sleep;
use std::time::{Duration, Instant};

use acode_worker::task::TaskId;

use super::hub::is_absent;
use super::{ApiError, Door, Failures, Need, TaskFailure, TaskOutcome, WorkerPool};
use crate::local::LocalError;
use crate::rundir::{LockError, Vars};
use crate::wire::reply::{Shown, Waited};
use crate::wire::request::{Ping, Show, Wait};
use crate::wire::types::TaskCounts;
use crate::wire::{MAX_IDS, TaskRef};

/// How long a pool may take from hanging up to letting go of its queue.
const LETTING_GO: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(10);
/// How many records are asked for at once: so few that their requests always fit into the socket.
const ASKED_AT_ONCE: usize = 32;

impl WorkerPool {
    /// Waits until all of these have ended.
    ///
    /// # Errors
    /// [`ApiError::Failures`] with every one that did not complete; or the pool cannot be reached.
    pub fn wait(&self, ids: &[TaskId]) -> Result<(), ApiError> {
        let mut failures = Vec::new();
        for chunk in ids.chunks(MAX_IDS) {
            let waited = match self.await_all(chunk) {
                Err(error) if error.is_pool_gone() => {
                    failures.extend(self.outcomes_after(chunk, error)?.iter().filter_map(TaskOutcome::failure));
                    continue;
                }
                waited => waited?,
            };
            if waited.counts.unsuccessful() > 0 || !waited.unsuccessful.is_empty() {
                self.collect_failures(chunk, waited, &mut failures)?;
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(Failures { total: ids.len(), failures }.into()) }
    }

    /// Waits until all of these have ended, and gives how, in their order.
    ///
    /// # Errors
    /// The pool cannot be reached, and nobody else can tell.
    pub fn outcomes(&self, ids: &[TaskId]) -> Result<Vec<TaskOutcome>, ApiError> {
        let mut outcomes = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(MAX_IDS) {
            match self.outcomes_of(chunk) {
                Err(error) if error.is_pool_gone() => outcomes.extend(self.outcomes_after(chunk, error)?),
                told => outcomes.extend(told?),
            }
        }
        Ok(outcomes)
    }

    /// Waits until everything that is in the queue has ended, and everything that comes meanwhile. Gives what was waited
    /// for, by state.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn wait_all(&self) -> Result<TaskCounts, ApiError> {
        Ok(self.call(&Wait { ids: Vec::new(), all: true })?.counts)
    }

    fn await_all(&self, ids: &[TaskId]) -> Result<Waited, ApiError> {
        if ids.is_empty() {
            return Ok(Waited::default());
        }
        let ids = ids.iter().copied().map(TaskRef::from).collect();
        self.call(&Wait { ids, all: false })
    }

    /// A reply names so many only: where there are more, they are asked for in parts.
    fn collect_failures(
        &self,
        ids: &[TaskId],
        waited: Waited,
        failures: &mut Vec<TaskFailure>,
    ) -> Result<(), ApiError> {
        if waited.unsuccessful.len() as u64 >= waited.counts.unsuccessful() || ids.len() == 1 {
            for asked in waited.unsuccessful.chunks(ASKED_AT_ONCE) {
                failures.extend(self.ask(asked)?.iter().filter_map(TaskOutcome::failure));
            }
            return Ok(());
        }
        for part in ids.chunks(Waited::MAX_NAMED.min(ids.len().div_ceil(2))) {
            let waited = self.await_all(part)?;
            if !waited.unsuccessful.is_empty() {
                self.collect_failures(part, waited, failures)?;
            }
        }
        Ok(())
    }

    /// How these few have ended.
    fn ask(&self, ids: &[TaskId]) -> Result<Vec<TaskOutcome>, ApiError> {
        let requests: Vec<Show> = ids.iter().map(|id| Show { id: (*id).into() }).collect();
        let patience = self.patience();
        let shown = self.with_line(|line| line.call_each(&requests, &patience))?;
        let outcome = |shown: Result<Shown, ApiError>| match TaskOutcome::of(shown?.task) {
            Some(outcome) => Ok(outcome),
            None => Err(ApiError::Usage("the task was started again meanwhile".to_owned())),
        };
        shown.into_iter().map(outcome).collect()
    }

    fn outcomes_of(&self, ids: &[TaskId]) -> Result<Vec<TaskOutcome>, ApiError> {
        self.await_all(ids)?;
        let mut outcomes = Vec::with_capacity(ids.len());
        for asked in ids.chunks(ASKED_AT_ONCE) {
            outcomes.extend(self.ask(asked)?);
        }
        Ok(outcomes)
    }

    /// The same when the pool has gone, with `error`: of the queue itself, or of the next pool that has it.
    fn outcomes_after(&self, ids: &[TaskId], error: ApiError) -> Result<Vec<TaskOutcome>, ApiError> {
        let patience = self.patience();
        let mut deadline = Instant::now() + LETTING_GO;
        loop {
            match Door::open(self.dirs(), &Vars::new(), Need::Queue) {
                Ok(Door::Pool(_)) => match self.outcomes_of(ids) {
                    // One that is about to stop takes connections that it does not answer any more.
                    Err(gone) if gone.is_pool_gone() => {}
                    told => return told,
                },
                Ok(mut queue) => return ask_queue(&mut queue, ids, error),
                // It lets go of the queue last.
                Err(ApiError::Local(LocalError::Lock(LockError::Held { .. }))) => {}
                Err(_) => return Err(error),
            }
            patience.check()?;
            if Instant::now() > deadline {
                return Err(error);
            }
            if self.call(&Ping {}).is_ok() {
                deadline = Instant::now() + LETTING_GO;
            }
            sleep(NAP);
        }
    }
}

/// How tasks have ended that nobody runs any more; `error` if one has not.
fn ask_queue(queue: &mut Door, ids: &[TaskId], error: ApiError) -> Result<Vec<TaskOutcome>, ApiError> {
    let mut outcomes = Vec::with_capacity(ids.len());
    for id in ids {
        match queue.call(&Show { id: (*id).into() }).map(|shown| TaskOutcome::of(shown.task)) {
            Ok(Some(outcome)) => outcomes.push(outcome),
            Err(absent) if is_absent(&absent) => return Err(absent),
            Ok(None) | Err(_) => return Err(error),
        }
    }
    Ok(outcomes)
}
