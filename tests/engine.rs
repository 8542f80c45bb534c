//! The engine that the tests of containers stand on: it starts, runs, holds limits, fails on demand, and leaves nothing.
//!
//! Deliberately absent: acode's own use of it.

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::engine::{Cli, Engine, HangingSocket};
use common::{PATIENCE, daemon, eventually, is_alive, signal, wait_until};
use nix::sys::signal::Signal;

/// A container of the image without a network.
fn run<'a>(engine: &'a Engine, flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--pull=never", "--network", "none"], flags, &[engine.image()], command].concat()
}

/// Starts one that runs for long, and gives its id.
fn sleeper(engine: &Engine, flags: &[&str]) -> String {
    engine.docker(&run(engine, &[&["--detach", "--init"], flags].concat(), &["sleep", "10000"]))
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The pid of a container's first process, in the eyes of this machine.
fn pid_of(engine: &Engine, id: &str) -> u32 {
    engine.inspect(id, "{{.State.Pid}}").parse().unwrap()
}

#[test]
fn a_container_runs_and_its_limits_are_held() {
    let began = Instant::now();
    let Some(engine) = Engine::start() else { return };
    println!("an engine is up after {:?}", began.elapsed());
    assert_eq!(engine.docker(&run(&engine, &["--rm"], &["echo", "hello"])), "hello");
    let user = ["--rm", "--user", "1000:1000", "--read-only", "--cap-drop", "ALL", "--init", "--log-driver", "none"];
    let whoami = "id -un; touch /x 2>/dev/null || echo cannot; cat /proc/1/comm";
    assert_eq!(engine.docker(&run(&engine, &user, &["sh", "-c", whoami])), "tester\ncannot\ndocker-init");
    let tmp = ["--rm", "--user", "1000:1000"];
    assert_eq!(engine.docker(&run(&engine, &tmp, &["sh", "-c", "echo x >/tmp/x && cat /tmp/x"])), "x");
    let limits = ["--rm", "--memory", "32m", "--memory-swap", "32m", "--cpus", "0.5", "--pids-limit", "20"];
    let read =
        "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes pids.max pids/pids.max 2>/dev/null; true";
    let seen = engine.docker(&run(&engine, &limits, &["sh", "-c", read]));
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["33554432", "20"]);
    // By effect: more than the limit is not to be had.
    let hog = engine.try_docker(&run(&engine, &limits, &["tail", "/dev/zero"]));
    assert_eq!(hog.status.code(), Some(137), "{hog:?}");
    assert_eq!(engine.containers(), [""; 0]);
}

#[test]
fn containers_are_found_by_their_labels() {
    let Some(engine) = Engine::start() else { return };
    let ours = sleeper(&engine, &["--label", "acode.pool=aa", "--name", "ours"]);
    let other = engine.docker(&["create", "--label", "acode.pool=bb", engine.image(), "true"]);
    assert_eq!(engine.containers_labelled("acode.pool=aa"), std::slice::from_ref(&ours));
    assert_eq!(engine.containers_labelled("acode.pool").len(), 2);
    assert_eq!(engine.running(), std::slice::from_ref(&ours));
    assert!(engine.containers().contains(&other));
    assert_eq!(engine.inspect("ours", "{{.State.Running}} {{.Name}}"), "true /ours");
}

#[test]
fn a_daemon_that_is_killed_leaves_its_containers_and_comes_back() {
    let Some(mut engine) = Engine::start() else { return };
    let id = sleeper(&engine, &[]);
    let pid = pid_of(&engine, &id);
    let mut attached = spawn(&mut engine.command(&run(&engine, &["--init"], &["sleep", "10000"])));
    wait_until("it runs", || engine.running().len() == 2);
    engine.kill_daemon();
    assert!(!engine.answers() && engine.daemon_pid().is_none());
    assert!(is_alive(pid), "the container runs on");
    // The command line that was attached has lost its container, and says so.
    assert!(!attached.wait().unwrap().success());
    assert!(!engine.try_docker(&["version"]).status.success());
    engine.restart();
    // Without --live-restore the new daemon ends what ran.
    wait_until("it is ended", || engine.running().is_empty() && !is_alive(pid));
    assert_eq!(engine.containers().len(), 2);
    assert_eq!(engine.inspect(&id, "{{.State.Status}}"), "exited");
    assert_eq!(engine.docker(&run(&engine, &["--rm"], &["echo", "again"])), "again");
}

#[test]
fn a_daemon_that_restores_finds_its_containers_running() {
    let Some(mut engine) = Engine::start_with(&["--live-restore"]) else { return };
    let id = sleeper(&engine, &[]);
    let pid = pid_of(&engine, &id);
    engine.kill_daemons();
    assert!(is_alive(pid));
    engine.restart();
    assert_eq!((engine.running(), pid_of(&engine, &id)), (vec![id], pid));
}

#[test]
fn a_daemon_that_is_stopped_stops_its_containers() {
    let Some(mut engine) = Engine::start() else { return };
    let id = sleeper(&engine, &[]);
    let pid = pid_of(&engine, &id);
    engine.stop_daemon();
    assert!(!is_alive(pid) && !engine.answers());
    engine.restart();
    assert_eq!(engine.inspect(&id, "{{.State.Status}}"), "exited");
}

#[test]
fn a_frozen_daemon_hangs_until_it_is_thawed() {
    let Some(engine) = Engine::start() else { return };
    engine.freeze();
    let mut call = spawn(&mut engine.command(&["version"]));
    // It is not told apart from a slow one but by a deadline.
    assert!(!engine.answers());
    assert!(call.try_wait().unwrap().is_none(), "it hangs");
    engine.thaw();
    assert!(call.wait().unwrap().success());
    assert!(engine.answers());
}

#[test]
fn calls_are_noted_and_can_be_made_to_fail() {
    let Some(engine) = Engine::start() else { return };
    let cli = engine.recording_cli();
    let calls = |cli: &Cli, arguments: &[&str]| {
        let mut command = Command::new(cli.program());
        command.args(arguments).envs(engine.env()).output().unwrap().status.code()
    };
    assert_eq!(calls(&cli, &["ps", "--filter", "label=a b", ""]), Some(1), "that is one argument too many");
    assert_eq!(calls(&cli, &["version"]), Some(0));
    assert_eq!(cli.calls(), [vec!["ps", "--filter", "label=a b", ""], vec!["version"]]);
    let broken = engine.scripted_cli("[ \"$1\" != run ] || exit 125");
    assert_eq!(calls(&broken, &["version"]), Some(0));
    assert_eq!(calls(&broken, &["run", engine.image(), "true"]), Some(125));
    assert_eq!(broken.calls_of("run"), [["run", engine.image(), "true"]]);
}

#[test]
fn a_hanging_socket_accepts_and_never_answers() {
    let hanging = HangingSocket::start();
    assert!(!daemon::answers(&hanging.socket()));
    assert_eq!(hanging.accepted(), 1);
    if !Command::new("docker").arg("--version").output().is_ok_and(|told| told.status.success()) {
        eprintln!("skipped: the command line at a hanging socket: 'docker' is not installed");
        return;
    }
    let mut call = spawn(Command::new("docker").arg("version").envs(hanging.env()));
    wait_until("it has connected", || hanging.accepted() >= 2);
    assert!(call.try_wait().unwrap().is_none());
    call.kill().unwrap();
    call.wait().unwrap();
}

/// What of an engine with this folder could be in the world, sought without the engine's own means of finding it.
fn traces(folder: &Path, pids: &[u32], ids: &[String]) -> Vec<String> {
    let mut traces: Vec<String> = pids.iter().filter(|pid| is_alive(**pid)).map(|pid| format!("pid {pid}")).collect();
    let name = folder.file_name().unwrap().to_str().unwrap();
    let sought: Vec<&str> = ids.iter().map(String::as_str).chain([name]).collect();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        traces.extend(sought.iter().any(|sought| words.contains(sought)).then_some(words));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    let found = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", name]).output().unwrap().stdout;
    traces.extend(String::from_utf8_lossy(&found).lines().map(str::to_owned));
    traces.extend(folder.exists().then(|| folder.display().to_string()));
    traces
}

/// The sockets of all shims, of other engines too.
fn shim_sockets() -> Vec<PathBuf> {
    fs::read_dir("/run/containerd/s").into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Runs containers, has their daemon end in this way, and looks at what is left.
fn leaves_nothing(how: impl FnOnce(&mut Engine)) {
    let Some(mut engine) = Engine::start() else { return };
    let folder = engine.folder().to_owned();
    let before = shim_sockets();
    let ids = vec![sleeper(&engine, &["--memory", "64m"]), sleeper(&engine, &["--tmpfs", "/tmp"])];
    engine.docker(&run(&engine, &[], &["true"]));
    engine.docker(&["pause", &ids[1]]);
    let pids: Vec<u32> = ids.iter().map(|id| pid_of(&engine, id)).chain(engine.daemon_pid()).collect();
    let sockets: Vec<PathBuf> = shim_sockets().into_iter().filter(|path| !before.contains(path)).collect();
    assert!(sockets.len() >= 2 && engine.remains().len() > 8, "{sockets:?} {:?}", engine.remains());
    assert!(traces(&folder, &pids, &ids).len() > 8);
    let ended = catch_unwind(AssertUnwindSafe(move || {
        how(&mut engine);
        drop(engine);
    }));
    drop(ended);
    assert_eq!(traces(&folder, &pids, &ids), [""; 0]);
    assert_eq!(daemon::remains(&folder), [""; 0]);
    // Those of others come and go.
    let left = || sockets.iter().filter(|path| path.exists()).count();
    assert!(eventually(PATIENCE, || left() == 0 || left() < sockets.len() && sockets.len() > 2), "{sockets:?}");
}

#[test]
fn an_engine_leaves_nothing() {
    leaves_nothing(|_| ());
}

#[test]
fn an_engine_leaves_nothing_after_its_daemons_were_killed() {
    leaves_nothing(Engine::kill_daemons);
}

#[test]
fn an_engine_leaves_nothing_while_it_is_frozen() {
    leaves_nothing(|engine| engine.freeze());
}

#[test]
fn an_engine_leaves_nothing_when_its_test_panics() {
    leaves_nothing(|_| panic!("as a test that fails"));
}

/// Not a test by itself: the one below kills it.
#[test]
#[ignore = "run by the test of what a killed process leaves"]
fn an_engine_of_a_process_that_is_killed() {
    if std::env::var_os("ACODE_TEST_VICTIM").is_none() {
        return;
    }
    let Some(engine) = Engine::start() else { return };
    let id = sleeper(&engine, &[]);
    println!("engine {} {}", engine.folder().display(), pid_of(&engine, &id));
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn what_a_killed_process_leaves_is_swept_by_the_next_engine() {
    use std::io::{BufRead, BufReader};
    let Some(engine) = Engine::start() else { return };
    drop(engine);
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--ignored", "--exact", "an_engine_of_a_process_that_is_killed", "--nocapture"]);
    let mut victim = victim.env("ACODE_TEST_VICTIM", "1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.find_map(|line| line.split_once("engine ").map(|(_, told)| told.to_owned())).unwrap();
    let (folder, pid) = told.split_once(' ').unwrap();
    let (folder, pid) = (Path::new(folder), pid.trim().parse().unwrap());
    signal(victim.id(), Signal::SIGKILL);
    victim.wait().unwrap();
    assert!(is_alive(pid) && folder.exists());
    let _next = Engine::start().unwrap();
    // Another test's engine may be about it just now.
    wait_until("it is swept", || !is_alive(pid) && !folder.exists());
    assert_eq!(traces(folder, &[pid], &[]), [""; 0]);
}

#[test]
fn the_system_engine_runs_containers_by_the_cgroup_driver_of_systemd() {
    let Some(mut engine) = Engine::of_system() else { return };
    assert_eq!(engine.docker(&["info", "--format", "{{.CgroupDriver}} {{.CgroupVersion}}"]), "systemd 2");
    let limits = ["--rm", "--memory", "32m", "--memory-swap", "32m", "--pids-limit", "20"];
    let read = ["sh", "-c", "cd /sys/fs/cgroup; cat memory.max pids.max"];
    assert_eq!(engine.docker(&run(&engine, &limits, &read)), "33554432\n20");
    let id = sleeper(&engine, &[]);
    let pid = pid_of(&engine, &id);
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.trim_end().ends_with(&format!("/system.slice/docker-{id}.scope")), "{cgroup}");
    engine.stop_daemon();
    assert!(!engine.answers() && !is_alive(pid));
    engine.restart();
    engine.freeze();
    assert!(!engine.answers());
    engine.thaw();
    let old = engine.daemon_pid();
    engine.kill_daemon();
    wait_until("systemd has started it again", || engine.daemon_pid().is_some_and(|pid| Some(pid) != old));
    wait_until("it answers", || engine.answers());
    assert_eq!(engine.containers(), [id]);
    drop(engine);
    assert!(!daemon::answers(Path::new("/run/docker.sock")));
}
