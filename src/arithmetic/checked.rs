//! From DataFusion's operators and aggregates to checked ones, and back.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeContainer};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, WindowFunctionDefinition,
};

use crate::arithmetic::average::CheckedAvg;
use crate::arithmetic::cast::{as_cast, checked_cast, is_checked_cast, is_unfolded_cast, may_be_replaced, plain_cast};
use crate::arithmetic::condition::Asked;
use crate::arithmetic::extreme::float_extreme;
use crate::arithmetic::function::{checked_function, plain_function};
use crate::arithmetic::interval::{as_of_unit, checked_extreme, in_unit};
use crate::arithmetic::lazy::{Over, lazily};
use crate::arithmetic::operator::{self, Operation, as_checked};
use crate::arithmetic::sliding::sliding;
use crate::arithmetic::sum::CheckedSum;

/// `plan`, ready to be executed: all of its arithmetic fails where a result does not fit.
///
/// # Errors
/// DataFusion's, where an expression has no type.
pub fn checked(plan: LogicalPlan, props: &ExecutionProps) -> Result<LogicalPlan> {
    let checked = plan.transform_up_with_subqueries(|node| {
        // The filters of a scan only say what it may leave out, by statistics: a node above evaluates them.
        if matches!(node, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(node));
        }
        let schema = schema_below(&node)?;
        let over = Over { schema: &schema, props };
        let checked = |expr: Expr, asked: Asked| {
            with_checked_operators(expr, &schema)?
                .transform_data(|expr| expr.transform_up(|part| with_checked_aggregate(part, &schema)))?
                .transform_data(|expr| lazily(expr, asked, over))
        };
        match node {
            LogicalPlan::Join(mut join) => {
                // DataFusion computes keys below the join, where a cast must not have the name of its column.
                let keys = join.on.map_elements(|key| {
                    checked(key, Asked::Value)?.map_data(|key| {
                        let is_cast = matches!(&key, Expr::ScalarFunction(call) if is_checked_cast(call));
                        Ok(if is_cast { key.clone().alias(key.to_string()) } else { key })
                    })
                })?;
                let filter = join.filter.map_elements(|filter| checked(filter, Asked::Truth))?;
                let changes = keys.transformed || filter.transformed;
                (join.on, join.filter) = (keys.data, filter.data);
                Ok(Transformed::new_transformed(LogicalPlan::Join(join), changes))
            }
            node => {
                let asked = if matches!(node, LogicalPlan::Filter(_)) { Asked::Truth } else { Asked::Value };
                map_keeping_names(node, |expr| checked(expr, asked))
            }
        }
    })?;
    Ok(checked.data)
}

/// The columns that the expressions of a node are over.
pub fn schema_below(node: &LogicalPlan) -> Result<DFSchema> {
    match node {
        LogicalPlan::TableScan(scan) => {
            DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())
        }
        other => Ok(merge_schema(&other.inputs())),
    }
}

/// The node with its expressions rewritten, whose columns keep their names.
///
/// Of grouping sets it is their expressions: DataFusion does not know the sets by another name.
pub fn map_keeping_names(
    node: LogicalPlan,
    mut rewrite: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let mut named = |expr: Expr| {
        let name = names.save(&expr);
        Ok(rewrite(expr)?.update_data(|expr| name.restore(expr)))
    };
    node.map_expressions(|expr| match expr {
        Expr::GroupingSet(_) => expr.map_children(&mut named),
        other => named(other),
    })
}

/// Whether an expression has a part that may have to be checked.
pub fn has_arithmetic(expr: &Expr) -> bool {
    let is_arithmetic = |part: &Expr| {
        Ok(match part {
            Expr::BinaryExpr(binary) => {
                matches!(binary.op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide)
            }
            Expr::Negative(_) => true,
            Expr::ScalarFunction(function) if checked_function(&function.func).is_some() => true,
            other => may_be_replaced(other),
        })
    };
    // The closure never fails.
    expr.exists(is_arithmetic).unwrap_or(true)
}

/// `expr` over `schema` with checked operators, casts and functions.
///
/// # Errors
/// DataFusion's, where an operand has no type.
pub fn with_checked_operators(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !has_arithmetic(&expr) {
        return Ok(Transformed::no(expr));
    }
    expr.transform_up(|part| as_plain_cast(part, schema)?.transform_data(|part| checked_part(part, schema)))
}

/// The cast that a call of a function for casts means.
fn as_plain_cast(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let cast = match &part {
        Expr::ScalarFunction(function) => as_cast(function, schema)?,
        _ => None,
    };
    Ok(cast.map_or(Transformed::no(part), Transformed::yes))
}

/// An expression whose parts are checked, checked itself.
fn checked_part(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match part {
        Expr::Cast(_) | Expr::TryCast(_) => Ok(match checked_cast(&part, schema)? {
            Some(checked) => Transformed::yes(checked),
            None => Transformed::no(part),
        }),
        Expr::ScalarFunction(ScalarFunction { func, args }) => Ok(match checked_function(&func) {
            Some(func) => Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })),
            None => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
        }),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if !matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide) {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            let (left_type, right_type) = (type_of(&left, schema)?, type_of(&right, schema)?);
            if let Some((operation, result)) = Operation::of(op, &left_type, &right_type) {
                return Ok(Transformed::yes(operator::checked(operation, vec![*left, *right], result)));
            }
            let left = in_unit(*left, (&left_type, &right_type))?;
            let right = in_unit(*right, (&right_type, &left_type))?;
            let is_changed = left.transformed || right.transformed;
            let operands = BinaryExpr::new(Box::new(left.data), op, Box::new(right.data));
            Ok(Transformed::new_transformed(Expr::BinaryExpr(operands), is_changed))
        }
        Expr::Negative(value) => {
            let data_type = type_of(&value, schema)?;
            Ok(match data_type.is_signed_integer() {
                true => Transformed::yes(operator::checked(Operation::Negate, vec![*value], data_type)),
                false => Transformed::no(Expr::Negative(value)),
            })
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The type of an operand. That of a checked expression is known; asking DataFusion would look at all below each time.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    match as_checked(expr) {
        Some((_, result)) => Ok(result.clone()),
        None => expr.get_type(schema),
    }
}

/// `expr` with DataFusion's operators in place of checked ones, but for constants: what is left of them after folding
/// overflows, and nobody may fold it otherwise.
///
/// # Errors
/// Never: DataFusion's visitors may.
pub fn with_plain_operators(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| {
        if let Some(interval) = as_of_unit(&part) {
            let plain = Some(interval.clone()).filter(|_| !stays_checked(&part));
            return Ok(plain.map_or(Transformed::no(part), Transformed::yes));
        }
        if let Expr::ScalarFunction(function) = &part
            && (plain_function(function).is_some() || is_checked_cast(function))
        {
            let plain = match plain_function(function) {
                Some(func) => Some(Expr::ScalarFunction(ScalarFunction { func, args: function.args.clone() })),
                None => plain_cast(function),
            };
            let stays = stays_checked(&part) && !is_unfolded_cast(function);
            return Ok(plain.filter(|_| !stays).map_or(Transformed::no(part), Transformed::yes));
        }
        let operation = match as_checked(&part) {
            Some((operation, _)) if !stays_checked(&part) => operation,
            _ => return Ok(Transformed::no(part)),
        };
        let Expr::ScalarFunction(ScalarFunction { func, mut args }) = part else { return Ok(Transformed::no(part)) };
        Ok(match (operation.operator(), args.pop(), args.pop()) {
            (Some(op), Some(right), Some(left)) => {
                Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            (None, Some(value), None) => Transformed::yes(Expr::Negative(Box::new(value))),
            (_, right, left) => {
                let args = left.into_iter().chain(right).collect();
                Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))
            }
        })
    })
}

/// Whether a checked expression stays checked: all its arguments are constants.
fn stays_checked(checked: &Expr) -> bool {
    let Expr::ScalarFunction(ScalarFunction { func: _, args }) = checked else { return false };
    args.iter().all(|arg| as_checked(arg).is_some() || is_constant(arg))
}

/// Whether an expression has one value that is known while a query is planned.
pub fn is_constant(expr: &Expr) -> bool {
    // The closure never fails.
    !expr.exists(|part| Ok(is_given(part))).unwrap_or(true)
}

/// Whether the value of an expression is given where it is evaluated, and not computed from its parts.
pub fn is_given(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Column(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::ScalarVariable(..)
            | Expr::Placeholder(_)
            | Expr::ScalarSubquery(_)
            | Expr::InSubquery(_)
            | Expr::Exists(_)
            | Expr::SetComparison(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::LambdaVariable(_)
            | Expr::Unnest(_)
    )
}

fn with_checked_aggregate(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            let types = params.args.iter().map(|arg| arg.get_type(schema)).collect::<Result<Vec<_>>>()?;
            let checked = checked_aggregate(&func, &types);
            let is_changed = checked.is_some();
            let func = checked.unwrap_or(func);
            let aggregate = Expr::AggregateFunction(AggregateFunction { func, params });
            Ok(Transformed::new_transformed(aggregate, is_changed))
        }
        Expr::WindowFunction(mut window) => {
            let WindowFunction { fun, params } = window.as_mut();
            let types = params.args.iter().map(|arg| arg.get_type(schema)).collect::<Result<Vec<_>>>()?;
            let checked = match fun {
                WindowFunctionDefinition::AggregateUDF(function) => {
                    let checked = checked_aggregate(function, &types);
                    sliding(checked.as_ref().unwrap_or(function), &types, &params.window_frame).or(checked)
                }
                WindowFunctionDefinition::WindowUDF(_) => None,
            };
            let is_changed = checked.is_some();
            if let Some(function) = checked {
                *fun = WindowFunctionDefinition::AggregateUDF(function);
            }
            Ok(Transformed::new_transformed(Expr::WindowFunction(window), is_changed))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The checked form of one of DataFusion's aggregates over `types`; `None` for those that need none.
pub fn checked_aggregate(function: &AggregateUDF, types: &[DataType]) -> Option<Arc<AggregateUDF>> {
    let inner = function.inner();
    if inner.is::<Sum>() {
        return Some(Arc::new(AggregateUDF::new_from_impl(CheckedSum::default())));
    }
    if inner.is::<Avg>() {
        return Some(Arc::new(AggregateUDF::new_from_impl(CheckedAvg::default())));
    }
    checked_extreme(function, types).or_else(|| float_extreme(function, types)).map(Arc::new)
}
