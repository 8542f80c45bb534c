//! What a task may reach of the host, beside what its user may.
//!
//! Pure data. Deliberately absent: by what means it is kept from the rest, which is `execute`'s and `sys`'.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a task may reach. `None` leaves what the pool says, and in the pool's own settings is no restriction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sandbox {
    /// The network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkAccess>,
    /// The file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<FileAccess>,
    /// Devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceAccess>,
    /// The user that its processes run as: a name or a number, with an optional `:group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What a task may reach of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkAccess {
    /// Nothing but what is inside of itself.
    None,
    /// What the host reaches.
    Host,
}

/// What a task may do to the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAccess {
    /// What its user may.
    Host,
    /// Read what its user may, and write to its scratch and checkpoint directories only.
    ReadOnly,
    /// Read programs and libraries, and see nothing else but its scratch and checkpoint directories.
    Scratch,
}

/// Which devices a task may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceAccess {
    /// Those of the host that its user may.
    Host,
    /// `null`, `zero`, `full`, `random`, `urandom` and `tty`.
    Minimal,
}

/// To whom tasks without a sandbox may send signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalReach {
    /// Their own processes, where the kernel can tell them apart.
    #[default]
    Own,
    /// Whomever their user may.
    Host,
}

/// What the pool says about sandboxes beside their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxRules {
    /// Whether a task may have less of a sandbox than the pool's default.
    pub may_loosen: bool,
    /// To whom tasks without a sandbox may send signals.
    pub signals: SignalReach,
    /// What can be read under `scratch` on top of programs and libraries. Absolute.
    pub readable: Vec<PathBuf>,
    /// What can be written under `read-only` and `scratch`. Absolute.
    pub writable: Vec<PathBuf>,
    /// The pool's own directories, which no sandbox shows. Absolute.
    pub hidden: Vec<PathBuf>,
}

/// What was said about a sandbox makes no sense, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SandboxError(String);

impl NetworkAccess {
    /// Every value with its name.
    pub const NAMES: [(&'static str, Self); 2] = [("host", Self::Host), ("none", Self::None)];
}

impl FileAccess {
    /// Every value with its name, the stricter the later.
    pub const NAMES: [(&'static str, Self); 3] =
        [("host", Self::Host), ("read-only", Self::ReadOnly), ("scratch", Self::Scratch)];
}

impl DeviceAccess {
    /// Every value with its name.
    pub const NAMES: [(&'static str, Self); 2] = [("host", Self::Host), ("minimal", Self::Minimal)];
}

/// The value of this name, or what would be right.
fn named<T: Copy>(key: &str, names: &[(&str, T)], text: &str) -> Result<T, SandboxError> {
    let found = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        SandboxError(format!("sandbox {key} is '{text}': {} is expected", known.join(" or ")))
    })
}

impl Sandbox {
    /// The names of what can be said.
    pub const KEYS: [&'static str; 4] = ["network", "filesystem", "devices", "user"];

    /// Sets one thing by its name.
    ///
    /// # Errors
    /// There is no such thing, or it cannot be that.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), SandboxError> {
        match key {
            "network" => self.network = Some(named(key, &NetworkAccess::NAMES, text)?),
            "filesystem" => self.filesystem = Some(named(key, &FileAccess::NAMES, text)?),
            "devices" => self.devices = Some(named(key, &DeviceAccess::NAMES, text)?),
            "user" => {
                let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
                if user.is_empty() || group.is_some_and(str::is_empty) || text.contains('\0') {
                    return Err(SandboxError(format!("sandbox user is '{text}': NAME or NAME:GROUP is expected")));
                }
                self.user = Some(text.to_owned());
            }
            other => {
                let known = Self::KEYS.join(", ");
                return Err(SandboxError(format!("a sandbox has no '{other}': it has {known}")));
            }
        }
        Ok(())
    }

    /// Whether it restricts nothing.
    pub fn is_open(&self) -> bool {
        self.network.is_none_or(|network| network == NetworkAccess::Host)
            && self.filesystem.is_none_or(|files| files == FileAccess::Host)
            && self.devices.is_none_or(|devices| devices == DeviceAccess::Host)
            && self.user.is_none()
    }

    /// What holds for a task that says this, where the pool says `default`.
    ///
    /// # Errors
    /// It would be less than the default, and that is not allowed.
    pub fn over(&self, default: &Self, may_loosen: bool) -> Result<Self, SandboxError> {
        fn pick<T: Clone>(
            key: &str,
            own: &Option<T>,
            pool: &Option<T>,
            fits: impl Fn(&T, &T) -> bool,
        ) -> Result<Option<T>, SandboxError> {
            match (own, pool) {
                (Some(own), Some(pool)) if !fits(own, pool) => Err(SandboxError(format!(
                    "the task asks for less of a sandbox than the pool's ({key}), and workers.sandbox.override is false"
                ))),
                (own, pool) => Ok(own.clone().or_else(|| pool.clone())),
            }
        }
        Ok(Self {
            network: pick("network", &self.network, &default.network, |own, pool| {
                may_loosen || *own == NetworkAccess::None || *pool == NetworkAccess::Host
            })?,
            filesystem: pick("filesystem", &self.filesystem, &default.filesystem, |own, pool| {
                let rank = |files: FileAccess| FileAccess::NAMES.iter().position(|(_, known)| *known == files);
                may_loosen || rank(*own) >= rank(*pool)
            })?,
            devices: pick("devices", &self.devices, &default.devices, |own, pool| {
                may_loosen || *own == DeviceAccess::Minimal || *pool == DeviceAccess::Host
            })?,
            user: pick("user", &self.user, &default.user, |own, pool| may_loosen || own == pool)?,
        })
    }
}

impl FromStr for Sandbox {
    type Err = SandboxError;

    /// Reads `network=none,filesystem=read-only`.
    fn from_str(text: &str) -> Result<Self, SandboxError> {
        let mut sandbox = Self::default();
        for part in text.split(',') {
            let pair = part.split_once('=');
            let (key, value) = pair.ok_or_else(|| SandboxError(format!("'{part}' is not of the form KEY=VALUE")))?;
            sandbox.set(key.trim(), value.trim())?;
        }
        Ok(sandbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_from_pairs() {
        let sandbox: Sandbox = "network=none,filesystem=read-only, user=nobody:daemon".parse().unwrap();
        assert_eq!(sandbox.network, Some(NetworkAccess::None));
        assert_eq!(sandbox.filesystem, Some(FileAccess::ReadOnly));
        assert_eq!((sandbox.devices, sandbox.user.as_deref()), (None, Some("nobody:daemon")));
        for (text, word) in [
            ("network=no", "host or none"),
            ("color=red", "it has network"),
            ("network", "KEY=VALUE"),
            ("user=:x", "NAME"),
        ] {
            assert!(text.parse::<Sandbox>().unwrap_err().to_string().contains(word), "{text}");
        }
    }

    #[test]
    fn a_task_may_be_stricter_than_its_pool_and_laxer_only_where_that_is_allowed() {
        let read = |text: &str| text.parse::<Sandbox>().unwrap();
        let pool = read("filesystem=read-only");
        assert_eq!(read("network=none").over(&pool, false), Ok(read("network=none,filesystem=read-only")));
        assert_eq!(read("filesystem=scratch").over(&pool, false), Ok(read("filesystem=scratch")));
        assert!(read("filesystem=host").over(&pool, false).is_err());
        assert_eq!(read("filesystem=host").over(&pool, true), Ok(read("filesystem=host")));
        assert!(read("user=root").over(&read("user=nobody"), false).is_err());
        assert_eq!(read("user=nobody").over(&Sandbox::default(), false), Ok(read("user=nobody")));
        assert!(read("network=host,devices=host").is_open() && !read("user=nobody").is_open());
    }
}
