//! Comparisons of intervals by their length: a month has 30 days, and a day 24 hours, as in PostgreSQL and DuckDB.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{
    AggregateFunction, Between, Case, InList, InSubquery, ScalarFunction, SetComparison, WindowFunction,
};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Distinct, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use crate::arithmetic::compare::is_comparison;

const NANOSECONDS_OF_DAY: i128 = 86_400_000_000_000;
const DAYS_OF_MONTH: i128 = 30;

/// A number of nanoseconds that no interval exceeds.
const LENGTH: DataType = DataType::Decimal128(38, 0);

/// Makes a comparison of intervals, whose sides have one type, one of their lengths, and likewise an order.
///
/// # Errors
/// Where functions, `min` and `max` as windows, or subqueries compare them.
pub fn compare_by_length(expr: &mut Expr, schema: &DFSchema) -> Result<()> {
    let is_interval = |expr: &Expr| is_interval(expr, schema);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_comparison(*op) && (is_interval(left) || is_interval(right)) =>
        {
            measure([&mut **left, &mut **right]);
        }
        Expr::Between(Between { expr, negated: _, low, high }) if is_interval(expr) => {
            measure([&mut **expr, low, high])
        }
        Expr::InList(InList { expr, list, negated: _ }) if is_interval(expr) => {
            measure(list.iter_mut().chain([&mut **expr]));
        }
        Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr: _ }) if is_interval(expr) => {
            measure(when_then_expr.iter_mut().map(|(when, _)| &mut **when).chain([&mut **expr]));
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if ["nullif", "greatest", "least"].contains(&func.name()) =>
        {
            refuse(args.iter().find(|arg| is_interval(arg)))?;
        }
        Expr::InSubquery(InSubquery { expr, .. }) | Expr::SetComparison(SetComparison { expr, .. }) => {
            refuse(Some(expr.as_ref()).filter(|expr| is_interval(expr)))?;
        }
        Expr::AggregateFunction(AggregateFunction { func: _, params }) => {
            measure(params.order_by.iter_mut().map(|key| &mut key.expr).filter(|key| is_interval(key)));
        }
        Expr::WindowFunction(window) => {
            let WindowFunction { fun, params } = window.as_mut();
            refuse(params.args.iter().find(|arg| is_extreme(fun.name()) && is_interval(arg)))?;
            measure(params.order_by.iter_mut().map(|key| &mut key.expr).filter(|key| is_interval(key)));
        }
        _ => {}
    }
    Ok(())
}

/// As [`compare_by_length`], of two keys of a join.
pub fn keys_by_length(left: &mut Expr, right: &mut Expr, schemas: [&DFSchema; 2]) {
    if is_interval(left, schemas[0]) && is_interval(right, schemas[1]) {
        measure([left, right]);
    }
}

/// As [`compare_by_length`], of what a node sorts rows by.
///
/// # Errors
/// Where DISTINCT ON does, which compares and sorts by the same columns.
pub fn sort_by_length(node: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Sort(mut sort) => {
            measure(sort.expr.iter_mut().map(|key| &mut key.expr).filter(|key| is_interval(key, schema)));
            Ok(LogicalPlan::Sort(sort))
        }
        LogicalPlan::Distinct(Distinct::On(on)) => {
            let keys = on.sort_expr.iter().flatten().map(|key| &key.expr);
            refuse(on.on_expr.iter().chain(keys).find(|key| is_interval(key, schema)))?;
            Ok(LogicalPlan::Distinct(Distinct::On(on)))
        }
        other => Ok(other),
    }
}

fn is_extreme(function: &str) -> bool {
    ["min", "max"].contains(&function)
}

fn refuse(compared: Option<&Expr>) -> Result<()> {
    match compared {
        Some(_) => plan_err!(
            "INTERVALs of one length can differ in their parts, as 24 hours and a day do, and have no order of their own; compare \
             date_part('epoch', interval), their seconds"
        ),
        None => Ok(()),
    }
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| matches!(data_type, DataType::Interval(_)))
}

fn measure<'a>(parts: impl IntoIterator<Item = &'a mut Expr>) {
    for part in parts {
        let func = Arc::new(ScalarUDF::new_from_impl(Length::default()));
        *part = Expr::ScalarFunction(ScalarFunction { func, args: vec![std::mem::take(part)] });
    }
}

/// The length of an interval, in nanoseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    signature: Signature,
}

impl Default for Length {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        "interval_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(LENGTH)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(lengths(array)?)),
            ColumnarValue::Scalar(value) => {
                let lengths = lengths(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?))
            }
        }
    }
}

/// The lengths of intervals, as decimals of [`LENGTH`].
pub(super) fn lengths(intervals: &ArrayRef) -> Result<ArrayRef> {
    let intervals = cast(intervals, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let length = |months: i32, days: i32, nanoseconds: i64| {
        (i128::from(months) * DAYS_OF_MONTH + i128::from(days)) * NANOSECONDS_OF_DAY + i128::from(nanoseconds)
    };
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let lengths: Decimal128Array = intervals.unary(|value| length(value.months, value.days, value.nanoseconds));
    Ok(Arc::new(lengths.with_data_type(LENGTH)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::IntervalMonthDayNanoArray;
    use arrow::datatypes::{Decimal128Type, IntervalMonthDayNano};

    #[test]
    fn what_takes_as_long_is_as_long() {
        let of = |months, days, nanoseconds| {
            let interval = IntervalMonthDayNano::new(months, days, nanoseconds);
            let array: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![interval]));
            lengths(&array).unwrap().as_primitive::<Decimal128Type>().value(0)
        };
        let hour = 3_600_000_000_000;
        assert_eq!(of(0, 1, 0), of(0, 0, 24 * hour));
        assert_eq!(of(1, 0, 0), of(0, 30, 0));
        assert_eq!(of(1, -30, hour), of(0, 0, hour));
        assert!(of(0, 0, 25 * hour) > of(0, 1, 0));
        assert!(of(i32::MAX, i32::MAX, i64::MAX) > of(i32::MAX, i32::MAX, i64::MAX - 1));
        assert!(of(i32::MIN, i32::MIN, i64::MIN) < of(0, 0, 0));
    }
}
