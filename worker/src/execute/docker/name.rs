//! By which names containers and their client go.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::task::TaskId;

/// The name of a task's container. There is one at a time: the engine refuses a second of the same name.
pub fn container_name(id: TaskId) -> String {
    format!("acode-{}", id.to_string().to_lowercase())
}

/// Which command line client it is. Told by the file's name: a `docker` that is podman in disguise counts as docker,
/// and gets by with that but for what is noted at each difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Docker's own.
    Docker,
    /// Podman.
    Podman,
}

impl Client {
    /// The client behind `docker.program`.
    pub fn of(program: &str) -> Self {
        let name = Path::new(program).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.contains("podman") { Self::Podman } else { Self::Docker }
    }
}

/// The id that the engine gave to a container: 64 hexadecimal digits, so that it is safe as a part of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerId(String);

/// A text is not the id of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the id of a container: 64 hexadecimal digits are expected")]
pub struct ContainerIdError(String);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = ContainerIdError;

    /// Reads an id as a `--cidfile` holds it, with or without a line's end.
    fn from_str(text: &str) -> Result<Self, ContainerIdError> {
        let id = text.trim_ascii();
        let is_hex = id.len() == 64 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_hex { Ok(Self(id.to_owned())) } else { Err(ContainerIdError(id.chars().take(80).collect())) }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_after_its_task() {
        assert_eq!(container_name(TaskId::from_u128(31)), "acode-0000000000000000000000000z");
    }

    #[test]
    fn the_client_is_told_by_the_name_of_its_file() {
        assert_eq!(Client::of("/usr/bin/podman"), Client::Podman);
        assert_eq!(Client::of("podman-remote"), Client::Podman);
        assert_eq!(Client::of("/opt/podman/bin/docker"), Client::Docker);
    }

    #[test]
    fn an_id_is_nothing_else_than_one() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(format!("{id}\n").parse::<ContainerId>().unwrap().as_str(), id);
        for text in ["", "0123456789ab", &"../../".repeat(11), &id.to_uppercase(), &format!("{id}0")] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
    }
}
