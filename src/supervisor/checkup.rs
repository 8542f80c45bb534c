//! One look at the health of all workers: who was asked, who has answered, who is overdue. Pure: the time is an argument,
//! in nanoseconds of the monotonic clock.
//!
//! Deliberately absent: the asking and the killing (`checks`), and the heartbeats, which are looked at all the time and
//! need nobody to ask.

use std::collections::BTreeMap;

use acode_worker::task::WorkerId;

/// What was found out about a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It was asked.
    Asked,
    /// It has answered.
    Answered {
        /// After so many microseconds.
        in_us: u64,
    },
    /// It is not well.
    Unwell {
        /// Why, in words.
        why: String,
    },
}

/// A worker, as it was when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patient {
    /// Its id.
    pub id: WorkerId,
    /// Its process.
    pub pid: i32,
    /// How it is.
    pub finding: Finding,
    /// Its own memory in bytes, if somebody has looked.
    pub memory_bytes: Option<u64>,
}

impl Patient {
    /// A worker that is asked now.
    pub fn asked(id: WorkerId, pid: i32) -> Self {
        Self { id, pid, finding: Finding::Asked, memory_bytes: None }
    }
}

/// One check of all workers.
#[derive(Debug)]
pub struct Checkup {
    nonce: u64,
    began_ns: u64,
    deadline_ns: u64,
    patience_ns: u64,
    looked_ns: u64,
    patients: BTreeMap<u16, Patient>,
}

impl Checkup {
    /// A check of these workers, who have `patience_ns` to answer with `nonce`.
    pub fn new(nonce: u64, now_ns: u64, patience_ns: u64, patients: BTreeMap<u16, Patient>) -> Self {
        let deadline_ns = now_ns.saturating_add(patience_ns);
        Self { nonce, began_ns: now_ns, deadline_ns, patience_ns, looked_ns: now_ns, patients }
    }

    /// The number that answers carry.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// The workers by row.
    pub fn patients(&self) -> impl Iterator<Item = (u16, &Patient)> {
        self.patients.iter().map(|(row, patient)| (*row, patient))
    }

    /// The rows of those that have not answered yet.
    pub fn open(&self) -> Vec<u16> {
        self.patients.iter().filter(|(_, patient)| patient.finding == Finding::Asked).map(|(row, _)| *row).collect()
    }

    /// Takes an answer. False if nobody waits for one from this row.
    pub fn answered(&mut self, row: u16, now_ns: u64, memory_bytes: Option<u64>) -> bool {
        let Some(patient) = self.asked_in(row) else { return false };
        patient.memory_bytes = memory_bytes;
        let in_us = now_ns.saturating_sub(self.began_ns) / 1_000;
        self.find(row, Finding::Answered { in_us });
        true
    }

    /// Notes that a worker is not well, if it has not answered before.
    pub fn unwell(&mut self, row: u16, why: String) {
        if self.asked_in(row).is_some() {
            self.find(row, Finding::Unwell { why });
        }
    }

    /// Notes that a worker is gone: one that left as it was told to is no patient any more, any other is not well.
    pub fn gone(&mut self, row: u16, why: Option<String>) {
        match (why, self.asked_in(row).is_some()) {
            (Some(why), _) => self.find(row, Finding::Unwell { why }),
            (None, true) => drop(self.patients.remove(&row)),
            (None, false) => {}
        }
    }

    /// Lets time pass; true if it is up. Time in which we could not have read an answer is given back.
    pub fn is_overdue(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.looked_ns) > self.patience_ns / 2 {
            self.deadline_ns = now_ns.saturating_add(self.patience_ns);
        }
        self.looked_ns = now_ns;
        now_ns >= self.deadline_ns
    }

    fn asked_in(&mut self, row: u16) -> Option<&mut Patient> {
        self.patients.get_mut(&row).filter(|patient| patient.finding == Finding::Asked)
    }

    fn find(&mut self, row: u16, finding: Finding) {
        if let Some(patient) = self.patients.get_mut(&row) {
            patient.finding = finding;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn check(rows: u16) -> Checkup {
        let patient = |row: u16| (row, Patient::asked(WorkerId::from_u128(u128::from(row)), i32::from(row)));
        Checkup::new(7, 1_000 * MS, 100 * MS, (0..rows).map(patient).collect())
    }

    fn finding(check: &Checkup, row: u16) -> Option<Finding> {
        check.patients().find(|(of, _)| *of == row).map(|(_, patient)| patient.finding.clone())
    }

    #[test]
    fn each_answer_counts_once_and_tells_how_long_it_took() {
        let mut check = check(2);
        assert_eq!(check.open(), [0, 1]);
        assert!(check.answered(1, 1_003 * MS, Some(4_096)));
        assert!(!check.answered(1, 1_009 * MS, None), "a second answer changes nothing");
        assert_eq!(finding(&check, 1), Some(Finding::Answered { in_us: 3_000 }));
        assert!(!check.answered(9, 1_000 * MS, None), "nobody was asked there");
        assert_eq!(check.open(), [0]);
    }

    #[test]
    fn who_does_not_answer_is_overdue_after_the_patience() {
        let mut check = check(1);
        for ms in [1_049, 1_099] {
            assert!(!check.is_overdue(ms * MS));
        }
        assert!(check.is_overdue(1_100 * MS));
        check.unwell(0, "no answer".into());
        assert!(check.open().is_empty());
        assert!(!check.answered(0, 1_101 * MS, None), "too late");
    }

    #[test]
    fn a_supervisor_that_slept_gives_its_workers_their_time_again() {
        let mut check = check(1);
        assert!(!check.is_overdue(9_000 * MS));
        assert!(!check.is_overdue(9_049 * MS));
        assert!(!check.is_overdue(9_099 * MS));
        assert!(check.is_overdue(9_100 * MS));
    }

    #[test]
    fn who_leaves_is_forgotten_and_who_dies_is_not_well() {
        let mut check = check(3);
        check.answered(2, 1_001 * MS, None);
        check.gone(0, None);
        check.gone(1, Some("killed by SIGKILL".into()));
        check.gone(2, None);
        assert_eq!(finding(&check, 0), None);
        assert_eq!(finding(&check, 1), Some(Finding::Unwell { why: "killed by SIGKILL".into() }));
        assert_eq!(finding(&check, 2), Some(Finding::Answered { in_us: 1_000 }), "it was well as long as it was there");
        assert!(check.open().is_empty());
    }
}
