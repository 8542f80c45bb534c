//! What an attempt has changed in its worktree, as a patch against the commit that it was made of.
//!
//! New, changed and removed files are put into a copy of the index and an object store beside it, and compared with the
//! commit from there: whatever the task has committed or staged is in it, and neither its index nor the repository is
//! touched. Ignored files are left out, and repositories within the worktree: of a submodule only its commit is told.
//! No command is used that would run git within those, for the task may have configured anything there.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::super::artifacts::folder_of;
use super::super::call::{Answer, CallError};
use super::super::orders::Stop;
use super::super::process::{Attempt, Tools};
use super::super::program;
use super::Made;
use super::git::Git;
use crate::failpoint;
use crate::sys::clock;
use crate::sys::tree::Ended;
use crate::task::{Artifacts, Env};

/// How long it may take, in nanoseconds.
const PATCH_NS: u64 = 300_000_000_000;
/// The patch's name in the attempt's folder of artefacts.
const PATCH: &str = "changes.patch";

/// Stores the patch, and notes it; or why there is none.
pub fn keep(tools: &mut Tools, attempt: &Attempt, made: &Made, artifacts: &mut Artifacts) {
    let settings = &tools.settings.artifacts;
    let folder = folder_of(settings, attempt.task.id, attempt.task.attempt);
    let left = settings.max_bytes.saturating_sub(artifacts.bytes);
    match store(tools, attempt, made, &folder, left) {
        Ok(bytes) => {
            artifacts.patch_bytes = Some(bytes);
            artifacts.folder = folder;
        }
        Err(why) => {
            // Only an empty one goes.
            let _ = fs::remove_dir(&folder);
            let why = format!("{PATCH}: {why}");
            artifacts.omitted = Some(match artifacts.omitted.take() {
                None => why,
                Some(other) => format!("{other}; {why}"),
            });
        }
    }
}

fn store(tools: &mut Tools, attempt: &Attempt, made: &Made, folder: &Path, max_bytes: u64) -> Result<u64, String> {
    failpoint!("worktree.before-patch");
    if !fs::symlink_metadata(&made.place).is_ok_and(|facts| facts.is_dir()) {
        return Err("the worktree is gone".to_owned());
    }
    let own = tools.settings.worktrees.folder.join(&made.mark);
    let part = folder.join("changes.part");
    let words = |error: io::Error| error.to_string();
    fs::create_dir_all(own.join("objects")).map_err(words)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(words)?;
    let lfs = program::candidates("git-lfs", &tools.settings.environment, &Env::new());
    let has_lfs = lfs.iter().any(|path| Path::new(OsStr::from_bytes(path.to_bytes())).exists());
    let deadline_ns = clock::monotonic_ns() + PATCH_NS;
    let mut patcher = Patcher { tools, attempt, made, own, max_bytes, deadline_ns, has_lfs };
    patcher.compare(&part).inspect_err(|_| drop(fs::remove_file(&part)))?;
    let bytes = fs::metadata(&part).map_err(words)?.len();
    fs::rename(&part, folder.join(PATCH)).map_err(words)?;
    Ok(bytes)
}

/// Sorts a list of paths: files in the place of which there are directories now must leave the index before what is in those
/// can enter it. Says whether there are any.
fn sort(paths: &Path, made: &Made, changed: &Path, replaced: &Path) -> io::Result<bool> {
    let list = BufReader::new(File::open(paths)?);
    let (mut changed, mut replaced) = (BufWriter::new(File::create(changed)?), BufWriter::new(File::create(replaced)?));
    let gone = format!("0 {}\t", "0".repeat(made.commit.len()));
    let mut any = false;
    for path in list.split(0) {
        let path = path?;
        let place = made.place.join(OsStr::from_bytes(&path));
        let is_directory = fs::symlink_metadata(&place).is_ok_and(|facts| facts.is_dir());
        // A repository of its own is a submodule, and stays one.
        if is_directory && fs::symlink_metadata(place.join(".git")).is_err() {
            any = true;
            replaced.write_all(&[gone.as_bytes(), &path, &[0]].concat())?;
        } else {
            changed.write_all(&[&path[..], &[0]].concat())?;
        }
    }
    changed.flush()?;
    replaced.flush()?;
    Ok(any)
}

struct Patcher<'p> {
    tools: &'p mut Tools,
    attempt: &'p Attempt,
    made: &'p Made,
    /// The mark's directory, which holds index, objects and paths.
    own: PathBuf,
    max_bytes: u64,
    deadline_ns: u64,
    /// Whether there is a git-lfs, which makes pointers of what a task has fetched.
    has_lfs: bool,
}

impl Patcher<'_> {
    /// Puts what has changed into the index, and writes how that differs from the commit.
    fn compare(&mut self, patch: &Path) -> Result<(), String> {
        let [paths, changed, replaced] = ["paths", "changed", "replaced"].map(|name| self.own.join(name));
        let list = ["ls-files", "-z", "--modified", "--deleted", "--others", "--exclude-standard"];
        self.run(&list, None, Some(&paths))?;
        if sort(&paths, self.made, &changed, &replaced).map_err(|error| error.to_string())? {
            self.run(&["update-index", "-z", "--index-info"], Some(&replaced), None)?;
        }
        let enter = ["update-index", "-z", "--add", "--remove", "--replace", "--stdin"];
        self.run(&enter, Some(&changed), None)?;
        let compare = ["diff-index", "--cached", "--patch", "--binary", "--full-index", "--no-renames"];
        let exact = ["--no-color", "--no-ext-diff", "--no-textconv", &self.made.commit, "--"];
        self.run(&[&compare[..], &exact[..]].concat(), None, Some(patch))
    }

    fn run(&mut self, arguments: &[&str], input: Option<&Path>, output: Option<&Path>) -> Result<(), String> {
        let opened = |file: io::Result<File>| file.map(OwnedFd::from).map_err(|error| error.to_string());
        let input = input.map(|path| opened(File::open(path))).transpose()?;
        let output = output.map(|path| opened(File::create(path))).transpose()?;
        let places = self.places();
        let file_bytes = Some(self.max_bytes);
        let configuration: &[&str] = if self.has_lfs { &[] } else { &super::make::POINTERS };
        let git = Git { places, input, output, file_bytes, configuration, ..Git::new(&self.made.place, arguments) };
        let ticket = self.attempt.ticket;
        let answer = git.run(self.tools, self.deadline_ns, &mut |tools| {
            // That it is cancelled means nothing any more: it has ended.
            Ok(tools.told_to_stop(ticket) != Some(Stop::GivenBack))
        });
        match answer {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(Answer { ended: Ended::Signalled { signal: libc::SIGXFSZ, .. }, .. }) => {
                Err(format!("the changes take more than {} bytes (artifacts.maxBytesPerTask)", self.max_bytes))
            }
            Ok(answer) => Err(crate::room::worktree::explain(&self.made.place.display().to_string(), &answer.words)),
            Err(CallError::Ended(_)) => Err("the pool was stopped meanwhile".to_owned()),
            Err(error @ (CallError::TooLong(_) | CallError::Absent(_) | CallError::Start { .. })) => {
                Err(error.to_string())
            }
        }
    }

    fn places(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        let objects = quoted(&text(&self.made.common.join("objects")));
        vec![
            ("GIT_DIR", text(&self.made.common)),
            ("GIT_WORK_TREE", text(&self.made.place)),
            ("GIT_INDEX_FILE", text(&self.own.join("index"))),
            ("GIT_OBJECT_DIRECTORY", text(&self.own.join("objects"))),
            ("GIT_ALTERNATE_OBJECT_DIRECTORIES", objects),
        ]
    }
}

/// A path in a list that is separated by colons, as git reads it.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}
