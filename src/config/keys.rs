//! What a key of the configuration is: its path, its kind and range, its meaning, and the place of its value.
//!
//! Deliberately absent: the keys themselves, which are in `table`, and rules between two of them; `load` has those.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use acode_worker::task::{DiskMethod, Docker, Env, ExitCodes, GroupWish, Mount, Pull, SignalReach};

use super::table::KEYS;
use super::{Config, Fallback, LogLevel, Modes, Named, OverLimitAction, Switch, When, docker, sandbox};
use crate::tree::{Fault, Node};

/// Seconds of a day.
pub(super) const DAY_S: u64 = 86_400;
/// The longest name of a pool: it goes into labels and status lines.
const NAME_MAX: usize = 64;

/// One key.
pub(super) struct Key {
    /// Its path, as in `workers.count`.
    pub path: &'static str,
    /// Its value's kind, range and place.
    pub slot: Slot,
    /// What it means, for the reference.
    pub meaning: &'static str,
}

/// How to find a value in the configuration.
type Place<T> = fn(&mut Config) -> &mut T;

/// The kind, range and place of a key's value. Ranges are in the key's own unit.
pub(super) enum Slot {
    Count(Place<u32>, u64, u64),
    OptionalCount(Place<Option<u32>>, u64, u64),
    Amount(Place<u64>, u64, u64),
    OptionalAmount(Place<Option<u64>>, u64, u64),
    Millis(Place<Duration>, u64, u64),
    Seconds(Place<Duration>, u64, u64),
    OptionalSeconds(Place<Option<Duration>>, u64, u64),
    OptionalDays(Place<Option<Duration>>, u64, u64),
    Real(Place<f64>, f64, f64),
    OptionalReal(Place<Option<f64>>, f64, f64),
    Codes(Place<ExitCodes>),
    Octal(Place<u32>),
    Flag(Place<bool>),
    Switch(Place<Switch>),
    Modes(Place<Modes>),
    Action(Place<OverLimitAction>),
    Method(Place<DiskMethod>),
    Cleanup(Place<When>),
    Level(Place<LogLevel>),
    /// The part of the default sandbox with this name.
    Sandbox(&'static str),
    Signals(Place<SignalReach>),
    Paths(Place<Vec<PathBuf>>),
    Patterns(Place<Vec<String>>),
    Words(Place<Vec<String>>),
    Variables(Place<Env>),
    Limits(Place<BTreeMap<String, u32>>),
    File(Place<Option<PathBuf>>),
    Name(Place<String>),
    Listen(Place<Option<SocketAddr>>),
    Program(Place<String>),
    /// A text that becomes a value of the docker client's options.
    Word(Place<String>),
    OptionalWord(Place<Option<String>>),
    Pull(Place<Pull>),
    Mounts(Place<Vec<Mount>>),
    Arguments(Place<Vec<String>>),
    Fallback(Place<Fallback>),
}

/// A key as the manual shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its path, as in `workers.count`; the name carries the unit.
    pub path: &'static str,
    /// The environment variable that overrides it.
    pub variable: String,
    /// Its default.
    pub default: String,
    /// What it may be.
    pub allowed: String,
    /// What it means.
    pub meaning: &'static str,
}

/// Every key, for the manual and for `acode help`.
pub fn reference() -> Vec<Reference> {
    let mut defaults = Config::default();
    let describe = |key: &Key| Reference {
        path: key.path,
        variable: key.variable(),
        default: match key.path {
            "workers.count" | "workers.scaling.maxCount" => "processors".to_owned(),
            _ => key.slot.show(&mut defaults),
        },
        allowed: key.slot.allowed(),
        meaning: key.meaning,
    };
    KEYS.iter().map(describe).collect()
}

impl Key {
    /// The variable that overrides the key: `ACODE_WORKERS_POLL_INTERVAL_MS` for `workers.pollIntervalMs`.
    pub fn variable(&self) -> String {
        let mut name = "ACODE_".to_owned();
        for letter in self.path.chars() {
            match letter {
                '.' => name.push('_'),
                upper if upper.is_ascii_uppercase() => name.extend(['_', upper]),
                other => name.push(other.to_ascii_uppercase()),
            }
        }
        name
    }

    /// Puts the value of `node` into its place.
    pub fn apply(&self, node: &Node<'_>, config: &mut Config) -> Result<(), Fault> {
        let whole = |low: u64, high: u64| {
            let number = node.as_whole(self.path)?;
            if (low..=high).contains(&number) { Ok(number) } else { Err(self.refuse(node)) }
        };
        let or_none = |low, high| if is_none(node) { Ok(None) } else { whole(low, high).map(Some) };
        // A count's range ends far below 2^32, so nothing is cut off by narrowing it.
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        match &self.slot {
            Slot::Count(place, low, high) => *place(config) = narrow(whole(*low, *high)?),
            Slot::OptionalCount(place, low, high) => *place(config) = or_none(*low, *high)?.map(narrow),
            Slot::Amount(place, low, high) => *place(config) = whole(*low, *high)?,
            Slot::OptionalAmount(place, low, high) => *place(config) = or_none(*low, *high)?,
            Slot::Millis(place, low, high) => *place(config) = Duration::from_millis(whole(*low, *high)?),
            Slot::Seconds(place, low, high) => *place(config) = Duration::from_secs(whole(*low, *high)?),
            Slot::OptionalSeconds(place, low, high) => {
                *place(config) = or_none(*low, *high)?.map(Duration::from_secs);
            }
            Slot::OptionalDays(place, low, high) => {
                *place(config) = or_none(*low, *high)?.map(|days| Duration::from_secs(days * DAY_S));
            }
            Slot::Real(place, low, high) => *place(config) = self.real(node, *low, *high)?,
            Slot::OptionalReal(place, low, high) => {
                *place(config) = if is_none(node) { None } else { Some(self.real(node, *low, *high)?) };
            }
            Slot::Codes(place) => *place(config) = self.codes(node)?,
            Slot::Octal(place) => *place(config) = self.octal(node)?,
            Slot::Flag(place) => *place(config) = self.named(node)?,
            Slot::Switch(place) => *place(config) = self.named(node)?,
            Slot::Modes(place) => {
                *place(config) = node.as_text(self.path)?.parse().map_err(|_| self.refuse(node))?;
            }
            Slot::Action(place) => *place(config) = self.named(node)?,
            Slot::Method(place) => *place(config) = self.named(node)?,
            Slot::Cleanup(place) => *place(config) = self.named(node)?,
            Slot::Level(place) => *place(config) = self.named(node)?,
            Slot::Sandbox(part) => sandbox::apply(node, self.path, part, &mut config.workers.sandbox.default)?,
            Slot::Signals(place) => *place(config) = self.named(node)?,
            Slot::Paths(place) => *place(config) = sandbox::paths(node, self.path, &self.slot.allowed())?,
            Slot::Patterns(place) => *place(config) = self.patterns(node)?,
            Slot::Words(place) => *place(config) = self.words(node)?,
            Slot::Variables(place) => *place(config) = self.variables(node)?,
            Slot::Limits(place) => *place(config) = self.limits(node)?,
            Slot::File(place) => {
                *place(config) = if is_none(node) { None } else { Some(PathBuf::from(node.as_text(self.path)?)) };
            }
            Slot::Name(place) => *place(config) = self.name(node)?,
            Slot::Listen(place) => *place(config) = if is_none(node) { None } else { Some(self.loopback(node)?) },
            Slot::Program(place) => *place(config) = self.checked(node, docker::is_program)?,
            Slot::Word(place) => *place(config) = self.checked(node, Docker::is_name)?,
            Slot::OptionalWord(place) => {
                *place(config) = if is_none(node) { None } else { Some(self.checked(node, Docker::is_name)?) };
            }
            Slot::Pull(place) => *place(config) = self.named(node)?,
            Slot::Mounts(place) => {
                let mount = |item: &Node<'_>| item.as_text(self.path)?.parse().map_err(|_| self.refuse(item));
                *place(config) = node.items(self.path)?.iter().map(mount).collect::<Result<_, _>>()?;
            }
            Slot::Arguments(place) => {
                let argument = |item: &Node<'_>| self.checked(item, Docker::is_argument);
                *place(config) = node.items(self.path)?.iter().map(argument).collect::<Result<_, _>>()?;
            }
            Slot::Fallback(place) => *place(config) = self.named(node)?,
        }
        Ok(())
    }

    fn real(&self, node: &Node<'_>, low: f64, high: f64) -> Result<f64, Fault> {
        let number = node.as_real(self.path)?;
        (low..=high).contains(&number).then_some(number).ok_or_else(|| self.refuse(node))
    }

    fn refuse(&self, node: &Node<'_>) -> Fault {
        node.refused(self.path, &self.slot.allowed())
    }

    fn named<T: Named>(&self, node: &Node<'_>) -> Result<T, Fault> {
        T::from_name(node.as_text(self.path)?).ok_or_else(|| self.refuse(node))
    }

    /// A text that passes this check.
    fn checked(&self, node: &Node<'_>, fits: impl Fn(&str) -> bool) -> Result<String, Fault> {
        let text = node.as_text(self.path)?;
        if fits(text) { Ok(text.to_owned()) } else { Err(self.refuse(node)) }
    }

    /// A mask is octal with or without quotes: `077` is how everybody writes it.
    fn octal(&self, node: &Node<'_>) -> Result<u32, Fault> {
        let text = node.as_text(self.path)?;
        let digits = text.strip_prefix("0o").unwrap_or(text);
        u32::from_str_radix(digits, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(|| self.refuse(node))
    }

    fn codes(&self, node: &Node<'_>) -> Result<ExitCodes, Fault> {
        let code = |item: &Node<'_>| {
            let number = item.as_whole(self.path)?;
            u8::try_from(number).map_err(|_| item.refused(self.path, &self.slot.allowed()))
        };
        node.items(self.path)?.iter().map(code).collect()
    }

    fn patterns(&self, node: &Node<'_>) -> Result<Vec<String>, Fault> {
        let pattern = |item: &Node<'_>| {
            let text = item.as_text(self.path)?;
            let name = text.strip_suffix('*').unwrap_or(text);
            let valid = !text.is_empty() && !name.contains(['*', '=', '\0']);
            if valid { Ok(text.to_owned()) } else { Err(item.refused(self.path, &self.slot.allowed())) }
        };
        node.items(self.path)?.iter().map(pattern).collect()
    }

    /// A command. A path in place of a program's name must be absolute: nobody could say where it begins.
    fn words(&self, node: &Node<'_>) -> Result<Vec<String>, Fault> {
        let items = if is_none(node) { &[] } else { node.items(self.path)? };
        let word = |item: &Node<'_>| Ok(item.as_text(self.path)?.to_owned());
        let words: Vec<String> = items.iter().map(word).collect::<Result<_, _>>()?;
        let program =
            words.first().is_none_or(|first| !first.is_empty() && (first.starts_with('/') || !first.contains('/')));
        if program && !words.iter().any(|word| word.contains('\0')) { Ok(words) } else { Err(self.refuse(node)) }
    }

    fn variables(&self, node: &Node<'_>) -> Result<Env, Fault> {
        let mut variables = Env::new();
        for entry in node.entries(self.path)? {
            let value = entry.node.as_text(&format!("{}.{}", self.path, entry.key))?;
            if entry.key.is_empty() || entry.key.contains(['=', '\0']) || value.contains('\0') {
                return Err(Fault::other(entry.at, format!("'{}' is not a variable", entry.key.escape_debug())));
            }
            variables.insert(entry.key.clone().into_owned(), value.to_owned());
        }
        Ok(variables)
    }

    /// Whoever may connect may read, so no other machine may.
    fn loopback(&self, node: &Node<'_>) -> Result<SocketAddr, Fault> {
        let address = node.as_text(self.path)?.parse().ok();
        address.filter(|address: &SocketAddr| address.ip().is_loopback()).ok_or_else(|| self.refuse(node))
    }

    fn limits(&self, node: &Node<'_>) -> Result<BTreeMap<String, u32>, Fault> {
        let mut limits = BTreeMap::new();
        for entry in node.entries(self.path)? {
            let max = entry.node.as_whole(&format!("{}.{}", self.path, entry.key))?;
            let max = u32::try_from(max).unwrap_or(u32::MAX);
            let group = GroupWish { name: entry.key.clone().into_owned(), max: Some(max) };
            group.validate().map_err(|words| Fault::other(entry.at, format!("{}: {words}", self.path)))?;
            limits.insert(group.name, max);
        }
        Ok(limits)
    }

    fn name(&self, node: &Node<'_>) -> Result<String, Fault> {
        let text = node.as_text(self.path)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let valid = (1..=NAME_MAX).contains(&text.len()) && text.chars().all(fits);
        if valid { Ok(text.to_owned()) } else { Err(self.refuse(node)) }
    }
}

/// Whether a value that may be absent is: nothing, or the word for it, which a variable can say too.
fn is_none(node: &Node<'_>) -> bool {
    node.is_null() || node.as_text("").is_ok_and(|text| text == "none")
}

impl Slot {
    /// What the value may be, in words.
    pub fn allowed(&self) -> String {
        match self {
            Self::Count(_, low, high)
            | Self::Amount(_, low, high)
            | Self::Millis(_, low, high)
            | Self::Seconds(_, low, high) => range(*low, *high),
            Self::OptionalCount(_, low, high)
            | Self::OptionalAmount(_, low, high)
            | Self::OptionalSeconds(_, low, high)
            | Self::OptionalDays(_, low, high) => format!("{} or none", range(*low, *high)),
            Self::Real(_, low, high) => format!("{low} to {high}"),
            Self::OptionalReal(_, low, high) => format!("{low} to {high} or none"),
            Self::Codes(_) => "a list of exit codes, 0 to 255".to_owned(),
            Self::Octal(_) => "000 to 777".to_owned(),
            Self::Flag(_) => names::<bool>(),
            Self::Switch(_) => names::<Switch>(),
            Self::Modes(_) => "process or docker, or both with numbers as in process:4,docker:2".to_owned(),
            Self::Action(_) => names::<OverLimitAction>(),
            Self::Method(_) => names::<DiskMethod>(),
            Self::Cleanup(_) => names::<When>(),
            Self::Level(_) => names::<LogLevel>(),
            Self::Sandbox(part) => sandbox::allowed(part),
            Self::Signals(_) => names::<SignalReach>(),
            Self::Paths(_) => "a list of absolute paths".to_owned(),
            Self::Patterns(_) => "a list of names, each with or without a * at its end,".to_owned(),
            Self::Words(_) => "a program, by its name or its absolute path, and its arguments, as a list,".to_owned(),
            Self::Variables(_) => "a mapping of names to texts".to_owned(),
            Self::Limits(_) => format!("a mapping of names to numbers from 1 to {}", GroupWish::LIMIT_MAX),
            Self::File(_) => "a path or none".to_owned(),
            Self::Name(_) => format!("1 to {NAME_MAX} letters, digits, '-', '_' or '.'"),
            Self::Listen(_) => "a loopback address, 127.0.0.1:PORT or [::1]:PORT, or none".to_owned(),
            Self::Program(_) => "a program, by its name or its absolute path,".to_owned(),
            Self::Word(_) => Docker::NAME.to_owned(),
            Self::OptionalWord(_) => format!("{}, or none,", Docker::NAME),
            Self::Pull(_) => names::<Pull>(),
            Self::Mounts(_) => "a list of /SOURCE[:/TARGET][:ro], without '..', commas and quotes,".to_owned(),
            Self::Arguments(_) => format!("a list, each {}", Docker::ARGUMENT),
            Self::Fallback(_) => names::<Fallback>(),
        }
    }

    /// The value in `config`, as it would be written.
    fn show(&self, config: &mut Config) -> String {
        fn or_none<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(|| "none".to_owned(), |value| value.to_string())
        }
        match self {
            Self::Count(place, ..) => place(config).to_string(),
            Self::OptionalCount(place, ..) => or_none(*place(config)),
            Self::Amount(place, ..) => place(config).to_string(),
            Self::OptionalAmount(place, ..) => or_none(*place(config)),
            Self::Millis(place, ..) => place(config).as_millis().to_string(),
            Self::Seconds(place, ..) => place(config).as_secs().to_string(),
            Self::OptionalSeconds(place, ..) => or_none(place(config).map(|time| time.as_secs())),
            Self::OptionalDays(place, ..) => or_none(place(config).map(|time| time.as_secs() / DAY_S)),
            Self::Real(place, ..) => place(config).to_string(),
            Self::OptionalReal(place, ..) => or_none(*place(config)),
            Self::Codes(place) => {
                let codes: Vec<String> = place(config).iter().map(|code| code.to_string()).collect();
                format!("[{}]", codes.join(", "))
            }
            Self::Octal(place) => format!("{:03o}", place(config)),
            Self::Flag(place) => place(config).name().to_owned(),
            Self::Switch(place) => place(config).name().to_owned(),
            Self::Modes(place) => place(config).to_string(),
            Self::Action(place) => place(config).name().to_owned(),
            Self::Method(place) => Named::name(*place(config)).to_owned(),
            Self::Cleanup(place) => place(config).name().to_owned(),
            Self::Level(place) => place(config).name().to_owned(),
            Self::Sandbox(part) => sandbox::show(part, &config.workers.sandbox.default),
            Self::Signals(place) => place(config).name().to_owned(),
            Self::Paths(place) => {
                let paths: Vec<_> = place(config).iter().map(|path| path.display().to_string()).collect();
                format!("[{}]", paths.join(", "))
            }
            Self::Patterns(place) | Self::Words(place) | Self::Arguments(place) => {
                format!("[{}]", place(config).join(", "))
            }
            Self::Variables(_) | Self::Limits(_) => "{}".to_owned(),
            Self::File(place) => or_none(place(config).as_ref().map(|path| path.display())),
            Self::Name(place) | Self::Program(place) | Self::Word(place) => place(config).clone(),
            Self::Listen(place) => or_none(*place(config)),
            Self::OptionalWord(place) => or_none(place(config).clone()),
            Self::Pull(place) => Named::name(*place(config)).to_owned(),
            Self::Mounts(place) => {
                let mounts: Vec<_> = place(config).iter().map(ToString::to_string).collect();
                format!("[{}]", mounts.join(", "))
            }
            Self::Fallback(place) => place(config).name().to_owned(),
        }
    }
}

fn range(low: u64, high: u64) -> String {
    if high == u64::MAX { format!("{low} or more") } else { format!("{low} to {high}") }
}

fn names<T: Named>() -> String {
    let names: Vec<_> = T::NAMES.iter().map(|(name, _)| *name).collect();
    names.join(" or ")
}
