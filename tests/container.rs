//! A pool inside a container: as Docker makes one, and as a privileged one that may write its own cgroup.
//!
//! Needs a Docker engine, so it runs in the machine of `scripts/vm`. The container's image is this system's own programs,
//! shown read-only. Deliberately absent: tasks in containers, which are another isolation.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::engine::Engine;
use common::eventually;

const IMAGE: &str = "acode-test-host:1";

/// Runs a program to its end, and gives what it said.
#[track_caller]
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    told
}

/// Has the engine know an image that is nothing but the places where the host's programs are to be seen.
fn make_image() {
    let root = tempfile::tempdir().unwrap();
    for name in ["usr", "etc", "tmp", "var", "proc", "sys", "dev", "pool"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(Path::new("usr").join(name), root.path().join(name)).unwrap();
    }
    let import = format!("tar -C '{}' -c . | docker import - {IMAGE}", root.path().display());
    said("sh", &["-c", &import]);
}

/// A container in which a pool is the only process to begin with, until it is dropped.
struct Container(String);

impl Container {
    #[track_caller]
    fn start(name: &str, options: &[&str]) -> Self {
        let name = format!("acode-test-{name}");
        let acode = format!("{}:/acode:ro", env!("CARGO_BIN_EXE_acode"));
        let mut words =
            vec!["run", "--detach", "--name", &name, "--network", "none", "-v", "/usr:/usr:ro", "-v", &acode];
        words.extend(["-e", "ACODE_STATE_DIR=/pool/s"]);
        words.extend(options);
        words.extend([IMAGE, "/acode", "worker", "start", "--count", "2"]);
        said("docker", &words);
        let container = Self(name);
        let answers = || container.tries(&["worker", "status"]).0;
        assert!(eventually(Duration::from_secs(60), answers), "{}", said("docker", &["logs", &container.0]));
        container
    }

    /// Runs `acode` in it; whether it succeeded, and what it said.
    fn tries(&self, arguments: &[&str]) -> (bool, String) {
        let words = [&["exec", &self.0, "/acode"], arguments].concat();
        let output = Command::new("docker").args(words).output().unwrap();
        (
            output.status.success(),
            [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat(),
        )
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let (succeeded, told) = self.tries(arguments);
        assert!(succeeded, "{arguments:?}: {told}\n{}", said("docker", &["logs", &self.0]));
        told
    }

    /// Stops the pool, and with it the container and whoever asks for that in it.
    #[track_caller]
    fn stops(&self) {
        let _ = self.tries(&["worker", "stop"]);
        assert_eq!(said("docker", &["wait", &self.0]).trim(), "0");
    }

    /// Runs a task to its end, and tells why it ended.
    #[track_caller]
    fn runs(&self, arguments: &[&str]) -> String {
        let id = self.says(&[&["task", "submit"], arguments].concat());
        let _ = self.tries(&["task", "wait", id.trim()]);
        self.says(&["task", "why", id.trim()])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).output();
    }
}

const BOMB: [&str; 9] = ["--memory", "40M", "--over-limit", "kill", "--max-crashes", "1", "--", "tail", "/dev/zero"];

#[test]
fn a_pool_lives_in_a_container_and_says_how_far_limits_are_held() {
    // For as long as this lives, so that nobody else stops the machine's engine.
    let Some(_engine) = Engine::of_system() else { return };
    make_image();
    {
        // The cgroup is not to be written in a usual container: looking has to do.
        let usual = Container::start("usual", &["-e", "ACODE_WORKERS_RESOURCES_ALLOW_OBSERVED=true"]);
        let status = usual.says(&["worker", "status"]);
        assert!(status.contains("\nCgroup: none"), "{status}");
        assert!(usual.runs(&["--", "sh", "-c", "exit 7"]).contains("exit code 7"));
        assert!(usual.runs(&BOMB).contains("out of memory"));
        usual.stops();
    }
    // One that may write it is as good as a delegated unit.
    let able = Container::start("able", &["--privileged"]);
    let status = able.says(&["worker", "status"]);
    assert!(status.contains("\nCgroup: delegated, cpu memory pids io"), "{status}");
    assert!(able.runs(&BOMB).contains("out of memory"));
    able.stops();
    drop(able);
    said("docker", &["rmi", IMAGE]);
}
