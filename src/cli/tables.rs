//! What the records look like as text. Pure.

use std::fmt::Write;

use acode_worker::task::{Artifacts, Isolation};

use crate::wire::types::{
    AttemptRecord, CheckRecord, GroupRecord, PoolState, ScalingMode, StatusRecord, TaskRecord, WorkerRecord,
};
use crate::wire::{LiveRecord, Rung, Stamp, UsageRecord};

use super::doctor::limits;
use super::render::{Align, Table, bytes, marked, plain, span};
use super::{container, engine};

/// `acode worker status`: the form that the specification of the worker pool shows.
pub fn status(status: &StatusRecord, workers: &[WorkerRecord]) -> String {
    let mut text = String::from("Worker Pool Status\n==================\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "Mode: {}", engine::mode(status));
    if let Some(docker) = &status.docker {
        let _ = writeln!(text, "Docker: {}", engine::words(docker));
    }
    if status.pool.state != PoolState::Running {
        let _ = match &status.pool.paused {
            Some(paused) => writeln!(text, "State: {} ({})", status.pool.state, plain(&paused.why)),
            None => writeln!(text, "State: {}", status.pool.state),
        };
    }
    let _ = writeln!(text, "Active: {}", status.workers.active);
    let counts = &status.workers;
    let _ = match counts.scaling {
        ScalingMode::Auto => {
            writeln!(text, "Scaling: by load, {} to {}, now {}", counts.min, counts.max, counts.target)
        }
        ScalingMode::Manual => writeln!(text, "Scaling: held at {}", counts.target),
        ScalingMode::Off => Ok(()),
    };
    for worker in workers {
        // Where all are of one mode it is said above.
        let mode = if engine::is_mixed(status) { format!(", {}", plain(&worker.mode)) } else { String::new() };
        let _ = match worker.current_task {
            Some(task) => writeln!(text, "  - worker-{}: {}{mode} (task {task})", worker.id, worker.status),
            None => writeln!(text, "  - worker-{}: {}{mode}", worker.id, worker.status),
        };
        if let Some(now) = &worker.usage_now {
            let _ = writeln!(text, "      {}", using(now));
        }
    }
    let running = status.tasks.running + status.tasks.assigned;
    let _ = writeln!(text, "\nQueue: {} pending, {running} running", status.tasks.pending);
    if let Some(pressed) = &status.queue.backpressure {
        let _ = writeln!(text, "Backpressure: {}", plain(&pressed.why));
    }
    if let Some(problem) = &status.queue.problem {
        let _ = writeln!(text, "Problem: {}", plain(problem));
    }
    if let Some(cgroup) = &status.cgroup {
        let with =
            if cgroup.controllers.is_empty() { "no controllers".to_owned() } else { cgroup.controllers.join(" ") };
        let why = cgroup.why.as_ref().map(|why| format!(" ({})", plain(why))).unwrap_or_default();
        let _ = match cgroup.rung {
            Rung::Delegated | Rung::Core => writeln!(text, "Cgroup: {}, {with}{why}", cgroup.rung.name()),
            Rung::None => writeln!(text, "Cgroup: none{why}"),
        };
        let held: Vec<_> =
            cgroup.limits.iter().filter(|held| held.hold == acode_worker::task::Hold::Enforced).collect();
        if !held.is_empty() {
            let limits: Vec<String> = held.iter().map(|held| format!("{} {}", held.limit, held.value)).collect();
            let _ = writeln!(text, "All tasks: at most {}", limits.join(", "));
        }
    }
    let (cpu, memory) = (status.resources.cpu_percent, bytes(status.resources.memory_bytes));
    let _ = write!(text, "Resources: CPU {cpu:.0}%, Memory {memory}");
    if let Some(address) = &status.metrics_listen {
        let _ = write!(text, "\nMetrics: http://{address}/metrics");
    }
    text
}

/// `acode worker list`
pub fn workers(workers: &[WorkerRecord], now: Stamp) -> Table {
    let mut table = Table::new([
        ("ID", Align::Left),
        ("PID", Align::Right),
        ("STATUS", Align::Left),
        ("MODE", Align::Left),
        ("TASK", Align::Left),
        ("AGE", Align::Right),
        ("HEARTBEAT", Align::Right),
        ("DONE", Align::Right),
        ("FAILED", Align::Right),
    ]);
    for worker in workers {
        table.row([
            worker.id.to_string(),
            worker.pid.to_string(),
            worker.status.to_string(),
            worker.mode.clone(),
            worker.current_task.map_or_else(|| "-".to_owned(), |task| task.to_string()),
            ago(Some(worker.started_at), now),
            ago(worker.last_heartbeat_at, now),
            worker.tasks_completed.to_string(),
            worker.tasks_failed.to_string(),
        ]);
    }
    table
}

/// `acode worker check`
pub fn checks(workers: &[CheckRecord]) -> Table {
    let mut table = Table::new([
        ("ID", Align::Left),
        ("PID", Align::Right),
        ("STATUS", Align::Left),
        ("HEALTHY", Align::Left),
        ("ANSWERED", Align::Right),
        ("MEMORY", Align::Right),
        ("TASK", Align::Left),
        ("PROBLEM", Align::Left),
    ]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for worker in workers {
        table.row([
            worker.id.to_string(),
            worker.pid.to_string(),
            worker.status.to_string(),
            if worker.healthy { "yes" } else { "no" }.to_owned(),
            or_dash(worker.answered_in_us.map(|us| span(i64::try_from(us).unwrap_or(i64::MAX)))),
            or_dash(worker.memory_bytes.map(bytes)),
            or_dash(worker.current_task.map(|task| task.to_string())),
            or_dash(worker.problem.clone()),
        ]);
    }
    table
}

/// The column of what tasks ask for, which is there only if one does.
const ISOLATION: &str = "ISOLATION";

/// `acode task list`
pub fn tasks(tasks: &[TaskRecord], now: Stamp) -> Table {
    let mut table = Table::new([
        ("#", Align::Right),
        ("ID", Align::Left),
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("PROGRESS", Align::Right),
        ("PRIORITY", Align::Left),
        (ISOLATION, Align::Left),
        ("AGE", Align::Right),
        ("TOOK", Align::Right),
        ("RESULT", Align::Left),
    ]);
    for task in tasks {
        table.row([
            task.number.to_string(),
            task.id.to_string(),
            task.name.clone(),
            task.state.to_string(),
            percent(task).map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
            task.priority.to_string(),
            task.isolation.map_or_else(|| "-".to_owned(), |isolation| isolation.to_string()),
            ago(Some(task.submitted_at), now),
            took(task.started_at, task.finished_at),
            outcome(task),
        ]);
    }
    if tasks.iter().all(|task| task.isolation.is_none()) {
        table.leave_out(ISOLATION);
    }
    table
}

/// How far it is, by its own word; an array by its members.
fn percent(task: &TaskRecord) -> Option<u64> {
    match &task.array {
        Some(array) => Some(array.members.ended().saturating_mul(100) / array.count.max(1)),
        None => task.progress.as_ref().map(|progress| u64::from(progress.percent)),
    }
}

/// So much of a hundred as a bar of text.
fn bar(percent: u64) -> String {
    const WIDTH: usize = 20;
    let done = usize::try_from(percent.min(100)).unwrap_or(0) * WIDTH / 100;
    format!("[{}{}] ", "#".repeat(done), "-".repeat(WIDTH - done))
}

/// `acode task group`
pub fn groups(groups: &[GroupRecord]) -> Table {
    let mut table = Table::new([
        ("GROUP", Align::Left),
        ("LIMIT", Align::Right),
        ("RUNNING", Align::Right),
        ("WAITING", Align::Right),
        ("HELD SINCE", Align::Left),
    ]);
    for group in groups {
        table.row([
            group.name.clone(),
            group.limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
            group.running.to_string(),
            group.waiting.to_string(),
            group.held_since.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        ]);
    }
    table
}

/// In a word or two: how it came out, what it says, or what it waits for.
fn outcome(task: &TaskRecord) -> String {
    if let Some(array) = &task.array {
        let bad = array.members.unsuccessful();
        let failed = if bad > 0 { format!(", {bad} without success") } else { String::new() };
        return format!("{} of {} ended{failed}", array.members.ended(), array.count);
    }
    match (&task.waiting, &task.progress, &task.verdict) {
        (Some(waiting), _, _) => waiting.to_string(),
        (None, None, _) if !task.state.is_final() && task.usage_now.is_some() => {
            task.usage_now.as_ref().map(using).unwrap_or_default()
        }
        (None, Some(progress), _) if !task.state.is_final() => progress.message.clone().unwrap_or_default(),
        (None, _, Some(verdict)) => ending(verdict, task.exit_code, task.signal),
        (None, _, None) => String::new(),
    }
}

/// How an attempt ended, in a word or two.
pub(super) fn ending(verdict: &str, exit_code: Option<i32>, signal: Option<i32>) -> String {
    match (exit_code, signal) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("unknown signal", |signal| signal.as_str());
            format!("killed by {name}")
        }
        (None, None) => verdict.to_owned(),
    }
}

/// One line of a task's record.
fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<10} {}", marked(value));
}

/// What a task is, and where it stands.
fn identity(task: &TaskRecord) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| line(&mut text, name, value);
    field("Task", &task.id.to_string());
    field("Number", &task.number.to_string());
    field("Name", &task.name);
    if !task.command.is_empty() {
        field("Command", &command(&task.command));
    }
    for (name, value) in task.action.iter().flat_map(super::action::fields) {
        field(name, &value.replace('\n', "\n           "));
    }
    if let Some(cwd) = &task.cwd {
        field("In", cwd);
    }
    if let Some(isolation) = task.isolation {
        field("Isolation", isolation.name());
    }
    if let Some(container) = task.docker.as_ref().map(container::words).filter(|words| !words.is_empty()) {
        field("Container", &container);
    }
    if let Some(worktree) = &task.worktree {
        let reference = worktree.reference.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        field("Worktree", &format!("{} at {}{reference}", worktree.repo, worktree.commit));
    }
    match task.suspended_at {
        Some(since) => field("State", &format!("{}, suspended since {since}", task.state)),
        None => field("State", task.state.name()),
    }
    match task.present_priority {
        Some(present) => field("Priority", &format!("{} ({present} by waiting)", task.priority)),
        None => field("Priority", task.priority.name()),
    }
    if let Some(group) = &task.group {
        field("Group", group);
    }
    if let Some(at) = &task.expires_at {
        field("Expires", &at.to_string());
    }
    if let Some(member) = &task.member {
        field("Member", &format!("{} of {}: {}", member.index, member.of, member.item));
    }
    if let Some(key) = &task.key {
        field("Key", key);
    }
    if let Some(of) = &task.hook_of {
        field("Hook of", &of.to_string());
    }
    for hook in task.hooks.iter().flatten() {
        field("Hook", &hook.to_string());
    }
    if let Some(array) = &task.array {
        field("Members", &array.count.to_string());
    }
    text
}

/// `acode task show`; `drawn` says whether a bar may be drawn.
pub fn task(task: &TaskRecord, drawn: bool) -> String {
    let mut text = identity(task);
    let mut field = |name: &str, value: &str| line(&mut text, name, value);
    let outcome = outcome(task);
    if !outcome.is_empty() {
        field("Result", &outcome);
    }
    if let Some(percent) = percent(task) {
        let message = task.progress.as_ref().and_then(|progress| progress.message.as_deref());
        let message = message.map(|text| format!(" {text}")).unwrap_or_default();
        let bar = if drawn { bar(percent) } else { String::new() };
        field("Progress", &format!("{bar}{percent}%{message}"));
    }
    if let Some(error) = &task.error {
        field("Error", error);
    }
    if task.crash_count > 0 {
        field("Crashes", &format!("{}, {} of them out of memory", task.crash_count, task.oom_count));
    }
    if let Some(result) = &task.result {
        field("Returned", result.get());
    }
    for (key, value) in &task.meta {
        field("Meta", &format!("{key}={value}"));
    }
    field("Submitted", &task.submitted_at.to_string());
    for (name, at) in [("Started", task.started_at), ("Finished", task.finished_at)] {
        if let Some(at) = at {
            field(name, &at.to_string());
        }
    }
    let cut = if task.output.truncated { ", cut off" } else { "" };
    let (stdout, stderr) = (bytes(task.output.stdout_bytes), bytes(task.output.stderr_bytes));
    field("Output", &format!("{stdout} out, {stderr} err{cut}"));
    if let Some(now) = &task.usage_now {
        line(&mut text, "Uses", &using(now));
    }
    match task.attempts.as_deref() {
        Some(list @ [.., last]) => {
            aftermath(&mut text, last);
            let held = if last.limits.is_empty() { String::new() } else { format!("\n\n{}", limits(&last.limits)) };
            format!("{text}\n{}{held}", attempts(list))
        }
        Some([]) | None => text.trim_end().to_owned(),
    }
}

/// What a running attempt uses, in a few words.
fn using(now: &LiveRecord) -> String {
    let processes = if now.pids == 1 { "process" } else { "processes" };
    let disk = now.disk_bytes.map(|count| format!(", {} disk", bytes(count))).unwrap_or_default();
    format!("{} CPU, {}, {} {processes}{disk}", cpu(now.cpu_us), bytes(now.memory_bytes), now.pids)
}

fn cpu(micros: u64) -> String {
    span(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// What an ended attempt used beyond time and memory, as far as it is known.
fn used(usage: &UsageRecord) -> String {
    let parts = [
        usage.throttled_us.filter(|us| *us > 0).map(|us| format!("throttled for {}", cpu(us))),
        usage.oom_kills.filter(|kills| *kills > 0).map(|kills| format!("{kills} killed for memory")),
        usage.peak_pids.map(|pids| format!("{pids} processes at most")),
        usage.peak_disk_bytes.map(|count| format!("{} disk at most", bytes(count))),
        (usage.read_bytes > 0).then(|| format!("{} read", bytes(usage.read_bytes))),
        (usage.written_bytes > 0).then(|| format!("{} written", bytes(usage.written_bytes))),
        Some(format!("counted by {}", usage.source.name())),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What was kept of an attempt's files.
fn left(artifacts: &Artifacts) -> String {
    let omitted = artifacts.omitted.as_deref().map(|what| format!("; not kept: {what}")).unwrap_or_default();
    let word = if artifacts.files == 1 { "file" } else { "files" };
    format!("{} {word}, {}{omitted}", artifacts.files, bytes(artifacts.bytes))
}

/// What there is to say about the last attempt beyond its row in the table.
fn aftermath(text: &mut String, last: &AttemptRecord) {
    if let Some(usage) = &last.usage {
        line(text, "Used", &used(usage));
    }
    if let Some(kept) = &last.kept {
        line(text, "Kept", kept);
    }
    if let Some(artifacts) = last.artifacts.as_ref().filter(|kept| kept.files > 0 || kept.omitted.is_some()) {
        line(text, "Artefacts", &left(artifacts));
    }
    if let Some(size) = last.artifacts.as_ref().and_then(|artifacts| artifacts.patch_bytes) {
        line(text, "Changes", &format!("a patch of {} (acode task diff)", bytes(size)));
    }
    match &last.sandbox {
        Some(serde_json::Value::Array(held)) => {
            let held: Vec<String> =
                held.iter().map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect();
            line(text, "Sandbox", &held.join(", "));
        }
        Some(held) => line(text, "Sandbox", &held.to_string()),
        None => {}
    }
}

fn attempts(attempts: &[AttemptRecord]) -> Table {
    let mixed = attempts.iter().any(|attempt| attempt.isolation == Some(Isolation::Docker));
    let mut table = Table::new([
        ("ATTEMPT", Align::Right),
        ("WORKER", Align::Left),
        ("RESULT", Align::Left),
        ("TOOK", Align::Right),
        ("CPU", Align::Right),
        ("MEMORY", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for attempt in attempts {
        let verdict = attempt.verdict.as_deref().unwrap_or("running");
        let usage = attempt.usage;
        let leaked = attempt.leaked.then(|| "left processes running".to_owned());
        let place = container::place(attempt, mixed).map(str::to_owned);
        let notes: Vec<String> = [attempt.reason.clone(), place, leaked].into_iter().flatten().collect();
        table.row([
            attempt.number.to_string(),
            attempt.worker.to_string(),
            ending(verdict, attempt.exit_code, attempt.signal),
            took(attempt.started_at, attempt.finished_at),
            usage.map_or_else(|| "-".to_owned(), |usage| cpu(usage.cpu_us())),
            usage.map_or_else(|| "-".to_owned(), |usage| bytes(usage.memory_bytes())),
            notes.join("; "),
        ]);
    }
    table
}

/// The command as a shell would take it.
fn command(words: &[String]) -> String {
    let bare =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,+@%{}".contains(c));
    let quote = |word: &String| if bare(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

fn ago(at: Option<Stamp>, now: Stamp) -> String {
    at.map_or_else(|| "-".to_owned(), |at| span(now.micros().saturating_sub(at.micros())))
}

fn took(started: Option<Stamp>, finished: Option<Stamp>) -> String {
    match (started, finished) {
        (Some(started), Some(finished)) => span(finished.micros().saturating_sub(started.micros())),
        (Some(_), None) | (None, _) => "-".to_owned(),
    }
}

#[cfg(test)]
#[path = "tests/tables.rs"]
mod tests;
