//! A private Docker engine, without systemd: one containerd and one dockerd in a short folder of their own.
//!
//! Used by the tests (`engine.rs` beside this file) and by the benchmarks, so it stands alone. Containers get a cgroup
//! parent of this engine's own in each hierarchy, by which all of them are found. Whatever ends it, also a test that
//! panics, nothing stays: what a killed owner leaves is swept by the next one that starts. Deliberately absent:
//! networks, and images from anywhere (see [`image`]).

#![allow(dead_code, reason = "each user has its own part of it")]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The only image there is: all applets of busybox.
pub const IMAGE: &str = "acode-test:1";
/// How the folders begin, and how long their names are kept: a socket's path has 108 bytes.
const PREFIX: &str = "ae-";
const PLACE: &str = "/tmp";
/// Names the engine in the environment of its daemons and of what they start.
const MARK: &str = "ACODE_TEST_ENGINE";
/// How often a predicate is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The engine's two daemons, running or not.
#[derive(Debug)]
pub struct Daemon {
    containerd: Option<Child>,
    dockerd: Option<Child>,
    flags: Vec<String>,
    driver: &'static str,
    patience: Duration,
    folder: PathBuf,
    /// Says to the sweeps of others that this is nobody's remains.
    lock: Option<Flock<File>>,
}

impl Daemon {
    /// Starts one with these further flags of dockerd, and returns when it answers. Nothing takes longer than
    /// `patience`.
    ///
    /// # Errors
    /// Why there can be none here, in words.
    pub fn start(flags: &[&str], patience: Duration) -> Result<Self, String> {
        can_run()?;
        sweep_remains(patience);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(PLACE).map_err(|e| e.to_string())?.keep();
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut daemon =
            Self { containerd: None, dockerd: None, flags, driver: "overlay2", patience, folder, lock: None };
        // From here on a failure is cleaned up by the value's end.
        daemon.lock = Some(hold(&daemon.folder).map_err(|error| error.to_string())?);
        daemon.write_config().map_err(|error| error.to_string())?;
        if daemon.restart().is_err() {
            // Not every file system can be below an overlay.
            daemon.driver = "vfs";
            daemon.restart()?;
        }
        daemon.import()?;
        Ok(daemon)
    }

    /// Its folder, gone with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it is to be reached.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// The environment of whoever is to reach it by the command line, and nothing of the user's own configuration.
    pub fn env(&self) -> Vec<(String, String)> {
        let config = self.folder.join("cli").display().to_string();
        vec![
            ("DOCKER_HOST".to_owned(), format!("unix://{}", self.socket().display())),
            ("DOCKER_CONFIG".to_owned(), config),
        ]
    }

    /// The parent of all its containers' cgroups, from the root of each hierarchy.
    pub fn cgroup_parent(&self) -> String {
        parent_of(&self.folder)
    }

    /// Pid of dockerd, while there is one.
    pub fn dockerd(&self) -> Option<u32> {
        self.dockerd.as_ref().map(Child::id)
    }

    /// Pid of containerd, while there is one.
    pub fn containerd(&self) -> Option<u32> {
        self.containerd.as_ref().map(Child::id)
    }

    /// How it stores images.
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// What both daemons have said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Whether it answers within a second.
    pub fn answers(&self) -> bool {
        answers(&self.socket())
    }

    /// Starts what does not run, on the same folder, and returns when it answers.
    ///
    /// # Errors
    /// It ended, or does not answer; with its last words.
    pub fn restart(&mut self) -> Result<(), String> {
        if self.containerd.is_none() {
            // One that was killed leaves its socket, which would be taken for the new one's.
            let _ = fs::remove_file(self.folder.join("c.sock"));
            let mut command = Command::new("containerd");
            command.arg("--config").arg(self.folder.join("containerd.toml"));
            self.containerd = Some(self.spawn(command)?);
            self.wait("containerd", |daemon| UnixStream::connect(daemon.folder.join("c.sock")).is_ok())?;
        }
        if self.dockerd.is_none() {
            // The pid in it may be somebody else's by now.
            let _ = fs::remove_file(self.folder.join("pid"));
            self.dockerd = Some(self.spawn(self.dockerd_command())?);
        }
        self.wait("dockerd", Self::answers)
    }

    fn dockerd_command(&self) -> Command {
        let mut command = Command::new("dockerd");
        let path = |name: &str| self.folder.join(name);
        command.arg("--config-file").arg(path("daemon.json"));
        command.arg("--data-root").arg(path("d")).arg("--exec-root").arg(path("e")).arg("--pidfile").arg(path("pid"));
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command.arg("--containerd").arg(path("c.sock")).args(["--storage-driver", self.driver]);
        // Nothing of the machine's network is touched. systemd's driver works only where systemd is init.
        command.args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &self.cgroup_parent()]);
        command.args(&self.flags);
        command
    }

    /// Kills dockerd at once. Its containers run on, as does containerd.
    pub fn kill_dockerd(&mut self) {
        end(self.dockerd.take(), Signal::SIGKILL);
    }

    /// Kills containerd at once; the containers and their shims run on.
    pub fn kill_containerd(&mut self) {
        end(self.containerd.take(), Signal::SIGKILL);
    }

    /// Stops dockerd as an administrator would: it stops its containers first.
    pub fn stop(&mut self) {
        end(self.dockerd.take(), Signal::SIGTERM);
    }

    /// Sends dockerd a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.dockerd() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    /// What is of this engine in the world, in words.
    pub fn remains(&self) -> Vec<String> {
        remains(&self.folder)
    }

    fn write_config(&self) -> std::io::Result<()> {
        let at = self.folder.display();
        // What is not listed makes folders elsewhere, or asks for kernel modules.
        let unwanted = [
            "io.containerd.grpc.v1.cri",
            "io.containerd.internal.v1.opt",
            "io.containerd.snapshotter.v1.aufs",
            "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.zfs",
        ];
        let config = format!(
            "version = 2\nroot = '{at}/cr'\nstate = '{at}/cs'\ndisabled_plugins = {unwanted:?}\n\
             [grpc]\naddress = '{at}/c.sock'\n"
        );
        fs::write(self.folder.join("containerd.toml"), config)?;
        fs::write(self.folder.join("daemon.json"), "{}")?;
        fs::create_dir(self.folder.join("cli"))
    }

    fn spawn(&self, mut command: Command) -> Result<Child, String> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("log"));
        let log = log.map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(|error| error.to_string())?).stderr(log);
        command.env(MARK, &self.folder).env_remove("DOCKER_HOST").env_remove("NOTIFY_SOCKET");
        // So that a ctrl-c which ends the tests does not end it first.
        command.process_group(0);
        command.spawn().map_err(|error| format!("{command:?}: {error}"))
    }

    /// Waits until `is_up`.
    fn wait(&mut self, name: &str, is_up: impl Fn(&Self) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + self.patience;
        loop {
            if is_up(self) {
                return Ok(());
            }
            for child in [&mut self.containerd, &mut self.dockerd] {
                let ended = child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
                child.take_if(|_| ended);
            }
            if self.containerd.is_none() || (name == "dockerd" && self.dockerd.is_none()) {
                return Err(format!("{name} ended: {}", last_words(&self.log())));
            }
            if Instant::now() >= deadline {
                return Err(format!("{name} does not answer: {}", last_words(&self.log())));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn import(&self) -> Result<(), String> {
        let tar = image()?;
        import(tar, &self.env())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let left = sweep(&self.folder, self.patience);
        for child in [&mut self.containerd, &mut self.dockerd].into_iter().flatten() {
            let _ = child.wait();
        }
        assert!(left.is_empty() || std::thread::panicking(), "the engine left behind:\n  {}", left.join("\n  "));
        if !left.is_empty() {
            eprintln!("the engine left behind:\n  {}", left.join("\n  "));
        }
    }
}

/// Has an engine know the image.
///
/// # Errors
/// What the command line said.
pub fn import(tar: &[u8], env: &[(String, String)]) -> Result<(), String> {
    let mut command = Command::new("docker");
    command.args(["import", "-", IMAGE]).envs(env.iter().cloned());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("docker: {error}"))?;
    let sent = child.stdin.take().ok_or("no standard input")?.write_all(tar);
    let said = child.wait_with_output().map_err(|error| error.to_string())?;
    if said.status.success() && sent.is_ok() {
        return Ok(());
    }
    Err(format!("docker import: {}", last_words(&String::from_utf8_lossy(&said.stderr))))
}

/// Why no engine can run here, if so.
fn can_run() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("only root can start a Docker engine".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in ["dockerd", "containerd", "runc", "docker", "tar"] {
        if !std::env::split_paths(&path).any(|folder| folder.join(program).exists()) {
            return Err(format!("'{program}' is not installed"));
        }
    }
    let mounts = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if !mounts.is_ok_and(|status| status.success()) {
        return Err("root may not mount here".to_owned());
    }
    image().map(drop)
}

/// The image as a tarball, made once per process.
///
/// # Errors
/// There is no busybox that needs no libraries.
pub fn image() -> Result<&'static [u8], String> {
    static MADE: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    MADE.get_or_init(make_image).as_deref().map_err(Clone::clone)
}

fn make_image() -> Result<Vec<u8>, String> {
    let said = |error: std::io::Error| error.to_string();
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| Some((path, fs::read(path).ok()?)));
    let (path, program) = found.ok_or("busybox is not installed (Debian package busybox-static)")?;
    const LOADER: &[u8] = b"/ld-linux";
    if program.windows(LOADER.len()).any(|window| window == LOADER) {
        return Err(format!("{path} needs libraries (Debian package busybox-static does not)"));
    }
    let root = tempfile::tempdir().map_err(said)?;
    let at = |name: &str| root.path().join(name);
    const FOLDERS: [&str; 11] = ["bin", "usr", "etc", "tmp", "root", "home", "dev", "proc", "sys", "var/tmp", "run"];
    for folder in FOLDERS {
        fs::create_dir_all(at(folder)).map_err(said)?;
    }
    for (target, link) in [("bin", "sbin"), ("../bin", "usr/bin"), ("../bin", "usr/sbin")] {
        symlink(target, at(link)).map_err(said)?;
    }
    fs::copy(path, at("bin/busybox")).map_err(said)?;
    let applets = Command::new(path).arg("--list").output().map_err(said)?.stdout;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", at("bin").join(applet)).map_err(said)?;
    }
    let people = [("root", 0, "/root"), ("tester", 1000, "/home"), ("nobody", 65534, "/")];
    let users = people.map(|(name, id, home)| format!("{name}:x:{id}:{id}::{home}:/bin/sh\n")).concat();
    fs::write(at("etc/passwd"), users).map_err(said)?;
    fs::write(at("etc/group"), people.map(|(name, id, _)| format!("{name}:x:{id}:\n")).concat()).map_err(said)?;
    // Whatever the umask is here, in a container other users than root run too.
    let open = FOLDERS.iter().chain(&["", "var", "etc/passwd", "etc/group"]);
    for (name, mode) in open.map(|name| (name, 0o755)).chain([(&"tmp", 0o1777), (&"var/tmp", 0o1777)]) {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).map_err(said)?;
    }
    let mut tar = Command::new("tar");
    let made = tar.args(["--numeric-owner", "--owner=0", "--group=0", "-c", "-C"]).arg(root.path()).arg(".").output();
    let made = made.map_err(said)?;
    if made.status.success() { Ok(made.stdout) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

/// Whether an engine answers at this socket within a second.
pub fn answers(socket: &Path) -> bool {
    ping(socket).is_ok_and(|answer| answer.starts_with(b"HTTP/1.") && answer[8..].starts_with(b" 200"))
}

fn ping(socket: &Path) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = vec![0; 64];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn end(child: Option<Child>, signal: Signal) {
    let Some(mut child) = child else { return };
    let pid = Pid::from_raw(child.id().cast_signed());
    let _ = kill(pid, signal);
    // One that is frozen has to go on to hear of anything milder.
    let _ = kill(pid, Signal::SIGCONT);
    let _ = child.wait();
}

/// The last line that says something is wrong, or else the last one.
fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    let wrong = |line: &&&str| ["fail", "rror"].iter().any(|word| line.contains(word)) && !line.contains("level=info");
    lines.iter().rev().find(wrong).or(lines.last()).map_or("it said nothing", |line| line).to_owned()
}

// What is in the world of an engine, found by its folder alone.

/// Marks the folder as somebody's. The name appears only once the lock is held.
fn hold(folder: &Path) -> std::io::Result<Flock<File>> {
    let file = File::create(folder.join("lock.new"))?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
    fs::rename(folder.join("lock.new"), folder.join("lock"))?;
    Ok(lock)
}

/// Sweeps what processes left that were killed: nobody holds its lock any more.
fn sweep_remains(patience: Duration) {
    for entry in fs::read_dir(PLACE).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_engine = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Some(file) = is_engine.then(|| File::open(path.join("lock")).ok()).flatten() else { continue };
        if let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            sweep(&path, patience);
        }
    }
}

/// Ends and removes all of an engine; says what it could not.
fn sweep(folder: &Path, patience: Duration) -> Vec<String> {
    let deadline = Instant::now() + patience;
    // The daemons go first, so that nobody starts anything again; what they were about to start comes to light after.
    loop {
        let living = processes(folder);
        if living.is_empty() || Instant::now() >= deadline {
            break;
        }
        for pid in living {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // Under cgroup v1 what is paused does not even die.
        cgroups(folder).iter().for_each(|path| thaw(path));
        std::thread::sleep(LOOK_AGAIN);
    }
    // A shim's socket is not where its containerd is; a file beside the container's bundle says where.
    for socket in shim_sockets(folder) {
        let _ = fs::remove_file(socket);
    }
    for mount in mounts(folder).iter().rev() {
        let _ = Command::new("umount").arg("--lazy").arg(mount).stderr(Stdio::null()).status();
    }
    loop {
        cgroups(folder).iter().for_each(|path| remove_cgroup(path));
        if cgroups(folder).is_empty() || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    // By the folder the next sweep finds what this one could not end.
    if remains(folder).len() == 1
        && let Err(error) = fs::remove_dir_all(folder)
    {
        eprintln!("{}: {error}", folder.display());
    }
    remains(folder)
}

fn thaw(cgroup: &Path) {
    folders(cgroup).iter().for_each(|path| thaw(path));
    for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        // Writing to a file that is not there would not make it, in this file system.
        let _ = fs::write(cgroup.join(file), word);
    }
}

/// What there is of the engine with this folder, in words.
pub fn remains(folder: &Path) -> Vec<String> {
    let mut left: Vec<String> =
        processes(folder).into_iter().map(|pid| format!("process {pid}: {}", line(pid))).collect();
    left.extend(shim_sockets(folder).into_iter().map(|path| format!("socket {}", path.display())));
    left.extend(mounts(folder).into_iter().map(|path| format!("mount {}", path.display())));
    left.extend(cgroups(folder).into_iter().map(|path| format!("cgroup {}", path.display())));
    if folder.exists() {
        left.push(format!("folder {}", folder.display()));
    }
    left
}

/// Daemons, shims and what they start, which all inherit the mark, and all processes in its containers.
fn processes(folder: &Path) -> Vec<i32> {
    let mark = format!("{MARK}={}\0", folder.display());
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            found.insert(pid);
        }
    }
    cgroups(folder).iter().for_each(|path| members(path, &mut found));
    found.remove(&std::process::id().cast_signed());
    found.into_iter().filter(|pid| is_alive(*pid)).collect()
}

fn members(cgroup: &Path, found: &mut BTreeSet<i32>) {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    found.extend(listed.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    folders(cgroup).iter().for_each(|path| members(path, found));
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

fn line(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// The fields of each mount: its place, and the type of its file system.
fn all_mounts() -> Vec<(PathBuf, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let fields = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        Some((place.split(' ').nth(4)?.into(), kind.split(' ').next()?.to_owned()))
    };
    text.lines().filter_map(fields).collect()
}

/// The mounts below a folder, outer ones first.
fn mounts(folder: &Path) -> Vec<PathBuf> {
    all_mounts().into_iter().map(|(place, _)| place).filter(|place| place.starts_with(folder)).collect()
}

/// A cgroup parent of the engine's own. In the QEMU machine it lies in what is delegated to the tests; elsewhere at the
/// root, as the engine's default does.
fn parent_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let place = std::env::var("ACODE_TEST_CGROUP").unwrap_or_default();
    format!("{}/{name}", place.strip_prefix("/sys/fs/cgroup").unwrap_or_default())
}

/// Its cgroup in each hierarchy that has it.
fn cgroups(folder: &Path) -> Vec<PathBuf> {
    let parent = parent_of(folder);
    let hierarchies = all_mounts().into_iter().filter(|(_, kind)| kind.starts_with("cgroup"));
    hierarchies.map(|(place, _)| place.join(parent.trim_start_matches('/'))).filter(|path| path.exists()).collect()
}

fn remove_cgroup(cgroup: &Path) {
    folders(cgroup).iter().for_each(|path| remove_cgroup(path));
    let _ = fs::remove_dir(cgroup);
}

fn shim_sockets(folder: &Path) -> Vec<PathBuf> {
    let bundles = folders(&folder.join("cs/io.containerd.runtime.v2.task/moby"));
    let addresses = bundles.iter().filter_map(|bundle| fs::read_to_string(bundle.join("address")).ok());
    let paths = addresses.filter_map(|address| Some(PathBuf::from(address.trim().strip_prefix("unix://")?)));
    paths.filter(|path| path.exists()).collect()
}
