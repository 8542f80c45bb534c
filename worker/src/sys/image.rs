//! What this process executes: the program's file, its dynamic loader, and the libraries that were loaded at its start.
//!
//! For processes of the same program, wherever they run: behind mounts, or in a container that has none of its libraries.
//! It is looked at once, by the nursery, and every worker has it by being forked; so libraries that are loaded later, for
//! tasks, are none of it. Deliberately absent: libraries that the program loads by itself when it runs.

use std::ffi::{CStr, c_int, c_void};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The file that every process executes, whatever became of its name: even one that has been removed can be executed by it.
pub const SELF: &CStr = c"/proc/self/exe";

/// What a process executes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Image {
    /// The program's file as it was called when this process began.
    program: PathBuf,
    /// Which file that was.
    identity: Option<(u64, u64)>,
    /// What has loaded it; none if it is linked statically.
    loader: Option<PathBuf>,
    /// Its libraries, without the loader, as the loader has found them: their last parts are the names that it looks for.
    libraries: Vec<PathBuf>,
}

impl Image {
    /// The program's file as it was called when this process began.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether that is the program's file still: it may have been replaced by another version since, or removed.
    pub fn is_in_place(&self) -> bool {
        self.identity.is_some() && identity(&self.program) == self.identity
    }

    /// What has loaded it; none if it is linked statically.
    pub fn loader(&self) -> Option<&Path> {
        self.loader.as_deref()
    }

    /// Its libraries, without the loader, by the names under which the loader has found them.
    pub fn libraries(&self) -> &[PathBuf] {
        &self.libraries
    }

    /// Whether the loader was given the program as an argument, so that executing this process' file anew would execute
    /// the loader.
    pub fn was_started_by_hand(&self) -> bool {
        self.loader.is_none() && !self.libraries.is_empty()
    }

    /// All of its files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = std::iter::once(&self.program).chain(&self.loader).chain(&self.libraries);
        files.map(PathBuf::as_path)
    }

    /// Copies the program's file, whatever has become of its name, to `place`, where there must be nothing.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn copy_program(&self, place: &Path) -> io::Result<()> {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let mut from = fs::File::open(Path::new(std::ffi::OsStr::from_bytes(SELF.to_bytes())))?;
        let mut to = fs::File::options().write(true).create_new(true).mode(0o755).open(place)?;
        io::copy(&mut from, &mut to)?;
        // Whatever mask the worker has taken: somebody else is to execute it.
        to.set_permissions(fs::Permissions::from_mode(0o755))
    }
}

/// What this process executes, as it was at the first call.
pub fn own() -> &'static Image {
    static OWN: OnceLock<Image> = OnceLock::new();
    OWN.get_or_init(look)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn look() -> Image {
    let own = Path::new(std::ffi::OsStr::from_bytes(SELF.to_bytes()));
    let mut image =
        Image { program: fs::read_link(own).unwrap_or_default(), identity: identity(own), ..Image::default() };
    // SAFETY: a plain look into what the kernel has told this process.
    let base = unsafe { libc::getauxval(libc::AT_BASE) };
    for (address, path) in objects() {
        match path.is_absolute() {
            true if base != 0 && address == base => image.loader = Some(path),
            // Whatever is called otherwise is the program itself, or the kernel's.
            true if path != image.program => image.libraries.push(path),
            true | false => {}
        }
    }
    image
}

/// What is loaded: addresses and names.
fn objects() -> Vec<(u64, PathBuf)> {
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: libc::size_t, found: *mut c_void) -> c_int {
        // SAFETY: the loader gives a valid record, whose name is a string, or null, as long as this call lasts; `found` is
        // the vector of the caller, whom nobody else disturbs meanwhile.
        unsafe {
            let found = &mut *found.cast::<Vec<(u64, PathBuf)>>();
            if !(*info).dlpi_name.is_null() {
                let name = CStr::from_ptr((*info).dlpi_name);
                #[allow(clippy::useless_conversion, reason = "it is 32 bits wide on other machines")]
                let address = u64::from((*info).dlpi_addr);
                found.push((address, PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()))));
            }
        }
        0
    }
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    // SAFETY: the callback has the type that is asked for, and does not panic but for want of memory, which aborts.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut found).cast::<c_void>()) };
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_what_the_kernel_says_and_has_its_libraries() {
        let own = own();
        assert_eq!(own.program(), std::env::current_exe().unwrap());
        assert!(own.is_in_place() && !own.was_started_by_hand());
        assert!(own.files().all(Path::exists), "{own:?}");
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let is_dynamic = maps.contains("/ld-");
        assert_eq!(own.loader().is_some(), is_dynamic, "{own:?}\n{maps}");
        assert!(own.libraries().iter().all(|path| Some(path.as_path()) != own.loader()));
        for library in own.libraries() {
            assert!(maps.contains(library.canonicalize().unwrap().to_str().unwrap()), "{library:?}\n{maps}");
        }
    }

    #[test]
    fn a_copy_is_the_same_program() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("copy");
        own().copy_program(&place).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().len(), fs::metadata(own().program()).unwrap().len());
        assert!(own().copy_program(&place).is_err(), "what is there is not written to");
    }
}
