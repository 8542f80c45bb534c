//! The pause by hand, which outlives the supervisor: a row of `meta` that is there while it lasts.
//!
//! Owner: the store. Deliberately absent: pauses that the machine's state brings about; they end with it.

use rusqlite::{OptionalExtension, params};

use super::apply::{Writer, defect};
use super::events::Draft;
use super::statements::Sql;
use super::{EventKind, Pause, Store, StoreError};

const KEY: &str = "paused";

impl Writer<'_> {
    /// Begins a pause, changes its reason, or ends it. What is so already changes nothing and is no event.
    pub(super) fn pause(&mut self, pause: Option<&Pause>, at_us: u64) -> rusqlite::Result<()> {
        let Some(pause) = pause else {
            return match self.sql.run(Sql::DropMeta, [KEY])? {
                0 => Ok(()),
                _ => self.event(EventKind::PoolResumed, at_us, &Draft::default()),
            };
        };
        let text = serde_json::to_string(pause).map_err(|_| defect("a pause has no JSON form"))?;
        if self.sql.run(Sql::SetMeta, params![KEY, text])? == 0 {
            return Ok(());
        }
        let data = serde_json::json!({ "reason": pause.reason }).to_string();
        self.event(EventKind::PoolPaused, at_us, &Draft { data: Some(&data), ..Draft::default() })
    }
}

impl Store {
    /// The pause by hand, if there is one.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn pause(&self) -> Result<Option<Pause>, StoreError> {
        let text: Option<String> = self
            .read(|conn| conn.query_row("SELECT value FROM meta WHERE key = ?1", [KEY], |row| row.get(0)).optional())?;
        // What cannot be read is a pause nevertheless: that is the safe side.
        Ok(text.map(|text| serde_json::from_str(&text).unwrap_or(Pause { reason: None, since_us: 0 })))
    }
}
