//! Each limit of tasks that is configured, as it would be held here.

use acode_worker::task::{HeldLimit, Hold};

use super::{Host, storage};

/// How the limits of `workers.limits` would be held.
pub fn held(host: &Host<'_>) -> Vec<HeldLimit> {
    let limits = &host.config.workers.limits;
    let has = |name: &str| host.ladder.controllers.named().iter().any(|(known, has)| *known == name && *has);
    let by = |name: &str, file: &str, otherwise: Hold| match has(name) {
        true => (Hold::Enforced, file.to_owned()),
        false if otherwise == Hold::Observed => (otherwise, "sampling".to_owned()),
        false => (otherwise, format!("there is no {name} controller")),
    };
    let none = Hold::None;
    let known = [
        ("cpuPercent", limits.cpu_percent.map(u64::from), by("cpu", "cpu.max", none)),
        ("cpuWeight", limits.cpu_weight.map(u64::from), by("cpu", "cpu.weight", none)),
        ("memoryMb", limits.memory_mb, by("memory", "memory.max", Hold::Observed)),
        ("swapMb", limits.swap_mb, by("memory", "memory.swap.max", none)),
        ("pids", limits.pids.map(u64::from), by("pids", "pids.max", Hold::Observed)),
        ("ioWeight", limits.io_weight.map(u64::from), by("io", "io.weight", none)),
        ("ioReadBytes", limits.io_read_bytes, by("io", "io.max", none)),
        ("ioWriteBytes", limits.io_write_bytes, by("io", "io.max", none)),
        ("diskMb", limits.disk_mb, storage::holds_disk(host)),
        ("diskFiles", limits.disk_files, storage::holds_disk(host)),
    ];
    let set = known.into_iter().filter_map(|(limit, value, (hold, by))| Some((limit, value?, hold, by)));
    set.map(|(limit, value, hold, by)| HeldLimit { limit: limit.to_owned(), value, hold, by, exceeded: false })
        .collect()
}
