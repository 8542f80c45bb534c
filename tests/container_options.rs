//! What can be said about containers, through the real binary: which task comes of it, and what is refused with which
//! words. No container is made here.
//!
//! Deliberately absent: what an engine makes of it.

#[path = "common/command.rs"]
mod command;
mod common;

use std::fs;

use acode::wire::request::Submit;
use acode::wire::{CallError, Client, ClientError};
use acode_worker::task::{Docker, Isolation, Mount, Pull, Submission, TaskSpec};
use command::Acode;
use common::{Options, Pool};
use serde_json::{Value, json};

/// Submits with these options, and gives the task's record.
#[track_caller]
fn submitted(acode: &Acode, options: &[&str], command: &[&str]) -> Value {
    let id = acode.ok(&[&["task", "submit"], options, &["--"], command].concat());
    acode.json(&["task", "show", &id])
}

#[test]
fn every_option_about_a_container_is_in_its_tasks_record() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let options = [
        "--image",
        "debian:12",
        "--entrypoint",
        "/bin/env",
        "--mount",
        "data:ro",
        "--mount",
        "/srv/./cache:/cache",
        "--network",
        "bridge",
        "--platform",
        "linux/amd64",
        "--container-user",
        "1000:1000",
        "--pull",
        "missing",
        "--docker-arg",
        "--shm-size=1g",
        "--docker-arg=--gpus=all",
        "--cwd",
        "/work",
    ];
    let task = submitted(&acode, &options, &["./tool", "--all"]);
    let data = pool.path("data");
    assert_eq!((&task["isolation"], &task["cwd"]), (&json!("docker"), &json!("/work")));
    assert_eq!(task["command"], json!(["./tool", "--all"]), "it is the container's");
    let expected = json!({
        "image": "debian:12", "entrypoint": "/bin/env", "network": "bridge", "platform": "linux/amd64",
        "user": "1000:1000", "pull": "missing", "args": ["--shm-size=1g", "--gpus=all"],
        "mounts": [{"source": data, "target": data, "readOnly": true}, {"source": "/srv/cache", "target": "/cache"}],
    });
    assert_eq!(task["docker"], expected);
    let shown = acode.ok(&["task", "show", task["id"].as_str().unwrap()]);
    assert!(
        shown.contains("Isolation  docker\n") && shown.contains("image debian:12, entry point /bin/env"),
        "{shown}"
    );
    let list = acode.json(&["task", "list"]);
    assert_eq!(list[0]["isolation"], "docker");
}

#[test]
fn a_task_that_says_nothing_of_a_container_has_none() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let task = submitted(&acode, &[], &["./tool"]);
    assert_eq!((&task["isolation"], task.get("docker")), (&Value::Null, None));
    assert_eq!(task["command"], json!([pool.path("tool")]), "a program with a slash is meant from here");
    let task = submitted(&acode, &["--isolation", "process", "--sandbox", "network=none"], &["true"]);
    assert_eq!((&task["isolation"], task.get("docker")), (&json!("process"), None));
    let task = submitted(&acode, &["--isolation", "docker"], &["./tool"]);
    assert_eq!((&task["isolation"], task.get("docker")), (&json!("docker"), None), "the image is the pool's");
    assert_eq!(task["command"], json!(["./tool"]));
}

#[test]
fn a_source_that_goes_up_is_followed_to_where_it_is() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    fs::create_dir_all(pool.file("real/in")).unwrap();
    fs::create_dir(pool.file("real/beside")).unwrap();
    std::os::unix::fs::symlink(pool.file("real/in"), pool.file("link")).unwrap();
    let task = submitted(&acode, &["--mount", "link/../beside:/b"], &["true"]);
    let real = fs::canonicalize(pool.file("real/beside")).unwrap();
    assert_eq!(task["docker"]["mounts"][0]["source"], json!(real), "what is above a link is above its target");
}

#[test]
fn what_makes_no_sense_together_is_refused_in_words() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let refused = |options: &[&str]| {
        let said = acode.says(&[&["task", "submit"], options, &["--", "true"]].concat()).expect(2);
        assert!(said.out.is_empty(), "{said:?}");
        said.err.trim_end().to_owned()
    };
    insta::assert_snapshot!(refused(&["--isolation", "process", "--image", "debian"]), @"acode: --image is about a container, and --isolation process asks for none: leave one of them out");
    insta::assert_snapshot!(refused(&["--isolation", "process", "--pull", "never"]), @"acode: --pull is about a container, and --isolation process asks for none: leave one of them out");
    insta::assert_snapshot!(refused(&["--image", "debian", "--sandbox", "network=none"]), @"acode: --sandbox is for processes: what a container can reach, --network, --mount and --container-user say");
    insta::assert_snapshot!(refused(&["--isolation", "docker", "--cwd", "work"]), @"acode: --cwd work: it is a path in the container, so it must be absolute");
    insta::assert_snapshot!(refused(&["--mount", "/a:b"]), @"acode: --mount /a:b: SOURCE[:/TARGET][:ro] is expected, without commas, quotes and further colons");
    insta::assert_snapshot!(refused(&["--mount", "../no-such-directory"]), @"acode: --mount ../no-such-directory: its source cannot be found: No such file or directory (os error 2)");
    insta::assert_snapshot!(refused(&["--image", "two words"]), @"acode: docker.image is 'two words': a name without spaces that does not begin with a dash is expected");
    insta::assert_snapshot!(refused(&["--network=--privileged"]), @"acode: docker.network is '--privileged': a name without spaces that does not begin with a dash is expected");
    insta::assert_snapshot!(refused(&["--docker-arg", "-v"]), @"acode: docker.args is '-v': a long option of docker run with its value behind a '=', as in --shm-size=1g, that does not name, detach, restart or remove the container, is expected");
    insta::assert_snapshot!(refused(&["--docker-arg", "--name=mine"]), @"acode: docker.args is '--name=mine': a long option of docker run with its value behind a '=', as in --shm-size=1g, that does not name, detach, restart or remove the container, is expected");
    for options in [["--isolation", "vm"], ["--pull", "often"]] {
        assert!(refused(&options).contains("possible values"), "{options:?}");
    }
    acode.says(&["task", "submit", "--file", "t.yaml", "--image", "debian"]).expect(2);
    acode.says(&["run", "--isolation", "process", "--image", "debian", "--", "true"]).expect(2);
    assert_eq!(acode.json(&["task", "list"]), json!([]), "nothing was submitted");
}

#[test]
fn modes_of_workers_are_refused_with_their_form() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    for mode in ["vm", "process,docker", "docker:0"] {
        let said = acode.says(&["worker", "start", "--mode", mode]).expect(2);
        assert!(
            said.err.contains(&format!("'{mode}' is no mode")) && said.err.contains("process:4,docker:2"),
            "{said:?}"
        );
    }
    let said = acode.says(&["worker", "start", "--mode", "process:4,docker:2", "--count", "3"]).expect(2);
    assert!(said.err.contains("6 workers in all") && said.err.contains("workers.count is 3 (--count)"), "{said:?}");
}

#[test]
fn docker_workers_without_an_image_are_started_and_told_of() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let start = ["worker", "start", "--detach", "--mode", "process:1,docker:1"];
    let said = acode.says(&start).expect(0);
    assert!(said.err.contains("there is no docker.image"), "{said:?}");
    assert_eq!(acode.json(&["worker", "status"])["workers"]["target"], 2);
    acode.ok(&["worker", "stop"]);
    let said = acode.clone().var("ACODE_DOCKER_IMAGE", "debian:12").says(&start).expect(0);
    assert!(!said.err.contains("docker.image"), "{said:?}");
    acode.ok(&["worker", "stop"]);
}

#[test]
fn a_task_files_containers_are_in_their_tasks_records() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let text = "
defaults: {docker: {image: 'debian:12', mounts: [data]}}
tasks:
- {command: ./inside, cwd: /work}
- {command: ./outside, isolation: process}
";
    fs::create_dir(pool.file("folder")).unwrap();
    fs::write(pool.file("folder/t.yaml"), text).unwrap();
    let ids = acode.ok(&["task", "submit", "--file", "folder/t.yaml"]);
    let tasks: Vec<Value> = ids.lines().map(|id| acode.json(&["task", "show", id])).collect();
    let data = pool.path("folder/data");
    assert_eq!(tasks[0]["docker"], json!({"image": "debian:12", "mounts": [{"source": data, "target": data}]}));
    assert_eq!((&tasks[0]["command"], &tasks[0]["isolation"]), (&json!(["./inside"]), &json!("docker")));
    assert_eq!(tasks[1]["command"], json!([pool.path("folder/outside")]));
    assert_eq!((&tasks[1]["isolation"], tasks[1].get("docker")), (&json!("process"), None));
    fs::write(pool.file("t.yaml"), "tasks:\n- command: x\n  docker: {imgae: debian}\n").unwrap();
    let said = acode.says(&["task", "submit", "--file", "t.yaml"]).expect(2);
    assert!(said.err.contains("t.yaml:3:12") && said.err.contains("did you mean 'image'"), "{said:?}");
}

#[test]
fn a_pool_checks_containers_over_the_protocol_too() {
    let pool = Pool::start(Options::workers(1));
    let mut client = Client::connect(&pool.socket()).unwrap();
    let mut refused = |isolation: Option<Isolation>, docker: Docker| {
        let spec = TaskSpec { command: vec!["true".into()], isolation, docker: Some(docker), ..TaskSpec::default() };
        match client.call(&Submit::new(vec![Submission { spec, ..Submission::default() }])) {
            Err(ClientError::Call(CallError::InvalidSubmission { entry, reason })) => {
                format!("{}: {reason}", entry.unwrap())
            }
            other => panic!("{other:?}"),
        }
    };
    let image = |image: &str| Docker { image: Some(image.to_owned()), ..Docker::default() };
    let mount = |source: &str| Mount { source: source.to_owned(), target: "/x".to_owned(), read_only: false };
    insta::assert_snapshot!(refused(Some(Isolation::Process), image("debian")), @"0: isolation process and docker exclude each other: give one of them");
    insta::assert_snapshot!(refused(None, image("--privileged")), @"0: docker.image is '--privileged': a name without spaces that does not begin with a dash is expected");
    insta::assert_snapshot!(refused(None, Docker { mounts: vec![mount("relative")], ..Docker::default() }), @"0: docker.mounts is 'relative:/x': two absolute paths without '..', commas, colons and quotes is expected");
    insta::assert_snapshot!(refused(None, Docker { mounts: vec![mount("/a/../b")], ..Docker::default() }), @"0: docker.mounts is '/a/../b:/x': two absolute paths without '..', commas, colons and quotes is expected");
    insta::assert_snapshot!(refused(None, Docker { args: vec!["--rm".into()], ..Docker::default() }), @"0: docker.args is '--rm': a long option of docker run with its value behind a '=', as in --shm-size=1g, that does not name, detach, restart or remove the container, is expected");
    insta::assert_snapshot!(refused(None, Docker { args: vec!["busybox".into()], ..Docker::default() }), @"0: docker.args is 'busybox': a long option of docker run with its value behind a '=', as in --shm-size=1g, that does not name, detach, restart or remove the container, is expected");
    let many = Docker { args: vec!["--privileged".into(); 65], pull: Some(Pull::Never), ..Docker::default() };
    insta::assert_snapshot!(refused(None, many), @"0: docker.args is a list of 65: at most 64 is expected");
}
