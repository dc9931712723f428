//! Casts that keep their value or fail.
//!
//! Arrow's casts fail where a number does not fit its new type, but for these: a number too large for a float of
//! fewer bits becomes infinite, and TRY_CAST of a date in milliseconds to a finer timestamp wraps around. A number of
//! days that is added to a date goes through nanoseconds, which hold 292 years.
//!
//! A cast of a constant that fails is an error where its value counts. DataFusion fails wherever it folds the cast,
//! even in a branch of CASE that is never taken.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options, concat};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, internal_err, plan_datafusion_err};
use datafusion::functions::core::arrow_cast::ArrowCastFunc;
use datafusion::functions::core::arrow_try_cast::ArrowTryCastFunc;
use datafusion::functions::core::cast_to_type::CastToTypeFunc;
use datafusion::functions::core::try_cast_to_type::TryCastToTypeFunc;
use datafusion::logical_expr::expr::{Case, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use crate::arithmetic::checked::is_constant;
use crate::arithmetic::operator::out_of_range;

/// What takes the place of a cast over `schema` that may change its value; `None` for one that keeps it or fails.
pub fn checked_cast(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (value, to, is_try) = match expr {
        Expr::Cast(Cast { expr, field }) => (expr.as_ref(), field, false),
        Expr::TryCast(TryCast { expr, field }) => (expr.as_ref(), field, true),
        _ => return Ok(None),
    };
    if let Some(days) = added_days(expr) {
        return Ok(Some(call(Kept { how: How::Days, to: Arc::clone(to), signature: any() }, days.clone())));
    }
    if is_time(to.data_type()) && value.get_type(schema)?.is_string() {
        let how = if is_try { How::TryTime } else { How::Time };
        return Ok(Some(call(Kept { how, to: Arc::clone(to), signature: any() }, value.clone())));
    }
    // Arrow's casts to days and times fail for timestamps that are in no calendar.
    if is_try && to.data_type().is_temporal() && !matches!(to.data_type(), DataType::Timestamp(..)) {
        let is_timestamp = matches!(value.get_type(schema)?, DataType::Timestamp(..));
        let kept = || Kept { how: How::TryEach, to: Arc::clone(to), signature: any() };
        return Ok(is_timestamp.then(|| call(kept(), value.clone())));
    }
    let narrows = |from: &DataType| match to.data_type() {
        DataType::Float32 => matches!(from, DataType::Float64 | DataType::Decimal256(..)),
        DataType::Float16 => from.is_numeric() && *from != DataType::Float16,
        _ => false,
    };
    match to.data_type() {
        DataType::Float32 | DataType::Float16 if narrows(&value.get_type(schema)?) => {
            let how = if is_try { How::TryNarrow } else { How::Narrow };
            Ok(Some(call(Kept { how, to: Arc::clone(to), signature: any() }, value.clone())))
        }
        DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
            if is_try && value.get_type(schema)? == DataType::Date64 =>
        {
            // Dates in milliseconds are such timestamps, and the cast between timestamps is checked.
            let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
            let value = Expr::TryCast(TryCast::new(Box::new(value.clone()), milliseconds));
            Ok(Some(Expr::TryCast(TryCast { expr: Box::new(value), field: Arc::clone(to) })))
        }
        other if loses_digits(&value.get_type(schema)?, other) && !is_constant(value) => {
            let how = if is_try { How::TryDigits } else { How::Digits };
            Ok(Some(call(Kept { how, to: Arc::clone(to), signature: any() }, value.clone())))
        }
        DataType::Interval(_) if !is_try && !is_constant(value) && value.get_type(schema)?.is_string() => {
            Ok(Some(call(Kept { how: How::Unit, to: Arc::clone(to), signature: any() }, value.clone())))
        }
        other if !is_try && may_fail_in_vain(value, other) => {
            Ok(Some(call(Kept { how: How::Constant, to: Arc::clone(to), signature: any() }, value.clone())))
        }
        _ => Ok(None),
    }
}

/// Whether a cast makes one value of several decimals. DataFusion 55 takes `CAST(x AS DECIMAL(9, 0)) = 0` for `x = 0`.
pub fn loses_digits(from: &DataType, to: &DataType) -> bool {
    let scale = |data_type: &DataType| match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    };
    let kept = if to.is_integer() { Some(0) } else { scale(to) };
    scale(from).zip(kept).is_some_and(|(from, kept)| from > kept)
}

/// Whether a value is a constant whose cast to a type fails, or may fail once it is folded.
fn may_fail_in_vain(value: &Expr, to: &DataType) -> bool {
    match value {
        Expr::Literal(value, _) => value.cast_to(to).is_err(),
        // Durations are parts of what days that are added become.
        other => !matches!(to, DataType::Duration(_)) && is_constant(other),
    }
}

/// That no cast of a written constant in `expr` fails, of those that are evaluated wherever `expr` is.
///
/// # Errors
/// Arrow's, of the first one that fails.
pub fn check_certain_casts(expr: &Expr) -> Result<()> {
    let mut pending = vec![expr];
    while let Some(expr) = pending.pop() {
        match expr {
            Expr::Cast(Cast { expr: value, field }) => match value.as_ref() {
                // Timestamps that don't fit another unit may be compared exactly all the same.
                Expr::Literal(value, _)
                    if matches!(field.data_type(), DataType::Interval(_))
                        && value.try_as_str().flatten().is_some_and(has_no_unit) =>
                {
                    return Err(no_unit(value.try_as_str().flatten().unwrap_or_default()));
                }
                Expr::Literal(value, _) if value.data_type().is_string() || value.data_type().is_numeric() => {
                    let value = value.cast_to(field.data_type())?;
                    if is_time(field.data_type()) {
                        times_of_day(&value.to_array()?, false)?;
                    }
                }
                other => pending.push(other),
            },
            Expr::BinaryExpr(BinaryExpr { left: _, op: Operator::And | Operator::Or, right: _ }) => {}
            Expr::Case(Case { expr, when_then_expr, else_expr: _ }) => {
                pending.extend(expr.as_deref());
                pending.extend(when_then_expr.first().map(|(when, _)| when.as_ref()));
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) if func.short_circuits() => {
                pending.extend(args.first())
            }
            // Of rows that the filter keeps, and of items.
            Expr::AggregateFunction(function) if function.params.filter.is_some() => {}
            Expr::WindowFunction(function) if function.params.filter.is_some() => {}
            Expr::Lambda(_) => {}
            other => {
                other.apply_children(|part| {
                    pending.push(part);
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
        }
    }
    Ok(())
}

/// The cast that a call of one of DataFusion's functions for casts over `schema` means; `None` for other functions.
///
/// DataFusion makes casts of them only while it simplifies, and evaluates those of constants at once.
///
/// # Errors
/// DataFusion's, where the type of the result is none.
pub fn as_cast(function: &ScalarFunction, schema: &DFSchema) -> Result<Option<Expr>> {
    if !is_function_of_cast(function) {
        return Ok(None);
    }
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    Ok(match function.func.simplify(function.args.clone(), &context)? {
        ExprSimplifyResult::Simplified(cast) => Some(cast),
        ExprSimplifyResult::Original(_) => None,
    })
}

fn is_function_of_cast(function: &ScalarFunction) -> bool {
    let inner = function.func.inner();
    inner.is::<ArrowCastFunc>()
        || inner.is::<ArrowTryCastFunc>()
        || inner.is::<CastToTypeFunc>()
        || inner.is::<TryCastToTypeFunc>()
}

/// Whether [`checked_cast`] may replace an expression, or [`as_cast`].
pub fn may_be_replaced(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => is_function_of_cast(function),
        Expr::Cast(Cast { expr: value, field }) => {
            matches!(field.data_type(), DataType::Float16 | DataType::Float32)
                || may_fail_in_vain(value, field.data_type())
                || matches!(field.data_type(), DataType::Interval(_))
                || is_time(field.data_type())
                || field.data_type().is_decimal()
                || field.data_type().is_integer()
                || added_days(expr).is_some()
        }
        Expr::TryCast(TryCast { expr: _, field }) => {
            let to = field.data_type();
            matches!(to, DataType::Float16 | DataType::Float32)
                || to.is_temporal()
                || to.is_decimal()
                || to.is_integer()
        }
        _ => false,
    }
}

/// The number of days in what DataFusion makes of a number that is added to a date: seconds, as an interval.
fn added_days(expr: &Expr) -> Option<&Expr> {
    let inner = |expr, to: DataType| match expr {
        &Expr::Cast(Cast { ref expr, ref field }) if *field.data_type() == to => Some(expr.as_ref()),
        _ => None,
    };
    let duration = inner(expr, DataType::Interval(IntervalUnit::MonthDayNano))?;
    let (days, factor) = match inner(duration, DataType::Duration(TimeUnit::Second))? {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Multiply, right }) => (left, right),
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "checked_multiply" => match &args[..] {
            [left, right] => return is_seconds_of_day(right).then_some(left),
            _ => return None,
        },
        _ => return None,
    };
    is_seconds_of_day(factor).then_some(days)
}

/// Whether an interval is a number of days.
pub fn is_number_of_days(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function)
        if function.func.inner().downcast_ref::<Kept>().is_some_and(|kept| kept.how == How::Days))
}

fn is_seconds_of_day(factor: &Expr) -> bool {
    matches!(factor, Expr::Literal(ScalarValue::Int64(Some(86_400)), _))
}

/// DataFusion's cast in place of a checked one.
pub fn plain_cast(function: &ScalarFunction) -> Option<Expr> {
    let Kept { how, to, signature: _ } = function.func.inner().downcast_ref()?;
    let ([value], field) = (function.args.as_slice(), Arc::clone(to)) else { return None };
    let expr = Box::new(value.clone());
    match how {
        How::Narrow | How::Constant | How::Unit | How::Digits | How::Time => Some(Expr::Cast(Cast { expr, field })),
        How::TryNarrow | How::TryEach | How::TryDigits | How::TryTime => Some(Expr::TryCast(TryCast { expr, field })),
        How::Days => None,
    }
}

/// Whether a checked cast is one of a constant that has no value so far, and may be folded as DataFusion's next time.
pub fn is_unfolded_cast(function: &ScalarFunction) -> bool {
    let is_literal = matches!(function.args.as_slice(), [Expr::Literal(..)]);
    !is_literal && function.func.inner().downcast_ref::<Kept>().is_some_and(|kept| kept.how == How::Constant)
}

/// Whether a checked cast may fail for some rows. Of those of decimals to fewer digits nearly none does.
pub fn cast_may_fail(function: &ScalarFunction) -> bool {
    let kept: Option<&Kept> = function.func.inner().downcast_ref();
    kept.is_some_and(|kept| !matches!(kept.how, How::Digits | How::TryDigits))
}

/// Whether an expression is a checked cast.
pub fn is_checked_cast(function: &ScalarFunction) -> bool {
    function.func.inner().is::<Kept>()
}

fn any() -> Signature {
    Signature::any(1, Volatility::Immutable)
}

fn call(function: Kept, value: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction { func: Arc::new(ScalarUDF::new_from_impl(function)), args: vec![value] })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum How {
    /// To a float of fewer bits.
    Narrow,
    /// Likewise, NULL where it would be infinite.
    TryNarrow,
    /// To another type, NULL where that is not possible.
    TryEach,
    /// A number of days as an interval.
    Days,
    /// A text as an interval, which must say of what.
    Unit,
    /// Of a decimal to one with fewer digits behind the point, or none.
    Digits,
    /// Likewise, NULL where that is not possible.
    TryDigits,
    /// A text as a time of day. Arrow takes a second 60, and 23:59:60 is none.
    Time,
    /// Likewise, NULL where it is none.
    TryTime,
    /// Of a constant. It replaces DataFusion's cast while constants are folded; if its argument is a literal after
    /// that, the cast fails.
    Constant,
}

/// A cast that keeps its value or fails.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kept {
    how: How,
    to: FieldRef,
    signature: Signature,
}

impl ScalarUDFImpl for Kept {
    fn name(&self) -> &str {
        match self.how {
            How::Narrow | How::Constant | How::Unit | How::Digits | How::Time => "checked_cast",
            How::TryNarrow | How::TryEach | How::TryDigits | How::TryTime => "checked_try_cast",
            How::Days => "days",
        }
    }

    /// As DataFusion names a cast.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|value| value.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.to.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [value] = args.arg_fields else { return internal_err!("a cast has {} arguments", args.arg_fields.len()) };
        let is_nullable = value.is_nullable() || matches!(self.how, How::TryNarrow | How::TryEach | How::TryTime);
        // As DataFusion's cast has it: what the value says of itself, but of its type.
        let of_value = value.metadata().iter().filter(|(key, _)| !key.starts_with("ARROW:extension"));
        let metadata = of_value.chain(self.to.metadata()).map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Arc::new(Field::new(value.name(), self.to.data_type().clone(), is_nullable).with_metadata(metadata)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return internal_err!("a cast has {} arguments", args.args.len()) };
        let cast = |array: &ArrayRef| match (self.how, self.to.data_type()) {
            (How::Days, _) => days(array),
            (How::Unit, to) => with_units(array, to),
            (How::Digits | How::TryDigits, to) => {
                let options = CastOptions { safe: self.how == How::TryDigits, ..CastOptions::default() };
                Ok(cast_with_options(array, to, &options)?)
            }
            (How::TryEach, to) => each_or_null(array, to),
            (How::Time | How::TryTime, to) => {
                let is_try = self.how == How::TryTime;
                let options = CastOptions { safe: is_try, ..CastOptions::default() };
                times_of_day(&cast_with_options(array, to, &options)?, is_try)
            }
            (_, DataType::Float32) => narrowed::<Float32Type>(array, self.how, f32::is_infinite),
            (_, DataType::Float16) => narrowed::<Float16Type>(array, self.how, |value| value.is_infinite()),
            (_, other) => internal_err!("{other} is no float of fewer bits"),
        };
        match value {
            value if self.how == How::Constant => value.cast_to(self.to.data_type(), None),
            ColumnarValue::Array(array) => cast(array).map(ColumnarValue::Array),
            ColumnarValue::Scalar(scalar) => {
                let one = cast(&scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?))
            }
        }
    }
}

fn narrowed<T>(array: &ArrayRef, how: How, is_infinite: impl Fn(T::Native) -> bool) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
{
    let options = CastOptions { safe: how == How::TryNarrow, ..CastOptions::default() };
    let narrow = cast_with_options(array, &T::DATA_TYPE, &options)?;
    let narrow = narrow.as_primitive::<T>();
    if !narrow.iter().flatten().any(&is_infinite) {
        return Ok(Arc::new(narrow.clone()));
    }
    let wide = cast_with_options(array, &DataType::Float64, &options)?;
    let wide = wide.as_primitive::<Float64Type>();
    let mut lost = None;
    let kept: PrimitiveArray<T> = narrow
        .iter()
        .zip(wide.iter())
        .map(|(narrow, wide)| match (narrow, wide) {
            (Some(value), Some(wide)) if is_infinite(value) && wide.is_finite() => {
                lost = Some(wide);
                None
            }
            (value, _) => value,
        })
        .collect();
    match lost {
        Some(value) if how == How::Narrow => {
            let to = if T::DATA_TYPE == DataType::Float32 { "REAL" } else { "Float16" };
            Err(out_of_range(&format!("{value:e} does not fit {to}; CAST to DOUBLE")))
        }
        _ => Ok(Arc::new(kept)),
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

/// `times` that are before the end of the day; else an error, or NULL.
fn times_of_day(times: &ArrayRef, is_try: bool) -> Result<ArrayRef> {
    let (DataType::Time32(unit) | DataType::Time64(unit)) = times.data_type() else { return Ok(Arc::clone(times)) };
    let day = 86_400
        * match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        };
    let numbers = cast(times, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    if numbers.iter().flatten().all(|number| number < day) {
        return Ok(Arc::clone(times));
    }
    if !is_try {
        return Err(out_of_range("'23:59:60' is no time of day; the last one is '23:59:59.999999'"));
    }
    let kept: PrimitiveArray<Int64Type> = numbers.iter().map(|number| number.filter(|number| *number < day)).collect();
    let numbers = match times.data_type() {
        DataType::Time32(_) => cast(&kept, &DataType::Int32)?,
        _ => Arc::new(kept),
    };
    Ok(cast(&numbers, times.data_type())?)
}

/// The values as another type, NULL where one is in none.
fn each_or_null(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let cast = |array: &ArrayRef| cast_with_options(array, to, &CastOptions::default());
    if let Ok(all) = cast(array) {
        return Ok(all);
    }
    let null = new_null_array(to, 1);
    let each: Vec<ArrayRef> =
        (0..array.len()).map(|row| cast(&array.slice(row, 1)).unwrap_or_else(|_| Arc::clone(&null))).collect();
    Ok(concat(&each.iter().map(AsRef::as_ref).collect::<Vec<_>>())?)
}

/// The intervals that texts say. Arrow takes a number alone for months, and `INTERVAL '3'` is 3 seconds.
fn with_units(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let texts = cast(array, &DataType::Utf8View)?;
    if let Some(number) = texts.as_string_view().iter().flatten().find(|text| has_no_unit(text)) {
        return Err(no_unit(number));
    }
    Ok(cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })?)
}

fn has_no_unit(text: &str) -> bool {
    text.trim().parse::<f64>().is_ok()
}

fn no_unit(number: &str) -> DataFusionError {
    plan_datafusion_err!("the interval '{number}' has no unit; write '{number} days', or another one")
}

fn days(array: &ArrayRef) -> Result<ArrayRef> {
    let days = array.as_primitive::<Int64Type>().try_unary::<_, IntervalMonthDayNanoType, _>(|days| {
        let too_many = || out_of_range(&format!("{days} days are more than a date can be moved by"));
        Ok::<_, datafusion::common::DataFusionError>(IntervalMonthDayNano::new(
            0,
            i32::try_from(days).map_err(|_| too_many())?,
            0,
        ))
    })?;
    Ok(Arc::new(days))
}
