//! Splitting an input: one pass over it, its rows cut into chunks, each split made once in a run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::{ExecutionPlanProperties, execute_stream_partitioned};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use crate::cache::split::{SplitId, commit, open, open_files};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::execute::session::exact;
use crate::execute::split::file::SplitFile;
use crate::execute::split::split;
use crate::execute::write::execution_error;
use crate::plan::need::Need;
use crate::plan::prove::{Proof, Role};
use crate::plan::split::split_plan;
use crate::run::{Context, Input};

/// Most and least bytes of rows that one of the streams of a split buffers.
const BUFFER_BYTES: std::ops::RangeInclusive<usize> = 4 << 20..=64 << 20;

/// Splits of one run.
#[derive(Debug, Default)]
pub struct Splits {
    made: Mutex<HashMap<SplitId, Arc<OnceCell<Split>>>>,
    /// On their way to the disk and into the cache, while chunks read them already.
    committing: Mutex<JoinSet<Result<()>>>,
}

/// An input that was split.
#[derive(Debug, Clone)]
pub struct Split {
    /// Its name in the cache.
    pub id: SplitId,
    /// Its files.
    pub files: Vec<Arc<SplitFile>>,
    /// Columns that are stored, by position.
    pub columns: Vec<usize>,
}

/// What to split.
pub struct SplitJob<'a> {
    /// The task, for errors and events.
    pub task: &'a str,
    /// The proof that says how the input is cut.
    pub proof: &'a Proof,
    /// Number of the scan.
    pub scan: usize,
    /// The input.
    pub input: &'a Input,
    /// What is needed of it.
    pub need: &'a Need,
}

impl Splits {
    /// The split, if it was made before, in this run or an earlier one.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the folder of splits can't be read.
    pub fn find(&self, context: &Context, job: &SplitJob) -> Result<Option<Split>> {
        let id = job.id()?;
        if let Some(split) = self.cell(id).get() {
            return Ok(Some(split.clone()));
        }
        Ok(open(context.cache.folder(), &id)?.map(|files| Split { id, files, columns: job.columns() }))
    }

    /// The split, made now unless it was before, and its bytes if it was made now; who needs it meanwhile waits.
    ///
    /// # Errors
    /// When the input can't be read or the split not be written.
    pub async fn make(&self, context: &Context, job: &SplitJob<'_>, permits: &Arc<Semaphore>) -> Result<(Split, u64)> {
        let id = job.id()?;
        let cell = self.cell(id);
        let mut made = 0;
        let make = async {
            match open(context.cache.folder(), &id)? {
                Some(files) => Ok(Split { id, files, columns: job.columns() }),
                None => {
                    let (split, bytes) = job.run(context, id, permits).await?;
                    made = bytes;
                    Ok(split)
                }
            }
        };
        let split = cell.get_or_try_init(|| make).await?.clone();
        Ok((split, made))
    }

    /// Waits until all splits that were made are in the cache; returns why some are not.
    pub async fn finish(&self) -> Vec<Error> {
        let mut committing = std::mem::take(&mut *self.committing.lock().unwrap_or_else(PoisonError::into_inner));
        let panicked = |e| Err(Error::new(ErrorKind::Storage, "a split can't be stored").with_source(e));
        let mut errors = Vec::new();
        while let Some(committed) = committing.join_next().await {
            errors.extend(committed.unwrap_or_else(panicked).err());
        }
        errors
    }

    fn cell(&self, id: SplitId) -> Arc<OnceCell<Split>> {
        Arc::clone(self.made.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default())
    }
}

impl SplitJob<'_> {
    fn id(&self) -> Result<SplitId> {
        let cut = crate::plan::fingerprint::cut_fingerprint(self.proof, self.scan, self.need).map_err(failed)?;
        Ok(SplitId { cut, input: self.input.identity() })
    }

    fn columns(&self) -> Vec<usize> {
        self.need.columns.iter().copied().collect()
    }

    /// As one stream per job, each with a permit of its own, so that chunks of other tasks, and other splits, run
    /// where one has ended or not begun.
    async fn run(&self, context: &Context, id: SplitId, permits: &Arc<Semaphore>) -> Result<(Split, u64)> {
        let Some(Role::Partitioned { keys, names: _ }) = self.proof.inputs().get(self.scan).map(|input| &input.role)
        else {
            return Err(Error::new(ErrorKind::Execute, "an input that is not cut can't be split; this is a bug"));
        };
        let table = self.input.whole(&context.cache)?;
        let plan = split_plan(table, self.need, self.proof.function(), keys).map_err(failed)?;
        let mut state = exact(&context.state, &plan).map_err(failed)?;
        let options = state.config_mut().options_mut();
        options.execution.target_partitions = context.budget.jobs;
        // Streams that wait for a permit must not be sent what others read.
        options.optimizer.enable_round_robin_repartition = false;
        let physical = state.create_physical_plan(&plan).await.map_err(failed)?;
        let streams = physical.output_partitioning().partition_count().max(1);
        let share = context.budget.pool_bytes().map_or(usize::MAX, |pool| pool / 4) / streams;
        let most_bytes = share.clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
        let folder = context.cache.new_folder()?;
        let chunks = self.proof.chunks();
        let mut running = JoinSet::new();
        let streams = execute_stream_partitioned(physical, state.task_ctx()).map_err(failed)?;
        let metadata = id.metadata(streams.len());
        for (at, stream) in streams.into_iter().enumerate() {
            let metadata = metadata.clone();
            let path = folder.join(format!("{at}.arrow"));
            let file = std::fs::File::create_new(&path).map_err(|e| Error::storage("create", &path, e))?;
            let (permits, pool) = (Arc::clone(permits), Arc::clone(&state.runtime_env().memory_pool));
            running.spawn(async move {
                // The semaphore is never closed, so this waits and succeeds.
                let _permit = permits.acquire().await;
                let reserved = reserve(&pool, most_bytes);
                let buffer_bytes = reserved.size().max(*BUFFER_BYTES.start());
                split(stream, chunks, file, buffer_bytes, [metadata]).await.map(|size| (path, size))
            });
        }
        let (mut paths, mut rows, mut bytes): (Vec<PathBuf>, u64, u64) = (Vec::new(), 0, 0);
        while let Some(finished) = running.join_next().await {
            let split = finished.map_err(|e| Error::new(ErrorKind::Execute, "a split panicked").with_source(e))?;
            let (path, size) = split?;
            paths.push(path);
            rows += size.rows;
            bytes += size.bytes;
        }
        if let Some(source) = self.input.source() {
            source.check_unchanged().await?;
        }
        // Opened before they are renamed: a descriptor stays good, and chunks need not wait for the disk.
        paths.sort();
        let files = open_files(&paths)?;
        let cache = Arc::clone(&context.cache);
        let commit = move || commit(cache.folder(), &id, &folder);
        let committing = &context.splits.committing;
        committing.lock().unwrap_or_else(PoisonError::into_inner).spawn_blocking(commit);
        let input = self.proof.inputs()[self.scan].table.clone();
        context.events.send(Event::Split { task: self.task.to_string(), input, rows, bytes });
        Ok((Split { id, files, columns: self.columns() }, bytes))
    }
}

/// As much of `most_bytes` as is to be had beside the chunks that run, by halves.
fn reserve(pool: &Arc<dyn MemoryPool>, most_bytes: usize) -> MemoryReservation {
    let reservation = MemoryConsumer::new("split").register(pool);
    let mut bytes = most_bytes;
    while bytes >= *BUFFER_BYTES.start() && reservation.try_grow(bytes).is_err() {
        bytes /= 2;
    }
    reservation
}

fn failed(error: DataFusionError) -> Error {
    execution_error(error)
}
