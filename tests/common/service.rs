//! The machine's own acode service, installed for one test and taken away after it, for tests that run on a machine with
//! systemd which is theirs alone.
//!
//! There is one such service, so tests take turns. Deliberately absent: anything on a machine that belongs to people:
//! there each of these says why it does nothing.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::common::{eventually, wait_until};

/// Where the cgroup of the service is.
const CGROUP: &str = "/sys/fs/cgroup/system.slice/acode.service";
/// A drop-in for one test.
const DROP_IN: &str = "/run/systemd/system/acode.service.d/test.conf";
/// A folder to which tasks write.
const WRITTEN: &str = "/srv/acode-test";

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program as `scripts/install` puts it into place.
pub fn installed() -> String {
    "/usr/local/bin/acode".to_owned()
}

/// Says why a test does nothing here.
pub fn say(why: &str) {
    eprintln!("skipped: {why}");
}

/// Runs a command, expects success, and gives its standard output.
#[track_caller]
pub fn tried(command: &mut Command) -> String {
    let told = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{command:?}: {}\n{out}\n{err}", told.status);
    out.into_owned()
}

/// A copy of the program where every user may read it.
pub fn copy_for_all() -> String {
    let path = "/var/tmp/acode-of-the-tests";
    fs::copy(env!("CARGO_BIN_EXE_acode"), path).unwrap();
    path.to_owned()
}

/// The pids of processes of this program.
pub fn processes_with(program: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let ours = all.filter(|path| fs::read_link(path.join("exe")).is_ok_and(|exe| exe == Path::new(program)));
    ours.map(|path| path.display().to_string()).collect()
}

/// The service. One test at a time has it.
pub struct Service {
    _turn: Flock<File>,
    is_installed: bool,
}

impl Service {
    /// Installs it, if this machine is one for that; not started yet.
    pub fn install() -> Option<Self> {
        Self::install_with("")
    }

    /// The same, with a drop-in.
    #[track_caller]
    pub fn install_with(drop_in: &str) -> Option<Self> {
        let mut service = Self::hold()?;
        if !drop_in.is_empty() {
            fs::create_dir_all(Path::new(DROP_IN).parent().unwrap()).unwrap();
            fs::write(DROP_IN, drop_in).unwrap();
        }
        tried(Command::new(root().join("scripts/install")).args(["--binary", env!("CARGO_BIN_EXE_acode")]));
        service.is_installed = true;
        let _ = fs::remove_dir_all(WRITTEN);
        fs::create_dir_all(WRITTEN).unwrap();
        tried(Command::new("chown").args(["acode:", WRITTEN]));
        Some(service)
    }

    /// Takes the turn without installing anything.
    pub fn hold() -> Option<Self> {
        let is_ours = std::env::var_os("ACODE_TEST_VM").is_some();
        if !is_ours || !nix::unistd::geteuid().is_root() || !Path::new("/run/systemd/system").is_dir() {
            say("this takes a machine of its own with systemd (scripts/vm test systemd)");
            return None;
        }
        let file = File::create("/run/acode-service-test.lock").unwrap();
        let turn = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
        Some(Self { _turn: turn, is_installed: false })
    }

    /// `systemctl`; what it does must succeed.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) {
        let told = Command::new("systemctl").args(arguments).output().unwrap();
        if !told.status.success() {
            let journal = tried(Command::new("journalctl").args(["-u", "acode", "--no-pager", "-n", "60"]));
            panic!("systemctl {arguments:?}: {}\n{journal}", String::from_utf8_lossy(&told.stderr));
        }
    }

    /// Whether `systemctl` does it.
    pub fn try_ctl(&self, arguments: &[&str]) -> bool {
        Command::new("systemctl").args(arguments).output().unwrap().status.success()
    }

    /// A property of the unit.
    pub fn show(&self, property: &str) -> String {
        tried(Command::new("systemctl").args(["show", "--value", "-p", property, "acode"])).trim().to_owned()
    }

    /// The service's main process; 0 if there is none.
    pub fn main_pid(&self) -> u32 {
        self.show("MainPID").parse().unwrap()
    }

    /// Runs acode as root does, who names no directory; gives its output without the last line end.
    #[track_caller]
    pub fn acode(&self, arguments: &[&str]) -> String {
        tried(Command::new(installed()).args(arguments)).trim_end().to_owned()
    }

    /// The same; whether it succeeds.
    pub fn try_acode(&self, arguments: &[&str]) -> bool {
        Command::new(installed()).args(arguments).output().unwrap().status.success()
    }

    /// A task.
    #[track_caller]
    pub fn task(&self, id: &str) -> Value {
        serde_json::from_str(&self.acode(&["--json", "task", "show", id])).unwrap()
    }

    /// The workers.
    #[track_caller]
    pub fn workers(&self) -> Vec<Value> {
        serde_json::from_str(&self.acode(&["--json", "worker", "list"])).unwrap()
    }

    /// The journal's entries with this field.
    pub fn journal(&self, field: &str) -> Vec<Value> {
        let lines = tried(Command::new("journalctl").args(["-o", "json", "--no-pager", field]));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until so many of the tasks that tell of themselves have run.
    #[track_caller]
    pub fn has_done(&self, count: usize) {
        wait_until("some tasks have run", || {
            fs::read_to_string(Path::new(WRITTEN).join("done")).is_ok_and(|done| done.lines().count() >= count)
        });
    }

    /// Does this to the service, and waits until systemd has started it again.
    #[track_caller]
    pub fn survives(&self, arguments: &[&str]) {
        let pid = self.main_pid();
        self.ctl(arguments);
        let mut now = 0;
        let again = || {
            now = self.main_pid();
            now != 0 && now != pid && self.show("ActiveState") == "active"
        };
        assert!(eventually(crate::common::PATIENCE, again), "systemd does not start it again after {arguments:?}");
    }

    /// The stopped service has left neither a process nor a cgroup.
    #[track_caller]
    pub fn is_gone(&self) {
        assert_eq!(self.show("MainPID"), "0");
        wait_until("its cgroup is gone", || !Path::new(CGROUP).exists());
        assert!(processes_with(&installed()).is_empty() && processes_with("/usr/bin/acode").is_empty());
        let of_user = Command::new("pgrep").args(["-u", "acode"]).output().unwrap().stdout;
        assert!(of_user.is_empty(), "processes of its user: {}", String::from_utf8_lossy(&of_user));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.is_installed {
            return;
        }
        if std::thread::panicking() {
            let journal = Command::new("journalctl").args(["-u", "acode", "--no-pager", "-n", "60"]).output();
            eprintln!("{}", journal.map(|told| String::from_utf8_lossy(&told.stdout).into_owned()).unwrap_or_default());
        }
        let script = root().join("scripts/install");
        let ended = Command::new(script).args(["--uninstall", "--purge"]).output().unwrap();
        let _ = fs::remove_file(DROP_IN);
        let _ = fs::remove_dir_all(WRITTEN);
        let _ = Command::new("systemctl").arg("daemon-reload").status();
        if std::thread::panicking() {
            return;
        }
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let places =
            ["/usr/local/bin/acode", "/usr/local/lib/systemd/system/acode.service", "/etc/acode", "/var/lib/acode"];
        let left: Vec<PathBuf> = places.map(PathBuf::from).into_iter().filter(|path| path.exists()).collect();
        assert!(left.is_empty(), "left: {left:?}");
        assert!(processes_with(&installed()).is_empty(), "processes are left");
        let user = Command::new("getent").args(["passwd", "acode"]).output().unwrap().stdout;
        assert!(user.is_empty(), "its user is left");
    }
}
