//! Copying artefacts to where somebody wants them: each appears whole, and nothing is overwritten unasked.
//!
//! Deliberately absent: following links below the destination, its own path apart.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path};

use acode_worker::sys::copy;

use super::{Artifact, ArtifactError, Kind};

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// How many files and links.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies these artefacts of the folder of files into the directory, which is made if need be.
///
/// # Errors
/// Something is there already and `force` is not given, which is found out before anything is copied; or it cannot be
/// copied.
pub fn fetch(files: &Path, artifacts: &[Artifact], directory: &Path, force: bool) -> Result<Fetched, ArtifactError> {
    fs::create_dir_all(directory).map_err(ArtifactError::io("make", directory))?;
    let mut fetched = Fetched::default();
    for artifact in artifacts {
        let target = directory.join(&artifact.path);
        make_folders(directory, &artifact.path)?;
        match &artifact.kind {
            Kind::File(bytes) => {
                copy_file(&files.join(&artifact.path), &target, force)?;
                fetched.bytes += bytes;
            }
            Kind::Link(to) => copy_link(to, &target, force)?,
        }
        fetched.files += 1;
    }
    Ok(fetched)
}

/// What of these artefacts exists already in the directory.
///
/// # Errors
/// Something does.
pub fn check<'a>(pairs: impl Iterator<Item = (&'a Path, &'a [Artifact])>) -> Result<(), ArtifactError> {
    let all = pairs.flat_map(|(directory, artifacts)| artifacts.iter().map(|one| directory.join(&one.path)));
    let mut taken = all.filter(|path| fs::symlink_metadata(path).is_ok());
    match taken.next() {
        None => Ok(()),
        Some(path) => Err(ArtifactError::Exists { path, more: taken.count() }),
    }
}

/// Makes the directories above a path below `directory`.
fn make_folders(directory: &Path, path: &Path) -> Result<(), ArtifactError> {
    let mut folder = directory.to_owned();
    let parts = path.parent().into_iter().flat_map(Path::components);
    for part in parts.filter(|part| matches!(part, Component::Normal(_))) {
        folder.push(part);
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_folder = fs::symlink_metadata(&folder).is_ok_and(|facts| facts.is_dir());
                if !is_folder {
                    return Err(ArtifactError::Blocked { path: folder });
                }
            }
            Err(error) => return Err(ArtifactError::io("make", &folder)(error)),
        }
    }
    Ok(())
}

fn copy_file(source: &Path, target: &Path, force: bool) -> Result<(), ArtifactError> {
    let doing = || ArtifactError::io("write", target);
    let from = File::open(source).map_err(ArtifactError::io("read", source))?;
    let facts = from.metadata().map_err(ArtifactError::io("read", source))?;
    let folder = target.parent().unwrap_or(Path::new("."));
    let copy = tempfile::Builder::new().prefix(".acode-fetch-").tempfile_in(folder).map_err(doing())?;
    let copied = copy::contents(&from, copy.as_file(), facts.len(), facts.blocks(), &mut || true).map_err(doing())?;
    if copied != facts.len() {
        return Err(doing()(io::ErrorKind::UnexpectedEof.into()));
    }
    copy.as_file().set_permissions(Permissions::from_mode(facts.mode() & 0o777)).map_err(doing())?;
    if let Ok(modified) = facts.modified() {
        copy.as_file().set_modified(modified).map_err(doing())?;
    }
    let named = if force { copy.persist(target) } else { copy.persist_noclobber(target) };
    named.map(drop).map_err(|error| refused(error.error, target))
}

fn copy_link(to: &Path, target: &Path, force: bool) -> Result<(), ArtifactError> {
    if force && fs::symlink_metadata(target).is_ok_and(|facts| !facts.is_dir()) {
        fs::remove_file(target).map_err(ArtifactError::io("replace", target))?;
    }
    symlink(to, target).map_err(|error| refused(error, target))
}

fn refused(error: io::Error, target: &Path) -> ArtifactError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => ArtifactError::Exists { path: target.to_owned(), more: 0 },
        io::ErrorKind::IsADirectory => ArtifactError::Blocked { path: target.to_owned() },
        _ => ArtifactError::io("write", target)(error),
    }
}

/// Writes one artefact out.
///
/// # Errors
/// It cannot be read. Inside: it cannot be written.
pub fn print(files: &Path, artifact: &Artifact, to: &mut dyn Write) -> Result<io::Result<()>, ArtifactError> {
    let path = files.join(&artifact.path);
    let mut from = File::open(&path).map_err(ArtifactError::io("read", &path))?;
    Ok(io::copy(&mut from, to).and_then(|_| to.flush()))
}
