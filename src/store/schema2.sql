-- Version 2: names, unique keys, limit groups, start deadlines, and since when a task has been ready.
ALTER TABLE task ADD COLUMN name TEXT;                              -- the one given, so that it can be found; else NULL
ALTER TABLE task ADD COLUMN key TEXT;                               -- unique among the tasks that have not ended
ALTER TABLE task ADD COLUMN grp INTEGER NOT NULL DEFAULT 0;         -- its limit group; 0: none
ALTER TABLE task ADD COLUMN ready_us INTEGER NOT NULL DEFAULT 0;    -- since when only its turn is missing; 0: submission
ALTER TABLE task ADD COLUMN expires_us INTEGER NOT NULL DEFAULT 0;  -- it must have started by then; 0: whenever
ALTER TABLE task ADD COLUMN ooms INTEGER NOT NULL DEFAULT 0;        -- attempts that ran out of memory, like failures

-- Tasks of one lane and group come out in order of submission; the dispatcher merges the groups of a lane by number.
DROP INDEX task_ready;
CREATE INDEX task_ready ON task (priority, class, grp)
  WHERE state = 0 AND blockers = 0 AND not_before_us = 0 AND held = 0;
CREATE INDEX task_name ON task (name) WHERE name IS NOT NULL;
CREATE UNIQUE INDEX task_key ON task (key) WHERE key IS NOT NULL AND state = 0;
CREATE INDEX task_expires ON task (expires_us) WHERE state = 0 AND expires_us > 0;

-- Tasks that read a copy of their submitter's standard input have flag 4, so that copies nobody reads can be found.
UPDATE task SET flags = flags | 4 WHERE spec LIKE '%/stdin/stdin-%';
CREATE INDEX task_copy ON task (seq) WHERE flags & 4;

-- At most 'max' tasks of a group are handed out at once; NULL: as many as there is room for.
CREATE TABLE grp (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, max INTEGER);
