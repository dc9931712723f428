//! One pass over an input's rows cuts them into the chunks of a task and stores them in one file, a *split file*, from
//! which each chunk can be read alone.
//!
//! Rows are buffered up to a number of bytes, then counting-sorted by chunk and written as *blocks*: record batches of an
//! Arrow IPC file that hold rows of one chunk each. The footer says which. So N chunks cost one file and one buffer, not
//! N of each. A chunk's rows keep the input's order.
//!
//! A split file is an IPC file that any Arrow reader can read. Beyond that, its footer's metadata holds the format's
//! version, the number of chunks, and chunk, rows and checksum of each block, and a checksum of the footer stands in
//! front of it: Arrow's decoder panics on some damaged files, so nothing is decoded before it is checked.
//!
//! Source: the sort-based shuffle of Apache Spark (SPARK-2045).

pub mod file;
mod memory;
mod output;
mod sort;
pub mod stored;

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, Int32Type, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::chunk::MAX_CHUNKS;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::split::memory::{Footprint, row_bytes, without_shared_views};
use crate::execute::split::output::Output;
use crate::execute::split::sort::{Order, Run};
use crate::execute::split::stored::stored_schema;
use crate::execute::write::execution_error;

/// The most rows of a block: DataFusion's batch size, so that what is read is not sliced, which DataFusion would count
/// as if each slice had all of the memory.
const BLOCK_ROWS: usize = 8192;

/// A block is cut at about this many bytes of uncompressed rows, if it has not reached [`BLOCK_ROWS`] before.
const BLOCK_BYTES: usize = 8 << 20;

/// Blocks are gathered together up to about this many rows and bytes, which spares small ones most of the cost of
/// looking at every buffered batch.
const GATHER_ROWS: usize = 8 * BLOCK_ROWS;
const GATHER_BYTES: usize = 2 * BLOCK_BYTES;

/// Memory of a buffered row beside its values: its chunk number and its place in the order.
const ROW_BYTES: usize = size_of::<u16>() + size_of::<(u32, u32)>();

/// How much a split file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitSize {
    /// Rows of all chunks.
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// Writes a split file: takes batches with the chunk number of each row, in any order.
///
/// Dropped before [`finish`](Self::finish), it leaves a file that no reader accepts.
pub struct SplitWriter {
    output: Output,
    schema: SchemaRef,
    chunks: u32,
    buffer_bytes: usize,
    batches: Vec<Buffered>,
    footprint: Footprint,
    rows: u64,
}

/// A batch that waits to be written.
#[derive(Debug)]
struct Buffered {
    columns: Vec<ArrayRef>,
    numbers: Vec<u16>,
    /// Mean bytes of a row, each value counted as if it were stored once per row.
    row_bytes: usize,
}

impl SplitWriter {
    /// A writer into the empty `file` for rows with the columns of `schema` and for `chunks` chunks, 1 to [`MAX_CHUNKS`].
    ///
    /// At most about `buffer_bytes` bytes of rows are buffered before they are written, but at least one batch; beside
    /// them a writer needs some 30 MiB, or a few times the largest row.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when the number of chunks is out of range or a column's type can't be stored
    /// (see [`stored::stored_type`]); [`ErrorKind::Storage`] when the file can't be written.
    pub fn try_new(file: File, schema: SchemaRef, chunks: u32, buffer_bytes: usize) -> Result<Self> {
        if !(1..=MAX_CHUNKS).contains(&chunks) {
            return Err(internal(format!("{chunks} chunks")));
        }
        let schema = stored_schema(&schema)?;
        let output = Output::try_new(file, &schema, chunks)?;
        Ok(Self { output, schema, chunks, buffer_bytes, batches: Vec::new(), footprint: Footprint::default(), rows: 0 })
    }

    /// Adds an entry to the file's metadata; the last one of a key counts.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.output.set_metadata(key.into(), value.into());
        self
    }

    /// Takes the rows of `batch`; `numbers` holds each one's chunk, from 0.
    ///
    /// The batch's columns must be those of the writer's schema in order, their types equal or as stored.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when a number is missing, NULL or not a chunk, or the columns differ;
    /// [`ErrorKind::Storage`] when the file can't be written. After an error the file is of no use.
    pub fn write(&mut self, batch: RecordBatch, numbers: &Int32Array) -> Result<()> {
        let rows = batch.num_rows();
        if numbers.len() != rows || numbers.null_count() > 0 {
            let (count, nulls) = (numbers.len(), numbers.null_count());
            return Err(internal(format!("{count} chunk numbers, {nulls} of them NULL, for {rows} rows")));
        }
        if rows == 0 {
            return Ok(());
        }
        let chunk = |number: &i32| match u16::try_from(*number) {
            Ok(chunk) if u32::from(chunk) < self.chunks => Ok(chunk),
            _ => Err(internal(format!("a row of chunk {number} out of {}", self.chunks))),
        };
        let numbers = numbers.values().iter().map(chunk).collect::<Result<Vec<_>>>()?;
        if batch.num_columns() != self.schema.fields().len() {
            let expected = self.schema.fields().len();
            return Err(internal(format!("{} columns instead of {expected}", batch.num_columns())));
        }
        let mut columns = Vec::with_capacity(batch.num_columns());
        let mut bytes = 0;
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            let column = match column.data_type() == field.data_type() {
                true => Arc::clone(column),
                false => cast(column, field.data_type()).map_err(arrow_error)?,
            };
            bytes += row_bytes(column.as_ref());
            columns.push(self.footprint.add(column).map_err(arrow_error)?);
        }
        drop(batch);
        self.footprint.add_bytes(rows * ROW_BYTES);
        self.rows += rows as u64;
        self.batches.push(Buffered { columns, numbers, row_bytes: bytes.div_ceil(rows) });
        if self.footprint.bytes() >= self.buffer_bytes {
            self.write_buffered()?;
        }
        Ok(())
    }

    /// Writes what is buffered and the footer. The file is not synced to disk.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the file can't be written.
    pub fn finish(mut self) -> Result<SplitSize> {
        self.write_buffered()?;
        Ok(SplitSize { rows: self.rows, bytes: self.output.finish()? })
    }

    /// Bytes of memory that buffered rows take.
    #[cfg(test)]
    fn buffered_bytes(&self) -> usize {
        self.footprint.bytes()
    }

    fn write_buffered(&mut self) -> Result<()> {
        let numbers = self.batches.iter().map(|batch| batch.numbers.as_slice());
        let order = Order::new(&numbers.collect::<Vec<_>>(), self.chunks);
        let mut gather = Gather::default();
        for (chunk, rows) in order.chunks() {
            let bytes: usize = rows.iter().map(|(batch, _)| self.batches[*batch as usize].row_bytes).sum();
            let blocks = rows.len().div_ceil(BLOCK_ROWS).max(bytes.div_ceil(BLOCK_BYTES)).min(rows.len());
            for block in 0..blocks {
                let part = &rows[block * rows.len() / blocks..(block + 1) * rows.len() / blocks];
                let bytes = bytes / blocks;
                if gather.rows.len() + part.len() > GATHER_ROWS || gather.bytes + bytes > GATHER_BYTES {
                    self.write_blocks(&std::mem::take(&mut gather))?;
                }
                gather.rows.extend(part.iter().map(|(batch, row)| (*batch as usize, *row as usize)));
                gather.blocks.push(Run { chunk, rows: part.len() });
                gather.bytes += bytes;
            }
        }
        self.write_blocks(&gather)?;
        self.batches.clear();
        self.footprint = Footprint::default();
        Ok(())
    }

    fn write_blocks(&mut self, gather: &Gather) -> Result<()> {
        if gather.rows.is_empty() {
            return Ok(());
        }
        let gathered = |index: usize| {
            let parts: Vec<&dyn Array> = self.batches.iter().map(|batch| batch.columns[index].as_ref()).collect();
            interleave(&parts, &gather.rows).map_err(arrow_error)
        };
        let columns = (0..self.schema.fields().len()).map(gathered).collect::<Result<Vec<_>>>()?;
        let mut start = 0;
        for Run { chunk, rows } in &gather.blocks {
            let own = |column: &ArrayRef| without_shared_views(&column.slice(start, *rows));
            let columns = columns.iter().map(own).collect::<Result<_, _>>().map_err(arrow_error)?;
            let options = RecordBatchOptions::new().with_row_count(Some(*rows));
            let block =
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(arrow_error)?;
            self.output.write_block(*chunk, &block)?;
            start += rows;
        }
        Ok(())
    }
}

/// Blocks that are gathered together, and the batch and row of each of their rows.
#[derive(Debug, Default)]
struct Gather {
    rows: Vec<(usize, usize)>,
    blocks: Vec<Run>,
    bytes: usize,
}

/// Writes all rows of `stream` to the empty `file`, cut into `chunks` chunks, with the given metadata.
///
/// The stream's last column is the row's chunk number, an `Int32`; it is not stored. `buffer_bytes` is as for
/// [`SplitWriter::try_new`]. Dropping the future stops the stream.
///
/// # Errors
/// [`ErrorKind::Execute`] when the stream fails or is not of this kind, [`ErrorKind::Storage`] when the file can't be
/// written.
pub async fn split(
    mut stream: SendableRecordBatchStream,
    chunks: u32,
    file: File,
    buffer_bytes: usize,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Result<SplitSize> {
    let schema = stream.schema();
    let Some((number, fields)) = schema.fields().split_last().filter(|(last, _)| *last.data_type() == DataType::Int32)
    else {
        return Err(internal("the last column is not a chunk number".into()));
    };
    let stored = Arc::new(Schema::new_with_metadata(fields.to_vec(), schema.metadata().clone()));
    let mut writer = SplitWriter::try_new(file, stored, chunks, buffer_bytes)?;
    for (key, value) in metadata {
        writer = writer.with_metadata(key, value);
    }
    while let Some(batch) = stream.next().await {
        let mut batch = batch.map_err(execution_error)?;
        if batch.num_columns() != schema.fields().len() {
            return Err(internal(format!("a batch without the column {}", number.name())));
        }
        let numbers = batch.remove_column(fields.len());
        let Some(numbers) = numbers.as_primitive_opt::<Int32Type>() else {
            return Err(internal(format!("chunk numbers of type {}", numbers.data_type())));
        };
        writer.write(batch, numbers)?;
    }
    writer.finish()
}

fn internal(found: String) -> Error {
    Error::new(ErrorKind::Execute, format!("internal error: an input can't be split: {found}"))
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    execution_error(DataFusionError::ArrowError(Box::new(error), None))
}
