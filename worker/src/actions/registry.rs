//! The actions that a program has, by their names.
//!
//! Types are erased here, once: from the outside an action takes JSON and gives JSON. Deliberately absent: built-in actions
//! themselves, each of which has a file of its own.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::Context;
use super::error::ActionError;
use crate::task::{Action, ActionType, ERROR_MAX, RESULT_MAX};

/// Work that a program can do: a name, what it is told, what it answers.
pub trait WorkAction: 'static {
    /// The name by which tasks ask for it; of a built-in one, its type's.
    const NAME: &'static str;
    /// What it is told. Unknown keys should be refused: `#[serde(deny_unknown_fields)]`.
    type Params: Serialize + DeserializeOwned;
    /// What it answers: the task's result, at most [`RESULT_MAX`] bytes of JSON.
    type Output: Serialize + DeserializeOwned;

    /// Checks parameters that can be read, before a task is accepted. Nothing that is true only here and now may be looked
    /// at: the task may run much later, and elsewhere on this machine.
    ///
    /// # Errors
    /// The words for what is wrong.
    fn validate(_params: &Self::Params) -> Result<(), String> {
        Ok(())
    }

    /// Does the work.
    ///
    /// # Errors
    /// It could not be done, or not to its end.
    fn execute(params: Self::Params, context: &mut Context<'_>) -> Result<Self::Output, ActionError>;
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// Nobody has this action here.
    #[error("there is no action '{name}' here: there {known}")]
    Unknown {
        /// Its name.
        name: String,
        /// What there is, as the end of that sentence.
        known: String,
    },
    /// This program was built without it.
    #[error("actions of type {0} are not in this acode: it was built without them")]
    NotBuilt(ActionType),
    /// The library that has it cannot be used, or refuses it.
    #[error("library '{path}': {why}")]
    Library {
        /// Its file.
        path: String,
        /// Why.
        why: String,
    },
    /// They do not fit.
    #[error("params of {name}: {why}")]
    Wrong {
        /// The action.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// How an action ended, alike in every isolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was told: the result as JSON text, if it has one.
    Done(Option<String>),
    /// It could not: why.
    Failed(String),
    /// It panicked, with these words.
    Panicked(String),
}

impl Outcome {
    /// The exit code that stands for it: 0, 1, or 101 as of a Rust program.
    pub fn code(&self) -> i32 {
        match self {
            Self::Done(_) => 0,
            Self::Failed(_) => 1,
            Self::Panicked(_) => 101,
        }
    }

    /// The words of a failure, at most [`ERROR_MAX`] bytes.
    pub fn error(&self) -> Option<String> {
        let words = match self {
            Self::Done(_) => return None,
            Self::Failed(why) => why.clone(),
            Self::Panicked(words) => format!("panicked: {words}"),
        };
        Some(cut(words))
    }
}

fn cut(mut words: String) -> String {
    if words.len() > ERROR_MAX {
        let end = (0..=ERROR_MAX).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
        words.truncate(end);
    }
    words
}

/// An action with its parameters, read and checked. Its answer is JSON text: a [`Value`] would cut the digits of numbers.
type Work = Box<dyn FnOnce(&mut Context<'_>) -> Result<String, ActionError>>;

/// Reads and checks an action's parameters.
struct Entry(fn(&Value) -> Result<Work, String>);

impl Entry {
    /// Makes ready what an action is to do. A check of parameters is the action's own code, and one that panics ends nobody
    /// but the task: it is made by the supervisor too.
    fn prepare(&self, action: &Action) -> Result<Work, ParamsError> {
        let params = action.told();
        // A list would be taken for the values of a built-in type in the order of the program's text.
        if action.kind != ActionType::Custom && !params.is_object() {
            return Err(wrong(action, r#"an object is expected, as in {"key": value}"#.to_owned()));
        }
        let prepared = catch_unwind(AssertUnwindSafe(|| (self.0)(&params)));
        let prepared = prepared.unwrap_or_else(|panic| Err(format!("their check panicked: {}", words_of(&*panic))));
        prepared.map_err(|why| wrong(action, why))
    }
}

/// The actions of one program.
#[derive(Default)]
pub struct Registry {
    own: BTreeMap<&'static str, Entry>,
    built_in: BTreeMap<ActionType, Entry>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.built_in.keys().map(|kind| kind.name())).entries(self.own.keys()).finish()
    }
}

impl Registry {
    /// The built-in actions of this build, and no others.
    pub fn built_in() -> Self {
        let registry = Self::default();
        let registry = registry.with_built_in::<super::computation::Computation>(ActionType::Computation);
        let registry = registry.with_built_in::<super::file_io::FileIo>(ActionType::FileIo);
        #[cfg(feature = "compression")]
        let registry = registry.with_built_in::<super::compression::Compression>(ActionType::Compression);
        #[cfg(feature = "encryption")]
        let registry = registry.with_built_in::<super::encryption::Encryption>(ActionType::Encryption);
        #[cfg(feature = "data")]
        let registry = registry.with_built_in::<super::analysis::Analysis>(ActionType::Analysis);
        #[cfg(feature = "data")]
        let registry = registry.with_built_in::<super::data::DataProcessing>(ActionType::DataProcessing);
        #[cfg(feature = "image")]
        let registry = registry.with_built_in::<super::image::ImageManipulation>(ActionType::ImageManipulation);
        registry
    }

    /// The same with the action of a built-in type.
    fn with_built_in<A: WorkAction>(mut self, kind: ActionType) -> Self {
        self.built_in.insert(kind, entry::<A>());
        self
    }

    /// The same with an action of one's own, which tasks of type `custom` ask for by its name. The last of several with
    /// one name is the one that counts.
    #[must_use]
    pub fn with<A: WorkAction>(mut self) -> Self {
        self.own.insert(A::NAME, entry::<A>());
        self
    }

    /// The names of the actions that are not built in.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.own.keys().copied()
    }

    /// Whether it has the action of this name that is not built in.
    pub fn has(&self, name: &str) -> bool {
        self.own.contains_key(name)
    }

    /// Checks an action's parameters as far as it is known here: a custom one that comes from a library or a program, or
    /// that nobody here knows, is not.
    ///
    /// # Errors
    /// They do not fit, or this build does not have the type.
    pub fn check(&self, action: &Action) -> Result<(), ParamsError> {
        let foreign = action.library.is_some() || !action.program.is_empty();
        match self.find(action) {
            _ if foreign => Ok(()),
            Ok(entry) => entry.prepare(action).map(drop),
            Err(ParamsError::Unknown { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks an action that is to be run by this registry: one that it does not have is refused as well.
    ///
    /// # Errors
    /// There is no such action here, or the parameters do not fit.
    pub fn check_own(&self, action: &Action) -> Result<(), ParamsError> {
        self.find(action)?.prepare(action).map(drop)
    }

    /// Runs an action to its end; a panic ends the action only.
    ///
    /// # Errors
    /// There is no such action, or the parameters do not fit: nothing was run.
    pub fn run(&self, action: &Action, context: &mut Context<'_>) -> Result<Outcome, ParamsError> {
        let work = self.find(action)?.prepare(action)?;
        // What a panic leaves half done is the action's own: neither the context nor the host is used by it afterwards but
        // to end the attempt.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let ran = work(context);
            if ran.is_ok() {
                context.complete();
            }
            ran
        }));
        Ok(match ran {
            Ok(Ok(result)) if result == "null" => Outcome::Done(None),
            Ok(Ok(result)) if result.len() <= RESULT_MAX => Outcome::Done(Some(result)),
            Ok(Ok(_)) => Outcome::Failed(format!("the result is larger than {RESULT_MAX} bytes")),
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(panic) => Outcome::Panicked(words_of(&*panic)),
        })
    }

    fn find(&self, action: &Action) -> Result<&Entry, ParamsError> {
        if action.kind != ActionType::Custom {
            return self.built_in.get(&action.kind).ok_or(ParamsError::NotBuilt(action.kind));
        }
        let name = action.name.as_deref().unwrap_or_default();
        self.own.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            let known = if known.is_empty() { "is none".to_owned() } else { format!("are {}", known.join(", ")) };
            ParamsError::Unknown { name: name.to_owned(), known }
        })
    }
}

fn wrong(action: &Action, why: String) -> ParamsError {
    ParamsError::Wrong { name: action.display_name().to_owned(), why }
}

/// The parameters as their type. Who takes nothing is told an empty object, which his `()` must not mind.
fn read<A: WorkAction>(params: &Value) -> Result<A::Params, String> {
    let read = A::Params::deserialize(params).or_else(|error| {
        let nothing = params.as_object().is_some_and(serde_json::Map::is_empty);
        if nothing { A::Params::deserialize(&Value::Null).map_err(|_| error) } else { Err(error) }
    });
    read.map_err(|error| error.to_string())
}

fn entry<A: WorkAction>() -> Entry {
    Entry(|params| {
        let params = read::<A>(params)?;
        A::validate(&params)?;
        Ok(Box::new(move |context| Ok(serde_json::to_string(&A::execute(params, context)?)?)))
    })
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => (*words).to_owned(),
        (None, Some(words)) => words.clone(),
        (None, None) => "without words".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::super::context::{Facts, Host, Why};
    use super::*;
    use crate::task::TaskId;

    struct Double;
    impl WorkAction for Double {
        const NAME: &'static str = "double";
        type Params = u32;
        type Output = u32;
        fn validate(params: &u32) -> Result<(), String> {
            assert_ne!(*params, 13, "thirteen");
            Ok(())
        }
        fn execute(params: u32, context: &mut Context<'_>) -> Result<u32, ActionError> {
            context.check()?;
            if params == 7 {
                panic!("seven");
            }
            params.checked_mul(2).ok_or_else(|| ActionError::new("too large"))
        }
    }

    struct Nothing;
    impl WorkAction for Nothing {
        const NAME: &'static str = "nothing";
        type Params = ();
        type Output = ();
        fn execute((): (), _: &mut Context<'_>) -> Result<(), ActionError> {
            Ok(())
        }
    }

    struct Nowhere;
    impl Host for Nowhere {
        fn told_to_end(&self) -> Option<Why> {
            None
        }
        fn progress(&mut self, _: f64, _: &str) {}
        fn write(&mut self, _: bool, _: &[u8]) {}
        fn scratch(&mut self) -> io::Result<PathBuf> {
            Err(io::Error::other("there is none"))
        }
    }

    fn run(name: &str, params: Value) -> Result<Outcome, ParamsError> {
        let registry = Registry::built_in().with::<Double>().with::<Nothing>();
        let facts = Facts {
            id: TaskId::new(1, 1, 1),
            attempt: 1,
            slot: 0,
            meta: Default::default(),
            cwd: None,
            checkpoint: None,
        };
        let action = Action { name: Some(name.to_owned()), params, ..Action::default() };
        registry.run(&action, &mut Context::new(&facts, &mut Nowhere))
    }

    #[test]
    fn an_action_answers_fails_or_panics() {
        assert_eq!(run("double", 4.into()).unwrap(), Outcome::Done(Some("8".to_owned())));
        assert_eq!(run("nothing", Value::Null).unwrap(), Outcome::Done(None));
        assert_eq!(run("double", u32::MAX.into()).unwrap(), Outcome::Failed("too large".to_owned()));
        let panicked = run("double", 7.into()).unwrap();
        assert_eq!((panicked.code(), panicked.error().as_deref()), (101, Some("panicked: seven")));
    }

    #[test]
    fn what_does_not_fit_is_not_run() {
        assert!(matches!(run("double", "x".into()), Err(ParamsError::Wrong { .. })));
        let panicked = run("double", 13.into()).unwrap_err().to_string();
        assert!(panicked.starts_with("params of double: their check panicked"), "{panicked}");
        let unknown = run("treble", Value::Null).unwrap_err().to_string();
        assert_eq!(unknown, "there is no action 'treble' here: there are double, nothing");
    }
}
