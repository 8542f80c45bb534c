//! The command line of `docker run` for one attempt, as data. No shell ever sees it.
//!
//! Every option is one word, `--name=value`, so that no value can be taken for an option, and `--` stands before the
//! image, so that nothing of the task can. The names of mounts are looked up in the file system; nothing else is touched.
//! Deliberately absent: running it.
//!
//! Where podman differs: it passes the client's proxy variables into the container unless told not to; below `--read-only`
//! it makes further places writable unless told not to; and without root it maps its user to root inside, unless told to
//! keep his number, without which the container could not write to its room.

use std::collections::BTreeSet;
use std::path::Path;

use super::limits;
use super::mounts;
use super::name::{Client, container_name};
use super::program::Program;
use super::refused::Refused;
use crate::task::{Docker, Limits, Pull, Rlimits, TaskId, TaskSpec};
use crate::wire::DockerSettings;

/// Options that hold the container together with acode: by them it is found, watched and removed.
const RESERVED: [&str; 15] = [
    "name",
    "cidfile",
    "rm",
    "rmi",
    "replace",
    "detach",
    "restart",
    "label-file",
    "attach",
    "tty",
    "sig-proxy",
    "init",
    "log-driver",
    "stop-timeout",
    "help",
];
/// Options for which there is a word of acode's own, which would not hold beside them.
const HAVE_KEYS: [(&str, &str); 18] = [
    ("memory", "limits.memoryMb"),
    ("memory-swap", "limits.swapMb"),
    ("cpus", "limits.cpuPercent"),
    ("cpu-quota", "limits.cpuPercent"),
    ("cpu-period", "limits.cpuPercent"),
    ("cpu-shares", "limits.cpuWeight"),
    ("pids-limit", "limits.pids"),
    ("network", "docker.network"),
    ("net", "docker.network"),
    ("user", "docker.user"),
    ("platform", "docker.platform"),
    ("entrypoint", "docker.entrypoint"),
    ("pull", "docker.pull"),
    ("workdir", "cwd"),
    ("interactive", "stdin"),
    ("env-file", "env"),
    ("read-only", "docker.writableRoot"),
    ("mount", "docker.mounts"),
];
/// The label by which this queue's containers are told from all others.
const LABELS: &str = "acode.";

/// A place of the host that the container sees under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'r> {
    /// Where. Absolute.
    pub path: &'r Path,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// All that a command line is made from.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// What holds for the pool.
    pub settings: &'r DockerSettings,
    /// The task.
    pub spec: &'r TaskSpec,
    /// Its id.
    pub id: TaskId,
    /// Which attempt.
    pub attempt: u32,
    /// The worker's id.
    pub worker: &'r str,
    /// What acode itself shows to the container: the room, the checkpoint directory, a worktree's git directories.
    pub binds: &'r [Bind<'r>],
    /// Its working directory, as the container sees it.
    pub workdir: &'r Path,
    /// Its limits, merged with the pool's and bounded.
    pub limits: &'r Limits,
    /// Its rlimits, merged with the pool's.
    pub rlimits: &'r Rlimits,
    /// Milliseconds between SIGTERM and SIGKILL when it is stopped.
    pub grace_ms: u64,
    /// The pool's user and group.
    pub user: (u32, u32),
    /// Where the client writes the container's id. Nothing may be there.
    pub mark: &'r Path,
    /// The file with its variables.
    pub env_file: &'r Path,
    /// Variables that pass through the client's environment.
    pub passed: &'r [&'r str],
    /// Whether the host has the v2 hierarchy alone, where shares of the processors are counted otherwise.
    pub unified: bool,
    /// The device whose bandwidth is limited, as in `/dev/sda`, if one is known.
    pub device: Option<&'r str>,
    /// What is executed, if that is this program and not the task's command.
    pub program: Option<&'r Program>,
}

/// Makes the command line, the program first.
///
/// # Errors
/// What the task or the pool says that must not or cannot be.
pub fn command_line(request: &Request<'_>) -> Result<Vec<String>, Refused> {
    let Request { settings, spec, .. } = request;
    let client = Client::of(&settings.program);
    let none = Docker::default();
    let own = spec.docker.as_ref().unwrap_or(&none);
    let pool = &settings.default;
    let image = checked("docker.image", &own.image, &pool.image)?.ok_or(Refused::NoImage)?;
    let mut line = Line { words: vec![settings.program.clone(), "run".to_owned()] };
    line.push("name", &container_name(request.id));
    line.push("cidfile", text(request.mark)?);
    line.push("label", &format!("acode.pool={}", settings.pool));
    line.push("label", &format!("acode.task={}", request.id));
    line.push("label", &format!("acode.attempt={}", request.attempt));
    line.push("label", &format!("acode.worker={}", request.worker));
    line.flag("init");
    line.push("pull", own.pull.or(pool.pull).unwrap_or(Pull::Never).name());
    if let Some(platform) = checked("docker.platform", &own.platform, &pool.platform)? {
        line.push("platform", platform);
    }
    line.push("network", checked("docker.network", &own.network, &pool.network)?.unwrap_or("none"));
    line.words.extend(limits::options(request.limits, request.unified, request.device));
    if spec.rlimits.address_space_bytes.is_some() {
        return Err(Refused::AddressSpace);
    }
    line.words.extend(limits::ulimits(request.rlimits));
    push_walls(&mut line, settings, client);
    let (uid, gid) = request.user;
    let user = checked("docker.user", &own.user, &pool.user)?.map_or_else(|| format!("{uid}:{gid}"), str::to_owned);
    line.push("user", &user);
    if client == Client::Podman {
        line.push("http-proxy", "false");
        if uid != 0 {
            line.push("userns", "keep-id");
        }
    }
    line.push("log-driver", "none");
    line.push("stop-timeout", &request.grace_ms.div_ceil(1_000).to_string());
    line.push("workdir", text(request.workdir)?);
    if spec.stdin.is_some() {
        line.flag("interactive");
    }
    line.push("env-file", text(request.env_file)?);
    for name in request.passed {
        line.push("env", name);
    }
    let entrypoint = match request.program {
        // Whatever the image would do first, it is not the action.
        Some(_) if own.entrypoint.is_some() => return Err(Refused::EntrypointOfAction),
        Some(program) => Some(&program.entrypoint),
        None => own.entrypoint.as_ref().or(pool.entrypoint.as_ref()),
    };
    if let Some(entrypoint) = entrypoint {
        line.push("entrypoint", entrypoint);
    }
    push_mounts(&mut line, request, own)?;
    push_arguments(&mut line, settings, own)?;
    line.words.push("--".to_owned());
    line.words.push(image.to_owned());
    line.words.extend(request.program.map_or(&spec.command, |program| &program.words).iter().cloned());
    Ok(line.words)
}

struct Line {
    words: Vec<String>,
}

impl Line {
    fn push(&mut self, option: &str, value: &str) {
        self.words.push(format!("--{option}={value}"));
    }

    fn flag(&mut self, option: &str) {
        self.words.push(format!("--{option}"));
    }
}

/// What keeps the container from everything else.
fn push_walls(line: &mut Line, settings: &DockerSettings, client: Client) {
    if !settings.writable_root {
        line.flag("read-only");
        if client == Client::Podman {
            line.push("read-only-tmpfs", "false");
        }
    }
    if settings.tmpfs_mb > 0 {
        // Programs may be run from it, as from the scratch directory beside it: compilers' checks do.
        line.push("tmpfs", &format!("/tmp:rw,exec,nosuid,nodev,mode=1777,size={}m", settings.tmpfs_mb));
    }
    line.push("cap-drop", "ALL");
    line.push("security-opt", "no-new-privileges");
}

fn push_mounts(line: &mut Line, request: &Request<'_>, own: &Docker) -> Result<(), Refused> {
    let mut targets = BTreeSet::new();
    for bind in request.binds {
        let path = text(bind.path)?;
        // Two reasons to show a place are one mount.
        if targets.insert(path.to_owned()) {
            line.push("mount", &mounts::option(path, path, bind.read_only));
        }
    }
    for (source, place) in request.program.iter().flat_map(|program| &program.shown) {
        targets.insert(place.clone());
        line.push("mount", &mounts::option(text(source)?, place, true));
    }
    let guard = mounts::Guard::of(request.settings);
    let pool = request.settings.default.mounts.iter().map(|mount| (mount, false));
    for (mount, is_tasks) in pool.chain(own.mounts.iter().map(|mount| (mount, true))) {
        let source = if is_tasks { guard.check(&mount.source)? } else { mount.source.clone() };
        if !targets.insert(mount.target.trim_end_matches('/').to_owned()) {
            return Err(Refused::MountTwice(mount.target.clone()));
        }
        line.push("mount", &mounts::option(&source, &mount.target, mount.read_only));
    }
    Ok(())
}

/// Further arguments: the pool's, then the task's, which must be ones that the pool allows.
fn push_arguments(line: &mut Line, settings: &DockerSettings, own: &Docker) -> Result<(), Refused> {
    for argument in &settings.default.args {
        check_argument(argument)?;
        line.words.push(argument.clone());
    }
    for argument in &own.args {
        check_argument(argument)?;
        if !settings.allowed_args.iter().any(|pattern| matches(pattern, argument)) {
            return Err(Refused::ArgumentOutside(argument.clone()));
        }
        line.words.push(argument.clone());
    }
    Ok(())
}

/// Whether an argument is this one, or begins like this one whose end is a `*`.
fn matches(pattern: &str, argument: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => argument.starts_with(beginning),
        None => pattern == argument,
    }
}

/// Refuses what would take acode's hold of the container away, whoever asks for it.
fn check_argument(argument: &str) -> Result<(), Refused> {
    // Short options are several in a word, and who reads `-vd` must know which of them take a value. A value in a word of
    // its own could become the image.
    let Some(option) = argument.strip_prefix("--").filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
    else {
        return Err(Refused::ArgumentForm(argument.to_owned()));
    };
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    if RESERVED.contains(&name) {
        return Err(Refused::ArgumentReserved(argument.to_owned()));
    }
    // A label in the next word would be of our name unseen.
    if name == "label" && value.is_none_or(|label| label.starts_with(LABELS)) {
        return Err(Refused::ArgumentReserved(argument.to_owned()));
    }
    // A volume that is a place of the host is a mount, for which there are other rules.
    let is_place = name == "volume" && value.is_none_or(|volume| volume.starts_with(['/', '.', '~']));
    let key = HAVE_KEYS.iter().find(|(option, _)| *option == name).map(|(_, key)| *key);
    match key.or(is_place.then_some("docker.mounts")) {
        Some(key) => Err(Refused::ArgumentHasKey { argument: argument.to_owned(), key }),
        None => Ok(()),
    }
}

/// A word of docker's own kind, the task's or else the pool's: an image, a user, a network.
fn checked<'t>(
    what: &'static str,
    own: &'t Option<String>,
    pool: &'t Option<String>,
) -> Result<Option<&'t str>, Refused> {
    let Some(text) = own.as_deref().or(pool.as_deref()) else { return Ok(None) };
    if text.is_empty() || text.starts_with('-') || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Refused::NotAName { what, text: text.escape_debug().to_string() });
    }
    Ok(Some(text))
}

fn text(path: &Path) -> Result<&str, Refused> {
    path.to_str().ok_or_else(|| Refused::NotText(path.display().to_string()))
}

#[cfg(test)]
mod tests;
