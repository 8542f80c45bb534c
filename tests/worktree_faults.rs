//! Very many worktrees of one repository at once, and processes that are killed in the middle of making and removing them:
//! every task ends once, and nothing of any worktree is left.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/repository.rs"]
mod repository;

use std::path::Path;
use std::time::Duration;

use acode_worker::task::{Retries, TaskId, TaskSpec, TaskState, Worktree};
use command::entries;
use common::{Options, PATIENCE, Pool, eventually, shell, signal, wait_until};
use more::{entry, reaches};
use nix::sys::signal::Signal;
use repository::{Repo, has_git};

/// Changes something, after having seen that nobody else has.
const SCRIPT: &str = r#"set -e
[ -z "$(git status --porcelain)" ]
[ "$(git rev-parse HEAD)" = "$ACODE_COMMIT" ]
echo "$ACODE_TASK_ID" >sub/file-1
[ "$(git diff --name-only)" = sub/file-1 ]
echo "$ACODE_TASK_ID" >>"$1""#;

fn spec(pool: &Pool, repo: &Repo, keep_changes: bool) -> TaskSpec {
    let worktree = Worktree { repo: repo.text(), reference: None, commit: repo.head(), keep_changes };
    TaskSpec { worktree: Some(worktree), ..shell(SCRIPT, &[&pool.path("ran")]) }
}

/// All that is left of worktrees, in the repository and in the state directory.
fn left(pool: &Pool, repo: &Repo) -> Vec<String> {
    let mut left = repo.worktrees();
    left.extend(entries(&pool.state_dir().join("worktrees")));
    left
}

#[track_caller]
fn assert_goes(pool: &Pool, repo: &Repo) {
    let mut last = Vec::new();
    let gone = eventually(PATIENCE, || {
        last = left(pool, repo);
        last.is_empty()
    });
    assert!(gone, "left: {last:?}\n{}", pool.log());
}

#[test]
fn twenty_four_workers_on_one_repository_and_five_hundred_tasks() {
    if !has_git() {
        return;
    }
    const TASKS: usize = 500;
    let pool = Pool::start(Options::workers(24));
    let repo = Repo::make(pool.file("proj"));
    repo.write("sub/file-2", "dirty\n");
    let before = repo.portrait();
    let tasks = vec![entry(spec(&pool, &repo, false)); TASKS];
    let begun = std::time::Instant::now();
    let ids = pool.submit_all(tasks);
    let done = eventually(PATIENCE * 5, || pool.status().tasks.ended() == TASKS as u64);
    assert!(done, "{:?}\n{}", pool.status().tasks, pool.log());
    eprintln!("{:.0} worktrees a second", TASKS as f64 / begun.elapsed().as_secs_f64());
    assert_eq!(pool.status().tasks.completed, TASKS as u64, "{}", why_not(&pool, &ids));
    let mut ran = pool.lines("ran");
    ran.sort();
    ran.dedup();
    assert_eq!(ran.len(), TASKS);
    assert_eq!(left(&pool, &repo), Vec::<String>::new());
    assert_eq!(repo.portrait(), before);
}

/// What the first task says that did not complete.
fn why_not(pool: &Pool, ids: &[TaskId]) -> String {
    let bad = ids.iter().map(|id| pool.show(*id)).find(|task| task.state != TaskState::Completed);
    bad.map(|task| format!("{:?} {:?}: {:?}", task.state, task.error, more::written(pool, task.id).err()))
        .unwrap_or_default()
}

#[test]
fn two_pools_share_a_repository() {
    if !has_git() {
        return;
    }
    let pools = [Pool::start(Options::workers(6)), Pool::start(Options::workers(6))];
    let repo = Repo::make(pools[0].file("proj"));
    let ids = pools.each_ref().map(|pool| pool.submit_all(vec![entry(spec(pool, &repo, true)); 60]));
    for (pool, ids) in pools.iter().zip(&ids) {
        assert!(pool.wait_all().unsuccessful.is_empty(), "{}", why_not(pool, ids));
    }
    assert_eq!(left(&pools[0], &repo), Vec::<String>::new());
    assert_eq!(left(&pools[1], &repo), Vec::<String>::new());
}

/// Retries after what is not the task's fault cost it nothing; no task is given up for them.
fn patient(spec: TaskSpec) -> TaskSpec {
    let retry = Retries { max_crashes: Some(1_000), delay_ms: Some(1), ..Retries::default() };
    TaskSpec { retry: Some(retry), ..spec }
}

#[test]
fn killed_workers_leave_nothing() {
    if !has_git() {
        return;
    }
    let pool = Pool::start(Options::workers(6).config("retention:\n  intervalSeconds: 1"));
    let repo = Repo::make(pool.file("proj"));
    let ids = pool.submit_all(vec![entry(patient(spec(&pool, &repo, true))); 120]);
    let mut turn = 0;
    let done = eventually(PATIENCE * 3, || {
        let tasks = pool.status().tasks;
        if turn < 40 && tasks.ended() < 100 {
            let workers = pool.workers();
            if let Some(worker) = workers.get(turn % workers.len().max(1)) {
                signal(worker.pid, Signal::SIGKILL);
            }
            turn += 1;
            std::thread::sleep(Duration::from_millis(17));
        }
        tasks.ended() == 120
    });
    assert!(done && turn > 10, "{turn} kills; {:?}\n{}", pool.status().tasks, pool.log());
    assert_eq!(pool.status().tasks.completed, 120, "{}", why_not(&pool, &ids));
    assert_goes(&pool, &repo);
}

#[test]
fn a_pool_that_was_killed_leaves_nothing_when_it_is_back() {
    if !has_git() {
        return;
    }
    let mut pool = Pool::prepare(Options::workers(6));
    let repo = Repo::make(pool.file("proj"));
    pool.restart();
    let ids = pool.submit_all(vec![entry(patient(spec(&pool, &repo, true))); 60]);
    for round in 0..4 {
        let before = pool.status().tasks.ended();
        eventually(Duration::from_secs(20), || pool.status().tasks.ended() >= before.saturating_add(5).min(60));
        if round % 2 == 0 {
            // All at once, as when the machine loses its power.
            for pid in pool.processes() {
                signal(pid, Signal::SIGKILL);
            }
        }
        pool.kill9();
        pool.restart();
    }
    assert!(pool.wait_all().unsuccessful.is_empty(), "{}", why_not(&pool, &ids));
    assert_eq!(pool.status().tasks.completed, 60, "{}", why_not(&pool, &ids));
    assert_goes(&pool, &repo);
}

#[test]
fn a_worker_that_is_not_replaced_leaves_nothing() {
    if !has_git() {
        return;
    }
    let config = "retention:\n  intervalSeconds: 1";
    let pool = Pool::start(Options::workers(2).config(config));
    let repo = Repo::make(pool.file("proj"));
    let script = "while [ ! -e \"$1\" ]; do sleep 0.02; done";
    let endless = TaskSpec { ..shell(script, &[&pool.path("gate")]) };
    let busy = pool.submit_spec(endless.clone());
    reaches(&pool, busy, TaskState::Running);
    let worktree = spec(&pool, &repo, false).worktree;
    let id = pool.submit_spec(patient(TaskSpec { worktree, ..endless }));
    reaches(&pool, id, TaskState::Running);
    // Its task is cancelled and its row goes away with it; whoever is left has the rest to do.
    let worker = pool.worker_of(id);
    pool.call(&acode::wire::request::Scale { count: 1 });
    signal(worker.pid, Signal::SIGKILL);
    more::cancel(&pool, id);
    more::open_gate(&pool, "gate");
    pool.wait(busy);
    assert_goes(&pool, &repo);
}

/// A process dies at the point while tasks with worktrees go through the pool.
fn dies_at(point: &str) {
    if !has_git() {
        return;
    }
    let pool = Pool::prepare(Options::workers(3).config("retention:\n  intervalSeconds: 1").dies_once_at(point));
    let repo = Repo::make(pool.file("proj"));
    let mut pool = pool;
    pool.restart();
    let ids = pool.submit_all(vec![entry(patient(spec(&pool, &repo, true))); 12]);
    assert!(pool.wait_all().unsuccessful.is_empty(), "{}", why_not(&pool, &ids));
    assert_eq!(pool.status().tasks.completed, 12, "{}", why_not(&pool, &ids));
    assert!(pool.has_struck(point), "nobody passed {point}\n{}", pool.log());
    for id in &ids {
        let attempts = pool.show(*id).attempts.unwrap_or_default();
        let patched = attempts.iter().filter_map(|attempt| attempt.artifacts.as_ref()?.patch_bytes).count();
        assert_eq!(patched, 1, "{attempts:?}");
    }
    assert_goes(&pool, &repo);
}

macro_rules! experiments {
    ($($name:ident = $point:literal;)*) => { $( #[test] fn $name() { dies_at($point); } )* };
}

experiments! {
    a_worker_after_it_marked_a_worktree = "worktree.after-mark";
    a_worker_after_it_added_a_worktree = "worktree.after-add@2";
    a_worker_after_it_checked_out = "worktree.after-checkout";
    a_worker_before_it_keeps_a_patch = "worktree.before-patch";
    a_worker_before_it_removes_a_worktree = "worktree.before-remove@2";
    a_worker_after_it_removed_a_worktree = "worktree.after-remove";
}

#[test]
fn recovery_before_it_releases_a_worktree() {
    if !has_git() {
        return;
    }
    let mut pool = Pool::prepare(Options::workers(2));
    let repo = Repo::make(pool.file("proj"));
    pool.restart();
    let gate = pool.path("gate");
    let worktree = spec(&pool, &repo, false).worktree;
    let script = "while [ ! -e \"$1\" ]; do sleep 0.02; done";
    let ids: Vec<TaskId> =
        (0..2).map(|_| pool.submit_spec(TaskSpec { worktree: worktree.clone(), ..shell(script, &[&gate]) })).collect();
    // A task is running from its claim on, and its worktree is whole some commands of git later.
    wait_until("both have their worktrees", || {
        ids.iter().all(|id| pool.show(*id).state == TaskState::Running) && left(&pool, &repo).len() == 6
    });
    for pid in pool.processes() {
        signal(pid, Signal::SIGKILL);
    }
    pool.kill9();
    assert_eq!(left(&pool, &repo).len(), 6);
    pool.dies_once_at("recover.before-worktree@2");
    pool.revive();
    assert!(pool.has_struck("recover.before-worktree@2"));
    more::open_gate(&pool, "gate");
    assert!(pool.wait_all().unsuccessful.is_empty(), "{}", why_not(&pool, &ids));
    assert_goes(&pool, &repo);
}

#[test]
fn nothing_is_left_in_the_places_of_the_state_directory() {
    if !has_git() {
        return;
    }
    let mut pool = Pool::prepare(Options::workers(2));
    let repo = Repo::make(pool.file("proj"));
    pool.restart();
    let ids = pool.submit_all(vec![entry(spec(&pool, &repo, false)); 8]);
    assert!(pool.wait_all().unsuccessful.is_empty(), "{}", why_not(&pool, &ids));
    pool.stop();
    for folder in ["worktrees", "locks", "kept", "artifacts"] {
        assert_eq!(entries(&pool.state_dir().join(folder)), Vec::<String>::new(), "{folder}");
    }
    assert!(!Path::new(&repo.file(".git/worktrees/proj")).exists());
}
