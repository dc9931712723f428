//! How plans are made that run: by DataFusion's planner, without what it does wrong.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DataFusionError, JoinType, Result, internal_datafusion_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use crate::arithmetic::checked::checked;
use crate::execute::forgotten_order::ForgottenOrder;
use crate::execute::opaque::Functions;
use crate::execute::ordered_aggregates::makes_ordered_lists;
use crate::execute::session::with_partitions;

/// The rule of DataFusion's that finds that a plan is not sorted as an operator needs it.
const CHECK: &str = "SanityCheckPlan";

/// DataFusion's planner, which also plans functions over rows. Arithmetic is checked from here on.
///
/// - DataFusion 55 leaves out sorts by what it knows of the rows of joins and unions, and then does not know it any
///   more:
///   such a plan is made again without that knowledge.
/// - A plan has one partition where some join by another condition than equal columns gives rows of one side once, or
///   without a match: where it spills, each partition of the other side decides alone.
/// - It has one partition, too, where it makes lists in an order
///   ([`SortedLists`](crate::execute::ordered_aggregates::SortedLists)).
#[derive(Debug)]
pub struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = checked(logical_plan.clone(), session.execution_props())?;
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Functions)]);
        let made = match planner.create_physical_plan(&plan, session).await {
            Err(DataFusionError::Context(rule, _)) if rule == CHECK => {
                planner.create_physical_plan(&plan, &forgetful(state_of(session)?)).await?
            }
            made => made?,
        };
        if session.config().target_partitions() == 1
            || !made.exists(|node| Ok(decides_rows_of_one_side(node) || sorts_lists_late(node)))?
        {
            return Ok(made);
        }
        self.create_physical_plan(logical_plan, &with_partitions(state_of(session)?, 1)).await
    }
}

fn state_of(session: &dyn Session) -> Result<&SessionState> {
    session.as_any().downcast_ref().ok_or_else(|| internal_datafusion_err!("a session of another kind"))
}

/// The session with a planner that knows nothing of the rows of joins and unions.
fn forgetful(state: &SessionState) -> SessionState {
    let rules = state.physical_optimizers().iter().map(|rule| -> Arc<dyn PhysicalOptimizerRule + Send + Sync> {
        let forgotten = ForgottenOrder { of_joins_and_unions: true };
        if rule.name() == forgotten.name() { Arc::new(forgotten) } else { Arc::clone(rule) }
    });
    let rules = rules.collect();
    SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(rules).build()
}

fn decides_rows_of_one_side(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.downcast_ref::<NestedLoopJoinExec>().is_some_and(|join| *join.join_type() != JoinType::Inner)
}

/// Whether a node makes lists whose order another node makes.
fn sorts_lists_late(node: &Arc<dyn ExecutionPlan>) -> bool {
    let is_partial = |aggregate: &&AggregateExec| *aggregate.mode() == AggregateMode::Partial;
    node.downcast_ref::<AggregateExec>().filter(is_partial).is_some_and(makes_ordered_lists)
}
