//! The queue without a pool: a client that holds the instance lock reads and writes it itself.
//!
//! It answers the same requests as a supervisor does, as far as no worker is needed for them. One owner at a time: the
//! lock is held for as long as this lives. Deliberately absent: running anything, and waiting for anything.

use std::sync::Arc;

use acode_worker::actions::Registry;
use acode_worker::task::{Limits, TaskState};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::records;
use crate::requests::{self, Admitted, Bounds, RequestError};
use crate::rundir::{DirError, Dirs, InstanceLock, LockError};
use crate::store::{self, GroupChange, Hooks, Op, Store, StoreError};
use crate::sweep;
use crate::wire::request::{Cancel, Events, Hold, LimitGroup, Prune, Release, Retry, Wait};
use crate::wire::types::Waiting;
use crate::wire::{CallError, MAX_LIST, Request, reply};

/// Tasks in a list whose length was not asked for.
const LIST_DEFAULT: u32 = 100;
/// The most rows that are pruned in one transaction.
const PRUNE_PASS: u32 = 10_000;

/// Why the queue cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The state directory is not usable.
    #[error(transparent)]
    Dirs(#[from] DirError),
    /// It is held by somebody, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The queue cannot be opened.
    #[error("the queue cannot be opened")]
    Store(#[from] StoreError),
}

/// The queue, owned by this process.
#[derive(Debug)]
pub struct Local {
    store: Store,
    limit: u64,
    max: Limits,
    actions: &'static Registry,
    dirs: Dirs,
    // Let go of last.
    _lock: InstanceLock,
}

impl Local {
    /// Takes the queue, making it if there is none. `limit` is how many unfinished tasks it may hold, `max` the largest
    /// limits that a task may have, `actions` what typed tasks are checked by, and `hooks` says what runs when one has ended: the
    /// next pool runs it.
    ///
    /// # Errors
    /// The directory is not usable, or somebody else holds it.
    pub fn open(
        dirs: &Dirs,
        limit: u64,
        max: Limits,
        hooks: Hooks,
        actions: &'static Registry,
    ) -> Result<Self, LocalError> {
        dirs.prepare()?;
        let lock = InstanceLock::take(&dirs.lock())?;
        let mut store = Store::open(&dirs.state)?;
        store.set_hooks(hooks);
        Ok(Self { store, limit, max, actions, dirs: dirs.clone(), _lock: lock })
    }

    /// Answers a request; `None` if only a running pool can.
    ///
    /// # Errors
    /// What a supervisor would answer.
    pub fn answer(&mut self, request: Request) -> Result<Option<Box<RawValue>>, CallError> {
        self.try_answer(request).map_err(|error| match error {
            RequestError::Call(error) => error,
            RequestError::Store(error) => CallError::QueueUnavailable { reason: crate::error_chain(&error) },
        })
    }

    fn try_answer(&mut self, request: Request) -> Result<Option<Box<RawValue>>, RequestError> {
        match request {
            Request::Submit(submit) => {
                let queued = self.store.counts().pending;
                let bounds = Bounds { limit: self.limit, max: &self.max, actions: self.actions };
                let Admitted { tasks, ids } = requests::admit(&mut self.store, submit.tasks, bounds, queued)?;
                requests::check_dependencies(&self.store, &tasks, &ids)?;
                let ops: Vec<Op> = tasks.into_iter().map(|task| Op::Submit(Arc::new(task))).collect();
                self.apply(&ops)?;
                json(&reply::Submitted { ids })
            }
            Request::Resolve(resolve) => {
                json(&reply::Resolved { ids: requests::resolve_all(&self.store, &resolve.ids)? })
            }
            Request::Cancel(cancel) => self.cancel(&cancel),
            Request::Suspend(suspend) => {
                let refused = requests::resolve_all(&self.store, &suspend.ids)?;
                json(&reply::Suspended { suspended: Vec::new(), refused })
            }
            Request::Continue(resume) => {
                let refused = requests::resolve_all(&self.store, &resume.ids)?;
                json(&reply::Resumed { resumed: Vec::new(), refused })
            }
            Request::Retry(retry) => self.retry(&retry),
            Request::Hold(hold) => self.hold(&hold),
            Request::Release(release) => self.release(&release),
            Request::Groups(_) => self.groups(),
            Request::LimitGroup(limit) => self.limit_group(&limit),
            Request::Show(show) => {
                let id = requests::resolve(&self.store, &show.id)?;
                let record = self.record(requests::stored(&self.store, id)?)?;
                json(&reply::Shown { task: requests::with_attempts(&self.store, record)? })
            }
            Request::List(list) => {
                let limit = list.limit.unwrap_or(LIST_DEFAULT).min(MAX_LIST) as usize;
                let array = list.array.as_ref().map(|name| requests::resolve(&self.store, name)).transpose()?;
                json(&records::list(&self.store, &list, array, limit, |stored| self.record(stored))?)
            }
            Request::Why(why) => {
                let id = requests::resolve(&self.store, &why.id)?;
                let stored = requests::stored(&self.store, id)?;
                json(&requests::why(&self.store, stored, |stored| self.record(stored))?)
            }
            Request::Wait(wait) => self.wait(&wait),
            Request::Events(events) => self.events(&events),
            Request::Logs(logs) => {
                let mut sources = Vec::new();
                for id in requests::resolve_all(&self.store, &logs.ids)? {
                    let stored = requests::stored(&self.store, id)?;
                    sources.extend(requests::log_source(&self.store, &stored, logs.attempt)?);
                }
                json(&reply::LogPlaces { directory: self.dirs.journal().display().to_string(), sources })
            }
            Request::Prune(prune) => self.prune(&prune),
            Request::Status(_)
            | Request::Workers(_)
            | Request::Metrics(_)
            | Request::Scale(_)
            | Request::Autoscale(_)
            | Request::Reload(_)
            | Request::Check(_)
            | Request::Stop(_)
            | Request::Pause(_)
            | Request::Resume(_)
            | Request::Ping(_)
            | Request::GetInfo(_)
            | Request::GetInterfaceDescription(_) => Ok(None),
        }
    }

    fn groups(&self) -> Result<Option<Box<RawValue>>, RequestError> {
        let groups = self.store.groups()?;
        let groups = groups.iter().map(|group| requests::group_record(group, group.max, 0)).collect();
        json(&reply::Groups { groups })
    }

    /// Applies changes until nothing is left of them.
    fn apply(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        let mut more = self.store.apply(ops)?.more;
        while more {
            more = self.store.apply(&[Op::Continue])?.more;
        }
        Ok(())
    }

    fn record(&self, stored: store::TaskRecord) -> Result<crate::wire::types::TaskRecord, StoreError> {
        let waiting = match stored.state {
            TaskState::Pending => {
                let mut waiting = match requests::waiting(&self.store, &stored)? {
                    Some(waiting) => waiting,
                    None => self.held_group(&stored)?.unwrap_or(Waiting::NoPool),
                };
                requests::explain_retry(&mut waiting, &stored, None);
                Some(waiting)
            }
            _ => None,
        };
        Ok(records::task(stored, waiting))
    }

    fn cancel(&mut self, cancel: &Cancel) -> Result<Option<Box<RawValue>>, RequestError> {
        let reason = cancel.reason.clone().unwrap_or_else(|| "cancelled by request".to_owned());
        let (mut done, mut ops) = (reply::Cancelled::default(), Vec::new());
        let ids = match &cancel.group {
            None => requests::resolve_all(&self.store, &cancel.ids)?,
            Some(group) => {
                let (ids, more) = requests::open_in_group(&self.store, group)?;
                done.more = more;
                ids
            }
        };
        for id in ids {
            if requests::stored(&self.store, id)?.state.is_final() {
                done.ended.push(id);
            } else {
                let at_us = requests::now_us();
                ops.push(Op::Cancel { id, keep: Arc::from([]), reason: reason.clone(), at_us });
                done.cancelled.push(id);
            }
        }
        self.apply(&ops)?;
        json(&done)
    }

    fn hold(&mut self, hold: &Hold) -> Result<Option<Box<RawValue>>, RequestError> {
        let (mut done, mut ops, at_us) = (reply::Held::default(), Vec::new(), requests::now_us());
        if let Some(name) = &hold.group {
            ops.push(self.hold_group(name, true)?);
        }
        for id in requests::resolve_all(&self.store, &hold.ids)? {
            match requests::may_hold(&requests::stored(&self.store, id)?) {
                Ok(()) => {
                    ops.push(Op::Hold { id, keep: Arc::from([]), at_us });
                    done.held.push(id);
                }
                Err(why) => done.refused.push(reply::Refusal { id, why }),
            }
        }
        self.apply(&ops)?;
        json(&done)
    }

    fn release(&mut self, release: &Release) -> Result<Option<Box<RawValue>>, RequestError> {
        let (mut done, mut ops, at_us) = (reply::Released::default(), Vec::new(), requests::now_us());
        if let Some(name) = &release.group {
            ops.push(self.hold_group(name, false)?);
        }
        for id in requests::resolve_all(&self.store, &release.ids)? {
            match requests::may_release(&requests::stored(&self.store, id)?) {
                Ok(()) => {
                    ops.push(Op::Release { id, at_us });
                    done.released.push(id);
                }
                Err(why) => done.refused.push(reply::Refusal { id, why }),
            }
        }
        self.apply(&ops)?;
        json(&done)
    }

    fn hold_group(&self, name: &str, held: bool) -> Result<Op, RequestError> {
        let name = requests::group(&self.store, name)?.name;
        Ok(Op::Group { change: GroupChange { name, max: None, held: Some(held) }, at_us: requests::now_us() })
    }

    fn limit_group(&mut self, limit: &LimitGroup) -> Result<Option<Box<RawValue>>, RequestError> {
        requests::check_group(limit)?;
        let groups = self.store.groups()?;
        if !groups.iter().any(|group| group.name == limit.name) {
            requests::may_add_group(groups.len())?;
        }
        let change = GroupChange { name: limit.name.clone(), max: Some(limit.max), held: None };
        self.apply(&[Op::Group { change, at_us: requests::now_us() }])?;
        let group = requests::group(&self.store, &limit.name)?;
        json(&reply::GroupLimited { group: requests::group_record(&group, group.max, 0) })
    }

    /// What a task waits for whose group is held as a whole.
    fn held_group(&self, stored: &store::TaskRecord) -> Result<Option<Waiting>, StoreError> {
        let Some(name) = &stored.group else { return Ok(None) };
        let groups = self.store.groups()?;
        Ok(groups.iter().find(|group| group.name == *name && group.held_us > 0).map(requests::held_group))
    }

    fn retry(&mut self, retry: &Retry) -> Result<Option<Box<RawValue>>, RequestError> {
        let (mut done, mut ops) = (reply::Retried::default(), Vec::new());
        let ids = requests::resolve_all(&self.store, &retry.ids)?;
        requests::check_revival(&self.store, &ids)?;
        for id in ids {
            if requests::may_retry(requests::stored(&self.store, id)?.state) {
                ops.push(Op::Retry { id, at_us: requests::now_us() });
                done.retried.push(id);
            } else {
                done.refused.push(id);
            }
        }
        self.apply(&ops)?;
        json(&done)
    }

    /// Waiting is over at once if all have ended; else only a pool could bring the end about.
    fn wait(&mut self, wait: &Wait) -> Result<Option<Box<RawValue>>, RequestError> {
        let mut waited = reply::Waited::default();
        if wait.all {
            return if self.store.counts().pending == 0 { json(&waited) } else { Ok(None) };
        }
        for id in requests::resolve_all(&self.store, &wait.ids)? {
            let stored = requests::stored(&self.store, id)?;
            if !stored.state.is_final() {
                return Ok(None);
            }
            if stored.state != TaskState::Completed && waited.unsuccessful.len() < reply::Waited::MAX_NAMED {
                waited.unsuccessful.push(id);
            }
            match stored.kind {
                store::TaskKind::Array(array) => waited.counts.add(records::array_counts(&array)),
                store::TaskKind::Task | store::TaskKind::Member { .. } => {
                    *waited.counts.get_mut(stored.state) += 1;
                }
            }
        }
        json(&waited)
    }

    fn events(&mut self, events: &Events) -> Result<Option<Box<RawValue>>, RequestError> {
        if events.follow {
            return Ok(None);
        }
        let after = requests::events_from(&self.store, events)?;
        let limit = events.limit.unwrap_or(MAX_LIST).min(MAX_LIST) as usize;
        json(&requests::events_page(&self.store, after, limit)?.0)
    }

    fn prune(&mut self, prune: &Prune) -> Result<Option<Box<RawValue>>, RequestError> {
        let policy = requests::retention(prune);
        let mut tasks = 0;
        loop {
            let pruned = self.store.prune(&policy, requests::now_us(), PRUNE_PASS)?;
            tasks += pruned.tasks;
            if !pruned.more {
                break;
            }
        }
        let used = self.store.segments_in_use()?;
        let keep = |worker, segment| used.iter().any(|(user, first)| *user == worker && *first <= segment);
        // What cannot be removed now is removed by the next pool.
        let log_bytes = acode_worker::output::remove_unused(&self.dirs.journal(), keep).unwrap_or(0);
        for number in sweep::idle_checkpoints(&self.store, &self.dirs.checkpoints())? {
            let _ = acode_worker::room::remove_checkpoint(&self.dirs.checkpoints(), number);
        }
        // How many are kept, and how long, is the pool's configuration to say.
        for name in sweep::surplus_kept(&self.store, &self.dirs.kept(), u32::MAX, None)? {
            let _ = acode_worker::room::remove_kept(&self.dirs.kept(), &name);
        }
        let artifacts = self.dirs.artifacts();
        for one in sweep::surplus_artifacts(&self.store, &acode_worker::room::stored_artifacts(&artifacts), false)? {
            let _ = acode_worker::room::remove_artifacts(&artifacts, &one.name());
        }
        sweep::remove_unread_copies(&self.store, &self.dirs.stdin())?;
        json(&reply::Pruned { tasks, log_bytes })
    }
}

fn json<R: Serialize>(reply: &R) -> Result<Option<Box<RawValue>>, RequestError> {
    let value = to_raw_value(reply);
    value.map(Some).map_err(|error| CallError::Internal { reason: error.to_string() }.into())
}
