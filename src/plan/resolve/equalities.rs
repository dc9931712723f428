//! Equalities of a WHERE, brought below the outer and semi joins that subqueries become.
//!
//! `FROM a, b WHERE a.x = b.x AND a.v < (SELECT … correlated …)` is decorrelated to a filter above a left join above a
//! cross join of `a` and `b`. Only below the left join does the equality make an equijoin of the cross join.
//!
//! DataFusion's own filter pushdown does more than that, and not always rightly: it takes a constant filter below an
//! aggregate without groups, which then has a row that the filter would have dropped.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::terms::together;

/// Moves equalities of columns from a filter to the side of a join whose rows the join keeps or drops but never pads.
#[derive(Debug)]
pub struct EqualitiesBelowJoins;

impl OptimizerRule for EqualitiesBelowJoins {
    fn name(&self) -> &str {
        "equalities_below_joins"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::Join(join) = filter.input.as_ref() else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let is_left = match join.join_type {
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => true,
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => false,
            // An inner join takes them itself; a full join pads both sides.
            JoinType::Inner | JoinType::Full => return Ok(Transformed::no(LogicalPlan::Filter(filter))),
        };
        let side = if is_left { &join.left } else { &join.right };
        let conjuncts = split_conjunction_owned(filter.predicate.clone());
        let (below, above): (Vec<Expr>, Vec<Expr>) = conjuncts.into_iter().partition(|e| {
            is_equality(e) && e.column_refs().into_iter().all(|column| side.schema().has_column(column))
        });
        let Some(below) = together(Operator::And, below) else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let mut join = join.clone();
        let side = Arc::new(LogicalPlan::Filter(Filter::try_new(below, Arc::clone(side))?));
        if is_left {
            join.left = side;
        } else {
            join.right = side;
        }
        let join = LogicalPlan::Join(join);
        Ok(Transformed::yes(match together(Operator::And, above) {
            Some(above) => LogicalPlan::Filter(Filter::try_new(above, Arc::new(join))?),
            None => join,
        }))
    }
}

/// Whether a predicate equates something of one column with something of another.
fn is_equality(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(binary) if binary.op == Operator::Eq
        && !binary.left.column_refs().is_empty()
        && !binary.right.column_refs().is_empty()
        && !expr.is_volatile())
}
