//! Processes files in parallel: one action for each, in a pool that lives as long as this program.
//!
//!     file_processor [--process] OUTPUT-FOLDER FILE...
//!
//! Each file is written to the output folder with its lines numbered. With `--process` each action has a process of its own
//! with at most 512 MiB of memory. Every file that could not be processed is told of, and the exit code is 1 then.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use acode::api::actions::OutputFile;
use acode::api::{self, ActionError, ApiError, Context, Registry, WorkAction, WorkerPool, WorkerPoolOptions};
use serde::{Deserialize, Serialize};

/// What the action is told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProcessParameters {
    input_file: PathBuf,
    output_folder: PathBuf,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
struct Processed {
    output: PathBuf,
    lines: u64,
}

/// The action.
struct ProcessFile;

impl WorkAction for ProcessFile {
    const NAME: &'static str = "process-file";
    type Params = ProcessParameters;
    type Output = Processed;

    fn execute(params: ProcessParameters, context: &mut Context<'_>) -> Result<Processed, ActionError> {
        let name = params.input_file.file_name().ok_or_else(|| ActionError::new("it has no file name"))?;
        let output = params.output_folder.join(name);
        let input = File::open(&params.input_file)?;
        // It appears whole or not at all, whoever is killed when.
        let mut file = OutputFile::create(&output, true)?;
        let mut lines = 0;
        for line in BufReader::new(input).lines() {
            context.check()?;
            lines += 1;
            writeln!(file, "{lines}\t{}", line?)?;
        }
        file.finish()?;
        Ok(Processed { output, lines })
    }
}

fn main() -> ExitCode {
    // The pool executes this program again for its other processes: this call does their work.
    api::init(Registry::built_in().with::<ProcessFile>());
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("file_processor: {}", acode::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), ApiError> {
    let mut words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let in_process = words.first().is_some_and(|word| word.as_os_str() == "--process");
    let files = words.split_off(words.len().min(1 + usize::from(in_process)));
    let (Some(output_folder), false) = (words.pop(), files.is_empty()) else {
        return Err(ApiError::Usage("usage: file_processor [--process] OUTPUT-FOLDER FILE...".to_owned()));
    };
    // An action runs elsewhere: what it is told must not depend on where we are.
    let absolute = |path| std::path::absolute(path).map_err(|error| ApiError::Usage(error.to_string()));
    let output_folder = absolute(output_folder)?;

    let pool = WorkerPool::start(WorkerPoolOptions::default())?;
    let executor = pool.executor();
    let queue = match in_process {
        true => executor.process_isolation(|fork| fork.max_memory("512m")),
        false => executor.no_isolation(),
    };
    for file in files {
        let params = ProcessParameters { input_file: absolute(file)?, output_folder: output_folder.clone() };
        queue.submit_with::<ProcessFile>(
            params,
            |task| task,
            |answer| {
                // Failures are told all together, below.
                if let Ok(Processed { output, lines }) = answer {
                    println!("{} lines in {}", lines, output.display());
                }
            },
        )?;
    }
    // Every failure, not only the first.
    let waited = queue.wait();
    pool.stop(false)?;
    waited
}
