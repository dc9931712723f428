//! One chunk: its plan, its file, its entry.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::cache::lock::{self, Lock, PAUSE, Waiting};
use crate::cache::store::{ChunkEntry, PendingChunk};
use crate::chunk::MAX_PARTS;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::execute::budget::{CHUNK_BYTES, COLUMN_BYTES};
use crate::execute::session::{Joins, with_joins, with_partitions, with_row_bytes};
use crate::execute::write::{ChunkWriter, RowsHooks, Written, is_out_of_memory};
use crate::hook::{ChunkFile, HookContext, MaterializationHook, OutputChunk};
use crate::plan::components::Components;
use crate::plan::fingerprint::Fingerprint;
use crate::plan::partitionable::is_partitionable;
use crate::plan::rewrite::{Piece, Provided, rewrite};
use crate::plan::steps::Step;
use crate::run::Context;
use crate::run::planned::PlannedTask;
use crate::run::served::Served;
use crate::run::sliced::Sliced;
use crate::source::Snapshot;

/// What reads less has one partition: DataFusion reads a file of less in one, too.
pub const MIN_SHARED_BYTES: u64 = 10 << 20;

/// What the chunks of one step have in common.
pub struct ChunkJob {
    /// What the run works with.
    pub context: Context,
    /// The task.
    pub planned: Arc<PlannedTask>,
    /// Number of the step.
    pub step: usize,
    /// What the chunks read of each scan, by number.
    pub inputs: Vec<Sliced>,
    /// The task's sources, which must not change meanwhile.
    pub sources: Vec<Arc<Snapshot>>,
    /// Those of its sources whose rows a hook gives.
    pub served: Vec<Arc<Served>>,
    /// What the step's chunks are made of.
    pub components: Components,
    /// The chunks' fingerprints, by number.
    pub fingerprints: Vec<Fingerprint>,
    /// Whether a file that is there is replaced.
    pub force: bool,
    /// What the task's hooks are told.
    pub hook_context: HookContext,
    /// What operators of the chunks so far wrote to spill files.
    pub spilled_bytes: AtomicU64,
    /// What they read of Parquet files.
    pub scanned_bytes: AtomicU64,
}

impl ChunkJob {
    /// Runs a chunk when a permit is free; returns its entry, and whether it ran. It does not where another process, or
    /// another task with the same query, makes it: then this waits for theirs.
    ///
    /// Where memory does not suffice the chunk is cut further, in halves and halves of these, one after the other. A part
    /// that does not fit either way, because many of its rows have one key, runs alone, with joins that spill.
    pub async fn run_within(&self, chunk: u32, permits: &Semaphore) -> Result<(Arc<ChunkEntry>, bool)> {
        let cache = &self.context.cache;
        let fingerprint = self.fingerprints[chunk as usize];
        // A permit comes first: who waits for one must not keep others from the chunk.
        let mut waiting = Waiting::begin(&self.context.events);
        let (lock, permit) = loop {
            // The semaphore is never closed, so such calls wait and succeed.
            let Ok(permit) = permits.acquire_many(self.own_permits()).await else { continue };
            let lock = cache.lock(&fingerprint)?;
            if let Some(entry) = self.made(&fingerprint)? {
                return Ok((entry, false));
            }
            if let Some(lock) = lock {
                break (lock, permit);
            }
            drop(permit);
            let what = || format!("chunk {chunk} of `{}`", self.planned.task.name);
            waiting.goes_on(what, &lock::path_of(cache.folder(), &fingerprint.to_string()));
            tokio::time::sleep(PAUSE).await;
        };
        self.context.events.send(Event::ChunkStarted { task: self.planned.task.name.clone(), chunk });
        let (pending, entry) = self.compute(chunk, permits, Some(permit)).await?;
        let committed = self.commit(vec![Computed { lock, pending, entry }]).await?;
        let nothing = || Error::new(ErrorKind::Storage, "a chunk was not stored; this is a bug");
        Ok((committed.into_iter().next().ok_or_else(nothing)?.1, true))
    }

    /// The chunk, if it is there: of this run where all chunks are made again, by another task with the same query.
    pub(super) fn made(&self, fingerprint: &Fingerprint) -> Result<Option<Arc<ChunkEntry>>> {
        let is_believed = |entry: &Arc<ChunkEntry>| !self.force || entry.written_unix_ns >= self.context.start_unix_ns;
        Ok(self.context.cache.find(&[*fingerprint])?.into_iter().flatten().find(is_believed))
    }

    /// Computes a chunk that is in the cache again, and compares.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when it differs, or can't be computed.
    pub async fn audit(&self, entry: &ChunkEntry, permits: &Semaphore) -> Result<()> {
        let (_, computed) = self.compute(entry.chunk, permits, None).await?;
        if computed.content == entry.content {
            return Ok(());
        }
        let message = "computed again it has other rows than in the cache; run it with --force, and see whether its query \
                       always gives the same rows";
        Err(Error::new(ErrorKind::Execute, message))
    }

    /// Writes a chunk to a file that is not in the cache yet.
    async fn compute(
        &self,
        chunk: u32,
        permits: &Semaphore,
        mut first: Option<SemaphorePermit<'_>>,
    ) -> Result<(PendingChunk, ChunkEntry)> {
        let (mut parts, mut joins) = (self.step().parts.min(self.most_parts()), Joins::Hash);
        let mut most_partitions = self.most_partitions(1);
        loop {
            match self.try_compute(chunk, parts, joins, most_partitions, permits, first.take()).await {
                // The rows of a part can't be taken back: all begins from the start, with one partition, in smaller
                // parts, and at last alone.
                Err(Stopped::HalfWritten) if most_partitions > 1 => most_partitions = 1,
                Err(Stopped::HalfWritten) if parts < self.most_parts() => parts *= 2,
                Err(Stopped::HalfWritten) => joins = Joins::Spill,
                Err(Stopped::Failed(error)) => return Err(self.short_of_memory(chunk, error)),
                Ok(computed) => return Ok(computed),
            }
        }
    }

    /// What sees the rows of a chunk, one after the other.
    pub(super) fn rows_hooks(&self, chunk: u32) -> Result<RowsHooks> {
        let step = self.step();
        let mut schema = Arc::clone(&step.resolved.schema);
        let mut hooks = RowsHooks::new(Arc::clone(&schema));
        for hook in self.hooks() {
            let output = OutputChunk { chunk, schema: Arc::clone(&schema), context: self.hook_context.clone() };
            let changed = hook.schema(&schema)?;
            let rows = hook.begin(&output)?;
            if rows.is_none() && changed.is_some() {
                let message =
                    format!("hook `{}` declares columns of its own, so it must begin each chunk", hook.name());
                return Err(Error::new(ErrorKind::Usage, message));
            }
            hooks.extend(rows, changed.clone());
            schema = changed.unwrap_or(schema);
        }
        Ok(hooks)
    }

    /// Those that see the step's rows.
    fn hooks(&self) -> &[Arc<dyn MaterializationHook>] {
        let task = &self.planned.task;
        if self.step().name == task.name { &task.materialization } else { &[] }
    }

    pub(super) fn step(&self) -> &Step {
        &self.planned.steps[self.step]
    }

    /// What has no keys, or none with several values in a chunk, can't be cut.
    pub(super) fn most_parts(&self) -> u32 {
        let proof = &self.step().proof;
        if proof.keys().is_empty() || !proof.function().has_parts() { 1 } else { MAX_PARTS }
    }

    /// How many partitions a plan for so many chunks may have, where processors are free: one for the little that they
    /// would share.
    pub(super) fn most_partitions(&self, chunks: usize) -> usize {
        let step = self.step();
        let bytes = step.bytes().saturating_mul(chunks as u64) / u64::from(step.proof.chunks().max(1));
        let is_little = bytes < MIN_SHARED_BYTES && !self.context.always_partitions;
        if is_little || !self.hooks().is_empty() { 1 } else { self.context.budget.readers(step.reading_bytes()) }
    }

    /// The permits of one chunk, or of one pass: what reads large row groups, or writes many columns, leaves no room for
    /// others.
    pub(super) fn own_permits(&self) -> u32 {
        self.context.budget.permits(self.step().reading_bytes().saturating_add(self.writing_bytes()))
    }

    /// What a chunk has of the file that it writes, however few rows that has.
    fn writing_bytes(&self) -> u64 {
        (self.step().proof.schema().fields().len() * COLUMN_BYTES) as u64
    }

    /// Takes what so many readers have of the files before rows come of it, and what the file that is written has,
    /// beyond what any chunk has, from what operators may reserve, as far as it is there.
    pub(super) fn reserve_files(&self, readers: usize) -> MemoryReservation {
        let budget = self.context.budget;
        let reserved = MemoryConsumer::new("files").register(&self.context.state.runtime_env().memory_pool);
        if let Some(pool) = budget.pool_bytes() {
            let read = self.step().reading_bytes().saturating_mul(readers as u64);
            let bytes = read.saturating_add(self.writing_bytes());
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let beyond = bytes.saturating_sub(CHUNK_BYTES * readers).min(pool / 2);
            // Without it there is as little for the operators.
            let _ = reserved.try_grow(beyond);
        }
        reserved
    }

    /// Computes a chunk in parts; with joins that spill, alone.
    async fn try_compute(
        &self,
        chunk: u32,
        parts: u32,
        joins: Joins,
        most_partitions: usize,
        permits: &Semaphore,
        first: Option<SemaphorePermit<'_>>,
    ) -> std::result::Result<(PendingChunk, ChunkEntry), Stopped> {
        let task = &self.planned.task;
        let Step { name, proof, .. } = self.step();
        let Context { cache, events, .. } = &self.context;
        let jobs = self.context.budget.jobs as u32;
        let own = if joins == Joins::Hash { self.own_permits() } else { jobs };
        let mut permit = match first {
            Some(permit) => Ok(permit),
            None => permits.acquire_many(own).await,
        };
        // What nobody waits for.
        let mut partitions = 1;
        while joins == Joins::Hash
            && partitions < most_partitions
            && let (Ok(permit), Ok(more)) = (&mut permit, permits.try_acquire())
        {
            permit.merge(more);
            partitions += 1;
        }
        // Sorts that spill need what they can get.
        let mut reading = (joins == Joins::Hash).then(|| self.reserve_files(partitions));
        let pending = cache.begin()?;
        let mut writer = {
            let (file, options, hooks) = (pending.writer()?, &task.options, self.rows_hooks(chunk)?);
            ChunkWriter::new(file, proof.schema(), options, self.context.budget.row_group_bytes(), hooks)?
        };
        let mut pieces: Vec<Piece> = (0..parts).rev().map(|part| Piece { chunk, part, parts }).collect();
        while let Some(piece) = pieces.pop() {
            let before = writer.seen_rows();
            match self.append(&mut writer, piece, joins, partitions).await {
                Err(error) if joins == Joins::Spill || !is_out_of_memory(&error) => return Err(error.into()),
                Err(_) if writer.seen_rows() > before => return Err(Stopped::HalfWritten),
                Err(_) if partitions > 1 => {
                    partitions = 1;
                    pieces.push(piece);
                }
                Err(_) => match piece.halves() {
                    Some(halves) if piece.parts < self.most_parts() => {
                        let (task, parts) = (task.name.clone(), 2 * piece.parts);
                        events.send(Event::ShortOfMemory { task, chunk, parts });
                        pieces.extend(halves);
                    }
                    _ => {
                        drop((permit, reading.take()));
                        let all = permits.acquire_many(jobs).await;
                        self.append(&mut writer, piece, Joins::Spill, 1).await?;
                        drop(all);
                        permit = permits.acquire_many(own).await;
                    }
                },
                Ok(()) => {}
            }
        }
        let entry = self.finish(chunk, name, writer, &pending)?;
        // A chunk of a source that changed meanwhile must never be found under the old identity.
        self.check_sources(chunk).await?;
        Ok((pending, entry))
    }

    /// Ends a chunk's file; returns its entry.
    pub(super) fn finish(
        &self,
        chunk: u32,
        table: &str,
        writer: ChunkWriter,
        pending: &PendingChunk,
    ) -> Result<ChunkEntry> {
        let proof = &self.step().proof;
        let mut entry = ChunkEntry::new(self.fingerprints[chunk as usize], table, chunk, proof);
        entry.written_unix_ns = unix_ns();
        let footer =
            |rows, content| ChunkEntry { rows, content, ..entry.clone() }.footer(&self.components, proof.schema());
        let Written { rows, content, checksum } = writer.finish(footer)?;
        (entry.rows, entry.content, entry.checksum, entry.bytes) = (rows, content, checksum, pending.bytes()?);
        Ok(entry)
    }

    /// Puts chunks into the cache; returns the entry of each, by its number. Without a permit: others go on while the
    /// files reach the disk. The locks are released after that, also when the future is dropped before.
    pub(super) async fn commit(&self, computed: Vec<Computed>) -> Result<Vec<(u32, Arc<ChunkEntry>)>> {
        let (cache, components, force) = (Arc::clone(&self.context.cache), self.components.clone(), self.force);
        let in_use = Arc::clone(&self.context.in_use);
        // The entry of a file that another wrote may have another number.
        let chunks: Vec<u32> = computed.iter().map(|computed| computed.entry.chunk).collect();
        let commit = move || {
            let (locks, written): (Vec<_>, _) = computed.into_iter().map(Computed::written).unzip();
            let committed = cache.commit(written, &components, force);
            drop((locks, in_use));
            committed
        };
        let entries = tokio::task::spawn_blocking(commit)
            .await
            .map_err(|e| Error::new(ErrorKind::Storage, "a chunk can't be stored").with_source(e))??;
        let entries: Vec<_> = chunks.into_iter().zip(entries).collect();
        for (chunk, entry) in &entries {
            let (task, chunk, rows, bytes) = (self.planned.task.name.clone(), *chunk, entry.rows, entry.bytes);
            self.context.events.send(Event::ChunkDone { task, chunk, rows, bytes });
            let file = chunk_file(entry, self.context.cache.folder());
            for hook in self.hooks() {
                hook.committed(&file, &self.hook_context).await?;
            }
        }
        Ok(entries)
    }

    async fn append(&self, writer: &mut ChunkWriter, piece: Piece, joins: Joins, partitions: usize) -> Result<()> {
        let Step { proof, .. } = self.step();
        let provide = |scan: usize| -> datafusion::common::Result<Provided> {
            let Some(input) = self.inputs.get(scan) else {
                return datafusion::common::internal_err!("scan {scan} has no input");
            };
            let table = input.of_chunk(piece.chunk, self.context.rotates_scans);
            Ok(Provided { table, is_exact: input.is_exact(piece.chunk) })
        };
        let unplanned = |e| Error::new(ErrorKind::Execute, "the chunk can't be planned").with_source(e);
        let plan = rewrite(proof, piece, &provide).map_err(unplanned)?;
        let partitions = if is_partitionable(&plan).map_err(unplanned)? { partitions } else { 1 };
        let batch_bytes = self.context.budget.batch_bytes();
        let state = with_row_bytes(&with_joins(&self.context.state, joins), self.step().row_bytes(), batch_bytes);
        let state = with_partitions(&state, partitions);
        let before = writer.traffic();
        let appended = writer.append(&state, &plan).await;
        let traffic = writer.traffic();
        self.spilled_bytes.fetch_add(traffic.spilled_bytes - before.spilled_bytes, Ordering::Relaxed);
        self.scanned_bytes.fetch_add(traffic.scanned_bytes - before.scanned_bytes, Ordering::Relaxed);
        if appended.is_err() {
            // If a source changed, this is why the plan failed.
            self.check_sources(piece.chunk).await?;
        }
        appended
    }

    pub(super) async fn check_sources(&self, chunk: u32) -> Result<()> {
        for source in &self.sources {
            source.check_unchanged().await?;
        }
        for served in &self.served {
            served.check_unchanged(chunk).await?;
        }
        Ok(())
    }
}

/// A chunk that was computed, and may be committed by who holds the lock.
pub(super) struct Computed {
    pub(super) lock: Lock,
    pub(super) pending: PendingChunk,
    pub(super) entry: ChunkEntry,
}

impl Computed {
    fn written(self) -> (Lock, (PendingChunk, ChunkEntry)) {
        (self.lock, (self.pending, self.entry))
    }
}

/// Why a chunk was not finished.
enum Stopped {
    /// Memory did not suffice when rows of a part were in the file already.
    HalfWritten,
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A chunk's file as hooks see it.
pub fn chunk_file(entry: &ChunkEntry, cache: &Path) -> ChunkFile {
    ChunkFile { chunk: entry.chunk, path: entry.path(cache), rows: entry.rows, bytes: entry.bytes }
}

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
