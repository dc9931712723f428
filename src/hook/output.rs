//! Materialization: what becomes of a task's rows.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;

use crate::error::Result;
use crate::hook::HookContext;

/// Sees the rows of each chunk while they are written, each file once it is in the cache, and the whole before it is
/// published. An error of any of its methods fails the task: nothing is published then.
///
/// Chunks that are in the cache were seen when they were made, and are not seen again: name and version are part of what a
/// chunk is named by, so that a hook that is new, or has a new version, sees all. A hook that keeps state for the whole of a
/// table does so from the files, in [`finish`](MaterializationHook::finish). Of a task that runs in steps only the last is
/// seen, which gives its table.
#[async_trait]
pub trait MaterializationHook: fmt::Debug + Send + Sync {
    /// Its name, for fingerprints and reasons.
    fn name(&self) -> &str;

    /// To be changed whenever it accepts or gives other rows. Default: `"1"`.
    fn version(&self) -> &str {
        "1"
    }

    /// Columns of the table, where [`ChunkRows::batch`] changes rows; called with those that the query, or the hook before
    /// it, gives. Default: `None`, rows are only looked at.
    ///
    /// A table whose rows are changed is not read by file by tasks with the same keys, since the keys may have changed too.
    ///
    /// # Errors
    /// What stops the task from being planned.
    fn schema(&self, _query: &SchemaRef) -> Result<Option<SchemaRef>> {
        Ok(None)
    }

    /// Begins a chunk. Where memory is short a chunk may begin again, and an audit computes chunks again that are in
    /// the cache: so what it does must not depend on how often it is called. Default: `None`,
    /// rows are not looked at.
    ///
    /// # Errors
    /// What stops the chunk.
    fn begin(&self, _chunk: &OutputChunk) -> Result<Option<Box<dyn ChunkRows>>> {
        Ok(None)
    }

    /// The chunk's file is in the cache: called at most once for each file, since a chunk in the cache does not run again. What must
    /// not be missed belongs into [`finish`](MaterializationHook::finish). Default: nothing.
    ///
    /// # Errors
    /// What stops the task; the chunk stays in the cache.
    async fn committed(&self, _file: &ChunkFile, _context: &HookContext) -> Result<()> {
        Ok(())
    }

    /// All chunks are there, and will be published next, with a stage when all its tasks are done: if one of these fails it is
    /// not, and this is called again by the next run. Not called where the table was published before and no chunk ran.
    /// Default: nothing.
    ///
    /// # Errors
    /// What keeps the table from being published.
    async fn finish(&self, _table: &FinishedTable, _context: &HookContext) -> Result<()> {
        Ok(())
    }
}

/// Sees a chunk's rows as they come.
pub trait ChunkRows: Send {
    /// The next rows; what is returned is written. Where the hook has no [`MaterializationHook::schema`] of its own, the rows
    /// are written as they came.
    ///
    /// # Errors
    /// What stops the chunk: its file is not kept.
    fn batch(&mut self, rows: RecordBatch) -> Result<RecordBatch>;

    /// No more rows come. Default: nothing.
    ///
    /// # Errors
    /// What stops the chunk: its file is not kept.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A chunk that is about to be written.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct OutputChunk {
    /// The chunk, from 0.
    pub chunk: u32,
    /// Columns of the rows that come.
    pub schema: SchemaRef,
    /// The task.
    pub context: HookContext,
}

/// A chunk's file in the cache. It must not be changed.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkFile {
    /// The chunk, from 0.
    pub chunk: u32,
    /// The Parquet file.
    pub path: PathBuf,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// All chunks of a task, before they are published.
#[non_exhaustive]
#[derive(Debug)]
pub struct FinishedTable {
    /// The files, by chunk.
    pub files: Vec<ChunkFile>,
    /// Their rows, as a table.
    pub table: Arc<dyn TableProvider>,
}
