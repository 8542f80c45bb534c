//! Finding a task by the beginning of its id, its name or its key, as people type it.
//!
//! Owner: the store. A prefix is a range of ids, so of times and, when it is long enough, of numbers; times never
//! decrease with the number, so the range of numbers is found by bisection on the primary key, without an index.

use acode_worker::task::TaskId;
use rusqlite::{Connection, OptionalExtension};

use super::{FindError, Store, StoreError};

/// Characters of a ULID, five bits each.
const LENGTH: usize = 26;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The least and the greatest id that begin with `prefix`; `None` if none can.
fn range(prefix: &str) -> Option<(u128, u128)> {
    if prefix.is_empty() || prefix.len() > LENGTH {
        return None;
    }
    let mut value: u128 = 0;
    for (place, c) in prefix.bytes().enumerate() {
        let digit = match c.to_ascii_uppercase() {
            b'I' | b'L' => 1,
            b'O' => 0,
            c => ALPHABET.iter().position(|a| *a == c)?,
        };
        // The first character carries three bits: 26 times 5 are two more than 128.
        if place == 0 && digit > 7 {
            return None;
        }
        value = value << 5 | digit as u128;
    }
    let open = 5 * (LENGTH - prefix.len()) as u32;
    let low = value.checked_shl(open).unwrap_or(0);
    Some((low, low | (1_u128.checked_shl(open).unwrap_or(0)).wrapping_sub(1)))
}

impl Store {
    /// The one task, array or member whose id begins with `prefix`; upper and lower case are the same.
    ///
    /// # Errors
    /// There is none, more than one, the text cannot begin an id, or the queue could not be read.
    pub fn find_by_prefix(&self, prefix: &str) -> Result<TaskId, FindError> {
        let (low, high) = range(prefix).ok_or_else(|| FindError::NotAnId(prefix.to_owned()))?;
        let (low, high) = (TaskId::from_u128(low), TaskId::from_u128(high));
        let mut found = self.read(|conn| {
            let last = first_since(conn, high.millis().saturating_add(1))?.saturating_sub(1);
            // The last row may be an array's, whose untouched members have numbers but no rows.
            let last = self.template(conn, last)?.map_or(last, |array| array.id.seq() + array.count);
            let mut numbers = (first_since(conn, low.millis())?, last);
            if (low.millis(), low.queue()) == (high.millis(), high.queue()) {
                numbers = (numbers.0.max(low.seq()), numbers.1.min(high.seq()));
            }
            self.some_between(conn, numbers.0, numbers.1)
        })?;
        found.retain(|id| low <= *id && *id <= high);
        match found.as_slice() {
            [] => Err(FindError::NotFound(prefix.to_owned())),
            [one] => Ok(*one),
            [first, ..] => Err(FindError::Ambiguous { prefix: prefix.to_owned(), first: *first }),
        }
    }

    /// The task, array or member with this number.
    ///
    /// # Errors
    /// There is none, or the queue could not be read.
    pub fn find_by_number(&self, seq: u64) -> Result<TaskId, FindError> {
        let found = self.read(|conn| self.some_between(conn, seq, seq))?;
        found.first().copied().ok_or_else(|| FindError::NotFound(seq.to_string()))
    }

    /// The youngest task or array that was given this name.
    ///
    /// # Errors
    /// There is none, or the queue could not be read.
    pub fn find_by_name(&self, name: &str) -> Result<TaskId, FindError> {
        let sql = "SELECT submitted_ms, seq FROM task INDEXED BY task_name WHERE name = ?1 AND name IS NOT NULL
            ORDER BY seq DESC LIMIT 1";
        self.one(sql, name)?.ok_or_else(|| FindError::NotFound(name.to_owned()))
    }

    /// The task or array that has this key and has not ended.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn key_holder(&self, key: &str) -> Result<Option<TaskId>, StoreError> {
        let sql = "SELECT submitted_ms, seq FROM task INDEXED BY task_key WHERE key = ?1 AND key IS NOT NULL
            AND state = 0";
        self.one(sql, key)
    }

    /// The key of a task or array, and whose it is: a member's is its array's.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn key_of(&self, id: TaskId) -> Result<Option<(TaskId, String)>, StoreError> {
        self.read(|conn| {
            let owner = self.template(conn, id.seq())?.map_or(id, |array| array.id);
            let mut key = conn.prepare_cached("SELECT key FROM task WHERE seq = ?1")?;
            let key = key.query_row([owner.seq()], |r| r.get::<_, Option<String>>(0)).optional()?.flatten();
            Ok(key.map(|key| (owner, key)))
        })
    }

    fn one(&self, sql: &str, text: &str) -> Result<Option<TaskId>, StoreError> {
        self.read(|conn| {
            let mut found = conn.prepare_cached(sql)?;
            found.query_row([text], |r| Ok(self.id(r.get(0)?, r.get(1)?))).optional()
        })
    }

    /// Up to two different tasks with numbers from `from` to `to`.
    fn some_between(&self, conn: &Connection, from: u64, to: u64) -> rusqlite::Result<Vec<TaskId>> {
        let mut rows = conn
            .prepare_cached("SELECT seq, submitted_ms FROM task WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq LIMIT 2")?;
        let mut found: Vec<TaskId> =
            rows.query_map([from, to], |r| Ok(self.id(r.get(1)?, r.get(0)?)))?.collect::<Result<_, _>>()?;
        // Members without a row: of the arrays in which the range begins and ends. One in between has its own row.
        for edge in [from, to] {
            let Some(array) = self.template(conn, edge)?.filter(|_| found.len() < 2) else { continue };
            let first = from.max(array.id.seq() + 1 + array.cursor);
            let last = to.min(array.id.seq() + array.count);
            found.extend((first..=last).take(2).map(|seq| self.id(array.id.millis(), seq)));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// The number of the first task submitted at `ms` or later; past the last one if there is none.
fn first_since(conn: &Connection, ms: u64) -> rusqlite::Result<u64> {
    let mut next = conn.prepare_cached("SELECT seq, submitted_ms FROM task WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    let (mut low, mut high) = (0_u64, TaskId::SEQ_MAX + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match next.query_row([middle], |r| Ok((r.get::<_, u64>(0)?, r.get::<_, u64>(1)?))).optional()? {
            Some((seq, at)) if at < ms => low = seq + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}
