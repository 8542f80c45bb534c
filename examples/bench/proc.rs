//! What the kernel says about processes: memory, wake-ups, children.

use std::fs;

use super::pool::Outcome;

/// The supervisor, its nursery and its workers.
pub fn family(supervisor: i32) -> Outcome<Vec<i32>> {
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"))?;
    let mut all = vec![supervisor];
    for pid in children.split_ascii_whitespace() {
        all.push(pid.parse()?);
    }
    Ok(all)
}

/// The number of a line `NAME: number ..` in a file of `/proc/PID`.
fn field(pid: i32, file: &str, name: &str) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
    Ok(line.trim_start_matches(':').split_ascii_whitespace().next().ok_or("no number")?.parse()?)
}

/// Proportional share of memory of all of them, in MB.
pub fn pss_mb(pids: &[i32]) -> Outcome<f64> {
    let mut kib = 0;
    for pid in pids {
        kib += field(*pid, "smaps_rollup", "Pss")?;
    }
    Ok(kib as f64 * 1_024.0 / 1e6)
}

/// Resident memory of one, in MB.
pub fn rss_mb(pid: i32) -> Outcome<f64> {
    Ok(field(pid, "status", "VmRSS")? as f64 * 1_024.0 / 1e6)
}

/// How often all of them went to sleep so far.
pub fn sleeps(pids: &[i32]) -> Outcome<u64> {
    pids.iter().map(|pid| field(*pid, "status", "voluntary_ctxt_switches")).sum()
}

/// Processor time of all of them and of the children that they have waited for, in microseconds.
pub fn cpu_us(pids: &[i32]) -> Outcome<f64> {
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let rest = stat.rsplit_once(')').ok_or("no name")?.1;
        // Fields 14 to 17: its own user and system time, and its children's.
        for field in rest.split_ascii_whitespace().skip(11).take(4) {
            ticks += field.parse::<u64>()?;
        }
    }
    // USER_HZ is 100 on every architecture that we run on.
    Ok(ticks as f64 * 10_000.0)
}

/// The name of a process.
pub fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
