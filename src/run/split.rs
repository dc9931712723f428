//! Cutting an input: one pass over it says what each chunk's slice of it is, and stores the slices if chunks are to read
//! them. Each input is cut once in a run; of a source to which files were added, only these.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::execute_stream_partitioned;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::{JoinError, JoinSet};

use crate::cache::index::Slices;
use crate::cache::lock::{self, Lock, PAUSE, Waiting};
use crate::cache::split::{SplitId, commit, open, open_files};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::execute::content::Content;
use crate::execute::session::{exact, with_row_bytes};
use crate::execute::split::file::SplitFile;
use crate::execute::split::{contents, split};
use crate::execute::write::execution_error;
use crate::plan::components::cut_fingerprint;
use crate::plan::fingerprint::Fingerprint;
use crate::plan::need::Need;
use crate::plan::prove::proof::{Proof, Role};
use crate::plan::split::split_plan;
use crate::run::{Context, Input};

/// Most and least bytes of rows that one of the streams of a split buffers.
const BUFFER_BYTES: std::ops::RangeInclusive<usize> = 4 << 20..=64 << 20;

/// A source whose files came one after the other is cut in at most so many parts, then again in one.
const MOST_PARTS: usize = 8;

/// What was cut in one run.
#[derive(Debug, Default)]
pub struct Splits {
    cuts: Cells<Vec<Part>>,
    made: Cells<Files>,
    /// On their way to the disk and into the cache, while chunks read them already.
    committing: Mutex<JoinSet<Result<()>>>,
}

/// Things that are made once each; who needs one meanwhile waits.
type Cells<T> = Mutex<HashMap<SplitId, Arc<OnceCell<T>>>>;

type Files = Vec<Arc<SplitFile>>;

/// A part of an input that is cut by itself: the whole, or those files of a source that came together.
#[derive(Debug, Clone)]
struct Part {
    id: SplitId,
    /// Files of a source, by number; `None` when the input is none.
    files: Option<BTreeSet<usize>>,
    /// What each chunk's slice of it says.
    contents: Vec<Content>,
}

/// An input that was split.
#[derive(Debug, Clone)]
pub struct Split {
    /// Names of its parts in the cache.
    pub ids: Vec<SplitId>,
    /// Its files.
    pub files: Vec<Arc<SplitFile>>,
    /// Columns that are stored, by position.
    pub columns: Vec<usize>,
}

/// What to cut.
pub struct SplitJob<'a> {
    /// What the run works with.
    pub context: &'a Context,
    /// One permit for each stream that may run.
    pub permits: &'a Arc<Semaphore>,
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
    /// Whether what earlier runs found out and stored is not believed.
    pub forced: bool,
}

impl Splits {
    /// What each chunk's slice of the input says, and the bytes of splits that were made to know it.
    ///
    /// It is known of an input that was cut so before. Of files that were added to a source since, only they are read;
    /// they are split, if `writes`, else their rows are hashed only.
    ///
    /// # Errors
    /// When the input can't be read or the split not be written.
    pub async fn contents(&self, job: &SplitJob<'_>, writes: bool) -> Result<(Vec<Content>, u64)> {
        let (parts, bytes) = self.parts(job, writes).await?;
        let mut contents = vec![Content::default(); job.proof.chunks() as usize];
        for part in &parts {
            add(&mut contents, &part.contents);
        }
        Ok((contents, bytes))
    }

    /// The split, if all of it was made before, in this run or an earlier one.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the folder of splits can't be read.
    pub fn find(&self, job: &SplitJob<'_>) -> Result<Option<Split>> {
        let Some(parts) = cell(&self.cuts, job.id()?).get().cloned() else { return Ok(None) };
        let mut files = Vec::new();
        for part in &parts {
            match cell(&self.made, part.id).get() {
                Some(made) => files.extend(made.iter().cloned()),
                None if job.forced => return Ok(None),
                None => match open(job.context.cache.folder(), &part.id)? {
                    Some(opened) => files.extend(opened),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(job.split(&parts, files)))
    }

    /// The split, what is not there of it made now, and the bytes of that; who needs it meanwhile waits.
    ///
    /// # Errors
    /// When the input can't be read or the split not be written.
    pub async fn make(&self, job: &SplitJob<'_>) -> Result<(Split, u64)> {
        let (parts, mut bytes) = self.parts(job, true).await?;
        let kept: Vec<SplitId> = parts.iter().map(|part| part.id).collect();
        let mut files = Vec::new();
        for part in &parts {
            let make = async {
                let opened = || match job.forced {
                    true => Ok(None),
                    false => open(job.context.cache.folder(), &part.id),
                };
                let lock = match job.lock(part.id, opened).await? {
                    Flight::Done(opened) => return Ok(opened),
                    Flight::Own(lock) => Arc::new(lock),
                };
                let (made, contents, size) = job.split_part(part.id, part.files.as_ref(), &kept, lock).await?;
                if contents != part.contents {
                    // It changed and looks as before: what was known of it must not be believed any more.
                    job.context.cache.forget_slices(&part.id.cut)?;
                    let table = &job.proof.inputs()[job.scan].table;
                    let message =
                        format!("input `{table}` has other rows than its files' sizes and times say; run again");
                    return Err(Error::new(ErrorKind::Source, message));
                }
                bytes += size;
                Ok::<_, Error>(made)
            };
            files.extend(cell(&self.made, part.id).get_or_try_init(|| make).await?.iter().cloned());
        }
        Ok((job.split(&parts, files), bytes))
    }

    /// The parts that the input is cut in, and the bytes of splits that were made for it.
    async fn parts(&self, job: &SplitJob<'_>, writes: bool) -> Result<(Vec<Part>, u64)> {
        let id = job.id()?;
        let mut bytes = 0;
        let make = async {
            let cache = &job.context.cache;
            let known = || {
                let slices = if job.forced { Vec::new() } else { cache.slices(&id.cut)? };
                Ok(job.known_parts(id, slices))
            };
            let (mut parts, rest) = known()?;
            if let Some((id, files)) = rest {
                let whole = || Ok(Some(known()?).filter(|(_, rest)| rest.is_none()));
                let lock = match job.lock(id, whole).await? {
                    Flight::Done((parts, _)) => return Ok(parts),
                    Flight::Own(lock) => Arc::new(lock),
                };
                let contents = if writes {
                    let kept: Vec<SplitId> = parts.iter().map(|part: &Part| part.id).chain([id]).collect();
                    let (made, contents, size) = job.split_part(id, files.as_ref(), &kept, Arc::clone(&lock)).await?;
                    bytes = size;
                    // It can't be there yet: of each input only this makes it.
                    let _ = cell(&self.made, id).set(made);
                    contents
                } else {
                    job.contents_of_part(files.as_ref()).await?
                };
                let identities = files.iter().flatten().filter_map(|file| job.file_identity(*file)).collect();
                let slices = Slices { input: id.input, files: identities, contents: contents.clone() };
                let mut of_source = files.iter().flatten().copied();
                if job.input.source().is_none_or(|source| of_source.all(|file| source.is_settled([file]))) {
                    cache.add_slices(&id.cut, &slices, job.forced)?;
                }
                parts.push(Part { id, files, contents });
            }
            Ok::<_, Error>(parts)
        };
        let parts = cell(&self.cuts, id).get_or_try_init(|| make).await?.clone();
        Ok((parts, bytes))
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
}

/// Of several processes that want the same thing one makes it.
enum Flight<T> {
    /// It is there.
    Done(T),
    /// This one makes it.
    Own(Lock),
}

fn cell<T>(cells: &Cells<T>, id: SplitId) -> Arc<OnceCell<T>> {
    Arc::clone(cells.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default())
}

impl SplitJob<'_> {
    /// Name of the split of the whole input.
    ///
    /// # Errors
    /// When a filter can't be fingerprinted.
    pub fn id(&self) -> Result<SplitId> {
        let cut = cut_fingerprint(self.proof, self.scan, self.need, &self.input.schema()).map_err(execution_error)?;
        Ok(SplitId { cut, input: self.input.identity() })
    }

    fn split(&self, parts: &[Part], files: Files) -> Split {
        let columns = self.need.columns.iter().copied().collect();
        Split { ids: parts.iter().map(|part| part.id).collect(), files, columns }
    }

    fn file_identity(&self, file: usize) -> Option<Fingerprint> {
        self.input.source().map(|source| source.file_identity(file))
    }

    /// The parts of the input that were cut before, and what is left of it.
    #[expect(clippy::type_complexity)]
    fn known_parts(&self, id: SplitId, known: Vec<Slices>) -> (Vec<Part>, Option<(SplitId, Option<BTreeSet<usize>>)>) {
        let mut known: Vec<_> =
            known.into_iter().filter(|slices| slices.contents.len() == self.proof.chunks() as usize).collect();
        let Some(source) = self.input.source() else {
            return match known.into_iter().find(|slices| slices.input == id.input) {
                Some(Slices { contents, .. }) => (vec![Part { id, files: None, contents }], None),
                None => (Vec::new(), Some((id, None))),
            };
        };
        let mut left: HashMap<Fingerprint, usize> =
            (0..source.file_count()).map(|file| (source.file_identity(file), file)).collect();
        known.sort_by_key(|slices| std::cmp::Reverse(slices.files.len()));
        let mut parts = Vec::new();
        for Slices { input, files, contents } in known {
            if !files.is_empty() && files.iter().all(|file| left.contains_key(file)) {
                let files = files.iter().filter_map(|file| left.remove(file)).collect();
                parts.push(Part { id: SplitId { input, ..id }, files: Some(files), contents });
            }
        }
        if self.need.is_ordered {
            // Parts are read one after the other, so each must end before the next begins.
            parts.sort_by_key(first_file);
            let is_in_order = parts.windows(2).all(|pair| last_file(&pair[0]) < first_file(&pair[1]));
            let is_behind = left.values().all(|file| parts.last().is_none_or(|part| last_file(part) < Some(*file)));
            if !is_in_order || !is_behind {
                return (Vec::new(), Some((id, Some((0..source.file_count()).collect()))));
            }
        }
        if left.is_empty() {
            return (parts, None);
        }
        if parts.is_empty() || parts.len() >= MOST_PARTS {
            return (Vec::new(), Some((id, Some((0..source.file_count()).collect()))));
        }
        let left: BTreeSet<usize> = left.into_values().collect();
        (parts, Some((SplitId { input: source.identity_of(&left), ..id }, Some(left))))
    }

    /// Waits until `done` has something, as long as another process makes it, or until this one may.
    async fn lock<T>(&self, id: SplitId, done: impl Fn() -> Result<Option<T>>) -> Result<Flight<T>> {
        let mut waiting = Waiting::begin(&self.context.events);
        loop {
            let lock = Lock::try_take(self.context.cache.folder(), &id.lock_name())?;
            // In this order: who held the lock may have finished between.
            if let Some(done) = done()? {
                return Ok(Flight::Done(done));
            }
            if let Some(lock) = lock {
                return Ok(Flight::Own(lock));
            }
            let what = || format!("the split of an input of `{}`", self.task);
            waiting.goes_on(what, &lock::path_of(self.context.cache.folder(), &id.lock_name()));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Splits a part of the input. Splits of the same cut other than `kept` go.
    ///
    /// As one stream per job, or as many as have room for what they read, each with permits of its own, so that chunks
    /// of other tasks, and other splits, run where one has ended or not begun.
    async fn split_part(
        &self,
        id: SplitId,
        files: Option<&BTreeSet<usize>>,
        kept: &[SplitId],
        lock: Arc<Lock>,
    ) -> Result<(Files, Vec<Content>, u64)> {
        let Self { context, permits, proof, .. } = self;
        let (streams, pool) = self.streams(files).await?;
        let share = context.budget.pool_bytes().map_or(usize::MAX, |pool| pool / 4) / streams.len().max(1);
        let most_bytes = share.clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
        let folder = context.cache.new_folder()?;
        let chunks = proof.chunks();
        let count = streams.len();
        let own_permits = self.own_permits();
        let mut running = JoinSet::new();
        for (at, stream) in streams.into_iter().enumerate() {
            let metadata = id.metadata(at, count);
            let path = folder.path().join(format!("{at}.arrow"));
            let file = std::fs::File::create_new(&path).map_err(|e| Error::storage("create", &path, e))?;
            let (permits, pool, in_use) = (Arc::clone(permits), Arc::clone(&pool), Arc::clone(&context.in_use));
            running.spawn(async move {
                // The last thing that goes.
                let _in_use = in_use;
                // The semaphore is never closed, so this waits and succeeds.
                let _permits = permits.acquire_many(own_permits).await;
                let reserved = reserve(&pool, most_bytes);
                let buffer_bytes = reserved.size().max(*BUFFER_BYTES.start());
                split(stream, chunks, file, buffer_bytes, [metadata]).await.map(|made| (path, made))
            });
        }
        let (mut paths, mut rows, mut bytes): (Vec<PathBuf>, u64, u64) = (Vec::new(), 0, 0);
        let mut contents = vec![Content::default(); chunks as usize];
        while let Some(finished) = running.join_next().await {
            let (path, (size, of_stream)) = finished.map_err(panicked)??;
            paths.push(path);
            rows += size.rows;
            bytes += size.bytes;
            add(&mut contents, &of_stream);
        }
        self.check_unchanged().await?;
        // Opened before they are renamed: a descriptor stays good, and chunks need not wait for the disk.
        paths.sort();
        let files = open_files(&paths)?;
        let (cache, kept, in_use) = (Arc::clone(&context.cache), kept.to_vec(), Arc::clone(&context.in_use));
        let commit = move || {
            let committed = commit(cache.folder(), &id, folder.path(), &kept);
            drop((lock, folder));
            drop(in_use);
            committed
        };
        let committing = &context.splits.committing;
        committing.lock().unwrap_or_else(PoisonError::into_inner).spawn_blocking(commit);
        let input = self.proof.inputs()[self.scan].table.clone();
        context.events.send(Event::Split { task: self.task.to_string(), input, rows, bytes });
        Ok((files, contents, bytes))
    }

    /// Reads a part of the input to know what each chunk's slice of it says.
    async fn contents_of_part(&self, files: Option<&BTreeSet<usize>>) -> Result<Vec<Content>> {
        let (streams, _) = self.streams(files).await?;
        let (chunks, own_permits) = (self.proof.chunks(), self.own_permits());
        let mut running = JoinSet::new();
        for stream in streams {
            let (permits, in_use) = (Arc::clone(self.permits), Arc::clone(&self.context.in_use));
            running.spawn(async move {
                let _in_use = in_use;
                let _permits = permits.acquire_many(own_permits).await;
                contents(stream, chunks).await
            });
        }
        let mut contents = vec![Content::default(); chunks as usize];
        while let Some(finished) = running.join_next().await {
            add(&mut contents, &finished.map_err(panicked)??);
        }
        self.check_unchanged().await?;
        Ok(contents)
    }

    /// The permits of one stream.
    fn own_permits(&self) -> u32 {
        self.context.budget.permits(self.need.reading_bytes)
    }

    /// The rows of a part of the input, with their chunk numbers, and the pool that they are read in.
    async fn streams(
        &self,
        files: Option<&BTreeSet<usize>>,
    ) -> Result<(Vec<SendableRecordBatchStream>, Arc<dyn MemoryPool>)> {
        let Some(Role::Partitioned { keys, names: _ }) = self.proof.inputs().get(self.scan).map(|input| &input.role)
        else {
            return Err(Error::new(ErrorKind::Execute, "an input that is not cut can't be split; this is a bug"));
        };
        let table = match (self.input, files) {
            (Input::Source(source), Some(files)) => Arc::new(source.table().of_files(files)) as _,
            _ => self.input.whole(&self.context.cache)?,
        };
        let plan = split_plan(table, self.need, self.proof.function(), keys).map_err(execution_error)?;
        let state = with_row_bytes(&self.context.state, self.need.row_bytes, self.context.budget.batch_bytes());
        let mut state = exact(&state, &plan).map_err(execution_error)?;
        let options = state.config_mut().options_mut();
        // Several streams share the files among them.
        let readers = self.context.budget.readers(self.need.reading_bytes);
        options.execution.target_partitions = if self.need.is_ordered { 1 } else { readers };
        // Streams that wait for a permit must not be sent what others read.
        options.optimizer.enable_round_robin_repartition = false;
        let physical = state.create_physical_plan(&plan).await.map_err(execution_error)?;
        let streams = execute_stream_partitioned(physical, state.task_ctx()).map_err(execution_error)?;
        Ok((streams, Arc::clone(&state.runtime_env().memory_pool)))
    }

    async fn check_unchanged(&self) -> Result<()> {
        match self.input.source() {
            Some(source) => source.check_unchanged().await,
            None => Ok(()),
        }
    }
}

fn first_file(part: &Part) -> Option<usize> {
    part.files.as_ref()?.first().copied()
}

fn last_file(part: &Part) -> Option<usize> {
    part.files.as_ref()?.last().copied()
}

fn add(sums: &mut [Content], contents: &[Content]) {
    for (sum, content) in sums.iter_mut().zip(contents) {
        *sum += *content;
    }
}

fn panicked(error: JoinError) -> Error {
    Error::new(ErrorKind::Execute, "a split panicked").with_source(error)
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
