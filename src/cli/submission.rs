//! From what was typed to a submission: paths made absolute, variables copied, names of tasks resolved.
//!
//! Everything that depends on where and by whom a command was typed is settled here, since the pool runs elsewhere and
//! perhaps later.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use acode_worker::task::{Array, Blocker, Dependency, DependencyKind, Env, Retry, Submission, TaskId, TaskSpec};

use super::args::TaskOptions;
use super::door::Door;
use super::{CliError, Context};
use crate::wire::TaskRef;
use crate::wire::request::Resolve;

/// Makes the submission of one command.
///
/// # Errors
/// Something in it makes no sense, or names a task that is not there.
pub fn build(
    context: &Context,
    door: &mut Door,
    options: TaskOptions,
    command: Vec<String>,
) -> Result<Submission, CliError> {
    let mut dependencies = Vec::new();
    for (names, when) in [
        (options.after, DependencyKind::Succeeded),
        (options.after_any, DependencyKind::Ended),
        (options.after_failed, DependencyKind::Failed),
    ] {
        let ids = resolve(door, names)?;
        dependencies.extend(ids.into_iter().map(|id| Dependency { on: Blocker::Id(id), when }));
    }
    let spec = TaskSpec {
        name: options.name,
        command: program(command)?,
        cwd: options.cwd.as_deref().map(absolute).transpose()?,
        env: environment(context, &options.env)?,
        meta: options.meta.into_iter().collect(),
        stdin: options.stdin.as_deref().map(|path| stdin(context, path)).transpose()?,
        timeout_ms: options.timeout.map(millis),
        priority: options.priority.unwrap_or_default(),
        jobserver: options.jobserver,
        retry: options.retries.map(|count| Retry { count, ..Retry::default() }),
        ..TaskSpec::default()
    };
    spec.validate().map_err(|error| CliError::Usage(error.to_string()))?;
    let array = options.array.map(|(first, last)| Array::Range { first, count: (last - first).saturating_add(1) });
    Ok(Submission { spec, array, delay_ms: options.delay.map(millis), dependencies })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Asks the queue for whole ids too: that one is not there is told before anything is submitted.
fn resolve(door: &mut Door, names: Vec<TaskRef>) -> Result<Vec<TaskId>, CliError> {
    if names.is_empty() { Ok(Vec::new()) } else { Ok(door.call(&Resolve { ids: names })?.ids) }
}

/// A program with a slash that is not absolute is meant from here; one without is looked up where it runs.
fn program(mut command: Vec<String>) -> Result<Vec<String>, CliError> {
    if let Some(program) = command.first_mut()
        && program.contains('/')
    {
        *program = absolute(Path::new(program))?;
    }
    Ok(command)
}

fn absolute(path: &Path) -> Result<String, CliError> {
    let doing = || format!("tell what {} is from here", path.display());
    let absolute = std::path::absolute(path).map_err(|source| CliError::File { doing: doing(), source })?;
    absolute.into_os_string().into_string().map_err(|path| CliError::Usage(format!("{path:?} is not UTF-8")))
}

fn environment(context: &Context, pairs: &[String]) -> Result<Env, CliError> {
    let mut env = Env::new();
    for pair in pairs {
        let (key, value) = match pair.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => {
                let value = context.vars.get(OsStr::new(pair));
                let value = value.ok_or_else(|| CliError::Usage(format!("--env {pair}: there is no such variable")))?;
                let text = value.to_str().ok_or_else(|| CliError::Usage(format!("--env {pair}: it is not UTF-8")))?;
                (pair.as_str(), text.to_owned())
            }
        };
        env.insert(key.to_owned(), value);
    }
    Ok(env)
}

/// The file for a task's standard input. What comes on our own is kept in the state directory.
fn stdin(context: &Context, path: &Path) -> Result<String, CliError> {
    if path != Path::new("-") {
        let absolute = absolute(path)?;
        // A typing error shows now, and not when the task starts in the night.
        File::open(&absolute).map_err(|source| CliError::File { doing: format!("read {}", path.display()), source })?;
        return Ok(absolute);
    }
    let kept = keep_stdin(&context.dirs.state.join("stdin"));
    let kept = kept.map_err(|source| CliError::File { doing: "keep standard input".to_owned(), source })?;
    absolute(&kept)
}

/// Copies standard input into a file of its own in `folder`, safely on disk.
fn keep_stdin(folder: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::Builder::new().prefix("stdin-").tempfile_in(folder)?;
    io::copy(&mut io::stdin().lock(), file.as_file_mut())?;
    file.as_file().sync_all()?;
    let (_, path) = file.keep().map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    Ok(path)
}
