//! The statements of the write path, each prepared at most once per transaction and kept by the connection's cache.
//!
//! Owner: `apply`. Deliberately absent: statements of the read path, which stand where they are used.

use super::bulk::{insert_rows, member_rows};
use super::ends::{end_rows, plain_rows, sixteen};
use super::events::width;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row, Statement};

macro_rules! statements {
    ($($name:ident = $text:expr;)*) => {
        /// Names of the statements.
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Sql { $($name),* }
        const TEXTS: &[&str] = &[$($text),*];
    };
}

statements! {
    Begin = "BEGIN IMMEDIATE";
    Commit = "COMMIT";
    SaveLedger = "UPDATE ledger SET batch=?1, next_seq=?2, next_event=?3, last_ms=?4, pending=?5, completed=?6,
        failed=?7, cancelled=?8, timeout=?9, blocked=?10 WHERE id=1";
    InsertEvent = "INSERT INTO event(seq, at_us, kind, task, task_ms, count, attempt, worker, data)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    SameEvent = "SELECT 1 FROM event WHERE seq >= ?1 AND at_us = ?2 AND kind = ?3 AND data IS ?4 AND worker IS ?5 LIMIT 1";

    InsertPlain = "INSERT OR IGNORE INTO task(seq, kind, state, priority, class, blockers, not_before_us, flags,
        submitted_ms, spec) VALUES(?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    InsertRows = insert_rows!();
    AnyBetween = "SELECT 1 FROM task WHERE seq >= ?1 AND seq <= ?2 LIMIT 1";
    InsertTask = "INSERT OR IGNORE INTO task(seq, kind, state, priority, class, blockers, not_before_us, flags,
        submitted_ms, spec, name, key, grp, held, expires_us, aged)
        VALUES(?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    InsertArray = "INSERT INTO array(seq, count, first, open) VALUES(?1, ?2, ?3, ?2)";
    InsertItem = "INSERT INTO array_item(header, idx, text) VALUES(?1, ?2, ?3)";
    InsertDep = "INSERT OR IGNORE INTO dep(blocker, dependent, kind, met) VALUES(?1, ?2, ?3, ?4)";

    KeyHolder = "SELECT seq, submitted_ms FROM task WHERE key = ?1 AND key IS NOT NULL AND state = 0";
    KeyRival = "SELECT other.key FROM task AS own JOIN task AS other ON other.key = own.key AND other.key IS NOT NULL
        AND other.state = 0 WHERE own.seq = ?1 AND own.key IS NOT NULL AND own.state <> 0";

    Row = "SELECT kind, state, priority, class, blockers, not_before_us, held, flags, submitted_ms,
        grp, expires_us, aged, brief IS NOT NULL FROM task WHERE seq = ?1";
    ArrayOf = "SELECT seq, count, cursor, stopped, open, failed, cancelled, unborn FROM array WHERE seq <= ?1
        ORDER BY seq DESC LIMIT 1";

    Start = "UPDATE task SET attempts = ?2, running = 1, started_us = ?3, progress_percent = NULL,
        progress_message = NULL, expires_us = 0 WHERE seq = ?1 AND state = 0 AND attempts < ?2";
    NeverStarted = "SELECT 1 FROM task WHERE seq = ?1 AND state = 0 AND attempts = 0";
    Progress = "UPDATE task SET progress_percent = ?2, progress_message = ?3 WHERE seq = ?1 AND state = 0
        AND (progress_percent IS NOT ?2 OR progress_message IS NOT ?3)";
    InsertAttempt = "INSERT OR IGNORE INTO attempt VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13,
        ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31)";
    UseSegment = "INSERT INTO segment VALUES(?1, ?2, 1) ON CONFLICT DO UPDATE SET uses = uses + 1";
    End = "UPDATE task SET state = ?2, finished_us = ?3, running = 0, attempts = max(attempts, ?4),
        failures = failures + ?5, result = ?6, reason = ?7, started_us = coalesce(?8, started_us),
        losses = losses + ?9, ooms = ooms + ?10
        WHERE seq = ?1 AND state = 0";
    Again = "UPDATE task SET not_before_us = ?2, running = 0, attempts = max(attempts, ?3), failures = failures + ?4,
        losses = losses + ?5, started_us = coalesce(?6, started_us), ready_us = ?7, ooms = ooms + ?8, priority = priority + aged, aged = 0,
        expires_us = CASE WHEN ?6 IS NULL THEN expires_us ELSE 0 END WHERE seq = ?1 AND state = 0";
    PlainRows = plain_rows!();
    EndRows = end_rows!();
    MembersEnded = "UPDATE array SET open = open - ?2 WHERE seq = ?1";
    EndArray = "UPDATE task SET state = ?2, finished_us = ?3 WHERE seq = ?1 AND state = 0";
    Revive = "UPDATE task SET state = 0, finished_us = NULL, running = 0, failures = 0, losses = 0, ooms = 0, result = NULL,
        reason = NULL, broke = NULL, root = NULL, not_before_us = 0, blockers = ?2, ready_us = ?3, expires_us = 0, held = held & ~1,
        priority = priority + aged, aged = 0 WHERE seq = ?1 AND state >= 3";
    ReviveArray = "UPDATE task SET state = 0, finished_us = NULL, reason = NULL, broke = NULL, root = NULL,
        held = (held & 1) | ?2 WHERE seq = ?1";

    Due = "SELECT seq FROM task INDEXED BY task_delayed WHERE state = 0 AND not_before_us > 0 AND not_before_us <= ?1
        ORDER BY not_before_us LIMIT ?2";
    Undelay = "UPDATE task SET not_before_us = 0, ready_us = CASE WHEN held & 1 THEN ready_us ELSE ?2 END
        WHERE seq = ?1 AND state = 0";

    MemberRows = member_rows!();
    ExpandTo = "UPDATE array SET cursor = ?2 WHERE seq = ?1";
    Hold = "UPDATE task SET held = held | ?2, expires_us = 0 WHERE seq = ?1";
    HoldByPerson = "UPDATE task SET held = held | 1, ready_us = ?2 WHERE seq = ?1 AND state = 0 AND held & 1 = 0";
    ReleaseByPerson = "UPDATE task SET held = held & ~1, ready_us = ?2 WHERE seq = ?1 AND state = 0 AND held & 1 = 1";
    HeldBetween = "SELECT seq FROM task INDEXED BY task_held WHERE state = 0 AND held = 1 AND seq >= ?1 AND seq <= ?2
        ORDER BY seq LIMIT ?3";
    Unexpire = "UPDATE task SET expires_us = 0 WHERE seq = ?1";
    ReadyFrom = "SELECT seq, submitted_ms, ready_us, aged FROM task INDEXED BY task_ready WHERE state = 0
        AND blockers = 0 AND not_before_us = 0 AND held = 0 AND priority = ?1 AND class = ?2 AND grp = ?3 AND seq > ?4
        ORDER BY seq LIMIT ?5";
    NextGroup = "SELECT grp FROM task INDEXED BY task_ready WHERE state = 0 AND blockers = 0 AND not_before_us = 0
        AND held = 0 AND priority = ?1 AND class = ?2 AND grp > ?3 ORDER BY grp LIMIT 1";
    MoveUp = "UPDATE task SET priority = priority - 1, aged = aged + 1 WHERE seq = ?1 AND state = 0 AND priority > 0";

    GroupByName = "SELECT id, max, held_us FROM grp WHERE name = ?1";
    CountGroups = "SELECT count(*) FROM grp";
    InsertGroup = "INSERT INTO grp(name) VALUES(?1) RETURNING id";
    SaveGroup = "UPDATE grp SET max = ?2, held_us = ?3 WHERE id = ?1";
    CountOpen = "UPDATE grp SET open = max(0, open + ?2) WHERE id = ?1";
    MemberEnded = "UPDATE array SET open = open - 1, failed = failed + ?2, cancelled = cancelled + ?3 WHERE seq = ?1";
    MemberRevived = "UPDATE array SET open = open + 1, failed = failed - ?2, cancelled = cancelled - ?3 WHERE seq = ?1";
    StopArray = "UPDATE array SET stopped = 1, unborn = ?2, open = open - ?2, cancelled = cancelled + ?2 WHERE seq = ?1";
    StopHeader = "UPDATE task SET held = 2, not_before_us = 0, expires_us = 0, reason = ?2 WHERE seq = ?1";
    UnstopArray = "UPDATE array SET stopped = 0, unborn = 0, open = open + unborn, cancelled = cancelled - unborn WHERE seq = ?1";
    Born = "UPDATE array SET open = open + 1, cancelled = cancelled - 1, unborn = unborn - 1 WHERE seq = ?1";
    SetBlockers = "UPDATE task SET blockers = ?2 WHERE seq = ?1";
    RowsBetween = "SELECT count(*) FROM task WHERE seq >= ?1 AND seq <= ?2";
    ReadyBetween = "SELECT seq FROM task INDEXED BY task_ready WHERE state = 0 AND blockers = 0 AND not_before_us = 0
        AND held = 0 AND priority = ?1 AND class = ?2 AND grp = ?3 AND seq >= ?4 AND seq <= ?5";
    DelayedBetween = "SELECT seq FROM task INDEXED BY task_delayed WHERE state = 0 AND not_before_us > 0
        AND seq >= ?1 AND seq <= ?2";
    EndedBetween = "SELECT seq, state FROM task WHERE seq >= ?1 AND seq <= ?2 AND state <> 0 LIMIT ?3";

    Unmet = "SELECT dependent, kind FROM dep WHERE blocker = ?1 AND dependent > ?2 AND met = 0 LIMIT ?3";
    Meet = "UPDATE dep SET met = 1 WHERE blocker = ?1 AND dependent > ?2 AND dependent <= ?3 AND met = 0";
    Unblock = "UPDATE task SET blockers = blockers - 1,
        ready_us = CASE WHEN blockers = 1 AND held & 1 = 0 THEN ?2 ELSE ready_us END
        WHERE seq = ?1 AND state = 0 AND blockers > 0
        RETURNING kind, state, priority, class, blockers, not_before_us, held, flags, submitted_ms, grp, expires_us, aged,
        brief IS NOT NULL";
    Cause = "SELECT root FROM task WHERE seq = ?1 AND root IS NOT NULL";
    SetCause = "UPDATE task SET broke = ?2, root = ?3 WHERE seq = ?1 AND state >= 3";

    HookFacts = "SELECT spec, attempts, started_us, reason FROM task WHERE seq = ?1";
    LastVerdict = "SELECT verdict, error FROM attempt WHERE key = ?1
        UNION ALL SELECT NULL, NULL FROM task WHERE seq = ?2 AND ?3 = 1 AND brief IS NOT NULL";
    SetHook = "UPDATE task SET hook_of = ?2 WHERE seq = ?1";

    Block = "UPDATE dep SET met = 0 WHERE dependent = ?1 AND met = 1
        AND EXISTS (SELECT 1 FROM task WHERE task.seq = dep.blocker AND task.state = 0)";
    Settle = "UPDATE dep SET met = 1 WHERE dependent = ?1 AND met = 0
        AND NOT EXISTS (SELECT 1 FROM task WHERE task.seq = dep.blocker AND task.state = 0)";
    CountUnmet = "SELECT count(*) FROM dep JOIN task ON task.seq = dep.blocker WHERE dependent = ?1 AND met = 0
        AND task.state = 0";
    SaveTodo = "INSERT OR REPLACE INTO todo(kind, seq, pos, at_us) VALUES(?1, ?2, ?3, ?4)";
    LoadTodo = "SELECT kind, seq, pos, at_us FROM todo LIMIT ?1";
    DropTodo = "DELETE FROM todo WHERE kind = ?1 AND seq = ?2";
    AnyTodo = "SELECT 1 FROM todo LIMIT 1";

    SetMeta = "INSERT INTO meta(key, value) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET value = ?2 WHERE value IS NOT ?2";
    DropMeta = "DELETE FROM meta WHERE key = ?1";

    WorkerStarted = "INSERT OR IGNORE INTO worker(id, slot, pid, start_ticks, boot_id, mode, started_us)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    WorkerStopped = "UPDATE worker SET stopped_us = ?2, completed = ?3, failed = ?4 WHERE id = ?1 AND stopped_us IS NULL";

    OldTasks = "SELECT seq, kind, state, flags, attempts, finished_us FROM task INDEXED BY task_finished
        WHERE state >= 3 ORDER BY finished_us LIMIT ?1";
    RowsOf = "SELECT seq, kind, state, flags, attempts, finished_us FROM task WHERE seq >= ?1 AND seq <= ?2 LIMIT ?3";
    DropTask = "DELETE FROM task WHERE seq = ?1";
    DropArray = "DELETE FROM array WHERE seq = ?1";
    DropItems = "DELETE FROM array_item WHERE header = ?1 AND idx IN
        (SELECT idx FROM array_item WHERE header = ?1 ORDER BY idx LIMIT ?2)";
    DropDeps = "DELETE FROM dep WHERE dependent = ?1";
    Outputs = "SELECT worker, segment FROM attempt WHERE key >= ?1 AND key <= ?2 AND length > 0";
    FreeSegment = "UPDATE segment SET uses = uses - 1 WHERE worker = ?1 AND segment = ?2";
    DropSegment = "DELETE FROM segment WHERE worker = ?1 AND segment = ?2 AND uses <= 0";
    DropAttempts = "DELETE FROM attempt WHERE key >= ?1 AND key <= ?2";
    DropEvents = "DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE at_us < ?1
        AND seq <= (SELECT min(seq) FROM event) + ?2 ORDER BY seq LIMIT ?2)";
    DropSurplusEvents = concat!("DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE seq < ?1 AND seq + ",
        width!(), " <= ?1 ORDER BY seq LIMIT ?2)");
    DropWorkers = "DELETE FROM worker WHERE id IN (SELECT id FROM worker WHERE stopped_us < ?1 LIMIT ?2)";
}

/// The prepared statements of one transaction.
pub(super) struct Statements<'c> {
    conn: &'c Connection,
    prepared: [Option<CachedStatement<'c>>; TEXTS.len()],
}

impl<'c> Statements<'c> {
    /// None is prepared yet.
    pub(super) fn new(conn: &'c Connection) -> Self {
        Self { conn, prepared: [const { None }; TEXTS.len()] }
    }

    /// The most statements that are worth caching.
    pub(super) const COUNT: usize = TEXTS.len();

    fn get(&mut self, sql: Sql) -> rusqlite::Result<&mut CachedStatement<'c>> {
        let place = &mut self.prepared[sql as usize];
        match place {
            Some(statement) => Ok(statement),
            None => Ok(place.insert(self.conn.prepare_cached(TEXTS[sql as usize])?)),
        }
    }

    /// Runs a statement without an answer; says how many rows it changed.
    pub(super) fn run(&mut self, sql: Sql, params: impl Params) -> rusqlite::Result<usize> {
        self.get(sql)?.execute(params)
    }

    /// Runs a statement whose parameters are bound one by one; says how many rows it changed.
    pub(super) fn run_bound(
        &mut self,
        sql: Sql,
        bind: impl FnOnce(&mut Statement<'c>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<usize> {
        let statement = self.get(sql)?;
        bind(statement)?;
        statement.raw_execute()
    }

    /// Runs a query whose parameters are bound one by one; its text bounds how many rows it has.
    pub(super) fn query_bound(
        &mut self,
        sql: Sql,
        bind: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<()>,
        mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let statement = self.get(sql)?;
        bind(statement)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            each(row)?;
        }
        Ok(())
    }

    /// The first row of a query.
    pub(super) fn one<T>(
        &mut self,
        sql: Sql,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.get(sql)?.query_row(params, read).optional()
    }

    /// All rows of a query; its text bounds how many.
    pub(super) fn all<T>(
        &mut self,
        sql: Sql,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.get(sql)?.query_map(params, read)?.collect()
    }
}
