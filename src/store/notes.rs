//! What is known of an attempt beyond what every attempt has: most have nothing of it, and then it takes no room.
//!
//! Deliberately absent: what every attempt has, which stands in the columns of the first schema.

use acode_worker::task::{Artifacts, HeldLimit, Usage, UsageSource};
use rusqlite::Row;
use rusqlite::types::Type;

/// How an attempt's limits and sandbox were held, and what is left of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptNotes {
    /// How its limits were held; empty if it had none.
    pub limits: Vec<HeldLimit>,
    /// Where its scratch directory was kept, if it was.
    pub kept: Option<String>,
    /// What held its sandbox, as JSON, if it had one.
    pub sandbox: Option<String>,
    /// What was kept of its files.
    pub artifacts: Option<Artifacts>,
}

impl AttemptNotes {
    /// How the limits are stored.
    pub(super) fn limits_text(&self) -> Option<String> {
        // Names and numbers have a JSON form in any case.
        if self.limits.is_empty() { None } else { serde_json::to_string(&self.limits).ok() }
    }

    /// How what was kept of its files is stored.
    pub(super) fn artifacts_text(&self) -> Option<String> {
        self.artifacts.as_ref().and_then(|kept| serde_json::to_string(kept).ok())
    }

    /// Reads them from a row of all columns.
    pub(super) fn read(r: &Row<'_>) -> rusqlite::Result<Self> {
        let limits: Option<String> = r.get("limits")?;
        let artifacts: Option<String> = r.get("artifacts")?;
        let bad = |e| rusqlite::Error::FromSqlConversionFailure(27, Type::Text, Box::new(e));
        Ok(Self {
            limits: limits.map_or(Ok(Vec::new()), |text| serde_json::from_str(&text).map_err(bad))?,
            kept: r.get("kept")?,
            sandbox: r.get("sandbox")?,
            artifacts: artifacts.map(|text| serde_json::from_str(&text).map_err(bad)).transpose()?,
        })
    }
}

/// How the source of a usage is stored.
pub(super) fn source_code(source: UsageSource) -> Option<u8> {
    match source {
        UsageSource::Rusage => None,
        UsageSource::Cgroup => Some(1),
    }
}

/// Adds to `usage` what the columns of the third schema have.
pub(super) fn read_usage(r: &Row<'_>, usage: Usage) -> rusqlite::Result<Usage> {
    let source: Option<u8> = r.get("source")?;
    Ok(Usage {
        peak_memory_bytes: r.get("peak_memory_bytes")?,
        throttled_us: r.get("throttled_us")?,
        oom_kills: r.get("oom_kills")?,
        peak_pids: r.get("peak_pids")?,
        peak_disk_bytes: r.get("peak_disk_bytes")?,
        source: if source.is_some() { UsageSource::Cgroup } else { UsageSource::Rusage },
        ..usage
    })
}
