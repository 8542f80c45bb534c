//! How far work is, drawn on standard error while a command waits for it; nothing at all when that is no terminal.
//!
//! One line counts all tasks, with what is left of the time as far as it can be guessed; below it stand the longest
//! running of those tasks that say themselves how far they are. Deliberately absent: colours, and any waiting.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::render::plain;
use crate::wire::reply::{RunningTask, Waited};
use crate::wire::types::TaskCounts;

/// How often it is drawn at most.
const DRAW_HZ: u8 = 10;
const WHOLE: &str = "{elapsed_precise} [{bar:30}] {pos}/{len} {msg}, eta {eta}";
const TASK: &str = "{prefix} [{bar:30}] {pos:>3}% {msg}";

/// What is drawn.
#[derive(Debug, Clone)]
pub struct Board {
    drawn: Option<Drawn>,
}

#[derive(Debug, Clone)]
struct Drawn {
    all: MultiProgress,
    whole: ProgressBar,
    tasks: Arc<Mutex<Vec<ProgressBar>>>,
}

impl Board {
    /// Draws if it is wanted and somebody can see it.
    pub fn new(wanted: bool) -> Self {
        if !(wanted && std::io::stderr().is_terminal()) {
            return Self { drawn: None };
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAW_HZ));
        let whole = all.add(ProgressBar::new(0).with_style(style(WHOLE)));
        Self { drawn: Some(Drawn { all, whole, tasks: Arc::default() }) }
    }

    /// Whether anything is drawn.
    pub fn is_drawn(&self) -> bool {
        self.drawn.is_some()
    }

    /// Shows how things stand.
    pub fn show(&self, waited: &Waited) {
        let Some(Drawn { all, whole, tasks }) = &self.drawn else { return };
        whole.set_length(waited.counts.total());
        whole.set_position(waited.counts.ended());
        whole.set_message(counted(&waited.counts));
        let mut bars = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while bars.len() > waited.running.len() {
            if let Some(bar) = bars.pop() {
                bar.finish_and_clear();
                all.remove(&bar);
            }
        }
        while bars.len() < waited.running.len() {
            bars.push(all.add(ProgressBar::new(100).with_style(style(TASK))));
        }
        for (bar, task) in bars.iter().zip(&waited.running) {
            bar.set_prefix(named(task));
            bar.set_message(task.progress.message.as_deref().map(plain).unwrap_or_default());
            bar.set_position(u64::from(task.progress.percent));
        }
    }

    /// Lets something be printed where it is drawn.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.drawn {
            Some(drawn) => drawn.all.suspend(print),
            None => print(),
        }
    }

    /// Takes it away.
    pub fn clear(&self) {
        if let Some(drawn) = &self.drawn {
            drawn.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(ProgressBar::finish_and_clear);
            drawn.whole.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("#>-")
}

/// What runs and what went wrong.
fn counted(counts: &TaskCounts) -> String {
    let running = counts.running + counts.assigned;
    match counts.unsuccessful() {
        0 => format!("{running} running"),
        failed => format!("{running} running, {failed} failed"),
    }
}

fn named(task: &RunningTask) -> String {
    format!("{}#{}", plain(&task.name), task.id.seq())
}
