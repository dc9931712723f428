//! Decimals beside floats.
//!
//! DataFusion 55 makes both DECIMAL(30, 15). The DOUBLE 8.38 is 8.380000000000001 there, which no decimal in a column is; what
//! is smaller than 1e-15 becomes 0, and what is larger than 1e15 fails. Here a number that is written in the query is the
//! decimal that it says, if it fits beside the others; all else is compared, and put together, as DOUBLE: as in
//! PostgreSQL and DuckDB.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::{Between, Case, InList, InSubquery, ScalarFunction, SetComparison};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Distinct, Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, Union,
};

/// Functions whose arguments become one type, from which of them on.
const OF_ONE_TYPE: [(&str, usize); 7] =
    [("coalesce", 0), ("nullif", 0), ("nvl", 0), ("nvl2", 1), ("greatest", 0), ("least", 0), ("make_array", 0)];

/// The most digits of a decimal that is written in a query.
const MOST_DIGITS: usize = 38;

/// A plan after DataFusion's analysis, which makes types equal.
///
/// # Errors
/// DataFusion's.
pub fn analysed(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    state.analyzer().execute_and_check(apart(plan)?, state.config_options(), |_, _| {})
}

/// `plan`, before its types are made equal, in which no decimal meets a float.
///
/// # Errors
/// DataFusion's, of plans that are made again.
pub fn apart(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_decimals(&plan)? {
        return Ok(plan);
    }
    let apart = plan.transform_up_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::Union(union) => return branches_apart(union),
            LogicalPlan::Join(join) => keys_apart(join)?,
            node => Transformed::no(node),
        };
        let schema = merge_schema(&node.data.inputs());
        let names = NamePreserver::new(&node.data);
        let apart = node.transform_data(|node| {
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(|part| expr_apart(part, &schema))?.update_data(|expr| name.restore(expr)))
            })
        })?;
        if apart.transformed { apart.map_data(LogicalPlan::recompute_schema) } else { Ok(apart) }
    });
    apart.data()
}

/// Whether a plan may have decimals.
fn has_decimals(plan: &LogicalPlan) -> Result<bool> {
    let mut has = false;
    plan.apply_with_subqueries(|node| {
        has |= node.schema().fields().iter().any(|field| is_decimal(field.data_type()));
        node.apply_expressions(|expr| {
            has |= expr.exists(|part| Ok(matches!(part, Expr::Cast(cast) if is_decimal(cast.field.data_type()))))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if has { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(has)
}

fn is_decimal(data_type: &DataType) -> bool {
    data_type.is_decimal()
}

/// Whether some of the types are decimals and some floats.
fn are_mixed<'a>(types: impl IntoIterator<Item = &'a DataType> + Clone) -> bool {
    types.clone().into_iter().any(is_decimal) && types.into_iter().any(DataType::is_floating)
}

fn expr_apart(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { mut left, op, mut right }) if is_comparison(op) => {
            let changed = unify(&mut [&mut left, &mut right], schema);
            Ok(transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed))
        }
        Expr::Between(Between { mut expr, negated, mut low, mut high }) => {
            let changed = unify(&mut [&mut expr, &mut low, &mut high], schema);
            Ok(transformed(Expr::Between(Between { expr, negated, low, high }), changed))
        }
        Expr::InList(InList { mut expr, mut list, negated }) => {
            let mut parts: Vec<&mut Expr> = list.iter_mut().chain([expr.as_mut()]).collect();
            let changed = unify(&mut parts, schema);
            Ok(transformed(Expr::InList(InList { expr, list, negated }), changed))
        }
        Expr::Case(Case { mut expr, mut when_then_expr, mut else_expr }) => {
            let mut results: Vec<&mut Expr> = when_then_expr.iter_mut().map(|(_, then)| then.as_mut()).collect();
            results.extend(else_expr.as_deref_mut());
            let mut changed = unify(&mut results, schema);
            if let Some(expr) = expr.as_deref_mut() {
                let mut compared: Vec<&mut Expr> = when_then_expr.iter_mut().map(|(when, _)| when.as_mut()).collect();
                compared.push(expr);
                changed |= unify(&mut compared, schema);
            }
            Ok(transformed(Expr::Case(Case { expr, when_then_expr, else_expr }), changed))
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args }) => {
            let from = OF_ONE_TYPE.iter().find(|(name, _)| *name == func.name()).map(|(_, from)| *from);
            let mut parts: Vec<&mut Expr> = from.map(|from| args.iter_mut().skip(from).collect()).unwrap_or_default();
            let changed = unify(&mut parts, schema);
            Ok(transformed(Expr::ScalarFunction(ScalarFunction { func, args }), changed))
        }
        Expr::InSubquery(InSubquery { mut expr, mut subquery, negated }) => {
            let changed = unify_with(&mut expr, &mut subquery, schema)?;
            Ok(transformed(Expr::InSubquery(InSubquery { expr, subquery, negated }), changed))
        }
        Expr::SetComparison(SetComparison { mut expr, mut subquery, op, quantifier }) => {
            let changed = unify_with(&mut expr, &mut subquery, schema)?;
            Ok(transformed(Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }), changed))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn transformed<T>(data: T, changed: bool) -> Transformed<T> {
    Transformed::new(data, changed, TreeNodeRecursion::Continue)
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// Makes expressions that DataFusion brings to one type all decimals, where all floats are written numbers, or all floats;
/// false where there is nothing to do.
fn unify(parts: &mut [&mut Expr], schema: &DFSchema) -> bool {
    if parts.len() < 2 {
        return false;
    }
    // What has no type yet is not there, or DataFusion will say what is wrong with it.
    let types: Vec<DataType> = parts.iter().map(|part| part.get_type(schema).unwrap_or(DataType::Null)).collect();
    if !are_mixed(&types) {
        return false;
    }
    let written: Option<Vec<Option<ScalarValue>>> = parts
        .iter()
        .zip(&types)
        .map(|(part, data_type)| if data_type.is_floating() { decimal_of(part).map(Some) } else { Some(None) })
        .collect();
    match written.filter(|written| fit(written, &types)) {
        Some(written) => {
            for (part, value) in parts.iter_mut().zip(written) {
                if let Some(value) = value {
                    **part = Expr::Literal(value, None);
                }
            }
        }
        None => {
            for (part, data_type) in parts.iter_mut().zip(&types) {
                if is_decimal(data_type) {
                    **part = as_float(std::mem::take(*part));
                }
            }
        }
    }
    true
}

/// As [`unify`], of an expression and the column of a subquery.
fn unify_with(expr: &mut Expr, subquery: &mut Subquery, schema: &DFSchema) -> Result<bool> {
    let (Ok(own), [field]) = (expr.get_type(schema), subquery.subquery.schema().fields().as_ref()) else {
        return Ok(false);
    };
    let other = field.data_type();
    if !are_mixed([&own, other]) {
        return Ok(false);
    }
    match decimal_of(expr).filter(|value| fit(&[Some(value.clone())], std::slice::from_ref(other))) {
        Some(value) => *expr = Expr::Literal(value, None),
        None if is_decimal(&own) => *expr = as_float(std::mem::take(expr)),
        None => {
            let columns = BTreeSet::from([0]);
            subquery.subquery = Arc::new(with_floats(subquery.subquery.as_ref().clone(), &columns)?);
        }
    }
    Ok(true)
}

fn as_float(expr: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), DataType::Float64))
}

/// A written number as the decimal that it says: the shortest that is this float.
fn decimal_of(expr: &Expr) -> Option<ScalarValue> {
    let (value, sign) = match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => (*value, 1),
        Expr::Negative(inner) => match inner.as_ref() {
            Expr::Literal(ScalarValue::Float64(Some(value)), _) => (*value, -1),
            _ => return None,
        },
        _ => return None,
    };
    if !value.is_finite() {
        return None;
    }
    // Never with an exponent.
    let text = value.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{fraction}");
    let value: i128 = digits.parse().ok()?;
    let precision = digits.trim_start_matches(['-', '0']).len().max(fraction.len()).max(1);
    (precision <= MOST_DIGITS)
        .then(|| ScalarValue::Decimal128(Some(sign * value), precision as u8, fraction.len() as i8))
}

/// Whether the decimals that are written fit into one type with the other types.
fn fit(written: &[Option<ScalarValue>], types: &[DataType]) -> bool {
    let written = written.iter().flatten().map(ScalarValue::data_type);
    let others = types.iter().filter(|data_type| !data_type.is_floating()).cloned();
    let (mut whole, mut fraction) = (0, 0);
    for data_type in written.chain(others) {
        let (precision, scale) = match data_type {
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale) => (i32::from(precision), i32::from(scale)),
            DataType::Null => continue,
            integer if integer.is_integer() => (20, 0),
            _ => return false,
        };
        whole = whole.max(precision - scale);
        fraction = fraction.max(scale);
    }
    whole + fraction <= MOST_DIGITS as i32
}

/// The types of a column of a plan; of a union those of all its branches, which are not made equal yet.
fn types_of(plan: &LogicalPlan, column: usize) -> Vec<DataType> {
    match plan {
        LogicalPlan::Union(union) => union.inputs.iter().flat_map(|input| types_of(input, column)).collect(),
        LogicalPlan::Distinct(Distinct::All(input)) => types_of(input, column),
        other => other.schema().fields().get(column).map(|field| field.data_type().clone()).into_iter().collect(),
    }
}

fn branches_apart(union: Union) -> Result<Transformed<LogicalPlan>> {
    let plan = LogicalPlan::Union(union);
    let columns = 0..plan.schema().fields().len();
    let mixed: BTreeSet<usize> = columns.filter(|column| are_mixed(&types_of(&plan, *column))).collect();
    if mixed.is_empty() { Ok(Transformed::no(plan)) } else { with_floats(plan, &mixed).map(Transformed::yes) }
}

/// A plan whose columns of these numbers are no decimals.
fn with_floats(plan: LogicalPlan, columns: &BTreeSet<usize>) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Union(Union { inputs, schema: _ }) => {
            let inputs =
                inputs.into_iter().map(|input| Ok(Arc::new(with_floats(Arc::unwrap_or_clone(input), columns)?)));
            Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)?))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(with_floats(Arc::unwrap_or_clone(input), columns)?))))
        }
        other => {
            let schema = Arc::clone(other.schema());
            let of = |(at, (qualifier, field)): (usize, (Option<&_>, &Arc<arrow::datatypes::Field>))| {
                let column = Expr::Column(Column::from((qualifier, field.as_ref())));
                match columns.contains(&at) && is_decimal(field.data_type()) {
                    true => as_float(column).alias_qualified(qualifier.cloned(), field.name()),
                    false => column,
                }
            };
            LogicalPlanBuilder::from(other).project(schema.iter().enumerate().map(of))?.build()
        }
    }
}

/// The keys of a join, of which one is a decimal and one a float, as floats.
fn keys_apart(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    for (left, right) in &mut join.on {
        let types = (left.get_type(join.left.schema())?, right.get_type(join.right.schema())?);
        if are_mixed([&types.0, &types.1]) {
            let decimal = if is_decimal(&types.0) { left } else { right };
            *decimal = as_float(std::mem::take(decimal));
            changed = true;
        }
    }
    Ok(transformed(LogicalPlan::Join(join), changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::lit;

    #[test]
    fn written_numbers_are_the_decimals_that_they_say() {
        let of = |value: f64| decimal_of(&lit(value));
        let decimal = |value, precision, scale| Some(ScalarValue::Decimal128(Some(value), precision, scale));
        assert_eq!(of(8.38), decimal(838, 3, 2));
        assert_eq!(of(-0.05), decimal(-5, 2, 2));
        assert_eq!(of(0.0), decimal(0, 1, 0));
        assert_eq!(of(1e20), decimal(100_000_000_000_000_000_000, 21, 0));
        assert_eq!(of(1e-17), decimal(1, 17, 17));
        assert_eq!(of(5e-324), None);
        assert_eq!(of(1e38), None);
        assert_eq!(of(f64::NAN), None);
    }
}
