//! Inputs of which an operator must not know which columns are constant, equal or sorted.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result, Statistics, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, SlidingAggregateWindowExpr, WindowExpr};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};

use crate::execute::window::OwnWindowExec;

/// Hides from an operator which columns of its input are constant, equal or sorted, where the operator adds NULLs to
/// them. It must come before the rules that add and remove sorts.
///
/// DataFusion 55 keeps such facts where they no longer hold, and then leaves out a sort or a sort key:
///
/// - A column that is constant on the optional side of an outer join is NULL in rows without a match.
/// - A column that is constant, or equal to another, below grouping sets is NULL in some of the sets.
/// - A running `max`, `min` or `sum` is NULL before the first value, whatever NULLS FIRST or LAST asks for.
#[derive(Debug, Default)]
pub struct ForgottenOrder {
    /// Whether nothing is known of the rows of joins and unions, either.
    pub of_joins_and_unions: bool,
}

impl PhysicalOptimizerRule for ForgottenOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if grows(&node) {
                return ForgetExec::above(node).map(Transformed::yes);
            }
            let forgets = forgets(&node);
            let node = if forgets.contains(&true) {
                let children = node.children().into_iter().zip(forgets).map(|(child, forgets)| match forgets {
                    true => ForgetExec::above(Arc::clone(child)),
                    false => Ok(Arc::clone(child)),
                });
                let children = children.collect::<Result<_>>()?;
                let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                Transformed::yes(node.replace_children(children, options)?)
            } else {
                Transformed::no(node)
            };
            match self.of_joins_and_unions && is_join_or_union(&node.data) {
                true => ForgetExec::above(node.data).map(Transformed::yes),
                false => Ok(node),
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "forgotten_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// For each input of a node, whether the node must know nothing of it.
fn forgets(node: &Arc<dyn ExecutionPlan>) -> Vec<bool> {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return vec![!aggregate.group_expr().is_single()];
    }
    let hash = node.downcast_ref::<HashJoinExec>().map(|join| *join.join_type());
    let nested = || node.downcast_ref::<NestedLoopJoinExec>().map(|join| *join.join_type());
    let sorted = || node.downcast_ref::<SortMergeJoinExec>().map(|join| join.join_type());
    match hash.or_else(nested).or_else(sorted) {
        Some(JoinType::Left) => vec![false, true],
        Some(JoinType::Right) => vec![true, false],
        Some(JoinType::Full) => vec![true, true],
        _ => Vec::new(),
    }
}

fn is_join_or_union(node: &Arc<dyn ExecutionPlan>) -> bool {
    let is_join = node.is::<HashJoinExec>() || node.is::<NestedLoopJoinExec>() || node.is::<SortMergeJoinExec>();
    is_join || node.is::<CrossJoinExec>() || node.is::<UnionExec>()
}

/// Whether a node is a window of aggregates that DataFusion takes for sorted.
fn grows(node: &Arc<dyn ExecutionPlan>) -> bool {
    let bounded = node.downcast_ref::<BoundedWindowAggExec>().map(|window| window.window_expr());
    let exprs = bounded.or_else(|| node.downcast_ref::<WindowAggExec>().map(|window| window.window_expr()));
    let grows = |expr: &Arc<dyn WindowExpr>| {
        let aggregate = expr.as_any().downcast_ref::<PlainAggregateWindowExpr>().map(|e| e.get_aggregate_expr());
        let sliding = || expr.as_any().downcast_ref::<SlidingAggregateWindowExpr>().map(|e| e.get_aggregate_expr());
        aggregate.or_else(sliding).is_some_and(|e| e.fun().name() != "count")
    };
    exprs.is_some_and(|exprs| exprs.iter().any(grows))
}

/// What is known of the rows of a window without its own columns, and nothing of other rows.
fn known(plan: &Arc<dyn ExecutionPlan>) -> Result<EquivalenceProperties> {
    let nothing = EquivalenceProperties::new(plan.schema());
    match plan.children().as_slice() {
        [input] if is_window(plan) => nothing.extend(input.equivalence_properties().clone()),
        _ => Ok(nothing),
    }
}

fn is_window(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<BoundedWindowAggExec>() || plan.is::<WindowAggExec>() || plan.is::<OwnWindowExec>()
}

/// The rows of its input.
#[derive(Debug)]
struct ForgetExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl ForgetExec {
    fn above(input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let of_input = input.properties();
        let partitioning = of_input.output_partitioning().clone();
        let properties =
            PlanProperties::new(known(&input)?, partitioning, of_input.emission_type, of_input.boundedness);
        Ok(Arc::new(Self { input, properties: Arc::new(properties) }))
    }
}

impl DisplayAs for ForgetExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForgetExec")
    }
}

impl ExecutionPlan for ForgetExec {
    fn name(&self) -> &str {
        "ForgetExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    /// Of a window it does, but what is asked for above must not be sorted by below.
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
        let input = children.into_iter().next().ok_or_else(|| internal_datafusion_err!("ForgetExec has one input"))?;
        Self::above(input)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let statistics = inputs.first().map(Arc::clone);
        statistics.ok_or_else(|| internal_datafusion_err!("ForgetExec has one input"))
    }
}
