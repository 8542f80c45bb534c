//! What tasks say about themselves: marks in a file that all of them append to.
//!
//! A mark is a line `<task> <run>`, appended in one write, where the run is a number of its own for each execution. If
//! marks of one run come after marks of a later one, both ran at once. Deliberately absent: times; the order in which
//! the kernel appended the lines is better than any clock.

use std::collections::{BTreeMap, BTreeSet};

use acode_worker::task::{TaskId, TaskState};

use super::Pool;

/// The marks of all tasks, in their order.
#[derive(Debug)]
pub struct History {
    runs: BTreeMap<String, Vec<String>>,
}

impl History {
    /// Takes the lines of a file of marks.
    pub fn read(lines: &[String]) -> Self {
        let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            let (task, run) = line.split_once(' ').unwrap_or_else(|| panic!("not a mark: '{line}'"));
            let runs = runs.entry(task.to_owned()).or_default();
            if runs.last().is_none_or(|last| last != run) {
                runs.push(run.to_owned());
            }
        }
        Self { runs }
    }

    /// How many tasks have left marks.
    pub fn tasks(&self) -> usize {
        self.runs.len()
    }

    /// Asserts that no run of a task has left a mark after a later run of the same task had left one.
    #[track_caller]
    pub fn assert_no_overlap(&self) {
        for (task, runs) in &self.runs {
            let distinct: BTreeSet<_> = runs.iter().collect();
            assert_eq!(distinct.len(), runs.len(), "task {task} ran twice at once: {runs:?}");
        }
    }

    /// Asserts that each of these tasks has run.
    #[track_caller]
    pub fn assert_ran(&self, tasks: &[TaskId]) {
        let idle: Vec<_> = tasks.iter().filter(|task| !self.runs.contains_key(&task.to_string())).collect();
        assert!(idle.is_empty(), "{} tasks never ran: {idle:?}", idle.len());
    }
}

/// Asserts that the store says of each of these tasks that it completed, and said so once.
#[track_caller]
pub fn assert_completed_once(pool: &Pool, tasks: &[TaskId]) {
    let mut verdicts: BTreeMap<TaskId, u32> = BTreeMap::new();
    for event in pool.events().into_iter().filter(|event| event.event == "task-completed") {
        *verdicts.entry(event.task.unwrap()).or_default() += 1;
    }
    for task in tasks {
        let record = pool.show(*task);
        assert_eq!(record.state, TaskState::Completed, "{record:?}\n{}", pool.log());
        assert_eq!(verdicts.get(task), Some(&1), "verdicts on task {task}\n{}", pool.log());
        let exits = record.attempts.iter().flatten().filter(|attempt| attempt.exit_code == Some(0)).count();
        assert!(exits == 1 || record.array.is_some(), "{exits} successful attempts of {task}");
    }
    let twice: Vec<_> = verdicts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "more than one verdict: {twice:?}");
}
