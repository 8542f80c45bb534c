//! The room by its public face: whatever a task does to it, the next task finds a fresh one, and nothing outside of
//! it is touched.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use acode_worker::room::{Progress, Room, remove_tree};
use acode_worker::task::{ERROR_MAX, RESULT_MAX};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::mkfifo;

fn open_room() -> (tempfile::TempDir, Room) {
    let dir = tempfile::tempdir().unwrap();
    let room = Room::open(&dir.path().join("rooms"), 3).unwrap();
    (dir, room)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn write_progress(room: &Room, text: &str) {
    fs::OpenOptions::new().write(true).open(room.progress()).unwrap().write_all(text.as_bytes()).unwrap();
}

fn assert_fresh(room: &mut Room) {
    assert_eq!(names(room.path()), ["progress", "scratch"]);
    assert!(names(room.scratch()).is_empty());
    assert_eq!(fs::symlink_metadata(room.path()).unwrap().mode(), 0o40700);
    assert_eq!(fs::symlink_metadata(room.scratch()).unwrap().mode(), 0o40700);
    let fifo = fs::symlink_metadata(room.progress()).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!(fifo.mode() & 0o777, 0o600);
    assert_eq!(room.read_progress(), None);
    write_progress(room, "12 alive\n");
    assert_eq!(room.read_progress(), Some(Progress { percent: 12.0, message: "alive".into() }));
}

/// Directories, each in the one before, without any path longer than the kernel takes.
fn dig(at: &Path, depth: usize) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut dir = open(at, flags, Mode::empty()).unwrap();
    for level in 0..depth {
        mkdirat(&dir, "d", Mode::S_IRWXU).unwrap();
        mkdirat(&dir, "beside", Mode::S_IRWXU).unwrap();
        if level % 100 == 0 {
            let file = OFlag::O_CREAT | OFlag::O_WRONLY;
            openat(&dir, "file", file, Mode::S_IRUSR).unwrap();
        }
        dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn an_untouched_room_is_used_again_for_ever() {
    let (_dir, mut room) = open_room();
    let inode = fs::metadata(room.scratch()).unwrap().ino();
    for _ in 0..100 {
        assert!(room.clean().unwrap());
    }
    assert_eq!(fs::metadata(room.scratch()).unwrap().ino(), inode);
    assert_fresh(&mut room);
    let path = room.path().to_owned();
    room.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn results_and_errors_are_collected_and_gone_after_cleaning() {
    let (_dir, mut room) = open_room();
    fs::write(room.result(), b" {\"answer\": [42, null]}\n").unwrap();
    fs::write(room.error(), b"  it went \xff wrong\n\n").unwrap();
    write_progress(&room, "10\n99 nearly");
    let collected = room.collect();
    assert_eq!(collected.result.as_deref(), Some(r#"{"answer":[42,null]}"#));
    assert_eq!(collected.result_error, None);
    assert_eq!(collected.error.as_deref(), Some("it went \u{fffd} wrong"));
    assert_eq!(collected.progress, Some(Progress { percent: 99.0, message: "nearly".into() }));
    assert!(room.clean().unwrap());
    assert_eq!(room.collect(), Default::default());
    assert_fresh(&mut room);
}

#[test]
fn a_result_that_is_no_result_says_why() {
    let (dir, mut room) = open_room();
    let mut why = |plant: &dyn Fn(&Path)| {
        plant(room.result());
        let collected = room.collect();
        assert_eq!(collected.result, None);
        room.clean().unwrap();
        assert_fresh(&mut room);
        collected.result_error.unwrap()
    };
    let secret = dir.path().join("secret");
    fs::write(&secret, b"1").unwrap();
    assert!(why(&|path| fs::write(path, b"{").unwrap()).starts_with("the result is not JSON: "));
    assert!(why(&|path| fs::write(path, b"").unwrap()).starts_with("the result is not JSON: "));
    let large = "1".repeat(RESULT_MAX + 1);
    assert_eq!(why(&|path| fs::write(path, &large).unwrap()), "the result is larger than 65536 bytes");
    let not_regular = "the result is not a regular file";
    assert_eq!(why(&|path| symlink(&secret, path).unwrap()), not_regular);
    assert_eq!(why(&|path| mkfifo(path, Mode::S_IRWXU).unwrap()), not_regular);
    assert_eq!(why(&|path| fs::create_dir_all(path.join("a/b")).unwrap()), not_regular);
    assert_eq!(fs::read(&secret).unwrap(), b"1");
}

#[test]
fn a_result_of_exactly_the_limit_is_taken_and_an_error_is_cut_between_characters() {
    let (_dir, mut room) = open_room();
    fs::write(room.result(), format!("\"{}\"", "r".repeat(RESULT_MAX - 2))).unwrap();
    fs::write(room.error(), format!("x{}", "ä".repeat(ERROR_MAX))).unwrap();
    let collected = room.collect();
    assert!(collected.result.is_some());
    let error = collected.error.unwrap();
    assert!(error.len() <= ERROR_MAX && error.len() > ERROR_MAX - 4 && error.ends_with('ä'));
    fs::write(room.error(), b" \n ").unwrap();
    assert_eq!(room.collect().error, None);
}

#[test]
fn a_full_scratch_is_emptied_and_links_are_not_followed() {
    let (dir, mut room) = open_room();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"x").unwrap();
    symlink(&outside, room.scratch().join("link")).unwrap();
    fs::create_dir_all(room.scratch().join("a/b/c")).unwrap();
    symlink(&outside, room.scratch().join("a/b/link")).unwrap();
    mkfifo(&room.scratch().join("a/fifo"), Mode::S_IRWXU).unwrap();
    for n in 0..1500 {
        fs::write(room.scratch().join(format!("file{n}")), b"").unwrap();
        fs::create_dir_all(room.scratch().join(format!("dir{n}/sub"))).unwrap();
    }
    assert!(!room.clean().unwrap());
    assert_fresh(&mut room);
    assert_eq!(names(&outside), ["precious"]);
}

#[test]
fn scratch_that_was_touched_but_is_empty_is_made_anew() {
    let (_dir, mut room) = open_room();
    room.clean().unwrap();
    // The kernel's clock for files may stand still for some milliseconds; the change shows after its next tick.
    let before = fs::metadata(room.scratch()).unwrap();
    while fs::metadata(room.scratch()).unwrap().ctime_nsec() == before.ctime_nsec() {
        fs::write(room.scratch().join("x"), b"").unwrap();
        fs::remove_file(room.scratch().join("x")).unwrap();
    }
    assert!(!room.clean().unwrap());
    assert_fresh(&mut room);
}

#[test]
fn every_swap_of_the_rooms_own_things_is_undone() {
    let (dir, mut room) = open_room();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"x").unwrap();
    let away = dir.path().join("away");
    type Swap<'a> = &'a dyn Fn(&Room);
    let swaps: [(&str, Swap<'_>); 12] = [
        ("scratch removed", &|r| fs::remove_dir(r.scratch()).unwrap()),
        ("scratch renamed", &|r| fs::rename(r.scratch(), r.path().join("other")).unwrap()),
        ("scratch a link", &|r| {
            fs::remove_dir(r.scratch()).unwrap();
            symlink(&outside, r.scratch()).unwrap();
        }),
        ("scratch replaced", &|r| {
            fs::remove_dir(r.scratch()).unwrap();
            fs::create_dir(r.scratch()).unwrap();
        }),
        ("scratch without permissions", &|r| {
            fs::create_dir(r.scratch().join("x")).unwrap();
            fs::set_permissions(r.scratch(), Permissions::from_mode(0o000)).unwrap();
        }),
        ("room without permissions", &|r| fs::set_permissions(r.path(), Permissions::from_mode(0o777)).unwrap()),
        ("fifo removed", &|r| fs::remove_file(r.progress()).unwrap()),
        ("fifo a file", &|r| {
            fs::remove_file(r.progress()).unwrap();
            fs::write(r.progress(), b"50\n").unwrap();
        }),
        ("fifo opened to others", &|r| fs::set_permissions(r.progress(), Permissions::from_mode(0o666)).unwrap()),
        ("fifo shrunk", &|r| {
            let fd = open(r.progress(), OFlag::O_RDWR, Mode::empty()).unwrap();
            fcntl(fd.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        }),
        ("something planted beside", &|r| fs::create_dir_all(r.path().join("mine/too")).unwrap()),
        ("room a link", &|r| {
            fs::rename(r.path(), &away).unwrap();
            symlink(&outside, r.path()).unwrap();
        }),
    ];
    for (what, swap) in swaps {
        swap(&room);
        assert!(!room.clean().unwrap(), "{what}");
        assert_fresh(&mut room);
        assert!(room.clean().unwrap(), "{what}: not settled");
    }
    assert_eq!(names(&outside), ["precious"]);
}

#[test]
fn progress_of_one_task_does_not_leak_into_the_next() {
    let (_dir, mut room) = open_room();
    write_progress(&room, "50 half\nopen lin");
    assert_eq!(room.read_progress().unwrap().percent, 50.0);
    write_progress(&room, "60 unread\n");
    assert!(room.clean().unwrap());
    assert_eq!(room.read_progress(), None);
    write_progress(&room, "7\n");
    assert_eq!(room.read_progress(), Some(Progress { percent: 7.0, message: String::new() }));
}

#[test]
fn what_a_crashed_predecessor_left_is_removed_at_opening() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("5/scratch/deep");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("file"), b"x").unwrap();
    let mut room = Room::open(dir.path(), 5).unwrap();
    assert_fresh(&mut room);
    drop(room);
    fs::remove_dir_all(dir.path().join("5")).unwrap();
    symlink("/", dir.path().join("5")).unwrap();
    assert_fresh(&mut Room::open(dir.path(), 5).unwrap());
}

#[test]
fn a_tree_of_any_depth_goes_with_few_descriptors() {
    let (dir, mut room) = open_room();
    dig(room.scratch(), 2_000);
    assert!(!room.clean().unwrap());
    assert_fresh(&mut room);

    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    // The names that deep directories get on their way up are taken already.
    fs::create_dir_all(tree.join(".moved-up-1/full")).unwrap();
    fs::write(tree.join(".moved-up-2"), b"").unwrap();
    dig(&tree, 200);
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    remove_tree(&tree).unwrap();
}

/// Root passes every permission check, so the test runs as nobody: itself, started again.
#[test]
fn directories_without_permissions_are_no_obstacle() {
    use std::os::unix::process::CommandExt;
    const CHILD: &str = "ACODE_TEST_MODES";
    if std::env::var_os(CHILD).is_none() && nix::unistd::geteuid().is_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        // The test's own binary may lie where nobody may go.
        let copy = dir.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
        let child = std::process::Command::new(&copy)
            .args(["--exact", "directories_without_permissions_are_no_obstacle"])
            .current_dir(dir.path())
            .env(CHILD, "1")
            .env("TMPDIR", dir.path())
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let (_dir, mut room) = open_room();
    for mode in [0o000, 0o100, 0o200, 0o400, 0o500, 0o300] {
        let closed = room.scratch().join("a/closed");
        fs::create_dir_all(closed.join("inner/most")).unwrap();
        fs::write(closed.join("file"), b"x").unwrap();
        for path in [closed.join("inner"), closed, room.scratch().join("a"), room.scratch().to_owned()] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        assert!(!room.clean().unwrap(), "{mode:o}");
        assert_fresh(&mut room);
        fs::create_dir_all(room.scratch().join("x/y")).unwrap();
        fs::set_permissions(room.scratch().join("x"), Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(room.path(), Permissions::from_mode(mode)).unwrap();
        assert!(!room.clean().unwrap(), "room {mode:o}");
        assert_fresh(&mut room);
    }
    fs::write(room.result(), b"1").unwrap();
    fs::set_permissions(room.result(), Permissions::from_mode(0o000)).unwrap();
    assert!(room.collect().result_error.unwrap().starts_with("the result cannot be read: "));
}
