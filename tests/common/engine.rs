//! A real Docker engine for a test: its own, or the one of a machine with systemd; and engines that fail in ways no real
//! one can be made to.
//!
//! [`Engine::start`] makes a private one in under a second, in which a test may do as it likes; [`Engine::of_system`] is
//! the engine as administrators have it, for one test at a time. Both give `None`, and say why, where there can be none.
//!
//!     let Some(engine) = Engine::start() else { return };
//!     let pool = Pool::start(engine.options(Options::workers(2)));
//!
//! Deliberately absent: how the private one lives and dies (`daemon.rs`).

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use super::daemon::{self, Daemon};
use super::{Options, PATIENCE, scaled, wait_until};

/// The socket of the system's engine.
const SYSTEM_SOCKET: &str = "/run/docker.sock";

/// A running engine that knows the image [`Engine::image`]. Nothing of it is left when it is dropped.
#[derive(Debug)]
pub struct Engine(Kind);

#[derive(Debug)]
enum Kind {
    Private(Daemon),
    System { home: tempfile::TempDir, _turn: Flock<File> },
}

impl Engine {
    /// Starts one for this test alone. Declare it before the pool, so that it ends after it.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with further flags of dockerd, as in `--live-restore`.
    #[track_caller]
    pub fn start_with(flags: &[&str]) -> Option<Self> {
        match Daemon::start(flags, scaled(PATIENCE)) {
            Ok(daemon) => Some(Self(Kind::Private(daemon))),
            Err(why) => {
                assert!(std::env::var_os("ACODE_TEST_VM").is_none(), "no Docker engine: {why}");
                eprintln!("skipped: no Docker engine: {why}");
                None
            }
        }
    }

    /// The machine's own engine, started by systemd and with its driver of cgroups; only in the QEMU machine. It is
    /// everybody's, so tests take turns.
    #[track_caller]
    pub fn of_system() -> Option<Self> {
        if !super::place::in_machine("the system's Docker engine") {
            return None;
        }
        let file = File::create("/run/acode-docker-test.lock").unwrap();
        let turn = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
        let home = tempfile::Builder::new().prefix("ae-system-").tempdir_in("/tmp").unwrap();
        let mut engine = Self(Kind::System { home, _turn: turn });
        engine.restart();
        daemon::import(daemon::image().unwrap(), &engine.env()).unwrap();
        Some(engine)
    }

    /// The image: busybox with all of its applets, the users root, tester (1000) and nobody, and /tmp for everybody.
    pub fn image(&self) -> &str {
        daemon::IMAGE
    }

    /// The environment by which programs find this engine.
    pub fn env(&self) -> Vec<(String, String)> {
        match &self.0 {
            Kind::Private(daemon) => daemon.env(),
            Kind::System { home, .. } => vec![
                ("DOCKER_HOST".to_owned(), format!("unix://{SYSTEM_SOCKET}")),
                ("DOCKER_CONFIG".to_owned(), home.path().display().to_string()),
            ],
        }
    }

    /// A pool that finds this engine.
    #[must_use]
    pub fn options(&self, options: Options) -> Options {
        self.env().into_iter().fold(options, |options, (name, value)| options.var(&name, value))
    }

    /// Where it is to be reached.
    pub fn socket(&self) -> PathBuf {
        match &self.0 {
            Kind::Private(daemon) => daemon.socket(),
            Kind::System { .. } => SYSTEM_SOCKET.into(),
        }
    }

    /// A folder that goes with the engine, for files of the test.
    pub fn folder(&self) -> &Path {
        match &self.0 {
            Kind::Private(daemon) => daemon.folder(),
            Kind::System { home, .. } => home.path(),
        }
    }

    /// The command line, for this engine.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments).envs(self.env()).stdin(Stdio::null());
        command
    }

    /// Runs the command line; whatever came of it. While the engine is frozen this does not return.
    pub fn try_docker<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the command line, expects success, and gives its standard output without the last line end.
    #[track_caller]
    pub fn docker<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let told = self.try_docker(arguments);
        let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert!(told.status.success(), "docker {arguments:?}: {}\n{out}\n{err}\n{}", told.status, self.log());
        out.trim_end().to_owned()
    }

    /// The full ids of all containers, running or not.
    #[track_caller]
    pub fn containers(&self) -> Vec<String> {
        self.listed(&["ps", "-aq", "--no-trunc"])
    }

    /// The same of those with this label, as in `acode.pool` or `acode.pool=0123456789`.
    #[track_caller]
    pub fn containers_labelled(&self, label: &str) -> Vec<String> {
        self.listed(&["ps", "-aq", "--no-trunc", "--filter", &format!("label={label}")])
    }

    /// The same of those that run or are paused.
    #[track_caller]
    pub fn running(&self) -> Vec<String> {
        self.listed(&["ps", "-q", "--no-trunc"])
    }

    #[track_caller]
    fn listed(&self, arguments: &[&str]) -> Vec<String> {
        self.docker(arguments).lines().map(str::to_owned).collect()
    }

    /// One field of what the engine knows about a container, as in `{{.State.Status}}`.
    #[track_caller]
    pub fn inspect(&self, container: &str, format: &str) -> String {
        self.docker(&["inspect", "--format", format, container])
    }

    /// Whether it answers within a second.
    pub fn answers(&self) -> bool {
        match &self.0 {
            Kind::Private(daemon) => daemon.answers(),
            Kind::System { .. } => daemon::answers(Path::new(SYSTEM_SOCKET)),
        }
    }

    /// Pid of dockerd; `None` while there is none.
    pub fn daemon_pid(&self) -> Option<u32> {
        match &self.0 {
            Kind::Private(daemon) => daemon.dockerd(),
            Kind::System { .. } => {
                let told = Command::new("systemctl").args(["show", "--value", "-p", "MainPID", "docker"]).output();
                String::from_utf8_lossy(&told.unwrap().stdout).trim().parse().ok().filter(|pid| *pid != 0)
            }
        }
    }

    /// Kills dockerd at once. Its containers run on, and the command lines attached to them end. systemd starts the
    /// system's again by itself, seconds later.
    pub fn kill_daemon(&mut self) {
        match &mut self.0 {
            Kind::Private(daemon) => daemon.kill_dockerd(),
            Kind::System { .. } => ctl(&["kill", "-s", "KILL", "--kill-who=main", "docker.service"]),
        }
    }

    /// The same, and containerd too: what is left are the containers and their shims.
    pub fn kill_daemons(&mut self) {
        self.kill_daemon();
        match &mut self.0 {
            Kind::Private(daemon) => daemon.kill_containerd(),
            Kind::System { .. } => ctl(&["kill", "-s", "KILL", "--kill-who=main", "containerd.service"]),
        }
    }

    /// Stops it as an administrator would; it stops its containers first.
    pub fn stop_daemon(&mut self) {
        match &mut self.0 {
            Kind::Private(daemon) => daemon.stop(),
            // The socket would start it again at the next call.
            Kind::System { .. } => ctl(&["stop", "docker.socket", "docker.service"]),
        }
    }

    /// Has dockerd hang: it still accepts connections, as far as its socket holds them, and answers none. Its containers
    /// run on.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Has it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        super::signal(self.daemon_pid().expect("dockerd does not run"), signal);
    }

    /// Starts what does not run of it, with all that it knew, and returns when it answers. Without `--live-restore` a
    /// dockerd that was killed ends, at its start, what ran in its containers.
    #[track_caller]
    pub fn restart(&mut self) {
        match &mut self.0 {
            Kind::Private(daemon) => daemon.restart().unwrap(),
            Kind::System { .. } => {
                // It may have been started, or have died, more often than systemd lets pass. A unit that is not loaded yet
                // has nothing to be forgotten.
                let forget = ["reset-failed", "containerd.service", "docker.service", "docker.socket"];
                let _ = Command::new("systemctl").args(forget).output();
                ctl(&["start", "containerd.service", "docker.socket", "docker.service"]);
                wait_until("the system's engine answers", || self.answers());
            }
        }
    }

    /// What it has said.
    pub fn log(&self) -> String {
        match &self.0 {
            Kind::Private(daemon) => daemon.log(),
            Kind::System { .. } => {
                let told = Command::new("journalctl").args(["-u", "docker", "--no-pager", "-n", "100"]).output();
                String::from_utf8_lossy(&told.unwrap().stdout).into_owned()
            }
        }
    }

    /// The private engine's part of the world, in words: processes, mounts, cgroups, sockets, its folder.
    pub fn remains(&self) -> Vec<String> {
        match &self.0 {
            Kind::Private(daemon) => daemon.remains(),
            Kind::System { .. } => Vec::new(),
        }
    }

    /// A command line for `docker.program` that notes its arguments and then is the real one.
    pub fn recording_cli(&self) -> Cli {
        self.scripted_cli("")
    }

    /// The same, which after noting them does what this script says, of `sh`, as in `[ "$1" != run ] || exit 125`; if it
    /// does not end there, it goes on as the real one.
    pub fn scripted_cli(&self, script: &str) -> Cli {
        Cli::make(self.folder(), script)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Kind::System { .. } = self.0 else { return };
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        // Frozen, it would not stop.
        if self.daemon_pid().is_some() {
            self.thaw();
        }
        let script = "docker ps -aq | xargs -r docker rm --force; docker rmi --force \"$0\"";
        let _ = Command::new("sh").args(["-c", script, self.image()]).envs(self.env()).output();
        ctl(&["stop", "docker.socket", "docker.service", "containerd.service"]);
    }
}

fn ctl(arguments: &[&str]) {
    let told = Command::new("systemctl").args(arguments).output().unwrap();
    if !told.status.success() && !std::thread::panicking() {
        panic!("systemctl {arguments:?}: {}", String::from_utf8_lossy(&told.stderr));
    }
}

/// A program in the place of the docker command line, which notes each of its calls.
#[derive(Debug)]
pub struct Cli {
    program: PathBuf,
    calls: PathBuf,
}

impl Cli {
    /// Makes one in this folder; it needs no engine as long as its script ends.
    pub fn make(folder: &Path, script: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (program, calls) = (folder.join(format!("docker-{number}")), folder.join(format!("calls-{number}")));
        File::create(&calls).unwrap();
        let note = format!("printf '%s\\0' $# \"$@\" >>'{}'", calls.display());
        let text = format!("#!/bin/sh\n{note}\n{script}\nexec docker \"$@\"\n");
        // Written by another process: one that is forked here meanwhile would hold it open, and nobody could execute it.
        let mut writer = Command::new("sh");
        writer.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(&program).stdin(Stdio::piped());
        let mut writer = writer.spawn().unwrap();
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        Self { program, calls }
    }

    /// What to name as `docker.program`.
    pub fn program(&self) -> &str {
        self.program.to_str().unwrap()
    }

    /// The arguments of every call up to now, oldest first.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let noted = fs::read(&self.calls).unwrap();
        let mut words = noted.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let mut calls = Vec::new();
        while let Some(count) = words.next().and_then(|count| count.parse().ok()) {
            calls.push(words.by_ref().take(count).collect());
        }
        calls
    }

    /// Those of one command, as in `run`.
    pub fn calls_of(&self, command: &str) -> Vec<Vec<String>> {
        self.calls().into_iter().filter(|call| call.first().is_some_and(|first| first == command)).collect()
    }
}

/// An engine that accepts and never answers.
#[derive(Debug)]
pub struct HangingSocket {
    home: tempfile::TempDir,
    ends: Arc<AtomicBool>,
    accepted: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl HangingSocket {
    /// Starts one.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("ah-").tempdir_in("/tmp").unwrap();
        let listener = UnixListener::bind(home.path().join("s")).unwrap();
        let (ends, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (seen, counted) = (Arc::clone(&ends), Arc::clone(&accepted));
        let thread = std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                if seen.load(Ordering::Acquire) {
                    break;
                }
                held.push(stream);
                counted.fetch_add(1, Ordering::Release);
            }
        });
        Self { home, ends, accepted, thread: Some(thread) }
    }

    /// Where it is to be reached.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }

    /// The environment by which programs find it.
    pub fn env(&self) -> Vec<(String, String)> {
        let config = self.home.path().display().to_string();
        let host = format!("unix://{}", self.socket().display());
        vec![("DOCKER_HOST".to_owned(), host), ("DOCKER_CONFIG".to_owned(), config)]
    }

    /// A pool that finds it.
    #[must_use]
    pub fn options(&self, options: Options) -> Options {
        self.env().into_iter().fold(options, |options, (name, value)| options.var(&name, value))
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::Acquire)
    }
}

impl Drop for HangingSocket {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        let _ = UnixStream::connect(self.socket());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
