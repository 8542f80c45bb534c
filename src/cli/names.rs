//! Names of tasks for the log of the whole pool, looked up as they turn up.

use std::collections::HashMap;

use acode_worker::task::TaskId;

use super::{CliError, Context};
use crate::api::{Door, Need};
use crate::wire::request::{List, Show};
use crate::wire::{Client, MAX_LIST};

/// The most names that are kept; then all are forgotten and looked up again.
const MAX_KEPT: usize = 50_000;

/// Names, each as `name#number`.
#[derive(Debug)]
pub struct Names {
    known: HashMap<TaskId, String>,
    pool: Option<Client>,
}

impl Names {
    /// Finds out whom to ask. Without a pool the newest tasks' names are read at once, so that the queue is not held
    /// for as long as somebody reads a log.
    ///
    /// # Errors
    /// There is neither a pool nor a queue.
    pub fn new(context: &Context) -> Result<Self, CliError> {
        let mut known = HashMap::new();
        let pool = match context.door(Need::Queue)? {
            Door::Pool(client) => Some(client),
            mut door @ Door::Queue(_) => {
                let newest = List { limit: Some(MAX_LIST), newest_first: true, ..List::default() };
                known.extend(door.call(&newest)?.tasks.into_iter().map(|task| (task.id, label(&task.name, task.id))));
                None
            }
        };
        Ok(Self { known, pool })
    }

    /// The name of this task; its number alone if nobody knows more.
    pub fn of(&mut self, id: TaskId) -> &str {
        if self.known.len() > MAX_KEPT {
            self.known.clear();
        }
        let pool = &mut self.pool;
        self.known.entry(id).or_insert_with(|| {
            let asked = pool.as_mut().and_then(|client| client.call(&Show { id: id.into() }).ok());
            label(asked.as_ref().map_or("", |shown| &shown.task.name), id)
        })
    }
}

fn label(name: &str, id: TaskId) -> String {
    format!("{}#{}", super::render::plain(name), id.seq())
}
