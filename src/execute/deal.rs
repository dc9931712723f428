//! The plan of a pass, its rows dealt to the files of the chunks that it computes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Schema};
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::LogicalPlan;

use crate::error::{Error, ErrorKind, Result};
use crate::execute::budget::COLUMN_BYTES;
use crate::execute::split::buffer::Buffer;
use crate::execute::write::{ChunkWriter, Running, Traffic, execution_error};

/// So many bytes of rows wait for others of their chunk, if that can be reserved.
const BUFFER_BYTES: usize = 16 << 20;

/// Runs a plan whose last column, an `Int32`, is the chunk of each row, and appends the row to that chunk's writer;
/// there are `chunks` in all. Dropping the future stops the plan.
///
/// The files that are being written have no more in memory together than `row_group_bytes`, as one that is written
/// alone, or than their columns take at least, which is reserved.
///
/// # Errors
/// [`ErrorKind::Execute`] when the plan fails or has a row of another chunk, [`ErrorKind::Storage`] when a file can't
/// be written. Rows that came before are in the files then.
pub async fn deal(
    state: &SessionState,
    plan: &LogicalPlan,
    writers: &mut BTreeMap<u32, ChunkWriter>,
    chunks: u32,
    row_group_bytes: usize,
) -> Result<Traffic> {
    let mut running = Running::start(state, plan).await?;
    let fields = running.schema().fields().clone();
    let Some((_, fields)) = fields.split_last() else { return Err(no_numbers()) };
    let mut buffer = Buffer::new(Arc::new(Schema::new(fields.to_vec())), chunks);
    let pool = &state.runtime_env().memory_pool;
    let files = MemoryConsumer::new("files of chunks").register(pool);
    files.try_grow(writers.len() * fields.len() * COLUMN_BYTES).map_err(execution_error)?;
    let most_bytes = files.size().max(row_group_bytes);
    let reserved = MemoryConsumer::new("rows of chunks").register(pool);
    while let Some(batch) = running.next().await {
        let batch = batch?;
        let Some((numbers, columns)) = batch.columns().split_last() else { return Err(no_numbers()) };
        let numbers = numbers.as_primitive_opt::<Int32Type>().ok_or_else(no_numbers)?;
        buffer.add(columns.to_vec(), batch.num_rows(), numbers)?;
        if buffer.bytes() > BUFFER_BYTES || reserved.try_resize(buffer.bytes()).is_err() {
            hand_on(&mut buffer, writers, &reserved, most_bytes)?;
        }
    }
    hand_on(&mut buffer, writers, &reserved, most_bytes)?;
    Ok(running.traffic())
}

/// Appends what waits; after that the files have no more than so many bytes in memory.
fn hand_on(
    buffer: &mut Buffer,
    writers: &mut BTreeMap<u32, ChunkWriter>,
    reserved: &MemoryReservation,
    most_bytes: usize,
) -> Result<()> {
    buffer.drain(|chunk, block| match writers.get_mut(&chunk) {
        Some(writer) => writer.take(block.clone()),
        None => Err(internal(&format!("a row of chunk {chunk}"))),
    })?;
    reserved.free();
    let mut in_progress: Vec<_> = writers.values_mut().map(|writer| (writer.in_progress_bytes(), writer)).collect();
    in_progress.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let mut all: usize = in_progress.iter().map(|(bytes, _)| bytes).sum();
    for (bytes, writer) in in_progress {
        if all <= most_bytes {
            break;
        }
        writer.end_row_group()?;
        all -= bytes;
    }
    Ok(())
}

fn no_numbers() -> Error {
    internal("a batch without chunk numbers")
}

fn internal(found: &str) -> Error {
    Error::new(ErrorKind::Execute, format!("internal error: chunks can't be computed at once: {found}"))
}
