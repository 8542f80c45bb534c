//! What a program submits.
//!
//! A thin builder over the submission that everybody uses. Deliberately absent: rules; the queue checks what it is given.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acode_worker::actions::WorkAction;
use acode_worker::task::{
    Action, ActionType, Array, Blocker, Dependency, DependencyKind, Docker, GroupWish, IfExists, Isolation, Key,
    Library, Limits, Priority, Retries, Submission, TaskId, TaskSpec,
};
use serde_json::Value;

use super::ApiError;

/// A task to be submitted.
///
/// ```
/// use acode::api::{Priority, Task};
/// use std::time::Duration;
///
/// let task = Task::command(["gzip", "-9", "/var/log/big.log"])
///     .name("compress")
///     .priority(Priority::High)
///     .timeout(Duration::from_secs(45))
///     .retries(2)
///     .meta("userId", "user-456");
/// assert_eq!(task.submission().spec.command.len(), 3);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a task does nothing until it is submitted"]
pub struct Task(Submission);

impl From<Submission> for Task {
    fn from(submission: Submission) -> Self {
        Self(submission)
    }
}

impl From<TaskSpec> for Task {
    fn from(spec: TaskSpec) -> Self {
        Self(Submission { spec, ..Submission::default() })
    }
}

impl From<Task> for Submission {
    fn from(task: Task) -> Self {
        task.0
    }
}

impl Task {
    /// A program with its arguments. Nothing is given to a shell.
    pub fn command<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Self {
        let command = words.into_iter().map(Into::into).collect();
        TaskSpec { command, ..TaskSpec::default() }.into()
    }

    /// One of the built-in actions, with its parameters.
    pub fn action(kind: ActionType, params: Value) -> Self {
        Action { kind, params, ..Action::default() }.into()
    }

    /// The user's own action of this name, with its parameters: of the embedding program, of a library, or of the pool's worker
    /// program.
    pub fn custom(name: impl Into<String>, params: Value) -> Self {
        Action { kind: ActionType::Custom, name: Some(name.into()), params, ..Action::default() }.into()
    }

    /// An action of this program, with parameters of its type.
    ///
    /// # Errors
    /// The parameters have no JSON form.
    pub fn of<A: WorkAction>(params: &A::Params) -> Result<Self, ApiError> {
        let params = serde_json::to_value(params)?;
        Ok(match ActionType::from_name(A::NAME).filter(|kind| *kind != ActionType::Custom) {
            Some(kind) => Self::action(kind, params),
            None => Self::custom(A::NAME, params),
        })
    }

    /// What will be submitted.
    pub fn submission(&self) -> &Submission {
        &self.0
    }

    /// The same, to change whatever has no method here.
    pub fn submission_mut(&mut self) -> &mut Submission {
        &mut self.0
    }

    fn with(mut self, change: impl FnOnce(&mut Submission)) -> Self {
        change(&mut self.0);
        self
    }

    fn with_action(self, change: impl FnOnce(&mut Action)) -> Self {
        self.with(|it| change(it.spec.action.get_or_insert_default()))
    }

    /// A name for people; not unique.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with(|it| it.spec.name = Some(name.into()))
    }

    /// How urgent it is.
    pub fn priority(self, priority: Priority) -> Self {
        self.with(|it| it.spec.priority = priority)
    }

    /// After which time an attempt is ended, in whole milliseconds.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|it| it.spec.timeout_ms = Some(millis(timeout)))
    }

    /// The most retries.
    pub fn retries(self, count: u32) -> Self {
        self.with(|it| it.spec.retry.get_or_insert_default().count = Some(count))
    }

    /// The time before the first retry, in whole milliseconds; it doubles from one to the next.
    pub fn retry_delay(self, delay: Duration) -> Self {
        self.with(|it| it.spec.retry.get_or_insert_default().delay_ms = Some(millis(delay)))
    }

    /// Everything about retries at once.
    pub fn retry(self, retry: Retries) -> Self {
        self.with(|it| it.spec.retry = Some(retry))
    }

    /// It starts when this one has completed.
    pub fn after(self, id: impl Into<TaskId>) -> Self {
        self.depends_on(id, DependencyKind::Succeeded)
    }

    /// It starts when all of these have completed.
    pub fn after_all<T: Into<TaskId>>(self, ids: impl IntoIterator<Item = T>) -> Self {
        ids.into_iter().fold(self, Self::after)
    }

    /// It starts when this one has ended like that.
    pub fn depends_on(self, id: impl Into<TaskId>, when: DependencyKind) -> Self {
        self.with(|it| it.dependencies.push(Dependency { on: Blocker::Id(id.into()), when }))
    }

    /// It starts when the earlier task at this place of the same [`submit_all`](super::WorkerPool::submit_all) has completed.
    pub fn after_entry(self, place: u32) -> Self {
        let on = Blocker::Entry(place);
        self.with(|it| it.dependencies.push(Dependency { on, when: DependencyKind::Succeeded }))
    }

    /// One of the submitter's own facts: `ACODE_META_<KEY>` of a command, `Context::meta` of an action.
    pub fn meta(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|it| drop(it.spec.meta.insert(key.into(), value.into())))
    }

    /// A variable of its environment, where it has a process of its own.
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|it| drop(it.spec.env.insert(name.into(), value.into())))
    }

    /// Its working directory, an absolute path: where relative paths of parameters start.
    pub fn cwd(self, folder: impl Into<String>) -> Self {
        self.with(|it| it.spec.cwd = Some(folder.into()))
    }

    /// How it is kept apart; as the pool does it, if this is not called.
    pub fn isolation(self, isolation: Isolation) -> Self {
        self.with(|it| it.spec.isolation = Some(isolation))
    }

    /// Its container, where it differs from the pool's; makes its isolation docker.
    pub fn docker(self, docker: Docker) -> Self {
        self.with(|it| it.spec.docker = Some(docker))
    }

    /// Limits of the task as a whole, where they differ from the pool's.
    pub fn limits(self, limits: Limits) -> Self {
        self.with(|it| it.spec.limits = limits)
    }

    /// The shared object that has the action; makes its isolation library.
    pub fn library(self, library: Library) -> Self {
        self.with_action(|action| action.library = Some(library))
    }

    /// The worker program that does the action, with its arguments.
    pub fn program<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.with_action(|action| action.program = words.into_iter().map(Into::into).collect())
    }

    /// Whether the process that runs the action may have run others before.
    pub fn reuse(self, reuse: bool) -> Self {
        self.with_action(|action| action.reuse = reuse)
    }

    /// Its limit group; with a number, the most tasks of the group at once from now on.
    pub fn group(self, name: impl Into<String>, max: Option<u32>) -> Self {
        self.with(|it| it.group = Some(GroupWish { name: name.into(), max }))
    }

    /// A text that no other task has which has not ended.
    pub fn key(self, text: impl Into<String>, if_exists: IfExists) -> Self {
        self.with(|it| it.key = Some(Key { text: text.into(), if_exists }))
    }

    /// It does not start before so much time from its acceptance.
    pub fn delay(self, delay: Duration) -> Self {
        self.with(|it| it.delay_ms = Some(millis(delay)))
    }

    /// It does not start before this moment.
    pub fn not_before(self, moment: SystemTime) -> Self {
        self.with(|it| it.not_before_us = Some(micros(moment)))
    }

    /// It is cancelled if it has not started by this moment.
    pub fn expires(self, moment: SystemTime) -> Self {
        self.with(|it| it.expires_us = Some(micros(moment)))
    }

    /// It is not started before it is released.
    pub fn hold(self) -> Self {
        self.with(|it| it.hold = true)
    }

    /// Makes it an array: a task for each item, in which `{item}` and its like stand for the member's own.
    pub fn array(self, array: Array) -> Self {
        self.with(|it| it.array = Some(array))
    }

    /// Patterns of the files that are kept when it has ended, below its working directory.
    pub fn artifacts<S: Into<String>>(self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.with(|it| it.spec.artifacts = patterns.into_iter().map(Into::into).collect())
    }
}

impl From<Action> for Task {
    fn from(action: Action) -> Self {
        TaskSpec { action: Some(Box::new(action)), ..TaskSpec::default() }.into()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
