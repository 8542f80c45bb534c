//! What clients ask, and what is done about it.
//!
//! Questions are answered at once, from what is committed and what is live. Wishes go through the batch, and are
//! answered after its commit. Deliberately absent: the codec and the connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use acode_worker::failpoint;
use acode_worker::task::{Submission, TaskId, TaskState};
use acode_worker::wire::Order;

use super::Supervisor;
use super::clients::ClientId;
use super::desk::Phase;
use super::followers::Follower;
use super::ledger::After;
use super::pause;
use super::streams::{Awaited, Waiter};
use crate::records;
use crate::requests::{self, Admitted, RequestError};
use crate::store::{Op, StoreError, TaskKind};
use crate::wire::reply::{self, Waited};
use crate::wire::request::{self, Events, List, Logs, Stop, Submit, Wait};
use crate::wire::types::{LogSource, StopMode, TaskCounts};
use crate::wire::{Call, CallError, DESCRIPTION, INTERFACE, MAX_LIST, PROTOCOL, Request};

/// Tasks in a list whose length was not asked for.
const LIST_DEFAULT: u32 = 100;

impl Supervisor {
    /// Answers one call, now or later.
    pub(super) fn answer(&mut self, client: ClientId, call: Call) {
        let Call { request, more, oneway } = call;
        // What is done for nobody in particular is done, and answered to nobody.
        let (client, connection) = (if oneway { ClientId::NOBODY } else { client }, client);
        if oneway && matches!(request, Request::Wait(_) | Request::Events(_)) {
            return;
        }
        // A client's calls are answered in their order, so what waits for a commit comes before any other answer.
        if !matches!(request, Request::Submit(_)) && !self.ledger.is_empty() {
            self.commit();
        }
        if let Err(error) = self.try_answer(client, connection, request, more) {
            let error = self.refusal(error);
            self.answer_error(client, &error);
        }
    }

    /// Answers with an error, behind the answers to earlier calls, which may wait for a commit.
    pub(super) fn answer_error(&mut self, client: ClientId, error: &CallError) {
        if !self.ledger.is_empty() {
            self.commit();
        }
        self.clients.error(client, error);
    }

    fn try_answer(
        &mut self,
        client: ClientId,
        connection: ClientId,
        request: Request,
        more: bool,
    ) -> Result<(), RequestError> {
        match request {
            Request::Submit(submit) => self.submit(client, connection, submit)?,
            Request::Resolve(resolve) => {
                let ids = requests::resolve_all(&*self.store, &resolve.ids)?;
                self.clients.reply(client, &reply::Resolved { ids }, false);
            }
            Request::Cancel(cancel) => self.cancel(client, &cancel)?,
            Request::Suspend(suspend) => self.suspend(client, &suspend.ids)?,
            Request::Continue(wanted) => self.let_go_on(client, &wanted.ids)?,
            Request::Retry(retry) => self.retry(client, &retry)?,
            Request::Hold(hold) => self.hold(client, &hold)?,
            Request::Release(release) => self.release_held(client, &release)?,
            Request::Groups(_) => {
                let groups = self.group_records()?;
                self.clients.reply(client, &reply::Groups { groups }, false);
            }
            Request::LimitGroup(limit) => self.limit_group(client, limit)?,
            Request::Show(show) => self.show(client, &show)?,
            Request::List(list) => {
                let listed = self.list(&list)?;
                self.clients.reply(client, &listed, false);
            }
            Request::Why(why) => self.why(client, &why)?,
            Request::Wait(wait) => self.wait(client, &wait, more)?,
            Request::Events(events) => self.events(client, &events, more)?,
            Request::Logs(logs) => {
                let places = self.logs(&logs)?;
                self.clients.reply(client, &places, false);
            }
            Request::Status(_) => {
                let status = self.status();
                self.clients.reply(client, &reply::StatusReply { status }, false);
            }
            Request::Workers(_) => {
                let workers = self.workers();
                self.clients.reply(client, &reply::WorkersReply { workers }, false);
            }
            Request::Metrics(wanted) => {
                let metrics = self.metrics_record();
                let text = wanted.text.then(|| self.metrics_text().to_owned());
                self.clients.reply(client, &reply::MetricsReply { metrics, text }, false);
            }
            Request::Scale(scale) => self.scale(client, scale.count)?,
            Request::Autoscale(_) => self.autoscale(client)?,
            Request::Reload(_) => self.reload_for(client)?,
            Request::Check(_) => self.check(client)?,
            Request::Stop(stop) => self.stop(client, &stop, more)?,
            Request::Pause(asked) => self.pause(client, &asked)?,
            Request::Resume(_) => self.resume(client)?,
            Request::Prune(prune) => {
                let pruned = self.prune_now(&prune)?;
                self.clients.reply(client, &pruned, false);
            }
            Request::Ping(_) => {
                let pong =
                    reply::Pong { pid: std::process::id(), pool: self.config.pool.name.clone(), protocol: PROTOCOL };
                self.clients.reply(client, &pong, false);
            }
            Request::GetInfo(_) => self.clients.reply(client, &reply::ServiceInfo::own(), false),
            Request::GetInterfaceDescription(of) => self.describe(client, of)?,
        }
        Ok(())
    }

    fn show(&mut self, client: ClientId, show: &request::Show) -> Result<(), RequestError> {
        let id = requests::resolve(&*self.store, &show.id)?;
        let record = self.task_record(requests::stored(&*self.store, id)?)?;
        let task = requests::with_attempts(&*self.store, record)?;
        self.clients.reply(client, &reply::Shown { task }, false);
        Ok(())
    }

    fn why(&mut self, client: ClientId, why: &request::Why) -> Result<(), RequestError> {
        let id = requests::resolve(&*self.store, &why.id)?;
        let stored = requests::stored(&*self.store, id)?;
        let reply = requests::why(&*self.store, stored, |stored| {
            let mut record = self.task_record(stored)?;
            self.count_ahead(&mut record)?;
            Ok(record)
        })?;
        self.clients.reply(client, &reply, false);
        Ok(())
    }

    fn reload_for(&mut self, client: ClientId) -> Result<(), RequestError> {
        self.reload().map_err(|reason| CallError::Refused { reason })?;
        self.clients.reply(client, &reply::Reloaded {}, false);
        Ok(())
    }

    fn describe(&mut self, client: ClientId, of: request::GetInterfaceDescription) -> Result<(), RequestError> {
        if of.interface != INTERFACE {
            return Err(CallError::InterfaceNotFound { interface: of.interface }.into());
        }
        let description = DESCRIPTION.to_owned();
        self.clients.reply(client, &reply::InterfaceDescription { description }, false);
        Ok(())
    }

    /// What a client is told; a queue that cannot be read or written begins to heal.
    pub(super) fn refusal(&mut self, error: RequestError) -> CallError {
        match error {
            RequestError::Call(error) => error,
            RequestError::Store(error) => {
                if error.needs_reopen() {
                    self.store_failed(&error);
                }
                CallError::QueueUnavailable { reason: crate::error_chain(&error) }
            }
        }
    }

    /// Refuses what needs the queue to be written while it cannot be.
    pub(super) fn writable(&self) -> Result<(), CallError> {
        match &self.broken {
            Some(broken) => Err(CallError::QueueUnavailable { reason: broken.why.clone() }),
            None => Ok(()),
        }
    }

    fn submit(&mut self, client: ClientId, connection: ClientId, submit: Submit) -> Result<(), RequestError> {
        if self.is_stopping() {
            return Err(CallError::Draining.into());
        }
        self.writable()?;
        match self.let_in(client, connection, submit)? {
            Some(tasks) => self.take_in(client, tasks),
            None => Ok(()),
        }
    }

    /// How many tasks the queue will hold when the batch is committed.
    pub(super) fn queued(&self) -> u64 {
        self.store.counts().pending + self.ledger.submitted()
    }

    /// Puts the entries of a submission into the batch.
    pub(super) fn take_in(&mut self, client: ClientId, tasks: Vec<Submission>) -> Result<(), RequestError> {
        let looks_up = requests::looks_up(&tasks);
        if looks_up {
            // A dependency may be on something in the batch, which may have the same key as well; and what is wrong must
            // refuse the whole request.
            self.commit();
            self.writable()?;
        }
        let queued = self.queued();
        let (limit, max) = (self.config.queue.max_tasks, &self.config.workers.max_limits);
        let bounds = requests::Bounds { limit, max, actions: self.actions };
        let admitted = requests::admit(&mut *self.store, tasks, bounds, queued)?;
        let Admitted { tasks, ids } = admitted;
        if looks_up {
            requests::check_dependencies(&*self.store, &tasks, &ids)?;
        }
        for task in tasks {
            let lane = acode_worker::claim::Lane { priority: task.priority, class: task.class };
            // What it is refused for now, or delayed by, shows when the lane is read. The number of its group shows after
            // the commit.
            if task.group.is_none() {
                self.desk.expect(lane, 0, task.id.seq());
            }
            self.has_deadlines |= task.expires_us > 0;
            self.ledger.submit(task, self.now_ns);
        }
        self.ledger.then(After::Accepted { client, ids });
        failpoint!("supervisor.after-accept");
        Ok(())
    }

    fn cancel(&mut self, client: ClientId, cancel: &request::Cancel) -> Result<(), RequestError> {
        self.writable()?;
        let (ids, more) = match &cancel.group {
            None => (requests::resolve_all(&*self.store, &cancel.ids)?, false),
            Some(group) => requests::open_in_group(&*self.store, group)?,
        };
        let reason = cancel.reason.clone().unwrap_or_else(|| "cancelled by request".to_owned());
        let mut done = reply::Cancelled { more, ..reply::Cancelled::default() };
        for id in ids {
            let record = requests::stored(&*self.store, id)?;
            if record.state.is_final() {
                done.ended.push(id);
                continue;
            }
            let last = match record.kind {
                TaskKind::Array(array) => id.seq() + array.count,
                TaskKind::Task | TaskKind::Member { .. } => id.seq(),
            };
            let keep = self.cancel_active((id.seq(), last), &reason, cancel.now);
            if keep.is_empty() || last > id.seq() {
                let at_us = requests::now_us();
                self.record(Op::Cancel { id, keep: Arc::from(keep), reason: reason.clone(), at_us });
            }
            done.cancelled.push(id);
        }
        self.ledger.then(After::Cancelled { client, reply: done });
        Ok(())
    }

    /// Takes the tasks with these numbers back from the table, and has those ended that a worker holds; gives the
    /// numbers of the latter.
    fn cancel_active(&mut self, (first, last): (u64, u64), reason: &str, now: bool) -> Vec<u64> {
        let seqs = self.desk.iter().map(|active| active.id.seq());
        let concerned: Vec<u64> = seqs.filter(|seq| (first..=last).contains(seq)).collect();
        let mut held = Vec::new();
        for seq in concerned {
            if self.filling().take_back(seq).is_some() {
                continue;
            }
            let Some(active) = self.desk.get_mut(seq) else { continue };
            let ticket = active.ticket;
            active.cancelled.get_or_insert_with(|| reason.to_owned());
            active.cancel_now |= now;
            held.push(seq);
            if let Some(row) = self.producer.holder(ticket) {
                self.crew.order(row, &Order::Cancel { ticket, now });
            }
        }
        held
    }

    fn retry(&mut self, client: ClientId, retry: &request::Retry) -> Result<(), RequestError> {
        self.writable()?;
        let mut done = reply::Retried::default();
        let ids = requests::resolve_all(&*self.store, &retry.ids)?;
        requests::check_revival(&*self.store, &ids)?;
        for id in ids {
            let record = requests::stored(&*self.store, id)?;
            if requests::may_retry(record.state) {
                let at_us = requests::now_us();
                self.record(Op::Retry { id, at_us });
                done.retried.push(id);
            } else {
                done.refused.push(id);
            }
        }
        self.ledger.then(After::Retried { client, reply: done });
        Ok(())
    }

    fn list(&mut self, list: &List) -> Result<reply::Listed, RequestError> {
        let limit = list.limit.unwrap_or(LIST_DEFAULT).min(MAX_LIST) as usize;
        let array = list.array.as_ref().map(|name| requests::resolve(&*self.store, name)).transpose()?;
        let live = |state: &TaskState| matches!(state, TaskState::Assigned | TaskState::Running);
        if !list.states.is_empty() && list.states.iter().all(live) {
            return Ok(self.list_live(list, limit)?);
        }
        Ok(records::list(&*self.store, list, array, limit, |stored| self.task_record(stored))?)
    }

    /// Lists tasks in states that only the live pool knows.
    fn list_live(&self, list: &List, limit: usize) -> Result<reply::Listed, StoreError> {
        let mut ids: Vec<TaskId> = self.desk.iter().map(|active| active.id).collect();
        ids.sort_unstable();
        if list.newest_first {
            ids.reverse();
        }
        let behind = |id: &TaskId| match list.after {
            None => true,
            Some(after) if list.newest_first => *id < after,
            Some(after) => *id > after,
        };
        let mut listed = reply::Listed::default();
        for id in ids.into_iter().filter(behind) {
            let Some(stored) = self.store.get(id)? else { continue };
            let record = self.task_record(stored)?;
            if list.states.contains(&record.state) {
                listed.tasks.push(record);
            }
            if listed.tasks.len() == limit {
                listed.next = Some(id);
                break;
            }
        }
        Ok(listed)
    }

    fn wait(&mut self, client: ClientId, wait: &Wait, more: bool) -> Result<(), RequestError> {
        if wait.all {
            let before = self.task_counts();
            self.begin_wait(Waiter::new(client, more, Awaited::All { before }, Vec::new()));
            return Ok(());
        }
        let (mut open, mut arrays, mut ended) = (BTreeSet::new(), BTreeMap::new(), TaskCounts::default());
        let mut unsuccessful = Vec::new();
        for id in requests::resolve_all(&*self.store, &wait.ids)? {
            let record = requests::stored(&*self.store, id)?;
            match record.kind {
                TaskKind::Array(array) => {
                    arrays.insert(id.seq(), (id, array.count));
                }
                TaskKind::Task | TaskKind::Member { .. } if record.state.is_final() => {
                    *ended.get_mut(record.state) += 1;
                }
                TaskKind::Task | TaskKind::Member { .. } => {
                    open.insert(id.seq());
                }
            }
            let bad = record.state.is_final() && record.state != TaskState::Completed;
            if bad && unsuccessful.len() < Waited::MAX_NAMED {
                unsuccessful.push(id);
            }
        }
        let awaited = Awaited::These { open, arrays, ended };
        self.begin_wait(Waiter::new(client, more, awaited, unsuccessful));
        Ok(())
    }

    fn events(&mut self, client: ClientId, events: &Events, more: bool) -> Result<(), RequestError> {
        if events.follow && !more {
            return Err(CallError::InvalidParameter { parameter: "follow: needs more".to_owned() }.into());
        }
        let after = requests::events_from(&*self.store, events)?;
        if more {
            self.begin_following(Follower { client, after, follow: events.follow });
            return Ok(());
        }
        let limit = events.limit.unwrap_or(MAX_LIST).min(MAX_LIST) as usize;
        let (batch, _) = requests::events_page(&*self.store, after, limit)?;
        self.clients.reply(client, &batch, false);
        Ok(())
    }

    fn logs(&mut self, logs: &Logs) -> Result<reply::LogPlaces, RequestError> {
        let ids = match logs.ids.is_empty() {
            false => requests::resolve_all(&*self.store, &logs.ids)?,
            true => {
                let running = self.desk.iter().filter(|active| matches!(active.phase, Phase::Running { .. }));
                running.map(|active| active.id).collect()
            }
        };
        let mut sources = Vec::new();
        for id in ids {
            let stored = requests::stored(&*self.store, id)?;
            match self.live_log(&stored, logs.attempt) {
                Some(source) => sources.push(source),
                None => sources.extend(requests::log_source(&*self.store, &stored, logs.attempt)?),
            }
        }
        Ok(reply::LogPlaces { directory: self.dirs.journal().display().to_string(), sources })
    }

    /// Where the output of a running attempt is being written.
    fn live_log(&self, stored: &crate::store::TaskRecord, only: Option<u32>) -> Option<LogSource> {
        let active = self.desk.get(stored.id.seq())?;
        let row = match active.phase {
            Phase::Running { row, .. } => row,
            Phase::Published | Phase::Ended => return None,
        };
        if only.is_some_and(|only| only != active.attempt) {
            return None;
        }
        let worker = self.crew.get(row)?.id;
        let name = stored.spec.display_name().to_owned();
        Some(LogSource { task: stored.id, name, attempt: active.attempt, worker, segment: 0, offset: 0, length: None })
    }

    fn scale(&mut self, client: ClientId, count: u32) -> Result<(), RequestError> {
        let max = self.config.workers.max_count.min(self.max_rows());
        if count == 0 || count > max {
            let parameter = format!("count: {count}, from 1 to {max} is allowed");
            return Err(CallError::InvalidParameter { parameter }.into());
        }
        if self.is_stopping() {
            return Err(CallError::Draining.into());
        }
        let (before, target) = self.scale_by_hand(count);
        self.clients.reply(client, &reply::Scaled { before, target }, false);
        Ok(())
    }

    fn autoscale(&mut self, client: ClientId) -> Result<(), RequestError> {
        if self.is_stopping() {
            return Err(CallError::Draining.into());
        }
        let (before, target) = self.scale_by_load()?;
        self.clients.reply(client, &reply::Scaled { before, target }, false);
        Ok(())
    }

    fn stop(&mut self, client: ClientId, stop: &Stop, more: bool) -> Result<(), RequestError> {
        if let (StopMode::WhenEmpty, Some(pause)) = (stop.mode, self.pauses.by_hand()) {
            let why = pause::words(pause);
            let reason = format!(
                "the pool is paused {why}, so its queue would never become empty (end that first: acode worker resume)"
            );
            return Err(CallError::Refused { reason }.into());
        }
        match stop.mode {
            StopMode::Drain => self.drain(stop.timeout_ms),
            StopMode::Force => self.force(),
            StopMode::WhenEmpty => self.stop_when_empty = true,
        }
        let reply = self.stopping();
        self.clients.reply(client, &reply, more);
        if more {
            self.begin_watching_stop(client);
        }
        Ok(())
    }
}
