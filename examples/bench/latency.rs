//! Points c and g: from a submission to the task's first instruction, and from a worker's death to the next attempt.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use acode_worker::sys::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Size;
use super::pool::{self, Outcome, Pool, beside, percentile, wait_one};
use super::table::{Figure, Target};
use super::{proc, raw};

/// A named pipe into which tasks write when they began.
pub struct Stamps {
    path: PathBuf,
    file: File,
}

impl Stamps {
    /// Makes it in this folder.
    pub fn new(folder: &Path) -> Outcome<Self> {
        let path = folder.join("stamps");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)?;
        // Opened for writing too, so that it does not end with each task.
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Milliseconds from then until the next task's first instruction.
    pub fn since(&mut self, then_ns: u64) -> Outcome<f64> {
        let mut stamp = [0; 8];
        self.file.read_exact(&mut stamp)?;
        Ok(u64::from_ne_bytes(stamp).saturating_sub(then_ns) as f64 / 1e6)
    }
}

/// Point c: submit to first instruction.
pub fn first_instruction(size: Size) -> Outcome<Vec<Figure>> {
    let rounds = size.of(200, 50);
    let pool = Pool::start(2)?;
    let mut stamps = Stamps::new(pool.folder())?;
    let program = beside("first_instruction")?;
    let words = [program.to_string_lossy().into_owned(), stamps.path.to_string_lossy().into_owned()];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let typed: Vec<&OsStr> = ["task", "submit", "--"].iter().chain(&words).map(OsStr::new).collect();
    let mut client = pool.client()?;
    let has_command_line = pool.has_command_line();
    let (mut bare, mut open, mut line) = (Vec::new(), Vec::new(), Vec::new());
    // The pool is idle when a task comes: the worker sleeps, and has to be woken.
    let rest = || std::thread::sleep(Duration::from_millis(3));
    for round in 0..rounds + 5 {
        rest();
        let then = clock::monotonic_ns();
        let pid = raw::spawn(&program, &stamps.path)?;
        let by_spawn = stamps.since(then)?;
        nix::sys::wait::waitpid(pid, None)?;
        rest();
        let then = clock::monotonic_ns();
        let id = pool::submit_one(&mut client, pool::task(&words))?;
        let by_connection = stamps.since(then)?;
        wait_one(&mut client, id)?;
        rest();
        let then = clock::monotonic_ns();
        let by_line = if has_command_line && pool.command_line(&typed)? { Some(stamps.since(then)?) } else { None };
        // The first few fill caches.
        if round >= 5 {
            bare.push(by_spawn);
            open.push(by_connection);
            line.extend(by_line);
        }
    }
    let mut figures = Vec::new();
    for (part, name, most) in [(0.5, "p50", 1.5), (0.99, "p99", 3.0)] {
        let limit = percentile(&mut bare, part);
        let mut add = |ways: &mut Vec<f64>, way: &str| {
            if !ways.is_empty() {
                let figure =
                    Figure::new('c', format!("{way} to first instruction, {name}"), percentile(ways, part), "ms");
                figures.push(figure.of("bare posix_spawn", limit).target(Target::AtMost(most)));
            }
        };
        add(&mut open, "open connection");
        add(&mut line, "command line");
    }
    Ok(figures)
}

/// Point g: a worker is killed, and its task runs again.
pub fn death(size: Size) -> Outcome<Vec<Figure>> {
    let rounds = size.of(20, 5);
    let mut times = Vec::new();
    for _ in 0..rounds {
        // A pool of its own for each, since one that loses workers again and again waits before it makes new ones.
        let pool = Pool::start(2)?;
        let mut stamps = Stamps::new(pool.folder())?;
        let program = beside("first_instruction")?;
        let script = format!("'{}' '{}'; exec sleep 600", program.display(), stamps.path.display());
        let mut client = pool.client()?;
        let began = clock::monotonic_ns();
        pool::submit_one(&mut client, pool::task(&["/bin/sh", "-c", &script]))?;
        stamps.since(began)?;
        let worker = holder(pool.pid())?;
        let then = clock::monotonic_ns();
        kill(Pid::from_raw(worker), Signal::SIGKILL)?;
        times.push(stamps.since(then)?);
    }
    let mut figure = |part, name| {
        let name = format!("worker killed to its task running again, {name}");
        Figure::new('g', name, percentile(&mut times, part), "ms").target(Target::AtMost(100.0))
    };
    Ok(vec![figure(0.5, "p50"), figure(0.99, "p99")])
}

/// The worker that has a child.
fn holder(supervisor: i32) -> Outcome<i32> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        for pid in proc::family(supervisor)?.into_iter().skip(1) {
            if proc::name(pid).starts_with("acode-w") && proc::family(pid)?.len() > 1 {
                return Ok(pid);
            }
        }
    }
    Err("no worker has a task".into())
}
