//! All that was measured, as it is in `memory.json`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::check::Digest;
use crate::child::{Measured, Outcome, table_path};
use crate::configuration::{Configuration, System};
use crate::duckdb::DuckDb;
use crate::options::Options;
use crate::process::{machine_memory_bytes, processor};
use crate::task::{TABLES, Task};

/// A run of the bench.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    versions: Versions,
    /// TPC-H's scale factor.
    pub scale: f64,
    /// Bytes of the tables' files.
    data_bytes: u64,
    compression: String,
    threads: usize,
    /// What was measured of each task.
    pub tasks: Vec<TaskReport>,
}

/// What the figures are from.
#[derive(Debug, Serialize)]
struct Machine {
    processor: Option<String>,
    processors: Option<usize>,
    memory_bytes: Option<u64>,
    system: &'static str,
    architecture: &'static str,
}

#[derive(Debug, Serialize)]
struct Versions {
    chunkwise: &'static str,
    datafusion: &'static str,
    duckdb: Option<String>,
}

/// What was measured of one task.
#[derive(Debug, Serialize)]
pub struct TaskReport {
    /// Its name.
    pub task: &'static str,
    query: &'static str,
    key: &'static str,
    /// What every output must be.
    pub expected: Option<Digest>,
    /// What was measured of each configuration.
    pub results: Vec<Result>,
}

/// What was measured of one configuration.
#[derive(Debug, Serialize)]
pub struct Result {
    /// How it was run.
    #[serde(flatten)]
    pub configuration: Configuration,
    /// The median of each figure over the runs; `None` if one failed or had wrong rows.
    pub median: Option<Measured>,
    /// What is wrong with its rows.
    problem: Option<String>,
    /// Every run.
    runs: Vec<Outcome>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(options: &Options, data: &Path, duckdb: Option<&DuckDb>) -> Self {
        let bytes = |table| fs::metadata(table_path(data, table)).map_or(0, |file| file.len());
        Self {
            machine: Machine {
                processor: processor(),
                processors: std::thread::available_parallelism().ok().map(usize::from),
                memory_bytes: machine_memory_bytes(),
                system: std::env::consts::OS,
                architecture: std::env::consts::ARCH,
            },
            versions: Versions {
                chunkwise: env!("CARGO_PKG_VERSION"),
                datafusion: chunkwise::datafusion::DATAFUSION_VERSION,
                duckdb: duckdb.map(|duckdb| duckdb.version.clone()),
            },
            scale: options.scale,
            data_bytes: TABLES.into_iter().map(bytes).sum(),
            compression: options.compression.clone(),
            threads: options.threads(),
            tasks: Vec::new(),
        }
    }

    /// Wrong rows of anyone, and runs in which Chunkwise failed.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for task in &self.tasks {
            for result in &task.results {
                let must_succeed = result.configuration.system == System::Chunkwise;
                let problem = if must_succeed { result.complaint() } else { result.problem.as_deref() };
                problems.extend(problem.map(|problem| format!("{}: {}: {problem}", task.task, result.configuration)));
            }
        }
        problems
    }

    /// The machine in a few words.
    pub fn machine(&self) -> String {
        let Machine { processor, processors, memory_bytes, .. } = &self.machine;
        let parts = [
            processor.clone(),
            processors.map(|processors| format!("{processors} processors")),
            memory_bytes.map(crate::configuration::bytes_text),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl TaskReport {
    /// What was measured of a task.
    pub fn new(task: &Task, expected: Option<Digest>, results: Vec<Result>) -> Self {
        let Task { name, query, key, .. } = *task;
        Self { task: name, query, key, expected, results }
    }

    /// The figures that all others are compared to.
    pub fn unchunked(&self) -> Option<&Measured> {
        self.results.iter().find(|result| result.configuration.is_unchunked())?.median.as_ref()
    }
}

impl Result {
    /// Nothing measured yet.
    pub fn new(configuration: Configuration) -> Self {
        Self { configuration, median: None, problem: None, runs: Vec::new() }
    }

    /// Adds a run, and what is wrong with its rows.
    pub fn add(&mut self, outcome: Outcome, problem: Option<String>) {
        self.runs.push(outcome);
        self.problem = self.problem.take().or(problem);
        let done: Vec<&Measured> = self.runs.iter().filter_map(done).collect();
        self.median = (done.len() == self.runs.len() && self.problem.is_none()).then(|| median(&done));
    }

    /// What is wrong with its rows, or why a run failed.
    pub fn complaint(&self) -> Option<&str> {
        self.problem.as_deref().or(self.failure())
    }

    /// Why a run gave no output, if one did not.
    pub fn failure(&self) -> Option<&str> {
        self.runs.iter().find_map(|outcome| match outcome {
            Outcome::Failed(reason) => Some(reason.as_str()),
            Outcome::Done(_) => None,
        })
    }
}

fn done(outcome: &Outcome) -> Option<&Measured> {
    match outcome {
        Outcome::Done(measured) => Some(measured),
        Outcome::Failed(_) => None,
    }
}

/// The median of each figure by itself; of an even number, the lower of the two in the middle.
fn median(runs: &[&Measured]) -> Measured {
    fn middle<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
        values.sort_unstable();
        values.get(values.len().checked_sub(1)? / 2).copied()
    }
    let of = |figure: fn(&Measured) -> Option<u64>| middle(runs.iter().filter_map(|run| figure(run)).collect());
    let walls: Vec<Duration> = runs.iter().map(|run| run.wall).collect();
    Measured {
        wall: middle(walls).unwrap_or_default(),
        peak_rss_bytes: of(|run| run.peak_rss_bytes),
        allocator_peak_bytes: of(|run| run.allocator_peak_bytes),
        pool_peak_bytes: of(|run| run.pool_peak_bytes),
        read_bytes: of(|run| run.read_bytes),
        written_bytes: of(|run| run.written_bytes),
        spilled_bytes: of(|run| run.spilled_bytes),
        split_bytes: of(|run| run.split_bytes),
        chunks: runs.iter().find_map(|run| run.chunks),
    }
}
