//! Memory and processes of a tree by looking at `/proc`, for hosts whose kernel does not count them for us.
//!
//! An attempt may be above its limit between two looks; that is why such a limit is told as observed. Deliberately absent:
//! any counting for the records, which is `meter`'s.

use std::fs;

use super::Over;
use crate::sys::cgroup::Leaf;
use crate::sys::{clock, tree};

/// What such a limit is held by.
pub const BY: &str = "sampling of /proc every 100 ms";

/// The limits that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Sampler {
    /// The limit that is exceeded, if one is, and how long it took to look, in nanoseconds.
    pub fn look(&self, leaf: Option<&Leaf>) -> (Option<Over>, u64) {
        // Not the time that passes: on a busy machine most of that is waiting, and the next look must not wait for it.
        let began_ns = clock::thread_cpu_ns();
        let found = self.find(leaf);
        (found, clock::thread_cpu_ns().saturating_sub(began_ns))
    }

    fn find(&self, leaf: Option<&Leaf>) -> Option<Over> {
        // Beside those in the leaf there may be some that have moved elsewhere, or into a cgroup of their own below it.
        let mut pids = tree::descendants();
        pids.extend(leaf.and_then(|leaf| leaf.pids().ok()).unwrap_or_default());
        pids.sort_unstable();
        pids.dedup();
        let (mut threads, mut resident) = (0, 0);
        for (its_threads, its_resident) in pids.iter().filter_map(|pid| look_at(*pid)) {
            threads += its_threads;
            resident += its_resident;
        }
        if self.pids.is_some_and(|limit| threads > limit) {
            return Some(Over::Pids);
        }
        // Shared pages count for each process that has them, so a sum above the limit is looked at again, by the slower way
        // that counts them once.
        let limit = self.memory.filter(|limit| resident > *limit)?;
        let shared: u64 = pids.iter().filter_map(|pid| proportional(*pid)).sum();
        (shared > limit).then_some(Over::Memory)
    }
}

/// Threads and resident bytes of a process; `None` when it is gone.
fn look_at(pid: i32) -> Option<(u64, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    // The command in parentheses may hold anything. Threads are field 20, resident pages field 24.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let pages: u64 = fields.get(21)?.parse().ok()?;
    Some((fields.get(17)?.parse().ok()?, pages.saturating_mul(page_bytes())))
}

/// A process' share of the memory that it uses, in bytes.
fn proportional(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.saturating_mul(1_024))
}

fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok().flatten().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4_096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let numbers = (3..=30).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("7 (a) b (c)) {numbers}\n");
        assert_eq!(parse_stat(&stat), Some((20, 24 * page_bytes())));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn this_process_has_a_thread_and_memory() {
        let (threads, resident) = look_at(std::process::id() as i32).unwrap();
        assert!(threads >= 1 && resident > 100_000);
        let share = proportional(std::process::id() as i32).unwrap();
        assert!(share > 0 && share <= resident * 2);
    }
}
