//! Limits in docker's words.
//!
//! Docker knows no limit that is only told of, and none that slows down: in a container the memory limit is a wall, whatever
//! happens above it elsewhere. Disk limits are those of the scratch directory, which the host holds. Deliberately absent:
//! whether the kernel has taken them, which `cgroup` reads back.

use crate::task::{Limits, Rlimits};

/// The share of the processors that v1 gives to who says nothing.
const SHARES_DEFAULT: u64 = 1024;
/// The least and the largest share.
const SHARES: (u64, u64) = (2, 262_144);
/// The same on v2.
const WEIGHTS: (u64, u64) = (1, 10_000);

/// What docker has no option for, each with why.
pub fn unheld(limits: &Limits, device: Option<&str>) -> Vec<(&'static str, &'static str)> {
    let bandwidth = [("ioReadBytes", limits.io_read_bytes), ("ioWriteBytes", limits.io_write_bytes)];
    let no_device = bandwidth
        .into_iter()
        .filter(|(_, bytes)| bytes.is_some() && device.is_none())
        .map(|(key, _)| (key, "the state directory lies on no block device"));
    let weight = limits.io_weight.map(|_| ("ioWeight", "docker counts shares of the disk in other steps"));
    let swap = limits.swap_mb.filter(|_| limits.memory_mb.is_none());
    let swap = swap.map(|_| ("swapMb", "docker limits swap space together with memory only, and memoryMb is not set"));
    swap.into_iter().chain(weight).chain(no_device).collect()
}

/// The options for limits of the container as a whole.
pub fn options(limits: &Limits, unified: bool, device: Option<&str>) -> Vec<String> {
    let mut options = Vec::new();
    if let Some(mb) = limits.memory_mb {
        options.push(format!("--memory={mb}m"));
        // Docker's figure is of both together; without it, it would be twice the memory.
        options.push(format!("--memory-swap={}m", mb.saturating_add(limits.swap_mb.unwrap_or(0))));
    }
    if let Some(percent) = limits.cpu_percent {
        options.push(format!("--cpus={}.{:02}", percent / 100, percent % 100));
    }
    if let Some(weight) = limits.cpu_weight {
        options.push(format!("--cpu-shares={}", shares(weight, unified)));
    }
    if let Some(pids) = limits.pids {
        options.push(format!("--pids-limit={pids}"));
    }
    for (option, bytes) in [("device-read-bps", limits.io_read_bytes), ("device-write-bps", limits.io_write_bytes)] {
        if let (Some(device), Some(bytes)) = (device, bytes) {
            options.push(format!("--{option}={device}:{bytes}"));
        }
    }
    options
}

/// A weight, of which 100 is the usual one, as docker's shares. On v2 the runtime turns them into a weight again, by a line
/// from the one range to the other; newer runtimes have a curve instead, so what has become of it must be read back.
pub fn shares(weight: u32, unified: bool) -> u64 {
    let weight = u64::from(weight);
    let shares = match unified {
        true => {
            let (from, to) = (WEIGHTS.1 - WEIGHTS.0, SHARES.1 - SHARES.0);
            SHARES.0 + ((weight.max(WEIGHTS.0) - WEIGHTS.0) * to).div_ceil(from)
        }
        false => weight * SHARES_DEFAULT / 100,
    };
    shares.clamp(SHARES.0, SHARES.1)
}

/// The options for limits of each process. Core dumps are off unless somebody wants them.
pub fn ulimits(rlimits: &Rlimits) -> Vec<String> {
    // The address space is none that docker knows: a task's own is refused, and the pool's is for processes.
    let Rlimits { core_bytes, open_files, file_size_bytes, address_space_bytes: _, cpu_seconds, processes } = *rlimits;
    let all = [
        ("core", Some(core_bytes.unwrap_or(0))),
        ("nofile", open_files),
        ("fsize", file_size_bytes),
        ("cpu", cpu_seconds),
        ("nproc", processes),
    ];
    all.into_iter().filter_map(|(name, value)| Some(format!("--ulimit={name}={}", value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_told_to_the_hundredth() {
        let of = |percent| options(&Limits { cpu_percent: Some(percent), ..Limits::default() }, true, None);
        assert_eq!([of(1), of(50), of(250)].concat(), ["--cpus=0.01", "--cpus=0.50", "--cpus=2.50"]);
    }

    #[test]
    fn a_weight_comes_out_of_the_runtimes_line_as_it_went_in() {
        for weight in 1..=10_000 {
            let shares = shares(weight, true);
            let back = 1 + (shares - 2) * 9_999 / 262_142;
            assert_eq!(back, u64::from(weight));
        }
        assert_eq!(
            (shares(100, false), shares(50, false), shares(1, false), shares(10_000, false)),
            (1024, 512, 10, 102_400)
        );
    }

    #[test]
    fn swap_space_is_beside_the_memory() {
        let limits = Limits { memory_mb: Some(64), ..Limits::default() };
        assert_eq!(options(&limits, true, None), ["--memory=64m", "--memory-swap=64m"]);
        let limits = Limits { swap_mb: Some(16), ..limits };
        assert_eq!(options(&limits, true, None), ["--memory=64m", "--memory-swap=80m"]);
    }

    #[test]
    fn what_docker_cannot_hold_is_named() {
        let limits = Limits { swap_mb: Some(1), io_weight: Some(1), io_read_bytes: Some(4096), ..Limits::default() };
        let keys = |device| unheld(&limits, device).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(None), ["swapMb", "ioWeight", "ioReadBytes"]);
        assert_eq!(keys(Some("8:0")), ["swapMb", "ioWeight"]);
        assert_eq!(options(&limits, true, Some("/dev/sda")), ["--device-read-bps=/dev/sda:4096"]);
        assert_eq!(options(&limits, true, None), Vec::<String>::new());
    }

    #[test]
    fn core_dumps_are_off_unless_somebody_wants_them() {
        assert_eq!(ulimits(&Rlimits::default()), ["--ulimit=core=0"]);
        let all = Rlimits {
            core_bytes: Some(1),
            open_files: Some(2),
            file_size_bytes: Some(3),
            address_space_bytes: Some(4),
            cpu_seconds: Some(5),
            processes: Some(6),
        };
        let expected =
            ["--ulimit=core=1", "--ulimit=nofile=2", "--ulimit=fsize=3", "--ulimit=cpu=5", "--ulimit=nproc=6"];
        assert_eq!(ulimits(&all), expected);
    }
}
