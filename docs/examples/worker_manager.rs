//! A manager of CPU-intensive work from its start to its shutdown: twenty tasks of two priorities, an aggregate that depends on
//! ten of them, events, callbacks, metrics.
//!
//! Each of the twenty filters a thousand rows into a file; the aggregate describes the rows of ten of these files in
//! figures. Both are built-in actions.

use std::time::Duration;

use acode::api::actions::{Analysis, AnalysisReport, DataProcessing, DataResult};
use acode::api::{self, ApiError, EventKind, Isolation, Priority, Registry, Task, WorkerPool, WorkerPoolOptions};
use serde_json::{Value, json};

const TASKS: usize = 20;
const ROWS: usize = 1_000;

fn main() -> Result<(), ApiError> {
    // The pool executes this program again for its other processes: this call does their work.
    api::init(Registry::built_in());

    let manager = WorkerPool::start(
        WorkerPoolOptions::manager()
            .min_workers(2)
            .max_workers(8)
            .task_timeout(Duration::from_secs(30))
            .auto_scaling(true)
            .health_checks(true),
    )?;
    let outcome = work(&manager);
    // In any case: what runs may finish, and all callbacks are called.
    manager.stop(false)?;
    println!("Worker manager shut down");
    outcome
}

fn work(manager: &WorkerPool) -> Result<(), ApiError> {
    listen(manager)?;
    let folder = tempfile::tempdir().map_err(ApiError::Folder)?;
    let file = |number: usize| folder.path().join(format!("batch-{number}.jsonl")).to_string_lossy().into_owned();

    let mut ids = Vec::new();
    for number in 0..TASKS {
        let priority = if number < 5 { Priority::High } else { Priority::Normal };
        let task = Task::action(api::ActionType::DataProcessing, batch(number, file(number)))
            .isolation(Isolation::None)
            .priority(priority)
            .timeout(Duration::from_secs(20));
        let handle = manager.submit_with(task, move |outcome| {
            match outcome.and_then(|outcome| outcome.output::<DataResult>()) {
                Ok(result) => println!("Task {number} processed {} items", result.rows_out),
                Err(error) => eprintln!("Task {number} error: {error}"),
            }
        })?;
        ids.push(handle.id());
    }
    println!("Submitted {} tasks", ids.len());

    let metrics = manager.metrics()?;
    println!("Current metrics: {} pending, {} running", metrics.pending_tasks, metrics.running_tasks);

    // A typed action: its parameters and its answer are Rust types.
    let inputs: Vec<String> = (0..10).map(file).collect();
    let params = serde_json::from_value(json!({ "inputs": inputs, "columns": ["value"] }))?;
    let aggregate = manager.executor().no_isolation().submit_with::<Analysis>(
        params,
        |task| task.priority(Priority::Critical).after_all(ids[..10].iter().copied()),
        |answer| match answer {
            Ok(report) => println!("Aggregate result: {}", summary(&report)),
            Err(error) => eprintln!("Aggregate task failed: {error}"),
        },
    )?;
    ids.push(aggregate.id());

    // Wait for everything to complete; who did not is told by name.
    manager.wait(&ids)?;

    let last = manager.metrics()?;
    println!("\n=== Final Statistics ===");
    println!("Total tasks: {}", last.completed_tasks + last.failed_tasks);
    println!("Completed: {}", last.completed_tasks);
    println!("Failed: {}", last.failed_tasks);
    println!("Average duration: {:.0} ms", last.average_task_duration);
    println!("Throughput: {:.2} tasks/sec", last.throughput);
    Ok(())
}

/// Says what happens.
fn listen(manager: &WorkerPool) -> Result<(), ApiError> {
    manager.on(EventKind::TaskCompleted, |event| println!("Task {} completed", shown(event.task)))?;
    manager.on(EventKind::TaskFailed, |event| eprintln!("Task {} failed: {}", shown(event.task), event.data))?;
    // By the names of listeners, too.
    let kind = |name: &str| name.parse::<EventKind>().map_err(|error| ApiError::Usage(error.to_string()));
    manager.on(kind("scaledUp")?, |event| println!("Scaled up to {} workers", shown(event.worker_count())))?;
    manager.on(kind("scaledDown")?, |event| println!("Scaled down to {} workers", shown(event.worker_count())))?;
    Ok(())
}

/// The parameters of one task: rows, of which those with a value are kept.
fn batch(number: usize, output: String) -> Value {
    let row = |place: usize| json!({ "id": number * ROWS + place, "value": (place * 7919) % 1_000 });
    let data: Vec<Value> = (0..ROWS).map(row).collect();
    let params = json!({ "data": data, "output": output });
    // A mistake in it is told here, and not by the pool.
    debug_assert!(serde_json::from_value::<<DataProcessing as api::WorkAction>::Params>(params.clone()).is_ok());
    params
}

fn summary(report: &AnalysisReport) -> String {
    let numbers = report.columns.first().and_then(|column| column.numbers.as_ref());
    let mean = numbers.and_then(|numbers| numbers.mean).unwrap_or_default();
    format!("{} rows, mean value {mean:.1}", report.rows)
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
