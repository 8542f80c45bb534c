//! What is said at the end of a container's standard error by others than the task: the client, and the init in the
//! container that starts the task's program.
//!
//! Deliberately absent: belief. A task can say the same; what is said counts only where its container never ran, or where
//! the exit code says the same.

/// The most letters that are kept.
const LENGTH_MAX: usize = 400;
/// By what the client begins.
const CLIENT_HEADS: [&str; 3] = ["docker: ", "Error: ", "Error response from daemon: "];
/// What it says to people at a terminal behind that.
const CLIENT_TAILS: [&str; 2] = ["See 'docker run --help'", "Run 'docker run --help'"];
/// What it says beside that, in its log's form: `time="..." level=error msg="..."`.
const LOGGED: &str = " level=error msg=\"";
/// By what the inits of docker (tini) and podman (catatonit) begin when they cannot go on; a `]` or `)` ends the head.
const INIT_HEADS: [(&str, &str); 2] = [("[FATAL tini (", ")] "), ("ERROR (catatonit:", "): ")];

/// Whose words they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speaker {
    /// Nobody's but the task's.
    #[default]
    Nobody,
    /// The client's, or the engine's through it.
    Client,
    /// The init's in the container.
    Init,
}

/// The last complaint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// Whose it is.
    pub speaker: Speaker,
    /// What it says, in one line; empty if nobody does.
    pub text: String,
}

impl Words {
    /// Finds them in standard error, of which the last few KiB are enough.
    pub fn of(stderr: &str) -> Self {
        let mut words = Self::default();
        for line in stderr.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some((speaker, text)) = complaint(line) {
                words = Self { speaker, text: text.to_owned() };
            } else if CLIENT_TAILS.iter().any(|tail| line.starts_with(tail)) {
                continue;
            } else {
                match words.speaker {
                    // The engine's complaints may have several lines.
                    Speaker::Client => {
                        words.text.push(' ');
                        words.text.push_str(line);
                    }
                    // Behind the init's there is nothing any more, unless the task has made them up.
                    Speaker::Init => words = Self::default(),
                    Speaker::Nobody => {}
                }
            }
        }
        if let Some((at, _)) = words.text.char_indices().nth(LENGTH_MAX) {
            words.text.truncate(at);
        }
        words
    }
}

fn complaint(line: &str) -> Option<(Speaker, &str)> {
    for (head, end) in INIT_HEADS {
        if let Some((_, text)) = line.strip_prefix(head).and_then(|rest| rest.split_once(end)) {
            return Some((Speaker::Init, text));
        }
    }
    if let Some((_, text)) = line.split_once(LOGGED).filter(|(head, _)| head.starts_with("time=")) {
        return Some((Speaker::Client, text.trim_end_matches('"')));
    }
    let mut text = line;
    // One may stand behind the other.
    while let Some(rest) = CLIENT_HEADS.iter().find_map(|head| text.strip_prefix(head)) {
        text = rest;
    }
    (text.len() < line.len()).then_some((Speaker::Client, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stderr: &str) -> (Speaker, String) {
        let words = Words::of(stderr);
        (words.speaker, words.text)
    }

    fn by(speaker: Speaker, text: &str) -> (Speaker, String) {
        (speaker, text.to_owned())
    }

    #[test]
    fn the_client_is_heard_without_what_it_says_to_people() {
        let said = "docker: Error response from daemon: No such image: nope:1\n\nRun 'docker run --help' for more information\n";
        assert_eq!(of(said), by(Speaker::Client, "No such image: nope:1"));
        let said = "time=\"2026-11-21T18:25:27Z\" level=error msg=\"error waiting for container: unexpected EOF\"\n";
        assert_eq!(of(said), by(Speaker::Client, "error waiting for container: unexpected EOF"));
        let said = "Error: short-name \"x\" did not resolve\nto anything\n";
        assert_eq!(of(said), by(Speaker::Client, "short-name \"x\" did not resolve to anything"));
    }

    #[test]
    fn the_init_is_heard_only_if_it_has_the_last_word() {
        let said = "[FATAL tini (7)] exec /bin/nope failed: No such file or directory\n";
        assert_eq!(of(said), by(Speaker::Init, "exec /bin/nope failed: No such file or directory"));
        assert_eq!(of(&format!("{said}and on it goes\n")), by(Speaker::Nobody, ""));
        let said = "ERROR (catatonit:2): failed to exec pid1: No such file or directory";
        assert_eq!(of(said), by(Speaker::Init, "failed to exec pid1: No such file or directory"));
    }

    #[test]
    fn the_task_is_nobody_and_long_words_are_cut() {
        assert_eq!(of("sh: nope: not found\n"), by(Speaker::Nobody, ""));
        assert_eq!(of(""), by(Speaker::Nobody, ""));
        assert_eq!(of(&format!("docker: {}", "\u{e4}".repeat(500))).1.chars().count(), LENGTH_MAX);
    }
}
