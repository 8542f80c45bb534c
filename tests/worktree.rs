//! Tasks in git worktrees of their own: what they find there, what is kept of what they change, and that neither the
//! repository nor anybody's work in it is touched.
//!
//! Deliberately absent: many at once, and kills (`worktree_faults.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/repository.rs"]
mod repository;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use acode_worker::task::{Cleanup, TaskId, TaskSpec, TaskState, Worktree};
use command::{Acode, entries};
use common::{Options, Pool, shell, wait_until};
use more::{gated, only_attempt, open_gate, output_of, reaches, verdict, written};
use repository::{Repo, has_git};

/// A pool and a repository beside it.
fn bench(options: Options) -> Option<(Pool, Repo)> {
    if !has_git() {
        return None;
    }
    let pool = Pool::start(options);
    let repo = Repo::make(pool.file("proj"));
    Some((pool, repo))
}

fn worktree(repo: &Repo) -> Option<Worktree> {
    Some(Worktree { repo: repo.text(), reference: None, commit: repo.head(), keep_changes: false })
}

fn keeping(repo: &Repo) -> Option<Worktree> {
    worktree(repo).map(|worktree| Worktree { keep_changes: true, ..worktree })
}

fn in_worktree(repo: &Repo, script: &str) -> TaskSpec {
    TaskSpec { worktree: worktree(repo), ..shell(script, &[]) }
}

/// The patch of a task, as it was kept.
fn patch(pool: &Pool, id: TaskId) -> String {
    Acode::of(pool).says(&["task", "diff", &id.to_string()]).expect(0).out
}

/// Expects that nothing of any worktree is left in the repository, nor in the state directory.
#[track_caller]
fn assert_nothing_left(pool: &Pool, repo: &Repo) {
    assert_eq!(repo.worktrees(), Vec::<String>::new());
    assert_eq!(entries(&pool.state_dir().join("worktrees")), Vec::<String>::new());
}

#[test]
fn a_task_finds_the_commit_in_a_worktree_and_leaves_the_checkout_as_it_was() {
    let Some((pool, repo)) = bench(Options::workers(2)) else { return };
    // The checkout is as dirty as it gets, and busy with something.
    repo.write("sub/file-1", "changed and staged\n");
    repo.git(&["add", "sub/file-1"]);
    repo.write("sub/file-1", "and changed again\n");
    repo.write("untracked", "x");
    repo.write("ignored", "x");
    fs::remove_file(repo.file("sub/file-2")).unwrap();
    fs::write(repo.file(".git/MERGE_HEAD"), format!("{}\n", repo.head())).unwrap();
    let before = repo.portrait();
    let script = "pwd; git status --porcelain --ignored; git rev-parse HEAD; git symbolic-ref -q HEAD || echo detached; \
                  cat sub/file-1; echo $ACODE_WORKTREE $ACODE_COMMIT; git worktree list | tail -1";
    let said = output_of(&pool, in_worktree(&repo, script));
    let lines: Vec<&str> = said.lines().collect();
    let place = lines[0];
    assert!(place.ends_with("/scratch/proj"), "{said}");
    let facts = format!("{place} {}", repo.head());
    assert_eq!(lines[1..5], [&repo.head(), "detached", "content 1", &facts], "{said}");
    assert!(lines[5].starts_with(place) && lines[5].contains("locked"), "{said}");
    assert_eq!(repo.portrait(), before);
    // What it does there, it does to nobody else.
    let commits =
        "echo y >sub/file-3; git -c user.name=T -c user.email=t commit -qam second; git branch -f other; rm -r sub";
    output_of(&pool, in_worktree(&repo, commits));
    repo.git(&["branch", "-D", "other"]);
    let objects = |text: &str| text.split("\n--\n").take(5).collect::<Vec<_>>().join("");
    assert_eq!(objects(&repo.portrait()), objects(&before));
    assert_nothing_left(&pool, &repo);
}

#[test]
fn people_name_repositories_in_many_ways_and_the_commit_is_pinned() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    let acode = Acode::of(&pool);
    let (first, bare) = (repo.head(), repo.bare(pool.file("at@bare.git")));
    repo.git(&["tag", "-m", "a tag", "v1"]);
    repo.git(&["worktree", "add", "--quiet", "--detach", &pool.path("linked")]);
    repo.write("sub/file-1", "second\n");
    let second = repo.commit("second");
    acode.ok(&["worker", "pause"]);
    let short = format!("proj@{}", &first[..8]);
    let cases = [
        ("proj", &second, repo.text()),
        ("./proj/sub@main", &second, repo.text()),
        ("proj@v1", &first, repo.text()),
        ("proj@HEAD~1", &first, repo.text()),
        ("proj@HEAD@{0}", &second, repo.text()),
        (&short, &first, repo.text()),
        ("linked", &first, repo.text()),
        ("at@bare.git", &first, bare.text()),
        ("at@bare.git@main", &first, bare.text()),
    ];
    let mut ids = Vec::new();
    for (text, commit, place) in &cases {
        let submit = ["task", "submit", "--worktree", text, "--", "git", "rev-parse", "HEAD"];
        let id = acode.ok(&submit);
        let task = acode.json(&["task", "show", &id]);
        assert_eq!(
            (&task["worktree"]["commit"], &task["worktree"]["repo"]),
            (&commit.as_str().into(), &place.as_str().into()),
            "{text}"
        );
        ids.push((id, (*commit).clone()));
    }
    // The branch moves, and the worktree that was named goes.
    repo.git(&["worktree", "remove", &pool.path("linked")]);
    repo.write("sub/file-1", "third\n");
    repo.commit("third");
    acode.ok(&["worker", "resume"]);
    for (id, commit) in ids {
        acode.ok(&["task", "wait", &id]);
        assert_eq!(acode.ok(&["task", "logs", &id]), commit);
    }
    let shown = acode.ok(&["task", "show", "3"]);
    assert!(shown.contains(&format!("Worktree   {} at {first} (v1)", repo.text())), "{shown}");
    // A program with a path is meant in there.
    let id = acode.ok(&["task", "submit", "--worktree", "proj", "--", "./build.sh"]);
    acode.ok(&["task", "wait", &id]);
    assert!(acode.ok(&["task", "logs", &id]).contains("scratch/proj"));
    assert_nothing_left(&pool, &repo);
    assert_nothing_left(&pool, &bare);
}

#[test]
fn what_cannot_be_a_worktree_is_told_at_submission() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    Repo::empty(pool.file("empty"));
    fs::create_dir(pool.file("plain")).unwrap();
    let acode = Acode::of(&pool);
    let refused = |acode: &Acode, text: &str| {
        let said = acode.says(&["task", "submit", "--worktree", text, "--", "true"]).expect(2);
        said.err.replace(&repo.path.parent().unwrap().display().to_string(), "").trim_end().to_owned()
    };
    insta::assert_snapshot!(refused(&acode, "proj@nope"), @"acode: 'nope' names no commit of the repository '/proj'");
    insta::assert_snapshot!(refused(&acode, "proj@"), @"acode: '' is no reference: a branch, a tag or a commit is expected after the @");
    insta::assert_snapshot!(refused(&acode, "proj@--all"), @"acode: '--all' is no reference: a branch, a tag or a commit is expected after the @");
    insta::assert_snapshot!(refused(&acode, "proj@main:sub"), @"acode: 'main:sub' names no commit of the repository '/proj'");
    insta::assert_snapshot!(refused(&acode, "empty"), @"acode: the repository '/empty' has no commit yet");
    insta::assert_snapshot!(refused(&acode, "plain"), @"acode: '/plain' is not a git repository");
    insta::assert_snapshot!(refused(&acode, "missing@main"), @"acode: there is no directory '/missing' for a worktree");
    let without = acode.clone().var("PATH", "/nowhere");
    insta::assert_snapshot!(refused(&without, "proj"), @"acode: git is needed for a worktree, and cannot be run: No such file or directory (os error 2)");
    // Whoever submits from a hook names its repository all the same.
    let in_hook = acode.clone().var("GIT_DIR", pool.path("empty/.git")).var("GIT_WORK_TREE", "/");
    in_hook.ok(&["task", "submit", "--worktree", "proj", "--", "true"]);
    // Over the protocol nobody looks, and so the commit must be whole.
    let bad = Worktree { commit: "main".into(), ..worktree(&repo).unwrap() };
    let task = more::entry(TaskSpec { worktree: Some(bad), ..shell("true", &[]) });
    let error = pool.try_call(&acode::wire::request::Submit::new(vec![task])).unwrap_err();
    assert!(error.to_string().contains("a full commit id"), "{error}");
}

#[test]
fn a_repository_of_another_user_is_refused_with_what_helps() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: giving a repository away needs root");
        return;
    }
    let spec = in_worktree(&repo, "true");
    let given = Command::new("chown").args(["-R", "4242"]).arg(&repo.path).status().unwrap();
    assert!(given.success());
    let said = Acode::of(&pool).says(&["task", "submit", "--worktree", "proj", "--", "true"]).expect(2);
    let help = format!("`git config --global --add safe.directory {}`", repo.text());
    assert!(said.err.contains("belongs to another user") && said.err.contains(&help), "{said:?}");
    let task = pool.wait(pool.submit_spec(spec));
    assert_eq!(verdict(&task), "not-started");
    assert!(task.error.as_ref().is_some_and(|error| error.contains(&help)), "{task:?}");
}

#[test]
fn what_went_away_between_submission_and_start_is_told() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    let gone = Repo::make(pool.file("gone"));
    let (spec, plain) = (in_worktree(&gone, "true"), in_worktree(&repo, "true"));
    let unknown = Worktree { commit: "12".repeat(20), ..worktree(&repo).unwrap() };
    fs::remove_dir_all(&gone.path).unwrap();
    let why = |spec: TaskSpec| {
        let task = pool.wait(pool.submit_spec(spec));
        assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "not-started"));
        task.error.unwrap().replace(&repo.path.parent().unwrap().display().to_string(), "")
    };
    insta::assert_snapshot!(why(spec.clone()), @"worktree: there is no directory '/gone' any more");
    insta::assert_snapshot!(why(TaskSpec { worktree: Some(unknown), ..plain.clone() }), @"worktree: the commit 1212121212121212121212121212121212121212 is not in '/proj' any more");
    fs::create_dir(&gone.path).unwrap();
    insta::assert_snapshot!(why(spec), @"worktree: '/gone' is not a git repository");
    assert_eq!(pool.wait(pool.submit_spec(plain)).state, TaskState::Completed);
    assert_nothing_left(&pool, &repo);
}

#[test]
fn a_failure_leaves_files_and_patch_and_a_success_nothing() {
    let Some((pool, repo)) = bench(Options::workers(2)) else { return };
    let acode = Acode::of(&pool);
    let failed = pool.submit_spec(in_worktree(&repo, "echo new >new; echo changed >>sub/file-1; exit 3"));
    assert_eq!(pool.wait(failed).exit_code, Some(3));
    let kept = pool.state_dir().join("kept").join(format!("{failed}-1"));
    assert_eq!(fs::read_to_string(kept.join("proj/new")).unwrap(), "new\n");
    assert_eq!(only_attempt(&pool.show(failed)).kept.as_deref(), kept.to_str());
    let text = patch(&pool, failed);
    assert!(text.contains("+++ b/new") && text.contains("+changed"), "{text}");
    assert!(acode.ok(&["task", "diff", "--stat", &failed.to_string()]).contains("2 files changed"));
    let document = acode.json(&["task", "diff", "--attempt", "1", &failed.to_string()]);
    assert_eq!(document["bytes"], text.len());
    acode.says(&["task", "diff", "--attempt", "2", &failed.to_string()]).expect(1);
    let fine = pool.submit_spec(in_worktree(&repo, "echo new >new"));
    pool.wait(fine);
    assert!(!pool.state_dir().join("kept").join(format!("{fine}-1")).exists());
    let said = acode.says(&["task", "diff", &fine.to_string()]).expect(1);
    assert!(said.err.contains("--keep-changes"), "{said:?}");
    let plain = pool.submit(&["true"]);
    let said = acode.says(&["task", "diff", &plain.to_string()]).expect(1);
    assert!(said.err.contains("has no git worktree"), "{said:?}");
    // By its own word it keeps neither; by the configuration of the pool the other way round.
    let cleanup = Some(Cleanup::Always);
    let own = pool.submit_spec(TaskSpec { cleanup, ..in_worktree(&repo, "echo x >new; exit 1") });
    pool.wait(own);
    acode.says(&["task", "diff", &own.to_string()]).expect(1);
    assert!(!pool.state_dir().join("kept").join(format!("{own}-1")).exists());
    assert_nothing_left(&pool, &repo);
}

#[test]
fn the_configuration_says_after_which_ends_worktrees_go() {
    let Some((pool, repo)) = bench(Options::workers(1).config("cleanup:\n  worktrees: failure")) else { return };
    for (script, kept) in [("echo x >new", true), ("echo x >new; exit 1", false)] {
        let id = pool.submit_spec(in_worktree(&repo, script));
        pool.wait(id);
        assert_eq!(pool.state_dir().join("kept").join(format!("{id}-1/proj/new")).exists(), kept, "{script}");
        let patch = pool.state_dir().join("artifacts").join(format!("{id}-1/changes.patch"));
        assert_eq!(patch.exists(), kept, "{script}");
    }
    assert_nothing_left(&pool, &repo);
}

#[test]
fn a_patch_holds_every_kind_of_change() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    repo.write("binary", [0_u8, 159, 146, 150, 0, 1, 2]);
    repo.commit("with a binary");
    let script = "echo committed >sub/file-1; git -c user.name=T -c user.email=t commit -qam x
        echo staged >sub/file-2; git add sub/file-2; echo changed >sub/file-3; rm sub/file-4 sub/file-1[0-9]
        head -c 100000 /dev/urandom >binary; printf 'a\\0b' >'new \"binary\"'; chmod +x sub/file-5; ln -s sub link
        rm sub/file-6; mkdir sub/file-6; echo in >sub/file-6/in; mkdir -p deep/er; echo x >deep/er/file
        echo i >ignored; printf 'no end' >sub/file-7; touch emptied; mkdir empty; cp -r . ../result";
    let cleanup = Some(Cleanup::Never);
    let id = pool.submit_spec(TaskSpec { worktree: keeping(&repo), cleanup, ..shell(script, &[]) });
    assert_eq!(pool.wait(id).state, TaskState::Completed, "{}", written(&pool, id).err());
    let copy = Repo { path: pool.file("copy") };
    repo.git(&["clone", "--quiet", ".", &copy.text()]);
    let omitted = only_attempt(&pool.show(id)).artifacts.clone().and_then(|artifacts| artifacts.omitted);
    assert_eq!(omitted, None);
    fs::write(pool.file("patch"), patch_bytes(&pool, id)).unwrap();
    copy.git(&["apply", "--index", &pool.path("patch")]);
    let result = Repo { path: pool.state_dir().join("kept").join(format!("{id}-1/result")) };
    // The copy of the worktree is compared file by file; git knows it no more.
    fs::remove_file(result.file(".git")).unwrap();
    fs::remove_file(result.file("ignored")).unwrap();
    fs::remove_dir(result.file("empty")).unwrap();
    fs::rename(copy.file(".git"), pool.file("copy.git")).unwrap();
    let mut differ = Command::new("diff");
    let differ = differ.args(["-r", "--no-dereference"]).arg(&copy.path).arg(&result.path).output().unwrap();
    assert!(differ.status.success(), "{}", String::from_utf8_lossy(&differ.stdout));
    // Without a change the patch is empty, and there all the same.
    let none = pool.submit_spec(TaskSpec { worktree: keeping(&repo), ..shell("touch sub/file-1", &[]) });
    pool.wait(none);
    assert_eq!(patch(&pool, none), "");
    assert_nothing_left(&pool, &repo);
}

/// The patch of a task as bytes: it need not be UTF-8.
fn patch_bytes(pool: &Pool, id: TaskId) -> Vec<u8> {
    let path = pool.state_dir().join("artifacts").join(format!("{id}-1/changes.patch"));
    fs::read(path).unwrap()
}

#[test]
fn changes_beyond_the_bound_are_told_and_not_kept() {
    let Some((pool, repo)) = bench(Options::workers(1).config("artifacts:\n  maxBytesPerTask: 100000")) else { return };
    for script in
        ["head -c 3000000 /dev/urandom >large", "for n in 1 2 3 4 5 6; do head -c 50000 /dev/urandom >$n; done"]
    {
        let id = pool.submit_spec(TaskSpec { worktree: keeping(&repo), ..shell(script, &[]) });
        let task = pool.wait(id);
        assert_eq!(task.state, TaskState::Completed);
        let said = Acode::of(&pool).says(&["task", "diff", &id.to_string()]).expect(1);
        assert!(said.err.contains("more than 100000 bytes"), "{said:?}");
        assert!(!pool.state_dir().join("artifacts").join(format!("{id}-1")).exists());
    }
    assert_nothing_left(&pool, &repo);
}

#[test]
fn submodules_are_left_to_the_task() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    let library = Repo::make(pool.file("library"));
    repo.git(&["submodule", "--quiet", "add", &library.text(), "lib"]);
    repo.commit("with a submodule");
    assert_eq!(output_of(&pool, in_worktree(&repo, "ls -A lib; cat .gitmodules | head -1")), "[submodule \"lib\"]\n");
    // Changed within, it is told by its commit alone, and whatever is configured in there does not run.
    let script = "git -c protocol.file.allow=always submodule --quiet update --init && cat lib/sub/file-1 && cd lib && \
                  git config core.fsmonitor \"touch $1\" && echo x >sub/file-1 && echo top >../top && \
                  git -c user.name=T -c user.email=t commit -qam y && echo z >sub/file-2 && exit 1";
    let spec = TaskSpec { worktree: worktree(&repo), ..shell(script, &[&pool.path("witness")]) };
    let id = pool.submit_spec(spec);
    assert_eq!(pool.wait(id).exit_code, Some(1), "{}", written(&pool, id).err());
    let _ = fs::remove_file(pool.file("witness"));
    let again = pool.submit_spec(in_worktree(&repo, "exit 1"));
    pool.wait(again);
    let text = patch(&pool, id);
    assert!(text.contains("+Subproject commit") && text.contains("+top"), "{text}");
    assert_eq!(patch(&pool, again), "");
    assert_nothing_left(&pool, &repo);
}

#[test]
fn files_of_git_lfs_stay_pointers_and_hooks_do_not_run() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 42\n";
    repo.write("large.bin", pointer);
    repo.commit("a pointer");
    repo.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    repo.git(&["-c", "core.hooksPath=/dev/null", "add", ".gitattributes"]);
    repo.git(&["commit", "--quiet", "-m", "attributes"]);
    for (name, value) in [
        ("smudge", "no-such-git-lfs smudge"),
        ("process", "no-such-git-lfs process"),
        ("clean", "no-such-git-lfs"),
        ("required", "true"),
    ] {
        repo.git(&["config", &format!("filter.lfs.{name}"), value]);
    }
    for hook in ["post-checkout", "post-index-change", "reference-transaction"] {
        repo.write(&format!(".git/hooks/{hook}"), format!("#!/bin/sh\ntouch {}\n", pool.path("hooked")));
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(repo.file(&format!(".git/hooks/{hook}")), mode).unwrap();
    }
    assert_eq!(output_of(&pool, in_worktree(&repo, "cat large.bin")), pointer);
    let id = pool.submit_spec(in_worktree(&repo, "echo x >new; exit 1"));
    pool.wait(id);
    let text = patch(&pool, id);
    assert!(text.contains("+++ b/new") && !text.contains("large.bin"), "{text}");
    assert!(!pool.file("hooked").exists());
    assert_nothing_left(&pool, &repo);
}

#[test]
fn an_attempt_ends_while_its_worktree_is_made() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    repo.write(".gitattributes", "*.slow filter=slow\n");
    repo.write("a.slow", "x");
    repo.commit("slow");
    let gate = pool.path("checked-out");
    repo.git(&["config", "filter.slow.smudge", &format!("touch {gate}; exec sleep 300")]);
    let running = || fs::remove_file(&gate).is_ok();
    let id = pool.submit_spec(in_worktree(&repo, "true"));
    wait_until("the checkout hangs", running);
    assert!(more::cancel(&pool, id));
    assert_eq!(reaches(&pool, id, TaskState::Cancelled).state, TaskState::Cancelled);
    let late = pool.submit_spec(TaskSpec { timeout_ms: Some(300), ..in_worktree(&repo, "true") });
    assert_eq!(verdict(&pool.wait(late)), "timed-out");
    repo.git(&["config", "filter.slow.smudge", "exit 1"]);
    repo.git(&["config", "filter.slow.required", "true"]);
    let broken = pool.wait(pool.submit_spec(in_worktree(&repo, "true")));
    assert!(broken.error.as_ref().is_some_and(|error| error.contains("cannot be written")), "{broken:?}");
    assert_nothing_left(&pool, &repo);
}

#[test]
fn sandboxed_tasks_read_the_repository_and_write_their_worktree() {
    let Some((pool, repo)) = bench(Options::workers(1).within("/var/tmp")) else { return };
    for access in ["scratch", "read-only"] {
        let sandbox = Some(format!("filesystem={access}").parse().unwrap());
        let script = "echo x >sub/file-1; git status --porcelain; git log --format=%s; \
                      touch \"$1\" 2>&- || echo no; git add sub 2>&- || echo no";
        let spec = TaskSpec { sandbox, worktree: keeping(&repo), ..shell(script, &[&format!("{}/new", repo.text())]) };
        let id = pool.submit_spec(spec);
        let task = pool.wait(id);
        if task.error.as_ref().is_some_and(|error| error.contains("sandbox")) {
            eprintln!("skipped: {access}: {:?}", task.error);
            continue;
        }
        assert_eq!(
            written(&pool, id).out(),
            " M sub/file-1\nfirst\nno\nno\n",
            "{access}: {}",
            written(&pool, id).err()
        );
        assert!(patch(&pool, id).contains("+x"));
    }
    if nix::unistd::geteuid().is_root() {
        let sandbox = Some("user=nobody".parse().unwrap());
        let task = pool.wait(pool.submit_spec(TaskSpec { sandbox, ..in_worktree(&repo, "true") }));
        assert!(task.error.as_ref().is_some_and(|error| error.contains("cannot be given to 'nobody'")), "{task:?}");
    }
    assert_nothing_left(&pool, &repo);
}

#[test]
fn a_task_that_spoils_its_worktree_harms_nobody() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    let other = Repo::make(pool.file("other"));
    other.write("private", "secret\n");
    let before = (repo.portrait(), other.portrait());
    for script in [
        "rm -rf ../proj",
        "rm -rf ../proj; ln -s \"$1\" ../proj",
        "echo 'gitdir: /nowhere' >.git",
        "rm .git; mkfifo .git",
        "a=$(git rev-parse --absolute-git-dir); rm $a/gitdir $a/locked; mkfifo $a/gitdir; echo junk >$a/index; echo x >new",
        "git worktree unlock . && git worktree remove --force .",
        "git worktree unlock . && git worktree move . ../moved",
        "chmod 0 sub; mkdir -p deep; exec 2>/dev/null; touch $(git rev-parse --absolute-git-dir)/index.lock",
    ] {
        let id = pool.submit_spec(TaskSpec { worktree: keeping(&repo), ..shell(script, &[&other.text()]) });
        assert!(pool.wait(id).state.is_final(), "{script}");
        let path = pool.state_dir().join("artifacts").join(format!("{id}-1/changes.patch"));
        assert!(!fs::read_to_string(path).unwrap_or_default().contains("secret"), "{script}");
        assert_nothing_left(&pool, &repo);
    }
    assert_eq!((repo.portrait(), other.portrait()), before);
}

#[test]
fn task_files_name_worktrees_and_lay_them_over_their_defaults() {
    let Some((pool, repo)) = bench(Options::workers(2)) else { return };
    let first = repo.head();
    repo.git(&["tag", "v1"]);
    repo.write("sub/file-1", "second\n");
    let second = repo.commit("second");
    symlink(&repo.path, pool.file("by-link")).unwrap();
    let text = "defaults: {worktree: {repo: proj, keepChanges: true}}
tasks:
  - {name: a, command: git rev-parse HEAD}
  - {name: b, command: git rev-parse HEAD, worktree: {ref: v1}}
  - {name: c, command: git rev-parse HEAD, worktree: by-link@v1}
  - {name: d, command: git rev-parse HEAD, worktree: none}
  - {name: e, command: ./build.sh, each: [1, 2, 3]}
";
    fs::write(pool.file("tasks.yaml"), text).unwrap();
    let acode = Acode::of(&pool);
    acode.ok(&["task", "submit", "--file", "tasks.yaml"]);
    acode.says(&["task", "wait", "--all"]);
    for (name, commit) in [("a", &second), ("b", &first), ("c", &first)] {
        assert_eq!(&acode.ok(&["task", "logs", name]), commit, "{name}");
        let task = acode.json(&["task", "show", name]);
        assert_eq!((&task["worktree"]["repo"], &task["worktree"]["keepChanges"]), (&repo.text().into(), &true.into()));
    }
    assert_eq!(acode.json(&["task", "show", "d"])["state"], "failed");
    assert_eq!(acode.ok(&["task", "logs", "e"]).lines().count(), 3);
    for (line, fault) in [
        ("worktree: proj@nope", "tasks.yaml:2:33: worktree: 'nope' names no commit"),
        ("worktree: {ref: main}", "tasks.yaml:2:33: worktree"),
        ("worktree: {repo: proj, rev: x}", "unknown key"),
    ] {
        fs::write(pool.file("tasks.yaml"), format!("tasks:\n  - {{command: 'true', {line}}}\n")).unwrap();
        let said = acode.says(&["task", "submit", "--file", "tasks.yaml"]).expect(2);
        assert!(said.err.contains(fault), "{line}: {}", said.err);
    }
    let lines = "{\"command\": [\"true\"], \"worktree\": \"proj\"}\n".repeat(50);
    fs::write(pool.file("tasks.jsonl"), lines).unwrap();
    Acode::without_state(&pool).says(&["run", "--count", "2", "--no-progress", "tasks.jsonl"]).expect(0);
    assert_nothing_left(&pool, &repo);
}

#[test]
fn a_given_directory_stays_the_working_directory() {
    let Some((pool, repo)) = bench(Options::workers(1)) else { return };
    let spec = TaskSpec { cwd: Some("/".into()), ..in_worktree(&repo, "pwd; ls $ACODE_WORKTREE | head -1") };
    assert_eq!(output_of(&pool, spec), "/\nbuild.sh\n");
    // And a retry begins with a fresh one.
    let retry = Some(acode_worker::task::Retries { count: Some(1), delay_ms: Some(1), ..Default::default() });
    let script = "[ -e new ] && exit 9; echo x >new; [ $ACODE_ATTEMPT = 2 ]";
    assert_eq!(output_of(&pool, TaskSpec { retry, ..in_worktree(&repo, script) }), "");
    // While one runs, `git worktree prune` of the user's leaves it alone.
    let spec = gated(&pool, "gate");
    let id = pool.submit_spec(TaskSpec { worktree: worktree(&repo), ..spec });
    reaches(&pool, id, TaskState::Running);
    repo.git(&["worktree", "prune", "--expire", "now"]);
    assert_eq!(repo.worktrees().len(), 2);
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    assert_nothing_left(&pool, &repo);
}
