//! Sandboxes, with real processes that try to get out: as root, as a plain user, and as one without namespaces.
//!
//! Each attempt is made by a shell task that says what it could do and should not have been able to. Deliberately
//! absent: what a sandbox does not promise, which is in the manual.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use acode::wire::types::TaskRecord;
use acode_worker::sys::confine::landlock;
use acode_worker::task::{Sandbox, TaskSpec, TaskState};
use common::{Options, Pool, shell, wait_until};

/// The user of pools that are not root's.
const USER: u32 = 65534;
/// Beginning of every script: `no WHAT` fails the task unless the last command failed, `yes WHAT` if it did.
const TELL: &str = r#"
fail() { echo "$1" > "$ACODE_ERROR"; exit 9; }
no() { if [ $? -eq 0 ]; then fail "possible: $1"; fi; }
yes() { if [ $? -ne 0 ]; then fail "impossible: $1"; fi; }
"#;

/// What a pool finds on its host.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Host {
    Root,
    User,
    /// Neither root nor user namespaces: Landlock and seccomp have to do.
    NoNamespaces,
}

impl Host {
    fn options(self) -> Options {
        let base = Options::workers(2);
        match self {
            Self::Root => base,
            Self::User => base.of_user(USER),
            Self::NoNamespaces => base.of_user(USER).var("ACODE_FAILPOINTS", "worker.sandbox-means@1"),
        }
    }

    fn may_mount(self) -> bool {
        self != Self::NoNamespaces
    }
}

/// Runs a test on every host that can be had here.
fn on_hosts(test: impl Fn(Host)) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: neither pools of root nor of another user are tried");
        return;
    }
    test(Host::Root);
    if user_namespaces() {
        test(Host::User);
    } else {
        eprintln!("a plain user gets no user namespace here: not tried");
    }
    if landlock::abi() >= landlock::ABI_FILES {
        test(Host::NoNamespaces);
    } else {
        eprintln!("Landlock has ABI {} here: sandboxes without namespaces are not tried", landlock::abi());
    }
}

fn user_namespaces() -> bool {
    let user = format!("--reuid={USER}");
    let tried =
        std::process::Command::new("setpriv").args([&user, "--clear-groups", "unshare", "-Ur", "true"]).status();
    tried.is_ok_and(|status| status.success())
}

fn boxed(sandbox: &str, script: &str, arguments: &[&str]) -> TaskSpec {
    let sandbox: Option<Sandbox> = (!sandbox.is_empty()).then(|| sandbox.parse().unwrap());
    TaskSpec { sandbox, ..shell(&format!("{TELL}\n{script}"), arguments) }
}

/// Runs a script in a sandbox and expects that it ends well.
#[track_caller]
fn passes(pool: &Pool, sandbox: &str, script: &str, arguments: &[&str]) -> TaskRecord {
    let record = pool.wait(pool.submit_spec(boxed(sandbox, script, arguments)));
    assert_eq!(record.state, TaskState::Completed, "{sandbox}: {:?} {:?}", record.error, record.verdict);
    record
}

/// Runs something in a sandbox and expects that it is refused, with these words.
#[track_caller]
fn refused(pool: &Pool, spec: TaskSpec, words: &str) {
    let record = pool.wait(pool.submit_spec(spec));
    assert_eq!(record.state, TaskState::Failed, "{record:?}");
    let told = serde_json::to_string(&record).unwrap();
    assert!(told.contains("not-started") && told.contains(words), "{words}: {told}");
}

/// Nothing of a sandbox is mounted where others see it.
#[track_caller]
fn nothing_is_mounted(pool: &Pool) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(pool.state_dir().to_str().unwrap()), "{mounts}");
}

const CONNECT: &str = r#"perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ARGV[0]")'"#;

#[test]
fn without_a_network_there_is_nothing_but_an_own_loopback() {
    on_hosts(|host| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let pool = Pool::start(host.options());
        passes(&pool, "", &format!("{CONNECT} $1; yes 'reaching the host without a sandbox'"), &[&port]);
        passes(&pool, "network=none", &format!("{CONNECT} $1; no 'reaching the host'"), &[&port]);
        let own = r#"perl -MIO::Socket::INET -e '
            my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die "listen: $!";
            IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $l->sockport) or die "connect: $!"'"#;
        let word = if host.may_mount() { "yes" } else { "no" };
        passes(&pool, "network=none", &format!("{own}; {word} 'its own loopback'"), &[]);
        nothing_is_mounted(&pool);
    });
}

#[test]
fn what_is_read_only_can_be_written_to_in_its_own_directories_alone() {
    on_hosts(|host| {
        let pool = Pool::start(host.options());
        let script = r#"
            touch "$1"; no 'writing beside the state directory'
            touch "$2/x"; no 'writing to the state directory'
            touch /tmp/acode-sandbox-$$; no 'writing to /tmp'
            echo x > /proc/self/root/$1; no 'writing through /proc/self/root'
            ln -s "$1" link; echo x > link; no 'writing through a link'
            mkdir d; mv d "$1"; no 'moving out'
            mount -o remount,rw / 2>/dev/null; no 'mounting again'
            umount -l / 2>/dev/null; no 'unmounting'
            unshare -Urm true 2>/dev/null; no 'a new user namespace'
            echo kept > file && [ "$(cat file)" = kept ]; yes 'writing to the scratch directory'
            mktemp > /dev/null; yes 'a temporary file'
            echo x > "$ACODE_CHECKPOINT/step"; yes 'writing to the checkpoint'
            echo 50 half > "$ACODE_PROGRESS"; yes 'telling progress'
            echo gone > /dev/stdout; yes 'writing to /dev/stdout'
            echo 7 > "$ACODE_RESULT""#;
        let outside = pool.path("outside");
        let spec = boxed("filesystem=read-only", script, &[&outside, pool.state_dir().to_str().unwrap()]);
        let id = pool.submit_spec(TaskSpec { checkpoint: true, ..spec });
        let record = pool.wait(id);
        assert_eq!(record.state, TaskState::Completed, "{host:?}: {:?}", record.error);
        assert_eq!(record.result.unwrap().get(), "7");
        assert!(!pool.file("outside").exists());
        nothing_is_mounted(&pool);
        // What comes next in the same room has the world back.
        passes(&pool, "", r#"touch "$1"; yes 'writing without a sandbox'"#, &[&outside]);
    });
}

#[test]
fn in_scratch_nothing_is_seen_but_programs_and_the_scratch_directory() {
    on_hosts(|host| {
        let mut options = host.options();
        let shown = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(shown.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(shown.path().join("data"), "data").unwrap();
        options = options.config(&format!("workers:\n  sandbox:\n    readable: [{}]", shown.path().display()));
        let pool = Pool::start(options);
        fs::set_permissions(pool.file(""), fs::Permissions::from_mode(0o755)).unwrap();
        let secret = pool.path("secret");
        fs::write(&secret, "secret").unwrap();
        passes(&pool, "", r#"cat "$1"; yes 'reading without a sandbox'"#, &[&secret]);
        let script = r#"
            cat "$1"; no 'reading a file of the host'
            cat "/proc/self/root$1"; no 'reading through /proc/self/root'
            cat "/proc/1/root$1"; no "reading through another's root"
            cat "/proc/self/cwd/../../../../$3/secret"; no 'reading through the working directory'
            ln -s "$1" link; cat link; no 'reading through a link'
            perl -e 'chroot("."); exit !chdir("/")' && cat "/../../../../../..$1"; no 'leaving a root of its own'
            cat /etc/shadow; no 'reading secrets of the system'
            ls "$4" | grep -v rooms; no 'seeing the state directory'
            touch /usr/x; no 'writing to programs'
            [ "$(cat "$2/data")" = data ]; yes 'reading what the configuration shows'
            touch "$2/x"; no 'writing to that'
            echo x > file && perl -e 'open(F, "file") or exit 1'; yes 'working in the scratch directory'
            id -un > /dev/null; yes 'finding the name of a user'
            echo 1 > "$ACODE_RESULT""#;
        let (home, state) = (pool.path(""), pool.path("s"));
        let arguments = [&secret, shown.path().to_str().unwrap(), &home, &state];
        let record = passes(&pool, "filesystem=scratch", script, &arguments);
        assert_eq!(record.result.unwrap().get(), "1");
        if host.may_mount() {
            let script = r#"
                [ ! -e "$1" ]; yes 'that it does not exist'
                [ ! -e /home ] && [ ! -e /sys ] && [ ! -e /root ]; yes 'a root with little in it'
                mktemp > /dev/null; yes 'a temporary file'"#;
            passes(&pool, "filesystem=scratch", script, &[&secret]);
        }
        nothing_is_mounted(&pool);
    });
}

#[test]
fn a_task_that_may_not_write_stays_in_its_cgroup_under_its_limits() {
    on_hosts(|host| {
        let pool = Pool::start(host.options());
        let script = r#"
            find /sys/fs/cgroup -name cgroup.procs 2>/dev/null >all
            while read -r procs; do (echo $$ >"$procs") 2>/dev/null; no "entering $procs"; done <all
            leaf=$(sed -n 's/^0:://p' /proc/self/cgroup)
            for max in $(find /sys/fs/cgroup -path "*$leaf/*.max" 2>/dev/null); do
                (echo max >"$max") 2>/dev/null; no "lifting $max"
            done; true"#;
        for sandbox in ["filesystem=read-only", "filesystem=scratch"] {
            passes(&pool, sandbox, script, &[]);
        }
    });
}

#[test]
fn with_minimal_devices_there_are_few() {
    on_hosts(|host| {
        let pool = Pool::start(host.options());
        let script = r#"
            for d in /dev/null /dev/full /dev/tty; do [ -c $d ]; yes "a device $d"; done
            head -c 8 /dev/urandom > /dev/null; yes 'reading /dev/urandom'
            head -c 8 /dev/zero > /dev/null; yes 'reading /dev/zero'
            for d in /dev/kmsg /dev/fuse /dev/loop-control /dev/vda; do head -c 0 $d 2>/dev/null; no "opening $d"; done
            mknod kmsg c 1 11 2>/dev/null; no 'making a device'"#;
        if host.may_mount() {
            passes(&pool, "devices=minimal", script, &[]);
            let own = r#"
                echo x > /dev/shm/x; yes 'shared memory of its own'
                [ -c /dev/ptmx ] && [ ! -e /dev/kmsg ]; yes 'a /dev of its own'"#;
            passes(&pool, "devices=minimal", own, &[]);
        } else {
            refused(&pool, boxed("devices=minimal", "exit 0", &[]), "devices cannot be minimal");
        }
        passes(&pool, "devices=minimal,filesystem=scratch", script, &[]);
        passes(&pool, "devices=minimal,filesystem=scratch,network=none", script, &[]);
        nothing_is_mounted(&pool);
    });
}

#[test]
fn a_task_runs_as_another_user_where_the_pool_is_roots() {
    on_hosts(|host| {
        let pool = Pool::start(host.options());
        fs::set_permissions(pool.file(""), fs::Permissions::from_mode(0o755)).unwrap();
        if host != Host::Root {
            refused(&pool, boxed("user=root", "exit 0", &[]), "only a pool that runs as root");
            passes(&pool, &format!("user={USER}:{USER}"), "[ $(id -u) = 65534 ]; yes 'being oneself'", &[]);
            return;
        }
        let script = r#"
            [ "$(id -u)" = 65534 ]; yes 'being nobody'
            [ "$(id -G)" = "$(id -g)" ]; yes 'having no groups of root'
            touch "$1/x"; no 'writing where only root may'
            kill -0 $PPID; no "signalling root's processes"
            echo out > /dev/stdout; yes 'writing to /dev/stdout'
            echo x > file; yes 'writing to the scratch directory'
            echo x > "$ACODE_CHECKPOINT/step"; yes 'writing to the checkpoint'
            echo 50 half > "$ACODE_PROGRESS"; yes 'telling progress'
            echo 3 > "$ACODE_RESULT""#;
        for others in ["", ",filesystem=read-only", ",filesystem=scratch,network=none,devices=minimal"] {
            let spec = boxed(&format!("user=nobody{others}"), script, &[&pool.path("")]);
            let record = pool.wait(pool.submit_spec(TaskSpec { checkpoint: true, ..spec }));
            assert_eq!(record.state, TaskState::Completed, "{others}: {:?} {:?}", record.error, record.verdict);
            assert_eq!((record.result.unwrap().get(), record.progress.unwrap().percent), ("3", 50));
            let script = r#"[ "$(id -u)" = 0 ] && [ "$(ls -A | wc -l)" = 0 ] && echo x > y; yes 'a room of its own'"#;
            passes(&pool, "", script, &[]);
        }
        refused(&pool, boxed("user=no-such-user", "exit 0", &[]), "there is no user");
        nothing_is_mounted(&pool);
    });
}

/// Attempts on processes: `$1` is the supervisor, `$2` the number of ptrace, `$3` another task, `$4` whether root has all
/// of its powers.
const ATTACK: &str = r#"
    for p in $1 $PPID $3; do
        for s in 0 STOP KILL; do kill -$s $p 2>/dev/null; no "kill -$s $p"; done
        ls -l /proc/$p/fd 2>/dev/null | grep -q -- '->'; no 'seeing descriptors'
        readlink /proc/$p/cwd > /dev/null; no 'seeing the working directory'
        if [ $4 = no-powers ]; then
            cat /proc/$p/environ 2>/dev/null | grep -q .; no 'reading the environment'
            cat /proc/$p/maps 2>/dev/null | grep -q .; no 'reading the map of memory'
        fi
        head -c 1 /proc/$p/mem > /dev/null 2>&1; no 'reading memory'
        perl -e 'exit(syscall($ARGV[0], 16, $ARGV[1], 0, 0) != 0)' $2 $p; no 'tracing'
    done"#;

/// The number of `ptrace`.
fn ptrace() -> String {
    nix::libc::SYS_ptrace.to_string()
}

#[test]
fn a_task_can_neither_signal_nor_look_into_the_pool_and_other_tasks() {
    on_hosts(|host| {
        let scopes = landlock::abi() >= landlock::ABI_SCOPES;
        let pool = Pool::start(host.options());
        let victim = pool.submit_spec(shell("echo $$ > $1; exec sleep 300", &[&pool.path("victim")]));
        wait_until("the other task runs", || !pool.lines("victim").is_empty());
        let other = pool.lines("victim")[0].clone();
        let supervisor = pool.pid().to_string();
        for sandbox in ["", "network=none", "filesystem=read-only", "devices=minimal,filesystem=scratch"] {
            if sandbox.is_empty() && !scopes {
                eprintln!("Landlock has ABI {} here: a task without a sandbox is not kept in", landlock::abi());
                continue;
            }
            // Before signals are covered only the pool is kept from them.
            let targets = if scopes { other.as_str() } else { "" };
            // Root's CAP_PERFMON reads those of everybody since Linux 6.18, and only a sandbox takes it away.
            let powers = if sandbox.is_empty() && host == Host::Root { "powers" } else { "no-powers" };
            passes(&pool, sandbox, ATTACK, &[&supervisor, &ptrace(), targets, powers]);
            let own =
                "sleep 300 & kill $! && wait $!; [ $? = 143 ]; yes 'signalling its own'; kill -0 -1 2>/dev/null; :";
            passes(&pool, sandbox, own, &[]);
        }
        assert_eq!(pool.show(victim).state, TaskState::Running);
        // Limits and priorities of others are out of reach as well.
        let script = r#"
            prlimit --pid $1 --cpu=1 2>/dev/null; no 'setting limits of the supervisor'
            renice -n 5 -p $1 > /dev/null 2>&1; no 'making the supervisor slow'"#;
        passes(&pool, "network=none", script, &[&supervisor]);
        pool.call(&acode::wire::request::Ping {});
    });
}

#[test]
fn tasks_without_a_sandbox_signal_others_where_the_configuration_says_so() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: the signal would not be permitted anyway");
        return;
    }
    let pool = Pool::start(Options::workers(1).config("workers:\n  sandbox:\n    signals: host"));
    let mut stranger = std::process::Command::new("sleep").arg("300").spawn().unwrap();
    passes(&pool, "", "kill $1; yes 'signalling a stranger'", &[&stranger.id().to_string()]);
    assert!(!stranger.wait().unwrap().success());
}

#[test]
fn the_store_and_the_control_socket_are_out_of_reach() {
    on_hosts(|host| {
        let pool = Pool::start(host.options());
        let (state, acode) = (pool.state_dir(), env!("CARGO_BIN_EXE_acode"));
        let arguments = [state.to_str().unwrap(), acode];
        let status = r#""$2" worker status --state-dir "$1" > /dev/null 2>&1"#;
        passes(&pool, "", &format!("{status}; yes 'asking the pool without a sandbox'"), &arguments);
        let connect =
            r#"perl -MIO::Socket::UNIX -e 'exit !IO::Socket::UNIX->new(Peer => "$ARGV[0]/run/control.sock")' "$1""#;
        for sandbox in ["network=none", "filesystem=read-only", "filesystem=scratch"] {
            let mut script = format!("{status}; no 'asking the pool'\n{connect}; no 'connecting to it'\n");
            if host.may_mount() {
                script.push_str("cat \"$1/queue.db\" > /dev/null 2>&1; no 'reading the queue'\n");
                script.push_str("ls \"$1\" | grep -v rooms | grep -q .; no 'seeing what is in the state directory'\n");
                script.push_str("rm -rf \"$1/queue.db\" \"$1/lock\" 2>/dev/null; :\n");
            }
            passes(&pool, sandbox, &script, &arguments);
        }
        assert!(state.join("queue.db").exists() && state.join("lock").exists());
    });
}

#[test]
fn programs_that_gain_privileges_gain_none() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: no such program can be made");
        return;
    }
    let pool = Pool::start(Host::User.options());
    fs::copy("/usr/bin/id", pool.file("id")).unwrap();
    fs::set_permissions(pool.file("id"), fs::Permissions::from_mode(0o4755)).unwrap();
    for sandbox in ["", "network=none"] {
        passes(&pool, sandbox, r#"[ "$("$1" -u)" = 65534 ]; yes 'staying who one is'"#, &[&pool.path("id")]);
    }
}

#[test]
fn what_cannot_be_had_is_refused() {
    // A host that offers nothing: no namespaces, no Landlock, no filters.
    let pool = Pool::start(Options::workers(1).var("ACODE_FAILPOINTS", "worker.sandbox-means@0"));
    for sandbox in ["network=none", "filesystem=read-only", "filesystem=scratch", "devices=minimal"] {
        refused(&pool, boxed(sandbox, "touch $1", &[&pool.path("ran")]), "sandbox: ");
    }
    assert!(!pool.file("ran").exists(), "a refused task has run");
    passes(&pool, "network=host,devices=host", "exit 0", &[]);
}

#[test]
fn a_task_has_less_of_a_sandbox_than_the_pools_only_where_that_is_allowed() {
    let base = "workers:\n  sandbox:\n    filesystem: read-only";
    let write = "touch $1; yes writing";
    let strict = Pool::start(Options::workers(1).config(base));
    let outside = strict.path("outside");
    passes(&strict, "", "touch $1; no writing", &[&outside]);
    passes(&strict, "filesystem=scratch", "touch $1; no writing", &[&outside]);
    refused(&strict, boxed("filesystem=host", write, &[&outside]), "workers.sandbox.override");
    let writable = strict.file("w");
    fs::create_dir(&writable).unwrap();
    let more = format!("{base}\n    override: true\n    writable: [{}]", writable.display());
    let lax = Pool::start(Options::workers(1).config(&more));
    passes(&lax, "filesystem=host", write, &[&outside]);
    passes(&lax, "", "touch $1/y; yes 'writing where the configuration permits'", &[writable.to_str().unwrap()]);
}

#[test]
fn a_sandbox_is_asked_for_on_the_command_line_and_in_a_task_file() {
    let pool = Pool::start(Options::workers(1));
    let acode = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_acode"));
        command.args(arguments).env("ACODE_STATE_DIR", pool.state_dir()).output().unwrap()
    };
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let wrong = acode(&["task", "submit", "--sandbox", "network=off", "--", "true"]);
    assert!(!wrong.status.success() && text(&wrong).contains("host or none"), "{}", text(&wrong));
    let outside = pool.path("outside");
    let sent = acode(&["task", "submit", "--sandbox", "filesystem=read-only", "--", "touch", &outside]);
    assert!(sent.status.success(), "{}", text(&sent));
    let mut file = fs::File::create(pool.file("tasks.yaml")).unwrap();
    write!(
        file,
        "defaults:\n  sandbox: {{filesystem: read-only}}\ntasks:\n  - command: [touch, {outside}]\n  \
         - command: [touch, {outside}]\n    sandbox: {{network: none}}\n"
    )
    .unwrap();
    let sent = acode(&["task", "submit", "--file", &pool.path("tasks.yaml")]);
    assert!(sent.status.success(), "{}", text(&sent));
    pool.wait_all();
    assert!(!pool.file("outside").exists());
    fs::write(pool.file("wrong.yaml"), "tasks:\n  - command: [x]\n    sandbox: {netwerk: none}\n").unwrap();
    let wrong = acode(&["task", "submit", "--file", &pool.path("wrong.yaml")]);
    assert!(!wrong.status.success() && text(&wrong).contains("network"), "{}", text(&wrong));
}
