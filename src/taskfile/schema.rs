//! The keys of one task, from the tree to a submission whose dependencies are still names.
//!
//! YAML and JSON Lines come through here alike. Deliberately absent: what a name refers to; `order` and `lines` know
//! the other tasks.

use std::borrow::Cow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use acode_worker::actions::Registry;
use acode_worker::task::{
    Array, Class, Cleanup, DependencyKind, Env, ExitCodes, GroupWish, IfExists, Key, Priority, Retries, Rlimits,
    SoftTimeout, SpecError, Submission, TaskSignal, TaskSpec,
};

use super::duration::{DURATION_MAX, from_seconds};
use super::{action, artifacts, docker, expand, limits, parse_duration, parse_moment, sandbox, worktree};
use crate::repository::Commits;
use crate::tree::{At, Entry, Fault, FaultKind, Node, Scalar, ScalarKind, Value};

/// The keys that `defaults` may have, which a task may have too.
const SHARED: [&str; 27] = [
    "priority",
    "timeout",
    "softTimeout",
    "startTimeout",
    "grace",
    "retries",
    "checkpoint",
    "cleanup",
    "artifacts",
    "delay",
    "notBefore",
    "expires",
    "hold",
    "group",
    "limitGroup",
    "cwd",
    "env",
    "meta",
    "stdin",
    "rlimits",
    "limits",
    "sandbox",
    "worktree",
    "onFinish",
    "jobserver",
    "isolation",
    "docker",
];
/// The keys that only a task may have.
const OWN: [&str; 10] =
    ["name", "command", "after", "afterAny", "afterFailed", "each", "array", "allowEmpty", "key", "ifExists"];

/// The most retries that anybody may ask for.
const RETRIES_MAX: u64 = 1_000_000;

/// Where relative paths start.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// The task file's folder, absolute.
    pub folder: PathBuf,
    /// The commits that were found so far.
    pub commits: Rc<Commits>,
    /// The built-in actions, which know what their parameters may be.
    pub actions: Rc<Registry>,
}

/// A task that waits for others by name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wait {
    /// Where the name stands.
    pub at: At,
    /// The name.
    pub name: String,
    /// How the other one must end.
    pub kind: DependencyKind,
}

/// A task whose dependencies are still names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Draft {
    /// Where the task stands.
    pub at: At,
    /// The task, without its dependencies.
    pub submission: Submission,
    /// The names that it waits for.
    pub waits: Vec<Wait>,
    allow_empty: bool,
}

impl Draft {
    /// Whether it is an array without members, which was allowed: nothing is to be submitted.
    pub fn is_empty(&self) -> bool {
        self.submission.array.as_ref().is_some_and(Array::is_empty)
    }
}

/// Reads the mapping `defaults`.
pub(super) fn defaults(node: &Node<'_>, base: &Base) -> Result<Draft, Fault> {
    let mut draft = Draft::default();
    for entry in node.entries("defaults")? {
        if !SHARED.contains(&entry.key.as_ref()) {
            if OWN.contains(&entry.key.as_ref()) || action::KEYS.contains(&entry.key.as_ref()) {
                return Err(Fault::other(
                    entry.at,
                    format!("'{}' cannot be a default: it is each task's own", entry.key),
                ));
            }
            return Err(Fault::unknown_key(entry.at, &entry.key, "defaults", SHARED));
        }
        draft.apply(entry, base)?;
    }
    // A relative path of the defaults means the same in every task; an array's placeholders come later.
    Ok(draft)
}

/// Reads the mapping of one task, over `defaults`.
pub(super) fn task(node: &Node<'_>, defaults: &Draft, base: &Base) -> Result<Draft, Fault> {
    let mut draft = Draft { at: node.at, ..defaults.clone() };
    for entry in node.entries("the task")? {
        draft.apply(entry, base)?;
    }
    docker::leave_out(&mut draft.submission.spec, node.entries("the task")?);
    draft.finish(node, base)?;
    action::settle(&mut draft.submission, node.entries("the task")?, base)?;
    Ok(draft)
}

impl Draft {
    fn apply(&mut self, entry: &Entry<'_>, base: &Base) -> Result<(), Fault> {
        let node = &entry.node;
        let spec = &mut self.submission.spec;
        match entry.key.as_ref() {
            "name" => spec.name = Some(name(node)?),
            "command" => spec.command = command(node, "command")?,
            "onFinish" => spec.on_finish = if is_none(node) { Vec::new() } else { command(node, "onFinish")? },
            "key" => self.submission.key.get_or_insert_default().text = key(node)?,
            "ifExists" => self.submission.key.get_or_insert_default().if_exists = if_exists(node)?,
            "priority" => spec.priority = priority(node)?,
            "timeout" => {
                spec.timeout_ms = optional_millis(node, "timeout")?;
                if spec.timeout_ms == Some(0) {
                    return Err(node.refused("timeout", "more than 0, or none,"));
                }
            }
            "softTimeout" => spec.soft_timeout = soft_timeout(node)?,
            "startTimeout" => {
                spec.start_timeout_ms = optional_millis(node, "startTimeout")?;
                if spec.start_timeout_ms == Some(0) {
                    return Err(node.refused("startTimeout", "more than 0, or none,"));
                }
            }
            "checkpoint" => spec.checkpoint = node.as_bool("checkpoint")?,
            "artifacts" => spec.artifacts = artifacts::read(node)?,
            "cleanup" => spec.cleanup = if is_none(node) { None } else { Some(cleanup(node)?) },
            "grace" => spec.grace_ms = optional_millis(node, "grace")?,
            "retries" => spec.retry = Some(retries(node, spec.retry.unwrap_or_default())?),
            "delay" => self.submission.delay_ms = optional_millis(node, "delay")?,
            "notBefore" => self.submission.not_before_us = optional_moment(node, "notBefore")?,
            "expires" => self.submission.expires_us = optional_moment(node, "expires")?,
            "hold" => self.submission.hold = node.as_bool("hold")?,
            "group" if is_none(node) => self.submission.group = None,
            "group" => self.submission.group = Some(group(node, node.as_text("group")?, None)?),
            "limitGroup" => self.submission.group = Some(limit_group(node)?),
            "cwd" => spec.cwd = optional_path(node, "cwd")?,
            "stdin" => spec.stdin = optional_path(node, "stdin")?,
            "env" => extend(&mut spec.env, node, "env")?,
            "meta" => extend(&mut spec.meta, node, "meta")?,
            "sandbox" => sandbox::read(&mut spec.sandbox, node)?,
            "isolation" => spec.isolation = docker::isolation(node)?,
            "docker" => docker::read(&mut spec.docker, node, &base.folder)?,
            "worktree" => worktree::read(&mut spec.worktree, node, base)?,
            "rlimits" => rlimits(&mut spec.rlimits, node)?,
            "limits" => limits::apply(&mut spec.limits, node)?,
            "jobserver" => spec.jobserver = node.as_bool("jobserver")?,
            "after" => self.wait_for(node, "after", DependencyKind::Succeeded)?,
            "afterAny" => self.wait_for(node, "afterAny", DependencyKind::Ended)?,
            "afterFailed" => self.wait_for(node, "afterFailed", DependencyKind::Failed)?,
            "each" => self.set_array(entry, Array::Items(each(node, base)?))?,
            "array" => self.set_array(entry, range(node)?)?,
            "allowEmpty" => self.allow_empty = node.as_bool("allowEmpty")?,
            typed if action::KEYS.contains(&typed) => action::read(spec, entry)?,
            unknown => {
                let known = OWN.into_iter().chain(SHARED).chain(action::KEYS);
                return Err(Fault::unknown_key(entry.at, unknown, "", known));
            }
        }
        Ok(())
    }

    fn set_array(&mut self, entry: &Entry<'_>, array: Array) -> Result<(), Fault> {
        if self.submission.array.is_some() {
            return Err(Fault::other(entry.at, "each and array exclude each other"));
        }
        self.submission.array = Some(array);
        Ok(())
    }

    fn wait_for(&mut self, node: &Node<'_>, key: &str, kind: DependencyKind) -> Result<(), Fault> {
        let one = |node: &Node<'_>| Ok(Wait { at: node.at, name: node.as_text(key)?.to_owned(), kind });
        match &node.value {
            Value::Scalar(Scalar { kind: ScalarKind::Null, .. }) => {}
            Value::Scalar(_) => self.waits.push(one(node)?),
            Value::List(items) => {
                for item in items {
                    self.waits.push(one(item)?);
                }
            }
            Value::Map(_) => return Err(node.wrong_type(key, "a name or a list of names")),
        }
        Ok(())
    }

    /// Checks what needs the whole task, and makes its paths absolute.
    fn finish(&mut self, node: &Node<'_>, base: &Base) -> Result<(), Fault> {
        let value_at = |key: &str| match &node.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map_or(node.at, |e| e.node.at),
            Value::Scalar(_) | Value::List(_) => node.at,
        };
        if self.is_empty() && !self.allow_empty {
            return Err(Fault::other(value_at("each"), "each matches nothing (allowEmpty: true permits that)"));
        }
        let Submission { spec, array, key, .. } = &mut self.submission;
        if key.as_ref().is_some_and(|key| key.text.is_empty()) {
            return Err(Fault::other(value_at("ifExists"), "ifExists says what becomes of a key, and there is no key"));
        }
        action::finish(spec, node.entries("the task")?, &base.folder)?;
        let names_work = |entry: &Entry<'_>| entry.key == "command" || entry.key == "type";
        let given = matches!(&node.value, Value::Map(entries) if entries.iter().any(names_work));
        if !given {
            let expected = "a list of words, or a text that is split like a shell's,".to_owned();
            return Err(Fault::new(node.at, FaultKind::Missing { what: "command".to_owned(), expected }));
        }
        let items = match array {
            Some(Array::Items(items)) => items.as_slice(),
            Some(Array::Range { .. }) | None => &[],
        };
        let contained = spec.class() == Class::Docker;
        if contained {
            docker::check_cwd(&mut spec.cwd, items).map_err(|words| Fault::other(value_at("cwd"), words))?;
        }
        // A program without a slash is looked for in PATH, one with it is a path like the others; in a container it is
        // the container's, and in a worktree a relative one is meant there.
        let is_ours = !contained && spec.worktree.is_none();
        let program = spec.command.first_mut().filter(|program| is_ours && program.contains('/'));
        let hook = spec.on_finish.first_mut().filter(|program| program.contains('/'));
        let paths =
            [("cwd", spec.cwd.as_mut()), ("stdin", spec.stdin.as_mut()), ("command", program), ("onFinish", hook)];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| !path.starts_with('/')) {
                let absolute = expand::absolute(path, &base.folder, items);
                *path = absolute.map_err(|words| Fault::other(value_at(key), format!("{key}: {words}")))?;
            }
        }
        check(spec).map_err(|error| {
            let key = match &error {
                SpecError::EmptyCommand => "command",
                SpecError::EmptyHook => "onFinish",
                SpecError::Nul(key) => key,
                SpecError::RelativePath { field, .. } => field,
                SpecError::OutOfRange { field, .. } if field.starts_with("softTimeout") => "softTimeout",
                SpecError::OutOfRange { field, .. } if field.starts_with("limits") => "limits",
                SpecError::OutOfRange { field: "artifacts", .. } => "artifacts",
                SpecError::OutOfRange { field, .. } if field.starts_with("docker") => "docker",
                SpecError::Exclusive { one: key @ ("sandbox" | "stdin"), .. } => key,
                SpecError::Exclusive { other: "docker", .. } => "docker",
                SpecError::InlineCommand(_) | SpecError::Unfit { .. } => "isolation",
                SpecError::Exclusive { .. } => "retries",
                SpecError::BadEnvName(_) | SpecError::OutOfRange { .. } | SpecError::TooLarge { .. } => "",
            };
            Fault::other(value_at(key), error.to_string())
        })
    }
}

/// Checks the specification. It is serialised to learn its size only if it could be too large.
fn check(spec: &TaskSpec) -> Result<(), SpecError> {
    /// A character takes at most six bytes in JSON (`\u0000`), and the names of the keys take less than this.
    const WORST: usize = 6;
    const KEYS: usize = 4096;
    spec.validate()?;
    let texts = spec
        .command
        .iter()
        .chain(&spec.on_finish)
        .chain([&spec.name, &spec.cwd, &spec.stdin].into_iter().flatten())
        .chain(&spec.artifacts);
    let pairs = spec.env.iter().chain(&spec.meta).map(|(key, value)| key.len() + value.len() + 1);
    let rough: usize = texts.map(|text| text.len() + 1).chain(pairs).sum();
    if spec.action.is_none() && rough * WORST + KEYS <= TaskSpec::MAX_BYTES {
        return Ok(());
    }
    let size = serde_json::to_vec(spec).map_or(usize::MAX, |json| json.len());
    if size > TaskSpec::MAX_BYTES { Err(SpecError::TooLarge { size, max: TaskSpec::MAX_BYTES }) } else { Ok(()) }
}

fn name(node: &Node<'_>) -> Result<String, Fault> {
    let text = node.as_text("name")?;
    if text.is_empty() { Err(node.wrong_type("name", "a text that is not empty")) } else { Ok(text.to_owned()) }
}

/// A command line: a list of words, or a text that is split into them.
pub(super) fn command(node: &Node<'_>, path: &str) -> Result<Vec<String>, Fault> {
    match &node.value {
        Value::List(items) => items.iter().map(|item| item.as_text(path).map(str::to_owned)).collect(),
        Value::Scalar(_) => expand::split_command(node.as_text(path)?)
            .ok_or_else(|| Fault::other(node.at, format!("{path} has a quote that is not closed"))),
        Value::Map(_) => Err(node.wrong_type(path, "a list of words or a text")),
    }
}

fn key(node: &Node<'_>) -> Result<String, Fault> {
    let text = node.as_text("key")?;
    let fits = (1..=Key::MAX_BYTES).contains(&text.len());
    if fits { Ok(text.to_owned()) } else { Err(node.refused("key", &format!("1 to {} bytes", Key::MAX_BYTES))) }
}

fn if_exists(node: &Node<'_>) -> Result<IfExists, Fault> {
    let text = node.as_text("ifExists")?;
    let found = IfExists::ALL.into_iter().find(|choice| choice.name() == text);
    found.ok_or_else(|| node.refused("ifExists", "refuse or existing"))
}

fn cleanup(node: &Node<'_>) -> Result<Cleanup, Fault> {
    let text = node.as_text("cleanup")?;
    let found = Cleanup::ALL.into_iter().find(|when| when.name() == text);
    found.ok_or_else(|| node.refused("cleanup", "always, success, failure or never"))
}

fn priority(node: &Node<'_>) -> Result<Priority, Fault> {
    let text = node.as_text("priority")?;
    let found = Priority::ALL.into_iter().find(|priority| priority.name() == text);
    found.ok_or_else(|| node.refused("priority", "critical, high, normal or low"))
}

/// A duration in milliseconds: a text with units, or a number of seconds.
fn millis(node: &Node<'_>, key: &str) -> Result<u64, Fault> {
    let duration: Result<Duration, Fault> = match &node.value {
        Value::Scalar(Scalar { kind: ScalarKind::Whole(seconds), .. }) => {
            let duration = Some(Duration::from_secs(*seconds)).filter(|duration| *duration <= DURATION_MAX);
            duration.ok_or_else(|| node.refused(key, "a duration from 0 to ten years"))
        }
        Value::Scalar(Scalar { kind: ScalarKind::Real(seconds), .. }) => {
            from_seconds(*seconds).ok_or_else(|| node.refused(key, "a duration from 0 to ten years"))
        }
        Value::List(_) | Value::Map(_) => return Err(node.wrong_type(key, "a duration such as 30s")),
        Value::Scalar(_) => {
            parse_duration(node.as_text(key)?).map_err(|error| Fault::other(node.at, format!("{key}: {error}")))
        }
    };
    Ok(u64::try_from(duration?.as_millis()).unwrap_or(u64::MAX))
}

/// A duration that may be absent, also to take back a default.
fn optional_millis(node: &Node<'_>, key: &str) -> Result<Option<u64>, Fault> {
    if is_none(node) { Ok(None) } else { millis(node, key).map(Some) }
}

fn optional_path(node: &Node<'_>, key: &str) -> Result<Option<String>, Fault> {
    if node.is_null() { Ok(None) } else { Ok(Some(node.as_text(key)?.to_owned())) }
}

/// A moment that may be absent: a time, or how long it is until then.
fn optional_moment(node: &Node<'_>, key: &str) -> Result<Option<u64>, Fault> {
    if is_none(node) {
        return Ok(None);
    }
    let micros = |moment: jiff::Timestamp| u64::try_from(moment.as_microsecond()).unwrap_or(0);
    if let Ok(moment) = node.as_text(key).map_err(drop).and_then(|text| parse_moment(text).map_err(drop)) {
        return Ok(Some(micros(moment)));
    }
    match millis(node, key) {
        Ok(ms) => Ok(Some(micros(jiff::Timestamp::now()).saturating_add(ms.saturating_mul(1_000)))),
        Err(_) => Err(node.refused(key, "a time as in 2026-11-21T06:30:00Z, or a duration from now,")),
    }
}

fn group(node: &Node<'_>, name: &str, max: Option<u32>) -> Result<GroupWish, Fault> {
    let group = GroupWish { name: name.to_owned(), max };
    group.validate().map_err(|words| Fault::other(node.at, words))?;
    Ok(group)
}

/// A group with its limit: `{name: encode, max: 2}`.
fn limit_group(node: &Node<'_>) -> Result<GroupWish, Fault> {
    const KEYS: [&str; 2] = ["name", "max"];
    let (mut name, mut max) = (None, None);
    for entry in node.entries("limitGroup")? {
        match entry.key.as_ref() {
            "name" => name = Some(entry.node.as_text("limitGroup.name")?),
            "max" => max = Some(u32::try_from(entry.node.as_whole("limitGroup.max")?).unwrap_or(u32::MAX)),
            unknown => return Err(Fault::unknown_key(entry.at, unknown, "limitGroup", KEYS)),
        }
    }
    match (name, max) {
        (Some(name), Some(max)) => group(node, name, Some(max)),
        (_, _) => Err(node.wrong_type("limitGroup", "{name: GROUP, max: NUMBER}")),
    }
}

pub(super) fn is_none(node: &Node<'_>) -> bool {
    node.is_null() || node.as_text("").is_ok_and(|text| text == "none")
}

/// A number of retries, or a mapping of what differs from `retry`.
fn retries(node: &Node<'_>, mut retry: Retries) -> Result<Retries, Fault> {
    const KEYS: [&str; 9] =
        ["count", "delay", "factor", "maxDelay", "jitter", "onCodes", "exceptCodes", "memoryFactor", "maxCrashes"];
    let count = |node: &Node<'_>, key: &str| match node.as_whole(key)? {
        number @ ..=RETRIES_MAX => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        _ => Err(node.refused(key, &format!("0 to {RETRIES_MAX}"))),
    };
    let real = |node: &Node<'_>, key: &str, low: f64, high: f64| {
        let number = node.as_real(key)?;
        if (low..=high).contains(&number) { Ok(number) } else { Err(node.refused(key, &format!("{low} to {high}"))) }
    };
    match &node.value {
        Value::Scalar(Scalar { kind: ScalarKind::Whole(_), .. }) => retry.count = Some(count(node, "retries")?),
        Value::Map(entries) => {
            for Entry { at, key, node } in entries {
                match key.as_ref() {
                    "count" => retry.count = Some(count(node, "retries.count")?),
                    "delay" => retry.delay_ms = Some(millis(node, "retries.delay")?),
                    "factor" => retry.factor = Some(real(node, "retries.factor", 1.0, 1_000.0)?),
                    "maxDelay" => retry.max_delay_ms = Some(millis(node, "retries.maxDelay")?),
                    "jitter" => retry.jitter = Some(real(node, "retries.jitter", 0.0, 1.0)?),
                    "onCodes" => retry.on_codes = codes(node, "retries.onCodes")?,
                    "exceptCodes" => retry.except_codes = codes(node, "retries.exceptCodes")?,
                    "memoryFactor" => {
                        retry.memory_factor = Some(real(node, "retries.memoryFactor", 1.0, Retries::FACTOR_MAX)?);
                    }
                    "maxCrashes" => retry.max_crashes = Some(count(node, "retries.maxCrashes")?),
                    unknown => return Err(Fault::unknown_key(*at, unknown, "retries", KEYS)),
                }
            }
        }
        Value::Scalar(_) | Value::List(_) => return Err(node.wrong_type("retries", "a whole number or a mapping")),
    }
    Ok(retry)
}

/// Exit codes: one, or a list of them.
fn codes(node: &Node<'_>, key: &str) -> Result<ExitCodes, Fault> {
    let code = |node: &Node<'_>| {
        u8::try_from(node.as_whole(key)?).map_err(|_| node.refused(key, "an exit code from 0 to 255"))
    };
    match &node.value {
        Value::List(items) => items.iter().map(code).collect(),
        Value::Scalar(_) => Ok([code(node)?].into_iter().collect()),
        Value::Map(_) => Err(node.wrong_type(key, "a list of exit codes")),
    }
}

/// A mapping of `before` and `signal`, or the former alone.
fn soft_timeout(node: &Node<'_>) -> Result<Option<SoftTimeout>, Fault> {
    const KEYS: [&str; 2] = ["before", "signal"];
    let Value::Map(entries) = &node.value else {
        let before = optional_millis(node, "softTimeout")?;
        return Ok(before.map(|before_ms| SoftTimeout { before_ms, signal: TaskSignal::default() }));
    };
    let (mut before, mut signal) = (None, TaskSignal::default());
    for Entry { at, key, node } in entries {
        match key.as_ref() {
            "before" => before = Some(millis(node, "softTimeout.before")?),
            "signal" => {
                let text = node.as_text("softTimeout.signal")?;
                signal = text.parse().map_err(|error| Fault::other(node.at, format!("softTimeout.signal: {error}")))?;
            }
            unknown => return Err(Fault::unknown_key(*at, unknown, "softTimeout", KEYS)),
        }
    }
    let missing = || FaultKind::Missing { what: "softTimeout.before".to_owned(), expected: "a duration".to_owned() };
    before.map(|before_ms| Some(SoftTimeout { before_ms, signal })).ok_or_else(|| Fault::new(node.at, missing()))
}

/// Puts the pairs of a mapping over those that are there.
fn extend(pairs: &mut Env, node: &Node<'_>, path: &str) -> Result<(), Fault> {
    for Entry { key, node, .. } in node.entries(path)? {
        let value = match &node.value {
            Value::Scalar(Scalar { text: Some(text), kind }) if *kind != ScalarKind::Null => text,
            // `KEY:` with nothing behind it is how an empty value is written.
            Value::Scalar(Scalar { kind: ScalarKind::Null, .. }) => &Cow::Borrowed(""),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
                return Err(node.wrong_type(&format!("{path}.{key}"), "a text"));
            }
        };
        pairs.insert(key.clone().into_owned(), value.clone().into_owned());
    }
    Ok(())
}

fn rlimits(limits: &mut Rlimits, node: &Node<'_>) -> Result<(), Fault> {
    const KEYS: [&str; 6] = ["coreBytes", "openFiles", "fileSizeBytes", "addressSpaceBytes", "cpuSeconds", "processes"];
    for Entry { at, key, node } in node.entries("rlimits")? {
        let place = match key.as_ref() {
            "coreBytes" => &mut limits.core_bytes,
            "openFiles" => &mut limits.open_files,
            "fileSizeBytes" => &mut limits.file_size_bytes,
            "addressSpaceBytes" => &mut limits.address_space_bytes,
            "cpuSeconds" => &mut limits.cpu_seconds,
            "processes" => &mut limits.processes,
            unknown => return Err(Fault::unknown_key(*at, unknown, "rlimits", KEYS)),
        };
        *place = if is_none(node) { None } else { Some(node.as_whole(&format!("rlimits.{key}"))?) };
    }
    Ok(())
}

/// The items of an array: a glob, a list, or a mapping that says which.
fn each(node: &Node<'_>, base: &Base) -> Result<Vec<String>, Fault> {
    const KEYS: [&str; 3] = ["glob", "type", "lines"];
    let expected = "a glob, a list, {glob: PATTERN, type: file|dir|any} or {lines: FILE}";
    let entries = match &node.value {
        Value::Scalar(Scalar { kind: ScalarKind::Null, .. }) => return Err(node.wrong_type("each", expected)),
        Value::Scalar(_) => return expand::glob_items(node, &base.folder, expand::GlobKind::File),
        Value::List(items) => return items.iter().map(|item| item.as_text("each").map(str::to_owned)).collect(),
        Value::Map(entries) => entries,
    };
    if let Some(entry) = entries.iter().find(|entry| !KEYS.contains(&entry.key.as_ref())) {
        return Err(Fault::unknown_key(entry.at, &entry.key, "each", KEYS));
    }
    let find = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node);
    match (find("glob"), find("type"), find("lines")) {
        (Some(pattern), kind, None) => {
            let kind = match kind {
                None => expand::GlobKind::File,
                Some(kind) => {
                    let text = kind.as_text("each.type")?;
                    let named = expand::GlobKind::NAMES.into_iter().find(|(name, _)| *name == text);
                    named.ok_or_else(|| kind.refused("each.type", "file, dir or any"))?.1
                }
            };
            expand::glob_items(pattern, &base.folder, kind)
        }
        (None, None, Some(file)) => expand::line_items(file, &base.folder),
        (..) => Err(node.wrong_type("each", expected)),
    }
}

/// A range such as `1-1000`, both ends included.
fn range(node: &Node<'_>) -> Result<Array, Fault> {
    let refuse = || node.refused("array", &format!("a range of at most {} numbers, such as 1-1000,", Array::MAX));
    let text = node.as_text("array")?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| refuse());
    let (first, last) = text.split_once('-').ok_or_else(refuse)?;
    let (first, last) = (number(first)?, number(last)?);
    match last.checked_sub(first).and_then(|steps| steps.checked_add(1)) {
        Some(count @ 1..=Array::MAX) => Ok(Array::Range { first, count }),
        Some(_) | None => Err(refuse()),
    }
}
