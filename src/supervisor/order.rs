//! What changes a task's turn: limit groups, holding and releasing, start deadlines, ageing.
//!
//! The order of things is the same everywhere: what is published and not claimed is taken back first, then the change is
//! recorded, and a task that a worker has got hold of meanwhile has started. Deliberately absent: who gets what next,
//! which is `fill`'s.

use std::sync::Arc;

use acode_worker::task::TaskId;

use super::Supervisor;
use super::clients::ClientId;
use super::desk::{Active, Phase};
use super::ledger::After;
use crate::requests::{self, AHEAD_MAX, RequestError};
use crate::store::{AgePlace, Applied, Group, GroupChange, Op, StoreError, Stream, TaskKind, TaskRecord as Stored};
use crate::wire::CallError;
use crate::wire::reply::{self, Refusal};
use crate::wire::request;
use crate::wire::types::{GroupRecord, TaskRecord, Waiting};

/// The most start deadlines that are seen to in one transaction.
const EXPIRE_MAX: usize = 1_000;
/// The most tasks that one step of ageing looks at.
const AGE_STEP: u32 = 5_000;
/// How often a pass of ageing begins, in nanoseconds: as often as makes a tenth of the time that a task has to wait, but
/// within these bounds.
const AGE_PASS_NS: std::ops::RangeInclusive<u64> = 50_000_000..=60_000_000_000;

/// How far ageing is.
#[derive(Debug, Default)]
pub struct Ageing {
    /// Where to go on; `None` between two passes.
    place: Option<AgePlace>,
    /// When the next pass begins, in nanoseconds of the monotonic clock.
    next_pass_ns: u64,
    /// A step is in the batch.
    under_way: bool,
}

impl Supervisor {
    /// Reads the groups, when the queue is taken over.
    ///
    /// # Errors
    /// The queue could not be read.
    pub(super) fn load_groups(&mut self) -> Result<(), StoreError> {
        self.groups = self.store.groups()?.into_iter().map(|group| (group.id, group)).collect();
        self.follow_limits();
        self.desk.expect_everything();
        Ok(())
    }

    /// The most tasks of a group at once: the configuration's word, else the submitters'.
    fn limit_of(&self, group: &Group) -> Option<u32> {
        self.config.groups.limits.get(&group.name).copied().or(group.max)
    }

    /// Goes by what the configuration and the queue say of the groups now.
    pub(super) fn follow_limits(&mut self) {
        let groups: Vec<_> =
            self.groups.values().map(|group| (group.id, self.limit_of(group), group.held_us > 0)).collect();
        for (id, limit, held) in groups {
            self.desk.set_group(id, limit, held);
            self.filling().hold_back(id);
        }
    }

    /// Follows what a commit has changed about the order of things.
    pub(super) fn follow_order(&mut self, applied: &Applied) {
        for group in &applied.groups {
            let (limit, held) = (self.limit_of(group), group.held_us > 0);
            self.groups.insert(group.id, group.clone());
            self.desk.set_group(group.id, limit, held);
            self.filling().hold_back(group.id);
        }
        for id in &applied.aged {
            // Its place is in a more urgent lane now, where it is expected.
            self.filling().take_back(id.seq());
        }
        if std::mem::take(&mut self.ageing.under_way) {
            self.ageing.place = applied.age_next;
        }
    }

    /// The tasks on the desk that workers hold, by number.
    fn in_hand(&self) -> Arc<[u64]> {
        self.desk.iter().filter(|active| self.is_in_hand(active)).map(|active| active.id.seq()).collect()
    }

    /// Whether a worker holds this task, or its end waits for a commit.
    fn is_in_hand(&self, active: &Active) -> bool {
        active.phase != Phase::Published || self.producer.holder(active.ticket).is_some()
    }

    /// Ends the tasks whose start deadline has passed.
    pub(super) fn expire_overdue(&mut self) {
        let now_us = requests::now_us();
        if self.broken.is_some() || self.next_expiry_us.is_none_or(|at| at > now_us) {
            return;
        }
        self.next_expiry_us = None;
        let due = match self.store.expired(now_us, EXPIRE_MAX) {
            Ok(due) => due,
            Err(error) => return self.store_failed(&error),
        };
        let keep = self.filling().take_back_all(due.iter().copied());
        if !due.is_empty() {
            self.record(Op::Expire { due: due.into(), keep: keep.into_iter().collect(), at_us: now_us });
        }
    }

    /// Lets tasks become more urgent that wait for long, one step at a time.
    pub(super) fn let_age(&mut self) {
        let after = self.config.queue.ageing;
        if after.is_zero() || self.ageing.under_way || self.broken.is_some() || !self.fleet.is_open() {
            return;
        }
        let from = match self.ageing.place {
            Some(place) => place,
            None if self.now_ns < self.ageing.next_pass_ns => return,
            None => {
                let tenth_ns = u64::try_from(after.as_nanos() / 10).unwrap_or(u64::MAX);
                self.ageing.next_pass_ns = self.now_ns + tenth_ns.clamp(*AGE_PASS_NS.start(), *AGE_PASS_NS.end());
                AgePlace::START
            }
        };
        let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.ageing.under_way = true;
        let (now_us, keep) = (requests::now_us(), self.in_hand());
        self.record(Op::Age { now_us, after_us, from, keep, limit: AGE_STEP });
    }

    /// `Hold`
    pub(super) fn hold(&mut self, client: ClientId, hold: &request::Hold) -> Result<(), RequestError> {
        self.writable()?;
        if let Some(name) = &hold.group {
            let reply = to_json(&reply::Held::default())?;
            return self.change_group(client, name, None, Some(true), reply);
        }
        let mut done = reply::Held::default();
        for id in requests::resolve_all(&*self.store, &hold.ids)? {
            let record = requests::stored(&*self.store, id)?;
            if let Err(why) = requests::may_hold(&record) {
                done.refused.push(Refusal { id, why });
                continue;
            }
            let concerned = self.on_desk(&record);
            let keep = self.filling().take_back_all(concerned);
            if keep.contains(&id.seq()) {
                let why = "it has started".to_owned();
                done.refused.push(Refusal { id, why });
                continue;
            }
            self.record(Op::Hold { id, keep: keep.into_iter().collect(), at_us: requests::now_us() });
            done.held.push(id);
        }
        let (ids, reply) = (done.held.clone(), to_json(&done)?);
        self.ledger.then(After::Told { client, ids, reply });
        Ok(())
    }

    /// `Release`
    pub(super) fn release_held(&mut self, client: ClientId, release: &request::Release) -> Result<(), RequestError> {
        self.writable()?;
        if let Some(name) = &release.group {
            let reply = to_json(&reply::Released::default())?;
            return self.change_group(client, name, None, Some(false), reply);
        }
        let mut done = reply::Released::default();
        for id in requests::resolve_all(&*self.store, &release.ids)? {
            match requests::may_release(&requests::stored(&*self.store, id)?) {
                Ok(()) => {
                    self.record(Op::Release { id, at_us: requests::now_us() });
                    done.released.push(id);
                }
                Err(why) => done.refused.push(Refusal { id, why }),
            }
        }
        let (ids, reply) = (done.released.clone(), to_json(&done)?);
        self.ledger.then(After::Told { client, ids, reply });
        Ok(())
    }

    /// The numbers on the desk that a record is about: its own, or its members'.
    fn on_desk(&self, record: &Stored) -> Vec<u64> {
        let first = record.id.seq();
        let last = match record.kind {
            TaskKind::Array(array) => first + array.count,
            TaskKind::Task | TaskKind::Member { .. } => first,
        };
        let seqs = self.desk.iter().map(|active| active.id.seq());
        seqs.filter(|seq| (first..=last).contains(seq)).collect()
    }

    /// `LimitGroup`
    pub(super) fn limit_group(&mut self, client: ClientId, limit: request::LimitGroup) -> Result<(), RequestError> {
        self.writable()?;
        requests::check_group(&limit)?;
        if let Some(max) = self.config.groups.limits.get(&limit.name) {
            let reason = format!("groups.limits of the configuration sets the limit of group {} to {max}", limit.name);
            return Err(CallError::Refused { reason }.into());
        }
        if !self.groups.values().any(|group| group.name == limit.name) {
            requests::may_add_group(self.groups.len())?;
        }
        let mut group = self.group_record(&limit.name)?;
        group.limit = limit.max;
        let reply = to_json(&reply::GroupLimited { group })?;
        let change = GroupChange { name: limit.name, max: Some(limit.max), held: None };
        self.record(Op::Group { change, at_us: requests::now_us() });
        self.ledger.then(After::Told { client, ids: Vec::new(), reply });
        Ok(())
    }

    fn change_group(
        &mut self,
        client: ClientId,
        name: &str,
        max: Option<Option<u32>>,
        held: Option<bool>,
        reply: serde_json::Value,
    ) -> Result<(), RequestError> {
        requests::group(&*self.store, name)?;
        let change = GroupChange { name: name.to_owned(), max, held };
        self.record(Op::Group { change, at_us: requests::now_us() });
        self.ledger.then(After::Told { client, ids: Vec::new(), reply });
        Ok(())
    }

    /// `Groups`
    pub(super) fn group_records(&self) -> Result<Vec<GroupRecord>, StoreError> {
        let groups = self.store.groups()?;
        Ok(groups.iter().map(|group| self.record_of(group)).collect())
    }

    fn group_record(&self, name: &str) -> Result<GroupRecord, StoreError> {
        let found = self.group_records()?.into_iter().find(|group| group.name == name);
        let new = GroupRecord { name: name.to_owned(), limit: None, running: 0, waiting: 0, held_since: None };
        Ok(found.unwrap_or(new))
    }

    fn record_of(&self, group: &Group) -> GroupRecord {
        let running = self.in_hand_of(group.id).len() as u64;
        requests::group_record(group, self.limit_of(group), running)
    }

    /// The tasks of a group that workers hold, in order.
    fn in_hand_of(&self, group: u32) -> Vec<TaskId> {
        let of_it = self.desk.iter().filter(|active| active.group == group && self.is_in_hand(active));
        let mut ids: Vec<TaskId> = of_it.map(|active| active.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Why its group keeps a ready task from running, if it does.
    pub(super) fn waits_for_group(&self, stored: &Stored) -> Option<Waiting> {
        let group = self.groups.get(&stored.group_id)?;
        if group.held_us > 0 {
            return Some(requests::held_group(group));
        }
        let limit = self.limit_of(group)?;
        if self.desk.room(group.id) > 0 {
            return None;
        }
        let mut on = self.in_hand_of(group.id);
        let running = on.len() as u64;
        on.truncate(Waiting::MAX_NAMED);
        // What is published takes the group's room too, but is not running yet: then it is merely not this one's turn.
        (running >= u64::from(limit)).then(|| Waiting::Group { name: group.name.clone(), limit, running, on })
    }

    /// Counts who comes before a task that waits for its turn.
    pub(super) fn count_ahead(&self, record: &mut TaskRecord) -> Result<(), StoreError> {
        let Some(Waiting::Queued { ahead }) = &mut record.waiting else { return Ok(()) };
        let Some(stored) = self.store.get(record.id)? else { return Ok(()) };
        let stream = Stream { priority: stored.priority, class: stored.class, group: stored.group_id };
        let lane = acode_worker::claim::Lane { priority: stored.priority, class: stored.class };
        let before = |active: &&Active| active.lane == lane && active.id < record.id && self.is_in_hand(active);
        let begun = self.desk.iter().filter(before).count() as u64;
        // One more than is told, so that 'more than' can be told.
        let found = self.store.ahead(stream, record.number, AHEAD_MAX + 1 + begun)?;
        *ahead = Some(found.saturating_sub(begun));
        Ok(())
    }
}

fn to_json<R: serde::Serialize>(reply: &R) -> Result<serde_json::Value, CallError> {
    serde_json::to_value(reply).map_err(|error| CallError::Internal { reason: error.to_string() })
}
