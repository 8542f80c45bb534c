//! What a task finds around itself: its variables, descriptors, session, signals, limits, directories, and nothing else.
//!
//! Deliberately absent: limits by cgroup, which are not there yet, and how a task ends (`verdicts.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use acode_worker::task::{Env, Rlimits, TaskSpec, TaskState};
use common::{Options, Pool, shell, wait_until};
use more::{command, output_of};

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The variables of a task, as the kernel has them.
fn variables(pool: &Pool, spec: TaskSpec) -> BTreeMap<String, String> {
    let spec = TaskSpec { command: command(&["cat", "/proc/self/environ"]).command, ..spec };
    let text = output_of(pool, spec);
    let pairs = text.split_terminator('\0').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_task_sees_its_id_attempt_worker_and_metadata() {
    let pool = Pool::start(Options::workers(1));
    let worker = pool.idle_workers().remove(0);
    let spec = TaskSpec { meta: env(&[("user-id", "7"), ("Long Name", "a\nb")]), ..TaskSpec::default() };
    let spec = TaskSpec { command: command(&["cat", "/proc/self/environ"]).command, ..spec };
    let id = pool.submit_spec(spec);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let text = more::written(&pool, id).out();
    let seen: BTreeMap<&str, &str> = text.split_terminator('\0').filter_map(|pair| pair.split_once('=')).collect();
    assert_eq!(seen["ACODE_TASK_ID"], id.to_string());
    assert_eq!(seen["ACODE_ATTEMPT"], "1");
    assert_eq!(seen["ACODE_WORKER_ID"], worker.id.to_string());
    assert_eq!(seen["ACODE_WORKER_SLOT"], "0");
    assert_eq!((seen["ACODE_META_USER_ID"], seen["ACODE_META_LONG_NAME"]), ("7", "a\nb"));
    for name in ["ACODE_SCRATCH", "ACODE_PROGRESS", "ACODE_RESULT", "ACODE_ERROR"] {
        assert!(Path::new(seen[name]).is_absolute(), "{name}={}", seen[name]);
    }
}

#[test]
fn only_what_is_allowed_leaks_from_the_supervisor() {
    let yaml =
        "tasks:\n  environment:\n    allow: [PATH, LC_*, OWN]\n    set:\n      FOR_ALL: everybody\n      OWN: set";
    let options = Options::workers(1)
        .config(yaml)
        .var("SECRET", "s")
        .var("LC_TEST", "c")
        .var("LD_PRELOAD_X", "x")
        .var("OWN", "inherited")
        .var("ACODE_TASKS_TIMEOUT_SECONDS", "600")
        .var("NOTIFY_SOCKET", "/nonexistent");
    let pool = Pool::start(options);
    let spec =
        TaskSpec { env: env(&[("MINE", "1"), ("FOR_ALL", "me"), ("ACODE_TASK_ID", "forged")]), ..TaskSpec::default() };
    let seen = variables(&pool, spec);
    assert_eq!((seen["MINE"].as_str(), seen["FOR_ALL"].as_str(), seen["OWN"].as_str()), ("1", "me", "set"));
    assert_eq!(seen["LC_TEST"], "c");
    assert_ne!(seen["ACODE_TASK_ID"], "forged");
    let known = |name: &str| {
        const OURS: [&str; 8] =
            ["TASK_ID", "ATTEMPT", "WORKER_ID", "WORKER_SLOT", "SCRATCH", "PROGRESS", "RESULT", "ERROR"];
        name.strip_prefix("ACODE_")
            .map_or(["PATH", "MINE", "FOR_ALL", "OWN"].contains(&name) || name.starts_with("LC_"), |rest| {
                OURS.contains(&rest)
            })
    };
    let strangers: Vec<&String> = seen.keys().filter(|name| !known(name)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn what_acode_gives_to_a_task_cannot_be_forged() {
    let pool = Pool::start(Options::workers(1));
    let seen = |forged: &[String]| {
        let forged = forged.iter().map(|name| (name.clone(), "forged".to_owned()));
        let spec = TaskSpec { env: forged.collect(), checkpoint: true, ..command(&["cat", "/proc/self/environ"]) };
        let spec = TaskSpec { meta: env(&[("a-b", "1")]), ..spec };
        let text = output_of(&pool, spec);
        let pairs = text.split_terminator('\0').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let plain = seen(&[]);
    let names: Vec<String> = plain.iter().map(|(name, _)| name.clone()).filter(|n| n.starts_with("ACODE_")).collect();
    assert!(names.len() > 8, "{names:?}");
    let forged = seen(&names);
    assert_eq!(forged.len(), plain.len());
    assert!(forged.iter().all(|(_, value)| value != "forged"), "{forged:?}");
}

#[test]
fn a_variable_that_is_not_utf8_does_not_hinder_the_pool() {
    let mut pool = Pool::prepare(Options::workers(1));
    let mut command = pool.command();
    command.env("LC_BROKEN", OsStr::from_bytes(b"\xff\xfe")).env(OsStr::from_bytes(b"BROKEN\xff"), "x");
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    wait_until("the pool answers, or has ended", || {
        acode::wire::Client::connect(&pool.socket()).is_ok() || child.try_wait().unwrap().is_some()
    });
    let seen = variables(&pool, TaskSpec::default());
    assert!(!seen.contains_key("LC_BROKEN") && seen.contains_key("PATH"));
    pool.call(&acode::wire::request::Stop { mode: acode::wire::types::StopMode::Force, timeout_ms: None });
    assert!(child.wait().unwrap().success());
    pool.restart();
}

#[test]
fn a_task_has_its_own_session_descriptors_and_directory() {
    let pool = Pool::start(Options::workers(1));
    // No pipe and no redirection, for which the shell would hold descriptors of its own while ls looks.
    let script = "awk '{print $1, $6, $5}' /proc/$$/stat; pwd; readlink /proc/$$/fd/0; ls /proc/$$/fd; true";
    let text = output_of(&pool, shell(script, &[]));
    let lines: Vec<&str> = text.lines().collect();
    let ids: Vec<&str> = lines[0].split_whitespace().collect();
    assert!(ids[0] == ids[1] && ids[0] == ids[2], "leader of its session and group: {ids:?}");
    assert!(lines[1].starts_with(&pool.path("s")), "a scratch directory inside the state directory: {}", lines[1]);
    assert_eq!(lines[2], "/dev/null");
    assert_eq!(lines[3..], ["0", "1", "2"], "nothing but standard input, output and error");
}

#[test]
fn a_program_that_looks_itself_sees_three_descriptors() {
    let pool = Pool::start(Options::workers(1));
    // ls holds one of its own: the directory that it lists.
    let text = output_of(&pool, command(&["ls", "/proc/self/fd"]));
    assert_eq!(text.lines().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn signals_and_privileges_are_as_at_the_beginning_of_the_world() {
    // The harness itself ignores SIGPIPE, as every Rust program does, and tasks must not inherit that.
    let pool = Pool::start(Options::workers(1));
    let text = output_of(&pool, command(&["cat", "/proc/self/status"]));
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    for mask in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        assert_eq!(u64::from_str_radix(&field(mask), 16).unwrap(), 0, "{mask}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Umask"), "0077");
    assert_eq!(field("TracerPid"), "0");
}

#[test]
fn umask_and_limits_come_from_the_configuration() {
    let yaml = "workers:\n  umask: '027'\n  rlimits:\n    coreBytes: 0\n    openFiles: 100\n    fileSizeBytes: 1048576\n    \
                addressSpaceBytes: 4294967296\n    cpuSeconds: 77\n    processes: 5000";
    let pool = Pool::start(Options::workers(1).config(yaml));
    let rlimits = Rlimits { open_files: Some(50), ..Rlimits::default() };
    let script = "umask; touch f; stat -c %a f; cat /proc/self/limits";
    let text = output_of(&pool, TaskSpec { rlimits, ..shell(script, &[]) });
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap().trim_start_matches('0'), "27");
    assert_eq!(lines.next(), Some("640"));
    let limit = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert_eq!(limit("Max open files"), "50", "the task's own word");
    assert_eq!(limit("Max file size"), "1048576");
    assert_eq!(limit("Max address space"), "4294967296");
    assert_eq!(limit("Max cpu time"), "77");
    assert_eq!(limit("Max processes"), "5000");
    let id = pool.submit_spec(shell("head -c 2000000 /dev/zero >f", &[]));
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Failed, "a file larger than allowed: {task:?}");
}

#[test]
fn the_scratch_directory_is_private_empty_and_gone_for_the_next_task() {
    let pool = Pool::start(Options::workers(1));
    let script =
        "pwd; ls -A | wc -l; stat -c %a .; test \"$(pwd)\" = $ACODE_SCRATCH; echo x >left; mkdir -p d/e; chmod 0 d";
    let first = output_of(&pool, shell(script, &[]));
    let second = output_of(&pool, shell(script, &[]));
    for text in [&first, &second] {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[1].trim(), lines[2]), ("0", "700"), "{text}");
    }
}

#[test]
fn a_directory_and_an_input_of_its_own_are_used() {
    let pool = Pool::start(Options::workers(1));
    std::fs::create_dir(pool.file("here")).unwrap();
    std::fs::write(pool.file("input"), "line one\nline two\n").unwrap();
    let spec = TaskSpec {
        cwd: Some(pool.path("here")),
        stdin: Some(pool.path("input")),
        ..shell("pwd; cat; echo x >made", &[])
    };
    assert_eq!(output_of(&pool, spec), format!("{}\nline one\nline two\n", pool.path("here")));
    assert_eq!(pool.lines("here/made"), ["x"]);
    assert_eq!(pool.lines("input").len(), 2, "the input is only read");
}

#[test]
fn arguments_are_passed_as_they_are() {
    let pool = Pool::start(Options::workers(1));
    let arguments = ["printf", "[%s]", "a b", "", "$HOME", "*", "'q'", "\"d\"", "new\nline", "ä€", "{item}", "-n"];
    let expected: String = arguments[2..].iter().map(|argument| format!("[{argument}]")).collect();
    assert_eq!(output_of(&pool, command(&arguments)), expected);
}

#[test]
fn a_task_too_large_for_a_slot_runs_all_the_same() {
    let pool = Pool::start(Options::workers(1));
    let long = "x".repeat(100_000);
    assert_eq!(output_of(&pool, shell("printf %s \"$1\" | wc -c", &[&long])).trim(), "100000");
    let spill = pool.state_dir().join("run/spill");
    wait_until("its file is removed", || std::fs::read_dir(&spill).map(|all| all.count()).unwrap_or(0) == 0);
}

#[test]
fn a_large_task_that_is_cancelled_leaves_no_file() {
    let pool = Pool::start(Options::workers(1));
    let gate = pool.submit_spec(more::gated(&pool, "gate"));
    more::reaches(&pool, gate, TaskState::Running);
    let id = pool.submit_spec(shell("true", &[&"x".repeat(100_000)]));
    let spill = pool.state_dir().join("run/spill");
    let files = || std::fs::read_dir(&spill).map(|all| all.count()).unwrap_or(0);
    wait_until("it is handed over", || files() == 1);
    assert!(more::cancel(&pool, id));
    pool.wait(id);
    assert_eq!(files(), 0);
    more::open_gate(&pool, "gate");
}
