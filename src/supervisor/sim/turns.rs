//! The oracle's second half: groups, holding and releasing, start deadlines.
//!
//! Deliberately absent: ageing, which the simulated pool has switched off.

use super::model::{Kind, Model};
use crate::store::{Group, GroupChange};

impl Model {
    /// Makes a group what it is to be, and makes it if there is none of this name; gives its number.
    pub(super) fn change_group(&mut self, change: &GroupChange, at_us: u64) -> u32 {
        let place = self.groups.iter().position(|group| group.name == change.name);
        let before = place.map(|place| self.groups[place].clone());
        let id = place.map_or(self.groups.len() as u32 + 1, |place| self.groups[place].id);
        let new = || Group { id, name: change.name.clone(), max: None, held_us: 0, open: 0 };
        let mut group = before.clone().unwrap_or_else(new);
        group.max = change.max.unwrap_or(group.max);
        group.held_us = match (change.held, group.held_us) {
            (Some(true), 0) => at_us,
            (Some(false), _) => 0,
            (Some(true) | None, since) => since,
        };
        if before.as_ref() != Some(&group) {
            self.applied.groups.retain(|known| known.id != id);
            self.applied.groups.push(group.clone());
        }
        match place {
            Some(place) => self.groups[place] = group,
            None => self.groups.push(group),
        }
        id
    }

    pub(super) fn hold(&mut self, seq: u64, keep: &[u64]) {
        let Some(record) = self.records.get(&seq) else { return };
        match record.kind {
            Kind::Task | Kind::Member { touched: true, .. } => self.hold_one(seq, keep),
            Kind::Member { touched: false, .. } => {
                if self.touch_alone(seq) {
                    self.hold_one(seq, keep);
                }
            }
            Kind::Array { count, .. } => {
                self.hold_one(seq, &[]);
                for member in seq + 1..=seq + count {
                    if matches!(self.records.get(&member).map(|r| r.kind), Some(Kind::Member { touched: true, .. })) {
                        self.hold_one(member, keep);
                    }
                }
            }
        }
    }

    fn hold_one(&mut self, seq: u64, keep: &[u64]) {
        if let Some(record) = self.records.get_mut(&seq).filter(|r| !r.state.is_final() && !keep.contains(&seq)) {
            record.held = true;
            self.place(seq);
        }
    }

    /// Gives a member its own standing, unless what its array waits for concerns it too.
    fn touch_alone(&mut self, seq: u64) -> bool {
        let Some(Kind::Member { array, touched: false }) = self.records.get(&seq).map(|record| record.kind) else {
            return false;
        };
        let Some(header) = self.records.get(&array) else { return false };
        let stopped = matches!(header.kind, Kind::Array { stopped: true, .. });
        if stopped || header.blockers() > 0 || header.not_before_us > 0 {
            return false;
        }
        self.touch(seq);
        true
    }

    pub(super) fn release(&mut self, seq: u64) {
        let Some(record) = self.records.get(&seq) else { return };
        match record.kind {
            Kind::Task | Kind::Member { touched: true, .. } => self.release_one(seq),
            Kind::Member { touched: false, .. } => {
                if self.touch_alone(seq) {
                    self.now_ready(seq);
                }
            }
            Kind::Array { count, .. } => (seq..=seq + count).for_each(|seq| self.release_one(seq)),
        }
    }

    fn release_one(&mut self, seq: u64) {
        let Some(record) = self.records.get_mut(&seq).filter(|record| !record.state.is_final() && record.held) else {
            return;
        };
        record.held = false;
        self.place(seq);
        if self.is_ready(seq) {
            self.now_ready(seq);
        }
    }

    pub(super) fn expire(&mut self, due: &[u64], keep: &[u64], at_us: u64) {
        for &seq in due {
            let Some(record) = self.records.get_mut(&seq).filter(|r| (1..=at_us).contains(&r.expires_us)) else {
                continue;
            };
            if record.state.is_final() {
                continue;
            }
            match record.kind {
                Kind::Task | Kind::Member { .. } | Kind::Array { .. } if keep.contains(&seq) => {
                    record.expires_us = 0;
                    self.place(seq);
                }
                Kind::Task | Kind::Member { .. } => self.cancel(seq, &[]),
                Kind::Array { .. } => {
                    record.expires_us = 0;
                    self.stop_array(seq);
                    self.place(seq);
                    self.end_array_if_done(seq);
                }
            }
        }
    }

    /// Everything that a person holds.
    pub fn held(&self) -> Vec<acode_worker::task::TaskId> {
        self.held.iter().filter_map(|seq| self.record(*seq)).map(|record| record.id).collect()
    }
}
