//! An input as the chunks of a step read it.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;

use crate::cache::Cache;
use crate::cache::split::SplitId;
use crate::cache::store::ChunkEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::clustering::RowGroup;
use crate::plan::need::Need;
use crate::plan::prove::proof::Proof;
use crate::plan::rewrite::Provided;
use crate::plan::slice::{InputMode, Slice};
use crate::run::split::Split;
use crate::run::{Input, Output};
use crate::table::FilesTable;
use crate::table::output::of_chunks;
use crate::table::split::SplitTable;

/// What each chunk reads of one scan.
#[derive(Debug)]
pub struct Sliced {
    /// One table for all chunks, or one for each.
    tables: Vec<Table>,
    /// For each chunk, whether its table has no other rows than the chunk's.
    is_exact: Vec<bool>,
    /// Rows that each chunk reads, about; nothing when all read the same.
    rows: Vec<u64>,
    /// How it is read.
    mode: InputMode,
    /// The splits that are read.
    splits: Vec<SplitId>,
    /// Whether the order of its rows counts.
    is_ordered: bool,
    /// Where several chunks find their rows at once.
    together: Together,
}

/// What several chunks read at once.
#[derive(Debug)]
enum Together {
    /// The table that each of them reads.
    Same,
    /// Their parts of a split, with these columns.
    Split(Split, SchemaRef),
    /// Stored chunks in a folder, for each chunk those that it opens, with these columns.
    Stored(PathBuf, Vec<Vec<Arc<ChunkEntry>>>, SchemaRef),
    /// The whole of the input: if they are all.
    Whole(Arc<FilesTable>),
    /// Nothing: each is asked for alone.
    Nothing,
}

#[derive(Debug)]
enum Table {
    Files(Arc<FilesTable>),
    /// Some row groups of one: a table of them is made when a chunk reads it, and goes with the chunk.
    RowGroups(Arc<FilesTable>, Vec<RowGroup>),
    Served(Arc<dyn TableProvider>),
    Split(Arc<SplitTable>),
}

impl Sliced {
    /// What the chunks read of an input with these columns that was split.
    ///
    /// # Errors
    /// When the split has not these columns.
    pub fn of_split(split: &Split, schema: &SchemaRef, chunks: u32) -> Result<Self> {
        let table = |chunk| {
            let Split { ids: _, files, columns } = split.clone();
            Ok(Table::Split(Arc::new(SplitTable::try_new(Arc::clone(schema), &columns, files, vec![chunk])?)))
        };
        let tables = (0..chunks).map(table).collect::<Result<_>>()?;
        let is_exact = vec![true; chunks as usize];
        let rows = (0..chunks).map(|chunk| split.files.iter().map(|file| file.rows(chunk)).sum()).collect();
        let (mode, splits) = (InputMode::Split, split.ids.clone());
        let together = Together::Split(split.clone(), Arc::clone(schema));
        Ok(Self { tables, is_exact, rows, mode, splits, is_ordered: false, together })
    }

    /// What the chunks of `proof` read of `input`, its scan number `scan`, as `slice` says.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when a chunk file of the input is damaged or gone.
    pub fn new(input: &Input, slice: &Slice, proof: &Proof, scan: usize, cache: &Cache) -> Result<Self> {
        let chunks = proof.chunks();
        let mut rows = Vec::new();
        let mut together = Together::Same;
        let tables = match (input, slice.mode()) {
            (Input::Source(source), InputMode::Range) => {
                rows = (0..chunks).map(|chunk| slice.row_groups(chunk).iter().map(|group| group.rows).sum()).collect();
                together = Together::Whole(source.table());
                Ok((0..chunks).map(|chunk| Table::RowGroups(source.table(), slice.row_groups(chunk))).collect())
            }
            (Input::Source(source), _) => Ok(vec![Table::Files(source.table())]),
            (Input::Served(served), InputMode::Serve) => {
                together = Together::Nothing;
                let slice = |chunk| Ok(Table::Served(served.table(served.slice(proof, scan, chunk)?)));
                (0..chunks).map(slice).collect()
            }
            (Input::Served(served), _) => Ok(vec![Table::Served(served.whole())]),
            (Input::Output(output), mode) => {
                cache.check(&output.entries)?;
                let opened = |entries: &[_]| {
                    of_chunks(cache.folder(), entries, Arc::clone(&output.schema))
                        .map(|table| Table::Files(Arc::new(table)))
                };
                match mode {
                    InputMode::Reuse => {
                        let entries =
                            (0..chunks).map(|chunk| stored(output, slice, chunk)).collect::<Result<Vec<_>>>()?;
                        rows = entries.iter().map(|entries| entries.iter().map(|entry| entry.rows).sum()).collect();
                        let tables = entries.iter().map(|entries| opened(entries)).collect();
                        let folder = cache.folder().to_path_buf();
                        together = Together::Stored(folder, entries, Arc::clone(&output.schema));
                        tables
                    }
                    InputMode::Range
                    | InputMode::Serve
                    | InputMode::Split
                    | InputMode::Rescan
                    | InputMode::Replicate => opened(&output.entries).map(|table| vec![table]),
                }
            }
        };
        let is_exact = (0..chunks).map(|chunk| slice.is_exact(chunk)).collect();
        let (mode, splits) = (slice.mode(), Vec::new());
        Ok(Self { tables: tables?, is_exact, rows, mode, splits, is_ordered: false, together })
    }

    /// The same, as needed: where the order of rows counts for chunks that each see their own, they are read in it.
    pub fn needed(self, need: Option<&Need>) -> Self {
        let is_ordered = need.is_some_and(|need| need.is_ordered) && self.mode != InputMode::Replicate;
        Self { is_ordered, ..self }
    }

    /// What chunk `chunk` reads, the files in another order for each chunk if `rotates`.
    pub fn of_chunk(&self, chunk: u32, rotates: bool) -> Arc<dyn TableProvider> {
        let at = if self.tables.len() == 1 { 0 } else { chunk as usize };
        let files = match &self.tables[at] {
            Table::Files(files) => Arc::clone(files),
            Table::RowGroups(files, opened) => Arc::new(files.of_row_groups(opened)),
            Table::Served(served) => return Arc::clone(served),
            Table::Split(split) => return Arc::clone(split) as _,
        };
        if rotates && !self.is_ordered { Arc::new(files.rotated(chunk as usize)) } else { files }
    }

    /// What a pass reads that computes `chunks`, and whether it has no other rows than theirs; `None` where they can't
    /// be read at once.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when a file is gone.
    pub fn of_chunks(&self, chunks: &[u32]) -> Result<Option<Provided>> {
        let is_all = chunks.len() == self.is_exact.len();
        let table: Arc<dyn TableProvider> = match &self.together {
            Together::Same => match self.tables.first() {
                Some(Table::Files(files)) => Arc::clone(files) as _,
                Some(Table::Served(served)) => Arc::clone(served),
                Some(Table::Split(split)) => Arc::clone(split) as _,
                // These are each for themselves.
                Some(Table::RowGroups(..)) | None => return Ok(None),
            },
            Together::Split(Split { ids: _, files, columns }, schema) => {
                Arc::new(SplitTable::try_new(Arc::clone(schema), columns, files.clone(), chunks.to_vec())?)
            }
            Together::Stored(folder, entries, schema) => {
                let mut opened: Vec<Arc<ChunkEntry>> =
                    chunks.iter().flat_map(|chunk| &entries[*chunk as usize]).cloned().collect();
                opened.sort_by_key(|entry| entry.chunk);
                opened.dedup_by_key(|entry| entry.chunk);
                Arc::new(of_chunks(folder, &opened, Arc::clone(schema))?)
            }
            Together::Whole(files) if is_all => Arc::clone(files) as _,
            Together::Whole(_) | Together::Nothing => return Ok(None),
        };
        let is_exact = chunks.iter().all(|chunk| self.is_exact(*chunk));
        Ok(Some(Provided { table, is_exact }))
    }

    /// Rows that a chunk reads, about; 0 when all read the same.
    pub fn rows(&self, chunk: u32) -> u64 {
        self.rows.get(chunk as usize).copied().unwrap_or_default()
    }

    /// How it is read.
    pub fn mode(&self) -> InputMode {
        self.mode
    }

    /// The splits that are read.
    pub fn splits(&self) -> &[SplitId] {
        &self.splits
    }

    /// Whether that is nothing but the chunk's rows.
    pub fn is_exact(&self, chunk: u32) -> bool {
        self.is_exact[chunk as usize]
    }
}

/// The stored chunks that a chunk opens.
///
/// # Errors
/// [`ErrorKind::Storage`] when the input is not stored as `slice` says.
pub fn stored(output: &Output, slice: &Slice, chunk: u32) -> Result<Vec<Arc<ChunkEntry>>> {
    let otherwise = || Error::new(ErrorKind::Storage, "an input is not stored as it was planned; this is a bug");
    let (opened, _) =
        slice.stored(chunk).filter(|(_, of)| *of as usize == output.entries.len()).ok_or_else(otherwise)?;
    let entry = |at: u32| {
        let entry = output.entries.get(at as usize).filter(|entry| entry.chunk == at);
        entry.map(Arc::clone).ok_or_else(otherwise)
    };
    opened.into_iter().map(entry).collect()
}
