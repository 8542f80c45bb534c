//! `acode worker`: the pool and its workers.

use std::time::{Duration, Instant};

use super::args::{StopArgs, WorkerCommand};
use super::render::{Out, plain};
use super::{CliError, Context, Exit, pool, tables};
use crate::api::{ApiError, Door, Need};
use crate::wire::reply::Pausing;
use crate::wire::request::{Autoscale, Check, Metrics, Pause, Reload, Resume, Scale, Status, Stop, Workers};
use crate::wire::types::StopMode;
use crate::wire::{Client, ClientError, Method, Stamp};

/// How long a supervisor may take between hanging up and being gone.
const LAST_BREATH: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(2);

/// Does one of them.
///
/// # Errors
/// No pool is running, or it did not do it.
pub fn run(context: &Context, command: WorkerCommand) -> Result<Exit, CliError> {
    match command {
        WorkerCommand::Start(args) => pool::start(context, &args),
        WorkerCommand::Status => status(context),
        WorkerCommand::List => list(context),
        WorkerCommand::Scale { count, auto: _ } => scale(context, count),
        WorkerCommand::Reload => reload(context),
        WorkerCommand::Check => check(context),
        WorkerCommand::Pause { reason } => pausing(context, &Pause { reason }),
        WorkerCommand::Resume => pausing(context, &Resume {}),
        WorkerCommand::Metrics => metrics(context),
        WorkerCommand::Stop(args) => stop(context, &args),
    }
}

fn status(context: &Context) -> Result<Exit, CliError> {
    let mut client = connect(context)?;
    let mut out = Out::new();
    if context.json {
        out.json(&client.call(&Status {})?.status)?;
    } else {
        // Both at once: the figures and the list are of one moment, and it takes one round trip.
        client.queue(&Status {})?;
        client.queue(&Workers {})?;
        let status = client.receive::<Status>()?.status;
        let workers = client.receive::<Workers>()?.workers;
        out.line(tables::status(&status, &workers))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}

fn list(context: &Context) -> Result<Exit, CliError> {
    let workers = connect(context)?.call(&Workers {})?.workers;
    let mut out = Out::new();
    if context.json {
        out.json(&workers)?;
    } else {
        out.line(tables::workers(&workers, Stamp::now()))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}

fn metrics(context: &Context) -> Result<Exit, CliError> {
    let told = connect(context)?.call(&Metrics { text: !context.json })?;
    let mut out = Out::new();
    match told.text {
        Some(text) => out.bytes(text.as_bytes())?,
        None => out.json(&told.metrics)?,
    }
    out.finish()?;
    Ok(Exit::Done)
}

/// Without a number: by the load.
fn scale(context: &Context, count: Option<u32>) -> Result<Exit, CliError> {
    let mut client = connect(context)?;
    let scaled = match count {
        Some(count) => client.call(&Scale { count })?,
        None => client.call(&Autoscale {})?,
    };
    let mut out = Out::new();
    if context.json {
        out.answer(&scaled)?;
    } else {
        out.line(format_args!("workers: {} -> {}", scaled.before, scaled.target))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}

/// `pause` and `resume`: both say how it stands afterwards.
fn pausing(context: &Context, request: &impl Method<Reply = Pausing>) -> Result<Exit, CliError> {
    let pausing = connect(context)?.call(request)?;
    let mut out = Out::new();
    if context.json {
        out.answer(&pausing)?;
    } else {
        match &pausing.paused {
            Some(paused) => out.line(format_args!("paused {}", plain(&paused.why)))?,
            None => out.line("tasks are started")?,
        }
    }
    out.finish()?;
    Ok(Exit::Done)
}

fn reload(context: &Context) -> Result<Exit, CliError> {
    let reloaded = connect(context)?.call(&Reload {})?;
    let mut out = Out::new();
    if context.json {
        out.answer(&reloaded)?;
    } else {
        out.line("configuration read again")?;
    }
    out.finish()?;
    Ok(Exit::Done)
}

fn check(context: &Context) -> Result<Exit, CliError> {
    let workers = connect(context)?.call(&Check {})?.workers;
    let mut out = Out::new();
    if context.json {
        out.json(&workers)?;
    } else {
        out.line(tables::checks(&workers))?;
    }
    out.finish()?;
    Ok(if workers.iter().all(|worker| worker.healthy) { Exit::Done } else { Exit::Failed })
}

fn stop(context: &Context, args: &StopArgs) -> Result<Exit, CliError> {
    let mode = match (args.force, args.when_empty) {
        (true, _) => StopMode::Force,
        (false, true) => StopMode::WhenEmpty,
        (false, false) => StopMode::Drain,
    };
    let timeout_ms = args.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let mut client = connect(context)?;
    let mut supervisor: Option<Supervisor> = None;
    let mut last = None;
    for stopping in client.call_more(&Stop { mode, timeout_ms })? {
        let stopping = match stopping {
            Ok(stopping) => stopping,
            // Hanging up is how it says that it has stopped.
            Err(ClientError::HungUp) if supervisor.is_some() => break,
            Err(error) => return Err(error.into()),
        };
        supervisor.get_or_insert_with(|| Supervisor::find(stopping.pid));
        let told = last.replace((stopping.running, stopping.pending));
        let news = told.is_none_or(|(running, pending)| {
            running != stopping.running || (mode == StopMode::WhenEmpty && pending != stopping.pending)
        });
        match mode {
            StopMode::Drain if news && stopping.running > 0 => {
                eprintln!("acode: waiting for {} running tasks", stopping.running);
            }
            StopMode::WhenEmpty if told.is_none() && stopping.running + stopping.pending > 0 => {
                eprintln!("acode: waiting for {} tasks", stopping.running + stopping.pending);
            }
            StopMode::Drain | StopMode::WhenEmpty | StopMode::Force => {}
        }
    }
    let gone = supervisor.is_none_or(|supervisor| supervisor.wait_gone());
    if context.json {
        let mut out = Out::new();
        out.answer(&serde_json::json!({ "stopped": gone }))?;
        out.finish()?;
    }
    Ok(if gone { Exit::Done } else { Exit::Failed })
}

fn connect(context: &Context) -> Result<Client, CliError> {
    match context.door(Need::Pool)? {
        Door::Pool(client) => Ok(client),
        Door::Queue(_) => Err(ApiError::NotRunning.into()),
    }
}

/// A process by its number and its start time, since a number alone may soon be somebody else's.
struct Supervisor {
    pid: u32,
    start_time: Option<u64>,
}

impl Supervisor {
    fn find(pid: u32) -> Self {
        Self { pid, start_time: start_time(pid) }
    }

    /// Waits until it is gone, so that whoever starts the next pool finds the state directory free.
    fn wait_gone(&self) -> bool {
        let deadline = Instant::now() + LAST_BREATH;
        while self.start_time.is_some() && start_time(self.pid) == self.start_time {
            if Instant::now() > deadline {
                eprintln!("acode: process {} has hung up and is still there", self.pid);
                return false;
            }
            std::thread::sleep(NAP);
        }
        true
    }
}

/// When this process started; none if it is gone, or dead and merely not collected by its parent.
fn start_time(pid: u32) -> Option<u64> {
    let stat = procfs::process::Process::new(i32::try_from(pid).ok()?).and_then(|process| process.stat()).ok()?;
    (stat.state != 'Z').then_some(stat.starttime)
}
