//! What can be typed: commands, options and their help texts. Types only; what they do is in one file per noun.
//!
//! Deliberately absent: reading the environment (configuration and directories do that themselves) and any default
//! that the configuration knows better.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use acode_worker::task::TaskState;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use super::action_args::ActionOptions;
use super::artifact_args::{ArtifactsArgs, FetchArgs};
use super::container_args::ContainerOptions;
use super::limit_args::LimitOptions;
pub use super::task_args::{SubmitArgs, TaskOptions};
use super::values::{self, GroupLimit, Place};
use super::worktree_args::{DiffArgs, WorktreeOptions};
use crate::config::Modes;
use crate::wire::{Stamp, TaskRef};

/// A durable task queue and worker pool for one machine.
#[derive(Debug, Parser)]
#[command(
    name = "acode",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Examples:
  acode worker start --detach              start a pool with a worker for each CPU
  acode task submit -- gzip -k big.log     queue a command; prints its id
  acode task wait --all                    wait until everything has ended
  acode run tasks.yaml                     a pool for just this file, in the foreground

Exit codes: 0 done; 1 what was asked for failed; 2 wrong usage or input; 3 no pool is running;
4 no such task; 5 the queue is full; 6 the state directory is held by another supervisor."
)]
pub struct Args {
    /// Where queue and logs are kept [default: $ACODE_STATE_DIR, else the user's state directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// `acode task submit` alone, with the options that stand everywhere.
///
/// Building the whole tree of commands costs more than everything else that a submission does on this side of the
/// socket, and this is the command that scripts call in loops.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct SubmitAlone {
    #[arg(long)]
    state_dir: Option<PathBuf>,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl Args {
    /// Takes apart what was typed; the first word is the program's name.
    ///
    /// # Errors
    /// What to print instead of doing anything: a mistake, or the help that was asked for.
    pub fn from_words(words: &[OsString]) -> Result<Self, clap::Error> {
        if words.get(1).is_some_and(|noun| noun == "task") && words.get(2).is_some_and(|verb| verb == "submit") {
            // Whatever this does not understand the whole tree explains.
            if let Ok(SubmitAlone { state_dir, json, submit }) = SubmitAlone::try_parse_from(&words[2..]) {
                return Ok(Self { state_dir, json, command: Command::Task(TaskCommand::Submit(Box::new(submit))) });
            }
        }
        Self::try_parse_from(words)
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start, watch, scale and stop the pool of workers
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Queue tasks, look at them, and wait for them
    #[command(subcommand)]
    Task(TaskCommand),
    /// Run a task file, or one command, in a pool for just this work
    Run(Box<RunArgs>),
    /// Show the output of all tasks, each line with its task's name
    Logs(LogsArgs),
    /// Show what happened, as JSON Lines
    Events(EventsArgs),
    /// Print what makes a shell complete these commands
    #[command(after_help = "Examples:
  acode completions bash >~/.local/share/bash-completion/completions/acode
  acode completions zsh >/usr/local/share/zsh/site-functions/_acode
  acode completions fish >~/.config/fish/completions/acode.fish")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    #[command(after_help = "Examples:
  acode man | man -l -
  acode man --dir ~/.local/share/man/man1")]
    Man {
        /// Write the pages of all commands into this directory, and print their paths
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Tell what this host offers, and what acode makes of it
    Doctor(DoctorArgs),
}

/// `acode worker`
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Start the pool
    #[command(
        after_help = "Without --detach it stays in the foreground, as a service manager wants it. TERM or INT lets \
running tasks finish, a second INT or QUIT does not; HUP reads the configuration again.

Examples:
  acode worker start --detach --count 8
  acode worker start --detach --mode process:4,docker:2
  acode worker start --config ./acode.yaml --state-dir ./state"
    )]
    Start(StartArgs),
    /// Show how the pool is
    Status,
    /// List the workers
    List,
    /// Show what the pool does and has done, as Prometheus text
    #[command(after_help = "With --json: the figures in one document. metrics.listen serves the text over HTTP.

Examples:
  acode worker metrics | grep acode_tasks
  acode worker metrics --json | jq .throughput")]
    Metrics,
    /// Change the number of workers
    #[command(
        after_help = "Fewer: idle workers stop first, busy ones finish their task. Where the number follows the \
load, this holds it until --auto.

Examples:
  acode worker scale 6
  acode worker scale --auto"
    )]
    Scale {
        /// How many workers there shall be
        #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..), required_unless_present = "auto")]
        count: Option<u32>,
        /// Let the load decide on the number again
        #[arg(long, conflicts_with = "count")]
        auto: bool,
    },
    /// Have the pool read its configuration again
    #[command(
        after_help = "Returns when that is done. A configuration that is wrong is refused, and the old one stays.

Example:
  acode worker reload"
    )]
    Reload,
    /// Start no further tasks, also after a restart of the pool; running ones go on
    #[command(after_help = "Example:
  acode worker pause --reason 'maintenance of the disks'")]
    Pause {
        /// Why, for people
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Start tasks again after a pause
    Resume,
    /// Check the health of all workers, and replace those that are not well
    #[command(after_help = "Exit code 1 if one was not well.

Example:
  acode worker check --json | jq '.[] | select(.healthy | not)'")]
    Check,
    /// Stop the pool
    #[command(
        after_help = "Running tasks get until the drain timeout to finish, then they are killed and queued again. \
What is queued stays queued for the next start.

Examples:
  acode worker stop --timeout 10
  acode worker stop --when-empty"
    )]
    Stop(StopArgs),
}

/// `acode worker start`
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// How many workers [default: workers.count, else the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Let the number of workers follow the load, with so many at the least
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub min: Option<u32>,
    /// Let the number of workers follow the load, with so many at the most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max: Option<u32>,
    /// How tasks are kept apart: process, docker, or both as in process:4,docker:2 [default: workers.mode]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Modes>,
    /// Return as soon as the pool accepts work, and leave it running
    #[arg(long)]
    pub detach: bool,
    /// The configuration file [default: $ACODE_CONFIG, ./acode.yaml, the user's, the system's]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The pool's name, for people
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
}

/// `acode worker stop`
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Kill running tasks now, and queue them again
    #[arg(long, conflicts_with_all = ["when_empty", "timeout"])]
    pub force: bool,
    /// How long running tasks may take to finish, in seconds, or as in 5m [default: the configured drain timeout]
    #[arg(long, value_name = "S", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// Run everything that is queued first
    #[arg(long)]
    pub when_empty: bool,
}

/// `acode task`
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Queue a command, or the tasks of a file
    #[command(
        after_help = "Prints the id of each task when it is safely on disk. Commands are never given to a shell; \
say `-- sh -c '...'` for one.

Examples:
  acode task submit -- convert in.png out.jpg
  acode task submit --name nightly --timeout 1h --retries 2 -- ./backup.sh
  acode task submit --array 1-100 -- ./render --frame {item}
  acode task submit --after 01K6A -- ./report.sh
  acode task submit --image debian:12 --mount /srv/data:ro -- sha256sum /srv/data/in
  acode task submit --key nightly --if-exists existing --on-finish 'notify-send backup' -- ./backup.sh
  generate-jobs | acode task submit --file -"
    )]
    Submit(Box<SubmitArgs>),
    /// List tasks, the newest first
    List(ListArgs),
    /// Show everything about a task
    Show {
        /// Its id, a beginning of it, its number, or its name
        id: TaskRef,
    },
    /// Show a task's output
    #[command(after_help = "Standard output goes to standard output, standard error to standard error.

Examples:
  acode task logs -f 42
  acode task logs --stderr 01K6A | less")]
    Logs(TaskLogsArgs),
    /// List the files that a task has left (--artifact)
    Artifacts(ArtifactsArgs),
    /// Copy the files that a task has left
    #[command(after_help = "Of an array: those of each member, into a directory of its number.

Examples:
  acode task fetch 42 ./results
  acode task fetch 42 ./results 'out/**/*.png'
  acode task fetch 42 - report.json | jq .")]
    Fetch(FetchArgs),
    /// Show what a task has changed in its git worktree, as a patch
    #[command(after_help = "A patch is kept by --keep-changes, and after the ends that cleanup.worktrees names.

Examples:
  acode task diff 42 | git apply
  acode task diff 42 --stat")]
    Diff(DiffArgs),
    /// Tell why a task stands where it does
    Why {
        /// Its id, a beginning of it, its number, or its name
        id: TaskRef,
    },
    /// Cancel tasks; running ones are ended
    Cancel {
        /// Their ids, beginnings of them, numbers, or names
        #[arg(required_unless_present = "group", conflicts_with = "group")]
        ids: Vec<TaskRef>,
        /// All of this limit group instead
        #[arg(long, value_name = "G")]
        group: Option<String>,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Leave those that run no time to end by themselves
        #[arg(long)]
        now: bool,
    },
    /// Stop running tasks where they are, until they are resumed
    #[command(after_help = "Their time does not run meanwhile; their memory stays in use.

Example:
  acode task suspend 42; acode task resume 42")]
    Suspend {
        /// Their ids, beginnings of them, or their numbers
        #[arg(required = true)]
        ids: Vec<TaskRef>,
    },
    /// Let suspended tasks go on
    Resume {
        /// Their ids, beginnings of them, or their numbers
        #[arg(required = true)]
        ids: Vec<TaskRef>,
    },
    /// Keep pending tasks from starting
    #[command(after_help = "A group is held as a whole: with what is submitted later.

Examples:
  acode task hold 41 42
  acode task hold --group encode")]
    Hold {
        /// Their ids, beginnings of them, or their numbers
        #[arg(required_unless_present = "group", conflicts_with = "group")]
        ids: Vec<TaskRef>,
        /// This limit group instead
        #[arg(long, value_name = "G")]
        group: Option<String>,
    },
    /// Let tasks start that were held
    Release {
        /// Their ids, beginnings of them, or their numbers
        #[arg(required_unless_present = "group", conflicts_with = "group")]
        ids: Vec<TaskRef>,
        /// This limit group instead, which was held as a whole
        #[arg(long, value_name = "G")]
        group: Option<String>,
    },
    /// List the limit groups, or change the limit of one
    #[command(after_help = "Examples:
  acode task group
  acode task group encode --limit 4
  acode task group encode --limit none")]
    Group {
        /// Only this one
        #[arg(required = false)]
        name: Option<String>,
        /// At most so many of it at once from now on, or none for no limit
        #[arg(long, value_name = "N", value_parser = values::group_limit, requires = "name")]
        limit: Option<GroupLimit>,
    },
    /// Queue tasks again that failed, timed out or were cancelled
    Retry {
        /// Their ids, beginnings of them, numbers, or names
        #[arg(required = true)]
        ids: Vec<TaskRef>,
    },
    /// Wait until tasks have ended; fails if one of them did not complete
    #[command(after_help = "Examples:
  acode task wait 41 42
  acode task wait \"$(acode task submit -- make)\" && echo built")]
    Wait {
        /// Their ids, beginnings of them, numbers, or names
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<TaskRef>,
        /// Wait for all that are in the queue, and all that come meanwhile
        #[arg(long)]
        all: bool,
        /// Draw no progress on the terminal
        #[arg(long)]
        no_progress: bool,
    },
    /// Remove tasks that have ended, with their output
    #[command(after_help = "Without an option all tasks that have ended are removed.

Example:
  acode task prune --older-than 7d")]
    Prune {
        /// Only those that ended so long ago, as in 12h or 7d
        #[arg(long, value_name = "D", value_parser = values::duration)]
        older_than: Option<Duration>,
        /// Keep so many of the newest
        #[arg(long, value_name = "N")]
        keep: Option<u64>,
    },
}

/// `acode task list`
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only tasks in this state; may be given several times
    #[arg(long, value_name = "S", value_delimiter = ',', value_parser = state_parser())]
    pub state: Vec<TaskState>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
}

/// `acode task logs`
#[derive(Debug, clap::Args)]
pub struct TaskLogsArgs {
    /// Go on until the task has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Only standard error, on standard output
    #[arg(long)]
    pub stderr: bool,
    /// Its id, a beginning of it, its number, or its name
    pub id: TaskRef,
}

/// `acode logs`
#[derive(Debug, clap::Args)]
#[command(after_help = "A line of standard output is shown as `name#number | line`, one of standard error as
`name#number ! line`. With -f only what comes from now on is shown, unless --since says otherwise.

Examples:
  acode logs -f
  acode logs --since 10m | grep warning")]
pub struct LogsArgs {
    /// Go on with what is to come
    #[arg(short, long)]
    pub follow: bool,
    /// Only standard error
    #[arg(long)]
    pub stderr: bool,
    /// From this time on: RFC 3339, or so long ago, as in 10m
    #[arg(long, value_name = "T", value_parser = values::since)]
    pub since: Option<Stamp>,
}

/// `acode doctor`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs no pool and changes nothing. Exit code 0 if all that the configuration asks for can be had, \
else 1.

Examples:
  acode doctor
  acode doctor --json | jq '.checks[] | select(.verdict != \"ok\")'"
)]
pub struct DoctorArgs {
    /// The configuration file [default: $ACODE_CONFIG, ./acode.yaml, the user's, the system's]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `acode events`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  acode events --follow
  acode events --follow --since 1042
  acode events --since 1h | jq 'select(.event == \"task-failed\")'")]
pub struct EventsArgs {
    /// Go on with those to come, also when the pool is started anew
    #[arg(short, long)]
    pub follow: bool,
    /// After the event with this number, or from this time on: RFC 3339, or so long ago, as in 10m
    #[arg(long, value_name = "SEQ|T", value_parser = values::place)]
    pub since: Option<Place>,
    /// End when the connection breaks or the pool stops
    #[arg(long, requires = "follow")]
    pub no_reconnect: bool,
}

/// `acode run`
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "acode run [OPTIONS] <FILE>\n       acode run [OPTIONS] -- <CMD> [ARG]...",
    after_help = "With a file: shows progress, ends with a summary, and exits with 0 only if all tasks completed.
With a command: the command's own output and exit code.

Examples:
  acode run tasks.yaml
  acode run --timeout 10m --retries 2 -- ./flaky-test.sh"
)]
pub struct RunArgs {
    /// How many workers [default: workers.count, else the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// The configuration file [default: $ACODE_CONFIG, ./acode.yaml, the user's, the system's]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Draw no progress on the terminal
    #[arg(long)]
    pub no_progress: bool,
    /// A task file, YAML or JSON Lines; - is standard input
    #[arg(value_name = "FILE", conflicts_with_all = ["command", "TaskOptions", "LimitOptions", "ContainerOptions", "WorktreeOptions", "ActionOptions"])]
    pub file: Option<PathBuf>,
    /// About the command.
    #[command(flatten)]
    pub options: TaskOptions,
    /// What it may use.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Where it runs.
    #[command(flatten)]
    pub container: ContainerOptions,
    /// Its git worktree.
    #[command(flatten)]
    pub worktree: WorktreeOptions,
    /// Its type, if it is no command.
    #[command(flatten)]
    pub action: ActionOptions,
    /// The program and its arguments
    #[arg(last = true, required_unless_present_any = ["file", "kind"], value_name = "CMD")]
    pub command: Vec<String>,
}

fn state_parser() -> impl TypedValueParser<Value = TaskState> {
    PossibleValuesParser::new(TaskState::ALL.map(TaskState::name))
        .map(|name| TaskState::ALL.into_iter().find(|state| state.name() == name).unwrap_or(TaskState::Pending))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let (short, whole) = (Args::from_words(&words), Args::try_parse_from(&words));
        let text =
            |args: &Result<Args, clap::Error>| args.as_ref().map(|a| format!("{a:?}")).map_err(|e| e.to_string());
        assert_eq!(text(&short), text(&whole), "the short way gives what the whole tree gives");
        short
    }

    #[test]
    fn the_commands_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_command_may_have_options_of_its_own_and_ours_come_before() {
        for line in ["acode task submit --name n -- ls -l --json", "acode task submit --name n ls -l --json"] {
            let args = parse(line).unwrap();
            let Command::Task(TaskCommand::Submit(submit)) = args.command else { panic!("{line}") };
            assert_eq!((submit.options.name.as_deref(), args.json), (Some("n"), false));
            assert_eq!(submit.command, ["ls", "-l", "--json"]);
        }
        assert!(parse("acode task submit --nmae n ls").is_err(), "a typing error is no command");
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for line in [
            "acode task submit",
            "acode task submit --file f -- ls",
            "acode task submit --file f --name n",
            "acode task wait",
            "acode task wait 1 --all",
            "acode worker stop --force --when-empty",
            "acode worker scale 0",
            "acode worker scale",
            "acode worker scale 2 --auto",
            "acode worker start --mode vm",
            "acode run",
            "acode run f -- ls",
            "acode run f --name n",
            "acode task list --state done",
            "acode task show name:",
            "acode task submit --if-exists existing -- ls",
            "acode task submit --key k --if-exists maybe -- ls",
        ] {
            let error = parse(line).map(|args| panic!("{line}: {args:?}")).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn states_may_be_given_in_one_word_or_several() {
        for line in ["acode task list --state failed,timeout", "acode task list --state failed --state timeout"] {
            let Command::Task(TaskCommand::List(list)) = parse(line).unwrap().command else { panic!("{line}") };
            assert_eq!(list.state, [TaskState::Failed, TaskState::Timeout]);
        }
    }

    #[test]
    fn flags_for_all_commands_may_stand_anywhere() {
        assert!(parse("acode --json task list").unwrap().json);
        assert!(parse("acode task list --json --state-dir d").unwrap().state_dir.is_some());
    }
}
