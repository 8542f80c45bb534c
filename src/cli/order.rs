//! `acode task hold`, `release` and `group`: who may start, and how many at once.

use super::render::Out;
use super::task::changed;
use super::values::GroupLimit;
use super::{CliError, Context, Exit, tables};
use crate::api::Need;
use crate::wire::reply::Refusal;
use crate::wire::request::{Groups, Hold, LimitGroup, Release};
use crate::wire::{CallError, MAX_IDS, TaskRef};

/// Keeps tasks from starting.
///
/// # Errors
/// It was not done.
pub fn hold(context: &Context, ids: &[TaskRef], group: Option<String>) -> Result<Exit, CliError> {
    let mut door = context.door(Need::Queue)?;
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    for ids in pages(ids) {
        let done = door.call(&Hold { ids: ids.to_vec(), group: group.clone() })?;
        held.extend(done.held);
        refused.extend(done.refused);
    }
    tell(&refused);
    changed(context, &serde_json::json!({ "held": held, "refused": refused }), &held, refused.is_empty())
}

/// Lets them start.
///
/// # Errors
/// It was not done.
pub fn release(context: &Context, ids: &[TaskRef], group: Option<String>) -> Result<Exit, CliError> {
    let mut door = context.door(Need::Queue)?;
    let (mut released, mut refused) = (Vec::new(), Vec::new());
    for ids in pages(ids) {
        let done = door.call(&Release { ids: ids.to_vec(), group: group.clone() })?;
        released.extend(done.released);
        refused.extend(done.refused);
    }
    tell(&refused);
    changed(context, &serde_json::json!({ "released": released, "refused": refused }), &released, refused.is_empty())
}

/// As many at a time as a request may name; once without any for a group.
fn pages(ids: &[TaskRef]) -> impl Iterator<Item = &[TaskRef]> {
    let none: &[TaskRef] = &[];
    ids.is_empty().then_some(none).into_iter().chain(ids.chunks(MAX_IDS))
}

fn tell(refused: &[Refusal]) {
    for Refusal { id, why } in refused {
        eprintln!("acode: task {id}: {why}");
    }
}

/// Lists the groups, or changes the limit of one.
///
/// # Errors
/// There is no such group, or its limit is none.
pub fn group(context: &Context, name: Option<String>, limit: Option<GroupLimit>) -> Result<Exit, CliError> {
    let groups = match (name, limit) {
        (Some(name), Some(limit)) => {
            let max = match limit {
                GroupLimit::Max(max) => Some(max),
                GroupLimit::None => None,
            };
            vec![context.door(Need::NewQueue)?.call(&LimitGroup { name, max })?.group]
        }
        (name, None) => {
            let mut groups = context.door(Need::Queue)?.call(&Groups {})?.groups;
            if let Some(name) = name {
                groups.retain(|group| group.name == name);
                if groups.is_empty() {
                    return Err(CallError::NoSuchGroup { group: name }.into());
                }
            }
            groups
        }
        (None, Some(_)) => return Err(CliError::Usage("--limit needs the name of a group".to_owned())),
    };
    let mut out = Out::new();
    if context.json {
        out.json(&groups)?;
    } else {
        out.line(tables::groups(&groups))?;
    }
    out.finish()?;
    Ok(Exit::Done)
}
