//! Sorts by lists and structs.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, SortExpr};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::checked::{map_keeping_names, schema_below};
use crate::arithmetic::nested::in_order;

/// Sorts lists and structs [in order](crate::arithmetic::nested).
#[derive(Debug)]
pub struct OrderedNested;

impl OptimizerRule for OrderedNested {
    fn name(&self) -> &str {
        "ordered_nested"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let schema = schema_below(&plan)?;
        // Most plans have neither.
        if !schema.fields().iter().any(|field| field.data_type().is_nested()) && !makes_nested(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let sorts = matches!(plan, LogicalPlan::Sort(_));
        map_keeping_names(plan, |expr| {
            let ordered = expr.transform_up(|part| ordered(part, &schema))?;
            match sorts {
                true => ordered.transform_data(|key| {
                    let (key, changes) = in_order(key.unalias(), &schema);
                    Ok(Transformed::new_transformed(key, changes))
                }),
                false => Ok(ordered),
            }
        })
    }
}

/// Whether an expression may give lists or structs of what are none.
fn makes_nested(plan: &LogicalPlan) -> Result<bool> {
    let mut makes = false;
    plan.apply_expressions(|expr| {
        makes |= expr.exists(|part| {
            Ok(match part {
                Expr::ScalarFunction(_) | Expr::AggregateFunction(_) => true,
                Expr::Literal(value, _) => value.data_type().is_nested(),
                _ => false,
            })
        })?;
        Ok(if makes { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(makes)
}

fn ordered(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match part {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            let changes = keys_in_order(&mut params.order_by, schema);
            Transformed::new_transformed(Expr::AggregateFunction(AggregateFunction { func, params }), changes)
        }
        Expr::WindowFunction(mut function) => {
            let changes = keys_in_order(&mut function.params.order_by, schema);
            Transformed::new_transformed(Expr::WindowFunction(function), changes)
        }
        other => Transformed::no(other),
    })
}

fn keys_in_order(keys: &mut [SortExpr], schema: &DFSchema) -> bool {
    let mut changes = false;
    for key in keys {
        let (expr, changed) = in_order(std::mem::take(&mut key.expr), schema);
        key.expr = expr;
        changes |= changed;
    }
    changes
}
