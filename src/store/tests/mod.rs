//! Tests of the store, by behaviour. Here: the helpers that all of them use.

mod arrays;
mod bulk;
mod crash;
mod dependencies;
mod ends;
mod hooks;
mod keys;
mod life;
mod notes;
mod order;
mod reading;

use std::sync::Arc;

use acode_worker::task::{
    Array, Class, DependencyKind, Isolation, OutputRef, Priority, Submission, TaskId, TaskSpec, TaskState, TreeGuard,
    Usage, Verdict, WorkerId,
};

use super::*;

const T0: u64 = 1_790_000_000_000;
const LANE: Stream = Stream { priority: Priority::Normal, class: Class::Any, group: 0 };

/// A queue in a folder of its own.
struct Bed {
    dir: tempfile::TempDir,
    store: Store,
}

fn worker() -> WorkerId {
    WorkerId::from_u128(77)
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Self { dir, store }
    }

    fn new_task(&mut self, array: Option<Array>, dependencies: &[(TaskId, DependencyKind)]) -> NewTask {
        let command = vec!["/bin/echo".to_owned(), "{item}".to_owned()];
        let spec = TaskSpec { command, ..TaskSpec::default() };
        let span = 1 + array.as_ref().map_or(0, Array::len);
        let id = self.store.allocate(T0, span);
        let submission = Submission { spec, array, ..Submission::default() };
        NewTask { dependencies: dependencies.to_vec(), ..NewTask::new(id, T0 * 1_000, submission, &[]).unwrap() }
    }

    fn submit(&mut self, array: Option<Array>, dependencies: &[(TaskId, DependencyKind)]) -> TaskId {
        let new = self.new_task(array, dependencies);
        let id = new.id;
        let applied = self.store.apply(&[Op::Submit(Arc::new(new))]).unwrap();
        assert_eq!(applied.rejected, []);
        id
    }

    fn task(&mut self) -> TaskId {
        self.submit(None, &[])
    }

    fn range(&mut self, count: u64) -> TaskId {
        self.submit(Some(Array::Range { first: 0, count }), &[])
    }

    fn finish(&mut self, id: TaskId, state: TaskState) -> Applied {
        let attempt = self.get(id).attempts + 1;
        self.store.apply(&run(id, attempt, Next::Final(state))).unwrap()
    }

    fn get(&self, id: TaskId) -> TaskRecord {
        self.store.get(id).unwrap().unwrap()
    }

    fn state(&self, id: TaskId) -> TaskState {
        self.get(id).state
    }

    fn ready_ids(&self) -> Vec<u64> {
        self.store.ready(LANE, 0, 10_000).unwrap().iter().map(|r| r.id.seq()).collect()
    }

    fn reopen_file(mut self) -> Self {
        drop(self.store.conn.take());
        self.store = Store::open(self.dir.path()).unwrap();
        self
    }

    /// The counts that the rows add up to.
    fn recount(&self) -> Counts {
        let mut counts = Counts::default();
        self.store
            .read(|conn| {
                let mut rows = conn.prepare("SELECT state, count(*) FROM task WHERE kind <> 1 GROUP BY state")?;
                let mut rows = rows.query([])?;
                while let Some(row) = rows.next()? {
                    *counts.of(TaskState::from_u8(row.get(0)?).unwrap()) += row.get::<_, u64>(1)?;
                }
                let untouched = "SELECT coalesce(sum(count - cursor - (SELECT count(*) FROM task WHERE task.seq >
                    array.seq + cursor AND task.seq <= array.seq + count)), 0) FROM array WHERE stopped = ?1";
                counts.pending += conn.query_row(untouched, [0], |r| r.get::<_, u64>(0))?;
                counts.cancelled += conn.query_row(untouched, [1], |r| r.get::<_, u64>(0))?;
                Ok(())
            })
            .unwrap();
        counts
    }

    /// What must hold whatever happened: counts agree with rows, no event number twice.
    fn audit(&self) {
        assert_eq!(self.store.counts(), self.recount());
        let blocked = "SELECT count(*) FROM task WHERE state = 0 AND blockers > 0";
        let blocked: u64 = self.store.read(|conn| conn.query_row(blocked, [], |r| r.get(0))).unwrap();
        assert_eq!(self.store.blocked(), blocked);
        let events = self.store.events(0, 1_000_000).unwrap();
        assert!(events.windows(2).all(|w| w[0].seq < w[1].seq));
        assert!(events.last().is_none_or(|e| e.seq <= self.store.last_event()));
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.store.events(0, 1_000_000).unwrap().iter().map(|e| e.kind.name()).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.store.conn.is_some() {
            self.audit();
        }
    }
}

/// An attempt from start to end.
fn run(id: TaskId, attempt: u32, next: Next) -> [Op; 2] {
    let verdict = match next {
        Next::Final(TaskState::Completed) => Verdict::Exited { code: 0 },
        Next::Final(_) | Next::RetryAt(_) => Verdict::Exited { code: 3 },
        Next::CrashedAt { oom: true, .. } => Verdict::OutOfMemory,
        Next::RequeueAt(_) => Verdict::EngineFailed { why: "gone".to_owned() },
        Next::Requeue | Next::CrashedAt { oom: false, .. } => Verdict::WorkerLost,
    };
    let end = AttemptEnd {
        id,
        attempt,
        worker: worker(),
        verdict,
        isolation: Isolation::Process,
        guard: TreeGuard::Subreaper,
        usage: Usage { wall_us: 5, ..Usage::default() },
        output: OutputRef { segment: 4, offset: 8, length: 100, stdout_bytes: 50, ..OutputRef::default() },
        started_us: T0 * 1_000 + 1,
        finished_us: T0 * 1_000 + 2 + id.seq(),
        leaked: false,
        error: None,
        result: Some("{\"n\":1}".into()),
        reason: None,
        notes: AttemptNotes::default(),
        next,
    };
    [
        Op::Started { id, attempt, worker: worker(), claimed_us: None, at_us: T0 * 1_000 + 1 },
        Op::Finished(Box::new(end)),
    ]
}

fn cancel(id: TaskId) -> Op {
    Op::Cancel { id, keep: Arc::new([]), reason: "no longer wanted".into(), at_us: T0 * 1_000 + 9 }
}

fn member(array: TaskId, index: u64) -> TaskId {
    TaskId::new(array.millis(), array.queue(), array.seq() + 1 + index)
}
