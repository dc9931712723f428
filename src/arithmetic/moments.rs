//! Dates and timestamps of different units that are compared, or become one column.
//!
//! Beside a timestamp, DataFusion 55 makes of a date one in nanoseconds, which end in 2262: a comparison with the year
//! 9999, which stands for "until further notice" in many tables, fails. Here a date has the unit of the timestamp
//! beside it. Where columns in nanoseconds are compared with those in a coarser unit, which may hold years that
//! nanoseconds don't reach, they are compared as decimals that hold all. What is compared with a constant has a form of
//! its own ([`compare`](crate::arithmetic::compare)).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Int64Type, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::arithmetic::compare::unit;

/// What [`by_nanoseconds`] compares by.
pub const NANOSECONDS_OF: &str = "nanoseconds_of";

/// The type that dates among these types have beside the timestamps, where DataFusion would give them nanoseconds and
/// none of the timestamps has; `None` where nothing is to change.
pub fn type_of_dates<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    beside_timestamps(types).filter(|data_type| matches!(data_type, DataType::Timestamp(_, None)))
}

/// As [`type_of_dates`], also beside instants: a date that is compared with one is midnight in UTC.
fn beside_timestamps<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    let (mut has_dates, mut finest, mut zones) = (false, None, [false; 2]);
    for data_type in types {
        match data_type {
            DataType::Date32 => has_dates = true,
            DataType::Timestamp(unit, zone) => {
                finest = finest.max(Some(*unit));
                zones[usize::from(zone.is_some())] = true;
            }
            DataType::Null => {}
            _ => return None,
        }
    }
    let finest = finest.filter(|unit| has_dates && *unit != TimeUnit::Nanosecond)?;
    match zones {
        [true, true] => None,
        [_, has_zone] => Some(DataType::Timestamp(finest, has_zone.then(|| "UTC".into()))),
    }
}

/// Casts dates to the unit of the timestamps beside them.
pub fn unify_dates(parts: &mut [&mut Expr], types: &[DataType]) {
    cast_dates(parts, types, type_of_dates(types));
}

/// As [`unify_dates`], of what is compared.
pub fn unify_compared_dates(parts: &mut [&mut Expr], types: &[DataType]) {
    cast_dates(parts, types, beside_timestamps(types));
}

fn cast_dates(parts: &mut [&mut Expr], types: &[DataType], wanted: Option<DataType>) {
    let Some(wanted) = wanted else { return };
    for (part, _) in parts.iter_mut().zip(types).filter(|(_, own)| **own == DataType::Date32) {
        **part = Expr::Cast(Cast::new(Box::new(std::mem::take(*part)), wanted.clone()));
    }
}

/// Makes decimals of what is compared, where columns in nanoseconds are with those in a coarser unit; whether it did.
pub fn by_nanoseconds(parts: &mut [&mut Expr], types: &[DataType]) -> bool {
    let has_zone = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(_)));
    let has_none = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, None));
    // A date is midnight in UTC beside an instant.
    let is_moment = |data_type: &DataType| *data_type == DataType::Date32 || has_zone(data_type) || has_none(data_type);
    if !types.iter().all(is_moment) || (types.iter().any(has_zone) && types.iter().any(has_none)) {
        return false;
    }
    let known = parts.iter().map(|part| is_constant(part));
    let units: Vec<_> = types.iter().zip(known).filter(|(_, is_known)| !is_known).map(|(own, _)| unit(own)).collect();
    let is_mixed = units.contains(&Some(1)) && units.iter().any(|unit| *unit != Some(1));
    if is_mixed {
        for part in parts.iter_mut() {
            **part = ScalarUDF::new_from_impl(NanosecondsOf::new()).call(vec![std::mem::take(*part)]);
        }
    }
    is_mixed
}

/// Whether an expression has no value of a row in it.
fn is_constant(expr: &Expr) -> bool {
    let is_of_rows = |part: &Expr| {
        Ok(matches!(
            part,
            Expr::Column(_) | Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_) | Expr::AggregateFunction(_)
        ))
    };
    // The closure never fails.
    !expr.exists(is_of_rows).unwrap_or(true)
}

/// A date or timestamp as the number of nanoseconds since 1970, a `DECIMAL(38, 0)`, which holds those of all years.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NanosecondsOf {
    signature: Signature,
}

impl NanosecondsOf {
    fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for NanosecondsOf {
    fn name(&self) -> &str {
        NANOSECONDS_OF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return internal_err!("{NANOSECONDS_OF} has {} arguments", args.args.len());
        };
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if is_scalar { 1 } else { args.number_rows })?;
        let Some(nanoseconds) = unit(values.data_type()) else {
            return internal_err!("{NANOSECONDS_OF} is of dates and timestamps, not of {}", values.data_type());
        };
        let units = cast(&values, &DataType::Int64)?;
        let decimals =
            units.as_primitive::<Int64Type>().unary::<_, Decimal128Type>(|units| i128::from(units) * nanoseconds);
        let decimals: ArrayRef = Arc::new(decimals.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?);
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&decimals, 0)?),
            false => ColumnarValue::Array(decimals),
        })
    }
}
