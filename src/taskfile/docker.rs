//! How a task is kept apart, and its container: `isolation` and `docker`, laid over those of `defaults`.
//!
//! Deliberately absent: which mounts and arguments the pool allows, which is known where the container is made.

use std::path::{Path, PathBuf};

use acode_worker::task::{Docker, Isolation, Mount, Pull, TaskSpec};

use super::schema::is_none;
use crate::tree::{Entry, Fault, Node};

const KEYS: [&str; 8] = ["image", "entrypoint", "network", "platform", "user", "pull", "mounts", "args"];

/// A text does not say what is mounted where.
#[derive(Debug, thiserror::Error)]
pub enum MountTextError {
    /// It has not the form.
    #[error("SOURCE[:/TARGET][:ro] is expected, without commas, quotes and further colons")]
    Form,
    /// Its source goes up, and where that leads cannot be told.
    #[error("its source cannot be found: {0}")]
    Source(String),
    /// Its source is not UTF-8 text when it is absolute.
    #[error("the folder that it starts from is not UTF-8 text")]
    NotText,
}

/// Reads `SOURCE[:/TARGET][:ro]`. A relative source starts at `folder`; without a target it is the same place in the
/// container, so that paths mean the same inside and outside.
///
/// # Errors
/// It is not of that form.
pub fn parse_mount(text: &str, folder: &Path) -> Result<Mount, MountTextError> {
    let paths = text.strip_suffix(":ro").or_else(|| text.strip_suffix(":rw")).unwrap_or(text);
    let source = paths.split_once(':').map_or(paths, |(source, _)| source);
    let rest = &text[source.len()..];
    if source.is_empty() {
        return Err(MountTextError::Form);
    }
    let climbs = source.split('/').any(|part| part == "..");
    let whole: PathBuf = folder.join(source).components().collect();
    // What is above a link is not what stands before it in the path, so only the file system can tell.
    let whole =
        if climbs { whole.canonicalize().map_err(|error| MountTextError::Source(error.to_string()))? } else { whole };
    let whole = whole.into_os_string().into_string().map_err(|_| MountTextError::NotText)?;
    format!("{whole}{rest}").parse().map_err(|_| MountTextError::Form)
}

/// Reads `isolation`; `default`, or nothing at all, takes the defaults' back.
pub(super) fn isolation(node: &Node<'_>) -> Result<Option<Isolation>, Fault> {
    if node.is_null() || node.as_text("isolation")? == "default" {
        return Ok(None);
    }
    let found = Isolation::from_name(node.as_text("isolation")?);
    found.map(Some).ok_or_else(|| node.refused("isolation", "none, library, process, docker or default"))
}

/// Reads `{image: debian, ...}`; `none` in place of the mapping takes the defaults' back.
pub(super) fn read(docker: &mut Option<Docker>, node: &Node<'_>, folder: &Path) -> Result<(), Fault> {
    if is_none(node) {
        *docker = None;
        return Ok(());
    }
    let own = docker.get_or_insert_default();
    for Entry { at, key, node } in node.entries("docker")? {
        let path = format!("docker.{key}");
        let name = || match node.is_null() {
            true => Ok(None),
            false if Docker::is_name(node.as_text(&path)?) => Ok(Some(node.as_text(&path)?.to_owned())),
            false => Err(node.refused(&path, Docker::NAME)),
        };
        match key.as_ref() {
            "image" => own.image = name()?,
            // Empty it stands for no entry point, which is not the same as what the image says.
            "entrypoint" => own.entrypoint = if node.is_null() { None } else { Some(node.as_text(&path)?.to_owned()) },
            "network" => own.network = name()?,
            "platform" => own.platform = name()?,
            "user" => own.user = name()?,
            "pull" => own.pull = pull(node, &path)?,
            "mounts" => {
                own.mounts = node.items(&path)?.iter().map(|item| mount(item, folder)).collect::<Result<_, _>>()?
            }
            "args" => own.args = node.items(&path)?.iter().map(argument).collect::<Result<_, _>>()?,
            unknown => return Err(Fault::unknown_key(*at, unknown, "docker", KEYS)),
        }
    }
    Ok(())
}

fn pull(node: &Node<'_>, path: &str) -> Result<Option<Pull>, Fault> {
    if node.is_null() {
        return Ok(None);
    }
    let text = node.as_text(path)?;
    let found = Pull::ALL.into_iter().find(|pull| pull.name() == text);
    found.map(Some).ok_or_else(|| node.refused(path, "never, missing or always"))
}

fn mount(item: &Node<'_>, folder: &Path) -> Result<Mount, Fault> {
    let text = item.as_text("docker.mounts")?;
    parse_mount(text, folder).map_err(|error| Fault::other(item.at, format!("docker.mounts: '{text}': {error}")))
}

fn argument(item: &Node<'_>) -> Result<String, Fault> {
    let text = item.as_text("docker.args")?;
    if Docker::is_argument(text) { Ok(text.to_owned()) } else { Err(item.refused("docker.args", Docker::ARGUMENT)) }
}

/// A task that says `isolation: process` itself, and nothing of a container, has none of the defaults' container.
pub(super) fn leave_out(spec: &mut TaskSpec, own: &[Entry<'_>]) {
    let says = |key: &str| own.iter().any(|entry| entry.key == key);
    if says("isolation") && !says("docker") && spec.isolation == Some(Isolation::Process) {
        spec.docker = None;
    }
}

/// A working directory in a container starts nowhere but at its root. One that begins with an array's item or its folder
/// is as absolute as `items` are. The error is the sentence for it.
pub(super) fn check_cwd(cwd: &mut Option<String>, items: &[String]) -> Result<(), String> {
    let Some(path) = cwd.as_mut().filter(|path| !path.starts_with('/')) else { return Ok(()) };
    let by_item = path.starts_with("{item}") || path.starts_with("{dir}");
    if by_item && !items.is_empty() && items.iter().all(|item| item.starts_with('/')) {
        path.insert(0, '/');
        return Ok(());
    }
    Err(format!("cwd is {path}: a path in the container, which must be absolute, is expected"))
}
