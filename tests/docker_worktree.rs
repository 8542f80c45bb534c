//! Git worktrees and artefacts of tasks in containers.
//!
//! The image has no git, so what is asked is what git would find: files, variables, and the repository at its own place,
//! with what must not be changed there read-only. Deliberately absent: worktrees as such (`worktree.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/docker.rs"]
mod docker;
#[path = "common/more.rs"]
mod more;
#[path = "common/repository.rs"]
mod repository;

use std::os::unix::fs::MetadataExt;

use acode_worker::task::{TaskSpec, TaskState, Worktree};
use command::{Acode, entries};
use common::engine::Engine;
use common::{Pool, shell, signal, wait_until};
use docker::{assert_nothing_left, comes_clean, ended, in_container, pool};
use more::{only_attempt, output_of, reaches, written};
use nix::sys::signal::Signal;
use repository::{Repo, has_git};

fn keeping(repo: &Repo, script: &str) -> TaskSpec {
    let worktree = Worktree { repo: repo.text(), reference: None, commit: repo.head(), keep_changes: true };
    TaskSpec { worktree: Some(worktree), ..in_container(shell(script, &[&repo.text()])) }
}

/// What is left of worktrees in the repository and in the pool.
fn left(pool: &Pool, repo: &Repo) -> Vec<String> {
    [repo.worktrees(), entries(&pool.state_dir().join("worktrees"))].concat()
}

#[test]
fn a_worktree_is_at_its_place_in_the_container_and_its_changes_come_as_a_patch() {
    let Some(engine) = Engine::start().filter(|_| has_git()) else { return };
    let pool = pool(&engine, 1, "");
    let repo = Repo::make(pool.file("proj"));
    let before = repo.portrait();
    let script = r#"pwd; echo "$ACODE_WORKTREE"; echo "$ACODE_COMMIT"; cat sub/file-1; ./build.sh
        own=$(sed -n 's/^gitdir: //p' .git); echo "$own"; cut -c 1-40 "$own/HEAD"
        common=$(cd "$own" && cd "$(cat commondir)" && pwd); echo "$common"; cat "$common/HEAD"
        for file in "$common/HEAD" "$common/config" "$common/refs/heads/new" "$common/hooks/post-checkout"; do
            ( : >>"$file" ) 2>/dev/null && echo "wrote $file"; done
        ls "$1" | grep -v '^\.git$' >&2
        echo changed >sub/file-1; echo new >added; rm sub/file-2"#;
    let id = pool.submit_spec(keeping(&repo, script));
    let task = pool.wait(id);
    let said = written(&pool, id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}{}", said.out(), said.err());
    let (out, head) = (said.out(), repo.head());
    let lines: Vec<&str> = out.lines().collect();
    let place = lines[0];
    assert!(place.ends_with("/scratch/proj") && place.starts_with(&pool.path("")), "{out}");
    assert_eq!(lines[1..5], [place, &head, "content 1", &format!("built in {place}")], "{out}");
    let git = repo.git(&["rev-parse", "--absolute-git-dir"]);
    assert!(lines[5].starts_with(&format!("{git}/worktrees/")), "{out}");
    assert_eq!(lines[6..], [head.as_str(), &git, "ref: refs/heads/main"], "nothing of it could be written: {out}");
    assert_eq!(said.err(), "", "the checkout itself is not shown");
    let patch = Acode::of(&pool).says(&["task", "diff", &id.to_string()]).expect(0).out;
    for change in ["-content 1\n+changed\n", "+++ b/added\n", "deleted file mode 100644"] {
        assert!(patch.contains(change), "{change:?}: {patch}");
    }
    assert_eq!(repo.portrait(), before);
    assert_eq!(left(&pool, &repo), [""; 0]);
    assert_nothing_left(&engine, pool);
}

#[test]
fn artefacts_of_a_container_are_kept_and_ours() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let spec = TaskSpec {
        artifacts: vec!["out/**".to_owned()],
        ..shell("mkdir -p out/deep; echo 1 >out/a; echo 22 >out/deep/b; echo 3 >other", &[])
    };
    let task = ended(&pool, spec);
    assert_eq!(task.state, TaskState::Completed, "{task:?}");
    let kept = only_attempt(&task).artifacts.clone().expect("something is kept");
    assert_eq!((kept.files, kept.bytes, kept.omitted), (2, 5, None));
    let acode = Acode::of(&pool);
    acode.ok(&["task", "fetch", &task.id.to_string(), &pool.path("fetched")]);
    assert_eq!(std::fs::read_to_string(pool.file("fetched/out/deep/b")).unwrap(), "22\n");
    let files = pool.state_dir().join(format!("artifacts/{}-1/files/out/a", task.id));
    assert_eq!(files.metadata().unwrap().uid(), nix::unistd::geteuid().as_raw());
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_killed_worker_leaves_neither_container_nor_worktree() {
    let Some(engine) = Engine::start().filter(|_| has_git()) else { return };
    let pool = pool(&engine, 1, "  sweepIntervalSeconds: 1\n");
    let repo = Repo::make(pool.file("proj"));
    let script = r#"[ -e "$ACODE_CHECKPOINT/seen" ] && exit 0; touch "$ACODE_CHECKPOINT/seen"; exec sleep 1000"#;
    let id = pool.submit_spec(TaskSpec { checkpoint: true, ..keeping(&repo, script) });
    reaches(&pool, id, TaskState::Running);
    let folder = pool.state_dir().join("checkpoints");
    wait_until("it is at work", || entries(&folder).iter().any(|one| folder.join(one).join("seen").exists()));
    signal(pool.worker_of(id).pid, Signal::SIGKILL);
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
    wait_until("worktrees are gone", || left(&pool, &repo).is_empty());
    comes_clean(&engine, &pool);
    assert_eq!(output_of(&pool, in_container(shell("echo well", &[]))), "well\n");
    assert_nothing_left(&engine, pool);
}
