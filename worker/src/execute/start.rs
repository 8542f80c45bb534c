//! The birth of an attempt's process: what it is given, and in which order that is made.
//!
//! Deliberately absent: everything after the birth, which is `process`'.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::birth;
use super::own_program;
use super::process::{Attempt, Tools};
use super::program;
use super::sandbox;
use super::watch::Watch;
use super::worktree;
use crate::output::Stream;
use crate::room;
use crate::sys::cgroup::Leaf;
use crate::sys::spawn::{self, Child, Spawn};
use crate::sys::{describe, pipe};
use crate::task::Verdict;

/// The read ends of a task's output pipes.
pub type Outputs = [(Stream, OwnedFd); 2];
/// Their write ends.
pub type Writers = [OwnedFd; 2];

/// What every attempt is given, however it is kept apart.
pub struct Prepared {
    /// Where its output is read.
    pub outputs: Outputs,
    /// Where it writes it.
    pub writers: Writers,
    /// Its standard input, if it names a file.
    pub stdin: Option<File>,
    /// Its checkpoint directory, if it asks for one.
    pub checkpoint: Option<PathBuf>,
    /// Where it finds its parameters, if it has any.
    pub params: Option<PathBuf>,
}

/// Makes and opens these.
///
/// # Errors
/// The verdict of an attempt that cannot have them.
pub fn prepare(tools: &Tools, attempt: &Attempt) -> Result<Prepared, Verdict> {
    let spec = &attempt.task.spec;
    let (outputs, writers) = make_pipes().map_err(|e| refuse("no pipe for the output", &e))?;
    let stdin = match &spec.stdin {
        None => None,
        Some(path) => Some(birth::open_input(path).map_err(|e| refuse(&format!("cannot read '{path}'"), &e))?),
    };
    let checkpoint = match spec.checkpoint {
        false => None,
        true => Some(
            room::make_checkpoint(&tools.settings.checkpoints, attempt.task.id.seq())
                .map_err(|e| refuse("the checkpoint directory cannot be made", &e))?,
        ),
    };
    let params = own_program::give_params(tools, attempt)?;
    Ok(Prepared { outputs, writers, stdin, checkpoint, params })
}

/// Makes the attempt's process, with all that it is born with.
///
/// # Errors
/// The verdict of an attempt that has none.
pub fn start(tools: &mut Tools, attempt: &Attempt) -> Result<(Child, Outputs, Writers, Watch), Verdict> {
    let spec = &attempt.task.spec;
    let Prepared { outputs, writers, stdin, checkpoint, params } = prepare(tools, attempt)?;
    let programs = own_program::candidates(spec, &tools.settings.environment)?;
    let programs: Vec<_> = programs.iter().map(CString::as_c_str).collect();
    let words = own_program::words(spec);
    program::arguments(&words, &mut tools.argv);
    let watch = Watch::begin(tools, attempt)?;
    worktree::make(tools, attempt)?;
    let worktree = tools.worktrees.current();
    let own = worktree.map_or(tools.room.scratch(), |made| made.place());
    let cwd_bytes = spec.cwd.as_ref().map_or(own.as_os_str().as_bytes(), |cwd| cwd.as_bytes());
    let cwd = CString::new(cwd_bytes).map_err(|e| refuse("working directory", &e.into()))?;
    let plan = sandbox::plan(tools, attempt, checkpoint.as_deref(), &writers)?;
    let temporary = plan.temporary(tools.room.scratch());
    let places = program::Places {
        room: &tools.room,
        checkpoint: checkpoint.as_deref(),
        temporary,
        base: &tools.settings.environment,
        worktree,
        params: params.as_deref(),
    };
    program::environment(&tools.settings, &attempt.task, &tools.facts, places, &mut tools.envp);
    let rlimits = watch.bound(spec.rlimits.or(tools.settings.rlimits).scaled(attempt.task.memory_scale));
    let (stdin, rlimits) = (stdin.as_ref().map_or(tools.null.as_fd(), |f| f.as_fd()), program::raw_limits(&rlimits));
    let give_birth = |leaf: Option<&Leaf>| {
        spawn::spawn(&Spawn {
            programs: &programs,
            argv: &tools.argv,
            envp: &tools.envp,
            cwd: &cwd,
            stdio: [stdin, writers[0].as_fd(), writers[1].as_fd()],
            cgroup: leaf.map(AsFd::as_fd),
            rlimits: &rlimits,
            umask: tools.settings.umask,
            heeds_quota: watch.needs_quota(),
            confinement: plan.confinement(),
        })
    };
    let child = birth::into_leaf(&mut tools.leaves, give_birth);
    match child {
        Ok(child) => Ok((child, outputs, writers, watch)),
        Err(error) => {
            let what = sandbox::failed_step(&error, &cwd.to_string_lossy(), words.first().map_or("", String::as_str));
            Err(refuse(&what, &error.source))
        }
    }
}

/// The pipes of a task's output.
fn make_pipes() -> io::Result<(Outputs, Writers)> {
    let (out, out_writer) = pipe::pipe()?;
    let (err, err_writer) = pipe::pipe()?;
    Ok(([(Stream::Stdout, out), (Stream::Stderr, err)], [out_writer, err_writer]))
}

/// The verdict of an attempt for which something cannot be had.
fn refuse(what: &str, error: &io::Error) -> Verdict {
    Verdict::NotStarted { why: format!("{what}: {}", describe(error)), errno: error.raw_os_error() }
}
