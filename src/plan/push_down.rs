//! Filters, limits and projections where they spare the most work, before a part is taken out of a query.
//!
//! A step is stored: without this it has all rows and columns that the query has at its place, and not only those that
//! are read of it. Aggregates of the distinct values of one expression become ones of its groups: these can be cut by
//! it, and spill.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableScanBuilder};
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use crate::plan::distinct_apart::DistinctApart;
use crate::plan::repair::{OptimizerRules, filters_below};

/// The plan with its filters, limits and projections near the scans, and groups in place of distinct values. Several
/// expressions have their distinct values found apart over joins, too, only if the query `is_large`.
///
/// # Errors
/// DataFusion's.
pub fn pushed_down(plan: LogicalPlan, is_large: bool) -> Result<LogicalPlan> {
    pushed_down_to_scans(plan, is_large)?.transform_up_with_subqueries(whole_scan).data()
}

/// As [`pushed_down`], where scans may have but some of the columns.
///
/// # Errors
/// DataFusion's.
pub fn pushed_down_to_scans(plan: LogicalPlan, is_large: bool) -> Result<LogicalPlan> {
    // DataFusion has replaced them where it runs these rules.
    let is_distinct_on = |node: &LogicalPlan| Ok(matches!(node, LogicalPlan::Distinct(Distinct::On(_))));
    if plan.exists(is_distinct_on)? {
        return Ok(plan);
    }
    let rules: OptimizerRules = vec![
        Arc::new(SingleDistinctToGroupBy::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownLimit::new()),
        filters_below(),
        Arc::new(OptimizeProjections::new()),
        Arc::new(DistinctApart { is_dear_too: is_large }),
    ];
    Optimizer::with_rules(rules).optimize(plan, &OptimizerContext::new(), |_, _| {})
}

/// A scan of all rows and columns below a projection to those that are read: which of a file's columns and row groups a
/// chunk reads is decided later, and its filters stand above it, too.
pub fn whole_scan(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let columns: Vec<Expr> = node.schema().columns().into_iter().map(Expr::Column).collect();
    let LogicalPlan::TableScan(TableScan { table_name, source, projection, .. }) = node else {
        return Ok(Transformed::no(node));
    };
    let scan = LogicalPlan::TableScan(TableScanBuilder::new(table_name, source).build()?);
    Ok(Transformed::yes(match projection {
        Some(_) => LogicalPlanBuilder::from(scan).project(columns)?.build()?,
        None => scan,
    }))
}
