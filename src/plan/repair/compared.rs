//! Values that are compared by their bits: floats, lists and structs.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::math::nanvl;
use datafusion::logical_expr::expr::{AggregateFunction, Case, InList, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, SortExpr, TryCast, cast, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::arithmetic::checked::{map_keeping_names, schema_below};
use crate::arithmetic::nested::in_order;
use crate::plan::prove::stable::unaliased;
use crate::plan::repair::PARTITION;
use crate::plan::two_phase::state::aggregate_behind;

/// Functions that give what is not a number for some numbers.
const PARTIAL_FUNCTIONS: [&str; 14] =
    ["acos", "acosh", "asin", "atanh", "cos", "cot", "ln", "log", "log10", "log2", "power", "sin", "sqrt", "tan"];

/// Gives floats that are equal the same bits, where DataFusion 55 goes by bits, and sorts lists and structs [in
/// order](crate::arithmetic::nested).
///
/// Of floats that are equal -0.0 and 0.0, and all that are not a number:
/// - It sorts by them, splits windows, tells distinct values of an aggregate apart, and looks values up in longer lists
///   (IN, CASE) and by `nullif`, while `=` and GROUP BY take -0.0 and 0.0 for equal. Their sum with 0.0 is 0.0.
/// - It compares lists and structs by them. So no -0.0 comes into one; what is read has none there
///   ([`with_equal_floats`](crate::execute::floats::with_equal_floats)).
/// - It groups, joins and compares by them what is not a number. A processor computes another NaN than `'NaN'` is read
///   as: on x86, that of `0.0 / 0.0` is negative. Sums, differences and products are left as they are: only infinite
///   operands make a NaN there.
#[derive(Debug)]
pub struct ComparedAlike;

impl OptimizerRule for ComparedAlike {
    fn name(&self) -> &str {
        "compared_alike"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let sorts = matches!(plan, LogicalPlan::Sort(_));
        let mut is_asked = sorts;
        plan.apply_expressions(|expr| {
            is_asked |= expr.exists(|part| Ok(compares(part) || may_be_nan(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !is_asked {
            return Ok(Transformed::no(plan));
        }
        let schema = schema_below(&plan)?;
        let told_apart = match &plan {
            LogicalPlan::Sort(sort) => {
                sort.expr.iter().filter_map(|key| float_of(&key.expr, &schema)).cloned().collect()
            }
            _ => Vec::new(),
        };
        let rewritten = map_keeping_names(plan, |expr| {
            let alike = expr.transform_up(|part| alike(part, &schema))?;
            if !sorts {
                return Ok(alike);
            }
            alike.transform_data(|key| {
                let key = key.unalias();
                if told_apart.contains(&key) {
                    return Ok(Transformed::no(key));
                }
                let (key, changes) = sort_key(key, &schema);
                Ok(Transformed::new_transformed(key, changes))
            })
        })?;
        rewritten.transform_data(|plan| with_rows_told_apart(plan, &schema))
    }
}

/// A sort whose first rows alone are asked for, by floats with one zero: of rows that are alike else, it tells those
/// with -0.0 from those with 0.0, so that the first rows are the same ones again.
fn with_rows_told_apart(plan: LogicalPlan, schema: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Sort(mut sort) = plan else { return Ok(Transformed::no(plan)) };
    if sort.fetch.is_none() {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    }
    let keys = sort.expr.iter().filter_map(|key| Some((key, float_of(&key.expr, schema)?)));
    let floats: Vec<_> = keys.map(|(key, float)| SortExpr::new(float.clone(), key.asc, key.nulls_first)).collect();
    let mut changes = false;
    if floats.len() > 1 {
        let input = Arc::unwrap_or_clone(sort.input).transform_down(equal_with_one_zero)?;
        changes = input.transformed;
        sort.input = Arc::new(input.data);
    }
    for float in floats {
        if sort.expr.iter().all(|key| key.expr != float.expr) {
            sort.expr.push(float);
            changes = true;
        }
    }
    Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), changes))
}

/// A plan and its sort keys, with more keys that tell rows with -0.0 from rows with 0.0.
///
/// The added keys are texts, since in a window -0.0 and 0.0 are one float.
///
/// # Errors
/// DataFusion's.
pub fn told_apart(plan: LogicalPlan, mut keys: Vec<SortExpr>) -> Result<(LogicalPlan, Vec<SortExpr>)> {
    let mut texts = Vec::new();
    for key in &keys {
        if key.expr.get_type(plan.schema())?.is_floating() {
            texts.push(SortExpr::new(cast(key.expr.clone(), DataType::Utf8), key.asc, key.nulls_first));
        }
    }
    let plan = if texts.len() > 1 { plan.transform_down(equal_with_one_zero).data()? } else { plan };
    keys.extend(texts);
    Ok((plan, keys))
}

/// A join or filter that compares floats, with -0.0 made 0.0 before. Where two columns are equal, DataFusion 55 sorts
/// by either of them, though one may have -0.0 where the other has 0.0.
fn equal_with_one_zero(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut changes = false;
    let mut one = |expr: &mut Expr, schema: &DFSchema| {
        if matches!(unaliased(expr), Expr::Column(_)) {
            let (made, changed) = one_zero(std::mem::take(expr), schema);
            (*expr, changes) = (made, changes | changed);
        }
    };
    let plan = match plan {
        LogicalPlan::Join(mut join) => {
            for (left, right) in &mut join.on {
                one(left, join.left.schema());
                one(right, join.right.schema());
            }
            LogicalPlan::Join(join)
        }
        LogicalPlan::Filter(mut filter) => {
            let schema = Arc::clone(filter.input.schema());
            let predicate = filter.predicate.transform_down(|part| {
                Ok(match part {
                    Expr::BinaryExpr(mut of) if matches!(of.op, Operator::Eq | Operator::IsNotDistinctFrom) => {
                        one(&mut of.left, &schema);
                        one(&mut of.right, &schema);
                        Transformed::yes(Expr::BinaryExpr(of))
                    }
                    other => Transformed::no(other),
                })
            })?;
            filter.predicate = predicate.data;
            LogicalPlan::Filter(filter)
        }
        other => other,
    };
    Ok(Transformed::new_transformed(plan, changes))
}

/// Whether a part goes by the bits of its operands.
fn compares(part: &Expr) -> bool {
    match part {
        Expr::InList(_) | Expr::Case(Case { expr: Some(_), .. }) | Expr::WindowFunction(_) => true,
        Expr::AggregateFunction(call) => keeps_values(call) || !call.params.order_by.is_empty(),
        Expr::ScalarFunction(call) => has_equal_zeros(call.func.name()),
        _ => false,
    }
}

/// Whether an aggregate tells values apart, or puts them into a list; so do the states of one.
fn keeps_values(AggregateFunction { func, params }: &AggregateFunction) -> bool {
    let (name, is_distinct) = aggregate_behind(func).unwrap_or((func.name(), params.distinct));
    is_distinct || name == "array_agg"
}

/// Whether a function compares its arguments, or puts them into a list or a struct.
fn has_equal_zeros(function: &str) -> bool {
    function.starts_with("array_") || ["nullif", "make_array", "struct", "named_struct", "map"].contains(&function)
}

/// Whether a part may be no number though its operands are.
fn may_be_nan(part: &Expr) -> bool {
    match part {
        Expr::BinaryExpr(binary) => matches!(binary.op, Operator::Divide | Operator::Modulo),
        Expr::ScalarFunction(call) => PARTIAL_FUNCTIONS.contains(&call.func.name()),
        Expr::Negative(_) => true,
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
        Expr::ScalarFunction(ScalarFunction { func, args }) if has_equal_zeros(func.name()) => {
            let (args, changes) = each_with_one_zero(args, schema);
            Transformed::new_transformed(Expr::ScalarFunction(ScalarFunction { func, args }), changes)
        }
        Expr::AggregateFunction(call) => {
            let is_of_values = keeps_values(&call);
            let AggregateFunction { func, mut params } = call;
            let mut changes = false;
            if is_of_values {
                (params.args, changes) = each_with_one_zero(params.args, schema);
            }
            changes |= sort_alike(&mut params.order_by, schema);
            Transformed::new_transformed(Expr::AggregateFunction(AggregateFunction { func, params }), changes)
        }
        Expr::WindowFunction(mut function) => {
            let params = &mut function.params;
            let (partition_by, mut changes) = each_with_one_zero(std::mem::take(&mut params.partition_by), schema);
            params.partition_by = partition_by;
            if params.distinct || function.fun.name() == "array_agg" {
                let (args, changed) = each_with_one_zero(std::mem::take(&mut params.args), schema);
                params.args = args;
                changes |= changed;
            }
            changes |= sort_alike(&mut params.order_by, schema);
            Transformed::new_transformed(Expr::WindowFunction(function), changes)
        }
        other => Transformed::no(other),
    })
}

/// A value whose -0.0 is 0.0, and whether that changes the expression.
fn one_zero(expr: Expr, schema: &DFSchema) -> (Expr, bool) {
    match zero_to_add(&expr, schema) {
        Some(zero) => (*plus(Box::new(expr), zero), true),
        None => (expr, false),
    }
}

/// A value by which rows are sorted: lists and structs [in order](crate::arithmetic::nested), floats with one zero.
fn sort_key(expr: Expr, schema: &DFSchema) -> (Expr, bool) {
    match in_order(expr, schema) {
        (key, true) => (key, true),
        (expr, false) => one_zero(expr, schema),
    }
}

fn each_with_one_zero(exprs: Vec<Expr>, schema: &DFSchema) -> (Vec<Expr>, bool) {
    let mut changes = false;
    let each = exprs.into_iter().map(|expr| {
        let (expr, changed) = one_zero(expr, schema);
        changes |= changed;
        expr
    });
    (each.collect(), changes)
}

fn sort_alike(keys: &mut [SortExpr], schema: &DFSchema) -> bool {
    let mut changes = false;
    for key in keys {
        let (expr, changed) = sort_key(std::mem::take(&mut key.expr), schema);
        key.expr = expr;
        changes |= changed;
    }
    changes
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
    if matches!(expr, Expr::Column(column) if column.name.starts_with(PARTITION)) {
        return None;
    }
    let data_type = expr.get_type(schema).ok().filter(|data_type| data_type.is_floating())?;
    let zero = ScalarValue::new_zero(&data_type).ok()?;
    let is_added = matches!(expr, Expr::BinaryExpr(BinaryExpr { op: Operator::Plus, right, .. })
        if matches!(right.as_ref(), Expr::Literal(value, _) if *value == zero));
    (!is_added).then_some(zero)
}

fn plus(expr: Box<Expr>, zero: ScalarValue) -> Box<Expr> {
    Box::new(Expr::BinaryExpr(BinaryExpr::new(expr, Operator::Plus, Box::new(Expr::Literal(zero, None)))))
}

/// What a zero is added to.
fn float_of<'a>(expr: &'a Expr, schema: &DFSchema) -> Option<&'a Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) = unaliased(expr) else { return None };
    let zero = zero_to_add(left, schema)?;
    matches!(right.as_ref(), Expr::Literal(value, _) if *value == zero).then_some(left)
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

#[cfg(test)]
mod tests {
    use crate::plan::join_order::tests::optimised;

    /// The keys by which a query's rows are sorted.
    async fn keys(query: &str) -> String {
        let plan = optimised(Some(100), query).await.display_indent().to_string();
        plan.lines().find_map(|line| line.trim().strip_prefix("Sort: ")).unwrap().to_string()
    }

    #[tokio::test]
    async fn first_rows_by_floats_are_told_apart_by_their_zeros() {
        let floats = "SELECT CAST(day AS DOUBLE) AS f, item FROM sales ORDER BY f DESC, item";
        assert_eq!(keys(floats).await, "f + Float64(0) AS f DESC NULLS FIRST, sales.item ASC NULLS LAST");
        let first = "f + Float64(0) AS f DESC NULLS FIRST, sales.item ASC NULLS LAST, f DESC NULLS FIRST, fetch=3";
        assert_eq!(keys(&format!("{floats} LIMIT 3")).await, first);
        let both = "SELECT a.f, b.f FROM (SELECT CAST(day AS DOUBLE) AS f FROM sales) a
            JOIN (SELECT CAST(day AS DOUBLE) AS f FROM sales) b ON a.f = b.f WHERE a.f = b.f ORDER BY a.f, b.f LIMIT 3";
        let plan = optimised(Some(100), both).await.display_indent().to_string();
        assert!(plan.contains("Inner Join: a.f + Float64(0) = b.f + Float64(0)"), "{plan}");
        let whole = "SELECT day FROM sales ORDER BY day LIMIT 3";
        assert_eq!(keys(whole).await, "sales.day ASC NULLS LAST, fetch=3");
    }
}
