//! The pool's metrics: as JSON, as Prometheus text, over HTTP, and as an event; and that nobody who asks for them is in
//! anybody's way.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acode::wire::MetricsRecord;
use acode::wire::request::{Metrics, Ping};
use acode_worker::task::{Array, Submission, TaskSpec, TaskState};
use command::Acode;
use common::{Options, PATIENCE, Pool, eventually, shell, signal, wait_until};
use more::{cancel, gated, open_gate, reaches};
use nix::sys::signal::Signal;
use serde_json::Value;

fn metrics(pool: &Pool) -> MetricsRecord {
    pool.call(&Metrics { text: false }).metrics
}

fn text(pool: &Pool) -> String {
    pool.call(&Metrics { text: true }).text.unwrap()
}

/// The samples of a text, by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let split = lines.map(|line| line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}")));
    split.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// A pool that serves metrics, and where.
fn serving(options: Options) -> (Pool, String) {
    let pool = Pool::start(options.config("metrics:\n  listen: 127.0.0.1:0"));
    let address = pool.status().metrics_listen.expect("it is served");
    (pool, address)
}

/// Sends this, and gives all that comes until the other end closes.
fn ask(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: &str, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\r\n").as_bytes())
}

#[test]
fn the_metrics_have_every_field_of_the_worker_manager() {
    let pool = Pool::start(Options::workers(3));
    let acode = Acode::of(&pool);
    let busy = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, busy, TaskState::Running);
    let metrics = acode.json(&["worker", "metrics"]);
    for field in [
        "totalWorkers",
        "activeWorkers",
        "idleWorkers",
        "unhealthyWorkers",
        "pendingTasks",
        "runningTasks",
        "completedTasks",
        "failedTasks",
        "averageTaskDuration",
        "averageQueueTime",
        "throughput",
        "cpuUtilization",
        "memoryUtilization",
        "schema",
        "timeouts",
        "cancelled",
        "retries",
        "requeues",
        "events",
        "uptime",
    ] {
        assert!(metrics[field].is_number(), "{field} in {metrics}");
    }
    for field in ["taskDuration", "queueTime"] {
        assert!(["p50", "p90", "p99"].iter().all(|share| metrics[field][share].is_number()), "{field} in {metrics}");
    }
    assert_eq!([&metrics["totalWorkers"], &metrics["activeWorkers"]], [&Value::from(3), &Value::from(1)]);
    assert_eq!([&metrics["runningTasks"], &metrics["pendingTasks"]], [&Value::from(1), &Value::from(0)]);
    open_gate(&pool, "gate");
}

#[test]
fn workers_are_counted_by_what_they_do() {
    let pool = Pool::start(Options::workers(3).config("workers:\n  heartbeatTimeoutMs: 60000"));
    let tasks = [pool.submit_spec(gated(&pool, "gate")), pool.submit_spec(gated(&pool, "gate"))];
    tasks.iter().for_each(|id| drop(reaches(&pool, *id, TaskState::Running)));
    wait_until("two are busy and one is idle", || {
        let seen = metrics(&pool);
        (seen.total_workers, seen.active_workers, seen.idle_workers, seen.unhealthy_workers) == (3, 2, 1, 0)
    });
    open_gate(&pool, "gate");
    wait_until("all are idle", || metrics(&pool).idle_workers == 3);
}

#[test]
fn an_unhealthy_worker_is_counted_and_its_successor_is_a_restart() {
    let beats = "workers:\n  heartbeatIntervalMs: 20\n  heartbeatTimeoutMs: 200";
    let pool = Pool::start(Options::workers(2).config(beats));
    let workers = pool.idle_workers();
    signal(workers[0].pid, Signal::SIGSTOP);
    let mut seen_unhealthy = false;
    wait_until("it is replaced", || {
        let seen = metrics(&pool);
        seen_unhealthy |= seen.unhealthy_workers > 0;
        seen.worker_restarts == 1
    });
    let told = pool.events().iter().any(|event| event.event == "worker-unhealthy");
    // It is killed at the moment it is found out, so a look from outside may come too late for the count.
    assert!(seen_unhealthy || told);
    assert_eq!((metrics(&pool).workers_started, metrics(&pool).total_workers), (3, 2));
    assert_eq!(samples(&text(&pool))["acode_worker_restarts_total"], 1.0);
}

#[test]
fn tasks_are_counted_by_how_they_ended() {
    let pool =
        Pool::start(Options::workers(2).config("workers:\n  killGraceMs: 100\ntasks:\n  retries:\n    delayMs: 1"));
    for _ in 0..5 {
        pool.submit(&["true"]);
    }
    pool.submit_all(vec![Submission {
        spec: TaskSpec { command: vec!["true".into()], ..TaskSpec::default() },
        array: Some(Array::Range { first: 1, count: 7 }),
        ..Submission::default()
    }]);
    let retry = Some(acode_worker::task::Retries { count: Some(2), delay_ms: Some(1), ..Default::default() });
    pool.submit_spec(TaskSpec { retry, ..shell("exit 3", &[]) });
    pool.submit_spec(TaskSpec { timeout_ms: Some(50), ..shell("sleep 1000", &[]) });
    let lost = pool.submit_spec(shell("[ $ACODE_ATTEMPT = 2 ] || exec sleep 1000", &[]));
    reaches(&pool, lost, TaskState::Running);
    signal(pool.worker_of(lost).pid, Signal::SIGKILL);
    let gone = pool.submit_spec(gated(&pool, "never"));
    reaches(&pool, gone, TaskState::Running);
    assert!(cancel(&pool, gone));
    pool.wait_all();
    let seen = metrics(&pool);
    assert_eq!((seen.completed_tasks, seen.failed_tasks, seen.timeouts, seen.cancelled), (13, 1, 1, 1));
    assert_eq!((seen.retries, seen.requeues, seen.pending_tasks, seen.running_tasks), (2, 1, 0, 0));
    assert_eq!(seen.starts, 19, "5 + 7, three attempts, one, two, one");
    let exposed = samples(&text(&pool));
    for (name, value) in [
        ("acode_tasks_completed_total", 13.0),
        ("acode_tasks{state=\"completed\"}", 13.0),
        ("acode_tasks{state=\"timeout\"}", 1.0),
        ("acode_tasks_failed_total", 1.0),
        ("acode_retries_total", 2.0),
        ("acode_requeues_total", 1.0),
        ("acode_attempts_started_total", 19.0),
        ("acode_workers{status=\"idle\"}", 2.0),
    ] {
        assert_eq!(exposed[name], value, "{name}");
    }
    assert!(exposed["acode_commits_total"] > 0.0 && exposed["acode_commit_seconds_sum"] > 0.0);
    assert_eq!(exposed["acode_commit_seconds_count"], exposed["acode_commits_total"]);
}

#[test]
fn times_and_the_rate_follow_what_ran() {
    let pool = Pool::start(Options::workers(1));
    // The second waits for the only worker while the first sleeps.
    let ids = pool.submit_all((0..2).map(|_| more::entry(shell("sleep 0.3", &[]))).collect());
    ids.iter().for_each(|id| assert_eq!(pool.wait(*id).state, TaskState::Completed));
    let seen = metrics(&pool);
    assert!((300.0..30_000.0).contains(&seen.average_task_duration), "{seen:?}");
    assert!((150.0..30_000.0).contains(&seen.average_queue_time), "{seen:?}");
    assert!(seen.task_duration.p50 >= 250.0 && seen.task_duration.p99 >= seen.task_duration.p50, "{seen:?}");
    assert!(seen.queue_time.p99 >= 250.0, "{seen:?}");
    assert!(seen.throughput > 0.0 && seen.throughput <= 2.0, "{seen:?}");
    let exposed = samples(&text(&pool));
    assert_eq!(exposed["acode_task_duration_seconds_count"], 2.0);
    assert_eq!(exposed["acode_task_duration_seconds_bucket{le=\"0.25\"}"], 0.0);
    assert_eq!(exposed["acode_task_queue_seconds_bucket{le=\"+Inf\"}"], 2.0);
    assert!(exposed["acode_task_duration_seconds_sum"] >= 0.6);
}

#[test]
fn what_the_pool_uses_is_a_share_of_the_machine() {
    let pool = Pool::start(Options::workers(1));
    let busy = pool.submit_spec(shell("while [ ! -e \"$1\" ]; do :; done", &[&pool.path("gate")]));
    reaches(&pool, busy, TaskState::Running);
    wait_until("a task that spins shows", || metrics(&pool).cpu_utilization > 0.05);
    let seen = metrics(&pool);
    assert!(seen.cpu_utilization <= 1.0 && seen.memory_utilization > 0.0 && seen.memory_utilization < 1.0, "{seen:?}");
    let exposed = samples(&text(&pool));
    assert!(exposed["acode_process_resident_memory_bytes"] > 1e5 && exposed["acode_process_open_fds"] > 5.0);
    assert!(exposed["acode_process_start_time_seconds"] > 1.7e9);
    open_gate(&pool, "gate");
}

#[test]
fn short_tasks_that_nobody_sees_alive_count_as_cpu_time() {
    let pool = Pool::start(Options::workers(1));
    let spin = shell("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done", &[]);
    pool.submit_all((0..40).map(|_| more::entry(spin.clone())).collect());
    pool.wait_all();
    let used: f64 = pool.status().resources.cpu_percent;
    assert!(used > 5.0, "{used}");
}

// Prometheus.

/// What Prometheus' own checker has to say; none if it is not on this machine, which is a failure in CI.
fn promtool(text: &str) -> Option<(bool, String)> {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "promtool (Debian package prometheus) is needed in CI: {error}");
            eprintln!("promtool (Debian package prometheus) is not here: the text is checked by our own parser only");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// The text format's own rules: help and type before the samples of a family, cumulative buckets that end with all.
#[track_caller]
fn is_well_formed(text: &str) {
    let (mut family, mut below) = (String::new(), 0.0);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            family = rest.split(' ').nth(1).unwrap().to_owned();
            below = 0.0;
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with(&family), "'{line}' is not of {family}");
        let value: f64 = value.parse().unwrap();
        if name.contains("_bucket{le=") {
            assert!(value >= below, "buckets are cumulative: {line}");
            below = value;
        }
        if name.ends_with("_count") && name.contains("seconds_") {
            assert_eq!(value, below, "all are in the last bucket: {line}");
        }
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn prometheus_own_checker_finds_nothing_wrong() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    // Once with nothing in the histograms, and once with something.
    for round in 0..2 {
        let said = acode.says(&["worker", "metrics"]).expect(0);
        is_well_formed(&said.out);
        for family in [
            "acode_tasks gauge",
            "acode_tasks_completed_total counter",
            "acode_task_queue_seconds histogram",
            "acode_task_duration_seconds histogram",
            "acode_workers gauge",
            "acode_worker_restarts_total counter",
            "acode_retries_total counter",
            "acode_requeues_total counter",
            "acode_commits_total counter",
            "acode_commit_seconds histogram",
            "acode_connections gauge",
            "acode_process_cpu_seconds_total counter",
            "acode_build_info gauge",
        ] {
            assert!(said.out.contains(&format!("# TYPE {family}\n")), "{family} is not in\n{}", said.out);
        }
        if let Some((passed, words)) = promtool(&said.out) {
            assert!(passed && words.is_empty(), "round {round}: {words}");
        }
        pool.submit(&["true"]);
        pool.wait_all();
    }
}

#[test]
fn the_checker_would_find_something_wrong() {
    let wrong = "# HELP acode_x_ms A time.\n# TYPE acode_x_ms counter\nacode_x_ms 1\n";
    if let Some((passed, words)) = promtool(wrong) {
        assert!(!passed && !words.is_empty(), "{words}");
    }
}

// HTTP.

#[test]
fn metrics_are_served_over_http_where_the_configuration_says() {
    let (pool, address) = serving(Options::workers(1));
    let answer = get(&address, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    is_well_formed(body);
    if let Some((passed, words)) = promtool(body) {
        assert!(passed && words.is_empty(), "{words}");
    }
    pool.submit(&["true"]);
    pool.wait_all();
    wait_until("the task shows", || get(&address, "/metrics").contains("\nacode_tasks_completed_total 1\n"));
    assert!(pool.log().contains(&address), "the log names the address");
    assert!(Acode::of(&pool).ok(&["worker", "status"]).contains(&format!("http://{address}/metrics")));
}

#[test]
fn by_default_nothing_is_served() {
    let pool = Pool::start(Options::workers(1));
    assert_eq!(pool.status().metrics_listen, None);
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", pool.pid())).unwrap().flatten();
    let inodes: Vec<String> =
        sockets.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.display().to_string())).collect();
    let listening = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = listening.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9));
    assert!(ours.into_iter().all(|inode| !inodes.contains(&format!("socket:[{inode}]"))));
}

#[test]
fn what_is_no_get_of_the_metrics_is_refused() {
    let (pool, address) = serving(Options::workers(1));
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"nonsense\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
        (b"GET /metrics HTTP/1.0\r\n\r\n", "200"),
    ] {
        let answer = ask(&address, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    let long =
        [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 7 << 10], b"\r\nY: ", &vec![b'y'; 7 << 10]].concat();
    assert!(ask(&address, &long).starts_with("HTTP/1.1 431 "));
    pool.call(&Ping {});
}

#[test]
fn who_connects_and_says_nothing_is_in_nobodys_way_and_soon_gone() {
    let (pool, address) = serving(Options::workers(1));
    let mut silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for stream in silent.iter_mut().take(8) {
        stream.write_all(b"GET /metr").unwrap();
    }
    let began = Instant::now();
    let id = pool.submit(&["true"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    assert!(began.elapsed() < Duration::from_secs(2), "a task took {:?}", began.elapsed());
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", pool.pid())).unwrap().count();
    let before = fds();
    assert!(before < 100, "{before} descriptors");
    let closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        !matches!(stream.read(&mut [0]), Ok(1..))
    };
    assert!(silent.iter_mut().all(closed), "each is closed by the pool");
    assert!(eventually(PATIENCE, || fds() < before), "and costs no descriptor any more");
    assert!(get(&address, "/metrics").starts_with("HTTP/1.1 200 "));
}

#[test]
fn many_who_ask_do_not_slow_the_pool() {
    let (pool, address) = serving(Options::workers(1));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Beyond the bound of connections it is closed without an answer.
                    if let Ok(mut stream) = TcpStream::connect(&address) {
                        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
                        let _ = stream.read_to_end(&mut Vec::new());
                    }
                }
            });
        }
        let began = Instant::now();
        for _ in 0..20 {
            let id = pool.submit(&["true"]);
            assert_eq!(pool.wait(id).state, TaskState::Completed);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    });
}

#[test]
fn an_address_that_others_reach_is_refused_by_the_configuration() {
    for address in ["0.0.0.0:9464", "192.0.2.1:80", "[::]:9464", "9464", "127.0.0.1", "localhost:9464"] {
        let mut pool = Pool::prepare(Options::workers(1).config(&format!("metrics:\n  listen: '{address}'")));
        pool.launch();
        assert_eq!(pool.wait_exit().code(), Some(2), "{address}");
        let log = pool.log();
        assert!(log.contains("metrics.listen") && log.contains("loopback") && log.contains(address), "{log}");
        pool.abandon();
    }
}

#[test]
fn an_address_that_is_taken_is_an_error_at_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut pool = Pool::prepare(Options::workers(1).config(&format!("metrics:\n  listen: {address}")));
    pool.launch();
    assert_eq!(pool.wait_exit().code(), Some(1));
    assert!(pool.log().contains(&format!("metrics.listen: {address} cannot be listened on")), "{}", pool.log());
    pool.abandon();
}

#[test]
fn a_pool_for_one_command_does_not_ask_for_the_lasting_pools_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::without_state(&pool).var("ACODE_METRICS_LISTEN", taken.local_addr().unwrap().to_string());
    assert_eq!(acode.ok(&["run", "--", "echo", "done"]), "done");
}

#[test]
fn a_reload_moves_where_metrics_are_served() {
    let (pool, address) = serving(Options::workers(1));
    let write =
        |listen: &str| std::fs::write(pool.file("acode.yaml"), format!("metrics:\n  listen: '{listen}'\n")).unwrap();
    write("[::1]:0");
    signal(pool.pid(), Signal::SIGHUP);
    let mut now = None;
    // Without IPv6 on this machine nothing is served, and the log says why.
    wait_until("it has moved", || {
        now = pool.status().metrics_listen;
        now.as_ref().is_none_or(|new| *new != address)
    });
    assert!(TcpStream::connect(&address).is_err(), "the old place is closed");
    match &now {
        Some(new) => assert!(new.starts_with("[::1]:") && get(new, "/metrics").starts_with("HTTP/1.1 200 ")),
        None => assert!(pool.log().contains("the metrics are not served"), "{}", pool.log()),
    }
    write("none");
    signal(pool.pid(), Signal::SIGHUP);
    wait_until("it is served no more", || pool.status().metrics_listen.is_none());
}

// The event.

#[test]
fn metrics_are_told_as_an_event_while_tasks_run_and_not_without() {
    let pool = Pool::start(Options::workers(1).config("metrics:\n  eventsIntervalSeconds: 1"));
    let told = || -> Vec<_> { pool.events().into_iter().filter(|event| event.event == "metrics-updated").collect() };
    pool.submit(&["true"]);
    pool.wait_all();
    wait_until("the metrics are told", || {
        let last = told().pop().and_then(|event| event.data);
        let last: Option<Value> = last.map(|data| serde_json::from_str(data.get()).unwrap());
        last.is_some_and(|data| data["completedTasks"] == 1 && data["throughput"].as_f64().unwrap() > 0.0)
    });
    let count = told().len();
    let events = pool.events().len();
    let awake = Instant::now();
    // Nothing happens for more than two intervals; the pool is asked all the time, and would tell if it wanted to.
    assert!(!eventually(Duration::from_millis(2_500), || pool.events().len() > events), "{:?}", told());
    assert!(awake.elapsed() >= Duration::from_millis(2_500) && told().len() == count);
}

#[test]
fn metrics_are_not_told_as_an_event_if_that_is_off() {
    let pool = Pool::start(Options::workers(1).config("metrics:\n  eventsIntervalSeconds: none"));
    pool.submit(&["true"]);
    pool.wait_all();
    assert!(!eventually(Duration::from_millis(1_500), || pool.events().iter().any(|e| e.event == "metrics-updated")));
}
