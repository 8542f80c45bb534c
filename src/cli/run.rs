//! `acode run`: a task file, or one command, in a pool for just this work.
//!
//! The pool itself and the watching of it are in `foreground.rs`.

use std::time::Duration;

use acode_worker::task::{Class, Submission, TaskId};

use super::args::RunArgs;
use super::foreground::{Ended, PrivatePool, watch};
use super::progress::Board;
use super::render::{Out, plain};
use super::task::CheckedFile;
use super::{CliError, Context, Exit, submission};
use crate::api::{ApiError, Door, RoomWait};
use crate::config::{self, Config, Overrides};
use crate::rundir::Dirs;
use crate::wire::Client;
use crate::wire::request::{Show, Status, Wait};
use crate::wire::types::TaskRecord;

/// What shells add to a signal's number for the exit code of the command that it killed.
const SIGNALLED: i32 = 128;
/// What shells say of a command that cannot be started.
const NOT_STARTED: u8 = 127;
/// What timeout(1) says of a command that it ended.
const TIMED_OUT: u8 = 124;

/// Runs them and waits for them.
///
/// # Errors
/// The file is wrong, or the pool does not start.
pub fn run(context: &Context, args: RunArgs) -> Result<Exit, CliError> {
    // A broken file is told before there is a pool.
    let file = args.file.as_deref().map(CheckedFile::open).transpose()?;
    let overrides = Overrides { count: args.count, ..Overrides::default() };
    let mut config = config::load(args.config.as_deref(), &context.vars, &overrides)?.config;
    // That place is the lasting pool's; this one would only find it taken.
    config.metrics.listen = None;
    serve(&mut config, file.as_ref().map(CheckedFile::classes), &args);
    let mut hooked = !config.tasks.on_finish.is_empty();
    let (dirs, folder) = place(context)?;
    let started = PrivatePool::start(dirs.clone(), folder, config);
    let pool = started.map_err(ApiError::Process)?.map_err(CliError::Told)?;
    let mut door = Door::Pool(Client::connect(&pool.socket())?);
    let mut ids = Vec::new();
    let mut leaves = !args.options.artifacts.is_empty();
    let single = file.is_none();
    match &file {
        Some(file) => {
            let asks = |task: &Submission| !task.spec.on_finish.is_empty();
            let tasks = file.read()?.inspect(|task| {
                hooked |= task.as_ref().is_ok_and(asks);
                leaves |= task.as_ref().is_ok_and(|task| !task.spec.artifacts.is_empty());
            });
            door.submit_all::<_, CliError>(tasks, RoomWait::Usual, super::tell_full, |accepted| {
                ids.extend_from_slice(accepted)
            })?;
        }
        None => {
            let inner = Context { dirs, own_state: None, vars: context.vars.clone(), json: context.json };
            hooked |= args.options.on_finish.is_some();
            let task: Result<Submission, CliError> = submission::build(
                &inner,
                &mut door,
                args.options,
                submission::Asked {
                    limits: &args.limits,
                    container: &args.container,
                    worktree: &args.worktree,
                    action: &args.action,
                },
                args.command,
            );
            door.submit_all::<_, CliError>(std::iter::once(task), RoomWait::Usual, super::tell_full, |accepted| {
                ids.extend_from_slice(accepted)
            })?;
        }
    }
    if ids.is_empty() {
        eprintln!("acode: there is no task in the file");
        return Ok(Exit::Done);
    }
    if leaves && context.own_state.is_none() {
        eprintln!("acode: artefacts go with this pool when it ends: --state-dir DIR keeps them");
    }
    let paused = door.call(&Status {})?.status.pool.paused;
    let notice = paused.map(|paused| format!("no task is started for now: {}", plain(&paused.why)));
    let single = single && !is_array(&mut door, &ids)?;
    let drawn = !single && !context.json && !args.no_progress;
    let ended = watch(&pool, &ids, single, context.json, notice, &Board::new(drawn))?;
    if hooked && ended.interrupted.is_none() {
        // Whose ends they tell is over, and so would be the pool: they take a bounded time.
        door.call(&Wait { ids: Vec::new(), all: true })?;
    }
    if let (true, [id], None) = (single, ids.as_slice(), ended.interrupted) {
        let task = door.call(&Show { id: (*id).into() })?.task;
        return Ok(Exit::Code(exit_code(&task)));
    }
    summary(context, &ended)
}

/// Sees to it that there are workers for the tasks: nobody else will come and start them. A file has `classes`.
fn serve(config: &mut Config, classes: Option<&[Class]>, args: &RunArgs) {
    let hooked = !config.tasks.on_finish.is_empty() || args.options.on_finish.is_some();
    let mut classes = classes.map_or_else(|| vec![args.container.class()], <[Class]>::to_vec);
    classes.extend(hooked.then_some(Class::Any));
    let workers = &mut config.workers;
    workers.mode = workers.mode.serving(&classes, workers.count);
    if let Some(total) = workers.mode.total() {
        workers.max_count = workers.max_count.max(total);
        workers.count = total;
    }
    let scaling = &mut workers.scaling;
    scaling.min_count = scaling.min_count.max(workers.mode.kinds());
    scaling.max_count = scaling.max_count.max(scaling.min_count);
}

fn is_array(door: &mut Door, ids: &[TaskId]) -> Result<bool, CliError> {
    match ids {
        [id] => Ok(door.call(&Show { id: (*id).into() })?.task.array.is_some()),
        _ => Ok(false),
    }
}

/// The state directory that was named, or one that goes with the pool.
fn place(context: &Context) -> Result<(Dirs, Option<tempfile::TempDir>), CliError> {
    if context.own_state.is_some() {
        return Ok((context.dirs.clone(), None));
    }
    let folder = tempfile::Builder::new().prefix("acode-run-").tempdir();
    let folder = folder.map_err(|source| CliError::File { doing: "make a directory for the pool".into(), source })?;
    let dirs = Dirs::find(Some(folder.path()), &context.vars)?;
    Ok((dirs, Some(folder)))
}

/// The command's own exit code, or what a shell would make of its end.
fn exit_code(task: &TaskRecord) -> u8 {
    match (task.exit_code, task.signal, task.verdict.as_deref()) {
        (Some(code), _, _) => u8::try_from(code).unwrap_or(1),
        (None, Some(signal), _) => u8::try_from(SIGNALLED + signal).unwrap_or(1),
        (None, None, verdict) => {
            let why = task.error.as_deref().or(verdict).unwrap_or("it did not run");
            eprintln!("acode: {}: {why}", task.name);
            match verdict {
                Some("not-started") => NOT_STARTED,
                Some("timed-out") => TIMED_OUT,
                Some(_) | None => 1,
            }
        }
    }
}

fn summary(context: &Context, ended: &Ended) -> Result<Exit, CliError> {
    let counts = &ended.counts;
    if context.json {
        let mut out = Out::new();
        out.answer(&serde_json::json!({
            "tasks": counts,
            "unsuccessful": ended.unsuccessful,
            "seconds": ended.took.as_secs_f64(),
            "interrupted": ended.interrupted,
        }))?;
        out.finish()?;
    } else {
        eprintln!("{}", sentence(ended));
    }
    Ok(match ended.interrupted {
        Some(signal) => Exit::Code(u8::try_from(SIGNALLED + signal).unwrap_or(1)),
        None if counts.completed == counts.total() => Exit::Done,
        None => Exit::Failed,
    })
}

fn sentence(ended: &Ended) -> String {
    let counts = &ended.counts;
    let mut parts = vec![format!("{} of {} tasks completed", counts.completed, counts.total())];
    let rest = counts.pending + counts.assigned + counts.running;
    for (count, word) in
        [(counts.failed, "failed"), (counts.timeout, "timed out"), (counts.cancelled, "cancelled"), (rest, "left")]
    {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    format!("acode: {} in {}", parts.join(", "), seconds(ended.took))
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
