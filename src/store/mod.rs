//! The durable queue: one SQLite file that holds every task, attempt and event.
//!
//! Owner: whoever holds the instance lock, one at a time; the supervisor while it runs. WAL, `synchronous=FULL`: what
//! `apply` has returned from survives a power cut. `Assigned` and `Running` are facts of the live pool and are not
//! stored: after a crash everything unfinished is simply pending. Deliberately absent: a clock, threads, retries of
//! failed writes. Invariant: memory follows the disk; nothing here is changed before its commit.
//!
//! `op` is the data that comes in and goes out, `apply` the transaction; `submit`, `life`, `cancel`, `deps`, `order` and
//! `groups` are what it does, `bulk` and `ends` do it many times over, and `hooks` what follows an end; `queue`, `history`, `find` and `events` read; `prune`
//! forgets, `pause` remembers.

mod apply;
mod bulk;
mod cancel;
mod deps;
mod ends;
mod error;
mod events;
mod find;
mod groups;
mod history;
mod hooks;
mod life;
mod migrate;
mod notes;
mod op;
mod order;
mod pause;
mod prune;
mod queue;
mod ran;
mod statements;
mod submit;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use acode_worker::task::{DependencyKind, TaskId, WorkerId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

pub use error::{FindError, StoreError, SubmitError};
pub use events::{Event, EventKind};
pub use groups::{GROUPS_MAX, Group, GroupChange};
pub use history::{ArrayRecord, AttemptRecord, ListFilter, Page, TaskKind, TaskRecord};
pub use hooks::Hooks;
pub use notes::AttemptNotes;
pub use op::{Applied, AttemptEnd, Counts, NewTask, Next, NowReady, Op, Pause, WorkerRecord, later};
pub use order::AgePlace;
pub use prune::{Pruned, Retention};
pub use queue::{Entry, ReadyTask, Stream};

use apply::{InDoubt, Ledger};
use statements::Statements;

/// The name of the database in the state directory.
pub const FILE_NAME: &str = "queue.db";
/// How long another owner's lock is waited for. Short: the instance lock has settled the question before.
const BUSY: Duration = Duration::from_millis(200);
/// What the path of a copy of somebody's standard input contains: its folder in the state directory, and the
/// beginning of its name.
pub const COPY_MARK: &str = "/stdin/stdin-";
/// Room for the statements of the read path, on top of those of the write path.
const READ_STATEMENTS: usize = 24;

/// What a supervisor, or a client in its stead, needs of a queue, so that another engine can stand behind it. Each
/// method does, and fails, as the one of the same name of [`Store`], which says how.
#[expect(clippy::missing_errors_doc, reason = "said at the methods of Store")]
pub trait Queue {
    /// See [`Store::apply`].
    fn apply(&mut self, ops: &[Op]) -> Result<Applied, StoreError>;
    /// See [`Store::reopen`].
    fn reopen(&mut self) -> Result<(), StoreError>;
    /// See [`Store::prune`].
    fn prune(&mut self, policy: &Retention, now_us: u64, limit: u32) -> Result<Pruned, StoreError>;
    /// See [`Store::allocate`].
    fn allocate(&mut self, now_ms: u64, span: u64) -> TaskId;
    /// See [`Store::check`].
    fn check(&self, entries: &[NewTask]) -> Result<Result<(), (TaskId, SubmitError)>, StoreError>;
    /// See [`Store::counts`].
    fn counts(&self) -> Counts;
    /// See [`Store::blocked`].
    fn blocked(&self) -> u64;
    /// See [`Store::set_hooks`].
    fn set_hooks(&mut self, hooks: Hooks);
    /// See [`Store::has_dependents`].
    fn has_dependents(&self, id: TaskId) -> Result<bool, StoreError>;
    /// See [`Store::key_holder`].
    fn key_holder(&self, key: &str) -> Result<Option<TaskId>, StoreError>;
    /// See [`Store::key_of`].
    fn key_of(&self, id: TaskId) -> Result<Option<(TaskId, String)>, StoreError>;
    /// See [`Store::hooks_of`].
    fn hooks_of(&self, id: TaskId, limit: usize) -> Result<Vec<TaskId>, StoreError>;
    /// See [`Store::find_by_name`].
    fn find_by_name(&self, name: &str) -> Result<TaskId, FindError>;
    /// See [`Store::ready`].
    fn ready(&self, stream: Stream, after: u64, limit: usize) -> Result<Vec<ReadyTask>, StoreError>;
    /// See [`Store::ahead`].
    fn ahead(&self, stream: Stream, seq: u64, limit: u64) -> Result<u64, StoreError>;
    /// See [`Store::groups`].
    fn groups(&self) -> Result<Vec<Group>, StoreError>;
    /// See [`Store::open_in_group`].
    fn open_in_group(&self, group: u32, limit: usize) -> Result<Vec<TaskId>, StoreError>;
    /// See [`Store::next_expiry`].
    fn next_expiry(&self) -> Result<Option<u64>, StoreError>;
    /// See [`Store::expired`].
    fn expired(&self, now_us: u64, limit: usize) -> Result<Vec<u64>, StoreError>;
    /// See [`Store::next_delayed`].
    fn next_delayed(&self) -> Result<Option<u64>, StoreError>;
    /// See [`Store::interrupted`].
    fn interrupted(&self) -> Result<Vec<ReadyTask>, StoreError>;
    /// See [`Store::live_workers`].
    fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError>;
    /// See [`Store::get`].
    fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError>;
    /// See [`Store::find_by_prefix`].
    fn find_by_prefix(&self, prefix: &str) -> Result<TaskId, FindError>;
    /// See [`Store::find_by_number`].
    fn find_by_number(&self, seq: u64) -> Result<TaskId, FindError>;
    /// See [`Store::list`].
    fn list(&self, filter: &ListFilter, limit: usize) -> Result<Page, StoreError>;
    /// See [`Store::attempts`].
    fn attempts(&self, id: TaskId, limit: usize) -> Result<Vec<AttemptRecord>, StoreError>;
    /// See [`Store::dependencies`].
    fn dependencies(&self, id: TaskId, limit: usize) -> Result<Vec<(TaskId, DependencyKind, bool)>, StoreError>;
    /// See [`Store::events`].
    fn events(&self, since: u64, limit: usize) -> Result<Vec<Event>, StoreError>;
    /// See [`Store::last_event`].
    fn last_event(&self) -> u64;
    /// See [`Store::last_event_before`].
    fn last_event_before(&self, at_us: u64) -> Result<u64, StoreError>;
    /// See [`Store::copies_in_use`].
    fn copies_in_use(&self) -> Result<Vec<String>, StoreError>;
    /// See [`Store::segments_in_use`].
    fn segments_in_use(&self) -> Result<Vec<(WorkerId, u64)>, StoreError>;
}

/// The queue on disk.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    conn: Option<Connection>,
    tag: u64,
    ledger: Ledger,
    hooks: Hooks,
    /// Set by an error after which the connection is not to be trusted.
    broken: bool,
    in_doubt: Option<InDoubt>,
    /// A batch that failed, as it seemed, and was found on disk: its answer is still owed.
    settled: Option<InDoubt>,
}

impl Store {
    /// Opens the queue in the state directory `dir`, making it if there is none.
    ///
    /// # Errors
    /// The file cannot be opened, is no queue, is damaged, was written by a newer acode, or another process has it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let mut conn = connect(&path)?;
        prepare(&mut conn, &path)?;
        let (tag, ledger) = load(&conn).map_err(|e| StoreError::sort(&path, e))?;
        let hooks = Hooks::default();
        Ok(Self { path, conn: Some(conn), tag, ledger, hooks, broken: false, in_doubt: None, settled: None })
    }

    /// Drops the connection and opens a new one, after an error that asked for it. Everything in the write-ahead log is
    /// written again, to the database, and flushed there: a flush that failed is never trusted on a second try.
    ///
    /// # Errors
    /// As with `open`; the disk has not healed then, and this can be called again.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.broken = true;
        if let Some(old) = self.conn.take() {
            // Closing must not flush; if this fails, it merely does.
            let _ = old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
        let mut conn = connect(&self.path)?;
        prepare(&mut conn, &self.path)?;
        let sort = |e| StoreError::sort(&self.path, e);
        let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0)).map_err(sort)?;
        let (tag, mut ledger) = load(&conn).map_err(sort)?;
        if busy != 0 || tag != self.tag {
            return Err(StoreError::bug("the queue was replaced by another one while it was open"));
        }
        ledger.next_seq = ledger.next_seq.max(self.ledger.next_seq);
        ledger.last_ms = ledger.last_ms.max(self.ledger.last_ms);
        let found = self.in_doubt.take().filter(|doubt| doubt.batch == ledger.batch);
        self.settled = match (self.settled.take(), found) {
            (Some(owed), Some(mut found)) => {
                let later = std::mem::replace(&mut found.applied, owed.applied);
                found.applied.absorb(later);
                Some(found)
            }
            (owed, found) => found.or(owed),
        };
        self.ledger = ledger;
        self.conn = Some(conn);
        self.broken = false;
        Ok(())
    }

    /// The queue's random tag, part of every task's id.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The first task number that was never given out.
    pub fn next_seq(&self) -> u64 {
        self.ledger.next_seq
    }

    /// Gives out the id of a submission that takes `span` numbers (`1 +` members). It is not stored before it is
    /// submitted; given out and never used, it is merely a gap. A clock that goes back does not take ids with it.
    pub fn allocate(&mut self, now_ms: u64, span: u64) -> TaskId {
        let seq = self.ledger.next_seq;
        self.ledger.next_seq += span;
        self.ledger.last_ms = self.ledger.last_ms.max(now_ms);
        TaskId::new(self.ledger.last_ms, self.tag, seq)
    }

    /// How many tasks are in which state. Costs nothing.
    pub fn counts(&self) -> Counts {
        self.ledger.counts
    }

    /// How many tasks and arrays have not ended and wait for others. Costs nothing.
    pub fn blocked(&self) -> u64 {
        self.ledger.blocked
    }

    /// Says what runs from now on when a task has ended.
    pub fn set_hooks(&mut self, hooks: Hooks) {
        self.hooks = hooks;
    }

    /// The database's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn id(&self, millis: u64, seq: u64) -> TaskId {
        TaskId::new(millis, self.tag, seq)
    }

    /// Reads, with errors sorted.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let Some(conn) = &self.conn else { return Err(StoreError::Broken { path: self.path.clone() }) };
        work(conn).map_err(|e| StoreError::sort(&self.path, e))
    }
}

impl Queue for Store {
    fn apply(&mut self, ops: &[Op]) -> Result<Applied, StoreError> {
        Self::apply(self, ops)
    }
    fn reopen(&mut self) -> Result<(), StoreError> {
        Self::reopen(self)
    }
    fn prune(&mut self, policy: &Retention, now_us: u64, limit: u32) -> Result<Pruned, StoreError> {
        Self::prune(self, policy, now_us, limit)
    }
    fn allocate(&mut self, now_ms: u64, span: u64) -> TaskId {
        Self::allocate(self, now_ms, span)
    }
    fn check(&self, entries: &[NewTask]) -> Result<Result<(), (TaskId, SubmitError)>, StoreError> {
        Self::check(self, entries)
    }
    fn counts(&self) -> Counts {
        Self::counts(self)
    }
    fn blocked(&self) -> u64 {
        Self::blocked(self)
    }
    fn set_hooks(&mut self, hooks: Hooks) {
        Self::set_hooks(self, hooks);
    }
    fn has_dependents(&self, id: TaskId) -> Result<bool, StoreError> {
        Self::has_dependents(self, id)
    }
    fn key_holder(&self, key: &str) -> Result<Option<TaskId>, StoreError> {
        Self::key_holder(self, key)
    }
    fn key_of(&self, id: TaskId) -> Result<Option<(TaskId, String)>, StoreError> {
        Self::key_of(self, id)
    }
    fn hooks_of(&self, id: TaskId, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        Self::hooks_of(self, id, limit)
    }
    fn find_by_name(&self, name: &str) -> Result<TaskId, FindError> {
        Self::find_by_name(self, name)
    }
    fn ready(&self, stream: Stream, after: u64, limit: usize) -> Result<Vec<ReadyTask>, StoreError> {
        Self::ready(self, stream, after, limit)
    }
    fn ahead(&self, stream: Stream, seq: u64, limit: u64) -> Result<u64, StoreError> {
        Self::ahead(self, stream, seq, limit)
    }
    fn groups(&self) -> Result<Vec<Group>, StoreError> {
        Self::groups(self)
    }
    fn open_in_group(&self, group: u32, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        Self::open_in_group(self, group, limit)
    }
    fn next_expiry(&self) -> Result<Option<u64>, StoreError> {
        Self::next_expiry(self)
    }
    fn expired(&self, now_us: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        Self::expired(self, now_us, limit)
    }
    fn next_delayed(&self) -> Result<Option<u64>, StoreError> {
        Self::next_delayed(self)
    }
    fn interrupted(&self) -> Result<Vec<ReadyTask>, StoreError> {
        Self::interrupted(self)
    }
    fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        Self::live_workers(self)
    }
    fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        Self::get(self, id)
    }
    fn find_by_prefix(&self, prefix: &str) -> Result<TaskId, FindError> {
        Self::find_by_prefix(self, prefix)
    }
    fn find_by_number(&self, seq: u64) -> Result<TaskId, FindError> {
        Self::find_by_number(self, seq)
    }
    fn list(&self, filter: &ListFilter, limit: usize) -> Result<Page, StoreError> {
        Self::list(self, filter, limit)
    }
    fn attempts(&self, id: TaskId, limit: usize) -> Result<Vec<AttemptRecord>, StoreError> {
        Self::attempts(self, id, limit)
    }
    fn dependencies(&self, id: TaskId, limit: usize) -> Result<Vec<(TaskId, DependencyKind, bool)>, StoreError> {
        Self::dependencies(self, id, limit)
    }
    fn events(&self, since: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        Self::events(self, since, limit)
    }
    fn last_event(&self) -> u64 {
        Self::last_event(self)
    }
    fn last_event_before(&self, at_us: u64) -> Result<u64, StoreError> {
        Self::last_event_before(self, at_us)
    }
    fn copies_in_use(&self) -> Result<Vec<String>, StoreError> {
        Self::copies_in_use(self)
    }
    fn segments_in_use(&self) -> Result<Vec<(WorkerId, u64)>, StoreError> {
        Self::segments_in_use(self)
    }
}

/// Opens the file, for its owner's eyes only, and nothing of its content.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    made.map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|e| StoreError::sort(path, e))
}

/// Settles how the connection works, and brings the schema up to date.
fn prepare(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let sort = |e| StoreError::sort(path, e);
    conn.busy_timeout(BUSY).map_err(sort)?;
    // Else a value bound to a condition of a partial index makes SQLite compile the statement anew at every use, in the
    // hope of a better plan; our plans are named in the statements.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(sort)?;
    // Exclusive: one owner, and the index of the log stays in private memory instead of a shared file.
    conn.execute_batch("PRAGMA locking_mode=EXCLUSIVE").map_err(sort)?;
    let version = migrate::check(conn, path)?;
    conn.execute_batch(
        "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-7000;
         PRAGMA wal_autocheckpoint=2000; PRAGMA journal_size_limit=33554432; PRAGMA temp_store=MEMORY;
         PRAGMA foreign_keys=OFF",
    )
    .map_err(sort)?;
    conn.set_prepared_statement_cache_capacity(Statements::COUNT + READ_STATEMENTS);
    migrate::run(conn, path, version)
}

/// The queue's tag and numbers, as they are on disk.
fn load(conn: &Connection) -> rusqlite::Result<(u64, Ledger)> {
    let tag = conn.query_row("SELECT value FROM meta WHERE key = 'tag'", [], |r| r.get(0))?;
    let columns = "batch, next_seq, next_event, last_ms, pending, completed, failed, cancelled, timeout, blocked";
    let ledger = conn.query_row(&format!("SELECT {columns} FROM ledger WHERE id = 1"), [], |r| {
        Ok(Ledger {
            batch: r.get(0)?,
            next_seq: r.get(1)?,
            next_event: r.get(2)?,
            last_ms: r.get(3)?,
            counts: Counts {
                pending: r.get(4)?,
                completed: r.get(5)?,
                failed: r.get(6)?,
                cancelled: r.get(7)?,
                timeout: r.get(8)?,
            },
            blocked: r.get(9)?,
        })
    })?;
    Ok((tag, ledger))
}

#[cfg(test)]
mod tests;
