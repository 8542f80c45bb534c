//! Which places of the host a task may show to its container.
//!
//! By resolved path: neither `..` nor a link leads around it. What was resolved is what is mounted, so a link that is bent
//! meanwhile changes nothing; only who can rename directories within an allowed one could still do that. Deliberately
//! absent: the pool's own mounts, which are not asked.

use std::path::{Path, PathBuf};

use super::refused::Refused;
use crate::sys::describe;
use crate::wire::DockerSettings;

/// Where engines listen that nobody has named.
const SOCKETS: [&str; 4] =
    ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock"];
/// Where they listen below a user's runtime directory.
const USER_SOCKETS: [&str; 2] = ["docker.sock", "podman/podman.sock"];
/// Variables that say where.
const HOSTS: [&str; 2] = ["DOCKER_HOST", "CONTAINER_HOST"];

/// What a task may show.
#[derive(Debug)]
pub struct Guard {
    allowed: Vec<PathBuf>,
    /// What must not be shown by the way, with what it is.
    protected: Vec<(PathBuf, &'static str)>,
}

impl Guard {
    /// The pool's rules. An allowed place that is not there allows nothing.
    pub fn of(settings: &DockerSettings) -> Self {
        let allowed = settings.allowed_mounts.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let state = settings.folder.parent().map(|path| (path.to_owned(), "the pool's state directory"));
        let environment = &settings.environment;
        let named = HOSTS.iter().filter_map(|name| environment.get(*name)?.strip_prefix("unix://")).map(PathBuf::from);
        let users = environment.get("XDG_RUNTIME_DIR").into_iter();
        let users = users.flat_map(|folder| USER_SOCKETS.map(|socket| Path::new(folder).join(socket)));
        let sockets = SOCKETS.into_iter().map(PathBuf::from).chain(named).chain(users);
        let protected = sockets.map(|path| (path, "the container engine's socket")).chain(state);
        let protected = protected.filter_map(|(path, what)| Some((path.canonicalize().ok()?, what))).collect();
        Self { allowed, protected }
    }

    /// Gives the source as it is to be mounted.
    ///
    /// # Errors
    /// It is not there, or not allowed.
    pub fn check(&self, source: &str) -> Result<String, Refused> {
        let path = Path::new(source)
            .canonicalize()
            .map_err(|error| Refused::NoSource { path: source.to_owned(), why: describe(&error) })?;
        if !self.allowed.iter().any(|allowed| path.starts_with(allowed)) {
            let resolved =
                if path == Path::new(source) { String::new() } else { format!(" (it is {})", path.display()) };
            return Err(Refused::MountOutside { path: source.to_owned(), resolved });
        }
        for (protected, what) in &self.protected {
            let shows = protected.starts_with(&path) || path.starts_with(protected);
            // Who names the thing itself, or a part of it, means it.
            let is_meant =
                self.allowed.iter().any(|allowed| allowed.starts_with(protected) && path.starts_with(allowed));
            if shows && !is_meant {
                return Err(Refused::MountProtected { path: source.to_owned(), what: (*what).to_owned() });
            }
        }
        path.into_os_string().into_string().map_err(|path| Refused::NotText(path.to_string_lossy().into_owned()))
    }
}

/// The value of `--mount`, which the client reads as a line of CSV.
pub fn option(source: &str, target: &str, read_only: bool) -> String {
    let mut option = format!("type=bind,{},{}", field("source", source), field("target", target));
    if read_only {
        option.push_str(",readonly");
    }
    option
}

fn field(name: &str, value: &str) -> String {
    let field = format!("{name}={value}");
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A pool in a folder: its state, a directory that is allowed, one that is not, and an engine's socket.
    struct Pool {
        folder: tempfile::TempDir,
        settings: DockerSettings,
        _socket: UnixListener,
    }

    fn pool() -> Pool {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["state/containers", "data/sub", "secret", "run"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let socket = UnixListener::bind(at("run/e.sock")).unwrap();
        let mut settings = DockerSettings { folder: at("state/containers"), ..DockerSettings::default() };
        settings.environment.insert("DOCKER_HOST".to_owned(), format!("unix://{}", at("run/e.sock").display()));
        settings.allowed_mounts = vec![at("data"), at("missing")];
        Pool { folder, settings, _socket: socket }
    }

    impl Pool {
        fn at(&self, name: &str) -> String {
            self.folder.path().join(name).to_str().unwrap().to_owned()
        }

        fn check(&self, name: &str) -> Result<String, Refused> {
            Guard::of(&self.settings).check(&self.at(name))
        }

        fn allow(&mut self, name: &str) {
            self.settings.allowed_mounts.push(self.folder.path().join(name));
        }

        /// The words of a refusal, without where the folder happens to be.
        fn words(&self, name: &str) -> String {
            self.check(name).unwrap_err().to_string().replace(self.folder.path().to_str().unwrap(), "/F")
        }
    }

    #[test]
    fn what_lies_within_an_allowed_directory_is_mounted_by_its_resolved_path() {
        let pool = pool();
        assert_eq!(pool.check("data"), Ok(pool.at("data")));
        assert_eq!(pool.check("data/sub/../sub/."), Ok(pool.at("data/sub")));
        symlink(pool.at("data/sub"), pool.at("secret/link")).unwrap();
        assert_eq!(pool.check("secret/link"), Ok(pool.at("data/sub")), "what counts is where it leads");
    }

    #[test]
    fn there_is_no_way_round_by_a_link_or_by_dots() {
        let pool = pool();
        symlink(pool.at("secret"), pool.at("data/link")).unwrap();
        symlink(pool.at("data/link"), pool.at("data/chain")).unwrap();
        std::fs::create_dir(pool.at("data-too")).unwrap();
        for name in ["secret", "data/link", "data/chain", "data/../secret", "data/sub/../../secret", "data-too", ""] {
            assert!(matches!(pool.check(name), Err(Refused::MountOutside { .. })), "{name}");
        }
        insta::assert_snapshot!(pool.words("secret"), @"the mount '/F/secret' is not allowed: it must lie within one of docker.allowedMounts");
        insta::assert_snapshot!(pool.words("data/link"), @"the mount '/F/data/link' is not allowed (it is /F/secret): it must lie within one of docker.allowedMounts");
        insta::assert_snapshot!(pool.words("data/none"), @"cannot mount '/F/data/none': No such file or directory");
    }

    #[test]
    fn the_state_directory_and_the_engines_socket_are_shown_only_if_they_are_named() {
        let mut pool = pool();
        pool.allow("");
        assert_eq!(pool.check("secret"), Ok(pool.at("secret")));
        for name in ["", "state", "state/containers", "run", "run/e.sock"] {
            assert!(matches!(pool.check(name), Err(Refused::MountProtected { .. })), "{name}");
        }
        insta::assert_snapshot!(pool.words("state"), @"the mount '/F/state' is not allowed: it would show the pool's state directory (docker.allowedMounts must name that itself)");
        insta::assert_snapshot!(pool.words("run"), @"the mount '/F/run' is not allowed: it would show the container engine's socket (docker.allowedMounts must name that itself)");
        symlink(pool.at("run/e.sock"), pool.at("data/harmless")).unwrap();
        assert!(matches!(pool.check("data/harmless"), Err(Refused::MountProtected { .. })));
        pool.allow("run/e.sock");
        assert_eq!(pool.check("run/e.sock"), Ok(pool.at("run/e.sock")));
        assert!(pool.check("run").is_err(), "the folder was not named");
        pool.allow("state/containers");
        assert!(pool.check("state/containers").is_ok() && pool.check("state").is_err());
    }

    #[test]
    fn no_path_becomes_another_field_of_the_option() {
        assert_eq!(option("/a", "/b", true), "type=bind,source=/a,target=/b,readonly");
        assert_eq!(option("/a,readonly", "/b\"", false), "type=bind,\"source=/a,readonly\",\"target=/b\"\"\"");
    }
}
