//! Disk limits of scratch directories: whoever fills one is stopped or told of, by every means that the host offers.
//!
//! Each test goes through all of them: sampling, a tmpfs and a loop image where this user may mount, project quotas where
//! the QEMU machine has them. Deliberately absent: what happens to a scratch directory afterwards (`cleanup.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::path::Path;

use acode::wire::types::TaskRecord;
use acode_worker::room::disk::{probe, projects};
use acode_worker::sys::quota;
use acode_worker::task::{Cleanup, Limits, OverLimitAction, Retries, TaskSpec, TaskState};
use common::place::in_machine;
use common::{Options, Pool, shell, signal, wait_until};
use more::{cancel, only_attempt, reaches, verdict, written};
use nix::sys::signal::Signal;

/// The disk with project quotas that the QEMU machine has.
const QUOTA_DISK: &str = "/var/lib/acode-quota";
const LIMIT_MB: u64 = 8;
const FILES: u64 = 50;

/// A means, by its name in the configuration, and what `stat -f` calls the file system that a task finds itself in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Means {
    method: &'static str,
    kind: Option<&'static str>,
    /// Whether the kernel refuses what is beyond the limit.
    has_wall: bool,
}

/// What can be tried here.
fn means() -> Vec<Means> {
    let mut all = vec![Means { method: "sampling", kind: None, has_wall: false }];
    let offers = probe(Path::new("/tmp"));
    for (method, kind, offer) in [("tmpfs", "tmpfs", offers.tmpfs), ("loop", "ext2/ext3", offers.image)] {
        match offer {
            Ok(()) => all.push(Means { method, kind: Some(kind), has_wall: true }),
            Err(why) => assert!(!in_machine(&format!("{method} ({why})")), "{method}: {why}"),
        }
    }
    if in_machine("project quotas") {
        assert_eq!(probe(Path::new(QUOTA_DISK)).quota, Ok(()), "the machine has a disk with project quotas");
        all.push(Means { method: "quota", kind: None, has_wall: true });
    }
    all
}

fn options(means: Means) -> Options {
    let options = Options::workers(1).config(&format!("workers:\n  disk: {{method: {}}}", means.method));
    if means.method == "quota" { options.within(QUOTA_DISK) } else { options }
}

fn limited(action: OverLimitAction, script: &str) -> TaskSpec {
    let limits = Limits { disk_mb: Some(LIMIT_MB), disk_files: Some(FILES), action: Some(action), ..Limits::default() };
    TaskSpec { limits, ..shell(script, &[]) }
}

fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    let id = pool.submit_spec(spec);
    pool.wait(id)
}

/// Mounts below the pool's directory that any process sees, loop devices of files there, and quotas of its rooms.
fn residue(pool: &Pool) -> Vec<String> {
    let home = pool.state_dir();
    let home = home.to_str().unwrap();
    let mut left = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let mounts = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        left.extend(mounts.lines().filter(|line| line.contains(home)).map(str::to_owned));
    }
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(home) {
            left.push(format!("{}: {file}", device.path().display()));
        }
    }
    let rooms = pool.state_dir().join("rooms");
    let numbers = projects(&rooms);
    let mut next = numbers.start;
    let folder = fs::File::open(&rooms).unwrap();
    while let Ok(Some((id, project))) = quota::next(&folder, next) {
        if !numbers.contains(&id) {
            break;
        }
        if project.max_bytes != 0 || project.max_files != 0 {
            left.push(format!("project {id}: {project:?}"));
        }
        next = id + 1;
    }
    left
}

fn assert_no_residue(pool: &Pool) {
    // The kernel takes a mount apart a moment after its last process.
    let mut left = Vec::new();
    wait_until("no mount and no loop device is left", || {
        left = residue(pool);
        left.is_empty()
    });
}

/// Far more than the limit, in 100 kB pieces or at once, and then it waits for its end.
const FILLERS: [(&str, &str); 5] = [
    ("one file", "head -c 30000000 /dev/zero >big; sleep 100"),
    ("many files", "i=0; while [ $i -lt 45 ]; do head -c 1000000 /dev/zero >f$i || :; i=$((i+1)); done; sleep 100"),
    (
        "an unlinked file",
        "exec 3>gone; rm gone; i=0; while [ $i -lt 200 ]; do head -c 100000 /dev/zero >&3 || :; \
      i=$((i+1)); done; sleep 100",
    ),
    (
        "many unlinked files",
        "for i in 1 2 3 4; do (exec 3>g; rm g; head -c 5000000 /dev/zero >&3; sleep 100) & sleep 0.1; \
      done; wait",
    ),
    ("a stray", "(setsid sh -c 'mkdir -p a/b/c; head -c 30000000 /dev/zero >a/b/c/big; sleep 100' &) ; sleep 100"),
];

#[test]
fn whoever_fills_the_disk_is_ended_by_each_means() {
    for means in means() {
        let pool = Pool::start(options(means));
        for (name, script) in FILLERS {
            let task = run(&pool, limited(OverLimitAction::Kill, script));
            assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "over-limit"), "{name} by {means:?}");
        }
        let inodes = "i=0; while [ $i -lt 300 ]; do mkdir d$i && ln -s x l$i || :; i=$((i+1)); done; sleep 100";
        let task = run(&pool, limited(OverLimitAction::Kill, inodes));
        assert_eq!(verdict(&task), "over-limit", "inodes by {means:?}");
        // And the next task finds nothing of it.
        let next = run(&pool, shell("[ -z \"$(ls -A)\" ] && head -c 30000000 /dev/zero >free", &[]));
        assert_eq!(next.state, TaskState::Completed, "{means:?}");
        assert_no_residue(&pool);
    }
}

#[test]
fn a_full_scratch_at_the_end_is_over_limit_however_the_task_took_it() {
    for means in means() {
        let pool = Pool::start(options(means));
        for script in ["head -c 30000000 /dev/zero >big", "head -c 30000000 /dev/zero >big; exit 0"] {
            let task = run(&pool, limited(OverLimitAction::Kill, script));
            assert_eq!(verdict(&task), "over-limit", "{script} by {means:?}");
        }
        // Who has made room again in time has not exceeded anything at its end; a look in between may have seen it.
        let coped = "head -c 30000000 /dev/zero >big 2>/dev/null; rm big; exit 0";
        let task = run(&pool, limited(OverLimitAction::Kill, coped));
        assert!(["exited", "over-limit"].contains(&verdict(&task)), "{task:?}");
    }
}

#[test]
fn who_keeps_within_the_limit_is_left_alone() {
    // Holes, further names of a file, and what links lead to are not in it; and a bit less than the limit is no excess.
    let script = r#"
        for i in 1 2 3 4 5 6 7 8 9; do truncate -s 7M sparse$i; done
        head -c 7000000 /dev/zero >big; sync big; for i in 1 2 3 4 5 6 7 8 9; do ln big link$i; done
        ln -s "$1" outside; ln -s / root; mkdir deep; mv big deep/; sleep 0.5; stat -f -c %T ."#;
    for means in means() {
        let pool = Pool::start(options(means));
        fs::create_dir(pool.file("outside")).unwrap();
        fs::write(pool.file("outside/big"), vec![1; 20_000_000]).unwrap();
        for action in [OverLimitAction::Kill, OverLimitAction::Throttle] {
            let spec = limited(action, script);
            let command = shell(script, &[&pool.path("outside")]).command;
            let id = pool.submit_spec(TaskSpec { command, ..spec });
            let task = pool.wait(id);
            let said = written(&pool, id);
            assert_eq!(task.state, TaskState::Completed, "{means:?} {}{}", said.err(), pool.log());
            if let Some(kind) = means.kind {
                assert_eq!(said.out().trim(), kind, "{means:?}");
            }
        }
        assert_no_residue(&pool);
    }
}

#[test]
fn warn_lets_it_write_and_throttle_has_the_kernel_refuse() {
    let script = "head -c 30000000 /dev/zero >big 2>/dev/null && echo whole || echo refused; wc -c <big";
    for means in means() {
        let pool = Pool::start(options(means));
        for action in [OverLimitAction::Warn, OverLimitAction::Throttle] {
            let id = pool.submit_spec(limited(action, script));
            assert_eq!(pool.wait(id).state, TaskState::Completed, "{action:?} by {means:?}");
            let out = written(&pool, id).out();
            let (word, bytes) = out.trim().split_once('\n').unwrap();
            let bytes: u64 = bytes.trim().parse().unwrap();
            if action == OverLimitAction::Throttle && means.has_wall {
                assert_eq!(word, "refused", "{means:?}");
                let limit = LIMIT_MB << 20;
                assert!((limit..limit + limit / 10).contains(&bytes), "{bytes} bytes by {means:?}");
            } else {
                assert_eq!((word, bytes), ("whole", 30_000_000), "{action:?} by {means:?}");
            }
        }
    }
}

#[test]
fn one_of_both_limits_is_enough() {
    for means in means() {
        let pool = Pool::start(options(means));
        let only = |limits: Limits, script: &str| {
            let limits = Limits { action: Some(OverLimitAction::Kill), ..limits };
            verdict(&run(&pool, TaskSpec { limits, ..shell(script, &[]) })).to_owned()
        };
        let bytes = Limits { disk_mb: Some(LIMIT_MB), ..Limits::default() };
        let files = Limits { disk_files: Some(5), ..Limits::default() };
        assert_eq!(only(bytes, "for i in $(seq 300); do : >f$i; done"), "exited", "{means:?}");
        assert_eq!(only(bytes, "head -c 30000000 /dev/zero >x; sleep 100"), "over-limit", "{means:?}");
        assert_eq!(only(files, "head -c 30000000 /dev/zero >x"), "exited", "{means:?}");
        assert_eq!(only(files, "for i in 1 2 3 4 5; do : >f$i; done"), "exited", "{means:?}");
        assert_eq!(only(files, "for i in 1 2 3 4 5 6; do : >f$i; done"), "over-limit", "{means:?}");
    }
}

#[test]
fn what_may_have_to_be_kept_is_never_in_a_mount() {
    for means in means() {
        let pool = Pool::start(options(means));
        let spec = limited(OverLimitAction::Kill, "head -c 30000000 /dev/zero >big; sleep 100");
        let id = pool.submit_spec(TaskSpec { cleanup: Some(Cleanup::Success), ..spec });
        assert_eq!(verdict(&pool.wait(id)), "over-limit", "{means:?}");
        let kept = pool.state_dir().join("kept").join(format!("{id}-1/big"));
        assert!(kept.metadata().unwrap().len() > LIMIT_MB << 20, "{means:?}");
        // What is kept counts for nobody who comes after it.
        let after = run(&pool, limited(OverLimitAction::Kill, "head -c 7000000 /dev/zero >big"));
        assert_eq!(after.state, TaskState::Completed, "{means:?}");
    }
}

#[test]
fn a_worker_that_dies_on_the_way_leaves_nothing() {
    let points = [
        ("loop", "worker.after-image"),
        ("loop", "worker.after-loop"),
        ("loop", "worker.after-mount"),
        ("tmpfs", "worker.after-mount"),
        ("quota", "worker.after-project"),
        ("quota", "worker.after-quota"),
    ];
    for means in means() {
        for (_, point) in points.into_iter().filter(|(method, _)| *method == means.method) {
            let pool = Pool::start(options(means).dies_once_at(point));
            let script = "head -c 5000000 /dev/zero >some";
            let retry = Some(Retries { delay_ms: Some(1), ..Retries::default() });
            let id = pool.submit_spec(TaskSpec { retry, ..limited(OverLimitAction::Kill, script) });
            let task = pool.wait(id);
            assert!(pool.has_struck(point), "nobody passed {point}");
            assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2), "{point}: {}", pool.log());
            assert_no_residue(&pool);
            let rooms: Vec<_> = fs::read_dir(pool.state_dir().join("rooms/0")).unwrap().flatten().collect();
            assert_eq!(rooms.len(), 2, "{point}: {rooms:?}");
        }
    }
}

#[test]
fn a_worker_or_a_whole_pool_that_is_killed_under_a_task_leaves_nothing() {
    for means in means() {
        let mut pool = Pool::start(options(means));
        let script = "head -c 5000000 /dev/zero >some; touch \"$1\"; sleep 1000";
        let command = shell(script, &[&pool.path("there")]).command;
        let id = pool.submit_spec(TaskSpec { command, ..limited(OverLimitAction::Kill, "") });
        wait_until("it has written", || pool.file("there").exists());
        assert_eq!(residue(&pool).is_empty(), !means.has_wall, "{means:?}");
        fs::remove_file(pool.file("there")).unwrap();
        signal(pool.worker_of(id).pid, Signal::SIGKILL);
        wait_until("it runs again", || pool.file("there").exists());
        fs::remove_file(pool.file("there")).unwrap();
        pool.kill9();
        for pid in pool.processes() {
            signal(pid, Signal::SIGKILL);
        }
        pool.restart();
        wait_until("it runs again in a new pool", || pool.file("there").exists());
        reaches(&pool, id, TaskState::Running);
        assert!(cancel(&pool, id));
        assert_eq!(pool.wait(id).state, TaskState::Cancelled);
        assert_no_residue(&pool);
        pool.stop();
        assert!(pool.leftovers().is_empty(), "{:?}", pool.leftovers());
    }
}

#[test]
fn a_means_that_is_not_there_is_replaced_by_looking() {
    if in_machine("nothing") {
        // There all means are.
        return;
    }
    let pool = Pool::start(options(Means { method: "auto", kind: None, has_wall: false }));
    let task = run(&pool, limited(OverLimitAction::Kill, "head -c 30000000 /dev/zero >big; sleep 100"));
    assert_eq!(verdict(&task), "over-limit");
    assert_eq!(only_attempt(&task).number, 1);
}
