//! Typed actions in queues of one isolation each.
//!
//! A queue remembers which tasks it has submitted until a wait has seen their ends; a program that never waits submits to the
//! pool itself. Deliberately absent: a wait when one is dropped. It could tell nobody of failures, and a program that is about to end need not wait: what was accepted is in the
//! pool's queue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use acode_worker::actions::WorkAction;
use acode_worker::task::{Docker, Isolation, Library, Limits, Mount, Rlimits, TaskId};

use super::handle::WorkHandle;
use super::{ApiError, Task, WorkerPool};

/// Tasks that were submitted, and that nobody has waited for yet.
type Outstanding = Arc<Mutex<Vec<TaskId>>>;

/// Runs typed actions in a pool: each isolation is a queue of its own. Made by [`WorkerPool::executor`].
#[derive(Debug, Clone)]
pub struct WorkerExecutor {
    pool: WorkerPool,
    queues: Arc<Mutex<Vec<Outstanding>>>,
}

impl WorkerExecutor {
    pub(super) fn new(pool: WorkerPool) -> Self {
        Self { pool, queues: Arc::default() }
    }

    /// Actions run in the worker itself: the fastest. A panic fails the task and not the worker; what corrupts memory, or does
    /// not hear that it is to end, takes the worker along, which is replaced.
    pub fn no_isolation(&self) -> WorkQueue {
        self.queue(|task| task.isolation(Isolation::None))
    }

    /// Actions run in the worker, out of a shared object in a link namespace of its own.
    pub fn library_isolation(&self, spec: impl FnOnce(LibrarySpec) -> LibrarySpec) -> WorkQueue {
        let LibrarySpec(library) = spec(LibrarySpec::default());
        self.queue(move |task| task.isolation(Isolation::Library).library(library.clone()))
    }

    /// Actions run in a process of their own each, or, where it may be used again, one after the other in the same.
    pub fn process_isolation(&self, options: impl FnOnce(ForkOptions) -> ForkOptions) -> WorkQueue {
        let options = options(ForkOptions::default());
        self.fallible(move |task| options.apply(task))
    }

    /// Actions run in a container each.
    pub fn docker_isolation(&self, spec: impl FnOnce(DockerSpec) -> DockerSpec) -> WorkQueue {
        let DockerSpec { docker, limits } = spec(DockerSpec::default());
        self.queue(move |task| task.isolation(Isolation::Docker).docker(docker.clone()).limits(limits))
    }

    /// A queue whose tasks `prepare` makes out of each action's.
    pub fn queue(&self, prepare: impl Fn(Task) -> Task + Send + Sync + 'static) -> WorkQueue {
        self.fallible(move |task| Ok(prepare(task)))
    }

    fn fallible(&self, prepare: impl Fn(Task) -> Result<Task, ApiError> + Send + Sync + 'static) -> WorkQueue {
        let outstanding = Outstanding::default();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are gone, and that nobody has to wait for.
        queues.retain(|queue| Arc::strong_count(queue) > 1 || !lock(queue).is_empty());
        queues.push(Arc::clone(&outstanding));
        drop(queues);
        WorkQueue { pool: self.pool.clone(), outstanding, prepare: Arc::new(prepare) }
    }

    /// Waits until all that its queues have submitted has ended.
    ///
    /// # Errors
    /// [`ApiError::Failures`] with every one that did not complete; or the pool cannot be reached, or the wait was ended: the
    /// next one is for the same tasks again.
    pub fn wait(&self) -> Result<(), ApiError> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wait_for(&self.pool, &queues)
    }
}

fn lock(outstanding: &Outstanding) -> MutexGuard<'_, Vec<TaskId>> {
    outstanding.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for what these queues have submitted. Where the wait was ended before them, the next one is for them too.
fn wait_for(pool: &WorkerPool, queues: &[Outstanding]) -> Result<(), ApiError> {
    let taken: Vec<Vec<TaskId>> = queues.iter().map(|queue| std::mem::take(&mut *lock(queue))).collect();
    let mut ids = taken.concat();
    // In the order of their submission, over all queues.
    ids.sort_unstable();
    let waited = pool.wait(&ids);
    let ended = |error: &ApiError| matches!(error, ApiError::Cancelled | ApiError::DeadlineExceeded);
    if waited.as_ref().is_err_and(|error| ended(error) || error.is_pool_gone()) {
        for (queue, ids) in queues.iter().zip(taken) {
            lock(queue).extend(ids);
        }
    }
    waited
}

/// A queue of typed actions of one isolation. Clones are the same queue.
#[derive(Clone)]
pub struct WorkQueue {
    pool: WorkerPool,
    outstanding: Outstanding,
    prepare: Arc<dyn Fn(Task) -> Result<Task, ApiError> + Send + Sync>,
}

impl std::fmt::Debug for WorkQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkQueue").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl WorkQueue {
    /// Submits an action.
    ///
    /// # Errors
    /// Its parameters are refused, or the pool cannot be reached.
    pub fn submit<A: WorkAction>(&self, params: A::Params) -> Result<WorkHandle<A>, ApiError> {
        self.submit_as::<A>(params, |task| task)
    }

    /// The same, with priorities, dependencies, times and whatever else a [`Task`] has:
    /// `queue.submit_as::<Merge>(params, |task| task.priority(Priority::Critical).after(&part))`.
    ///
    /// # Errors
    /// As for [`WorkQueue::submit`].
    pub fn submit_as<A: WorkAction>(
        &self,
        params: A::Params,
        change: impl FnOnce(Task) -> Task,
    ) -> Result<WorkHandle<A>, ApiError> {
        let task = change((self.prepare)(Task::of::<A>(&params)?)?);
        let handle = self.pool.submit(task)?;
        self.note([handle.id()]);
        Ok(WorkHandle::new(handle))
    }

    /// Submits an action, and has `callback` called on the library's thread when it has ended; see
    /// [`WorkerPool::submit_with`].
    ///
    /// # Errors
    /// As for [`WorkQueue::submit`]; then nobody is called.
    pub fn submit_with<A: WorkAction>(
        &self,
        params: A::Params,
        change: impl FnOnce(Task) -> Task,
        callback: impl FnOnce(Result<A::Output, ApiError>) + Send + 'static,
    ) -> Result<WorkHandle<A>, ApiError> {
        let task = change((self.prepare)(Task::of::<A>(&params)?)?);
        let handle = self.pool.submit_with(task, |outcome| callback(outcome.and_then(|outcome| outcome.output())))?;
        self.note([handle.id()]);
        Ok(WorkHandle::new(handle))
    }

    /// Submits many actions at once, of which thousands share a commit.
    ///
    /// # Errors
    /// As for [`WorkerPool::submit_all`].
    pub fn submit_all<A: WorkAction>(
        &self,
        params: impl IntoIterator<Item = A::Params>,
    ) -> Result<Vec<WorkHandle<A>>, ApiError> {
        let task = |params| (self.prepare)(Task::of::<A>(&params)?);
        let tasks: Vec<Task> = params.into_iter().map(task).collect::<Result<_, ApiError>>()?;
        let ids = self.pool.submit_all(tasks)?;
        self.note(ids.iter().copied());
        Ok(ids.into_iter().map(|id| WorkHandle::new(self.pool.handle(id))).collect())
    }

    /// Waits until all that it has submitted, and that nobody has waited for yet, has ended.
    ///
    /// # Errors
    /// [`ApiError::Failures`] with every one that did not complete; or the pool cannot be reached, or the wait was ended: the
    /// next one is for the same tasks again.
    pub fn wait(&self) -> Result<(), ApiError> {
        wait_for(&self.pool, std::slice::from_ref(&self.outstanding))
    }

    fn note(&self, ids: impl IntoIterator<Item = TaskId>) {
        lock(&self.outstanding).extend(ids);
    }
}

/// Where actions in library isolation come from.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct LibrarySpec(Library);

impl LibrarySpec {
    /// The shared object: an absolute path.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.0.path = path.into();
        self
    }

    /// A further folder in which the libraries that it needs are looked for first: an absolute path.
    pub fn search_path(mut self, folder: impl Into<String>) -> Self {
        self.0.search_path.push(folder.into());
        self
    }
}

/// What the process of an action is like.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ForkOptions {
    memory: Option<String>,
    limits: Limits,
    rlimits: Rlimits,
    env: Vec<(String, String)>,
    cwd: Option<String>,
    reuse: bool,
}

impl ForkOptions {
    /// The most memory: a number with `k`, `m`, `g` or `t`, as in `512m`; without a letter, bytes. Held in whole MiB.
    pub fn max_memory(mut self, size: impl Into<String>) -> Self {
        self.memory = Some(size.into());
        self
    }

    /// The other limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Limits of each process.
    pub fn rlimits(mut self, rlimits: Rlimits) -> Self {
        self.rlimits = rlimits;
        self
    }

    /// A further variable of its environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Its working directory: an absolute path.
    pub fn cwd(mut self, folder: impl Into<String>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// Whether the process may run one action after the other, which saves its start.
    pub fn reuse(mut self, reuse: bool) -> Self {
        self.reuse = reuse;
        self
    }

    fn apply(&self, task: Task) -> Result<Task, ApiError> {
        let mut task = task.isolation(Isolation::Process).reuse(self.reuse);
        let spec = &mut task.submission_mut().spec;
        (spec.limits, spec.rlimits) = (self.limits, self.rlimits);
        if let Some(size) = &self.memory {
            let wrong = || ApiError::Usage(format!("max_memory '{size}' is no size: one as in 512m is expected"));
            spec.limits.memory_mb = Some(mebibytes(size).ok_or_else(wrong)?);
        }
        spec.env.extend(self.env.iter().cloned());
        spec.cwd.clone_from(&self.cwd);
        Ok(task)
    }
}

/// A size in MiB, rounded up; none if it is no size.
fn mebibytes(size: &str) -> Option<u64> {
    let size = size.trim();
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match size[digits.len()..].trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    Some(bytes.div_ceil(1 << 20))
}

/// What the container of an action is like, where it differs from the pool's.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DockerSpec {
    docker: Docker,
    limits: Limits,
}

impl DockerSpec {
    /// The image.
    pub fn image(mut self, image: impl Into<String>) -> Self {
        self.docker.image = Some(image.into());
        self
    }

    /// The network.
    pub fn network(mut self, network: impl Into<String>) -> Self {
        self.docker.network = Some(network.into());
        self
    }

    /// A further mount.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.docker.mounts.push(mount);
        self
    }

    /// Its limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Everything else about it.
    pub fn docker(mut self, docker: Docker) -> Self {
        self.docker = docker;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_people_write_them() {
        let cases =
            [("512m", 512), ("512M", 512), ("1g", 1024), ("2GiB", 2048), ("1048577", 2), ("64k", 1), ("1 t", 1 << 20)];
        for (text, expected) in cases {
            assert_eq!(mebibytes(text), Some(expected), "{text}");
        }
        for text in ["", "m", "12x", "-1m", "99999999999999g"] {
            assert_eq!(mebibytes(text), None, "{text}");
        }
    }
}
