//! Making a worktree: find the repository, mark, add, check out.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::call::{Answer, CallError};
use super::super::orders::Stop;
use super::super::process::{Attempt, Tools};
use super::git::Git;
use super::{Made, rest};
use crate::failpoint;
use crate::room::worktree::{self as room, Mark};
use crate::sys::clock;
use crate::task::{Verdict, Worktree};

/// How long making a worktree may take in all, in nanoseconds.
const MAKE_NS: u64 = 600_000_000_000;
/// What is configured while files are written: those of git-lfs stay pointers, with or without it.
pub const POINTERS: [&str; 3] = ["filter.lfs.smudge=", "filter.lfs.clean=", "filter.lfs.process="];
/// What a repository is called that has no name.
const NAMELESS: &str = "worktree";
/// The most places of objects beside the repository's own.
const ALTERNATES_MAX: usize = 16;

/// Why there is no worktree.
enum Fault {
    /// In words.
    Why(String),
    /// The attempt was to end meanwhile.
    Stopped(Stop),
    /// Its time was over.
    TimedOut,
}

/// Makes the worktree that the task asks for, if it does.
///
/// # Errors
/// The verdict of an attempt that has none. What was made of it by then is settled with the attempt.
pub fn make(tools: &mut Tools, attempt: &Attempt) -> Result<(), Verdict> {
    let Some(wish) = &attempt.task.spec.worktree else { return Ok(()) };
    let now = clock::monotonic_ns();
    let timeout_ms = attempt.task.spec.timeout_ms.or(tools.settings.timeout_ms);
    let timeout_ns = timeout_ms.map(|ms| now.saturating_add(ms.saturating_mul(1_000_000)));
    let maker =
        Maker { tools: &mut *tools, attempt, wish, timeout_ns, limit_ns: now.saturating_add(MAKE_NS), stop: None };
    let fault = match maker.make() {
        Ok(()) => return Ok(()),
        Err(fault) => fault,
    };
    Err(match fault {
        Fault::Why(why) => Verdict::NotStarted { why: format!("worktree: {why}"), errno: None },
        Fault::TimedOut => Verdict::TimedOut,
        Fault::Stopped(stop) => {
            tools.worktrees.given_back = stop == Stop::GivenBack;
            Verdict::Cancelled
        }
    })
}

struct Maker<'m> {
    tools: &'m mut Tools,
    attempt: &'m Attempt,
    wish: &'m Worktree,
    /// When the attempt's time is over.
    timeout_ns: Option<u64>,
    /// When this has taken too long.
    limit_ns: u64,
    stop: Option<Stop>,
}

impl Maker<'_> {
    fn make(mut self) -> Result<(), Fault> {
        let common = self.find()?;
        let name = name_of(&common);
        let scratch = self.tools.room.scratch().to_owned();
        let real = fs::canonicalize(&scratch).map_err(|error| Fault::Why(format!("no scratch directory: {error}")))?;
        let facts = &self.tools.facts;
        let worker = facts.id.parse().map_err(|_| Fault::Why("the worker has no id".to_owned()))?;
        let (task, row) = (self.attempt.task.id, facts.slot);
        let mark = Mark { task, worker, row, common, place: real.join(&name) };
        self.add(&mark, scratch.join(&name))
    }

    /// The repository's common directory, if it has the commit.
    fn find(&mut self) -> Result<PathBuf, Fault> {
        let (repo, commit) = (self.wish.repo.clone(), self.wish.commit.clone());
        if !Path::new(&repo).is_dir() {
            return Err(Fault::Why(format!("there is no directory '{repo}' any more")));
        }
        let peeled = format!("{commit}^{{commit}}");
        let answer = self.run(Git::new(Path::new(&repo), ["rev-parse", "--absolute-git-dir", &peeled]))?;
        let text = String::from_utf8_lossy(&answer.output);
        let git_dir = text.lines().next().map(PathBuf::from);
        match git_dir {
            Some(git_dir) if answer.is_success() => room::common_directory(&git_dir)
                .map_err(|error| Fault::Why(format!("the repository '{repo}' cannot be read: {error}"))),
            Some(_) => Err(Fault::Why(format!("the commit {commit} is not in '{repo}' any more"))),
            None => Err(Fault::Why(room::explain(&repo, &answer.words))),
        }
    }

    /// Adds the worktree, and fills it.
    fn add(&mut self, mark: &Mark, place: PathBuf) -> Result<(), Fault> {
        let failed = |error: std::io::Error| Fault::Why(format!("it cannot be noted in the state directory: {error}"));
        let settings = &self.tools.settings.worktrees;
        let (folder, locks) = (settings.folder.clone(), settings.locks.clone());
        let (name, commit) = (mark.name(), self.wish.commit.clone());
        // Left by the same worker, who could not remove it for want of the lock.
        if folder.join(&name).exists() {
            let released = room::release(&folder, &locks, &name, &mut || self.goes_on());
            if !released.map_err(failed)? {
                return Err(self.ended());
            }
        }
        let directory = mark.write(&folder).map_err(failed)?;
        let alternates = alternates(&mark.common);
        let common = mark.common.clone();
        self.tools.worktrees.made = Some(Made {
            mark: name,
            place: place.clone(),
            commit: commit.clone(),
            common,
            administration: None,
            alternates,
        });
        failpoint!("worktree.after-mark");
        let administration = {
            let locked = room::lock(&locks, &mark.common, &mut || self.goes_on()).map_err(failed)?;
            let Some(_lock) = locked else { return Err(self.ended()) };
            self.register(mark, &directory, &place, &commit)?
        };
        failpoint!("worktree.after-add");
        self.check_out(&administration, &place, &commit)?;
        copy_index(&administration, &directory).map_err(failed)?;
        if let Some(made) = &mut self.tools.worktrees.made {
            made.administration = Some(administration);
        }
        failpoint!("worktree.after-checkout");
        Ok(())
    }

    /// Has git add the worktree, without files; gives its administrative directory. Under the lock.
    fn register(&mut self, mark: &Mark, directory: &Path, place: &Path, commit: &str) -> Result<PathBuf, Fault> {
        // Whoever was killed in this row has had a worktree at the same place.
        for stale in mark.predecessors() {
            room::unregister(&stale).map_err(|error| self.refused(&error.to_string()))?;
        }
        let mut answer = self.run(add(mark, place, commit))?;
        if !answer.is_success() {
            // What a killed one has left half made, or is being changed by somebody without the lock, makes git fail once.
            room::remove_unfinished(&mark.common).map_err(|error| self.refused(&error.to_string()))?;
            answer = self.run(add(mark, place, commit))?;
        }
        if !answer.is_success() {
            return Err(self.refused(&room::explain(&self.wish.repo, &answer.words)));
        }
        let link = room::text(&place.join(".git"));
        let Some(administration) = link.as_deref().and_then(|link| link.strip_prefix("gitdir: ")) else {
            return Err(self.refused("git has made no worktree"));
        };
        let administration = PathBuf::from(administration);
        room::name(mark, directory, &administration).map_err(|error| self.refused(&error.to_string()))?;
        Ok(administration)
    }

    /// Writes the commit's files. Not by `git reset` or `git checkout`, which take locks in the repository itself that would stay
    /// there if they were killed.
    fn check_out(&mut self, administration: &Path, place: &Path, commit: &str) -> Result<(), Fault> {
        let git = Git {
            configuration: &POINTERS,
            places: places(administration, Some(place)),
            ..Git::new(place, ["read-tree", "--reset", "-u", commit])
        };
        let answer = self.run(git)?;
        match answer.is_success() {
            true => Ok(()),
            false => {
                let words = room::explain(&self.wish.repo, &answer.words);
                Err(Fault::Why(format!("the files of {commit} cannot be written: {words}")))
            }
        }
    }

    fn refused(&self, words: &str) -> Fault {
        Fault::Why(format!("none can be added to '{}': {words}", self.wish.repo))
    }

    fn deadline_ns(&self) -> u64 {
        self.timeout_ns.unwrap_or(u64::MAX).min(self.limit_ns)
    }

    /// Rests between two tries to get the lock; whether to try again.
    fn goes_on(&mut self) -> bool {
        self.stop = self.stop.or(self.tools.told_to_stop(self.attempt.ticket));
        self.stop.is_none() && clock::monotonic_ns() < self.deadline_ns() && rest(self.tools)
    }

    /// Why it did not go on.
    fn ended(&self) -> Fault {
        let now = clock::monotonic_ns();
        match self.stop {
            Some(stop) => Fault::Stopped(stop),
            None if self.timeout_ns.is_some_and(|at| now >= at) => Fault::TimedOut,
            None => {
                let minutes = MAKE_NS / 60_000_000_000;
                Fault::Why(format!("the repository '{}' took longer than {minutes} minutes", self.wish.repo))
            }
        }
    }

    fn run(&mut self, git: Git<'_>) -> Result<Answer, Fault> {
        let (deadline_ns, ticket) = (self.deadline_ns(), self.attempt.ticket);
        let mut stop = None;
        let answer = git.run(self.tools, deadline_ns, &mut |tools| {
            stop = tools.told_to_stop(ticket);
            Ok(stop.is_none())
        });
        self.stop = self.stop.or(stop);
        match answer {
            Ok(answer) => Ok(answer),
            Err(CallError::TooLong(_) | CallError::Ended(_)) => Err(self.ended()),
            Err(error @ (CallError::Absent(_) | CallError::Start { .. })) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Err(Fault::Why(format!("{error}{cause}")))
            }
        }
    }
}

/// The call that adds the worktree.
fn add<'m>(mark: &'m Mark, place: &Path, commit: &str) -> Git<'m> {
    let arguments = ["worktree", "add", "--quiet", "--detach", "--no-checkout", "--lock"].map(OsStr::new);
    let arguments = arguments.into_iter().chain([place.as_os_str(), commit.as_ref()]);
    Git { places: places(&mark.common, None), ..Git::new(&mark.common, arguments) }
}

/// The variables by which git knows a repository, and its worktree, without looking for them.
fn places(git_dir: &Path, worktree: Option<&Path>) -> Vec<(&'static str, String)> {
    let named = |name, path: &Path| (name, path.display().to_string());
    let mut places = vec![named("GIT_DIR", git_dir)];
    places.extend(worktree.map(|path| named("GIT_WORK_TREE", path)));
    places
}

/// What the worktree is called: as the repository, without the endings that people give to those.
fn name_of(common: &Path) -> String {
    let own = common.file_name().filter(|name| *name != ".git");
    let name = own.or_else(|| common.parent()?.file_name()).and_then(|name| name.to_str()).unwrap_or(NAMELESS);
    let name = name.strip_suffix(".git").unwrap_or(name);
    if name.is_empty() { NAMELESS.to_owned() } else { name.to_owned() }
}

/// Where else the repository's objects are.
fn alternates(common: &Path) -> Vec<PathBuf> {
    let objects = common.join("objects");
    let list = room::text(&objects.join("info/alternates")).unwrap_or_default();
    let paths = list.lines().filter(|line| !line.starts_with(['#', '"'])).map(|line| objects.join(line));
    paths.filter_map(|path| fs::canonicalize(path).ok()).take(ALTERNATES_MAX).collect()
}

/// Keeps the index as it was checked out, to know what has changed: its times are those of the files.
fn copy_index(administration: &Path, directory: &Path) -> std::io::Result<()> {
    let (from, to) = (administration.join("index"), directory.join("index"));
    fs::copy(&from, &to)?;
    // Git trusts an entry that is older than its index; this one is as old as it was.
    let modified = fs::metadata(&from)?.modified()?;
    fs::File::options().write(true).open(&to)?.set_times(fs::FileTimes::new().set_modified(modified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worktree_is_called_as_people_call_its_repository() {
        for (common, name) in [
            ("/home/me/proj/.git", "proj"),
            ("/srv/git/proj.git", "proj"),
            ("/srv/proj/.git/modules/lib", "lib"),
            ("/.git", "worktree"),
        ] {
            assert_eq!(name_of(Path::new(common)), name);
        }
    }
}
