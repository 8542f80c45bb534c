//! Which directories are used, and that they are safe to use.
//!
//! Deliberately absent: removing anything.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// The longest path of a Unix socket, in bytes, without its closing NUL (`sun_path` holds 108).
const SOCKET_PATH_MAX: usize = 107;

/// The environment: every variable with its value.
pub type Vars = BTreeMap<OsString, OsString>;

/// Why the directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Nothing says where they are.
    #[error("no place for the state directory: neither $XDG_STATE_HOME nor $HOME is set (name one by --state-dir)")]
    NoPlace,
    /// The directory cannot be made or opened.
    #[error("cannot use the directory {}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else owns the directory.
    #[error("the directory {} belongs to user {owner}, not to user {user}: it is not safe to use", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner's id.
        owner: u32,
        /// This process's user id.
        user: u32,
    },
    /// Others may write into the directory.
    #[error(
        "the directory {} may be written by others (mode {mode:04o}): it is not safe to use (chmod 700 mends it)",
        path.display()
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The socket's path does not fit into the kernel's address.
    #[error(
        "the path of the control socket, {}, has {length} bytes: at most {SOCKET_PATH_MAX} fit \
         (name a shorter place by --state-dir)",
        path.display()
    )]
    SocketPath {
        /// The socket's path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
}

/// The two directories of a pool. Nothing exists yet until [`Dirs::prepare`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// What must outlive a restart of the machine. Absolute.
    pub state: PathBuf,
    /// What need not. Absolute.
    pub runtime: PathBuf,
}

impl Dirs {
    /// Finds the directories. With `explicit` (`--state-dir`) or `$ACODE_STATE_DIR` the runtime directory is `run` in
    /// it, so that two pools never meet; but that of a service's state directory, `/var/lib/acode` or `/var/lib/acode-NAME`,
    /// is the one of the same name in `/run`, so that whoever names it finds the service's socket. Else systemd's `$STATE_DIRECTORY` and `$RUNTIME_DIRECTORY`; else for root
    /// `/var/lib/acode` and `/run/acode`; else `acode` in `$XDG_STATE_HOME` (or `~/.local/state`) and in
    /// `$XDG_RUNTIME_DIR`. Without a runtime directory of its own the state directory's `run` is used.
    ///
    /// # Errors
    /// No variable says where, or the control socket's path would be too long.
    pub fn find(explicit: Option<&Path>, vars: &Vars) -> Result<Self, DirError> {
        let cwd = std::env::current_dir().map_err(|source| DirError::Unusable { path: PathBuf::from("."), source })?;
        Self::find_for(explicit, vars, &cwd, nix::unistd::geteuid().is_root())
    }

    fn find_for(explicit: Option<&Path>, vars: &Vars, cwd: &Path, root: bool) -> Result<Self, DirError> {
        let own = explicit.map(Path::to_owned).or_else(|| variable(vars, "ACODE_STATE_DIR").map(PathBuf::from));
        let dirs = match own {
            Some(state) => {
                let dirs = Self::of_state(cwd.join(state));
                Self { runtime: service_runtime(&dirs.state).unwrap_or(dirs.runtime), ..dirs }
            }
            None => Self::usual(vars, root)?,
        };
        let path = dirs.control_socket();
        let length = path.as_os_str().len();
        if length > SOCKET_PATH_MAX { Err(DirError::SocketPath { path, length }) } else { Ok(dirs) }
    }

    /// The directories of a state directory that was named.
    fn of_state(state: PathBuf) -> Self {
        let runtime = state.join("run");
        Self { state, runtime }
    }

    fn usual(vars: &Vars, root: bool) -> Result<Self, DirError> {
        let xdg = |name: &str| absolute(vars, name).map(|folder| folder.join("acode"));
        let state = if let Some(state) = systemd(vars, "STATE_DIRECTORY") {
            state
        } else if root {
            PathBuf::from("/var/lib/acode")
        } else {
            let home = || absolute(vars, "HOME").map(|home| home.join(".local/state/acode"));
            xdg("XDG_STATE_HOME").or_else(home).ok_or(DirError::NoPlace)?
        };
        let runtime = if let Some(runtime) = systemd(vars, "RUNTIME_DIRECTORY") {
            Some(runtime)
        } else if root {
            // A unit with a state directory and no runtime directory may be sandboxed away from /run.
            systemd(vars, "STATE_DIRECTORY").is_none().then(|| PathBuf::from("/run/acode"))
        } else {
            xdg("XDG_RUNTIME_DIR")
        };
        let fallback = Self::of_state(state);
        Ok(Self { runtime: runtime.unwrap_or(fallback.runtime), state: fallback.state })
    }

    /// Makes the directories, with mode 0700, and checks that nobody else can write into them.
    ///
    /// # Errors
    /// One cannot be made, is a symbolic link or no directory, belongs to somebody else, or may be written by others.
    pub fn prepare(&self) -> Result<(), DirError> {
        make(&self.state)?;
        make(&self.runtime)?;
        for sub in [self.journal(), self.rooms(), self.spill()] {
            make(&sub)?;
        }
        Ok(())
    }

    /// Checks directories that must exist already, as a client does that looks for a running pool.
    ///
    /// # Errors
    /// As for [`Dirs::prepare`]; a missing one is `Unusable` with `NotFound`.
    pub fn check(&self) -> Result<(), DirError> {
        check(&self.state)?;
        check(&self.runtime)
    }

    /// The queue's database.
    pub fn queue_db(&self) -> PathBuf {
        self.state.join("queue.db")
    }

    /// The lock of the queue's one owner.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// The lock that all workers share.
    pub fn workers_lock(&self) -> PathBuf {
        self.state.join("workers.lock")
    }

    /// The socket of the control protocol.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// The folder of the output journal's segments.
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal")
    }

    /// The folder of the tasks' scratch directories.
    pub fn rooms(&self) -> PathBuf {
        self.state.join("rooms")
    }

    /// The folder of scratch directories that were kept.
    pub fn kept(&self) -> PathBuf {
        self.state.join("kept")
    }

    /// The folder of the tasks' checkpoint directories.
    pub fn checkpoints(&self) -> PathBuf {
        self.state.join("checkpoints")
    }

    /// The folder of marks of containers that may exist.
    pub fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// The folder of marks of git worktrees that may exist.
    pub fn worktrees(&self) -> PathBuf {
        self.state.join("worktrees")
    }

    /// The folder of locks of git repositories.
    pub fn repository_locks(&self) -> PathBuf {
        self.state.join("locks")
    }

    /// The folder of artefacts.
    pub fn artifacts(&self) -> PathBuf {
        self.state.join("artifacts")
    }

    /// The folder of copies of what submitters had on standard input.
    pub fn stdin(&self) -> PathBuf {
        self.state.join("stdin")
    }

    /// The folder of the specifications that are too large for the claim table.
    pub fn spill(&self) -> PathBuf {
        self.runtime.join("spill")
    }

    /// The fifo of the GNU make jobserver.
    pub fn jobserver(&self) -> PathBuf {
        self.runtime.join("jobserver")
    }

    /// The log of a supervisor that runs in the background and was given no other.
    pub fn log(&self) -> PathBuf {
        self.state.join("acode.log")
    }
}

/// The runtime directory that belongs to the state directory of a service of the system.
fn service_runtime(state: &Path) -> Option<PathBuf> {
    let name = state.strip_prefix("/var/lib").ok()?.to_str()?;
    let is_service = name == "acode" || name.starts_with("acode-");
    (is_service && !name.contains('/')).then(|| Path::new("/run").join(name))
}

fn variable<'v>(vars: &'v Vars, name: &str) -> Option<&'v OsStr> {
    vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
}

/// The path in a variable; a relative one is ignored, as the XDG specification wants it.
fn absolute(vars: &Vars, name: &str) -> Option<PathBuf> {
    variable(vars, name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The first directory of systemd's list, which is separated by colons. For a dynamic user it is a link that systemd
/// made, in a folder of root's; that one link is followed.
fn systemd(vars: &Vars, name: &str) -> Option<PathBuf> {
    let first = variable(vars, name)?.as_bytes().split(|byte| *byte == b':').next()?;
    let path = Some(PathBuf::from(OsStr::from_bytes(first))).filter(|path| path.is_absolute())?;
    Some(path.canonicalize().unwrap_or(path))
}

/// Makes the directory and its missing parents, and checks it.
fn make(path: &Path) -> Result<(), DirError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    match made {
        Ok(()) => check(path),
        Err(source) => Err(DirError::Unusable { path: path.to_owned(), source }),
    }
}

/// Checks the directory through a descriptor, so that what is checked is what is there, and a link is not followed.
fn check(path: &Path) -> Result<(), DirError> {
    let unusable = |source| DirError::Unusable { path: path.to_owned(), source };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let folder: File = opened.map_err(|error| match path.symlink_metadata() {
        // The kernel says 'not a directory' here, of something that looks like one.
        Ok(facts) if facts.is_symlink() => unusable(io::Error::other("it is a symbolic link")),
        Ok(_) | Err(_) => unusable(error),
    })?;
    let facts = folder.metadata().map_err(unusable)?;
    let (owner, user) = (facts.uid(), nix::unistd::geteuid().as_raw());
    if owner != user {
        return Err(DirError::Foreign { path: path.to_owned(), owner, user });
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o022 != 0 { Err(DirError::Writable { path: path.to_owned(), mode }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn find(explicit: Option<&str>, vars: &[(&str, &str)], root: bool) -> Result<(String, String), String> {
        let vars = vars.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        Dirs::find_for(explicit.map(Path::new), &vars, Path::new("/cwd"), root)
            .map(|dirs| (text(dirs.state), text(dirs.runtime)))
            .map_err(|error| error.to_string())
    }

    fn pair(state: &str, runtime: &str) -> Result<(String, String), String> {
        Ok((state.to_owned(), runtime.to_owned()))
    }

    #[test]
    fn a_named_directory_holds_its_own_runtime_directory() {
        let vars = [("ACODE_STATE_DIR", "/v"), ("RUNTIME_DIRECTORY", "/run/x"), ("XDG_RUNTIME_DIR", "/run/user/1")];
        assert_eq!(find(Some("here"), &vars, true), pair("/cwd/here", "/cwd/here/run"));
        assert_eq!(find(None, &vars, false), pair("/v", "/v/run"));
    }

    #[test]
    fn the_state_directory_of_a_service_goes_with_its_runtime_directory() {
        assert_eq!(find(Some("/var/lib/acode"), &[], false), pair("/var/lib/acode", "/run/acode"));
        assert_eq!(
            find(None, &[("ACODE_STATE_DIR", "/var/lib/acode-web")], true),
            pair("/var/lib/acode-web", "/run/acode-web")
        );
        for own in ["/var/lib/acode/x", "/var/lib/acodes", "/srv/acode"] {
            assert_eq!(find(Some(own), &[], true), pair(own, &format!("{own}/run")));
        }
        assert_eq!(
            find(None, &[("STATE_DIRECTORY", "/var/lib/acode")], true),
            pair("/var/lib/acode", "/var/lib/acode/run")
        );
    }

    #[test]
    fn systemd_comes_before_the_usual_places() {
        let vars = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("RUNTIME_DIRECTORY", "/run/a:/run/b")];
        assert_eq!(find(None, &vars, true), pair("/var/lib/a", "/run/a"));
        assert_eq!(find(None, &vars[..1], true), pair("/var/lib/a", "/var/lib/a/run"));
        assert_eq!(find(None, &[], true), pair("/var/lib/acode", "/run/acode"));
    }

    #[test]
    fn a_user_gets_the_xdg_places() {
        let all = [("HOME", "/h"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/run/user/1")];
        assert_eq!(find(None, &all, false), pair("/s/acode", "/run/user/1/acode"));
        assert_eq!(find(None, &all[..1], false), pair("/h/.local/state/acode", "/h/.local/state/acode/run"));
        let relative = [("HOME", "/h"), ("XDG_STATE_HOME", "s")];
        assert_eq!(find(None, &relative, false), pair("/h/.local/state/acode", "/h/.local/state/acode/run"));
        insta::assert_snapshot!(find(None, &[], false).unwrap_err(), @"no place for the state directory: neither $XDG_STATE_HOME nor $HOME is set (name one by --state-dir)");
    }

    #[test]
    fn a_socket_path_that_does_not_fit_is_refused_with_the_remedy() {
        let long = format!("/{}", "x".repeat(89));
        assert!(find(Some(&long), &[], false).is_ok());
        insta::assert_snapshot!(find(Some(&format!("{long}y")), &[], false).unwrap_err(), @"the path of the control socket, /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy/run/control.sock, has 108 bytes: at most 107 fit (name a shorter place by --state-dir)");
    }

    #[test]
    fn directories_are_made_private_and_unsafe_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dirs = Dirs::of_state(folder.path().join("a/state"));
        dirs.prepare().unwrap();
        dirs.check().unwrap();
        assert_eq!(dirs.state.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(dirs.rooms().is_dir() && dirs.journal().is_dir() && dirs.spill().is_dir());
        let words = |path: &Path| {
            let error = Dirs::of_state(path.to_owned()).prepare().unwrap_err();
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}").replace(folder.path().to_str().unwrap(), "")
        };
        let link = folder.path().join("link");
        symlink(&dirs.state, &link).unwrap();
        insta::assert_snapshot!(words(&link), @"cannot use the directory /link: it is a symbolic link");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        insta::assert_snapshot!(words(&file), @"cannot use the directory /file: File exists (os error 17)");
        std::fs::set_permissions(&dirs.state, std::fs::Permissions::from_mode(0o770)).unwrap();
        insta::assert_snapshot!(words(&dirs.state), @"the directory /a/state may be written by others (mode 0770): it is not safe to use (chmod 700 mends it)");
    }

    #[test]
    fn the_directory_of_another_user_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: giving a directory away needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(4242), None).unwrap();
        let error = Dirs::of_state(path).prepare().unwrap_err();
        assert!(matches!(error, DirError::Foreign { owner: 4242, user: 0, .. }), "{error}");
    }
}
