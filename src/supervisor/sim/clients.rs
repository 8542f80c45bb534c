//! What simulated clients ask of the simulated supervisor: the counterpart of `control`.
//!
//! Requests are well-formed; what a bad one gets is tested elsewhere. Deliberately absent: questions, which change
//! nothing.

use std::sync::Arc;

use acode_worker::claim::Lane;
use acode_worker::task::{Array, TaskId, TaskSpec};
use acode_worker::wire::Order;

use super::pool::{Pool, ROWS};
use super::scene::Scene;
use super::script::Entry;
use crate::requests;
use crate::store::{NewTask, Op, Queue, TaskKind};
use crate::supervisor::clients::ClientId;
use crate::supervisor::decide::Event;
use crate::supervisor::desk::Phase;
use crate::supervisor::ledger::After;
use crate::wire::reply;

impl Pool {
    /// See `control::submit`.
    pub fn submit(&mut self, scene: &mut Scene, entries: Vec<Entry>) {
        if self.is_stopping() || self.broken.is_some() {
            return;
        }
        let now_us = scene.now_us();
        let mut tasks = Vec::with_capacity(entries.len());
        for entry in entries {
            let array = entry.members.map(|count| Array::Range { first: 0, count });
            let id = self.store.allocate(now_us / 1_000, 1 + entry.members.unwrap_or(0));
            let retry = entry.retry;
            let spec = TaskSpec { command: vec!["/bin/true".to_owned()], retry, ..TaskSpec::default() };
            let dependencies: Vec<_> =
                entry.needs.iter().filter_map(|(back, kind)| Some((scene.witness.back(*back)?, *kind))).collect();
            let task = NewTask {
                id,
                at_us: now_us,
                spec_json: spec_json(&spec),
                priority: entry.priority,
                class: entry.class,
                not_before_us: entry.delay_ms.map_or(0, |ms| crate::store::later(now_us, ms)),
                array,
                dependencies,
            };
            tasks.push(task);
        }
        if tasks.iter().any(|task| !task.dependencies.is_empty()) {
            self.commit(scene);
        }
        let ids = tasks.iter().map(|task| task.id).collect();
        for task in tasks {
            scene.witness.submitted(&task);
            let lane = Lane { priority: task.priority, class: task.class };
            self.desk.expect(lane, 0, task.id.seq());
            self.ledger.submit(task, scene.now_ns);
        }
        self.ledger.then(After::Accepted { client: ClientId::NOBODY, ids });
    }

    /// See `control::answer`: what waits for a commit comes before any other answer.
    fn settle(&mut self, scene: &mut Scene) {
        if !self.ledger.is_empty() {
            self.commit(scene);
        }
    }

    /// See `control::cancel` and `control::cancel_active`.
    pub fn cancel(&mut self, scene: &mut Scene, id: TaskId) {
        self.settle(scene);
        let record = match self.store.get(id) {
            Ok(Some(record)) if self.broken.is_none() && !self.crashed => record,
            Ok(_) => return,
            Err(_) => return self.store_failed(scene),
        };
        if record.state.is_final() {
            return;
        }
        scene.witness.disturbed(id);
        let last = match record.kind {
            TaskKind::Array(array) => id.seq() + array.count,
            TaskKind::Task | TaskKind::Member { .. } => id.seq(),
        };
        let keep = self.cancel_active(scene, id.seq(), last);
        if keep.is_empty() || last > id.seq() {
            let (reason, at_us) = ("cancelled by request".to_owned(), scene.now_us());
            self.record(scene, Op::Cancel { id, keep: Arc::from(keep), reason, at_us });
        }
        let reply = reply::Cancelled { cancelled: vec![id], ..reply::Cancelled::default() };
        self.ledger.then(After::Cancelled { client: ClientId::NOBODY, reply });
    }

    fn cancel_active(&mut self, scene: &mut Scene, first: u64, last: u64) -> Vec<u64> {
        let seqs = self.desk.iter().map(|active| active.id.seq());
        let mut concerned: Vec<u64> = seqs.filter(|seq| (first..=last).contains(seq)).collect();
        // The desk has no order, and a run has to repeat itself.
        concerned.sort_unstable();
        let mut held = Vec::new();
        for seq in concerned {
            let Some(active) = self.desk.get_mut(seq) else { continue };
            let ticket = active.ticket;
            if active.phase == Phase::Published && self.producer.retract(ticket) {
                self.desk.take(seq);
                continue;
            }
            active.cancelled.get_or_insert_with(|| "cancelled by request".to_owned());
            held.push(seq);
            if let Some(row) = self.producer.holder(ticket) {
                scene.order(row, Order::Cancel { ticket });
            }
        }
        held
    }

    /// See `control::retry`.
    pub fn retry(&mut self, scene: &mut Scene, id: TaskId) {
        self.settle(scene);
        let record = match self.store.get(id) {
            Ok(Some(record)) if self.broken.is_none() && !self.crashed => record,
            Ok(_) => return,
            Err(_) => return self.store_failed(scene),
        };
        if requests::may_retry(record.state) {
            scene.witness.disturbed(id);
            let at_us = scene.now_us();
            self.record(scene, Op::Retry { id, at_us });
            let reply = reply::Retried { retried: vec![id], ..reply::Retried::default() };
            self.ledger.then(After::Retried { client: ClientId::NOBODY, reply });
        }
    }

    /// See `stop::scale_to`.
    pub fn scale(&mut self, scene: &mut Scene, count: u16) {
        if !self.is_stopping() {
            self.decide(scene, Event::Scale { target: count.clamp(1, ROWS) });
        }
    }
}

/// The specification as `NewTask::new` writes it. By hand where it is the usual one: JSON takes longer than all the rest.
fn spec_json(spec: &TaskSpec) -> String {
    match spec.retry {
        None => r#"{"command":["/bin/true"]}"#.to_owned(),
        Some(_) => serde_json::to_string(spec).unwrap_or_default(),
    }
}
