//! Failpoints: named places at which a test makes the process die. In release builds they are nothing at all.
//!
//! `ACODE_FAILPOINTS` lists them, separated by commas: `name` kills the process at the first pass, `name@3` at the
//! third; `name=stop` stops it with SIGSTOP instead. For a place that cuts a write in two, the number is how many
//! bytes are written before the kill. With `ACODE_FAILPOINTS_ONCE` set to a directory, each name strikes only once,
//! however many processes pass it: the striker leaves a file there.

/// Marks a place at which a test can make the process die.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::sys::failpoint::pass($name);
    };
}

/// How many bytes of a write may go out before the process dies, if `name` is set and may still strike.
pub fn cut(name: &str) -> Option<usize> {
    #[cfg(debug_assertions)]
    return imp::find(name).filter(|point| point.armed()).map(|point| point.number);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        None
    }
}

/// Dies, or stops, if `name` is set and this is the pass it is set for. Called by [`failpoint!`](crate::failpoint!).
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    imp::pass(name);
}

/// Dies at once, as by SIGKILL from outside. The second half of [`cut`].
pub fn die() -> ! {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    std::process::abort()
}

#[cfg(debug_assertions)]
mod imp {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub struct Point {
        name: String,
        pub number: usize,
        stop: bool,
        passes: AtomicUsize,
    }

    impl Point {
        /// Whether this point may strike: always, or only if no process has struck it before.
        pub fn armed(&self) -> bool {
            let Some(folder) = std::env::var_os("ACODE_FAILPOINTS_ONCE") else { return true };
            let mark = std::path::Path::new(&folder).join(&self.name);
            std::fs::OpenOptions::new().write(true).create_new(true).open(mark).is_ok()
        }
    }

    fn points() -> &'static [Point] {
        static POINTS: OnceLock<Vec<Point>> = OnceLock::new();
        POINTS.get_or_init(|| {
            let list = std::env::var("ACODE_FAILPOINTS").unwrap_or_default();
            list.split(',').filter(|entry| !entry.is_empty()).map(parse).collect()
        })
    }

    fn parse(entry: &str) -> Point {
        let (entry, action) = entry.split_once('=').unwrap_or((entry, "kill"));
        let (name, number) = entry.split_once('@').unwrap_or((entry, "1"));
        Point {
            name: name.to_owned(),
            number: number.parse().unwrap_or(1),
            stop: action == "stop",
            passes: AtomicUsize::new(0),
        }
    }

    pub fn find(name: &str) -> Option<&'static Point> {
        points().iter().find(|point| point.name == name)
    }

    pub fn pass(name: &str) {
        let Some(point) = find(name) else { return };
        if point.passes.fetch_add(1, Ordering::Relaxed) + 1 == point.number && point.armed() {
            if point.stop {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
            } else {
                super::die();
            }
        }
    }
}
