//! `acode completions` and `acode man`: what shells and `man` know about the commands, made from the commands themselves.
//!
//! Deliberately absent: where such files belong, which `scripts/install` and the package know.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Args;
use super::render::Out;
use super::{CliError, Exit};

/// Prints the completions of a shell.
///
/// # Errors
/// Standard output does not take them.
pub fn completions(shell: Shell) -> Result<Exit, CliError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "acode", &mut text);
    print(&text)
}

/// Prints the page about `acode` as a whole, or writes a page for each command into `dir`, which is made if it is not
/// there, and prints their paths.
///
/// # Errors
/// The directory cannot be written, or standard output does not take what is printed.
pub fn manual(dir: Option<&Path>, json: bool) -> Result<Exit, CliError> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut text).map_err(CliError::Stdout)?;
        return print(&text);
    };
    let failed = |source| CliError::File { doing: format!("write manual pages to {}", dir.display()), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut written = Vec::new();
    write_pages(dir, Args::command(), &mut written).map_err(failed)?;
    let mut out = Out::new();
    if json {
        out.answer(&serde_json::json!({ "pages": written }))?;
    } else {
        written.iter().try_for_each(|path| out.line(path.display()))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}

/// Writes the page of a command and of those below it: `acode-task-submit.1` for `acode task submit`.
fn write_pages(dir: &Path, command: clap::Command, written: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut command = command;
    // Only what is built has the whole name and the options that go with every command.
    command.build();
    let mut open = vec![command];
    while let Some(command) = open.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let path = dir.join(format!("{name}.1"));
        open.extend(command.get_subcommands().filter(|below| !below.is_hide_set()).cloned());
        let mut text = Vec::new();
        clap_mangen::Man::new(command.version(env!("CARGO_PKG_VERSION"))).title(name).render(&mut text)?;
        std::fs::write(&path, text)?;
        written.push(path);
    }
    written.sort();
    Ok(())
}

fn print(text: &[u8]) -> Result<Exit, CliError> {
    let mut out = Out::new();
    out.bytes(text)?;
    out.finish()?;
    Ok(Exit::Done)
}
