//! Finds the configuration file, and lays variables and flags over it.
//!
//! The order, weakest first: defaults, the file, `ACODE_*` variables, flags. Each value remembers who gave it, so that
//! a rule between two keys can point at the one that broke it. Deliberately absent: writing a configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::keys::{Key, Slot};
use super::table::KEYS;
use super::{Config, ConfigError, LogLevel, Modes, Named, Origin, Switch, usable_cpus};
use crate::tree::{At, Entry, Fault, Node, Value, from_json, from_yaml, nearest};

/// The largest configuration file, in bytes.
const FILE_MAX: u64 = 1 << 20;
const FILE_NAME: &str = "acode.yaml";
const SYSTEM_FILE: &str = "/etc/acode/acode.yaml";

/// The environment: every variable with its value.
pub type Vars = BTreeMap<OsString, OsString>;

/// What flags override.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--count`: `workers.count`.
    pub count: Option<u32>,
    /// `--min`: `workers.scaling.minCount`, and scaling by load is on.
    pub min_count: Option<u32>,
    /// `--max`: `workers.scaling.maxCount`, and scaling by load is on.
    pub max_count: Option<u32>,
    /// `--mode`: `workers.mode`.
    pub mode: Option<Modes>,
    /// `--pool`: `pool.name`.
    pub pool: Option<String>,
    /// `--log-level`: `log.level`.
    pub log_level: Option<LogLevel>,
    /// `--log-file`: `log.file`.
    pub log_file: Option<PathBuf>,
}

/// A configuration with its history.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that it came from, if there was one.
    pub file: Option<PathBuf>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Who gave the key with this path, as in `workers.count`, its value.
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }

    fn set(&mut self, key: &'static Key, node: &Node<'_>, origin: Origin) -> Result<(), ConfigError> {
        key.apply(node, &mut self.config).map_err(|fault| wrong(origin.clone(), fault))?;
        self.origins.insert(key.path, origin);
        Ok(())
    }
}

/// Loads the configuration: from `explicit` (`--config`) if given, else from the first file of the search order that
/// exists, else from the defaults alone; then from `vars`, then from `overrides`.
///
/// # Errors
/// A file that was named cannot be read, or anything in it, in a variable or in a flag is wrong.
pub fn load(explicit: Option<&Path>, vars: &Vars, overrides: &Overrides) -> Result<Loaded, ConfigError> {
    let cwd = std::env::current_dir().unwrap_or_default();
    load_from(explicit, vars, overrides, &cwd, Path::new(SYSTEM_FILE))
}

/// Loads the configuration of a pool inside of a program: from `file` if one is given, then from `options`, each the path
/// of a key and its value. Neither the usual files nor the environment are looked at: what a program does must not depend on
/// them.
///
/// # Errors
/// The file cannot be read, or anything in it or in an option is wrong.
pub fn load_options(file: Option<&Path>, options: &[(String, serde_json::Value)]) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded { config: Config::default(), file: None, origins: BTreeMap::new() };
    if let Some(path) = file {
        let text = read(path)?;
        let text = text.map_err(|source| ConfigError::Unreadable { path: path.to_owned(), by: None, source })?;
        apply_file(&mut loaded, path, &text)?;
        loaded.file = Some(path.to_owned());
    }
    for (path, value) in options {
        let Some(key) = KEYS.iter().find(|key| key.path == path) else {
            let near = nearest(path, KEYS.iter().map(|key| key.path));
            let meant = near.map(|near| format!(": did you mean '{near}'?")).unwrap_or_default();
            let words = format!("unknown key '{path}'{meant}");
            return Err(ConfigError::Wrong { origin: Origin::Options, words });
        };
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => "none".to_owned(),
            other => other.to_string(),
        };
        let node = match value {
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => from_json(&text),
            // A number is what it would be if it stood in a file.
            _ => Ok(Node::plain(&text)),
        };
        let node = node.map_err(|fault| wrong(Origin::Options, fault))?;
        loaded.set(key, &node, Origin::Options)?;
    }
    finish(&mut loaded, usable_cpus())?;
    Ok(loaded)
}

/// [`load`], with the current directory and the system's file given.
pub(super) fn load_from(
    explicit: Option<&Path>,
    vars: &Vars,
    overrides: &Overrides,
    cwd: &Path,
    system: &Path,
) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded { config: Config::default(), file: None, origins: BTreeMap::new() };
    if let Some((path, text)) = find(explicit, vars, cwd, system)? {
        apply_file(&mut loaded, &path, &text)?;
        loaded.file = Some(path);
    }
    apply_variables(&mut loaded, vars, cwd)?;
    apply_overrides(&mut loaded, overrides, cwd)?;
    finish(&mut loaded, usable_cpus())?;
    Ok(loaded)
}

/// The first file that exists, with its text.
fn find(
    explicit: Option<&Path>,
    vars: &Vars,
    cwd: &Path,
    system: &Path,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let variable = |name: &str| vars.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty());
    let named = explicit
        .map(|path| (path.to_owned(), "--config"))
        .or_else(|| variable("ACODE_CONFIG").map(|path| (PathBuf::from(path), "$ACODE_CONFIG")));
    if let Some((path, by)) = named {
        let path = cwd.join(path);
        return match read(&path)? {
            Ok(text) => Ok(Some((path, text))),
            Err(source) => Err(ConfigError::Unreadable { path, by: Some(by), source }),
        };
    }
    // A relative $XDG_CONFIG_HOME is to be ignored, says its specification.
    let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = folder.or_else(|| variable("HOME").map(|home| Path::new(home).join(".config")));
    let user = folder.map(|folder| folder.join("acode").join(FILE_NAME));
    for path in [Some(cwd.join(FILE_NAME)), user, Some(system.to_owned())].into_iter().flatten() {
        match read(&path)? {
            Ok(text) => return Ok(Some((path, text))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(source) => return Err(ConfigError::Unreadable { path, by: None, source }),
        }
    }
    Ok(None)
}

/// Reads the file; the inner error is what opening or reading it gave.
fn read(path: &Path) -> Result<std::io::Result<String>, ConfigError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Ok(Err(error));
    }
    if bytes.len() as u64 > FILE_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), max: FILE_MAX });
    }
    Ok(String::from_utf8(bytes).map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text")))
}

fn apply_file(loaded: &mut Loaded, path: &Path, text: &str) -> Result<(), ConfigError> {
    let root = from_yaml(text).map_err(|fault| wrong(Origin::File(path.to_owned(), fault.at), fault))?;
    apply_mapping(loaded, path, "", &root)?;
    if let Some(file) = &mut loaded.config.log.file {
        *file = path.parent().unwrap_or(Path::new("/")).join(&file);
    }
    Ok(())
}

/// Applies the mapping `node`, which stands under the path `parent`.
fn apply_mapping(loaded: &mut Loaded, path: &Path, parent: &str, node: &Node<'_>) -> Result<(), ConfigError> {
    let in_file = |fault: Fault| wrong(Origin::File(path.to_owned(), fault.at), fault);
    let shown = if parent.is_empty() { "the configuration" } else { parent };
    for entry in node.entries(shown).map_err(in_file)? {
        let full = if parent.is_empty() { entry.key.to_string() } else { format!("{parent}.{}", entry.key) };
        if let Some(key) = KEYS.iter().find(|key| key.path == full) {
            loaded.set(key, &entry.node, Origin::File(path.to_owned(), entry.node.at))?;
        } else if KEYS.iter().any(|key| below(key.path, &full).is_some()) {
            apply_mapping(loaded, path, &full, &entry.node)?;
        } else {
            return Err(in_file(unknown(entry, parent)));
        }
    }
    Ok(())
}

/// What follows `parent` in the key's path `path`, if the key is below it.
fn below<'p>(path: &'p str, parent: &str) -> Option<&'p str> {
    if parent.is_empty() { Some(path) } else { path.strip_prefix(parent)?.strip_prefix('.') }
}

/// The fault of an unknown key. The nearest of its siblings is meant, or else a key of this name that lives elsewhere.
fn unknown(entry: &Entry<'_>, parent: &str) -> Fault {
    let siblings = KEYS.iter().filter_map(|key| below(key.path, parent)?.split('.').next());
    let elsewhere = KEYS.iter().map(|key| key.path).find(|path| path.rsplit('.').next() == Some(&entry.key));
    let known: Vec<&str> = match elsewhere {
        Some(path) if nearest(&entry.key, siblings.clone()).is_none() => {
            return Fault::new(entry.at, unknown_kind(entry, parent, path));
        }
        Some(_) | None => siblings.collect(),
    };
    Fault::unknown_key(entry.at, &entry.key, parent, known)
}

fn unknown_kind(entry: &Entry<'_>, parent: &str, nearest: &str) -> crate::tree::FaultKind {
    crate::tree::FaultKind::UnknownKey {
        key: entry.key.to_string(),
        parent: parent.to_owned(),
        nearest: Some(nearest.to_owned()),
    }
}

/// Applies the variables that are named after keys. One that begins like them and is none is a mistake; any other
/// variable, such as those that a task is given, is none of ours.
fn apply_variables(loaded: &mut Loaded, vars: &Vars, cwd: &Path) -> Result<(), ConfigError> {
    let known: Vec<(String, &'static Key)> = KEYS.iter().map(|key| (key.variable(), key)).collect();
    // An empty variable is an unset one: that is how scripts take a setting back.
    for (name, value) in vars.iter().filter(|(_, value)| !value.is_empty()) {
        let Some(name) = name.to_str().filter(|name| name.starts_with("ACODE_")) else { continue };
        let origin = || Origin::Variable(name.to_owned());
        let Some((_, key)) = known.iter().find(|(variable, _)| variable == name) else {
            if KEYS.iter().any(|key| name.starts_with(&section_prefix(key))) {
                let names = known.iter().map(|(variable, _)| variable.as_str());
                let meant = nearest(name, names).map(|near| format!(": did you mean '{near}'?")).unwrap_or_default();
                let words = format!("no key has this variable{meant}");
                return Err(ConfigError::Wrong { origin: origin(), words });
            }
            continue;
        };
        let Some(text) = value.to_str() else {
            return Err(ConfigError::Wrong { origin: origin(), words: "the value is not UTF-8 text".to_owned() });
        };
        loaded.set(key, &variable_node(&key.slot, text), origin())?;
        if let (Slot::File(_), Some(file)) = (&key.slot, &mut loaded.config.log.file) {
            *file = cwd.join(&file);
        }
    }
    Ok(())
}

/// `ACODE_WORKERS_` for every key under `workers`.
fn section_prefix(key: &Key) -> String {
    let section = key.path.split('.').next().unwrap_or_default();
    format!("ACODE_{}_", section.to_ascii_uppercase())
}

/// A variable's text as a value: a list is separated by commas, and so are the `NAME=VALUE` of a mapping.
fn variable_node<'v>(slot: &Slot, text: &'v str) -> Node<'v> {
    let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
    match slot {
        Slot::Patterns(_) | Slot::Words(_) | Slot::Paths(_) | Slot::Mounts(_) | Slot::Arguments(_) => {
            Node::new(Value::List(parts().map(Node::text).collect()))
        }
        Slot::Codes(_) => Node::new(Value::List(parts().map(Node::plain).collect())),
        Slot::Variables(_) | Slot::Limits(_) => {
            let pair = |part: &'v str| part.split_once('=').unwrap_or((part, ""));
            let numbers = matches!(slot, Slot::Limits(_));
            let node = |value| if numbers { Node::plain(value) } else { Node::text(value) };
            let entry =
                |(key, value): (&'v str, &'v str)| Entry { at: At::NOWHERE, key: key.into(), node: node(value) };
            Node::new(Value::Map(parts().map(pair).map(entry).collect()))
        }
        Slot::Count(..)
        | Slot::OptionalCount(..)
        | Slot::Amount(..)
        | Slot::OptionalAmount(..)
        | Slot::Millis(..)
        | Slot::Seconds(..)
        | Slot::OptionalSeconds(..)
        | Slot::OptionalDays(..)
        | Slot::Real(..)
        | Slot::OptionalReal(..)
        | Slot::Octal(_)
        | Slot::Flag(_)
        | Slot::Switch(_)
        | Slot::Modes(_)
        | Slot::Action(_)
        | Slot::Method(_)
        | Slot::Cleanup(_)
        | Slot::Level(_)
        | Slot::Sandbox(_)
        | Slot::Signals(_)
        | Slot::File(_)
        | Slot::Name(_)
        | Slot::Program(_)
        | Slot::Word(_)
        | Slot::OptionalWord(_)
        | Slot::Pull(_)
        | Slot::Fallback(_)
        | Slot::Listen(_) => Node::plain(text),
    }
}

fn apply_overrides(loaded: &mut Loaded, overrides: &Overrides, cwd: &Path) -> Result<(), ConfigError> {
    let Overrides { count, min_count, max_count, mode, pool, log_level, log_file } = overrides;
    let number = |number: &Option<u32>| number.map(|number| number.to_string());
    let on = || Some(Switch::On.name().to_owned());
    let flags = [
        ("--count", "workers.count", number(count)),
        ("--min", "workers.scaling.minCount", number(min_count)),
        ("--max", "workers.scaling.maxCount", number(max_count)),
        ("--min", "workers.scaling.enabled", min_count.and_then(|_| on())),
        ("--max", "workers.scaling.enabled", max_count.and_then(|_| on())),
        ("--mode", "workers.mode", mode.as_ref().map(ToString::to_string)),
        ("--pool", "pool.name", pool.clone()),
        ("--log-level", "log.level", log_level.map(|level| level.name().to_owned())),
    ];
    for (flag, path, text) in flags {
        if let (Some(text), Some(key)) = (text, KEYS.iter().find(|key| key.path == path)) {
            loaded.set(key, &Node::plain(&text), Origin::Flag(flag))?;
        }
    }
    // A path need not be UTF-8, so it does not go through the table.
    if let Some(file) = log_file {
        loaded.config.log.file = Some(cwd.join(file));
        loaded.origins.insert("log.file", Origin::Flag("--log-file"));
    }
    Ok(())
}

/// The numbers of `workers.mode` say how many workers there are: that may not be said twice, and differently. Returns
/// whether they were given.
fn count_modes(loaded: &mut Loaded) -> Result<bool, ConfigError> {
    let Some(total) = loaded.config.workers.mode.total() else { return Ok(false) };
    let (mode, workers) = (loaded.config.workers.mode.clone(), &mut loaded.config.workers);
    let origin = loaded.origins.get("workers.mode").cloned().unwrap_or(Origin::Default);
    let refuse = |what: String| {
        Err(ConfigError::Wrong { origin, words: format!("workers.mode is {mode}, {total} workers in all: {what}") })
    };
    match loaded.origins.get("workers.count") {
        Some(by) if workers.count != total => {
            refuse(format!("workers.count is {} ({by}); they must agree, or one be left out", workers.count))
        }
        _ if total > workers.max_count => {
            refuse(format!("at most workers.maxCount, {}, is expected", workers.max_count))
        }
        Some(_) | None => {
            workers.count = total;
            Ok(true)
        }
    }
}

/// Fills in the numbers of workers. What nobody said gives way to what somebody did.
fn fill_in(loaded: &mut Loaded, cpus: u32) -> Result<(), ConfigError> {
    let by_mode = count_modes(loaded)?;
    let given = |path: &str| loaded.origins.contains_key(path);
    let counted = by_mode || given("workers.count");
    let (min_given, max_given) = (given("workers.scaling.minCount"), given("workers.scaling.maxCount"));
    let workers = &mut loaded.config.workers;
    let scaling = &mut workers.scaling;
    if !max_given {
        let least = [counted.then_some(workers.count), min_given.then_some(scaling.min_count)];
        let least = least.into_iter().flatten().max().unwrap_or(1);
        scaling.max_count = cpus.max(least).min(workers.max_count);
    }
    if !min_given {
        scaling.min_count = scaling.min_count.min(scaling.max_count);
    }
    if scaling.enabled == Switch::Auto {
        scaling.enabled = if counted { Switch::Off } else { Switch::On };
    }
    if !counted {
        workers.count = cpus.clamp(1, workers.max_count);
    }
    Ok(())
}

/// Fills in the numbers of workers, and checks the rules between keys.
fn finish(loaded: &mut Loaded, cpus: u32) -> Result<(), ConfigError> {
    fill_in(loaded, cpus)?;
    let workers = &loaded.config.workers;
    let scaling = &workers.scaling;
    let (poll, backoff) = (workers.poll_interval.as_millis(), workers.idle_backoff_max.as_millis());
    let retry = &loaded.config.tasks.retry;
    let codes = (retry.on_codes.iter().count() as u128, retry.except_codes.is_empty());
    let (beat, silence) = (workers.heartbeat_interval.as_millis(), workers.heartbeat_timeout.as_millis());
    // Each rule: whether it holds, the key that it is about with its value, the other key, and what is expected.
    let rules = [
        (
            workers.count <= workers.max_count,
            ("workers.count", workers.count.to_string(), "workers.maxCount"),
            format!("at most workers.maxCount, {},", workers.max_count),
        ),
        (
            backoff >= poll,
            ("workers.idleBackoffMaxMs", backoff.to_string(), "workers.pollIntervalMs"),
            format!("at least workers.pollIntervalMs, {poll},"),
        ),
        (
            scaling.min_count <= scaling.max_count,
            ("workers.scaling.minCount", scaling.min_count.to_string(), "workers.scaling.maxCount"),
            format!("at most workers.scaling.maxCount, {},", scaling.max_count),
        ),
        (
            scaling.enabled != Switch::On || scaling.min_count >= workers.mode.kinds(),
            ("workers.scaling.minCount", scaling.min_count.to_string(), "workers.mode"),
            format!("at least {}, a worker of each mode of workers.mode,", workers.mode.kinds()),
        ),
        (
            scaling.max_count <= workers.max_count,
            ("workers.scaling.maxCount", scaling.max_count.to_string(), "workers.maxCount"),
            format!("at most workers.maxCount, {},", workers.max_count),
        ),
        (
            scaling.down_threshold < scaling.up_threshold,
            (
                "workers.scaling.scaleDownThreshold",
                scaling.down_threshold.to_string(),
                "workers.scaling.scaleUpThreshold",
            ),
            format!("less than workers.scaling.scaleUpThreshold, {},", scaling.up_threshold),
        ),
        (
            silence >= 2 * beat,
            ("workers.heartbeatTimeoutMs", silence.to_string(), "workers.heartbeatIntervalMs"),
            format!("at least twice workers.heartbeatIntervalMs, {beat},"),
        ),
        (
            codes.0 == 0 || codes.1,
            ("the number of codes in tasks.retries.onCodes", codes.0.to_string(), "tasks.retries.exceptCodes"),
            "0 beside tasks.retries.exceptCodes: they exclude each other, so 0".to_owned(),
        ),
    ];
    let broken = rules.into_iter().find(|(holds, ..)| !holds);
    let Some((_, (path, value, other), expected)) = broken else { return check_limits(loaded) };
    // The key itself may stand at its default, and the other one have been changed.
    let origin = [path, other].iter().find_map(|path| loaded.origins.get(path)).cloned().unwrap_or(Origin::Default);
    Err(ConfigError::Wrong { origin, words: format!("{path} is {value}: {expected} is expected") })
}

/// No default may be above its maximum.
fn check_limits(loaded: &Loaded) -> Result<(), ConfigError> {
    let workers = &loaded.config.workers;
    let Some((key, own, max)) = workers.limits.above(&workers.max_limits) else { return Ok(()) };
    let given = |section: &str| loaded.origins.get(format!("workers.{section}.{key}").as_str()).cloned();
    let origin = given("limits").or_else(|| given("maxLimits")).unwrap_or(Origin::Default);
    let words = format!("workers.limits.{key} is {own}: at most workers.maxLimits.{key}, {max}, is expected");
    Err(ConfigError::Wrong { origin, words })
}

fn wrong(origin: Origin, fault: Fault) -> ConfigError {
    let origin = match origin {
        Origin::File(path, _) => Origin::File(path, fault.at),
        Origin::Default | Origin::Variable(_) | Origin::Flag(_) | Origin::Options => origin,
    };
    ConfigError::Wrong { origin, words: fault.to_string() }
}
