//! Sorts below `OFFSET n` that has no `LIMIT`.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements,
    PlanProperties, ReplaceChildrenOptions,
};

/// Keeps the sort that decides which rows an `OFFSET` skips. It must come before the rules that add and remove sorts.
///
/// DataFusion 55 removes a sort whose order no node above asks for, and sorts below a limit by what is asked for above
/// it. A limit does not ask: its sort stays since it hands the number of rows down to it, and where it only skips rows
/// there is none. The order of the whole result is asked for by DataFusion itself.
#[derive(Debug)]
pub struct KeptOrder;

impl PhysicalOptimizerRule for KeptOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        kept(plan)
    }

    fn name(&self) -> &str {
        "kept_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn kept(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.is::<GlobalLimitExec>() || plan.is::<ProjectionExec>() {
        let children = plan.children().into_iter().map(|child| kept(Arc::clone(child))).collect::<Result<Vec<_>>>()?;
        return with_children(plan, children);
    }
    let kept = plan.transform_up(|node| {
        let Some(limit) = node.downcast_ref::<GlobalLimitExec>().filter(|limit| limit.fetch().is_none()) else {
            return Ok(Transformed::no(node));
        };
        match skip(limit.input(), limit.skip())? {
            Some(skipping) => Ok(Transformed::yes(skipping)),
            None => Ok(Transformed::no(node)),
        }
    })?;
    Ok(kept.data)
}

/// `plan` without its first rows, if they come in the order of a sort.
fn skip(plan: &Arc<dyn ExecutionPlan>, rows: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        return Ok(Some(Arc::new(SkipExec::new(Arc::clone(plan), sort.expr().clone(), rows))));
    }
    // What a projection drops may be what is sorted by.
    let Some(projection) = plan.downcast_ref::<ProjectionExec>() else { return Ok(None) };
    match skip(projection.input(), rows)? {
        Some(skipping) => with_children(Arc::clone(plan), vec![skipping]).map(Some),
        None => Ok(None),
    }
}

fn with_children(
    plan: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// The rows of its input but for the first ones, in the order that it asks for.
#[derive(Debug)]
struct SkipExec {
    limit: GlobalLimitExec,
    order: LexOrdering,
}

impl SkipExec {
    fn new(input: Arc<dyn ExecutionPlan>, order: LexOrdering, rows: usize) -> Self {
        Self { limit: GlobalLimitExec::new(input, rows, None), order }
    }
}

impl DisplayAs for SkipExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SkipExec: skip={}, order=[{}]", self.limit.skip(), self.order)
    }
}

impl ExecutionPlan for SkipExec {
    fn name(&self) -> &str {
        "SkipExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.limit.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.limit.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for key in &self.order {
            if f(&key.expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![Some(OrderingRequirements::from(self.order.clone()))]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    /// It does, but what is asked for above must not be sorted by below.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().ok_or_else(|| internal_datafusion_err!("SkipExec has one input"))?;
        Ok(Arc::new(Self::new(input, self.order.clone(), self.limit.skip())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.limit.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.limit.child_stats_requests(partition)
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        self.limit.statistics_from_inputs(inputs, args)
    }
}
