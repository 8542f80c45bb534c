//! What the pool looks like from outside: the records of the control protocol, made from the queue and the live pool.
//!
//! The queue knows what was committed; what is assigned or running is known here alone and laid over it. Deliberately
//! absent: any change of anything.

use std::collections::BTreeMap;

use acode_worker::sys::clock;
use acode_worker::task::{TaskId, TaskState};

use super::Supervisor;
use super::decide::{Mode, Status};
use super::desk::Phase;
use super::modes;
use crate::records;
use crate::requests;
use crate::store::{self, StoreError};
use crate::wire::types::{
    PauseRecord, PoolRecord, PoolState, QueueRecord, ScalingMode, StatusRecord, TaskCounts, TaskRecord, Waiting,
    WorkerCounts, WorkerRecord, WorkerStatus,
};
use crate::wire::{CgroupRecord, SCHEMA, Stamp};

impl Supervisor {
    /// `Status`.
    pub(super) fn status(&mut self) -> StatusRecord {
        let pids = self.all_pids();
        let resources = self.meter.look(pids.into_iter(), self.now_ns, self.started_ns);
        StatusRecord {
            schema: SCHEMA,
            pool: PoolRecord {
                name: self.config.pool.name.clone(),
                id: self.id.to_string(),
                pid: std::process::id(),
                state: self.pool_state(),
                paused: self.pauses.record(),
                mode: modes::name(&self.config.workers.mode).to_owned(),
                started_at: Stamp::from_micros(self.started_us),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            workers: self.worker_counts(),
            tasks: self.task_counts(),
            resources,
            cgroup: Some(self.cgroup_record()),
            queue: QueueRecord {
                accepting: self.broken.is_none() && !self.is_stopping(),
                problem: self.broken.as_ref().map(|broken| broken.why.clone()),
                limit: self.config.queue.max_tasks,
                backpressure: self.backlog.record(),
            },
            docker: self.engine_record(),
            metrics_listen: self.observer.scrape.address().map(|address| address.to_string()),
        }
    }

    /// What holds the limits of tasks.
    fn cgroup_record(&self) -> CgroupRecord {
        let ladder = &self.holding.ladder;
        CgroupRecord {
            rung: ladder.rung,
            path: self.holding.base().map(|base| base.to_string_lossy().into_owned()),
            controllers: ladder.controllers.names(),
            why: ladder.why.clone(),
            limits: self.holding.pool.clone(),
        }
    }

    /// The pids of everything that belongs to the pool, as far as it can be seen.
    pub(super) fn all_pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.crew.iter().map(|(_, hand)| hand.pid).collect();
        pids.push(nix::unistd::getpid().as_raw());
        pids.push(self.nursery.pid);
        pids.extend(self.crew.task_pids());
        pids
    }

    fn pool_state(&self) -> PoolState {
        match self.fleet.mode() {
            Mode::Running if !self.pauses.is_open() => PoolState::Paused,
            Mode::Running if self.stop_when_empty => PoolState::Draining,
            Mode::Running => PoolState::Running,
            Mode::Draining { .. } => PoolState::Draining,
            Mode::TakingBack { .. } | Mode::Killing => PoolState::Stopping,
        }
    }

    /// The answer to `Stop`, and what it goes on with.
    pub(super) fn stopping(&self) -> crate::wire::reply::Stopping {
        let counts = self.task_counts();
        crate::wire::reply::Stopping {
            pid: std::process::id(),
            state: self.pool_state(),
            running: counts.running + counts.assigned,
            pending: counts.pending,
        }
    }

    pub(super) fn worker_counts(&self) -> WorkerCounts {
        let scaling = self.scaler.mode();
        let by_load = self.scaler.rules();
        let (min, max) = match scaling {
            ScalingMode::Auto => (u32::from(by_load.min), u32::from(by_load.max)),
            ScalingMode::Manual | ScalingMode::Off => (1, self.config.workers.max_count.min(self.max_rows())),
        };
        let target = u32::from(self.fleet.target());
        let mut counts = WorkerCounts { target, min, max, scaling, ..WorkerCounts::default() };
        let holding = self.holding();
        for (row, hand) in self.crew.iter() {
            counts.active += 1;
            counts.modes.add(hand.mode.isolation);
            match self.worker_status(row, &holding) {
                WorkerStatus::Starting => counts.starting += 1,
                WorkerStatus::Idle => counts.idle += 1,
                WorkerStatus::Busy => counts.busy += 1,
                WorkerStatus::Unhealthy => counts.unhealthy += 1,
                WorkerStatus::Stopping | WorkerStatus::Stopped => counts.stopping += 1,
            }
        }
        counts
    }

    /// The workers that have claimed something, with what.
    pub(super) fn holding(&self) -> BTreeMap<u16, TaskId> {
        self.desk.iter().filter_map(|active| Some((self.producer.holder(active.ticket)?, active.id))).collect()
    }

    /// A worker's status: the fleet's word, and for idle or busy what the table says now. A claim counts from its very
    /// moment, which is a little before the worker says in its row that it is busy.
    pub(super) fn worker_status(&self, row: u16, holding: &BTreeMap<u16, TaskId>) -> WorkerStatus {
        use acode_worker::claim::WorkerState;
        match self.fleet.status(row) {
            None => WorkerStatus::Stopped,
            Some(Status::Starting) => WorkerStatus::Starting,
            Some(Status::Unhealthy) => WorkerStatus::Unhealthy,
            Some(Status::Stopping) => WorkerStatus::Stopping,
            Some(Status::Idle | Status::Busy) if holding.contains_key(&row) => WorkerStatus::Busy,
            Some(Status::Idle | Status::Busy) => match self.producer.row(row).map(|seen| seen.state) {
                Some(WorkerState::Busy) => WorkerStatus::Busy,
                _ => WorkerStatus::Idle,
            },
        }
    }

    /// `Workers`.
    pub(super) fn workers(&self) -> Vec<WorkerRecord> {
        let (now_ns, now_us) = (clock::monotonic_ns(), clock::unix_us());
        let mut workers: Vec<_> = self.crew.iter().collect();
        workers.sort_by_key(|(_, hand)| hand.born_us);
        let holding = self.holding();
        let record = |(row, hand): (u16, &super::crew::Hand)| {
            let seen = self.producer.row(row);
            let status = self.worker_status(row, &holding);
            let beat_ns = seen.as_ref().map_or(0, |seen| seen.heartbeat_ns);
            let ago_us = i64::try_from(now_ns.saturating_sub(beat_ns) / 1_000).unwrap_or(0);
            WorkerRecord {
                schema: SCHEMA,
                id: hand.id,
                pid: hand.pid as u32,
                status,
                mode: hand.mode.isolation.name().to_owned(),
                current_task: holding.get(&row).copied(),
                usage_now: seen.and_then(|seen| seen.live).filter(|_| status == WorkerStatus::Busy).map(Into::into),
                started_at: Stamp::from_micros(hand.born_us),
                last_heartbeat_at: (beat_ns > 0).then(|| Stamp::from_micros(now_us - ago_us)),
                tasks_completed: hand.completed,
                tasks_failed: hand.failed,
                healthy: status != WorkerStatus::Unhealthy,
            }
        };
        workers.into_iter().map(record).collect()
    }

    /// All tasks by state.
    pub(super) fn task_counts(&self) -> TaskCounts {
        let stored = self.store.counts();
        let mut counts = TaskCounts {
            pending: stored.pending,
            completed: stored.completed,
            failed: stored.failed,
            cancelled: stored.cancelled,
            timeout: stored.timeout,
            ..TaskCounts::default()
        };
        self.mark_active(&mut counts, |_| true);
        counts
    }

    /// A task's record, as it stands now.
    pub(super) fn task_record(&self, stored: store::TaskRecord) -> Result<TaskRecord, StoreError> {
        let live = self.desk.get(stored.id.seq());
        let waiting = match (stored.state, live.map(|active| active.phase)) {
            (TaskState::Pending, None) => {
                let mut waiting = self.waiting(&stored)?;
                requests::explain_retry(&mut waiting, &stored, Some(self.policy.retry.count));
                Some(waiting)
            }
            (TaskState::Pending, Some(Phase::Published)) => Some(Waiting::Queued { ahead: None }),
            _ => None,
        };
        let mut record = records::task(stored, waiting);
        if let Some(active) = live {
            match active.phase {
                Phase::Published if self.producer.holder(active.ticket).is_none() => {}
                Phase::Published => record.state = TaskState::Assigned,
                Phase::Running { started_us, .. } => {
                    record.state = TaskState::Running;
                    record.started_at = Some(Stamp::from_micros(started_us as i64));
                    record.attempt_count = active.attempt;
                }
                // Ended, but not on disk: it is not over for anybody yet.
                Phase::Ended => record.state = TaskState::Running,
            }
            if record.state != TaskState::Pending {
                record.waiting = None;
            }
            if record.state == TaskState::Running {
                let row = self.producer.holder(active.ticket).and_then(|row| self.producer.row(row));
                record.usage_now = row.and_then(|row| row.live).map(Into::into);
            }
            if let Some(since) = active.suspended_us {
                record.suspended = true;
                record.suspended_at = Some(Stamp::from_micros(i64::try_from(since).unwrap_or(i64::MAX)));
            }
            if let Some(progress) = &active.progress {
                record.progress = Some(records::progress(progress.percent, Some(progress.message.clone())));
            }
        }
        if let Some(array) = &mut record.array {
            let (first, last) = (record.number + 1, record.number + array.count);
            self.mark_active(&mut array.members, |seq| (first..=last).contains(&seq));
        }
        Ok(record)
    }

    fn waiting(&self, stored: &store::TaskRecord) -> Result<Waiting, StoreError> {
        if let Some(waiting) = requests::waiting(&*self.store, stored)? {
            return Ok(waiting);
        }
        if let Some(waiting) = self.waits_for_worker(stored.class) {
            return Ok(waiting);
        }
        if let Some(waiting) = self.waits_for_group(stored) {
            return Ok(waiting);
        }
        if let Some(broken) = &self.broken {
            return Ok(Waiting::Paused { why: broken.why.clone() });
        }
        Ok(match self.pauses.record() {
            _ if self.is_stopping() => Waiting::Draining,
            Some(PauseRecord { why, .. }) => Waiting::Paused { why },
            None => Waiting::Queued { ahead: None },
        })
    }
}
