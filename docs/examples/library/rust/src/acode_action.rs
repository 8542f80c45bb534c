//! `acode_action.h` for Rust: what a library with actions is called by, and what it may ask for.
//!
//! Take this file into a library of your own, implement one function, and name it: `acode_action::library!(my_function)`.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub const ABI_VERSION: u32 = 1;

/// `struct acode_text`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    bytes: *const c_char,
    length: usize,
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.as_ptr().cast(), length: bytes.len() }
    }

    /// What acode gave.
    ///
    /// # Safety
    /// It is from acode, and `acode_execute` has not returned within `'t`.
    unsafe fn get<'t>(self) -> Option<&'t [u8]> {
        // SAFETY: the contract: so many bytes, there until acode_execute returns.
        (!self.bytes.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.bytes.cast(), self.length) })
    }
}

/// `struct acode_host`.
#[repr(C)]
pub struct RawHost {
    size: usize,
    abi: u32,
    reserved: u32,
    told_to_end: extern "C" fn(*const RawHost) -> i32,
    progress: extern "C" fn(*const RawHost, f64, Text),
    write: extern "C" fn(*const RawHost, i32, Text),
    result: extern "C" fn(*const RawHost, Text) -> i32,
    error: extern "C" fn(*const RawHost, Text),
    scratch: extern "C" fn(*const RawHost) -> Text,
    working_directory: extern "C" fn(*const RawHost) -> Text,
    checkpoint: extern "C" fn(*const RawHost) -> Text,
    task_id: extern "C" fn(*const RawHost) -> Text,
    meta: extern "C" fn(*const RawHost, Text) -> Text,
    attempt: extern "C" fn(*const RawHost) -> u32,
    worker_slot: extern "C" fn(*const RawHost) -> u32,
}

/// Why an action did not do its work.
pub enum Failure {
    /// It has no such action, or the parameters are wrong: nothing was done.
    Refused(String),
    /// It could not, or was told to end.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What an action may ask for while it runs.
pub struct Host<'h>(&'h RawHost);

#[allow(dead_code, reason = "an action uses what it needs")]
impl<'h> Host<'h> {
    /// Goes on only if the action is not to end: to be asked at least ten times a second.
    pub fn check(&self) -> Result<(), Failure> {
        match (self.0.told_to_end)(self.0) {
            0 => Ok(()),
            1 => Err(Failure::Failed("its time is over".to_owned())),
            2 => Err(Failure::Failed("it was cancelled".to_owned())),
            _ => Err(Failure::Failed("the pool stops".to_owned())),
        }
    }

    /// How far it is: 0 to 100, and a few words.
    pub fn progress(&self, percent: f64, message: &str) {
        (self.0.progress)(self.0, percent, Text::of(message.as_bytes()));
    }

    /// The task's standard output.
    pub fn print(&self, text: &str) {
        (self.0.write)(self.0, 1, Text::of(text.as_bytes()));
    }

    /// The task's standard error.
    pub fn eprint(&self, text: &str) {
        (self.0.write)(self.0, 2, Text::of(text.as_bytes()));
    }

    /// Its private directory.
    pub fn scratch(&self) -> Option<&'h Path> {
        path((self.0.scratch)(self.0))
    }

    /// The directory that outlives its attempts.
    pub fn checkpoint(&self) -> Option<&'h Path> {
        path((self.0.checkpoint)(self.0))
    }

    /// What a path of the parameters means.
    pub fn resolve(&self, given: &str) -> PathBuf {
        path((self.0.working_directory)(self.0)).map_or_else(|| given.into(), |start| start.join(given))
    }

    /// The task's id.
    pub fn task_id(&self) -> &'h str {
        text((self.0.task_id)(self.0)).unwrap_or_default()
    }

    /// What the submitter has noted under this key.
    pub fn meta(&self, key: &str) -> Option<&'h str> {
        text((self.0.meta)(self.0, Text::of(key.as_bytes())))
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        (self.0.attempt)(self.0)
    }
}

fn text<'t>(raw: Text) -> Option<&'t str> {
    // SAFETY: only for what a host gives, whose lifetime the callers put on it.
    std::str::from_utf8(unsafe { raw.get() }?).ok()
}

fn path<'t>(raw: Text) -> Option<&'t Path> {
    // SAFETY: as above.
    Some(Path::new(OsStr::from_bytes(unsafe { raw.get() }?)))
}

/// What an action is: its name and its parameters, to its result, both JSON text.
pub type Action = fn(name: &str, params: &str, host: &Host<'_>) -> Result<String, Failure>;

/// Runs the action, and lets no panic across the border.
///
/// # Safety
/// The arguments are those that acode has called `acode_execute` with.
pub unsafe fn execute(action: Action, name: Text, params: Text, host: *const RawHost) -> i32 {
    // SAFETY: what our caller promises.
    let (Some(raw), name, params) = (unsafe { host.as_ref() }, text(name), text(params)) else { return 1 };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        action(name.unwrap_or_default(), params.unwrap_or("null"), &Host(raw))
    }));
    let (code, words) = match ended {
        Ok(Ok(result)) => {
            if (raw.result)(raw, Text::of(result.as_bytes())) == 0 {
                return 0;
            }
            (1, "its result is not JSON, or too long".to_owned())
        }
        Ok(Err(Failure::Failed(words))) => (1, words),
        Ok(Err(Failure::Refused(words))) => (2, words),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            (101, words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        }
    };
    (raw.error)(raw, Text::of(words.as_bytes()));
    code
}

/// Makes the two functions by which acode finds the action.
#[macro_export]
macro_rules! library {
    ($action:path) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn acode_abi() -> u32 {
            $crate::acode_action::ABI_VERSION
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn acode_execute(
            name: $crate::acode_action::Text,
            params: $crate::acode_action::Text,
            host: *const $crate::acode_action::RawHost,
        ) -> i32 {
            // SAFETY: acode calls this, with what its header says.
            unsafe { $crate::acode_action::execute($action, name, params, host) }
        }
    };
}
