//! Where in the cgroup v2 hierarchy this process is, and whether that place is ours to build in.
//!
//! systemd's rule is followed: below a unit with `Delegate=yes` everything belongs to the unit, and elsewhere in its tree
//! nothing does. The marks of a user's own manager cannot be read everywhere; but what belongs to a user is his to use, as
//! the kernel has it, if nobody else lives there. A container's own root, the hierarchy's root, and a host without systemd have no such owner. Only looks;
//! deliberately absent: making and moving anything, which is `delegate`'s.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::sys::process;

/// What systemd puts on a cgroup that it has given away; the first can be read by everybody.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];
/// The endings of the names of systemd's own cgroups.
const UNITS: [&str; 3] = [".service", ".scope", ".slice"];
/// The remedy where nothing is delegated.
const REMEDY: &str = "start it as a service with Delegate=yes, or by systemd-run --scope -p Delegate=yes (with --user \
                      for a user's own pool)";

/// The directory of this process' own cgroup in the v2 hierarchy, if one is mounted.
pub fn own_directory() -> Option<PathBuf> {
    let own = membership(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    // The components one by one: a root of `/` would leave a slash at the end.
    let mut directory = mount_point()?;
    directory.extend(own.split('/').filter(|name| !name.is_empty()));
    directory.is_dir().then_some(directory)
}

/// The path in the v2 hierarchy that a `/proc/<pid>/cgroup` names.
fn membership(list: &str) -> Option<String> {
    list.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Where the v2 hierarchy is mounted: at the usual place, or on a hybrid host wherever it was put.
fn mount_point() -> Option<PathBuf> {
    if cgroups_rs::hierarchies::is_cgroup2_unified_mode() {
        return Some(PathBuf::from("/sys/fs/cgroup"));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// A place to build in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The cgroup under which the pool's own is made.
    pub home: PathBuf,
    /// Why it may be used with the hierarchy's core only, if that is so.
    pub not_ours: Option<String>,
}

/// What is known of the host.
struct Host<'h> {
    mount: &'h Path,
    /// Whether systemd has marked a cgroup as given away.
    is_marked: &'h dyn Fn(&Path) -> bool,
    /// Whether systemd keeps this hierarchy.
    has_systemd: bool,
    /// Whether a cgroup has been handed controllers.
    has_controllers: &'h dyn Fn(&Path) -> bool,
    /// Whether a cgroup belongs to the user that we are, who is not root.
    is_owned: &'h dyn Fn(&Path) -> bool,
}

impl Place {
    /// This process' place; `None` where no v2 hierarchy is mounted.
    pub fn find() -> Option<Self> {
        let (mount, own) = (mount_point()?, own_directory()?);
        let has_systemd = Path::new("/run/systemd/system").is_dir();
        let has_controllers = |cgroup: &Path| {
            fs::read_to_string(cgroup.join("cgroup.controllers")).is_ok_and(|list| !list.trim().is_empty())
        };
        let host = Host {
            mount: &mount,
            is_marked: &is_marked,
            has_systemd,
            has_controllers: &has_controllers,
            is_owned: &is_owned,
        };
        Some(Self::of(&own, &host))
    }

    fn of(own: &Path, host: &Host<'_>) -> Self {
        let home = home_of(own, host);
        let free = home == host.mount || !host.has_systemd || is_given(&home, host) || (host.is_owned)(&home);
        let not_ours = (!free).then(|| format!("the cgroup {} is not delegated: {REMEDY}", home.display()));
        Self { home, not_ours }
    }

    /// Whether this is the root of the whole hierarchy, in which processes may live beside cgroups.
    pub fn is_root(&self) -> bool {
        !self.home.join("cgroup.type").exists()
    }

    /// Whether a process lives there that is none of ours: then controllers cannot be had, and it is not for us to move it.
    pub fn has_stranger(&self) -> bool {
        !self.is_root() && members(&self.home).into_iter().any(|pid| !is_ours(pid))
    }
}

/// The cgroup that was given to us: our own, as a rule. A process of a running pool is two below it, and a unit with
/// `DelegateSubgroup=` starts its processes one below.
fn home_of(own: &Path, host: &Host<'_>) -> PathBuf {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (parent, grandparent) = (own.parent(), own.parent().and_then(Path::parent));
    if let (Some(parent), Some(grandparent)) = (parent, grandparent)
        && name(own) == super::delegate::SUPERVISOR
        && name(parent).starts_with(super::delegate::PREFIX)
        && grandparent.starts_with(host.mount)
    {
        return grandparent.to_owned();
    }
    // In a subgroup to which nothing was handed on, there is nothing to be had.
    let is_bare = |own: &Path| !is_unit(own) && !(host.has_controllers)(own) && !(host.is_marked)(own);
    match parent.filter(|parent| is_bare(own) && *parent != host.mount && (host.is_marked)(parent)) {
        Some(parent) => parent.to_owned(),
        None => own.to_owned(),
    }
}

/// Whether a cgroup is a unit that systemd has given away, or lies in one.
fn is_given(cgroup: &Path, host: &Host<'_>) -> bool {
    for cgroup in cgroup.ancestors().take_while(|cgroup| *cgroup != host.mount) {
        if (host.is_marked)(cgroup) {
            return true;
        }
        if is_unit(cgroup) {
            return false;
        }
    }
    false
}

fn is_unit(cgroup: &Path) -> bool {
    let name = cgroup.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    UNITS.iter().any(|ending| name.ends_with(ending))
}

/// The processes in a cgroup, 0 for each that our pid namespace does not show.
pub(super) fn members(cgroup: &Path) -> Vec<i32> {
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process is one of this program: the caller itself, a child of it, or one that executes the same file as the
/// same user. One that has ended counts too.
pub(super) fn is_ours(pid: i32) -> bool {
    use std::os::unix::fs::MetadataExt;
    if pid == 0 {
        return false;
    }
    // What a nursery executes only root may see; whose child it is, everybody.
    let own = std::process::id().cast_signed();
    if pid == own || process::parent(pid) == Some(own) {
        return true;
    }
    let facts = |pid: i32| {
        let program = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((program.dev(), program.ino(), process::user(pid)?))
    };
    match (facts(own), facts(pid)) {
        (Some(own), Some(other)) => own == other,
        (Some(_) | None, None) => process::start_time(pid).is_none(),
        (None, Some(_)) => false,
    }
}

fn is_owned(cgroup: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let user = nix::unistd::geteuid();
    !user.is_root() && fs::metadata(cgroup).is_ok_and(|facts| facts.uid() == user.as_raw())
}

/// Whether systemd has marked a cgroup as given away, as far as this user may see that.
pub fn is_marked(cgroup: &Path) -> bool {
    let Ok(path) = CString::new(cgroup.as_os_str().as_bytes()) else { return false };
    let marks = MARKS.iter().filter_map(|mark| CString::new(*mark).ok());
    marks.into_iter().any(|mark| {
        let mut value = [0_u8; 8];
        // SAFETY: both names end in NUL, and the kernel writes at most as many bytes as the buffer has.
        let length = unsafe { libc::getxattr(path.as_ptr(), mark.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        length == 1 && value[0] == b'1'
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(own: &str, marked: &[&str], has_systemd: bool) -> (String, bool) {
        let is_marked = |path: &Path| marked.iter().any(|known| path == Path::new("/m").join(known));
        let has_controllers = |path: &Path| path.ends_with("handed");
        let is_owned = |path: &Path| path.ends_with("own.scope");
        let host = Host {
            mount: Path::new("/m"),
            is_marked: &is_marked,
            has_systemd,
            has_controllers: &has_controllers,
            is_owned: &is_owned,
        };
        let place = Place::of(&Path::new("/m").join(own), &host);
        (place.home.to_str().unwrap().to_owned(), place.not_ours.is_none())
    }

    fn at(home: &str, ours: bool) -> (String, bool) {
        (home.to_owned(), ours)
    }

    #[test]
    fn the_v2_line_is_found_on_a_hybrid_host_too() {
        assert_eq!(membership("9:name=systemd:/x\n0::/a/b c\n").as_deref(), Some("/a/b c"));
        assert_eq!(membership("9:name=systemd:/x\n"), None);
    }

    #[test]
    fn a_delegated_unit_is_ours_and_a_session_is_not() {
        assert_eq!(place("s.slice/a.service", &["s.slice/a.service"], true), at("/m/s.slice/a.service", true));
        assert_eq!(place("s.slice/a.service", &[], true), at("/m/s.slice/a.service", false));
        let session = "user.slice/user-0.slice/session-1.scope";
        assert_eq!(place(session, &[], true), at(&format!("/m/{session}"), false));
        // A user's manager owns what is below it, and gives away by its own marks only.
        let scope = "u.slice/user@1.service/app.slice/x.scope";
        assert!(!place(scope, &["u.slice/user@1.service"], true).1);
        assert!(place("u.slice/user@1.service/app.slice/own.scope", &[], true).1, "a user's own");
        assert!(!place("u.slice/user@1.service/init.scope", &["u.slice/user@1.service"], true).1);
    }

    #[test]
    fn a_subgroup_and_our_own_tree_lead_back_to_the_unit() {
        let unit = ["s.slice/a.service"];
        assert_eq!(place("s.slice/a.service/main", &unit, true), at("/m/s.slice/a.service", true));
        assert_eq!(place("s.slice/a.service/handed", &unit, true), at("/m/s.slice/a.service/handed", true));
        assert_eq!(place("s.slice/a.service/handed", &[], true), at("/m/s.slice/a.service/handed", false));
        let inside = "s.slice/a.service/acode-00ff/supervisor";
        assert_eq!(place(inside, &unit, true), at("/m/s.slice/a.service", true));
        assert_eq!(place("acode-00ff/supervisor", &[], true), at("/m", true));
    }

    #[test]
    fn the_root_and_a_host_without_systemd_have_no_other_owner() {
        assert_eq!(place("", &[], true), at("/m/", true));
        assert_eq!(place("container", &[], false), at("/m/container", true));
    }

    #[test]
    fn this_process_is_one_of_ours_and_the_first_one_is_not() {
        assert!(is_ours(i32::try_from(std::process::id()).unwrap()));
        assert!(!is_ours(1) && !is_ours(0));
    }
}
