//! What living processes use, by `/proc`: for hosts where no cgroup counts it.
//!
//! A process that ends meanwhile counts as nothing. Deliberately absent: what ended processes have used, which is known
//! when they are reaped.

use std::fs::File;
use std::io::Read;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use super::tree::Used;

/// What some processes use at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InUse {
    /// CPU time of the living and of those that they have waited for, in microseconds.
    pub cpu_us: u64,
    /// Resident memory in bytes: what each has for itself, and once the largest share that one has with others.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
}

/// Looks at these processes, at most at `most` of them; the rest counts as one thread each and no memory.
pub fn of(pids: &[i32], most: usize) -> InUse {
    let mut all = InUse { tasks: pids.len().saturating_sub(most) as u64, ..InUse::default() };
    let mut shared_most = 0;
    for pid in pids.iter().take(most) {
        let Some((cpu_us, tasks)) = stat(*pid) else { continue };
        let (own, shared) = statm(*pid).unwrap_or_default();
        all.cpu_us += cpu_us;
        all.tasks += tasks;
        all.memory_bytes += own;
        shared_most = shared_most.max(shared);
    }
    all.memory_bytes += shared_most;
    all
}

/// What this process has used since its birth, all of its threads, with the children that it has waited for; but for the
/// largest resident set, which nobody can tell apart.
pub fn of_ourselves() -> Used {
    let mut all = Used::default();
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        // It cannot fail for these two.
        let Ok(used) = getrusage(who) else { continue };
        let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
        let bytes = |blocks: i64| u64::try_from(blocks).unwrap_or(0) * 512;
        all.user_us += micros(used.user_time());
        all.system_us += micros(used.system_time());
        all.read_bytes += bytes(used.block_reads());
        all.written_bytes += bytes(used.block_writes());
    }
    all
}

/// CPU time in microseconds, and threads. Nothing of a process that has ended and waits to be reaped but its time.
fn stat(pid: i32) -> Option<(u64, u64)> {
    let mut text = [0; 1024];
    let text = read(&format!("/proc/{pid}/stat"), &mut text)?;
    // The name is in parentheses and may hold any byte, parentheses too.
    let behind = text.iter().rposition(|byte| *byte == b')')? + 1;
    let fields: Vec<&str> = std::str::from_utf8(&text[behind..]).ok()?.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    // From the state, which is field 3 of proc(5): utime 14, stime 15, cutime 16, cstime 17, num_threads 20.
    let ticks = number(11) + number(12) + number(13) + number(14);
    let tasks = if fields.first() == Some(&"Z") { 0 } else { number(17) };
    Some((ticks * 1_000_000 / procfs::ticks_per_second().max(1), tasks))
}

/// Bytes in memory that the process has for itself, and those that it may share.
fn statm(pid: i32) -> Option<(u64, u64)> {
    let mut text = [0; 256];
    let text = std::str::from_utf8(read(&format!("/proc/{pid}/statm"), &mut text)?).ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map(|word| word.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (pages.next()?, pages.next()?);
    let page = procfs::page_size();
    Some((resident.saturating_sub(shared) * page, shared * page))
}

fn read<'t>(path: &str, text: &'t mut [u8]) -> Option<&'t [u8]> {
    let length = File::open(path).ok()?.read(text).ok()?;
    Some(&text[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_found_and_what_is_gone_counts_nothing() {
        let own = std::process::id() as i32;
        let began = std::time::Instant::now();
        let used = loop {
            let used = of(&[own, i32::MAX], 9);
            if used.cpu_us > 0 || began.elapsed().as_secs() > 20 {
                break used;
            }
        };
        assert!(used.cpu_us > 0 && used.memory_bytes > 100_000 && used.tasks >= 1, "{used:?}");
        assert_eq!(of(&[i32::MAX], 9), InUse::default());
    }

    #[test]
    fn a_crowd_is_looked_at_in_part_and_counted_whole() {
        assert_eq!(of(&[i32::MAX; 5], 2).tasks, 3);
    }
}
