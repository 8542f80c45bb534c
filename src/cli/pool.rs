//! `acode worker start`: this process becomes a supervisor, or makes one.

use acode_worker::task::Isolation;

use super::args::StartArgs;
use super::render::{Out, plain};
use super::{CliError, Context, Exit, engine};
use crate::api::{ApiError, role};
use crate::config::{self, Config, Overrides};
use crate::supervisor::{self, Launch, Started, Up};

/// Starts the pool. In the foreground it returns when the pool has stopped.
///
/// # Errors
/// The configuration is wrong, the state directory is held, or the pool cannot start.
pub fn start(context: &Context, args: &StartArgs) -> Result<Exit, CliError> {
    let launch = launch(context, args)?;
    tell_missing_image(&launch.config);
    let modes = launch.config.workers.mode.clone();
    let (name, json) = (launch.config.pool.name.clone(), context.json);
    if !args.detach {
        supervisor::serve(launch, |up| {
            announce(&name, up.pid, json);
            tell_pause(&up);
        })?;
        return Ok(Exit::Done);
    }
    let started = supervisor::detach(|ready| {
        let served = supervisor::serve(launch, |up| {
            // Said while the terminal is still ours.
            tell_pause(&up);
            ready(up.pid);
        });
        served.map_or_else(|error| CliError::from(error).tell(), |()| 0)
    });
    match started.map_err(ApiError::Process)? {
        Started::Up(pool) => {
            announce(&name, pool.pid, json);
            engine::tell_absence(context, &modes);
            Ok(Exit::Done)
        }
        Started::Ended(code) => Err(CliError::Told(code)),
    }
}

fn launch(context: &Context, args: &StartArgs) -> Result<Launch, CliError> {
    let overrides = Overrides {
        count: args.count,
        min_count: args.min,
        max_count: args.max,
        mode: args.mode.clone(),
        pool: args.pool.clone(),
        ..Overrides::default()
    };
    let config = config::load(args.config.as_deref(), &context.vars, &overrides)?.config;
    let (file, vars) = (args.config.clone(), context.vars.clone());
    let reload = Box::new(move || Ok(config::load(file.as_deref(), &vars, &overrides)?.config));
    Ok(Launch {
        dirs: context.dirs.clone(),
        config,
        reload,
        lifeline: None,
        actions: role::registry(),
        log_to_file: args.detach,
    })
}

/// Says that docker workers have no image for tasks that name none: it may be meant so.
fn tell_missing_image(config: &Config) {
    if config.workers.mode.has(Isolation::Docker) && config.docker.image.is_none() {
        eprintln!("acode: there is no docker.image: in a container run only tasks that name an image themselves");
    }
}

/// Says that no task will be started for now, which would be a riddle otherwise.
fn tell_pause(up: &Up) {
    if let Some(why) = &up.paused {
        eprintln!("acode: the pool is still paused {}: no task is started", plain(why));
        eprintln!("       end that with: acode worker resume");
    }
}

/// Says that the pool accepts work.
fn announce(name: &str, pid: u32, json: bool) {
    if !json {
        eprintln!("acode: pool '{name}' is up (process {pid})");
        return;
    }
    let mut out = Out::new();
    // A pool does not depend on anybody reading this.
    let _ = out.answer(&serde_json::json!({ "pool": name, "pid": pid })).and_then(|()| out.finish());
}
