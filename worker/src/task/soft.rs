//! The warning before a timeout: a signal of choice, so that a task can save what it has.

use std::fmt;
use std::str::FromStr;

use nix::sys::signal::Signal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest number of a signal.
const SIGNAL_MAX: i32 = 64;

/// A signal by its number. Written by its name without `SIG` where it has one, else as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskSignal(i32);

impl TaskSignal {
    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl Default for TaskSignal {
    /// USR1, so that a task can tell the warning from its end, which comes as TERM.
    fn default() -> Self {
        Self(Signal::SIGUSR1 as i32)
    }
}

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no signal: a name such as USR1 or a number from 1 to 64 is expected, but neither KILL nor STOP")]
pub struct SignalError(String);

impl FromStr for TaskSignal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = || Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32);
        let number = text.parse().ok().or_else(known).filter(|number| (1..=SIGNAL_MAX).contains(number));
        // Those two warn nobody.
        let useful = |number: &i32| ![Signal::SIGKILL as i32, Signal::SIGSTOP as i32].contains(number);
        number.filter(useful).map(Self).ok_or_else(|| SignalError(text.to_owned()))
    }
}

impl fmt::Display for TaskSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str().trim_start_matches("SIG")),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for TaskSignal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskSignal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// When a task is warned of its timeout, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SoftTimeout {
    /// So many milliseconds before the timeout.
    pub before_ms: u64,
    /// What its leader's process group is sent.
    #[serde(default)]
    pub signal: TaskSignal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_or_numbered() {
        for text in ["USR1", "SIGUSR1", "usr1", "10"] {
            assert_eq!(text.parse(), Ok(TaskSignal::default()), "{text}");
        }
        for text in ["", "SIG", "KILL", "9", "STOP", "0", "65", "-1", "NOPE"] {
            assert!(text.parse::<TaskSignal>().is_err(), "{text}");
        }
        assert_eq!(
            ("40".parse::<TaskSignal>().unwrap().to_string(), TaskSignal::default().to_string()),
            ("40".into(), "USR1".into())
        );
        let soft: SoftTimeout = serde_json::from_str(r#"{"beforeMs":5,"signal":"TERM"}"#).unwrap();
        assert_eq!(serde_json::to_string(&soft).unwrap(), r#"{"beforeMs":5,"signal":"TERM"}"#);
    }
}
