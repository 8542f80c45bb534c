//! From what a task may reach to how it is kept from the rest.
//!
//! For each thing that was asked for the best means that this host offers is taken, and told; what cannot be had is a
//! refusal, and the task is not started. Tasks that ask for nothing come under one rule only, which keeps their signals
//! to themselves where the kernel can. Deliberately absent: the means themselves (`sys::confine`).

mod layout;
mod user;

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use nix::unistd::{Pid, getegid, geteuid, getpid, getppid, getsid};

use super::own_program;
use super::process::{Attempt, Tools};
use super::worktree::Made;
use crate::sys::confine::filter::{Filter, Sockets, Wanted};
use crate::sys::confine::landlock::{self, Handled, MAKE_BLOCK, Ruleset};
use crate::sys::confine::{Abilities, Confinement, Identity, Part, probe};
use crate::sys::failpoint;
use crate::sys::spawn::{SpawnError, Step};
use crate::task::{DeviceAccess, FileAccess, NetworkAccess, Sandbox, SignalReach, Verdict};

/// What a worker keeps for sandboxes from task to task.
#[derive(Debug, Default)]
pub struct Sandboxes {
    user_namespace: Option<Rc<OwnedFd>>,
    abilities: OnceCell<Abilities>,
    /// What every task comes under that has no sandbox; none where the kernel cannot.
    guard: Option<Confinement>,
    /// Filters that were made already, by what they were made for.
    filters: std::cell::RefCell<Vec<(Wanted, Rc<Filter>)>>,
    /// How the sandbox of the running task is held.
    held: std::cell::RefCell<Vec<String>>,
}

impl Sandboxes {
    /// For a worker with this user namespace for its tasks; it must have given up new privileges.
    pub fn new(user_namespace: Option<OwnedFd>) -> Self {
        let abi = landlock::abi();
        let own_signals = Handled { signals: true, ..Handled::default() };
        let rules = (abi >= landlock::ABI_SCOPES).then(|| Ruleset::new(abi, own_signals).ok()).flatten();
        let guard = rules.map(|rules| Confinement { rules: Some(Rc::new(rules)), ..Confinement::default() });
        Self { user_namespace: user_namespace.map(Rc::new), guard, ..Self::default() }
    }

    /// How the sandbox of the task that has ended was held.
    pub fn take_held(&self) -> Vec<String> {
        self.held.take()
    }

    fn abilities(&self) -> &Abilities {
        self.abilities.get_or_init(|| {
            let found = probe(self.user_namespace.clone());
            // For experiments: a host that offers less.
            match failpoint::cut("worker.sandbox-means") {
                Some(0) => Abilities { privileged: found.privileged, ..Abilities::default() },
                Some(_) => Abilities { mount_namespaces: false, network_namespaces: false, ..found },
                None => found,
            }
        })
    }

    fn filter(&self, wanted: Wanted) -> Result<Rc<Filter>, String> {
        let mut known = self.filters.borrow_mut();
        if let Some((_, filter)) = known.iter().find(|(made_for, _)| *made_for == wanted) {
            return Ok(filter.clone());
        }
        let filter = Filter::new(&wanted).map(Rc::new).map_err(|error| format!("a filter cannot be made: {error}"))?;
        known.push((wanted, filter.clone()));
        Ok(filter)
    }
}

/// How one task is kept in.
#[derive(Debug)]
pub enum Plan {
    /// It has no sandbox, and comes under what every task does.
    Open(Option<Confinement>),
    /// It has one.
    Closed(Box<Confinement>),
}

impl Plan {
    /// What the child does to itself.
    pub fn confinement(&self) -> Option<&Confinement> {
        match self {
            Self::Open(guard) => guard.as_ref(),
            Self::Closed(confinement) => Some(confinement),
        }
    }

    /// The directory for temporary files, where the usual one cannot be written to.
    pub fn temporary<'p>(&self, scratch: &'p Path) -> Option<&'p Path> {
        match self {
            Self::Closed(confinement) if confinement.filter.is_some() => Some(scratch),
            Self::Open(_) | Self::Closed(_) => None,
        }
    }
}

/// Decides how a task is kept in, and prepares it. `writers` become its standard output and error.
///
/// # Errors
/// The verdict of a task that asks for what this host or the pool does not give.
pub fn plan(
    tools: &Tools,
    attempt: &Attempt,
    checkpoint: Option<&Path>,
    writers: &[OwnedFd; 2],
) -> Result<Plan, Verdict> {
    let settings = &tools.settings;
    let own = attempt.task.spec.sandbox.as_ref();
    tools.sandboxes.held.borrow_mut().clear();
    if own.is_none() && settings.sandbox == Sandbox::default() {
        return Ok(open(tools));
    }
    let wish = match own {
        None => Ok(settings.sandbox.clone()),
        Some(own) => own.over(&settings.sandbox, settings.sandbox_rules.may_loosen),
    };
    let planned = match wish {
        Ok(wish) if wish.is_open() => return Ok(open(tools)),
        Ok(wish) => Draft::new(tools, attempt, checkpoint, &wish).finish(writers),
        Err(error) => Err(error.to_string()),
    };
    let (confinement, held) =
        planned.map_err(|why| Verdict::NotStarted { why: format!("sandbox: {why}"), errno: None })?;
    *tools.sandboxes.held.borrow_mut() = held;
    Ok(Plan::Closed(Box::new(confinement)))
}

fn open(tools: &Tools) -> Plan {
    Plan::Open(match tools.settings.sandbox_rules.signals {
        SignalReach::Own => tools.sandboxes.guard.clone(),
        SignalReach::Host => None,
    })
}

/// What step of a start failed, in words.
pub fn failed_step(error: &SpawnError, cwd: &str, program: &str) -> String {
    match error.step {
        Step::Clone => "no process can be made".to_owned(),
        Step::Stdio => "standard input and output cannot be set up".to_owned(),
        Step::Limit => "a resource limit is refused".to_owned(),
        Step::Cwd => format!("cannot enter '{cwd}'"),
        Step::Exec => format!("cannot execute '{program}'"),
        Step::Confine => match error.part {
            Some((Part::UserNamespace, _)) => "sandbox: the user namespace cannot be entered".to_owned(),
            Some((Part::Namespaces, _)) => "sandbox: namespaces cannot be made".to_owned(),
            Some((Part::Loopback, _)) => "sandbox: the loopback cannot be brought up".to_owned(),
            Some((Part::Identity, _)) => "sandbox: the user cannot be changed".to_owned(),
            Some((Part::Capabilities, _)) => "sandbox: capabilities cannot be given up".to_owned(),
            Some((Part::Rules, _)) => "sandbox: Landlock refuses".to_owned(),
            Some((Part::Filter, _)) => "sandbox: system calls cannot be filtered".to_owned(),
            Some((Part::Mounts, step)) => format!("sandbox: the file system cannot be laid out (step {step})"),
            None => "sandbox: it cannot be set up".to_owned(),
        },
    }
}

/// A sandbox that is being put together.
struct Draft<'d> {
    tools: &'d Tools,
    attempt: &'d Attempt,
    checkpoint: Option<&'d Path>,
    wish: &'d Sandbox,
    abilities: &'d Abilities,
    files: FileAccess,
    devices: DeviceAccess,
    held: Vec<String>,
}

impl<'d> Draft<'d> {
    fn new(tools: &'d Tools, attempt: &'d Attempt, checkpoint: Option<&'d Path>, wish: &'d Sandbox) -> Self {
        Self {
            tools,
            attempt,
            checkpoint,
            wish,
            abilities: tools.sandboxes.abilities(),
            files: wish.filesystem.unwrap_or(FileAccess::Host),
            devices: wish.devices.unwrap_or(DeviceAccess::Host),
            held: Vec::new(),
        }
    }

    fn finish(mut self, writers: &[OwnedFd; 2]) -> Result<(Confinement, Vec<String>), String> {
        let abilities = self.abilities;
        if !abilities.filters {
            return Err("this kernel, or what acode runs in, does not let system calls be filtered (seccomp)".into());
        }
        let mut wanted = Wanted::default();
        let identity = self.identity()?;
        let mut handled = Handled { signals: true, abstract_sockets: true, ..Handled::default() };
        let own_network = self.network(&mut wanted, &mut handled);
        let mounts = self.view(&mut wanted)?;
        let rules = self.rules(&mut wanted, handled, mounts.is_some())?;
        if let Some(identity) = &identity {
            let room = &self.tools.room;
            let mut own = vec![room.path(), room.scratch(), room.progress()];
            own.extend(self.checkpoint);
            user::make_over(identity, &own, writers)
                .map_err(|error| format!("its directories cannot be made over to its user: {error}"))?;
        }
        let confinement = Confinement {
            user_namespace: (mounts.is_some() || own_network).then(|| abilities.user_namespace.clone()).flatten(),
            own_network,
            mounts,
            identity,
            drop_capabilities: true,
            rules: rules.map(Rc::new),
            filter: Some(self.tools.sandboxes.filter(wanted)?),
        };
        Ok((confinement, self.held))
    }

    /// Who it becomes; nobody else if it is to be who the worker is.
    fn identity(&mut self) -> Result<Option<Identity>, String> {
        let Some(text) = &self.wish.user else { return Ok(None) };
        let identity = user::find(text)?;
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let same = (identity.user, identity.group) == (user, group);
        if !same && !self.abilities.privileged {
            return Err(format!("only a pool that runs as root can start tasks as another user ('{text}')"));
        }
        if !same && !self.abilities.mount_namespaces {
            return Err(format!(
                "a task cannot run as '{text}' here: its directories lie where only the pool's user may go, and this \
                 host gives no mount namespace to show them elsewhere"
            ));
        }
        if !same && self.attempt.task.spec.jobserver {
            return Err("the pool's jobserver cannot be shared with another user".to_owned());
        }
        if !same && self.attempt.task.spec.worktree.is_some() {
            return Err(format!("a git worktree is the pool's own user's, and cannot be given to '{text}'"));
        }
        self.held.push(format!("user: {text}"));
        Ok((!same).then_some(identity))
    }

    /// Whether it gets a network of its own.
    fn network(&mut self, wanted: &mut Wanted, handled: &mut Handled) -> bool {
        if self.wish.network != Some(NetworkAccess::None) {
            return false;
        }
        if self.abilities.network_namespaces {
            self.held.push("network: none but its own loopback (namespace)".to_owned());
            return true;
        }
        wanted.sockets = Sockets::Refused;
        handled.tcp = true;
        self.held.push("network: none, and no sockets at all (seccomp)".to_owned());
        false
    }

    /// Its view of the file system; nothing where there can be none, and rules have to do.
    fn view(&mut self, wanted: &mut Wanted) -> Result<Option<Vec<crate::sys::confine::mounts::Step>>, String> {
        let (files, devices) = (self.files, self.devices);
        let (files_word, by) = (self.files_word(), if self.abilities.mount_namespaces { "mounts" } else { "Landlock" });
        if self.abilities.mount_namespaces {
            let steps = layout::mounts(&self.layout()).map_err(|error| error.to_string())?;
            self.held.extend(files_word.map(|word| format!("filesystem: {word} ({by})")));
            if devices == DeviceAccess::Minimal {
                self.held.push(format!("devices: minimal ({by})"));
            }
            self.held.push("pool: its files and its socket are out of sight".to_owned());
            return Ok(Some(steps));
        }
        let why = "this host gives no mount namespace (one needs root, or user namespaces for this user)";
        if files != FileAccess::Host && self.abilities.landlock < landlock::ABI_FILES {
            let abi = self.abilities.landlock;
            return Err(format!("{why}, and Landlock, of ABI {abi} here, restricts files from ABI 3 on (Linux 6.2)"));
        }
        if devices == DeviceAccess::Minimal && files != FileAccess::Scratch {
            return Err(format!("devices cannot be minimal: {why}; with filesystem=scratch they can"));
        }
        if let Some(word) = files_word {
            let left = match files {
                FileAccess::ReadOnly => "owners, modes and times of its user's files can be changed",
                FileAccess::Scratch | FileAccess::Host => "names of files can be seen, and owners, modes and times set",
            };
            self.held.push(format!("filesystem: {word} ({by}; {left})"));
        }
        if devices == DeviceAccess::Minimal {
            self.held.push(format!("devices: minimal ({by})"));
        }
        // Nothing can hide the control socket, so there is nothing to reach it by.
        if wanted.sockets == Sockets::Allowed {
            wanted.sockets = Sockets::NoUnix;
        }
        self.held.push(match files {
            FileAccess::Host => "pool: its socket is out of reach (seccomp); its files are not".to_owned(),
            FileAccess::ReadOnly => "pool: its socket is out of reach (seccomp); its files can be read".to_owned(),
            FileAccess::Scratch => "pool: its socket (seccomp) and its files (Landlock) are out of reach".to_owned(),
        });
        Ok(None)
    }

    fn files_word(&self) -> Option<&'static str> {
        match self.files {
            FileAccess::Host => None,
            FileAccess::ReadOnly => Some("read-only"),
            FileAccess::Scratch => Some("scratch"),
        }
    }

    /// The rules of Landlock that it comes under, and what a filter does in their place.
    fn rules(&mut self, wanted: &mut Wanted, handled: Handled, mounted: bool) -> Result<Option<Ruleset>, String> {
        let abi = self.abilities.landlock;
        // The nursery leads the session, and the process group, of all workers.
        let nursery = getsid(None).ok().filter(|leader| *leader != getpid());
        let pool: Vec<i32> =
            [Some(getpid()), Some(getppid()), nursery].into_iter().flatten().map(Pid::as_raw).collect();
        wanted.untouchable.clone_from(&pool);
        wanted.no_tracing = abi == 0;
        if abi >= landlock::ABI_SCOPES {
            self.held.push("signals: to its own processes only (Landlock)".to_owned());
        } else {
            wanted.no_signals_to = pool;
            self.held.push(
                "signals: none to supervisor, nursery and its worker (seccomp); others of its user can be signalled"
                    .to_owned(),
            );
        }
        if abi == 0 {
            return Ok(None);
        }
        // A rule set must restrict something; under any, others can neither be traced nor looked into.
        let handled = Handled { files: MAKE_BLOCK, ..handled };
        let rules = match mounted {
            true => Ruleset::new(abi, handled),
            false => layout::rules(&self.layout(), abi, handled),
        };
        rules.map(Some).map_err(|error| format!("Landlock: {error}"))
    }

    fn layout(&self) -> layout::Wish<'d> {
        let (settings, room) = (&self.tools.settings, &self.tools.room);
        let mut kept: Vec<&Path> = self.checkpoint.into_iter().collect();
        kept.extend(settings.sandbox_rules.writable.iter().map(std::path::PathBuf::as_path));
        if self.attempt.task.spec.jobserver {
            kept.push(&settings.jobserver.fifo);
        }
        let mut readable: Vec<&Path> =
            settings.sandbox_rules.readable.iter().map(std::path::PathBuf::as_path).collect();
        if own_program::action_of(&self.attempt.task.spec).is_some() {
            own_program::files().for_each(|path| readable.push(path));
        }
        for (path, writes) in self.tools.worktrees.current().map(Made::directories).unwrap_or_default() {
            if writes { kept.push(path) } else { readable.push(path) }
        }
        layout::Wish {
            files: self.files,
            devices: self.devices,
            room: room.path(),
            scratch: room.scratch(),
            kept,
            readable,
            hidden: &settings.sandbox_rules.hidden,
            fresh_proc: self.abilities.fresh_proc,
        }
    }
}
