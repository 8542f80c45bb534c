//! The variables of a container: as the text of a file, so that no value stands on a command line, where everybody sees it.
//!
//! The format of `--env-file` has no quotes: a value is the rest of its line. What does not fit goes through the client's
//! own environment by `--env=NAME`, unless the name would mean something to the client. Deliberately absent: acode's own
//! variables, which are the same in every isolation.

use super::name::Client;
use super::refused::Refused;
use crate::task::Env;

/// The longest line of the file, in bytes: the client reads lines of less than 64 KiB.
const LINE_MAX: usize = 60 * 1024;
/// The longest variable that a program can be given, in bytes, with its name and its end (MAX_ARG_STRLEN).
const VARIABLE_MAX: usize = 128 * 1024;

/// Variables that say where things are on the host, and who is logged in there: they mean nothing in a container.
const HOST_NAMES: [&str; 20] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "MAIL",
    "PWD",
    "OLDPWD",
    "TMPDIR",
    "TMP",
    "TEMP",
    "HOSTNAME",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "SSH_AUTH_SOCK",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
];
/// Beginnings of such names.
const HOST_BEGINNINGS: [&str; 5] = ["XDG_", "LD_", "DOCKER_", "CONTAINER_", "SYSTEMD_"];

/// Names that mean something to the client, to the library below it, or to the helpers that it runs.
const CLIENT_NAMES: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "FTP_PROXY",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "HOSTALIASES",
    "NOTIFY_SOCKET",
    "REGISTRY_AUTH_FILE",
    "KUBECONFIG",
    "TZDIR",
];
/// Beginnings of such names.
const CLIENT_BEGINNINGS: [&str; 24] = [
    "DOCKER_",
    "CONTAINER_",
    "CONTAINERS_",
    "PODMAN_",
    "BUILDAH_",
    "BUILDKIT_",
    "COMPOSE_",
    "STORAGE_",
    "CNI_",
    "NETAVARK_",
    "XDG_",
    "LD_",
    "GO",
    "CGO_",
    "GLIBC_",
    "MALLOC_",
    "SSL_",
    "SSH_",
    "GPG",
    "OTEL_",
    "MOBY_",
    "LISTEN_",
    "KRB5_",
    "_CONTAINERS_",
];

/// What a container gets of the pool's allow-listed environment: all but what describes the host. A task's own variables
/// are not asked; those it means for where it runs, so `--env PATH=...` says what the path is inside. Locale and time zone
/// stay as they are: they are about people and not about places.
pub fn pool_variables(pool: &Env) -> Env {
    let is_of_host =
        |name: &str| HOST_NAMES.contains(&name) || HOST_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    pool.iter().filter(|(name, _)| !is_of_host(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The variables of one container, divided by the way that they go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    /// The text of the file.
    text: String,
    /// What goes through the client's environment.
    passed: Env,
}

impl Variables {
    /// Divides variables, given as `NAME=VALUE`. Of two with one name the last counts. `client_environment` is what the
    /// client needs itself.
    ///
    /// # Errors
    /// One that can go neither way.
    pub fn of<'v>(
        variables: impl IntoIterator<Item = &'v str>,
        client: Client,
        client_environment: &Env,
    ) -> Result<Self, Refused> {
        let pairs: Env = variables
            .into_iter()
            .filter_map(|variable| variable.split_once('='))
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut all = Self::default();
        for (name, value) in pairs {
            if name.len() + value.len() + 2 > VARIABLE_MAX {
                return Err(Refused::VariableLength(name));
            }
            match why_not_in_file(&name, &value, client) {
                None => {
                    all.text.push_str(&name);
                    all.text.push('=');
                    all.text.push_str(&value);
                    all.text.push('\n');
                }
                Some(why) if means_something(&name) || client_environment.contains_key(&name) => {
                    return Err(Refused::Variable { name, value: why });
                }
                Some(_) => {
                    all.passed.insert(name, value);
                }
            }
        }
        Ok(all)
    }

    /// The text of the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names that go by `--env=NAME`.
    pub fn passed(&self) -> impl Iterator<Item = &str> {
        self.passed.keys().map(String::as_str)
    }

    /// The environment of the client: its own, and what passes through it.
    pub fn client_environment(&self, own: &Env) -> Env {
        let mut all = self.passed.clone();
        all.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    }
}

/// Why a variable cannot stand in the file, as the end of a sentence on its value; nothing if it can.
fn why_not_in_file(name: &str, value: &str, client: Client) -> Option<&'static str> {
    // The client drops blanks before a name and refuses them within it, and takes a `#` there for a comment.
    if name.contains(|c: char| c.is_whitespace() || c.is_control()) || name.starts_with(['#', '\u{feff}']) {
        return Some("has a name that cannot stand in a file");
    }
    if value.contains(['\n', '\r']) {
        return Some("has several lines");
    }
    if name.len() + value.len() + 1 > LINE_MAX {
        return Some("is very long");
    }
    // Some versions of podman take quotes off, and read on until the closing one.
    if client == Client::Podman && value.starts_with(['"', '\'', '`']) {
        return Some("begins with a quote");
    }
    None
}

fn means_something(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    CLIENT_NAMES.contains(&upper.as_str()) || CLIENT_BEGINNINGS.iter().any(|beginning| upper.starts_with(beginning))
}

#[cfg(test)]
mod tests {

    use super::*;

    fn divide(variables: &[&str], client: Client) -> Result<Variables, Refused> {
        let own = Env::from([("MINE".to_owned(), "1".to_owned())]);
        Variables::of(variables.iter().copied(), client, &own)
    }

    #[test]
    fn a_value_is_the_rest_of_its_line() {
        let all =
            divide(&["B= x=\"1\" # no comment ", "A=", "B2=\t", "a.b-c=ä", "=x", "none"], Client::Docker).unwrap();
        assert_eq!(all.text(), "A=\nB= x=\"1\" # no comment \nB2=\t\na.b-c=ä\n");
        assert_eq!(all.passed().count(), 0);
    }

    #[test]
    fn of_two_with_one_name_the_last_counts() {
        assert_eq!(divide(&["A=1", "A=2"], Client::Docker).unwrap().text(), "A=2\n");
    }

    #[test]
    fn what_does_not_fit_into_a_line_passes_through_the_client() {
        let long = format!("LONG={}", "x".repeat(LINE_MAX));
        let list = ["TWO=a\nb", "CR=a\r", "#HASH=1", "A B=1", " LEAD=1", long.as_str(), "PLAIN=1"];
        let all = divide(&list, Client::Docker).unwrap();
        assert_eq!(all.text(), "PLAIN=1\n");
        assert_eq!(all.passed().collect::<Vec<_>>(), [" LEAD", "#HASH", "A B", "CR", "LONG", "TWO"]);
        let own = Env::from([("PATH".to_owned(), "/bin".to_owned())]);
        let client = all.client_environment(&own);
        assert_eq!((client["TWO"].as_str(), client["PATH"].as_str(), client.len()), ("a\nb", "/bin", 7));
    }

    #[test]
    fn podman_reads_quotes_so_they_pass_through_it() {
        assert_eq!(divide(&["Q=\"x"], Client::Docker).unwrap().passed().count(), 0);
        assert_eq!(divide(&["Q=\"x"], Client::Podman).unwrap().passed().collect::<Vec<_>>(), ["Q"]);
    }

    #[test]
    fn nothing_passes_through_the_client_that_it_would_heed() {
        for name in ["DOCKER_HOST", "CONTAINER_HOST", "HOME", "PATH", "LD_PRELOAD", "http_proxy", "GODEBUG", "MINE"] {
            let many = format!("{name}=a\nb");
            assert!(matches!(divide(&[&many], Client::Docker), Err(Refused::Variable { .. })), "{name}");
            let one = format!("{name}=a");
            assert!(divide(&[&one], Client::Docker).is_ok(), "{name} in one line is nobody's business");
        }
        let error = divide(&["LD_PRELOAD=a\nb"], Client::Docker).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"the variable LD_PRELOAD cannot be given to a container: its value has several lines, so it would have to pass through the docker client, to which this name means something");
    }

    #[test]
    fn a_variable_that_no_program_can_be_given_is_refused() {
        let huge = format!("HUGE={}", "x".repeat(VARIABLE_MAX));
        assert_eq!(divide(&[&huge], Client::Docker), Err(Refused::VariableLength("HUGE".to_owned())));
    }

    #[test]
    fn the_hosts_own_places_stay_on_the_host() {
        let names = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "API_URL", "TMPDIR"];
        let pool = names.map(|name| (name.to_owned(), "x".to_owned())).into_iter().collect();
        let kept = pool_variables(&pool);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["API_URL", "LANG", "LC_ALL", "TZ"]);
    }
}
