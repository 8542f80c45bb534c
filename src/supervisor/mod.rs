//! The supervisor: the one process that owns the queue, the workers and the control socket of a pool.
//!
//! It is single-threaded and synchronous. `decide`, `scaling`, `checkup`, `judge` and `desk` are pure; `reactor` waits and lets each source
//! have its say; the other files are the supervisor's hands. What is here puts it together, in the order in which
//! things must come into being: the nursery before anything else, the lock before the queue, the socket last.

mod artifacts;
mod attempts;
mod backlog;
mod checks;
mod checkup;
mod clients;
mod commit;
mod containers;
mod control;
mod crew;
mod decide;
mod desk;
mod dispatch;
mod engine;
mod exposition;
mod fill;
mod followers;
mod gauge;
mod jobs;
mod jobserver;
mod judge;
mod launch;
mod ledger;
mod limits;
mod log;
mod metrics;
mod modes;
mod notify;
mod observe;
mod order;
mod pace;
mod pause;
mod pressure;
mod prune;
mod reactor;
mod recover;
mod resize;
mod resources;
mod scaling;
mod scrape;
mod settings;
#[cfg(test)]
mod sim;
mod starting;
mod stop;
mod streams;
mod suspend;
mod views;
mod workers;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use acode_worker::actions::Registry;
use acode_worker::claim::Producer;
use acode_worker::failpoint;
use acode_worker::nursery::Nursery;
use acode_worker::task::WorkerId;
use acode_worker::wire::{Report, WorkerSettings};
use mio::Events;
use nix::sys::wait::WaitStatus;
use signal_hook_mio::v1_0::Signals;

pub use launch::{Detached, Started, detach, leave_terminal, lifeline};

use crate::config::Config;
use crate::rundir::{DirError, Dirs, InstanceLock, LockError};
use crate::store::{Group, Queue, StoreError};

/// The most rows of the claim table, which bounds how far a pool can be scaled while it runs.
const MAX_ROWS: u32 = 1_024;

/// Reads the configuration again, on SIGHUP.
pub type Reload = Box<dyn Fn() -> Result<Config, Box<dyn std::error::Error>>>;

/// What a supervisor is started with.
pub struct Launch {
    /// Where its state is.
    pub dirs: Dirs,
    /// How it works.
    pub config: Config,
    /// How to read the configuration again.
    pub reload: Reload,
    /// Closed by whoever started us when we shall end: by its death, too.
    pub lifeline: Option<OwnedFd>,
    /// What its workers can do by themselves.
    pub actions: &'static Registry,
    /// Whether it leaves the terminal: then its log goes to the state directory's file if the configuration names none.
    pub log_to_file: bool,
}

/// A pool that accepts work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// The supervisor's process.
    pub pid: u32,
    /// Why it starts no task, if it was paused by hand before it was started.
    pub paused: Option<String>,
}

/// Why a pool did not start, or ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The state directory is not usable.
    #[error(transparent)]
    Dirs(#[from] DirError),
    /// The state directory is held by another supervisor, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The queue cannot be opened.
    #[error("the queue cannot be opened")]
    Store(#[from] StoreError),
    /// The kernel refuses something that no pool can do without.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// Old workers of a supervisor that died do not leave.
    #[error("workers of a supervisor that died are still alive and cannot be killed")]
    Stragglers,
    /// Limits are to be held by killing, and nothing can hold them.
    #[error(
        "workers.limits ({names}) cannot be enforced, and overLimitAction is kill: {why} \
         (workers.resources.allowObserved: true has them looked at instead)"
    )]
    LimitsNotHeld {
        /// Which limits.
        names: String,
        /// Why not.
        why: String,
    },
    /// The metrics cannot be served where they shall be.
    #[error("metrics.listen: {address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The kernel's word.
        source: io::Error,
    },
    /// Workers die before they are ready, again and again.
    #[error("workers do not start: {why}")]
    WorkersDie {
        /// What the last one said, or how it died.
        why: String,
    },
    /// The nursery died, so no further worker could be made.
    #[error("the nursery process was killed: no worker could be started any more")]
    NurseryDied,
    /// What was done last could not be written to the queue.
    #[error("the pool stopped while the queue could not be written ({why}): what ended since then will run again")]
    Unsaved {
        /// Why it could not be written.
        why: String,
    },
}

impl PoolError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// The supervisor.
struct Supervisor {
    config: Config,
    reload: Reload,
    dirs: Dirs,
    log: log::Log,
    manager: notify::Manager,
    id: WorkerId,
    boot_id: String,
    started_us: i64,
    started_ns: u64,
    now_ns: u64,

    polls: reactor::Polls,
    report_events: Events,
    signals: Signals,
    clients: clients::Clients,
    lifeline: Option<OwnedFd>,

    nursery: Nursery,
    crew: crew::Crew,
    fleet: decide::Fleet,
    scaler: scaling::Scaler,
    checks: checks::Checks,
    producer: Producer,
    settings: WorkerSettings,
    policy: judge::Policy,
    holding: limits::Holding,
    heard: Vec<Report>,
    starting: starting::Starting,
    engines: engine::Engines,
    death_of: BTreeMap<u16, WaitStatus>,
    last_boot_failure: Option<String>,

    store: Box<dyn Queue>,
    ledger: ledger::Ledger,
    desk: desk::Desk,
    /// Where assignments go that are too large for a slot.
    spill: PathBuf,
    broken: Option<commit::Broken>,
    next_wake_us: Option<u64>,
    next_expiry_us: Option<u64>,
    /// A task in the queue may have a start deadline: without any, no commit asks for the next one.
    has_deadlines: bool,
    /// What workers can do by themselves: parameters are checked by it.
    actions: &'static Registry,
    /// The limit groups, by number.
    groups: BTreeMap<u32, Group>,
    ageing: order::Ageing,
    next_tick_ns: u64,
    next_prune_ns: u64,
    artifact_sweep: artifacts::ArtifactSweep,

    pauses: pause::Pauses,
    backlog: backlog::Backlog,
    jobserver: jobserver::Jobserver,

    streams: streams::Streams,
    /// Something was committed that a stream may have to tell.
    streams_dirty: bool,
    meter: resources::Meter,

    observer: observe::Observer,

    stop_when_empty: bool,
    announced_stop: bool,
    interrupted: bool,
    failure: Option<PoolError>,

    /// Shared by all workers, and never used.
    workers_lock: OwnedFd,
    // The last field, so that it is let go of last.
    _lock: InstanceLock,
}

/// Runs a pool in this process until it is stopped. `ready` is called when it accepts work.
///
/// The calling process must be single-threaded: the nursery is forked off it before anything else.
///
/// # Errors
/// The pool did not start, or ended other than by being told to.
pub fn serve(launch: Launch, ready: impl FnOnce(Up)) -> Result<(), PoolError> {
    // The nursery of a detached pool leaves the terminal at once, and so do its workers: whoever reads our output must not
    // wait for them.
    let begin: fn() = if launch.log_to_file { launch::leave_terminal } else { || {} };
    // A service's main process is a supervisor that has neither left its terminal nor a master of its own.
    let manager = notify::Manager::take(!launch.log_to_file && launch.lifeline.is_none());
    let nursery = Nursery::start(begin, launch.actions).map_err(PoolError::system("the nursery cannot be forked"))?;
    // Tasks run as the same user: without this they could trace the supervisor, or take its descriptors.
    acode_worker::sys::process::forbid_looks_inside()
        .map_err(PoolError::system("the supervisor cannot be closed to looks inside"))?;
    let mut supervisor = recover::build(launch, nursery, manager)?;
    supervisor.serve_classes();
    supervisor.load_groups()?;
    supervisor.register().map_err(PoolError::system("the event loop cannot be set up"))?;
    supervisor.serve_metrics()?;
    tracing::info!(pool = supervisor.config.pool.name, pid = std::process::id(), "pool started");
    let paused = supervisor.pauses.by_hand().map(pause::words);
    if let Some(why) = &paused {
        tracing::info!("still paused {why}");
    }
    ready(Up { pid: std::process::id(), paused });
    supervisor.manager.ready();
    let ran = supervisor.run();
    supervisor.close();
    ran.map_err(PoolError::system("the event loop failed"))?;
    match (supervisor.failure.take(), supervisor.broken.take()) {
        (Some(failure), _) => Err(failure),
        (None, Some(broken)) => Err(PoolError::Unsaved { why: broken.why }),
        (None, None) => Ok(()),
    }
}

impl Supervisor {
    /// A number from 0 to 1 that nobody can predict, for jitter.
    fn random(&self) -> f64 {
        let mut bytes = [0_u8; 4];
        // Without random bytes there is no jitter, which is no reason to stop.
        let _ = getrandom::fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }

    /// How many workers the claim table has room for.
    fn max_rows(&self) -> u32 {
        u32::from(self.producer.region().geometry().workers)
    }

    /// Works by another configuration from now on.
    fn follow_config(&mut self, config: Config) {
        self.settings = settings::worker_settings(&config, &self.dirs, &self.settings.docker.pool);
        self.policy = settings::policy(&config);
        self.store.set_hooks(settings::hooks(&config));
        let rows = self.producer.region().geometry().workers;
        self.fleet.set_rules(settings::rules(&config, rows));
        self.scaler.set_rules(scaling::Rules::of(&config.workers, rows));
        self.clients.set_max(config.control.max_connections as usize);
        self.log.set_level(config.log.level);
        self.pauses.set_limits(config.backpressure);
        self.jobserver.set_slots(settings::job_slots(&config));
        let moved = config.metrics.listen != self.config.metrics.listen;
        self.config = config;
        if moved && let Err(error) = self.serve_metrics() {
            tracing::error!(why = crate::error_chain(&error), "the metrics are not served");
        }
        self.follow_limits();
        self.follow_pool_limits();
        let rows: Vec<u16> = self.crew.iter().map(|(row, _)| row).collect();
        let order = acode_worker::wire::Order::Configure(Box::new(self.settings.clone()));
        rows.into_iter().for_each(|row| self.crew.order(row, &order));
        self.serve_classes();
        self.decide(decide::Event::Modes(self.config.workers.mode.clone()));
        self.look_at_machine();
    }

    /// Serves the metrics where the configuration says, or nowhere.
    fn serve_metrics(&mut self) -> Result<(), PoolError> {
        let address = self.config.metrics.listen;
        let listening = self.observer.scrape.listen(address, self.polls.urgent.registry());
        if let (Err(source), Some(address)) = (listening, address) {
            return Err(PoolError::Listen { address, source });
        }
        if let Some(address) = self.observer.scrape.address() {
            tracing::info!(%address, "metrics are served");
        }
        Ok(())
    }

    /// Leaves nothing behind but the queue and the journal.
    fn close(&mut self) {
        use crate::store::{EventKind, Op};
        let at_us = crate::requests::now_us();
        failpoint!("supervisor.before-close");
        if self.broken.is_none() {
            self.record(Op::PoolEvent { kind: EventKind::PoolStopped, at_us, data: None });
            self.commit();
        }
        self.feed_streams();
        let _ = self.clients.flush(self.polls.urgent.registry(), self.now_ns);
        let _ = std::fs::remove_file(self.dirs.control_socket());
        self.jobserver.close();
        failpoint!("supervisor.before-sweep");
        let _ = acode_worker::room::remove_tree(&self.dirs.rooms());
        let _ = acode_worker::room::remove_tree(&self.dirs.spill());
        self.holding.dissolve(std::time::Duration::from_secs(2));
        tracing::info!(tasks = self.store.counts().pending, "pool stopped; tasks are left in the queue");
    }
}
