//! The limits: what the bare kernel and the bare libraries do on the same machine at the same time.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::pool::{Outcome, beside};

/// Two bare loops at once, `count` programs in all.
pub fn bare_loops(count: u32) -> Outcome<Duration> {
    let program = beside("bare_loop")?;
    let began = Instant::now();
    let half = (count / 2).to_string();
    let start = || Command::new(&program).arg(&half).stdout(Stdio::null()).spawn();
    let mut loops = [start()?, start()?];
    for one in &mut loops {
        one.wait()?;
    }
    Ok(began.elapsed())
}

/// A shell's one line; nothing if its first word is not installed here.
pub fn peer(program: &str, script: &str) -> Outcome<Option<Duration>> {
    let known = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status()?;
    if !known.success() {
        return Ok(None);
    }
    let began = Instant::now();
    let status = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let took = began.elapsed();
    if status.success() { Ok(Some(took)) } else { Err(format!("{program} failed").into()) }
}

/// Whether the program of this name is the one that is meant: asked for its version it says this first.
pub fn says(program: &str, first: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    asked.is_ok_and(|said| said.stdout.starts_with(first.as_bytes()))
}

/// Starts a program and does not wait for it.
pub fn spawn(program: &Path, argument: &Path) -> Outcome<nix::unistd::Pid> {
    use std::os::unix::ffi::OsStrExt;
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (program, argument) = (text(program)?, text(argument)?);
    let actions = nix::spawn::PosixSpawnFileActions::init()?;
    let attributes = nix::spawn::PosixSpawnAttr::init()?;
    let environment: [CString; 0] = [];
    Ok(nix::spawn::posix_spawn(program.as_c_str(), &actions, &attributes, &[&program, &argument], &environment)?)
}

/// 4 KiB writes per second, each followed by a flush of the data.
pub fn flushes(folder: &Path, rounds: u32) -> Outcome<f64> {
    let file = File::create(folder.join("raw"))?;
    file.write_all_at(&vec![1_u8; 4 << 20], 0)?;
    file.sync_all()?;
    let began = Instant::now();
    for n in 0..rounds {
        file.write_all_at(&[2_u8; 4_096], u64::from(n % 1_000) * 4_096)?;
        file.sync_data()?;
    }
    Ok(f64::from(rounds) / began.elapsed().as_secs_f64())
}

/// Rows per second of bare SQLite, as durable as the queue is, so many rows to a transaction.
pub fn sqlite(folder: &Path, batch: u32, rounds: u32) -> Outcome<f64> {
    let path = folder.join(format!("raw-{batch}.db"));
    let mut db = rusqlite::Connection::open(path)?;
    db.execute_batch(
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, spec TEXT)",
    )?;
    let began = Instant::now();
    for _ in 0..rounds {
        let transaction = db.transaction()?;
        let mut insert = transaction.prepare_cached("INSERT INTO t(spec) VALUES(?1)")?;
        for _ in 0..batch {
            insert.execute([r#"{"command":["/bin/true"],"cwd":"/tmp"}"#])?;
        }
        drop(insert);
        transaction.commit()?;
    }
    Ok(f64::from(batch * rounds) / began.elapsed().as_secs_f64())
}
