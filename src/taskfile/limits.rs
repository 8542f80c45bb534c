//! The keys under `limits` of a task: the same as those of the configuration. Deliberately absent: how they are held.

use acode_worker::task::{Limits, OverLimitAction};

use super::schema::is_none;
use crate::tree::{Entry, Fault, Node};

const KEYS: [&str; 11] = [
    "cpuPercent",
    "cpuWeight",
    "memoryMb",
    "swapMb",
    "diskMb",
    "diskFiles",
    "pids",
    "ioWeight",
    "ioReadBytes",
    "ioWriteBytes",
    "overLimitAction",
];

/// Reads the mapping `limits` over what is there.
pub(super) fn apply(limits: &mut Limits, node: &Node<'_>) -> Result<(), Fault> {
    for Entry { at, key, node } in node.entries("limits")? {
        let path = format!("limits.{key}");
        let amount = || if is_none(node) { Ok(None) } else { node.as_whole(&path).map(Some) };
        // What does not fit is above every range, and refused for that.
        let count = || Ok(amount()?.map(|number| u32::try_from(number).unwrap_or(u32::MAX)));
        match key.as_ref() {
            "cpuPercent" => limits.cpu_percent = count()?,
            "cpuWeight" => limits.cpu_weight = count()?,
            "memoryMb" => limits.memory_mb = amount()?,
            "swapMb" => limits.swap_mb = amount()?,
            "diskMb" => limits.disk_mb = amount()?,
            "diskFiles" => limits.disk_files = amount()?,
            "pids" => limits.pids = count()?,
            "ioWeight" => limits.io_weight = count()?,
            "ioReadBytes" => limits.io_read_bytes = amount()?,
            "ioWriteBytes" => limits.io_write_bytes = amount()?,
            "overLimitAction" => limits.action = action(node, &path)?,
            unknown => return Err(Fault::unknown_key(*at, unknown, "limits", KEYS)),
        }
    }
    Ok(())
}

fn action(node: &Node<'_>, path: &str) -> Result<Option<OverLimitAction>, Fault> {
    match node.as_text(path)? {
        "none" => Ok(None),
        "warn" => Ok(Some(OverLimitAction::Warn)),
        "throttle" => Ok(Some(OverLimitAction::Throttle)),
        "kill" => Ok(Some(OverLimitAction::Kill)),
        _ => Err(node.refused(path, "warn, throttle or kill")),
    }
}
