//! Texts of scans, without the pages that they were read from.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
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

use crate::execute::memory::{has_views, kept_bytes, row_bytes, without_shared_views};

/// Buffers are kept if they have no more than twice the bytes that a batch's rows need, and this.
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
        let compact = plan.transform_up(|node| {
            let is_text = node.schema().fields().iter().any(|field| has_views(field.data_type()));
            match is_text && node.is::<DataSourceExec>() {
                true => Ok(Transformed::yes(Arc::new(CompactExec { input: node }) as _)),
                false => Ok(Transformed::no(node)),
            }
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
    let compact = |column: &ArrayRef| match has_views(column.data_type())
        && kept_bytes(column.as_ref()) > 2 * row_bytes(column.as_ref()) + LOSS_BYTES
    {
        true => without_shared_views(column),
        false => Ok(Arc::clone(column)),
    };
    let columns = batch.columns().iter().map(compact).collect::<Result<_, _>>()?;
    // It has rows where it has no columns.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, FixedSizeListArray, RecordBatch, StringViewArray};
    use arrow::datatypes::{DataType, Field};

    use super::{LOSS_BYTES, compact};
    use crate::execute::memory::kept_bytes;

    fn kept(texts: &ArrayRef) -> usize {
        let batch = RecordBatch::try_from_iter([("s", Arc::clone(texts))]).unwrap();
        let compacted = compact(batch).unwrap();
        assert_eq!(compacted.column(0), texts);
        kept_bytes(compacted.column(0).as_ref())
    }

    #[test]
    fn texts_are_copied_out_of_large_pages_that_they_are_little_of() {
        let text = |at: usize| format!("{at:08}").repeat(64);
        let page: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..8_192).map(text)));
        let pairs = Arc::new(Field::new("item", DataType::Utf8View, true));
        let lists: ArrayRef = Arc::new(FixedSizeListArray::new(pairs, 2, Arc::clone(&page), None));
        for (texts, rows) in [(&page, 8_192), (&lists, 4_096)] {
            assert!(kept_bytes(texts.as_ref()) > 3 * LOSS_BYTES);
            assert!(kept(&texts.slice(100, 10)) < LOSS_BYTES);
            assert_eq!(kept(texts), kept_bytes(texts.as_ref()));
            assert_eq!(kept(&texts.slice(0, rows * 3 / 4)), kept_bytes(texts.as_ref()));
        }
    }
}
