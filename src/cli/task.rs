//! `acode task`: the queue and what is in it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Seek};
use std::path::Path;

use acode_worker::task::{Class, TaskId};

use super::args::{ListArgs, SubmitArgs, TaskCommand};
use super::progress::Board;
use super::render::{Out, marked};
use super::{CliError, Context, Exit, artifacts, diff, engine, logs, order, submission, tables};
use crate::api::{ApiError, Door, Need, RoomWait};
use crate::taskfile::{self, Submissions, TaskFileError};
use crate::tree::At;
use crate::wire::reply::Waited;
use crate::wire::request::{Cancel, Continue, List, Prune, Retry, Show, Submit, Suspend, Wait, Why};
use crate::wire::types::TaskRecord;
use crate::wire::{CallError, ClientError, MAX_IDS, MAX_LIST, Stamp, TaskRef};

/// Does one of them.
///
/// # Errors
/// It was not done.
pub fn run(context: &Context, command: TaskCommand) -> Result<Exit, CliError> {
    match command {
        TaskCommand::Submit(args) => submit(context, *args),
        TaskCommand::List(args) => list(context, &args),
        TaskCommand::Show { id } => show(context, id),
        TaskCommand::Logs(args) => logs::task(context, &args),
        TaskCommand::Artifacts(args) => artifacts::list(context, &args),
        TaskCommand::Fetch(args) => artifacts::fetch(context, &args),
        TaskCommand::Diff(args) => diff::run(context, &args),
        TaskCommand::Why { id } => why(context, id),
        TaskCommand::Cancel { ids, group: None, reason, now } => cancel(context, &ids, reason, now),
        TaskCommand::Cancel { ids: _, group: Some(group), reason, now } => cancel_group(context, group, reason, now),
        TaskCommand::Hold { ids, group } => order::hold(context, &ids, group),
        TaskCommand::Release { ids, group } => order::release(context, &ids, group),
        TaskCommand::Group { name, limit } => order::group(context, name, limit),
        TaskCommand::Suspend { ids } => suspend(context, &ids),
        TaskCommand::Resume { ids } => resume(context, &ids),
        TaskCommand::Retry { ids } => retry(context, &ids),
        TaskCommand::Wait { ids, all, no_progress } => wait(context, ids, all, no_progress),
        TaskCommand::Prune { older_than, keep } => {
            let older_than_ms = older_than.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            prune(context, &Prune { older_than_ms, keep })
        }
    }
}

fn submit(context: &Context, args: SubmitArgs) -> Result<Exit, CliError> {
    let wait = match args.wait_for_room {
        _ if args.no_wait => RoomWait::Never,
        Some(time) => RoomWait::For(time),
        None => RoomWait::Usual,
    };
    if let Some(file) = &args.file {
        return submit_file(context, file, wait);
    }
    let mut door = context.door(Need::NewQueue)?;
    let task = submission::build(
        context,
        &mut door,
        args.options,
        submission::Asked {
            limits: &args.limits,
            container: &args.container,
            worktree: &args.worktree,
            action: &args.action,
        },
        args.command,
    )?;
    let class = task.spec.class();
    let submitted = door.call(&Submit { tasks: vec![task], wait_ms: wait.ms() })?;
    let mut printed = Ids::new(context);
    printed.add(&submitted.ids);
    let told = printed.finish();
    engine::tell_unserved(&mut door, [class]);
    told
}

fn submit_file(context: &Context, file: &Path, wait: RoomWait) -> Result<Exit, CliError> {
    let tasks = CheckedFile::open(file)?;
    let mut door = context.door(Need::NewQueue)?;
    let mut printed = Ids::new(context);
    let submitted = door.submit_all::<_, CliError>(tasks.read()?, wait, super::tell_full, |ids| printed.add(ids));
    let submitted = submitted.map_err(|error| tasks.place(error));
    // What was accepted is told even if not all was.
    let told = printed.finish();
    submitted?;
    engine::tell_unserved(&mut door, tasks.classes().iter().copied());
    told
}

/// A task file that was read to its end once and found right, so that a broken one submits nothing although it streams.
pub struct CheckedFile {
    file: File,
    name: String,
    folder: std::path::PathBuf,
    classes: Vec<Class>,
}

impl CheckedFile {
    /// Reads it through; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let unreadable = |source| TaskFileError::Unreadable { name: name.clone(), source };
        let here = std::env::current_dir().map_err(unreadable)?;
        let checked = if path == Path::new("-") {
            // What comes once is kept, to be read twice.
            let mut file = tempfile::tempfile().map_err(unreadable)?;
            io::copy(&mut io::stdin().lock(), &mut file).map_err(unreadable)?;
            Self { file, name, folder: here, classes: Vec::new() }
        } else {
            let file = File::open(path).map_err(unreadable)?;
            let folder = here.join(path).parent().map_or(here, Path::to_path_buf);
            Self { file, name, folder, classes: Vec::new() }
        };
        let mut classes = BTreeSet::new();
        for task in checked.read()? {
            let spec = task?.spec;
            classes.insert(spec.class());
            // A hook is a task of its own, which does not say anything.
            classes.extend((!spec.on_finish.is_empty()).then_some(Class::Any));
        }
        Ok(Self { classes: classes.into_iter().collect(), ..checked })
    }

    /// The classes of its tasks and of their hooks.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Its tasks, from the beginning.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> Result<Submissions<BufReader<&File>>, CliError> {
        let mut file = &self.file;
        let rewound = file.rewind().map_err(|source| TaskFileError::Unreadable { name: self.name.clone(), source });
        rewound?;
        Ok(taskfile::read(BufReader::with_capacity(1 << 17, file), &self.name, &self.folder)?)
    }

    /// The same error with the place in the file, if it is about one of its tasks that the queue has refused.
    pub fn place(&self, error: CliError) -> CliError {
        let CliError::Api(ApiError::Client(ClientError::Call(call)) | ApiError::Call(call)) = &error else {
            return error;
        };
        let CallError::InvalidSubmission { entry: Some(entry), reason } = call else { return error };
        match self.at(*entry) {
            Some(at) => TaskFileError::Wrong { name: self.name.clone(), at, words: reason.clone() }.into(),
            None => error,
        }
    }

    /// Where the task with this place, from 0, in what was submitted stands. Looked for when it is asked for, so that
    /// nothing has to be kept of millions.
    fn at(&self, entry: u32) -> Option<At> {
        let mut tasks = self.read().ok()?;
        tasks.nth(usize::try_from(entry).ok()?)?.ok()?;
        Some(tasks.at())
    }
}

/// Prints ids as they come. A reader that goes away does not keep the rest from being submitted.
struct Ids {
    out: Out,
    /// For JSON, which is one document.
    gathered: Option<Vec<TaskId>>,
    printed: Result<(), CliError>,
}

impl Ids {
    fn new(context: &Context) -> Self {
        Self { out: Out::new(), gathered: context.json.then(Vec::new), printed: Ok(()) }
    }

    fn add(&mut self, ids: &[TaskId]) {
        match &mut self.gathered {
            Some(gathered) => gathered.extend_from_slice(ids),
            None if self.printed.is_ok() => self.printed = ids.iter().try_for_each(|id| self.out.line(id)),
            None => {}
        }
    }

    fn finish(mut self) -> Result<Exit, CliError> {
        self.printed?;
        if let Some(ids) = self.gathered {
            self.out.answer(&serde_json::json!({ "ids": ids }))?;
        }
        self.out.finish()?;
        Ok(Exit::Done)
    }
}

fn list(context: &Context, args: &ListArgs) -> Result<Exit, CliError> {
    let mut door = context.door(Need::Queue)?;
    let mut tasks: Vec<TaskRecord> = Vec::new();
    let mut after = None;
    loop {
        let missing = args.limit.saturating_sub(tasks.len() as u64);
        let limit = u32::try_from(missing).unwrap_or(MAX_LIST).min(MAX_LIST);
        let request = List { states: args.state.clone(), limit: Some(limit), after, newest_first: true, array: None };
        let listed = door.call(&request)?;
        tasks.extend(listed.tasks);
        after = listed.next;
        if after.is_none() || tasks.len() as u64 >= args.limit {
            break;
        }
    }
    drop(door);
    let mut out = Out::new();
    if context.json {
        out.json(&tasks)?;
    } else {
        out.line(tables::tasks(&tasks, Stamp::now()))?;
    }
    out.finish()?;
    if after.is_some() && io::stdout().is_terminal() {
        eprintln!("acode: there are more: --limit N shows N of them");
    }
    Ok(Exit::Done)
}

fn show(context: &Context, id: TaskRef) -> Result<Exit, CliError> {
    let task = context.door(Need::Queue)?.call(&Show { id })?.task;
    let mut out = Out::new();
    if context.json {
        out.json(&task)?;
    } else {
        out.line(tables::task(&task, io::stdout().is_terminal()))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}

fn why(context: &Context, id: TaskRef) -> Result<Exit, CliError> {
    let why = context.door(Need::Queue)?.call(&Why { id })?;
    let mut out = Out::new();
    if context.json {
        out.answer(&why)?;
    } else {
        out.line(marked(&why.text))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}

/// Asks for something to be done to tasks, as many at a time as a request may name; gives those that it was done to, and
/// the others.
fn in_pages(
    context: &Context,
    ids: &[TaskRef],
    ask: impl Fn(&mut Door, Vec<TaskRef>) -> Result<(Vec<TaskId>, Vec<TaskId>), CliError>,
) -> Result<(Vec<TaskId>, Vec<TaskId>), CliError> {
    let mut door = context.door(Need::Queue)?;
    let (mut done, mut left) = (Vec::new(), Vec::new());
    for ids in ids.chunks(MAX_IDS) {
        let (these, others) = ask(&mut door, ids.to_vec())?;
        done.extend(these);
        left.extend(others);
    }
    Ok((done, left))
}

fn suspend(context: &Context, ids: &[TaskRef]) -> Result<Exit, CliError> {
    let (suspended, refused) = in_pages(context, ids, |door, ids| {
        let done = door.call(&Suspend { ids })?;
        Ok((done.suspended, done.refused))
    })?;
    for id in &refused {
        eprintln!("acode: task {id} does not run, is suspended already, or runs in its worker itself");
    }
    let json = serde_json::json!({ "suspended": suspended, "refused": refused });
    changed(context, &json, &suspended, refused.is_empty())
}

fn resume(context: &Context, ids: &[TaskRef]) -> Result<Exit, CliError> {
    let (resumed, refused) = in_pages(context, ids, |door, ids| {
        let done = door.call(&Continue { ids })?;
        Ok((done.resumed, done.refused))
    })?;
    for id in &refused {
        eprintln!("acode: task {id} is not suspended");
    }
    let json = serde_json::json!({ "resumed": resumed, "refused": refused });
    changed(context, &json, &resumed, refused.is_empty())
}

fn cancel(context: &Context, ids: &[TaskRef], reason: Option<String>, now: bool) -> Result<Exit, CliError> {
    let (cancelled, ended) = in_pages(context, ids, |door, ids| {
        let done = door.call(&Cancel { ids, group: None, reason: reason.clone(), now })?;
        Ok((done.cancelled, done.ended))
    })?;
    for id in &ended {
        eprintln!("acode: task {id} has ended already");
    }
    changed(context, &serde_json::json!({ "cancelled": cancelled, "ended": ended }), &cancelled, ended.is_empty())
}

fn retry(context: &Context, ids: &[TaskRef]) -> Result<Exit, CliError> {
    let (retried, refused) = in_pages(context, ids, |door, ids| {
        let done = door.call(&Retry { ids })?;
        Ok((done.retried, done.refused))
    })?;
    for id in &refused {
        eprintln!("acode: task {id} has not failed: there is nothing to try again");
    }
    changed(context, &serde_json::json!({ "retried": retried, "refused": refused }), &retried, refused.is_empty())
}

/// Cancels a group, as many tasks at a time as the queue takes in one transaction.
fn cancel_group(context: &Context, group: String, reason: Option<String>, now: bool) -> Result<Exit, CliError> {
    let mut door = context.door(Need::Queue)?;
    let mut cancelled = Vec::new();
    loop {
        let done = door.call(&Cancel { ids: Vec::new(), group: Some(group.clone()), reason: reason.clone(), now })?;
        // What runs is still there when it is asked for again: whoever brings nothing new has ended the group.
        let seen: std::collections::HashSet<TaskId> = cancelled.iter().copied().collect();
        let new: Vec<TaskId> = done.cancelled.into_iter().filter(|id| !seen.contains(id)).collect();
        let over = new.is_empty() || !done.more;
        cancelled.extend(new);
        if over {
            break;
        }
    }
    changed(context, &serde_json::json!({ "cancelled": cancelled, "ended": [] }), &cancelled, true)
}

/// Prints which tasks were changed; fails unless all were.
pub(super) fn changed(
    context: &Context,
    json: &serde_json::Value,
    ids: &[TaskId],
    all: bool,
) -> Result<Exit, CliError> {
    let mut out = Out::new();
    if context.json {
        out.answer(json)?;
    } else {
        ids.iter().try_for_each(|id| out.line(id))?;
    }
    out.finish()?;
    Ok(if all { Exit::Done } else { Exit::Failed })
}

fn wait(context: &Context, ids: Vec<TaskRef>, all: bool, no_progress: bool) -> Result<Exit, CliError> {
    let mut door = context.door(Need::Queue)?;
    let board = Board::new(!no_progress && !context.json);
    let request = Wait { ids, all };
    let waited = if board.is_drawn() {
        let mut last = Waited::default();
        let streamed: Result<(), CliError> = door.stream(&request, |waited| {
            board.show(&waited);
            last = waited;
            Ok(())
        });
        board.clear();
        streamed.map(|()| last)?
    } else {
        door.call(&request)?
    };
    for id in &waited.unsuccessful {
        eprintln!("acode: task {id} did not complete");
    }
    let more = waited.counts.unsuccessful().saturating_sub(waited.unsuccessful.len() as u64);
    if more > 0 && !waited.unsuccessful.is_empty() {
        eprintln!("acode: nor did {more} more");
    }
    if context.json {
        let mut out = Out::new();
        out.answer(&waited)?;
        out.finish()?;
    }
    let failed = waited.counts.unsuccessful() > 0 || !waited.unsuccessful.is_empty();
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn prune(context: &Context, request: &Prune) -> Result<Exit, CliError> {
    let pruned = context.door(Need::Queue)?.call(request)?;
    let mut out = Out::new();
    if context.json {
        out.answer(&pruned)?;
    } else {
        let freed = super::render::bytes(pruned.log_bytes);
        out.line(format_args!("{} tasks removed, {freed} of output", pruned.tasks))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}
