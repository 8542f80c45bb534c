//! Putting a supervisor together, after making sure that nothing of an earlier one is left.
//!
//! The order matters: the instance lock, then the old workers' end, then what they left, then the queue's repair, and
//! the control socket last, when there is something behind it. Deliberately absent: any guess about what an interrupted
//! attempt did; it counts for nothing, and its task is pending as before.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acode_worker::claim::{Geometry, Producer, Region};
use acode_worker::failpoint;
use acode_worker::nursery::Nursery;
use acode_worker::sys::{cgroup, clock, process, stray};
use acode_worker::task::{Class, Isolation, OutputRef, TaskId, TreeGuard, Usage, Verdict, WorkerId};
use mio::Events;
use nix::libc;
use signal_hook_mio::v1_0::Signals;

use super::backlog::Backlog;
use super::checks::Checks;
use super::clients::{Clients, listen};
use super::crew::Crew;
use super::decide::Fleet;
use super::desk::{Desk, WIDE};
use super::engine::Engines;
use super::jobserver::Jobserver;
use super::ledger::Ledger;
use super::limits::Holding;
use super::log::Log;
use super::notify::Manager;
use super::observe::Observer;
use super::pause::Pauses;
use super::reactor::{CLIENTS, Polls};
use super::resources::Meter;
use super::scaling::{self, Scaler};
use super::starting::Starting;
use super::streams::Streams;
use super::{Launch, MAX_ROWS, PoolError, Supervisor, modes, settings};
use crate::rundir::{Dirs, InstanceLock, WorkersLock};
use crate::store::{AttemptEnd, AttemptNotes, EventKind, Next, Op, Queue, Store, StoreError};
use crate::sweep;

/// How long old workers get to leave by themselves beyond their kill grace.
const STRAGGLER_SLACK: Duration = Duration::from_secs(1);
/// How long they are waited for after they were killed.
const STRAGGLER_KILL: Duration = Duration::from_secs(5);
/// The most folders of artefacts that are looked at before the pool is up.
const ARTIFACTS_MAX: usize = 10_000;
/// The signals that the supervisor follows.
const SIGNALS: [i32; 9] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCHLD,
    libc::SIGPIPE,
];

/// Builds a supervisor that is ready to run.
pub(super) fn build(launch: Launch, nursery: Nursery, mut manager: Manager) -> Result<Supervisor, PoolError> {
    let Launch { dirs, config, reload, lifeline, actions, log_to_file } = launch;
    dirs.prepare()?;
    let lock = InstanceLock::take(&dirs.lock())?;
    let log = start_log(&dirs, &config, log_to_file, &mut manager)?;
    let (signals, boot_id) = settle_process()?;
    let (store, holding) = recover(&dirs, &boot_id, &config, nursery.pid)?;
    let workers_lock = WorkersLock::new(dirs.workers_lock()).shared()?;
    let (rows, region) = make_table(&config)?;
    let (now_ns, started_us) = (clock::monotonic_ns(), clock::unix_us());
    let by_load = scaling::Rules::of(&config.workers, rows);
    Ok(Supervisor {
        id: WorkerId::generate((started_us / 1_000) as u64).map_err(PoolError::system("no random id"))?,
        boot_id,
        started_us,
        started_ns: now_ns,
        now_ns,
        polls: Polls::new().map_err(PoolError::system("no event loop can be made"))?,
        report_events: Events::with_capacity(256),
        signals,
        clients: open_door(&dirs, &config)?,
        lifeline,
        crew: Crew::new(nursery.pid),
        nursery,
        fleet: first_fleet(&config, rows, &by_load, now_ns / 1_000_000),
        scaler: Scaler::new(by_load, now_ns / 1_000_000),
        checks: Checks::default(),
        producer: Producer::new(Arc::new(region)),
        settings: settings::worker_settings(&config, &dirs, &format!("{:010x}", store.tag())),
        policy: settings::policy(&config),
        holding,
        heard: Vec::new(),
        starting: Starting::default(),
        engines: Engines::default(),
        death_of: BTreeMap::new(),
        last_boot_failure: None,
        ledger: Ledger::default(),
        desk: Desk::default(),
        spill: dirs.spill(),
        broken: None,
        next_wake_us: store.next_delayed()?,
        next_expiry_us: store.next_expiry()?,
        has_deadlines: true,
        actions,
        groups: BTreeMap::new(),
        ageing: super::order::Ageing::default(),
        next_tick_ns: 0,
        next_prune_ns: 0,
        artifact_sweep: super::artifacts::ArtifactSweep::default(),
        pauses: Pauses::new(store.pause()?, config.backpressure),
        backlog: Backlog::default(),
        jobserver: Jobserver::new(dirs.jobserver(), &config),
        streams: Streams::default(),
        streams_dirty: false,
        meter: Meter::default(),
        observer: Observer::new(now_ns),
        stop_when_empty: false,
        announced_stop: false,
        interrupted: false,
        failure: None,
        store: Box::new(store),
        config,
        reload,
        dirs,
        log,
        manager,
        workers_lock,
        _lock: lock,
    })
}

/// No worker yet, and the number of them to begin with.
fn first_fleet(config: &crate::config::Config, rows: u16, by_load: &scaling::Rules, now_ms: u64) -> Fleet {
    let count = u16::try_from(config.workers.count).unwrap_or(u16::MAX).clamp(1, rows);
    Fleet::new(settings::rules(config, rows), by_load.begin_with(count), config.workers.mode.clone(), now_ms)
}

/// Starts the log, in the background to a file, under a service manager to its journal; and tells that manager that the
/// rest may take a while.
fn start_log(
    dirs: &Dirs,
    config: &crate::config::Config,
    to_file: bool,
    manager: &mut Manager,
) -> Result<Log, PoolError> {
    let file = config.log.file.clone().or_else(|| to_file.then(|| dirs.log()));
    let log = Log::start(config.log.level, file.as_deref(), manager.stderr_is_journal());
    let log = log.map_err(PoolError::system("no log can be written"))?;
    manager.starting(config.workers.kill_grace);
    Ok(log)
}

/// Makes this process a supervisor's: it adopts orphans, and follows signals.
fn settle_process() -> Result<(Signals, String), PoolError> {
    process::become_subreaper().map_err(PoolError::system("the supervisor cannot be a subreaper"))?;
    let signals = Signals::new(SIGNALS).map_err(PoolError::system("signals cannot be followed"))?;
    Ok((signals, process::boot_id().map_err(PoolError::system("/proc is needed"))?))
}

/// Lets clients connect; they are heard when the loop runs.
fn open_door(dirs: &Dirs, config: &crate::config::Config) -> Result<Clients, PoolError> {
    let listener = listen(&dirs.control_socket()).map_err(PoolError::system("the control socket cannot be made"))?;
    failpoint!("recover.after-listen");
    Ok(Clients::new(listener, CLIENTS, config.control.max_connections as usize))
}

fn make_table(config: &crate::config::Config) -> Result<(u16, Region), PoolError> {
    let rows = config.workers.max_count.clamp(config.workers.count, MAX_ROWS) as u16;
    let region = Region::create(geometry(rows)).map_err(PoolError::system("the claim table cannot be made"))?;
    Ok((rows, region))
}

fn geometry(rows: u16) -> Geometry {
    // Every lane may be full, and every worker may hold a slot whose end is not committed yet. What was never used takes no
    // memory.
    let lanes = acode_worker::claim::LANES;
    let slots = lanes * WIDE + 4 * usize::from(rows);
    Geometry { workers: rows, slots: slots as u32, lane_capacity: (4 * WIDE) as u32 }
}

/// Opens the queue and makes sure that nothing of an earlier supervisor runs or lies about; gives the queue, and where its
/// tasks' cgroups are.
fn recover(
    dirs: &Dirs,
    boot_id: &str,
    config: &crate::config::Config,
    nursery: i32,
) -> Result<(Store, Holding), PoolError> {
    let mut store = Store::open(&dirs.state)?;
    store.set_hooks(settings::hooks(config));
    let mut holding = Holding::find(store.tag());
    failpoint!("recover.before-stragglers");
    end_stragglers(&store, &WorkersLock::new(dirs.workers_lock()), boot_id, config.workers.kill_grace)?;
    failpoint!("recover.before-clearing");
    clear_left_overs(dirs, holding.base().as_deref(), &dirs.state.join("cgroup"))?;
    holding.build(nursery, config)?;
    failpoint!("recover.before-put-back");
    put_back_interrupted(&mut store, config.workers.mode.default_mode(), crate::requests::now_us())?;
    failpoint!("recover.after-put-back");
    sweep(&store, dirs, &config.cleanup)?;
    Ok((store, holding))
}

/// Waits for the workers of a supervisor that died, and kills those that do not leave.
fn end_stragglers(store: &Store, lock: &WorkersLock, boot_id: &str, grace: Duration) -> Result<(), PoolError> {
    let left = lock.wait_exclusive(Instant::now())?;
    if left.is_ok() {
        return Ok(());
    }
    tracing::warn!("workers of a supervisor that died are still alive: waiting for them");
    if lock.wait_exclusive(Instant::now() + grace + STRAGGLER_SLACK)?.is_ok() {
        return Ok(());
    }
    for worker in store.live_workers()?.iter().filter(|worker| worker.boot_id == boot_id) {
        let Ok(pid) = i32::try_from(worker.pid) else { continue };
        // The pidfd comes first: what it holds cannot change under the check of who it is.
        let Ok(pidfd) = process::pidfd_open(pid) else { continue };
        if process::start_time(pid) == Some(worker.start_ticks) {
            tracing::warn!(pid, worker = %worker.id, "killing a worker that was left over");
            let _ = process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }
    lock.wait_exclusive(Instant::now() + STRAGGLER_KILL)?.map_err(|_| PoolError::Stragglers)
}

/// Kills what is left of old tasks, and removes what they left: cgroups, rooms, spilled assignments. The file `note`
/// remembers where the cgroups of this queue are, since a later supervisor may live under another cgroup.
fn clear_left_overs(dirs: &Dirs, base: Option<&Path>, note: &Path) -> Result<(), PoolError> {
    let failed = PoolError::system;
    if let Ok(old) = std::fs::read_to_string(note) {
        let old = Path::new(old.trim_end());
        let ours = old.file_name().is_some_and(|name| name.to_string_lossy().starts_with("acode-"));
        if ours && old.is_absolute() {
            let gone = cgroup::clear(old, STRAGGLER_KILL);
            if !gone.map_err(failed("old tasks cannot be killed"))? {
                return Err(PoolError::Stragglers);
            }
        }
    }
    kill_strays(&dirs.rooms())?;
    if let Some(base) = base {
        std::fs::write(note, base.as_os_str().as_encoded_bytes()).map_err(failed("the state cannot be written"))?;
    }
    acode_worker::room::disk::release_all(&dirs.rooms());
    for folder in [dirs.rooms(), dirs.spill()] {
        if let Err(error) = acode_worker::room::empty_folder(&folder) {
            // No reason not to start: a worker moves aside what lies in its room's place.
            tracing::warn!(%error, folder = %folder.display(), "what old tasks left cannot be removed");
        }
    }
    dirs.prepare()?;
    Ok(())
}

/// Kills what is left of old tasks and was in no cgroup. A pool that was stopped in an orderly way has left no rooms, and
/// a task without a room has never run; so the search costs nothing then.
fn kill_strays(rooms: &Path) -> Result<(), PoolError> {
    if std::fs::read_dir(rooms).is_ok_and(|mut entries| entries.next().is_some()) {
        let beginning = [b"ACODE_SCRATCH=", rooms.as_os_str().as_encoded_bytes(), b"/"].concat();
        if !stray::kill_by_environment(&beginning, STRAGGLER_KILL) {
            return Err(PoolError::Stragglers);
        }
    }
    Ok(())
}

/// Removes what belongs to tasks that are gone: before there is a worker that could do it, and nobody waits yet.
fn sweep(store: &Store, dirs: &Dirs, cleanup: &crate::config::Cleanup) -> Result<(), PoolError> {
    for number in sweep::idle_checkpoints(store, &dirs.checkpoints())? {
        if let Err(error) = acode_worker::room::remove_checkpoint(&dirs.checkpoints(), number) {
            tracing::warn!(%error, number, "a checkpoint directory cannot be removed");
        }
    }
    for name in sweep::surplus_kept(store, &dirs.kept(), cleanup.max_kept, cleanup.max_kept_age)? {
        if let Err(error) = acode_worker::room::remove_kept(&dirs.kept(), &name) {
            tracing::warn!(%error, name, "a kept scratch directory cannot be removed");
        }
    }
    // Nobody gathers artefacts now. There may be many, and later sweeps see to those that are left.
    let mut stored = acode_worker::room::stored_artifacts(&dirs.artifacts());
    stored.truncate(ARTIFACTS_MAX);
    for one in sweep::surplus_artifacts(store, &stored, false)? {
        if let Err(error) = acode_worker::room::remove_artifacts(&dirs.artifacts(), &one.name()) {
            tracing::warn!(%error, name = one.name(), "artefacts cannot be removed");
        }
    }
    release_worktrees(dirs);
    Ok(sweep::remove_unread_copies(store, &dirs.stdin())?)
}

/// Takes the git worktrees of the last supervisor's workers from their repositories; their files went with the rooms.
fn release_worktrees(dirs: &Dirs) {
    let (folder, locks) = (dirs.worktrees(), dirs.repository_locks());
    for name in sweep::idle_worktrees(&folder, |_| false) {
        failpoint!("recover.before-worktree");
        // No worker lives that could hold a lock.
        match acode_worker::room::worktree::release(&folder, &locks, &name, &mut || false) {
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, name, "a git worktree cannot be removed from its repository"),
        }
    }
    let _ = acode_worker::room::empty_folder(&locks);
}

/// Records that attempts were interrupted, and that their tasks are pending; and that no worker lives. `default` is the mode
/// of workers that take tasks which do not say.
pub(super) fn put_back_interrupted(store: &mut dyn Queue, default: Isolation, now_us: u64) -> Result<(), StoreError> {
    let mut ops = vec![Op::PoolEvent { kind: EventKind::PoolStarted, at_us: now_us, data: None }];
    let workers = store.live_workers()?;
    for task in store.interrupted()? {
        tracing::warn!(task = %task.id, attempt = task.attempts, "attempt was interrupted: task put back");
        ops.push(Op::Finished(Box::new(AttemptEnd {
            id: task.id,
            attempt: task.attempts,
            worker: WorkerId::from_u128(0),
            verdict: Verdict::WorkerLost,
            isolation: modes::of_lost(task_class(store, task.id)?, default, workers.iter().map(|worker| &*worker.mode)),
            guard: TreeGuard::Subreaper,
            usage: Usage::default(),
            output: OutputRef::default(),
            started_us: now_us,
            finished_us: now_us,
            leaked: false,
            error: Some("the pool was killed".to_owned()),
            result: None,
            reason: None,
            notes: AttemptNotes::default(),
            next: Next::Requeue,
        })));
    }
    for worker in workers {
        ops.push(Op::WorkerStopped {
            id: worker.id,
            at_us: now_us,
            completed: worker.completed,
            failed: worker.failed,
            failure: Some("the pool was killed".to_owned()),
        });
    }
    store.apply(&ops)?;
    Ok(())
}

fn task_class(store: &dyn Queue, id: TaskId) -> Result<Class, StoreError> {
    Ok(store.get(id)?.map_or(Class::Any, |stored| stored.class))
}
