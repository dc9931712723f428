//! One measurement, in a process that does nothing else.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chunkwise::datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use chunkwise::datafusion::execution::memory_pool::{
    FairSpillPool, MemoryPool, PeakRecordingPool, UnboundedMemoryPool,
};
use chunkwise::datafusion::execution::runtime_env::RuntimeEnvBuilder;
use chunkwise::datafusion::physical_plan::collect;
use chunkwise::datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use chunkwise::testing::spilled_bytes;
use chunkwise::{Engine, RunOptions};
use serde::{Deserialize, Serialize};

use crate::ALLOCATOR;
use crate::configuration::{Configuration, System, bytes_text};
use crate::duckdb::{self, DuckDb};
use crate::process::{Watched, own_io, peak_rss_bytes};
use crate::task::{TABLES, Task, task};

/// Deep plans recurse: as much as the command line gives its threads.
const STACK_BYTES: usize = 16 << 20;

/// What to measure.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// How to run it.
    pub configuration: Configuration,
    /// The task's name.
    pub task: String,
    /// Folder of the tables.
    pub data: PathBuf,
    /// Empty folder for the cache, the output and spill files.
    pub folder: PathBuf,
    /// Parquet compression of the output.
    pub compression: String,
    /// Threads, partitions, and chunks at a time.
    pub threads: usize,
    /// DuckDB, where it is what is measured.
    pub duckdb: Option<DuckDb>,
    /// When DuckDB is stopped.
    pub stop_after: Duration,
}

impl Job {
    /// The file or folder that the rows are in once it is done.
    pub fn output(&self) -> PathBuf {
        match self.configuration.system {
            System::DataFusion | System::DuckDb => self.folder.join("output.parquet"),
            System::Chunkwise => self.cache().join("tables").join(&self.task),
        }
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }
}

/// What was measured; `None` is what isn't known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Time from building the engine to the output in its place; seconds in JSON.
    #[serde(rename = "wall_s", with = "seconds")]
    pub wall: Duration,
    /// Largest resident set.
    pub peak_rss_bytes: Option<u64>,
    /// Most bytes allocated at once.
    pub allocator_peak_bytes: Option<u64>,
    /// Most bytes reserved in DataFusion's memory pool at once.
    pub pool_peak_bytes: Option<u64>,
    /// Bytes read by system calls.
    pub read_bytes: Option<u64>,
    /// Bytes written by system calls.
    pub written_bytes: Option<u64>,
    /// Bytes written to spill files.
    pub spilled_bytes: Option<u64>,
    /// Bytes written to cut inputs.
    pub split_bytes: Option<u64>,
    /// Chunks that it was cut into, where it was.
    pub chunks: Option<u32>,
}

/// How a measurement ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// With an output.
    Done(Measured),
    /// Without, for this reason.
    Failed(String),
}

/// What a system says about its own run.
struct Ran {
    /// The largest resident set of another process, where that did the work.
    peak_rss_bytes: Option<u64>,
    pool_peak_bytes: Option<u64>,
    spilled_bytes: Option<u64>,
    split_bytes: Option<u64>,
    chunks: Option<u32>,
}

/// Measures in this process.
pub fn run(job: &Job) -> Outcome {
    let task = task(&job.task).expect("the bench knows its tasks");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(job.threads)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .expect("threads can be started");
    let (before, start) = (own_io(), Instant::now());
    let ran = runtime.block_on(async {
        match job.configuration.system {
            System::DataFusion => in_datafusion(job, task).await,
            System::Chunkwise => in_chunkwise(job, task).await,
            System::DuckDb => in_duckdb(job, task),
        }
    });
    let (wall, after) = (start.elapsed(), own_io());
    let is_here = job.configuration.system != System::DuckDb;
    match ran {
        Err(error) => Outcome::Failed(messages(error.as_ref())),
        Ok(ran) => Outcome::Done(Measured {
            wall,
            peak_rss_bytes: if is_here { peak_rss_bytes("self") } else { ran.peak_rss_bytes },
            allocator_peak_bytes: is_here.then(|| ALLOCATOR.peak_bytes()),
            pool_peak_bytes: ran.pool_peak_bytes,
            read_bytes: before.zip(after).map(|(before, after)| after.read_bytes - before.read_bytes),
            written_bytes: before.zip(after).map(|(before, after)| after.written_bytes - before.written_bytes),
            spilled_bytes: ran.spilled_bytes,
            split_bytes: ran.split_bytes,
            chunks: ran.chunks,
        }),
    }
}

async fn in_datafusion(job: &Job, task: &Task) -> Result<Ran, Box<dyn Error>> {
    let pool: Arc<dyn MemoryPool> = match job.configuration.budget_bytes {
        Some(bytes) => Arc::new(FairSpillPool::new(usize::try_from(bytes)?)),
        None => Arc::new(UnboundedMemoryPool::default()),
    };
    let pool = Arc::new(PeakRecordingPool::new(pool));
    let disk = DiskManagerMode::Directories(vec![job.folder.clone()]);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::clone(&pool) as Arc<dyn MemoryPool>)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(disk))
        .build_arc()?;
    let config = SessionConfig::new().with_target_partitions(job.threads);
    let context = SessionContext::new_with_config_rt(config, runtime);
    for table in TABLES {
        let path = table_path(&job.data, table);
        context.register_parquet(table, path.to_string_lossy(), ParquetReadOptions::default()).await?;
    }
    let copy = format!(
        "COPY ({}) TO '{}' STORED AS PARQUET OPTIONS ('format.compression' '{}')",
        task.query,
        job.output().display(),
        job.compression
    );
    let plan = context.sql(&copy).await?.create_physical_plan().await?;
    collect(Arc::clone(&plan), context.task_ctx()).await?;
    Ok(Ran {
        peak_rss_bytes: None,
        pool_peak_bytes: Some(pool.peak_reserved() as u64),
        spilled_bytes: Some(spilled_bytes(plan.as_ref())),
        split_bytes: None,
        chunks: None,
    })
}

async fn in_chunkwise(job: &Job, task: &Task) -> Result<Ran, Box<dyn Error>> {
    let mut builder = Engine::builder().cache_folder(job.cache()).jobs(job.threads);
    if let Some(bytes) = job.configuration.budget_bytes {
        builder = builder.memory_limit_bytes(usize::try_from(bytes)?);
    }
    let engine = builder.build()?;
    chunkwise::cli::allocator::set_up(engine.jobs(), engine.memory_limit_bytes());
    let pipeline = chunkwise::sql::parse(&task_sql(job, task), "bench.sql", &job.data)?;
    let report = engine.run(&pipeline, &RunOptions::default()).await?;
    let report = report.task(task.name).ok_or("the task is not in the report")?;
    if report.executed == 0 {
        return Err(report.reason.clone().into());
    }
    Ok(Ran {
        peak_rss_bytes: None,
        pool_peak_bytes: engine.pool_peak_bytes(),
        spilled_bytes: Some(report.spilled_bytes),
        split_bytes: Some(report.split_bytes),
        chunks: Some(report.chunks),
    })
}

fn in_duckdb(job: &Job, task: &Task) -> Result<Ran, Box<dyn Error>> {
    let duckdb = job.duckdb.as_ref().ok_or("DuckDB is not there")?;
    let start = Instant::now();
    let watched = duckdb.run(&duckdb::script(job, task), job.stop_after)?;
    if !watched.output.status.success() {
        if start.elapsed() >= job.stop_after {
            return Err(format!("stopped after {} s", job.stop_after.as_secs()).into());
        }
        return Err(last_line(&watched.output.stderr).unwrap_or_else(|| watched.output.status.to_string()).into());
    }
    Ok(Ran {
        peak_rss_bytes: watched.peak_rss_bytes,
        pool_peak_bytes: None,
        spilled_bytes: None,
        split_bytes: None,
        chunks: None,
    })
}

/// The task as Chunkwise's users write it.
fn task_sql(job: &Job, task: &Task) -> String {
    let sources = TABLES.map(|table| {
        let path = table_path(&job.data, table);
        format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}';\n", path.display())
    });
    let cut = match job.configuration.chunks {
        Some(chunks) => format!(" CLUSTERED BY ({}) INTO {chunks} BUCKETS", task.key),
        None => String::new(),
    };
    let Job { compression, .. } = job;
    let (sources, name, query) = (sources.concat(), task.name, task.query);
    format!("{sources}CREATE TABLE \"{name}\"{cut} WITH (compression = '{compression}') AS\n{query};")
}

/// A table's file in the data folder.
pub fn table_path(data: &Path, table: &str) -> PathBuf {
    data.join(format!("{table}.parquet"))
}

/// A duration as seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

/// An error and its causes.
fn messages(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_string)
}

impl Outcome {
    /// What a measuring process said, or how it ended if it could not say anything.
    pub fn of(watched: &Watched) -> Self {
        let output = &watched.output;
        let said = last_line(&output.stdout).and_then(|line| serde_json::from_str(&line).ok());
        said.unwrap_or_else(|| {
            let status = output.status;
            Self::Failed(last_line(&output.stderr).map_or(status.to_string(), |line| format!("{status}: {line}")))
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(measured) => {
                write!(f, "{:.2} s", measured.wall.as_secs_f64())?;
                measured.peak_rss_bytes.map_or(Ok(()), |bytes| write!(f, ", {}", bytes_text(bytes)))
            }
            Self::Failed(reason) => write!(f, "failed: {}", reason.lines().next().unwrap_or_default()),
        }
    }
}
