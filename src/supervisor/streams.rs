//! Calls that are answered more than once, or later: waiting for tasks, following events, watching a stop.
//!
//! All of them are fed from what was committed, never from what is about to be. A client that does not read is fed no
//! more until it does. Deliberately absent: the calls' beginnings, which are in `control`.

use std::collections::{BTreeMap, BTreeSet};

use acode_worker::task::{TaskId, TaskState};

use super::Supervisor;
use super::clients::ClientId;
use super::desk::Phase;
use crate::records;
use crate::store::{StoreError, TaskKind};
use crate::wire::reply::{EventBatch, Waited};
use crate::wire::types::TaskCounts;

/// The shortest time between two replies about progress, in nanoseconds.
const PROGRESS_NS: u64 = 100_000_000;
/// The most events of one reply.
const EVENTS_PAGE: usize = 500;

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
    told: Option<TaskCounts>,
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

/// One call of `Events`.
#[derive(Debug)]
pub struct Follower {
    /// Who follows.
    pub client: ClientId,
    /// The last event that was sent.
    pub after: u64,
    /// Whether it goes on when all are sent.
    pub follow: bool,
}

/// All calls that are going on.
#[derive(Debug, Default)]
pub struct Streams {
    waiters: Vec<Waiter>,
    followers: Vec<Follower>,
    stop_watchers: Vec<ClientId>,
    next_look_ns: u64,
}

impl Supervisor {
    /// Begins a wait; it may be over at once.
    pub(super) fn begin_wait(&mut self, waiter: Waiter) {
        self.clients.hold(waiter.client);
        self.streams.waiters.push(waiter);
        self.streams_dirty = true;
    }

    /// Begins to follow events.
    pub(super) fn begin_following(&mut self, follower: Follower) {
        self.clients.hold(follower.client);
        self.streams.followers.push(follower);
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
        if nobody || !(self.streams_dirty || self.now_ns >= self.streams.next_look_ns) {
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
                    failed = Some(error);
                    true
                }
            }
        });
        waiters.append(&mut self.streams.waiters);
        self.streams.waiters = waiters;
        failed.map_or(Ok(()), Err)
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
            self.clients.reply(waiter.client, &Waited { counts, unsuccessful }, false);
            return Ok(true);
        }
        if waiter.more && due && waiter.told != Some(counts) && self.clients.has_room(waiter.client) {
            self.clients.reply(waiter.client, &Waited { counts, unsuccessful: Vec::new() }, true);
            waiter.told = Some(counts);
            waiter.told_ns = self.now_ns;
        }
        Ok(false)
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
                self.mark_active(&mut counts, |seq| {
                    let of_array = arrays.range(..=seq).next_back();
                    open.contains(&seq) || of_array.is_some_and(|(first, (_, count))| seq <= first + count)
                });
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

    fn feed_followers(&mut self) -> Result<(), StoreError> {
        let mut followers = std::mem::take(&mut self.streams.followers);
        let mut failed = None;
        followers.retain_mut(|follower| {
            if failed.is_some() {
                return true;
            }
            match self.feed_follower(follower) {
                Ok(over) => !over,
                // It is fed when the queue can be read again.
                Err(error) => {
                    failed = Some(error);
                    true
                }
            }
        });
        self.streams.followers = followers;
        failed.map_or(Ok(()), Err)
    }

    /// Sends one follower what is new; true if it has had all that it wants.
    fn feed_follower(&mut self, follower: &mut Follower) -> Result<bool, StoreError> {
        while self.clients.has_room(follower.client) {
            let events = self.store.events(follower.after, EVENTS_PAGE)?;
            let last = events.len() < EVENTS_PAGE;
            if let Some(event) = events.last() {
                follower.after = event.seq;
            }
            let over = last && !follower.follow;
            if !events.is_empty() || over {
                let batch = EventBatch { events: events.into_iter().map(crate::records::event).collect() };
                self.clients.reply(follower.client, &batch, !over);
            }
            if last {
                return Ok(over);
            }
        }
        // The rest when the client has read this: the look that time brings about.
        self.streams_dirty = true;
        Ok(false)
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
