//! What simulated clients ask of the simulated supervisor: the counterpart of `control`.
//!
//! Requests are well-formed; what a bad one gets is tested elsewhere. Deliberately absent: questions, which change
//! nothing.

use std::sync::Arc;

use acode_worker::claim::Lane;
use acode_worker::task::{Array, GroupWish, TaskId, TaskSpec};
use acode_worker::wire::Order;

use super::pool::{Pool, ROWS};
use super::scene::Scene;
use super::script::Entry;
use crate::requests;
use crate::store::{NewTask, Op, Queue, TaskKind, TaskRecord};
use crate::supervisor::clients::ClientId;
use crate::supervisor::decide::Event;
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
                expires_us: entry.expires_ms.map_or(0, |ms| crate::store::later(now_us, ms)),
                held: entry.held,
                group: entry.group.map(|max| GroupWish { name: format!("g{max}"), max: Some(max) }),
                array,
                dependencies,
                name: None,
                key: None,
                hooked: false,
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
            if task.group.is_none() {
                self.desk.expect(lane, 0, task.id.seq());
            }
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
        let Some(record) = self.stored(scene, id) else { return };
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
            if self.filling(scene.now_ns).take_back(seq).is_some() {
                continue;
            }
            let Some(active) = self.desk.get_mut(seq) else { continue };
            let ticket = active.ticket;
            active.cancelled.get_or_insert_with(|| "cancelled by request".to_owned());
            held.push(seq);
            if let Some(row) = self.producer.holder(ticket) {
                scene.order(row, Order::Cancel { ticket, now: false });
            }
        }
        held
    }

    /// See `control::retry`.
    pub fn retry(&mut self, scene: &mut Scene, id: TaskId) {
        self.settle(scene);
        let Some(record) = self.stored(scene, id) else { return };
        if requests::may_retry(record.state) {
            scene.witness.disturbed(id);
            let at_us = scene.now_us();
            self.record(scene, Op::Retry { id, at_us });
            let reply = reply::Retried { retried: vec![id], ..reply::Retried::default() };
            self.ledger.then(After::Retried { client: ClientId::NOBODY, reply });
        }
    }

    /// See `order::hold`. Of an array always the whole.
    pub fn hold(&mut self, scene: &mut Scene, id: TaskId) {
        self.settle(scene);
        let Some(mut record) = self.stored(scene, id) else { return };
        if let TaskKind::Member { array, .. } = record.kind {
            let Some(header) = self.stored(scene, array) else { return };
            record = header;
        }
        let id = record.id;
        if requests::may_hold(&record).is_err() {
            return;
        }
        let last = match record.kind {
            TaskKind::Array(array) => id.seq() + array.count,
            TaskKind::Task | TaskKind::Member { .. } => id.seq(),
        };
        scene.witness.disturbed(id);
        let seqs = self.desk.iter().map(|active| active.id.seq());
        let mut concerned: Vec<u64> = seqs.filter(|seq| (id.seq()..=last).contains(seq)).collect();
        concerned.sort_unstable();
        let keep = self.filling(scene.now_ns).take_back_all(concerned);
        if keep.contains(&id.seq()) {
            return;
        }
        let at_us = scene.now_us();
        self.record(scene, Op::Hold { id, keep: keep.into_iter().collect(), at_us });
        self.tell(id);
    }

    /// See `order::release_held`.
    pub fn release_held(&mut self, scene: &mut Scene, id: TaskId) {
        self.settle(scene);
        let Some(record) = self.stored(scene, id) else { return };
        if requests::may_release(&record).is_ok() {
            let at_us = scene.now_us();
            self.record(scene, Op::Release { id, at_us });
            self.tell(id);
        }
    }

    fn tell(&mut self, id: TaskId) {
        let (client, reply) = (ClientId::NOBODY, serde_json::Value::Null);
        self.ledger.then(After::Told { client, ids: vec![id], reply });
    }

    /// What is stored of a task, if the queue can be asked and written.
    fn stored(&mut self, scene: &mut Scene, id: TaskId) -> Option<TaskRecord> {
        match self.store.get(id) {
            Ok(record) => record.filter(|_| self.broken.is_none() && !self.crashed),
            Err(_) => {
                self.store_failed(scene);
                None
            }
        }
    }

    /// See `stop::scale_to`.
    pub fn scale(&mut self, scene: &mut Scene, count: u16) {
        if !self.is_stopping() {
            self.decide(scene, Event::Scale { target: count.clamp(1, ROWS) });
            self.serve_classes(scene.now_ns);
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
