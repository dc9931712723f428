//! Numbers that are rounded to more digits than they have.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;

use crate::arithmetic::operator::out_of_range;

/// From which on an integer of 64 bits rounds to 10^19, which is none.
const HALF: u64 = 5_000_000_000_000_000_000;

/// `round` or `trunc` of `args`, which DataFusion 55 `computed` by a power of ten. Where that is infinite, the result
/// is the float itself, or 0 where all of its digits are cut off.
pub fn rounded(args: &[ColumnarValue], computed: ColumnarValue, rows: usize) -> Result<ColumnarValue> {
    let Some(value) = args.first() else { return Ok(computed) };
    if value.data_type() == DataType::Int64 {
        check_integers(args, rows)?;
    }
    if !value.data_type().is_floating() {
        return Ok(computed);
    }
    let is_scalar = matches!(computed, ColumnarValue::Scalar(_));
    let data_type = computed.data_type();
    let rounded = cast(&computed.to_array(rows)?, &DataType::Float64)?;
    let rounded = rounded.as_primitive::<Float64Type>();
    if rounded.iter().flatten().all(f64::is_finite) {
        return Ok(computed);
    }
    let values = cast(&value.to_array(rows)?, &DataType::Float64)?;
    let digits = digits(args, rows)?;
    let values = values.as_primitive::<Float64Type>().iter().zip(digits.iter());
    let right: Float64Array = rounded
        .iter()
        .zip(values)
        .map(|(rounded, (value, digits))| match (rounded, value, digits) {
            (Some(rounded), Some(value), Some(digits)) if !rounded.is_finite() && value.is_finite() => {
                Some(if digits > 0 { value } else { 0.0 })
            }
            _ => rounded,
        })
        .collect();
    let right = cast(&(Arc::new(right) as ArrayRef), &data_type)?;
    Ok(match is_scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&right, 0)?),
        false => ColumnarValue::Array(right),
    })
}

fn digits(args: &[ColumnarValue], rows: usize) -> Result<Int64Array> {
    Ok(match args.get(1) {
        Some(digits) => cast(&digits.to_array(rows)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
        None => Int64Array::from_value(0, rows),
    })
}

/// That none rounds to 10^19, for which DataFusion 55 gives 0.
fn check_integers(args: &[ColumnarValue], rows: usize) -> Result<()> {
    let digits = digits(args, rows)?;
    if !digits.iter().flatten().any(|digits| digits == -19) {
        return Ok(());
    }
    let values = args[0].to_array(rows)?;
    let mut each = values.as_primitive::<Int64Type>().iter().zip(digits.iter());
    match each.find(|(value, digits)| *digits == Some(-19) && value.is_some_and(|value| value.unsigned_abs() >= HALF)) {
        Some((value, _)) => Err(out_of_range(&format!("round({}, -19) is no BIGINT", value.unwrap_or_default()))),
        None => Ok(()),
    }
}
