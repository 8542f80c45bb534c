//! What this host offers, and what acode makes of it: looked at without a pool, and without changing anything.
//!
//! A list of independent checks, each a small function from the host to what it has found; and each configured limit
//! with how well it would be held here. Nothing waits longer than a few seconds. Deliberately absent: how it looks
//! (`cli/doctor.rs`), and repairs.

mod cgroups;
mod docker;
mod kernel;
mod limits;
mod programs;
mod sandbox;
mod storage;

use acode_worker::sys::cgroup;
use acode_worker::sys::confine::{self, Abilities};
use acode_worker::sys::ladder::Ladder;
use acode_worker::task::HeldLimit;
use serde::Serialize;

use crate::config::Config;
use crate::rundir::Dirs;

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It is there.
    Ok,
    /// It is not, or not as well as it could be, and nothing in the configuration needs it.
    Note,
    /// It is not, and acode or the configuration needs it.
    Bad,
}

impl Health {
    /// Its name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub verdict: Health,
    /// What was found, in words.
    pub found: String,
    /// What helps, if it could be better.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Self {
        Self { check: "", verdict: Health::Ok, found: found.into(), remedy: None }
    }

    fn note(found: impl Into<String>, remedy: &str) -> Self {
        Self { verdict: Health::Note, remedy: Some(remedy.to_owned()), ..Self::ok(found) }
    }

    fn bad(found: impl Into<String>, remedy: &str) -> Self {
        Self { verdict: Health::Bad, ..Self::note(found, remedy) }
    }

    /// `found` if it is there, else `missing` with what helps.
    fn have(there: bool, found: &str, missing: &str, remedy: &str) -> Self {
        if there { Self::ok(found) } else { Self::note(missing, remedy) }
    }
}

/// What the checks look at.
#[derive(Debug)]
pub struct Host<'h> {
    /// What is configured.
    pub config: &'h Config,
    /// Where the pool would live.
    pub dirs: &'h Dirs,
    /// How far limits could be held.
    pub ladder: Ladder,
    /// What sandboxes could be made with.
    pub abilities: Abilities,
}

impl<'h> Host<'h> {
    /// This host, for a pool with this configuration and these directories.
    pub fn new(config: &'h Config, dirs: &'h Dirs) -> Self {
        Self { config, dirs, ladder: cgroup::probe(), abilities: confine::survey() }
    }
}

/// A check by its name.
type Check = (&'static str, fn(&Host<'_>) -> Finding);

/// All checks, in the order in which they are told.
const CHECKS: &[Check] = &[
    ("kernel", kernel::version),
    ("clone3", kernel::clone3),
    ("pidfd", kernel::pidfd),
    ("openat2", kernel::openat2),
    ("pressure", kernel::pressure),
    ("clock", kernel::clock),
    ("cgroup", cgroups::rung),
    ("controllers", cgroups::controllers),
    ("delegation", cgroups::delegation),
    ("cgroup.kill", cgroups::kill),
    ("user namespaces", kernel::user_namespaces),
    ("landlock", kernel::landlock),
    ("seccomp", kernel::seccomp),
    ("sandbox network", sandbox::network),
    ("sandbox filesystem", sandbox::filesystem),
    ("sandbox devices", sandbox::devices),
    ("sandbox user", sandbox::user),
    ("signals", sandbox::signals),
    ("open files", kernel::open_files),
    ("state directory", storage::writable),
    ("file system", storage::file_system),
    ("free space", storage::free_space),
    ("project quota", storage::project_quota),
    ("loop devices", storage::loop_devices),
    ("disk limits", storage::disk_limits),
    ("systemd", programs::systemd),
    ("docker", docker::engine),
];

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether all that acode and the configuration need is there.
    pub healthy: bool,
    /// The checks.
    pub checks: Vec<Finding>,
    /// Each configured limit of tasks, as it would be held here.
    pub limits: Vec<HeldLimit>,
}

/// Looks at everything. The calling process must be single-threaded, and gives up gaining privileges by exec.
pub fn examine(host: &Host<'_>) -> Report {
    let checks: Vec<Finding> = CHECKS.iter().map(|(check, look)| Finding { check, ..look(host) }).collect();
    let limits = limits::held(host);
    let unheld = limits.iter().any(|held| held.hold == acode_worker::task::Hold::None);
    let healthy = !unheld && checks.iter().all(|finding| finding.verdict != Health::Bad);
    Report { healthy, checks, limits }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_check_finds_something_and_a_fault_has_a_remedy() {
        let config = Config::default();
        let dirs = Dirs { state: "/var/tmp".into(), runtime: "/var/tmp".into() };
        let report = examine(&Host::new(&config, &dirs));
        assert_eq!(report.checks.len(), CHECKS.len());
        for finding in &report.checks {
            assert!(!finding.found.is_empty() && !finding.check.is_empty(), "{finding:?}");
            assert_eq!(finding.remedy.is_some(), finding.verdict != Health::Ok, "{finding:?}");
        }
        assert_eq!(report.limits, []);
    }

    #[test]
    fn limits_are_held_as_well_as_the_controllers_allow() {
        let mut config = Config::default();
        config.workers.limits.cpu_percent = Some(50);
        config.workers.limits.memory_mb = Some(64);
        config.workers.limits.disk_mb = Some(10);
        let dirs = Dirs { state: "/var/tmp".into(), runtime: "/var/tmp".into() };
        let mut host = Host::new(&config, &dirs);
        let holds = |host: &Host<'_>| -> Vec<_> { limits::held(host).iter().map(|held| held.hold).collect() };
        use acode_worker::sys::ladder::Controllers;
        use acode_worker::task::Hold::{Enforced, None, Observed};
        let controllers = Controllers { cpu: true, memory: true, ..Controllers::default() };
        host.ladder = Ladder { controllers, ..Ladder::default() };
        assert_eq!(holds(&host)[..2], [Enforced, Enforced]);
        host.ladder = Ladder::default();
        assert_eq!(holds(&host)[..2], [None, Observed]);
        assert!(!examine(&host).healthy, "a limit that nothing holds is a fault");
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_its_parent() {
        assert_eq!(storage::nearest(Path::new("/var/tmp/acode-no-such/a/b")), Path::new("/var/tmp"));
    }
}
