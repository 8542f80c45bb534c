//! Handles of tasks that were submitted.
//!
//! A handle is an id and the way to the pool: no thread, no connection and no memory of the pool's. Deliberately absent:
//! keeping the pool alive.

use std::marker::PhantomData;

use acode_worker::actions::WorkAction;
use acode_worker::task::TaskId;

use super::pool::WeakPool;
use super::{ApiError, TaskOutcome, WorkerPool};
use crate::wire::types::TaskRecord;

/// A task that was submitted. Dropping it changes nothing for the task.
#[derive(Debug, Clone)]
pub struct TaskHandle {
    pool: WeakPool,
    id: TaskId,
}

impl TaskHandle {
    pub(super) fn new(pool: &WorkerPool, id: TaskId) -> Self {
        Self { pool: pool.weak(), id }
    }

    /// Its id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Waits until it has ended, in whatever way, and tells how.
    ///
    /// # Errors
    /// The pool has gone before it had ended, or cannot be reached.
    pub fn wait(&self) -> Result<TaskOutcome, ApiError> {
        let outcomes = self.pool.get()?.outcomes(&[self.id])?;
        outcomes.into_iter().next().ok_or(ApiError::NotRunning)
    }

    /// Waits until it has completed.
    ///
    /// # Errors
    /// It did not complete: [`ApiError::Task`]; or as for [`TaskHandle::wait`].
    pub fn join(&self) -> Result<TaskOutcome, ApiError> {
        self.wait()?.success()
    }

    /// Cancels it, and says whether it could be: what has ended cannot.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn cancel(&self) -> Result<bool, ApiError> {
        Ok(!self.pool.get()?.cancel(&[self.id])?.is_empty())
    }

    /// Everything about it.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn record(&self) -> Result<TaskRecord, ApiError> {
        self.pool.get()?.task(self.id)
    }
}

impl From<&TaskHandle> for TaskId {
    fn from(handle: &TaskHandle) -> Self {
        handle.id
    }
}

/// A typed action that was submitted. Dropping it changes nothing for the action.
pub struct WorkHandle<A> {
    task: TaskHandle,
    action: PhantomData<fn() -> A>,
}

impl<A> std::fmt::Debug for WorkHandle<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WorkHandle").field(&self.task.id).finish()
    }
}

impl<A> Clone for WorkHandle<A> {
    fn clone(&self) -> Self {
        Self { task: self.task.clone(), action: PhantomData }
    }
}

impl<A: WorkAction> WorkHandle<A> {
    pub(super) fn new(task: TaskHandle) -> Self {
        Self { task, action: PhantomData }
    }

    /// Its task's id.
    pub fn id(&self) -> TaskId {
        self.task.id
    }

    /// Its task.
    pub fn task(&self) -> &TaskHandle {
        &self.task
    }

    /// Waits until it has ended, and gives what it has answered.
    ///
    /// # Errors
    /// [`ApiError::Task`] with the words of its failure; or as for [`TaskHandle::wait`].
    pub fn join(&self) -> Result<A::Output, ApiError> {
        self.task.wait()?.output()
    }

    /// Cancels it, and says whether it could be.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn cancel(&self) -> Result<bool, ApiError> {
        self.task.cancel()
    }
}

impl<A> From<&WorkHandle<A>> for TaskId {
    fn from(handle: &WorkHandle<A>) -> Self {
        handle.task.id
    }
}
