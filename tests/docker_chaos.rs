//! Containers while command lines, workers, supervisors and the engine itself are killed at random.
//!
//! At the end every task has run to its end once, no two containers of one task ran at once, and the engine holds
//! nothing of ours. The seed is printed, and with `ACODE_CHAOS_SEED` the same choices are made again, though not at the
//! same instants; `ACODE_CHAOS_CONTAINERS` says how many tasks. Deliberately absent: any knowledge of where the
//! dangerous places are.

mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::time::{Duration, Instant};

use acode::wire::request::{Status, Workers};
use acode_worker::task::{Docker, Isolation, Mount, Retry, TaskId, TaskSpec};
use common::dice::Dice;
use common::engine::Engine;
use common::history::{History, assert_completed_once};
use common::{Options, PATIENCE, Pool, scaled, shell, signal, wait_until};
use more::entry;
use nix::sys::signal::Signal;

/// How often each was struck.
#[derive(Debug, Default)]
struct Struck {
    clients: u32,
    workers: u32,
    supervisors: u32,
    daemons: u32,
}

struct Chaos {
    // Dropped in this order: the pool before its engine.
    pool: Pool,
    engine: Engine,
    dice: Dice,
    struck: Struck,
}

impl Chaos {
    /// Two marks with some time between them, in a directory of the host that the container sees.
    fn task(&mut self) -> TaskSpec {
        let mark = r#"echo "$ACODE_TASK_ID $(hostname)" >>"$1""#;
        let middle = ["true", "sleep 0.2", "sleep 1", "head -c 100000 /dev/zero | tr '\\0' x"];
        let middle = self.dice.pick(&middle).unwrap_or_default();
        let marks = self.pool.path("marks");
        let mut spec = shell(&format!("{mark}\n{middle}\n{mark}"), &[&format!("{marks}/all")]);
        spec.isolation = Some(Isolation::Docker);
        let mount = Mount { source: marks.clone(), target: marks, read_only: false };
        let image = Some(self.engine.image().to_owned());
        spec.docker = Some(Docker { image, mounts: vec![mount], ..Docker::default() });
        spec
    }

    /// Kills a docker command line of the pool's.
    fn strike_client(&mut self) {
        let is_client =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "docker");
        let clients: Vec<u32> = self.pool.processes().into_iter().filter(is_client).collect();
        if let Some(pid) = self.dice.pick(&clients) {
            signal(pid, Signal::SIGKILL);
            self.struck.clients += 1;
        }
    }

    fn strike_worker(&mut self) {
        let workers = self.pool.try_call(&Workers {}).map(|reply| reply.workers).unwrap_or_default();
        let pids: Vec<u32> = workers.iter().map(|worker| worker.pid).collect();
        if let Some(pid) = self.dice.pick(&pids) {
            signal(pid, Signal::SIGKILL);
            self.struck.workers += 1;
        }
    }

    fn strike_supervisor(&mut self) {
        self.pool.kill9();
        self.pool.revive();
        self.struck.supervisors += 1;
    }

    fn strike_daemon(&mut self) {
        match self.dice.roll(3) {
            0 => self.engine.kill_daemons(),
            _ => self.engine.kill_daemon(),
        }
        std::thread::sleep(Duration::from_millis(self.dice.roll(1_500)));
        self.engine.restart();
        self.struck.daemons += 1;
    }

    fn act(&mut self) {
        match self.dice.roll(100) {
            0..45 => self.strike_client(),
            45..80 => self.strike_worker(),
            80..90 => self.strike_supervisor(),
            _ => self.strike_daemon(),
        }
        std::thread::sleep(Duration::from_millis(300 + self.dice.roll(1_200)));
    }

    /// How many tasks have ended, if anybody says.
    fn ended(&self) -> u64 {
        self.pool.try_call(&Status {}).map_or(0, |reply| reply.status.tasks.ended())
    }
}

#[test]
fn every_container_runs_to_its_end_once_and_none_is_left_whatever_is_killed() {
    let Some(engine) = Engine::start() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    let seed = number("ACODE_CHAOS_SEED").unwrap_or_else(clock);
    let count = number("ACODE_CHAOS_CONTAINERS").unwrap_or(200);
    eprintln!("chaos of {count} containers, ACODE_CHAOS_SEED={seed}");
    let stranger = engine.docker(&["run", "-d", "--init", "--network", "none", engine.image(), "sleep", "10000"]);
    let config = "workers:\n  mode: docker\n  heartbeatIntervalMs: 100\n  heartbeatTimeoutMs: 5000\n  \
                  killGraceMs: 200\n  maxWorkerLosses: 1000\n";
    let pool = Pool::prepare(engine.options(Options::workers(8).config(config)));
    // A FIFO or a socket in the marks' place would be seen by nobody else.
    fs::create_dir(pool.file("marks")).unwrap();
    let allowed = format!("docker:\n  allowedMounts: [{}]\n  sweepIntervalSeconds: 5\n", pool.path("marks"));
    let text = fs::read_to_string(pool.file("acode.yaml")).unwrap();
    fs::write(pool.file("acode.yaml"), text + &allowed).unwrap();
    let mut chaos = Chaos { pool, engine, dice: Dice(seed), struck: Struck::default() };
    chaos.pool.restart();
    let tasks: Vec<TaskSpec> = (0..count)
        .map(|_| TaskSpec {
            // A client that was killed before its container ran may have said so by an exit code of its own.
            retry: Some(Retry { count: 1_000, delay_ms: 10, max_delay_ms: 100, ..Retry::default() }.into()),
            ..chaos.task()
        })
        .collect();
    let ids: Vec<TaskId> = chaos.pool.submit_all(tasks.into_iter().map(entry).collect());
    let deadline = Instant::now() + scaled(4 * PATIENCE);
    // Towards the end it is left alone, so that what is left can be told from what was struck down just now.
    while chaos.ended() + 10 < count && Instant::now() < deadline {
        chaos.act();
    }
    let done = common::eventually(2 * PATIENCE, || chaos.ended() == count);
    assert!(done, "tasks are stuck: {:?}\n{}", chaos.pool.status().tasks, chaos.pool.log());
    eprintln!("{:?}", chaos.struck);
    assert_completed_once(&chaos.pool, &ids);
    let history = History::read(&chaos.pool.lines("marks/all"));
    history.assert_no_overlap();
    history.assert_ran(&ids);
    let engine = &chaos.engine;
    wait_until("no container of ours is left", || engine.containers_labelled("acode.pool").is_empty());
    let marks = || fs::read_dir(chaos.pool.state_dir().join("containers")).map_or(0, Iterator::count);
    wait_until("no mark is left", || marks() == 0);
    assert_eq!(engine.containers(), [stranger], "a container of somebody else's was removed");
    let Struck { clients, workers, supervisors, daemons } = chaos.struck;
    let struck = clients.min(workers).min(supervisors).min(daemons);
    assert!(struck > 0 || count < 100, "this chaos was too quiet to show anything: {:?}", chaos.struck);
}
