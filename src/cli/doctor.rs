//! `acode doctor`: what this host offers, and what acode makes of it.

use acode_worker::task::{HeldLimit, Hold};

use super::args::DoctorArgs;
use super::render::{Align, Out, Table};
use super::{CliError, Context, Exit};
use crate::config::{self, Overrides};
use crate::doctor::{self, Health, Host, Report};

/// Looks, and says what it has found. Nothing is changed.
///
/// # Errors
/// The configuration is wrong.
pub fn run(context: &Context, args: &DoctorArgs) -> Result<Exit, CliError> {
    let config = config::load(args.config.as_deref(), &context.vars, &Overrides::default())?.config;
    let report = doctor::examine(&Host::new(&config, &context.dirs));
    let mut out = Out::new();
    if context.json {
        out.answer(&report)?;
    } else {
        out.line(text(&report))?;
    }
    out.finish()?;
    Ok(if report.healthy { Exit::Done } else { Exit::Failed })
}

fn text(report: &Report) -> String {
    let mut table = Table::new([("CHECK", Align::Left), ("VERDICT", Align::Left), ("FOUND", Align::Left)]);
    for finding in &report.checks {
        table.row([finding.check.to_owned(), finding.verdict.name().to_owned(), finding.found.clone()]);
    }
    let mut text = table.to_string();
    if !report.limits.is_empty() {
        text.push_str(&format!("\n\n{}", limits(&report.limits)));
    }
    for finding in report.checks.iter().filter(|finding| finding.verdict != Health::Ok) {
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!(
                "\n\n{} ({}): {}\n  {remedy}",
                finding.check,
                finding.verdict.name(),
                finding.found
            ));
        }
    }
    let unheld: Vec<&str> =
        report.limits.iter().filter(|held| held.hold == Hold::None).map(|held| held.limit.as_str()).collect();
    if !unheld.is_empty() {
        let keys = unheld.join(", ");
        text.push_str(&format!("\n\nworkers.limits: nothing holds {keys} here\n  remove them, or see 'controllers'"));
    }
    let end =
        if report.healthy { "All that is asked for can be had." } else { "Not all that is asked for can be had." };
    format!("{text}\n\n{end}")
}

/// How limits are held, or were.
pub fn limits(limits: &[HeldLimit]) -> Table {
    let mut table =
        Table::new([("LIMIT", Align::Left), ("VALUE", Align::Right), ("HELD", Align::Left), ("BY", Align::Left)]);
    for held in limits {
        let hold = match held.hold {
            Hold::Enforced => "enforced",
            Hold::Observed => "observed",
            Hold::None => "none",
        };
        let by = if held.exceeded { format!("{}, exceeded", held.by) } else { held.by.clone() };
        table.row([held.limit.clone(), held.value.to_string(), hold.to_owned(), by]);
    }
    table
}
