//! Which values are never NULL, also where a schema does not say so.
//!
//! What a source promises of its columns is checked when they are read, so a plan must not rely on it: of rows that
//! nobody reads nothing is checked. A proof may, of columns that its operator reads.

use std::collections::BTreeSet;

use datafusion::common::DFSchema;
use datafusion::logical_expr::{Cast, Distinct, Expr, ExprSchemable, JoinType, LogicalPlan};

use crate::plan::resolve::InputSource;

/// The names of the columns of `plan` that are never NULL.
pub fn never_null(plan: &LogicalPlan) -> BTreeSet<String> {
    let fields = plan.schema().fields().iter().enumerate();
    fields.filter(|(at, _)| is_column(plan, *at)).map(|(_, field)| field.name().clone()).collect()
}

/// Whether `expr`, over the rows of `plan`, is never NULL where it is computed.
pub fn is_never_null(expr: &Expr, plan: &LogicalPlan) -> bool {
    if says_never_null(expr, plan.schema()) {
        return true;
    }
    match expr {
        Expr::Column(column) => plan.schema().maybe_index_of_column(column).is_some_and(|at| is_column(plan, at)),
        Expr::Alias(alias) => is_never_null(&alias.expr, plan),
        Expr::Cast(Cast { expr, .. }) => is_never_null(expr, plan),
        _ => false,
    }
}

fn says_never_null(expr: &Expr, schema: &DFSchema) -> bool {
    expr.nullable(schema).is_ok_and(|nullable| !nullable)
}

/// Whether the column number `at` of `plan` is never NULL.
fn is_column(plan: &LogicalPlan, at: usize) -> bool {
    if plan.schema().fields().get(at).is_some_and(|field| !field.is_nullable()) {
        return true;
    }
    match plan {
        LogicalPlan::Projection(node) => node.expr.get(at).is_some_and(|expr| is_never_null(expr, &node.input)),
        LogicalPlan::SubqueryAlias(node) => is_column(&node.input, at),
        LogicalPlan::Filter(node) => is_column(&node.input, at),
        LogicalPlan::Sort(node) => is_column(&node.input, at),
        LogicalPlan::Limit(node) => is_column(&node.input, at),
        LogicalPlan::Distinct(Distinct::All(input)) => is_column(input, at),
        LogicalPlan::Window(node) => at < node.input.schema().fields().len() && is_column(&node.input, at),
        LogicalPlan::Aggregate(node) => match node.group_expr.as_slice() {
            [Expr::GroupingSet(_)] => false,
            by => by.get(at).is_some_and(|expr| is_never_null(expr, &node.input)),
        },
        LogicalPlan::Join(node) => {
            let width = node.left.schema().fields().len();
            match node.join_type {
                JoinType::Inner if at >= width => is_column(&node.right, at - width),
                JoinType::Inner => is_column(&node.left, at),
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                    at < width && is_column(&node.left, at)
                }
                JoinType::Right => at >= width && is_column(&node.right, at - width),
                JoinType::RightSemi | JoinType::RightAnti => is_column(&node.right, at),
                JoinType::RightMark | JoinType::Full => false,
            }
        }
        LogicalPlan::Union(node) => node.inputs.iter().all(|input| is_column(input, at)),
        LogicalPlan::TableScan(scan) => {
            let at = scan.projection.as_ref().map_or(Some(at), |columns| columns.get(at).copied());
            let source = scan.source.downcast_ref::<InputSource>();
            at.zip(source).is_some_and(|(at, source)| source.is_never_null(at))
        }
        _ => false,
    }
}
