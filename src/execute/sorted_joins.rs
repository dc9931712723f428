//! Joins that spill, where no hash table of one side fits in memory.

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};

/// Makes sort-merge joins of hash joins. It must come before the rules that add sorts.
///
/// Hash joins stay where they are known to give other rows: null-aware ones, those on floats, which sort and compare
/// NaN and both zeros in their own ways, and those on one column twice.
#[derive(Debug)]
pub struct SortedJoins;

impl PhysicalOptimizerRule for SortedJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let sorted = plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(node)) };
            if !can_be_sorted(join)? {
                return Ok(Transformed::no(node));
            }
            let sorted = SortMergeJoinExec::try_new(
                Arc::clone(join.left()),
                Arc::clone(join.right()),
                join.on().to_vec(),
                join.filter().cloned(),
                *join.join_type(),
                vec![SortOptions::default(); join.on().len()],
                join.null_equality(),
            )?;
            Ok(Transformed::yes(Arc::new(sorted) as Arc<dyn ExecutionPlan>))
        })?;
        Ok(sorted.data)
    }

    fn name(&self) -> &str {
        "sorted_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn can_be_sorted(join: &HashJoinExec) -> Result<bool> {
    let schema = join.left().schema();
    for (at, (left, right)) in join.on().iter().enumerate() {
        let twice = join.on()[..at].iter().any(|(l, r)| l.eq(left) || r.eq(right));
        if twice || left.data_type(&schema)?.is_floating() {
            return Ok(false);
        }
    }
    Ok(!join.null_aware && join.projection.is_none())
}
