//! DuckDB: its command line, or its Python module.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child::{Job, table_path};
use crate::process::{Watched, watch};
use crate::task::{TABLES, Task};

const PYTHON: &str = "import duckdb, sys; duckdb.connect().execute(sys.argv[1])";
const PYTHON_VERSION: &str = "import duckdb; print(duckdb.__version__)";

/// How to start DuckDB.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DuckDb {
    start: Start,
    /// What it says it is.
    pub version: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Start {
    CommandLine(PathBuf),
    Python,
}

impl DuckDb {
    /// The command line `program` (by default `duckdb`), else Python's module, else nothing.
    pub fn find(program: Option<&Path>) -> Option<Self> {
        let program = program.unwrap_or(Path::new("duckdb")).to_path_buf();
        let version = said(Command::new(&program).arg("--version"));
        let command_line = version.map(|version| Self { start: Start::CommandLine(program), version });
        command_line.or_else(|| {
            let version = said(Command::new("python3").args(["-c", PYTHON_VERSION]))?;
            Some(Self { start: Start::Python, version })
        })
    }

    /// Runs statements in a process of their own, which is killed after `stop_after`.
    pub fn run(&self, script: &str, stop_after: Duration) -> io::Result<Watched> {
        let mut command = match &self.start {
            Start::CommandLine(program) => Command::new(program),
            Start::Python => Command::new("python3"),
        };
        match &self.start {
            Start::CommandLine(_) => command.args(["-init", "/dev/null", "-c", script]),
            Start::Python => command.args(["-c", PYTHON, script]),
        };
        watch(&mut command, Some(stop_after))
    }
}

/// The statements that write a task's rows to the job's output.
pub fn script(job: &Job, task: &Task) -> String {
    let limit = job.configuration.budget_bytes.map(|bytes| format!("SET memory_limit = '{bytes}B';\n"));
    let views = TABLES.map(|table| {
        format!("CREATE VIEW {table} AS FROM read_parquet('{}');\n", table_path(&job.data, table).display())
    });
    format!(
        "SET threads = {};\nSET temp_directory = '{}';\n{}{}COPY ({}) TO '{}' (FORMAT parquet, {});",
        job.threads,
        job.folder.join("spill").display(),
        limit.unwrap_or_default(),
        views.concat(),
        task.query,
        job.output().display(),
        compression(&job.compression)
    )
}

/// `zstd(3)` in DuckDB's words.
fn compression(text: &str) -> String {
    match text.trim_end_matches(')').split_once('(') {
        Some(("zstd", level)) => format!("COMPRESSION zstd, COMPRESSION_LEVEL {level}"),
        Some((codec, _)) => format!("COMPRESSION {codec}"),
        None => format!("COMPRESSION {text}"),
    }
}

/// What a command prints, if it works.
fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
