//! What is kept of what a hostile task has left, and what is not.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;
use crate::room::{keep_artifacts, stored_artifacts};
use crate::task::TaskId;

const PLENTY: ArtifactBounds = ArtifactBounds { bytes: 1 << 30, files: 1_000 };

/// A scratch directory, and a folder of artefacts beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.scratch()).unwrap();
        place
    }

    fn scratch(&self) -> PathBuf {
        self.0.path().join("scratch")
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("all/artifacts")
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.scratch().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn keep(&self, patterns: &[&str], bounds: ArtifactBounds) -> Option<Artifacts> {
        let base = File::open(self.scratch()).unwrap();
        let patterns = Patterns::read(patterns).unwrap();
        let id = (TaskId::new(1, 2, 3), 1);
        keep_artifacts(&self.folder(), id, base.as_fd(), &patterns, bounds, &mut || true).unwrap()
    }
}

/// The paths of all that is in the directory, but for directories.
fn tree(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn files_keep_their_place_mode_and_time_and_nobody_elses_rights() {
    let place = Place::new();
    let program = place.write("out/deep/er/tool", "#!/bin/sh");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6355)).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().append(true).open(&program).unwrap().set_modified(then).unwrap();
    place.write("out/a.log", "log");
    place.write("a.log", "not meant");
    fs::hard_link(&program, place.scratch().join("out/again")).unwrap();
    let kept = place.keep(&["out"], PLENTY).unwrap();
    assert_eq!((kept.files, kept.bytes, kept.omitted), (3, 9 + 9 + 3, None));
    let files = kept.folder.join("files");
    assert_eq!(tree(&files), ["out/a.log", "out/again", "out/deep/er/tool"]);
    let facts = fs::metadata(files.join("out/deep/er/tool")).unwrap();
    assert_eq!((facts.permissions().mode() & 0o7777, facts.modified().unwrap()), (0o755, then));
    assert_eq!(fs::metadata(kept.folder).unwrap().permissions().mode() & 0o777, 0o700);
    // The same attempt anew: what is there of it is no longer true.
    fs::remove_dir_all(place.scratch().join("out")).unwrap();
    assert_eq!(place.keep(&["out"], PLENTY), None);
    assert!(stored_artifacts(&place.folder()).is_empty());
}

#[test]
fn no_link_is_followed_and_only_those_that_stay_inside_are_kept() {
    let place = Place::new();
    let outside = place.0.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s").unwrap();
    place.write("d/e/file", "x");
    for (path, target) in [
        ("absolute", outside.to_str().unwrap()),
        ("up", ".."),
        ("d/far-up", "../../outside"),
        ("d/by-a-way-round", "e/../../../outside"),
        ("d/through-a-link", "back/../../outside"),
        ("d/good", "e/file"),
        ("d/back", ".."),
        ("d/dangling", "nowhere"),
        ("d/e/long", "../.././d"),
    ] {
        symlink(target, place.scratch().join(path)).unwrap();
    }
    symlink("d/e", place.scratch().join("through")).unwrap();
    let kept = place.keep(&["**", "through/file", "up/outside/secret"], PLENTY).unwrap();
    let files = kept.folder.join("files");
    assert_eq!(tree(&files), ["d/back", "d/dangling", "d/e/file", "d/e/long", "d/good", "through"]);
    assert_eq!(fs::read_to_string(files.join("d/good")).unwrap(), "x");
    let omitted = kept.omitted.unwrap();
    assert!(omitted.contains("and 4 more: a link that leads elsewhere"), "{omitted}");
}

#[test]
fn what_is_no_file_is_left_out_and_told() {
    let place = Place::new();
    place.write("file", "x");
    let pipe = place.scratch().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(place.scratch().join("socket")).unwrap();
    let kept = place.keep(&["*"], PLENTY).unwrap();
    assert_eq!((kept.files, tree(&kept.folder.join("files"))), (1, vec!["file".to_owned()]));
    assert!(kept.omitted.unwrap().contains("and 1 more: neither a file nor a link"));
    // And where it is all that there is, that is told without a folder.
    fs::remove_file(place.scratch().join("file")).unwrap();
    let kept = place.keep(&["pipe"], PLENTY).unwrap();
    assert_eq!((kept.files, kept.omitted.as_deref()), (0, Some("pipe: neither a file nor a link")));
    assert!(stored_artifacts(&place.folder()).is_empty());
}

#[test]
fn bounds_are_kept_by_whole_files() {
    let place = Place::new();
    for (name, size) in [("a", 400), ("b", 400), ("c", 400), ("huge", 5_000)] {
        place.write(name, &"x".repeat(size));
    }
    let kept = place.keep(&["*"], ArtifactBounds { bytes: 1_000, files: 10 }).unwrap();
    assert_eq!((kept.files, kept.bytes), (2, 800));
    assert!(kept.omitted.unwrap().contains("and 1 more: beyond artifacts.maxBytesPerTask"));
    assert!(tree(&kept.folder).iter().all(|path| fs::metadata(kept.folder.join(path)).unwrap().len() == 400));
    let kept = place.keep(&["?"], ArtifactBounds { bytes: 10_000, files: 1 }).unwrap();
    assert_eq!((kept.files, kept.bytes), (1, 400));
    assert!(kept.omitted.unwrap().contains("and 1 more: beyond artifacts.maxFilesPerTask"));
}

#[test]
fn depth_costs_a_bounded_number_of_descriptors_and_none_is_left_open() {
    let place = Place::new();
    let mut deepest = String::from("d");
    (0..200).for_each(|_| deepest.push_str("/d"));
    DirBuilder::new().recursive(true).mode(0o700).create(place.scratch().join(&deepest)).unwrap();
    place.write("d/d/shallow", "x");
    place.write(&format!("{deepest}/deep"), "x");
    let before = descriptors();
    let kept = place.keep(&["**"], PLENTY).unwrap();
    // Other tests open some meanwhile; a leak would be one for each level.
    assert!(descriptors() < before + DEPTH_MAX, "descriptors are left open");
    assert_eq!(tree(&kept.folder), ["files/d/d/shallow"]);
    assert!(kept.omitted.unwrap().contains("too deep"));
}

#[test]
fn who_is_told_to_stop_leaves_nothing() {
    let place = Place::new();
    place.write("a", &"x".repeat(10 << 20));
    let base = File::open(place.scratch()).unwrap();
    let patterns = Patterns::read(&["*"]).unwrap();
    let id = (TaskId::new(1, 2, 3), 1);
    let mut asked = 0;
    let kept = keep_artifacts(&place.folder(), id, base.as_fd(), &patterns, PLENTY, &mut || {
        asked += 1;
        asked < 2
    });
    // Where extents are shared nobody has to wait, and nobody is asked.
    if let Err(error) = kept {
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert!(stored_artifacts(&place.folder()).is_empty());
    }
}

#[test]
fn a_link_goes_up_at_its_beginning_only_and_not_beyond_the_top() {
    let inside = [("a", 0), ("a/b", 0), ("./a", 0), ("../a", 1), (".././../a//b/", 2), ("..", 1)];
    let outside = [("/a", 9), ("", 9), ("..", 0), ("../../a", 1), ("a/..", 9), ("../a/../b", 9)];
    inside.iter().for_each(|(target, depth)| assert!(stays_within(OsStr::new(target), *depth), "{target}"));
    outside.iter().for_each(|(target, depth)| assert!(!stays_within(OsStr::new(target), *depth), "{target}"));
}
