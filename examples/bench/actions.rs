//! Point n: actions that do nothing, as many a second as can be, in each isolation; beside Python's pool of processes and
//! Celery, and worker programs beside a new process for each task.
//!
//! All are measured from the first submission to the last end that the submitter knows of; ours are on disk by then.
//! Peers are left out where they are not installed: `$ACODE_BENCH_PYTHON` names an interpreter that has celery and redis.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acode::api::{ActionError, Context, WorkAction};
use acode::wire::{Bulk, Client};
use acode_worker::task::{Action, Isolation, Submission, TaskSpec};

use super::Size;
use super::pool::{self, Outcome, Pool, median, wait_all};
use super::proc;
use super::raw;
use super::table::{Figure, Target};

/// What this benchmark starts its pool with: itself, as an acode that has one more action.
pub const AS_ACODE: &str = "ACODE_BENCH_AS_ACODE";
const CONFIG: &str = "queue:\n  maxTasks: 20000000\nworkers:\n  recycle:\n    maxTasks: none\n";

/// An action that does nothing.
pub struct Noop;

impl WorkAction for Noop {
    const NAME: &'static str = "noop";
    type Params = ();
    type Output = ();

    fn execute((): (), _: &mut Context<'_>) -> Result<(), ActionError> {
        Ok(())
    }
}

/// A worker program that does nothing.
const PROGRAM: &str = r#"import json, sys
print('{"type":"ready"}', flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "task":
        print(json.dumps({"type": "result", "id": message["id"], "payload": None}), flush=True)
    elif message["type"] == "shutdown":
        break
"#;
const EXECUTOR: &str = r#"import sys
from concurrent.futures import ProcessPoolExecutor
def noop(_): pass
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(noop, range(4)))
        import time
        n = int(sys.argv[1])
        began = time.monotonic()
        for future in [pool.submit(noop, i) for i in range(n)]:
            future.result()
        print(time.monotonic() - began)
"#;
const CELERY: &str = r#"import os, sys, time
from celery import Celery, group
url = "redis+socket://" + os.environ["BENCH_REDIS"]
app = Celery("bench", broker=url, backend=url)
app.conf.worker_prefetch_multiplier = 64
@app.task(name="noop")
def noop(): pass
if __name__ == "__main__":
    n = int(sys.argv[1])
    group(noop.s() for _ in range(10))().get(timeout=60)
    began = time.monotonic()
    group(noop.s() for _ in range(n))().get(timeout=300)
    print(time.monotonic() - began)
"#;

fn noop(isolation: Isolation, reuse: bool) -> Submission {
    let action = Action { name: Some(Noop::NAME.to_owned()), reuse, ..Action::default() };
    let spec = TaskSpec { action: Some(Box::new(action)), isolation: Some(isolation), ..TaskSpec::default() };
    Submission { spec, ..Submission::default() }
}

fn program(python: &str, path: &Path) -> Submission {
    let program = vec![python.to_owned(), path.display().to_string()];
    let action = Action { program, ..Action::default() };
    Submission { spec: TaskSpec { action: Some(Box::new(action)), ..TaskSpec::default() }, ..Submission::default() }
}

/// Tasks per second of so many of these, submitted one by one through one connection.
fn distinct(client: &mut Client, one: &Submission, count: u32) -> Outcome<f64> {
    let began = Instant::now();
    let mut bulk = Bulk::new(client, false, |_| ());
    for _ in 0..count {
        bulk.push(one)?;
    }
    bulk.finish()?;
    wait_all(client)?;
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// The same of one array.
fn array(client: &mut Client, one: &Submission, count: u32) -> Outcome<f64> {
    let began = Instant::now();
    let array = acode_worker::task::Array::Range { first: 0, count: u64::from(count) };
    pool::submit_one(client, Submission { array: Some(array), ..one.clone() })?;
    wait_all(client)?;
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Point n.
pub fn actions(size: Size) -> Outcome<Vec<Figure>> {
    let own = std::env::current_exe()?;
    let pool = Pool::start_with(&own, 2, CONFIG, &[], &[(AS_ACODE.to_owned(), "1".to_owned())])?;
    let mut client = pool.client()?;
    let (many, some, few, rounds) = size.of((200_000, 5_000, 500, 5), (100_000, 2_000, 200, 3));
    let script = pool.folder().join("program.py");
    fs::write(&script, PROGRAM)?;
    let (none, fork) = (noop(Isolation::None, false), noop(Isolation::Process, false));
    let python = real_interpreter()?;
    let (reuse, program) = (noop(Isolation::Process, true), program(&python, &script));
    let python = pool::task(&[&python, "-c", "pass"]);
    // Whatever is made once is made before.
    for one in [&none, &reuse, &program] {
        distinct(&mut client, one, 100)?;
    }
    let mut rates: [Vec<f64>; 7] = Default::default();
    let mut costs: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        let family = proc::family(pool.pid())?;
        let before = (proc::cpu_us(&family[..1])?, proc::cpu_us(&family[2..])?);
        rates[0].push(array(&mut client, &none, many)?);
        costs[0].push((proc::cpu_us(&family[..1])? - before.0) / f64::from(many));
        costs[1].push((proc::cpu_us(&family[2..])? - before.1) / f64::from(many));
        rates[1].push(distinct(&mut client, &none, many / 2)?);
        rates[2].push(distinct(&mut client, &reuse, some * 4)?);
        rates[3].push(distinct(&mut client, &fork, some)?);
        rates[4].push(distinct(&mut client, &pool::task(&["/bin/true"]), some)?);
        rates[5].push(distinct(&mut client, &program, some * 4)?);
        rates[6].push(distinct(&mut client, &python, few)?);
    }
    let [array, distinct, reuse, fork, command, program, spawned] = rates.map(median);
    let [supervisor, workers] = costs.map(median);
    let rate = |name: &str, value| Figure::new('n', name, value, "actions/s");
    let mut figures = vec![
        rate("no-op, isolation none, an array", array).target(Target::AtLeast(50_000.0)),
        rate("no-op, isolation none, distinct", distinct).target(Target::AtLeast(50_000.0)),
        Figure::new('n', "its supervisor's processor time", supervisor, "us"),
        Figure::new('n', "its workers' processor time", workers, "us"),
        rate("no-op, process, reused", reuse).of("a process each", fork).target(Target::RatioAtLeast(1.0)),
        rate("no-op, process", fork).of("/bin/true", command),
        rate("worker program in Python", program).of("python3 -c pass", spawned).target(Target::RatioAtLeast(1.0)),
    ];
    drop(pool);
    let peers = [
        ("peer: ProcessPoolExecutor, 2 workers", executor(some * 4)),
        ("peer: Celery prefork 2, Redis in memory", celery(some)),
    ];
    for (name, peer) in peers {
        match peer {
            Ok(Some(peer)) => figures.push(rate(name, peer)),
            Ok(None) => {}
            // What was measured of ours is not lost for that.
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
    Ok(figures)
}

/// The interpreter itself: what is found by its name may be a script that looks for it, at many times its cost.
fn real_interpreter() -> Outcome<String> {
    let said = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output()?;
    Ok(String::from_utf8(said.stdout)?.trim().to_owned())
}

fn interpreter() -> String {
    std::env::var("ACODE_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// What a script that prints its seconds comes to.
fn rate_of(command: &mut Command, count: u32) -> Outcome<f64> {
    let said = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    let seconds: f64 = String::from_utf8(said.stdout)?.trim().parse().map_err(|_| "a peer failed")?;
    Ok(f64::from(count) / seconds)
}

fn executor(count: u32) -> Outcome<Option<f64>> {
    if raw::peer("python3", "true")?.is_none() {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("executor.py");
    fs::write(&script, EXECUTOR)?;
    rate_of(Command::new(interpreter()).arg(script).arg(count.to_string()), count).map(Some)
}

/// Celery's usual pool, with a Redis of its own that keeps nothing on disk.
fn celery(count: u32) -> Outcome<Option<f64>> {
    let has = Command::new(interpreter()).args(["-c", "import celery, redis"]).stderr(Stdio::null()).status();
    if raw::peer("redis-server", "true")?.is_none() || !has.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("redis");
    fs::write(folder.path().join("bench.py"), CELERY)?;
    let quiet =
        |command: &mut Command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut redis = Command::new("redis-server");
    redis.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    let mut redis = quiet(redis.current_dir(folder.path()))?;
    let mut worker = Command::new(interpreter());
    worker.args(["-m", "celery", "-A", "bench", "worker", "--pool", "prefork", "-c", "2", "--loglevel", "ERROR"]);
    let mut worker = quiet(worker.current_dir(folder.path()).env("BENCH_REDIS", &socket))?;
    std::thread::sleep(Duration::from_secs(3));
    let mut client = Command::new(interpreter());
    client.arg("bench.py").arg(count.to_string()).current_dir(folder.path()).env("BENCH_REDIS", &socket);
    let rate = rate_of(&mut client, count);
    let term = |child: &std::process::Child| {
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    };
    term(&worker);
    let _ = worker.wait();
    term(&redis);
    let _ = redis.wait();
    rate.map(Some)
}
