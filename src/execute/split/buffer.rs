//! Rows that wait until there are enough of each chunk to be handed on.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::execute::memory::{Footprint, row_bytes, without_shared_views};
use crate::execute::split::internal;
use crate::execute::split::sort::{Order, Run};
use crate::execute::write::arrow_error;

/// The most rows of a block: DataFusion's batch size, so that what is read is not sliced, which DataFusion would count
/// as if each slice had all of the memory.
pub const BLOCK_ROWS: usize = 8192;

/// A block is cut at about this many bytes of uncompressed rows, if it has not reached [`BLOCK_ROWS`] before.
pub const BLOCK_BYTES: usize = 8 << 20;

/// Blocks are gathered together up to about this many rows and bytes, which spares small ones most of the cost of
/// looking at every buffered batch.
const GATHER_ROWS: usize = 8 * BLOCK_ROWS;
const GATHER_BYTES: usize = 2 * BLOCK_BYTES;

/// Memory of a buffered row beside its values: its chunk number and its place in the order.
const ROW_BYTES: usize = size_of::<u16>() + size_of::<(u32, u32)>();

/// Rows with the columns of a schema and the chunk of each, in any order.
pub struct Buffer {
    schema: SchemaRef,
    chunks: u32,
    batches: Vec<Buffered>,
    footprint: Footprint,
}

/// A batch that waits.
#[derive(Debug)]
struct Buffered {
    columns: Vec<ArrayRef>,
    numbers: Vec<u16>,
    /// Mean bytes of a row, each value counted as if it were stored once per row.
    row_bytes: usize,
}

impl Buffer {
    /// An empty one for rows with the columns of `schema` and for `chunks` chunks.
    pub fn new(schema: SchemaRef, chunks: u32) -> Self {
        Self { schema, chunks, batches: Vec::new(), footprint: Footprint::default() }
    }

    /// Bytes of memory that the rows take.
    pub fn bytes(&self) -> usize {
        self.footprint.bytes()
    }

    /// Takes rows; `columns` are of the schema's types, and `numbers` holds each row's chunk, from 0.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`](crate::error::ErrorKind::Execute) when a number is missing, NULL or not a chunk.
    pub fn add(&mut self, columns: Vec<ArrayRef>, rows: usize, numbers: &Int32Array) -> Result<()> {
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
        let bytes: usize = columns.iter().map(|column| row_bytes(column.as_ref())).sum();
        let columns = columns.into_iter().map(|column| self.footprint.add(column));
        let columns = columns.collect::<std::result::Result<_, _>>().map_err(arrow_error)?;
        self.footprint.add_bytes(rows * ROW_BYTES);
        self.batches.push(Buffered { columns, numbers, row_bytes: bytes.div_ceil(rows) });
        Ok(())
    }

    /// Hands on all rows, as blocks of one chunk each, the chunks in order and each one's rows in the order in which
    /// they came.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn drain(&mut self, mut take: impl FnMut(u32, &RecordBatch) -> Result<()>) -> Result<()> {
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
                    self.hand_on(&std::mem::take(&mut gather), &mut take)?;
                }
                gather.rows.extend(part.iter().map(|(batch, row)| (*batch as usize, *row as usize)));
                gather.blocks.push(Run { chunk, rows: part.len() });
                gather.bytes += bytes;
            }
        }
        self.hand_on(&gather, &mut take)?;
        self.batches.clear();
        self.footprint = Footprint::default();
        Ok(())
    }

    fn hand_on(&self, gather: &Gather, take: &mut impl FnMut(u32, &RecordBatch) -> Result<()>) -> Result<()> {
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
            let columns = columns.iter().map(own).collect::<std::result::Result<_, _>>().map_err(arrow_error)?;
            let options = RecordBatchOptions::new().with_row_count(Some(*rows));
            let block =
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(arrow_error)?;
            take(*chunk, &block)?;
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
