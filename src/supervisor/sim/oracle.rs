//! The oracle as a [`Queue`]: so the supervisor's own code can stand on it instead of on the database.
//!
//! Deliberately absent: whatever the simulated supervisor never asks. Those questions get an error that says so.

use acode_worker::claim::Lane;
use acode_worker::task::{DependencyKind, TaskId, TaskState, WorkerId};

use super::model::{Kind, Model, Record};
use crate::store::{
    Applied, ArrayRecord, AttemptRecord, Counts, Entry, Event, FindError, Group, Hooks, ListFilter, NewTask, Op, Page,
    Pruned, Queue, ReadyTask, Retention, StoreError, Stream, SubmitError, TaskKind, TaskRecord, WorkerRecord,
};

/// What the oracle says to questions that it has no answer for.
fn not_simulated<T>() -> Result<T, StoreError> {
    Err(StoreError::Bug { what: "the simulator's queue does not answer that".to_owned(), source: None })
}

impl Model {
    /// The record with this number.
    pub fn record(&self, seq: u64) -> Option<&Record> {
        self.records.get(&seq)
    }

    /// A task goes from one state to another.
    pub(super) fn count(&mut self, from: TaskState, to: TaskState) {
        *self.counts.of(from) -= 1;
        *self.counts.of(to) += 1;
        if to.is_final() {
            *self.applied.settled.of(to) += 1;
        }
    }

    /// Counts everything anew.
    ///
    /// # Errors
    /// The counts that were kept say otherwise.
    pub fn recount(&self) -> Result<(), String> {
        let mut counts = Counts::default();
        let tasks = self.records.values().filter(|record| !matches!(record.kind, Kind::Array { .. }));
        tasks.for_each(|record| *counts.of(record.state) += 1);
        if counts == self.counts { Ok(()) } else { Err(format!("{counts:?} are there, {:?} are counted", self.counts)) }
    }

    /// The first few that have not ended, for people.
    pub fn waiting(&self) -> String {
        let open = self.records.values().filter(|record| !record.state.is_final()).take(5);
        let shown = open.map(|r| {
            let (seq, kind, needs) = (r.id.seq(), r.kind, &r.needs);
            format!(
                "{seq} ({kind:?}, {:?}, needs {needs:?}, not before {}, attempts {})",
                r.lane, r.not_before_us, r.attempts
            )
        });
        shown.collect::<Vec<_>>().join("; ")
    }

    fn entry(&self, record: &Record) -> ReadyTask {
        let seq = record.id.seq();
        let spec_json = record.spec_json.clone();
        let (entry, place) = match record.kind {
            Kind::Task => (Entry::Task { spec_json }, seq),
            Kind::Array { count, cursor, .. } => (Entry::Array { cursor, count }, seq + cursor),
            Kind::Member { array, .. } => {
                let id = self.records.get(&array).map_or(record.id, |header| header.id);
                (Entry::Member { array: id, index: seq - array - 1, spec_json }, seq)
            }
        };
        let Record { id, attempts, failures, losses, ooms, .. } = *record;
        ReadyTask { id, place, attempts, failures, losses, ooms, ready_us: id.millis() * 1_000, entry }
    }

    fn record_of(&self, record: &Record) -> TaskRecord {
        let kind = match record.kind {
            Kind::Task => TaskKind::Task,
            Kind::Array { count, cursor, .. } => {
                let number = |wanted: fn(&Record) -> bool| {
                    self.members(record.id.seq()).filter(|(_, member)| wanted(member)).count() as u64
                };
                use acode_worker::task::TaskState::{Cancelled, Failed, Timeout};
                TaskKind::Array(ArrayRecord {
                    count,
                    cursor,
                    open: number(|member| !member.state.is_final()),
                    failed: number(|member| matches!(member.state, Failed | Timeout)),
                    cancelled: number(|member| member.state == Cancelled),
                })
            }
            Kind::Member { array, .. } => {
                let id = self.records.get(&array).map_or(record.id, |header| header.id);
                let index = record.id.seq() - array - 1;
                TaskKind::Member { array: id, index, item: index.to_string() }
            }
        };
        TaskRecord {
            id: record.id,
            kind,
            state: record.state,
            spec: record.spec.clone(),
            priority: record.lane.priority,
            class: record.lane.class,
            blockers: record.blockers(),
            not_before_us: record.not_before_us,
            held: record.held,
            ready_us: 0,
            expires_us: record.expires_us,
            group_id: record.group,
            group: None,
            running: record.running,
            attempts: record.attempts,
            failures: record.failures,
            losses: record.losses,
            ooms: record.ooms,
            key: None,
            cause: None,
            hook_of: None,
            started_us: None,
            finished_us: None,
            verdict: None,
            error: None,
            result: None,
            reason: None,
            progress_percent: None,
            progress_message: None,
        }
    }
}

impl Queue for Model {
    fn apply(&mut self, ops: &[Op]) -> Result<Applied, StoreError> {
        Ok(self.apply_all(ops))
    }
    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
    fn prune(&mut self, _: &Retention, _: u64, _: u32) -> Result<Pruned, StoreError> {
        not_simulated()
    }
    fn allocate(&mut self, now_ms: u64, span: u64) -> TaskId {
        let seq = self.next_seq;
        self.next_seq += span;
        self.last_ms = self.last_ms.max(now_ms);
        TaskId::new(self.last_ms, self.tag, seq)
    }
    fn check(&self, _: &[NewTask]) -> Result<Result<(), (TaskId, SubmitError)>, StoreError> {
        not_simulated()
    }
    fn blocked(&self) -> u64 {
        self.records.values().filter(|record| !record.state.is_final() && record.blockers() > 0).count() as u64
    }
    fn set_hooks(&mut self, _: Hooks) {}
    fn has_dependents(&self, id: TaskId) -> Result<bool, StoreError> {
        Ok(self.records.get(&id.seq()).is_some_and(|record| !record.dependents.is_empty()))
    }
    fn key_holder(&self, _: &str) -> Result<Option<TaskId>, StoreError> {
        not_simulated()
    }
    fn key_of(&self, _: TaskId) -> Result<Option<(TaskId, String)>, StoreError> {
        not_simulated()
    }
    fn hooks_of(&self, _: TaskId, _: usize) -> Result<Vec<TaskId>, StoreError> {
        not_simulated()
    }
    fn find_by_name(&self, name: &str) -> Result<TaskId, FindError> {
        Err(FindError::NotFound(name.to_owned()))
    }
    fn last_event(&self) -> u64 {
        0
    }
    fn copies_in_use(&self) -> Result<Vec<String>, StoreError> {
        not_simulated()
    }
    fn counts(&self) -> Counts {
        self.counts
    }
    fn ready(&self, stream: Stream, after: u64, limit: usize) -> Result<Vec<ReadyTask>, StoreError> {
        let lane = Lane { priority: stream.priority, class: stream.class };
        let Some(set) = self.ready.get(&(lane.index(), stream.group)) else { return Ok(Vec::new()) };
        let records = |seq: &u64| self.records.get(seq);
        // An array stands where its next untouched member does, which may be behind `after` although its number is not.
        let before = self.arrays.range(..=after).next_back().filter(|array| set.contains(array)).and_then(records);
        let mut waiting = before.map(|array| self.entry(array)).filter(|array| array.place >= after);
        let mut found = Vec::new();
        for record in set.range(after + 1..).filter_map(records) {
            if found.len() == limit || waiting.as_ref().is_some_and(|array| array.place < record.id.seq()) {
                break;
            }
            match record.kind {
                Kind::Array { .. } => waiting = Some(self.entry(record)),
                Kind::Task | Kind::Member { .. } => found.push(self.entry(record)),
            }
        }
        found.extend(waiting.filter(|_| found.len() < limit));
        Ok(found)
    }
    fn ahead(&self, _: Stream, _: u64, _: u64) -> Result<u64, StoreError> {
        not_simulated()
    }
    fn groups(&self) -> Result<Vec<Group>, StoreError> {
        let open = |id: u32| {
            let tasks = self.records.values().filter(|r| !matches!(r.kind, Kind::Array { .. }) && r.group == id);
            tasks.filter(|record| !record.state.is_final()).count() as u64
        };
        let mut groups: Vec<_> =
            self.groups.iter().map(|group| Group { open: open(group.id), ..group.clone() }).collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(groups)
    }
    fn open_in_group(&self, _: u32, _: usize) -> Result<Vec<TaskId>, StoreError> {
        not_simulated()
    }
    fn next_expiry(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.deadlines.first().map(|(at, _)| *at))
    }
    fn expired(&self, now_us: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        Ok(self.deadlines.range(..=(now_us, u64::MAX)).take(limit).map(|(_, seq)| *seq).collect())
    }
    fn next_delayed(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.delayed.first().map(|(at, _)| *at))
    }
    fn interrupted(&self) -> Result<Vec<ReadyTask>, StoreError> {
        Ok(self.records.values().filter(|record| record.running).map(|record| self.entry(record)).collect())
    }
    fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let mut live: Vec<_> = self.workers.values().filter(|worker| worker.stopped_us.is_none()).cloned().collect();
        live.sort_by_key(|worker| worker.slot);
        Ok(live)
    }
    fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        Ok(self.records.get(&id.seq()).filter(|record| record.id == id).map(|record| self.record_of(record)))
    }
    fn find_by_prefix(&self, prefix: &str) -> Result<TaskId, FindError> {
        Err(FindError::NotAnId(prefix.to_owned()))
    }
    fn find_by_number(&self, seq: u64) -> Result<TaskId, FindError> {
        self.records.get(&seq).map(|record| record.id).ok_or_else(|| FindError::NotFound(seq.to_string()))
    }
    fn list(&self, _: &ListFilter, _: usize) -> Result<Page, StoreError> {
        not_simulated()
    }
    fn attempts(&self, _: TaskId, _: usize) -> Result<Vec<AttemptRecord>, StoreError> {
        not_simulated()
    }
    fn dependencies(&self, _: TaskId, _: usize) -> Result<Vec<(TaskId, DependencyKind, bool)>, StoreError> {
        not_simulated()
    }
    fn events(&self, _: u64, _: usize) -> Result<Vec<Event>, StoreError> {
        not_simulated()
    }
    fn last_event_before(&self, _: u64) -> Result<u64, StoreError> {
        not_simulated()
    }
    fn segments_in_use(&self) -> Result<Vec<(WorkerId, u64)>, StoreError> {
        not_simulated()
    }
}
