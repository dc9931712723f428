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

use crate::execute::memory::without_shared_views;

/// Bytes that are held without a reservation: mostly the end of a batch.
const UNRESERVED_BYTES: usize = 1 << 20;

/// Adds a batch to a file. Without one it ends the file, and gives it.
type Append = Box<dyn FnMut(Option<&RecordBatch>) -> Result<Option<Arc<dyn SpillFile>>> + Send>;

/// Rows of one group, in their order.
pub struct HeldRows {
    schema: SchemaRef,
    spill: SpillManager,
    reservation: MemoryReservation,
    /// All rows, as long as there is no file.
    batches: VecDeque<RecordBatch>,
    bytes: usize,
    file: Option<Append>,
}

impl HeldRows {
    pub fn new(schema: SchemaRef, context: &TaskContext) -> Self {
        let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let spill = SpillManager::new(context.runtime_env(), metrics, Arc::clone(&schema));
        let reservation = MemoryConsumer::new("window").with_can_spill(true).register(context.memory_pool());
        Self { schema, spill, reservation, batches: VecDeque::new(), bytes: 0, file: None }
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
        let fits = || self.bytes + bytes <= UNRESERVED_BYTES || self.reservation.try_grow(bytes).is_ok();
        if self.file.is_none() && fits() {
            self.batches.push_back(batch);
            self.bytes += bytes;
            return Ok(());
        }
        let append = match &mut self.file {
            Some(append) => append,
            none => none.insert(new_file(&self.spill)?),
        };
        for batch in self.batches.drain(..).chain([batch]) {
            append(Some(&batch))?;
        }
        self.reservation.free();
        self.bytes = 0;
        Ok(())
    }

    /// The rows that are held, below `schema`, with the columns that are `added`.
    pub fn take(&mut self, schema: &SchemaRef, added: Vec<Added>) -> Result<Ready> {
        self.bytes = 0;
        let file = self.file.take().map(|mut append| append(None)).transpose()?.flatten();
        let file = file.map(|file| self.spill.read_spill_as_stream_unbuffered(file, None)).transpose()?;
        let (batches, reservation) = (std::mem::take(&mut self.batches), self.reservation.take());
        Ok(Ready::Held(Held { batches, file, _reservation: reservation, schema: Arc::clone(schema), added }))
    }
}

fn new_file(spill: &SpillManager) -> Result<Append> {
    let mut file = spill.create_in_progress_file("window")?;
    Ok(Box::new(move |batch| match batch {
        Some(batch) => file.append_batch(batch).map(|_| None),
        None => file.finish(),
    }))
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
    /// With the window's columns.
    Batches {
        batches: VecDeque<RecordBatch>,
        /// What is reserved for them.
        _reservation: Option<MemoryReservation>,
    },
    Held(Held),
}

impl Ready {
    /// The next batch; `None` when there are no more.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Batches { batches, _reservation } => Ok(batches.pop_front()),
            Self::Held(held) => held.next().await,
        }
    }
}

/// Rows of a group whose values are known.
pub struct Held {
    batches: VecDeque<RecordBatch>,
    /// In place of `batches`.
    file: Option<SendableRecordBatchStream>,
    _reservation: MemoryReservation,
    schema: SchemaRef,
    added: Vec<Added>,
}

impl Held {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let batch = match &mut self.file {
            Some(file) => file.next().await.transpose()?,
            None => self.batches.pop_front(),
        };
        let Some(batch) = batch else { return Ok(None) };
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
}
