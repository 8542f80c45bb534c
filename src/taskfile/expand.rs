//! From what a person writes to what a task needs: command lines to words, globs and lists to items, relative paths
//! to absolute ones.
//!
//! Done by the submitting client, because only it stands where the person stands. Deliberately absent: a shell; no
//! variable, redirection or pipe means anything here.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::walk::Walk;
use crate::tree::{Fault, Node};

/// The most items of one `each`.
pub const ITEMS_MAX: usize = 10_000_000;
/// The largest file whose lines become items, in bytes.
pub const LINES_FILE_MAX: u64 = 256 << 20;

/// Splits a command line into words as a POSIX shell would, without running one. `None` if a quote is not closed.
pub fn split_command(line: &str) -> Option<Vec<String>> {
    shlex::split(line)
}

/// Which files a glob yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GlobKind {
    File,
    Dir,
    Any,
}

impl GlobKind {
    pub const NAMES: [(&'static str, Self); 3] = [("file", Self::File), ("dir", Self::Dir), ("any", Self::Any)];

    fn admits(self, path: &Path) -> bool {
        match self {
            Self::File => path.is_file(),
            Self::Dir => path.is_dir(),
            Self::Any => true,
        }
    }
}

/// The paths that match the pattern in `node`, absolute and sorted. As in a shell a wildcard matches neither a slash
/// nor the dot of a hidden file, and `**` matches folders of any depth.
pub(super) fn glob_items(node: &Node<'_>, folder: &Path, kind: GlobKind) -> Result<Vec<String>, Fault> {
    let pattern = node.as_text("each")?;
    let paths = Walk::new(pattern, folder);
    let paths = paths.map_err(|error| Fault::other(node.at, format!("each is not a glob: {}", error.msg)))?;
    let mut items = Vec::new();
    for path in paths {
        let path =
            path.map_err(|(path, why)| Fault::other(node.at, format!("each cannot read {}: {why}", path.display())))?;
        if !kind.admits(&path) {
            continue;
        }
        let shown = path.display().to_string();
        let text = path.into_os_string().into_string();
        items.push(
            text.map_err(|_| Fault::other(node.at, format!("each finds {shown}, whose name is not UTF-8 text")))?,
        );
        if items.len() > ITEMS_MAX {
            return Err(Fault::other(node.at, format!("each matches more than {ITEMS_MAX} files")));
        }
    }
    items.sort_unstable();
    items.dedup();
    Ok(items)
}

/// The lines of the file named in `node`; empty ones are left out.
pub(super) fn line_items(node: &Node<'_>, folder: &Path) -> Result<Vec<String>, Fault> {
    let path = folder.join(node.as_text("each.lines")?);
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(LINES_FILE_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| Fault::other(node.at, format!("each.lines cannot read {shown}: {error}")))?;
    if text.len() as u64 > LINES_FILE_MAX {
        return Err(Fault::other(node.at, format!("each.lines: {shown} is larger than {LINES_FILE_MAX} bytes")));
    }
    let items: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if items.len() > ITEMS_MAX {
        return Err(Fault::other(node.at, format!("each.lines: {shown} has more than {ITEMS_MAX} lines")));
    }
    Ok(items)
}

/// Makes the path `text` absolute against `folder`. One that begins with an array's item or its folder is as absolute
/// as `items` are: a slash in front of such an absolute path does no harm and shows that it is one.
///
/// # Errors
/// Some items are absolute and some are not. The error is the sentence for it.
pub(super) fn absolute(text: &str, folder: &Path, items: &[String]) -> Result<String, String> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    if text.starts_with("{item}") || text.starts_with("{dir}") {
        let rooted = items.iter().filter(|item| item.starts_with('/')).count();
        if rooted > 0 && rooted == items.len() {
            return Ok(format!("/{text}"));
        }
        if rooted > 0 {
            return Err(format!("'{text}' is an absolute path for some items and a relative one for others"));
        }
    }
    let joined: PathBuf = folder.join(text.trim_start_matches("./"));
    joined.into_os_string().into_string().map_err(|_| "the task file's folder is not UTF-8 text".to_owned())
}
