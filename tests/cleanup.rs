//! What becomes of a task's scratch directory: removed whatever is in it, or kept where somebody wants that, and how
//! what is kept goes.
//!
//! Deliberately absent: checkpoint directories (`checkpoint.rs`), and limits (`disk.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use acode_worker::task::{Cleanup, Retries, TaskId, TaskSpec, TaskState};
use command::{Acode, entries};
use common::place::in_machine;
use common::{Options, Pool, shell, wait_until};
use more::{output_of, prune_everything, reaches};

fn kept(pool: &Pool) -> Vec<String> {
    let mut names = entries(&pool.state_dir().join("kept"));
    names.sort();
    names
}

fn keeping(cleanup: Cleanup, script: &str) -> TaskSpec {
    TaskSpec { cleanup: Some(cleanup), ..shell(script, &[]) }
}

fn submit_and_wait(pool: &Pool, spec: TaskSpec) -> TaskId {
    let id = pool.submit_spec(spec);
    pool.wait(id);
    id
}

#[test]
fn each_way_of_cleanup_removes_after_its_ends_and_keeps_after_the_others() {
    for (name, when, after_success, after_failure) in [
        ("always", Cleanup::Always, false, false),
        ("success", Cleanup::Success, false, true),
        ("failure", Cleanup::Failure, true, false),
        ("never", Cleanup::Never, true, true),
    ] {
        let configured = Pool::start(Options::workers(1).config(&format!("cleanup:\n  scratch: {name}")));
        let by_task = Pool::start(Options::workers(1).config("cleanup: {scratch: always}"));
        for (script, expected) in [("echo it >left; mkdir d", after_success), ("echo it >left; exit 3", after_failure)]
        {
            for (pool, spec) in [(&configured, shell(script, &[])), (&by_task, keeping(when, script))] {
                let id = submit_and_wait(pool, spec);
                let path = pool.state_dir().join("kept").join(format!("{id}-1"));
                assert_eq!(path.exists(), expected, "{name}: {script}");
                if expected {
                    assert_eq!(fs::read_to_string(path.join("left")).unwrap(), "it\n");
                    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
                }
                assert_eq!(output_of(pool, keeping(Cleanup::Always, "ls -A; pwd | grep -c scratch")), "1\n");
            }
        }
    }
}

#[test]
fn every_attempt_is_kept_by_itself_and_what_is_empty_is_not() {
    let pool = Pool::start(Options::workers(1));
    let retry = Some(Retries { count: Some(1), delay_ms: Some(1), ..Retries::default() });
    let spec = keeping(Cleanup::Success, "[ -z \"$(ls -A)\" ] || exit 9; echo $ACODE_ATTEMPT >n; exit 1");
    let id = submit_and_wait(&pool, TaskSpec { retry, ..spec });
    assert_eq!(kept(&pool), [format!("{id}-1"), format!("{id}-2")]);
    for attempt in ["1", "2"] {
        let left = pool.state_dir().join("kept").join(format!("{id}-{attempt}/n"));
        assert_eq!(fs::read_to_string(left).unwrap().trim(), attempt);
    }
    submit_and_wait(&pool, keeping(Cleanup::Never, "exit 1"));
    submit_and_wait(&pool, keeping(Cleanup::Never, "no-such-program-at-all"));
    submit_and_wait(&pool, keeping(Cleanup::Never, "rm -r $ACODE_SCRATCH; ln -s / $ACODE_SCRATCH"));
    assert_eq!(kept(&pool).len(), 2);
}

#[test]
fn what_is_kept_goes_with_its_task() {
    let mut pool = Pool::start(Options::workers(1));
    let spec = || keeping(Cleanup::Success, "mkdir -p a/b; echo x >a/b/c; chmod 000 a/b a; exit 1");
    submit_and_wait(&pool, spec());
    assert_eq!(kept(&pool).len(), 1);
    prune_everything(&pool);
    wait_until("it went with its task", || kept(&pool).is_empty());
    // While nobody is there, by whoever prunes; and by a pool that starts.
    submit_and_wait(&pool, spec());
    let stranger = pool.state_dir().join("kept/notes");
    fs::create_dir(&stranger).unwrap();
    pool.stop();
    Acode::of(&pool).ok(&["task", "prune"]);
    assert_eq!(kept(&pool), ["notes"]);
    let gone = TaskId::new(1, 1, 1);
    fs::create_dir(pool.state_dir().join(format!("kept/{gone}-1"))).unwrap();
    pool.restart();
    assert_eq!(kept(&pool), ["notes"], "what acode has not kept is not its to remove");
}

#[test]
fn only_so_many_are_kept_and_the_oldest_go_first() {
    let pool = Pool::start(Options::workers(1).config("cleanup: {scratch: never, maxKept: 3}"));
    let ids: Vec<TaskId> = (0..7).map(|_| submit_and_wait(&pool, shell("sleep 0.02; echo >x", &[]))).collect();
    let mut last: Vec<String> = ids[4..].iter().map(|id| format!("{id}-1")).collect();
    last.sort();
    wait_until("the oldest are gone", || kept(&pool) == last);
    let none = Pool::start(Options::workers(1).config("cleanup: {scratch: never, maxKept: 0}"));
    submit_and_wait(&none, shell("echo >x", &[]));
    assert!(kept(&none).is_empty());
}

#[test]
fn the_command_line_and_task_files_say_when() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = acode.ok(&["task", "submit", "--cleanup", "failure", "--", "sh", "-c", "echo >x"]);
    acode.ok(&["task", "wait", &id]);
    assert_eq!(kept(&pool).len(), 1);
    let file = r#"{"command": ["sh", "-c", "echo >x; exit 1"], "cleanup": "success"}"#;
    acode.says_to(file, &["task", "submit", "--file", "-"]).expect(0);
    wait_until("that of the file is kept", || kept(&pool).len() == 2);
    acode.says(&["task", "submit", "--cleanup", "sometimes", "true"]).expect(2);
    let wrong = r#"{"command": ["true"], "cleanup": "sometimes"}"#;
    let said = acode.says_to(wrong, &["task", "submit", "--file", "-"]).expect(2);
    assert!(said.err.contains("always, success, failure or never"), "{}", said.err);
}

#[test]
fn whoever_dies_while_something_is_kept_loses_and_doubles_nothing() {
    for point in ["worker.before-keep", "worker.after-keep", "worker.before-report"] {
        let pool = Pool::start(Options::workers(1).dies_once_at(point));
        let retry = Some(Retries { count: Some(0), delay_ms: Some(1), ..Retries::default() });
        let id = submit_and_wait(&pool, TaskSpec { retry, ..keeping(Cleanup::Never, "echo $ACODE_ATTEMPT >n") });
        assert!(pool.has_struck(point), "nobody passed {point}");
        let task = pool.show(id);
        assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2), "{point}");
        let expected: &[u32] = if point == "worker.before-keep" { &[2] } else { &[1, 2] };
        let expected: Vec<String> = expected.iter().map(|attempt| format!("{id}-{attempt}")).collect();
        assert_eq!(kept(&pool), expected, "{point}");
        prune_everything(&pool);
        wait_until("all of it went with the task", || kept(&pool).is_empty());
    }
    let pool = Pool::start(Options::workers(1).dies_once_at("worker.before-kept-removal"));
    submit_and_wait(&pool, keeping(Cleanup::Never, "echo >x"));
    prune_everything(&pool);
    wait_until("a worker dies of it", || pool.has_struck("worker.before-kept-removal"));
    let id = pool.submit(&["true"]);
    reaches(&pool, id, TaskState::Completed);
    prune_everything(&pool);
    wait_until("it is gone all the same", || kept(&pool).is_empty());
}

/// What tasks leave to make removal hard; each is a shell script in the scratch directory.
const HARD: [(&str, &str); 6] = [
    ("closed directories", "mkdir -p a/b/c; echo x >a/b/c/f; chmod 000 a/b/c a/b a; chmod 000 ."),
    (
        "a deep tree",
        "i=0; while [ $i -lt 400 ]; do mkdir dddddddddddddddd && cd dddddddddddddddd; i=$((i+1)); done; echo >f",
    ),
    (
        "names that look like options",
        "mkdir -- -rf ' ' '*'; : >'-rf/
x'",
    ),
    ("links out of it", "ln -s \"$1\" out; ln -s / root; mkdir d; ln -s ../.. d/up"),
    (
        "itself moved away and replaced by a link",
        "cd /; mv $ACODE_SCRATCH $ACODE_SCRATCH.old; ln -s \"$1\" $ACODE_SCRATCH",
    ),
    ("the room replaced by a link", "cd /; r=$(dirname $ACODE_SCRATCH); mv $r $r.old; ln -s \"$1\" $r; rm -rf $r.old"),
];

#[test]
fn everything_that_a_task_leaves_is_removed_and_nothing_else() {
    let pool = Pool::start(Options::workers(1));
    fs::create_dir_all(pool.file("outside/deep")).unwrap();
    fs::write(pool.file("outside/deep/mine"), "mine").unwrap();
    for (what, script) in HARD {
        let id = pool.submit_spec(shell(script, &[&pool.path("outside")]));
        let task = pool.wait(id);
        assert_eq!((task.state, task.error), (TaskState::Completed, None), "{what}");
        let seen = output_of(&pool, shell("ls -A | wc -l; stat -c %a .", &[]));
        assert_eq!(seen, "0\n700\n", "{what}");
        assert_eq!(fs::read_to_string(pool.file("outside/deep/mine")).unwrap(), "mine", "{what}");
        assert!(fs::metadata(pool.file("outside")).unwrap().mode() & 0o700 == 0o700, "{what}");
    }
}

/// Whether `program` does this here.
fn can(program: &str, arguments: &[&str]) -> bool {
    let tried = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

fn mounts_of(pool: &Pool) -> usize {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().filter(|line| line.contains(pool.state_dir().to_str().unwrap())).count()
}

/// What a task of root leaves mounted, and where nobody else sees it.
const MOUNTS: [(&str, &str); 4] = [
    (
        "mounts over each other",
        "mkdir m; mount -t tmpfs none m; mkdir m/n; mount -t tmpfs none m/n; mount -t tmpfs none m; echo >m/f",
    ),
    (
        "a bind mount of somebody's directory",
        "mkdir 'm n'; mount --bind \"$1\" 'm n'; : >f; mount --bind \"$1/deep/mine\" f",
    ),
    ("the scratch directory itself", "mount -t tmpfs none $ACODE_SCRATCH; cd $ACODE_SCRATCH; echo >f"),
    (
        "a mount that hides in a namespace",
        "mkdir m; unshare -m --propagation private sh -c 'mount -t tmpfs none m; mkdir m/x; \
      mount --bind / m/x; sleep 1000' & sleep 0.3; exit 0",
    ),
];

#[test]
fn mounts_are_taken_away_and_never_entered() {
    if !can("unshare", &["--mount", "true"]) {
        assert!(!in_machine("mounts of tasks: this user may not mount"));
        return;
    }
    let mut pool = Pool::start(Options::workers(1));
    fs::create_dir_all(pool.file("outside/deep")).unwrap();
    fs::write(pool.file("outside/deep/mine"), "mine").unwrap();
    for (what, script) in MOUNTS {
        for cleanup in [Cleanup::Always, Cleanup::Never] {
            let id = pool.submit_spec(TaskSpec { cleanup: Some(cleanup), ..shell(script, &[&pool.path("outside")]) });
            let task = pool.wait(id);
            assert_eq!((task.state, task.error), (TaskState::Completed, None), "{what}");
            assert_eq!(output_of(&pool, shell("ls -A | wc -l", &[])), "0\n", "{what}");
            assert_eq!(mounts_of(&pool), 0, "{what}");
            assert_eq!(fs::read_to_string(pool.file("outside/deep/mine")).unwrap(), "mine", "{what}");
        }
        // And by a pool that finds them of one that was killed.
        let forever = format!("({script}); touch \"$2\"; sleep 1000");
        let id = pool.submit_spec(shell(&forever, &[&pool.path("outside"), &pool.path("there")]));
        wait_until("it has mounted", || pool.file("there").exists());
        pool.kill9();
        pool.processes().into_iter().for_each(|pid| common::signal(pid, nix::sys::signal::Signal::SIGKILL));
        fs::remove_file(pool.file("there")).unwrap();
        pool.restart();
        wait_until("it has mounted again", || pool.file("there").exists());
        assert!(more::cancel(&pool, id));
        pool.wait(id);
        assert_eq!(mounts_of(&pool), 0, "{what}");
        fs::remove_file(pool.file("there")).unwrap();
        assert_eq!(fs::read_to_string(pool.file("outside/deep/mine")).unwrap(), "mine", "{what}");
    }
}

#[test]
fn rooms_may_be_a_mount_of_the_administrators() {
    if !can("unshare", &["--mount", "true"]) {
        assert!(!in_machine("a file system for rooms: this user may not mount"));
        return;
    }
    let mut pool = Pool::prepare(Options::workers(1).config("backpressure: {minFreeDiskMb: 4}"));
    let rooms = pool.state_dir().join("rooms");
    fs::create_dir_all(&rooms).unwrap();
    fs::set_permissions(pool.state_dir(), fs::Permissions::from_mode(0o700)).unwrap();
    let rooms = rooms.to_str().unwrap().to_owned();
    assert!(can("mount", &["-t", "tmpfs", "-o", "size=8M,mode=0700", "none", &rooms]));
    let _unmounted = Unmounted(rooms.clone());
    pool.restart();
    let script = "head -c 6000000 /dev/zero >big; touch \"$1\"; while [ -e \"$1\" ]; do sleep 0.02; done";
    let filler = pool.submit_spec(shell(script, &[&pool.path("full")]));
    wait_until("no task is started for want of disk space", || pool.log().contains("is started: free disk space"));
    let waiting = pool.submit(&["true"]);
    wait_until("it has written all", || pool.file("full").exists());
    fs::remove_file(pool.file("full")).unwrap();
    assert_eq!(pool.wait(filler).state, TaskState::Completed);
    assert_eq!(pool.wait(waiting).state, TaskState::Completed, "it goes on when there is room again");
    pool.kill9();
    pool.restart();
    assert_eq!(mounts_of(&pool), 1, "what the administrator has mounted stays");
    assert!(can("mountpoint", &["-q", &rooms]));
    pool.stop();
}

/// Takes a mount away when the test is over.
struct Unmounted(String);

impl Drop for Unmounted {
    fn drop(&mut self) {
        can("umount", &["-l", &self.0]);
    }
}

#[test]
fn immutable_files_are_removed_where_we_may() {
    let pool = Pool::start(Options::workers(1));
    let probe = pool.file("probe");
    fs::write(&probe, "").unwrap();
    let path = probe.to_str().unwrap();
    if !can("chattr", &["+i", path]) || !can("chattr", &["-i", path]) {
        assert!(!in_machine("immutable files: this user may not make any"));
        return;
    }
    let script = "mkdir -p d/e; echo x >d/f; echo y >d/e/g; chattr +i d/f d/e/g d/e; chattr +a d; chattr +i .";
    for cleanup in [Cleanup::Always, Cleanup::Never] {
        let id = pool.submit_spec(keeping(cleanup, script));
        let task = pool.wait(id);
        assert_eq!((task.state, task.error), (TaskState::Completed, None), "{cleanup:?}");
        assert_eq!(output_of(&pool, shell("ls -A | wc -l", &[])), "0\n", "{cleanup:?}");
    }
    assert_eq!(kept(&pool).len(), 1);
    prune_everything(&pool);
    wait_until("what was kept is removed", || kept(&pool).is_empty());
}
