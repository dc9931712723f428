//! Arguments of the bench.

use std::path::{Path, PathBuf};

use clap::Parser;

use crate::task::{TASKS, Task, task};

/// Arguments that only try whether everything works.
pub const SMOKE: [&str; 9] = ["memory", "--scale", "0.001", "--runs", "1", "--chunks", "4", "--budgets", "256MiB"];

/// Memory and time of Chunkwise, plain DataFusion and DuckDB over TPC-H data.
#[derive(Debug, Parser)]
pub struct Options {
    /// TPC-H's scale factor
    #[arg(long, default_value_t = 0.1)]
    pub scale: f64,
    /// Tasks to run: join, window
    #[arg(long, value_delimiter = ',', default_value = "join,window", value_parser = known_task)]
    tasks: Vec<&'static str>,
    /// Memory limits besides none: bytes, or with KiB, MiB, GiB, KB, MB, GB
    #[arg(long, value_delimiter = ',', default_value = "4GiB,2GiB,1GiB,512MiB,256MiB", value_parser = limit)]
    budgets: Vec<Limit>,
    /// Memory pools that plain DataFusion is tried within [default: the budgets]
    #[arg(long, value_delimiter = ',', value_parser = limit)]
    pool_budgets: Vec<Limit>,
    /// Budgets of Chunkwise beside which DuckDB is tried, limited to what Chunkwise took [default: all]
    #[arg(long, value_delimiter = ',', value_parser = limit)]
    duckdb_beside: Vec<Limit>,
    /// Seconds after which DuckDB is stopped, which counts as failed
    #[arg(long, default_value_t = 300)]
    pub stop_after: u64,
    /// Numbers of chunks to cut into, besides what the engine chooses
    #[arg(long, value_delimiter = ',', default_value = "4,16,64", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Vec<u32>,
    /// Memory limits to try each number of chunks within [default: none and the smallest of the budgets]
    #[arg(long, value_delimiter = ',', value_parser = limit)]
    chunk_budgets: Vec<Limit>,
    /// Runs of each configuration; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Parquet compression of all outputs, with its level where it has one: zstd(1), snappy, gzip(6), uncompressed
    #[arg(long, default_value = "zstd(1)")]
    pub compression: String,
    /// Threads, partitions, and chunks at a time [default: the number of processors]
    #[arg(long)]
    threads: Option<usize>,
    /// Folder of the TPC-H tables, made if they are not there [default: one for each scale in the target folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for memory.json and memory.svg [default: tmp/memory in the target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// DuckDB's command line [default: `duckdb` on the path, else Python's module]
    #[arg(long, value_name = "PATH")]
    pub duckdb: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
    /// One measurement, in JSON: what the bench starts itself with
    #[arg(long, hide = true)]
    pub child: Option<String>,
}

/// A memory limit in bytes, or none.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<u64>);

impl Options {
    /// The tasks to run.
    pub fn tasks(&self) -> impl Iterator<Item = &'static Task> {
        TASKS.iter().filter(|task| self.tasks.contains(&task.name))
    }

    /// Memory limits in bytes, the largest first.
    pub fn budgets(&self) -> Vec<u64> {
        largest_first(&self.budgets)
    }

    /// Sizes of memory pools in bytes, the largest first.
    pub fn pool_budgets(&self) -> Vec<u64> {
        largest_first(if self.pool_budgets.is_empty() { &self.budgets } else { &self.pool_budgets })
    }

    /// Whether DuckDB is tried beside Chunkwise with such a memory limit.
    pub fn is_beside(&self, budget_bytes: u64) -> bool {
        self.duckdb_beside.is_empty() || self.duckdb_beside.iter().any(|limit| limit.0 == Some(budget_bytes))
    }

    /// Memory limits that each number of chunks is tried within.
    pub fn chunk_budgets(&self) -> Vec<Option<u64>> {
        match self.chunk_budgets.as_slice() {
            [] => std::iter::once(None).chain(self.budgets().last().map(|&bytes| Some(bytes))).collect(),
            given => given.iter().map(|limit| limit.0).collect(),
        }
    }

    /// Threads of each system.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Where the tables are.
    pub fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| self.work().join(format!("tpch-{}", self.scale)))
    }

    /// Where the report goes.
    pub fn out(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| self.work().join("memory"))
    }

    /// Where caches, outputs and spill files of the runs are, while they run.
    pub fn work(&self) -> &'static Path {
        Path::new(env!("CARGO_TARGET_TMPDIR"))
    }
}

fn largest_first(limits: &[Limit]) -> Vec<u64> {
    let mut bytes: Vec<u64> = limits.iter().filter_map(|limit| limit.0).collect();
    bytes.sort_unstable_by(|a, b| b.cmp(a));
    bytes.dedup();
    bytes
}

fn known_task(name: &str) -> Result<&'static str, String> {
    task(name).map(|task| task.name).ok_or_else(|| "the tasks are: join, window".to_string())
}

fn limit(text: &str) -> Result<Limit, String> {
    let text = text.trim();
    if text == "none" {
        return Ok(Limit(None));
    }
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let factor: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("`{unit}` is no unit; use KiB, MiB, GiB, KB, MB or GB")),
    };
    let number: f64 = number.trim().parse().map_err(|_| "use `none`, or a number with a unit, such as 2GiB")?;
    match number * factor {
        bytes @ 1.0..1e18 => Ok(Limit(Some(bytes as u64))),
        _ => Err("use at least one byte".into()),
    }
}
