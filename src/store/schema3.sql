-- Version 3: what an attempt used beyond its own processes' word, how its limits were held, and what is left of it.
-- All NULL where nobody counted, or there is nothing to tell, as of a short task without limits: a byte each.
ALTER TABLE attempt ADD COLUMN peak_memory_bytes INTEGER;
ALTER TABLE attempt ADD COLUMN throttled_us INTEGER;
ALTER TABLE attempt ADD COLUMN oom_kills INTEGER;
ALTER TABLE attempt ADD COLUMN peak_pids INTEGER;
ALTER TABLE attempt ADD COLUMN peak_disk_bytes INTEGER;
ALTER TABLE attempt ADD COLUMN source INTEGER;  -- who counted: NULL the kernel for reaped processes, 1 the cgroup
ALTER TABLE attempt ADD COLUMN limits TEXT;     -- how each was held, as JSON
ALTER TABLE attempt ADD COLUMN kept TEXT;       -- where its scratch directory was kept
ALTER TABLE attempt ADD COLUMN sandbox TEXT;    -- what held its sandbox, as JSON
