//! A chunk's plan, streamed into its Parquet file: no more than a row group is ever in memory.

use std::ops::AddAssign;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use parquet::arrow::add_encoded_arrow_schema_to_metadata;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use tokio::task::JoinError;

use crate::arithmetic::remedy::remedy;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::checksum::{Checksum, ChecksumWriter};
use crate::execute::conform::conform;
use crate::execute::content::{Content, RowHasher};
use crate::execute::session::exact;
use crate::hook::ChunkRows;
use crate::plan::published::schema_of_files;
use crate::task::TaskOptions;

/// A page of values or of their dictionary has so many bytes at most, as Parquet's writers have them, and fewer where
/// there are so many columns that their pages would be more than a row group.
const MOST_PAGE_BYTES: usize = 1 << 20;
const LEAST_PAGE_BYTES: usize = 16 << 10;

/// Numbers of tables with more columns than this have no dictionaries, each of which takes 70 KiB from its first value
/// on.
const WIDE_COLUMNS: usize = 256;

/// A chunk's Parquet file being written.
pub struct ChunkWriter {
    writer: ArrowWriter<ChecksumWriter>,
    row_group_bytes: usize,
    schema: SchemaRef,
    hooks: RowsHooks,
    hasher: RowHasher,
    content: Content,
    rows: u64,
    seen_rows: u64,
    traffic: Traffic,
}

/// What was written to a chunk's file.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// What they say.
    pub content: Content,
    /// Checksum of the file.
    pub checksum: Checksum,
}

impl ChunkWriter {
    /// Begins a file with the columns of `schema`, which are what `hooks` give. A row group is ended when it has more
    /// than `row_group_bytes` in memory, if it has not reached its number of rows before.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the file can't be written.
    pub fn new(
        file: std::fs::File,
        schema: &SchemaRef,
        options: &TaskOptions,
        row_group_bytes: usize,
        hooks: RowsHooks,
    ) -> Result<Self> {
        let TaskOptions { version: _, compression, row_group_rows } = options;
        let column_bytes = (row_group_bytes / schema.fields().len().max(1)).clamp(LEAST_PAGE_BYTES, MOST_PAGE_BYTES);
        let mut properties = WriterProperties::builder();
        if schema.fields().len() > WIDE_COLUMNS {
            for number in schema.fields().iter().filter(|field| field.data_type().is_numeric()) {
                let path = ColumnPath::from(number.name().as_str());
                properties = properties.set_column_dictionary_enabled(path, false);
            }
        }
        let mut properties = properties
            .set_compression(*compression)
            .set_max_row_group_row_count(Some(*row_group_rows))
            .set_data_page_size_limit(column_bytes)
            .set_dictionary_page_size_limit(column_bytes)
            .set_created_by(format!("chunkwise {}", env!("CARGO_PKG_VERSION")))
            .build();
        add_encoded_arrow_schema_to_metadata(&schema_of_files(schema), &mut properties);
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(ChecksumWriter::new(file), Arc::clone(schema), options)
            .map_err(write_error)?;
        let hasher = RowHasher::try_new(schema).map_err(arrow_error)?;
        let (schema, content) = (Arc::clone(schema), Content::default());
        Ok(Self {
            writer,
            row_group_bytes,
            schema,
            hooks,
            hasher,
            content,
            rows: 0,
            seen_rows: 0,
            traffic: Traffic::default(),
        })
    }

    /// Runs a plan and appends its rows. Dropping the future stops the plan.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when the plan fails, [`ErrorKind::Storage`] when the file can't be written. Rows that came
    /// before are in the file then.
    pub async fn append(&mut self, state: &SessionState, plan: &LogicalPlan) -> Result<()> {
        let mut running = Running::start(state, plan).await?;
        let written = loop {
            match running.next().await.map(|batch| batch.and_then(|batch| self.take(batch))) {
                None => break Ok(()),
                Some(Ok(())) => {}
                Some(Err(error)) => break Err(error),
            }
        };
        self.traffic += running.traffic();
        written
    }

    /// Appends rows.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the file can't be written, and what a hook refuses the rows with.
    pub fn take(&mut self, batch: RecordBatch) -> Result<()> {
        self.seen_rows += batch.num_rows() as u64;
        let batch = self.hooks.batch(batch)?;
        let batch = conform(&batch, &self.schema)?;
        self.rows += batch.num_rows() as u64;
        self.content += self.hasher.content(&batch).map_err(arrow_error)?;
        self.writer.write(&batch).map_err(write_error)?;
        if self.in_progress_bytes() > self.row_group_bytes { self.end_row_group() } else { Ok(()) }
    }

    /// Bytes that the row group that is being written has in memory.
    pub fn in_progress_bytes(&self) -> usize {
        self.writer.memory_size()
    }

    /// Writes the row group.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the file can't be written.
    pub fn end_row_group(&mut self) -> Result<()> {
        self.writer.flush().map_err(write_error)
    }

    /// What plans wrote and read on their way, those that failed too.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Rows that plans gave so far, of which hooks may have kept less.
    pub fn seen_rows(&self) -> u64 {
        self.seen_rows
    }

    /// Ends the file; `footer` makes its metadata from the number of rows and their content.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the file can't be written, and what a hook refuses the rows with.
    pub fn finish(mut self, footer: impl FnOnce(u64, Content) -> Result<KeyValue>) -> Result<Written> {
        self.hooks.end()?;
        let Self { rows, content, .. } = self;
        self.writer.append_key_value_metadata(footer(rows, content)?);
        let file = self.writer.into_inner().map_err(write_error)?;
        Ok(Written { rows, content, checksum: file.checksum() })
    }
}

/// A plan that runs.
pub struct Running {
    physical: Arc<dyn ExecutionPlan>,
    batches: SendableRecordBatchStream,
}

impl Running {
    /// Starts a plan. Dropped, it stops.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when the plan can't be made.
    pub async fn start(state: &SessionState, plan: &LogicalPlan) -> Result<Self> {
        let state = exact(state, plan).map_err(execution_error)?;
        let physical = state.create_physical_plan(plan).await.map_err(execution_error)?;
        let batches = execute_stream(Arc::clone(&physical), state.task_ctx()).map_err(execution_error)?;
        Ok(Self { physical, batches })
    }

    /// Its columns.
    pub fn schema(&self) -> SchemaRef {
        self.batches.schema()
    }

    /// Its next rows; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.batches.next().await.map(|batch| batch.map_err(execution_error))
    }

    /// What it wrote and read so far.
    pub fn traffic(&self) -> Traffic {
        let plan = self.physical.as_ref();
        Traffic { spilled_bytes: spilled_bytes(plan), scanned_bytes: scanned_bytes(plan) }
    }
}

/// What plans write and read on their way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Bytes that operators wrote to spill files.
    pub spilled_bytes: u64,
    /// Bytes that scans read of Parquet files.
    pub scanned_bytes: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.spilled_bytes += other.spilled_bytes;
        self.scanned_bytes += other.scanned_bytes;
    }
}

/// What sees the rows of a chunk, one after the other, before they are written.
pub struct RowsHooks {
    schema: SchemaRef,
    /// With the columns that it gives, where it changes rows.
    hooks: Vec<(Box<dyn ChunkRows>, Option<SchemaRef>)>,
}

impl RowsHooks {
    /// None yet, over rows with these columns.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, hooks: Vec::new() }
    }

    /// One more, if there is one, and the columns that it gives where it changes rows.
    pub fn extend(&mut self, rows: Option<Box<dyn ChunkRows>>, changed: Option<SchemaRef>) {
        self.hooks.extend(rows.map(|rows| (rows, changed)));
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        if self.hooks.is_empty() {
            return Ok(batch);
        }
        let mut batch = conform(&batch, &self.schema)?;
        for (hook, changed) in &mut self.hooks {
            let given = hook.batch(batch.clone())?;
            match changed {
                Some(schema) if given.schema().fields() != schema.fields() => {
                    let message = format!(
                        "a materialization hook gave columns {:?}, not those of its schema: {:?}",
                        given.schema().fields(),
                        schema.fields()
                    );
                    return Err(Error::new(ErrorKind::Usage, message));
                }
                Some(_) => batch = given,
                None => {}
            }
        }
        Ok(batch)
    }

    fn end(&mut self) -> Result<()> {
        self.hooks.iter_mut().try_for_each(|(hook, _)| hook.end())
    }
}

/// What all operators of a plan that has run wrote to spill files.
pub fn spilled_bytes(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.spilled_bytes()).unwrap_or(0) as u64;
    own + plan.children().into_iter().map(|child| spilled_bytes(child.as_ref())).sum::<u64>()
}

/// What all scans of a plan that has run read of Parquet files.
fn scanned_bytes(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.sum_by_name("bytes_scanned")).map_or(0, |sum| sum.as_usize());
    own as u64 + plan.children().into_iter().map(|child| scanned_bytes(child.as_ref())).sum::<u64>()
}

/// Whether a plan failed because the memory limit did not suffice beside what else was running.
pub fn is_out_of_memory(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<DataFusionError>());
    cause.is_some_and(|e| matches!(e.find_root(), DataFusionError::ResourcesExhausted(_)))
}

/// Whether a plan failed because what it read was damaged.
pub fn is_damaged(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<DataFusionError>());
    let root = cause.map(DataFusionError::find_root);
    matches!(root, Some(DataFusionError::External(e))
        if e.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::Storage))
}

/// Whether a plan may have failed because a Parquet file could not be decoded, of which Arrow's reader may panic, too.
pub fn is_undecodable(error: &Error) -> bool {
    let Some(cause) = std::error::Error::source(error) else { return false };
    if let Some(ended) = cause.downcast_ref::<JoinError>() {
        return ended.is_panic();
    }
    match cause.downcast_ref().map(DataFusionError::find_root) {
        Some(DataFusionError::ExecutionJoin(ended)) => ended.is_panic(),
        Some(DataFusionError::ParquetError(_)) => true,
        Some(DataFusionError::ArrowError(e, _)) => matches!(e.as_ref(), ArrowError::ParquetError(_)),
        _ => false,
    }
}

/// The error of arrow's functions.
pub fn arrow_error(error: ArrowError) -> Error {
    execution_error(DataFusionError::ArrowError(Box::new(error), None))
}

/// The error of a plan that failed while it ran.
pub fn execution_error(error: DataFusionError) -> Error {
    let message = match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            "memory does not suffice; use more buckets, fewer --jobs or a larger --memory"
        }
        // What a source's reader says is all there is to say. Damage of stored files is told by its cause.
        DataFusionError::External(cause)
            if let Some(ours) = cause.downcast_ref::<Error>().filter(|ours| ours.kind() == ErrorKind::Source) =>
        {
            return ours.again();
        }
        root => match remedy(root) {
            Some(remedy) => &format!("the query failed; {remedy}"),
            None => "the query failed",
        },
    };
    Error::new(ErrorKind::Execute, message).with_source(error)
}

fn write_error(error: ParquetError) -> Error {
    let full = matches!(&error, ParquetError::External(e)
        if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull));
    let advice = if full { "; free some space or use a cache folder on another disk" } else { "" };
    Error::new(ErrorKind::Storage, format!("a chunk can't be written{advice}")).with_source(error)
}
