//! Why a container is not asked for: what a task says, or the pool, that must not or cannot be.

/// Why there is no command line for a task. The words are for people, and name the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody names an image.
    #[error("there is no image: name one by docker.image in the configuration, or for the task by --image")]
    NoImage,
    /// The image, or a name beside it, would be taken for an option.
    #[error("{what} '{text}' is not a name")]
    NotAName {
        /// What it is, by its configuration key.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// A path cannot be written on a command line as text.
    #[error("the path {0} is not UTF-8, so the docker client cannot be told of it")]
    NotText(String),
    /// A mount's source cannot be looked at.
    #[error("cannot mount '{path}': {why}")]
    NoSource {
        /// The source.
        path: String,
        /// The kernel's word.
        why: String,
    },
    /// A task's mount lies outside of what the pool allows.
    #[error("the mount '{path}' is not allowed{resolved}: it must lie within one of docker.allowedMounts")]
    MountOutside {
        /// The source, as the task names it.
        path: String,
        /// What it is once links are followed, if that is something else.
        resolved: String,
    },
    /// A task's mount would show what nobody means to show.
    #[error("the mount '{path}' is not allowed: it would show {what} (docker.allowedMounts must name that itself)")]
    MountProtected {
        /// The source, as the task names it.
        path: String,
        /// What it would show.
        what: String,
    },
    /// What would run before the action.
    #[error("an action has no docker.entrypoint: what the container runs is the action itself")]
    EntrypointOfAction,
    /// Two mounts have the same place in the container.
    #[error("two mounts have the same target '{0}'")]
    MountTwice(String),
    /// A further argument does not stand for itself.
    #[error("the docker argument '{0}' is not of the form --NAME or --NAME=VALUE")]
    ArgumentForm(String),
    /// A task's further argument is none that the pool allows.
    #[error("the docker argument '{0}' is not allowed: docker.allowedArgs has no such one")]
    ArgumentOutside(String),
    /// A further argument that acode must give itself, or that must not be given.
    #[error("the docker argument '{0}' cannot be given: acode finds and removes its containers by what it sets there")]
    ArgumentReserved(String),
    /// A further argument for which there is another way.
    #[error("the docker argument '{argument}' cannot be given: use {key} instead")]
    ArgumentHasKey {
        /// The argument.
        argument: String,
        /// The configuration key, or the field of a task.
        key: &'static str,
    },
    /// Containers know no such rlimit.
    #[error("rlimits.addressSpaceBytes cannot be held in a container: use limits.memoryMb instead")]
    AddressSpace,
    /// A variable whose value does not fit into a file, and whose name would mean something to the client.
    #[error(
        "the variable {name} cannot be given to a container: its value {value}, so it would have to pass through the \
         docker client, to which this name means something"
    )]
    Variable {
        /// Its name.
        name: String,
        /// What is the matter with its value.
        value: &'static str,
    },
    /// A variable longer than any program can be given.
    #[error("the variable {0} is longer than the 128 KiB that a program can be given")]
    VariableLength(String),
}
