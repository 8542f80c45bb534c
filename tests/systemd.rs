//! acode as a service of systemd: the units, the installation, the package, and a pool that systemd starts, reloads, stops,
//! watches and kills while it works.
//!
//! What takes systemd runs in the machine of `scripts/vm`, as root, and says elsewhere that it does not. Deliberately
//! absent: the notification protocol by itself (`notify.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/service.rs"]
mod service;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use command::{Acode, entries};
use common::{Options, PATIENCE, Pool, eventually, signal, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use service::{Service, installed, root, say, tried};

/// The units as they are in the repository.
fn unit(name: &str) -> String {
    fs::read_to_string(root().join("scripts/systemd").join(name)).unwrap()
}

/// The settings of a unit: its lines without comments.
fn settings(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

// The units.

#[test]
fn the_template_is_the_unit_with_names_of_its_own() {
    let template = unit("acode@.service")
        .replace(" pool %i", " pool")
        .replace("acode-%i", "acode")
        .replace(" --config /etc/acode/%i.yaml --pool %i", "");
    assert_eq!(settings(&template), settings(&unit("acode.service")));
}

#[test]
fn the_units_stop_allows_for_what_a_stop_asks() {
    for name in ["acode.service", "user/acode.service"] {
        let text = unit(name);
        let has = |line: &str| assert!(settings(&text).contains(&line), "{name} has no {line}");
        for line in ["Type=notify", "NotifyAccess=main", "Delegate=yes", "KillMode=mixed", "OOMPolicy=continue"] {
            has(line);
        }
        // It asks for more time every 10 s, for 30 s at a time; before the first word it has this.
        has("TimeoutStopSec=90");
    }
}

#[test]
fn the_unit_is_hardened() {
    let offline = ["--offline=true", "--no-pager", "scripts/systemd/acode.service"];
    let Ok(told) = Command::new("systemd-analyze").arg("security").args(offline).current_dir(root()).output() else {
        return say("there is no systemd-analyze");
    };
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_under_five(&told);
}

/// Takes the figure out of what `systemd-analyze security` says.
#[track_caller]
fn assert_under_five(told: &str) {
    let line = told.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{told}"));
    let figure = line.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    assert!(figure.is_some_and(|figure| figure < 5.0), "{line}");
}

#[test]
fn the_example_configuration_is_one() {
    let text = unit("acode.yaml");
    let body: String =
        text.lines().skip_while(|line| *line != "#").skip(1).map(|line| format!("{}\n", &line[2..])).collect();
    assert!(body.contains("drainTimeoutSeconds"), "{body}");
    let mut pool = Pool::prepare(Options::workers(1).config(&body.replace("127.0.0.1:9464", "127.0.0.1:0")));
    pool.restart();
    pool.wait(pool.submit(&["true"]));
}

// Manual pages and completions.

#[test]
fn every_command_has_a_page_and_shells_understand_their_completions() {
    let pool = Pool::prepare(Options::workers(1));
    // As where a package is built: without a home.
    let acode = Acode::without_state(&pool).var("HOME", "").var("XDG_STATE_HOME", "");
    let written = acode.ok(&["man", "--dir", "pages"]);
    for command in ["acode", "acode-worker-start", "acode-worker-reload", "acode-task-submit", "acode-run", "acode-man"]
    {
        let path = format!("pages/{command}.1");
        assert!(written.lines().any(|line| line == path), "{written}");
        let page = fs::read_to_string(pool.file(&path)).unwrap();
        assert!(page.contains(&format!(".TH {command} 1")), "{page}");
    }
    assert!(acode.ok(&["man"]).contains(".TH acode 1"));
    for (shell, check) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let text = acode.ok(&["completions", shell]);
        assert!(text.contains("completions") && text.contains("when-empty"), "{shell}: {text}");
        let file = pool.file(shell);
        fs::write(&file, text).unwrap();
        match Command::new(check).arg("-n").arg(&file).status() {
            Ok(status) => assert!(status.success(), "{shell} does not read it"),
            Err(_) => say(&format!("there is no {shell} to read its completions")),
        }
    }
    acode.says(&["completions", "tcsh"]).expect(2);
}

// Installation.

/// Every file below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for name in entries(&next) {
            let path = next.join(name);
            if path.is_dir() { open.push(path) } else { found.extend([path]) }
        }
    }
    found
}

fn install(destination: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(root().join("scripts/install"));
    command.args(arguments).env("DESTDIR", destination).env("HOME", "/home/somebody").env_remove("XDG_CONFIG_HOME");
    tried(command.env_remove("XDG_STATE_HOME"))
}

#[test]
fn what_is_installed_is_taken_away_again_but_not_what_belongs_to_people() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    let binary = ["--binary", env!("CARGO_BIN_EXE_acode")];
    install(folder.path(), &binary);
    let unit = fs::read_to_string(at("usr/local/lib/systemd/system/acode.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/acode worker start"), "{unit}");
    assert!(at("usr/local/share/man/man1/acode-task-submit.1.gz").is_file());
    assert!(tried(Command::new(at("usr/local/bin/acode")).arg("--version")).starts_with("acode "));
    // State stays, and so does a configuration that somebody has changed.
    fs::create_dir_all(at("var/lib/acode")).unwrap();
    fs::create_dir_all(at("var/lib/acode-foreign")).unwrap();
    for own in ["var/lib/acode/queue.db", "var/lib/acode-foreign/file", "etc/acode/acode.yaml"] {
        fs::write(at(own), "workers:\n  count: 2\n").unwrap();
    }
    let first = files(folder.path());
    install(folder.path(), &binary);
    assert_eq!(first, files(folder.path()), "a second time changes nothing");
    let said = install(folder.path(), &["--uninstall"]);
    assert!(said.contains("var/lib/acode\n") && said.contains("etc/acode/acode.yaml"), "{said}");
    let left: Vec<PathBuf> = files(folder.path()).into_iter().collect();
    assert_eq!(left, [at("etc/acode/acode.yaml"), at("var/lib/acode/queue.db"), at("var/lib/acode-foreign/file")]);
    install(folder.path(), &["--uninstall", "--purge"]);
    let left: Vec<PathBuf> = files(folder.path()).into_iter().collect();
    assert_eq!(left, [at("var/lib/acode-foreign/file")], "it is no pool's");
}

#[test]
fn another_prefix_has_its_units_where_systemd_looks() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &["--prefix=/opt/acode", "--binary", env!("CARGO_BIN_EXE_acode")]);
    let unit = fs::read_to_string(folder.path().join("etc/systemd/system/acode.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/acode/bin/acode worker start"), "{unit}");
    install(folder.path(), &["--prefix=/opt/acode", "--uninstall"]);
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[test]
fn a_user_installs_for_oneself() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home/somebody");
    install(folder.path(), &["--user", "--binary", env!("CARGO_BIN_EXE_acode")]);
    let unit = fs::read_to_string(home.join(".config/systemd/user/acode.service")).unwrap();
    assert!(unit.contains("ExecStart=/home/somebody/.local/bin/acode worker start"), "{unit}");
    assert!(files(folder.path()).iter().all(|path| path.starts_with(&home)), "{:?}", files(folder.path()));
    fs::create_dir_all(home.join(".local/state/acode")).unwrap();
    assert!(install(folder.path(), &["--user", "--uninstall"]).contains(".local/state/acode"));
    install(folder.path(), &["--user", "--uninstall", "--purge"]);
    assert!(files(folder.path()).is_empty() && !home.join(".local/state/acode").exists());
}

#[test]
fn wrong_arguments_install_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [&["--prefix", "relative"][..], &["--purge"], &["--nonsense"], &["--prefix", "/a b"]] {
        let mut command = Command::new(root().join("scripts/install"));
        assert_eq!(
            command.args(wrong).env("DESTDIR", folder.path()).output().unwrap().status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
    assert!(files(folder.path()).is_empty());
}

/// A Debian package: the one that `ACODE_TEST_DEB` names, or that lies in the repository's folder as `acode-test.deb`, as
/// one does that is handed into a machine without cargo; else one that cargo-deb makes of the program at hand.
fn package(folder: &Path) -> Option<PathBuf> {
    let named = std::env::var_os("ACODE_TEST_DEB").map(PathBuf::from);
    if let Some(path) = named.into_iter().chain([root().join("acode-test.deb")]).find(|path| path.exists()) {
        return Some(path);
    }
    if !Command::new("cargo").args(["deb", "--version"]).output().is_ok_and(|told| told.status.success()) {
        say("there is neither a package ($ACODE_TEST_DEB) nor cargo-deb to make one");
        return None;
    }
    // What scripts/package does, but with the program at hand in the place of one that is built for it.
    let copy = folder.join("tree");
    fs::create_dir(&copy).unwrap();
    let sources = ["Cargo.toml", "Cargo.lock", "src", "worker", "scripts", "docs", "README.md", "LICENSE"];
    tried(Command::new("cp").arg("-a").args(sources).arg(&copy).current_dir(root()));
    let (pages, completions) = (copy.join("target/package/man"), copy.join("target/package/completions"));
    fs::create_dir_all(copy.join("target/release")).unwrap();
    fs::create_dir_all(&completions).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_acode"), copy.join("target/release/acode")).unwrap();
    tried(Command::new(env!("CARGO_BIN_EXE_acode")).arg("man").arg("--dir").arg(pages));
    for (shell, name) in [("bash", "acode"), ("zsh", "_acode"), ("fish", "acode.fish")] {
        let text = tried(Command::new(env!("CARGO_BIN_EXE_acode")).args(["completions", shell]));
        fs::write(completions.join(name), text).unwrap();
    }
    let made = folder.join("acode.deb");
    let options = ["deb", "--locked", "--offline", "--no-build", "--no-strip", "--fast", "-o"];
    tried(Command::new("cargo").args(options).arg(&made).current_dir(&copy).env_remove("CARGO_TARGET_DIR"));
    Some(made)
}

#[test]
fn the_package_holds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let Some(package) = package(folder.path()) else { return };
    let held = tried(Command::new("dpkg-deb").arg("-c").arg(&package));
    for path in [
        "./usr/bin/acode",
        "./usr/lib/systemd/system/acode.service",
        "./usr/lib/systemd/system/acode@.service",
        "./usr/lib/systemd/user/acode.service",
        "./usr/lib/sysusers.d/acode.conf",
        "./usr/share/man/man1/acode.1.gz",
        "./usr/share/man/man1/acode-worker-reload.1.gz",
        "./usr/share/bash-completion/completions/acode",
        "./etc/acode/acode.yaml",
    ] {
        assert!(held.lines().any(|line| line.ends_with(path)), "no {path} in\n{held}");
    }
    let control = folder.path().join("control");
    tried(Command::new("dpkg-deb").arg("-e").arg(&package).arg(&control));
    let script = |name: &str| fs::read_to_string(control.join(name)).unwrap();
    let postinst = script("postinst");
    let (user, start) = (postinst.find("systemd-sysusers"), postinst.find("deb-systemd-invoke"));
    assert!(user.is_some() && user < start, "the user is there before the pool is started:\n{postinst}");
    assert!(script("conffiles").contains("/etc/acode/acode.yaml") && script("postrm").contains("/var/lib/acode"));
}

// The service, in the machine.

/// A file to which tasks write, in a folder of the service's user that systemd hides from nobody.
const DONE: &str = "/srv/acode-test/done";

/// Queues an array of tasks that each take a moment, and then say that they have run.
fn load(service: &Service, count: usize) -> String {
    let range = format!("1-{count}");
    let script = format!("sleep 0.3; echo {{item}} >>{DONE}");
    service.acode(&["task", "submit", "--array", &range, "--", "sh", "-c", &script])
}

/// Everything that was queued has run, and is done.
fn assert_done(service: &Service, id: &str, count: usize) {
    service.acode(&["task", "wait", id]);
    let done = fs::read_to_string(DONE).unwrap();
    assert_eq!(done.lines().collect::<BTreeSet<_>>().len(), count);
}

#[test]
fn nothing_is_lost_and_nothing_left_however_the_service_is_stopped_under_load() {
    let Some(service) = Service::install() else { return };
    service.ctl(&["start", "acode"]);
    // The start returns when the pool accepts work.
    service.acode(&["worker", "status"]);
    const TASKS: usize = 120;
    let id = load(&service, TASKS);
    service.ctl(&["reload", "acode"]);
    service.has_done(10);
    let pid = service.main_pid();
    service.ctl(&["restart", "acode"]);
    assert!(service.main_pid() != pid);
    service.has_done(30);
    service.survives(&["kill", "-s", "KILL", "acode"]);
    service.has_done(50);
    service.survives(&["kill", "-s", "KILL", "--kill-who=main", "acode"]);
    service.has_done(70);
    service.ctl(&["stop", "acode"]);
    service.is_gone();
    service.ctl(&["start", "acode"]);
    assert_done(&service, &id, TASKS);
}

#[test]
fn a_stop_waits_for_running_tasks_longer_than_systemd_would() {
    let drop_in = "[Service]\nTimeoutStopSec=5\nEnvironment=ACODE_WORKERS_DRAIN_TIMEOUT_SECONDS=120\n";
    let Some(service) = Service::install_with(drop_in) else { return };
    service.ctl(&["start", "acode"]);
    let id = service.acode(&["task", "submit", "--", "sleep", "20"]);
    wait_until("it runs", || service.task(&id)["state"] == "running");
    service.ctl(&["stop", "acode"]);
    service.is_gone();
    assert_eq!(service.show("Result"), "success");
    service.ctl(&["start", "acode"]);
    let task = service.task(&id);
    assert_eq!((&task["state"], &task["attempt_count"]), (&"completed".into(), &1.into()), "{task:#}");
}

#[test]
fn a_supervisor_that_hangs_is_replaced_and_loses_nothing() {
    let Some(service) = Service::install_with("[Service]\nWatchdogSec=8\n") else { return };
    service.ctl(&["start", "acode"]);
    const TASKS: usize = 60;
    let id = load(&service, TASKS);
    service.has_done(5);
    let pid = service.main_pid();
    signal(pid, Signal::SIGSTOP);
    wait_until("systemd has started another one", || {
        service.show("ActiveState") == "active" && service.main_pid() != pid && service.main_pid() != 0
    });
    assert!(service.show("NRestarts").parse::<u32>().unwrap() >= 1);
    assert_done(&service, &id, TASKS);
    let journal = tried(Command::new("journalctl").args(["-u", "acode", "--no-pager"]));
    assert!(journal.contains("Watchdog timeout"), "{journal}");
}

#[test]
fn a_reload_fails_with_what_is_wrong() {
    let Some(service) = Service::install() else { return };
    service.ctl(&["start", "acode"]);
    fs::write("/etc/acode/acode.yaml", "workers:\n  cuont: 2\n").unwrap();
    assert!(!service.try_ctl(&["reload", "acode"]));
    assert_eq!((service.show("ActiveState").as_str(), service.show("SubState").as_str()), ("active", "running"));
    fs::write("/etc/acode/acode.yaml", "workers:\n  count: 3\n").unwrap();
    service.ctl(&["reload", "acode"]);
    wait_until("there are three workers", || service.show("StatusText").starts_with("3 workers"));
    let id = service.acode(&["task", "submit", "--", "true"]);
    service.acode(&["task", "wait", &id]);
    // A wrong configuration keeps it down, and is no reason to try again and again.
    fs::write("/etc/acode/acode.yaml", "workers:\n  cuont: 2\n").unwrap();
    assert!(!service.try_ctl(&["restart", "acode"]));
    assert_eq!((service.show("ActiveState").as_str(), service.show("NRestarts").as_str()), ("failed", "0"));
    fs::remove_file("/etc/acode/acode.yaml").unwrap();
}

#[test]
fn the_journal_knows_tasks_and_workers() {
    let Some(service) = Service::install_with("[Service]\nEnvironment=ACODE_LOG_LEVEL=debug\n") else { return };
    service.ctl(&["start", "acode"]);
    let id = service.acode(&["task", "submit", "--", "false"]);
    wait_until("it has failed", || service.task(&id)["state"] == "failed");
    let worker = service.task(&id)["attempts"][0]["worker"].as_str().unwrap().to_owned();
    let mut lines = Vec::new();
    wait_until("the journal has it", || {
        lines = service.journal(&format!("ACODE_TASK={id}"));
        !lines.is_empty()
    });
    let line = &lines[0];
    assert_eq!(line["MESSAGE"], "attempt ended", "{line:#}");
    assert_eq!((&line["SYSLOG_IDENTIFIER"], &line["PRIORITY"]), (&"acode".into(), &"7".into()));
    assert_eq!((&line["ACODE_WORKER"], &line["ACODE_VERDICT"]), (&worker.clone().into(), &"exited(1)".into()));
    assert_eq!(line["_SYSTEMD_UNIT"], "acode.service");
    // What goes wrong with a worker can be found by it, and has its priority.
    let pid = service.workers().iter().find(|other| other["id"] == worker.as_str()).unwrap()["pid"].as_u64().unwrap();
    signal(pid as u32, Signal::SIGKILL);
    wait_until("its death is told", || {
        let lines = service.journal(&format!("ACODE_WORKER={worker}"));
        lines.iter().any(|line: &Value| line["PRIORITY"] == "4" && line["MESSAGE"].to_string().contains("died"))
    });
}

#[test]
fn the_running_service_is_hardened_and_tasks_still_have_what_they_need() {
    let Some(service) = Service::install() else { return };
    service.ctl(&["start", "acode"]);
    assert_under_five(&tried(Command::new("systemd-analyze").args(["security", "--no-pager", "acode.service"])));
    let runs = |script: &str| {
        let id = service.acode(&["task", "submit", "--", "sh", "-ec", script]);
        let ended = service.try_acode(&["task", "wait", &id]);
        assert!(ended, "{script}: {:#}\n{}", service.task(&id), service.acode(&["task", "logs", &id]));
    };
    // A sandbox of the task's own, a directory of people's, what only root may do, a cgroup of the pool's.
    runs("unshare --user --map-root-user --mount --pid --fork --net --mount-proc true");
    runs(&format!("echo x >>{DONE}"));
    runs("! touch /etc/x /usr/x 2>/dev/null; test \"$(id -un)\" = acode");
    runs("grep -q '^0::.*/acode.service/' /proc/self/cgroup");
    // Limits are the kernel's.
    let status = service.acode(&["worker", "status"]);
    assert!(status.contains("\nCgroup: delegated, cpu memory pids io\n"), "{status}");
    let bomb = ["task", "submit", "--memory", "50M", "--over-limit", "kill", "--max-crashes", "1", "--"];
    let id = service.acode(&[&bomb[..], &["tail", "/dev/zero"]].concat());
    assert!(!service.try_acode(&["task", "wait", &id]));
    assert_eq!(service.task(&id)["verdict"], "out-of-memory", "{:#}", service.task(&id));
    // Root reaches it by itself, its own user by naming the state directory, and nobody else at all.
    tried(Command::new("runuser").args([
        "-u",
        "acode",
        "--",
        &installed(),
        "--state-dir",
        "/var/lib/acode",
        "worker",
        "status",
    ]));
    let stranger = ["-u", "tester", "--", &installed(), "--state-dir", "/var/lib/acode", "worker", "status"];
    assert!(!Command::new("runuser").args(stranger).output().unwrap().status.success());
}

#[test]
fn a_template_makes_pools_that_do_not_meet() {
    let Some(service) = Service::install() else { return };
    for (name, count) in [("one", 1), ("two", 2)] {
        fs::write(format!("/etc/acode/{name}.yaml"), format!("workers:\n  count: {count}\n")).unwrap();
        service.ctl(&["start", &format!("acode@{name}")]);
    }
    for (name, count) in [("one", 1), ("two", 2)] {
        let state = format!("/var/lib/acode-{name}");
        let told = tried(Command::new(installed()).args(["--state-dir", &state, "--json", "worker", "status"]));
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["pool"]["name"], &told["workers"]["target"]), (&name.into(), &count.into()), "{told:#}");
        service.ctl(&["stop", &format!("acode@{name}")]);
    }
}

#[test]
fn a_user_has_a_pool_of_ones_own() {
    let Some(_service) = Service::hold() else { return };
    let program = service::copy_for_all();
    let tester = |words: &[&str]| {
        let mut command = Command::new("runuser");
        command.args(["-u", "tester", "--", "env", "XDG_RUNTIME_DIR=/run/user/1000", "HOME=/home/tester"]);
        command.args(words).current_dir(root()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        tried(&mut command)
    };
    wait_until("the user's manager is up", || Path::new("/run/user/1000/systemd/private").exists());
    tester(&["scripts/install", "--user", "--binary", &program]);
    let ctl = |words: &[&str]| tester(&[&["systemctl", "--user"], words].concat());
    ctl(&["enable", "--now", "acode"]);
    let acode = |words: &[&str]| tester(&[&["/home/tester/.local/bin/acode"], words].concat());
    let id = acode(&["task", "submit", "--", "sh", "-c", "id -un; cat /proc/self/cgroup"]).trim().to_owned();
    acode(&["task", "wait", &id]);
    let said = acode(&["task", "logs", &id]);
    assert!(said.starts_with("tester\n") && said.contains("/acode.service/"), "{said}");
    ctl(&["reload", "acode"]);
    ctl(&["kill", "-s", "KILL", "acode"]);
    let answers = || {
        Command::new("runuser")
            .args(["-u", "tester", "--", "env", "XDG_RUNTIME_DIR=/run/user/1000"])
            .args(["HOME=/home/tester", "/home/tester/.local/bin/acode", "worker", "status"])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(eventually(PATIENCE, answers), "it is started again");
    let status = acode(&["worker", "status"]);
    assert!(status.contains("\nCgroup: delegated, cpu memory pids"), "{status}");
    assert!(acode(&["task", "show", &id]).contains("completed"));
    ctl(&["stop", "acode"]);
    tester(&["scripts/install", "--user", "--uninstall", "--purge"]);
    assert!(
        !Path::new("/home/tester/.local/bin/acode").exists() && !Path::new("/home/tester/.local/state/acode").exists()
    );
    assert!(service::processes_with("/home/tester/.local/bin/acode").is_empty());
}

#[test]
fn the_package_installs_runs_upgrades_and_purges() {
    let Some(service) = Service::hold() else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(package) = package(folder.path()) else { return };
    let dpkg =
        |arguments: &[&str]| tried(Command::new("dpkg").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"));
    let package = package.to_str().unwrap();
    dpkg(&["-i", package]);
    wait_until("the pool is up", || service.show("ActiveState") == "active");
    let id = tried(Command::new("acode").args(["task", "submit", "--array", "1-40", "--", "sleep", "0.3"]))
        .trim()
        .to_owned();
    // An upgrade to itself is an upgrade: the pool is restarted, and goes on.
    dpkg(&["-i", package]);
    tried(Command::new("acode").args(["task", "wait", &id]));
    dpkg(&["-r", "acode"]);
    assert!(Path::new("/var/lib/acode/queue.db").exists() && !Path::new("/usr/bin/acode").exists());
    service.is_gone();
    dpkg(&["-P", "acode"]);
    for path in ["/var/lib/acode", "/etc/acode", "/run/acode", "/usr/lib/systemd/system/acode.service"] {
        assert!(!Path::new(path).exists(), "{path} is left");
    }
}
