//! Where the tests run: on any machine, or in the QEMU machine of `scripts/vm`, which has what they cannot count on.
//!
//! There each pool is born in a delegated cgroup of its own, as systemd would give it one. Deliberately absent: making
//! such a place elsewhere; what the machine at hand has is used as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Whether this is that machine, where nothing may be skipped; elsewhere it says that `what` is not tested here.
pub fn in_machine(what: &str) -> bool {
    let there = std::env::var_os("ACODE_TEST_VM").is_some();
    if !there {
        eprintln!("skipped: {what}: only in the QEMU machine, by scripts/vm test");
    }
    there
}

/// So much longer on a machine that is slow by nature: what is emulated says so in `ACODE_TEST_SLOWNESS`.
pub fn scaled(duration: Duration) -> Duration {
    let slowness = std::env::var("ACODE_TEST_SLOWNESS").ok().and_then(|text| text.parse().ok());
    duration * slowness.unwrap_or(1)
}

/// A cgroup that is handed to one pool, with every controller there is; removed with the value.
#[derive(Debug)]
pub struct Delegated(PathBuf);

impl Delegated {
    /// Makes one, where there is a place for it.
    pub fn make() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = PathBuf::from(std::env::var_os("ACODE_TEST_CGROUP")?);
        let name = format!("pool-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(parent.join(&name)).unwrap();
        Some(Self(parent.join(name)))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A command that runs `program` in it from its first instruction on, under the same pid.
    pub fn command(&self, program: &str) -> Command {
        disarm(&self.0);
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0).arg(program);
        command
    }
}

impl Drop for Delegated {
    /// The pool takes its tasks' cgroups away; those it sits in itself outlive it.
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Takes controllers back that a pool which was killed has handed on: no process could be born here before. systemd would
/// have removed the whole tree.
fn disarm(cgroup: &Path) {
    for child in fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        disarm(&child.path());
    }
    let file = cgroup.join("cgroup.subtree_control");
    for name in fs::read_to_string(&file).unwrap_or_default().split_ascii_whitespace() {
        let _ = fs::write(&file, format!("-{name}"));
    }
}

fn remove(cgroup: &Path) {
    for child in fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&child.path());
    }
    if let Err(error) = fs::remove_dir(cgroup) {
        eprintln!("{}: {error}", cgroup.display());
    }
}
