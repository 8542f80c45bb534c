//! Tasks that must be running within a time: the watch over workers that are starting one.
//!
//! A worker that starts a program from a dead network file system hangs with it, so it cannot keep that time itself. It
//! says that it begins, and is killed if it does not say in time that the process runs. Deliberately absent: tasks
//! without such a limit, of which nothing is said and nothing kept.

use std::collections::BTreeMap;

use acode_worker::claim::Ticket;
use acode_worker::task::TaskId;

use super::Supervisor;

/// One start that is being waited for.
#[derive(Debug, Clone, Copy)]
struct Start {
    id: TaskId,
    ticket: Ticket,
    limit_ms: u64,
    due_ns: u64,
}

/// The starts that are being waited for, by row.
#[derive(Debug, Default)]
pub struct Starting(BTreeMap<u16, Start>);

impl Starting {
    /// Notes that a worker begins to start a task.
    pub fn begin(&mut self, row: u16, id: TaskId, ticket: Ticket, limit_ms: u64, now_ns: u64) {
        let due_ns = now_ns.saturating_add(limit_ms.saturating_mul(1_000_000));
        self.0.insert(row, Start { id, ticket, limit_ms, due_ns });
    }

    /// Notes that the worker in this row has got on, or is dead.
    pub fn done(&mut self, row: u16) {
        if !self.0.is_empty() {
            self.0.remove(&row);
        }
    }

    /// Whether this row's silence is excused by a start.
    pub fn excuses(&self, row: u16) -> bool {
        self.0.contains_key(&row)
    }

    /// When the first of them is overdue.
    pub fn next_ns(&self) -> Option<u64> {
        self.0.values().map(|start| start.due_ns).min()
    }

    fn overdue(&self, now_ns: u64) -> Vec<(u16, Start)> {
        self.0.iter().filter(|(_, start)| now_ns >= start.due_ns).map(|(row, start)| (*row, *start)).collect()
    }
}

impl Supervisor {
    /// Kills the workers whose tasks did not start in time.
    pub(super) fn end_overdue_starts(&mut self) {
        if self.starting.next_ns().is_none_or(|due_ns| self.now_ns < due_ns) {
            return;
        }
        for (row, start) in self.starting.overdue(self.now_ns) {
            // Perhaps it has said by now that the process runs.
            self.hear(row);
            if !self.starting.excuses(row) {
                continue;
            }
            self.starting.done(row);
            if let Some(active) = self.desk.current(start.id, start.ticket) {
                active.overdue_ms = Some(start.limit_ms);
                tracing::warn!(task = %start.id, row, limit_ms = start.limit_ms, "task did not start in time: its worker is killed");
                self.crew.kill(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_overdue_when_its_time_has_passed_and_nobody_told_of_it() {
        let mut starting = Starting::default();
        let (id, ticket) = (|seq| TaskId::new(1, 1, seq), Ticket { slot: 1, generation: 1 });
        starting.begin(3, id(1), ticket, 10, 5_000_000);
        starting.begin(4, id(2), ticket, u64::MAX, 0);
        assert_eq!((starting.next_ns(), starting.overdue(14_999_999).len()), (Some(15_000_000), 0));
        assert_eq!(starting.overdue(15_000_000).iter().map(|(row, _)| *row).collect::<Vec<_>>(), [3]);
        starting.done(3);
        assert!(!starting.excuses(3) && starting.excuses(4) && starting.overdue(15_000_000).is_empty());
    }
}
