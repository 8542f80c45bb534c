//! `acode doctor`: it says what the host offers, changes nothing, and its exit code says whether that is enough.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/mock_engine.rs"]
mod mock_engine;

use std::fs;
use std::time::Instant;

use command::Acode;
use common::{Options, PATIENCE, Pool};
use mock_engine::MockEngine;
use serde_json::Value;

/// What every host is looked at for.
const CHECKS: [&str; 27] = [
    "kernel",
    "clone3",
    "pidfd",
    "openat2",
    "pressure",
    "clock",
    "cgroup",
    "controllers",
    "delegation",
    "cgroup.kill",
    "user namespaces",
    "landlock",
    "seccomp",
    "sandbox network",
    "sandbox filesystem",
    "sandbox devices",
    "sandbox user",
    "signals",
    "open files",
    "state directory",
    "file system",
    "free space",
    "project quota",
    "loop devices",
    "disk limits",
    "systemd",
    "docker",
];

fn report(said: &str) -> Value {
    serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn the_doctor_looks_at_everything_and_changes_nothing() {
    let pool = Pool::prepare(Options::workers(1));
    let home = pool.state_dir().parent().unwrap().to_owned();
    let files = || command::entries(&home);
    let (before, began) = (files(), Instant::now());
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap();
    let document = report(&Acode::of(&pool).says(&["--json", "doctor"]).out);
    assert!(began.elapsed() < PATIENCE, "nothing is waited for without a bound");
    assert_eq!((files(), fs::read_to_string("/proc/self/cgroup").unwrap()), (before, cgroup));
    assert_eq!(document["schema"], 1);
    let checks = document["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(names, CHECKS);
    for check in checks {
        let verdict = check["verdict"].as_str().unwrap();
        assert!(["ok", "note", "bad"].contains(&verdict), "{check}");
        assert_eq!(check["remedy"].is_string(), verdict != "ok", "{check}");
        assert!(check["found"].as_str().is_some_and(|found| !found.is_empty()), "{check}");
    }
    let bad = checks.iter().any(|check| check["verdict"] == "bad");
    assert_eq!(document["healthy"], !bad);
}

#[test]
fn people_get_a_table_and_what_helps() {
    let pool = Pool::prepare(Options::workers(1));
    let said = Acode::of(&pool).says(&["doctor"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines[0].starts_with("CHECK") && lines[0].contains("VERDICT") && lines[0].ends_with("FOUND"), "{said:?}");
    for check in CHECKS {
        assert!(lines.iter().any(|line| line.starts_with(check)), "{check}: {said:?}");
    }
    let last = lines.last().unwrap();
    assert_eq!(*last == "All that is asked for can be had.", said.code == Some(0), "{said:?}");
    assert_eq!(said.err, "");
}

#[test]
fn limits_are_told_as_they_would_be_held_and_one_that_nothing_holds_is_a_failure() {
    let pool = Pool::prepare(Options::workers(1));
    let file = pool.file("limits.yaml");
    fs::write(&file, "workers:\n  limits:\n    cpuPercent: 50\n    memoryMb: 64\n    diskMb: 10\n").unwrap();
    let said = Acode::of(&pool).says(&["--json", "doctor", "--config", file.to_str().unwrap()]);
    let document = report(&said.out);
    let limits = document["limits"].as_array().unwrap();
    let held: Vec<(&str, u64)> =
        limits.iter().map(|held| (held["limit"].as_str().unwrap(), held["value"].as_u64().unwrap())).collect();
    assert_eq!(held, [("cpuPercent", 50), ("memoryMb", 64), ("diskMb", 10)]);
    assert!(limits.iter().all(|held| held["by"].as_str().is_some_and(|by| !by.is_empty())), "{limits:?}");
    let unheld = limits.iter().any(|held| held["hold"] == "none");
    assert!(!unheld || said.code == Some(1), "{document:#}");
    let controllers = document["checks"][7]["found"].as_str().unwrap();
    let (there, _) = controllers.split_once(" (").unwrap_or((controllers, ""));
    let kernel_holds = there.split(' ').any(|name| name == "cpu");
    let expected = if kernel_holds { "enforced" } else { "none" };
    assert_eq!(limits[0]["hold"], expected, "{controllers}");
    let text = Acode::of(&pool).says(&["doctor", "--config", file.to_str().unwrap()]).out;
    assert!(text.contains("cpuPercent") && text.contains(expected), "{text}");
}

#[test]
fn a_directory_that_cannot_be_made_is_a_failure() {
    let pool = Pool::prepare(Options::workers(1));
    fs::write(pool.file("file"), "").unwrap();
    let below = pool.path("file/state");
    let said = Acode::without_state(&pool).says(&["--json", "--state-dir", &below, "doctor"]).expect(1);
    let document = report(&said.out);
    let state =
        document["checks"].as_array().unwrap().iter().find(|check| check["check"] == "state directory").unwrap();
    assert_eq!((&state["verdict"], &document["healthy"]), (&Value::from("bad"), &Value::from(false)), "{state}");
}

#[test]
fn a_broken_configuration_is_no_diagnosis() {
    let pool = Pool::prepare(Options::workers(1));
    let file = pool.file("broken.yaml");
    fs::write(&file, "workers:\n  limit: 3\n").unwrap();
    let said = Acode::of(&pool).says(&["doctor", "--config", file.to_str().unwrap()]).expect(2);
    assert!(said.out.is_empty() && said.err.contains("limit"), "{said:?}");
}

#[test]
fn docker_is_told_with_what_its_engine_holds_or_why_it_does_not_answer() {
    let (pool, engine) = (Pool::prepare(Options::workers(1)), MockEngine::new("up"));
    let acode = Acode::of(&pool).var("ACODE_DOCKER_PROGRAM", engine.program());
    let finding = |acode: &Acode| {
        let document = report(&acode.says(&["--json", "doctor"]).out);
        document["checks"].as_array().unwrap().iter().find(|check| check["check"] == "docker").unwrap().clone()
    };
    let docker = finding(&acode);
    let found = "engine 29.9, rootless, cgroup v2 by systemd, storage overlay2: not held are limits of cpu";
    assert_eq!((docker["verdict"].as_str(), docker["found"].as_str()), (Some("note"), Some(found)));
    assert!(docker["remedy"].as_str().unwrap().contains("Delegate="), "{docker}");
    engine.becomes("down");
    let docker = finding(&acode);
    assert!(docker["found"].as_str().unwrap().ends_with(": Cannot connect to the engine"), "{docker}");
    assert_eq!(docker["verdict"], "note", "nothing needs it");
    let acode = acode.var("ACODE_WORKERS_MODE", "docker");
    assert_eq!(finding(&acode)["verdict"], "bad", "now the configuration does");
    engine.becomes("hangs");
    let began = Instant::now();
    assert!(finding(&acode)["found"].as_str().unwrap().starts_with("the engine did not answer within"));
    assert!(began.elapsed() < PATIENCE);
    let acode = acode.var("ACODE_DOCKER_PROGRAM", "no-such-client");
    assert!(finding(&acode)["found"].as_str().unwrap().starts_with("no client: no-such-client"));
}
