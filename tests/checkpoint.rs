//! The directory that outlives a task's attempts, and goes with the task; and copies of standard input, which do too.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use acode_worker::task::{Retries, TaskSpec, TaskState};
use command::{Acode, entries};
use common::{Options, Pool, shell, wait_until};
use more::{cancel, output_of, prune_everything, reaches};

fn kept(script: &str, arguments: &[&str]) -> TaskSpec {
    TaskSpec { checkpoint: true, ..shell(script, arguments) }
}

fn directories(pool: &Pool) -> Vec<String> {
    entries(&pool.state_dir().join("checkpoints"))
}

/// Notes the step that it is at and dies in one way or another until it has come to the fourth.
const STEPS: &str = r#"cd "$ACODE_CHECKPOINT" || exit 9; n=$(cat step 2>/dev/null || echo 0); n=$((n + 1)); echo $n >step
echo "$PWD" >>"$1"; case $n in 1) exit 1;; 2) kill -9 $PPID; sleep 100;; 3) touch "$2"; sleep 100;; esac"#;

#[test]
fn a_checkpoint_outlives_attempts_workers_and_restarts_and_goes_when_the_task_completes() {
    let mut pool = Pool::start(Options::workers(1).signals_go_anywhere());
    let retry = Some(Retries { count: Some(1), delay_ms: Some(1), ..Retries::default() });
    let id = pool.submit_spec(TaskSpec { retry, ..kept(STEPS, &[&pool.path("dirs"), &pool.path("third")]) });
    wait_until("it is at its third step", || pool.file("third").exists());
    let path = pool.state_dir().join("checkpoints").join(id.seq().to_string());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    pool.kill9();
    pool.restart();
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{}", pool.log());
    // The third attempt counts only if its start was on disk when all was killed.
    assert!((3..=4).contains(&task.attempt_count), "{task:?}");
    assert_eq!(pool.lines("dirs"), vec![path.to_str().unwrap(); 4]);
    wait_until("its directory is removed", || directories(&pool).is_empty());
}

#[test]
fn only_who_asks_has_one() {
    let pool = Pool::start(Options::workers(1));
    assert_eq!(output_of(&pool, shell("echo ${ACODE_CHECKPOINT-none}", &[])), "none\n");
    let acode = Acode::of(&pool);
    let id = acode.ok(&["task", "submit", "--checkpoint", "--", "sh", "-c", "touch $ACODE_CHECKPOINT/x; exit 1"]);
    acode.says(&["task", "wait", &id]).expect(1);
    assert_eq!(directories(&pool).len(), 1, "of a task that failed it is kept, for a retry");
}

#[test]
fn what_failed_keeps_its_directory_until_it_is_pruned_and_no_link_is_followed() {
    let pool = Pool::start(Options::workers(1));
    std::fs::create_dir(pool.file("outside")).unwrap();
    std::fs::write(pool.file("outside/precious"), "").unwrap();
    let script = r#"ln -s "$1" "$ACODE_CHECKPOINT/link"; exit 1"#;
    let id = pool.submit_spec(kept(script, &[&pool.path("outside")]));
    assert_eq!(pool.wait(id).state, TaskState::Failed);
    assert_eq!(directories(&pool), [id.seq().to_string()]);
    assert_eq!(prune_everything(&pool), 1);
    wait_until("its directory is removed", || directories(&pool).is_empty());
    assert!(pool.file("outside/precious").exists());
    let link = pool.state_dir().join("checkpoints").join((id.seq() + 1).to_string());
    symlink(pool.file("outside"), &link).unwrap();
    let id = pool.submit_spec(kept("true", &[]));
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Failed, "what lies in its place is not used");
    assert!(task.attempts.unwrap()[0].reason.as_deref().unwrap().contains("checkpoint directory"));
}

#[test]
fn directories_without_a_task_are_swept_at_the_start_and_those_of_waiting_tasks_are_not() {
    let mut pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(kept(r#"echo 1 >"$ACODE_CHECKPOINT/step"; sleep 100"#, &[]));
    let own = pool.state_dir().join("checkpoints").join(id.seq().to_string());
    wait_until("it has begun", || own.join("step").exists());
    pool.stop();
    std::fs::create_dir(pool.state_dir().join("checkpoints/4711")).unwrap();
    let done = Acode::of(&pool).json(&["task", "show", &id.to_string()]);
    assert_eq!(done["state"], "pending");
    pool.restart();
    assert_eq!(directories(&pool), [id.seq().to_string()]);
    reaches(&pool, id, TaskState::Running);
    assert!(cancel(&pool, id));
    pool.wait(id);
    prune_everything(&pool);
    wait_until("nothing is left", || directories(&pool).is_empty());
}

#[test]
fn a_death_around_making_or_removing_it_leaves_no_orphan_and_loses_no_step() {
    for point in [
        "worker.before-checkpoint",
        "worker.after-checkpoint",
        "worker.before-discard",
        "worker.after-discard",
        "supervisor.before-discard",
    ] {
        let mut pool = Pool::start(Options::workers(1).dies_once_at(point));
        let id = pool.submit_spec(kept(r#"touch "$ACODE_CHECKPOINT/x""#, &[]));
        wait_until("somebody dies", || pool.has_struck(point));
        if point.starts_with("supervisor.") {
            pool.wait_exit();
            pool.restart();
        }
        assert_eq!(pool.wait(id).state, TaskState::Completed, "{point}");
        wait_until("a later sweep removes it", || {
            prune_everything(&pool);
            directories(&pool).is_empty()
        });
    }
}

#[test]
fn copies_of_standard_input_go_with_their_tasks_unless_a_submission_may_be_on_its_way() {
    let mut pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let submit = |text: &str| acode.says_to(text, &["task", "submit", "--stdin", "-", "--", "cat"]).expect(0);
    let first = submit("one").out.trim().to_owned();
    acode.ok(&["task", "wait", &first]);
    let folder = pool.state_dir().join("stdin");
    let make_old = || {
        let long_ago = SystemTime::now() - Duration::from_secs(86_400);
        for name in entries(&folder) {
            std::fs::File::options().write(true).open(folder.join(name)).unwrap().set_modified(long_ago).unwrap();
        }
    };
    std::fs::write(folder.join("mine"), "").unwrap();
    make_old();
    std::fs::write(folder.join("stdin-young"), "").unwrap();
    pool.dies_once_at("sweep.before-copy");
    pool.stop();
    pool.restart();
    assert_eq!(entries(&folder).len(), 3, "its task is still there, for a retry");
    // A task in whose place another one is killed: what is not removed is found again.
    assert_eq!(acode.says(&["task", "prune"]).code.map(|code| code != 0), Some(true), "it dies while it sweeps");
    pool.wait_exit();
    pool.restart();
    let mut left = entries(&folder);
    left.sort();
    assert_eq!(left, ["mine", "stdin-young"]);
    submit("two");
    acode.ok(&["task", "wait", "--all"]);
    prune_everything(&pool);
    assert_eq!(entries(&folder).len(), 3, "it is young");
}
