//! The roles of one executable file: what it does when a pool executes it again.
//!
//! A pool is a family of processes of one program, and an action in a process of its own is that program as well. Which
//! role it has, the variable `ACODE_ROLE` says, which is taken out of the environment before anything else. Deliberately
//! absent: what the roles do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use acode_worker::actions::Registry;
/// The variable that names the role.
pub use acode_worker::actions::child::ROLE;
use acode_worker::actions::{child, daemon};
use acode_worker::sys::{environ, process};

/// The role of a pool's supervisor, started by a program.
pub(super) const SUPERVISOR: &str = "supervisor";
/// The exit code of a role that is not known.
const EXIT_UNKNOWN: i32 = 2;

static REGISTRY: OnceLock<Registry> = OnceLock::new();
/// Whether this program can be executed again.
static CAPABLE: AtomicBool = AtomicBool::new(false);

/// Makes a program capable of pools: to be called at the top of `main`, while there is one thread. Where the program was
/// executed by a pool, it does that pool's work and does not return. Later calls change nothing.
pub fn init(registry: Registry) {
    let registry = REGISTRY.get_or_init(|| registry);
    CAPABLE.store(true, Ordering::Release);
    let Some(role) = environ::take(ROLE) else { return };
    process::exit_now(play(&role.to_string_lossy(), registry))
}

/// Whether [`init`] was called, so that this program can be executed again.
pub(super) fn is_capable() -> bool {
    CAPABLE.load(Ordering::Acquire)
}

/// The actions of this program: those of [`init`], else the built-in ones.
pub fn registry() -> &'static Registry {
    REGISTRY.get_or_init(Registry::built_in)
}

fn play(role: &str, registry: &'static Registry) -> i32 {
    match role {
        child::ROLE_ACTION => child::play(registry),
        SUPERVISOR => super::launch::play(registry),
        daemon::ROLE => daemon::serve(registry),
        _ => {
            eprintln!(
                "acode: {ROLE} is '{role}', which is no role of this version: it is for processes of a pool alone"
            );
            EXIT_UNKNOWN
        }
    }
}
