//! The supervisor's own log: to standard error, to the system's journal if that is what standard error is connected to, or
//! to a file that can be opened anew for rotation.
//!
//! In the journal a line's fields are fields of the entry: `task` is `ACODE_TASK`, `worker` is `ACODE_WORKER`.
//! Deliberately absent: the tasks' output, which goes to the journal and nowhere else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::LogLevel;

/// Where log lines go, and which of them.
#[derive(Debug, Clone)]
pub struct Log {
    path: Option<PathBuf>,
    file: Arc<Mutex<Option<File>>>,
    level: reload::Handle<LevelFilter, Registry>,
}

impl Log {
    /// Starts logging at `level`: to the file if one is named, else with `to_journal` to the system's journal, else to
    /// standard error. Only the first call in a process has an effect on where lines go.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(level: LogLevel, path: Option<&Path>, to_journal: bool) -> io::Result<Self> {
        let (filter, handle) = reload::Layer::new(filter_of(level));
        let log = Self { path: path.map(Path::to_owned), file: Arc::default(), level: handle };
        log.reopen()?;
        let writer = log.clone();
        let journal = (to_journal && path.is_none()).then(journal).flatten();
        let lines = fmt::layer().with_ansi(false).with_target(false).with_writer(move || Line(writer.clone()));
        let lines = journal.is_none().then_some(lines);
        let lines = Registry::default().with(filter).with(lines).with(journal);
        // A library user may have a subscriber already: then it gets the lines.
        let _ = tracing::subscriber::set_global_default(lines);
        Ok(log)
    }

    /// Tells more or less from now on.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only where somebody else's subscriber takes the lines, who decides about them then.
        let _ = self.level.modify(|filter| *filter = filter_of(level));
    }

    /// Opens the file anew, after it was moved away.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(path) = &self.path {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        }
        Ok(())
    }
}

/// The way to the journal; none where its socket cannot be reached, and then the lines go to standard error.
fn journal() -> Option<tracing_journald::Layer> {
    let layer = tracing_journald::layer().ok()?;
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = layer.with_field_prefix(Some("ACODE".to_owned())).with_syslog_identifier("acode".to_owned());
    Some(layer.with_priority_mappings(priorities))
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Writes one line.
struct Line(Log);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.file.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file.write(bytes),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
