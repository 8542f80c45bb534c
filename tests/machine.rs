//! The QEMU machine of `scripts/vm` is what the other tests take it for.
//!
//! A test that finds less than it needs there would prove less than it says. Deliberately absent: acode's limits, which
//! have tests of their own.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use acode_worker::task::TaskState;
use common::engine::Engine;
use common::place::in_machine;
use common::{Options, Pool, scaled};
use std::time::Duration;

/// What a command says; it must succeed.
fn said(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn read(path: impl Into<PathBuf>) -> String {
    let path = path.into();
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn systemd_is_its_init_and_all_controllers_are_delegated() {
    if !in_machine("the machine's systemd and cgroups") {
        return;
    }
    assert_eq!(read("/proc/1/comm"), "systemd\n");
    assert_eq!(said(&["stat", "-f", "-c", "%T", "/sys/fs/cgroup"]), "cgroup2fs\n");
    let delegated = PathBuf::from(std::env::var_os("ACODE_TEST_CGROUP").unwrap());
    let given = read(delegated.join("cgroup.subtree_control"));
    for controller in ["cpu", "memory", "io", "pids"] {
        assert!(given.split_whitespace().any(|name| name == controller), "{controller} is not among '{given}'");
    }
    assert_eq!(said(&["systemctl", "show", "-P", "Delegate", "acode-machine.service"]), "yes\n");
}

#[test]
fn a_limit_written_there_is_held() {
    if !in_machine("the machine's memory limit") {
        return;
    }
    let place = common::place::Delegated::make().unwrap();
    fs::write(place.path().join("memory.max"), "16M").unwrap();
    let hungry = place.command("sh").args(["-c", "x=$(head -c 64M /dev/zero | tr '\\0' x)"]).status().unwrap();
    assert!(!hungry.success(), "64 MiB in 16");
    let events = read(place.path().join("memory.events"));
    assert!(events.lines().any(|line| line.starts_with("oom_kill ") && line != "oom_kill 0"), "{events}");
}

#[test]
fn a_file_system_with_project_quotas_is_mounted() {
    if !in_machine("the machine's project quotas") {
        return;
    }
    let mounts = read("/proc/self/mountinfo");
    let mounted = mounts.lines().find(|line| line.contains(" /var/lib/acode-quota ")).expect("it is not mounted");
    assert!(mounted.contains("prjquota"), "{mounted}");
}

#[test]
fn an_unprivileged_user_has_a_manager_that_delegates() {
    if !in_machine("the machine's user manager") {
        return;
    }
    let scope = "systemd-run --user --scope --quiet -p Delegate=yes cat /proc/self/cgroup";
    let environment = ["XDG_RUNTIME_DIR=/run/user/1000", "sh", "-c", scope];
    let own = said(&[["runuser", "-u", "tester", "--", "env"].as_slice(), &environment].concat());
    assert!(own.contains("/user@1000.service/") && own.trim_end().ends_with(".scope"), "{own}");
}

#[test]
fn a_docker_engine_starts() {
    let Some(engine) = Engine::of_system() else { return };
    assert!(engine.answers());
}

#[test]
fn a_pool_is_born_in_a_cgroup_of_its_own_and_runs_a_task() {
    if !in_machine("a pool in a delegated cgroup") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit(&["cat", "/proc/self/cgroup"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let delegated = std::env::var("ACODE_TEST_CGROUP").unwrap();
    let own = read(format!("/proc/{}/cgroup", pool.pid()));
    let own = own.trim_end().strip_prefix("0::").unwrap();
    let below = delegated.strip_prefix("/sys/fs/cgroup").unwrap();
    assert!(own.starts_with(&format!("{below}/pool-")), "{own}");
}

#[test]
fn deadlines_are_longer_where_all_is_slow() {
    let slowness: u32 = std::env::var("ACODE_TEST_SLOWNESS").map_or(1, |text| text.parse().unwrap());
    assert_eq!(scaled(Duration::from_secs(3)), Duration::from_secs(3) * slowness);
}
