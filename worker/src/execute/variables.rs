//! The variables that only acode gives to a task or a worker program, and that nobody else can therefore set.
//!
//! They are given by [`Own::give`] alone, so that none can be given that is not reserved. Deliberately absent: who gets which, and
//! `ACODE_HOOK_*`, which are a hook's own variables like those that anybody gives a task.

use crate::actions::child::{PARAMS, ROLE};
use crate::actions::protocol::PROTOCOL_VARIABLE;
use crate::sys::spawn::CStringArray;

/// The beginning of the variables that hold a task's metadata.
const META: &str = "ACODE_META_";

/// Makes the enum, and the list of all that there are, out of one table.
macro_rules! own {
    ($($(#[$doc:meta])* $variant:ident = $name:expr,)+) => {
        /// One of acode's own variables.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Own {
            $($(#[$doc])* $variant,)+
        }

        impl Own {
            const ALL: &[Self] = &[$(Self::$variant),+];

            const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

own! {
    /// The task's id.
    TaskId = "ACODE_TASK_ID",
    /// The number of the attempt.
    Attempt = "ACODE_ATTEMPT",
    /// The worker's id.
    WorkerId = "ACODE_WORKER_ID",
    /// The worker's slot number.
    WorkerSlot = "ACODE_WORKER_SLOT",
    /// The scratch directory; of all processes, what a pool that died is known by.
    Scratch = "ACODE_SCRATCH",
    /// The FIFO that takes progress.
    Progress = "ACODE_PROGRESS",
    /// The file for the result.
    Result = "ACODE_RESULT",
    /// The file for the error.
    Error = "ACODE_ERROR",
    /// The checkpoint directory.
    Checkpoint = "ACODE_CHECKPOINT",
    /// The git worktree.
    Worktree = "ACODE_WORKTREE",
    /// The commit that the worktree is of.
    Commit = "ACODE_COMMIT",
    /// The file with a typed task's parameters.
    Params = PARAMS,
    /// What this program is to be, where it is started again.
    Role = ROLE,
    /// The version of a worker program's protocol.
    Protocol = PROTOCOL_VARIABLE,
}

impl Own {
    /// Adds the variable with this value.
    pub fn give(self, value: &[u8], envp: &mut CStringArray) {
        envp.push(&[self.name().as_bytes(), b"=", value]);
    }
}

/// Adds one of the submitter's own facts.
pub fn give_meta(key: &str, value: &str, envp: &mut CStringArray) {
    envp.push(&[META.as_bytes(), meta_name(key).as_bytes(), b"=", value.as_bytes()]);
}

/// Names that only acode gives.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(META) || Own::ALL.iter().any(|own| own.name() == name)
}

/// A metadata key as part of a variable's name: upper case, and `_` for all that is not a letter or digit.
fn meta_name(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_keys_become_variable_names() {
        assert_eq!(meta_name("user-id.x"), "USER_ID_X");
    }

    #[test]
    fn acodes_own_names_cannot_be_forged() {
        assert!(Own::ALL.iter().all(|own| own.name().starts_with("ACODE_") && is_reserved(own.name())));
        assert!(is_reserved("ACODE_META_X") && is_reserved("ACODE_PROTOCOL"));
        assert!(!is_reserved("ACODE_STATE_DIR") && !is_reserved("PATH") && !is_reserved("ACODE_HOOK_TASK"));
    }
}
