//! What the configuration accepts and refuses, with the exact words of every refusal.

use std::path::Path;
use std::time::Duration;

use super::load::load_from;
use super::*;

struct Bench {
    folder: tempfile::TempDir,
    vars: Vars,
    overrides: Overrides,
}

impl Bench {
    fn new(text: &str) -> Self {
        let bench = Self::empty();
        std::fs::write(bench.folder.path().join("acode.yaml"), text).unwrap();
        bench
    }

    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), vars: Vars::new(), overrides: Overrides::default() }
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        self.load_explicit(None)
    }

    fn load_explicit(&self, explicit: Option<&Path>) -> Result<Loaded, ConfigError> {
        let folder = self.folder.path();
        load_from(explicit, &self.vars, &self.overrides, folder, &folder.join("etc/acode.yaml"))
    }

    /// The error's words, with the folder's changing name left out.
    fn error(&self) -> String {
        let words = self.load().unwrap_err().to_string();
        words.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn error(text: &str) -> String {
    Bench::new(text).error()
}

const SPECIFICATION: &str = "
workers:
  count: 4
  mode: process  # process, docker
  pollIntervalMs: 1000
  idleBackoffMaxMs: 30000
  drainTimeoutSeconds: 60

  limits:
    cpuPercent: 25
    memoryMb: 512
    diskMb: 1024

  resources:
    overLimitAction: warn  # warn, throttle, kill
";

#[test]
fn the_configuration_of_the_specification_is_read() {
    let workers = Bench::new(SPECIFICATION).load().unwrap().config.workers;
    let limits = Limits { cpu_percent: Some(25), memory_mb: Some(512), disk_mb: Some(1024), ..Limits::default() };
    // What scaling by load gets from the processors has tests of its own.
    let scaling = workers.scaling;
    assert_eq!(workers, Workers { count: 4, limits, scaling, ..Workers::default() });
}

#[test]
fn every_other_key_is_read() {
    let text = "
workers: {maxCount: 8, count: 2, heartbeatIntervalMs: 100, heartbeatTimeoutMs: 500, killGraceMs: 0, umask: 022,
  rlimits: {openFiles: 64, coreBytes: }, maxWorkerLosses: 1,
  scaling: {enabled: true, minCount: 1, maxCount: 5, scaleUpThreshold: 0.9, scaleDownThreshold: 0.1,
    scaleUpCooldownSeconds: 4, scaleDownCooldownSeconds: 6, idleTimeoutSeconds: 8},
  healthCheck: {enabled: false, intervalSeconds: 3}, recycle: {maxTasks: 100, maxMemoryMb: none}}
tasks: {timeoutSeconds: 7, retries: {count: 2, delayMs: 5, factor: 1.5, maxDelayMs: 9, jitter: 0, onCodes: [1, 75],
    memoryFactor: 2}, startTimeoutSeconds: 3,
  environment: {allow: [PATH, 'LC_*'], set: {A: 1.50, B: yes}}}
output: {maxBytesPerTask: 1, segmentBytes: 65536}
retention: {maxAgeDays: none, maxFinishedTasks: 5, intervalSeconds: 1, maxEvents: 3}
queue: {maxTasks: 9, backpressureThreshold: 0.5, maxWaitSeconds: 2}
backpressure: {enabled: false, maxLoadPerCpu: 1.5, minFreeMemoryMb: none, minFreeDiskMb: 7, maxMemoryPressure: none,
  maxIoPressure: 20, maxCpuPressure: 30.5, resumeAfterSeconds: 0}
jobserver: {slots: 3}
control: {maxConnections: 3}
log: {level: debug, file: logs/acode.log}
pool: {name: night, limits: {cpuPercent: 150, memoryMb: 900, pids: 77}}
";
    let bench = Bench::new(text);
    let config = bench.load().unwrap().config;
    assert_eq!(config.workers.umask, 0o022);
    assert_eq!(config.workers.rlimits.open_files, Some(64));
    assert_eq!(config.workers.heartbeat_timeout, Duration::from_millis(500));
    let seconds = Duration::from_secs;
    let scaling = Scaling {
        enabled: Switch::On,
        min_count: 1,
        max_count: 5,
        up_threshold: 0.9,
        down_threshold: 0.1,
        up_cooldown: seconds(4),
        down_cooldown: seconds(6),
        idle_timeout: seconds(8),
    };
    assert_eq!(config.workers.scaling, scaling);
    assert_eq!(config.workers.health_check, HealthCheck { enabled: false, interval: seconds(3) });
    assert_eq!(config.workers.recycle, Recycle { max_tasks: Some(100), max_memory_mb: None });
    assert_eq!(config.tasks.timeout, Some(Duration::from_secs(7)));
    assert_eq!((config.tasks.retry.count, config.tasks.retry.factor), (2, 1.5));
    assert_eq!(
        (config.tasks.retry.on_codes.iter().collect::<Vec<_>>(), config.tasks.retry.memory_factor),
        (vec![1, 75], 2.0)
    );
    assert_eq!(config.tasks.start_timeout, Some(Duration::from_secs(3)));
    assert_eq!(
        (config.tasks.environment_set["A"].as_str(), config.tasks.environment_set["B"].as_str()),
        ("1.50", "yes")
    );
    assert!(config.tasks.inherits("LC_ALL") && config.tasks.inherits("PATH") && !config.tasks.inherits("HOME"));
    assert_eq!(config.retention.max_age, None);
    let queue =
        Queue { max_tasks: 9, ageing: Duration::ZERO, backpressure_threshold: 0.5, max_wait: Duration::from_secs(2) };
    assert_eq!((config.queue, config.jobserver.slots), (queue, Some(3)));
    let backpressure = Backpressure {
        enabled: false,
        max_load_per_cpu: Some(1.5),
        min_free_memory_mb: None,
        min_free_disk_mb: Some(7),
        max_memory_pressure: None,
        max_io_pressure: Some(20.0),
        max_cpu_pressure: Some(30.5),
        resume_after: Duration::ZERO,
    };
    assert_eq!(config.backpressure, backpressure);
    assert_eq!(config.log, Log { level: LogLevel::Debug, file: Some(bench.folder.path().join("logs/acode.log")) });
    assert_eq!(config.pool.name, "night");
    assert_eq!(config.pool.limits, PoolLimits { cpu_percent: Some(150), memory_mb: Some(900), pids: Some(77) });
}

#[test]
fn the_keys_of_containers_and_artefacts_are_read() {
    let text = "
docker: {program: /usr/bin/podman, image: 'debian:12', pull: missing, network: bridge, user: '1000:1000',
  platform: linux/amd64, mounts: ['/data:ro', '/a:/b'], allowedMounts: [/srv/, /data], args: [--shm-size=1g],
  allowedArgs: [--gpus=all, '--env=*'], writableRoot: true, tmpfsMb: 16, fallback: refuse, callTimeoutSeconds: 3,
  startTimeoutSeconds: 300, sweepIntervalSeconds: 5}
artifacts: {maxBytesPerTask: 1024, maxFilesPerTask: 3}
cleanup: {worktrees: always}
";
    let config = Bench::new(text).load().unwrap().config;
    let some = |text: &str| Some(text.to_owned());
    let docker = Docker {
        program: "/usr/bin/podman".to_owned(),
        image: some("debian:12"),
        pull: Pull::Missing,
        network: "bridge".to_owned(),
        user: some("1000:1000"),
        platform: some("linux/amd64"),
        mounts: vec!["/data:/data:ro".parse().unwrap(), "/a:/b".parse().unwrap()],
        allowed_mounts: vec!["/srv".into(), "/data".into()],
        args: vec!["--shm-size=1g".to_owned()],
        allowed_args: vec!["--gpus=all".to_owned(), "--env=*".to_owned()],
        writable_root: true,
        tmpfs_mb: 16,
        fallback: Fallback::Refuse,
        call_timeout: Duration::from_secs(3),
        start_timeout: Duration::from_secs(300),
        sweep_interval: Duration::from_secs(5),
    };
    assert_eq!(config.docker, docker);
    assert_eq!(config.artifacts, Artifacts { max_bytes: 1024, max_files: 3 });
    assert_eq!(config.cleanup.worktrees, When::Always);
    let bench = Bench::new(text)
        .var("ACODE_DOCKER_MOUNTS", "/x, /y:/z:ro")
        .var("ACODE_DOCKER_ALLOWED_ARGS", "--cap-add=CHOWN")
        .var("ACODE_DOCKER_USER", "none")
        .var("ACODE_DOCKER_NETWORK", "none")
        .var("ACODE_ARTIFACTS_MAX_FILES_PER_TASK", "7");
    let loaded = bench.load().unwrap();
    let mounts: Vec<String> = loaded.config.docker.mounts.iter().map(ToString::to_string).collect();
    assert_eq!(mounts, ["/x:/x", "/y:/z:ro"]);
    assert_eq!(loaded.config.docker.allowed_args, ["--cap-add=CHOWN"]);
    assert_eq!((loaded.config.docker.user, loaded.config.docker.network.as_str()), (None, "none"));
    assert_eq!(loaded.config.artifacts.max_files, 7);
    assert_eq!(bench.load().unwrap().origin("docker.mounts"), Origin::Variable("ACODE_DOCKER_MOUNTS".into()));
}

#[test]
fn wrong_values_of_containers_are_refused_with_what_is_allowed() {
    insta::assert_snapshot!(error("docker: {program: bin/docker}\n"), @"acode.yaml:1:19: docker.program is bin/docker: a program, by its name or its absolute path, is expected");
    insta::assert_snapshot!(error("docker: {image: --privileged}\n"), @"acode.yaml:1:17: docker.image is --privileged: a name without spaces that does not begin with a dash, or none, is expected");
    insta::assert_snapshot!(error("docker: {network: }\n"), @"acode.yaml:1:17: docker.network is empty: a text is expected");
    insta::assert_snapshot!(error("docker: {pull: sometimes}\n"), @"acode.yaml:1:16: docker.pull is sometimes: never or missing or always is expected");
    insta::assert_snapshot!(error("docker: {mounts: [data:/data]}\n"), @"acode.yaml:1:19: docker.mounts is data:/data: a list of /SOURCE[:/TARGET][:ro], without '..', commas and quotes, is expected");
    insta::assert_snapshot!(error("docker: {mounts: /data}\n"), @"acode.yaml:1:18: docker.mounts is the text '/data': a list is expected");
    insta::assert_snapshot!(error("docker: {allowedMounts: [/srv/..]}\n"), @"acode.yaml:1:26: docker.allowedMounts is /srv/..: a list of absolute paths is expected");
    insta::assert_snapshot!(error("docker: {args: [--shm-size=1g, --rm]}\n"), @"acode.yaml:1:32: docker.args is --rm: a list, each a long option of docker run with its value behind a '=', as in --shm-size=1g, that does not name, detach, restart or remove the container, is expected");
    insta::assert_snapshot!(error("docker: {allowedArgs: [-v]}\n"), @"acode.yaml:1:24: docker.allowedArgs is -v: a list, each a long option of docker run with its value behind a '=', as in --shm-size=1g, that does not name, detach, restart or remove the container, is expected");
    insta::assert_snapshot!(error("docker: {tmpfsMb: 1073741825}\n"), @"acode.yaml:1:19: docker.tmpfsMb is 1073741825: 0 to 1073741824 is expected");
    insta::assert_snapshot!(error("docker: {fallback: maybe}\n"), @"acode.yaml:1:20: docker.fallback is maybe: process or refuse is expected");
    insta::assert_snapshot!(error("docker: {callTimeoutSeconds: 0}\n"), @"acode.yaml:1:30: docker.callTimeoutSeconds is 0: 1 to 3600 is expected");
    insta::assert_snapshot!(error("docker: {sweepIntervalSeconds: 86401}\n"), @"acode.yaml:1:32: docker.sweepIntervalSeconds is 86401: 1 to 86400 is expected");
    insta::assert_snapshot!(error("docker: {imgae: x}\n"), @"acode.yaml:1:10: unknown key 'imgae' in docker: did you mean 'image'?");
    insta::assert_snapshot!(error("artifacts: {maxFilesPerTask: 1000001}\n"), @"acode.yaml:1:30: artifacts.maxFilesPerTask is 1000001: 0 to 1000000 is expected");
    insta::assert_snapshot!(error("cleanup: {worktrees: sometimes}\n"), @"acode.yaml:1:22: cleanup.worktrees is sometimes: always or success or failure or never is expected");
    let by_variable = Bench::empty().var("ACODE_DOCKER_PULL", "sometimes").error();
    insta::assert_snapshot!(by_variable, @"ACODE_DOCKER_PULL: docker.pull is sometimes: never or missing or always is expected");
    let unknown = Bench::empty().var("ACODE_DOCKER_IMGAE", "x").error();
    insta::assert_snapshot!(unknown, @"ACODE_DOCKER_IMGAE: no key has this variable: did you mean 'ACODE_DOCKER_IMAGE'?");
}

#[test]
fn the_numbers_of_the_modes_say_how_many_workers_there_are() {
    let workers = |text: &str| Bench::new(text).load().unwrap().config.workers;
    let mixed = workers("workers: {mode: 'process:4,docker:2'}");
    assert_eq!((mixed.count, mixed.scaling.enabled), (6, Switch::Off));
    assert_eq!(workers("workers: {mode: 'docker:3', count: 3}").count, 3);
    let scaled = workers("workers: {mode: 'process:4,docker:2', scaling: {enabled: true}}");
    assert_eq!((scaled.count, scaled.scaling.enabled), (6, Switch::On));
    assert!(scaled.scaling.max_count >= 6, "{:?}", scaled.scaling);
    assert_eq!(workers("workers: {mode: docker}").scaling.enabled, Switch::On, "without numbers the load decides");
    insta::assert_snapshot!(error("workers: {mode: 'process:4,docker:2', count: 5}"), @"acode.yaml:1:17: workers.mode is process:4,docker:2, 6 workers in all: workers.count is 5 (acode.yaml:1:46); they must agree, or one be left out");
    insta::assert_snapshot!(error("workers: {mode: 'process:4,docker:2', maxCount: 5}"), @"acode.yaml:1:17: workers.mode is process:4,docker:2, 6 workers in all: at most workers.maxCount, 5, is expected");
    let alone = "workers: {mode: 'process:4,docker:2', scaling: {enabled: true, minCount: 1}}";
    insta::assert_snapshot!(error(alone), @"acode.yaml:1:74: workers.scaling.minCount is 1: at least 2, a worker of each mode of workers.mode, is expected");
    let mut bench = Bench::new("workers: {mode: 'process:4,docker:2'}");
    bench.overrides.count = Some(4);
    insta::assert_snapshot!(bench.error(), @"acode.yaml:1:17: workers.mode is process:4,docker:2, 6 workers in all: workers.count is 4 (--count); they must agree, or one be left out");
    let mut bench = Bench::new("workers: {count: 4}");
    bench.overrides.mode = Some("docker:2".parse().unwrap());
    insta::assert_snapshot!(bench.error(), @"--mode: workers.mode is docker:2, 2 workers in all: workers.count is 4 (acode.yaml:1:18); they must agree, or one be left out");
}

#[test]
fn the_first_file_that_exists_wins() {
    let bench = Bench::empty();
    let folder = bench.folder.path().to_owned();
    let bench = bench.var("XDG_CONFIG_HOME", folder.join("xdg").to_str().unwrap());
    assert_eq!(bench.load().unwrap().file, None);
    for place in ["etc/acode.yaml", "xdg/acode/acode.yaml", "acode.yaml"] {
        let path = folder.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(bench.load().unwrap().file, Some(path));
    }
    std::fs::write(folder.join("named.yaml"), "pool: {name: named}").unwrap();
    std::fs::write(folder.join("flag.yaml"), "pool: {name: flag}").unwrap();
    let bench = bench.var("ACODE_CONFIG", "named.yaml");
    assert_eq!(bench.load().unwrap().config.pool.name, "named");
    assert_eq!(bench.load_explicit(Some(Path::new("flag.yaml"))).unwrap().config.pool.name, "flag");
}

#[test]
fn variables_override_the_file_and_flags_override_variables() {
    let mut bench = Bench::new("workers: {count: 3, pollIntervalMs: 500}")
        .var("ACODE_WORKERS_COUNT", "5")
        .var("ACODE_WORKERS_POLL_INTERVAL_MS", "250")
        .var("ACODE_TASKS_ENVIRONMENT_ALLOW", "PATH, X_*")
        .var("ACODE_TASKS_ENVIRONMENT_SET", "A=1,B=x=y")
        .var("ACODE_TASKS_TIMEOUT_SECONDS", "none")
        .var("ACODE_WORKERS_UMASK", "027")
        .var("ACODE_POOL_NAME", "")
        .var("ACODE_TASK_ID", "not ours")
        .var("ACODE_META_X", "not ours");
    let loaded = bench.load().unwrap();
    assert_eq!(loaded.config.workers.count, 5);
    assert_eq!(loaded.config.workers.poll_interval, Duration::from_millis(250));
    assert_eq!(loaded.config.workers.umask, 0o027);
    assert_eq!(loaded.config.tasks.environment_allow, ["PATH", "X_*"]);
    assert_eq!(loaded.config.tasks.environment_set["B"], "x=y");
    assert_eq!(loaded.origin("workers.count"), Origin::Variable("ACODE_WORKERS_COUNT".into()));
    bench.overrides = Overrides { count: Some(6), pool: Some("p".into()), ..Overrides::default() };
    let loaded = bench.load().unwrap();
    assert_eq!((loaded.config.workers.count, loaded.origin("workers.count")), (6, Origin::Flag("--count")));
}

#[test]
fn without_a_word_there_is_a_worker_for_each_processor() {
    let count = Bench::empty().load().unwrap().config.workers.count;
    assert_eq!(count, usable_cpus().min(256));
    assert_eq!(Bench::new("workers: {maxCount: 1}").load().unwrap().config.workers.count, 1);
}

#[test]
fn scaling_by_load_is_on_unless_a_number_is_given() {
    let scaling = |text: &str| Bench::new(text).load().unwrap().config.workers.scaling;
    let cpus = usable_cpus().min(256);
    let free = scaling("");
    assert_eq!((free.enabled, free.min_count, free.max_count), (Switch::On, cpus.min(2), cpus));
    assert_eq!(scaling("workers: {count: 3}").enabled, Switch::Off);
    assert_eq!(
        Bench::empty().var("ACODE_WORKERS_COUNT", "3").load().unwrap().config.workers.scaling.enabled,
        Switch::Off
    );
    let mut bench = Bench::empty();
    bench.overrides.count = Some(3);
    assert_eq!(bench.load().unwrap().config.workers.scaling.enabled, Switch::Off);
    assert_eq!(scaling("workers: {scaling: {enabled: false}}").enabled, Switch::Off);
    assert_eq!(scaling("workers: {count: 3, scaling: {enabled: true}}").enabled, Switch::On);
}

#[test]
fn the_flags_of_scaling_switch_it_on() {
    let mut bench = Bench::new("workers: {count: 3, scaling: {enabled: false}}");
    bench.overrides.min_count = Some(4);
    let scaling = bench.load().unwrap().config.workers.scaling;
    assert_eq!((scaling.enabled, scaling.min_count), (Switch::On, 4));
    assert!(scaling.max_count >= 4, "the default gives way: {scaling:?}");
    bench.overrides = Overrides { max_count: Some(1), ..Overrides::default() };
    let scaling = bench.load().unwrap().config.workers.scaling;
    assert_eq!((scaling.enabled, scaling.min_count, scaling.max_count), (Switch::On, 1, 1));
}

#[test]
fn what_nobody_said_about_scaling_gives_way_to_what_somebody_did() {
    let scaling = |text: &str| Bench::new(text).load().unwrap().config.workers.scaling;
    assert_eq!(scaling("workers: {maxCount: 1}").max_count, 1);
    assert_eq!(scaling("workers: {maxCount: 1}").min_count, 1);
    assert!(scaling("workers: {scaling: {enabled: true}, count: 200}").max_count >= 200);
    assert!(scaling("workers: {scaling: {minCount: 200}}").max_count >= 200);
}

#[test]
fn wrong_keys_and_types_are_refused_with_their_place() {
    insta::assert_snapshot!(error("workers:\n  cuont: 4\n"), @"acode.yaml:2:3: unknown key 'cuont' in workers: did you mean 'count'?");
    insta::assert_snapshot!(error("workers:\n  poll_interval_ms: 4\n"), @"acode.yaml:2:3: unknown key 'poll_interval_ms' in workers: did you mean 'pollIntervalMs'?");
    insta::assert_snapshot!(error("wrokers: {}\n"), @"acode.yaml:1:1: unknown key 'wrokers': did you mean 'workers'?");
    insta::assert_snapshot!(error("count: 4\n"), @"acode.yaml:1:1: unknown key 'count': did you mean 'workers.count'?");
    insta::assert_snapshot!(error("banana: 4\n"), @"acode.yaml:1:1: unknown key 'banana'");
    insta::assert_snapshot!(error("workers: 4\n"), @"acode.yaml:1:10: workers is the number 4: a mapping is expected");
    insta::assert_snapshot!(error("- workers\n"), @"acode.yaml:1:1: the configuration is a list: a mapping is expected");
    insta::assert_snapshot!(error("workers:\n  count: four\n"), @"acode.yaml:2:10: workers.count is the text 'four': a whole number is expected");
    insta::assert_snapshot!(error("workers:\n  count: '4'\n"), @"acode.yaml:2:10: workers.count is the text '4': a whole number is expected");
    insta::assert_snapshot!(error("workers:\n  count: [4]\n"), @"acode.yaml:2:10: workers.count is a list: a whole number is expected");
    insta::assert_snapshot!(error("workers:\n  count:\n"), @"acode.yaml:2:8: workers.count is empty: a whole number is expected");
    insta::assert_snapshot!(error("workers:\n  count: 4\n  mode: process\n  count: 5\n"), @"acode.yaml:4:3: duplicate key 'count'");
    insta::assert_snapshot!(error("workers:\n  count: 4\n mode: process\n"), @"acode.yaml:3:2: not YAML: while parsing a block mapping, did not find expected key");
    insta::assert_snapshot!(error("tasks: {environment: {allow: PATH}}\n"), @"acode.yaml:1:30: tasks.environment.allow is the text 'PATH': a list is expected");
}

#[test]
fn wrong_values_are_refused_with_their_range() {
    insta::assert_snapshot!(error("workers:\n  count: 0\n"), @"acode.yaml:2:10: workers.count is 0: 1 to 1024 is expected");
    insta::assert_snapshot!(error("workers:\n  count: -1\n"), @"acode.yaml:2:10: workers.count is the number -1: a whole number, 0 or more, is expected");
    insta::assert_snapshot!(error("workers:\n  count: 300\n"), @"acode.yaml:2:10: workers.count is 300: at most workers.maxCount, 256, is expected");
    insta::assert_snapshot!(error("workers: {maxCount: 2}\npool:\n  name: a b\n"), @"acode.yaml:3:9: pool.name is a b: 1 to 64 letters, digits, '-', '_' or '.' is expected");
    insta::assert_snapshot!(error("workers: {mode: dokcer}\n"), @"acode.yaml:1:17: workers.mode is dokcer: process or docker, or both with numbers as in process:4,docker:2 is expected");
    insta::assert_snapshot!(error("workers: {umask: 0888}\n"), @"acode.yaml:1:18: workers.umask is 0888: 000 to 777 is expected");
    insta::assert_snapshot!(error("tasks: {retries: {jitter: 1.5}}\n"), @"acode.yaml:1:27: tasks.retries.jitter is 1.5: 0 to 1 is expected");
    insta::assert_snapshot!(error("tasks: {environment: {allow: ['A*B']}}\n"), @"acode.yaml:1:31: tasks.environment.allow is A*B: a list of names, each with or without a * at its end, is expected");
    insta::assert_snapshot!(error("workers: {pollIntervalMs: 60000}\n"), @"acode.yaml:1:27: workers.idleBackoffMaxMs is 30000: at least workers.pollIntervalMs, 60000, is expected");
    insta::assert_snapshot!(error("workers: {scaling: {minCount: 4, maxCount: 3}}\n"), @"acode.yaml:1:31: workers.scaling.minCount is 4: at most workers.scaling.maxCount, 3, is expected");
    insta::assert_snapshot!(error("workers: {maxCount: 8, count: 1, scaling: {maxCount: 9}}\n"), @"acode.yaml:1:54: workers.scaling.maxCount is 9: at most workers.maxCount, 8, is expected");
    insta::assert_snapshot!(error("workers: {scaling: {scaleUpThreshold: 0.3}}\n"), @"acode.yaml:1:39: workers.scaling.scaleDownThreshold is 0.3: less than workers.scaling.scaleUpThreshold, 0.3, is expected");
    insta::assert_snapshot!(error("workers: {scaling: {enabled: maybe}}\n"), @"acode.yaml:1:30: workers.scaling.enabled is maybe: true or false or auto is expected");
    insta::assert_snapshot!(error("workers: {limits: {memoryMb: 8}, maxLimits: {memoryMb: 7}}\n"), @"acode.yaml:1:30: workers.limits.memoryMb is 8: at most workers.maxLimits.memoryMb, 7, is expected");
    insta::assert_snapshot!(error("workers: {limits: {swapMb: x}}\n"), @"acode.yaml:1:28: workers.limits.swapMb is the text 'x': a whole number is expected");
    insta::assert_snapshot!(error("workers: {healthCheck: {enabled: auto}}\n"), @"acode.yaml:1:34: workers.healthCheck.enabled is auto: true or false is expected");
    insta::assert_snapshot!(error("workers: {heartbeatTimeoutMs: 1500}\n"), @"acode.yaml:1:31: workers.heartbeatTimeoutMs is 1500: at least twice workers.heartbeatIntervalMs, 1000, is expected");
}

#[test]
fn wrong_variables_and_flags_are_refused_by_name() {
    let with = |name: &str, value: &str| Bench::empty().var(name, value).error();
    insta::assert_snapshot!(with("ACODE_WORKERS_COUNT", "many"), @"ACODE_WORKERS_COUNT: workers.count is the text 'many': a whole number is expected");
    insta::assert_snapshot!(with("ACODE_WORKERS_CUONT", "4"), @"ACODE_WORKERS_CUONT: no key has this variable: did you mean 'ACODE_WORKERS_COUNT'?");
    insta::assert_snapshot!(with("ACODE_CONFIG", "missing.yaml"), @"cannot read the configuration file missing.yaml (named by $ACODE_CONFIG)");
    let mut bench = Bench::empty();
    bench.overrides.count = Some(0);
    insta::assert_snapshot!(bench.error(), @"--count: workers.count is 0: 1 to 1024 is expected");
    bench.overrides.count = Some(257);
    insta::assert_snapshot!(bench.error(), @"--count: workers.count is 257: at most workers.maxCount, 256, is expected");
}

#[test]
fn every_key_has_a_variable_of_its_own_and_a_default_inside_its_range() {
    let keys = reference();
    let variables: std::collections::BTreeSet<_> = keys.iter().map(|key| key.variable.as_str()).collect();
    assert_eq!(variables.len(), keys.len());
    assert!(variables.contains("ACODE_WORKERS_RESOURCES_OVER_LIMIT_ACTION"));
    for key in keys.iter().filter(|key| key.default != "processors") {
        let (section, rest) = key.path.split_once('.').unwrap();
        let nested = match rest.split_once('.') {
            Some((group, leaf)) => format!("{section}: {{{group}: {{{leaf}: {}}}}}", key.default),
            None => format!("{section}: {{{rest}: {}}}", key.default),
        };
        let loaded = Bench::new(&nested).load().unwrap().config;
        assert_eq!(loaded.workers.max_count, 256, "{nested}");
    }
}

#[test]
fn codes_that_are_tried_again_and_codes_that_never_are_exclude_each_other() {
    let said = error("tasks: {retries: {onCodes: [1], exceptCodes: [2]}}");
    assert!(said.contains("tasks.retries.onCodes") && said.contains("exclude each other"), "{said}");
    assert!(error("tasks: {retries: {onCodes: [256]}}").contains("0 to 255"));
    let bench = Bench::empty().var("ACODE_TASKS_RETRIES_EXCEPT_CODES", "2, 64");
    assert!(bench.load().unwrap().config.tasks.retry.except_codes.contains(64));
}
