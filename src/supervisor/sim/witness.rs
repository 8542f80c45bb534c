//! The witness: sees what workers do and what is on disk, and says when a promise is broken.
//!
//! It knows nothing of desk, lanes, marks or batches, only of what was promised: no task lost, none in two hands, none
//! ended twice, the order kept, dependencies and limits respected. Deliberately absent: how any of that is brought about.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use acode_worker::claim::{LANES, Lane};
use acode_worker::task::{DependencyKind, TaskId, TaskState};
use acode_worker::wire::WorkerMode;

use super::model::holds;
use crate::store::{Applied, NewTask, Op};

/// A promise that was broken, in words.
pub type Verdict = Result<(), String>;

/// Who has a task in hand: the worker's row, and which of the workers of that row.
pub type Hands = (u16, u64);

/// What was submitted under one number.
#[derive(Debug, Clone)]
struct Known {
    id: TaskId,
    lane: Lane,
    needs: Vec<(u64, DependencyKind)>,
    not_before_us: u64,
    expires_us: u64,
    /// Its limit group, which has its limit's name.
    group: Option<(String, u32)>,
    /// A person holds it.
    stopped: bool,
    /// Of an array: its members.
    members: u64,
    /// Its client was told that it is accepted.
    accepted: bool,
    /// Somebody has asked for it to be cancelled.
    cancelled: bool,
    /// A person had it run again, after which it owes less to what it waited for.
    retried: bool,
    ended: Option<TaskState>,
    /// Who executes it now.
    held: Option<Hands>,
    /// The supervisor's life and the number of its last attempt.
    last: (u64, u32),
}

/// What is counted for the report of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tasks, members counted one by one, that have ended.
    pub lives: u64,
    /// Attempts that were executed.
    pub attempts: u64,
    /// Workers that were made.
    pub births: u64,
    /// Supervisors.
    pub supervisors: u64,
}

/// The witness.
#[derive(Debug, Default)]
pub struct Witness {
    known: BTreeMap<u64, Known>,
    /// Of each lane, what has to start in the order of submission and has not started yet.
    in_order: [BTreeSet<u64>; LANES],
    /// The same, as it was when the supervisor last filled the table: the first of each lane.
    visible: [Option<u64>; LANES],
    /// Which supervisor lives.
    pub life: u64,
    /// Ends of this supervisor's life that are on disk, and those that it told to whoever waits.
    on_disk: BTreeSet<(TaskId, u8)>,
    told: HashSet<(TaskId, u8)>,
    /// Claims of this life whose end is not on disk.
    pub unsettled: BTreeMap<u64, u32>,
    /// Attempts whose success was reported in this life.
    reported: HashSet<(u64, u32)>,
    /// How many of each group are executed.
    running: BTreeMap<String, u32>,
    /// For the report.
    pub tally: Tally,
}

impl Witness {
    /// A client sends a request. Whether it is accepted shows later.
    pub fn submitted(&mut self, new: &NewTask) {
        let members = new.array.as_ref().map_or(0, acode_worker::task::Array::len);
        let known = Known {
            id: new.id,
            lane: Lane { priority: new.priority, class: new.class },
            needs: new.dependencies.iter().map(|(on, kind)| (on.seq(), *kind)).collect(),
            not_before_us: new.not_before_us,
            expires_us: new.expires_us,
            group: new.group.as_ref().and_then(|wish| Some((wish.name.clone(), wish.max?))),
            stopped: new.held,
            members,
            accepted: false,
            cancelled: false,
            retried: false,
            ended: None,
            held: None,
            last: (0, 0),
        };
        for seq in new.id.seq() + 1..=new.id.seq() + members {
            let id = TaskId::new(new.id.millis(), new.id.queue(), seq);
            self.known.insert(seq, Known { id, members: 0, ..known.clone() });
        }
        self.known.insert(new.id.seq(), known);
    }

    /// The client is told that it is accepted.
    pub fn accepted(&mut self, id: TaskId) -> Verdict {
        let Some(known) = self.known.get(&id.seq()).cloned() else { return Err(format!("{id} was never submitted")) };
        let (first, last) = (id.seq(), id.seq() + known.members);
        let plain = known.needs.is_empty() && known.not_before_us == 0 && known.expires_us == 0;
        let plain = plain && known.group.is_none() && !known.stopped;
        for seq in first..=last {
            let Some(known) = self.known.get_mut(&seq) else { continue };
            known.accepted = true;
            let array = seq == first && last > first;
            if plain && !array && !known.cancelled && known.ended.is_none() && known.last == (0, 0) {
                self.in_order[known.lane.index()].insert(seq);
            }
        }
        Ok(())
    }

    /// Every number that was accepted, an array's own one included.
    pub fn all_accepted(&self) -> impl Iterator<Item = TaskId> {
        self.known.values().filter(|known| known.accepted).map(|known| known.id)
    }

    /// How many numbers are known, and the one at this place; to choose one of them.
    pub fn pick(&self, number: u64) -> Option<TaskId> {
        let count = self.known.len() as u64;
        // Mostly of the youngest, where something still happens.
        let back = if number.is_multiple_of(3) { number % count.max(1) } else { number % count.clamp(1, 100) };
        let last = self.known.last_key_value().map(|(seq, _)| *seq)?;
        self.known.range(..=last - back.min(last - 1)).next_back().map(|(_, known)| known.id)
    }

    /// The tasks or arrays, no members, counted back from the last.
    pub fn back(&self, back: u64) -> Option<TaskId> {
        let mut found = None;
        let mut seq = self.known.last_key_value().map(|(seq, _)| *seq)?.saturating_sub(back);
        while let Some((at, known)) = self.known.range(..=seq).next_back() {
            found = Some(known.id);
            let header = self.known.range(..*at).rev().take(1_000).find(|(_, known)| known.members > 0);
            match header {
                Some((start, header)) if start + header.members >= *at => seq = *start,
                Some(_) | None => break,
            }
        }
        found.filter(|id| self.known.get(&id.seq()).is_some_and(|known| known.accepted))
    }

    /// A client asks for a task, or an array with its members, to be cancelled or to run again: it is out of the order.
    pub fn disturbed(&mut self, id: TaskId) {
        let members = self.known.get(&id.seq()).map_or(0, |known| known.members);
        for (seq, known) in self.known.range_mut(id.seq()..=id.seq() + members) {
            known.cancelled = true;
            self.in_order[known.lane.index()].remove(seq);
        }
    }

    /// The first task of a lane that has to start in order.
    pub fn first_in(&self, lane: Lane) -> Option<u64> {
        self.in_order[lane.index()].first().copied()
    }

    /// The supervisor has filled a lane as far as it could. `visible` says whether workers can claim its first task.
    pub fn filled(&mut self, lane: Lane, visible: bool) {
        self.visible[lane.index()] = self.first_in(lane).filter(|_| visible);
    }

    /// A supervisor has died: what it knew counts no more.
    pub fn new_life(&mut self) {
        self.life += 1;
        self.tally.supervisors += 1;
        (self.on_disk, self.told, self.reported) = Default::default();
        self.unsettled.clear();
        self.visible = Default::default();
    }

    /// A worker claims a task.
    pub fn claimed(&mut self, id: TaskId, attempt: u32, (hands, mode): (Hands, WorkerMode), now_us: u64) -> Verdict {
        let life = self.life;
        let Some(known) = self.known.get_mut(&id.seq()).filter(|known| known.id == id) else {
            return Err(format!("{id} is claimed and was never submitted"));
        };
        if let Some(other) = known.held {
            return Err(format!("task {} is given to {hands:?} while {other:?} has it", id.seq()));
        }
        if !mode.takes(known.lane.class) {
            return Err(format!("task {} of class {:?} is given to a worker of {mode:?}", id.seq(), known.lane.class));
        }
        if let Some(state) = known.ended {
            return Err(format!("task {} runs again although it is {state}", id.seq()));
        }
        if known.last.0 == life && known.last.1 >= attempt {
            return Err(format!("attempt {attempt} of task {} runs a second time", id.seq()));
        }
        if now_us < known.not_before_us && !known.retried {
            return Err(format!("task {} starts {} us before its time", id.seq(), known.not_before_us - now_us));
        }
        if known.stopped {
            return Err(format!("task {} starts although a person holds it", id.seq()));
        }
        if let Some((group, max)) = &known.group {
            let running = self.running.entry(group.clone()).or_default();
            *running += 1;
            if *running > *max {
                return Err(format!("task {} is number {running} of group {group}, which may have {max}", id.seq()));
            }
        }
        known.held = Some(hands);
        known.last = (life, attempt);
        let (lane, retried) = (known.lane, known.retried);
        self.unsettled.insert(id.seq(), attempt);
        self.tally.attempts += 1;
        if !retried {
            self.check_needs(id.seq())?;
        }
        self.check_order(id.seq(), lane, mode)
    }

    fn check_needs(&self, seq: u64) -> Verdict {
        let Some(known) = self.known.get(&seq) else { return Ok(()) };
        for (on, kind) in &known.needs {
            let Some(blocker) = self.known.get(on).filter(|blocker| !blocker.retried) else { continue };
            let held = blocker.ended.and_then(|state| holds(*kind, state));
            if held != Some(true) {
                return Err(format!(
                    "task {seq} starts although its dependency {on} ({kind:?}) is {:?}",
                    blocker.ended
                ));
            }
        }
        Ok(())
    }

    fn check_order(&mut self, seq: u64, lane: Lane, mode: WorkerMode) -> Verdict {
        let set = &mut self.in_order[lane.index()];
        if set.remove(&seq)
            && let Some(first) = set.first().filter(|first| **first < seq)
        {
            return Err(format!("task {seq} overtakes task {first} of the same priority"));
        }
        for more_urgent in Lane::all().filter(|other| other.priority < lane.priority && mode.takes(other.class)) {
            let waits =
                self.visible[more_urgent.index()].filter(|seq| self.in_order[more_urgent.index()].contains(seq));
            if let Some(first) = waits {
                return Err(format!("task {seq} ({lane:?}) is claimed before task {first}, which is {more_urgent:?}"));
            }
        }
        Ok(())
    }

    /// A worker writes down that an attempt has succeeded, where the supervisor can read it.
    pub fn succeeded(&mut self, seq: u64, attempt: u32) {
        self.reported.insert((seq, attempt));
    }

    /// No process of the task is left.
    pub fn let_go(&mut self, seq: u64, hands: Hands) {
        if let Some(known) = self.known.get_mut(&seq)
            && known.held == Some(hands)
        {
            known.held = None;
            if let Some(running) = known.group.as_ref().and_then(|(group, _)| self.running.get_mut(group)) {
                *running -= 1;
            }
        }
    }

    /// How many tasks are in somebody's hands.
    pub fn held(&self) -> usize {
        self.known.values().filter(|known| known.held.is_some()).count()
    }

    /// These operations are on disk now, and this came of them.
    pub fn written(&mut self, ops: &[Op], applied: &Applied) -> Verdict {
        for op in ops {
            match op {
                Op::Finished(end) => {
                    if self.reported.contains(&(end.id.seq(), end.attempt)) && !end.verdict.is_success() {
                        let (seq, attempt, verdict) = (end.id.seq(), end.attempt, &end.verdict);
                        return Err(format!(
                            "attempt {attempt} of task {seq} was reported done, and is stored as {verdict}"
                        ));
                    }
                    if self.unsettled.get(&end.id.seq()) == Some(&end.attempt) {
                        self.unsettled.remove(&end.id.seq());
                    }
                }
                Op::Retry { id, .. } => self.retried(*id),
                Op::Hold { id, keep, .. } => {
                    self.stop(*id, |seq, known| known.ended.is_none() && known.held.is_none() && !keep.contains(&seq))
                }
                Op::Release { id, .. } => self.stop(*id, |_, _| false),
                Op::Submit(_)
                | Op::Group { .. }
                | Op::Expire { .. }
                | Op::Age { .. }
                | Op::Expand { .. }
                | Op::Started { .. }
                | Op::Progress { .. }
                | Op::Cancel { .. }
                | Op::Wake { .. }
                | Op::WorkerStarted(_)
                | Op::Suspended { .. }
                | Op::Pause { .. }
                | Op::WorkerEvent { .. }
                | Op::WorkerUnhealthy { .. }
                | Op::WorkerStopped { .. }
                | Op::PoolEvent { .. }
                | Op::Continue => {}
            }
        }
        for (id, state) in &applied.ended {
            self.on_disk.insert((*id, *state as u8));
            let Some(known) = self.known.get_mut(&id.seq()) else {
                return Err(format!("{id} ends and was never there"));
            };
            if let Some(before) = known.ended.replace(*state) {
                return Err(format!("task {} is {before}, and ends again as {state}", id.seq()));
            }
            self.in_order[known.lane.index()].remove(&id.seq());
            self.tally.lives += u64::from(known.members == 0);
        }
        Ok(())
    }

    /// A person holds a task or an array with its members, or lets them go.
    fn stop(&mut self, id: TaskId, wanted: impl Fn(u64, &Known) -> bool) {
        let members = self.known.get(&id.seq()).map_or(0, |known| known.members);
        for (seq, known) in self.known.range_mut(id.seq()..=id.seq() + members) {
            known.stopped = wanted(*seq, known);
        }
    }

    fn retried(&mut self, id: TaskId) {
        let members = self.known.get(&id.seq()).map_or(0, |known| known.members);
        let array = self.known.range(..id.seq()).next_back().map(|_| ());
        for (_, known) in self.known.range_mut(id.seq()..=id.seq() + members) {
            (known.retried, known.stopped) = (true, false);
            if known.ended != Some(TaskState::Completed) || known.members > 0 {
                known.ended = None;
            }
        }
        // A member that runs again opens its array.
        if array.is_some()
            && let Some((_, header)) = self
                .known
                .range_mut(..id.seq())
                .rev()
                .find(|(seq, known)| known.members > 0 && **seq + known.members >= id.seq())
        {
            (header.retried, header.ended) = (true, None);
        }
    }

    /// The supervisor tells whoever waits that this has ended.
    pub fn tells(&mut self, ended: &[(TaskId, TaskState)]) {
        self.told.extend(ended.iter().map(|(id, state)| (*id, *state as u8)));
    }

    /// Whoever waits for the end of a task has been told: asked when everything has come to rest.
    pub fn check_told(&self) -> Verdict {
        match self.on_disk.iter().find(|end| !self.told.contains(end)) {
            None => Ok(()),
            Some((id, state)) => {
                Err(format!("the end of task {} (state {state}) is on disk and nobody was told", id.seq()))
            }
        }
    }
}
