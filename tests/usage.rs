//! What attempts use: known amounts are reported within sane bounds, while they run and when they have ended.
//!
//! The same tests run where the kernel counts for cgroups and where it does not; what differs is asked of the pool's
//! status. Deliberately absent: limits.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use acode::wire::request::Metrics;
use acode::wire::types::TaskRecord;
use acode::wire::{LiveRecord, MetricsRecord, Rung, UsageRecord};
use acode_worker::task::{TaskSpec, TaskState, UsageSource};
use command::Acode;
use common::{Options, Pool, can_hide_cgroups, shell, wait_until};
use more::{only_attempt, open_gate};

const MIB: u64 = 1 << 20;
/// How much memory the hungry task touches.
const HUNGER: u64 = 100 * MIB;
/// Uses a second of processor time, then touches that memory, in a child of a child; and waits for the file.
const HUNGRY: &str = r#"sh -c 'perl -e "
    while ((times)[0] < 1) { 1 for 1 .. 10_000 }
    my \$size = 100 << 20; my \$held = q(x) x \$size;
    select(undef, undef, undef, 0.02) until -e \$ARGV[0];
" "$1"; true' sh "$1"; true"#;

fn usage(task: &TaskRecord) -> UsageRecord {
    only_attempt(task).usage.unwrap()
}

fn metrics(pool: &Pool) -> MetricsRecord {
    pool.call(&Metrics { text: false }).metrics
}

/// The sample of the pool's metrics text with this name and these labels.
fn sample(pool: &Pool, name: &str) -> Option<f64> {
    let text = pool.call(&Metrics { text: true }).text.unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Whether the cgroup of a task counts its memory.
fn counts_memory(pool: &Pool) -> bool {
    let cgroup = pool.status().cgroup.expect("the pool says what holds its limits");
    assert_eq!(cgroup.rung == Rung::Delegated, !cgroup.controllers.is_empty(), "{cgroup:?}");
    let counts = cgroup.controllers.iter().any(|name| name == "memory");
    let forced = std::env::var_os("ACODE_TEST_VM").is_some();
    assert!(counts || !forced || cgroup.rung != Rung::Delegated, "{cgroup:?}");
    counts
}

fn live(pool: &Pool) -> Option<LiveRecord> {
    pool.workers().into_iter().find_map(|worker| worker.usage_now)
}

/// Runs the hungry task, looks at it from everywhere while it runs, and gives what was reported at its end.
fn hungry(pool: &Pool) -> UsageRecord {
    let acode = Acode::of(pool);
    let id = pool.submit_spec(shell(HUNGRY, &[&pool.path("gate")]));
    wait_until("its use is seen", || {
        live(pool).is_some_and(|live| live.memory_bytes >= HUNGER && live.cpu_us >= 900_000 && live.pids >= 3)
    });
    let now = pool.show(id).usage_now.expect("a running task says what it uses");
    assert!(now.memory_bytes >= HUNGER && now.memory_bytes < 4 * HUNGER, "{now:?}");
    assert!((900_000..20_000_000).contains(&now.cpu_us) && (3..10).contains(&now.pids), "{now:?}");
    let told = metrics(pool).task_usage;
    assert!(told.memory_bytes >= HUNGER && told.running.len() == 1, "{told:?}");
    let slot = told.running[0].slot;
    let told = sample(pool, &format!("acode_running_task_memory_bytes{{slot=\"{slot}\"}}"));
    assert!(told.is_some_and(|bytes| bytes >= HUNGER as f64), "{told:?}");
    assert!(sample(pool, "acode_tasks_memory_bytes").is_some_and(|bytes| bytes >= HUNGER as f64));
    assert!(acode.ok(&["worker", "status"]).contains(" processes\n"), "status says what a task uses");
    assert!(acode.ok(&["task", "list"]).contains(" CPU, "), "the list does");
    assert!(acode.ok(&["task", "show", &id.to_string()]).contains("\nUses "), "and the task's own page");

    open_gate(pool, "gate");
    let task = pool.wait(id);
    assert_eq!((task.state, task.usage_now), (TaskState::Completed, None));
    wait_until("nothing is said of a task that has ended", || live(pool).is_none());
    let used = usage(&task);
    assert!((900_000..20_000_000).contains(&used.cpu_us()), "{used:?}");
    assert!(used.peak_memory_bytes.is_some_and(|peak| (HUNGER..4 * HUNGER).contains(&peak)), "{used:?}");
    assert!(used.max_rss_bytes >= HUNGER && used.peak_pids.is_some_and(|pids| (3..10).contains(&pids)), "{used:?}");
    let told = metrics(pool).task_usage;
    assert!(told.cpu_seconds >= 0.9 && told.peak_memory_bytes >= HUNGER && told.running.is_empty(), "{told:?}");
    // The text is made anew only from time to time.
    wait_until("the metrics count it", || {
        sample(pool, "acode_task_cpu_seconds_total").is_some_and(|seconds| seconds >= 0.9)
    });
    let shown = acode.ok(&["task", "show", &id.to_string()]);
    let counted = shown.lines().find(|line| line.starts_with("Used")).unwrap_or_else(|| panic!("{shown}"));
    assert!(counted.ends_with(&format!("counted by {}", used.source.name())), "{shown}");
    used
}

#[test]
fn what_a_task_uses_is_seen_while_it_runs_and_reported_at_its_end() {
    let pool = Pool::start(Options::workers(1));
    let source = if counts_memory(&pool) { UsageSource::Cgroup } else { UsageSource::Rusage };
    let used = hungry(&pool);
    assert_eq!(used.source, source, "{used:?}");
}

#[test]
fn without_cgroups_it_is_counted_by_looking_at_processes() {
    if !can_hide_cgroups() {
        eprintln!("skipped: cgroups cannot be hidden from a pool here");
        return;
    }
    let pool = Pool::start(Options::workers(1).without_cgroups());
    assert_eq!(pool.status().cgroup.unwrap().rung, Rung::None);
    assert_eq!(hungry(&pool).source, UsageSource::Rusage);
}

#[test]
fn a_task_does_not_answer_for_the_one_before_it() {
    let pool = Pool::start(Options::workers(1));
    hungry(&pool);
    let task = pool.wait(pool.submit(&["sleep", "0.3"]));
    let used = usage(&task);
    assert!(used.peak_memory_bytes.is_some_and(|peak| peak < HUNGER / 2), "{used:?}");
    assert!(used.cpu_us() < 500_000 && used.peak_pids == Some(1), "{used:?}");
    assert!(used.oom_kills.unwrap_or(0) == 0 && used.throttled_us.unwrap_or(0) == 0, "{used:?}");
}

#[test]
fn twenty_processes_are_counted() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        (until [ -e "$1" ]; do sleep 0.05; done) & done; wait"#;
    let id = pool.submit_spec(shell(script, &[&pool.path("gate")]));
    wait_until("all are seen", || live(&pool).is_some_and(|live| live.pids >= 21));
    open_gate(&pool, "gate");
    let peak = usage(&pool.wait(id)).peak_pids.unwrap();
    assert!((21..=60).contains(&peak), "each of twenty and their parent, and what each starts: {peak}");
}

#[test]
fn bytes_written_through_to_the_disk_are_counted() {
    let pool = Pool::start(Options::workers(1));
    let kind = nix::sys::statfs::statfs(&pool.state_dir()).unwrap().filesystem_type();
    if [nix::sys::statfs::TMPFS_MAGIC, nix::sys::statfs::OVERLAYFS_SUPER_MAGIC].contains(&kind) {
        eprintln!("skipped: the kernel counts no bytes for this file system");
        return;
    }
    let script = "dd if=/dev/zero of=file bs=1M count=16 conv=fsync 2>/dev/null";
    let used = usage(&pool.wait(pool.submit_spec(shell(script, &[]))));
    assert!((16 * MIB..64 * MIB).contains(&used.written_bytes), "{used:?}");
    assert!(metrics(&pool).task_usage.written_bytes >= 16 * MIB);
}

#[test]
fn many_processes_do_not_make_the_looking_expensive() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"i=0; while [ $i -lt 600 ]; do sleep 1000 & i=$((i+1)); done; : >"$1"; wait"#;
    let id = pool.submit_spec(shell(script, &[&pool.path("up")]));
    wait_until("all are up", || pool.file("up").exists());
    wait_until("all are seen", || live(&pool).is_some_and(|live| live.pids >= 601));
    let worker = pool.worker_of(id).pid;
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (before, began) = (ticks(), std::time::Instant::now());
    wait_until("some looks have passed", || began.elapsed().as_secs() >= 3);
    // A hundred ticks are a second of a processor; a fiftieth of it is promised.
    let share = (ticks() - before) as f64 / 100.0 / began.elapsed().as_secs_f64();
    assert!(share < 0.2, "looking takes {share} of a processor");
    assert!(more::cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Cancelled);
    assert!(usage(&task).peak_pids.is_some_and(|pids| pids >= 601));
}

#[test]
fn a_task_that_never_ran_has_used_nothing() {
    let pool = Pool::start(Options::workers(1));
    let spec = TaskSpec { command: vec!["/no/such/program".to_owned()], ..TaskSpec::default() };
    let used = usage(&pool.wait(pool.submit_spec(spec)));
    assert_eq!((used.cpu_us(), used.memory_bytes(), used.peak_pids), (0, 0, None));
}
