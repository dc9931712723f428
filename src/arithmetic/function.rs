//! DataFusion's functions of dates, timestamps and lists, which fail or are right where they would lose a value.
//!
//! | function | DataFusion 55 | here |
//! |---|---|---|
//! | `date_bin` | NULL where nanoseconds don't reach | right, or an error |
//! | `date_trunc` | an error there | right, but for zones whose rules are not known then |
//! | `date_part` | NULL for years that have no calendar | an error |
//! | `to_timestamp` of a float | the last timestamp for too large ones, 1970 for NaN | an error |
//! | `to_timestamp_micros` and others of a text | an error where nanoseconds don't reach | right |
//! | `range`, `generate_series` as lists of timestamps | end one early at the last ones | an error |
//! | `array_has_all`, `array_has_any` | true or false where one of the lists is NULL | NULL |
//! | `date_trunc` to less than a second of a scalar before 1970 | later than it | right |
//! | `array_has` of a list in the query with a NULL in it | NULL where the value is not in it | false |
//! | `lpad`, `rpad` to a negative length | a panic | an empty text |
//! | `repeat`, `lpad`, `array_repeat`, `range` and the like of gigabytes | a panic, or all memory | an error |
//! | `round` and `trunc` of a float to more digits than it has | infinite, or not a number | the float |
//! | `range` and `generate_series` of constants, of more than a million values | a list in the plan, however large | an error while planning |

mod rounded;
mod sizes;

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Float64Type, Int64Type, IntervalMonthDayNanoType, TimeUnit, TimestampNanosecondType,
};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::functions::datetime::date_bin::DateBinFunc;
use datafusion::functions::datetime::date_part::DatePartFunc;
use datafusion::functions::datetime::date_trunc::DateTruncFunc;
use datafusion::functions::datetime::to_timestamp::{
    ToTimestampFunc, ToTimestampMicrosFunc, ToTimestampMillisFunc, ToTimestampSecondsFunc,
};
use datafusion::functions::math::round::RoundFunc;
use datafusion::functions::math::trunc::TruncFunc;
use datafusion::functions::string::repeat::RepeatFunc;
use datafusion::functions::unicode::lpad::LPadFunc;
use datafusion::functions::unicode::rpad::RPadFunc;
use datafusion::functions_nested::array_has::{ArrayHas, ArrayHasAll, ArrayHasAny};
use datafusion::functions_nested::range::Range;
use datafusion::functions_nested::repeat::ArrayRepeat;
use datafusion::functions_nested::resize::ArrayResize;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::arithmetic::operator::out_of_range;

/// The checked form of one of DataFusion's functions; `None` for those that need none.
pub fn checked_function(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    let inner = function.inner();
    let how = if inner.is::<DateBinFunc>() {
        How::Bin
    } else if inner.is::<DateTruncFunc>() {
        How::Truncate
    } else if inner.is::<DatePartFunc>() {
        How::Part
    } else if inner.is::<ToTimestampFunc>() {
        How::FromFloat
    } else if inner.is::<ToTimestampSecondsFunc>()
        || inner.is::<ToTimestampMillisFunc>()
        || inner.is::<ToTimestampMicrosFunc>()
    {
        How::FromText
    } else if inner.is::<Range>() {
        How::Series
    } else if inner.is::<ArrayHas>() {
        How::OneList
    } else if inner.is::<RoundFunc>() || inner.is::<TruncFunc>() {
        How::Round
    } else if inner.is::<LPadFunc>() || inner.is::<RPadFunc>() {
        How::Pad
    } else if inner.is::<RepeatFunc>() {
        How::Repeat
    } else if inner.is::<ArrayRepeat>() {
        How::RepeatItem
    } else if inner.is::<ArrayResize>() {
        How::Resize
    } else if inner.is::<ArrayHasAll>() || inner.is::<ArrayHasAny>() {
        How::TwoLists
    } else {
        return None;
    };
    Some(Arc::new(ScalarUDF::new_from_impl(CheckedFunction { of: Arc::clone(function), how })))
}

/// One of these functions in the checked form that gives NULL where it fails, for predicates that are evaluated for
/// rows that the query itself never looks at; `None` for other functions.
pub fn lenient_function(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    // Of the checked form, which is right where DataFusion's fails: chunks must see the values that the query computes.
    let lenient = CheckedFunction { of: checked_function(function)?, how: How::Lenient };
    Some(Arc::new(ScalarUDF::new_from_impl(lenient)))
}

/// Whether an expression over `schema` is a checked function that may fail for some rows.
pub fn may_fail(function: &ScalarFunction, schema: &DFSchema) -> bool {
    let Some(checked) = function.func.inner().downcast_ref::<CheckedFunction>() else { return false };
    // Dates without a time have all their parts.
    let is_date = |arg: &Expr| arg.get_type(schema).is_ok_and(|data_type| data_type == DataType::Date32);
    let is_safe = |arg: &Expr| matches!(arg, Expr::Literal(..)) || is_date(arg);
    let never_fails = matches!(checked.how, How::Lenient | How::OneList | How::TwoLists | How::Round);
    !never_fails && !function.args.iter().all(is_safe)
}

/// DataFusion's function in place of its checked form.
pub fn plain_function(function: &ScalarFunction) -> Option<Arc<ScalarUDF>> {
    let checked = function.func.inner().downcast_ref::<CheckedFunction>()?;
    (checked.how != How::Lenient).then(|| Arc::clone(&checked.of))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum How {
    Bin,
    Truncate,
    Part,
    FromFloat,
    FromText,
    Series,
    OneList,
    TwoLists,
    Round,
    Pad,
    Repeat,
    RepeatItem,
    Resize,
    /// NULL for rows for which the function fails.
    Lenient,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedFunction {
    of: Arc<ScalarUDF>,
    how: How,
}

impl CheckedFunction {
    fn inner(&self) -> &dyn ScalarUDFImpl {
        self.of.inner().as_ref()
    }
}

impl ScalarUDFImpl for CheckedFunction {
    fn name(&self) -> &str {
        self.of.name()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.of.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner().return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner().return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner().is_strict()
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if self.how == How::Series {
            let literal = |arg: &Expr| match arg {
                Expr::Literal(value, _) => Some(ColumnarValue::Scalar(value.clone())),
                _ => None,
            };
            // A constant that fails where it is evaluated would stay in the plan.
            if let Some(args) = args.iter().map(literal).collect::<Option<Vec<_>>>() {
                check_length(self.name(), &args)?;
            }
        }
        // Where it makes `value IN (…)` of it, a NULL in the list counts.
        if self.how == How::OneList && !args.first().is_some_and(|list| has_only_values(list, info)) {
            return Ok(ExprSimplifyResult::Original(args));
        }
        self.inner().simplify(args, info)
    }

    fn preimage(
        &self,
        args: &[Expr],
        lit_expr: &Expr,
        info: &SimplifyContext,
    ) -> Result<datafusion::logical_expr::preimage::PreimageResult> {
        self.inner().preimage(args, lit_expr, info)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner().evaluate_bounds(input)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner().output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner().preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner().coerce_types(arg_types)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        match (self.how, args.args.as_mut_slice()) {
            // Scalars go another way.
            (How::Truncate, [_, value @ ColumnarValue::Scalar(_)]) => {
                *value = ColumnarValue::Array(value.to_array(1)?);
                args.number_rows = 1;
                let truncated = self.invoke_with_args(args)?.to_array(1)?;
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&truncated, 0)?));
            }
            (How::Pad, [_, length, ..]) => *length = sizes::without_negative(length),
            _ => {}
        }
        let given = args.args.clone();
        let result = Arc::clone(&args.return_field);
        match self.how {
            How::Pad => sizes::check_padded(self.name(), &given, rows)?,
            How::Repeat => sizes::check_repeated(self.name(), &given, rows)?,
            How::RepeatItem => sizes::check_repeated_items(self.name(), &given, rows)?,
            How::Resize => sizes::check_resized(self.name(), &given, rows)?,
            How::FromFloat => check_floats(&given, rows)?,
            How::Series => {
                check_length(self.name(), &given)?;
                sizes::check_series(self.name(), &given, rows)?;
                check_series(&given, rows)?;
            }
            How::Bin => check_bins(&given)?,
            _ => {}
        }
        let computed = self.inner().invoke_with_args(args);
        match (self.how, computed) {
            (How::Bin | How::Part, Ok(computed)) => {
                let Some(value) = given.get(1) else { return Ok(computed) };
                match has_new_nulls(value, &computed) {
                    true if self.how == How::Bin => binned(&given, rows),
                    true => Err(out_of_range("date_part of a timestamp that is in no calendar")),
                    false => Ok(computed),
                }
            }
            (How::Round, Ok(computed)) => rounded::rounded(&given, computed, rows),
            (How::TwoLists, Ok(computed)) => null_where_one_is(&given, computed, rows),
            (How::Truncate, Err(error)) => truncated_far(self.inner(), &given, rows, &result)?.ok_or(error),
            (How::Lenient, Err(_)) => row_by_row(self.inner(), &given, rows, &result),
            (How::FromText, Err(error)) => match given.as_slice() {
                [text] if text.data_type().is_string() => text.cast_to(result.data_type(), None).map_err(|_| error),
                _ => Err(error),
            },
            (_, computed) => computed,
        }
    }
}

/// Whether a list is written with values and without NULLs.
fn has_only_values(list: &Expr, info: &SimplifyContext) -> bool {
    match list {
        Expr::Literal(ScalarValue::List(list), _) => !list.is_empty() && has_no_nulls(list.value(0).as_ref()),
        Expr::Literal(ScalarValue::LargeList(list), _) => !list.is_empty() && has_no_nulls(list.value(0).as_ref()),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let is_value = |item: &Expr| info.nullable(item).is_ok_and(|is_nullable| !is_nullable);
            func.name() == "make_array" && !args.is_empty() && args.iter().all(is_value)
        }
        _ => false,
    }
}

fn has_no_nulls(items: &dyn Array) -> bool {
    !items.is_empty() && items.logical_null_count() == 0
}

/// What is computed of two lists, NULL where one of them is.
fn null_where_one_is(lists: &[ColumnarValue], computed: ColumnarValue, rows: usize) -> Result<ColumnarValue> {
    let has_nulls = |list: &ColumnarValue| match list {
        ColumnarValue::Array(list) => list.null_count() > 0,
        ColumnarValue::Scalar(list) => list.is_null(),
    };
    if !lists.iter().any(has_nulls) {
        return Ok(computed);
    }
    let mut nulls = None;
    for list in lists {
        nulls = NullBuffer::union(nulls.as_ref(), list.to_array(rows)?.nulls());
    }
    let computed = computed.into_array(rows)?;
    let nulls = NullBuffer::union(nulls.as_ref(), computed.nulls());
    Ok(ColumnarValue::Array(Arc::new(BooleanArray::new(computed.as_boolean().values().clone(), nulls))))
}

/// The function for each row, NULL where it fails.
fn row_by_row(
    function: &dyn ScalarUDFImpl,
    args: &[ColumnarValue],
    rows: usize,
    result: &FieldRef,
) -> Result<ColumnarValue> {
    let null = ScalarValue::try_from(result.data_type())?;
    let fields: Vec<_> = args.iter().map(|arg| Arc::new(Field::new("", arg.data_type(), true))).collect();
    let value = |row: usize| -> Result<ScalarValue> {
        let arg = |arg: &ColumnarValue| match arg {
            ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row).map(ColumnarValue::Scalar),
            ColumnarValue::Scalar(_) => Ok(arg.clone()),
        };
        let computed = function.invoke_with_args(ScalarFunctionArgs {
            args: args.iter().map(arg).collect::<Result<_>>()?,
            arg_fields: fields.clone(),
            number_rows: 1,
            return_field: Arc::clone(result),
            config_options: Arc::default(),
        });
        match computed {
            Ok(ColumnarValue::Scalar(value)) => Ok(value),
            Ok(ColumnarValue::Array(array)) => ScalarValue::try_from_array(&array, 0),
            Err(_) => Ok(null.clone()),
        }
    };
    if args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
        return value(0).map(ColumnarValue::Scalar);
    }
    let values = (0..rows).map(value).collect::<Result<Vec<_>>>()?;
    Ok(ColumnarValue::Array(match values.is_empty() {
        true => arrow::array::new_empty_array(result.data_type()),
        false => ScalarValue::iter_to_array(values)?,
    }))
}

/// Whether some value that is not NULL became so.
fn has_new_nulls(before: &ColumnarValue, after: &ColumnarValue) -> bool {
    match (before, after) {
        (ColumnarValue::Array(before), ColumnarValue::Array(after)) => after.null_count() > before.logical_null_count(),
        (ColumnarValue::Scalar(before), ColumnarValue::Scalar(after)) => after.is_null() && !before.is_null(),
        (ColumnarValue::Scalar(before), ColumnarValue::Array(after)) => after.null_count() > 0 && !before.is_null(),
        (ColumnarValue::Array(before), ColumnarValue::Scalar(after)) => {
            after.is_null() && before.logical_null_count() < before.len()
        }
    }
}

/// Nanoseconds of a unit.
fn nanoseconds(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// `number`, of the values of a timestamp that are not NULL, as a timestamp of the same type.
fn of_numbers(value: &ColumnarValue, rows: usize, number: impl Fn(i64) -> Result<i64>) -> Result<ColumnarValue> {
    let data_type = value.data_type();
    let numbers = cast(&value.to_array(rows)?, &DataType::Int64)?;
    let numbers: Int64Array = numbers.as_primitive::<Int64Type>().try_unary(number)?;
    let values = cast(&(Arc::new(numbers) as ArrayRef), &data_type)?;
    match value {
        ColumnarValue::Array(_) => Ok(ColumnarValue::Array(values)),
        ColumnarValue::Scalar(_) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)),
    }
}

/// Nanoseconds of the stride of `date_bin`; `None` for one of months.
fn stride_of(stride: &ScalarValue) -> Option<i128> {
    match stride {
        ScalarValue::IntervalMonthDayNano(Some(stride)) if stride.months == 0 => {
            Some(i128::from(stride.days) * 86_400_000_000_000 + i128::from(stride.nanoseconds))
        }
        ScalarValue::IntervalDayTime(Some(stride)) => {
            Some(i128::from(stride.days) * 86_400_000_000_000 + i128::from(stride.milliseconds) * 1_000_000)
        }
        _ => None,
    }
}

/// Nanoseconds of the origin of `date_bin`; `None` where there is none in nanoseconds.
fn origin_of(args: &[ColumnarValue]) -> Option<i128> {
    match args.get(2) {
        None => Some(0),
        Some(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(origin), _))) => Some(i128::from(*origin)),
        Some(_) => None,
    }
}

/// Fails where bins of `date_bin` begin between two timestamps of the value's type, which DataFusion cuts off.
fn check_bins(args: &[ColumnarValue]) -> Result<()> {
    let [ColumnarValue::Scalar(stride), value, ..] = args else { return Ok(()) };
    let (Some(stride), Some(origin)) = (stride_of(stride), origin_of(args)) else { return Ok(()) };
    let DataType::Timestamp(unit, _) = value.data_type() else { return Ok(()) };
    let unit = nanoseconds(unit);
    // Each timestamp begins a bin where the stride divides its unit.
    let is_between = stride > 0 && (origin % unit != 0 || (stride % unit != 0 && unit % stride != 0));
    match is_between {
        true => {
            Err(out_of_range("date_bin of bins that begin between two values of its type; CAST it to TIMESTAMP(9)"))
        }
        false => Ok(()),
    }
}

/// `date_bin(stride, value, origin)` of timestamps of any year.
fn binned(args: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let (Some(ColumnarValue::Scalar(stride)), Some(value)) = (args.first(), args.get(1)) else {
        return Err(out_of_range("date_bin of a timestamp"));
    };
    let stride = stride_of(stride).unwrap_or(0);
    let origin = origin_of(args).ok_or_else(|| out_of_range("date_bin of a timestamp"))?;
    let DataType::Timestamp(unit, _) = value.data_type() else { return Err(out_of_range("date_bin of a time")) };
    if stride <= 0 {
        let what = "date_bin by months reaches from 1677 to 2262; use date_trunc, or cast the timestamp to DATE before";
        return Err(out_of_range(what));
    }
    let unit = nanoseconds(unit);
    of_numbers(value, rows, |value| {
        let start = origin + (i128::from(value) * unit - origin).div_euclid(stride) * stride;
        i64::try_from(start / unit).map_err(|_| out_of_range("date_bin of the first or last timestamps of a type"))
    })
}

/// `date_trunc(part, value)` of timestamps that nanoseconds don't reach; `None` where that is not known.
///
/// The calendar repeats after 400 years, with its weeks.
fn truncated_far(
    function: &dyn ScalarUDFImpl,
    args: &[ColumnarValue],
    rows: usize,
    result: &FieldRef,
) -> Result<Option<ColumnarValue>> {
    const DAYS_OF_CYCLE: i128 = 146_097;
    /// 1700-01-01, from which a cycle is within what nanoseconds reach.
    const FIRST_DAY: i128 = -98_615;
    let [part, value] = args else { return Ok(None) };
    let DataType::Timestamp(unit, zone) = value.data_type() else { return Ok(None) };
    // Of other zones nobody knows which rules they have then, nor whether those repeat.
    let is_fixed = zone.is_none_or(|zone| {
        zone.starts_with(['+', '-']) || ["UTC", "GMT", "Etc/UTC"].iter().any(|name| zone.eq_ignore_ascii_case(name))
    });
    if unit == TimeUnit::Nanosecond || !is_fixed {
        return Ok(None);
    }
    let day = 86_400_000_000_000 / nanoseconds(unit);
    let cycle = DAYS_OF_CYCLE * day;
    let shift = |value: i64| (i128::from(value) - FIRST_DAY * day).div_euclid(cycle) * cycle;
    // Both are in range: a cycle is, and what is cut off is less than a year.
    let near = of_numbers(value, rows, |value| Ok((i128::from(value) - shift(value)) as i64))?;
    let field = |value: &ColumnarValue| Arc::new(Field::new("", value.data_type(), true));
    let truncated = function.invoke_with_args(ScalarFunctionArgs {
        arg_fields: vec![field(part), field(&near)],
        args: vec![part.clone(), near],
        number_rows: rows,
        return_field: Arc::clone(result),
        config_options: Arc::default(),
    })?;
    let far = cast(&value.to_array(rows)?, &DataType::Int64)?;
    let near = cast(&truncated.to_array(rows)?, &DataType::Int64)?;
    let back = |(far, near): (Option<i64>, Option<i64>)| match (far, near) {
        (Some(far), Some(near)) => i64::try_from(i128::from(near) + shift(far))
            .map(Some)
            .map_err(|_| out_of_range("date_trunc of the first timestamps of a type")),
        _ => Ok(None),
    };
    let numbers = far.as_primitive::<Int64Type>().iter().zip(near.as_primitive::<Int64Type>().iter()).map(back);
    let numbers: Int64Array = numbers.collect::<Result<_>>()?;
    let values = cast(&(Arc::new(numbers) as ArrayRef), &value.data_type())?;
    Ok(Some(match value {
        ColumnarValue::Array(_) => ColumnarValue::Array(values),
        ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
    }))
}

/// That floats are seconds that nanoseconds reach.
fn check_floats(args: &[ColumnarValue], rows: usize) -> Result<()> {
    const MOST_SECONDS: f64 = (i64::MAX / 1_000_000_000) as f64;
    let [value] = args else { return Ok(()) };
    if !value.data_type().is_floating() {
        return Ok(());
    }
    let seconds = cast(&value.to_array(rows)?, &DataType::Float64)?;
    let wrong = seconds.as_primitive::<Float64Type>().iter().flatten().find(|value| {
        // NaN is neither.
        !(-MOST_SECONDS..=MOST_SECONDS).contains(value)
    });
    match wrong {
        Some(value) => {
            let rule = "to_timestamp reaches from 1677 to 2262";
            Err(out_of_range(&format!("to_timestamp({value:e}): {rule}; use to_timestamp_seconds for later ones")))
        }
        None => Ok(()),
    }
}

/// That a list of constants is not so long that it should be rows.
fn check_length(name: &str, args: &[ColumnarValue]) -> Result<()> {
    const MOST_VALUES: i128 = 1_000_000;
    let value = |arg: &ColumnarValue| match arg {
        ColumnarValue::Scalar(value) => place_of(value),
        ColumnarValue::Array(_) => None,
    };
    let Some(places) = args.iter().map(value).collect::<Option<Vec<_>>>() else { return Ok(()) };
    let (start, stop, step) = match places.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] if *step != 0 => (*start, *stop, *step),
        _ => return Ok(()),
    };
    let count = (stop - start) / step;
    if count <= MOST_VALUES {
        return Ok(());
    }
    let is_number = args.iter().all(|arg| arg.data_type().is_integer());
    let written = places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let written = if is_number { written } else { "start, stop, step".to_string() };
    plan_err!(
        "`{name}` of constants is a list of {count} values, and {MOST_VALUES} are the most; write FROM {name}({written}) AS \
         name(column), which gives them row by row"
    )
}

/// A number, or the nanoseconds of a date, a timestamp or an interval, whose months count 30 days; `None` for NULL and
/// other types.
fn place_of(value: &ScalarValue) -> Option<i128> {
    const DAY: i128 = 86_400_000_000_000;
    match value {
        ScalarValue::Int64(value) => value.map(i128::from),
        ScalarValue::Date32(value) => value.map(|days| i128::from(days) * DAY),
        ScalarValue::Date64(value) => value.map(|ms| i128::from(ms) * nanoseconds(TimeUnit::Millisecond)),
        ScalarValue::TimestampSecond(value, _) => value.map(|value| i128::from(value) * nanoseconds(TimeUnit::Second)),
        ScalarValue::TimestampMillisecond(value, _) => {
            value.map(|value| i128::from(value) * nanoseconds(TimeUnit::Millisecond))
        }
        ScalarValue::TimestampMicrosecond(value, _) => {
            value.map(|value| i128::from(value) * nanoseconds(TimeUnit::Microsecond))
        }
        ScalarValue::TimestampNanosecond(value, _) => value.map(i128::from),
        ScalarValue::IntervalMonthDayNano(value) => value.map(|interval| {
            (i128::from(interval.months) * 30 + i128::from(interval.days)) * DAY + i128::from(interval.nanoseconds)
        }),
        _ => None,
    }
}

/// That a series of timestamps does not end where a step more would be out of range: DataFusion leaves its last one out then.
fn check_series(args: &[ColumnarValue], rows: usize) -> Result<()> {
    let [_, stop, step] = args else { return Ok(()) };
    let DataType::Timestamp(_, zone) = stop.data_type() else { return Ok(()) };
    let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
    let (stop, step) = (cast(&stop.to_array(rows)?, &nanoseconds)?, step.to_array(rows)?);
    let zone: Tz = zone.as_deref().unwrap_or("+00:00").parse()?;
    let steps = step.as_primitive::<IntervalMonthDayNanoType>();
    for (stop, step) in stop.as_primitive::<TimestampNanosecondType>().iter().zip(steps.iter()) {
        if let (Some(stop), Some(step)) = (stop, step)
            && TimestampNanosecondType::add_month_day_nano(stop, step, zone).is_none()
        {
            let what = "a series of timestamps must end a step before the year 2262, or after 1677";
            return Err(out_of_range(what));
        }
    }
    Ok(())
}
