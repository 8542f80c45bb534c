//! From what was typed to a submission: paths made absolute, variables copied, names of tasks resolved.
//!
//! Everything that depends on where and by whom a command was typed is settled here, since the pool runs elsewhere and
//! perhaps later.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use acode_worker::task::{
    Array, Blocker, Dependency, DependencyKind, Env, GroupWish, Key, Retries, SoftTimeout, Submission, TaskId, TaskSpec,
};

use super::action_args::ActionOptions;
use super::args::TaskOptions;
use super::container_args::ContainerOptions;
use super::limit_args::LimitOptions;
use super::worktree_args::WorktreeOptions;
use super::{CliError, Context};
use crate::api::Door;
use crate::api::role;
use crate::taskfile::place_params;
use crate::wire::request::Resolve;
use crate::wire::{Stamp, TaskRef};

/// The options that are in groups of their own.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What it may use.
    pub limits: &'a LimitOptions,
    /// Where it runs.
    pub container: &'a ContainerOptions,
    /// Its git worktree.
    pub worktree: &'a WorktreeOptions,
    /// Its type.
    pub action: &'a ActionOptions,
}

/// Makes the submission of one command, or of one action.
///
/// # Errors
/// Something in it makes no sense, or names a task that is not there.
pub fn build(
    context: &Context,
    door: &mut Door,
    options: TaskOptions,
    asked: Asked<'_>,
    command: Vec<String>,
) -> Result<Submission, CliError> {
    let Asked { limits, container, worktree, action } = asked;
    let docker = container.docker()?;
    if container.asks_for_container() && options.sandbox.is_some() {
        let words =
            "--sandbox is for processes: what a container can reach, --network, --mount and --container-user say";
        return Err(CliError::Usage(words.to_owned()));
    }
    let worktree = worktree.worktree()?;
    let cwd = options.cwd.as_deref().map(|cwd| working_directory(cwd, container)).transpose()?;
    let (soft_timeout, retry) = (soft_timeout(&options), retries(&options));
    let dependencies = dependencies(
        door,
        [
            (options.after, DependencyKind::Succeeded),
            (options.after_any, DependencyKind::Ended),
            (options.after_failed, DependencyKind::Failed),
        ],
    )?;
    let spec = TaskSpec {
        name: options.name,
        // In a container it is the container's, and one that is not absolute is meant in the worktree, if there is one.
        command: if container.asks_for_container() || worktree.is_some() { command } else { program(command)? },
        action: action.action()?,
        worktree,
        cwd,
        isolation: container.isolation,
        docker,
        env: environment(context, &options.env)?,
        meta: options.meta.into_iter().collect(),
        stdin: options.stdin.as_deref().map(|path| stdin(context, path)).transpose()?,
        timeout_ms: options.timeout.map(millis),
        priority: options.priority.unwrap_or_default(),
        jobserver: options.jobserver,
        on_finish: options.on_finish.map(|line| program(line.0)).transpose()?.unwrap_or_default(),
        soft_timeout,
        start_timeout_ms: options.start_timeout.map(millis),
        retry,
        checkpoint: options.checkpoint,
        limits: limits.limits(),
        rlimits: limits.rlimits(),
        sandbox: options.sandbox,
        cleanup: options.cleanup,
        artifacts: options.artifacts,
        ..TaskSpec::default()
    };
    spec.validate().map_err(|error| CliError::Usage(error.to_string()))?;
    let array = options.array.map(|(first, last)| Array::Range { first, count: (last - first).saturating_add(1) });
    let key = options.key.map(|text| Key { text, if_exists: options.if_exists.unwrap_or_default() });
    let group = group(options.group, options.limit_group)?;
    placed(Submission {
        spec,
        array,
        delay_ms: options.delay.map(millis),
        not_before_us: options.not_before.map(micros),
        expires_us: options.expires.map(micros),
        hold: options.hold,
        group,
        dependencies,
        key,
    })
}

/// Checks an action's parameters, so that a mistake is told before anybody is asked for anything, and has their relative
/// paths start here.
fn placed(mut submission: Submission) -> Result<Submission, CliError> {
    let action = submission.first_action();
    let fits = action.map_or(Ok(()), |action| role::registry().check(&action));
    fits.map_err(|error| CliError::Usage(error.to_string()))?;
    let here = absolute(Path::new("."))?;
    place_params(&mut submission, Path::new(&here)).map_err(CliError::Usage)?;
    Ok(submission)
}

fn dependencies(door: &mut Door, wishes: [(Vec<TaskRef>, DependencyKind); 3]) -> Result<Vec<Dependency>, CliError> {
    let mut dependencies = Vec::new();
    for (names, when) in wishes {
        let ids = resolve(door, names)?;
        dependencies.extend(ids.into_iter().map(|id| Dependency { on: Blocker::Id(id), when }));
    }
    Ok(dependencies)
}

/// `--group` or `--limit-group`.
fn group(name: Option<String>, limited: Option<(String, u32)>) -> Result<Option<GroupWish>, CliError> {
    let group = match (name, limited) {
        (_, Some((name, max))) => Some(GroupWish { name, max: Some(max) }),
        (name, None) => name.map(|name| GroupWish { name, max: None }),
    };
    group.as_ref().map_or(Ok(()), GroupWish::validate).map_err(CliError::Usage)?;
    Ok(group)
}

fn micros(stamp: Stamp) -> u64 {
    u64::try_from(stamp.micros()).unwrap_or(0)
}

/// A warning without a timeout comes only where the pool has one, which is not known here.
fn soft_timeout(options: &TaskOptions) -> Option<SoftTimeout> {
    let before_ms = millis(options.soft_timeout?);
    if options.timeout.is_none() {
        eprintln!("acode: --soft-timeout without --timeout: it counts only if the pool has tasks.timeoutSeconds");
    }
    Some(SoftTimeout { before_ms, signal: options.soft_signal.unwrap_or_default() })
}

fn retries(options: &TaskOptions) -> Option<Retries> {
    let own = Retries {
        count: options.retries,
        delay_ms: options.retry_delay.map(millis),
        factor: options.retry_factor,
        max_delay_ms: options.retry_max_delay.map(millis),
        jitter: options.retry_jitter,
        on_codes: options.retry_on.unwrap_or_default(),
        except_codes: options.no_retry_on.unwrap_or_default(),
        memory_factor: options.oom_retry_factor,
        max_crashes: options.max_crashes,
    };
    (!own.is_empty()).then_some(own)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Asks the queue for whole ids too: that one is not there is told before anything is submitted.
fn resolve(door: &mut Door, names: Vec<TaskRef>) -> Result<Vec<TaskId>, CliError> {
    if names.is_empty() { Ok(Vec::new()) } else { Ok(door.call(&Resolve { ids: names })?.ids) }
}

/// A program with a slash that is not absolute is meant from here; one without is looked up where it runs.
pub(super) fn program(mut command: Vec<String>) -> Result<Vec<String>, CliError> {
    if let Some(program) = command.first_mut()
        && program.contains('/')
    {
        *program = absolute(Path::new(program))?;
    }
    Ok(command)
}

/// A directory from here; in a container one of the container's.
fn working_directory(cwd: &Path, container: &ContainerOptions) -> Result<String, CliError> {
    if container.asks_for_container() && !cwd.is_absolute() {
        let words = format!("--cwd {}: it is a path in the container, so it must be absolute", cwd.display());
        return Err(CliError::Usage(words));
    }
    absolute(cwd)
}

pub(super) fn absolute(path: &Path) -> Result<String, CliError> {
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
