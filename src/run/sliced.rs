//! An input as the chunks of a step read it.

use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::store::ChunkEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::slice::{InputMode, Slice};
use crate::run::{Input, Output};
use crate::table::FilesTable;
use crate::table::output::of_chunks;

/// What each chunk reads of one scan.
#[derive(Debug)]
pub struct Sliced {
    /// One table for all chunks, or one for each.
    tables: Vec<Arc<FilesTable>>,
    is_exact: bool,
}

impl Sliced {
    /// What the chunks, of which there are `chunks`, read of `input` as `slice` says.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Storage`] when a chunk file of the input is damaged or gone.
    pub fn new(input: &Input, slice: Slice, chunks: u32, cache: &Cache) -> Result<Self> {
        let tables = match input {
            Input::Source(source) => vec![source.table()],
            Input::Output(output) => {
                cache.check(&output.entries)?;
                let tables = if slice.mode == InputMode::Reuse { chunks } else { 1 };
                (0..tables).map(|chunk| opened(output, slice, chunk, chunks, cache)).collect::<Result<_>>()?
            }
        };
        Ok(Self { tables, is_exact: slice.is_exact })
    }

    /// What chunk `chunk` reads.
    pub fn of_chunk(&self, chunk: u32) -> Arc<FilesTable> {
        let at = if self.tables.len() == 1 { 0 } else { chunk as usize };
        Arc::clone(&self.tables[at])
    }

    /// Whether that is nothing but the chunk's rows.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }
}

/// The stored chunks that chunk `chunk` opens; all of them unless the input is stored by the keys.
fn opened(output: &Output, slice: Slice, chunk: u32, chunks: u32, cache: &Cache) -> Result<Arc<FilesTable>> {
    let entries: Vec<Arc<ChunkEntry>> = match slice.mode {
        InputMode::Reuse => slice
            .stored(chunk, chunks)
            .map(|at| match output.entries.get(at as usize) {
                Some(entry) if (entry.chunk, entry.chunks) == (at, slice.stored_chunks) => Ok(Arc::clone(entry)),
                _ => Err(Error::new(ErrorKind::Storage, "an input is not stored as it was planned; this is a bug")),
            })
            .collect::<Result<_>>()?,
        InputMode::Rescan | InputMode::Replicate => output.entries.clone(),
    };
    Ok(Arc::new(of_chunks(cache.folder(), &entries, Arc::clone(&output.schema))?))
}
