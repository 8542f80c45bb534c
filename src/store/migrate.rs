//! Versions of the schema: one step per version, applied in order, each in its own transaction.
//!
//! Owner: the store. Deliberately absent: ways back. An older acode refuses a newer database.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// Marks the file as a queue of acode's ("acod").
const APPLICATION_ID: i64 = 0x6163_6f64;
/// The step that leads to version `index + 1`.
const STEPS: [&str; 5] = [
    include_str!("schema.sql"),
    include_str!("schema2.sql"),
    include_str!("schema3.sql"),
    include_str!("schema4.sql"),
    include_str!("schema5.sql"),
];
/// The newest version known here.
pub(super) const CURRENT: i64 = STEPS.len() as i64;

/// Refuses what is not ours or is newer than we are, before anything is written. Answers the version found.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let sort = |e| StoreError::sort(path, e);
    let found: i64 = conn.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(sort)?;
    if found > CURRENT {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found, known: CURRENT });
    }
    let mark: i64 = conn.query_row("PRAGMA application_id", [], |r| r.get(0)).map_err(sort)?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(sort)?;
    if mark != APPLICATION_ID && tables > 0 {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    Ok(found)
}

/// Brings a database from version `found` to the current one.
pub(super) fn run(conn: &mut Connection, path: &Path, found: i64) -> Result<(), StoreError> {
    let sort = |e| StoreError::sort(path, e);
    for (version, step) in (1..).zip(STEPS).filter(|(version, _)| *version > found) {
        let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sort)?;
        tx.execute_batch(step).map_err(sort)?;
        if version == 1 {
            tx.execute("INSERT INTO meta VALUES ('tag', ?1)", [random_tag()?]).map_err(sort)?;
            tx.execute("INSERT INTO ledger VALUES (1, 0, 1, 1, 0, 0, 0, 0, 0, 0)", []).map_err(sort)?;
        }
        tx.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}"))
            .map_err(sort)?;
        tx.commit().map_err(sort)?;
    }
    Ok(())
}

/// Forty bits that tell this queue's ids from those of any other.
fn random_tag() -> Result<i64, StoreError> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes[3..]).map_err(|e| StoreError::bug(format!("the kernel has no random bytes: {e}")))?;
    Ok(i64::from_be_bytes(bytes))
}
