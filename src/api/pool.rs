//! A pool in the hands of a program: started by it, or running already.
//!
//! Calls go over a few connections that are kept, so any number of threads may use one pool. Whatever waits does so in the
//! caller's thread. Deliberately absent: knowledge of how a pool works; everything is asked of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use acode_worker::task::{Submission, TaskId};

use super::cancel::Patience;
use super::door::{RoomWait, submit_to_pool};
use super::event::Events;
use super::handle::TaskHandle;
use super::hub::Hub;
use super::launch::{Letter, PoolProcess};
use super::line::Line;
use super::options::{Place, WorkerPoolOptions};
use super::{ApiError, CancelToken, Event, Task, TaskOutcome, role};
use crate::rundir::{Dirs, Vars};
use crate::store::EventKind;
use crate::wire::request::{
    Autoscale, Cancel, Check, Metrics, Pause, Reload, Resume, Scale, Status, Stop, Submit, Workers,
};
use crate::wire::types::{CheckRecord, PoolState, Resources, StatusRecord, StopMode, TaskRecord, WorkerRecord};
use crate::wire::{Client, ClientError, MAX_IDS, Method, MetricsRecord, TaskRef, request};

/// The most connections that are kept for further calls.
const LINES_MAX: usize = 8;

/// How long a pool that is ending is waited for by the next one with its queue.
const HANDOVER: Duration = Duration::from_secs(15);
/// How long a pool may take to notice that its program has ended.
const NOTICE: Duration = Duration::from_millis(100);

/// One worker: its id, status, current task, start, last heartbeat, and more.
pub type WorkerInfo = WorkerRecord;
/// The pool's figures: workers and tasks by state, mean durations, throughput, use of processors and memory.
pub type PoolMetrics = MetricsRecord;

/// How a pool stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Workers that live.
    pub active_count: u32,
    /// Of these, waiting for a task.
    pub idle_count: u32,
    /// Of these, running one.
    pub busy_count: u32,
    /// Tasks that wait.
    pub pending_tasks: u64,
    /// What the pool and its tasks use.
    pub resources: Resources,
    /// Everything that there is to say.
    pub record: StatusRecord,
}

impl From<StatusRecord> for PoolStatus {
    fn from(record: StatusRecord) -> Self {
        let workers = &record.workers;
        Self {
            active_count: workers.active,
            idle_count: workers.idle,
            busy_count: workers.busy,
            pending_tasks: record.tasks.pending,
            resources: record.resources,
            record,
        }
    }
}

/// What all handles of one pool share.
#[derive(Debug)]
pub(super) struct Inner {
    dirs: Dirs,
    lines: Mutex<Vec<Line>>,
    hub: OnceLock<Hub>,
    /// Held while the hub is being started, so that there is one.
    hub_start: Mutex<()>,
    /// The pool's process, if it is ours.
    process: Mutex<Option<PoolProcess>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.get() {
            hub.close();
        }
    }
}

/// A pool. Clones are handles of the same one; when the last of them is dropped, a pool that was started by this program is
/// ended: what runs is killed, and queued again in a durable queue. [`WorkerPool::stop`] ends it in peace.
///
/// Every call may come from any thread, and waits in it. [`WorkerPool::cancellable`] and [`WorkerPool::within`] give handles
/// whose calls can be ended from outside, or take a bounded time.
#[derive(Debug, Clone)]
pub struct WorkerPool {
    inner: Arc<Inner>,
    token: Option<CancelToken>,
    timeout: Option<Duration>,
}

impl WorkerPool {
    /// Starts a pool of this program, which must have called [`init`](super::init) at the top of `main`. It ends with this
    /// program, however that ends.
    ///
    /// # Errors
    /// An option is wrong, the queue is held by another pool ([`ApiError::Held`]; one that is ending is waited for), or the
    /// pool does not start.
    pub fn start(options: WorkerPoolOptions) -> Result<Self, ApiError> {
        Self::start_with(options, None, None)
    }

    /// The same, ended by `token`, and bounded by `timeout`. Its calls are so as well.
    ///
    /// # Errors
    /// As for [`WorkerPool::start`], and that it was ended.
    pub fn start_with(
        options: WorkerPoolOptions,
        token: Option<&CancelToken>,
        timeout: Option<Duration>,
    ) -> Result<Self, ApiError> {
        // Told here, in the caller's own process, where it is cheap.
        options.check()?;
        if options.program.is_none() && !role::is_capable() {
            return Err(ApiError::NotInitialised);
        }
        let folder = match &options.place {
            Place::Private => Some(tempfile::Builder::new().prefix("acode-pool-").tempdir().map_err(ApiError::Folder)?),
            Place::Durable(_) => None,
        };
        let state = match (&options.place, &folder) {
            (Place::Durable(state), _) => Some(state.as_path()),
            (Place::Private, folder) => folder.as_ref().map(tempfile::TempDir::path),
        };
        let dirs = Dirs::find(state, &Vars::new())?;
        let letter = Letter {
            state: dirs.state.clone(),
            runtime: dirs.runtime.clone(),
            file: options.file.as_deref().map(std::path::absolute).transpose().map_err(ApiError::Folder)?,
            options: options.keys,
            doomed: folder.is_some(),
        };
        let patience = Patience::of(token.cloned(), timeout);
        let mut folder = folder;
        let deadline = Instant::now() + HANDOVER;
        let process = loop {
            match PoolProcess::execute(options.program.as_deref(), &letter, folder.take(), &patience) {
                Err(ApiError::Held { .. }) if Instant::now() < deadline && is_ending(&dirs.control_socket()) => {}
                started => break started?,
            }
        };
        Ok(Self::with(dirs, Some(process), token.cloned(), timeout))
    }

    /// The pool that runs with this state directory, as `acode worker start --state-dir` has started it; with none, the
    /// usual one of this user.
    ///
    /// # Errors
    /// None does.
    pub fn attach(state_directory: Option<&Path>) -> Result<Self, ApiError> {
        let vars: Vars = std::env::vars_os().collect();
        let pool = Self::with(Dirs::find(state_directory, &vars)?, None, None, None);
        pool.call(&request::Ping {})?;
        Ok(pool)
    }

    fn with(dirs: Dirs, process: Option<PoolProcess>, token: Option<CancelToken>, timeout: Option<Duration>) -> Self {
        let inner = Inner {
            dirs,
            lines: Mutex::default(),
            hub: OnceLock::new(),
            hub_start: Mutex::default(),
            process: Mutex::new(process),
        };
        Self { inner: Arc::new(inner), token, timeout }
    }

    /// A handle whose calls `token` ends.
    #[must_use]
    pub fn cancellable(&self, token: &CancelToken) -> Self {
        Self { token: Some(token.clone()), ..self.clone() }
    }

    /// A handle each of whose calls takes at most so long.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self.clone() }
    }

    /// Where its queue is.
    pub fn state_directory(&self) -> &Path {
        &self.inner.dirs.state
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.inner.dirs.control_socket()
    }

    /// The supervisor's process, if this program has started the pool.
    pub fn pid(&self) -> Option<u32> {
        self.inner.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(PoolProcess::pid)
    }

    /// Stops the pool. Tasks that run may finish, for as long as the drain timeout says; with `force` they are killed. What
    /// is left is queued, and is run by the next pool of a durable queue. Callbacks are called before this returns.
    ///
    /// # Errors
    /// It is not running, or the wait was ended.
    pub fn stop(&self, force: bool) -> Result<(), ApiError> {
        self.stop_as(if force { StopMode::Force } else { StopMode::Drain })
    }

    /// The same, when everything that is queued has been run.
    ///
    /// # Errors
    /// As for [`WorkerPool::stop`].
    pub fn stop_when_empty(&self) -> Result<(), ApiError> {
        self.stop_as(StopMode::WhenEmpty)
    }

    fn stop_as(&self, mode: StopMode) -> Result<(), ApiError> {
        let patience = self.patience();
        let mut line = Line::connect(&self.socket())?;
        line.begin(&Stop { mode, timeout_ms: None })?;
        loop {
            match line.next::<Stop>(&patience) {
                Ok(_) => {}
                // Hanging up is how it says that it has stopped.
                Err(ApiError::Client(ClientError::HungUp)) => break,
                Err(error) => return Err(error),
            }
        }
        if let Some(hub) = self.inner.hub.get() {
            hub.join();
        }
        let process = self.inner.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = &*process {
            process.wait();
        }
        Ok(())
    }

    /// Changes the number of workers; it holds until [`WorkerPool::autoscale`]. Gives the number before.
    ///
    /// # Errors
    /// There may not be so many, or the pool cannot be reached.
    pub fn scale(&self, count: u32) -> Result<u32, ApiError> {
        Ok(self.call(&Scale { count })?.before)
    }

    /// Hands the number of workers back to the load. Gives the number that there shall be.
    ///
    /// # Errors
    /// Scaling by load is off, or the pool cannot be reached.
    pub fn autoscale(&self) -> Result<u32, ApiError> {
        Ok(self.call(&Autoscale {})?.target)
    }

    /// The workers, oldest first.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn workers(&self) -> Result<Vec<WorkerInfo>, ApiError> {
        Ok(self.call(&Workers {})?.workers)
    }

    /// How the pool stands.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn status(&self) -> Result<PoolStatus, ApiError> {
        Ok(self.call(&Status {})?.status.into())
    }

    /// The pool's figures since its start.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn metrics(&self) -> Result<PoolMetrics, ApiError> {
        Ok(self.call(&Metrics::default())?.metrics)
    }

    /// Asks every worker for a sign of life, and gives what came of it.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn perform_health_checks(&self) -> Result<Vec<CheckRecord>, ApiError> {
        Ok(self.call(&Check {})?.workers)
    }

    /// Has the pool start no further tasks, also after a restart.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn pause(&self, reason: Option<&str>) -> Result<(), ApiError> {
        self.call(&Pause { reason: reason.map(str::to_owned) }).map(drop)
    }

    /// Ends the pause.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn resume(&self) -> Result<(), ApiError> {
        self.call(&Resume {}).map(drop)
    }

    /// Has the pool read its configuration file again.
    ///
    /// # Errors
    /// Something in it is wrong, or the pool cannot be reached.
    pub fn reload(&self) -> Result<(), ApiError> {
        self.call(&Reload {}).map(drop)
    }

    /// Submits a task. When this returns it is on disk, and will be run.
    ///
    /// # Errors
    /// It is refused, or the pool cannot be reached.
    pub fn submit(&self, task: impl Into<Task>) -> Result<TaskHandle, ApiError> {
        let id = self.submit_one(task.into())?;
        Ok(self.handle(id))
    }

    /// Submits any number of tasks, in their order, and waits for room while the queue is nearly full. A later task may wait
    /// for an earlier one by its place. They are accepted in parts: if one is refused, those before it may be accepted.
    ///
    /// # Errors
    /// One is refused, or the pool cannot be reached.
    pub fn submit_all(&self, tasks: impl IntoIterator<Item = Task>) -> Result<Vec<TaskId>, ApiError> {
        let mut ids = Vec::new();
        let tasks = tasks.into_iter().map(|task| Ok::<_, ApiError>(Submission::from(task)));
        let mut client = Client::connect(&self.socket())?;
        let accepted = |accepted: &[TaskId]| ids.extend_from_slice(accepted);
        submit_to_pool::<_, ApiError>(&mut client, tasks, RoomWait::Usual, || {}, &self.patience(), accepted)?;
        Ok(ids)
    }

    /// Submits a task, and has `callback` called when it has ended, on the library's thread. A callback may call the pool;
    /// while it does, others wait. Its panics are caught. The error of the outcome says that nobody knows how it ended,
    /// or that the pool has stopped before it did.
    ///
    /// # Errors
    /// It is refused, or the pool cannot be reached; then nobody is called.
    pub fn submit_with(
        &self,
        task: impl Into<Task>,
        callback: impl FnOnce(Result<TaskOutcome, ApiError>) + Send + 'static,
    ) -> Result<TaskHandle, ApiError> {
        let expected = self.hub()?.expect();
        let id = self.submit_one(task.into())?;
        expected.accepted([(id, Box::new(callback) as _)]);
        Ok(self.handle(id))
    }

    fn submit_one(&self, task: Task) -> Result<TaskId, ApiError> {
        let ids = self.call(&Submit::new(vec![Submission::from(task)]))?.ids;
        ids.first().copied().ok_or_else(|| ApiError::Usage("the pool has accepted nothing".to_owned()))
    }

    /// The handle of a task that is in the queue.
    pub fn handle(&self, id: TaskId) -> TaskHandle {
        TaskHandle::new(self, id)
    }

    /// Cancels tasks: a running one is ended. Gives those that could be; the others have ended already.
    ///
    /// # Errors
    /// There is no such task, or the pool cannot be reached.
    pub fn cancel(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, ApiError> {
        let mut cancelled = Vec::new();
        for chunk in ids.chunks(MAX_IDS) {
            let ids = chunk.iter().copied().map(TaskRef::from).collect();
            cancelled.extend(self.call(&Cancel { ids, ..Cancel::default() })?.cancelled);
        }
        Ok(cancelled)
    }

    /// Everything about one task, by its id, or by a number, a name or the beginning of an id.
    ///
    /// # Errors
    /// There is no such task, or the pool cannot be reached.
    pub fn task(&self, task: impl Into<TaskRef>) -> Result<TaskRecord, ApiError> {
        Ok(self.call(&request::Show { id: task.into() })?.task)
    }

    /// The events from now on, as they happen.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn events(&self) -> Result<Events, ApiError> {
        let last = self.last_event()?;
        self.events_after(last)
    }

    /// The events after the one with this number, and then as they happen. 0 is before all that are kept.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn events_after(&self, seq: u64) -> Result<Events, ApiError> {
        Events::new(Line::connect(&self.socket())?, seq, Patience { token: self.token.clone(), deadline: None })
    }

    /// The number of the last event: whoever follows from there misses nothing that is submitted later.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn last_event(&self) -> Result<u64, ApiError> {
        Ok(self.metrics()?.events)
    }

    /// Has `listener` called with each event of this kind, on the library's thread, from now on. Gives the number by which
    /// [`WorkerPool::off`] takes it back.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn on(&self, kind: EventKind, listener: impl FnMut(&Event) + Send + 'static) -> Result<u64, ApiError> {
        Ok(self.hub()?.listen(Some(kind), listener))
    }

    /// The same with every event.
    ///
    /// # Errors
    /// The pool cannot be reached.
    pub fn on_any(&self, listener: impl FnMut(&Event) + Send + 'static) -> Result<u64, ApiError> {
        Ok(self.hub()?.listen(None, listener))
    }

    /// Takes a listener back, and says whether it was there.
    pub fn off(&self, listener: u64) -> bool {
        self.inner.hub.get().is_some_and(|hub| hub.unlisten(listener))
    }

    /// The executor that runs typed actions in this pool.
    pub fn executor(&self) -> super::WorkerExecutor {
        super::WorkerExecutor::new(self.clone())
    }

    pub(super) fn hub(&self) -> Result<&Hub, ApiError> {
        let inner = &self.inner;
        let _starting = inner.hub_start.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = inner.hub.get() {
            return Ok(hub);
        }
        let hub = Hub::start(&inner.dirs, &self.patience())?;
        Ok(inner.hub.get_or_init(|| hub))
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::of(self.token.clone(), self.timeout)
    }

    pub(super) fn dirs(&self) -> &Dirs {
        &self.inner.dirs
    }

    /// A call on a connection that is kept, or a fresh one.
    pub(super) fn call<M: Method>(&self, request: &M) -> Result<M::Reply, ApiError> {
        let patience = self.patience();
        self.with_line(|line| line.call(request, &patience))
    }

    /// Lends a connection. It is kept if all went well on it.
    pub(super) fn with_line<T>(&self, act: impl FnOnce(&mut Line) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let lines = || self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = std::iter::from_fn(|| lines().pop()).find(Line::is_fresh);
        let mut line = match kept {
            Some(line) => line,
            None => Line::connect(&self.socket())?,
        };
        let done = act(&mut line);
        let answered = matches!(&done, Ok(_) | Err(ApiError::Client(ClientError::Call(_))));
        let mut lines = lines();
        if answered && lines.len() < LINES_MAX {
            lines.push(line);
        }
        done
    }

    /// What a handle of a task keeps: it does not keep the pool.
    pub(super) fn weak(&self) -> WeakPool {
        WeakPool { inner: Arc::downgrade(&self.inner), token: self.token.clone(), timeout: self.timeout }
    }
}

/// Whether the pool that holds a queue is about to let go of it: that of a program which was killed a moment ago has yet to
/// end its tasks.
fn is_ending(socket: &Path) -> bool {
    // It may still have to notice.
    std::thread::sleep(NOTICE);
    let state = || -> Result<PoolState, ClientError> {
        let mut client = Client::connect(socket)?;
        client.set_patience(Some(Duration::from_secs(1)))?;
        Ok(client.call(&Status {})?.status.pool.state)
    };
    !matches!(state(), Ok(PoolState::Running | PoolState::Paused))
}

/// A pool that may have been dropped.
#[derive(Debug, Clone)]
pub(super) struct WeakPool {
    inner: Weak<Inner>,
    token: Option<CancelToken>,
    timeout: Option<Duration>,
}

impl WeakPool {
    pub fn get(&self) -> Result<WorkerPool, ApiError> {
        let inner = self.inner.upgrade().ok_or(ApiError::NotRunning)?;
        Ok(WorkerPool { inner, token: self.token.clone(), timeout: self.timeout })
    }
}
