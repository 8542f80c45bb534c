//! Workers of several modes in one pool: their proportion, their lanes, and what the pool makes of an engine that is not
//! there.
//!
//! The engine is a mock, which runs a container's command on the host: what a container is needs a real engine and is
//! asked of one elsewhere. Deliberately absent: the shares themselves, which are tests of `src/supervisor/modes.rs`.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/mock_engine.rs"]
mod mock_engine;
#[path = "common/more.rs"]
mod more;

use acode::wire::request::{Metrics, Reload, Scale, Why};
use acode::wire::types::{EventRecord, Waiting, WorkerRecord, WorkerStatus};
use acode_worker::task::{Isolation, TaskId, TaskSpec, TaskState};
use command::Acode;
use common::{Options, Pool, signal, wait_until};
use mock_engine::MockEngine;
use more::{entry, gated, only_attempt, open_gate, reaches, verdict};
use nix::sys::signal::Signal;

fn asking(isolation: Isolation, spec: TaskSpec) -> TaskSpec {
    TaskSpec { isolation: Some(isolation), ..spec }
}

/// The idle workers of each mode, process first.
fn modes(pool: &Pool) -> (usize, usize) {
    let workers = pool.workers();
    let idle = |mode: &str| {
        let wanted = |worker: &&WorkerRecord| worker.mode == mode && worker.status == WorkerStatus::Idle;
        workers.iter().filter(wanted).count()
    };
    let (process, docker) = (idle("process"), idle("docker"));
    // Who is coming or going belongs to no picture.
    if process + docker == workers.len() { (process, docker) } else { (0, 0) }
}

#[track_caller]
fn become_modes(pool: &Pool, process: usize, docker: usize) {
    wait_until(&format!("{process} process and {docker} docker workers are idle"), || modes(pool) == (process, docker));
    let counts = pool.status().workers.modes;
    assert_eq!((counts.process as usize, counts.docker as usize), (process, docker));
}

fn events(pool: &Pool, kind: &str) -> Vec<EventRecord> {
    pool.events().into_iter().filter(|event| event.event == kind).collect()
}

fn why(pool: &Pool, id: TaskId) -> (Option<Waiting>, String) {
    let why = pool.call(&Why { id: id.into() });
    (why.waiting, why.text)
}

#[test]
fn a_mixed_pool_keeps_its_proportion_while_it_grows_shrinks_and_loses_workers() {
    let engine = MockEngine::new("up");
    let pool = Pool::start(engine.options(3, "process:2,docker:1"));
    become_modes(&pool, 2, 1);
    assert_eq!(pool.status().pool.mode, "mixed");
    pool.call(&Scale { count: 6 });
    become_modes(&pool, 4, 2);
    for worker in pool.workers().into_iter().filter(|worker| worker.mode == "docker") {
        signal(worker.pid, Signal::SIGKILL);
        wait_until("it is replaced", || pool.workers().iter().all(|other| other.id != worker.id));
        become_modes(&pool, 4, 2);
    }
    pool.call(&Scale { count: 2 });
    become_modes(&pool, 1, 1);
    pool.call(&Scale { count: 1 });
    become_modes(&pool, 1, 0);
    // Nobody is there for it, and it takes nobody's place until somebody is.
    let waits = pool.submit_spec(asking(Isolation::Docker, more::command(&["true"])));
    assert_eq!(why(&pool, waits).1, "no worker of this pool takes docker tasks");
    assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed);
    pool.call(&Scale { count: 3 });
    assert_eq!(pool.wait(waits).state, TaskState::Completed);
    become_modes(&pool, 2, 1);
    for kind in ["worker-created", "worker-started"] {
        let told = events(&pool, kind);
        let docker = told.iter().filter(|event| event.data.as_ref().unwrap().get().contains(r#""mode":"docker""#));
        assert!((1..told.len()).contains(&docker.count()), "{told:?}");
    }
}

#[test]
fn a_worn_worker_is_followed_by_one_of_its_mode() {
    let engine = MockEngine::new("up");
    let pool = Pool::start(engine.options(3, "docker:2,process:1").config("workers: {recycle: {maxTasks: 1}}"));
    for isolation in [Isolation::Process, Isolation::Docker, Isolation::Process, Isolation::Docker] {
        let task = pool.wait(pool.submit_spec(asking(isolation, more::command(&["true"]))));
        assert_eq!(task.state, TaskState::Completed, "{task:?}");
    }
    wait_until("four were recycled", || events(&pool, "worker-recycled").len() == 4);
    become_modes(&pool, 1, 2);
}

#[test]
fn tasks_run_where_they_ask_to_and_others_in_the_default_mode() {
    let engine = MockEngine::new("up");
    for (mode, default) in [("process:1,docker:1", Isolation::Process), ("docker:1,process:1", Isolation::Docker)] {
        let pool = Pool::start(engine.options(2, mode));
        become_modes(&pool, 1, 1);
        let workers = pool.workers();
        let asks = [None, Some(Isolation::Process), Some(Isolation::Docker)];
        let specs = (0..30).map(|n| TaskSpec { isolation: asks[n % 3], ..more::command(&["true"]) });
        let ids = pool.submit_all(specs.map(entry).collect());
        for (n, id) in ids.into_iter().enumerate() {
            let task = pool.wait(id);
            assert_eq!(task.state, TaskState::Completed, "{task:?}");
            let attempt = only_attempt(&task);
            let wanted = asks[n % 3].unwrap_or(default);
            let worker = workers.iter().find(|worker| worker.id == attempt.worker).unwrap();
            assert_eq!((worker.mode.as_str(), attempt.isolation), (wanted.name(), Some(wanted)));
        }
    }
}

#[test]
fn a_pool_of_one_mode_keeps_what_asks_for_the_other_and_says_so() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let said =
        acode.says(&["task", "submit", "--isolation", "docker", "--image", "acode-test:1", "--", "true"]).expect(0);
    assert!(said.err.contains("this pool has no docker workers"), "{said:?}");
    let id: TaskId = said.out.trim().parse().unwrap();
    assert_eq!(why(&pool, id).0, Some(Waiting::NoWorker { class: "docker".into() }));
    let said = acode.says(&["task", "submit", "--isolation", "process", "--", "true"]).expect(0);
    assert_eq!(said.err, "");
    assert_eq!((pool.status().docker, pool.status().pool.mode.as_str()), (None, "process"));
    assert_eq!(pool.wait(said.out.trim().parse().unwrap()).state, TaskState::Completed);
    assert_eq!(pool.show(id).state, TaskState::Pending, "the other one is not given to anybody");

    let engine = MockEngine::new("up");
    let pool = Pool::start(engine.options(1, "docker"));
    let id = pool.submit_spec(asking(Isolation::Process, more::command(&["true"])));
    assert_eq!(why(&pool, id).1, "no worker of this pool takes process tasks");
}

#[test]
fn a_mixed_pool_whose_engine_is_away_says_so_and_goes_on_with_the_rest() {
    let engine = MockEngine::new("down");
    let pool = Pool::start(engine.options(2, "process:1,docker:1"));
    wait_until("it is known", || events(&pool, "docker-unavailable").len() == 1);
    let docker = pool.status().docker.unwrap();
    assert_eq!((docker.available, docker.fallback.as_str()), (Some(false), "process"));
    assert!(docker.why.unwrap().contains("Cannot connect to the engine"));
    let data = events(&pool, "docker-unavailable").remove(0).data.unwrap();
    assert!(data.get().contains("Cannot connect") && data.get().contains(r#""fallback":"process""#), "{data}");
    let waits = pool.submit_spec(asking(Isolation::Docker, more::command(&["true"])));
    let (waiting, text) = why(&pool, waits);
    assert!(matches!(waiting, Some(Waiting::Docker { .. })), "{waiting:?}");
    assert!(text.starts_with("waits for Docker: ") && text.contains("Cannot connect"), "{text}");
    assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed, "the process worker is not concerned");
    assert!(Acode::of(&pool).ok(&["worker", "status"]).contains("Docker: unavailable since "));
    let metric = || pool.call(&Metrics { text: true }).text.unwrap();
    assert!(metric().contains("\nacode_docker_available 0\n"), "{}", metric());
    assert!(metric().contains("acode_workers_by_mode{mode=\"docker\"} 1"));

    engine.becomes("up");
    let task = pool.wait(waits);
    assert_eq!((task.state, only_attempt(&task).isolation), (TaskState::Completed, Some(Isolation::Docker)));
    assert_eq!(events(&pool, "docker-available").len(), 1);
    assert_eq!(pool.status().docker.unwrap().available, Some(true));
    wait_until("the metrics tell", || metric().contains("\nacode_docker_available 1\n"));
    assert!(pool.log().contains("the container engine is unavailable"));
}

#[test]
fn without_its_engine_a_docker_pool_falls_back_or_waits_as_configured() {
    let engine = MockEngine::new("down");
    let pool = Pool::start(engine.options(1, "docker"));
    let task = pool.wait(pool.submit(&["true"]));
    assert_eq!((task.state, only_attempt(&task).isolation), (TaskState::Completed, Some(Isolation::Process)));
    let pool = Pool::start(engine.options(1, "docker").var("ACODE_DOCKER_FALLBACK", "refuse"));
    wait_until("it is known", || pool.status().docker.is_some_and(|docker| docker.available == Some(false)));
    let waits = pool.submit(&["true"]);
    assert!(matches!(why(&pool, waits).0, Some(Waiting::Docker { .. })));
    engine.becomes("up");
    assert_eq!(only_attempt(&pool.wait(waits)).isolation, Some(Isolation::Docker));
}

#[test]
fn a_pool_that_comes_up_without_its_engine_warns_and_one_that_hangs_is_not_waited_for() {
    let engine = MockEngine::new("down");
    let pool = Pool::prepare(Options::workers(1));
    let acode =
        Acode::of(&pool).var("ACODE_DOCKER_PROGRAM", engine.program()).var("ACODE_DOCKER_IMAGE", "acode-test:1");
    let start = ["worker", "start", "--detach", "--count", "2", "--mode", "process:1,docker:1"];
    let said = acode.says(&start).expect(0);
    assert!(said.err.contains("Docker is not available: ") && said.err.contains("Cannot connect"), "{said:?}");
    acode.ok(&["worker", "stop", "--force"]);
    engine.becomes("up");
    let said = acode.says(&start).expect(0);
    assert!(!said.err.contains("Docker"), "{said:?}");
    acode.ok(&["worker", "stop", "--force"]);
    engine.becomes("hangs");
    let said = acode.says(&start).expect(0);
    assert!(said.err.contains("Docker has not answered yet"), "{said:?}");
    acode.ok(&["worker", "stop", "--force"]);
}

/// Changes what the running pool's configuration says of modes.
fn reload(pool: &Pool, mode: &str) {
    std::fs::write(pool.file("acode.yaml"), format!("workers: {{mode: '{mode}'}}\n")).unwrap();
    pool.call(&Reload {});
}

#[test]
fn other_modes_in_a_reloaded_configuration_exchange_workers_after_their_tasks() {
    let engine = MockEngine::new("up");
    let pool = Pool::start(engine.options_by_file(3).config("workers: {mode: 'process:3'}"));
    become_modes(&pool, 3, 0);
    let runs = pool.submit_spec(gated(&pool, "gate"));
    let first = pool.worker_of(runs);
    let waits = pool.submit_spec(asking(Isolation::Docker, more::command(&["true"])));
    reload(&pool, "docker:3");
    let task = pool.wait(waits);
    assert_eq!(only_attempt(&task).isolation, Some(Isolation::Docker), "{task:?}");
    assert_eq!(pool.show(runs).state, TaskState::Running, "who is busy is not interrupted");
    assert!(pool.workers().iter().any(|worker| worker.id == first.id));
    open_gate(&pool, "gate");
    assert_eq!(only_attempt(&pool.wait(runs)).worker, first.id);
    become_modes(&pool, 0, 3);
    let why = events(&pool, "worker-recycled").into_iter().map(|event| event.data.unwrap().get().to_owned());
    assert_eq!(why.collect::<Vec<_>>(), [r#"{"value":"docker","why":"mode"}"#; 3]);
    reload(&pool, "process:2,docker:1");
    become_modes(&pool, 2, 1);
    let task = pool.wait(pool.submit(&["true"]));
    assert_eq!(only_attempt(&task).isolation, Some(Isolation::Process), "the default has changed, too");
}

#[test]
fn a_lost_attempt_has_the_isolation_of_its_worker() {
    let engine = MockEngine::new("up");
    let mut pool = Pool::start(engine.options(2, "docker:1,process:1"));
    become_modes(&pool, 1, 1);
    // What is in a container is known to run when it says something: a mock has no cgroup to be seen by.
    let speaks = common::shell(r#"echo; while [ ! -e "$1" ]; do sleep 0.02; done"#, &[&pool.path("gate")]);
    let ids = pool.submit_all(vec![entry(asking(Isolation::Process, speaks.clone())), entry(speaks)]);
    for id in &ids {
        reaches(&pool, *id, TaskState::Running);
        signal(pool.worker_of(*id).pid, Signal::SIGKILL);
        wait_until("it is lost", || pool.show(*id).attempts.is_some_and(|attempts| !attempts.is_empty()));
        reaches(&pool, *id, TaskState::Running);
    }
    pool.kill9();
    pool.restart();
    open_gate(&pool, "gate");
    for (id, isolation) in ids.into_iter().zip([Isolation::Process, Isolation::Docker]) {
        let task = pool.wait(id);
        let told: Vec<_> = task.attempts.iter().flatten().map(|attempt| attempt.isolation).collect();
        assert_eq!(told, [Some(isolation); 3], "{task:?}");
        assert_eq!(verdict(&task), "exited");
    }
}

#[test]
fn containers_that_nobody_owns_are_looked_for_at_the_start_after_deaths_and_from_time_to_time() {
    let engine = MockEngine::new("up");
    let pool = Pool::start(engine.options(3, "process:1,docker:2"));
    wait_until("there is a look at the start", || engine.calls("ps") == 1);
    let victim = pool.workers().into_iter().find(|worker| worker.mode == "docker").unwrap();
    signal(victim.pid, Signal::SIGKILL);
    wait_until("and one after a death", || engine.calls("ps") == 2);
    drop(pool);
    let pool = Pool::start(engine.options(1, "docker").var("ACODE_DOCKER_SWEEP_INTERVAL_SECONDS", "1"));
    wait_until("and more from time to time", || engine.calls("ps") >= 5);
    drop(pool);
    // A pool that has no docker workers any more looks as long as there is a mark.
    let pool = Pool::prepare(engine.options(1, "process"));
    let marks = pool.state_dir().join("containers");
    std::fs::create_dir_all(&marks).unwrap();
    std::fs::write(marks.join("01M3250V000000NG6Y00000007.cid"), "").unwrap();
    let mut pool = pool;
    let before = engine.calls("ps");
    pool.restart();
    wait_until("the mark is gone", || std::fs::read_dir(&marks).unwrap().next().is_none());
    assert_eq!(engine.calls("ps"), before + 1);
}
