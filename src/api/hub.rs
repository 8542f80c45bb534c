//! Callbacks: one library thread, fed by one stream of events, that calls whoever wants to be told.
//!
//! It follows the pool's events from a number before the first submission that asks for a call, so no end can be missed;
//! when an end comes it asks for the task's record and calls back. When the connection breaks it goes on from the last number
//! that it has seen, in whatever holds the queue then: the same pool, the next one, or nobody, of whom what has ended until
//! then can still be learnt. Deliberately absent: waiting, which needs no thread but the caller's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId, sleep};
use std::time::{Duration, Instant};

use acode_worker::task::TaskId;
use nix::sys::eventfd::EventFd;

use super::cancel::{Patience, bell};
use super::event::{Event, follow};
use super::line::Line;
use super::{ApiError, Door, Need, TaskOutcome};
use crate::rundir::{Dirs, Vars};
use crate::store::EventKind;
use crate::wire::request::{Events, Metrics, Show};
use crate::wire::{CallError, ClientError};

/// How many ends are remembered that came before the answer to a submission.
const EARLY_MAX: usize = 100_000;
/// How many records are asked for at once: so few that their requests always fit into the socket.
const ASKED_AT_ONCE: usize = 32;
/// How long a pool that has gone is waited for, if tasks are still to be told of.
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(20);

/// Called with a task's end.
pub(super) type Callback = Box<dyn FnOnce(Result<TaskOutcome, ApiError>) + Send>;
/// Called with each event.
type Listener = Arc<Mutex<dyn FnMut(&Event) + Send>>;

/// The library's thread, and what it shares with the callers.
#[derive(Debug)]
pub(super) struct Hub {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    id: ThreadId,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bell: EventFd,
}

#[derive(Default)]
struct State {
    waiting: HashMap<TaskId, Callback>,
    /// Submissions under way: until their ids are known, the ends that come are remembered.
    submitting: u32,
    early: HashSet<TaskId>,
    /// More came early than are remembered.
    overflow: bool,
    /// To be asked about without an event.
    look: Vec<TaskId>,
    listeners: BTreeMap<u64, (Option<EventKind>, Listener)>,
    last_listener: u64,
    /// Nobody will be told of anything any more.
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // A counter that is full rings as well.
        let _ = self.bell.write(1);
    }
}

impl Hub {
    /// Begins to follow.
    ///
    /// # Errors
    /// The pool cannot be reached, or there can be no thread.
    pub fn start(dirs: &Dirs, patience: &Patience) -> Result<Self, ApiError> {
        let socket = dirs.control_socket();
        let mut asker = Line::connect(&socket)?;
        let after = asker.call(&Metrics::default(), patience)?.metrics.events;
        let mut line = Line::connect(&socket)?;
        line.begin(&follow(after))?;
        let shared = Arc::new(Shared { state: Mutex::default(), bell: bell()? });
        let mut follower = Follower {
            dirs: dirs.clone(),
            socket,
            shared: Arc::clone(&shared),
            asker: Asker::Pool(asker),
            after,
            ended: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("acode-callbacks".to_owned());
        let thread = thread.spawn(move || follower.run(line));
        let thread = thread.map_err(|source| ApiError::System { doing: "start a thread for callbacks", source })?;
        let id = thread.thread().id();
        Ok(Self { shared, thread: Mutex::new(Some(thread)), id })
    }

    /// Says that a submission begins whose ends are to be told.
    pub fn expect(&self) -> Expected<'_> {
        self.shared.state().submitting += 1;
        Expected { hub: self }
    }

    /// Has `listener` called with each event of this kind; of any, if none is given. Gives the number to take it back by.
    pub fn listen(&self, kind: Option<EventKind>, listener: impl FnMut(&Event) + Send + 'static) -> u64 {
        let mut state = self.shared.state();
        state.last_listener += 1;
        let number = state.last_listener;
        state.listeners.insert(number, (kind, Arc::new(Mutex::new(listener))));
        number
    }

    /// Takes a listener back. A call of it that is under way goes on.
    pub fn unlisten(&self, number: u64) -> bool {
        self.shared.state().listeners.remove(&number).is_some()
    }

    /// Waits until the thread has told of everything, after the pool has stopped. A callback does not wait for itself.
    pub fn join(&self) {
        if std::thread::current().id() == self.id {
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Panics of callbacks are caught where they are called.
            let _ = thread.join();
        }
    }

    /// Ends the thread. Nobody is called any more.
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.shared.ring();
        self.join();
    }
}

/// A submission under way whose ends are to be told.
pub(super) struct Expected<'h> {
    hub: &'h Hub,
}

impl Expected<'_> {
    /// The submission was accepted: whom to call for which task.
    pub fn accepted(self, callbacks: impl IntoIterator<Item = (TaskId, Callback)>) {
        let mut state = self.hub.shared.state();
        let mut look = Vec::new();
        for (id, callback) in callbacks {
            if state.overflow || state.early.remove(&id) || state.closed {
                look.push(id);
            }
            state.waiting.insert(id, callback);
        }
        state.look.append(&mut look);
        drop(state);
        self.hub.shared.ring();
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut state = self.hub.shared.state();
        state.submitting = state.submitting.saturating_sub(1);
        if state.submitting == 0 {
            (state.early, state.overflow) = (HashSet::new(), false);
        }
    }
}

/// Who is asked for records.
#[derive(Debug)]
enum Asker {
    Pool(Line),
    Queue(Door),
}

/// The thread's own part.
struct Follower {
    dirs: Dirs,
    socket: PathBuf,
    shared: Arc<Shared>,
    asker: Asker,
    /// The number of the last event seen.
    after: u64,
    /// Tasks to ask for, whose end has come.
    ended: Vec<TaskId>,
}

impl Follower {
    fn run(&mut self, mut line: Line) {
        loop {
            match self.follow(&mut line) {
                Ok(()) => return,
                Err(_) => match self.find_again() {
                    Some(again) => line = again,
                    None => return,
                },
            }
        }
    }

    /// Follows the pool until nobody wants to be told any more.
    fn follow(&mut self, line: &mut Line) -> Result<(), ApiError> {
        loop {
            if self.take_looks() {
                return Ok(());
            }
            self.tell_ended()?;
            let Some((batch, _)) = line.next_or_bell::<Events>(self.shared.bell.as_fd())? else { continue };
            if batch.missed > 0 {
                // Their ends may be among what was removed.
                self.look_at_all();
            }
            for record in batch.events {
                self.after = record.seq;
                let event = Event::from(record);
                self.note(&event);
                self.tell_listeners(&event);
            }
        }
    }

    /// Takes what is to be looked at, and whether to end.
    fn take_looks(&mut self) -> bool {
        while self.shared.bell.read().is_ok() {}
        let mut state = self.shared.state();
        self.ended.append(&mut state.look);
        state.closed
    }

    fn look_at_all(&mut self) {
        let state = self.shared.state();
        self.ended = state.waiting.keys().copied().collect();
    }

    /// Notes the end of a task that somebody waits for, or may be about to.
    fn note(&mut self, event: &Event) {
        let (Some(id), Some(kind)) = (event.task, event.kind) else { return };
        if !is_end(kind) {
            return;
        }
        let mut state = self.shared.state();
        if state.waiting.contains_key(&id) {
            self.ended.push(id);
        } else if state.submitting > 0 {
            if state.early.len() < EARLY_MAX {
                state.early.insert(id);
            } else {
                state.overflow = true;
            }
        }
    }

    fn tell_listeners(&self, event: &Event) {
        let asked = |wanted: &Option<EventKind>| wanted.is_none() || *wanted == event.kind;
        let state = self.shared.state();
        if state.listeners.is_empty() {
            return;
        }
        let listeners = state.listeners.values().filter(|(wanted, _)| asked(wanted));
        let listeners: Vec<Listener> = listeners.map(|(_, listener)| Arc::clone(listener)).collect();
        drop(state);
        for listener in listeners {
            let mut listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
            // What a panic leaves half done is the listener's own; the hook of the program has told of it.
            let _ = catch_unwind(AssertUnwindSafe(|| listener(event)));
        }
    }

    /// Asks for the records of what has ended, and calls back.
    fn tell_ended(&mut self) -> Result<(), ApiError> {
        while !self.ended.is_empty() {
            let asked: Vec<TaskId> = self.ended[..self.ended.len().min(ASKED_AT_ONCE)].to_vec();
            let answers = self.asker.ask(&asked)?;
            self.ended.drain(..asked.len());
            for (id, answer) in asked.into_iter().zip(answers) {
                let outcome = match answer {
                    Ok(None) => continue,
                    Ok(Some(outcome)) => Ok(outcome),
                    Err(error) => Err(error),
                };
                let callback = self.shared.state().waiting.remove(&id);
                call(callback, outcome);
            }
        }
        Ok(())
    }

    /// After the connection broke: looks for whoever holds the queue now. If it is a pool, gives the line to follow it on;
    /// else everybody who waits has been told what there is to tell.
    fn find_again(&mut self) -> Option<Line> {
        let deadline = Instant::now() + PATIENCE;
        while !self.shared.state().closed {
            match Door::open(&self.dirs, &Vars::new(), Need::Queue) {
                Ok(Door::Pool(_)) => {
                    if let Some(line) = self.reconnect() {
                        return Some(line);
                    }
                }
                Ok(queue) => {
                    self.asker = Asker::Queue(queue);
                    self.look_at_all();
                    // What it cannot say nobody can.
                    let _ = self.tell_ended();
                    break;
                }
                Err(_) => {}
            }
            if Instant::now() > deadline {
                break;
            }
            sleep(NAP);
        }
        let mut state = self.shared.state();
        state.closed = true;
        let left = std::mem::take(&mut state.waiting);
        state.listeners.clear();
        drop(state);
        left.into_values().for_each(|callback| call(Some(callback), Err(ApiError::NotRunning)));
        None
    }

    fn reconnect(&mut self) -> Option<Line> {
        let asker = Line::connect(&self.socket).ok()?;
        let mut line = Line::connect(&self.socket).ok()?;
        line.begin(&follow(self.after)).ok()?;
        self.asker = Asker::Pool(asker);
        self.look_at_all();
        Some(line)
    }
}

impl Asker {
    /// How these tasks have ended; nothing of one that has not. The inner error is that of one task.
    fn ask(&mut self, ids: &[TaskId]) -> Result<Vec<Result<Option<TaskOutcome>, ApiError>>, ApiError> {
        let requests = ids.iter().map(|id| Show { id: (*id).into() });
        match self {
            Self::Pool(line) => {
                let requests: Vec<Show> = requests.collect();
                let answers = line.call_each(&requests, &Patience::default())?;
                Ok(answers.into_iter().map(|answer| Ok(TaskOutcome::of(answer?.task))).collect())
            }
            Self::Queue(door) => {
                let mut show = |request: Show| Ok(TaskOutcome::of(door.call(&request)?.task));
                Ok(requests.map(&mut show).collect())
            }
        }
    }
}

/// Whether such an event may be the end of its task.
fn is_end(kind: EventKind) -> bool {
    use EventKind as E;
    matches!(kind, E::TaskCompleted | E::TaskFailed | E::TaskTimeout | E::TaskCancelled)
}

fn call(callback: Option<Callback>, outcome: Result<TaskOutcome, ApiError>) {
    let Some(callback) = callback else { return };
    // As with listeners.
    let _ = catch_unwind(AssertUnwindSafe(|| callback(outcome)));
}

/// Whether the error says that there is no such task any more.
pub(super) fn is_absent(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::Call(CallError::NoSuchTask { .. })
            | ApiError::Client(ClientError::Call(CallError::NoSuchTask { .. }))
    )
}
