//! Suspending and resuming what runs.
//!
//! A suspended task stays running: its worker goes on beating, and holds its processes where they are. That it is
//! suspended is a fact of the live pool alone; an attempt that comes after this one runs. Deliberately absent: how
//! processes are stopped, which is the worker's.

use acode_worker::task::{Isolation, TaskId};
use acode_worker::wire::Order;

use super::Supervisor;
use super::clients::ClientId;
use super::desk::Phase;
use crate::requests::{self, RequestError};
use crate::store::{Op, TaskKind, TaskRecord};
use crate::wire::{TaskRef, reply};

impl Supervisor {
    /// `Suspend`.
    pub(super) fn suspend(&mut self, client: ClientId, names: &[TaskRef]) -> Result<(), RequestError> {
        let (suspended, refused) = self.switch_all(names, true)?;
        self.clients.reply(client, &reply::Suspended { suspended, refused }, false);
        Ok(())
    }

    /// `Continue`.
    pub(super) fn let_go_on(&mut self, client: ClientId, names: &[TaskRef]) -> Result<(), RequestError> {
        let (resumed, refused) = self.switch_all(names, false)?;
        self.clients.reply(client, &reply::Resumed { resumed, refused }, false);
        Ok(())
    }

    /// Suspends or resumes what the names stand for; gives those that it could be done to, and the others.
    fn switch_all(&mut self, names: &[TaskRef], on: bool) -> Result<(Vec<TaskId>, Vec<TaskId>), RequestError> {
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for id in requests::resolve_all(&*self.store, names)? {
            let last = match requests::stored(&*self.store, id)?.kind {
                TaskKind::Array(array) => id.seq() + array.count,
                TaskKind::Task | TaskKind::Member { .. } => id.seq(),
            };
            let concerned = self.desk.iter().map(|active| active.id.seq());
            let concerned: Vec<u64> = concerned.filter(|seq| (id.seq()..=last).contains(seq)).collect();
            let switched = concerned.into_iter().filter(|seq| self.switch(*seq, on)).count();
            if switched > 0 { done.push(id) } else { refused.push(id) }
        }
        Ok((done, refused))
    }

    /// Suspends or resumes one task. False if it does not run, is being ended, is so already, or runs in its worker.
    fn switch(&mut self, seq: u64, on: bool) -> bool {
        let Some(id) = self.desk.get(seq).map(|active| active.id) else { return false };
        // A call within the worker cannot be stopped where it is.
        let in_worker = |stored: TaskRecord| stored.spec.own_isolation().is_some_and(Isolation::is_inline);
        if self.store.get(id).ok().flatten().is_some_and(in_worker) {
            return false;
        }
        let Some(active) = self.desk.get_mut(seq) else { return false };
        let (ticket, attempt) = (active.ticket, active.attempt);
        let Some(row) = self.producer.holder(ticket) else { return false };
        let ending = active.phase == Phase::Ended || active.cancelled.is_some() || active.overdue_ms.is_some();
        if ending || active.suspended_us.is_some() == on {
            return false;
        }
        let at_us = requests::now_us();
        active.suspended_us = on.then_some(at_us);
        self.crew.order(row, &if on { Order::Suspend { ticket } } else { Order::Resume { ticket } });
        self.record(Op::Suspended { id, attempt, on, at_us });
        true
    }
}
