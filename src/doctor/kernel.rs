//! The kernel: its version, and the calls that acode can make use of.

use std::fs;
use std::path::Path;

use acode_worker::sys::features;
use nix::sys::resource::{Resource, getrlimit};

use super::{Finding, Host};

/// The oldest kernel that acode is made for.
const OLDEST: (u32, u32) = (5, 14);
/// Descriptors that a worker costs the supervisor: three pipes and descriptors of its process and cgroup.
const FDS_PER_WORKER: u64 = 5;
/// Descriptors of the supervisor beside workers and clients.
const FDS_ELSE: u64 = 64;

/// Version of the running kernel: its first two numbers.
pub fn release() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Its version.
pub fn version(_: &Host<'_>) -> Finding {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match release() {
        Some(version) if version >= OLDEST => Finding::ok(format!("Linux {}", text.trim())),
        Some(_) => Finding::note(format!("Linux {}", text.trim()), "acode is made for Linux 5.14 and later"),
        None => Finding::bad("/proc/sys/kernel/osrelease cannot be read", "mount /proc"),
    }
}

/// Birth inside of a cgroup.
pub fn clone3(_: &Host<'_>) -> Finding {
    let remedy =
        "allow clone3 in the container's seccomp profile: until then tasks are moved to their cgroup after birth";
    Finding::have(features::has_clone3(), "tasks are born into their cgroup", "not there, or forbidden", remedy)
}

/// Processes held by descriptors.
pub fn pidfd(_: &Host<'_>) -> Finding {
    match features::has_pidfd() {
        true => Finding::ok("there"),
        false => {
            Finding::bad("not there, or forbidden", "use Linux 5.4 or later, and allow pidfd_open in the container")
        }
    }
}

/// Paths that cannot lead outside.
pub fn openat2(_: &Host<'_>) -> Finding {
    Finding::have(features::has_openat2(), "there", "not there, or forbidden", "use Linux 5.6 or later")
}

/// Pressure stall information.
pub fn pressure(host: &Host<'_>) -> Finding {
    if Path::new("/proc/pressure/memory").exists() {
        return Finding::ok("there");
    }
    let limits = &host.config.backpressure;
    let usual = crate::config::Config::default().backpressure.max_memory_pressure;
    let asked = limits.max_io_pressure.is_some()
        || limits.max_cpu_pressure.is_some()
        || (limits.max_memory_pressure.is_some() && limits.max_memory_pressure != usual);
    let remedy = "boot with psi=1: until then the limits of pressure in 'backpressure' have no effect";
    match asked && limits.enabled {
        true => Finding::bad("not there, and 'backpressure' asks for it", remedy),
        false => Finding::note("not there", remedy),
    }
}

/// Whether the clock can be believed: ids and times of events come from it.
pub fn clock(_: &Host<'_>) -> Finding {
    const YEAR_2020_MS: u128 = 1_577_836_800_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    match now > YEAR_2020_MS {
        true => Finding::ok("plausible"),
        false => Finding::bad("set to before 2020", "set the clock: times of start and age of tasks go by it"),
    }
}

/// Whether sandboxes can be had without privileges.
pub fn user_namespaces(_: &Host<'_>) -> Finding {
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let most = number("/proc/sys/user/max_user_namespaces");
    let forbidden = number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0)
        || number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1);
    let root = nix::unistd::geteuid().is_root();
    match most {
        None => Finding::note("not in this kernel", "use a kernel with CONFIG_USER_NS"),
        Some(0) => Finding::note("switched off", "set the sysctl user.max_user_namespaces"),
        Some(_) if forbidden && !root => Finding::note(
            "forbidden to ordinary users",
            "set the sysctl kernel.unprivileged_userns_clone, or allow acode in AppArmor",
        ),
        Some(_) => Finding::ok("there"),
    }
}

/// Landlock's version.
pub fn landlock(host: &Host<'_>) -> Finding {
    match host.abilities.landlock {
        1.. => Finding::ok(format!("ABI {}", host.abilities.landlock)),
        0 => Finding::note("not there", "use Linux 5.13 or later, and boot with landlock among lsm="),
    }
}

/// Filters of system calls.
pub fn seccomp(_: &Host<'_>) -> Finding {
    Finding::have(features::has_seccomp(), "there", "not there", "use a kernel with CONFIG_SECCOMP_FILTER")
}

/// Descriptors, against what the workers and clients that are configured take.
pub fn open_files(host: &Host<'_>) -> Finding {
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Finding::note("the limit cannot be read", "see getrlimit(2)");
    };
    let workers = u64::from(host.config.workers.count.max(host.config.workers.scaling.max_count));
    let need = FDS_ELSE + workers * FDS_PER_WORKER + u64::from(host.config.control.max_connections);
    let found = format!("{soft}, and {workers} workers with their clients may need {need}");
    match soft >= need {
        true => Finding::ok(found),
        false => Finding::bad(found, "raise LimitNOFILE= of the unit, or ulimit -n"),
    }
}
