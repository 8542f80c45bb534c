//! Progress: what a task says of itself is listed, shown, and drawn where somebody waits at a terminal; and nothing is
//! drawn where nobody does.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use acode::wire::TaskRef;
use acode::wire::request::Wait;
use acode_worker::task::{Array, Submission, TaskId, TaskState};
use command::Acode;
use common::{Options, PATIENCE, Pool, eventually, shell, wait_until};
use more::{open_gate, reaches};
use nix::pty::{Winsize, openpty};

/// A task that says how far it is and waits for the gate.
const TELLING: &str = r#"echo "$2 unpacking" >$ACODE_PROGRESS; while [ ! -e "$1" ]; do sleep 0.02; done"#;

/// Submits it, and returns when its progress is known.
fn telling(pool: &Pool, percent: u8) -> TaskId {
    let mut spec = shell(TELLING, &[&pool.path("gate"), &percent.to_string()]);
    spec.name = Some("unzip".to_owned());
    let id = pool.submit_spec(spec);
    wait_until("its progress is known", || pool.show(id).progress.is_some());
    id
}

/// A command whose standard error is a terminal, and its standard output, too, if wanted.
struct AtTerminal {
    child: Child,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl AtTerminal {
    fn new(acode: &Acode, arguments: &[&str], output_too: bool) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let mut command = acode.command(arguments);
        command.env("TERM", "xterm").env_remove("NO_COLOR").stdin(Stdio::null());
        let slave = |end: &OwnedFd| Stdio::from(end.try_clone().unwrap());
        command.stdout(if output_too { slave(&pty.slave) } else { Stdio::piped() });
        let child = command.stderr(slave(&pty.slave)).spawn().unwrap();
        drop(command);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (into, mut from) = (Arc::clone(&screen), std::fs::File::from(pty.master));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose other end is closed gives an error.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, screen }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        assert!(eventually(PATIENCE, || self.screen().contains(text)), "no '{text}' on:\n{:?}", self.screen());
    }

    /// Waits for its end; its exit code.
    #[track_caller]
    fn finish(&mut self) -> Option<i32> {
        assert!(eventually(PATIENCE, || self.child.try_wait().unwrap().is_some()), "{:?}", self.screen());
        self.child.wait().unwrap().code()
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_list_and_a_record_show_how_far_a_task_is() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = telling(&pool, 40);
    let list = acode.ok(&["task", "list"]);
    let (heading, row) = (list.lines().next().unwrap(), list.lines().nth(1).unwrap());
    assert!(heading.contains("PROGRESS") && row.contains(" 40% ") && row.ends_with("unpacking"), "{list}");
    let shown = acode.ok(&["task", "show", &id.to_string()]);
    assert!(shown.contains("\nProgress   40% unpacking\n"), "{shown}");
    assert_eq!(acode.json(&["task", "show", &id.to_string()])["progress"]["percent"], 40);
    open_gate(&pool, "gate");
}

#[test]
fn an_array_is_as_far_as_its_members() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let spec = shell("[ $2 -gt 1 ] || while [ ! -e \"$1\" ]; do sleep 0.02; done", &[&pool.path("gate"), "{item}"]);
    let array = Some(Array::Range { first: 1, count: 4 });
    let id = pool.submit_all(vec![Submission { spec, array, ..Submission::default() }])[0];
    wait_until("three of four have ended", || pool.show(id).array.unwrap().members.ended() == 3);
    assert!(acode.ok(&["task", "list"]).contains(" 75% "));
    open_gate(&pool, "gate");
}

#[test]
fn a_record_is_drawn_at_a_terminal() {
    let pool = Pool::start(Options::workers(1));
    let id = telling(&pool, 50);
    let mut shown = AtTerminal::new(&Acode::of(&pool), &["task", "show", &id.to_string()], true);
    shown.shows("[##########----------] 50% unpacking");
    assert_eq!(shown.finish(), Some(0));
    open_gate(&pool, "gate");
}

#[test]
fn who_waits_at_a_terminal_sees_counts_and_the_longest_running_tasks() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let done = pool.submit(&["false"]);
    assert_eq!(pool.wait(done).state, TaskState::Failed);
    let id = telling(&pool, 40);
    let mut waiting = AtTerminal::new(&acode, &["task", "wait", &done.to_string(), &id.to_string()], false);
    waiting.shows("1/2 1 running, 1 failed, eta");
    waiting.shows(&format!("unzip#{} [", id.seq()));
    waiting.shows(" 40% unpacking");
    open_gate(&pool, "gate");
    assert_eq!(waiting.finish(), Some(1));
    waiting.shows("did not complete");
}

#[test]
fn what_is_drawn_has_no_colour() {
    let pool = Pool::start(Options::workers(1));
    let id = telling(&pool, 40);
    let mut waiting = AtTerminal::new(&Acode::of(&pool), &["task", "wait", &id.to_string()], false);
    waiting.shows("40% unpacking");
    open_gate(&pool, "gate");
    assert_eq!(waiting.finish(), Some(0));
    let screen = waiting.screen();
    let mut codes =
        screen.split("\x1b[").skip(1).map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
    assert!(codes.all(|rest| !rest.starts_with('m')), "{screen:?}");
}

#[test]
fn a_message_cannot_take_over_the_terminal() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"printf '30 a\033]0;evil\007b\n' >$ACODE_PROGRESS; while [ ! -e "$1" ]; do sleep 0.02; done"#;
    let id = pool.submit_spec(shell(script, &[&pool.path("gate")]));
    wait_until("its progress is known", || pool.show(id).progress.is_some());
    let mut waiting = AtTerminal::new(&Acode::of(&pool), &["task", "wait", &id.to_string()], false);
    waiting.shows(" 30% a");
    open_gate(&pool, "gate");
    assert_eq!(waiting.finish(), Some(0));
    assert!(!waiting.screen().contains("\x1b]0;"), "{:?}", waiting.screen());
}

#[test]
fn nothing_is_drawn_where_there_is_no_terminal_or_none_is_wanted() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = telling(&pool, 40).to_string();
    let piped = acode.spawn(&["task", "wait", &id]);
    let mut unwanted = AtTerminal::new(&acode, &["task", "wait", "--no-progress", &id], false);
    let mut as_json = AtTerminal::new(&acode, &["--json", "task", "wait", &id], false);
    wait_until("all three are connected", || {
        // Each has asked by then: the pool counts them beside this call's own connection.
        pool.call(&acode::wire::request::Metrics { text: false }).metrics.connections == 4
    });
    open_gate(&pool, "gate");
    let said = piped.finish().expect(0);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    assert_eq!((unwanted.finish(), as_json.finish()), (Some(0), Some(0)));
    assert_eq!((unwanted.screen(), as_json.screen()), (String::new(), String::new()));
}

#[test]
fn a_run_draws_progress_at_a_terminal_and_none_elsewhere() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::without_state(&pool);
    let script = format!("echo 60 sorting >$ACODE_PROGRESS; while [ ! -e {} ]; do sleep 0.02; done", pool.path("gate"));
    let tasks = serde_json::json!({ "tasks": [
        { "name": "quick", "command": ["true"] }, { "name": "slow", "command": ["sh", "-c", script] },
    ]});
    std::fs::write(pool.file("tasks.yaml"), tasks.to_string()).unwrap();
    let mut drawn = AtTerminal::new(&acode, &["run", "--count", "2", "tasks.yaml"], false);
    drawn.shows("1/2 1 running, eta");
    drawn.shows(" 60% sorting");
    open_gate(&pool, "gate");
    assert_eq!(drawn.finish(), Some(0));
    drawn.shows("2 of 2 tasks completed");
    let mut plain = AtTerminal::new(&acode, &["run", "--count", "2", "--no-progress", "tasks.yaml"], false);
    assert_eq!(plain.finish(), Some(0));
    plain.shows("2 of 2 tasks completed");
    assert!(!plain.screen().contains("eta"), "{:?}", plain.screen());
    let piped = acode.says(&["run", "--count", "2", "tasks.yaml"]).expect(0);
    assert!(!piped.err.contains("eta") && !piped.err.contains('\x1b'), "{piped:?}");
}

#[test]
fn a_wait_with_more_names_the_longest_running_tasks_that_say_how_far_they_are() {
    let pool = Pool::start(Options::workers(5));
    let silent = pool.submit_spec(more::gated(&pool, "gate"));
    reaches(&pool, silent, TaskState::Running);
    let told: Vec<TaskId> = (1..=4).map(|n| telling(&pool, n * 10)).collect();
    let ids: Vec<TaskRef> = told.iter().chain([&silent]).map(|id| TaskRef::Id(*id)).collect();
    let mut client = pool.client();
    let first = client.call_more(&Wait { ids, all: false }).unwrap().next().unwrap().unwrap();
    let running: Vec<_> = first.running.iter().map(|task| (task.id, task.progress.percent)).collect();
    assert_eq!(running, [(told[0], 10), (told[1], 20), (told[2], 30)]);
    assert_eq!((first.running[0].name.as_str(), first.counts.running), ("unzip", 5));
    open_gate(&pool, "gate");
}
