//! Podman with storage of its own in a short folder: nothing of the machine's is read or left behind.
//!
//! There is no daemon. What makes podman private are two files of configuration, of which a wrapper in the place of the
//! command line tells it. Containers get a cgroup parent of this folder's name. Deliberately absent: networks, and images
//! from anywhere.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::common::daemon::{self, IMAGE};
use super::common::{Options, PATIENCE, eventually};

/// Where podman looks for the init that `--init` asks for.
const INITS: [&str; 3] = ["/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/bin/catatonit"];
/// Low enough for every machine: podman would ask for more than root may give where a capability is missing.
const ULIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"];

/// A podman that knows the image. Nothing of it is left when it is dropped.
#[derive(Debug)]
pub struct Podman {
    folder: PathBuf,
}

impl Podman {
    /// Makes one; says why and gives nothing where there can be none.
    pub fn start() -> Option<Self> {
        match Self::try_start() {
            Ok(podman) => Some(podman),
            Err(why) => {
                eprintln!("skipped: no podman: {why}");
                None
            }
        }
    }

    fn try_start() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("only root can have containers with limits everywhere".to_owned());
        }
        for program in ["podman", "conmon"] {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&path).any(|folder| folder.join(program).exists()) {
                return Err(format!("'{program}' is not installed"));
            }
        }
        if !INITS.iter().any(|init| Path::new(init).exists()) {
            return Err("its init is not installed (Debian package catatonit)".to_owned());
        }
        let tar = daemon::image()?;
        let folder = tempfile::Builder::new().prefix("ap-").tempdir_in("/tmp").map_err(|e| e.to_string())?.keep();
        // From here on a failure is cleaned up by the value's end.
        let podman = Self { folder };
        // crun does not work on hosts with both hierarchies.
        let mut why = String::new();
        for (runtime, driver) in [("crun", "overlay"), ("runc", "overlay"), ("runc", "vfs")] {
            why = match podman.set_up(runtime, driver, tar) {
                Ok(()) => return Ok(podman),
                Err(why) => format!("with {runtime} and {driver}: {why}"),
            };
        }
        Err(why)
    }

    fn set_up(&self, runtime: &str, driver: &str, tar: &[u8]) -> Result<(), String> {
        self.remove_all();
        let at = self.folder.display();
        let containers = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nruntime = \"{runtime}\"\n\
             tmp_dir = \"{at}/t\"\nstatic_dir = \"{at}/g/libpod\"\nvolume_path = \"{at}/g/volumes\"\n\
             [network]\nnetwork_config_dir = \"{at}/n\"\n"
        );
        let storage = format!("[storage]\ndriver = \"{driver}\"\ngraphroot = \"{at}/g\"\nrunroot = \"{at}/r\"\n");
        let wrapper = format!(
            "#!/bin/sh\nexport CONTAINERS_CONF={at}/c.conf CONTAINERS_STORAGE_CONF={at}/s.conf\nexec podman \"$@\"\n"
        );
        for (name, text) in [("c.conf", containers), ("s.conf", storage), ("podman", wrapper)] {
            // By another process: one forked here meanwhile would hold the program open, and nobody could execute it.
            let mut writer = Command::new("sh");
            writer.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(self.folder.join(name)).stdin(Stdio::piped());
            let mut writer = writer.spawn().map_err(|e| e.to_string())?;
            let sent = writer.stdin.take().ok_or("no pipe")?.write_all(text.as_bytes());
            sent.and(writer.wait().map(drop)).map_err(|e| e.to_string())?;
        }
        let mut import = self.command(&["import", "-", IMAGE]);
        let mut import = import.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let sent = import.stdin.take().map(|mut stdin| stdin.write_all(tar));
        let import = import.wait_with_output().map_err(|e| e.to_string())?;
        if !import.status.success() || !matches!(sent, Some(Ok(()))) {
            return Err(String::from_utf8_lossy(&import.stderr).into_owned());
        }
        let parent = format!("--cgroup-parent={}", self.cgroup_parent());
        let [open_files, processes] = ULIMITS;
        let run = ["run", "--rm", "--init", "--network=none", "--memory=64m", &parent, open_files, processes];
        let tried = self.try_podman(&[&run[..], &[IMAGE, "true"]].concat());
        if tried.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned()) }
    }

    /// What to name as `docker.program`.
    pub fn program(&self) -> String {
        self.folder.join("podman").display().to_string()
    }

    /// The parent of its containers' cgroups.
    pub fn cgroup_parent(&self) -> String {
        format!("/{}", self.folder.file_name().unwrap_or_default().to_string_lossy())
    }

    /// A pool of docker workers on it, with further lines for the configuration's section `docker`.
    pub fn options(&self, workers: u32, config: &str) -> Options {
        let yaml = format!(
            "workers:\n  mode: docker\ndocker:\n  program: {}\n  image: {IMAGE}\n  args: [--cgroup-parent={}, {}]\n{config}",
            self.program(),
            self.cgroup_parent(),
            ULIMITS.join(", ")
        );
        Options::workers(workers).config(&yaml)
    }

    /// The command line.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs it, whatever comes of it.
    pub fn try_podman(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, expects success, and gives the lines that it writes.
    #[track_caller]
    pub fn podman(&self, arguments: &[&str]) -> Vec<String> {
        let told = self.try_podman(arguments);
        assert!(told.status.success(), "podman {arguments:?}: {told:?}");
        String::from_utf8_lossy(&told.stdout).lines().map(str::to_owned).collect()
    }

    /// The ids of all containers, running or not.
    #[track_caller]
    pub fn containers(&self) -> Vec<String> {
        self.podman(&["ps", "-aq", "--no-trunc"])
    }

    /// The ids of those that run.
    #[track_caller]
    pub fn running(&self) -> Vec<String> {
        self.podman(&["ps", "-q", "--no-trunc", "--filter", "status=running"])
    }

    /// Processes of podman's that look after containers of this storage.
    pub fn keepers(&self) -> Vec<u32> {
        let folder = self.folder.display().to_string();
        let is_ours = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("conmon") && line.contains(&folder)
        };
        let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).filter(is_ours).collect()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let of_cgroups = text.lines().filter(|line| line.contains(" - cgroup"));
        let places = of_cgroups.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let parent = self.cgroup_parent();
        places.map(|place| place.join(parent.trim_start_matches('/'))).filter(|path| path.exists()).collect()
    }

    fn remove_all(&self) {
        if self.folder.join("podman").exists() {
            let _ = self.try_podman(&["rm", "--all", "--force", "--time=0"]);
        }
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let places = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        for place in places.filter(|place| place.starts_with(&self.folder)).collect::<Vec<_>>().into_iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(place).stderr(Stdio::null()).status();
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.remove_all();
        let _ = fs::remove_dir_all(&self.folder);
        let is_clean = eventually(PATIENCE, || {
            self.cgroups().iter().for_each(|path| remove_cgroup(path));
            self.cgroups().is_empty() && self.keepers().is_empty() && !self.folder.exists()
        });
        let left = || format!("{:?} {:?} {}", self.cgroups(), self.keepers(), self.folder.display());
        assert!(is_clean || std::thread::panicking(), "podman left behind: {}", left());
    }
}

fn remove_cgroup(path: &Path) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_cgroup(&entry.path()));
    let _ = fs::remove_dir(path);
}
