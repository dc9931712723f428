//! Casts, which DataFusion's optimizer takes for the columns that they are of.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// How names of columns begin that are computed below an aggregate.
const GROUP: &str = "$group ";

/// [`EliminateDuplicatedExpr`], but not of sorts by casts.
///
/// A cast is called as its column is. Where the column tells all rows apart, as after GROUP BY, the rule takes what stands
/// behind the cast in ORDER BY for needless.
#[derive(Debug)]
pub struct SortsByCasts;

impl OptimizerRule for SortsByCasts {
    fn name(&self) -> &str {
        "eliminate_duplicated_expr_but_not_of_casts"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        EliminateDuplicatedExpr::new().apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Sort(sort) if sort.expr.iter().any(|key| is_cast(&key.expr)) => Ok(Transformed::no(plan)),
            _ => EliminateDuplicatedExpr::new().rewrite(plan, config),
        }
    }
}

/// Computes casts that rows are grouped by below the aggregate, under names of their own: a group by a cast and one by
/// its column would be one, or one of them needless.
#[derive(Debug)]
pub struct GroupsByCasts;

impl OptimizerRule for GroupsByCasts {
    fn name(&self) -> &str {
        "groups_by_casts"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let groups = &aggregate.group_expr;
        if groups.len() < 2 || !groups.iter().any(is_cast) {
            return Ok(Transformed::no(plan));
        }
        let name = |at: usize| format!("{GROUP}{at}");
        let own = aggregate.input.schema().columns().into_iter().map(Expr::Column);
        let casts = groups.iter().enumerate().filter(|(_, group)| is_cast(group));
        let casts = casts.map(|(at, group)| group.clone().unalias_nested().data.alias(name(at)));
        let input = LogicalPlanBuilder::from(Arc::clone(&aggregate.input)).project(own.chain(casts))?.build()?;
        let by_columns = groups.iter().enumerate().map(|(at, group)| match is_cast(group) {
            true => Expr::Column(Column::new_unqualified(name(at))),
            false => group.clone(),
        });
        let grouped = Aggregate::try_new(Arc::new(input), by_columns.collect(), aggregate.aggr_expr.clone())?;
        let given = grouped.schema.columns();
        let named = aggregate.schema.iter().zip(given).map(|((qualifier, field), column)| {
            match qualifier == column.relation.as_ref() && *field.name() == column.name {
                true => Expr::Column(column),
                false => Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()),
            }
        });
        let named = named.collect::<Vec<_>>();
        // DataFusion's builder would take `t.a` and a column that is called "t.a" for one.
        let rows = Projection::try_new(named, Arc::new(LogicalPlan::Aggregate(grouped)))?;
        Ok(Transformed::yes(LogicalPlan::Projection(rows)))
    }
}

fn is_cast(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_cast(&alias.expr),
        Expr::Cast(_) | Expr::TryCast(_) => true,
        _ => false,
    }
}
