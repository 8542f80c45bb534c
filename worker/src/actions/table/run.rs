//! How far a run over tables is: progress, and the end it is told to come to.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::context::Context;
use super::super::error::{ActionError, Cancelled};
use super::Row;

/// How many small steps there are between two looks.
const LOOK_EVERY: u32 = 32;
const TELL_EVERY: Duration = Duration::from_millis(200);

/// One run, as its parts see it.
pub(crate) struct Run<'r, 'c> {
    pub(crate) context: &'r mut Context<'c>,
    /// The inputs by their numbers in rows.
    pub(crate) files: Vec<PathBuf>,
    /// Rows read of the main input.
    pub(crate) rows_in: u64,
    /// Bytes of inputs, read and in all.
    pub(crate) bytes_read: u64,
    pub(crate) bytes_total: u64,
    ticks: u32,
    told: Instant,
}

impl<'r, 'c> Run<'r, 'c> {
    pub(crate) fn new(context: &'r mut Context<'c>) -> Self {
        let told = Instant::now();
        Self { context, files: Vec::new(), rows_in: 0, bytes_read: 0, bytes_total: 0, ticks: 0, told }
    }

    /// Between two rows: ends the run if it is to end, and tells how far it is from time to time.
    pub(crate) fn tick(&mut self) -> Result<(), Cancelled> {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(LOOK_EVERY) {
            self.context.check()?;
            if self.told.elapsed() >= TELL_EVERY {
                self.told = Instant::now();
                // What remains when all is read is not known; it is not nothing.
                let percent = 95.0 * self.bytes_read as f64 / self.bytes_total.max(1) as f64;
                self.context.progress(percent.min(95.0), &format!("{} rows read", self.rows_in));
            }
        }
        Ok(())
    }

    /// A failure at a row: where it was, and why.
    pub(crate) fn at(&self, row: &Row, why: impl std::fmt::Display) -> ActionError {
        match self.files.get(row.file as usize) {
            Some(path) => ActionError::new(format!("{}:{}: {why}", path.display(), row.line)),
            None => ActionError::new(format!("data, row {}: {why}", row.line)),
        }
    }
}
