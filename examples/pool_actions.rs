//! acode with actions of its own, each of which does exactly what it is told to: for the tests of typed tasks.
//!
//!     echo ANY                            answers with what it was given
//!     noop                                does nothing
//!     sleep {ms}                          sleeps, and hears when it is told to end
//!     spin {ms, attempts}                 sleeps, and hears nothing; only in so many attempts, if that is given
//!     burn {ms}                           works, and hears when it is told to end
//!     fail {words}                        fails with these words
//!     panic {words}                       panics with these words
//!     abort | overflow | exit {code}      takes its process along
//!     print {out, err, times}             says this on its standard output and error, so many times
//!     progress {steps, ms}                tells how far it is, and sleeps so long in between
//!     scratch {name, text}                writes a file where relative paths lead, and tells where and what was there
//!     facts                               tells what it is told about its task
//!     child {seconds}                     leaves a process behind that sleeps so long
//!     mark {file, ms, room}               writes a line into this file at its beginning and at its end; room: into scratch too
//!     deaf {says, file}                   says this, leaves a child whose pid it writes into the file, and never ends
//!     hoard {mb, ms}                      holds so much memory for so long
//!     world {run}                         tells what its process has and sees; what a program says, if one is named
//!     heed                                waits to be warned of its timeout, and ends well
//!
//! It is the whole of acode beside that: its first words are `worker`, `task` and so on. Deliberately absent: anything that
//! a real action would do.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use acode::api::{self, ActionError, Context, Registry, WorkAction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How often an action that waits looks whether it is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    let talkers = Registry::built_in().with::<Echo>().with::<Noop>().with::<Print>().with::<Progress>().with::<Facts>();
    let sleepers = talkers.with::<Sleep>().with::<Spin>().with::<Burn>().with::<Heed>();
    let losers = sleepers.with::<Fail>().with::<Panic>().with::<Abort>().with::<Overflow>().with::<Exit>();
    let losers = losers.with::<Scratch>().with::<Child>().with::<Mark>().with::<Deaf>();
    api::init(losers.with::<Hoard>().with::<World>());
    acode::cli::main()
}

/// An action with these parameters, and this as its work.
macro_rules! action {
    ($type:ident, $name:literal, $params:ty, $work:expr) => {
        struct $type;
        impl WorkAction for $type {
            const NAME: &'static str = $name;
            type Params = $params;
            type Output = Value;
            fn execute(params: $params, context: &mut Context<'_>) -> Result<Value, ActionError> {
                let work: fn($params, &mut Context<'_>) -> Result<Value, ActionError> = $work;
                work(params, context)
            }
        }
    };
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Millis {
    ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stubborn {
    ms: u64,
    attempts: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marks {
    file: PathBuf,
    ms: u64,
    room: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    says: String,
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    words: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: i32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    #[serde(default)]
    out: String,
    #[serde(default)]
    err: String,
    times: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Steps {
    steps: u32,
    ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seconds {
    seconds: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    text: String,
}

action!(Echo, "echo", Value, |params, _| Ok(params));

action!(Noop, "noop", (), |(), _| Ok(Value::Null));

action!(Sleep, "sleep", Millis, |params, context| {
    wait(context, Duration::from_millis(params.ms))?;
    Ok(json!({ "slept": params.ms }))
});

action!(Spin, "spin", Stubborn, |params, context| {
    if params.attempts.is_none_or(|attempts| context.attempt() <= attempts) {
        std::thread::sleep(Duration::from_millis(params.ms));
    }
    Ok(json!({ "slept": params.ms }))
});

action!(Burn, "burn", Millis, |params, context| {
    let began = Instant::now();
    let mut rounds = 0_u64;
    while began.elapsed() < Duration::from_millis(params.ms) {
        context.check()?;
        (0..1_000).for_each(|_| std::hint::spin_loop());
        rounds += 1;
    }
    Ok(json!({ "rounds": rounds }))
});

action!(Fail, "fail", Words, |params, _| Err(ActionError::new(params.words)));

action!(Panic, "panic", Words, |params, _| panic!("{}", params.words));

action!(Abort, "abort", (), |(), _| std::process::abort());

action!(Overflow, "overflow", (), |(), _| Ok(json!(deep(0))));

action!(Exit, "exit", Code, |params, _| std::process::exit(params.code));

action!(Print, "print", Texts, |params, context| {
    for _ in 0..params.times {
        context.stdout().write_all(params.out.as_bytes())?;
        context.stderr().write_all(params.err.as_bytes())?;
    }
    Ok(Value::Null)
});

action!(Progress, "progress", Steps, |params, context| {
    for step in 1..=params.steps {
        context.progress(f64::from(step) * 100.0 / f64::from(params.steps), &format!("step {step}"));
        wait(context, Duration::from_millis(params.ms))?;
    }
    Ok(Value::Null)
});

action!(Scratch, "scratch", File, |params, context| {
    let path = context.path(&params.name)?;
    let folder = path.parent().ok_or_else(|| ActionError::new("the root is no file"))?;
    let before = std::fs::read_dir(folder)?.count();
    std::fs::write(&path, &params.text)?;
    Ok(json!({ "path": path, "before": before }))
});

action!(Facts, "facts", (), |(), context| {
    Ok(json!({
        "id": context.task_id().to_string(),
        "attempt": context.attempt(),
        "slot": context.worker_slot(),
        "meta": context.meta(),
        "checkpoint": context.checkpoint(),
        "pid": std::process::id(),
    }))
});

action!(Child, "child", Seconds, |params, _| {
    let child = Command::new("sleep").arg(params.seconds.to_string()).spawn()?;
    Ok(json!({ "pid": child.id() }))
});

action!(Mark, "mark", Marks, |params, context| {
    let line = format!("{} {}\n", context.task_id(), std::process::id());
    let mut file = OpenOptions::new().create(true).append(true).open(&params.file)?;
    file.write_all(line.as_bytes())?;
    if params.room {
        std::fs::write(context.scratch()?.join("mark"), &line)?;
    }
    wait(context, Duration::from_millis(params.ms))?;
    file.write_all(line.as_bytes())?;
    Ok(Value::Null)
});

action!(Deaf, "deaf", Last, |params, context| {
    context.stdout().write_all(params.says.as_bytes())?;
    let child = Command::new("sleep").arg("600").spawn()?;
    std::fs::write(&params.file, child.id().to_string())?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
});

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Megabytes {
    mb: usize,
    ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    #[serde(default)]
    run: Vec<String>,
}

action!(Hoard, "hoard", Megabytes, |params, context| {
    let hoard = std::hint::black_box(vec![1_u8; params.mb << 20]);
    wait(context, Duration::from_millis(params.ms))?;
    Ok(json!(hoard.len()))
});

action!(World, "world", Program, |params, _| {
    let names = |folder: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let said = params.run.split_first().map(|(program, arguments)| Command::new(program).args(arguments).output());
    let said = said.transpose()?.map(|output| String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    let targets =
        names("/proc/self/fd").into_iter().filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    Ok(json!({
        "env": std::env::vars().collect::<std::collections::BTreeMap<_, _>>(),
        "fds": targets.collect::<Vec<_>>(),
        "root": names("/"),
        "cwd": std::env::current_dir()?,
        "exe": std::env::current_exe().ok(),
        "status": std::fs::read_to_string("/proc/self/status")?,
        "words": std::fs::read("/proc/self/cmdline").map(|text| String::from_utf8_lossy(&text).into_owned())?,
        "said": said,
    }))
});

action!(Heed, "heed", (), |(), context| {
    while !context.is_warned() {
        context.check()?;
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(json!("warned"))
});

fn wait(context: &Context<'_>, long: Duration) -> Result<(), api::Cancelled> {
    let began = Instant::now();
    while began.elapsed() < long {
        context.check()?;
        std::thread::sleep(LOOK_AGAIN.min(long));
    }
    Ok(())
}

/// Needs more of the stack than there is.
fn deep(level: u64) -> u64 {
    let room = std::hint::black_box([level; 512]);
    if level == u64::MAX { 0 } else { deep(level + 1) + std::hint::black_box(room[0]) }
}
