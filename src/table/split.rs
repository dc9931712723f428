//! Chunks of split files as a table.

use std::any::type_name;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{BatchCoalescer, cast};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::utils::memory::get_record_batch_memory_size;
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
use crate::execute::split::stored::stored_schema;

/// Blocks of rows so wide that fewer than a batch of them have this many bytes are not put together any further.
const COALESCED_BYTES: usize = 8 << 20;

/// A table whose rows are those of some chunks of split files.
///
/// It has all columns of the table that was split, but only those that are stored can be scanned. A scan has one
/// partition and reads block after block; small blocks, of a split into many chunks, are put together. Filters are left to
/// the plan above.
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
        let types = stored_schema(&schema.project(columns).map_err(|e| mismatch(e.to_string()))?)?;
        for file in &files {
            if file.schema().fields().len() != columns.len() {
                return Err(mismatch(format!("{} columns instead of {}", file.schema().fields().len(), columns.len())));
            }
            let fields = file.schema().fields().iter().zip(types.fields());
            if let Some((found, _)) = fields.into_iter().find(|(found, field)| found.data_type() != field.data_type()) {
                return Err(mismatch(format!("column `{}` of type {}", found.name(), found.data_type())));
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

    fn statistics(&self) -> Option<Statistics> {
        let rows = self.files.iter().flat_map(|file| self.chunks.iter().map(|chunk| file.rows(*chunk)));
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = usize::try_from(rows.sum::<u64>()).map_or(Precision::Absent, Precision::Exact);
        Some(statistics)
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

    /// The rows in batches of about `batch_rows`.
    fn batches(
        &self,
        batch_rows: usize,
    ) -> Result<impl Iterator<Item = datafusion::common::Result<RecordBatch>> + Send + use<>> {
        let Self { schema, columns, files, chunks, limit } = self.clone();
        let stored = stored_schema(&schema)?;
        let parts = files
            .into_iter()
            .flat_map(move |file| chunks.clone().into_iter().map(move |chunk| (Arc::clone(&file), chunk)));
        let blocks = parts.flat_map(move |(file, chunk)| file.read(chunk, Some(columns.clone())));
        let blocks = blocks.map(|block| block.map_err(|e| DataFusionError::External(Box::new(e))));
        let batches = coalesced(blocks, stored, batch_rows).flat_map(move |batch| match batch {
            Ok(batch) => conform(&batch, &schema),
            Err(e) => VecDeque::from([Err(e)]),
        });
        let mut left = limit.unwrap_or(usize::MAX);
        Ok(batches.map_while(move |batch| {
            if left == 0 {
                return None;
            }
            Some(batch.map(|batch| {
                let rows = batch.num_rows().min(left);
                left -= rows;
                batch.slice(0, rows)
            }))
        }))
    }
}

/// Puts small blocks together, up to `rows` rows or about [`COALESCED_BYTES`]. It takes stored types, since several
/// blocks together may have too many values for a dictionary.
fn coalesced(
    mut blocks: impl Iterator<Item = datafusion::common::Result<RecordBatch>> + Send,
    stored: SchemaRef,
    rows: usize,
) -> impl Iterator<Item = datafusion::common::Result<RecordBatch>> + Send {
    let without_columns = stored.fields().is_empty();
    let mut coalescer = BatchCoalescer::new(stored, rows.max(1)).with_biggest_coalesce_batch_size(Some(rows / 2));
    let mut bytes = 0;
    let mut ended = false;
    std::iter::from_fn(move || {
        loop {
            if let Some(batch) = coalescer.next_completed_batch() {
                bytes = 0;
                return Some(Ok(batch));
            }
            if ended {
                return None;
            }
            let step = match blocks.next() {
                // These cost nothing, and the coalescer loses their number of rows.
                Some(Ok(block)) if without_columns => return Some(Ok(block)),
                Some(Ok(block)) => {
                    bytes += get_record_batch_memory_size(&block);
                    let pushed = coalescer.push_batch(block);
                    if bytes < COALESCED_BYTES {
                        pushed
                    } else {
                        pushed.and_then(|()| coalescer.finish_buffered_batch())
                    }
                }
                Some(Err(e)) => return Some(Err(e)),
                None => {
                    ended = true;
                    coalescer.finish_buffered_batch()
                }
            };
            if let Err(e) = step {
                return Some(Err(DataFusionError::ArrowError(Box::new(e), None)));
            }
        }
    })
}

impl DataSource for SplitSource {
    fn open(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> datafusion::common::Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("{} has one partition, not {partition}", type_name::<Self>());
        }
        let batches = self.batches(context.session_config().batch_size());
        let stream = futures::stream::iter(batches.map_err(|e| DataFusionError::External(Box::new(e)))?);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
    use arrow::compute::{cast, concat, concat_batches};
    use arrow::datatypes::{DataType, Field, Int16Type, Int64Type, Schema, SchemaRef};
    use datafusion::catalog::TableProvider;
    use datafusion::common::DataFusionError;
    use datafusion::common::stats::Precision;
    use datafusion::physical_plan::statistics::StatisticsArgs;
    use datafusion::physical_plan::{ExecutionPlanProperties, collect};
    use datafusion::prelude::SessionContext;
    use tempfile::NamedTempFile;

    use crate::error::{Error, ErrorKind};
    use crate::execute::split::SplitWriter;
    use crate::execute::split::file::SplitFile;
    use crate::table::split::{SplitTable, coalesced, conform};

    const CHUNKS: u32 = 4;
    const ROWS: i64 = 1000;

    /// Columns k, lost and s, of which k and s are stored; chunk k % 4.
    fn schema() -> SchemaRef {
        let text = DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8));
        Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("lost", DataType::Int64, true),
            Field::new("s", text, true),
        ]))
    }

    /// Keys from `start` on, in batches of a hundred, so that a block has 25 rows.
    fn split(start: i64) -> Arc<SplitFile> {
        let file = NamedTempFile::new().unwrap();
        let stored = Arc::new(schema().project(&[2, 0]).unwrap());
        let mut writer = SplitWriter::try_new(file.reopen().unwrap(), Arc::clone(&stored), CHUNKS, 0).unwrap();
        for first in (start..start + ROWS).step_by(100) {
            let keys: Int64Array = (first..first + 100).collect();
            let numbers: Int32Array = keys.values().iter().map(|key| (key % i64::from(CHUNKS)) as i32).collect();
            let texts: StringArray = keys.iter().map(|key| key.map(|key| format!("text {key}"))).collect();
            let indices = (0..100).collect();
            let texts: ArrayRef = Arc::new(DictionaryArray::<Int16Type>::new(indices, Arc::new(texts)));
            let batch = RecordBatch::try_new(Arc::clone(&stored), vec![texts, Arc::new(keys)]).unwrap();
            writer.write(batch, &numbers).unwrap();
        }
        writer.finish().unwrap();
        Arc::new(SplitFile::open(file.path()).unwrap())
    }

    fn table(files: Vec<Arc<SplitFile>>, chunks: Vec<u32>) -> SplitTable {
        SplitTable::try_new(schema(), &[2, 0], files, chunks).unwrap()
    }

    async fn query(session: &SessionContext, sql: &str) -> datafusion::common::Result<RecordBatch> {
        let frame = session.sql(sql).await?;
        let schema = Arc::clone(frame.schema().inner());
        Ok(concat_batches(&schema, &frame.collect().await?)?)
    }

    #[tokio::test]
    async fn chunks_of_two_tables_join() {
        let session = SessionContext::new();
        session.register_table("a", Arc::new(table(vec![split(0), split(ROWS)], vec![1, 3]))).unwrap();
        session.register_table("b", Arc::new(table(vec![split(500)], vec![3]))).unwrap();
        let sql = "SELECT a.k, b.s FROM a JOIN b ON a.k = b.k AND a.s = b.s ORDER BY a.k DESC";
        let found = query(&session, sql).await.unwrap();
        let expected: Vec<i64> = (500..1500).rev().filter(|key| key % 4 == 3).collect();
        assert_eq!(found.column(0).as_primitive::<Int64Type>().values(), &expected);
        assert_eq!(found.column(1).data_type(), schema().field(2).data_type());
        let texts = cast(found.column(1), &DataType::Utf8).unwrap();
        let expected: StringArray = expected.iter().map(|key| Some(format!("text {key}"))).collect();
        assert_eq!(texts.as_string::<i32>(), &expected);

        let counts = [
            ("SELECT count(*) FROM a", 1000),
            ("SELECT count(*) FROM a WHERE k < 8", 4),
            ("SELECT sum(n) FROM (SELECT 1 AS n FROM a)", 1000),
            ("SELECT count(*) FROM (SELECT * FROM (SELECT k, s FROM a) LIMIT 300)", 300),
            ("SELECT count(*) FROM (SELECT k FROM b LIMIT 0)", 0),
        ];
        for (sql, expected) in counts {
            let found = query(&session, sql).await.unwrap();
            assert_eq!(found.column(0).as_primitive::<Int64Type>().values(), &[expected], "{sql}");
        }
    }

    #[tokio::test]
    async fn a_scan_has_one_partition_exact_rows_and_its_limit() {
        let session = SessionContext::new();
        let table = table(vec![split(0), split(ROWS)], vec![0, 2]);
        let cases = [
            (Some(vec![0]), None, 1000),
            (Some(vec![2, 0]), Some(260), 260),
            (Some(vec![2]), Some(2000), 1000),
            (Some(vec![]), None, 1000),
            (Some(vec![]), Some(7), 7),
            (Some(vec![0]), Some(0), 0),
        ];
        for (projection, limit, expected) in cases {
            let scan = table.scan(&session.state(), projection.as_ref(), &[], limit).await.unwrap();
            assert_eq!(scan.output_partitioning().partition_count(), 1);
            let statistics = scan.statistics_from_inputs(&[], &StatisticsArgs::new()).unwrap();
            assert_eq!(statistics.num_rows, Precision::Exact(expected));
            assert!(matches!(statistics.total_byte_size, Precision::Inexact(bytes) if bytes > 0));
            assert_eq!(scan.fetch(), limit);
            let batches = collect(Arc::clone(&scan), session.task_ctx()).await.unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), expected, "{projection:?} {limit:?}");
            assert!(batches.iter().all(|batch| batch.schema() == scan.schema()));
            if projection.is_some_and(|columns| !columns.is_empty()) {
                assert!(batches.len() <= 1, "small blocks were not put together");
            }
        }
    }

    #[tokio::test]
    async fn a_column_that_is_not_stored_is_an_error_by_name() {
        let session = SessionContext::new();
        session.register_table("a", Arc::new(table(vec![split(0)], vec![0]))).unwrap();
        for sql in ["SELECT lost FROM a", "SELECT * FROM a", "SELECT k FROM a WHERE lost = 1"] {
            let error = query(&session, sql).await.unwrap_err().to_string();
            assert!(error.contains("column `lost` is read, but it was not stored"), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn a_damaged_file_fails_the_query_with_its_storage_error() {
        let file = NamedTempFile::new().unwrap();
        let batch = RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let mut writer = SplitWriter::try_new(file.reopen().unwrap(), batch.schema(), 1, 0).unwrap();
        writer.write(batch.clone(), &Int32Array::from(vec![0])).unwrap();
        writer.finish().unwrap();
        let split = Arc::new(SplitFile::open(file.path()).unwrap());
        file.as_file().set_len(300).unwrap();
        let table = SplitTable::try_new(batch.schema(), &[0], vec![split], vec![0]).unwrap();
        let session = SessionContext::new();
        session.register_table("a", Arc::new(table)).unwrap();
        let error = query(&session, "SELECT sum(k) FROM a").await.unwrap_err();
        let DataFusionError::External(cause) = error.find_root() else { panic!("{error}") };
        assert_eq!(cause.downcast_ref::<Error>().unwrap().kind(), ErrorKind::Storage);
    }

    #[test]
    fn small_blocks_are_put_together_up_to_rows_and_bytes() {
        let block = |rows: usize, width: usize| {
            let texts: StringArray = (0..rows).map(|_| Some("x".repeat(width))).collect();
            RecordBatch::try_from_iter([("s", Arc::new(texts) as ArrayRef)]).unwrap()
        };
        let cases = [
            (vec![], vec![]),
            (vec![(30, 1); 10], vec![100, 100, 100]),
            (vec![(30, 1), (90, 1), (20, 1)], vec![100, 40]),
            (vec![(90, 1), (80, 1)], vec![90, 80]),
            // Each as large as the limit.
            (vec![(10, 1 << 20); 3], vec![10, 10, 10]),
        ];
        for (blocks, expected) in cases {
            let stored = block(0, 0).schema();
            let blocks: Vec<_> = blocks.into_iter().map(|(rows, width)| Ok(block(rows, width))).collect();
            let batches = coalesced(blocks.into_iter(), stored, 100).map(|batch| batch.unwrap().num_rows());
            assert_eq!(batches.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_block_is_halved_until_its_values_fit_a_dictionary() {
        let texts: StringArray = (0..1000).map(|n| Some(format!("{n}"))).collect();
        let block = RecordBatch::try_from_iter([("s", Arc::new(texts.clone()) as ArrayRef)]).unwrap();
        let narrow = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let schema = Arc::new(Schema::new(vec![Field::new("s", narrow, true)]));
        let parts: Vec<_> = conform(&block, &schema).into_iter().map(|part| part.unwrap()).collect();
        assert!(parts.len() > 1);
        let plain: Vec<_> = parts.iter().map(|part| cast(part.column(0), &DataType::Utf8).unwrap()).collect();
        let plain = concat(&plain.iter().map(|part| part.as_ref()).collect::<Vec<_>>()).unwrap();
        assert_eq!(plain.as_string::<i32>(), &texts);

        let wrong = Arc::new(Schema::new(vec![Field::new("s", DataType::Null, true)]));
        let parts = conform(&block, &wrong);
        assert!(matches!(parts.iter().collect::<Vec<_>>()[..], [Err(_)]));
    }

    #[test]
    fn columns_and_chunks_must_be_those_of_the_files() {
        let file = split(0);
        let cases = [
            (vec![2, 0], vec![4], "chunk 4 of 4"),
            (vec![2], vec![0], "2 columns instead of 1"),
            (vec![2, 3], vec![0], "column 3 of 3"),
            (vec![2, 2], vec![0], "column 2 of 3"),
            (vec![0, 2], vec![0], "column `s` of type Utf8"),
        ];
        for (columns, chunks, expected) in cases {
            let error = SplitTable::try_new(schema(), &columns, vec![Arc::clone(&file)], chunks).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Execute);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
