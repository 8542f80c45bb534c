//! The decisions of the supervisor about its workers: pure, so that each is a test without a clock or a process.
//!
//! [`Fleet::decide`] takes what has happened and says what to do; time comes in with the events, in milliseconds of
//! the monotonic clock. Deliberately absent: any I/O, and what becomes of tasks, which `judge` says.

mod exchange;

use std::collections::BTreeMap;

use acode_worker::claim::WorkerState;
use acode_worker::task::Isolation;

use super::modes::{self, ByMode};
use crate::config::Modes;

/// What decides about workers; from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Milliseconds without a sign of life after which a worker is killed.
    pub heartbeat_timeout_ms: u64,
    /// Milliseconds that a newborn has until it is ready.
    pub boot_timeout_ms: u64,
    /// Milliseconds that a worker has to leave when it has nothing left to do, or gives its task back.
    pub leave_timeout_ms: u64,
    /// How many rows the claim table has.
    pub rows: u16,
    /// With so many workers in a row that never became ready, the pool gives up.
    pub max_boot_failures: u32,
}

/// Delay before the first respawn after a worker that failed early, in milliseconds; doubles with each.
const RESPAWN_DELAY_MS: u64 = 50;
/// The longest such delay, in milliseconds.
const RESPAWN_DELAY_MAX_MS: u64 = 5_000;
/// How long a worker has, in milliseconds, to end and remove its container when the pool stops by force.
const CONTAINERS_MS: u64 = 8_000;
/// A worker that lived so many milliseconds did not fail early.
const SETTLED_MS: u64 = 1_000;

/// One in so many workers may be on its way out or in at a time for being worn, and always one.
const RECYCLED_SHARE: u16 = 4;

/// What the pool does as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Keeps its number of workers.
    Running,
    /// Lets running tasks finish until this time, then takes them back.
    Draining {
        /// When patience ends.
        deadline_ms: u64,
    },
    /// Patience is over: tasks are being taken back, and workers killed at this time.
    TakingBack {
        /// When they are killed.
        kill_ms: u64,
    },
    /// Kills its workers.
    Killing,
}

/// Where a worker stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Made, and not heard from.
    Starting,
    /// Working.
    Live,
    /// Told to leave after its task. `recycled` if a fresh one is to follow: until it has left, it holds its place, so that
    /// there are never more workers with a task than were wanted.
    Leaving { recycled: bool },
    /// Killed; its end is awaited. `ours` if that was no fault of its own or its task's.
    Killed { ours: bool },
}

/// Told to leave, and nobody is to follow.
const DISMISSED: Life = Life::Leaving { recycled: false };
/// Told to leave, and a fresh one is to follow.
const RECYCLED: Life = Life::Leaving { recycled: true };

/// A worker, as far as decisions need it.
#[derive(Debug, Clone)]
struct Member {
    life: Life,
    /// Its own mode.
    mode: Isolation,
    /// Whose place it has: its mode's; of one that leaves for a fresh one, the mode of that.
    place: Isolation,
    unhealthy: bool,
    born_ms: u64,
    /// Since when it has been told to leave.
    told_ms: u64,
    /// The later of its last heartbeat and the last moment at which it could not have been seen.
    seen_ms: u64,
    busy: bool,
    /// Why it is to be replaced, when it is its turn.
    worn: Option<Wear>,
}

/// Why a worker is replaced by a fresh one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wear {
    /// It has done so many tasks.
    Tasks(u64),
    /// It uses so many bytes of memory.
    Memory(u64),
    /// It is not of the mode that is wanted in its place: this.
    Mode(Isolation),
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// No worker could be made.
    BirthFailed {
        /// For which row.
        row: u16,
    },
    /// A worker is ready to work.
    Ready {
        /// Which.
        row: u16,
    },
    /// A worker is gone, with all of its task's processes.
    Gone {
        /// Which.
        row: u16,
    },
    /// A worker has done its share, and is to be replaced between two tasks.
    Worn {
        /// Which.
        row: u16,
        /// What wore it.
        wear: Wear,
    },
    /// A worker was asked whether it is well, and did not answer in time.
    Unanswered {
        /// Which.
        row: u16,
    },
    /// Somebody wants so many workers.
    Scale {
        /// How many.
        target: u16,
    },
    /// Somebody wants workers of these modes.
    Modes(Modes),
    /// The pool shall stop when its running tasks have ended, or after `patience_ms`.
    Drain {
        /// How long to wait for them.
        patience_ms: u64,
    },
    /// The pool shall stop now.
    Force,
    /// Time has passed: what each worker's row says.
    Tick {
        /// Row, heartbeat in milliseconds, state.
        rows: Vec<(u16, u64, WorkerState)>,
    },
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a worker in this row.
    Bear {
        /// Which row.
        row: u16,
        /// Of which mode.
        mode: Isolation,
    },
    /// Tell a worker to leave after its task.
    Dismiss {
        /// Which.
        row: u16,
    },
    /// Tell a worker to leave after its task, because a fresh one is to take its place.
    Recycle {
        /// Which.
        row: u16,
        /// Why.
        wear: Wear,
    },
    /// Tell a worker to end its task and give it back.
    TakeBack {
        /// Which.
        row: u16,
        /// Without any grace.
        now: bool,
    },
    /// Kill a worker.
    Kill {
        /// Which.
        row: u16,
        /// Why.
        why: KillReason,
    },
    /// Workers die before they are ready, again and again: end the pool with an error.
    GiveUp,
}

/// Why a worker is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// No sign of life.
    Silent,
    /// It never became ready.
    NeverReady,
    /// It did not leave when it should have.
    Lingering,
    /// The pool stops by force.
    Forced,
}

/// The status of a worker for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// See [`Life::Starting`].
    Starting,
    /// Without a task.
    Idle,
    /// With a task.
    Busy,
    /// Killed for its silence.
    Unhealthy,
    /// Leaving.
    Stopping,
}

/// All workers, and what the pool wants with them.
#[derive(Debug)]
pub struct Fleet {
    rules: Rules,
    mode: Mode,
    target: u16,
    modes: Modes,
    members: BTreeMap<u16, Member>,
    now_ms: u64,
    boot_failures: u32,
    respawn_at_ms: u64,
    given_up: bool,
}

impl Fleet {
    /// An empty fleet that wants `target` workers of these modes.
    pub fn new(rules: Rules, target: u16, modes: Modes, now_ms: u64) -> Self {
        let (members, mode) = (BTreeMap::new(), Mode::Running);
        Self { rules, mode, target, modes, members, now_ms, boot_failures: 0, respawn_at_ms: 0, given_up: false }
    }

    /// Follows a changed configuration.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// What the pool does as a whole.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How many workers it wants.
    pub fn target(&self) -> u16 {
        self.target
    }

    /// Whether tasks may be published.
    pub fn is_open(&self) -> bool {
        self.mode == Mode::Running
    }

    /// Whether it has stopped: told to, and no worker left.
    pub fn is_done(&self) -> bool {
        self.mode != Mode::Running && self.members.is_empty()
    }

    /// Whether the end of this worker was the pool's own wish, so that nothing is held against its task.
    pub fn was_ours(&self, row: u16) -> bool {
        self.members.get(&row).is_some_and(|member| member.life == Life::Killed { ours: true })
    }

    /// A worker's status, if it lives.
    pub fn status(&self, row: u16) -> Option<Status> {
        self.members.get(&row).map(|member| match member.life {
            _ if member.unhealthy => Status::Unhealthy,
            Life::Starting => Status::Starting,
            Life::Live if member.busy => Status::Busy,
            Life::Live => Status::Idle,
            Life::Leaving { .. } | Life::Killed { .. } => Status::Stopping,
        })
    }

    /// How many of the workers that stay, or are to be followed by a fresh one, have a task.
    pub fn busy(&self) -> usize {
        self.members.values().filter(|member| member.busy && (stays(member.life) || member.life == RECYCLED)).count()
    }

    /// Follows an event at `now_ms`, and adds to `actions` what to do.
    pub fn decide(&mut self, now_ms: u64, event: Event, actions: &mut Vec<Action>) {
        let slept = now_ms.saturating_sub(self.now_ms) > self.rules.heartbeat_timeout_ms / 2;
        self.now_ms = now_ms;
        if slept {
            // We were stopped ourselves, or starved: silence in that time says nothing about the workers.
            self.members.values_mut().for_each(|member| member.seen_ms = now_ms);
        }
        match event {
            Event::BirthFailed { row } => {
                self.members.remove(&row);
                self.count_boot_failure(actions);
            }
            Event::Ready { row } => self.ready(row),
            Event::Gone { row } => self.gone(row, actions),
            Event::Worn { row, wear } => self.worn(row, wear),
            Event::Unanswered { row } => self.unanswered(row, actions),
            Event::Scale { target } => self.target = target,
            Event::Modes(modes) => self.follow_modes(modes),
            Event::Drain { patience_ms } => self.drain(patience_ms),
            Event::Force => self.force(actions),
            Event::Tick { rows } => self.look_at(&rows, actions),
        }
        self.converge(actions);
    }

    /// When to tick at the latest, for something that time alone brings about.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let mode = match self.mode {
            Mode::Running if usize::from(self.target) > self.members.len() => Some(self.respawn_at_ms),
            Mode::Draining { deadline_ms } => Some(deadline_ms),
            Mode::TakingBack { kill_ms } => Some(kill_ms),
            Mode::Running | Mode::Killing => None,
        };
        mode.filter(|at| *at > self.now_ms)
    }

    fn born(&mut self, row: u16, mode: Isolation) {
        let now = self.now_ms;
        let member = Member {
            life: Life::Starting,
            mode,
            place: mode,
            unhealthy: false,
            born_ms: now,
            told_ms: 0,
            seen_ms: now,
            busy: false,
            worn: None,
        };
        self.members.insert(row, member);
    }

    fn ready(&mut self, row: u16) {
        self.boot_failures = 0;
        if let Some(member) = self.members.get_mut(&row) {
            member.seen_ms = self.now_ms;
            match member.life {
                Life::Starting => member.life = Life::Live,
                Life::Live | Life::Leaving { .. } | Life::Killed { .. } => {}
            }
        }
    }

    fn worn(&mut self, row: u16, wear: Wear) {
        if let Some(member) = self.members.get_mut(&row) {
            member.worn.get_or_insert(wear);
        }
    }

    fn unanswered(&mut self, row: u16, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&row) else { return };
        match member.life {
            Life::Live | Life::Leaving { .. } => {
                member.unhealthy = true;
                member.life = Life::Killed { ours: false };
                actions.push(Action::Kill { row, why: KillReason::Silent });
            }
            // The one has until its boot timeout, the other is killed already.
            Life::Starting | Life::Killed { .. } => {}
        }
    }

    fn gone(&mut self, row: u16, actions: &mut Vec<Action>) {
        let Some(member) = self.members.remove(&row) else { return };
        let lived_ms = self.now_ms.saturating_sub(member.born_ms);
        match member.life {
            Life::Starting => self.count_boot_failure(actions),
            // It worked, but not for long: wait a little, but never give up for that, since its task may be to blame.
            Life::Live if lived_ms < SETTLED_MS => self.respawn_at_ms = self.now_ms + RESPAWN_DELAY_MS,
            Life::Killed { ours: false } if lived_ms < self.rules.boot_timeout_ms + SETTLED_MS => {
                self.respawn_at_ms = self.now_ms + RESPAWN_DELAY_MS;
            }
            Life::Live | Life::Leaving { .. } | Life::Killed { .. } => {}
        }
    }

    fn count_boot_failure(&mut self, actions: &mut Vec<Action>) {
        self.boot_failures += 1;
        let doublings = self.boot_failures.min(16) - 1;
        self.respawn_at_ms = self.now_ms + (RESPAWN_DELAY_MS << doublings).min(RESPAWN_DELAY_MAX_MS);
        if self.boot_failures >= self.rules.max_boot_failures && !self.given_up {
            self.given_up = true;
            self.mode = Mode::Killing;
            actions.push(Action::GiveUp);
        }
    }

    fn drain(&mut self, patience_ms: u64) {
        match self.mode {
            Mode::Running => self.mode = Mode::Draining { deadline_ms: self.now_ms.saturating_add(patience_ms) },
            // A second wish can only shorten the first.
            Mode::Draining { deadline_ms } => {
                let deadline_ms = deadline_ms.min(self.now_ms.saturating_add(patience_ms));
                self.mode = Mode::Draining { deadline_ms };
            }
            Mode::TakingBack { .. } | Mode::Killing => {}
        }
    }

    fn look_at(&mut self, rows: &[(u16, u64, WorkerState)], actions: &mut Vec<Action>) {
        for (row, heartbeat_ms, state) in rows {
            let Some(member) = self.members.get_mut(row) else { continue };
            member.seen_ms = member.seen_ms.max(*heartbeat_ms);
            member.busy = *state == WorkerState::Busy;
            let silent_ms = self.now_ms.saturating_sub(member.seen_ms);
            let (limit_ms, why) = match member.life {
                Life::Starting => (self.rules.boot_timeout_ms, KillReason::NeverReady),
                Life::Live | Life::Leaving { .. } => (self.rules.heartbeat_timeout_ms, KillReason::Silent),
                Life::Killed { .. } => continue,
            };
            if silent_ms > limit_ms {
                member.unhealthy = true;
                member.life = Life::Killed { ours: false };
                if why == KillReason::NeverReady {
                    self.boot_failures += 1;
                }
                actions.push(Action::Kill { row: *row, why });
            }
        }
    }

    /// Brings the fleet nearer to what is wanted.
    fn converge(&mut self, actions: &mut Vec<Action>) {
        match self.mode {
            Mode::Running => self.keep_number(actions),
            Mode::Draining { deadline_ms } if self.now_ms < deadline_ms => self.dismiss_all(actions),
            Mode::Draining { .. } => {
                self.dismiss_all(actions);
                self.mode = Mode::TakingBack { kill_ms: self.now_ms + self.rules.leave_timeout_ms };
                actions.extend(self.members.keys().map(|row| Action::TakeBack { row: *row, now: false }));
            }
            Mode::TakingBack { kill_ms } if self.now_ms < kill_ms => {}
            Mode::TakingBack { .. } => self.kill_all(KillReason::Lingering, |_| true, actions),
            Mode::Killing => self.kill_all(KillReason::Forced, |_| true, actions),
        }
    }

    fn keep_number(&mut self, actions: &mut Vec<Action>) {
        let target = self.target;
        let wanted = modes::shares(&self.modes, target);
        let mut places = self.places(|life| life != DISMISSED && life != Life::Killed { ours: true });
        if places.total() < target && self.now_ms >= self.respawn_at_ms {
            // After a failure one at a time, until one has become ready.
            let count = if self.boot_failures > 0 { 1 } else { target - places.total() };
            let free = (0..self.rules.rows).filter(|row| !self.members.contains_key(row));
            for row in free.take(usize::from(count)).collect::<Vec<_>>() {
                let Some(mode) = modes::most_behind(&wanted, &places) else { break };
                places.add(mode);
                self.born(row, mode);
                actions.push(Action::Bear { row, mode });
            }
        }
        // One that was killed for its silence is replaced when it is gone with its task, and not before.
        let mut have = self.places(|life| stays(life) || life == RECYCLED);
        let shrinks = have.total() > target;
        while have.total() > target
            && let Some(mode) = modes::most_ahead(&wanted, &have)
        {
            have.take(mode);
            self.dismiss_one(mode, actions);
        }
        if !shrinks {
            self.exchange(&wanted, have, places, actions);
            self.recycle(actions);
        }
    }

    /// How many have a place in each mode, of those whose life is as wanted.
    fn places(&self, wanted: impl Fn(Life) -> bool) -> ByMode {
        self.members.values().filter(|member| wanted(member.life)).map(|member| member.place).collect()
    }

    /// Has one worker of this mode fewer.
    fn dismiss_one(&mut self, mode: Isolation, actions: &mut Vec<Action>) {
        // One that leaves anyway needs no successor.
        let mut of_mode = self.members.values_mut().filter(|member| member.place == mode);
        if let Some(member) = of_mode.find(|member| member.life == RECYCLED) {
            member.life = DISMISSED;
            return;
        }
        if let Some(row) = self.least_useful(mode, |member| stays(member.life)) {
            self.dismiss(row, actions);
        }
    }

    /// Idle ones first, and of these the highest row, so that the low ones stay in use.
    fn least_useful(&self, mode: Isolation, wanted: impl Fn(&Member) -> bool) -> Option<u16> {
        let of_mode = self.members.iter().filter(|(_, member)| member.place == mode && wanted(member));
        of_mode.min_by_key(|(row, member)| (member.busy, std::cmp::Reverse(**row))).map(|(row, _)| *row)
    }

    /// Has worn workers leave, as many at a time as the pool can do without.
    fn recycle(&mut self, actions: &mut Vec<Action>) {
        let worn = self.members.iter().filter(|(_, m)| m.life == Life::Live);
        let mut worn: Vec<_> = worn.filter_map(|(row, m)| Some((m.busy, *row, m.worn?))).collect();
        // While workers cannot be made, one that is worn is better than none.
        if worn.is_empty() || self.boot_failures > 0 {
            return;
        }
        worn.sort_by_key(|(busy, row, _)| (*busy, *row));
        let missing = self.members.values().filter(|m| m.life != Life::Live && m.life != DISMISSED).count();
        let may_miss = usize::from(self.target / RECYCLED_SHARE).max(1);
        for (_, row, wear) in worn.into_iter().take(may_miss.saturating_sub(missing)) {
            if let Some(member) = self.members.get_mut(&row) {
                member.life = RECYCLED;
                member.told_ms = self.now_ms;
                actions.push(Action::Recycle { row, wear });
            }
        }
    }

    fn dismiss(&mut self, row: u16, actions: &mut Vec<Action>) {
        if let Some(member) = self.members.get_mut(&row) {
            member.life = DISMISSED;
            member.told_ms = self.now_ms;
            actions.push(Action::Dismiss { row });
        }
    }

    fn dismiss_all(&mut self, actions: &mut Vec<Action>) {
        let rows: Vec<u16> = self.members.iter().filter(|(_, m)| stays(m.life)).map(|(row, _)| *row).collect();
        for row in rows {
            self.dismiss(row, actions);
        }
    }

    /// Kills at once who can be killed. A worker of containers would leave its container running, so it gets some seconds
    /// to end and remove that.
    fn force(&mut self, actions: &mut Vec<Action>) {
        let is_contained = |member: &Member| member.mode == Isolation::Docker && member.life != Life::Starting;
        match self.mode {
            Mode::Running | Mode::Draining { .. } if self.members.values().any(is_contained) => {
                self.mode = Mode::TakingBack { kill_ms: self.now_ms + CONTAINERS_MS };
                self.kill_all(KillReason::Forced, |member| !is_contained(member), actions);
                self.dismiss_all(actions);
                let contained = self.members.iter().filter(|(_, member)| is_contained(member));
                actions.extend(contained.map(|(row, _)| Action::TakeBack { row: *row, now: true }));
            }
            // A second wish, or nobody to be spared.
            Mode::Running | Mode::Draining { .. } | Mode::TakingBack { .. } | Mode::Killing => {
                self.mode = Mode::Killing
            }
        }
    }

    fn kill_all(&mut self, why: KillReason, whom: impl Fn(&Member) -> bool, actions: &mut Vec<Action>) {
        for (row, member) in self.members.iter_mut().filter(|(_, member)| whom(member)) {
            match member.life {
                Life::Starting | Life::Live | Life::Leaving { .. } => {
                    member.life = Life::Killed { ours: true };
                    actions.push(Action::Kill { row: *row, why });
                }
                Life::Killed { .. } => {}
            }
        }
    }
}

fn stays(life: Life) -> bool {
    matches!(life, Life::Starting | Life::Live)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
