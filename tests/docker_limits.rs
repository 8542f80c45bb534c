//! What keeps a container in: limits and walls, read and measured from inside it, by effect.
//!
//! The hierarchy of cgroups is the one that is here: v1 or v2, by either driver. Deliberately absent: the command line that
//! asks for all this, and what acode reads back (tests of `worker/src/execute/docker`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/docker.rs"]
mod docker;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use acode::wire::UsageRecord;
use acode::wire::types::{AttemptRecord, TaskRecord};
use acode_worker::task::{Docker, HeldLimit, Hold, Isolation, Limits, Rlimits, TaskSpec, TaskState};
use command::Acode;
use common::engine::Engine;
use common::{Options, Pool, shell, wait_until};
use docker::{assert_nothing_left, ended, in_container, options, pool, seconds};
use more::{only_attempt, output_of, verdict, written};

/// Shell: `cg V2 V1` is a file of the container's own cgroup, by its name in the hierarchy that is here.
const CG: &str = r#"cg() { cat "/sys/fs/cgroup/$1" 2>/dev/null || cat "/sys/fs/cgroup/$2"; }
"#;

/// What a script says in a container, as `name=value` lines.
#[track_caller]
fn inside(pool: &Pool, spec: TaskSpec) -> BTreeMap<String, String> {
    let said = output_of(pool, in_container(spec));
    let lines = said.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// A task's last attempt; what is out of memory is tried again.
#[track_caller]
fn last_attempt(task: &TaskRecord) -> &AttemptRecord {
    task.attempts.as_ref().and_then(|attempts| attempts.last()).expect("it was tried")
}

/// How a limit of its last attempt was held.
#[track_caller]
fn held<'t>(task: &'t TaskRecord, limit: &str) -> &'t HeldLimit {
    let limits = &last_attempt(task).limits;
    limits.iter().find(|held| held.limit == limit).unwrap_or_else(|| panic!("no word on {limit} in {limits:?}"))
}

#[track_caller]
fn usage(task: &TaskRecord) -> UsageRecord {
    last_attempt(task).usage.unwrap_or_else(|| panic!("nobody counted: {task:?}"))
}

#[test]
fn memory_is_bounded_without_swap() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let limits = Limits { memory_mb: Some(40), ..Limits::default() };
    let script = format!(
        "{CG} echo memory=$(cg memory.max memory/memory.limit_in_bytes)
        echo swap=$(cg memory.swap.max memory/memory.memsw.limit_in_bytes)"
    );
    let read = inside(&pool, TaskSpec { limits, ..shell(&script, &[]) });
    assert_eq!(read["memory"], (40 << 20).to_string());
    // v1 counts both together. A kernel may count no swap at all, and then a container has no such file.
    let swap = read.get("swap").map_or("", String::as_str);
    assert!(["", "0", &read["memory"]].contains(&swap), "{read:?}");
    let task = ended(&pool, TaskSpec { limits, ..shell("exec tail /dev/zero", &[]) });
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}\n{}", pool.log());
    assert!(held(&task, "memoryMb").exceeded, "{task:?}");
    // Who succeeds without the process that was killed has succeeded, and it is told all the same.
    let survivor = ended(&pool, TaskSpec { limits, ..shell("tail /dev/zero; sleep $1; exit 0", &[&seconds(1)]) });
    assert_eq!((survivor.state, verdict(&survivor)), (TaskState::Completed, "exited"), "{survivor:?}");
    assert!(held(&survivor, "memoryMb").exceeded, "{survivor:?}");
    // Within the limit it is left alone.
    let little = ended(&pool, TaskSpec { limits, ..shell("head -c 8000000 /dev/zero | tail -c 8000000 | wc -c", &[]) });
    assert_eq!((little.state, written(&pool, little.id).out().trim()), (TaskState::Completed, "8000000"), "{little:?}");
    assert!(!held(&little, "memoryMb").exceeded, "{little:?}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn two_busy_loops_get_a_quarter_of_a_processor() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let limits = Limits { cpu_percent: Some(25), ..Limits::default() };
    let script = format!(
        "{CG} now() {{ cut -d ' ' -f 1 /proc/uptime; }}
        echo began=$(now)
        for n in 1 2; do timeout $1 sh -c 'while :; do :; done' & done; wait
        echo ended=$(now)
        cg cpu.stat cpu/cpu.stat | sed 's/ /=/'"
    );
    let task = ended(&pool, TaskSpec { limits, ..shell(&script, &[&seconds(6)]) });
    let said = written(&pool, task.id).out();
    let figure = |name: &str| -> f64 {
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name}: {said}")).parse().unwrap()
    };
    let wall = figure("ended") - figure("began");
    let share = usage(&task).cpu_us() as f64 / 1e6 / wall;
    // Two loops alone on a machine would get two processors. What others leave may be less than a quarter.
    assert!((0.025..0.5).contains(&share), "{share} of a processor in {wall} s\n{said}\n{task:?}");
    assert!(figure("nr_throttled") > 0.0, "{said}");
    let cpu = held(&task, "cpuPercent");
    assert_eq!((cpu.hold, cpu.exceeded), (Hold::Enforced, true), "{task:?}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_fork_bomb_is_capped_and_the_engine_is_well() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let limits = Limits { pids: Some(30), ..Limits::default() };
    let script = format!("{CG} echo pids=$(cg pids.max pids/pids.max)");
    assert_eq!(inside(&pool, TaskSpec { limits, ..shell(&script, &[]) })["pids"], "30");
    // Who cannot fork gives up, so the task's own shell keeps out of it.
    let bomb = "sh -c 'bomb() { bomb | bomb & }; bomb' & sh -c 'while :; do sleep 0.1 || :; done' & exec sleep \"$1\"";
    let task = ended(&pool, TaskSpec { limits, ..shell(bomb, &[&seconds(4)]) });
    assert_eq!(verdict(&task), "exited", "{task:?}");
    let pids = held(&task, "pids");
    assert_eq!((pids.hold, pids.exceeded), (Hold::Enforced, true), "{task:?}");
    assert!(usage(&task).peak_pids.is_some_and(|peak| (5..=30).contains(&peak)), "{:?}", usage(&task));
    assert!(!only_attempt(&task).leaked, "{task:?}");
    assert_eq!(output_of(&pool, in_container(shell("echo well", &[]))), "well\n");
    assert_nothing_left(&engine, pool);
}

#[test]
fn rlimits_are_those_of_each_process() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let rlimits = Rlimits { open_files: Some(50), file_size_bytes: Some(1 << 20), ..Rlimits::default() };
    let script = "echo core=$(ulimit -c); echo files=$(ulimit -n); echo hard=$(ulimit -Hn)
        head -c 5000000 /dev/zero >big; echo size=$(stat -c %s big)";
    let read = inside(&pool, TaskSpec { rlimits, ..shell(script, &[]) });
    let read: Vec<&str> = ["core", "files", "hard", "size"].iter().map(|name| read[*name].as_str()).collect();
    assert_eq!(read, ["0", "50", "50", "1048576"]);
    assert_nothing_left(&engine, pool);
}

#[test]
fn nothing_but_scratch_and_tmp_can_be_written_and_tmp_is_small() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "  tmpfsMb: 16\n");
    let script = r#"for place in / /bin /etc /usr /var /var/tmp /home /proc /sys /sys/fs/cgroup /run; do
            touch "$place/x" 2>/dev/null && echo "wrote=$place"; done
        echo 1 >here && echo scratch=$(cat here)
        echo 2 >/tmp/there && echo tmp=$(cat /tmp/there)
        head -c 50000000 /dev/zero >/tmp/big 2>/dev/null || echo full=yes
        echo size=$(stat -c %s /tmp/big)
        grep -q ' / [^ ]* ro,' /proc/mounts && echo root=ro"#;
    let read = inside(&pool, shell(script, &[]));
    assert_eq!(read.get("wrote"), None, "{read:?}");
    let size: u64 = read["size"].parse().unwrap();
    assert!((8 << 20..=16 << 20).contains(&size), "{size}");
    let read: Vec<&str> = ["scratch", "tmp", "full", "root"].iter().map(|name| read[*name].as_str()).collect();
    assert_eq!(read, ["1", "2", "yes", "ro"]);
    let next = shell("[ -e /tmp/there ] || echo own=yes", &[]);
    assert_eq!(inside(&pool, next)["own"], "yes", "each has a /tmp of its own");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_container_has_no_powers_and_no_network() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    // Somebody listens on the host.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let script = r#"sed -n 's/:\s*/=/p' /proc/self/status | grep -E '^(Cap|NoNewPrivs)'
        echo up=$(ip -o link | grep -c '[<,]UP[,>]'); echo lo=$(ip -o link show lo | grep -c UP)
        echo routes=$(($(wc -l </proc/net/route) - 1))
        nc -w 5 127.0.0.1 "$1" </dev/null 2>/dev/null && echo reached=yes
        chown 1000 . 2>/dev/null && echo gave=away; mount -t tmpfs none /tmp 2>/dev/null && echo mounted=yes
        hostname other 2>/dev/null && echo named=yes; true"#;
    let read = inside(&pool, shell(script, &[&port]));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(read[set], "0000000000000000", "{set}");
    }
    assert_eq!((read["NoNewPrivs"].as_str(), read["up"].as_str(), read["lo"].as_str()), ("1", "1", "1"), "{read:?}");
    assert_eq!(read["routes"], "0");
    for deed in ["reached", "gave", "mounted", "named"] {
        assert_eq!(read.get(deed), None, "{read:?}");
    }
    // Who is given the host's network reaches it.
    let docker = Some(Docker { network: Some("host".to_owned()), ..Docker::default() });
    assert_eq!(inside(&pool, TaskSpec { docker, ..shell(script, &[&port]) })["reached"], "yes");
    assert_nothing_left(&engine, pool);
}

#[test]
fn the_user_inside_is_the_pools() {
    const USER: u32 = 1000;
    let Some(engine) = Engine::start() else { return };
    let open = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(engine.folder(), 0o755);
    open(&engine.socket(), 0o666);
    let pool = Pool::start(options(&engine, 1, "").of_user(USER));
    let script = "echo user=$(id -u):$(id -g); echo name=$(id -un); touch mine; echo owner=$(stat -c %u:%g mine)
        echo groups=$(id -G); echo secret=$(cat /etc/shadow 2>&1 | wc -l)";
    let read = inside(&pool, shell(script, &[]));
    let ours = format!("{USER}:{USER}");
    assert_eq!((read["user"].as_str(), read["owner"].as_str(), read["name"].as_str()), (&*ours, &*ours, "tester"));
    assert_eq!(read["groups"], USER.to_string());
    let docker = Some(Docker { user: Some("nobody".to_owned()), ..Docker::default() });
    assert_eq!(inside(&pool, TaskSpec { docker, ..shell("echo name=$(id -un)", &[]) })["name"], "nobody");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_mixed_pool_puts_each_task_where_it_belongs() {
    let Some(engine) = Engine::start() else { return };
    let docker = docker::patience("");
    let yaml = format!("workers:\n  mode: process:1,docker:1\ndocker:\n  image: {}\n{docker}", engine.image());
    let pool = Pool::start(engine.options(Options::workers(2).config(&yaml)));
    let modes = Acode::of(&pool).json(&["worker", "status"])["workers"]["modes"].clone();
    assert_eq!((&modes["process"], &modes["docker"]), (&1.into(), &1.into()), "{modes}");
    let spec = |isolation| TaskSpec { isolation, ..shell("hostname; readlink /proc/self/exe", &[]) };
    let asks = [None, Some(Isolation::Process), Some(Isolation::Docker), None, Some(Isolation::Docker)];
    let ids = asks.map(|isolation| pool.submit_spec(spec(isolation)));
    for (asked, id) in asks.into_iter().zip(ids) {
        let task = pool.wait(id);
        assert_eq!(
            (task.state, only_attempt(&task).isolation),
            (TaskState::Completed, asked.or(Some(Isolation::Process)))
        );
        let inside = written(&pool, id).out().contains("busybox");
        assert_eq!(inside, asked == Some(Isolation::Docker), "{}", written(&pool, id).out());
    }
    assert_nothing_left(&engine, pool);
}

#[test]
fn limits_are_held_by_the_systems_engine() {
    let Some(engine) = Engine::of_system() else { return };
    let pool = pool(&engine, 1, "");
    let limits = Limits { memory_mb: Some(40), cpu_percent: Some(25), pids: Some(60), ..Limits::default() };
    let busy = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; while [ ! -e done ]; do sleep 0.2; done";
    let id = pool.submit_spec(in_container(TaskSpec { limits, ..shell(busy, &[]) }));
    wait_until("it runs", || engine.running().len() == 1);
    let scope = format!("/sys/fs/cgroup/system.slice/docker-{}.scope", engine.running()[0]);
    let file = |name: &str| fs::read_to_string(format!("{scope}/{name}")).unwrap_or_default().trim().to_owned();
    wait_until("the runtime has written the limits", || file("cpu.max") == "25000 100000");
    let read = ["memory.max", "memory.swap.max", "pids.max"].map(file);
    assert_eq!(read, [(40 << 20).to_string(), "0".to_owned(), "60".to_owned()]);
    let done = format!("/proc/{}/cwd/done", engine.inspect(&engine.running()[0], "{{.State.Pid}}"));
    wait_until("it is at work", || fs::write(&done, "").is_ok());
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
    for (limit, file) in [("memoryMb", "memory.max"), ("cpuPercent", "cpu.max"), ("pids", "pids.max")] {
        let held = held(&task, limit);
        assert!(held.hold == Hold::Enforced && held.by.contains(file), "{held:?}");
    }
    let used = usage(&task);
    assert!(used.cpu_us() > 10_000 && used.peak_memory_bytes.is_some_and(|bytes| bytes > 100_000), "{used:?}");
    let task = ended(&pool, TaskSpec { limits, ..shell("exec tail /dev/zero", &[]) });
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}\n{}", pool.log());
    assert!(held(&task, "memoryMb").exceeded && usage(&task).oom_kills.is_some_and(|kills| kills > 0), "{task:?}");
    assert_nothing_left(&engine, pool);
}
