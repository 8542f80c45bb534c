//! The options that limit a task as a whole, and what they come to. Deliberately absent: how a limit is held.

use acode_worker::task::{Limits, OverLimitAction, Rlimits};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::values;
use crate::config::Named;

/// What a task may use. Sizes have a unit, as in 512M or 2G.
#[derive(Debug, Default, Clone, Copy, clap::Args)]
pub struct LimitOptions {
    /// CPU time, in percent of one processor: 250 is two and a half
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=409_600))]
    pub cpu_percent: Option<u32>,
    /// Share of the processors where tasks compete for them, 1 to 10000 [default: 100]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub cpu_weight: Option<u32>,
    /// CPU time in seconds after which each of its processes is killed
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub cpu_seconds: Option<u64>,
    /// Memory of all its processes together
    #[arg(long, value_name = "SIZE", value_parser = values::mebibytes)]
    pub memory: Option<u64>,
    /// Swap space beside its memory [default: none if its memory is limited]
    #[arg(long, value_name = "SIZE", value_parser = values::mebibytes_or_none)]
    pub swap: Option<u64>,
    /// Disk space of its scratch directory
    #[arg(long, value_name = "SIZE", value_parser = values::mebibytes)]
    pub disk: Option<u64>,
    /// Files, directories and links in its scratch directory
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub disk_files: Option<u64>,
    /// Processes and threads at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Option<u32>,
    /// Share of the disk's time where tasks compete for it, 1 to 10000 [default: 100]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub io_weight: Option<u32>,
    /// Bytes read a second from the disk of the state directory
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    pub io_read: Option<u64>,
    /// Bytes written a second to the disk of the state directory
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    pub io_write: Option<u64>,
    /// What happens above its memory or disk limit [default: workers.resources.overLimitAction]
    #[arg(long, value_name = "WHAT", value_parser = action_parser())]
    pub over_limit: Option<OverLimitAction>,
}

impl LimitOptions {
    /// The limits of the task as a whole.
    pub fn limits(&self) -> Limits {
        Limits {
            cpu_percent: self.cpu_percent,
            cpu_weight: self.cpu_weight,
            memory_mb: self.memory,
            swap_mb: self.swap,
            disk_mb: self.disk,
            disk_files: self.disk_files,
            pids: self.pids,
            io_weight: self.io_weight,
            io_read_bytes: self.io_read,
            io_write_bytes: self.io_write,
            action: self.over_limit,
        }
    }

    /// The limits of each of its processes.
    pub fn rlimits(&self) -> Rlimits {
        Rlimits { cpu_seconds: self.cpu_seconds, ..Rlimits::default() }
    }
}

fn action_parser() -> impl TypedValueParser<Value = OverLimitAction> {
    PossibleValuesParser::new(OverLimitAction::NAMES.iter().map(|(name, _)| *name))
        .map(|name| OverLimitAction::from_name(&name).unwrap_or_default())
}
