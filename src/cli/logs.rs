//! `acode task logs` and `acode logs`: what tasks wrote, read from the journal itself.
//!
//! Client and pool are on one machine and of one user, so the bytes do not go through the socket; it only tells where
//! they lie and whether a task has ended. Deliberately absent: holding the queue while somebody reads.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acode_worker::output::{Filter, Follower, Frame, Kind, OutputError, Reader, Since, Stream};
use acode_worker::task::{OutputRef, TaskId};

use super::args::{LogsArgs, TaskLogsArgs};
use super::names::Names;
use super::render::Out;
use super::{CliError, Context, Exit};
use crate::api::{Door, Need};
use crate::wire::request::{List, Logs, Show};
use crate::wire::types::{LogSource, TaskRecord};
use crate::wire::{Stamp, TaskRef};

/// How long to wait for output before looking whether the task has ended.
const LOOK: Duration = Duration::from_millis(200);
/// A line longer than this is shown in pieces, in bytes.
const LINE_MAX: usize = 64 << 10;
/// The most lines that may be unfinished at once; then all are shown as they are.
const PARTIAL_MAX: usize = 4_096;

/// Shows the output of one task, or of all members of an array.
///
/// # Errors
/// There is no such task, or its output is no longer kept.
pub fn task(context: &Context, args: &TaskLogsArgs) -> Result<Exit, CliError> {
    let mut door = context.door(Need::Queue)?;
    let task = door.call(&Show { id: args.id.clone() })?.task;
    if task.array.is_some() && args.follow {
        return Err(CliError::Usage("one member of an array can be followed, or the whole pool: acode logs -f".into()));
    }
    let mut printer = Printer::new(context, args.stderr, None);
    if args.follow {
        follow_task(context, door, &task, &mut printer)?;
    } else {
        let ids = if task.array.is_some() { members(&mut door, task.id)? } else { vec![task.id] };
        let logs = Logs { ids: ids.into_iter().map(TaskRef::from).collect(), attempt: None };
        let places = door.call(&logs)?;
        drop(door);
        for source in &places.sources {
            print_attempt(Path::new(&places.directory), source, &mut printer)?;
        }
    }
    printer.finish()
}

/// The members of an array that may have output; the first of them, if there are very many.
fn members(door: &mut Door, array: TaskId) -> Result<Vec<TaskId>, CliError> {
    let limit = Some(crate::wire::MAX_LIST);
    let listed = door.call(&List { array: Some(array.into()), limit, ..List::default() })?;
    if listed.next.is_some() {
        eprintln!("acode: only the first {} members are shown", listed.tasks.len());
    }
    Ok(listed.tasks.into_iter().map(|task| task.id).collect())
}

fn print_attempt(directory: &Path, source: &LogSource, printer: &mut Printer) -> Result<(), CliError> {
    let mut reader = match source.length {
        Some(length) => {
            let at = OutputRef { segment: source.segment, offset: source.offset, length, ..OutputRef::default() };
            Reader::new(directory, source.worker, &at)
        }
        None => match Reader::scan(directory, source.worker, source.task, source.attempt)? {
            Some(reader) => reader,
            None => return Ok(()),
        },
    };
    while let Some(frame) = reader.next_frame()? {
        printer.print(&frame)?;
    }
    Ok(())
}

fn follow_task(context: &Context, door: Door, task: &TaskRecord, printer: &mut Printer) -> Result<(), CliError> {
    let filter = Some(Filter { task: task.id, attempt: None });
    let mut follower = Follower::new(context.dirs.journal(), Since::Beginning, filter)?;
    // Without a pool nothing more will come, and the queue is not ours to hold.
    let mut pool = match door {
        Door::Pool(client) => Some(client),
        Door::Queue(_) => None,
    };
    let mut over = false;
    loop {
        if drain(&mut follower, printer)? > 0 {
            continue;
        }
        printer.flush()?;
        if over {
            return Ok(());
        }
        // Asked before the last look at the journal: what was written before the end is there then.
        over = match &mut pool {
            Some(client) => client.call(&Show { id: task.id.into() })?.task.state.is_final(),
            None => true,
        };
        if !over {
            follower.wait(Some(LOOK)).map_err(|source| waiting_failed(context, source))?;
        }
    }
}

/// Shows the output of all tasks, line by line.
///
/// # Errors
/// There is nothing to read from.
pub fn pool(context: &Context, args: &LogsArgs) -> Result<Exit, CliError> {
    let names = Names::new(context)?;
    let since = match (args.since, args.follow) {
        (Some(since), _) => Since::Time(since.micros()),
        (None, true) => Since::End,
        (None, false) => Since::Beginning,
    };
    let mut follower = Follower::new(context.dirs.journal(), since, None)?;
    let mut printer = Printer::new(context, args.stderr, Some(names));
    loop {
        if drain(&mut follower, &mut printer)? > 0 {
            continue;
        }
        printer.flush()?;
        if !args.follow {
            return printer.finish();
        }
        follower.wait(None).map_err(|source| waiting_failed(context, source))?;
    }
}

/// Shows the output of all tasks of a pool from its beginning, line by line, until `over` says that none will come any
/// more. `show` is what every bit of printing goes through.
///
/// # Errors
/// There is nothing to read from.
pub fn until(context: &Context, over: &AtomicBool, show: impl Fn(&mut dyn FnMut())) -> Result<(), CliError> {
    let mut follower = Follower::new(context.dirs.journal(), Since::Beginning, None)?;
    let mut printer = Printer::new(context, false, Some(Names::new(context)?));
    loop {
        // Asked before the last look, as above.
        let last = over.load(Ordering::Acquire);
        if !follower.pending() && !last {
            follower.wait(Some(LOOK)).map_err(|source| waiting_failed(context, source))?;
        }
        let mut printed = Ok(());
        show(&mut || printed = drain_all(&mut follower, &mut printer));
        printed?;
        if last {
            return printer.finish().map(drop);
        }
    }
}

/// Prints all frames that are there.
fn drain_all(follower: &mut Follower, printer: &mut Printer) -> Result<(), CliError> {
    while drain(follower, printer)? > 0 {}
    printer.flush()
}

/// Prints the frames that are there, and tells how many.
fn drain(follower: &mut Follower, printer: &mut Printer) -> Result<usize, CliError> {
    let mut printed = Ok(());
    let count = follower.poll(|frame| {
        if printed.is_ok() {
            printed = printer.print(frame);
        }
    })?;
    printed.map(|()| count)
}

fn waiting_failed(context: &Context, source: io::Error) -> CliError {
    OutputError::Io { doing: "watching", path: context.dirs.journal(), source }.into()
}

/// A line that has begun, by task, attempt and stream.
type Partial = HashMap<(TaskId, u32, Stream), Vec<u8>>;

/// Shows frames: as the bytes that they are, or line by line with names, or as JSON Lines.
struct Printer {
    out: Out,
    json: bool,
    only_stderr: bool,
    names: Option<Names>,
    partial: Partial,
}

impl Printer {
    fn new(context: &Context, only_stderr: bool, names: Option<Names>) -> Self {
        Self { out: Out::new(), json: context.json, only_stderr, names, partial: Partial::new() }
    }

    fn print(&mut self, frame: &Frame<'_>) -> Result<(), CliError> {
        let stream = match frame.kind {
            Kind::Stdout if self.only_stderr => return Ok(()),
            Kind::Stdout => Stream::Stdout,
            Kind::Stderr => Stream::Stderr,
            Kind::Truncated => {
                self.out.flush()?;
                eprintln!("acode: task #{} wrote more than is kept", frame.task.seq());
                return Ok(());
            }
            Kind::End => return self.end(frame),
        };
        if self.names.is_some() || self.json {
            return self.lines(frame, stream);
        }
        match stream {
            Stream::Stderr if !self.only_stderr => {
                // On a terminal the two come in the order in which they were written.
                self.out.flush()?;
                // Nobody can be told that standard error is broken.
                let _ = io::stderr().write_all(frame.data);
                Ok(())
            }
            Stream::Stdout | Stream::Stderr => self.out.bytes(frame.data),
        }
    }

    /// Shows the whole lines, and keeps what has no end yet.
    fn lines(&mut self, frame: &Frame<'_>, stream: Stream) -> Result<(), CliError> {
        let key = (frame.task, frame.attempt, stream);
        let mut rest = frame.data;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let mut line = self.partial.remove(&key).unwrap_or_default();
            line.extend_from_slice(&rest[..at]);
            self.line(key, frame.time_us, &line)?;
            rest = &rest[at + 1..];
        }
        if !rest.is_empty() {
            let line = self.partial.entry(key).or_default();
            line.extend_from_slice(rest);
            if line.len() > LINE_MAX {
                let line = std::mem::take(line);
                self.line(key, frame.time_us, &line)?;
                self.partial.remove(&key);
            }
        }
        if self.partial.len() > PARTIAL_MAX { self.show_partial(frame.time_us) } else { Ok(()) }
    }

    /// A task's last lines may have no end.
    fn end(&mut self, frame: &Frame<'_>) -> Result<(), CliError> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let key = (frame.task, frame.attempt, stream);
            if let Some(line) = self.partial.remove(&key) {
                self.line(key, frame.time_us, &line)?;
            }
        }
        Ok(())
    }

    fn show_partial(&mut self, time_us: i64) -> Result<(), CliError> {
        let partial = std::mem::take(&mut self.partial);
        partial.into_iter().try_for_each(|(key, line)| self.line(key, time_us, &line))
    }

    fn line(&mut self, key: (TaskId, u32, Stream), time_us: i64, line: &[u8]) -> Result<(), CliError> {
        let (task, attempt, stream) = key;
        if self.json {
            let stream = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            return self.out.json_line(&serde_json::json!({
                "schema": crate::wire::SCHEMA,
                "at": Stamp::from_micros(time_us),
                "task": task,
                "attempt": attempt,
                "stream": stream,
                "text": String::from_utf8_lossy(line),
            }));
        }
        let mark = match stream {
            Stream::Stdout => " | ",
            Stream::Stderr => " ! ",
        };
        if let Some(names) = &mut self.names {
            self.out.bytes(names.of(task).as_bytes())?;
            self.out.bytes(mark.as_bytes())?;
        }
        self.out.bytes(line)?;
        self.out.bytes(b"\n")
    }

    fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush()
    }

    fn finish(mut self) -> Result<Exit, CliError> {
        self.show_partial(Stamp::now().micros())?;
        self.out.finish()?;
        Ok(Exit::Done)
    }
}
