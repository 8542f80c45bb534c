//! A pool of its own for a benchmark: the real binary in a temporary state directory, stopped when it is dropped.

use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acode::wire::request::{Status, Submit, Wait};
use acode::wire::types::StatusRecord as PoolStatus;
use acode::wire::{Client, TaskRef};
use acode_worker::task::{Array, Submission, TaskId, TaskSpec};

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program that was built beside this one.
pub fn beside(name: &str) -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    let parent = own.parent().and_then(Path::parent).ok_or("no folder of programs")?;
    Ok(parent.join(name))
}

/// A running pool.
pub struct Pool {
    child: Child,
    folder: tempfile::TempDir,
    /// From its start until all workers were ready.
    pub up: Duration,
}

impl Pool {
    /// Starts one with so many workers and waits until all are ready.
    pub fn start(workers: usize) -> Outcome<Self> {
        Self::start_as(&beside("acode")?, workers, "queue:\n  maxTasks: 20000000\n")
    }

    /// Starts one from this binary, by this configuration.
    pub fn start_as(binary: &Path, workers: usize, yaml: &str) -> Outcome<Self> {
        Self::start_with(binary, workers, yaml, &[], &[])
    }

    /// The same, with these options and this in its environment.
    pub fn start_with(
        binary: &Path,
        workers: usize,
        yaml: &str,
        options: &[&str],
        vars: &[(String, String)],
    ) -> Outcome<Self> {
        let folder = tempfile::tempdir_in(folder())?;
        let config = folder.path().join("acode.yaml");
        std::fs::write(&config, yaml)?;
        let began = Instant::now();
        let log = std::fs::File::create(folder.path().join("stderr"))?;
        let mut command = Command::new(binary);
        command.args(["worker", "start", "--count", &workers.to_string()]).args(options).envs(vars.iter().cloned());
        command.arg("--state-dir").arg(folder.path().join("state")).arg("--config").arg(config);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let mut pool = Self { child, folder, up: Duration::ZERO };
        loop {
            // A pool that does not come up has said why.
            if pool.child.try_wait()?.is_some() || began.elapsed() > PATIENCE {
                return Err(std::fs::read_to_string(pool.folder.path().join("stderr"))?.into());
            }
            if let Ok(mut client) = pool.client()
                && let Ok(status) = pool.status(&mut client)
                && status.workers.idle as usize == workers
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        pool.up = began.elapsed();
        Ok(pool)
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A folder for whatever a benchmark needs, gone with the pool.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The supervisor's pid.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// A new connection.
    pub fn client(&self) -> Outcome<Client> {
        Ok(Client::connect(&self.state().join("run/control.sock"))?)
    }

    /// How it stands.
    pub fn status(&self, client: &mut Client) -> Outcome<PoolStatus> {
        Ok(client.call(&Status {})?.status)
    }

    /// Runs the real command line against this pool, without its output.
    pub fn command_line(&self, args: &[&OsStr]) -> Outcome<bool> {
        let mut command = Command::new(beside("acode")?);
        command.args(&args[..2]).arg("--state-dir").arg(self.state()).args(&args[2..]);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    }

    /// Whether the binary knows `task submit`.
    pub fn has_command_line(&self) -> bool {
        self.command_line(&["task", "submit", "--help"].map(OsStr::new)).unwrap_or(false)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // QUIT is the forced stop; the process is our own child and not reaped yet, so the pid is its.
        let pid = nix::unistd::Pid::from_raw(self.pid());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
        let _ = self.child.wait();
    }
}

/// Where state directories are made: on a disk that keeps what it is given.
pub fn folder() -> PathBuf {
    std::env::var_os("ACODE_BENCH_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// A task that runs this command.
pub fn task(command: &[&str]) -> Submission {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    Submission { spec: TaskSpec { command, ..TaskSpec::default() }, ..Submission::default() }
}

/// An array of so many tasks that run this command.
pub fn array(command: &[&str], count: u64) -> Submission {
    Submission { array: Some(Array::Range { first: 0, count }), ..task(command) }
}

/// A request for these.
pub fn submit(tasks: Vec<Submission>) -> Submit {
    Submit::new(tasks)
}

/// Submits one and gives its id.
pub fn submit_one(client: &mut Client, one: Submission) -> Outcome<TaskId> {
    Ok(*client.call(&submit(vec![one]))?.ids.first().ok_or("no id")?)
}

/// Waits until nothing is left in the queue; an error if anything failed.
pub fn wait_all(client: &mut Client) -> Outcome {
    let waited = client.call(&Wait { all: true, ids: Vec::new() })?;
    if waited.unsuccessful.is_empty() { Ok(()) } else { Err("tasks failed".into()) }
}

/// Waits for one task.
pub fn wait_one(client: &mut Client, id: TaskId) -> Outcome {
    client.call(&Wait { ids: vec![TaskRef::Id(id)], all: false })?;
    Ok(())
}

/// The middle of the values.
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}

/// The value below which this part of the values lies.
pub fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}
