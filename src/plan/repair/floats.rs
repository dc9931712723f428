//! Floats that are equal: -0.0 and 0.0, and all that are not a number.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::math::nanvl;
use datafusion::logical_expr::expr::{Case, InList, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, TryCast, lit};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::checked::{map_keeping_names, schema_below};

/// Functions that give what is not a number for some numbers.
const PARTIAL_FUNCTIONS: [&str; 14] =
    ["acos", "acosh", "asin", "atanh", "cos", "cot", "ln", "log", "log10", "log2", "power", "sin", "sqrt", "tan"];

/// Gives floats that are equal the same bits, where DataFusion 55 goes by bits.
///
/// - It looks values up in longer lists by them, by IN and by CASE, while `=` takes -0.0 and 0.0 for equal. Their sum
///   with 0.0 is 0.0.
/// - It groups, joins and compares by them what is not a number. A processor computes another NaN than `'NaN'` is read
///   as: on x86, that of `0.0 / 0.0` is negative. Sums, differences and products are left as they are: only infinite
///   operands make a NaN there.
#[derive(Debug)]
pub struct EqualFloats;

impl OptimizerRule for EqualFloats {
    fn name(&self) -> &str {
        "equal_floats"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut is_asked = false;
        plan.apply_expressions(|expr| {
            is_asked |= expr.exists(|part| Ok(looks_up(part) || may_be_nan(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !is_asked {
            return Ok(Transformed::no(plan));
        }
        let schema = schema_below(&plan)?;
        map_keeping_names(plan, |expr| expr.transform_up(|part| alike(part, &schema)))
    }
}

fn looks_up(part: &Expr) -> bool {
    matches!(part, Expr::InList(_) | Expr::Case(Case { expr: Some(_), .. }))
}

/// Whether a part may be no number though its operands are.
fn may_be_nan(part: &Expr) -> bool {
    match part {
        Expr::BinaryExpr(binary) => matches!(binary.op, Operator::Divide | Operator::Modulo),
        Expr::ScalarFunction(call) => PARTIAL_FUNCTIONS.contains(&call.func.name()),
        // A text may be '-NaN'.
        Expr::Cast(cast) => cast.field.data_type().is_floating(),
        Expr::TryCast(cast) => cast.field.data_type().is_floating(),
        Expr::Literal(ScalarValue::Float64(Some(v)), _) => v.is_nan() && v.to_bits() != f64::NAN.to_bits(),
        Expr::Literal(ScalarValue::Float32(Some(v)), _) => v.is_nan() && v.to_bits() != f32::NAN.to_bits(),
        _ => false,
    }
}

fn alike(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if may_be_nan(&part) {
        if let Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) = &part
            && !expr.get_type(schema)?.is_string()
        {
            return Ok(Transformed::no(part));
        }
        return Ok(match part {
            Expr::Literal(ScalarValue::Float64(_), _) => Transformed::yes(lit(f64::NAN)),
            Expr::Literal(ScalarValue::Float32(_), _) => Transformed::yes(lit(f32::NAN)),
            part => with_one_nan(part, schema)?,
        });
    }
    Ok(match part {
        // It was done before.
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if func.name() == "nanvl" && args.len() == 2 => {
            let inner = match &mut args[0] {
                Expr::ScalarFunction(inner) if inner.func.name() == "nanvl" && is_nan(inner.args.get(1)) => {
                    inner.args.drain(..).next()
                }
                _ => None,
            };
            let is_done = inner.is_some();
            args.splice(0..usize::from(is_done), inner);
            Transformed::new(Expr::ScalarFunction(ScalarFunction { func, args }), is_done, TreeNodeRecursion::Continue)
        }
        Expr::InList(InList { expr, list, negated }) => match zero_to_add(&expr, schema) {
            Some(zero) => {
                let list = list.into_iter().map(|value| without_sign(value, &zero)).collect();
                Transformed::yes(Expr::InList(InList { expr: plus(expr, zero), list, negated }))
            }
            None => Transformed::no(Expr::InList(InList { expr, list, negated })),
        },
        Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr }) => match zero_to_add(&expr, schema) {
            Some(zero) => {
                let without_sign = |(when, then): (Box<Expr>, _)| (Box::new(without_sign(*when, &zero)), then);
                let when_then_expr = when_then_expr.into_iter().map(without_sign).collect();
                Transformed::yes(Expr::Case(Case { expr: Some(plus(expr, zero)), when_then_expr, else_expr }))
            }
            None => Transformed::no(Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr })),
        },
        other => Transformed::no(other),
    })
}

fn is_nan(expr: Option<&Expr>) -> bool {
    match expr {
        Some(Expr::Literal(ScalarValue::Float64(Some(value)), _)) => value.is_nan(),
        Some(Expr::Literal(ScalarValue::Float32(Some(value)), _)) => value.is_nan(),
        _ => false,
    }
}

/// A part of which every NaN is the one.
fn with_one_nan(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match part.get_type(schema)? {
        DataType::Float64 => Transformed::yes(nanvl().call(vec![part, lit(f64::NAN)])),
        DataType::Float32 => Transformed::yes(nanvl().call(vec![part, lit(f32::NAN)])),
        _ => Transformed::no(part),
    })
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
