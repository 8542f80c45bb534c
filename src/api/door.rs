//! The one way to the queue: through the pool that runs, else by holding the queue oneself.
//!
//! Both answer the same requests, so whoever asks does not know which it is. Deliberately absent: starting a pool.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use acode_worker::task::{Limits, Submission, TaskId};

use super::cancel::Patience;
use super::{ApiError, role};
use crate::config::{self, Overrides};
use crate::local::{Local, LocalError};
use crate::rundir::{Dirs, LockError, Vars};
use crate::store::Hooks;
use crate::wire::request::{Status, Submit};
use crate::wire::types::PoolState;
use crate::wire::{Bulk, CallError, Client, ClientError, Method, Request, Slowness};

/// How long a pool may take between holding the queue and listening, when it starts, or the other way round.
const PATIENCE: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(5);
/// How often a submission that waits for room looks whether the pool gets on.
const LOOK: Duration = Duration::from_secs(5);
/// How often one that can be ended from outside looks whether it was.
const GLANCE: Duration = Duration::from_millis(50);
/// Entries of one transaction when the queue is written directly.
const BATCH: usize = 5_000;

/// What one can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing but a running pool will do.
    Pool,
    /// A queue that is there already will do.
    Queue,
    /// A queue will be made if there is none.
    NewQueue,
}

/// How long a submission waits for room while the queue is nearly full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomWait {
    /// Not at all.
    Never,
    /// So long.
    For(Duration),
    /// One task as long as the pool is configured to, many for as long as tasks end.
    Usual,
}

impl RoomWait {
    /// What a single call says, in milliseconds.
    pub fn ms(self) -> Option<u64> {
        match self {
            Self::Never => Some(0),
            Self::For(time) => Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            Self::Usual => None,
        }
    }
}

/// The queue, through whoever holds it.
#[derive(Debug)]
pub enum Door {
    /// A pool is running.
    Pool(Client),
    /// None is, and we hold the queue as long as this lives.
    Queue(Box<Local>),
}

impl Door {
    /// Opens the one in these directories. `vars` is the environment: the configuration of a queue without a pool, which
    /// bounds what is submitted to it, is found by it.
    ///
    /// # Errors
    /// There is less than is needed, or somebody holds the queue who does not answer.
    pub fn open(dirs: &Dirs, vars: &Vars, need: Need) -> Result<Self, ApiError> {
        let socket = dirs.control_socket();
        let started = Instant::now();
        loop {
            let absent = match Client::connect(&socket) {
                Ok(client) => return Ok(Self::Pool(client)),
                Err(error @ ClientError::NotRunning { .. }) => error,
                Err(error) => return Err(error.into()),
            };
            match need {
                Need::Pool => return Err(absent.into()),
                Need::Queue if !dirs.queue_db().exists() => {
                    return Err(ApiError::NoQueue(dirs.state.display().to_string()));
                }
                Need::Queue | Need::NewQueue => {}
            }
            let (limit, max, hooks) = settings(vars, need)?;
            match Local::open(dirs, limit, max, hooks, role::registry()) {
                Ok(local) => return Ok(Self::Queue(Box::new(local))),
                // A pool that is just starting, or another client that writes for a moment.
                Err(LocalError::Lock(LockError::Held { .. })) if started.elapsed() < PATIENCE => sleep(NAP),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks and waits for the one reply.
    ///
    /// # Errors
    /// It was not done, or only a pool could do it.
    pub fn call<M>(&mut self, request: &M) -> Result<M::Reply, ApiError>
    where
        M: Method + Clone + Into<Request>,
    {
        match self {
            Self::Pool(client) => Ok(client.call(request)?),
            Self::Queue(local) => match local.answer(request.clone().into())? {
                Some(reply) => Ok(serde_json::from_str(reply.get())?),
                None => Err(ApiError::NotRunning),
            },
        }
    }

    /// Asks and gives each of the replies to `each`; there is one if no pool is running.
    ///
    /// # Errors
    /// It was not done, or only a pool could do it, or `each` said so.
    pub fn stream<M, E>(&mut self, request: &M, mut each: impl FnMut(M::Reply) -> Result<(), E>) -> Result<(), E>
    where
        M: Method + Clone + Into<Request>,
        E: From<ApiError>,
    {
        match self {
            Self::Pool(client) => {
                let mut replies = client.call_more(request).map_err(ApiError::from)?;
                replies.try_for_each(|reply| each(reply.map_err(ApiError::from)?))
            }
            Self::Queue(_) => each(self.call(request)?),
        }
    }

    /// Submits any number of tasks, whose dependencies may name earlier ones by their place. `accepted` gets the ids as
    /// they are on disk. Ends at the first error, be it of `tasks` or of the queue; what was accepted until then stays.
    /// `full` is called once if the queue is nearly full, so that this takes its time.
    ///
    /// # Errors
    /// That first one.
    pub fn submit_all<T, E>(
        &mut self,
        tasks: impl Iterator<Item = Result<Submission, T>>,
        wait: RoomWait,
        full: fn(),
        mut accepted: impl FnMut(&[TaskId]),
    ) -> Result<(), E>
    where
        E: From<T> + From<ApiError>,
    {
        match self {
            Self::Pool(client) => submit_to_pool(client, tasks, wait, full, &Patience::default(), accepted),
            Self::Queue(_) => {
                let mut known: Vec<TaskId> = Vec::new();
                let mut batch: Vec<Submission> = Vec::new();
                for task in tasks {
                    batch.push(link(task?, &known));
                    if batch.len() == BATCH {
                        self.submit_batch(&mut batch, &mut known, &mut accepted)?;
                    }
                }
                Ok(self.submit_batch(&mut batch, &mut known, &mut accepted)?)
            }
        }
    }

    fn submit_batch(
        &mut self,
        batch: &mut Vec<Submission>,
        known: &mut Vec<TaskId>,
        accepted: &mut impl FnMut(&[TaskId]),
    ) -> Result<(), ApiError> {
        if batch.is_empty() {
            return Ok(());
        }
        let submitted = self.call(&Submit::new(std::mem::take(batch))).map_err(|error| match error {
            ApiError::Call(error) => ApiError::Call(error.behind(known.len())),
            other => other,
        });
        let ids = submitted?.ids;
        accepted(&ids);
        known.extend_from_slice(&ids);
        Ok(())
    }
}

/// [`Door::submit_all`] through a pool, bounded by this patience.
pub(super) fn submit_to_pool<T, E>(
    client: &mut Client,
    tasks: impl Iterator<Item = Result<Submission, T>>,
    wait: RoomWait,
    full: fn(),
    patience: &Patience,
    accepted: impl FnMut(&[TaskId]),
) -> Result<(), E>
where
    E: From<T> + From<ApiError>,
{
    let slowness = slowness(client, wait, full, patience)?;
    let mut bulk = Bulk::new(client, true, accepted).slowed(slowness);
    let mut failed: Option<E> = None;
    for task in tasks {
        let pushed =
            task.map_err(E::from).and_then(|task| bulk.push(&task).map_err(|error| ApiError::from(error).into()));
        if let Err(error) = pushed {
            failed = Some(error);
            break;
        }
    }
    let finished = bulk.finish();
    // An end from outside came as an error of the connection.
    patience.check()?;
    client.set_patience(None).map_err(|error| ApiError::from(ClientError::Io(error)))?;
    failed.map_or(Ok(()), Err)?;
    finished.map_err(ApiError::from)?;
    Ok(())
}

/// How a bulk submission meets the queue of this pool.
fn slowness<'p>(
    client: &mut Client,
    wait: RoomWait,
    full: fn(),
    patience: &'p Patience,
) -> Result<Slowness<'p>, ApiError> {
    let limit = client.call(&Status {})?.status.queue.limit;
    // A tenth of the queue fits above the usual threshold in any case.
    let slowness = Slowness { wait_ms: wait.ms(), tasks_max: (limit / 10).max(1), ..Slowness::default() };
    let socket = client.socket();
    let (RoomWait::Usual, Some(socket)) = (wait, socket) else { return Ok(slowness) };
    // The order of tasks would suffer if a call were refused and repeated behind a later one: so they wait without a
    // bound, and we look from outside whether that leads anywhere.
    let look = if patience.is_endless() { LOOK } else { GLANCE };
    client.set_patience(Some(look)).map_err(ClientError::Io)?;
    let mut progress = Progress { socket, ended: None, full, next: Instant::now() + LOOK };
    let go_on = move || {
        if patience.check().is_err() {
            return Err(ClientError::Unfinished);
        }
        if Instant::now() < progress.next { Ok(()) } else { progress.go_on() }
    };
    Ok(Slowness { wait_ms: Some(u64::MAX), go_on: Box::new(go_on), ..slowness })
}

/// Whether a pool whose queue is full gets on with it.
struct Progress {
    socket: PathBuf,
    /// How many tasks had ended at the last look.
    ended: Option<u64>,
    /// Told once that there is something to wait for.
    full: fn(),
    /// When to look again.
    next: Instant,
}

impl Progress {
    fn go_on(&mut self) -> Result<(), ClientError> {
        self.next = Instant::now() + LOOK - GLANCE;
        let status = Client::connect(&self.socket)?.call(&Status {})?.status;
        let tasks = status.tasks;
        if self.ended.is_none() {
            (self.full)();
        }
        let ended = self.ended.replace(tasks.ended());
        // A pause ends one day, and so does what runs.
        let hope = ended != Some(tasks.ended()) || tasks.running + tasks.assigned > 0;
        if hope || status.pool.state == PoolState::Paused {
            return Ok(());
        }
        let queued = tasks.pending;
        Err(CallError::QueueFull { queued, limit: status.queue.limit }.into())
    }
}

/// Turns places in the whole into ids where they are known, else into places in the batch that follows those.
fn link(mut task: Submission, known: &[TaskId]) -> Submission {
    use acode_worker::task::Blocker;
    for dependency in &mut task.dependencies {
        if let Blocker::Entry(place) = dependency.on {
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            dependency.on = match known.get(place) {
                Some(id) => Blocker::Id(*id),
                None => Blocker::Entry(u32::try_from(place - known.len()).unwrap_or(u32::MAX)),
            };
        }
    }
    task
}

/// How many tasks the queue may hold, and what runs when one has ended. Who only looks is not kept from it by a
/// configuration that is wrong.
fn settings(vars: &Vars, need: Need) -> Result<(u64, Limits, Hooks), ApiError> {
    let loaded = config::load(None, vars, &Overrides::default());
    let (limit, max, tasks) = match (need, loaded) {
        (Need::NewQueue, loaded) => {
            let config = loaded?.config;
            (config.queue.max_tasks, config.workers.max_limits, config.tasks)
        }
        (Need::Pool | Need::Queue, Ok(loaded)) => (u64::MAX, Limits::default(), loaded.config.tasks),
        (Need::Pool | Need::Queue, Err(_)) => return Ok((u64::MAX, Limits::default(), Hooks::default())),
    };
    let timeout_ms = u64::try_from(tasks.on_finish_timeout.as_millis()).unwrap_or(u64::MAX);
    Ok((limit, max, Hooks { pool: tasks.on_finish, timeout_ms }))
}
