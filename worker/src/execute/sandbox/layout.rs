//! What a sandbox shows of the file system: the list of mounts, or the rules where there can be none.
//!
//! Three kinds of paths: `kept`, which the task may write to (its room, its checkpoint, what the configuration adds);
//! `readable`, for `scratch` alone; `hidden`, the pool's own. Pure but for looking at what exists. Deliberately absent:
//! mounting anything, which the child does.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::sys::confine::landlock::{CHANGES, EXECUTE, Handled, READ_DIR, READ_FILE, Ruleset, WRITE_FILE};
use crate::sys::confine::mounts::{PARTS_MAX, Step};
use crate::task::{DeviceAccess, FileAccess};

/// Where programs and libraries are.
const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// What programs read of the configuration: the linker, names of users, hosts and zones, certificates. No secrets.
const SETTINGS: [&str; 31] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/alternatives",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/hostname",
    "/etc/services",
    "/etc/protocols",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.conf",
    "/etc/os-release",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/terminfo",
    "/etc/inputrc",
    "/etc/magic",
    "/etc/perl",
];
/// The devices of `minimal`.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// What else is in a /dev that is made.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// A file system in memory for nothing but places to mount on.
const SKELETON: &str = "mode=755,size=1m,nr_inodes=4k";
/// One for shared memory.
const SHARED_MEMORY: &str = "mode=1777,size=25%";

/// What is to be laid out.
#[derive(Debug)]
pub struct Wish<'w> {
    /// How much of the file system.
    pub files: FileAccess,
    /// Which devices.
    pub devices: DeviceAccess,
    /// The task's room, which exists.
    pub room: &'w Path,
    /// Its scratch directory, in the room.
    pub scratch: &'w Path,
    /// Further places that it may write to.
    pub kept: Vec<&'w Path>,
    /// Further places that it may read.
    pub readable: Vec<&'w Path>,
    /// The pool's own places.
    pub hidden: &'w [PathBuf],
    /// Whether it can have a /proc of its own.
    pub fresh_proc: bool,
}

/// A list of steps that is being written.
#[derive(Default)]
struct Layout {
    steps: Vec<Step>,
    taken: usize,
    /// Where the new root is while it is being built; empty if the old one stays.
    root: PathBuf,
}

/// The list of mounts for this wish.
///
/// # Errors
/// A path holds a NUL byte, or there are too many.
pub fn mounts(wish: &Wish<'_>) -> io::Result<Vec<Step>> {
    let mut layout = Layout::default();
    layout.steps.push(Step::Detach);
    match wish.files {
        FileAccess::Host | FileAccess::ReadOnly => layout.over_the_old_root(wish)?,
        FileAccess::Scratch => layout.new_root(wish)?,
    }
    if layout.taken > PARTS_MAX {
        return Err(io::Error::other(format!("more than {PARTS_MAX} places are shown in the sandbox")));
    }
    Ok(layout.steps)
}

/// The rules for this wish, for a host on which nothing can be mounted.
///
/// # Errors
/// What the kernel says.
pub fn rules(wish: &Wish<'_>, abi: u32, handled: Handled) -> io::Result<Ruleset> {
    let reading = READ_FILE | READ_DIR | EXECUTE;
    let files = match wish.files {
        FileAccess::Host => handled.files,
        FileAccess::ReadOnly => CHANGES,
        FileAccess::Scratch => CHANGES | reading,
    };
    let rules = Ruleset::new(abi, Handled { files, ..handled })?;
    if wish.files == FileAccess::Host {
        return Ok(rules);
    }
    let allow = |path: &Path, rights: u64| rules.allow(&c_path(path)?, rights);
    allow(wish.room, CHANGES | reading)?;
    for path in &wish.kept {
        allow(path, CHANGES | reading)?;
    }
    for device in DEVICES {
        allow(Path::new(device), WRITE_FILE | READ_FILE)?;
    }
    if wish.devices == DeviceAccess::Host {
        allow(Path::new("/dev"), WRITE_FILE | reading)?;
    }
    for path in PROGRAMS.iter().chain(&SETTINGS).chain(&["/proc"]).map(Path::new) {
        allow(path, reading)?;
    }
    for path in &wish.readable {
        allow(path, reading)?;
    }
    Ok(rules)
}

impl Layout {
    /// `host` and `read-only`: the old root stays, with covers over parts of it.
    fn over_the_old_root(&mut self, wish: &Wish<'_>) -> io::Result<()> {
        let sealed = wish.files == FileAccess::ReadOnly;
        let hidden = outermost(wish.hidden);
        let mut kept = Vec::new();
        for path in std::iter::once(&wish.room).chain(&wish.kept) {
            let below = hidden.iter().find(|hidden| path.starts_with(hidden)).copied();
            if path.exists() && (sealed || below.is_some()) {
                kept.push((*path, below, self.take(path)?));
            }
        }
        let devices = self.take_devices(wish)?;
        if sealed {
            self.steps.push(Step::SealTree(c"/".to_owned()));
        }
        // Whatever is put back comes before the covers, so that nothing hidden comes to light with it.
        for (path, _, part) in kept.iter().filter(|(_, below, _)| below.is_none()) {
            self.put(*part, path)?;
        }
        for path in &hidden {
            self.memory(path, SKELETON)?;
        }
        for (path, below, part) in &kept {
            if let Some(below) = below {
                self.place(below, path)?;
                self.put(*part, path)?;
            }
        }
        for path in &hidden {
            self.steps.push(Step::Seal(c_path(path)?));
        }
        match wish.devices {
            DeviceAccess::Minimal => self.make_devices(&devices),
            DeviceAccess::Host if sealed && Path::new("/dev/shm").is_dir() => {
                self.memory(Path::new("/dev/shm"), SHARED_MEMORY)
            }
            DeviceAccess::Host => Ok(()),
        }
    }

    /// `scratch`: a new root with little in it.
    fn new_root(&mut self, wish: &Wish<'_>) -> io::Result<()> {
        let mut shown: Vec<(&Path, usize)> = Vec::new();
        let mut links = Vec::new();
        for path in PROGRAMS.iter().chain(&SETTINGS).map(Path::new).chain(wish.readable.iter().copied()) {
            match fs::symlink_metadata(path) {
                // /bin and its like, which point into /usr.
                Ok(meta) if meta.is_symlink() && path.parent() == Some(Path::new("/")) => {
                    links.push((fs::read_link(path)?, path));
                }
                Ok(_) if path.exists() => {
                    let part = self.take(path)?;
                    self.steps.push(Step::SealPart(part));
                    shown.push((path, part));
                }
                Ok(_) | Err(_) => {}
            }
        }
        let proc = Path::new("/proc");
        if !wish.fresh_proc {
            let part = self.take(proc)?;
            self.steps.push(Step::SealPart(part));
            shown.push((proc, part));
        }
        if wish.devices == DeviceAccess::Host {
            shown.push((Path::new("/dev"), self.take(Path::new("/dev"))?));
        }
        let devices = self.take_devices(wish)?;
        for path in std::iter::once(&wish.room).chain(&wish.kept).filter(|path| path.exists()) {
            shown.push((path, self.take(path)?));
        }
        self.memory(wish.room, SKELETON)?;
        self.root = wish.room.to_owned();
        let root = Path::new("/");
        for (path, part) in &shown {
            self.place(root, path)?;
            self.put(*part, path)?;
        }
        for (content, path) in &links {
            self.steps.push(Step::Link(c_path(content)?, self.path(path)?));
        }
        // Programs that insist on it write to the scratch directory, where it counts.
        self.steps.push(Step::Link(c_path(wish.scratch)?, self.path(Path::new("/tmp"))?));
        if wish.fresh_proc {
            self.steps.push(Step::Directory(self.path(proc)?, 0o555));
            self.steps.push(Step::Kernel(self.path(proc)?, c"proc", c"hidepid=ptraceable"));
        }
        if wish.devices == DeviceAccess::Minimal {
            self.steps.push(Step::Directory(self.path(Path::new("/dev"))?, 0o755));
            self.make_devices(&devices)?;
        }
        for hidden in outermost(wish.hidden) {
            // What the configuration shows may contain what no sandbox shows.
            if let Some((above, _)) = shown.iter().find(|(path, _)| hidden.starts_with(path) && *path != hidden) {
                return Err(io::Error::other(format!(
                    "'{}' holds the pool's own directory and cannot be shown in a sandbox",
                    above.display()
                )));
            }
        }
        self.steps.push(Step::Seal(self.path(root)?));
        self.steps.push(Step::Root(c_path(wish.room)?));
        Ok(())
    }

    /// Takes the devices of `minimal`, as far as they exist.
    fn take_devices(&mut self, wish: &Wish<'_>) -> io::Result<Vec<(&'static Path, usize)>> {
        let mut devices = Vec::new();
        if wish.devices == DeviceAccess::Minimal {
            for path in DEVICES.map(Path::new) {
                if fs::metadata(path).is_ok_and(|meta| meta.file_type().is_char_device()) {
                    devices.push((path, self.take(path)?));
                }
            }
        }
        Ok(devices)
    }

    /// Makes a /dev over the one that is there.
    fn make_devices(&mut self, devices: &[(&Path, usize)]) -> io::Result<()> {
        let dev = Path::new("/dev");
        self.memory(dev, SKELETON)?;
        for (path, part) in devices {
            self.steps.push(Step::File(self.path(path)?));
            self.put(*part, path)?;
        }
        for (content, path) in DEVICE_LINKS {
            self.steps.push(Step::Link(c_path(Path::new(content))?, self.path(Path::new(path))?));
        }
        for name in ["/dev/shm", "/dev/pts"].map(Path::new) {
            self.steps.push(Step::Directory(self.path(name)?, 0o755));
        }
        self.memory(Path::new("/dev/shm"), SHARED_MEMORY)?;
        let pts = self.path(Path::new("/dev/pts"))?;
        self.steps.push(Step::Kernel(pts, c"devpts", c"newinstance,ptmxmode=0666,mode=620"));
        self.steps.push(Step::Seal(self.path(dev)?));
        Ok(())
    }

    fn take(&mut self, path: &Path) -> io::Result<usize> {
        self.steps.push(Step::Take(c_path(path)?));
        self.taken += 1;
        Ok(self.taken - 1)
    }

    fn put(&mut self, part: usize, path: &Path) -> io::Result<()> {
        self.steps.push(Step::Put(part, self.path(path)?));
        Ok(())
    }

    fn memory(&mut self, path: &Path, options: &str) -> io::Result<()> {
        self.steps.push(Step::Memory(self.path(path)?, CString::new(options)?));
        Ok(())
    }

    /// Makes a place to put `path` on, with all that is above it below `base`.
    fn place(&mut self, base: &Path, path: &Path) -> io::Result<()> {
        let above: Vec<_> = path.ancestors().skip(1).take_while(|above| *above != base).collect();
        for folder in above.into_iter().rev() {
            self.steps.push(Step::Directory(self.path(folder)?, 0o755));
        }
        let own = self.path(path)?;
        self.steps.push(if path.is_dir() { Step::Directory(own, 0o755) } else { Step::File(own) });
        Ok(())
    }

    /// Where `path` is while the new root is being built.
    fn path(&self, path: &Path) -> io::Result<CString> {
        c_path(&self.root.join(path.strip_prefix("/").unwrap_or(path)))
            .and_then(|inside| if self.root.as_os_str().is_empty() { c_path(path) } else { Ok(inside) })
    }
}

/// Those paths that exist and of which none is below another.
fn outermost(paths: &[PathBuf]) -> Vec<&Path> {
    let above = |path: &PathBuf| paths.iter().any(|other| other != path && path.starts_with(other));
    let mut found: Vec<&Path> =
        paths.iter().filter(|path| !above(path) && path.is_dir()).map(PathBuf::as_path).collect();
    found.dedup();
    found
}

fn c_path(path: &Path) -> io::Result<CString> {
    let text: &OsStr = path.as_os_str();
    Ok(CString::new(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outermost_directories_are_covered() {
        let home = tempfile::tempdir().unwrap();
        let (state, run) = (home.path().join("s"), home.path().join("s/run"));
        fs::create_dir_all(&run).unwrap();
        let paths = [run, state.clone(), home.path().join("missing")];
        assert_eq!(outermost(&paths), [state.as_path()]);
    }

    #[test]
    fn what_is_kept_below_what_is_hidden_comes_back_after_the_cover() {
        let home = tempfile::tempdir().unwrap();
        let (state, room) = (home.path().join("s"), home.path().join("s/rooms/0"));
        fs::create_dir_all(room.join("scratch")).unwrap();
        let (hidden, scratch) = ([state.clone()], room.join("scratch"));
        let wish = Wish {
            files: FileAccess::ReadOnly,
            devices: DeviceAccess::Host,
            room: &room,
            scratch: &scratch,
            kept: Vec::new(),
            readable: Vec::new(),
            hidden: &hidden,
            fresh_proc: false,
        };
        let steps = mounts(&wish).unwrap();
        let at = |step: &Step| steps.iter().position(|known| known == step).unwrap_or_else(|| panic!("{step:?}"));
        let c = |path: &Path| c_path(path).unwrap();
        let order = [
            at(&Step::Take(c(&room))),
            at(&Step::SealTree(c"/".to_owned())),
            at(&Step::Memory(c(&state), CString::new(SKELETON).unwrap())),
            at(&Step::Directory(c(&state.join("rooms")), 0o755)),
            at(&Step::Put(0, c(&room))),
            at(&Step::Seal(c(&state))),
        ];
        assert!(order.is_sorted(), "{steps:?}");
    }
}
