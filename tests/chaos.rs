//! Thousands of tasks while workers, tasks, nurseries and supervisors are killed and stopped at random.
//!
//! At the end the same must hold as after one kill at a chosen place: every accepted task has one verdict, no two runs
//! of one task overlapped, nothing is left. Ten seconds by default; `scripts/chaos` runs it for longer. The seed is
//! printed, and with `ACODE_CHAOS_SEED` the same choices are made again, though not at the same instants.
//! Deliberately absent: any knowledge of where the dangerous places are.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use acode::wire::TaskRef;
use acode::wire::request::{Cancel, Events, Show, Status, Submit, Workers};
use acode_worker::task::{Array, Priority, Retry, Submission, TaskId, TaskSpec, TaskState, TreeGuard};
use common::dice::Dice;
use common::history::History;
use common::{Options, PATIENCE, Pool, is_alive, shell, signal};
use nix::sys::signal::Signal;

/// No more is submitted while so many tasks wait.
const BACKLOG: u64 = 400;

struct Chaos {
    pool: Pool,
    dice: Dice,
    accepted: Vec<TaskId>,
    cancelled: BTreeSet<TaskId>,
    kills: u32,
}

/// What tasks do beside leaving their marks: nothing, wait, leave children behind, talk, fail at first.
const SCRIPTS: [&str; 6] = [
    "",
    "sleep 0.0$((ACODE_ATTEMPT % 5 + 1))",
    "setsid sleep 100 & sleep 100 & sleep 0.01",
    "head -c 20000 /dev/zero; echo lost >&2",
    "[ $ACODE_ATTEMPT -gt 1 ] || kill -9 $$",
    "echo 50 half >\"$ACODE_PROGRESS\"; echo 1 >\"$ACODE_SCRATCH/file\"; mkdir -p \"$ACODE_SCRATCH/a/b\"",
];

impl Chaos {
    fn submission(&mut self) -> Submission {
        let middle = self.dice.pick(&SCRIPTS).unwrap();
        let mark = r#"echo "$ACODE_TASK_ID $$" >>"$1""#;
        let mut spec: TaskSpec = shell(&format!("{mark}\n{middle}\n{mark}"), &[&self.pool.path("marks")]);
        spec.priority = self.dice.pick(&Priority::ALL).unwrap();
        // A task that was killed itself has failed, which only a retry mends.
        spec.retry = Some(Retry { count: 1_000, delay_ms: 1, max_delay_ms: 20, ..Retry::default() }.into());
        if self.dice.roll(20) == 0 {
            spec.env.insert("LARGE".to_owned(), "x".repeat(9_000));
        }
        let array = (self.dice.roll(25) == 0).then(|| Array::Range { first: 0, count: 1 + self.dice.roll(20) });
        Submission { spec, array, ..Submission::default() }
    }

    fn submit(&mut self) {
        let waiting = self.pool.try_call(&Status {}).map(|reply| reply.status.tasks.pending);
        if waiting.is_ok_and(|pending| pending < BACKLOG) {
            let tasks: Vec<_> = (0..10 + self.dice.roll(60)).map(|_| self.submission()).collect();
            // Without an answer nobody knows whether they were accepted: they may run, and need not.
            if let Ok(submitted) = self.pool.try_call(&Submit::new(tasks)) {
                self.accepted.extend(submitted.ids);
            }
        }
    }

    fn cancel(&mut self) {
        let Some(id) = self.dice.pick(&self.accepted) else { return };
        self.cancelled.insert(id);
        let _ = self.pool.try_call(&Cancel { ids: vec![TaskRef::Id(id)], ..Cancel::default() });
    }

    fn strike_worker(&mut self, with: Signal) {
        let workers = self.pool.try_call(&Workers {}).map(|reply| reply.workers).unwrap_or_default();
        let pids: Vec<u32> = workers.iter().map(|worker| worker.pid).collect();
        if let Some(pid) = self.dice.pick(&pids) {
            signal(pid, with);
            self.kills += 1;
        }
    }

    /// Kills a process that is neither the supervisor nor of its family.
    fn strike_task(&mut self) {
        let family =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|n| n.contains("acode"));
        let tasks: Vec<u32> = self.pool.processes().into_iter().filter(|pid| !family(pid)).collect();
        if let Some(pid) = self.dice.pick(&tasks) {
            signal(pid, Signal::SIGKILL);
            self.kills += 1;
        }
    }

    fn strike_supervisor(&mut self) {
        self.kills += 1;
        let old = self.pool.processes();
        self.pool.kill9();
        self.pool.revive();
        let living: Vec<_> = old.iter().filter(|pid| is_alive(**pid)).collect();
        assert!(living.is_empty(), "processes of the killed pool run on: {living:?}\n{}", self.pool.log());
    }

    fn strike_nursery(&mut self) {
        let nursery = self.pool.nursery();
        signal(nursery, Signal::SIGKILL);
        self.kills += 1;
        self.pool.wait_exit();
        self.pool.revive();
    }

    /// Kills supervisor, nursery and workers at once.
    fn strike_all(&mut self) {
        self.kills += 1;
        let family =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|n| n.contains("acode"));
        let members: Vec<u32> = self.pool.processes().into_iter().filter(family).collect();
        members.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        self.pool.wait_exit();
        self.pool.revive();
    }

    fn pause_supervisor(&mut self) {
        signal(self.pool.pid(), Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(self.dice.roll(400)));
        signal(self.pool.pid(), Signal::SIGCONT);
    }

    fn act(&mut self) {
        match self.dice.roll(100) {
            0..40 => self.submit(),
            40..58 => self.strike_worker(Signal::SIGKILL),
            58..62 => self.strike_worker(Signal::SIGSTOP),
            62..78 => self.strike_task(),
            78..85 => self.strike_supervisor(),
            85..88 => self.strike_all(),
            88..90 => self.strike_nursery(),
            90..92 => self.pause_supervisor(),
            92..94 => {
                self.pool.stop();
                self.pool.revive();
            }
            _ => self.cancel(),
        }
        std::thread::sleep(Duration::from_millis(self.dice.roll(40)));
    }

    fn finish(&self) {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let counts = self.pool.status().tasks;
            if counts.total() == counts.ended() {
                return;
            }
            assert!(Instant::now() < deadline, "tasks are stuck: {counts:?}\n{}", self.pool.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn judge(&self) {
        let history = History::read(&self.pool.lines("marks"));
        history.assert_no_overlap();
        let mut client = self.pool.client();
        for id in &self.accepted {
            let task = client.call(&Show { id: TaskRef::Id(*id) }).unwrap().task;
            // One that was cancelled may have ended by itself, well or badly, before the word came.
            assert!(task.state == TaskState::Completed || self.cancelled.contains(id), "{task:?}");
            let exits = task.attempts.iter().flatten().filter(|attempt| attempt.exit_code == Some(0)).count();
            assert!(exits <= 1, "{exits} successful attempts of {id}");
            // The effective isolation never becomes less than what the machine offers, whatever was killed before.
            let guard = if common::has_cgroup(&self.pool) { TreeGuard::Cgroup } else { TreeGuard::Subreaper };
            let ran = task.attempts.iter().flatten().filter(|attempt| attempt.exit_code.is_some());
            ran.for_each(|attempt| assert_eq!(attempt.tree_guard, Some(guard), "{attempt:?}"));
        }
        let mut ended = BTreeSet::new();
        for batch in client.call_more(&Events::default()).unwrap() {
            for event in batch.unwrap().events {
                let last = matches!(event.event.as_str(), "task-completed" | "task-failed" | "task-timeout");
                let again = last && !ended.insert(event.task);
                assert!(!again, "a second verdict: {event:?}");
            }
        }
    }
}

#[test]
fn nothing_is_lost_doubled_or_left_whatever_is_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    let seed = number("ACODE_CHAOS_SEED").unwrap_or_else(clock);
    let seconds = number("ACODE_CHAOS_SECONDS").unwrap_or(10);
    eprintln!("chaos for {seconds} s, ACODE_CHAOS_SEED={seed}");
    let config = "workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 1500\n  killGraceMs: 100\n  \
                  maxWorkerLosses: 1000";
    let pool = Pool::start(Options::workers(4).config(config));
    let mut chaos = Chaos { pool, dice: Dice(seed), accepted: Vec::new(), cancelled: BTreeSet::new(), kills: 0 };
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        chaos.act();
    }
    chaos.finish();
    chaos.judge();
    eprintln!("{} tasks accepted, {} processes killed or stopped", chaos.accepted.len(), chaos.kills);
    assert!(chaos.accepted.len() > 20 && chaos.kills > 5, "this chaos was too quiet to show anything");
}
