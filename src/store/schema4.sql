-- Version 4: what was kept of the files that an attempt left. NULL where nothing was.
ALTER TABLE attempt ADD COLUMN artifacts TEXT;  -- as JSON
