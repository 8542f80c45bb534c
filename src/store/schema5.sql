-- Version 5: what is known of the first attempt, if that was a plain success that ended in company: see ends.rs. NULL otherwise.
-- Such an attempt has no row of its own. In 'event' a row of kind 32 stands for claim, start and end of 'count' tasks: see
-- ran.rs; 'data' is then a blob, 'task' the first of them, and 'at_us' the last end.
ALTER TABLE task ADD COLUMN brief BLOB;
