//! What can be said about a task when it is submitted or run: options and their help texts. Types only.

use std::path::PathBuf;
use std::time::Duration;

use acode_worker::task::{Cleanup, ExitCodes, IfExists, Priority, Sandbox, TaskSignal};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::action_args::ActionOptions;
use super::container_args::ContainerOptions;
use super::limit_args::LimitOptions;
use super::values;
use super::worktree_args::WorktreeOptions;
use crate::wire::{Stamp, TaskRef};

/// `acode task submit`
#[derive(Debug, clap::Args)]
pub struct SubmitArgs {
    /// Queue the tasks of this file, YAML or JSON Lines; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "TaskOptions", "LimitOptions", "ContainerOptions", "WorktreeOptions", "ActionOptions"])]
    pub file: Option<PathBuf>,
    /// Do not wait while the queue is nearly full: fail with exit code 5
    #[arg(long, conflicts_with = "wait_for_room")]
    pub no_wait: bool,
    /// Wait so long while the queue is nearly full [default: queue.maxWaitSeconds; a file as long as tasks end]
    #[arg(long, value_name = "D", value_parser = values::duration)]
    pub wait_for_room: Option<Duration>,
    /// About the task.
    #[command(flatten)]
    pub options: TaskOptions,
    /// What it may use. Beside the other options and not within: clap makes no group of what has a group in it.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Where it runs.
    #[command(flatten)]
    pub container: ContainerOptions,
    /// Its git worktree, likewise.
    #[command(flatten)]
    pub worktree: WorktreeOptions,
    /// Its type, if it is no command.
    #[command(flatten)]
    pub action: ActionOptions,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, required_unless_present_any = ["file", "kind"], value_name = "CMD")]
    pub command: Vec<String>,
}

/// What can be said about a task.
#[derive(Debug, Default, clap::Args)]
pub struct TaskOptions {
    /// A name for people [default: the program's]
    #[arg(long)]
    pub name: Option<String>,
    /// How urgent it is [default: normal]
    #[arg(long, value_parser = priority_parser())]
    pub priority: Option<Priority>,
    /// End it after so long, as in 30s, 5m, 1h, 500ms, or a number of seconds
    #[arg(long, value_name = "D", value_parser = values::timeout)]
    pub timeout: Option<Duration>,
    /// Warn it by a signal so long before its timeout
    #[arg(long, value_name = "D", value_parser = values::timeout)]
    pub soft_timeout: Option<Duration>,
    /// Which signal that is, by name or number [default: USR1]
    #[arg(long, value_name = "SIG", requires = "soft_timeout")]
    pub soft_signal: Option<TaskSignal>,
    /// End it if it does not run so long after a worker has taken it
    #[arg(long, value_name = "D", value_parser = values::timeout)]
    pub start_timeout: Option<Duration>,
    /// Try again so many times if it fails
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
    /// Wait so long before the first retry
    #[arg(long, value_name = "D", value_parser = values::duration)]
    pub retry_delay: Option<Duration>,
    /// Wait so many times longer before each further one
    #[arg(long, value_name = "F", value_parser = values::factor)]
    pub retry_factor: Option<f64>,
    /// But never longer than this
    #[arg(long, value_name = "D", value_parser = values::duration)]
    pub retry_max_delay: Option<Duration>,
    /// How much of the delay is random, from 0 to 1
    #[arg(long, value_name = "J", value_parser = values::share)]
    pub retry_jitter: Option<f64>,
    /// Retry only these exit codes, as in 1,75, and no other end
    #[arg(long, value_name = "CODES", value_parser = values::codes, conflicts_with = "no_retry_on")]
    pub retry_on: Option<ExitCodes>,
    /// Never retry these exit codes
    #[arg(long, value_name = "CODES", value_parser = values::codes)]
    pub no_retry_on: Option<ExitCodes>,
    /// Quarantine it after so many crashes: workers lost, attempts out of memory
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_crashes: Option<u32>,
    /// Multiply its memory limit by this after each attempt that ran out of memory
    #[arg(long, value_name = "F", value_parser = values::factor)]
    pub oom_retry_factor: Option<f64>,
    /// Give it a directory that outlives its attempts, as $ACODE_CHECKPOINT
    #[arg(long)]
    pub checkpoint: bool,
    /// Remove its scratch directory after these ends only, and else keep it
    #[arg(long, value_name = "WHEN", value_parser = cleanup_parser())]
    pub cleanup: Option<Cleanup>,
    /// Keep the files that it leaves and that this means, as in out/**/*.png; may be given several times
    #[arg(long = "artifact", value_name = "GLOB")]
    pub artifacts: Vec<String>,
    /// Start it so much later at the earliest
    #[arg(long, value_name = "D", value_parser = values::duration)]
    pub delay: Option<Duration>,
    /// Start it at this time at the earliest, as in 2026-11-21T06:30:00Z, or in local time without the Z
    #[arg(long, value_name = "T", value_parser = values::moment)]
    pub not_before: Option<Stamp>,
    /// Cancel it if it has not started by this time, or within this duration
    #[arg(long, value_name = "T", value_parser = values::moment)]
    pub expires: Option<Stamp>,
    /// Do not start it before `acode task release`
    #[arg(long)]
    pub hold: bool,
    /// Its limit group
    #[arg(long, value_name = "G", conflicts_with = "limit_group")]
    pub group: Option<String>,
    /// Its limit group, of which at most N run at once from now on
    #[arg(long, value_name = "G=N", value_parser = values::limit)]
    pub limit_group: Option<(String, u32)>,
    /// Its working directory [default: an empty directory of its own]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set a variable of its environment; K alone copies it from here
    #[arg(long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Note a fact; the task sees it as $ACODE_META_K
    #[arg(long, value_name = "K=V", value_parser = values::pair)]
    pub meta: Vec<(String, String)>,
    /// A file for its standard input; - keeps what comes on standard input here
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// Restrict what it can reach, as in network=none,filesystem=read-only,devices=minimal,user=nobody
    #[arg(long, value_name = "K=V,...")]
    pub sandbox: Option<Sandbox>,
    /// Share the pool's job slots with make, cargo and ninja in it (GNU make's jobserver)
    #[arg(long)]
    pub jobserver: bool,
    /// Start when this task has completed; is cancelled if it does not
    #[arg(long, value_name = "TASK")]
    pub after: Vec<TaskRef>,
    /// Start when this task has ended, in whatever way
    #[arg(long, value_name = "TASK")]
    pub after_any: Vec<TaskRef>,
    /// Start when this task has ended without success
    #[arg(long, value_name = "TASK")]
    pub after_failed: Vec<TaskRef>,
    /// Make one task for each number from A to B; {item} stands for it
    #[arg(long, value_name = "A-B", value_parser = values::range)]
    pub array: Option<(u64, u64)>,
    /// Refuse it while another task with this key has not ended
    #[arg(long, value_name = "K")]
    pub key: Option<String>,
    /// What to do if there is one: refuse, or print the id of the existing task and add nothing [default: refuse]
    #[arg(long, value_name = "WHAT", requires = "key", value_parser = if_exists_parser())]
    pub if_exists: Option<IfExists>,
    /// Run this command as a task of its own when it has ended; split like a shell would, without running one
    #[arg(long, value_name = "CMD", value_parser = values::command)]
    pub on_finish: Option<values::CommandLine>,
}

fn priority_parser() -> impl TypedValueParser<Value = Priority> {
    PossibleValuesParser::new(Priority::ALL.map(Priority::name)).map(|name| {
        // The parser lets no other name through.
        Priority::ALL.into_iter().find(|priority| priority.name() == name).unwrap_or_default()
    })
}

fn cleanup_parser() -> impl TypedValueParser<Value = Cleanup> {
    PossibleValuesParser::new(Cleanup::ALL.map(Cleanup::name))
        .map(|name| Cleanup::ALL.into_iter().find(|when| when.name() == name).unwrap_or_default())
}

fn if_exists_parser() -> impl TypedValueParser<Value = IfExists> {
    PossibleValuesParser::new(IfExists::ALL.map(IfExists::name))
        .map(|name| IfExists::ALL.into_iter().find(|choice| choice.name() == name).unwrap_or_default())
}
