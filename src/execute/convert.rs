//! Values in another type, each the same value or an error: never rounded, cut off, wrapped or NULL.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait, StructArray,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast, cast_with_options, take};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::execute::text::text_column;

/// Why values are not in another type.
#[derive(Debug)]
pub enum NotConverted {
    /// A value has no equal in the other type.
    Value {
        /// The value as arrow shows it.
        shown: String,
    },
    /// One type does not stand for the other.
    Types(ArrowError),
}

impl From<ArrowError> for NotConverted {
    fn from(error: ArrowError) -> Self {
        Self::Types(error)
    }
}

/// The column with the type `to`, its values the same: in another encoding, unit or width, as text, or of a text.
///
/// Structs are converted by the names of their fields; one that is missing is NULL. Text becomes other types as
/// [`crate::execute::text`] says.
///
/// # Errors
/// [`NotConverted`], with the first value that has no equal.
pub fn convert(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, NotConverted> {
    let column = &decoded(column)?;
    let given = column.data_type();
    if given == to {
        return Ok(Arc::clone(column));
    }
    match (given, to) {
        (DataType::Null, _) => Ok(new_null_array(to, column.len())),
        (DataType::Struct(_), DataType::Struct(fields)) => convert_struct(column.as_struct(), fields),
        (DataType::Map(..), DataType::Map(entries, is_sorted)) => convert_map(column.as_map(), entries, *is_sorted),
        (given, to) if given.is_list() && to.is_list() => convert_list(column, to),
        (given, to) if given.is_string() && !to.is_string() => parsed(column, to),
        (given, to) => {
            // A value that has no place in the other type must not become NULL.
            let fails = CastOptions { safe: false, ..CastOptions::default() };
            match cast_with_options(column, to, &fails) {
                Ok(cast) if keeps_values(given, to) => Ok(cast),
                Ok(cast) => verified(column, cast),
                Err(error) => Err(first_that_fails(column, to, error)),
            }
        }
    }
}

/// The values themselves, where a column is a dictionary of them: arrow's cast of one to a view loses NULLs among its
/// values.
fn decoded(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        return decoded(&take(dictionary.values().as_ref(), dictionary.keys(), None)?);
    }
    match column.data_type() {
        DataType::RunEndEncoded(_, values) => decoded(&cast(column, values.data_type())?),
        DataType::ListView(item) => Ok(cast(column, &DataType::List(Arc::clone(item)))?),
        DataType::LargeListView(item) => Ok(cast(column, &DataType::LargeList(Arc::clone(item)))?),
        _ => Ok(Arc::clone(column)),
    }
}

/// Whether a cast from one type to the other can't change a value; it may still fail.
fn keeps_values(given: &DataType, to: &DataType) -> bool {
    match (given, to) {
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => from <= to,
        (DataType::Time32(from) | DataType::Time64(from), DataType::Time32(to) | DataType::Time64(to)) => from <= to,
        (DataType::Date32, DataType::Timestamp(_, None)) => true,
        (given, to) if given.is_integer() && to.is_integer() => true,
        (given, to) if given.is_floating() && to.is_floating() => given.primitive_width() <= to.primitive_width(),
        (given, to) if given.is_string() || to.is_string() => true,
        (given, to) => is_binary(given) && is_binary(to),
    }
}

fn is_binary(data_type: &DataType) -> bool {
    data_type.is_binary() || matches!(data_type, DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// `cast`, if casting it back gives the column again.
fn verified(column: &ArrayRef, cast_column: ArrayRef) -> Result<ArrayRef, NotConverted> {
    // A value that can't be cast back is NULL here, and differs.
    let back = cast(&cast_column, column.data_type())?;
    let is_equal = not_distinct(column, &back)?;
    match (0..is_equal.len()).find(|row| !is_equal.value(*row)) {
        None => Ok(cast_column),
        Some(row) => Err(value(column, row)),
    }
}

/// The first value that becomes NULL where failing ones do.
fn first_that_fails(column: &ArrayRef, to: &DataType, error: ArrowError) -> NotConverted {
    let Ok(safe) = cast(column, to) else { return NotConverted::Types(error) };
    match (0..column.len()).find(|row| safe.is_null(*row) && !column.is_null(*row)) {
        Some(row) => value(column, row),
        None => NotConverted::Types(error),
    }
}

fn value(column: &ArrayRef, row: usize) -> NotConverted {
    let shown = ArrayFormatter::try_new(column, &FormatOptions::default())
        .map_or_else(|_| "a value".to_string(), |shown| shown.value(row).to_string());
    NotConverted::Value { shown }
}

fn parsed(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, NotConverted> {
    let no_type = || ArrowError::CastError(format!("text is not read as {to}"));
    let mut parsed = text_column(to, column.len()).ok_or_else(no_type)?;
    let texts = cast(column, &DataType::Utf8View)?;
    for (row, text) in texts.as_string_view().iter().enumerate() {
        parsed.append(text).map_err(|_| value(column, row))?;
    }
    Ok(parsed.finish())
}

fn convert_struct(column: &StructArray, fields: &Fields) -> Result<ArrayRef, NotConverted> {
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        columns.push(match column.column_by_name(field.name()) {
            Some(child) => convert(child, field.data_type())?,
            None => new_null_array(field.data_type(), column.len()),
        });
    }
    let nulls = column.nulls().cloned();
    Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, column.len())?))
}

fn convert_map(column: &MapArray, entries: &FieldRef, is_sorted: bool) -> Result<ArrayRef, NotConverted> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(ArrowError::CastError(format!("{entries} is not a map's entries")).into());
    };
    // Keys and values, whatever they are called.
    let (first, length) = extent(column.offsets());
    let entries_of = column.entries().slice(first, length);
    let columns = entries_of.columns().iter().zip(fields);
    let columns = columns.map(|(child, field)| convert(child, field.data_type())).collect::<Result<Vec<_>, _>>()?;
    let converted = StructArray::try_new(fields.clone(), columns, None)?;
    let (offsets, nulls) = (OffsetBuffer::from_lengths(column.offsets().lengths()), column.nulls().cloned());
    Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, converted, nulls, is_sorted)?))
}

fn convert_list(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, NotConverted> {
    let (DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)) = to else {
        return Err(ArrowError::CastError(format!("lists are not stored as {to}")).into());
    };
    let items: ArrayRef = match column.data_type() {
        DataType::List(_) => with_items(column.as_list::<i32>(), item)?,
        DataType::LargeList(_) => with_items(column.as_list::<i64>(), item)?,
        DataType::FixedSizeList(_, length) => {
            let list = column.as_fixed_size_list();
            let values = convert(list.values(), item.data_type())?;
            Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *length, values, list.nulls().cloned())?)
        }
        other => return Err(ArrowError::CastError(format!("{other} is not a list")).into()),
    };
    Ok(if items.data_type() == to {
        items
    } else {
        cast_with_options(&items, to, &CastOptions { safe: false, ..CastOptions::default() })?
    })
}

/// Where the items of the lists begin, and how many they are: those of other rows of a larger array are not converted.
fn extent<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (usize, usize) {
    let first = offsets.first().map_or(0, |first| first.as_usize());
    (first, offsets.last().map_or(0, |last| last.as_usize()) - first)
}

fn with_items<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef) -> Result<ArrayRef, NotConverted> {
    let (first, length) = extent(list.offsets());
    let values = convert(&list.values().slice(first, length), item.data_type())?;
    let (offsets, nulls) = (OffsetBuffer::from_lengths(list.offsets().lengths()), list.nulls().cloned());
    Ok(Arc::new(GenericListArray::<O>::try_new(Arc::clone(item), offsets, values, nulls)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, BooleanArray, Date32Array, Date64Array, Decimal128Array, Decimal256Array, DictionaryArray,
        Float64Array, Int32Array, Int64Array, ListArray, NullArray, StringArray, StringViewArray, StructArray,
        Time64NanosecondArray, TimestampMillisecondArray, TimestampSecondArray, UInt64Array,
    };
    use arrow::datatypes::{DataType, Date64Type, Field, Fields, Int32Type, Int64Type, TimeUnit, i256};

    use crate::execute::convert::{NotConverted, convert};

    fn array(array: impl Array + 'static) -> ArrayRef {
        Arc::new(array)
    }

    fn shown(result: Result<ArrayRef, NotConverted>) -> String {
        match result {
            Ok(column) => format!("{column:?}"),
            Err(NotConverted::Value { shown }) => shown,
            Err(NotConverted::Types(_)) => "types".into(),
        }
    }

    #[test]
    fn values_are_the_same_in_the_other_type() {
        let seconds = TimestampSecondArray::from(vec![Some(-1), None]);
        let milliseconds = TimestampMillisecondArray::from(vec![Some(-1000), None]);
        let wide = Decimal256Array::from(vec![i256::from(1234)]).with_precision_and_scale(40, 2).unwrap();
        let narrow = Decimal128Array::from(vec![1234]).with_precision_and_scale(38, 2).unwrap();
        // NULL by its key, or by its value.
        let keys = Int32Array::from(vec![Some(0), None, Some(1)]);
        let texts = Arc::new(StringArray::from(vec![Some("a"), None]));
        let dictionary = DictionaryArray::<Int32Type>::new(keys, texts);
        let of_days =
            ListArray::from_iter_primitive::<Date64Type, _, _>([Some([Some(86_400_000)]), None, Some([None])]);
        let days =
            ListArray::from_iter_primitive::<arrow::datatypes::Date32Type, _, _>([Some([Some(1)]), None, Some([None])]);
        let cases = [
            (array(seconds), array(milliseconds)),
            (
                array(Date64Array::from(vec![Some(86_400_000), Some(-86_400_000), None])),
                array(Date32Array::from(vec![Some(1), Some(-1), None])),
            ),
            (array(wide), array(narrow)),
            (array(dictionary), array(StringViewArray::from(vec![Some("a"), None, None]))),
            (array(of_days), array(days)),
            (array(Int64Array::from(vec![1 << 53])), array(Float64Array::from(vec![9007199254740992.0]))),
            (array(Int64Array::from(vec![Some(5), None])), array(Int32Array::from(vec![Some(5), None]))),
            (array(Int64Array::from(vec![-5])), array(StringArray::from(vec!["-5"]))),
            (array(StringArray::from(vec![Some("12"), None])), array(Int64Array::from(vec![Some(12), None]))),
            (array(NullArray::new(2)), array(Int64Array::from(vec![None, None]))),
            (
                array(UInt64Array::from(vec![u64::MAX])),
                array(Decimal128Array::from(vec![i128::from(u64::MAX)]).with_precision_and_scale(20, 0).unwrap()),
            ),
        ];
        for (given, expected) in cases {
            let converted = convert(&given, expected.data_type()).unwrap();
            assert_eq!(&converted, &expected, "{:?} to {:?}", given.data_type(), expected.data_type());
        }
    }

    #[test]
    fn structs_are_converted_by_name() {
        let of = |columns: Vec<(&str, ArrayRef)>| {
            let fields: Fields = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
            StructArray::new(fields, columns.into_iter().map(|(_, c)| c).collect(), None)
        };
        let given = of(vec![("b", array(Int32Array::from(vec![1]))), ("gone", array(Int32Array::from(vec![7])))]);
        let expected = of(vec![("a", array(BooleanArray::from(vec![None]))), ("b", array(Int64Array::from(vec![1])))]);
        assert_eq!(convert(&array(given), expected.data_type()).unwrap().as_ref(), &expected as &dyn Array);
    }

    #[test]
    fn a_value_without_an_equal_is_an_error_that_shows_it() {
        let decimal =
            |value, scale| array(Decimal128Array::from(vec![0, value]).with_precision_and_scale(10, scale).unwrap());
        let items = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)]), Some([Some(300)])]);
        let cases = [
            (array(Date64Array::from(vec![0, 43_200_000])), DataType::Date32, "1970-01-01T12:00:00"),
            (
                array(Time64NanosecondArray::from(vec![1000, 1001])),
                DataType::Time64(TimeUnit::Microsecond),
                "00:00:00.000001001",
            ),
            (decimal(1234, 2), DataType::Decimal128(10, 1), "12.34"),
            (decimal(1234, 2), DataType::Decimal128(3, 2), "12.34"),
            (
                array(TimestampSecondArray::from(vec![Some(0), Some(i64::MAX / 10)])),
                DataType::Timestamp(TimeUnit::Millisecond, None),
                "922337203685477580",
            ),
            (array(Int64Array::from(vec![0, (1 << 53) + 1])), DataType::Float64, "9007199254740993"),
            (array(Int64Array::from(vec![0, i64::MAX])), DataType::Float64, "9223372036854775807"),
            (array(Int64Array::from(vec![0, 128])), DataType::Int8, "128"),
            (array(Float64Array::from(vec![0.0, 0.1])), DataType::Float32, "0.1"),
            (array(Float64Array::from(vec![0.0, 1.5])), DataType::Int64, "1.5"),
            (array(StringArray::from(vec!["0", "1.5"])), DataType::Int64, "1.5"),
            (array(items), DataType::new_list(DataType::Int8, true), "300"),
            (array(BooleanArray::from(vec![true])), DataType::Date32, "types"),
        ];
        for (given, to, expected) in cases {
            let result = shown(convert(&given, &to));
            assert!(result.contains(expected), "{:?} to {to}: {result}", given.data_type());
        }
    }
}
