//! Semi joins, taken below other joins.
//!
//! `IN`, `EXISTS` and their opposites say of a row of one table whether it stays, and DataFusion asks that last, of
//! what all joins give. Where they ask for columns of one side of a join alone, that side's rows are asked before they
//! are joined, if it has no more rows than the join gives, by the estimates of [`crate::plan::rows`].
//!
//! The rows of the result are the same. So that no other errors come of it either, only what can't fail is moved, and
//! only below what can't fail.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::{Join, LogicalPlan, Projection};

use crate::plan::join_order::{can_fail, keeps_columns};
use crate::plan::rows::Input;

/// The plan with semi and anti joins as low as they are worth it.
pub fn lowered(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let plan = plan.map_children(lowered)?;
    match &plan.data {
        LogicalPlan::Join(join)
            if matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti) && !can_fail(join) =>
        {
            let asked: HashSet<&Column> = asked(join).filter(|column| join.left.schema().has_column(column)).collect();
            Ok(below(join, &asked, &join.left)?.map_or(plan, Transformed::yes))
        }
        _ => Ok(plan),
    }
}

/// The columns that a join compares.
fn asked(join: &Join) -> impl Iterator<Item = &Column> {
    let pairs = join.on.iter().flat_map(|(left, right)| [left, right]);
    pairs.chain(&join.filter).flat_map(|expr| expr.column_refs())
}

/// `plan` with `semi`, which asks for these columns of it, below its joins.
fn below(semi: &Join, asked: &HashSet<&Column>, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Projection(projection) if keeps_columns(projection) => {
            let Some(input) = below(semi, asked, &projection.input)? else { return Ok(None) };
            let kept = Projection::try_new(projection.expr.clone(), Arc::new(input))?;
            Ok(Some(LogicalPlan::Projection(kept)))
        }
        LogicalPlan::Join(join) if !can_fail(join) => {
            let has_all = |side: &LogicalPlan| asked.iter().all(|column| side.schema().has_column(column));
            // The rows of the other side stay or go with those of this one.
            let (side, is_left) = match join.join_type {
                JoinType::Inner | JoinType::Left if has_all(&join.left) => (&join.left, true),
                JoinType::Inner | JoinType::Right if has_all(&join.right) => (&join.right, false),
                _ => return Ok(None),
            };
            let rows = |plan: &LogicalPlan| Input::of(plan).map(|input| input.rows);
            if rows(side).zip(rows(plan)).is_none_or(|(side, joined)| side > joined) {
                return Ok(None);
            }
            let fewer = match below(semi, asked, side)? {
                Some(fewer) => fewer,
                None => LogicalPlan::Join(with_inputs(semi, Arc::clone(side), Arc::clone(&semi.right))?),
            };
            let (left, right) = match is_left {
                true => (Arc::new(fewer), Arc::clone(&join.right)),
                false => (Arc::clone(&join.left), Arc::new(fewer)),
            };
            with_inputs(join, left, right).map(|join| Some(LogicalPlan::Join(join)))
        }
        _ => Ok(None),
    }
}

fn with_inputs(join: &Join, left: Arc<LogicalPlan>, right: Arc<LogicalPlan>) -> Result<Join> {
    let Join { on, filter, join_type, join_constraint, null_equality, null_aware, .. } = join;
    Join::try_new(left, right, on.clone(), filter.clone(), *join_type, *join_constraint, *null_equality, *null_aware)
}

#[cfg(test)]
mod tests {
    use crate::plan::join_order::tests::order_of;

    #[tokio::test]
    async fn rows_are_asked_before_they_are_joined() {
        let million = Some(1_000_000);
        let few = "SELECT item FROM stock GROUP BY item HAVING count(*) > 5000";
        for (kind, found) in [("JOIN", "((stock sales) stock)"), ("LEFT JOIN", "((stock sales) stock)")] {
            let query = format!(
                "SELECT sales.day, stock.held FROM sales {kind} stock ON sales.item = stock.item
                 WHERE sales.item IN ({few})"
            );
            assert!(order_of(million, &query).await.starts_with(found), "{kind}: {}", order_of(million, &query).await);
        }
    }
}
