//! The state directory: whether it can be written, on what it lies, and what could limit the space of tasks.

use std::path::Path;

use acode_worker::room::disk::{self, Means, Offers};
use acode_worker::task::{DiskMethod, Hold};
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::{Finding, Host};

/// Below so much free space a note is made, in MiB.
const LITTLE_MB: u64 = 1024;
/// File systems over a network, by their numbers: NFS, CIFS, SMB2, SMB, AFS, Ceph, 9p, Coda.
const REMOTE: [i64; 8] = [0x6969, 0xFF53_4D42, 0xFE53_4D42, 0x517B, 0x5346_414F, 0x00C3_6400, 0x0102_1997, 0x7375_7245];
/// Those in memory: tmpfs, ramfs.
const FLEETING: [i64; 2] = [0x0102_1994, 0x8584_58F6];

/// The path itself, or what is nearest above it, that exists.
pub fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"))
}

/// Whether the state directory is there or can be made.
pub fn writable(host: &Host<'_>) -> Finding {
    let state = &host.dirs.state;
    let place = nearest(state);
    let remedy = "name another place by --state-dir, or give it to this user";
    match access(place, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) if !place.is_dir() => Finding::bad(format!("{} is no directory", place.display()), remedy),
        Err(_) => Finding::bad(format!("{} may not be written", place.display()), remedy),
        Ok(()) if place == state => Finding::ok(state.display().to_string()),
        Ok(()) => Finding::ok(format!("{} (will be made)", state.display())),
    }
}

/// On which kind of file system it lies.
pub fn file_system(host: &Host<'_>) -> Finding {
    let place = nearest(&host.dirs.state);
    let Ok(stat) = statfs(place) else { return Finding::note("cannot be told", "see statfs(2)") };
    let number = stat.filesystem_type().0 & 0xFFFF_FFFF;
    let name = mount_of(place).map_or_else(|| format!("{number:#x}"), |mount| mount.kind);
    if REMOTE.contains(&number) {
        return Finding::bad(
            format!("{name}, over a network"),
            "put the state directory on a local disk: locks and flushes need one",
        );
    }
    if FLEETING.contains(&number) {
        return Finding::note(
            format!("{name}, in memory"),
            "put the state directory on a disk: what is in memory is lost with it",
        );
    }
    Finding::ok(name)
}

/// How much room is left.
pub fn free_space(host: &Host<'_>) -> Finding {
    let Ok(stat) = statvfs(nearest(&host.dirs.state)) else { return Finding::note("cannot be told", "see statvfs(3)") };
    let free_mb = stat.blocks_available().saturating_mul(stat.fragment_size()) >> 20;
    let least = host.config.backpressure.min_free_disk_mb.filter(|_| host.config.backpressure.enabled);
    match free_mb {
        free if least.is_some_and(|least| free < least) => Finding::bad(
            format!("{free} MiB, less than backpressure.minFreeDiskMb"),
            "make room: until then no task is started",
        ),
        free if free < LITTLE_MB => Finding::note(format!("{free} MiB"), "make room: output and queue grow with use"),
        free => Finding::ok(format!("{free} MiB")),
    }
}

/// Whether the file system counts the space of directories.
pub fn project_quota(host: &Host<'_>) -> Finding {
    let remedy = "put the state directory on ext4 or xfs mounted with prjquota, and run as root";
    offered(offers(host).quota, remedy)
}

/// Whether images can be mounted.
pub fn loop_devices(host: &Host<'_>) -> Finding {
    offered(offers(host).image, "run as root, with loop devices and mke2fs (Debian package e2fsprogs)")
}

/// By what means disk limits would be held.
pub fn disk_limits(host: &Host<'_>) -> Finding {
    let method = host.config.workers.disk_method;
    let means = offers(host).means(method);
    match means {
        Means::Quota | Means::Loop | Means::Tmpfs => Finding::ok(format!("enforced by {means}")),
        Means::Sampling if method == DiskMethod::Sampling => Finding::ok(format!("observed by {means}")),
        Means::Sampling => Finding::note(
            format!("observed by {means}"),
            "see 'project quota', or set workers.disk.method to loop or tmpfs: what is observed may be late",
        ),
    }
}

fn offered(offer: Result<(), String>, remedy: &str) -> Finding {
    match offer {
        Ok(()) => Finding::ok("there"),
        Err(why) => Finding::note(format!("not there: {why}"), remedy),
    }
}

fn offers(host: &Host<'_>) -> Offers {
    disk::probe(nearest(&host.dirs.state))
}

/// How a limit of disk space would be held.
pub fn holds_disk(host: &Host<'_>) -> (Hold, String) {
    let means = offers(host).means(host.config.workers.disk_method);
    let hold = match means {
        Means::Quota | Means::Loop | Means::Tmpfs => Hold::Enforced,
        Means::Sampling => Hold::Observed,
    };
    (hold, means.to_string())
}

/// A mounted file system.
struct Mount {
    kind: String,
}

/// What is mounted where `path` lies: the last of the longest mount points.
fn mount_of(path: &Path) -> Option<Mount> {
    let path = path.canonicalize().ok()?;
    let list = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = list.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.replace(r"\040", " ");
        let kind = after.split(' ').next()?.to_owned();
        path.starts_with(&point).then_some((point.len(), Mount { kind }))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, mount)| mount)
}
