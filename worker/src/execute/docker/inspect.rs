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

    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.get(name).map(String::as_str)
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
