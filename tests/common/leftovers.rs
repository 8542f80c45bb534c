//! What a pool has left in the world: found without asking it.
//!
//! Supervisor, nursery and workers are forks of one process, so all of them show the state directory in their command
//! line; tasks, and whatever they start, have it in their environment. What hides from both is found in the pool's
//! cgroup. Deliberately absent: any trust in what the pool says about itself.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

/// The living processes that belong to the pool with this state directory, and what they are.
pub fn processes_of(state: &Path) -> Vec<(u32, String)> {
    let mark = state.as_os_str().as_bytes();
    let mut members =
        super::cgroup_of(state).map(|path| acode_worker::sys::cgroup::pids_below(&path)).unwrap_or_default();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // What is gone meanwhile, or somebody else's, cannot be read and is not ours.
        let holds = |name: &str| fs::read(entry.path().join(name)).is_ok_and(|text| mentions(&text, mark));
        if pid != std::process::id() as i32 && (holds("cmdline") || holds("environ")) {
            members.push(pid);
        }
    }
    members.sort_unstable();
    members.dedup();
    let living = members.into_iter().map(i32::cast_unsigned).filter(|pid| super::is_alive(*pid));
    living.map(|pid| (pid, describe(pid))).collect()
}

fn mentions(text: &[u8], mark: &[u8]) -> bool {
    text.windows(mark.len()).any(|window| window == mark)
}

fn describe(pid: u32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{} ({})", comm.trim(), String::from_utf8_lossy(&cmdline).replace('\0', " ").trim())
}

/// What is left of the pool, in words.
pub fn of(state: &Path) -> Vec<String> {
    let mut left: Vec<String> =
        processes_of(state).into_iter().map(|(pid, what)| format!("process {pid}: {what}")).collect();
    if let Some(cgroup) = super::cgroup_of(state).filter(|path| path.exists()) {
        left.push(format!("cgroup {}", cgroup.display()));
    }
    for folder in ["rooms", "run/spill"] {
        let entries = fs::read_dir(state.join(folder)).into_iter().flatten().flatten();
        left.extend(entries.map(|entry| format!("file {}", entry.path().display())));
    }
    let socket = state.join("run/control.sock");
    if socket.exists() {
        left.push(format!("socket {}", socket.display()));
    }
    left
}

/// Kills and removes all that is left, so that a test which fails does not disturb the others.
pub fn kill_all(state: &Path) {
    let gone = super::eventually(Duration::from_secs(10), || {
        let left = processes_of(state);
        left.iter().for_each(|(pid, _)| super::signal(*pid, Signal::SIGKILL));
        left.is_empty()
    });
    if let Some(cgroup) = super::cgroup_of(state) {
        let _ = acode_worker::sys::cgroup::kill_and_remove(&cgroup, Duration::from_secs(2));
    }
    if !gone {
        eprintln!("not everything of the pool in {} could be killed", state.display());
    }
}
