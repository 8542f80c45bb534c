//! A docker client without an engine: it answers, refuses or hangs as a test says, and runs a container's command here.
//!
//! For what the pool makes of workers' words about the engine. What a real engine does is asked of a real one.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::common::Options;

/// The client. Its mood is a file, so that it can change while a pool runs; and so are the calls that it got.
pub struct MockEngine {
    folder: tempfile::TempDir,
}

/// The id file of a container is written before its command runs, and its variables are those of its file.
const CLIENT: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/calls"
case $(cat "$here/mood") in
down) echo "Cannot connect to the engine" >&2; exit 1 ;;
hangs) exec sleep 600 ;;
esac
case $1 in
version) echo 29.9 ;;
info)
    echo '{"CgroupVersion":"2","CgroupDriver":"systemd","Driver":"overlay2","SecurityOptions":["name=rootless"],'
    echo '"MemoryLimit":true,"CpuCfsQuota":false,"PidsLimit":true}' ;;
run)
    shift
    while [ "$1" != -- ]; do
        case $1 in
        --cidfile=*) printf %064d $$ >"${1#*=}" ;;
        --workdir=*) cd "${1#*=}" ;;
        --env-file=*) while IFS= read -r line; do export "$line"; done <"${1#*=}" ;;
        esac
        shift
    done
    shift 2
    exec "$@" ;;
esac
"#;

impl MockEngine {
    /// In this mood: `up`, `down` or `hangs`.
    pub fn new(mood: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("ac-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let engine = Self { folder };
        fs::write(engine.program(), CLIENT).unwrap();
        fs::set_permissions(engine.program(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(engine.folder.path().join("calls"), "").unwrap();
        engine.becomes(mood);
        engine
    }

    /// The client's path.
    pub fn program(&self) -> String {
        self.folder.path().join("client").to_string_lossy().into_owned()
    }

    /// Changes its mood.
    pub fn becomes(&self, mood: &str) {
        // In one step: a client may read it just now.
        let new = self.folder.path().join("mood.new");
        fs::write(&new, mood).unwrap();
        fs::rename(new, self.folder.path().join("mood")).unwrap();
    }

    /// How often it was called to do this.
    pub fn calls(&self, command: &str) -> usize {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap();
        calls.lines().filter(|line| line.split(' ').next() == Some(command)).count()
    }

    /// A pool of so many workers of these modes that has this client.
    pub fn options(&self, count: u32, mode: &str) -> Options {
        self.options_by_file(count).var("ACODE_WORKERS_MODE", mode)
    }

    /// A pool of so many workers that has this client; of which modes is for its configuration file to say.
    pub fn options_by_file(&self, count: u32) -> Options {
        Options::workers(count).var("ACODE_DOCKER_PROGRAM", self.program()).var("ACODE_DOCKER_IMAGE", "acode-test:1")
    }
}
