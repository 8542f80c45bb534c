//! `acode run`: a pool for just this work, in the foreground.
//!
//! The pool is a supervisor in a process of its own, with a lifeline: when this process ends, however it ends, so does
//! the pool. Everything else goes through the control socket, as for any client. Three threads report to one channel:
//! the wait for the tasks, the signals, and, for a single command, its output. Deliberately absent: a second way to
//! run tasks.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acode_worker::output::{Filter, Follower, Kind, Since};
use acode_worker::task::TaskId;
use crossbeam_channel::{Receiver, Sender};

use super::progress::Board;
use super::{CliError, Context, logs};
use crate::api::PoolProcess;
use crate::rundir::{Dirs, Vars};
use crate::wire::reply::Waited;
use crate::wire::request::{Cancel, Stop, Wait};
use crate::wire::types::{StopMode, TaskCounts};
use crate::wire::{Client, ClientError, MAX_IDS, TaskRef};

/// How long the output of a command is looked for without being woken.
const OUTPUT_NAP: Duration = Duration::from_millis(50);

/// Something that the foreground has to follow.
#[derive(Debug)]
enum News {
    /// How the tasks stand.
    Counts(Waited),
    /// All have ended.
    Done(Waited),
    /// The pool is gone, or does not answer.
    Lost(ClientError),
    /// Somebody wants us to end.
    Signal(i32),
}

/// How the work ended.
#[derive(Debug)]
pub struct Ended {
    /// The tasks by state.
    pub counts: TaskCounts,
    /// Those that did not complete, the first of them.
    pub unsuccessful: Vec<TaskId>,
    /// How long it took.
    pub took: Duration,
    /// The signal that ended it early, if one did.
    pub interrupted: Option<i32>,
}

/// A pool for just this work, and its directories.
pub struct PrivatePool {
    dirs: Dirs,
    _process: PoolProcess,
}

impl PrivatePool {
    /// Starts a pool. Without a state directory of the user's it has one of its own, which goes with it. The calling
    /// process must be single-threaded.
    ///
    /// # Errors
    /// The pool did not come up: its exit code, or what the kernel said.
    pub fn start(
        dirs: Dirs,
        folder: Option<tempfile::TempDir>,
        config: crate::config::Config,
    ) -> io::Result<Result<Self, u8>> {
        let started = PoolProcess::fork(dirs.clone(), folder, config, |error| CliError::from(error).tell())?;
        Ok(started.map(|process| Self { dirs, _process: process }))
    }

    /// Where the pool's socket is.
    pub fn socket(&self) -> PathBuf {
        self.dirs.control_socket()
    }

    /// The folder of its output journal.
    pub fn journal(&self) -> PathBuf {
        self.dirs.journal()
    }
}

/// What is passed on while the tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The output of the one command, to the same streams.
    Command,
    /// That of the one task, all of it to standard error: standard output is for a document.
    Aside,
    /// That of many, each line with its task's name.
    Many,
    /// Nothing.
    Nothing,
}

impl Shown {
    /// Whether there is one task, which an interrupt cancels.
    fn is_single(self) -> bool {
        match self {
            Self::Command | Self::Aside => true,
            Self::Many | Self::Nothing => false,
        }
    }
}

/// Waits for the tasks, shows how far they are, and follows signals.
///
/// # Errors
/// The pool cannot be reached.
pub fn watch(
    pool: &PrivatePool,
    ids: &[TaskId],
    shown: Shown,
    notice: Option<String>,
    board: &Board,
) -> Result<Ended, ClientError> {
    let began = Instant::now();
    let (news, inbox) = crossbeam_channel::unbounded();
    let waiting = spawn_waiter(pool.socket(), ids.to_vec(), news.clone());
    spawn_signals(news);
    // Not before: whoever reads this may interrupt at once, and that is an interruption like any other.
    if let Some(notice) = notice {
        eprintln!("acode: {notice}");
    }
    let ended = Arc::new(AtomicBool::new(false));
    let output = match shown {
        Shown::Command | Shown::Aside => {
            let aside = shown == Shown::Aside;
            Some(spawn_output(pool.journal(), ids.first().copied(), aside, Arc::clone(&ended)))
        }
        Shown::Many => Some(spawn_log(pool.dirs.clone(), board.clone(), Arc::clone(&ended))),
        Shown::Nothing => None,
    };
    let outcome = follow(&inbox, pool, ids, shown.is_single(), board, began);
    ended.store(true, Ordering::Release);
    if let Some(output) = output {
        let _ = output.join();
    }
    if outcome.is_ok() {
        let _ = waiting.join();
    }
    outcome
}

fn follow(
    inbox: &Receiver<News>,
    pool: &PrivatePool,
    ids: &[TaskId],
    single: bool,
    board: &Board,
    began: Instant,
) -> Result<Ended, ClientError> {
    let mut interrupted = None;
    let ended = |waited: Waited, interrupted| Ended {
        counts: waited.counts,
        unsuccessful: waited.unsuccessful,
        took: began.elapsed(),
        interrupted,
    };
    let mut last = TaskCounts::default();
    loop {
        match inbox.recv() {
            Ok(News::Counts(waited)) => {
                last = waited.counts;
                board.show(&waited);
            }
            Ok(News::Done(waited)) => {
                board.clear();
                return Ok(ended(waited, interrupted));
            }
            Ok(News::Lost(error)) if interrupted.is_none() => {
                board.clear();
                return Err(error);
            }
            Ok(News::Signal(signal)) => {
                let again = interrupted.replace(signal).is_some();
                // Whatever cannot be told to the pool any more, our end tells it.
                let _ = interrupt(pool, ids, single, again);
                if again {
                    board.clear();
                    return Ok(ended(Waited { counts: last, ..Waited::default() }, interrupted));
                }
            }
            // The pool has stopped as it was told to.
            Ok(News::Lost(_)) | Err(_) => {
                board.clear();
                return Ok(ended(Waited { counts: last, ..Waited::default() }, interrupted));
            }
        }
    }
}

/// The first signal lets running tasks finish and starts no more, or ends a single command; the second ends all.
fn interrupt(pool: &PrivatePool, ids: &[TaskId], single: bool, again: bool) -> Result<(), ClientError> {
    let mut client = Client::connect(&pool.socket())?;
    if again {
        client.call(&Stop { mode: StopMode::Force, timeout_ms: None })?;
    } else if single {
        let ids = ids.iter().map(|id| TaskRef::Id(*id)).collect();
        client.call(&Cancel { ids, group: None, reason: Some("interrupted".to_owned()), now: false })?;
    } else {
        eprintln!("acode: letting running tasks finish; interrupt again to kill them");
        client.call(&Stop { mode: StopMode::Drain, timeout_ms: None })?;
    }
    Ok(())
}

fn spawn_waiter(socket: PathBuf, ids: Vec<TaskId>, news: Sender<News>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let waited = wait_for(&socket, &ids, |waited| drop(news.send(News::Counts(waited))));
        // Nobody listens any more if the foreground has ended.
        let _ = news.send(waited.map_or_else(News::Lost, News::Done));
    })
}

/// Waits for all of these, in as many calls as it takes.
///
/// # Errors
/// The pool cannot be reached.
pub fn wait_for(socket: &Path, ids: &[TaskId], mut progress: impl FnMut(Waited)) -> Result<Waited, ClientError> {
    let mut client = Client::connect(socket)?;
    let mut all = Waited::default();
    let chunks: Vec<&[TaskId]> = ids.chunks(MAX_IDS).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let behind: usize = chunks[index + 1..].iter().map(|chunk| chunk.len()).sum();
        let wait = Wait { ids: chunk.iter().map(|id| TaskRef::Id(*id)).collect(), all: false };
        let mut last = Waited::default();
        for waited in client.call_more(&wait)? {
            last = waited?;
            let mut counts = all.counts;
            counts.add(last.counts);
            counts.pending += behind as u64;
            progress(Waited { counts, unsuccessful: Vec::new(), running: last.running.clone() });
        }
        all.counts.add(last.counts);
        all.unsuccessful.extend(last.unsuccessful);
    }
    Ok(all)
}

fn spawn_signals(news: Sender<News>) {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if news.send(News::Signal(signal)).is_err() {
                return;
            }
        }
    });
}

/// Passes a command's output on as it comes, to the same streams, or all of it `aside` to standard error.
fn spawn_output(
    journal: PathBuf,
    task: Option<TaskId>,
    aside: bool,
    ended: Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let filter = task.map(|task| Filter { task, attempt: None });
        let Ok(mut follower) = Follower::new(journal, Since::Beginning, filter) else { return };
        loop {
            let over = ended.load(Ordering::Acquire);
            let delivered = follower.poll(|frame| {
                // A reader that went away is no reason to end the command.
                let _ = match frame.kind {
                    Kind::Stdout if !aside => io::stdout().write_all(frame.data).and_then(|()| io::stdout().flush()),
                    Kind::Stdout | Kind::Stderr => io::stderr().write_all(frame.data),
                    Kind::Truncated | Kind::End => Ok(()),
                };
            });
            match delivered {
                Ok(0) if over => return,
                Ok(0) => drop(follower.wait(Some(OUTPUT_NAP))),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    })
}

/// Passes the output of a batch on as it comes, each line with its task's name, above the progress.
fn spawn_log(dirs: Dirs, board: Board, ended: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let context = Context { dirs, own_state: None, vars: Vars::new(), json: false };
        // What the tasks say is a courtesy; what became of them is told in any case.
        let _ = logs::until(&context, &ended, |print| board.suspend(print));
    })
}
