//! The oracle: what a queue is, said a second time, in memory and as plainly as possible.
//!
//! Written against the documentation of `store::Op` and not against its SQL: every member of an array is a record from
//! the beginning, and what is ready is a set that is brought up to date after each change. Deliberately absent: disk,
//! attempts' records, events, and whatever only people ask for.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use acode_worker::claim::Lane;
use acode_worker::task::{DependencyKind, GroupWish, TaskId, TaskSpec, TaskState};

use crate::store::{
    Applied, AttemptEnd, Counts, Group, GroupChange, NewTask, Next, NowReady, Op, SubmitError, WorkerRecord,
};

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A task of its own.
    Task,
    /// An array, whose members follow it by number.
    Array {
        /// How many.
        count: u64,
        /// The first that was never touched.
        cursor: u64,
        /// Whether the untouched ones are cancelled.
        stopped: bool,
    },
    /// A member of an array.
    Member {
        /// The array's number.
        array: u64,
        /// Whether it stands for itself; else its array does.
        touched: bool,
    },
}

/// What is waited for: its number, how it must end, and whether that is settled.
pub type Need = (u64, DependencyKind, bool);

/// One task, array or member.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its id.
    pub id: TaskId,
    /// What it is.
    pub kind: Kind,
    /// Pending, or how it ended.
    pub state: TaskState,
    /// Where it waits.
    pub lane: Lane,
    /// When it may start.
    pub not_before_us: u64,
    /// Under which time it stands among the delayed ones; 0: it does not.
    delayed_us: u64,
    /// Under which deadline it stands among those that have one; 0: it does not.
    deadline_us: u64,
    /// What it waits, or waited, for: number, kind, and whether that is settled.
    pub needs: Vec<Need>,
    /// Who waits, or waited, for it.
    pub dependents: Vec<u64>,
    /// Number of the last attempt.
    pub attempts: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that ended with their worker.
    pub losses: u32,
    pub ooms: u32,
    /// An attempt was started and its end is not recorded.
    pub running: bool,
    /// A person holds it.
    pub held: bool,
    /// When it must have started; 0 for whenever.
    pub expires_us: u64,
    /// Its limit group; 0 for none.
    pub group: u32,
    /// What to do.
    pub spec: TaskSpec,
    /// The same as JSON.
    pub spec_json: String,
}

impl Record {
    fn blocked(&self) -> bool {
        self.needs.iter().any(|(_, _, met)| !met)
    }

    /// How many of its dependencies are open.
    pub fn blockers(&self) -> u32 {
        self.needs.iter().filter(|(_, _, met)| !met).count() as u32
    }
}

/// The oracle.
#[derive(Debug, Default)]
pub struct Model {
    /// The queue's tag.
    pub tag: u64,
    pub(super) next_seq: u64,
    pub(super) last_ms: u64,
    pub(super) records: BTreeMap<u64, Record>,
    /// What can be handed out, by lane: members that are touched, tasks, and arrays by their own number.
    pub(super) ready: BTreeMap<(usize, u32), BTreeSet<u64>>,
    pub(super) groups: Vec<Group>,
    pub(super) delayed: BTreeSet<(u64, u64)>,
    /// The deadlines that stand: an untouched member has its array's.
    pub(super) deadlines: BTreeSet<(u64, u64)>,
    /// The numbers of all arrays.
    pub(super) arrays: BTreeSet<u64>,
    /// What a person holds.
    pub(super) held: BTreeSet<u64>,
    pub(super) counts: Counts,
    pub(super) ended_attempts: HashSet<(u64, u32)>,
    pub(super) workers: BTreeMap<u128, WorkerRecord>,
    pub(super) applied: Applied,
}

impl Model {
    /// An empty queue with this tag.
    pub fn new(tag: u64) -> Self {
        Self { tag, next_seq: 1, ..Self::default() }
    }

    /// Applies a batch, which cannot fail.
    pub fn apply_all(&mut self, ops: &[Op]) -> Applied {
        ops.iter().for_each(|op| self.op(op));
        std::mem::take(&mut self.applied)
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Submit(new) => self.submit(new),
            Op::Expand { header, to } => self.expand(header.seq(), *to),
            Op::Started { id, attempt, .. } => {
                if let Some(record) = self.records.get_mut(&id.seq())
                    && !record.state.is_final()
                    && record.attempts < *attempt
                {
                    (record.attempts, record.running, record.expires_us) = (*attempt, true, 0);
                    self.place(id.seq());
                }
            }
            Op::Finished(end) => self.finished(end),
            Op::Cancel { id, keep, .. } => self.cancel(id.seq(), keep),
            Op::Retry { id, .. } => self.retry(id.seq()),
            Op::Wake { now_us, limit } => self.wake(*now_us, *limit),
            Op::Hold { id, keep, .. } => self.hold(id.seq(), keep),
            Op::Release { id, .. } => self.release(id.seq()),
            Op::Group { change, at_us } => drop(self.change_group(change, *at_us)),
            Op::Expire { due, keep, at_us } => self.expire(due, keep, *at_us),
            Op::WorkerStarted(worker) => {
                self.workers.entry(worker.id.to_u128()).or_insert_with(|| (**worker).clone());
            }
            Op::WorkerStopped { id, at_us, .. } => {
                if let Some(worker) = self.workers.get_mut(&id.to_u128()) {
                    worker.stopped_us.get_or_insert(*at_us);
                }
            }
            // What only tells, or is not simulated.
            Op::Age { .. }
            | Op::Progress { .. }
            | Op::Suspended { .. }
            | Op::Pause { .. }
            | Op::WorkerEvent { .. }
            | Op::WorkerUnhealthy { .. }
            | Op::PoolEvent { .. }
            | Op::Continue => {}
        }
    }

    fn submit(&mut self, new: &NewTask) {
        if self.records.contains_key(&new.id.seq()) {
            return;
        }
        let (needs, doomed) = match self.needs_of(new) {
            Ok(needs) => needs,
            Err(why) => return self.applied.rejected.push((new.id, why)),
        };
        let seq = new.id.seq();
        for (blocker, _, met) in &needs {
            if let Some(blocker) = self.records.get_mut(blocker).filter(|_| !met) {
                blocker.dependents.push(seq);
            }
        }
        let change = |wish: &GroupWish| GroupChange { name: wish.name.clone(), max: wish.max.map(Some), held: None };
        let group = new.group.as_ref().map_or(0, |wish| self.change_group(&change(wish), 0));
        let lane = Lane { priority: new.priority, class: new.class };
        let spec: TaskSpec = serde_json::from_str(&new.spec_json).unwrap_or_default();
        let count = new.array.as_ref().map(acode_worker::task::Array::len);
        let kind = count.map_or(Kind::Task, |count| Kind::Array { count, cursor: 0, stopped: false });
        let record = Record {
            id: new.id,
            kind,
            state: TaskState::Pending,
            lane,
            not_before_us: new.not_before_us,
            delayed_us: 0,
            deadline_us: 0,
            needs,
            dependents: Vec::new(),
            attempts: 0,
            failures: 0,
            losses: 0,
            ooms: 0,
            running: false,
            held: new.held,
            expires_us: new.expires_us,
            group,
            spec,
            spec_json: new.spec_json.clone(),
        };
        self.counts.pending += count.unwrap_or(1);
        for index in 0..count.unwrap_or(0) {
            let id = TaskId::new(new.id.millis(), self.tag, seq + 1 + index);
            let kind = Kind::Member { array: seq, touched: false };
            let own =
                Record { id, kind, needs: Vec::new(), not_before_us: 0, held: false, expires_us: 0, ..record.clone() };
            self.records.insert(id.seq(), own);
        }
        self.records.insert(seq, record);
        if count.is_some() {
            self.arrays.insert(seq);
        }
        self.next_seq = self.next_seq.max(seq + new.span());
        self.last_ms = self.last_ms.max(new.id.millis());
        self.place(seq);
        if group != 0 && self.is_ready(seq) {
            self.now_ready(seq);
        }
        if doomed {
            self.cancel(seq, &[]);
        }
    }

    /// What a submission waits for, each with whether that is settled; and whether it can never start.
    fn needs_of(&self, new: &NewTask) -> Result<(Vec<Need>, bool), SubmitError> {
        let mut needs = Vec::new();
        let mut doomed = false;
        for (on, kind) in &new.dependencies {
            let Some(blocker) = self.records.get(&on.seq()) else {
                return Err(SubmitError::UnknownDependency(*on));
            };
            if matches!(blocker.kind, Kind::Member { .. }) {
                return Err(SubmitError::MemberDependency(*on));
            }
            let holds = holds(*kind, blocker.state);
            doomed |= holds == Some(false);
            if !needs.iter().any(|(seq, k, _)| (*seq, *k) == (on.seq(), *kind)) {
                needs.push((on.seq(), *kind, holds.is_some()));
            }
        }
        Ok((needs, doomed))
    }

    fn expand(&mut self, header: u64, to: u64) {
        let Some(record) = self.records.get_mut(&header) else { return };
        let Kind::Array { count, cursor, stopped } = &mut record.kind else { return };
        let to = to.min(*count);
        if to <= *cursor || *stopped || record.state.is_final() {
            return;
        }
        let touched = *cursor..to;
        *cursor = to;
        touched.for_each(|index| self.touch(header + 1 + index));
        if let Some(record) = self.records.get_mut(&header)
            && matches!(record.kind, Kind::Array { count, cursor, .. } if cursor == count)
        {
            record.expires_us = 0;
        }
        self.place(header);
    }

    pub(super) fn touch(&mut self, member: u64) {
        let Some(Kind::Member { array, touched: false }) = self.records.get(&member).map(|record| record.kind) else {
            return;
        };
        let deadline_us = self.records.get(&array).map_or(0, |header| header.expires_us);
        if let Some(record) = self.records.get_mut(&member) {
            (record.kind, record.expires_us) = (Kind::Member { array, touched: true }, deadline_us);
        }
        self.place(member);
    }

    fn finished(&mut self, end: &AttemptEnd) {
        let seq = end.id.seq();
        let Some(record) = self.records.get_mut(&seq) else { return };
        if !self.ended_attempts.insert((seq, end.attempt)) || record.state.is_final() {
            return;
        }
        record.attempts = record.attempts.max(end.attempt);
        record.running = false;
        match end.next {
            Next::Final(state) => {
                record.failures += u32::from(matches!(state, TaskState::Failed | TaskState::Timeout));
                return self.end(seq, state);
            }
            Next::RetryAt(at) => (record.failures, record.not_before_us) = (record.failures + 1, at),
            Next::Requeue => record.not_before_us = 0,
            Next::RequeueAt(at) => record.not_before_us = at,
            Next::CrashedAt { at_us, oom } => {
                record.ooms += u32::from(oom);
                record.losses += u32::from(!oom);
                record.not_before_us = at_us;
            }
        }
        if record.not_before_us == 0 {
            self.now_ready(seq);
        }
        self.place(seq);
    }

    /// A task or member reaches a final state: its array, and those that wait for it, are told.
    fn end(&mut self, seq: u64, state: TaskState) {
        let Some(record) = self.records.get_mut(&seq).filter(|record| !record.state.is_final()) else { return };
        record.state = state;
        record.running = false;
        let (id, kind) = (record.id, record.kind);
        self.applied.ended.push((id, state));
        self.place(seq);
        match kind {
            Kind::Array { .. } => {}
            Kind::Task => self.count(TaskState::Pending, state),
            Kind::Member { array, .. } => {
                self.count(TaskState::Pending, state);
                self.end_array_if_done(array);
            }
        }
        self.tell_dependents(seq, state);
    }

    fn tell_dependents(&mut self, seq: u64, state: TaskState) {
        let dependents = self.records.get_mut(&seq).map(|r| std::mem::take(&mut r.dependents)).unwrap_or_default();
        for dependent in dependents {
            let Some(record) = self.records.get_mut(&dependent) else { continue };
            let mut doomed = false;
            let was_blocked = record.blocked();
            for (_, kind, met) in record.needs.iter_mut().filter(|(on, _, met)| *on == seq && !met) {
                *met = true;
                doomed |= holds(*kind, state) == Some(false);
            }
            let freed = was_blocked && !record.blocked() && !record.state.is_final();
            if doomed {
                self.cancel(dependent, &[]);
            } else if freed {
                self.place(dependent);
                if self.is_ready(dependent) {
                    self.now_ready(dependent);
                }
            }
        }
    }

    pub(super) fn members(&self, header: u64) -> impl Iterator<Item = (&u64, &Record)> {
        let count = match self.records.get(&header).map(|record| record.kind) {
            Some(Kind::Array { count, .. }) => count,
            Some(Kind::Task | Kind::Member { .. }) | None => 0,
        };
        self.records.range(header + 1..=header + count)
    }

    pub(super) fn end_array_if_done(&mut self, header: u64) {
        let (mut failed, mut cancelled) = (false, false);
        // From behind: the last members are the last to end, as a rule.
        let members = self.records.get(&header).map(|record| record.kind);
        let Some(Kind::Array { count, .. }) = members else { return };
        for (_, member) in self.records.range(header + 1..=header + count).rev() {
            match member.state {
                TaskState::Pending | TaskState::Assigned | TaskState::Running => return,
                TaskState::Failed | TaskState::Timeout => failed = true,
                TaskState::Cancelled => cancelled = true,
                TaskState::Completed => {}
            }
        }
        let state = match (failed, cancelled) {
            (true, _) => TaskState::Failed,
            (false, true) => TaskState::Cancelled,
            (false, false) => TaskState::Completed,
        };
        self.end(header, state);
    }

    pub(super) fn cancel(&mut self, seq: u64, keep: &[u64]) {
        let Some(record) = self.records.get(&seq).filter(|record| !record.state.is_final()) else { return };
        match record.kind {
            Kind::Task => self.end(seq, TaskState::Cancelled),
            Kind::Member { array, touched } => {
                let Some(header) = self.records.get(&array) else { return };
                if !touched && matches!(header.kind, Kind::Array { stopped: true, .. }) {
                    return;
                }
                self.touch(seq);
                self.end(seq, TaskState::Cancelled);
            }
            Kind::Array { count, .. } => self.cancel_array(seq, count, keep),
        }
    }

    fn cancel_array(&mut self, header: u64, count: u64, keep: &[u64]) {
        self.stop_array(header);
        for seq in header + 1..=header + count {
            let open = self.records.get(&seq).is_some_and(|member| !member.state.is_final());
            if open && !keep.contains(&seq) {
                self.end(seq, TaskState::Cancelled);
            }
        }
        self.place(header);
        self.end_array_if_done(header);
    }

    /// The untouched members are cancelled, and not listed one by one: the array stands for them.
    pub(super) fn stop_array(&mut self, header: u64) {
        let Some(record) = self.records.get_mut(&header) else { return };
        let Kind::Array { count, stopped, .. } = &mut record.kind else { return };
        if std::mem::replace(stopped, true) {
            return;
        }
        (record.not_before_us, record.expires_us) = (0, 0);
        let count = *count;
        for seq in header + 1..=header + count {
            let Some(member) = self.records.get_mut(&seq).filter(|member| !member.state.is_final()) else { continue };
            if matches!(member.kind, Kind::Member { touched: false, .. }) {
                member.state = TaskState::Cancelled;
                self.count(TaskState::Pending, TaskState::Cancelled);
            }
        }
    }

    fn retry(&mut self, seq: u64) {
        let Some(record) = self.records.get(&seq) else { return };
        match record.kind {
            Kind::Task | Kind::Member { .. } if record.state.is_final() => self.revive(seq),
            Kind::Task | Kind::Member { .. } => {}
            Kind::Array { count, .. } => self.retry_array(seq, count),
        }
    }

    fn revive(&mut self, seq: u64) {
        self.reopen_needs(seq);
        let Some(record) = self.records.get_mut(&seq) else { return };
        let before = record.state;
        (record.state, record.running) = (TaskState::Pending, false);
        (record.failures, record.losses, record.ooms) = (0, 0, 0);
        (record.not_before_us, record.expires_us, record.held) = (0, 0, false);
        let array = match &mut record.kind {
            Kind::Member { array, touched } => {
                *touched = true;
                Some(*array)
            }
            Kind::Task | Kind::Array { .. } => None,
        };
        self.count(before, TaskState::Pending);
        if let Some(header) = array.and_then(|array| self.records.get_mut(&array)) {
            header.state = TaskState::Pending;
        }
        array.into_iter().for_each(|array| self.place(array));
        self.place(seq);
        if self.is_ready(seq) {
            self.now_ready(seq);
        }
    }

    /// A retried task waits for blockers that are pending again, and asks no other ones.
    fn reopen_needs(&mut self, seq: u64) {
        let Some(mut needs) = self.records.get_mut(&seq).map(|record| std::mem::take(&mut record.needs)) else {
            return;
        };
        for (on, _, met) in &mut needs {
            *met = true;
            if let Some(blocker) = self.records.get_mut(on).filter(|blocker| !blocker.state.is_final()) {
                *met = false;
                if !blocker.dependents.contains(&seq) {
                    blocker.dependents.push(seq);
                }
            }
        }
        if let Some(record) = self.records.get_mut(&seq) {
            record.needs = needs;
        }
    }

    fn retry_array(&mut self, header: u64, count: u64) {
        let bad = |member: &Record| member.state.is_final() && member.state != TaskState::Completed;
        let ended: Vec<u64> = self.members(header).filter(|(_, m)| bad(m)).map(|(seq, _)| *seq).collect();
        if ended.is_empty() {
            return;
        }
        let was_stopped = matches!(self.records.get(&header).map(|r| r.kind), Some(Kind::Array { stopped: true, .. }));
        if was_stopped {
            self.reopen_needs(header);
        }
        if let Some(record) = self.records.get_mut(&header) {
            record.state = TaskState::Pending;
            if let Kind::Array { stopped, .. } = &mut record.kind {
                *stopped = false;
            }
        }
        for seq in ended {
            match self.records.get_mut(&seq) {
                Some(Record { kind: Kind::Member { touched: false, .. }, state, .. }) => {
                    *state = TaskState::Pending;
                    self.count(TaskState::Cancelled, TaskState::Pending);
                }
                Some(_) => self.revive(seq),
                None => {}
            }
        }
        self.place(header);
        let untouched = matches!(self.records.get(&header), Some(Record { kind: Kind::Array { cursor, .. }, .. }) if *cursor < count);
        let blocked = self.records.get(&header).is_some_and(Record::blocked);
        if was_stopped && untouched && !blocked {
            self.now_ready(header);
        }
    }

    fn wake(&mut self, now_us: u64, limit: u32) {
        let due: Vec<u64> =
            self.delayed.range(..=(now_us, u64::MAX)).take(limit as usize).map(|(_, seq)| *seq).collect();
        for seq in due {
            if let Some(record) = self.records.get_mut(&seq) {
                record.not_before_us = 0;
            }
            self.place(seq);
            if self.is_ready(seq) {
                self.now_ready(seq);
            }
        }
    }

    pub(super) fn now_ready(&mut self, seq: u64) {
        if let Some(Record { id, lane, group, .. }) = self.records.get(&seq) {
            self.applied.ready.push(NowReady { id: *id, priority: lane.priority, class: lane.class, group: *group });
        }
    }

    pub(super) fn is_ready(&self, seq: u64) -> bool {
        self.records.get(&seq).is_some_and(|record| {
            let there = match record.kind {
                Kind::Task => true,
                Kind::Member { touched, .. } => touched,
                Kind::Array { count, cursor, stopped } => !stopped && cursor < count,
            };
            there
                && !record.held
                && record.state == TaskState::Pending
                && record.not_before_us == 0
                && !record.blocked()
        })
    }

    /// Brings the sets up to date with a record.
    pub(super) fn place(&mut self, seq: u64) {
        let ready = self.is_ready(seq);
        let Some(record) = self.records.get_mut(&seq) else { return };
        let set = self.ready.entry((record.lane.index(), record.group)).or_default();
        if ready {
            set.insert(seq)
        } else {
            set.remove(&seq)
        };
        let open = record.state == TaskState::Pending;
        if open && record.held {
            self.held.insert(seq)
        } else {
            self.held.remove(&seq)
        };
        let own = !matches!(record.kind, Kind::Member { touched: false, .. });
        let wanted_us = if open && own { record.expires_us } else { 0 };
        if record.deadline_us != wanted_us {
            self.deadlines.remove(&(record.deadline_us, seq));
            record.deadline_us = wanted_us;
            if wanted_us > 0 {
                self.deadlines.insert((wanted_us, seq));
            }
        }
        let wanted_us = if open { record.not_before_us } else { 0 };
        if record.delayed_us != wanted_us {
            self.delayed.remove(&(record.delayed_us, seq));
            record.delayed_us = wanted_us;
            if wanted_us > 0 {
                self.delayed.insert((wanted_us, seq));
            }
        }
    }
}

/// Whether a dependency holds; none while its blocker has not ended.
pub fn holds(kind: DependencyKind, blocker: TaskState) -> Option<bool> {
    let succeeded = match blocker {
        TaskState::Pending | TaskState::Assigned | TaskState::Running => return None,
        TaskState::Completed => true,
        TaskState::Failed | TaskState::Cancelled | TaskState::Timeout => false,
    };
    Some(match kind {
        DependencyKind::Ended => true,
        DependencyKind::Succeeded => succeeded,
        DependencyKind::Failed => !succeeded,
    })
}
