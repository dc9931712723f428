//! Rows that wait for the value of their group, in memory as far as it reaches, else on disk.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, SpillFile, TaskContext};
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use futures::StreamExt;

use crate::execute::split::memory::without_shared_views;

/// Bytes that are held without a reservation: the end of a batch, mostly, and what makes a file worth its while.
const UNRESERVED_BYTES: usize = 4 << 20;

/// Rows of one group, in their order.
pub struct HeldRows {
    schema: SchemaRef,
    spill: SpillManager,
    reservation: MemoryReservation,
    batches: VecDeque<RecordBatch>,
    bytes: usize,
    /// The rows before `batches`.
    files: VecDeque<Arc<dyn SpillFile>>,
}

impl HeldRows {
    pub fn new(schema: SchemaRef, context: &TaskContext) -> Self {
        let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let spill = SpillManager::new(context.runtime_env(), metrics, Arc::clone(&schema));
        let reservation = MemoryConsumer::new("window").with_can_spill(true).register(context.memory_pool());
        Self { schema, spill, reservation, batches: VecDeque::new(), bytes: 0, files: VecDeque::new() }
    }

    /// Holds so many `rows`, which stood behind `before` others in their batch; they may have no columns.
    pub fn push(&mut self, columns: Vec<ArrayRef>, rows: usize, before: usize) -> Result<()> {
        // Few rows of a batch don't keep all of it.
        let columns = if rows <= before {
            let all = UInt64Array::from_iter_values(0..rows as u64);
            let own = |column: &ArrayRef| Ok(without_shared_views(&take(column, &all, None)?)?);
            columns.iter().map(own).collect::<Result<_>>()?
        } else {
            columns
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let bytes = get_record_batch_memory_size(&batch);
        let is_held = self.bytes + bytes <= UNRESERVED_BYTES || self.reservation.try_grow(bytes).is_ok();
        self.batches.push_back(batch);
        self.bytes += bytes;
        if is_held {
            return Ok(());
        }
        let batches: Vec<RecordBatch> = std::mem::take(&mut self.batches).into();
        self.files.extend(self.spill.spill_record_batch_and_finish(&batches, "window")?);
        self.reservation.free();
        self.bytes = 0;
        Ok(())
    }

    /// The rows that are held, below `schema`, with the columns that are `added`.
    pub fn take(&mut self, schema: &SchemaRef, added: Vec<Added>) -> Ready {
        self.bytes = 0;
        Ready::Held(Held {
            files: std::mem::take(&mut self.files),
            spill: self.spill.clone(),
            file: None,
            batches: std::mem::take(&mut self.batches),
            _reservation: self.reservation.take(),
            schema: Arc::clone(schema),
            added,
        })
    }
}

/// A column that a window adds.
pub enum Added {
    /// It is held with the rows, in the order of such columns.
    Held,
    /// It has one value.
    Value(ScalarValue),
}

/// Rows of a window that can be given out.
pub enum Ready {
    Batch(RecordBatch),
    Held(Held),
    Given,
}

impl Ready {
    /// The next batch; `None` when there are no more.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Batch(_) => match std::mem::replace(self, Self::Given) {
                Self::Batch(batch) => Ok(Some(batch)),
                Self::Held(_) | Self::Given => Ok(None),
            },
            Self::Held(held) => held.next().await,
            Self::Given => Ok(None),
        }
    }
}

/// Rows of a group whose values are known.
pub struct Held {
    files: VecDeque<Arc<dyn SpillFile>>,
    spill: SpillManager,
    /// The file that is being read.
    file: Option<SendableRecordBatchStream>,
    batches: VecDeque<RecordBatch>,
    _reservation: MemoryReservation,
    schema: SchemaRef,
    added: Vec<Added>,
}

impl Held {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.next_held().await? else { return Ok(None) };
        let of_input = self.schema.fields().len() - self.added.len();
        let mut held = batch.columns()[of_input..].iter();
        let mut columns = batch.columns()[..of_input].to_vec();
        for added in &self.added {
            match added {
                Added::Held => columns.extend(held.next().cloned()),
                Added::Value(value) => columns.push(value.to_array_of_size(batch.num_rows())?),
            }
        }
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }

    async fn next_held(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(file) = &mut self.file
                && let Some(batch) = file.next().await.transpose()?
            {
                return Ok(Some(batch));
            }
            self.file = None;
            let Some(file) = self.files.pop_front() else { return Ok(self.batches.pop_front()) };
            self.file = Some(self.spill.read_spill_as_stream_unbuffered(file, None)?);
        }
    }
}
