//! What this host offers to confine a process with. Changes nothing: what is tried is tried by a child that ends.
//!
//! Deliberately absent: any judgement on whether that is enough.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::filter::{Filter, Wanted};
use super::{Confinement, landlock, mounts};
use crate::sys::spawn::{self, CStringArray, Spawn, Step};

/// What a host offers.
#[derive(Debug, Clone, Default)]
pub struct Abilities {
    /// Whether the process is root with its power.
    pub privileged: bool,
    /// The user namespace by which the namespaces below are had; none where they are had without, or not at all.
    pub user_namespace: Option<Rc<OwnedFd>>,
    /// Whether children can have a view of the file system of their own.
    pub mount_namespaces: bool,
    /// Whether they can have a /proc in which only what they may look into is seen.
    pub fresh_proc: bool,
    /// Whether children can have a network of their own.
    pub network_namespaces: bool,
    /// The version of Landlock; 0 where there is none.
    pub landlock: u32,
    /// Whether system calls can be filtered.
    pub filters: bool,
}

/// Finds out what is offered, by trying. `user_namespace` is what [`super::user_namespace`] made, for a process that
/// is not privileged; the calling process must have given up new privileges.
pub fn probe(user_namespace: Option<Rc<OwnedFd>>) -> Abilities {
    let privileged = super::is_privileged();
    let user_namespace = if privileged { None } else { user_namespace };
    let base = Confinement { user_namespace: user_namespace.clone(), ..Confinement::default() };
    let reachable = privileged || user_namespace.is_some();
    let options = c"size=64k,mode=755".to_owned();
    let mounts = vec![
        mounts::Step::Detach,
        mounts::Step::Take(c"/dev/null".to_owned()),
        mounts::Step::SealTree(c"/".to_owned()),
        mounts::Step::Memory(c"/proc".to_owned(), options),
        mounts::Step::File(c"/proc/null".to_owned()),
        mounts::Step::Put(0, c"/proc/null".to_owned()),
    ];
    let fresh = vec![mounts::Step::Detach, mounts::Step::Kernel(c"/proc".to_owned(), c"proc", c"hidepid=ptraceable")];
    let filter = Filter::new(&Wanted::default()).ok().map(Rc::new);
    Abilities {
        mount_namespaces: reachable && works(&Confinement { mounts: Some(mounts), ..base.clone() }),
        fresh_proc: privileged && works(&Confinement { mounts: Some(fresh), ..base.clone() }),
        network_namespaces: reachable && works(&Confinement { own_network: true, ..base }),
        landlock: landlock::abi(),
        filters: filter.is_some() && works(&Confinement { filter, ..Confinement::default() }),
        privileged,
        user_namespace,
    }
}

/// Finds out what is offered, for a process that only wants to tell it: what it makes for that is gone when this
/// returns, but for its chance of gaining privileges by exec. It must be single-threaded.
pub fn survey() -> Abilities {
    // Without it nobody but root may try a filter.
    let _ = crate::sys::process::give_up_new_privileges();
    let space = if super::is_privileged() { None } else { super::user_namespace().ok() };
    probe(space.map(Rc::new))
}

impl Abilities {
    /// By what means each kind of sandbox is held here: what, and how, or why not.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let by = if self.privileged { "namespace, as root" } else { "namespace, in a user namespace" };
        let files = self.landlock >= landlock::ABI_FILES;
        let none = "none: neither namespaces nor Landlock from ABI 3 on".to_owned();
        let text = |namespaces: bool, otherwise: String| if namespaces { by.to_owned() } else { otherwise };
        let landlock = if files { "Landlock".to_owned() } else { none.clone() };
        let only_scratch = if files { "Landlock, with filesystem=scratch only".to_owned() } else { none };
        let sockets = if self.filters { "seccomp: no sockets at all" } else { "none" }.to_owned();
        let signals = match self.landlock {
            landlock::ABI_SCOPES.. => "Landlock: its own processes only",
            _ if self.filters => "seccomp: none to the pool, and only in a sandbox",
            _ => "none",
        };
        vec![
            ("network", text(self.network_namespaces, sockets)),
            ("filesystem", text(self.mount_namespaces, landlock)),
            ("devices", text(self.mount_namespaces, only_scratch)),
            ("user", if self.privileged { "setuid" } else { "none: the pool does not run as root" }.to_owned()),
            ("signals", signals.to_owned()),
            ("landlock", format!("ABI {}", self.landlock)),
        ]
    }
}

/// Whether a child gets as far as executing under this confinement.
fn works(confinement: &Confinement) -> bool {
    let (mut argv, mut envp) = (CStringArray::default(), CStringArray::default());
    argv.push(&[b"probe"]);
    argv.seal();
    envp.seal();
    let Ok(null) = std::fs::File::open("/dev/null") else { return false };
    let probe = Spawn {
        // Executing a directory fails in the child itself, so that nothing has to exist for it.
        programs: &[c"/"],
        argv: &argv,
        envp: &envp,
        cwd: c"/",
        stdio: [null.as_fd(); 3],
        cgroup: None,
        rlimits: &[],
        umask: 0,
        heeds_quota: false,
        confinement: Some(confinement),
    };
    matches!(spawn::spawn(&probe), Err(error) if error.step == Step::Exec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_told_for_every_kind_of_sandbox() {
        let rich = Abilities {
            privileged: true,
            mount_namespaces: true,
            network_namespaces: true,
            landlock: 7,
            filters: true,
            ..Abilities::default()
        };
        let told = |abilities: &Abilities, what: &str| {
            let list = abilities.describe();
            list.into_iter().find(|(name, _)| *name == what).map(|(_, how)| how).unwrap()
        };
        for what in ["network", "filesystem", "devices"] {
            assert_eq!(told(&rich, what), "namespace, as root");
        }
        let poor = Abilities { landlock: 3, filters: true, ..Abilities::default() };
        assert_eq!(told(&poor, "network"), "seccomp: no sockets at all");
        assert_eq!(told(&poor, "devices"), "Landlock, with filesystem=scratch only");
        assert!(told(&Abilities::default(), "filesystem").starts_with("none"));
    }
}
