//! How many processors the pool may use: those of the affinity mask, limited by the CPU quota of its cgroups.
//!
//! Reads `/proc` and `/sys/fs/cgroup` only; changes nothing. Deliberately absent: limits that acode sets itself.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// The processors that this process may use, at least 1: those of its affinity mask, but not more than the smallest
/// `cpu.max` (v2) or `cpu.cfs_quota_us` (v1) on the way from its cgroup to the root grants, rounded up.
pub fn usable_cpus() -> u32 {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    limited(affinity(), quota(&membership, &mounts))
}

/// `cpus` limited by a quota in processors. A part of a processor counts as one: half a worker cannot be started.
fn limited(cpus: u32, quota: Option<f64>) -> u32 {
    let granted = quota.map_or(u32::MAX, |processors| processors.ceil().max(1.0) as u32);
    cpus.min(granted).max(1)
}

/// The processors of the affinity mask. A machine with more than the mask holds answers with an error; std asks in
/// another way then.
fn affinity() -> u32 {
    let counted = sched_getaffinity(Pid::from_raw(0))
        .map(|mask| (0..CpuSet::count()).filter(|cpu| mask.is_set(*cpu).unwrap_or(false)).count());
    let cpus = counted.unwrap_or_else(|_| std::thread::available_parallelism().map_or(1, usize::from));
    u32::try_from(cpus).unwrap_or(u32::MAX)
}

/// The smallest quota that binds a process with this `/proc/self/cgroup` and `/proc/self/mountinfo`, in processors.
fn quota(membership: &str, mounts: &str) -> Option<f64> {
    let quotas = membership.lines().filter_map(|line| {
        // Each line is `hierarchy:controllers:path`; v2 is hierarchy 0 without controllers.
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (kind, read): (_, fn(&Path) -> Option<f64>) = match (hierarchy, controllers) {
            ("0", "") => (Hierarchy::V2, quota_v2),
            (_, names) if names.split(',').any(|name| name == "cpu") => (Hierarchy::V1Cpu, quota_v1),
            (_, _) => return None,
        };
        let (root, folder) = locate(mounts, kind, path)?;
        folder.ancestors().take_while(|at| at.starts_with(&root)).filter_map(read).reduce(f64::min)
    });
    quotas.reduce(f64::min)
}

#[derive(Clone, Copy)]
enum Hierarchy {
    V2,
    V1Cpu,
}

/// Where a hierarchy is mounted, and the folder of the cgroup `path` in it.
fn locate(mounts: &str, hierarchy: Hierarchy, path: &str) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        // `id parent major:minor root mountpoint options… - type source superoptions`
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1).unwrap_or_default());
        let fits = match hierarchy {
            Hierarchy::V2 => kind == "cgroup2",
            Hierarchy::V1Cpu => kind == "cgroup" && options.split(',').any(|option| option == "cpu"),
        };
        // In a container the mount may show only the part below the container's own cgroup.
        let below = Path::new(path).strip_prefix(root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
        fits.then(|| (PathBuf::from(point), Path::new(point).join(below)))
    })
}

/// `cpu.max` is `max 100000` or `quota period`, both in microseconds.
fn quota_v2(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

/// `cpu.cfs_quota_us` is -1 where nothing limits.
fn quota_v1(folder: &Path) -> Option<f64> {
    let quota = fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
    ratio(quota.trim(), period.trim())
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(root: &Path, kind: &str, options: &str) -> String {
        format!("30 1 0:1 / {} rw,nosuid shared:9 - {kind} {kind} {options}\n", root.display())
    }

    #[test]
    fn the_smallest_quota_on_the_way_to_the_root_counts() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/cpu.max"), "150000 100000\n").unwrap();
        fs::write(root.path().join("a/b/cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota("0::/a/b\n", &mounts(root.path(), "cgroup2", "rw")), Some(1.5));
        fs::write(root.path().join("a/b/cpu.max"), "50000 100000\n").unwrap();
        assert_eq!(quota("0::/a/b\n", &mounts(root.path(), "cgroup2", "rw")), Some(0.5));
        assert_eq!(quota("0::/\n", &mounts(root.path(), "cgroup2", "rw")), None);
    }

    #[test]
    fn the_older_hierarchy_is_asked_too() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("x")).unwrap();
        fs::write(root.path().join("x/cpu.cfs_quota_us"), "300000\n").unwrap();
        fs::write(root.path().join("x/cpu.cfs_period_us"), "100000\n").unwrap();
        fs::write(root.path().join("cpu.cfs_quota_us"), "-1\n").unwrap();
        fs::write(root.path().join("cpu.cfs_period_us"), "100000\n").unwrap();
        let membership = "5:cpuset:/\n4:cpu,cpuacct:/x\n0::/\n";
        assert_eq!(quota(membership, &mounts(root.path(), "cgroup", "rw,cpu,cpuacct")), Some(3.0));
    }

    #[test]
    fn a_part_of_a_processor_counts_as_one_and_the_mask_is_never_exceeded() {
        assert_eq!(limited(8, Some(0.25)), 1);
        assert_eq!(limited(8, Some(1.5)), 2);
        assert_eq!(limited(2, Some(64.0)), 2);
        assert_eq!(limited(0, None), 1);
        assert!(usable_cpus() >= 1);
    }
}
