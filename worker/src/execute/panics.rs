//! What a panic of an action says, which is its task's and not the worker's.
//!
//! Deliberately absent: catching it, which the registry does, and the panics of other threads that an action has made, which
//! are told as in any program.

use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::Once;

thread_local! {
    static IN_ACTION: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics within [`during`] are not written to the worker's standard error.
pub fn keep_quiet() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IN_ACTION.get() {
                return others(info);
            }
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            PLACE.with_borrow_mut(|last| *last = Some(place));
        }));
    });
}

/// Calls an action on this thread; gives what it returns, and where it panicked last, if it did.
pub fn during<T>(call: impl FnOnce() -> T) -> (T, Option<String>) {
    IN_ACTION.set(true);
    let returned = call();
    IN_ACTION.set(false);
    (returned, PLACE.take())
}
