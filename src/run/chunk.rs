//! One chunk: its plan, its file, its entry.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

use crate::cache::store::ChunkEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::execute::write::{is_out_of_memory, write};
use crate::plan::fingerprint::{Components, Fingerprint};
use crate::plan::rewrite::{Provided, rewrite};
use crate::plan::steps::Step;
use crate::run::sliced::Sliced;
use crate::run::{Context, PlannedTask};
use crate::table::source::Snapshot;

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
    /// What the step's chunks are made of.
    pub components: Components,
    /// The chunks' fingerprints, by number.
    pub fingerprints: Vec<Fingerprint>,
    /// Whether a file that is there is replaced.
    pub force: bool,
}

impl ChunkJob {
    /// Runs a chunk when a permit is free; again, alone and so with all the memory, if that did not suffice beside others.
    pub async fn run_within(&self, chunk: u32, permits: &Semaphore) -> Result<Arc<ChunkEntry>> {
        let jobs = self.context.jobs as u32;
        // The semaphore is never closed, so both calls wait and succeed.
        let beside_others = {
            let _permit = permits.acquire().await;
            self.run(chunk).await
        };
        match beside_others {
            Err(error) if jobs > 1 && is_out_of_memory(&error) => {
                let _all = permits.acquire_many(jobs).await;
                self.run(chunk).await
            }
            other => other,
        }
    }

    async fn run(&self, chunk: u32) -> Result<Arc<ChunkEntry>> {
        let PlannedTask { task, steps } = self.planned.as_ref();
        let Step { name, proof, .. } = &steps[self.step];
        let Context { cache, state, events, .. } = &self.context;
        events.send(Event::ChunkStarted { task: task.name.clone(), chunk });
        let provide = |scan: usize| -> datafusion::common::Result<Provided> {
            let Some(input) = self.inputs.get(scan) else {
                return datafusion::common::internal_err!("scan {scan} has no input");
            };
            let table = input.of_chunk(chunk);
            let table = if self.context.rotates_scans { Arc::new(table.rotated(chunk as usize)) } else { table };
            Ok(Provided { table, is_exact: input.is_exact(chunk) })
        };
        let plan = rewrite(proof, chunk, &provide)
            .map_err(|e| Error::new(ErrorKind::Execute, "the chunk can't be planned").with_source(e))?;
        let mut entry = ChunkEntry {
            fingerprint: self.fingerprints[chunk as usize],
            table: name.clone(),
            chunk,
            chunks: proof.chunks(),
            keys: proof.stored_by().to_vec(),
            rows: 0,
            bytes: 0,
            written_unix_ns: unix_ns(),
        };
        let pending = cache.begin()?;
        let footer = |rows| ChunkEntry { rows, ..entry.clone() }.footer(&self.components);
        let written = write(state, &plan, proof.schema(), &task.options, pending.writer()?, footer).await;
        // A chunk of a source that changed meanwhile must never be found under the old identity; and if the plan
        // failed, this is why.
        for source in &self.sources {
            source.check_unchanged().await?;
        }
        let rows = written?;
        (entry.rows, entry.bytes) = (rows, pending.bytes()?);
        let entry = cache.commit(pending, entry, &self.components, self.force)?;
        let (rows, bytes) = (entry.rows, entry.bytes);
        events.send(Event::ChunkDone { task: task.name.clone(), chunk, rows, bytes });
        Ok(entry)
    }
}

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
