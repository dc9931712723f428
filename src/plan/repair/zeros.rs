//! Lists of floats, in which -0.0 and 0.0 are one value.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::checked::{map_keeping_names, schema_below};

/// Adds 0.0 to floats that are looked for in a list, by IN or by CASE.
///
/// DataFusion 55 looks values up in longer lists by their bits, which for -0.0 are others than for 0.0; `=` takes them
/// for equal. Their sum with 0.0 is 0.0.
#[derive(Debug)]
pub struct OneZero;

impl OptimizerRule for OneZero {
    fn name(&self) -> &str {
        "one_zero"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut has_lists = false;
        plan.apply_expressions(|expr| {
            has_lists |=
                expr.exists(|part| Ok(matches!(part, Expr::InList(_) | Expr::Case(Case { expr: Some(_), .. }))))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !has_lists {
            return Ok(Transformed::no(plan));
        }
        let schema = schema_below(&plan)?;
        map_keeping_names(plan, |expr| expr.transform_up(|part| with_one_zero(part, &schema)))
    }
}

fn with_one_zero(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match part {
        Expr::InList(InList { expr, list, negated }) => {
            let Some(zero) = zero_to_add(&expr, schema) else {
                return Ok(Transformed::no(Expr::InList(InList { expr, list, negated })));
            };
            let list = list.into_iter().map(|value| without_sign(value, &zero)).collect();
            Ok(Transformed::yes(Expr::InList(InList { expr: plus(expr, zero), list, negated })))
        }
        Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr }) => {
            let Some(zero) = zero_to_add(&expr, schema) else {
                return Ok(Transformed::no(Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr })));
            };
            let when = when_then_expr.into_iter().map(|(when, then)| (Box::new(without_sign(*when, &zero)), then));
            let when_then_expr = when.collect();
            Ok(Transformed::yes(Expr::Case(Case { expr: Some(plus(expr, zero)), when_then_expr, else_expr })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The zero of a float's type, if it is not added yet.
fn zero_to_add(expr: &Expr, schema: &DFSchema) -> Option<ScalarValue> {
    let data_type = expr.get_type(schema).ok().filter(|data_type| data_type.is_floating())?;
    let zero = ScalarValue::new_zero(&data_type).ok()?;
    let is_added = matches!(expr, Expr::BinaryExpr(BinaryExpr { op: Operator::Plus, right, .. })
        if matches!(right.as_ref(), Expr::Literal(value, _) if *value == zero));
    (!is_added).then_some(zero)
}

fn plus(expr: Box<Expr>, zero: ScalarValue) -> Box<Expr> {
    Box::new(Expr::BinaryExpr(BinaryExpr::new(expr, Operator::Plus, Box::new(Expr::Literal(zero, None)))))
}

/// -0.0 as 0.0, where it is a constant.
fn without_sign(value: Expr, zero: &ScalarValue) -> Expr {
    match value {
        Expr::Literal(value, metadata) if value.arithmetic_negate().is_ok_and(|negated| negated == *zero) => {
            Expr::Literal(zero.clone(), metadata)
        }
        other => other,
    }
}
