//! What a task says about the container that it runs in.
//!
//! Pure data with its rules. Deliberately absent: which mounts and arguments a pool allows, which is checked where the
//! container is made, and the command line that comes of it (`execute::docker`).

use serde::{Deserialize, Serialize};

use super::SpecError;

/// A task's container. `None`, or an empty list, leaves what the pool says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Docker {
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What runs in the place of the image's entry point; empty for none, so that the command itself runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// The network, by docker's name for it: `none`, `bridge`, `host`, or one that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The platform of an image that has several, as in `linux/amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The user inside: `USER`, `UID`, `USER:GROUP` or `UID:GID`; that of the pool if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When the image is pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
    /// Directories and files of the host, on top of the pool's. Each must lie within one that the pool allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Further arguments for `docker run`. Each must be one that the pool allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// Never: it must be there.
    #[default]
    Never,
    /// If it is not there.
    Missing,
    /// Before every attempt.
    Always,
}

impl Pull {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Never, Self::Missing, Self::Always];

    /// Its name, which is docker's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Missing => "missing",
            Self::Always => "always",
        }
    }
}

/// A directory or file of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// Where it is on the host. Absolute.
    pub source: String,
    /// Where it is in the container. Absolute.
    pub target: String,
    /// Whether it can only be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A text does not say what is mounted where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not of the form /SOURCE[:/TARGET][:ro]")]
pub struct MountError(String);

impl std::str::FromStr for Mount {
    type Err = MountError;

    /// Reads `/SOURCE[:/TARGET][:ro]`; without a target it is the same place in the container.
    fn from_str(text: &str) -> Result<Self, MountError> {
        let (paths, read_only) = match text.strip_suffix(":ro") {
            Some(paths) => (paths, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        let (source, target) = paths.split_once(':').unwrap_or((paths, paths));
        let mount = Self { source: source.to_owned(), target: target.to_owned(), read_only };
        if mount.is_sound() { Ok(mount) } else { Err(MountError(text.to_owned())) }
    }
}

impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ro = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{ro}", self.source, self.target)
    }
}

impl Mount {
    /// Whether docker's `--mount` can say it, and it climbs nowhere: `,` and quotes would begin another field there.
    fn is_sound(&self) -> bool {
        [&self.source, &self.target].into_iter().all(|path| {
            path.starts_with('/')
                && !path.contains([',', '"', ':', '\0', '\n'])
                && !path.split('/').any(|part| part == "..")
        })
    }
}

impl Docker {
    /// The most mounts, and the most further arguments, of one task.
    pub const LIST_MAX: usize = 64;
    /// What a further argument for `docker run` must be, in words.
    pub const ARGUMENT: &'static str = "a long option of docker run with its value behind a '=', as in --shm-size=1g, \
         that does not name, detach, restart or remove the container,";
    /// The options without which no container would be found again, or its output or end be learnt.
    const RESERVED: [&'static str; 17] = [
        "attach",
        "cidfile",
        "detach",
        "detach-keys",
        "help",
        "init",
        "interactive",
        "label-file",
        "log-driver",
        "name",
        "replace",
        "restart",
        "rm",
        "rmi",
        "sig-proxy",
        "stop-timeout",
        "tty",
    ];

    /// What a value of an option must be, in words.
    pub const NAME: &'static str = "a name without spaces that does not begin with a dash";

    /// Whether this can be a value of an option: a text that begins with a dash would be an option itself.
    pub fn is_name(text: &str) -> bool {
        !text.is_empty() && !text.starts_with('-') && !text.contains(|c: char| c.is_whitespace() || c == '\0')
    }

    /// Whether this can be a further argument for `docker run`. Only whole long options can: a word without dashes
    /// would be taken for the image, and `--` for the end of all options.
    pub fn is_argument(text: &str) -> bool {
        let Some(option) = text.strip_prefix("--").filter(|rest| !rest.contains('\0')) else { return false };
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let is_ours = Self::RESERVED.contains(&name) || (name == "label" && value.starts_with("acode."));
        !name.is_empty() && !is_ours
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        let texts = [
            ("docker.image", &self.image),
            ("docker.network", &self.network),
            ("docker.platform", &self.platform),
            ("docker.user", &self.user),
        ];
        for (field, text) in texts {
            if text.as_deref().is_some_and(|text| !Self::is_name(text)) {
                let value = text.as_deref().unwrap_or_default().escape_debug().to_string();
                return Err(SpecError::OutOfRange { field, value: format!("'{value}'"), expected: Self::NAME });
            }
        }
        if self.entrypoint.iter().chain(&self.args).any(|text| text.contains('\0')) {
            return Err(SpecError::Nul("docker".to_owned()));
        }
        for (field, length) in [("docker.mounts", self.mounts.len()), ("docker.args", self.args.len())] {
            if length > Self::LIST_MAX {
                let value = format!("a list of {length}");
                return Err(SpecError::OutOfRange { field, value, expected: "at most 64" });
            }
        }
        if let Some(wrong) = self.args.iter().find(|text| !Self::is_argument(text)) {
            let value = format!("'{}'", wrong.escape_debug());
            return Err(SpecError::OutOfRange { field: "docker.args", value, expected: Self::ARGUMENT });
        }
        match self.mounts.iter().find(|mount| !mount.is_sound()) {
            None => Ok(()),
            Some(mount) => Err(SpecError::OutOfRange {
                field: "docker.mounts",
                value: format!("'{mount}'"),
                expected: "two absolute paths without '..', commas, colons and quotes",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_from_a_text() {
        let mount = |source: &str, target: &str, read_only| Mount {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
        };
        assert_eq!("/a".parse(), Ok(mount("/a", "/a", false)));
        assert_eq!("/a:ro".parse(), Ok(mount("/a", "/a", true)));
        assert_eq!("/a:/b:rw".parse(), Ok(mount("/a", "/b", false)));
        assert_eq!("/a:/b:ro".parse::<Mount>().map(|m| m.to_string()), Ok("/a:/b:ro".to_owned()));
        for text in ["a:/b", "/a:b", "/a/../b", "/a,readonly=false:/b", "", "/a:/b:/c"] {
            assert!(text.parse::<Mount>().is_err(), "{text}");
        }
    }

    #[test]
    fn further_arguments_are_whole_options_that_leave_the_container_findable() {
        for text in ["--shm-size=1g", "--privileged", "--gpus=all", "--label=team=web", "--*"] {
            assert!(Docker::is_argument(text), "{text}");
        }
        for text in ["", "-", "--", "-d", "-it", "busybox", "--rm", "--name=x", "--a\0", "--=x"] {
            assert!(!Docker::is_argument(text), "{text}");
        }
        for text in ["--detach=true", "--restart=always", "--label=acode.pool=x", "--sig-proxy=false", "--tty"] {
            assert!(!Docker::is_argument(text), "{text}");
        }
        let docker = Docker { args: vec!["--rm".to_owned()], ..Docker::default() };
        let said = docker.validate().unwrap_err().to_string();
        assert!(said.starts_with("docker.args is '--rm': a long option"), "{said}");
    }

    #[test]
    fn no_text_becomes_an_option_of_the_cli() {
        let docker = Docker { image: Some("--privileged".to_owned()), ..Docker::default() };
        assert!(docker.validate().is_err());
        let docker = Docker { image: Some("debian:12".to_owned()), user: Some("1000:1000".to_owned()), ..docker };
        assert_eq!(docker.validate(), Ok(()));
    }
}
