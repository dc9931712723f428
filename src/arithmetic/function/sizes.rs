//! Texts and lists that a function would make too large: DataFusion 55 panics, or takes the memory of the machine.

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::ColumnarValue;

/// Most bytes of one function's values for the rows of a batch. Arrow's texts and lists have offsets of 31 bits.
const MOST_BYTES: i128 = 1 << 30;

/// Bytes of a list's item, at least.
const ITEM_BYTES: i128 = 8;

/// A negative length as 0, which DataFusion 55 does for constants alone.
pub fn without_negative(length: &ColumnarValue) -> ColumnarValue {
    match length {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(length))) if *length < 0 => {
            ColumnarValue::Scalar(ScalarValue::Int64(Some(0)))
        }
        ColumnarValue::Array(lengths) if lengths.data_type() == &DataType::Int64 => {
            let lengths: Int64Array = lengths.as_primitive::<Int64Type>().unary(|length| length.max(0));
            ColumnarValue::Array(std::sync::Arc::new(lengths))
        }
        other => other.clone(),
    }
}

/// That `lpad` and `rpad`, to a length in letters, make no more than that.
pub fn check_padded(name: &str, args: &[ColumnarValue], rows: usize) -> Result<()> {
    let [_, length, ..] = args else { return Ok(()) };
    check(name, each_row(length, rows, |_| 1)?)
}

/// That `repeat`, of a text so many times, makes no more than that.
pub fn check_repeated(name: &str, args: &[ColumnarValue], rows: usize) -> Result<()> {
    let [text, times] = args else { return Ok(()) };
    let texts = cast(&text.to_array(rows)?, &DataType::Utf8View)?;
    let texts = texts.as_string_view();
    check(name, each_row(times, rows, |row| if texts.is_null(row) { 0 } else { texts.value(row).len() as i128 })?)
}

/// That `array_repeat`, of a value so many times, makes no more than that.
pub fn check_repeated_items(name: &str, args: &[ColumnarValue], rows: usize) -> Result<()> {
    let [item, times] = args else { return Ok(()) };
    let bytes = match item {
        ColumnarValue::Scalar(item) => item.size() as i128,
        ColumnarValue::Array(items) => items.to_data().get_slice_memory_size()? as i128 / rows.max(1) as i128,
    };
    check(name, each_row(times, rows, |_| bytes.max(ITEM_BYTES))?)
}

/// That `array_resize`, of a list to a length, makes no more than that.
pub fn check_resized(name: &str, args: &[ColumnarValue], rows: usize) -> Result<()> {
    let [_, length, ..] = args else { return Ok(()) };
    check(name, each_row(length, rows, |_| ITEM_BYTES)?)
}

/// That `range` and `generate_series` of integers make no more than that.
pub fn check_series(name: &str, args: &[ColumnarValue], rows: usize) -> Result<()> {
    if args.iter().any(|arg| arg.data_type() != DataType::Int64) {
        return Ok(());
    }
    let arrays = args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
    let numbers: Vec<&Int64Array> = arrays.iter().map(|array| array.as_primitive::<Int64Type>()).collect();
    let count = |row: usize| {
        let value = |at: usize| numbers[at].is_valid(row).then(|| i128::from(numbers[at].value(row)));
        let (start, stop, step) = match numbers.len() {
            1 => (0, value(0)?, 1),
            2 => (value(0)?, value(1)?, 1),
            _ => (value(0)?, value(1)?, value(2)?),
        };
        (step != 0).then(|| ((stop - start) / step).max(0))
    };
    check(name, (0..rows).filter_map(count).sum::<i128>() * ITEM_BYTES)
}

/// The sum of `bytes` of each row times the number that `times` has there.
fn each_row(times: &ColumnarValue, rows: usize, bytes: impl Fn(usize) -> i128) -> Result<i128> {
    let times = cast(&times.to_array(rows)?, &DataType::Int64)?;
    let times = times.as_primitive::<Int64Type>().iter().enumerate();
    Ok(times.map(|(row, times)| i128::from(times.unwrap_or(0).max(0)) * bytes(row)).sum())
}

fn check(name: &str, bytes: i128) -> Result<()> {
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    exec_err!(
        "{name} would make {:.1} GiB of one batch of rows, and 1 GiB is the most; make the values smaller",
        bytes as f64 / MOST_BYTES as f64
    )
}
