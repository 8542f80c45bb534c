//! Strays: processes of dead workers' tasks that nobody is the parent of any more, found by their environment.
//!
//! The last resort where no cgroup holds a tree together and the supervisor, to which orphans fall, has died as well. A
//! process that has changed its environment is not found. Deliberately absent: any search while a pool runs; its
//! supervisor has all orphans as its children.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::process;

/// Kills every process in whose environment a variable begins with `beginning`, as in `NAME=value`. True when none is
/// left at the end; false when one would not die within `patience`.
pub fn kill_by_environment(beginning: &[u8], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let strays = find(beginning);
        if strays.is_empty() {
            return true;
        }
        for pid in strays {
            // The pidfd comes first: what it holds cannot change under the check of what it is.
            if let Ok(pidfd) = process::pidfd_open(pid)
                && has_variable(pid, beginning)
            {
                let _ = process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
            }
        }
        if Instant::now() >= deadline {
            return false;
        }
        // One that forked while we looked has a child that only the next look finds.
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn find(beginning: &[u8]) -> Vec<i32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse().ok());
    pids.filter(|pid| has_variable(*pid, beginning)).collect()
}

/// Whether such a variable was in the process' environment when it was executed. One that has ended, or belongs to
/// somebody else, shows none.
fn has_variable(pid: i32, beginning: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_processes_with_the_variable_are_killed() {
        let mark = format!("stray-test-{}", std::process::id());
        let run = |value: &str| Command::new("sleep").arg("300").env("STRAY", value).spawn().unwrap();
        let (mut ours, mut other) = (run(&format!("{mark}/x")), run("another"));
        let beginning = format!("STRAY={mark}/");
        // Whoever starts a process goes on a moment before the new program's environment can be seen.
        let deadline = Instant::now() + Duration::from_secs(20);
        while ![ours.id(), other.id()].iter().all(|pid| has_variable(*pid as i32, b"STRAY=")) {
            assert!(Instant::now() < deadline, "no environment is seen");
            std::thread::yield_now();
        }
        // A zombie shows no environment, so it need not be reaped to be gone.
        assert!(kill_by_environment(beginning.as_bytes(), Duration::from_secs(20)));
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
