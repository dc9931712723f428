//! Dates and timestamps moved by intervals with parts that are finer than they hold.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowFrame,
    WindowFrameBound, WindowFrameUnits,
};

use crate::arithmetic::cast::is_number_of_days;

/// What a date or a timestamp is a number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unit {
    Day,
    Second,
    Millisecond,
    Microsecond,
}

impl Unit {
    /// `None` for what holds all parts of an interval, and what none can move.
    fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Date32 | DataType::Date64 => Some(Self::Day),
            DataType::Timestamp(TimeUnit::Second, _) => Some(Self::Second),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Some(Self::Millisecond),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Some(Self::Microsecond),
            _ => None,
        }
    }

    fn nanoseconds(self) -> i64 {
        match self {
            Self::Day => 86_400_000_000_000,
            Self::Second => 1_000_000_000,
            Self::Millisecond => 1_000_000,
            Self::Microsecond => 1_000,
        }
    }

    /// The error for an interval with finer parts.
    fn too_fine(self, interval: &str) -> DataFusionError {
        let (moved, remedy) = match self {
            Self::Day => ("DATE, which has no time", "CAST the date to TIMESTAMP"),
            Self::Second => ("TIMESTAMP(0), which has whole seconds", "CAST it to TIMESTAMP(9)"),
            Self::Millisecond => ("TIMESTAMP(3), which has whole milliseconds", "CAST it to TIMESTAMP(9)"),
            Self::Microsecond => ("TIMESTAMP(6), which has whole microseconds", "CAST it to TIMESTAMP(9)"),
        };
        exec_datafusion_err!("an INTERVAL of {interval} can't move a {moved}; {remedy}")
    }

    /// Checks a constant.
    fn check(self, value: &ScalarValue) -> Result<()> {
        match value {
            ScalarValue::IntervalMonthDayNano(_) | ScalarValue::IntervalDayTime(_) => {
                check(self, &value.to_array()?).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// What `left` has to be beside `right`, operands of arithmetic of these types: itself, or an interval that fails where
/// it has parts that are finer than what it moves.
///
/// # Errors
/// Where a constant has.
pub fn in_unit(left: Expr, types: (&DataType, &DataType)) -> Result<Transformed<Expr>> {
    let (DataType::Interval(_), Some(unit)) = (types.0, Unit::of(types.1)) else { return Ok(Transformed::no(left)) };
    match &left {
        Expr::Literal(value, _) => unit.check(value).map(|()| Transformed::no(left)),
        days if is_number_of_days(days) || as_of_unit(days).is_some() => Ok(Transformed::no(left)),
        _ => {
            let func = Arc::new(ScalarUDF::new_from_impl(OfUnit::new(unit)));
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: vec![left] })))
        }
    }
}

/// The interval that must be in a unit, if an expression is one.
pub fn as_of_unit(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.inner().is::<OfUnit>() => args.first(),
        _ => None,
    }
}

/// Checks the bounds of a frame of rows that are sorted by a column of the type `key`.
///
/// # Errors
/// When one is an interval that is finer.
pub fn check_frame(frame: &WindowFrame, key: &DataType) -> Result<()> {
    let Some(unit) = Unit::of(key).filter(|_| frame.units == WindowFrameUnits::Range) else { return Ok(()) };
    for bound in [&frame.start_bound, &frame.end_bound] {
        match bound {
            WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => unit.check(value)?,
            WindowFrameBound::CurrentRow => {}
        }
    }
    Ok(())
}

/// An interval that has no parts finer than a unit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfUnit {
    unit: Unit,
    signature: Signature,
}

impl OfUnit {
    fn new(unit: Unit) -> Self {
        Self { unit, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OfUnit {
    fn name(&self) -> &str {
        match self.unit {
            Unit::Day => "whole_days",
            Unit::Second => "whole_seconds",
            Unit::Millisecond => "whole_milliseconds",
            Unit::Microsecond => "whole_microseconds",
        }
    }

    /// As the column would be named without it.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|interval| interval.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(check(self.unit, array)?)),
            ColumnarValue::Scalar(value) => {
                let interval = check(self.unit, &value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&interval, 0)?))
            }
        }
    }
}

/// The intervals, if none has a part that is finer than `unit`.
fn check(unit: Unit, intervals: &ArrayRef) -> Result<ArrayRef> {
    let intervals = cast(intervals, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let values = intervals.as_primitive::<IntervalMonthDayNanoType>();
    match values.iter().position(|value| value.is_some_and(|value| value.nanoseconds % unit.nanoseconds() != 0)) {
        Some(row) => Err(unit.too_fine(&array_value_to_string(&intervals, row)?)),
        None => Ok(intervals),
    }
}
