//! Texts of scans, without the pages that they were read from.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, SchemaRef, StringViewType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics, internal_datafusion_err};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, StatisticsArgs,
};
use futures::StreamExt;

/// Buffers are kept if they have no more bytes that no text needs than those that texts need, and this.
const LOSS_BYTES: usize = 1 << 20;

/// Copies the texts of scanned batches that keep buffers alive which are much larger than they are.
///
/// DataFusion reads texts as views into the pages of a Parquet file, and writers like DuckDB make pages of a hundred
/// megabytes. An operator that holds a batch holds its pages, and reserves memory for all of them, once for each batch:
/// a sort of 2,000 long texts could not begin within 128 MiB.
///
/// It must come last: other rules look for scans.
#[derive(Debug)]
pub struct CompactTexts;

impl PhysicalOptimizerRule for CompactTexts {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let compact = plan.transform_up(|node| match node.is::<DataSourceExec>() && has_views(&node.schema()) {
            true => Ok(Transformed::yes(Arc::new(CompactExec { input: node }) as _)),
            false => Ok(Transformed::no(node)),
        })?;
        Ok(compact.data)
    }

    fn name(&self) -> &str {
        "compact_texts"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn is_view(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8View | DataType::BinaryView)
}

fn has_views(schema: &SchemaRef) -> bool {
    schema.fields().iter().any(|field| is_view(field.data_type()))
}

/// Gives the batches of its input, with texts that keep no large pages alive.
#[derive(Debug)]
struct CompactExec {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for CompactExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompactExec")
    }
}

impl ExecutionPlan for CompactExec {
    fn name(&self) -> &str {
        "CompactExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().ok_or_else(|| internal_datafusion_err!("CompactExec has one input"))?;
        Ok(Arc::new(Self { input }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batches = self.input.execute(partition, context)?;
        let compact = batches.map(|batch| compact(batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), compact)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let input = inputs.first().ok_or_else(|| internal_datafusion_err!("CompactExec has one input"))?;
        Ok(Arc::clone(input))
    }
}

fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => of_own_buffer::<StringViewType>(column),
        DataType::BinaryView => of_own_buffer::<BinaryViewType>(column),
        _ => Arc::clone(column),
    });
    let columns = columns.collect();
    // It has rows where it has no columns.
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn of_own_buffer<T: ByteViewType>(column: &ArrayRef) -> ArrayRef {
    let views = column.as_byte_view::<T>();
    let kept: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
    if kept <= LOSS_BYTES || kept <= 2 * views.total_buffer_bytes_used() + LOSS_BYTES {
        return Arc::clone(column);
    }
    Arc::new(views.gc())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray};

    use super::{LOSS_BYTES, compact};

    fn kept_bytes(texts: StringViewArray) -> usize {
        let texts: ArrayRef = Arc::new(texts);
        let batch = RecordBatch::try_from_iter([("s", Arc::clone(&texts))]).unwrap();
        let compacted = compact(batch).unwrap();
        assert_eq!(compacted.column(0), &texts);
        compacted.column(0).as_string_view().data_buffers().iter().map(|buffer| buffer.len()).sum()
    }

    #[test]
    fn texts_are_copied_out_of_large_pages_that_they_are_little_of() {
        let text = |at: usize| format!("{at:08}").repeat(64);
        let page = StringViewArray::from_iter_values((0..8_192).map(text));
        let page_bytes = page.data_buffers().iter().map(|buffer| buffer.len()).sum::<usize>();
        assert!(page_bytes > 3 * LOSS_BYTES);
        assert_eq!(kept_bytes(page.slice(100, 10)), 10 * text(0).len());
        assert_eq!(kept_bytes(page.clone()), page_bytes);
        assert_eq!(kept_bytes(page.slice(0, 6_000)), page_bytes);
    }
}
