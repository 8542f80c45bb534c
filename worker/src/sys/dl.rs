//! Shared objects, each in a link namespace of its own: it has its own copies of all that it needs, down to the C library,
//! and shares no symbol with this program or another one.
//!
//! Deliberately absent: which objects are loaded and how many (`execute::library`), and the calls into them
//! (`sys::plugin`).

use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr::NonNull;

use libc::{c_char, c_void};

/// Why an object cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DlError {
    /// The dynamic linker refuses, in these words.
    #[error("{0}")]
    Refused(String),
    /// There is no room for another namespace in this process, or for its thread-local data: some must be closed first.
    #[error("{0}")]
    Full(String),
    /// This program was built for a C library that has no namespaces.
    #[error("link namespaces are the GNU C library's, and this acode was built for another")]
    Unsupported,
}

/// A loaded object, with the namespace that was made for it. Closed when it is dropped: its destructors run then, and no
/// thread may be in it.
#[derive(Debug)]
pub struct Object {
    handle: NonNull<c_void>,
}

impl Object {
    /// Loads it, with all that it needs, and runs its constructors. A path without a slash is looked for.
    ///
    /// # Errors
    /// The linker's.
    pub fn load(path: &CStr) -> Result<Self, DlError> {
        let handle = load(path)?;
        Ok(Self { handle: NonNull::new(handle).ok_or_else(last_error)? })
    }

    /// The function of this name, in the object or else in what it needs.
    pub fn function(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open as long as we are, and the name ends with its NUL.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) })
    }
}

impl Object {
    /// The files in its namespace: itself, and all that it needs, as the linker calls them.
    #[cfg(target_env = "gnu")]
    pub fn files(&self) -> Vec<PathBuf> {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        /// The public part of the linker's own record of an object (`link.h`).
        #[repr(C)]
        struct LinkMap {
            address: usize,
            name: *const c_char,
            dynamic: *mut c_void,
            next: *const LinkMap,
            previous: *const LinkMap,
        }
        let mut map: *const LinkMap = std::ptr::null();
        // SAFETY: the handle is open as long as we are, and the answer to this request is one pointer.
        let answer = unsafe { libc::dlinfo(self.handle.as_ptr(), libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) };
        let mut files = Vec::new();
        if answer != 0 {
            return files;
        }
        // SAFETY: the list is the linker's, and changes only when something is loaded into this namespace or closed, which
        // nobody but an action of the object could do now, and none runs. Its names are texts or null.
        unsafe {
            while !map.is_null() && !(*map).previous.is_null() {
                map = (*map).previous;
            }
            while let Some(one) = map.as_ref() {
                if !one.name.is_null() {
                    files.push(PathBuf::from(OsStr::from_bytes(CStr::from_ptr(one.name).to_bytes())));
                }
                map = one.next;
            }
        }
        files
    }

    /// The files in its namespace.
    #[cfg(not(target_env = "gnu"))]
    pub fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and closed once. That nobody is in the object any more is what our owner promises.
        unsafe { libc::dlclose(self.handle.as_ptr()) };
    }
}

#[cfg(target_env = "gnu")]
fn load(path: &CStr) -> Result<*mut c_void, DlError> {
    // The crate libc does not have it.
    unsafe extern "C" {
        fn dlmopen(namespace: libc::c_long, path: *const c_char, flags: libc::c_int) -> *mut c_void;
    }
    // Whatever cannot be bound is found out here, and not in the midst of an action.
    let flags = libc::RTLD_NOW | libc::RTLD_LOCAL;
    // SAFETY: the path ends with its NUL. The object's constructors are foreign code: what it may do to this process is what
    // the one who named it may do.
    Ok(unsafe { dlmopen(libc::LM_ID_NEWLM, path.as_ptr(), flags) })
}

#[cfg(not(target_env = "gnu"))]
fn load(_path: &CStr) -> Result<*mut c_void, DlError> {
    Err(DlError::Unsupported)
}

/// What the linker has just complained of.
fn last_error() -> DlError {
    // SAFETY: dlerror has no preconditions; its text is this thread's, valid until its next call of the linker, and copied.
    let words = unsafe {
        let text: *const c_char = libc::dlerror();
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    // The words are all there is to tell it by; no locale is ever set in this process, so they are not translated.
    let is_full = ["no more namespaces", "static TLS"].iter().any(|sign| words.contains(sign));
    if is_full { DlError::Full(words) } else { DlError::Refused(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn an_object_has_its_own_copy_of_all_that_it_needs() {
        let (one, two) = (Object::load(c"libc.so.6").unwrap(), Object::load(c"libc.so.6").unwrap());
        let places = [&one, &two].map(|object| object.function(c"malloc").unwrap());
        assert_ne!(places[0], places[1]);
        assert!(one.function(c"no_such_function").is_none());
        let files = one.files();
        assert!(files.iter().any(|file| file.ends_with("libc.so.6")), "{files:?}");
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn the_linkers_words_are_passed_on() {
        let error = Object::load(c"/nowhere/at/all.so").unwrap_err();
        assert!(matches!(&error, DlError::Refused(words) if words.contains("/nowhere/at/all.so")), "{error:?}");
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn namespaces_run_out_and_come_back() {
        let mut open = Vec::new();
        let full = loop {
            match Object::load(c"libc.so.6") {
                Ok(object) => open.push(object),
                Err(error) => break error,
            }
            assert!(open.len() < 64, "there is an end to them");
        };
        assert!(matches!(full, DlError::Full(_)), "{full:?}");
        drop(open);
        assert!(Object::load(c"libc.so.6").is_ok());
    }
}
