//! Docker: whether its engine answers, what it is, and what that means for the limits of tasks in containers.
//!
//! It is asked by its command line client, as workers ask it, with a deadline for each question. Deliberately absent: any
//! container.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acode_worker::sys::pipe::set_nonblocking;
use acode_worker::task::Isolation;
use serde_json::Value;

use super::{Finding, Host};

/// How long the engine may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(10);
/// The most bytes of an answer that are read.
const ANSWER_MAX: u64 = 1 << 20;

const INSTALL: &str =
    "needed for tasks in containers only: install Docker (or Podman, and set docker.program to podman)";
const REACH: &str = "start the engine ('systemctl start docker'), and let this user reach its socket: put it into the group \
     docker and log in anew, or run the engine rootless, or set DOCKER_HOST";
const HANGS: &str = "look at the engine's log ('journalctl -u docker'), and start it again: one that answers nothing is \
     taken for unavailable by workers, too";

/// Whether containers can be run.
pub fn engine(host: &Host<'_>) -> Finding {
    let needed = host.config.workers.mode.has(Isolation::Docker);
    let lacks = |found: String, remedy: &str| match needed {
        true => Finding::bad(format!("{found}; workers.mode asks for it"), remedy),
        false => Finding::note(found, remedy),
    };
    let program = &host.config.docker.program;
    // Podman has no engine to ask: what runs containers is the client itself.
    let podman = Path::new(program).file_name().is_some_and(|name| name.to_string_lossy().starts_with("podman"));
    let version = if podman { "{{.Client.Version}}" } else { "{{.Server.Version}}" };
    match ask(program, &["version", "--format", version]) {
        Answer::NoProgram => lacks(format!("no client: {program} is not to be found"), INSTALL),
        Answer::Silent => lacks(format!("the engine did not answer within {} s", PATIENCE.as_secs()), HANGS),
        Answer::Failed(why) => lacks(format!("a client, and no engine that it reaches{}{why}", group()), REACH),
        Answer::Said(version) => match ask(program, &["info", "--format", "{{json .}}"]) {
            Answer::Said(text) => judge(version.trim(), &serde_json::from_str(&text).unwrap_or_default()),
            Answer::NoProgram | Answer::Silent | Answer::Failed(_) => Finding::ok(format!("engine {}", version.trim())),
        },
    }
}

/// What an engine is by its own words, and what it lacks.
fn judge(version: &str, info: &Value) -> Finding {
    // Podman has the same facts under other names.
    let text = |names: [&str; 2]| names.into_iter().find_map(|at| info.pointer(at)?.as_str()).unwrap_or("unknown");
    let cgroups = text(["/CgroupVersion", "/host/cgroupVersion"]).trim_start_matches('v');
    let driver = text(["/CgroupDriver", "/host/cgroupManager"]);
    let storage = text(["/Driver", "/store/graphDriverName"]);
    let options = info.pointer("/SecurityOptions").and_then(Value::as_array);
    let by_option = options.is_some_and(|all| all.iter().any(|option| option == "name=rootless"));
    let rootless = by_option || info.pointer("/host/security/rootless").and_then(Value::as_bool).unwrap_or(false);
    let whose = if rootless { "rootless" } else { "rootful" };
    let found = format!("engine {version}, {whose}, cgroup v{cgroups} by {driver}, storage {storage}");
    let lacks = |name: &str| info.get(name).and_then(Value::as_bool) == Some(false);
    let limits = [("memory", "MemoryLimit"), ("cpu", "CpuCfsQuota"), ("pids", "PidsLimit")];
    let unheld: Vec<&str> = limits.into_iter().filter(|(_, name)| lacks(name)).map(|(limit, _)| limit).collect();
    match (unheld.is_empty(), rootless, driver) {
        (true, true, "none") => Finding::note(
            format!("{found}: no limits of containers are held"),
            "use cgroup v2 and systemd for a rootless engine: without them it cannot limit its containers",
        ),
        (true, ..) => Finding::ok(format!("{found}: limits of containers are held")),
        (false, true, _) => Finding::note(
            format!("{found}: not held are limits of {}", unheld.join(", ")),
            "delegate these controllers to the engine's user: Delegate=cpu cpuset io memory pids for user@.service",
        ),
        (false, false, _) => Finding::note(
            format!("{found}: not held are limits of {}", unheld.join(", ")),
            "have the kernel offer these cgroup controllers (cgroup_enable=memory on its command line, for one)",
        ),
    }
}

/// Why this user may not reach the engine, if it is for want of a group.
fn group() -> &'static str {
    let Ok(Some(group)) = nix::unistd::Group::from_name("docker") else { return "" };
    let is_member = nix::unistd::getgroups().is_ok_and(|groups| groups.contains(&group.gid));
    match is_member || nix::unistd::geteuid().is_root() {
        true => "",
        false => " (this user is not in the group docker)",
    }
}

/// What came of a question.
enum Answer {
    /// There is nobody to ask.
    NoProgram,
    /// No answer in time.
    Silent,
    /// It failed, and these were its last words.
    Failed(String),
    /// Its answer.
    Said(String),
}

/// Asks the client, which is killed when the time is over.
fn ask(program: &str, args: &[&str]) -> Answer {
    let mut command = Command::new(program);
    let child = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return Answer::NoProgram };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Answers of some kilobytes fit into the pipes; one that does not counts as none.
    match ended_in_time(&mut child) {
        None => Answer::Silent,
        Some(true) => Answer::Said(read(stdout)),
        Some(false) => {
            let words = read(stderr);
            let last = words.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
            Answer::Failed(if last.is_empty() { String::new() } else { format!(": {last}") })
        }
    }
}

/// What an ended program has left in a pipe. Somebody else may hold the other end still, and is not waited for.
fn read(pipe: Option<impl Read + AsFd>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe.filter(|pipe| set_nonblocking(pipe).is_ok()) {
        // What cannot be read is as good as not said.
        let _ = pipe.take(ANSWER_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the program succeeded; nothing if it had to be killed.
fn ended_in_time(child: &mut Child) -> Option<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(NAP),
            Ok(None) | Err(_) => {
                // One that has ended meanwhile needs no kill; what it was is of no interest.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Health;
    use super::*;

    #[test]
    fn an_engine_is_told_with_what_it_means_for_limits() {
        let rootful = json!({
            "CgroupVersion": "2", "CgroupDriver": "systemd", "Driver": "overlay2", "SecurityOptions": ["name=seccomp"],
            "MemoryLimit": true, "CpuCfsQuota": true, "PidsLimit": true,
        });
        let finding = judge("29.1", &rootful);
        assert_eq!(finding.verdict, Health::Ok);
        let words = "engine 29.1, rootful, cgroup v2 by systemd, storage overlay2: limits of containers are held";
        assert_eq!(finding.found, words);
        let mut rootless = rootful;
        rootless["SecurityOptions"] = json!(["name=seccomp", "name=rootless"]);
        rootless["PidsLimit"] = json!(false);
        let finding = judge("29.1", &rootless);
        assert_eq!(finding.verdict, Health::Note);
        assert!(
            finding.found.contains("rootless") && finding.found.contains("not held are limits of pids"),
            "{finding:?}"
        );
        rootless["PidsLimit"] = json!(true);
        rootless["CgroupDriver"] = json!("none");
        assert!(judge("29.1", &rootless).found.contains("no limits of containers are held"));
    }

    #[test]
    fn podman_has_its_own_names() {
        let info = json!({
            "host": {"cgroupVersion": "v2", "cgroupManager": "systemd", "security": {"rootless": true}},
            "store": {"graphDriverName": "overlay"},
        });
        let found = judge("5.4", &info).found;
        assert!(found.starts_with("engine 5.4, rootless, cgroup v2 by systemd, storage overlay"), "{found}");
    }
}
