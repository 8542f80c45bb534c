//! What a task's process is started with: arguments, environment, files to try. Pure but for reading no clock and
//! opening nothing.

use std::ffi::CString;
use std::path::Path;

use super::own_program;
use super::variables::{Own, give_meta, is_reserved};
use super::worktree::Made;
use crate::actions::child::ROLE_ACTION;
use crate::room::Room;
use crate::sys::rlimit::{RawLimit, Resource};
use crate::sys::spawn::CStringArray;
use crate::task::{Assignment, Env, Rlimits};
use crate::wire::{JobserverPlace, WorkerSettings};

/// The variables by which make and cargo hand their jobserver down.
const MAKE_FLAGS: [&str; 2] = ["MAKEFLAGS", "CARGO_MAKEFLAGS"];
/// Where programs are looked for when no environment says.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Facts of the worker that its tasks get to know.
#[derive(Debug)]
pub struct WorkerFacts {
    /// The worker's id, as text.
    pub id: String,
    /// Its slot number.
    pub slot: u16,
}

/// Where a task may leave what is its own.
#[derive(Clone, Copy)]
pub struct Places<'p> {
    /// Its room.
    pub room: &'p Room,
    /// Its checkpoint directory, if it asked for one.
    pub checkpoint: Option<&'p Path>,
    /// Where it may leave temporary files, if not at the usual place.
    pub temporary: Option<&'p Path>,
    /// What it finds in its environment before anything is said.
    pub base: &'p Env,
    /// Its git worktree, if it asked for one.
    pub worktree: Option<&'p Made>,
    /// Where it finds its parameters, if it has any.
    pub params: Option<&'p Path>,
}

/// The files to try for `command[0]`, in order: itself if it has a slash, else one in each folder of the path.
pub fn candidates(program: &str, base: &Env, own: &Env) -> Vec<CString> {
    let as_c = |text: String| CString::new(text).ok();
    if program.contains('/') {
        return as_c(program.to_owned()).into_iter().collect();
    }
    let path = own.get("PATH").or_else(|| base.get("PATH")).map_or(DEFAULT_PATH, String::as_str);
    let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
    folders.filter_map(|folder| as_c(format!("{folder}/{program}"))).collect()
}

/// Fills `argv`.
pub fn arguments(command: &[String], argv: &mut CStringArray) {
    argv.clear();
    for argument in command {
        argv.push(&[argument.as_bytes()]);
    }
    argv.seal();
}

/// Fills `envp`: the allow-listed base, the task's own variables over it, and acode's over both.
pub fn environment(
    settings: &WorkerSettings,
    task: &Assignment,
    worker: &WorkerFacts,
    places: Places<'_>,
    envp: &mut CStringArray,
) {
    let room = places.room;
    use std::os::unix::ffi::OsStrExt;
    envp.clear();
    let (own, jobserver) = (&task.spec.env, task.spec.jobserver);
    let common = Common { base: places.base, own, jobserver, temporary: places.temporary };
    common_environment(&common, settings, worker, envp);
    Own::TaskId.give(task.id.to_string().as_bytes(), envp);
    Own::Attempt.give(task.attempt.to_string().as_bytes(), envp);
    let mut give = |own: Own, path: &Path| own.give(path.as_os_str().as_bytes(), envp);
    give(Own::Scratch, room.scratch());
    give(Own::Progress, room.progress());
    give(Own::Result, room.result());
    give(Own::Error, room.error());
    if let Some(params) = places.params {
        give(Own::Params, params);
    }
    if let Some(checkpoint) = places.checkpoint {
        give(Own::Checkpoint, checkpoint);
    }
    if let Some(worktree) = places.worktree {
        give(Own::Worktree, worktree.place());
        Own::Commit.give(worktree.commit().as_bytes(), envp);
    }
    if own_program::action_of(&task.spec).is_some() {
        Own::Role.give(ROLE_ACTION.as_bytes(), envp);
    }
    for (key, value) in &task.spec.meta {
        give_meta(key, value, envp);
    }
    envp.seal();
}

/// What is the same for all tasks of one worker that are given the same.
#[derive(Clone, Copy)]
pub struct Common<'c> {
    /// The allow-listed variables.
    pub base: &'c Env,
    /// The task's own, over these.
    pub own: &'c Env,
    /// Whether the pool's job slots are shared.
    pub jobserver: bool,
    /// Where temporary files go, if not to the usual place.
    pub temporary: Option<&'c Path>,
}

/// Adds what tasks have in common.
pub fn common_environment(
    common: &Common<'_>,
    settings: &WorkerSettings,
    worker: &WorkerFacts,
    envp: &mut CStringArray,
) {
    use std::os::unix::ffi::OsStrExt;
    let Common { base, own, jobserver, temporary } = *common;
    let makes = |name: &str| jobserver && MAKE_FLAGS.contains(&name);
    for (name, value) in base.iter().filter(|(name, _)| !own.contains_key(*name)).chain(own) {
        let moved = temporary.is_some() && name == "TMPDIR" && !own.contains_key(name);
        if !is_reserved(name) && !makes(name) && !moved {
            envp.push(&[name.as_bytes(), b"=", value.as_bytes()]);
        }
    }
    if jobserver {
        for name in MAKE_FLAGS {
            let given = own.get(name).or_else(|| base.get(name)).map_or("", String::as_str);
            envp.push(&[name.as_bytes(), b"=", make_flags(given, &settings.jobserver).as_bytes()]);
        }
    }
    if let Some(temporary) = temporary.filter(|_| !own.contains_key("TMPDIR")) {
        envp.push(&[b"TMPDIR=", temporary.as_os_str().as_bytes()]);
    }
    Own::WorkerId.give(worker.id.as_bytes(), envp);
    Own::WorkerSlot.give(worker.slot.to_string().as_bytes(), envp);
}

/// What make, cargo and ninja are told of the jobserver, behind the flags that were given anyway.
fn make_flags(given: &str, place: &JobserverPlace) -> String {
    let (slots, fifo) = (place.slots, place.fifo.display());
    format!("{given} -j{slots} --jobserver-auth=fifo:{fifo}").trim_start().to_owned()
}

/// The limits that are set, in the kernel's terms.
pub fn raw_limits(limits: &Rlimits) -> Vec<RawLimit> {
    let all = [
        (Resource::Core, limits.core_bytes),
        (Resource::OpenFiles, limits.open_files),
        (Resource::FileSize, limits.file_size_bytes),
        (Resource::AddressSpace, limits.address_space_bytes),
        (Resource::CpuTime, limits.cpu_seconds),
        (Resource::Processes, limits.processes),
    ];
    all.into_iter().filter_map(|(resource, value)| Some(RawLimit::new(resource, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_looked_for_in_the_tasks_own_path_first() {
        let base = Env::from([("PATH".into(), "/base".into())]);
        let own = Env::from([("PATH".into(), "/x::/y".into())]);
        let texts = |list: Vec<CString>| list.into_iter().map(|c| c.into_string().unwrap()).collect::<Vec<_>>();
        assert_eq!(texts(candidates("ls", &base, &own)), ["/x/ls", "./ls", "/y/ls"]);
        assert_eq!(texts(candidates("ls", &base, &Env::new())), ["/base/ls"]);
        assert_eq!(texts(candidates("./ls", &base, &own)), ["./ls"]);
    }

    #[test]
    fn the_jobserver_comes_behind_the_flags_that_were_given() {
        let place = JobserverPlace { fifo: "/run/acode/jobserver".into(), slots: 8 };
        assert_eq!(make_flags("", &place), "-j8 --jobserver-auth=fifo:/run/acode/jobserver");
        assert_eq!(make_flags("k", &place), "k -j8 --jobserver-auth=fifo:/run/acode/jobserver");
    }
}
