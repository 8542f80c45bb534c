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

/// Controllers that are looked at in v1, the one first that every host has. A container has a cgroup in the hierarchy of
/// each.
pub(super) const CONTROLLERS: [&str; 5] = ["pids", "memory", "cpu", "cpuacct", "blkio"];
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
        let rank = |name: &str| CONTROLLERS.iter().position(|controller| *controller == name);
        found.v1.sort_by_key(|(controller, ..)| rank(controller));
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
        // In one hierarchy it is searched for, so that searching in vain, which is done again and again, costs little.
        let (first, others) = self.v1.split_first()?;
        let search = |(controller, mount, own): &(&'static str, PathBuf, PathBuf)| {
            let places = candidates(mount, own, id, hint.parent).into_iter();
            places.chain(self.by_pid(mount, Some(controller), id, hint.pid)).find(|path| path.is_dir())
        };
        let path = search(first)?;
        let relative = path.strip_prefix(&first.1).ok()?.to_owned();
        let mut groups = Groups::default();
        groups.put(first.0, path);
        for hierarchy in others {
            // They are made one after the other, so what is not there yet may come.
            let expected = hierarchy.1.join(&relative);
            let found = if expected.is_dir() { None } else { search(hierarchy) };
            groups.put(hierarchy.0, found.unwrap_or(expected));
        }
        Some(groups)
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

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn id() -> ContainerId {
        ID.parse().unwrap()
    }

    /// A v2 hierarchy that is a folder, with our own cgroup in it, and a place for what processes say.
    fn unified(own: &str) -> (tempfile::TempDir, Mounts) {
        let folder = tempfile::tempdir().unwrap();
        let (mount, proc) = (folder.path().join("cgroup"), folder.path().join("proc"));
        fs::create_dir_all(&mount).unwrap();
        (folder, Mounts { v2: Some((mount, PathBuf::from(own))), v1: Vec::new(), proc })
    }

    fn found(own: &str, at: &str, hint: Hint<'_>) -> Option<String> {
        let (_folder, mounts) = unified(own);
        let (mount, _) = mounts.v2.clone().unwrap();
        fs::create_dir_all(mount.join(at)).unwrap();
        let path = mounts.v2_of(&id(), hint)?;
        Some(path.strip_prefix(&mount).unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn the_usual_places_of_both_engines_and_drivers_are_known() {
        let uid = nix::unistd::geteuid();
        let user = format!("user.slice/user-{uid}.slice/user@{uid}.service");
        let places = [
            format!("system.slice/docker-{ID}.scope"),
            format!("docker/{ID}"),
            format!("machine.slice/libpod-{ID}.scope"),
            format!("libpod_parent/libpod-{ID}"),
            format!("{user}/docker-{ID}.scope"),
            format!("{user}/user.slice/libpod-{ID}.scope"),
            format!("{user}/user.slice/docker-{ID}.scope"),
            format!("{user}/app.slice/docker-{ID}.scope"),
        ];
        for place in places {
            assert_eq!(found("/", &place, Hint::default()).as_deref(), Some(place.as_str()));
        }
        assert_eq!(found("/", "docker/another", Hint::default()), None);
    }

    #[test]
    fn an_engine_in_the_same_container_puts_its_own_below_ours() {
        for place in [format!("box/docker/{ID}"), format!("box/inner/docker/{ID}")] {
            assert_eq!(found("/box/inner", &place, Hint::default()), Some(place.clone()));
            assert_eq!(found("/", &place, Hint::default()), None);
        }
    }

    #[test]
    fn the_parent_that_was_given_is_looked_into() {
        let hint = |parent| Hint { pid: None, parent };
        let place = format!("a.slice/a-b.slice/docker-{ID}.scope");
        assert_eq!(found("/", &place, hint("a-b.slice")), Some(place.clone()));
        let place = format!("jobs/of/acode/{ID}");
        assert_eq!(found("/", &place, hint("/jobs/of/acode")), Some(place.clone()));
        assert_eq!(found("/", &place, hint("")), None);
        assert_eq!(given_parent("../x"), None);
        assert_eq!(given_parent("a-b-c.slice"), Some(PathBuf::from("a.slice/a-b.slice/a-b-c.slice")));
    }

    #[test]
    fn what_its_first_process_says_is_believed_only_with_its_id() {
        let (_folder, mounts) = unified("/");
        let (mount, _) = mounts.v2.clone().unwrap();
        let say = |pid: i32, path: &str| {
            let folder = mounts.proc.join(pid.to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cgroup"), format!("3:memory:/no\n0::{path}\n")).unwrap();
        };
        let hint = |pid| Hint { pid: Some(pid), parent: "" };
        let place = mount.join("odd/place").join(format!("crio-{ID}.scope"));
        fs::create_dir_all(place.join("container")).unwrap();
        say(7, &format!("/odd/place/crio-{ID}.scope/container"));
        assert_eq!(mounts.v2_of(&id(), hint(7)), Some(place));
        say(8, "/odd/place");
        say(9, &format!("/../{ID}"));
        for pid in [8, 9, 10, 0, -1] {
            assert_eq!(mounts.v2_of(&id(), hint(pid)), None, "{pid}");
        }
    }

    #[test]
    fn in_v1_the_hierarchies_that_lag_behind_are_expected_at_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let point = |controller: &str| folder.path().join(controller);
        let v1 = CONTROLLERS.map(|controller| (controller, point(controller), PathBuf::from("/"))).to_vec();
        let mounts = Mounts { v2: None, v1, proc: folder.path().join("proc") };
        assert!(mounts.v1_of(&id(), Hint::default()).is_none());
        let pids = point("pids").join("docker").join(ID);
        fs::create_dir_all(&pids).unwrap();
        fs::write(pids.join("pids.current"), "3\n").unwrap();
        let groups = mounts.v1_of(&id(), Hint::default()).unwrap();
        assert_eq!((groups.reading().pids, groups.reading().memory), (Some(3), None));
        let memory = point("memory").join("docker").join(ID);
        fs::create_dir_all(&memory).unwrap();
        fs::write(memory.join("memory.usage_in_bytes"), "4096\n").unwrap();
        assert_eq!(groups.reading().memory, Some(4096));
    }

    #[test]
    fn the_hierarchies_of_a_hybrid_host_are_told_apart() {
        let mounts = "\
            31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/box\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/here\n";
        let found = Mounts::read(mounts, own);
        assert_eq!(found.v2, Some((PathBuf::from("/sys/fs/cgroup/unified"), PathBuf::from("/here"))));
        let row = |controller, point: &str, own: &str| (controller, PathBuf::from(point), PathBuf::from(own));
        let joint = "/sys/fs/cgroup/cpu,cpuacct";
        let expected =
            [row("memory", "/sys/fs/cgroup/memory", "/box"), row("cpu", joint, "/"), row("cpuacct", joint, "/")];
        assert_eq!(found.v1, expected);
    }
}
