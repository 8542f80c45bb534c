//! From names to places: an order in which every task comes after those that it waits for.
//!
//! The order is that of the file, except that a task moves behind the last one that it waits for. Deliberately absent:
//! recursion; a chain of a hundred thousand tasks is a legitimate file.

use std::collections::{HashMap, HashSet};

use acode_worker::task::{Blocker, Dependency, DependencyKind, Submission};

use super::schema::{Draft, Wait};
use crate::tree::{At, Fault, nearest};

/// What a task of the queue is named by, where a file's own tasks are meant otherwise.
const OF_QUEUE: [&str; 2] = ["id:", "name:"];

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// One task: its place.
    One(u32),
    /// More than one task: nobody may wait for it.
    Several,
    /// An array that turned out to have no members.
    Nothing,
}

/// What a task waits for: another one of the file, one that the queue has already, or nothing after all.
pub(super) enum Target {
    Place(u32),
    Queued(Blocker),
    Nothing,
}

/// Finds what `wait` refers to.
pub(super) fn target(wait: &Wait, names: &HashMap<Box<str>, Named>, scope: &str) -> Result<Target, Fault> {
    let name = &wait.name;
    match names.get(name.as_str()) {
        Some(Named::One(place)) => Ok(Target::Place(*place)),
        Some(Named::Several) => Err(Fault::other(wait.at, format!("'{name}' is the name of more than one task"))),
        Some(Named::Nothing) => match wait.kind {
            // No member failed to succeed, and all have ended: there were none.
            DependencyKind::Succeeded | DependencyKind::Ended => Ok(Target::Nothing),
            DependencyKind::Failed => {
                Err(Fault::other(wait.at, format!("no member of '{name}' can fail: its each matches nothing")))
            }
        },
        None => queued(name).map(Target::Queued).ok_or_else(|| {
            let near = nearest(name, names.keys().map(AsRef::as_ref));
            let meant = match near {
                Some(near) => format!(": did you mean '{near}'?"),
                None => format!(" (a task that the queue has already is written name:{name})"),
            };
            Fault::other(wait.at, format!("no {scope} is named '{name}'{meant}"))
        }),
    }
}

/// A task of the queue: its whole id, or what follows `id:` or `name:`.
fn queued(text: &str) -> Option<Blocker> {
    if let Ok(id) = text.parse() {
        return Some(Blocker::Id(id));
    }
    let [id, name] = OF_QUEUE.map(|mark| text.strip_prefix(mark).filter(|rest| !rest.is_empty()));
    id.or(name.map(|_| text)).map(|text| Blocker::Task(text.to_owned()))
}

/// Enters a task's name, if it has one.
pub(super) fn enter(names: &mut HashMap<Box<str>, Named>, draft: &Draft, place: u32) {
    if let Some(name) = &draft.submission.spec.name {
        let named = if draft.is_empty() { Named::Nothing } else { Named::One(place) };
        names.entry(name.as_str().into()).and_modify(|earlier| *earlier = Named::Several).or_insert(named);
    }
}

/// Adds dependencies, each once; a task may wait for a hundred thousand others.
pub(super) fn depend(submission: &mut Submission, all: impl IntoIterator<Item = (Blocker, DependencyKind)>) {
    let mut known: HashSet<Dependency> = submission.dependencies.iter().cloned().collect();
    for (on, when) in all {
        let dependency = Dependency { on, when };
        if known.insert(dependency.clone()) {
            submission.dependencies.push(dependency);
        }
    }
}

/// Resolves the names of a whole file and puts its tasks in order, each with its place in the file.
pub(super) fn resolve(mut drafts: Vec<Draft>) -> Result<Vec<(At, Submission)>, Fault> {
    let mut names = HashMap::new();
    for (place, draft) in drafts.iter().enumerate() {
        enter(&mut names, draft, narrow(place));
    }
    // First everything by its place in the file…
    let mut edges: Vec<Vec<u32>> = vec![Vec::new(); drafts.len()];
    for (place, draft) in drafts.iter_mut().enumerate() {
        let mut on = Vec::with_capacity(draft.waits.len());
        for wait in &draft.waits {
            match target(wait, &names, "task")? {
                Target::Place(other) => {
                    edges[place].push(other);
                    on.push((Blocker::Entry(other), wait.kind));
                }
                Target::Queued(blocker) => on.push((blocker, wait.kind)),
                Target::Nothing => {}
            }
        }
        if !on.is_empty() {
            depend(&mut draft.submission, on);
        }
    }
    let order = order(&edges).map_err(|cycle| cycle_fault(&drafts, &names, &cycle))?;
    // …then by its place in the order, in which empty arrays have none.
    let mut moved = vec![0; drafts.len()];
    let mut next = 0;
    for place in &order {
        moved[*place as usize] = next;
        next += u32::from(!drafts[*place as usize].is_empty());
    }
    let mut ordered = Vec::with_capacity(next as usize);
    for place in order {
        let draft = &mut drafts[place as usize];
        if draft.is_empty() {
            continue;
        }
        let mut submission = std::mem::take(&mut draft.submission);
        for dependency in &mut submission.dependencies {
            if let Blocker::Entry(other) = &mut dependency.on {
                *other = moved[*other as usize];
            }
        }
        ordered.push((draft.at, submission));
    }
    Ok(ordered)
}

/// The places in an order in which each comes after its edges' ends; or a cycle, from a place back to itself.
fn order(edges: &[Vec<u32>]) -> Result<Vec<u32>, Vec<u32>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Never,
        /// It is on the path that is being followed.
        Open,
        Done,
    }
    let mut seen = vec![Seen::Never; edges.len()];
    let mut ordered = Vec::with_capacity(edges.len());
    // The path from a start to where we are: each place with the number of its edges that have been followed.
    let mut path: Vec<(u32, usize)> = Vec::new();
    for start in 0..edges.len() {
        if seen[start] == Seen::Never {
            seen[start] = Seen::Open;
            path.push((narrow(start), 0));
        }
        while let Some((place, followed)) = path.last_mut() {
            let here = *place as usize;
            let Some(next) = edges[here].get(*followed).copied() else {
                seen[here] = Seen::Done;
                ordered.push(*place);
                path.pop();
                continue;
            };
            *followed += 1;
            match seen[next as usize] {
                Seen::Done => {}
                Seen::Never => {
                    seen[next as usize] = Seen::Open;
                    path.push((next, 0));
                }
                Seen::Open => {
                    let cycle = path.iter().map(|(place, _)| *place).skip_while(|place| *place != next);
                    return Err(cycle.chain([next]).collect());
                }
            }
        }
    }
    Ok(ordered)
}

/// The fault of a cycle, at the name that closes it.
fn cycle_fault(drafts: &[Draft], names: &HashMap<Box<str>, Named>, cycle: &[u32]) -> Fault {
    /// Longer cycles are shown by their beginning and end.
    const SHOWN: usize = 8;
    let name = |place: &u32| drafts[*place as usize].submission.spec.name.as_deref().unwrap_or("?");
    let mut shown: Vec<&str> = cycle.iter().map(name).collect();
    if shown.len() > SHOWN {
        shown.splice(SHOWN / 2..shown.len() - SHOWN / 2, ["…"]);
    }
    let words = format!("the tasks wait for each other: {}", shown.join(" -> "));
    let closing = cycle.len().checked_sub(2).and_then(|at| cycle.get(at)).map(|place| &drafts[*place as usize]);
    let goal = cycle.last().map(|place| Named::One(*place));
    let at = closing.and_then(|draft| {
        let wait = draft.waits.iter().find(|wait| names.get(wait.name.as_str()).copied() == goal);
        wait.map(|wait| wait.at)
    });
    Fault::other(at.unwrap_or_default(), words)
}

/// A task file of at most [`super::YAML_MAX`] bytes has far fewer tasks than that.
fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
