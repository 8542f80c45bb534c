//! The role `daemon`: this program as a worker program, which runs one action after another in one process.
//!
//! The main thread runs the actions, and a second one listens, because a task may be told to end while it runs. Standard
//! output is the protocol's alone: what an action prints past its context goes to standard error. Deliberately absent: who
//! starts it and what becomes of it, which is `execute::programs`'.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use nix::sys::signal::{SigSet, Signal};

use super::context::{Context, Facts, Host, Why};
use super::protocol::{CancelReason, FromProgram, LogStream, ToProgram, Work, line};
use super::registry::{Outcome, Registry};
use crate::task::{Action, ActionType};

/// The role's name.
pub const ROLE: &str = "daemon";
/// Exit code of one that cannot speak to its worker.
const EXIT_MUTE: i32 = 74;
/// Tasks that are kept until the main thread takes them: the worker hands over one at a time.
const QUEUE: usize = 1;
/// The longest piece of output that is sent as one message, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// What both threads know.
#[derive(Debug, Default)]
struct Shared {
    /// Why the running task is to end; 0 if it is not.
    why: AtomicU8,
    /// The running task's id.
    current: Mutex<Option<String>>,
}

impl Shared {
    fn tell(&self, id: Option<&str>, why: Why) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if id.is_none() || current.as_deref() == id {
            let number = match why {
                Why::Timeout => 1,
                Why::Cancel => 2,
                Why::GiveBack => 3,
            };
            self.why.store(number, Ordering::Release);
        }
    }

    fn why(&self) -> Option<Why> {
        match self.why.load(Ordering::Acquire) {
            1 => Some(Why::Timeout),
            2 => Some(Why::Cancel),
            3 => Some(Why::GiveBack),
            _ => None,
        }
    }

    fn begin(&self, id: Option<&str>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = id.map(str::to_owned);
        self.why.store(0, Ordering::Release);
    }
}

/// Runs actions until standard input ends or says so. Gives the exit code.
pub fn serve(registry: &Registry) -> i32 {
    let Ok(mut voice) = take_stdout() else { return EXIT_MUTE };
    let shared = Arc::new(Shared::default());
    let (sender, works) = mpsc::sync_channel(QUEUE);
    let ears = shared.clone();
    heed_sigterm(&shared);
    std::thread::spawn(move || listen(&ears, &sender));
    if say(&mut voice, &FromProgram::Ready {}).is_err() {
        return EXIT_MUTE;
    }
    for work in works {
        if run(registry, &work, &shared, &mut voice).is_err() {
            return EXIT_MUTE;
        }
    }
    0
}

/// Has standard output for the protocol alone, and what is printed go to standard error.
fn take_stdout() -> io::Result<File> {
    let voice = nix::unistd::dup(io::stdout())?;
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok(File::from(voice))
}

/// SIGTERM is a wish that the running action end, as for any process of a task.
fn heed_sigterm(shared: &Arc<Shared>) {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    // Blocked before there is a second thread, which has the mask of this one. Where it cannot be, SIGTERM ends us.
    if signals.thread_block().is_ok() {
        let shared = shared.clone();
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                shared.tell(None, Why::Cancel);
            }
        });
    }
}

fn listen(shared: &Shared, works: &mpsc::SyncSender<Box<Work>>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(ToProgram::Task(work)) => {
                // Begun here and not when it is taken, so that no cancellation behind it comes too early.
                shared.begin(Some(&work.id));
                if works.send(work).is_err() {
                    return;
                }
            }
            Ok(ToProgram::Cancel { id, why }) => shared.tell(Some(&id), why.into()),
            Ok(ToProgram::Shutdown {}) => break,
            Ok(ToProgram::Warn { .. } | ToProgram::Other) => {}
            Err(error) => {
                eprintln!("acode: what the worker says cannot be read: {error}");
                break;
            }
        }
    }
    // Whoever still works works for nobody.
    shared.tell(None, CancelReason::GiveBack.into());
}

fn run(registry: &Registry, work: &Work, shared: &Shared, voice: &mut File) -> io::Result<()> {
    let id = work.id.clone();
    let (Some(kind), Ok(task)) = (ActionType::from_name(&work.action), work.id.parse()) else {
        let error = format!("there is no action of type '{}' here", work.action);
        return say(voice, &FromProgram::Error { id, error, code: None });
    };
    let action = Action { kind, name: work.name.clone(), params: work.payload.clone(), ..Action::default() };
    let facts = Facts {
        id: task,
        attempt: work.attempt,
        slot: work.slot,
        meta: work.meta.clone(),
        cwd: Some(PathBuf::from(&work.cwd)),
        checkpoint: work.checkpoint.as_ref().map(PathBuf::from),
    };
    let mut host = Daemon { shared, work, voice, failed: None };
    let outcome = registry.run(&action, &mut Context::new(&facts, &mut host));
    if let Some(error) = host.failed {
        return Err(error);
    }
    let answer = match outcome {
        Ok(Outcome::Done(result)) => {
            let payload = result.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            FromProgram::Result { id, payload }
        }
        Ok(outcome @ (Outcome::Failed(_) | Outcome::Panicked(_))) => {
            let code = u8::try_from(outcome.code()).ok();
            FromProgram::Error { id, error: outcome.error().unwrap_or_default(), code }
        }
        Err(error) => FromProgram::Error { id, error: error.to_string(), code: None },
    };
    say(voice, &answer)
}

fn say(voice: &mut File, message: &FromProgram) -> io::Result<()> {
    voice.write_all(&line(message))
}

/// What an action speaks to here.
struct Daemon<'d> {
    shared: &'d Shared,
    work: &'d Work,
    voice: &'d mut File,
    /// The worker is gone.
    failed: Option<io::Error>,
}

impl Daemon<'_> {
    fn say(&mut self, message: &FromProgram) {
        if self.failed.is_none() {
            self.failed = say(self.voice, message).err();
        }
    }
}

impl Host for Daemon<'_> {
    fn told_to_end(&self) -> Option<Why> {
        self.shared.why().or(self.failed.as_ref().map(|_| Why::GiveBack))
    }

    fn progress(&mut self, percent: f64, message: &str) {
        self.say(&FromProgram::Progress { id: self.work.id.clone(), percent, message: message.to_owned() });
    }

    fn write(&mut self, is_error: bool, bytes: &[u8]) {
        let stream = if is_error { LogStream::Stderr } else { LogStream::Stdout };
        let text = String::from_utf8_lossy(bytes);
        let mut rest = &*text;
        while !rest.is_empty() {
            let end = (0..=PIECE_BYTES.min(rest.len())).rev().find(|end| rest.is_char_boundary(*end)).unwrap_or(0);
            let (piece, left) = rest.split_at(end);
            self.say(&FromProgram::Log { id: self.work.id.clone(), text: piece.to_owned(), stream });
            rest = left;
        }
    }

    fn scratch(&mut self) -> io::Result<PathBuf> {
        Ok(PathBuf::from(&self.work.scratch))
    }
}
