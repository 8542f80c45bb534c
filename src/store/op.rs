//! What can be done to the queue, and what came of it: the data that crosses the store's one write entry.
//!
//! Owner: the supervisor makes operations, the store answers with `Applied`. Operations are deterministic (every time
//! and number is inside) and idempotent: applying one again changes nothing. Deliberately absent: I/O.

use std::sync::Arc;

use acode_worker::task::{
    Array, Blocker, Class, DependencyKind, GroupWish, Isolation, OutputRef, Priority, Submission, TaskId, TaskState,
    TreeGuard, Usage, Verdict, WorkerId,
};

use super::groups::{Group, GroupChange};
use super::notes::AttemptNotes;
use super::order::AgePlace;
use super::{EventKind, SubmitError};

/// One accepted submission, in the form that is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Its id, from `Queue::allocate`; an array's members follow it directly.
    pub id: TaskId,
    /// When it was accepted, in microseconds of Unix time.
    pub at_us: u64,
    /// Its specification as JSON.
    pub spec_json: String,
    /// Urgency.
    pub priority: Priority,
    /// Which workers may take it.
    pub class: Class,
    /// When it may start at the earliest, in microseconds of Unix time; 0 for now.
    pub not_before_us: u64,
    /// When it must have started, in microseconds of Unix time; 0 for whenever.
    pub expires_us: u64,
    /// Whether it is held until a person releases it.
    pub held: bool,
    /// Its limit group.
    pub group: Option<GroupWish>,
    /// Its members, if it is an array.
    pub array: Option<Array>,
    /// What it waits for.
    pub dependencies: Vec<(TaskId, DependencyKind)>,
    /// The name that it was given.
    pub name: Option<String>,
    /// What no other task that has not ended may have.
    pub key: Option<String>,
    /// Whether its specification names a finish hook.
    pub hooked: bool,
}

impl NewTask {
    /// Makes the stored form of `submission`. `earlier` are the ids of the same request's entries before this one.
    ///
    /// # Errors
    /// The array is empty or too large, a dependency names no earlier entry, or a task by a text that was not looked up,
    /// the group has no proper name, it would expire before it may start, or the specification is no JSON.
    pub fn new(id: TaskId, at_us: u64, submission: Submission, earlier: &[TaskId]) -> Result<Self, SubmitError> {
        if let Some(array) = &submission.array {
            check_size(array)?;
        }
        if let Some(group) = &submission.group {
            group.validate().map_err(SubmitError::Group)?;
        }
        let delayed_us = submission.delay_ms.map_or(0, |ms| later(at_us, ms));
        // A time that has passed is no reason to enter a delay.
        let not_before_us = submission.not_before_us.filter(|time| *time > at_us).unwrap_or(0).min(LAST_US);
        let not_before_us = delayed_us.max(not_before_us);
        let expires_us = submission.expires_us.map_or(0, |time| time.clamp(1, LAST_US));
        if expires_us > 0 && expires_us <= not_before_us {
            return Err(SubmitError::ExpiresBeforeStart);
        }
        let resolve = |on: &Blocker| match on {
            Blocker::Id(id) => Ok(*id),
            Blocker::Entry(n) => earlier.get(*n as usize).copied().ok_or(SubmitError::UnknownEntry(*n)),
            Blocker::Task(name) => Err(SubmitError::UnknownName(name.clone())),
        };
        let dependencies =
            submission.dependencies.iter().map(|d| Ok((resolve(&d.on)?, d.when))).collect::<Result<_, _>>()?;
        let spec_json = serde_json::to_string(&submission.spec).map_err(|e| SubmitError::Spec(e.to_string()))?;
        Ok(Self {
            id,
            at_us,
            spec_json,
            priority: submission.spec.priority,
            class: submission.spec.class(),
            not_before_us,
            expires_us,
            held: submission.hold,
            group: submission.group,
            array: submission.array,
            dependencies,
            hooked: !submission.spec.on_finish.is_empty(),
            name: submission.spec.name,
            key: submission.key.map(|key| key.text),
        })
    }

    /// How many numbers it takes: one, and one for each member.
    pub fn span(&self) -> u64 {
        1 + self.array.as_ref().map_or(0, Array::len)
    }
}

/// The last moment that the database has a number for.
const LAST_US: u64 = i64::MAX as u64;

/// So many milliseconds after a moment in microseconds, or the last moment that the database has a number for.
pub fn later(at_us: u64, ms: u64) -> u64 {
    at_us.saturating_add(ms.saturating_mul(1_000)).min(LAST_US)
}

/// Refuses arrays that would never end or never fit.
pub(super) fn check_size(array: &Array) -> Result<(), SubmitError> {
    const LAST: u64 = i64::MAX as u64;
    match (array, array.len()) {
        (_, 0) => Err(SubmitError::EmptyArray),
        (_, count) if count > Array::MAX => Err(SubmitError::LargeArray(count)),
        (Array::Range { first, count }, _) if first.saturating_add(*count) > LAST => {
            Err(SubmitError::LargeNumber(*first))
        }
        (Array::Items(items), _) if items.iter().any(|item| item.contains('\0')) => Err(SubmitError::Nul),
        (Array::Range { .. } | Array::Items(_), _) => Ok(()),
    }
}

/// What happens to a task after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It has ended; the state must be a final one.
    Final(TaskState),
    /// It failed and is tried again, at this time in microseconds, or at once if 0.
    RetryAt(u64),
    /// The attempt was nobody's fault (the pool stopped): queued again, not counted as a failure.
    Requeue,
    /// The same, but not before this time in microseconds.
    RequeueAt(u64),
    /// It crashed: tried again at this time in microseconds, counted as a loss or as out of memory.
    CrashedAt {
        /// When.
        at_us: u64,
        /// Whether it ran out of memory; else its worker died under it.
        oom: bool,
    },
}

/// The end of one attempt: its record, and what follows for the task.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptEnd {
    /// The task.
    pub id: TaskId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Who ran it.
    pub worker: WorkerId,
    /// How it ended.
    pub verdict: Verdict,
    /// How it was kept apart.
    pub isolation: Isolation,
    /// What held its processes together.
    pub guard: TreeGuard,
    /// What it used.
    pub usage: Usage,
    /// Where its output lies.
    pub output: OutputRef,
    /// When it was started, in microseconds of Unix time.
    pub started_us: u64,
    /// When it ended, in microseconds of Unix time.
    pub finished_us: u64,
    /// Whether something was left running.
    pub leaked: bool,
    /// What the task said about its failure.
    pub error: Option<String>,
    /// The task's result as JSON; kept only if the task has ended.
    pub result: Option<String>,
    /// Why it was cancelled, for people; kept only if the task has ended.
    pub reason: Option<String>,
    /// How its limits were held, and what is left of it.
    pub notes: AttemptNotes,
    /// What follows.
    pub next: Next,
}

/// One worker, as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its id.
    pub id: WorkerId,
    /// Its row in the claim table.
    pub slot: u32,
    /// Its process; to be trusted only together with `start_ticks` and `boot_id`.
    pub pid: u32,
    /// When the process started, in clock ticks since boot (field 22 of /proc/pid/stat).
    pub start_ticks: u64,
    /// Which boot of the machine that was.
    pub boot_id: String,
    /// Its mode, by name.
    pub mode: String,
    /// When it registered, in microseconds of Unix time.
    pub started_us: u64,
    /// When it deregistered, or was found dead.
    pub stopped_us: Option<u64>,
    /// Tasks completed by it.
    pub completed: u64,
    /// Attempts of it that did not succeed.
    pub failed: u64,
}

/// That a person has the pool pause.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pause {
    /// Why, in that person's words.
    pub reason: Option<String>,
    /// Since when, in microseconds of Unix time.
    pub since_us: u64,
}

/// One change of the queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A task or an array is accepted.
    Submit(Arc<NewTask>),
    /// The members of `header` before index `to` get rows of their own, as pending ones.
    Expand {
        /// The array.
        header: TaskId,
        /// The first index that stays untouched.
        to: u64,
    },
    /// An attempt was started.
    Started {
        /// The task.
        id: TaskId,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Who runs it.
        worker: WorkerId,
        /// When that one claimed it, if it said so.
        claimed_us: Option<u64>,
        /// When.
        at_us: u64,
    },
    /// The processes of a running attempt were stopped where they are, or go on.
    Suspended {
        /// The task.
        id: TaskId,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Whether they were stopped.
        on: bool,
        /// When.
        at_us: u64,
    },
    /// The running task says how far it is.
    Progress {
        /// The task.
        id: TaskId,
        /// 0 to 100.
        percent: Option<f64>,
        /// In its own words.
        message: Option<String>,
        /// When.
        at_us: u64,
    },
    /// An attempt has ended.
    Finished(Box<AttemptEnd>),
    /// A pending task, member or array is cancelled; what has ended already stays as it is.
    Cancel {
        /// The task, member or array.
        id: TaskId,
        /// Of an array: numbers (`seq`) of members that a worker may hold. They are left alone; their ends come as
        /// `Finished`.
        keep: Arc<[u64]>,
        /// Why, for people.
        reason: String,
        /// When.
        at_us: u64,
    },
    /// A person wants a task that has ended to run again; of an array, all members that did not complete.
    Retry {
        /// The task, member or array.
        id: TaskId,
        /// When.
        at_us: u64,
    },
    /// Delayed tasks whose time has come become ready, at most `limit` of them.
    Wake {
        /// The time.
        now_us: u64,
        /// The most to wake.
        limit: u32,
    },
    /// A person holds a pending task, member or array: it is not started before it is released.
    Hold {
        /// The task, member or array.
        id: TaskId,
        /// Numbers (`seq`) of tasks that a worker may hold. They are left alone.
        keep: Arc<[u64]>,
        /// When.
        at_us: u64,
    },
    /// A person takes that back; of an array for all of its members.
    Release {
        /// The task, member or array.
        id: TaskId,
        /// When.
        at_us: u64,
    },
    /// A person changes a limit group, or makes one.
    Group {
        /// What is to become of which.
        change: GroupChange,
        /// When.
        at_us: u64,
    },
    /// Start deadlines have passed: those tasks end as cancelled that have not started.
    Expire {
        /// Numbers (`seq`) of tasks and arrays.
        due: Arc<[u64]>,
        /// Those of them that a worker holds: they have started.
        keep: Arc<[u64]>,
        /// When.
        at_us: u64,
    },
    /// Tasks that have been ready for long move up by one priority.
    Age {
        /// The time.
        now_us: u64,
        /// For how long a task must have been ready, in microseconds, for each priority that it moves up.
        after_us: u64,
        /// Where to begin to look.
        from: AgePlace,
        /// Numbers (`seq`) of tasks that a worker holds: they wait no longer.
        keep: Arc<[u64]>,
        /// The most tasks to look at.
        limit: u32,
    },
    /// A worker is made, and registers.
    WorkerStarted(Box<WorkerRecord>),
    /// A worker's heartbeat has stopped.
    WorkerUnhealthy {
        /// Which.
        id: WorkerId,
        /// Since when that is known, in microseconds of Unix time.
        at_us: u64,
    },
    /// A worker is gone.
    WorkerStopped {
        /// The worker.
        id: WorkerId,
        /// When.
        at_us: u64,
        /// Tasks completed by it.
        completed: u64,
        /// Attempts of it that did not succeed.
        failed: u64,
        /// Why, if it did not stop by itself.
        failure: Option<String>,
    },
    /// Something happened to a worker that only the events tell.
    WorkerEvent {
        /// What.
        kind: EventKind,
        /// Which worker.
        worker: WorkerId,
        /// When.
        at_us: u64,
        /// More about it, as JSON.
        data: Option<String>,
    },
    /// Something happened to the pool as a whole.
    PoolEvent {
        /// What.
        kind: EventKind,
        /// When.
        at_us: u64,
        /// More about it, as JSON.
        data: Option<String>,
    },
    /// A person has the pool start no further task, or lets it start tasks again. Outlives the supervisor.
    Pause {
        /// Why it pauses; none to go on.
        pause: Option<Pause>,
        /// When.
        at_us: u64,
    },
    /// Goes on with work that one transaction was too small for (`Applied::more`).
    Continue,
}

impl Op {
    /// What tells this operation from its neighbours, to recognise a batch that comes again.
    pub(super) fn mark(&self) -> (u8, u128, u64) {
        match self {
            Self::Submit(new) => (0, new.id.to_u128(), new.at_us),
            Self::Expand { header, to } => (1, header.to_u128(), *to),
            Self::Started { id, at_us, .. } => (2, id.to_u128(), *at_us),
            Self::Progress { id, at_us, .. } => (3, id.to_u128(), *at_us),
            Self::Finished(end) => (4, end.id.to_u128(), end.finished_us),
            Self::Cancel { id, at_us, .. } => (5, id.to_u128(), *at_us),
            Self::Retry { id, at_us } => (6, id.to_u128(), *at_us),
            Self::Wake { now_us, limit } => (7, u128::from(*limit), *now_us),
            Self::WorkerStarted(worker) => (8, worker.id.to_u128(), worker.started_us),
            Self::WorkerStopped { id, at_us, .. } => (9, id.to_u128(), *at_us),
            Self::PoolEvent { kind, at_us, .. } => (10, kind.code().into(), *at_us),
            Self::Continue => (11, 0, 0),
            Self::Suspended { id, at_us, on, .. } => (60 + u8::from(!on), id.to_u128(), *at_us),
            Self::WorkerUnhealthy { id, at_us } => (12, id.to_u128(), *at_us),
            Self::Pause { pause, at_us } => (40, pause.is_some().into(), *at_us),
            Self::WorkerEvent { worker, at_us, .. } => (13, worker.to_u128(), *at_us),
            Self::Hold { id, at_us, .. } => (50, id.to_u128(), *at_us),
            Self::Release { id, at_us } => (51, id.to_u128(), *at_us),
            Self::Group { change, at_us } => (52, change.name.len() as u128, *at_us),
            Self::Expire { due, at_us, .. } => (53, due.first().copied().unwrap_or(0).into(), *at_us),
            Self::Age { now_us, from, .. } => (54, from.seq.into(), *now_us),
        }
    }
}

/// A task that became ready, and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NowReady {
    /// The task or array.
    pub id: TaskId,
    /// Its priority.
    pub priority: Priority,
    /// Its class.
    pub class: Class,
    /// Its limit group; 0 for none.
    pub group: u32,
}

/// What a batch did, beyond what the operations themselves say. Valid only because it was committed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// Tasks and arrays that became ready in another way than by being submitted: woken, retried, requeued, unblocked,
    /// released, moved up; and those of a limit group, also by being submitted.
    pub ready: Vec<NowReady>,
    /// Everything that reached a final state, with those cancelled by a dependency. Untouched members of a cancelled
    /// array are not listed: the array stands for them.
    pub ended: Vec<(TaskId, TaskState)>,
    /// The same counted by state, with the untouched members of arrays, and without the arrays themselves.
    pub settled: Counts,
    /// Submissions refused, with the reason; nothing of them was written.
    pub rejected: Vec<(TaskId, SubmitError)>,
    /// Groups that are new or changed, as they are now but for `open`.
    pub groups: Vec<Group>,
    /// Tasks that have moved up by one priority; they are in `ready` too, with the new one.
    pub aged: Vec<TaskId>,
    /// Where to go on letting tasks age, if `Op::Age` has not seen all.
    pub age_next: Option<AgePlace>,
    /// Whether work is left that was too much for one transaction: apply `Op::Continue` soon.
    pub more: bool,
}

impl Applied {
    /// Adds what a later batch did.
    pub fn absorb(&mut self, later: Self) {
        self.ready.extend(later.ready);
        self.ended.extend(later.ended);
        for state in TaskState::ALL.into_iter().filter(|state| state.is_final()) {
            let mut more = later.settled;
            *self.settled.of(state) += *more.of(state);
        }
        self.rejected.extend(later.rejected);
        self.groups.extend(later.groups);
        self.aged.extend(later.aged);
        self.age_next = later.age_next.or(self.age_next);
        self.more |= later.more;
    }
}

/// How many tasks are in which stored state. Members of arrays count, touched or not; arrays themselves do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pending, those that run now included.
    pub pending: u64,
    /// Completed.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Timed out.
    pub timeout: u64,
}

impl Counts {
    /// The count that belongs to `state`; what is assigned or running is stored as pending.
    pub fn of(&mut self, state: TaskState) -> &mut u64 {
        match state {
            TaskState::Pending | TaskState::Assigned | TaskState::Running => &mut self.pending,
            TaskState::Completed => &mut self.completed,
            TaskState::Failed => &mut self.failed,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::Timeout => &mut self.timeout,
        }
    }

    /// Moves `n` tasks from one state to another.
    pub(super) fn shift(&mut self, from: TaskState, to: TaskState, n: u64) {
        let left = self.of(from);
        *left = left.saturating_sub(n);
        *self.of(to) += n;
    }

    /// All that have ended.
    pub fn finished(&self) -> u64 {
        self.completed + self.failed + self.cancelled + self.timeout
    }
}
