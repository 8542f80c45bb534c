//! The options about how a task is kept apart and about its container, and what they come to.
//!
//! Deliberately absent: what a pool allows in mounts and arguments, which is known where the container is made.

use acode_worker::task::{Class, Docker, Isolation, Pull};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::CliError;
use crate::config::Named;
use crate::taskfile::parse_mount;

/// Where a task runs. Any of them but `--isolation process` asks for a container.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct ContainerOptions {
    /// How it is kept apart [default: as the pool does it; docker with one of the options below]
    #[arg(long, value_name = "HOW", value_parser = isolation_parser())]
    pub isolation: Option<Isolation>,
    /// The image of its container [default: docker.image]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// What runs in the place of the image's entry point; '' for the command itself
    #[arg(long, value_name = "PROG")]
    pub entrypoint: Option<String>,
    /// Let its container see this directory or file, within docker.allowedMounts; may be given several times
    #[arg(long, value_name = "SOURCE[:/TARGET][:ro]")]
    pub mount: Vec<String>,
    /// The network of its container, as in none or bridge [default: docker.network]
    #[arg(long, value_name = "NET")]
    pub network: Option<String>,
    /// The platform of an image that has several, as in linux/amd64
    #[arg(long, value_name = "P")]
    pub platform: Option<String>,
    /// The user in its container [default: docker.user, else the pool's]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub container_user: Option<String>,
    /// When the image is pulled [default: docker.pull]
    #[arg(long, value_name = "WHEN", value_parser = pull_parser())]
    pub pull: Option<Pull>,
    /// A further option of docker run with its value behind a =, within docker.allowedArgs; may be given several times
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub docker_arg: Vec<String>,
}

impl ContainerOptions {
    /// Whether the task asks for a container.
    pub fn asks_for_container(&self) -> bool {
        self.isolation == Some(Isolation::Docker) || self.first_given().is_some()
    }

    /// Which workers may take it.
    pub fn class(&self) -> Class {
        match self.isolation {
            _ if self.asks_for_container() => Class::Docker,
            Some(Isolation::Process) => Class::Process,
            Some(Isolation::Docker | Isolation::None | Isolation::Library) | None => Class::Any,
        }
    }

    /// What is said about its container, if anything is.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn docker(&self) -> Result<Option<Docker>, CliError> {
        let Some(given) = self.first_given() else { return Ok(None) };
        if let Some(other) = self.isolation.filter(|isolation| *isolation != Isolation::Docker) {
            let words =
                format!("{given} is about a container, and --isolation {other} asks for none: leave one of them out");
            return Err(CliError::Usage(words));
        }
        let here = std::env::current_dir()
            .map_err(|source| CliError::File { doing: "find the current directory".into(), source })?;
        let mount = |text: &String| {
            parse_mount(text, &here).map_err(|error| CliError::Usage(format!("--mount {text}: {error}")))
        };
        Ok(Some(Docker {
            image: self.image.clone(),
            entrypoint: self.entrypoint.clone(),
            network: self.network.clone(),
            platform: self.platform.clone(),
            user: self.container_user.clone(),
            pull: self.pull,
            mounts: self.mount.iter().map(mount).collect::<Result<_, _>>()?,
            args: self.docker_arg.clone(),
        }))
    }

    /// The first option about a container that was given.
    fn first_given(&self) -> Option<&'static str> {
        let options = [
            ("--image", self.image.is_some()),
            ("--entrypoint", self.entrypoint.is_some()),
            ("--mount", !self.mount.is_empty()),
            ("--network", self.network.is_some()),
            ("--platform", self.platform.is_some()),
            ("--container-user", self.container_user.is_some()),
            ("--pull", self.pull.is_some()),
            ("--docker-arg", !self.docker_arg.is_empty()),
        ];
        options.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }
}

fn isolation_parser() -> impl TypedValueParser<Value = Isolation> {
    PossibleValuesParser::new(Isolation::ALL.map(Isolation::name))
        .map(|name| Isolation::from_name(&name).unwrap_or_default())
}

fn pull_parser() -> impl TypedValueParser<Value = Pull> {
    PossibleValuesParser::new(Pull::ALL.map(Pull::name)).map(|name| Named::from_name(&name).unwrap_or_default())
}
