//! What a task may reach of the host, beside what its user may.
//!
//! Pure data. Deliberately absent: by what means it is kept from the rest, which is `execute`'s and `sys`'.

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
