//! What the configuration means for workers and for decisions about them.

use acode_worker::task::{Docker, Env, Limits, OutputCaps, SandboxRules};
use acode_worker::wire::{
    ActionSettings, ArtifactSettings, DockerSettings, JobserverPlace, KeptPlace, WorkerSettings, WorktreeSettings,
};

use super::decide::Rules;
use super::judge::Policy;
use crate::config::{Config, Fallback};
use crate::rundir::Dirs;
use crate::store::Hooks;

/// With so many workers in a row that never became ready, the pool gives up.
const MAX_BOOT_FAILURES: u32 = 5;
/// Milliseconds that a newborn worker has until it is ready.
const BOOT_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds beyond the kill grace that a worker has to give its task back before it is killed.
const LEAVE_SLACK_MS: u64 = 2_000;

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How workers work. `queue` tells this queue from all others, which the name of a pool does not.
pub fn worker_settings(config: &Config, dirs: &Dirs, queue: &str) -> WorkerSettings {
    let workers = &config.workers;
    WorkerSettings {
        poll_interval_ms: millis(workers.poll_interval),
        idle_backoff_max_ms: millis(workers.idle_backoff_max),
        heartbeat_interval_ms: millis(workers.heartbeat_interval),
        // An idle worker wakes up for nothing else, so it does as rarely as leaves half of the allowance to a busy machine.
        idle_heartbeat_interval_ms: millis(workers.heartbeat_timeout / 2),
        kill_grace_ms: millis(workers.kill_grace),
        timeout_ms: config.tasks.timeout.map(millis),
        start_timeout_ms: config.tasks.start_timeout.map(millis),
        environment: environment(config),
        rlimits: workers.rlimits,
        limits: Limits { action: Some(workers.over_limit_action), ..workers.limits },
        max_limits: workers.max_limits,
        allow_observed: workers.allow_observed,
        sandbox: workers.sandbox.default.clone(),
        sandbox_rules: sandbox_rules(config, dirs),
        cleanup: config.cleanup.scratch,
        kept: KeptPlace { folder: dirs.kept(), max: config.cleanup.max_kept },
        disk: workers.disk_method,
        umask: workers.umask,
        output: OutputCaps { per_attempt: config.output.max_bytes_per_task },
        segment_bytes: config.output.segment_bytes,
        rooms: dirs.rooms(),
        journal: dirs.journal(),
        jobserver: JobserverPlace { fifo: dirs.jobserver(), slots: job_slots(config) },
        checkpoints: dirs.checkpoints(),
        docker: docker(config, dirs, queue),
        artifacts: ArtifactSettings {
            folder: dirs.artifacts(),
            max_bytes: config.artifacts.max_bytes,
            max_files: config.artifacts.max_files,
        },
        worktrees: WorktreeSettings {
            folder: dirs.worktrees(),
            locks: dirs.repository_locks(),
            cleanup: config.cleanup.worktrees,
        },
        actions: ActionSettings {
            program: config.actions.program.clone(),
            timeout_ms: config.actions.timeout.map(millis),
        },
    }
}

/// What workers need for containers.
fn docker(config: &Config, dirs: &Dirs, queue: &str) -> DockerSettings {
    let docker = &config.docker;
    DockerSettings {
        program: docker.program.clone(),
        environment: client_environment(),
        pool: queue.to_owned(),
        folder: dirs.containers(),
        default: Docker {
            image: docker.image.clone(),
            entrypoint: None,
            network: Some(docker.network.clone()),
            platform: docker.platform.clone(),
            user: docker.user.clone(),
            pull: Some(docker.pull),
            mounts: docker.mounts.clone(),
            args: docker.args.clone(),
        },
        allowed_mounts: docker.allowed_mounts.clone(),
        allowed_args: docker.allowed_args.clone(),
        writable_root: docker.writable_root,
        tmpfs_mb: docker.tmpfs_mb,
        call_timeout_ms: millis(docker.call_timeout),
        start_timeout_ms: millis(docker.start_timeout),
        fallback: docker.fallback == Fallback::Process,
    }
}

/// What of our own environment the docker client needs: where the engine is, and who we are to it.
fn client_environment() -> Env {
    const NAMES: [&str; 10] = [
        "PATH",
        "HOME",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ];
    let wanted = |name: &str| {
        NAMES.contains(&name)
            || ["DOCKER_", "CONTAINER_", "CONTAINERS_"].iter().any(|beginning| name.starts_with(beginning))
    };
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| wanted(name)).collect()
}

/// What holds for sandboxes beside their defaults.
fn sandbox_rules(config: &Config, dirs: &Dirs) -> SandboxRules {
    let sandbox = &config.workers.sandbox;
    SandboxRules {
        may_loosen: sandbox.may_loosen,
        signals: sandbox.signals,
        readable: sandbox.readable.clone(),
        writable: sandbox.writable.clone(),
        hidden: vec![dirs.state.clone(), dirs.runtime.clone()],
    }
}

/// How many jobs run at once in all.
pub fn job_slots(config: &Config) -> u32 {
    config.jobserver.slots.unwrap_or_else(crate::config::usable_cpus)
}

/// The environment that tasks inherit: the allowed part of our own, and what is set for all.
fn environment(config: &Config) -> Env {
    // A variable that is not UTF-8 cannot go through the settings' JSON, and is not inherited.
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let inherited = texts.filter(|(name, _)| config.tasks.inherits(name));
    inherited.chain(config.tasks.environment_set.clone()).collect()
}

/// What decisions about workers go by.
pub fn rules(config: &Config, rows: u16) -> Rules {
    Rules {
        heartbeat_timeout_ms: millis(config.workers.heartbeat_timeout),
        boot_timeout_ms: BOOT_TIMEOUT_MS,
        leave_timeout_ms: millis(config.workers.kill_grace) + LEAVE_SLACK_MS,
        rows,
        max_boot_failures: MAX_BOOT_FAILURES,
    }
}

/// What runs when a task has ended.
pub fn hooks(config: &Config) -> Hooks {
    Hooks { pool: config.tasks.on_finish.clone(), timeout_ms: millis(config.tasks.on_finish_timeout) }
}

/// What an attempt's end is judged by, for a task that does not say otherwise.
pub fn policy(config: &Config) -> Policy {
    Policy { retry: config.tasks.retry, max_crashes: config.workers.max_worker_losses }
}
