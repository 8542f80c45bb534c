//! Finish hooks: what runs when a task has ended, with its verdict in the environment.
//!
//! Owner: the store. A hook is an ordinary task that is added by the very transaction that ends the other one, so that
//! no crash can come between the two: it is neither lost nor added twice. A task without a hook costs nothing here.
//! Deliberately absent: running it, and hooks of hooks.

use std::fmt::Display;

use acode_worker::task::{Class, Env, Priority, Retries, TaskId, TaskSpec, TaskState, Verdict};
use rusqlite::params;

use super::apply::{HAS_HOOK, IS_HOOK, Row, RowKind, Writer, defect};
use super::life::attempt_key;
use super::op::NewTask;
use super::statements::Sql;
use super::{Store, StoreError};

/// What the name of a hook's task begins with.
const NAMED: &str = "on-finish:";
/// The most characters of a text about the ended task that go into a variable: what the kernel takes is bounded.
const TEXT_MAX: usize = 4_096;

/// What runs when a task has ended, beyond what the task itself asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Program and arguments that run for every task and array; none if empty.
    pub pool: Vec<String>,
    /// Milliseconds after which a hook is ended, whoever asked for it.
    pub timeout_ms: u64,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { pool: Vec::new(), timeout_ms: 60_000 }
    }
}

/// What a hook is told about the task that has ended.
#[derive(Debug)]
struct Ending<'e> {
    id: TaskId,
    name: &'e str,
    state: TaskState,
    verdict: Option<Verdict>,
    error: Option<String>,
    reason: Option<String>,
    attempts: u32,
    duration_ms: u64,
}

impl Ending<'_> {
    /// The variables. All are there at every end, empty where there is nothing to tell.
    fn variables(&self) -> Env {
        let verdict = self.verdict.as_ref();
        let number = |number: Option<i32>| number.map(|number| number.to_string()).unwrap_or_default();
        let text = |text: &Option<String>| cut(text.as_deref().unwrap_or_default());
        let told: [(&str, String); 11] = [
            ("TASK", self.id.to_string()),
            ("NAME", cut(self.name)),
            ("NUMBER", self.id.seq().to_string()),
            ("STATE", self.state.name().to_owned()),
            ("VERDICT", verdict.map_or("", Verdict::name).to_owned()),
            ("EXIT_CODE", number(verdict.and_then(Verdict::exit_code))),
            ("SIGNAL", number(verdict.and_then(Verdict::signal))),
            ("ERROR", text(&self.error)),
            ("REASON", text(&self.reason)),
            ("ATTEMPTS", self.attempts.to_string()),
            ("DURATION_MS", self.duration_ms.to_string()),
        ];
        told.into_iter().map(|(name, value)| (format!("ACODE_HOOK_{name}"), value)).collect()
    }
}

/// A text as the value of a variable: bounded, and without the byte that would end it.
fn cut(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(TEXT_MAX).collect()
}

/// The specification of a hook's task.
fn specification(command: Vec<String>, ending: &Ending<'_>, meta: Env, timeout_ms: u64) -> TaskSpec {
    TaskSpec {
        name: Some(format!("{NAMED}{}", ending.name)),
        command,
        env: ending.variables(),
        meta,
        timeout_ms: Some(timeout_ms),
        priority: Priority::High,
        // Said, so that the pool's default does not hold: a hook that fails has told nobody, or somebody twice.
        retry: Some(Retries { count: Some(0), ..Retries::default() }),
        ..TaskSpec::default()
    }
}

fn broken(what: &str, error: impl Display) -> rusqlite::Error {
    defect(&format!("{what}: {error}"))
}

impl Writer<'_> {
    /// Adds the finish hooks of what has just ended: its own, and the pool's.
    pub(super) fn hook(&mut self, row: &Row, state: TaskState, at_us: u64) -> rusqlite::Result<()> {
        let own = row.flags & HAS_HOOK != 0;
        let hooks = self.hooks;
        let wanted = own || !hooks.pool.is_empty();
        // An array's hook runs once, when all of it has ended.
        if !wanted || row.flags & IS_HOOK != 0 || row.kind == RowKind::Member {
            return Ok(());
        }
        let seq = row.id.seq();
        let facts = self.sql.one(Sql::HookFacts, [seq], |r| {
            Ok((r.get::<_, String>(0)?, r.get(1)?, r.get::<_, Option<u64>>(2)?, r.get(3)?))
        })?;
        let Some((spec, attempts, started_us, reason)) = facts else { return Ok(()) };
        let spec: TaskSpec = serde_json::from_str(&spec).map_err(|e| broken("a specification cannot be read", e))?;
        let last = self.sql.one(Sql::LastVerdict, params![attempt_key(seq, attempts), seq, attempts], |r| {
            Ok((r.get::<_, Option<String>>(0)?, r.get(1)?))
        })?;
        let (verdict, error) = match last {
            Some((None, error)) => (Some(Verdict::Exited { code: 0 }), error),
            Some((Some(text), error)) => {
                let verdict = serde_json::from_str(&text).map_err(|e| broken("a verdict cannot be read", e))?;
                (Some(verdict), error)
            }
            None => (None, None),
        };
        // An array has no start of its own.
        let began_us = if row.kind == RowKind::Header { Some(row.id.millis() * 1_000) } else { started_us };
        let duration_ms = began_us.map_or(0, |began| at_us.saturating_sub(began) / 1_000);
        let name = spec.display_name();
        let ending = Ending { id: row.id, name, state, verdict, error, reason, attempts, duration_ms };
        for command in [&spec.on_finish, &hooks.pool].into_iter().filter(|command| !command.is_empty()) {
            let hook = specification(command.clone(), &ending, spec.meta.clone(), hooks.timeout_ms);
            self.add_hook(seq, hook, at_us)?;
        }
        Ok(())
    }

    /// Adds one hook's task, which has a number of its own that nobody was given.
    fn add_hook(&mut self, of: u64, spec: TaskSpec, at_us: u64) -> rusqlite::Result<()> {
        let id = TaskId::new(self.ledger.last_ms.max(at_us / 1_000), self.tag, self.ledger.next_seq);
        let new = NewTask {
            id,
            at_us,
            spec_json: serde_json::to_string(&spec).map_err(|e| broken("a finish hook has no JSON form", e))?,
            priority: spec.priority,
            class: Class::Any,
            not_before_us: 0,
            expires_us: 0,
            held: false,
            group: None,
            array: None,
            dependencies: Vec::new(),
            name: spec.name,
            key: None,
            hooked: false,
        };
        self.insert_task(&new, 0, IS_HOOK)?;
        self.sql.run(Sql::SetHook, params![id.seq(), of])?;
        if let Some(row) = self.row(id.seq())? {
            self.now_ready(&row);
        }
        Ok(())
    }
}

impl Store {
    /// The finish hooks of a task or array, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn hooks_of(&self, id: TaskId, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        self.read(|conn| {
            let mut rows = conn.prepare_cached(
                "SELECT submitted_ms, seq FROM task INDEXED BY task_hook WHERE hook_of = ?1 AND hook_of IS NOT NULL
                 ORDER BY seq LIMIT ?2",
            )?;
            let found = rows.query_map(params![id.seq(), limit], |r| Ok(self.id(r.get(0)?, r.get(1)?)))?;
            found.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_variables_are_there_at_every_end_and_hold_nothing_that_the_kernel_refuses() {
        let long = format!("a\0b{}", "ä".repeat(2 * TEXT_MAX));
        let ending = Ending {
            id: TaskId::new(1, 2, 3),
            name: "x",
            state: TaskState::Cancelled,
            verdict: None,
            error: Some(long),
            reason: None,
            attempts: 0,
            duration_ms: 0,
        };
        let told = ending.variables();
        assert_eq!((told.len(), told["ACODE_HOOK_NUMBER"].as_str()), (11, "3"));
        assert_eq!((told["ACODE_HOOK_VERDICT"].as_str(), told["ACODE_HOOK_EXIT_CODE"].as_str()), ("", ""));
        let error = &told["ACODE_HOOK_ERROR"];
        assert!(error.starts_with("abä") && error.chars().count() == TEXT_MAX);
    }

    #[test]
    fn a_hook_is_urgent_bounded_in_time_and_never_tried_again() {
        let ending = Ending {
            id: TaskId::new(1, 2, 3),
            name: "x",
            state: TaskState::Failed,
            verdict: Some(Verdict::Exited { code: 7 }),
            error: None,
            reason: None,
            attempts: 1,
            duration_ms: 12,
        };
        let spec = specification(vec!["tell".into()], &ending, Env::new(), 500);
        assert_eq!((spec.priority, spec.timeout_ms, spec.on_finish.len()), (Priority::High, Some(500), 0));
        assert_eq!(spec.retry.and_then(|retry| retry.count), Some(0));
        assert_eq!((spec.name.as_deref(), spec.env["ACODE_HOOK_EXIT_CODE"].as_str()), (Some("on-finish:x"), "7"));
    }
}
