//! The pool's metrics as one JSON record: `acode worker metrics --json`, and the data of the event `metrics-updated`.
//!
//! The names are those of the worker manager's `getMetrics()`, in its camelCase; what is more than that follows the same
//! style. Pure data. Deliberately absent: the histograms themselves, which the Prometheus text has.

use serde::{Deserialize, Serialize};

use super::TaskUsage;

/// What a pool does, and what it has done since its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsRecord {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// Workers that live.
    pub total_workers: u32,
    /// Of these, busy.
    pub active_workers: u32,
    /// Of these, idle.
    pub idle_workers: u32,
    /// Of these, unhealthy.
    pub unhealthy_workers: u32,
    /// Tasks that wait.
    pub pending_tasks: u64,
    /// Tasks that a worker has.
    pub running_tasks: u64,
    /// Tasks completed since the pool's start.
    pub completed_tasks: u64,
    /// Tasks that failed for good since then; without those of `timeouts`.
    pub failed_tasks: u64,
    /// Tasks that ran out of time since then.
    pub timeouts: u64,
    /// Tasks cancelled since then.
    pub cancelled: u64,
    /// Attempts started since then.
    pub starts: u64,
    /// Attempts since then that failed and are followed by another one.
    pub retries: u64,
    /// Attempts since then that were lost or taken back, whose tasks were queued again.
    pub requeues: u64,
    /// The mean duration of an attempt since then, in milliseconds.
    pub average_task_duration: f64,
    /// The mean time from a task's being ready to its start, in milliseconds.
    pub average_queue_time: f64,
    /// Durations of attempts, in milliseconds.
    pub task_duration: Percentiles,
    /// Times from being ready to the start, in milliseconds.
    pub queue_time: Percentiles,
    /// Tasks that ended by themselves per second, over the last minute.
    pub throughput: f64,
    /// The share of the usable processors that the pool and its tasks use, 0 to 1.
    pub cpu_utilization: f64,
    /// The share of the machine's memory that they use, 0 to 1.
    pub memory_utilization: f64,
    /// Workers made since the pool's start.
    pub workers_started: u64,
    /// Of these, in the place of one that died.
    pub worker_restarts: u64,
    /// Transactions of the queue since then.
    pub commits: u64,
    /// The number of the queue's last event.
    pub events: u64,
    /// Clients connected.
    pub connections: u32,
    /// Tasks that lie ready for workers to claim, by priority; a bounded number, however many wait.
    pub published: ByPriority,
    /// What tasks have used since the pool's start, and use now.
    pub task_usage: TaskUsage,
    /// Seconds since the pool's start.
    pub uptime: f64,
}

/// What so many of a hundred did not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of them.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
}

/// A number for each priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByPriority {
    /// The most urgent.
    pub critical: u64,
    /// Urgent.
    pub high: u64,
    /// As usual.
    pub normal: u64,
    /// Whenever there is time.
    pub low: u64,
}
