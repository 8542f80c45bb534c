//! Tests of the tables: what people see, word by word.

use acode_worker::task::{TaskId, WorkerId};
use serde_json::{Value, json};

use super::*;

const MILLIS: u64 = 1_790_000_000_000;

fn worker(n: u128, status: &str, task: Option<u64>) -> WorkerRecord {
    let id = WorkerId::from_u128(u128::from(MILLIS) << 80 | n);
    let task = task.map(|seq| TaskId::new(MILLIS, 0xAC0DE, seq));
    serde_json::from_value(json!({
        "schema": 1, "id": id, "pid": 4_000 + n as u64, "status": status, "mode": "process", "current_task": task,
        "started_at": "2026-09-21T14:13:20.000000Z", "last_heartbeat_at": null, "tasks_completed": 12,
        "tasks_failed": 0, "healthy": true,
    }))
    .unwrap()
}

fn task_value() -> Value {
    json!({
        "schema": 1, "id": TaskId::new(MILLIS, 0xAC0DE, 42), "number": 42, "name": "nightly", "state": "failed",
        "verdict": "exited", "exit_code": 3, "signal": null, "error": "disk full", "result": {"a": 1},
        "priority": "high", "progress": null, "waiting": null, "command": ["/bin/sh", "-c", "it's $x"], "cwd": "/srv",
        "meta": {"k": "v"}, "array": null, "member": null, "submitted_at": "2026-09-21T14:13:20.000000Z",
        "started_at": "2026-09-21T14:13:21.000000Z", "finished_at": "2026-09-21T14:13:22.500000Z",
        "output": {"stdout_bytes": 1_500, "stderr_bytes": 0, "truncated": false}, "attempt_count": 1,
        "attempts": [{
            "number": 1, "worker": WorkerId::from_u128(u128::from(MILLIS) << 80), "verdict": "exited", "exit_code": 3,
            "signal": null, "reason": null, "isolation": "process", "tree_guard": "cgroup",
            "usage": {"user_us": 1_200, "system_us": 800, "max_rss_bytes": 2_000_000},
            "started_at": "2026-09-21T14:13:21.000000Z", "finished_at": "2026-09-21T14:13:22.500000Z",
            "leaked": true, "output": null,
        }],
    })
}

fn now() -> Stamp {
    "2026-09-21T14:23:20Z".parse().unwrap()
}

#[test]
fn the_status_has_the_form_of_the_specification() {
    let record: StatusRecord = serde_json::from_value(json!({
        "schema": 1,
        "pool": {"name": "default", "id": "x", "pid": 1, "state": "running", "mode": "process",
                 "started_at": "2026-09-21T14:13:20.000000Z", "version": "0.1.0"},
        "workers": {"active": 3, "starting": 1, "idle": 1, "busy": 1, "unhealthy": 0, "stopping": 0, "target": 3,
                    "min": 1, "max": 256},
        "tasks": {"pending": 12, "running": 2},
        "resources": {"cpu_percent": 45.2, "memory_bytes": 1_200_000_000_u64},
        "queue": {"accepting": true, "problem": null},
    }))
    .unwrap();
    let workers = [worker(1, "busy", Some(7)), worker(2, "idle", None), worker(3, "starting", None)];
    insta::assert_snapshot!(status(&record, &workers), @r#"
    Worker Pool Status
    ==================
    Mode: process
    Active: 3
      - worker-01M3250V000000000000000001: busy (task 01M3250V000000NG6Y00000007)
      - worker-01M3250V000000000000000002: idle
      - worker-01M3250V000000000000000003: starting

    Queue: 12 pending, 2 running
    Resources: CPU 45%, Memory 1.2GB
    "#);
}

#[test]
fn the_status_of_a_mixed_pool_tells_modes_and_the_engine() {
    let mut record: StatusRecord = serde_json::from_value(json!({
        "schema": 1,
        "pool": {"name": "default", "id": "x", "pid": 1, "state": "running", "mode": "mixed",
                 "started_at": "2026-09-21T14:13:20.000000Z", "version": "0.1.0"},
        "workers": {"active": 2, "starting": 0, "idle": 2, "busy": 0, "unhealthy": 0, "stopping": 0, "target": 2,
                    "min": 1, "max": 256, "modes": {"process": 1, "docker": 1}},
        "tasks": {"pending": 3, "running": 0},
        "resources": {"cpu_percent": 0.0, "memory_bytes": 1_200_000_000_u64},
        "docker": {"available": false, "since": "2026-09-21T14:13:21.000000Z",
                   "why": "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?\n",
                   "fallback": "process"},
        "queue": {"accepting": true, "problem": null},
    }))
    .unwrap();
    let workers = [worker(1, "idle", None), WorkerRecord { mode: "docker".into(), ..worker(2, "idle", None) }];
    insta::assert_snapshot!(status(&record, &workers), @r#"
    Worker Pool Status
    ==================
    Mode: mixed (process 1, docker 1)
    Docker: unavailable since 2026-09-21T14:13:21.000000Z (Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?): tasks that ask for a container wait, all others run as processes
    Active: 2
      - worker-01M3250V000000000000000001: idle, process
      - worker-01M3250V000000000000000002: idle, docker

    Queue: 3 pending, 0 running
    Resources: CPU 0%, Memory 1.2GB
    "#);
    if let Some(docker) = &mut record.docker {
        (docker.available, docker.why, docker.since) = (None, None, None);
        assert_eq!(engine::words(docker), "no worker has found out yet");
    }
}

#[test]
fn workers_are_listed() {
    insta::assert_snapshot!(workers(&[worker(1, "busy", Some(7)), worker(2, "idle", None)], now()), @r#"
    ID                           PID  STATUS  MODE     TASK                        AGE  HEARTBEAT  DONE  FAILED
    01M3250V000000000000000001  4001  busy    process  01M3250V000000NG6Y00000007  10m          -    12       0
    01M3250V000000000000000002  4002  idle    process  -                           10m          -    12       0
    "#);
}

#[test]
fn tasks_are_listed() {
    let with = |changes: &[(&str, Value)]| {
        let mut value = task_value();
        changes.iter().for_each(|(key, new)| value[*key] = new.clone());
        serde_json::from_value::<TaskRecord>(value).unwrap()
    };
    let none = Value::Null;
    let list = [
        with(&[]),
        with(&[("verdict", json!("signalled")), ("exit_code", none.clone()), ("signal", json!(9))]),
        with(&[
            ("state", json!("pending")),
            ("finished_at", none.clone()),
            ("started_at", none.clone()),
            ("waiting", json!({"kind": "queued", "ahead": 3})),
        ]),
        with(&[
            ("state", json!("running")),
            ("verdict", none.clone()),
            ("finished_at", none),
            ("progress", json!({"percent": 40, "message": "unpacking"})),
        ]),
        with(&[("name", json!("render")), ("array", json!({"count": 100, "members": {"completed": 7, "failed": 1}}))]),
    ];
    insta::assert_snapshot!(tasks(&list, now()), @r#"
     #  ID                          NAME     STATE    PROGRESS  PRIORITY  AGE  TOOK  RESULT
    42  01M3250V000000NG6Y0000001A  nightly  failed          -  high      10m  1.5s  exit 3
    42  01M3250V000000NG6Y0000001A  nightly  failed          -  high      10m  1.5s  killed by SIGKILL
    42  01M3250V000000NG6Y0000001A  nightly  pending         -  high      10m     -  queued: 3 ahead of it
    42  01M3250V000000NG6Y0000001A  nightly  running       40%  high      10m     -  unpacking
    42  01M3250V000000NG6Y0000001A  render   failed         8%  high      10m  1.5s  8 of 100 ended, 1 without success
    "#);
}

#[test]
fn a_list_with_tasks_that_ask_for_an_isolation_tells_which() {
    let plain_task: TaskRecord = serde_json::from_value(task_value()).unwrap();
    let mut value = task_value();
    value["isolation"] = json!("docker");
    let list = [serde_json::from_value(value).unwrap(), plain_task];
    insta::assert_snapshot!(tasks(&list, now()), @r"
     #  ID                          NAME     STATE   PROGRESS  PRIORITY  ISOLATION  AGE  TOOK  RESULT
    42  01M3250V000000NG6Y0000001A  nightly  failed         -  high      docker     10m  1.5s  exit 3
    42  01M3250V000000NG6Y0000001A  nightly  failed         -  high      -          10m  1.5s  exit 3
    ");
}

#[test]
fn a_task_is_shown_with_its_attempts() {
    insta::assert_snapshot!(task(&serde_json::from_value(task_value()).unwrap(), false), @r#"
    Task       01M3250V000000NG6Y0000001A
    Number     42
    Name       nightly
    Command    /bin/sh -c 'it'\''s $x'
    In         /srv
    State      failed
    Priority   high
    Result     exit 3
    Error      disk full
    Returned   {"a":1}
    Meta       k=v
    Submitted  2026-09-21T14:13:20.000000Z
    Started    2026-09-21T14:13:21.000000Z
    Finished   2026-09-21T14:13:22.500000Z
    Output     1.5KB out, 0B err
    Used       counted by rusage

    ATTEMPT  WORKER                      RESULT  TOOK  CPU  MEMORY  NOTE
          1  01M3250V000000000000000000  exit 3  1.5s  2ms   2.0MB  left processes running
    "#);
}

#[test]
fn a_task_in_a_container_is_shown_with_what_it_asked_for_and_where_each_attempt_ran() {
    let mut value = task_value();
    value["isolation"] = json!("docker");
    value["docker"] = json!({
        "image": "debian:12", "entrypoint": "", "network": "bridge", "user": "1000:1000", "pull": "missing",
        "mounts": [{"source": "/data", "target": "/in", "readOnly": true}], "args": ["--shm-size=1g"],
    });
    let second = value["attempts"][0].clone();
    value["attempts"][0]["isolation"] = json!("docker");
    value["attempts"].as_array_mut().unwrap().push(second);
    value["attempts"][1]["number"] = json!(2);
    value["attempts"][1]["leaked"] = json!(false);
    let text = task(&serde_json::from_value(value).unwrap(), false);
    let lines = text.lines().filter(|line| line.starts_with(['I', 'C', ' ']) || line.contains("ATTEMPT"));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    Command    /bin/sh -c 'it'\''s $x'
    In         /srv
    Isolation  docker
    Container  image debian:12, entry point none, network bridge, user 1000:1000, pull missing, mount /data:/in:ro, --shm-size=1g
    ATTEMPT  WORKER                      RESULT  TOOK  CPU  MEMORY  NOTE
          1  01M3250V000000000000000000  exit 3  1.5s  2ms   2.0MB  in a container; left processes running
          2  01M3250V000000000000000000  exit 3  1.5s  2ms   2.0MB  as a process
    ");
}

#[test]
fn a_task_that_only_leaves_the_isolation_to_the_pool_says_nothing_about_it() {
    let task_record: TaskRecord = serde_json::from_value(task_value()).unwrap();
    assert!(!task(&task_record, false).contains("Isolation"));
    let json = serde_json::to_value(&task_record).unwrap();
    assert_eq!((&json["isolation"], json.get("docker")), (&Value::Null, None));
}

#[test]
fn progress_is_shown_with_its_message_and_drawn_only_where_it_is_seen() {
    let mut value = task_value();
    value["progress"] = json!({"percent": 40, "message": "unpacking"});
    let task_record: TaskRecord = serde_json::from_value(value).unwrap();
    let line =
        |drawn: bool| task(&task_record, drawn).lines().find(|line| line.starts_with("Progress")).map(str::to_owned);
    assert_eq!(line(false).unwrap(), "Progress   40% unpacking");
    assert_eq!(line(true).unwrap(), "Progress   [########------------] 40% unpacking");
    assert_eq!((bar(0), bar(100)), (format!("[{}] ", "-".repeat(20)), format!("[{}] ", "#".repeat(20))));
}

#[test]
fn what_a_task_uses_and_how_its_limits_were_held_is_shown() {
    let mut value = task_value();
    value["usage_now"] = json!({"cpu_us": 1_200_000, "memory_bytes": 8_400_000, "pids": 2, "disk_bytes": 5_000});
    value["attempts"][0]["usage"] = json!({
        "user_us": 1_200, "system_us": 800, "max_rss_bytes": 2_000_000, "peak_memory_bytes": 512_000_000,
        "throttled_us": 3_000_000, "oom_kills": 1, "peak_pids": 20, "peak_disk_bytes": 9_000, "read_bytes": 0,
        "written_bytes": 16_000_000, "source": "cgroup",
    });
    value["attempts"][0]["limits"] = json!([
        {"limit": "memoryMb", "value": 512, "hold": "enforced", "by": "memory.max", "exceeded": true},
        {"limit": "diskMb", "value": 10, "hold": "observed", "by": "sampling"},
    ]);
    value["attempts"][0]["kept"] = json!("/var/lib/acode/kept/42");
    value["attempts"][0]["sandbox"] = json!(["network namespace", "landlock"]);
    let text = task(&serde_json::from_value(value).unwrap(), false);
    let (_, shown) = text.split_once("err\n").unwrap();
    insta::assert_snapshot!(shown, @r#"
    Uses       1.2s CPU, 8.4MB, 2 processes, 5.0KB disk
    Used       throttled for 3.0s, 1 killed for memory, 20 processes at most, 9.0KB disk at most, 16MB written, counted by cgroup
    Kept       /var/lib/acode/kept/42
    Sandbox    network namespace, landlock

    ATTEMPT  WORKER                      RESULT  TOOK  CPU  MEMORY  NOTE
          1  01M3250V000000000000000000  exit 3  1.5s  2ms   512MB  left processes running

    LIMIT     VALUE  HELD      BY
    memoryMb    512  enforced  memory.max, exceeded
    diskMb       10  observed  sampling
    "#);
}
