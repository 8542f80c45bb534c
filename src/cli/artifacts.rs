//! `acode task artifacts` and `acode task fetch`: the files that tasks have left, listed and copied.
//!
//! The queue says which attempt has some, and is let go of before any of them is read. Deliberately absent: how they
//! are read (`crate::artifacts`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use acode_worker::task::{Patterns, TaskId};
use serde::Serialize;

use super::artifact_args::{ArtifactsArgs, FetchArgs};
use super::render::{Out, bytes};
use super::{CliError, Context, Exit};
use crate::api::Need;
use crate::artifacts::{self, Artifact, ArtifactError, Fetched, Kind};
use crate::wire::request::Show;
use crate::wire::types::TaskRecord;
use crate::wire::{Stamp, TaskRef};

/// The artefacts of one attempt.
struct Left {
    task: TaskId,
    /// Its place, if it is a member of an array.
    index: Option<u64>,
    attempt: u32,
    files: PathBuf,
    omitted: Option<String>,
    artifacts: Vec<Artifact>,
}

/// The same, as JSON has it.
#[derive(Serialize)]
struct LeftRecord<'l> {
    task: TaskId,
    index: Option<u64>,
    attempt: u32,
    folder: &'l Path,
    omitted: Option<String>,
    files: Vec<FileRecord>,
}

#[derive(Serialize)]
struct FileRecord {
    path: String,
    bytes: u64,
    modified: Stamp,
    /// Where it leads, if it is a link.
    link: Option<String>,
}

/// Those of a task, or of all members of an array.
struct Found {
    is_array: bool,
    attempts: Vec<Left>,
}

/// Lists them.
///
/// # Errors
/// There is no such task, or it has none.
pub fn list(context: &Context, args: &ArtifactsArgs) -> Result<Exit, CliError> {
    let found = find(context, &args.id, args.attempt, &Patterns::default())?;
    let mut out = Out::new();
    if context.json {
        let records: Vec<LeftRecord<'_>> = found.attempts.iter().map(record).collect();
        out.answer(&serde_json::json!({ "attempts": records }))?;
    } else {
        table(&found, &mut out)?;
    }
    out.finish()?;
    for left in &found.attempts {
        tell_omitted(left.task, left.omitted.as_deref());
    }
    Ok(Exit::Done)
}

/// Copies them.
///
/// # Errors
/// There are none, or something is in the way.
pub fn fetch(context: &Context, args: &FetchArgs) -> Result<Exit, CliError> {
    let patterns = Patterns::read(&args.patterns)
        .map_err(|(index, _)| CliError::Usage(format!("'{}' is no pattern of paths", args.patterns[index])))?;
    let found = find(context, &args.id, args.attempt, &patterns)?;
    if args.dest == Path::new("-") {
        return print(&found);
    }
    let place = |left: &Left| match left.index {
        Some(index) if found.is_array => args.dest.join(index.to_string()),
        Some(_) | None => args.dest.clone(),
    };
    let places: Vec<PathBuf> = found.attempts.iter().map(place).collect();
    if !args.force {
        let pairs = places.iter().zip(&found.attempts);
        artifacts::check(pairs.map(|(place, left)| (place.as_path(), left.artifacts.as_slice())))?;
    }
    let mut all = Fetched::default();
    for (place, left) in places.iter().zip(&found.attempts) {
        let fetched = artifacts::fetch(&left.files, &left.artifacts, place, args.force)?;
        all = Fetched { files: all.files + fetched.files, bytes: all.bytes + fetched.bytes };
    }
    let mut out = Out::new();
    if context.json {
        out.answer(&serde_json::json!({ "files": all.files, "bytes": all.bytes }))?;
    } else {
        out.line(format_args!("{}, {}", count(all.files), bytes(all.bytes)))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}

/// Writes the only file out.
fn print(found: &Found) -> Result<Exit, CliError> {
    let mut all = found.attempts.iter().flat_map(|left| left.artifacts.iter().map(move |one| (left, one)));
    let (left, only) = match (all.next(), all.count()) {
        (Some(first), 0) => first,
        (_, more) => {
            let why = format!("standard output takes one file, and these are {}: say which", more + 1);
            return Err(CliError::Usage(why));
        }
    };
    if let Kind::Link(_) = only.kind {
        return Err(CliError::Usage(format!("{} is a link: fetch what it leads to", only.path.display())));
    }
    artifacts::print(&left.files, only, &mut io::stdout().lock())?.map_err(CliError::Stdout)?;
    Ok(Exit::Done)
}

/// Finds the artefacts that are meant. Whoever has none, or none that the patterns mean, is not among them.
fn find(context: &Context, id: &TaskRef, attempt: Option<u32>, patterns: &Patterns) -> Result<Found, CliError> {
    let mut door = context.door(Need::Queue)?;
    let task = door.call(&Show { id: id.clone() })?.task;
    let (whole, is_array, folder) = (task.id, task.array.is_some(), context.dirs.artifacts());
    let tasks = match &task.array {
        None => vec![task],
        Some(array) => {
            // Most members of a large array may have left nothing: so the folder is asked who has.
            let owners = artifacts::owners(&folder, whole, whole.seq().saturating_add(array.count));
            let show = |owner: TaskId| Ok(door.call(&Show { id: owner.into() })?.task);
            owners.into_iter().map(show).collect::<Result<_, CliError>>()?
        }
    };
    drop(door);
    let (mut attempts, mut has_some) = (Vec::new(), false);
    for task in &tasks {
        let Some((number, omitted)) = choose(task, attempt) else { continue };
        has_some = true;
        let files = artifacts::files_of(&folder, task.id, number);
        let artifacts = artifacts::list(&files, task.id, patterns)?;
        if !artifacts.is_empty() {
            let index = task.member.as_ref().map(|member| member.index);
            attempts.push(Left { task: task.id, index, attempt: number, files, omitted, artifacts });
        }
    }
    match (attempts.is_empty(), has_some) {
        (false, _) => Ok(Found { is_array, attempts }),
        (true, true) => Err(ArtifactError::NoMatch { task: whole }.into()),
        (true, false) => {
            // What could not be kept may be all that there was.
            for task in &tasks {
                let last = task.attempts.iter().flatten().rev().find_map(|attempt| attempt.artifacts.as_ref());
                tell_omitted(task.id, last.and_then(|last| last.omitted.as_deref()));
            }
            Err(ArtifactError::None { task: whole, attempt }.into())
        }
    }
}

/// The attempt that is meant, if it has left files, and what it has left out.
fn choose(task: &TaskRecord, only: Option<u32>) -> Option<(u32, Option<String>)> {
    let attempts = task.attempts.iter().flatten().rev();
    let mut meant = attempts.filter(|attempt| only.is_none_or(|only| only == attempt.number));
    meant.find_map(|attempt| {
        let kept = attempt.artifacts.as_ref().filter(|kept| kept.files > 0)?;
        Some((attempt.number, kept.omitted.clone()))
    })
}

fn record(left: &Left) -> LeftRecord<'_> {
    let file = |one: &'_ Artifact| FileRecord {
        path: one.path.to_string_lossy().into_owned(),
        bytes: size(one),
        modified: modified(one),
        link: link(one),
    };
    let files = left.artifacts.iter().map(file).collect();
    let omitted = left.omitted.clone();
    LeftRecord { task: left.task, index: left.index, attempt: left.attempt, folder: &left.files, omitted, files }
}

fn table(found: &Found, out: &mut Out) -> Result<(), CliError> {
    let all = || found.attempts.iter().flat_map(|left| left.artifacts.iter().map(move |one| (left, one)));
    let wide = |least: usize, widths: &mut dyn Iterator<Item = usize>| widths.fold(least, usize::max);
    let index = |left: &Left| left.index.map_or_else(|| "-".to_owned(), |index| index.to_string());
    let bytes = wide("BYTES".len(), &mut all().map(|(_, one)| size(one).to_string().len()));
    let at = wide("MODIFIED".len(), &mut all().map(|(_, one)| modified(one).to_string().len()));
    let head = format!("{:>bytes$}  {:<at$}  PATH", "BYTES", "MODIFIED");
    out.line(if found.is_array { format!("MEMBER  {head}") } else { head })?;
    for (left, one) in all() {
        // The path last and whole: it is what somebody copies from here.
        let shown = |path: &Path| path.to_string_lossy().replace(|c: char| c.is_control(), "\u{fffd}");
        let arrow = link(one).map(|to| format!(" -> {}", shown(Path::new(&to)))).unwrap_or_default();
        let row = format!("{:>bytes$}  {:<at$}  {}{arrow}", size(one), modified(one).to_string(), shown(&one.path));
        out.line(if found.is_array { format!("{:>6}  {row}", index(left)) } else { row })?;
    }
    Ok(())
}

fn size(one: &Artifact) -> u64 {
    match one.kind {
        Kind::File(bytes) => bytes,
        Kind::Link(_) => 0,
    }
}

fn link(one: &Artifact) -> Option<String> {
    match &one.kind {
        Kind::File(_) => None,
        Kind::Link(to) => Some(to.to_string_lossy().into_owned()),
    }
}

fn modified(one: &Artifact) -> Stamp {
    let since = one.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Stamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn count(files: u64) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn tell_omitted(task: TaskId, omitted: Option<&str>) {
    if let Some(omitted) = omitted {
        eprintln!("acode: not kept of task {task}: {omitted}");
    }
}
