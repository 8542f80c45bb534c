//! Calls that are answered more than once, or later: waiting for tasks, watching a stop; `followers` has the events.
//!
//! All of them are fed from what was committed, never from what is about to be. A client that does not read is fed no
//! more until it does. Deliberately absent: the calls' beginnings, which are in `control`.

use std::collections::{BTreeMap, BTreeSet};

use acode_worker::task::{TaskId, TaskState};

use super::Supervisor;
use super::clients::ClientId;
use super::desk::{Active, Phase};
use super::followers::Follower;
use crate::records;
use crate::store::{StoreError, TaskKind};
use crate::wire::reply::{RunningTask, Waited};
use crate::wire::types::TaskCounts;

/// The shortest time between two replies about progress, in nanoseconds.
const PROGRESS_NS: u64 = 100_000_000;

/// What is waited for.
#[derive(Debug)]
pub enum Awaited {
    /// Everything in the queue; the counts of what had ended before are taken off.
    All {
        /// What had ended before.
        before: TaskCounts,
    },
    /// These tasks and arrays.
    These {
        /// Tasks that have not ended, by number.
        open: BTreeSet<u64>,
        /// Arrays by number, with their ids and how many members they have.
        arrays: BTreeMap<u64, (TaskId, u64)>,
        /// The ended tasks that are no arrays, counted.
        ended: TaskCounts,
    },
}

impl Awaited {
    /// Whether the task with this number, which has not ended, is waited for.
    fn concerns(&self, seq: u64) -> bool {
        match self {
            Self::All { .. } => true,
            Self::These { open, arrays, .. } => {
                let of_array = arrays.range(..=seq).next_back();
                open.contains(&seq) || of_array.is_some_and(|(first, (_, count))| seq <= first + count)
            }
        }
    }
}

/// One call of `Wait`.
#[derive(Debug)]
pub struct Waiter {
    /// Who waits.
    pub client: ClientId,
    /// Whether progress is wanted.
    pub more: bool,
    /// For what.
    pub awaited: Awaited,
    /// Those that did not complete, as far as they are to be named.
    pub unsuccessful: Vec<TaskId>,
    told: Option<(TaskCounts, Vec<RunningTask>)>,
    told_ns: u64,
}

impl Waiter {
    /// A new one.
    pub fn new(client: ClientId, more: bool, awaited: Awaited, unsuccessful: Vec<TaskId>) -> Self {
        Self { client, more, awaited, unsuccessful, told: None, told_ns: 0 }
    }

    fn note(&mut self, id: TaskId, state: TaskState) {
        let seq = id.seq();
        let concerns = match &mut self.awaited {
            Awaited::All { .. } => true,
            Awaited::These { open, arrays, ended } => {
                let single = open.remove(&seq);
                if single {
                    *ended.get_mut(state) += 1;
                }
                single || arrays.range(..=seq).next_back().is_some_and(|(first, (_, count))| seq <= first + count)
            }
        };
        if concerns && state != TaskState::Completed && self.unsuccessful.len() < Waited::MAX_NAMED {
            self.unsuccessful.push(id);
        }
    }
}

/// All calls that are going on.
#[derive(Debug, Default)]
pub struct Streams {
    waiters: Vec<Waiter>,
    pub(super) followers: Vec<Follower>,
    /// A follower would take more at once.
    pub(super) hungry: bool,
    stop_watchers: Vec<ClientId>,
    next_look_ns: u64,
}

impl Streams {
    /// Whether the loop has to come back at once.
    pub fn has_more(&self) -> bool {
        self.hungry
    }
}

impl Supervisor {
    /// Begins a wait; it may be over at once.
    pub(super) fn begin_wait(&mut self, waiter: Waiter) {
        self.clients.hold(waiter.client);
        self.streams.waiters.push(waiter);
        self.streams_dirty = true;
    }

    /// Begins to watch the stop.
    pub(super) fn begin_watching_stop(&mut self, client: ClientId) {
        self.streams.stop_watchers.push(client);
    }

    /// Forgets a client's calls.
    pub(super) fn forget_client(&mut self, client: ClientId) {
        self.backlog.forget(client);
        self.streams.waiters.retain(|waiter| waiter.client != client);
        self.streams.followers.retain(|follower| follower.client != client);
        self.streams.stop_watchers.retain(|watcher| *watcher != client);
    }

    /// Notes which tasks have ended, for those who wait for them.
    pub(super) fn note_ends(&mut self, ended: &[(TaskId, TaskState)]) {
        for waiter in &mut self.streams.waiters {
            ended.iter().for_each(|(id, state)| waiter.note(*id, *state));
        }
    }

    /// Tells what there is to tell.
    pub(super) fn feed_streams(&mut self) {
        let nobody = self.streams.waiters.is_empty()
            && self.streams.followers.is_empty()
            && self.streams.stop_watchers.is_empty();
        if nobody || !(self.streams_dirty || self.streams.hungry || self.now_ns >= self.streams.next_look_ns) {
            return;
        }
        self.streams_dirty = false;
        self.streams.next_look_ns = self.now_ns + PROGRESS_NS;
        if self.broken.is_none()
            && let Err(error) = self.feed_waiters().and_then(|()| self.feed_followers())
        {
            self.store_failed(&error);
        }
        self.feed_stop_watchers();
    }

    fn feed_waiters(&mut self) -> Result<(), StoreError> {
        let mut waiters = std::mem::take(&mut self.streams.waiters);
        let mut failed = None;
        waiters.retain_mut(|waiter| {
            if failed.is_some() {
                return true;
            }
            match self.feed_waiter(waiter) {
                Ok(over) => !over,
                Err(error) => {
                    failed = self.end_call(waiter.client, error).err();
                    failed.is_some()
                }
            }
        });
        waiters.append(&mut self.streams.waiters);
        self.streams.waiters = waiters;
        failed.map_or(Ok(()), Err)
    }

    /// Ends the call of a client that the queue has no answer to.
    ///
    /// # Errors
    /// The error, if it is nothing about the call: the queue has to be opened anew, and all are answered after that.
    pub(super) fn end_call(&mut self, client: ClientId, error: StoreError) -> Result<(), StoreError> {
        if error.needs_reopen() {
            return Err(error);
        }
        tracing::error!(error = crate::error_chain(&error), "a call is ended that the queue has no answer to");
        let error = self.refusal(error.into());
        self.answer_error(client, &error);
        Ok(())
    }

    /// Tells one waiter how things stand; true if that was the end.
    fn feed_waiter(&mut self, waiter: &mut Waiter) -> Result<bool, StoreError> {
        let due = waiter.told.is_none() || self.now_ns >= waiter.told_ns + PROGRESS_NS;
        let open = match &waiter.awaited {
            Awaited::All { .. } => self.store.counts().pending > 0,
            Awaited::These { open, .. } => !open.is_empty(),
        };
        if open && !(waiter.more && due) {
            // Counting what is assigned and running means a look at everything that is handed out.
            return Ok(false);
        }
        let counts = self.counts_for(&waiter.awaited)?;
        let left = counts.pending + counts.assigned + counts.running;
        if left == 0 {
            let unsuccessful = std::mem::take(&mut waiter.unsuccessful);
            self.clients.reply(waiter.client, &Waited { counts, unsuccessful, running: Vec::new() }, false);
            return Ok(true);
        }
        if !(waiter.more && due && self.clients.has_room(waiter.client)) {
            return Ok(false);
        }
        let running = self.running_of(&waiter.awaited)?;
        let told = (counts, running);
        if waiter.told.as_ref() != Some(&told) {
            let waited = Waited { counts, unsuccessful: Vec::new(), running: told.1.clone() };
            self.clients.reply(waiter.client, &waited, true);
            waiter.told = Some(told);
            waiter.told_ns = self.now_ns;
        }
        Ok(false)
    }

    /// The longest running ones of those that say how far they are.
    fn running_of(&self, awaited: &Awaited) -> Result<Vec<RunningTask>, StoreError> {
        let since = |active: &Active| match active.phase {
            Phase::Running { started_us, .. } => Some(started_us),
            Phase::Published | Phase::Ended => None,
        };
        let told = self.desk.iter().filter(|active| active.progress.is_some() && awaited.concerns(active.id.seq()));
        let mut told: Vec<_> = told.filter_map(|active| Some((since(active)?, active))).collect();
        told.sort_unstable_by_key(|(started_us, active)| (*started_us, active.id.seq()));
        let mut running = Vec::new();
        for (_, active) in told.into_iter().take(Waited::MAX_SHOWN) {
            let (Some(progress), Some(stored)) = (&active.progress, self.store.get(active.id)?) else { continue };
            let progress = records::progress(progress.percent, Some(progress.message.clone()));
            running.push(RunningTask { id: active.id, name: stored.spec.display_name().to_owned(), progress });
        }
        Ok(running)
    }

    fn counts_for(&self, awaited: &Awaited) -> Result<TaskCounts, StoreError> {
        match awaited {
            Awaited::All { before } => {
                let mut counts = self.task_counts();
                for state in TaskState::ALL.into_iter().filter(|state| state.is_final()) {
                    let now = counts.get_mut(state);
                    *now = now.saturating_sub(before.get(state));
                }
                Ok(counts)
            }
            Awaited::These { open, arrays, ended } => {
                let mut counts = *ended;
                counts.pending = open.len() as u64;
                for (id, count) in arrays.values() {
                    match self.store.get(*id)?.map(|record| record.kind) {
                        Some(TaskKind::Array(array)) => counts.add(records::array_counts(&array)),
                        // Pruned while we waited, so it had ended.
                        Some(TaskKind::Task | TaskKind::Member { .. }) | None => counts.completed += count,
                    }
                }
                self.mark_active(&mut counts, |seq| awaited.concerns(seq));
                Ok(counts)
            }
        }
    }

    /// Counts those of the pending tasks as assigned or running that are.
    pub(super) fn mark_active(&self, counts: &mut TaskCounts, concerns: impl Fn(u64) -> bool) {
        for active in self.desk.iter().filter(|active| concerns(active.id.seq())) {
            let to = match active.phase {
                Phase::Running { .. } | Phase::Ended => &mut counts.running,
                Phase::Published if self.producer.holder(active.ticket).is_some() => &mut counts.assigned,
                Phase::Published => continue,
            };
            *to += 1;
            counts.pending = counts.pending.saturating_sub(1);
        }
    }

    fn feed_stop_watchers(&mut self) {
        for client in self.streams.stop_watchers.clone() {
            if self.clients.has_room(client) {
                let reply = self.stopping();
                self.clients.reply(client, &reply, true);
            }
        }
    }
}
