//! Many first rows, in bounded memory.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::execute::budget::SMALL_BATCH_ROWS;

/// Bytes of a value whose type does not say how many it has.
const VALUE_BYTES: usize = 64;

/// Sorts all rows for `ORDER BY … LIMIT n` where the first `n` may take more than `most_bytes`: a sort spills, and
/// DataFusion's operator for first rows does not.
///
/// It must come after DataFusion's rules, which would put sort and limit together again.
#[derive(Debug)]
pub struct ManyFirstRows {
    pub most_bytes: usize,
    /// Bytes of a batch of wide rows.
    pub batch_bytes: usize,
}

impl PhysicalOptimizerRule for ManyFirstRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        // Batches have few rows where these are wide.
        let batch_rows = config.execution.batch_size.get();
        let wide_row_bytes = if batch_rows < SMALL_BATCH_ROWS { self.batch_bytes / batch_rows } else { 0 };
        let sorted = plan.transform_up(|node| {
            let Some((sort, fetch)) = node.downcast_ref::<SortExec>().and_then(|sort| Some((sort, sort.fetch()?)))
            else {
                return Ok(Transformed::no(node));
            };
            let row_bytes: usize = sort
                .schema()
                .fields()
                .iter()
                .map(|field| field.data_type().primitive_width().unwrap_or(VALUE_BYTES))
                .sum();
            if fetch.saturating_mul(row_bytes.max(wide_row_bytes)) <= self.most_bytes {
                return Ok(Transformed::no(node));
            }
            let all: Arc<dyn ExecutionPlan> = Arc::new(sort.with_fetch(None));
            let limit: Arc<dyn ExecutionPlan> = match all.output_partitioning().partition_count() {
                1 => Arc::new(GlobalLimitExec::new(all, 0, Some(fetch))),
                _ => Arc::new(LocalLimitExec::new(all, fetch)),
            };
            Ok(Transformed::yes(limit))
        })?;
        Ok(sorted.data)
    }

    fn name(&self) -> &str {
        "many_first_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::SessionContext;

    use crate::execute::budget::Budget;
    use crate::execute::session::{runtime, session};

    #[tokio::test]
    async fn more_first_rows_than_memory_holds_come_from_a_sort_that_spills() {
        let folder = tempfile::tempdir().unwrap();
        let budget = Budget { limit_bytes: Some(16 << 20), jobs: 1 };
        let pool = budget.pool_bytes();
        let session = SessionContext::from(session(runtime(pool, Some(folder.path())).unwrap(), Some(budget)));
        for (limit, sorts_all) in [(300_000_i64, true), (10, false)] {
            let query = format!(
                "SELECT value * 7919 % 1000003 AS x, 'text of ' || value AS s FROM generate_series(1, 400000) ORDER BY x LIMIT {limit} OFFSET 5"
            );
            let plan = session.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
            let text = displayable(plan.as_ref()).indent(false).to_string();
            assert_eq!(text.contains("TopK"), !sorts_all, "{text}");
            let batches = collect(plan, session.task_ctx()).await.unwrap();
            let values = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
            let values: Vec<i64> = values.collect();
            let mut expected: Vec<i64> = (1..=400_000).map(|value| value * 7919 % 1_000_003).collect();
            expected.sort_unstable();
            assert_eq!(values, expected[5..5 + limit as usize]);
        }
    }
}
