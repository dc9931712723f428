//! What a run did, as plain data: `chunkwise run --report` writes it as JSON.

use std::time::Duration;

use serde::Serialize;

use crate::error::ErrorKind;
use crate::plan::slice::InputMode;

/// A whole run.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Time from the start of planning to the last task's end, in milliseconds.
    pub wall_ms: u64,
    /// Largest resident set of this process so far, in bytes; `None` where the system doesn't tell (it does on Linux).
    pub peak_rss_bytes: Option<u64>,
    /// The tasks, each after those it reads.
    pub tasks: Vec<TaskReport>,
}

impl RunReport {
    /// Whether every task was executed or reused, and its table published, or would be.
    pub fn succeeded(&self) -> bool {
        self.tasks.iter().all(|task| matches!(task.status, Status::Executed | Status::Reused | Status::Planned))
    }

    /// One task's part.
    pub fn task(&self, name: &str) -> Option<&TaskReport> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

/// What became of one task.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskReport {
    /// Its name.
    pub name: String,
    /// The stage that it is published with, if it is of one.
    pub stage: Option<String>,
    /// What became of it.
    pub status: Status,
    /// Why it ran, was reused, failed or was skipped.
    pub reason: String,
    /// The kind of the error that it failed with.
    pub error: Option<ErrorKind>,
    /// Its keys; empty when it ran whole.
    pub keys: Vec<String>,
    /// Why it was cut though that can't be proved right, as its author says; `None` for what is proved.
    pub assumed: Option<String>,
    /// Its number of chunks.
    pub chunks: u32,
    /// Chunks that ran, or would run if this were no dry run.
    pub executed: u32,
    /// Chunks that were in the cache.
    pub reused: u32,
    /// Chunks that were in the cache, computed again and found equal.
    pub audited: u32,
    /// Rows of its table.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of the splits that were made for it; 0 when it read none, or those that were there.
    pub split_bytes: u64,
    /// Bytes that its chunks read of Parquet files, sources and stored chunks, without those that were read to see what changed.
    pub scanned_bytes: u64,
    /// Bytes that operators of its chunks wrote to spill files.
    pub spilled_bytes: u64,
    /// Time from its start to its publication, or until it was ready to be published with its stage, in milliseconds; it
    /// includes waiting for a free job.
    pub wall_ms: u64,
    /// What each reading of an input gave to a chunk.
    pub inputs: Vec<InputReport>,
    /// The steps it ran in, the last of which gave its table; one for most tasks.
    pub steps: Vec<StepReport>,
}

/// One step of a task.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// The task's name for the last step, `name#1`, `name#2`, … for those before it.
    pub name: String,
    /// What it is of the task's query.
    pub part: StepPart,
    /// Its keys; empty when it ran whole.
    pub keys: Vec<String>,
    /// Its number of chunks.
    pub chunks: u32,
    /// What each reading of an input, or of a step before, gave to a chunk.
    pub inputs: Vec<InputReport>,
}

/// What a step is of its task's query.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepPart {
    /// The chunks' part of an operator that is done in two phases.
    Phase,
    /// A part of the query that the rest can't compute chunk by chunk.
    First,
    /// A part that the query reads more than once.
    Repeated,
    /// The input of an operator that can't be cut.
    Below,
    /// What the task's function stores on its way.
    Materialized,
    /// The whole query, or the rest of it.
    Rest,
}

impl TaskReport {
    /// A report of a task of which nothing ran.
    pub fn new(name: &str, status: Status) -> Self {
        Self {
            name: name.to_string(),
            stage: None,
            status,
            reason: String::new(),
            error: None,
            keys: Vec::new(),
            assumed: None,
            chunks: 0,
            executed: 0,
            reused: 0,
            audited: 0,
            rows: 0,
            bytes: 0,
            split_bytes: 0,
            scanned_bytes: 0,
            spilled_bytes: 0,
            wall_ms: 0,
            inputs: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Adds what step number `number` did, of which `step` is a report. The first that ran has the reason.
    pub(crate) fn add_step(&mut self, number: usize, step: Self) {
        if self.status == Status::Reused {
            (self.status, self.reason) = (step.status, step.reason);
        }
        self.executed += step.executed;
        self.reused += step.reused;
        self.audited += step.audited;
        self.split_bytes += step.split_bytes;
        self.scanned_bytes += step.scanned_bytes;
        self.spilled_bytes += step.spilled_bytes;
        if let (Some(own), Some(step)) = (self.steps.get_mut(number), step.steps.into_iter().nth(number)) {
            *own = step;
        }
    }
}

/// What became of a task.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// At least one chunk ran, and the table is published.
    Executed,
    /// All chunks were in the cache, and the table is published.
    Reused,
    /// At least one chunk would run, if this were no dry run.
    Planned,
    /// All its chunks are in the cache, but its table is as before, since its stage was not published.
    Withheld,
    /// It failed or was refused; its table is as before.
    Failed,
    /// Something it reads failed, or was not published with its stage.
    Skipped,
}

/// How one reading of an input was cut.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputReport {
    /// The source or task that was read.
    pub table: String,
    /// How.
    pub mode: InputMode,
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Largest resident set of this process so far, in bytes, from `/proc/self/status`.
pub fn peak_rss_bytes() -> Option<u64> {
    bytes_of_status("VmHWM:")
}

/// Resident set of this process, in bytes, from `/proc/self/status`.
#[cfg(feature = "cli")]
pub fn rss_bytes() -> Option<u64> {
    bytes_of_status("VmRSS:")
}

fn bytes_of_status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
