//! `acode run`: a task file, or one command, in a pool for just this work.
//!
//! The pool itself and the watching of it are in `foreground.rs`, what is said of the end in `report.rs`.

use acode_worker::task::{Class, Submission, TaskId};

use super::args::RunArgs;
use super::foreground::{PrivatePool, Shown, watch};
use super::progress::Board;
use super::render::plain;
use super::task::CheckedFile;
use super::{CliError, Context, Exit, report, submission};
use crate::api::{ApiError, Door, RoomWait};
use crate::config::{self, Config, Overrides};
use crate::rundir::Dirs;
use crate::wire::Client;
use crate::wire::request::{Show, Status, Wait};

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
    let hooked = !config.tasks.on_finish.is_empty();
    let (dirs, folder) = place(context)?;
    let started = PrivatePool::start(dirs.clone(), folder, config);
    let pool = started.map_err(ApiError::Process)?.map_err(CliError::Told)?;
    let mut door = Door::Pool(Client::connect(&pool.socket())?);
    let no_progress = args.no_progress;
    let single = file.is_none();
    // An action says what it has to say by its result and its error.
    let answers = single && args.action.kind.is_some() && args.command.is_empty();
    let Sent { ids, hooked: own_hooks, leaves } = match &file {
        Some(file) => send_file(&mut door, file)?,
        None => {
            let inner = Context { dirs, own_state: None, vars: context.vars.clone(), json: context.json };
            send_one(&inner, &mut door, args)?
        }
    };
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
    let shown = match (single, context.json) {
        (true, true) if answers => Shown::Aside,
        (true, _) => Shown::Command,
        (false, true) => Shown::Nothing,
        (false, false) => Shown::Many,
    };
    let board = Board::new(shown == Shown::Many && !no_progress);
    let ended = watch(&pool, &ids, shown, notice, &board)?;
    if (hooked || own_hooks) && ended.interrupted.is_none() {
        // Whose ends they tell is over, and so would be the pool: they take a bounded time.
        door.call(&Wait { ids: Vec::new(), all: true })?;
    }
    if let (true, [id], None) = (single, ids.as_slice(), ended.interrupted) {
        let task = door.call(&Show { id: (*id).into() })?.task;
        return report::one(context, &task, answers);
    }
    report::all(context, &mut door, &ended)
}

/// What was submitted.
#[derive(Default)]
struct Sent {
    ids: Vec<TaskId>,
    /// Whether a task has a finish hook of its own.
    hooked: bool,
    /// Whether a task leaves artefacts.
    leaves: bool,
}

impl Sent {
    fn note(&mut self, task: &Submission) {
        self.hooked |= !task.spec.on_finish.is_empty();
        self.leaves |= !task.spec.artifacts.is_empty();
    }
}

fn send_file(door: &mut Door, file: &CheckedFile) -> Result<Sent, CliError> {
    let (mut sent, mut ids) = (Sent::default(), Vec::new());
    let tasks = file.read()?.inspect(|task| task.iter().for_each(|task| sent.note(task)));
    let accepted = |accepted: &[TaskId]| ids.extend_from_slice(accepted);
    let done = door.submit_all::<_, CliError>(tasks, RoomWait::Usual, super::tell_full, accepted);
    if let Err(error) = done {
        if !ids.is_empty() {
            eprintln!("acode: not all tasks were accepted: the first {} end with this pool", ids.len());
        }
        return Err(file.place(error));
    }
    Ok(Sent { ids, ..sent })
}

fn send_one(context: &Context, door: &mut Door, args: RunArgs) -> Result<Sent, CliError> {
    let asked = submission::Asked {
        limits: &args.limits,
        container: &args.container,
        worktree: &args.worktree,
        action: &args.action,
    };
    let task = submission::build(context, door, args.options, asked, args.command)?;
    let mut sent = Sent::default();
    sent.note(&task);
    let tasks = std::iter::once(Ok::<_, CliError>(task));
    let accepted = |accepted: &[TaskId]| sent.ids.extend_from_slice(accepted);
    door.submit_all::<_, CliError>(tasks, RoomWait::Usual, super::tell_full, accepted)?;
    Ok(sent)
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
