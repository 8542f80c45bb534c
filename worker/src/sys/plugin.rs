//! Calls into a library with actions, and its calls back: the Rust side of `acode_action.h`, which is the contract.
//!
//! Safe to its users: an [`Entry`] belongs to an [`Object`] that stays open while it is called, and what the library is
//! told by comes back as calls of a [`Caller`]. Deliberately absent: what the calls mean (`execute::library`).

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::dl::Object;

/// The version of the contract.
pub const ABI_VERSION: u32 = 1;
/// What a library says that has done its work.
pub const DONE: i32 = 0;
/// What a library says that has done nothing, since it does not know the action or its parameters do not fit.
pub const REFUSED: i32 = 2;
/// What a library says that has found a defect of its own.
pub const PANICKED: i32 = 101;
/// What an action is told that may go on.
pub const GO_ON: i32 = 0;
/// That its time is over.
pub const TIMED_OUT: i32 = 1;
/// That it was cancelled.
pub const CANCELLED: i32 = 2;
/// That the pool takes it back.
pub const GIVE_BACK: i32 = 3;

/// `struct acode_text`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawText {
    bytes: *const c_char,
    length: usize,
}

/// `struct acode_host`.
#[repr(C)]
struct RawHost {
    size: usize,
    abi: u32,
    reserved: u32,
    told_to_end: extern "C" fn(*const RawHost) -> i32,
    progress: extern "C" fn(*const RawHost, f64, RawText),
    write: extern "C" fn(*const RawHost, i32, RawText),
    result: extern "C" fn(*const RawHost, RawText) -> i32,
    error: extern "C" fn(*const RawHost, RawText),
    scratch: extern "C" fn(*const RawHost) -> RawText,
    working_directory: extern "C" fn(*const RawHost) -> RawText,
    checkpoint: extern "C" fn(*const RawHost) -> RawText,
    task_id: extern "C" fn(*const RawHost) -> RawText,
    meta: extern "C" fn(*const RawHost, RawText) -> RawText,
    attempt: extern "C" fn(*const RawHost) -> u32,
    worker_slot: extern "C" fn(*const RawHost) -> u32,
}

/// `acode_abi`.
type AbiFn = extern "C" fn() -> u32;
/// `acode_execute`. Nothing may unwind out of it; what does so nevertheless ends the process in an orderly way.
type ExecuteFn = extern "C-unwind" fn(RawText, RawText, *const RawHost) -> i32;

/// A text that a library may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact {
    /// The path of its private directory.
    Scratch,
    /// Where relative paths start.
    WorkingDirectory,
    /// The path of the directory that outlives its attempts.
    Checkpoint,
    /// The task's id.
    TaskId,
}

/// What a library speaks to while an action of it runs. Called from whatever thread the library calls from, by one at a time.
pub trait Caller {
    /// [`GO_ON`], or why the action is to end.
    fn told_to_end(&self) -> i32;
    /// How far it is.
    fn progress(&mut self, percent: f64, message: &[u8]);
    /// Output: standard error if `is_error`, else standard output.
    fn write(&mut self, is_error: bool, bytes: &[u8]);
    /// The result; says whether it can be one.
    fn result(&mut self, json: &[u8]) -> bool;
    /// Why it fails.
    fn error(&mut self, words: &[u8]);
    /// A text, if there is such a one; asked for once.
    fn fact(&mut self, fact: Fact) -> Option<Vec<u8>>;
    /// What the submitter has noted under this key; asked for once, if there is something.
    fn meta(&mut self, key: &[u8]) -> Option<Vec<u8>>;
    /// Which attempt it is, from 1.
    fn attempt(&self) -> u32;
    /// The number of the worker's slot.
    fn worker_slot(&self) -> u32;
}

/// What an object lacks to be a library with actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It does not have this function.
    #[error("it has no function {0}(): it is no library with actions (acode_action.h says what that has)")]
    Missing(&'static str),
    /// It was built by another header.
    #[error("it was built for version {0} of acode_action.h: this acode knows version {ABI_VERSION}")]
    OtherVersion(u32),
}

/// A library with actions, open.
#[derive(Debug)]
pub struct Entry {
    execute: ExecuteFn,
    /// Where that function is.
    _object: Object,
}

impl Entry {
    /// What the object has, if it is one of ours.
    ///
    /// # Errors
    /// It is not.
    pub fn of(object: Object) -> Result<Self, EntryError> {
        let find = |name: &'static str, c_name| object.function(c_name).ok_or(EntryError::Missing(name));
        let abi = find("acode_abi", c"acode_abi")?;
        let execute = find("acode_execute", c"acode_execute")?;
        // SAFETY: the function of this name has this signature in every version of the contract; that an object which exports
        // it keeps to the contract is what naming it as a library says.
        let abi = unsafe { std::mem::transmute::<NonNull<c_void>, AbiFn>(abi) };
        let version = abi();
        if version != ABI_VERSION {
            return Err(EntryError::OtherVersion(version));
        }
        // SAFETY: as above, for this version.
        let execute = unsafe { std::mem::transmute::<NonNull<c_void>, ExecuteFn>(execute) };
        Ok(Self { execute, _object: object })
    }

    /// Has the library do the action of this name. Returns what it returns.
    pub fn execute(&self, name: &[u8], params: &[u8], caller: &mut dyn Caller) -> i32 {
        // There is one host, and so one execution at a time; a worker does no more anyway.
        let _turn = lock(&TURN);
        let (name, params) = (with_nul(name), with_nul(params));
        // SAFETY: only the lifetime is changed. The pointer is taken back below before this function ends, panic or not, and
        // whoever uses it holds the lock while he does.
        let caller = unsafe { std::mem::transmute::<&mut dyn Caller, &'static mut (dyn Caller + 'static)>(caller) };
        *lock(&CURRENT) = Some(Running { caller: NonNull::from(caller), texts: HashMap::new() });
        let _end = TakeBack;
        (self.execute)(raw(&name), raw(&params), &raw const HOST)
    }
}

/// One execution at a time.
static TURN: Mutex<()> = Mutex::new(());
/// The one that is going on.
static CURRENT: Mutex<Option<Running>> = Mutex::new(None);

/// The one host, which is never moved or freed: a thread that a library has left behind finds nobody there, and no crash.
static HOST: RawHost = RawHost {
    size: size_of::<RawHost>(),
    abi: ABI_VERSION,
    reserved: 0,
    told_to_end,
    progress,
    write,
    result,
    error,
    scratch,
    working_directory,
    checkpoint,
    task_id,
    meta,
    attempt,
    worker_slot,
};

/// An execution that is going on.
struct Running {
    caller: NonNull<dyn Caller>,
    /// Texts that were given away: they stay where they are until it is over. With their NUL.
    texts: HashMap<(Option<Fact>, Vec<u8>), Vec<u8>>,
}

// SAFETY: the caller is used only under the lock of `CURRENT`, by one thread at a time, while the thread that it belongs to
// waits in `Entry::execute` and does not touch it.
unsafe impl Send for Running {}

struct TakeBack;

impl Drop for TakeBack {
    fn drop(&mut self) {
        *lock(&CURRENT) = None;
    }
}

/// A panic while it was held has left nothing half done: there is only the one value in it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_caller<T>(f: impl FnOnce(&mut dyn Caller) -> T) -> Option<T> {
    let mut current = lock(&CURRENT);
    let running = current.as_mut()?;
    // SAFETY: what is there is alive (`TakeBack` ends it first), and the lock makes us the only one who uses it.
    Some(f(unsafe { running.caller.as_mut() }))
}

/// A text that stays until the execution is over; made once.
fn kept_text(key: (Option<Fact>, Vec<u8>), make: impl FnOnce(&mut dyn Caller) -> Option<Vec<u8>>) -> RawText {
    const NONE: RawText = RawText { bytes: ptr::null(), length: 0 };
    let mut current = lock(&CURRENT);
    let Some(running) = current.as_mut() else { return NONE };
    if !running.texts.contains_key(&key) {
        // SAFETY: as in `with_caller`.
        match make(unsafe { running.caller.as_mut() }) {
            Some(text) => running.texts.insert(key.clone(), with_nul(&text)),
            None => return NONE,
        };
    }
    running.texts.get(&key).map_or(NONE, |text| raw(text))
}

fn with_nul(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    text.push(0);
    text
}

/// A text that ends with a NUL.
fn raw(text: &[u8]) -> RawText {
    RawText { bytes: text.as_ptr().cast(), length: text.len() - 1 }
}

/// What the library gives.
fn given<'t>(text: &'t RawText) -> &'t [u8] {
    if text.bytes.is_null() || isize::try_from(text.length).is_err() {
        return &[];
    }
    // SAFETY: the contract: so many bytes, valid while the library calls, which is as long as the caller has `text`.
    unsafe { std::slice::from_raw_parts::<'t>(text.bytes.cast(), text.length) }
}

extern "C" fn told_to_end(_: *const RawHost) -> i32 {
    with_caller(|caller| caller.told_to_end()).unwrap_or(GIVE_BACK)
}

extern "C" fn progress(_: *const RawHost, percent: f64, message: RawText) {
    with_caller(|caller| caller.progress(percent, given(&message)));
}

extern "C" fn write(_: *const RawHost, stream: i32, bytes: RawText) {
    with_caller(|caller| caller.write(stream == 2, given(&bytes)));
}

extern "C" fn result(_: *const RawHost, json: RawText) -> i32 {
    if with_caller(|caller| caller.result(given(&json))) == Some(true) { 0 } else { -1 }
}

extern "C" fn error(_: *const RawHost, words: RawText) {
    with_caller(|caller| caller.error(given(&words)));
}

fn fact(fact: Fact) -> RawText {
    kept_text((Some(fact), Vec::new()), |caller| caller.fact(fact))
}

extern "C" fn scratch(_: *const RawHost) -> RawText {
    fact(Fact::Scratch)
}

extern "C" fn working_directory(_: *const RawHost) -> RawText {
    fact(Fact::WorkingDirectory)
}

extern "C" fn checkpoint(_: *const RawHost) -> RawText {
    fact(Fact::Checkpoint)
}

extern "C" fn task_id(_: *const RawHost) -> RawText {
    fact(Fact::TaskId)
}

extern "C" fn meta(_: *const RawHost, key: RawText) -> RawText {
    let key = given(&key);
    kept_text((None, key.to_vec()), |caller| caller.meta(key))
}

extern "C" fn attempt(_: *const RawHost) -> u32 {
    with_caller(|caller| caller.attempt()).unwrap_or(0)
}

extern "C" fn worker_slot(_: *const RawHost) -> u32 {
    with_caller(|caller| caller.worker_slot()).unwrap_or(0)
}
