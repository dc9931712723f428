//! Chunks of split files as a table.

use std::any::type_name;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Statistics, internal_datafusion_err, internal_err};
use datafusion::datasource::TableType;
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};

use crate::error::{Error, ErrorKind, Result};
use crate::execute::split::file::SplitFile;

/// A table whose rows are those of some chunks of split files.
///
/// It has all columns of the table that was split, but only those that are stored can be scanned. A scan has one
/// partition and reads block after block. Filters are left to the plan above.
#[derive(Debug)]
pub struct SplitTable {
    schema: SchemaRef,
    /// For each column of `schema`, its index in the files.
    stored: Vec<Option<usize>>,
    files: Vec<Arc<SplitFile>>,
    chunks: Vec<u32>,
}

impl SplitTable {
    /// A table of the rows of `chunks` in all of `files`. Column i of the files is column `columns[i]` of `schema`; its
    /// type may differ from the stored one as [`stored_type`](crate::execute::split::stored::stored_type) says.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when the columns or chunks are not those of the files.
    pub fn try_new(schema: SchemaRef, columns: &[usize], files: Vec<Arc<SplitFile>>, chunks: Vec<u32>) -> Result<Self> {
        let mut stored = vec![None; schema.fields().len()];
        for (index, column) in columns.iter().enumerate() {
            match stored.get_mut(*column) {
                Some(place @ None) => *place = Some(index),
                _ => return Err(mismatch(format!("column {column} of {}", stored.len()))),
            }
        }
        for file in &files {
            if file.schema().fields().len() != columns.len() {
                return Err(mismatch(format!("{} columns instead of {}", file.schema().fields().len(), columns.len())));
            }
            if let Some(chunk) = chunks.iter().find(|chunk| **chunk >= file.chunks()) {
                return Err(mismatch(format!("chunk {chunk} of {}", file.chunks())));
            }
        }
        Ok(Self { schema, stored, files, chunks })
    }
}

#[async_trait]
impl TableProvider for SplitTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let all = (0..self.schema.fields().len()).collect();
        let projection = projection.unwrap_or(&all);
        let stored = |column: &usize| {
            self.stored.get(*column).copied().flatten().ok_or_else(|| {
                let name = self.schema.fields().get(*column).map_or("?", |field| field.name());
                internal_datafusion_err!("column `{name}` is read, but it was not stored when its table was split")
            })
        };
        Ok(DataSourceExec::from_data_source(SplitSource {
            schema: Arc::new(self.schema.project(projection)?),
            columns: projection.iter().map(stored).collect::<datafusion::common::Result<_>>()?,
            files: self.files.clone(),
            chunks: self.chunks.clone(),
            limit,
        }))
    }
}

/// The scan of a [`SplitTable`].
#[derive(Debug, Clone)]
struct SplitSource {
    /// The columns of the scan.
    schema: SchemaRef,
    /// The index of each of them in the files.
    columns: Vec<usize>,
    files: Vec<Arc<SplitFile>>,
    chunks: Vec<u32>,
    limit: Option<usize>,
}

impl SplitSource {
    fn total(&self, of_chunk: impl Fn(&SplitFile, u32) -> u64) -> Option<usize> {
        let parts = self.files.iter().flat_map(|file| self.chunks.iter().map(|chunk| of_chunk(file, *chunk)));
        usize::try_from(parts.sum::<u64>()).ok()
    }

    fn batches(&self) -> impl Iterator<Item = datafusion::common::Result<RecordBatch>> + Send + use<> {
        let Self { schema, columns, files, chunks, limit } = self.clone();
        let parts = files
            .into_iter()
            .flat_map(move |file| chunks.clone().into_iter().map(move |chunk| (Arc::clone(&file), chunk)));
        let stored = parts.flat_map(move |(file, chunk)| file.read(chunk, Some(columns.clone())));
        let batches = stored.flat_map(move |batch| match batch {
            Ok(batch) => conform(&batch, &schema),
            Err(e) => VecDeque::from([Err(DataFusionError::External(Box::new(e)))]),
        });
        let mut left = limit.unwrap_or(usize::MAX);
        batches.map_while(move |batch| {
            if left == 0 {
                return None;
            }
            Some(batch.map(|batch| {
                let rows = batch.num_rows().min(left);
                left -= rows;
                batch.slice(0, rows)
            }))
        })
    }
}

impl DataSource for SplitSource {
    fn open(
        &self,
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> datafusion::common::Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("{} has one partition, not {partition}", type_name::<Self>());
        }
        let stream = futures::stream::iter(self.batches());
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))))
    }

    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match kind {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "split files={}, chunks={:?}", self.files.len(), self.chunks)?;
                match self.limit {
                    Some(limit) => write!(f, ", limit={limit}"),
                    None => Ok(()),
                }
            }
            DisplayFormatType::TreeRender => writeln!(f, "format=split"),
        }
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(1)
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(Arc::clone(&self.schema))
    }

    fn scheduling_type(&self) -> SchedulingType {
        SchedulingType::Cooperative
    }

    fn partition_statistics(&self, _partition: Option<usize>) -> datafusion::common::Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let Some(rows) = self.total(SplitFile::rows) {
            statistics.num_rows = Precision::Exact(self.limit.map_or(rows, |limit| rows.min(limit)));
        }
        statistics.total_byte_size = self.total(SplitFile::bytes).map_or(Precision::Absent, Precision::Inexact);
        Ok(Arc::new(statistics))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(Self { limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn try_swapping_with_projection(
        &self,
        _projection: &ProjectionExprs,
    ) -> datafusion::common::Result<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> datafusion::common::Result<TreeNodeRecursion>,
    ) -> datafusion::common::Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}

/// Gives a block the columns of a scan. It is halved as long as its values don't fit: a dictionary's keys may be too
/// narrow for all values of a block, which comes from several batches of the input.
fn conform(block: &RecordBatch, schema: &SchemaRef) -> VecDeque<datafusion::common::Result<RecordBatch>> {
    let mut done = VecDeque::new();
    let mut open = vec![block.clone()];
    while let Some(batch) = open.pop() {
        match with_columns(&batch, schema) {
            Err(_) if batch.num_rows() > 1 => {
                let half = batch.num_rows() / 2;
                open.push(batch.slice(half, batch.num_rows() - half));
                open.push(batch.slice(0, half));
            }
            Err(e) => {
                done.push_back(Err(DataFusionError::ArrowError(Box::new(e), None)));
                break;
            }
            Ok(batch) => done.push_back(Ok(batch)),
        }
    }
    done
}

fn with_columns(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| match column.data_type() {
        same if same == field.data_type() => Ok(Arc::clone(column)),
        _ => cast(column, field.data_type()),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)
}

fn mismatch(found: String) -> Error {
    Error::new(ErrorKind::Execute, format!("internal error: a split table does not fit its files: {found}"))
}
