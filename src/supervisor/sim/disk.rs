//! The disk under the simulated queue: full or failing when the script wants it, and healed later.
//!
//! It stands before any [`Queue`] and keeps the contract of `Store::apply`: after an error nothing of a batch is done, or
//! all of it is and nobody knows until the queue is opened anew. With a second queue it is a differential test: whatever
//! is applied is applied to both, and every answer is compared. Deliberately absent: half a batch, which SQLite excludes.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use acode_worker::claim::Lane;
use acode_worker::task::{DependencyKind, TaskId, WorkerId};

use super::model::Model;
use crate::store::{
    Applied, AttemptRecord, Counts, Event, FindError, Group, Hooks, ListFilter, NewTask, Op, Page, Pruned, Queue,
    ReadyTask, Retention, Store, StoreError, Stream, SubmitError, TaskRecord, WorkerRecord,
};

/// How the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// It takes everything.
    #[default]
    Well,
    /// Nothing can be written.
    Full,
    /// What is written arrives, but the answer is an error.
    InDoubt,
}

/// The queue as it lies on disk; it outlives its supervisors.
pub struct Disk {
    /// The oracle.
    pub model: RefCell<Model>,
    /// The real store, in some runs.
    pub store: Option<RefCell<Store>>,
    /// How the disk is.
    pub health: Cell<Health>,
    log: RefCell<Vec<(Vec<Op>, Applied)>>,
    /// The first difference between the oracle and the store.
    pub difference: RefCell<Option<String>>,
}

impl Disk {
    /// An empty queue, with the real store beside the oracle if there is one.
    pub fn new(store: Option<Store>) -> Rc<Self> {
        let tag = store.as_ref().map_or(7, Store::tag);
        Rc::new(Self {
            model: RefCell::new(Model::new(tag)),
            store: store.map(RefCell::new),
            health: Cell::new(Health::Well),
            log: RefCell::default(),
            difference: RefCell::new(None),
        })
    }

    /// Opens the queue, as a supervisor does that starts.
    pub fn open(self: &Rc<Self>) -> Handle {
        Handle { disk: Rc::clone(self), broken: false, closed: false, in_doubt: None, settled: None }
    }

    fn differ(&self, what: &str, oracle: &dyn std::fmt::Debug, store: &dyn std::fmt::Debug) {
        let mut difference = self.difference.borrow_mut();
        difference.get_or_insert_with(|| format!("{what}: the oracle says {oracle:?}, the store {store:?}"));
    }

    fn write(&self, ops: &[Op]) -> Applied {
        let mut applied = self.model.borrow_mut().apply_all(ops);
        if let Some(store) = &self.store {
            let theirs = store.borrow_mut().apply(ops);
            match theirs {
                Err(error) => self.differ("apply", &applied, &crate::error_chain(&error)),
                Ok(theirs) => {
                    self.compare_applied(&mut applied, theirs);
                    self.compare_state();
                }
            }
        }
        self.log.borrow_mut().push((ops.to_vec(), applied.clone()));
        applied
    }

    /// What was written since this was asked last, and what came of it.
    pub fn take_log(&self) -> Vec<(Vec<Op>, Applied)> {
        self.log.take()
    }

    fn compare_applied(&self, ours: &mut Applied, mut theirs: Applied) {
        for applied in [&mut *ours, &mut theirs] {
            applied.ready.sort_by_key(|ready| ready.id);
            applied.ended.sort_by_key(|(id, state)| (*id, *state));
            applied.rejected.sort_by_key(|(id, _)| *id);
        }
        // The store may leave work to the next transaction; the oracle never does.
        if *ours != theirs && !theirs.more {
            self.differ("applied", ours, &theirs);
        }
    }

    fn compare_state(&self) {
        let (Some(store), model) = (&self.store, self.model.borrow()) else { return };
        let store = store.borrow();
        if model.counts() != store.counts() {
            self.differ("counts", &model.counts(), &store.counts());
        }
        let plain = |found: Result<Vec<ReadyTask>, StoreError>| {
            let found = found.unwrap_or_default().into_iter();
            found.map(|r| (r.id, r.place, r.attempts, r.failures, r.losses, r.ooms)).collect::<Vec<_>>()
        };
        for lane in Lane::all() {
            for group in 0..=model.groups.len() as u32 {
                let key = Stream { priority: lane.priority, class: lane.class, group };
                let (ours, theirs) = (plain(model.ready(key, 0, 64)), plain(store.ready(key, 0, 64)));
                if ours != theirs {
                    self.differ("ready", &ours, &theirs);
                }
            }
        }
        let (ours, theirs) = (model.groups().unwrap_or_default(), store.groups().unwrap_or_default());
        if ours != theirs {
            self.differ("groups", &ours, &theirs);
        }
        let (ours, theirs) = (model.next_expiry().ok().flatten(), store.next_expiry().ok().flatten());
        if ours != theirs {
            self.differ("next deadline", &ours, &theirs);
        }
        let (ours, theirs) = (model.next_delayed().ok().flatten(), store.next_delayed().ok().flatten());
        if ours != theirs {
            self.differ("next delayed", &ours, &theirs);
        }
        let (ours, theirs) = (plain(model.interrupted()), plain(store.interrupted()));
        if ours != theirs {
            self.differ("interrupted", &ours, &theirs);
        }
    }
}

/// A supervisor's handle of the queue.
pub struct Handle {
    disk: Rc<Disk>,
    broken: bool,
    /// It could not be opened anew, so nothing can be read either.
    closed: bool,
    /// A batch whose commit seemed to fail.
    in_doubt: Option<(Vec<Op>, Applied)>,
    /// The same, after it was found on disk.
    settled: Option<(Vec<Op>, Applied)>,
}

fn full() -> StoreError {
    let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
    StoreError::Open { path: PathBuf::from("simulated.db"), source }
}

impl Handle {
    fn read<T>(&self, read: impl FnOnce(&Model) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.closed {
            return Err(StoreError::Broken { path: PathBuf::from("simulated.db") });
        }
        read(&self.disk.model.borrow())
    }
}

impl Queue for Handle {
    fn apply(&mut self, ops: &[Op]) -> Result<Applied, StoreError> {
        if self.broken {
            return Err(StoreError::Broken { path: PathBuf::from("simulated.db") });
        }
        if let Some((_, applied)) = self.settled.take_if(|(settled, _)| settled.as_slice() == ops) {
            return Ok(applied);
        }
        match self.disk.health.get() {
            Health::Well => {
                let mut applied = self.disk.write(ops);
                if let Some((_, owed)) = self.settled.take() {
                    applied.absorb(owed);
                }
                Ok(applied)
            }
            Health::Full => {
                self.broken = true;
                Err(full())
            }
            Health::InDoubt => {
                let applied = self.disk.write(ops);
                self.in_doubt = Some((ops.to_vec(), applied));
                self.broken = true;
                Err(full())
            }
        }
    }
    fn reopen(&mut self) -> Result<(), StoreError> {
        match self.disk.health.get() {
            Health::Full => {
                (self.broken, self.closed) = (true, true);
                Err(full())
            }
            Health::Well | Health::InDoubt => {
                self.settled = match (self.settled.take(), self.in_doubt.take()) {
                    (Some((_, mut owed)), Some((ops, found))) => {
                        owed.absorb(found);
                        Some((ops, owed))
                    }
                    (owed, found) => found.or(owed),
                };
                (self.broken, self.closed) = (false, false);
                Ok(())
            }
        }
    }
    fn prune(&mut self, policy: &Retention, now_us: u64, limit: u32) -> Result<Pruned, StoreError> {
        self.disk.model.borrow_mut().prune(policy, now_us, limit)
    }
    fn allocate(&mut self, now_ms: u64, span: u64) -> TaskId {
        let id = self.disk.model.borrow_mut().allocate(now_ms, span);
        if let Some(store) = &self.disk.store {
            let theirs = store.borrow_mut().allocate(now_ms, span);
            if id != theirs {
                self.disk.differ("allocate", &id, &theirs);
            }
        }
        id
    }
    fn check(&self, entries: &[NewTask]) -> Result<Result<(), (TaskId, SubmitError)>, StoreError> {
        self.read(|model| model.check(entries))
    }
    fn blocked(&self) -> u64 {
        self.disk.model.borrow().blocked()
    }
    fn set_hooks(&mut self, hooks: Hooks) {
        self.disk.model.borrow_mut().set_hooks(hooks);
    }
    fn has_dependents(&self, id: TaskId) -> Result<bool, StoreError> {
        self.read(|model| model.has_dependents(id))
    }
    fn key_holder(&self, key: &str) -> Result<Option<TaskId>, StoreError> {
        self.read(|model| model.key_holder(key))
    }
    fn key_of(&self, id: TaskId) -> Result<Option<(TaskId, String)>, StoreError> {
        self.read(|model| model.key_of(id))
    }
    fn hooks_of(&self, id: TaskId, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        self.read(|model| model.hooks_of(id, limit))
    }
    fn find_by_name(&self, name: &str) -> Result<TaskId, FindError> {
        self.disk.model.borrow().find_by_name(name)
    }
    fn last_event(&self) -> u64 {
        0
    }
    fn copies_in_use(&self) -> Result<Vec<String>, StoreError> {
        self.read(Model::copies_in_use)
    }
    fn counts(&self) -> Counts {
        self.disk.model.borrow().counts()
    }
    fn ready(&self, stream: Stream, after: u64, limit: usize) -> Result<Vec<ReadyTask>, StoreError> {
        self.read(|model| model.ready(stream, after, limit))
    }
    fn ahead(&self, stream: Stream, seq: u64, limit: u64) -> Result<u64, StoreError> {
        self.read(|model| model.ahead(stream, seq, limit))
    }
    fn groups(&self) -> Result<Vec<Group>, StoreError> {
        self.read(Model::groups)
    }
    fn open_in_group(&self, group: u32, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        self.read(|model| model.open_in_group(group, limit))
    }
    fn next_expiry(&self) -> Result<Option<u64>, StoreError> {
        self.read(Model::next_expiry)
    }
    fn expired(&self, now_us: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        self.read(|model| model.expired(now_us, limit))
    }
    fn next_delayed(&self) -> Result<Option<u64>, StoreError> {
        self.read(Model::next_delayed)
    }
    fn interrupted(&self) -> Result<Vec<ReadyTask>, StoreError> {
        self.read(Model::interrupted)
    }
    fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.read(Model::live_workers)
    }
    fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.read(|model| model.get(id))
    }
    fn find_by_prefix(&self, prefix: &str) -> Result<TaskId, FindError> {
        self.disk.model.borrow().find_by_prefix(prefix)
    }
    fn find_by_number(&self, seq: u64) -> Result<TaskId, FindError> {
        self.disk.model.borrow().find_by_number(seq)
    }
    fn list(&self, filter: &ListFilter, limit: usize) -> Result<Page, StoreError> {
        self.read(|model| model.list(filter, limit))
    }
    fn attempts(&self, id: TaskId, limit: usize) -> Result<Vec<AttemptRecord>, StoreError> {
        self.read(|model| model.attempts(id, limit))
    }
    fn dependencies(&self, id: TaskId, limit: usize) -> Result<Vec<(TaskId, DependencyKind, bool)>, StoreError> {
        self.read(|model| model.dependencies(id, limit))
    }
    fn events(&self, since: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|model| model.events(since, limit))
    }
    fn last_event_before(&self, at_us: u64) -> Result<u64, StoreError> {
        self.read(|model| model.last_event_before(at_us))
    }
    fn segments_in_use(&self) -> Result<Vec<(WorkerId, u64)>, StoreError> {
        self.read(Model::segments_in_use)
    }
}
