//! Point m: what acode adds to a container: tasks in docker workers beside bare `docker run`, with the same flags, of the
//! same engine.
//!
//! The engine is one of its own, as the tests have it, and the container does nothing. Rounds go in turns, and each of
//! ours is held against the bare ones right before and right after it.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use acode::wire::Client;

use super::Size;
use super::daemon::{Daemon, IMAGE};
use super::pool::{self, Outcome, Pool, beside, median};
use super::table::{Figure, Target};

const TRUE: &[&str] = &["true"];
/// Long enough for a worker to learn where this engine, which is not in the usual place, keeps its containers' cgroups. It asks
/// the engine until it knows.
const WHILE: &[&str] = &["sleep", "2"];
/// How long the engine's start may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// `docker run` as a careful user would type it for one task, which is what a docker worker does.
const FLAGS: &[&str] = &[
    "--init",
    "--pull=never",
    "--network=none",
    "--ulimit=core=0",
    "--read-only",
    "--tmpfs=/tmp:nosuid,nodev,size=64m",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--user=0:0",
    "--log-driver=none",
    "--stop-timeout=10",
];

/// Bare `docker run`.
struct Bare<'e> {
    engine: &'e Daemon,
    next: AtomicU32,
}

impl Bare<'_> {
    /// Runs one to its end, and removes it.
    fn one(&self) -> Outcome {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let at = |name: &str| self.engine.folder().join(format!("{name}-{number}"));
        let (room, cid, env) = (at("room"), at("cid"), at("env"));
        fs::create_dir(&room)?;
        fs::write(&env, "ACODE_TASK=bare\n")?;
        let mut command = Command::new("docker");
        command.args(["run", "--rm"]).args(FLAGS).envs(self.engine.env());
        command.arg(format!("--name=bare-{number}")).args(["--label=acode.bare=1", "--label=acode.attempt=1"]);
        command.arg("--cidfile").arg(&cid).arg("--env-file").arg(&env);
        command.arg("--mount").arg(format!("type=bind,src={0},dst={0}", room.display())).arg("--workdir").arg(&room);
        command.arg(IMAGE).args(TRUE).stdin(Stdio::null()).stdout(Stdio::null());
        let told = command.stderr(Stdio::piped()).output()?;
        if !told.status.success() {
            return Err(format!("docker run: {}", String::from_utf8_lossy(&told.stderr)).into());
        }
        fs::remove_dir(&room)?;
        fs::remove_file(&cid)?;
        Ok(fs::remove_file(&env)?)
    }

    /// Runs so many one after the other: seconds of each, in the middle.
    fn latency(&self, count: u32) -> Outcome<f64> {
        let mut times = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            self.one()?;
            times.push(began.elapsed().as_secs_f64());
        }
        Ok(median(times))
    }

    /// Runs so many, two at a time: containers a second.
    fn rate(&self, count: u32) -> Outcome<f64> {
        let began = Instant::now();
        let half = || (0..count / 2).try_for_each(|_| self.one().map_err(|error| error.to_string()));
        std::thread::scope(|scope| {
            let other = scope.spawn(half);
            let own = half();
            own.and(other.join().unwrap_or_else(|_| Err("a loop panicked".to_owned())))
        })?;
        Ok(f64::from(count / 2 * 2) / began.elapsed().as_secs_f64())
    }
}

/// The same through a pool with two docker workers.
struct Ours {
    pool: Pool,
    client: Client,
}

impl Ours {
    fn start(engine: &Daemon) -> Outcome<Self> {
        let yaml = format!("docker:\n  image: {IMAGE}\n");
        let pool = Pool::start_with(&beside("acode")?, 2, &yaml, &["--mode", "docker"], &engine.env())?;
        let client = pool.client()?;
        Ok(Self { pool, client })
    }

    fn latency(&mut self, count: u32) -> Outcome<f64> {
        let mut times = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            let id = pool::submit_one(&mut self.client, pool::task(TRUE))?;
            pool::wait_one(&mut self.client, id)?;
            times.push(began.elapsed().as_secs_f64());
        }
        // Of single tasks the end alone is waited for; here it is asked whether all went well.
        pool::wait_all(&mut self.client)?;
        Ok(median(times))
    }

    fn rate(&mut self, count: u32) -> Outcome<f64> {
        let began = Instant::now();
        pool::submit_one(&mut self.client, pool::array(TRUE, u64::from(count)))?;
        pool::wait_all(&mut self.client).map_err(|error| self.words(&error.to_string()))?;
        Ok(f64::from(count) / began.elapsed().as_secs_f64())
    }

    fn words(&self, error: &str) -> String {
        let log = fs::read_to_string(self.pool.folder().join("stderr")).unwrap_or_default();
        format!("{error}\n{log}")
    }
}

/// Rounds of ours, each between two of the bare ones: all of ours, all of the bare ones, the ratios.
fn rounds(
    rounds: u32,
    mut bare: impl FnMut() -> Outcome<f64>,
    mut ours: impl FnMut() -> Outcome<f64>,
) -> Outcome<(f64, f64, f64)> {
    let mut before = bare()?;
    let (mut all, mut limits, mut ratios) = (Vec::new(), vec![before], Vec::new());
    for _ in 0..rounds {
        let one = ours()?;
        let after = bare()?;
        all.push(one);
        limits.push(after);
        ratios.push(one / ((before + after) / 2.0));
        before = after;
    }
    Ok((median(all), median(limits), median(ratios)))
}

/// Point m; without an engine nothing.
pub fn containers(size: Size) -> Outcome<Vec<Figure>> {
    let (count, repeats) = size.of((40, 5), (12, 3));
    let engine = match Daemon::start(&[], PATIENCE) {
        Ok(engine) => engine,
        Err(why) => {
            eprintln!("point m is left out: no Docker engine: {why}");
            return Ok(Vec::new());
        }
    };
    eprintln!("  its engine keeps images by {} in {}", engine.driver(), engine.folder().display());
    let bare = Bare { engine: &engine, next: AtomicU32::new(0) };
    // The first few fill caches.
    bare.rate(4)?;
    let mut ours = Ours::start(&engine)?;
    pool::submit_one(&mut ours.client, pool::array(WHILE, 4))?;
    pool::wait_all(&mut ours.client)?;
    ours.rate(4)?;
    let (value, limit, ratio) = rounds(repeats, || bare.latency(count / 2), || ours.latency(count / 2))?;
    let latency = Figure::new('m', "a container, submit to end, p50", value * 1e3, "ms")
        .of("docker run --rm", limit * 1e3)
        .ratio(ratio)
        .target(Target::RatioAtMost(1.05));
    let (value, limit, ratio) = rounds(repeats, || bare.rate(count), || ours.rate(count))?;
    let rate = Figure::new('m', "containers, two at a time", value, "containers/s")
        .of("two loops of docker run --rm", limit)
        .ratio(ratio)
        .target(Target::RatioAtLeast(0.95));
    Ok(vec![latency, rate])
}
