//! The command line by its words, and what is refused.

use super::*;
use crate::task::Mount;

fn settings(program: &str) -> DockerSettings {
    DockerSettings {
        program: program.to_owned(),
        pool: "00c0ffee00".to_owned(),
        folder: "/s/containers".into(),
        default: Docker { image: Some("debian:12".to_owned()), ..Docker::default() },
        allowed_args: vec!["--shm-size=64m".to_owned(), "--gpus=*".to_owned(), "--hostname*".to_owned()],
        tmpfs_mb: 64,
        ..DockerSettings::default()
    }
}

fn spec(docker: Docker) -> TaskSpec {
    let command = ["make", "--privileged", "a b"].map(str::to_owned).to_vec();
    TaskSpec { command, docker: Some(docker), ..TaskSpec::default() }
}

/// What is asked for on top of the least.
#[derive(Default)]
struct More<'m> {
    limits: Limits,
    rlimits: Rlimits,
    binds: &'m [Bind<'m>],
    passed: &'m [&'m str],
    device: Option<&'m str>,
}

fn make(settings: &DockerSettings, spec: &TaskSpec, more: &More<'_>) -> Result<Vec<String>, Refused> {
    let room = Bind { path: Path::new("/s/rooms/0"), read_only: false };
    let binds: Vec<_> = [room].iter().chain(more.binds).copied().collect();
    command_line(&Request {
        settings,
        spec,
        id: TaskId::from_u128(0x0123_4567_89ab_cdef),
        attempt: 2,
        worker: "01WORKER",
        binds: &binds,
        workdir: Path::new("/s/rooms/0/scratch"),
        limits: &more.limits,
        rlimits: &more.rlimits,
        grace_ms: 2_500,
        user: (1000, 100),
        mark: Path::new("/s/containers/T.cid"),
        env_file: Path::new("/s/containers/T.env"),
        passed: more.passed,
        unified: false,
        device: more.device,
        program: None,
    })
}

/// The words, one on a line, of the task with this container.
fn lines(settings: &DockerSettings, docker: Docker, more: &More<'_>) -> String {
    make(settings, &spec(docker), more).unwrap().join("\n")
}

fn refusal(docker: Docker) -> String {
    make(&settings("docker"), &spec(docker), &More::default()).unwrap_err().to_string()
}

#[test]
fn who_says_nothing_is_shut_in() {
    let words = lines(&settings("docker"), Docker::default(), &More::default());
    insta::assert_snapshot!(words, @"
    docker
    run
    --name=acode-0000000000000028t5cy4tqkff
    --cidfile=/s/containers/T.cid
    --label=acode.pool=00c0ffee00
    --label=acode.task=0000000000000028T5CY4TQKFF
    --label=acode.attempt=2
    --label=acode.worker=01WORKER
    --init
    --pull=never
    --network=none
    --ulimit=core=0
    --read-only
    --tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777,size=64m
    --cap-drop=ALL
    --security-opt=no-new-privileges
    --user=1000:100
    --log-driver=none
    --stop-timeout=3
    --workdir=/s/rooms/0/scratch
    --env-file=/s/containers/T.env
    --mount=type=bind,source=/s/rooms/0,target=/s/rooms/0
    --
    debian:12
    make
    --privileged
    a b
    ");
}

#[test]
fn everything_that_is_said_has_its_option() {
    let mut settings = settings("/usr/bin/docker");
    settings.writable_root = true;
    settings.default.mounts = vec!["/usr/share/zoneinfo:/zones:ro".parse::<Mount>().unwrap()];
    settings.default.args = vec!["--add-host=db:10.0.0.1".to_owned()];
    let docker = Docker {
        image: Some("gcc:13".to_owned()),
        entrypoint: Some(String::new()),
        network: Some("bridge".to_owned()),
        platform: Some("linux/amd64".to_owned()),
        user: Some("build".to_owned()),
        pull: Some(Pull::Missing),
        mounts: Vec::new(),
        args: vec!["--shm-size=64m".to_owned(), "--gpus=all".to_owned()],
    };
    let limits = Limits {
        memory_mb: Some(512),
        swap_mb: Some(64),
        cpu_percent: Some(150),
        cpu_weight: Some(200),
        pids: Some(100),
        io_read_bytes: Some(1 << 20),
        io_write_bytes: Some(1 << 19),
        ..Limits::default()
    };
    let rlimits = Rlimits { open_files: Some(1024), ..Rlimits::default() };
    let checkpoint = Path::new("/s/checkpoints/1,a");
    let binds = [
        Bind { path: checkpoint, read_only: false },
        Bind { path: Path::new("/repo/.git"), read_only: true },
        Bind { path: checkpoint, read_only: false },
    ];
    let more = More { limits, rlimits, binds: &binds, passed: &["KEY"], device: Some("/dev/sda") };
    let task = TaskSpec { stdin: Some("/in".to_owned()), ..spec(docker) };
    let words = make(&settings, &task, &more).unwrap().join("\n");
    insta::assert_snapshot!(words, @r#"
    /usr/bin/docker
    run
    --name=acode-0000000000000028t5cy4tqkff
    --cidfile=/s/containers/T.cid
    --label=acode.pool=00c0ffee00
    --label=acode.task=0000000000000028T5CY4TQKFF
    --label=acode.attempt=2
    --label=acode.worker=01WORKER
    --init
    --pull=missing
    --platform=linux/amd64
    --network=bridge
    --memory=512m
    --memory-swap=576m
    --cpus=1.50
    --cpu-shares=2048
    --pids-limit=100
    --device-read-bps=/dev/sda:1048576
    --device-write-bps=/dev/sda:524288
    --ulimit=core=0
    --ulimit=nofile=1024
    --tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777,size=64m
    --cap-drop=ALL
    --security-opt=no-new-privileges
    --user=build
    --log-driver=none
    --stop-timeout=3
    --workdir=/s/rooms/0/scratch
    --interactive
    --env-file=/s/containers/T.env
    --env=KEY
    --entrypoint=
    --mount=type=bind,source=/s/rooms/0,target=/s/rooms/0
    --mount=type=bind,"source=/s/checkpoints/1,a","target=/s/checkpoints/1,a"
    --mount=type=bind,source=/repo/.git,target=/repo/.git,readonly
    --mount=type=bind,source=/usr/share/zoneinfo,target=/zones,readonly
    --add-host=db:10.0.0.1
    --shm-size=64m
    --gpus=all
    --
    gcc:13
    make
    --privileged
    a b
    "#);
}

#[test]
fn podman_is_told_what_docker_does_by_itself() {
    let docker = lines(&settings("docker"), Docker::default(), &More::default());
    let podman = lines(&settings("/usr/bin/podman"), Docker::default(), &More::default());
    let more: Vec<_> = podman.lines().filter(|word| docker.lines().all(|known| known != *word)).collect();
    let expected = ["/usr/bin/podman", "--read-only-tmpfs=false", "--http-proxy=false", "--userns=keep-id"];
    assert_eq!(more, expected);
    let fewer: Vec<_> = docker.lines().filter(|word| podman.lines().all(|known| known != *word)).collect();
    assert_eq!(fewer, ["docker"]);
}

#[test]
fn nothing_of_the_tasks_is_an_option_of_the_client() {
    let hungry = Docker { args: vec!["--hostname".to_owned()], ..Docker::default() };
    let words = make(&settings("docker"), &spec(hungry), &More::default()).unwrap();
    let end = words.iter().position(|word| word == "--").unwrap();
    // An option that lacks its value takes the dashes, and not the image.
    assert_eq!(&words[end - 1..], ["--hostname", "--", "debian:12", "make", "--privileged", "a b"]);
    for image in ["--privileged", "-v/:/x", "", "a b"] {
        let docker = Docker { image: Some(image.to_owned()), ..Docker::default() };
        assert!(refusal(docker).starts_with("docker.image"), "{image}");
    }
}

#[test]
fn without_an_image_there_is_no_container() {
    let mut settings = settings("docker");
    settings.default.image = None;
    let error = make(&settings, &spec(Docker::default()), &More::default()).unwrap_err();
    insta::assert_snapshot!(error, @"there is no image: name one by docker.image in the configuration, or for the task by --image");
}

#[test]
fn further_arguments_must_be_allowed_in_full_or_by_their_beginning() {
    let with = |argument: &str| Docker { args: vec![argument.to_owned()], ..Docker::default() };
    for argument in ["--shm-size=64m", "--gpus=all", "--gpus=", "--hostname=x"] {
        assert!(make(&settings("docker"), &spec(with(argument)), &More::default()).is_ok(), "{argument}");
    }
    for argument in ["--shm-size=64mb", "--shm-size", "--gpu=all", "--privileged", "--cap-add=ALL"] {
        assert!(refusal(with(argument)).contains("docker.allowedArgs"), "{argument}");
    }
    insta::assert_snapshot!(refusal(with("--privileged")), @"the docker argument '--privileged' is not allowed: docker.allowedArgs has no such one");
}

#[test]
fn acodes_hold_of_the_container_is_not_given_away_whatever_is_allowed() {
    let mut settings = settings("docker");
    settings.allowed_args = vec!["*".to_owned()];
    let words = |argument: &str| {
        let docker = Docker { args: vec![argument.to_owned()], ..Docker::default() };
        let by_task = make(&settings, &spec(docker), &More::default()).unwrap_err();
        let mut pools = settings.clone();
        pools.default.args = vec![argument.to_owned()];
        let by_pool = make(&pools, &spec(Docker::default()), &More::default()).unwrap_err();
        assert_eq!(by_task, by_pool, "{argument}");
        by_task
    };
    let reserved = [
        "--name=x",
        "--cidfile=/x",
        "--rm",
        "--rm=false",
        "--detach",
        "--restart=always",
        "--label=acode.pool=x",
        "--label",
        "--label-file=/x",
        "--replace",
        "--attach=stdin",
        "--tty",
    ];
    for argument in reserved {
        assert_eq!(words(argument), Refused::ArgumentReserved(argument.to_owned()));
    }
    for argument in ["-d", "-it", "-v/:/x", "--", "-", "64m", "", "---x", "--=x"] {
        assert_eq!(words(argument), Refused::ArgumentForm(argument.to_owned()));
    }
    for argument in ["--memory=1g", "--network=host", "--user=root", "--mount=type=bind", "--volume=/:/x", "--volume"] {
        assert!(matches!(words(argument), Refused::ArgumentHasKey { .. }), "{argument}");
    }
    insta::assert_snapshot!(words("--name=x"), @"the docker argument '--name=x' cannot be given: acode finds and removes its containers by what it sets there");
    insta::assert_snapshot!(words("-d"), @"the docker argument '-d' is not of the form --NAME or --NAME=VALUE");
    insta::assert_snapshot!(words("--memory=1g"), @"the docker argument '--memory=1g' cannot be given: use limits.memoryMb instead");
    let fine = Docker { args: vec!["--label=team=x".to_owned(), "--volume=cache:/c".to_owned()], ..Docker::default() };
    assert!(make(&settings, &spec(fine), &More::default()).is_ok());
}

#[test]
fn mounts_are_the_pools_and_then_the_tasks_own() {
    let folder = tempfile::tempdir().unwrap();
    let allowed = folder.path().join("data");
    std::fs::create_dir(&allowed).unwrap();
    let mut settings = settings("docker");
    settings.allowed_mounts = vec![allowed.clone()];
    settings.default.mounts = vec!["/opt/tools:/tools:ro".parse().unwrap()];
    let mount = |target: &str| Mount {
        source: allowed.to_str().unwrap().to_owned(),
        target: target.to_owned(),
        read_only: false,
    };
    let with = |target: &str| spec(Docker { mounts: vec![mount(target)], ..Docker::default() });
    let words = make(&settings, &with("/data"), &More::default()).unwrap();
    let mounts: Vec<_> = words.iter().filter(|word| word.starts_with("--mount")).collect();
    let own = format!("--mount=type=bind,source={},target=/data", allowed.display());
    let expected = [
        "--mount=type=bind,source=/s/rooms/0,target=/s/rooms/0",
        "--mount=type=bind,source=/opt/tools,target=/tools,readonly",
        own.as_str(),
    ];
    assert_eq!(mounts, expected);
    for target in ["/tools", "/tools/", "/s/rooms/0"] {
        let error = make(&settings, &with(target), &More::default()).unwrap_err();
        assert_eq!(error, Refused::MountTwice(target.to_owned()));
    }
    let outside = spec(Docker { mounts: vec!["/etc:/x".parse().unwrap()], ..Docker::default() });
    assert!(matches!(make(&settings, &outside, &More::default()), Err(Refused::MountOutside { .. })));
}

#[test]
fn a_tasks_own_limit_that_containers_do_not_know_is_refused_and_the_pools_is_not() {
    let rlimits = Rlimits { address_space_bytes: Some(1), ..Rlimits::default() };
    let more = More { rlimits, ..More::default() };
    let pools = make(&settings("docker"), &spec(Docker::default()), &more).unwrap();
    assert!(pools.iter().all(|word| !word.starts_with("--ulimit=as")));
    let task = TaskSpec { rlimits, ..spec(Docker::default()) };
    let error = make(&settings("docker"), &task, &more).unwrap_err();
    insta::assert_snapshot!(error, @"rlimits.addressSpaceBytes cannot be held in a container: use limits.memoryMb instead");
}

#[test]
fn a_path_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/\xff"));
    let more = More { binds: &[Bind { path, read_only: false }], ..More::default() };
    let error = make(&settings("docker"), &spec(Docker::default()), &more).unwrap_err();
    assert!(matches!(error, Refused::NotText(_)));
}
