//! Where engines put a container's cgroup.
//!
//! Known places first: below the hierarchy's root, below our own cgroup and those above it (an engine in the same
//! container as we), below the slices of systemd and of its users, below the parent that the container was given. Then one
//! look at what the container's first process says. A bounded number of lookups, and no walk.

use std::fs;
use std::path::{Path, PathBuf};

use super::v1::Groups;
use crate::execute::docker::name::ContainerId;

/// What else may be known of a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hint<'h> {
    /// The pid of its first process.
    pub pid: Option<i32>,
    /// The cgroup parent that it was given; empty for the engine's default.
    pub parent: &'h str,
}

/// Controllers that are looked at in v1. A container has a cgroup in each hierarchy.
pub(super) const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "blkio"];
/// Folders below which engines put their own, as the drivers of docker and podman name them.
const HOMES: [&str; 4] = ["", "system.slice", "machine.slice", "user.slice"];

/// The hierarchies of a host.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Where v2 is mounted, and our own cgroup in it.
    pub v2: Option<(PathBuf, PathBuf)>,
    /// The same of each of [`CONTROLLERS`] that is in v1.
    pub v1: Vec<(&'static str, PathBuf, PathBuf)>,
    /// Where processes tell their cgroups.
    pub proc: PathBuf,
}

impl Mounts {
    /// Those of this host; `None` without any.
    pub fn of_this_host() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let found = Self::read(&mounts, &own);
        (found.v2.is_some() || !found.v1.is_empty()).then_some(found)
    }

    /// From the texts of `mountinfo` and `cgroup` in `/proc/self`.
    fn read(mounts: &str, own: &str) -> Self {
        let mut found = Self { proc: PathBuf::from("/proc"), ..Self::default() };
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(point) = before.split(' ').nth(4) else { continue };
            let (kind, options) =
                (after.split(' ').next().unwrap_or_default(), after.rsplit(' ').next().unwrap_or_default());
            match kind {
                "cgroup2" if found.v2.is_none() => {
                    found.v2 = Some((PathBuf::from(point), PathBuf::from(membership(own, None))));
                }
                "cgroup" => {
                    for controller in CONTROLLERS {
                        let is_new = found.v1.iter().all(|(known, ..)| *known != controller);
                        if is_new && options.split(',').any(|option| option == controller) {
                            let own = PathBuf::from(membership(own, Some(controller)));
                            found.v1.push((controller, PathBuf::from(point), own));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The container's cgroup in v2.
    pub fn v2_of(&self, id: &ContainerId, hint: Hint<'_>) -> Option<PathBuf> {
        let (mount, own) = self.v2.as_ref()?;
        let told = || self.by_pid(mount, None, id, hint.pid);
        candidates(mount, own, id, hint.parent).into_iter().find(|path| path.is_dir()).or_else(told)
    }

    /// The container's cgroups in v1.
    pub fn v1_of(&self, id: &ContainerId, hint: Hint<'_>) -> Option<Groups> {
        let mut known: Option<PathBuf> = None;
        let mut groups = Groups::default();
        for (controller, mount, own) in &self.v1 {
            // Where it is in one hierarchy, there it is in the others as a rule.
            let again = known.iter().map(|relative| mount.join(relative)).find(|path| path.is_dir());
            let searched = || candidates(mount, own, id, hint.parent).into_iter().find(|path| path.is_dir());
            let found = again.or_else(searched).or_else(|| self.by_pid(mount, Some(controller), id, hint.pid));
            let Some(path) = found else { continue };
            known = path.strip_prefix(mount).ok().map(Path::to_owned);
            groups.put(controller, path);
        }
        groups.has_any().then_some(groups)
    }

    /// By what the container's first process says. Believed only if the id is in it: a pid may be another's by now.
    fn by_pid(&self, mount: &Path, controller: Option<&str>, id: &ContainerId, pid: Option<i32>) -> Option<PathBuf> {
        let pid = pid.filter(|pid| *pid > 0)?;
        let text = fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")).ok()?;
        let mut path = mount.to_owned();
        for part in membership(&text, controller).split('/').filter(|part| !part.is_empty()) {
            if part == ".." {
                return None;
            }
            path.push(part);
            // What the container makes below its own is its own too.
            if part.contains(id.as_str()) {
                return path.is_dir().then_some(path);
            }
        }
        None
    }
}

/// Below which folder of its hierarchies the cgroup of a container is, by what its first process says; the place is
/// the same for all containers of an engine, as a rule.
pub fn home_of(id: &ContainerId, pid: i32) -> Option<String> {
    home_in(id, &fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

fn home_in(id: &ContainerId, text: &str) -> Option<String> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.filter_map(|path| path.split_once(id.as_str())).find_map(|(before, _)| {
        let (home, _) = before.rsplit_once('/')?;
        Some(home.trim_matches('/').to_owned()).filter(|home| !home.split('/').any(|part| part == ".."))
    })
}

/// The path that a `/proc/<pid>/cgroup` names for a controller of v1, or for v2.
fn membership<'t>(text: &'t str, controller: Option<&str>) -> &'t str {
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = match controller {
            None => controllers.is_empty() && line.starts_with("0:"),
            Some(name) => controllers.split(',').any(|known| known == name),
        };
        is_it.then_some(path)
    });
    path.unwrap_or("/")
}

/// All places to look at, the likeliest first.
fn candidates(mount: &Path, own: &Path, id: &ContainerId, parent: &str) -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = HOMES.iter().map(|home| mount.join(home)).collect();
    homes.extend(users_homes(mount));
    let above = own.strip_prefix("/").unwrap_or(own).ancestors().filter(|path| !path.as_os_str().is_empty());
    homes.extend(above.map(|path| mount.join(path)));
    if let Some(given) = given_parent(parent) {
        // A relative parent may be below the engine's own cgroup, which as a rule is above or beside ours.
        let beside: Vec<PathBuf> = homes.iter().map(|home| home.join(&given)).collect();
        homes.splice(0..0, beside);
    }
    let names = names(id);
    homes.iter().flat_map(|home| names.iter().map(|name| home.join(name))).collect()
}

/// What a container's cgroup is called below the place that its engine uses.
fn names(id: &ContainerId) -> [String; 6] {
    [
        format!("docker-{id}.scope"),
        format!("docker/{id}"),
        format!("libpod-{id}.scope"),
        format!("libpod_parent/libpod-{id}"),
        format!("libpod-{id}"),
        id.to_string(),
    ]
}

/// Where the engines of users without root put theirs: below their own managers.
fn users_homes(mount: &Path) -> Vec<PathBuf> {
    let uid = nix::unistd::geteuid();
    let service = format!("user.slice/user-{uid}.slice/user@{uid}.service");
    ["", "user.slice", "app.slice"].iter().map(|part| mount.join(&service).join(part)).collect()
}

/// The folders of a cgroup parent: a slice lies in those whose names its own begins with.
fn given_parent(parent: &str) -> Option<PathBuf> {
    let parent = parent.trim_matches('/');
    if parent.is_empty() || parent.split('/').any(|part| part == "..") {
        return None;
    }
    let Some(stem) = parent.strip_suffix(".slice").filter(|stem| !stem.contains('/')) else {
        return Some(PathBuf::from(parent));
    };
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Some(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_what_stands_before_the_containers_own_part() {
        let id: ContainerId = "0123456789abcdef".repeat(4).parse().unwrap();
        let of = |text: &str| home_in(&id, &text.replace("ID", id.as_str()));
        assert_eq!(of("4:memory:/ae-x/ID\n0::/elsewhere\n").as_deref(), Some("ae-x"));
        assert_eq!(of("0::/a.slice/a-b.slice/libpod-ID.scope/container").as_deref(), Some("a.slice/a-b.slice"));
        assert_eq!(of("0::/docker-ID.scope").as_deref(), Some(""));
        assert_eq!(of("4:memory:/../x/ID\n0::/user.slice\n"), None);
    }
}
