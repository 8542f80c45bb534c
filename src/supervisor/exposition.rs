//! The metrics in Prometheus' text format, version 0.0.4. Pure: figures in, text out.
//!
//! Names follow its conventions: base units, `_total` for what only grows, a unit or nothing for the rest. Counters begin
//! with the pool, as Prometheus expects of a process that is started again; what the queue holds is in gauges.
//! Deliberately absent: OpenMetrics, whose counters have other names in their `TYPE` lines, which Prometheus' own checker
//! takes for a mistake in this format.

use std::fmt::{Display, Write};

use acode_worker::task::{Priority, TaskState};

use super::metrics::{Histogram, Registry};
use super::resources::OwnUse;
use crate::wire::types::{TaskCounts, WorkerCounts};
use crate::wire::{MetricsRecord, TaskUsage};

/// What the registry does not know: how things are at the moment.
#[derive(Debug)]
pub struct Facts {
    /// The metrics that JSON has as well.
    pub record: MetricsRecord,
    /// All tasks of the queue by state.
    pub tasks: TaskCounts,
    /// The workers by status.
    pub workers: WorkerCounts,
    /// Whether the container engine can be used, if there are workers who have found out.
    pub docker: Option<bool>,
    /// What the supervisor's process uses.
    pub own: OwnUse,
    /// When the pool started, in seconds of Unix time.
    pub started_s: f64,
    /// The pool's name.
    pub pool: String,
}

/// The whole text.
pub fn text(facts: &Facts, registry: &Registry) -> String {
    // Some six kilobytes come out.
    let mut text = Text(String::with_capacity(8 << 10));
    tasks(&mut text, facts, registry);
    workers(&mut text, facts);
    usage(&mut text, &facts.record.task_usage);
    process(&mut text, facts);
    text.0
}

fn tasks(text: &mut Text, facts: &Facts, registry: &Registry) {
    let Facts { record, tasks, .. } = facts;
    text.head("acode_tasks", "gauge", "Tasks that the queue holds, by state; members of arrays one by one.");
    for state in TaskState::ALL {
        text.labelled("acode_tasks", "state", state.name(), tasks.get(state));
    }
    text.head("acode_published_tasks", "gauge", "Tasks that lie ready for workers to claim, by priority.");
    for priority in Priority::ALL {
        let count = match priority {
            Priority::Critical => record.published.critical,
            Priority::High => record.published.high,
            Priority::Normal => record.published.normal,
            Priority::Low => record.published.low,
        };
        text.labelled("acode_published_tasks", "priority", priority.name(), count);
    }
    text.counter("acode_tasks_completed_total", "Tasks completed since the pool's start.", record.completed_tasks);
    text.counter("acode_tasks_failed_total", "Tasks failed for good since the pool's start.", record.failed_tasks);
    text.counter("acode_tasks_timeout_total", "Tasks that ran out of time since the pool's start.", record.timeouts);
    text.counter("acode_tasks_cancelled_total", "Tasks cancelled since the pool's start.", record.cancelled);
    text.counter("acode_attempts_started_total", "Attempts started since the pool's start.", record.starts);
    text.counter("acode_retries_total", "Attempts that failed and are followed by another one.", record.retries);
    text.counter("acode_requeues_total", "Attempts lost or taken back, their tasks queued again.", record.requeues);
    let help = "From a task's being ready to the start of its attempt.";
    text.histogram("acode_task_queue_seconds", help, &registry.queue_time);
    let help = "From the start of an attempt to its end, whatever its verdict.";
    text.histogram("acode_task_duration_seconds", help, &registry.duration);
    text.counter("acode_commits_total", "Transactions of the queue since the pool's start.", record.commits);
    let help = "How long a transaction of the queue takes, its flush to the disk included.";
    text.histogram("acode_commit_seconds", help, &registry.commits);
    text.counter("acode_events_total", "Events that the queue has ever recorded.", record.events);
}

fn workers(text: &mut Text, facts: &Facts) {
    let Facts { record, workers, .. } = facts;
    text.head("acode_workers", "gauge", "Worker processes, by status.");
    let by_status = [
        ("starting", workers.starting),
        ("idle", workers.idle),
        ("busy", workers.busy),
        ("unhealthy", workers.unhealthy),
        ("stopping", workers.stopping),
    ];
    for (status, count) in by_status {
        text.labelled("acode_workers", "status", status, count);
    }
    text.head("acode_workers_by_mode", "gauge", "Worker processes, by how they keep their tasks apart.");
    for (mode, count) in [("process", workers.modes.process), ("docker", workers.modes.docker)] {
        text.labelled("acode_workers_by_mode", "mode", mode, count);
    }
    if let Some(available) = facts.docker {
        let help = "Whether all docker workers can use the container engine.";
        text.gauge("acode_docker_available", help, u8::from(available));
    }
    text.gauge("acode_workers_target", "How many workers there shall be.", workers.target);
    text.counter("acode_workers_started_total", "Workers made since the pool's start.", record.workers_started);
    text.counter("acode_worker_restarts_total", "Workers made in the place of one that died.", record.worker_restarts);
    text.gauge("acode_connections", "Clients connected to the control socket.", record.connections);
    let help = "The share of the usable processors that the pool and its tasks use.";
    text.gauge("acode_cpu_utilization_ratio", help, record.cpu_utilization);
    let help = "The share of the machine's memory that the pool and its tasks use.";
    text.gauge("acode_memory_utilization_ratio", help, record.memory_utilization);
}

fn usage(text: &mut Text, used: &TaskUsage) {
    let help = "Processor time of ended attempts, user and system.";
    text.counter("acode_task_cpu_seconds_total", help, used.cpu_seconds);
    let help = "Time in which CPU limits held ended attempts back.";
    text.counter("acode_task_throttled_seconds_total", help, used.throttled_seconds);
    let help = "Processes of ended attempts that the kernel killed for want of memory.";
    text.counter("acode_task_oom_kills_total", help, used.oom_kills);
    let help = "Bytes that ended attempts read from block devices.";
    text.counter("acode_task_read_bytes_total", help, used.read_bytes);
    let help = "Bytes that ended attempts wrote, meant for block devices.";
    text.counter("acode_task_written_bytes_total", help, used.written_bytes);
    text.head("acode_over_limit_total", "counter", "Attempts that ended because they exceeded a limit, by its key.");
    for (limit, count) in &used.over_limit {
        text.labelled("acode_over_limit_total", "limit", limit, count);
    }
    let help = "The most memory that an ended attempt had, all of its processes together.";
    text.gauge("acode_task_peak_memory_bytes", help, used.peak_memory_bytes);
    text.gauge("acode_tasks_memory_bytes", "Memory of all running attempts.", used.memory_bytes);
    text.gauge("acode_tasks_processes", "Processes and threads of all running attempts.", used.pids);
    text.head("acode_running_task_cpu_seconds", "gauge", "Processor time so far of a worker's task, by its slot.");
    for running in &used.running {
        text.labelled("acode_running_task_cpu_seconds", "slot", &running.slot.to_string(), seconds(running.cpu_us));
    }
    text.head("acode_running_task_memory_bytes", "gauge", "Memory of a worker's task, by its slot.");
    for running in &used.running {
        text.labelled("acode_running_task_memory_bytes", "slot", &running.slot.to_string(), running.memory_bytes);
    }
    text.head("acode_running_task_processes", "gauge", "Processes and threads of a worker's task, by its slot.");
    for running in &used.running {
        text.labelled("acode_running_task_processes", "slot", &running.slot.to_string(), running.pids);
    }
}

fn process(text: &mut Text, facts: &Facts) {
    let own = &facts.own;
    let help = "Processor time of the supervisor itself, user and system.";
    text.counter("acode_process_cpu_seconds_total", help, own.cpu_seconds);
    text.gauge("acode_process_resident_memory_bytes", "Resident memory of the supervisor.", own.resident_bytes);
    text.gauge("acode_process_virtual_memory_bytes", "Address space of the supervisor.", own.virtual_bytes);
    text.gauge("acode_process_open_fds", "Open descriptors of the supervisor.", own.open_fds);
    text.gauge("acode_process_max_fds", "The most descriptors that the supervisor may open.", own.max_fds);
    let help = "When the pool started, in seconds of Unix time.";
    text.gauge("acode_process_start_time_seconds", help, facts.started_s);
    text.head("acode_build_info", "gauge", "Always 1; its labels say what runs here.");
    // A pool's name has no character that would need escaping, nor has a version.
    let (version, pool) = (env!("CARGO_PKG_VERSION"), &facts.pool);
    text.line(format_args!("acode_build_info{{version=\"{version}\",pool=\"{pool}\"}} 1"));
}

/// The text as it grows.
struct Text(String);

impl Text {
    fn line(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn labelled(&mut self, name: &str, label: &str, value: &str, number: impl Display) {
        self.line(format_args!("{name}{{{label}=\"{value}\"}} {number}"));
    }

    fn counter(&mut self, name: &str, help: &str, number: impl Display) {
        self.head(name, "counter", help);
        self.line(format_args!("{name} {number}"));
    }

    fn gauge(&mut self, name: &str, help: &str, number: impl Display) {
        self.head(name, "gauge", help);
        self.line(format_args!("{name} {number}"));
    }

    fn histogram<const N: usize>(&mut self, name: &str, help: &str, times: &Histogram<N>) {
        self.head(name, "histogram", help);
        for (bound_us, upto) in times.cumulative() {
            self.line(format_args!("{name}_bucket{{le=\"{}\"}} {upto}", seconds(bound_us)));
        }
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {}", times.count()));
        self.line(format_args!("{name}_sum {}", seconds(times.sum_us())));
        self.line(format_args!("{name}_count {}", times.count()));
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn sample() -> String {
        let mut registry = Registry::new(0);
        registry.started(1_500);
        registry.ran(2_000_000);
        let facts = Facts {
            record: MetricsRecord { completed_tasks: 3, cpu_utilization: 0.25, ..MetricsRecord::default() },
            tasks: TaskCounts { pending: 7, ..TaskCounts::default() },
            workers: WorkerCounts { idle: 2, ..WorkerCounts::default() },
            docker: Some(true),
            own: OwnUse::default(),
            started_s: 1_790_000_000.5,
            pool: "night".to_owned(),
        };
        text(&facts, &registry)
    }

    #[test]
    fn every_sample_belongs_to_a_family_with_help_and_type() {
        let text = sample();
        let mut families = BTreeSet::new();
        let mut kind = "";
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                (family, kind) = rest.split_once(' ').unwrap();
                assert!(families.insert(family), "{family} twice");
                assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(rest.split_once(' ').is_some_and(|(_, help)| help.ends_with('.')), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                let stem = name.strip_suffix("_bucket").or(name.strip_suffix("_sum")).or(name.strip_suffix("_count"));
                let own = if kind == "histogram" { stem.unwrap() } else { name };
                assert_eq!(own, family);
                line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
            }
        }
        assert!(families.len() > 25 && text.ends_with('\n'));
    }

    #[test]
    fn figures_stand_where_they_belong() {
        let text = sample();
        for line in [
            "acode_tasks{state=\"pending\"} 7",
            "acode_tasks_completed_total 3",
            "acode_workers{status=\"idle\"} 2",
            "acode_task_queue_seconds_bucket{le=\"0.001\"} 0",
            "acode_task_queue_seconds_bucket{le=\"0.0025\"} 1",
            "acode_task_queue_seconds_bucket{le=\"+Inf\"} 1",
            "acode_task_queue_seconds_sum 0.0015",
            "acode_task_duration_seconds_sum 2",
            "acode_cpu_utilization_ratio 0.25",
            "acode_process_start_time_seconds 1790000000.5",
            "acode_build_info{version=\"0.1.0\",pool=\"night\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
