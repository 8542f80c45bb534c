//! The one harness of all behaviour tests: a real pool of the real binary in a directory of its own.
//!
//! A pool is started, used over its control socket, killed, stopped and started again; when it goes out of scope it is
//! stopped by force, and the test fails if anything of it is left: a process, a cgroup, a room, a file, a socket.
//! Deliberately absent: fixed pauses. Whatever takes time is waited for by a predicate with a deadline.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod actions;
pub mod daemon;
pub mod dice;
pub mod engine;
pub mod history;
pub mod leftovers;
pub mod place;

use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use acode::wire::reply::Waited;
use acode::wire::request::{Events, Show, Status, Stop, Submit, Wait, Workers};
use acode::wire::types::{EventRecord, StatusRecord, StopMode, TaskRecord, WorkerRecord, WorkerStatus};
use acode::wire::{Client, ClientError, Method, TaskRef};
use acode_worker::task::{Submission, TaskId, TaskSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use place::scaled;

/// How long anything may take before its test fails. Far more than it does take, since machines may be busy or slow; on
/// one that is slow by nature [`scaled`].
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a predicate is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until `done`, at most until the deadline, [`scaled`]; says whether it came to pass.
pub fn eventually(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + scaled(patience);
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Waits for [`PATIENCE`] until `done`, and fails the test with `what` otherwise.
#[track_caller]
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(eventually(PATIENCE, done), "waited in vain until {what}");
}

/// Sends a signal; one that has ended already needs none.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

/// Sends a signal to a process that follows it, as soon as it does.
#[track_caller]
pub fn signal_when_heard(pid: u32, wanted: Signal) {
    wait_until("it hears signals", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap_or("0");
        u64::from_str_radix(caught, 16).unwrap_or(0) & (1 << (wanted as u32 - 1)) != 0
    });
    signal(pid, wanted);
}

/// Whether this process runs; a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// A task of `sh -c`. What is executed is `script`; `arguments` are `$1` and so on.
pub fn shell(script: &str, arguments: &[&str]) -> TaskSpec {
    let command = ["sh", "-c", script, "sh"].iter().chain(arguments).map(|part| (*part).to_owned()).collect();
    TaskSpec { command, ..TaskSpec::default() }
}

/// How a pool is started.
#[derive(Debug, Clone)]
pub struct Options {
    count: u32,
    yaml: String,
    vars: Vec<(String, String)>,
    failpoint: Option<String>,
    hides_cgroups: bool,
    user: Option<u32>,
    through: Vec<String>,
    folder: PathBuf,
    program: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            count: 2,
            yaml: String::new(),
            vars: Vec::new(),
            failpoint: None,
            hides_cgroups: false,
            user: None,
            through: Vec::new(),
            folder: "/tmp".into(),
            program: env!("CARGO_BIN_EXE_acode").into(),
        }
    }
}

impl Options {
    /// With so many workers.
    pub fn workers(count: u32) -> Self {
        Self { count, ..Self::default() }
    }

    /// With this text in its acode.yaml.
    #[must_use]
    pub fn config(mut self, yaml: &str) -> Self {
        self.yaml.push_str(yaml);
        self.yaml.push('\n');
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    /// On a machine that has no cgroups, as far as it can see; needs [`can_hide_cgroups`].
    #[must_use]
    pub fn without_cgroups(mut self) -> Self {
        self.hides_cgroups = true;
        self
    }

    /// With tasks that may signal the pool's own processes, which else Landlock forbids.
    #[must_use]
    pub fn signals_go_anywhere(self) -> Self {
        self.var("ACODE_WORKERS_SANDBOX_SIGNALS", "host")
    }

    /// As this user, which takes a test that runs as root.
    #[must_use]
    pub fn of_user(mut self, user: u32) -> Self {
        self.user = Some(user);
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        self.through(&["setpriv", &uid, &gid, "--clear-groups"])
    }

    /// Executed by this program and its arguments, which are followed by ours.
    #[must_use]
    pub fn through(mut self, program: &[&str]) -> Self {
        self.through = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With its directory in this folder, whose path must be short.
    #[must_use]
    pub fn within(mut self, folder: &str) -> Self {
        self.folder = folder.into();
        self
    }

    /// Of the program in this file, which is an acode.
    #[must_use]
    pub fn of_program(mut self, path: &str) -> Self {
        self.program = path.to_owned();
        self
    }

    /// Of an acode with actions of its own ([`actions::program`]).
    #[must_use]
    pub fn with_actions(mut self) -> Self {
        self.program = actions::program();
        self
    }

    /// With a place at which one process, the first to pass it, dies. Every test needs a point of its own per pool.
    #[must_use]
    pub fn dies_once_at(mut self, point: &str) -> Self {
        self.failpoint = Some(point.to_owned());
        self
    }
}

/// A pool, running or not, in a directory of its own.
#[derive(Debug)]
pub struct Pool {
    options: Options,
    child: Option<Child>,
    /// Nothing is expected of what is left, since the test left it on purpose.
    abandoned: bool,
    /// Where it is born, in the QEMU machine.
    place: Option<place::Delegated>,
    home: tempfile::TempDir,
}

impl Pool {
    /// Starts a pool, and returns when it accepts work.
    #[track_caller]
    pub fn start(options: Options) -> Self {
        let mut pool = Self::prepare(options);
        pool.restart();
        pool
    }

    /// Makes the directory of a pool that is not started yet.
    pub fn prepare(options: Options) -> Self {
        // Not where $TMPDIR says: the path of the control socket must fit into 108 bytes.
        let home = tempfile::Builder::new().prefix("ac-").tempdir_in(&options.folder).unwrap();
        let place = if options.hides_cgroups { None } else { place::Delegated::make() };
        let pool = Self { options, child: None, abandoned: false, place, home };
        fs::write(pool.file("acode.yaml"), format!("log:\n  level: debug\n{}", pool.options.yaml)).unwrap();
        fs::create_dir(pool.file("struck")).unwrap();
        for place in [pool.home.path().to_owned(), pool.file("struck"), pool.file("acode.yaml")] {
            std::os::unix::fs::chown(place, pool.options.user, pool.options.user).unwrap();
        }
        pool
    }

    /// Starts the pool, again or for the first time, and returns when it accepts work.
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch();
        let up = eventually(PATIENCE, || self.answers() || self.has_ended());
        if !up || self.has_ended() {
            panic!("the pool did not start:\n{}", self.log());
        }
    }

    /// Starts the pool, and starts it again should it be killed before it accepts work.
    #[track_caller]
    pub fn revive(&mut self) {
        const STARTS: u32 = 4;
        for _ in 0..STARTS {
            self.launch();
            assert!(eventually(PATIENCE, || self.answers() || self.has_ended()), "no answer:\n{}", self.log());
            if !self.has_ended() {
                return;
            }
            self.child = None;
        }
        panic!("the pool did not start:\n{}", self.log());
    }

    /// Whether it is not started, or known to have ended.
    pub fn is_down(&self) -> bool {
        self.child.is_none()
    }

    /// Starts the pool without waiting for anything.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the pool is started already");
        self.child = Some(self.command().spawn().unwrap());
    }

    /// The command that starts the pool.
    pub fn command(&self) -> Command {
        let log = || OpenOptions::new().create(true).append(true).open(self.file("stderr")).unwrap();
        let born = |program: &str| match &self.place {
            Some(place) => place.command(program),
            None => Command::new(program),
        };
        let mut command = match (self.options.hides_cgroups, self.options.through.split_first()) {
            (false, Some((program, arguments))) => {
                let mut command = born(program);
                command.args(arguments).arg(&self.options.program);
                command
            }
            (false, None) => born(&self.options.program),
            (true, _) => {
                let hide = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", hide, &self.options.program]);
                command
            }
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACODE_")) {
            command.env_remove(name);
        }
        command.args(["worker", "start", "--count", &self.options.count.to_string()]);
        command.arg("--state-dir").arg(self.state_dir()).arg("--config").arg(self.file("acode.yaml"));
        command.envs(self.options.vars.iter().cloned());
        if let Some(point) = &self.options.failpoint {
            command.env("ACODE_FAILPOINTS", point).env("ACODE_FAILPOINTS_ONCE", self.file("struck"));
        }
        command.current_dir(self.home.path()).stdin(Stdio::null()).stdout(log()).stderr(log()).process_group(0);
        command
    }

    /// Makes one process of the next start die at this place.
    pub fn dies_once_at(&mut self, point: &str) {
        self.options.failpoint = Some(point.to_owned());
    }

    /// Whether a process has died at this place.
    pub fn has_struck(&self, point: &str) -> bool {
        let name = point.split(['@', '=']).next().unwrap_or(point);
        self.file("struck").join(name).exists()
    }

    /// Takes a variable out of the environment of the next start.
    pub fn remove_var(&mut self, name: &str) {
        self.options.vars.retain(|(known, _)| known != name);
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.file("s")
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir().join("run/control.sock")
    }

    /// A file beside the state directory, for tasks to write to.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The same as text.
    pub fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    /// The lines of such a file; none if it does not exist.
    pub fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.file(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// What the pool has said on standard error, from all of its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("stderr")).unwrap_or_default()
    }

    /// The supervisor's pid.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the pool is not started").id()
    }

    /// A connection to the pool. A call that takes longer than [`PATIENCE`] fails.
    #[track_caller]
    pub fn client(&self) -> Client {
        self.try_client().unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    fn try_client(&self) -> std::io::Result<Client> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(scaled(PATIENCE)))?;
        Ok(Client::new(stream))
    }

    fn answers(&self) -> bool {
        use acode::wire::request::Ping;
        let Ok(mut client) = self.try_client() else { return false };
        client.call(&Ping {}).is_ok_and(|pong| pong.pid == self.pid())
    }

    /// Calls on a connection of its own; an error fails the test.
    #[track_caller]
    pub fn call<M: Method>(&self, request: &M) -> M::Reply {
        self.try_call(request).unwrap_or_else(|error| panic!("{}: {error}\n{}", M::NAME, self.log()))
    }

    /// Calls on a connection of its own.
    ///
    /// # Errors
    /// Nobody listens, the connection broke, or the pool did not do it.
    pub fn try_call<M: Method>(&self, request: &M) -> Result<M::Reply, ClientError> {
        self.try_client().map_err(ClientError::Io)?.call(request)
    }

    /// Submits a command.
    #[track_caller]
    pub fn submit(&self, command: &[&str]) -> TaskId {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        self.submit_spec(TaskSpec { command, ..TaskSpec::default() })
    }

    /// Submits one task.
    #[track_caller]
    pub fn submit_spec(&self, spec: TaskSpec) -> TaskId {
        self.submit_all(vec![Submission { spec, ..Submission::default() }])[0]
    }

    /// Submits several entries in one request.
    #[track_caller]
    pub fn submit_all(&self, tasks: Vec<Submission>) -> Vec<TaskId> {
        self.call(&Submit::new(tasks)).ids
    }

    /// Waits until the task has ended, and shows it.
    #[track_caller]
    pub fn wait(&self, id: TaskId) -> TaskRecord {
        self.call(&Wait { ids: vec![TaskRef::Id(id)], all: false });
        self.show(id)
    }

    /// Waits until all tasks have ended.
    #[track_caller]
    pub fn wait_all(&self) -> Waited {
        self.call(&Wait { ids: Vec::new(), all: true })
    }

    /// Everything about a task.
    #[track_caller]
    pub fn show(&self, id: TaskId) -> TaskRecord {
        self.call(&Show { id: TaskRef::Id(id) }).task
    }

    /// The living workers.
    #[track_caller]
    pub fn workers(&self) -> Vec<WorkerRecord> {
        self.call(&Workers {}).workers
    }

    /// The worker that holds this task, as soon as there is one.
    #[track_caller]
    pub fn worker_of(&self, task: TaskId) -> WorkerRecord {
        let mut found = None;
        wait_until("a worker holds the task", || {
            found = self.workers().into_iter().find(|worker| worker.current_task == Some(task));
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until all workers are idle, and gives them.
    #[track_caller]
    pub fn idle_workers(&self) -> Vec<WorkerRecord> {
        let mut workers = Vec::new();
        wait_until("all workers are idle", || {
            workers = self.workers();
            let idle = workers.iter().filter(|worker| worker.status == WorkerStatus::Idle).count();
            idle == workers.len() && idle == self.options.count as usize
        });
        workers
    }

    /// The pool in figures.
    #[track_caller]
    pub fn status(&self) -> StatusRecord {
        self.call(&Status {}).status
    }

    /// Every event that is kept, oldest first.
    #[track_caller]
    pub fn events(&self) -> Vec<EventRecord> {
        let mut client = self.client();
        let batches = client.call_more(&Events::default()).unwrap();
        batches.flat_map(|batch| batch.unwrap().events).collect()
    }

    /// The pids of everything that belongs to the pool: supervisor, nursery, workers, tasks with all that they started.
    pub fn processes(&self) -> Vec<u32> {
        leftovers::processes_of(&self.state_dir()).into_iter().map(|(pid, _)| pid).collect()
    }

    /// The pid of the nursery.
    #[track_caller]
    pub fn nursery(&self) -> u32 {
        // A newborn worker has the nursery's name for a moment, but is never the leader of its session.
        let leads =
            |pid: u32| nix::unistd::getsid(Some(Pid::from_raw(pid as i32))).is_ok_and(|s| s.as_raw() == pid as i32);
        let named = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|n| n == "acode-nursery\n");
        self.processes().into_iter().find(|pid| leads(*pid) && named(*pid)).expect("there is no nursery")
    }

    /// Kills the supervisor, and nothing else, as a power cut would; returns when it is dead.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("the pool is not started");
        let _ = child.kill();
        child.wait().unwrap();
    }

    /// Stops the pool by force.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.stop_as(Stop { mode: StopMode::Force, timeout_ms: None })
    }

    /// Stops the pool in this way, and returns when the supervisor has ended.
    #[track_caller]
    pub fn stop_as(&mut self, how: Stop) -> ExitStatus {
        self.call(&how);
        self.wait_exit()
    }

    /// Whether the supervisor has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits until the supervisor has ended by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        if !eventually(PATIENCE, || self.has_ended()) {
            panic!("the supervisor does not end:\n{}", self.log());
        }
        self.child.take().expect("the pool is not started").wait().unwrap()
    }

    /// What is left of the pool, in words; nothing if it left the world as it found it.
    pub fn leftovers(&self) -> Vec<String> {
        leftovers::of(&self.state_dir())
    }

    /// Kills all that is left, and expects nothing of it: for a test after which no pool can run here any more.
    pub fn abandon(mut self) {
        self.abandoned = true;
    }

    /// Stops the pool by force, and says what is left of it then.
    fn end(&mut self) -> Result<(), String> {
        if self.has_ended() {
            self.child = None;
            self.launch();
        }
        if !eventually(PATIENCE, || self.answers() || self.has_ended()) {
            return Err("the pool does not answer".to_owned());
        }
        let force = Stop { mode: StopMode::Force, timeout_ms: None };
        let told = self.try_call(&force).map(drop).map_err(|error| error.to_string());
        if !eventually(PATIENCE, || self.has_ended()) {
            return Err(format!("the pool does not stop; told to, it said {told:?}"));
        }
        let left = self.leftovers();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind:\n  {}", left.join("\n  "))) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let hopeless = self.abandoned || std::thread::panicking();
        let ended = if hopeless { Ok(()) } else { self.end() };
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        leftovers::kill_all(&self.state_dir());
        if std::thread::panicking() {
            eprintln!("the pool's log:\n{}", tail(&self.log()));
        } else if let Err(why) = ended {
            panic!("{why}\nthe pool's log:\n{}", tail(&self.log()));
        }
    }
}

/// The last lines of a log, enough to see what went wrong.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(80)..].join("\n")
}

/// Whether this user may have a view of the file system of its own, in which there are no cgroups.
pub fn can_hide_cgroups() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Whether this machine gives us cgroups to kill by: then even what has escaped from its session is found.
pub fn has_cgroup(pool: &Pool) -> bool {
    cgroup_of(&pool.state_dir()).is_some_and(|path| path.is_dir())
}

/// The cgroup of the pool with this state directory, if it noted one.
pub fn cgroup_of(state: &Path) -> Option<PathBuf> {
    let note = fs::read_to_string(state.join("cgroup")).ok()?;
    Some(PathBuf::from(note.trim_end()))
}
