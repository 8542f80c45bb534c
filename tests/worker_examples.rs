//! The worker programs under `docs/examples/`, each run as a user would run it.
//!
//! Deliberately absent: what is wrong with programs (`worker_programs.rs`).

mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/programs.rs"]
mod programs;

use acode::wire::request::Stop;
use acode::wire::types::StopMode;
use acode_worker::task::{Action, TaskId, TaskSpec, TaskState};
use common::{Options, Pool, is_alive};
use more::{cancel, reaches, written};
use programs::{answer, error, result};
use serde_json::{Value, json};

/// One of the examples, and how it is started.
struct Example {
    pool: Pool,
    program: Vec<String>,
}

impl Example {
    fn new(interpreter: &str, file: &str) -> Self {
        let file = format!("{}/docs/examples/{file}", env!("CARGO_MANIFEST_DIR"));
        Self { pool: Pool::start(Options::workers(1)), program: vec![interpreter.to_owned(), file] }
    }

    fn spec(&self, name: &str, payload: Value) -> TaskSpec {
        let program = self.program.clone();
        let action = Action { name: Some(name.to_owned()), params: payload, program, ..Action::default() };
        TaskSpec { action: Some(Box::new(action)), ..TaskSpec::default() }
    }

    fn submit(&self, name: &str, payload: Value) -> TaskId {
        self.pool.submit_spec(self.spec(name, payload))
    }

    fn answer(&self, name: &str, payload: Value) -> Value {
        answer(&self.pool, self.spec(name, payload))
    }

    /// A task that sleeps is cancelled, and another one takes too long; both end by what the program says.
    fn can_be_told_to_end(&self) {
        let patient = |spec| TaskSpec { grace_ms: Some(60_000), ..spec };
        let id = self.pool.submit_spec(patient(self.spec("sleep", json!({"seconds": 300}))));
        reaches(&self.pool, id, TaskState::Running);
        assert!(cancel(&self.pool, id));
        let task = self.pool.wait(id);
        assert_eq!(task.state, TaskState::Cancelled);
        assert!(error(&task).contains("told to end (cancel)"), "{task:?}");
        let slow = patient(self.spec("sleep", json!({"seconds": 300})));
        let task = self.pool.wait(self.pool.submit_spec(TaskSpec { timeout_ms: Some(200), ..slow }));
        assert!(error(&task).contains("told to end (timeout)"), "{task:?}");
    }

    fn fails(&self, name: &str, payload: Value, words: &str) {
        let task = self.pool.wait(self.submit(name, payload));
        assert_eq!((task.state, task.exit_code), (TaskState::Failed, Some(1)), "{task:?}");
        assert!(error(&task).contains(words), "{task:?}");
    }

    /// The pool stops, and the program, which is this process, leaves by itself.
    fn leaves(mut self, pid: &Value) {
        let pid = pid.as_u64().unwrap() as u32;
        assert!(is_alive(pid));
        self.pool.call(&Stop { mode: StopMode::Drain, timeout_ms: None });
        assert!(self.pool.wait_exit().success());
        assert!(!is_alive(pid));
    }

    /// What the examples in Python and JavaScript have in common.
    fn does_what_it_says(self) {
        let id = self.submit("sum", json!({"numbers": [1, 2, 3.5]}));
        let task = self.pool.wait(id);
        assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", written(&self.pool, id).err());
        let progress = task.progress.as_ref().unwrap();
        assert_eq!((progress.percent, progress.message.as_deref()), (100, Some("3 of 3")));
        assert_eq!(written(&self.pool, id).out(), "added 3 numbers\n");
        let first = result(&task);
        assert_eq!(first["sum"], 6.5);
        let note = self.answer("note", json!({"text": "hello ä"}));
        assert_eq!(note["bytes"], 8);
        assert!(!std::path::Path::new(note["path"].as_str().unwrap()).exists());
        self.fails("nothing", json!({}), "there is no action 'nothing' here");
        self.fails("sum", json!({}), "Error");
        self.can_be_told_to_end();
        let last = self.answer("sum", json!({"numbers": [1]}));
        assert_eq!(last["pid"], first["pid"], "all of that was one process");
        self.leaves(&last["pid"]);
    }
}

#[test]
fn python() {
    Example::new("python3", "worker.py").does_what_it_says();
}

#[test]
fn node() {
    if std::process::Command::new("node").arg("--version").output().is_err() {
        return eprintln!("Node.js is not installed here");
    }
    Example::new("node", "worker.mjs").does_what_it_says();
}

#[test]
fn shell() {
    let example = Example::new("sh", "worker.sh");
    let file = example.pool.path("text");
    std::fs::write(&file, "one two\nthree\n").unwrap();
    let id = example.submit("wc", json!({"path": file}));
    let task = example.pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", written(&example.pool, id).err());
    assert_eq!(task.progress.as_ref().map(|progress| progress.percent), Some(100));
    let first = result(&task);
    assert_eq!((&first["lines"], &first["words"], &first["bytes"]), (&json!(2), &json!(3), &json!(14)));
    example.fails("wc", json!({"path": "/nowhere"}), "cannot read '/nowhere'");
    example.fails("nothing", json!({}), "there is no action 'nothing' here");
    example.can_be_told_to_end();
    let last = example.answer("wc", json!({"path": file}));
    assert_eq!(last["pid"], first["pid"], "all of that was one process");
    example.leaves(&last["pid"]);
}
