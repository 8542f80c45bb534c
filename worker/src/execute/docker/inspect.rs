//! What the engine says of a container, as far as acode wants to know it.
//!
//! Both docker's and podman's form: fields that one of them leaves out, or says `null` for, are as if empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The arguments of the client that ask for this, before the names of the containers. One line of JSON for each.
pub const INSPECT: [&str; 5] = ["inspect", "--type", "container", "--format", "{{json .}}"];

/// What the client printed is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A line is not JSON, or not of this form.
    #[error("what the container engine says of a container cannot be read")]
    Form(#[from] serde_json::Error),
    /// A line is of no container.
    #[error("the container engine says something of a container without an id")]
    NoId,
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Inspected {
    /// Its id.
    pub id: String,
    /// Its name, which docker writes with a slash before it.
    pub name: String,
    /// When it was made, as the engine writes it.
    pub created: String,
    /// What it is doing, or did.
    #[serde(deserialize_with = "null_is_default")]
    pub state: ContainerState,
    /// Limits, as the engine was asked for them.
    #[serde(deserialize_with = "null_is_default")]
    pub host_config: HostConfig,
    /// What it was made from.
    #[serde(deserialize_with = "null_is_default")]
    pub config: Config,
}

/// What a container is doing, or did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// One word: `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`; podman has `initialized`,
    /// `configured`, `stopping` and `stopped` too.
    pub status: String,
    /// Whether it runs; a paused one runs too.
    pub running: bool,
    /// Whether it is frozen.
    pub paused: bool,
    /// Whether it is about to be started once more.
    pub restarting: bool,
    /// Whether the engine heard of a process killed for want of memory. Not to be relied on.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// The exit code of its first process; something else as long as it has none.
    pub exit_code: i64,
    /// Why it could not be started.
    #[serde(deserialize_with = "null_is_default")]
    pub error: String,
    /// When it was started; a time in the year 1 if it never was.
    #[serde(deserialize_with = "null_is_default")]
    pub started_at: String,
    /// When it ended.
    #[serde(deserialize_with = "null_is_default")]
    pub finished_at: String,
    /// The pid of its first process on the host; 0 without one.
    pub pid: i32,
}

/// Limits, as the engine was asked for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// Memory in bytes; 0 for no limit.
    #[serde(deserialize_with = "null_is_default")]
    pub memory: i64,
    /// Memory and swap space together in bytes; 0 or -1 for no limit.
    #[serde(deserialize_with = "null_is_default")]
    pub memory_swap: i64,
    /// Billionths of a processor; 0 for no limit.
    #[serde(deserialize_with = "null_is_default")]
    pub nano_cpus: i64,
    /// Processes and threads; 0 or -1 for no limit.
    #[serde(deserialize_with = "null_is_default")]
    pub pids_limit: i64,
    /// The cgroup under which its own is; empty for the engine's default.
    #[serde(deserialize_with = "null_is_default")]
    pub cgroup_parent: String,
}

/// What a container was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Its labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

impl Inspected {
    /// Reads what the client printed, a line for each container.
    ///
    /// # Errors
    /// A line is not the JSON of a container.
    pub fn read(text: &str) -> Result<Vec<Self>, InspectError> {
        // Podman prints one list over many lines, whatever is asked for; and without any container docker prints an empty
        // one before it says so.
        let all = match text.trim_ascii_start().starts_with('[') {
            true => {
                serde_json::Deserializer::from_str(text).into_iter::<Vec<Self>>().next().unwrap_or(Ok(Vec::new()))?
            }
            false => {
                let lines = text.lines().map(str::trim_ascii).filter(|line| !line.is_empty());
                lines.map(serde_json::from_str).collect::<Result<Vec<Self>, _>>()?
            }
        };
        if all.iter().any(|container| container.id.is_empty()) {
            return Err(InspectError::NoId);
        }
        Ok(all)
    }
}

impl ContainerState {
    /// Whether its first process was ever started.
    pub fn has_started(&self) -> bool {
        // Go's zero time, whichever way it is written.
        !self.started_at.is_empty() && !self.started_at.starts_with("0001-01-01")
    }

    /// Whether something of it still runs, or will again without anybody asking for it.
    pub fn is_running(&self) -> bool {
        self.running || self.paused || self.restarting || matches!(self.status.as_str(), "running" | "stopping")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As docker 20.10 prints it, without most of what is not read.
    const DOCKER: &str = r#"{"Id":"5049cf","Created":"2026-11-21T18:25:00.711903961Z","Path":"/sbin/docker-init","State":{"Status":"exited","Running":false,"Paused":false,"Restarting":false,"OOMKilled":true,"Dead":false,"Pid":0,"ExitCode":137,"Error":"","StartedAt":"2026-11-21T18:25:01.291227539Z","FinishedAt":"2026-11-21T18:25:01.313518707Z"},"Name":"/acode-x","HostConfig":{"Memory":67108864,"MemorySwap":67108864,"NanoCpus":500000000,"PidsLimit":20,"CgroupParent":"","Binds":null},"Config":{"Labels":{"acode.pool":"p","acode.task":"t"}}}"#;
    /// As podman prints one that was never started.
    const PODMAN: &str = r#"{"Id":"77","Created":"2026-11-21T18:25:00.7+01:00","State":{"OciVersion":"1.0","Status":"configured","Running":false,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":0,"ExitCode":0,"Error":"","StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z","Healthcheck":{"Status":"","FailingStreak":0,"Log":null}},"Name":"acode-y","HostConfig":{"PidsLimit":null,"Memory":0},"Config":{"Labels":null}}"#;

    #[test]
    fn what_docker_says_is_read() {
        let [container] = Inspected::read(DOCKER).unwrap().try_into().unwrap();
        assert_eq!((container.id.as_str(), container.name.as_str()), ("5049cf", "/acode-x"));
        assert!(container.state.oom_killed && container.state.has_started() && !container.state.is_running());
        assert_eq!((container.state.exit_code, container.state.pid), (137, 0));
        let HostConfig { memory, memory_swap, nano_cpus, pids_limit, cgroup_parent } = container.host_config.clone();
        assert_eq!((memory, memory_swap, nano_cpus, pids_limit), (64 << 20, 64 << 20, 500_000_000, 20));
        assert_eq!(
            (
                cgroup_parent.as_str(),
                container.config.labels.get("acode.pool").map(String::as_str),
                container.config.labels.get("x")
            ),
            ("", Some("p"), None::<&String>)
        );
    }

    #[test]
    fn what_podman_leaves_out_is_empty() {
        let text = format!("{PODMAN}\n\n{DOCKER}\n");
        let [container, _] = Inspected::read(&text).unwrap().try_into().unwrap();
        assert!(!container.state.has_started() && container.config.labels.is_empty());
        let bare = Inspected::read(r#"{"Id":"1","State":null,"HostConfig":null,"Config":null}"#).unwrap();
        assert!(!bare[0].state.has_started() && !bare[0].state.is_running());
    }

    #[test]
    fn nothing_is_made_of_what_is_no_container() {
        assert_eq!(Inspected::read("[]\n").unwrap(), []);
        assert!(matches!(Inspected::read("{}"), Err(InspectError::NoId)));
        assert!(matches!(Inspected::read("Error: no"), Err(InspectError::Form(_))));
    }

    #[test]
    fn a_paused_container_runs() {
        for (status, running) in [("running", true), ("paused", true), ("stopping", false), ("running", false)] {
            let paused = status == "paused";
            let state = ContainerState { status: status.to_owned(), running, paused, ..ContainerState::default() };
            assert!(state.is_running(), "{status}");
        }
        assert!(!ContainerState { status: "exited".to_owned(), ..ContainerState::default() }.is_running());
    }

    #[test]
    fn lines_of_docker_and_a_list_of_podman_are_read() {
        let docker = "{\"Id\":\"a\",\"State\":{\"ExitCode\":3}}\n{\"Id\":\"b\"}\n";
        let podman = "[\n {\"Id\": \"a\",\n \"State\": {\"ExitCode\": 3}\n },\n {\"Id\": \"b\", \"Config\": {\"Labels\": null}}\n]\n";
        for text in [docker, podman] {
            let all = Inspected::read(text).unwrap();
            assert_eq!(all.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(all[0].state.exit_code, 3);
        }
        assert!(Inspected::read("[]\n").unwrap().is_empty() && Inspected::read("").unwrap().is_empty());
        assert!(Inspected::read("[{}]").is_err() && Inspected::read("{}").is_err() && Inspected::read("[{").is_err());
    }
}
