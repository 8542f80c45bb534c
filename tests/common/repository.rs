//! Git repositories for tests: made by the git that is installed, away from everybody's configuration.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The configuration of those who commit.
const WHO: [&str; 6] =
    ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "protocol.file.allow=always"];

/// Whether there is a git here; says so if not.
pub fn has_git() -> bool {
    let there = Command::new("git").arg("version").stdout(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("skipped: git is not installed");
    }
    there
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repo {
    /// Its checkout, or the bare repository.
    pub path: PathBuf,
}

impl Repo {
    /// Makes one with a few files and one commit, on the branch `main`.
    pub fn make(path: PathBuf) -> Self {
        let repo = Self::empty(path);
        fs::create_dir(repo.file("sub")).unwrap();
        for number in 0..20 {
            repo.write(&format!("sub/file-{number}"), format!("content {number}\n"));
        }
        repo.write("build.sh", "#!/bin/sh\necho built in \"$PWD\"\n");
        repo.write(".gitignore", "ignored\n");
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(repo.file("build.sh"), mode).unwrap();
        repo.commit("first");
        repo
    }

    /// Makes one without any commit.
    pub fn empty(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let repo = Self { path };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo
    }

    /// A bare copy.
    pub fn bare(&self, path: PathBuf) -> Self {
        self.git(&["clone", "--quiet", "--bare", ".", path.to_str().unwrap()]);
        Self { path }
    }

    /// A file of it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Its path as text.
    pub fn text(&self) -> String {
        self.path.to_str().unwrap().to_owned()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.file(name), content).unwrap();
    }

    /// Commits all, and gives the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
        self.head()
    }

    /// The present commit.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in it, expects success, and gives its output without the last line end.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = self.try_git(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?} in {}: {words}", self.path.display());
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Runs git in it.
    pub fn try_git(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GIT_")) {
            command.env_remove(name);
        }
        command.args(WHO).args(arguments).current_dir(&self.path).stdin(Stdio::null()).output().unwrap()
    }

    /// All that git and people see of the checkout, of its branches, and of what it holds for worktrees.
    pub fn portrait(&self) -> String {
        let seen = [
            &["status", "--porcelain=v2", "--branch", "--untracked-files=all", "--ignored"][..],
            &["for-each-ref"],
            &["diff", "--binary"],
            &["diff", "--binary", "--cached"],
            &["stash", "list"],
            &["count-objects"],
        ];
        seen.map(|arguments| self.git(arguments)).join("\n--\n")
    }

    /// Worktrees that are registered besides its own, and what else is left of some.
    pub fn worktrees(&self) -> Vec<String> {
        let list = self.git(&["worktree", "list", "--porcelain"]);
        let mut left: Vec<String> =
            list.lines().filter_map(|line| line.strip_prefix("worktree ")).skip(1).map(str::to_owned).collect();
        let git_dir = PathBuf::from(self.git(&["rev-parse", "--absolute-git-dir"]));
        let own = fs::read_dir(&git_dir).unwrap().flatten().map(|entry| entry.path());
        left.extend(
            own.filter(|path| path.extension().is_some_and(|end| end == "lock")).map(|path| path.display().to_string()),
        );
        let folder = git_dir.join("worktrees");
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let contents = |folder: PathBuf| {
            let names = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let reason = fs::read_to_string(folder.join("locked")).unwrap_or_default();
            format!("{}: {:?} ({})", folder.display(), names.collect::<Vec<_>>(), reason.trim())
        };
        left.extend(entries.map(|entry| contents(entry.path())));
        left
    }
}
