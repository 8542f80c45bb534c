//! What a service manager is told, and what of its own stays with the supervisor: systemd's notification protocol against a
//! socket of the test's.
//!
//! Deliberately absent: systemd itself, which `systemd.rs` has.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use acode_worker::sys::clock;
use acode_worker::task::TaskState;
use command::Acode;
use common::{Options, PATIENCE, Pool, signal, wait_until};
use more::{gated, open_gate, output_of, reaches};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, setsockopt, sockopt};

/// A datagram, with who sent it.
#[derive(Debug, Clone)]
struct Heard {
    pid: i32,
    text: String,
}

impl Heard {
    /// The value of one of its variables.
    fn value(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

/// A service manager, as far as it listens.
struct Manager {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
    name: String,
}

impl Manager {
    fn at_a_path() -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let path = folder.path().join("notify");
        Self::listening(UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned(), folder)
    }

    fn abstract_one() -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let name = folder.path().to_str().unwrap().to_owned();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::listening(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"), folder)
    }

    fn listening(socket: UnixDatagram, name: String, folder: tempfile::TempDir) -> Self {
        setsockopt(&socket, sockopt::PassCred, &true).unwrap();
        Self { socket, _folder: folder, name }
    }

    /// A pool that it starts.
    fn options(&self, workers: u32) -> Options {
        Options::workers(workers).var("NOTIFY_SOCKET", &self.name)
    }

    /// The next datagram, if one comes in time.
    fn hear(&self, patience: Duration) -> Option<Heard> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 4096];
        let mut credentials = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<UnixAddr>(fd, &mut parts, Some(&mut credentials), MsgFlags::empty()).ok()?;
        let pid = message.cmsgs().unwrap().find_map(|part| match part {
            ControlMessageOwned::ScmCredentials(who) => Some(who.pid()),
            _ => None,
        });
        let length = message.bytes;
        Some(Heard { pid: pid.unwrap(), text: String::from_utf8(bytes[..length].to_vec()).unwrap() })
    }

    /// Waits for a datagram that has this variable with a value that is right, and gives all up to it.
    #[track_caller]
    fn hears_where(&self, name: &str, right: impl Fn(&str) -> bool) -> Vec<Heard> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Some(heard) = self.hear(left) else { continue };
            let found = heard.value(name).is_some_and(&right);
            all.push(heard);
            if found {
                return all;
            }
        }
        panic!("no {name} as expected in {all:#?}");
    }

    #[track_caller]
    fn hears(&self, name: &str, value: &str) -> Vec<Heard> {
        self.hears_where(name, |seen| seen == value)
    }

    /// Takes what has come.
    fn forget(&self) {
        while self.hear(Duration::ZERO).is_some() {}
    }
}

#[test]
fn it_is_told_by_the_main_process_when_the_pool_accepts_work() {
    for manager in [Manager::at_a_path(), Manager::abstract_one()] {
        let mut pool = Pool::prepare(manager.options(1));
        pool.launch();
        let heard = manager.hears("READY", "1");
        pool.status();
        assert!(heard[0].value("EXTEND_TIMEOUT_USEC").is_some(), "a start may have to wait for old workers: {heard:?}");
        assert!(heard.iter().all(|heard| heard.pid as u32 == pool.pid()), "{heard:?}");
    }
}

#[test]
fn its_status_line_follows_the_pool() {
    let manager = Manager::at_a_path();
    let pool = Pool::start(manager.options(2));
    manager.hears("STATUS", "2 workers, 0 busy, 0 queued");
    let ids: Vec<_> = (0..5).map(|_| pool.submit_spec(gated(&pool, "gate"))).collect();
    manager.hears("STATUS", "2 workers, 2 busy, 3 queued");
    let began = Instant::now();
    open_gate(&pool, "gate");
    ids.into_iter().for_each(|id| drop(pool.wait(id)));
    let heard = manager.hears("STATUS", "2 workers, 0 busy, 0 queued");
    // What changes many times within a second is told once.
    assert!(heard.len() as u64 <= began.elapsed().as_secs() + 2, "{heard:?}");
    assert!(Acode::of(&pool).says(&["worker", "pause"]).code == Some(0));
    manager.hears_where("STATUS", |status| status.starts_with("paused: "));
    Acode::of(&pool).ok(&["worker", "resume"]);
}

#[test]
fn the_loop_gives_signs_of_life_and_a_stopped_one_none() {
    let manager = Manager::at_a_path();
    let pool = Pool::start(manager.options(1).var("WATCHDOG_USEC", "1000000"));
    let began = Instant::now();
    for _ in 0..6 {
        manager.hears("WATCHDOG", "1");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "one each half second: {:?}", began.elapsed());
    signal(pool.pid(), Signal::SIGSTOP);
    wait_until("it is stopped", || fs::read_to_string(format!("/proc/{}/stat", pool.pid())).unwrap().contains(") T "));
    manager.forget();
    assert!(manager.hear(Duration::from_secs(2)).is_none());
    signal(pool.pid(), Signal::SIGCONT);
    manager.hears("WATCHDOG", "1");
}

#[test]
fn the_watchdog_of_another_process_is_none_of_ours() {
    let manager = Manager::at_a_path();
    let pool = Pool::start(manager.options(1).var("WATCHDOG_USEC", "100000").var("WATCHDOG_PID", "1"));
    manager.hears_where("STATUS", |_| true);
    pool.wait(pool.submit(&["sleep", "1"]));
    while let Some(heard) = manager.hear(Duration::ZERO) {
        assert!(heard.value("WATCHDOG").is_none(), "{heard:?}");
    }
}

#[test]
fn a_manager_that_does_not_read_keeps_nobody_busy_or_waiting() {
    let manager = Manager::at_a_path();
    let pool = Pool::start(manager.options(1).var("WATCHDOG_USEC", "20000"));
    // The kernel keeps a few datagrams for it, and then no more.
    let ticks = || procfs::process::Process::new(pool.pid() as i32).unwrap().stat().unwrap();
    pool.wait(pool.submit(&["sleep", "1"]));
    let before = ticks();
    pool.wait(pool.submit(&["sleep", "2"]));
    let after = ticks();
    let spent = after.utime + after.stime - before.utime - before.stime;
    assert!(spent < procfs::ticks_per_second(), "{spent} ticks in two seconds");
    // What matters is told when it reads again.
    signal(pool.pid(), Signal::SIGHUP);
    manager.hears_where("RELOADING", |value| value == "1");
    manager.hears("READY", "1");
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end() {
    let manager = Manager::at_a_path();
    let pool = Pool::start(manager.options(1));
    manager.hears("READY", "1");
    let reload = |how: &dyn Fn()| {
        let before_us = clock::monotonic_ns() / 1_000;
        how();
        let heard = manager.hears("RELOADING", "1");
        let at_us: u64 = heard.last().unwrap().value("MONOTONIC_USEC").unwrap().parse().unwrap();
        assert!((before_us..=clock::monotonic_ns() / 1_000).contains(&at_us), "{at_us}");
        manager.hears("READY", "1");
    };
    reload(&|| signal(pool.pid(), Signal::SIGHUP));
    let acode = Acode::of(&pool);
    reload(&|| drop(acode.says(&["worker", "reload"]).expect(0)));
    fs::write(pool.file("acode.yaml"), "workers:\n  cuont: 1\n").unwrap();
    reload(&|| signal(pool.pid(), Signal::SIGHUP));
    reload(&|| {
        let said = acode.says(&["worker", "reload"]).expect(1);
        assert!(said.err.contains("acode.yaml:2:3"), "{said:?}");
    });
    pool.wait(pool.submit(&["true"]));
}

#[test]
fn a_stop_is_told_and_asks_for_more_time_as_long_as_it_may_take() {
    let manager = Manager::at_a_path();
    let config = "workers:\n  drainTimeoutSeconds: 20\n  killGraceMs: 1000";
    let mut pool = Pool::start(manager.options(1).config(config));
    let id = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, id, TaskState::Running);
    signal(pool.pid(), Signal::SIGTERM);
    manager.hears("STOPPING", "1");
    let micros =
        |heard: Vec<Heard>| heard.last().unwrap().value("EXTEND_TIMEOUT_USEC").unwrap().parse::<u64>().unwrap();
    let first = micros(manager.hears_where("EXTEND_TIMEOUT_USEC", |_| true));
    let second = micros(manager.hears_where("EXTEND_TIMEOUT_USEC", |_| true));
    // Bounded spans, and the later the less: 20 s of patience, 3 s to give the task back, 10 s for the rest.
    assert!(first <= 30_000_000 && second < first, "{first} us, then {second} us");
    open_gate(&pool, "gate");
    assert!(pool.wait_exit().success());
    pool.restart();
    assert_eq!((pool.wait(id).state, pool.show(id).attempt_count), (TaskState::Completed, 1));
}

#[test]
fn what_it_hands_over_stays_with_the_supervisor() {
    let manager = Manager::at_a_path();
    let handed = [
        ("WATCHDOG_USEC", "3600000001"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", "handed-pid"),
        ("LISTEN_FDNAMES", "handed-names"),
        ("JOURNAL_STREAM", "8:handed"),
        ("INVOCATION_ID", "handed-invocation"),
        ("SYSTEMD_EXEC_PID", "handed-exec"),
    ];
    let options = handed.iter().fold(manager.options(1), |options, (name, value)| options.var(name, *value));
    let pool = Pool::start(options.var("KEPT", "yes").config("tasks:\n  environment:\n    allow: ['*']"));
    let seen = output_of(&pool, more::command(&["cat", "/proc/self/environ"]));
    assert!(seen.split('\0').any(|pair| pair == "KEPT=yes"), "everything is allowed: {seen}");
    for name in handed.map(|(name, _)| name).into_iter().chain(["NOTIFY_SOCKET"]) {
        assert!(!seen.contains(&format!("{name}=")), "{name} in {seen}");
    }
    // The nursery and the workers are forked off the supervisor, and show what the kernel put there for it.
    let values = handed.iter().map(|(_, value)| *value).filter(|value| value.len() > 1).chain([manager.name.as_str()]);
    let values: Vec<&str> = values.collect();
    for pid in [pool.nursery(), pool.workers()[0].pid, pool.pid()] {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environ = String::from_utf8_lossy(&environ);
        let left: Vec<_> = values.iter().filter(|value| environ.contains(**value)).collect();
        assert!(left.is_empty(), "{left:?} of process {pid}");
    }
}

#[test]
fn a_pool_in_the_background_is_no_service() {
    let manager = Manager::at_a_path();
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool).var("NOTIFY_SOCKET", &manager.name);
    acode.ok(&["worker", "start", "--detach", "--count", "1"]);
    acode.ok(&["worker", "status"]);
    acode.ok(&["worker", "stop"]);
    acode.ok(&["run", "--", "true"]);
    assert!(manager.hear(Duration::ZERO).is_none());
}

#[test]
fn a_socket_that_is_not_there_hinders_nobody() {
    for name in ["/nonexistent/notify", "vsock:2:1", "nonsense"] {
        let pool = Pool::start(Options::workers(1).var("NOTIFY_SOCKET", name).var("WATCHDOG_USEC", "1000000"));
        assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed);
        assert!(pool.log().contains("service manager cannot be told"), "{}", pool.log());
    }
}
