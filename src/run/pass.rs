//! Passes: several chunks of a step computed at once, where that costs less than one by one.
//!
//! A pass is a shortcut. Where it fails, for want of memory or for any other reason, its chunks run one by one, which
//! says which of them fails and commits the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;

use crate::cache::lock::Lock;
use crate::cache::store::{ChunkEntry, PendingChunk};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::execute::deal::deal;
use crate::execute::session::{with_partitions, with_row_bytes};
use crate::execute::write::ChunkWriter;
use crate::plan::partitionable::is_partitionable;
use crate::plan::pass::Pass;
use crate::plan::rewrite::{Provided, rewrite_pass};
use crate::plan::steps::Step;
use crate::run::chunk::{ChunkJob, Computed};

impl ChunkJob {
    /// The passes in which these chunks are computed; none where they run one by one.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when a file of an input is gone.
    pub fn passes(&self, chunks: &[u32]) -> Result<Vec<Vec<u32>>> {
        let passes = self.step().passes(chunks);
        for chunks in &passes {
            for input in &self.inputs {
                if input.of_chunks(chunks)?.is_none() {
                    return Ok(Vec::new());
                }
            }
        }
        Ok(passes)
    }

    /// Computes several chunks at once when a permit is free; returns the entry of each, and whether it ran. Those that
    /// are left out, since another process makes them, say, are to be run one by one.
    ///
    /// # Errors
    /// What the plan fails with; none of the chunks is there then, but for those that were before.
    pub async fn run_pass(&self, chunks: &[u32], permits: &Semaphore) -> Result<Vec<(u32, Arc<ChunkEntry>, bool)>> {
        let Some(pass) = &self.step().pass else { return Ok(Vec::new()) };
        let permit = permits.acquire_many(self.own_permits()).await;
        let (mut locks, mut made) = (BTreeMap::new(), Vec::new());
        for chunk in chunks.iter().copied() {
            let fingerprint = self.fingerprints[chunk as usize];
            let Some(lock) = self.context.cache.lock(&fingerprint)? else { continue };
            match self.made(&fingerprint)? {
                Some(entry) => made.push((chunk, entry, false)),
                None => drop(locks.insert(chunk, lock)),
            }
        }
        if locks.len() > 1 {
            for chunk in locks.keys().copied() {
                self.context.events.send(Event::ChunkStarted { task: self.planned.task.name.clone(), chunk });
            }
            let computed = self.compute_pass(pass, locks, permits).await?;
            drop(permit);
            let committed = self.commit(computed).await?;
            made.extend(committed.into_iter().map(|(chunk, entry)| (chunk, entry, true)));
        }
        Ok(made)
    }

    /// Writes chunks to files that are not in the cache yet.
    async fn compute_pass(
        &self,
        pass: &Pass,
        locks: BTreeMap<u32, Lock>,
        permits: &Semaphore,
    ) -> Result<Vec<Computed>> {
        let Step { name, proof, .. } = self.step();
        let chunks: Vec<u32> = locks.keys().copied().collect();
        let unplanned = |e| Error::new(ErrorKind::Execute, "the chunks can't be planned").with_source(e);
        let provide = |scan: usize| -> datafusion::common::Result<Provided> {
            let provided = self.inputs.get(scan).map(|input| input.of_chunks(&chunks)).transpose();
            let provided = provided.map_err(|e| datafusion::common::DataFusionError::External(Box::new(e)))?;
            match provided.flatten() {
                Some(provided) => Ok(provided),
                None => datafusion::common::internal_err!("scan {scan} has no input for several chunks"),
            }
        };
        let plan = rewrite_pass(proof, pass, &chunks, &provide).map_err(unplanned)?;
        // What nobody waits for.
        let (mut more, mut partitions) = (Vec::new(), 1);
        if is_partitionable(proof.plan()).map_err(unplanned)? {
            while partitions < self.most_partitions(chunks.len())
                && let Ok(permit) = permits.try_acquire()
            {
                more.push(permit);
                partitions += 1;
            }
        }
        let mut state = with_partitions(
            &with_row_bytes(&self.context.state, self.step().row_bytes(), self.context.budget.batch_bytes()),
            partitions,
        );
        // DataFusion leaves this off, since it costs memory for each value that is partitioned by: here these are few.
        state.config_mut().options_mut().optimizer.enable_window_topn = pass.takes_first_rows;
        let _reading = self.reserve_files(partitions);
        let row_group_bytes = self.context.budget.row_group_bytes();
        let mut pending: BTreeMap<u32, PendingChunk> = BTreeMap::new();
        let mut writers = BTreeMap::new();
        for chunk in chunks.iter().copied() {
            let file = self.context.cache.begin()?;
            let (options, hooks) = (&self.planned.task.options, self.rows_hooks(chunk)?);
            writers.insert(chunk, ChunkWriter::new(file.writer()?, proof.schema(), options, row_group_bytes, hooks)?);
            pending.insert(chunk, file);
        }
        let traffic = deal(&state, &plan, &mut writers, proof.chunks(), row_group_bytes).await?;
        if let Some(of_nothing) = &pass.of_nothing {
            for writer in writers.values_mut().filter(|writer| writer.seen_rows() == 0) {
                writer.append(&state, of_nothing).await?;
            }
        }
        self.spilled_bytes.fetch_add(traffic.spilled_bytes, Ordering::Relaxed);
        self.scanned_bytes.fetch_add(traffic.scanned_bytes, Ordering::Relaxed);
        let mut computed = BTreeMap::new();
        for (chunk, writer) in writers {
            let Some(pending) = pending.remove(&chunk) else { continue };
            let entry = self.finish(chunk, name, writer, &pending)?;
            computed.insert(chunk, (pending, entry));
        }
        // A chunk of a source that changed meanwhile must never be found under the old identity.
        for chunk in chunks {
            self.check_sources(chunk).await?;
        }
        let with_locks = locks.into_iter().filter_map(|(chunk, lock)| {
            let (pending, entry) = computed.remove(&chunk)?;
            Some(Computed { lock, pending, entry })
        });
        Ok(with_locks.collect())
    }
}
