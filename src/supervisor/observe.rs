//! The metrics' hands: takes observations as things happen, and puts the figures together when somebody asks.
//!
//! What costs something (a look at every process of the pool) is done at most once a second, however often it is asked
//! for. Deliberately absent: counting itself (`metrics`), the text's form (`exposition`), and HTTP (`scrape`).

use acode_worker::claim::Lane;
use acode_worker::sys::clock;
use acode_worker::task::{Class, LiveUse, Priority};

use super::Supervisor;
use super::exposition::{self, Facts};
use super::metrics::{Histogram, Registry};
use super::reactor::{METRICS, SCRAPES};
use super::resources::{Meter, OwnUse, machine_memory};
use super::scrape::Scrape;
use crate::store::{EventKind, Op};
use crate::wire::metrics::{ByPriority, Percentiles};
use crate::wire::{MetricsRecord, RunningUse, SCHEMA, TaskUsage};

/// How old figures about processes may be, in nanoseconds.
const LOOK_NS: u64 = 1_000_000_000;
/// How old the text may be that is served, in nanoseconds.
const TEXT_NS: u64 = 100_000_000;

/// What the supervisor needs to be seen from outside.
#[derive(Debug)]
pub struct Observer {
    /// What is counted.
    pub registry: Registry,
    /// Where it is served over HTTP.
    pub scrape: Scrape,
    /// Apart from the status' own, so that neither's looks shorten the other's.
    meter: Meter,
    /// In bytes.
    machine_memory: u64,
    told: Told,
    next_event_ns: u64,
}

impl Observer {
    /// Nothing has happened yet at this time of the monotonic clock, and nothing is served.
    pub fn new(now_ns: u64) -> Self {
        Self {
            registry: Registry::new(now_ns),
            scrape: Scrape::new(METRICS, SCRAPES),
            meter: Meter::default(),
            machine_memory: machine_memory(),
            told: Told::default(),
            next_event_ns: 0,
        }
    }
}

/// The text as it was last put together.
#[derive(Debug, Default)]
struct Told {
    text: String,
    at_ns: u64,
}

impl Supervisor {
    /// `Metrics`: how things are, and what has happened since the pool's start.
    pub(super) fn metrics_record(&mut self) -> MetricsRecord {
        let now_ns = clock::monotonic_ns();
        let (workers, tasks) = (self.worker_counts(), self.task_counts());
        let resources = match self.observer.meter.recent(now_ns, LOOK_NS) {
            Some(recent) => recent,
            None => {
                let pids = self.all_pids();
                self.observer.meter.look(pids.into_iter(), now_ns, self.started_ns)
            }
        };
        let cpus = f64::from(crate::config::usable_cpus().max(1));
        let share = |part: f64| part.clamp(0.0, 1.0);
        let throughput = self.observer.registry.throughput(now_ns);
        let counted = &self.observer.registry;
        MetricsRecord {
            schema: SCHEMA,
            total_workers: workers.active,
            active_workers: workers.busy,
            idle_workers: workers.idle,
            unhealthy_workers: workers.unhealthy,
            pending_tasks: tasks.pending,
            running_tasks: tasks.running + tasks.assigned,
            completed_tasks: counted.ended.completed,
            failed_tasks: counted.ended.failed,
            timeouts: counted.ended.timeout,
            cancelled: counted.ended.cancelled,
            starts: counted.starts,
            retries: counted.retries,
            requeues: counted.requeues,
            average_task_duration: counted.duration.mean_ms(),
            average_queue_time: counted.queue_time.mean_ms(),
            task_duration: percentiles(&counted.duration),
            queue_time: percentiles(&counted.queue_time),
            throughput,
            cpu_utilization: share(resources.cpu_percent / 100.0 / cpus),
            memory_utilization: share(resources.memory_bytes as f64 / self.observer.machine_memory.max(1) as f64),
            workers_started: counted.workers_started,
            worker_restarts: counted.worker_restarts,
            commits: counted.commits.count(),
            events: self.store.last_event(),
            connections: self.clients.len(),
            published: self.published(),
            task_usage: self.task_usage(),
            uptime: now_ns.saturating_sub(self.started_ns) as f64 / 1e9,
        }
    }

    /// What tasks have used, and what the running ones use by their workers' last word.
    fn task_usage(&self) -> TaskUsage {
        let used = &self.observer.registry.usage;
        let rows = self.producer.rows().filter_map(|(slot, row)| Some((slot, row.live?)));
        let running: Vec<RunningUse> = rows
            .map(|(slot, LiveUse { cpu_us, memory_bytes, pids, disk_bytes: _ })| RunningUse {
                slot,
                cpu_us,
                memory_bytes,
                pids,
            })
            .collect();
        TaskUsage {
            cpu_seconds: used.cpu_us as f64 / 1e6,
            throttled_seconds: used.throttled_us as f64 / 1e6,
            oom_kills: used.oom_kills,
            read_bytes: used.read_bytes,
            written_bytes: used.written_bytes,
            peak_memory_bytes: used.peak_memory_bytes,
            memory_bytes: running.iter().map(|running| running.memory_bytes).sum(),
            pids: running.iter().map(|running| running.pids).sum(),
            over_limit: used.over_limit.clone(),
            running,
        }
    }

    /// How many tasks lie ready to be claimed.
    fn published(&mut self) -> ByPriority {
        let mut counts = ByPriority::default();
        for priority in Priority::ALL {
            let ready = Class::ALL.map(|class| self.producer.ready_in(Lane { class, priority }) as u64);
            let place = match priority {
                Priority::Critical => &mut counts.critical,
                Priority::High => &mut counts.high,
                Priority::Normal => &mut counts.normal,
                Priority::Low => &mut counts.low,
            };
            *place = ready.into_iter().sum();
        }
        counts
    }

    /// The metrics in Prometheus' text format. A text that is hardly old is given again, so that nobody can keep the
    /// supervisor busy by asking.
    pub(super) fn metrics_text(&mut self) -> &str {
        let now_ns = clock::monotonic_ns();
        if self.observer.told.text.is_empty() || now_ns.saturating_sub(self.observer.told.at_ns) >= TEXT_NS {
            let facts = Facts {
                record: self.metrics_record(),
                tasks: self.task_counts(),
                workers: self.worker_counts(),
                docker: self.engine_record().and_then(|docker| docker.available),
                own: OwnUse::look(),
                started_s: self.started_us as f64 / 1e6,
                pool: self.config.pool.name.clone(),
            };
            self.observer.told = Told { text: exposition::text(&facts, &self.observer.registry), at_ns: now_ns };
        }
        &self.observer.told.text
    }

    /// Tells the metrics as an event, if it is time and something has happened. It wakes nobody: a pool that sleeps tells
    /// them when it is next awake.
    pub(super) fn tell_metrics(&mut self) {
        let Some(interval) = self.config.metrics.events_interval else { return };
        if self.now_ns < self.observer.next_event_ns || self.broken.is_some() || self.is_stopping() {
            return;
        }
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        self.observer.next_event_ns = self.now_ns.saturating_add(interval_ns);
        if !self.observer.registry.take_news() {
            return;
        }
        // Numbers have a JSON form in any case.
        let data = serde_json::to_string(&self.metrics_record()).ok();
        self.record(Op::PoolEvent { kind: EventKind::MetricsUpdated, at_us: crate::requests::now_us(), data });
    }
}

fn percentiles<const N: usize>(times: &Histogram<N>) -> Percentiles {
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| times.percentile_ms(share));
    Percentiles { p50, p90, p99 }
}
