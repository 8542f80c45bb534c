//! A pool that only talks: it answers every method of the control protocol from memory and runs nothing.
//!
//! For tests of the two ends of the protocol without a supervisor. One thread per connection, blocking.

use std::collections::BTreeMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use acode::wire::types::{
    AttemptRecord, GroupRecord, OutputSizes, PoolRecord, PoolState, QueueRecord, Resources, StatusRecord,
};
use acode::wire::types::{EventRecord, TaskCounts, TaskRecord, Waiting, WorkerCounts, WorkerRecord, WorkerStatus};
use acode::wire::{
    Call, CallError, DESCRIPTION, INTERFACE, Inbox, Outbox, Request, SCHEMA, Stamp, TaskRef, UsageRecord, reply,
};
use acode_worker::task::{Isolation, Submission, TaskId, TaskState, TreeGuard, Verdict, WorkerId};

const START: i64 = 1_790_000_000_000_000;

type Tasks = Arc<Mutex<BTreeMap<u64, (TaskId, Submission)>>>;

/// Answers on this socket for as long as the process lives.
pub fn serve(path: &Path) -> std::io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let tasks = Tasks::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tasks = Arc::clone(&tasks);
            std::thread::spawn(move || talk(stream, &tasks));
        }
    });
    Ok(())
}

fn talk(mut stream: UnixStream, tasks: &Tasks) {
    let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
    while inbox.read_from(&mut stream).is_ok_and(|count| count > 0) {
        loop {
            let Ok(message) = inbox.next_message() else { return };
            let Some(message) = message else { break };
            match Request::parse(message) {
                Ok(Call { request, more, oneway }) => {
                    let mut mute = Outbox::new();
                    answer(request, more, tasks, if oneway { &mut mute } else { &mut outbox });
                }
                Err(bad) if bad.oneway => {}
                Err(bad) => {
                    outbox.error(&bad.error).unwrap();
                    if bad.hang_up {
                        let _ = outbox.write_to(&mut stream);
                        return;
                    }
                }
            }
            if outbox.is_full() && !matches!(outbox.write_to(&mut stream), Ok(true)) {
                return;
            }
        }
        if !matches!(outbox.write_to(&mut stream), Ok(true)) {
            return;
        }
    }
}

fn answer(request: Request, more: bool, tasks: &Tasks, out: &mut Outbox) {
    let mut tasks = tasks.lock().unwrap();
    let find = |name: &TaskRef| {
        let seq = match name {
            TaskRef::Id(id) => id.seq(),
            TaskRef::Number(number) => *number,
            TaskRef::Name(name) => {
                let named = |task: &&(TaskId, Submission)| task.1.spec.name.as_ref() == Some(name);
                tasks.values().filter(named).map(|task| task.0.seq()).max().unwrap_or(0)
            }
            TaskRef::Prefix(_) => {
                let (low, high) = name.range().unwrap();
                let fits: Vec<TaskId> = tasks.values().map(|t| t.0).filter(|t| low <= *t && *t <= high).collect();
                match fits.as_slice() {
                    [one] => one.seq(),
                    [] => 0,
                    many => {
                        let matches = many.iter().take(CallError::MAX_MATCHES).copied().collect();
                        return Err(CallError::AmbiguousTask { task: name.to_string(), matches });
                    }
                }
            }
        };
        tasks.get(&seq).cloned().ok_or_else(|| CallError::NoSuchTask { task: name.to_string() })
    };
    let all = |ids: &[TaskRef]| ids.iter().map(|id| find(id).map(|t| t.0)).collect::<Result<Vec<_>, _>>();
    let result = match request {
        Request::Submit(submit) => {
            if let Some((entry, error)) =
                submit.tasks.iter().enumerate().find_map(|(n, t)| t.spec.validate().err().map(|e| (n, e)))
            {
                let entry = u32::try_from(entry).ok();
                out.error(&CallError::InvalidSubmission { entry, reason: error.to_string() })
            } else {
                let ids = submit.tasks.into_iter().map(|task| {
                    let seq = tasks.len() as u64 + 1;
                    let id = TaskId::new(1_790_000_000_000, 0xAC0DE, seq);
                    tasks.insert(seq, (id, task));
                    id
                });
                let ids = ids.collect();
                out.reply(&reply::Submitted { ids }, false)
            }
        }
        Request::Resolve(r) => send(out, all(&r.ids).map(|ids| reply::Resolved { ids })),
        Request::Cancel(r) => {
            send(out, all(&r.ids).map(|cancelled| reply::Cancelled { cancelled, ended: Vec::new(), more: false }))
        }
        Request::Suspend(r) => {
            send(out, all(&r.ids).map(|suspended| reply::Suspended { suspended, refused: Vec::new() }))
        }
        Request::Continue(r) => send(out, all(&r.ids).map(|resumed| reply::Resumed { resumed, refused: Vec::new() })),
        Request::Retry(r) => send(out, all(&r.ids).map(|retried| reply::Retried { retried, refused: Vec::new() })),
        Request::Hold(r) => send(out, all(&r.ids).map(|held| reply::Held { held, refused: Vec::new() })),
        Request::Release(r) => send(out, all(&r.ids).map(|released| reply::Released { released, refused: Vec::new() })),
        Request::Groups(_) => out.reply(&reply::Groups { groups: vec![group("encode", Some(2))] }, false),
        Request::LimitGroup(r) => out.reply(&reply::GroupLimited { group: group(&r.name, r.max) }, false),
        Request::Show(r) => send(out, find(&r.id).map(|(id, task)| reply::Shown { task: record(id, &task, true) })),
        Request::List(r) => {
            let limit = r.limit.unwrap_or(100) as usize;
            let mut list: Vec<_> = tasks.values().map(|(id, task)| record(*id, task, false)).collect();
            if r.newest_first {
                list.reverse();
            }
            list.truncate(limit);
            out.reply(&reply::Listed { tasks: list, next: None }, false)
        }
        Request::Why(r) => send(
            out,
            find(&r.id).map(|(id, _)| {
                let waiting = Waiting::Queued { ahead: Some(3) };
                let text = waiting.to_string();
                reply::WhyReply { id, state: TaskState::Pending, waiting: Some(waiting), text }
            }),
        ),
        Request::Wait(r) => match all(&r.ids) {
            Ok(ids) => {
                let total = if r.all { tasks.len() } else { ids.len() } as u64;
                if more {
                    let counts = TaskCounts { pending: total, ..TaskCounts::default() };
                    out.reply(&reply::Waited { counts, unsuccessful: Vec::new(), running: Vec::new() }, true).unwrap();
                }
                let counts = TaskCounts { completed: total, ..TaskCounts::default() };
                out.reply(&reply::Waited { counts, unsuccessful: Vec::new(), running: Vec::new() }, false)
            }
            Err(error) => out.error(&error),
        },
        Request::Events(_) => {
            let mut event = EventRecord::new(1, Stamp::from_micros(START), "task-submitted");
            event.task = tasks.values().next().map(|t| t.0);
            out.reply(&reply::EventBatch { events: vec![event], missed: 0 }, false)
        }
        Request::Logs(_) => out.reply(&reply::LogPlaces { directory: "/nonexistent".into(), sources: vec![] }, false),
        Request::Status(_) => out.reply(&reply::StatusReply { status: status() }, false),
        Request::Workers(_) => out.reply(&reply::WorkersReply { workers: workers() }, false),
        Request::Autoscale(_) => out.reply(&reply::Scaled { before: 2, target: 2 }, false),
        Request::Reload(_) => out.reply(&reply::Reloaded {}, false),
        Request::Check(_) => out.reply(&reply::Checked::default(), false),
        Request::Metrics(_) => out.reply(&reply::MetricsReply::default(), false),
        Request::Scale(r) => out.reply(&reply::Scaled { before: 4, target: r.count }, false),
        Request::Stop(_) => {
            let stopping =
                reply::Stopping { pid: std::process::id(), state: PoolState::Draining, running: 0, pending: 2 };
            out.reply(&stopping, false)
        }
        Request::Pause(_) | Request::Resume(_) => out.reply(&reply::Pausing::default(), false),
        Request::Prune(_) => out.reply(&reply::Pruned { tasks: 5, log_bytes: 1 << 20 }, false),
        Request::Ping(_) => out.reply(
            &reply::Pong { pid: std::process::id(), pool: "default".into(), protocol: acode::wire::PROTOCOL },
            false,
        ),
        Request::GetInfo(_) => out.reply(&reply::ServiceInfo::own(), false),
        Request::GetInterfaceDescription(r) if r.interface == INTERFACE => {
            out.reply(&reply::InterfaceDescription { description: DESCRIPTION.to_owned() }, false)
        }
        Request::GetInterfaceDescription(r) => out.error(&CallError::InterfaceNotFound { interface: r.interface }),
    };
    result.unwrap();
}

fn send<R: serde::Serialize>(out: &mut Outbox, result: Result<R, CallError>) -> Result<(), acode::wire::OutboxFull> {
    match result {
        Ok(reply) => out.reply(&reply, false),
        Err(error) => out.error(&error),
    }
}

fn group(name: &str, limit: Option<u32>) -> GroupRecord {
    GroupRecord { name: name.to_owned(), limit, running: 2, waiting: 7, held_since: None }
}

fn worker_id(n: u128) -> WorkerId {
    WorkerId::from_u128(1_790_000_000_000_u128 << 80 | n)
}

/// One attempt that exited with 3.
fn record(id: TaskId, task: &Submission, with_attempts: bool) -> TaskRecord {
    let mut attempt = AttemptRecord {
        number: 1,
        worker: worker_id(1),
        verdict: None,
        exit_code: None,
        signal: None,
        reason: None,
        isolation: Some(Isolation::Process),
        tree_guard: Some(TreeGuard::Cgroup),
        usage: Some(UsageRecord { wall_us: 1_500, ..UsageRecord::default() }),
        started_at: Some(Stamp::from_micros(START)),
        finished_at: Some(Stamp::from_micros(START + 1_500)),
        leaked: false,
        output: None,
        limits: Vec::new(),
        kept: None,
        sandbox: None,
        artifacts: None,
    };
    attempt.set_verdict(&Verdict::Exited { code: 3 });
    let mut record = TaskRecord {
        action: None,
        schema: SCHEMA,
        id,
        number: id.seq(),
        name: task.spec.display_name().to_owned(),
        state: TaskState::Failed,
        verdict: None,
        exit_code: None,
        signal: None,
        error: None,
        result: None,
        priority: task.spec.priority,
        present_priority: None,
        group: None,
        expires_at: None,
        progress: None,
        waiting: None,
        command: task.spec.command.clone(),
        cwd: task.spec.cwd.clone(),
        isolation: task.spec.isolation,
        docker: task.spec.docker.clone(),
        worktree: None,
        meta: task.spec.meta.clone(),
        key: None,
        cause: None,
        hook_of: None,
        array: None,
        member: None,
        submitted_at: Stamp::from_micros(START),
        started_at: attempt.started_at,
        finished_at: attempt.finished_at,
        suspended: false,
        usage_now: None,
        suspended_at: None,
        output: OutputSizes::default(),
        attempt_count: 1,
        crash_count: 0,
        oom_count: 0,
        attempts: None,
        hooks: None,
    };
    record.set_verdict(&Verdict::Exited { code: 3 });
    record.attempts = with_attempts.then(|| vec![attempt]);
    record
}

fn status() -> StatusRecord {
    StatusRecord {
        schema: SCHEMA,
        pool: PoolRecord {
            name: "default".into(),
            id: worker_id(0).to_string(),
            pid: std::process::id(),
            state: PoolState::Running,
            paused: None,
            mode: "process".into(),
            started_at: Stamp::from_micros(START),
            version: "0.1.0".into(),
        },
        workers: WorkerCounts { active: 2, idle: 1, busy: 1, target: 2, min: 1, max: 256, ..WorkerCounts::default() },
        tasks: TaskCounts { pending: 12, running: 2, ..TaskCounts::default() },
        cgroup: None,
        resources: Resources { cpu_percent: 45.0, memory_bytes: 1_200_000_000 },
        queue: QueueRecord { accepting: true, problem: None, limit: 10_000_000, backpressure: None },
        docker: None,
        metrics_listen: Some("127.0.0.1:9464".into()),
    }
}

fn workers() -> Vec<WorkerRecord> {
    let worker = |n, status| WorkerRecord {
        schema: SCHEMA,
        id: worker_id(n),
        pid: 100,
        status,
        mode: "process".into(),
        usage_now: None,
        current_task: None,
        started_at: Stamp::from_micros(START),
        last_heartbeat_at: None,
        tasks_completed: 0,
        tasks_failed: 0,
        healthy: true,
    };
    let busy = WorkerRecord {
        current_task: Some(TaskId::new(1_790_000_000_000, 0xAC0DE, 1)),
        ..worker(1, WorkerStatus::Busy)
    };
    vec![busy, worker(2, WorkerStatus::Idle)]
}
