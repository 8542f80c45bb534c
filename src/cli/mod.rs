//! The command line: what people type, and what they see.
//!
//! Data goes to standard output and everything else to standard error. Every command works through a door,
//! that is, over the control protocol, or on the queue itself when no pool runs. Deliberately absent: colours, and any
//! knowledge of how a pool works.

mod action;
mod action_args;
pub mod args;
mod artifact_args;
mod artifacts;
mod container;
mod container_args;
mod diff;
mod doctor;
mod engine;
mod error;
mod events;
mod foreground;
mod limit_args;
mod logs;
mod names;
mod order;
mod pages;
mod pool;
mod progress;
mod render;
mod report;
mod run;
mod submission;
mod tables;
mod task;
pub mod task_args;
mod values;
mod worker;
mod worktree_args;

use std::path::PathBuf;
use std::process::ExitCode;

use acode_worker::actions::Registry;
use args::{Args, Command};
pub use error::{CliError, Exit};

use crate::api::{Door, Need};
use crate::rundir::{Dirs, Vars};

/// What every command knows.
#[derive(Debug)]
pub struct Context {
    /// The pool's directories.
    dirs: Dirs,
    /// Whether the state directory was named on the command line or in the environment.
    own_state: Option<PathBuf>,
    /// The environment.
    vars: Vars,
    /// Whether to print JSON.
    json: bool,
}

impl Context {
    /// The door to the queue.
    ///
    /// # Errors
    /// There is less than is needed, or somebody holds the queue who does not answer.
    fn door(&self, need: Need) -> Result<Door, CliError> {
        Ok(Door::open(&self.dirs, &self.vars, need)?)
    }
}

/// Says why a submission takes its time.
fn tell_full() {
    eprintln!("acode: the queue is nearly full: waiting for room");
}

/// The whole program.
pub fn main() -> ExitCode {
    crate::api::init(Registry::built_in());
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let args = match Args::from_words(&words) {
        Ok(args) => args,
        Err(error) => {
            // Help that nobody reads to its end is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    ExitCode::from(match run(args) {
        Ok(exit) => exit.code(),
        Err(error) => error.tell(),
    })
}

fn run(args: Args) -> Result<Exit, CliError> {
    match &args.command {
        // What is known without any directory, as where a package is built.
        Command::Completions { shell } => return pages::completions(*shell),
        Command::Man { dir } => return pages::manual(dir.as_deref(), args.json),
        Command::Worker(_)
        | Command::Task(_)
        | Command::Run(_)
        | Command::Logs(_)
        | Command::Events(_)
        | Command::Doctor(_) => {}
    }
    let vars: Vars = std::env::vars_os().collect();
    let dirs = Dirs::find(args.state_dir.as_deref(), &vars)?;
    let named = || vars.get(std::ffi::OsStr::new("ACODE_STATE_DIR")).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let own_state = args.state_dir.or_else(named);
    let context = Context { dirs, own_state, vars, json: args.json };
    match args.command {
        Command::Worker(command) => worker::run(&context, command),
        Command::Task(command) => task::run(&context, command),
        Command::Run(args) => run::run(&context, *args),
        Command::Logs(args) => logs::pool(&context, &args),
        Command::Events(args) => events::run(&context, &args),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { dir } => pages::manual(dir.as_deref(), context.json),
        Command::Doctor(args) => doctor::run(&context, &args),
    }
}
