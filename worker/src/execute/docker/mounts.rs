//! Which places of the host a task may show to its container.
//!
//! By resolved path: neither `..` nor a link leads around it. What was resolved is what is mounted, so a link that is bent
//! meanwhile changes nothing; only who can rename directories within an allowed one could still do that. Deliberately
//! absent: the pool's own mounts, which are not asked.

use std::path::{Path, PathBuf};

use super::refused::Refused;
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
        let path = Path::new(source).canonicalize().map_err(|error| Refused::NoSource {
            path: source.to_owned(),
            why: error
                .raw_os_error()
                .map_or_else(|| error.to_string(), |n| nix::errno::Errno::from_raw(n).desc().to_owned()),
        })?;
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
