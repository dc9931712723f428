//! Windows of which a frame reaches to the partition's end, a partition at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::SchemaRef;
use datafusion::common::utils::get_row_at_idx;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::window::WindowExpr;

use crate::execute::window::held::Ready;
use crate::execute::window::{Rows, arrays, ranges};

/// How many times the rows of a partition are in memory: as they came, put together, and as they are given out.
const COPIES: usize = 2;

/// What a window keeps between batches: the rows of the last partition.
pub struct Partitions {
    schema: SchemaRef,
    input: SchemaRef,
    exprs: Vec<Arc<dyn WindowExpr>>,
    batch_rows: usize,
    /// The partition of the last row.
    last: Vec<ScalarValue>,
    held: Vec<RecordBatch>,
    reservation: MemoryReservation,
}

impl Partitions {
    pub fn new(exprs: &[Arc<dyn WindowExpr>], input: &SchemaRef, schema: &SchemaRef, context: &TaskContext) -> Self {
        Self {
            schema: Arc::clone(schema),
            input: Arc::clone(input),
            exprs: exprs.to_vec(),
            batch_rows: context.session_config().batch_size(),
            last: Vec::new(),
            held: Vec::new(),
            reservation: MemoryConsumer::new("window over whole partitions").register(context.memory_pool()),
        }
    }

    /// Holds rows, if they are any.
    fn hold(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() > 0 {
            self.reservation.try_grow(COPIES * get_record_batch_memory_size(&batch))?;
            self.held.push(batch);
        }
        Ok(())
    }

    /// Gives out the rows that are held, which are those of whole partitions.
    fn give_held(&mut self, ready: &mut VecDeque<Ready>) -> Result<()> {
        let held = concat_batches(&self.input, &std::mem::take(&mut self.held))?;
        let rows = held.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let partitions = ranges(&arrays(self.exprs[0].partition_by().iter(), &held)?, rows)?;
        let partitions: Vec<RecordBatch> =
            partitions.iter().map(|partition| held.slice(partition.start, partition.len())).collect();
        let mut columns = held.columns().to_vec();
        for expr in &self.exprs {
            let of_each: Vec<_> = partitions.iter().map(|rows| expr.evaluate(rows)).collect::<Result<_>>()?;
            let of_each: Vec<_> = of_each.iter().map(|values| values.as_ref()).collect();
            columns.push(concat(&of_each)?);
        }
        let all = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let starts = (0..rows).step_by(self.batch_rows);
        let batches = starts.map(|at| all.slice(at, self.batch_rows.min(rows - at))).collect();
        ready.push_back(Ready::Batches { batches, _reservation: Some(self.reservation.take()) });
        Ok(())
    }
}

impl Rows for Partitions {
    fn next(&mut self, batch: RecordBatch, ready: &mut VecDeque<Ready>) -> Result<()> {
        let rows = batch.num_rows();
        let keys = arrays(self.exprs[0].partition_by().iter(), &batch)?;
        let last_start = ranges(&keys, rows)?.last().map_or(0, |partition| partition.start);
        let first = get_row_at_idx(&keys, 0)?;
        if self.last != first {
            self.give_held(ready)?;
        }
        self.last = get_row_at_idx(&keys, rows - 1)?;
        if last_start > 0 {
            self.hold(batch.slice(0, last_start))?;
            self.give_held(ready)?;
        }
        self.hold(batch.slice(last_start, rows - last_start))
    }

    fn end(&mut self, ready: &mut VecDeque<Ready>) -> Result<()> {
        self.give_held(ready)
    }
}
