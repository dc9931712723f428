//! Common subexpressions, but not of what AND, OR and the FILTER of an aggregate may leave out.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, lit, when};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::chain::is_chain;
use crate::arithmetic::checked::{has_arithmetic, map_keeping_names};

/// [`CommonSubexprEliminate`], for which the first part of an AND or OR is no surer to be evaluated than the others,
/// where one of them may fail.
///
/// It computes what is surely evaluated twice for all rows before. Of `a * a < 50 AND a < 9` that would be `a * a`,
/// which counts only where `a < 9`. So the whole is hidden behind a part that is always true, and shown again. The
/// arguments of an aggregate count only where its FILTER keeps the row.
#[derive(Debug)]
pub struct OutsideConditions;

impl OptimizerRule for OutsideConditions {
    fn name(&self) -> &str {
        "common_sub_expression_eliminate_outside_conditions"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        CommonSubexprEliminate::new().apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let filtered = each_expression(plan, |expr| expr.transform_up(filtered))?;
        let hidden = each_expression(filtered.data, |expr| expr.transform_down(hidden))?;
        let Transformed { data, transformed, tnr } = CommonSubexprEliminate::new().rewrite(hidden.data, config)?;
        let data =
            if hidden.transformed { each_expression(data, |expr| expr.transform_down(shown))?.data } else { data };
        Ok(Transformed::new(data, transformed || filtered.transformed, tnr))
    }
}

/// The plan with its expressions changed, under the names that they had.
fn each_expression(
    plan: LogicalPlan,
    change: impl Fn(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    plan.transform_down_with_subqueries(|node| map_keeping_names(node, &change))
}

/// An aggregate with a FILTER, whose arguments are NULL for the rows that it removes, if they could fail for them.
fn filtered(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(mut call) => {
            let Some(filter) = &call.params.filter else { return Ok(Transformed::no(Expr::AggregateFunction(call))) };
            let keys = call.params.order_by.iter_mut().map(|key| &mut key.expr);
            let changes = where_kept(call.params.args.iter_mut().chain(keys), filter)?;
            Ok(Transformed::new_transformed(Expr::AggregateFunction(call), changes))
        }
        Expr::WindowFunction(mut call) => {
            let Some(filter) = &call.params.filter else { return Ok(Transformed::no(Expr::WindowFunction(call))) };
            let changes = where_kept(call.params.args.iter_mut(), filter)?;
            Ok(Transformed::new_transformed(Expr::WindowFunction(call), changes))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Puts each expression that may fail into a CASE of the filter; whether one was not in such a CASE before.
fn where_kept<'a>(exprs: impl Iterator<Item = &'a mut Expr>, filter: &Expr) -> Result<bool> {
    let mut changes = false;
    for expr in exprs {
        let is_kept = matches!(expr, Expr::Case(case) if case.when_then_expr.iter().any(|(when, _)| **when == *filter));
        // Some arguments have to stay constants.
        if !is_kept && expr.any_column_refs() && may_fail(expr)? && !filter.is_volatile() {
            *expr = when(filter.clone(), expr.clone()).end()?;
            changes = true;
        }
    }
    Ok(changes)
}

/// An AND or OR that may fail behind a part that is always true; what is in it is no longer surely evaluated.
fn hidden(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And | Operator::Or, .. }) if may_fail(&expr)? => {
            let binary = BinaryExpr::new(Box::new(lit(true)), Operator::And, Box::new(expr));
            Ok(Transformed::new(Expr::BinaryExpr(binary), true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn shown(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right })
            if matches!(right.as_ref(), Expr::BinaryExpr(_)) && *left == lit(true) =>
        {
            Ok(Transformed::yes(*right))
        }
        // The name of what was hidden is its own.
        Expr::Alias(alias) if alias.relation.is_none() && alias.metadata.is_none() => {
            let changed = alias.expr.as_ref().clone().transform_down(shown)?;
            let is_named = changed.transformed && changed.data.schema_name().to_string() == alias.name;
            let changed = if is_named { changed } else { changed.update_data(|expr| expr.alias(alias.name)) };
            Ok(Transformed::new(changed.data, changed.transformed, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether some part may fail, as far as it can be seen from an expression alone.
fn may_fail(expr: &Expr) -> Result<bool> {
    let may = |part: &Expr| Ok(matches!(part, Expr::Cast(_)) || is_division(part) || is_chain(part));
    Ok(has_arithmetic(expr) || expr.exists(may)?)
}

fn is_division(part: &Expr) -> bool {
    matches!(part, Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, .. }))
}
