//! Paths of programs: whether anybody could say where one begins.
//!
//! Whoever writes a specification for a person makes them absolute. Deliberately absent: whether they are there, which is seen
//! where they are executed.

use super::{Class, SpecError, TaskSpec};

impl TaskSpec {
    /// Checks that each program is a name, or a path from a place that is known: the root, the working directory that is named, a
    /// worktree, or what is in a container.
    ///
    /// # Errors
    /// The first that begins in the scratch directory, where nothing is.
    pub(super) fn validate_programs(&self) -> Result<(), SpecError> {
        let is_inside = self.class() == Class::Docker || self.worktree.is_some();
        let own = self.action.as_ref().and_then(|action| action.program.first());
        let programs = [
            ("command", self.command.first(), self.cwd.is_some() || is_inside),
            // It serves many tasks, of which a worktree is one's own.
            ("action.program", own, self.cwd.is_some()),
            // A hook has a directory of its own.
            ("onFinish", self.on_finish.first(), false),
        ];
        for (field, program, has_place) in programs {
            if let Some(path) = program.filter(|path| !has_place && is_adrift(path)) {
                return Err(SpecError::RelativePath { field, path: path.clone() });
            }
        }
        Ok(())
    }
}

/// Whether a text is a relative path. What begins with an array's item is known for its members alone.
fn is_adrift(program: &str) -> bool {
    program.contains('/') && !["/", "{item}", "{dir}"].iter().any(|beginning| program.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_program_needs_a_place_to_begin_at() {
        let spec = |json: &str| serde_json::from_str::<TaskSpec>(json).unwrap().validate();
        for fine in [
            r#"{"command":["ls"]}"#,
            r#"{"command":["{item}/run"]}"#,
            r#"{"command":["./x"],"cwd":"/srv"}"#,
            r#"{"command":["./x"],"isolation":"docker"}"#,
        ] {
            assert_eq!(spec(fine), Ok(()), "{fine}");
        }
        for adrift in [
            r#"{"command":["./x"]}"#,
            r#"{"command":["ls"],"cwd":"/srv","onFinish":["bin/x"]}"#,
            r#"{"action":{"type":"custom","program":["../x"]}}"#,
        ] {
            assert!(matches!(spec(adrift), Err(SpecError::RelativePath { .. })), "{adrift}");
        }
    }
}
