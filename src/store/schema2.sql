-- Version 2: names, unique keys, limit groups, start deadlines, since when a task has been ready, finish hooks.
ALTER TABLE task ADD COLUMN name TEXT;                              -- the one given, so that it can be found; else NULL
ALTER TABLE task ADD COLUMN key TEXT;                               -- unique among the tasks that have not ended
ALTER TABLE task ADD COLUMN grp INTEGER NOT NULL DEFAULT 0;         -- its limit group; 0: none
ALTER TABLE task ADD COLUMN ready_us INTEGER NOT NULL DEFAULT 0;    -- since when only its turn is missing; 0: submission
ALTER TABLE task ADD COLUMN expires_us INTEGER NOT NULL DEFAULT 0;  -- it must have started by then; 0: whenever
ALTER TABLE task ADD COLUMN ooms INTEGER NOT NULL DEFAULT 0;        -- attempts that ran out of memory, like failures
ALTER TABLE task ADD COLUMN broke INTEGER;                          -- the dependency whose end cancelled it
ALTER TABLE task ADD COLUMN root INTEGER;                           -- the end that all of that goes back to
ALTER TABLE task ADD COLUMN hook_of INTEGER;                        -- the ended task whose finish hook this one is
-- Of 'flags': 1 had dependents (no longer used), 2 has dependencies, 4 has a finish hook of its own, 8 is a finish hook,
-- 16 reads a copy of its submitter's standard input.

ALTER TABLE task ADD COLUMN aged INTEGER NOT NULL DEFAULT 0;        -- by how many priorities it moved up by waiting

-- Tasks of one lane and group come out in order of submission; the dispatcher merges the groups of a lane by number.
DROP INDEX task_ready;
CREATE INDEX task_ready ON task (priority, class, grp)
  WHERE state = 0 AND blockers = 0 AND not_before_us = 0 AND held = 0;
CREATE INDEX task_name ON task (name) WHERE name IS NOT NULL;
CREATE UNIQUE INDEX task_key ON task (key) WHERE key IS NOT NULL AND state = 0;
CREATE INDEX task_hook ON task (hook_of) WHERE hook_of IS NOT NULL;
CREATE INDEX task_expires ON task (expires_us) WHERE state = 0 AND expires_us > 0;

-- Tasks that read a copy of their submitter's standard input have flag 4, so that copies nobody reads can be found.
UPDATE task SET flags = flags | 4 WHERE spec LIKE '%/stdin/stdin-%';
CREATE INDEX task_copy ON task (seq) WHERE flags & 16;

-- At most 'max' tasks of a group are handed out at once; NULL: as many as there is room for.
CREATE TABLE grp (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, max INTEGER,
  open INTEGER NOT NULL DEFAULT 0,    -- its tasks that have not ended, members of arrays counted one by one
  held_us INTEGER NOT NULL DEFAULT 0  -- since when nothing of it is started, by a person's wish; 0: it is
);
-- What a person holds; of arrays their members too, each by itself.
CREATE INDEX task_held ON task (held) WHERE state = 0 AND held = 1;
-- The tasks of a group that have not ended, whatever they wait for.
CREATE INDEX task_group ON task (grp) WHERE grp > 0 AND state = 0;

-- So many tasks and arrays have not ended and wait for others.
ALTER TABLE ledger ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0;
UPDATE ledger SET blocked = (SELECT count(*) FROM task WHERE state = 0 AND blockers > 0);

-- That a dependency is settled changes its row and no key: the end of a task that is waited for writes as little as can be.
CREATE TABLE edge (
  blocker INTEGER, dependent INTEGER, kind INTEGER, met INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (blocker, dependent, kind)
) WITHOUT ROWID;
INSERT INTO edge SELECT blocker, dependent, kind, max(met) FROM dep GROUP BY blocker, dependent, kind;
DROP TABLE dep;
ALTER TABLE edge RENAME TO dep;
CREATE INDEX dep_of ON dep (dependent);
