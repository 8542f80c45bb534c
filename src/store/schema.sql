-- Version 1 of the queue's database. One owner at a time; see mod.rs.
-- Times: *_us are microseconds, *_ms milliseconds of Unix time. Zero costs no byte in a row, NULL costs none either.

-- Facts about the queue as a whole: 'tag' (its 40 random bits, for ever), 'paused' (JSON, only while it is, by hand).
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;

-- One row, rewritten by every transaction: so opening never counts, and numbers are never given out twice.
CREATE TABLE ledger (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  batch INTEGER NOT NULL,       -- number of the last committed transaction
  next_seq INTEGER NOT NULL,    -- the first task number never used, arrays' ranges included
  next_event INTEGER NOT NULL,  -- the first event number never used
  last_ms INTEGER NOT NULL,     -- submission time of the youngest task: ids never go back in time
  pending INTEGER NOT NULL, completed INTEGER NOT NULL, failed INTEGER NOT NULL,
  cancelled INTEGER NOT NULL, timeout INTEGER NOT NULL
);

CREATE TABLE task (
  seq INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,                    -- 0 task, 1 array, 2 member of an array
  state INTEGER NOT NULL,                   -- TaskState; only 0 and the four final ones are ever stored
  priority INTEGER NOT NULL,
  class INTEGER NOT NULL,
  blockers INTEGER NOT NULL DEFAULT 0,      -- dependencies that are not met yet
  not_before_us INTEGER NOT NULL DEFAULT 0, -- 0: now
  held INTEGER NOT NULL DEFAULT 0,          -- 1 held by a person (reserved), 2 array without untouched members
  flags INTEGER NOT NULL DEFAULT 0,         -- 1 has dependents, 2 has dependencies
  running INTEGER NOT NULL DEFAULT 0,       -- 1 an attempt was started and its end is not recorded
  attempts INTEGER NOT NULL DEFAULT 0,      -- number of the last attempt
  failures INTEGER NOT NULL DEFAULT 0,      -- attempts that failed since submission or retry by a person
  losses INTEGER NOT NULL DEFAULT 0,        -- attempts that ended with their worker, likewise
  submitted_ms INTEGER NOT NULL,
  started_us INTEGER, finished_us INTEGER,
  spec TEXT,                                -- TaskSpec as JSON; NULL for a member
  result TEXT, reason TEXT, progress_percent REAL, progress_message TEXT
);
-- The primary key is each index's last column: lanes come out in order of submission.
CREATE INDEX task_ready ON task (priority, class)
  WHERE state = 0 AND blockers = 0 AND not_before_us = 0 AND held = 0;
CREATE INDEX task_delayed ON task (not_before_us) WHERE state = 0 AND not_before_us > 0;
CREATE INDEX task_finished ON task (finished_us) WHERE state >= 3;
-- As short as the pool is wide: what a crash interrupted is found here.
CREATE INDEX task_running ON task (running) WHERE running = 1;

-- The part of an array that changes; its task row carries the rest. Member i has number seq + 1 + i.
CREATE TABLE array (
  seq INTEGER PRIMARY KEY,
  count INTEGER NOT NULL,
  first INTEGER,                       -- of a range; NULL: the items are texts
  cursor INTEGER NOT NULL DEFAULT 0,   -- members before it have a row, or had one
  stopped INTEGER NOT NULL DEFAULT 0,  -- 1: the members without a row are cancelled
  unborn INTEGER NOT NULL DEFAULT 0,   -- so many members were cancelled by that mark alone
  open INTEGER NOT NULL,               -- members that have not ended
  failed INTEGER NOT NULL DEFAULT 0,   -- members that failed or timed out
  cancelled INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE array_item (header INTEGER, idx INTEGER, text TEXT NOT NULL, PRIMARY KEY (header, idx)) WITHOUT ROWID;

CREATE TABLE dep (
  blocker INTEGER, dependent INTEGER, kind INTEGER, met INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (blocker, met, dependent, kind)
) WITHOUT ROWID;
CREATE INDEX dep_of ON dep (dependent);

-- Work that one transaction was too small for: 0 tell the dependents, 1 retry the members of an array.
CREATE TABLE todo (kind INTEGER, seq INTEGER, pos INTEGER, at_us INTEGER, PRIMARY KEY (kind, seq)) WITHOUT ROWID;

CREATE TABLE attempt (
  key INTEGER PRIMARY KEY,             -- task number * 2^23 + attempt number: no index needed
  worker BLOB, started_us INTEGER NOT NULL, finished_us INTEGER NOT NULL,
  verdict TEXT,                        -- JSON; NULL stands for exited(0)
  isolation INTEGER NOT NULL, guard INTEGER NOT NULL, leaked INTEGER NOT NULL,
  wall_us INTEGER NOT NULL, user_us INTEGER NOT NULL, system_us INTEGER NOT NULL,
  max_rss_bytes INTEGER NOT NULL, read_bytes INTEGER NOT NULL, written_bytes INTEGER NOT NULL,
  segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
  stdout_bytes INTEGER NOT NULL, stderr_bytes INTEGER NOT NULL, truncated INTEGER NOT NULL,
  error TEXT
);
-- How many kept attempts begin in a journal segment.
CREATE TABLE segment (worker BLOB, segment INTEGER, uses INTEGER NOT NULL, PRIMARY KEY (worker, segment)) WITHOUT ROWID;

-- One row may stand for 'count' events with consecutive numbers (submissions), or for two (a start that knows its claim:
-- 'count' is then the microseconds between them).
CREATE TABLE event (
  seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, kind INTEGER NOT NULL,
  task INTEGER, task_ms INTEGER, count INTEGER, attempt INTEGER, worker BLOB, data TEXT
);

CREATE TABLE worker (
  id BLOB PRIMARY KEY, slot INTEGER NOT NULL, pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL, boot_id TEXT NOT NULL,
  mode TEXT NOT NULL, started_us INTEGER NOT NULL, stopped_us INTEGER,
  completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX worker_live ON worker (slot) WHERE stopped_us IS NULL;
