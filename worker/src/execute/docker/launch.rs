//! The birth of an attempt in a container: its mark, its variables, its command line, and the client that runs it.
//!
//! The client runs under none of the task's limits and in no sandbox: those are the container's, and stand on its command
//! line. Deliberately absent: everything after the birth.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::super::birth;
use super::super::own_program;
use super::super::process::{Attempt, Tools};
use super::super::program;
use super::super::start::{Outputs, Prepared, Writers, prepare};
use super::super::watch::Watch;
use super::super::worktree;
use super::cgroup::{device_path, is_unified};
use super::command::{Bind, Request, command_line};
use super::container::Container;
use super::engine::{argument_array, client_files, environment_array};
use super::environment::{Variables, pool_variables};
use super::marks::Mark;
use super::meter::Meter;
use super::name::Client;
use super::program::Program;
use super::removal;
use crate::failpoint;
use crate::sys::cgroup::Leaf;
use crate::sys::spawn::{self, CStringArray, Child, Spawn, SpawnError};
use crate::sys::{clock, describe, image};
use crate::task::{Action, Env, Limits, Rlimits, Verdict};

/// Sees to it that nothing of an earlier attempt of this task is left in any container: to be called before an attempt,
/// however it is kept apart.
///
/// # Errors
/// The verdict of an attempt that must not begin, because an earlier one may still run.
pub fn clear_the_way(tools: &mut Tools, attempt: &Attempt) -> Result<(), Verdict> {
    removal::clear(tools, attempt.task.id).map_err(|error| {
        let why = format!("a container of an earlier attempt could not be removed: {error}");
        tools.containers.availability.call_failed(&why);
        Verdict::EngineFailed { why }
    })
}

/// Makes the attempt's container, by a client that becomes the leader of its process tree.
///
/// # Errors
/// The verdict of an attempt that has none.
pub fn start(tools: &mut Tools, attempt: &Attempt) -> Result<(Child, Outputs, Writers, Watch, Container), Verdict> {
    let spec = &attempt.task.spec;
    if spec.sandbox.is_some() {
        let why = "the task asks for a sandbox, which a container has not (isolation process has one)".to_owned();
        return Err(Verdict::NotStarted { why, errno: None });
    }
    let Prepared { outputs, writers, stdin, checkpoint, params } = prepare(tools, attempt)?;
    let limits = Watch::limits(tools, attempt);
    let watch = Watch::beside_container(tools, attempt, &limits)?;
    let rlimits = watch.bound(spec.rlimits.or(tools.settings.rlimits).scaled(attempt.task.memory_scale));
    worktree::make(tools, attempt)?;
    let variables = variables(tools, attempt, checkpoint.as_deref(), params.as_deref())?;
    let folder = tools.settings.docker.folder.clone();
    let mark = Mark::make(&folder, attempt.task.id, variables.text().as_bytes())
        .map_err(|e| Verdict::EngineFailed { why: format!("the container's mark cannot be made: {}", describe(&e)) })?;
    let line = match line(tools, attempt, checkpoint.as_deref(), (&limits, &rlimits), &mark, &variables) {
        Ok(line) => line,
        Err(verdict) => {
            mark.remove();
            return Err(verdict);
        }
    };
    let grace_ms = spec.grace_ms.unwrap_or(tools.settings.kill_grace_ms);
    let meter = Meter::new(tools, &limits);
    let environment = variables.client_environment(&tools.settings.docker.environment);
    match start_client(tools, stdin.as_ref(), &writers, &line, &environment) {
        Ok(child) => {
            failpoint!("docker.after-run");
            let container = Container::new(tools, mark, meter, grace_ms, clock::monotonic_ns());
            Ok((child, outputs, writers, watch, container))
        }
        Err(error) => {
            mark.remove();
            let program = &tools.settings.docker.program;
            let why = format!("the docker client '{program}' cannot be run: {}", describe(&error.source));
            tools.containers.availability.call_failed(&why);
            Err(Verdict::EngineFailed { why })
        }
    }
}

/// Starts the client, in the worker's leaf and under nothing that holds a task.
fn start_client(
    tools: &mut Tools,
    stdin: Option<&File>,
    writers: &Writers,
    line: &[String],
    environment: &Env,
) -> Result<Child, SpawnError> {
    let envp = environment_array(&tools.settings.docker, environment);
    let programs = client_files(&tools.settings.docker);
    let programs: Vec<_> = programs.iter().map(CString::as_c_str).collect();
    let argv = argument_array(&tools.settings.docker.program, line.iter().skip(1).map(String::as_str));
    let stdin = stdin.map_or(tools.null.as_fd(), AsFd::as_fd);
    let give_birth = |leaf: Option<&Leaf>| {
        spawn::spawn(&Spawn {
            programs: &programs,
            argv: &argv,
            envp: &envp,
            cwd: c"/",
            stdio: [stdin, writers[0].as_fd(), writers[1].as_fd()],
            cgroup: leaf.map(AsFd::as_fd),
            rlimits: &[],
            umask: 0o077,
            heeds_quota: false,
            confinement: None,
        })
    };
    birth::into_leaf(&mut tools.leaves, give_birth)
}

fn not_started(refused: &super::refused::Refused) -> Verdict {
    Verdict::NotStarted { why: refused.to_string(), errno: None }
}

/// The container's variables: what of the pool's means something in there, the task's own, and acode's.
fn variables(
    tools: &mut Tools,
    attempt: &Attempt,
    checkpoint: Option<&Path>,
    params: Option<&Path>,
) -> Result<Variables, Verdict> {
    let base = pool_variables(&tools.settings.environment);
    let places = program::Places {
        room: &tools.room,
        checkpoint,
        temporary: None,
        base: &base,
        worktree: tools.worktrees.current(),
        params,
    };
    let mut envp = CStringArray::default();
    program::environment(&tools.settings, &attempt.task, &tools.facts, places, &mut envp);
    let texts: Vec<_> = envp.iter().map(String::from_utf8_lossy).collect();
    let settings = &tools.settings.docker;
    Variables::of(texts.iter().map(|text| &**text), Client::of(&settings.program), &settings.environment)
        .map_err(|refused| not_started(&refused))
}

/// This program, as the container is to execute it.
fn program(tools: &Tools, action: &Action) -> Result<Program, Verdict> {
    let image = image::own();
    let mut file = image.program().to_owned();
    if !image.is_in_place() {
        // Another version has its name by now, which may understand something else. The copy goes with all that is in a room.
        file = tools.room.path().join("program");
        let _ = std::fs::remove_file(&file);
        image.copy_program(&file).map_err(|error| Verdict::NotStarted {
            why: format!("this program's file was replaced, and cannot be copied: {}", describe(&error)),
            errno: error.raw_os_error(),
        })?;
    }
    Ok(Program::new(image, &file, action.display_name()))
}

fn line(
    tools: &Tools,
    attempt: &Attempt,
    checkpoint: Option<&Path>,
    (limits, rlimits): (&Limits, &Rlimits),
    mark: &Mark,
    variables: &Variables,
) -> Result<Vec<String>, Verdict> {
    let spec = &attempt.task.spec;
    let writable = |path| Bind { path, read_only: false };
    let mut binds = vec![writable(tools.room.path())];
    binds.extend(checkpoint.map(writable));
    let worktree = tools.worktrees.current();
    binds.extend(worktree.into_iter().flat_map(|made| {
        made.directories().into_iter().map(|(path, writable)| Bind { path, read_only: !writable }).collect::<Vec<_>>()
    }));
    if spec.jobserver {
        binds.push(writable(&tools.settings.jobserver.fifo));
    }
    let own = worktree.map_or(tools.room.scratch(), |made| made.place());
    let passed: Vec<&str> = variables.passed().collect();
    let device = device_path(&tools.settings.rooms);
    let program = own_program::action_of(spec).map(|action| program(tools, action)).transpose()?;
    command_line(&Request {
        settings: &tools.settings.docker,
        spec,
        id: attempt.task.id,
        attempt: attempt.task.attempt,
        worker: &tools.facts.id,
        binds: &binds,
        workdir: spec.cwd.as_deref().map_or(own, Path::new),
        limits,
        rlimits,
        grace_ms: spec.grace_ms.unwrap_or(tools.settings.kill_grace_ms),
        user: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        mark: &mark.id_file(),
        env_file: &mark.env_file(),
        passed: &passed,
        unified: is_unified(),
        device: device.as_deref(),
        program: program.as_ref(),
    })
    .map_err(|refused| not_started(&refused))
}
